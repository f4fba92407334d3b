//! The survey: which looks at the disk are needed, round by round, and what they found.
//!
//! A directory that is looked at is known by what it *is*, not by its path: one that the base knows
//! stays itself wherever it went, so that `mv d e` asks for nothing below `d`. Invariant: what a look
//! says of a directory counts only if the object found at the path is the directory that was meant.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::values::{
    Base, BaseId, Body, DirectoryState, FileContent, Found, FoundBody, LinkTarget, ListRequest,
    Listed, Look, Looked, Problem, ProblemKind, ReadRequest, ReadState,
};
use crate::vocabulary::{ContentHash, Fingerprint, Kind, Name, Owner, TreePath, Xattrs};

/// Names and reads in one look; a single directory may exceed it.
const LOOK_ITEMS_MAX: usize = 10_000;
/// Bytes that the reads of one look may bring along, if the disk hands over files up to
/// [`READ_BYTES_KEPT_MAX`].
const LOOK_BYTES_MAX: u64 = 64 << 20;
const READ_BYTES_KEPT_MAX: u64 = 256 << 10;
/// Bytes of contents that a survey keeps for travelling with the change.
const CONTENTS_BYTES_MAX: usize = 2 << 20;
/// Above this a file whose object, size and mtime are those of the base is not read again.
const TRUSTED_SIZE_MIN: u64 = 1 << 20;

/// A part of the disk that may have changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// One name in a directory.
    Name(TreePath, Name),
    /// What a directory holds, not what is below.
    Directory(TreePath),
    /// A directory and everything below.
    Subtree(TreePath),
    /// One name in a directory, that counts only if it is something the base knows: what is called so may
    /// be what another path has lost, and is not yet to be taken up if it is new.
    Peek(TreePath, Name),
}

/// A directory on the disk: one of the base, wherever it is by now, or one that the survey found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dir {
    Known(BaseId),
    New(usize),
}

impl Dir {
    pub(super) const ROOT: Self = Self::Known(BaseId::ROOT);
}

/// What the survey knows of a found file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Not a file, or not yet read.
    None,
    Hash(ContentHash),
    Unsettled,
    Unreadable,
}

/// Whether a found directory is one of the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// Not decided: where the base has this object is still to be looked at. Files stay so.
    Open,
    /// The one that the base has at this place.
    Same(BaseId),
    /// One that the base has elsewhere.
    Moved(BaseId),
    /// None that the base knows.
    New,
}

/// An entry that differs from the base.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    pub(super) directory: Dir,
    pub(super) name: Name,
    pub(super) fingerprint: Fingerprint,
    pub(super) owner: Option<Owner>,
    pub(super) xattrs: Xattrs,
    pub(super) target: Option<LinkTarget>,
    pub(super) reading: Reading,
    pub(super) identity: Identity,
}

/// What is known of where the base has an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// It is still there, or may be.
    InPlace,
    /// It is not there any more.
    Vacated,
    /// Nobody has looked.
    Unseen,
    /// The directory that held it is gone itself, and may turn up.
    UnderVacated,
}

enum Want {
    Name(Name),
    Peek(Name),
    Directory,
    Subtree,
}

enum Reached {
    Directory(Dir),
    Waiting,
    Nowhere,
}

/// A survey of the disk in progress.
///
/// Drive it with [`Survey::next_look`] and [`Survey::absorb`] until no look is needed. Every round
/// learns something of at least one place, and no place is asked for twice, so it ends.
pub struct Survey {
    scopes: Vec<(TreePath, Want)>,
    pub(super) wanted: BTreeMap<Dir, Option<BTreeSet<Name>>>,
    wanted_reads: VecDeque<usize>,
    listing: Vec<(Dir, Option<Vec<Name>>)>,
    reading: Vec<usize>,
    pub(super) listed: BTreeSet<Dir>,
    pub(super) named: BTreeMap<Dir, BTreeSet<Name>>,
    pub(super) unknown: BTreeSet<Dir>,
    peeked: BTreeSet<(Dir, Name)>,
    /// Entries that were in place when that was looked at, and whose object was then found elsewhere.
    looked_at_again: BTreeSet<BaseId>,
    /// New directories, by sighting, that were gone before they could be listed.
    lost: BTreeSet<usize>,
    subtree: BTreeSet<Dir>,
    pub(super) sightings: Vec<Sighting>,
    pub(super) places: BTreeMap<(Dir, Name), usize>,
    pub(super) gone: BTreeSet<BaseId>,
    /// Base entries whose place is ignored or can't be known.
    pub(super) left_alone: BTreeSet<BaseId>,
    pub(super) moved: BTreeMap<BaseId, usize>,
    /// Ignored or unknowable places in directories that are new.
    pub(super) left_places: BTreeSet<(Dir, Name)>,
    /// The root's own state.
    pub(super) root: Option<Fingerprint>,
    open: Vec<usize>,
    /// To be wanted again after the next look, which looks at the places of these directories.
    postponed: Vec<(Dir, Option<Vec<Name>>)>,
    pub(super) contents: BTreeMap<ContentHash, Vec<u8>>,
    contents_bytes: usize,
    pub(super) problems: Vec<Problem>,
    pub(super) reread: BTreeSet<TreePath>,
}

impl std::fmt::Debug for Survey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Survey({} sightings, {} directories wanted)",
            self.sightings.len(),
            self.wanted.len()
        )
    }
}

impl Survey {
    /// Starts a survey of `scopes`. Only these are looked at, and what they lead to.
    #[must_use]
    pub fn new(scopes: impl IntoIterator<Item = Scope>, base: &Base) -> Self {
        let mut survey = Self {
            scopes: Vec::new(),
            wanted: BTreeMap::new(),
            wanted_reads: VecDeque::new(),
            listing: Vec::new(),
            reading: Vec::new(),
            listed: BTreeSet::new(),
            named: BTreeMap::new(),
            unknown: BTreeSet::new(),
            peeked: BTreeSet::new(),
            looked_at_again: BTreeSet::new(),
            lost: BTreeSet::new(),
            subtree: BTreeSet::new(),
            sightings: Vec::new(),
            places: BTreeMap::new(),
            gone: BTreeSet::new(),
            left_alone: BTreeSet::new(),
            moved: BTreeMap::new(),
            left_places: BTreeSet::new(),
            root: None,
            open: Vec::new(),
            postponed: Vec::new(),
            contents: BTreeMap::new(),
            contents_bytes: 0,
            problems: Vec::new(),
            reread: BTreeSet::new(),
        };
        for scope in scopes {
            let (path, want) = match scope {
                Scope::Name(path, name) => (path, Want::Name(name)),
                Scope::Directory(path) => (path, Want::Directory),
                Scope::Subtree(path) => (path, Want::Subtree),
                Scope::Peek(path, name) => (path, Want::Peek(name)),
            };
            // The event may be older than a rename above it: what the base has at the path is
            // looked at wherever it went, and what is at the path now as well.
            if let Some(id) = base.find(&path).filter(|&id| is_directory(base, id)) {
                survey.want(base, Dir::Known(id), &want);
                survey.want_place_of(base, id);
            }
            survey.scopes.push((path, want));
        }
        // What is looked at above is wanted first, and waited for.
        survey.scopes.sort_by_key(|(path, _)| path.names().len());
        survey
    }

    /// The next look that is needed; none when [`Survey::finish`] may be called.
    pub fn next_look(&mut self, base: &Base) -> Option<Look> {
        for (directory, only) in std::mem::take(&mut self.postponed) {
            self.want_again(directory, only);
        }
        loop {
            // A scope may lead through a directory that is recognised only now.
            self.resolve_open(base, Whereabouts::Vacated);
            self.resolve_scopes(base);
            let look = self.assemble(base);
            if !look.lists.is_empty() || !look.reads.is_empty() {
                return Some(look);
            }
            // Nothing that could be looked at would bring those directories back: what was in them
            // and is elsewhere has been moved there.
            if !self.resolve_open(base, Whereabouts::UnderVacated) {
                return None;
            }
        }
    }

    /// Takes in what the last look found.
    pub fn absorb(&mut self, base: &Base, looked: Looked) {
        let listing = std::mem::take(&mut self.listing);
        for ((directory, only), listed) in listing.into_iter().zip(looked.lists) {
            self.absorb_listed(base, directory, only, listed);
        }
        let reading = std::mem::take(&mut self.reading);
        for (sighting, state) in reading.into_iter().zip(looked.reads) {
            self.absorb_read(base, sighting, state);
        }
    }

    /// The current path of `directory`; none if it is nowhere, as far as is known.
    pub(super) fn path(&self, base: &Base, directory: Dir) -> Option<TreePath> {
        let mut names = Vec::new();
        let mut at = directory;
        // Looks taken while directories are renamed into each other may add up to a cycle.
        let steps_max = self.sightings.len() + base.len() + 1;
        for _ in 0..steps_max {
            at = match at {
                Dir::ROOT => {
                    names.reverse();
                    return Some(TreePath::new(names));
                }
                Dir::Known(id) => match self.moved.get(&id) {
                    Some(&at) => self.step_up(at, &mut names),
                    None => {
                        let entry = base.entry(id)?;
                        if entry.parent == BaseId::PARKING || self.is_vacated_by_itself(base, id) {
                            return None;
                        }
                        names.push(entry.name.clone());
                        Dir::Known(entry.parent)
                    }
                },
                Dir::New(at) => self.step_up(at, &mut names),
            };
        }
        None
    }

    fn step_up(&self, sighting: usize, names: &mut Vec<Name>) -> Dir {
        names.push(self.sightings[sighting].name.clone());
        self.sightings[sighting].directory
    }

    /// Whether a look at the entry's own place found it gone or something else there.
    pub(super) fn is_vacated_by_itself(&self, base: &Base, id: BaseId) -> bool {
        if self.gone.contains(&id) {
            return true;
        }
        let Some(entry) = base.entry(id) else { return true };
        match self.places.get(&(Dir::Known(entry.parent), entry.name.clone())) {
            Some(&at) => !self.sightings[at].fingerprint.same_object(&entry.fingerprint),
            None => entry.parent == BaseId::PARKING,
        }
    }

    /// What is known of where the base has the entry.
    pub(super) fn whereabouts(&self, base: &Base, id: BaseId) -> Whereabouts {
        if self.is_vacated_by_itself(base, id) {
            return Whereabouts::Vacated;
        }
        if self.left_alone.contains(&id) {
            return Whereabouts::InPlace;
        }
        let Some(entry) = base.entry(id) else { return Whereabouts::Vacated };
        let parent = Dir::Known(entry.parent);
        let looked = self.listed.contains(&parent)
            || self.named.get(&parent).is_some_and(|names| names.contains(&entry.name));
        if looked {
            return Whereabouts::InPlace;
        }
        match self.path(base, parent) {
            Some(_) if self.unknown.contains(&parent) => Whereabouts::InPlace,
            Some(_) => Whereabouts::Unseen,
            None => Whereabouts::UnderVacated,
        }
    }

    fn want(&mut self, base: &Base, directory: Dir, want: &Want) {
        match want {
            Want::Name(name) => self.want_name(directory, name),
            Want::Peek(name) => {
                self.peeked.insert((directory, name.clone()));
                self.want_name(directory, name);
            }
            Want::Directory => self.want_all(directory),
            Want::Subtree => self.want_subtree(base, directory),
        }
    }

    /// Wants `directory` in full and what the base has below it, level by level as it is listed. One
    /// that was moved away from there is still part of what was to be looked at.
    fn want_subtree(&mut self, base: &Base, directory: Dir) {
        let mut queue = vec![directory];
        while let Some(at) = queue.pop() {
            if !self.subtree.insert(at) {
                continue;
            }
            self.want_all(at);
            if self.listed.contains(&at) {
                queue.extend(directories_in(base, at));
            }
        }
    }

    fn want_again(&mut self, directory: Dir, only: Option<Vec<Name>>) {
        match only {
            None => self.want_all(directory),
            Some(names) => names.iter().for_each(|name| self.want_name(directory, name)),
        }
    }

    fn want_all(&mut self, directory: Dir) {
        if !self.listed.contains(&directory) && !self.unknown.contains(&directory) {
            self.wanted.insert(directory, None);
        }
    }

    fn want_name(&mut self, directory: Dir, name: &Name) {
        let done = self.listed.contains(&directory)
            || self.unknown.contains(&directory)
            || self.named.get(&directory).is_some_and(|names| names.contains(name));
        if !done && let Some(names) = self.wanted.entry(directory).or_insert(Some(BTreeSet::new()))
        {
            names.insert(name.clone());
        }
    }

    /// Asks for the place where the base has `id`.
    fn want_place_of(&mut self, base: &Base, id: BaseId) {
        if let Some(entry) = base.entry(id).filter(|entry| entry.parent != BaseId::PARKING) {
            self.want_name(Dir::Known(entry.parent), &entry.name);
        }
    }

    /// The object has another name too, or was renamed after its place had been looked at.
    fn want_place_again(&mut self, base: &Base, id: BaseId) {
        let Some(entry) = base.entry(id) else { return };
        let parent = Dir::Known(entry.parent);
        if self.unknown.contains(&parent) || !self.looked_at_again.insert(id) {
            return;
        }
        if let Some(names) = self.wanted.entry(parent).or_insert(Some(BTreeSet::new())) {
            names.insert(entry.name.clone());
        }
    }

    fn resolve_scopes(&mut self, base: &Base) {
        for (path, want) in std::mem::take(&mut self.scopes) {
            match self.walk(base, &path) {
                Reached::Directory(directory) => self.want(base, directory, &want),
                Reached::Waiting => self.scopes.push((path, want)),
                Reached::Nowhere => {}
            }
        }
    }

    /// Follows `path` on the disk as it is known by now; asks for the first name that is not.
    fn walk(&mut self, base: &Base, path: &TreePath) -> Reached {
        let mut at = Dir::ROOT;
        for name in path.names() {
            if let Some(&sighting) = self.places.get(&(at, name.clone())) {
                at = match self.sightings[sighting].identity {
                    _ if self.sightings[sighting].fingerprint.kind != Kind::Directory => {
                        return Reached::Nowhere;
                    }
                    Identity::Open => return Reached::Waiting,
                    Identity::Same(id) | Identity::Moved(id) => Dir::Known(id),
                    Identity::New => Dir::New(sighting),
                };
                continue;
            }
            if self.is_coming(at, name) {
                return Reached::Waiting;
            }
            let known = match at {
                Dir::Known(id) => base.child(id, name),
                Dir::New(_) => None,
            };
            match known {
                Some(id) if self.gone.contains(&id) || !is_directory(base, id) => {
                    return Reached::Nowhere;
                }
                Some(id) => at = Dir::Known(id),
                None => {
                    self.want_name(at, name);
                    let coming = self.is_coming(at, name);
                    return if coming { Reached::Waiting } else { Reached::Nowhere };
                }
            }
        }
        Reached::Directory(at)
    }

    /// Whether the place will be looked at.
    fn is_coming(&self, directory: Dir, name: &Name) -> bool {
        match self.wanted.get(&directory) {
            Some(None) => true,
            Some(Some(names)) => names.contains(name),
            None => false,
        }
    }

    /// Puts together what can be looked at now, within the limits of one look.
    fn assemble(&mut self, base: &Base) -> Look {
        let mut look = Look::default();
        let mut items = 0;
        for directory in self.wanted.keys().copied().collect::<Vec<_>>() {
            if items >= LOOK_ITEMS_MAX {
                break;
            }
            let Some(path) = self.path(base, directory) else { continue };
            let only =
                self.wanted.remove(&directory).expect("a key of the map").map(Vec::from_iter);
            let known = known_in(base, directory, only.as_deref());
            items += 1 + known.len().max(only.as_ref().map_or(0, Vec::len));
            look.lists.push(ListRequest { path, only: only.clone(), known });
            self.listing.push((directory, only));
        }
        let mut bytes = 0;
        while items < LOOK_ITEMS_MAX && bytes < LOOK_BYTES_MAX {
            let Some(at) = self.wanted_reads.pop_front() else { break };
            let Sighting { directory, name, fingerprint, .. } = &self.sightings[at];
            let Some(parent) = self.path(base, *directory) else {
                self.sightings[at].reading = Reading::Unsettled;
                continue;
            };
            items += 1;
            bytes += fingerprint.size.min(READ_BYTES_KEPT_MAX);
            let request = ReadRequest { path: parent.join(name), fingerprint: *fingerprint };
            look.reads.push(request);
            self.reading.push(at);
        }
        look
    }

    fn absorb_listed(
        &mut self,
        base: &Base,
        directory: Dir,
        only: Option<Vec<Name>>,
        listed: Listed,
    ) {
        match listed.state {
            DirectoryState::Readable { fingerprint, found, gone, .. } => {
                if !self.is_meant(base, directory, &fingerprint) {
                    return self.lost_sight(base, directory, only, listed.path);
                }
                self.absorb_readable(base, directory, only, fingerprint, found, gone);
            }
            DirectoryState::Missing if directory == Dir::ROOT => {
                self.unknown.insert(directory);
                self.problems.push(Problem {
                    kind: ProblemKind::RootLost,
                    path: listed.path,
                    reason: "the root is not there".to_owned(),
                });
            }
            DirectoryState::Missing => self.lost_sight(base, directory, only, listed.path),
            DirectoryState::Unknown(problem) => {
                self.unknown.insert(directory);
                self.problems.push(problem);
            }
        }
    }

    fn absorb_readable(
        &mut self,
        base: &Base,
        directory: Dir,
        only: Option<Vec<Name>>,
        fingerprint: Fingerprint,
        found: Vec<Found>,
        gone: Vec<Name>,
    ) {
        let full = only.is_none();
        match only {
            None => drop(self.listed.insert(directory)),
            Some(names) => self.named.entry(directory).or_default().extend(names),
        }
        self.note_own_state(base, directory, fingerprint);
        if let Dir::Known(id) = directory {
            self.gone.extend(gone.iter().filter_map(|name| base.child(id, name)));
        }
        for entry in found {
            self.sight(base, directory, entry);
        }
        if full && self.subtree.contains(&directory) {
            for below in directories_in(base, directory) {
                self.want_subtree(base, below);
            }
        }
    }

    /// What changed of the directory itself, its place tells; but if that was looked at before the
    /// directory, and something came or went in between, no event may ever tell again.
    fn note_own_state(&mut self, base: &Base, directory: Dir, fingerprint: Fingerprint) {
        let sighted = match directory {
            Dir::New(at) => Some(at),
            Dir::ROOT => {
                self.root = Some(fingerprint);
                None
            }
            Dir::Known(id) => match base.entry(id) {
                Some(entry) if entry.fingerprint != fingerprint => {
                    self.want_place_of(base, id);
                    let place = (Dir::Known(entry.parent), entry.name.clone());
                    self.moved.get(&id).or_else(|| self.places.get(&place)).copied()
                }
                _ => None,
            },
        };
        if let Some(at) = sighted
            && self.sightings[at].fingerprint.same_object(&fingerprint)
        {
            self.sightings[at].fingerprint = fingerprint;
        }
    }

    /// The path did not lead to the directory that was meant: it was renamed or removed meanwhile.
    fn lost_sight(&mut self, base: &Base, directory: Dir, only: Option<Vec<Name>>, path: TreePath) {
        let id = match directory {
            Dir::Known(id) => id,
            Dir::New(at) => {
                self.unknown.insert(directory);
                self.lost.insert(at);
                self.reread.insert(path);
                return;
            }
        };
        match self.whereabouts(base, id) {
            Whereabouts::Unseen => {
                self.want_place_of(base, id);
                self.postponed.push((directory, only));
            }
            // Wanted where it turns up, if it does.
            Whereabouts::Vacated | Whereabouts::UnderVacated
                if self.path(base, directory).is_none() =>
            {
                self.want_again(directory, only);
            }
            _ => {
                self.unknown.insert(directory);
                match only {
                    Some(names) => self.reread.extend(names.iter().map(|name| path.join(name))),
                    None => drop(self.reread.insert(path)),
                }
            }
        }
    }

    /// Whether the sighting is, or is in, a new directory that was gone before it could be listed. The
    /// base must not take that in: found elsewhere, it would pass for one whose entries are known.
    pub(super) fn is_lost(&self, sighting: usize) -> bool {
        let mut at = sighting;
        loop {
            if self.lost.contains(&at) {
                return true;
            }
            match self.sightings[at].directory {
                Dir::New(above) => at = above,
                Dir::Known(_) => return false,
            }
        }
    }

    fn is_meant(&self, base: &Base, directory: Dir, fingerprint: &Fingerprint) -> bool {
        match directory {
            Dir::ROOT => true,
            Dir::Known(id) => {
                base.entry(id).is_some_and(|entry| entry.fingerprint.same_object(fingerprint))
            }
            Dir::New(at) => self.sightings[at].fingerprint.same_object(fingerprint),
        }
    }

    fn sight(&mut self, base: &Base, directory: Dir, found: Found) {
        let Found { name, body } = found;
        let known = match directory {
            Dir::Known(id) => base.child(id, &name),
            Dir::New(_) => None,
        };
        let (fingerprint, owner, xattrs, target) = match body {
            FoundBody::Directory { fingerprint, owner, xattrs }
            | FoundBody::File { fingerprint, owner, xattrs } => (fingerprint, owner, xattrs, None),
            FoundBody::Symlink { fingerprint, owner, target } => {
                (fingerprint, owner, Xattrs::new(), Some(target))
            }
            FoundBody::Ignored | FoundBody::Skipped(_) => {
                self.left_alone.extend(known);
                self.left_places.insert((directory, name));
                if let FoundBody::Skipped(problem) = body {
                    self.problems.push(problem);
                }
                return;
            }
        };
        let is_peeked = self.peeked.contains(&(directory, name.clone()));
        if is_peeked && candidates(base, &fingerprint).is_empty() {
            return;
        }
        let at = self.sightings.len();
        if let Some(&earlier) = self.places.get(&(directory, name.clone())) {
            // The same again is no news; something else means that it is being changed right now.
            if self.sightings[earlier].fingerprint != fingerprint {
                let path = self.path(base, directory).unwrap_or_default().join(&name);
                self.reread.insert(path);
            }
            return;
        }
        self.places.insert((directory, name.clone()), at);
        let (reading, identity) = (Reading::None, Identity::Open);
        self.sightings.push(Sighting {
            directory,
            name,
            fingerprint,
            owner,
            xattrs,
            target,
            reading,
            identity,
        });
        self.classify(base, at, known);
    }

    fn classify(&mut self, base: &Base, at: usize, known: Option<BaseId>) {
        let fingerprint = self.sightings[at].fingerprint;
        let same = known
            .filter(|&id| base.entry(id).is_some_and(|e| e.fingerprint.same_object(&fingerprint)));
        if let Some(id) = same {
            self.sightings[at].identity = Identity::Same(id);
            self.want_unexplained(base, id, &fingerprint);
        } else {
            self.open.push(at);
            for id in candidates(base, &fingerprint) {
                match self.whereabouts(base, id) {
                    Whereabouts::Unseen => self.want_place_of(base, id),
                    Whereabouts::InPlace => self.want_place_again(base, id),
                    Whereabouts::Vacated | Whereabouts::UnderVacated => {}
                }
            }
        }
        if fingerprint.kind == Kind::File {
            match trusted_hash(base, &fingerprint) {
                Some(hash) => self.sightings[at].reading = Reading::Hash(hash),
                None => self.wanted_reads.push_back(at),
            }
        }
    }

    /// Names came or went in a directory of which nobody reported any: a path that was reported may
    /// have been another directory's by the time.
    fn want_unexplained(&mut self, base: &Base, id: BaseId, fingerprint: &Fingerprint) {
        let directory = Dir::Known(id);
        let entry = base.entry(id).expect("a match is in the base");
        let explained = self.wanted.contains_key(&directory) || self.named.contains_key(&directory);
        if entry.is_directory() && !explained && entry.fingerprint.modified != fingerprint.modified
        {
            self.want_all(directory);
        }
    }

    /// Decides which of the open directories are known ones that moved, where at least `enough` is
    /// known of the old place; whether any was decided.
    fn resolve_open(&mut self, base: &Base, enough: Whereabouts) -> bool {
        let mut decided = false;
        for at in std::mem::take(&mut self.open) {
            let fingerprint = self.sightings[at].fingerprint;
            let mut from = None;
            let mut waiting = false;
            for id in candidates(base, &fingerprint) {
                match self.whereabouts(base, id) {
                    _ if self.moved.contains_key(&id) => {}
                    Whereabouts::Vacated => from = from.or(Some(id)),
                    Whereabouts::UnderVacated if enough == Whereabouts::UnderVacated => {
                        from = from.or(Some(id));
                    }
                    Whereabouts::UnderVacated => waiting = true,
                    Whereabouts::Unseen => {
                        self.want_place_of(base, id);
                        waiting = true;
                    }
                    Whereabouts::InPlace => {
                        let coming = base.entry(id).is_some_and(|entry| {
                            self.is_coming(Dir::Known(entry.parent), &entry.name)
                        });
                        waiting |= coming && self.looked_at_again.contains(&id);
                    }
                }
            }
            if waiting && from.is_none() {
                if enough == Whereabouts::UnderVacated {
                    // Its old place can't be looked at: not known to have moved.
                    decided |= fingerprint.kind == Kind::Directory;
                } else {
                    self.open.push(at);
                    continue;
                }
            }
            if fingerprint.kind != Kind::Directory {
                continue;
            }
            decided = true;
            match from {
                Some(id) => self.recognise(base, at, id),
                None => {
                    self.sightings[at].identity = Identity::New;
                    self.want_all(Dir::New(at));
                    if self.subtree.contains(&self.sightings[at].directory) {
                        self.subtree.insert(Dir::New(at));
                    }
                }
            }
        }
        decided
    }

    fn recognise(&mut self, base: &Base, at: usize, id: BaseId) {
        self.sightings[at].identity = Identity::Moved(id);
        self.moved.insert(id, at);
        let directory = Dir::Known(id);
        let Sighting { directory: into, fingerprint, .. } = self.sightings[at];
        let entry = base.entry(id).expect("a candidate is in the base");
        if self.subtree.contains(&into) || self.subtree.contains(&Dir::Known(entry.parent)) {
            self.want_subtree(base, directory);
        } else if entry.fingerprint.modified != fingerprint.modified {
            // Names in it came or went.
            self.want_all(directory);
        }
    }

    fn absorb_read(&mut self, base: &Base, at: usize, state: ReadState) {
        self.sightings[at].reading = match state {
            ReadState::Stable { hash, fingerprint, bytes }
                if fingerprint == self.sightings[at].fingerprint =>
            {
                if let Some(bytes) = bytes
                    && self.contents_bytes + bytes.len() <= CONTENTS_BYTES_MAX
                    && !self.contents.contains_key(&hash)
                {
                    self.contents_bytes += bytes.len();
                    self.contents.insert(hash, bytes);
                }
                Reading::Hash(hash)
            }
            ReadState::Stable { .. } | ReadState::Unsettled => {
                let Sighting { directory, name, .. } = &self.sightings[at];
                if let Some(path) = self.path(base, *directory) {
                    self.reread.insert(path.join(name));
                }
                Reading::Unsettled
            }
            ReadState::Unreadable(problem) => {
                self.problems.push(problem);
                Reading::Unreadable
            }
        };
    }
}

/// What a sighting is to the tree; none of what could not be read.
pub(super) fn found_body(sighting: &Sighting) -> Option<Body> {
    let mtime = sighting.fingerprint.modified;
    match sighting.fingerprint.kind {
        Kind::Directory => Some(Body::Directory { mtime }),
        Kind::Symlink => Some(Body::Symlink { target: sighting.target.clone()?, mtime }),
        Kind::File => match sighting.reading {
            Reading::Hash(hash) => {
                Some(Body::File(FileContent { hash, size: sighting.fingerprint.size, mtime }))
            }
            Reading::None | Reading::Unsettled | Reading::Unreadable => None,
        },
    }
}

pub(super) fn is_directory(base: &Base, id: BaseId) -> bool {
    base.entry(id).is_some_and(|entry| entry.is_directory())
}

fn directories_in(base: &Base, directory: Dir) -> Vec<Dir> {
    let Dir::Known(id) = directory else { return Vec::new() };
    base.children(id)
        .map(|(_, id)| id)
        .filter(|&id| is_directory(base, id))
        .map(Dir::Known)
        .collect()
}

/// The base's entries that are this very object.
pub(super) fn candidates(base: &Base, fingerprint: &Fingerprint) -> Vec<BaseId> {
    base.by_object(fingerprint.device, fingerprint.inode)
        .filter(|&id| id != BaseId::ROOT)
        .filter(|&id| base.entry(id).is_some_and(|e| e.fingerprint.same_object(fingerprint)))
        .collect()
}

/// What is expected in a directory, or of some names in it.
fn known_in(base: &Base, directory: Dir, only: Option<&[Name]>) -> Vec<(Name, Fingerprint)> {
    let Dir::Known(id) = directory else { return Vec::new() };
    let with_fingerprint =
        |name: &Name, child: BaseId| base.entry(child).map(|e| (name.clone(), e.fingerprint));
    match only {
        None => {
            base.children(id).filter_map(|(name, child)| with_fingerprint(name, child)).collect()
        }
        Some(names) => {
            names.iter().filter_map(|name| with_fingerprint(name, base.child(id, name)?)).collect()
        }
    }
}

/// The hash of a file that need not be read: nothing about it changed, or it is large, and the same
/// object with size and mtime untouched.
fn trusted_hash(base: &Base, fingerprint: &Fingerprint) -> Option<ContentHash> {
    candidates(base, fingerprint).into_iter().find_map(|id| {
        let entry = base.entry(id)?;
        let trusted = entry.fingerprint == *fingerprint
            || (fingerprint.size > TRUSTED_SIZE_MIN && entry.fingerprint.same_bytes(fingerprint));
        match &entry.body {
            Body::File(content) if trusted => Some(content.hash),
            _ => None,
        }
    })
}
