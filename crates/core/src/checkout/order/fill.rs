//! Filling what is in its place: contents, where they can be had, and attributes.

use smallvec::SmallVec;

use super::{Planner, needs_attributes, nodes_of, nodes_of_entry, set_attributes};
use crate::checkout::pairing::Want;
use crate::checkout::plan::{Availability, Put, Then, Wanted};
use crate::values::{
    BaseEntry, BaseId, Body, Effect, EntryView, Expected, FileContent, Location, PutSource,
    TreeView,
};
use crate::vocabulary::{Kind, NodeId};

impl<T: TreeView> Planner<'_, T> {
    /// Puts the content of a file or link that is in its place, and its attributes.
    pub(super) fn fill(&mut self, node: NodeId, kind: Kind) {
        let Want { view, disk } = self.wants[&node].clone();
        if view.body.kind() != kind {
            return;
        }
        let Some(spot) = self.spot(view.parent) else { return };
        let Some(at) = self.picture.location(spot).map(|directory| directory.join(&view.name))
        else {
            return;
        };
        let then_at = |id: Option<BaseId>| match id {
            Some(id) => Then::Replace { id, entry: Box::new(Put::from(&view)) },
            None => Then::Insert {
                parent: spot,
                name: view.name.clone(),
                entry: Box::new(Put::from(&view)),
            },
        };
        let entry = disk.and_then(|id| self.pairing.base.entry(id));
        if let (Some(entry), Some(id)) = (entry, disk)
            && entry.body.same_bytes(&view.body)
        {
            if needs_attributes(entry, &view) {
                let effect = set_attributes(at, entry.fingerprint, &view);
                self.push(effect, nodes_of(&view), then_at(disk));
            } else {
                self.confirm(id, entry, &view, at);
            }
            return;
        }
        let expected = match entry {
            Some(entry) => Expected::Present(entry.fingerprint),
            None => Expected::Absent,
        };
        let attributes = view.attributes.clone();
        let effect = match &view.body {
            Body::File(content) => {
                let Some(source) = self.source(content) else {
                    return self.want_content(&view, content, disk);
                };
                Effect::PutFile { at, expected, content: *content, attributes, source }
            }
            Body::Symlink { target, mtime } => {
                let (target, mtime) = (target.clone(), *mtime);
                Effect::PutSymlink { at, expected, target, mtime, attributes }
            }
            Body::Directory { .. } => return,
        };
        self.push(effect, nodes_of(&view), then_at(disk));
        self.plan.disturbed.insert(spot);
        self.consumed.extend(disk);
    }

    /// Those that are no more in the tree.
    pub(super) fn dead_nodes(&self, entry: &BaseEntry) -> SmallVec<[NodeId; 1]> {
        let nodes = nodes_of_entry(entry).into_iter();
        nodes.filter(|&node| self.pairing.tree.entry(node).is_none()).collect()
    }

    /// The disk has it already: the base learns more of it once it is seen to be there still. Where an
    /// effect is to bring it to its place, that one tells the base.
    pub(super) fn confirm(
        &mut self,
        id: BaseId,
        entry: &BaseEntry,
        view: &EntryView,
        at: Location,
    ) {
        if entry.nodes != view.nodes && !self.picture.moved.contains_key(&id) {
            let effect = Effect::Confirm { at, expected: entry.fingerprint };
            let then = Then::Learn { id, entry: Box::new(Put::from(view)) };
            self.push(effect, nodes_of(view), then);
        }
    }

    fn want_content(&mut self, view: &EntryView, content: &FileContent, disk: Option<BaseId>) {
        // What is to become the wanted one is no more in the tree: should that be called otherwise before
        // its content comes, it is still to go.
        if let Some(entry) = disk.and_then(|id| self.pairing.base.entry(id)) {
            self.plan.deferred.extend(self.dead_nodes(entry));
        }
        self.plan.wanted.push(Wanted {
            node: view.standing(),
            hash: content.hash,
            size: content.size,
            resembles: disk.and_then(|id| {
                let (spot, name) = self.picture.place(id)?;
                match self.picture.location(spot)? {
                    Location::Tree(path) => Some(path.join(&name)),
                    Location::Parked(..) => None,
                }
            }),
        });
    }

    pub(super) fn source(&self, content: &FileContent) -> Option<PutSource> {
        if content.size == 0 {
            return Some(PutSource::Empty);
        }
        match (self.have)(&content.hash) {
            Availability::Inline(bytes) => Some(PutSource::Inline(bytes)),
            Availability::Staged => Some(PutSource::Staged),
            Availability::Local(path) => {
                let id = self.pairing.base.find(&path);
                id.and_then(|id| self.local(id)).or_else(|| self.any_local(content))
            }
            Availability::Missing => self.any_local(content),
        }
    }

    fn any_local(&self, content: &FileContent) -> Option<PutSource> {
        self.pairing.base.by_hash(content.hash).find_map(|id| self.local(id))
    }

    fn local(&self, id: BaseId) -> Option<PutSource> {
        let (spot, name) = self.picture.place(id)?;
        match self.picture.location(spot)? {
            Location::Tree(path) if !self.consumed.contains(&id) => {
                Some(PutSource::Local(path.join(&name)))
            }
            _ => None,
        }
    }
}
