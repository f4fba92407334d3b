//! All nodes that were ever born, with their kind and the change that bore them.

use std::collections::BTreeMap;

use crate::vocabulary::{Kind, NodeId};

/// What the gate must know of every node without asking the engine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Born {
    pub(super) kind: Kind,
    /// A number of [`crate::replica::past::Past`].
    pub(super) writer: u32,
    pub(super) sequence: u32,
}

/// The nodes. The root is not among them.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes(BTreeMap<NodeId, Born>);

impl Nodes {
    pub(super) fn get(&self, node: NodeId) -> Option<Born> {
        self.0.get(&node).copied()
    }

    pub(super) fn insert(&mut self, node: NodeId, kind: Kind, writer: u32, sequence: u64) {
        let sequence = u32::try_from(sequence).expect("the gate admits no sequence above 32 bits");
        self.0.insert(node, Born { kind, writer, sequence });
    }
}
