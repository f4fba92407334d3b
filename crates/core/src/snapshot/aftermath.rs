//! The aftermath of a crash: what the base does not know of our own effects, and what can be told of them.

use std::collections::BTreeSet;

use crate::values::{Base, BaseId, SeenNodes, TreeView};
use crate::vocabulary::{Fingerprint, NodeId};

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
