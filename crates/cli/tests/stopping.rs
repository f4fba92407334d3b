//! Daemons that are told to stop in the middle of their first look.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use pleach_daemon::control::{Client, Request};
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
    let files: u64 = if std::env::var_os("PLEACH_LONG").is_some() { 100_000 } else { 20_000 };
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
