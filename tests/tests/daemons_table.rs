//! SEMANTICS.md's table of concurrent pairs, between real daemons that were cut from each other.
//!
//! Each row has a directory of its own, in which each master's user runs a line of shell while the
//! masters are apart. All rows are played in one partition, each twice, with the parts exchanged.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use pleach_tests::daemons::{Cluster, Entry, Tree, shell, wait_until, write};

/// What users did at once in one directory, and what it comes to.
struct Row {
    /// As SEMANTICS.md has it.
    name: &'static str,
    /// What was there before.
    before: &'static str,
    /// What each user does, a line of shell each, run in the row's directory.
    acts: &'static [&'static str],
    /// What it may come to: entries as [`show`] has them. More than one where the stamps decide.
    results: &'static [&'static str],
    /// How many conflicts are open then.
    conflicts: usize,
}

const PAIRS: &[Row] = &[
    Row {
        name: "edit f | edit f",
        before: "echo 0 > f",
        acts: &["echo a > f", "echo b > f"],
        results: &["f=a", "f=b"],
        conflicts: 1,
    },
    Row {
        name: "edit f | edit f to the same",
        before: "echo 0 > f",
        acts: &["echo same > f", "echo same > f"],
        results: &["f=same"],
        conflicts: 0,
    },
    Row {
        name: "edit f | chmod f",
        before: "echo 0 > f",
        acts: &["echo a > f", "chmod 600 f"],
        results: &["f=a:600"],
        conflicts: 0,
    },
    Row {
        name: "edit f | touch f",
        before: "echo 0 > f",
        acts: &["echo a > f", "touch -d 2001-01-01 f"],
        results: &["f=a"],
        conflicts: 0,
    },
    Row {
        name: "edit f | mv f g",
        before: "echo 0 > f",
        acts: &["echo a > f", "mv f g"],
        results: &["g=a"],
        conflicts: 0,
    },
    Row {
        name: "edit f | rm f",
        before: "echo 0 > f",
        acts: &["echo a > f", "rm f"],
        results: &["f=a"],
        conflicts: 1,
    },
    Row {
        name: "edit d/f | rm -r d",
        before: "mkdir -p d/sub; echo 0 > d/f; echo 1 > d/g; echo 2 > d/sub/h",
        acts: &["echo a > d/f", "rm -r d"],
        results: &["d/ d/f=a"],
        conflicts: 1,
    },
    Row {
        name: "chmod f | rm f",
        before: "echo 0 > f",
        acts: &["chmod 600 f", "rm f"],
        results: &[""],
        conflicts: 0,
    },
    Row {
        name: "rm f | rm f",
        before: "echo 0 > f; echo 1 > g",
        acts: &["rm f", "rm f"],
        results: &["g=1"],
        conflicts: 0,
    },
    Row {
        name: "mv f g | mv f h",
        before: "echo 0 > f",
        acts: &["mv f g", "mv f h"],
        results: &["g=0", "h=0"],
        conflicts: 1,
    },
    Row {
        name: "mv f g | rm f",
        before: "echo 0 > f",
        acts: &["mv f g", "rm f"],
        results: &["g=0"],
        conflicts: 1,
    },
    Row {
        name: "mv d e | rm -r d",
        before: "mkdir -p d/sub; echo 0 > d/f; echo 2 > d/sub/h",
        acts: &["mv d e", "rm -r d"],
        results: &["e/ e/f=0 e/sub/ e/sub/h=2"],
        conflicts: 1,
    },
    Row {
        name: "mv d e | create in d",
        before: "mkdir d; echo 0 > d/f",
        acts: &["mv d e", "echo new > d/n"],
        results: &["e/ e/f=0 e/n=new"],
        conflicts: 0,
    },
    Row {
        name: "mv d e | edit in d",
        before: "mkdir d; echo 0 > d/f",
        acts: &["mv d e", "echo b > d/f"],
        results: &["e/ e/f=b"],
        conflicts: 0,
    },
    Row {
        name: "mv d e | rename in d",
        before: "mkdir d; echo 0 > d/f",
        acts: &["mv d e", "mv d/f d/g"],
        results: &["e/ e/g=0"],
        conflicts: 0,
    },
    Row {
        name: "mv d/f out | rm -r d",
        before: "mkdir d out; echo 0 > d/f; echo 1 > d/g",
        acts: &["mv d/f out", "rm -r d"],
        results: &["out/ out/f=0"],
        conflicts: 1,
    },
    Row {
        name: "mkdir d | mkdir d",
        before: "true",
        acts: &["mkdir d; echo a > d/a", "mkdir d; echo b > d/b"],
        results: &["d/ d/a=a d/b=b"],
        conflicts: 0,
    },
    Row {
        name: "create f | create f, same bytes",
        before: "true",
        acts: &["echo same > f", "echo same > f"],
        results: &["f=same"],
        conflicts: 0,
    },
    Row {
        name: "create f | create f, other bytes",
        before: "true",
        acts: &["echo a > f", "echo b > f"],
        results: &["f=a", "f=b"],
        conflicts: 1,
    },
    Row {
        name: "create f | mkdir f",
        before: "true",
        acts: &["echo a > f", "mkdir f; echo in > f/in"],
        results: &["f/ f/in=in"],
        conflicts: 1,
    },
    Row {
        name: "mv f x | mv g x",
        before: "echo f > f; echo g > g",
        acts: &["mv f x", "mv g x"],
        results: &["x=f", "x=g"],
        conflicts: 1,
    },
    Row {
        name: "mv a b/a | mv b a/b",
        before: "mkdir a b; echo 1 > a/f; echo 2 > b/g",
        acts: &["mv a b/a", "mv b a/b"],
        results: &["a/ a/b/ a/b/g=2 a/f=1", "b/ b/a/ b/a/f=1 b/g=2"],
        conflicts: 1,
    },
    Row {
        name: "ln -sfn | ln -sfn",
        before: "ln -s 0 l",
        acts: &["ln -sfn a l", "ln -sfn b l"],
        results: &["l->a", "l->b"],
        conflicts: 1,
    },
    Row {
        name: "the same import on both",
        before: "true",
        acts: &[
            "mkdir i; for n in $(seq 100 219); do echo $n > i/$n; done; cd i; rm $(seq 103 219)",
            "mkdir i; for n in $(seq 100 219); do echo $n > i/$n; done; cd i; rm $(seq 103 219)",
        ],
        results: &["i/ i/100=100 i/101=101 i/102=102"],
        conflicts: 0,
    },
];

const TRIPLES: &[Row] = &[
    Row {
        name: "edit f three times",
        before: "echo 0 > f",
        acts: &["echo a > f", "echo b > f", "echo c > f"],
        results: &["f=a", "f=b", "f=c"],
        conflicts: 1,
    },
    Row {
        name: "edit f | mv f g | chmod f",
        before: "echo 0 > f",
        acts: &["echo a > f", "mv f g", "chmod 640 f"],
        results: &["g=a:640"],
        conflicts: 0,
    },
    Row {
        name: "rm -r d | mv d e | create in d",
        before: "mkdir d; echo 0 > d/f",
        acts: &["rm -r d", "mv d e", "echo c > d/n"],
        results: &["e/ e/f=0 e/n=c"],
        conflicts: 1,
    },
    Row {
        name: "a circle of three moves",
        before: "mkdir a b c; echo a > a/f; echo b > b/f; echo c > c/f",
        acts: &["mv a b/a", "mv b c/b", "mv c a/c"],
        results: &[
            "a/ a/c/ a/c/b/ a/c/b/f=b a/c/f=c a/f=a",
            "b/ b/a/ b/a/c/ b/a/c/f=c b/a/f=a b/f=b",
            "c/ c/b/ c/b/a/ c/b/a/f=a c/b/f=b c/f=c",
        ],
        conflicts: 1,
    },
    Row {
        name: "mkdir d three times, one with rm",
        before: "mkdir d; echo 0 > d/f",
        acts: &["rm -r d", "echo b > d/b", "mkdir d/sub"],
        results: &["d/ d/b=b d/sub/"],
        conflicts: 0,
    },
    Row {
        name: "edit f | rm f | rm f",
        before: "echo 0 > f",
        acts: &["echo a > f", "rm f", "rm f"],
        results: &["f=a"],
        conflicts: 1,
    },
];

#[test]
fn every_pair_of_the_table_comes_to_what_it_says() {
    play(2, PAIRS);
}

#[test]
fn three_masters_apart_come_to_what_the_rules_say() {
    play(3, TRIPLES);
}

/// The directory of a row, played with the parts shifted by `shift`.
fn directory(number: usize, shift: usize) -> String {
    format!("row {number} {shift}")
}

fn play(count: usize, rows: &[Row]) {
    let cluster = Cluster::of(count);
    let each = || {
        rows.iter().enumerate().flat_map(|(number, row)| {
            (0..count).map(move |shift| (directory(number, shift), row, shift))
        })
    };
    for (directory, row, _) in each() {
        let place = cluster.masters[0].path(&directory);
        fs::create_dir(&place).unwrap();
        shell(&place, row.before);
    }
    cluster.settle_to(0, "what was before is on all");
    cluster.cut_all();
    for (number, master) in cluster.masters.iter().enumerate() {
        for (directory, row, shift) in each() {
            shell(&master.path(&directory), row.acts[(number + shift) % count]);
        }
    }
    cluster.masters.iter().for_each(|master| cluster.flush(master));
    cluster.heal_all();
    check(&cluster, each().map(|(directory, row, _)| (directory, row)).collect());
}

fn check(cluster: &Cluster, played: Vec<(String, &Row)>) {
    cluster.settle_as("all masters are one again", |tree| {
        let wrong = played.iter().filter_map(|(directory, row)| {
            let shown = show(&cluster.masters[0].path(directory), &tree.below(directory));
            let fits = row.results.contains(&shown.as_str());
            (!fits).then(|| format!("{directory} ({}): {shown:?}, not {:?}", row.name, row.results))
        });
        let wrong: Vec<_> = wrong.collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    });
    for master in &cluster.masters {
        wait_until("the conflicts are what they should be", Duration::from_secs(10), || {
            let open = master.conflicts();
            let wrong = played.iter().filter_map(|(directory, row)| {
                let inside = format!("{directory}/");
                let here = |conflict: &&serde_json::Value| {
                    conflict["path"].as_str().is_some_and(|path| path.starts_with(&inside))
                };
                let found: Vec<_> = open.iter().filter(here).collect();
                (found.len() != row.conflicts).then(|| {
                    format!("{directory} ({}): {} conflicts: {found:#?}", row.name, found.len())
                })
            });
            let wrong: Vec<_> = wrong.collect();
            if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
        });
    }
}

/// A tree in one line: `d/` for a directory, `l->text` for a link, `f=first line` for a file, and the
/// mode after a colon where it isn't the usual one.
fn show(root: &Path, tree: &Tree) -> String {
    let shown = tree.entries.iter().map(|(path, entry)| {
        let at = root.join(path);
        let mode = |entry: &Entry, usual: u32| match entry.mode {
            mode if mode == usual => String::new(),
            mode => format!(":{mode:o}"),
        };
        let path = path.display();
        match entry.kind {
            'd' => format!("{path}/{}", mode(entry, 0o755)),
            'l' => format!("{path}->{}", fs::read_link(at).unwrap_or_default().display()),
            _ => {
                let bytes = fs::read_to_string(at).unwrap_or_default();
                format!("{path}={}{}", bytes.trim_end(), mode(entry, 0o644))
            }
        }
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[test]
fn conflict_settled_on_one_master_is_settled_on_all() {
    let cluster = Cluster::of(2);
    let (a, b) = (&cluster.masters[0], &cluster.masters[1]);
    let files = ["ours", "theirs", "both"];
    for file in files {
        write(&a.path(file), "0");
    }
    cluster.settle_to(0, "the files are on both");
    cluster.cut_all();
    for master in [a, b] {
        for file in files {
            write(&master.path(file), format!("{file} as {} has it", master.name()));
        }
        cluster.flush(master);
    }
    cluster.heal_all();
    for master in [a, b] {
        let what = format!("{} knows of three conflicts", master.name());
        wait_until(&what, Duration::from_secs(60), || match master.conflicts().len() {
            3 => Ok(()),
            count => Err(format!("{count}: {:#?}", master.conflicts())),
        });
        assert_eq!(master.pleach(["conflicts", ".", "--check"]).code, 4);
    }
    for file in files {
        let _ = a.pleach(["conflicts", "resolve", file, "--keep", file]).ok();
    }
    for master in [a, b] {
        let what = format!("{} knows of none", master.name());
        wait_until(&what, Duration::from_secs(60), || match master.conflicts().len() {
            0 => Ok(()),
            count => Err(format!("{count}: {:#?}", master.conflicts())),
        });
        assert_eq!(master.pleach(["conflicts", ".", "--check"]).code, 0);
    }
    let tree = cluster.settle("the same on both");
    assert_eq!(fs::read_to_string(b.path("ours")).unwrap(), "ours as a has it");
    assert_eq!(fs::read_to_string(b.path("theirs")).unwrap(), "theirs as b has it");
    assert_eq!(tree.file_count(), 4, "both are kept of one: {tree:#?}");
}

#[test]
fn conflict_is_settled_with_the_versions_that_are_here_while_nobody_else_is() {
    let cluster = Cluster::of(2);
    let (a, b) = (&cluster.masters[0], &cluster.masters[1]);
    write(&a.path("f"), "0");
    cluster.settle_to(0, "the file is on both");
    cluster.cut_all();
    for master in [a, b] {
        write(&master.path("f"), format!("as {} has it", master.name()));
        cluster.flush(master);
    }
    cluster.heal_all();
    cluster.settle_as("both have the conflict and all of its versions", |_| {
        match (a.conflicts().len(), b.conflicts().len()) {
            (1, 1) => Ok(()),
            other => Err(format!("the conflicts are {other:?}")),
        }
    });
    cluster.cut_all();
    // One of the two chooses what does not stand there.
    for (master, chosen) in [(a, "as b has it"), (b, "as a has it")] {
        let _ = master.pleach(["conflicts", "resolve", "f", "--keep", "theirs"]).ok();
        let what = format!("{} has what it chose", master.name());
        wait_until(&what, Duration::from_secs(60), || {
            match fs::read_to_string(master.path("f")).unwrap() {
                text if text == chosen => Ok(()),
                text => Err(text),
            }
        });
    }
    cluster.heal_all();
}
