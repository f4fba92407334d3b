//! A state that was copied to where it is: a backup that was restored, a machine that was cloned.
//!
//! It knows of less than was done to the disk, so that what it finds there may be its own doing, for changes that
//! only the others still have. Before it looks, it lets them tell, for a while at most: whoever is alone for longer
//! must get on. Of what is disputed then, what differs from the base supersedes nothing.

use std::collections::BTreeSet;

use super::Engine;
use super::open::COPIED_HERE;
use crate::replica::Replica;
use crate::values::{Base, BaseEntry, BaseId, Record};
use crate::vocabulary::MasterId;

/// How long the others are waited for: so long a look may be late, once, after a backup was restored.
const OTHERS_MS_MAX: u64 = 5_000;

/// What is still to be known of a base that was copied here.
#[derive(Debug)]
pub(super) struct Copied {
    /// Entries with an open conflict, until they are found.
    pub(super) disputed: BTreeSet<BaseId>,
    /// Whether it is still noted that it was copied.
    is_noted: bool,
    awaits: Option<Awaited>,
}

/// The others, of whom each may know what was done here since.
#[derive(Debug, Default)]
struct Awaited {
    /// Who has told what is known there.
    heard: BTreeSet<MasterId>,
    /// None before the time is known.
    until_ms: Option<u64>,
}

impl Copied {
    pub(super) fn new(is_noted: bool, base: &Base, replica: &Replica) -> Self {
        let disputed = if is_noted { disputed(base, replica) } else { BTreeSet::new() };
        let awaits = (is_noted && replica.members().len() > 1).then(Awaited::default);
        Self { disputed, is_noted, awaits }
    }

    /// Whether the others may still tell what was done here.
    pub(super) fn is_awaiting(&self) -> bool {
        self.awaits.is_some()
    }

    /// Another master has told what it knows.
    pub(super) fn has_told(&mut self, master: MasterId) {
        if let Some(awaits) = &mut self.awaits {
            awaits.heard.insert(master);
        }
    }

    /// When they are waited for no longer.
    pub(super) fn timeout(&self) -> Option<u64> {
        self.awaits.as_ref()?.until_ms
    }
}

/// Entries of the base with an open conflict. A master that is alone has none of another's making.
fn disputed(base: &Base, replica: &Replica) -> BTreeSet<BaseId> {
    if replica.members().len() < 2 {
        return BTreeSet::new();
    }
    let is_disputed = |entry: &BaseEntry| {
        entry.standing().is_some_and(|node| !replica.conflicts_at(node).is_empty())
    };
    base.iter().filter(|(_, entry)| is_disputed(entry)).map(|(id, _)| id).collect()
}

impl Engine {
    /// Waits for the others no longer than it takes.
    pub(super) fn await_others(&mut self, now: u64) {
        let Some(awaits) = &mut self.copied.awaits else { return };
        let until = *awaits.until_ms.get_or_insert(now + OTHERS_MS_MAX);
        let known = self.replica.version_vector();
        let is_known = |other: MasterId| {
            awaits.heard.contains(&other)
                && self.peers.get(other).is_some_and(|peer| known.covers(&peer.known))
        };
        if now >= until || self.replica.members_but(self.identity.master).all(is_known) {
            self.copied.awaits = None;
            self.copied.disputed = disputed(&self.base, &self.replica);
        }
    }

    /// Once everything has been looked for, the base is this disk's own.
    pub(super) fn forget_copied(&mut self) {
        if self.copied.is_noted && self.caught_up && self.missed.is_empty() {
            self.copied.is_noted = false;
            self.records.push(Record::Intent { id: COPIED_HERE, row: None });
            // A version that it seemed to have in its place may have been replaced there since.
            self.remember_conflicts();
        }
    }
}
