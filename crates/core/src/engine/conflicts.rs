//! Open conflicts: what is told of them, and that their versions are kept (R9).

use std::collections::BTreeMap;

use super::{Engine, Output, Turn};
use crate::values::{Body, Conflict, Event};
use crate::vocabulary::{ContentHash, NodeId, TreePath};

impl Engine {
    /// Since when this run has known of the conflict at `path`, by the wall clock.
    #[must_use]
    pub fn conflict_opened_ms(&self, path: &TreePath) -> Option<i64> {
        let node = self.replica.tree().lookup(path)?;
        let members = self.replica.tree().members_of_entry(node);
        members.iter().find_map(|node| self.conflicts.get(node)).map(|&(_, since)| since)
    }

    /// Open conflicts of an earlier run: no news, but what is missing of their versions is wanted.
    pub(super) fn remember_conflicts(&mut self) {
        for conflict in self.replica.conflicts() {
            let Some(node) = conflict.versions.first().map(|version| version.node) else {
                continue;
            };
            self.conflicts.entry(node).or_insert((conflict.path, self.unix_ms));
            let open = self.replica.conflicts_at(node);
            self.retain_versions(node, &open);
        }
    }

    pub(super) fn conflict_changed(&mut self, node: NodeId) {
        let open = self.replica.conflicts_at(node);
        self.retain_versions(node, &open);
        match open.first() {
            Some(conflict) => {
                let (path, kind) = (conflict.path.clone(), conflict.kind);
                let before = self.conflicts.get(&node).cloned();
                let since = before.as_ref().map_or(self.unix_ms, |&(_, since)| since);
                self.conflicts.insert(node, (path.clone(), since));
                let before = before.map(|(path, _)| path);
                if before.as_ref() == Some(&path) {
                    return;
                }
                // Who listens knows of it by its path.
                if let Some(path) = before {
                    self.event(Event::ConflictClosed { path });
                }
                self.event(Event::ConflictOpened { path, kind });
            }
            None => {
                if let Some((path, _)) = self.conflicts.remove(&node) {
                    self.event(Event::ConflictClosed { path });
                }
            }
        }
    }

    /// The versions of an open conflict are kept on every master, on the disk or among the versions
    /// (R9). Without a conflict, none is wanted any more.
    pub(super) fn retain_versions(&mut self, node: NodeId, open: &[Conflict]) {
        let mut contents = BTreeMap::new();
        for version in open.iter().flat_map(|conflict| &conflict.versions) {
            if let (Body::File(content), false) = (&version.body, version.stands) {
                contents.insert(content.hash, content.size);
            }
        }
        self.retain_contents(node, &contents);
    }

    /// These contents, with their sizes, are kept for `node`, on the disk or among the versions, and no others.
    pub(super) fn retain_contents(&mut self, node: NodeId, contents: &BTreeMap<ContentHash, u64>) {
        let mut missing = BTreeMap::new();
        for (&hash, &size) in contents {
            if size == 0 || self.retained.contains(&hash) {
                continue;
            }
            if let Some(bytes) = self.transfer.at_hand.inline(&hash).map(|bytes| bytes.to_vec()) {
                self.retained.insert(hash);
                self.queued.push(Output::Retain { hash, bytes: Some(bytes) });
            } else if !matches!(self.turn, Turn::Applying(_))
                && self.transfer.at_hand.hand_over(hash)
            {
                // No effect under way takes it. Kept in the versions, it is found there by a node that is to
                // hold it after all.
                self.retained.insert(hash);
                self.queued.push(Output::Retain { hash, bytes: None });
            } else if self.base.by_hash(hash).next().is_none() {
                missing.insert(hash, size);
            } else {
                self.base.rely_on(hash);
            }
        }
        self.transfer.want_retained(node, &missing);
    }

    /// Where the only file is gone that held a version of an open conflict, that is had from others.
    pub(super) fn retain_what_was_lost(&mut self) {
        let lost = self.base.take_lost();
        if lost.is_empty() {
            return;
        }
        let is_lost =
            |body: &Body| matches!(body, Body::File(content) if lost.contains(&content.hash));
        let known: Vec<NodeId> = self.conflicts.keys().copied().collect();
        for node in known {
            let open = self.replica.conflicts_at(node);
            if open.iter().flat_map(|open| &open.versions).any(|version| is_lost(&version.body)) {
                self.retain_versions(node, &open);
            }
        }
    }
}
