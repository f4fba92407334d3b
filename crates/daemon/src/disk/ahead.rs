//! Small contents written ahead: while a batch is being put in place, those who fetch write down what
//! arrives, so that the next batch need only give it its attributes and its name.
//!
//! It is a convenience and nothing relies on it: the bytes come with the effect too. What is written here
//! is cleared away by the next start, and becomes durable with the batch that uses it.
//!
//! Those who write and the one who renames would wait for each other in one directory, busily: there are
//! several, and who writes takes the next one.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pleach_core::vocabulary::ContentHash;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::root::open_directory_in;
use super::stage::write_sparse;
use super::staging::Staging;

/// The directories, below the staging area.
const DIRECTORIES: [&str; 8] =
    ["ahead0", "ahead1", "ahead2", "ahead3", "ahead4", "ahead5", "ahead6", "ahead7"];

/// How many contents, and how many of their bytes, are written ahead at most: about what the engine asks
/// for at once.
const FILES_MAX: usize = 4_096;
const BYTES_MAX: usize = 16 << 20;

/// What has been written ahead.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    written: Mutex<Written>,
    turn: AtomicUsize,
    /// The permissions that the last file was to have: those of the next one are likely the same.
    mode: AtomicU32,
}

#[derive(Debug, Default)]
struct Written {
    /// By content: the name in the staging area, and the size.
    files: BTreeMap<ContentHash, (String, usize)>,
    bytes: usize,
}

impl Ahead {
    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Staging {
    /// Clears away what an earlier run has written ahead.
    pub(super) fn clear_ahead_of_last_run(&self) -> Result<(), Errno> {
        for name in DIRECTORIES {
            let directory = match open_directory_in(self.directory(), name) {
                Ok(directory) => directory,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            };
            for left in rustix::fs::Dir::read_from(directory.as_fd())? {
                let left = left?.file_name().to_owned();
                if !matches!(left.to_bytes(), b"." | b"..") {
                    rustix::fs::unlinkat(&directory, &left, AtFlags::empty())?;
                }
            }
            rustix::fs::unlinkat(self.directory(), name, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }

    /// Writes contents down that effects are going to bring along too. What can't be written is left to
    /// these effects, which can say so.
    pub fn write_ahead(&self, contents: &[(ContentHash, Arc<[u8]>)]) {
        let turn = self.ahead().turn.fetch_add(1, Ordering::Relaxed);
        let directory = DIRECTORIES[turn % DIRECTORIES.len()];
        for (hash, bytes) in contents {
            self.write_one_ahead(directory, *hash, bytes);
        }
    }

    fn write_one_ahead(&self, directory: &str, hash: ContentHash, bytes: &[u8]) {
        {
            let written = self.ahead().written();
            if written.files.contains_key(&hash)
                || written.files.len() >= FILES_MAX
                || written.bytes + bytes.len() > BYTES_MAX
            {
                return;
            }
        }
        let name = format!("{directory}/{}", self.fresh_name());
        let written = match self.write_new(&name, bytes) {
            Err(Errno::NOENT) => {
                // Another one may have made it a moment ago.
                let _ = rustix::fs::mkdirat(self.directory(), directory, Mode::RWXU);
                self.write_new(&name, bytes)
            }
            written => written,
        };
        if let Err(errno) = written {
            tracing::debug!(%hash, %errno, "not written ahead");
            self.remove(&name);
            return;
        }
        let mut written = self.ahead().written();
        written.bytes += bytes.len();
        if let Some((name, length)) = written.files.insert(hash, (name, bytes.len())) {
            written.bytes -= length;
            drop(written);
            self.remove(&name);
        }
    }

    fn write_new(&self, name: &str, bytes: &[u8]) -> Result<(), Errno> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR
            | Mode::WUSR
            | Mode::from_raw_mode(self.ahead().mode.load(Ordering::Relaxed));
        let file = rustix::fs::openat(self.directory(), name, flags, mode)?;
        write_sparse(&file, bytes)
    }

    /// Takes out the file of a content that was written ahead: its name, and an open handle to it. It is to
    /// have `mode`.
    pub(super) fn take_ahead(&self, hash: &ContentHash, mode: Mode) -> Option<(String, OwnedFd)> {
        self.ahead().mode.store(mode.bits(), Ordering::Relaxed);
        let name = {
            let mut written = self.ahead().written();
            let (name, length) = written.files.remove(hash)?;
            written.bytes -= length;
            name
        };
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(self.directory(), &name, flags, Mode::empty()) {
            Ok(file) => Some((name, file)),
            Err(_) => {
                self.remove(&name);
                None
            }
        }
    }

    /// Clears away what was written ahead and never asked for.
    pub fn clear_ahead(&self) {
        let unused = std::mem::take(&mut *self.ahead().written());
        unused.files.values().for_each(|(name, _)| self.remove(name));
    }
}
