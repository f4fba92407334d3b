//! A master as whoever embeds the core has one: a replica, the log of its signed changes, and what a user does on
//! it.

#![allow(dead_code, reason = "each of the tests uses a part of it")]

use pleach_core::replica::{Local, Replica};
use pleach_core::values::{
    Act, Acts, Body, DirectoryIndex, DirectoryRef, FileContent, Member, SeenDirectory, SeenNodes,
    Signature, SignedChange, TreeView as _,
};
use pleach_core::vocabulary::{
    ContentHash, MasterId, Mode, Name, Timestamp, TreePath, WriterId, Xattrs,
};

/// The founder of every store here.
pub(crate) const A: MasterId = MasterId([1; 32]);
pub(crate) const B: MasterId = MasterId([2; 32]);

pub(crate) const DIRECTORY: Body = Body::Directory { mtime: Timestamp { seconds: 0, nanos: 0 } };

pub(crate) struct Master {
    pub(crate) id: MasterId,
    pub(crate) replica: Replica,
    /// Its own changes and those of others, as they came.
    pub(crate) log: Vec<SignedChange>,
}

pub(crate) fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

/// A file that holds these bytes.
pub(crate) fn file(bytes: impl AsRef<[u8]>) -> FileContent {
    let (bytes, mtime) = (bytes.as_ref(), Timestamp { seconds: 1_700_000_000, nanos: 0 });
    FileContent { hash: ContentHash::of(bytes), size: bytes.len() as u64, mtime }
}

impl Master {
    pub(crate) fn new(id: MasterId) -> Self {
        Self { id, replica: Replica::new(WriterId::new(id, [7; 8])), log: Vec::new() }
    }

    /// Signs what this one did.
    pub(crate) fn publish(&mut self, local: Local) {
        assert_eq!(local.changes.len(), local.marks.len());
        let (author, signature) = (self.id, Signature::new(&[0; 64]));
        self.log.extend(local.changes.into_iter().map(|change| SignedChange {
            id: change.id,
            author,
            bytes: change.bytes,
            signature,
        }));
    }

    /// Writes a member down.
    pub(crate) fn admit(&mut self, master: MasterId, name: &str) {
        let local = self.replica.set_member(Member {
            master,
            name: name.to_owned(),
            addresses: Vec::new(),
            invited_by: A,
            signature: Signature::new(&[0; 64]),
            removed: false,
        });
        self.publish(local);
    }

    /// Both hear of all that the other knows.
    pub(crate) fn meet(&mut self, other: &mut Self) {
        self.take(&other.log);
        other.take(&self.log);
    }

    /// Hears of these changes.
    pub(crate) fn take(&mut self, log: &[SignedChange]) {
        let lacks = |change: &&SignedChange| !self.log.contains(change);
        let new: Vec<_> = log.iter().filter(lacks).cloned().collect();
        let merged = self.replica.receive(new, A);
        assert!(merged.refused.is_empty(), "{:?}", merged.refused);
        self.log.extend(merged.applied);
    }

    pub(crate) fn entry(&self, at: &str) -> SeenNodes {
        let tree = self.replica.tree();
        tree.entry(tree.lookup(&path(at)).unwrap()).unwrap().nodes
    }

    /// Acts below these directories, each in the one before.
    pub(crate) fn act(&mut self, below: &[&str], act: impl FnOnce(DirectoryIndex) -> Act) {
        let below = below.iter().map(|at| self.entry(at)).collect();
        self.act_below(below, act);
    }

    /// The same with the directories as they were seen.
    pub(crate) fn act_below(
        &mut self,
        below: Vec<SeenNodes>,
        act: impl FnOnce(DirectoryIndex) -> Act,
    ) {
        let mut directories = vec![SeenDirectory { parent: None, directory: DirectoryRef::Root }];
        for seen in below {
            let parent = Some(DirectoryIndex(directories.len() as u32 - 1));
            directories.push(SeenDirectory { parent, directory: DirectoryRef::Seen(seen) });
        }
        let act = act(DirectoryIndex(directories.len() as u32 - 1));
        let (local, _) = self.replica.perform(&Acts { directories, acts: vec![act] });
        self.publish(local);
    }

    pub(crate) fn create(&mut self, below: &[&str], name: &str, body: Body) {
        self.act(below, |directory| creation(directory, name, body));
    }

    pub(crate) fn edit(&mut self, below: &[&str], at: &str, text: &str) {
        let (entry, content, inherits) = (self.entry(at), file(text), Default::default());
        self.act(below, |directory| Act::Edit { directory, entry, content, inherits });
    }

    pub(crate) fn remove(&mut self, below: &[&str], at: &str) {
        let entry = self.entry(at);
        self.act(below, |directory| Act::Remove { directory, entry });
    }
}

/// The making of something with the mode that a umask leaves.
pub(crate) fn creation(directory: DirectoryIndex, name: &str, body: Body) -> Act {
    let name = Name::try_from(name).unwrap();
    let (mode, owner, xattrs) = (Mode::new(0o644), None, Xattrs::new());
    Act::Create { directory, name, body, mode, owner, xattrs }
}
