//! One engine over a disk in memory, driven by hand.

mod absent;
mod copied;
mod failed;
mod follow;
mod staged;

use super::*;
use crate::replica::LocalChange;
use crate::replica::Replica;
use crate::testing::VirtualDisk;
use crate::values::{
    Act, Acts, ChangeId, DirectoryIndex, DirectoryRef, FileContent, Message, Outcome, ProblemKind,
    SeenDirectory, SeenNodes, Signature, SignedChange, TreeView as _,
};
use crate::vocabulary::{Mode, Name, StoreId, Timestamp, WriterId, Xattrs};

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
    /// Whether effects are told of as failed, although they are done.
    fails: bool,
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
        let mut bench = Self { engine, disk, now: 0, records, fails: false };
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
                        let mut outcomes: Vec<Outcome> =
                            effects.iter().map(|effect| self.disk.perform(effect)).collect();
                        if self.fails {
                            outcomes.fill(Outcome::Failed(not_synced()));
                        }
                        inputs.push(Input::Applied(outcomes));
                    }
                    Output::Persist(records) => self.records.extend(records),
                    _ => {}
                }
            }
        }
    }

    /// Hands an input in; what follows is done by whoever called, but for records.
    fn outputs(&mut self, input: Input) -> Vec<Output> {
        let now = Moment { monotonic_ms: self.now, unix_ms: 0 };
        self.engine.handle(now, input);
        let mut outputs = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Persist(records) => self.records.extend(records),
                output => outputs.push(output),
            }
        }
        outputs
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
        let changes = Changes::Stored { snapshot: None, log };
        Stored { changes, base, intents, ..Stored::default() }
    }

    /// The changes that are stored.
    fn log(&self) -> Vec<SignedChange> {
        let Changes::Stored { log, .. } = self.stored().changes else { unreachable!() };
        log
    }

    /// Starts again on what was stored once and has been copied here, and is alone.
    fn start_on_copy(&mut self, stored: Stored) {
        self.start_on_copy_among(stored, Vec::new());
    }

    /// The same, with another master that has these changes.
    fn start_on_copy_among(&mut self, mut stored: Stored, changes: Vec<SignedChange>) {
        stored.intents.push((COPIED_HERE, Vec::new()));
        let intent = Record::Intent { id: COPIED_HERE, row: Some(Vec::new()) };
        self.records.push(intent);
        self.engine = open(43, stored);
        self.handle(Input::Tick);
        if !changes.is_empty() {
            let other = MasterId([2; 32]);
            let writer = WriterId::new(other, [0xff; 8]);
            let there = Replica::open(writer, None, changes.clone()).unwrap();
            let (known, heads) = (there.version_vector().clone(), there.heads_hash());
            self.handle(Input::PeerCame(other));
            self.pass(200);
            self.handle(Input::Received(other, Message::Have { known, heads }));
            let contents = Vec::new();
            self.handle(Input::Received(other, Message::Changes { changes, contents }));
        }
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

fn not_synced() -> Problem {
    Problem { kind: ProblemKind::Io, path: path("f"), reason: "it was not synced".to_owned() }
}

/// A change of the other master, who does what `acts` makes of an entry of the root, in that.
fn done_there<const N: usize>(
    bench: &Bench,
    name: &str,
    acts: impl FnOnce(SeenNodes) -> [Act; N],
) -> Vec<SignedChange> {
    let other = MasterId([2; 32]);
    let log = bench.log();
    let writer = WriterId::new(other, (log.len() as u64).to_le_bytes());
    let mut replica = Replica::open(writer, None, log).unwrap();
    let tree = replica.tree();
    let entry = tree.entry(tree.lookup(&path(name)).unwrap()).unwrap().nodes;
    let root = SeenDirectory { parent: None, directory: DirectoryRef::Root };
    let acts = Acts { directories: vec![root], acts: acts(entry).into() };
    let signed = |LocalChange { id, bytes }| SignedChange {
        id,
        author: other,
        signature: Signature::new(&[0; 64]),
        bytes,
    };
    replica.perform(&acts).0.changes.into_iter().map(signed).collect()
}

/// The same, and `f` was edited on both: "theirs" on the other master, "mine" here.
fn with_a_conflict() -> Bench {
    let mut bench = with_two_files();
    let content =
        FileContent { hash: ContentHash::of(b"theirs"), size: 6, mtime: Timestamp::default() };
    let inherits = smallvec::SmallVec::new();
    let directory = DirectoryIndex(0);
    let changes =
        done_there(&bench, "f", |entry| [Act::Edit { directory, entry, content, inherits }]);
    edit(&mut bench, "f", b"mine");
    let contents = vec![(content.hash, b"theirs".to_vec())];
    bench.handle(Input::Received(MasterId([2; 32]), Message::Changes { changes, contents }));
    bench.pass(10_000);
    assert_eq!(bench.engine.replica().conflicts().len(), 1);
    bench
}

fn edit(bench: &mut Bench, name: &str, bytes: &[u8]) {
    assert!(bench.disk.save(&path(name), bytes));
    bench.handle(Input::Hints(vec![Hint::Written(path(name))]));
    bench.pass(10_000);
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
