//! What becomes of contents in the staging area that nobody wants any more.

use super::*;
use crate::values::Effect;

/// `f` becomes "theirs", which is asked for, and then, while that is on its way, "newer": this puts that. Then
/// the first one comes.
fn with_one_that_comes_too_late() -> (Bench, Vec<Effect>) {
    let mut bench = with_two_files();
    let edited = |bench: &Bench, bytes: &[u8]| {
        let (directory, inherits) = (DirectoryIndex(0), smallvec::SmallVec::new());
        let (hash, size) = (ContentHash::of(bytes), bytes.len() as u64);
        let content = FileContent { hash, size, mtime: Timestamp::default() };
        done_there(bench, "f", |entry| [Act::Edit { directory, entry, content, inherits }])
    };
    let (other, late) = (MasterId([2; 32]), ContentHash::of(b"theirs"));
    let message =
        |changes, contents| Input::Received(other, Message::Changes { changes, contents });

    let changes = edited(&bench, b"theirs");
    let asked = bench.outputs(message(changes, Vec::new()));
    let is_asked_for =
        |output: &Output| matches!(output, Output::Fetch(wanted) if wanted[0].hash == late);
    assert!(asked.iter().any(is_asked_for), "{asked:?}");

    let contents = vec![(ContentHash::of(b"newer"), b"newer".to_vec())];
    let changes = edited(&bench, b"newer");
    let outputs = bench.outputs(message(changes, contents));
    let under_way = outputs.into_iter().find_map(|output| match output {
        Output::Apply(effects) => Some(effects),
        _ => None,
    });
    let outputs = bench.outputs(Input::Fetched(late));
    assert!(!outputs.iter().any(is_unstaged(late)), "an effect under way may take it: {outputs:?}");
    (bench, under_way.expect("the newer one is here"))
}

fn is_unstaged(content: ContentHash) -> impl Fn(&Output) -> bool {
    move |output| matches!(output, Output::Unstage(hash) if *hash == content)
}

#[test]
fn content_that_comes_in_the_midst_of_a_batch_and_is_of_no_use_by_then_does_not_stay() {
    let (mut bench, under_way) = with_one_that_comes_too_late();
    bench.disk.begin_batch();
    let outcomes = under_way.iter().map(|effect| bench.disk.perform(effect)).collect();
    let outputs = bench.outputs(Input::Applied(outcomes));
    assert!(outputs.iter().any(is_unstaged(ContentHash::of(b"theirs"))), "{outputs:?}");
    assert_eq!(bench.content_at(&path("f")), Some(ContentHash::of(b"newer")));
}

#[test]
fn content_that_comes_twice_and_is_put_from_memory_does_not_stay() {
    let mut bench = with_two_files();
    let (other, hash) = (MasterId([2; 32]), ContentHash::of(b"theirs"));
    let content = FileContent { hash, size: 6, mtime: Timestamp::default() };
    let (directory, inherits) = (DirectoryIndex(0), smallvec::SmallVec::new());
    let changes =
        done_there(&bench, "f", |entry| [Act::Edit { directory, entry, content, inherits }]);
    let message =
        |changes, contents| Input::Received(other, Message::Changes { changes, contents });
    bench.outputs(message(changes, Vec::new()));
    // Another message has it as well, and it comes all the same.
    bench.outputs(message(Vec::new(), vec![(hash, b"theirs".to_vec())]));
    let outputs = bench.outputs(Input::Fetched(hash));
    let effects = outputs.into_iter().find_map(|output| match output {
        Output::Apply(effects) => Some(effects),
        _ => None,
    });
    bench.disk.begin_batch();
    let effects = effects.expect("it is here");
    let outcomes = effects.iter().map(|effect| bench.disk.perform(effect)).collect();
    let outputs = bench.outputs(Input::Applied(outcomes));
    assert!(outputs.iter().any(is_unstaged(hash)), "{outputs:?}");
}
