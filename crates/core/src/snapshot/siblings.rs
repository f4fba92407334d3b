//! Siblings: what a user does to a path is done to what is shown beside it for a conflict there (R6, R9).

use super::acts::Writer;
use super::matching::Verdict;
use super::survey::{Sighting, found_body};
use crate::values::{BaseEntry, BaseId, SeenNodes, TreeView};
use crate::vocabulary::NodeId;

/// What has become of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follow {
    /// It has another name: its siblings get names after that.
    Renamed,
    /// It is gone, and its conflict is closed.
    Removed,
}

impl<T: TreeView> Writer<'_, T> {
    /// An entry as it was seen, with its siblings as they were seen: all but those of which the user has made
    /// something else.
    pub(super) fn with_siblings(&self, entry: &BaseEntry, follow: Follow) -> SeenNodes {
        let mut nodes = entry.nodes.clone();
        // Who sees it elsewhere than the tree has it, sees it without them.
        let at_path = entry.standing().filter(|&node| self.is_in_place(node, entry));
        for sibling in at_path.map(|node| self.tree.siblings(node)).unwrap_or_default() {
            let known = self.base.by_node(sibling);
            let Some((id, beside)) = known.and_then(|id| Some((id, self.base.entry(id)?))) else {
                continue;
            };
            let of_entry = nodes.iter().any(|seen| seen.node == sibling);
            let is_there = self.is_in_place(sibling, beside);
            if is_there && !of_entry && self.follows(id, beside, follow) {
                nodes.extend(beside.nodes.iter().filter(|seen| seen.node == sibling).cloned());
            }
        }
        nodes
    }

    /// Whether the base has a node where the tree has it.
    fn is_in_place(&self, node: NodeId, entry: &BaseEntry) -> bool {
        self.tree.entry(node).is_some_and(|view| {
            view.name == entry.name && self.base.by_node(view.parent) == Some(entry.parent)
        })
    }

    fn follows(&self, id: BaseId, beside: &BaseEntry, follow: Follow) -> bool {
        let is_of = |verdict: &Verdict| verdict.known() == Some(id);
        match self.matching.verdicts.iter().position(is_of) {
            None => follow == Follow::Removed || !self.matching.removed.contains(&id),
            Some(at) => {
                let is_same = matches!(self.matching.verdicts[at], Verdict::Same(_));
                is_same && (follow == Follow::Renamed || !self.is_rewritten(at, beside))
            }
        }
    }

    fn is_rewritten(&self, at: usize, beside: &BaseEntry) -> bool {
        found_body(&self.survey.sightings[at]).is_none_or(|body| !body.same_bytes(&beside.body))
    }

    /// Whether a sibling was written to, and its path is gone: it stays, by the name that it was shown by.
    pub(super) fn outlives_its_path(&self, sighting: &Sighting, beside: &BaseEntry) -> bool {
        let Some(node) = beside.standing() else { return false };
        let path = self.tree.sibling_of(node).and_then(|standing| self.base.by_node(standing));
        let is_gone = path.is_some_and(|path| self.matching.removed.contains(&path))
            || self.tree.was_sibling(node, &beside.name);
        is_gone && found_body(sighting).is_some_and(|body| !body.same_bytes(&beside.body))
    }

    /// Whether somebody made something of what was shown for a version, and this is open no more: a file of its
    /// own.
    pub(super) fn is_left_over(&self, sighting: &Sighting, beside: &BaseEntry) -> bool {
        if beside.nodes.iter().any(|seen| self.tree.knows(seen.node)) {
            return false;
        }
        let Some(body) = found_body(sighting) else { return false };
        let directory = self.matching.settled(sighting.directory);
        let is_moved =
            directory != super::survey::Dir::Known(beside.parent) || sighting.name != beside.name;
        is_moved || !body.same_bytes(&beside.body)
    }
}
