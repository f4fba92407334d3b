//! Pairing: which entry of the disk is which entry of the tree, and what a plan has to consider.
//!
//! Invariant: an entry of the disk is paired with one entry of the tree at most, and the other way
//! round; directories only with directories. An entry of the disk that was considered and is not
//! paired is doomed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use smallvec::SmallVec;

use crate::values::{Base, BaseEntry, BaseId, EntryView, TreeView};
use crate::vocabulary::{Kind, Name, NodeId};

/// An entry of the tree that a plan considers.
#[derive(Clone, Debug)]
pub(super) struct Want {
    pub(super) view: EntryView,
    /// The entry of the disk that it is.
    pub(super) disk: Option<BaseId>,
}

/// What a plan considers.
#[derive(Debug, Default)]
pub(super) struct Considered {
    /// By standing node.
    pub(super) wants: BTreeMap<NodeId, Want>,
    /// Entries of the disk that are to go.
    pub(super) doomed: BTreeSet<BaseId>,
    /// Nodes that were too many.
    pub(super) deferred: BTreeSet<NodeId>,
}

/// What is still to be considered.
#[derive(Default)]
struct Agenda {
    /// In the way, or to be emptied: without them the rest is stuck.
    entries: Vec<BaseId>,
    /// What others need: directories above them, entries in their way. Not bounded by the budget.
    needed: Vec<NodeId>,
    nodes: VecDeque<NodeId>,
}

pub(super) struct Pairing<'a, T> {
    pub(super) base: &'a Base,
    pub(super) tree: &'a T,
    /// Of directories of the tree: what they are on the disk. Asked for once for each of their entries.
    directories: RefCell<BTreeMap<NodeId, Option<Known>>>,
    above: RefCell<BTreeMap<NodeId, Above>>,
}

/// A directory of the disk, and whether it has all nodes of the tree's.
#[derive(Clone, Copy)]
struct Known {
    id: BaseId,
    is_whole: bool,
}

/// What a directory of the tree is on the disk by its own nodes alone.
#[derive(Clone)]
enum Above {
    Known(BaseId),
    /// The disk has it as part of another one.
    Elsewhere,
    New {
        name: Name,
        parent: NodeId,
    },
    Gone,
}

impl<'a, T: TreeView> Pairing<'a, T> {
    pub(super) fn new(base: &'a Base, tree: &'a T) -> Self {
        Self { base, tree, directories: RefCell::default(), above: RefCell::default() }
    }

    /// The disk's directory that is the tree's directory `node`; none if it is still to be made.
    pub(super) fn directory(&self, node: NodeId) -> Option<BaseId> {
        self.known_directory(node).map(|known| known.id)
    }

    fn known_directory(&self, node: NodeId) -> Option<Known> {
        if node == NodeId::ROOT {
            return Some(Known { id: BaseId::ROOT, is_whole: true });
        }
        if let Some(&known) = self.directories.borrow().get(&node) {
            return known;
        }
        let known = self.tree.entry(node).and_then(|view| {
            let id = self.disk_of(&view)?;
            Some(Known { id, is_whole: self.has_nodes_of(id, &view) })
        });
        self.directories.borrow_mut().insert(node, known);
        known
    }

    fn above_of(&self, node: NodeId) -> Above {
        if let Some(known) = self.above.borrow().get(&node) {
            return known.clone();
        }
        let above = match self.tree.entry(node) {
            None => Above::Gone,
            Some(view) => match view.nodes.iter().find_map(|seen| self.base.by_node(seen.node)) {
                None => Above::New { name: view.name, parent: view.parent },
                Some(id) => match self.tree_of(id) {
                    Some(other) if other.standing() == view.standing() => Above::Known(id),
                    Some(_) | None => Above::Elsewhere,
                },
            },
        };
        self.above.borrow_mut().insert(node, above.clone());
        above
    }

    /// The entry of the disk that is `view`, if there is one.
    ///
    /// By its nodes; else the entry at the very place, if the tree has it no more: then it is turned
    /// into the wanted one, and no reader ever finds nothing there.
    pub(super) fn disk_of(&self, view: &EntryView) -> Option<BaseId> {
        let mut found: SmallVec<[BaseId; 2]> = SmallVec::new();
        for seen in &view.nodes {
            if let Some(id) = self.base.by_node(seen.node)
                && !found.contains(&id)
                && self.is_compatible(id, view)
                && self.tree_of(id).is_some_and(|other| other.standing() == view.standing())
            {
                found.push(id);
            }
        }
        let in_place = found.iter().copied().find(|&id| self.is_at(id, view));
        in_place.or(found.first().copied()).or_else(|| self.successor(view))
    }

    fn successor(&self, view: &EntryView) -> Option<BaseId> {
        // A directory above may need a successor itself: the path is followed from the top.
        let mut path = vec![view.name.clone()];
        let mut parent = view.parent;
        let mut at = loop {
            if parent == NodeId::ROOT {
                break BaseId::ROOT;
            }
            match self.above_of(parent) {
                Above::Known(id) => break id,
                Above::Elsewhere | Above::Gone => return None,
                Above::New { name, parent: next } => {
                    path.push(name);
                    parent = next;
                }
            }
        };
        while let Some(name) = path.pop() {
            at = self.base.child(at, &name)?;
            let directory = self.base.entry(at).is_some_and(BaseEntry::is_directory);
            if self.tree_of(at).is_some() || (!path.is_empty() && !directory) {
                return None;
            }
        }
        self.is_compatible(at, view).then_some(at)
    }

    /// The entry of the tree that the disk's entry is, if the tree still has any of its nodes. Of
    /// several (united directories that were separated) the one at its place, else the first.
    pub(super) fn tree_of(&self, id: BaseId) -> Option<EntryView> {
        let mut views =
            self.base.entry(id)?.nodes.iter().filter_map(|seen| self.tree.entry(seen.node));
        let first = views.next()?;
        if self.is_at(id, &first) {
            return Some(first);
        }
        Some(views.find(|view| self.is_at(id, view)).unwrap_or(first))
    }

    fn is_at(&self, id: BaseId, view: &EntryView) -> bool {
        self.base.entry(id).is_some_and(|entry| {
            entry.name == view.name && self.base.by_node(view.parent) == Some(entry.parent)
        })
    }

    fn is_compatible(&self, id: BaseId, view: &EntryView) -> bool {
        let wanted = view.body.kind() == Kind::Directory;
        self.base.entry(id).is_some_and(|entry| entry.is_directory() == wanted)
    }

    /// Whether the entry of the disk is to go.
    pub(super) fn is_doomed(&self, id: BaseId) -> bool {
        let by_node = self.tree_of(id).is_some_and(|view| self.disk_of(&view) == Some(id));
        !by_node && !self.is_succeeded(id)
    }

    fn is_succeeded(&self, id: BaseId) -> bool {
        self.succeeded_by(id).is_some()
    }

    /// What the disk's entry is turned into, if the tree has it no more.
    fn succeeded_by(&self, id: BaseId) -> Option<NodeId> {
        let entry = self.base.entry(id)?;
        if self.tree_of(id).is_some() {
            return None;
        }
        let above = match entry.parent {
            BaseId::ROOT => Some(NodeId::ROOT),
            parent => self.wanted_directory(parent),
        };
        let view = self.tree.entry(self.tree.child(above?, &entry.name)?)?;
        (self.disk_of(&view) == Some(id)).then(|| view.standing())
    }

    /// The tree's directory that a directory of the disk is, or is turned into.
    fn wanted_directory(&self, id: BaseId) -> Option<NodeId> {
        let mut names = Vec::new();
        let mut at = id;
        let mut node = loop {
            if at == BaseId::ROOT {
                break NodeId::ROOT;
            }
            if let Some(view) = self.tree_of(at) {
                break view.standing();
            }
            let entry = self.base.entry(at)?;
            names.push(&entry.name);
            at = entry.parent;
        };
        while let Some(name) = names.pop() {
            node = self.tree.child(node, name)?;
        }
        Some(node)
    }

    /// What has to be considered for the nodes of `touched`, at most about `entries_max` entries and
    /// what these cannot do without.
    pub(super) fn consider(
        &self,
        touched: impl IntoIterator<Item = NodeId>,
        entries_max: usize,
    ) -> Considered {
        let mut considered = Considered::default();
        let mut agenda = Agenda { nodes: touched.into_iter().collect(), ..Agenda::default() };
        let mut budget = entries_max;
        let mut seen_nodes = BTreeSet::new();
        let mut seen_entries = BTreeSet::new();
        loop {
            if let Some(id) = agenda.entries.pop() {
                if seen_entries.insert(id) {
                    self.consider_entry(&mut considered, id, &mut agenda, &mut budget);
                }
                continue;
            }
            let node = match agenda.needed.pop() {
                Some(node) => node,
                None => match agenda.nodes.pop_front() {
                    Some(node) if budget == 0 => {
                        considered.deferred.extend((!seen_nodes.contains(&node)).then_some(node));
                        continue;
                    }
                    Some(node) => node,
                    None => return considered,
                },
            };
            if node == NodeId::ROOT || !seen_nodes.insert(node) {
                continue;
            }
            considered.deferred.remove(&node);
            budget = budget.saturating_sub(1);
            agenda.entries.extend(self.base.by_node(node));
            agenda.entries.extend(self.base.formerly_of(node));
            if let Some(view) = self.tree.entry(node) {
                self.consider_view(&mut considered, view, &mut agenda);
            }
        }
    }

    fn consider_view(&self, considered: &mut Considered, view: EntryView, agenda: &mut Agenda) {
        if considered.wants.contains_key(&view.standing()) {
            return;
        }
        let disk = self.disk_of(&view);
        agenda.entries.extend(view.nodes.iter().filter_map(|seen| self.base.by_node(seen.node)));
        match self.known_directory(view.parent) {
            Some(Known { id: parent, is_whole }) => {
                let there = self.base.child(parent, &view.name);
                agenda.entries.extend(there.filter(|&id| disk != Some(id)));
                if disk.is_some_and(|id| self.base.is_within(parent, id)) {
                    agenda.needed.extend(self.above(&view));
                }
                // Whoever renames the directory with this in it is to be known to mean all its nodes.
                if !is_whole {
                    agenda.needed.push(view.parent);
                }
            }
            None => agenda.needed.push(view.parent),
        }
        if view.body.kind() == Kind::Directory
            && !disk.is_some_and(|id| self.has_nodes_of(id, &view))
        {
            // Directories were united or separated: each child may belong elsewhere now.
            let wanted = self.tree.children(view.standing()).into_iter().map(|(_, node)| node);
            match disk {
                Some(id) => {
                    agenda.nodes.extend(wanted);
                    let known = self.base.children(id);
                    let known = known.filter_map(|(_, child)| self.base.entry(child));
                    let known = known.flat_map(|entry| entry.nodes.iter().map(|seen| seen.node));
                    agenda.nodes.extend(known);
                }
                None => {
                    agenda.nodes.extend(wanted.filter(|&node| self.base.by_node(node).is_some()))
                }
            }
        }
        considered.wants.insert(view.standing(), Want { view, disk });
    }

    /// The tree's directories above an entry: on the disk one of them is still below it, and has to leave
    /// first.
    fn above(&self, view: &EntryView) -> Vec<NodeId> {
        let mut above = Vec::new();
        let mut at = view.parent;
        while let Some(entry) = self.tree.entry(at).filter(|_| at != NodeId::ROOT) {
            above.push(at);
            at = entry.parent;
        }
        above
    }

    fn has_nodes_of(&self, id: BaseId, view: &EntryView) -> bool {
        let Some(entry) = self.base.entry(id) else { return false };
        let known: BTreeSet<_> = entry.nodes.iter().map(|seen| seen.node).collect();
        known == view.nodes.iter().map(|seen| seen.node).collect()
    }

    fn consider_entry(
        &self,
        considered: &mut Considered,
        id: BaseId,
        agenda: &mut Agenda,
        budget: &mut usize,
    ) {
        let Some(entry) = self.base.entry(id) else { return };
        let alive = entry.nodes.iter().filter(|seen| self.tree.entry(seen.node).is_some());
        agenda.needed.extend(alive.map(|seen| seen.node));
        agenda.needed.extend(self.succeeded_by(id));
        if self.is_doomed(id) {
            considered.doomed.insert(id);
            // One at least, so that each plan removes something; and all that must leave.
            let mut left = (*budget).max(1);
            for (_, child) in self.base.children(id) {
                if !self.is_doomed(child) {
                    agenda.entries.push(child);
                } else if left > 0 {
                    left -= 1;
                    *budget = budget.saturating_sub(1);
                    agenda.entries.push(child);
                }
            }
        }
    }
}
