//! What effects do to a tree, and what they leave alone.

use pleach_core::values::Body;

use super::*;

#[test]
fn file_is_put_with_its_mode_and_mtime() {
    let mut bench = Bench::new();
    let outcome = bench.apply_one(put("f", Expected::Absent, b"hello"));
    assert_eq!(done(&outcome), bench.fingerprint("f"));
    assert_eq!(bench.read("f"), "hello");
    assert_eq!(mode_of(&bench.at("f")), 0o644);
    assert_eq!(mtime_of(&bench.at("f")), (MTIME.seconds, i64::from(MTIME.nanos)));
    assert!(bench.state_names("staging").is_empty());
}

#[test]
fn content_that_a_conflict_took_from_the_staging_area_is_put_all_the_same() {
    let mut bench = Bench::new();
    let hash = content(b"equal").hash;
    bench.disk.staging().insert(hash, b"equal").unwrap();
    bench.disk.retain(hash, None).unwrap();
    let Effect::PutFile { at, expected, content, attributes, .. } =
        put("f", Expected::Absent, b"equal")
    else {
        unreachable!()
    };
    let source = PutSource::Staged;
    let outcome = bench.apply_one(Effect::PutFile { at, expected, content, attributes, source });
    done(&outcome);
    assert_eq!(bench.read("f"), "equal");
    assert!(bench.disk.versions().find(hash).is_some());
}

#[test]
fn file_that_a_user_made_first_is_left_alone() {
    let mut bench = Bench::new();
    bench.write("f", b"theirs");
    assert_eq!(bench.apply_one(put("f", Expected::Absent, b"ours")), Outcome::Differs);
    assert_eq!(bench.read("f"), "theirs");
    assert!(bench.state_names("staging").is_empty());
}

#[test]
fn file_is_replaced_and_the_old_one_kept() {
    let mut bench = Bench::new();
    bench.write("f", b"old");
    let expected = Expected::Present(bench.fingerprint("f"));
    let outcome = bench.apply_one(put("f", expected, b"new"));
    assert_eq!(done(&outcome), bench.fingerprint("f"));
    assert_eq!(bench.read("f"), "new");
    let kept = bench.disk.versions().list(Some(&path("f")));
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].reason, KeptBecause::Replaced);
    assert!(bench.disk.versions().find(ContentHash::of(b"old")).is_some());
    assert!(bench.state_names("staging").is_empty());
}

#[test]
fn file_that_differs_from_what_was_expected_is_not_replaced() {
    let mut bench = Bench::new();
    bench.write("f", b"old");
    let expected = Expected::Present(bench.fingerprint("f"));
    bench.write("f", b"edited");
    assert_eq!(bench.apply_one(put("f", expected, b"new")), Outcome::Differs);
    assert_eq!(bench.read("f"), "edited");
    std::fs::remove_file(bench.at("f")).unwrap();
    assert_eq!(bench.apply_one(put("f", expected, b"new")), Outcome::Differs);
    std::fs::create_dir(bench.at("f")).unwrap();
    assert_eq!(bench.apply_one(put("f", expected, b"new")), Outcome::Differs);
    assert!(bench.state_names("staging").is_empty());
}

#[test]
fn removed_file_is_kept_and_directory_with_a_new_file_in_it_stays() {
    let mut bench = Bench::new();
    bench.write("d/f", b"x");
    let (directory, file) = (bench.fingerprint("d"), bench.fingerprint("d/f"));
    bench.write("d/new", b"y");
    let outcomes = bench.disk.apply(&[
        remove_file("d/f", file),
        Effect::RemoveDirectory { at: tree("d"), expected: directory },
    ]);
    assert!(done(&outcomes[0]).same_bytes(&file));
    assert_eq!(outcomes[1], Outcome::Differs);
    assert!(!bench.exists("d/f"));
    assert_eq!(bench.disk.versions().list(None)[0].reason, KeptBecause::Deleted);
    let new = bench.fingerprint("d/new");
    let outcomes = bench.disk.apply(&[
        remove_file("d/new", new),
        Effect::RemoveDirectory { at: tree("d"), expected: directory },
    ]);
    assert_eq!(done(&outcomes[1]), Fingerprint { ..done(&outcomes[1]) });
    assert!(!bench.exists("d"));
}

#[test]
fn names_are_swapped_through_the_parking() {
    let mut bench = Bench::new();
    bench.write("a", b"a");
    bench.write("d/inside", b"b");
    let (a, d) = (bench.fingerprint("a"), bench.fingerprint("d"));
    let inside = bench.fingerprint("d/inside");
    let outcomes = bench.disk.apply(&[
        move_to(tree("d"), parked(7, ""), d),
        move_to(tree("a"), tree("d"), a),
        move_to(parked(7, "inside"), tree("out"), inside),
        move_to(parked(7, ""), tree("a"), d),
    ]);
    outcomes.iter().for_each(|outcome| _ = done(outcome));
    assert_eq!((bench.read("d"), bench.read("out")), ("a".into(), "b".into()));
    assert!(bench.at("a").is_dir());
    assert!(bench.state_names("parking").is_empty());
}

#[test]
fn what_is_not_in_the_parking_area_is_told_of_as_that() {
    let mut bench = Bench::new();
    bench.write("a", b"a");
    bench.write("there", b"b");
    let a = bench.fingerprint("a");
    done(&bench.disk.apply(&[move_to(tree("a"), parked(7, ""), a)])[0]);
    let outcomes = bench.disk.apply(&[
        move_to(parked(8, ""), tree("b"), a),
        Effect::RemoveFile { at: parked(8, ""), expected: a },
        move_to(parked(7, ""), tree("there"), a),
    ]);
    assert_eq!(outcomes, [Outcome::Unparked, Outcome::Unparked, Outcome::Differs]);
    assert_eq!(bench.state_names("parking"), ["7"]);
}

#[test]
fn effects_after_a_move_act_at_the_new_place() {
    let mut bench = Bench::new();
    bench.write("d/f", b"x");
    let (d, f) = (bench.fingerprint("d"), bench.fingerprint("d/f"));
    let outcomes = bench.disk.apply(&[
        put("d/g", Expected::Absent, b"before"),
        move_to(tree("d"), tree("e"), d),
        make_directory("d"),
        put("d/h", Expected::Absent, b"after"),
        put("e/f", Expected::Present(f), b"replaced"),
        put("e/f", Expected::Present(f), b"too late"),
    ]);
    outcomes[..5].iter().for_each(|outcome| _ = done(outcome));
    assert_eq!(outcomes[5], Outcome::Differs);
    assert_eq!(bench.read("e/g"), "before");
    assert_eq!(bench.read("d/h"), "after");
    assert_eq!(bench.read("e/f"), "replaced");
}

#[test]
fn file_moved_and_replaced_in_one_batch_is_still_the_expected_one() {
    let mut bench = Bench::new();
    bench.write("f", b"x");
    let f = bench.fingerprint("f");
    let outcomes = bench
        .disk
        .apply(&[move_to(tree("f"), tree("g"), f), put("g", Expected::Present(f), b"new")]);
    outcomes.iter().for_each(|outcome| _ = done(outcome));
    assert_eq!(bench.read("g"), "new");
}

#[test]
fn move_onto_something_and_of_something_else_does_nothing() {
    let mut bench = Bench::new();
    bench.write("a", b"a");
    bench.write("b", b"b");
    let (a, b) = (bench.fingerprint("a"), bench.fingerprint("b"));
    for effect in [
        move_to(tree("a"), tree("b"), a),
        move_to(tree("a"), tree("c"), b),
        move_to(tree("x"), tree("c"), b),
    ] {
        assert_eq!(bench.apply_one(effect), Outcome::Differs);
    }
    assert_eq!((bench.read("a"), bench.read("b")), ("a".into(), "b".into()));
}

#[test]
fn link_is_put_and_replaced_verbatim() {
    let mut bench = Bench::new();
    let link = |target: &str, expected| Effect::PutSymlink {
        at: tree("l"),
        expected,
        target: pleach_core::values::LinkTarget::new(target.as_bytes()).unwrap(),
        mtime: MTIME,
        attributes: Attributes::with_mode(0o777),
    };
    let first = done(&bench.apply_one(link("../no/where", Expected::Absent)));
    assert_eq!(first.modified, MTIME);
    let second = done(&bench.apply_one(link("/else", Expected::Present(first))));
    assert_eq!(second, bench.fingerprint("l"));
    assert_eq!(std::fs::read_link(bench.at("l")).unwrap(), Path::new("/else"));
}

#[test]
fn contents_come_from_staging_from_other_files_and_from_earlier_effects() {
    let mut bench = Bench::new();
    let from = |relative: &str, bytes: &[u8], source| Effect::PutFile {
        at: tree(relative),
        expected: Expected::Absent,
        content: content(bytes),
        attributes: Attributes::with_mode(0o600),
        source,
    };
    bench.write("local", b"local");
    bench.disk.staging().insert(ContentHash::of(b"fetched"), b"fetched").unwrap();
    let outcomes = bench.disk.apply(&[
        from("s1", b"fetched", PutSource::Staged),
        from("s2", b"fetched", PutSource::Staged),
        from("l", b"local", PutSource::Local(path("local"))),
        put("new", Expected::Absent, b"new"),
        from("copy", b"new", PutSource::Local(path("new"))),
        from("empty", b"", PutSource::Empty),
        from("wrong", b"other", PutSource::Local(path("local"))),
        from("absent", b"unknown", PutSource::Staged),
    ]);
    outcomes[..6].iter().for_each(|outcome| _ = done(outcome));
    for outcome in &outcomes[6..] {
        let Outcome::Failed(problem) = outcome else { panic!("{outcome:?}") };
        assert_eq!(problem.kind, pleach_core::values::ProblemKind::ContentMissing);
    }
    let read = ["s1", "s2", "l", "copy", "empty"].map(|relative| bench.read(relative));
    assert_eq!(read, ["fetched", "fetched", "local", "new", ""]);
    assert!(bench.state_names("staging").is_empty());
}

#[test]
fn fetched_content_that_can_not_be_put_is_still_there_for_the_next_try() {
    let mut bench = Bench::new();
    let hash = ContentHash::of(b"fetched");
    bench.disk.staging().insert(hash, b"fetched").unwrap();
    bench.write("f", b"theirs");
    let effect = Effect::PutFile {
        at: tree("f"),
        expected: Expected::Absent,
        content: content(b"fetched"),
        attributes: Attributes::with_mode(0o600),
        source: PutSource::Staged,
    };
    assert_eq!(bench.apply_one(effect), Outcome::Differs);
    assert!(bench.disk.staging().has(hash));
}

#[test]
fn holes_stay_holes() {
    use std::os::unix::fs::MetadataExt as _;
    let mut bench = Bench::new();
    let mut bytes = vec![0; 8 << 20];
    bytes[5 << 20] = 1;
    done(&bench.apply_one(put("f", Expected::Absent, &bytes)));
    assert_eq!(std::fs::read(bench.at("f")).unwrap(), bytes);
    let copy = Effect::PutFile {
        at: tree("g"),
        expected: Expected::Absent,
        content: content(&bytes),
        attributes: Attributes::with_mode(0o600),
        source: PutSource::Local(path("f")),
    };
    done(&bench.apply_one(copy));
    for file in ["f", "g"] {
        let allocated = bench.at(file).metadata().unwrap().blocks() * 512;
        assert!(allocated < 1 << 20, "{file}: {allocated} bytes");
    }
}

#[test]
fn tree_of_a_thousand_levels_is_made_filled_and_listed() {
    let mut bench = Bench::new();
    let mut names = Vec::new();
    let mut batch = Vec::new();
    for _ in 0..1000 {
        names.push(name("eleven_byte"));
        let at = Location::Tree(TreePath::new(names.clone()));
        batch.push(Effect::MakeDirectory { at, attributes: Attributes::with_mode(0o755) });
    }
    let deepest = TreePath::new(names);
    let Effect::PutFile { expected, content, attributes, source, .. } =
        put("f", Expected::Absent, b"deep")
    else {
        unreachable!()
    };
    let at = Location::Tree(deepest.join(&name("f")));
    batch.push(Effect::PutFile { at, expected, content, attributes, source });
    bench.disk.apply(&batch).iter().for_each(|outcome| _ = done(outcome));
    let request = ListRequest { path: deepest, only: None, known: Vec::new() };
    let looked = bench.disk.look(&Look { lists: vec![request], reads: Vec::new() });
    assert_eq!(described(&looked.lists[0].state), ["f file"]);
}

#[test]
fn directory_made_and_filled_in_one_batch_gets_its_mode_and_mtime_at_the_end() {
    let mut bench = Bench::new();
    std::fs::create_dir(bench.at("other")).unwrap();
    let just_made = Fingerprint { device: 0, inode: 0, ..bench.fingerprint("other") };
    let set = |path: &str| {
        let Effect::MakeDirectory { at, .. } = make_directory(path) else { unreachable!() };
        let expected = just_made;
        let attributes = Attributes::with_mode(0o750);
        Effect::SetAttributes { at, expected, attributes, body: Body::Directory { mtime: MTIME } }
    };
    let batch = [
        make_directory("d"),
        make_directory("d/e"),
        put("d/e/f", Expected::Absent, b"f"),
        set("d"),
        set("d/e"),
    ];
    bench.disk.apply(&batch).iter().for_each(|outcome| _ = done(outcome));
    for directory in ["d", "d/e"] {
        assert_eq!(mode_of(&bench.at(directory)), 0o750);
        let mtime = mtime_of(&bench.at(directory));
        assert_eq!(mtime, (MTIME.seconds, i64::from(MTIME.nanos)), "{directory}");
    }
    assert_eq!(bench.apply_one(set("d")), Outcome::Differs);
}

#[test]
fn many_files_in_one_batch_are_all_there() {
    let mut bench = Bench::new();
    let mut batch = vec![make_directory("d")];
    for index in 0..500 {
        batch.push(put(&format!("d/{index}"), Expected::Absent, format!("{index}").as_bytes()));
    }
    bench.disk.apply(&batch).iter().for_each(|outcome| _ = done(outcome));
    assert_eq!(bench.read("d/499"), "499");
    assert!(bench.state_names("staging").is_empty());
}
