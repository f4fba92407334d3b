//! The index of the log: which change is about what, and when it was made, for `log` and its kin.
//!
//! It is made from the log alone, so its rows carry no checksums: what is in doubt is made anew. Each change's
//! row is written with the change; changes that came without (from a version that knew no index, or while
//! there was no room for it) are caught up with when the database is opened.

use pleach_core::replica::gate;
use pleach_core::values::{ChangeId, Mark, Moved, SignedChange};
use pleach_core::vocabulary::{MasterId, NodeId};
use rusqlite::{CachedStatement, OptionalExtension, Transaction, params};

use super::error;
use super::{State, StateError};

/// How many changes are caught up with in one transaction, and how many bytes they may have.
const CAUGHT_UP_MAX: u64 = 1_000;
const CAUGHT_UP_BYTES_MAX: usize = 8 << 20;

const NODE_BYTES: usize = 16;

/// How many nodes one page of the index names, beyond those of its last change.
const NODES_PER_PAGE_MAX: usize = 100_000;

/// What makes the index. It is no part of the layout's version: who does not know it leaves it as it is, and
/// it is caught up with afterwards.
const STATEMENTS: &str = "
    CREATE TABLE IF NOT EXISTS history (position INTEGER PRIMARY KEY, time INTEGER NOT NULL,
        moved INTEGER NOT NULL, nodes BLOB NOT NULL) STRICT;
    CREATE INDEX IF NOT EXISTS history_by_time ON history (time, position);
    CREATE TABLE IF NOT EXISTS touched (node BLOB NOT NULL, time INTEGER NOT NULL,
        position INTEGER NOT NULL, PRIMARY KEY (node, time, position)) STRICT, WITHOUT ROWID;";

/// Whether the index has all that the log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Indexed {
    All,
    /// It could not be written: it stays as it is until the next start.
    Behind,
}

/// A change in the order in which people read the log: by time, then by when it was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogMoment {
    /// When its author made it, in milliseconds since 1970.
    pub time_ms: i64,
    /// Its position in the log.
    pub position: u64,
}

impl LogMoment {
    /// Later than all.
    pub const LAST: Self = Self { time_ms: i64::MAX, position: i64::MAX as u64 };
}

/// A change in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indexing {
    /// Which.
    pub at: LogMoment,
    /// Whether it gave nodes other places.
    pub moved: Moved,
    /// What it is about, as [`Mark::nodes`] has it.
    pub nodes: Vec<NodeId>,
}

impl State {
    /// Makes the index if there is none, and catches up with the log.
    pub(super) fn index_log(&mut self) -> Result<(), StateError> {
        self.connection.execute_batch(STATEMENTS).map_err(error::at(&self.path))?;
        loop {
            let path = self.path.clone();
            let failed = error::at(&path);
            let sql = "SELECT coalesce(max(position), 0) FROM history";
            let indexed: i64 =
                self.connection.query_row(sql, [], |row| row.get(0)).map_err(&failed)?;
            let (mut marks, mut bytes) = (Vec::new(), 0);
            for position in indexed.cast_unsigned() + 1..=indexed.cast_unsigned() + CAUGHT_UP_MAX {
                if bytes > CAUGHT_UP_BYTES_MAX || position > self.log_position()? {
                    break;
                }
                let change = self.change_at(position)?;
                bytes += change.bytes.len();
                marks.push((position, mark_of(&change)));
            }
            if marks.is_empty() {
                return Ok(());
            }
            let transaction = self.connection.transaction().map_err(&failed)?;
            {
                let mut writer = MarkWriter::new(&transaction).map_err(&failed)?;
                for (position, mark) in &marks {
                    writer.insert(position.cast_signed(), mark).map_err(&failed)?;
                }
            }
            transaction.commit().map_err(&failed)?;
        }
    }

    /// Whether there is an index: a database that was only opened to read may have none yet.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn has_index(&self) -> Result<bool, StateError> {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE name IN ('history', 'touched')";
        let found: i64 =
            self.connection.query_row(sql, [], |row| row.get(0)).map_err(error::at(&self.path))?;
        Ok(found == 2)
    }

    /// The changes before `before` and not before `since_ms`, the newest first, at most `count`, and fewer if
    /// they are about very many nodes: none are left once there are none on a page.
    ///
    /// # Errors
    /// If the index can't be read.
    pub fn history(
        &self,
        before: LogMoment,
        since_ms: i64,
        count: usize,
    ) -> Result<Vec<Indexing>, StateError> {
        let failed = error::at(&self.path);
        let sql = "SELECT time, position, moved, nodes FROM history
                   WHERE (time, position) < (?1, ?2) AND time >= ?3
                   ORDER BY time DESC, position DESC LIMIT ?4";
        let mut statement = self.connection.prepare_cached(sql).map_err(&failed)?;
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let bounds = params![before.time_ms, before.position.cast_signed(), since_ms, count];
        let mut rows = statement.query(bounds).map_err(&failed)?;
        let (mut page, mut named) = (Vec::new(), 0);
        while named < NODES_PER_PAGE_MAX
            && let Some(row) = rows.next().map_err(&failed)?
        {
            let change = indexing(row).map_err(&failed)?;
            named += change.nodes.len();
            page.push(change);
        }
        Ok(page)
    }

    /// The changes that are about `node`, its birth not among them, with the same bounds.
    ///
    /// # Errors
    /// If the index can't be read.
    pub fn history_of(
        &self,
        node: NodeId,
        before: LogMoment,
        since_ms: i64,
        count: usize,
    ) -> Result<Vec<LogMoment>, StateError> {
        let failed = error::at(&self.path);
        let sql = "SELECT time, position FROM touched
                   WHERE node = ?1 AND (time, position) < (?2, ?3) AND time >= ?4
                   ORDER BY time DESC, position DESC LIMIT ?5";
        let mut statement = self.connection.prepare_cached(sql).map_err(&failed)?;
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let position = before.position.cast_signed();
        let rows = statement.query_map(
            params![node.as_bytes(), before.time_ms, position, since_ms, count],
            |row| {
                let position = row.get::<_, i64>(1)?.cast_unsigned();
                Ok(LogMoment { time_ms: row.get(0)?, position })
            },
        );
        rows.and_then(Iterator::collect).map_err(&failed)
    }

    /// Where a change is in the log, if it is there and in the index.
    ///
    /// # Errors
    /// If the log can't be read.
    pub fn moment_of(&self, change: ChangeId) -> Result<Option<LogMoment>, StateError> {
        let failed = error::at(&self.path);
        let sql = "SELECT history.time, history.position FROM log
                   JOIN history ON history.position = log.position
                   WHERE writer = ?1 AND sequence = ?2";
        let mut statement = self.connection.prepare_cached(sql).map_err(&failed)?;
        let id = params![change.writer.as_bytes(), change.sequence.cast_signed()];
        let found = statement.query_row(id, |row| {
            let position = row.get::<_, i64>(1)?.cast_unsigned();
            Ok(LogMoment { time_ms: row.get(0)?, position })
        });
        found.optional().map_err(&failed)
    }

    /// Who made the change at this position of the log; none if there is none.
    ///
    /// # Errors
    /// If the log can't be read.
    pub fn author_at(&self, position: u64) -> Result<Option<MasterId>, StateError> {
        let failed = error::at(&self.path);
        let mut statement = self
            .connection
            .prepare_cached("SELECT author FROM log WHERE position = ?1")
            .map_err(&failed)?;
        let found = statement.query_row([position.cast_signed()], |row| row.get(0));
        let found: Option<[u8; 32]> = found.optional().map_err(&failed)?;
        Ok(found.map(MasterId))
    }
}

fn indexing(row: &rusqlite::Row<'_>) -> Result<Indexing, rusqlite::Error> {
    let position = row.get::<_, i64>(1)?.cast_unsigned();
    let at = LogMoment { time_ms: row.get(0)?, position };
    let moved = if row.get::<_, i64>(2)? == 0 { Moved::Nothing } else { Moved::Something };
    let nodes: Vec<u8> = row.get(3)?;
    let (nodes, _) = nodes.as_chunks::<NODE_BYTES>();
    Ok(Indexing { at, moved, nodes: nodes.iter().map(|id| NodeId(*id)).collect() })
}

/// A change that can't be read is about nothing that could be told.
fn mark_of(change: &SignedChange) -> Mark {
    gate::mark(&change.bytes).unwrap_or(Mark {
        change: change.id,
        time_ms: 0,
        nodes: Vec::new(),
        moved: Moved::Nothing,
    })
}

/// Writes rows of the index within one transaction.
pub(super) struct MarkWriter<'t> {
    position: CachedStatement<'t>,
    history: CachedStatement<'t>,
    touched: CachedStatement<'t>,
}

impl<'t> MarkWriter<'t> {
    pub(super) fn new(transaction: &'t Transaction<'_>) -> Result<Self, rusqlite::Error> {
        let prepare = |sql| transaction.prepare_cached(sql);
        Ok(Self {
            position: prepare("SELECT position FROM log WHERE writer = ?1 AND sequence = ?2")?,
            history: prepare(
                "REPLACE INTO history (position, time, moved, nodes) VALUES (?1, ?2, ?3, ?4)",
            )?,
            touched: prepare("REPLACE INTO touched (node, time, position) VALUES (?1, ?2, ?3)")?,
        })
    }

    /// Notes what a change is about that has been written before.
    pub(super) fn write(&mut self, mark: &Mark) -> Result<(), rusqlite::Error> {
        let id = params![mark.change.writer.as_bytes(), mark.change.sequence.cast_signed()];
        match self.position.query_row(id, |row| row.get(0)).optional()? {
            Some(position) => self.insert(position, mark),
            // Then its change comes later, and is caught up with.
            None => Ok(()),
        }
    }

    fn insert(&mut self, position: i64, mark: &Mark) -> Result<(), rusqlite::Error> {
        let nodes: Vec<u8> = mark.nodes.iter().flat_map(|node| node.0).collect();
        let moved = i64::from(mark.moved == Moved::Something);
        self.history.execute(params![position, mark.time_ms, moved, nodes])?;
        for node in &mark.nodes {
            self.touched.execute(params![node.as_bytes(), mark.time_ms, position])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use pleach_core::replica::Replica;
    use pleach_core::values::{
        Act, Acts, Body, DirectoryIndex, DirectoryRef, Record, SeenDirectory, Signature,
    };
    use pleach_core::vocabulary::{Mode, Name, Timestamp, WriterId};
    use tempfile::TempDir;

    use super::*;

    /// A store's changes: each makes a directory in the root, at the time of its number.
    fn changes(count: i64) -> (Replica, Vec<SignedChange>, Vec<Mark>) {
        let author = MasterId([1; 32]);
        let mut replica = Replica::new(WriterId::new(author, [7; 8]));
        let (mut changes, mut marks) = (Vec::new(), Vec::new());
        for number in 1..=count {
            replica.set_time(number);
            let root = SeenDirectory { parent: None, directory: DirectoryRef::Root };
            let act = Act::Create {
                directory: DirectoryIndex(0),
                name: Name::try_from(&*format!("d{number}")).unwrap(),
                body: Body::Directory { mtime: Timestamp::default() },
                mode: Mode::new(0o755),
                owner: None,
                xattrs: Default::default(),
            };
            let (local, _) = replica.perform(&Acts { directories: vec![root], acts: vec![act] });
            let signature = Signature::new(&[0; 64]);
            changes.extend(local.changes.into_iter().map(|change| SignedChange {
                id: change.id,
                author,
                bytes: change.bytes,
                signature,
            }));
            marks.extend(local.marks);
        }
        (replica, changes, marks)
    }

    #[test]
    fn index_is_the_same_written_with_the_changes_and_caught_up_with() {
        let dir = TempDir::new().unwrap();
        let (_, changes, marks) = changes(30);
        let (with, without) = (dir.path().join("with"), dir.path().join("without"));
        let mut state = State::create(&with, &[]).unwrap();
        let records = changes.iter().cloned().map(Record::Change);
        let records: Vec<_> = records.chain(marks.into_iter().map(Record::Mark)).collect();
        state.commit(&records).unwrap();
        let mut late = State::create(&without, &[]).unwrap();
        late.commit(&records[..30]).unwrap();
        assert_eq!(late.history(LogMoment::LAST, 0, 100).unwrap(), []);
        // As an older version leaves it.
        late.connection.execute_batch("DROP TABLE history; DROP TABLE touched").unwrap();
        assert!(!late.has_index().unwrap());
        drop(late);
        let late = State::open(&without).unwrap();
        let all = state.history(LogMoment::LAST, 0, 100).unwrap();
        assert_eq!(all.len(), 30);
        assert_eq!(late.history(LogMoment::LAST, 0, 100).unwrap(), all);
        let of_root = |state: &State| state.history_of(NodeId::ROOT, LogMoment::LAST, 0, 100);
        assert_eq!(of_root(&late).unwrap().len(), 30);
        assert_eq!(of_root(&late).unwrap(), of_root(&state).unwrap());
    }

    #[test]
    fn pages_go_back_in_time_as_far_as_asked() {
        let dir = TempDir::new().unwrap();
        let (_, changes, marks) = changes(30);
        let mut state = State::create(&dir.path().join("state.db"), &[]).unwrap();
        let records = changes.iter().cloned().map(Record::Change);
        state
            .commit(&records.chain(marks.into_iter().map(Record::Mark)).collect::<Vec<_>>())
            .unwrap();
        let (mut before, mut times) = (LogMoment::LAST, Vec::new());
        loop {
            let page = state.history(before, 11, 7).unwrap();
            let Some(last) = page.last() else { break };
            before = last.at;
            times.extend(page.iter().map(|row| row.at.time_ms));
        }
        assert_eq!(times, (11..=30).rev().collect::<Vec<_>>());
        let last = state.moment_of(changes[29].id).unwrap().unwrap();
        assert_eq!(last, LogMoment { time_ms: 30, position: 30 });
        assert_eq!(state.author_at(30).unwrap(), Some(changes[29].author));
        assert_eq!(state.author_at(31).unwrap(), None);
    }

    #[test]
    fn index_that_has_no_room_stays_behind_without_a_gap() {
        let dir = TempDir::new().unwrap();
        let (_, changes, marks) = changes(3);
        let path = dir.path().join("state.db");
        let mut state = State::create(&path, &[]).unwrap();
        state.commit(&[Record::Change(changes[0].clone())]).unwrap();
        state.indexed = Indexed::Behind;
        state
            .commit(&[Record::Change(changes[1].clone()), Record::Mark(marks[1].clone())])
            .unwrap();
        assert_eq!(state.history(LogMoment::LAST, 0, 9).unwrap(), []);
        drop(state);
        let state = State::open(&path).unwrap();
        assert_eq!(state.history(LogMoment::LAST, 0, 9).unwrap().len(), 2);
    }
}
