//! The aftermath of a crash, of a restored backup, of a copied machine: what the base does not know of our own
//! effects, and what can be told of them.

use std::collections::{BTreeMap, BTreeSet};

use super::acts::Writer;
use super::survey::{Sighting, found_body};
use crate::values::{Base, BaseEntry, BaseId, Body, EntryView, Left, SeenNodes, TreeView};
use crate::vocabulary::{Fingerprint, Kind, NodeId};

/// Entries of which the base may lag behind our own effects.
#[derive(Clone, Copy, Debug)]
pub enum Doubtful<'a> {
    /// All: a crash may have come between effects and their record.
    All,
    /// Those of which an effect failed, after it was done for all that is known; and what it may have left in
    /// their place.
    These(&'a BTreeMap<BaseId, Vec<Left>>),
}

impl<'a> Doubtful<'a> {
    pub(super) fn contains(&self, id: BaseId) -> bool {
        match self {
            Self::All => true,
            Self::These(these) => these.contains_key(&id),
        }
    }

    /// What was found in the entry's place, if an effect that failed may have left it there.
    pub(super) fn left(&self, id: BaseId, found: &Body) -> Option<&'a Left> {
        match self {
            Self::All => None,
            Self::These(these) => these.get(&id)?.iter().find(|left| left.body == *found),
        }
    }
}

/// Forgets what our own effects put aside before a crash, where something else stands by now, or nothing:
/// what a user has made of that since is no edit of what was put aside.
pub fn forget_put_aside(base: &mut Base, tree: &impl TreeView, put_aside: &[Fingerprint]) {
    for object in put_aside {
        let known: Vec<BaseId> = base.by_object(object.device, object.inode).collect();
        for id in known {
            let Some(entry) = base.entry(id).filter(|e| e.fingerprint.same_object(object)) else {
                continue;
            };
            // Another content of the same file took its place: an edit of that is an edit of the file.
            let view = entry.standing().and_then(|node| tree.entry(node));
            let is_same = view.is_some_and(|view| {
                ids(&view.nodes) == ids(&entry.nodes)
                    && base.by_node(view.parent) == Some(entry.parent)
                    && view.name == entry.name
            });
            if !is_same {
                base.remove(id);
            }
        }
    }
}

fn ids(nodes: &SeenNodes) -> BTreeSet<NodeId> {
    nodes.iter().map(|seen| seen.node).collect()
}

/// Nodes of whose contents nothing has been seen.
fn unseen(nodes: &SeenNodes) -> SeenNodes {
    let mut nodes = nodes.clone();
    nodes.iter_mut().for_each(|seen| seen.contents.clear());
    nodes
}

impl<T: TreeView> Writer<'_, T> {
    /// What a file stands for that an effect put in an entry's place, and of which nobody told the base. Where it
    /// is the very file that the tree has there, it stands for all that the tree has there. Otherwise it is not
    /// what the entry held: who writes to it has not seen that.
    pub(super) fn nodes_put(
        &self,
        sighting: &Sighting,
        id: BaseId,
        entry: &BaseEntry,
        tree: Option<&EntryView>,
    ) -> Option<SeenNodes> {
        let found = found_body(sighting).filter(|body| body.kind() != Kind::Directory)?;
        if found.same_bytes(&entry.body) {
            return None;
        }
        let directory = self.matching.settled(sighting.directory);
        let is_free = |node| self.base.by_node(node).is_none_or(|known| known == id);
        let put = tree.filter(|view| {
            view.body == found
                && view.name == sighting.name
                && self.is_node_of(directory, view.parent)
                && view.nodes.iter().all(|seen| is_free(seen.node))
        });
        Some(put.map_or_else(|| unseen(&entry.nodes), |view| view.nodes.clone()))
    }

    /// What the user who wrote in an entry's place had seen there. Where our own effect may have come first,
    /// nobody knows whether that was what the base has or what the tree has: neither is superseded.
    pub(super) fn seen_by_writer(
        &self,
        id: BaseId,
        entry: &BaseEntry,
        tree: Option<&EntryView>,
    ) -> SeenNodes {
        let is_replaced = tree.is_some_and(|view| !view.body.same_bytes(&entry.body));
        match self.rules.copied.contains(&id) || is_replaced && self.rules.doubtful.contains(id) {
            true => unseen(&entry.nodes),
            false => entry.nodes.clone(),
        }
    }

    /// What the user had seen of an entry who renamed it over another.
    pub(super) fn seen_by_renamer(&self, id: BaseId, entry: &BaseEntry) -> SeenNodes {
        match self.rules.copied.contains(&id) {
            true => unseen(&entry.nodes),
            false => entry.nodes.clone(),
        }
    }

    /// Whether something else stands in the entry's place in the tree, which our own effects remove it for.
    pub(super) fn is_hidden(&self, entry: &BaseEntry) -> bool {
        let is_own = |node: NodeId| entry.nodes.iter().any(|seen| seen.node == node);
        let mut views = entry.nodes.iter().filter_map(|seen| self.tree.entry(seen.node)).peekable();
        views.peek().is_some() && views.all(|view| !is_own(view.standing()))
    }

    /// Whether the tree has the node in a directory that waits in the parking area, however far below.
    pub(super) fn belongs_into_what_is_parked(&self, mut node: NodeId) -> bool {
        if self.base.parked().next().is_none() {
            return false;
        }
        while let Some(view) = self.tree.entry(node) {
            node = view.parent;
            let known = self.base.by_node(node);
            if known.is_some_and(|id| self.base.is_within(id, BaseId::PARKING)) {
                return true;
            }
        }
        false
    }
}
