//! Why a store could not be made, joined or opened: what happened, on which path, and what to do next.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::ConfigError;
use crate::disk::RootError;
use crate::identity::KeyError;
use crate::net::JoinError;
use crate::state::{JOIN_AGAIN, StateError};
use crate::ticket::TicketError;

/// Why a store could not be made, joined or opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing is there.
    #[error("{path} does not exist: create it first (mkdir -p {path}), or check the name")]
    NoDirectory {
        /// What was named.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{path} is not a directory: name the directory that is to be replicated")]
    NotADirectory {
        /// What was named.
        path: PathBuf,
    },
    /// It is a store already.
    #[error("{path} is a store already: run it with `pleach daemon {path}`")]
    AlreadyAStore {
        /// The directory.
        path: PathBuf,
    },
    /// It is none.
    #[error(
        "{path} is not a store: make it one with `pleach init {path}`, or join one with \
         `pleach join {path} TICKET`"
    )]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// Its making was interrupted.
    #[error("{path} was not made a store to the end: repeat `pleach init` or `pleach join`")]
    Unfinished {
        /// The directory.
        path: PathBuf,
    },
    /// It was a store, and what made it one is gone.
    #[error(
        "the state of {path} is gone (.pleach/state.db): restore .pleach whole from one backup, or \
         {JOIN_AGAIN}"
    )]
    StateLost {
        /// The directory.
        path: PathBuf,
    },
    /// It is another user's.
    #[error(
        "the store in {path} belongs to another user ({source}): run pleach as that user, or as root"
    )]
    NotPermitted {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is inside another one.
    #[error("{path} is inside the store {outer}: its files are replicated with that one already")]
    Inside {
        /// The directory.
        path: PathBuf,
        /// The store around it.
        outer: PathBuf,
    },
    /// Another one is inside it.
    #[error(
        "{path} has the store {inner} inside: stores cannot be nested; take a directory beside it, or \
         remove {inner}/.pleach if that store is to end"
    )]
    Around {
        /// The directory.
        path: PathBuf,
        /// The store inside it.
        inner: PathBuf,
    },
    /// The system does not let us write there.
    #[error(
        "cannot write in {path} ({source}): run pleach as the user who owns the directory, or make it \
         writable"
    )]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another daemon has it.
    #[error("another daemon runs on {path} already: `pleach status {path}` asks it")]
    Running {
        /// The directory.
        path: PathBuf,
    },
    /// What is in `.pleach` does not belong together.
    #[error(
        "{path}/.pleach was put together from two, or is damaged ({what}): restore it whole from one \
         backup, or {JOIN_AGAIN}"
    )]
    Mixed {
        /// The directory.
        path: PathBuf,
        /// What does not fit.
        what: &'static str,
    },
    /// The state lacks something that it always has.
    #[error(
        "the state of {path} lacks {what}: restore .pleach whole from one backup, or {JOIN_AGAIN}"
    )]
    Incomplete {
        /// The directory.
        path: PathBuf,
        /// What is not there or can't be read.
        what: &'static str,
    },
    /// A name that can't be used.
    #[error("{name:?} cannot be a name: it takes 1 to 64 bytes without control characters")]
    Name {
        /// What was given.
        name: String,
    },
    /// The file system can't be used, or refused.
    #[error(transparent)]
    Root(RootError),
    /// The settings are wrong.
    #[error(transparent)]
    Config(ConfigError),
    /// The key can't be used.
    #[error(transparent)]
    Key(KeyError),
    /// The state can't be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The log in the state makes no document.
    #[error("{path}: {source}: restore .pleach whole from one backup, or {JOIN_AGAIN}")]
    Document {
        /// The database.
        path: PathBuf,
        /// What was found wrong.
        source: pleach_core::replica::OpenError,
    },
    /// The ticket can't be used.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// The store could not be joined.
    #[error(transparent)]
    Join(JoinError),
    /// The disk does not do what it is told.
    #[error(
        "the disk fails at {path} ({source}): see to the disk (the kernel's log says more); once it is back, \
         a start of the daemon is enough"
    )]
    DiskFails {
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something.
    #[error("{path}: {source}")]
    Io {
        /// On what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl From<KeyError> for StoreError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Io { path, source } => Self::of_system(path, source),
            error => Self::Key(error),
        }
    }
}

impl From<ConfigError> for StoreError {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Read { path, source } if is_disk_failure(&source) => {
                Self::DiskFails { path, source }
            }
            error => Self::Config(error),
        }
    }
}

impl StoreError {
    /// Whether it was asked for wrongly, rather than that something failed.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::NoDirectory { .. }
                | Self::NotADirectory { .. }
                | Self::AlreadyAStore { .. }
                | Self::NotAStore { .. }
                | Self::Inside { .. }
                | Self::Around { .. }
                | Self::Name { .. }
                | Self::Ticket(_)
                | Self::Config(_)
        )
    }

    /// What the disk says about the root at `path`.
    pub(super) fn of_root(path: &Path, error: RootError) -> Self {
        let path = path.to_owned();
        match error {
            RootError::NotAStore(_) => Self::NotAStore { path },
            RootError::AlreadyAStore(_) => Self::AlreadyAStore { path },
            RootError::Locked(_) => Self::Running { path },
            RootError::Nested { outer, .. } => Self::Inside { path, outer },
            RootError::Open { path: at, source } => Self::of_io(&path, at, source),
            other => Self::Root(other),
        }
    }

    /// What the system says of `at`, while `path` is made a store.
    pub(super) fn of_io(path: &Path, at: PathBuf, source: io::Error) -> Self {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        match source.kind() {
            PermissionDenied | ReadOnlyFilesystem => {
                Self::NotWritable { path: path.to_owned(), source }
            }
            _ => Self::of_system(at, source),
        }
    }

    /// What the system says of `path`.
    pub(super) fn of_system(path: PathBuf, source: io::Error) -> Self {
        match is_disk_failure(&source) {
            true => Self::DiskFails { path, source },
            false => Self::Io { path, source },
        }
    }
}

fn is_disk_failure(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}
