//! Networks as they are: not everybody reaches everybody, cables come out, addresses change, programs stop
//! reading. Each master runs on a host of its own, a network namespace.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::fs;
use std::time::{Duration, Instant};

use pleach_tests::daemons::{
    Cable, Cluster, Host, Master, assert_same_trees, long, small_files, wait_until, write,
};
use rustix::process::Signal;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(90);
const EVERYWHERE: &str = "/ip4/0.0.0.0/tcp/4747";

/// Masters `a` and `b` on hosts that reach `c` only, over a cable each.
struct Star {
    // Daemons end before their hosts go.
    cluster: Cluster,
    cables: [Cable; 2],
    hosts: [Host; 3],
}

/// None, with a printed reason, where there can be no network namespaces.
fn star(listen: [&str; 3]) -> Option<Star> {
    let hosts = || -> Result<_, String> {
        let hosts = [Host::new()?, Host::new()?, Host::new()?];
        let [a, b, c] = &hosts;
        let cables = [
            a.connect("10.1.0.1/24", c, "10.1.0.2/24")?,
            b.connect("10.2.0.1/24", c, "10.2.0.2/24")?,
        ];
        Ok((hosts, cables))
    };
    let (hosts, cables) = match hosts() {
        Ok(made) => made,
        Err(why) => {
            println!("skipped: no network namespaces here: {why}");
            return None;
        }
    };
    let scratch = TempDir::new().unwrap();
    let mut masters: Vec<Master> = ["a", "b", "c"]
        .into_iter()
        .zip(&hosts)
        .zip(listen)
        .map(|((name, host), listen)| Master::on(host, listen, scratch.path(), name))
        .collect();
    masters[2].init();
    masters[2].start();
    let (others, hub) = masters.split_at_mut(2);
    for master in others {
        master.join(&hub[0]);
        master.start();
    }
    let star = Star { cluster: Cluster { masters, scratch }, cables, hosts };
    for master in star.cluster.masters.iter().take(2) {
        await_connected(master, "c");
    }
    Some(star)
}

fn is_connected(master: &Master, other: &str) -> bool {
    let status = master.status();
    status.list("/masters").iter().any(|m| m["name"] == other && m["connected"] == true)
}

fn await_connected(master: &Master, other: &str) {
    wait_until(&format!("{} is connected to {other}", master.name()), PATIENCE, || {
        match is_connected(master, other) {
            true => Ok(()),
            false => Err(format!("{:#}", master.status().0)),
        }
    });
}

fn await_text(master: &Master, path: &str, text: &str) -> Duration {
    let start = Instant::now();
    wait_until(&format!("{path} on {}", master.name()), PATIENCE, || {
        let found = fs::read_to_string(master.path(path)).unwrap_or_default();
        if found == text { Ok(()) } else { Err(found) }
    });
    start.elapsed()
}

fn resident_bytes(master: &Master) -> u64 {
    bytes_of_memory(master, "VmRSS:")
}

/// A line of proc_pid_status(5).
fn bytes_of_memory(master: &Master, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", master.pid())).unwrap();
    let line = status.lines().find_map(|found| found.strip_prefix(line)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn two_that_reach_only_a_third_have_all_from_each_other() {
    // None of the two can even be dialled.
    let lonely = "/ip4/127.0.0.1/tcp/4747";
    let Some(star) = star([lonely, lonely, EVERYWHERE]) else { return };
    let [a, b, c] = &star.cluster.masters[..] else { unreachable!("three were started") };
    write(&a.path("small"), "by a\n");
    write(&a.path("large"), vec![7; 6 << 20]);
    await_text(b, "small", "by a\n");
    star.cluster.settle_to(0, "what a wrote");
    assert!(!is_connected(a, "b") && !is_connected(b, "a"));

    // While c is off, both change the same file; each hears of it once c is there.
    star.cluster.flush(a);
    c.signal(Signal::STOP);
    write(&a.path("small"), "again by a\n");
    write(&b.path("small"), "by b\n");
    c.signal(Signal::CONT);
    let tree = star.cluster.settle("both edits");
    assert_eq!(tree.file_count(), 2);
    for master in &star.cluster.masters {
        assert_eq!(master.conflicts().len(), 1, "on {}", master.name());
    }
}

#[test]
fn pulled_cable_is_a_partition_and_its_end_heals_it() {
    let Some(star) = star([EVERYWHERE; 3]) else { return };
    let [a, b, c] = &star.cluster.masters[..] else { unreachable!("three were started") };
    let changes = if long() { 100_000 } else { 1_000 };
    write(&a.path("page"), "one\n");
    star.cluster.settle_to(0, "a page");
    star.cables[0].pull().unwrap();
    // Nobody is told: the connection is half open, and what is sent goes nowhere.
    small_files(&b.path("many"), changes, 100);
    write(&c.path("page"), "by c\n");
    write(&a.path("page"), "by a\n");
    write(&a.path("alone"), "by a\n");
    assert_same_trees("the other two go on", &star.settled_pair(), &b.tree());
    star.cables[0].plug().unwrap();
    let tree = star.cluster.settle("all that happened meanwhile");
    assert_eq!(tree.file_count(), changes + 2);
    assert_eq!(a.conflicts().len(), 1);
}

#[test]
fn network_that_loses_every_fifth_packet_costs_time_and_nothing_else() {
    let Some(star) = star([EVERYWHERE; 3]) else { return };
    for cable in &star.cables {
        if let Err(why) = cable.lose(20) {
            return println!("skipped: {why}");
        }
    }
    let [a, b, c] = &star.cluster.masters[..] else { unreachable!("three were started") };
    let (files, size) = if long() { (5_000, 16 << 20) } else { (200, 1 << 20) };
    small_files(&a.path("of a"), files, 500);
    small_files(&b.path("of b"), files, 500);
    write(&c.path("large"), vec![7; size]);
    write(&a.path("page"), "by a\n");
    let start = Instant::now();
    await_text(b, "page", "by a\n");
    println!("a save took {:?} from a to b", start.elapsed());
    let tree = star.cluster.settle("all that was written");
    println!("all of it took {:?}", start.elapsed());
    assert_eq!(tree.file_count(), 2 * files + 2);
    for master in &star.cluster.masters {
        assert!(master.conflicts().is_empty(), "on {}", master.name());
    }
}

#[test]
fn master_that_gets_another_address_is_found_again() {
    let Some(star) = star([EVERYWHERE; 3]) else { return };
    let [a, _, c] = &star.cluster.masters[..] else { unreachable!("three were started") };
    let (host, hub) = (&star.hosts[0], &star.hosts[2]);
    let (near, far) = star.cables[0].devices();
    // The hub keeps the address by which it is known.
    hub.ip(&["address", "add", "10.3.0.2/24", "dev", far]).unwrap();
    host.ip(&["address", "del", "10.1.0.1/24", "dev", near]).unwrap();
    host.ip(&["address", "add", "10.3.0.1/24", "dev", near]).unwrap();
    host.ip(&["route", "add", "10.1.0.2/32", "dev", near]).unwrap();
    write(&a.path("page"), "after the move\n");
    await_text(c, "page", "after the move\n");
    star.cluster.settle("the page");
}

#[test]
fn master_that_stops_reading_neither_holds_up_the_others_nor_fills_their_memory() {
    let Some(star) = star([EVERYWHERE; 3]) else { return };
    let [a, b, c] = &star.cluster.masters[..] else { unreachable!("three were started") };
    write(&a.path("page"), "one\n");
    star.cluster.settle_to(0, "a page");
    let before = resident_bytes(c);
    b.signal(Signal::STOP);
    let files = if long() { 60_000 } else { 3_000 };
    small_files(&a.path("many"), files, 10_000);
    wait_until("c has them all", PATIENCE, || match c.tree_below("many").file_count() {
        count if count == files => Ok(()),
        count => Err(format!("{count} of {files}")),
    });
    write(&a.path("page"), "two\n");
    let took = await_text(c, "page", "two\n");
    println!("a save took {took:?} from a to c; c grew from {before} to {}", resident_bytes(c));
    let grown = resident_bytes(c).saturating_sub(before);
    assert!(grown < 150 << 20, "c grew by {grown} bytes");
    b.signal(Signal::CONT);
    star.cluster.settle("b is back");
}

/// A file per change, and a change per file: edits, removals and renames of what is there, and new files.
fn work_on(master: &Master, directory: &str, changes: usize) {
    small_files(&master.path(directory), changes / 2, 300);
    let tree = master.tree_below(directory);
    let files = tree.entries.iter().filter(|(_, entry)| entry.kind == 'f');
    for (number, (path, _)) in files.enumerate() {
        let path = master.path(directory).join(path);
        match number % 4 {
            0 => fs::remove_file(path).unwrap(),
            1 => fs::rename(&path, path.with_extension("renamed")).unwrap(),
            _ => fs::write(path, format!("edited {number}")).unwrap(),
        }
    }
}

#[test]
fn master_that_was_away_for_a_hundred_thousand_changes_catches_up_within_bounds() {
    let mut cluster = Cluster::of(3);
    let changes = if long() { 100_000 } else { 2_000 };
    cluster.masters[2].stop();
    let [a, b, _] = &cluster.masters[..] else { unreachable!("three were started") };
    // Both at once, each in a directory of its own and both in a third.
    std::thread::scope(|scope| {
        for (master, own) in [(a, "of a"), (b, "of b")] {
            scope.spawn(move || {
                work_on(master, own, changes / 2 - 200);
                (0..200).for_each(|n| write(&master.path("shared/counter"), format!("{own} {n}")));
            });
        }
    });
    for master in [a, b] {
        let _ = master.pleach(["wait", ".", "--timeout", "600"]).ok();
    }
    let wanted = a.tree();
    let start = Instant::now();
    cluster.masters[2].start();
    let c = &cluster.masters[2];
    wait_until("c has caught up", if long() { 10 * PATIENCE } else { PATIENCE }, || {
        let idle = c.status().number("/work/effects_pending") == 0;
        let tree = c.tree();
        match idle && tree == wanted {
            true => Ok(()),
            false => Err(format!("{} of {} files", tree.file_count(), wanted.file_count())),
        }
    });
    let (took, most) = (start.elapsed(), bytes_of_memory(c, "VmHWM:"));
    println!("{changes} changes, {} files: caught up after {took:?}, {most} bytes at most", {
        wanted.file_count()
    });
    assert!(most < 512 << 20, "c held {most} bytes");
    cluster.settle("all are level");
}

impl Star {
    /// The tree of b and c, once they are equal.
    fn settled_pair(&self) -> pleach_tests::daemons::Tree {
        let [_, b, c] = &self.cluster.masters[..] else { unreachable!("three were started") };
        wait_until("b and c are equal", PATIENCE, || {
            let (left, right) = (b.tree(), c.tree());
            let rest = |m: &Master| m.status().number("/work/effects_pending");
            match left == right && rest(b) == 0 && rest(c) == 0 {
                true => Ok(right),
                false => Err("they differ".to_owned()),
            }
        })
    }
}
