//! What happens when a user acts between a check and the step after it, or lays a trap.

use std::sync::atomic::{AtomicU32, Ordering};

use pleach_core::values::ProblemKind;

use super::super::apply::Before;
use super::*;

/// Lets a user act at `moment`, the first time it comes.
fn at_moment(bench: &mut Bench, moment: Before, act: impl Fn() + Send + Sync + 'static) {
    let left = AtomicU32::new(1);
    bench.disk.hook = Hook(Some(Box::new(move |now| {
        if now == moment && left.swap(0, Ordering::Relaxed) == 1 {
            act();
        }
    })));
}

#[test]
fn edit_between_check_and_exchange_is_put_back() {
    let mut bench = Bench::new();
    bench.write("f", b"old");
    let expected = Expected::Present(bench.fingerprint("f"));
    let at = bench.at("f");
    at_moment(&mut bench, Before::Replace, move || {
        std::fs::write(&at, b"edited").unwrap();
    });
    assert_eq!(bench.apply_one(put("f", expected, b"new")), Outcome::Differs);
    assert_eq!(bench.read("f"), "edited");
    assert!(bench.state_names("staging").is_empty());
    assert!(bench.state_names("versions").is_empty());
}

#[test]
fn rename_over_the_file_between_check_and_exchange_is_put_back() {
    let mut bench = Bench::new();
    bench.write("f", b"old");
    bench.write("temp", b"new of the user");
    let expected = Expected::Present(bench.fingerprint("f"));
    let (temp, at) = (bench.at("temp"), bench.at("f"));
    at_moment(&mut bench, Before::Replace, move || std::fs::rename(&temp, &at).unwrap());
    assert_eq!(bench.apply_one(put("f", expected, b"new")), Outcome::Differs);
    assert_eq!(bench.read("f"), "new of the user");
}

/// Bench whose user edits `f` before the exchange and does `act` before it is put back.
fn twice_edited(act: fn(&Path)) -> Bench {
    let mut bench = Bench::new();
    bench.write("f", b"old");
    bench.write("temp", b"second");
    let expected = Expected::Present(bench.fingerprint("f"));
    let at = bench.at("");
    bench.disk.hook = Hook(Some(Box::new(move |now| match now {
        Before::Replace => std::fs::write(at.join("f"), b"first").unwrap(),
        Before::PutBack => act(&at),
        _ => {}
    })));
    assert_eq!(bench.apply_one(put("f", expected, b"new")), Outcome::Differs);
    bench
}

#[test]
fn second_edit_while_putting_back_stands_and_the_first_is_kept() {
    let bench = twice_edited(|store| std::fs::rename(store.join("temp"), store.join("f")).unwrap());
    assert_eq!(bench.read("f"), "second");
    let first = bench.disk.versions().find(ContentHash::of(b"first"));
    assert!(first.is_some(), "{:?}", bench.disk.versions().list(None));
    assert_eq!(bench.disk.versions().list(None)[0].reason, KeptBecause::Lost);
}

#[test]
fn edit_is_not_lost_if_the_file_is_removed_while_putting_back() {
    let bench = twice_edited(|store| std::fs::remove_file(store.join("f")).unwrap());
    assert_eq!(bench.read("f"), "first");
    assert!(bench.state_names("staging").is_empty());
}

#[test]
fn edit_between_check_and_removal_is_put_back() {
    let mut bench = Bench::new();
    bench.write("f", b"old");
    let expected = bench.fingerprint("f");
    let at = bench.at("f");
    at_moment(&mut bench, Before::Remove, move || std::fs::write(&at, b"edited").unwrap());
    assert_eq!(bench.apply_one(remove_file("f", expected)), Outcome::Differs);
    assert_eq!(bench.read("f"), "edited");
    assert!(bench.state_names("versions").is_empty());
}

#[test]
fn another_file_moved_by_mistake_goes_back() {
    let mut bench = Bench::new();
    bench.write("f", b"old");
    bench.write("temp", b"of the user");
    let expected = bench.fingerprint("f");
    let (temp, at) = (bench.at("temp"), bench.at("f"));
    at_moment(&mut bench, Before::Move, move || std::fs::rename(&temp, &at).unwrap());
    assert_eq!(bench.apply_one(move_to(tree("f"), tree("g"), expected)), Outcome::Differs);
    assert_eq!(bench.read("f"), "of the user");
    assert!(!bench.exists("g"));
}

#[test]
fn edit_while_being_moved_is_found_by_the_next_look() {
    let mut bench = Bench::new();
    bench.write("f", b"old");
    let expected = bench.fingerprint("f");
    let at = bench.at("f");
    at_moment(&mut bench, Before::Move, move || std::fs::write(&at, b"edited").unwrap());
    let left = done(&bench.apply_one(move_to(tree("f"), tree("g"), expected)));
    assert_eq!(described(&bench.list_knowing("", &[(name("g"), left)])), ["g file"]);
}

#[test]
fn nothing_is_written_through_a_link_to_the_outside() {
    let mut bench = Bench::new();
    let outside = bench.scratch.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("f"), b"precious").unwrap();
    bench.write("d/f", b"x");
    let inside = bench.fingerprint("d/f");
    std::fs::rename(bench.at("d"), bench.at("real")).unwrap();
    std::os::unix::fs::symlink(&outside, bench.at("d")).unwrap();
    let batch = [
        put("d/new", Expected::Absent, b"x"),
        put("d/f", Expected::Present(inside), b"x"),
        make_directory("d/dir"),
        remove_file("d/f", inside),
        move_to(tree("d/f"), tree("stolen"), inside),
        Effect::SetAttributes {
            at: tree("d/f"),
            expected: inside,
            attributes: Attributes::with_mode(0o777),
            body: pleach_core::values::Body::File(content(b"x")),
        },
    ];
    for (outcome, effect) in bench.disk.apply(&batch).iter().zip(&batch) {
        assert_eq!(*outcome, Outcome::Differs, "{effect:?}");
    }
    assert_eq!(std::fs::read(outside.join("f")).unwrap(), b"precious");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(bench.read_as("d/f", inside), ReadState::Unsettled);
}

#[test]
fn directory_swapped_for_a_link_in_the_middle_of_a_batch_is_not_followed() {
    let mut bench = Bench::new();
    let outside = bench.scratch.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    bench.write("d/f", b"x");
    bench.write("g", b"x");
    let g = bench.fingerprint("g");
    let (at, to) = (bench.at(""), outside.clone());
    at_moment(&mut bench, Before::Move, move || {
        std::fs::rename(at.join("d"), at.join("real")).unwrap();
        std::os::unix::fs::symlink(&to, at.join("d")).unwrap();
    });
    let outcomes =
        bench.disk.apply(&[move_to(tree("g"), tree("h"), g), put("d/n", Expected::Absent, b"x")]);
    done(&outcomes[0]);
    assert_eq!(outcomes[1], Outcome::Differs);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn state_of_the_store_can_not_be_written_by_an_effect() {
    let mut bench = Bench::new();
    for forbidden in [".pleach/config.toml", "d/.pleach", ".pleach/versions/index"] {
        let outcome = bench.apply_one(put(forbidden, Expected::Absent, b"x"));
        let Outcome::Failed(problem) = outcome else { panic!("{outcome:?}") };
        assert_eq!(problem.kind, ProblemKind::UnsupportedName);
    }
    assert!(!bench.exists(".pleach/config.toml"));
}

#[test]
fn nothing_is_done_when_the_root_is_lost() {
    let mut bench = Bench::new();
    std::fs::rename(bench.at(""), bench.scratch.path().join("elsewhere")).unwrap();
    let outcome = bench.apply_one(put("f", Expected::Absent, b"x"));
    let Outcome::Failed(problem) = outcome else { panic!("{outcome:?}") };
    assert_eq!(problem.kind, ProblemKind::RootLost);
}
