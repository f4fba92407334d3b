//! The base: the tree as it was last known to be on this disk, and whose nodes its entries are.
//!
//! It mirrors the disk, so it is a tree of entries that know their parent and name: renaming a directory
//! of a million files changes one entry. What differs between base and disk, a user did; what differs
//! between base and the merged tree is still to be projected.
//!
//! Invariant: every entry is reachable from the root or from the parking (where entries wait while
//! names are swapped), only directories have children, names are unique in a directory, and the
//! indices agree with the entries. What it lacks: any opinion on what should be there.

mod stored;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use smallvec::smallvec;

pub use stored::{BaseError, BaseRow};

use super::{Body, Location, ParkingId, Seen, SeenNodes};
use crate::vocabulary::{
    Attributes, ContentHash, Fingerprint, Kind, Mode, Name, NodeId, Timestamp, TreePath,
};

/// The key of an entry: stable while the entry lives, never reused. The root's is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BaseId(pub u64);

impl BaseId {
    /// The root directory. It always has an entry, whose parent is itself and whose name means nothing.
    pub const ROOT: Self = Self(0);
    /// Stands as the parent of entries that wait in the staging area; has no entry of its own.
    pub const PARKING: Self = Self(u64::MAX);
}

/// One entry as it was last seen or put on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseEntry {
    /// The directory that holds it.
    pub parent: BaseId,
    /// Its name there.
    pub name: Name,
    /// The nodes that the path stood for, with what had been seen of them; the standing one first.
    pub nodes: SeenNodes,
    /// What the tree had there when it was seen or put.
    pub body: Body,
    /// As the tree had them.
    pub attributes: Attributes,
    /// What `stat` said.
    pub fingerprint: Fingerprint,
}

impl BaseEntry {
    /// The node that stands at the path; none of an entry that no node is known of.
    #[must_use]
    pub fn standing(&self) -> Option<NodeId> {
        self.nodes.first().map(|seen| seen.node)
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.body.kind() == Kind::Directory
    }
}

/// The tree as it was last known to be on this disk.
#[derive(Clone, Debug)]
pub struct Base {
    /// Boxed, since a B-tree that grows at its end is only half full.
    entries: BTreeMap<BaseId, Box<BaseEntry>>,
    children: BTreeMap<BaseId, BTreeMap<Name, BaseId>>,
    nodes: BTreeMap<NodeId, BaseId>,
    /// Entries that no node of their own is left to, by the nodes that they were.
    former: BTreeSet<(NodeId, BaseId)>,
    objects: BTreeSet<(u64, u64, BaseId)>,
    /// By the first eight bytes of the hash; the entry tells the rest.
    hashes: BTreeSet<(u64, BaseId)>,
    dirty: BTreeSet<BaseId>,
    /// Directories that a node has left, since this was last asked for.
    parted: BTreeSet<BaseId>,
    /// Contents that are needed, and that only the files here hold.
    relied_on: BTreeSet<ContentHash>,
    /// Of these, what a file has ceased to hold since this was last asked for.
    released: BTreeSet<ContentHash>,
    next: u64,
}

/// Only a root, of which nothing is known yet.
impl Default for Base {
    fn default() -> Self {
        let mut base = Self::without_root();
        base.index(BaseId::ROOT, root_entry());
        base.dirty.insert(BaseId::ROOT);
        base
    }
}

fn root_entry() -> BaseEntry {
    let epoch = Timestamp::default();
    BaseEntry {
        parent: BaseId::ROOT,
        name: Name::try_from("root").expect("a plain name"),
        nodes: smallvec![Seen { node: NodeId::ROOT, places: smallvec![], contents: smallvec![] }],
        body: Body::Directory { mtime: epoch },
        attributes: Attributes::with_mode(0o755),
        fingerprint: Fingerprint {
            device: 0,
            inode: 0,
            kind: Kind::Directory,
            mode: Mode::new(0o755),
            uid: 0,
            gid: 0,
            size: 0,
            modified: epoch,
            changed: epoch,
            born: epoch,
        },
    }
}

fn hash_prefix(hash: &ContentHash) -> u64 {
    let mut prefix = [0; 8];
    prefix.copy_from_slice(&hash.0[..8]);
    u64::from_be_bytes(prefix)
}

impl Base {
    /// The entry with this key.
    #[must_use]
    pub fn entry(&self, id: BaseId) -> Option<&BaseEntry> {
        self.entries.get(&id).map(|entry| &**entry)
    }

    /// How many entries there are, the root included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing but the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.len() <= 1
    }

    /// The entry called `name` in `directory`.
    #[must_use]
    pub fn child(&self, directory: BaseId, name: &Name) -> Option<BaseId> {
        self.children.get(&directory)?.get(name).copied()
    }

    /// The entries in `directory`, by name.
    pub fn children(&self, directory: BaseId) -> impl Iterator<Item = (&Name, BaseId)> {
        self.children.get(&directory).into_iter().flatten().map(|(name, &id)| (name, id))
    }

    /// The entries that wait in the staging area. Each is parked under its own key.
    pub fn parked(&self) -> impl Iterator<Item = BaseId> {
        self.children.get(&BaseId::PARKING).into_iter().flatten().map(|(_, &id)| id)
    }

    /// Where the entry is; none if there is no such entry.
    #[must_use]
    pub fn location(&self, id: BaseId) -> Option<Location> {
        let mut names = Vec::new();
        let mut at = id;
        loop {
            if at == BaseId::ROOT {
                names.reverse();
                return Some(Location::Tree(TreePath::new(names)));
            }
            let entry = self.entries.get(&at)?;
            if entry.parent == BaseId::PARKING {
                names.reverse();
                return Some(Location::Parked(ParkingId(at.0), TreePath::new(names)));
            }
            names.push(entry.name.clone());
            at = entry.parent;
        }
    }

    /// The entry's path; none if there is no such entry, or it is parked.
    #[must_use]
    pub fn path(&self, id: BaseId) -> Option<TreePath> {
        match self.location(id)? {
            Location::Tree(path) => Some(path),
            Location::Parked(..) => None,
        }
    }

    /// The entry at `path`.
    #[must_use]
    pub fn find(&self, path: &TreePath) -> Option<BaseId> {
        path.names().iter().try_fold(BaseId::ROOT, |at, name| self.child(at, name))
    }

    /// The entry that `node` is part of.
    #[must_use]
    pub fn by_node(&self, node: NodeId) -> Option<BaseId> {
        self.nodes.get(&node).copied()
    }

    /// The entries that `node` was part of before it became part of another, and that would be no
    /// node's without it.
    pub fn formerly_of(&self, node: NodeId) -> impl Iterator<Item = BaseId> {
        self.former.range((node, BaseId(0))..=(node, BaseId(u64::MAX))).map(|&(_, id)| id)
    }

    /// The entries that are this object; several if it has several names.
    pub fn by_object(&self, device: u64, inode: u64) -> impl Iterator<Item = BaseId> {
        self.objects
            .range((device, inode, BaseId(0))..=(device, inode, BaseId(u64::MAX)))
            .map(|&(_, _, id)| id)
    }

    /// The files that hold these bytes.
    pub fn by_hash(&self, hash: ContentHash) -> impl Iterator<Item = BaseId> {
        let prefix = hash_prefix(&hash);
        self.hashes
            .range((prefix, BaseId(0))..=(prefix, BaseId(u64::MAX)))
            .map(|&(_, id)| id)
            .filter(move |id| {
                matches!(&self.entries[id].body, Body::File(content) if content.hash == hash)
            })
    }

    /// All entries, by key.
    pub fn iter(&self) -> impl Iterator<Item = (BaseId, &BaseEntry)> {
        self.entries.iter().map(|(&id, entry)| (id, &**entry))
    }

    /// Adds an entry. What was at its place is forgotten, with all below.
    ///
    /// # Panics
    ///
    /// If the parent is no directory of this base.
    pub fn insert(&mut self, entry: BaseEntry) -> BaseId {
        assert!(self.holds_entries(entry.parent), "an entry's parent is in the base");
        let id = BaseId(self.next);
        self.next += 1;
        if let Some(displaced) = self.child(entry.parent, &entry.name) {
            self.remove(displaced);
        }
        self.part(id, &entry);
        self.index(id, entry);
        self.dirty.insert(id);
        id
    }

    /// Changes an entry, all but its place; does nothing if there is none.
    pub fn update(&mut self, id: BaseId, change: impl FnOnce(&mut BaseEntry)) {
        let Some(mut entry) = self.unindex(id) else { return };
        let (parent, name) = (entry.parent, entry.name.clone());
        change(&mut entry);
        (entry.parent, entry.name) = (parent, name);
        self.part(id, &entry);
        self.index(id, entry);
        self.dirty.insert(id);
    }

    /// Gives an entry another place: one row, whatever is below it. What was there is forgotten.
    ///
    /// # Panics
    ///
    /// If `parent` is no directory of this base, or is the entry or below it.
    pub fn relocate(&mut self, id: BaseId, parent: BaseId, name: Name) {
        assert!(self.holds_entries(parent), "an entry's parent is in the base");
        assert!(!self.is_within(parent, id), "no entry is below itself");
        match self.child(parent, &name) {
            Some(same) if same == id => return,
            Some(displaced) => self.remove(displaced),
            None => {}
        }
        let Some(mut entry) = self.unindex(id) else { return };
        (entry.parent, entry.name) = (parent, name);
        self.index(id, entry);
        self.dirty.insert(id);
    }

    /// Notes that an entry waits in the staging area, under its own key.
    pub fn park(&mut self, id: BaseId) {
        let name = Name::try_from(id.0.to_string().as_str()).expect("digits are a name");
        self.relocate(id, BaseId::PARKING, name);
    }

    /// Forgets an entry and everything below it. The root stays.
    pub fn remove(&mut self, id: BaseId) {
        if id == BaseId::ROOT {
            return;
        }
        let mut doomed = vec![id];
        while let Some(at) = doomed.pop() {
            doomed.extend(self.children(at).map(|(_, child)| child));
            if self.unindex(at).is_some() {
                self.dirty.insert(at);
            }
        }
    }

    /// Whether `id` is `directory` or below it.
    #[must_use]
    pub fn is_within(&self, mut id: BaseId, directory: BaseId) -> bool {
        loop {
            if id == directory {
                return true;
            }
            match self.entries.get(&id) {
                Some(entry) if id != BaseId::ROOT => id = entry.parent,
                _ => return false,
            }
        }
    }

    /// How many entries there are from the root, or from the parking area, to this one: none of the root.
    #[must_use]
    pub fn depth(&self, mut id: BaseId) -> usize {
        let mut depth = 0;
        while let Some(entry) = self.entry(id).filter(|_| id != BaseId::ROOT) {
            depth += 1;
            id = entry.parent;
        }
        depth
    }

    /// The nodes in directories that another node has left since the last call, since it became another entry:
    /// each may be in that one by now.
    pub fn take_parted(&mut self) -> BTreeSet<NodeId> {
        let parted = std::mem::take(&mut self.parted);
        let children = parted.into_iter().flat_map(|id| self.children(id));
        let entries = children.filter_map(|(_, child)| self.entry(child));
        entries.flat_map(|entry| entry.nodes.iter().map(|seen| seen.node)).collect()
    }

    /// Notes that a content is needed that a file here holds: when none does any more, that is told.
    pub fn rely_on(&mut self, hash: ContentHash) {
        self.relied_on.insert(hash);
    }

    /// The contents that were relied on and that no file holds any more.
    pub fn take_lost(&mut self) -> BTreeSet<ContentHash> {
        let released = std::mem::take(&mut self.released);
        let lost = released.into_iter().filter(|&hash| self.by_hash(hash).next().is_none());
        let lost: BTreeSet<ContentHash> = lost.collect();
        for hash in &lost {
            self.relied_on.remove(hash);
        }
        lost
    }

    fn without_root() -> Self {
        Self {
            entries: BTreeMap::new(),
            children: BTreeMap::new(),
            nodes: BTreeMap::new(),
            former: BTreeSet::new(),
            objects: BTreeSet::new(),
            hashes: BTreeSet::new(),
            dirty: BTreeSet::new(),
            parted: BTreeSet::new(),
            relied_on: BTreeSet::new(),
            released: BTreeSet::new(),
            next: 1,
        }
    }

    fn holds_entries(&self, id: BaseId) -> bool {
        id == BaseId::PARKING || self.entry(id).is_some_and(BaseEntry::is_directory)
    }

    /// Nodes that were one entry with others and are this one by now are not the other's any more, unless
    /// none would be left that can stand there: what a user does there is done to the node that left.
    fn part(&mut self, id: BaseId, entry: &BaseEntry) {
        for &Seen { node, .. } in &entry.nodes {
            let other = self.nodes.get(&node).copied().filter(|&other| other != id);
            let Some(other) = other else { continue };
            let Some(known) = self.entries.get_mut(&other) else { continue };
            let directory = known.is_directory();
            let stands = |left: &Seen| !directory || left.contents.is_empty();
            if known.nodes.iter().any(|left| left.node != node && stands(left)) {
                let stood = known.standing() == Some(node);
                known.nodes.retain(|left| left.node != node);
                known.nodes.sort_by_key(|left| !stands(left));
                // Of a file that was hidden nobody has seen the content: what is on the disk was the
                // other's.
                if stood && !directory {
                    known.nodes[0].contents.clear();
                }
                self.dirty.insert(other);
                if directory {
                    self.parted.insert(other);
                }
            }
        }
    }

    fn index(&mut self, id: BaseId, entry: BaseEntry) {
        if id != BaseId::ROOT {
            self.children.entry(entry.parent).or_default().insert(entry.name.clone(), id);
        }
        for &Seen { node, .. } in &entry.nodes {
            self.former.remove(&(node, id));
            let other = self.nodes.insert(node, id).filter(|&other| other != id);
            let lists = |other: &BaseEntry| other.nodes.iter().any(|seen| seen.node == node);
            if let Some(other) = other.filter(|&other| self.entry(other).is_some_and(lists)) {
                self.former.insert((node, other));
            }
        }
        self.objects.insert((entry.fingerprint.device, entry.fingerprint.inode, id));
        if let Body::File(content) = &entry.body {
            self.hashes.insert((hash_prefix(&content.hash), id));
        }
        self.entries.insert(id, Box::new(entry));
    }

    fn unindex(&mut self, id: BaseId) -> Option<BaseEntry> {
        let entry = self.entries.remove(&id)?;
        if let Some(siblings) = self.children.get_mut(&entry.parent)
            && siblings.get(&entry.name) == Some(&id)
        {
            siblings.remove(&entry.name);
            if siblings.is_empty() {
                self.children.remove(&entry.parent);
            }
        }
        for &Seen { node, .. } in &entry.nodes {
            self.former.remove(&(node, id));
            if self.nodes.get(&node) == Some(&id) {
                let heir = self.formerly_of(node).next();
                match heir {
                    Some(heir) => {
                        self.former.remove(&(node, heir));
                        self.nodes.insert(node, heir);
                    }
                    None => drop(self.nodes.remove(&node)),
                }
            }
        }
        self.objects.remove(&(entry.fingerprint.device, entry.fingerprint.inode, id));
        if let Body::File(content) = &entry.body {
            self.hashes.remove(&(hash_prefix(&content.hash), id));
            if self.relied_on.contains(&content.hash) {
                self.released.insert(content.hash);
            }
        }
        Some(*entry)
    }
}
