//! One node as the tree keeps it. Compact: a million of them are ordinary.
//!
//! What nearly every node has one of is inline; second values, extended attributes and the like are
//! boxed aside. Names are shared with the directory's index.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::intern::{OwnerNumber, Tick};
use crate::replica::register::Carried;
use crate::values::{Body, FileContent, LinkTarget};
use crate::vocabulary::{Kind, Mode, NodeId, Stamp, Timestamp};

/// A node's number in this tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(pub(super) u32);

impl Key {
    pub(super) const ROOT: Self = Self(0);
}

/// A few nodes, usually one.
pub(super) type Keys = SmallVec<[Key; 2]>;

/// A name, shared.
pub(super) type SharedName = Arc<[u8]>;

/// A value of `place`.
#[derive(Clone, Debug)]
pub(super) struct Placement {
    pub(super) stamp: Tick,
    pub(super) parent: Key,
    pub(super) name: SharedName,
}

impl Placement {
    /// Whether both are under one name in one directory, whoever wrote them.
    pub(super) fn same_spot(&self, other: &Self) -> bool {
        self.parent == other.parent && self.name == other.name
    }
}

/// One of the places that a directory ever had.
#[derive(Clone, Debug)]
pub(super) struct DirectoryPlace {
    pub(super) place: Placement,
    /// Of the change that wrote it.
    pub(super) sequence: u64,
    pub(super) origin: PlaceOrigin,
    pub(super) standing: PlaceState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlaceOrigin {
    /// Everybody who knows the directory has seen it.
    Birth,
    Move,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlaceState {
    /// No other place of the directory was written by somebody who had seen it.
    Current,
    Superseded,
}

/// What only directories have.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    /// The live nodes that stand in this directory, by name.
    pub(super) children: BTreeMap<SharedName, Keys>,
    /// The directories shown as one with this one, if there are others: position in the unions (R6).
    pub(super) union: Option<u32>,
    pub(super) mtime: Timestamp,
    /// All places it ever had, newest first.
    pub(super) history: Vec<DirectoryPlace>,
    /// Where in the history it stands: 0 unless it has fallen back (R2).
    pub(super) position: usize,
}

impl Directory {
    pub(super) fn new(mtime: Timestamp) -> Self {
        Self { children: BTreeMap::new(), union: None, mtime, history: Vec::new(), position: 0 }
    }

    /// The place where it stands; none if no place is left to fall back to.
    pub(super) fn place(&self) -> Option<&Placement> {
        self.history.get(self.position).map(|entry| &entry.place)
    }

    pub(super) fn current(&self) -> impl Iterator<Item = &DirectoryPlace> {
        self.history.iter().filter(|entry| entry.standing == PlaceState::Current)
    }
}

/// Kind and content.
#[derive(Clone, Debug)]
pub(super) enum Matter {
    /// Named by others before its birth was learnt. The gate lets no such change in.
    Unborn,
    Directory(Box<Directory>),
    File(FileContent),
    Symlink(Box<(LinkTarget, Timestamp)>),
}

/// One current value of `content`.
#[derive(Clone, Debug)]
pub(super) struct ContentValue {
    pub(super) stamp: Tick,
    pub(super) body: Body,
    pub(super) carried: Vec<Carried>,
}

/// One current value of `deleted` that is not life.
#[derive(Clone, Debug)]
pub(super) struct Removal {
    pub(super) stamp: Tick,
    pub(super) observed: SmallVec<[Tick; 2]>,
    /// What its author saw above; none if that was the root alone, which never moves.
    pub(super) witness: Option<u32>,
}

/// What few nodes have.
#[derive(Clone, Debug, Default)]
pub(super) struct Rare {
    /// Of a file or link: the current places besides the one where it stands.
    pub(super) other_places: Vec<Placement>,
    /// All current contents by rising stamp, if there are several or some are carried; else empty.
    pub(super) contents: Vec<ContentValue>,
    pub(super) xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
    /// The newest `touch` of a file or link.
    pub(super) touch: Option<(Tick, Timestamp)>,
    /// Versions that were closed one by one, and the nodes that were made of them.
    pub(super) closed: BTreeMap<Stamp, Vec<NodeId>>,
}

/// A node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    /// Where it stands, whether it is live or not; none only if no place is usable.
    pub(super) place: Option<Placement>,
    pub(super) matter: Matter,
    /// Of the newest content; of a directory, of its birth.
    pub(super) stamp: Tick,
    /// Of its birth.
    pub(super) born: Tick,
    pub(super) mode: Mode,
    pub(super) owner: OwnerNumber,
    /// All its places and contents are covered by a delete that is not void (R3, R4).
    pub(super) is_dead: bool,
    /// It is among the children of the directory where it stands: it lives, or is kept by a child (R5).
    pub(super) is_attached: bool,
    pub(super) removals: Option<Box<[Removal]>>,
    pub(super) rare: Option<Box<Rare>>,
}

impl Node {
    pub(super) fn unborn(id: NodeId, stamp: Tick) -> Self {
        Self {
            id,
            place: None,
            matter: Matter::Unborn,
            stamp,
            born: stamp,
            mode: Mode::new(0o755),
            owner: OwnerNumber::default(),
            is_dead: false,
            is_attached: false,
            removals: None,
            rare: None,
        }
    }

    pub(super) fn kind(&self) -> Option<Kind> {
        match self.matter {
            Matter::Unborn => None,
            Matter::Directory(_) => Some(Kind::Directory),
            Matter::File(_) => Some(Kind::File),
            Matter::Symlink(_) => Some(Kind::Symlink),
        }
    }

    pub(super) fn directory(&self) -> Option<&Directory> {
        match &self.matter {
            Matter::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn directory_mut(&mut self) -> Option<&mut Directory> {
        match &mut self.matter {
            Matter::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// The current places of a file or link besides the one where it stands.
    pub(super) fn other_places(&self) -> &[Placement] {
        self.rare.as_ref().map_or(&[], |rare| &rare.other_places)
    }

    /// The current contents by rising stamp, if there are several or some are carried.
    pub(super) fn several_contents(&self) -> &[ContentValue] {
        self.rare.as_ref().map_or(&[], |rare| &rare.contents)
    }

    /// Versions that were closed one by one, and the nodes that were made of them.
    pub(super) fn closed(&self) -> Option<&BTreeMap<Stamp, Vec<NodeId>>> {
        self.rare.as_ref().map(|rare| &rare.closed)
    }

    /// What stands, with the mtime of its write.
    pub(super) fn body(&self) -> Option<Body> {
        Some(match &self.matter {
            Matter::Unborn => return None,
            Matter::Directory(directory) => Body::Directory { mtime: directory.mtime },
            Matter::File(content) => Body::File(*content),
            Matter::Symlink(link) => Body::Symlink { target: link.0.clone(), mtime: link.1 },
        })
    }
}
