//! The staging area, `.pleach/staging`: what is being fetched, and what is about to be put in place.
//!
//! ```text
//! <hash>.part   being fetched; survives a restart, so that fetching resumes
//! <hash>        complete and verified in this run; at the next start it is a `.part` again, since a
//!               power cut may have torn what was never made durable
//! ahead<d>/     small contents written ahead (see `ahead`); cleared at the next start
//! <n>.put       about to be renamed into the tree; at the next start it is removed
//! <n>.swap      about to be exchanged with a file of the tree, or that file already; at the next start
//!               it goes to the versions
//! ```

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pleach_core::vocabulary::ContentHash;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags, SeekFrom};
use rustix::io::Errno;

use super::ahead::Ahead;
use super::read::{BUFFER_BYTES, read_full};
use super::root::{Root, open_directory_in};

/// Blocks of this size that hold only zeros become holes.
pub(crate) const HOLE_BYTES: usize = 64 << 10;

/// What the names of files end with that are about to be put into the tree.
pub(crate) const PUT_SUFFIX: &str = ".put";
/// What the names of files end with that are exchanged with one of the tree.
pub(crate) const SWAP_SUFFIX: &str = ".swap";

/// Up to this size a content may take the last of the room.
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// The part of the file system that larger ones leave free, and how much that is at most.
const SPARED_SHARE: u64 = 64;
const SPARED_BYTES_MAX: u64 = 256 << 20;
/// After so many bytes it is looked whether there still is room.
const CHECKED_BYTES: u64 = 4 << 20;

/// How many names of what could not be removed are remembered.
const LITTER_MAX: usize = 4_096;

/// How old a leftover of a fetch may get, in seconds.
const PARTIAL_AGE_SECONDS_MAX: u64 = 7 * 24 * 3600;

/// The staging area. Clones share it; it may be used from any thread.
#[derive(Clone, Debug)]
pub struct Staging(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: OwnedFd,
    next: AtomicU64,
    ahead: Ahead,
    /// What could not be removed, by name: tried again when there is time.
    litter: Mutex<BTreeSet<String>>,
    /// Whether a user's file waits here to be kept among the versions.
    unkept: AtomicBool,
}

/// Why a fetched content was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// The bytes do not have the hash; what was fetched has been thrown away.
    #[error("the bytes received do not have the hash {0}")]
    WrongHash(ContentHash),
    /// The system said no.
    #[error("staging: {0}")]
    Io(#[from] io::Error),
}

impl Staging {
    /// Opens the staging area of `root` and clears what an earlier run left half done.
    pub(crate) fn open(root: &Root) -> Result<Self, Errno> {
        let directory = open_directory_in(root.state(), "staging")?;
        let this = Self(Arc::new(Inner {
            directory,
            next: AtomicU64::new(1),
            ahead: Ahead::default(),
            litter: Mutex::default(),
            unkept: AtomicBool::new(false),
        }));
        this.clear_leftovers()?;
        this.clear_ahead_of_last_run()?;
        Ok(this)
    }

    /// Whether the content is here, complete and verified.
    #[must_use]
    pub fn has(&self, hash: ContentHash) -> bool {
        rustix::fs::statat(self.directory(), hash.to_string(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Opens a complete content, to serve it or to take chunks from.
    pub fn open_content(&self, hash: ContentHash) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(self.directory(), hash.to_string(), flags, Mode::empty())?.into())
    }

    /// Starts or resumes the fetch of a content of `size` bytes. Errs with `WouldBlock` while another
    /// [`Partial`] of the same content is alive.
    pub fn begin(&self, hash: ContentHash, size: u64) -> io::Result<Partial> {
        let name = format!("{hash}.part");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.directory(), &name, flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let mut length = rustix::fs::fstat(&file)?.st_size.unsigned_abs();
        if length > size {
            rustix::fs::ftruncate(&file, 0)?;
            length = 0;
        }
        self.room_for(size - length)?;
        let (staging, file) = (self.clone(), file.into());
        Ok(Partial { staging, file, hash, size, length, name, unchecked: 0 })
    }

    /// Whether the disk has room for so many bytes more of a content, as far as it tells.
    ///
    /// # Errors
    /// `NOSPC`, if not. What can be seen before anybody is asked for it is not fetched again and again. A
    /// larger content may consist of holes: it is begun and checked as it comes, and leaves some room to
    /// whatever else writes here, the database above all.
    pub fn room_for(&self, bytes: u64) -> Result<(), Errno> {
        if bytes == 0 {
            return Ok(());
        }
        // What can't be asked is tried.
        let Ok(disk) = rustix::fs::fstatvfs(self.directory()) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let all = disk.f_blocks.saturating_mul(disk.f_frsize);
        let spared = match bytes <= SMALL_BYTES_MAX {
            true => 0,
            false => (all / SPARED_SHARE).min(SPARED_BYTES_MAX),
        };
        // A file system without a fixed number of inodes says 0 of 0.
        let has_inodes = disk.f_favail > 0 || disk.f_files == 0;
        let fits = free >= bytes.min(CHECKED_BYTES).saturating_add(spared);
        if fits && has_inodes { Ok(()) } else { Err(Errno::NOSPC) }
    }

    /// Stages bytes that are already here, unverified: the caller knows their hash.
    pub fn insert(&self, hash: ContentHash, bytes: &[u8]) -> Result<(), FinishError> {
        let mut partial = self.begin(hash, bytes.len() as u64)?;
        partial.write_at(0, bytes)?;
        partial.finish()
    }

    /// Stages a copy of `file`. False if its bytes do not have the hash.
    pub fn copy_in(&self, hash: ContentHash, file: &File) -> io::Result<bool> {
        let mut partial = self.begin(hash, file.metadata()?.len())?;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let length = file.read_at(&mut buffer, partial.existing())?;
            match length {
                0 => break,
                length => partial.write_at(partial.existing(), &buffer[..length])?,
            }
        }
        match partial.finish() {
            Ok(()) => Ok(true),
            Err(FinishError::WrongHash(_)) => Ok(false),
            Err(FinishError::Io(error)) => Err(error),
        }
    }

    /// Stages a copy of what `file` holds, whatever that is; durably, for it may be nowhere else soon.
    pub(crate) fn copy_of(&self, file: &File) -> io::Result<(ContentHash, u64)> {
        let name = self.fresh_name();
        let copied = self.copy_to(&name, file);
        if copied.is_err() {
            self.remove(&name);
        }
        copied
    }

    fn copy_to(&self, name: &str, file: &File) -> io::Result<(ContentHash, u64)> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let copy = File::from(rustix::fs::openat(self.directory(), name, flags, mode)?);
        let mut buffer = vec![0; BUFFER_BYTES];
        let (mut hasher, mut size) = (blake3::Hasher::new(), 0);
        loop {
            let length = file.read_at(&mut buffer, size)?;
            if length == 0 {
                break;
            }
            hasher.update(&buffer[..length]);
            for (index, block) in buffer[..length].chunks(HOLE_BYTES).enumerate() {
                if block.len() < HOLE_BYTES || !is_zero(block) {
                    copy.write_all_at(block, size + (index * HOLE_BYTES) as u64)?;
                }
            }
            size += length as u64;
        }
        // A hole at the end does not make the file longer by itself.
        copy.set_len(size)?;
        copy.sync_all()?;
        let hash = ContentHash(*hasher.finalize().as_bytes());
        rustix::fs::renameat(self.directory(), name, self.directory(), hash.to_string())?;
        Ok((hash, size))
    }

    /// Throws away what is staged or partly fetched of a content that nobody wants any more. What is
    /// being fetched at this moment stays.
    pub fn discard(&self, hash: ContentHash) {
        self.remove(&hash.to_string());
        let part = format!("{hash}.part");
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(self.directory(), &part, flags, Mode::empty()) else {
            return;
        };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            self.remove(&part);
        }
    }

    /// Removes what is staged under a name, if it is there; later, if that can't be done now.
    pub(super) fn remove(&self, name: &str) {
        match rustix::fs::unlinkat(self.directory(), name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => {
                tracing::debug!(name, %errno, "not cleared away yet");
                let mut litter = self.litter();
                // The next start removes the rest.
                if litter.len() < LITTER_MAX {
                    litter.insert(name.to_owned());
                }
            }
        }
    }

    /// Tries again to remove what could not be removed. Whether something is left.
    pub(super) fn clear_litter(&self) -> bool {
        let litter = std::mem::take(&mut *self.litter());
        // A content that has come anew since is fetched once more.
        litter.iter().for_each(|name| self.remove(name));
        !self.litter().is_empty()
    }

    fn litter(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.litter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A user's file could not be moved to the versions: to be tried again.
    pub(super) fn note_unkept(&self) {
        self.0.unkept.store(true, Ordering::Relaxed);
    }

    pub(super) fn take_unkept(&self) -> bool {
        self.0.unkept.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.0.directory.as_fd()
    }

    pub(super) fn ahead(&self) -> &Ahead {
        &self.0.ahead
    }

    /// A name that nothing in the staging area has.
    pub(crate) fn fresh_name(&self) -> String {
        format!("{}{PUT_SUFFIX}", self.0.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes a complete content out, under a fresh name.
    pub(crate) fn take(&self, hash: ContentHash) -> Result<String, Errno> {
        let name = self.fresh_name();
        let directory = self.directory();
        let from = hash.to_string();
        rustix::fs::renameat_with(directory, from, directory, &name, RenameFlags::NOREPLACE)?;
        Ok(name)
    }

    /// Makes the bytes of what is staged under a name durable.
    pub(crate) fn sync(&self, name: &str) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.directory(), name, flags, Mode::empty())?;
        let synced = rustix::fs::fsync(&file);
        if synced.is_err() {
            // Nobody knows which pages were lost: it is fetched anew.
            self.remove(name);
        }
        synced
    }

    /// Puts a content taken out back, unless another copy came meanwhile.
    pub(crate) fn give_back(&self, name: &str, hash: ContentHash) -> Result<(), Errno> {
        let directory = self.directory();
        let to = hash.to_string();
        match rustix::fs::renameat_with(directory, name, directory, to, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => rustix::fs::unlinkat(directory, name, AtFlags::empty()),
            result => result,
        }
    }

    /// The names of what was being exchanged when the last run ended.
    pub(crate) fn exchanged(&self) -> Result<Vec<String>, Errno> {
        let names = self.names()?.into_iter().filter_map(|name| name.into_string().ok());
        Ok(names.filter(|name| name.ends_with(SWAP_SUFFIX)).collect())
    }

    fn names(&self) -> Result<Vec<CString>, Errno> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(self.directory())? {
            names.push(entry?.file_name().to_owned());
        }
        Ok(names)
    }

    fn clear_leftovers(&self) -> Result<(), Errno> {
        let directory = self.directory();
        let names = self.names()?;
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
        for name in names {
            let Ok(text) = name.to_str() else { continue };
            if text.ends_with(PUT_SUFFIX) {
                rustix::fs::unlinkat(directory, text, AtFlags::empty())?;
            } else if text.parse::<ContentHash>().is_ok() {
                let part = format!("{text}.part");
                rustix::fs::renameat(directory, text, directory, part)?;
            } else if text.ends_with(".part") {
                let stat = rustix::fs::statat(directory, text, AtFlags::SYMLINK_NOFOLLOW)?;
                if now.abs_diff(stat.st_mtime) > PARTIAL_AGE_SECONDS_MAX {
                    rustix::fs::unlinkat(directory, text, AtFlags::empty())?;
                }
            }
        }
        Ok(())
    }
}

/// A content being fetched. Dropped, it stays for the next [`Staging::begin`] to resume.
#[derive(Debug)]
pub struct Partial {
    staging: Staging,
    file: File,
    hash: ContentHash,
    size: u64,
    length: u64,
    name: String,
    /// How much was written since it was looked whether there is room.
    unchecked: u64,
}

impl Partial {
    /// How many bytes from the start are there. Only [`Partial::finish`] checks them.
    #[must_use]
    pub fn existing(&self) -> u64 {
        self.length
    }

    /// Writes `bytes` at `offset`; zeros beyond what is there become holes. Only what is written in
    /// order from the start resumes after a restart. Errs with `InvalidInput` beyond the size.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= self.size);
        let end = end.ok_or(io::ErrorKind::InvalidInput)?;
        let mut at = offset;
        for block in bytes.chunks(HOLE_BYTES) {
            let is_hole = block.len() == HOLE_BYTES && at >= self.length && is_zero(block);
            if !is_hole {
                self.unchecked += block.len() as u64;
                if self.unchecked >= CHECKED_BYTES {
                    self.staging.room_for(self.size - at)?;
                    self.unchecked = 0;
                }
                self.file.write_all_at(block, at)?;
            }
            at += block.len() as u64;
        }
        if end > self.length {
            self.length = end;
            // A hole at the end does not make the file longer by itself.
            self.file.set_len(end)?;
        }
        Ok(())
    }

    /// Reads back what was written.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    /// Checks the hash and makes the content available under it. If the hash is wrong, everything
    /// fetched is thrown away: nobody knows which byte is the bad one.
    pub fn finish(self) -> Result<(), FinishError> {
        let directory = self.staging.directory();
        if self.length != self.size || hash_of(&self.file)? != self.hash {
            rustix::fs::unlinkat(directory, &self.name, AtFlags::empty())
                .map_err(io::Error::from)?;
            return Err(FinishError::WrongHash(self.hash));
        }
        rustix::fs::renameat(directory, &self.name, directory, self.hash.to_string())
            .map_err(io::Error::from)?;
        Ok(())
    }
}

/// The hash of everything in `file`.
pub(crate) fn hash_of(file: impl AsFd) -> Result<ContentHash, io::Error> {
    rustix::fs::seek(file.as_fd(), SeekFrom::Start(0))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut hasher = blake3::Hasher::new();
    loop {
        let length = read_full(file.as_fd(), &mut buffer)?;
        hasher.update(&buffer[..length]);
        if length < buffer.len() {
            return Ok(ContentHash(*hasher.finalize().as_bytes()));
        }
    }
}

/// Whether there is nothing but zeros.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
