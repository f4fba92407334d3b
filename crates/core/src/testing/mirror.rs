//! A master in small: a disk, a base and a plain tree, surveyed and checked out until they agree.

use std::collections::{BTreeMap, BTreeSet};

use super::{PlainTree, VirtualDisk};
use crate::checkout::{self, Availability, Limits};
use crate::snapshot::{
    Doubtful, Scope, Snapshot, SnapshotRules, SpecialBits, Survey, forget_put_aside,
};
use crate::values::{Acts, Base, BaseId, Effect};
use crate::vocabulary::{ContentHash, NodeId, TreePath};

/// Rounds of plans after which two trees that don't become equal never will.
const ROUNDS_MAX: usize = 50;

/// A disk and the base of it.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    /// The disk.
    pub disk: VirtualDisk,
    /// What it is known to hold.
    pub base: Base,
    /// All effects performed, in order.
    pub effects: Vec<Effect>,
}

impl Mirror {
    /// Looks at the scopes and lets the tree take what the user did.
    pub fn survey(&mut self, tree: &mut PlainTree, scopes: Vec<Scope>) -> Acts {
        let snapshot = self.look(tree, scopes, &BTreeSet::new(), |_| {});
        let performed = tree.perform(&snapshot.acts);
        snapshot.settle(&mut self.base, &performed);
        assert!(snapshot.reread.is_empty(), "nobody disturbed the survey");
        snapshot.acts
    }

    /// Looks at everything.
    pub fn survey_all(&mut self, tree: &mut PlainTree) -> Acts {
        self.survey(tree, vec![Scope::Subtree(TreePath::root())])
    }

    /// Looks at everything while somebody acts before each look.
    pub fn survey_disturbed(
        &mut self,
        tree: &mut PlainTree,
        interfere: impl FnMut(&mut VirtualDisk),
    ) {
        let scopes = vec![Scope::Subtree(TreePath::root())];
        let snapshot = self.look(tree, scopes, &BTreeSet::new(), interfere);
        let performed = tree.perform(&snapshot.acts);
        snapshot.settle(&mut self.base, &performed);
    }

    fn look(
        &mut self,
        tree: &PlainTree,
        scopes: Vec<Scope>,
        disturbed: &BTreeSet<BaseId>,
        mut interfere: impl FnMut(&mut VirtualDisk),
    ) -> Snapshot {
        let mut survey = Survey::new(scopes, &self.base);
        let mut looks = 0;
        while let Some(look) = survey.next_look(&self.base) {
            looks += 1;
            assert!(looks < 10_000, "a survey ends");
            interfere(&mut self.disk);
            let looked = self.disk.look(&look);
            survey.absorb(&self.base, looked);
        }
        let rules = SnapshotRules {
            special_bits: SpecialBits::Keep,
            disturbed,
            vanished: None,
            removals_max: usize::MAX,
            passing: &BTreeSet::new(),
            doubtful: Doubtful::These(&BTreeMap::new()),
            copied: &BTreeSet::new(),
        };
        survey.finish(&self.base, tree, rules)
    }

    /// Brings the disk to the tree. `interfere` is called before each effect, and may act as a user;
    /// its traces are surveyed before the next plan.
    pub fn check_out(
        &mut self,
        tree: &mut PlainTree,
        contents: &BTreeMap<ContentHash, Vec<u8>>,
        limits: Limits,
        mut interfere: impl FnMut(&mut VirtualDisk),
    ) {
        let mut touched = tree.take_touched();
        for _ in 0..ROUNDS_MAX {
            let have = |hash: &ContentHash| match contents.get(hash) {
                Some(bytes) => Availability::Inline(bytes.as_slice().into()),
                None => Availability::Missing,
            };
            let mut plan = checkout::plan(&self.base, tree, &touched, &have, limits);
            touched = plan.deferred.clone();
            touched.extend(plan.wanted.iter().map(|wanted| wanted.node));
            self.disk.begin_batch();
            let mut failed = false;
            for index in 0..plan.effects.len() {
                interfere(&mut self.disk);
                let effect = plan.effects[index].effect.clone();
                let outcome = self.disk.perform(&effect);
                self.effects.push(effect);
                let completion = plan.complete(&mut self.base, index, outcome);
                failed |= !completion.retry.is_empty();
                touched.extend(completion.retry);
            }
            touched.append(&mut plan.take_displaced());
            let disturbed = if failed { plan.disturbed() } else { BTreeSet::new() };
            let scopes = vec![Scope::Subtree(TreePath::root())];
            let snapshot = self.look(tree, scopes, &disturbed, |_| {});
            let performed = tree.perform(&snapshot.acts);
            snapshot.settle(&mut self.base, &performed);
            touched.extend(snapshot.adopted);
            touched.extend(tree.take_touched());
            if touched.is_empty() {
                return;
            }
        }
        panic!("no end of effects: {:?}", self.effects.iter().rev().take(20).collect::<Vec<_>>());
    }

    /// Plans, and performs at most `effects_max` effects of the plan, of which the base never hears: the
    /// master crashed. What it finds when it starts again is returned; none if there was nothing to do.
    pub fn check_out_and_crash(
        &mut self,
        tree: &mut PlainTree,
        contents: &BTreeMap<ContentHash, Vec<u8>>,
        effects_max: usize,
    ) -> Option<Acts> {
        let touched = tree.take_touched();
        let have = |hash: &ContentHash| match contents.get(hash) {
            Some(bytes) => Availability::Inline(bytes.as_slice().into()),
            None => Availability::Missing,
        };
        let plan = checkout::plan(&self.base, tree, &touched, &have, Limits::default());
        let disturbed = plan.disturbed();
        self.disk.begin_batch();
        for planned in plan.effects.iter().take(effects_max) {
            self.disk.perform(&planned.effect);
        }
        for id in self.disk.parked() {
            self.base.park(BaseId(id.0));
        }
        forget_put_aside(&mut self.base, tree, &self.disk.put_aside);
        let scopes = vec![Scope::Subtree(TreePath::root())];
        let snapshot = self.look(tree, scopes, &disturbed, |_| {});
        let performed = tree.perform(&snapshot.acts);
        snapshot.settle(&mut self.base, &performed);
        let parked: BTreeSet<BaseId> = self.disk.parked().map(|id| BaseId(id.0)).collect();
        let left: Vec<BaseId> = self.base.parked().filter(|id| !parked.contains(id)).collect();
        left.into_iter().for_each(|id| self.base.remove(id));
        tree.touch(&touched);
        tree.touch(&snapshot.adopted);
        (!plan.effects.is_empty()).then_some(snapshot.acts)
    }

    /// The nodes of the base, for tests of what survived.
    #[must_use]
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.base.iter().filter_map(|(_, entry)| entry.standing()).collect()
    }
}
