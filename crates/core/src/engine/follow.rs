//! Following what a person settled or restored here: whether it is on this disk yet.
//!
//! Whoever runs `pleach restore f && cat f` looks at the file next. So what such an act touched is kept in mind
//! until nothing is left to be done for it, and what of it can't be put on the disk is told apart from what is
//! under way. Other work in hand, however much, is not waited for.

use std::collections::BTreeSet;

use super::{Blocked, Engine, Turn};
use crate::values::{Contents, TreeView as _};
use crate::vocabulary::{Moment, NodeId};

/// What was not known to be on the disk when somebody began to follow it.
#[derive(Clone, Debug, Default)]
pub struct Followed(BTreeSet<NodeId>);

/// How far this disk has come with what somebody follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followup {
    /// It has all of it.
    OnDisk,
    /// Something is still to be done or fetched.
    UnderWay,
    /// Nothing is under way, and some of it can't be done: there is a problem for it.
    Blocked,
}

impl Engine {
    /// What was settled and restored here so far and may not be on the disk.
    #[must_use]
    pub fn follow(&self) -> Followed {
        Followed(self.acted.clone())
    }

    /// How far the disk has come with it. What is done is forgotten on the way, so that asking again costs
    /// little.
    pub fn followup(&self, followed: &mut Followed) -> Followup {
        let busy = self.busy_nodes();
        let mut blocked = BTreeSet::new();
        while let Some(&node) = followed.0.first() {
            match self.followup_of(node, &busy) {
                Followup::UnderWay => break,
                Followup::Blocked => drop(blocked.insert(node)),
                Followup::OnDisk => {}
            }
            followed.0.pop_first();
        }
        let is_under_way = !followed.0.is_empty();
        followed.0.append(&mut blocked);
        match (is_under_way, followed.0.is_empty()) {
            (true, _) => Followup::UnderWay,
            (false, false) => Followup::Blocked,
            (false, true) => Followup::OnDisk,
        }
    }

    /// Publishes what a person asked for, and nobody has done on the disk: that comes first there.
    pub(super) fn act(&mut self, now: Moment, local: crate::replica::Local) {
        let nodes = &local.delta.nodes;
        self.acted.extend(nodes);
        if nodes.len() <= self.limits.entries_max {
            self.ready.extend(nodes);
        }
        self.publish(local, Contents::new());
        self.advance(now.monotonic_ms);
        self.seal();
    }

    /// With nothing left to be put that could be, only what can't be put or is on its way is kept in mind.
    pub(super) fn forget_acts_done(&mut self) {
        let acted = std::mem::take(&mut self.acted);
        let is_left = |&node: &NodeId| self.followup_of(node, &BTreeSet::new()) != Followup::OnDisk;
        self.acted = acted.into_iter().filter(is_left).collect();
    }

    fn followup_of(&self, node: NodeId, busy: &BTreeSet<NodeId>) -> Followup {
        let entry = self.replica.tree().entry(node);
        let united = entry.iter().flat_map(|entry| &entry.nodes).map(|seen| seen.node);
        let nodes: BTreeSet<NodeId> = united.chain([node]).collect();
        let is_pending = |node: &NodeId| {
            self.touched.contains(node)
                || self.stalled.contains(node)
                || self.doubted.contains_key(node)
                || busy.contains(node)
        };
        if nodes.iter().any(is_pending) {
            return Followup::UnderWay;
        }
        let lacking = nodes.iter().find_map(|node| self.transfer.wanted_by(*node));
        let blocked = lacking.map(Blocked::Content);
        let problem = |blocked: &Blocked| self.problems.has(blocked);
        match (&blocked, nodes.into_iter().map(Blocked::Node).any(|node| problem(&node))) {
            (Some(content), false) if !problem(content) => Followup::UnderWay,
            (None, false) => Followup::OnDisk,
            _ => Followup::Blocked,
        }
    }

    /// What effects under way are about.
    fn busy_nodes(&self) -> BTreeSet<NodeId> {
        match &self.turn {
            Turn::Applying(batches) => batches.nodes().collect(),
            Turn::Idle | Turn::Looking(_) => BTreeSet::new(),
        }
    }
}
