//! Whoever restores or settles something looks at the file next: it is on that master's disk by then.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::fs;
use std::time::Duration;

use pleach_tests::daemons::{
    Cluster, KINDS, Kind, Master, await_open, in_conflict, long, resolve, shell, wait_until, write,
};
use serde_json::Value;

fn read(master: &Master, path: &str) -> String {
    fs::read_to_string(master.path(path)).unwrap_or_else(|error| format!("({path}: {error})"))
}

/// The id of the oldest version of a file.
fn oldest(master: &Master, path: &str) -> String {
    let versions = master.pleach(["versions", path, "--json"]).ok().json();
    versions.as_array().unwrap().last().unwrap()["version"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_restored_is_there_when_the_command_ends() {
    let cluster = Cluster::of(2);
    let a = &cluster.masters[0];
    let _ = a.pleach(["set", "mass_delete_guard", "false", "--dir", "."]).ok();
    shell(a.directory(), "mkdir site; for n in $(seq 0 299); do echo $n > site/$n; done");
    for number in 0..8 {
        write(&a.path(&format!("{number}")), format!("old {number}\n"));
    }
    cluster.settle_to(0, "what was before");
    let before = a.pleach(["log", "--limit", "1", "--json"]).ok().json();
    let at = before[0]["time_ms"].as_i64().unwrap();
    let at = format!("@{}.{:03}", at / 1_000, at % 1_000);
    for number in 0..8 {
        write(&a.path(&format!("{number}")), format!("new {number}\n"));
    }
    shell(a.directory(), "rm -r site");
    cluster.settle_to(0, "what is to be undone");
    for master in &cluster.masters {
        for number in 0..8 {
            let path = number.to_string();
            let version = oldest(master, &path);
            let _ = master.pleach(["restore", &path, "--version", &version]).ok();
            assert_eq!(read(master, &path), format!("old {number}\n"));
            write(&master.path(&path), format!("new {number}\n"));
            cluster.flush(master);
        }
        let ran = master.pleach(["restore", "site", "--at", &at]).ok();
        assert_eq!(ran.stderr, "");
        for number in 0..300 {
            assert_eq!(read(master, &format!("site/{number}")), format!("{number}\n"));
        }
        shell(master.directory(), "rm -r site");
        cluster.settle("it is gone again");
    }
}

#[test]
fn what_is_settled_is_there_when_the_command_ends() {
    let kinds: [Kind; 40] = std::array::from_fn(|number| Kind {
        directory: Box::leak(format!("d{number}").into_boxed_str()),
        ..KINDS[0]
    });
    let cluster = in_conflict(&kinds);
    let c = &cluster.masters[2];
    let others = |kind: &Kind| {
        let path = format!("{}/f", kind.directory);
        let shown = c.pleach(["conflicts", "show", &path, "--json"]).ok().json();
        let versions = shown[0]["versions"].as_array().unwrap().clone();
        let other = versions.into_iter().find(|version| version["stands"] == false).unwrap();
        (path, other)
    };
    let text = |version: &Value| match version["master"]["name"].as_str() {
        Some("a") => "from a\n",
        _ => "of b\n",
    };
    for kind in &kinds[..20] {
        let (path, other) = others(kind);
        let ran = resolve(c, &[&path, "--keep", other["id"].as_str().unwrap()]).ok();
        assert_eq!((read(c, &path), &*ran.stderr), (text(&other).to_owned(), ""));
    }
    // The rest at once, on a master that wrote one of the versions.
    let a = &cluster.masters[0];
    await_open(&cluster, kinds.len() - 20);
    let ran = resolve(a, &["--all", "--keep", "theirs"]).ok();
    assert_eq!(ran.stderr, "");
    for kind in &kinds[20..] {
        assert_eq!(read(a, &format!("{}/f", kind.directory)), "of b\n");
    }
}

#[test]
fn what_is_restored_is_there_at_once_while_much_else_is_in_hand() {
    let cluster = Cluster::of(2);
    let [a, b] = &cluster.masters[..] else { panic!("two masters") };
    for text in ["old\n", "new\n"] {
        write(&b.path("f"), text);
        cluster.settle_to(1, "f");
    }
    let version = oldest(b, "f");
    cluster.isolate(1, true);
    let many = if long() { 100_000 } else { 6_000 };
    shell(a.directory(), &format!("mkdir many; cd many; seq 0 {many} | xargs touch"));
    cluster.flush(a);
    cluster.heal_all();
    let pending = || b.status().number("/work/effects_pending");
    wait_until("b has much to do", Duration::from_secs(60), || match pending() {
        0 => Err("nothing".to_owned()),
        _ => Ok(()),
    });
    let ran = b.pleach(["restore", "f", "--version", &version]).ok();
    assert_eq!((read(b, "f"), &*ran.stderr), ("old\n".to_owned(), ""));
    cluster.settle_to(0, "all of it");
}

#[test]
fn what_cannot_be_put_in_place_is_said_and_is_no_failure() {
    let cluster = Cluster::of(2);
    let a = &cluster.masters[0];
    write(&a.path("d/f"), "old\n");
    cluster.settle_to(0, "f");
    fs::remove_file(a.path("d/f")).unwrap();
    cluster.settle_to(0, "its removal");
    if !shell_ok(a, "chattr +i d") {
        println!("skipped: this file system has no immutable directories, or it is not root's");
        return;
    }
    let ran = a.pleach(["restore", "d/f"]);
    let problems = a.status();
    assert!(shell_ok(a, "chattr -i d"));
    assert_eq!((ran.code, ran.stderr.lines().count()), (0, 1), "{ran}");
    assert!(ran.stderr.contains("does not have it yet: see `pleach status`"), "{ran}");
    assert_eq!(problems.list("/problems").len(), 1, "{:#}", problems.0);
    cluster.settle_as("it is there once it can be", |tree| {
        match tree.entries.contains_key(std::path::Path::new("d/f")) {
            true => Ok(()),
            false => Err("it is not".to_owned()),
        }
    });
}

fn shell_ok(master: &Master, command: &str) -> bool {
    let mut shell = std::process::Command::new("sh");
    let ran = shell.args(["-c", command]).current_dir(master.directory()).output();
    ran.is_ok_and(|ran| ran.status.success())
}
