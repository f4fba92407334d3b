//! Stamps order writes consistently with causality; version vectors say which changes are known.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::WriterId;

/// The name of one written value: a Lamport counter, and the writer to break ties.
///
/// A write that has seen another has the larger counter (Lamport 1978, "Time, Clocks, and the
/// Ordering of Events in a Distributed System"). Wall clocks have no part in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Larger than every counter that the writer had seen. Starts at 1; 0 is the root's own.
    pub counter: u64,
    /// Who wrote.
    pub writer: WriterId,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.counter, self.writer)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:02x}{:02x}", self.counter, self.writer.0[0], self.writer.0[8])
    }
}

/// For each writer, how many of its changes are known: 1 to `n`, without gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionVector(BTreeMap<WriterId, u64>);

impl VersionVector {
    /// Knows no change.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of the last change known of `writer`; 0 for none.
    #[must_use]
    pub fn last(&self, writer: WriterId) -> u64 {
        self.0.get(&writer).copied().unwrap_or(0)
    }

    /// Learns that changes of `writer` up to `sequence` are known.
    pub fn advance(&mut self, writer: WriterId, sequence: u64) {
        let last = self.0.entry(writer).or_insert(0);
        *last = (*last).max(sequence);
    }

    /// Learns everything that `other` knows.
    pub fn join(&mut self, other: &Self) {
        for (&writer, &sequence) in &other.0 {
            self.advance(writer, sequence);
        }
    }

    /// Whether this knows all that `other` knows.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(&writer, &sequence)| self.last(writer) >= sequence)
    }

    /// How many changes this knows that `other` does not.
    #[must_use]
    pub fn ahead_of(&self, other: &Self) -> u64 {
        self.0.iter().map(|(&writer, &sequence)| sequence.saturating_sub(other.last(writer))).sum()
    }

    /// Writers and their last known change, by writer.
    pub fn iter(&self) -> impl Iterator<Item = (WriterId, u64)> + '_ {
        self.0.iter().map(|(&writer, &sequence)| (writer, sequence))
    }

    /// How many writers are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no change is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(WriterId, u64)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (WriterId, u64)>>(pairs: I) -> Self {
        let mut vector = Self::new();
        for (writer, sequence) in pairs {
            vector.advance(writer, sequence);
        }
        vector
    }
}
