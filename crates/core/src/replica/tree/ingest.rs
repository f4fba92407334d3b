//! From updates to registers: what each node is made of, before anything is derived from it.
//!
//! Nothing here changes where a node stands; what would is noted in the batch. Updates that can't be
//! (a value of another register's kind, a register of an unborn node) are passed over: the gate in front
//! of the document refuses changes that could make them.

use std::collections::BTreeSet;
use std::sync::Arc;

use smallvec::SmallVec;

use super::intern::Tick;
use super::node::{
    ContentValue, Directory, DirectoryPlace, Key, Matter, Node, PlaceOrigin, PlaceState, Placement,
    Removal,
};
use super::witness::{self, Move, Origin};
use super::{Batch, Tree};
use crate::replica::register::{
    Birth, Causality, Content, Deletion, Place, Register, Update, Value, Written,
};
use crate::values::{Body, ChangeId};
use crate::vocabulary::{NodeId, Stamp, Timestamp};

impl Tree {
    /// Takes the updates into the registers, births first: an update may come before the birth of what
    /// it names.
    pub(super) fn ingest(
        &mut self,
        updates: Vec<Update>,
        causality: &dyn Causality,
        batch: &mut Batch,
    ) {
        let mut later = Vec::new();
        for update in updates {
            match update {
                Update::Born(node, birth) => self.bear(node, birth, batch),
                other => later.push(other),
            }
        }
        for update in later {
            match update {
                Update::Born(..) => {}
                Update::DirectoryPlace(node, place) => {
                    self.add_directory_place(node, place, causality, batch);
                }
                Update::Register(node, register, values) => {
                    self.set_register(node, register, values, causality, batch);
                }
            }
        }
    }

    fn bear(&mut self, id: NodeId, birth: Written<Birth>, batch: &mut Batch) {
        let was_named = self.key(id).is_some();
        let key = self.key_or_unborn(id);
        if !matches!(self.nodes[key.0 as usize].matter, Matter::Unborn) || key == Key::ROOT {
            return;
        }
        if was_named {
            // Something may be below it already, itself among it.
            batch.directories.insert(key);
        }
        let stamp = self.interner.tick(birth.stamp);
        let Birth { place, body, mode, owner, xattrs } = birth.value;
        let placement = self.placement(stamp, &place);
        let mut node = Node::unborn(id, stamp);
        node.mode = mode;
        node.owner = self.interner.owner_number(owner);
        if !xattrs.is_empty() {
            node.rare_mut().xattrs = xattrs;
        }
        node.matter = match body {
            Body::File(content) => Matter::File(content),
            Body::Symlink { target, mtime } => Matter::Symlink(Box::new((target, mtime))),
            Body::Directory { mtime } => {
                let mut directory = Directory::new(mtime);
                // Not pushed: that would leave room for three more, and most never move.
                directory.history = vec![DirectoryPlace {
                    place: placement.clone(),
                    sequence: birth.sequence,
                    origin: PlaceOrigin::Birth,
                    standing: PlaceState::Current,
                }];
                Matter::Directory(Box::new(directory))
            }
        };
        self.nodes[key.0 as usize] = node;
        batch.touched.insert(key);
        batch.placed.insert(key, Some(placement));
    }

    fn placement(&mut self, stamp: Tick, place: &Place) -> Placement {
        let parent = self.key_or_unborn(place.parent);
        Placement { stamp, parent, name: Arc::clone(place.name.shared()) }
    }

    fn add_directory_place(
        &mut self,
        id: NodeId,
        written: Written<Place>,
        causality: &dyn Causality,
        batch: &mut Batch,
    ) {
        let Some(key) = self.key(id) else { return };
        let tick = self.interner.tick(written.stamp);
        let place = self.placement(tick, &written.value);
        let Self { nodes, interner, witnesses, .. } = self;
        let Some(directory) = nodes[key.0 as usize].directory_mut() else { return };
        let is_known = directory.history.iter().any(|entry| entry.place.stamp == tick);
        if key == Key::ROOT || is_known {
            return;
        }
        let change = written.change();
        let mut standing = PlaceState::Current;
        for entry in &mut directory.history {
            if entry.standing == PlaceState::Superseded {
                continue;
            }
            let stamp = interner.stamp(entry.place.stamp);
            let other = Written { stamp, sequence: entry.sequence, value: () }.change();
            let supersedes = entry.origin == PlaceOrigin::Birth
                || (causality.saw(change, other) && (change != other || written.stamp > stamp));
            if supersedes {
                entry.standing = PlaceState::Superseded;
            } else if causality.saw(other, change) && (change != other || stamp > written.stamp) {
                standing = PlaceState::Superseded;
            }
        }
        let index = directory
            .history
            .partition_point(|entry| interner.stamp(entry.place.stamp) > written.stamp);
        let sequence = written.sequence;
        let entry = DirectoryPlace { place, sequence, origin: PlaceOrigin::Move, standing };
        directory.history.insert(index, entry);
        batch.touched.insert(key);
        batch.directories.insert(key);
        batch.mortal.insert(key);
        let moved = Move { stamp: written.stamp, change };
        let freed = witnesses.directory_moved(key, moved, causality);
        // What lives all the same is no conflict any more.
        batch.touched.extend(freed.iter().filter(|key| nodes[key.0 as usize].is_attached));
        batch.mortal.extend(freed);
    }

    fn set_register(
        &mut self,
        id: NodeId,
        register: Register,
        mut values: Vec<Written<Value>>,
        causality: &dyn Causality,
        batch: &mut Batch,
    ) {
        let Some(key) = self.key(id) else { return };
        if matches!(self.nodes[key.0 as usize].matter, Matter::Unborn) {
            return;
        }
        values.sort_by_key(|written| written.stamp);
        let Some(newest) = values.last() else { return };
        batch.touched.insert(key);
        match (register, newest.value.clone()) {
            (Register::Place, _) => self.set_places(key, values, batch),
            (Register::Content, _) => self.set_contents(key, values, causality, batch),
            (Register::Deleted, _) => self.set_removals(key, values, causality, batch),
            (Register::Version(version), _) => {
                let made = values.into_iter().filter_map(|written| match written.value {
                    Value::Version(made) => made,
                    _ => None,
                });
                self.nodes[key.0 as usize].rare_mut().closed.insert(version, made.collect());
            }
            (Register::Mode, Value::Mode(mode)) => self.nodes[key.0 as usize].mode = mode,
            (Register::Owner, Value::Owner(owner)) => {
                self.nodes[key.0 as usize].owner = self.interner.owner_number(Some(owner));
            }
            (Register::Xattr(attribute), Value::Xattr(value)) => {
                let xattrs = &mut self.nodes[key.0 as usize].rare_mut().xattrs;
                match value {
                    Some(value) => xattrs.insert(attribute, value),
                    None => xattrs.remove(&attribute),
                };
            }
            (Register::Touch, Value::Touch(mtime)) => {
                let tick = self.interner.tick(newest.stamp);
                self.touch(key, tick, mtime);
            }
            _ => {}
        }
    }

    fn touch(&mut self, key: Key, tick: Tick, mtime: Timestamp) {
        let node = &mut self.nodes[key.0 as usize];
        match node.directory_mut() {
            Some(directory) => directory.mtime = mtime,
            None => node.rare_mut().touch = Some((tick, mtime)),
        }
    }

    fn set_places(&mut self, key: Key, values: Vec<Written<Value>>, batch: &mut Batch) {
        if self.nodes[key.0 as usize].directory().is_some() {
            return;
        }
        let mut places = Vec::with_capacity(values.len());
        for written in values {
            if let Value::Place(place) = &written.value {
                let tick = self.interner.tick(written.stamp);
                places.push(self.placement(tick, place));
            }
        }
        let Some(newest) = places.pop() else { return };
        let node = &mut self.nodes[key.0 as usize];
        if !places.is_empty() || node.rare.is_some() {
            node.rare_mut().other_places = places;
        }
        batch.placed.insert(key, Some(newest));
        batch.mortal.insert(key);
    }

    /// The largest stamp stands; among values of equal bytes, the newest mtime (R7).
    fn set_contents(
        &mut self,
        key: Key,
        mut values: Vec<Written<Value>>,
        causality: &dyn Causality,
        batch: &mut Batch,
    ) {
        drop_ended(&mut values, causality);
        let interner = &mut self.interner;
        let mut contents: Vec<ContentValue> = values
            .into_iter()
            .filter_map(|written| match written.value {
                Value::Content(Content { body, carried }) => {
                    Some(ContentValue { stamp: interner.tick(written.stamp), body, carried })
                }
                _ => None,
            })
            .collect();
        let node = &mut self.nodes[key.0 as usize];
        let kind = node.kind();
        contents.retain(|content| Some(content.body.kind()) == kind);
        let Some(newest) = contents.last() else { return };
        node.stamp = newest.stamp;
        node.matter = match newest.body.clone() {
            Body::File(content) => Matter::File(content),
            Body::Symlink { target, mtime } => Matter::Symlink(Box::new((target, mtime))),
            Body::Directory { .. } => return,
        };
        // Of several, `restand` finds the one that stands.
        if contents.len() == 1 && contents[0].carried.is_empty() {
            contents.clear();
        }
        if !contents.is_empty() || node.rare.is_some() {
            node.rare_mut().contents = contents;
        }
        batch.mortal.insert(key);
    }

    fn set_removals(
        &mut self,
        key: Key,
        values: Vec<Written<Value>>,
        causality: &dyn Causality,
        batch: &mut Batch,
    ) {
        let mut removals = Vec::new();
        for written in values {
            let change = written.change();
            let stamp = self.interner.tick(written.stamp);
            let Value::Deleted(Some(Deletion { observed, above, unseen })) = written.value else {
                continue;
            };
            let above: Vec<Key> = above.into_iter().map(|id| self.key_or_unborn(id)).collect();
            let observed: SmallVec<[Tick; 2]> =
                observed.into_iter().map(|stamp| self.interner.tick(stamp)).collect();
            let Self { nodes, interner, witnesses, .. } = self;
            let moves = |directory: Key| match nodes[directory.0 as usize].directory() {
                Some(directory) => {
                    let stamp = |entry: &DirectoryPlace| interner.stamp(entry.place.stamp);
                    witness::moves(&directory.history, stamp).collect()
                }
                None => Vec::new(),
            };
            let origin = Origin { change, unseen };
            let witness = witnesses.note(origin, &above, key, moves, causality);
            removals.push(Removal { stamp, observed, witness });
        }
        let removals = (!removals.is_empty()).then(|| removals.into_boxed_slice());
        self.nodes[key.0 as usize].removals = removals;
        batch.mortal.insert(key);
    }
}

/// R9: drops what one value carries along and the author of another had seen and did not: whoever wrote that
/// one has replaced or closed it. Nobody may have its bytes any more.
fn drop_ended(values: &mut [Written<Value>], causality: &dyn Causality) {
    let authors: Vec<ChangeId> = values.iter().map(Written::change).collect();
    let carries: Vec<BTreeSet<Stamp>> =
        values.iter().map(|written| carried_by(written).collect()).collect();
    for written in values {
        let Value::Content(Content { carried, .. }) = &mut written.value else { continue };
        carried.retain(|version| {
            let Some(origin) = causality.change_of(version.stamp) else { return true };
            let ends = |(&author, carries): (&ChangeId, &BTreeSet<Stamp>)| {
                causality.saw(author, origin) && !carries.contains(&version.stamp)
            };
            !authors.iter().zip(&carries).any(ends)
        });
    }
}

/// The stamps of what a content is and carries along.
fn carried_by(written: &Written<Value>) -> impl Iterator<Item = Stamp> {
    let carried = match &written.value {
        Value::Content(content) => content.carried.as_slice(),
        _ => &[],
    };
    carried.iter().map(|version| version.stamp).chain([written.stamp])
}
