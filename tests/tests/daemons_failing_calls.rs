//! System calls that fail: the kernel refuses a daemon one call or another, once or for a while, while another
//! master changes its tree.
//!
//! Meanwhile each path holds its old bytes or the new ones, whole, and what could not be done stands in
//! `status` with its path. Once the calls succeed, all heals by itself, and nothing is left over.
//! `PLEACH_FAULTS=all` plays every call with every errno; `PLEACH_FAULTS=renameat2` those of one call.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pleach_tests::daemons::{
    Cluster, Failing, Master, Threads, Tree, When, differences, have, probe_until, set_mtime, write,
};
use rustix::fs::XattrFlags;

/// How long it may take until what is in the way is said.
const TOLD_MAX: Duration = Duration::from_secs(15);
/// How long a call goes on failing then, while the daemon tries again.
const TRIED_FOR: Duration = Duration::from_millis(1_200);
/// How long it may take until all is well again.
const HEALED_MAX: Duration = Duration::from_secs(30);

const ERRNOS: [&str; 6] = ["ENOSPC", "EDQUOT", "EIO", "EROFS", "EACCES", "EMFILE"];

/// The calls that the thread makes which looks at the tree and writes to it.
const HAND_CALLS: [&str; 22] = [
    "openat",
    "openat2",
    "read",
    "write",
    "pwrite64",
    "fsync",
    "syncfs",
    "renameat2",
    "renameat",
    "mkdirat",
    "symlinkat",
    "unlinkat",
    "fchmod",
    "fchmodat",
    "fchown",
    "fchownat",
    "utimensat",
    "ftruncate",
    "setxattr",
    "fsetxattr",
    "llistxattr",
    "statx",
];
/// Those of the threads that fetch, with what they fetch.
const FETCHING_CALLS: [&str; 5] = ["openat", "pwrite64", "ftruncate", "renameat", "flock"];
/// Those of the thread that records, most of them SQLite's.
const DRIVER_CALLS: [&str; 3] = ["pwrite64", "fsync", "syncfs"];

#[derive(Clone, Copy, Debug)]
struct Case {
    threads: Threads,
    call: &'static str,
    errno: &'static str,
    when: When,
}

fn case(threads: Threads, call: &'static str, errno: &'static str, when: When) -> Case {
    Case { threads, call, errno, when }
}

/// A few that differ in what they hit.
fn some() -> Vec<Case> {
    vec![
        case(Threads::Hand, "openat", "ENOSPC", When::Always),
        case(Threads::Hand, "renameat2", "EIO", When::Once(3)),
        case(Threads::Fetching, "pwrite64", "EDQUOT", When::Always),
        case(Threads::Driver, "pwrite64", "EIO", When::Always),
    ]
}

fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    let calls = [
        (Threads::Hand, &HAND_CALLS[..]),
        (Threads::Fetching, &FETCHING_CALLS[..]),
        (Threads::Driver, &DRIVER_CALLS[..]),
    ];
    for (threads, calls) in calls {
        for &call in calls {
            cases.extend(ERRNOS.map(|errno| case(threads, call, errno, When::Always)));
            let once = [1, 2, 3, 4, 6, 9].map(When::Once);
            cases.extend(once.map(|when| case(threads, call, "EIO", when)));
        }
    }
    cases
}

fn chosen() -> Vec<Case> {
    match std::env::var("PLEACH_FAULTS") {
        Err(_) => some(),
        Ok(which) if which == "all" => all(),
        Ok(call) => {
            all().into_iter().filter(|case| call.split(',').any(|c| c == case.call)).collect()
        }
    }
}

/// Bytes of one's own, of a size.
fn bytes(what: &str, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(what.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// What takes the place of a large file, elsewhere in each case.
fn large(at: &Path) -> Vec<u8> {
    bytes(&format!("large {}", at.display()), 310_000)
}

/// A new one that is larger still.
fn huge(at: &Path) -> Vec<u8> {
    bytes(&format!("huge {}", at.display()), 1_500_000)
}

/// Names that always hold something.
const STAYING: [&str; 8] =
    ["edited", "saved", "large", "chmodded", "timed", "owned", "link", "kept"];

/// What a user has before the calls fail.
fn prepare(at: &Path) {
    for name in [
        "edited",
        "saved",
        "chmodded",
        "timed",
        "owned",
        "kept",
        "moved",
        "removed",
        "one",
        "two",
        "directory/inside",
        "gone/inside",
        "own",
    ] {
        write(&at.join(name), bytes(&format!("old {name}"), 1_000));
    }
    write(&at.join("large"), bytes("old large", 300_000));
    symlink("old", at.join("link")).unwrap();
    for name in ["own", "kept"] {
        // Where the file system has attributes.
        let _ = rustix::fs::setxattr(at.join(name), KEPT_ATTRIBUTE, b"kept", XattrFlags::empty());
    }
}

/// An attribute of what the user of this master edits, where the file system has attributes.
const KEPT_ATTRIBUTE: &str = "user.kept";
/// A name that the ignore rules cover.
const IGNORED: &str = "this master's own.ignored";

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 100];
    let length = rustix::fs::getxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

/// What stands in a case's directory, but for what is ignored.
fn tree_at(at: &Path) -> Tree {
    let mut tree = Tree::read(at).unwrap_or_default();
    tree.entries.remove(Path::new(IGNORED));
    tree
}

/// What the user of the other master does meanwhile.
fn act(at: &Path) {
    write(&at.join("edited"), bytes("new edited", 1_500));
    write(&at.join("saved~"), bytes("new saved", 1_700));
    fs::rename(at.join("saved~"), at.join("saved")).unwrap();
    write(&at.join("large"), large(at));
    fs::rename(at.join("moved"), at.join("directory/moved")).unwrap();
    fs::rename(at.join("directory"), at.join("directory 2")).unwrap();
    fs::remove_file(at.join("removed")).unwrap();
    fs::remove_dir_all(at.join("gone")).unwrap();
    fs::set_permissions(at.join("chmodded"), fs::Permissions::from_mode(0o600)).unwrap();
    let value = bytes("attribute", 10);
    // Where the file system has attributes.
    let _ = rustix::fs::setxattr(at.join("chmodded"), "user.x", &value, XattrFlags::empty());
    // As root.
    let _ = std::os::unix::fs::chown(at.join("owned"), Some(1), Some(1));
    set_mtime(&at.join("timed"), 1_000_000_000, 7);
    symlink("new", at.join("link~")).unwrap();
    fs::rename(at.join("link~"), at.join("link")).unwrap();
    fs::rename(at.join("one"), at.join("three")).unwrap();
    fs::rename(at.join("two"), at.join("one")).unwrap();
    fs::rename(at.join("three"), at.join("two")).unwrap();
    write(&at.join("small"), bytes("small", 900));
    write(&at.join("empty"), "");
    write(&at.join("huge"), huge(at));
    write(&at.join("new/inside"), bytes("inside", 20_000));
    symlink("nowhere", at.join("new/link")).unwrap();
    let _ = rustix::fs::setxattr(at.join("small"), "user.y", &value, XattrFlags::empty());
    let sparse = fs::File::create(at.join("sparse")).unwrap();
    sparse.set_len(500_000).unwrap();
    sparse.write_all_at(&bytes("sparse", 5_000), 200_000).unwrap();
    set_mtime(&at.join("new"), 1_000_000_001, 7);
}

/// What the user of this master does.
fn act_here(at: &Path) {
    write(&at.join("own"), bytes("own", 1_100));
    write(&at.join("own new"), bytes("own new", 40_000));
    write(&at.join(IGNORED), "not for the others");
}

type Contents = BTreeMap<PathBuf, blake3::Hash>;

fn contents(tree: &Tree) -> Contents {
    let holding = tree.entries.iter().filter_map(|(path, entry)| Some((path, entry.content?)));
    holding.map(|(path, content)| (path.clone(), content)).collect()
}

/// Old bytes or new ones at each path, whole.
fn is_whole(now: &Tree, old: &Tree, new: &Contents) -> Result<(), String> {
    let before = contents(old);
    for (path, content) in contents(now) {
        if ![before.get(&path), new.get(&path)].contains(&Some(&content)) {
            return Err(format!("{path:?} is neither as it was nor as it is to be:\n{now:#?}"));
        }
    }
    match STAYING.iter().find(|name| !now.entries.contains_key(Path::new(name))) {
        Some(name) => Err(format!("{name} is missing:\n{now:#?}")),
        None => Ok(()),
    }
}

/// Whether each difference is covered by a problem that is listed.
fn is_told(
    a: &Tree,
    b: &Tree,
    directory: &str,
    problems: &[serde_json::Value],
) -> Result<(), String> {
    let told: Vec<PathBuf> = problems
        .iter()
        .filter(|problem| !problem["reason"].as_str().unwrap_or_default().is_empty())
        .map(|problem| PathBuf::from(problem["path"].as_str().unwrap_or_default()))
        .collect();
    let (a, b) = (a.clone().without_directory_times(), b.clone().without_directory_times());
    let paths = a.entries.keys().chain(b.entries.keys());
    let differing = paths.filter(|path| a.entries.get(*path) != b.entries.get(*path));
    for path in differing {
        // What could not be renamed is told by the name that it is to have.
        if let (None, Some(here)) = (a.entries.get(path), b.entries.get(path))
            && (here.content.is_none() || a.entries.values().any(|at| at.content == here.content))
        {
            continue;
        }
        let path = Path::new(directory).join(path);
        // Without the database nothing goes on at all.
        let is_it = |told: &PathBuf| {
            path.starts_with(told) || told.starts_with(&path) || told.ends_with("state.db")
        };
        if !told.iter().any(is_it) {
            return Err(format!("nothing is said of {path:?}: {problems:#?}"));
        }
    }
    Ok(())
}

/// Whether both masters have the same and nothing is to be done, or said, or left over.
fn is_healed(masters: &[Master], directory: &str, new: &Contents) -> Result<(), String> {
    let places = [&masters[0], &masters[1]].map(|master| master.path(directory));
    let [a, b] = places.each_ref().map(|at| tree_at(at));
    if a != b {
        return Err(differences(&a, &b));
    }
    if places[0].join(IGNORED).exists() {
        return Err("what is ignored was told".to_owned());
    }
    let attributes = [("chmodded", "user.x"), ("small", "user.y"), ("own", KEPT_ATTRIBUTE)];
    for (path, name) in attributes {
        let [on_a, on_b] = places.each_ref().map(|at| attribute(&at.join(path), name));
        let had = attribute(&places[0].join("kept"), KEPT_ATTRIBUTE);
        if on_a != on_b || on_a.is_some() != had.is_some() {
            return Err(format!("{path}: {name} is {on_a:?} and {on_b:?}"));
        }
    }
    if contents(&a) != *new {
        return Err(format!("both have the same, and that is wrong: {a:#?}\nnot {new:#?}"));
    }
    for master in masters {
        let ran = master.pleach(["status", ".", "--json"]);
        if ran.code != 0 {
            return Err(ran.to_string());
        }
        let status = ran.json();
        let no_problem = status["problems"].as_array().is_some_and(Vec::is_empty);
        let idle = status["work"]["effects_pending"] == 0
            && status["work"]["fetching"]["contents"] == 0
            && status["work"]["scanning"] == false
            && status["conflicts"] == 0;
        if !no_problem || !idle {
            return Err(format!("{}: {status:#}", master.name()));
        }
        let staging = Tree::read(&master.path(".pleach/staging")).map_err(|e| e.to_string())?;
        if staging.file_count() > 0 {
            return Err(format!("left over: {staging:#?}"));
        }
        let parking = Tree::read(&master.path(".pleach/parking")).map_err(|e| e.to_string())?;
        if !parking.entries.is_empty() {
            return Err(format!("left over: {parking:#?}"));
        }
    }
    Ok(())
}

/// Plays one case in a directory of its own; how often the call failed.
fn play(masters: &[Master], directory: &str, case: Case) -> Result<usize, String> {
    let [a, b] = [&masters[0].path(directory), &masters[1].path(directory)];
    let old = tree_at(b);
    let fetched = [large(a), huge(a)].map(|bytes| blake3::hash(&bytes));
    let fault = (case.call, case.errno, case.when);
    let failing = Failing::of(&masters[1], case.threads, &fetched, fault)?;
    // To be read again.
    write(&masters[1].path(".pleachignore"), format!("# {directory}\n*.ignored\n"));
    act(a);
    act_here(b);
    let mut new = contents(&tree_at(a));
    for name in ["own", "own new"] {
        new.insert(name.into(), blake3::hash(&fs::read(b.join(name)).unwrap()));
    }
    let mut told_since = None;
    let reached = probe_until(TOLD_MAX, || {
        let [there, here] = [a, b].map(|at| tree_at(at));
        is_whole(&here, &old, &new).map_err(|wrong| format!("WRONG {wrong}"))?;
        if there == here {
            return Ok(());
        }
        let ran = masters[1].pleach(["status", ".", "--json"]);
        if ran.code != 0 {
            return Err(ran.to_string());
        }
        let status = ran.json();
        let told = is_told(&there, &here, directory, status["problems"].as_array().unwrap());
        if let Err(silent) = told {
            told_since = None;
            return Err(silent);
        }
        match told_since.get_or_insert_with(Instant::now).elapsed() {
            long if long >= TRIED_FOR => Ok(()),
            _ => Err("told, and tried again a little longer".to_owned()),
        }
    });
    let whole = is_whole(&tree_at(b), &old, &new);
    let count = failing.end();
    let healed = probe_until(HEALED_MAX, || is_healed(masters, directory, &new));
    let told = if case.when == When::Always { reached } else { Ok(()) };
    whole.map_err(|wrong| format!("while it failed: {wrong}"))?;
    told.map_err(|wrong| format!("not told: {wrong}"))?;
    healed.map_err(|wrong| format!("not healed: {wrong}"))?;
    Ok(count)
}

#[test]
fn whatever_call_fails_old_bytes_stay_it_is_said_and_all_heals() {
    if !have("strace") {
        return;
    }
    let cases = chosen();
    let cluster = Cluster::holding(2, |number, master| {
        if number == 0 {
            write(&master.path(".pleachignore"), "*.ignored\n");
            (0..cases.len()).for_each(|case| prepare(&master.path(&format!("case {case}"))));
        }
    });
    cluster.settle_to(0, "what there is before");
    let fault = ("mkdirat", "EIO", When::Always);
    let probe = Failing::of(&cluster.masters[1], Threads::Hand, &[], fault);
    if let Err(reason) = probe.map(Failing::end) {
        return println!("skipped: {reason}");
    }
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let start = Instant::now();
        let played = play(&cluster.masters, &format!("case {number}"), *case);
        let seconds = start.elapsed().as_secs_f32();
        match played {
            Ok(count) => println!("{case:?}: failed {count} times, healed; {seconds:.1} s"),
            Err(reason) => {
                println!("{case:?}: {reason}\n{seconds:.1} s");
                wrong.push(format!("{case:?}: {}", reason.lines().next().unwrap_or_default()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
