//! Opening a root.

use std::process::Command;

use super::*;
use crate::disk::durable::Durability;

#[test]
fn second_daemon_on_one_root_is_refused() {
    let bench = Bench::new();
    assert!(matches!(Root::open(&bench.at("")), Err(RootError::Locked(_))));
}

#[test]
fn store_is_made_once_and_keeps_its_incarnation() {
    let bench = Bench::new();
    assert!(matches!(Root::init(&bench.at("")), Err(RootError::AlreadyAStore(_))));
    let incarnation = bench.disk.root().incarnation();
    let Bench { scratch, disk } = bench;
    drop(disk);
    let root = Root::open(&scratch.path().join("store")).unwrap();
    assert_eq!(root.incarnation(), incarnation);
    assert_eq!(mode_of(&scratch.path().join("store/.pleach")), 0o700);
}

#[test]
fn directory_without_state_is_not_a_store() {
    let scratch = tempfile::tempdir().unwrap();
    assert!(matches!(Root::open(scratch.path()), Err(RootError::NotAStore(_))));
    assert!(matches!(Root::open(&scratch.path().join("nowhere")), Err(RootError::Open { .. })));
}

#[test]
fn store_inside_a_store_is_refused() {
    let bench = Bench::new();
    bench.write("d/f", b"x");
    assert!(matches!(Root::init(&bench.at("d")), Err(RootError::Nested { .. })));
    let above = Root::find_above(&bench.at("d").canonicalize().unwrap());
    assert_eq!(above, Some(bench.disk.root().path().to_owned()));
}

#[test]
fn root_is_still_there_until_it_is_replaced() {
    let bench = Bench::new();
    assert_eq!(bench.disk.root().still_there(), Ok(()));
    std::fs::rename(bench.at(""), bench.scratch.path().join("moved")).unwrap();
    assert!(bench.disk.root().still_there().is_err());
    std::fs::rename(bench.scratch.path().join("moved"), bench.at("")).unwrap();
    assert_eq!(bench.disk.root().still_there(), Ok(()));
    std::fs::remove_file(bench.at(".pleach/incarnation")).unwrap();
    assert!(bench.disk.root().still_there().is_err());
}

/// An ext4 of its own in a file, mounted until this is dropped.
struct Loop(PathBuf);

impl Loop {
    /// None, with the reason printed, where nobody may mount.
    fn mount(scratch: &TempDir, name: &str, features: &str) -> Option<Self> {
        let (image, at) = (scratch.path().join(format!("{name}.img")), scratch.path().join(name));
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        std::fs::create_dir(&at).unwrap();
        let steps = [
            Command::new("mkfs.ext4").args(["-q", "-O", features]).arg(&image).output(),
            Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at).output(),
        ];
        for step in steps {
            if !step.as_ref().is_ok_and(|output| output.status.success()) {
                eprintln!("skipped: no ext4 can be mounted here: {step:?}");
                return None;
            }
        }
        Some(Self(at))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn only_a_journal_that_is_there_is_relied_on() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(with) = Loop::mount(&scratch, "with", "has_journal") else { return };
    let Some(without) = Loop::mount(&scratch, "without", "^has_journal") else { return };
    let durability = |mounted: &Loop| {
        Disk::init(&mounted.0, DiskOptions::default()).unwrap().durable.durability()
    };
    assert_eq!(durability(&with), Durability::Journal);
    assert_eq!(durability(&without), Durability::SyncAll);
}
