//! Fuzzing: arbitrary bytes at the gate of a small document.
//!
//! A fuzzer would never find a checksum, so it works on the bytes after the header, which are sealed
//! here. Seeds are such bodies that are admitted.

use std::sync::OnceLock;

use super::wire;
use crate::replica::document::{Document, Draft};
use crate::replica::schema;
use crate::replica::{Birth, Content, Place, Register, Value};
use crate::values::{Body, ChangeId, FileContent};
use crate::vocabulary::{
    Attributes, ContentHash, MasterId, Name, NodeId, Timestamp, WriterId, Xattrs,
};

/// What became of fuzzed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fuzzed {
    /// The gate let nothing in.
    Refused,
    /// The gate let it in, and the document loads again.
    Admitted,
}

/// Lets a change with this body at the gate of a small document, whoever it says wrote it.
///
/// Panics if the gate does, or if what it admits makes the engine panic or leaves a document that does
/// not load again as it was. Anything else would be a finding.
pub fn fuzz_bytes(body: &[u8]) -> Fuzzed {
    let bytes = wire::seal(body);
    let (base, _) = sample();
    let Ok(expanded) = wire::read(&bytes) else { return Fuzzed::Refused };
    let Some(writer) = schema::writer(&expanded.actor_id) else { return Fuzzed::Refused };
    let id = ChangeId { writer, sequence: expanded.seq };
    let mut document = base.clone();
    if document.admit(id, &bytes).is_err() || document.known() == base.known() {
        return Fuzzed::Refused;
    }
    let loaded = Document::load(&document.save(), &mut |_| {}).expect("what was admitted loads");
    assert_eq!(loaded.heads(), document.heads());
    assert_eq!(loaded.known(), document.known());
    Fuzzed::Admitted
}

/// Bodies of changes that [`fuzz_bytes`] admits, to start from.
#[must_use]
pub fn fuzz_seeds() -> Vec<Vec<u8>> {
    sample().1.clone()
}

/// A document of two writers with a conflict, and changes that fit it.
fn sample() -> &'static (Document, Vec<Vec<u8>>) {
    static SAMPLE: OnceLock<(Document, Vec<Vec<u8>>)> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let mut a = Document::new();
        a.set_writer(WriterId::new(MasterId([1; 32]), [1; 8]));
        let mut nodes = (NodeId::ROOT, NodeId::ROOT);
        write(&mut a, |draft| {
            nodes.0 = draft.birth(birth(NodeId::ROOT, "d", directory())).0;
            nodes.1 = draft.birth(birth(nodes.0, "f", file(1))).0;
        });
        let mut b = Document::load(&a.save(), &mut |_| {}).expect("just saved");
        b.set_writer(WriterId::new(MasterId([2; 32]), [2; 8]));
        let (d, f) = nodes;
        write(&mut a, |draft| {
            draft.register(f, Register::Content, content(2));
        });
        let concurrent = write(&mut b, |draft| {
            draft.register(f, Register::Content, content(3));
        });
        a.admit(concurrent.0, &concurrent.1).expect("a change of our own making");

        let seeds: [&dyn Fn(&mut Draft<'_>); 4] = [
            &|draft| {
                draft.register(f, Register::Content, content(4));
                draft.register(d, Register::Place, Value::Place(place(NodeId::ROOT, "e")));
                draft.register(d, Register::Place, Value::Place(place(NodeId::ROOT, "g")));
            },
            &|draft| {
                let (e, _) = draft.birth(birth(d, "e", directory()));
                draft.birth(birth(e, "h", file(5)));
                draft.register(f, Register::Deleted, Value::Deleted(None));
            },
            &|draft| {
                for n in 0..260 {
                    draft.birth(birth(d, &n.to_string(), file(6)));
                }
            },
            &|draft| {
                draft.setting("conflicts", b"hidden".to_vec());
            },
        ];
        let bodies = seeds.iter().flat_map(|seed| {
            let (_, mine) = write(&mut a.clone(), seed);
            let (_, others) = write(&mut b.clone(), seed);
            [mine, others].map(|bytes| wire::body(&bytes).expect("a change").to_vec())
        });
        let bodies = bodies.collect();
        (a, bodies)
    })
}

fn write(document: &mut Document, mut write: impl FnMut(&mut Draft<'_>)) -> (ChangeId, Vec<u8>) {
    let mut draft = document.begin();
    write(&mut draft);
    let committed = draft.commit().expect("well-formed").expect("not empty");
    (committed.id, committed.bytes)
}

fn place(parent: NodeId, name: &str) -> Place {
    Place { parent, name: Name::try_from(name).expect("a plain name") }
}

fn birth(parent: NodeId, name: &str, body: Body) -> Birth {
    let mode = Attributes::with_mode(0o644).mode;
    Birth { place: place(parent, name), body, mode, owner: None, xattrs: Xattrs::new() }
}

fn directory() -> Body {
    Body::Directory { mtime: Timestamp::default() }
}

fn file(n: u8) -> Body {
    Body::File(FileContent { hash: ContentHash([n; 32]), size: 1, mtime: Timestamp::default() })
}

fn content(n: u8) -> Value {
    Value::Content(Content { body: file(n), carried: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::super::{Verdict, check_bytes};
    use super::*;
    use crate::replica::Update;
    use crate::testing::search::cases;
    use crate::vocabulary::Kind;
    use automerge::{ExpandedChange, ScalarValue, legacy};
    use proptest::prelude::*;

    #[test]
    fn all_seeds_are_admitted() {
        for (n, seed) in fuzz_seeds().iter().enumerate() {
            assert_eq!(fuzz_bytes(seed), Fuzzed::Admitted, "seed {n}");
        }
    }

    fn mutated() -> impl Strategy<Value = Vec<u8>> {
        let mutation = (any::<proptest::sample::Index>(), any::<u8>(), 0..4_u8);
        let mutations = proptest::collection::vec(mutation, 1..4);
        (any::<proptest::sample::Index>(), mutations).prop_map(|(seed, mutations)| {
            let mut body = seed.get(&fuzz_seeds()).clone();
            for (at, byte, how) in mutations {
                let at = at.index(body.len().max(1));
                match how {
                    0 => body.truncate(at),
                    1 => body.insert(at.min(body.len()), byte),
                    2 if at < body.len() => drop(body.remove(at)),
                    _ => body.get_mut(at).into_iter().for_each(|old| *old = byte),
                }
            }
            body
        })
    }

    /// An edit of the ops of a change: (op, another op, what to do, with which number).
    type Edit = (prop::sample::Index, prop::sample::Index, u8, u8);

    /// Seeds with their ops edited, well encoded: nothing but their meaning can be wrong.
    fn crafted() -> impl Strategy<Value = Vec<u8>> {
        let index = any::<prop::sample::Index>;
        let edit = (index(), index(), 0..11_u8, any::<u8>());
        let edits = proptest::collection::vec(edit, 1..3);
        (any::<prop::sample::Index>(), edits).prop_map(|(seed, edits): (_, Vec<Edit>)| {
            let bytes = wire::seal(seed.get::<Vec<u8>>(&fuzz_seeds()));
            let mut change = wire::read(&bytes).unwrap();
            for (at, other, what, n) in edits {
                let count = change.operations.len();
                edit_change(&mut change, at.index(count), other.index(count), what, n);
            }
            let bytes = automerge::Change::from(change).raw_bytes().to_vec();
            wire::body(&bytes).unwrap().to_vec()
        })
    }

    fn edit_change(change: &mut ExpandedChange, at: usize, other: usize, what: u8, n: u8) {
        let other = change.operations[other].clone();
        let count = change.operations.len();
        let op = &mut change.operations[at];
        match what {
            0 => op.action = other.action,
            1 => op.pred = other.pred,
            2 => op.pred = legacy::SortedVec::new(),
            3 => op.key = other.key,
            4 => op.obj = other.obj,
            5 => change.operations.push(other),
            6 if count > 1 => drop(change.operations.remove(at)),
            7 => {
                let near = change.start_op.get().saturating_sub(u64::from(n % 8)) + 2;
                op.pred = vec![legacy::OpId(near, change.actor_id.clone())].into();
            }
            8 => change.start_op = change.start_op.saturating_add(u64::from(n % 3)),
            9 => drop(change.deps.pop()),
            _ => {
                if let legacy::OpType::Put(ScalarValue::Bytes(bytes)) = &mut op.action {
                    let at = usize::from(n) % bytes.len().max(1);
                    bytes.get_mut(at).into_iter().for_each(|byte| *byte = byte.wrapping_add(1));
                }
            }
        }
    }

    /// The sample, and the same with a change more, by a writer who has seen all of it.
    fn less_and_more() -> &'static (Document, Document) {
        static DOCUMENTS: OnceLock<(Document, Document)> = OnceLock::new();
        DOCUMENTS.get_or_init(|| {
            let (less, _) = sample();
            let mut nodes = Vec::new();
            let mut more = Document::load(&less.save(), &mut |update| {
                if let Update::Born(node, written) = update {
                    nodes.push((node, written.value.body.kind()));
                }
            })
            .unwrap();
            more.set_writer(WriterId::new(MasterId([3; 32]), [3; 8]));
            write(&mut more, |draft| {
                draft.setting("conflicts", b"siblings".to_vec());
                for &(node, kind) in &nodes {
                    draft.register(node, Register::Deleted, Value::Deleted(None));
                    let (register, value) = match kind {
                        Kind::File => (Register::Content, content(9)),
                        _ => (Register::Place, Value::Place(place(NodeId::ROOT, "z"))),
                    };
                    draft.register(node, register, value);
                }
            });
            (less.clone(), more)
        })
    }

    /// Sends mutated bodies to documents of which one knows more; the verdict must be one.
    fn check_alike(body: &[u8]) -> Result<(), TestCaseError> {
        let bytes = wire::seal(body);
        let Ok(expanded) = wire::read(&bytes) else { return Ok(()) };
        let Some(writer) = schema::writer(&expanded.actor_id) else { return Ok(()) };
        let id = ChangeId { writer, sequence: expanded.seq };
        let (less, more) = less_and_more();
        let verdict = |document| {
            check_bytes(id, &bytes, document).map(|verdict| match verdict {
                Verdict::Admitted(checked) => Some(checked.seen),
                Verdict::Held | Verdict::Orphaned(_) => None,
            })
        };
        prop_assert_eq!(verdict(less), verdict(more));
        Ok(())
    }

    #[test]
    fn seeds_are_admitted_whatever_else_is_known() {
        fuzz_seeds().iter().for_each(|seed| check_alike(seed).unwrap());
    }

    proptest! {
        #![proptest_config(cases(1000))]
        #[test]
        fn the_verdict_does_not_depend_on_what_else_is_known(body in crafted()) {
            check_alike(&body)?;
        }

        #[test]
        fn crafted_changes_never_panic_and_what_is_admitted_loads_again(body in crafted()) {
            fuzz_bytes(&body);
        }

        #[test]
        fn mutated_changes_never_panic_and_what_is_admitted_loads_again(body in mutated()) {
            fuzz_bytes(&body);
        }

        #[test]
        fn arbitrary_bytes_never_panic(body: Vec<u8>) {
            fuzz_bytes(&body);
        }
    }
}
