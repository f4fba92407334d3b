//! Changes that wait for ones they depend on, within bounds.

use automerge::ChangeHash;
use std::collections::{BTreeMap, VecDeque};

use crate::values::{ChangeId, SignedChange};

/// How many changes wait at most.
pub const ORPHANS_MAX: usize = 4096;

/// How many bytes of changes wait at most.
pub const ORPHAN_BYTES_MAX: usize = 64 << 20;

/// The waiting changes, each under one dependency that it misses. Where there are too many, those that
/// have waited longest go: a version-vector exchange brings them again.
#[derive(Clone, Debug, Default)]
pub(super) struct Orphans {
    waiting: BTreeMap<ChangeHash, BTreeMap<ChangeId, SignedChange>>,
    oldest: VecDeque<(ChangeHash, ChangeId)>,
    count: usize,
    bytes: usize,
}

impl Orphans {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Lets `change` wait for `missing`; the result is what had to go for it.
    #[must_use]
    pub(super) fn wait(&mut self, missing: ChangeHash, change: SignedChange) -> Vec<ChangeId> {
        let (id, bytes) = (change.id, change.bytes.len());
        let before = self.waiting.entry(missing).or_default().insert(id, change);
        self.bytes += bytes;
        match before {
            Some(before) => self.bytes -= before.bytes.len(),
            None => {
                self.count += 1;
                self.oldest.push_back((missing, id));
            }
        }
        let mut dropped = Vec::new();
        while self.count > ORPHANS_MAX || self.bytes > ORPHAN_BYTES_MAX {
            let Some((missing, id)) = self.oldest.pop_front() else { break };
            if self.remove(missing, id) {
                dropped.push(id);
            }
        }
        dropped
    }

    /// Takes out the changes that waited for the one that has landed; they may miss others still.
    #[must_use]
    pub(super) fn landed(&mut self, hash: ChangeHash) -> Vec<SignedChange> {
        let landed = self.waiting.remove(&hash).unwrap_or_default();
        self.count -= landed.len();
        self.bytes -= landed.values().map(|change| change.bytes.len()).sum::<usize>();
        if self.count == 0 {
            self.oldest.clear();
        } else if self.oldest.len() > 2 * ORPHANS_MAX {
            let waiting = &self.waiting;
            self.oldest.retain(|(missing, id)| {
                waiting.get(missing).is_some_and(|changes| changes.contains_key(id))
            });
        }
        landed.into_values().collect()
    }

    fn remove(&mut self, missing: ChangeHash, id: ChangeId) -> bool {
        let Some(changes) = self.waiting.get_mut(&missing) else { return false };
        let Some(change) = changes.remove(&id) else { return false };
        if changes.is_empty() {
            self.waiting.remove(&missing);
        }
        self.count -= 1;
        self.bytes -= change.bytes.len();
        true
    }
}
