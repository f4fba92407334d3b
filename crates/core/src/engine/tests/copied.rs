//! What becomes of a state that was copied to where it is.

use super::*;

#[test]
fn what_differs_from_a_restored_state_replaces_nothing_of_a_conflict() {
    let mut bench = with_a_conflict();
    let standing = bench.content_at(&path("f")).expect("one of them stands");
    let backup = bench.stored();
    // As an effect for another master's change, of which the backup does not know.
    assert!(bench.disk.save(&path("f"), b"newer than the backup"));
    bench.start_on_copy(backup);
    let open = bench.engine.replica().conflicts();
    let versions: Vec<Body> =
        open.iter().flat_map(|open| &open.versions).map(|version| version.body.clone()).collect();
    assert!(
        versions.iter().any(|body| matches!(body, Body::File(f) if f.hash == standing)),
        "{versions:?}"
    );
    assert_eq!(versions.len(), 3, "{versions:?}");
    assert!(bench.stored().intents.is_empty(), "that was taken in");
    edit(&mut bench, "g", b"edited");
    assert_eq!(bench.engine.replica().conflicts().len(), 1, "and an edit is an edit again");
}

#[test]
fn conflict_that_was_opened_after_the_backup_stays_open_when_the_others_tell_of_it() {
    let mut bench = with_two_files();
    let directory = DirectoryIndex(0);
    let content =
        FileContent { hash: ContentHash::of(b"theirs"), size: 6, mtime: Timestamp::default() };
    let changes = done_there(&bench, "f", |_| {
        [Act::Create {
            directory,
            name: Name::new(*b"n").unwrap(),
            body: Body::File(content),
            mode: Mode::new(0o644),
            owner: None,
            xattrs: Xattrs::new(),
        }]
    });
    // Later than the other, which keeps the name.
    edit(&mut bench, "g", b"edited");
    edit(&mut bench, "n", b"mine");
    let backup = bench.stored();
    let contents = vec![(content.hash, b"theirs".to_vec())];
    bench.handle(Input::Received(MasterId([2; 32]), Message::Changes { changes, contents }));
    bench.pass(10_000);
    let open = bench.engine.replica().conflicts();
    assert_eq!(open.len(), 1);
    assert_eq!(bench.content_at(&path("n")), Some(content.hash));

    let log = bench.log();
    bench.start_on_copy_among(backup, log);
    assert_eq!(bench.engine.replica().conflicts(), open);
    assert!(bench.stored().intents.is_empty(), "that was taken in");
}

#[test]
fn what_differs_from_the_restored_state_of_a_single_master_is_an_edit() {
    let mut bench = Bench::new();
    assert!(bench.disk.write(&path("f"), b"old"));
    bench.handle(Input::Hints(vec![Hint::Subtree(TreePath::root())]));
    bench.pass(10_000);
    let backup = bench.stored();
    edit(&mut bench, "f", b"new");
    bench.start_on_copy(backup);
    assert_eq!(bench.engine.replica().conflicts(), []);
    assert_eq!(bench.content_at(&path("f")), Some(ContentHash::of(b"new")));
    assert!(bench.stored().intents.is_empty());
}

#[test]
fn disputed_file_that_is_missing_on_a_copied_machine_is_not_removed() {
    let mut bench = with_a_conflict();
    let standing = bench.content_at(&path("f")).expect("one of them stands");
    let node = bench.engine.replica().tree().lookup(&path("f")).expect("it was looked at");
    let copied = bench.stored();
    // Renamed before the first look: on the copy it has another inode than the base knows.
    assert!(bench.disk.remove(&path("f")));
    assert!(bench.disk.remove(&path("g")));
    assert!(bench.disk.write(&path("renamed"), b"mine"));
    bench.start_on_copy(copied);
    assert_eq!(bench.engine.replica().tree().lookup(&path("f")), Some(node));
    assert!(bench.engine.replica().tree().lookup(&path("renamed")).is_some());
    assert_eq!(bench.engine.replica().tree().lookup(&path("g")), None, "of it nobody disputes");
    assert!(bench.content_at(&path("f")) == Some(standing), "it is to be put back");
}
