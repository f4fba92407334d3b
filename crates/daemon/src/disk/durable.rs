//! What is durable, and when.
//!
//! What was put in place becomes durable before it counts as there. What a user did becomes durable here
//! before the other masters are told: else a power cut could leave an older or an empty file, or bring a
//! removed one back, and that would pass for what the user did last.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use pleach_core::values::{Look, Looked};
use rustix::fs::{Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::fresh::Fresh;
use super::read::open_to_read;
use super::root::Root;
use super::stat::stat_handle;

/// What makes a rename durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// One journal in order: an fsync of anything in the running transaction commits all before it.
    Journal,
    /// Nothing is known: the whole file system is synced.
    SyncAll,
    /// It is in memory.
    Nothing,
}

/// Makes things durable. Clones share it; it may be used from any thread.
#[derive(Clone, Debug)]
pub struct Durable(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: Root,
    durability: Durability,
    /// Touched and synced to commit the journal.
    commit_mark: OwnedFd,
    fresh: Mutex<Fresh>,
}

impl Durable {
    pub(super) fn new(root: &Root) -> Result<Self, Errno> {
        let durability = durability_of(root)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let commit_mark = rustix::fs::openat(root.state(), "commit", flags, mode)?;
        let fresh = Mutex::default();
        Ok(Self(Arc::new(Inner { root: root.clone(), durability, commit_mark, fresh })))
    }

    /// Takes note of what a look has found.
    pub(super) fn note(&self, look: &Look, looked: &Looked) {
        self.0.fresh.lock().unwrap_or_else(PoisonError::into_inner).note(look, looked);
    }

    /// Makes durable what looks have found by now.
    ///
    /// # Errors
    /// If the disk refuses: nobody knows then what a power cut leaves.
    pub fn settle(&self) -> Result<(), Errno> {
        let fresh = self.0.fresh.lock().unwrap_or_else(PoisonError::into_inner).take();
        let root = self.0.root.tree();
        match self.0.durability {
            Durability::Nothing => Ok(()),
            Durability::SyncAll if !fresh.is_only_written_to() => rustix::fs::syncfs(root),
            Durability::Journal if fresh.has_many() => rustix::fs::syncfs(root),
            Durability::SyncAll | Durability::Journal => {
                for (path, seen) in fresh.files() {
                    let file = open_to_read(root, path.names());
                    match file.and_then(|file| Ok((stat_handle(&file)?, file))) {
                        Ok((now, file)) if now.same_object(seen) => rustix::fs::fsync(file)?,
                        // It was renamed meanwhile, it or a directory above.
                        Ok(_) | Err(_) => return rustix::fs::syncfs(root),
                    }
                }
                if fresh.has_names() { self.sync_renames() } else { Ok(()) }
            }
        }
    }

    /// Makes everything durable, after [`Durable::settle`] could not.
    ///
    /// # Errors
    /// If the disk refuses again.
    pub fn settle_all(&self) -> Result<(), Errno> {
        match self.0.durability {
            Durability::Nothing => Ok(()),
            Durability::SyncAll | Durability::Journal => rustix::fs::syncfs(self.0.root.tree()),
        }
    }

    /// Makes every rename so far durable.
    ///
    /// On a journaling file system a commit is ordered: a change to some inode now, and its fsync, commit
    /// all that came before. An fsync of the database alone would not do: it may only overwrite blocks
    /// of its log, which needs no commit. The inode is always the same one: ext4 is slow to make files
    /// where others were deleted in the last minutes.
    pub(super) fn sync_renames(&self) -> Result<(), Errno> {
        match self.0.durability {
            Durability::Nothing => Ok(()),
            Durability::SyncAll => rustix::fs::syncfs(self.0.root.tree()),
            Durability::Journal => {
                let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
                let times = Timestamps { last_access: now, last_modification: now };
                rustix::fs::futimens(&self.0.commit_mark, &times)?;
                rustix::fs::fsync(&self.0.commit_mark)
            }
        }
    }

    #[cfg(test)]
    pub(super) fn durability(&self) -> Durability {
        self.0.durability
    }
}

fn durability_of(root: &Root) -> Result<Durability, Errno> {
    // statfs(2): the magic numbers of ext2 to ext4, xfs and tmpfs.
    match rustix::fs::fstatfs(root.tree())?.f_type {
        0xEF53 if ext4_has_journal(root.tree()) => Ok(Durability::Journal),
        0x5846_5342 => Ok(Durability::Journal),
        0x0102_1994 => Ok(Durability::Nothing),
        _ => Ok(Durability::SyncAll),
    }
}

/// ext4 can be made without a journal, as ext2 always is. The kernel names the process that writes it, if
/// there is one; without an answer there is none to rely on.
fn ext4_has_journal(directory: BorrowedFd<'_>) -> bool {
    let Ok(stat) = rustix::fs::fstat(directory) else { return false };
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let device = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok();
    let name = device.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    let task = name
        .and_then(|name| std::fs::read_to_string(format!("/sys/fs/ext4/{name}/journal_task")).ok());
    task.is_some_and(|task| task.trim().parse::<u32>().is_ok())
}
