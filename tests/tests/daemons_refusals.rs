//! What can't be done is said, with what to do, and exit code 1 or 2.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use pleach_tests::daemons::{Cluster, Master, Ran, pleach, pleach_path, run, wait_until, write};

/// Checks exit code, 1 or 2, and message: it has all of `words`, and is no panic.
#[track_caller]
fn refused(ran: &Ran, words: &[&str]) {
    assert!([1, 2].contains(&ran.code), "{ran}");
    assert!(!ran.stderr.trim().is_empty(), "{ran}");
    assert!(!ran.stderr.contains("panicked"), "{ran}");
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is not in it: {ran}");
    }
}

fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("pleach-test-").tempdir().unwrap()
}

#[test]
fn directories_that_are_none_or_taken_are_refused() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    write(&scratch.path().join("file"), "a file");
    fs::create_dir_all(scratch.path().join("store/inside")).unwrap();
    fs::create_dir_all(scratch.path().join("around/store")).unwrap();

    refused(&pleach(["init", &at("nowhere")]), &["nowhere"]);
    refused(&pleach(["init", &at("file")]), &["file", "directory"]);
    let _ = pleach(["init", &at("store")]).ok();
    refused(&pleach(["init", &at("store")]), &["already"]);
    refused(&pleach(["init", &at("store/inside")]), &["inside"]);
    let _ = pleach(["init", &at("around/store")]).ok();
    refused(&pleach(["init", &at("around")]), &["around/store"]);
    refused(&pleach(["daemon", &at("nowhere")]), &["nowhere"]);
    fs::create_dir(scratch.path().join("plain")).unwrap();
    refused(&pleach(["daemon", &at("plain")]), &["plain", "pleach init"]);
    refused(&pleach(["status", &at("plain")]), &["plain"]);
    refused(&pleach(["join", &at("plain"), "nonsense"]), &["ticket"]);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let lines: [&[&str]; 6] = [
        &["nonsense"],
        &["init"],
        &["join", "."],
        &["wait", "--timeout", "soon"],
        &["daemon", ".", "--listen", "everywhere"],
        &["invite", ".", "--expires", "-1"],
    ];
    for line in lines {
        let ran = pleach(line);
        refused(&ran, &[]);
        assert_eq!(ran.code, 2, "{ran}");
    }
}

#[test]
fn wrong_settings_are_refused_by_line_and_key() {
    let cluster = Cluster::of(1);
    let mut master = Master::new(cluster.scratch.path(), "settings");
    master.init();
    let path = master.path(".pleach/config.toml");
    for (text, words) in [
        ("# fine\nrescan_intervall = \"1h\"\n", &["config.toml", "line 2", "rescan_intervall"][..]),
        ("mdns = \"perhaps\"\n", &["config.toml", "line 1", "mdns"]),
        ("listen = [\n", &["config.toml", "line"]),
    ] {
        write(&path, text);
        let ran = run(Command::new(pleach_path()).arg("daemon").arg(master.directory()));
        refused(&ran, words);
    }
    write(&path, "mdns = false\n");
    master.start();
}

#[test]
fn second_daemon_on_a_directory_is_refused() {
    let cluster = Cluster::of(1);
    let a = &cluster.masters[0];
    let ran = a.pleach(["daemon", ".", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    refused(&ran, &["runs"]);
    write(&a.path("f"), "f");
    cluster.flush(a);
}

#[test]
fn port_in_use_is_refused() {
    let scratch = scratch();
    let master = Master::new(scratch.path(), "a");
    master.init();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let address = format!("/ip4/127.0.0.1/tcp/{port}");
    refused(&master.pleach(["daemon", ".", "--listen", &address]), &[&port.to_string(), "in use"]);
}

#[test]
fn commands_without_a_daemon_say_so() {
    let scratch = scratch();
    let master = Master::new(scratch.path(), "a");
    master.init();
    for line in [&["status", "."][..], &["invite", "."], &["wait", "."]] {
        let ran = master.pleach(line);
        assert_eq!(ran.code, 1, "{ran}");
        assert!((ran.stdout.clone() + &ran.stderr).contains("daemon"), "{ran}");
    }
}

#[test]
fn wait_that_is_over_before_all_have_it_is_exit_code_3() {
    let cluster = Cluster::of(2);
    let (a, b) = (&cluster.masters[0], &cluster.masters[1]);
    write(&a.path("f"), "f");
    cluster.settle_to(0, "a file");
    assert_eq!(a.pleach(["wait", ".", "--timeout", "20s"]).code, 0);
    b.signal(rustix::process::Signal::STOP);
    write(&a.path("g"), "g");
    let ran = a.pleach(["wait", ".", "--timeout", "1s"]);
    b.signal(rustix::process::Signal::CONT);
    assert_eq!(ran.code, 3, "{ran}");
    cluster.settle_to(0, "it goes on");
}

#[test]
fn daemon_stops_within_two_seconds_and_cleans_up() {
    let mut cluster = Cluster::of(1);
    let master = &mut cluster.masters[0];
    write(&master.path("f"), "f");
    let start = std::time::Instant::now();
    master.stop();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    master.start();
}

#[test]
fn what_is_not_replicated_is_listed_with_its_reason() {
    let cluster = Cluster::of(2);
    let a = &cluster.masters[0];
    pleach_tests::daemons::shell(
        a.directory(),
        "mkfifo pipe; mkdir d; mkdir d/.pleach; echo f > d/f",
    );
    wait_until("the other master has the file", Duration::from_secs(30), || {
        if cluster.masters[1].path("d/f").exists() { Ok(()) } else { Err(a.log()) }
    });
    for (path, kind) in [("pipe", "special_file"), ("d/.pleach", "unsupported_name")] {
        wait_until(&format!("{path} is listed"), Duration::from_secs(10), || {
            let status = a.status();
            let problems = status.list("/problems");
            let listed =
                |problem: &serde_json::Value| problem["path"] == path && problem["kind"] == kind;
            if problems.iter().any(listed) { Ok(()) } else { Err(format!("{problems:#?}")) }
        });
    }
    assert!(!cluster.masters[1].path("pipe").exists());
}

#[test]
fn root_that_vanishes_freezes_the_store_and_removes_nothing_elsewhere() {
    let cluster = Cluster::of(2);
    let (a, b) = (&cluster.masters[0], &cluster.masters[1]);
    for number in 0..20 {
        write(&a.path(&format!("d/{number}")), "kept");
    }
    let before = cluster.settle_to(0, "the files are on both");
    let aside = cluster.scratch.path().join("aside");
    fs::rename(a.directory(), &aside).unwrap();
    fs::create_dir(a.directory()).unwrap();
    write(&b.path("goes on"), "goes on");
    let spread = pleach_tests::daemons::probe_until(Duration::from_secs(3), || {
        let tree = b.tree();
        let gone = before.entries.keys().find(|path| !tree.entries.contains_key(*path));
        gone.cloned().ok_or_else(String::new)
    });
    assert!(spread.is_err(), "{spread:?} was removed on b");
    assert!(!a.path("goes on").exists(), "nothing is written to a stranger's directory");
    fs::remove_dir(a.directory()).unwrap();
    fs::rename(&aside, a.directory()).unwrap();
}

#[test]
fn unreadable_directory_is_unknown_and_not_deleted() {
    let mut cluster = Cluster::of(2);
    write(&cluster.masters[0].path("d/f"), "f");
    cluster.settle_to(0, "a file");
    // Root reads everything: an unreadable directory can only be had by another user.
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root can read every directory");
        return;
    }
    let d = cluster.masters[0].path("d");
    cluster.masters[0].stop();
    fs::set_permissions(&d, fs::Permissions::from_mode(0o000)).unwrap();
    cluster.masters[0].start();
    write(&cluster.masters[0].path("g"), "g");
    cluster.flush(&cluster.masters[0]);
    assert!(cluster.masters[1].path("d/f").exists());
    fs::set_permissions(&d, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn line_of_the_ignore_rules_that_is_none_is_in_status_until_it_is_mended() {
    let cluster = Cluster::of(1);
    let a = &cluster.masters[0];
    let listed = || -> Vec<String> {
        let status = a.status();
        let of_rules = status.list("/problems").iter().filter(|it| it["kind"] == "ignore_rule");
        of_rules.map(|it| format!("{}: {}", it["path"], it["reason"])).collect()
    };
    write(&a.path(".pleachignore"), "*.log\na{b\n");
    wait_until("the line is said", Duration::from_secs(20), || {
        let said = listed();
        let fits = |it: &String| it.contains(".pleachignore") && it.contains("line 2");
        if said.len() == 1 && said.iter().all(fits) { Ok(()) } else { Err(format!("{said:?}")) }
    });
    write(&a.path(".pleachignore"), "*.log\n");
    wait_until("nothing is said any more", Duration::from_secs(20), || {
        let said = listed();
        if said.is_empty() { Ok(()) } else { Err(format!("{said:?}")) }
    });
}
