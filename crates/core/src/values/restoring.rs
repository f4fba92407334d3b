//! Restoring: what of the past is to be there again.

use super::Body;
use crate::vocabulary::{Mode, NodeId, Stamp};

/// How a node was at some moment of the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// The node.
    pub node: NodeId,
    /// The directory that held it then; none if that is not known.
    pub parent: Option<NodeId>,
    /// The write of what it held: the version's name.
    pub stamp: Stamp,
    /// What it held.
    pub body: Body,
    /// Its permission bits.
    pub mode: Option<Mode>,
    /// Whether it was there, or had been deleted by then.
    pub life: Life,
}

/// Whether something was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It was.
    There,
    /// It had been deleted.
    Deleted,
}

/// A node that is to be as it was. Becomes a change like any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restoring {
    /// The node. If it is not in the tree, it comes back to where it was last, and so do the directories above
    /// it that are not there either, without what else they held.
    pub node: NodeId,
    /// What it shall hold; none to leave that.
    pub body: Option<Body>,
    /// Its permission bits; none to leave them.
    pub mode: Option<Mode>,
}
