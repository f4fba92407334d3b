//! Retention: for how long versions are kept, and letting go of those that were.
//!
//! A version goes when it is older than the age, or, the oldest first, while all together hold more than
//! their share of the file system; in its first hour none goes. It is looked at once more before: one that
//! a program has written to meanwhile through an old handle counts as new.
//!
//! All that is by the wall clock, which somebody may set: see [`WallClock`].

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use pleach_core::vocabulary::{ContentHash, Kind};

use super::Disk;
use super::versions::{Kept, VersionId, Versions, now_ms};
use super::wall_clock::WallClock;

/// How many versions one step lets go of: that takes some hundredths of a second.
const STEP_MAX: usize = 1_000;
/// How long it is to the next step while there is more to do, and else.
const NEXT_STEP: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(3600);
/// For so long a version is kept, however much room it takes: it may have been a mistake.
const KEPT_AT_LEAST: Duration = Duration::from_secs(3600);

/// No version goes for its age before the clock has gone evenly for so long, or for that age: longer than it
/// takes until a clock that was set wrong is noticed, and shorter than a day, for daemons that are started anew
/// every night.
const EVEN_MIN: Duration = Duration::from_secs(12 * 3600);

/// For how long, and up to how much, versions are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How old they get.
    pub age_max: Duration,
    /// How much of the file system they may hold together, in percent.
    pub share_max: u8,
}

/// Lets go of versions, a step at a time.
#[derive(Debug)]
pub struct Cleaner {
    retention: Retention,
    clock: WallClock,
    due: Instant,
    /// Those that were found to be needed since it last was through.
    needed: BTreeSet<VersionId>,
}

impl Cleaner {
    /// Begins at once.
    #[must_use]
    pub fn new(retention: Retention) -> Self {
        let (clock, due) = (WallClock::watch(), Instant::now());
        Self { retention, clock, due, needed: BTreeSet::new() }
    }

    /// The same, as if the clock had gone evenly for so long.
    #[cfg(test)]
    pub(super) fn with_clock_even_for(retention: Retention, even: Duration) -> Self {
        let mut cleaner = Self::new(retention);
        cleaner.clock.assume_even_for(even);
        cleaner
    }

    /// How long it is until [`Cleaner::step`] should be called.
    #[must_use]
    pub fn due_in(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// Lets go of some of the versions that have been kept for long enough; returns how many went.
    /// `needed` tells which of these contents must stay.
    ///
    /// # Errors
    /// If the disk does not let them go; what went is gone.
    pub fn step(
        &mut self,
        disk: &Disk,
        needed: impl FnOnce(BTreeSet<ContentHash>) -> BTreeSet<ContentHash>,
    ) -> io::Result<usize> {
        self.due = Instant::now() + INTERVAL;
        let system = rustix::fs::fstatvfs(disk.root().tree())?;
        let bytes = u128::from(system.f_blocks) * u128::from(system.f_frsize);
        let bytes_max = bytes * u128::from(self.retention.share_max) / 100;
        let bytes_max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        let even_for = self.clock.even_for();
        let expired = self.expired(disk.versions(), bytes_max, even_for);
        if expired.is_empty() {
            self.needed.clear();
            return Ok(0);
        }
        let needed = needed(expired.iter().filter_map(|kept| kept.hash).collect());
        let mut gone = 0;
        for kept in expired {
            if kept.hash.is_some_and(|hash| needed.contains(&hash)) {
                self.needed.insert(kept.id);
            } else if disk.versions().let_go(kept)? {
                gone += 1;
            }
        }
        disk.versions().write()?;
        self.due = Instant::now() + NEXT_STEP;
        Ok(gone)
    }

    /// Versions that have been kept for long enough, the oldest first. Of one that was not hashed yet
    /// nobody can tell whether it is needed, and nobody can tell an age by a clock that was set a moment ago.
    /// What there is no room for goes all the same.
    fn expired(&self, versions: &Versions, bytes_max: u64, even_for: Duration) -> Vec<Kept> {
        let ago = |age: Duration| {
            now_ms().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
        };
        let age_max = self.retention.age_max.max(KEPT_AT_LEAST);
        let old = match even_for < age_max.min(EVEN_MIN) {
            true => i64::MIN,
            false => ago(age_max),
        };
        let recent = ago(KEPT_AT_LEAST);
        let mut surplus = versions.total_bytes().saturating_sub(bytes_max);
        let mut expired = Vec::new();
        versions.each_while(|kept| {
            let goes = kept.kept_at_ms < old || surplus > 0 && kept.kept_at_ms < recent;
            let is_known = kept.hash.is_some() || kept.kind == Kind::Symlink;
            if goes && is_known && !self.needed.contains(&kept.id) {
                surplus = surplus.saturating_sub(kept.size);
                expired.push(kept.clone());
            }
            expired.len() < STEP_MAX
        });
        expired
    }
}
