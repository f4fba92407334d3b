//! The survey: which looks at the disk are needed, round by round, and what they found.
//!
//! A directory that is looked at is known by what it *is*, not by its path: one that the base knows
//! stays itself wherever it went, so that `mv d e` asks for nothing below `d`. Invariant: what a look
//! says of a directory counts only if the object found at the path is the directory that was meant.

mod sightings;
mod wants;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::values::{Base, BaseId, LinkTarget, Look, Looked, Problem};
use crate::vocabulary::{ContentHash, Fingerprint, Name, Owner, TreePath, Xattrs};

pub(super) use sightings::found_body;

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

impl Scope {
    /// The directory that is looked into.
    #[must_use]
    pub fn directory(&self) -> &TreePath {
        match self {
            Self::Name(directory, _) | Self::Peek(directory, _) => directory,
            Self::Directory(directory) | Self::Subtree(directory) => directory,
        }
    }
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
    /// Directories of which a look was asked to tell all, or some names.
    asked: BTreeSet<Dir>,
    pub(super) listed: BTreeSet<Dir>,
    pub(super) named: BTreeMap<Dir, BTreeSet<Name>>,
    pub(super) unknown: BTreeSet<Dir>,
    peeked: BTreeSet<(Dir, Name)>,
    /// Directories of which not all is known yet: something new in them was peeked at, or they were gone
    /// before they could be listed. What else changed there is told with that.
    pub(super) settling: BTreeSet<Dir>,
    /// Entries that were in place when that was looked at, and whose object was then found elsewhere.
    looked_at_again: BTreeSet<BaseId>,
    /// New directories, by sighting, that were gone before they could be listed.
    lost: BTreeSet<usize>,
    /// Sightings of what a later look at the same place found gone.
    pub(super) passed: BTreeSet<usize>,
    subtree: BTreeSet<Dir>,
    pub(super) sightings: Vec<Sighting>,
    pub(super) places: BTreeMap<(Dir, Name), usize>,
    pub(super) gone: BTreeSet<BaseId>,
    /// Entries in whose place something was peeked at that can't be them: they are not there any more.
    displaced: BTreeSet<BaseId>,
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
            asked: BTreeSet::new(),
            listed: BTreeSet::new(),
            named: BTreeMap::new(),
            unknown: BTreeSet::new(),
            peeked: BTreeSet::new(),
            settling: BTreeSet::new(),
            looked_at_again: BTreeSet::new(),
            lost: BTreeSet::new(),
            passed: BTreeSet::new(),
            subtree: BTreeSet::new(),
            sightings: Vec::new(),
            places: BTreeMap::new(),
            gone: BTreeSet::new(),
            displaced: BTreeSet::new(),
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

    /// What could not be looked at by now.
    pub(crate) fn problems(&self) -> &[Problem] {
        &self.problems
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

    /// The path of `directory` as if nothing had moved.
    pub(super) fn last_path(&self, base: &Base, mut directory: Dir) -> Option<TreePath> {
        let mut names = Vec::new();
        // Each new directory was found in one that was seen before it.
        while let Dir::New(at) = directory {
            directory = self.step_up(at, &mut names);
        }
        let Dir::Known(id) = directory else { return None };
        names.reverse();
        Some(names.iter().fold(base.path(id)?, |path, name| path.join(name)))
    }

    fn step_up(&self, sighting: usize, names: &mut Vec<Name>) -> Dir {
        names.push(self.sightings[sighting].name.clone());
        self.sightings[sighting].directory
    }

    /// Whether a look at the entry's own place found it gone or something else there.
    pub(super) fn is_vacated_by_itself(&self, base: &Base, id: BaseId) -> bool {
        if self.gone.contains(&id) || self.displaced.contains(&id) {
            return true;
        }
        let Some(entry) = base.entry(id) else { return true };
        match self.places.get(&(Dir::Known(entry.parent), entry.name.clone())) {
            Some(&at) => !self.sightings[at].fingerprint.same_object(&entry.fingerprint),
            None => entry.parent == BaseId::PARKING,
        }
    }

    pub(super) fn was_looked_at(&self, directory: Dir, name: &Name) -> bool {
        self.listed.contains(&directory)
            || self.named.get(&directory).is_some_and(|names| names.contains(name))
    }

    /// Whether a look found the entry as the base has it.
    pub(crate) fn saw_unchanged(&self, base: &Base, id: BaseId) -> bool {
        let Some(entry) = base.entry(id).filter(|_| id != BaseId::ROOT) else { return false };
        let parent = Dir::Known(entry.parent);
        let place = (parent, entry.name.clone());
        self.was_looked_at(parent, &entry.name)
            && !self.gone.contains(&id)
            && !self.displaced.contains(&id)
            && !self.left_alone.contains(&id)
            && !self.places.contains_key(&place)
            && !self.left_places.contains(&place)
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
        if self.was_looked_at(parent, &entry.name) {
            return Whereabouts::InPlace;
        }
        match self.path(base, parent) {
            Some(_) if self.unknown.contains(&parent) => Whereabouts::InPlace,
            Some(_) => Whereabouts::Unseen,
            None => Whereabouts::UnderVacated,
        }
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
