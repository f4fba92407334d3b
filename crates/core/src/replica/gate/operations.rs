//! Ops of a change read by the schema: which value under which key, well-formed for itself.

use automerge::{ExpandedChange, ScalarValue, legacy};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;

use super::Refusal;
use crate::replica::schema::{self, Object, Slot};
use crate::replica::{Birth, Content, Deletion, Place, Register, Value, Written};
use crate::values::{Body, ChangeId, Member};
use crate::vocabulary::{Kind, NodeId, Owner, Stamp, Timestamp, Xattrs};

/// Stamps that a delete observed, directories that it saw above, places it had not seen.
const DELETION_ENTRIES_MAX: usize = 4096;
/// Versions that one write carries along.
const CARRIED_MAX: usize = 4096;
const XATTR_NAME_BYTES_MAX: usize = 255;
const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;
const OWNER_NAME_BYTES_MAX: usize = 256;
const MEMBER_NAME_CHARS_MAX: usize = 64;
const MEMBER_ADDRESSES_MAX: usize = 16;
const MEMBER_ADDRESS_BYTES_MAX: usize = 256;
const SETTING_KEY_BYTES_MAX: usize = 128;
const SETTING_VALUE_BYTES_MAX: usize = 4096;

/// An op of the schema.
#[derive(Debug)]
pub(in crate::replica) struct Operation {
    pub(in crate::replica) object: Object,
    pub(in crate::replica) key: String,
    /// What it replaces.
    pub(in crate::replica) predecessors: Vec<Stamp>,
    pub(in crate::replica) payload: Payload,
}

/// What an op writes.
#[derive(Debug)]
pub(in crate::replica) enum Payload {
    Birth(NodeId, Written<Birth>),
    DirectoryPlace(NodeId, Written<Place>),
    Register(NodeId, Register, Written<Value>),
    Member(Written<Member>),
    Setting(Written<Vec<u8>>),
    Batch,
    Gap,
}

impl Payload {
    fn stamp(&self) -> Option<(Stamp, u64)> {
        match self {
            Self::Birth(_, written) => Some((written.stamp, written.sequence)),
            Self::DirectoryPlace(_, written) => Some((written.stamp, written.sequence)),
            Self::Register(_, _, written) => Some((written.stamp, written.sequence)),
            Self::Member(written) => Some((written.stamp, written.sequence)),
            Self::Setting(written) => Some((written.stamp, written.sequence)),
            Self::Batch | Self::Gap => None,
        }
    }
}

/// Reads all ops of a change and checks what can be checked without its past.
pub(super) fn read(id: ChangeId, change: &ExpandedChange) -> Result<Vec<Operation>, Refusal> {
    let first = change.start_op.get();
    let count = change.operations.len() as u64;
    let end = first.checked_add(count).filter(|end| *end <= u64::from(u32::MAX));
    let end = end.ok_or(Refusal::Sequence("counters beyond 32 bits"))?;
    if count == 0 {
        return Err(Refusal::Malformed("no ops"));
    }
    let mut operations = Vec::with_capacity(change.operations.len());
    let mut batch = None;
    for (counter, op) in (first..).zip(&change.operations) {
        let operation = read_one(id, op, batch)?;
        if let Payload::Batch = operation.payload {
            batch = Some(Stamp { counter, writer: id.writer });
        }
        operations.push(operation);
    }
    check_keys(id, first, &operations)?;
    check_stamps(id, first..end, &operations)?;
    Ok(operations)
}

/// Each key is written once; but gaps, each of which replaces the one before.
fn check_keys(id: ChangeId, first: u64, operations: &[Operation]) -> Result<(), Refusal> {
    let mut keys = BTreeSet::new();
    let mut gap = None;
    for (counter, operation) in (first..).zip(operations) {
        if let Payload::Gap = operation.payload {
            if gap.is_some_and(|gap| operation.predecessors != [gap]) {
                return Err(Refusal::Predecessors(operation.key.clone()));
            }
            gap = Some(Stamp { counter, writer: id.writer });
        } else if !keys.insert((operation.object, operation.key.as_str())) {
            return Err(problem(&operation.key, "written twice"));
        }
    }
    Ok(())
}

/// Each value has a stamp of its own out of the change's counters.
fn check_stamps(
    id: ChangeId,
    counters: std::ops::Range<u64>,
    operations: &[Operation],
) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for operation in operations {
        if let Some((stamp, sequence)) = operation.payload.stamp() {
            let ours = stamp.writer == id.writer && sequence == id.sequence;
            if !ours || !counters.contains(&stamp.counter) || !seen.insert(stamp.counter) {
                return Err(problem(&operation.key, "its stamp is not one of the change's"));
            }
        }
    }
    Ok(())
}

fn read_one(id: ChangeId, op: &legacy::Op, batch: Option<Stamp>) -> Result<Operation, Refusal> {
    let object = match &op.obj {
        legacy::ObjectId::Id(made) => {
            let stamp = stamp_of(made).ok_or(Refusal::ForeignObject)?;
            if stamp.writer == schema::GENESIS_WRITER {
                Object::of_genesis(stamp.counter)
            } else {
                batch.filter(|batch| *batch == stamp).map(Object::Batch)
            }
        }
        legacy::ObjectId::Root => None,
    };
    let object = object.ok_or(Refusal::ForeignObject)?;
    let legacy::Key::Map(key) = &op.key else { return Err(Refusal::ForeignObject) };
    let key = key.as_str();
    let payload = match &op.action {
        legacy::OpType::Put(ScalarValue::Bytes(bytes)) => read_value(id, object, key, bytes)?,
        legacy::OpType::Make(automerge::ObjType::Map)
            if object == Object::Batches && batch.is_none() && key == schema::batch_key(id) =>
        {
            Payload::Batch
        }
        _ => return Err(Refusal::ForeignKey(key.to_owned())),
    };
    let predecessors = op.pred.iter().map(stamp_of).collect::<Option<Vec<_>>>();
    let predecessors = predecessors.ok_or(Refusal::Malformed("a predecessor's actor"))?;
    Ok(Operation { object, key: key.to_owned(), predecessors, payload })
}

fn read_value(id: ChangeId, object: Object, key: &str, bytes: &[u8]) -> Result<Payload, Refusal> {
    let foreign = || Refusal::ForeignKey(key.to_owned());
    match object {
        Object::Bucket(_) | Object::Batch(_) => {
            let (node, slot) = schema::parse_node_key(key).ok_or_else(foreign)?;
            let in_bucket = matches!(object, Object::Bucket(_));
            if in_bucket && Object::bucket_of(node) != object || !in_bucket && slot != Slot::Birth {
                return Err(foreign());
            }
            read_slot(key, node, slot, bytes)
        }
        Object::Members => {
            let written: Written<Member> = unpack(key, bytes)?;
            check_member(key, &written.value)?;
            Ok(Payload::Member(written))
        }
        Object::Settings => {
            let written: Written<Vec<u8>> = unpack(key, bytes)?;
            let fits = (1..=SETTING_KEY_BYTES_MAX).contains(&key.len())
                && written.value.len() <= SETTING_VALUE_BYTES_MAX;
            if fits { Ok(Payload::Setting(written)) } else { Err(problem(key, "too long")) }
        }
        Object::Gaps if key == schema::gap_key(id.writer) && bytes.is_empty() => Ok(Payload::Gap),
        Object::Gaps | Object::Batches => Err(foreign()),
    }
}

fn read_slot(key: &str, node: NodeId, slot: Slot, bytes: &[u8]) -> Result<Payload, Refusal> {
    match slot {
        Slot::Birth => {
            let written: Written<Birth> = unpack(key, bytes)?;
            if node != NodeId::born_at(written.stamp) {
                return Err(problem(key, "the node is not born at this stamp"));
            }
            check_birth(key, &written.value)?;
            check_place(key, node, &written.value.place)?;
            Ok(Payload::Birth(node, written))
        }
        Slot::DirectoryPlace(stamp) => {
            let written: Written<Place> = unpack(key, bytes)?;
            if written.stamp != stamp {
                return Err(problem(key, "the key has another stamp"));
            }
            check_place(key, node, &written.value)?;
            Ok(Payload::DirectoryPlace(node, written))
        }
        Slot::Register(register) => {
            let written: Written<Value> = unpack(key, bytes)?;
            check_value(key, node, &register, &written.value)?;
            Ok(Payload::Register(node, register, written))
        }
    }
}

fn check_value(key: &str, node: NodeId, register: &Register, value: &Value) -> Result<(), Refusal> {
    match (register, value) {
        (Register::Place, Value::Place(place)) => check_place(key, node, place),
        (Register::Content, Value::Content(content)) => check_content(key, content),
        (Register::Mode, Value::Mode(mode)) => check_mode(key, mode.bits()),
        (Register::Owner, Value::Owner(owner)) => check_owner(key, owner),
        (Register::Xattr(name), Value::Xattr(value)) => {
            check_xattr(key, name, value.as_deref().unwrap_or_default())
        }
        (Register::Touch, Value::Touch(mtime)) => check_time(key, *mtime),
        (Register::Deleted, Value::Deleted(deletion)) => {
            deletion.as_ref().map_or(Ok(()), |deletion| check_deletion(key, deletion))
        }
        (Register::Version(_), Value::Version(_)) => Ok(()),
        _ => Err(problem(key, "of another register")),
    }
}

fn check_birth(key: &str, birth: &Birth) -> Result<(), Refusal> {
    check_time(key, birth.body.mtime())?;
    check_mode(key, birth.mode.bits())?;
    birth.owner.as_ref().map_or(Ok(()), |owner| check_owner(key, owner))?;
    check_xattrs(key, &birth.xattrs)
}

fn check_place(key: &str, node: NodeId, place: &Place) -> Result<(), Refusal> {
    if place.parent == node { Err(problem(key, "a node inside itself")) } else { Ok(()) }
}

fn check_content(key: &str, content: &Content) -> Result<(), Refusal> {
    if content.carried.len() > CARRIED_MAX {
        return Err(problem(key, "too many versions carried"));
    }
    let carried = content.carried.iter().map(|carried| &carried.body);
    for body in std::iter::once(&content.body).chain(carried) {
        if body.kind() == Kind::Directory {
            return Err(problem(key, "a directory as content"));
        }
        check_time(key, body.mtime())?;
    }
    if !content.carried.is_sorted_by(|a, b| a.stamp < b.stamp) {
        return Err(problem(key, "carried versions out of order"));
    }
    Ok(())
}

fn check_deletion(key: &str, deletion: &Deletion) -> Result<(), Refusal> {
    let lists = [deletion.observed.len(), deletion.above.len(), deletion.unseen.len()];
    if lists.iter().any(|length| *length > DELETION_ENTRIES_MAX) {
        return Err(problem(key, "a list too long"));
    }
    Ok(())
}

fn check_mode(key: &str, bits: u32) -> Result<(), Refusal> {
    if bits > 0o7777 { Err(problem(key, "mode")) } else { Ok(()) }
}

fn check_owner(key: &str, owner: &Owner) -> Result<(), Refusal> {
    let long = |name: &str| name.len() > OWNER_NAME_BYTES_MAX;
    if long(&owner.user) || long(&owner.group) { Err(problem(key, "owner")) } else { Ok(()) }
}

fn check_xattrs(key: &str, xattrs: &Xattrs) -> Result<(), Refusal> {
    xattrs.iter().try_for_each(|(name, value)| check_xattr(key, name, value))
}

fn check_xattr(key: &str, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
    let named = (1..=XATTR_NAME_BYTES_MAX).contains(&name.len()) && !name.contains(&0);
    if named && value.len() <= XATTR_VALUE_BYTES_MAX {
        Ok(())
    } else {
        Err(problem(key, "extended attribute"))
    }
}

fn check_time(key: &str, time: Timestamp) -> Result<(), Refusal> {
    if time.nanos < 1_000_000_000 { Ok(()) } else { Err(problem(key, "a time")) }
}

fn check_member(key: &str, member: &Member) -> Result<(), Refusal> {
    let fits = key == schema::member_key(member.master)
        && member.name.chars().count() <= MEMBER_NAME_CHARS_MAX
        && member.addresses.len() <= MEMBER_ADDRESSES_MAX
        && member.addresses.iter().all(|address| address.len() <= MEMBER_ADDRESS_BYTES_MAX);
    if fits { Ok(()) } else { Err(problem(key, "a member")) }
}

/// The kind of node that a body belongs to is the node's for good, so births tell it.
pub(super) fn content_fits(body: &Body, kind: Kind) -> bool {
    body.kind() == kind
}

fn unpack<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<Written<T>, Refusal> {
    schema::unpack(bytes).ok_or_else(|| match bytes.first() {
        Some(&version) if version > schema::VALUE_VERSION => {
            Refusal::ValueVersion { key: key.to_owned(), version }
        }
        _ => problem(key, "it can't be read"),
    })
}

fn problem(key: &str, problem: &'static str) -> Refusal {
    Refusal::Value { key: key.to_owned(), problem }
}

fn stamp_of(op: &legacy::OpId) -> Option<Stamp> {
    Some(Stamp { counter: op.0, writer: schema::writer(&op.1)? })
}
