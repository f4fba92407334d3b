//! Daemons that take long: what they tell of it, and how soon they stop.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use pleach_daemon::control::{Client, EventBody, Events, Request, WorkKind};
use rustix::process::Signal;

use support::{Daemon, pleach, scratch, until};

/// A daemon stops within two seconds; machines that run tests do other things too.
const STOP_MAX: Duration = Duration::from_secs(4);

fn stops_in_time(daemon: Daemon) {
    let start = Instant::now();
    assert_eq!(daemon.stop(Signal::TERM), 0);
    assert!(start.elapsed() < STOP_MAX, "it took {:?}", start.elapsed());
}

/// Whether the daemon is too deep in thought to answer.
fn is_busy(root: &Path) -> bool {
    let mut client = Client::connect(root).unwrap();
    client.set_patience(Some(Duration::from_millis(200))).unwrap();
    client.call(Request::Masters).is_err()
}

/// What a daemon tells; an error if it tells nothing for long.
fn events(root: &Path) -> Events {
    let client = Client::connect(root).unwrap();
    client.set_patience(Some(Duration::from_secs(30))).unwrap();
    client.events().unwrap()
}

#[test]
fn stop_while_a_large_file_is_read_is_quick() {
    let (_dir, top) = scratch();
    let a = top.join("a");
    fs::create_dir(&a).unwrap();
    // Takes minutes to read, and no space.
    File::create(a.join("large")).unwrap().set_len(256 << 30).unwrap();
    fs::write(a.join("small"), "small").unwrap();
    assert_eq!(pleach(&top, &["init", "a"]).code, 0);
    let daemon = Daemon::start(&a);
    until("it looks", || pleach(&a, &["status", "--json"]).json()["work"]["scanning"] == true);
    // Long work is told, to programs and in the log: how much of how many.
    let mut events = events(&a);
    let told = events.find_map(|event| match event.unwrap().body {
        EventBody::Progress { work, done, total, bytes_done, bytes_total } => {
            Some((work, done, total, bytes_done, bytes_total))
        }
        _ => None,
    });
    let (work, done, total, bytes_done, bytes_total) = told.unwrap();
    assert_eq!((work, total), (WorkKind::Scan, Some(2)));
    assert!(
        done < 2 && bytes_done > 5 && bytes_total == Some((256 << 30) + 5),
        "{bytes_done} {bytes_total:?}"
    );
    until("it is logged", || daemon.log().contains(" INFO looking through the directory files="));
    assert_eq!(daemon.log().lines().count(), 2, "one line in some seconds: {}", daemon.log());
    stops_in_time(daemon);

    fs::remove_file(a.join("large")).unwrap();
    let daemon = Daemon::start(&a);
    until("the rest is known", || pleach(&a, &["status", "--json"]).json()["tree"]["files"] == 1);
    drop(daemon);
}

#[test]
fn stop_while_many_files_become_a_change_is_quick_and_loses_nothing() {
    let (_dir, top) = scratch();
    let a = top.join("a");
    // At length it takes a test build much longer than a stop may.
    let files: u64 = if std::env::var_os("PLEACH_LONG").is_some() { 100_000 } else { 10_000 };
    for number in 0..files {
        let directory = a.join(format!("{}", number / 500));
        if number.is_multiple_of(500) {
            fs::create_dir_all(&directory).unwrap();
        }
        fs::write(directory.join(format!("{number}")), format!("{number}")).unwrap();
    }
    assert_eq!(pleach(&top, &["init", "a"]).code, 0);
    let daemon = Daemon::start(&a);
    let looked = || daemon.log().contains("looked through the directory");
    until("it thinks", || looked() || is_busy(&a));
    if looked() {
        println!("this machine is too fast to be caught at it");
    }
    stops_in_time(daemon);
    let daemon = Daemon::start(&a);
    until("all is known", || daemon.log().contains("looked through the directory"));
    assert_eq!(pleach(&a, &["status", "--json"]).json()["tree"]["files"], files);
    assert_eq!(pleach(&a, &["conflicts", "--check"]).code, 0);
}

#[test]
fn first_sync_tells_how_much_of_how_many_bytes_is_here() {
    const BYTES: usize = 192 << 20;
    let (_dir, top) = scratch();
    let (a, b) = (top.join("a"), top.join("b"));
    fs::create_dir(&a).unwrap();
    fs::create_dir(&b).unwrap();
    // No holes, and no two chunks alike.
    let words =
        (0..(BYTES / 8) as u64).flat_map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_le_bytes());
    fs::write(a.join("large"), words.collect::<Vec<u8>>()).unwrap();
    assert_eq!(pleach(&top, &["init", "a"]).code, 0);
    let first = Daemon::start(&a);
    until("it is known", || pleach(&a, &["status", "--json"]).json()["tree"]["files"] == 1);
    let ticket = pleach(&a, &["invite"]).out;
    assert_eq!(pleach(&top, &["join", "b", ticket.trim()]).code, 0);
    // Held, or on a fast machine all would be here before anybody listens.
    first.signal(Signal::STOP);
    let _second = Daemon::start(&b);
    let mut told = events(&b).filter_map(|event| match event.unwrap().body {
        EventBody::Progress { bytes_done, bytes_total, .. } => Some((bytes_done, bytes_total)),
        _ => None,
    });
    let total = Some(BYTES as u64);
    assert_eq!(told.next(), Some((0, total)));
    first.signal(Signal::CONT);
    let mut before = 0;
    for (done, of) in told {
        assert!(done >= before && of == total, "{done} of {of:?} after {before}");
        before = done;
        if Some(done) == total {
            break;
        }
    }
    until("it is there", || fs::metadata(b.join("large")).is_ok_and(|m| m.len() == BYTES as u64));
}

#[test]
fn terminal_shows_a_bar_and_a_log_above_it() {
    let (_dir, top) = scratch();
    let a = top.join("a");
    fs::create_dir(&a).unwrap();
    File::create(a.join("large")).unwrap().set_len(256 << 30).unwrap();
    assert_eq!(pleach(&top, &["init", "a"]).code, 0);
    let pleach = env!("CARGO_BIN_EXE_pleach");
    let line = format!(
        "stty cols 80; timeout --foreground 4 {pleach} daemon a --listen /ip4/127.0.0.1/tcp/0"
    );
    let script = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .current_dir(&top)
        .stdin(Stdio::null())
        .output();
    let Ok(Output { stdout, .. }) = script else {
        println!("skipped: script(1), which makes a terminal, is not here");
        return;
    };
    let shown = String::from_utf8_lossy(&stdout);
    assert!(shown.contains("reading: 0/1 files, "), "{shown}");
    assert!(shown.contains("/256 GiB") && shown.contains("iB/s"), "{shown}");
    assert!(shown.contains("stopped"), "{shown}");
    assert!(!shown.contains("of_files="), "the log tells it as well: {shown}");
}
