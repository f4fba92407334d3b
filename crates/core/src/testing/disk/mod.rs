//! A disk in memory: inodes, names, times, and what looks and effects make of them.
//!
//! Invariant: every directory but the root and the parked ones has one name; a file may have several.
//! What it lacks: permissions, space that runs out, open files.

use std::collections::{BTreeMap, BTreeSet};

mod requests;

use crate::values::{Body, FileContent, LinkTarget, Location, ParkingId};
use crate::vocabulary::{
    Attributes, ContentHash, Fingerprint, Kind, Mode, Name, Timestamp, TreePath, Xattrs,
};

const ROOT: u64 = 2;
/// Files up to this many bytes are handed over when read.
const READ_BYTES_KEPT_MAX: usize = 64 << 10;

#[derive(Clone, Debug)]
enum Inside {
    Directory(BTreeMap<Name, u64>),
    File(Vec<u8>),
    Symlink(LinkTarget),
}

#[derive(Clone, Debug)]
struct Inode {
    mode: Mode,
    modified: Timestamp,
    changed: Timestamp,
    born: Timestamp,
    xattrs: Xattrs,
    links: u32,
    inside: Inside,
}

/// What a path of the disk shows, for comparisons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskEntry {
    /// Content with its mtime; of the root, an mtime of zero.
    pub body: Body,
    /// Permission bits and extended attributes.
    pub attributes: Attributes,
}

/// A disk in memory.
#[derive(Clone, Debug)]
pub struct VirtualDisk {
    inodes: BTreeMap<u64, Inode>,
    free: BTreeSet<u64>,
    clock: i64,
    parked: BTreeMap<ParkingId, u64>,
    renamed: BTreeSet<u64>,
    staged: BTreeMap<ContentHash, Vec<u8>>,
    ignored: BTreeSet<TreePath>,
    closed: BTreeSet<TreePath>,
    /// What effects have replaced or removed: kept, as a real disk keeps versions.
    pub versions: BTreeSet<ContentHash>,
    /// The objects of these.
    pub put_aside: Vec<Fingerprint>,
    /// How many names were statted and files read, for tests of cost.
    pub looked: u64,
    /// How many files were read.
    pub read: u64,
}

impl Default for VirtualDisk {
    fn default() -> Self {
        let mut disk = Self {
            inodes: BTreeMap::new(),
            free: BTreeSet::new(),
            clock: 1,
            parked: BTreeMap::new(),
            renamed: BTreeSet::new(),
            staged: BTreeMap::new(),
            ignored: BTreeSet::new(),
            closed: BTreeSet::new(),
            versions: BTreeSet::new(),
            put_aside: Vec::new(),
            looked: 0,
            read: 0,
        };
        let root = disk.new_inode(Inside::Directory(BTreeMap::new()), Mode::new(0o755));
        disk.inodes.insert(ROOT, root);
        disk
    }
}

/// What a user does. Each tells whether it was possible; paths as on the command line.
impl VirtualDisk {
    /// Writes a file in place, as `echo >` does.
    pub fn write(&mut self, path: &TreePath, bytes: &[u8]) -> bool {
        let now = self.tick();
        match self.find(path) {
            Some(id) => {
                let inode = self.inodes.get_mut(&id).expect("found");
                let Inside::File(old) = &mut inode.inside else { return false };
                *old = bytes.to_vec();
                (inode.modified, inode.changed) = (now, now);
                true
            }
            None => {
                let inode = self.new_inode(Inside::File(bytes.to_vec()), Mode::new(0o644));
                self.add(path, inode)
            }
        }
    }

    /// Writes a temporary file and renames it over the path, as editors do.
    pub fn save(&mut self, path: &TreePath, bytes: &[u8]) -> bool {
        let Some((directory, _)) = path.split_last() else { return false };
        if self.find(path).is_some_and(|id| self.is_directory(id)) {
            return false;
        }
        let temp = directory.join(&Name::try_from(".temp~").expect("a name"));
        self.write(&temp, bytes) && self.rename(&temp, path)
    }

    /// Makes a directory.
    pub fn make_directory(&mut self, path: &TreePath) -> bool {
        let inode = self.new_inode(Inside::Directory(BTreeMap::new()), Mode::new(0o755));
        self.find(path).is_none() && self.add(path, inode)
    }

    /// Makes a symbolic link.
    pub fn symlink(&mut self, path: &TreePath, target: &str) -> bool {
        let target = LinkTarget::new(target.as_bytes()).expect("a link's text");
        let inode = self.new_inode(Inside::Symlink(target), Mode::new(0o777));
        self.find(path).is_none() && self.add(path, inode)
    }

    /// Gives a file another name.
    pub fn link(&mut self, from: &TreePath, to: &TreePath) -> bool {
        let Some(id) = self.find(from).filter(|&id| !self.is_directory(id)) else { return false };
        if self.find(to).is_some() || !self.enter(to, id) {
            return false;
        }
        let now = self.tick();
        let inode = self.inodes.get_mut(&id).expect("found");
        inode.links += 1;
        inode.changed = now;
        true
    }

    /// Renames as rename(2) does: over a file or link, or over an empty directory.
    pub fn rename(&mut self, from: &TreePath, to: &TreePath) -> bool {
        let Some(id) = self.find(from) else { return false };
        if from.is_root() || to.starts_with(from) {
            return false;
        }
        if let Some(over) = self.find(to) {
            let possible = match &self.inodes[&over].inside {
                Inside::Directory(inside) => inside.is_empty() && self.is_directory(id),
                _ => !self.is_directory(id) && over != id,
            };
            if !possible {
                return false;
            }
            self.unlink(to);
        } else if !to.split_last().is_some_and(|(directory, _)| self.can_hold(&directory)) {
            return false;
        }
        self.leave(from);
        self.enter(to, id);
        let now = self.tick();
        self.inodes.get_mut(&id).expect("found").changed = now;
        true
    }

    /// Removes a path and all below.
    pub fn remove(&mut self, path: &TreePath) -> bool {
        if path.is_root() || self.find(path).is_none() {
            return false;
        }
        self.unlink(path);
        true
    }

    /// Sets the permission bits.
    pub fn set_mode(&mut self, path: &TreePath, bits: u32) -> bool {
        let now = self.tick();
        let Some(id) = self.find(path).filter(|id| *id != ROOT) else { return false };
        let inode = self.inodes.get_mut(&id).expect("found");
        if matches!(inode.inside, Inside::Symlink(_)) {
            return false;
        }
        (inode.mode, inode.changed) = (Mode::new(bits), now);
        true
    }

    /// Sets the mtime.
    pub fn touch(&mut self, path: &TreePath) -> bool {
        let now = self.tick();
        let Some(id) = self.find(path).filter(|id| *id != ROOT) else { return false };
        let inode = self.inodes.get_mut(&id).expect("found");
        (inode.modified, inode.changed) = (now, now);
        true
    }

    /// Lets the ignore rules cover a path.
    pub fn ignore(&mut self, path: TreePath) {
        self.ignored.insert(path);
    }

    /// Lets nobody list a directory any more.
    pub fn close(&mut self, path: TreePath) {
        self.closed.insert(path);
    }

    /// Lets all directories be listed again.
    pub fn open_all(&mut self) {
        self.closed.clear();
    }

    /// All paths, for comparisons.
    #[must_use]
    pub fn entries(&self) -> BTreeMap<TreePath, DiskEntry> {
        let mut entries = BTreeMap::new();
        let mut queue = vec![(TreePath::root(), ROOT)];
        while let Some((path, id)) = queue.pop() {
            let inode = &self.inodes[&id];
            if let Inside::Directory(inside) = &inode.inside {
                queue.extend(inside.iter().map(|(name, &child)| (path.join(name), child)));
            }
            if id != ROOT {
                entries.insert(path, self.shown(inode));
            }
        }
        entries
    }

    /// What tells an object from all others: its inode number and its birth.
    #[must_use]
    pub fn object(&self, path: &TreePath) -> Option<(u64, Timestamp)> {
        let id = self.find(path)?;
        Some((id, self.inodes[&id].born))
    }

    /// Where each object is.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<(u64, Timestamp), TreePath> {
        let paths = self.entries().into_keys();
        paths.filter_map(|path| Some((self.object(&path)?, path))).collect()
    }

    /// The bytes of every file that is in the tree or in the staging area.
    #[must_use]
    pub fn contents(&self) -> BTreeSet<ContentHash> {
        let files = self.inodes.values().filter_map(|inode| match &inode.inside {
            Inside::File(bytes) => Some(ContentHash::of(bytes)),
            _ => None,
        });
        files.collect()
    }

    /// The bytes of a file in the tree.
    #[must_use]
    pub fn read_file(&self, path: &TreePath) -> Option<&[u8]> {
        match &self.inodes[&self.find(path)?].inside {
            Inside::File(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// Inodes and names.
impl VirtualDisk {
    fn tick(&mut self) -> Timestamp {
        self.clock += 1;
        Timestamp { seconds: self.clock, nanos: 7 }
    }

    fn new_inode(&mut self, inside: Inside, mode: Mode) -> Inode {
        let now = self.tick();
        let (modified, changed) = (now, now);
        Inode { mode, modified, changed, born: now, xattrs: Xattrs::new(), links: 1, inside }
    }

    /// Numbers are used again, as on ext4.
    fn allocate(&mut self, inode: Inode) -> u64 {
        let next = self.inodes.keys().next_back().map_or(ROOT, |last| last + 1);
        let id = self.free.pop_first().unwrap_or(next);
        self.inodes.insert(id, inode);
        id
    }

    fn release(&mut self, id: u64) {
        let mut queue = vec![id];
        while let Some(at) = queue.pop() {
            let Some(inode) = self.inodes.get_mut(&at) else { continue };
            inode.links -= 1;
            if inode.links > 0 {
                continue;
            }
            if let Some(Inode { inside: Inside::Directory(inside), .. }) = self.inodes.remove(&at) {
                queue.extend(inside.into_values());
            }
            self.free.insert(at);
        }
    }

    fn fingerprint(&self, id: u64) -> Fingerprint {
        let inode = &self.inodes[&id];
        let (kind, size) = match &inode.inside {
            Inside::Directory(_) => (Kind::Directory, 0),
            Inside::File(bytes) => (Kind::File, bytes.len() as u64),
            Inside::Symlink(target) => (Kind::Symlink, target.as_bytes().len() as u64),
        };
        Fingerprint {
            device: 1,
            inode: id,
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

    fn shown(&self, inode: &Inode) -> DiskEntry {
        let mtime = inode.modified;
        let body = match &inode.inside {
            Inside::Directory(_) => Body::Directory { mtime },
            Inside::File(bytes) => Body::File(FileContent {
                hash: ContentHash::of(bytes),
                size: bytes.len() as u64,
                mtime,
            }),
            Inside::Symlink(target) => Body::Symlink { target: target.clone(), mtime },
        };
        let xattrs = inode.xattrs.clone();
        DiskEntry { body, attributes: Attributes { mode: inode.mode, owner: None, xattrs } }
    }

    fn inside(&self, id: u64) -> Option<BTreeMap<Name, u64>> {
        match &self.inodes.get(&id)?.inside {
            Inside::Directory(inside) => Some(inside.clone()),
            _ => None,
        }
    }

    fn is_directory(&self, id: u64) -> bool {
        matches!(self.inodes[&id].inside, Inside::Directory(_))
    }

    fn can_hold(&self, path: &TreePath) -> bool {
        self.find(path).is_some_and(|id| self.is_directory(id))
    }

    fn find(&self, path: &TreePath) -> Option<u64> {
        self.descend(ROOT, path)
    }

    fn descend(&self, from: u64, path: &TreePath) -> Option<u64> {
        path.names().iter().try_fold(from, |at, name| match &self.inodes.get(&at)?.inside {
            Inside::Directory(inside) => inside.get(name).copied(),
            _ => None,
        })
    }

    fn resolve(&self, at: &Location) -> Option<u64> {
        match at {
            Location::Tree(path) => self.find(path),
            Location::Parked(id, path) => self.descend(*self.parked.get(id)?, path),
        }
    }

    fn holder(&self, at: &Location) -> Option<(u64, Name)> {
        let (directory, name) = match at {
            Location::Tree(path) => {
                let (directory, name) = path.split_last()?;
                (Location::Tree(directory), name.clone())
            }
            Location::Parked(id, path) => {
                let (directory, name) = path.split_last()?;
                (Location::Parked(*id, directory), name.clone())
            }
        };
        let id = self.resolve(&directory).filter(|&id| self.is_directory(id))?;
        Some((id, name))
    }

    fn holder_exists(&self, at: &Location) -> bool {
        matches!(at, Location::Parked(_, path) if path.is_root()) || self.holder(at).is_some()
    }

    fn add(&mut self, path: &TreePath, inode: Inode) -> bool {
        let id = self.allocate(inode);
        let entered = self.enter(path, id);
        if !entered {
            self.release(id);
        }
        entered
    }

    fn enter(&mut self, path: &TreePath, id: u64) -> bool {
        self.enter_at(&Location::Tree(path.clone()), id)
    }

    fn leave(&mut self, path: &TreePath) {
        self.leave_at(&Location::Tree(path.clone()));
    }

    fn unlink(&mut self, path: &TreePath) {
        self.unlink_at(&Location::Tree(path.clone()));
    }

    fn enter_at(&mut self, at: &Location, id: u64) -> bool {
        if let Location::Parked(parking, path) = at
            && path.is_root()
        {
            self.parked.insert(*parking, id);
            return true;
        }
        let Some((directory, name)) = self.holder(at) else { return false };
        self.change_names(directory, |inside| {
            inside.insert(name, id);
        });
        true
    }

    fn leave_at(&mut self, at: &Location) {
        if let Location::Parked(parking, path) = at
            && path.is_root()
        {
            self.parked.remove(parking);
        } else if let Some((directory, name)) = self.holder(at) {
            self.change_names(directory, |inside| {
                inside.remove(&name);
            });
        }
    }

    fn unlink_at(&mut self, at: &Location) {
        if let Some(id) = self.resolve(at) {
            self.leave_at(at);
            let now = self.tick();
            self.inodes.get_mut(&id).expect("resolved").changed = now;
            self.release(id);
        }
    }

    fn change_names(&mut self, directory: u64, change: impl FnOnce(&mut BTreeMap<Name, u64>)) {
        let now = self.tick();
        let inode = self.inodes.get_mut(&directory).expect("a directory that was found");
        if let Inside::Directory(inside) = &mut inode.inside {
            change(inside);
            (inode.modified, inode.changed) = (now, now);
        }
    }
}
