//! Restoring what was: contents that only others have are fetched before anything is written.

use std::collections::BTreeMap;

use super::Engine;
use crate::values::Restoring;
use crate::vocabulary::{ContentHash, Moment, NodeId};

/// Under which node contents are wanted that somebody is about to restore: no node is born with this id.
pub(super) const RESTORER: NodeId = NodeId([0xff; 16]);

impl Engine {
    /// Wants these contents, with their sizes, among the versions, and none but these for that purpose. What
    /// nobody has who is connected is wanted no more after it was asked for once.
    pub fn want_former(&mut self, now: Moment, contents: &BTreeMap<ContentHash, u64>) {
        self.retain_contents(RESTORER, contents);
        self.advance(now.monotonic_ms);
        self.seal();
    }

    /// Whether the content is on its way to here, or still to be asked for.
    #[must_use]
    pub fn is_coming(&self, hash: &ContentHash) -> bool {
        self.transfer.is_wanted(hash)
    }

    /// Whether the content is in a file of the tree here, or known to be among the versions.
    #[must_use]
    pub fn is_at_hand(&self, hash: &ContentHash) -> bool {
        self.retained.contains(hash) || self.base.by_hash(*hash).next().is_some()
    }

    /// Makes nodes be as they were: a change like any other, which this disk follows as all do.
    pub fn restore(&mut self, now: Moment, wanted: &[Restoring]) {
        self.replica.set_time(now.unix_ms);
        let local = self.replica.restore(wanted);
        self.publish(local, Vec::new());
        self.advance(now.monotonic_ms);
        self.seal();
    }
}
