//! Tests on real directories. `Bench` is a store in a scratch directory, with short ways to say things.

mod applying;
mod attributes;
mod guarding;
mod ignoring;
mod keeping;
mod looking;
mod rooting;
mod watching;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use pleach_core::values::{
    DirectoryState, Effect, Expected, FileContent, Found, ListRequest, Location, Look, Outcome,
    PutSource, ReadRequest, ReadState,
};
use pleach_core::vocabulary::{Attributes, ContentHash, Fingerprint, Name, Timestamp, TreePath};
use tempfile::TempDir;

use super::*;

pub(super) const MTIME: Timestamp = Timestamp { seconds: 1_000_000_000, nanos: 123_456_789 };

/// A store in a scratch directory.
pub(super) struct Bench {
    pub(super) scratch: TempDir,
    pub(super) disk: Disk,
}

impl Bench {
    pub(super) fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::create_dir(scratch.path().join("store")).unwrap();
        let disk = Disk::init(&scratch.path().join("store"), DiskOptions::default()).unwrap();
        Self { scratch, disk }
    }

    /// An absolute path in the store.
    pub(super) fn at(&self, relative: &str) -> PathBuf {
        self.scratch.path().join("store").join(relative)
    }

    pub(super) fn write(&self, relative: &str, bytes: &[u8]) {
        std::fs::create_dir_all(self.at(relative).parent().unwrap()).unwrap();
        std::fs::write(self.at(relative), bytes).unwrap();
    }

    pub(super) fn read(&self, relative: &str) -> String {
        String::from_utf8(std::fs::read(self.at(relative)).unwrap()).unwrap()
    }

    pub(super) fn exists(&self, relative: &str) -> bool {
        self.at(relative).symlink_metadata().is_ok()
    }

    /// The names in a directory of the state, sorted.
    pub(super) fn state_names(&self, relative: &str) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.at(".pleach").join(relative))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "index")
            .collect();
        names.sort();
        names
    }

    pub(super) fn fingerprint(&self, relative: &str) -> Fingerprint {
        let parsed = path(relative);
        let (parent, name) = parsed.split_last().unwrap();
        let listed = self.disk_list(&parent);
        let found = listed.into_iter().find(|found| found.name == *name).unwrap();
        *found.body.fingerprint().unwrap()
    }

    fn disk_list(&self, directory: &TreePath) -> Vec<Found> {
        let request = ListRequest { path: directory.clone(), only: None, known: Vec::new() };
        match self.disk.list(&request).state {
            DirectoryState::Readable { found, .. } => found,
            other => panic!("{directory}: {other:?}"),
        }
    }

    pub(super) fn list(&mut self, directory: &str) -> DirectoryState {
        self.list_knowing(directory, &[])
    }

    pub(super) fn list_knowing(
        &mut self,
        directory: &str,
        known: &[(Name, Fingerprint)],
    ) -> DirectoryState {
        let request = ListRequest { path: path(directory), only: None, known: known.to_vec() };
        let mut looked = self.disk.look(&Look { lists: vec![request], reads: Vec::new() });
        looked.lists.remove(0).state
    }

    pub(super) fn read_as(&mut self, relative: &str, fingerprint: Fingerprint) -> ReadState {
        let request = ReadRequest { path: path(relative), fingerprint };
        let mut looked = self.disk.look(&Look { lists: Vec::new(), reads: vec![request] });
        looked.reads.remove(0)
    }

    pub(super) fn apply_one(&mut self, effect: Effect) -> Outcome {
        self.disk.apply(&[effect]).remove(0)
    }
}

pub(super) fn path(relative: &str) -> TreePath {
    TreePath::parse(relative.as_bytes()).unwrap()
}

pub(super) fn tree(relative: &str) -> Location {
    Location::Tree(path(relative))
}

pub(super) fn name(text: &str) -> Name {
    Name::try_from(text).unwrap()
}

pub(super) fn content(bytes: &[u8]) -> FileContent {
    FileContent { hash: ContentHash::of(bytes), size: bytes.len() as u64, mtime: MTIME }
}

pub(super) fn put(relative: &str, expected: Expected, bytes: &[u8]) -> Effect {
    Effect::PutFile {
        at: tree(relative),
        expected,
        content: content(bytes),
        attributes: Attributes::with_mode(0o644),
        source: PutSource::Inline(bytes.into()),
    }
}

pub(super) fn make_directory(relative: &str) -> Effect {
    Effect::MakeDirectory { at: tree(relative), attributes: Attributes::with_mode(0o755) }
}

pub(super) fn done(outcome: &Outcome) -> Fingerprint {
    match outcome {
        Outcome::Done { fingerprint } => *fingerprint,
        other => panic!("{other:?}"),
    }
}

/// What was found in a readable directory: name and a word for what it is.
pub(super) fn described(state: &DirectoryState) -> Vec<String> {
    use pleach_core::values::FoundBody;
    let DirectoryState::Readable { found, gone, .. } = state else { panic!("{state:?}") };
    let describe = |found: &Found| {
        let word = match &found.body {
            FoundBody::Directory { .. } => "directory".to_owned(),
            FoundBody::File { .. } => "file".to_owned(),
            FoundBody::Symlink { target, .. } => {
                format!("-> {}", String::from_utf8_lossy(target.as_bytes()))
            }
            FoundBody::Ignored => "ignored".to_owned(),
            FoundBody::Skipped(problem) => format!("{:?}", problem.kind),
        };
        format!("{} {word}", found.name)
    };
    found.iter().map(describe).chain(gone.iter().map(|name| format!("{name} gone"))).collect()
}

pub(super) fn mode_of(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

pub(super) fn mtime_of(path: &Path) -> (i64, i64) {
    let metadata = path.symlink_metadata().unwrap();
    (metadata.mtime(), metadata.mtime_nsec())
}

pub(super) fn parked(id: u64, relative: &str) -> Location {
    Location::Parked(pleach_core::values::ParkingId(id), path(relative))
}

pub(super) fn move_to(from: Location, to: Location, expected: Fingerprint) -> Effect {
    Effect::Move { from, to, expected }
}

pub(super) fn remove_file(relative: &str, expected: Fingerprint) -> Effect {
    Effect::RemoveFile { at: tree(relative), expected }
}
