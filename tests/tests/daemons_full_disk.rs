//! Disks that are full, descriptors that have run out, entries that nobody may change: the old bytes stay,
//! the problem is said with its path, what can go on goes on, and all heals once the cause is gone.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pleach_tests::daemons::{
    Cluster, LoopDisk, Master, Tree, differences, have, probe_until, wait_until, write,
};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;

/// The small disk's size.
const DISK_BYTES: u64 = 96 << 20;
/// How long it may take until something is said.
const TOLD_MAX: Duration = Duration::from_secs(20);
/// How long it may take until all is well again.
const HEALED_MAX: Duration = Duration::from_secs(35);

/// Bytes of one's own, of a size.
fn bytes(what: &str, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(what.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Fills the disk below `file` up to `left` bytes, by writing to it.
fn fill(file: &Path, left: u64) {
    let mut ballast = fs::File::options().create(true).append(true).open(file).unwrap();
    let block = bytes("ballast", 64 << 10);
    loop {
        let disk = rustix::fs::statvfs(file.parent().unwrap()).unwrap();
        // What ext4 reserves for root is the daemon's too, here.
        let free = if left == 0 { disk.f_bfree } else { disk.f_bavail } * disk.f_frsize;
        let length = free.saturating_sub(left).min(block.len() as u64);
        if length == 0 || ballast.write_all(&block[..usize::try_from(length).unwrap()]).is_err() {
            break;
        }
    }
}

fn problems(master: &Master) -> Vec<Value> {
    master.status().list("/problems").to_vec()
}

/// Whether a problem of a kind is listed for a path.
fn is_listed(master: &Master, kind: &str, path: &str) -> Result<(), String> {
    let problems = problems(master);
    let is_it = |problem: &Value| problem["kind"] == kind && problem["path"] == path;
    if problems.iter().any(is_it) { Ok(()) } else { Err(format!("{problems:#?}")) }
}

/// Waits until both have the same, and nothing is to be done, said or left over.
fn await_healed(cluster: &Cluster, what: &str) -> Tree {
    wait_until(what, HEALED_MAX, || {
        let [a, b] = &cluster.masters[..] else { unreachable!("two were started") };
        let (on_a, mut on_b) = (a.tree(), b.tree());
        on_b.entries.remove(Path::new("ballast"));
        if on_a != on_b {
            return Err(differences(&on_a, &on_b));
        }
        for master in [a, b] {
            let status = master.status();
            let idle = status.number("/work/effects_pending") == 0
                && status.number("/work/fetching/contents") == 0;
            if !idle || !status.list("/problems").is_empty() || !master.conflicts().is_empty() {
                return Err(format!("{}: {:#}", master.name(), status.0));
            }
            let staging = Tree::read(&master.path(".pleach/staging")).unwrap();
            if staging.file_count() > 0 {
                return Err(format!("left over: {staging:#?}"));
            }
        }
        Ok(on_a)
    })
}

/// What b has got from a.
fn bytes_received(b: &Master) -> u64 {
    let status = b.status();
    status.list("/masters").iter().filter_map(|other| other["bytes_received"].as_u64()).sum()
}

/// Two masters, the second on a small disk of its own with something to take its room away.
fn on_a_small_disk() -> Option<(Cluster, LoopDisk)> {
    on_a_disk_of("ext4", DISK_BYTES)
}

fn on_a_disk_of(kind: &str, size: u64) -> Option<(Cluster, LoopDisk)> {
    let disk = RefCell::new(Err(String::new()));
    let cluster = Cluster::holding(2, |number, master| match number {
        0 => {
            write(&master.path(".pleachignore"), "/ballast\n");
            for name in ["edited", "replaced", "removed", "renamed"] {
                write(&master.path(name), bytes(name, 50_000));
            }
        }
        _ => *disk.borrow_mut() = LoopDisk::of_size(kind, size, master.directory()),
    });
    match disk.into_inner() {
        Ok(disk) => {
            cluster.settle_to(0, "what there is before");
            Some((cluster, disk))
        }
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

#[test]
fn disk_that_runs_full_keeps_what_it_has_and_heals_when_there_is_room() {
    let Some((cluster, disk)) = on_a_small_disk() else { return };
    let [a, b] = &cluster.masters[..] else { unreachable!("two were started") };
    let ballast = b.path("ballast");
    fill(&ballast, 9 << 20);
    let before = b.tree();

    // More than fits, and things that need little or no room.
    write(&a.path("large"), bytes("large", 30 << 20));
    (0..40).for_each(|n| write(&a.path(&format!("medium/{n}")), bytes(&n.to_string(), 300_000)));
    write(&a.path("edited"), bytes("new", 60_000));
    fs::rename(a.path("renamed"), a.path("as this")).unwrap();
    fs::remove_file(a.path("removed")).unwrap();
    wait_until("the large one is said not to fit", TOLD_MAX, || is_listed(b, "no_space", "large"));
    wait_until("what needs no room is done", TOLD_MAX, || {
        let there = ["removed", "renamed"].map(|name| b.path(name).exists());
        if there == [false; 2] && b.path("as this").exists() {
            Ok(())
        } else {
            Err(format!("{there:?}"))
        }
    });

    // It is tried again and again, and nothing is fetched for that.
    let all: u64 = a.tree().entries.values().map(|entry| entry.size).sum();
    let in_vain = probe_until(Duration::from_secs(6), || match bytes_received(b) {
        received if received > all + (20 << 20) => Ok(received),
        received => Err(received.to_string()),
    });
    assert!(in_vain.is_err(), "{in_vain:?} bytes came for {all}");

    // Now to the last byte, so that the database has no room either.
    fill(&ballast, 0);
    (0..400).for_each(|n| write(&a.path(&format!("small/{n}")), bytes(&format!("s{n}"), 9_000)));
    write(&a.path("replaced"), bytes("anew", 90_000));
    // Removing takes no room, recording it may.
    fs::remove_file(b.path("as this")).unwrap();
    wait_until("it is said that there is no room", TOLD_MAX, || {
        lacks_room(b, |path| path.starts_with("small") || path.contains("state.db"))
    });
    assert_old_or_new(a, b, &before);

    fs::remove_file(&ballast).unwrap();
    let healed = await_healed(&cluster, "there is room: all heals");
    assert_eq!(healed.file_count(), 1 + 2 + 1 + 40 + 400, "{healed:#?}");
    let mut cluster = cluster;
    cluster.masters[1].stop();
    drop(disk);
}

/// Whether any problem is of no room, with a path that fits.
fn lacks_room(master: &Master, fits: impl Fn(&str) -> bool) -> Result<(), String> {
    let problems = problems(master);
    let path = |problem: &Value| problem["path"].as_str().unwrap_or_default().to_owned();
    let is_it = |problem: &Value| problem["kind"] == "no_space" && fits(&path(problem));
    if problems.iter().any(is_it) { Ok(()) } else { Err(format!("{problems:#?}")) }
}

/// Every file that was on `b` before holds its old bytes or those of `a`; none is torn.
fn assert_old_or_new(a: &Master, b: &Master, before: &Tree) {
    let now = b.tree();
    for (path, entry) in now.entries.iter().filter(|(_, entry)| entry.kind == 'f') {
        let old = before.entries.get(path).and_then(|old| old.content);
        let new = fs::read(a.path(path.to_str().unwrap())).ok().map(|new| blake3::hash(&new));
        let is_whole = [old, new].contains(&entry.content) || path == Path::new("ballast");
        assert!(is_whole, "{path:?}: {entry:?}");
    }
}

#[test]
fn quota_that_is_used_up_keeps_what_there_is_and_heals_when_it_is_raised() {
    let Some((cluster, disk)) = on_a_disk_of("btrfs", 2 * DISK_BYTES) else { return };
    write(&cluster.masters[1].path("ballast"), b"");
    if let Err(reason) = disk.set_quota(Some(30 << 20)) {
        return println!("skipped: no quota: {reason}");
    }
    let [a, b] = &cluster.masters[..] else { unreachable!("two were started") };
    let before = b.tree();
    // The disk itself has room for all of it.
    write(&a.path("large"), bytes("large", 60 << 20));
    write(&a.path("edited"), bytes("new", 60_000));
    fs::rename(a.path("renamed"), a.path("as this")).unwrap();
    wait_until("the large one is said not to fit", TOLD_MAX, || lacks_room(b, |p| p == "large"));
    let reason = problems(b)[0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("quota"), "{reason}");

    // Now so little is left that nothing can be recorded either.
    let mut ballast = fs::File::options().append(true).open(b.path("ballast")).unwrap();
    for size in [1 << 20, 64 << 10, 4 << 10] {
        while ballast.write_all(&bytes("ballast", size)).and_then(|()| ballast.sync_data()).is_ok()
        {
        }
    }
    (0..400).for_each(|n| write(&a.path(&format!("small/{n}")), bytes(&format!("s{n}"), 9_000)));
    write(&a.path("replaced"), bytes("anew", 90_000));
    fs::remove_file(a.path("removed")).unwrap();
    wait_until("it is said that there is no room", TOLD_MAX, || {
        lacks_room(b, |path| path.starts_with("small") || path.contains("state.db"))
    });
    assert_old_or_new(a, b, &before);

    // That takes room itself, and may have to wait for what is being written back.
    wait_until("the quota can be raised", TOLD_MAX, || disk.set_quota(None));
    fs::remove_file(b.path("ballast")).unwrap();
    let healed = await_healed(&cluster, "the quota is raised: all heals");
    assert_eq!(healed.file_count(), 1 + 1 + 3 + 400, "{healed:#?}");
    let mut cluster = cluster;
    cluster.masters[1].stop();
    drop(disk);
}

#[test]
fn daemon_starts_on_a_full_disk_and_says_so_and_goes_on_when_there_is_room() {
    let Some((mut cluster, disk)) = on_a_small_disk() else { return };
    for how in ["stopped", "killed"] {
        match how {
            "stopped" => cluster.masters[1].stop(),
            _ => cluster.masters[1].kill(),
        }
        let ballast = cluster.masters[1].path("ballast");
        fill(&ballast, 0);
        let before = cluster.masters[1].tree();
        write(&cluster.masters[0].path(&format!("while {how}")), bytes(how, 200_000));
        write(&cluster.masters[0].path("edited"), bytes(how, 60_000));
        if let Err(ran) = cluster.masters[1].try_start() {
            panic!("{how}: it does not start on a full disk: {ran}");
        }
        let [a, b] = &cluster.masters[..] else { unreachable!("two were started") };
        wait_until("it is said that there is no room", TOLD_MAX, || {
            lacks_room(b, |path| path.contains("state.db") || path.contains("while"))
        });
        assert_old_or_new(a, b, &before);
        fs::remove_file(&ballast).unwrap();
        let _ = await_healed(&cluster, "there is room: all heals");
    }
    cluster.masters[1].stop();
    drop(disk);
}

#[test]
fn what_was_fetched_in_part_does_not_keep_the_room_when_nobody_wants_it_any_more() {
    let Some((cluster, disk)) = on_a_small_disk() else { return };
    let [a, b] = &cluster.masters[..] else { unreachable!("two were started") };
    write(&a.path("large"), bytes("large", 120 << 20));
    wait_until("it is said not to fit", TOLD_MAX, || is_listed(b, "no_space", "large"));
    fs::remove_file(a.path("large")).unwrap();
    let _ = await_healed(&cluster, "what was fetched of it is gone");
    write(&a.path("fits"), bytes("fits", 40 << 20));
    let _ = await_healed(&cluster, "what fits is there");
    let mut cluster = cluster;
    cluster.masters[1].stop();
    drop(disk);
}

#[test]
fn daemon_that_has_no_descriptors_left_goes_on_when_it_has_some() {
    let cluster = Cluster::of(2);
    let [a, b] = &cluster.masters[..] else { unreachable!("two were started") };
    write(&a.path("edited"), "old");
    cluster.settle_to(0, "what there is before");
    let pid = Pid::from_raw(i32::try_from(b.pid()).unwrap());
    let open = fs::read_dir(format!("/proc/{}/fd", b.pid())).unwrap().count() as u64;
    let few = Rlimit { current: Some(open), ..getrlimit(Resource::Nofile) };
    let usual = match prlimit(pid, Resource::Nofile, few) {
        Ok(usual) => usual,
        Err(error) => return println!("skipped: the limit can't be set: {error}"),
    };
    write(&a.path("edited"), "new");
    (0..50).for_each(|n| write(&a.path(&format!("d{n}/f")), bytes(&n.to_string(), 70_000)));
    write(&b.path("own"), "of b");
    // As far as it comes; the socket may take nobody either.
    let _ = probe_until(Duration::from_secs(5), || match a.tree() == b.tree() {
        true => Ok(()),
        false => Err("not the same yet".to_owned()),
    });
    let here = fs::read(b.path("edited")).unwrap();
    assert!([&b"old"[..], b"new"].contains(&&here[..]), "{here:?}");
    prlimit(pid, Resource::Nofile, usual).unwrap();
    let healed = await_healed(&cluster, "there are descriptors: all heals");
    assert_eq!(healed.file_count(), 52);
}

/// Sets or clears an attribute of a file; whether that can be done here.
fn chattr(how: &str, path: &Path) -> bool {
    let ran = Command::new("chattr").arg(how).arg(path).output();
    let done = ran.is_ok_and(|ran| ran.status.success());
    if !done {
        println!("skipped: chattr {how} does not work here");
    }
    done
}

#[test]
fn immutable_file_and_directory_wait_with_their_reason_and_the_rest_goes_on() {
    if !have("chattr") {
        return;
    }
    let cluster = Cluster::of(2);
    let [a, b] = &cluster.masters[..] else { unreachable!("two were started") };
    for name in ["held", "closed/inside", "free"] {
        write(&a.path(name), bytes(name, 2_000));
    }
    cluster.settle_to(0, "what there is before");
    if !chattr("+i", &b.path("held")) {
        return;
    }
    assert!(chattr("+i", &b.path("closed")));
    let before: BTreeMap<PathBuf, _> = b.tree().entries;
    write(&a.path("held"), bytes("new", 2_100));
    write(&a.path("closed/new"), bytes("new here", 2_200));
    write(&a.path("closed/inside"), bytes("new inside", 2_300));
    write(&a.path("free"), bytes("new free", 2_400));
    let told = ["held", "closed/new", "closed/inside"]
        .map(|path| probe_until(TOLD_MAX, || is_listed(b, "permission_denied", path)));
    let went_on = probe_until(TOLD_MAX, || {
        let same = fs::read(a.path("free")).unwrap() == fs::read(b.path("free")).unwrap();
        if same { Ok(()) } else { Err("not yet".to_owned()) }
    });
    let after = b.tree().entries;
    for name in ["held", "closed"] {
        assert!(chattr("-i", &b.path(name)));
    }
    told.into_iter().for_each(|told| told.unwrap());
    went_on.unwrap();
    for name in ["held", "closed", "closed/inside"].map(Path::new) {
        assert_eq!(before.get(name), after.get(name), "{name:?}");
    }
    let _ = await_healed(&cluster, "nothing is held any more");
}
