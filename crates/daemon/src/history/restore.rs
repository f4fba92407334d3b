//! What has to be done so that a file, or all that a directory held, is as it was.
//!
//! Nothing is ever removed or moved by it: what was made since stays, and what was moved since stays where it
//! is, and is listed. What takes the place of something keeps that as any write does.

use std::collections::{BTreeMap, BTreeSet};

use pleach_core::replica::{PastMoment, Replica};
use pleach_core::values::{Body, Former, Life, Restoring, TreeView};
use pleach_core::vocabulary::{ContentHash, Kind, NodeId, TreePath};

use super::HistoryError;
use super::versions::{FormerVersion, versions};
use crate::control::{PickFormer, history_id};
use crate::state::{LogMoment, State};

/// How many changes are looked at in the index at once.
const PAGE: usize = 20_000;

/// Why nothing can be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// History can't be told.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// It is a directory, and no time was named.
    #[error(
        "it is a directory: say as of when, with --at; `pleach log` tells what was done in it and when"
    )]
    NeedsTime,
    /// It is there, and nothing else was asked for.
    #[error(
        "it is there: say which of its versions, with --version or --at; `pleach versions` lists them"
    )]
    IsThere,
    /// Nothing of it is known.
    #[error(
        "nothing that was called so is known: `pleach log` of the directory tells what was in it"
    )]
    Unknown,
    /// It was not there then.
    #[error("it was not there at that time: `pleach log` tells what happened to it")]
    NotThereThen,
    /// No version has that id.
    #[error("no version of it has the id {0}: `pleach versions` lists them")]
    NoSuchVersion(String),
    /// Several have it.
    #[error("{0} fits several versions: name more digits")]
    Ambiguous(String),
}

impl From<crate::state::StateError> for RestoreError {
    fn from(error: crate::state::StateError) -> Self {
        Self::History(error.into())
    }
}

/// What there is to do.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Nodes that are to be as they were, by path; directories before what they hold.
    pub steps: BTreeMap<TreePath, Restoring>,
    /// What stays as it is although it was another.
    pub left: BTreeMap<TreePath, LeftAlone>,
}

/// Why something is not restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftAlone {
    /// It has been moved to there since.
    Moved,
    /// Something of another kind is in its place.
    InTheWay,
}

impl Plan {
    /// The contents that have to be had for it, with their sizes.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<ContentHash, u64> {
        self.steps.values().filter_map(content_of).collect()
    }
}

/// The bytes that a step needs, if it needs any.
#[must_use]
pub fn content_of(step: &Restoring) -> Option<(ContentHash, u64)> {
    match &step.body {
        Some(Body::File(content)) if content.size > 0 => Some((content.hash, content.size)),
        _ => None,
    }
}

/// Works out what has to be done so that `path` is as it was.
///
/// # Errors
/// If the state can't be read, or what was asked for is not there.
pub fn plan(
    state: &State,
    replica: &Replica,
    path: &TreePath,
    pick: &PickFormer,
) -> Result<Plan, RestoreError> {
    if !state.has_index()? {
        return Err(HistoryError::NoIndex.into());
    }
    let mut planning = Planning { state, replica, moments: BTreeMap::new(), plan: Plan::default() };
    planning.plan(path, pick)?;
    Ok(planning.plan)
}

struct Planning<'a> {
    state: &'a State,
    replica: &'a Replica,
    /// Changes that were looked at: many nodes have the same one.
    moments: BTreeMap<u64, PastMoment>,
    plan: Plan,
}

impl Planning<'_> {
    fn plan(&mut self, path: &TreePath, pick: &PickFormer) -> Result<(), RestoreError> {
        let tree = self.replica.tree();
        let nodes = tree.ever_at(path);
        let is_directory = |node: &NodeId| tree.kind(*node) == Some(Kind::Directory);
        let is_there = tree.lookup(path);
        // Of what was there one after the other, the last counts.
        let below = nodes.first().is_some_and(is_directory);
        match pick {
            _ if nodes.is_empty() => Err(RestoreError::Unknown),
            // What would be written to is the path, not what is shown beside it.
            _ if is_there.is_some_and(|node| tree.version_shown(node).is_some()) => {
                Err(RestoreError::IsThere)
            }
            PickFormer::Version(id) => {
                let version = self.version(path, id)?;
                let FormerVersion { deed, body, mode } = version;
                self.put(path, deed.node, body, mode);
                Ok(())
            }
            PickFormer::At(time_ms) if below => {
                let directories = nodes.into_iter().filter(is_directory).collect();
                self.subtree(&directories, *time_ms)
            }
            PickFormer::At(time_ms) => {
                for node in nodes {
                    if let Some(former) = self.as_of(node, *time_ms)?
                        && former.life == Life::There
                    {
                        self.put(path, node, former.body, former.mode);
                        return Ok(());
                    }
                }
                Err(RestoreError::NotThereThen)
            }
            PickFormer::Last if below => Err(RestoreError::NeedsTime),
            PickFormer::Last if is_there.is_some() => Err(RestoreError::IsThere),
            PickFormer::Last => {
                let body = tree.body(nodes[0]).ok_or(RestoreError::Unknown)?;
                self.put(path, nodes[0], body, None);
                Ok(())
            }
        }
    }

    fn version(&self, path: &TreePath, id: &str) -> Result<FormerVersion, RestoreError> {
        let all = versions(self.state, self.replica, path)?;
        let mut fitting =
            all.into_iter().filter(|version| history_id(version.deed.stamp).starts_with(id));
        match (fitting.next(), fitting.next()) {
            (Some(version), None) => Ok(version),
            (Some(_), Some(_)) => Err(RestoreError::Ambiguous(id.to_owned())),
            (None, _) => Err(RestoreError::NoSuchVersion(id.to_owned())),
        }
    }

    /// All that was in these directories, or below, and has been written to, moved or removed since.
    fn subtree(
        &mut self,
        directories: &BTreeSet<NodeId>,
        time_ms: i64,
    ) -> Result<(), RestoreError> {
        let mut seen = BTreeSet::new();
        let mut before = LogMoment::LAST;
        loop {
            let page = self.state.history(before, time_ms.saturating_add(1), PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            before = last.at;
            for node in page.iter().flat_map(|change| &change.nodes).copied() {
                if seen.insert(node) {
                    self.consider(node, directories, time_ms)?;
                }
            }
        }
    }

    fn consider(
        &mut self,
        node: NodeId,
        directories: &BTreeSet<NodeId>,
        time_ms: i64,
    ) -> Result<(), RestoreError> {
        let tree = self.replica.tree();
        let above = |node: NodeId| {
            directories.contains(&node)
                || directories.contains(&NodeId::ROOT)
                || tree.above(node).iter().any(|above| directories.contains(above))
        };
        let is_in = above(node);
        let is_directory = tree.kind(node) == Some(Kind::Directory);
        if node == NodeId::ROOT || !is_in && is_directory {
            return Ok(());
        }
        let Some(former) = self.as_of(node, time_ms)? else { return Ok(()) };
        let was_in = former.parent.is_some_and(above);
        if former.life == Life::Deleted || !is_in && !was_in {
            return Ok(());
        }
        let Some(path) = tree.last_path(node) else { return Ok(()) };
        let is_there = tree.is_live(node) && !tree.is_held(node);
        let here = tree.place(node).map(|(_, place)| place.parent);
        match is_there {
            true if former.parent.is_some_and(|parent| here != Some(parent)) => {
                self.plan.left.insert(path, LeftAlone::Moved);
            }
            true if is_directory => {}
            _ => self.put(&path, node, former.body, former.mode),
        }
        Ok(())
    }

    /// How a node was at a time; none if it had not been made by then.
    fn as_of(&mut self, node: NodeId, time_ms: i64) -> Result<Option<Former>, RestoreError> {
        let until = LogMoment { time_ms, position: LogMoment::LAST.position };
        let last = self.state.history_of(node, until, i64::MIN, 1)?;
        let Some(last) = last.first() else {
            let born = self.replica.as_born(node).filter(|(born_ms, _)| *born_ms <= time_ms);
            return Ok(born.map(|(_, former)| former));
        };
        let moment = match self.moments.get(&last.position) {
            Some(moment) => *moment,
            None => {
                let change = self.state.change_at(last.position)?;
                let unreadable = |source| HistoryError::Change { position: last.position, source };
                let moment = PastMoment::after(&change).map_err(unreadable)?;
                self.moments.insert(last.position, moment);
                moment
            }
        };
        Ok(self.replica.as_of(node, moment))
    }

    /// Plans that `path` holds this: what stands there is written to, or else `node` comes back to there.
    fn put(
        &mut self,
        path: &TreePath,
        node: NodeId,
        body: Body,
        mode: Option<pleach_core::vocabulary::Mode>,
    ) {
        let tree = self.replica.tree();
        if self.plan.steps.contains_key(path) {
            return;
        }
        if self.is_blocked(path) {
            self.plan.left.insert(path.clone(), LeftAlone::InTheWay);
            return;
        }
        let standing = tree.lookup(path).filter(|node| !tree.is_held(*node));
        let step = match standing.and_then(|node| tree.entry(node)) {
            Some(entry) if entry.body.kind() != body.kind() => {
                self.plan.left.insert(path.clone(), LeftAlone::InTheWay);
                return;
            }
            Some(entry) => {
                let node = entry.standing();
                let body = Some(body).filter(|body| !body.same_bytes(&entry.body));
                let mode = mode.filter(|mode| *mode != entry.attributes.mode);
                if body.is_none() && mode.is_none() {
                    return;
                }
                Restoring { node, body, mode }
            }
            None => {
                let body = Some(body).filter(|body| body.kind() != Kind::Directory);
                Restoring { node, body, mode }
            }
        };
        self.plan.steps.insert(path.clone(), step);
    }

    /// Whether something that is no directory has the name of one above.
    fn is_blocked(&self, path: &TreePath) -> bool {
        let tree = self.replica.tree();
        let mut above = path.split_last().map(|(above, _)| above);
        while let Some(directory) = above {
            let standing = tree.lookup(&directory);
            if let Some(node) = standing {
                return tree.kind(node) != Some(Kind::Directory);
            }
            above = directory.split_last().map(|(above, _)| above);
        }
        false
    }
}
