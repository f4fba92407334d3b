//! What pleach does on a disk: effects with their guards, each of them atomic.
//!
//! Whatever an effect replaces or removes goes to the versions, the inode itself, so that a program that
//! still holds it open writes into the version.

use std::collections::{BTreeMap, BTreeSet};

use pleach_core::values::{
    Effect, Expected, FileContent, Location, Outcome, Problem, ProblemKind, PutSource,
};
use pleach_core::vocabulary::{Attributes, ContentHash, Fingerprint, Mode, Name, Timestamp};

use super::{Disk, InodeKey, Node, Parent};

/// What is remembered across the effects of one batch.
#[derive(Debug, Default)]
pub struct Batch {
    /// Inodes that an earlier effect has renamed: their change time is not compared.
    renamed: BTreeSet<InodeKey>,
    /// Directories that an earlier effect has made: inode 0 stands for them.
    made: BTreeSet<InodeKey>,
}

/// Where a step ends: in a directory under a name, or as a parked entry.
enum Slot {
    Directory(InodeKey, Name),
    Parked(pleach_core::values::ParkingId),
}

impl Disk {
    /// Takes one step if its guard holds. `staged` are the contents fetched before, by hash.
    pub fn perform(
        &mut self,
        batch: &mut Batch,
        effect: &Effect,
        staged: &mut BTreeMap<ContentHash, Vec<u8>>,
    ) -> Outcome {
        let result = match effect {
            Effect::MakeDirectory { at, attributes } => self.put_directory(batch, at, attributes),
            Effect::PutFile { at, expected, content, attributes, source } => {
                match self.source_bytes(at, source, content, staged) {
                    Ok(bytes) => self.put(
                        batch,
                        at,
                        expected,
                        Node::File(bytes),
                        attributes.mode,
                        content.mtime,
                    ),
                    Err(outcome) => Err(outcome),
                }
            }
            Effect::PutSymlink { at, expected, target, mtime, .. } => {
                let node = Node::Symlink(target.clone());
                self.put(batch, at, expected, node, Mode::new(0o777), *mtime)
            }
            Effect::Move { from, to, expected } => self.relocate(batch, from, to, expected),
            Effect::RemoveFile { at, expected } => self.remove(batch, at, expected),
            Effect::RemoveDirectory { at, expected } => self.drop_directory(at, expected),
            Effect::Confirm { at, expected } => match self.locate(at) {
                Some(key) => self.guard(batch, key, expected).map(|()| self.fingerprint(key)),
                None => Err(Outcome::Differs),
            },
            Effect::SetAttributes { at, expected, attributes, body } => {
                self.set_attributes(batch, at, expected, attributes, body.mtime())
            }
        };
        match result {
            Ok(fingerprint) => {
                // What was staged is renamed into place.
                if let Effect::PutFile { source: PutSource::Staged, content, .. } = effect {
                    staged.remove(&content.hash);
                }
                Outcome::Done { fingerprint }
            }
            Err(Outcome::Differs) if self.has_left_parking(effect) => Outcome::Unparked,
            Err(outcome) => outcome,
        }
    }

    fn has_left_parking(&self, effect: &Effect) -> bool {
        effect.parked().is_some_and(|id| !self.parked.contains_key(&id))
    }

    fn locate(&self, location: &Location) -> Option<InodeKey> {
        match location {
            Location::Tree(path) => self.lookup(path).ok(),
            Location::Parked(id, path) => self.walk_from(*self.parked.get(id)?, path).ok(),
        }
    }

    /// The directory and name of a location whose directory exists.
    fn slot(&self, location: &Location) -> Result<Slot, Outcome> {
        let (start, path) = match location {
            Location::Tree(path) => (self.root, path),
            Location::Parked(id, path) if path.is_root() => return Ok(Slot::Parked(*id)),
            Location::Parked(id, path) => (*self.parked.get(id).ok_or(Outcome::Differs)?, path),
        };
        let (parent, name) = path.split_last().ok_or(Outcome::Differs)?;
        let parent = self.walk_from(start, &parent).map_err(|_| Outcome::Differs)?;
        self.entries(parent).map_err(|_| Outcome::Differs)?;
        Ok(Slot::Directory(parent, name.clone()))
    }

    fn occupant(&self, slot: &Slot) -> Option<InodeKey> {
        match slot {
            Slot::Directory(parent, name) => self.entries(*parent).ok()?.get(name).copied(),
            Slot::Parked(id) => self.parked.get(id).copied(),
        }
    }

    fn place(&mut self, slot: Slot, key: InodeKey) {
        match slot {
            Slot::Directory(parent, name) => self.link(parent, name, key),
            Slot::Parked(id) => {
                self.parked.insert(id, key);
                self.inode_mut(key).parent = Some(Parent::Parked);
            }
        }
    }

    fn displace(&mut self, slot: &Slot) -> InodeKey {
        match slot {
            Slot::Directory(parent, name) => self.unlink_name(*parent, name),
            Slot::Parked(id) => {
                let key = self.parked.remove(id).expect("the slot was found occupied");
                self.inode_mut(key).parent = None;
                key
            }
        }
    }

    fn guard(&self, batch: &Batch, key: InodeKey, expected: &Fingerprint) -> Result<(), Outcome> {
        let now = self.fingerprint(key);
        let equal = if self.inode(key).parent == Some(Parent::Parked) {
            now.same_object(expected)
        } else if matches!(self.inode(key).node, Node::Directory(_)) {
            match expected.inode {
                0 => batch.made.contains(&key),
                _ => now.same_object(expected),
            }
        } else if batch.renamed.contains(&key) {
            Fingerprint { changed: expected.changed, ..now } == *expected
        } else {
            now == *expected
        };
        if equal { Ok(()) } else { Err(Outcome::Differs) }
    }

    fn source_bytes(
        &self,
        at: &Location,
        source: &PutSource,
        content: &FileContent,
        staged: &BTreeMap<ContentHash, Vec<u8>>,
    ) -> Result<Vec<u8>, Outcome> {
        let bytes = match source {
            PutSource::Inline(bytes) => bytes.to_vec(),
            PutSource::Empty => Vec::new(),
            PutSource::Staged => match staged.get(&content.hash) {
                Some(bytes) => bytes.clone(),
                None => return Err(missing(at)),
            },
            PutSource::Local(path) => self.read(path).ok_or(Outcome::Differs)?.to_vec(),
        };
        let complete =
            ContentHash::of(&bytes) == content.hash && bytes.len() as u64 == content.size;
        match source {
            _ if complete => Ok(bytes),
            PutSource::Local(_) => Err(Outcome::Differs),
            _ => panic!("the engine would put bytes in place that are not the content: {source:?}"),
        }
    }

    fn put_directory(
        &mut self,
        batch: &mut Batch,
        at: &Location,
        attributes: &Attributes,
    ) -> Result<Fingerprint, Outcome> {
        let slot = self.slot(at)?;
        if self.occupant(&slot).is_some() {
            return Err(Outcome::Differs);
        }
        let mode = if self.has_journal() { Mode::new(0o700) } else { attributes.mode };
        let key = self.make(Node::Directory(BTreeMap::new()), mode);
        self.place(slot, key);
        batch.made.insert(key);
        if self.has_journal() {
            self.log();
            self.inode_mut(key).mode = attributes.mode;
            self.stamp_changed(key);
            self.log();
        }
        Ok(self.fingerprint(key))
    }

    fn put(
        &mut self,
        batch: &Batch,
        at: &Location,
        expected: &Expected,
        node: Node,
        mode: Mode,
        mtime: Timestamp,
    ) -> Result<Fingerprint, Outcome> {
        let slot = self.slot(at)?;
        match (self.occupant(&slot), expected) {
            (None, Expected::Absent) => {}
            (Some(key), Expected::Present(fingerprint)) => {
                self.guard(batch, key, fingerprint)?;
                if self.entries(key).is_ok() {
                    return Err(Outcome::Differs);
                }
                self.displace(&slot);
                self.retain(key, at);
            }
            _ => return Err(Outcome::Differs),
        }
        let key = self.make(node, mode);
        self.inode_mut(key).modified = mtime;
        self.place(slot, key);
        // It was complete and durable before it was renamed here.
        self.keep_bytes(key);
        self.log();
        Ok(self.fingerprint(key))
    }

    fn retain(&mut self, key: InodeKey, from: &Location) {
        self.inode_mut(key).parent = Some(Parent::Versions);
        self.versions.push(key);
        if let Location::Tree(path) = from {
            self.displaced_from.insert(key, path.clone());
        }
    }

    fn relocate(
        &mut self,
        batch: &mut Batch,
        from: &Location,
        to: &Location,
        expected: &Fingerprint,
    ) -> Result<Fingerprint, Outcome> {
        let source = self.slot(from)?;
        let key = self.occupant(&source).ok_or(Outcome::Differs)?;
        self.guard(batch, key, expected)?;
        let target = self.slot(to)?;
        if self.occupant(&target).is_some() {
            return Err(Outcome::Differs);
        }
        if let Slot::Directory(parent, _) = &target
            && self.is_at_or_below(*parent, key)
        {
            return Err(Outcome::Differs);
        }
        self.displace(&source);
        self.place(target, key);
        self.stamp_changed(key);
        self.log();
        batch.renamed.insert(key);
        Ok(self.fingerprint(key))
    }

    fn remove(
        &mut self,
        batch: &Batch,
        at: &Location,
        expected: &Fingerprint,
    ) -> Result<Fingerprint, Outcome> {
        let slot = self.slot(at)?;
        let key = self.occupant(&slot).ok_or(Outcome::Differs)?;
        self.guard(batch, key, expected)?;
        if self.entries(key).is_ok() {
            return Err(Outcome::Differs);
        }
        let was = self.fingerprint(key);
        self.displace(&slot);
        self.retain(key, at);
        self.log();
        Ok(was)
    }

    fn drop_directory(
        &mut self,
        at: &Location,
        expected: &Fingerprint,
    ) -> Result<Fingerprint, Outcome> {
        let slot = self.slot(at)?;
        let key = self.occupant(&slot).ok_or(Outcome::Differs)?;
        let was = self.fingerprint(key);
        let empty = self.entries(key).is_ok_and(BTreeMap::is_empty);
        if !empty || !was.same_object(expected) {
            return Err(Outcome::Differs);
        }
        self.displace(&slot);
        self.collect(key);
        self.log();
        Ok(was)
    }

    fn set_attributes(
        &mut self,
        batch: &Batch,
        at: &Location,
        expected: &Fingerprint,
        attributes: &Attributes,
        mtime: Timestamp,
    ) -> Result<Fingerprint, Outcome> {
        let key = self.locate(at).ok_or(Outcome::Differs)?;
        self.guard(batch, key, expected)?;
        let is_link = matches!(self.inode(key).node, Node::Symlink(_));
        let inode = self.inode_mut(key);
        if !is_link {
            inode.mode = attributes.mode;
        }
        self.log();
        self.inode_mut(key).modified = mtime;
        self.stamp_changed(key);
        self.log();
        Ok(self.fingerprint(key))
    }
}

/// It is not staged.
fn missing(at: &Location) -> Outcome {
    let (Location::Tree(path) | Location::Parked(_, path)) = at;
    let (path, reason) = (path.clone(), "its content is not staged".to_owned());
    Outcome::Failed(Problem { kind: ProblemKind::ContentMissing, path, reason })
}
