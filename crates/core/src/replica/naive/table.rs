//! The table of concurrent pairs of SEMANTICS.md, row by row, and what the rules say beside it.
//!
//! Trees are written as trees: `d/` is a directory, `f=1` a file with the bytes of token 1, `l->1` a link;
//! `:600` permission bits other than at birth, `:u7` an owner, `:t9` an mtime; `!edited[2]` an open
//! conflict with what is not standing.

use super::history::{self, Deed, Master, assert_as_from_scratch};
use crate::values::{Body, ConflictKind, Version, VersionOf};
use crate::vocabulary::TreePath;

/// `write f 1`, `edit f 2`, `mkdir d`, `ln l 1`, `point l 2`, `rm d`, `mv f g`, `over f g`,
/// `chmod f 600`, `chown f 7`, `touch f 9`, `close f`, parted by semicolons.
fn act(master: &mut Master, script: &str) {
    for line in script.split(';').map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split(' ').collect();
        let path = |word: &str| TreePath::parse(word.as_bytes()).unwrap();
        let number = || words[2].parse::<u32>().unwrap();
        let here = path(words[1]);
        let deed = match words[0] {
            "write" => Deed::Create(here, history::file(number(), 0)),
            "edit" => Deed::Edit(here, history::file(number(), 0)),
            "mkdir" => Deed::Create(here, history::directory()),
            "ln" => Deed::Create(here, history::link(number())),
            "point" => Deed::Edit(here, history::link(number())),
            "rm" => Deed::Remove(here),
            "mv" => Deed::Move(here, path(words[2])),
            "over" => Deed::MoveOver(here, path(words[2])),
            "chmod" => Deed::Chmod(here, u32::from_str_radix(words[2], 8).unwrap()),
            "chown" => Deed::Chown(here, number()),
            "touch" => Deed::Touch(here, number().into()),
            "close" => Deed::Close(here),
            other => panic!("no act {other}"),
        };
        master.perform(&deed, vec![]);
    }
}

fn shown_version(version: &Version) -> String {
    if version.of == VersionOf::Deletion {
        return "gone".to_owned();
    }
    match (&version.elsewhere, &version.body) {
        (Some(elsewhere), _) => elsewhere.to_string(),
        (None, Body::Directory { .. }) => "/".to_owned(),
        (None, Body::File(content)) => content.size.to_string(),
        (None, Body::Symlink { target, .. }) => {
            format!("->{}", String::from_utf8_lossy(target.as_bytes()))
        }
    }
}

fn shown(master: &Master) -> Vec<String> {
    let picture = assert_as_from_scratch(master);
    let entries = picture.entries.iter().map(|(path, view)| {
        let mut line = match &view.body {
            Body::Directory { .. } => format!("{path}/"),
            Body::File(content) => format!("{path}={}", content.size),
            Body::Symlink { target, .. } => {
                format!("{path}->{}", String::from_utf8_lossy(target.as_bytes()))
            }
        };
        let mode = view.attributes.mode.bits();
        if mode != 0o644 {
            line += &format!(":{mode:o}");
        }
        if let Some(owner) = &view.attributes.owner {
            line += &format!(":u{}", owner.uid);
        }
        if !matches!(view.body, Body::Symlink { .. }) && view.body.mtime().seconds != 0 {
            line += &format!(":t{}", view.body.mtime().seconds);
        }
        for conflict in picture.conflicts.iter().filter(|conflict| conflict.path == *path) {
            let kind = match conflict.kind {
                ConflictKind::Edited => "edited",
                ConflictKind::SameName => "same-name",
                ConflictKind::MovedTwice => "moved-twice",
                ConflictKind::MovedIntoEachOther => "into-each-other",
                ConflictKind::DeletedAndEdited => "deleted",
            };
            let versions: Vec<_> = conflict.versions[1..].iter().map(shown_version).collect();
            line += &format!(" !{kind}[{}]", versions.join(" "));
        }
        line
    });
    entries.collect()
}

/// Two masters that have seen `before` act without knowledge of each other, then merge.
fn two_masters(before: &str, a: &str, b: &str) -> [Master; 2] {
    let mut masters = [Master::new(1), Master::new(2)];
    act(&mut masters[0], before);
    let [first, second] = &mut masters;
    second.merge(first);
    act(first, a);
    act(second, b);
    let alone = first.clone();
    first.merge(second);
    second.merge(&alone);
    assert_eq!(first.picture(), second.picture());
    masters
}

/// The second master's stamps are the larger ones where both have written as much.
#[track_caller]
fn check(before: &str, a: &str, b: &str, merged: &[&str]) {
    assert_eq!(shown(&two_masters(before, a, b)[0]), merged);
}

/// Either way round.
#[track_caller]
fn check_both_ways(before: &str, a: &str, b: &str, merged: &[&str]) {
    check(before, a, b, merged);
    check(before, b, a, merged);
}

#[test]
fn two_edits_of_a_file_are_a_conflict() {
    check("write f 1", "edit f 2", "edit f 3", &["f=3 !edited[2]"]);
}

#[test]
fn edit_and_change_of_mode_owner_or_time_both_happen() {
    check_both_ways("write f 1", "edit f 2", "chmod f 600", &["f=2:600"]);
    check_both_ways("write f 1", "edit f 2", "chown f 7", &["f=2:u7"]);
    check("write f 1", "edit f 2", "touch f 9", &["f=2:t9"]);
    check_both_ways("write f 1", "mv f g; chmod g 600", "edit f 2; chown f 7", &["g=2:600:u7"]);
}

#[test]
fn edit_of_a_moved_file_is_at_its_new_place() {
    check_both_ways("write f 1", "edit f 2", "mv f g", &["g=2"]);
}

#[test]
fn edit_beats_removal() {
    check_both_ways("write f 1", "edit f 2", "rm f", &["f=2 !deleted[gone]"]);
}

#[test]
fn edited_file_keeps_its_removed_directory_and_nothing_else_of_it() {
    let before = "mkdir d; write d/f 1; write d/g 2; mkdir d/e";
    check_both_ways(before, "edit d/f 3", "rm d", &["d/", "d/f=3 !deleted[gone]"]);
}

#[test]
fn removal_beats_change_of_mode() {
    check_both_ways("write f 1", "chmod f 600", "rm f", &[]);
}

#[test]
fn removed_twice_is_removed() {
    check_both_ways("write f 1", "rm f", "rm f", &[]);
}

#[test]
fn moved_twice_is_at_the_place_with_the_larger_stamp() {
    check("write f 1", "mv f g", "mv f h", &["h=1 !moved-twice[g]"]);
    check("mkdir d; write d/f 1", "mv d g", "mv d h", &["h/ !moved-twice[g]", "h/f=1"]);
}

#[test]
fn moved_twice_to_one_place_is_no_conflict() {
    check_both_ways("write f 1", "mv f g", "mv f g", &["g=1"]);
}

#[test]
fn move_beats_removal() {
    check_both_ways("write f 1", "mv f g", "rm f", &["g=1 !deleted[gone]"]);
}

#[test]
fn move_of_a_directory_beats_its_removal_for_all_below() {
    let before = "mkdir d; mkdir d/s; write d/f 1; write d/s/g 2";
    let merged = ["e/ !deleted[gone]", "e/f=1", "e/s/", "e/s/g=2"];
    check_both_ways(before, "mv d e", "rm d", &merged);
}

#[test]
fn what_is_done_in_a_moved_directory_happens_at_its_new_place() {
    let before = "mkdir d; write d/f 1; write d/g 2";
    let acts = "write d/x 3; edit d/f 4; mv d/g d/h";
    check_both_ways(before, "mv d e", acts, &["e/", "e/f=4", "e/h=2", "e/x=3"]);
}

#[test]
fn file_moved_out_of_a_removed_directory_lives() {
    check_both_ways(
        "mkdir d; write d/f 1; write d/g 2",
        "mv d/f out",
        "rm d",
        &["out=1 !deleted[gone]"],
    );
}

#[test]
fn directories_of_one_name_are_one_all_the_way_down() {
    let a = "mkdir d; mkdir d/s; write d/s/f 1";
    let b = "mkdir d; mkdir d/s; write d/s/g 2; write d/h 3";
    check_both_ways("", a, b, &["d/", "d/h=3", "d/s/", "d/s/f=1", "d/s/g=2"]);
}

#[test]
fn parted_directories_take_their_children_along() {
    let [mut a, mut b] = two_masters("", "mkdir d; write d/f 1", "mkdir d; write d/g 2");
    act(&mut a, "mv d e");
    b.merge(&a);
    assert_eq!(shown(&b), ["e/", "e/f=1", "e/g=2"]);
}

#[test]
fn files_created_with_the_same_bytes_are_one() {
    check_both_ways("", "write f 1", "write f 1", &["f=1"]);
}

#[test]
fn files_created_with_other_bytes_are_a_conflict_and_the_oldest_place_keeps_the_name() {
    check("", "write f 1", "write f 2", &["f=1 !same-name[2]"]);
}

#[test]
fn directory_keeps_the_name_before_a_file() {
    check_both_ways("", "write f 1", "mkdir f", &["f/ !same-name[1]"]);
    check_both_ways("", "ln f 1", "mkdir f", &["f/ !same-name[->1]"]);
}

#[test]
fn file_and_link_of_one_name_are_a_conflict() {
    check("", "write f 1", "ln f 2", &["f=1 !same-name[->2]"]);
}

#[test]
fn moves_of_two_files_to_one_name_are_as_creating_them_there() {
    check("write f 1; write g 2", "mv f x", "mv g x", &["x=1 !same-name[2]"]);
    check_both_ways("write f 1; write g 1", "mv f x", "mv g x", &["x=1"]);
}

#[test]
fn of_directories_moved_into_each_other_the_newer_move_yields() {
    let before = "mkdir a; mkdir b; write a/f 1; write b/g 2";
    let merged = ["b/ !into-each-other[b/a/b]", "b/a/", "b/a/f=1", "b/g=2"];
    check(before, "mv a b/a", "mv b a/b", &merged);
}

#[test]
fn cycle_of_three_is_broken_at_its_newest_move_only() {
    let mut masters = [1, 2, 3].map(Master::new);
    act(&mut masters[0], "mkdir a; mkdir b; mkdir c");
    let first = masters[0].clone();
    masters.iter_mut().for_each(|master| master.merge(&first));
    for (master, script) in masters.iter_mut().zip(["mv a b/a", "mv b c/b", "mv c a/c"]) {
        act(master, script);
    }
    let all = masters.clone();
    for master in &mut masters {
        all.iter().for_each(|other| master.merge(other));
    }
    // All three have one counter: the writer decides whose is the newest.
    let newest = (0..3).max_by_key(|&index| all[index].writer).unwrap();
    let merged = [
        ["a/ !into-each-other[a/c/b/a]", "a/c/", "a/c/b/"],
        ["b/ !into-each-other[b/a/c/b]", "b/a/", "b/a/c/"],
        ["c/ !into-each-other[c/b/a/c]", "c/b/", "c/b/a/"],
    ];
    for master in &masters {
        assert_eq!(shown(master), merged[newest]);
    }
}

#[test]
fn act_below_a_fallen_directory_keeps_what_stands() {
    let before = "mkdir a; mkdir b; write a/f 1; write b/g 2";
    let [mut a, mut b] = two_masters(before, "mv a b/a", "mv b a/b");
    act(&mut a, "edit b/g 3");
    b.merge(&a);
    assert_eq!(shown(&b), ["b/", "b/a/", "b/a/f=1", "b/g=3"]);
    act(&mut b, "mv b/a a");
    a.merge(&b);
    assert_eq!(shown(&a), ["a/", "a/f=1", "b/", "b/g=3"]);
}

#[test]
fn two_texts_of_a_link_are_a_conflict() {
    check("ln l 1", "point l 2", "point l 3", &["l->3 !edited[->2]"]);
}

#[test]
fn same_import_on_two_masters_is_one_tree_without_conflicts() {
    let mut script = String::new();
    for directory in 0..10 {
        script += &format!("mkdir d{directory};");
        for file in 0..10 {
            script += &format!("write d{directory}/f{file} {};", 10 * directory + file);
        }
    }
    let masters = two_masters("", &script, &script);
    let picture = assert_as_from_scratch(&masters[0]);
    assert_eq!(picture.entries.len(), 110);
    assert_eq!(picture.conflicts, []);
    assert!(picture.entries.values().all(|view| view.nodes.len() == 2));
}

#[test]
fn later_edit_carries_the_version_that_nobody_has_looked_at() {
    let [mut a, mut b] = two_masters("write f 1", "edit f 2", "edit f 3");
    act(&mut a, "edit f 4");
    b.merge(&a);
    assert_eq!(shown(&b), ["f=4 !edited[2]"]);
    act(&mut b, "close f");
    a.merge(&b);
    assert_eq!(shown(&a), ["f=4"]);
}

/// Three masters that know what the first one did.
fn three_masters(script: &str) -> [Master; 3] {
    let mut masters = [Master::new(1), Master::new(2), Master::new(3)];
    let [a, b, c] = &mut masters;
    act(a, script);
    b.merge(a);
    c.merge(a);
    masters
}

#[test]
fn version_that_its_author_writes_over_is_open_no_more_though_another_carries_it() {
    let [mut a, mut b, mut c] = three_masters("write f 1");
    act(&mut a, "edit f 2");
    act(&mut b, "edit f 3");
    c.merge(&a);
    c.merge(&b);
    act(&mut c, "edit f 4");
    assert_eq!(shown(&c), ["f=4 !edited[2]"]);
    act(&mut a, "edit f 5");
    c.merge(&a);
    assert_eq!(shown(&c), ["f=5 !edited[4]"]);
    act(&mut c, "edit f 6");
    assert_eq!(shown(&c), ["f=6 !edited[4]"]);
}

#[test]
fn version_that_came_with_a_file_renamed_over_another_is_open_there() {
    let [mut a, mut b, mut c] = three_masters("write f 1; write g 7");
    act(&mut a, "edit f 2");
    act(&mut b, "edit f 3");
    c.merge(&a);
    c.merge(&b);
    a.merge(&b);
    act(&mut c, "over f g");
    assert_eq!(shown(&c), ["g=3 !edited[2]"]);
    // Its author knows the version, but at the other file.
    act(&mut a, "edit g 8");
    c.merge(&a);
    assert_eq!(shown(&c), ["g=3 !edited[8 2]"]);
}

#[test]
fn equal_edits_are_no_conflict_and_the_newest_mtime_stands() {
    let mut masters = [Master::new(1), Master::new(2)];
    act(&mut masters[0], "write f 1");
    let [a, b] = &mut masters;
    b.merge(a);
    let path = TreePath::parse(b"f").unwrap();
    a.perform(&Deed::Edit(path.clone(), history::file(2, 50)), vec![]);
    b.perform(&Deed::Edit(path, history::file(2, 40)), vec![]);
    a.merge(b);
    assert_eq!(shown(a), ["f=2:t50"]);
}

#[test]
fn delete_that_had_not_seen_a_merged_move_is_void() {
    let mut master = Master::new(1);
    act(&mut master, "mkdir d; write d/f 1; mv d e");
    let node = master.tree.lookup(&TreePath::parse(b"e").unwrap()).unwrap();
    let unseen = vec![master.tree.place(node).unwrap().0];
    master.perform(&Deed::Remove(TreePath::parse(b"e/f").unwrap()), unseen);
    assert_eq!(shown(&master), ["e/", "e/f=1"]);
}

#[test]
fn renaming_a_directory_lists_the_directory_alone() {
    let mut master = Master::new(1);
    act(&mut master, "mkdir d; mkdir d/e; write d/f 1; write d/e/g 2; mv d h");
    let moved = master.tree.lookup(&TreePath::parse(b"h").unwrap()).unwrap();
    assert_eq!(master.delta.nodes, [moved].into());
    assert_eq!(master.delta.conflicts_changed, [].into());
}
