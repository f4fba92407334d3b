//! What a file held before: read from the history that the document has, for people who compare versions.
//!
//! Nothing of the tree depends on it: a document that one day is rebuilt without its history has no answers
//! here, and the same tree. What a carried version was given another stamp for has none either.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{ChangeHash, ObjId, ReadDoc};

use super::{Document, value_bytes};
use crate::replica::register::{Birth, Carried, Causality, Content, Register, Value, Written};
use crate::replica::schema::{self, Object, Slot};
use crate::values::{Body, ChangeId};
use crate::vocabulary::{NodeId, Stamp};

/// How many writes of one file are looked at, going back from a version of it.
const WRITES_BACK_MAX: usize = 256;

impl Document {
    /// When the author of a value wrote it, by its own clock, in milliseconds since 1970.
    #[must_use]
    pub fn written_ms(&self, stamp: Stamp) -> Option<i64> {
        let hash = self.change_with(stamp)?;
        Some(self.engine.get_change_meta_by_hash(&hash)?.timestamp)
    }

    /// The newest content of `node` that the authors of all these contents of it had seen, or had replaced
    /// unseen by a write that they had: none of `contents` itself, and none if that is not known.
    #[must_use]
    pub fn ancestor(&self, node: NodeId, contents: &[Stamp]) -> Option<Carried> {
        let (first, others) = contents.split_first()?;
        let mut common = self.written_before(node, *first);
        for other in others {
            let before = self.written_before(node, *other);
            common.retain(|stamp, _| before.contains_key(stamp));
        }
        common.pop_last().map(|(stamp, body)| Carried { stamp, body })
    }

    /// What the file held before this content was written, and before that, and so on.
    pub(crate) fn written_before(&self, node: NodeId, content: Stamp) -> BTreeMap<Stamp, Body> {
        let mut before = BTreeMap::new();
        let mut done = BTreeSet::new();
        let mut ahead = vec![content];
        while let Some(stamp) = ahead.pop() {
            if !done.insert(stamp) || done.len() > WRITES_BACK_MAX {
                continue;
            }
            for written in self.replaced_by(node, stamp) {
                ahead.push(written.stamp);
                before.insert(written.stamp, written.value.body);
            }
        }
        before
    }

    /// The contents that the write with this stamp replaced, but for those that it carries along unseen.
    fn replaced_by(&self, node: NodeId, stamp: Stamp) -> Vec<Written<Content>> {
        let Some(hash) = self.change_with(stamp) else { return Vec::new() };
        let Some(meta) = self.engine.get_change_meta_by_hash(&hash) else { return Vec::new() };
        let mut written = self.contents_seen(node, &[hash]).into_iter();
        let Some(own) = written.find(|written| written.stamp == stamp) else { return Vec::new() };
        if NodeId::born_at(stamp) == node {
            return Vec::new();
        }
        let mut replaced = self.contents_seen(node, &meta.deps);
        let carried = own.value.carried;
        replaced.retain(|old| !carried.iter().any(|carried| carried.stamp == old.stamp));
        replaced
    }

    /// What was open in the file when this content of it was written, what stood then among it.
    pub(crate) fn contents_before(&self, node: NodeId, content: Stamp) -> Vec<Body> {
        let hash = self.change_with(content);
        let meta = hash.and_then(|hash| self.engine.get_change_meta_by_hash(&hash));
        let seen = meta.map_or_else(Vec::new, |meta| self.contents_seen(node, &meta.deps));
        let values = seen.into_iter().map(|written| written.value);
        let bodies = values.flat_map(|value| {
            let carried = value.carried.into_iter().map(|carried| carried.body);
            carried.chain([value.body])
        });
        bodies.collect()
    }

    /// The values of a register of a node as of these changes; where it had not been written by then, the one
    /// that the node was born with. Not of `Place` of a directory.
    pub(crate) fn values_before(
        &self,
        node: NodeId,
        register: &Register,
        changes: &[ChangeHash],
    ) -> Vec<Written<Value>> {
        let key = schema::node_key(node, &Slot::Register(register.clone()));
        let packed = self.values_seen(Object::bucket_of(node), &key, changes);
        let values: Vec<_> =
            packed.iter().filter_map(|bytes| schema::unpack::<Value>(bytes)).collect();
        if !values.is_empty() {
            return values;
        }
        let Some(Written { stamp, sequence, value: birth }) = self.birth(node) else {
            return Vec::new();
        };
        let value = match register {
            Register::Place => Value::Place(birth.place),
            Register::Content => Value::Content(Content { body: birth.body, carried: Vec::new() }),
            Register::Mode => Value::Mode(birth.mode),
            Register::Touch => Value::Touch(birth.body.mtime()),
            Register::Owner | Register::Xattr(_) | Register::Deleted | Register::Version(_) => {
                return Vec::new();
            }
        };
        vec![Written { stamp, sequence, value }]
    }

    /// The values of a node's content as of these changes.
    pub(crate) fn contents_seen(
        &self,
        node: NodeId,
        changes: &[ChangeHash],
    ) -> Vec<Written<Content>> {
        let key = schema::node_key(node, &Slot::Register(Register::Content));
        let packed = self.values_seen(Object::bucket_of(node), &key, changes);
        let values = packed.iter().filter_map(|bytes| schema::unpack::<Value>(bytes));
        let contents: Vec<_> = values
            .filter_map(|Written { stamp, sequence, value }| match value {
                Value::Content(value) => Some(Written { stamp, sequence, value }),
                _ => None,
            })
            .collect();
        if contents.is_empty() { self.first_content(node).into_iter().collect() } else { contents }
    }

    /// The content that a node was born with.
    fn first_content(&self, node: NodeId) -> Option<Written<Content>> {
        let Written { stamp, sequence, value: Birth { body, .. } } = self.birth(node)?;
        Some(Written { stamp, sequence, value: Content { body, carried: Vec::new() } })
    }

    /// What a node was born with; none of the root, and of what is not known.
    pub(crate) fn birth(&self, node: NodeId) -> Option<Written<Birth>> {
        let key = schema::node_key(node, &Slot::Birth);
        let in_bucket = self.current::<Birth>(Object::bucket_of(node), &key).pop();
        in_bucket.or_else(|| {
            let (_, change) = self.birth_of(node)?;
            self.born_in_batch(change?, &key)
        })
    }

    fn born_in_batch(&self, change: ChangeId, key: &str) -> Option<Written<Birth>> {
        let batch = schema::batch_key(change);
        let (_, batch) = self.engine.get(Object::Batches.id(), batch.as_str()).ok()??;
        let (value, _) = self.engine.get(batch, key).ok()??;
        schema::unpack(value_bytes(&value)?)
    }

    pub(crate) fn change_with(&self, stamp: Stamp) -> Option<ChangeHash> {
        self.engine.hash_for_opid(&ObjId::Id(stamp.counter, schema::actor(stamp.writer), 0))
    }
}

impl Causality for Document {
    fn saw(&self, later: ChangeId, earlier: ChangeId) -> bool {
        self.past().saw(later, earlier)
    }

    fn change_of(&self, stamp: Stamp) -> Option<ChangeId> {
        let meta = self.engine.get_change_meta_by_hash(&self.change_with(stamp)?)?;
        Some(ChangeId { writer: stamp.writer, sequence: meta.seq })
    }
}
