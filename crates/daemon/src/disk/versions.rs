//! The versions, `.pleach/versions`: every file that pleach replaced or removed, by number.
//!
//! A file gets here by rename, so its bytes are never in danger. The index, an append-only log beside
//! the files, says what each was. It is written once per batch and made durable by [`Versions::settle`];
//! a power cut before that may lose the path a version had, never the version: a file without an entry
//! is taken in again at the next start.
//!
//! Hashes are computed when there is time, or when somebody asks for a hash that isn't known.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use pleach_core::values::{Problem, ProblemKind};
use pleach_core::vocabulary::{ContentHash, Fingerprint, Kind, Name, Timestamp, TreePath};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::root::{Root, STATE_NAME, open_directory_in};
use super::staging::hash_of;
use super::stat::{Seen, stat_at, stat_handle};
use super::version_log::VersionLog;

/// The name of their directory, in the store's own.
pub(super) const VERSIONS_NAME: &str = "versions";
const INDEX_NAME: &str = "index";

/// How many versions are looked at to find those that were written to.
const LATE_MAX: usize = 4_096;

/// How many of the last versions the base is compared with at a start.
const PUT_ASIDE_MAX: usize = 8_192;

/// The log is written anew when it has this many entries more than there are versions.
const INDEX_SLACK: usize = 10_000;

/// The number of a version: never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VersionId(pub u64);

/// Why a version was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptBecause {
    /// Another content took its place.
    Replaced,
    /// It was deleted.
    Deleted,
    /// It came between two writes and would otherwise be nowhere.
    Lost,
}

/// One version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its number.
    pub id: VersionId,
    /// Where it was; none if a power cut took the index's last entries.
    pub path: Option<TreePath>,
    /// When it was kept, in milliseconds since 1970.
    pub kept_at_ms: i64,
    /// Why.
    pub reason: KeptBecause,
    /// File or link.
    pub kind: Kind,
    /// In bytes.
    pub size: u64,
    /// Its mtime when it was kept or last hashed; another one now means a write through an old handle.
    pub mtime: Timestamp,
    /// BLAKE3 of a file's bytes, once computed.
    pub hash: Option<ContentHash>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Entry {
    Set(Kept),
    Removed(VersionId),
}

/// The versions. Clones share them; they may be used from any thread.
#[derive(Clone, Debug)]
pub struct Versions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: OwnedFd,
    index: Mutex<Index>,
    problem: Option<Problem>,
}

#[derive(Debug)]
struct Index {
    log: VersionLog,
    next: u64,
    kept: BTreeMap<VersionId, Kept>,
    by_hash: BTreeSet<(ContentHash, VersionId)>,
    unhashed: BTreeSet<VersionId>,
    /// Those that somebody wrote to through an old handle, as far as was noticed: to be taken in.
    late: BTreeSet<VersionId>,
    unwritten: Vec<Entry>,
}

impl Versions {
    pub(crate) fn open(root: &Root) -> io::Result<Self> {
        let directory = open_directory_in(root.state(), VERSIONS_NAME)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let log = rustix::fs::openat(&directory, INDEX_NAME, flags, Mode::RUSR | Mode::WUSR)?;
        let (log, loaded) = VersionLog::load(log.into())?;
        let mut index = Index {
            log,
            next: 1,
            kept: BTreeMap::new(),
            by_hash: BTreeSet::new(),
            unhashed: BTreeSet::new(),
            late: BTreeSet::new(),
            unwritten: Vec::new(),
        };
        index.read(loaded.entries);
        let pathless = index.reconcile(directory.as_fd())?;
        let problem = said_of_log(loaded.damaged_bytes, loaded.torn_bytes, pathless);
        index.write()?;
        match loaded.damaged_bytes {
            0 => index.compact(directory.as_fd())?,
            // What can't be read is not met with again.
            _ => index.rewrite(directory.as_fd())?,
        }
        Ok(Self(Arc::new(Inner { directory, index: Mutex::new(index), problem })))
    }

    /// What was found wrong with the index when it was opened: some versions are without their path.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        self.0.problem.as_ref()
    }

    /// Whether one with this content is known; somebody may have written to it since.
    #[must_use]
    pub fn is_known(&self, hash: ContentHash) -> bool {
        self.index().with_content(hash).next().is_some()
    }

    /// A file with this content, verified to be unchanged since it was hashed. Hashes what isn't hashed
    /// yet before it says no.
    #[must_use]
    pub fn find(&self, hash: ContentHash) -> Option<File> {
        if let Some(file) = self.find_hashed(hash) {
            return Some(file);
        }
        while self.settle(u64::MAX).is_ok_and(|left| left > 0) {}
        self.find_hashed(hash)
    }

    /// Where below the root one with this content is, as far as known without reading any.
    #[must_use]
    pub fn path_with(&self, hash: ContentHash) -> Option<TreePath> {
        let id = self.index().with_content(hash).next_back()?;
        let names = [STATE_NAME, VERSIONS_NAME, &*name_of(id)].map(Name::try_from);
        Some(TreePath::new(names.into_iter().collect::<Result<Vec<_>, _>>().ok()?))
    }

    /// The versions of `path`, or all of them, oldest first.
    #[must_use]
    pub fn list(&self, path: Option<&TreePath>) -> Vec<Kept> {
        let index = self.index();
        let wanted = |kept: &&Kept| path.is_none_or(|path| kept.path.as_ref() == Some(path));
        index.kept.values().filter(wanted).cloned().collect()
    }

    /// Opens a version that is a file.
    pub fn open_version(&self, id: VersionId) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0.directory, name_of(id), flags, Mode::empty())?.into())
    }

    /// Hashes versions that aren't hashed, up to about `budget_bytes`, and makes the index durable.
    /// Returns how many are left. To be called when there is nothing else to do.
    pub fn settle(&self, budget_bytes: u64) -> io::Result<usize> {
        let pending: Vec<VersionId> = self.index().unhashed.iter().copied().collect();
        let mut spent = 0_u64;
        for id in pending {
            if spent > budget_bytes {
                break;
            }
            spent += self.hash_version(id)?;
        }
        let mut index = self.index();
        index.write()?;
        index.compact(self.directory())?;
        index.log.sync()?;
        Ok(index.unhashed.len())
    }

    /// What is known of a version.
    #[must_use]
    pub fn get(&self, id: VersionId) -> Option<Kept> {
        self.index().kept.get(&id).cloned()
    }

    /// Notes how a version was when it was read, and its hash if nobody wrote to it meanwhile.
    fn hashed(&self, id: VersionId, read: &Fingerprint, hash: Option<ContentHash>) {
        let mut index = self.index();
        if let Some(mut kept) = index.kept.get(&id).cloned() {
            if (kept.size, kept.mtime) != (read.size, read.modified) {
                index.late.insert(id);
            }
            (kept.size, kept.mtime, kept.hash) = (read.size, read.modified, hash);
            index.set(kept);
        }
    }

    /// What was written to a version through an old handle has been taken in, up to how it was when it was
    /// read; with its hash if nobody wrote to it meanwhile.
    pub(crate) fn taken_in(&self, id: VersionId, read: &Fingerprint, hash: Option<ContentHash>) {
        self.hashed(id, read, hash);
        self.index().late.remove(&id);
    }

    /// Whether somebody wrote to a version through an old handle, and that has not been taken in since.
    pub(crate) fn is_late(&self, kept: &Kept) -> bool {
        self.index().late.contains(&kept.id) || self.written_since(kept).is_some()
    }

    /// The latest versions that somebody wrote to through an old handle, and that have not been taken in
    /// since.
    #[must_use]
    pub fn late_writes(&self) -> Vec<VersionId> {
        let recent: Vec<Kept> = {
            let index = self.index();
            let files = index.kept.values().rev().filter(|kept| kept.kind == Kind::File);
            files.take(LATE_MAX).cloned().collect()
        };
        let late = recent.into_iter().filter(|kept| self.is_late(kept));
        let mut late: BTreeSet<VersionId> = late.map(|kept| kept.id).collect();
        late.extend(&self.index().late);
        late.into_iter().collect()
    }

    /// The objects that became versions last: more than one batch of effects can have made.
    pub(crate) fn put_aside_last(&self) -> Vec<Fingerprint> {
        let ids: Vec<VersionId> =
            self.index().kept.keys().rev().take(PUT_ASIDE_MAX).copied().collect();
        let seen = ids.into_iter().filter_map(|id| stat_at(&self.0.directory, name_of(id)).ok());
        seen.filter_map(Seen::node).collect()
    }

    /// How a version is now, if somebody wrote to it since it was kept or last hashed.
    fn written_since(&self, kept: &Kept) -> Option<Fingerprint> {
        let seen = stat_at(&self.0.directory, name_of(kept.id)).ok().and_then(Seen::node);
        seen.filter(|now| (now.size, now.modified) != (kept.size, kept.mtime))
    }

    /// Lets go of a version for good, unless somebody wrote to it since it was last looked at: then it
    /// counts as kept just now. Whether it went.
    pub(crate) fn let_go(&self, mut kept: Kept) -> io::Result<bool> {
        if let Some(now) = self.written_since(&kept) {
            (kept.size, kept.mtime, kept.hash) = (now.size, now.modified, None);
            kept.kept_at_ms = now_ms();
            let mut index = self.index();
            index.late.insert(kept.id);
            index.set(kept);
            return Ok(false);
        }
        self.remove(kept.id)?;
        Ok(true)
    }

    /// Makes all versions older.
    #[cfg(test)]
    pub(crate) fn backdate(&self, by: std::time::Duration) {
        let by = i64::try_from(by.as_millis()).unwrap();
        self.index().kept.values_mut().for_each(|kept| kept.kept_at_ms -= by);
    }

    /// Looks through the versions, the oldest first, for as long as `more` says so.
    pub(crate) fn each_while(&self, more: impl FnMut(&Kept) -> bool) {
        self.index().kept.values().map(more).find(|more| !more);
    }

    /// Lets go of a version for good. The caller has checked that nothing needs it.
    pub fn remove(&self, id: VersionId) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.0.directory, name_of(id), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut index = self.index();
        index.forget(id);
        index.late.remove(&id);
        index.unwritten.push(Entry::Removed(id));
        Ok(())
    }

    /// What all versions hold together.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.index().kept.values().map(|kept| kept.size).sum()
    }

    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.0.directory.as_fd()
    }

    /// A number for a file about to be renamed to [`name_of`] it.
    pub(crate) fn reserve(&self) -> VersionId {
        let mut index = self.index();
        let id = VersionId(index.next);
        index.next += 1;
        id
    }

    /// Notes what has been renamed here.
    pub(crate) fn note(
        &self,
        id: VersionId,
        path: Option<TreePath>,
        reason: KeptBecause,
        fingerprint: &Fingerprint,
    ) {
        let kept = kept_now(id, path, reason, fingerprint);
        self.index().set(kept);
    }

    /// Appends what was noted to the log.
    pub(crate) fn write(&self) -> io::Result<()> {
        self.index().write()
    }

    /// Those that had this content when they were hashed, oldest first.
    pub(super) fn with_content(&self, hash: ContentHash) -> Vec<Kept> {
        let index = self.index();
        index.with_content(hash).filter_map(|id| index.kept.get(&id).cloned()).collect()
    }

    fn find_hashed(&self, hash: ContentHash) -> Option<File> {
        for kept in self.with_content(hash).into_iter().rev() {
            let Ok(file) = self.open_version(kept.id) else { continue };
            let Ok(now) = stat_handle(&file) else { continue };
            if (now.size, now.modified) == (kept.size, kept.mtime) {
                return Some(file);
            }
            self.hashed(kept.id, &now, None);
        }
        None
    }

    /// Hashes one version; returns how many bytes it has.
    fn hash_version(&self, id: VersionId) -> io::Result<u64> {
        let file = match self.open_version(id) {
            Ok(file) => file,
            Err(_) => {
                // Gone or unreadable: it is not asked again before the next start.
                self.index().unhashed.remove(&id);
                return Ok(0);
            }
        };
        let before = stat_handle(&file)?;
        let hash = hash_of(&file)?;
        self.hashed(id, &before, Some(hash));
        Ok(before.size)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.0.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file name of a version.
pub(crate) fn name_of(id: VersionId) -> String {
    id.0.to_string()
}

fn kept_now(
    id: VersionId,
    path: Option<TreePath>,
    reason: KeptBecause,
    fingerprint: &Fingerprint,
) -> Kept {
    let Fingerprint { kind, size, modified, .. } = *fingerprint;
    Kept { id, path, kept_at_ms: now_ms(), reason, kind, size, mtime: modified, hash: None }
}

/// Says what became of versions whose entries could not be read. A torn end is a power cut's, and usual.
fn said_of_log(damaged_bytes: u64, torn_bytes: u64, pathless: usize) -> Option<Problem> {
    if pathless > 0 {
        tracing::warn!(pathless, damaged_bytes, torn_bytes, "versions are kept without their path");
    }
    if damaged_bytes == 0 {
        return None;
    }
    let reason = format!(
        "{damaged_bytes} bytes of it were damaged: {pathless} kept versions are without their path, under \
         their number in .pleach/versions; see to the disk if nobody wrote to that file"
    );
    let names = [STATE_NAME, VERSIONS_NAME, INDEX_NAME];
    let names = names.map(|name| Name::try_from(name).expect("it has no slash"));
    Some(Problem { kind: ProblemKind::Damaged, path: TreePath::new(names.to_vec()), reason })
}

/// Milliseconds since 1970 by the wall clock.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Index {
    /// Versions that had this content when they were hashed, oldest first.
    fn with_content(&self, hash: ContentHash) -> impl DoubleEndedIterator<Item = VersionId> {
        let range = (hash, VersionId(0))..=(hash, VersionId(u64::MAX));
        self.by_hash.range(range).map(|(_, id)| *id)
    }

    fn set(&mut self, kept: Kept) {
        self.forget(kept.id);
        match (kept.kind, kept.hash) {
            (_, Some(hash)) => _ = self.by_hash.insert((hash, kept.id)),
            (Kind::File, None) => _ = self.unhashed.insert(kept.id),
            (_, None) => {}
        }
        self.next = self.next.max(kept.id.0.saturating_add(1));
        self.unwritten.push(Entry::Set(kept.clone()));
        self.kept.insert(kept.id, kept);
    }

    fn forget(&mut self, id: VersionId) {
        self.unhashed.remove(&id);
        if let Some(hash) = self.kept.remove(&id).and_then(|kept| kept.hash) {
            self.by_hash.remove(&(hash, id));
        }
    }

    fn read(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            match entry {
                Entry::Set(kept) => self.set(kept),
                Entry::Removed(id) => self.forget(id),
            }
        }
        self.unwritten.clear();
    }

    /// Takes in files that the log does not know, and forgets entries whose file is not there. Answers how
    /// many it took in, of which nobody knows any more where they were.
    fn reconcile(&mut self, directory: BorrowedFd<'_>) -> io::Result<usize> {
        let (mut present, mut pathless) = (BTreeSet::new(), 0);
        for entry in rustix::fs::Dir::read_from(directory)? {
            let entry = entry?;
            let number = entry.file_name().to_str().ok().and_then(|name| name.parse().ok());
            let Some(number) = number else { continue };
            let id = VersionId(number);
            present.insert(id);
            self.next = self.next.max(number.saturating_add(1));
            if !self.kept.contains_key(&id)
                && let Some(fingerprint) = stat_at(directory, entry.file_name())?.node()
            {
                self.set(kept_now(id, None, KeptBecause::Lost, &fingerprint));
                pathless += 1;
            }
        }
        let absent: Vec<_> = self.kept.keys().filter(|id| !present.contains(id)).copied().collect();
        for id in absent {
            self.forget(id);
            self.unwritten.push(Entry::Removed(id));
        }
        Ok(pathless)
    }

    /// Writes the log anew, if much of it is about what no longer is.
    fn compact(&mut self, directory: BorrowedFd<'_>) -> io::Result<()> {
        match self.log.entries() <= self.kept.len() + INDEX_SLACK {
            true => Ok(()),
            false => self.rewrite(directory),
        }
    }

    /// Writes the log anew with what is kept.
    fn rewrite(&mut self, directory: BorrowedFd<'_>) -> io::Result<()> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let new = rustix::fs::openat(directory, "index.new", flags, Mode::RUSR | Mode::WUSR)?;
        self.log = VersionLog::empty(new.into());
        self.unwritten = self.kept.values().cloned().map(Entry::Set).collect();
        self.write()?;
        self.log.sync()?;
        rustix::fs::renameat(directory, "index.new", directory, INDEX_NAME)?;
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        self.log.append(&self.unwritten)?;
        self.unwritten.clear();
        Ok(())
    }
}
