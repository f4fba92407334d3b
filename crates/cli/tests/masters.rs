//! Masters as their operator sees them: real daemons on loopback, asked with the built `pleach`.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use support::{Daemon, command, pleach, scratch, until};

#[test]
fn demo_runs_to_its_end_and_leaves_nothing_behind() {
    let (_dir, top) = scratch();
    let ran = pleach(&top, &["demo", "--scratch", "."]);
    assert_eq!((ran.code, &*ran.err), (0, ""), "{}", ran.out);
    for part in [
        "hold the same 304 entries",
        "index.html: edited on two masters",
        "entries, byte for byte the same on all three",
        "pleach up /srv/www --join TICKET",
    ] {
        assert!(ran.out.contains(part), "{part:?} is not in {}", ran.out);
    }
    assert_eq!(fs::read_dir(&top).unwrap().count(), 0, "something is left");
}

#[test]
fn demo_keeps_its_masters_when_told_to() {
    let (_dir, top) = scratch();
    let ran = pleach(&top, &["demo", "--scratch", ".", "--keep"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let kept = fs::read_dir(&top).unwrap().next().unwrap().unwrap().path();
    let status = pleach(&kept, &["status", "rome", "--json"]);
    assert_eq!((status.code, status.json()["tree"]["files"].as_u64()), (1, Some(302)));
}

/// Two directories, in `one` and `other`, with a master each; the first is running and holds
/// `site/index.html`.
fn two_masters(one: &Path, other: &Path) -> (PathBuf, Daemon, PathBuf) {
    let (a, b) = (one.join("a"), other.join("b"));
    fs::create_dir_all(a.join("site")).unwrap();
    fs::create_dir(&b).unwrap();
    fs::write(a.join("site/index.html"), "hello\n").unwrap();
    assert_eq!(pleach(one, &["init", "a", "--name", "web1"]).code, 0);
    let daemon = Daemon::start(&a);
    let ticket = pleach(&a, &["invite"]);
    let joined = pleach(other, &["join", "b", ticket.out.trim(), "--name", "web2", "--json"]);
    assert_eq!(joined.code, 0, "{}", joined.err);
    // The store is called as its first master's directory.
    assert_eq!((&joined.json()["store"], &joined.json()["master"]), (&"a".into(), &"web2".into()));
    (a, daemon, b)
}

fn connected(root: &Path) -> usize {
    let masters = pleach(root, &["masters", "--json"]).json();
    let masters = masters.as_array().unwrap().iter();
    masters.filter(|master| master["connected"] == true && master["this"] == false).count()
}

#[test]
fn second_master_joins_gets_everything_and_stops_at_a_signal() {
    let (_dir, top) = scratch();
    let (a, first, b) = two_masters(&top, &top);
    // Before its first start it knows already who else there is, and what the store holds.
    let status = pleach(&b, &["status", "--json"]);
    assert_eq!(status.code, 1);
    let status = status.json();
    assert_eq!(status["masters"].as_array().unwrap().len(), 2, "{status}");
    assert_eq!((&status["tree"]["files"], &status["tree"]["bytes"]), (&1.into(), &6.into()));
    assert_eq!(status["on_disk"]["files"], 0, "{status}");

    let second = Daemon::start(&b);
    until("they are connected", || connected(&a) == 1);
    let mut events = command(env!("CARGO_BIN_EXE_pleach"), &b)
        .arg("events")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(pleach(&a, &["wait"]).code, 0);
    assert_eq!(fs::read(b.join("site/index.html")).unwrap(), b"hello\n");

    fs::write(b.join("site/new.html"), "new\n").unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    let event = lines.by_ref().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let told = event.into_iter().find(|event| event["event"] == "local_change").unwrap();
    assert_eq!(told["paths"], serde_json::json!(["site/new.html"]));
    assert_eq!(pleach(&b, &["wait"]).code, 0);
    assert_eq!(fs::read(a.join("site/new.html")).unwrap(), b"new\n");

    let status = pleach(&a, &["status"]);
    assert!(status.out.contains("2 files, 1 directory, no links, 10 B"), "{}", status.out);
    assert!(status.out.contains("\nweb2    connected  nothing "), "{}", status.out);
    let verified = pleach(&b, &["verify", "--json"]);
    assert_eq!((verified.code, verified.json()["files"].as_u64()), (0, Some(2)));

    assert!(second.log().contains(" INFO running version="), "{}", second.log());
    assert_eq!(second.stop(Signal::INT), 0);
    // The events end with their daemon.
    assert_eq!(events.wait().unwrap().code(), Some(0));
    until("it is known to be away", || connected(&a) == 0);
    let log = first.log();
    assert_eq!(first.stop(Signal::TERM), 0);
    for line in log.lines() {
        assert!(line.contains(" INFO "), "{log}");
    }
    let status = pleach(&a, &["status"]);
    assert!(status.out.contains("not running") && !status.out.contains("nothing to do"));
}

/// Two running masters that have each written to `site/index.html` while the other did not know.
fn two_masters_in_conflict(top: &Path) -> (PathBuf, Daemon, PathBuf, Daemon) {
    let (a, first, b) = two_masters(top, top);
    let second = Daemon::start(&b);
    until("they are connected", || connected(&a) == 1);
    assert_eq!(pleach(&a, &["wait"]).code, 0);
    assert_eq!(second.stop(Signal::TERM), 0);
    fs::write(a.join("site/index.html"), "written on web1\n").unwrap();
    fs::write(b.join("site/index.html"), "written on web2\n").unwrap();
    let second = Daemon::start(&b);
    until("the conflict is there", || pleach(&a, &["conflicts", "--check"]).code == 4);
    (a, first, b, second)
}

#[test]
fn conflict_is_listed_shown_and_settled() {
    let (_dir, top) = scratch();
    let (a, first, b, second) = two_masters_in_conflict(&top);
    until("it is logged", || first.log().contains(" WARN conflict path=site/index.html"));
    let listed = pleach(&a, &["conflicts"]);
    assert!(listed.out.starts_with("1 open conflict\n"), "{}", listed.out);
    let shown = pleach(&a.join("site"), &["conflicts", "show", "index.html", "--json"]).json();
    let versions = shown[0]["versions"].as_array().unwrap();
    let of = |master: &str| versions.iter().find(|v| v["master"]["name"] == master).unwrap();
    let keep =
        |version: &str| pleach(&a, &["conflicts", "resolve", "site/index.html", "--keep", version]);
    let wrong = keep("00000000000000000000");
    assert_eq!(wrong.code, 1);
    assert_eq!(wrong.err.matches("site/index.html").count(), 1, "{}", wrong.err);
    assert_eq!(keep(of("web2")["id"].as_str().unwrap()).code, 0);
    until("it is settled", || pleach(&b, &["conflicts", "--check"]).code == 0);
    for root in [&a, &b] {
        until("the kept version stands", || {
            fs::read(root.join("site/index.html")).unwrap() == b"written on web2\n"
        });
    }
    drop(second);
}

#[test]
fn masters_that_are_all_restarted_find_each_other_at_once_and_make_no_fuss() {
    let (_dir, top) = scratch();
    let (a, first, b) = two_masters(&top, &top);
    let mut daemons = vec![first, Daemon::start(&b)];
    until("they are connected", || connected(&a) == 1 && connected(&b) == 1);
    // On ports that the system chooses, and nobody else is there to tell them.
    for _ in 0..4 {
        for daemon in daemons.drain(..) {
            assert_eq!(daemon.stop(Signal::TERM), 0);
        }
        daemons.extend([Daemon::start(&a), Daemon::start(&b)]);
        until("they are connected again", || connected(&a) == 1 && connected(&b) == 1);
        for daemon in &daemons {
            let log = daemon.log();
            assert!(log.lines().all(|line| line.contains(" INFO ")), "{log}");
        }
    }
}

#[test]
fn lost_root_is_one_problem_and_what_came_meanwhile_is_done_when_it_is_back() {
    let (_dir, top) = scratch();
    let (a, first, b) = two_masters(&top, &top);
    let second = Daemon::start(&b);
    until("they are connected", || connected(&a) == 1);
    assert_eq!(pleach(&a, &["wait"]).code, 0);
    let mut events = command(env!("CARGO_BIN_EXE_pleach"), &b)
        .arg("events")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    let mut next = |kind: &str| {
        let lines = lines.by_ref().map(|line| line.unwrap());
        let events = lines.map(|line| serde_json::from_str::<Value>(&line).unwrap());
        let mut problems = 0;
        for event in events {
            problems += u32::from(event["event"] == "problem_appeared");
            if event["event"] == kind {
                break;
            }
        }
        problems
    };

    fs::write(b.join("before"), "").unwrap();
    assert_eq!(next("local_change"), 0);
    let aside = top.join("aside");
    fs::rename(&b, &aside).unwrap();
    fs::create_dir(&b).unwrap();
    assert_eq!(next("problem_appeared"), 1);
    fs::write(a.join("meanwhile"), "meanwhile").unwrap();
    let told = || second.log().lines().filter(|line| line.contains(" WARN ")).count();
    until("the other master has it", || {
        let status = pleach(&a, &["status", "--json"]).json();
        status["masters"].as_array().unwrap().iter().any(|m| m["behind_changes"] == 1)
    });
    fs::remove_dir(&b).unwrap();
    fs::rename(&aside, &b).unwrap();
    assert_eq!(next("problem_solved"), 0);
    until("what came meanwhile is there", || {
        fs::read(b.join("meanwhile")).is_ok_and(|bytes| bytes == b"meanwhile")
    });
    assert_eq!(told(), 1, "{}", second.log());
    let status = pleach(&b, &["status", "--json"]).json();
    assert_eq!((&status["problems"], &status["frozen"]), (&serde_json::json!([]), &Value::Null));
    drop((first, second));
    events.wait().unwrap();
}

#[test]
fn joiner_knows_of_open_conflicts_before_its_first_start_and_adopts_what_it_holds() {
    let (_dir, top) = scratch();
    let (a, first, b, second) = two_masters_in_conflict(&top);

    let c = top.join("c");
    fs::create_dir_all(c.join("site")).unwrap();
    let index = |root: &Path| fs::read(root.join("site/index.html")).unwrap();
    until("one version stands on both", || index(&a) == index(&b));
    let standing = index(&a);
    fs::write(c.join("site/index.html"), &standing).unwrap();
    let joined = pleach(&top, &["join", "c", pleach(&a, &["invite"]).out.trim()]);
    assert_eq!(joined.code, 0, "{}", joined.err);
    assert!(
        joined.out.contains("\nits tree: 1 file, 1 directory, no links, 16 B; "),
        "{}",
        joined.out
    );
    let conflicts = pleach(&c, &["conflicts"]);
    assert_eq!(conflicts.code, 1);
    assert!(conflicts.out.starts_with("1 open conflict\n"), "{}", conflicts.out);
    assert!(conflicts.err.contains("no daemon runs on "), "{}", conflicts.err);

    let third = Daemon::start(&c);
    until("all three are connected", || connected(&c) == 2);
    assert_eq!(pleach(&c, &["wait"]).code, 0);
    let conflicts = pleach(&c, &["conflicts", "--json"]).json();
    let versions: Vec<_> = conflicts[0]["versions"].as_array().unwrap().iter().collect();
    assert_eq!((conflicts.as_array().unwrap().len(), versions.len()), (1, 2), "{conflicts}");
    assert_eq!(fs::read(c.join("site/index.html")).unwrap(), standing);
    drop((first, second, third));
}

#[test]
fn removed_master_is_cut_off() {
    let (_dir, top) = scratch();
    let (a, _first, b) = two_masters(&top, &top);
    let second = Daemon::start(&b);
    until("they are connected", || connected(&a) == 1);
    assert_eq!(pleach(&a, &["masters", "remove", "web9"]).code, 1);
    let own = pleach(&a, &["masters", "remove", "web1"]);
    assert_eq!(own.code, 1);
    assert!(own.err.contains("a master can't remove itself"), "{}", own.err);
    let removed = pleach(&a, &["masters", "remove", "web2"]);
    assert_eq!(removed.code, 0, "{}", removed.err);
    until("it is cut off", || connected(&a) == 0);
    let listed = pleach(&a, &["masters"]);
    assert!(listed.out.contains("removed"), "{}", listed.out);
    until("it is told", || second.log().contains("refused who=web1"));
}

/// An ext4 image, mounted; none where that can't be had.
struct Mounted {
    image: PathBuf,
    at: PathBuf,
}

impl Mounted {
    fn make(top: &Path) -> Option<Self> {
        let mounted = Self { image: top.join("image"), at: top.join("mounted") };
        fs::create_dir(&mounted.at).unwrap();
        fs::File::create(&mounted.image).unwrap().set_len(32 << 20).unwrap();
        let image = mounted.image.to_str().unwrap();
        if ran("mkfs.ext4", &["-q", "-F", image]) && mounted.mount() {
            return Some(mounted);
        }
        println!("skipped: no file system can be made and mounted here");
        None
    }

    fn mount(&self) -> bool {
        ran("mount", &["-o", "loop", self.image.to_str().unwrap(), self.at.to_str().unwrap()])
    }

    fn unmount(&self) -> bool {
        ran("umount", &[self.at.to_str().unwrap()])
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn ran(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn bytes_that_rot_on_the_disk_are_found_and_healed() {
    let (_dir, top) = scratch();
    let Some(disk) = Mounted::make(&top) else { return };
    let (a, first, b) = two_masters(&disk.at, &top);
    fs::write(a.join("site/rotting"), "SOUND BYTES ON A DISK").unwrap();
    let second = Daemon::start(&b);
    until("they are connected", || connected(&a) == 1);
    assert_eq!(pleach(&a, &["wait"]).code, 0);
    assert_eq!(first.stop(Signal::TERM), 0);
    assert!(disk.unmount());
    let mut bytes = fs::read(&disk.image).unwrap();
    let at = bytes.windows(21).position(|window| window == b"SOUND BYTES ON A DISK").unwrap();
    bytes[at] ^= 1;
    fs::write(&disk.image, bytes).unwrap();
    assert!(disk.mount());
    assert_eq!(fs::read(a.join("site/rotting")).unwrap(), b"ROUND BYTES ON A DISK");

    let first = Daemon::start(&a);
    until("they are connected", || connected(&a) == 1);
    let verified = pleach(&a, &["verify"]);
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
    assert!(verified.out.contains("1 file was damaged, 1 healed:\n  site/rotting: healed"));
    assert_eq!(fs::read(a.join("site/rotting")).unwrap(), b"SOUND BYTES ON A DISK");
    assert_eq!(fs::read(b.join("site/rotting")).unwrap(), b"SOUND BYTES ON A DISK");
    let again = pleach(&a, &["verify", "--json"]).json();
    assert_eq!((&again["files"], &again["damaged"]), (&2.into(), &serde_json::json!([])));
    drop((first, second));
}

/// A directory in which nothing can be made, until it is dropped; none where that can't be had.
struct Immutable(PathBuf);

impl Immutable {
    fn make(directory: &Path) -> Option<Self> {
        let path = directory.to_str().unwrap();
        if ran("chattr", &["+i", path]) {
            return Some(Self(directory.to_owned()));
        }
        println!("skipped: no directory can be made immutable here");
        None
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        ran("chattr", &["-i", self.0.to_str().unwrap()]);
    }
}

#[test]
fn file_for_which_there_is_no_space_is_told_with_that_reason_and_comes_when_there_is() {
    let (_dir, top) = scratch();
    let Some(disk) = Mounted::make(&top) else { return };
    let (a, _first, b) = two_masters(&top, &disk.at);
    let second = Daemon::start(&b);
    until("they are connected", || connected(&a) == 1);
    assert_eq!(pleach(&a, &["wait"]).code, 0);
    // Of 32 MiB.
    let filler = disk.at.join("filler");
    fs::write(&filler, vec![1; 18 << 20]).unwrap();
    fs::write(a.join("large"), vec![7; 12 << 20]).unwrap();
    let waited = pleach(&a, &["wait", "--timeout", "3s"]);
    assert_eq!(waited.code, 3, "{}", waited.out);
    let named = "\n    large: no space left on the device";
    assert!(waited.out.contains("\n  web2: ") && waited.out.contains(named), "{}", waited.out);
    let problems = pleach(&b, &["status", "--json"]).json();
    assert_eq!(problems["problems"][0]["kind"], "no_space", "{problems}");
    fs::remove_file(&filler).unwrap();
    assert_eq!(pleach(&a, &["wait", "--timeout", "60s"]).code, 0);
    assert_eq!(fs::metadata(b.join("large")).unwrap().len(), 12 << 20);
    drop(second);
}

#[test]
fn wait_names_the_master_that_cannot_have_a_file_with_path_and_reason() {
    let (_dir, top) = scratch();
    let (a, _first, b) = two_masters(&top, &top);
    let second = Daemon::start(&b);
    until("they are connected", || connected(&a) == 1);
    assert_eq!(pleach(&a, &["wait"]).code, 0);
    let Some(immutable) = Immutable::make(&b.join("site")) else { return };
    fs::write(a.join("site/new"), "new").unwrap();
    fs::write(a.join("elsewhere"), "elsewhere").unwrap();
    until("the other has tried", || {
        let status = pleach(&b, &["status", "--json"]).json();
        status["problems"].as_array().unwrap().iter().any(|p| p["path"] == "site/new")
    });

    for root in [&a, &b] {
        let waited = pleach(root, &["wait", "--timeout", "2s"]);
        assert_eq!(waited.code, 3, "{}", waited.out);
        let named = "\n    site/new: operation not permitted: immutable";
        assert!(waited.out.contains("\n  web2: has 2 problems\n"), "{}", waited.out);
        assert!(waited.out.contains(named), "{}", waited.out);
    }
    assert_eq!(fs::read(b.join("elsewhere")).unwrap(), b"elsewhere");
    // It is tried again and again, and told once.
    let told = second.log().matches(" WARN problem path=site/new").count();
    assert_eq!(told, 1, "{}", second.log());

    drop(immutable);
    let waited = pleach(&a, &["wait", "--timeout", "60s"]);
    assert_eq!(waited.code, 0, "{}", waited.out);
    assert_eq!(fs::read(b.join("site/new")).unwrap(), b"new");
}

/// `pleach up` in the foreground; killed when dropped.
struct Up(Child);

impl Up {
    /// Starts it, and waits until it has said how others join; what it said.
    fn start(top: &Path, arguments: &[&str]) -> (Self, String) {
        let mut child = command(env!("CARGO_BIN_EXE_pleach"), top)
            .arg("up")
            .args(arguments)
            .args(["--listen", "/ip4/127.0.0.1/tcp/0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let up = Self(child);
        while !said.contains("to add a master: pleach invite ") {
            assert_ne!(out.read_line(&mut said).unwrap(), 0, "it ended: {said}");
        }
        (up, said)
    }

    fn stop(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn up_founds_joins_and_runs_again_what_is_there() {
    let (_dir, top) = scratch();
    for name in ["a", "b"] {
        fs::create_dir(top.join(name)).unwrap();
    }
    fs::write(top.join("a/f"), "f").unwrap();
    let (first, said) = Up::start(&top, &["a", "--name", "web1"]);
    assert!(said.starts_with("web1 is the first master of store a, in "), "{said}");
    assert!(said.contains("\nrunning on /ip4/127.0.0.1/tcp/"), "{said}");
    // Others may read a log: the ticket is not in it.
    assert!(!said.contains("pleach1"), "{said}");
    let ticket = pleach(&top.join("a"), &["invite"]).out;
    let join = ["b", "--join", ticket.trim(), "--name", "web2"];
    let (second, said) = Up::start(&top, &join);
    assert!(said.starts_with("web2 is a master of store a now, in "), "{said}");
    until("they are connected", || connected(&top.join("a")) == 1);
    assert_eq!(pleach(&top, &["wait", "a"]).code, 0);
    assert_eq!(fs::read(top.join("b/f")).unwrap(), b"f");

    assert_eq!(second.stop(), Some(0));
    let (second, said) = Up::start(&top, &join);
    assert!(said.contains("is a master already: the ticket is left unused"), "{said}");
    until("they are connected again", || connected(&top.join("a")) == 1);
    assert_eq!((first.stop(), second.stop()), (Some(0), Some(0)));
}
