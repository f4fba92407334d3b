//! The batch ahead: while the disk does one batch of effects the next may wait for it already, so that the
//! disk need not wait until the outcomes of the first are taken in and recorded.
//!
//! What is planned ahead must not depend on what becomes of the batch before it. So both only fill: they put
//! new files where nothing is, into directories that are in their places, and no directory, node or content
//! is in both. A look that is due and changes of others that wait come first: then nothing is planned ahead.

use std::collections::{BTreeSet, VecDeque};

use super::{Engine, Turn};
use crate::checkout::{Availability, Plan};
use crate::values::{BaseId, Body, Effect, TreeView as _};
use crate::vocabulary::{ContentHash, NodeId};

/// Batches of effects, in order: the one that the disk does, and the one that may wait for it.
#[derive(Debug)]
pub(super) struct Batches {
    plans: VecDeque<Plan>,
    /// How many nodes were ready when too few of them could be put beside the first batch.
    tried: usize,
}

impl From<Plan> for Batches {
    fn from(plan: Plan) -> Self {
        Self { plans: VecDeque::from([plan]), tried: 0 }
    }
}

impl Batches {
    /// Takes out the one whose outcomes have come.
    pub(super) fn take_first(&mut self) -> Option<Plan> {
        self.tried = 0;
        self.plans.pop_front()
    }

    /// One that the disk does after those before it.
    pub(super) fn push(&mut self, plan: Plan) {
        self.plans.push_back(plan);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    /// How many effects are under way.
    pub(super) fn effects(&self) -> usize {
        self.plans.iter().map(|plan| plan.effects.len()).sum()
    }

    /// What they are about.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        let effects = self.plans.iter().flat_map(|plan| &plan.effects);
        effects.flat_map(|planned| planned.nodes.iter().copied())
    }

    /// The batch under way, if there is to be one beside it, made of so many nodes.
    fn alone(&self, ready: usize) -> Option<&Plan> {
        let more_than_before = ready >= self.tried + self.tried / 4;
        self.plans.front().filter(|_| self.plans.len() == 1 && more_than_before)
    }
}

/// What a batch under way is about.
struct Busy {
    directories: BTreeSet<BaseId>,
    nodes: BTreeSet<NodeId>,
    contents: BTreeSet<ContentHash>,
}

impl Busy {
    /// None if it does more than fill directories.
    fn with(plan: &Plan) -> Option<Self> {
        let directories = plan.fills()?;
        let nodes = plan.effects.iter().flat_map(|planned| planned.nodes.iter().copied()).collect();
        let contents = plan.effects.iter().filter_map(|planned| match &planned.effect {
            Effect::PutFile { content, .. } => Some(content.hash),
            _ => None,
        });
        Some(Self { directories, nodes, contents: contents.collect() })
    }
}

impl Engine {
    /// Plans a second batch if enough has come for a full one.
    pub(super) fn plan_ahead(&mut self, now: u64) {
        let ready = self.ready.len();
        let Turn::Applying(batches) = &self.turn else { return };
        let look_is_due = self.agenda.timeout().is_some_and(|at| at <= now);
        if ready < self.limits.entries_max || look_is_due || !self.held.is_empty() {
            return;
        }
        let Some(busy) = batches.alone(ready).and_then(Busy::with) else { return };
        let mut chosen = self.choose_beside(&busy);
        self.stall_withheld(&mut chosen);
        self.postpone_settling(&mut chosen);
        if chosen.len() > self.limits.entries_max / 2 {
            let plan = self.plan(&chosen);
            if plan.fills().is_some_and(|filled| filled.is_disjoint(&busy.directories)) {
                self.begin(&chosen, plan);
                return;
            }
        }
        self.touched.extend(&chosen);
        self.ready.append(&mut chosen);
        if let Turn::Applying(batches) = &mut self.turn {
            batches.tried = ready;
        }
    }

    /// Nodes that are ready, and can be put whatever becomes of what is under way.
    fn choose_beside(&mut self, busy: &Busy) -> BTreeSet<NodeId> {
        let mut ready = std::mem::take(&mut self.ready);
        let (mut chosen, mut passed) = (BTreeSet::new(), BTreeSet::new());
        while chosen.len() < self.limits.entries_max
            && let Some(node) = ready.pop_first()
        {
            let Some(parent) = self.replica.tree().entry(node).map(|entry| entry.parent) else {
                continue;
            };
            let Some(directory) = self.directory_beside(parent, busy) else {
                passed.insert(node);
                continue;
            };
            let siblings = self.replica.tree().children(parent);
            let siblings = siblings.into_iter().map(|(_, sibling)| sibling);
            let siblings = siblings.filter(|sibling| *sibling == node || ready.remove(sibling));
            for sibling in siblings.collect::<Vec<_>>() {
                let room = chosen.len() < self.limits.entries_max;
                if room && self.fits_beside(sibling, directory, busy) {
                    self.touched.remove(&sibling);
                    chosen.insert(sibling);
                } else {
                    passed.insert(sibling);
                }
            }
        }
        ready.append(&mut passed);
        self.ready = ready;
        chosen
    }

    /// The directory on the disk, if it is where the tree has it and nothing is under way in it.
    fn directory_beside(&self, parent: NodeId, busy: &Busy) -> Option<BaseId> {
        let directory = self.base.by_node(parent)?;
        let is_free = !busy.directories.contains(&directory)
            && self.base.path(directory) == self.replica.tree().path(parent);
        is_free.then_some(directory)
    }

    /// Whether all there is to do for a node is to put its content, which is here, as a new file.
    fn fits_beside(&self, node: NodeId, directory: BaseId, busy: &Busy) -> bool {
        let Some(entry) = self.replica.tree().entry(node) else { return false };
        let Body::File(content) = &entry.body else { return false };
        self.touched.contains(&node)
            && entry.nodes.len() == 1
            && self.base.by_node(node).is_none()
            && self.base.formerly_of(node).next().is_none()
            && self.base.child(directory, &entry.name).is_none()
            && !busy.nodes.contains(&node)
            && !busy.contents.contains(&content.hash)
            && !matches!(
                self.availability(&content.hash),
                Availability::Local(_) | Availability::Missing
            )
    }
}
