//! An embedder: one tree on two in-memory replicas, a conflict that it hears of, and its resolution.
//!
//! No disk, no network, no clock: what travels between the replicas is up to you.
//! Run it with `cargo run -p pleach-core --example embed`.

use std::error::Error;

use pleach_core::replica::{Local, Replica};
use pleach_core::values::{
    Act, Acts, Body, Choice, DirectoryIndex, DirectoryRef, FileContent, Member, SeenDirectory,
    Signature, SignedChange, TreeView,
};
use pleach_core::vocabulary::{
    ContentHash, MasterId, Mode, Name, Timestamp, TreePath, WriterId, Xattrs,
};

/// A replica and whose it is.
struct Site {
    master: MasterId,
    replica: Replica,
}

const FOUNDER: MasterId = MasterId([1; 32]);
const OTHER: MasterId = MasterId([2; 32]);

impl Site {
    /// `nonce` must be fresh and random at every start; an example may do with a constant.
    fn new(master: MasterId, nonce: u8) -> Self {
        Self { master, replica: Replica::new(WriterId::new(master, [nonce; 8])) }
    }

    /// Changes as they would travel. A real embedder signs them, and checks what it receives.
    fn seal(&self, local: Local) -> Vec<SignedChange> {
        let seal = |change: pleach_core::replica::LocalChange| SignedChange {
            id: change.id,
            author: self.master,
            bytes: change.bytes,
            signature: Signature::new(&[0; 64]),
        };
        local.changes.into_iter().map(seal).collect()
    }

    /// Performs one act in the root directory.
    fn act(&mut self, act: Act) -> Vec<SignedChange> {
        let root = SeenDirectory { parent: None, directory: DirectoryRef::Root };
        let acts = Acts { directories: vec![root], acts: vec![act] };
        let (local, _) = self.replica.perform(&acts);
        self.seal(local)
    }

    fn create(&mut self, name: &str, text: &str) -> Result<Vec<SignedChange>, Box<dyn Error>> {
        Ok(self.act(Act::Create {
            directory: DirectoryIndex(0),
            name: Name::try_from(name)?,
            body: Body::File(content(text)),
            mode: Mode::new(0o644),
            owner: None,
            xattrs: Xattrs::new(),
        }))
    }

    fn edit(&mut self, path: &TreePath, text: &str) -> Result<Vec<SignedChange>, Box<dyn Error>> {
        let tree = self.replica.tree();
        let node = tree.lookup(path).ok_or("no such file")?;
        let entry = tree.entry(node).ok_or("not in the tree")?.nodes;
        Ok(self.act(Act::Edit {
            directory: DirectoryIndex(0),
            entry,
            content: content(text),
            inherits: Default::default(),
        }))
    }

    /// Merges, and tells of conflicts as they open and close: answers how many did.
    fn receive(&mut self, changes: Vec<SignedChange>) -> usize {
        let merged = self.replica.receive(changes, FOUNDER);
        assert!(merged.refused.is_empty(), "{:?}", merged.refused);
        for &node in &merged.delta.conflicts_changed {
            let open = self.replica.conflicts_at(node);
            if open.is_empty() {
                println!("what was in conflict is settled");
            }
            for conflict in open {
                println!("{} is in conflict ({:?}):", conflict.path, conflict.kind);
                for version in conflict.versions {
                    let stands = if version.stands { "stands" } else { "open" };
                    println!("  {} by {:?}, {stands}", version.stamp, version.master);
                }
            }
        }
        merged.delta.conflicts_changed.len()
    }
}

fn content(text: &str) -> FileContent {
    FileContent {
        hash: ContentHash::of(text.as_bytes()),
        size: text.len() as u64,
        mtime: Timestamp { seconds: 1_700_000_000, nanos: 0 },
    }
}

fn member(master: MasterId, name: &str) -> Member {
    Member {
        master,
        name: name.to_owned(),
        addresses: Vec::new(),
        invited_by: FOUNDER,
        signature: Signature::new(&[0; 64]),
        removed: false,
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut a, mut b) = (Site::new(FOUNDER, 7), Site::new(OTHER, 8));

    // The founder writes itself down and lets the other in.
    for (master, name) in [(FOUNDER, "web1"), (OTHER, "web2")] {
        let local = a.replica.set_member(member(master, name));
        let changes = a.seal(local);
        b.receive(changes);
    }

    // A file, on both.
    let path = TreePath::parse(b"index.html")?;
    let changes = a.create("index.html", "hello")?;
    b.receive(changes);
    assert_eq!(a.replica.tree().lookup(&path), b.replica.tree().lookup(&path));

    // Both edit it, and neither has seen the other's edit.
    let from_a = a.edit(&path, "hello from a")?;
    let from_b = b.edit(&path, "hello from b")?;
    assert_eq!((a.receive(from_b), b.receive(from_a)), (1, 1));
    assert_eq!(a.replica.conflicts(), b.replica.conflicts());
    let open = &a.replica.conflicts()[0];
    let ancestor = a.replica.ancestor(open).ok_or("nothing is known of what was before")?;
    assert_eq!(ancestor.body, Body::File(content("hello")));

    // One of them decides for a version, for both.
    let chosen = open.versions.iter().find(|version| !version.stands).ok_or("nothing is open")?;
    let choice = Choice::Keep(chosen.stamp);
    let local = a.replica.resolve(&path, &choice)?;
    let changes = a.seal(local);
    assert_eq!(b.receive(changes), 1);
    assert!(a.replica.conflicts().is_empty() && b.replica.conflicts().is_empty());

    // The next time, one of them edits the file so that it has something of both, and keeps that.
    let from_a = a.edit(&path, "hello again from a")?;
    let from_b = b.edit(&path, "hello again from b")?;
    a.receive(from_b);
    b.receive(from_a);
    assert!(b.replica.merged(&path).is_err(), "nobody has edited it since");
    let mut changes = b.edit(&path, "hello again from a and b")?;
    let local = b.replica.resolve(&path, &Choice::Keep(b.replica.merged(&path)?))?;
    changes.extend(b.seal(local));
    a.receive(changes);
    assert!(a.replica.conflicts().is_empty() && b.replica.conflicts().is_empty());
    assert_eq!(a.replica.heads_hash(), b.replica.heads_hash());
    println!("both have the same tree and no conflict");
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn conflicts_are_heard_of_and_settled() {
        super::main().unwrap();
    }
}
