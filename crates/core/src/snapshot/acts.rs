//! From verdicts to acts: what a user must have done for the disk to be as it was found.
//!
//! Where the merged tree already has what was found, nothing was done but by ourselves before a crash,
//! or by somebody else in the same way: that is adopted, without an act (R13).

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use super::Snapshot;
use super::adoption::{Adoptions, adoptions};
use super::aftermath::Doubtful;
use super::matching::{Matching, Verdict};
use super::settle::{Origin, Step};
use super::siblings::Follow;
use super::survey::{Dir, Sighting, Survey, found_body};
use crate::values::{
    Act, Acts, Base, BaseEntry, BaseId, Body, DirectoryIndex, DirectoryRef, EntryView, NewNode,
    SeenDirectory, SeenNodes, TreeView,
};
use crate::vocabulary::Name;
use crate::vocabulary::{Attributes, Fingerprint, Kind, NodeId};

/// Whether setuid, setgid and sticky bits are part of a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialBits {
    /// They are replicated.
    Keep,
    /// They are not.
    Drop,
}

/// What a snapshot must know beside base, disk and tree.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotRules<'a> {
    /// The store's setting.
    pub special_bits: SpecialBits,
    /// Directories whose mtime our own effects have changed and not yet set right: no act of a user.
    pub disturbed: &'a BTreeSet<BaseId>,
    /// Entries whose absence counts, with all below; none if every absence does. Others may have been
    /// renamed while the survey was under way.
    pub vanished: Option<&'a BTreeSet<BaseId>>,
    /// How many entries may be removed that the tree has. With more, only `passing` are.
    pub removals_max: usize,
    /// Entries that may be removed in any case, and don't count.
    pub passing: &'a BTreeSet<BaseId>,
    /// Entries that an effect of ours may have replaced or removed without anybody knowing: what a user did
    /// in their place may have seen the one or the other.
    pub doubtful: Doubtful<'a>,
    /// Entries with an open conflict, of a base that is of another time or another disk: our own effects may
    /// have done any of what differs, and for changes that are not known any more.
    pub copied: &'a BTreeSet<BaseId>,
}

pub(super) struct Writer<'a, T> {
    pub(super) base: &'a Base,
    pub(super) tree: &'a T,
    pub(super) survey: &'a Survey,
    pub(super) rules: SnapshotRules<'a>,
    pub(super) matching: &'a Matching,
    acts: Acts,
    steps: Vec<Step>,
    table: BTreeMap<Dir, DirectoryIndex>,
    adoptions: &'a Adoptions,
    pub(super) adopted: BTreeSet<NodeId>,
    /// mtimes of directories come last.
    touches: Vec<(usize, Act)>,
}

impl Survey {
    /// Tells what the user did, once [`Survey::next_look`] asks for nothing more.
    pub fn finish<T: TreeView>(mut self, base: &Base, tree: &T, rules: SnapshotRules) -> Snapshot {
        let (mut matching, withheld) = self.guarded_matching(base, tree, &rules);
        let adoptions = adoptions(base, tree, &self, &matching);
        matching.missed.retain(|&id| !adoptions.spare(id));
        let mut writer = Writer {
            base,
            tree,
            survey: &self,
            rules,
            matching: &matching,
            acts: Acts::default(),
            steps: Vec::new(),
            table: BTreeMap::new(),
            adoptions: &adoptions,
            adopted: BTreeSet::new(),
            touches: Vec::new(),
        };
        writer.write();
        let Writer { mut acts, steps, adopted, .. } = writer;
        if acts.acts.is_empty() {
            acts.directories.clear();
        }
        let root = self.root.filter(|&root| {
            base.entry(BaseId::ROOT).is_some_and(|entry| entry.fingerprint != root)
        });
        let mut named = BTreeSet::new();
        for act in &acts.acts {
            if let Act::Create { body: Body::File(content), .. } | Act::Edit { content, .. } = act {
                named.insert(content.hash);
            }
        }
        self.contents.retain(|hash, _| named.contains(hash));
        self.reread_in_missed(base, &matching.missed);
        for at in matching.again {
            let Sighting { directory, name, .. } = &self.sightings[at];
            // Where a directory that is nowhere at present turns up, that goes with it.
            let path = self.path(base, *directory).or_else(|| self.last_path(base, *directory));
            self.reread.extend(path.map(|path| path.join(name)));
        }
        Snapshot {
            withheld,
            seen: matching.verdicts.iter().filter_map(Verdict::known).collect(),
            acts,
            contents: self.contents.into_iter().collect(),
            adopted,
            reread: self.reread,
            missed: matching.missed,
            problems: self.problems,
            steps,
            root,
        }
    }
}

impl Survey {
    /// What was to be looked at in a directory that was not found, and may turn up, is looked at later.
    fn reread_in_missed(&mut self, base: &Base, missed: &[BaseId]) {
        for (&directory, only) in &self.wanted {
            let Dir::Known(id) = directory else { continue };
            if !missed.iter().any(|&missed| base.is_within(id, missed)) {
                continue;
            }
            let Some(path) = base.path(id) else { continue };
            match only {
                Some(names) => self.reread.extend(names.iter().map(|name| path.join(name))),
                None => drop(self.reread.insert(path)),
            }
        }
    }
}

impl<T: TreeView> Writer<'_, T> {
    fn write(&mut self) {
        let matching = self.matching;
        for &at in &matching.order {
            if let Some(view) = self.adoptions.views.get(&at) {
                self.adopt(at, view);
                continue;
            }
            match &matching.verdicts[at] {
                Verdict::Same(id) | Verdict::Moved(id) => self.change(at, *id, &[]),
                Verdict::Continues(id, inherits) => self.change(at, *id, inherits),
                Verdict::New => self.arrive(at),
                Verdict::Unclear => {}
            }
        }
        for &id in &matching.removed {
            if !self.adoptions.spare(id) {
                self.remove(id);
            }
        }
        for &id in &self.adoptions.forgotten {
            let entry = self.base.entry(id).expect("what is forgotten was in the base");
            self.adopted.extend(entry.nodes.iter().map(|seen| seen.node));
            self.steps.push(Step::Remove(id));
        }
        for (step, touch) in std::mem::take(&mut self.touches) {
            let act = self.acts.acts.len();
            self.acts.acts.push(touch);
            if let Step::Change { acts, .. } = &mut self.steps[step] {
                acts.push(act);
            }
        }
    }

    /// An entry that the base knows: moved, written, or set otherwise.
    fn change(&mut self, at: usize, id: BaseId, inherits: &[BaseId]) {
        let survey = self.survey;
        let sighting = &survey.sightings[at];
        let entry = self.base.entry(id).expect("a match is in the base");
        if self.is_left_over(sighting, entry) {
            self.arrive(at);
            self.steps.push(Step::Remove(id));
            return;
        }
        let tree = entry.standing().and_then(|node| self.tree.entry(node));
        let mut done = SmallVec::new();
        let to = self.relocation(sighting, id, entry, tree.as_ref(), &mut done);
        if to.is_none() && self.outlives_its_path(sighting, entry) {
            let directory = self.directory_of(id);
            let (entry, name) = (entry.nodes.clone(), sighting.name.clone());
            self.push(Act::Move { from: directory, entry, to: directory, name }, &mut done);
        }
        let moves = done.len();
        let body = self.body_change(sighting, id, entry, tree.as_ref(), inherits, &mut done);
        let written = done.len() > moves;
        let unread = found_body(sighting).is_none();
        // Of what could not be read only the place is taken: the rest is found again by its
        // fingerprint, which the base keeps.
        let attributes = match unread {
            true => entry.attributes.clone(),
            false => self.attribute_changes(sighting, id, entry, tree.as_ref(), &mut done),
        };
        let step = self.steps.len();
        if entry.is_directory()
            && let Some(touch) = self.directory_touch(sighting, id, entry, tree.as_ref())
        {
            self.touches.push((step, touch));
        }
        let fingerprint = match (unread, self.is_settling(id)) {
            (true, _) => entry.fingerprint,
            // Its attributes are taken; that something came or went is still to be found.
            (false, true) => {
                let Fingerprint { modified, changed, .. } = entry.fingerprint;
                Fingerprint { modified, changed, ..sighting.fingerprint }
            }
            (false, false) => sighting.fingerprint,
        };
        let nodes = match written {
            true => None,
            false => self.nodes_put(sighting, id, entry, tree.as_ref()),
        };
        self.steps.push(Step::Change { id, to, nodes, body, attributes, fingerprint, acts: done });
    }

    /// Whether something in the directory is still to be known: what else changed there is told with that.
    fn is_settling(&self, id: BaseId) -> bool {
        self.survey.settling.contains(&Dir::Known(id))
    }

    pub(super) fn push(&mut self, act: Act, done: &mut SmallVec<[usize; 2]>) {
        done.push(self.acts.acts.len());
        self.acts.acts.push(act);
    }

    fn relocation(
        &mut self,
        sighting: &Sighting,
        id: BaseId,
        entry: &BaseEntry,
        tree: Option<&EntryView>,
        done: &mut SmallVec<[usize; 2]>,
    ) -> Option<(Dir, Name)> {
        let directory = self.matching.settled(sighting.directory);
        if directory == Dir::Known(entry.parent) && sighting.name == entry.name {
            return None;
        }
        let there = tree.is_some_and(|view| {
            view.name == sighting.name && self.is_node_of(directory, view.parent)
        });
        if there {
            self.adopted.extend(entry.standing());
        } else {
            let from = self.directory_of(id);
            let to = self.index(directory);
            let name = sighting.name.clone();
            let entry = self.with_siblings(entry, Follow::Renamed);
            self.push(Act::Move { from, entry, to, name }, done);
        }
        Some((directory, sighting.name.clone()))
    }

    fn body_change(
        &mut self,
        sighting: &Sighting,
        id: BaseId,
        entry: &BaseEntry,
        tree: Option<&EntryView>,
        inherits: &[BaseId],
        done: &mut SmallVec<[usize; 2]>,
    ) -> Body {
        let Some(body) = found_body(sighting) else { return entry.body.clone() };
        if body.kind() == Kind::Directory {
            return match self.is_settling(id) || self.rules.disturbed.contains(&id) {
                true => entry.body.clone(),
                false => body,
            };
        }
        let in_tree = tree.is_some_and(|view| match view.body.same_bytes(&entry.body) {
            true => view.body == body,
            false => view.body.same_bytes(&body),
        });
        let is_ours = inherits.is_empty() && self.rules.doubtful.left(id, &body).is_some();
        if (in_tree || is_ours) && body != entry.body {
            self.adopted.extend(entry.standing());
            return body;
        }
        let directory = self.directory_of(id);
        let seen = self.seen_by_writer(id, entry, tree);
        let inherited: SmallVec<[SeenNodes; 1]> = inherits
            .iter()
            .filter_map(|&id| Some((id, self.base.entry(id)?)))
            .map(|(id, entry)| self.seen_by_renamer(id, entry))
            .collect();
        let act = match &body {
            Body::File(content) if !body.same_bytes(&entry.body) || !inherited.is_empty() => {
                Act::Edit { directory, entry: seen, content: *content, inherits: inherited }
            }
            Body::Symlink { target, mtime } if !body.same_bytes(&entry.body) => {
                Act::Relink { directory, entry: seen, target: target.clone(), mtime: *mtime }
            }
            _ if sighting.fingerprint.modified != entry.fingerprint.modified => {
                Act::Touch { directory, entry: seen, mtime: body.mtime() }
            }
            _ => return entry.body.clone(),
        };
        self.push(act, done);
        body
    }

    fn directory_touch(
        &mut self,
        sighting: &Sighting,
        id: BaseId,
        entry: &BaseEntry,
        tree: Option<&EntryView>,
    ) -> Option<Act> {
        let mtime = sighting.fingerprint.modified;
        if self.is_settling(id) || mtime == entry.fingerprint.modified {
            return None;
        }
        if self.rules.disturbed.contains(&id) {
            self.adopted.extend(entry.standing());
            return None;
        }
        // One that is to go was disturbed by what has gone from it already.
        if tree.is_none_or(|view| view.body.mtime() == mtime) {
            return None;
        }
        let directory = self.directory_of(id);
        Some(Act::Touch { directory, entry: entry.nodes.clone(), mtime })
    }

    /// What the tree has in its place already.
    fn adopt(&mut self, at: usize, view: &EntryView) {
        let survey = self.survey;
        let sighting = &survey.sightings[at];
        let Some(body) = found_body(sighting) else { return };
        self.adopted.insert(view.standing());
        let own = match self.matching.verdicts[at] {
            Verdict::Same(id) => Some(id),
            Verdict::Continues(id, _) if body.kind() == Kind::Directory => Some(id),
            _ => None,
        };
        let directory = self.matching.settled(sighting.directory);
        let (fingerprint, attributes) = (sighting.fingerprint, self.attributes(sighting));
        let (nodes, acts) = (Some(view.nodes.clone()), SmallVec::new());
        if let Some(id) = own {
            let to = None;
            self.steps.push(Step::Change { id, to, nodes, body, attributes, fingerprint, acts });
        } else if let Some(&id) = self.adoptions.origins.get(&at) {
            let to = Some((directory, sighting.name.clone()));
            self.steps.push(Step::Change { id, to, nodes, body, attributes, fingerprint, acts });
        } else {
            if body.kind() == Kind::Directory {
                let parent = Some(self.index(directory));
                self.enter(Dir::New(at), parent, DirectoryRef::Seen(view.nodes.clone()));
            }
            self.insert(at, directory, Origin::Adopted(view.nodes.clone()), body, attributes);
        }
    }

    /// An entry that the base does not know.
    fn arrive(&mut self, at: usize) {
        let survey = self.survey;
        let sighting = &survey.sightings[at];
        let Some(body) = found_body(sighting) else { return };
        let directory = self.matching.settled(sighting.directory);
        let attributes = self.attributes(sighting);
        let nodes = Origin::Created(self.create(at, directory, &body, &attributes));
        self.insert(at, directory, nodes, body, attributes);
    }

    fn insert(
        &mut self,
        at: usize,
        directory: Dir,
        nodes: Origin,
        body: Body,
        attributes: Attributes,
    ) {
        let Sighting { name, fingerprint, .. } = &self.survey.sightings[at];
        let (name, fingerprint) = (name.clone(), *fingerprint);
        self.steps.push(Step::Insert {
            sighting: at,
            directory,
            name,
            nodes,
            body,
            attributes,
            fingerprint,
        });
    }

    fn create(&mut self, at: usize, into: Dir, body: &Body, attributes: &Attributes) -> usize {
        let directory = self.index(into);
        let act = self.acts.acts.len();
        let Attributes { mode, owner, xattrs } = attributes.clone();
        let name = self.survey.sightings[at].name.clone();
        let body = body.clone();
        if body.kind() == Kind::Directory {
            let new = NewNode(u32::try_from(act).expect("fewer than 2^32 acts at once"));
            self.enter(Dir::New(at), Some(directory), DirectoryRef::Created(new));
        }
        self.acts.acts.push(Act::Create { directory, name, body, mode, owner, xattrs });
        act
    }

    fn remove(&mut self, id: BaseId) {
        let entry = self.base.entry(id).expect("what is removed was in the base");
        let nodes = || entry.nodes.iter().map(|seen| seen.node);
        let by_us = self.rules.doubtful.contains(id) && self.is_hidden(entry);
        let is_kept = self.rules.copied.contains(&id) && !self.rules.passing.contains(&id);
        if is_kept || nodes().any(|node| self.belongs_into_what_is_parked(node)) {
            // Before a crash we may have put it there, where nobody looks: once that is back, it is found. What
            // nobody can tell from our own removal is put back.
            self.adopted.extend(nodes());
        } else if !by_us && nodes().any(|node| self.tree.entry(node).is_some()) {
            let directory = self.directory_of(id);
            let entry = self.with_siblings(entry, Follow::Removed);
            self.acts.acts.push(Act::Remove { directory, entry });
        }
        self.steps.push(Step::Remove(id));
    }

    pub(super) fn is_node_of(&self, directory: Dir, node: NodeId) -> bool {
        match directory {
            Dir::Known(id) => match self.adoptions.renewed_nodes(id) {
                Some(nodes) => nodes.iter().any(|seen| seen.node == node),
                None => self.base.by_node(node) == Some(id),
            },
            Dir::New(at) => {
                self.adoptions.views.get(&at).is_some_and(|view| view.standing() == node)
            }
        }
    }

    /// The directory where the base has the entry.
    fn directory_of(&mut self, id: BaseId) -> DirectoryIndex {
        let parent = self.base.entry(id).map_or(BaseId::ROOT, |entry| entry.parent);
        self.index(Dir::Known(parent))
    }

    /// The directory's position in the table, with the chain above as the base has it.
    pub(super) fn index(&mut self, directory: Dir) -> DirectoryIndex {
        let mut chain = Vec::new();
        let mut at = directory;
        let mut parent = loop {
            if let Some(&index) = self.table.get(&at) {
                break Some(index);
            }
            match at {
                Dir::Known(id) if id != BaseId::ROOT => match self.base.entry(id) {
                    Some(entry) => {
                        let nodes = self.adoptions.renewed_nodes(id).unwrap_or(&entry.nodes);
                        chain.push((at, DirectoryRef::Seen(nodes.clone())));
                        at = Dir::Known(entry.parent);
                    }
                    // Parked: it hangs nowhere that a user could see.
                    None => at = Dir::ROOT,
                },
                // New ones are entered before anything in them; only the root is left.
                _ => {
                    chain.push((at, DirectoryRef::Root));
                    break None;
                }
            }
        };
        for (directory, reference) in chain.into_iter().rev() {
            parent = Some(self.enter(directory, parent, reference));
        }
        parent.expect("the chain is not empty, or its end was in the table")
    }

    fn enter(
        &mut self,
        directory: Dir,
        parent: Option<DirectoryIndex>,
        reference: DirectoryRef,
    ) -> DirectoryIndex {
        let index =
            u32::try_from(self.acts.directories.len()).expect("fewer than 2^32 directories");
        let index = DirectoryIndex(index);
        self.acts.directories.push(SeenDirectory { parent, directory: reference });
        self.table.insert(directory, index);
        index
    }
}
