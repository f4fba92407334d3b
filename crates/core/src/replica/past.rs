//! The past: which changes the author of a change had seen, for every change in the document.
//!
//! Kept as steps: for each pair of writers the changes of one at which its knowledge of the other grew.
//! Rebuilt from the document's change graph on loading. It is not written into the values: whoever one
//! day rebuilds the document without its history has this at hand and can write it down then, and what
//! is derived can't be forged.

use std::collections::BTreeMap;

use crate::values::ChangeId;
use crate::vocabulary::{VersionVector, WriterId};

/// Who had seen what, for every change that is in the document.
#[derive(Clone, Debug, Default)]
pub struct Past {
    known: VersionVector,
    numbers: BTreeMap<WriterId, u32>,
    writers: Vec<WriterId>,
    /// By (observer, observed): from which change of the observer on it knew how many of the other.
    /// Both columns rise.
    steps: BTreeMap<(u32, u32), Vec<Step>>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    own: u32,
    other: u32,
}

impl Past {
    /// The changes that are in the document.
    #[must_use]
    pub fn known(&self) -> &VersionVector {
        &self.known
    }

    /// What the author of `change` had seen, the change itself included; empty if it isn't known.
    #[must_use]
    pub fn seen_by(&self, change: ChangeId) -> VersionVector {
        let mut seen = VersionVector::new();
        self.join_seen_by(change, &mut seen);
        seen
    }

    /// Adds [`Past::seen_by`] to `seen`.
    pub(super) fn join_seen_by(&self, change: ChangeId, seen: &mut VersionVector) {
        let (Some(&observer), true) = (self.numbers.get(&change.writer), self.knows(change)) else {
            return;
        };
        seen.advance(change.writer, change.sequence);
        for (&(_, observed), steps) in self.steps.range((observer, 0)..=(observer, u32::MAX)) {
            if let Some(sequence) = last_known(steps, change.sequence) {
                seen.advance(self.writers[observed as usize], sequence);
            }
        }
    }

    /// Whether `change` is in the document.
    #[must_use]
    pub fn knows(&self, change: ChangeId) -> bool {
        change.sequence > 0 && change.sequence <= self.known.last(change.writer)
    }

    /// Whether the author of `later` had seen `earlier` when writing, or they are the same change.
    #[must_use]
    pub fn saw(&self, later: ChangeId, earlier: ChangeId) -> bool {
        if later.writer == earlier.writer {
            return earlier.sequence <= later.sequence;
        }
        let (Some(&observer), Some(&observed)) =
            (self.numbers.get(&later.writer), self.numbers.get(&earlier.writer))
        else {
            return false;
        };
        self.steps
            .get(&(observer, observed))
            .and_then(|steps| last_known(steps, later.sequence))
            .is_some_and(|sequence| earlier.sequence <= sequence)
    }

    /// Learns of a change, the next one of its writer, whose author had seen `seen`.
    pub(super) fn record(&mut self, change: ChangeId, seen: &VersionVector) {
        assert_eq!(change.sequence, self.known.last(change.writer) + 1, "changes come in sequence");
        self.known.advance(change.writer, change.sequence);
        let observer = self.number(change.writer);
        let own = narrow(change.sequence);
        for (writer, sequence) in seen.iter().filter(|(writer, _)| *writer != change.writer) {
            let observed = self.number(writer);
            let other = narrow(sequence);
            let steps = self.steps.entry((observer, observed)).or_default();
            if steps.last().is_none_or(|last| last.other < other) {
                steps.push(Step { own, other });
            }
        }
    }

    /// A short name for a writer, good as long as this lives.
    pub(super) fn number(&mut self, writer: WriterId) -> u32 {
        let next = narrow(self.writers.len() as u64);
        *self.numbers.entry(writer).or_insert_with(|| {
            self.writers.push(writer);
            next
        })
    }

    /// The writer with this short name.
    pub(super) fn writer(&self, number: u32) -> WriterId {
        self.writers[number as usize]
    }
}

fn last_known(steps: &[Step], sequence: u64) -> Option<u64> {
    let after = steps.partition_point(|step| u64::from(step.own) <= sequence);
    Some(u64::from(steps[..after].last()?.other))
}

/// Sequences fit: the engine counts ops in 32 bits, and a change has at least one.
fn narrow(sequence: u64) -> u32 {
    u32::try_from(sequence).expect("the gate admits no sequence above 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(n: u8) -> WriterId {
        WriterId([n; 16])
    }

    fn change(n: u8, sequence: u64) -> ChangeId {
        ChangeId { writer: writer(n), sequence }
    }

    #[test]
    fn a_change_has_seen_what_was_known_when_it_was_written() {
        let mut past = Past::default();
        let seen = |pairs: &[(u8, u64)]| pairs.iter().map(|&(n, s)| (writer(n), s)).collect();
        past.record(change(1, 1), &seen(&[]));
        past.record(change(2, 1), &seen(&[]));
        past.record(change(1, 2), &seen(&[(1, 1), (2, 1)]));
        past.record(change(2, 2), &seen(&[(2, 1)]));
        past.record(change(2, 3), &seen(&[(2, 2), (1, 2)]));

        assert!(past.saw(change(1, 2), change(2, 1)));
        assert!(!past.saw(change(1, 1), change(2, 1)));
        assert!(!past.saw(change(1, 2), change(2, 2)));
        assert!(past.saw(change(1, 2), change(1, 2)), "a change has seen itself");
        assert!(!past.saw(change(2, 2), change(1, 2)));
        assert!(past.saw(change(2, 3), change(1, 2)));
        assert_eq!(past.seen_by(change(1, 2)), seen(&[(1, 2), (2, 1)]));
        assert_eq!(past.seen_by(change(1, 1)), seen(&[(1, 1)]));
        assert_eq!(past.seen_by(change(1, 9)), seen(&[]), "not known");
    }
}
