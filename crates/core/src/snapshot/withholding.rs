//! Withholding: removals that are too many at once are not made.

use std::collections::BTreeSet;

use super::acts::SnapshotRules;
use super::matching::{Matching, matching};
use super::survey::Survey;
use crate::values::{Base, BaseId, TreeView};

impl Survey {
    /// The matching, and what it did not remove because that would be too much, with the directories of that.
    pub(super) fn guarded_matching<T: TreeView>(
        &self,
        base: &Base,
        tree: &T,
        rules: &SnapshotRules,
    ) -> (Matching, Vec<BaseId>) {
        let all = matching(base, self, rules.vanished, &BTreeSet::new());
        // What the tree has not either, is nobody's loss.
        let is_in_tree = |id: BaseId| {
            let nodes = base.entry(id).into_iter().flat_map(|entry| &entry.nodes);
            nodes.into_iter().any(|seen| tree.entry(seen.node).is_some())
        };
        let counts = |&id: &BaseId| !rules.passing.contains(&id) && is_in_tree(id);
        let few = all.removed.len() <= rules.removals_max;
        if few || all.removed.iter().filter(|id| counts(id)).count() <= rules.removals_max {
            return (all, Vec::new());
        }
        let is_removed: BTreeSet<BaseId> = all.removed.iter().copied().collect();
        let mut withheld = BTreeSet::new();
        // The deepest come first.
        for &id in &all.removed {
            if withheld.contains(&id) || counts(&id) {
                withheld.insert(id);
                let entry = base.entry(id).expect("what is removed was in the base");
                let above = Some(entry.parent).filter(|above| is_removed.contains(above));
                withheld.extend(above);
            }
        }
        let fewer = matching(base, self, rules.vanished, &withheld);
        (fewer, withheld.into_iter().collect())
    }
}
