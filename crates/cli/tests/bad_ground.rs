//! Directories and machines on which a store can't be made or run: a message that says what to do, and
//! exit code 1 or 2.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use support::{Daemon, Ran, command, pleach, scratch};

/// A user without rights, for tests that are run by root.
const NOBODY: u32 = 65_534;

fn refused(ran: &Ran, code: i32, parts: &[&str]) {
    assert_eq!(ran.code, code, "{}{}", ran.out, ran.err);
    for part in parts {
        assert!(ran.err.contains(part), "{part:?} is not in {}", ran.err);
    }
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
}

#[test]
fn second_daemon_and_taken_port_are_refused() {
    let (_dir, top) = scratch();
    for name in ["a", "b"] {
        fs::create_dir(top.join(name)).unwrap();
        assert_eq!(pleach(&top, &["init", name]).code, 0);
    }
    let _daemon = Daemon::start(&top.join("a"));
    for act in [&["daemon", "a"][..], &["up", "a"]] {
        refused(&pleach(&top, act), 1, &["another daemon runs on", "pleach status "]);
    }
    refused(&pleach(&top, &["init", "a"]), 2, &["is a store already", "pleach daemon "]);

    let status = pleach(&top, &["status", "a", "--json"]).json();
    let address = status["listen"][0].as_str().unwrap();
    let said = [address, " is in use", "`--listen`", "config.toml"];
    refused(&pleach(&top, &["daemon", "b", "--listen", address]), 1, &said);
    fs::write(top.join("b/.pleach/config.toml"), format!("listen = [{address:?}]\n")).unwrap();
    refused(&pleach(&top, &["daemon", "b"]), 1, &said);
    // An address for documentation (RFC 5737): nobody's.
    let foreign = ["daemon", "b", "--listen", "/ip4/192.0.2.1/tcp/4747"];
    refused(&pleach(&top, &foreign), 1, &["192.0.2.1", "an address of this machine"]);
    let unknown = ["daemon", "b", "--listen", "/ip4/127.0.0.1/udp/4747"];
    refused(&pleach(&top, &unknown), 1, &["an address looks like /ip4/"]);
}

#[test]
fn state_that_was_lost_is_not_founded_anew() {
    let (_dir, top) = scratch();
    fs::create_dir(top.join("a")).unwrap();
    assert_eq!(pleach(&top, &["init", "a"]).code, 0);
    assert_eq!(Daemon::start(&top.join("a")).stop(Signal::TERM), 0);
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(top.join(format!("a/.pleach/state.db{suffix}")));
    }
    for act in ["up", "init", "daemon"] {
        let parts = ["is gone (.pleach/state.db)", "pleach join ", "your files are untouched"];
        refused(&pleach(&top, &[act, "a"]), 1, &parts);
    }
}

/// Runs `pleach` as somebody who owns nothing here.
fn pleach_as_nobody(top: &Path, arguments: &[&str]) -> Ran {
    let mut command = command(env!("CARGO_BIN_EXE_pleach"), top);
    if rustix::process::geteuid().is_root() {
        // The build may be in a directory that only root may enter.
        let own = top.join("pleach");
        if !own.exists() {
            fs::hard_link(env!("CARGO_BIN_EXE_pleach"), &own)
                .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_pleach"), &own).map(|_| ()))
                .unwrap();
        }
        command = support::command(own.to_str().unwrap(), top);
        command.uid(NOBODY).gid(NOBODY);
    }
    command.args(arguments).output().unwrap().into()
}

/// Takes the rights of others, and of ourselves unless we are root.
fn close(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn directory_that_is_not_writable_is_told() {
    let (_dir, top) = scratch();
    close(&top, 0o755);
    fs::create_dir(top.join("closed")).unwrap();
    close(&top.join("closed"), 0o555);
    for act in ["init", "up"] {
        let ran = pleach_as_nobody(&top, &[act, "closed"]);
        refused(&ran, 1, &["cannot write in", "closed", "Permission denied", "make it writable"]);
    }
    assert_eq!(fs::read_dir(top.join("closed")).unwrap().count(), 0);
}

#[test]
fn store_of_another_user_is_told() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can act as two users");
        return;
    }
    let (_dir, top) = scratch();
    close(&top, 0o755);
    fs::create_dir(top.join("theirs")).unwrap();
    assert_eq!(pleach(&top, &["init", "theirs"]).code, 0);
    assert_eq!(fs::metadata(top.join("theirs/.pleach")).unwrap().mode() & 0o777, 0o700);
    let parts = ["belongs to another user", "as root"];
    for act in ["daemon", "up", "init"] {
        refused(&pleach_as_nobody(&top, &[act, "theirs"]), 1, &parts);
    }
    let _daemon = Daemon::start(&top.join("theirs"));
    for act in ["status", "conflicts", "wait", "invite"] {
        refused(&pleach_as_nobody(&top, &[act, "theirs"]), 1, &parts);
    }
}

/// A command that runs `pleach` with `call` failing with `errno`; none where that can't be had.
fn failing(call: &str, errno: &str, current: &Path) -> Option<Command> {
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        println!("skipped: strace is not there or may not trace");
        return None;
    }
    let mut command = command("strace", current);
    command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    command.args(["-e", &format!("inject={call}:error={errno}")]);
    command.arg(PathBuf::from(env!("CARGO_BIN_EXE_pleach")));
    Some(command)
}

#[test]
fn file_system_that_cannot_exchange_two_files_is_told() {
    let (_dir, top) = scratch();
    fs::create_dir(top.join("a")).unwrap();
    // As vfat answers.
    let Some(mut command) = failing("renameat2", "EINVAL", &top) else { return };
    let ran: Ran = command.args(["init", "a"]).output().unwrap().into();
    refused(&ran, 1, &["cannot exchange two files", "RENAME_EXCHANGE", "use ext4"]);
    assert_eq!(fs::read_dir(top.join("a")).unwrap().count(), 0);
}

#[test]
fn watches_that_ran_out_are_a_problem_in_status() {
    let (_dir, top) = scratch();
    let root = top.join("a");
    fs::create_dir_all(root.join("sub")).unwrap();
    assert_eq!(pleach(&top, &["init", "a"]).code, 0);
    let Some(command) = failing("inotify_add_watch", "ENOSPC", &top) else { return };
    let daemon = Daemon::start_as(&root, command);
    support::until("the problem is listed", || {
        let status = pleach(&root, &["status", "--json"]).json();
        status["problems"][0]["kind"] == "watch_limit"
    });
    let status = pleach(&root, &["status"]).out;
    assert!(status.contains("raise fs.inotify.max_user_watches"), "{status}");
    // What no event tells is found all the same, when somebody waits for it.
    fs::write(root.join("sub/new"), "x").unwrap();
    assert_eq!(pleach(&root, &["wait"]).code, 0);
    assert_eq!(pleach(&root, &["status", "--json"]).json()["tree"]["files"], 1);
    assert_eq!(daemon.stop(Signal::TERM), 0);
}
