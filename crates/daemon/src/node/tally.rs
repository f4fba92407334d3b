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

/// The last count of the merged tree.
#[derive(Debug, Default)]
pub(super) struct Tally {
    tree: Counts,
    of: VersionVector,
    good_until_ms: u64,
}

impl Driver {
    /// How much is on the disk.
    pub(super) fn on_disk(&self) -> Counts {
        // The root is no entry of its own tree.
        Counts::of(self.engine.base().iter().skip(1).map(|(_, entry)| &entry.body))
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
        if self.tally.of != *known && self.tally.good_until_ms <= now {
            let (start, of) = (Instant::now(), known.clone());
            let entries = self.engine.replica().tree().entries();
            let tree = Counts::of(entries.map(|(_, entry)| entry.body));
            let rest = u64::try_from(start.elapsed().as_millis() * REST).unwrap_or(u64::MAX);
            self.tally = Tally { tree, of, good_until_ms: now.saturating_add(rest) };
        }
        self.tally.tree
    }
}
