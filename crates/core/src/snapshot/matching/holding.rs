//! Holding: what an unclear sighting may turn out to be stays where the base has it, until it is clear.

use std::collections::BTreeSet;

use super::{Matcher, Verdict};
use crate::snapshot::survey::{Dir, candidates, is_directory};
use crate::values::BaseId;
use crate::vocabulary::Kind;

impl Matcher<'_> {
    /// A directory is renamed over by none but when it is empty: where something else is in its place, it
    /// may have been renamed a moment before. It stays in the base until its absence counts.
    pub(super) fn hold_displaced_directories(
        &mut self,
        verdicts: &[Verdict],
        vanished: Option<&BTreeSet<BaseId>>,
    ) -> Vec<BaseId> {
        let Some(vanished) = vanished else { return Vec::new() };
        let displaced: Vec<BaseId> = (0..verdicts.len())
            .filter(|&at| match &verdicts[at] {
                Verdict::Unclear | Verdict::Same(_) => false,
                Verdict::Continues(..) => self.sighting(at).fingerprint.kind == Kind::Directory,
                Verdict::Moved(_) | Verdict::New => true,
            })
            .filter_map(|at| self.occupants[at])
            .filter(|id| !vanished.contains(id) || self.withheld.contains(id))
            .filter(|&id| is_directory(self.base, id))
            .filter(|&id| !self.same.contains_key(&id) && !self.moved.contains_key(&id))
            .collect();
        for &id in &displaced {
            self.continued.remove(&id);
            self.hold(id);
        }
        displaced
    }

    /// What an unclear sighting may turn out to be stays in the base, and so do the directories above.
    /// What was found in the place of one that stays, or in a directory that is unclear, is unclear too;
    /// such sightings are returned.
    pub(super) fn hold_what_is_unclear(&mut self, verdicts: &mut [Verdict]) -> Vec<usize> {
        let mut again = Vec::new();
        let mut unclear: Vec<usize> =
            (0..verdicts.len()).filter(|&at| verdicts[at] == Verdict::Unclear).collect();
        // Nor is what was renamed there known to have left its place.
        self.moved.retain(|_, &mut by| verdicts[by] != Verdict::Unclear);
        self.continued.retain(|_, &mut by| verdicts[by] != Verdict::Unclear);
        loop {
            for at in std::mem::take(&mut unclear) {
                self.hold_involved(at);
            }
            for at in 0..verdicts.len() {
                if verdicts[at] != Verdict::Unclear && self.must_wait(at, verdicts) {
                    self.moved.retain(|_, &mut by| by != at);
                    self.continued.retain(|_, &mut by| by != at);
                    verdicts[at] = Verdict::Unclear;
                    unclear.push(at);
                }
            }
            if unclear.is_empty() {
                return again;
            }
            again.extend(&unclear);
        }
    }

    fn hold_involved(&mut self, at: usize) {
        let candidates = candidates(self.base, &self.sighting(at).fingerprint);
        for id in self.occupants[at].into_iter().chain(candidates) {
            self.hold(id);
        }
    }

    fn hold(&mut self, mut id: BaseId) {
        self.held_whole.insert(id);
        while id != BaseId::ROOT && self.held.insert(id) {
            let Some(entry) = self.base.entry(id) else { break };
            id = entry.parent;
        }
    }

    /// Whether something that stays may be in the sighting's place, or its directory is unclear.
    fn must_wait(&self, at: usize, verdicts: &[Verdict]) -> bool {
        let directory_waits = match self.sighting(at).directory {
            Dir::New(new) => verdicts[new] == Verdict::Unclear,
            Dir::Known(_) => false,
        };
        let place_is_taken = self.occupants[at].is_some_and(|id| {
            let stays = self.held.contains(&id) && !self.moved.contains_key(&id);
            let is_it = match &verdicts[at] {
                Verdict::Same(own) | Verdict::Moved(own) | Verdict::Continues(own, _) => *own == id,
                Verdict::New | Verdict::Unclear => false,
            };
            stays && !(is_it && self.lives(id))
        });
        directory_waits || place_is_taken || self.would_be_within_itself(at, &verdicts[at])
    }

    /// Whether a directory was found below one of which it is not yet known that it has left it: two
    /// renames of which only the second is clear.
    fn would_be_within_itself(&self, at: usize, verdict: &Verdict) -> bool {
        let Verdict::Moved(own) = verdict else { return false };
        let mut above = self.sighting(at).directory;
        let mut passed = BTreeSet::new();
        while above != Dir::ROOT && passed.insert(above) {
            above = match above {
                Dir::Known(id) if id == *own => return true,
                Dir::Known(id) => match (self.moved.get(&id), self.base.entry(id)) {
                    (Some(&by), _) => self.sighting(by).directory,
                    (None, Some(entry)) => Dir::Known(entry.parent),
                    (None, None) => return false,
                },
                Dir::New(new) => self.directory_found(new),
            };
        }
        false
    }

    /// The directory of the base that a new one stands in for; of one that stands in for none, where it was
    /// found.
    fn directory_found(&self, new: usize) -> Dir {
        let sighting = self.sighting(new);
        let stood_for = self.occupants[new].filter(|id| self.continued.get(id) == Some(&new));
        stood_for.map_or(sighting.directory, Dir::Known)
    }
}
