//! What users do on several masters, as changes: a port of `Master` of `semantics_model.py`.
//!
//! A [`Master`] holds a set of changes and the derived tree of it, absorbed in whatever batches the
//! changes came in. Its acts read the derived tree and write what R9, R10 and R15 ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::updates::updates;
use super::{AbstractChange, Changes, Naive, Picture};
use crate::replica::register::{Birth, Carried, Content, Deletion, Place, Register, Value, Write};
use crate::replica::sibling_names::MasterNames;
use crate::replica::tree::Tree;
use crate::values::{Body, ChangeId, FileContent, LinkTarget, TreeDelta, TreeView};
use crate::vocabulary::{
    ContentHash, Kind, MasterId, Mode, NodeId, Owner, Stamp, Timestamp, TreePath, VersionVector,
    WriterId, Xattrs,
};

/// What a user does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Deed {
    Create(TreePath, Body),
    Edit(TreePath, Body),
    Remove(TreePath),
    /// To a path that is free.
    Move(TreePath, TreePath),
    /// A file over another.
    MoveOver(TreePath, TreePath),
    Chmod(TreePath, u32),
    Chown(TreePath, u32),
    Touch(TreePath, i64),
    SetXattr(TreePath, Option<u8>),
    /// Keeps what stands and closes the other versions.
    Close(TreePath),
}

/// Bytes that only this token makes, with an mtime of their own.
pub(crate) fn file(token: u32, mtime: i64) -> Body {
    Body::File(FileContent {
        hash: ContentHash::of(&token.to_le_bytes()),
        size: u64::from(token),
        mtime: Timestamp { seconds: mtime, nanos: 0 },
    })
}

/// A link whose text only this token makes.
pub(crate) fn link(token: u32) -> Body {
    let target = LinkTarget::new(token.to_string().into_bytes()).unwrap();
    Body::Symlink { target, mtime: Timestamp { seconds: i64::from(token), nanos: 0 } }
}

/// A new directory.
pub(crate) fn directory() -> Body {
    Body::Directory { mtime: Timestamp::default() }
}

/// A master with its user.
#[derive(Clone, Debug)]
pub(crate) struct Master {
    pub(crate) writer: WriterId,
    sequence: u64,
    counter: u64,
    known: VersionVector,
    pub(crate) changes: Changes,
    pub(crate) tree: Tree,
    /// What the last absorption answered.
    pub(crate) delta: TreeDelta,
    /// The setting: what masters are called in the names of siblings, if these are shown.
    pub(crate) siblings: Option<MasterNames>,
}

/// A change in the making.
pub(super) struct Draft {
    /// The stamp before that of the first write.
    before: Stamp,
    pub(super) writes: Vec<(NodeId, Write)>,
}

impl Draft {
    /// The stamp of the last write.
    pub(super) fn last(&self) -> Stamp {
        Stamp { counter: self.before.counter + self.writes.len() as u64, ..self.before }
    }

    pub(super) fn put(&mut self, node: NodeId, register: Register, value: Value) {
        self.writes.push((node, Write::Register(node, register, value)));
    }

    /// A stamp of the change's own: that of a content which another will replace.
    pub(super) fn stamp(&mut self, node: NodeId, body: &Body) -> Stamp {
        let content = Content { body: body.clone(), carried: vec![] };
        self.put(node, Register::Content, Value::Content(content));
        self.last()
    }

    fn places(&self, node: NodeId) -> bool {
        self.place_of(node).is_some()
    }

    /// The stamp of the place that the draft writes for a node.
    fn place_of(&self, node: NodeId) -> Option<Stamp> {
        let index = self.writes.iter().position(|(other, write)| {
            *other == node && matches!(write, Write::Register(_, Register::Place, _))
        })?;
        Some(Stamp { counter: self.before.counter + 1 + index as u64, ..self.before })
    }
}

impl Master {
    pub(crate) fn new(number: u8) -> Self {
        Self {
            writer: WriterId::new(MasterId([number; 32]), [0; 8]),
            sequence: 0,
            counter: 0,
            known: VersionVector::new(),
            changes: Changes::new(),
            tree: Tree::new(),
            delta: TreeDelta::default(),
            siblings: None,
        }
    }

    /// Shows siblings or none, from now on.
    pub(crate) fn show_siblings(&mut self, siblings: Option<MasterNames>) {
        let nodes = self.tree.show_siblings(siblings.clone());
        self.delta = TreeDelta { nodes, ..TreeDelta::default() };
        self.siblings = siblings;
    }

    pub(crate) fn picture(&self) -> Picture {
        picture(&self.tree)
    }

    /// What another has and this one has not, and could take in next.
    pub(crate) fn ready(&self, other: &Self) -> Vec<Arc<AbstractChange>> {
        let unknown =
            other.changes.values().filter(|change| !self.changes.contains_key(&change.id));
        unknown.filter(|change| self.known.covers(&change.seen)).cloned().collect()
    }

    /// Takes in changes that are ready.
    pub(crate) fn take(&mut self, changes: Vec<Arc<AbstractChange>>) {
        for change in &changes {
            self.known.advance(change.id.writer, change.id.sequence);
            for (stamp, _) in &change.writes {
                self.counter = self.counter.max(stamp.counter);
            }
            self.changes.insert(change.id, change.clone());
        }
        let updates = updates(&self.changes, &changes, &self.tree);
        self.delta = self.tree.absorb(updates, &self.changes);
    }

    /// Takes in all that another has, in one batch for each step of causality.
    pub(crate) fn merge(&mut self, other: &Self) {
        loop {
            let ready = self.ready(other);
            if ready.is_empty() {
                return;
            }
            self.take(ready);
        }
    }

    fn commit(&mut self, draft: Draft) {
        if draft.writes.is_empty() {
            return;
        }
        let seen = self.known.clone();
        self.sequence += 1;
        let id = ChangeId { writer: self.writer, sequence: self.sequence };
        let mut writes = vec![];
        for (_, write) in draft.writes {
            self.counter += 1;
            writes.push((Stamp { counter: self.counter, writer: self.writer }, write));
        }
        self.take(vec![Arc::new(AbstractChange { id, seen, writes })]);
    }

    /// Does a deed as one change; answers the bytes that its user knowingly ended.
    pub(crate) fn perform(&mut self, deed: &Deed, unseen: Vec<Stamp>) -> Vec<Body> {
        let act = Acting { tree: &self.tree, entries: entries(&self.tree), unseen };
        let before = Stamp { counter: self.counter, writer: self.writer };
        let mut draft = Draft { before, writes: vec![] };
        let ended = act.perform(&mut draft, deed);
        self.commit(draft);
        ended
    }
}

/// All there is to see of a derived tree.
pub(crate) fn picture(tree: &Tree) -> Picture {
    let entries: BTreeMap<_, _> = tree.entries().collect();
    for (path, view) in &entries {
        assert_eq!(tree.lookup(path), Some(view.standing()), "lookup of {path}");
        for seen in &view.nodes {
            assert_eq!(tree.path(seen.node).as_ref(), Some(path), "path of {path}");
            assert_eq!(tree.entry(seen.node).as_ref(), Some(view), "entry of {path}");
        }
    }
    let conflicts = tree.conflicts();
    assert_eq!(conflicts.len(), tree.conflict_count());
    let held = entries.values().flat_map(|view| &view.nodes).map(|seen| seen.node);
    let held = held.filter(|&node| tree.is_held(node)).collect();
    Picture { entries, conflicts, fallen: tree.fallen().collect(), held }
}

/// The tree of some changes by both ways, which must be one.
pub(crate) fn assert_as_from_scratch(master: &Master) -> Picture {
    let picture = master.picture();
    let naive = Naive::new(&master.changes, master.siblings.clone());
    assert_eq!(picture, naive.picture(), "derived and from scratch");
    picture
}

fn entries(tree: &Tree) -> BTreeMap<TreePath, Vec<NodeId>> {
    let nodes = |nodes: crate::values::SeenNodes| nodes.into_iter().map(|seen| seen.node).collect();
    tree.entries().map(|(path, view)| (path, nodes(view.nodes))).collect()
}

/// A user's look at the tree.
pub(super) struct Acting<'a> {
    pub(super) tree: &'a Tree,
    pub(super) entries: BTreeMap<TreePath, Vec<NodeId>>,
    unseen: Vec<Stamp>,
}

impl Acting<'_> {
    fn perform(&self, draft: &mut Draft, deed: &Deed) -> Vec<Body> {
        if let Some(ended) = self.act_on_sibling(draft, deed) {
            return ended;
        }
        match deed {
            Deed::Create(path, body) => self.create(draft, path, body),
            Deed::Edit(path, body) => return self.edit(draft, path, body),
            Deed::Remove(path) => return self.remove(draft, path),
            Deed::Move(from, to) => self.rename(draft, from, to),
            Deed::MoveOver(from, to) => return self.rename_over(draft, from, to),
            Deed::Close(path) => return self.close(draft, path),
            Deed::Chmod(path, bits) => {
                self.set(draft, path, Register::Mode, Value::Mode(Mode::new(*bits)));
            }
            Deed::Chown(path, uid) => {
                let (user, group) = (uid.to_string(), String::new());
                let (user, group) = (user.into(), group.into());
                let owner = Owner { user, uid: *uid, group, gid: 0 };
                self.set(draft, path, Register::Owner, Value::Owner(owner));
            }
            Deed::Touch(path, seconds) => {
                let mtime = Timestamp { seconds: *seconds, nanos: 0 };
                self.set(draft, path, Register::Touch, Value::Touch(mtime));
            }
            Deed::SetXattr(path, value) => {
                let value = value.map(|value| Box::from([value]));
                self.set(draft, path, Register::Xattr((*b"user.x").into()), Value::Xattr(value));
            }
        }
        vec![]
    }

    fn set(&self, draft: &mut Draft, path: &TreePath, register: Register, value: Value) {
        self.settle_above(draft, path);
        for &node in &self.entries[path] {
            draft.put(node, register.clone(), value.clone());
        }
    }

    /// All nodes of the entry at a path, those that are shown beside it too.
    pub(super) fn members(&self, path: &TreePath) -> Vec<NodeId> {
        self.tree.members_of_entry(self.entries[path][0])
    }

    fn is_directory(&self, node: NodeId) -> bool {
        self.tree.kind(node) == Some(Kind::Directory)
    }

    /// R15: pins what a repair holds up on the directories above an act.
    pub(super) fn settle_above(&self, draft: &mut Draft, path: &TreePath) {
        for length in 1..path.names().len() {
            let above = TreePath::new(path.names()[..length].to_vec());
            for &node in &self.entries[&above] {
                if self.is_directory(node) {
                    self.settle(draft, node);
                }
            }
        }
    }

    fn settle(&self, draft: &mut Draft, node: NodeId) {
        // A second place in one change would be another stamp for nothing.
        if draft.places(node) {
            return;
        }
        let pin = |draft: &mut Draft, node| {
            let place = self.tree.place(node).unwrap().1;
            draft.put(node, Register::Place, Value::Place(place));
        };
        if self.tree.is_fallen(node) {
            for fallen in self.tree.fallen().collect::<BTreeSet<_>>() {
                if !draft.places(fallen) {
                    pin(draft, fallen);
                }
            }
        } else if self.tree.is_held(node) {
            pin(draft, node);
        }
        if self.tree.is_held(node) {
            draft.put(node, Register::Deleted, Value::Deleted(None));
        }
    }

    pub(super) fn place_at(&self, path: &TreePath) -> Place {
        let (directory, name) = path.split_last().unwrap();
        let parent = match directory.is_root() {
            true => NodeId::ROOT,
            false => self.entries[&directory][0],
        };
        Place { parent, name: name.clone() }
    }

    fn create(&self, draft: &mut Draft, path: &TreePath, body: &Body) {
        self.settle_above(draft, path);
        let birth = Birth {
            place: self.place_at(path),
            body: body.clone(),
            mode: Mode::new(0o644),
            owner: None,
            xattrs: Xattrs::new(),
        };
        draft.writes.push((NodeId::ROOT, Write::Birth(birth)));
    }

    /// All that is open of a node, those of equal bytes too: each has a number of its own.
    pub(super) fn open(&self, node: NodeId) -> Vec<Carried> {
        let standing = self.tree.contents(node).unwrap();
        let mut open = vec![];
        for (stamp, content) in self.tree.content_values(node) {
            open.push(Carried { stamp, body: content.body });
            open.extend(content.carried);
        }
        open.retain(|version| !version.body.same_bytes(&standing.body));
        open.sort();
        open.dedup_by_key(|version| version.stamp);
        open
    }

    pub(super) fn write(
        &self,
        draft: &mut Draft,
        node: NodeId,
        body: Body,
        mut carried: Vec<Carried>,
    ) {
        carried.retain(|version| !version.body.same_bytes(&body));
        for version in &mut carried {
            if self.tree.has_removed(node, version) {
                version.stamp = draft.stamp(node, &body);
            }
        }
        let content = Content { body, carried };
        draft.put(node, Register::Content, Value::Content(content));
    }

    /// Deletes the nodes hidden at an entry that hold just what stands.
    pub(super) fn absorb_equals(&self, draft: &mut Draft, nodes: &[NodeId], standing: &Body) {
        for &node in &nodes[1..] {
            let hidden = self.tree.contents(node).unwrap();
            if hidden.body.same_bytes(standing) && hidden.open.is_empty() {
                self.delete(draft, node);
            }
        }
    }

    pub(super) fn edit(&self, draft: &mut Draft, path: &TreePath, body: &Body) -> Vec<Body> {
        self.settle_above(draft, path);
        let nodes = &self.entries[path];
        let before = self.tree.contents(nodes[0]).unwrap();
        self.write(draft, nodes[0], body.clone(), self.open(nodes[0]));
        self.absorb_equals(draft, nodes, &before.body);
        vec![before.body]
    }

    fn close(&self, draft: &mut Draft, path: &TreePath) -> Vec<Body> {
        self.settle_above(draft, path);
        let nodes = &self.members(path);
        let mut ended = vec![];
        for &node in nodes {
            let place = self.tree.place(node).unwrap().1;
            draft.put(node, Register::Place, Value::Place(place));
            if node == nodes[0] || self.is_directory(node) {
                draft.put(node, Register::Deleted, Value::Deleted(None));
            }
        }
        if let Some(standing) = self.tree.contents(nodes[0]) {
            ended.extend(standing.open.into_iter().map(|version| version.body));
            self.write(draft, nodes[0], standing.body, vec![]);
        }
        for &node in nodes[1..].iter().filter(|&&node| !self.is_directory(node)) {
            let hidden = self.tree.contents(node).unwrap();
            ended.extend(hidden.open.into_iter().map(|version| version.body));
            ended.push(hidden.body);
            self.delete(draft, node);
        }
        ended
    }

    pub(super) fn delete(&self, draft: &mut Draft, node: NodeId) {
        let seen = self.tree.seen(node).unwrap();
        let removed = self.tree.removed_contents(node).into_iter().chain(draft.place_of(node));
        let observed = seen.places.into_iter().chain(seen.contents).chain(removed).collect();
        let (above, unseen) = (self.tree.above(node), self.unseen.clone());
        let deletion = Deletion { observed, above, unseen };
        draft.put(node, Register::Deleted, Value::Deleted(Some(deletion)));
    }

    fn remove(&self, draft: &mut Draft, path: &TreePath) -> Vec<Body> {
        self.settle_above(draft, path);
        let mut ended = vec![];
        let below = self.entries.iter().filter(|(below, _)| below.starts_with(path));
        let nodes: BTreeSet<NodeId> =
            below.flat_map(|(_, nodes)| self.tree.members_of_entry(nodes[0])).collect();
        for node in nodes {
            self.delete(draft, node);
            if let Some(contents) = self.tree.contents(node) {
                ended.push(contents.body);
                ended.extend(contents.open.into_iter().map(|version| version.body));
            }
        }
        ended
    }

    fn rename(&self, draft: &mut Draft, from: &TreePath, to: &TreePath) {
        self.settle_above(draft, from);
        self.settle_above(draft, to);
        let place = self.place_at(to);
        for node in self.members(from) {
            draft.writes.retain(|(other, write)| {
                *other != node || !matches!(write, Write::Register(_, Register::Place, _))
            });
            draft.put(node, Register::Place, Value::Place(place.clone()));
            if self.tree.is_held(node) {
                draft.put(node, Register::Deleted, Value::Deleted(None));
            }
        }
        for (below, nodes) in &self.entries {
            if below.starts_with(from) && below != from {
                for &node in nodes {
                    self.settle(draft, node);
                }
            }
        }
    }

    fn rename_over(&self, draft: &mut Draft, from: &TreePath, to: &TreePath) -> Vec<Body> {
        self.settle_above(draft, from);
        self.settle_above(draft, to);
        let (source, target) = (&self.members(from), &self.entries[to]);
        let new = self.tree.contents(source[0]).unwrap();
        let old = self.tree.contents(target[0]).unwrap();
        let mut inherited = new.open;
        for &hidden in &source[1..] {
            let hidden = self.tree.contents(hidden).unwrap();
            inherited.push(Carried { stamp: hidden.stamp, body: hidden.body });
            inherited.extend(hidden.open);
        }
        // Others have seen them elsewhere, and carry none of them here.
        for version in &mut inherited {
            version.stamp = draft.stamp(target[0], &new.body);
        }
        let carried = [self.open(target[0]), inherited].concat();
        self.write(draft, target[0], new.body, carried);
        self.absorb_equals(draft, target, &old.body);
        for &node in source {
            self.delete(draft, node);
        }
        vec![old.body]
    }
}
