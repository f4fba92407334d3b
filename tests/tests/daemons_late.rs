//! A program writes through a handle that it had before another master's change replaced or removed its
//! file: what it wrote is in the tree, in a conflict or among the versions, and told.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pleach_tests::daemons::{Cluster, Master, have, long, wait_until, write};

const PATIENCE: Duration = Duration::from_secs(60);

fn held(path: &Path) -> File {
    OpenOptions::new().append(true).open(path).unwrap()
}

/// How many bytes the versions of the conflict at `path` have, the one that stands first.
fn sizes(master: &Master, path: &str) -> Vec<u64> {
    let shown = master.pleach(["conflicts", "show", path, "--json"]).ok().json();
    let mut versions = shown[0]["versions"].as_array().cloned().unwrap_or_default();
    versions.sort_by_key(|version| version["stands"] != true);
    versions.iter().map(|version| version["size"].as_u64().unwrap()).collect()
}

fn await_text(cluster: &Cluster, path: &str, text: &str) {
    for master in &cluster.masters {
        wait_until(&format!("{path} on {}", master.name()), PATIENCE, || {
            let found = fs::read_to_string(master.path(path)).unwrap_or_default();
            if found == text { Ok(()) } else { Err(found) }
        });
    }
}

#[test]
fn what_is_written_through_an_old_handle_is_a_change_of_its_own() {
    let cluster = Cluster::of(2);
    let [a, b] = &cluster.masters[..] else { unreachable!("two were started") };
    write(&a.path("log"), "line 0\n");
    write(&a.path("d/removed"), "line 0\n");
    cluster.settle_to(0, "the files");
    let (mut log, mut removed) = (held(&a.path("log")), held(&a.path("d/removed")));
    write(&b.path("log.new"), "by b\n");
    fs::rename(b.path("log.new"), b.path("log")).unwrap();
    fs::remove_file(b.path("d/removed")).unwrap();
    cluster.settle_to(1, "one replaced, one removed");

    log.write_all(b"line 1\n").unwrap();
    removed.write_all(b"line 1\n").unwrap();
    await_text(&cluster, "log", "line 0\nline 1\n");
    await_text(&cluster, "d/removed", "line 0\nline 1\n");
    cluster.settle("the late writes");
    for master in &cluster.masters {
        assert_eq!(master.conflicts().len(), 1, "what b wrote is not overwritten");
        assert_eq!(sizes(master, "log"), [14, 5]);
    }

    // A later one of the same handle comes after the first.
    log.write_all(b"line 2\n").unwrap();
    await_text(&cluster, "log", "line 0\nline 1\nline 2\n");
    cluster.settle("the second late write");
    for master in &cluster.masters {
        assert_eq!(sizes(master, "log"), [21, 5]);
    }
    assert!(a.log().contains("through an old handle"), "{}", a.log());
}

/// Writes each line that it is given over the first bytes of a file, through a mapping of it, and says so.
const MAPPER: &str = "
import mmap, sys
with open(sys.argv[1], 'r+b') as file:
    mapped = mmap.mmap(file.fileno(), 0)
print('mapped', flush=True)
for line in sys.stdin:
    text = line.rstrip('\\n').encode()
    mapped[:len(text)] = text
    mapped.flush()
    print('written', flush=True)
";

/// A program that has a file mapped.
struct Mapper {
    program: Child,
    says: Lines<BufReader<ChildStdout>>,
}

impl Mapper {
    fn of(path: &Path) -> Self {
        let mut program = Command::new("python3")
            .args(["-c", MAPPER])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let says = BufReader::new(program.stdout.take().unwrap()).lines();
        let mut mapper = Self { program, says };
        assert_eq!(mapper.says.next().unwrap().unwrap(), "mapped");
        mapper
    }

    fn write(&mut self, text: &str) {
        writeln!(self.program.stdin.as_mut().unwrap(), "{text}").unwrap();
        assert_eq!(self.says.next().unwrap().unwrap(), "written");
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

#[test]
fn what_is_written_through_a_mapping_is_found_by_a_scan_and_after_a_replacement_at_the_next_start()
{
    if !have("python3") {
        return;
    }
    let mut cluster = Cluster::of(2);
    let a = &mut cluster.masters[0];
    a.stop();
    let settings = a.path(".pleach/config.toml");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, format!("rescan_interval = 10\n{text}")).unwrap();
    a.start();
    write(&a.path("mapped"), "before, by a\n");
    cluster.await_connected();
    cluster.settle_to(0, "the file");
    // No event tells of it: a scan finds it.
    let mut mapper = Mapper::of(&cluster.masters[0].path("mapped"));
    mapper.write("first ");
    await_text(&cluster, "mapped", "first , by a\n");
    drop(mapper);

    let mut mapper = Mapper::of(&cluster.masters[0].path("mapped"));
    let b = &cluster.masters[1];
    write(&b.path("mapped.new"), "by b\n");
    fs::rename(b.path("mapped.new"), b.path("mapped")).unwrap();
    cluster.settle_to(1, "b has replaced it");
    mapper.write("second");
    cluster.masters[0].stop();
    cluster.masters[0].start();
    cluster.await_connected();
    await_text(&cluster, "mapped", "second, by a\n");
    cluster.settle("both");
    for master in &cluster.masters {
        assert_eq!(sizes(master, "mapped"), [13, 5], "what b wrote is not overwritten");
    }
}

#[test]
fn every_line_of_an_appender_is_found_after_many_replacements() {
    let replacements = if long() { 10_000 } else { 60 };
    let cluster = Cluster::of(2);
    let [a, b] = &cluster.masters[..] else { unreachable!("two were started") };
    write(&a.path("log"), "begun\n");
    cluster.settle_to(0, "the file");
    let over = AtomicBool::new(false);
    let lines = std::thread::scope(|scope| {
        let appender = scope.spawn(|| {
            let mut line = 0;
            while !over.load(Ordering::Relaxed) {
                // Now and then it opens the file anew.
                let mut log = held(&a.path("log"));
                for _ in 0..20 {
                    log.write_all(format!("line {line};\n").as_bytes()).unwrap();
                    line += 1;
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            line
        });
        for number in 0..replacements {
            write(&b.path("log.new"), format!("replacement {number};\n"));
            fs::rename(b.path("log.new"), b.path("log")).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        over.store(true, Ordering::Relaxed);
        appender.join().unwrap()
    });
    cluster.settle("all is written");
    let mut found = String::new();
    for master in &cluster.masters {
        found += &fs::read_to_string(master.path("log")).unwrap();
        for version in fs::read_dir(master.path(".pleach/versions")).unwrap().flatten() {
            found += &fs::read_to_string(version.path()).unwrap_or_default();
        }
    }
    let lost: Vec<u32> =
        (0..lines).filter(|line| !found.contains(&format!("line {line};\n"))).collect();
    assert!(lost.is_empty(), "{} of {lines} lines are lost: {lost:?}", lost.len());
}
