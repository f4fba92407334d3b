//! Merges by hand: a file that was edited while its conflict was open holds what its author made of all
//! versions, and may be kept as that.

use super::Replica;
use crate::values::{ChangeId, Conflict, Version, VersionOf};
use crate::vocabulary::{Kind, NodeId, Stamp, TreePath};

/// Why what stands at a path can't be kept as a merge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotMerged {
    /// Nothing is open there that is about what a file or a link holds.
    #[error("{0} has no open versions of a file to merge")]
    NothingToMerge(TreePath),
    /// What stands was written by somebody who did not have these versions.
    #[error("{path} has not been edited since {} of its versions came", unseen.len())]
    NotEdited {
        /// The path.
        path: TreePath,
        /// The versions that came since.
        unseen: Vec<Stamp>,
    },
}

impl Replica {
    /// The version that stands at `path`, if somebody wrote it while all others that are open there were open
    /// already: to be given to [`Choice::Keep`](crate::values::Choice::Keep).
    ///
    /// What a user saved on top of a version that came a moment before, and was not on that disk yet, is no
    /// merge. Whether the author has looked at the other versions nobody can know.
    ///
    /// # Errors
    /// If nothing is open there but places, or what stands is a version as it came.
    pub fn merged(&self, path: &TreePath) -> Result<Stamp, NotMerged> {
        let nothing = || NotMerged::NothingToMerge(path.clone());
        let node = self.tree.lookup(path).ok_or_else(nothing)?;
        let open = self.conflicts_at(node);
        let of_bytes = |version: &&Version| {
            version.of == VersionOf::Content && version.body.kind() != Kind::Directory
        };
        let mut merged = None;
        let mut unseen = Vec::new();
        for conflict in &open {
            let Some(standing) = conflict.standing().filter(of_bytes) else { continue };
            merged = Some(standing.stamp);
            unseen.extend(self.unseen(standing, conflict));
        }
        let merged = merged.ok_or_else(nothing)?;
        match unseen.is_empty() {
            true => Ok(merged),
            false => Err(NotMerged::NotEdited { path: path.clone(), unseen }),
        }
    }

    /// The versions that came when what stands had been written; all, if it is no edit of an open conflict.
    fn unseen(&self, standing: &Version, conflict: &Conflict) -> Vec<Stamp> {
        let others = || conflict.versions.iter().filter(|version| !version.stands);
        // What stood before is none of the others: else there was nothing to merge them with yet.
        let before = self.document.contents_before(standing.node, standing.stamp);
        let is_other = |body| others().any(|other| other.body.same_bytes(body));
        let is_edit = NodeId::born_at(standing.stamp) != standing.node
            && before.iter().any(|body| !is_other(body));
        let written = self.change_of(standing.stamp);
        let has_seen = |other: &&Version| {
            let saw = |(later, earlier)| self.document.past().saw(later, earlier);
            is_edit && written.zip(self.change_of(other.stamp)).is_some_and(saw)
        };
        others().filter(|other| !has_seen(other)).map(|other| other.stamp).collect()
    }

    /// The change that made a write.
    fn change_of(&self, stamp: Stamp) -> Option<ChangeId> {
        Some(self.document.change_of(self.document.change_with(stamp)?)?.0)
    }
}
