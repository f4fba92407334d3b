//! When what is looked at.

use super::*;

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).expect("plain names")
}

fn known(path: &TreePath) -> Known {
    match path.to_string().as_str() {
        "f" | "hot" => Known::Other,
        "d" => Known::Directory,
        _ => Known::Unknown,
    }
}

#[test]
fn closed_save_to_a_known_path_is_due_at_once() {
    let mut agenda = Agenda::default();
    agenda.note(100, Hint::Changed(path("f")), known);
    assert_eq!(agenda.take_due(100).scopes.len(), 0);
    agenda.note(101, Hint::Written(path("f")), known);
    assert_eq!(agenda.take_due(101).scopes.len(), 1);
    assert!(agenda.is_empty());
}

#[test]
fn new_name_waits_in_case_it_is_somebodys_temporary_file() {
    let mut agenda = Agenda::default();
    agenda.note(0, Hint::Changed(path("f5Xa2")), known);
    agenda.note(1, Hint::Written(path("f5Xa2")), known);
    assert!(agenda.take_due(SETTLE_NEW_MS - 1).scopes.is_empty());
    assert_eq!(agenda.take_due(SETTLE_NEW_MS + 1).scopes.len(), 1);
}

#[test]
fn what_an_editor_keeps_beside_a_file_waits_longer() {
    for name in [".f.swp", ".f.swo", ".#f", "f~", "f.bak", "f.tmp"] {
        let mut agenda = Agenda::default();
        agenda.note(0, Hint::Changed(path(name)), known);
        agenda.note(1, Hint::Written(path(name)), known);
        assert!(agenda.take_due(SETTLE_EDITORS_MS - 1).scopes.is_empty(), "{name}");
        assert_eq!(agenda.take_due(SETTLE_EDITORS_MS + 1).scopes.len(), 1, "{name}");
    }
    let mut agenda = Agenda::default();
    agenda.note(0, Hint::Written(path("f.swf")), known);
    assert_eq!(agenda.take_due(SETTLE_NEW_MS).scopes.len(), 1);
}

fn rename(agenda: &mut Agenda, now: u64, from: &str, to: &str) {
    agenda.note(now, Hint::Removed(path(from)), known);
    agenda.note(now, Hint::Written(path(to)), known);
    agenda.note(now, Hint::Renamed(path(from), path(to)), known);
}

#[test]
fn save_by_rename_is_due_at_once() {
    let mut agenda = Agenda::default();
    rename(&mut agenda, 0, "f.tmp", "f");
    assert_eq!(agenda.take_due(0).scopes, [name_scope(&path("f"))]);
}

#[test]
fn file_that_an_editor_renamed_away_and_wrote_anew_is_due_once_the_backup_is_removed() {
    let mut agenda = Agenda::default();
    rename(&mut agenda, 0, "f", "f~");
    agenda.note(2, Hint::Changed(path("f")), known);
    agenda.note(130, Hint::Written(path("f")), known);
    assert_eq!(agenda.take_due(400), Due::default());
    agenda.note(401, Hint::Removed(path("f~")), known);
    assert_eq!(agenda.take_due(401).scopes, [name_scope(&path("f"))]);
}

#[test]
fn backup_that_is_kept_is_looked_at_in_time() {
    let mut agenda = Agenda::default();
    rename(&mut agenda, 0, "f", "f~");
    agenda.note(2, Hint::Changed(path("f")), known);
    agenda.note(3, Hint::Written(path("f")), known);
    assert_eq!(agenda.take_due(SETTLE_BACKUP_MS).scopes, [name_scope(&path("f"))]);
    assert_eq!(agenda.take_due(SETTLE_EDITORS_MS).scopes, [name_scope(&path("f~"))]);
}

#[test]
fn new_name_of_a_file_is_looked_at_before_its_old_one() {
    let mut agenda = Agenda::default();
    agenda.note(0, Hint::Removed(path("f")), known);
    agenda.note(9, Hint::Written(path("g")), known);
    let first = agenda.timeout().expect("both wait");
    assert_eq!(agenda.take_due(first).scopes, [name_scope(&path("g"))]);
    let due = agenda.take_due(SETTLE_GONE_MS);
    assert_eq!(due.vanished, [path("f")]);
}

#[test]
fn name_counts_as_gone_only_after_a_while() {
    let mut agenda = Agenda::default();
    agenda.note(0, Hint::Removed(path("f")), known);
    agenda.flush(SETTLE_GONE_MS - 1);
    let due = agenda.take_due(SETTLE_GONE_MS - 1);
    assert_eq!((due.scopes.len(), due.vanished.len()), (1, 0));
}

#[test]
fn renamed_directory_is_due_at_once() {
    let mut agenda = Agenda::default();
    rename(&mut agenda, 0, "d", "e");
    assert_eq!(agenda.take_due(0).scopes.len(), 2);
}

#[test]
fn what_is_due_in_a_renamed_directory_is_due_at_its_new_place() {
    let mut agenda = Agenda::default();
    agenda.note(0, Hint::Changed(path("d/x/f")), known);
    agenda.moved(1, &path("d"), &path("e"));
    let there = name_scope(&path("e/x/f"));
    assert!(agenda.take_due(SETTLE_CHANGED_MS).scopes.contains(&there));
}

#[test]
fn hint_by_the_old_path_of_a_directory_that_moved_twice_is_noted_at_the_new_one() {
    let mut agenda = Agenda::default();
    agenda.moved(0, &path("d"), &path("e"));
    agenda.moved(1, &path("e"), &path("g"));
    agenda.note(2, Hint::Written(path("d/x")), known);
    let due = agenda.take_due(2 + SETTLE_NEW_MS).scopes;
    assert_eq!(due, [name_scope(&path("d/x")), name_scope(&path("g/x"))]);
    let later = 2 + MOVES_MS_MAX;
    agenda.note(later, Hint::Written(path("d/x")), known);
    assert_eq!(agenda.take_due(later + SETTLE_NEW_MS).scopes.len(), 1);
}

#[test]
fn file_that_is_saved_all_the_time_backs_off_and_cools_down() {
    let mut agenda = Agenda::default();
    let mut now = 0;
    for _ in 0..200 {
        agenda.note(now, Hint::Written(path("hot")), known);
        if !agenda.take_due(now).scopes.is_empty() {
            agenda.published(now, &path("hot"));
        }
        now += 10;
    }
    agenda.note(now, Hint::Written(path("hot")), known);
    assert!(agenda.take_due(now).scopes.is_empty());
    now += 60_000;
    agenda.take_due(now);
    agenda.note(now, Hint::Written(path("hot")), known);
    assert_eq!(agenda.take_due(now).scopes.len(), 1);
}

#[test]
fn growing_file_is_looked_at_at_a_bounded_age() {
    let mut agenda = Agenda::default();
    let mut now = 0;
    while agenda.take_due(now).scopes.is_empty() {
        agenda.note(now, Hint::Changed(path("f")), known);
        now += 10;
        assert!(now <= AGE_MS_MAX + 20);
    }
}

#[test]
fn flood_of_names_becomes_one_scan() {
    let mut agenda = Agenda::default();
    for n in 0..=SCOPES_MAX {
        agenda.note(0, Hint::Written(path(&format!("x{n}"))), known);
    }
    assert_eq!(agenda.take_due(SETTLE_NEW_MS).scopes, [Scope::Subtree(TreePath::root())]);
}

#[test]
fn name_that_came_back_is_not_gone() {
    let mut agenda = Agenda::default();
    agenda.note(0, Hint::Removed(path("f")), known);
    assert_eq!(agenda.take_due(1_000).vanished, [path("f")]);
    agenda.note(2_000, Hint::Removed(path("f")), known);
    agenda.note(2_001, Hint::Written(path("f")), known);
    let due = agenda.take_due(3_000);
    assert_eq!((due.scopes, due.vanished), (vec![name_scope(&path("f"))], vec![]));
}

#[test]
fn what_happened_in_a_directory_while_it_was_called_otherwise_is_looked_at_where_it_is() {
    let mut agenda = Agenda::default();
    agenda.note(0, Hint::Renamed(path("d"), path("e")), known);
    agenda.note(1, Hint::Written(path("e/f")), known);
    agenda.note(2, Hint::Renamed(path("e"), path("d")), known);
    assert!(agenda.take_due(1_000).scopes.contains(&name_scope(&path("d/f"))));
}
