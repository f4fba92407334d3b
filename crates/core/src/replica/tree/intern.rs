//! Small numbers for large names: writers and owners are few and repeated in every node.
//!
//! Numbers are given in order of arrival, so they differ between masters and never order anything.

use std::collections::BTreeMap;

use crate::vocabulary::{Owner, Stamp, WriterId};

/// A stamp in 12 bytes. Equal ticks are equal stamps; to order them, see [`Interner::stamp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tick {
    counter: [u32; 2],
    writer: u32,
}

/// An owner, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OwnerNumber(u32);

/// Writers and owners by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Interner {
    writers: Vec<WriterId>,
    number_of_writer: BTreeMap<WriterId, u32>,
    owners: Vec<Owner>,
    number_of_owner: BTreeMap<Owner, u32>,
}

impl Interner {
    pub(super) fn tick(&mut self, stamp: Stamp) -> Tick {
        let writers = &mut self.writers;
        let writer = *self.number_of_writer.entry(stamp.writer).or_insert_with(|| {
            writers.push(stamp.writer);
            number(writers.len() - 1)
        });
        Tick { counter: [(stamp.counter >> 32) as u32, stamp.counter as u32], writer }
    }

    pub(super) fn stamp(&self, tick: Tick) -> Stamp {
        Stamp {
            counter: (u64::from(tick.counter[0]) << 32) | u64::from(tick.counter[1]),
            writer: self.writers[tick.writer as usize],
        }
    }

    pub(super) fn owner_number(&mut self, owner: Option<Owner>) -> OwnerNumber {
        let Some(owner) = owner else { return OwnerNumber(0) };
        if let Some(&known) = self.number_of_owner.get(&owner) {
            return OwnerNumber(known);
        }
        self.owners.push(owner.clone());
        let new = number(self.owners.len());
        self.number_of_owner.insert(owner, new);
        OwnerNumber(new)
    }

    pub(super) fn owner(&self, number: OwnerNumber) -> Option<&Owner> {
        let index = number.0.checked_sub(1)?;
        Some(&self.owners[index as usize])
    }
}

/// Both tables hold what the store's changes name, and a store has under 2^32 of these.
pub(super) fn number(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 2^32 of them fit into memory")
}
