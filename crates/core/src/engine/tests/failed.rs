//! What becomes of effects that were done, and told of as failed.

use super::*;

#[test]
fn directory_is_not_removed_that_an_effect_moved_which_was_told_of_as_failed() {
    let mut bench = with_two_files();
    assert!(bench.disk.make_directory(&path("d")));
    assert!(bench.disk.write(&path("d/inside"), b"one"));
    bench.handle(Input::Hints(vec![Hint::Subtree(path("d"))]));
    bench.pass(10_000);
    let known = bench.log().len();
    let (from, to, name) = (DirectoryIndex(0), DirectoryIndex(0), Name::new(*b"e").unwrap());
    let changes = done_there(&bench, "d", |entry| [Act::Move { from, entry, to, name }]);
    bench.fails = true;
    let contents = Vec::new();
    bench.handle(Input::Received(MasterId([2; 32]), Message::Changes { changes, contents }));
    // What the watcher sees at the new place it may take for the echo of the effect.
    bench.handle(Input::Hints(vec![Hint::Removed(path("d")), Hint::Renamed(path("d"), path("e"))]));
    bench.pass(300);
    bench.fails = false;
    bench.pass(10_000);
    assert_eq!(bench.content_at(&path("e/inside")), Some(ContentHash::of(b"one")));
    assert_eq!(bench.log().len(), known + 1, "the other's change, and none here");
    assert_eq!(bench.engine.problems().count(), 0);
}

#[test]
fn file_that_was_to_become_another_and_could_not_goes_when_that_is_gone() {
    let mut bench = with_two_files();
    let (directory, other) = (DirectoryIndex(0), MasterId([2; 32]));
    let (hash, size, mtime) = (ContentHash::of(b"old"), 3, Timestamp { seconds: 1, nanos: 1 });
    let made_anew = done_there(&bench, "f", |entry| {
        let create = Act::Create {
            directory,
            name: Name::new(*b"f").unwrap(),
            body: Body::File(FileContent { hash, size, mtime }),
            mode: Mode::new(0o644),
            owner: None,
            xattrs: Xattrs::new(),
        };
        [Act::Remove { directory, entry }, create]
    });
    bench.fails = true;
    let message = |changes| Message::Changes { changes, contents: Vec::new() };
    bench.handle(Input::Received(other, message(made_anew)));
    bench.pass(1_000);
    let removed = done_there(&bench, "f", |entry| [Act::Remove { directory, entry }]);
    bench.handle(Input::Received(other, message(removed)));
    bench.pass(1_000);
    bench.fails = false;
    bench.pass(20_000);
    assert_eq!(bench.engine.base().find(&path("f")), None, "nobody has it any more");
    assert_eq!(bench.engine.problems().count(), 0);
}

#[test]
fn attributes_that_a_failed_effect_set_are_no_users_when_they_were_set_back_elsewhere() {
    let mut bench = with_two_files();
    let (directory, other) = (DirectoryIndex(0), MasterId([2; 32]));
    let message = |changes| Message::Changes { changes, contents: Vec::new() };
    let mode_of = |bench: &Bench| {
        let tree = bench.engine.replica().tree();
        tree.entry(tree.lookup(&path("f")).unwrap()).unwrap().attributes.mode
    };
    let before = mode_of(&bench);
    for mode in [Mode::new(0o600), before] {
        let set = |entry| [Act::SetMode { directory, entry, mode }];
        let changes = done_there(&bench, "f", set);
        bench.fails = true;
        bench.handle(Input::Received(other, message(changes)));
    }
    bench.fails = false;
    bench.handle(Input::Hints(vec![Hint::Written(path("f"))]));
    bench.pass(20_000);
    assert_eq!(mode_of(&bench), before);
    assert_eq!(bench.engine.problems().count(), 0);
}
