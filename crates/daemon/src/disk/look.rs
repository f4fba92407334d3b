//! Looking: a [`Look`] in, what is on the disk out. Only what differs from what is known is reported.
//!
//! Absence is evidence only in a directory that could be read, below a root that is still there: the
//! root is checked before and after, and if it is lost everything is unknown (R12).

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use pleach_core::values::{
    DirectoryState, Found, FoundBody, LinkTarget, ListRequest, Listed, Look, Looked, Problem,
    ProblemKind, ReadState,
};
use pleach_core::vocabulary::{Fingerprint, Kind, Name, TreePath, Xattrs};
use rustix::fs::{OFlags, RawDir};
use rustix::io::Errno;

use super::Disk;
use super::attributes::xattrs_at;
use super::read::{BUFFER_BYTES, read_stable};
use super::root::{RootLost, STATE_NAME};
use super::stat::{Seen, problem, stat_at, stat_handle};
use super::walk::{open_below, open_place};

/// How many requests make a second thread worth its start.
const SHARED_FROM: usize = 16;

/// How many threads look at once.
const THREADS_MAX: usize = 4;

/// How many there can be. To find out takes longer than a look at one file: the system keeps it in files.
static CORES: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));

/// What is asked of getdents64 at once.
const ENTRIES_BYTES: usize = 64 << 10;

impl Disk {
    /// Looks at the disk. Never fails as a whole: what could not be seen is unknown, with the reason.
    pub fn look(&mut self, look: &Look) -> Looked {
        self.ignore.refresh(self.root.tree());
        if let Err(lost) = self.root.still_there() {
            return all_unknown(look, &lost);
        }
        let this = &*self;
        let lists = in_parallel(&look.lists, || (), |(), request| this.list(request));
        let reads = in_parallel(
            &look.reads,
            || vec![0; BUFFER_BYTES],
            |buffer, request| {
                let state =
                    read_stable(this.root.tree(), request, buffer, &this.stopping, &this.progress);
                this.progress.add_read_file();
                state
            },
        );
        match self.root.still_there() {
            Ok(()) => {
                let looked = Looked { lists, reads };
                self.durable.note(look, &looked);
                looked
            }
            Err(lost) => all_unknown(look, &lost),
        }
    }

    pub(super) fn list(&self, request: &ListRequest) -> Listed {
        if self.stopping.load(Ordering::Relaxed) {
            return Listed { path: request.path.clone(), state: not_looked_at(&request.path) };
        }
        let state = match self.try_list(request) {
            Ok(state) => state,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => DirectoryState::Missing,
            Err(errno) => DirectoryState::Unknown(problem(errno, &request.path)),
        };
        Listed { path: request.path.clone(), state }
    }

    fn try_list(&self, request: &ListRequest) -> Result<DirectoryState, Errno> {
        let (top, names) = (self.root.tree(), request.path.names());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
        let directory = match request.only {
            Some(_) => open_place(top, names)?,
            // Only the owner and root may leave the access time alone (open(2), O_NOATIME).
            None => match open_below(top, names, flags | OFlags::NOATIME) {
                Err(Errno::PERM) => open_below(top, names, flags)?,
                opened => opened?,
            },
        };
        let mut listing = Listing::new(self, request, &directory);
        match &request.only {
            None => {
                for (_, name) in names_in(&directory)? {
                    listing.visit(name)?;
                }
            }
            Some(names) => {
                for name in names {
                    let name = CString::new(name.as_bytes()).expect("a name has no NUL byte");
                    listing.visit(name)?;
                }
            }
        }
        let fingerprint = stat_handle(&directory)?;
        Ok(listing.finish(fingerprint))
    }
}

/// The listing of one directory as it grows.
struct Listing<'a> {
    disk: &'a Disk,
    request: &'a ListRequest,
    directory: &'a OwnedFd,
    /// The directory's path for the ignore rules; none if it is covered itself.
    ignore_path: Option<PathBuf>,
    /// What is known and not yet met.
    missing: BTreeMap<&'a [u8], &'a Fingerprint>,
    found: Vec<Found>,
    unchanged: u32,
}

impl<'a> Listing<'a> {
    fn new(disk: &'a Disk, request: &'a ListRequest, directory: &'a OwnedFd) -> Self {
        let covered = disk.ignore.covers(&request.path, Kind::Directory);
        let ignore_path = (!covered)
            .then(|| PathBuf::from(OsStr::from_bytes(&request.path.to_bytes()).to_owned()));
        let missing = request.known.iter().map(|(name, known)| (name.as_bytes(), known)).collect();
        Self { disk, request, directory, ignore_path, missing, found: Vec::new(), unchanged: 0 }
    }

    fn is_covered(&self, name: &[u8], kind: Kind) -> bool {
        match &self.ignore_path {
            None => true,
            Some(path) => self.disk.ignore.covers_entry(path, name, kind),
        }
    }

    fn visit(&mut self, c_name: CString) -> Result<(), Errno> {
        let bytes = c_name.as_bytes();
        let Ok(name) = Name::new(bytes) else { return Ok(()) };
        if bytes == STATE_NAME.as_bytes() {
            self.missing.remove(bytes);
            if !self.request.path.is_root() {
                let reason =
                    "a directory of this name belongs to a store of its own: not replicated";
                self.skip(name, ProblemKind::UnsupportedName, reason.to_owned());
            }
            return Ok(());
        }
        let seen = match stat_at(self.directory, c_name.as_c_str()) {
            Ok(seen) => seen,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => {
                self.missing.remove(bytes);
                let body = FoundBody::Skipped(problem(errno, &self.request.path.join(&name)));
                self.found.push(Found { name, body });
                return Ok(());
            }
        };
        let kind = seen.node().map_or(Kind::File, |fingerprint| fingerprint.kind);
        let known = self.missing.remove(bytes);
        if self.is_covered(bytes, kind) {
            self.found.push(Found { name, body: FoundBody::Ignored });
            return Ok(());
        }
        match seen {
            Seen::Node(fingerprint) if known == Some(&fingerprint) => self.unchanged += 1,
            Seen::Node(fingerprint) if fingerprint.device != self.disk.root.device() => {
                self.skip_mount(name);
            }
            Seen::Node(fingerprint) => self.add(name, fingerprint)?,
            Seen::MountPoint => self.skip_mount(name),
            Seen::Special(what) => {
                let reason = format!("a {what} is never opened and not replicated");
                self.skip(name, ProblemKind::SpecialFile, reason);
            }
        }
        Ok(())
    }

    fn add(&mut self, name: Name, fingerprint: Fingerprint) -> Result<(), Errno> {
        let owner = self.disk.attributes.owner(&fingerprint);
        let xattrs = match fingerprint.kind {
            Kind::Directory | Kind::File => xattrs_at(self.directory.as_fd(), name.as_bytes()),
            Kind::Symlink => Ok(Xattrs::new()),
        };
        let xattrs = match xattrs {
            Ok(xattrs) => xattrs,
            Err(errno) => {
                let body = FoundBody::Skipped(problem(errno, &self.request.path.join(&name)));
                self.found.push(Found { name, body });
                return Ok(());
            }
        };
        let body = match fingerprint.kind {
            Kind::Directory => FoundBody::Directory { fingerprint, owner, xattrs },
            Kind::File => {
                self.disk.progress.add_found(fingerprint.size);
                FoundBody::File { fingerprint, owner, xattrs }
            }
            Kind::Symlink => match self.read_link(&name) {
                Ok(Some(target)) => FoundBody::Symlink { fingerprint, owner, target },
                Ok(None) => return Ok(()),
                Err(problem) => FoundBody::Skipped(problem),
            },
        };
        self.found.push(Found { name, body });
        Ok(())
    }

    /// The link's text; none if it is no link any more: the directory will be looked at again, since
    /// whoever replaced it moved an event.
    fn read_link(&self, name: &Name) -> Result<Option<LinkTarget>, Problem> {
        let path = || self.request.path.join(name);
        match rustix::fs::readlinkat(self.directory, name.as_bytes(), Vec::new()) {
            Ok(target) => LinkTarget::new(target.into_bytes()).map(Some).map_err(|error| Problem {
                kind: ProblemKind::UnsupportedName,
                path: path(),
                reason: error.to_string(),
            }),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(errno) => Err(problem(errno, &path())),
        }
    }

    fn skip_mount(&mut self, name: Name) {
        let reason = "another file system is mounted here: mounts are not crossed".to_owned();
        self.skip(name, ProblemKind::MountPoint, reason);
    }

    fn skip(&mut self, name: Name, kind: ProblemKind, reason: String) {
        let path = self.request.path.join(&name);
        self.found.push(Found { name, body: FoundBody::Skipped(Problem { kind, path, reason }) });
    }

    fn finish(mut self, fingerprint: Fingerprint) -> DirectoryState {
        let mut gone = Vec::new();
        for (bytes, known) in std::mem::take(&mut self.missing) {
            let Ok(name) = Name::new(bytes) else { continue };
            if bytes == STATE_NAME.as_bytes() {
                continue;
            }
            if self.is_covered(bytes, known.kind) {
                self.found.push(Found { name, body: FoundBody::Ignored });
            } else {
                gone.push(name);
            }
        }
        self.found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.found.dedup_by(|a, b| a.name == b.name);
        DirectoryState::Readable { fingerprint, found: self.found, gone, unchanged: self.unchanged }
    }
}

/// The names in a directory, by inode: that is the order in which stat is cheapest on a cold disk.
fn names_in(directory: &OwnedFd) -> Result<Vec<(u64, CString)>, Errno> {
    let mut buffer = vec![MaybeUninit::uninit(); ENTRIES_BYTES];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.ino(), entry.file_name().to_owned()));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Of a directory that nobody waits for any more.
fn not_looked_at(path: &TreePath) -> DirectoryState {
    let (kind, path) = (ProblemKind::Io, path.clone());
    DirectoryState::Unknown(Problem { kind, path, reason: "the daemon is stopping".to_owned() })
}

fn all_unknown(look: &Look, lost: &RootLost) -> Looked {
    let problem = |path: &TreePath| Problem {
        kind: ProblemKind::RootLost,
        path: path.clone(),
        reason: lost.to_string(),
    };
    let lists = look.lists.iter().map(|request| Listed {
        path: request.path.clone(),
        state: DirectoryState::Unknown(problem(&request.path)),
    });
    let reads = look.reads.iter().map(|request| ReadState::Unreadable(problem(&request.path)));
    Looked { lists: lists.collect(), reads: reads.collect() }
}

/// Does `work` for every item, on more than one thread if there are many; results in the items' order.
fn in_parallel<T: Sync, R: Send, S>(
    items: &[T],
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &T) -> R + Sync,
) -> Vec<R> {
    let threads = match items.len() / SHARED_FROM {
        0 => 1,
        more => (more + 1).min(*CORES).min(THREADS_MAX),
    };
    if threads == 1 {
        let mut scratch = scratch();
        return items.iter().map(|item| work(&mut scratch, item)).collect();
    }
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut scratch = scratch();
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, work(&mut scratch, item)));
        }
    };
    let mut results: Vec<(usize, R)> = std::thread::scope(|scope| {
        // One that the system does not give leaves its part to the others.
        let start = || std::thread::Builder::new().spawn_scoped(scope, worker).ok();
        let others: Vec<_> = (1..threads).filter_map(|_| start()).collect();
        let mut all = worker();
        for other in others {
            match other.join() {
                Ok(done) => all.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
