use std::collections::BTreeMap;

use pleach_core::values::{ChangeId, Record, Signature, SignedChange};
use pleach_core::vocabulary::{MasterId, VersionVector, WriterId};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn change(writer: u8, sequence: u64, size: usize) -> SignedChange {
    SignedChange {
        id: ChangeId { writer: WriterId([writer; 16]), sequence },
        author: MasterId([writer; 32]),
        bytes: vec![sequence as u8; size],
        signature: Signature::new(&[writer; 64]),
    }
}

fn base(id: u64, row: &[u8]) -> Record {
    Record::Base { id, row: Some(row.to_vec()) }
}

fn fresh() -> (TempDir, PathBuf, State) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("state.db");
    let state = State::create(&path, &[(MetaKey::MasterName, b"web1")]).unwrap();
    (dir, path, state)
}

#[test]
fn what_was_committed_is_there_after_a_reopening() {
    let (_dir, path, mut state) = fresh();
    let big = u64::MAX - 1;
    state
        .commit(&[
            Record::Change(change(1, 1, 10)),
            base(1, b"one"),
            base(big, b"big"),
            Record::Intent { id: 4, row: Some(b"four".to_vec()) },
        ])
        .unwrap();
    state.commit(&[base(1, b"uno"), Record::Intent { id: 4, row: None }]).unwrap();
    state.set_invitation(b"id", Some(b"open")).unwrap();
    state.store_snapshot(b"document", 1).unwrap();
    // As after kill -9: nothing is closed, and the write-ahead log is still there.
    std::mem::forget(state);

    let state = State::open(&path).unwrap();
    let rows: BTreeMap<_, _> = state.load_base().unwrap().into_iter().collect();
    assert_eq!(rows, BTreeMap::from([(1, b"uno".to_vec()), (big, b"big".to_vec())]));
    assert_eq!(state.intents().unwrap(), vec![]);
    assert_eq!(state.invitation(b"id").unwrap().as_deref(), Some(&b"open"[..]));
    assert_eq!(state.load_snapshot().unwrap(), Some((b"document".to_vec(), 1)));
    assert_eq!(state.meta_text(MetaKey::MasterName).unwrap().as_deref(), Some("web1"));
    assert_eq!(state.meta(MetaKey::Founder).unwrap(), None);
    assert_eq!(state.changes_since(0).unwrap(), vec![change(1, 1, 10)]);
    assert_eq!(state.changes_since(1).unwrap(), vec![]);
    state.check().unwrap();
}

#[test]
fn commit_with_a_gap_in_the_sequence_leaves_nothing_behind() {
    let (_dir, _path, mut state) = fresh();
    let refused = state.commit(&[base(1, b"row"), Record::Change(change(1, 2, 1))]);
    assert!(matches!(refused, Err(StateError::Sequence { .. })), "{refused:?}");
    assert_eq!(state.load_base().unwrap(), vec![]);
    state.commit(&[Record::Change(change(1, 1, 1))]).unwrap();
    let again = state.commit(&[Record::Change(change(1, 1, 1))]);
    assert!(matches!(again, Err(StateError::Sequence { .. })), "{again:?}");
}

#[test]
fn reader_sees_what_the_writer_commits_and_writes_nothing() {
    let (_dir, path, mut state) = fresh();
    let mut reader = State::open_read_only(&path).unwrap();
    state.commit(&[base(1, b"row")]).unwrap();
    assert_eq!(reader.load_base().unwrap(), vec![(1, b"row".to_vec())]);
    assert!(matches!(reader.commit(&[base(2, b"row")]), Err(StateError::System { .. })));
}

#[test]
fn disk_that_fails_is_no_damage_even_while_a_statement_is_prepared() {
    let io_error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_READ);
    let (msg, sql) = ("disk I/O error".to_owned(), "SELECT row FROM base".to_owned());
    let path = Path::new("state.db");
    for failure in [
        rusqlite::Error::SqlInputError { error: io_error, msg, sql, offset: -1 },
        rusqlite::Error::SqliteFailure(io_error, None),
    ] {
        let said = error::at(path)(failure);
        assert!(matches!(said, StateError::DiskFails { .. }), "{said:?}");
        assert!(!said.is_lasting());
        assert!(said.to_string().contains("a restart of the daemon is enough"), "{said}");
    }
    let too_short = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_SHORT_READ);
    let said = error::at(path)(rusqlite::Error::SqliteFailure(too_short, None));
    assert!(matches!(said, StateError::Damaged { .. }), "{said:?}");
}

#[test]
fn what_is_no_state_of_ours_is_told_apart() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("state.db");
    assert!(matches!(State::open(&path), Err(StateError::Missing { .. })));
    std::fs::write(&path, b"not a database, and long enough to be read as one, surely".repeat(20))
        .unwrap();
    assert!(matches!(State::open(&path), Err(StateError::Damaged { .. })));
    assert!(matches!(State::create(&path, &[]), Err(StateError::Exists { .. })));

    let other = dir.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(matches!(State::open(&other), Err(StateError::NotOurs { .. })));

    let newer = dir.path().join("newer.db");
    drop(State::create(&newer, &[]).unwrap());
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 9).unwrap();
    assert!(matches!(State::open(&newer), Err(StateError::Version { found: 9, .. })));
}

#[test]
fn changed_rows_are_damage() {
    for spoil in [
        "UPDATE base SET row = x'00' WHERE id = 1",
        "UPDATE intents SET id = 7",
        "UPDATE log SET bytes = x'00' WHERE position = 1",
        "UPDATE log SET author = x'00' WHERE position = 2",
        "DELETE FROM log WHERE position = 1",
        "UPDATE snapshot SET position = 7",
        "UPDATE invitations SET row = x'00'",
    ] {
        let (_dir, path, mut state) = fresh();
        state.commit(&[base(1, b"row"), Record::Intent { id: 1, row: Some(vec![1]) }]).unwrap();
        state.commit(&[change(1, 1, 5), change(1, 2, 5)].map(Record::Change)).unwrap();
        state.store_snapshot(b"document", 2).unwrap();
        state.set_invitation(b"id", Some(b"open")).unwrap();
        state.check().unwrap();
        drop(state);
        Connection::open(&path).unwrap().execute_batch(spoil).unwrap();
        let found = State::open(&path).and_then(|state| state.check());
        assert!(matches!(found, Err(StateError::Damaged { .. })), "{spoil}: {found:?}");
    }
}

#[test]
fn damaged_snapshot_is_made_up_for_by_the_whole_log() {
    let (_dir, path, mut state) = fresh();
    let log = [change(1, 1, 5), change(1, 2, 5), change(2, 1, 5)];
    state.commit(&log[..2].iter().cloned().map(Record::Change).collect::<Vec<_>>()).unwrap();
    state.store_snapshot(b"document", 2).unwrap();
    state.commit(&[Record::Change(log[2].clone())]).unwrap();
    let stored = state.load_document().unwrap();
    assert_eq!(stored.snapshot.as_deref(), Some(&b"document"[..]));
    assert_eq!(stored.log, log[2..]);
    drop(state);
    let spoil = "UPDATE snapshot SET row = x'00'";
    Connection::open(&path).unwrap().execute_batch(spoil).unwrap();
    let state = State::open(&path).unwrap();
    let rebuilt = StoredDocument { snapshot: None, log: log.to_vec() };
    assert_eq!(state.load_document().unwrap(), rebuilt);
}

#[test]
fn who_is_alone_waits_for_readers_to_go_and_needs_no_file_for_them() {
    let (_dir, path, mut state) = fresh();
    state.commit(&[base(1, b"row")]).unwrap();
    drop(state);
    let reader = State::open_read_only(&path).unwrap();
    reader.load_base().unwrap();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || State::open_with(&path, flags, Sharing::Alone);
    assert!(open().is_err(), "SQLite does not wait");
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| sharing::alone(open));
        drop(reader);
        opening.join().unwrap().unwrap();
    });
    // What the reader has left is not used, and not made again.
    let shared = path.with_file_name("state.db-shm");
    let _ = std::fs::remove_file(&shared);
    let mut state = open().unwrap();
    state.commit(&[base(2, b"another")]).unwrap();
    assert_eq!(state.load_base().unwrap().len(), 2);
    assert!(!shared.exists());
}

#[test]
fn bytes_flipped_anywhere_in_the_file_never_panic_and_never_change_a_row() {
    let (_dir, path, mut state) = fresh();
    let rows: Vec<_> = (0..200).map(|id| base(id, &[id as u8; 100])).collect();
    state.commit(&rows).unwrap();
    state.commit(&(1..100).map(|s| Record::Change(change(1, s, 50))).collect::<Vec<_>>()).unwrap();
    let whole_base = state.load_base().unwrap();
    drop(state);
    let sound = std::fs::read(&path).unwrap();
    let mut noticed = 0;
    for offset in (0..sound.len()).step_by(997) {
        let mut spoilt = sound.clone();
        spoilt[offset] ^= 0x55;
        std::fs::write(&path, &spoilt).unwrap();
        let Ok(state) = State::open(&path) else {
            noticed += 1;
            continue;
        };
        match state.check().and_then(|()| state.load_base()) {
            Ok(rows) => assert_eq!(rows, whole_base, "offset {offset}"),
            Err(_) => noticed += 1,
        }
    }
    assert!(noticed > 20, "{noticed} of {} noticed", sound.len() / 997);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn pages_of_the_log_add_up_to_what_was_lacking_in_order(
        writers in prop::collection::vec(0u8..5, 0..60),
        known in prop::collection::vec(0u64..20, 5),
        bytes_max in 1usize..2_000,
    ) {
        let (_dir, _path, mut state) = fresh();
        let mut sequences = [0u64; 5];
        let log: Vec<_> = writers
            .iter()
            .map(|&writer| {
                sequences[usize::from(writer)] += 1;
                change(writer, sequences[usize::from(writer)], usize::from(writer) * 90)
            })
            .collect();
        state.commit(&log.iter().cloned().map(Record::Change).collect::<Vec<_>>()).unwrap();

        let mut asker: VersionVector =
            known.iter().enumerate().map(|(w, &n)| (WriterId([w as u8; 16]), n)).collect();
        let expected: Vec<_> = log
            .iter()
            .filter(|change| change.id.sequence > asker.last(change.id.writer))
            .cloned()
            .collect();
        let mut served = Vec::new();
        loop {
            let page = state.log_after(&asker, bytes_max).unwrap();
            let size: usize = page.changes.iter().map(|c| c.bytes.len()).sum();
            prop_assert!(size <= bytes_max || page.changes.len() == 1);
            prop_assert!(page.complete || !page.changes.is_empty());
            asker = page.known;
            served.extend(page.changes);
            if page.complete {
                break;
            }
        }
        prop_assert_eq!(served, expected);
        let has: VersionVector = state.log_vector().unwrap();
        prop_assert!(asker.covers(&has));
    }
}

/// Not a measurement, a guard against a statement per row that is prepared anew or a commit per row.
#[test]
fn large_commit_is_one_transaction() {
    let (_dir, _path, mut state) = fresh();
    let rows: Vec<_> = (0..20_000).map(|id| base(id, &[7; 160])).collect();
    state.commit(&rows).unwrap();
    assert_eq!(state.load_base().unwrap().len(), 20_000);
}
