//! What programs do to a tree in bulk: git, tar, cp, mv, rm.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pleach_tests::daemons::{
    Cluster, Events, git, have, long, real_tree, shell, small_files, wait_until, write,
};

/// For one small change, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn bulk_files() -> usize {
    if long() { 20_000 } else { 2_000 }
}

#[test]
fn git_repository_stays_sound_on_every_master() {
    if !have("git") {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let origin = outside.path().join("origin");
    real_tree(&origin, bulk_files() / 4);
    git(&origin, "init -q -b main");
    for (number, script) in [
        "true",
        "for f in $(find . -name '*.rs' -not -path './.git/*' | head -40); do echo '// x' >> $f; done",
        "git rm -q -r --cached . && git mv -k README.md READ.md || true; mkdir -p n && echo n > n/n",
        "for f in $(find . -name '*.toml' -not -path './.git/*' | head -40); do rm $f; done",
    ]
    .iter()
    .enumerate()
    {
        shell(&origin, script);
        git(&origin, "add -A -f");
        git(&origin, &format!("commit -q -m 'number {number}'"));
    }

    let cluster = Cluster::of(2);
    let a = &cluster.masters[0];
    git(a.directory(), &format!("clone -q --no-hardlinks '{}' work", origin.display()));
    let work = a.path("work");
    check_git(&cluster, "a clone");
    git(&work, "checkout -q HEAD~2");
    check_git(&cluster, "an old commit checked out");
    git(&work, "checkout -q -b side");
    shell(&work, "echo side > side.txt");
    git(&work, "add side.txt");
    git(&work, "commit -q -m side");
    git(&work, "rebase -q main");
    check_git(&cluster, "a rebase");
    git(&work, "gc -q --prune=now");
    check_git(&cluster, "a gc");
    git(&cluster.masters[1].path("work"), "checkout -q main");
    cluster.settle_to(1, "a checkout on the other master");
    check_git(&cluster, "a checkout on the other master");
}

fn check_git(cluster: &Cluster, what: &str) {
    cluster.settle_to(if what.ends_with("other master") { 1 } else { 0 }, what);
    for master in &cluster.masters {
        let work = master.path("work");
        git(&work, "fsck --full --strict --no-dangling");
        let status = git(&work, "status --porcelain --ignored");
        assert!(status.stdout.is_empty(), "{what} on {}: {status}", master.name());
        assert!(master.conflicts().is_empty(), "{what}: {:?}", master.conflicts());
    }
}

#[test]
fn tar_cp_and_rm_of_thousands_of_files_arrive() {
    let outside = tempfile::tempdir().unwrap();
    real_tree(&outside.path().join("tree"), bulk_files());
    shell(outside.path(), "tar cf tree.tar tree");
    let cluster = Cluster::of(2);
    let (a, b) = (&cluster.masters[0], &cluster.masters[1]);

    shell(a.directory(), &format!("tar xf '{}/tree.tar'", outside.path().display()));
    let tree = cluster.settle_to(0, "tar x");
    assert!(tree.file_count() >= bulk_files());
    shell(b.directory(), "cp -a tree copy");
    let tree = cluster.settle_to(1, "cp -a on the other master");
    assert_eq!(tree.below("tree"), tree.below("copy"));
    shell(a.directory(), "rm -rf tree");
    let after = cluster.settle_to(0, "rm -rf");
    assert_eq!(after.below("copy"), tree.below("copy"));
    assert!(after.below("tree").entries.is_empty());
    assert!(a.conflicts().is_empty() && b.conflicts().is_empty());
}

#[test]
fn move_of_a_large_directory_is_one_rename_and_a_few_bytes() {
    let count = if long() { 10_000 } else { 1_500 };
    let cluster = Cluster::holding(2, |number, master| {
        if number == 0 {
            small_files(&master.path("site"), count, 600);
        }
    });
    cluster.settle_to(0, "the directory is on both");
    let b = &cluster.masters[1];
    let inode = |path: &Path| fs::metadata(path).map(|found| found.ino()).ok();
    let (before, sent) = (inode(&b.path("site/000/00007")), sent_by_a(&cluster));
    let events = Events::of(b);
    cluster.settle("the probe of the listener is gone");
    shell(cluster.masters[0].directory(), "mkdir new; mv site new/site");
    cluster.settle_to(0, "the move");
    assert_eq!(inode(&b.path("new/site/000/00007")), before, "renamed, not made anew");
    let sent = sent_by_a(&cluster) - sent;
    assert!(sent < 64 << 10, "{sent} bytes on the wire");
    let applied = events.heard_of("applied");
    assert!(applied.len() <= 8, "{} effects for one move: {applied:#?}", applied.len());
}

#[test]
fn what_is_done_in_a_moved_directory_arrives_wherever_it_is_done() {
    let cluster = Cluster::of(2);
    let [a, b] = &cluster.masters[..] else { unreachable!("two were started") };
    shell(a.directory(), "mkdir -p d/sub; echo 1 > d/f; echo 1 > d/sub/f");
    cluster.settle_to(0, "two directories");
    let moves = ["mv d e", "mkdir x; mv e x/e", "mv x/e/sub sub; mv x y"];
    let places = [["e", "e/sub"], ["x/e", "x/e/sub"], ["y/e", "sub"]];
    for (moved, places) in moves.iter().zip(places) {
        shell(a.directory(), moved);
        cluster.settle(moved);
        for (number, master) in [a, b].into_iter().enumerate() {
            for place in places {
                let script = format!("echo '{moved}' >> f; echo new > n{number}; chmod 600 f");
                shell(&master.path(place), &script);
                // Not told by anything but the watcher: nobody looks at everything meanwhile.
                let (own, other) = (master.path(place), [b, a][number].path(place));
                wait_until(&format!("{moved}, then a change in {place}"), PATIENCE, || {
                    let differs = ["f".to_owned(), format!("n{number}")].into_iter().find(|name| {
                        fs::read(own.join(name)).ok() != fs::read(other.join(name)).ok()
                    });
                    differs.map_or(Ok(()), |name| Err(format!("{name} is not there")))
                });
            }
        }
    }
    cluster.settle("all that was done");
}

fn sent_by_a(cluster: &Cluster) -> u64 {
    let status = cluster.masters[0].status();
    status.list("/masters").iter().filter_map(|other| other["bytes_sent"].as_u64()).sum()
}

#[test]
fn npm_install_arrives() {
    if !have("npm") {
        return;
    }
    let cluster = Cluster::of(2);
    let a = &cluster.masters[0];
    // Local packages only: what npm does to the disk, without a registry.
    for package in ["one", "two", "three"] {
        small_files(&a.path(&format!("packages/{package}/lib")), 60, 300);
        let text = format!(r#"{{"name":"{package}","version":"1.0.0"}}"#);
        write(&a.path(&format!("packages/{package}/package.json")), text);
    }
    write(
        &a.path("app/package.json"),
        r#"{"name":"app","version":"1.0.0","dependencies":
            {"one":"file:../packages/one","two":"file:../packages/two","three":"file:../packages/three"}}"#,
    );
    shell(
        &a.path("app"),
        "npm install --offline --no-audit --no-fund --install-links --cache ../.npm-cache",
    );
    let tree = cluster.settle_to(0, "npm install");
    assert!(tree.entries.contains_key(Path::new("app/node_modules/two/lib/000/00059")));
    assert!(a.conflicts().is_empty());
}

/// Rows into a database in WAL mode, each its own transaction, for so many seconds; how many.
const ROWS: &str = "
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute('PRAGMA journal_mode = wal')
database.execute('CREATE TABLE rows (number INTEGER, filler BLOB)')
end, number = time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < end:
    database.execute('INSERT INTO rows VALUES (?, randomblob(700))', (number,))
    number += 1
database.close()
print(number)
";

#[test]
fn database_and_log_that_are_written_to_all_the_time_hold_up_nothing_and_arrive_sound() {
    if !have("python3") {
        return;
    }
    let cluster = Cluster::of(2);
    let [a, b] = &cluster.masters[..] else { unreachable!("two were started") };
    let seconds = if long() { 60 } else { 6 };
    let is_over = AtomicBool::new(false);
    let rows = std::thread::scope(|scope| {
        let rows = scope.spawn(|| {
            shell(a.directory(), &format!("python3 - hot.db {seconds} <<'END'{ROWS}END")).stdout
        });
        let is_over = &is_over;
        scope.spawn(move || {
            let mut log = fs::File::create(a.path("log")).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                log.write_all(b"one more line of a log that is never closed\n").unwrap();
                std::thread::park_timeout(Duration::from_millis(1));
            }
        });
        // Meanwhile a save of another file is there at once.
        let (mut slowest, mut number) = (Duration::ZERO, 0);
        while !rows.is_finished() {
            let (text, start) = (format!("save {number}"), Instant::now());
            write(&a.path("page"), &text);
            wait_until("a save beside hot files", PATIENCE, || {
                let found = fs::read_to_string(b.path("page")).unwrap_or_default();
                if found == text { Ok(()) } else { Err(found) }
            });
            (slowest, number) = (slowest.max(start.elapsed()), number + 1);
        }
        is_over.store(true, Ordering::Relaxed);
        println!("{number} saves beside them, the slowest took {slowest:?}");
        assert!(slowest < Duration::from_secs(5), "hot files held up a save for {slowest:?}");
        rows.join().unwrap()
    });
    cluster.settle_to(0, "the database and the log");
    assert!(b.conflicts().is_empty(), "{:#?}", b.conflicts());
    let ask = "import sqlite3; d = sqlite3.connect('file:hot.db?mode=ro&immutable=1', uri=True); \
               print(d.execute('PRAGMA integrity_check').fetchone()[0], \
               d.execute('SELECT count(*) FROM rows').fetchone()[0])";
    let answer = shell(b.directory(), &format!("python3 -c \"{ask}\"")).stdout;
    assert_eq!(answer.trim(), format!("ok {}", rows.trim()));
}
