//! The schema: which objects the document has, what their keys are called, how values are packed.
//!
//! ```text
//! ROOT ── "000" … "fff"   4096 buckets: a node's key is in the bucket of its id's first 12 bits
//!      ├─ "batches"       one map for each large import: node key → birth
//!      ├─ "members"       master's key → member
//!      ├─ "settings"      setting's key → value
//!      └─ "gaps"          writer → nothing; see `Object::Gaps`
//! ```
//!
//! All of these come from one fixed genesis change, identical in every store, so that no two stores
//! ever create them twice; it is never sent and is in no version vector. A node's keys begin with its
//! id; its birth is the bare id, a register is the id, a slash and a letter. Each value is a version
//! byte and the postcard encoding of a [`Written`], so values are complete without the change that
//! wrote them.
//!
//! Deliberately not here: which values are well-formed, and who may write what; see [`super::gate`].

use automerge::{ActorId, ChangeHash, ExpandedChange, ObjId, ObjType, ScalarValue, legacy};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Write as _;
use std::num::NonZeroU64;

use super::{Register, Written};
use crate::values::ChangeId;
use crate::vocabulary::{MasterId, NodeId, Stamp, WriterId};

/// How many maps the nodes are spread over: applying a change costs what the map is long.
pub(super) const BUCKETS: u64 = 4096;

/// The genesis is nobody's: 16 bytes that no writer can have but by finding a preimage.
pub(super) const GENESIS_WRITER: WriterId = WriterId(*b"pleach genesis 1");

/// The last op of the genesis: counters of writers begin after it.
pub(super) const GENESIS_LAST_OP: u64 = BUCKETS + 4;

/// The first byte of every packed value.
pub(super) const VALUE_VERSION: u8 = 1;

/// An object of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Object {
    /// Births and registers of the nodes whose id begins with these 12 bits.
    Bucket(u16),
    /// Holds the batches.
    Batches,
    /// The births of one large import, by the stamp of the op that made the map.
    Batch(Stamp),
    /// The member list.
    Members,
    /// The store's settings.
    Settings,
    /// Uses up counters. A stamp's counter must be among those of its change's ops, so a draft that
    /// drops a write for a later one to the same register writes nothing here once instead.
    Gaps,
}

impl Object {
    /// The object that a genesis op with this counter made.
    pub(super) fn of_genesis(counter: u64) -> Option<Self> {
        match counter.checked_sub(BUCKETS) {
            None if counter > 0 => Some(Self::Bucket((counter - 1) as u16)),
            Some(0) => Some(Self::Bucket((BUCKETS - 1) as u16)),
            Some(1) => Some(Self::Batches),
            Some(2) => Some(Self::Members),
            Some(3) => Some(Self::Settings),
            Some(4) => Some(Self::Gaps),
            _ => None,
        }
    }

    /// The bucket of a node.
    pub(super) fn bucket_of(node: NodeId) -> Self {
        Self::Bucket(u16::from(node.0[0]) << 4 | u16::from(node.0[1]) >> 4)
    }

    /// The op that made it.
    pub(super) fn made_by(self) -> Stamp {
        let counter = match self {
            Self::Bucket(index) => u64::from(index) + 1,
            Self::Batches => BUCKETS + 1,
            Self::Members => BUCKETS + 2,
            Self::Settings => BUCKETS + 3,
            Self::Gaps => BUCKETS + 4,
            Self::Batch(stamp) => return stamp,
        };
        Stamp { counter, writer: GENESIS_WRITER }
    }

    /// The object's id for reading it.
    pub(super) fn id(self) -> ObjId {
        let stamp = self.made_by();
        ObjId::Id(stamp.counter, actor(stamp.writer), 0)
    }
}

/// The engine's actor for a writer.
pub(super) fn actor(writer: WriterId) -> ActorId {
    ActorId::from(writer.0)
}

/// The writer of an actor; none if it has not 16 bytes.
pub(super) fn writer(actor: &ActorId) -> Option<WriterId> {
    actor.to_bytes().try_into().ok().map(WriterId)
}

/// The first change of every document, and its hash.
pub(super) fn genesis() -> (automerge::Change, ChangeHash) {
    let names = (0..BUCKETS)
        .map(|index| format!("{index:03x}"))
        .chain(["batches", "members", "settings", "gaps"].map(String::from));
    let operations = names
        .map(|name| legacy::Op {
            action: legacy::OpType::Make(ObjType::Map),
            obj: legacy::ObjectId::Root,
            key: legacy::Key::Map(name.as_str().into()),
            pred: legacy::SortedVec::new(),
            insert: false,
        })
        .collect();
    let change = automerge::Change::from(ExpandedChange {
        operations,
        actor_id: actor(GENESIS_WRITER),
        hash: None,
        seq: 1,
        start_op: NonZeroU64::MIN,
        time: 0,
        message: None,
        deps: Vec::new(),
        extra_bytes: Vec::new(),
        author: None,
    });
    let hash = change.hash();
    (change, hash)
}

/// What a key of a bucket or a batch names, beside the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    /// The node's birth.
    Birth,
    /// A place that a directory was given after its birth: one key each, never overwritten.
    DirectoryPlace(Stamp),
    /// A register; `Place` only of files and links.
    Register(Register),
}

/// The key of a slot of a node.
pub(super) fn node_key(node: NodeId, slot: &Slot) -> String {
    let mut key = base64(&node.0);
    match slot {
        Slot::Birth => {}
        Slot::DirectoryPlace(stamp) => {
            let writer = base64(&stamp.writer.0);
            write!(key, "/P{:x}.{writer}", stamp.counter).expect("a String takes all");
        }
        Slot::Register(Register::Place) => key.push_str("/p"),
        Slot::Register(Register::Content) => key.push_str("/c"),
        Slot::Register(Register::Mode) => key.push_str("/m"),
        Slot::Register(Register::Owner) => key.push_str("/o"),
        Slot::Register(Register::Touch) => key.push_str("/t"),
        Slot::Register(Register::Deleted) => key.push_str("/d"),
        Slot::Register(Register::Xattr(name)) => {
            key.push_str("/x");
            name.iter().for_each(|byte| write!(key, "{byte:02x}").expect("a String takes all"));
        }
        Slot::Register(Register::Version(stamp)) => {
            let writer = base64(&stamp.writer.0);
            write!(key, "/v{:x}.{writer}", stamp.counter).expect("a String takes all");
        }
    }
    key
}

/// The length of the key of a birth; all other keys of nodes are longer.
pub(super) const BIRTH_KEY_BYTES: usize = 22;

/// Reads what [`node_key`] wrote; anything else is none.
pub(super) fn parse_node_key(key: &str) -> Option<(NodeId, Slot)> {
    let (id, slot) = match key.split_once('/') {
        None => (key, Slot::Birth),
        Some((id, slot)) => (id, parse_slot(slot)?),
    };
    let node = NodeId(unbase64(id)?);
    (node_key(node, &slot) == key).then_some((node, slot))
}

fn parse_slot(text: &str) -> Option<Slot> {
    let mut letters = text.chars();
    let letter = letters.next()?;
    let rest = letters.as_str();
    let register = match letter {
        'p' => Register::Place,
        'c' => Register::Content,
        'm' => Register::Mode,
        'o' => Register::Owner,
        't' => Register::Touch,
        'd' => Register::Deleted,
        'x' => Register::Xattr(unhex(rest)?),
        'v' => Register::Version(parse_stamp(rest)?),
        'P' => return Some(Slot::DirectoryPlace(parse_stamp(rest)?)),
        _ => return None,
    };
    Some(Slot::Register(register))
}

fn parse_stamp(text: &str) -> Option<Stamp> {
    let (counter, writer) = text.split_once('.')?;
    let counter = u64::from_str_radix(counter, 16).ok()?;
    Some(Stamp { counter, writer: WriterId(unbase64(writer)?) })
}

fn unhex(text: &str) -> Option<Box<[u8]>> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// The key of a batch.
pub(super) fn batch_key(id: ChangeId) -> String {
    format!("{}.{:x}", base64(&id.writer.0), id.sequence)
}

/// The key of a member.
pub(super) fn member_key(master: MasterId) -> String {
    master.to_string()
}

/// The key of a writer's gaps.
pub(super) fn gap_key(writer: WriterId) -> String {
    base64(&writer.0)
}

/// Packs a value.
pub(super) fn pack<T: Serialize>(value: &Written<T>) -> Vec<u8> {
    postcard::to_extend(value, vec![VALUE_VERSION]).expect("plain values always encode")
}

/// Unpacks what [`pack`] packed; none if the bytes are anything else.
pub(super) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Option<Written<T>> {
    let (&VALUE_VERSION, body) = bytes.split_first()? else { return None };
    let (value, []) = postcard::take_from_bytes(body).ok()? else { return None };
    Some(value)
}

/// The sequence of the change that wrote a packed value, whatever the value.
pub(super) fn unpack_change(bytes: &[u8]) -> Option<ChangeId> {
    let (&VALUE_VERSION, body) = bytes.split_first()? else { return None };
    let ((stamp, sequence), _) = postcard::take_from_bytes::<(Stamp, u64)>(body).ok()?;
    Some(ChangeId { writer: stamp.writer, sequence })
}

/// An op that puts bytes.
pub(super) fn put(
    object: Object,
    key: &str,
    bytes: Vec<u8>,
    pred: Vec<legacy::OpId>,
) -> legacy::Op {
    operation(object, key, legacy::OpType::Put(ScalarValue::Bytes(bytes)), pred)
}

/// An op that makes a map among the batches.
pub(super) fn make_batch(key: &str) -> legacy::Op {
    operation(Object::Batches, key, legacy::OpType::Make(ObjType::Map), Vec::new())
}

fn operation(
    object: Object,
    key: &str,
    action: legacy::OpType,
    pred: Vec<legacy::OpId>,
) -> legacy::Op {
    legacy::Op {
        action,
        obj: legacy::ObjectId::Id(op_id(object.made_by())),
        key: legacy::Key::Map(key.into()),
        pred: pred.into(),
        insert: false,
    }
}

/// The engine's id of an op.
pub(super) fn op_id(stamp: Stamp) -> legacy::OpId {
    legacy::OpId(stamp.counter, actor(stamp.writer))
}

const DIGITS: &[u8; 64] = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";

/// Sixteen bytes as 22 letters: 10 fewer than hexadecimal, in every key of every node.
fn base64(bytes: &[u8; 16]) -> String {
    let mut bits = u128::from_be_bytes(*bytes);
    let mut letters = [0; 22];
    // 128 bits are 21 letters of 6 and one of 2, which comes first.
    for letter in letters.iter_mut().rev() {
        *letter = DIGITS[(bits & 63) as usize];
        bits >>= 6;
    }
    letters.iter().map(|&letter| char::from(letter)).collect()
}

fn unbase64(text: &str) -> Option<[u8; 16]> {
    if text.len() != 22 {
        return None;
    }
    let mut bits: u128 = 0;
    for letter in text.bytes() {
        let digit = DIGITS.binary_search(&letter).ok()?;
        if bits >> 122 != 0 {
            return None;
        }
        bits = bits << 6 | digit as u128;
    }
    Some(bits.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn genesis_never_changes() {
        // Stores of different genesis can't merge: this hash is part of the format.
        let (change, hash) = genesis();
        assert_eq!(
            hash.to_string(),
            "fe8599361f754ea40cd2f64f1fde93970d7d731c61dbf11a1cf492e7fd471847"
        );
        assert_eq!(change.max_op(), GENESIS_LAST_OP);
    }

    #[test]
    fn objects_are_where_the_genesis_made_them() {
        let objects = (0..BUCKETS).map(|index| Object::Bucket(index as u16)).chain([
            Object::Batches,
            Object::Members,
            Object::Settings,
            Object::Gaps,
        ]);
        for (counter, object) in (1..).zip(objects) {
            assert_eq!(Object::of_genesis(counter), Some(object));
            assert_eq!(object.made_by().counter, counter);
        }
        assert_eq!(Object::of_genesis(0), None);
        assert_eq!(Object::of_genesis(GENESIS_LAST_OP + 1), None);
    }

    fn slots() -> impl Strategy<Value = Slot> {
        prop_oneof![
            Just(Slot::Birth),
            Just(Slot::Register(Register::Place)),
            Just(Slot::Register(Register::Content)),
            Just(Slot::Register(Register::Mode)),
            Just(Slot::Register(Register::Owner)),
            Just(Slot::Register(Register::Touch)),
            Just(Slot::Register(Register::Deleted)),
            proptest::collection::vec(any::<u8>(), 0..40)
                .prop_map(|name| Slot::Register(Register::Xattr(name.into()))),
            (any::<u64>(), any::<[u8; 16]>()).prop_map(|(counter, writer)| {
                Slot::DirectoryPlace(Stamp { counter, writer: WriterId(writer) })
            }),
            (any::<u64>(), any::<[u8; 16]>()).prop_map(|(counter, writer)| {
                Slot::Register(Register::Version(Stamp { counter, writer: WriterId(writer) }))
            }),
        ]
    }

    proptest! {
        #[test]
        fn keys_are_read_back(node: [u8; 16], slot in slots()) {
            let key = node_key(NodeId(node), &slot);
            prop_assert_eq!(parse_node_key(&key), Some((NodeId(node), slot)));
        }

        #[test]
        fn no_two_texts_are_the_same_key(text in "[-0-9a-zA-Z_/.+]{20,60}") {
            if let Some((node, slot)) = parse_node_key(&text) {
                prop_assert_eq!(node_key(node, &slot), text);
            }
        }
    }
}
