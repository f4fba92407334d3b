//! Conflicts as an embedder sees them: two replicas, what is open, what it goes back to, how it is settled.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod embedder;

use embedder::{A, B, DIRECTORY, Master, creation, file, path};
use pleach_core::replica::{NotMerged, ResolveError};
use pleach_core::values::{
    Act, Acts, Body, Choice, Conflict, ConflictKind, DirectoryIndex, DirectoryRef, Rule,
    SeenDirectory, Version, VersionOf,
};
use pleach_core::vocabulary::{Mode, Name};

impl Master {
    fn rename(&mut self, below: &[&str], at: &str, name: &str) {
        let (entry, name, to) = (self.entry(at), Name::try_from(name).unwrap(), DirectoryIndex(0));
        self.act(below, |from| Act::Move { from, entry, to, name });
    }

    fn move_into(&mut self, at: &str, directory: &str) {
        let entry = self.entry(at);
        let (from, to) = (DirectoryIndex(0), DirectoryIndex(1));
        let name = Name::try_from(at).unwrap();
        self.act(&[directory], |_| Act::Move { from, entry, to, name });
    }

    fn resolve(&mut self, at: &str, choice: Choice) -> Result<(), ResolveError> {
        let (heads, could) =
            (self.replica.heads_hash(), self.replica.could_resolve(&path(at), &choice));
        assert_eq!(self.replica.heads_hash(), heads, "asking changes nothing");
        let done = self.replica.resolve(&path(at), &choice).map(|local| self.publish(local));
        assert_eq!(could, done);
        done
    }

    /// The paths in the tree, each file with its size.
    fn tree(&self) -> Vec<String> {
        let entries = self.replica.tree().entries();
        let shown = entries.map(|(path, entry)| match entry.body {
            Body::File(content) => format!("{path}={}", content.size),
            _ => format!("{path}/"),
        });
        shown.collect()
    }

    fn only_conflict(&self) -> Conflict {
        let mut open = self.replica.conflicts();
        assert_eq!(open.len(), 1, "{open:#?}");
        open.remove(0)
    }
}

/// Both hear of all that the other did.
fn meet(a: &mut Master, b: &mut Master) {
    a.meet(b);
    assert_eq!(a.tree(), b.tree());
    assert_eq!(a.replica.conflicts(), b.replica.conflicts());
}

/// Two masters that know of each other, with `d/f` and `g`.
fn masters() -> (Master, Master) {
    let (mut a, mut b) = (Master::new(A), Master::new(B));
    a.replica.set_time(1_000);
    b.replica.set_time(4_000);
    a.admit(A, "a");
    a.admit(B, "b");
    a.create(&[], "d", DIRECTORY);
    a.create(&["d"], "f", Body::File(file("1")));
    a.create(&[], "g", Body::File(file("1")));
    meet(&mut a, &mut b);
    (a, b)
}

fn deletion(conflict: &Conflict) -> &Version {
    conflict.versions.iter().find(|version| version.of == VersionOf::Deletion).unwrap()
}

#[test]
fn conflict_tells_who_wrote_what_and_when_and_what_it_goes_back_to() {
    let (mut a, mut b) = masters();
    a.edit(&[], "g", "22");
    b.edit(&[], "g", "333");
    meet(&mut a, &mut b);
    let conflict = a.only_conflict();
    assert_eq!((conflict.kind, conflict.rule()), (ConflictKind::Edited, Rule::LargestStamp));
    let mut written: Vec<_> = conflict
        .versions
        .iter()
        .map(|version| (version.master, version.written_ms, version.mode, version.of))
        .collect();
    written.sort();
    let mode = Mode::new(0o644);
    assert_eq!(
        written,
        [
            (Some(A), Some(1_000), mode, VersionOf::Content),
            (Some(B), Some(4_000), mode, VersionOf::Content)
        ]
    );
    let ancestor = a.replica.ancestor(&conflict).unwrap();
    assert_eq!(ancestor.body, Body::File(file("1")));
    assert_eq!((ancestor.master, ancestor.written_ms), (Some(A), Some(1_000)));
}

#[test]
fn version_carried_along_by_later_edits_goes_back_to_what_both_had_seen() {
    let (mut a, mut b) = masters();
    a.edit(&[], "g", "before");
    meet(&mut a, &mut b);
    a.edit(&[], "g", "22");
    b.edit(&[], "g", "333");
    meet(&mut a, &mut b);
    // Whoever edits what stands has not looked at the other one.
    a.edit(&[], "g", "4444");
    a.edit(&[], "g", "55555");
    meet(&mut a, &mut b);
    let conflict = b.only_conflict();
    assert_eq!(conflict.versions.len(), 2);
    assert_eq!(b.replica.ancestor(&conflict).unwrap().body, Body::File(file("before")));
}

#[test]
fn files_of_one_name_go_back_to_nothing() {
    let (mut a, mut b) = masters();
    a.create(&[], "n", Body::File(file("22")));
    b.create(&[], "n", Body::File(file("333")));
    meet(&mut a, &mut b);
    let conflict = a.only_conflict();
    assert_eq!((conflict.kind, conflict.rule()), (ConflictKind::SameName, Rule::OldestName));
    assert_eq!(a.replica.ancestor(&conflict), None);
}

#[test]
fn many_files_born_at_once_have_an_ancestor_too() {
    let (mut a, mut b) = masters();
    let directories = vec![SeenDirectory { parent: None, directory: DirectoryRef::Root }];
    let body = Body::File(file("first"));
    let create = |n: u32| creation(DirectoryIndex(0), &format!("n{n}"), body.clone());
    let (local, _) = a.replica.perform(&Acts { directories, acts: (0..300).map(create).collect() });
    a.publish(local);
    meet(&mut a, &mut b);
    a.edit(&[], "n7", "22");
    b.edit(&[], "n7", "333");
    meet(&mut a, &mut b);
    let conflict = a.only_conflict();
    assert_eq!(a.replica.ancestor(&conflict).unwrap().body, Body::File(file("first")));
}

#[test]
fn what_one_deleted_and_another_edited_is_a_choice_either_way() {
    for wanted in ["life", "death", "standing", "both"] {
        let (mut a, mut b) = masters();
        a.remove(&[], "g");
        b.edit(&[], "g", "333");
        meet(&mut a, &mut b);
        let conflict = a.only_conflict();
        assert_eq!(conflict.kind, ConflictKind::DeletedAndEdited);
        assert_eq!(conflict.rule(), Rule::EditBeatsDelete);
        assert_eq!(deletion(&conflict).master, Some(A));
        assert_eq!(a.replica.ancestor(&conflict).unwrap().body, Body::File(file("1")));
        let choice = match wanted {
            "life" => Choice::Keep(conflict.standing().unwrap().stamp),
            "death" => Choice::Keep(deletion(&conflict).stamp),
            "both" => Choice::KeepBoth,
            _ => Choice::KeepStanding,
        };
        b.resolve("g", choice).unwrap();
        meet(&mut a, &mut b);
        assert_eq!(a.replica.conflicts(), [], "{wanted}");
        let left: &[&str] =
            if wanted == "death" { &["d/", "d/f=1"] } else { &["d/", "d/f=1", "g=3"] };
        assert_eq!(a.tree(), left, "{wanted}");
    }
}

#[test]
fn directory_that_was_moved_and_deleted_is_one_conflict_and_goes_as_a_whole() {
    for goes in [true, false] {
        let (mut a, mut b) = masters();
        a.remove(&["d"], "d/f");
        a.remove(&[], "d");
        b.rename(&[], "d", "e");
        meet(&mut a, &mut b);
        let conflict = a.only_conflict();
        assert_eq!(
            (conflict.path.to_string(), conflict.rule()),
            ("e".into(), Rule::MoveBeatsDelete)
        );
        let chosen = if goes { deletion(&conflict) } else { conflict.standing().unwrap() };
        a.resolve("e", Choice::Keep(chosen.stamp)).unwrap();
        meet(&mut a, &mut b);
        assert_eq!(a.replica.conflicts(), []);
        assert_eq!(a.tree(), if goes { vec!["g=1"] } else { vec!["e/", "e/f=1", "g=1"] });
    }
}

#[test]
fn what_its_author_deleted_does_not_come_back_as_a_version() {
    let (mut a, mut b) = masters();
    b.edit(&[], "g", "333");
    a.edit(&[], "g", "22");
    a.remove(&[], "g");
    meet(&mut a, &mut b);
    a.resolve("g", Choice::KeepStanding).unwrap();
    meet(&mut a, &mut b);
    assert_eq!(a.replica.conflicts(), []);
    assert!(a.tree().contains(&"g=3".to_owned()), "{:?}", a.tree());
}

#[test]
fn what_was_carried_along_and_deleted_does_not_come_back_either() {
    let (mut a, mut b) = masters();
    a.edit(&[], "g", "22");
    b.edit(&[], "g", "333");
    meet(&mut a, &mut b);
    a.edit(&[], "g", "4444");
    b.remove(&[], "g");
    meet(&mut a, &mut b);
    assert_eq!(a.only_conflict().kind, ConflictKind::DeletedAndEdited);
    b.resolve("g", Choice::KeepStanding).unwrap();
    meet(&mut a, &mut b);
    assert_eq!(a.replica.conflicts(), []);
}

#[test]
fn directory_of_a_file_that_was_kept_is_there_for_good() {
    let (mut a, mut b) = masters();
    a.remove(&["d"], "d/f");
    a.remove(&[], "d");
    b.edit(&["d"], "d/f", "333");
    meet(&mut a, &mut b);
    let conflict = a.only_conflict();
    assert_eq!(conflict.path, path("d/f"));
    a.resolve("d/f", Choice::KeepStanding).unwrap();
    meet(&mut a, &mut b);
    assert_eq!(a.replica.conflicts(), []);
    let tree = b.replica.tree();
    assert!(!tree.is_held(tree.lookup(&path("d")).unwrap()), "its own life, not the file's");
    b.rename(&["d"], "d/f", "out");
    meet(&mut a, &mut b);
    assert_eq!(a.tree(), ["d/", "g=1", "out=3"]);
}

#[test]
fn of_directories_moved_into_each_other_either_may_be_in_the_other() {
    for keeps in [true, false] {
        let (mut a, mut b) = masters();
        for name in ["x", "y", "z"] {
            a.create(&[], name, DIRECTORY);
        }
        meet(&mut a, &mut b);
        // Once in z and back again: that was before, and is not where it belongs.
        a.move_into("x", "z");
        a.rename(&["z"], "z/x", "x");
        meet(&mut a, &mut b);
        a.move_into("x", "y");
        b.move_into("y", "x");
        meet(&mut a, &mut b);
        let conflict = a.only_conflict();
        assert_eq!(conflict.kind, ConflictKind::MovedIntoEachOther);
        let outer = conflict.path.to_string();
        let inner = if outer == "x" { "y" } else { "x" };
        let chosen = conflict.versions.iter().find(|version| version.stands == keeps).unwrap();
        b.resolve(&outer, Choice::Keep(chosen.stamp)).unwrap();
        meet(&mut a, &mut b);
        assert_eq!(a.replica.conflicts(), []);
        let (outer, inner) = if keeps { (&*outer, inner) } else { (inner, &*outer) };
        let tree = a.tree();
        assert!(tree.contains(&format!("{outer}/")), "{tree:?}");
        assert!(tree.contains(&format!("{outer}/{inner}/")), "{tree:?}");
        assert!(!tree.contains(&format!("{inner}/")), "{tree:?}");
    }
}

#[test]
fn directory_that_stays_for_its_file_is_settled_with_the_place_that_was_chosen_for_it() {
    let (mut a, mut b) = masters();
    a.rename(&[], "d", "e");
    b.rename(&[], "d", "f");
    meet(&mut a, &mut b);
    let at = a.only_conflict().path.to_string();
    a.remove(&[], &at);
    b.create(&[&at], "new", Body::File(file("1")));
    meet(&mut a, &mut b);
    let conflict = a.only_conflict();
    let other = conflict.versions.iter().find(|version| !version.stands).unwrap();
    b.resolve(&at, Choice::Keep(other.stamp)).unwrap();
    meet(&mut a, &mut b);
    assert_eq!(a.replica.conflicts(), []);
}

#[test]
fn what_was_edited_while_all_versions_were_open_is_a_merge() {
    let (mut a, mut b) = masters();
    assert_eq!(a.replica.merged(&path("g")), Err(NotMerged::NothingToMerge(path("g"))));
    a.edit(&[], "g", "22");
    b.edit(&[], "g", "333");
    meet(&mut a, &mut b);
    let as_they_came = a.only_conflict();
    let other = as_they_came.versions.iter().find(|version| !version.stands).unwrap();
    let unseen = vec![other.stamp];
    let refused = Err(NotMerged::NotEdited { path: path("g"), unseen });
    assert_eq!(
        (a.replica.merged(&path("g")), b.replica.merged(&path("g"))),
        (refused.clone(), refused)
    );
    // A save or two, and a chmod of nobody's business.
    a.edit(&[], "g", "22+333");
    a.edit(&[], "g", "22 and 333");
    meet(&mut a, &mut b);
    let merged = b.replica.merged(&path("g")).unwrap();
    assert_eq!(merged, b.only_conflict().standing().unwrap().stamp);
    b.resolve("g", Choice::Keep(merged)).unwrap();
    meet(&mut a, &mut b);
    assert_eq!(a.replica.conflicts(), []);
    assert!(a.tree().contains(&"g=10".to_owned()), "{:?}", a.tree());
}

#[test]
fn version_that_came_after_the_merge_is_not_in_it() {
    let (mut a, mut b) = masters();
    a.edit(&[], "g", "22");
    b.edit(&[], "g", "333");
    meet(&mut a, &mut b);
    b.edit(&[], "g", "one more");
    a.edit(&[], "g", "22+333");
    meet(&mut a, &mut b);
    let Err(NotMerged::NotEdited { unseen, .. }) = a.replica.merged(&path("g")) else {
        panic!("one more came since")
    };
    assert_eq!(unseen.len(), 1);
    let conflict = a.only_conflict();
    let came = conflict.versions.iter().find(|version| version.stamp == unseen[0]).unwrap();
    assert!(!came.stands, "{conflict:#?}");
    a.edit(&[], "g", "all of them");
    assert!(a.replica.merged(&path("g")).is_ok());
}

#[test]
fn save_on_top_of_what_was_not_on_the_disk_yet_is_no_merge() {
    let (mut a, mut b) = masters();
    let on_the_disk = a.entry("g");
    b.edit(&[], "g", "333");
    meet(&mut a, &mut b);
    let (directory, content) = (DirectoryIndex(0), file("22"));
    let inherits = Default::default();
    a.act(&[], |_| Act::Edit { directory, entry: on_the_disk, content, inherits });
    assert_eq!(a.only_conflict().versions.len(), 2);
    assert!(a.replica.merged(&path("g")).is_err());
    a.edit(&[], "g", "22+333");
    assert!(a.replica.merged(&path("g")).is_ok());
}

#[test]
fn files_of_one_name_and_what_was_deleted_elsewhere_are_merged_by_an_edit_too() {
    let (mut a, mut b) = masters();
    a.create(&[], "n", Body::File(file("22")));
    b.create(&[], "n", Body::File(file("333")));
    a.remove(&[], "g");
    b.edit(&[], "g", "333");
    meet(&mut a, &mut b);
    for name in ["n", "g"] {
        assert!(matches!(a.replica.merged(&path(name)), Err(NotMerged::NotEdited { .. })));
        b.edit(&[], name, "of both");
        let merged = b.replica.merged(&path(name)).unwrap();
        b.resolve(name, Choice::Keep(merged)).unwrap();
    }
    meet(&mut a, &mut b);
    assert_eq!(a.replica.conflicts(), []);
    assert_eq!(a.tree(), ["d/", "d/f=1", "g=7", "n=7"]);
}

#[test]
fn directories_and_places_are_not_merged() {
    let (mut a, mut b) = masters();
    a.create(&[], "n", DIRECTORY);
    b.create(&[], "n", Body::File(file("333")));
    a.rename(&[], "g", "h");
    b.rename(&[], "g", "i");
    meet(&mut a, &mut b);
    for conflict in a.replica.conflicts() {
        let nothing = NotMerged::NothingToMerge(conflict.path.clone());
        assert_eq!(a.replica.merged(&conflict.path), Err(nothing));
    }
}

#[test]
fn choice_of_what_is_not_open_changes_nothing() {
    let (mut a, mut b) = masters();
    assert_eq!(a.resolve("g", Choice::KeepStanding), Err(ResolveError::NoConflict(path("g"))));
    a.remove(&[], "g");
    b.edit(&[], "g", "333");
    meet(&mut a, &mut b);
    let known = a.log.len();
    let version = a.only_conflict().standing().unwrap().stamp;
    let version = pleach_core::vocabulary::Stamp { counter: version.counter + 9, ..version };
    let refused = a.resolve("g", Choice::Keep(version));
    assert_eq!(refused, Err(ResolveError::NoSuchVersion { path: path("g"), version }));
    assert_eq!(a.only_conflict().versions.len(), 2);
    assert_eq!(a.log.len(), known);
}

#[test]
fn version_that_its_user_writes_over_is_gone_though_another_came_to_carry_it_meanwhile() {
    let (mut a, mut b) = masters();
    b.edit(&[], "g", "one");
    b.edit(&[], "g", "another");
    a.edit(&[], "g", "of a");
    let seen = a.entry("g");
    b.take(&a.log);
    b.edit(&[], "g", "another one");
    let mut open = b.only_conflict().versions.into_iter().map(|version| version.body);
    assert!(open.any(|body| body == Body::File(file("of a"))), "b carries along what a wrote");
    a.take(&b.log);

    // The user of a has only seen what was there before all this came.
    let content = file("of a again");
    let inherits = Default::default();
    a.act(&[], |directory| Act::Edit { directory, entry: seen, content, inherits });

    let open = a.only_conflict().versions.into_iter().map(|version| version.body);
    let open: Vec<Body> = open.collect();
    assert_eq!(open, [Body::File(content), Body::File(file("another one"))]);
    meet(&mut a, &mut b);
}
