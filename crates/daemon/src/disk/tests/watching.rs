//! The watcher, on real events. Every test waits for hints, never for time.

use std::time::Duration;

use rustix::fs::inotify::WatchFlags;

use super::*;

struct Watched {
    bench: Bench,
    watcher: Watcher,
    hints: Hints,
    heard: Vec<Dirty>,
    /// All that was heard until the last wait ended.
    before: Vec<Dirty>,
}

impl Watched {
    fn new(directories: &[&str]) -> Self {
        let bench = Bench::new();
        for directory in directories {
            std::fs::create_dir_all(bench.at(directory)).unwrap();
        }
        let (mut watcher, hints) = Watcher::start(bench.disk.root()).unwrap();
        for directory in directories {
            assert_eq!(watcher.watch(&path(directory)), Watching::Started);
        }
        Self { bench, watcher, hints, heard: Vec::new(), before: Vec::new() }
    }

    /// Waits until all of `wanted` have been heard, in any order; heals as a driver does.
    fn wait_for(&mut self, wanted: &[Dirty]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        while !wanted.iter().all(|dirty| self.heard.contains(dirty)) {
            let next =
                async { tokio::time::timeout(Duration::from_secs(20), self.hints.next()).await };
            let Ok(next) = runtime.block_on(next) else {
                panic!("heard {:?}, not all of {wanted:?}", self.heard);
            };
            self.heard.extend(next);
            self.watcher.heal();
        }
        self.before = std::mem::take(&mut self.heard);
    }
}

fn written(relative: &str) -> Dirty {
    Dirty::Written(path(relative))
}

fn removed(relative: &str) -> Dirty {
    Dirty::Removed(path(relative))
}

#[test]
fn writing_renaming_and_removing_are_heard() {
    let mut watched = Watched::new(&["", "d"]);
    watched.bench.write("f", b"x");
    watched.wait_for(&[written("f")]);
    std::fs::rename(watched.bench.at("f"), watched.bench.at("d/g")).unwrap();
    watched.wait_for(&[removed("f"), written("d/g")]);
    std::fs::remove_file(watched.bench.at("d/g")).unwrap();
    watched.wait_for(&[removed("d/g")]);
    std::fs::create_dir(watched.bench.at("new")).unwrap();
    watched.wait_for(&[written("new")]);
}

#[test]
fn reading_is_not_watched() {
    let watched = Watched::new(&["", "d"]);
    let inode = std::os::unix::fs::MetadataExt::ino(&watched.bench.at("d").metadata().unwrap());
    // What the kernel says of each watch: `inotify wd:2 ino:2a01f sdev:fe00001 mask:3ce …`.
    let watch = format!(" ino:{inode:x} ");
    let handles = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let told: Vec<_> = handles.flatten().map(|it| std::fs::read_to_string(it.path())).collect();
    let watches = told.iter().flatten().flat_map(|info| info.lines());
    let masks: Vec<u32> = watches
        .filter(|line| line.starts_with("inotify ") && line.contains(&watch))
        .map(|line| line.split_once("mask:").unwrap().1.split(' ').next().unwrap())
        .map(|mask| u32::from_str_radix(mask, 16).unwrap())
        .collect();
    let reading = WatchFlags::ACCESS | WatchFlags::OPEN | WatchFlags::CLOSE_NOWRITE;
    assert_eq!(masks.len(), 1, "{told:?}");
    assert_eq!(masks[0] & reading.bits(), 0, "{:x}", masks[0]);
    assert_ne!(masks[0] & WatchFlags::CLOSE_WRITE.bits(), 0, "{:x}", masks[0]);
}

#[test]
fn write_to_a_version_is_heard_and_what_becomes_one_is_not() {
    let mut watched = Watched::new(&[""]);
    assert_eq!(watched.watcher.watch_versions(), Watching::Started);
    watched.bench.write("f", b"old");
    let mut held = std::fs::OpenOptions::new().append(true).open(watched.bench.at("f")).unwrap();
    let expected = Expected::Present(watched.bench.fingerprint("f"));
    done(&watched.bench.apply_one(put("f", expected, b"new")));
    let version = watched.bench.disk.versions().list(None)[0].id;
    watched.bench.write("marker", b"x");
    watched.wait_for(&[written("marker")]);
    assert!(!watched.before.contains(&Dirty::Late(version)), "{:?}", watched.before);
    io::Write::write_all(&mut held, b" and late").unwrap();
    watched.wait_for(&[Dirty::Late(version)]);
}

#[test]
fn link_is_never_followed() {
    let mut watched = Watched::new(&[""]);
    let outside = watched.bench.scratch.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, watched.bench.at("l")).unwrap();
    assert_eq!(watched.watcher.watch(&path("l")), Watching::Gone);
}

#[test]
fn state_of_the_store_is_not_heard_of() {
    let mut watched = Watched::new(&[""]);
    watched.bench.write(".pleach/file", b"x");
    watched.bench.write("f", b"x");
    watched.wait_for(&[written("f")]);
    assert!(
        watched
            .hints
            .take()
            .iter()
            .all(|dirty| *dirty == written("f") || *dirty == Dirty::Name(path("f")))
    );
}

#[test]
fn directory_that_a_user_moved_is_followed_without_being_listed() {
    let mut watched = Watched::new(&["", "d", "d/sub"]);
    std::fs::rename(watched.bench.at("d"), watched.bench.at("e")).unwrap();
    watched.wait_for(&[Dirty::Directory(path("e")), Dirty::Directory(path("e/sub"))]);
    std::fs::rename(watched.bench.at("e"), watched.bench.at("f")).unwrap();
    watched.wait_for(&[Dirty::Directory(path("f")), Dirty::Directory(path("f/sub"))]);
    watched.bench.write("f/sub/x", b"x");
    watched.wait_for(&[written("f/sub/x")]);
    assert_eq!(watched.watcher.watched_count(), 3);
}

#[test]
fn directory_that_we_moved_is_watched_under_its_new_path() {
    let mut watched = Watched::new(&["", "d", "d/sub"]);
    std::fs::rename(watched.bench.at("d"), watched.bench.at("e")).unwrap();
    watched.watcher.moved(&path("d"), &path("e"));
    watched.wait_for(&[Dirty::Directory(path("e")), Dirty::Directory(path("e/sub"))]);
    watched.bench.write("e/sub/f", b"x");
    watched.wait_for(&[written("e/sub/f")]);
}

#[test]
fn directory_removed_and_made_anew_is_watched() {
    let mut watched = Watched::new(&["", "d"]);
    std::fs::remove_dir(watched.bench.at("d")).unwrap();
    std::fs::create_dir(watched.bench.at("d")).unwrap();
    watched.wait_for(&[Dirty::Directory(path("d"))]);
    watched.bench.write("d/f", b"x");
    watched.wait_for(&[written("d/f")]);
}

#[test]
fn directory_watched_before_its_predecessors_end_is_heard_stays_watched() {
    let mut watched = Watched::new(&["", "d"]);
    for round in 0..20 {
        std::fs::rename(watched.bench.at("d"), watched.bench.at("old")).unwrap();
        std::fs::create_dir(watched.bench.at("d")).unwrap();
        watched.watcher.watch(&path("d"));
        watched.watcher.watch(&path("old"));
        watched.bench.write("marker", b"x");
        watched.wait_for(&[removed("d"), written("old"), written("marker")]);
        let file = format!("d/f{round}");
        watched.bench.write(&file, b"x");
        watched.wait_for(&[written(&file)]);
        std::fs::remove_dir_all(watched.bench.at("old")).unwrap();
    }
}

#[test]
fn root_that_moves_is_heard_of() {
    let mut watched = Watched::new(&[""]);
    let (from, to) = (watched.bench.at(""), watched.bench.scratch.path().join("moved"));
    std::fs::rename(from, to).unwrap();
    watched.wait_for(&[Dirty::RootGone]);
}

#[test]
fn state_that_is_removed_is_heard_of() {
    let mut watched = Watched::new(&[""]);
    std::fs::rename(watched.bench.at(".pleach"), watched.bench.scratch.path().join("s")).unwrap();
    watched.wait_for(&[Dirty::RootGone]);
}

#[test]
fn what_an_effect_left_is_an_echo_until_somebody_changes_it() {
    let mut watched = Watched::new(&["", "d"]);
    let echoes = watched.bench.disk.echoes().clone();
    let ours = |name, bytes: &[u8]| put(name, Expected::Absent, bytes);
    let batch =
        [ours("d/f", b"ours"), ours("d/g", b"ours too"), ours("d/.pleachignore", b"*.tmp\n")];
    for outcome in watched.bench.disk.apply(&batch) {
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    }
    let rules = written("d/.pleachignore");
    let heard = [written("d/f"), written("d/g"), rules.clone()];
    watched.wait_for(&heard);
    // The rules are read anew when they are looked at.
    assert_eq!(echoes.leave_out(heard.to_vec()), [rules]);
    // A mode alone is a change, and so is a file of the same bytes in the place of ours.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    std::fs::set_permissions(watched.bench.at("d/f"), mode).unwrap();
    watched.bench.write("other", b"ours too");
    std::fs::rename(watched.bench.at("other"), watched.bench.at("d/g")).unwrap();
    let heard = vec![written("d/f"), written("d/g")];
    watched.wait_for(&heard);
    assert_eq!(echoes.leave_out(heard.clone()), heard);
    // What is not there any more is none.
    std::fs::remove_file(watched.bench.at("d/f")).unwrap();
    assert_eq!(echoes.leave_out(vec![removed("d/f")]), [removed("d/f")]);
}
