//! Late writes: what programs write to a version through a handle that they had before it became one.
//!
//! The watcher hears of them, since it watches the versions as well, but for what goes through a mapping:
//! that is sought at the start and every hour. A version that is written to again and again is taken in
//! ever more rarely.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use pleach_core::values::{FileContent, LateWrite};
use pleach_core::vocabulary::Kind;

use super::Disk;
use super::stat::stat_handle;
use super::versions::VersionId;

/// How long a version must be quiet, and how long it is waited for that.
const QUIET: Duration = Duration::from_secs(1);
const AGE_MAX: Duration = Duration::from_secs(5);
/// How long it is at least from one time that it is taken in to the next, at first and at last.
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// How many versions are remembered.
const VERSIONS_MAX: usize = 1_024;

/// The versions that are being written to.
#[derive(Debug, Default)]
pub struct LateWriters {
    heard: BTreeMap<VersionId, Heard>,
}

#[derive(Debug)]
struct Heard {
    /// When the first and the last write was heard of that has not been taken in.
    waiting: Option<(Instant, Instant)>,
    /// When it was last taken in, and how long the pause after that is.
    taken: Option<(Instant, Duration)>,
}

impl Heard {
    fn due(&self) -> Option<Instant> {
        let (first, last) = self.waiting?;
        let quiet = (last + QUIET).min(first + AGE_MAX);
        Some(self.taken.map_or(quiet, |(at, pause)| quiet.max(at + pause)))
    }
}

impl LateWriters {
    /// Somebody has written to a version.
    pub fn note(&mut self, version: VersionId, now: Instant) {
        if self.heard.len() >= VERSIONS_MAX && !self.heard.contains_key(&version) {
            // They are sought every hour.
            self.heard.retain(|_, heard| heard.waiting.is_some());
            if self.heard.len() >= VERSIONS_MAX {
                return;
            }
        }
        let heard = self.heard.entry(version).or_insert(Heard { waiting: None, taken: None });
        let first = heard.waiting.map_or(now, |(first, _)| first);
        heard.waiting = Some((first, now));
    }

    /// When the next one is due.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.heard.values().filter_map(Heard::due).min()
    }

    /// Takes those that are due.
    pub fn take_due(&mut self, now: Instant) -> Vec<VersionId> {
        let mut due = Vec::new();
        for (&version, heard) in &mut self.heard {
            if heard.due().is_some_and(|at| at <= now) {
                let pause = heard.taken.map_or(PAUSE_MIN, |(_, pause)| (pause * 2).min(PAUSE_MAX));
                *heard = Heard { waiting: None, taken: Some((now, pause)) };
                due.push(version);
            }
        }
        due
    }
}

impl Disk {
    /// Stages what a version holds now that somebody wrote to it. None if it is nothing new, or nobody
    /// knows where it was.
    ///
    /// # Errors
    /// If it can't be read or staged: then it is to be tried again.
    pub fn take_in(&self, version: VersionId) -> io::Result<Option<LateWrite>> {
        let kept = self.versions.get(version).filter(|kept| kept.kind == Kind::File);
        let Some(kept) = kept.filter(|kept| self.versions.is_late(kept)) else { return Ok(None) };
        let Some(path) = kept.path else { return Ok(None) };
        let file = match self.versions.open_version(version) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let before = stat_handle(&file)?;
        // The others are told of it, and the copy may be gone after a power cut.
        rustix::fs::fsync(&file)?;
        // A copy is one state of it, whatever is written meanwhile.
        let (hash, size) = self.staging.copy_of(&file)?;
        let is_whole = before.same_bytes(&stat_handle(&file)?);
        self.versions.taken_in(version, &before, is_whole.then_some(hash));
        let content = FileContent { hash, size, mtime: before.modified };
        Ok(Some(LateWrite { path, content, mode: before.mode.without_special_bits() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_due_when_it_is_quiet_or_waited_for_long_enough() {
        let mut writers = LateWriters::default();
        let (version, start) = (VersionId(1), Instant::now());
        writers.note(version, start);
        assert_eq!(writers.due(), Some(start + QUIET));
        for tenths in 1..100 {
            writers.note(version, start + Duration::from_millis(100) * tenths);
        }
        assert_eq!(writers.due(), Some(start + AGE_MAX));
        assert_eq!(writers.take_due(start + AGE_MAX / 2), []);
        assert_eq!(writers.take_due(start + AGE_MAX), [version]);
        assert_eq!(writers.due(), None);
    }

    #[test]
    fn version_that_is_written_to_again_and_again_is_taken_in_ever_more_rarely() {
        let mut writers = LateWriters::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            writers.note(VersionId(1), now);
            let due = writers.due().unwrap();
            pauses.push(due - now);
            now = due;
            assert_eq!(writers.take_due(now), [VersionId(1)]);
        }
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert_eq!((pauses[0], pauses[11]), (QUIET, PAUSE_MAX));
    }

    #[test]
    fn no_more_versions_are_remembered_than_are_written_to() {
        let mut writers = LateWriters::default();
        let start = Instant::now();
        for version in 0..2 * VERSIONS_MAX as u64 {
            writers.note(VersionId(version), start);
        }
        assert_eq!(writers.take_due(start + QUIET).len(), VERSIONS_MAX);
        writers.note(VersionId(u64::MAX), start + QUIET);
        assert_eq!(writers.heard.len(), 1);
    }
}
