//! What a daemon has made durable in its database, and beside the tree.

use std::collections::BTreeMap;

use pleach_core::engine::COPIED_HERE;
use pleach_core::values::{Message, Record, SignedChange};
use pleach_core::vocabulary::{ContentHash, VersionVector};

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub struct Durable {
    /// All changes, in order.
    pub log: Vec<SignedChange>,
    /// The document up to a position in the log.
    pub(super) snapshot: Option<(Vec<u8>, usize)>,
    pub(super) base: BTreeMap<u64, Vec<u8>>,
    pub(super) intents: BTreeMap<u64, Vec<u8>>,
    /// Fetched contents in the staging area.
    pub staged: BTreeMap<ContentHash, Vec<u8>>,
    /// Contents of versions that were never on this disk.
    pub retained: BTreeMap<ContentHash, Vec<u8>>,
}

impl Durable {
    /// Makes records durable, all of them.
    pub fn persist(&mut self, records: Vec<Record>) {
        for record in records {
            match record {
                Record::Change(change) => self.log.push(change),
                Record::Mark(_) => {}
                Record::Base { id, row: Some(row) } => drop(self.base.insert(id, row)),
                Record::Base { id, row: None } => drop(self.base.remove(&id)),
                Record::Intent { id, row: Some(row) } => drop(self.intents.insert(id, row)),
                Record::Intent { id, row: None } => drop(self.intents.remove(&id)),
            }
        }
    }

    /// The database is another file than the one it was written to, as the daemon finds out at its start.
    pub fn note_copied(&mut self) {
        self.intents.insert(COPIED_HERE, Vec::new());
    }

    /// The logged changes that a vector does not cover, in order.
    #[must_use]
    pub fn missing_from(&self, known: &VersionVector) -> Vec<SignedChange> {
        let missing = |change: &&SignedChange| change.id.sequence > known.last(change.id.writer);
        self.log.iter().filter(missing).cloned().collect()
    }
}

/// Whether a message tells of a change that its sender has not made durable.
#[must_use]
pub fn tells_of_unrecorded(message: &Message, durable: &Durable) -> bool {
    match message {
        Message::Changes { changes, .. } => {
            changes.iter().any(|change| !durable.log.iter().any(|logged| logged.id == change.id))
        }
        Message::Have { .. } | Message::Projected { .. } | Message::Blocked { .. } => false,
    }
}

/// The record of a change among others.
#[must_use]
pub fn holds_change(records: &[Record]) -> bool {
    records.iter().any(|record| matches!(record, Record::Change(_)))
}
