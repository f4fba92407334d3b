//! Crafted changes at the gate: each is a good change with one thing wrong.

use automerge::{ExpandedChange, ObjType, ScalarValue, legacy};
use std::num::NonZeroU64;

use super::*;
use crate::replica::document::tests::{body, directory, document, file, master, place, sign};
use crate::replica::schema::{GENESIS_WRITER, Object, Slot};
use crate::replica::{Birth, Content, Place, Register, Value, Written};
use crate::values::{Body, Member, Signature};
use crate::vocabulary::{MasterId, NodeId, Stamp, Timestamp};

/// A document that holds a directory and a file in it, and its author's next change, not applied.
struct Scene {
    document: Document,
    directory: NodeId,
    file: NodeId,
    next: SignedChange,
}

fn scene() -> Scene {
    let mut author = document(1);
    let mut draft = author.begin();
    let (d, _) = draft.birth(directory(NodeId::ROOT, "d"));
    let (f, _) = draft.birth(file(d, "f", b"1"));
    let first = sign(1, &draft.commit().unwrap().unwrap());
    let mut receiver = document(2);
    assert_eq!(receiver.receive([first]).landed.len(), 1);

    let mut draft = author.begin();
    let content = Content { body: body(b"2"), carried: Vec::new() };
    draft.register(f, Register::Content, Value::Content(content));
    draft.birth(file(d, "g", b"1"));
    draft.register(d, Register::Place, Value::Place(place(NodeId::ROOT, "e")));
    let next = sign(1, &draft.commit().unwrap().unwrap());
    Scene { document: receiver, directory: d, file: f, next }
}

impl Scene {
    /// The change after `craft` has been at it.
    fn crafted(&self, craft: impl FnOnce(&mut ExpandedChange)) -> SignedChange {
        let mut change = wire::read(&self.next.bytes).unwrap();
        craft(&mut change);
        let bytes = automerge::Change::from(change).raw_bytes().to_vec();
        SignedChange { bytes, ..self.next.clone() }
    }

    fn refusal(&self, change: &SignedChange) -> Option<Refusal> {
        check(change, &self.document).err()
    }

    fn op(&self, change: &ExpandedChange, key: &str) -> usize {
        let key = legacy::Key::Map(key.into());
        change.operations.iter().position(|op| op.key == key).unwrap()
    }

    fn register_key(&self, register: Register) -> String {
        schema::node_key(self.file, &Slot::Register(register))
    }

    /// The change with the file's content register written otherwise.
    fn with_value(&self, register: Register, value: Value) -> SignedChange {
        self.crafted(|change| {
            let at = self.op(change, &self.register_key(Register::Content));
            let stamp = Stamp { counter: change.start_op.get(), writer: self.next.id.writer };
            let written = Written { stamp: self.stamp_at(change, at, stamp), sequence: 2, value };
            let key = self.register_key(register);
            change.operations[at].key = legacy::Key::Map(key.as_str().into());
            change.operations[at].action = bytes(schema::pack(&written));
        })
    }

    fn stamp_at(&self, change: &ExpandedChange, at: usize, fallback: Stamp) -> Stamp {
        match &change.operations[at].action {
            legacy::OpType::Put(ScalarValue::Bytes(bytes)) => {
                schema::unpack::<Value>(bytes).map_or(fallback, |written| written.stamp)
            }
            _ => fallback,
        }
    }
}

fn bytes(bytes: Vec<u8>) -> legacy::OpType {
    legacy::OpType::Put(ScalarValue::Bytes(bytes))
}

fn root_op(action: legacy::OpType) -> legacy::Op {
    legacy::Op {
        action,
        obj: legacy::ObjectId::Root,
        key: legacy::Key::Map("000".into()),
        pred: legacy::SortedVec::new(),
        insert: false,
    }
}

#[test]
fn the_change_itself_is_admitted() {
    let scene = scene();
    assert_eq!(scene.crafted(|_| {}).bytes, scene.next.bytes, "crafting is exact");
    assert!(matches!(check(&scene.next, &scene.document), Ok(Verdict::Admitted(_))));
}

#[test]
fn a_change_tells_what_it_wrote_without_a_document() {
    let mut author = document(1);
    let mut draft = author.begin();
    draft.set_time(1_700_000_000_000);
    let (d, _) = draft.birth(directory(NodeId::ROOT, "d"));
    draft.register(d, Register::Place, Value::Place(place(NodeId::ROOT, "e")));
    draft.register(d, Register::Mode, Value::Mode(crate::vocabulary::Mode::new(0o700)));
    draft.setting("conflicts", Vec::new());
    let committed = draft.commit().unwrap().unwrap();
    let told = tell(&committed.bytes).unwrap();
    assert_eq!((told.id, told.time_ms), (committed.id, 1_700_000_000_000));
    assert_eq!(told.updates, committed.updates);
    assert!(tell(&committed.bytes[1..]).is_err());
}

#[test]
fn ops_of_another_schema_are_refused() {
    let scene = scene();
    type Craft = fn(&mut ExpandedChange);
    let crafts: [(&str, Craft); 13] = [
        ("a delete", |c| c.operations[0].action = legacy::OpType::Delete),
        ("a counter", |c| c.operations[0].action = legacy::OpType::Increment(1)),
        ("a list", |c| c.operations[0].action = legacy::OpType::Make(ObjType::List)),
        ("a text", |c| c.operations[0].action = legacy::OpType::Make(ObjType::Text)),
        ("a map in a bucket", |c| c.operations[0].action = legacy::OpType::Make(ObjType::Map)),
        ("a string", |c| {
            c.operations[0].action = legacy::OpType::Put(ScalarValue::Str("x".into()));
        }),
        ("a mark", |c| c.operations[0].action = legacy::OpType::MarkEnd(true)),
        ("an insert", |c| c.operations[0].insert = true),
        ("an element", |c| c.operations[0].key = legacy::Key::head()),
        ("a bucket replaced", |c| c.operations.push(root_op(bytes(Vec::new())))),
        ("a map at the root", |c| {
            c.operations.push(root_op(legacy::OpType::Make(ObjType::Map)));
        }),
        ("a message", |c| c.message = Some("hello".to_owned())),
        ("trailing bytes", |c| c.extra_bytes = vec![1, 2, 3]),
    ];
    for (what, craft) in crafts {
        assert!(scene.refusal(&scene.crafted(craft)).is_some(), "{what}");
    }
}

#[test]
fn objects_and_keys_that_are_not_the_nodes_are_refused() {
    let scene = scene();
    let other_bucket = |c: &mut ExpandedChange| {
        let legacy::ObjectId::Id(id) = &mut c.operations[0].obj else { panic!("a bucket") };
        id.0 = id.0 % 4096 + 1;
    };
    assert!(matches!(scene.refusal(&scene.crafted(other_bucket)), Some(Refusal::ForeignKey(_))));
    for counter in [0, 4101, u64::from(u32::MAX)] {
        let op = Stamp { counter, writer: GENESIS_WRITER };
        let craft = |c: &mut ExpandedChange| {
            c.operations[0].obj = legacy::ObjectId::Id(schema::op_id(op));
        };
        assert_eq!(scene.refusal(&scene.crafted(craft)), Some(Refusal::ForeignObject));
    }
    let own_object = |c: &mut ExpandedChange| {
        let op = Stamp { counter: c.start_op.get(), writer: scene.next.id.writer };
        c.operations[1].obj = legacy::ObjectId::Id(schema::op_id(op));
    };
    assert_eq!(scene.refusal(&scene.crafted(own_object)), Some(Refusal::ForeignObject));
    let twice = |c: &mut ExpandedChange| c.operations.push(c.operations[0].clone());
    assert!(matches!(scene.refusal(&scene.crafted(twice)), Some(Refusal::Value { .. })));
}

#[test]
fn what_a_later_schema_may_have_is_told_from_what_none_has() {
    let scene = scene();
    let key = |c: &mut ExpandedChange| {
        let legacy::Key::Map(key) = &mut c.operations[0].key else { panic!("a map's key") };
        *key = format!("{}/q", &key[..schema::BIRTH_KEY_BYTES]).into();
    };
    let value = |first: u8| {
        move |c: &mut ExpandedChange| {
            let legacy::OpType::Put(ScalarValue::Bytes(bytes)) = &mut c.operations[0].action else {
                panic!("bytes are put")
            };
            bytes[0] = first;
        }
    };
    let later =
        |refusal: Option<Refusal>| refusal.map(|refusal| refusal.may_be_of_a_later_version());
    assert_eq!(later(scene.refusal(&scene.crafted(key))), Some(true));
    assert_eq!(later(scene.refusal(&scene.crafted(value(2)))), Some(true));
    assert_eq!(later(scene.refusal(&scene.crafted(value(0)))), Some(false));
}

#[test]
fn sequence_and_counters_follow_on_what_was_seen() {
    let scene = scene();
    let start = |offset: i64| {
        scene.crafted(move |c| {
            let start = c.start_op.get().checked_add_signed(offset).unwrap();
            c.start_op = NonZeroU64::new(start).unwrap();
        })
    };
    for offset in [-1, 1, 1 << 40, i64::from(u32::MAX)] {
        assert!(scene.refusal(&start(offset)).is_some(), "{offset}");
    }
    for sequence in [0, 1, 3, u64::MAX] {
        let mut change = scene.crafted(|c| c.seq = sequence);
        assert!(scene.refusal(&change).is_some(), "{sequence}");
        change.id.sequence = sequence;
        assert!(scene.refusal(&change).is_some(), "{sequence} by its envelope too");
    }
    let genesis = scene.document.genesis();
    let forgetful = scene.crafted(|c| c.deps = vec![genesis]);
    assert!(matches!(scene.refusal(&forgetful), Some(Refusal::Sequence(_))));
    let rootless = scene.crafted(|c| c.deps = Vec::new());
    assert!(matches!(scene.refusal(&rootless), Some(Refusal::Sequence(_))));
    let twofold = scene.crafted(|c| c.deps.push(c.deps[0]));
    assert!(matches!(scene.refusal(&twofold), Some(Refusal::Malformed(_))));
    let ahead = scene.crafted(|c| c.deps.push(ChangeHash([0; 32])));
    assert!(matches!(check(&ahead, &scene.document), Ok(Verdict::Orphaned(_))));
}

#[test]
fn a_second_change_of_one_sequence_is_refused() {
    let mut scene = scene();
    let other = scene.crafted(|c| c.time = 1);
    assert_eq!(scene.document.receive([scene.next.clone()]).landed.len(), 1);
    assert_eq!(scene.refusal(&other), Some(Refusal::Equivocation));
    assert!(matches!(check(&scene.next, &scene.document), Ok(Verdict::Held)));
}

#[test]
fn another_authors_change_is_refused() {
    let scene = scene();
    let stolen = SignedChange { author: master(2), ..scene.next.clone() };
    assert_eq!(scene.refusal(&stolen), Some(Refusal::NotTheAuthors));
    let foreign = scene.crafted(|c| c.actor_id = automerge::ActorId::from([9_u8; 16]));
    assert_eq!(scene.refusal(&foreign), Some(Refusal::NotTheAuthors));
}

#[test]
fn a_write_replaces_what_its_author_had_seen() {
    let mut scene = scene();
    let preds = |preds: Vec<Stamp>| {
        scene.crafted(|c| {
            let at = scene.op(c, &scene.register_key(Register::Content));
            c.operations[at].pred = preds.into_iter().map(schema::op_id).collect();
        })
    };
    let writer = scene.next.id.writer;
    for counter in [1, 4101, 4103, 9999] {
        let change = preds(vec![Stamp { counter, writer }]);
        assert!(matches!(scene.refusal(&change), Some(Refusal::Predecessors(_))), "{counter}");
    }

    // What came in since is not to be replaced by who had not seen it.
    let mut draft = scene.document.begin();
    let content = Content { body: body(b"3"), carried: Vec::new() };
    let here = draft.register(scene.file, Register::Content, Value::Content(content));
    draft.commit().unwrap();
    let change = scene.crafted(|c| {
        let at = scene.op(c, &scene.register_key(Register::Content));
        c.operations[at].pred = vec![schema::op_id(here)].into();
    });
    assert!(matches!(scene.refusal(&change), Some(Refusal::Predecessors(_))));
    assert!(matches!(check(&scene.next, &scene.document), Ok(Verdict::Admitted(_))));
}

#[test]
fn a_gap_does_not_replace_itself() {
    // Found by fuzzing: automerge saved such a document and could not load it again.
    let scene = scene();
    let writer = scene.next.id.writer;
    let gaps = |predecessors: &[&[u64]]| {
        scene.crafted(|c| {
            for predecessors in predecessors {
                let pred = predecessors.iter().map(|counter| Stamp { counter: *counter, writer });
                let pred = pred.map(schema::op_id).collect();
                let key = schema::gap_key(writer);
                c.operations.push(schema::put(Object::Gaps, &key, Vec::new(), pred));
            }
        })
    };
    let first = wire::read(&scene.next.bytes).unwrap().start_op.get() + 3;
    assert_eq!(scene.refusal(&gaps(&[&[], &[first]])), None);
    for wrong in [&[&[first] as &[u64]] as &[&[u64]], &[&[first + 1], &[first]], &[&[], &[]]] {
        let refusal = scene.refusal(&gaps(wrong));
        assert!(matches!(refusal, Some(Refusal::Predecessors(_))), "{wrong:?}");
    }
}

#[test]
fn values_that_the_tree_could_not_bear_are_refused() {
    let scene = scene();
    let touch = |nanos| Value::Touch(Timestamp { seconds: 0, nanos });
    assert_eq!(scene.refusal(&scene.with_value(Register::Touch, touch(999_999_999))), None);
    let directory_body = Body::Directory { mtime: Timestamp::default() };
    let link = crate::values::LinkTarget::new(*b"x").unwrap();
    let link = Body::Symlink { target: link, mtime: Timestamp::default() };
    let content = |body| Value::Content(Content { body, carried: Vec::new() });
    let xattr = |bytes: usize| Value::Xattr(Some(vec![0; bytes].into()));
    let named = |name: &[u8]| Register::Xattr(name.into());
    assert_eq!(scene.refusal(&scene.with_value(named(b"user.a"), xattr(64 << 10))), None);
    let stranger = NodeId([3; 16]);
    let cases = [
        (Register::Touch, touch(1_000_000_000)),
        (Register::Mode, touch(0)),
        (Register::Content, content(directory_body)),
        (Register::Content, content(link)),
        (named(b"user.a"), xattr((64 << 10) + 1)),
        (named(b""), xattr(1)),
        (Register::Place, Value::Place(place(scene.file, "x"))),
        (Register::Place, Value::Place(place(stranger, "x"))),
    ];
    for (register, value) in cases {
        let change = scene.with_value(register, value.clone());
        assert!(scene.refusal(&change).is_some(), "{value:?}");
    }
}

#[test]
fn births_and_places_stand_in_known_directories() {
    let scene = scene();
    let stamp_of = |change: &ExpandedChange| {
        let birth = |op: &legacy::Op| match &op.action {
            legacy::OpType::Put(ScalarValue::Bytes(bytes)) => schema::unpack::<Birth>(bytes),
            _ => None,
        };
        let at = change.operations.iter().position(|op| birth(op).is_some()).unwrap();
        (at, birth(&change.operations[at]).unwrap())
    };
    let reborn = |edit: &dyn Fn(&mut Written<Birth>)| {
        scene.crafted(|c| {
            let (at, mut written) = stamp_of(c);
            edit(&mut written);
            c.operations[at].action = bytes(schema::pack(&written));
        })
    };
    assert_eq!(scene.refusal(&reborn(&|_| {})), None);
    let node = |written: &Written<Birth>| NodeId::born_at(written.stamp);
    assert!(scene.refusal(&reborn(&|w| w.value.place.parent = node(w))).is_some(), "itself");
    assert!(scene.refusal(&reborn(&|w| w.value.place.parent = scene.file)).is_some(), "a file");
    assert!(scene.refusal(&reborn(&|w| w.value.place.parent = NodeId([1; 16]))).is_some());
    assert!(scene.refusal(&reborn(&|w| w.stamp.counter += 1)).is_some(), "another's stamp");
    assert!(scene.refusal(&reborn(&|w| w.sequence += 1)).is_some(), "another sequence");

    let directory_place = |place: Place| {
        scene.crafted(|c| {
            let is_place =
                |op: &legacy::Op| matches!(&op.key, legacy::Key::Map(k) if k.contains("/P"));
            let at = c.operations.iter().position(is_place).unwrap();
            let legacy::Key::Map(key) = &c.operations[at].key else { panic!("a key") };
            let (_, slot) = schema::parse_node_key(key).unwrap();
            let Slot::DirectoryPlace(stamp) = slot else { panic!("a place") };
            c.operations[at].action =
                bytes(schema::pack(&Written { stamp, sequence: 2, value: place }));
        })
    };
    assert_eq!(scene.refusal(&directory_place(place(NodeId::ROOT, "x"))), None);
    for parent in [scene.directory, scene.file, NodeId([1; 16])] {
        assert!(scene.refusal(&directory_place(place(parent, "x"))).is_some());
    }
}

#[test]
fn encodings_that_the_engine_would_not_choose_are_refused() {
    let scene = scene();
    let mut change: automerge::Change = scene.next.bytes.as_slice().try_into().unwrap();
    let mut compressed = scene.next.clone();
    compressed.bytes = change.bytes().into_owned();
    assert_ne!(compressed.bytes, scene.next.bytes, "long enough to be compressed");
    assert!(matches!(scene.refusal(&compressed), Some(Refusal::Malformed(_))));

    // A length written with a byte too many.
    let mut wide = scene.next.clone();
    let body = wire::body(&scene.next.bytes).unwrap();
    assert_eq!(body[0], 1, "one dependency");
    wide.bytes = wire::seal(&[&[0x81, 0x00], &body[1..]].concat());
    assert_eq!(scene.refusal(&wide), Some(Refusal::NotCanonical));

    let mut large = scene.next.clone();
    large.bytes.resize(CHANGE_BYTES_MAX + 1, 0);
    assert_eq!(scene.refusal(&large), Some(Refusal::TooLarge(CHANGE_BYTES_MAX + 1)));
}

#[test]
fn long_runs_in_few_bytes_are_refused() {
    // Millions of millions of ops that make the map "x" in the first bucket, in a dozen bytes a column.
    let run = |value: &[u8]| [&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10], value].concat();
    let columns = [
        (0x01, run(&[1])),
        (0x02, run(&[1])),
        (0x15, run(b"\x01x")),
        (0x42, run(&[0])),
        (0x56, run(&[0])),
    ];
    let mut body = vec![0, 16];
    body.extend([1; 16]);
    body.extend([1, 1, 0, 0, 1, 16]);
    body.extend(GENESIS_WRITER.0);
    body.push(columns.len() as u8);
    columns.iter().for_each(|(column, data)| body.extend([*column, data.len() as u8]));
    columns.iter().for_each(|(_, data)| body.extend(data));
    let refusal = wire::read(&wire::seal(&body)).expect_err("too many");
    assert_eq!(refusal, Refusal::Malformed("too many ops"));
}

#[test]
fn a_member_is_who_its_key_says() {
    let scene = scene();
    let member = |master: MasterId, name: String, addresses: Vec<String>| Member {
        master,
        name,
        addresses,
        invited_by: master,
        signature: Signature::new(&[0; 64]),
        removed: false,
    };
    let written = |key: MasterId, value: Member| {
        scene.crafted(|c| {
            let at = scene.op(c, &scene.register_key(Register::Content));
            let stamp = Stamp { counter: c.start_op.get(), writer: scene.next.id.writer };
            let stamp = scene.stamp_at(c, at, stamp);
            let value = schema::pack(&Written { stamp, sequence: 2, value });
            c.operations[at] =
                schema::put(Object::Members, &schema::member_key(key), value, Vec::new());
        })
    };
    let (nine, ten) = (master(9), master(10));
    let good = member(nine, "n".repeat(64), vec!["a".repeat(256); 16]);
    assert_eq!(scene.refusal(&written(nine, good.clone())), None);
    let bad = [
        (ten, good.clone()),
        (nine, member(nine, "n".repeat(65), Vec::new())),
        (nine, member(nine, String::new(), vec![String::new(); 17])),
        (nine, member(nine, String::new(), vec!["a".repeat(257)])),
    ];
    for (key, value) in bad {
        assert!(scene.refusal(&written(key, value)).is_some());
    }
}
