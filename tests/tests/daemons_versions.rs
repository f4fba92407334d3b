//! What was replaced is kept for as long as the settings say, and no longer.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use pleach_tests::daemons::{Cluster, Master, WallClock, wait_until, write};

fn kept(master: &Master) -> BTreeSet<String> {
    let entries = fs::read_dir(master.path(".pleach/versions")).unwrap().flatten();
    let versions = entries.filter(|entry| entry.file_name() != "index");
    versions.filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect()
}

#[test]
fn versions_without_room_go_and_those_of_an_open_conflict_stay_until_it_is_settled() {
    let mut cluster = Cluster::of(2);
    let Some(clock) = WallClock::of(cluster.scratch.path(), "b") else { return };
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
    // Their age counts only after half a day; what there is no room for, goes once it is an hour old.
    let settings = b.path(".pleach/config.toml");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, format!("versions_share = \"0%\"\n{text}")).unwrap();
    clock.set("+2h");
    b.start_with(&clock.environment());
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
