//! Adoption: where the disk holds already what the merged tree has, nobody did anything.
//!
//! Our own effects before a crash leave such places, and so does a user who did the same as somebody
//! else (R13). The base may say otherwise of them: that the node is elsewhere on this disk, which an
//! effect moved and replaced, or that another node stood here, which is dead. What counts then is that
//! nobody else on this disk is that node. Invariant: an entry of the base is adopted by one sighting at
//! most, and none that is matched with another object of the disk.

use std::collections::{BTreeMap, BTreeSet};

use super::matching::{Matching, Verdict};
use super::survey::{Dir, Sighting, Survey, found_body};
use crate::values::{Base, BaseId, Body, EntryView, SeenNodes, TreeView};
use crate::vocabulary::Kind;

/// What is adopted.
#[derive(Debug, Default)]
pub(super) struct Adoptions {
    /// What the tree has in the place of a sighting, and the disk too.
    pub(super) views: BTreeMap<usize, EntryView>,
    /// The entry of the base that the adopted node was, and is not any more where the base has it.
    pub(super) origins: BTreeMap<usize, BaseId>,
    /// Entries of the base that are forgotten without anybody having removed them: another name of an
    /// adopted node, or what stood where one was put.
    pub(super) forgotten: BTreeSet<BaseId>,
    /// Directories of the base that are another node by now, and the sighting.
    pub(super) renewed: BTreeMap<BaseId, usize>,
}

impl Adoptions {
    /// Whether the entry is not to be removed as something that a user removed.
    pub(super) fn spare(&self, id: BaseId) -> bool {
        self.forgotten.contains(&id) || self.origins.values().any(|&origin| origin == id)
    }

    /// The nodes that the directory is by now, if they are not those of the base.
    pub(super) fn renewed_nodes(&self, id: BaseId) -> Option<&SeenNodes> {
        Some(&self.views[self.renewed.get(&id)?].nodes)
    }
}

struct Adopter<'a, T> {
    base: &'a Base,
    tree: &'a T,
    survey: &'a Survey,
    matching: &'a Matching,
    /// Entries that are nowhere to be seen, whether that counts already or not.
    absent: BTreeSet<BaseId>,
    views: BTreeMap<usize, EntryView>,
    /// Directories of the base that are another node by now.
    renewed: BTreeMap<BaseId, usize>,
}

pub(super) fn adoptions<T: TreeView>(
    base: &Base,
    tree: &T,
    survey: &Survey,
    matching: &Matching,
) -> Adoptions {
    let absent = matching.removed.iter().chain(&matching.missed).copied().collect();
    let (views, renewed) = (BTreeMap::new(), BTreeMap::new());
    let mut adopter = Adopter { base, tree, survey, matching, absent, views, renewed };
    for &at in &matching.order {
        adopter.consider(at);
    }
    adopter.settle()
}

impl<T: TreeView> Adopter<'_, T> {
    fn consider(&mut self, at: usize) {
        let own = match &self.matching.verdicts[at] {
            Verdict::New => None,
            Verdict::Same(id) | Verdict::Continues(id, _) => Some(*id),
            Verdict::Moved(_) | Verdict::Unclear => return,
        };
        let sighting = &self.survey.sightings[at];
        let Some(body) = found_body(sighting) else { return };
        let Some(view) = self.view_at(sighting) else { return };
        let is_own =
            |id: BaseId| view.nodes.iter().any(|seen| self.base.by_node(seen.node) == Some(id));
        if own.is_some_and(|id| is_own(id) || self.is_kept(at, id)) {
            return;
        }
        // What it hides is no reason: that stood here.
        let occupant = self.occupant(sighting);
        let known = self.origins(&view).any(|id| Some(id) != occupant);
        let fits = match (&body, &view.body) {
            (Body::Directory { .. }, Body::Directory { .. }) => !known,
            (Body::Directory { .. }, _) | (_, Body::Directory { .. }) => false,
            // What an effect put has the very mtime; of what a joiner holds already, only bytes count.
            (found, wanted) if known || own.is_some() => found == wanted,
            (found, wanted) => found.same_bytes(wanted),
        };
        if !fits {
            return;
        }
        if let Some(id) = own.filter(|_| body.kind() == Kind::Directory) {
            self.renewed.insert(id, at);
        }
        self.views.insert(at, view);
    }

    /// Whether the entry at the sighting's place is that of a user still: its object is there, or was
    /// replaced as directories are by nobody but a user, and the tree has it somewhere.
    fn is_kept(&self, at: usize, id: BaseId) -> bool {
        let object_stays = matches!(self.matching.verdicts[at], Verdict::Same(_));
        let directory = self.survey.sightings[at].fingerprint.kind == Kind::Directory;
        let Some(entry) = self.base.entry(id) else { return false };
        (object_stays || directory)
            && entry.nodes.iter().any(|seen| self.tree.entry(seen.node).is_some())
    }

    /// What the base has in the sighting's place.
    fn occupant(&self, sighting: &Sighting) -> Option<BaseId> {
        match self.matching.settled(sighting.directory) {
            Dir::Known(id) => self.base.child(id, &sighting.name),
            Dir::New(_) => None,
        }
    }

    /// What stood where an effect moved something that hides it.
    fn hidden(&self) -> BTreeSet<BaseId> {
        let mut hidden = BTreeSet::new();
        for (at, verdict) in self.matching.verdicts.iter().enumerate() {
            let Verdict::Moved(moved) = verdict else { continue };
            let sighting = &self.survey.sightings[at];
            let Some(occupant) = self.occupant(sighting).filter(|id| id != moved) else { continue };
            let Some(view) = self.view_at(sighting) else { continue };
            let is_in_view = |id: BaseId| {
                let nodes = self.base.entry(id).map(|entry| entry.nodes.as_slice());
                let mut nodes = nodes.unwrap_or_default().iter();
                nodes.all(|known| view.nodes.iter().any(|seen| seen.node == known.node))
            };
            if is_in_view(*moved) && is_in_view(occupant) && self.absent.contains(&occupant) {
                hidden.insert(occupant);
            }
        }
        hidden
    }

    /// What the tree has in the sighting's place.
    fn view_at(&self, sighting: &Sighting) -> Option<EntryView> {
        let directory = match self.matching.settled(sighting.directory) {
            Dir::Known(id) => match self.renewed.get(&id) {
                Some(at) => self.views.get(at)?.standing(),
                None => self.base.entry(id)?.standing()?,
            },
            Dir::New(at) => self.views.get(&at)?.standing(),
        };
        self.tree.entry(self.tree.child(directory, &sighting.name)?)
    }

    /// Drops what is somebody else on this disk, until all that is left agrees.
    fn settle(mut self) -> Adoptions {
        loop {
            let freed: BTreeSet<BaseId> =
                self.views.keys().filter_map(|&at| self.freed_by(at)).collect();
            let taken: Vec<usize> = self
                .views
                .iter()
                .filter(|(_, view)| !self.origins(view).all(|id| self.is_free(id, &freed)))
                .map(|(&at, _)| at)
                .collect();
            if taken.is_empty() {
                break;
            }
            for at in taken {
                self.views.remove(&at);
            }
        }
        let mut adoptions = Adoptions::default();
        let mut spared = BTreeSet::new();
        for (&at, view) in &self.views {
            let directory = view.body.kind() == Kind::Directory;
            for id in self.origins(view).filter(|&id| spared.insert(id)) {
                if directory || *adoptions.origins.entry(at).or_insert(id) != id {
                    adoptions.forgotten.insert(id);
                }
            }
        }
        let freed = self.views.keys().filter_map(|&at| self.freed_by(at));
        adoptions.forgotten.extend(freed.filter(|id| !spared.contains(id)));
        adoptions.forgotten.extend(self.hidden());
        self.renewed.retain(|_, at| self.views.contains_key(at));
        Adoptions { views: self.views, renewed: self.renewed, ..adoptions }
    }

    fn origins<'v>(&'v self, view: &'v EntryView) -> impl Iterator<Item = BaseId> + 'v {
        view.nodes.iter().filter_map(|seen| self.base.by_node(seen.node))
    }

    fn is_free(&self, id: BaseId, freed: &BTreeSet<BaseId>) -> bool {
        let is_parked = self.base.entry(id).is_some_and(|entry| entry.parent == BaseId::PARKING);
        self.absent.contains(&id) || freed.contains(&id) || (is_parked && !self.is_matched(id))
    }

    fn is_matched(&self, id: BaseId) -> bool {
        self.matching.verdicts.contains(&Verdict::Moved(id))
    }

    /// The entry whose path an adopted sighting would have continued.
    fn freed_by(&self, at: usize) -> Option<BaseId> {
        match &self.matching.verdicts[at] {
            Verdict::Continues(id, _)
                if self.survey.sightings[at].fingerprint.kind != Kind::Directory =>
            {
                Some(*id)
            }
            _ => None,
        }
    }
}
