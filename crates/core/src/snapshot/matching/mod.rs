//! Matching: which entry of the base each sighting is, and which entries are no more.
//!
//! R10 and R11: a directory is where its object is. A file at a known path stays the file of that path,
//! unless its own object lives on under another name, and nobody stays behind there either: then both
//! have moved. Invariant of the result: an entry of the base is matched by one sighting at most, and is
//! not removed if it is matched, held, or if anybody could not see.

mod holding;

use std::collections::{BTreeMap, BTreeSet};

use super::survey::{
    Dir, Identity, Reading, Sighting, Survey, Whereabouts, candidates, is_directory,
};
use crate::values::{Base, BaseId};
use crate::vocabulary::{Kind, Timestamp};

/// What a sighting is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The base's entry, at its place.
    Same(BaseId),
    /// The base's entry, from elsewhere.
    Moved(BaseId),
    /// Another object that is the base's entry by its path; what it held is from these entries.
    Continues(BaseId, Vec<BaseId>),
    /// Nothing that the base knows.
    New,
    /// To be looked at again.
    Unclear,
}

impl Verdict {
    /// The base's entry that it is.
    pub(super) fn known(&self) -> Option<BaseId> {
        match self {
            Self::Same(id) | Self::Moved(id) | Self::Continues(id, _) => Some(*id),
            Self::New | Self::Unclear => None,
        }
    }
}

/// All verdicts.
pub(super) struct Matching {
    pub(super) verdicts: Vec<Verdict>,
    /// Sightings by depth of their place, so that each comes after the directory that holds it.
    pub(super) order: Vec<usize>,
    /// The entries that are no more, deepest first.
    pub(super) removed: Vec<BaseId>,
    /// Entries that were not found and are not removed, since their absence does not count yet.
    pub(super) missed: Vec<BaseId>,
    /// Sightings to be looked at again, with what may still stand in their place.
    pub(super) again: Vec<usize>,
}

impl Matching {
    /// A new directory that stands in for one of the base is that one.
    pub(super) fn settled(&self, directory: Dir) -> Dir {
        match directory {
            Dir::New(at) => match &self.verdicts[at] {
                Verdict::Continues(id, _) | Verdict::Same(id) | Verdict::Moved(id) => {
                    Dir::Known(*id)
                }
                Verdict::New | Verdict::Unclear => directory,
            },
            Dir::Known(_) => directory,
        }
    }
}

struct Matcher<'a> {
    base: &'a Base,
    survey: &'a Survey,
    /// Entries that are not removed.
    withheld: &'a BTreeSet<BaseId>,
    /// Of each sighting: the base's entry at its place, the directory's successor considered.
    occupants: Vec<Option<BaseId>>,
    same: BTreeMap<BaseId, usize>,
    moved: BTreeMap<BaseId, usize>,
    continued: BTreeMap<BaseId, usize>,
    held: BTreeSet<BaseId>,
    /// Of these, those that are not held because of something in them: with all that is in them.
    held_whole: BTreeSet<BaseId>,
    /// Sightings of what was renamed while the survey was under way.
    fleeting: BTreeSet<usize>,
}

/// Matches what the survey saw with the base. What is withheld stays there, whether it was found or not.
pub(super) fn matching(
    base: &Base,
    survey: &Survey,
    vanished: Option<&BTreeSet<BaseId>>,
    withheld: &BTreeSet<BaseId>,
) -> Matching {
    let mut matcher = Matcher {
        base,
        survey,
        withheld,
        occupants: Vec::with_capacity(survey.sightings.len()),
        same: BTreeMap::new(),
        moved: BTreeMap::new(),
        continued: BTreeMap::new(),
        held: BTreeSet::new(),
        held_whole: BTreeSet::new(),
        fleeting: fleeting(survey),
    };
    let (order, depths) = order(base, survey);
    matcher.match_directories();
    matcher.match_same_files();
    matcher.claim_moved_files();
    matcher.drop_claims_on_kept_paths();
    let mut verdicts: Vec<_> = (0..survey.sightings.len())
        .map(|at| match depths[at] {
            Some(_) if !survey.is_lost(at) && !matcher.fleeting.contains(&at) => {
                matcher.verdict(at)
            }
            _ => Verdict::Unclear,
        })
        .collect();
    let displaced = matcher.hold_displaced_directories(&verdicts, vanished);
    let mut again = matcher.hold_what_is_unclear(&mut verdicts);
    again.extend(&matcher.fleeting);
    again.extend((0..depths.len()).filter(|&at| depths[at].is_none()));
    // What was renamed over something known is known to have gone.
    let inherited: BTreeSet<BaseId> = verdicts
        .iter()
        .filter_map(|verdict| match verdict {
            Verdict::Continues(_, from) => Some(from),
            _ => None,
        })
        .flatten()
        .copied()
        .collect();
    let counts = |id: &BaseId| {
        let counts =
            inherited.contains(id) || vanished.is_none_or(|vanished| vanished.contains(id));
        counts && !withheld.contains(id)
    };
    let (counting, others) = survey.gone.iter().copied().partition(counts);
    let removed = matcher.removed(&verdicts, counting);
    let missed = matcher.missed(others, displaced, &removed);
    Matching { verdicts, order, removed, missed, again }
}

fn order(base: &Base, survey: &Survey) -> (Vec<usize>, Vec<Option<usize>>) {
    let mut of_directory = BTreeMap::new();
    let depths: Vec<Option<usize>> = survey
        .sightings
        .iter()
        .map(|sighting| {
            *of_directory
                .entry(sighting.directory)
                .or_insert_with(|| Some(survey.path(base, sighting.directory)?.names().len()))
        })
        .collect();
    let mut order: Vec<_> = (0..depths.len()).filter(|&at| depths[at].is_some()).collect();
    order.sort_by_key(|&at| depths[at]);
    (order, depths)
}

/// Sightings of what was seen at two places with different ctimes: at one of them no more. And of what was
/// gone when its place was looked at again.
fn fleeting(survey: &Survey) -> BTreeSet<usize> {
    let mut objects: BTreeMap<(u64, u64), Vec<usize>> = BTreeMap::new();
    for (at, Sighting { fingerprint, .. }) in survey.sightings.iter().enumerate() {
        objects.entry((fingerprint.device, fingerprint.inode)).or_default().push(at);
    }
    let changed = |at: usize| survey.sightings[at].fingerprint.changed;
    let twice = objects.into_values().filter(|seen| seen.len() > 1);
    let twice = twice.filter(|seen| seen.iter().any(|&at| changed(at) != changed(seen[0])));
    twice.flatten().chain(survey.passed.iter().copied()).collect()
}

impl Matcher<'_> {
    fn sighting(&self, at: usize) -> &Sighting {
        &self.survey.sightings[at]
    }

    /// Sightings come after that of the directory that holds them, so one pass settles which new
    /// directories stand in for one of the base.
    fn match_directories(&mut self) {
        let mut successor_of: BTreeMap<usize, BaseId> = BTreeMap::new();
        for at in 0..self.survey.sightings.len() {
            let sighting = &self.survey.sightings[at];
            let directory = match sighting.directory {
                Dir::Known(id) => Some(id),
                Dir::New(new) => successor_of.get(&new).copied(),
            };
            let occupant = directory.and_then(|id| self.base.child(id, &sighting.name));
            self.occupants.push(occupant);
            if self.fleeting.contains(&at) {
                continue;
            }
            match sighting.identity {
                Identity::Same(id) => drop(self.same.insert(id, at)),
                Identity::Moved(id) if occupant == Some(id) => drop(self.same.insert(id, at)),
                Identity::Moved(id) => drop(self.moved.insert(id, at)),
                Identity::New => {
                    let stays = occupant.filter(|&id| {
                        is_directory(self.base, id) && !self.survey.moved.contains_key(&id)
                    });
                    if let Some(id) = stays {
                        successor_of.insert(at, id);
                        self.continued.insert(id, at);
                    }
                }
                Identity::Open => {}
            }
        }
    }

    fn match_same_files(&mut self) {
        for at in self.files() {
            let fingerprint = self.sighting(at).fingerprint;
            let same = self.occupants[at].filter(|&id| {
                self.base.entry(id).is_some_and(|e| e.fingerprint.same_object(&fingerprint))
            });
            if let Some(id) = same {
                self.same.insert(id, at);
            }
        }
    }

    fn files(&self) -> Vec<usize> {
        (0..self.survey.sightings.len())
            .filter(|&at| self.sighting(at).fingerprint.kind != Kind::Directory)
            .filter(|at| !self.fleeting.contains(at))
            .collect()
    }

    /// Entries of the base that are this file's object and are not where they were.
    fn origins(&self, at: usize) -> Vec<BaseId> {
        candidates(self.base, &self.sighting(at).fingerprint)
            .into_iter()
            .filter(|id| !self.same.contains_key(id))
            .filter(|&id| {
                let whereabouts = self.survey.whereabouts(self.base, id);
                matches!(whereabouts, Whereabouts::Vacated | Whereabouts::UnderVacated)
            })
            .collect()
    }

    /// The entry at the sighting's place, if it could be the sighting by its path.
    fn occupant_of_kind(&self, at: usize) -> Option<BaseId> {
        let kind = self.sighting(at).fingerprint.kind;
        self.occupants[at].filter(|&id| self.base.entry(id).is_some_and(|e| e.body.kind() == kind))
    }

    fn claim_moved_files(&mut self) {
        for at in self.files() {
            if self.occupants[at].is_some_and(|id| self.same.get(&id) == Some(&at)) {
                continue;
            }
            let fingerprint = self.sighting(at).fingerprint;
            let over = self.occupant_of_kind(at).is_some();
            let origin = self.origins(at).into_iter().find(|id| {
                let entry = self.base.entry(*id).expect("a candidate is in the base");
                // Where a path changes hands, and nobody knows of births, an inode number alone may be a
                // reused one.
                let surely = fingerprint.born != Timestamp::default()
                    || entry.fingerprint.same_bytes(&fingerprint);
                !self.moved.contains_key(id) && (!over || surely)
            });
            if let Some(id) = origin {
                self.moved.insert(id, at);
            }
        }
    }

    /// `mv b a` over an `a` whose object is gone is an edit of `a`: it has not moved, so neither has
    /// `b`, nor what was renamed over `b`.
    fn drop_claims_on_kept_paths(&mut self) {
        let claims: BTreeMap<BaseId, BaseId> = self
            .moved
            .iter()
            .filter(|&(_, &at)| self.sighting(at).fingerprint.kind != Kind::Directory)
            .filter_map(|(&id, &at)| Some((self.occupant_of_kind(at)?, id)))
            .collect();
        let mut queue: Vec<_> =
            claims.keys().copied().filter(|kept| !self.moved.contains_key(kept)).collect();
        while let Some(kept) = queue.pop() {
            if let Some(&id) = claims.get(&kept)
                && self.moved.remove(&id).is_some()
            {
                queue.push(id);
            }
        }
        for at in self.files() {
            if let Some(id) = self.occupant_of_kind(at)
                && !self.moved.contains_key(&id)
                && !self.same.contains_key(&id)
            {
                self.continued.insert(id, at);
            }
        }
    }

    fn verdict(&self, at: usize) -> Verdict {
        let sighting = self.sighting(at);
        let by_place = self.occupants[at];
        if let Some(id) = by_place.filter(|id| self.same.get(id) == Some(&at)) {
            return Verdict::Same(id);
        }
        let origins = match sighting.identity {
            Identity::Moved(id) | Identity::Same(id) => vec![id],
            _ => candidates(self.base, &sighting.fingerprint),
        };
        if let Some(&id) = origins.iter().find(|id| self.moved.get(id) == Some(&at)) {
            return Verdict::Moved(id);
        }
        let unclear = match sighting.fingerprint.kind {
            Kind::File => !matches!(sighting.reading, Reading::Hash(_)),
            Kind::Directory => sighting.identity == Identity::Open,
            Kind::Symlink => false,
        };
        if unclear {
            return Verdict::Unclear;
        }
        match by_place.filter(|id| self.continued.get(id) == Some(&at)) {
            Some(id) => Verdict::Continues(id, self.inherited(at)),
            None => Verdict::New,
        }
    }

    fn inherited(&self, at: usize) -> Vec<BaseId> {
        if self.sighting(at).fingerprint.kind != Kind::File {
            return Vec::new();
        }
        let ends = |id: &BaseId| !self.moved.contains_key(id) && !self.continued.contains_key(id);
        self.origins(at).into_iter().filter(ends).collect()
    }

    fn lives(&self, id: BaseId) -> bool {
        self.same.contains_key(&id)
            || self.moved.contains_key(&id)
            || self.continued.contains_key(&id)
    }

    fn missed(
        &self,
        mut gone: Vec<BaseId>,
        displaced: Vec<BaseId>,
        removed: &[BaseId],
    ) -> Vec<BaseId> {
        let removed: BTreeSet<_> = removed.iter().collect();
        gone.extend(displaced);
        gone.retain(|id| !removed.contains(id) && !self.lives(*id));
        gone
    }

    fn removed(&self, verdicts: &[Verdict], gone: Vec<BaseId>) -> Vec<BaseId> {
        let mut queue = gone;
        queue.extend(
            (0..verdicts.len())
                .filter(|&at| !matches!(verdicts[at], Verdict::Unclear))
                .filter_map(|at| self.occupants[at]),
        );
        for (&id, &at) in &self.continued {
            queue.extend(self.missing_in_successor(id, at));
        }
        let mut removed = Vec::new();
        let mut seen = BTreeSet::new();
        while let Some(id) = queue.pop() {
            let stays = self.lives(id) || self.held.contains(&id);
            if stays && !self.is_held_only(id) || !seen.insert(id) {
                continue;
            }
            queue.extend(self.base.children(id).map(|(_, child)| child));
            if !self.held.contains(&id) {
                removed.push(id);
            }
        }
        removed.sort_by_cached_key(|&id| std::cmp::Reverse((self.base.depth(id), id)));
        removed
    }

    /// A directory that is held because of one thing in it; the rest of it is gone all the same.
    fn is_held_only(&self, id: BaseId) -> bool {
        self.held.contains(&id)
            && !self.held_whole.contains(&id)
            && is_directory(self.base, id)
            && !self.lives(id)
    }

    /// What the base has in a directory that another object stands in for, and that is not there.
    fn missing_in_successor(&self, id: BaseId, at: usize) -> Vec<BaseId> {
        let directory = Dir::New(at);
        if !self.survey.listed.contains(&directory) {
            return Vec::new();
        }
        self.base
            .children(id)
            .filter(|(name, _)| {
                let place = (directory, (*name).clone());
                !self.survey.places.contains_key(&place)
                    && !self.survey.left_places.contains(&place)
            })
            .map(|(_, child)| child)
            .filter(|child| !self.withheld.contains(child))
            .collect()
    }
}
