//! One engine over a disk in memory, driven by hand.

use super::*;
use crate::replica::Replica;
use crate::testing::VirtualDisk;
use crate::values::{ChangeId, Message, ProblemKind, Signature, SignedChange, TreeView as _};
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
}

impl Bench {
    fn new() -> Self {
        let master = MasterId([1; 32]);
        let identity = Identity {
            store: StoreId([0; 32]),
            founder: master,
            master,
            writer: WriterId::new(master, [42; 8]),
            signer: Box::new(NoKey),
        };
        let engine = Engine::open(identity, Stored::default()).unwrap();
        let mut bench = Self { engine, disk: VirtualDisk::default(), now: 0 };
        bench.handle(Input::SetMember(Member {
            master,
            name: "web1".into(),
            addresses: vec![],
            invited_by: master,
            signature: Signature::new(&[0; 64]),
            removed: false,
        }));
        bench
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
