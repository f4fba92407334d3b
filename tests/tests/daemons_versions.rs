//! What was replaced is kept for as long as the settings say, and no longer.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use pleach_tests::daemons::{Cluster, Master, wait_until, write};

/// What makes a process believe in another time (faketime(1)), if it is installed.
fn faketime() -> Option<String> {
    let libraries = fs::read_dir("/usr/lib").ok()?.flatten();
    let paths = libraries.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    paths.filter(|path| path.exists()).map(|path: PathBuf| path.display().to_string()).next()
}

fn kept(master: &Master) -> BTreeSet<String> {
    let entries = fs::read_dir(master.path(".pleach/versions")).unwrap().flatten();
    let versions = entries.filter(|entry| entry.file_name() != "index");
    versions.filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect()
}

#[test]
fn old_versions_go_and_those_of_an_open_conflict_stay_until_it_is_settled() {
    let Some(library) = faketime() else {
        println!("skipped: faketime is not installed (apt-get install faketime)");
        return;
    };
    let mut cluster = Cluster::of(2);
    write(&cluster.masters[0].path("f"), "replaced on b");
    write(&cluster.masters[0].path("disputed"), "before");
    cluster.settle_to(0, "the files");
    write(&cluster.masters[0].path("f"), "new");
    cluster.settle_to(0, "f is replaced");
    cluster.cut_all();
    write(&cluster.masters[0].path("disputed"), "by a");
    write(&cluster.masters[1].path("disputed"), "by b");
    cluster.masters.iter().for_each(|master| cluster.flush(master));
    cluster.heal_all();
    cluster.settle("the conflict");
    let b = &mut cluster.masters[1];
    let standing = fs::read_to_string(b.path("disputed")).unwrap();
    let losing = if standing == "by a" { "by b" } else { "by a" };
    assert!(kept(b).is_superset(&BTreeSet::from(["replaced on b".into(), losing.into()])));

    b.stop();
    b.start_with(&[
        ("LD_PRELOAD", &library),
        ("FAKETIME", "+31d"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]);
    wait_until("only the conflict's version is kept", Duration::from_secs(20), || {
        let kept = kept(&cluster.masters[1]);
        if kept == BTreeSet::from([losing.to_owned()]) { Ok(()) } else { Err(format!("{kept:?}")) }
    });
    let b = &mut cluster.masters[1];
    b.stop();
    b.start();
    cluster.await_connected();
    let a = &cluster.masters[0];
    let _ = a.pleach(["conflicts", "resolve", "disputed", "--keep", losing_id(a).as_str()]).ok();
    cluster.settle("the version that was kept");
    assert_eq!(fs::read_to_string(cluster.masters[1].path("disputed")).unwrap(), losing);
}

/// The id of the version that does not stand.
fn losing_id(master: &Master) -> String {
    let shown = master.pleach(["conflicts", "show", "disputed", "--json"]).ok().json();
    let versions = shown[0]["versions"].as_array().unwrap();
    let losing = versions.iter().find(|version| version["stands"] == false).unwrap();
    losing["id"].as_str().unwrap().to_owned()
}
