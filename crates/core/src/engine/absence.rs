//! Absence: when what was not found counts as removed (R12).
//!
//! It may have been renamed, a moment before or while the survey was under way: its absence counts once it has
//! lasted, and all places where it may be by now could be looked at. Where one can't be, that is waited for, a
//! few seconds at most: neither a directory that can't be read for long keeps others from being removed, nor
//! do ever new ones.

use std::collections::BTreeSet;

use super::Engine;
use super::agenda::{SETTLE_GONE_MS, name_scope};
use super::problems::HIDES_MS_MAX;
use super::survey::covers;
use crate::snapshot::{Scope, Snapshot};
use crate::values::BaseId;
use crate::vocabulary::TreePath;

/// How long it is remembered that an entry was not found.
const MISSED_MS_MAX: u64 = 10_000;
/// How soon an entry is looked for again while something can't be looked at.
const HIDDEN_AGAIN_MS: u64 = 500;
/// How many places that could not be looked at are tried again before something counts as removed.
const HIDDEN_MAX: usize = 64;

impl Engine {
    /// The entries whose absence counts for the survey that begins, given the names that are known to have
    /// been gone for long enough.
    pub(super) fn absences_that_count(
        &mut self,
        now: u64,
        vanished: &[TreePath],
    ) -> BTreeSet<BaseId> {
        let mut counts = BTreeSet::new();
        if !self.agenda.has_lost_hints() {
            let missed = self.missed.iter().filter(|&(_, since)| since + SETTLE_GONE_MS <= now);
            counts.extend(missed.map(|(&id, _)| id));
            counts.extend(vanished.iter().filter_map(|path| self.base.find(path)));
        }
        counts.extend(self.guard.begin());
        counts
    }

    /// Where something may have been renamed to, and nobody could look, is tried again with the survey that
    /// finds it gone.
    pub(super) fn hidden_scopes(&self) -> Vec<Scope> {
        if self.vanished.is_empty() {
            return Vec::new();
        }
        let paths = self.problems.hidden().take(HIDDEN_MAX);
        let scopes = paths.flat_map(|path| {
            // Nobody knows any more what in it was to be looked at.
            let below = self.is_known_directory(path).then(|| Scope::Subtree(path.clone()));
            below.into_iter().chain([name_scope(path)])
        });
        scopes.collect()
    }

    /// Of the absences that would count for the survey that is over, only those do that have lasted long, if
    /// something still can't be looked at.
    pub(super) fn discount_absences(&mut self, now: u64) {
        if !self.vanished.is_empty() && self.problems.hide(now) {
            let Self { vanished, missed, guard, .. } = self;
            vanished.retain(|id| {
                let lasted = missed.get(id).is_some_and(|since| since + HIDES_MS_MAX <= now);
                lasted || guard.passing().contains(id)
            });
        }
        self.vanished.extend(self.guard.held());
    }

    /// What was not found, and does not count as removed, is looked for once more when what it is called now
    /// is known.
    pub(super) fn note_missed(&mut self, now: u64, snapshot: &Snapshot) {
        let still: BTreeSet<_> = snapshot.missed.iter().collect();
        let delay = if self.problems.hide(now) { HIDDEN_AGAIN_MS } else { SETTLE_GONE_MS };
        let Self { missed, base, surveyed, guard, .. } = self;
        missed.retain(|id, &mut since| {
            let path = base.path(*id);
            let looked_at =
                path.is_none_or(|path| surveyed.iter().any(|scope| covers(scope, &path)));
            let waits = still.contains(id) || !looked_at && since + MISSED_MS_MAX > now;
            waits && !guard.holds(*id)
        });
        for &id in snapshot.missed.iter().filter(|&&id| !self.guard.holds(id)) {
            self.missed.entry(id).or_insert(now);
            if let Some(path) = self.base.path(id) {
                self.agenda.again(now, name_scope(&path), delay);
            }
        }
    }
}
