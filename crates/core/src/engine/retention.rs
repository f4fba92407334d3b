//! Retention: which contents among the retained versions may go. What somebody may still need stays,
//! whatever its age.

use std::collections::BTreeSet;

use super::Engine;
use crate::values::Body;
use crate::vocabulary::ContentHash;

impl Engine {
    /// Lets go of contents among the retained versions: from now on, this run takes them to be no longer
    /// there. Those that are returned are still needed, and must stay: versions of open conflicts (R9), and
    /// what the tree has and this disk has not. Before the disk has been looked at once, all of them are.
    pub fn let_go(&mut self, contents: &BTreeSet<ContentHash>) -> BTreeSet<ContentHash> {
        if !self.caught_up {
            return contents.clone();
        }
        let conflicts = self.conflicts.keys().flat_map(|&node| self.replica.conflicts_at(node));
        let versions = conflicts.flat_map(|conflict| conflict.versions);
        let bodies = versions.map(|version| version.body);
        let mut needed: BTreeSet<ContentHash> = bodies
            .filter_map(|body| file_hash(&body))
            .filter(|hash| contents.contains(hash))
            .collect();
        needed.extend(contents.iter().filter(|hash| self.transfer.is_wanted(hash)));
        if !self.is_at_rest() {
            let entries = self.replica.tree().entries();
            let named = entries.filter_map(|(_, entry)| file_hash(&entry.body));
            let is_needed = |hash: &ContentHash| {
                contents.contains(hash) && self.base.by_hash(*hash).next().is_none()
            };
            needed.extend(named.filter(is_needed));
        }
        for hash in contents.difference(&needed) {
            self.retained.remove(hash);
        }
        needed
    }

    /// Whether the base holds all that the tree has.
    fn is_at_rest(&self) -> bool {
        self.status().pending == 0 && self.problems.unprojected().next().is_none()
    }
}

fn file_hash(body: &Body) -> Option<ContentHash> {
    match body {
        Body::File(content) => Some(content.hash),
        _ => None,
    }
}
