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
use crate::vocabulary::{Kind, Mode, NodeId, Stamp};

/// How large a change gets before the rest of a batch goes into the next one, in bytes: well below
/// what a message holds.
const CHANGE_BYTES_TARGET: usize = 1 << 20;

/// How many open versions a file carries at most.
const CARRIED_MAX: usize = 4_096;

/// What acts of one batch have done so far; a large batch becomes several changes.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// What each act wrote.
    pub(super) performed: Vec<Performed>,
    /// Nodes made by acts of this batch.
    created: BTreeMap<NewNode, NodeId>,
    /// Directories whose effective place this batch has written down or changed.
    settled: BTreeSet<NodeId>,
    /// The places that were written down: whoever deletes the directory later in the batch saw them.
    pinned: BTreeMap<NodeId, Stamp>,
    /// Those that the act under way wrote down.
    just_pinned: Vec<(NodeId, Stamp)>,
    /// Directories whose whole chain has been settled.
    settled_directories: BTreeSet<DirectoryIndex>,
    /// What a delete in a directory has to name, by directory.
    chains: BTreeMap<DirectoryIndex, (Vec<NodeId>, Vec<Stamp>)>,
    /// Nodes that were made of open versions, by what stands for these in the view.
    pub(super) made: BTreeMap<NodeId, NodeId>,
    /// Versions that were closed by themselves, and where.
    pub(super) closed: BTreeSet<(NodeId, Stamp)>,
    /// Where files were moved to.
    pub(super) placed: BTreeMap<NodeId, Place>,
}

/// Writes the acts that are still to be performed into the draft, as many as one change may hold.
pub(super) fn perform(tree: &Tree, draft: &mut Draft<'_>, acts: &Acts, progress: &mut Progress) {
    let mut scribe = Scribe { tree, draft, acts, progress };
    while let Some(act) = acts.acts.get(scribe.progress.performed.len())
        && scribe.draft.size_estimate() < CHANGE_BYTES_TARGET
    {
        let index = u32::try_from(scribe.progress.performed.len()).expect("a batch fits in memory");
        let mut performed = scribe.act(NewNode(index), act);
        performed.pinned = scribe.progress.just_pinned.drain(..).collect();
        scribe.progress.performed.push(performed);
    }
}

pub(super) struct Scribe<'a, 'd> {
    pub(super) tree: &'a Tree,
    pub(super) draft: &'a mut Draft<'d>,
    acts: &'a Acts,
    pub(super) progress: &'a mut Progress,
}

impl Scribe<'_, '_> {
    fn act(&mut self, index: NewNode, act: &Act) -> Performed {
        if let Some(performed) = self.act_on_sibling(act) {
            return performed;
        }
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
                self.progress.created.insert(index, node);
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
            Act::SetMode { directory, entry, .. }
            | Act::SetOwner { directory, entry, .. }
            | Act::SetXattr { directory, entry, .. }
            | Act::Touch { directory, entry, .. } => {
                self.settle_chain(*directory);
                self.set_by(act, entry)
            }
        }
    }

    /// Sets what an act sets that writes neither content nor place.
    pub(super) fn set_by(&mut self, act: &Act, entry: &SeenNodes) -> Performed {
        match act {
            Act::SetMode { mode, .. } => self.set(entry, &Register::Mode, &Value::Mode(*mode)),
            Act::SetOwner { owner, .. } => {
                self.set(entry, &Register::Owner, &Value::Owner(owner.clone()))
            }
            Act::SetXattr { attribute, value, .. } => {
                let register = Register::Xattr(attribute.clone());
                self.set(entry, &register, &Value::Xattr(value.clone()))
            }
            Act::Touch { mtime, .. } => self.set(entry, &Register::Touch, &Value::Touch(*mtime)),
            _ => Performed::default(),
        }
    }

    /// The node that new entries of this directory are put into.
    pub(super) fn parent(&self, directory: DirectoryIndex) -> NodeId {
        match &self.acts.directories[directory.0 as usize].directory {
            DirectoryRef::Root => NodeId::ROOT,
            DirectoryRef::Seen(nodes) => nodes[0].node,
            DirectoryRef::Created(new) => {
                *self.progress.created.get(new).expect("a directory is created before it is used")
            }
        }
    }

    /// Pins what a repair holds up, on this directory and all above it (R15).
    pub(super) fn settle_chain(&mut self, directory: DirectoryIndex) {
        let mut next = Some(directory);
        while let Some(index) = next {
            if !self.progress.settled_directories.insert(index) {
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
        if self.progress.settled.contains(&directory) {
            return;
        }
        if self.tree.is_fallen(directory) {
            // All of them: one that stays may stand only because of another that fell.
            let fallen: Vec<NodeId> = self.tree.fallen().collect();
            for directory in fallen {
                self.pin(directory);
            }
        } else if self.tree.is_held(directory) {
            self.pin(directory);
        }
        if self.tree.is_held(directory) {
            self.draft.register(directory, Register::Deleted, Value::Deleted(None));
        }
    }

    /// Writes down where a directory stands; all that are shown as one with it, in the order that keeps
    /// the same one standing.
    fn pin(&mut self, directory: NodeId) {
        if self.progress.settled.contains(&directory) {
            return;
        }
        for united in self.tree.united_directories(directory) {
            if self.progress.settled.insert(united)
                && let Some((_, place)) = self.tree.place(united)
            {
                let stamp = self.draft.register(united, Register::Place, Value::Place(place));
                self.progress.pinned.insert(united, stamp);
                self.progress.just_pinned.push((united, stamp));
            }
        }
    }

    /// A new content for the node that stands (R7, R9).
    pub(super) fn rewrite(
        &mut self,
        entry: &SeenNodes,
        body: Body,
        inherits: &[SeenNodes],
    ) -> Performed {
        let edited = &entry[0];
        if self.tree.kind(edited.node) != Some(body.kind()) {
            return self.beside(edited.node, body);
        }
        let open =
            self.tree.content_values(edited.node).into_iter().flat_map(|(stamp, content)| {
                let Content { body, carried } = content;
                carried.into_iter().chain([Carried { stamp, body }])
            });
        let mut open: Vec<Carried> = open.collect();
        // It may be carried along itself by what came meanwhile.
        let seen_stamp = edited.contents.iter().max().copied();
        let seen = open.iter().find(|version| Some(version.stamp) == seen_stamp);
        let seen_body = seen.map(|version| version.body.clone());
        let ended = |version: &Carried| {
            let seen = seen_body.as_ref();
            version.body.same_bytes(&body)
                || seen.is_some_and(|seen| seen.same_bytes(&version.body))
        };
        let inherited = inherits.iter().flat_map(|source| self.open_versions_at(source));
        let inherited: Vec<Carried> = inherited.filter(|version| !ended(version)).collect();
        open.retain(|version| !ended(version));
        let carried = self.carried_at(edited.node, open, inherited);
        let content = Value::Content(Content { body, carried });
        let stamp = self.draft.register(edited.node, Register::Content, content);
        let absorbed = match seen_body {
            Some(seen_body) => self.absorb_equals(&entry[1..], &seen_body),
            None => SmallVec::new(),
        };
        let written = SmallVec::from_elem((edited.node, stamp), 1);
        Performed { written, absorbed, ..Performed::default() }
    }

    /// What a new content of a node carries along: what is open there, and what it inherits from another.
    pub(super) fn carried_at(
        &mut self,
        node: NodeId,
        mut open: Vec<Carried>,
        mut inherited: Vec<Carried>,
    ) -> Vec<Carried> {
        open.sort();
        open.dedup();
        // By its old stamp it would count as ended here: a delete has seen it, or others have, elsewhere, who
        // don't carry it here.
        let back = open.iter_mut().filter(|version| self.tree.has_removed(node, version));
        for version in back.chain(&mut inherited) {
            version.stamp = self.draft.stamp();
        }
        let mut carried = [open, inherited].concat();
        carried.sort();
        carried.dedup_by(|a, b| a.body.same_bytes(&b.body));
        // The gate admits no more; the oldest have been looked at the longest.
        carried.drain(..carried.len().saturating_sub(CARRIED_MAX));
        carried
    }

    /// What its author wrote at the path of a node that is no such thing, as the file that stood there is
    /// elsewhere by now and had hidden a link: a node of its own.
    fn beside(&mut self, node: NodeId, body: Body) -> Performed {
        let Some((_, place)) = self.tree.place(node) else { return Performed::default() };
        let mode = Mode::new(if body.kind() == Kind::Symlink { 0o777 } else { 0o644 });
        let birth = Birth { place, body, mode, owner: None, xattrs: Default::default() };
        let written = SmallVec::from_elem(self.draft.birth(birth), 1);
        Performed { written, ..Performed::default() }
    }

    /// All that is open at an entry beside what its observer saw stand there: hidden nodes, their
    /// versions, and contents that the observer had not seen.
    pub(super) fn open_versions_at(&self, entry: &SeenNodes) -> Vec<Carried> {
        // What is open beside a sibling is the path's.
        if self.tree.path_of_sibling(entry[0].node).is_some() {
            return Vec::new();
        }
        let stood = entry[0].contents.iter().max().map(|&stamp| (entry[0].node, stamp));
        let mut versions = Vec::new();
        for member in entry.iter().flat_map(|seen| self.tree.members_of_entry(seen.node)) {
            for (stamp, content) in self.tree.content_values(member) {
                if Some((member, stamp)) != stood {
                    versions.push(Carried { stamp, body: content.body });
                }
                versions.extend(content.carried);
            }
        }
        versions
    }

    /// Deletes hidden nodes that held what stood: one file, and the act on it is written to all (R6).
    fn absorb_equals(&mut self, hidden: &[Seen], standing: &Body) -> SmallVec<[NodeId; 1]> {
        let mut absorbed = SmallVec::new();
        for seen in hidden {
            let contents = self.tree.contents(seen.node);
            let equal = contents.is_some_and(|contents| {
                contents.body.same_bytes(standing) && contents.open.is_empty()
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
    pub(super) fn relocate(&mut self, entry: &SeenNodes, place: &Place) -> Performed {
        let mut written = SmallVec::new();
        for seen in entry {
            if let Some(made) = self.made_of(seen) {
                self.draft.register(made, Register::Place, Value::Place(place.clone()));
            }
            let Some(kind) = self.tree.kind(seen.node) else { continue };
            self.progress.placed.insert(seen.node, place.clone());
            let value = Value::Place(place.clone());
            let stamp = self.draft.register(seen.node, Register::Place, value);
            self.progress.settled.insert(seen.node);
            written.push((seen.node, stamp));
            if self.tree.is_held(seen.node) {
                self.draft.register(seen.node, Register::Deleted, Value::Deleted(None));
            }
            if kind == Kind::Directory {
                for repaired in self.tree.repaired_below(seen.node) {
                    self.settle(repaired);
                }
            }
        }
        Performed { written, ..Performed::default() }
    }

    pub(super) fn remove(&mut self, directory: DirectoryIndex, entry: &SeenNodes) -> Performed {
        let mut written = SmallVec::new();
        for seen in entry {
            let (above, unseen) = self.chain(directory, seen.node);
            if let Some(stamp) = self.delete(seen, above, unseen) {
                written.push((seen.node, stamp));
            }
        }
        Performed { written, ..Performed::default() }
    }

    fn delete(&mut self, seen: &Seen, above: Vec<NodeId>, unseen: Vec<Stamp>) -> Option<Stamp> {
        self.tree.kind(seen.node)?;
        let removed = self.tree.removed_contents(seen.node);
        let pinned = self.progress.pinned.get(&seen.node).copied();
        let seen_stamps = seen.places.iter().chain(&seen.contents).copied();
        let observed = seen_stamps.chain(removed).chain(pinned).collect();
        let deletion = Deletion { observed, above, unseen };
        let value = Value::Deleted(Some(deletion));
        Some(self.draft.register(seen.node, Register::Deleted, value))
    }

    /// The directories that the user saw above an entry of `directory`, innermost first, and those of
    /// their places that the user had not seen. Of united directories only those that `node` is in.
    fn chain(&mut self, directory: DirectoryIndex, node: NodeId) -> (Vec<NodeId>, Vec<Stamp>) {
        let united = self.has_united(directory);
        if !united && let Some(chain) = self.progress.chains.get(&directory) {
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
                // A directory may hide files of its name.
                let directories = nodes.iter().filter(|seen| {
                    let is_meant = !inside || ancestors.contains(&seen.node);
                    is_meant && self.tree.kind(seen.node) == Some(Kind::Directory)
                });
                for seen in directories {
                    above.push(seen.node);
                    let places = self.tree.seen(seen.node).map(|now| now.places);
                    let merged = places.into_iter().flatten();
                    unseen.extend(merged.filter(|stamp| !seen.places.contains(stamp)));
                }
            }
            next = level.parent;
        }
        if !united {
            self.progress.chains.insert(directory, (above.clone(), unseen.clone()));
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
    fn set(&mut self, entry: &SeenNodes, register: &Register, value: &Value) -> Performed {
        let mut written = SmallVec::new();
        let standing = self.tree.contents(entry[0].node);
        for (position, seen) in entry.iter().enumerate() {
            let Some(kind) = self.tree.kind(seen.node) else { continue };
            let one = position == 0
                || match (&standing, self.tree.contents(seen.node)) {
                    (Some(standing), Some(other)) => standing.body.same_bytes(&other.body),
                    (None, None) => kind == Kind::Directory,
                    _ => false,
                };
            if one {
                self.settle(seen.node);
                let stamp = self.draft.register(seen.node, register.clone(), value.clone());
                written.push((seen.node, stamp));
            }
        }
        Performed { written, ..Performed::default() }
    }
}
