//! The ignore rules.

use super::*;

#[test]
fn ignored_names_are_neither_found_nor_gone() {
    let mut bench = Bench::new();
    bench.write("keep", b"x");
    bench.write("a.log", b"x");
    bench.write("cache/f", b"x");
    let known: Vec<_> =
        [(name("a.log"), bench.fingerprint("a.log")), (name("b.log"), bench.fingerprint("keep"))]
            .to_vec();
    bench.write(".pleachignore", b"*.log\ncache/\n.pleachignore\n");
    let found = described(&bench.list_knowing("", &known));
    let expected =
        [".pleachignore file", "a.log ignored", "b.log ignored", "cache ignored", "keep file"];
    assert_eq!(found, expected);
    assert_eq!(described(&bench.list("cache")), ["f ignored"]);
}

#[test]
fn ignored_paths_are_not_written() {
    let mut bench = Bench::new();
    bench.write(".pleachignore", b"*.log\n/cache/\n!keep.log\n");
    bench.write("f", b"x");
    let f = bench.fingerprint("f");
    let outcomes = bench.disk.apply(&[
        put("a.log", Expected::Absent, b"x"),
        make_directory("cache"),
        put("cache/x", Expected::Absent, b"x"),
        move_to(tree("f"), tree("f.log"), f),
        put("keep.log", Expected::Absent, b"x"),
    ]);
    assert_eq!(outcomes[..4], [const { Outcome::Ignored }; 4]);
    done(&outcomes[4]);
    assert!(bench.state_names("staging").is_empty());
}

#[test]
fn rules_are_read_again_when_they_change() {
    let mut bench = Bench::new();
    bench.write("f", b"x");
    assert_eq!(described(&bench.list("")), ["f file"]);
    let generation = bench.disk.ignore_generation();
    bench.write(".pleachignore", b"f\n");
    assert_eq!(described(&bench.list("")), [".pleachignore file", "f ignored"]);
    assert!(bench.disk.ignore_generation() > generation);
    std::fs::remove_file(bench.at(".pleachignore")).unwrap();
    assert_eq!(described(&bench.list("")), ["f file"]);
}

#[test]
fn bad_line_is_a_problem_and_the_rest_counts() {
    let mut bench = Bench::new();
    bench.write("f", b"x");
    bench.write(".pleachignore", b"f\na{b\n[z-a]\n\xff\n");
    assert_eq!(described(&bench.list("")), [".pleachignore file", "f ignored"]);
    assert!(!bench.disk.ignore_problems().is_empty());
    assert!(bench.disk.ignore_problems()[0].reason.contains("line"));
}
