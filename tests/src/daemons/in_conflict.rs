//! Conflicts of every kind, made by the users of two of three masters.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::{Cluster, Master, Ran, shell, wait_until};

/// A kind of conflict, and what makes one.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Where all of it is.
    pub directory: &'static str,
    /// What the first does while they are together.
    pub before: &'static str,
    /// What each does while they are apart.
    pub acts: [&'static str; 2],
    /// As it is reported.
    pub kind: &'static str,
    /// The rules by which one version may stand.
    pub rules: &'static [&'static str],
    /// The names that it may have there.
    pub paths: &'static [&'static str],
}

/// One of each kind.
pub const KINDS: &[Kind] = &[
    Kind {
        directory: "edited",
        before: "echo 0 > f; chmod 640 f",
        acts: ["echo from a > f", "echo of b > f"],
        kind: "edited",
        rules: &["largest_stamp"],
        paths: &["f"],
    },
    Kind {
        directory: "same name",
        before: "true",
        acts: ["echo from a > n", "echo of b > n"],
        kind: "same_name",
        rules: &["oldest_name"],
        paths: &["n"],
    },
    Kind {
        directory: "directory and file",
        before: "true",
        acts: ["echo from a > n", "mkdir n; echo in > n/in"],
        kind: "same_name",
        rules: &["directory_before_file"],
        paths: &["n"],
    },
    Kind {
        directory: "moved",
        before: "echo 0 > f",
        acts: ["mv f g", "mv f h"],
        kind: "moved_twice",
        rules: &["largest_stamp"],
        paths: &["g", "h"],
    },
    Kind {
        directory: "circle",
        before: "mkdir x y; echo 1 > x/1; echo 2 > y/2",
        acts: ["mv x y/x", "mv y x/y"],
        kind: "moved_into_each_other",
        rules: &["newest_move_yields"],
        paths: &["x", "y"],
    },
    Kind {
        directory: "deleted, edited",
        before: "echo 0 > f",
        acts: ["rm f", "echo of b > f"],
        kind: "deleted_and_edited",
        rules: &["edit_beats_delete"],
        paths: &["f"],
    },
    Kind {
        directory: "deleted, moved",
        before: "mkdir d; echo 1 > d/1; echo 2 > d/2",
        acts: ["rm -r d", "mv d e"],
        kind: "deleted_and_edited",
        rules: &["move_beats_delete"],
        paths: &["e"],
    },
];

/// Three masters; of the first two, each has done its part of each of these while they were apart.
pub fn in_conflict(kinds: &[Kind]) -> Cluster {
    let cluster = Cluster::of(3);
    for kind in kinds {
        let place = cluster.masters[0].path(kind.directory);
        fs::create_dir(&place).unwrap();
        shell(&place, kind.before);
    }
    cluster.settle_to(0, "what was before is on all");
    cluster.cut_all();
    for (number, master) in cluster.masters[..2].iter().enumerate() {
        for kind in kinds {
            shell(&master.path(kind.directory), kind.acts[number]);
        }
        cluster.flush(master);
    }
    cluster.heal_all();
    await_open(&cluster, kinds.len());
    cluster.settle("all masters are one again");
    cluster
}

/// Waits until every master knows of so many open conflicts.
pub fn await_open(cluster: &Cluster, count: usize) {
    for master in &cluster.masters {
        let what = format!("{} knows of {count} conflicts", master.name());
        wait_until(&what, Duration::from_secs(90), || match master.conflicts() {
            open if open.len() == count => Ok(()),
            open => Err(format!("{open:#?}")),
        });
    }
}

/// The only conflict at a path, in full.
pub fn shown(master: &Master, path: &str) -> Value {
    let Value::Array(mut shown) = master.pleach(["conflicts", "show", path, "--json"]).ok().json()
    else {
        panic!("an array was promised")
    };
    assert_eq!(shown.len(), 1, "{shown:#?}");
    shown.remove(0)
}

/// The versions of a conflict.
pub fn versions(conflict: &Value) -> &Vec<Value> {
    conflict["versions"].as_array().unwrap()
}

/// The bytes of a version.
pub fn content(master: &Master, path: &str, version: &str) -> Ran {
    master.pleach(["conflicts", "show", path, "--content", version])
}

/// Settles conflicts.
pub fn resolve(master: &Master, arguments: &[&str]) -> Ran {
    master.pleach(["conflicts", "resolve"].iter().chain(arguments))
}
