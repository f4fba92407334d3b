//! What a look sees, and what it does not.

use std::os::unix::ffi::OsStrExt as _;

use pleach_core::values::ProblemKind;

use super::*;

#[test]
fn listing_tells_kinds_apart_and_hides_the_state() {
    let mut bench = Bench::new();
    bench.write("d/f", b"x");
    bench.write("f", b"x");
    std::os::unix::fs::symlink("/etc/passwd", bench.at("l")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, bench.at("p"), rustix::fs::Mode::RWXU).unwrap();
    let found = described(&bench.list(""));
    assert_eq!(found, ["d directory", "f file", "l -> /etc/passwd", "p SpecialFile"]);
}

#[test]
fn what_is_known_and_unchanged_is_only_counted() {
    let mut bench = Bench::new();
    bench.write("same", b"x");
    bench.write("changed", b"x");
    bench.write("deleted", b"x");
    let known: Vec<_> =
        ["same", "changed", "deleted"].map(|n| (name(n), bench.fingerprint(n))).to_vec();
    bench.write("changed", b"longer");
    bench.write("new", b"x");
    std::fs::remove_file(bench.at("deleted")).unwrap();
    let state = bench.list_knowing("", &known);
    assert_eq!(described(&state), ["changed file", "new file", "deleted gone"]);
    assert!(matches!(state, DirectoryState::Readable { unchanged: 1, .. }), "{state:?}");
}

#[test]
fn same_size_and_restored_mtime_are_given_away_by_the_change_time() {
    let mut bench = Bench::new();
    bench.write("f", b"one");
    let known = [(name("f"), bench.fingerprint("f"))];
    let modified = bench.at("f").metadata().unwrap().modified().unwrap();
    // A new file has another inode, or another change time: the kernel's clock ticks in milliseconds.
    while bench.list_knowing("", &known) == bench.list_knowing("", &known)
        && described(&bench.list_knowing("", &known)).is_empty()
    {
        bench.write("f", b"two");
        let file = std::fs::File::options().write(true).open(bench.at("f")).unwrap();
        file.set_modified(modified).unwrap();
    }
    assert_eq!(described(&bench.list_knowing("", &known)), ["f file"]);
}

#[test]
fn names_asked_for_are_statted_alone() {
    let mut bench = Bench::new();
    bench.write("a", b"x");
    bench.write("b", b"x");
    let known = vec![(name("c"), bench.fingerprint("a"))];
    let only = Some(vec![name("a"), name("c"), name(".pleach")]);
    let request = ListRequest { path: path(""), only, known };
    let looked = bench.disk.look(&Look { lists: vec![request], reads: Vec::new() });
    assert_eq!(described(&looked.lists[0].state), ["a file", "c gone"]);
}

#[test]
fn missing_directory_is_missing_and_a_link_to_one_is_too() {
    let mut bench = Bench::new();
    bench.write("f", b"x");
    std::os::unix::fs::symlink("/etc", bench.at("link")).unwrap();
    for nowhere in ["d", "d/e", "f", "f/g", "link", "link/apt"] {
        assert_eq!(bench.list(nowhere), DirectoryState::Missing, "{nowhere}");
    }
}

#[test]
fn odd_names_survive() {
    let mut bench = Bench::new();
    let long = "n".repeat(255);
    for odd in [&b"\xff\xfe"[..], b"new\nline", b"-rf", long.as_bytes()] {
        std::fs::write(bench.at("").join(std::ffi::OsStr::from_bytes(odd)), b"x").unwrap();
    }
    let found = described(&bench.list(""));
    let long_found = format!("{long} file");
    assert_eq!(found, ["-rf file", r"new\nline file", &long_found, r"\xff\xfe file"]);
}

#[test]
fn state_directory_of_another_store_below_the_root_is_skipped() {
    let mut bench = Bench::new();
    bench.write("d/.pleach/config.toml", b"x");
    assert_eq!(described(&bench.list("d")), [".pleach UnsupportedName"]);
}

#[test]
fn stable_read_has_hash_and_small_bytes() {
    let mut bench = Bench::new();
    bench.write("small", b"hello");
    bench.write("large", &[7; 300_000]);
    let fingerprint = bench.fingerprint("small");
    let expected = ReadState::Stable {
        hash: ContentHash::of(b"hello"),
        fingerprint,
        bytes: Some(b"hello".to_vec()),
    };
    assert_eq!(bench.read_as("small", fingerprint), expected);
    let fingerprint = bench.fingerprint("large");
    let expected =
        ReadState::Stable { hash: ContentHash::of(&[7; 300_000]), fingerprint, bytes: None };
    assert_eq!(bench.read_as("large", fingerprint), expected);
}

#[test]
fn file_that_changed_since_it_was_seen_is_unsettled() {
    let mut bench = Bench::new();
    bench.write("f", b"one");
    let fingerprint = bench.fingerprint("f");
    bench.write("f", b"another");
    assert_eq!(bench.read_as("f", fingerprint), ReadState::Unsettled);
    std::fs::remove_file(bench.at("f")).unwrap();
    assert_eq!(bench.read_as("f", fingerprint), ReadState::Unsettled);
}

#[test]
fn lost_root_is_unknown_and_nothing_is_gone() {
    for lose in [
        (|bench: &Bench| std::fs::rename(bench.at(""), bench.scratch.path().join("x")).unwrap())
            as fn(&Bench),
        |bench| std::fs::rename(bench.at(".pleach"), bench.at("state")).unwrap(),
        |bench| {
            std::fs::rename(bench.at(""), bench.scratch.path().join("x")).unwrap();
            std::fs::create_dir(bench.at("")).unwrap();
        },
    ] {
        let mut bench = Bench::new();
        bench.write("f", b"x");
        let known = [(name("f"), bench.fingerprint("f"))];
        lose(&bench);
        let state = bench.list_knowing("", &known);
        let DirectoryState::Unknown(problem) = state else { panic!("{state:?}") };
        assert_eq!(problem.kind, ProblemKind::RootLost);
    }
}

#[test]
fn many_requests_are_answered_in_their_order() {
    let mut bench = Bench::new();
    for index in 0..200 {
        bench.write(&format!("d{index}/f{index}"), format!("{index}").as_bytes());
    }
    let lists = (0..200)
        .map(|index| ListRequest { path: path(&format!("d{index}")), only: None, known: vec![] })
        .collect();
    let looked = bench.disk.look(&Look { lists, reads: Vec::new() });
    for (index, listed) in looked.lists.iter().enumerate() {
        assert_eq!(described(&listed.state), [format!("f{index} file")]);
    }
}
