//! The base as it is stored: a row for each entry, of which those are written that changed.

use std::collections::BTreeSet;

use super::{Base, BaseEntry, BaseId, root_entry};
use crate::vocabulary::Owner;

/// A row of the base as it is stored: opaque to the driver.
pub type BaseRow = (u64, Option<Vec<u8>>);

/// Rows that make no base: the base must be rebuilt from a scan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaseError {
    /// The row's bytes are no entry.
    #[error("row {0} of the base can't be decoded")]
    Undecodable(u64),
    /// The row names a directory that is not there, or is none, or is below the row itself.
    #[error("row {row} of the base is in {parent}, which does not lead to the root")]
    Orphan {
        /// The row.
        row: u64,
        /// The parent that it names.
        parent: u64,
    },
    /// Two rows have one name in one directory.
    #[error("rows {first} and {second} of the base have the same place")]
    SamePlace {
        /// The one.
        first: u64,
        /// The other.
        second: u64,
    },
}

impl Base {
    /// The rows that changed since the last call, by key.
    pub fn take_dirty_rows(&mut self) -> Vec<BaseRow> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty.into_iter().map(|id| (id.0, self.entry(id).map(encode))).collect()
    }

    /// Puts a base together from its rows, in any order. No rows make an empty base.
    pub fn load(rows: impl IntoIterator<Item = (u64, Vec<u8>)>) -> Result<Self, BaseError> {
        let mut base = Self::without_root();
        // Nearly everything belongs to a few: their names are kept once.
        let mut owners: BTreeSet<Owner> = BTreeSet::new();
        for (row, bytes) in rows {
            let id = BaseId(row);
            let (mut entry, rest) = postcard::take_from_bytes::<BaseEntry>(&bytes)
                .map_err(|_| BaseError::Undecodable(row))?;
            if let Some(owner) = &mut entry.attributes.owner {
                match owners.get(owner) {
                    Some(known) => *owner = known.clone(),
                    None => _ = owners.insert(owner.clone()),
                }
            }
            if id == BaseId::PARKING
                || !rest.is_empty()
                || entry.fingerprint.kind != entry.body.kind()
            {
                return Err(BaseError::Undecodable(row));
            }
            if id != BaseId::ROOT
                && let Some(first) = base.child(entry.parent, &entry.name)
            {
                return Err(BaseError::SamePlace { first: first.0, second: row });
            }
            base.index(id, entry);
            base.next = base.next.max(row + 1);
        }
        if !base.entries.contains_key(&BaseId::ROOT) {
            base.index(BaseId::ROOT, root_entry());
            base.dirty.insert(BaseId::ROOT);
        }
        base.check_reachable()?;
        Ok(base)
    }

    fn check_reachable(&self) -> Result<(), BaseError> {
        let mut reached = BTreeSet::from([BaseId::ROOT]);
        let mut queue = vec![BaseId::ROOT, BaseId::PARKING];
        while let Some(at) = queue.pop() {
            for (_, child) in self.children(at) {
                reached.insert(child);
                if self.entries[&child].is_directory() {
                    queue.push(child);
                }
            }
        }
        match self.entries.iter().find(|(id, _)| !reached.contains(id)) {
            Some((id, entry)) => Err(BaseError::Orphan { row: id.0, parent: entry.parent.0 }),
            None => Ok(()),
        }
    }
}

fn encode(entry: &BaseEntry) -> Vec<u8> {
    postcard::to_allocvec(entry).expect("an entry has no unencodable part")
}
