//! What can go wrong with the state, in the words of whoever has to do something about it.

use std::fs::File;
use std::path::{Path, PathBuf};

use pleach_core::values::ChangeId;
use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_SHORT_READ;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// What a write to the database needs at least, by far: a few pages of its log.
const ROOM_BYTES: usize = 64 << 10;

/// What helps when something in `.pleach` is not what it was, and there is no backup of it. Whoever changes
/// this sees to it that `daemons_damage` can do what it says.
pub(crate) const JOIN_AGAIN: &str = "move .pleach out of the directory (it holds a secret key, which \
    would be replicated) and join again (`pleach join DIR TICKET`, with the ticket that `pleach invite` prints \
    on another master; if there is no other, `pleach init DIR` founds the store anew): your files are untouched \
    and will merge";

/// Why the state could not be read or written. The message names the path and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Nothing is there.
    #[error("there is no state at {path}: restore it from a backup, or {JOIN_AGAIN}")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Something is there already.
    #[error("{path} exists already: a state is never written over")]
    Exists {
        /// Where it is.
        path: PathBuf,
    },
    /// A database, but of another program.
    #[error(
        "{path} is not a state of pleach: restore .pleach whole from one backup, or {JOIN_AGAIN}"
    )]
    NotOurs {
        /// Where it is.
        path: PathBuf,
    },
    /// Written by a version of pleach with another layout.
    #[error(
        "{path} has layout {found}, this pleach knows layout {supported}: use the pleach that wrote it; if \
         none did, it is damaged: restore .pleach whole from one backup, or {JOIN_AGAIN}"
    )]
    Version {
        /// Where it is.
        path: PathBuf,
        /// The layout it has.
        found: i64,
        /// The layout this program knows.
        supported: i64,
    },
    /// What is there is not what was written.
    #[error(
        "the state at {path} is damaged ({what}): restore .pleach whole from one backup, or {JOIN_AGAIN}"
    )]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// What was found wrong.
        what: String,
    },
    /// The disk is full, or a quota is used up.
    #[error(
        "no space left for the state at {path}: free some, or raise the quota; nothing goes out until it is \
         recorded"
    )]
    NoSpace {
        /// Where it is.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The disk does not do what it is told.
    #[error(
        "the disk fails under the state at {path} ({source}): see to the disk (the kernel's log says more); \
         once it is back, a restart of the daemon is enough"
    )]
    DiskFails {
        /// Where it is.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A change that is not the next one of its writer. The engine never asks for that.
    #[error("change {} of writer {} is not the next one in the log at {path}", change.sequence, change.writer)]
    Sequence {
        /// Where the state is.
        path: PathBuf,
        /// The change.
        change: ChangeId,
    },
    /// Anything else that the system refused.
    #[error("cannot use the state at {path}: {source}")]
    System {
        /// Where it is.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl StateError {
    /// The path of the state it is about.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Missing { path }
            | Self::Exists { path }
            | Self::NotOurs { path }
            | Self::Version { path, .. }
            | Self::Damaged { path, .. }
            | Self::NoSpace { path, .. }
            | Self::DiskFails { path, .. }
            | Self::Sequence { path, .. }
            | Self::System { path, .. } => path,
        }
    }

    /// Whether it stays so, however often it is tried again: what was recorded is not there any more.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::NotOurs { .. } | Self::Sequence { .. })
    }
}

/// Turns what SQLite says of the database at `path` into what it means.
pub(super) fn at(path: &Path) -> impl Fn(rusqlite::Error) -> StateError + use<> {
    let path = path.to_owned();
    move |source| {
        let path = path.clone();
        let failure = failure_of(&source);
        match failure.map(|failure| failure.code) {
            // The file ends before its last page does: no disk says that.
            _ if failure.is_some_and(|it| it.extended_code == SQLITE_IOERR_SHORT_READ) => {
                StateError::Damaged { path, what: "it is too short".to_owned() }
            }
            Some(ErrorCode::DiskFull) => StateError::NoSpace { path, source },
            Some(ErrorCode::SystemIoFailure) if has_no_room(&path) => {
                StateError::NoSpace { path, source }
            }
            Some(ErrorCode::SystemIoFailure) => StateError::DiskFails { path, source },
            // SQLite calls a page corrupt that the disk does not read (EIO; vdbe.c, abort_due_to_error).
            Some(ErrorCode::DatabaseCorrupt) if is_unreadable(&path) => {
                StateError::DiskFails { path, source }
            }
            Some(ErrorCode::DatabaseCorrupt) => {
                StateError::Damaged { path, what: source.to_string() }
            }
            Some(ErrorCode::NotADatabase) => StateError::Damaged { path, what: source.to_string() },
            _ if is_malformed(&source) => StateError::Damaged { path, what: source.to_string() },
            _ => StateError::System { path, source },
        }
    }
}

/// Whether the disk takes no more beside the state, as far as a file without a name tells: SQLite calls a
/// quota that is used up an I/O error, as it does a disk that takes no shared memory of its.
pub(super) fn has_no_room(path: &Path) -> bool {
    let full = |errno: Errno| matches!(errno, Errno::NOSPC | Errno::DQUOT);
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let directory = path.parent().unwrap_or(Path::new("."));
    match rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => rustix::io::write(&file, &[0x55; ROOM_BYTES]).is_err_and(full),
        Err(errno) => full(errno),
    }
}

/// Whether the disk does not read the database or its log to the end. Costs a read of both.
pub(super) fn is_unreadable(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let fails = |path: &Path| match File::open(path) {
        Ok(mut file) => std::io::copy(&mut file, &mut std::io::sink()).is_err(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    };
    fails(path) || fails(Path::new(&log))
}

/// What SQLite calls it. A statement that could not be prepared has a code too: preparing reads the disk.
fn failure_of(error: &rusqlite::Error) -> Option<rusqlite::ffi::Error> {
    match error {
        rusqlite::Error::SqlInputError { error, .. } => Some(*error),
        other => other.sqlite_error().copied(),
    }
}

/// Whether another connection was in the way.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// A column of the wrong type or length, or a table that is missing: the file is ours by its header, so
/// somebody or something changed it.
fn is_malformed(error: &rusqlite::Error) -> bool {
    use rusqlite::Error;
    match error {
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..) => true,
        Error::SqlInputError { error, .. } => error.code == ErrorCode::Unknown,
        Error::SqliteFailure(_, Some(message)) => message.starts_with("no such"),
        _ => false,
    }
}
