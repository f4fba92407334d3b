//! The watcher: inotify, by way of `notify`, one watch for each directory.
//!
//! The driver watches a directory, then lists it, then descends: what is made in between is either
//! listed or hinted at. Watches are not recursive, so that nothing is walked twice and `.pleach` and what
//! is ignored cost nothing.
//!
//! `notify` knows its watches by path and drops those of a path that was removed or renamed away, even if
//! something else has been watched there meanwhile. So whenever it may have dropped one, this module
//! forgets it as well, and watches anew what stands at the path, with a hint to list it
//! ([`Watcher::heal`]). A directory that a user renamed is followed to where it turns up, with all that
//! was watched below. An inode is watched under one path only: inotify has one watch for it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, Flag, ModifyKind, RenameMode};
use notify::{Config, EventKind, EventKindMask, RecommendedWatcher, RecursiveMode, Watcher as _};
use pleach_core::values::{Problem, ProblemKind};
use pleach_core::vocabulary::{Fingerprint, TreePath};
use rustix::io::Errno;

use super::hints::{Dirty, Hints};
use super::root::{Root, STATE_NAME};
use super::stat::{problem, stat_handle};
use super::versions::{VERSIONS_NAME, VersionId};
use super::walk::open_place;

/// `PATH_MAX` without the NUL: inotify takes paths, and no longer ones.
const PATH_BYTES_MAX: usize = 4095;
/// How long directories that are not where they were watched are waited for elsewhere, and how many.
const LOST_FOR: Duration = Duration::from_secs(60);
const LOST_MAX: usize = 65_536;

/// What came of watching a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watching {
    /// It is watched from now on. List it.
    Started,
    /// It was watched already.
    Already,
    /// There is no such directory.
    Gone,
    /// It can't be watched: it is to be scanned from time to time.
    Unwatched(Problem),
}

/// The watches of a store.
#[derive(Debug)]
pub struct Watcher {
    inotify: RecommendedWatcher,
    root: Root,
    hints: Hints,
    watches: Arc<Mutex<Watches>>,
    lost: Lost,
    unwatched: BTreeSet<TreePath>,
}

type Inode = (u64, u64);

/// What is watched, as far as is known.
#[derive(Debug, Default)]
struct Watches {
    by_path: BTreeMap<TreePath, Inode>,
    by_inode: BTreeMap<Inode, TreePath>,
    /// Paths whose watch `notify` may have dropped, and what was watched there.
    doubtful: BTreeMap<TreePath, Inode>,
    /// Paths that something was renamed to.
    arrived: BTreeSet<TreePath>,
}

impl Watches {
    fn insert(&mut self, path: TreePath, inode: Inode) {
        self.by_inode.insert(inode, path.clone());
        self.by_path.insert(path, inode);
    }

    fn remove(&mut self, path: &TreePath) -> Option<Inode> {
        let inode = self.by_path.remove(path)?;
        self.by_inode.remove(&inode);
        Some(inode)
    }

    /// The watched directories at and below `path`, outermost first.
    fn subtree(&self, path: &TreePath) -> Vec<TreePath> {
        let from = self.by_path.range(path.clone()..);
        from.map(|(path, _)| path).take_while(|below| below.starts_with(path)).cloned().collect()
    }

    /// Whatever is watched at and below `path` may not be any more.
    fn doubt(&mut self, path: &TreePath) {
        for below in self.subtree(path) {
            if let Some(inode) = self.remove(&below) {
                self.doubtful.insert(below, inode);
            }
        }
    }
}

/// Directories that are not where they were watched, by that path: removed, or renamed a moment ago.
#[derive(Debug, Default)]
struct Lost {
    by_path: BTreeMap<TreePath, Inode>,
    by_inode: BTreeMap<Inode, TreePath>,
    /// When the last one was lost.
    last: Option<Instant>,
}

impl Lost {
    fn insert(&mut self, path: TreePath, inode: Inode) {
        if self.by_path.len() >= LOST_MAX {
            *self = Self::default();
        }
        self.by_inode.insert(inode, path.clone());
        self.by_path.insert(path, inode);
        self.last = Some(Instant::now());
    }

    fn forget_old(&mut self) {
        if self.last.is_some_and(|last| last.elapsed() > LOST_FOR) {
            *self = Self::default();
        }
    }

    /// Takes what was at and below `path`.
    fn take(&mut self, path: &TreePath) -> Vec<TreePath> {
        let from = self.by_path.range(path.clone()..).map(|(path, _)| path);
        let taken: Vec<_> = from.take_while(|below| below.starts_with(path)).cloned().collect();
        for path in &taken {
            if let Some(inode) = self.by_path.remove(path) {
                self.by_inode.remove(&inode);
            }
        }
        taken
    }
}

impl Watcher {
    /// Starts to watch, nothing at first. The hints come out of the second value.
    pub fn start(root: &Root) -> Result<(Self, Hints), Problem> {
        let hints = Hints::default();
        let watches = Arc::new(Mutex::new(Watches::default()));
        let listener = Listener {
            root: root.path().to_owned(),
            hints: hints.clone(),
            watches: Arc::clone(&watches),
        };
        // Not what is only opened or read: a web server does that a thousand times a second.
        let kinds = EventKindMask::CORE | EventKindMask::ACCESS_CLOSE;
        let config = Config::default().with_follow_symlinks(false).with_event_kinds(kinds);
        let inotify = RecommendedWatcher::new(move |event| listener.hear(event), config)
            .map_err(|error| watch_problem(&error, &TreePath::root()))?;
        let (lost, unwatched) = (Lost::default(), BTreeSet::new());
        let (root, own_hints) = (root.clone(), hints.clone());
        Ok((Self { inotify, root, hints: own_hints, watches, lost, unwatched }, hints))
    }

    /// Watches the versions: what is written to one comes through a handle from before.
    pub fn watch_versions(&mut self) -> Watching {
        let versions = self.root.path().join(STATE_NAME).join(VERSIONS_NAME);
        match self.inotify.watch(&versions, RecursiveMode::NonRecursive) {
            Ok(()) => Watching::Started,
            Err(error) => Watching::Unwatched(watch_problem(&error, &TreePath::root())),
        }
    }

    /// Watches a directory, not what is below. To be called before listing it; cheap if it is watched.
    pub fn watch(&mut self, directory: &TreePath) -> Watching {
        self.heal();
        self.watch_now(directory)
    }

    fn watch_now(&mut self, directory: &TreePath) -> Watching {
        let inode = match self.inode(directory) {
            Ok(inode) => inode,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                self.unwatched.remove(directory);
                return Watching::Gone;
            }
            Err(errno) => return self.leave(directory, problem(errno, directory)),
        };
        let stale = {
            let watches = self.watches();
            if watches.by_path.get(directory) == Some(&inode) {
                drop(watches);
                self.unwatched.remove(directory);
                return Watching::Already;
            }
            let elsewhere = watches.by_inode.get(&inode).cloned();
            let replaced = watches.by_path.contains_key(directory).then(|| directory.clone());
            [elsewhere, replaced]
        };
        for path in stale.into_iter().flatten() {
            self.unwatch(&path);
        }
        let path = self.absolute(directory);
        if path.as_os_str().len() > PATH_BYTES_MAX {
            return self.leave(directory, problem(Errno::NAMETOOLONG, directory));
        }
        // Known before it stands: an event about it that comes at once must find it.
        self.watches().insert(directory.clone(), inode);
        match self.inotify.watch(&path, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.unwatched.remove(directory);
                Watching::Started
            }
            Err(error) => {
                self.watches().remove(directory);
                match error.kind {
                    notify::ErrorKind::PathNotFound => Watching::Gone,
                    _ => self.leave(directory, watch_problem(&error, directory)),
                }
            }
        }
    }

    /// Stops watching a directory and all below.
    pub fn unwatch(&mut self, directory: &TreePath) {
        let subtree = self.watches().subtree(directory);
        for path in subtree {
            self.watches().remove(&path);
            // It may have gone by itself, with its directory.
            let _ = self.inotify.unwatch(&self.absolute(&path));
        }
        self.unwatched.retain(|path| !path.starts_with(directory));
    }

    /// Follows a directory that was moved, with all below. What happened there while no watch stood is
    /// hinted at as a directory to list.
    pub fn moved(&mut self, from: &TreePath, to: &TreePath) {
        // The event of the move may have been faster: then they are in doubt by now.
        self.watches().doubt(from);
        self.heal();
        self.follow(from, to);
    }

    /// Watches anew what may have lost its watch. To be called after hints were taken.
    pub fn heal(&mut self) {
        let (doubtful, arrived) = {
            let mut watches = self.watches();
            (std::mem::take(&mut watches.doubtful), std::mem::take(&mut watches.arrived))
        };
        for path in doubtful.keys() {
            // Where notify still has it, it stands for an inode that may be elsewhere by now. Watched
            // anew since the doubt arose, it is forgotten all the same: it loses its watch here.
            self.watches().remove(path);
            let _ = self.inotify.unwatch(&self.absolute(path));
        }
        self.lost.forget_old();
        for (path, inode) in doubtful {
            self.watch_again(&path);
            if self.watches().by_path.get(&path) != Some(&inode) {
                self.lost.insert(path, inode);
            }
        }
        for to in arrived {
            self.follow_to(&to);
        }
    }

    /// A look found a directory: one that was watched at another path is followed. No event tells of a
    /// rename into a directory that was not watched yet.
    pub fn found(&mut self, path: &TreePath, fingerprint: &Fingerprint) {
        let inode = (fingerprint.device, fingerprint.inode);
        let watched = self.watches().by_inode.get(&inode).cloned();
        match watched.or_else(|| self.lost.by_inode.get(&inode).cloned()) {
            Some(from) if from != *path => self.moved(&from, path),
            _ => {}
        }
    }

    /// What is at `to` by now may be a directory that was lost.
    fn follow_to(&mut self, to: &TreePath) {
        if self.lost.by_inode.is_empty() {
            return;
        }
        let Ok(inode) = self.inode(to) else { return };
        if let Some(from) = self.lost.by_inode.get(&inode).cloned() {
            self.follow(&from, to);
        }
    }

    /// Watches at and below `to` what was lost at and below `from`.
    fn follow(&mut self, from: &TreePath, to: &TreePath) {
        for old in self.lost.take(from) {
            let mut names = to.names().to_vec();
            names.extend_from_slice(&old.names()[from.names().len()..]);
            self.watch_again(&TreePath::new(names));
        }
    }

    /// What directory stands at a path.
    fn inode(&self, directory: &TreePath) -> Result<Inode, Errno> {
        let handle = open_place(self.root.tree(), directory.names())?;
        let fingerprint = stat_handle(&handle)?;
        Ok((fingerprint.device, fingerprint.inode))
    }

    /// Whether a directory that could not be watched is still there. It is tried again when it is looked at.
    #[must_use]
    pub fn has_unwatched(&mut self) -> bool {
        while let Some(first) = self.unwatched.first().cloned() {
            match self.inode(&first) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.unwatched.remove(&first),
                Ok(_) | Err(_) => return true,
            };
        }
        false
    }

    /// The directories that could not be watched.
    #[must_use]
    pub fn unwatched(&self) -> &BTreeSet<TreePath> {
        &self.unwatched
    }

    /// How many directories are watched.
    #[must_use]
    pub fn watched_count(&self) -> usize {
        self.watches().by_path.len()
    }

    fn watch_again(&mut self, directory: &TreePath) {
        match self.watch_now(directory) {
            Watching::Started | Watching::Unwatched(_) => {
                self.hints.add(Dirty::Directory(directory.clone()));
            }
            Watching::Already | Watching::Gone => {}
        }
    }

    fn leave(&mut self, directory: &TreePath, problem: Problem) -> Watching {
        self.unwatched.insert(directory.clone());
        Watching::Unwatched(problem)
    }

    fn absolute(&self, path: &TreePath) -> PathBuf {
        if path.is_root() {
            return self.root.path().to_owned();
        }
        self.root.path().join(OsStr::from_bytes(&path.to_bytes()))
    }

    fn watches(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Turns events into hints, on notify's thread.
struct Listener {
    root: PathBuf,
    hints: Hints,
    watches: Arc<Mutex<Watches>>,
}

/// What an event means for one path.
enum Meaning {
    Complete,
    Changing,
    /// The name is another one's or nobody's: a watch of a directory there is not to be trusted.
    Left,
}

impl Listener {
    fn hear(&self, event: notify::Result<notify::Event>) {
        self.hints.await_release();
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, "the watcher lost events");
                self.hints.add(Dirty::Overflow);
                return;
            }
        };
        if event.attrs.flag() == Some(Flag::Rescan) {
            self.hints.add(Dirty::Overflow);
        }
        if event.kind == EventKind::Modify(ModifyKind::Name(RenameMode::Both)) {
            // `From` and `To` have been told already.
            if let [from, to] = &event.paths[..]
                && let (Some(from), Some(to)) = (self.below(from), self.below(to))
            {
                self.hints.add(Dirty::Renamed(from, to));
            }
            return;
        }
        let Some(meaning) = meaning(event.kind) else { return };
        if is_write(event.kind) {
            let written = event.paths.iter().filter_map(|path| version(&self.root, path));
            written.for_each(|version| self.hints.add(Dirty::Late(version)));
        }
        let arrives = event.kind == EventKind::Modify(ModifyKind::Name(RenameMode::To));
        for path in &event.paths {
            if arrives && let Some(path) = self.below(path) {
                let mut watches = self.watches();
                // Beyond, hints overflow as well, and all directories are looked at.
                if watches.arrived.len() < LOST_MAX {
                    watches.arrived.insert(path);
                }
            }
            self.hear_of(path, &meaning);
        }
    }

    fn watches(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The path in the tree.
    fn path(&self, path: &Path) -> Option<TreePath> {
        let below = path.strip_prefix(&self.root).ok()?;
        TreePath::parse(below.as_os_str().as_bytes()).ok()
    }

    /// The path of something that is replicated.
    fn below(&self, path: &Path) -> Option<TreePath> {
        self.path(path).filter(|path| !path.is_root() && !is_state(path))
    }

    fn hear_of(&self, path: &Path, meaning: &Meaning) {
        let Some(path) = self.path(path) else { return };
        if path.is_root() || is_state(&path) {
            if matches!(meaning, Meaning::Left) && path.names().len() <= 1 {
                self.hints.add(Dirty::RootGone);
            }
            return;
        }
        match meaning {
            Meaning::Complete => self.hints.add(Dirty::Written(path)),
            Meaning::Changing => self.hints.add(Dirty::Name(path)),
            Meaning::Left => {
                self.watches().doubt(&path);
                self.hints.add(Dirty::Removed(path));
            }
        }
    }
}

fn is_state(path: &TreePath) -> bool {
    path.names().first().is_some_and(|name| name.as_bytes() == STATE_NAME.as_bytes())
}

/// The version that a path is.
fn version(root: &Path, path: &Path) -> Option<VersionId> {
    let below = path.strip_prefix(root).ok()?.strip_prefix(STATE_NAME).ok()?;
    let number = below.strip_prefix(VERSIONS_NAME).ok()?.to_str()?.parse().ok()?;
    Some(VersionId(number))
}

/// Whether bytes were written, by a program that may still be at it.
fn is_write(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::Modify(ModifyKind::Data(_))
            | EventKind::Access(AccessKind::Close(AccessMode::Write))
    )
}

fn meaning(kind: EventKind) -> Option<Meaning> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Create(CreateKind::Folder)
        | EventKind::Modify(ModifyKind::Metadata(_))
        | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Meaning::Complete),
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => {
            Some(Meaning::Left)
        }
        EventKind::Access(_) | EventKind::Other => None,
        EventKind::Create(_) | EventKind::Modify(_) | EventKind::Any => Some(Meaning::Changing),
    }
}

fn watch_problem(error: &notify::Error, path: &TreePath) -> Problem {
    let limit = || Problem {
        kind: ProblemKind::WatchLimit,
        path: path.clone(),
        reason:
            "the system's limit of watches is reached: changes here are found by scanning, later; \
                 raise fs.inotify.max_user_watches or max_user_instances"
                .to_owned(),
    };
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => limit(),
        notify::ErrorKind::Io(source) => match Errno::from_io_error(source) {
            Some(Errno::MFILE | Errno::NOSPC) => limit(),
            Some(errno) => problem(errno, path),
            None => problem(Errno::IO, path),
        },
        _ => problem(Errno::IO, path),
    }
}
