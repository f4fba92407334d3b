//! What the derived tree costs: to build, to keep up to date at a million nodes, and in memory.
//!
//! Memory is what the system says is resident before and after; run alone for honest figures:
//! `cargo bench -p pleach-core --bench tree`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use pleach_core::replica::{
    Birth, Causality, Content, Place, Register, Tree, Update, Value, Written,
};
use pleach_core::values::{Body, ChangeId, FileContent};
use pleach_core::vocabulary::{
    ContentHash, Mode, Name, NodeId, Stamp, Timestamp, WriterId, Xattrs,
};

const FILES_PER_DIRECTORY: u64 = 20;

struct Sequential;

impl Causality for Sequential {
    fn saw(&self, later: ChangeId, earlier: ChangeId) -> bool {
        later.sequence >= earlier.sequence
    }

    fn change_of(&self, stamp: Stamp) -> Option<ChangeId> {
        Some(ChangeId { writer: stamp.writer, sequence: stamp.counter })
    }
}

fn written<T>(counter: u64, value: T) -> Written<T> {
    let stamp = Stamp { counter, writer: WriterId([1; 16]) };
    Written { stamp, sequence: counter, value }
}

fn node(counter: u64) -> NodeId {
    match counter {
        0 => NodeId::ROOT,
        _ => NodeId::born_at(written(counter, ()).stamp),
    }
}

fn name(text: String) -> Name {
    Name::new(text.into_bytes()).expect("a plain name")
}

fn file(counter: u64) -> Body {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&counter.to_le_bytes());
    let mtime = Timestamp { seconds: 1_700_000_000, nanos: 0 };
    Body::File(FileContent { hash: ContentHash(hash), size: 4096, mtime })
}

/// Every 21st node is a directory, ten of them in each; the others are its files.
fn birth(counter: u64) -> Update {
    let group = FILES_PER_DIRECTORY + 1;
    let (above, body, name) = match counter % group {
        1 => {
            let directory = counter / group;
            let above = if directory == 0 { 0 } else { (directory - 1) / 10 * group + 1 };
            let body = Body::Directory { mtime: Timestamp::default() };
            (above, body, name(format!("directory-{counter}")))
        }
        0 => (counter - group + 1, file(counter), name(format!("file-{counter}.html"))),
        file_number => {
            (counter - file_number + 1, file(counter), name(format!("file-{counter}.html")))
        }
    };
    let place = Place { parent: node(above), name };
    let (mode, owner, xattrs) = (Mode::new(0o644), None, Xattrs::new());
    Update::Born(node(counter), written(counter, Birth { place, body, mode, owner, xattrs }))
}

fn build(nodes: u64) -> Tree {
    let mut tree = Tree::new();
    for start in (1..=nodes).step_by(10_000) {
        let updates = (start..(start + 10_000).min(nodes + 1)).map(birth).collect();
        black_box(tree.absorb(updates, &Sequential));
    }
    tree
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

fn removal(tree: &Tree, counter: u64, next: u64) -> Update {
    let seen = tree.seen(node(counter)).expect("it was born");
    let observed = seen.places.into_iter().chain(seen.contents).collect();
    let above = tree.above(node(counter));
    let deletion = pleach_core::replica::Deletion { observed, above, unseen: Vec::new() };
    let value = written(next, Value::Deleted(Some(deletion)));
    Update::Register(node(counter), Register::Deleted, vec![value])
}

fn memory() {
    let million = 1_000_000;
    let before = resident_bytes();
    let mut tree = build(million);
    let built = resident_bytes();
    println!("{} bytes a node, 1,000,000 nodes", (built - before) / million);
    for start in (1..=million).step_by(10_000) {
        let removals = (start..start + 10_000).map(|node| removal(&tree, node, million + 1));
        let removals = removals.collect();
        black_box(tree.absorb(removals, &Sequential));
    }
    println!("{} bytes a node, all deleted", (resident_bytes() - before) / million);
}

fn costs(criterion: &mut Criterion) {
    memory();
    let mut group = criterion.benchmark_group("tree");
    group.sample_size(10);
    group.bench_function("build 100,000 nodes", |bencher| {
        let updates = || (1..=100_000).map(birth).collect::<Vec<_>>();
        bencher.iter_batched(
            updates,
            |updates| Tree::new().absorb(updates, &Sequential),
            BatchSize::PerIteration,
        );
    });

    let mut tree = build(1_000_000);
    let mut next: u64 = 1_000_000;
    let mut numbers = std::iter::repeat_with(move || {
        next += 1;
        next
    });
    let mut random = move |limit: u64| {
        let number = numbers.next().unwrap_or(0);
        (number, number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % limit)
    };
    group.bench_function("edit one file of 1,000,000", |bencher| {
        bencher.iter(|| {
            let (next, which) = random(47_000);
            let content = Content { body: file(next), carried: Vec::new() };
            let value = written(next, Value::Content(content));
            let node = node(which * 21 + 5);
            tree.absorb(vec![Update::Register(node, Register::Content, vec![value])], &Sequential)
        });
    });
    group.bench_function("create one file among 1,000,000", |bencher| {
        bencher.iter(|| {
            let (next, which) = random(47_000);
            let place = Place { parent: node(which * 21 + 1), name: name(next.to_string()) };
            let (mode, owner, xattrs) = (Mode::new(0o644), None, Xattrs::new());
            let birth = Birth { place, body: file(next), mode, owner, xattrs };
            tree.absorb(vec![Update::Born(node(next), written(next, birth))], &Sequential)
        });
    });
    group.bench_function("rename a directory of 200,000 nodes", |bencher| {
        bencher.iter(|| {
            let (next, _) = random(1);
            let parent = node((next % 2) * 22);
            let place = Place { parent, name: name(next.to_string()) };
            let update = Update::DirectoryPlace(node(21 * 2 + 1), written(next, place));
            tree.absorb(vec![update], &Sequential)
        });
    });
    group.finish();
}

criterion_group!(benches, costs);
criterion_main!(benches);
