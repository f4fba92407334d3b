//! Random histories of three masters: what is written where, who hears what in which order, who restarts.

use proptest::prelude::*;

use super::tests::{body, directory, document, file, place};
use super::*;
use crate::replica::{Content, Deletion, Value};
use crate::testing::search::cases;
use crate::values::Signature;
use crate::vocabulary::Mode;

const MASTERS: usize = 3;

/// One step of a history. Indices are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    /// A master makes nodes and writes registers, in one change.
    Write { master: usize, births: Vec<(usize, bool)>, writes: Vec<(usize, u8, u8)> },
    /// A master makes as many files at once as make a batch.
    Import { master: usize, directory: usize },
    /// A master hears some of all changes, the newest first or last.
    Hear { master: usize, skip: Vec<bool>, newest_first: bool },
    /// A master is saved and loaded, and is another writer from then on.
    Restart { master: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let births = proptest::collection::vec((any::<usize>(), any::<bool>()), 0..4);
    let writes = proptest::collection::vec((any::<usize>(), 0..6_u8, any::<u8>()), 0..6);
    let skip = proptest::collection::vec(prop::bool::weighted(0.2), 1..8);
    let step = prop_oneof![
        6 => (0..MASTERS, births, writes)
            .prop_map(|(master, births, writes)| Step::Write { master, births, writes }),
        1 => (0..MASTERS, any::<usize>())
            .prop_map(|(master, directory)| Step::Import { master, directory }),
        5 => (0..MASTERS, skip, any::<bool>())
            .prop_map(|(master, skip, newest_first)| Step::Hear { master, skip, newest_first }),
        1 => (0..MASTERS).prop_map(|master| Step::Restart { master }),
    ];
    proptest::collection::vec(step, 1..25)
}

/// What updates have told, and no more.
#[derive(Clone, Debug, Default, PartialEq)]
struct Mirror {
    births: BTreeMap<NodeId, Written<crate::replica::Birth>>,
    places: BTreeMap<(NodeId, Stamp), Written<crate::replica::Place>>,
    registers: BTreeMap<(NodeId, Register), Vec<Written<Value>>>,
}

impl Mirror {
    fn hear(&mut self, update: Update) {
        match update {
            Update::Born(node, written) => {
                assert!(self.births.insert(node, written).is_none(), "born once");
            }
            Update::DirectoryPlace(node, written) => {
                let before = self.places.insert((node, written.stamp), written);
                assert!(before.is_none(), "told once");
            }
            Update::Register(node, register, values) => {
                assert!(!values.is_empty() && values.is_sorted_by(|a, b| a.stamp < b.stamp));
                self.registers.insert((node, register), values);
            }
        }
    }

    fn of(document: &Document) -> Self {
        let mut mirror = Self::default();
        Document::load(&document.save(), &mut |update| mirror.hear(update)).unwrap();
        mirror
    }
}

struct World {
    documents: Vec<Document>,
    mirrors: Vec<Mirror>,
    log: Vec<SignedChange>,
    /// What the author of each change in the log had seen.
    seen: Vec<VersionVector>,
    restarts: u8,
}

impl World {
    fn new() -> Self {
        let documents = (1..=MASTERS).map(|n| document(n as u8)).collect();
        let mirrors = vec![Mirror::default(); MASTERS];
        Self { documents, mirrors, log: Vec::new(), seen: Vec::new(), restarts: 100 }
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Write { master, births, writes } => self.write(master, &births, &writes),
            Step::Import { master, directory } => self.import(master, directory),
            Step::Hear { master, skip, newest_first } => {
                let heard = self.log.iter().enumerate();
                let heard = heard.filter(|(n, _)| !skip[n % skip.len()]).map(|(_, c)| c.clone());
                let mut heard: Vec<SignedChange> = heard.collect();
                if newest_first {
                    heard.reverse();
                }
                self.hear(master, heard);
            }
            Step::Restart { master } => {
                self.restarts += 1;
                let old = &self.documents[master];
                let mut mirror = Mirror::default();
                let mut new =
                    Document::load(&old.save(), &mut |update| mirror.hear(update)).unwrap();
                assert_eq!((new.known(), new.heads()), (old.known(), old.heads()));
                assert_eq!(mirror, self.mirrors[master], "loaded as it was told");
                let id = MasterId([master as u8 + 1; 32]);
                new.set_writer(WriterId::new(id, [self.restarts; 8]));
                self.documents[master] = new;
            }
        }
    }

    fn nodes(&self, master: usize, wanted: Kind) -> Vec<NodeId> {
        let births = self.mirrors[master].births.iter();
        births.filter(|(_, w)| w.value.body.kind() == wanted).map(|(node, _)| *node).collect()
    }

    fn write(&mut self, master: usize, births: &[(usize, bool)], writes: &[(usize, u8, u8)]) {
        let mut directories = self.nodes(master, Kind::Directory);
        directories.push(NodeId::ROOT);
        let mut files = self.nodes(master, Kind::File);
        self.commit(master, |draft| {
            for &(parent, makes_directory) in births {
                let parent = directories[parent % directories.len()];
                if makes_directory {
                    directories.push(draft.birth(directory(parent, "d")).0);
                } else {
                    files.push(draft.birth(file(parent, "f", b"")).0);
                }
            }
            for &(node, register, n) in writes {
                let directories = &directories;
                let at = |n: usize| directories[n % directories.len()];
                let (node, parent) = match files.get(node % (files.len() + directories.len())) {
                    Some(file) => (*file, at(usize::from(n))),
                    None => (at(node), at(usize::from(n))),
                };
                let is_file = files.contains(&node);
                let (register, value) = match register {
                    0 if node != NodeId::ROOT && node != parent => {
                        (Register::Place, Value::Place(place(parent, &n.to_string())))
                    }
                    1 if is_file => {
                        let content = Content { body: body(&[n]), carried: Vec::new() };
                        (Register::Content, Value::Content(content))
                    }
                    2 if node != NodeId::ROOT => {
                        let (observed, unseen) = (Default::default(), Vec::new());
                        let deletion = Deletion { observed, above: vec![parent], unseen };
                        (Register::Deleted, Value::Deleted((n % 2 == 0).then_some(deletion)))
                    }
                    3 => (Register::Xattr([b'a', b'0' + n % 2].into()), Value::Xattr(None)),
                    _ => (Register::Mode, Value::Mode(Mode::new(n.into()))),
                };
                draft.register(node, register, value);
            }
        });
    }

    fn import(&mut self, master: usize, parent: usize) {
        let mut directories = self.nodes(master, Kind::Directory);
        directories.push(NodeId::ROOT);
        let parent = directories[parent % directories.len()];
        self.commit(master, |draft| {
            for n in 0..260 {
                draft.birth(file(parent, &n.to_string(), b""));
            }
        });
    }

    fn commit(&mut self, master: usize, write: impl FnOnce(&mut Draft<'_>)) {
        let document = &mut self.documents[master];
        let mut seen = document.known().clone();
        let mut draft = document.begin();
        write(&mut draft);
        let size = draft.size_estimate();
        let Some(committed) = draft.commit().expect("well-formed") else { return };
        assert!(committed.bytes.len() <= size, "{} > {size}", committed.bytes.len());
        seen.advance(committed.id.writer, committed.id.sequence);
        committed.updates.into_iter().for_each(|update| self.mirrors[master].hear(update));
        self.seen.push(seen);
        self.log.push(SignedChange {
            id: committed.id,
            author: MasterId([master as u8 + 1; 32]),
            bytes: committed.bytes,
            signature: Signature::new(&[0; 64]),
        });
    }

    fn hear(&mut self, master: usize, changes: Vec<SignedChange>) {
        let received = self.documents[master].receive(changes);
        assert!(received.refused.is_empty(), "{:?}", received.refused);
        assert!(received.dropped.is_empty());
        received.updates.into_iter().for_each(|update| self.mirrors[master].hear(update));
    }

    fn check_past(&self, document: &Document) {
        for (later, seen) in self.log.iter().zip(&self.seen) {
            assert_eq!(document.past().seen_by(later.id), *seen);
            for earlier in &self.log {
                let saw = seen.last(earlier.id.writer) >= earlier.id.sequence;
                assert_eq!(document.past().saw(later.id, earlier.id), saw);
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(32))]
    #[test]
    fn masters_that_heard_the_same_hold_the_same(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.play(step);
        }
        for master in 0..MASTERS {
            world.hear(master, world.log.clone());
        }
        for (document, mirror) in world.documents.iter().zip(&world.mirrors) {
            prop_assert_eq!(document.waiting(), 0);
            prop_assert_eq!(document.heads(), world.documents[0].heads());
            prop_assert_eq!(document.known(), world.documents[0].known());
            prop_assert_eq!(mirror, &world.mirrors[0]);
            prop_assert_eq!(mirror, &Mirror::of(document));
            world.check_past(document);
        }
    }
}
