//! What a power cut leaves, as on a file system with one journal in order, like ext4 and xfs.
//!
//! Names, attributes and sizes are written down as operations, in order: a cut leaves the first so many of
//! them, all that an fsync has committed at least. The bytes of a file are written by themselves: what
//! was not made durable by an fsync of that file, or of the file system, may be there, or what was there
//! before, or nothing, or a part, or zeros.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use pleach_core::values::ParkingId;
use pleach_core::vocabulary::{Fingerprint, Name, TreePath};
use rand::{Rng, RngExt};

use super::{Disk, Inode, InodeKey, Node};

/// How many operations wait to be committed at most.
const OPERATIONS_MAX: usize = 400;

/// Everything of a disk that has a place on it, at one moment.
#[derive(Clone, Debug)]
pub(super) struct Image {
    root: InodeKey,
    inodes: BTreeMap<InodeKey, Rc<Inode>>,
    used_numbers: BTreeSet<u64>,
    parked: BTreeMap<ParkingId, InodeKey>,
    versions: Vec<InodeKey>,
    displaced_from: BTreeMap<InodeKey, TreePath>,
}

/// The states between what is committed and what is in memory.
#[derive(Debug)]
pub(super) struct Journal {
    /// After each operation; the first is committed, the last is what programs see.
    images: Vec<Image>,
    /// The bytes of files that are durable.
    bytes: BTreeMap<InodeKey, Vec<u8>>,
}

/// What became of a file that a cut took bytes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Torn {
    Old,
    Empty,
    Whole,
    Part,
    Zeros,
}

/// Syncing, and cutting the power.
impl Disk {
    /// From now on the power may be cut.
    pub fn keep_journal(&mut self) {
        let images = vec![self.image()];
        self.journal = Some(Journal { images, bytes: BTreeMap::new() });
    }

    /// Whether the power may be cut.
    #[must_use]
    pub fn has_journal(&self) -> bool {
        self.journal.is_some()
    }

    pub(super) fn image(&self) -> Image {
        Image {
            root: self.root,
            inodes: self.inodes.clone(),
            used_numbers: self.used_numbers.clone(),
            parked: self.parked.clone(),
            versions: self.versions.clone(),
            displaced_from: self.displaced_from.clone(),
        }
    }

    /// An operation is over: a cut leaves all of it or nothing.
    pub(super) fn log(&mut self) {
        if self.journal.is_none() {
            return;
        }
        let image = self.image();
        if let Some(journal) = &mut self.journal {
            journal.images.push(image);
            if journal.images.len() > OPERATIONS_MAX {
                journal.images.remove(0);
            }
        }
    }

    /// The bytes of a file are durable, whether its name is or not.
    pub(super) fn keep_bytes(&mut self, key: InodeKey) {
        let Some(journal) = &mut self.journal else { return };
        if let Some(Node::File(bytes)) = self.inodes.get(&key).map(|inode| &inode.node) {
            journal.bytes.insert(key, bytes.clone());
        }
    }

    /// fsync(2) of a file: its bytes, and every operation up to the last one on it.
    pub fn sync_file(&mut self, key: InodeKey) {
        self.keep_bytes(key);
        let Some(journal) = &mut self.journal else { return };
        let touches = |pair: &[Image]| {
            let (before, after) = (pair[0].inodes.get(&key), pair[1].inodes.get(&key));
            match (before, after) {
                (Some(before), Some(after)) => !Rc::ptr_eq(before, after),
                (before, after) => before.is_some() != after.is_some(),
            }
        };
        if let Some(last) = journal.images.windows(2).rposition(touches) {
            journal.images.drain(..=last);
        }
    }

    /// An fsync of something that has just been changed: every operation so far.
    pub fn sync_names(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.images.drain(..journal.images.len() - 1);
        }
    }

    /// syncfs(2).
    pub fn sync_all(&mut self) {
        self.sync_names();
        let keys: Vec<InodeKey> = self.inodes.keys().copied().collect();
        keys.into_iter().for_each(|key| self.keep_bytes(key));
    }

    /// The power goes, and comes back: what was only in memory is gone, programs and their handles too.
    pub fn cut_power(&mut self, random: &mut impl Rng) {
        let Some(mut journal) = self.journal.take() else { return };
        let left = random.random_range(0..journal.images.len());
        let image = journal.images.swap_remove(left);
        self.set_image(image);
        self.unreadable.clear();
        for key in self.inodes.keys().copied().collect::<Vec<_>>() {
            self.tear(key, journal.bytes.get(&key), random);
        }
        self.close_all();
        self.mutations += 1;
        self.keep_journal();
        self.sync_all();
    }

    /// All that is on the disk now is durable.
    pub(super) fn restart_journal(&mut self) {
        self.log();
        self.sync_all();
    }

    pub(super) fn set_image(&mut self, image: Image) {
        let Image { root, inodes, used_numbers, parked, versions, displaced_from } = image;
        (self.root, self.inodes, self.used_numbers) = (root, inodes, used_numbers);
        (self.parked, self.versions, self.displaced_from) = (parked, versions, displaced_from);
    }

    fn tear(&mut self, key: InodeKey, durable: Option<&Vec<u8>>, random: &mut impl Rng) {
        let Node::File(bytes) = &self.inode(key).node else { return };
        if durable == Some(bytes) {
            return;
        }
        let torn = [Torn::Old, Torn::Empty, Torn::Whole, Torn::Part, Torn::Zeros];
        let bytes = match torn[random.random_range(0..torn.len())] {
            Torn::Old => durable.cloned().unwrap_or_default(),
            Torn::Empty => Vec::new(),
            Torn::Whole => return,
            Torn::Part => bytes[..random.random_range(0..=bytes.len())].to_vec(),
            Torn::Zeros => vec![0; bytes.len()],
        };
        self.inode_mut(key).node = Node::File(bytes);
    }

    /// What a cut would leave of what a directory holds under a name, if nothing but what is durable were left;
    /// the directory may be elsewhere then. Without one, of what the root holds.
    #[must_use]
    pub fn durable(&self, directory: Option<&Fingerprint>, name: &Name) -> Option<Fingerprint> {
        let committed = self.journal.as_ref()?.images.first()?;
        let is_meant = |inode: &&Rc<Inode>| {
            directory.is_some_and(|meant| self.fingerprint_of(inode).same_object(meant))
        };
        let holder = match directory {
            None => committed.inodes.get(&committed.root)?,
            Some(_) => committed.inodes.values().find(is_meant)?,
        };
        let Node::Directory(entries) = &holder.node else { return None };
        Some(self.fingerprint_of(committed.inodes.get(entries.get(name)?)?))
    }

    /// What a directory holds under a name now, wherever that directory is.
    #[must_use]
    pub fn shown(&self, directory: &Fingerprint, name: &Name) -> Option<Fingerprint> {
        let (key, _) = self.find_object(directory)?;
        Some(self.fingerprint(*self.entries(key).ok()?.get(name)?))
    }

    /// The hash of the bytes that are durable of a file, by its inode.
    #[must_use]
    pub fn durable_bytes(&self, key: InodeKey) -> Option<&[u8]> {
        self.journal.as_ref()?.bytes.get(&key).map(Vec::as_slice)
    }

    /// What is on the disk, wherever, and has this device and inode number and birth.
    #[must_use]
    pub fn find_object(&self, print: &Fingerprint) -> Option<(InodeKey, Fingerprint)> {
        let prints = self.inodes.keys().map(|&key| (key, self.fingerprint(key)));
        prints.into_iter().find(|(_, now)| now.same_object(print))
    }

    /// What stat(2) says of what is at a path.
    #[must_use]
    pub fn stat(&self, path: &TreePath) -> Option<Fingerprint> {
        Some(self.fingerprint(self.lookup(path).ok()?))
    }
}
