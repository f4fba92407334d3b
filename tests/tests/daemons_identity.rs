//! Trees and states that are not who they were: deleted, restored from a backup, cloned, moved away.
//!
//! What a user finds in the directory is the user's; what no longer fits together is said. Nothing is lost,
//! no absence spreads that nobody meant, and all are one tree again.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pleach_tests::daemons::{
    Cluster, Master, Tree, assert_same_trees, differences, run, shell, small_files, wait_until,
    write,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Two masters with some files, the same on both.
fn two_with_files() -> Cluster {
    let cluster = Cluster::of(2);
    let a = &cluster.masters[0];
    small_files(&a.path("site"), 120, 300);
    for name in ["kept", "edited", "removed", "moved/one", "moved/two"] {
        write(&a.path(name), format!("{name}, at first"));
    }
    cluster.settle_to(0, "the first files");
    cluster
}

/// What happens after a backup was made: on both, to the same tree.
fn a_week_passes(cluster: &Cluster) -> Tree {
    let [a, b] = &cluster.masters[..] else { unreachable!("two were made") };
    write(&a.path("edited"), "later");
    write(&a.path("new on a"), "made on a");
    fs::remove_file(b.path("removed")).unwrap();
    fs::rename(b.path("moved"), b.path("moved away")).unwrap();
    write(&b.path("new on b"), "made on b");
    cluster.settle("a week's work")
}

fn copy(from: &Path, to: &Path) {
    let ran = run(Command::new("cp").arg("-a").arg(from).arg(to));
    assert!(ran.code == 0, "{ran}");
}

/// Removes all that is in a directory but `.pleach`.
fn empty(directory: &Path) {
    shell(directory, "find . -mindepth 1 -maxdepth 1 ! -name .pleach -exec rm -rf {} +");
}

/// Waits until the daemon has said so in its log, after the first `skip` bytes.
fn await_said(master: &Master, skip: usize, words: &str) {
    wait_until(&format!("{} says {words:?}", master.name()), PATIENCE, || {
        let log = master.log();
        if log[skip..].contains(words) { Ok(()) } else { Err(log[skip..].to_owned()) }
    });
}

/// The hashes of what a master keeps in its versions.
fn versions(master: &Master) -> Vec<blake3::Hash> {
    let tree = Tree::read(&master.path(".pleach/versions")).unwrap();
    tree.entries.values().filter_map(|entry| entry.content).collect()
}

fn read(master: &Master, path: &str) -> Option<String> {
    fs::read_to_string(master.path(path)).ok()
}

fn join_anew(cluster: &mut Cluster) {
    let [a, b] = &mut cluster.masters[..] else { unreachable!("two were made") };
    a.join(b);
    a.start();
    cluster.await_connected();
}

#[test]
fn state_that_was_deleted_while_nothing_ran_is_made_anew_by_joining_and_all_files_merge() {
    let mut cluster = two_with_files();
    cluster.masters[0].stop();
    fs::remove_dir_all(cluster.masters[0].path(".pleach")).unwrap();
    let [a, b] = &mut cluster.masters[..] else { unreachable!("two were made") };
    write(&a.path("edited"), "on a, while it had no state");
    fs::remove_file(a.path("removed")).unwrap();
    write(&b.path("new on b"), "meanwhile");
    fs::remove_file(b.path("kept")).unwrap();
    // It is recorded: else it would be a removal of what the joiner brings.
    let _ = b.pleach(["wait", "."]).ok();
    let refused = a.try_start().unwrap_err();
    assert_eq!(refused.code, 2, "{refused}");
    assert!(refused.stderr.contains("is not a store"), "{refused}");
    assert!(refused.stderr.contains("pleach join "), "{refused}");
    join_anew(&mut cluster);
    let tree = cluster.settle("joined anew");
    let [a, b] = &cluster.masters[..] else { unreachable!("two were made") };
    // What the joiner lacks it did not remove; what it has and the others removed, it brings back.
    assert_eq!(read(b, "removed").as_deref(), Some("removed, at first"));
    assert_eq!(read(b, "kept").as_deref(), Some("kept, at first"));
    assert_eq!(read(a, "new on b").as_deref(), Some("meanwhile"));
    assert_eq!(tree.file_count(), 126);
    let conflicts = a.conflicts();
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    assert_eq!(conflicts[0]["path"], "edited");
    let hashes = format!("{conflicts:?}");
    for text in ["edited, at first", "on a, while it had no state"] {
        assert!(hashes.contains(blake3::hash(text.as_bytes()).to_hex().as_str()), "{text}");
    }
}

#[test]
fn state_that_is_deleted_under_a_running_daemon_freezes_it_and_no_removal_spreads() {
    let mut cluster = two_with_files();
    let before = cluster.masters[1].tree();
    let a = &cluster.masters[0];
    let said = a.log().len();
    fs::remove_dir_all(a.path(".pleach")).unwrap();
    empty(a.directory());
    await_said(a, said, "its .pleach is gone");
    write(&cluster.masters[1].path("new on b"), "meanwhile");
    cluster.masters[0].kill();
    // Whatever it was about to say is said by now.
    wait_until("b is alone", PATIENCE, || {
        let status = cluster.masters[1].status();
        let others = status.list("/masters").iter().filter(|master| master["this"] == false);
        let connected = others.filter(|master| master["connected"] == true).count();
        if connected == 0 { Ok(()) } else { Err(format!("{:#}", status.0)) }
    });
    let mut after = cluster.masters[1].tree();
    after.entries.remove(Path::new("new on b"));
    assert_same_trees("what was removed with the state", &before, &after);
    join_anew(&mut cluster);
    cluster.settle_to(1, "it all comes again");
    assert_eq!(cluster.masters[0].conflicts().len(), 0);
}

#[test]
fn tree_restored_from_a_backup_is_what_its_user_wants_and_what_it_replaces_is_kept() {
    let mut cluster = two_with_files();
    let backup = cluster.scratch.path().join("backup");
    cluster.masters[0].stop();
    copy(cluster.masters[0].directory(), &backup);
    fs::remove_dir_all(backup.join(".pleach")).unwrap();
    cluster.masters[0].start();
    cluster.await_connected();
    a_week_passes(&cluster);

    cluster.masters[0].stop();
    let a = cluster.masters[0].directory().to_owned();
    empty(&a);
    copy(&backup.join("."), &a);
    let restored = Tree::read(&a).unwrap();
    write(&cluster.masters[1].path("new while a was restored"), "b");
    cluster.masters[0].start();
    cluster.await_connected();
    let tree = cluster.settle("restored");
    let [a, b] = &cluster.masters[..] else { unreachable!("two were made") };
    let mut without = tree.without_directory_times();
    assert!(without.entries.remove(Path::new("new while a was restored")).is_some());
    let wanted = restored.without_directory_times();
    assert_same_trees("the tree of the backup, on both", &wanted, &without);
    assert_eq!(a.conflicts().len(), 0, "{:?}", a.conflicts());
    let kept = versions(b);
    for text in ["later", "made on a", "made on b"] {
        assert!(kept.contains(&blake3::hash(text.as_bytes())), "{text:?} is in no version of b");
    }
}

#[test]
fn state_restored_from_an_old_backup_beside_the_new_tree_merges() {
    let mut cluster = two_with_files();
    let backup = cluster.scratch.path().join("backup");
    cluster.masters[0].stop();
    copy(&cluster.masters[0].path(".pleach"), &backup);
    cluster.masters[0].start();
    cluster.await_connected();
    let tree = a_week_passes(&cluster);

    cluster.masters[0].stop();
    let a = &cluster.masters[0];
    fs::rename(a.path(".pleach"), cluster.scratch.path().join("newer")).unwrap();
    copy(&backup, &a.path(".pleach"));
    write(&cluster.masters[1].path("site/000/00001"), "meanwhile");
    fs::remove_file(cluster.masters[1].path("site/000/00002")).unwrap();
    cluster.masters[0].start();
    cluster.await_connected();
    let now = cluster.settle("an old state, a new tree");
    let mut wanted = tree;
    wanted.entries.remove(Path::new("site/000/00002"));
    let edited = now.entries[Path::new("site/000/00001")].clone();
    assert_eq!(edited.content, Some(blake3::hash(b"meanwhile")));
    wanted.entries.insert("site/000/00001".into(), edited);
    let [wanted, now] = [wanted, now].map(Tree::without_directory_times);
    assert_same_trees("nothing lost, nothing raised from the dead", &wanted, &now);
    for master in &cluster.masters {
        assert_eq!(master.conflicts().len(), 0, "{:?}", master.conflicts());
    }
    works_on(&cluster);
}

#[test]
fn state_of_before_the_others_joined_is_told_of_by_them_and_joining_again_helps() {
    let mut cluster = Cluster::of(1);
    let backup = cluster.scratch.path().join("backup");
    cluster.masters[0].stop();
    copy(&cluster.masters[0].path(".pleach"), &backup);
    cluster.masters[0].start();
    let mut b = Master::new(cluster.scratch.path(), "b");
    b.join(&cluster.masters[0]);
    b.start();
    cluster.masters.push(b);
    cluster.await_connected();
    write(&cluster.masters[0].path("file"), "of a");
    let tree = cluster.settle_to(0, "a file");

    let [a, b] = &mut cluster.masters[..] else { unreachable!("two were made") };
    a.stop();
    fs::rename(a.path(".pleach"), cluster.scratch.path().join("newer")).unwrap();
    copy(&backup, &a.path(".pleach"));
    a.start();
    let problem = wait_until("b says that a does not let it in", PATIENCE, || {
        let status = b.status();
        let mut problems = status.list("/problems").iter();
        let told = problems.find(|problem| problem["kind"] == "shut_out");
        told.map(|told| told["reason"].to_string()).ok_or_else(|| format!("{:#}", status.0))
    });
    assert!(
        problem.contains("move .pleach out of the directory there and join again"),
        "{problem}"
    );
    a.stop();
    fs::rename(a.path(".pleach"), cluster.scratch.path().join("older")).unwrap();
    join_anew(&mut cluster);
    let now = cluster.settle("a has joined again");
    assert_same_trees("nothing lost", &tree, &now);
    assert_eq!(cluster.masters[0].conflicts().len(), 0);
}

#[test]
fn whole_master_restored_from_last_weeks_backup_catches_up() {
    let mut cluster = two_with_files();
    let backup = cluster.scratch.path().join("backup");
    cluster.masters[0].stop();
    copy(cluster.masters[0].directory(), &backup);
    cluster.masters[0].start();
    cluster.await_connected();
    a_week_passes(&cluster);

    cluster.masters[0].kill();
    let a = cluster.masters[0].directory().to_owned();
    fs::remove_dir_all(&a).unwrap();
    copy(&backup, &a);
    write(&cluster.masters[1].path("new while a was restored"), "b");
    let wanted = cluster.masters[1].tree();
    cluster.masters[0].start();
    cluster.await_connected();
    let now = cluster.settle("caught up");
    let [wanted, now] = [wanted, now].map(Tree::without_directory_times);
    assert_same_trees("the tree of those who were there", &wanted, &now);
    assert_eq!(cluster.masters[0].conflicts().len(), 0);
    works_on(&cluster);
}

/// Each of them is heard by the other.
fn works_on(cluster: &Cluster) {
    for master in &cluster.masters {
        write(&master.path(&format!("works on {}", master.name())), master.name());
    }
    cluster.settle("both go on");
    for master in &cluster.masters {
        assert_eq!(read(master, "works on a").as_deref(), Some("a"));
        assert_eq!(read(master, "works on b").as_deref(), Some("b"));
    }
}

#[test]
fn cloned_machine_is_told_of_and_all_three_are_one_tree() {
    let mut cluster = two_with_files();
    cluster.masters[0].stop();
    let mut clone = Master::new(cluster.scratch.path(), "clone");
    copy(&cluster.masters[0].path("."), clone.directory());
    let said = cluster.masters[1].log().len();
    cluster.masters[0].start();
    clone.start();
    let [a, b] = &cluster.masters[..] else { unreachable!("two were made") };
    await_said(b, said, "runs more than once");
    let equal = |what: &str| {
        wait_until(what, PATIENCE, || {
            let first = b.tree().without_directory_times();
            for other in [a, &clone] {
                let tree = other.tree().without_directory_times();
                if tree != first {
                    let differences = differences(&first, &tree);
                    return Err(format!("b and {} differ:\n{differences}", other.name()));
                }
            }
            Ok(first)
        })
    };
    for (number, master) in [a, b, &clone].into_iter().enumerate() {
        write(&master.path(&format!("of {}", master.name())), master.name());
        write(&master.path(&format!("site/000/0000{number}")), master.name());
        fs::remove_file(master.path(&format!("site/001/0011{number}"))).unwrap();
    }
    wait_until("what each did is on all", PATIENCE, || {
        let there = |on: &Master| {
            [a, b, &clone].iter().enumerate().all(|(number, master)| {
                let name = Some(master.name());
                read(on, &format!("of {}", master.name())).as_deref() == name
                    && read(on, &format!("site/000/0000{number}")).as_deref() == name
                    && read(on, &format!("site/001/0011{number}")).is_none()
            })
        };
        let lacking: Vec<_> = [a, b, &clone].into_iter().filter(|on| !there(on)).collect();
        if lacking.is_empty() { Ok(()) } else { Err(format!("{lacking:?}")) }
    });
    let tree = equal("one tree");
    assert_eq!(tree.file_count(), 125 + 3 - 3);
    assert_eq!(b.conflicts().len(), 0, "{:?}", b.conflicts());
    let status = b.status();
    let told = status.list("/problems").iter().any(|problem| problem["kind"] == "cloned_master");
    assert!(told, "{:#}", status.0);
}

/// Runs with the root of `a` taken away by `take` and given back by `back`; meanwhile `b` works.
fn taken_away(cluster: &mut Cluster, words: &str, take: impl Fn(&Path), back: impl Fn(&Path)) {
    let before = cluster.masters[1].tree();
    let [a, b] = &cluster.masters[..] else { unreachable!("two were made") };
    let said = a.log().len();
    take(a.directory());
    // Events may be lost with the root: the daemon looks for it when it is to do something there.
    write(&b.path("site/000/00003"), "written meanwhile");
    fs::remove_file(b.path("site/000/00004")).unwrap();
    await_said(a, said, words);
    let mut now = b.tree().without_directory_times();
    let mut before = before.without_directory_times();
    for path in ["site/000/00003", "site/000/00004"] {
        for tree in [&mut now, &mut before] {
            tree.entries.remove(Path::new(path));
        }
    }
    assert_same_trees("nothing spreads of what is not there", &before, &now);
    back(a.directory());
    await_said(a, said, "problem solved");
    let tree = cluster.settle("it thaws by itself");
    assert_eq!(tree.file_count(), 124);
    assert_eq!(read(&cluster.masters[0], "site/000/00003").as_deref(), Some("written meanwhile"));
    assert_eq!(cluster.masters[0].conflicts().len(), 0);
    works_on(cluster);
}

fn aside(directory: &Path) -> PathBuf {
    directory.with_file_name("aside")
}

#[test]
fn root_that_is_moved_away_freezes_the_store_until_it_is_back() {
    let mut cluster = two_with_files();
    let take = |root: &Path| fs::rename(root, aside(root)).unwrap();
    let back = |root: &Path| fs::rename(aside(root), root).unwrap();
    taken_away(&mut cluster, "the root of the store is lost", take, back);
}

#[test]
fn another_directory_in_the_place_of_the_root_freezes_the_store_until_it_is_back() {
    let mut cluster = two_with_files();
    let take = |root: &Path| {
        fs::rename(root, aside(root)).unwrap();
        write(&root.join("other"), "of somebody else");
    };
    let back = |root: &Path| {
        fs::remove_dir_all(root).unwrap();
        fs::rename(aside(root), root).unwrap();
    };
    taken_away(&mut cluster, "another directory stands there now", take, back);
    assert_eq!(read(&cluster.masters[1], "other"), None);
}

#[test]
fn root_that_is_unmounted_freezes_the_store_until_it_is_mounted_again() {
    let mount = |root: &Path| {
        let real = root.with_file_name("real");
        fs::create_dir_all(&real).unwrap();
        run(Command::new("mount").arg("--bind").arg(&real).arg(root))
    };
    let unmount = |root: &Path| run(Command::new("umount").arg("-l").arg(root));
    let mounted = std::cell::Cell::new(false);
    let mut cluster = Cluster::holding(2, |number, master| {
        if number == 0 {
            mounted.set(mount(master.directory()).code == 0);
        }
    });
    if !mounted.get() {
        return println!("skipped: nothing can be mounted here");
    }
    small_files(&cluster.masters[0].path("site"), 120, 300);
    small_files(&cluster.masters[0].path("more"), 5, 30);
    cluster.settle_to(0, "the first files");
    let take = |root: &Path| assert_eq!(unmount(root).code, 0);
    let back = |root: &Path| assert_eq!(mount(root).code, 0);
    taken_away(&mut cluster, "another directory stands there now", take, back);
    cluster.masters[0].kill();
    let _ = unmount(cluster.masters[0].directory()).ok();
}

/// What is mounted on a directory, unmounted when this is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn on(at: &Path, arguments: &str) -> Result<Self, String> {
        let line = format!("mount {arguments} '{}'", at.display());
        let ran = Command::new("sh").args(["-c", &line]).output();
        match ran.map_err(|error| error.to_string())? {
            ran if ran.status.success() => Ok(Self(at.to_owned())),
            ran => Err(String::from_utf8_lossy(&ran.stderr).into_owned()),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn what_is_mounted_inside_the_tree_is_not_crossed_and_what_it_hides_is_not_gone() {
    let mut cluster = two_with_files();
    let outside = tempfile::tempdir().unwrap();
    write(&outside.path().join("outside"), "not of the tree");
    for name in ["tmpfs", "bound"] {
        write(&cluster.masters[0].path(&format!("{name}/f")), name);
    }
    let before = cluster.settle_to(0, "two directories more");
    let at = ["tmpfs", "bound"].map(|name| cluster.masters[0].path(name));
    let bind = format!("--bind '{}'", outside.path().display());
    let mounted = [Mounted::on(&at[0], "-t tmpfs none"), Mounted::on(&at[1], &bind)];
    let mounted = match mounted {
        [Ok(tmpfs), Ok(bound)] => [tmpfs, bound],
        [Err(why), _] | [_, Err(why)] => {
            return println!("skipped: nothing can be mounted here: {why}");
        }
    };
    write(&at[0].join("written"), "on the tmpfs");
    write(&at[1].join("written"), "where it is bound");
    for start in 0..2 {
        // Everything is looked at when a daemon starts.
        if start == 1 {
            cluster.masters[0].stop();
            cluster.masters[0].start();
            cluster.await_connected();
        }
        let b = &cluster.masters[1];
        write(&cluster.masters[0].path("beside"), format!("after start {start}"));
        wait_until("what is beside it goes on", PATIENCE, || match read(b, "beside") {
            Some(text) if text == format!("after start {start}") => Ok(()),
            other => Err(format!("{other:?}")),
        });
        // What was removed would be known as such after three seconds.
        write(&b.path("tmpfs/f"), format!("edited after start {start}"));
        wait_until("it is said that this can't be done", PATIENCE, || {
            let status = cluster.masters[0].status();
            let listed = status.list("/problems").iter();
            let paths: Vec<_> = listed.map(|problem| problem["path"].to_string()).collect();
            match paths.iter().any(|path| path.contains("tmpfs")) {
                true => Ok(()),
                false => Err(format!("{:#}", status.0)),
            }
        });
        let on_b = b.tree();
        for (path, entry) in before.entries.iter().filter(|(_, entry)| entry.kind == 'f') {
            assert!(on_b.entries.contains_key(path), "{path:?} {entry:?} is gone");
        }
        assert!(!on_b.entries.keys().any(|path| path.ends_with("written")), "{on_b:#?}");
        assert!(at[0].join("written").exists() && at[1].join("written").exists());
        assert!(!at[0].join("f").exists(), "nothing was written to where it is mounted");
    }
    drop(mounted);
    let tree = cluster.settle("the mounts are gone");
    assert_eq!(tree.file_count(), before.file_count() + 1);
    assert_eq!(read(&cluster.masters[0], "tmpfs/f").as_deref(), Some("edited after start 1"));
    assert!(!cluster.masters[0].path("bound/written").exists());
    assert_eq!(cluster.masters[0].conflicts().len(), 0);
}
