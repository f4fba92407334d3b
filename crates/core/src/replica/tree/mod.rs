//! The derived tree: what the registers of all nodes amount to, kept up to date change by change.
//!
//! A pure function of the updates absorbed, whatever their order and batching (R1 to R8). `naive`
//! computes the same from scratch; laws compare them. In a well-formed tree
//!
//! 1. every node stands at one of its places; no directory stands below itself (`places`, R2),
//! 2. a node is among the children of the directory where it stands exactly if it lives: if no delete
//!    that holds has seen all of it (`witness`, R3, R4), or if it has such a child (`attach`, R5),
//! 3. directories of one name in one shown directory are one (`unions`, R6),
//! 4. what several writers wrote and nobody has chosen from is a conflict (`conflicts`, R6, R7, R9),
//! 5. what a delete has seen of a node that lives on is none of its contents (`removed`, R3),
//! 6. what is open may be shown as a file of its own, beside the path (`siblings`, R9).
//!
//! Absorbing costs as much as what the updates touch, and for a union or its end the children of its
//! smaller side; the size of the tree is in it by its logarithm only. Nothing is ever written back, and
//! nothing here knows of disks, of automerge or of who may write.

mod attach;
mod conflicts;
mod former;
mod ingest;
mod intern;
mod node;
mod places;
mod removed;
mod siblings;
mod unions;
mod view;
mod witness;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use view::{Contents, Entries};

use self::conflicts::OpenConflicts;
use self::intern::{Interner, number};
use self::node::{Directory, Key, Matter, Node, Placement};
use self::siblings::Siblings;
use self::unions::Unions;
use self::witness::Witnesses;
use super::register::{Causality, Update};
use crate::values::TreeDelta;
use crate::vocabulary::{NodeId, Stamp, Timestamp, WriterId};

/// The merged tree with its conflicts.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    keys: BTreeMap<NodeId, Key>,
    interner: Interner,
    witnesses: Witnesses,
    unions: Unions,
    /// The directories that stand elsewhere than at their newest place (R2).
    fallen: BTreeSet<Key>,
    /// The deleted directories that a live child keeps in the tree (R5).
    held: BTreeSet<Key>,
    conflicts: OpenConflicts,
    /// None unless open versions are to be shown beside their paths.
    siblings: Option<Box<Siblings>>,
}

/// What one call of `absorb` has to look at.
#[derive(Debug, Default)]
struct Batch {
    /// Nodes whose entry may differ.
    touched: BTreeSet<Key>,
    /// Directories with a new place.
    directories: BTreeSet<Key>,
    /// Nodes that stand elsewhere now, and where.
    placed: BTreeMap<Key, Option<Placement>>,
    /// Nodes that may have died or come to life.
    mortal: BTreeSet<Key>,
    /// Directories whose union changed, and who stood for them before.
    regrouped: BTreeMap<Key, Key>,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// The tree of a store without changes: a root with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        let mut interner = Interner::default();
        let stamp = interner.tick(Stamp { counter: 0, writer: WriterId([0; 16]) });
        let mut root = Node::unborn(NodeId::ROOT, stamp);
        root.matter = Matter::Directory(Box::new(Directory::new(Timestamp::default())));
        root.is_attached = true;
        Self {
            nodes: vec![root],
            keys: BTreeMap::from([(NodeId::ROOT, Key::ROOT)]),
            interner,
            witnesses: Witnesses::default(),
            unions: Unions::default(),
            fallen: BTreeSet::new(),
            held: BTreeSet::new(),
            conflicts: OpenConflicts::default(),
            siblings: None,
        }
    }

    /// Takes in what changed in the document; answers which entries and conflicts may differ.
    ///
    /// Updates of one call may come in any order; of several calls, each after the births of the nodes
    /// that it names. What a call names and no birth is known of stays out of the tree.
    #[must_use = "whoever shows the tree has to follow"]
    pub fn absorb(&mut self, updates: Vec<Update>, causality: &dyn Causality) -> TreeDelta {
        let mut batch = Batch::default();
        self.ingest(updates, causality, &mut batch);
        self.settle_directories(&mut batch);
        self.reattach(&mut batch);
        self.note_held(&batch.touched);
        // An entry names the standing node of its directory: where that changed, all entries did.
        for (key, before) in std::mem::take(&mut batch.regrouped) {
            if self.united(key)[0] != before
                && let Some(directory) = self.directory(key)
            {
                batch.touched.extend(directory.children.values().map(|keys| keys[0]));
            }
        }
        let conflicts_changed = self.update_conflicts(&batch.touched);
        let siblings = self.update_siblings(&batch.touched);
        TreeDelta {
            nodes: batch.touched.iter().map(|&key| self.id(key)).chain(siblings).collect(),
            conflicts_changed: conflicts_changed.into_iter().map(|key| self.id(key)).collect(),
        }
    }

    fn note_held(&mut self, touched: &BTreeSet<Key>) {
        for &key in touched {
            let node = &self.nodes[key.0 as usize];
            if node.is_dead && node.is_attached {
                self.held.insert(key);
            } else {
                self.held.remove(&key);
            }
        }
    }

    fn key(&self, id: NodeId) -> Option<Key> {
        self.keys.get(&id).copied()
    }

    fn key_or_unborn(&mut self, id: NodeId) -> Key {
        let nodes = &mut self.nodes;
        *self.keys.entry(id).or_insert_with(|| {
            let stamp = nodes[0].stamp;
            nodes.push(Node::unborn(id, stamp));
            Key(number(nodes.len() - 1))
        })
    }

    fn id(&self, key: Key) -> NodeId {
        self.nodes[key.0 as usize].id
    }

    fn directory(&self, key: Key) -> Option<&Directory> {
        self.nodes[key.0 as usize].directory()
    }

    fn directory_mut(&mut self, key: Key) -> Option<&mut Directory> {
        self.nodes[key.0 as usize].directory_mut()
    }

    fn is_directory(&self, key: Key) -> bool {
        self.directory(key).is_some()
    }
}
