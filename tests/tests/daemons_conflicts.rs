//! Conflicts as a person works with them: found, understood and settled with the command line alone, on
//! another master than those that made them.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pleach_tests::daemons::{
    Cluster, Events, KINDS, Master, await_open, content, have, in_conflict, long, pleach_path,
    resolve, shell, shown, versions, wait_until, write,
};
use serde_json::Value;

#[test]
fn every_kind_is_found_understood_and_settled_on_a_master_that_had_no_part_in_it() {
    let cluster = in_conflict(KINDS);
    let c = &cluster.masters[2];
    let listed = c.conflicts();
    for kind in KINDS {
        let inside = format!("{}/", kind.directory);
        let here = |conflict: &&Value| conflict["path"].as_str().unwrap().starts_with(&inside);
        let conflict = listed.iter().find(here).unwrap();
        let path = conflict["path"].as_str().unwrap();
        assert!(kind.paths.contains(&&path[inside.len()..]), "{path}");
        assert_eq!(conflict["kind"], kind.kind, "{conflict:#}");
        assert!(kind.rules.contains(&conflict["rule"].as_str().unwrap()), "{conflict:#}");
        assert!(conflict["since_ms"].as_i64().unwrap() > 1_500_000_000_000, "{conflict:#}");
        let shown = shown(c, path);
        let mut masters: Vec<_> =
            versions(&shown).iter().map(|v| v["master"]["name"].as_str().unwrap()).collect();
        masters.sort_unstable();
        // The first of the masters made the directories of the circle, so where they were is its own, too.
        let is_own = kind.directory == "circle" && masters == ["a", "a"];
        assert!(is_own || masters == ["a", "b"], "{shown:#}");
        assert_eq!(versions(&shown).iter().filter(|v| v["stands"] == true).count(), 1);
        let text = c.pleach(["conflicts", "show", path]).ok().stdout;
        assert!(text.contains(" stands because "), "{text}");
        for version in versions(&shown) {
            let id = version["id"].as_str().unwrap();
            let bytes = content(c, path, id);
            match (version["what"].as_str().unwrap(), version["of"].as_str().unwrap()) {
                ("file", "content" | "place") => {
                    let hash = blake3::hash(bytes.ok().stdout.as_bytes()).to_hex().to_string();
                    assert_eq!(version["hash"], hash, "{version:#}");
                }
                _ => {
                    assert_eq!(bytes.code, 1, "{bytes}");
                    assert!(bytes.stderr.contains(path) && bytes.stderr.contains("no content"));
                }
            }
        }
        let other = versions(&shown).iter().find(|v| v["stands"] == false).unwrap();
        let keep = if kind.rules[0] == "directory_before_file" {
            "both"
        } else {
            other["id"].as_str().unwrap()
        };
        let _ = resolve(c, &[path, "--keep", keep]).ok();
    }
    await_open(&cluster, 0);
    let tree = cluster.settle("what was chosen is on all");
    let left: Vec<_> = tree.entries.keys().map(|path| path.to_str().unwrap()).collect();
    assert!(
        !left.contains(&"deleted, edited/f") && !left.contains(&"deleted, moved/e"),
        "{left:?}"
    );
    assert!(left.contains(&"directory and file/n (conflict 1)"), "{left:?}");
    // What was chosen is not what stood before.
    let was = listed.iter().find(|conflict| conflict["kind"] == "moved_twice").unwrap();
    assert!(!left.contains(&was["path"].as_str().unwrap()), "{left:?}");
}

#[test]
fn what_both_went_back_to_is_told_and_can_be_had_while_it_is_kept() {
    let cluster = in_conflict(&KINDS[..1]);
    for master in &cluster.masters {
        let shown = shown(master, "edited/f");
        assert_eq!(shown["ancestor"]["size"], 2, "{shown:#}");
        assert_eq!(shown["ancestor"]["mode"], "0640", "{shown:#}");
        assert_eq!(shown["ancestor"]["master"]["name"], "a", "{shown:#}");
    }
    // Whoever replaced it has kept it, and the others have it from there.
    for master in cluster.masters.iter().rev() {
        assert_eq!(content(master, "edited/f", "ancestor").ok().stdout, "0\n");
    }
}

#[test]
fn choice_of_what_has_changed_meanwhile_changes_nothing() {
    let cluster = in_conflict(&KINDS[..1]);
    let [a, _, c] = &cluster.masters[..] else { panic!("three masters") };
    let before = shown(c, "edited/f");
    let ids: Vec<_> = versions(&before).iter().map(|v| v["id"].as_str().unwrap()).collect();
    let seen = ids.join(",");
    write(&a.path("edited/f"), "edited meanwhile\n");
    wait_until("c knows of the edit", Duration::from_secs(60), || {
        let now = shown(c, "edited/f");
        if now != before { Ok(()) } else { Err(format!("{now:#}")) }
    });
    let now = c.conflicts();
    for dry in [&["--dry-run"][..], &[]] {
        let refused =
            resolve(c, &[&["edited/f", "--keep", "theirs", "--expect", &seen], dry].concat());
        assert_eq!(refused.code, 1, "{refused}");
        assert!(refused.stderr.contains("edited/f: it is not as it was"), "{refused}");
    }
    assert_eq!(c.conflicts(), now);
    let gone = resolve(c, &["edited/f", "--keep", ids[0]]);
    let gone = if gone.code == 0 { resolve(c, &["edited/f", "--keep", ids[1]]) } else { gone };
    assert_eq!(gone.code, 1, "one of the versions is superseded: {gone}");
    let _ = resolve(c, &["edited/f", "--keep", "both", "--force"]).ok();
    await_open(&cluster, 0);
    // Now somebody else has settled it.
    let late = resolve(a, &["edited/f", "--keep", "theirs"]);
    assert_eq!(late.code, 1, "{late}");
    assert!(late.stderr.contains("edited/f: no conflict is open there"), "{late}");
    let forced = resolve(a, &["edited/f", "--keep", "theirs", "--force", "--json"]).ok().json();
    assert_eq!(forced[0]["outcome"], "nothing_open", "{forced:#}");
}

#[test]
fn who_listens_hears_what_is_open_under_which_name() {
    let cluster = in_conflict(&KINDS[..1]);
    let [a, _, c] = &cluster.masters[..] else { panic!("three masters") };
    let events = Events::of(c);
    let heard = |wanted: &[(&str, &str)]| {
        wait_until(&format!("{wanted:?} is heard"), Duration::from_secs(60), || {
            let heard = events.heard().into_iter();
            let heard =
                heard.filter(|event| event["event"].as_str().unwrap().starts_with("conflict_"));
            let heard: Vec<_> = heard.collect();
            let told =
                heard.iter().map(|e| (e["event"].as_str().unwrap(), e["path"].as_str().unwrap()));
            if told.eq(wanted.iter().copied()) { Ok(()) } else { Err(format!("{heard:#?}")) }
        });
    };
    fs::rename(a.path("edited/f"), a.path("edited/g")).unwrap();
    let renamed = [("conflict_closed", "edited/f"), ("conflict_opened", "edited/g")];
    heard(&renamed);
    let _ = resolve(a, &["edited/g", "--keep", "ours"]).ok();
    heard(&[renamed[0], renamed[1], ("conflict_closed", "edited/g")]);
}

#[test]
fn many_are_settled_by_a_pattern_or_all_at_once_and_tried_before() {
    let cluster = Cluster::of(2);
    let (a, b) = (&cluster.masters[0], &cluster.masters[1]);
    let files = ["site/a.php", "site/b.php", "site/c.html", "site/deep/d.php", "top.php"];
    fs::create_dir_all(a.path("site/deep")).unwrap();
    files.iter().for_each(|file| write(&a.path(file), "0"));
    cluster.settle_to(0, "the files are on both");
    cluster.cut_all();
    for master in [a, b] {
        files
            .iter()
            .for_each(|file| write(&master.path(file), format!("{} {file}", master.name())));
        cluster.flush(master);
    }
    cluster.heal_all();
    await_open(&cluster, files.len());
    let settled = |arguments: &[&str]| -> Vec<(String, String)> {
        let outcomes = resolve(a, &[arguments, &["--json"]].concat()).ok().json();
        let outcomes = outcomes.as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        outcomes.map(|outcome| (text(&outcome["path"]), text(&outcome["outcome"]))).collect()
    };
    let would: Vec<_> = settled(&["--all", "--keep", "ours", "--dry-run"]);
    assert_eq!(would.len(), files.len());
    assert!(would.iter().all(|(_, outcome)| outcome == "would_settle"), "{would:?}");
    assert_eq!(a.conflicts().len(), files.len(), "nothing was settled");
    let in_site = settled(&["site/*.php", "--keep", "theirs"]);
    let paths: Vec<_> = in_site.iter().map(|(path, _)| &**path).collect();
    assert_eq!(paths, ["site/a.php", "site/b.php"]);
    assert_eq!(settled(&["**/d.p[h]p", "--keep", "ours"]).len(), 1);
    let none = resolve(a, &["*.txt", "--keep", "ours"]);
    assert_eq!(none.code, 1);
    assert!(none.stderr.contains("*.txt: no open conflict fits this pattern"), "{none}");
    assert_eq!(resolve(a, &["site/[", "--keep", "ours"]).code, 2);
    assert_eq!(resolve(a, &["--keep", "ours"]).code, 2);
    assert_eq!(settled(&["--all", "--keep", "ours"]).len(), 2);
    await_open(&cluster, 0);
    cluster.settle("what was chosen is on both");
    assert_eq!(fs::read_to_string(b.path("site/a.php")).unwrap(), "b site/a.php");
    assert_eq!(fs::read_to_string(b.path("top.php")).unwrap(), "a top.php");
}

#[test]
fn bytes_that_are_not_here_come_from_another_master_or_it_is_said_that_they_do_not() {
    let mut cluster = in_conflict(&KINDS[..1]);
    let shown = shown(&cluster.masters[2], "edited/f");
    let other = versions(&shown).iter().find(|v| v["stands"] == false).unwrap();
    let id = other["id"].as_str().unwrap();
    // Somebody clears the versions of c away, and nobody else is there.
    cluster.masters.iter_mut().for_each(Master::stop);
    for kept in fs::read_dir(cluster.masters[2].path(".pleach/versions")).unwrap() {
        fs::remove_file(kept.unwrap().path()).unwrap();
    }
    let c = &mut cluster.masters[2];
    c.start();
    let missing = content(c, "edited/f", id);
    assert_eq!((missing.code, &*missing.stdout), (1, ""), "{missing}");
    assert!(missing.stderr.contains("edited/f: the bytes of version"), "{missing}");
    cluster.masters[..2].iter_mut().for_each(Master::start);
    cluster.await_connected();
    let bytes = content(&cluster.masters[2], "edited/f", id).ok().stdout;
    assert_eq!(other["hash"], blake3::hash(bytes.as_bytes()).to_hex().to_string());
}

#[test]
fn difference_is_shown_from_what_both_went_back_to_and_coloured_on_terminals_only() {
    let cluster = Cluster::of(3);
    let (a, b) = (&cluster.masters[0], &cluster.masters[1]);
    shell(a.directory(), "echo 0 > f; printf '\\0' > bin");
    cluster.settle_to(0, "the files are on all");
    cluster.cut_all();
    for master in [a, b] {
        shell(
            master.directory(),
            &format!("echo by {0} > f; printf '\\0{0}' > bin", master.name()),
        );
        cluster.flush(master);
    }
    cluster.heal_all();
    await_open(&cluster, 2);
    let c = &cluster.masters[2];
    let text = c.pleach(["conflicts", "diff", "f"]).ok().stdout;
    assert!(text.contains("--- ancestor a ") && text.contains("\n-0\n+by a\n"), "{text}");
    assert!(text.contains("\n-0\n+by b\n") && !text.contains('\x1b'), "{text}");
    let json = c.pleach(["conflicts", "diff", "f", "--json"]).ok().json();
    assert_eq!(json.as_array().unwrap().len(), 2, "{json:#}");
    assert_eq!(json[0]["from_ancestor"], true, "{json:#}");
    assert!(text.contains("@@ line 1: changed in 2 ways @@\n-0\n+++ "), "{text}");
    assert_eq!(json[0]["overlaps"], 1, "{json:#}");
    let binary = c.pleach(["conflicts", "diff", "bin"]).ok().stdout;
    assert!(binary.contains("(binary, 2 B)") && !binary.contains('\0'), "{binary:?}");
    if have("script") {
        let pleach = pleach_path().display();
        let on_terminal = |environment: &str| {
            let line = format!("script -qec \"{environment} {pleach} conflicts diff f\" /dev/null");
            shell(c.directory(), &line).stdout
        };
        assert!(on_terminal("env -u NO_COLOR").contains("\x1b[32m+by a"));
        assert!(!on_terminal("env NO_COLOR=1").contains('\x1b'));
    }
}

/// A command of pleach on a terminal of its own.
struct OnTerminal {
    script: Child,
    terminal: Arc<Mutex<vt100::Parser>>,
}

impl OnTerminal {
    fn start(master: &Master, command: &str) -> Self {
        let line = format!("stty rows 24 cols 80; exec {} {command}", pleach_path().display());
        let mut script = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .current_dir(master.directory())
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let terminal = Arc::new(Mutex::new(vt100::Parser::default()));
        let (mut from, to) = (script.stdout.take().unwrap(), terminal.clone());
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut piece) {
                to.lock().unwrap().process(&piece[..length]);
            }
        });
        Self { script, terminal }
    }

    /// Waits until all of this is on the screen.
    fn await_shown(&self, wanted: &[&str]) {
        wait_until(&format!("{wanted:?} is shown"), Duration::from_secs(60), || {
            let shown = self.terminal.lock().unwrap().screen().contents();
            if wanted.iter().all(|wanted| shown.contains(wanted)) { Ok(()) } else { Err(shown) }
        });
    }

    fn press(&mut self, keys: &str) {
        self.script.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }
}

#[test]
fn view_on_a_terminal_finds_compares_and_settles() {
    if !have("script") {
        return;
    }
    let cluster = in_conflict(&KINDS[..1]);
    let [a, _, c] = &cluster.masters[..] else { unreachable!("three masters") };
    let refused = c.pleach(["conflicts", ".", "-i"]);
    assert_eq!(refused.code, 2, "{refused}");
    assert!(refused.stderr.contains("-i needs a terminal"), "{refused}");

    let other = &c.conflicts()[0]["versions"][1];
    let author = other["master"]["name"].as_str().unwrap();
    let mut view = OnTerminal::start(c, "conflicts -i");
    view.await_shown(&["edited/f", "ancestor", "largest"]);
    view.press("d");
    view.await_shown(&["+of b", "+from a", "-0"]);
    view.press("2");
    view.await_shown(&[&format!("Keep version 2, by {author}, on every master?")]);
    view.press("y");
    view.await_shown(&["settled", "no conflicts"]);
    view.press("q");
    view.await_shown(&["1 settled, 0 open"]);
    assert!(view.script.wait().unwrap().success());
    await_open(&cluster, 0);
    cluster.settle("what was chosen is on all");
    let chosen = if author == "a" { "from a\n" } else { "of b\n" };
    assert_eq!(fs::read_to_string(a.path("edited/f")).unwrap(), chosen);
}

#[test]
fn thousands_of_open_conflicts_are_listed_in_under_a_second() {
    let count = if long() { 10_000 } else { 1_000 };
    let cluster = Cluster::of(2);
    let (a, b) = (&cluster.masters[0], &cluster.masters[1]);
    shell(a.directory(), &format!("mkdir d; for n in $(seq {count}); do echo 0 > d/$n; done"));
    cluster.settle_to(0, "the files are on both");
    cluster.cut_all();
    for master in [a, b] {
        shell(
            master.directory(),
            &format!("for n in $(seq {count}); do echo {}$n > d/$n; done", master.name()),
        );
        cluster.flush(master);
    }
    cluster.heal_all();
    await_open(&cluster, count);
    let start = Instant::now();
    assert_eq!(a.pleach(["conflicts", ".", "--check"]).code, 4);
    let listed = start.elapsed();
    let start = Instant::now();
    let _ = a.pleach(["conflicts", "show", "d/7"]).ok();
    println!("{count} conflicts: listed in {listed:?}, one shown in {:?}", start.elapsed());
    assert!(listed < Duration::from_secs(1), "{listed:?}");
    let start = Instant::now();
    let _ = a.pleach(["conflicts", "resolve", "--all", "--keep", "ours"]).ok();
    println!("{count} conflicts: settled in {:?}", start.elapsed());
    await_open(&cluster, 0);
}
