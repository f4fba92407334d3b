//! What a user does to a sibling, as writes (R9): each act is on that version alone, and the others of the
//! conflict keep their names.
//!
//! Whoever does anything to an open version makes a node of it, hidden by the same entry, or elsewhere if
//! that is where it was moved. A version is closed by a register of its own, so that nobody who writes to
//! the path meanwhile is in the way, nor they in his.

use smallvec::SmallVec;

use super::acts::Scribe;
use super::register::{Birth, Content, Place, Register, Value};
use crate::values::{Act, Body, DirectoryIndex, Performed, Seen, SeenNodes};
use crate::vocabulary::{Attributes, NodeId, Stamp};

/// What a sibling consists of.
struct Parts {
    /// Nodes that the path hides, as they were seen.
    hidden: SeenNodes,
    /// What is open of nodes: the node of the view, the node, and the version.
    open: Vec<(NodeId, NodeId, Stamp)>,
    body: Option<Body>,
}

impl Scribe<'_, '_> {
    /// Performs an act on a sibling; none if it is about something else.
    pub(super) fn act_on_sibling(&mut self, act: &Act) -> Option<Performed> {
        let (directory, entry) = act.on()?;
        let first = entry[0].node;
        let made = self.progress.made.get(&first).copied();
        if made.is_none() && self.tree.path_of_sibling(first).is_none() {
            // What stood for a version that is closed by now is nothing: who wrote there has made a file.
            return self.tree.kind(first).is_none().then(Performed::default);
        }
        self.settle_chain(directory);
        if let Act::Move { to, .. } = act {
            self.settle_chain(*to);
        }
        if let Some(made) = made {
            return Some(self.act_on_made(made, act));
        }
        let parts = self.parts(entry);
        Some(match (act, parts.hidden.is_empty()) {
            (Act::Remove { .. }, _) => self.close_sibling(directory, entry, &parts),
            (_, true) => self.make_node(act, &parts),
            (Act::Edit { content, inherits, .. }, false) => {
                self.close_versions(&parts);
                self.rewrite(&parts.hidden, Body::File(*content), inherits)
            }
            (Act::Relink { target, mtime, .. }, false) => {
                self.close_versions(&parts);
                let body = Body::Symlink { target: target.clone(), mtime: *mtime };
                self.rewrite(&parts.hidden, body, &[])
            }
            (Act::Move { to, name, .. }, false) => {
                self.leave(entry, &parts);
                let place = Place { parent: self.parent(*to), name: name.clone() };
                self.relocate(&parts.hidden, &place)
            }
            // What is set on the others is not theirs alone.
            _ => self.set_by(act, &parts.hidden),
        })
    }

    fn parts(&self, entry: &SeenNodes) -> Parts {
        let mut parts = Parts { hidden: SmallVec::new(), open: Vec::new(), body: None };
        for seen in entry {
            match self.tree.version_shown(seen.node) {
                Some((node, version)) => {
                    parts.body.get_or_insert(version.body);
                    parts.open.push((seen.node, node, version.stamp));
                }
                None if self.tree.kind(seen.node).is_some() => parts.hidden.push(seen.clone()),
                None => {}
            }
        }
        parts
    }

    fn close(&mut self, node: NodeId, version: Stamp, made: Option<NodeId>) {
        self.draft.register(node, Register::Version(version), Value::Version(made));
        self.progress.closed.insert((node, version));
    }

    fn close_versions(&mut self, parts: &Parts) {
        for &(_, node, version) in &parts.open {
            self.close(node, version, None);
        }
    }

    fn close_sibling(
        &mut self,
        directory: DirectoryIndex,
        entry: &SeenNodes,
        parts: &Parts,
    ) -> Performed {
        self.leave(entry, parts);
        self.remove(directory, &parts.hidden)
    }

    /// Prepares that a sibling goes: what is open of its nodes stays, its number stays used, and what it shows
    /// of open versions is closed.
    fn leave(&mut self, entry: &SeenNodes, parts: &Parts) {
        let Some(standing) = self.tree.path_of_sibling(entry[0].node) else { return };
        for seen in &parts.hidden {
            self.leave_versions(standing, seen.node);
            // What a hidden node knew of closed versions, the one that stands knows from now on.
            for (version, made) in self.tree.closed_at(seen.node) {
                self.note_closed(standing, version, made);
            }
        }
        if let Some(origin) = self.tree.origin_of_sibling(entry[0].node) {
            self.note_closed(standing, origin, None);
        }
        self.close_versions(parts);
    }

    fn note_closed(&mut self, standing: NodeId, version: Stamp, made: Option<NodeId>) {
        let is_noted = self.progress.closed.contains(&(standing, version));
        if !is_noted && !self.tree.is_closed_at(standing, version) {
            self.close(standing, version, made);
        }
    }

    /// Makes nodes of what is open of a hidden node, in its place, under its name.
    fn leave_versions(&mut self, standing: NodeId, node: NodeId) {
        let Some((_, place)) = self.tree.place(node) else { return };
        let place = self.progress.placed.get(&node).cloned().unwrap_or(place);
        let attributes = self.tree.attributes(node).unwrap_or(Attributes::with_mode(0o644));
        for (body, versions) in self.tree.siblings_by(node) {
            if versions.iter().any(|&version| self.progress.closed.contains(&(node, version))) {
                continue;
            }
            let (made, _) = self.bear(place.clone(), body, attributes.clone());
            for version in versions {
                self.close(node, version, Some(made));
                self.close(standing, version, Some(made));
            }
        }
    }

    fn bear(&mut self, place: Place, body: Body, attributes: Attributes) -> (NodeId, Stamp) {
        let Attributes { mode, owner, xattrs } = attributes;
        self.draft.birth(Birth { place, body, mode, owner, xattrs })
    }

    /// Makes a node of an open version, with what the act does to it.
    fn make_node(&mut self, act: &Act, parts: &Parts) -> Performed {
        let Some(&(shown, node, _)) = parts.open.first() else { return Performed::default() };
        let (Some(mut body), Some((_, mut place))) = (parts.body.clone(), self.tree.place(node))
        else {
            return Performed::default();
        };
        if let Some(placed) = self.progress.placed.get(&node) {
            place = placed.clone();
        }
        let mut attributes = self.tree.attributes(node).unwrap_or(Attributes::with_mode(0o644));
        match act {
            Act::Edit { content, .. } => body = Body::File(*content),
            Act::Relink { target, mtime, .. } => {
                body = Body::Symlink { target: target.clone(), mtime: *mtime };
            }
            Act::Move { to, name, .. } => {
                place = Place { parent: self.parent(*to), name: name.clone() };
            }
            Act::SetMode { mode, .. } => attributes.mode = *mode,
            Act::SetOwner { owner, .. } => attributes.owner = Some(owner.clone()),
            Act::SetXattr { attribute, value, .. } => {
                match value {
                    Some(value) => attributes.xattrs.insert(attribute.clone(), value.clone()),
                    None => attributes.xattrs.remove(attribute),
                };
            }
            Act::Touch { mtime, .. } => body = body.with_mtime(*mtime),
            Act::Create { .. } | Act::Remove { .. } => {}
        }
        let (made, stamp) = self.bear(place, body, attributes);
        if let Act::Edit { inherits, content, .. } = act {
            self.carry_along(made, *content, inherits);
        }
        let standing = self.tree.path_of_sibling(shown);
        for &(shown, node, version) in &parts.open {
            self.progress.made.insert(shown, made);
            self.close(node, version, Some(made));
            if let Some(standing) = standing {
                self.close(standing, version, Some(made));
            }
        }
        let written = SmallVec::from_elem((made, stamp), 1);
        Performed { written, made: Some((made, stamp)), ..Performed::default() }
    }

    /// What was renamed over a sibling brings what is open of it along.
    fn carry_along(
        &mut self,
        made: NodeId,
        content: crate::values::FileContent,
        inherits: &[SeenNodes],
    ) {
        let body = Body::File(content);
        let open = inherits.iter().flat_map(|source| self.open_versions_at(source));
        let open: Vec<_> = open.filter(|version| !version.body.same_bytes(&body)).collect();
        let carried = self.carried_at(made, Vec::new(), open);
        if !carried.is_empty() {
            let content = Value::Content(Content { body, carried });
            self.draft.register(made, Register::Content, content);
        }
    }

    /// A further act of the batch on a version of which it has made a node.
    fn act_on_made(&mut self, made: NodeId, act: &Act) -> Performed {
        let (register, value) = match act {
            Act::Edit { content, .. } => {
                let content = Content { body: Body::File(*content), carried: Vec::new() };
                (Register::Content, Value::Content(content))
            }
            Act::Relink { target, mtime, .. } => {
                let body = Body::Symlink { target: target.clone(), mtime: *mtime };
                (Register::Content, Value::Content(Content { body, carried: Vec::new() }))
            }
            Act::Move { to, name, .. } => {
                let place = Place { parent: self.parent(*to), name: name.clone() };
                (Register::Place, Value::Place(place))
            }
            Act::SetMode { mode, .. } => (Register::Mode, Value::Mode(*mode)),
            Act::SetOwner { owner, .. } => (Register::Owner, Value::Owner(owner.clone())),
            Act::SetXattr { attribute, value, .. } => {
                (Register::Xattr(attribute.clone()), Value::Xattr(value.clone()))
            }
            Act::Touch { mtime, .. } => (Register::Touch, Value::Touch(*mtime)),
            Act::Create { .. } | Act::Remove { .. } => return Performed::default(),
        };
        let stamp = self.draft.register(made, register, value);
        Performed { written: SmallVec::from_elem((made, stamp), 1), ..Performed::default() }
    }

    /// The siblings that a rename of the path takes along, beside the nodes that were seen there: nodes that were
    /// made of versions in this batch.
    pub(super) fn made_of(&self, seen: &Seen) -> Option<NodeId> {
        self.progress.made.get(&seen.node).copied()
    }
}
