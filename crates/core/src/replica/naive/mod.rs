//! SEMANTICS.md as code that is slow and plain: the tree from scratch, out of the set of all changes.
//!
//! The oracle of the derived tree, for tests only. [`Naive`] reads changes as such, with the version
//! vector that each author had, and recomputes everything; it shares no code with [`super::tree`] but
//! the values it answers with. `history` turns what users do into changes, `laws` plays random histories.

mod conflicts;
mod dice;
pub(crate) mod history;
mod laws;
mod sibling_deeds;
mod siblings;
mod table;
mod updates;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::conflicts::distinct;
use super::register::{
    Birth, Carried, Causality, Content, Deletion, Place, Register, Value, Write,
};
use super::sibling_names::MasterNames;
use super::tree::Contents;
use crate::values::{Body, ChangeId, Conflict, EntryView, Seen, SeenNodes};
use crate::vocabulary::{Attributes, Kind, NodeId, Stamp, TreePath, VersionVector};

/// A change: what its author wrote, and what it had seen.
#[derive(Clone, Debug)]
pub(crate) struct AbstractChange {
    pub(crate) id: ChangeId,
    pub(crate) seen: VersionVector,
    pub(crate) writes: Vec<(Stamp, Write)>,
}

impl AbstractChange {
    fn saw(&self, other: ChangeId) -> bool {
        self.id == other || self.seen.last(other.writer) >= other.sequence
    }
}

/// A set of changes.
pub(crate) type Changes = BTreeMap<ChangeId, Arc<AbstractChange>>;

impl Causality for Changes {
    fn saw(&self, later: ChangeId, earlier: ChangeId) -> bool {
        self.get(&later).is_some_and(|later| later.saw(earlier))
    }

    fn change_of(&self, stamp: Stamp) -> Option<ChangeId> {
        let writer = (ChangeId { writer: stamp.writer, sequence: 0 })..;
        let mut changes = self.range(writer).take_while(|(id, _)| id.writer == stamp.writer);
        let has = |change: &AbstractChange| change.writes.iter().any(|(other, _)| *other == stamp);
        changes.find(|(_, change)| has(change)).map(|(id, _)| *id)
    }
}

/// One value written to one register.
#[derive(Clone, Debug)]
struct Op {
    change: Arc<AbstractChange>,
    stamp: Stamp,
    value: Value,
}

/// The tree of a set of changes.
#[derive(Debug)]
pub(crate) struct Naive {
    changes: Changes,
    masters: Option<MasterNames>,
    kinds: BTreeMap<NodeId, Kind>,
    all: BTreeMap<(NodeId, Register), Vec<Op>>,
    current: BTreeMap<(NodeId, Register), Vec<Op>>,
    /// The places a node may stand at, newest first, and at which it does.
    stands: BTreeMap<NodeId, (Vec<Op>, usize)>,
    dead: BTreeSet<NodeId>,
    held: BTreeSet<NodeId>,
    live: BTreeSet<NodeId>,
    entries: BTreeMap<TreePath, Vec<NodeId>>,
}

/// All there is to see of a tree, to be compared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Picture {
    pub(crate) entries: BTreeMap<TreePath, EntryView>,
    pub(crate) conflicts: Vec<Conflict>,
    pub(crate) fallen: BTreeSet<NodeId>,
    pub(crate) held: BTreeSet<NodeId>,
}

/// Birth gives each register its first value.
fn first_values(birth: &Birth) -> Vec<(Register, Value)> {
    let mut values = vec![
        (Register::Place, Value::Place(birth.place.clone())),
        (Register::Mode, Value::Mode(birth.mode)),
    ];
    values.extend(birth.owner.clone().map(|owner| (Register::Owner, Value::Owner(owner))));
    for (name, value) in &birth.xattrs {
        values.push((Register::Xattr(name.clone()), Value::Xattr(Some(value.clone()))));
    }
    match &birth.body {
        Body::Directory { mtime } => values.push((Register::Touch, Value::Touch(*mtime))),
        body => {
            let content = Content { body: body.clone(), carried: Vec::new() };
            values.push((Register::Content, Value::Content(content)));
        }
    }
    values
}

/// The values that nobody who had seen them has replaced, by rising stamp.
fn current(ops: &[Op]) -> Vec<Op> {
    let replaces = |p: &Op, o: &Op| {
        p.stamp != o.stamp
            && p.change.saw(o.change.id)
            && (p.change.id != o.change.id || p.stamp > o.stamp)
    };
    let mut current: Vec<Op> =
        ops.iter().filter(|o| !ops.iter().any(|p| replaces(p, o))).cloned().collect();
    current.sort_by_key(|op| op.stamp);
    current
}

impl Naive {
    /// `masters`: what they are called in the names of siblings, if these are shown.
    pub(crate) fn new(changes: &Changes, masters: Option<MasterNames>) -> Self {
        let mut naive = Self {
            changes: changes.clone(),
            masters,
            kinds: BTreeMap::new(),
            all: BTreeMap::new(),
            current: BTreeMap::new(),
            stands: BTreeMap::new(),
            dead: BTreeSet::new(),
            held: BTreeSet::new(),
            live: BTreeSet::new(),
            entries: BTreeMap::new(),
        };
        for change in changes.values() {
            for (stamp, write) in &change.writes {
                naive.take(change, *stamp, write);
            }
        }
        naive.current = naive.all.iter().map(|(key, ops)| (key.clone(), current(ops))).collect();
        naive.find_places();
        naive.find_live();
        naive.find_entries();
        naive
    }

    fn take(&mut self, change: &Arc<AbstractChange>, stamp: Stamp, write: &Write) {
        let (node, values) = match write {
            Write::Birth(birth) => {
                let node = NodeId::born_at(stamp);
                self.kinds.insert(node, birth.body.kind());
                (node, first_values(birth))
            }
            Write::Register(node, register, value) => {
                (*node, vec![(register.clone(), value.clone())])
            }
        };
        for (register, value) in values {
            let op = Op { change: change.clone(), stamp, value };
            self.all.entry((node, register)).or_default().push(op);
        }
    }

    fn register(&self, node: NodeId, register: Register) -> &[Op] {
        self.current.get(&(node, register)).map_or(&[], Vec::as_slice)
    }

    /// R1, R2.
    fn find_places(&mut self) {
        for (&node, kind) in &self.kinds {
            let mut places = match kind {
                Kind::Directory => self.all[&(node, Register::Place)].clone(),
                _ => self.register(node, Register::Place).last().cloned().into_iter().collect(),
            };
            places.sort_by_key(|op| std::cmp::Reverse(op.stamp));
            self.stands.insert(node, (places, 0));
        }
        while let Some(cycle) = self.any_cycle() {
            let newest = cycle.into_iter().max_by_key(|&node| self.place(node).0).unwrap();
            let (places, position) = self.stands.get_mut(&newest).unwrap();
            *position += 1;
            assert!(*position < places.len(), "there is an older place");
        }
    }

    fn any_cycle(&self) -> Option<Vec<NodeId>> {
        for &start in self.stands.keys() {
            let mut path = vec![];
            let mut here = start;
            while here != NodeId::ROOT {
                if let Some(position) = path.iter().position(|&node| node == here) {
                    return Some(path.split_off(position));
                }
                path.push(here);
                here = self.place(here).1.parent;
            }
        }
        None
    }

    fn place_of(op: &Op) -> (Stamp, Place) {
        match &op.value {
            Value::Place(place) => (op.stamp, place.clone()),
            other => panic!("{other:?} is no place"),
        }
    }

    pub(crate) fn place(&self, node: NodeId) -> (Stamp, Place) {
        let (places, position) = &self.stands[&node];
        Self::place_of(&places[*position])
    }

    pub(crate) fn above(&self, node: NodeId) -> Vec<NodeId> {
        let mut above = vec![];
        let mut here = self.place(node).1.parent;
        while here != NodeId::ROOT {
            above.push(here);
            here = self.place(here).1.parent;
        }
        above
    }

    /// R3. What a delete has seen of a node that lives on is removed.
    fn content_values(&self, node: NodeId) -> Vec<(Stamp, Content)> {
        let removed = self.removed(node);
        let closed = self.closed(node);
        let all = self.register(node, Register::Content).iter().map(|op| match &op.value {
            Value::Content(content) => (op.stamp, content.clone()),
            other => panic!("{other:?} is no content"),
        });
        let all: Vec<_> = all
            .map(|(stamp, mut content)| {
                content.carried.retain(|carried| {
                    let is_closed = closed.contains_key(&carried.stamp);
                    let is_removed = removed.contains(&carried.stamp) || is_closed;
                    !is_removed && !self.is_ended(node, carried.stamp)
                });
                (stamp, content)
            })
            .collect();
        let left: Vec<_> =
            all.iter().filter(|(stamp, _)| !removed.contains(stamp)).cloned().collect();
        if left.is_empty() { all } else { left }
    }

    /// R9. Whether somebody had seen a version and neither kept nor carried it.
    fn is_ended(&self, node: NodeId, version: Stamp) -> bool {
        self.register(node, Register::Content).iter().any(|op| {
            let Value::Content(content) = &op.value else { panic!("{op:?} is no content") };
            let has = op.stamp == version || content.carried.iter().any(|own| own.stamp == version);
            let wrote = |change: &Arc<AbstractChange>| {
                change.writes.iter().any(|(stamp, _)| *stamp == version)
            };
            !has && self.changes.values().any(|seen| wrote(seen) && op.change.saw(seen.id))
        })
    }

    fn removed(&self, node: NodeId) -> Vec<Stamp> {
        let deletes = self.register(node, Register::Deleted).iter();
        let deletes = deletes.filter_map(|op| match &op.value {
            Value::Deleted(Some(deletion)) if !self.is_void(op, deletion) => Some(deletion),
            _ => None,
        });
        deletes.flat_map(|deletion| deletion.observed.iter().copied()).collect()
    }

    pub(crate) fn seen(&self, node: NodeId) -> Seen {
        let contents = self.content_values(node).into_iter().map(|(stamp, _)| stamp).collect();
        Seen { contents, ..self.written(node) }
    }

    fn written(&self, node: NodeId) -> Seen {
        let stamps = |register| self.register(node, register).iter().map(|op| op.stamp).collect();
        Seen { node, places: stamps(Register::Place), contents: stamps(Register::Content) }
    }

    /// R4. Birth is a place that everybody has seen.
    fn is_void(&self, op: &Op, deletion: &Deletion) -> bool {
        deletion.above.iter().any(|&directory| {
            let places = self.all.get(&(directory, Register::Place)).into_iter().flatten();
            let moves = places.filter(|place| NodeId::born_at(place.stamp) != directory);
            moves.into_iter().any(|place| {
                deletion.unseen.contains(&place.stamp)
                    || (!place.change.saw(op.change.id) && !op.change.saw(place.change.id))
            })
        })
    }

    /// R3, R4, R5.
    fn find_live(&mut self) {
        for &node in self.kinds.keys() {
            let seen = self.written(node);
            let mut all = seen.places.iter().chain(&seen.contents);
            let is_dead = self.register(node, Register::Deleted).iter().any(|op| match &op.value {
                Value::Deleted(Some(deletion)) => {
                    all.clone().all(|stamp| deletion.observed.contains(stamp))
                        && !self.is_void(op, deletion)
                }
                _ => false,
            });
            assert!(all.next().is_some(), "every node has a place");
            if is_dead {
                self.dead.insert(node);
            }
        }
        for &node in self.kinds.keys() {
            if !self.dead.contains(&node) {
                self.live.insert(node);
                for above in self.above(node) {
                    self.live.insert(above);
                    if self.dead.contains(&above) {
                        self.held.insert(above);
                    }
                }
            }
        }
    }

    /// R6.
    fn find_entries(&mut self) {
        let mut ahead = vec![(TreePath::root(), vec![NodeId::ROOT])];
        while let Some((path, directories)) = ahead.pop() {
            let mut names: BTreeMap<_, Vec<NodeId>> = BTreeMap::new();
            for &node in &self.live {
                let place = self.place(node).1;
                if directories.contains(&place.parent) {
                    names.entry(place.name).or_default().push(node);
                }
            }
            for (name, mut nodes) in names {
                let is_directory = |node: &NodeId| self.kinds[node] == Kind::Directory;
                nodes.sort_by_key(|node| (!is_directory(node), self.place(*node).0));
                let directories: Vec<_> = nodes.iter().copied().filter(is_directory).collect();
                if !directories.is_empty() {
                    ahead.push((path.join(&name), directories));
                }
                assert!(self.entries.insert(path.join(&name), nodes).is_none(), "R1");
            }
        }
        let mut shown: Vec<_> = self.entries.values().flatten().copied().collect();
        shown.sort_unstable();
        assert_eq!(shown, self.live.iter().copied().collect::<Vec<_>>(), "R1");
    }

    /// R7, R9.
    pub(crate) fn contents(&self, node: NodeId) -> Contents {
        let values = self.content_values(node);
        let (stamp, newest) = values.last().expect("a file has a content").clone();
        let equal = values.iter().map(|(_, content)| &content.body);
        let equal = equal.filter(|body| body.same_bytes(&newest.body));
        let body = equal.max_by_key(|body| body.mtime()).unwrap().clone();
        let open = distinct(self.all_open(node), &body);
        Contents { stamp, body, open }
    }

    /// All that is open, whatever it holds.
    fn all_open(&self, node: NodeId) -> Vec<Carried> {
        let values = self.content_values(node);
        let mut open = vec![];
        let closed = self.closed(node);
        for (stamp, content) in &values {
            if !closed.contains_key(stamp) {
                open.push(Carried { stamp: *stamp, body: content.body.clone() });
            }
            open.extend_from_slice(&content.carried);
        }
        open
    }

    fn body(&self, node: NodeId) -> Body {
        let touch = self.register(node, Register::Touch).last().map(|op| match op.value {
            Value::Touch(mtime) => (op.stamp, mtime),
            _ => panic!("no touch"),
        });
        if self.kinds[&node] == Kind::Directory {
            return Body::Directory { mtime: touch.unwrap().1 };
        }
        let contents = self.contents(node);
        match touch {
            Some((stamp, mtime)) if stamp > contents.stamp => contents.body.with_mtime(mtime),
            _ => contents.body,
        }
    }

    /// R8.
    fn attributes(&self, node: NodeId) -> Attributes {
        let mut attributes = Attributes { owner: None, ..Attributes::with_mode(0) };
        let registers = self.current.range((node, Register::Place)..);
        for ((_, register), ops) in registers.take_while(|((other, _), _)| *other == node) {
            match (register, &ops.last().unwrap().value) {
                (Register::Mode, Value::Mode(mode)) => attributes.mode = *mode,
                (Register::Owner, Value::Owner(owner)) => attributes.owner = Some(owner.clone()),
                (Register::Xattr(name), Value::Xattr(Some(value))) => {
                    attributes.xattrs.insert(name.clone(), value.clone());
                }
                _ => {}
            }
        }
        attributes
    }

    pub(crate) fn picture(&self) -> Picture {
        let entries = self.entries.iter().map(|(path, nodes)| {
            let (directory, name) = path.split_last().expect("not the root");
            let parent = match directory.is_root() {
                true => NodeId::ROOT,
                false => self.entries[&directory][0],
            };
            let view = EntryView {
                nodes: nodes.iter().map(|&node| self.seen(node)).collect::<SeenNodes>(),
                parent,
                name: name.clone(),
                body: self.body(nodes[0]),
                attributes: self.attributes(nodes[0]),
            };
            (path.clone(), view)
        });
        let mut entries: BTreeMap<_, _> = entries.collect();
        self.show_siblings(&mut entries);
        Picture {
            entries,
            conflicts: self.conflicts(),
            fallen: self.fallen(),
            held: self.held.clone(),
        }
    }

    pub(crate) fn fallen(&self) -> BTreeSet<NodeId> {
        self.stands.iter().filter(|(_, stands)| stands.1 > 0).map(|(&node, _)| node).collect()
    }
}
