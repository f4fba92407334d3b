//! One engine over a disk in memory, driven by hand.

use super::*;
use crate::testing::VirtualDisk;
use crate::values::{Signature, TreeView as _};
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
