//! What a survey wants to look at: scopes become directories and names in them, and those become looks.

use std::collections::BTreeSet;

use super::{Dir, Identity, Reading, Sighting, Survey, Want, directories_in, is_directory};
use crate::values::{Base, BaseId, ListRequest, Look, ReadRequest};
use crate::vocabulary::{Fingerprint, Kind, Name, TreePath};

/// Names and reads in one look; a single directory may exceed it.
const LOOK_ITEMS_MAX: usize = 10_000;
/// Bytes that the reads of one look may bring along, if the disk hands over files up to
/// [`READ_BYTES_KEPT_MAX`].
const LOOK_BYTES_MAX: u64 = 64 << 20;
const READ_BYTES_KEPT_MAX: u64 = 256 << 10;

enum Reached {
    Directory(Dir),
    Waiting,
    Nowhere,
}

impl Survey {
    pub(super) fn want(&mut self, base: &Base, directory: Dir, want: &Want) {
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
    pub(super) fn want_subtree(&mut self, base: &Base, directory: Dir) {
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

    pub(super) fn want_again(&mut self, directory: Dir, only: Option<Vec<Name>>) {
        match only {
            None => self.want_all(directory),
            Some(names) => names.iter().for_each(|name| self.want_name(directory, name)),
        }
    }

    pub(super) fn want_all(&mut self, directory: Dir) {
        if !self.listed.contains(&directory) && !self.unknown.contains(&directory) {
            self.wanted.insert(directory, None);
        }
    }

    pub(super) fn want_name(&mut self, directory: Dir, name: &Name) {
        let done = self.was_looked_at(directory, name) || self.unknown.contains(&directory);
        if !done && let Some(names) = self.wanted.entry(directory).or_insert(Some(BTreeSet::new()))
        {
            names.insert(name.clone());
        }
    }

    /// Asks for the place where the base has `id`.
    pub(super) fn want_place_of(&mut self, base: &Base, id: BaseId) {
        if let Some(entry) = base.entry(id).filter(|entry| entry.parent != BaseId::PARKING) {
            self.want_name(Dir::Known(entry.parent), &entry.name);
        }
    }

    /// The object has another name too, or was renamed after its place had been looked at.
    pub(super) fn want_place_again(&mut self, base: &Base, id: BaseId) {
        let Some(entry) = base.entry(id) else { return };
        let parent = Dir::Known(entry.parent);
        if self.unknown.contains(&parent) || !self.looked_at_again.insert(id) {
            return;
        }
        if let Some(names) = self.wanted.entry(parent).or_insert(Some(BTreeSet::new())) {
            names.insert(entry.name.clone());
        }
    }

    pub(super) fn resolve_scopes(&mut self, base: &Base) {
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
    pub(super) fn is_coming(&self, directory: Dir, name: &Name) -> bool {
        match self.wanted.get(&directory) {
            Some(None) => true,
            Some(Some(names)) => names.contains(name),
            None => false,
        }
    }

    /// Puts together what can be looked at now, within the limits of one look.
    pub(super) fn assemble(&mut self, base: &Base) -> Look {
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
            self.asked.insert(directory);
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
