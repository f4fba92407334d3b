//! The plan: effects in order, and what each makes of the base once it is done.
//!
//! Invariant: the base takes in only what was done, where it was done. An effect that was done while
//! one that it relied on was not, is not taken in: the disk is looked at instead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::values::{
    Base, BaseEntry, BaseId, Body, Effect, EntryView, Expected, Location, Outcome, Problem,
    PutSource, SeenNodes,
};
use crate::vocabulary::{Attributes, ContentHash, Fingerprint, Name, NodeId, TreePath};

/// Where a content can be had.
#[derive(Clone, PartialEq, Eq)]
pub enum Availability {
    /// Right here, checked.
    Inline(Arc<[u8]>),
    /// Staged under its hash.
    Staged,
    /// In this file, as the base has it.
    Local(TreePath),
    /// Not known to be here. The plan looks for a file of the base that holds it, before it gives up.
    Missing,
}

impl std::fmt::Debug for Availability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "Inline({} bytes)", bytes.len()),
            Self::Staged => write!(f, "Staged"),
            Self::Local(path) => write!(f, "Local({path})"),
            Self::Missing => write!(f, "Missing"),
        }
    }
}

/// Bounds of one plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries that are looked at; the effects are at most about twice as many.
    pub entries_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries_max: 10_000 }
    }
}

/// A content that an entry needs and that is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The node to plan again once it is here.
    pub node: NodeId,
    /// Of the content.
    pub hash: ContentHash,
    /// In bytes.
    pub size: u64,
    /// A file that probably holds much of it, where it is once the plan is through: the entry's last
    /// version.
    pub resembles: Option<TreePath>,
}

/// The directory that holds something: in the base, or made by the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spot {
    Base(BaseId),
    Made(NodeId),
}

/// What an effect makes of the base.
#[derive(Clone, Debug)]
pub(super) enum Then {
    Insert { parent: Spot, name: Name, entry: Box<Put> },
    Replace { id: BaseId, entry: Box<Put> },
    SetMade { node: NodeId, entry: Box<Put> },
    Learn { id: BaseId, entry: Box<Put> },
    Relocate { id: BaseId, parent: Spot, name: Name, nodes: SeenNodes },
    Park { id: BaseId },
    Remove { id: BaseId },
}

/// What the tree has at a place where it has been put.
#[derive(Clone, Debug)]
pub(super) struct Put {
    pub(super) nodes: SeenNodes,
    pub(super) body: Body,
    pub(super) attributes: Attributes,
}

impl From<&EntryView> for Put {
    fn from(view: &EntryView) -> Self {
        Self {
            nodes: view.nodes.clone(),
            body: view.body.clone(),
            attributes: view.attributes.clone(),
        }
    }
}

/// One effect of a plan.
#[derive(Clone, Debug)]
pub struct PlannedEffect {
    /// What is to be done.
    pub effect: Effect,
    /// The nodes of the entry that it is about: to be planned again if it fails.
    pub nodes: SmallVec<[NodeId; 1]>,
    pub(super) then: Then,
}

/// What is to be done on the disk, in order.
#[derive(Debug, Default)]
#[must_use]
pub struct Plan {
    /// The effects. Each relies on those before it; one that fails makes others fail, harmlessly.
    pub effects: Vec<PlannedEffect>,
    /// Contents to fetch. What needs them is left as it is, but for its place.
    pub wanted: Vec<Wanted>,
    /// Nodes to plan again when this plan is through: it is full, or something stands in the way.
    pub deferred: BTreeSet<NodeId>,
    pub(super) made: BTreeMap<NodeId, BaseId>,
    pub(super) displaced: BTreeSet<NodeId>,
    pub(super) disturbed: BTreeSet<Spot>,
}

/// What is left to do after an effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// Nodes to plan again, later.
    pub retry: SmallVec<[NodeId; 1]>,
    /// A path to be looked at before that: the disk is not as the base has it.
    pub look: Option<TreePath>,
    /// Why it could not be done.
    pub problem: Option<Problem>,
}

impl Plan {
    /// Whether there is nothing to do on the disk.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }

    /// Directories whose mtimes this plan changes and has not set right yet: they say nothing of a
    /// user. To be asked before each survey, and still after an effect on such a directory failed.
    #[must_use]
    pub fn disturbed(&self) -> BTreeSet<BaseId> {
        self.disturbed
            .iter()
            .filter_map(|spot| match spot {
                Spot::Base(id) => Some(*id),
                Spot::Made(node) => self.made.get(node).copied(),
            })
            .collect()
    }

    /// The directories that it fills, if all it does is to put new files, whose contents are here, into
    /// directories that are there.
    #[must_use]
    pub fn fills(&self) -> Option<BTreeSet<BaseId>> {
        let is_filling = |planned: &PlannedEffect| match (&planned.effect, &planned.then) {
            (
                Effect::PutFile { expected: Expected::Absent, source, .. },
                Then::Insert { parent: Spot::Base(_), .. },
            ) => !matches!(source, PutSource::Local(_)),
            (Effect::SetAttributes { .. }, Then::Replace { id, .. }) => {
                self.disturbed.contains(&Spot::Base(*id))
            }
            _ => false,
        };
        let only_fills = self.wanted.is_empty() && self.effects.iter().all(is_filling);
        only_fills.then(|| self.disturbed())
    }

    /// Writes into the base what became of the effect at `index`; a failed one leaves it as it is.
    pub fn complete(&mut self, base: &mut Base, index: usize, outcome: Outcome) -> Completion {
        let Some(planned) = self.effects.get(index) else { return Completion::default() };
        let retry = planned.nodes.clone();
        let look = path_to_look_at(&planned.effect);
        match outcome {
            Outcome::Done { fingerprint } => {
                let planned = planned.clone();
                match self.advance(base, planned, fingerprint) {
                    true => Completion::default(),
                    false => Completion { retry, look, problem: None },
                }
            }
            Outcome::Differs | Outcome::Unparked => Completion { retry, look, problem: None },
            Outcome::Failed(problem) => {
                let look = moved_to(&planned.effect);
                Completion { retry, look, problem: Some(problem) }
            }
            Outcome::Ignored => Completion::default(),
        }
    }

    /// Whether the base could take it in.
    fn advance(
        &mut self,
        base: &mut Base,
        planned: PlannedEffect,
        fingerprint: Fingerprint,
    ) -> bool {
        let PlannedEffect { effect, nodes, then } = planned;
        match then {
            Then::Insert { parent, name, entry } => {
                let Some(parent) = self.place(base, None, parent, &name, effect.target()) else {
                    return false;
                };
                let Put { nodes: seen, body, mut attributes } = *entry;
                if let Effect::MakeDirectory { attributes: made, .. } = effect {
                    // Its own come at the end, once everything is in it.
                    attributes = made;
                }
                let directory = matches!(body, Body::Directory { .. });
                let entry = BaseEntry { parent, name, nodes: seen, body, attributes, fingerprint };
                let id = base.insert(entry);
                if let (true, Some(&node)) = (directory, nodes.first()) {
                    self.made.insert(node, id);
                }
            }
            Then::Replace { id, entry } => {
                if base.location(id).as_ref() != Some(effect.target()) {
                    return false;
                }
                base.update(id, |known| take(known, &entry, Some(fingerprint)));
                self.disturbed.remove(&Spot::Base(id));
            }
            Then::Learn { id, entry } => {
                if base.location(id).as_ref() != Some(effect.target()) {
                    return false;
                }
                base.update(id, |known| take(known, &entry, None));
            }
            Then::SetMade { node, entry } => {
                let Some(&id) = self.made.get(&node) else { return false };
                base.update(id, |known| take(known, &entry, Some(fingerprint)));
                self.disturbed.remove(&Spot::Made(node));
            }
            Then::Relocate { id, parent, name, nodes } => {
                let Some(parent) = self.place(base, Some(id), parent, &name, effect.target())
                else {
                    return false;
                };
                if base.is_within(parent, id) {
                    return false;
                }
                base.relocate(id, parent, name);
                base.update(id, |entry| {
                    note_move(entry, fingerprint);
                    entry.nodes = nodes;
                });
            }
            Then::Park { id } => {
                base.park(id);
                base.update(id, |entry| note_move(entry, fingerprint));
            }
            Then::Remove { id } => {
                // What was to leave the directory before and has not: a user took it elsewhere.
                let left = base.children(id).map(|(_, child)| child).collect();
                self.displace(base, left);
                base.remove(id);
            }
        }
        true
    }

    /// Entries and what is below them are about to be forgotten by the base: they are planned again. When
    /// one can't tell, one keeps.
    fn displace(&mut self, base: &Base, mut queue: Vec<BaseId>) {
        while let Some(at) = queue.pop() {
            queue.extend(base.children(at).map(|(_, child)| child));
            let nodes = base.entry(at).into_iter().flat_map(|entry| &entry.nodes);
            self.displaced.extend(nodes.map(|seen| seen.node));
        }
    }

    /// The directory in the base, if the effect was really done in there.
    ///
    /// What should have left the place before and has not was gone from it: removed or renamed by a user a
    /// moment ago.
    fn place(
        &mut self,
        base: &mut Base,
        id: Option<BaseId>,
        spot: Spot,
        name: &Name,
        target: &Location,
    ) -> Option<BaseId> {
        let directory = match spot {
            Spot::Base(directory) => directory,
            Spot::Made(node) => *self.made.get(&node)?,
        };
        if base.location(directory)?.join(name) != *target {
            return None;
        }
        let displaced = base.child(directory, name).filter(|&there| Some(there) != id);
        self.displace(base, displaced.into_iter().collect());
        Some(directory)
    }

    /// Nodes that the base has forgotten because something else was put in their place, or the directory
    /// that held them is no more: to be planned again.
    pub fn take_displaced(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.displaced)
    }
}

fn take(entry: &mut BaseEntry, put: &Put, fingerprint: Option<Fingerprint>) {
    entry.nodes = put.nodes.clone();
    entry.body = put.body.clone();
    entry.attributes = put.attributes.clone();
    if let Some(fingerprint) = fingerprint {
        entry.fingerprint = fingerprint;
    }
}

/// Only what a rename changes is ours: anything else is left to be found by the next look.
fn note_move(entry: &mut BaseEntry, fingerprint: Fingerprint) {
    if entry.fingerprint.same_bytes(&fingerprint) {
        entry.fingerprint.changed = fingerprint.changed;
    }
}

/// Where something may be that a failed effect was to move: gone from its old place, it must not pass for removed.
fn moved_to(effect: &Effect) -> Option<TreePath> {
    match effect {
        Effect::Move { to: Location::Tree(path), .. } => Some(path.clone()),
        _ => None,
    }
}

/// What may differ from the base: where something was expected, or expected not to be.
fn path_to_look_at(effect: &Effect) -> Option<TreePath> {
    let location = match effect {
        Effect::Move { from: from @ Location::Tree(_), .. } => from,
        other => other.target(),
    };
    match location {
        Location::Tree(path) => Some(path.clone()),
        Location::Parked(..) => None,
    }
}
