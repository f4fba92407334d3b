//! What happened, as people ask for it: the log, the versions of a file, and getting them back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pleach_tests::daemons::{Cluster, Master, Tree, differences, wait_until};
use serde_json::Value;

/// Writes a file, and the directories above it.
fn write(master: &Master, path: &str, text: &str) {
    let path = master.path(path);
    fs::create_dir_all(path.parent().expect("it is below the root")).expect("directories");
    fs::write(path, text).expect("a file");
}

/// Whether there is nothing at a path.
fn gone(tree: &Tree, path: &str) -> Result<(), String> {
    match tree.entries.contains_key(Path::new(path)) {
        true => Err(format!("{path} is there")),
        false => Ok(()),
    }
}

/// Whether a file has these bytes.
fn has(tree: &Tree, path: &str, text: &str) -> Result<(), String> {
    let wanted = Some(blake3::hash(text.as_bytes()));
    match tree.entries.get(Path::new(path)) {
        Some(entry) if entry.content == wanted => Ok(()),
        other => Err(format!("{path} is {other:?}")),
    }
}

/// The log of a path on a master, the newest first: what was done, to what, and where.
fn log(master: &Master, arguments: &[&str]) -> Vec<String> {
    let command: Vec<&str> = ["log"].iter().chain(arguments).chain(&["--json"]).copied().collect();
    let Value::Array(entries) = master.pleach(command).ok().json() else { panic!("an array") };
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let shown = |entry: &Value| {
        let [what, path, by] = [&entry["what"], &entry["path"], &entry["master"]["name"]].map(text);
        let from = entry["from"].as_str().map_or(String::new(), |from| format!(" from {from}"));
        let sizes = (entry["size_before"].as_u64(), entry["size"].as_u64());
        let size = match sizes {
            (Some(before), Some(size)) => format!(" {before}->{size}"),
            _ => String::new(),
        };
        format!("{what} {path}{from}{size} by {by}")
    };
    entries.iter().map(shown).collect()
}

/// Two masters that know of: an edit, a renamed directory, a mode, a file moved into the directory, a
/// deletion, and a new file of the old name.
fn cluster() -> Cluster {
    let cluster = Cluster::holding(2, |number, master| {
        if number == 0 {
            write(master, "page", "one\n");
            write(master, "site/x", "x");
        }
    });
    let [a, b] = &cluster.masters[..] else { panic!("two masters") };
    cluster.settle("what was there");
    write(a, "page", "one\ntwo\n");
    cluster.settle("an edit");
    fs::rename(b.path("site"), b.path("web")).expect("a rename");
    cluster.settle("a renamed directory");
    fs::set_permissions(b.path("web/x"), fs::Permissions::from_mode(0o600)).expect("a mode");
    cluster.settle("a mode");
    fs::rename(a.path("page"), a.path("web/old")).expect("a move");
    cluster.settle("a move");
    fs::remove_file(a.path("web/x")).expect("a removal");
    cluster.settle_as("a removal", |tree| gone(tree, "web/x"));
    write(b, "page", "new");
    cluster.settle_to(1, "a new file of the old name");
    cluster
}

#[test]
fn log_tells_who_did_what_across_renames_also_of_what_is_gone() {
    let mut cluster = cluster();
    let [a, b] = &cluster.masters[..] else { panic!("two masters") };
    for master in [a, b] {
        assert_eq!(
            log(master, &["web/old"]),
            ["moved web/old from page by a", "edited page 4->8 by a", "created page by a"]
        );
        assert_eq!(
            log(master, &["web/x"]),
            ["deleted web/x by a", "mode_changed web/x by b", "created site/x by a"]
        );
        assert_eq!(log(master, &["page"]), ["created page by b"]);
        let all = [
            "created page by b",
            "deleted web/x by a",
            "moved web/old from page by a",
            "mode_changed web/x by b",
            "moved web from site by b",
            "edited page 4->8 by a",
        ];
        assert_eq!(log(master, &["--limit", "6"]), all);
        // Of a directory: what went into it, and what was done in it; not what was done elsewhere.
        let web = log(master, &["web"]);
        assert_eq!(web[..4], all[1..5]);
        assert!(web[4..].iter().all(|line| line.contains("site")), "{web:?}");
        assert_eq!(log(master, &["--master", "b"]), [all[0], all[3], all[4]]);
        assert_eq!(log(master, &["site", "--limit", "1"]), ["moved web from site by b"]);
        assert_eq!(log(master, &["--since", "2200-01-01"]), Vec::<String>::new());
        assert_eq!(log(master, &["--since", "1h", "--limit", "2"]), all[..2]);
    }
    let text = a.pleach(["log", "web/old"]).ok().stdout;
    assert!(text.contains("4 B -> 8 B") && text.contains("from page"), "{text}");
    let nobody = a.pleach(["log", "--master", "nobody"]);
    assert_eq!(nobody.code, 1, "{nobody}");

    // At rest the same is told, and that no daemon runs; and after a start as well.
    let running = log(b, &["."]);
    cluster.masters[1].stop();
    let stopped = cluster.masters[1].pleach(["log", ".", "--json"]);
    assert_eq!(stopped.code, 1, "{stopped}");
    assert_eq!(stopped.json().as_array().map(Vec::len), Some(running.len()));
    assert!(stopped.stderr.contains("no daemon runs"), "{stopped}");
    cluster.masters[1].start();
    assert_eq!(log(&cluster.masters[1], &["."]), running);
}

#[test]
fn log_comes_in_pages_however_much_one_change_did() {
    let cluster = Cluster::of(2);
    let [a, b] = &cluster.masters[..] else { panic!("two masters") };
    let _ = a.pleach(["set", "mass_delete_guard", "false", "--dir", "."]).ok();
    for number in 0..1_200 {
        write(a, &format!("many/{number}"), "1");
    }
    cluster.settle_to(0, "many files");
    fs::remove_dir_all(a.path("many")).expect("they are removed");
    cluster.settle_as("their removal", |tree| gone(tree, "many"));
    let all = log(b, &["many", "--limit", "100000"]);
    let count = |what: &str| all.iter().filter(|line| line.starts_with(what)).count();
    // The directory itself among them.
    assert_eq!((count("deleted many"), count("created many")), (1_201, 1_201));
    assert_eq!(log(b, &["many/7"]), ["deleted many/7 by a", "created many/7 by a"]);
    assert_eq!(log(b, &["--limit", "1100"]), all[..1100]);
}

/// The versions of a path on a master, the newest first: the size of each, and whether it stands.
fn versions(master: &Master, path: &str) -> Vec<Value> {
    match master.pleach(["versions", path, "--json"]).ok().json() {
        Value::Array(versions) => versions,
        other => panic!("an array was promised: {other}"),
    }
}

fn sizes(versions: &[Value]) -> Vec<u64> {
    versions.iter().map(|version| version["size"].as_u64().expect("a size")).collect()
}

/// What `restore` says of each path: what became of it.
fn restore(master: &Master, arguments: &[&str]) -> Vec<String> {
    let command: Vec<&str> =
        ["restore"].iter().chain(arguments).chain(&["--json"]).copied().collect();
    let ran = master.pleach(command);
    let Value::Array(lines) = ran.json() else { panic!("an array: {ran}") };
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    lines.iter().map(|line| format!("{} {}", text(&line["outcome"]), text(&line["path"]))).collect()
}

/// The time when the last thing was done that a master knows of, as `--at` takes it.
fn now(master: &Master) -> String {
    let entries = master.pleach(["log", "--limit", "1", "--json"]).ok().json();
    let time_ms = entries[0]["time_ms"].as_i64().expect("a time");
    format!("@{}.{:03}", time_ms / 1_000, time_ms % 1_000)
}

/// Waits until the clock has gone on from what was done last, so that a time tells before from after.
fn let_time_pass(master: &Master) -> String {
    let at = now(master);
    wait_until("the clock goes on", Duration::from_secs(10), || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        let passed = format!("@{}.{:03}", since.as_secs(), since.subsec_millis());
        if passed > at { Ok(()) } else { Err(passed) }
    });
    at
}

#[test]
fn version_comes_back_from_whichever_master_has_its_bytes() {
    let mut cluster = Cluster::of(2);
    let [a, b] = &cluster.masters[..] else { panic!("two masters") };
    write(a, "page", "one\n");
    cluster.settle_to(0, "a file");
    // Written over in place: nobody has kept what was there but the other one, where it was replaced.
    write(a, "page", "one\ntwo\n");
    cluster.settle_to(0, "an edit on a");
    write(b, "page", "three\n");
    cluster.settle_to(1, "an edit on b");
    let of_b = versions(b, "page");
    assert_eq!(sizes(&of_b), [6, 8, 4]);
    let here: Vec<_> = of_b.iter().map(|version| version["here"] == true).collect();
    let stands: Vec<_> = of_b.iter().map(|version| version["stands"] == true).collect();
    assert_eq!((here, stands), (vec![true, false, true], vec![true, false, false]));
    let third = of_b[0]["version"].as_str().expect("an id").to_owned();
    let second = of_b[1]["version"].as_str().expect("an id").to_owned();

    // Nothing is written by a dry run.
    assert_eq!(restore(b, &["page", "--version", &second, "--dry-run"]), ["would_restore page"]);
    assert_eq!(sizes(&versions(b, "page")), [6, 8, 4]);
    assert_eq!(restore(b, &["page", "--version", &second]), ["restored page"]);
    cluster.settle_as("the second version again", |tree| has(tree, "page", "one\ntwo\n"));
    // What stood is kept, and it is a change like any other.
    let now = versions(a, "page");
    assert_eq!(sizes(&now), [8, 6, 8, 4]);
    assert_eq!(now[1]["here"], true, "{now:?}");
    assert_eq!(log(a, &["page", "--limit", "1"]), ["restored page 6->8 by b"]);
    assert_eq!(restore(b, &["page", "--version", &second]), Vec::<String>::new());

    // Nobody has it who is connected: it is said, and nothing is changed.
    cluster.masters[0].stop();
    let [a, b] = &mut cluster.masters[..] else { panic!("two masters") };
    let of_b = versions(b, "page");
    let lost = of_b.iter().find(|version| version["here"] == false);
    assert!(lost.is_none(), "all that was restored and replaced here is here: {of_b:?}");
    fs::remove_dir_all(b.path(".pleach/versions")).expect("somebody removes the versions");
    b.stop();
    b.start();
    let missing = b.pleach(["restore", "page", "--version", &third, "--timeout", "5s"]);
    assert_eq!(missing.code, 1, "{missing}");
    assert!(missing.stdout.contains("nobody connected has its bytes"), "{missing}");
    assert_eq!(sizes(&versions(b, "page")), [8, 6, 8, 4]);
    // Once a is there, it is had from there.
    a.start();
    cluster.await_connected();
    assert_eq!(restore(&cluster.masters[1], &["page", "--version", &third]), ["restored page"]);
    cluster.settle_as("the third version again", |tree| has(tree, "page", "three\n"));
}

#[test]
fn removed_tree_comes_back_as_it_was_with_one_command() {
    let cluster = Cluster::of(3);
    let [a, b, c] = &cluster.masters[..] else { panic!("three masters") };
    for number in 0..300 {
        write(a, &format!("site/d{}/{number}", number % 7), &format!("{number}\n"));
    }
    std::os::unix::fs::symlink("d1/1", a.path("site/link")).expect("a link");
    fs::set_permissions(a.path("site/d0/0"), fs::Permissions::from_mode(0o600)).expect("a mode");
    cluster.settle_to(0, "a site");
    write(b, "site/d1/1", "edited\n");
    fs::remove_file(b.path("site/d2/2")).expect("one is removed before");
    cluster.settle_to(1, "it is worked on");
    let whole = cluster.settle("all of it").below("site").without_directory_times();
    let at = let_time_pass(c);

    fs::remove_dir_all(a.path("site")).expect("a mistake");
    cluster.settle_as("it is gone everywhere", |tree| gone(tree, "site"));
    // Without a time it is not known which of the removals was the mistake.
    let refused = c.pleach(["restore", "site"]);
    assert!(refused.code == 1 && refused.stderr.contains("--at"), "{refused}");
    let told = restore(c, &["site", "--at", &at, "--dry-run"]);
    // 299 files, a link, seven directories and the one above.
    assert_eq!(told.len(), 308, "{told:?}");
    cluster.settle_as("nothing was restored by that", |tree| gone(tree, "site"));
    let done = restore(c, &["site", "--at", &at]);
    assert!(done.iter().all(|line| line.starts_with("restored")), "{done:?}");
    assert_eq!(done.len(), 308);
    let back = cluster.settle_as("it is back", |tree| has(tree, "site/d1/1", "edited\n"));
    let back = back.below("site").without_directory_times();
    assert!(back == whole, "{}", differences(&whole, &back));
    assert_eq!(restore(b, &["site", "--at", &at]), Vec::<String>::new());
    assert!(a.conflicts().is_empty());
}

#[test]
fn restoring_moves_nothing_and_removes_nothing() {
    let cluster = Cluster::of(2);
    let [a, b] = &cluster.masters[..] else { panic!("two masters") };
    for name in ["edited", "removed", "moved", "blocked", "again"] {
        write(a, &format!("site/{name}"), "1");
    }
    cluster.settle_to(0, "a site");
    let at = let_time_pass(a);
    write(a, "site/edited", "22");
    fs::rename(a.path("site/moved"), a.path("elsewhere")).expect("a move");
    for name in ["removed", "blocked", "again"] {
        fs::remove_file(a.path("site").join(name)).expect("a removal");
    }
    cluster.settle_as("removals", |tree| gone(tree, "site/again"));
    fs::create_dir(b.path("site/blocked")).expect("a directory of the old name");
    write(b, "site/again", "333");
    write(b, "site/new", "4444");
    cluster.settle_to(1, "what was made since");
    let wanted = [
        "moved elsewhere",
        "restored site/again",
        "in_the_way site/blocked",
        "restored site/edited",
        "restored site/removed",
    ];
    assert_eq!(restore(b, &["site", "--at", &at]), wanted);
    let tree = cluster.settle_as("what could be restored", |tree| has(tree, "site/removed", "1"));
    for (path, text) in
        [("site/again", "1"), ("site/edited", "1"), ("site/new", "4444"), ("elsewhere", "1")]
    {
        has(&tree, path, text).expect("as it was, or as it is since");
    }
    // What stood under a name that was used again is a version of what stands there.
    assert_eq!(sizes(&versions(a, "site/again")), [1, 3, 1]);
    assert_eq!(versions(a, "site/again")[1]["here"], true);
    // One alone needs no time, if it is gone, and comes back into a directory that is gone as well.
    fs::remove_dir_all(a.path("site")).expect("all of it");
    cluster.settle_as("nothing is left", |tree| gone(tree, "site"));
    assert_eq!(restore(a, &["site/new"]), ["restored site/new"]);
    cluster.settle_as("one file", |tree| {
        has(tree, "site/new", "4444").and_then(|()| gone(tree, "site/edited"))
    });
    for (arguments, said) in [
        (&["site/new"][..], "it is there"),
        (&["nothing"], "nothing that was called so"),
        (&["site/new", "--version", "abcdef"], "no version"),
        (&["site/new", "--at", "2000-01-01"], "was not there at that time"),
    ] {
        let refused = a.pleach(["restore"].iter().chain(arguments));
        assert!(refused.code == 1 && refused.stderr.contains(said), "{refused}");
    }
}
