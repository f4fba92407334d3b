//! R3 for the contents of a node that lives on: what a delete has seen is removed, the rest stands.
//!
//! An edit and a delete on one master, an edit of the same file on another: the file lives by the second
//! edit, and the first, which its own author deleted, neither stands nor is an open version, however
//! large its stamp. Nobody may have its bytes any more.

use super::node::{ContentValue, Key, Matter, Removal};
use super::{Batch, Tree};
use crate::replica::register::Carried;
use crate::values::Body;
use crate::vocabulary::{NodeId, Stamp};

impl Tree {
    /// Contents of a node that lives on although a delete has seen them. Another delete of the node
    /// replaces that one, and has to name them again.
    #[must_use]
    pub fn removed_contents(&self, node: NodeId) -> Vec<Stamp> {
        let Some(key) = self.key(node) else { return Vec::new() };
        let contents = self.nodes[key.0 as usize].several_contents().iter();
        let stamps = contents.map(|content| self.interner.stamp(content.stamp));
        stamps.filter(|&stamp| self.is_removed(key, stamp)).collect()
    }

    /// Whether a delete has removed contents of the node, or versions that these carry along: without the
    /// delete they would be there again.
    #[must_use]
    pub fn has_removed_any(&self, node: NodeId) -> bool {
        let Some(key) = self.key(node) else { return false };
        self.nodes[key.0 as usize].several_contents().iter().any(|content| {
            let carried = content.carried.iter().map(|carried| carried.stamp);
            let mut stamps = carried.chain([self.interner.stamp(content.stamp)]);
            stamps.any(|stamp| self.is_removed(key, stamp))
        })
    }

    /// Whether a delete of the node that holds (R4) has seen the write with this stamp.
    #[must_use]
    pub fn is_deleted_content(&self, node: NodeId, stamp: Stamp) -> bool {
        self.key(node).is_some_and(|key| self.is_removed(key, stamp))
    }

    /// Whether a version would be removed at the node, if it were carried there: once it was its own,
    /// somebody renamed it away with that, and now it comes back.
    #[must_use]
    pub fn has_removed(&self, node: NodeId, version: &Carried) -> bool {
        self.is_deleted_content(node, version.stamp)
    }

    /// The current contents by rising stamp, as [`super::node::Node::several_contents`] has them,
    /// without those that are removed; all of them if a delete has seen each.
    pub(super) fn live_contents(&self, key: Key) -> Vec<&ContentValue> {
        let node = &self.nodes[key.0 as usize];
        let all = node.several_contents();
        let live =
            |content: &&ContentValue| !self.is_removed(key, self.interner.stamp(content.stamp));
        let left: Vec<&ContentValue> = match node.removals {
            Some(_) => all.iter().filter(live).collect(),
            None => all.iter().collect(),
        };
        if left.is_empty() { all.iter().collect() } else { left }
    }

    /// What a content carries along, without what is removed.
    pub(super) fn live_carried<'a>(
        &'a self,
        key: Key,
        content: &'a ContentValue,
    ) -> impl Iterator<Item = &'a Carried> {
        let is_left = move |carried: &&Carried| {
            !self.is_removed(key, carried.stamp) && !self.is_closed(key, carried.stamp)
        };
        content.carried.iter().filter(is_left)
    }

    /// Whether somebody has closed this version apart from all others (R9).
    pub(super) fn is_closed(&self, key: Key, version: Stamp) -> bool {
        let closed = self.nodes[key.0 as usize].closed();
        closed.is_some_and(|closed| closed.contains_key(&version))
    }

    fn is_removed(&self, key: Key, stamp: Stamp) -> bool {
        let node = &self.nodes[key.0 as usize];
        let saw = |removal: &Removal| {
            !self.is_void(removal)
                && removal.observed.iter().any(|&tick| self.interner.stamp(tick) == stamp)
        };
        node.removals.iter().flatten().any(saw)
    }

    /// Lets the newest content stand that is not removed; of several of equal bytes, with the newest
    /// mtime (R7).
    pub(super) fn restand(&mut self, key: Key, batch: &mut Batch) {
        if self.nodes[key.0 as usize].several_contents().is_empty() {
            return;
        }
        let live = self.live_contents(key);
        let Some(newest) = live.last() else { return };
        let stamp = newest.stamp;
        let equal = live.iter().map(|content| &content.body);
        let equal = equal.filter(|body| body.same_bytes(&newest.body));
        let Some(standing) = equal.max_by_key(|body| body.mtime()).cloned() else { return };
        let node = &mut self.nodes[key.0 as usize];
        match standing {
            Body::File(content) => node.matter = Matter::File(content),
            Body::Symlink { target, mtime } => {
                node.matter = Matter::Symlink(Box::new((target, mtime)))
            }
            Body::Directory { .. } => return,
        }
        node.stamp = stamp;
        batch.touched.insert(key);
    }
}
