//! Projection: what the merged tree has and the disk has not, step by step.

use std::collections::BTreeSet;

use super::agenda::name_scope;
use super::{Blocked, Engine, Output, Turn};
use crate::checkout::{self, Availability, Completion, Limits, Plan, PlannedEffect};
use crate::snapshot::Scope;
use crate::values::{
    BaseId, Body, Effect, EntryView, Event, FileContent, Location, Outcome, Problem, ProblemKind,
    PutSource, Record, TreeView as _,
};
use crate::vocabulary::{ContentHash, Kind, NodeId, TreePath};

/// How many entries make one batch: enough to share one sync, few enough to let a look in between.
pub(super) const LIMITS: Limits = Limits { entries_max: 2_048 };
/// After so many batches' worth of contents wanted in a row planning pauses, so that they are asked for while
/// it goes on: as many as are asked for at once.
const BATCHES_WANTED_IN_A_ROW: usize = 2;
/// How often a node waits for its path to settle before it is projected all the same.
const POSTPONED_MAX: u32 = 8;
/// How many different things may have been left in one place by effects that failed: the last ones.
const DOUBTS_MAX: usize = 8;
/// After so many attempts in a row that found something else than a look did, a node waits.
const DIFFERS_MAX: u32 = 4;

impl Engine {
    pub(super) fn start_plan(&mut self) {
        let mut touched = self.next_touched();
        self.stall_withheld(&mut touched);
        self.postpone_settling(&mut touched);
        let plan = self.plan(&touched);
        self.begin(&touched, plan);
    }

    pub(super) fn plan(&self, touched: &BTreeSet<NodeId>) -> Plan {
        let have = |hash: &ContentHash| self.availability(hash);
        checkout::plan(&self.base, self.replica.tree(), touched, &have, self.limits)
    }

    /// Wants what a plan lacks, and has the disk do what it can do.
    pub(super) fn begin(&mut self, touched: &BTreeSet<NodeId>, mut plan: Plan) {
        let tried: BTreeSet<NodeId> =
            plan.effects.iter().flat_map(|planned| planned.nodes.iter().copied()).collect();
        let waiting: BTreeSet<NodeId> = plan.wanted.iter().map(|want| want.node).collect();
        for &node in touched.difference(&plan.deferred) {
            // Another node of the entry may have stood for it before.
            let entry = self.replica.tree().entry(node);
            let nodes = entry.iter().flat_map(|entry| &entry.nodes).map(|seen| seen.node);
            for node in nodes.chain([node]) {
                self.transfer.unwant(node);
                // With nothing left to do, nothing is in the way. Of what is tried now, its outcome tells, and
                // of what waits for its content: it is not on the disk yet.
                if !tried.contains(&node) && !waiting.contains(&node) {
                    self.unblocked(node);
                }
            }
        }
        for want in &plan.wanted {
            self.transfer.want(want.node, want.hash, want.size, want.resembles.clone());
        }
        self.forget_fetch_problems();
        if plan.is_empty() {
            // More than one plan takes is left for the next one, while they become fewer. Then nothing
            // this disk can do brings the rest further: something else has to happen first.
            let fewer = plan.deferred.len() < touched.len();
            let rest = if fewer { &mut self.touched } else { &mut self.stalled };
            rest.append(&mut plan.deferred);
            if self.touched.is_empty() && self.transfer.at_hand.has_inline() {
                self.stage_for_stalled();
                self.transfer.at_hand.clear_inline();
            }
            return;
        }
        self.touched.append(&mut plan.deferred);
        for id in plan.disturbed() {
            self.disturbed.insert(id);
            self.records.push(Record::Intent { id: id.0, row: Some(Vec::new()) });
        }
        let effects = plan.effects.iter().map(|planned| planned.effect.clone()).collect();
        self.queued.push(Output::Apply(effects));
        match &mut self.turn {
            Turn::Applying(batches) => batches.push(plan),
            turn => *turn = Turn::Applying(plan.into()),
        }
    }

    /// What the next plan is about: first of all what has come, then the rest. Of more than one takes, what
    /// is in the same directories comes together: else each plan would disturb them all, and set each right
    /// again.
    fn next_touched(&mut self) -> BTreeSet<NodeId> {
        let max = self.limits.entries_max;
        let all = self.touched.len() <= max;
        let mut chosen = BTreeSet::new();
        let mut ready = std::mem::take(&mut self.ready);
        while !all
            && chosen.len() < max
            && let Some(node) = ready.pop_first()
        {
            if self.touched.remove(&node) {
                chosen.insert(node);
                let ready = |sibling| ready.remove(&sibling);
                self.choose_siblings(node, &mut chosen, u64::MAX, ready);
            }
        }
        self.ready = if all { BTreeSet::new() } else { ready };
        let pause = self.transfer.wanted_ever() + (max * BATCHES_WANTED_IN_A_ROW) as u64;
        while chosen.len() < max
            && !self.halfway
            && let Some(node) = self.touched.pop_first()
        {
            if !self.only_wants(node) {
                chosen.insert(node);
            }
            if !all {
                self.choose_siblings(node, &mut chosen, pause, |_| true);
            }
            self.halfway = self.transfer.wanted_ever() >= pause;
        }
        chosen
    }

    /// Chooses touched nodes that are in the same directory as `node`, as far as there is room, and until so
    /// many contents have been wanted.
    fn choose_siblings(
        &mut self,
        node: NodeId,
        chosen: &mut BTreeSet<NodeId>,
        pause: u64,
        mut may: impl FnMut(NodeId) -> bool,
    ) {
        let tree = self.replica.tree();
        let siblings = tree.entry(node).map(|entry| tree.children(entry.parent));
        for (_, sibling) in siblings.unwrap_or_default() {
            if chosen.len() >= self.limits.entries_max || self.transfer.wanted_ever() >= pause {
                return;
            }
            if may(sibling) && self.touched.remove(&sibling) && !self.only_wants(sibling) {
                chosen.insert(sibling);
            }
        }
    }

    /// Whether all there is to do for a node is to ask for its content, which is then done: no plan has to
    /// find out. So it is with a new file that nothing is in the way of.
    fn only_wants(&mut self, node: NodeId) -> bool {
        let Some(entry) = self.replica.tree().entry(node) else { return false };
        let Body::File(content) = &entry.body else { return false };
        let FileContent { hash, size, .. } = *content;
        let lacks = size > 0 && matches!(self.availability(&hash), Availability::Missing);
        if !lacks || !self.is_all_new(node, entry) {
            return false;
        }
        self.transfer.want(node, hash, size, None);
        true
    }

    /// Whether the disk has neither the entry nor anything at its place.
    fn is_all_new(&self, mut node: NodeId, mut entry: EntryView) -> bool {
        let (base, tree) = (&self.base, self.replica.tree());
        loop {
            let is_new = entry.nodes.len() == 1
                && base.by_node(node).is_none()
                && base.formerly_of(node).next().is_none();
            if !is_new {
                return false;
            }
            if let Some(directory) = base.by_node(entry.parent) {
                return base.child(directory, &entry.name).is_none();
            }
            node = entry.parent;
            match tree.entry(node) {
                Some(above) => entry = above,
                None => return false,
            }
        }
    }

    /// What waits in memory for nodes that wait themselves goes to the disk: memory is for what moves on,
    /// and nothing is fetched twice.
    fn stage_for_stalled(&mut self) {
        let mut contents = Vec::new();
        for &node in self.stalled.iter().chain(self.doubted.keys()) {
            let entry = self.replica.tree().entry(node);
            if let Some(Body::File(FileContent { hash, .. })) = entry.map(|entry| entry.body) {
                contents.extend(self.transfer.at_hand.spill(&hash).map(|bytes| (hash, bytes)));
            }
        }
        if !contents.is_empty() {
            self.queued.push(Output::Stage(contents));
        }
    }

    /// What happens to the path of a node right now is looked at before anything is done there; of a file
    /// that never rests, a few times.
    pub(super) fn postpone_settling(&mut self, touched: &mut BTreeSet<NodeId>) {
        if self.agenda.is_empty() {
            return;
        }
        let Self { base, replica, agenda, postponed, doubted, .. } = self;
        touched.retain(|&node| {
            let known = base.by_node(node).and_then(|id| base.path(id));
            let wanted = replica.tree().path(node);
            let paths = known.into_iter().chain(wanted);
            let Some(path) = paths.into_iter().find(|path| agenda.is_settling(path)) else {
                postponed.remove(&node);
                return true;
            };
            let times = postponed.entry(node).or_default();
            *times += 1;
            if *times > POSTPONED_MAX {
                postponed.remove(&node);
                return true;
            }
            doubted.insert(node, path);
            false
        });
    }

    pub(super) fn availability(&self, hash: &ContentHash) -> Availability {
        if let Some(bytes) = self.transfer.at_hand.inline(hash) {
            Availability::Inline(bytes.clone())
        } else if self.transfer.at_hand.is_staged(hash) {
            Availability::Staged
        } else if let Some((path, _)) = self.find_content(hash) {
            Availability::Local(path)
        } else {
            Availability::Missing
        }
    }

    pub(super) fn applied(&mut self, now: u64, outcomes: Vec<Outcome>) {
        let Turn::Applying(batches) = &mut self.turn else { return };
        let first = batches.take_first();
        if batches.is_empty() {
            self.turn = Turn::Idle;
        }
        let Some(mut plan) = first else { return };
        let before = plan.disturbed();
        for (index, outcome) in outcomes.into_iter().enumerate().take(plan.effects.len()) {
            self.effect_ended(now, &mut plan, index, outcome);
        }
        self.touched.append(&mut plan.take_displaced());
        // A plan has considered them.
        drop(self.base.take_parted());
        // What could not be set right, because its effect failed, stays ours.
        let mut after = plan.disturbed();
        after.retain(|&id| id != BaseId::ROOT && self.base.entry(id).is_some());
        for id in before.difference(&after) {
            self.disturbed.remove(id);
            self.records.push(Record::Intent { id: id.0, row: None });
        }
        for &id in after.difference(&before) {
            self.disturbed.insert(id);
            self.records.push(Record::Intent { id: id.0, row: Some(Vec::new()) });
        }
        for path in after.iter().filter_map(|&id| self.base.path(id)) {
            self.agenda.again(now, name_scope(&path), 0);
        }
        self.touched.append(&mut self.stalled);
    }

    fn effect_ended(&mut self, now: u64, plan: &mut Plan, index: usize, outcome: Outcome) {
        let done = matches!(outcome, Outcome::Done { .. });
        if matches!(outcome, Outcome::Failed(_)) {
            self.doubt(&plan.effects[index]);
        }
        if done {
            self.keep_in_mind(now, &plan.effects[index].effect);
        }
        if outcome == Outcome::Unparked {
            self.seek_unparked(now, &plan.effects[index].effect);
        }
        let Completion { retry, look, problem } = plan.complete(&mut self.base, index, outcome);
        let sets = matches!(plan.effects[index].effect, Effect::SetAttributes { .. });
        if done && sets {
            // An earlier plan may have disturbed it and not come to its end.
            let nodes = plan.effects[index].nodes.iter();
            for id in nodes.filter_map(|&node| self.base.by_node(node)) {
                if self.disturbed.remove(&id) {
                    self.records.push(Record::Intent { id: id.0, row: None });
                }
            }
        }
        let effect = &plan.effects[index].effect;
        let Some(&node) = retry.first() else {
            for &node in &plan.effects[index].nodes {
                self.differed.remove(&node);
                if self.unblocked(node) {
                    // The effect may have been for what is in it, and something else is still to be done.
                    self.touched.insert(node);
                }
            }
            if let (true, Location::Tree(path), false) = (done, effect.target(), is_minor(effect)) {
                let path = path.clone();
                self.event(Event::Applied { path });
            }
            return;
        };
        if let Some(path) = &look {
            self.agenda.again(now, name_scope(path), 0);
        }
        if let Some(problem) = problem {
            if let (ProblemKind::ContentMissing, Effect::PutFile { content, .. }) =
                (problem.kind, effect)
            {
                // It is not where it was thought to be: asked for anew when tried again.
                self.transfer.at_hand.consumed(&content.hash);
            }
            self.blocked(now, &retry, problem);
            return;
        }
        let attempts = self.differed.entry(node).or_default();
        *attempts += 1;
        // Until it is done once: another effect of the same plan may be about it as well.
        if *attempts > DIFFERS_MAX {
            let path = look.unwrap_or_else(TreePath::root);
            let reason = "what is there keeps changing while it is being replaced".to_owned();
            self.blocked(now, &retry, Problem { kind: ProblemKind::NeverSettles, path, reason });
        } else if let Some(path) = look {
            self.doubted.extend(retry.into_iter().map(|node| (node, path.clone())));
        } else {
            self.touched.extend(retry);
        }
    }

    /// What has left the parking area is somewhere in the tree, or was removed: all of it is looked at.
    fn seek_unparked(&mut self, now: u64, effect: &Effect) {
        if let Some(id) = effect.parked() {
            self.unparked.insert(BaseId(id.0));
            self.agenda.again(now, Scope::Subtree(TreePath::root()), 0);
        }
    }

    /// An effect that failed may have been done all the same.
    fn doubt(&mut self, planned: &PlannedEffect) {
        for &node in &planned.nodes {
            if let Some(id) = self.base.by_node(node) {
                self.doubtful.entry(id).or_default();
            }
        }
        let Location::Tree(path) = planned.effect.target() else { return };
        let Some(there) = self.base.find(path) else { return };
        let doubts = self.doubtful.entry(there).or_default();
        if let Some(left) = planned.effect.leaves()
            && !doubts.contains(&left)
        {
            doubts.truncate(DOUBTS_MAX - 1);
            doubts.insert(0, left);
        }
    }

    /// Whether there was a problem. It was that of other nodes too, which may be elsewhere by now.
    fn unblocked(&mut self, node: NodeId) -> bool {
        let solved = self.problems.solved(&Blocked::Node(node));
        let was_blocked = solved.is_some();
        if was_blocked {
            self.differed.remove(&node);
        }
        self.queued.extend(solved.map(Output::Event));
        self.touched.extend(self.blocked_with.remove(&node).unwrap_or_default());
        was_blocked
    }

    /// One problem for one entry, noted for the first of its nodes, whichever it was noted for before.
    fn blocked(&mut self, now: u64, nodes: &[NodeId], problem: Problem) {
        let Some((&node, others)) = nodes.split_first() else { return };
        // What was blocked with one of these, and is elsewhere by now, is tried by itself.
        let with = nodes.iter().filter_map(|node| self.blocked_with.remove(node)).flatten();
        let elsewhere: Vec<NodeId> = with.filter(|with| !nodes.contains(with)).collect();
        self.touched.extend(elsewhere);
        for other in others {
            self.unblocked(*other);
        }
        if !others.is_empty() {
            self.blocked_with.insert(node, others.to_vec());
        }
        if let Some(event) = self.problems.note(now, Blocked::Node(node), problem) {
            self.event(event);
        }
    }

    /// What an effect that was done used up, or took to another place.
    fn keep_in_mind(&mut self, now: u64, effect: &Effect) {
        match effect {
            Effect::PutFile { content, source: PutSource::Staged, .. } => {
                self.transfer.at_hand.consumed(&content.hash);
            }
            Effect::PutFile { content, source: PutSource::Inline(_), .. } => {
                // It may have come twice: with the change, and because it was asked for.
                if self.transfer.at_hand.take_staged(&content.hash) {
                    self.unstage(content.hash);
                }
                self.transfer.at_hand.consumed(&content.hash);
            }
            Effect::Move { from, to: Location::Tree(to), expected }
                if expected.kind == Kind::Directory =>
            {
                match from {
                    Location::Tree(from) => self.agenda.moved(now, from, to),
                    // What happened in it while it was parked, nobody could be told by path.
                    Location::Parked(..) => self.agenda.again(now, Scope::Subtree(to.clone()), 0),
                }
            }
            _ => {}
        }
    }
}

/// Not worth an event of its own.
fn is_minor(effect: &Effect) -> bool {
    matches!(effect, Effect::SetAttributes { .. } | Effect::Confirm { .. })
}
