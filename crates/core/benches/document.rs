//! What the document costs: taking in changes, large imports, loading and saving.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use pleach_core::replica::document::Document;
use pleach_core::replica::{Birth, Place, Register, Value};
use pleach_core::values::{Body, FileContent, Signature, SignedChange};
use pleach_core::vocabulary::{
    ContentHash, MasterId, Mode, Name, NodeId, Timestamp, WriterId, Xattrs,
};

const NODES: usize = 100_000;
const IMPORT: usize = 20_000;

fn main_document(master: u8) -> Document {
    let mut document = Document::new();
    document.set_writer(WriterId::new(MasterId([master; 32]), [master; 8]));
    document
}

fn birth(parent: NodeId, n: usize) -> Birth {
    let name = format!("IMG_{n:06}.jpeg");
    let mtime = Timestamp { seconds: 1_700_000_000 + n as i64, nanos: 123_456_789 };
    Birth {
        place: Place { parent, name: Name::try_from(name.as_str()).expect("a plain name") },
        body: Body::File(FileContent { hash: ContentHash::of(&n.to_le_bytes()), size: 1, mtime }),
        mode: Mode::new(0o644),
        owner: None,
        xattrs: Xattrs::new(),
    }
}

fn import(document: &mut Document, count: usize) -> (SignedChange, Vec<NodeId>) {
    let mut draft = document.begin();
    let nodes = (0..count).map(|n| draft.birth(birth(NodeId::ROOT, n)).0).collect();
    let committed = draft.commit().expect("well-formed").expect("not empty");
    (signed(committed), nodes)
}

fn signed(committed: pleach_core::replica::document::Committed) -> SignedChange {
    let mut author = [0; 32];
    author.fill(committed.id.writer.0[8]);
    SignedChange {
        id: committed.id,
        author: MasterId(author),
        bytes: committed.bytes,
        signature: Signature::new(&[0; 64]),
    }
}

/// Two documents of the same 100,000 nodes.
fn pair() -> (Document, Document, Vec<NodeId>) {
    let (mut a, mut b) = (main_document(1), main_document(2));
    let mut nodes = Vec::new();
    for _ in 0..NODES / IMPORT {
        let (change, born) = import(&mut a, IMPORT);
        assert_eq!(b.receive([change]).landed.len(), 1);
        nodes.extend(born);
    }
    (a, b, nodes)
}

fn touch(document: &mut Document, node: NodeId, n: i64) -> SignedChange {
    let mut draft = document.begin();
    draft.register(node, Register::Touch, Value::Touch(Timestamp { seconds: n, nanos: 0 }));
    signed(draft.commit().expect("well-formed").expect("not empty"))
}

fn single_changes(criterion: &mut Criterion) {
    let (mut a, mut b, nodes) = pair();
    let mut n = 0;
    criterion.bench_function("receive one op into 100,000 nodes", |bencher| {
        bencher.iter_batched(
            || {
                n += 1;
                touch(&mut a, nodes[n * 7919 % nodes.len()], n as i64)
            },
            |change| assert_eq!(b.receive([change]).landed.len(), 1),
            BatchSize::PerIteration,
        );
    });
    criterion.bench_function("commit one op into 100,000 nodes", |bencher| {
        bencher.iter(|| {
            n += 1;
            black_box(touch(&mut a, nodes[n * 7919 % nodes.len()], n as i64))
        });
    });
}

fn imports(criterion: &mut Criterion) {
    let empty = main_document(1);
    let mut group = criterion.benchmark_group("import of 20,000");
    group.sample_size(10);
    group.bench_function("commit", |bencher| {
        bencher.iter_batched(
            || empty.clone(),
            |mut document| black_box(import(&mut document, IMPORT)),
            BatchSize::PerIteration,
        );
    });
    let (change, _) = import(&mut empty.clone(), IMPORT);
    group.bench_function("receive", |bencher| {
        bencher.iter_batched(
            || (Document::new(), change.clone()),
            |(mut document, change)| assert_eq!(document.receive([change]).landed.len(), 1),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn snapshots(criterion: &mut Criterion) {
    let (a, _, _) = pair();
    let bytes = a.save();
    let mut group = criterion.benchmark_group("snapshot of 100,000");
    group.sample_size(10);
    group.bench_function("save", |bencher| bencher.iter(|| black_box(a.save())));
    group.bench_function("load", |bencher| {
        bencher.iter(|| {
            let mut updates = 0;
            Document::load(&bytes, &mut |_| updates += 1).expect("just saved");
            assert_eq!(updates, NODES);
        });
    });
    group.finish();
}

criterion_group!(benches, single_changes, imports, snapshots);
criterion_main!(benches);
