//! Most of a tree is gone from one master's disk: nothing of that reaches the others before a person has said
//! that it was meant, and if it was not, it comes back.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::fs;
use std::time::Duration;

use pleach_tests::daemons::{Cluster, Master, shell, small_files, wait_until, write};

const PATIENCE: Duration = Duration::from_secs(60);
const FILES: usize = 2_200;
/// So much may go before anybody is asked.
const ALWAYS: usize = 1_000;

fn filled() -> Cluster {
    let cluster = Cluster::holding(2, |number, master| {
        if number == 0 {
            small_files(&master.path("site"), FILES, 40);
            write(&master.path("keep/page"), "one\n");
        }
    });
    cluster.settle("the files");
    cluster
}

fn files_in(master: &Master, directory: &str) -> usize {
    match master.path(directory).is_dir() {
        true => master.tree_below(directory).file_count(),
        false => 0,
    }
}

/// What waits on `master`: how many entries are gone.
fn await_held(master: &Master) -> u64 {
    wait_until("the guard holds what is gone", PATIENCE, || {
        let status = master.status();
        let kinds = status.list("/problems").iter().map(|problem| problem["kind"].clone());
        let kinds: Vec<_> = kinds.collect();
        match kinds.iter().any(|kind| kind == "mass_delete") {
            true => Ok(()),
            false => Err(format!("{kinds:?}")),
        }
    });
    let report = master.pleach(["guard", "--json"]).ok().json();
    assert!(!report["paths"].as_array().unwrap().is_empty());
    report["entries"].as_u64().unwrap()
}

fn await_text(master: &Master, path: &str, text: &str) {
    wait_until(&format!("{path} on {}", master.name()), PATIENCE, || {
        let found = fs::read_to_string(master.path(path)).unwrap_or_default();
        if found == text { Ok(()) } else { Err(found) }
    });
}

#[test]
fn removal_of_most_of_the_tree_waits_for_a_person_while_all_else_goes_on() {
    let cluster = filled();
    let [a, b] = &cluster.masters[..] else { unreachable!("two were started") };
    let _ = shell(a.directory(), "rm -rf site").ok();
    let held = await_held(a);
    let left = files_in(b, "site");
    assert!(left >= FILES - ALWAYS, "only {left} are left");
    assert!(held as usize >= left, "{held} wait, {left} are left on the other");
    assert!(a.pleach(["wait", "--timeout", "1s"]).stdout.contains("pleach guard"));

    write(&a.path("keep/page"), "two\n");
    await_text(b, "keep/page", "two\n");
    write(&b.path("keep/other"), "three\n");
    await_text(a, "keep/other", "three\n");
    // Not put back by an edit: that waits as well.
    let file = b.tree_below("site").entries.keys().next_back().unwrap().clone();
    let file = format!("site/{}", file.display());
    write(&b.path(&file), "edited\n");
    await_text(b, &file, "edited\n");
    assert!(!a.path("site").exists());

    let told = a.pleach(["guard", "--undo"]).ok().stdout;
    assert!(told.contains("coming back"), "{told}");
    cluster.settle("what was removed is back");
    assert_eq!(files_in(a, "site"), left);
    await_text(a, &file, "edited\n");
    assert!(a.conflicts().is_empty());
    assert!(a.pleach(["guard"]).ok().stdout.contains("nothing waits"));

    let _ = shell(b.directory(), "rm -rf site").ok();
    let _ = await_held(b);
    assert!(files_in(a, "site") >= left - ALWAYS);
    let told = b.pleach(["guard", "--allow"]).ok().stdout;
    assert!(told.contains("removed on all masters"), "{told}");
    let tree =
        cluster.settle_as("it was meant", |tree| match tree.below("site").entries.is_empty() {
            true => Ok(()),
            false => Err("there are still files".to_owned()),
        });
    assert_eq!(tree.file_count(), 2);
}

#[test]
fn what_went_while_no_daemon_ran_is_held_whole_and_after_a_restart_too() {
    let mut cluster = filled();
    cluster.masters[0].stop();
    let _ = shell(cluster.masters[0].directory(), "rm -rf site").ok();
    for start in 0..2 {
        cluster.masters[0].start();
        let held = await_held(&cluster.masters[0]);
        assert!(held as usize >= FILES, "start {start}: {held} wait");
        if start == 0 {
            cluster.masters[0].kill();
        }
    }
    assert_eq!(files_in(&cluster.masters[1], "site"), FILES, "nothing went");
    // What comes back by itself, a mount for example, is there.
    let _ = shell(
        cluster.masters[0].directory(),
        &format!("cp -a '{}' .", cluster.masters[1].path("site").display()),
    )
    .ok();
    cluster.settle("it came back");
    assert_eq!(files_in(&cluster.masters[0], "site"), FILES);
    assert!(cluster.masters[0].conflicts().is_empty());
    assert!(cluster.masters[0].status().list("/problems").is_empty());
}

#[test]
fn guard_can_be_switched_off_for_all_masters_on_one() {
    let cluster = filled();
    let [a, b] = &cluster.masters[..] else { unreachable!("two were started") };
    let wrong = a.pleach(["set", "mass_delete_guard", "maybe"]);
    assert_eq!(wrong.code, 1, "{wrong}");
    assert!(wrong.stderr.contains("true, false"), "{wrong}");
    assert_eq!(a.pleach(["set", "mass_delete_gard", "false"]).code, 1);
    let _ = a.pleach(["set", "mass_delete_guard", "false"]).ok();
    wait_until("the other knows", PATIENCE, || {
        let settings = b.pleach(["set", "mass_delete_guard", "--json"]).ok().json();
        match settings[0]["value"] == "false" {
            true => Ok(()),
            false => Err(settings.to_string()),
        }
    });
    let _ = shell(b.directory(), "rm -rf site").ok();
    let tree = cluster.settle_as("it went", |tree| match tree.below("site").entries.is_empty() {
        true => Ok(()),
        false => Err("there are still files".to_owned()),
    });
    assert_eq!(tree.file_count(), 1);
}
