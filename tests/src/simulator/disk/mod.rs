//! A virtual file system: inodes, names, and the clock that stamps them.
//!
//! It knows what stat(2), rename(2) and unlink(2) promise and nothing of pleach; what pleach does on it
//! is in `effects` and `look`, what users do in `calls`. Inode numbers may be given out again once nothing holds the old inode, as
//! ext4 does. Deliberately without hard links, owners, extended attributes, ignore rules and
//! permission checks: everybody here is root.

mod backup;
mod calls;
mod effects;
mod journal;
mod look;

pub use backup::{Backup, Copying};
pub use calls::{Opened, Truncate};
pub use effects::Batch;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use journal::Journal;
use pleach_core::values::{Body, ParkingId};
use pleach_core::values::{FileContent, LateWrite, LinkTarget};
use pleach_core::vocabulary::{
    ContentHash, Fingerprint, Kind, Mode, Name, NodeId, Timestamp, TreePath,
};

/// The key of an inode in the table; never given out twice, unlike its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InodeKey(u64);

/// What an inode holds.
#[derive(Clone, Debug)]
pub enum Node {
    /// Entries by name.
    Directory(BTreeMap<Name, InodeKey>),
    /// Bytes.
    File(Vec<u8>),
    /// A link's text.
    Symlink(LinkTarget),
}

/// One inode.
#[derive(Clone, Debug)]
pub struct Inode {
    number: u64,
    mode: Mode,
    modified: Timestamp,
    changed: Timestamp,
    born: Timestamp,
    /// Where it is; none once it has no name in the tree and is not parked.
    parent: Option<Parent>,
    /// Whether programs hold it open.
    open: u32,
    /// What it holds.
    pub node: Node,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Parent {
    Root,
    Parked,
    Versions,
    Directory(InodeKey, Name),
}

/// What a system call answers when it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// ENOENT
    NotFound,
    /// EEXIST
    Exists,
    /// ENOTDIR
    NotDirectory,
    /// EISDIR
    IsDirectory,
    /// ENOTEMPTY
    NotEmpty,
    /// EINVAL: a directory into itself.
    Invalid,
    /// ELOOP: a symbolic link where a file was meant.
    Loop,
}

/// Where an inode is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// In the tree.
    Tree(TreePath),
    /// In the staging area, at or below an entry that waits for its place.
    Parked,
    /// Among the retained versions.
    Versions,
    /// It has no name any more.
    Nowhere,
}

/// One entry, as two disks are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is, with bytes by hash.
    pub body: Body,
    /// Permission bits; 0o777 for a link.
    pub mode: Mode,
}

/// All entries of a tree by path, without the root.
pub type Listing = BTreeMap<TreePath, Entry>;

/// Whether inode numbers are given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InodeNumbers {
    /// The lowest free one, as on ext4.
    Reused,
    /// Always a new one, as on btrfs.
    Fresh,
}

/// A virtual disk with one tree.
#[derive(Debug)]
pub struct Disk {
    device: u64,
    numbers: InodeNumbers,
    inodes: BTreeMap<InodeKey, Rc<Inode>>,
    used_numbers: BTreeSet<u64>,
    next_key: u64,
    root: InodeKey,
    parked: BTreeMap<ParkingId, InodeKey>,
    versions: Vec<InodeKey>,
    /// Where in the tree a version was.
    displaced_from: BTreeMap<InodeKey, TreePath>,
    unreadable: BTreeSet<InodeKey>,
    clock: Timestamp,
    mutations: u64,
    /// What a power cut may leave; none where the power is never cut.
    journal: Option<Journal>,
}

/// As the daemon's.
const AT_REST_SECONDS: i64 = 60;

impl Disk {
    /// An empty tree.
    #[must_use]
    pub fn new(device: u64, numbers: InodeNumbers, clock: Timestamp) -> Self {
        let mut disk = Self {
            device,
            numbers,
            inodes: BTreeMap::new(),
            used_numbers: BTreeSet::new(),
            next_key: 0,
            root: InodeKey(0),
            parked: BTreeMap::new(),
            versions: Vec::new(),
            displaced_from: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            clock,
            mutations: 0,
            journal: None,
        };
        disk.root = disk.make(Node::Directory(BTreeMap::new()), Mode::new(0o755));
        disk.inode_mut(disk.root).parent = Some(Parent::Root);
        disk
    }

    /// Sets the clock that stamps files. It may go back.
    pub fn set_clock(&mut self, clock: Timestamp) {
        self.clock = clock;
    }

    /// How often anything was changed; equal numbers mean an untouched disk.
    #[must_use]
    pub fn mutations(&self) -> u64 {
        self.mutations
    }

    /// The moment of the present change: every change has one of its own.
    fn tick(&mut self) -> Timestamp {
        self.mutations += 1;
        self.clock.nanos += 1;
        if self.clock.nanos >= 1_000_000_000 {
            self.clock.nanos = 0;
            self.clock.seconds += 1;
        }
        self.clock
    }

    fn make(&mut self, node: Node, mode: Mode) -> InodeKey {
        let now = self.tick();
        let number = match self.numbers {
            InodeNumbers::Fresh => self.used_numbers.last().map_or(1, |last| last + 1),
            InodeNumbers::Reused => (1..)
                .find(|number| !self.used_numbers.contains(number))
                .expect("numbers are endless"),
        };
        self.used_numbers.insert(number);
        let key = InodeKey(self.next_key);
        self.next_key += 1;
        let (modified, changed, born) = (now, now, now);
        let inode = Inode { number, mode, modified, changed, born, parent: None, open: 0, node };
        self.inodes.insert(key, Rc::new(inode));
        key
    }

    /// Forgets an inode that has neither a name nor a program that holds it.
    fn collect(&mut self, key: InodeKey) {
        let inode = self.inode(key);
        if inode.parent.is_none() && inode.open == 0 {
            let inode = self.inodes.remove(&key).expect("every key handed out is in the table");
            if self.numbers == InodeNumbers::Reused {
                self.used_numbers.remove(&inode.number);
            }
        }
    }

    /// The inode behind a key.
    #[must_use]
    pub fn inode(&self, key: InodeKey) -> &Inode {
        self.inodes.get(&key).expect("every key handed out is in the table")
    }

    fn inode_mut(&mut self, key: InodeKey) -> &mut Inode {
        Rc::make_mut(self.inodes.get_mut(&key).expect("every key handed out is in the table"))
    }

    fn entries(&self, directory: InodeKey) -> Result<&BTreeMap<Name, InodeKey>, Errno> {
        match &self.inode(directory).node {
            Node::Directory(entries) => Ok(entries),
            _ => Err(Errno::NotDirectory),
        }
    }

    fn entries_mut(&mut self, directory: InodeKey) -> &mut BTreeMap<Name, InodeKey> {
        match &mut self.inode_mut(directory).node {
            Node::Directory(entries) => entries,
            _ => unreachable!("callers have looked the directory up"),
        }
    }

    fn walk_from(&self, start: InodeKey, path: &TreePath) -> Result<InodeKey, Errno> {
        path.names().iter().try_fold(start, |directory, name| {
            self.entries(directory)?.get(name).copied().ok_or(Errno::NotFound)
        })
    }

    /// What a path names.
    pub fn lookup(&self, path: &TreePath) -> Result<InodeKey, Errno> {
        self.walk_from(self.root, path)
    }

    /// The directory that holds `path`, and the last name.
    fn parent_of(&self, path: &TreePath) -> Result<(InodeKey, Name), Errno> {
        let (parent, name) = path.split_last().ok_or(Errno::Invalid)?;
        let parent = self.lookup(&parent)?;
        self.entries(parent)?;
        Ok((parent, name.clone()))
    }

    /// What stat(2) says of an object.
    #[must_use]
    pub fn fingerprint(&self, key: InodeKey) -> Fingerprint {
        self.fingerprint_of(self.inode(key))
    }

    fn fingerprint_of(&self, inode: &Inode) -> Fingerprint {
        let (kind, size) = match &inode.node {
            Node::Directory(_) => (Kind::Directory, 0),
            Node::File(bytes) => (Kind::File, bytes.len() as u64),
            Node::Symlink(target) => (Kind::Symlink, target.as_bytes().len() as u64),
        };
        Fingerprint {
            device: self.device,
            inode: inode.number,
            kind,
            mode: inode.mode,
            uid: 0,
            gid: 0,
            size,
            modified: inode.modified,
            changed: inode.changed,
            born: inode.born,
        }
    }

    /// Whether a path names something that is there and a directory.
    #[must_use]
    pub fn is_directory(&self, path: &TreePath) -> bool {
        self.lookup(path).is_ok_and(|key| self.entries(key).is_ok())
    }

    /// What sort of thing a path names.
    #[must_use]
    pub fn kind(&self, path: &TreePath) -> Option<Kind> {
        Some(self.fingerprint(self.lookup(path).ok()?).kind)
    }

    /// The bytes of a file.
    #[must_use]
    pub fn read(&self, path: &TreePath) -> Option<&[u8]> {
        self.bytes(self.lookup(path).ok()?)
    }

    /// The bytes of a file by its inode, if that is still in the table.
    #[must_use]
    pub fn bytes(&self, key: InodeKey) -> Option<&[u8]> {
        match &self.inodes.get(&key)?.node {
            Node::File(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Bytes with this hash among the retained versions.
    #[must_use]
    pub fn version(&self, hash: &ContentHash) -> Option<&[u8]> {
        self.versions
            .iter()
            .filter_map(|&key| self.bytes(key))
            .find(|bytes| ContentHash::of(bytes) == *hash)
    }

    /// All that is retained: hashes of files, and of links' texts.
    #[must_use]
    pub fn version_hashes(&self) -> BTreeSet<ContentHash> {
        self.versions.iter().filter_map(|&key| self.version_hash(key)).collect()
    }

    /// Whether a version has this content to which nobody has written lately.
    #[must_use]
    pub fn keeps_at_rest(&self, hash: &ContentHash) -> bool {
        let is_at_rest =
            |key| self.clock.seconds - self.inode(key).modified.seconds >= AT_REST_SECONDS;
        self.versions.iter().any(|&key| self.version_hash(key) == Some(*hash) && is_at_rest(key))
    }

    /// The objects among the versions.
    #[must_use]
    pub fn put_aside(&self) -> Vec<Fingerprint> {
        self.versions.iter().map(|&key| self.fingerprint(key)).collect()
    }

    /// Lets go of what is retained with these hashes.
    pub fn forget_versions(&mut self, gone: &BTreeSet<ContentHash>) {
        let mut versions = std::mem::take(&mut self.versions);
        versions.retain(|&key| self.version_hash(key).is_none_or(|hash| !gone.contains(&hash)));
        self.versions = versions;
    }

    /// A file among the versions as it is now, and where it was.
    #[must_use]
    pub fn late_write(&self, key: InodeKey) -> Option<(LateWrite, Vec<u8>)> {
        let inode = self.inodes.get(&key).filter(|inode| inode.parent == Some(Parent::Versions))?;
        let (path, bytes) = (self.displaced_from.get(&key)?.clone(), self.bytes(key)?.to_vec());
        let (hash, size) = (ContentHash::of(&bytes), bytes.len() as u64);
        let content = FileContent { hash, size, mtime: inode.modified };
        Some((LateWrite { path, content, mode: inode.mode }, bytes))
    }

    fn version_hash(&self, key: InodeKey) -> Option<ContentHash> {
        match &self.inode(key).node {
            Node::File(bytes) => Some(ContentHash::of(bytes)),
            Node::Symlink(target) => Some(ContentHash::of(target.as_bytes())),
            Node::Directory(_) => None,
        }
    }

    /// Where an inode is.
    #[must_use]
    pub fn whereabouts(&self, key: InodeKey) -> Whereabouts {
        let mut names = Vec::new();
        let mut next = key;
        loop {
            match self.inodes.get(&next).and_then(|inode| inode.parent.as_ref()) {
                Some(Parent::Directory(parent, name)) => {
                    names.push(name.clone());
                    next = *parent;
                }
                Some(Parent::Root) => break,
                Some(Parent::Parked) => return Whereabouts::Parked,
                Some(Parent::Versions) => return Whereabouts::Versions,
                None => return Whereabouts::Nowhere,
            }
        }
        names.reverse();
        Whereabouts::Tree(TreePath::new(names))
    }

    /// The entries that wait in the parking area, by the number of their place.
    #[must_use]
    pub fn parked(&self) -> BTreeSet<u64> {
        self.parked.keys().map(|id| id.0).collect()
    }

    /// Every path with its inode, parents first.
    #[must_use]
    pub fn paths(&self) -> Vec<(TreePath, InodeKey)> {
        let mut found = Vec::new();
        let mut waiting = vec![(TreePath::root(), self.root)];
        while let Some((path, directory)) = waiting.pop() {
            let Ok(entries) = self.entries(directory) else { continue };
            for (name, &key) in entries {
                let path = path.join(name);
                found.push((path.clone(), key));
                waiting.push((path, key));
            }
        }
        found.sort();
        found
    }

    /// Everything in the tree, to be compared.
    #[must_use]
    pub fn listing(&self) -> Listing {
        self.paths().into_iter().map(|(path, key)| (path, self.entry(key))).collect()
    }

    fn entry(&self, key: InodeKey) -> Entry {
        let inode = self.inode(key);
        let mtime = inode.modified;
        let body = match &inode.node {
            Node::Directory(_) => Body::Directory { mtime },
            Node::File(bytes) => Body::File(FileContent {
                hash: ContentHash::of(bytes),
                size: bytes.len() as u64,
                mtime,
            }),
            Node::Symlink(target) => Body::Symlink { target: target.clone(), mtime },
        };
        Entry { body, mode: inode.mode }
    }

    fn link(&mut self, directory: InodeKey, name: Name, key: InodeKey) {
        self.entries_mut(directory).insert(name.clone(), key);
        self.inode_mut(key).parent = Some(Parent::Directory(directory, name));
        self.stamp_directory(directory);
    }

    fn unlink_name(&mut self, directory: InodeKey, name: &Name) -> InodeKey {
        let key = self.entries_mut(directory).remove(name).expect("callers have looked it up");
        self.inode_mut(key).parent = None;
        self.stamp_directory(directory);
        key
    }

    fn stamp_directory(&mut self, directory: InodeKey) {
        let now = self.tick();
        let inode = self.inode_mut(directory);
        inode.modified = now;
        inode.changed = now;
    }

    fn stamp_changed(&mut self, key: InodeKey) {
        let now = self.tick();
        self.inode_mut(key).changed = now;
    }
}

/// Lists a merged tree as a disk would show it.
#[must_use]
pub fn listing_of(tree: &impl pleach_core::values::TreeView) -> Listing {
    let mut listing = Listing::new();
    let mut waiting = vec![(TreePath::root(), NodeId::ROOT)];
    while let Some((path, directory)) = waiting.pop() {
        for (name, node) in tree.children(directory) {
            let path = path.join(&name);
            let Some(entry) = tree.entry(node) else { continue };
            let mode = match entry.body {
                Body::Symlink { .. } => Mode::new(0o777),
                _ => entry.attributes.mode,
            };
            if matches!(entry.body, Body::Directory { .. }) {
                waiting.push((path.clone(), node));
            }
            listing.insert(path, Entry { body: entry.body, mode });
        }
    }
    listing
}

#[cfg(test)]
mod tests {
    use super::*;
    use pleach_core::values::{Effect, Expected, Location, Outcome, PutSource};
    use pleach_core::vocabulary::Attributes;

    fn disk() -> Disk {
        Disk::new(1, InodeNumbers::Reused, Timestamp::default())
    }

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).expect("plain names")
    }

    fn write(disk: &mut Disk, at: &str, bytes: &[u8]) -> InodeKey {
        let (key, _) = disk.open(&path(at), Truncate::ToEmpty).expect("the directory is there");
        disk.write(key, |file| file.extend_from_slice(bytes));
        disk.close(key);
        key
    }

    fn put(at: &str, expected: Expected, bytes: &[u8]) -> Effect {
        let hash = ContentHash::of(bytes);
        let mtime = Timestamp { seconds: 5, nanos: 0 };
        Effect::PutFile {
            at: Location::Tree(path(at)),
            expected,
            content: FileContent { hash, size: bytes.len() as u64, mtime },
            attributes: Attributes::with_mode(0o600),
            source: PutSource::Inline(bytes.into()),
        }
    }

    fn perform(disk: &mut Disk, effect: &Effect) -> Outcome {
        disk.perform(&mut Batch::default(), effect, &mut BTreeMap::new())
    }

    #[test]
    fn rename_replaces_a_file_and_frees_its_inode_number() {
        let mut disk = disk();
        let old = write(&mut disk, "a", b"1");
        let number = disk.fingerprint(old).inode;
        write(&mut disk, "b", b"2");
        disk.rename(&path("b"), &path("a")).expect("files replace files");
        assert_eq!(disk.read(&path("a")), Some(&b"2"[..]));
        let new = write(&mut disk, "c", b"3");
        assert_eq!(disk.fingerprint(new).inode, number);
    }

    #[test]
    fn directory_is_never_moved_into_itself() {
        let mut disk = disk();
        disk.make_directory(&path("a")).expect("nothing is there");
        disk.make_directory(&path("a/b")).expect("nothing is there");
        assert_eq!(disk.rename(&path("a"), &path("a/b/c")), Err(Errno::Invalid));
    }

    #[test]
    fn replaced_file_is_kept_and_written_to_through_an_old_descriptor() {
        let mut disk = disk();
        let (key, _) = disk.open(&path("f"), Truncate::Keep).expect("the root is there");
        disk.write(key, |file| file.extend_from_slice(b"mine"));
        let expected = Expected::Present(disk.fingerprint(key));
        let outcome = perform(&mut disk, &put("f", expected, b"theirs"));
        assert!(matches!(outcome, Outcome::Done { .. }));
        disk.write(key, |file| file.extend_from_slice(b" too"));
        disk.close(key);
        assert_eq!(disk.read(&path("f")), Some(&b"theirs"[..]));
        assert_eq!(disk.version(&ContentHash::of(b"mine too")), Some(&b"mine too"[..]));
    }

    #[test]
    fn effect_that_finds_something_else_does_nothing() {
        let mut disk = disk();
        let key = write(&mut disk, "f", b"1");
        let expected = disk.fingerprint(key);
        write(&mut disk, "f", b"2");
        for expected in [Expected::Present(expected), Expected::Absent] {
            assert_eq!(perform(&mut disk, &put("f", expected, b"theirs")), Outcome::Differs);
        }
        assert_eq!(disk.read(&path("f")), Some(&b"2"[..]));
    }

    #[test]
    fn directory_with_something_in_it_is_not_removed() {
        let mut disk = disk();
        disk.make_directory(&path("d")).expect("nothing is there");
        write(&mut disk, "d/f", b"1");
        let expected = disk.fingerprint(disk.lookup(&path("d")).expect("just made"));
        let at = Location::Tree(path("d"));
        let remove = Effect::RemoveDirectory { at, expected };
        assert_eq!(perform(&mut disk, &remove), Outcome::Differs);
        disk.unlink(&path("d/f")).expect("it is there");
        assert!(matches!(perform(&mut disk, &remove), Outcome::Done { .. }));
    }
}
