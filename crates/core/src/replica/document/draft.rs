//! Drafts: a change of this master's while it is being written.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use automerge::{ExpandedChange, legacy};

use super::{Altered, Document, Touched};
use crate::replica::gate::{self, Refusal, Verdict};
use crate::replica::schema::{self, Object, Slot};
use crate::replica::{Birth, Register, Update, Value, Written};
use crate::values::{ChangeId, Mark, Member};
use crate::vocabulary::{Kind, NodeId, Stamp};

/// From so many births on they get a map of their own, which the engine takes in tenfold faster.
const BATCH_BIRTHS_MIN: usize = 256;

/// What a change takes beside its ops and dependencies.
const HEADER_BYTES: usize = 256;
const DEPENDENCY_BYTES: usize = 32;
/// What an op takes beside key, value and predecessors.
const OPERATION_BYTES: usize = 16;
/// A predecessor's counter, and its writer, which may be named nowhere else.
const PREDECESSOR_BYTES: usize = 24;
/// A birth's key, and the most that its fields of fixed size take.
const BIRTH_BYTES: usize = schema::BIRTH_KEY_BYTES + 120;

/// A change while it is being written. Dropping it writes nothing.
#[derive(Debug)]
#[must_use = "a draft writes nothing until it is committed"]
pub struct Draft<'a> {
    document: &'a mut Document,
    id: ChangeId,
    first: u64,
    next: u64,
    time_ms: i64,
    births: Vec<(NodeId, Written<Birth>)>,
    kinds: BTreeMap<NodeId, Kind>,
    puts: BTreeMap<(Object, String), Put>,
    /// The last place given to each directory, as it is keyed by its stamp.
    directory_places: BTreeMap<NodeId, String>,
    size: usize,
}

/// A value to be put, and the ops whose values it replaces.
#[derive(Debug)]
struct Put {
    value: Vec<u8>,
    replaced: Vec<Stamp>,
}

/// A change of this master's, now in the document.
#[derive(Debug)]
pub struct Committed {
    /// Its writer and sequence.
    pub id: ChangeId,
    /// The change as it travels, to be signed.
    pub bytes: Vec<u8>,
    /// What it is about.
    pub mark: Mark,
    /// What it wrote: births and places in order, then each register it wrote, once.
    pub updates: Vec<Update>,
    /// Whether the member list may differ from before.
    pub members: Altered,
    /// Whether the settings may differ from before.
    pub settings: Altered,
}

impl<'a> Draft<'a> {
    pub(super) fn new(document: &'a mut Document) -> Self {
        let writer = document.writer.expect("a writer is set before anything is written");
        let sequence = document.known().last(writer) + 1;
        let first = document.last_op + 1;
        let size = HEADER_BYTES + DEPENDENCY_BYTES * document.engine.get_heads().len();
        Self {
            document,
            id: ChangeId { writer, sequence },
            first,
            next: first,
            time_ms: 0,
            births: Vec::new(),
            kinds: BTreeMap::new(),
            puts: BTreeMap::new(),
            directory_places: BTreeMap::new(),
            size,
        }
    }

    /// The change that this will be.
    #[must_use]
    pub fn id(&self) -> ChangeId {
        self.id
    }

    /// The document without this draft.
    #[must_use]
    pub fn document(&self) -> &Document {
        self.document
    }

    /// Notes when the user acted, in milliseconds since 1970. Shown to people, orders nothing.
    pub fn set_time(&mut self, unix_ms: i64) {
        self.time_ms = unix_ms;
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.births.is_empty() && self.puts.is_empty()
    }

    /// About how many bytes the change will have, rather more than less. Above
    /// [`gate::CHANGE_BYTES_MAX`] it can't be committed: commit before, and go on in another.
    #[must_use]
    pub fn size_estimate(&self) -> usize {
        self.size
    }

    /// Makes a node. Its directory must be known, or born earlier in this draft.
    pub fn birth(&mut self, birth: Birth) -> (NodeId, Stamp) {
        let stamp = self.stamp();
        let node = NodeId::born_at(stamp);
        self.kinds.insert(node, birth.body.kind());
        let written = Written { stamp, sequence: self.id.sequence, value: birth };
        self.size += birth_size(&written.value);
        self.births.push((node, written));
        (node, stamp)
    }

    /// Writes a register of a node that is known, or was born in this draft.
    ///
    /// A second write of a register, or place of a directory, takes the place of the first.
    pub fn register(&mut self, node: NodeId, register: Register, value: Value) -> Stamp {
        let stamp = self.stamp();
        let sequence = self.id.sequence;
        let kind = self.kinds.get(&node).copied().or_else(|| self.document.kind(node));
        let bucket = Object::bucket_of(node);
        match (kind, register, value) {
            (Some(Kind::Directory), Register::Place, Value::Place(place)) => {
                let key = schema::node_key(node, &Slot::DirectoryPlace(stamp));
                if let Some(before) = self.directory_places.insert(node, key.clone()) {
                    self.unput(bucket, before);
                }
                self.put(bucket, key, schema::pack(&Written { stamp, sequence, value: place }));
            }
            (_, register, value) => {
                let key = schema::node_key(node, &Slot::Register(register));
                self.put(bucket, key, schema::pack(&Written { stamp, sequence, value }));
            }
        }
        stamp
    }

    /// Adds a member or changes what is said of it.
    pub fn member(&mut self, member: Member) -> Stamp {
        let (stamp, sequence) = (self.stamp(), self.id.sequence);
        let key = schema::member_key(member.master);
        let value = schema::pack(&Written { stamp, sequence, value: member });
        self.put(Object::Members, key, value);
        stamp
    }

    /// Sets a setting of the store.
    pub fn setting(&mut self, key: &str, value: Vec<u8>) -> Stamp {
        let (stamp, sequence) = (self.stamp(), self.id.sequence);
        let value = schema::pack(&Written { stamp, sequence, value });
        self.put(Object::Settings, key.to_owned(), value);
        stamp
    }

    /// Puts the change into the document; none if it is empty.
    ///
    /// Refused, and the document left as it was, if the gates of others would refuse it: too large, or
    /// a value that its caller should not have written.
    pub fn commit(self) -> Result<Option<Committed>, Refusal> {
        if self.is_empty() {
            return Ok(None);
        }
        let id = self.id;
        let stamps = self.next - self.first;
        let deps = self.document.engine.get_heads();
        let operations = operations(self.document, id, self.first, stamps, self.births, self.puts);
        let change = automerge::Change::from(ExpandedChange {
            operations,
            actor_id: schema::actor(id.writer),
            hash: None,
            seq: id.sequence,
            start_op: NonZeroU64::new(self.first).expect("counters follow on the genesis"),
            time: self.time_ms,
            message: None,
            deps,
            extra_bytes: Vec::new(),
            author: None,
        });
        let bytes = change.raw_bytes().to_vec();
        let checked = match gate::check_bytes(id, &bytes, self.document)? {
            Verdict::Admitted(checked) => *checked,
            Verdict::Held | Verdict::Orphaned(_) => {
                return Err(Refusal::Sequence("a draft follows on its document"));
            }
        };
        let mut touched = Touched::default();
        let mark = self.document.land(checked, &mut touched)?;
        let updates = self.document.tell(&mut touched);
        let (members, settings) = (touched.members, touched.settings);
        Ok(Some(Committed { id, bytes, mark, updates, members, settings }))
    }

    /// A stamp of the change's own that no value has.
    pub fn stamp(&mut self) -> Stamp {
        let stamp = Stamp { counter: self.next, writer: self.id.writer };
        self.next += 1;
        stamp
    }

    fn put(&mut self, object: Object, key: String, value: Vec<u8>) {
        let replaced = self.document.predecessors_now(object, &key);
        self.size += OPERATION_BYTES + key.len() + value.len();
        self.size += PREDECESSOR_BYTES * replaced.len();
        if let Some(before) = self.puts.insert((object, key), Put { value, replaced }) {
            self.size -= before.value.len();
        }
    }

    fn unput(&mut self, object: Object, key: String) {
        // Its size stays in the estimate, for the gap that it leaves.
        self.puts.remove(&(object, key));
    }
}

fn birth_size(birth: &Birth) -> usize {
    let xattrs: usize = birth.xattrs.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
    let owner = birth.owner.as_ref().map_or(0, |owner| owner.user.len() + owner.group.len() + 16);
    let link = match &birth.body {
        crate::values::Body::Symlink { target, .. } => target.as_bytes().len(),
        _ => 0,
    };
    BIRTH_BYTES + OPERATION_BYTES + birth.place.name.as_bytes().len() + xattrs + owner + link
}

/// The ops of a draft, as many as it gave out stamps at least.
fn operations(
    document: &Document,
    id: ChangeId,
    first: u64,
    stamps: u64,
    births: Vec<(NodeId, Written<Birth>)>,
    puts: BTreeMap<(Object, String), Put>,
) -> Vec<legacy::Op> {
    let mut operations = Vec::with_capacity(births.len() + puts.len() + 1);
    let batch = (births.len() >= BATCH_BIRTHS_MIN).then(|| {
        operations.push(schema::make_batch(&schema::batch_key(id)));
        Object::Batch(Stamp { counter: first, writer: id.writer })
    });
    for (node, birth) in &births {
        let object = batch.unwrap_or(Object::bucket_of(*node));
        let key = schema::node_key(*node, &Slot::Birth);
        operations.push(schema::put(object, &key, schema::pack(birth), Vec::new()));
    }
    for ((object, key), Put { value, replaced }) in puts {
        let pred = replaced.into_iter().map(schema::op_id).collect();
        operations.push(schema::put(object, &key, value, pred));
    }
    let gaps = gaps(document, id, first + operations.len() as u64, first + stamps);
    operations.extend(gaps);
    operations
}

/// Ops that do nothing but use up the counters from `next` to before `end`.
fn gaps(document: &Document, id: ChangeId, next: u64, end: u64) -> Vec<legacy::Op> {
    let key = schema::gap_key(id.writer);
    let mut replaced = document.predecessors_now(Object::Gaps, &key);
    (next..end)
        .map(|counter| {
            let pred = replaced.iter().copied().map(schema::op_id).collect();
            replaced = vec![Stamp { counter, writer: id.writer }];
            schema::put(Object::Gaps, &key, Vec::new(), pred)
        })
        .collect()
}
