//! Deeds as an embedder sees them: what changes did, with what was there before.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use pleach_core::replica::{Local, Replica};
use pleach_core::values::{
    Act, Acts, Body, Choice, Deed, DirectoryIndex, DirectoryRef, FileContent, Member,
    SeenDirectory, SeenNodes, Signature, SignedChange, TreeView, What,
};
use pleach_core::vocabulary::{
    ContentHash, MasterId, Mode, Name, Timestamp, TreePath, WriterId, Xattrs,
};

const A: MasterId = MasterId([1; 32]);
const B: MasterId = MasterId([2; 32]);

struct Master {
    id: MasterId,
    replica: Replica,
    log: Vec<SignedChange>,
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn file(text: &str) -> FileContent {
    let mtime = Timestamp { seconds: 1_700_000_000, nanos: 0 };
    FileContent { hash: ContentHash::of(text.as_bytes()), size: text.len() as u64, mtime }
}

impl Master {
    fn new(id: MasterId) -> Self {
        Self { id, replica: Replica::new(WriterId::new(id, [7; 8])), log: Vec::new() }
    }

    fn publish(&mut self, local: Local) {
        assert_eq!(local.changes.len(), local.marks.len());
        let (author, signature) = (self.id, Signature::new(&[0; 64]));
        self.log.extend(local.changes.into_iter().map(|change| SignedChange {
            id: change.id,
            author,
            bytes: change.bytes,
            signature,
        }));
    }

    fn meet(&mut self, other: &mut Self) {
        self.take_from(other);
        other.take_from(self);
    }

    fn take_from(&mut self, other: &Self) {
        let lacks = |change: &&SignedChange| !self.log.contains(change);
        let new: Vec<_> = other.log.iter().filter(lacks).cloned().collect();
        let merged = self.replica.receive(new, A);
        assert!(merged.refused.is_empty(), "{:?}", merged.refused);
        self.log.extend(merged.applied);
    }

    fn entry(&self, at: &str) -> SeenNodes {
        let tree = self.replica.tree();
        tree.entry(tree.lookup(&path(at)).unwrap()).unwrap().nodes
    }

    /// Acts below these directories, each in the one before.
    fn act(&mut self, below: &[&str], act: impl FnOnce(DirectoryIndex) -> Act) {
        let mut directories = vec![SeenDirectory { parent: None, directory: DirectoryRef::Root }];
        for at in below {
            let parent = Some(DirectoryIndex(directories.len() as u32 - 1));
            directories
                .push(SeenDirectory { parent, directory: DirectoryRef::Seen(self.entry(at)) });
        }
        let act = act(DirectoryIndex(below.len() as u32));
        let (local, _) = self.replica.perform(&Acts { directories, acts: vec![act] });
        self.publish(local);
    }

    fn create(&mut self, below: &[&str], name: &str, body: Body) {
        let name = Name::try_from(name).unwrap();
        let (mode, owner, xattrs) = (Mode::new(0o644), None, Xattrs::new());
        self.act(below, |directory| Act::Create { directory, name, body, mode, owner, xattrs });
    }

    fn edit(&mut self, below: &[&str], at: &str, text: &str) {
        let (entry, content, inherits) = (self.entry(at), file(text), Default::default());
        self.act(below, |directory| Act::Edit { directory, entry, content, inherits });
    }

    /// What the last change did, in a few words.
    fn last(&self) -> Vec<String> {
        self.replica.deeds(self.log.last().unwrap()).unwrap().map(|deed| told(&deed)).collect()
    }
}

fn told(deed: &Deed) -> String {
    let size = |body: &Option<Body>| match body {
        Some(Body::File(content)) => content.size.to_string(),
        Some(_) => "something".to_owned(),
        None => "nothing".to_owned(),
    };
    let path = deed.path.as_ref().map_or("?".to_owned(), ToString::to_string);
    let what = match &deed.what {
        What::Created { body, mode } => {
            format!("created {} {:o}", size(&Some(body.clone())), mode.bits())
        }
        What::Edited { before, after } => {
            format!("edited {} to {}", size(before), size(&Some(after.clone())))
        }
        What::Resolved { before, after } => {
            format!("resolved {} to {}", size(before), size(&Some(after.clone())))
        }
        What::Moved { from } => {
            format!("moved from {}", from.as_ref().map_or("?".to_owned(), ToString::to_string))
        }
        What::ModeChanged { before, after } => {
            format!("mode {:o} to {:o}", before.map_or(0, |mode| mode.bits()), after.bits())
        }
        What::Deleted { body } => format!("deleted {}", size(body)),
        other => format!("{other:?}"),
    };
    let above = deed.within.len();
    format!("{path}: {what}, {above} above")
}

#[test]
fn deed_tells_what_was_there_before_and_what_it_was_called_then() {
    let mut a = Master::new(A);
    let body = Body::Directory { mtime: Timestamp::default() };
    a.create(&[], "d", body.clone());
    a.create(&["d"], "e", body);
    a.create(&["d", "d/e"], "f", Body::File(file("one")));
    assert_eq!(a.last(), ["d/e/f: created 3 644, 2 above"]);
    let created = a.log.last().unwrap().clone();
    a.edit(&["d", "d/e"], "d/e/f", "three");
    assert_eq!(a.last(), ["d/e/f: edited 3 to 5, 2 above"]);
    let edited = a.log.last().unwrap().clone();

    let (entry, name) = (a.entry("d/e"), Name::try_from("x").unwrap());
    a.act(&["d"], |from| Act::Move { from, entry, to: DirectoryIndex(0), name });
    // Of a move out of a directory, those that were above before count too.
    assert_eq!(a.last(), ["x: moved from d/e, 1 above"]);
    let (entry, name) = (a.entry("x/f"), Name::try_from("g").unwrap());
    a.act(&["x"], |directory| Act::Move { from: directory, entry, to: directory, name });
    assert_eq!(a.last(), ["x/g: moved from x/f, 2 above"]);
    let (entry, mode) = (a.entry("x/g"), Mode::new(0o600));
    a.act(&["x"], |directory| Act::SetMode { directory, entry, mode });
    assert_eq!(a.last(), ["x/g: mode 644 to 600, 1 above"]);
    let entry = a.entry("x/g");
    a.act(&["x"], |directory| Act::Remove { directory, entry });
    assert_eq!(a.last(), ["x/g: deleted 5, 1 above"]);

    // What was done before the renames is told with the names from then.
    let tell = |change| told(&a.replica.deeds(change).unwrap().next().unwrap());
    assert_eq!(tell(&created), "d/e/f: created 3 644, 2 above");
    assert_eq!(tell(&edited), "d/e/f: edited 3 to 5, 2 above");
    // What is no more is found by what it was called last.
    let node = a.replica.deeds(&created).unwrap().next().unwrap().node;
    assert_eq!(a.replica.tree().ever_at(&path("x/g")), [node]);
    assert_eq!(a.replica.tree().ever_at(&path("d/e/f")), []);
    a.create(&["x"], "g", Body::File(file("new")));
    assert_eq!(a.replica.tree().ever_at(&path("x/g")), [a.entry("x/g")[0].node, node]);
}

#[test]
fn end_of_a_conflict_is_told_from_an_edit_that_carries_it_along() {
    let (mut a, mut b) = (Master::new(A), Master::new(B));
    let (founder, name) = (A, "b".into());
    let signature = Signature::new(&[0; 64]);
    let local = a.replica.set_member(Member {
        master: B,
        name,
        addresses: vec![],
        invited_by: founder,
        signature,
        removed: false,
    });
    a.publish(local);
    a.create(&[], "f", Body::File(file("1")));
    a.meet(&mut b);
    a.edit(&[], "f", "22");
    b.edit(&[], "f", "333");
    a.meet(&mut b);
    assert_eq!(a.replica.conflicts().len(), 1);
    let stood = a.replica.conflicts()[0].versions[0].body.clone();
    let Body::File(stood) = stood else { panic!("a file") };
    a.edit(&[], "f", "4444");
    assert_eq!(a.last(), [format!("f: edited {} to 4, 0 above", stood.size)]);
    let local = a.replica.resolve(&path("f"), &Choice::KeepStanding).unwrap();
    a.publish(local);
    assert_eq!(a.last(), ["f: resolved 4 to 4, 0 above"]);
    a.edit(&[], "f", "55555");
    assert_eq!(a.last(), ["f: edited 4 to 5, 0 above"]);
    a.meet(&mut b);
    let on_b: Vec<_> =
        b.log.iter().map(|change| b.replica.deeds(change).unwrap().count()).collect();
    // The first one wrote the member down.
    assert_eq!(on_b, [0, 1, 1, 1, 1, 1, 1]);
}
