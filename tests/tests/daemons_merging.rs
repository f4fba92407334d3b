//! What a person has made of the versions of a file, by hand or with a tool, is the resolution.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::fs;
use std::time::{Duration, Instant};

use pleach_tests::daemons::{
    Cluster, KINDS, Master, await_open, content, in_conflict, resolve, shell, shown, versions,
    wait_until, write,
};

#[test]
fn merge_tool_has_its_files_and_what_it_makes_is_the_resolution() {
    let cluster = in_conflict(&KINDS[..1]);
    let [a, _, c] = &cluster.masters[..] else { panic!("three masters") };
    let open = c.conflicts();
    let merge = |tool: &str| c.pleach(["conflicts", "diff", "edited/f", "--tool", tool]);
    let failed = merge("echo half > \"$MERGED\"; exit 3");
    assert_eq!(failed.code, 1, "{failed}");
    assert!(
        failed.stderr.contains("exit status: 3") && failed.stderr.contains("_MERGED"),
        "{failed}"
    );
    let unchanged = merge(": \"$MERGED\"");
    assert_eq!(unchanged.code, 1, "{unchanged}");
    assert!(unchanged.stderr.contains("left MERGED as it was"), "{unchanged}");
    assert_eq!(merge("no-such-tool").code, 2);
    let file = c.path("edited/f");
    let late = format!("echo merged > \"$MERGED\"; echo meanwhile >> '{}'", file.display());
    let late = merge(&late);
    assert_eq!(late.code, 1, "{late}");
    assert!(late.stderr.contains("edited/f: ") && late.stderr.contains("meanwhile"), "{late}");
    assert!(fs::read_to_string(&file).unwrap().ends_with("meanwhile\n"), "nothing is overwritten");
    let kept = late.stderr.split("what was merged is in ").nth(1).unwrap().trim();
    assert_eq!(fs::read_to_string(kept.lines().next().unwrap()).unwrap(), "merged\n");
    wait_until("c knows of its own edit", Duration::from_secs(60), || {
        let now = c.conflicts();
        if now == open { Err(format!("{now:#?}")) } else { Ok(()) }
    });
    let _ = merge("cat \"$BASE\" \"$LOCAL\" \"$REMOTE\" > \"$MERGED\"").ok();
    await_open(&cluster, 0);
    cluster.settle("what was merged is on all");
    let merged = fs::read_to_string(a.path("edited/f")).unwrap();
    let mut lines: Vec<_> = merged.lines().collect();
    assert_eq!(lines.remove(0), "0", "{merged}");
    lines.sort_unstable();
    assert_eq!(lines, ["from a", "meanwhile", "of b"]);
    assert_eq!(a.tree().entries[std::path::Path::new("edited/f")].mode, 0o640);
}

#[test]
fn file_that_was_edited_since_is_kept_as_it_is_at_that_moment() {
    let cluster = in_conflict(&[&KINDS[..2], &KINDS[5..6]].concat());
    let [a, _, c] = &cluster.masters[..] else { panic!("three masters") };
    let paths = ["edited/f", "same name/n", "deleted, edited/f"];
    let open = c.conflicts();
    for path in paths {
        let refused = resolve(c, &[path, "--keep", "merged"]);
        assert_eq!(refused.code, 1, "{refused}");
        assert!(
            refused.stderr.contains(&format!("{path}: nobody has edited it since ")),
            "{refused}"
        );
    }
    let all = resolve(c, &["--all", "--keep", "merged"]);
    assert_eq!(all.code, 1, "{all}");
    assert!(all.stderr.contains("3 of 3 were not settled"), "{all}");
    assert_eq!(c.conflicts(), open, "nothing is settled");

    let before = shown(c, paths[0]);
    let ids: Vec<_> = versions(&before).iter().map(|v| v["id"].as_str().unwrap()).collect();
    // The very last save counts, in place or by rename; nobody waits for the daemon to have seen it.
    for round in 0..20 {
        write(&c.path(paths[0]), format!("of all, {round}\n"));
    }
    let dry = resolve(c, &[paths[0], "--keep", "merged", "--dry-run", "--json"]).ok().json();
    assert_eq!((&dry[0]["outcome"], &dry[0]["kept"]), (&"would_settle".into(), &"merged".into()));
    // A script knows of the versions that it has read, and not yet of its own.
    let unknown = resolve(c, &[paths[0], "--keep", "merged", "--expect", ids[0]]);
    assert_eq!(unknown.code, 1, "{unknown}");
    assert!(unknown.stderr.contains("it is not as it was"), "{unknown}");
    let _ = resolve(c, &[paths[0], "--keep", "merged", "--expect", &ids.join(",")]).ok();
    shell(&c.path("same name"), "echo of two > n.new; mv n.new n");
    write(&c.path(paths[2]), "it lives\n");
    let _ = resolve(c, &["*/*", "--keep", "merged"]).ok();
    await_open(&cluster, 0);
    cluster.settle("what was made of them is on all");
    let on_a = paths.map(|path| fs::read_to_string(a.path(path)).unwrap());
    assert_eq!(on_a, ["of all, 19\n", "of two\n", "it lives\n"]);
}

#[test]
fn merge_that_does_not_know_of_a_version_is_not_kept() {
    let cluster = in_conflict(&KINDS[..1]);
    let [a, b, c] = &cluster.masters[..] else { panic!("three masters") };
    write(&a.path("edited/f"), "merged on a\n");
    cluster.flush(a);
    cluster.settle("the merge is on all");
    // Whoever has it may keep it.
    let _ = resolve(b, &["edited/f", "--keep", "merged", "--dry-run"]).ok();
    cluster.cut_all();
    write(&a.path("edited/f"), "merged on a once more\n");
    cluster.flush(a);
    write(&b.path("edited/f"), "meanwhile on b\n");
    cluster.flush(b);
    cluster.heal_all();
    cluster.settle("they are one again");
    let refused = resolve(c, &["edited/f", "--keep", "merged"]);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.stderr.contains("edited/f: nobody has edited it since "), "{refused}");
    let text = c.pleach(["conflicts", "show", "edited/f"]).ok().stdout;
    let newer = versions(&shown(c, "edited/f"))
        .iter()
        .filter(|version| !version["stands"].as_bool().unwrap())
        .filter(|version| refused.stderr.contains(version["id"].as_str().unwrap()))
        .count();
    assert_eq!(newer, 1, "{refused}{text}");

    write(&c.path("edited/f"), "of all\n");
    let _ = resolve(c, &["edited/f", "--keep", "merged"]).ok();
    await_open(&cluster, 0);
}

#[test]
fn what_all_go_back_to_comes_from_another_master_or_it_is_said_that_nobody_has_it() {
    let mut cluster = in_conflict(&KINDS[..1]);
    let path = "edited/f";
    let ancestor = |master: &Master| content(master, path, "ancestor");
    let diff = |master: &Master, tool: &[&str]| {
        master.pleach([&["conflicts", "diff", path], tool].concat())
    };
    // Who wrote over it in place has not kept it; c did, when it put what others wrote in its place.
    cluster.masters[2].stop();
    let a = &cluster.masters[0];
    assert_eq!(shown(a, path)["ancestor"]["here"], false);
    let missing = ancestor(a);
    assert_eq!((missing.code, &*missing.stdout), (1, ""), "{missing}");
    assert!(missing.stderr.contains("no connected master gave them"), "{missing}");
    let compared = diff(a, &[]).ok().stdout;
    assert!(compared.contains("go back to, by a "), "{compared}");
    assert!(compared.contains(" is on no connected master"), "{compared}");
    assert!(compared.contains("\n-") && compared.contains("\n+"), "{compared}");
    let without = diff(a, &["--tool", "wc -c < \"$BASE\"; exit 3"]);
    assert!(
        without.stdout.contains("BASE is empty\n") && without.stdout.ends_with("0\n"),
        "{without}"
    );

    cluster.masters[2].start();
    cluster.await_connected();
    let a = &cluster.masters[0];
    let start = Instant::now();
    let compared = diff(a, &[]).ok().stdout;
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "as soon as it is here, not when time is over"
    );
    assert!(compared.contains("--- ancestor a ") && compared.contains("\n-0\n"), "{compared}");
    cluster.masters[2].stop();
    let b = &cluster.masters[1];
    assert_eq!(ancestor(b).ok().stdout, "0\n", "a has it by now");
    let with = diff(b, &["--tool", "cat \"$BASE\"; exit 3"]);
    assert_eq!(with.stdout, "0\n", "{with}");
}

#[test]
fn three_versions_are_merged_one_after_the_other_or_not_at_all() {
    let cluster = Cluster::of(3);
    write(&cluster.masters[0].path("f"), "0\n");
    cluster.settle_to(0, "the file is on all");
    cluster.cut_all();
    for master in &cluster.masters {
        write(&master.path("f"), format!("0\n{}\n", master.name()));
        cluster.flush(master);
    }
    cluster.heal_all();
    wait_until("all have the three versions", Duration::from_secs(60), || {
        let open: Vec<_> = cluster.masters.iter().map(Master::conflicts).collect();
        let is_whole = |open: &Vec<_>| open.len() == 1 && versions(&open[0]).len() == 3;
        if open.iter().all(is_whole) { Ok(()) } else { Err(format!("{open:#?}")) }
    });
    cluster.settle("they are one again");
    let c = &cluster.masters[2];
    let (open, tree) = (c.conflicts(), c.tree());
    let count = cluster.scratch.path().join("count");
    let second =
        format!("echo more >> \"$MERGED\"; echo >> {0}; [ $(wc -l < {0}) -lt 2 ]", count.display());
    let merge = |tool: &str| c.pleach(["conflicts", "diff", "f", "--tool", tool]);
    let failed = merge(&second);
    assert_eq!(failed.code, 1, "{failed}");
    assert_eq!(fs::read_to_string(&count).unwrap().lines().count(), 2, "{failed}");
    assert!(failed.stderr.contains("what was merged is in "), "{failed}");
    let idle = merge(": \"$MERGED\"");
    assert!(idle.code == 1 && idle.stderr.contains("left MERGED as it was"), "{idle}");
    assert_eq!(c.conflicts(), open);
    assert_eq!(c.tree(), tree, "nothing is changed");

    let _ = merge("cat \"$BASE\" > /dev/null; tail -n1 \"$REMOTE\" >> \"$MERGED\"").ok();
    await_open(&cluster, 0);
    cluster.settle("what was merged is on all");
    let merged = fs::read_to_string(cluster.masters[0].path("f")).unwrap();
    let mut lines: Vec<_> = merged.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0", "a", "b", "c"], "{merged}");
}
