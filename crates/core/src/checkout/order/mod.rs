//! The order of effects, found by doing them one after the other on a picture of the disk.
//!
//! Each path named in an effect is the one at its turn. Directories come to their final places from the root
//! downwards: none is ever moved below itself.

mod fill;

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use super::pairing::{Considered, Pairing, Want};
use super::picture::{Occupant, Picture};
use super::plan::{Availability, Limits, Plan, PlannedEffect, Put, Spot, Then};
use crate::values::{
    Base, BaseEntry, BaseId, Body, Effect, EntryView, Location, ParkingId, Seen, SeenNodes,
    TreeView,
};
use crate::vocabulary::{
    Attributes, ContentHash, Fingerprint, Kind, Mode, Name, NodeId, Timestamp, TreePath,
};

/// Asks where a content can be had.
type Have<'a> = &'a dyn Fn(&ContentHash) -> Availability;

struct Planner<'a, T> {
    pairing: Pairing<'a, T>,
    picture: Picture<'a>,
    have: Have<'a>,
    wants: BTreeMap<NodeId, Want>,
    doomed: BTreeSet<BaseId>,
    want_of: BTreeMap<BaseId, NodeId>,
    /// Files whose bytes will not be there any more.
    consumed: BTreeSet<BaseId>,
    plan: Plan,
}

/// Plans what brings the disk from `base` to `tree`, as far as `touched` and what has been parked go.
///
/// Plan, perform, [`Plan::complete`] each, and plan again what was left over: the
/// disk then holds the tree. Nodes that neither base nor tree has any more are no matter.
pub fn plan<T: TreeView>(
    base: &Base,
    tree: &T,
    touched: &BTreeSet<NodeId>,
    have: &dyn Fn(&ContentHash) -> Availability,
    limits: Limits,
) -> Plan {
    let pairing = Pairing::new(base, tree);
    let parked = base.parked().filter_map(|id| base.entry(id)?.standing());
    let nodes: Vec<_> = parked.chain(touched.iter().copied()).collect();
    let Considered { wants, doomed, deferred } = pairing.consider(nodes, limits.entries_max);
    let want_of = wants.iter().filter_map(|(&node, want)| Some((want.disk?, node))).collect();
    let picture = Picture {
        base,
        moved: BTreeMap::new(),
        removed: BTreeSet::new(),
        made: BTreeMap::new(),
        places: BTreeMap::new(),
    };
    let plan = Plan { deferred, ..Plan::default() };
    let consumed = BTreeSet::new();
    let mut planner = Planner { pairing, picture, have, wants, doomed, want_of, consumed, plan };
    let order = planner.by_depth();
    let placed: Vec<_> = order.into_iter().filter(|&node| planner.place(node)).collect();
    // What is new may be a copy of what is replaced.
    let (new, replaced): (Vec<_>, Vec<_>) =
        placed.iter().copied().partition(|node| planner.wants[node].disk.is_none());
    for kind in [Kind::File, Kind::Symlink] {
        for &node in new.iter().chain(&replaced) {
            planner.fill(node, kind);
        }
    }
    planner.remove_doomed();
    planner.set_directories(&placed);
    planner.plan
}

impl<T: TreeView> Planner<'_, T> {
    /// Wanted entries, those nearer to the root first.
    fn by_depth(&mut self) -> Vec<NodeId> {
        let mut depths: BTreeMap<NodeId, usize> = BTreeMap::from([(NodeId::ROOT, 0)]);
        let mut order: Vec<(usize, NodeId)> = Vec::with_capacity(self.wants.len());
        for (&node, want) in &self.wants {
            let mut chain = vec![node];
            let mut at = want.view.parent;
            let above = loop {
                if let Some(&depth) = depths.get(&at) {
                    break depth;
                }
                chain.push(at);
                match self.pairing.tree.entry(at) {
                    Some(view) => at = view.parent,
                    None => break 0,
                }
            };
            for (steps, node) in chain.iter().rev().enumerate() {
                depths.insert(*node, above + steps + 1);
            }
            order.push((depths[&node], node));
        }
        order.sort_unstable();
        order.into_iter().map(|(_, node)| node).collect()
    }

    /// Where the directory `node` of the tree is by now.
    fn spot(&self, node: NodeId) -> Option<Spot> {
        if self.picture.made.contains_key(&node) {
            return Some(Spot::Made(node));
        }
        let id = match self.wants.get(&node) {
            Some(want) => want.disk?,
            None => self.pairing.directory(node)?,
        };
        Some(Spot::Base(id))
    }

    /// Brings the entry to its place, or frees that for it; whether that was possible.
    fn place(&mut self, node: NodeId) -> bool {
        let Want { view, disk } = self.wants[&node].clone();
        let possible = self.try_place(&view, disk);
        if !possible {
            self.plan.deferred.insert(node);
        }
        possible
    }

    fn try_place(&mut self, view: &EntryView, disk: Option<BaseId>) -> bool {
        let Some(spot) = self.spot(view.parent) else { return false };
        let Some(directory) = self.picture.location(spot) else { return false };
        let Some(id) = disk else {
            return match &view.body {
                Body::Directory { .. } => self.make(view, spot, &directory),
                // A file that is not here yet leaves the place as it is: nothing gives way to it before
                // it comes.
                Body::File(content) if self.source(content).is_none() => true,
                Body::File(_) | Body::Symlink { .. } => {
                    let free = self.evict(spot, &view.name);
                    if free {
                        self.picture.places.insert((spot, view.name.clone()), Some(Occupant::New));
                    }
                    free
                }
            };
        };
        if self.picture.place(id) == Some((spot, view.name.clone())) {
            return true;
        }
        !self.picture.is_within(spot, id)
            && self.evict(spot, &view.name)
            && self.relocate(id, view, spot)
    }

    fn make(&mut self, view: &EntryView, spot: Spot, directory: &Location) -> bool {
        if !self.evict(spot, &view.name) {
            return false;
        }
        let node = view.standing();
        // Its owner must be able to fill it; the real mode comes at the end, with the mtime.
        let mode = Mode::new(view.attributes.mode.bits() | 0o700);
        let attributes = Attributes { mode, ..view.attributes.clone() };
        let effect = Effect::MakeDirectory { at: directory.join(&view.name), attributes };
        let (parent, name) = (spot, view.name.clone());
        let then = Then::Insert { parent, name, entry: Box::new(Put::from(view)) };
        self.push(effect, nodes_of(view), then);
        self.picture.made.insert(node, (spot, view.name.clone()));
        self.picture.places.insert((spot, view.name.clone()), Some(Occupant::New));
        self.plan.disturbed.insert(spot);
        self.plan.disturbed.insert(Spot::Made(node));
        true
    }

    /// Renames the entry to a place that is free.
    fn relocate(&mut self, id: BaseId, view: &EntryView, spot: Spot) -> bool {
        let Some((from_spot, from_name)) = self.picture.place(id) else { return false };
        let from = match from_spot {
            Spot::Base(BaseId::PARKING) => {
                Some(Location::Parked(ParkingId(id.0), TreePath::root()))
            }
            _ => self.picture.location(from_spot).map(|directory| directory.join(&from_name)),
        };
        let (Some(from), Some(to)) = (from, self.picture.location(spot)) else { return false };
        let Some(entry) = self.pairing.base.entry(id) else { return false };
        let to = to.join(&view.name);
        let effect = Effect::Move { from, to, expected: entry.fingerprint };
        let nodes = nodes_after_move(entry, view);
        let then = Then::Relocate { id, parent: spot, name: view.name.clone(), nodes };
        self.push(effect, nodes_of(view), then);
        self.shift(id, (from_spot, from_name), (spot, view.name.clone()));
        true
    }

    fn shift(&mut self, id: BaseId, from: (Spot, Name), to: (Spot, Name)) {
        for spot in [from.0, to.0] {
            if spot != Spot::Base(BaseId::PARKING) {
                self.plan.disturbed.insert(spot);
            }
        }
        self.picture.places.insert(from, None);
        self.picture.places.insert(to.clone(), Some(Occupant::Entry(id)));
        self.picture.moved.insert(id, to);
    }

    /// Frees a name; false if what is there must stay for now.
    fn evict(&mut self, spot: Spot, name: &Name) -> bool {
        let id = match self.picture.occupant(spot, name) {
            None => return true,
            Some(Occupant::New) => return false,
            Some(Occupant::Entry(id)) => id,
        };
        if self.doomed.contains(&id) {
            return self.remove_with_contents(id);
        }
        let Some(want) = self.want_of.get(&id).and_then(|node| self.wants.get(node)) else {
            return false;
        };
        if self.plan.deferred.contains(&want.view.standing()) {
            return false;
        }
        let view = want.view.clone();
        let free = self.spot(view.parent).filter(|&to| {
            self.picture.occupant(to, &view.name).is_none()
                && self.picture.location(to).is_some()
                && !self.picture.is_within(to, id)
        });
        match free {
            Some(to) => self.relocate(id, &view, to),
            None => self.park(id),
        }
    }

    fn park(&mut self, id: BaseId) -> bool {
        let Some((spot, name)) = self.picture.place(id) else { return false };
        let (Some(directory), Some(entry)) =
            (self.picture.location(spot), self.pairing.base.entry(id))
        else {
            return false;
        };
        let effect = Effect::Move {
            from: directory.join(&name),
            to: Location::Parked(ParkingId(id.0), TreePath::root()),
            expected: entry.fingerprint,
        };
        self.push(effect, nodes_of_entry(entry), Then::Park { id });
        let parked = Name::try_from(id.0.to_string().as_str()).expect("digits are a name");
        self.shift(id, (spot, name), (Spot::Base(BaseId::PARKING), parked));
        true
    }

    /// Removes a doomed entry that is in the way; what must live on is parked first.
    fn remove_with_contents(&mut self, id: BaseId) -> bool {
        let mut order = Vec::new();
        let mut leaving = Vec::new();
        let mut queue = vec![id];
        while let Some(at) = queue.pop() {
            order.push(at);
            for child in self.picture.children(at) {
                match child {
                    Occupant::Entry(child) if self.doomed.contains(&child) => queue.push(child),
                    Occupant::Entry(child) if self.may_leave(child) => leaving.push(child),
                    Occupant::Entry(_) | Occupant::New => return false,
                }
            }
        }
        leaving.into_iter().all(|child| self.park(child))
            && order.into_iter().rev().all(|at| self.remove(at))
    }

    fn may_leave(&self, id: BaseId) -> bool {
        self.want_of.get(&id).is_some_and(|node| !self.plan.deferred.contains(node))
    }

    fn remove(&mut self, id: BaseId) -> bool {
        let (Some((spot, name)), Some(entry)) =
            (self.picture.place(id), self.pairing.base.entry(id))
        else {
            return false;
        };
        let at = match spot {
            Spot::Base(BaseId::PARKING) => {
                Some(Location::Parked(ParkingId(id.0), TreePath::root()))
            }
            _ => self.picture.location(spot).map(|directory| directory.join(&name)),
        };
        let Some(at) = at else { return false };
        let expected = entry.fingerprint;
        let effect = match entry.is_directory() {
            true => Effect::RemoveDirectory { at, expected },
            false => Effect::RemoveFile { at, expected },
        };
        self.push(effect, nodes_of_entry(entry), Then::Remove { id });
        self.picture.places.insert((spot, name), None);
        self.picture.removed.insert(id);
        self.consumed.insert(id);
        if spot != Spot::Base(BaseId::PARKING) {
            self.plan.disturbed.insert(spot);
        } else if entry.is_directory() {
            self.bring_back(id, entry);
        }
        true
    }

    /// A parked directory that can't be removed holds what a user put into it on its way there, and nobody
    /// looks into the parking area: it comes back to where it is looked at. One that was removed is not
    /// there to come.
    fn bring_back(&mut self, id: BaseId, entry: &BaseEntry) {
        let root = Spot::Base(BaseId::ROOT);
        let name = format!("recovered-{}", id.0);
        let name = Name::try_from(name.as_str()).expect("a word and digits are a name");
        if self.picture.occupant(root, &name).is_some() {
            return;
        }
        let Some(directory) = self.picture.location(root) else { return };
        let effect = Effect::Move {
            from: Location::Parked(ParkingId(id.0), TreePath::root()),
            to: directory.join(&name),
            expected: entry.fingerprint,
        };
        let then = Then::Relocate { id, parent: root, name, nodes: entry.nodes.clone() };
        self.push(effect, nodes_of_entry(entry), then);
    }

    fn remove_doomed(&mut self) {
        let mut doomed: Vec<_> = self.doomed.difference(&self.picture.removed).copied().collect();
        let base = self.pairing.base;
        doomed.sort_by_cached_key(|&id| (std::cmp::Reverse(base.depth(id)), id));
        for id in doomed {
            let empty = self.picture.children(id).is_empty();
            if !(empty && self.remove(id))
                && let Some(entry) = base.entry(id)
            {
                self.plan.deferred.extend(entry.nodes.iter().map(|seen| seen.node));
            }
        }
    }

    /// Directories last: those that differ, and those in which something came or went.
    fn set_directories(&mut self, placed: &[NodeId]) {
        let mut differing = BTreeSet::new();
        for node in placed {
            let Want { view, disk } = &self.wants[node];
            let Some((id, entry)) = disk.and_then(|id| Some((id, self.pairing.base.entry(id)?)))
            else {
                continue;
            };
            if view.body.kind() != Kind::Directory {
                continue;
            }
            if needs_attributes(entry, view) {
                differing.insert(Spot::Base(id));
            } else if !self.plan.disturbed.contains(&Spot::Base(id))
                && let Some(at) = self.picture.location(Spot::Base(id))
            {
                let view = view.clone();
                self.confirm(id, entry, &view, at);
            }
        }
        differing.extend(self.plan.disturbed.iter().copied());
        for spot in differing {
            self.set_directory(spot);
        }
    }

    fn set_directory(&mut self, spot: Spot) {
        let Some(at) = self.picture.location(spot) else { return };
        let (view, expected) = match spot {
            // Its mtime and mode are its own on every master.
            Spot::Base(BaseId::ROOT) => return,
            Spot::Base(id) => {
                let Some(entry) = self.pairing.base.entry(id) else { return };
                let view = match self.want_of.get(&id) {
                    Some(node) => Some(self.wants[node].view.clone()),
                    // Which nodes it is by now, a plan that considers it tells, with what follows.
                    None if self.pairing.is_doomed(id) => None,
                    None => {
                        let view = self.pairing.tree_of(id);
                        view.map(|view| EntryView { nodes: entry.nodes.clone(), ..view })
                    }
                };
                let Some(view) = view.filter(|_| !self.doomed.contains(&id)) else { return };
                (view, entry.fingerprint)
            }
            Spot::Made(node) => (self.wants[&node].view.clone(), just_made()),
        };
        let entry = Box::new(Put::from(&view));
        let then = match spot {
            Spot::Base(id) => Then::Replace { id, entry },
            Spot::Made(node) => Then::SetMade { node, entry },
        };
        let effect = set_attributes(at, expected, &view);
        self.push(effect, nodes_of(&view), then);
    }

    fn push(&mut self, effect: Effect, mut nodes: SmallVec<[NodeId; 1]>, then: Then) {
        // What the entry was before, and is no more in the tree, is still to go, should the effect fail and what
        // the entry was to become be gone or called otherwise then.
        let becomes = match &then {
            Then::Replace { id, .. } | Then::Learn { id, .. } | Then::Relocate { id, .. } => {
                Some(*id)
            }
            Then::Insert { .. }
            | Then::SetMade { .. }
            | Then::Park { .. }
            | Then::Remove { .. } => None,
        };
        if let Some(entry) = becomes.and_then(|id| self.pairing.base.entry(id)) {
            let dead = self.dead_nodes(entry);
            nodes.extend(dead.into_iter().filter(|node| !nodes.contains(node)).collect::<Vec<_>>());
        }
        self.plan.effects.push(PlannedEffect { effect, nodes, then });
    }
}

/// What is expected of a directory that an earlier effect makes: see [`Effect::SetAttributes`].
fn just_made() -> Fingerprint {
    let time = Timestamp::default();
    Fingerprint {
        device: 0,
        inode: 0,
        kind: Kind::Directory,
        mode: Mode::new(0),
        uid: 0,
        gid: 0,
        size: 0,
        modified: time,
        changed: time,
        born: time,
    }
}

fn set_attributes(at: Location, expected: Fingerprint, view: &EntryView) -> Effect {
    let (attributes, body) = (view.attributes.clone(), view.body.clone());
    Effect::SetAttributes { at, expected, attributes, body }
}

fn needs_attributes(entry: &BaseEntry, view: &EntryView) -> bool {
    let (known, wanted) = (&entry.attributes, &view.attributes);
    let mode = view.body.kind() != Kind::Symlink && known.mode != wanted.mode;
    mode || (&known.owner, &known.xattrs) != (&wanted.owner, &wanted.xattrs)
        || entry.body.mtime() != view.body.mtime()
        // Of a directory whose mtime was disturbed, the base says what it should be, stat what it is.
        || (entry.is_directory() && entry.fingerprint.modified != view.body.mtime())
}

fn nodes_of(view: &EntryView) -> SmallVec<[NodeId; 1]> {
    view.nodes.iter().map(|seen| seen.node).collect()
}

fn nodes_of_entry(entry: &BaseEntry) -> SmallVec<[NodeId; 1]> {
    entry.nodes.iter().map(|seen| seen.node).collect()
}

/// A rename shows where the nodes are, not what else became of them; unless nothing else did.
fn nodes_after_move(entry: &BaseEntry, view: &EntryView) -> SeenNodes {
    if entry.body.same_bytes(&view.body) && !needs_attributes(entry, view) {
        return view.nodes.clone();
    }
    // A successor by its place has none of the nodes until it is put.
    if !view.nodes.iter().any(|seen| entry.nodes.iter().any(|known| known.node == seen.node)) {
        return entry.nodes.clone();
    }
    let known = |node: NodeId| entry.nodes.iter().find(|seen| seen.node == node);
    view.nodes
        .iter()
        .filter_map(|seen| {
            let contents = known(seen.node)?.contents.clone();
            Some(Seen { node: seen.node, places: seen.places.clone(), contents })
        })
        .collect()
}
