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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::Signature;
    use crate::vocabulary::{MasterId, WriterId};

    fn change(sequence: usize, bytes: usize) -> SignedChange {
        SignedChange {
            id: ChangeId { writer: WriterId([1; 16]), sequence: sequence as u64 },
            author: MasterId([1; 32]),
            bytes: vec![0; bytes],
            signature: Signature::new(&[0; 64]),
        }
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let (mut orphans, missing) = (Orphans::default(), ChangeHash([0; 32]));
        for sequence in 1..=ORPHANS_MAX {
            assert_eq!(orphans.wait(missing, change(sequence, 1)), []);
        }
        assert_eq!(orphans.wait(missing, change(7, 1)), [], "it waits already");
        let dropped = orphans.wait(missing, change(ORPHANS_MAX + 1, 1));
        assert_eq!(dropped, [change(1, 1).id]);
        assert_eq!(orphans.landed(missing).len(), ORPHANS_MAX);
        assert_eq!((orphans.count, orphans.bytes), (0, 0));
    }

    #[test]
    fn the_oldest_go_when_they_are_too_large() {
        let mut orphans = Orphans::default();
        let half = ORPHAN_BYTES_MAX / 2;
        for n in 1..=2 {
            assert_eq!(orphans.wait(ChangeHash([n; 32]), change(usize::from(n), half)), []);
        }
        let dropped = orphans.wait(ChangeHash([3; 32]), change(3, half));
        assert_eq!(dropped, [change(1, 1).id]);
        assert!(orphans.landed(ChangeHash([1; 32])).is_empty());
        assert_eq!(orphans.landed(ChangeHash([2; 32])).len(), 1);
        assert_eq!((orphans.count, orphans.bytes), (1, half));
    }

    #[test]
    fn the_queue_of_ages_does_not_outgrow_what_waits() {
        let mut orphans = Orphans::default();
        let keeper = ChangeHash([1; 32]);
        assert_eq!(orphans.wait(keeper, change(1, 1)), []);
        for sequence in 2..10 * ORPHANS_MAX {
            let missing = ChangeHash([2; 32]);
            assert_eq!(orphans.wait(missing, change(sequence, 1)), []);
            assert_eq!(orphans.landed(missing).len(), 1);
        }
        assert!(orphans.oldest.len() <= 2 * ORPHANS_MAX + 1);
        assert_eq!(orphans.len(), 1);
    }
}
