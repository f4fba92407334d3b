//! What a file held, one version after the other: also one that is gone, across renames.

use std::collections::BTreeSet;

use pleach_core::replica::{PastMoment, Replica};
use pleach_core::values::{Body, Deed, What};
use pleach_core::vocabulary::{Kind, Mode, NodeId, Stamp, TreePath};

use super::HistoryError;
use crate::state::{LogMoment, State};

/// How many changes of one file are looked at, from the last one back.
const CHANGES_MAX: usize = 1_000;
/// How many files that had the path one after the other.
const NODES_MAX: usize = 64;

/// What a file held.
#[derive(Clone, Debug)]
pub struct FormerVersion {
    /// What made it.
    pub deed: Deed,
    /// What it is.
    pub body: Body,
    /// The file's permission bits then.
    pub mode: Option<Mode>,
}

/// The versions of all files and links that were last at `path`, the newest first: of each the last thousand.
///
/// # Errors
/// If the state can't be read.
pub fn versions(
    state: &State,
    replica: &Replica,
    path: &TreePath,
) -> Result<Vec<FormerVersion>, HistoryError> {
    if !state.has_index()? {
        return Err(HistoryError::NoIndex);
    }
    let tree = replica.tree();
    let is_file = |node: &NodeId| tree.kind(*node).is_some_and(|kind| kind != Kind::Directory);
    let mut found = Vec::new();
    for node in tree.ever_at(path).into_iter().filter(is_file).take(NODES_MAX) {
        for at in state.history_of(node, LogMoment::LAST, i64::MIN, CHANGES_MAX)? {
            let change = state.change_at(at.position)?;
            let unreadable = |source| HistoryError::Change { position: at.position, source };
            let deeds = replica.deeds(&change).map_err(unreadable)?;
            let moment = PastMoment::after(&change).map_err(unreadable)?;
            let mode = replica.as_of(node, moment).and_then(|former| former.mode);
            found.extend(deeds.only_of(&BTreeSet::from([node])).filter_map(|deed| of(deed, mode)));
        }
        found.extend(replica.birth_deed(node).and_then(|deed| of(deed, None)));
    }
    found.sort_by_key(|version| std::cmp::Reverse((version.deed.time_ms, version.deed.stamp)));
    // A change of a file and of its birth may be the same.
    found.dedup_by_key(|version| version.deed.stamp);
    Ok(found)
}

/// The version that stands at `path` now.
#[must_use]
pub fn standing_version(replica: &Replica, path: &TreePath) -> Option<Stamp> {
    let tree = replica.tree();
    Some(tree.contents(tree.lookup(path)?)?.stamp)
}

fn of(deed: Deed, mode: Option<Mode>) -> Option<FormerVersion> {
    let (body, mode) = match &deed.what {
        What::Created { body, mode } => (body.clone(), Some(*mode)),
        What::Edited { after, .. } | What::Resolved { after, .. } => (after.clone(), mode),
        What::Restored { after: Some(after), .. } => (after.clone(), mode),
        _ => return None,
    };
    Some(FormerVersion { deed, body, mode })
}
