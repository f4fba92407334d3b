//! One engine over a disk in memory, driven by hand.

use super::*;
use crate::replica::LocalChange;
use crate::replica::Replica;
use crate::testing::VirtualDisk;
use crate::values::{
    Act, Acts, ChangeId, DirectoryIndex, DirectoryRef, FileContent, Message, ProblemKind,
    SeenDirectory, Signature, SignedChange, TreeView as _,
};
use crate::vocabulary::{StoreId, WriterId};

struct NoKey;

impl Signer for NoKey {
    fn sign(&self, _: ChangeId, _: &[u8]) -> Signature {
        Signature::new(&[0; 64])
    }
}

struct Bench {
    engine: Engine,
    disk: VirtualDisk,
    now: u64,
    records: Vec<Record>,
}

fn open(start: u8, stored: Stored) -> Engine {
    let master = MasterId([1; 32]);
    let identity = Identity {
        store: StoreId([0; 32]),
        founder: master,
        master,
        writer: WriterId::new(master, [start; 8]),
        signer: Box::new(NoKey),
    };
    Engine::open(identity, stored).unwrap()
}

impl Bench {
    fn new() -> Self {
        let master = MasterId([1; 32]);
        let engine = open(42, Stored::default());
        let (disk, records) = (VirtualDisk::default(), Vec::new());
        let mut bench = Self { engine, disk, now: 0, records };
        bench.admit(master, "web1");
        bench
    }

    fn admit(&mut self, master: MasterId, name: &str) {
        self.handle(Input::SetMember(Member {
            master,
            name: name.into(),
            addresses: vec![],
            invited_by: MasterId([1; 32]),
            signature: Signature::new(&[0; 64]),
            removed: false,
        }));
    }

    /// Hands an input in and does what follows, but for what waits for a later moment.
    fn handle(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let now = Moment { monotonic_ms: self.now, unix_ms: 0 };
            self.engine.handle(now, input);
            while let Some(output) = self.engine.poll_output() {
                match output {
                    Output::Look(look) => inputs.push(Input::Looked(self.disk.look(&look))),
                    Output::Apply(effects) => {
                        self.disk.begin_batch();
                        let outcomes = effects.iter().map(|effect| self.disk.perform(effect));
                        inputs.push(Input::Applied(outcomes.collect()));
                    }
                    Output::Persist(records) => self.records.extend(records),
                    _ => {}
                }
            }
        }
    }

    /// Lets so much time pass.
    fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(at) = self.engine.poll_timeout().filter(|&at| at <= end) {
            self.now = at.max(self.now);
            self.handle(Input::Tick);
        }
        self.now = end;
    }

    /// What is stored by now.
    fn stored(&self) -> Stored {
        let (mut log, mut base, mut intents) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for record in self.records.iter().cloned() {
            match record {
                Record::Change(change) => log.push(change),
                Record::Mark(_) => {}
                Record::Base { id, row: Some(row) } => drop(base.insert(id, row)),
                Record::Base { id, row: None } => drop(base.remove(&id)),
                Record::Intent { id, row: Some(row) } => drop(intents.insert(id, row)),
                Record::Intent { id, row: None } => drop(intents.remove(&id)),
            }
        }
        let (base, intents) = (Vec::from_iter(base), Vec::from_iter(intents));
        Stored { log, base, intents, ..Stored::default() }
    }

    /// Starts again on what was stored once and has been copied here.
    fn start_on_copy(&mut self, mut stored: Stored) {
        stored.intents.push((COPIED_HERE, Vec::new()));
        let intent = Record::Intent { id: COPIED_HERE, row: Some(Vec::new()) };
        self.records.push(intent);
        self.engine = open(43, stored);
        self.handle(Input::Tick);
        self.pass(10_000);
    }

    fn rename(&mut self, from: &str, to: &str) {
        let (from, to) = (path(from), path(to));
        assert!(self.disk.rename(&from, &to));
        self.handle(Input::Hints(vec![
            Hint::Removed(from.clone()),
            Hint::Written(to.clone()),
            Hint::Renamed(from, to),
        ]));
    }

    fn content_at(&self, path: &TreePath) -> Option<ContentHash> {
        let tree = self.engine.replica().tree();
        match tree.entry(tree.lookup(path)?)?.body {
            Body::File(content) => Some(content.hash),
            _ => None,
        }
    }
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

#[test]
fn edit_in_a_directory_that_could_not_be_looked_into_is_found_once_it_can() {
    let mut bench = Bench::new();
    assert!(bench.disk.make_directory(&path("d")));
    assert!(bench.disk.make_directory(&path("d/e")));
    assert!(bench.disk.write(&path("d/e/f"), b"old"));
    bench.handle(Input::Hints(vec![Hint::Subtree(TreePath::root())]));
    bench.pass(10_000);
    assert_eq!(bench.content_at(&path("d/e/f")), Some(ContentHash::of(b"old")));

    bench.disk.close(path("d/e"));
    assert!(bench.disk.write(&path("d/e/f"), b"new"));
    bench.handle(Input::Hints(vec![Hint::Directory(path("d/e"))]));
    bench.pass(5_000);
    let problems: Vec<_> = bench.engine.problems().map(|problem| problem.path.clone()).collect();
    assert_eq!(problems, [path("d/e")]);
    // That the directory itself is looked at, says nothing of what is in it.
    bench.handle(Input::Hints(vec![Hint::Written(path("d/e"))]));
    bench.pass(100);
    assert_eq!(bench.engine.problems().count(), 1);

    bench.disk.open_all();
    bench.pass(15_000);
    assert_eq!(bench.content_at(&path("d/e/f")), Some(ContentHash::of(b"new")));
    assert_eq!(bench.engine.problems().count(), 0);
}

fn with_two_files() -> Bench {
    let mut bench = Bench::new();
    bench.admit(MasterId([2; 32]), "web2");
    assert!(bench.disk.write(&path("f"), b"old"));
    assert!(bench.disk.write(&path("g"), b"other"));
    bench.handle(Input::Hints(vec![Hint::Subtree(TreePath::root())]));
    bench.pass(10_000);
    bench
}

/// The same, and `f` was edited on both: "theirs" on the other master, "mine" here.
fn with_a_conflict() -> Bench {
    let mut bench = with_two_files();
    let other = MasterId([2; 32]);
    let writer = WriterId::new(other, [9; 8]);
    let mut replica = Replica::open(writer, None, bench.stored().log).unwrap();
    let tree = replica.tree();
    let entry = tree.entry(tree.lookup(&path("f")).unwrap()).unwrap().nodes;
    let content = FileContent {
        hash: ContentHash::of(b"theirs"),
        size: 6,
        mtime: crate::vocabulary::Timestamp::default(),
    };
    let root = SeenDirectory { parent: None, directory: DirectoryRef::Root };
    let inherits = smallvec::SmallVec::new();
    let edit_there = Act::Edit { directory: DirectoryIndex(0), entry, content, inherits };
    let (local, _) = replica.perform(&Acts { directories: vec![root], acts: vec![edit_there] });
    let changes = local.changes.into_iter().map(|LocalChange { id, bytes }| SignedChange {
        id,
        author: other,
        signature: Signature::new(&[0; 64]),
        bytes,
    });
    edit(&mut bench, "f", b"mine");
    let contents = vec![(content.hash, b"theirs".to_vec())];
    let message = Message::Changes { changes: changes.collect(), contents };
    bench.handle(Input::Received(other, message));
    bench.pass(10_000);
    assert_eq!(bench.engine.replica().conflicts().len(), 1);
    bench
}

fn edit(bench: &mut Bench, name: &str, bytes: &[u8]) {
    assert!(bench.disk.save(&path(name), bytes));
    bench.handle(Input::Hints(vec![Hint::Written(path(name))]));
    bench.pass(10_000);
}

#[test]
fn what_differs_from_a_restored_state_replaces_nothing_of_a_conflict() {
    let mut bench = with_a_conflict();
    let standing = bench.content_at(&path("f")).expect("one of them stands");
    let backup = bench.stored();
    // As an effect for another master's change, of which the backup does not know.
    assert!(bench.disk.save(&path("f"), b"newer than the backup"));
    bench.start_on_copy(backup);
    let open = bench.engine.replica().conflicts();
    let versions: Vec<Body> =
        open.iter().flat_map(|open| &open.versions).map(|version| version.body.clone()).collect();
    assert!(
        versions.iter().any(|body| matches!(body, Body::File(f) if f.hash == standing)),
        "{versions:?}"
    );
    assert_eq!(versions.len(), 3, "{versions:?}");
    assert!(bench.stored().intents.is_empty(), "that was taken in");
    edit(&mut bench, "g", b"edited");
    assert_eq!(bench.engine.replica().conflicts().len(), 1, "and an edit is an edit again");
}

#[test]
fn what_differs_from_the_restored_state_of_a_single_master_is_an_edit() {
    let mut bench = Bench::new();
    assert!(bench.disk.write(&path("f"), b"old"));
    bench.handle(Input::Hints(vec![Hint::Subtree(TreePath::root())]));
    bench.pass(10_000);
    let backup = bench.stored();
    edit(&mut bench, "f", b"new");
    bench.start_on_copy(backup);
    assert_eq!(bench.engine.replica().conflicts(), []);
    assert_eq!(bench.content_at(&path("f")), Some(ContentHash::of(b"new")));
    assert!(bench.stored().intents.is_empty());
}

#[test]
fn disputed_file_that_is_missing_on_a_copied_machine_is_not_removed() {
    let mut bench = with_a_conflict();
    let standing = bench.content_at(&path("f")).expect("one of them stands");
    let node = bench.engine.replica().tree().lookup(&path("f")).expect("it was looked at");
    let copied = bench.stored();
    // Renamed before the first look: on the copy it has another inode than the base knows.
    assert!(bench.disk.remove(&path("f")));
    assert!(bench.disk.remove(&path("g")));
    assert!(bench.disk.write(&path("renamed"), b"mine"));
    bench.start_on_copy(copied);
    assert_eq!(bench.engine.replica().tree().lookup(&path("f")), Some(node));
    assert!(bench.engine.replica().tree().lookup(&path("renamed")).is_some());
    assert_eq!(bench.engine.replica().tree().lookup(&path("g")), None, "of it nobody disputes");
    assert!(bench.content_at(&path("f")) == Some(standing), "it is to be put back");
}

/// Two directories, `d` with two files in it, and `e`, and `d/f` renamed to `e/g` while `e` can't be looked into.
fn renamed_to_where_nobody_can_look() -> (Bench, NodeId) {
    let mut bench = Bench::new();
    assert!(bench.disk.make_directory(&path("d")));
    assert!(bench.disk.make_directory(&path("e")));
    assert!(bench.disk.write(&path("d/f"), b"one"));
    assert!(bench.disk.write(&path("d/other"), b"other"));
    bench.handle(Input::Hints(vec![Hint::Subtree(TreePath::root())]));
    bench.pass(10_000);
    let node = bench.engine.replica().tree().lookup(&path("d/f")).expect("it was looked at");
    bench.disk.close(path("e"));
    bench.rename("d/f", "e/g");
    (bench, node)
}

#[test]
fn file_renamed_to_where_nobody_could_look_for_a_moment_is_the_same_file() {
    for ms in [45, 100, 500, 2_500] {
        let (mut bench, node) = renamed_to_where_nobody_can_look();
        bench.pass(ms);
        bench.disk.open_all();
        bench.pass(2_000);
        let tree = bench.engine.replica().tree();
        assert_eq!(tree.lookup(&path("e/g")), Some(node), "after {ms} ms");
        assert_eq!(tree.lookup(&path("d/f")), None);
    }
}

#[test]
fn what_cannot_be_looked_at_for_long_keeps_nothing_from_being_removed() {
    let (mut bench, node) = renamed_to_where_nobody_can_look();
    bench.pass(5_000);
    assert!(bench.engine.replica().tree().entry(node).is_none(), "it is gone, as far as is known");
    bench.disk.remove(&path("d/other"));
    bench.handle(Input::Hints(vec![Hint::Removed(path("d/other"))]));
    bench.pass(200);
    assert_eq!(bench.content_at(&path("d/other")), None, "and this goes at once");
}

#[test]
fn what_is_gone_is_removed_in_the_end_although_ever_more_cannot_be_looked_at() {
    let (mut bench, _) = renamed_to_where_nobody_can_look();
    bench.disk.remove(&path("d/other"));
    bench.handle(Input::Hints(vec![Hint::Removed(path("d/other"))]));
    for number in 0..20 {
        let closed = path(&format!("closed{number}"));
        assert!(bench.disk.make_directory(&closed));
        bench.disk.close(closed.clone());
        bench.handle(Input::Hints(vec![Hint::Written(closed)]));
        bench.pass(250);
    }
    assert_eq!(bench.content_at(&path("d/other")), None);
}

/// Two changes of another start of the founder, the first with a value of a later version in it.
fn changes_of_a_later_version() -> Vec<SignedChange> {
    let master = MasterId([1; 32]);
    let mut replica = Replica::new(WriterId::new(master, [43; 8]));
    let locals = ["one", "two"].map(|value| replica.set_setting("conflicts", value.as_bytes()));
    let changes = locals.into_iter().flat_map(|local| local.changes);
    let signature = Signature::new(&[0; 64]);
    let mut changes: Vec<_> = changes
        .map(|change| SignedChange {
            id: change.id,
            author: master,
            bytes: change.bytes,
            signature,
        })
        .collect();
    let mut first = automerge::Change::from_bytes(changes[0].bytes.clone()).unwrap().decode();
    let automerge::legacy::OpType::Put(automerge::ScalarValue::Bytes(bytes)) =
        &mut first.operations[0].action
    else {
        panic!("a setting is bytes")
    };
    bytes[0] += 1;
    changes[0].bytes = automerge::Change::from(first).raw_bytes().to_vec();
    changes
}

#[test]
fn what_a_later_version_wrote_is_said_once_and_not_asked_for_again_and_again() {
    let mut bench = Bench::new();
    let peer = MasterId([2; 32]);
    bench.handle(Input::PeerCame(peer));
    let mut asked = 0;
    for _ in 0..10 {
        let changes = changes_of_a_later_version();
        let message = Message::Changes { changes, contents: Vec::new() };
        let now = Moment { monotonic_ms: bench.now, unix_ms: 0 };
        bench.engine.handle(now, Input::Received(peer, message));
        while let Some(output) = bench.engine.poll_output() {
            asked += usize::from(matches!(output, Output::Send(_, Message::Have { .. })));
            let refused = matches!(output, Output::Event(Event::Refused { .. }));
            assert!(!refused, "it is no offence: {output:?}");
        }
    }
    assert_eq!(asked, 1, "told the same, the other would send the same");
    let problems: Vec<_> = bench.engine.problems().collect();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].kind, ProblemKind::LaterChange);
    assert!(problems[0].reason.contains("web1") && problems[0].reason.contains("upgrade"));
}
