//! What happened, as people ask for it: the log, the versions of a file, and getting them back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pleach_tests::daemons::{Cluster, Master, Tree};
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
