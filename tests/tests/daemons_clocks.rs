//! Wall clocks that jump, by hours and by years, in both directions: they order nothing, and nothing is lost.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::fs;

use pleach_tests::daemons::{Cluster, Master, Tree, WallClock, await_open, set_mtime, write};
use serde_json::Value;

/// Masters whose clocks can be set while they run; none without faketime(1).
fn with_clocks(count: usize) -> Option<(Cluster, Vec<WallClock>)> {
    let mut cluster = Cluster::of(count);
    let of = |master: &Master| WallClock::of(cluster.scratch.path(), master.name());
    let clocks: Option<Vec<WallClock>> = cluster.masters.iter().map(of).collect();
    let clocks = clocks?;
    for (master, clock) in cluster.masters.iter_mut().zip(&clocks) {
        master.stop();
        master.start_with(&clock.environment());
    }
    cluster.await_connected();
    Some((cluster, clocks))
}

fn holds(tree: &Tree, path: &str, text: &str) -> Result<(), String> {
    let entry = tree.entries.get(std::path::Path::new(path));
    match entry.filter(|entry| entry.content == Some(blake3::hash(text.as_bytes()))) {
        Some(_) => Ok(()),
        None => Err(format!("{path} does not hold {text:?}: {entry:?}")),
    }
}

/// Where the clock of each is while everybody edits.
const OFFSETS: [[&str; 3]; 6] = [
    ["+0", "+26h", "-26h"],
    ["-9h", "+26h", "+26h"],
    ["+40d", "-40d", "+0"],
    ["-20y", "+20y", "+1h"],
    ["+3h", "-3h", "-20y"],
    ["+0", "+0", "+0"],
];

#[test]
fn last_edit_stands_whatever_the_clocks_say_and_none_is_ignored() {
    let Some((cluster, clocks)) = with_clocks(3) else { return };
    let mut edits = 0;
    for (round, offsets) in OFFSETS.iter().enumerate() {
        clocks.iter().zip(offsets).for_each(|(clock, offset)| clock.set(offset));
        for master in &cluster.masters {
            let text = format!("{} in round {round}\n", master.name());
            write(&master.path("shared"), &text);
            write(&master.path(&format!("of {}", master.name())), &text);
            // A program that sets its files' times by such a clock.
            set_mtime(&master.path("shared"), 1_000_000_000, 0);
            edits += 1;
            cluster.flush(master);
            cluster.settle_as("the last edit is on all", |tree| holds(tree, "shared", &text));
            assert!(master.conflicts().is_empty(), "each had seen the one before");
        }
    }
    for master in &cluster.masters {
        let log = master.pleach(["log", "shared", "--limit", "1000", "--json"]).ok().json();
        let wrote = |entry: &&Value| entry["what"] == "created" || entry["what"] == "edited";
        assert_eq!(log.as_array().unwrap().iter().filter(wrote).count(), edits, "{log:#}");
    }
}

#[test]
fn edits_made_at_once_are_a_conflict_whatever_the_clocks_say() {
    let Some((cluster, clocks)) = with_clocks(2) else { return };
    for (round, offsets) in [["+26h", "-26h"], ["-20y", "+20y"], ["+0", "+0"]].iter().enumerate() {
        let path = format!("f{round}");
        write(&cluster.masters[0].path(&path), "before\n");
        cluster.settle_to(0, "what was before");
        cluster.cut_all();
        clocks.iter().zip(offsets).for_each(|(clock, offset)| clock.set(offset));
        for master in &cluster.masters {
            write(&master.path(&path), format!("of {}\n", master.name()));
            cluster.flush(master);
        }
        cluster.heal_all();
        await_open(&cluster, round + 1);
    }
    cluster.settle("they are one again");
    for round in 0..3 {
        for master in &cluster.masters {
            let path = format!("f{round}");
            let shown = master.pleach(["conflicts", "show", &path, "--json"]).ok().json();
            let versions = shown[0]["versions"].as_array().unwrap();
            let mut texts: Vec<String> = versions
                .iter()
                .map(|version| {
                    let id = version["id"].as_str().unwrap();
                    master.pleach(["conflicts", "show", &path, "--content", id]).ok().stdout
                })
                .collect();
            texts.sort();
            assert_eq!(texts, ["of a\n", "of b\n"]);
        }
    }
}

/// What of a file's versions is on this disk.
fn kept(master: &Master, path: &str) -> usize {
    let versions = master.pleach(["versions", path, "--json"]).ok().json();
    versions.as_array().unwrap().iter().filter(|version| version["here"] == true).count()
}

#[test]
fn clock_far_ahead_throws_no_version_away() {
    let Some((mut cluster, clocks)) = with_clocks(2) else { return };
    for round in 0..5 {
        write(&cluster.masters[0].path("f"), format!("{round}\n"));
        cluster.settle_to(0, "an edit");
    }
    assert_eq!(kept(&cluster.masters[1], "f"), 5);
    // While it runs, and while it starts.
    for starts in [false, true] {
        clocks[1].set("+40d");
        if starts {
            cluster.masters[1].stop();
            cluster.masters[1].start_with(&clocks[1].environment());
            cluster.await_connected();
        }
        // What is put in place now comes after the first that it did: letting go of what is old.
        for round in 0..3 {
            write(&cluster.masters[0].path("g"), format!("{starts} {round}\n"));
            cluster.settle_to(0, "an edit in the future");
        }
        clocks[1].set("+0");
        assert_eq!(kept(&cluster.masters[1], "f"), 5, "{}", cluster.masters[1].log());
    }
    cluster.masters[0].stop();
    let b = &cluster.masters[1];
    let versions = b.pleach(["versions", "f", "--json"]).ok().json();
    let first = versions.as_array().unwrap().last().unwrap()["version"].as_str().unwrap();
    let _ = b.pleach(["restore", "f", "--version", first]).ok();
    assert_eq!(fs::read_to_string(b.path("f")).unwrap(), "0\n");
}
