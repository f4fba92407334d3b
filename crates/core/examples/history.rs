//! History: what was done to a tree, the versions that a file has had, and how one of them comes back.
//!
//! A replica works out what a change did when somebody asks; the embedder keeps the changes, which it has to
//! keep anyway, and the bytes. Run it with `cargo run -p pleach-core --example history`.

use std::error::Error;

use pleach_core::replica::{Local, PastMoment, Replica};
use pleach_core::values::{
    Act, Acts, Body, Deed, DirectoryIndex, DirectoryRef, FileContent, Restoring, SeenDirectory,
    SeenNodes, Signature, SignedChange, TreeView, What,
};
use pleach_core::vocabulary::{
    ContentHash, MasterId, Mode, Name, Timestamp, TreePath, WriterId, Xattrs,
};

const MASTER: MasterId = MasterId([1; 32]);

/// A replica with the log of its changes, the oldest first.
struct Store {
    replica: Replica,
    log: Vec<SignedChange>,
    clock_ms: i64,
}

impl Store {
    fn new() -> Self {
        let replica = Replica::new(WriterId::new(MASTER, [7; 8])); // random at every start
        Self { replica, log: Vec::new(), clock_ms: 1_700_000_000_000 }
    }

    fn record(&mut self, local: Local) {
        self.log.extend(local.changes.into_iter().map(|change| SignedChange {
            id: change.id,
            author: MASTER,
            bytes: change.bytes,
            signature: Signature::new(&[0; 64]),
        }));
    }

    /// Performs one act in the root directory, a minute after the last.
    fn act(&mut self, act: Act) {
        self.clock_ms += 60_000;
        self.replica.set_time(self.clock_ms);
        let root = SeenDirectory { parent: None, directory: DirectoryRef::Root };
        let (local, _) = self.replica.perform(&Acts { directories: vec![root], acts: vec![act] });
        self.record(local);
    }

    fn entry(&self, path: &TreePath) -> Result<SeenNodes, Box<dyn Error>> {
        let tree = self.replica.tree();
        let entry = tree.lookup(path).and_then(|node| tree.entry(node));
        Ok(entry.ok_or("no such file")?.nodes)
    }

    /// What was done, the last thing first.
    fn history(&self) -> impl Iterator<Item = (PastMoment, Deed)> + '_ {
        self.log.iter().rev().flat_map(|change| {
            let moment = PastMoment::after(change);
            let deeds = moment.and_then(|moment| Ok((moment, self.replica.deeds(change)?)));
            // It would not be in the log if it could not be read.
            let deeds = deeds.into_iter();
            deeds.flat_map(|(moment, deeds)| deeds.map(move |deed| (moment, deed)))
        })
    }
}

fn content(text: &str) -> FileContent {
    let mtime = Timestamp { seconds: 1_700_000_000, nanos: 0 };
    FileContent { hash: ContentHash::of(text.as_bytes()), size: text.len() as u64, mtime }
}

/// What a deed left the file with, if it wrote to it.
fn version(deed: &Deed) -> Option<&Body> {
    match &deed.what {
        What::Created { body, .. } => Some(body),
        What::Edited { after, .. } | What::Resolved { after, .. } => Some(after),
        What::Restored { after, .. } => after.as_ref(),
        _ => None,
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut store = Store::new();
    let (directory, to) = (DirectoryIndex(0), DirectoryIndex(0));
    let (draft, page) = (TreePath::parse(b"draft")?, TreePath::parse(b"page")?);

    // A file is made, edited, renamed and removed.
    store.act(Act::Create {
        directory,
        name: Name::try_from("draft")?,
        body: Body::File(content("one")),
        mode: Mode::new(0o640),
        owner: None,
        xattrs: Xattrs::new(),
    });
    let node = store.entry(&draft)?[0].node;
    let (entry, inherits) = (store.entry(&draft)?, Default::default());
    store.act(Act::Edit { directory, entry, content: content("one and two"), inherits });
    let (entry, name) = (store.entry(&draft)?, Name::try_from("page")?);
    store.act(Act::Move { from: directory, entry, to, name });
    let entry = store.entry(&page)?;
    store.act(Act::Remove { directory, entry });
    assert_eq!(store.replica.tree().lookup(&page), None);

    // Who asks what happened is told, under the names that it had then.
    for (_, deed) in store.history() {
        let path = deed.path.as_ref().map_or("?".to_owned(), ToString::to_string);
        println!("{} {path}: {:?}", deed.time_ms, deed.what);
    }
    let told: Vec<_> = store.history().map(|(_, deed)| deed).collect();
    assert!(matches!(told[0].what, What::Deleted { .. }));
    assert!(matches!(&told[1].what, What::Moved { from: Some(from) } if *from == draft));
    assert_eq!(told[2].path, Some(draft));

    // Its versions, the newest first; the oldest shall be there again.
    let of_file = store.history().filter(|(_, deed)| deed.node == node && version(deed).is_some());
    let (moment, _) = of_file.last().ok_or("it was never written")?;
    let former = store.replica.as_of(node, moment).ok_or("that is not known")?;
    assert_eq!(former.body, Body::File(content("one")));
    let wanted = Restoring { node, body: Some(former.body), mode: former.mode };
    let local = store.replica.restore(&[wanted]);
    store.record(local);

    // It is the same file as before, at its last name, with its history.
    let entry = store.replica.tree().entry(node).ok_or("it is there again")?;
    assert_eq!(store.replica.tree().lookup(&page), Some(node));
    assert_eq!((entry.body, entry.attributes.mode), (Body::File(content("one")), Mode::new(0o640)));
    let last = store.history().next().ok_or("it was restored just now")?.1;
    assert!(matches!(last.what, What::Restored { .. }));
    println!("{page} is there again");
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn former_version_is_found_and_comes_back() {
        super::main().unwrap();
    }
}
