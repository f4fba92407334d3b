//! The root of a store: the handle to the user's directory, and the `.pleach` directory in it.
//!
//! Invariant: `.pleach` is on the file system of the root, so that every staged file can be renamed into
//! the tree; and one daemon at a time holds its lock.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pleach_core::vocabulary::Fingerprint;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::stat::stat_handle;

/// The name of the state directory; nothing else in the tree can be called so.
pub const STATE_NAME: &str = ".pleach";

const SUBDIRECTORIES: [&str; 3] = ["staging", "parking", "versions"];

/// The random id of one state directory: a root with another one is another root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation(pub [u8; 16]);

/// Why a root could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The directory itself can't be opened.
    #[error("{path}: {source}", path = path.display())]
    Open {
        /// What was to be opened or made.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It has no `.pleach`.
    #[error("{} is not a pleach store: run `pleach init` or `pleach join` first", .0.display())]
    NotAStore(PathBuf),
    /// It already has one.
    #[error("{} is a pleach store already", .0.display())]
    AlreadyAStore(PathBuf),
    /// Another process holds the lock.
    #[error("{}: another pleach daemon is running on it", .0.display())]
    Locked(PathBuf),
    /// A store must not be inside another.
    #[error("{inner} is inside the pleach store {outer}: stores can't be nested", inner = inner.display(), outer = outer.display())]
    Nested {
        /// The directory that was to be opened.
        inner: PathBuf,
        /// The store around it.
        outer: PathBuf,
    },
    /// The file system lacks what safe replacement needs.
    #[error("{path}: this file system cannot exchange two files in one step (renameat2 RENAME_EXCHANGE: {source}); use ext4, xfs, btrfs, f2fs or tmpfs", path = path.display())]
    NoExchange {
        /// The root.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel is too old or a sandbox forbids it.
    #[error("{path}: openat2 does not work here ({source}); Linux 5.6 or newer is needed", path = path.display())]
    NoOpenat2 {
        /// The root.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The root is not there any more, or is another one: nothing that is seen or missing counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the root of the store is lost: {0}")]
pub struct RootLost(pub String);

/// An open root, locked for this process. Clones share it.
#[derive(Clone, Debug)]
pub struct Root(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    tree: OwnedFd,
    state: OwnedFd,
    parking: OwnedFd,
    identity: Fingerprint,
    marker: Fingerprint,
    incarnation: Incarnation,
    _lock: Lock,
}

impl Root {
    /// Makes `dir` a root: `.pleach`, its directories and its incarnation. Then opens it.
    ///
    /// What a half done earlier attempt left (a `.pleach` without incarnation) is completed.
    pub fn init(dir: &Path) -> Result<Self, RootError> {
        let path = absolute(dir)?;
        refuse_nesting(&path)?;
        let tree = open_tree(&path)?;
        let error = |errno: Errno| failed(path.join(STATE_NAME), errno);
        match rustix::fs::mkdirat(&tree, STATE_NAME, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(error(errno)),
        }
        let state = open_state(&tree).map_err(error)?;
        if rustix::fs::statat(&state, "incarnation", AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Err(RootError::AlreadyAStore(path));
        }
        make_subdirectories(&state).map_err(error)?;
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| error(Errno::IO))?;
        write_incarnation(&state, Incarnation(id)).map_err(error)?;
        Self::open(dir)
    }

    /// Opens the store at `dir` and locks it.
    pub fn open(dir: &Path) -> Result<Self, RootError> {
        let path = absolute(dir)?;
        refuse_nesting(&path)?;
        let tree = open_tree(&path)?;
        let error = |errno: Errno| failed(path.join(STATE_NAME), errno);
        let state = match open_state(&tree) {
            Ok(state) => state,
            Err(Errno::NOENT) => return Err(RootError::NotAStore(path)),
            Err(errno @ (Errno::NOSYS | Errno::PERM)) => {
                return Err(RootError::NoOpenat2 { path, source: errno.into() });
            }
            Err(errno) => return Err(error(errno)),
        };
        let Some((marker, incarnation)) = read_incarnation(&state).map_err(error)? else {
            return Err(RootError::NotAStore(path));
        };
        let lock = match lock(&state) {
            Ok(lock) => lock,
            Err(Errno::WOULDBLOCK) => return Err(RootError::Locked(path)),
            Err(errno) => return Err(error(errno)),
        };
        rustix::fs::fchmod(&state, Mode::RWXU).map_err(error)?;
        make_subdirectories(&state).map_err(error)?;
        probe_exchange(&state)
            .map_err(|errno| RootError::NoExchange { path: path.clone(), source: errno.into() })?;
        let parking = open_directory_in(&state, "parking").map_err(error)?;
        let identity = stat_handle(&tree).map_err(error)?;
        let inner =
            Inner { path, tree, state, parking, identity, marker, incarnation, _lock: lock };
        Ok(Self(Arc::new(inner)))
    }

    /// The store that `path` is in or is, if any: the nearest directory upwards with a `.pleach`.
    #[must_use]
    pub fn find_above(path: &Path) -> Option<PathBuf> {
        path.ancestors().find(|above| is_store(above)).map(Path::to_path_buf)
    }

    /// The absolute path by which it was opened, for people and for the watcher.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The path of the state directory.
    #[must_use]
    pub fn state_path(&self) -> PathBuf {
        self.0.path.join(STATE_NAME)
    }

    /// The id made when this directory became a store; the database holds it too.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.0.incarnation
    }

    /// Checks that the path still leads to the directory that was opened, and that its state is in it.
    /// Three system calls.
    pub fn still_there(&self) -> Result<(), RootLost> {
        let lost = |what: &str| RootLost(format!("{}: {what}", self.0.path.display()));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let at_path = rustix::fs::stat(&self.0.path)
            .map_err(|errno| lost(&format!("the directory is gone ({errno})")))?;
        if (at_path.st_dev, at_path.st_ino) != (self.0.identity.device, self.0.identity.inode) {
            return Err(lost("another directory stands there now"));
        }
        let marker = rustix::fs::statat(&self.0.tree, ".pleach/incarnation", flags)
            .map_err(|errno| lost(&format!("its .pleach is gone ({errno})")))?;
        if (marker.st_dev, marker.st_ino) != (self.0.marker.device, self.0.marker.inode) {
            return Err(lost("its .pleach is that of another store"));
        }
        Ok(())
    }

    /// The handle of the user's tree.
    pub(crate) fn tree(&self) -> BorrowedFd<'_> {
        self.0.tree.as_fd()
    }

    /// The handle of `.pleach`.
    pub(crate) fn state(&self) -> BorrowedFd<'_> {
        self.0.state.as_fd()
    }

    /// The handle of `.pleach/parking`.
    pub(crate) fn parking(&self) -> BorrowedFd<'_> {
        self.0.parking.as_fd()
    }

    /// The device of the tree.
    pub(crate) fn device(&self) -> u64 {
        self.0.identity.device
    }
}

fn failed(path: PathBuf, errno: Errno) -> RootError {
    RootError::Open { path, source: errno.into() }
}

/// The path without links in it, so that the watcher and `still_there` agree on what it means.
fn absolute(dir: &Path) -> Result<PathBuf, RootError> {
    std::fs::canonicalize(dir).map_err(|source| RootError::Open { path: dir.to_owned(), source })
}

fn is_store(dir: &Path) -> bool {
    rustix::fs::stat(dir.join(STATE_NAME).join("incarnation")).is_ok()
}

fn refuse_nesting(path: &Path) -> Result<(), RootError> {
    if path.components().any(|part| part.as_os_str().as_bytes() == STATE_NAME.as_bytes()) {
        return Err(failed(path.to_owned(), Errno::INVAL));
    }
    match path.parent().and_then(Root::find_above) {
        Some(outer) => Err(RootError::Nested { inner: path.to_owned(), outer }),
        None => Ok(()),
    }
}

fn open_tree(path: &Path) -> Result<OwnedFd, RootError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed(path.to_owned(), errno))
}

fn open_state(tree: &OwnedFd) -> Result<OwnedFd, Errno> {
    open_directory_in(tree, STATE_NAME)
}

/// Opens the directory `name`, a single component, in `directory`; never through a link or a mount.
pub(crate) fn open_directory_in(directory: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let name = pleach_core::vocabulary::Name::try_from(name).map_err(|_| Errno::INVAL)?;
    super::walk::open_below(directory, &[name], OFlags::RDONLY | OFlags::DIRECTORY)
}

fn make_subdirectories(state: &OwnedFd) -> Result<(), Errno> {
    for name in SUBDIRECTORIES {
        match rustix::fs::mkdirat(state, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The lock on a store, let go of when it is dropped. Closing its handle alone would not do: another thread
/// may have just forked, and its child holds a copy until it runs its program (flock(2)).
#[derive(Debug)]
struct Lock(OwnedFd);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing it follows.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

fn lock(state: &OwnedFd) -> Result<Lock, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = rustix::fs::openat(state, "lock", flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    Ok(Lock(lock))
}

fn write_incarnation(state: &OwnedFd, Incarnation(id): Incarnation) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = rustix::fs::openat(state, "incarnation.new", flags, Mode::RUSR | Mode::WUSR)?;
    let written = rustix::io::write(&file, &id)?;
    if written != id.len() {
        return Err(Errno::NOSPC);
    }
    rustix::fs::fsync(&file)?;
    rustix::fs::renameat(state, "incarnation.new", state, "incarnation")?;
    rustix::fs::fsync(state)
}

fn read_incarnation(state: &OwnedFd) -> Result<Option<(Fingerprint, Incarnation)>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(state, "incarnation", flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let mut id = [0; 16];
    if rustix::io::read(&file, &mut id)? != id.len() {
        return Err(Errno::IO);
    }
    Ok(Some((stat_handle(&file)?, Incarnation(id))))
}

/// Tries whether two files can be exchanged here: better to know at the start than at the first edit.
fn probe_exchange(state: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    for name in ["probe.a", "probe.b"] {
        rustix::fs::openat(state, name, flags, Mode::RUSR | Mode::WUSR)?;
    }
    let exchanged =
        rustix::fs::renameat_with(state, "probe.a", state, "probe.b", RenameFlags::EXCHANGE);
    for name in ["probe.a", "probe.b"] {
        rustix::fs::unlinkat(state, name, AtFlags::empty())?;
    }
    exchanged
}
