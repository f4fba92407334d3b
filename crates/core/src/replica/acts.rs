//! Turns what a user did into writes (R9, R10, R15; the `Master` of `semantics_model.py`).
//!
//! An act speaks of nodes as its user saw them. What this replica has merged beyond that is concurrent to
//! the act: an edit carries unseen contents along as open versions, a delete names only what was seen.
//!
//! R15: an act at or below a directory that a repair holds up writes the repair down first, so that
//! nobody's later act can make it spring back.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use super::document::Draft;
use super::register::{Birth, Carried, Content, Deletion, Place, Register, Value};
use super::tree::Tree;
use crate::values::{
    Act, Acts, Body, DirectoryIndex, DirectoryRef, NewNode, Performed, Seen, SeenNodes,
};
use crate::vocabulary::{Kind, NodeId, Stamp};

/// Writes all acts into the draft, and says what each of them wrote.
pub(super) fn perform(tree: &Tree, draft: &mut Draft<'_>, acts: &Acts) -> Vec<Performed> {
    let mut scribe = Scribe {
        tree,
        draft,
        acts,
        created: BTreeMap::new(),
        settled: BTreeSet::new(),
        settled_directories: BTreeSet::new(),
        chains: BTreeMap::new(),
    };
    let performed = (0u32..).zip(&acts.acts).map(|(index, act)| scribe.act(NewNode(index), act));
    performed.collect()
}

struct Scribe<'a, 'd> {
    tree: &'a Tree,
    draft: &'a mut Draft<'d>,
    acts: &'a Acts,
    /// Nodes made by acts of this batch.
    created: BTreeMap<NewNode, NodeId>,
    /// Directories whose effective place this batch has written down or changed.
    settled: BTreeSet<NodeId>,
    /// Directories whose whole chain has been settled.
    settled_directories: BTreeSet<DirectoryIndex>,
    /// What a delete in a directory has to name, by directory.
    chains: BTreeMap<DirectoryIndex, (Vec<NodeId>, Vec<Stamp>)>,
}

impl Scribe<'_, '_> {
    fn act(&mut self, index: NewNode, act: &Act) -> Performed {
        match act {
            Act::Create { directory, name, body, mode, owner, xattrs } => {
                self.settle_chain(*directory);
                let place = Place { parent: self.parent(*directory), name: name.clone() };
                let birth = Birth {
                    place,
                    body: body.clone(),
                    mode: *mode,
                    owner: owner.clone(),
                    xattrs: xattrs.clone(),
                };
                let (node, stamp) = self.draft.birth(birth);
                self.created.insert(index, node);
                Performed { written: SmallVec::from_elem((node, stamp), 1), ..Default::default() }
            }
            Act::Edit { directory, entry, content, inherits } => {
                self.settle_chain(*directory);
                self.rewrite(entry, Body::File(*content), inherits)
            }
            Act::Relink { directory, entry, target, mtime } => {
                self.settle_chain(*directory);
                let body = Body::Symlink { target: target.clone(), mtime: *mtime };
                self.rewrite(entry, body, &[])
            }
            Act::Move { from, entry, to, name } => {
                self.settle_chain(*from);
                self.settle_chain(*to);
                let parent = self.parent(*to);
                self.relocate(entry, &Place { parent, name: name.clone() })
            }
            Act::Remove { directory, entry } => {
                self.settle_chain(*directory);
                self.remove(*directory, entry)
            }
            Act::SetMode { directory, entry, mode } => {
                self.set(*directory, entry, &Register::Mode, &Value::Mode(*mode))
            }
            Act::SetOwner { directory, entry, owner } => {
                self.set(*directory, entry, &Register::Owner, &Value::Owner(owner.clone()))
            }
            Act::SetXattr { directory, entry, attribute, value } => {
                let register = Register::Xattr(attribute.clone());
                self.set(*directory, entry, &register, &Value::Xattr(value.clone()))
            }
            Act::Touch { directory, entry, mtime } => {
                self.set(*directory, entry, &Register::Touch, &Value::Touch(*mtime))
            }
        }
    }

    /// The node that new entries of this directory are put into.
    fn parent(&self, directory: DirectoryIndex) -> NodeId {
        match &self.acts.directories[directory.0 as usize].directory {
            DirectoryRef::Root => NodeId::ROOT,
            DirectoryRef::Seen(nodes) => nodes[0].node,
            DirectoryRef::Created(new) => {
                *self.created.get(new).expect("a directory is created before it is used")
            }
        }
    }

    /// Pins what a repair holds up, on this directory and all above it (R15).
    fn settle_chain(&mut self, directory: DirectoryIndex) {
        let mut next = Some(directory);
        while let Some(index) = next {
            if !self.settled_directories.insert(index) {
                return;
            }
            let seen = &self.acts.directories[index.0 as usize];
            if let DirectoryRef::Seen(nodes) = &seen.directory {
                for seen in nodes {
                    self.settle(seen.node);
                }
            }
            next = seen.parent;
        }
    }

    /// Writes down the repair that holds a directory where it is, if one does.
    fn settle(&mut self, directory: NodeId) {
        if self.settled.contains(&directory) {
            return;
        }
        if self.tree.is_fallen(directory) {
            // All of them: one that stays may stand only because of another that fell.
            for fallen in self.tree.fallen() {
                self.pin(fallen);
            }
        } else if self.tree.is_held(directory) {
            self.pin(directory);
        }
        if self.tree.is_held(directory) {
            self.draft.register(
                directory,
                Kind::Directory,
                Register::Deleted,
                Value::Deleted(None),
            );
        }
    }

    fn pin(&mut self, directory: NodeId) {
        if self.settled.insert(directory)
            && let Some(place) = self.tree.effective_place(directory)
        {
            let value = Value::Place(place);
            self.draft.register(directory, Kind::Directory, Register::Place, value);
        }
    }

    fn kind(&self, node: NodeId) -> Option<Kind> {
        self.tree.kind(node)
    }

    /// A new content for the node that stands (R7, R9).
    fn rewrite(&mut self, entry: &SeenNodes, body: Body, inherits: &[NodeId]) -> Performed {
        let edited = &entry[0];
        let seen_stamp = edited.contents.iter().max().copied();
        let current = self.tree.contents(edited.node);
        let seen_body = current
            .iter()
            .find(|value| Some(value.stamp) == seen_stamp)
            .map(|value| value.value.body.clone());
        let mut carried: Vec<Carried> = Vec::new();
        for value in &current {
            carried.extend(value.value.carried.iter().cloned());
            if Some(value.stamp) != seen_stamp {
                carried.push(Carried { stamp: value.stamp, body: value.value.body.clone() });
            }
        }
        for &source in inherits {
            carried.extend(self.versions_at(source));
        }
        let ended = |other: &Body| {
            other.same_bytes(&body) || seen_body.as_ref().is_some_and(|seen| seen.same_bytes(other))
        };
        carried.retain(|version| !ended(&version.body));
        carried.sort();
        carried.dedup_by(|a, b| a.body.same_bytes(&b.body));
        let kind = body.kind();
        let content = Value::Content(Content { body, carried });
        let stamp = self.draft.register(edited.node, kind, Register::Content, content);
        let absorbed = match seen_body {
            Some(seen_body) => self.absorb_equals(&entry[1..], &seen_body),
            None => SmallVec::new(),
        };
        Performed { written: SmallVec::from_elem((edited.node, stamp), 1), absorbed }
    }

    /// All that was open at the entry of `node` beside what stood: hidden nodes and their versions.
    fn versions_at(&self, node: NodeId) -> Vec<Carried> {
        let mut versions = Vec::new();
        for member in self.tree.members_of_entry(node) {
            for value in self.tree.contents(member) {
                versions.push(Carried { stamp: value.stamp, body: value.value.body });
                versions.extend(value.value.carried);
            }
        }
        versions
    }

    /// Deletes hidden nodes that held what stood: one file, and the act on it is written to all (R6).
    fn absorb_equals(&mut self, hidden: &[Seen], standing: &Body) -> SmallVec<[NodeId; 1]> {
        let mut absorbed = SmallVec::new();
        for seen in hidden {
            let contents = self.tree.contents(seen.node);
            let equal = !contents.is_empty()
                && contents.iter().all(|value| {
                    value.value.body.same_bytes(standing) && value.value.carried.is_empty()
                });
            if equal {
                let above = self.tree.above(seen.node);
                self.delete(seen, above, Vec::new());
                absorbed.push(seen.node);
            }
        }
        absorbed
    }

    /// Moves all nodes of an entry, in the order that keeps the same one standing: by rising stamp.
    fn relocate(&mut self, entry: &SeenNodes, place: &Place) -> Performed {
        let mut written = SmallVec::new();
        for seen in entry {
            let Some(kind) = self.kind(seen.node) else { continue };
            let value = Value::Place(place.clone());
            let stamp = self.draft.register(seen.node, kind, Register::Place, value);
            self.settled.insert(seen.node);
            written.push((seen.node, stamp));
            if self.tree.is_held(seen.node) {
                self.draft.register(seen.node, kind, Register::Deleted, Value::Deleted(None));
            }
            if kind == Kind::Directory {
                for repaired in self.tree.repaired_below(seen.node) {
                    self.settle(repaired);
                }
            }
        }
        Performed { written, absorbed: SmallVec::new() }
    }

    fn remove(&mut self, directory: DirectoryIndex, entry: &SeenNodes) -> Performed {
        let mut written = SmallVec::new();
        for seen in entry {
            let (above, unseen) = self.chain(directory, seen.node);
            if let Some(stamp) = self.delete(seen, above, unseen) {
                written.push((seen.node, stamp));
            }
        }
        Performed { written, absorbed: SmallVec::new() }
    }

    fn delete(&mut self, seen: &Seen, above: Vec<NodeId>, unseen: Vec<Stamp>) -> Option<Stamp> {
        let kind = self.kind(seen.node)?;
        let observed = seen.places.iter().chain(&seen.contents).copied().collect();
        let deletion = Deletion { observed, above, unseen };
        let value = Value::Deleted(Some(deletion));
        Some(self.draft.register(seen.node, kind, Register::Deleted, value))
    }

    /// The directories that the user saw above an entry of `directory`, innermost first, and those of
    /// their places that the user had not seen. Of united directories only those that `node` is in.
    fn chain(&mut self, directory: DirectoryIndex, node: NodeId) -> (Vec<NodeId>, Vec<Stamp>) {
        let united = self.has_united(directory);
        if !united && let Some(chain) = self.chains.get(&directory) {
            return chain.clone();
        }
        let ancestors: BTreeSet<NodeId> =
            if united { self.tree.above(node).into_iter().collect() } else { BTreeSet::new() };
        let (mut above, mut unseen) = (Vec::new(), Vec::new());
        let mut next = Some(directory);
        while let Some(index) = next {
            let level = &self.acts.directories[index.0 as usize];
            if let DirectoryRef::Seen(nodes) = &level.directory {
                let inside = nodes.iter().any(|seen| ancestors.contains(&seen.node));
                for seen in nodes.iter().filter(|seen| !inside || ancestors.contains(&seen.node)) {
                    above.push(seen.node);
                    let places = self.tree.places(seen.node);
                    unseen.extend(places.into_iter().filter(|stamp| !seen.places.contains(stamp)));
                }
            }
            next = level.parent;
        }
        if !united {
            self.chains.insert(directory, (above.clone(), unseen.clone()));
        }
        (above, unseen)
    }

    fn has_united(&self, directory: DirectoryIndex) -> bool {
        let mut next = Some(directory);
        while let Some(index) = next {
            let level = &self.acts.directories[index.0 as usize];
            if matches!(&level.directory, DirectoryRef::Seen(nodes) if nodes.len() > 1) {
                return true;
            }
            next = level.parent;
        }
        false
    }

    /// A field of the node that stands, and of those that are one with it.
    fn set(
        &mut self,
        directory: DirectoryIndex,
        entry: &SeenNodes,
        register: &Register,
        value: &Value,
    ) -> Performed {
        self.settle_chain(directory);
        let mut written = SmallVec::new();
        let standing = self.tree.contents(entry[0].node).pop();
        for (position, seen) in entry.iter().enumerate() {
            let Some(kind) = self.kind(seen.node) else { continue };
            let one = position == 0
                || match (&standing, self.tree.contents(seen.node).pop()) {
                    (Some(standing), Some(other)) => {
                        standing.value.body.same_bytes(&other.value.body)
                    }
                    (None, None) => kind == Kind::Directory,
                    _ => false,
                };
            if one {
                self.settle(seen.node);
                let stamp =
                    self.draft.register(seen.node, kind, register.clone(), value.clone());
                written.push((seen.node, stamp));
            }
        }
        Performed { written, absorbed: SmallVec::new() }
    }
}
