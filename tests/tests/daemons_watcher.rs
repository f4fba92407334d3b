//! A watcher that misses things: its queue overflows, its watches run out, directories are made and gone
//! faster than they can be watched, the daemon sleeps meanwhile. Nothing is lost by that.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pleach_tests::daemons::{
    Cluster, Failing, Master, Threads, Tree, When, have, long, probe_until, wait_until, write,
};
use rustix::process::Signal;

/// How long it may take until what no event told of is found.
const FOUND_MAX: Duration = Duration::from_secs(60);
/// How many events wait for a daemon that was started while this was set.
const QUEUE: &str = "/proc/sys/fs/inotify/max_queued_events";

/// The machine's own setting, put back when this is dropped.
struct Usual(String);

impl Usual {
    /// Sets it; none where that is not permitted.
    fn replaced_by(value: &str) -> Option<Self> {
        let usual = fs::read_to_string(QUEUE).ok()?;
        fs::write(QUEUE, value).ok().map(|()| Self(usual))
    }
}

impl Drop for Usual {
    fn drop(&mut self) {
        let _ = fs::write(QUEUE, self.0.trim());
    }
}

/// Stops a daemon until this is dropped.
struct Asleep<'a>(&'a Master);

impl<'a> Asleep<'a> {
    fn put(master: &'a Master) -> Self {
        master.signal(Signal::STOP);
        Self(master)
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

/// Waits until all masters have what is in `expected`, by path and content, and nothing else there.
fn await_all(cluster: &Cluster, expected: &Tree) {
    let wanted = contents(expected);
    cluster.settle_as("nothing is missing", |tree| match contents(tree) {
        now if now == wanted => Ok(()),
        now => {
            let missing: Vec<_> = wanted.iter().filter(|at| !now.contains(at)).take(9).collect();
            let odd: Vec<_> = now.iter().filter(|at| !wanted.contains(at)).take(9).collect();
            Err(format!("missing: {missing:#?}\ntoo much: {odd:#?}"))
        }
    });
    for master in &cluster.masters {
        assert!(master.conflicts().is_empty(), "{:#?}", master.conflicts());
    }
}

fn contents(tree: &Tree) -> Vec<(std::path::PathBuf, char, Option<blake3::Hash>)> {
    let entries = tree.entries.iter();
    entries.map(|(path, entry)| (path.clone(), entry.kind, entry.content)).collect()
}

#[test]
fn events_that_overflow_cost_time_and_nothing_else() {
    let count = if long() { 3_000 } else { 400 };
    let mut cluster = Cluster::of(2);
    write(&cluster.masters[0].path("moved/deep/er/f"), "moved");
    (0..50).for_each(|n| write(&cluster.masters[0].path(&format!("gone/{n}")), n.to_string()));
    (0..50).for_each(|n| write(&cluster.masters[0].path(&format!("edited/{n}")), n.to_string()));
    cluster.settle_to(0, "what there is before");
    cluster.masters[0].stop();
    let Some(usual) = Usual::replaced_by("16") else {
        return println!("skipped: {QUEUE} can't be set here");
    };
    cluster.masters[0].start();
    drop(usual);
    cluster.await_connected();
    let a = &cluster.masters[0];
    let asleep = Asleep::put(a);
    for number in 0..count {
        write(&a.path(&format!("new/{}/{}/f{number}", number % 7, number % 3)), number.to_string());
    }
    (0..50).for_each(|n| write(&a.path(&format!("edited/{n}")), format!("{n} anew")));
    fs::rename(a.path("moved/deep"), a.path("new/deep")).unwrap();
    fs::remove_dir_all(a.path("gone")).unwrap();
    let expected = a.tree();
    drop(asleep);
    await_all(&cluster, &expected);

    // And awake, as fast as it goes.
    let a = &cluster.masters[0];
    for number in 0..count {
        write(&a.path(&format!("more/{}/f{number}", number % 11)), number.to_string());
        if number % 5 == 0 {
            fs::rename(a.path(&format!("more/{}", number % 11)), a.path("more/x")).unwrap();
            fs::rename(a.path("more/x"), a.path(&format!("more/{}", number % 11))).unwrap();
        }
    }
    let expected = a.tree();
    await_all(&cluster, &expected);
}

#[test]
fn directories_that_come_and_go_at_once_are_all_found() {
    let rounds = if long() { 1_000 } else { 150 };
    let cluster = Cluster::of(2);
    let [a, b] = &cluster.masters[..] else { unreachable!("two were started") };
    for round in 0..rounds {
        // Each on its own master: what both do to one directory is another test's.
        let deep = a.path(&format!("deep/{round}/a/b/c"));
        fs::create_dir_all(&deep).unwrap();
        fs::File::create(deep.join("f")).unwrap();
        let again = b.path("again");
        let _ = fs::remove_dir_all(&again);
        fs::create_dir(&again).unwrap();
        write(&again.join(format!("of {round}")), round.to_string());
        write(&b.path(&format!("tops/{round}/below/f")), round.to_string());
        if round % 3 == 0 {
            fs::rename(b.path(&format!("tops/{round}")), b.path(&format!("tops/{round} moved")))
                .unwrap();
        }
    }
    let is_all = |tree: &Tree| {
        for round in 0..rounds {
            let top = if round % 3 == 0 { format!("{round} moved") } else { round.to_string() };
            let deep = format!("deep/{round}/a/b/c/f");
            for path in [deep, format!("tops/{top}/below/f")] {
                if !tree.entries.contains_key(Path::new(&path)) {
                    return Err(format!("{path} is missing"));
                }
            }
        }
        let again = tree.below("again");
        let last = format!("of {}", rounds - 1);
        let is_last = again.entries.keys().eq([Path::new(&last)]);
        if is_last { Ok(()) } else { Err(format!("{last} is to be all of {again:#?}")) }
    };
    for master in &cluster.masters {
        cluster.flush(master);
    }
    cluster.settle_as("all that was made is everywhere", is_all);
}

#[test]
fn daemons_that_sleep_under_load_catch_up() {
    let nap = Duration::from_secs(if long() { 10 } else { 2 });
    let cluster = Cluster::of(2);
    let over = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let over = &over;
        let writers: Vec<_> = cluster
            .masters
            .iter()
            .map(|master| scope.spawn(move || write_until(master, over)))
            .collect();
        for master in &cluster.masters {
            let asleep = Asleep::put(master);
            let start = Instant::now();
            let _ = probe_until(nap, || match start.elapsed() >= nap {
                true => Ok(()),
                false => Err(String::new()),
            });
            drop(asleep);
        }
        over.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).sum::<usize>()
    });
    let mut expected = Tree::default();
    for master in &cluster.masters {
        let own = Path::new(master.name());
        let entries = master.tree().entries.into_iter();
        expected.entries.extend(entries.filter(|(path, _)| path.starts_with(own)));
    }
    println!("{written} acts");
    await_all(&cluster, &expected);
}

/// A user in a directory of their own, which nobody else writes to; how much they did.
fn write_until(master: &Master, over: &AtomicBool) -> usize {
    let at = |path: String| master.path(master.name()).join(path);
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        let (directory, name) = (number % 9, number % 31);
        write(&at(format!("{directory}/{name}")), number.to_string());
        match number % 7 {
            3 => {
                let (from, to) = (at(format!("{directory}")), at(format!("m{directory}")));
                let _ = fs::remove_dir_all(&to);
                fs::rename(from, to).unwrap();
            }
            5 => fs::remove_file(at(format!("{directory}/{name}"))).unwrap(),
            _ => {}
        }
        number += 1;
        std::thread::park_timeout(Duration::from_millis(2));
    }
    number
}

#[test]
fn watches_that_ran_out_are_said_scanned_for_and_taken_again_when_there_are_some() {
    if !have("strace") {
        return;
    }
    let cluster = Cluster::of(2);
    let [a, b] = &cluster.masters[..] else { unreachable!("two were started") };
    write(&a.path("there/f"), "before");
    cluster.settle_to(0, "what there is before");
    let fault = ("inotify_add_watch", "ENOSPC", When::Always);
    let failing = match Failing::of(b, Threads::Watcher, &[], fault) {
        Ok(failing) => failing,
        Err(reason) => return println!("skipped: {reason}"),
    };
    write(&a.path("unwatched/below/f"), "of a");
    let is_limited = || b.status().0["problems"][0]["kind"] == "watch_limit";
    wait_until("it is said", FOUND_MAX, || match is_limited() {
        true => Ok(()),
        false => Err(format!("{:#}", b.status().0)),
    });
    wait_until("it came all the same", FOUND_MAX, || {
        fs::read(b.path("unwatched/below/f")).map_err(|error| error.to_string())
    });
    write(&b.path("unwatched/below/own"), "of b");
    wait_until("no event told of it, a scan did", FOUND_MAX, || {
        fs::read(a.path("unwatched/below/own")).map_err(|error| error.to_string())
    });
    assert!(failing.end() > 0, "nothing failed");
    wait_until("it is watched again", FOUND_MAX, || match is_limited() {
        true => Err(format!("{:#}", b.status().0)),
        false => Ok(()),
    });
    // Now events tell: long before the next scan.
    write(&b.path("unwatched/below/at once"), "of b");
    wait_until("an event told of it", Duration::from_secs(5), || {
        fs::read(a.path("unwatched/below/at once")).map_err(|error| error.to_string())
    });
}
