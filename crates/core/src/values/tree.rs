//! The merged tree as others see it: entries, and what an observer had seen of their nodes.
//!
//! An *entry* is what a path names. It usually has one node. It has more where directories of one name
//! are shown as one (R6), or where files of one name are in conflict: the first node *stands*.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Body;
use crate::vocabulary::{Attributes, Name, NodeId, Stamp};

/// A node, with the stamps of what an observer saw of it. A delete lists these (R3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The node.
    pub node: NodeId,
    /// Stamps of all its current places; usually one. For a directory, all current maxima.
    pub places: SmallVec<[Stamp; 1]>,
    /// Stamps of all its current contents; none for a directory, or if nobody saw them.
    pub contents: SmallVec<[Stamp; 1]>,
}

/// The nodes of one entry as an observer saw them, the standing one first.
pub type SeenNodes = SmallVec<[Seen; 1]>;

/// One entry of the merged tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryView {
    /// The nodes, the standing one first; then those united with it or hidden by it.
    pub nodes: SeenNodes,
    /// The standing node of the directory that holds the entry.
    pub parent: NodeId,
    /// The entry's name there.
    pub name: Name,
    /// What stands.
    pub body: Body,
    /// Its attributes.
    pub attributes: Attributes,
}

impl EntryView {
    /// The node that stands.
    #[must_use]
    pub fn standing(&self) -> NodeId {
        self.nodes[0].node
    }
}

/// Read access to the merged tree, as `checkout` and `snapshot` need it.
pub trait TreeView {
    /// The entry that `node` is part of; none if the node is not in the tree. The root has none.
    fn entry(&self, node: NodeId) -> Option<EntryView>;

    /// The standing node of the entry called `name` in the directory that `directory` is part of.
    fn child(&self, directory: NodeId, name: &Name) -> Option<NodeId>;

    /// The standing nodes of the entries in the directory that `directory` is part of, by name.
    fn children(&self, directory: NodeId) -> Vec<(Name, NodeId)>;

    /// What of a conflict at the entry of `node` has an entry of its own beside it (R9): one act on the path is
    /// one on these. None of what is a sibling itself.
    fn siblings(&self, _node: NodeId) -> Vec<NodeId> {
        Vec::new()
    }

    /// The standing node of the path beside which `node` is shown for a conflict there; none of all others.
    fn sibling_of(&self, _node: NodeId) -> Option<NodeId> {
        None
    }

    /// Whether `node`, which is not in the tree any more, was shown by this name as a sibling, and would come
    /// back by the name of its path.
    fn was_sibling(&self, _node: NodeId, _name: &Name) -> bool {
        false
    }

    /// Whether there ever was such a node. What stood for an open version is none once that is closed.
    fn knows(&self, _node: NodeId) -> bool {
        true
    }
}

/// The nodes whose entry may differ from before: it came, went, moved, or its content, attributes,
/// nodes or seen stamps changed. Nodes of one entry may be listed or not; one of them is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeDelta {
    /// In no meaningful order.
    pub nodes: BTreeSet<NodeId>,
    /// Nodes whose entry's conflicts opened, closed, or may read differently: the standing node, or a
    /// node that had one and is not in the tree any more.
    pub conflicts_changed: BTreeSet<NodeId>,
}

impl TreeDelta {
    /// Adds what `other` lists.
    pub fn join(&mut self, other: Self) {
        self.nodes.extend(other.nodes);
        self.conflicts_changed.extend(other.conflicts_changed);
    }
}
