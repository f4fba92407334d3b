//! The built `pleach`, as scripts see it: exit codes, what goes where, and the JSON.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::path::Path;

use pleach_core::values::{ConflictKind, Rule, VersionOf};
use pleach_daemon::control::{
    self, Call, ConflictReport, InviteReport, Pick, Refusal, RefusalKind, Reply, Request,
    VersionKind, VersionReport, WaitReport, WaitingFor,
};
use serde_json::Value;
use tokio::sync::{broadcast, mpsc};

use support::{pleach, scratch};

#[test]
fn wrong_input_is_told_with_path_and_next_step_and_exit_code_2() {
    let (_dir, top) = scratch();
    std::fs::write(top.join("file"), "").unwrap();
    std::fs::create_dir_all(top.join("store/sub")).unwrap();
    std::fs::create_dir_all(top.join("plain")).unwrap();
    assert_eq!(pleach(&top, &["init", "store"]).code, 0);
    for (arguments, said) in [
        (&["init", "missing"][..], "missing does not exist: create it first"),
        (&["init", "file"], "file is not a directory"),
        (&["init", "store"], "is a store already"),
        (&["init", "store/sub"], "is inside the store"),
        (&["init", "."], "has the store"),
        (&["init", "plain", "--name", ""], "cannot be a name"),
        (&["join", "plain", "nonsense"], "not a ticket"),
        (&["join", "plain", "pleach1abcdefgh"], "damaged"),
        (&["join", "missing", "pleach1abcdefgh"], "damaged"),
        (&["daemon", "plain"], "is not a store: make it one"),
        (&["daemon", "missing"], "does not exist"),
        (&["daemon", "store", "--listen", "0.0.0.0:80"], "--listen"),
        (&["daemon", "store", "--log", "loud=5,=,"], "no log filter"),
        (&["status", "plain"], "is not in a store"),
        (&["status", "missing"], "does not exist"),
        (&["-C", "missing", "status"], "cannot start in missing"),
        (&["wait", "store", "--timeout", "soon"], "is no duration"),
        (&["invite", "store", "--expires", "0"], "must be good for some time"),
        (&["conflicts", "resolve", "store/a"], "--keep"),
        (&["conflicts", "resolve", "store/a", "--keep", "mine"], "expected a version's id"),
        (&["conflicts", "show", "plain/a"], "is not in a store"),
        (&["fly"], "unrecognized subcommand"),
        (&[], "Usage"),
    ] {
        let ran = pleach(&top, arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(said), "{arguments:?}: {}", ran.err);
        assert_eq!(ran.out, "", "{arguments:?}");
    }
    assert!(!top.join("plain/.pleach").exists());
}

#[test]
fn wrong_setting_is_told_with_its_line_and_exit_code_2() {
    let (_dir, top) = scratch();
    assert_eq!(pleach(&top, &["init", "."]).code, 0);
    for (settings, said) in [
        ("mdns = true\nlisen = []\n", "line 2: unknown key `lisen`, allowed are `listen`, "),
        ("mdns = \"yes\"\n", "line 1: wrong value for `mdns`"),
        ("mdns = true\nmdns = false\n", "line 2: `mdns` is there twice"),
        ("\nlisten = [\"0.0.0.0:4747\"]\n", "line 2: wrong value for `listen`: no multiaddress"),
        ("rescan_interval = \"2s\"\n", "line 1: wrong value for `rescan_interval`: allowed is at"),
        ("mdns\n", "line 1: "),
    ] {
        std::fs::write(top.join(".pleach/config.toml"), settings).unwrap();
        for act in ["daemon", "up"] {
            let ran = pleach(&top, &[act, "."]);
            assert_eq!(ran.code, 2, "{}", ran.err);
            assert!(ran.err.contains(&format!(".pleach/config.toml, {said}")), "{}", ran.err);
        }
    }
}

#[test]
fn initialised_store_tells_what_it_is_without_a_daemon() {
    let (_dir, top) = scratch();
    std::fs::create_dir(top.join("site")).unwrap();
    let made = pleach(&top, &["init", "site", "--name", "web1", "--json"]).json();
    assert_eq!((&made["store"], &made["master"]), (&"site".into(), &"web1".into()));

    let root = top.join("site");
    let status = pleach(&root, &["status", "--json"]);
    assert_eq!(status.code, 1);
    assert!(status.err.contains("no daemon runs on"), "{}", status.err);
    assert!(status.err.contains("pleach daemon "), "{}", status.err);
    let report = status.json();
    assert_eq!(report["running"], false);
    assert_eq!(report["store_id"], made["store_id"]);
    assert_eq!(report["master"]["id"], made["master_id"]);
    assert_eq!(report["masters"][0]["this"], true);

    for arguments in [&["conflicts", "--json"][..], &["masters", "--json"]] {
        let listed = pleach(&root, arguments);
        assert_eq!(listed.code, 1);
        assert!(listed.json().is_array());
    }
    let text = pleach(&root, &["status"]);
    assert!(text.out.starts_with("web1 of store site, in "), "{}", text.out);
    assert!(!text.out.contains('\x1b'));
    for arguments in [&["wait"][..], &["invite"], &["verify"], &["events"]] {
        let ran = pleach(&root, arguments);
        assert_eq!((ran.code, &*ran.out), (1, ""), "{arguments:?}");
        assert!(ran.err.contains("no daemon runs on"), "{}", ran.err);
    }
}

#[test]
fn completions_are_a_script() {
    let (_dir, top) = scratch();
    for shell in ["bash", "zsh", "fish"] {
        let ran = pleach(&top, &["completions", shell]);
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains("conflicts"), "{shell}");
    }
}

fn version(id: &str, stands: bool) -> VersionReport {
    VersionReport {
        id: id.to_owned(),
        what: VersionKind::File,
        of: VersionOf::Content,
        master: None,
        written_ms: None,
        order: 1,
        modified_ms: 0,
        size: Some(5),
        mode: "0644".to_owned(),
        hash: None,
        target: None,
        stands,
        here: None,
        elsewhere: None,
        sibling: None,
    }
}

/// A daemon that has one conflict, at `a/b`, and never converges. Whoever follows what is settled it answers so.
fn stand_in(root: &Path, follow: Result<Reply, Refusal>) -> tokio::runtime::Runtime {
    std::fs::create_dir_all(root.join(".pleach")).unwrap();
    std::fs::write(root.join(".pleach/incarnation"), "").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let listener = control::bind(root).unwrap();
    let (calls, mut driver) = mpsc::channel::<Call>(8);
    runtime.spawn(control::serve(listener, calls, broadcast::channel(4).0));
    runtime.spawn(async move {
        while let Some(Call { request, reply }) = driver.recv().await {
            let _ = reply.send(match request {
                Request::Follow { .. } => follow.clone(),
                request => answer(request),
            });
        }
    });
    runtime
}

fn answer(request: Request) -> Result<Reply, Refusal> {
    match request {
        Request::Wait { timeout_ms } => Ok(Reply::Wait(WaitReport {
            converged: timeout_ms > 60_000,
            waiting_for: vec![WaitingFor {
                name: "web2".to_owned(),
                behind_changes: Some(3),
                ..WaitingFor::default()
            }],
        })),
        Request::Invite { expires_s } => Ok(Reply::Invite(InviteReport {
            ticket: format!("pleach1for{expires_s}"),
            expires_ms: 7,
        })),
        Request::ConflictsAt { path } if path.to_string() != "a/b" => {
            Err(Refusal::new(RefusalKind::NotFound, "no conflict is open there").at(path))
        }
        Request::Conflicts | Request::ConflictsAt { .. } => {
            Ok(Reply::Conflicts(vec![ConflictReport {
                path: "a/b".parse().unwrap(),
                kind: ConflictKind::Edited,
                opened_ms: None,
                since_ms: None,
                rule: Rule::LargestStamp,
                versions: vec![version("11111111", true), version("22222222", false)],
                ancestor: None,
            }]))
        }
        Request::Resolve { path, choice: Pick::Version(id), .. } if path.to_string() == "a/b" => {
            assert_eq!(id, "22");
            Ok(Reply::Done)
        }
        Request::Resolve { path, .. } => {
            Err(Refusal::new(RefusalKind::NotFound, "no conflict is open there").at(path))
        }
        _ => Ok(Reply::Done),
    }
}

#[test]
fn answers_of_a_daemon_become_exit_codes() {
    let (_dir, top) = scratch();
    let root = top.join("root");
    let _daemon = stand_in(&root, Ok(Reply::Done));
    std::fs::create_dir(root.join("a")).unwrap();

    let late = pleach(&root, &["wait", "--timeout", "1", "--json"]);
    assert_eq!((late.code, &late.json()["converged"]), (3, &Value::Bool(false)));
    assert_eq!(pleach(&root.join("a"), &["wait", "--timeout", "2m"]).code, 0);

    let listed = pleach(&root, &["conflicts", "--json"]);
    assert_eq!((listed.code, listed.json().as_array().unwrap().len()), (0, 1));
    assert_eq!(pleach(&top, &["conflicts", "root", "--check"]).code, 4);

    let shown = pleach(&root.join("a"), &["conflicts", "show", "b"]);
    assert_eq!(shown.code, 0);
    assert!(shown.out.contains("--keep 22222222"), "{}", shown.out);
    let nothing = pleach(&root, &["conflicts", "show", "b"]);
    assert_eq!(nothing.code, 1);
    assert!(nothing.err.contains("b: no conflict is open there"), "{}", nothing.err);

    let resolve = |path| pleach(&root, &["conflicts", "resolve", path, "--keep", "22"]);
    assert_eq!(resolve("a/b").out, "settled a/b\n");
    let refused = resolve("c");
    assert_eq!(refused.code, 1);
    assert!(refused.err.starts_with("error: c: no conflict is open there"), "{}", refused.err);

    let invited = pleach(&root, &["invite", ".", "--expires", "2h"]);
    assert_eq!((invited.code, &*invited.out), (0, "pleach1for7200\n"));
}

#[test]
fn what_is_settled_is_settled_whether_or_not_the_disk_has_it_yet() {
    let refused = |kind, message: &str| Err(Refusal::new(kind, message));
    let cases = [
        // One of before knows no such request.
        (refused(RefusalKind::Malformed, "this is no request"), ""),
        (refused(RefusalKind::Busy, "the disk lacks it"), "settled; the disk lacks it\n"),
        (refused(RefusalKind::Failed, "the disk lacks it"), "settled; the disk lacks it\n"),
    ];
    for (follow, said) in cases {
        let (_dir, top) = scratch();
        let root = top.join("root");
        let _daemon = stand_in(&root, follow);
        let ran = pleach(&root, &["conflicts", "resolve", "a/b", "--keep", "22"]);
        assert_eq!((ran.code, &*ran.out, &*ran.err), (0, "settled a/b\n", said));
        let ran = pleach(&root, &["conflicts", "resolve", "a/b", "--keep", "22", "--dry-run"]);
        assert_eq!((ran.code, &*ran.err), (0, ""), "nothing is settled by that");
    }
}
