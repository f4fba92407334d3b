//! The gate: what stands between changes from elsewhere and the CRDT engine.
//!
//! A crafted change can make the engine panic, allocate gigabytes, or leave a document that can't be
//! loaded again. So each change, our own included, passes three checks before the engine sees it:
//!
//! 1. [`wire`]: the bytes are a change, in the one encoding that the engine itself would choose;
//! 2. [`operations`]: each op writes a well-formed value under a key of our schema;
//! 3. [`context`]: sequence, counters, predecessors, nodes and parents fit the change's causal past.
//!
//! Invariant: the verdict is a function of the change and of what it depends on, never of what else
//! this replica holds. All masters admit the same changes, or they would diverge.
//!
//! Not checked here: the signature (the driver's duty) and whether the author is a member (the
//! engine's).

mod context;
mod fuzzing;
mod marking;
mod operations;
mod wire;

use automerge::ChangeHash;

use super::document::Document;
use super::{Update, schema};
use crate::values::{ChangeId, Mark, SignedChange};
use crate::vocabulary::VersionVector;

#[cfg(test)]
mod tests;

pub use fuzzing::{Fuzzed, fuzz_bytes, fuzz_seeds};
pub(super) use marking::mark_of;
pub(super) use operations::{Operation, Payload};

/// The largest change in bytes: one fits a message with room for its envelope.
pub const CHANGE_BYTES_MAX: usize = (4 << 20) - (64 << 10);

/// Why a change is not taken in. Whoever sent it, and whoever signed it, did wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More than [`CHANGE_BYTES_MAX`] bytes.
    #[error("a change of {0} bytes is larger than {CHANGE_BYTES_MAX}")]
    TooLarge(usize),
    /// Not a change at all.
    #[error("not the encoding of a change: {0}")]
    Malformed(&'static str),
    /// A change, but not encoded as the engine would.
    #[error("not the canonical encoding of the change")]
    NotCanonical,
    /// The bytes are by another writer or have another sequence than the envelope says, or the writer
    /// is not the author's.
    #[error("the change is not the author's")]
    NotTheAuthors,
    /// The writer has another change of that sequence.
    #[error("the writer has another change with this sequence")]
    Equivocation,
    /// The change does not follow on the writer's one before, or its counters not on those seen.
    #[error("out of sequence: {0}")]
    Sequence(&'static str),
    /// An op on an object that is none of the schema's.
    #[error("an op on an object that the schema does not have")]
    ForeignObject,
    /// An op on a key that is none of the schema's, or of another kind of object.
    #[error("an op on the key {0:?}, which the schema does not have there")]
    ForeignKey(String),
    /// A value that its key can't have.
    #[error("the value of {key:?} is malformed: {problem}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// An op that does not replace exactly what its author had seen.
    #[error("the op on {0:?} does not replace what its author had seen")]
    Predecessors(String),
    /// A node, or the directory it is placed in, that the author can't have known, or of the wrong kind.
    #[error("the value of {key:?} does not fit its node: {problem}")]
    Node {
        /// The key.
        key: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A value that is packed as this version does not know it.
    #[error("the value of {key:?} is of version {version}, and this pleach reads version {known}",
        known = schema::VALUE_VERSION)]
    ValueVersion {
        /// The key.
        key: String,
        /// Its version.
        version: u8,
    },
    /// The engine itself said no.
    #[error("the CRDT engine refused the change: {0}")]
    Engine(String),
}

impl Refusal {
    /// Whether a later version of pleach may have written it, for people to whom that has to be said: it
    /// names objects, keys or versions of values that this one does not have. A later schema stays with
    /// maps of bytes; what goes beyond is another version of the protocol, and never comes here.
    #[must_use]
    pub fn may_be_of_a_later_version(&self) -> bool {
        match self {
            Self::ForeignObject | Self::ForeignKey(_) | Self::ValueVersion { .. } => true,
            Self::TooLarge(_)
            | Self::Malformed(_)
            | Self::NotCanonical
            | Self::NotTheAuthors
            | Self::Equivocation
            | Self::Sequence(_)
            | Self::Value { .. }
            | Self::Predecessors(_)
            | Self::Node { .. }
            | Self::Engine(_) => false,
        }
    }
}

/// A change that has passed the gate: nothing but [`Document`] can make use of it.
#[derive(Debug)]
pub struct CheckedChange {
    pub(super) id: ChangeId,
    pub(super) change: automerge::Change,
    pub(super) seen: VersionVector,
    pub(super) operations: Vec<Operation>,
}

/// What the gate says of a change that is not refused.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It can be applied now.
    Admitted(Box<CheckedChange>),
    /// It is in the document.
    Held,
    /// It depends on changes that are not here; these are all its dependencies.
    Orphaned(Vec<ChangeHash>),
}

/// What a change says, for showing it to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its writer and sequence.
    pub id: ChangeId,
    /// When its author's clock says the user acted, in milliseconds since 1970; 0 if it doesn't.
    pub time_ms: i64,
    /// What it wrote to nodes, with its own values only.
    pub updates: Vec<Update>,
}

/// What a change is about, for an index of the log; read as [`tell`] reads it.
pub fn mark(bytes: &[u8]) -> Result<Mark, Refusal> {
    let (id, change) = open(bytes)?;
    Ok(mark_of(id, change.time, &operations::read(id, &change)?))
}

/// The hash of a change: its name among those that depend on it.
pub(super) fn hash_of(bytes: &[u8]) -> Result<ChangeHash, Refusal> {
    wire::hash(bytes)
}

/// What a change says, and what it depends on.
pub(super) fn tell_with_past(bytes: &[u8]) -> Result<(Told, Vec<ChangeHash>), Refusal> {
    let (id, change) = open(bytes)?;
    Ok((told(id, &change)?, change.deps))
}

fn open(bytes: &[u8]) -> Result<(ChangeId, automerge::ExpandedChange), Refusal> {
    wire::hash(bytes)?;
    let change = wire::read(bytes)?;
    let writer = schema::writer(&change.actor_id).ok_or(Refusal::NotTheAuthors)?;
    Ok((ChangeId { writer, sequence: change.seq }, change))
}

/// Reads a change without a document. What it says is well-formed, and nothing is known of its truth.
pub fn tell(bytes: &[u8]) -> Result<Told, Refusal> {
    let (id, change) = open(bytes)?;
    told(id, &change)
}

fn told(id: ChangeId, change: &automerge::ExpandedChange) -> Result<Told, Refusal> {
    let updates = operations::read(id, change)?.into_iter().filter_map(|operation| {
        Some(match operation.payload {
            Payload::Birth(node, written) => Update::Born(node, written),
            Payload::DirectoryPlace(node, written) => Update::DirectoryPlace(node, written),
            Payload::Register(node, register, written) => {
                Update::Register(node, register, vec![written])
            }
            Payload::Member(_) | Payload::Setting(_) | Payload::Batch | Payload::Gap => {
                return None;
            }
        })
    });
    Ok(Told { id, time_ms: change.time, updates: updates.collect() })
}

/// Checks a received change against the document.
pub(super) fn check(change: &SignedChange, document: &Document) -> Result<Verdict, Refusal> {
    if !change.id.writer.belongs_to(change.author) {
        return Err(Refusal::NotTheAuthors);
    }
    check_bytes(change.id, &change.bytes, document)
}

/// Checks a change whoever its author is; a change that this master is about to make its own, too:
/// what others would refuse must never be written.
pub(super) fn check_bytes(
    id: ChangeId,
    bytes: &[u8],
    document: &Document,
) -> Result<Verdict, Refusal> {
    let hash = wire::hash(bytes)?;
    if document.past().knows(id) {
        return if document.holds_hash(hash) {
            Ok(Verdict::Held)
        } else {
            Err(Refusal::Equivocation)
        };
    }
    let expanded = wire::read(bytes)?;
    if schema::writer(&expanded.actor_id) != Some(id.writer) || expanded.seq != id.sequence {
        return Err(Refusal::NotTheAuthors);
    }
    if id.writer == schema::GENESIS_WRITER || id.sequence == 0 || id.sequence > u64::from(u32::MAX)
    {
        return Err(Refusal::Sequence("no writer has it"));
    }
    let operations = operations::read(id, &expanded)?;
    let start_op = expanded.start_op.get();
    let change = wire::rebuild(expanded, bytes)?;
    if change.hash() != hash {
        return Err(Refusal::Malformed("hash"));
    }
    if !change.deps().iter().all(|dependency| document.holds_hash(*dependency)) {
        return Ok(Verdict::Orphaned(change.deps().to_vec()));
    }
    let seen = context::check(id, start_op, change.deps(), &operations, document)?;
    Ok(Verdict::Admitted(Box::new(CheckedChange { id, change, seen, operations })))
}
