//! Staging: making a file or link complete under `.pleach/staging`, ready to be renamed into place.
//!
//! A [`Staged`] is the only thing that can be put in place.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use pleach_core::values::{FileContent, LinkTarget, Problem, ProblemKind, PutSource};
use pleach_core::vocabulary::{Attributes, ContentHash, Fingerprint, Kind, Timestamp, TreePath};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, SeekFrom};
use rustix::io::Errno;

use super::Disk;
use super::read::{BUFFER_BYTES, open_to_read, read_full};
use super::staging::{HOLE_BYTES, PUT_SUFFIX, SWAP_SUFFIX, hash_of, is_zero};
use super::stat::{problem, stat_at, stat_handle, times_with_mtime};
use super::versions::{KeptBecause, name_of};

/// A complete file or link in the staging area.
#[derive(Debug)]
#[must_use]
pub(crate) struct Staged {
    /// Its name there.
    pub(crate) name: String,
    /// As it was left: it tells our own file from one that came out of the tree.
    pub(crate) fingerprint: Fingerprint,
    /// The content it was fetched as: if it can't be put in place, it goes back there.
    pub(crate) fetched: Option<ContentHash>,
}

/// When a staged file becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Now, by an fsync of its own.
    Now,
    /// Later, with the rest of the batch.
    WithBatch,
}

/// Whether a content taken from the staging area is wanted once more in the same batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Again,
    LastTime,
}

/// What a file is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FilePlan<'a> {
    pub(crate) path: &'a TreePath,
    pub(crate) content: &'a FileContent,
    pub(crate) attributes: &'a Attributes,
    pub(crate) source: &'a PutSource,
    pub(crate) wanted: Wanted,
}

/// Set once the file system has said that it can't share blocks between files.
static NO_REFLINK: AtomicBool = AtomicBool::new(false);

impl Disk {
    /// Stages a regular file.
    pub(crate) fn stage_file(&self, plan: FilePlan<'_>, sync: Sync) -> Result<Staged, Problem> {
        let hash = plan.content.hash;
        let (name, fetched, written) = match plan.source {
            PutSource::Staged if plan.wanted == Wanted::LastTime => {
                match self.staging.take(hash) {
                    Ok(name) => (name, Some(hash), None),
                    // It may be among the versions.
                    Err(Errno::NOENT) => (self.staging.fresh_name(), None, None),
                    Err(errno) => return Err(content_problem(errno, plan.path)),
                }
            }
            PutSource::Inline(_) => {
                let mode = self.attributes.mode_to_make(plan.attributes);
                match self.staging.take_ahead(&hash, mode) {
                    Some((name, file)) => (name, None, Some(file)),
                    None => (self.staging.fresh_name(), None, None),
                }
            }
            _ => (self.staging.fresh_name(), None, None),
        };
        let filled = match written {
            Some(file) => self.complete(&file, plan).map(|fingerprint| (file, fingerprint)),
            None => self.fill(&name, plan, fetched),
        };
        let (file, fingerprint) = match filled {
            Ok(filled) => filled,
            Err(problem) => {
                let given_back = fetched.map(|hash| self.staging.give_back(&name, hash));
                if given_back != Some(Ok(())) {
                    self.staging.remove(&name);
                }
                return Err(problem);
            }
        };
        if sync == Sync::Now
            && let Err(errno) = rustix::fs::fsync(&file)
        {
            // After a failed sync nobody knows which pages were lost: it is made anew.
            self.staging.remove(&name);
            return Err(problem(errno, plan.path));
        }
        Ok(Staged { name, fingerprint, fetched })
    }

    /// A fetched content: in the staging area, or among the versions if an open conflict has an equal one.
    fn open_fetched(&self, hash: ContentHash) -> io::Result<File> {
        self.staging.open_content(hash).or_else(|error| self.versions.find(hash).ok_or(error))
    }

    /// Opens or makes the staged file, gives it its bytes and attributes.
    fn fill(
        &self,
        name: &str,
        plan: FilePlan<'_>,
        fetched: Option<ContentHash>,
    ) -> Result<(OwnedFd, Fingerprint), Problem> {
        let failed = |errno| problem(errno, plan.path);
        let mut flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if fetched.is_none() {
            flags |= OFlags::CREATE | OFlags::EXCL;
        }
        let mode = self.attributes.mode_to_make(plan.attributes);
        let file =
            rustix::fs::openat(self.staging.directory(), name, flags, mode).map_err(failed)?;
        match plan.source {
            PutSource::Empty => {}
            PutSource::Inline(bytes) => write_sparse(&file, bytes).map_err(failed)?,
            PutSource::Staged if fetched.is_some() => {}
            PutSource::Staged => {
                let from = self.open_fetched(plan.content.hash).map_err(|error| {
                    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                    content_problem(errno, plan.path)
                })?;
                copy_verified(&from.into(), &file, plan)?;
            }
            PutSource::Local(path) => {
                let from = open_to_read(self.root.tree(), path.names())
                    .map_err(|errno| content_problem(errno, plan.path))?;
                copy_verified(&from, &file, plan)?;
            }
        }
        let fingerprint = self.complete(&file, plan)?;
        Ok((file, fingerprint))
    }

    /// Gives a staged file that has its bytes the rest.
    fn complete(&self, file: &OwnedFd, plan: FilePlan<'_>) -> Result<Fingerprint, Problem> {
        let failed = |errno| problem(errno, plan.path);
        let set = self.attributes.set_new(file.as_fd(), plan.attributes, plan.content.mtime);
        let fingerprint = set.map_err(failed)?;
        if fingerprint.size != plan.content.size {
            return Err(wrong_content(plan.path));
        }
        Ok(fingerprint)
    }

    /// Stages a symbolic link.
    pub(crate) fn stage_link(
        &self,
        path: &TreePath,
        target: &LinkTarget,
        mtime: Timestamp,
        attributes: &Attributes,
    ) -> Result<Staged, Problem> {
        let name = self.staging.fresh_name();
        let make = || {
            let directory = self.staging.directory();
            rustix::fs::symlinkat(target.as_bytes(), directory, &name)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let link = rustix::fs::openat(directory, &name, flags, Mode::empty())?;
            let current = stat_handle(&link)?;
            self.attributes.set(&link, &current, attributes, None)?;
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(directory, &name, &times_with_mtime(mtime), flags)?;
            stat_handle(&link)
        };
        match make() {
            Ok(fingerprint) => Ok(Staged { name, fingerprint, fetched: None }),
            Err(errno) => {
                self.staging.remove(&name);
                Err(problem(errno, path))
            }
        }
    }

    /// Clears away what was staged and not put in place. If something that is not ours has come under
    /// its name, it is kept in the versions: it is a user's.
    pub(crate) fn unstage(&self, staged: &Staged) {
        let directory = self.staging.directory();
        let Some(now) = stat_at(directory, &staged.name).ok().and_then(|seen| seen.node()) else {
            return;
        };
        if !now.same_object(&staged.fingerprint) {
            let kept = self.keep_staged(&staged.name, None, KeptBecause::Lost, &now);
            if let Err(errno) = kept {
                tracing::warn!(name = staged.name, %errno, "a user's file could not be kept yet");
                self.staging.note_unkept();
            }
            return;
        }
        let given_back = staged.fetched.map(|hash| self.staging.give_back(&staged.name, hash));
        if given_back != Some(Ok(())) {
            self.staging.remove(&staged.name);
        }
    }

    /// Clears away what could not be before. Whether something is left. To be called when nothing is being
    /// put in place.
    pub fn tidy(&self) -> bool {
        self.staging.clear_ahead();
        let littered = self.staging.clear_litter();
        if !self.staging.take_unkept() {
            return littered;
        }
        if let Err(error) = self.keep_exchanged() {
            tracing::warn!(%error, "a user's file could not be kept yet");
            self.staging.note_unkept();
        }
        true
    }

    /// Gives a staged file the name of one that is about to be exchanged: should a crash come after the
    /// exchange, the next start knows that a user's file is under this name.
    pub(crate) fn name_for_exchange(&self, staged: &mut Staged) -> Result<(), Errno> {
        let directory = self.staging.directory();
        // What was written ahead is in a directory of its own: a start looks for it here.
        let file = staged.name.rsplit('/').next().unwrap_or_default();
        let name = file.replace(PUT_SUFFIX, SWAP_SUFFIX);
        rustix::fs::renameat_with(
            directory,
            &staged.name,
            directory,
            &name,
            RenameFlags::NOREPLACE,
        )?;
        staged.name = name;
        Ok(())
    }

    /// Keeps what an exchange brought out of the tree before the last run ended, and could not keep.
    pub(crate) fn keep_exchanged(&self) -> io::Result<()> {
        for name in self.staging.exchanged()? {
            let seen = stat_at(self.staging.directory(), &name)?.node();
            match seen {
                Some(now) => self.keep_staged(&name, None, KeptBecause::Lost, &now)?,
                None => tracing::warn!(name, "what is staged under this name is no file"),
            }
        }
        self.versions.write()
    }

    /// Moves what is under a name in the staging area to the versions.
    pub(crate) fn keep_staged(
        &self,
        name: &str,
        path: Option<&TreePath>,
        reason: KeptBecause,
        fingerprint: &Fingerprint,
    ) -> Result<(), Errno> {
        let id = self.versions.reserve();
        let versions = self.versions.directory();
        rustix::fs::renameat(self.staging.directory(), name, versions, name_of(id))?;
        self.versions.note(id, path.cloned(), reason, fingerprint);
        Ok(())
    }
}

/// A source that isn't there is a content that is missing, not a difference at the target.
fn content_problem(errno: Errno, path: &TreePath) -> Problem {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO => Problem {
            kind: ProblemKind::ContentMissing,
            path: path.clone(),
            reason: "its content is not where it was thought to be: it is fetched again".to_owned(),
        },
        errno => problem(errno, path),
    }
}

fn wrong_content(path: &TreePath) -> Problem {
    Problem {
        kind: ProblemKind::ContentMissing,
        path: path.clone(),
        reason: "the file it was to be copied from has changed: it is fetched again".to_owned(),
    }
}

/// Copies, sharing blocks where the file system can, and checks that the copy has the right bytes.
fn copy_verified(from: &OwnedFd, to: &OwnedFd, plan: FilePlan<'_>) -> Result<(), Problem> {
    let failed = |errno| problem(errno, plan.path);
    let source = stat_handle(from).map_err(failed)?;
    if source.kind != Kind::File || source.size != plan.content.size {
        return Err(wrong_content(plan.path));
    }
    let hash = if reflink(from, to) {
        hash_of(to).map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?
    } else {
        copy_bytes(from, to, plan.content.size).map_err(failed)?
    };
    if hash == plan.content.hash { Ok(()) } else { Err(wrong_content(plan.path)) }
}

fn reflink(from: &OwnedFd, to: &OwnedFd) -> bool {
    if NO_REFLINK.load(Ordering::Relaxed) {
        return false;
    }
    match rustix::fs::ioctl_ficlone(to, from) {
        Ok(()) => true,
        Err(errno) => {
            if matches!(errno, Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS) {
                NO_REFLINK.store(true, Ordering::Relaxed);
            }
            false
        }
    }
}

/// Copies at most one byte more than `size`, so that a growing source can't fill the disk.
fn copy_bytes(from: &OwnedFd, to: &OwnedFd, size: u64) -> Result<ContentHash, Errno> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut hasher = blake3::Hasher::new();
    let mut copied = 0;
    while copied <= size {
        let length = read_full(from, &mut buffer)?;
        hasher.update(&buffer[..length]);
        write_sparse_at(to, &buffer[..length], copied)?;
        copied += length as u64;
        if length < buffer.len() {
            break;
        }
    }
    rustix::fs::ftruncate(to, copied)?;
    Ok(ContentHash(*hasher.finalize().as_bytes()))
}

/// Writes `bytes` to the empty `file`.
pub(super) fn write_sparse(file: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    if bytes.len() <= HOLE_BYTES {
        return write_full(file, bytes);
    }
    write_sparse_at(file, bytes, 0)?;
    rustix::fs::ftruncate(file, bytes.len() as u64)
}

fn write_sparse_at(file: &OwnedFd, bytes: &[u8], offset: u64) -> Result<(), Errno> {
    let mut at = offset;
    for block in bytes.chunks(HOLE_BYTES) {
        if block.len() < HOLE_BYTES || !is_zero(block) {
            rustix::fs::seek(file, SeekFrom::Start(at))?;
            write_full(file, block)?;
        }
        at += block.len() as u64;
    }
    Ok(())
}

fn write_full(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
