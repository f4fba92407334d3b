//! How fast the disk is: creates, replacements, removals and looks of 20,000 files of 4 KiB.
//!
//! `cargo bench -p pleach-daemon --bench disk [-- DIR]`; DIR must be on the file system to be measured.
//! `cp -r` and `find -newer` of the same files stand beside it for comparison.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use pleach_core::values::{
    DirectoryState, Effect, Expected, FileContent, ListRequest, Location, Look, Outcome, PutSource,
    ReadRequest,
};
use pleach_core::vocabulary::{Attributes, ContentHash, Fingerprint, Name, Timestamp, TreePath};
use pleach_daemon::disk::{Disk, DiskOptions};

const DIRECTORIES: usize = 200;
const FILES: usize = 100;
const BYTES: usize = 4096;

fn main() {
    let under = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let under = under.map_or_else(std::env::temp_dir, Into::into);
    let scratch = tempfile::tempdir_in(under).expect("a scratch directory");
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).expect("the scratch directory is new");
    let mut disk = Disk::init(&store, DiskOptions::default()).expect("a store");

    let made = measure("create in one batch", || done(&disk.apply(&creates())));
    let fingerprints: Vec<Fingerprint> = made[DIRECTORIES..].to_vec();
    let looked = measure("first look, all new", || disk.look(&look(&[])));
    let known = known(&looked.lists.iter().map(|list| &list.state).collect::<Vec<_>>());
    measure("look, all unchanged", || disk.look(&look(&known)));
    measure("read and hash", || disk.look(&reads(&fingerprints)));
    compare(scratch.path());
    let replaced = measure("replace in one batch", || done(&disk.apply(&replaces(&fingerprints))));
    measure("versions hashed", || disk.versions().settle(u64::MAX).expect("readable versions"));
    measure("remove in one batch", || done(&disk.apply(&removes(&replaced))));
    let mut last = Expected::Absent;
    let start = Instant::now();
    for round in 0..200_u32 {
        let effect = put(&path(&["single"]), last, round.to_le_bytes().to_vec());
        last = Expected::Present(done(&disk.apply(&[effect]))[0]);
    }
    println!("{:32} {:>10.3} ms each", "single save, durable", start.elapsed().as_secs_f64() * 5.0);
}

fn measure<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    let elapsed = start.elapsed().as_secs_f64();
    let files = (DIRECTORIES * FILES) as f64;
    println!(
        "{what:32} {:>10.1} ms {:>8.4} ms/file {:>9.0} files/s",
        elapsed * 1e3,
        elapsed * 1e3 / files,
        files / elapsed
    );
    result
}

fn compare(scratch: &Path) {
    let run = |what: &str, command: &str| {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command).current_dir(scratch);
        measure(what, || assert!(shell.status().expect("a shell").success(), "{command}"));
    };
    run("cp -r", "cp -r store copy");
    run("cp -r and sync", "cp -r store copy2 && sync -f copy2");
    run("find -newer", "touch mark && find store -newer mark >/dev/null");
}

fn name(text: &str) -> Name {
    Name::try_from(text).expect("a plain name")
}

fn path(names: &[&str]) -> TreePath {
    TreePath::new(names.iter().map(|part| name(part)).collect())
}

fn paths() -> impl Iterator<Item = TreePath> {
    (0..DIRECTORIES).flat_map(|directory| {
        (0..FILES).map(move |file| path(&[&format!("d{directory}"), &format!("f{file}")]))
    })
}

fn put(path: &TreePath, expected: Expected, bytes: Vec<u8>) -> Effect {
    let mtime = Timestamp { seconds: 1_700_000_000, nanos: 5 };
    Effect::PutFile {
        at: Location::Tree(path.clone()),
        expected,
        content: FileContent { hash: ContentHash::of(&bytes), size: bytes.len() as u64, mtime },
        attributes: Attributes::with_mode(0o644),
        source: PutSource::Inline(bytes.into()),
    }
}

fn bytes(index: usize, fill: u8) -> Vec<u8> {
    let mut bytes = vec![fill; BYTES];
    bytes[..8].copy_from_slice(&index.to_le_bytes());
    bytes
}

fn creates() -> Vec<Effect> {
    let directories = (0..DIRECTORIES).map(|directory| Effect::MakeDirectory {
        at: Location::Tree(path(&[&format!("d{directory}")])),
        attributes: Attributes::with_mode(0o755),
    });
    let files = paths().enumerate().map(|(n, path)| put(&path, Expected::Absent, bytes(n, 1)));
    directories.chain(files).collect()
}

fn replaces(fingerprints: &[Fingerprint]) -> Vec<Effect> {
    let with = |(n, (path, old)): (usize, (TreePath, &Fingerprint))| {
        put(&path, Expected::Present(*old), bytes(n, 2))
    };
    paths().zip(fingerprints).enumerate().map(with).collect()
}

fn removes(fingerprints: &[Fingerprint]) -> Vec<Effect> {
    let remove = |(path, old): (TreePath, &Fingerprint)| Effect::RemoveFile {
        at: Location::Tree(path),
        expected: *old,
    };
    paths().zip(fingerprints).map(remove).collect()
}

fn look(known: &[Vec<(Name, Fingerprint)>]) -> Look {
    let list = |directory: usize| ListRequest {
        path: path(&[&format!("d{directory}")]),
        only: None,
        known: known.get(directory).cloned().unwrap_or_default(),
    };
    Look { lists: (0..DIRECTORIES).map(list).collect(), reads: Vec::new() }
}

fn reads(fingerprints: &[Fingerprint]) -> Look {
    let read = |(path, fingerprint): (TreePath, &Fingerprint)| ReadRequest {
        path,
        fingerprint: *fingerprint,
    };
    Look { lists: Vec::new(), reads: paths().zip(fingerprints).map(read).collect() }
}

fn known(states: &[&DirectoryState]) -> Vec<Vec<(Name, Fingerprint)>> {
    let one = |state: &&DirectoryState| match state {
        DirectoryState::Readable { found, .. } => found
            .iter()
            .filter_map(|found| Some((found.name.clone(), *found.body.fingerprint()?)))
            .collect(),
        other => panic!("{other:?}"),
    };
    states.iter().map(one).collect()
}

fn done(outcomes: &[Outcome]) -> Vec<Fingerprint> {
    let fingerprint = |outcome: &Outcome| match outcome {
        Outcome::Done { fingerprint } => *fingerprint,
        other => panic!("{other:?}"),
    };
    outcomes.iter().map(fingerprint).collect()
}
