//! A directory with very many entries: it is taken up, handed over, worked in and renamed, in bounded memory.
//! `PLEACH_ENTRIES` says how many.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use pleach_tests::daemons::{Cluster, Master, long, wait_until, write};

/// How long one step may take: with a million entries, minutes on a slow disk.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// What a daemon may need at most, with nothing in the tree and for each entry of it.
const MEMORY_MIN_KIB: u64 = 150 << 10;
const MEMORY_OF_ENTRY_BYTES: u64 = 3 << 10;

/// Makes so many files, of which one in ten holds something.
fn fill(directory: &Path, count: usize) {
    fs::create_dir(directory).unwrap();
    for number in 0..count {
        let text = if number % 10 == 0 { number.to_string() } else { String::new() };
        fs::write(directory.join(format!("{number:07}")), text).unwrap();
    }
}

/// How many entries a directory has; none if it is not there.
fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}

fn await_entries(directory: &Path, count: usize) {
    wait_until(&format!("{count} entries are there"), PATIENCE, || match entries(directory) {
        found if found == count => Ok(()),
        found => {
            // Counting takes time from those who make them.
            std::thread::sleep(Duration::from_millis(100));
            Err(format!("{found} so far"))
        }
    });
}

/// The most memory that a daemon has used, in KiB (proc(5), `VmHWM`).
fn memory_kib(master: &Master) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", master.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Waits until both have nothing left to do.
fn rest(cluster: &Cluster) {
    for master in &cluster.masters {
        let _ = master.pleach(["wait", ".", "--timeout", "1h"]).ok();
    }
}

#[test]
fn directory_of_very_many_entries_is_handed_over_worked_in_and_renamed() {
    let asked = std::env::var("PLEACH_ENTRIES").ok().and_then(|count| count.parse().ok());
    let count = match asked {
        Some(count) => count,
        None if long() => 1_000_000,
        None => {
            println!("skipped: a million entries (PLEACH_LONG=1); these are fewer");
            4_000
        }
    };
    let mut cluster = Cluster::holding(1, |_, a| fill(&a.path("many"), count));
    let start = Instant::now();
    let step =
        |what: &str| println!("{count} entries: {what}, {:.1?} since the start", start.elapsed());
    rest(&cluster);
    step("taken up");
    let mut b = Master::new(cluster.scratch.path(), "b");
    b.join(&cluster.masters[0]);
    b.start();
    cluster.masters.push(b);
    cluster.await_connected();
    let [a, b] = &cluster.masters[..] else { panic!("two masters") };
    await_entries(&b.path("many"), count);
    rest(&cluster);
    step("on both");

    // What a user does in it is no dearer for all that is beside it.
    write(&b.path("many/0000010"), "edited");
    fs::rename(b.path("many/0000011"), b.path("many/moved")).unwrap();
    fs::remove_file(b.path("many/0000012")).unwrap();
    write(&b.path("many/new"), "new");
    let saved = Instant::now();
    let arrived = || fs::read_to_string(a.path("many/new")).is_ok_and(|text| text == "new");
    wait_until("a new file arrives", PATIENCE, || match arrived() {
        true => Ok(()),
        false => Err("it is not there".to_owned()),
    });
    println!("{count} entries: a new one is there after {:.1?}", saved.elapsed());
    rest(&cluster);
    assert_eq!(fs::read_to_string(a.path("many/0000010")).unwrap(), "edited");
    assert!(a.path("many/moved").exists() && !a.path("many/0000011").exists());
    assert!(!a.path("many/0000012").exists());
    assert_eq!(entries(&a.path("many")), count);

    fs::rename(a.path("many"), a.path("renamed")).unwrap();
    await_entries(&b.path("renamed"), count);
    rest(&cluster);
    assert_eq!(entries(&b.path("many")), 0);
    step("renamed");
    for number in (0..count).step_by(count / 100) {
        let name = format!("renamed/{number:07}");
        assert_eq!(fs::read(a.path(&name)).unwrap(), fs::read(b.path(&name)).unwrap());
    }

    // And all of it is found again by a start.
    cluster.masters[1].stop();
    let began = Instant::now();
    cluster.masters[1].start();
    rest(&cluster);
    println!("{count} entries: started anew in {:.1?}", began.elapsed());
    for master in &cluster.masters {
        let (used, may) =
            (memory_kib(master), MEMORY_MIN_KIB + count as u64 * MEMORY_OF_ENTRY_BYTES / 1024);
        println!("{count} entries: {} used {} MiB at most", master.name(), used / 1024);
        assert!(used <= may, "{} used {used} KiB, and {may} are allowed", master.name());
    }
}
