//! This master's own memory: one SQLite database, `.pleach/state.db`.
//!
//! It holds the log of signed changes, the snapshot of the document up to some position in that log, the
//! base, the effects in flight, the open invitations and a few facts about store and master; and an index of
//! the log, made from it. What was
//! committed together is there together, and is durable when [`State::commit`] returns.
//!
//! Invariants: the log has no gaps, so each writer's changes are 1 to n, in rising positions; every row
//! carries a checksum over its table, key and bytes, and a row that fails it is damage, never data; but for
//! those of the index.
//!
//! It knows nothing of what rows mean: base, intents and invitations are opaque bytes. It does not keep two
//! daemons apart: that is the lock of [`crate::store`]. SQLite's write-ahead log lets readers in beside the
//! one writer (<https://www.sqlite.org/wal.html>).

mod copied;
mod error;
mod history;
mod log;
mod schema;
mod sharing;

use std::path::{Path, PathBuf};

use pleach_core::values::{Record, SignedChange};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

pub(crate) use error::JOIN_AGAIN;
pub use error::StateError;
pub use history::{Indexing, LogMoment};
pub use log::LogPage;

use history::Indexed;
use schema::{Table, checksum};
use sharing::Sharing;

/// After so many changes the document is saved anew, so that a start need not replay them.
pub const CHANGES_PER_SNAPSHOT: u64 = 2_000;

/// The facts kept about store and master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetaKey {
    /// Postcard: what the store's id is derived from, [`crate::identity::StoreSeed`].
    StoreSeed,
    /// 32 bytes: the store's id.
    StoreId,
    /// UTF-8: what people call the store.
    StoreName,
    /// 32 bytes: this master's key, to tell a key that was swapped.
    Master,
    /// UTF-8: what people call this master.
    MasterName,
    /// 32 bytes: the key of the master that founded the store.
    Founder,
    /// 16 random bytes, also in the file `.pleach/incarnation`: tells a root from a copy or a swap.
    Incarnation,
    /// Milliseconds since 1970, 8 bytes little endian: when this master joined or founded the store.
    Since,
    /// Postcard: the members that a joiner was told of, to find them at its first start.
    Introduction,
    /// Postcard: the addresses that this master last listened on.
    Listening,
    /// Inode number and birth of the database's file, 8 and 16 bytes little endian: tells it from a copy.
    File,
}

impl MetaKey {
    fn as_str(self) -> &'static str {
        match self {
            Self::StoreSeed => "store_seed",
            Self::StoreId => "store_id",
            Self::StoreName => "store_name",
            Self::Master => "master",
            Self::MasterName => "master_name",
            Self::Founder => "founder",
            Self::Incarnation => "incarnation",
            Self::Since => "since",
            Self::Introduction => "introduction",
            Self::Listening => "listening",
            Self::File => "file",
        }
    }
}

/// A row: its key, and what the engine keeps there.
pub type Row = (u64, Vec<u8>);

/// An invitation: its id, and what is kept of it.
pub type Invitation = (Vec<u8>, Vec<u8>);

/// An open state database.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    connection: Connection,
    indexed: Indexed,
}

/// The document as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDocument {
    /// The document as of some moment.
    pub snapshot: Option<Vec<u8>>,
    /// The changes since, in the order in which they were recorded.
    pub log: Vec<SignedChange>,
}

impl State {
    /// Makes the database at `path`, with these facts in it. It is durable when this returns, but for the
    /// entry in its directory, which is the caller's to sync.
    ///
    /// # Errors
    /// If something is at `path` already, or the disk will not have it.
    pub fn create(path: &Path, facts: &[(MetaKey, &[u8])]) -> Result<Self, StateError> {
        if path.symlink_metadata().is_ok() {
            return Err(StateError::Exists { path: path.to_owned() });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(error::at(path))?;
        let mut state = Self { path: path.to_owned(), connection, indexed: Indexed::All };
        state.set_pragmas()?;
        let transaction = state.connection.transaction().map_err(error::at(path))?;
        transaction.execute_batch(&schema::statements()).map_err(error::at(path))?;
        transaction.commit().map_err(error::at(path))?;
        state.index_log()?;
        state.set_meta(facts)?;
        state.remember_file()?;
        Ok(state)
    }

    /// Opens the database at `path` to read and write, and checks its structure and its whole log, which
    /// costs a read of both: what is damaged shall not be found when it is needed. The rows of the other
    /// tables are checked when they are loaded.
    ///
    /// # Errors
    /// If it is missing, not ours, of a newer version, damaged, or the system refuses.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut state =
            sharing::as_room_allows(path, |sharing| Self::open_with(path, flags, sharing))?;
        state.set_pragmas()?;
        state.check_structure()?;
        state.check_log()?;
        if let Err(error) = state.index_log() {
            if error.is_lasting() {
                return Err(error);
            }
            tracing::warn!(%error, "`log` and `restore` know of nothing new until the next start");
            state.indexed = Indexed::Behind;
        }
        Ok(state)
    }

    /// Opens the database at `path` only to read it, beside the daemon or without one. Whatever would
    /// write fails with [`StateError::System`].
    ///
    /// # Errors
    /// As [`State::open`].
    pub fn open_read_only(path: &Path) -> Result<Self, StateError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::open_with(path, flags, Sharing::WithReaders)
    }

    fn open_with(path: &Path, flags: OpenFlags, sharing: Sharing) -> Result<Self, StateError> {
        if path.symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
            return Err(StateError::Missing { path: path.to_owned() });
        }
        let connection = Connection::open_with_flags(path, flags).map_err(error::at(path))?;
        connection.busy_timeout(sharing.busy_timeout()).map_err(error::at(path))?;
        let state = Self { path: path.to_owned(), connection, indexed: Indexed::All };
        if sharing == Sharing::Alone {
            let alone = state.connection.pragma_update(None, "locking_mode", "EXCLUSIVE");
            alone.map_err(error::at(path))?;
        }
        let application: i64 = state.pragma("application_id")?;
        let version: i64 = state.pragma("user_version")?;
        if application != schema::APPLICATION_ID {
            return Err(StateError::NotOurs { path: path.to_owned() });
        }
        if version != schema::VERSION {
            return Err(StateError::Version {
                path: path.to_owned(),
                found: version,
                supported: schema::VERSION,
            });
        }
        Ok(state)
    }

    fn set_pragmas(&self) -> Result<(), StateError> {
        let set = |name: &str, value: &str| {
            self.connection.pragma_update(None, name, value).map_err(error::at(&self.path))
        };
        set("journal_mode", "WAL")?;
        set("synchronous", "FULL")?;
        set("cell_size_check", "ON")?;
        set("journal_size_limit", "67108864")?;
        self.connection.set_prepared_statement_cache_capacity(32);
        Ok(())
    }

    fn pragma(&self, name: &str) -> Result<i64, StateError> {
        self.connection
            .pragma_query_value(None, name, |row| row.get(0))
            .map_err(error::at(&self.path))
    }

    /// Where the database is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes `records` durable, all or none. Within one call, a later record of the same row wins.
    ///
    /// # Errors
    /// If the disk will not have them, and [`StateError::Sequence`] if a change is not the next one of its
    /// writer. Then nothing of `records` is there.
    pub fn commit(&mut self, records: &[Record]) -> Result<(), StateError> {
        if records.is_empty() {
            return Ok(());
        }
        let path = self.path.clone();
        let transaction = self.connection.transaction().map_err(error::at(&path))?;
        {
            let mut writer = schema::RecordWriter::new(&transaction, &path, self.indexed)?;
            records.iter().try_for_each(|record| writer.write(record))?;
        }
        transaction.commit().map_err(error::at(&path))
    }

    /// The rows of the base, by key as SQLite sorts it.
    ///
    /// # Errors
    /// If a row is damaged or can't be read.
    pub fn load_base(&self) -> Result<Vec<Row>, StateError> {
        self.rows(Table::Base)
    }

    /// The effects that were in flight.
    ///
    /// # Errors
    /// If a row is damaged or can't be read.
    pub fn intents(&self) -> Result<Vec<Row>, StateError> {
        self.rows(Table::Intents)
    }

    fn rows(&self, table: Table) -> Result<Vec<Row>, StateError> {
        let failed = error::at(&self.path);
        let sql = format!("SELECT id, row, checksum FROM {} ORDER BY id", table.name());
        let mut statement = self.connection.prepare_cached(&sql).map_err(&failed)?;
        let mut found = statement.query([]).map_err(&failed)?;
        let mut rows = Vec::new();
        while let Some(row) = found.next().map_err(&failed)? {
            let id: i64 = row.get(0).map_err(&failed)?;
            let bytes: Vec<u8> = row.get(1).map_err(&failed)?;
            let sum: i64 = row.get(2).map_err(&failed)?;
            if sum != checksum(table, &id.to_le_bytes(), &bytes) {
                return Err(self.damaged(format!("row {id} of table {}", table.name())));
            }
            rows.push((id.cast_unsigned(), bytes));
        }
        Ok(rows)
    }

    /// A fact, as it was set.
    ///
    /// # Errors
    /// If it is damaged or can't be read.
    pub fn meta(&self, key: MetaKey) -> Result<Option<Vec<u8>>, StateError> {
        self.keyed(Table::Meta, key.as_str().as_bytes())
    }

    /// A fact that is text.
    ///
    /// # Errors
    /// If it is damaged, not UTF-8, or can't be read.
    pub fn meta_text(&self, key: MetaKey) -> Result<Option<String>, StateError> {
        let bytes = self.meta(key)?;
        bytes
            .map(|bytes| {
                String::from_utf8(bytes)
                    .map_err(|_| self.damaged(format!("{} is not UTF-8", key.as_str())))
            })
            .transpose()
    }

    /// A fact of exactly `N` bytes.
    ///
    /// # Errors
    /// If it is damaged, of another length, or can't be read.
    pub fn meta_array<const N: usize>(&self, key: MetaKey) -> Result<Option<[u8; N]>, StateError> {
        let bytes = self.meta(key)?;
        bytes
            .map(|bytes| {
                <[u8; N]>::try_from(bytes)
                    .map_err(|_| self.damaged(format!("{} has not {N} bytes", key.as_str())))
            })
            .transpose()
    }

    /// Sets facts, all or none.
    ///
    /// # Errors
    /// If the disk will not have them.
    pub fn set_meta(&mut self, facts: &[(MetaKey, &[u8])]) -> Result<(), StateError> {
        let rows: Vec<_> = facts
            .iter()
            .map(|(key, value)| (key.as_str().as_bytes().to_vec(), Some(value.to_vec())))
            .collect();
        self.set_keyed(Table::Meta, &rows)
    }

    /// The invitations: their ids and what is kept of them.
    ///
    /// # Errors
    /// If one is damaged or can't be read.
    pub fn invitations(&self) -> Result<Vec<Invitation>, StateError> {
        let failed = error::at(&self.path);
        let sql = "SELECT id FROM invitations ORDER BY id";
        let mut statement = self.connection.prepare_cached(sql).map_err(&failed)?;
        let ids: Vec<Vec<u8>> = statement
            .query_map([], |row| row.get(0))
            .and_then(Iterator::collect)
            .map_err(&failed)?;
        let mut rows = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(row) = self.invitation(&id)? {
                rows.push((id, row));
            }
        }
        Ok(rows)
    }

    /// One invitation.
    ///
    /// # Errors
    /// If it is damaged or can't be read.
    pub fn invitation(&self, id: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.keyed(Table::Invitations, id)
    }

    /// Sets an invitation, or removes it. It is durable when this returns.
    ///
    /// # Errors
    /// If the disk will not have it.
    pub fn set_invitation(&mut self, id: &[u8], row: Option<&[u8]>) -> Result<(), StateError> {
        self.set_keyed(Table::Invitations, &[(id.to_vec(), row.map(<[u8]>::to_vec))])
    }

    fn keyed(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let failed = error::at(&self.path);
        let sql = format!("SELECT row, checksum FROM {} WHERE id = ?1", table.name());
        let found: Option<(Vec<u8>, i64)> = self
            .connection
            .prepare_cached(&sql)
            .and_then(|mut statement| {
                statement.query_row([key], |row| Ok((row.get(0)?, row.get(1)?))).optional()
            })
            .map_err(&failed)?;
        match found {
            Some((row, sum)) if sum == checksum(table, key, &row) => Ok(Some(row)),
            Some(_) => Err(self.damaged(format!("a row of table {}", table.name()))),
            None => Ok(None),
        }
    }

    fn set_keyed(
        &mut self,
        table: Table,
        rows: &[(Vec<u8>, Option<Vec<u8>>)],
    ) -> Result<(), StateError> {
        let failed = error::at(&self.path);
        let transaction = self.connection.transaction().map_err(&failed)?;
        let set = format!("REPLACE INTO {} (id, row, checksum) VALUES (?1, ?2, ?3)", table.name());
        let remove = format!("DELETE FROM {} WHERE id = ?1", table.name());
        for (key, row) in rows {
            match row {
                Some(row) => {
                    transaction.execute(&set, params![key, row, checksum(table, key, row)])
                }
                None => transaction.execute(&remove, params![key]),
            }
            .map_err(&failed)?;
        }
        transaction.commit().map_err(&failed)
    }

    /// The document's snapshot and the position in the log up to which it covers.
    ///
    /// # Errors
    /// If it is damaged or can't be read.
    pub fn load_snapshot(&self) -> Result<Option<(Vec<u8>, u64)>, StateError> {
        let found: Option<(Vec<u8>, i64, i64)> = self
            .connection
            .query_row("SELECT row, position, checksum FROM snapshot", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()
            .map_err(error::at(&self.path))?;
        match found {
            Some((document, position, sum))
                if sum == checksum(Table::Snapshot, &position.to_le_bytes(), &document) =>
            {
                Ok(Some((document, position.cast_unsigned())))
            }
            Some(_) => Err(self.damaged("the document's snapshot".to_owned())),
            None => Ok(None),
        }
    }

    /// How far in the log the saved document goes; 0 without one.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn snapshot_position(&self) -> Result<u64, StateError> {
        self.connection
            .query_row("SELECT position FROM snapshot", [], |row| row.get::<_, i64>(0))
            .optional()
            .map(|position| position.unwrap_or(0).cast_unsigned())
            .map_err(error::at(&self.path))
    }

    /// What the document is made of. The log has all changes there ever were, so that it takes the place of
    /// a snapshot that is damaged, at the cost of replaying it.
    ///
    /// # Errors
    /// If the log is damaged, or either can't be read.
    pub fn load_document(&self) -> Result<StoredDocument, StateError> {
        let (snapshot, position) = match self.load_snapshot() {
            Ok(Some((snapshot, position))) => (Some(snapshot), position),
            Ok(None) => (None, 0),
            Err(damage @ StateError::Damaged { .. }) => {
                tracing::warn!(%damage, "the document is made anew from the log");
                (None, 0)
            }
            Err(error) => return Err(error),
        };
        Ok(StoredDocument { snapshot, log: self.changes_since(position)? })
    }

    /// Puts `document` in the place of the old snapshot; it covers the log up to `position`.
    ///
    /// # Errors
    /// If the disk will not have it. Then the old one stays.
    pub fn store_snapshot(&mut self, document: &[u8], position: u64) -> Result<(), StateError> {
        let position = position.cast_signed();
        let sum = checksum(Table::Snapshot, &position.to_le_bytes(), document);
        self.connection
            .execute(
                "REPLACE INTO snapshot (id, row, position, checksum) VALUES (0, ?1, ?2, ?3)",
                params![document, position, sum],
            )
            .map_err(error::at(&self.path))?;
        // A large snapshot leaves a large write-ahead log behind; a reader may hold it, then later.
        let checkpointed: Result<i64, _> =
            self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        match checkpointed {
            Ok(_) => Ok(()),
            Err(e) if error::is_busy(&e) => Ok(()),
            Err(e) => Err(error::at(&self.path)(e)),
        }
    }

    /// Reads everything and checks it: the database's structure, every row's checksum, the log's order.
    /// Costs a read of the whole database.
    ///
    /// # Errors
    /// [`StateError::Damaged`] for the first thing found wrong.
    pub fn check(&self) -> Result<(), StateError> {
        self.check_structure()?;
        self.load_base()?;
        self.intents()?;
        self.invitations()?;
        self.load_snapshot()?;
        self.check_log()
    }

    /// Pages, cells and indices, but not what is in the rows.
    fn check_structure(&self) -> Result<(), StateError> {
        let verdict: String = self
            .connection
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
            .map_err(error::at(&self.path))?;
        match verdict.as_str() {
            "ok" => Ok(()),
            _ if error::is_unreadable(&self.path) => {
                let source = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
                let source = rusqlite::Error::SqliteFailure(source, Some(verdict));
                Err(StateError::DiskFails { path: self.path.clone(), source })
            }
            _ => Err(self.damaged(verdict.lines().collect::<Vec<_>>().join(" "))),
        }
    }

    fn damaged(&self, what: String) -> StateError {
        StateError::Damaged { path: self.path.clone(), what }
    }
}

#[cfg(test)]
mod tests;
