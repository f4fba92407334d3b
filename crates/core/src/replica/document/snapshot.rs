//! Snapshots: the whole document as bytes, and back.
//!
//! A snapshot is a magic line, the BLAKE3 hash of the rest, and the engine's own encoding. The hash
//! tells damage from what was written; even so, everything read is checked against the schema.

use automerge::{Automerge, ChangeHash, LoadOptions, ReadDoc, ScalarValueRef, ValueRef};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

use super::{Document, Nodes, Orphans};
use crate::replica::past::Past;
use crate::replica::schema::{self, BUCKETS, GENESIS_LAST_OP, Object, Slot};
use crate::replica::{Birth, Place, Update, Value, Written};
use crate::values::ChangeId;
use crate::vocabulary::{NodeId, Stamp, VersionVector};

const MAGIC: &[u8; 19] = b"pleach document 01\n";

/// A snapshot that can't be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// Not a snapshot, or one of another version of pleach.
    #[error("not a document of this version of pleach")]
    Foreign,
    /// Bytes were changed or lost since it was written.
    #[error("the bytes are not the ones that were written")]
    Checksum,
    /// The engine can't read it.
    #[error("the CRDT engine can't read it: {0}")]
    Engine(String),
    /// Something in it is not of the schema.
    #[error("it holds what no document holds: {0}")]
    Schema(&'static str),
}

impl Document {
    /// The document as bytes, without waiting changes and without the writer.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let body = self.engine.save_nocompress();
        let mut bytes = Vec::with_capacity(MAGIC.len() + 32 + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(blake3::hash(&body).as_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Loads what [`Document::save`] wrote, and tells everything that is in it: all births first, then
    /// places of directories and registers, in no particular order.
    pub fn load(bytes: &[u8], tell: &mut dyn FnMut(Update)) -> Result<Self, Damaged> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(Damaged::Foreign)?;
        let (hash, body) = rest.split_first_chunk::<32>().ok_or(Damaged::Checksum)?;
        if blake3::hash(body).as_bytes() != hash {
            return Err(Damaged::Checksum);
        }
        let engine = Automerge::load_with_options(body, LoadOptions::new())
            .map_err(|error| Damaged::Engine(error.to_string()))?;
        let (_, genesis) = schema::genesis();
        let (past, last_op) = read_past(&engine, genesis)?;
        let mut document = Self {
            engine,
            genesis,
            past,
            nodes: Nodes::default(),
            orphans: Orphans::default(),
            last_op,
            writer: None,
        };
        document.read_births(tell)?;
        document.read_registers(tell)?;
        Ok(document)
    }

    fn read_births(&mut self, tell: &mut dyn FnMut(Update)) -> Result<(), Damaged> {
        let batches: Vec<Object> = self
            .engine
            .map_range(Object::Batches.id(), ..)
            .filter_map(|item| match item.id() {
                automerge::ObjId::Id(counter, actor, _) => {
                    let writer = schema::writer(&actor)?;
                    Some(Object::Batch(Stamp { counter, writer }))
                }
                automerge::ObjId::Root => None,
            })
            .collect();
        for object in buckets().chain(batches) {
            for item in self.engine.map_range(object.id(), ..) {
                if item.key.len() != schema::BIRTH_KEY_BYTES {
                    continue;
                }
                let (node, _) = node_slot(&item.key)?;
                let written: Written<Birth> = read(&item.value)?;
                if !self.past.knows(written.change()) {
                    return Err(Damaged::Schema("a birth without its change"));
                }
                let writer = self.past.number(written.stamp.writer);
                self.nodes.insert(node, written.value.body.kind(), writer, written.sequence);
                tell(Update::Born(node, written));
            }
        }
        Ok(())
    }

    fn read_registers(&self, tell: &mut dyn FnMut(Update)) -> Result<(), Damaged> {
        for object in buckets() {
            for item in self.engine.map_range(object.id(), ..) {
                match node_slot(&item.key)? {
                    (_, Slot::Birth) => {}
                    (node, Slot::DirectoryPlace(_)) => {
                        let written: Written<Place> = read(&item.value)?;
                        tell(Update::DirectoryPlace(node, written));
                    }
                    (node, Slot::Register(register)) => {
                        let values: Vec<Written<Value>> = if item.conflict {
                            self.current(object, &item.key)
                        } else {
                            vec![read(&item.value)?]
                        };
                        tell(Update::Register(node, register, values));
                    }
                }
            }
        }
        Ok(())
    }
}

fn buckets() -> impl Iterator<Item = Object> {
    (0..BUCKETS).map(|index| Object::Bucket(index as u16))
}

fn node_slot(key: &str) -> Result<(NodeId, Slot), Damaged> {
    schema::parse_node_key(key).ok_or(Damaged::Schema("a key that names no node"))
}

fn read<T: DeserializeOwned>(value: &ValueRef<'_>) -> Result<Written<T>, Damaged> {
    match value {
        ValueRef::Scalar(ScalarValueRef::Bytes(bytes)) => schema::unpack(bytes),
        _ => None,
    }
    .ok_or(Damaged::Schema("a value that can't be read"))
}

/// Replays the change graph, and finds the largest counter.
fn read_past(engine: &Automerge, genesis: ChangeHash) -> Result<(Past, u64), Damaged> {
    let mut past = Past::default();
    let mut last_op = GENESIS_LAST_OP;
    let mut changes: BTreeMap<ChangeHash, ChangeId> = BTreeMap::new();
    let mut found_genesis = false;
    for meta in engine.get_changes_meta(&[]) {
        if meta.hash == genesis {
            found_genesis = true;
            continue;
        }
        let writer = schema::writer(&meta.actor).ok_or(Damaged::Schema("a writer's id"))?;
        let id = ChangeId { writer, sequence: meta.seq };
        let mut seen = VersionVector::new();
        for dependency in meta.deps.iter().filter(|hash| **hash != genesis) {
            let change = changes.get(dependency).ok_or(Damaged::Schema("changes out of order"))?;
            past.join_seen_by(*change, &mut seen);
        }
        if seen.last(writer) + 1 != id.sequence || past.known().last(writer) + 1 != id.sequence {
            return Err(Damaged::Schema("a writer's changes out of sequence"));
        }
        past.record(id, &seen);
        changes.insert(meta.hash, id);
        last_op = last_op.max(meta.max_op);
    }
    if found_genesis { Ok((past, last_op)) } else { Err(Damaged::Schema("another genesis")) }
}
