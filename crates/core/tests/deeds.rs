//! Deeds as an embedder sees them: what changes did, with what was there before.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod embedder;

use embedder::{A, B, DIRECTORY, Master, file, path};
use pleach_core::values::{Act, Body, Choice, Deed, DirectoryIndex, What};
use pleach_core::vocabulary::{Mode, Name};

impl Master {
    /// What the last change did, in a few words.
    fn last(&self) -> Vec<String> {
        self.replica.deeds(self.log.last().unwrap()).unwrap().map(|deed| told(&deed)).collect()
    }
}

fn told(deed: &Deed) -> String {
    let size = |body: &Option<Body>| match body {
        Some(Body::File(content)) => content.size.to_string(),
        Some(_) => "something".to_owned(),
        None => "nothing".to_owned(),
    };
    let path = deed.path.as_ref().map_or("?".to_owned(), ToString::to_string);
    let what = match &deed.what {
        What::Created { body, mode } => {
            format!("created {} {:o}", size(&Some(body.clone())), mode.bits())
        }
        What::Edited { before, after } => {
            format!("edited {} to {}", size(before), size(&Some(after.clone())))
        }
        What::Resolved { before, after } => {
            format!("resolved {} to {}", size(before), size(&Some(after.clone())))
        }
        What::Moved { from } => {
            format!("moved from {}", from.as_ref().map_or("?".to_owned(), ToString::to_string))
        }
        What::ModeChanged { before, after } => {
            format!("mode {:o} to {:o}", before.map_or(0, |mode| mode.bits()), after.bits())
        }
        What::Deleted { body } => format!("deleted {}", size(body)),
        other => format!("{other:?}"),
    };
    let above = deed.within.len();
    format!("{path}: {what}, {above} above")
}

#[test]
fn deed_tells_what_was_there_before_and_what_it_was_called_then() {
    let mut a = Master::new(A);
    a.create(&[], "d", DIRECTORY);
    a.create(&["d"], "e", DIRECTORY);
    a.create(&["d", "d/e"], "f", Body::File(file("one")));
    assert_eq!(a.last(), ["d/e/f: created 3 644, 2 above"]);
    let created = a.log.last().unwrap().clone();
    a.edit(&["d", "d/e"], "d/e/f", "three");
    assert_eq!(a.last(), ["d/e/f: edited 3 to 5, 2 above"]);
    let edited = a.log.last().unwrap().clone();

    let (entry, name) = (a.entry("d/e"), Name::try_from("x").unwrap());
    a.act(&["d"], |from| Act::Move { from, entry, to: DirectoryIndex(0), name });
    // Of a move out of a directory, those that were above before count too.
    assert_eq!(a.last(), ["x: moved from d/e, 1 above"]);
    let (entry, name) = (a.entry("x/f"), Name::try_from("g").unwrap());
    a.act(&["x"], |directory| Act::Move { from: directory, entry, to: directory, name });
    assert_eq!(a.last(), ["x/g: moved from x/f, 2 above"]);
    let (entry, mode) = (a.entry("x/g"), Mode::new(0o600));
    a.act(&["x"], |directory| Act::SetMode { directory, entry, mode });
    assert_eq!(a.last(), ["x/g: mode 644 to 600, 1 above"]);
    a.remove(&["x"], "x/g");
    assert_eq!(a.last(), ["x/g: deleted 5, 1 above"]);

    // What was done before the renames is told with the names from then.
    let tell = |change| told(&a.replica.deeds(change).unwrap().next().unwrap());
    assert_eq!(tell(&created), "d/e/f: created 3 644, 2 above");
    assert_eq!(tell(&edited), "d/e/f: edited 3 to 5, 2 above");
    // What is no more is found by what it was called last.
    let node = a.replica.deeds(&created).unwrap().next().unwrap().node;
    assert_eq!(a.replica.tree().ever_at(&path("x/g")), [node]);
    assert_eq!(a.replica.tree().ever_at(&path("d/e/f")), []);
    a.create(&["x"], "g", Body::File(file("new")));
    assert_eq!(a.replica.tree().ever_at(&path("x/g")), [a.entry("x/g")[0].node, node]);
}

#[test]
fn end_of_a_conflict_is_told_from_an_edit_that_carries_it_along() {
    let (mut a, mut b) = (Master::new(A), Master::new(B));
    a.admit(B, "b");
    a.create(&[], "f", Body::File(file("1")));
    a.meet(&mut b);
    a.edit(&[], "f", "22");
    b.edit(&[], "f", "333");
    a.meet(&mut b);
    assert_eq!(a.replica.conflicts().len(), 1);
    let stood = a.replica.conflicts()[0].versions[0].body.clone();
    let Body::File(stood) = stood else { panic!("a file") };
    a.edit(&[], "f", "4444");
    assert_eq!(a.last(), [format!("f: edited {} to 4, 0 above", stood.size)]);
    let local = a.replica.resolve(&path("f"), &Choice::KeepStanding).unwrap();
    a.publish(local);
    assert_eq!(a.last(), ["f: resolved 4 to 4, 0 above"]);
    a.edit(&[], "f", "55555");
    assert_eq!(a.last(), ["f: edited 4 to 5, 0 above"]);
    a.meet(&mut b);
    let on_b: Vec<_> =
        b.log.iter().map(|change| b.replica.deeds(change).unwrap().count()).collect();
    // The first one wrote the member down.
    assert_eq!(on_b, [0, 1, 1, 1, 1, 1, 1]);
}
