//! Registers: what a node is made of, and how the document tells the tree that some changed.
//!
//! A node is born with one packed value that holds the first value of every register, under one stamp. A
//! register of its own appears when it first changes; all registers are multi-valued. The places of a
//! directory are special: all it ever had are kept (R2, R4), and which are current follows from who had
//! seen whose.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::values::{Body, ChangeId};
use crate::vocabulary::{Mode, Name, NodeId, Owner, Stamp, Timestamp, Xattrs};

/// Where a node is: in a directory, under a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The directory's node.
    pub parent: NodeId,
    /// The name there.
    pub name: Name,
}

/// The first values of all of a node's registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// The first place.
    pub place: Place,
    /// Kind and first content; the mtime of directories and links is the first of `Touch`.
    pub body: Body,
    /// Permission bits.
    pub mode: Mode,
    /// Owner, where owners are replicated.
    pub owner: Option<Owner>,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// A version that nobody had looked at when another was written: carried along until closed (R9).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Carried {
    /// The write that made it.
    pub stamp: Stamp,
    /// What it wrote: a file's or a link's body.
    pub body: Body,
}

/// A value of the `content` register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// A file's or a link's body.
    pub body: Body,
    /// Open versions that this write did not close, by stamp.
    pub carried: Vec<Carried>,
}

/// A value of the `deleted` register: what its author saw, and where (R3, R4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// Stamps of the places and contents that the author saw.
    pub observed: SmallVec<[Stamp; 2]>,
    /// The directories that the author saw above the node, innermost first, without the root.
    pub above: Vec<NodeId>,
    /// Places of those directories that the author's replica had merged but the author had not seen,
    /// since they were not on the disk yet: concurrent with the delete, whatever the vectors say.
    pub unseen: Vec<Stamp>,
}

/// A register of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Register {
    /// Parent and name.
    Place,
    /// Bytes or link text; not of directories.
    Content,
    /// Permission bits.
    Mode,
    /// Owner and group.
    Owner,
    /// One extended attribute, by full name.
    Xattr(Box<[u8]>),
    /// The mtime set without a write of content; of directories and links, every mtime.
    Touch,
    /// Dead or alive.
    Deleted,
    /// What became of the open version with this stamp, apart from all others of the node (R9).
    Version(Stamp),
}

/// A value of a register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// Of [`Register::Place`].
    Place(Place),
    /// Of [`Register::Content`].
    Content(Content),
    /// Of [`Register::Mode`].
    Mode(Mode),
    /// Of [`Register::Owner`].
    Owner(Owner),
    /// Of [`Register::Xattr`]; none removes the attribute.
    Xattr(Option<Box<[u8]>>),
    /// Of [`Register::Touch`].
    Touch(Timestamp),
    /// Of [`Register::Deleted`]; none is life again.
    Deleted(Option<Deletion>),
    /// Of [`Register::Version`]: the version is closed. Somebody made a node of its own of it, or nobody did.
    Version(Option<NodeId>),
}

/// A value with its stamp and the change that wrote it. The stamp's writer is the change's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written<T> {
    /// The value's own.
    pub stamp: Stamp,
    /// The sequence number of the change, of `stamp.writer`.
    pub sequence: u64,
    /// What was written.
    pub value: T,
}

impl<T> Written<T> {
    /// The change that wrote it.
    #[must_use]
    pub fn change(&self) -> ChangeId {
        ChangeId { writer: self.stamp.writer, sequence: self.sequence }
    }
}

/// Something in the document that is not as the tree knew it. The tree reads nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// A node was born.
    Born(NodeId, Written<Birth>),
    /// A directory was given another place; all places it ever had count.
    DirectoryPlace(NodeId, Written<Place>),
    /// A register has these current values now, all of the register's kind, by rising stamp. It has
    /// been written at least once since birth, so birth's value is not current any more.
    /// Never `Place` of a directory.
    Register(NodeId, Register, Vec<Written<Value>>),
}

/// A write to be put into the document by a local change; the document adds stamp and sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Make a node. Its id is [`NodeId::born_at`] the stamp that [`super::document`] foretells.
    Birth(Birth),
    /// Write a register.
    Register(NodeId, Register, Value),
}

/// Who had seen whose change: the causal order, as far as the tree needs it.
pub trait Causality {
    /// Whether the author of `later` had seen `earlier` when writing, or they are the same change.
    ///
    /// Known for every `later` that holds a delete or a place of a directory other than its first.
    fn saw(&self, later: ChangeId, earlier: ChangeId) -> bool;

    /// The change that has this stamp; none if it isn't known.
    fn change_of(&self, stamp: Stamp) -> Option<ChangeId>;

    /// Whether neither had seen the other.
    fn concurrent(&self, a: ChangeId, b: ChangeId) -> bool {
        !self.saw(a, b) && !self.saw(b, a)
    }
}
