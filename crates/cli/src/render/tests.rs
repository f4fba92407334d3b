use pleach_core::values::{ConflictKind, ProblemKind, Rule, VersionOf};
use pleach_daemon::control::*;

use super::*;

const NOW: i64 = 1_795_352_711_000;

fn master(name: &str, byte: &str) -> MasterReport {
    MasterReport {
        id: byte.repeat(32),
        name: name.to_owned(),
        this: false,
        connected: true,
        addresses: vec![format!("/ip4/10.0.0.{byte}/tcp/4747")],
        behind_changes: Some(0),
        ahead_changes: Some(0),
        last_seen_ms: Some(NOW - 1_000),
        bytes_sent: 1_234_567,
        bytes_received: 890,
        removed: false,
    }
}

fn report() -> StatusReport {
    let away = MasterReport {
        connected: false,
        behind_changes: Some(12),
        last_seen_ms: Some(NOW - 200_000),
        ..master("web3", "13")
    };
    let removed = MasterReport { removed: true, connected: false, ..master("old", "14") };
    StatusReport {
        running: true,
        store: "sites".to_owned(),
        store_id: "ab".repeat(32),
        master: MasterLabel { id: "11".repeat(32), name: "web1".to_owned() },
        listen: vec!["/ip4/10.0.0.11/tcp/4747".to_owned()],
        root: "/srv/www".to_owned(),
        version: "0.1.0".to_owned(),
        uptime_ms: 7_505_000,
        tree: Counts { files: 20_031, directories: 1_204, symlinks: 1, bytes: 1_987_654_321 },
        on_disk: Counts { files: 20_031, directories: 1_204, symlinks: 1, bytes: 1_987_654_321 },
        conflicts: 0,
        masters: vec![
            removed,
            away,
            master("web2", "12"),
            MasterReport { this: true, ..master("web1", "11") },
        ],
        work: Work::default(),
        problems: vec![],
        frozen: None,
    }
}

fn version(id: &str, name: &str, stands: bool) -> VersionReport {
    VersionReport {
        id: id.to_owned(),
        what: VersionKind::File,
        master: Some(MasterLabel { id: "11".repeat(32), name: name.to_owned() }),
        of: VersionOf::Content,
        written_ms: Some(NOW - 57_000),
        order: 4_711,
        modified_ms: NOW - 60_000,
        size: Some(4_096),
        mode: "0644".to_owned(),
        hash: Some("c0ffee".repeat(10)),
        target: None,
        stands,
        here: None,
        elsewhere: None,
        sibling: None,
    }
}

fn edited(path: &str) -> ConflictReport {
    ConflictReport {
        path: path.parse().unwrap(),
        kind: ConflictKind::Edited,
        opened_ms: Some(NOW - 40_000),
        since_ms: Some(NOW - 50_000),
        rule: Rule::LargestStamp,
        versions: vec![version("1f00aa21", "web2", true), version("8e11bb32", "web1", false)],
        ancestor: None,
    }
}

#[test]
fn status_of_a_healthy_store() {
    insta::assert_snapshot!(status(&report(), Style::Plain, NOW), @r#"
    web1 of store sites, in /srv/www
    20,031 files, 1,204 directories, 1 link, 1.9 GiB
    pleach 0.1.0, up 2h 5m, on /ip4/10.0.0.11/tcp/4747

    MASTER  STATE      BEHIND      LAST SEEN  SENT     RECEIVED  ADDRESS
    web1    this one   -           -          -        -         /ip4/10.0.0.11/tcp/4747
    web2    connected  nothing     now        1.2 MiB  890 B     /ip4/10.0.0.12/tcp/4747
    web3    away       12 changes  3 min ago  1.2 MiB  890 B     /ip4/10.0.0.13/tcp/4747
    old     removed    -           just now   1.2 MiB  890 B     /ip4/10.0.0.14/tcp/4747

    no conflicts
    nothing to do
    "#);
}

#[test]
fn status_shows_what_is_wrong() {
    let problem = ProblemReport {
        kind: ProblemKind::PermissionDenied,
        path: "a/pri\\nvate".parse().unwrap(),
        reason: "not readable by uid 33: chmod or chown it".to_owned(),
    };
    let troubled = StatusReport {
        conflicts: 2,
        work: Work {
            scanning: true,
            effects_pending: 4,
            fetching: Fetching { contents: 3, bytes: 5 << 20 },
        },
        problems: vec![problem; 22],
        frozen: Some("the root of the store is lost: /srv/www: the directory is gone".to_owned()),
        ..report()
    };
    insta::assert_snapshot!(status(&troubled, Style::Plain, NOW), @r#"
    web1 of store sites, in /srv/www
    20,031 files, 1,204 directories, 1 link, 1.9 GiB
    pleach 0.1.0, up 2h 5m, on /ip4/10.0.0.11/tcp/4747

    FROZEN: the root of the store is lost: /srv/www: the directory is gone: nothing is read or written until it is back

    MASTER  STATE      BEHIND      LAST SEEN  SENT     RECEIVED  ADDRESS
    web1    this one   -           -          -        -         /ip4/10.0.0.11/tcp/4747
    web2    connected  nothing     now        1.2 MiB  890 B     /ip4/10.0.0.12/tcp/4747
    web3    away       12 changes  3 min ago  1.2 MiB  890 B     /ip4/10.0.0.13/tcp/4747
    old     removed    -           just now   1.2 MiB  890 B     /ip4/10.0.0.14/tcp/4747

    2 conflicts are open: pleach conflicts
    at work: looking through the directory, fetching 3 contents (5.0 MiB), 4 changes to put on the disk

    22 problems:
      a/pri\nvate: not readable by uid 33: chmod or chown it
      a/pri\nvate: not readable by uid 33: chmod or chown it
      a/pri\nvate: not readable by uid 33: chmod or chown it
      a/pri\nvate: not readable by uid 33: chmod or chown it
      a/pri\nvate: not readable by uid 33: chmod or chown it
      a/pri\nvate: not readable by uid 33: chmod or chown it
      a/pri\nvate: not readable by uid 33: chmod or chown it
      a/pri\nvate: not readable by uid 33: chmod or chown it
      a/pri\nvate: not readable by uid 33: chmod or chown it
      a/pri\nvate: not readable by uid 33: chmod or chown it
      a/pri\nvate: not readable by uid 33: chmod or chown it
      a/pri\nvate: not readable by uid 33: chmod or chown it
      a/pri\nvate: not readable by uid 33: chmod or chown it
      a/pri\nvate: not readable by uid 33: chmod or chown it
      a/pri\nvate: not readable by uid 33: chmod or chown it
      a/pri\nvate: not readable by uid 33: chmod or chown it
      a/pri\nvate: not readable by uid 33: chmod or chown it
      a/pri\nvate: not readable by uid 33: chmod or chown it
      a/pri\nvate: not readable by uid 33: chmod or chown it
      a/pri\nvate: not readable by uid 33: chmod or chown it
      and 2 more: pleach status --json
    "#);
}

#[test]
fn wait_in_progress_names_who_lacks_what() {
    assert_eq!(waiting(&report()), "nothing to do");
    let masters = vec![
        MasterReport { this: true, ..master("web1", "11") },
        MasterReport { behind_changes: Some(1), ..master("web2", "12") },
        MasterReport { behind_changes: Some(5), connected: false, ..master("web3", "13") },
    ];
    assert_eq!(waiting(&StatusReport { masters, ..report() }), "web2 lacks 1 change");
}

#[test]
fn conflicts_are_a_line_each() {
    let moved = ConflictReport {
        path: "site/old".parse().unwrap(),
        kind: ConflictKind::MovedTwice,
        opened_ms: None,
        since_ms: None,
        rule: Rule::LargestStamp,
        ancestor: None,
        versions: vec![
            VersionReport {
                size: None,
                what: VersionKind::Directory,
                ..version("aa", "web1", true)
            },
            VersionReport {
                written_ms: None,
                elsewhere: Some("site/archive".parse().unwrap()),
                master: None,
                ..version("bb", "", false)
            },
        ],
    };
    let deleted = ConflictReport {
        kind: ConflictKind::DeletedAndEdited,
        rule: Rule::EditBeatsDelete,
        versions: vec![
            version("cc", "web1", true),
            VersionReport { of: VersionOf::Deletion, ..version("dd", "web2", false) },
        ],
        ..edited("site/gone")
    };
    let text = conflicts(&[edited("site/index.html"), moved, deleted], Style::Plain, NOW);
    insta::assert_snapshot!(text, @r#"
    3 open conflicts

    PATH             WHAT HAPPENED               VERSIONS  STANDS                             OTHERS                             SINCE
    site/index.html  edited on two masters       2         web2 4.0 KiB, 57 s ago [1f00aa21]  web1 4.0 KiB, 57 s ago [8e11bb32]  50 s ago
    site/old         moved to two places         2         web1 directory, 57 s ago [aa]      unknown at site/archive [bb]       earlier
    site/gone        deleted here, edited there  2         web1 4.0 KiB, 57 s ago [cc]        web2 deleted it, 57 s ago [dd]     50 s ago

    look:   pleach conflicts show PATH, pleach conflicts diff PATH
    settle: pleach conflicts resolve PATH --keep VERSION|ours|theirs|both|merged
    "#);
    assert_eq!(conflicts(&[], Style::Plain, NOW), "no conflicts\n");
}

#[test]
fn one_conflict_shows_its_versions() {
    let mut shown = edited("site/index.html");
    shown.versions.push(VersionReport {
        what: VersionKind::Symlink,
        target: Some("../up".to_owned()),
        size: Some(5),
        hash: None,
        ..version("77cc", "web3", false)
    });
    shown.versions[1].written_ms = Some(NOW - 54_000);
    shown.versions[1].here = Some(false);
    shown.ancestor = Some(version("00aa", "web1", false));
    insta::assert_snapshot!(conflict(&shown, Style::Plain, NOW), @r#"
    site/index.html: edited on two masters, 50 s ago

    VERSION   WRITTEN BY  AT                       ORDER  WHAT           SIZE     MODE  HASH          STATE
    1f00aa21  web2        2026-11-22 13:04:14 UTC  4711   file           4.0 KiB  0644  c0ffeec0ffee  stands
    8e11bb32  web1        2026-11-22 13:04:17 UTC  4711   file           4.0 KiB  0644  c0ffeec0ffee  kept aside, not on this disk yet
    77cc      web3        2026-11-22 13:04:14 UTC  4711   link to ../up  5 B      0644  -             kept aside
    00aa      web1        2026-11-22 13:04:14 UTC  4711   file           4.0 KiB  0644  c0ffeec0ffee  what all go back to

    1f00aa21 stands because its stamp is the largest; wall clocks say that 8e11bb32 was saved 3 s later

    look:   pleach conflicts diff site/index.html
    settle: pleach conflicts resolve site/index.html --keep 8e11bb32
    "#);
}

#[test]
fn paths_are_shown_as_a_shell_takes_them() {
    let text = conflict(&edited("it's here/a b"), Style::Plain, NOW);
    assert!(text.contains(r#"resolve 'it'\''s here/a b' --keep"#), "{text}");
}

#[test]
fn wait_names_who_is_waited_for() {
    let waiting = |name: &str, behind_changes, reason: Option<&str>| WaitingFor {
        name: name.to_owned(),
        behind_changes,
        reason: reason.map(str::to_owned),
        ..WaitingFor::default()
    };
    let blocked = WaitingFor {
        problems: vec![ProblemReport {
            kind: ProblemKind::NoSpace,
            path: "a/large".parse().unwrap(),
            reason: "no space left on the device".to_owned(),
        }],
        problems_total: 20,
        ..waiting("web1", Some(0), None)
    };
    let report = WaitReport {
        converged: false,
        waiting_for: vec![
            blocked,
            waiting("web2", Some(3), None),
            waiting("web3", None, None),
            waiting("web4", None, Some("its disk is full")),
        ],
    };
    insta::assert_snapshot!(wait(&report, Style::Plain), @r#"
    not converged:
      web1: has 20 problems
        a/large: no space left on the device
        and 19 more: pleach status, there
      web2: lacks 3 changes
      web3: has not said what it has
      web4: its disk is full
    "#);
}

#[test]
fn verification_tells_what_was_healed() {
    let damage = |path: &str, healed| Damage {
        path: path.parse().unwrap(),
        healed,
        reason: if healed { "from web2" } else { "no connected master has it" }.to_owned(),
    };
    let mut report =
        VerifyReport { files: 1_000, bytes: 1 << 30, elapsed_ms: 4_200, ..Default::default() };
    insta::assert_snapshot!(verify(&report, Style::Plain), @r#"
    read 1,000 files (1.0 GiB) in 4s
    all as they were written
    "#);
    report.damaged = vec![damage("a", true), damage("b", false)];
    report.healed = 1;
    insta::assert_snapshot!(verify(&report, Style::Plain), @r#"
    read 1,000 files (1.0 GiB) in 4s
    2 files were damaged, 1 healed:
      a: healed, from web2
      b: NOT healed, no connected master has it
    "#);
}

#[test]
fn colours_come_only_when_asked_for() {
    let plain = status(&report(), Style::Plain, NOW);
    assert!(!plain.contains('\x1b'));
    assert!(status(&report(), Style::Colours, NOW).contains('\x1b'));
    assert!(conflicts(&[edited("a")], Style::Colours, NOW).contains('\x1b'));
}

fn logged(what: DeedKind, path: &str) -> LogReport {
    LogReport {
        time_ms: NOW,
        master: MasterLabel { id: "11".repeat(32), name: "web1".to_owned() },
        what,
        path: path.parse().ok(),
        from: None,
        kind: VersionKind::File,
        size_before: None,
        size: None,
        mode_before: None,
        mode: None,
        target: None,
        version: None,
    }
}

#[test]
fn log_has_a_line_for_each_thing_that_was_done() {
    let directory = LogReport { kind: VersionKind::Directory, ..logged(DeedKind::Deleted, "site") };
    let edited = LogReport {
        size_before: Some(14),
        size: Some(2_048),
        version: Some("3e7ab02c91d2".to_owned()),
        ..logged(DeedKind::Edited, "page")
    };
    let moved = LogReport { from: "a/b".parse().ok(), ..logged(DeedKind::Moved, "c") };
    let mode = LogReport { mode: Some("0600".to_owned()), ..logged(DeedKind::ModeChanged, "c") };
    let link = LogReport { target: Some("../x".to_owned()), ..logged(DeedKind::Created, "l") };
    let unknown = LogReport { path: None, ..logged(DeedKind::Touched, "") };
    let entries = [directory, edited, moved, mode, link, unknown];
    insta::assert_snapshot!(log(&entries, crate::commands::Rest::More, Style::Plain), @r#"
    AT                       MASTER  WHAT     PATH                      VERSION
    2026-11-22 13:05:11 UTC  web1    deleted  site     directory
    2026-11-22 13:05:11 UTC  web1    edited   page     14 B -> 2.0 KiB  3e7ab02c91d2
    2026-11-22 13:05:11 UTC  web1    moved    c        from a/b
    2026-11-22 13:05:11 UTC  web1    mode     c        ? -> 0600
    2026-11-22 13:05:11 UTC  web1    created  l        link to ../x
    2026-11-22 13:05:11 UTC  web1    touched  unknown
    6 entries; there may be older ones: --limit N
    "#);
    let nothing = log(&[], crate::commands::Rest::Nothing, Style::Plain);
    assert_eq!(nothing, "nothing is known to have been done there\n");
}

#[test]
fn restored_paths_say_what_became_of_them() {
    let line = |path: &str, outcome, here| RestoredReport {
        path: path.parse().unwrap(),
        outcome,
        size: Some(3),
        here,
    };
    let report = [
        line("a", RestoreOutcome::Restored, true),
        line("b", RestoreOutcome::Missing, false),
        line("c", RestoreOutcome::Moved, true),
        line("d", RestoreOutcome::InTheWay, true),
    ];
    insta::assert_snapshot!(restored(&report, Style::Plain), @r#"
    restored a (3 B)
    missing b (3 B): nobody connected has its bytes
    left c: it has been moved to there since
    left d: something else is in its place
    1 path restored, 3 not
    "#);
    let would = [
        line("a", RestoreOutcome::WouldRestore, true),
        line("b", RestoreOutcome::WouldRestore, false),
    ];
    insta::assert_snapshot!(restored(&would, Style::Plain), @r#"
    would restore a (3 B)
    would restore b (3 B), from another master
    2 paths would be restored
    "#);
}
