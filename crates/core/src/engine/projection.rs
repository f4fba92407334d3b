//! Projection: what the merged tree has and the disk has not, step by step.

use std::collections::BTreeSet;

use super::{Blocked, Engine, Output, Turn};
use crate::checkout::{self, Availability, Plan};
use crate::snapshot::Scope;
use crate::values::{Event, Location, Outcome, Problem, ProblemKind, Record};
use crate::vocabulary::{ContentHash, NodeId, TreePath};

/// How many effects make one batch: enough to share one sync, few enough to let a look in between.
const EFFECTS_MAX: usize = 2_048;
/// After so many attempts in a row that found something else than a look did, a node waits.
const DIFFERS_MAX: u32 = 4;

impl Engine {
    pub(super) fn start_plan(&mut self, now: u64) {
        let touched = std::mem::take(&mut self.touched);
        let have = |hash: &ContentHash| self.availability(hash);
        let plan = checkout::plan(&self.base, self.replica.tree(), &touched, &have, EFFECTS_MAX);
        for update in &plan.absorbed {
            update.apply(&mut self.base);
        }
        for &node in &touched {
            self.transfer.unwant_unless(node, plan.wanted.iter().any(|want| want.node == node));
        }
        for want in &plan.wanted {
            self.transfer.want(want.node, want.hash, want.size, want.old_version.clone());
        }
        self.touched.extend(&plan.deferred);
        if plan.effects.is_empty() {
            if self.touched.is_empty() {
                self.transfer.clear_inline();
            }
            return;
        }
        for id in plan.disturbed_directories() {
            self.disturbed.insert(id);
            self.records.push(Record::Intent { id: id.0, row: Some(Vec::new()) });
        }
        let effects = plan.effects.iter().map(|planned| planned.effect.clone()).collect();
        self.queued.push(Output::Apply(effects));
        self.turn = Turn::Applying(Box::new(plan));
        let _ = now;
    }

    fn availability(&self, hash: &ContentHash) -> Availability {
        if let Some(bytes) = self.transfer.inline(hash) {
            Availability::Inline(bytes.to_vec())
        } else if self.transfer.is_staged(hash) {
            Availability::Staged
        } else if let Some((path, _)) = self.find_content(hash) {
            Availability::Local(path)
        } else {
            Availability::Missing
        }
    }

    pub(super) fn applied(&mut self, now: u64, outcomes: Vec<Outcome>) {
        let plan = match std::mem::replace(&mut self.turn, Turn::Idle) {
            Turn::Applying(plan) => *plan,
            other => {
                self.turn = other;
                return;
            }
        };
        for (index, outcome) in outcomes.into_iter().enumerate().take(plan.effects.len()) {
            self.effect_done(now, &plan, index, outcome);
        }
        for id in plan.disturbed_directories() {
            self.disturbed.remove(&id);
            self.records.push(Record::Intent { id: id.0, row: None });
        }
    }
}
