//! What the engine asks of the disk: looks, and effects with their guards.

use std::collections::{BTreeMap, BTreeSet};

use super::{Inode, Inside, READ_BYTES_KEPT_MAX, VirtualDisk};
use crate::values::{
    DirectoryState, Effect, Expected, FileContent, Found, FoundBody, ListRequest, Listed, Location,
    Look, Looked, Outcome, ParkingId, Problem, ProblemKind, PutSource, ReadRequest, ReadState,
};
use crate::vocabulary::{ContentHash, Fingerprint, Kind, Mode, Name, TreePath};

/// What the engine asks for.
impl VirtualDisk {
    /// Performs a look.
    pub fn look(&mut self, look: &Look) -> Looked {
        Looked {
            lists: look.lists.iter().map(|request| self.list(request)).collect(),
            reads: look.reads.iter().map(|request| self.read(request)).collect(),
        }
    }

    /// Keeps bytes that were fetched.
    pub fn stage(&mut self, bytes: &[u8]) {
        self.staged.insert(ContentHash::of(bytes), bytes.to_vec());
    }

    /// A new batch of effects begins: what was renamed before counts as any other.
    pub fn begin_batch(&mut self) {
        self.renamed.clear();
    }

    /// What waits in the staging area.
    pub fn parked(&self) -> impl Iterator<Item = ParkingId> {
        self.parked.keys().copied()
    }

    /// Performs an effect.
    pub fn perform(&mut self, effect: &Effect) -> Outcome {
        match self.try_perform(effect) {
            Some(fingerprint) => Outcome::Done { fingerprint },
            None => Outcome::Differs,
        }
    }

    fn list(&mut self, request: &ListRequest) -> Listed {
        let path = request.path.clone();
        if self.closed.contains(&path) {
            let state = DirectoryState::Unknown(is_closed(&path));
            return Listed { path, state };
        }
        let Some((id, inside)) = self.find(&path).and_then(|id| Some((id, self.inside(id)?)))
        else {
            return Listed { path, state: DirectoryState::Missing };
        };
        let known: BTreeMap<&Name, &Fingerprint> =
            request.known.iter().map(|(name, fingerprint)| (name, fingerprint)).collect();
        let names: BTreeSet<&Name> = match &request.only {
            Some(only) => only.iter().collect(),
            None => inside.keys().chain(known.keys().copied()).collect(),
        };
        let (mut found, mut gone, mut unchanged) = (Vec::new(), Vec::new(), 0);
        let mut looked = 0;
        for name in names {
            looked += 1;
            let Some(child) = inside.get(name) else {
                gone.extend(known.contains_key(name).then(|| name.clone()));
                continue;
            };
            let fingerprint = self.fingerprint(*child);
            if self.ignored.contains(&path.join(name)) {
                found.push(Found { name: name.clone(), body: FoundBody::Ignored });
            } else if known.get(name) == Some(&&fingerprint) {
                unchanged += 1;
            } else {
                found.push(Found { name: name.clone(), body: self.found(*child) });
            }
        }
        let fingerprint = self.fingerprint(id);
        self.looked += looked;
        let state = DirectoryState::Readable { fingerprint, found, gone, unchanged };
        Listed { path, state }
    }

    fn found(&self, id: u64) -> FoundBody {
        let fingerprint = self.fingerprint(id);
        let inode = &self.inodes[&id];
        let (owner, xattrs) = (None, inode.xattrs.clone());
        match &inode.inside {
            Inside::Directory(_) => FoundBody::Directory { fingerprint, owner, xattrs },
            Inside::File(_) => FoundBody::File { fingerprint, owner, xattrs },
            Inside::Symlink(target) => {
                FoundBody::Symlink { fingerprint, owner, target: target.clone() }
            }
        }
    }

    fn read(&mut self, request: &ReadRequest) -> ReadState {
        let id = self.find(&request.path);
        let Some(id) = id.filter(|&id| self.fingerprint(id) == request.fingerprint) else {
            return ReadState::Unsettled;
        };
        let Inside::File(bytes) = &self.inodes[&id].inside else { return ReadState::Unsettled };
        if self.closed.contains(&request.path) {
            return ReadState::Unreadable(is_closed(&request.path));
        }
        self.read += 1;
        ReadState::Stable {
            hash: ContentHash::of(bytes),
            fingerprint: request.fingerprint,
            bytes: (bytes.len() <= READ_BYTES_KEPT_MAX).then(|| bytes.clone()),
        }
    }

    fn try_perform(&mut self, effect: &Effect) -> Option<Fingerprint> {
        match effect {
            Effect::MakeDirectory { at, attributes } => {
                let mut inode = self.new_inode(Inside::Directory(BTreeMap::new()), attributes.mode);
                inode.xattrs = attributes.xattrs.clone();
                self.put(at, Expected::Absent, inode)
            }
            Effect::PutFile { at, expected, content, attributes, source } => {
                let bytes = self.bytes(content, source)?;
                let mut inode = self.new_inode(Inside::File(bytes), attributes.mode);
                inode.modified = content.mtime;
                inode.xattrs = attributes.xattrs.clone();
                self.put(at, *expected, inode)
            }
            Effect::PutSymlink { at, expected, target, mtime, .. } => {
                let mut inode = self.new_inode(Inside::Symlink(target.clone()), Mode::new(0o777));
                inode.modified = *mtime;
                self.put(at, *expected, inode)
            }
            Effect::Move { from, to, expected } => self.shift(from, to, expected),
            Effect::RemoveFile { at, expected } | Effect::RemoveDirectory { at, expected } => {
                let id = self.expect(at, expected)?;
                let directory = matches!(effect, Effect::RemoveDirectory { .. });
                if self.is_directory(id) != directory
                    || self.inside(id).is_some_and(|inside| !inside.is_empty())
                {
                    return None;
                }
                let fingerprint = self.fingerprint(id);
                self.retain_version(id);
                self.unlink_at(at);
                Some(fingerprint)
            }
            Effect::Confirm { at, expected } => {
                self.expect(at, expected).map(|id| self.fingerprint(id))
            }
            Effect::SetAttributes { at, expected, attributes, body } => {
                let id = self.expect(at, expected)?;
                let now = self.tick();
                let inode = self.inodes.get_mut(&id)?;
                if !matches!(inode.inside, Inside::Symlink(_)) {
                    inode.mode = attributes.mode;
                }
                inode.xattrs = attributes.xattrs.clone();
                (inode.modified, inode.changed) = (body.mtime(), now);
                Some(self.fingerprint(id))
            }
        }
    }

    fn bytes(&self, content: &FileContent, source: &PutSource) -> Option<Vec<u8>> {
        let bytes = match source {
            PutSource::Inline(bytes) => bytes.to_vec(),
            PutSource::Empty => Vec::new(),
            PutSource::Staged => self.staged.get(&content.hash)?.clone(),
            PutSource::Local(path) => self.read_file(path)?.to_vec(),
        };
        (ContentHash::of(&bytes) == content.hash).then_some(bytes)
    }

    /// The object at the location, if it is as expected.
    fn expect(&self, at: &Location, expected: &Fingerprint) -> Option<u64> {
        let id = self.resolve(at)?;
        let found = self.fingerprint(id);
        if found.kind == Kind::Directory {
            let just_made = expected.inode == 0 && expected.kind == Kind::Directory;
            return (just_made || found.same_object(expected)).then_some(id);
        }
        if matches!(at, Location::Parked(_, inside) if inside.is_root()) {
            return found.same_object(expected).then_some(id);
        }
        let same = found.same_bytes(expected)
            && found.mode == expected.mode
            && (found.changed == expected.changed || self.renamed.contains(&id));
        same.then_some(id)
    }

    fn put(&mut self, at: &Location, expected: Expected, inode: Inode) -> Option<Fingerprint> {
        match expected {
            Expected::Absent if self.resolve(at).is_some() => return None,
            Expected::Absent => {}
            Expected::Present(fingerprint) => {
                let id = self.expect(at, &fingerprint)?;
                if self.is_directory(id) {
                    return None;
                }
                self.retain_version(id);
                self.unlink_at(at);
            }
        }
        let id = self.allocate(inode);
        if !self.enter_at(at, id) {
            self.release(id);
            return None;
        }
        Some(self.fingerprint(id))
    }

    fn shift(
        &mut self,
        from: &Location,
        to: &Location,
        expected: &Fingerprint,
    ) -> Option<Fingerprint> {
        let id = self.expect(from, expected)?;
        let below_itself = match (from, to) {
            (Location::Tree(from), Location::Tree(to)) => to.starts_with(from),
            _ => false,
        };
        if below_itself || self.resolve(to).is_some() || !self.holder_exists(to) {
            return None;
        }
        self.leave_at(from);
        self.enter_at(to, id);
        let now = self.tick();
        self.inodes.get_mut(&id)?.changed = now;
        self.renamed.insert(id);
        Some(self.fingerprint(id))
    }

    fn retain_version(&mut self, id: u64) {
        if let Inside::File(bytes) = &self.inodes[&id].inside {
            self.versions.insert(ContentHash::of(bytes));
        }
        self.put_aside.push(self.fingerprint(id));
    }
}

fn is_closed(path: &TreePath) -> Problem {
    let reason = "it is closed".to_owned();
    Problem { kind: ProblemKind::PermissionDenied, path: path.clone(), reason }
}
