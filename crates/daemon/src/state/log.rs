//! The log of changes: what was learnt, in the order it was learnt, and how it is served to peers.
//!
//! Positions rise with time and, for each writer, with the sequence; a change comes after everything it
//! depends on, because it was applied after it. Nothing is ever removed from the log.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use pleach_core::values::{ChangeId, Signature, SignedChange};
use pleach_core::vocabulary::{MasterId, VersionVector, WriterId};
use rusqlite::{CachedStatement, OptionalExtension, Row, params};

use super::error;
use super::schema::{Table, checksum, log_key};
use super::{State, StateError};

/// Some of the changes that somebody lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// In an order in which each comes after what it depends on.
    pub changes: Vec<SignedChange>,
    /// What the asker knows once it has applied them: ask with this for the next page.
    pub known: VersionVector,
    /// Whether nothing is left to ask for.
    pub complete: bool,
}

const COLUMNS: &str = "position, writer, sequence, author, signature, bytes, checksum";

impl State {
    /// The changes in the log that `known` does not cover, in the order of the log, as many as have
    /// `bytes_max` bytes in all (at least one, if there is one).
    ///
    /// Costs a few index look-ups for each writer and each change returned, however long the log is.
    ///
    /// # Errors
    /// If a change is damaged or can't be read.
    pub fn log_after(
        &self,
        known: &VersionVector,
        bytes_max: usize,
    ) -> Result<LogPage, StateError> {
        let failed = error::at(&self.path);
        let mut next = self
            .connection
            .prepare_cached("SELECT position FROM log WHERE writer = ?1 AND sequence = ?2")
            .map_err(&failed)?;
        let mut read = self.prepare_read("position = ?1")?;
        let mut position_of = |writer: WriterId, sequence: u64| {
            next.query_row(params![writer.as_bytes(), sequence.cast_signed()], |row| row.get(0))
                .optional()
                .map_err(&failed)
        };
        let mut heads = BinaryHeap::new();
        for (writer, last) in self.log_vector()?.iter() {
            let from = known.last(writer);
            if last > from
                && let Some(position) = position_of(writer, from + 1)?
            {
                heads.push(Reverse::<(i64, WriterId, u64)>((position, writer, from + 1)));
            }
        }
        let mut page = LogPage { changes: Vec::new(), known: known.clone(), complete: false };
        let mut bytes = 0;
        while let Some(Reverse((position, writer, sequence))) = heads.pop() {
            let change = self.read_one(&mut read, position)?;
            bytes += change_bytes(&change);
            if bytes > bytes_max && !page.changes.is_empty() {
                return Ok(page);
            }
            page.known.advance(writer, sequence);
            page.changes.push(change);
            if let Some(position) = position_of(writer, sequence + 1)? {
                heads.push(Reverse((position, writer, sequence + 1)));
            }
        }
        page.complete = true;
        Ok(page)
    }

    /// What the log has: each writer's last change.
    ///
    /// # Errors
    /// If the log can't be read.
    pub fn log_vector(&self) -> Result<VersionVector, StateError> {
        let failed = error::at(&self.path);
        let mut following = self
            .connection
            .prepare_cached("SELECT writer FROM log WHERE writer > ?1 ORDER BY writer LIMIT 1")
            .map_err(&failed)?;
        let mut last = self
            .connection
            .prepare_cached("SELECT max(sequence) FROM log WHERE writer = ?1")
            .map_err(&failed)?;
        let mut vector = VersionVector::new();
        let mut writer: Vec<u8> = Vec::new();
        while let Some(found) =
            following.query_row([&writer], |row| row.get(0)).optional().map_err(&failed)?
        {
            writer = found;
            let sequence: i64 = last.query_row([&writer], |row| row.get(0)).map_err(&failed)?;
            vector.advance(WriterId(self.array("a writer", &writer)?), sequence.cast_unsigned());
        }
        Ok(vector)
    }

    /// The position of the last change; 0 for an empty log.
    ///
    /// # Errors
    /// If the log can't be read.
    pub fn log_position(&self) -> Result<u64, StateError> {
        self.connection
            .query_row("SELECT coalesce(max(position), 0) FROM log", [], |row| row.get::<_, i64>(0))
            .map(i64::cast_unsigned)
            .map_err(error::at(&self.path))
    }

    /// The changes after `position`, in the order of the log.
    ///
    /// # Errors
    /// If a change is damaged or can't be read.
    pub fn changes_since(&self, position: u64) -> Result<Vec<SignedChange>, StateError> {
        let mut changes = Vec::new();
        self.each_change_since(position, |change| changes.push(change))?;
        Ok(changes)
    }

    /// The change at this position of the log.
    ///
    /// # Errors
    /// If it is damaged, missing, or can't be read.
    pub fn change_at(&self, position: u64) -> Result<SignedChange, StateError> {
        self.read_one(&mut self.prepare_read("position = ?1")?, position.cast_signed())
    }

    /// Gives the changes after `position` to `take`, one at a time.
    pub(super) fn each_change_since(
        &self,
        position: u64,
        mut take: impl FnMut(SignedChange),
    ) -> Result<(), StateError> {
        let failed = error::at(&self.path);
        let mut statement = self.prepare_read("position > ?1 ORDER BY position")?;
        let mut rows = statement.query([position.cast_signed()]).map_err(&failed)?;
        while let Some(row) = rows.next().map_err(&failed)? {
            take(self.parse(row)?);
        }
        Ok(())
    }

    /// Checks every change in the log, and that none is missing.
    pub(super) fn check_log(&self) -> Result<(), StateError> {
        let known: u64 = self.log_vector()?.iter().map(|(_, last)| last).sum();
        let count: i64 = self
            .connection
            .query_row("SELECT count(*) FROM log", [], |row| row.get(0))
            .map_err(error::at(&self.path))?;
        if known != count.cast_unsigned() {
            return Err(self.damaged(format!("the log has {count} changes of {known}")));
        }
        self.each_change_since(0, drop)
    }

    fn prepare_read(&self, condition: &str) -> Result<CachedStatement<'_>, StateError> {
        let sql = format!("SELECT {COLUMNS} FROM log WHERE {condition}");
        self.connection.prepare_cached(&sql).map_err(error::at(&self.path))
    }

    fn read_one(
        &self,
        read: &mut CachedStatement<'_>,
        position: i64,
    ) -> Result<SignedChange, StateError> {
        let failed = error::at(&self.path);
        let mut rows = read.query([position]).map_err(&failed)?;
        match rows.next().map_err(&failed)? {
            Some(row) => self.parse(row),
            None => Err(self.damaged(format!("change {position} is missing from the log"))),
        }
    }

    fn parse(&self, row: &Row<'_>) -> Result<SignedChange, StateError> {
        let failed = error::at(&self.path);
        let blob = |column: usize| {
            row.get_ref(column).and_then(|value| Ok(value.as_blob()?)).map_err(&failed)
        };
        let position: i64 = row.get(0).map_err(&failed)?;
        let sequence: i64 = row.get(2).map_err(&failed)?;
        let sum: i64 = row.get(6).map_err(&failed)?;
        let change = SignedChange {
            id: ChangeId {
                writer: WriterId(self.array("a writer", blob(1)?)?),
                sequence: sequence.cast_unsigned(),
            },
            author: MasterId(self.array("an author", blob(3)?)?),
            signature: Signature::new(&self.array("a signature", blob(4)?)?),
            bytes: blob(5)?.to_vec(),
        };
        if sum != checksum(Table::Log, &log_key(&change), &change.bytes) {
            return Err(self.damaged(format!("change {position} of the log")));
        }
        Ok(change)
    }

    fn array<const N: usize>(&self, what: &str, bytes: &[u8]) -> Result<[u8; N], StateError> {
        bytes.try_into().map_err(|_| self.damaged(format!("{what} of {} bytes", bytes.len())))
    }
}

/// What a change counts against the limit of a page: its bytes and what surrounds them in a message.
fn change_bytes(change: &SignedChange) -> usize {
    change.bytes.len() + 136
}
