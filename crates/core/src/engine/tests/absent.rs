//! What is not found, or can't be looked at.

use super::*;

/// Two directories, `d` with two files in it, and `e`, and `d/f` renamed to `e/g` while `e` can't be looked into.
fn renamed_to_where_nobody_can_look() -> (Bench, NodeId) {
    let mut bench = Bench::new();
    assert!(bench.disk.make_directory(&path("d")));
    assert!(bench.disk.make_directory(&path("e")));
    assert!(bench.disk.write(&path("d/f"), b"one"));
    assert!(bench.disk.write(&path("d/other"), b"other"));
    bench.handle(Input::Hints(vec![Hint::Subtree(TreePath::root())]));
    bench.pass(10_000);
    let node = bench.engine.replica().tree().lookup(&path("d/f")).expect("it was looked at");
    bench.disk.close(path("e"));
    bench.rename("d/f", "e/g");
    (bench, node)
}

#[test]
fn file_renamed_to_where_nobody_could_look_for_a_moment_is_the_same_file() {
    for ms in [45, 100, 500, 2_500] {
        let (mut bench, node) = renamed_to_where_nobody_can_look();
        bench.pass(ms);
        bench.disk.open_all();
        bench.pass(2_000);
        let tree = bench.engine.replica().tree();
        assert_eq!(tree.lookup(&path("e/g")), Some(node), "after {ms} ms");
        assert_eq!(tree.lookup(&path("d/f")), None);
    }
}

#[test]
fn file_that_was_renamed_and_could_not_be_read_is_removed_once_it_is_gone() {
    for (ms, closed, to) in [(60, "h", "h"), (300, "h", "h"), (5_000, "h", "h"), (300, "e", "e/h")]
    {
        let mut bench = with_two_files();
        assert!(bench.disk.make_directory(&path("e")));
        bench.handle(Input::Hints(vec![Hint::Written(path("e"))]));
        bench.pass(1_000);
        bench.disk.close(path(closed));
        bench.rename("f", to);
        bench.pass(ms);
        assert!(bench.disk.remove(&path(to)));
        bench.handle(Input::Hints(vec![Hint::Removed(path(to))]));
        bench.disk.open_all();
        bench.pass(20_000);
        let tree = bench.engine.replica().tree();
        for name in ["f", to] {
            assert_eq!(bench.engine.base().find(&path(name)), None, "{name} after {ms} ms");
            assert_eq!(tree.lookup(&path(name)), None, "{name} after {ms} ms");
        }
        assert_eq!(bench.engine.problems().count(), 0);
    }
}

#[test]
fn what_cannot_be_looked_at_for_long_keeps_nothing_from_being_removed() {
    let (mut bench, node) = renamed_to_where_nobody_can_look();
    bench.pass(5_000);
    assert!(bench.engine.replica().tree().entry(node).is_none(), "it is gone, as far as is known");
    bench.disk.remove(&path("d/other"));
    bench.handle(Input::Hints(vec![Hint::Removed(path("d/other"))]));
    bench.pass(200);
    assert_eq!(bench.content_at(&path("d/other")), None, "and this goes at once");
}

#[test]
fn what_is_gone_is_removed_in_the_end_although_ever_more_cannot_be_looked_at() {
    let (mut bench, _) = renamed_to_where_nobody_can_look();
    bench.disk.remove(&path("d/other"));
    bench.handle(Input::Hints(vec![Hint::Removed(path("d/other"))]));
    for number in 0..20 {
        let closed = path(&format!("closed{number}"));
        assert!(bench.disk.make_directory(&closed));
        bench.disk.close(closed.clone());
        bench.handle(Input::Hints(vec![Hint::Written(closed)]));
        bench.pass(250);
    }
    assert_eq!(bench.content_at(&path("d/other")), None);
}

#[test]
fn what_is_missing_in_a_directory_that_is_where_the_tree_has_it_already_is_removed() {
    let mut bench = with_two_files();
    assert!(bench.disk.make_directory(&path("d")));
    assert!(bench.disk.write(&path("d/kept"), b"one"));
    assert!(bench.disk.write(&path("d/removed"), b"two"));
    bench.handle(Input::Hints(vec![Hint::Subtree(TreePath::root())]));
    bench.pass(10_000);
    // Both call the directory otherwise, and nobody is told of what else the user does here.
    let (from, to, name) = (DirectoryIndex(0), DirectoryIndex(0), Name::new(*b"e").unwrap());
    let changes = done_there(&bench, "d", |entry| [Act::Move { from, entry, to, name }]);
    assert!(bench.disk.rename(&path("d"), &path("e")));
    assert!(bench.disk.remove(&path("e/removed")));
    let contents = Vec::new();
    bench.handle(Input::Received(MasterId([2; 32]), Message::Changes { changes, contents }));
    bench.handle(Input::Hints(vec![Hint::Subtree(TreePath::root())]));
    bench.pass(20_000);
    assert!(bench.content_at(&path("e/kept")).is_some());
    assert_eq!(bench.content_at(&path("e/removed")), None);
    assert_eq!(bench.engine.base().find(&path("e/removed")), None);
    assert_eq!(bench.engine.problems().count(), 0);
}
