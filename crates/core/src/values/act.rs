//! Acts: what a user did, found by a snapshot or asked for at the command line, before it is a change.
//!
//! An act names nodes and what the user had seen of them, never what the replica knows by now: changes
//! may have been merged that are not on the user's disk yet, and to those the act is concurrent.

use smallvec::SmallVec;

use super::{Body, FileContent, LinkTarget, SeenNodes};
use crate::vocabulary::{Kind, Mode, Name, NodeId, Owner, Stamp, Timestamp, Xattrs};

/// Position in [`Acts::directories`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirectoryIndex(pub u32);

/// Position of an [`Act::Create`] in [`Acts::acts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NewNode(pub u32);

/// A directory that acts refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryRef {
    /// The root.
    Root,
    /// One that was there, as its user saw it.
    Seen(SeenNodes),
    /// One that an earlier act of the same batch creates.
    Created(NewNode),
}

/// A directory and the chain of those above it, as the user saw them: what R4 and R15 need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenDirectory {
    /// The directory that holds it; earlier in the table. None for the root only.
    pub parent: Option<DirectoryIndex>,
    /// Which one it is.
    pub directory: DirectoryRef,
}

/// What one user did between two looks at the disk. Becomes one change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acts {
    /// The directories that the acts name, each after its parent.
    ///
    /// The chain of a directory that an act moves is the one from before the move.
    pub directories: Vec<SeenDirectory>,
    /// The acts in the order in which they take effect.
    pub acts: Vec<Act>,
}

impl Acts {
    /// Whether nothing was done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.acts.is_empty()
    }
}

/// One thing that a user did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Made a new node.
    Create {
        /// Where.
        directory: DirectoryIndex,
        /// Under which name; free, or hidden, when the user looked.
        name: Name,
        /// What.
        body: Body,
        /// Its permission bits.
        mode: Mode,
        /// Its owner, where owners are replicated.
        owner: Option<Owner>,
        /// Its extended attributes.
        xattrs: Xattrs,
    },
    /// Wrote a file, or let another file's content take its place (R10).
    Edit {
        /// The directory that holds it.
        directory: DirectoryIndex,
        /// The entry as it was seen; its first node is edited. Current contents that are not among
        /// those seen stay open versions.
        entry: SeenNodes,
        /// What it holds now.
        content: FileContent,
        /// The entries that were renamed over this one, as they were seen: what was open there beside
        /// what stood is carried along. Each has a `Remove` of its own later in the batch.
        inherits: SmallVec<[SeenNodes; 1]>,
    },
    /// Pointed a symbolic link elsewhere.
    Relink {
        /// The directory that holds it.
        directory: DirectoryIndex,
        /// The entry as it was seen.
        entry: SeenNodes,
        /// The new text.
        target: LinkTarget,
        /// The link's own mtime.
        mtime: Timestamp,
    },
    /// Renamed an entry: all its nodes, in the order that keeps the same one standing.
    Move {
        /// The directory that it left.
        from: DirectoryIndex,
        /// The entry as it was seen.
        entry: SeenNodes,
        /// The directory that holds it now.
        to: DirectoryIndex,
        /// Its name there.
        name: Name,
    },
    /// Removed an entry: all its nodes. A removed directory has a `Remove` for each entry below it.
    Remove {
        /// The directory that held it.
        directory: DirectoryIndex,
        /// The entry as it was seen.
        entry: SeenNodes,
    },
    /// Set the permission bits.
    SetMode {
        /// The directory that holds it.
        directory: DirectoryIndex,
        /// The entry as it was seen.
        entry: SeenNodes,
        /// The new bits.
        mode: Mode,
    },
    /// Set owner and group.
    SetOwner {
        /// The directory that holds it.
        directory: DirectoryIndex,
        /// The entry as it was seen.
        entry: SeenNodes,
        /// The new owner.
        owner: Owner,
    },
    /// Set or removed an extended attribute.
    SetXattr {
        /// The directory that holds it.
        directory: DirectoryIndex,
        /// The entry as it was seen.
        entry: SeenNodes,
        /// Full name of the attribute.
        attribute: Box<[u8]>,
        /// The value; none if it was removed.
        value: Option<Box<[u8]>>,
    },
    /// Changed the mtime and nothing else.
    Touch {
        /// The directory that holds it; for the root's own mtime, the root.
        directory: DirectoryIndex,
        /// The entry as it was seen.
        entry: SeenNodes,
        /// The new mtime.
        mtime: Timestamp,
    },
}

/// What became of one act: the writes that an observer of the act has seen from then on.
///
/// Which field of [`super::Seen`] they replace follows from the act: `Create` gives the node, its place
/// and (but for directories) its content the one stamp; `Edit` and `Relink` replace `contents`; `Move`
/// replaces `places`; the others nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Performed {
    /// Nodes written and the stamp of the write, the standing node first.
    pub written: SmallVec<[(NodeId, Stamp); 1]>,
    /// Nodes of the entry that the act also deleted: hidden ones of equal content (R6).
    pub absorbed: SmallVec<[NodeId; 1]>,
    /// Directories whose place the act wrote down as it was, for a repair held it up (R15): its author
    /// has seen that.
    pub pinned: SmallVec<[(NodeId, Stamp); 1]>,
    /// The node that the act made of an open version, which the entry is from now on, and the stamp of its birth.
    pub made: Option<(NodeId, Stamp)>,
}

impl Act {
    /// The directory and the entry that the act is on, as they were seen; none of what makes a node.
    #[must_use]
    pub fn on(&self) -> Option<(DirectoryIndex, &SeenNodes)> {
        Some(match self {
            Self::Create { .. } => return None,
            Self::Move { from, entry, .. } => (*from, entry),
            Self::Edit { directory, entry, .. }
            | Self::Relink { directory, entry, .. }
            | Self::Remove { directory, entry }
            | Self::SetMode { directory, entry, .. }
            | Self::SetOwner { directory, entry, .. }
            | Self::SetXattr { directory, entry, .. }
            | Self::Touch { directory, entry, .. } => (*directory, entry),
        })
    }

    /// The kind of the node that a `Create` makes.
    #[must_use]
    pub fn created_kind(&self) -> Option<Kind> {
        match self {
            Self::Create { body, .. } => Some(body.kind()),
            _ => None,
        }
    }
}
