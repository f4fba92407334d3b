//! A plain tree: it takes acts, and counts as merged tree.
//!
//! What is concurrent is repaired in the simplest way that loses nothing, and counted: a second entry
//! of one name gets another name, a change of what is dead brings it back, a cycle is not made.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::smallvec;

use super::DiskEntry;
use crate::values::{
    Act, Acts, Body, DirectoryIndex, DirectoryRef, EntryView, Performed, Seen, SeenNodes, TreeView,
};
use crate::vocabulary::{Attributes, Name, NodeId, Stamp, TreePath, WriterId};

#[derive(Clone, Debug)]
struct Node {
    parent: NodeId,
    name: Name,
    body: Body,
    attributes: Attributes,
    placed: Stamp,
    written: Stamp,
}

/// A plain tree of nodes.
#[derive(Clone, Debug, Default)]
pub struct PlainTree {
    nodes: BTreeMap<NodeId, Node>,
    names: BTreeMap<(NodeId, Name), NodeId>,
    counter: u64,
    touched: BTreeSet<NodeId>,
    dead: BTreeMap<NodeId, Node>,
    /// How often acts could not be taken as they were: never, if nobody else acted.
    pub repairs: u64,
}

impl TreeView for PlainTree {
    fn entry(&self, node: NodeId) -> Option<EntryView> {
        let Node { parent, name, body, attributes, placed, written } = self.nodes.get(&node)?;
        let contents = match body {
            Body::Directory { .. } => smallvec![],
            _ => smallvec![*written],
        };
        Some(EntryView {
            nodes: smallvec![Seen { node, places: smallvec![*placed], contents }],
            parent: *parent,
            name: name.clone(),
            body: body.clone(),
            attributes: attributes.clone(),
        })
    }

    fn child(&self, directory: NodeId, name: &Name) -> Option<NodeId> {
        self.names.get(&(directory, name.clone())).copied()
    }

    fn children(&self, directory: NodeId) -> Vec<(Name, NodeId)> {
        let first = Name::new(*b"\x01").expect("the first of all names");
        self.names
            .range((directory, first)..)
            .take_while(|((at, _), _)| *at == directory)
            .map(|((_, name), &node)| (name.clone(), node))
            .collect()
    }
}

impl PlainTree {
    /// The nodes that changed since the last call.
    pub fn take_touched(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.touched)
    }

    /// Counts nodes as changed once more, for another disk.
    pub fn touch(&mut self, nodes: &BTreeSet<NodeId>) {
        self.touched.extend(nodes);
    }

    /// All paths, for comparisons with a disk.
    #[must_use]
    pub fn entries(&self) -> BTreeMap<TreePath, DiskEntry> {
        let mut entries = BTreeMap::new();
        let mut queue = vec![(TreePath::root(), NodeId::ROOT)];
        while let Some((path, at)) = queue.pop() {
            for (name, node) in self.children(at) {
                queue.push((path.join(&name), node));
            }
            if let Some(Node { body, attributes, .. }) = self.nodes.get(&at) {
                let (body, attributes) = (body.clone(), attributes.clone());
                entries.insert(path, DiskEntry { body, attributes });
            }
        }
        entries
    }

    /// The node at `path`.
    #[must_use]
    pub fn find(&self, path: &TreePath) -> Option<NodeId> {
        path.names().iter().try_fold(NodeId::ROOT, |at, name| self.child(at, name))
    }

    /// Performs what a snapshot found.
    pub fn perform(&mut self, acts: &Acts) -> Vec<Performed> {
        let mut performed: Vec<Performed> = Vec::new();
        for act in &acts.acts {
            let node = self.perform_one(acts, &performed, act);
            let stamp = self.stamp(self.counter);
            performed.push(Performed { written: smallvec![(node, stamp)], ..Performed::default() });
        }
        self.name_all();
        performed
    }

    fn name_all(&mut self) {
        self.names.clear();
        let mut nodes: Vec<_> = self.nodes.keys().copied().collect();
        nodes.sort_by_key(|node| self.nodes[node].placed);
        for node in nodes {
            let Node { parent, name, .. } = self.nodes[&node].clone();
            let mut free = name.clone();
            let mut number = 0;
            while self.names.contains_key(&(parent, free.clone())) {
                number += 1;
                free = Name::try_from(format!("{name}~{number}").as_str()).expect("a name");
            }
            if free != name {
                self.repairs += 1;
                self.touched.insert(node);
                self.nodes.get_mut(&node).expect("of the map").name = free.clone();
            }
            self.names.insert((parent, free), node);
        }
    }

    /// Brings a dead node back, and the directories above it.
    fn revive(&mut self, node: NodeId) {
        let mut at = node;
        while at != NodeId::ROOT && !self.nodes.contains_key(&at) {
            let revived = self.dead.remove(&at).expect("it lived once");
            let above = revived.parent;
            self.nodes.insert(at, revived);
            self.touched.insert(at);
            self.repairs += 1;
            at = above;
        }
    }

    fn perform_one(&mut self, acts: &Acts, performed: &[Performed], act: &Act) -> NodeId {
        self.counter += 1;
        let stamp = self.stamp(self.counter);
        let directory = |index: &DirectoryIndex| {
            assert!((index.0 as usize) < acts.directories.len(), "the table holds {index:?}");
            match &acts.directories[index.0 as usize].directory {
                DirectoryRef::Root => NodeId::ROOT,
                DirectoryRef::Seen(nodes) => nodes[0].node,
                DirectoryRef::Created(new) => performed[new.0 as usize].written[0].0,
            }
        };
        let node = match act {
            Act::Create { directory: parent, name, body, mode, owner, xattrs } => {
                let (parent, name, body) = (directory(parent), name.clone(), body.clone());
                let attributes =
                    Attributes { mode: *mode, owner: owner.clone(), xattrs: xattrs.clone() };
                let (placed, written) = (stamp, stamp);
                let node = NodeId::born_at(stamp);
                self.revive(parent);
                self.assert_directory(parent);
                self.nodes.insert(node, Node { parent, name, body, attributes, placed, written });
                node
            }
            Act::Edit { entry, content, .. } => {
                let node = self.node(entry);
                (node.body, node.written) = (Body::File(*content), stamp);
                entry[0].node
            }
            Act::Relink { entry, target, mtime, .. } => {
                let node = self.node(entry);
                node.body = Body::Symlink { target: target.clone(), mtime: *mtime };
                node.written = stamp;
                entry[0].node
            }
            Act::Move { entry, to, name, .. } => {
                let to = directory(to);
                self.revive(to);
                self.assert_directory(to);
                if self.is_within(to, entry[0].node) {
                    self.repairs += 1;
                    self.touched.insert(entry[0].node);
                    return entry[0].node;
                }
                let node = self.node(entry);
                (node.parent, node.name, node.placed) = (to, name.clone(), stamp);
                entry[0].node
            }
            Act::Remove { entry, .. } => {
                let node = entry[0].node;
                if self.nodes.values().any(|child| child.parent == node) {
                    self.repairs += 1;
                } else if let Some(removed) = self.nodes.remove(&node) {
                    self.dead.insert(node, removed);
                }
                node
            }
            Act::SetMode { entry, mode, .. } => {
                self.node(entry).attributes.mode = *mode;
                entry[0].node
            }
            Act::SetOwner { entry, owner, .. } => {
                self.node(entry).attributes.owner = Some(owner.clone());
                entry[0].node
            }
            Act::SetXattr { entry, attribute, value, .. } => {
                let xattrs = &mut self.node(entry).attributes.xattrs;
                match value {
                    Some(value) => drop(xattrs.insert(attribute.clone(), value.clone())),
                    None => drop(xattrs.remove(attribute)),
                }
                entry[0].node
            }
            Act::Touch { entry, mtime, .. } => {
                let node = self.node(entry);
                node.body = node.body.with_mtime(*mtime);
                entry[0].node
            }
        };
        self.touched.insert(node);
        node
    }

    fn node(&mut self, entry: &SeenNodes) -> &mut Node {
        self.revive(entry[0].node);
        self.nodes.get_mut(&entry[0].node).expect("what is acted on is there")
    }

    fn assert_directory(&self, node: NodeId) {
        let directory = node == NodeId::ROOT
            || matches!(self.nodes.get(&node), Some(n) if matches!(n.body, Body::Directory { .. }));
        assert!(directory, "{node} holds entries");
    }

    fn is_within(&self, mut node: NodeId, directory: NodeId) -> bool {
        while node != NodeId::ROOT {
            if node == directory {
                return true;
            }
            node = self.nodes[&node].parent;
        }
        false
    }

    fn stamp(&self, counter: u64) -> Stamp {
        Stamp { counter, writer: WriterId([1; 16]) }
    }
}
