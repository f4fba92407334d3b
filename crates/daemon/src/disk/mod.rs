//! The disk: everything that touches the user's tree.
//!
//! ```text
//! Look   -> Disk::look  -> Looked      what is there, differences only
//! Effect -> Disk::apply -> Outcome     guarded steps, durable when it returns
//! Staging, Versions                    shared with whoever fetches and serves contents
//! Watcher                              hints where to look
//! ```
//!
//! All access is by directory handle and never through a link (see `walk`). The code is synchronous: it
//! belongs on a thread of its own. It decides nothing: what to look at and what to do, the engine says.

mod ahead;
mod apply;
mod attributes;
mod hints;
mod ignore_rules;
mod late;
mod look;
mod progress;
mod read;
mod replace;
mod retain;
mod retention;
mod root;
mod serve;
mod stage;
mod staging;
mod stat;
mod versions;
mod walk;
mod watcher;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pleach_core::values::Problem;
use rustix::fs::{Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

pub use attributes::{Owners, SpecialBits};
pub use hints::{Dirty, Hints};
pub use ignore_rules::IGNORE_NAME;
pub use late::LateWriters;
pub use progress::{Amount, LookProgress};
pub use retention::{Cleaner, Retention};
pub use root::{Incarnation, Root, RootError, RootLost, STATE_NAME};
pub use serve::{ContentReader, open_any, open_content};
pub use staging::{FinishError, Partial, Staging};
pub use versions::{Kept, KeptBecause, VersionId, Versions};
pub use watcher::{Watcher, Watching};

use attributes::AttributeRules;
use ignore_rules::IgnoreRules;

/// What this master does about owners and special bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskOptions {
    /// Whether owners are seen and set.
    pub owners: Owners,
    /// Whether setuid, setgid and sticky are set.
    pub special_bits: SpecialBits,
}

/// The user's tree, as one thread looks at it and changes it.
#[derive(Debug)]
pub struct Disk {
    root: Root,
    staging: Staging,
    versions: Versions,
    ignore: IgnoreRules,
    attributes: Arc<AttributeRules>,
    durability: Durability,
    /// Touched and synced to commit the journal.
    commit_mark: OwnedFd,
    /// Hints that are held while a batch is put in place.
    hints: Option<Hints>,
    /// Set when nobody waits for what is read any more.
    stopping: Arc<AtomicBool>,
    progress: Arc<LookProgress>,
    #[cfg(test)]
    hook: Hook,
}

/// What makes a rename durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durability {
    /// One journal in order: an fsync of anything in the running transaction commits all before it.
    Journal,
    /// Nothing is known: the whole file system is synced.
    SyncAll,
    /// It is in memory.
    Nothing,
}

#[cfg(test)]
#[derive(Default)]
struct Hook(Option<Box<dyn FnMut(apply::Before) + Send + Sync>>);

#[cfg(test)]
impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

impl Disk {
    /// Takes up work on an open root; clears what an earlier run left in the staging area.
    pub fn open(root: Root, options: DiskOptions) -> io::Result<Self> {
        let staging = Staging::open(&root)?;
        let versions = Versions::open(&root)?;
        let mut ignore = IgnoreRules::new();
        ignore.refresh(root.tree());
        let attributes = Arc::new(AttributeRules::new(options.owners, options.special_bits));
        let durability = durability_of(&root)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let commit_mark = rustix::fs::openat(root.state(), "commit", flags, mode)?;
        let disk = Self {
            root,
            staging,
            versions,
            ignore,
            attributes,
            durability,
            commit_mark,
            hints: None,
            stopping: Arc::default(),
            progress: Arc::default(),
            #[cfg(test)]
            hook: Hook::default(),
        };
        disk.keep_exchanged()?;
        Ok(disk)
    }

    /// Cuts looks short once it is set: files that have not been read by then are unsettled, directories
    /// that have not been listed unknown. What such a look says is to be left aside.
    #[must_use]
    pub fn stopping(&self) -> Arc<AtomicBool> {
        self.stopping.clone()
    }

    /// Holds these hints while a batch is put in place: most of them would be its echoes.
    pub fn hold_while_placing(&mut self, hints: Hints) {
        self.hints = Some(hints);
    }

    /// How far looks have come.
    #[must_use]
    pub fn progress(&self) -> Arc<LookProgress> {
        self.progress.clone()
    }

    /// Makes `dir` a new store and takes up work on it.
    pub fn init(dir: &Path, options: DiskOptions) -> Result<Self, RootError> {
        let root = Root::init(dir)?;
        let path = root.path().to_owned();
        Self::open(root, options).map_err(|source| RootError::Open { path, source })
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The staging area, for those who fetch.
    #[must_use]
    pub fn staging(&self) -> &Staging {
        &self.staging
    }

    /// The versions, for those who serve and restore.
    #[must_use]
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Counts how often the ignore rules have changed: after a change everything is to be scanned.
    #[must_use]
    pub fn ignore_generation(&self) -> u64 {
        self.ignore.generation()
    }

    /// The lines of `.pleachignore` that could not be understood.
    #[must_use]
    pub fn ignore_problems(&self) -> &[Problem] {
        self.ignore.problems()
    }

    /// What the store's setting about special bits has become.
    pub fn set_special_bits(&mut self, special_bits: SpecialBits) {
        self.attributes = Arc::new(AttributeRules::new(self.attributes.owners, special_bits));
    }

    /// Makes every rename so far durable.
    ///
    /// On a journaling file system a commit is ordered: a change to some inode now, and its fsync, commit
    /// all that came before. An fsync of the database alone would not do: it may only overwrite blocks
    /// of its log, which needs no commit. The inode is always the same one: ext4 is slow to make files
    /// where others were deleted in the last minutes.
    fn sync_renames(&self) -> Result<(), Errno> {
        match self.durability {
            Durability::Nothing => Ok(()),
            Durability::SyncAll => rustix::fs::syncfs(self.root.tree()),
            Durability::Journal => {
                let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
                let times = Timestamps { last_access: now, last_modification: now };
                rustix::fs::futimens(&self.commit_mark, &times)?;
                rustix::fs::fsync(&self.commit_mark)
            }
        }
    }

    #[cfg(not(test))]
    #[inline]
    fn at(&mut self, _moment: apply::Before) {}

    #[cfg(test)]
    fn at(&mut self, moment: apply::Before) {
        if let Some(hook) = &mut self.hook.0 {
            hook(moment);
        }
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
