//! Deeds: what changes did, one node at a time, as people are told of it. What the log shows.

use serde::{Deserialize, Serialize};

use super::{Body, ChangeId};
use crate::vocabulary::{Kind, MasterId, Mode, NodeId, Owner, Stamp, TreePath};

/// One thing that a change did to one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// The change that did it.
    pub change: ChangeId,
    /// The write that stands for it; of what wrote a content, the version's name.
    pub stamp: Stamp,
    /// Who did it.
    pub master: MasterId,
    /// When, by its author's clock, in milliseconds since 1970. It orders nothing.
    pub time_ms: i64,
    /// What it was done to.
    pub node: NodeId,
    /// What sort of thing that is.
    pub kind: Kind,
    /// What it was called from then on, as its author saw it; none if that is not known.
    pub path: Option<TreePath>,
    /// The directories that this path leads through, innermost first, without the root; after a move, also
    /// those that the former path led through.
    pub within: Vec<NodeId>,
    /// What was done.
    pub what: What,
}

/// What was done to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It was made.
    Created {
        /// With this in it.
        body: Body,
        /// And these permission bits.
        mode: Mode,
    },
    /// It was written to, or another file took its place.
    Edited {
        /// What it held before, as its author saw it; none if that is not known.
        before: Option<Body>,
        /// What it held then.
        after: Body,
    },
    /// Of several versions that were open, this was chosen.
    Resolved {
        /// What stood before.
        before: Option<Body>,
        /// What was chosen.
        after: Body,
    },
    /// It was renamed, or moved to another directory.
    Moved {
        /// What it was called before, as its author saw it; none if that is not known.
        from: Option<TreePath>,
    },
    /// Its permission bits were set.
    ModeChanged {
        /// What they were before.
        before: Option<Mode>,
        /// What they were then.
        after: Mode,
    },
    /// Owner or group was set.
    OwnerChanged {
        /// The owner from then on.
        after: Owner,
    },
    /// An extended attribute was set or removed.
    AttributeChanged {
        /// Which.
        attribute: Box<[u8]>,
    },
    /// The time of its last modification was set, and nothing else.
    Touched,
    /// It was removed.
    Deleted {
        /// What it held.
        body: Option<Body>,
    },
    /// It had been deleted, and was brought back.
    Restored {
        /// What it held before it was deleted.
        before: Option<Body>,
        /// What it was brought back with.
        after: Option<Body>,
    },
}

/// What a change is about, without its details: what an index of the log needs to know of it.
///
/// A function of the change alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The change.
    pub change: ChangeId,
    /// When its author's clock says it was made, in milliseconds since 1970.
    pub time_ms: i64,
    /// Each node that it wrote to, but for those that it bore, and each directory that it put something into
    /// or removed something from; by id, each once. Of a node that was only touched it says nothing.
    pub nodes: Vec<NodeId>,
    /// Whether it gave nodes other places: then it is about the directories they left as well.
    pub moved: Moved,
}

/// Whether a change gave nodes other places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moved {
    /// It gave none.
    #[default]
    Nothing,
    /// It did.
    Something,
}
