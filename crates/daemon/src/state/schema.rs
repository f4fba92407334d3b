//! The layout of the database, the checksums of its rows, and how records become rows.

use std::path::Path;
use std::time::Duration;

use pleach_core::values::{Record, SignedChange};
use rusqlite::{CachedStatement, ErrorCode, Transaction, params};

use super::error::{self, StateError};
use super::history::{Indexed, MarkWriter};

/// "plea": tells SQLite's `file` and us whose database this is.
pub(super) const APPLICATION_ID: i64 = 0x706c_6561;

/// The layout below. Raised with every change of it.
pub(super) const VERSION: i64 = 1;

/// How long a reader waits for a writer, at most.
pub(super) const BUSY_WAIT_MAX: Duration = Duration::from_secs(5);

/// The tables whose rows carry checksums.
#[derive(Clone, Copy, Debug)]
pub(super) enum Table {
    Meta,
    Log,
    Snapshot,
    Base,
    Intents,
    Invitations,
}

impl Table {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Log => "log",
            Self::Snapshot => "snapshot",
            Self::Base => "base",
            Self::Intents => "intents",
            Self::Invitations => "invitations",
        }
    }
}

/// The checksum of a row: 64 bits of BLAKE3 over table, key and bytes. Against accidents, not attackers.
pub(super) fn checksum(table: Table, key: &[u8], row: &[u8]) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(table.name().as_bytes());
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(row);
    let mut sum = [0; 8];
    hasher.finalize_xof().fill(&mut sum);
    i64::from_le_bytes(sum)
}

/// The key of a log row, for its checksum: everything but the change's bytes.
pub(super) fn log_key(change: &SignedChange) -> Vec<u8> {
    let mut key = Vec::with_capacity(120);
    key.extend_from_slice(change.id.writer.as_bytes());
    key.extend_from_slice(&change.id.sequence.to_le_bytes());
    key.extend_from_slice(change.author.as_bytes());
    key.extend_from_slice(&change.signature.to_bytes());
    key
}

/// What makes an empty database ours.
pub(super) fn statements() -> String {
    let keyed = |table: Table, key: &str| {
        format!(
            "CREATE TABLE {} (id {key} PRIMARY KEY, row BLOB NOT NULL, checksum INTEGER NOT NULL) STRICT;",
            table.name()
        )
    };
    [
        format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"),
        keyed(Table::Meta, "BLOB"),
        keyed(Table::Base, "INTEGER"),
        keyed(Table::Intents, "INTEGER"),
        keyed(Table::Invitations, "BLOB"),
        "CREATE TABLE snapshot (id INTEGER PRIMARY KEY CHECK (id = 0), row BLOB NOT NULL,
            position INTEGER NOT NULL, checksum INTEGER NOT NULL) STRICT;
         CREATE TABLE log (position INTEGER PRIMARY KEY, writer BLOB NOT NULL,
            sequence INTEGER NOT NULL, author BLOB NOT NULL, signature BLOB NOT NULL,
            bytes BLOB NOT NULL, checksum INTEGER NOT NULL, UNIQUE (writer, sequence)) STRICT;"
            .to_owned(),
    ]
    .concat()
}

/// Writes records within one transaction, with statements that are prepared once.
pub(super) struct RecordWriter<'t> {
    path: &'t Path,
    change: CachedStatement<'t>,
    before: CachedStatement<'t>,
    set_base: CachedStatement<'t>,
    remove_base: CachedStatement<'t>,
    set_intent: CachedStatement<'t>,
    remove_intent: CachedStatement<'t>,
    /// None while the index stays as it is.
    mark: Option<MarkWriter<'t>>,
}

impl<'t> RecordWriter<'t> {
    pub(super) fn new(
        transaction: &'t Transaction<'_>,
        path: &'t Path,
        indexed: Indexed,
    ) -> Result<Self, StateError> {
        let prepare = |sql: &str| transaction.prepare_cached(sql).map_err(error::at(path));
        let set = |table: Table| {
            prepare(&format!(
                "REPLACE INTO {} (id, row, checksum) VALUES (?1, ?2, ?3)",
                table.name()
            ))
        };
        let remove = |table: Table| prepare(&format!("DELETE FROM {} WHERE id = ?1", table.name()));
        Ok(Self {
            path,
            change: prepare(
                "INSERT INTO log (writer, sequence, author, signature, bytes, checksum)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?,
            before: prepare("SELECT coalesce(max(sequence), 0) FROM log WHERE writer = ?1")?,
            set_base: set(Table::Base)?,
            remove_base: remove(Table::Base)?,
            set_intent: set(Table::Intents)?,
            remove_intent: remove(Table::Intents)?,
            mark: match indexed {
                Indexed::All => Some(MarkWriter::new(transaction).map_err(error::at(path))?),
                Indexed::Behind => None,
            },
        })
    }

    pub(super) fn write(&mut self, record: &Record) -> Result<(), StateError> {
        let written = match record {
            Record::Change(change) => return self.write_change(change),
            Record::Mark(mark) => self.mark.as_mut().map_or(Ok(()), |marks| marks.write(mark)),
            Record::Base { id, row } => {
                set_row(Table::Base, &mut self.set_base, &mut self.remove_base, *id, row.as_deref())
            }
            Record::Intent { id, row } => set_row(
                Table::Intents,
                &mut self.set_intent,
                &mut self.remove_intent,
                *id,
                row.as_deref(),
            ),
        };
        written.map_err(error::at(self.path))
    }

    fn write_change(&mut self, change: &SignedChange) -> Result<(), StateError> {
        let failed = error::at(self.path);
        let wrong_sequence =
            || StateError::Sequence { path: self.path.to_owned(), change: change.id };
        let writer = change.id.writer.as_bytes();
        let before: i64 = self.before.query_row([writer], |row| row.get(0)).map_err(&failed)?;
        if before.cast_unsigned().checked_add(1) != Some(change.id.sequence) {
            return Err(wrong_sequence());
        }
        let inserted = self.change.execute(params![
            writer,
            change.id.sequence.cast_signed(),
            change.author.as_bytes(),
            change.signature.to_bytes(),
            change.bytes,
            checksum(Table::Log, &log_key(change), &change.bytes)
        ]);
        match inserted {
            Ok(_) => Ok(()),
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                Err(wrong_sequence())
            }
            Err(e) => Err(failed(e)),
        }
    }
}

fn set_row(
    table: Table,
    set: &mut CachedStatement<'_>,
    remove: &mut CachedStatement<'_>,
    id: u64,
    row: Option<&[u8]>,
) -> Result<(), rusqlite::Error> {
    let id = id.cast_signed();
    match row {
        Some(row) => set.execute(params![id, row, checksum(table, &id.to_le_bytes(), row)])?,
        None => remove.execute([id])?,
    };
    Ok(())
}
