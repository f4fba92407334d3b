//! What a survey saw: entries that differ from the base, and which directories of it those are.

use super::{Dir, Identity, Reading, Sighting, Survey, Whereabouts, candidates, directories_in};
use crate::values::{
    Base, BaseEntry, BaseId, Body, DirectoryState, FileContent, Found, FoundBody, Listed, Problem,
    ProblemKind, ReadState,
};
use crate::vocabulary::{ContentHash, Fingerprint, Kind, Name, TreePath, Xattrs};

/// Bytes of contents that a survey keeps for travelling with the change.
const CONTENTS_BYTES_MAX: usize = 2 << 20;
/// Above this a file whose object, size and mtime are those of the base is not read again.
const TRUSTED_SIZE_MIN: u64 = 1 << 20;

impl Survey {
    pub(super) fn absorb_listed(
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
        let places = gone.into_iter().map(|name| (directory, name));
        self.passed.extend(places.filter_map(|place| self.places.get(&place)));
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
                // Found elsewhere, it must not pass for one whose entries are known.
                self.settling.insert(directory);
                match only {
                    Some(names) => self.reread.extend(names.iter().map(|name| path.join(name))),
                    None => drop(self.reread.insert(path)),
                }
            }
        }
    }

    /// Whether the sighting is, or is in, a new directory that was gone before it could be listed. The
    /// base must not take that in: found elsewhere, it would pass for one whose entries are known.
    pub(in crate::snapshot) fn is_lost(&self, sighting: usize) -> bool {
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
        // A new directory is taken as it is, with all that is in it.
        let taken_whole = matches!(directory, Dir::New(_)) && self.listed.contains(&directory);
        let is_peeked = !taken_whole && self.peeked.contains(&(directory, name.clone()));
        if is_peeked {
            let there = known.and_then(|id| base.entry(id));
            if there.is_some_and(|entry| entry.fingerprint.same_object(&fingerprint)) {
                // It is being written to, and looked at when that has settled.
                return;
            }
            if candidates(base, &fingerprint).is_empty() {
                // A directory is where its object is, whatever has come into its place. A file may go on
                // as another one there, and as nothing else.
                let continues = |entry: &BaseEntry| {
                    !entry.is_directory() && entry.body.kind() == fingerprint.kind
                };
                self.displaced.extend(known.filter(|_| !there.is_some_and(continues)));
                self.settling.insert(directory);
                return;
            }
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
        let explained = self.wanted.contains_key(&directory) || self.asked.contains(&directory);
        if entry.is_directory() && !explained && entry.fingerprint.modified != fingerprint.modified
        {
            self.want_all(directory);
        }
    }

    /// Decides which of the open directories are known ones that moved, where at least `enough` is
    /// known of the old place; whether any was decided.
    pub(super) fn resolve_open(&mut self, base: &Base, enough: Whereabouts) -> bool {
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

    pub(super) fn absorb_read(&mut self, base: &Base, at: usize, state: ReadState) {
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
                let Sighting { directory, ref name, identity, .. } = self.sightings[at];
                if let Some(path) = self.path(base, directory) {
                    self.reread.insert(path.join(name));
                }
                if !matches!(identity, Identity::Same(_)) {
                    // Should the directory be renamed before the next look, this is found there.
                    self.settling.insert(directory);
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
pub(in crate::snapshot) fn found_body(sighting: &Sighting) -> Option<Body> {
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
