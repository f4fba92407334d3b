//! The document: registers on automerge, and the changes they came in.
//!
//! One automerge document holds everything that is replicated: nodes, members, settings. It knows
//! nothing of trees. What it learns, from changes of this master and of others alike, it tells as
//! [`Update`]s; whoever wants a tree makes it of those.
//!
//! Invariants: every change in it has passed [`super::gate`], so every value in it can be read; `past`
//! and `nodes` mirror the engine's change graph and its births.
//!
//! Deliberately not here: the bytes of changes (the driver's log has them), signatures, membership.

mod ancestry;
mod draft;
#[cfg(test)]
mod histories;
mod nodes;
mod orphans;
mod snapshot;
#[cfg(test)]
pub(super) mod tests;

use automerge::{Automerge, ChangeHash, ReadDoc};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use super::gate::{self, CheckedChange, Operation, Payload, Refusal, Verdict};
use super::past::Past;
use super::schema::{self, GENESIS_LAST_OP, Object, Slot};
use super::{Register, Update, Written};
use crate::values::{ChangeId, Mark, Member, SignedChange};
use crate::vocabulary::{ContentHash, Kind, MasterId, NodeId, Stamp, VersionVector, WriterId};

pub use draft::{Committed, Draft};
pub use orphans::{ORPHAN_BYTES_MAX, ORPHANS_MAX};
pub use snapshot::Damaged;

use nodes::Nodes;
use orphans::Orphans;

/// The replicated state of a store.
#[derive(Clone, Debug)]
pub struct Document {
    engine: Automerge,
    genesis: ChangeHash,
    past: Past,
    nodes: Nodes,
    orphans: Orphans,
    /// The largest op counter in the engine.
    last_op: u64,
    writer: Option<WriterId>,
}

/// What became of received changes.
#[derive(Debug, Default)]
pub struct Received {
    /// Changes now in the document that were not before, in the order in which they were applied;
    /// among them may be such as had waited for one just received.
    pub landed: Vec<SignedChange>,
    /// What each of them is about, in the same order.
    pub marks: Vec<Mark>,
    /// What they wrote: births and places in that order, then each register they wrote, once.
    pub updates: Vec<Update>,
    /// Whether the member list may differ from before.
    pub members: Altered,
    /// Whether the settings may differ from before.
    pub settings: Altered,
    /// Changes that nobody must take in, and why; among them may be such as had waited.
    pub refused: Vec<(SignedChange, Refusal)>,
    /// Waiting changes that were given up for lack of room. They will be sent again when asked for.
    pub dropped: Vec<ChangeId>,
}

/// Whether something may differ from before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Altered {
    /// It is as it was.
    #[default]
    Same,
    /// It was written to.
    Written,
}

/// What changes have touched, to be told as updates.
#[derive(Debug, Default)]
struct Touched {
    updates: Vec<Update>,
    registers: BTreeSet<(NodeId, Register)>,
    members: Altered,
    settings: Altered,
}

impl Default for Document {
    fn default() -> Self {
        Self::new()
    }
}

impl Document {
    /// A document that holds nothing but the genesis.
    #[must_use]
    pub fn new() -> Self {
        // A copy of it costs a hundredth of applying the change again.
        static GENESIS: LazyLock<(Automerge, ChangeHash)> = LazyLock::new(|| {
            let (change, genesis) = schema::genesis();
            let mut engine = Automerge::new();
            engine.apply_changes([change]).expect("the genesis depends on nothing");
            (engine, genesis)
        });
        let (engine, genesis) = GENESIS.clone();
        Self {
            engine,
            genesis,
            past: Past::default(),
            nodes: Nodes::default(),
            orphans: Orphans::default(),
            last_op: GENESIS_LAST_OP,
            writer: None,
        }
    }

    /// Sets who writes from now on: a fresh one for every start, or others will take the changes for
    /// ones they have.
    pub fn set_writer(&mut self, writer: WriterId) {
        assert_eq!(self.past.known().last(writer), 0, "a writer is never used twice");
        self.writer = Some(writer);
    }

    /// Who writes.
    #[must_use]
    pub fn writer(&self) -> Option<WriterId> {
        self.writer
    }

    /// Who had seen what; knows every change in the document.
    #[must_use]
    pub fn past(&self) -> &Past {
        &self.past
    }

    /// The changes in the document.
    #[must_use]
    pub fn known(&self) -> &VersionVector {
        self.past.known()
    }

    /// A hash over the heads: documents of equal version vectors have equal ones, unless a writer
    /// wrote two changes of one sequence.
    #[must_use]
    pub fn heads(&self) -> ContentHash {
        let mut hasher = blake3::Hasher::new();
        for head in self.engine.get_heads() {
            hasher.update(&head.0);
        }
        ContentHash(*hasher.finalize().as_bytes())
    }

    /// The kind of a node; none if it isn't known.
    #[must_use]
    pub fn kind(&self, node: NodeId) -> Option<Kind> {
        self.birth_of(node).map(|(kind, _)| kind)
    }

    /// How many changes wait for ones they depend on.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.orphans.len()
    }

    /// Begins a change of this master's. Nothing is written before it is committed.
    pub fn begin(&mut self) -> Draft<'_> {
        Draft::new(self)
    }

    /// Takes in changes of others, in any order. Whatever is in the document already is passed over.
    pub fn receive(&mut self, changes: impl IntoIterator<Item = SignedChange>) -> Received {
        let mut received = Received::default();
        let mut touched = Touched::default();
        for change in changes {
            self.receive_one(change, &mut received, &mut touched);
        }
        received.updates = self.tell(&mut touched);
        received.members = touched.members;
        received.settings = touched.settings;
        received
    }

    /// The member list, removed members included.
    #[must_use]
    pub fn members(&self) -> BTreeMap<MasterId, Member> {
        let mut members = BTreeMap::new();
        for (_, values) in self.map_values::<Member>(Object::Members) {
            let removed = values.iter().any(|written| written.value.removed);
            if let Some(written) = values.into_iter().max_by_key(|written| written.stamp) {
                let member = Member { removed, ..written.value };
                members.insert(member.master, member);
            }
        }
        members
    }

    /// The store's settings.
    #[must_use]
    pub fn settings(&self) -> BTreeMap<String, Vec<u8>> {
        let newest = |values: Vec<Written<Vec<u8>>>| {
            values.into_iter().max_by_key(|written| written.stamp).map(|written| written.value)
        };
        self.map_values(Object::Settings)
            .into_iter()
            .filter_map(|(key, values)| Some((key, newest(values)?)))
            .collect()
    }

    /// Applies what the gate admits of these bytes, as the driver of a fuzzer.
    pub(super) fn admit(&mut self, id: ChangeId, bytes: &[u8]) -> Result<Received, Refusal> {
        let mut received = Received::default();
        if let Verdict::Admitted(checked) = gate::check_bytes(id, bytes, self)? {
            let mut touched = Touched::default();
            self.land(*checked, &mut touched)?;
            received.updates = self.tell(&mut touched);
        }
        Ok(received)
    }

    fn receive_one(
        &mut self,
        change: SignedChange,
        received: &mut Received,
        touched: &mut Touched,
    ) {
        // Each turn lands or discards a change that was received or had waited.
        let mut ready = vec![change];
        while let Some(change) = ready.pop() {
            match gate::check(&change, self) {
                Ok(Verdict::Admitted(checked)) => {
                    let hash = checked.change.hash();
                    match self.land(*checked, touched) {
                        Ok(mark) => {
                            received.landed.push(change);
                            received.marks.push(mark);
                        }
                        Err(refusal) => received.refused.push((change, refusal)),
                    }
                    ready.extend(self.orphans.landed(hash));
                }
                Ok(Verdict::Held) => {}
                Ok(Verdict::Orphaned(dependencies)) => {
                    let missing = dependencies.iter().find(|hash| !self.holds_hash(**hash));
                    let missing = *missing.expect("an orphan misses a dependency");
                    received.dropped.extend(self.orphans.wait(missing, change));
                }
                Err(refusal) => received.refused.push((change, refusal)),
            }
        }
    }

    /// Applies a checked change; what it is about.
    fn land(&mut self, checked: CheckedChange, touched: &mut Touched) -> Result<Mark, Refusal> {
        let CheckedChange { id, change, seen, operations } = checked;
        let mark = gate::mark_of(id, change.timestamp(), &operations);
        let last_op = change.max_op();
        self.engine.apply_changes([change]).map_err(|error| Refusal::Engine(error.to_string()))?;
        self.last_op = self.last_op.max(last_op);
        self.past.record(id, &seen);
        let writer = self.past.number(id.writer);
        for Operation { payload, .. } in operations {
            match payload {
                Payload::Birth(node, written) => {
                    self.nodes.insert(node, written.value.body.kind(), writer, id.sequence);
                    touched.updates.push(Update::Born(node, written));
                }
                Payload::DirectoryPlace(node, written) => {
                    touched.updates.push(Update::DirectoryPlace(node, written));
                }
                Payload::Register(node, register, _) => {
                    touched.registers.insert((node, register));
                }
                Payload::Member(_) => touched.members = Altered::Written,
                Payload::Setting(_) => touched.settings = Altered::Written,
                Payload::Batch | Payload::Gap => {}
            }
        }
        Ok(mark)
    }

    fn tell(&self, touched: &mut Touched) -> Vec<Update> {
        let mut updates = std::mem::take(&mut touched.updates);
        for (node, register) in std::mem::take(&mut touched.registers) {
            let key = schema::node_key(node, &Slot::Register(register.clone()));
            let values = self.current(Object::bucket_of(node), &key);
            updates.push(Update::Register(node, register, values));
        }
        updates
    }

    /// The current values of a key, by stamp.
    fn current<T: serde::de::DeserializeOwned>(
        &self,
        object: Object,
        key: &str,
    ) -> Vec<Written<T>> {
        let values = self.engine.get_all(object.id(), key).unwrap_or_default();
        let mut values: Vec<Written<T>> =
            values.iter().filter_map(|(value, _)| schema::unpack(value_bytes(value)?)).collect();
        values.sort_by_key(|written| written.stamp);
        values
    }

    fn map_values<T: serde::de::DeserializeOwned>(
        &self,
        object: Object,
    ) -> Vec<(String, Vec<Written<T>>)> {
        let keys: Vec<String> = self.engine.keys(object.id()).collect();
        keys.into_iter()
            .map(|key| {
                let values = self.current(object, &key);
                (key, values)
            })
            .collect()
    }
}

/// What the gate asks.
impl Document {
    pub(super) fn genesis(&self) -> ChangeHash {
        self.genesis
    }

    pub(super) fn holds_hash(&self, hash: ChangeHash) -> bool {
        hash == self.genesis || self.engine.get_change_meta_by_hash(&hash).is_some()
    }

    /// The change with this hash and the counter of its last op; none for the genesis.
    pub(super) fn change_of(&self, hash: ChangeHash) -> Option<(ChangeId, u64)> {
        let meta = self.engine.get_change_meta_by_hash(&hash)?;
        let writer = schema::writer(&meta.actor).filter(|_| hash != self.genesis)?;
        Some((ChangeId { writer, sequence: meta.seq }, meta.max_op))
    }

    /// Kind and birth of a node; the root has no birth.
    pub(super) fn birth_of(&self, node: NodeId) -> Option<(Kind, Option<ChangeId>)> {
        if node == NodeId::ROOT {
            return Some((Kind::Directory, None));
        }
        let born = self.nodes.get(node)?;
        let birth =
            ChangeId { writer: self.past.writer(born.writer), sequence: u64::from(born.sequence) };
        Some((born.kind, Some(birth)))
    }

    /// The packed values of a key as of these changes.
    pub(super) fn values_seen(
        &self,
        object: Object,
        key: &str,
        dependencies: &[ChangeHash],
    ) -> Vec<Vec<u8>> {
        let values = self.engine.get_all_at(object.id(), key, dependencies).unwrap_or_default();
        values.iter().filter_map(|(value, _)| value_bytes(value).map(<[u8]>::to_vec)).collect()
    }

    /// The ops whose values of a key were current as of these changes, which together had seen `seen`.
    pub(super) fn predecessors_seen(
        &self,
        object: Object,
        key: &str,
        seen: &VersionVector,
        dependencies: &[ChangeHash],
    ) -> Vec<Stamp> {
        // If all that is current now was seen then, it was current then: whatever had replaced it
        // since would be current now, or replaced by what is.
        let now = self.engine.get_all(object.id(), key).unwrap_or_default();
        let all_seen = now.iter().all(|(value, _)| {
            let change = value_bytes(value).and_then(schema::unpack_change);
            change.is_some_and(|change| seen.last(change.writer) >= change.sequence)
        });
        let values = if all_seen {
            now
        } else {
            self.engine.get_all_at(object.id(), key, dependencies).unwrap_or_default()
        };
        op_stamps(&values)
    }

    /// The ops whose values of a key are current.
    fn predecessors_now(&self, object: Object, key: &str) -> Vec<Stamp> {
        op_stamps(&self.engine.get_all(object.id(), key).unwrap_or_default())
    }
}

fn value_bytes<'a>(value: &'a automerge::Value<'_>) -> Option<&'a [u8]> {
    match value {
        automerge::Value::Scalar(scalar) => match scalar.as_ref() {
            automerge::ScalarValue::Bytes(bytes) => Some(bytes),
            _ => None,
        },
        automerge::Value::Object(_) => None,
    }
}

fn op_stamps(values: &[(automerge::Value<'_>, automerge::ObjId)]) -> Vec<Stamp> {
    let stamp = |id: &automerge::ObjId| match id {
        automerge::ObjId::Id(counter, actor, _) => {
            Some(Stamp { counter: *counter, writer: schema::writer(actor)? })
        }
        automerge::ObjId::Root => None,
    };
    let mut stamps: Vec<Stamp> = values.iter().filter_map(|(_, id)| stamp(id)).collect();
    stamps.sort_unstable();
    stamps
}
