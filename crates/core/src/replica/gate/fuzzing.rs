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
    use super::*;
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
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
