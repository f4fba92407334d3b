//! What the tree holds, and how much of it is on the disk, counted no more often than it is worth.
//!
//! Counting costs a walk over everything. While the tree changes under a stream of questions, a count is
//! good for [`REST`] times as long as it took: counting never takes more than a small part of the time.

use std::time::Instant;

use pleach_core::vocabulary::VersionVector;

use super::driver::Driver;
use crate::control::Counts;

/// How many times as long as it took a count is good for.
const REST: u128 = 20;

/// The last counts.
#[derive(Debug, Default)]
pub(super) struct Tally {
    tree: Counts,
    of: VersionVector,
    tree_good_until_ms: u64,
    on_disk: Counts,
    on_disk_good_until_ms: u64,
}

impl Driver {
    /// How much is on the disk.
    pub(super) fn on_disk(&self) -> Counts {
        // The root is no entry of its own tree.
        Counts::of(self.engine.base().iter().skip(1).map(|(_, entry)| &entry.body))
    }

    /// How much was on the disk when it was last worth counting.
    pub(super) fn on_disk_lately(&mut self) -> Counts {
        let now = self.clock.elapsed_ms();
        if self.tally.on_disk_good_until_ms <= now {
            let start = Instant::now();
            self.tally.on_disk = self.on_disk();
            self.tally.on_disk_good_until_ms = now.saturating_add(rest(start));
        }
        self.tally.on_disk
    }

    /// What the tree holds, of which `on_disk` is on the disk.
    pub(super) fn tree(&mut self, on_disk: Counts) -> Counts {
        let status = self.engine.status();
        let nothing_lacks = status.pending == 0
            && status.fetching.0 == 0
            && self.engine.problems().next().is_none()
            && self.surveyed;
        let known = self.engine.replica().version_vector();
        let now = self.clock.elapsed_ms();
        if nothing_lacks {
            return on_disk;
        }
        if self.tally.of != *known && self.tally.tree_good_until_ms <= now {
            let start = Instant::now();
            self.tally.of = known.clone();
            let entries = self.engine.replica().tree().entries();
            self.tally.tree = Counts::of(entries.map(|(_, entry)| entry.body));
            self.tally.tree_good_until_ms = now.saturating_add(rest(start));
        }
        self.tally.tree
    }
}

/// How long a count that began at `start` is good for, in milliseconds.
fn rest(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis().saturating_mul(REST)).unwrap_or(u64::MAX)
}
