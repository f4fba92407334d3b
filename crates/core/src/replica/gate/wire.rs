//! The wire: reads the engine's encoding of a change, strictly and by ourselves.
//!
//! The engine is never shown foreign bytes: its parser inflates without bound, takes run lengths on
//! trust and panics on unknown actions. What is read here is built into a change anew by the engine's
//! own encoder, and the result must be the same bytes ([`rebuild`]). So there is one encoding of a
//! change, the one that a loaded snapshot reproduces, and whatever this reader skips must be what the
//! encoder writes. It reads only columns that our schema uses; every length is checked against the
//! bytes that are there; what a run can multiply is counted against a bound.
//!
//! Format: <https://automerge.org/automerge-binary-format-spec/>, change chunks.

use automerge::{ActorId, ChangeHash, ExpandedChange, ObjType, ScalarValue, legacy};
use sha2::{Digest, Sha256};
use std::num::NonZeroU64;

use super::{CHANGE_BYTES_MAX, Refusal};

/// More ops than a change within its size has.
const OPERATIONS_MAX: usize = CHANGE_BYTES_MAX / 32;

/// More predecessors than a change within its size has: unlike dependencies and actors, many of them
/// fit in few bytes. There is no bound for one op: hostile writers could pile up values until an honest
/// write that replaces them all would be refused.
const PREDECESSORS_MAX: u64 = 2 * OPERATIONS_MAX as u64;

/// The longest key is that of an extended attribute of 255 bytes.
const KEY_BYTES_MAX: usize = 600;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHUNK_CHANGE: u8 = 1;
/// After the magic and the checksum.
const CHUNK_TYPE_AT: usize = 8;

// Column specifications: id << 4 | deflate << 3 | type.
const OBJECT_ACTOR: u64 = 0x01;
const OBJECT_COUNTER: u64 = 0x02;
const KEY_STRING: u64 = 0x15;
const INSERT: u64 = 0x34;
const ACTION: u64 = 0x42;
const VALUE_META: u64 = 0x56;
const VALUE_RAW: u64 = 0x57;
const PREDECESSOR_COUNT: u64 = 0x70;
const PREDECESSOR_ACTOR: u64 = 0x71;
const PREDECESSOR_COUNTER: u64 = 0x73;

const ACTION_MAKE_MAP: u64 = 0;
const ACTION_PUT: u64 = 1;
const VALUE_TYPE_NULL: u64 = 0;
const VALUE_TYPE_BYTES: u64 = 7;

/// The hash of a change, from its bytes; refused if they don't begin and end as a change does.
pub(super) fn hash(bytes: &[u8]) -> Result<ChangeHash, Refusal> {
    if bytes.len() > CHANGE_BYTES_MAX {
        return Err(Refusal::TooLarge(bytes.len()));
    }
    let (checksum, _) = split_header(bytes)?;
    let hash = hash_of_chunk(&bytes[CHUNK_TYPE_AT..]);
    if hash.0[..4] == checksum { Ok(hash) } else { Err(Refusal::Malformed("checksum")) }
}

/// Puts the header of a change before a body, whatever that is.
pub(super) fn seal(body: &[u8]) -> Vec<u8> {
    let mut chunk = vec![CHUNK_CHANGE];
    let mut length = body.len();
    while length >= 0x80 {
        chunk.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    chunk.push(length as u8);
    chunk.extend_from_slice(body);
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&hash_of_chunk(&chunk).0[..4]);
    bytes.extend_from_slice(&chunk);
    bytes
}

/// The bytes of a change after its header.
pub(super) fn body(bytes: &[u8]) -> Result<&[u8], Refusal> {
    Ok(split_header(bytes)?.1)
}

/// The hash is over type, length and body.
fn hash_of_chunk(chunk: &[u8]) -> ChangeHash {
    ChangeHash(Sha256::digest(chunk).into())
}

/// Reads a change.
pub(super) fn read(bytes: &[u8]) -> Result<ExpandedChange, Refusal> {
    let (_, body) = split_header(bytes)?;
    let mut input = Input(body);
    let mut deps = Vec::new();
    for _ in 0..input.unsigned()? {
        deps.push(ChangeHash(input.array()?));
    }
    if !deps.is_sorted_by(|a, b| a < b) {
        return Err(Refusal::Malformed("dependencies out of order"));
    }
    let author = input.actor()?;
    let seq = input.unsigned()?;
    let start_op = NonZeroU64::new(input.unsigned()?).ok_or(Refusal::Malformed("op 0"))?;
    let time = input.signed()?;
    if input.unsigned()? != 0 {
        return Err(Refusal::Malformed("a message"));
    }
    let mut actors = vec![author.clone()];
    for _ in 0..input.unsigned()? {
        actors.push(input.actor()?);
    }
    let columns = Columns::read(&mut input)?;
    let operations = columns.operations(&actors)?;
    Ok(ExpandedChange {
        operations,
        actor_id: author,
        hash: None,
        seq,
        start_op,
        time,
        message: None,
        deps,
        extra_bytes: Vec::new(),
        author: None,
    })
}

/// Lets the engine encode the change, and demands the bytes that it was read from.
pub(super) fn rebuild(change: ExpandedChange, bytes: &[u8]) -> Result<automerge::Change, Refusal> {
    let change = automerge::Change::from(change);
    if change.raw_bytes() == bytes { Ok(change) } else { Err(Refusal::NotCanonical) }
}

fn split_header(bytes: &[u8]) -> Result<([u8; 4], &[u8]), Refusal> {
    let mut input = Input(bytes);
    if input.array::<4>()? != MAGIC {
        return Err(Refusal::Malformed("magic"));
    }
    let checksum = input.array::<4>()?;
    if input.array::<1>()? != [CHUNK_CHANGE] {
        return Err(Refusal::Malformed("chunk type"));
    }
    let length = input.unsigned()?;
    if length != input.0.len() as u64 {
        return Err(Refusal::Malformed("length"));
    }
    Ok((checksum, input.0))
}

/// The columns that our ops use; of others, only the length is read.
#[derive(Default)]
struct Columns<'a> {
    object_actor: Column<'a>,
    object_counter: Column<'a>,
    key: Column<'a>,
    action: Column<'a>,
    value_meta: Column<'a>,
    value: Input<'a>,
    predecessor_count: Column<'a>,
    predecessor_actor: Column<'a>,
    predecessor_counter: Column<'a>,
}

impl<'a> Columns<'a> {
    fn read(input: &mut Input<'a>) -> Result<Self, Refusal> {
        let mut lengths = Vec::new();
        for _ in 0..input.unsigned()? {
            lengths.push((input.unsigned()?, input.unsigned()?));
        }
        let mut columns = Self::default();
        for (specification, length) in lengths {
            let data = Input(input.take(length)?);
            let column = match specification {
                OBJECT_ACTOR => &mut columns.object_actor,
                OBJECT_COUNTER => &mut columns.object_counter,
                KEY_STRING => &mut columns.key,
                ACTION => &mut columns.action,
                VALUE_META => &mut columns.value_meta,
                PREDECESSOR_COUNT => &mut columns.predecessor_count,
                PREDECESSOR_ACTOR => &mut columns.predecessor_actor,
                PREDECESSOR_COUNTER => &mut columns.predecessor_counter,
                VALUE_RAW => {
                    columns.value = data;
                    continue;
                }
                // All false, or the rebuilt change differs.
                INSERT => continue,
                _ => return Err(Refusal::Malformed("a column of another schema, or deflated")),
            };
            *column = Column { data, run: Run::Ended };
        }
        if input.0.is_empty() { Ok(columns) } else { Err(Refusal::Malformed("trailing bytes")) }
    }

    fn operations(mut self, actors: &[ActorId]) -> Result<Vec<legacy::Op>, Refusal> {
        let mut operations = Vec::new();
        let mut predecessors_left = PREDECESSORS_MAX;
        let mut counter: i64 = 0;
        while !self.action.at_end() {
            if operations.len() == OPERATIONS_MAX {
                return Err(Refusal::Malformed("too many ops"));
            }
            let obj = self.object(actors)?;
            let key = self.key.string()?.filter(|key| key.len() <= KEY_BYTES_MAX);
            let key = key.ok_or(Refusal::Malformed("no key, or one too long"))?;
            let action = self.action()?;
            let count = self.predecessor_count.unsigned()?.unwrap_or(0);
            predecessors_left = predecessors_left
                .checked_sub(count)
                .ok_or(Refusal::Malformed("too many predecessors"))?;
            let mut pred = Vec::new();
            for _ in 0..count {
                let missing = Refusal::Malformed("predecessor");
                let actor = self.predecessor_actor.actor(actors)?;
                let step = self.predecessor_counter.signed()?.ok_or(missing)?;
                counter = counter.checked_add(step).ok_or(Refusal::Malformed("overflow"))?;
                let counter = u64::try_from(counter).map_err(|_| Refusal::Malformed("overflow"))?;
                pred.push(legacy::OpId(counter, actor));
            }
            if !pred.is_sorted_by(|a, b| a < b) {
                return Err(Refusal::Malformed("predecessors out of order"));
            }
            let key = legacy::Key::Map(key.into());
            operations.push(legacy::Op { action, obj, key, pred: pred.into(), insert: false });
        }
        Ok(operations)
    }

    fn object(&mut self, actors: &[ActorId]) -> Result<legacy::ObjectId, Refusal> {
        // The root object is null in both columns; nothing of ours is written to the root.
        let counter = self.object_counter.unsigned()?.ok_or(Refusal::ForeignObject)?;
        Ok(legacy::ObjectId::Id(legacy::OpId(counter, self.object_actor.actor(actors)?)))
    }

    fn action(&mut self) -> Result<legacy::OpType, Refusal> {
        let action = self.action.unsigned()?;
        let meta = self.value_meta.unsigned()?.unwrap_or(0);
        let (value_type, length) = (meta & 15, meta >> 4);
        match (action, value_type) {
            (Some(ACTION_PUT), VALUE_TYPE_BYTES) => {
                let bytes = self.value.take(length)?.to_vec();
                Ok(legacy::OpType::Put(ScalarValue::Bytes(bytes)))
            }
            (Some(ACTION_MAKE_MAP), VALUE_TYPE_NULL) if length == 0 => {
                Ok(legacy::OpType::Make(ObjType::Map))
            }
            _ => Err(Refusal::Malformed("an op that neither puts bytes nor makes a map")),
        }
    }
}

/// A run-length encoded column: each run is a signed length, then a value (positive), as many values
/// (negative), or a count of nulls (0).
#[derive(Default)]
struct Column<'a> {
    data: Input<'a>,
    run: Run<'a>,
}

#[derive(Clone, Copy, Default)]
enum Run<'a> {
    #[default]
    Ended,
    Same(u64, Input<'a>),
    Each(u64),
    Nulls(u64),
}

impl<'a> Column<'a> {
    fn at_end(&self) -> bool {
        matches!(self.run, Run::Ended) && self.data.0.is_empty()
    }

    /// The next value by `read`; none for a null, and after the end.
    fn next<T>(
        &mut self,
        read: impl Fn(&mut Input<'a>) -> Result<T, Refusal>,
    ) -> Result<Option<T>, Refusal> {
        if let Run::Ended = self.run {
            if self.data.0.is_empty() {
                return Ok(None);
            }
            self.run = match self.data.signed()? {
                0 => Run::Nulls(self.data.unsigned()?),
                length @ 1.. => {
                    let start = self.data;
                    read(&mut self.data)?;
                    Run::Same(length.unsigned_abs(), start)
                }
                length => Run::Each(length.unsigned_abs()),
            };
        }
        let (value, left) = match self.run {
            Run::Same(left, mut value) => (Some(read(&mut value)?), left),
            Run::Each(left) => (Some(read(&mut self.data)?), left),
            Run::Nulls(left) => (None, left),
            Run::Ended => (None, 1),
        };
        let left = left.checked_sub(1).ok_or(Refusal::Malformed("an empty run"))?;
        self.run = match self.run {
            _ if left == 0 => Run::Ended,
            Run::Same(_, value) => Run::Same(left, value),
            Run::Each(_) => Run::Each(left),
            Run::Nulls(_) | Run::Ended => Run::Nulls(left),
        };
        Ok(value)
    }

    fn unsigned(&mut self) -> Result<Option<u64>, Refusal> {
        self.next(Input::unsigned)
    }

    fn signed(&mut self) -> Result<Option<i64>, Refusal> {
        self.next(Input::signed)
    }

    fn string(&mut self) -> Result<Option<&'a str>, Refusal> {
        self.next(|input| {
            let length = input.unsigned()?;
            std::str::from_utf8(input.take(length)?).map_err(|_| Refusal::Malformed("a key"))
        })
    }

    fn actor(&mut self, actors: &[ActorId]) -> Result<ActorId, Refusal> {
        let index = self.unsigned()?.and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| actors.get(index)).cloned().ok_or(Refusal::Malformed("an actor"))
    }
}

/// Bytes not yet read.
#[derive(Clone, Copy, Default)]
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: u64) -> Result<&'a [u8], Refusal> {
        let length = usize::try_from(length).map_err(|_| Refusal::Malformed("length"))?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Refusal::Malformed("length"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Refusal::Malformed("too short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn actor(&mut self) -> Result<ActorId, Refusal> {
        if self.unsigned()? != 16 {
            return Err(Refusal::Malformed("an actor"));
        }
        Ok(ActorId::from(self.array::<16>()?))
    }

    /// LEB128, up to 64 bits.
    fn unsigned(&mut self) -> Result<u64, Refusal> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                return Err(Refusal::Malformed("a number"));
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Refusal::Malformed("a number"))
    }

    /// Signed LEB128, up to 64 bits.
    fn signed(&mut self) -> Result<i64, Refusal> {
        let mut value: i64 = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // Extends the sign, which is the highest bit of the last group.
                let unused = 64_u32.saturating_sub(shift + 7);
                return Ok(value << unused >> unused);
            }
        }
        Err(Refusal::Malformed("a number"))
    }
}
