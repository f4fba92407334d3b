//! The guard against mass deletion: when most of a store is gone from the disk in one go, that waits for a
//! person. A mount that failed, `rm -rf` in the wrong place, a script gone wild must not empty all masters.
//!
//! Up to [`ALWAYS_MAX`] entries go at once. What goes beyond, within a [`WINDOW_MS`], is withheld until no more
//! goes for [`COUNT_QUIET_MS`], and then counted: if less than half of what was there is left, a person has to
//! say whether it was meant. What is withheld stays in the base: for the tree, and so for all others, nothing
//! has happened, and what it was may come back by itself.
//!
//! It is forgotten with the process: the next start finds the same entries gone, and counts anew.

use std::collections::BTreeSet;

use super::settings::MASS_DELETE_GUARD;
use super::{Blocked, Engine};
use crate::snapshot::{Scope, Snapshot, Survey};
use crate::values::{Base, BaseId, Problem, ProblemKind, TreeView as _};
use crate::vocabulary::{NodeId, TreePath};

/// So many entries may always be removed in one go.
const ALWAYS_MAX: usize = 1_000;
/// What is removed within this time counts as one go.
const WINDOW_MS: u64 = 60_000;
/// What is removed is counted once nothing more goes for so long.
const COUNT_QUIET_MS: u64 = 1_000;
/// Or after this, if more and more goes.
const COUNT_MS_MAX: u64 = 10_000;

/// What a person says of what was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It was meant: it is removed on all masters.
    Allow,
    /// It was not: it is put back here, from what the others have.
    Undo,
}

/// What waits for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Withheld {
    /// How many files, directories and links are gone.
    pub entries: u64,
    /// How many there were.
    pub of: u64,
}

/// What is removed in one go.
#[derive(Debug)]
struct Burst {
    since_ms: u64,
    /// How many entries there were at its beginning.
    of: usize,
    removed: usize,
    /// It was counted, and is no mass deletion so far.
    passes: bool,
}

#[derive(Debug)]
pub(super) struct Guard {
    always_max: usize,
    burst: Option<Burst>,
    /// Entries that are gone from the disk and not removed, with all below.
    held: BTreeSet<BaseId>,
    /// While these are counted: since when, and since when no more came.
    counting: Option<(u64, u64)>,
    /// Entries that may go with the next survey.
    allowed: BTreeSet<BaseId>,
    /// Entries that may go with this survey.
    passing: BTreeSet<BaseId>,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            always_max: ALWAYS_MAX,
            burst: None,
            held: BTreeSet::new(),
            counting: None,
            allowed: BTreeSet::new(),
            passing: BTreeSet::new(),
        }
    }
}

impl Guard {
    pub(super) fn holds(&self, id: BaseId) -> bool {
        self.held.contains(&id)
    }

    /// What is gone, and not removed.
    pub(super) fn held(&self) -> &BTreeSet<BaseId> {
        &self.held
    }

    /// What may go with the survey under way, whatever else is withheld.
    pub(super) fn passing(&self) -> &BTreeSet<BaseId> {
        &self.passing
    }

    /// A survey begins.
    pub(super) fn begin(&mut self) -> &BTreeSet<BaseId> {
        self.passing = std::mem::take(&mut self.allowed);
        &self.passing
    }

    /// Whether it is still open how much is removed.
    pub(super) fn is_counting(&self) -> bool {
        self.counting.is_some()
    }

    /// When what was removed is to be counted.
    pub(super) fn timeout(&self) -> Option<u64> {
        let (first, last) = self.counting?;
        Some((last + COUNT_QUIET_MS).min(first + COUNT_MS_MAX))
    }

    /// How many entries may be removed now, of so many.
    fn budget(&mut self, now: u64, entries: usize) -> usize {
        if !self.held.is_empty() {
            return 0;
        }
        self.burst.take_if(|burst| burst.since_ms + WINDOW_MS <= now);
        match &self.burst {
            None => self.always_max,
            Some(burst) => {
                let to_half = if burst.passes { entries.saturating_sub(burst.of / 2) } else { 0 };
                self.always_max.saturating_sub(burst.removed).max(to_half)
            }
        }
    }

    fn note_removed(&mut self, now: u64, removed: usize, entries: usize) {
        let begin = || Burst { since_ms: now, of: entries, removed: 0, passes: false };
        self.burst.get_or_insert_with(begin).removed += removed;
    }

    /// What is withheld, and no longer counted.
    fn waiting(&self) -> Option<Withheld> {
        let of = self.burst.as_ref().map_or(0, |burst| burst.of);
        let waits = !self.held.is_empty() && self.counting.is_none();
        waits.then_some(Withheld { entries: self.held.len() as u64, of: of as u64 })
    }
}

impl Engine {
    /// Sets how many entries may always be removed in one go, 1,000 otherwise.
    pub fn set_removals_max(&mut self, entries: usize) {
        self.guard.always_max = entries;
    }

    /// What is gone from this disk, and waits for a person to say whether it was meant.
    #[must_use]
    pub fn withheld(&self) -> Option<Withheld> {
        self.guard.waiting()
    }

    /// The topmost paths of that.
    pub fn withheld_paths(&self) -> impl Iterator<Item = TreePath> {
        self.topmost_held().filter_map(|id| self.base.path(id))
    }

    /// How many entries the survey at hand may remove.
    pub(super) fn removals_max(&mut self, now: u64) -> usize {
        match self.guard_is_on() {
            true => self.guard.budget(now, self.base.len()),
            false => usize::MAX,
        }
    }

    fn guard_is_on(&self) -> bool {
        self.setting(MASS_DELETE_GUARD) == "true"
    }

    /// Takes in what a survey did not let pass, and what of that is there again.
    pub(super) fn note_withheld(
        &mut self,
        now: u64,
        snapshot: &Snapshot,
        unchanged: &BTreeSet<BaseId>,
    ) {
        let entries = self.base.len();
        let removed = snapshot.removed().filter(|id| !self.guard.passing.contains(id)).count();
        self.guard.passing.clear();
        if removed > 0 || !snapshot.withheld.is_empty() {
            self.guard.note_removed(now, removed, entries);
        }
        let (base, held) = (&self.base, &mut self.guard.held);
        if !snapshot.withheld.is_empty() {
            let before = held.len();
            held.extend(&snapshot.withheld);
            let grew = held.len() > before;
            // What waits for a person already, waits.
            if before == 0 || self.guard.counting.is_some() {
                let (first, last) = self.guard.counting.unwrap_or((now, now));
                self.guard.counting = Some((first, if grew { now } else { last }));
            }
        }
        if held.is_empty() {
            return;
        }
        let is_back = |id: &BaseId| unchanged.contains(id) || snapshot.seen.contains(id);
        let back: Vec<BaseId> = held.iter().copied().filter(is_back).collect();
        let gone: BTreeSet<BaseId> = snapshot.removed().collect();
        let before = held.len();
        held.retain(|id| !is_back(id) && !gone.contains(id) && base.entry(*id).is_some());
        if held.len() == before && snapshot.withheld.is_empty() {
            return;
        }
        for path in back.into_iter().filter_map(|id| self.base.path(id)) {
            self.agenda.again(now, Scope::Subtree(path), 0);
        }
        self.withheld_changed(now);
    }

    /// What is gone is counted, if it is time to.
    pub(super) fn count_withheld(&mut self, now: u64) {
        if !self.guard.held.is_empty() && !self.guard_is_on() {
            return self.judge_withheld(now, Judgement::Allow);
        }
        if self.guard.timeout().is_none_or(|at| at > now) {
            return;
        }
        self.guard.counting = None;
        let left = self.base.len() - self.guard.held.len();
        let Some(burst) = &mut self.guard.burst else { return };
        if left >= burst.of / 2 {
            burst.passes = true;
            burst.removed += self.guard.held.len();
            self.pass_withheld(now);
        }
        self.withheld_changed(now);
    }

    /// A person says what of what was withheld is to happen; how many entries that was about.
    pub(super) fn judge_withheld(&mut self, now: u64, judgement: Judgement) {
        match judgement {
            Judgement::Allow => {
                self.pass_withheld(now);
                self.guard.burst = None;
            }
            Judgement::Undo => self.restore_withheld(),
        }
        self.guard.counting = None;
        self.withheld_changed(now);
    }

    /// What is gone is looked at once more, and may be gone.
    fn pass_withheld(&mut self, now: u64) {
        let above = self.topmost_held().filter_map(|id| self.base.entry(id));
        let above: BTreeSet<BaseId> = above.map(|entry| entry.parent).collect();
        for directory in above.into_iter().filter_map(|id| self.base.path(id)) {
            self.agenda.again(now, Scope::Directory(directory), 0);
        }
        self.guard.allowed.append(&mut self.guard.held);
    }

    /// The base forgets what is gone: as if it had never been put here, it is.
    fn restore_withheld(&mut self) {
        let top: Vec<BaseId> = self.topmost_held().collect();
        let mut held = top.clone();
        self.guard.held.clear();
        while let Some(id) = held.pop() {
            held.extend(self.base.children(id).map(|(_, child)| child));
            let nodes = self.base.entry(id).into_iter().flat_map(|entry| &entry.nodes);
            self.touched.extend(nodes.map(|seen| seen.node));
        }
        top.into_iter().for_each(|id| self.base.remove(id));
    }

    fn withheld_changed(&mut self, now: u64) {
        let blocked = Blocked::Removals;
        let Some(Withheld { entries, of }) = self.guard.waiting() else {
            if self.guard.held.is_empty() {
                self.touched.append(&mut self.stalled);
                self.queued.extend(self.problems.solved(&blocked).map(super::Output::Event));
            }
            return;
        };
        let reason = format!(
            "{entries} of {of} files and directories are gone from this disk, and stay on the other masters \
             until somebody decides: `pleach guard --allow` removes them everywhere, `pleach guard --undo` \
             brings them back here"
        );
        let problem = Problem { kind: ProblemKind::MassDelete, path: TreePath::root(), reason };
        let event = self.problems.note(now, blocked, problem);
        self.queued.extend(event.map(super::Output::Event));
    }

    /// Of these nodes, those that have to do with what was withheld wait until that is decided.
    pub(super) fn stall_withheld(&mut self, touched: &mut BTreeSet<NodeId>) {
        if self.guard.held.is_empty() {
            return;
        }
        let Self { base, replica, guard, stalled, .. } = self;
        let is_held = |node| base.by_node(node).is_some_and(|id| guard.holds(id));
        touched.retain(|&node| {
            // What the tree has not either, may go.
            let Some(entry) = replica.tree().entry(node) else { return true };
            let waits = is_held(node) || is_held(entry.parent);
            if waits {
                stalled.insert(node);
            }
            !waits
        });
    }

    fn topmost_held(&self) -> impl Iterator<Item = BaseId> {
        let held = &self.guard.held;
        held.iter()
            .copied()
            .filter(|&id| self.base.entry(id).is_some_and(|entry| !held.contains(&entry.parent)))
    }
}

/// Of what a survey saw, what the base has just as it is.
pub(super) fn unchanged(guard: &Guard, survey: &Survey, base: &Base) -> BTreeSet<BaseId> {
    guard.held.iter().copied().filter(|&id| survey.saw_unchanged(base, id)).collect()
}
