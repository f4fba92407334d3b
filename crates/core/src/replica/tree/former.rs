//! What was at a path: nodes that are no more, by where they were last.

use std::cmp::Reverse;

use super::Tree;
use super::node::{Key, Node};
use crate::vocabulary::{Name, NodeId, TreePath};

impl Tree {
    /// All nodes whose last place is at `path`: those that are there now first, the standing one before all,
    /// then those that were deleted there, the last one first. What was renamed since is where it is now.
    ///
    /// Costs a look at every node that there ever was.
    #[must_use]
    pub fn ever_at(&self, path: &TreePath) -> Vec<NodeId> {
        let Some(name) = path.names().last() else { return vec![NodeId::ROOT] };
        let now = self.lookup(path).map(|node| match self.sibling_view(node) {
            Some(sibling) => {
                let shown = sibling.nodes.iter().map(|seen| seen.node);
                let held = |node| self.version_shown(node).map_or(node, |(holder, _)| holder);
                shown.map(held).collect()
            }
            None => self.members_of_entry(node),
        });
        let now: Vec<NodeId> = now.unwrap_or_default();
        let is_called_so =
            |node: &&Node| node.place.as_ref().is_some_and(|place| *place.name == *name.as_bytes());
        let fitting = self.nodes.iter().filter(is_called_so);
        let fitting = fitting.filter(|node| !now.contains(&node.id) && self.leads_to(node, path));
        let mut former: Vec<_> = fitting
            .map(|node| {
                (node.place.as_ref().map(|place| self.interner.stamp(place.stamp)), node.id)
            })
            .collect();
        former.sort_by_key(|&(stamp, node)| Reverse((stamp, node)));
        now.into_iter().chain(former.into_iter().map(|(_, node)| node)).collect()
    }

    /// The path of `node` by its last place and those of the directories above, live or not; none of what is not
    /// known.
    #[must_use]
    pub fn last_path(&self, node: NodeId) -> Option<TreePath> {
        let mut names = Vec::new();
        let mut here = self.key(node)?;
        while here != Key::ROOT {
            let place = self.nodes[here.0 as usize].place.as_ref()?;
            names.push(Name::new(place.name.clone()).expect("it came from a name"));
            here = place.parent;
        }
        names.reverse();
        Some(TreePath::new(names))
    }

    /// Whether a node, live or not, has this path by its last place and those of the directories above.
    fn leads_to(&self, node: &Node, path: &TreePath) -> bool {
        let mut here = node;
        for name in path.names().iter().rev() {
            match &here.place {
                Some(place) if *place.name == *name.as_bytes() => {
                    here = &self.nodes[place.parent.0 as usize];
                }
                _ => return false,
            }
        }
        here.id == self.nodes[Key::ROOT.0 as usize].id
    }
}
