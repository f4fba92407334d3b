//! What users do to siblings, as changes (R9): each act is on that version alone.

use super::history::{Acting, Deed, Draft};
use crate::replica::register::{Birth, Carried, Place, Register, Value, Write};
use crate::values::{Body, TreeView};
use crate::vocabulary::{Mode, NodeId, Owner, Stamp, Timestamp, TreePath};

impl Acting<'_> {
    /// Does a deed that is about a sibling; answers the bytes that were ended. None of another deed.
    pub(super) fn act_on_sibling(&self, draft: &mut Draft, deed: &Deed) -> Option<Vec<Body>> {
        match deed {
            Deed::Create(..) => None,
            Deed::MoveOver(from, to) => match (self.is_sibling(from), self.is_sibling(to)) {
                (false, false) => None,
                (true, true) => {
                    let body = self.body(from);
                    let ended = self.rewrite(draft, to, body);
                    self.close_sibling(draft, from);
                    Some(ended)
                }
                (true, false) => {
                    let body = self.body(from);
                    let ended = self.edit(draft, to, &body);
                    self.close_sibling(draft, from);
                    Some(ended)
                }
                (false, true) => Some(self.rename_path_over(draft, from, to)),
            },
            Deed::Edit(path, body) if self.is_sibling(path) => {
                Some(self.rewrite(draft, path, body.clone()))
            }
            Deed::Remove(path) if self.is_sibling(path) => {
                let body = self.body(path);
                self.close_sibling(draft, path);
                Some(vec![body])
            }
            Deed::Move(path, to) if self.is_sibling(path) => {
                self.rename_sibling(draft, path, to);
                Some(vec![])
            }
            Deed::Close(path) if self.is_sibling(path) => Some(vec![]),
            Deed::Chmod(path, bits) if self.is_sibling(path) => {
                Some(self.adjust(draft, path, Register::Mode, Value::Mode(Mode::new(*bits))))
            }
            Deed::Chown(path, uid) if self.is_sibling(path) => {
                let (user, group) = (uid.to_string().into(), String::new().into());
                let owner = Owner { user, uid: *uid, group, gid: 0 };
                Some(self.adjust(draft, path, Register::Owner, Value::Owner(owner)))
            }
            Deed::Touch(path, seconds) if self.is_sibling(path) => {
                let mtime = Timestamp { seconds: *seconds, nanos: 0 };
                Some(self.adjust(draft, path, Register::Touch, Value::Touch(mtime)))
            }
            Deed::SetXattr(path, value) if self.is_sibling(path) => {
                let value = Value::Xattr(value.map(|value| Box::from([value])));
                Some(self.adjust(draft, path, Register::Xattr((*b"user.x").into()), value))
            }
            _ => None,
        }
    }

    pub(super) fn is_sibling(&self, path: &TreePath) -> bool {
        self.tree.path_of_sibling(self.entries[path][0]).is_some()
    }

    fn body(&self, path: &TreePath) -> Body {
        self.tree.entry(self.entries[path][0]).unwrap().body
    }

    /// The real nodes of a sibling, then the versions that are open of nodes.
    fn parts(&self, path: &TreePath) -> (Vec<NodeId>, Vec<(NodeId, Stamp)>) {
        let (mut real, mut open) = (vec![], vec![]);
        for &node in &self.entries[path] {
            match self.tree.version_shown(node) {
                Some((node, version)) => open.push((node, version.stamp)),
                None => real.push(node),
            }
        }
        (real, open)
    }

    fn standing(&self, path: &TreePath) -> NodeId {
        self.tree.path_of_sibling(self.entries[path][0]).unwrap()
    }

    fn close_version(draft: &mut Draft, (node, version): (NodeId, Stamp), made: Option<NodeId>) {
        draft.put(node, Register::Version(version), Value::Version(made));
    }

    fn bear(&self, draft: &mut Draft, path: &TreePath, place: Place, body: Body) -> NodeId {
        let attributes = self.tree.entry(self.entries[path][0]).unwrap().attributes;
        let (mode, owner, xattrs) = (attributes.mode, attributes.owner, attributes.xattrs);
        let birth = Birth { place, body, mode, owner, xattrs };
        draft.writes.push((NodeId::ROOT, Write::Birth(birth)));
        NodeId::born_at(draft.last())
    }

    /// Makes a node of an open version, hidden by the same entry unless it is to be elsewhere.
    fn make(&self, draft: &mut Draft, path: &TreePath, body: Body, to: Option<Place>) -> NodeId {
        let (_, open) = self.parts(path);
        let place = to.unwrap_or_else(|| self.tree.place(open[0].0).unwrap().1);
        let made = self.bear(draft, path, place, body);
        for &(node, version) in &open {
            Self::close_version(draft, (node, version), Some(made));
            Self::close_version(draft, (self.standing(path), version), Some(made));
        }
        made
    }

    fn rewrite(&self, draft: &mut Draft, path: &TreePath, body: Body) -> Vec<Body> {
        self.settle_above(draft, path);
        let before = self.body(path);
        let (real, open) = self.parts(path);
        if real.is_empty() {
            self.make(draft, path, body, None);
            return vec![before];
        }
        let carried = self.open(real[0]);
        self.write(draft, real[0], body, carried);
        self.absorb_equals(draft, &real, &before);
        open.into_iter().for_each(|version| Self::close_version(draft, version, None));
        vec![before]
    }

    /// What is open of a hidden node that goes stays where it is, hidden by the same entry.
    fn leave_versions(&self, draft: &mut Draft, path: &TreePath, node: NodeId) {
        let standing = self.standing(path);
        let place = self.tree.place(node).unwrap().1;
        for (body, versions) in self.tree.siblings_by(node) {
            let closing = (node, Register::Version(versions[0]));
            if draft.writes.iter().any(|(_, write)| match write {
                Write::Register(node, register, _) => (*node, register) == (closing.0, &closing.1),
                Write::Birth(_) => false,
            }) {
                continue;
            }
            let attributes = self.tree.entry(node).unwrap().attributes;
            let (mode, owner, xattrs) = (attributes.mode, attributes.owner, attributes.xattrs);
            let birth = Birth { place: place.clone(), body, mode, owner, xattrs };
            draft.writes.push((NodeId::ROOT, Write::Birth(birth)));
            let made = NodeId::born_at(draft.last());
            for version in versions {
                Self::close_version(draft, (node, version), Some(made));
                Self::close_version(draft, (standing, version), Some(made));
            }
        }
    }

    /// The number of a sibling stays used.
    fn use_up(&self, draft: &mut Draft, path: &TreePath) {
        let (standing, first) = (self.standing(path), self.entries[path][0]);
        // What a hidden node knew of closed versions, the one that stands knows from now on.
        for (version, made) in self.parts(path).0.iter().flat_map(|&node| self.tree.closed_at(node))
        {
            if !self.tree.is_closed_at(standing, version) {
                Self::close_version(draft, (standing, version), made);
            }
        }
        let origin = self.tree.origin_of_sibling(first).unwrap();
        if !self.tree.is_closed_at(standing, origin) {
            Self::close_version(draft, (standing, origin), None);
        }
    }

    fn close_sibling(&self, draft: &mut Draft, path: &TreePath) {
        self.settle_above(draft, path);
        let (real, open) = self.parts(path);
        for &node in &real {
            self.leave_versions(draft, path, node);
            self.delete(draft, node);
        }
        self.use_up(draft, path);
        open.into_iter().for_each(|version| Self::close_version(draft, version, None));
    }

    fn rename_sibling(&self, draft: &mut Draft, path: &TreePath, to: &TreePath) {
        self.settle_above(draft, path);
        self.settle_above(draft, to);
        let (real, open) = self.parts(path);
        let place = self.place_at(to);
        if real.is_empty() {
            let body = self.body(path);
            self.make(draft, path, body, Some(place));
            self.use_up(draft, path);
            return;
        }
        for &node in &real {
            self.leave_versions(draft, path, node);
            draft.put(node, Register::Place, Value::Place(place.clone()));
        }
        self.use_up(draft, path);
        open.into_iter().for_each(|version| Self::close_version(draft, version, None));
    }

    fn adjust(
        &self,
        draft: &mut Draft,
        path: &TreePath,
        register: Register,
        value: Value,
    ) -> Vec<Body> {
        self.settle_above(draft, path);
        let (mut real, _) = self.parts(path);
        if real.is_empty() {
            real.push(self.make(draft, path, self.body(path), None));
        }
        for node in real {
            draft.put(node, register.clone(), value.clone());
        }
        vec![]
    }

    /// A path's file takes a sibling's place, with what is hidden and open there. Where that is the path of the
    /// sibling, this is none any more: nothing is left that it could be one of.
    fn rename_path_over(&self, draft: &mut Draft, from: &TreePath, to: &TreePath) -> Vec<Body> {
        self.settle_above(draft, from);
        self.settle_above(draft, to);
        let (source, body, ended) = (self.members(from), self.body(from), self.body(to));
        let (real, open) = self.parts(to);
        let place = source.contains(&self.standing(to)).then(|| self.place_at(to));
        let mut inherited = vec![];
        for &node in source.iter().filter(|&node| !real.contains(node)) {
            let contents = self.tree.contents(node).unwrap();
            inherited.extend((node != source[0]).then_some(contents.body));
            inherited.extend(contents.open.into_iter().map(|version| version.body));
        }
        inherited.retain(|other| !other.same_bytes(&ended) && !other.same_bytes(&body));
        let (target, mut carried) = match real.first() {
            Some(&target) => {
                if let Some(place) = place {
                    draft.put(target, Register::Place, Value::Place(place));
                }
                (target, self.open(target))
            }
            None => (self.make(draft, to, body.clone(), place), vec![]),
        };
        if !real.is_empty() {
            open.into_iter().for_each(|version| Self::close_version(draft, version, None));
        }
        for body in inherited {
            let stamp = draft.stamp(target, &body);
            carried.push(Carried { stamp, body });
        }
        self.write(draft, target, body, carried);
        for node in source.into_iter().filter(|&node| node != target) {
            self.delete(draft, node);
        }
        vec![ended]
    }
}
