//! Which conflicts are open: what several wrote and nobody has chosen from (R6, R7, R9), and what one
//! deleted and another had changed (R3).

use std::collections::BTreeMap;

use super::{Naive, Op};
use crate::replica::register::{Carried, Deletion, Register, Value};
use crate::values::{Body, Conflict, ConflictKind, Version, VersionOf};
use crate::vocabulary::{Kind, NodeId, Stamp, TreePath};

impl Naive {
    pub(super) fn conflicts(&self) -> Vec<Conflict> {
        let mut conflicts = vec![];
        for (path, nodes) in &self.entries {
            let mut add = |kind, versions: Vec<Version>| {
                if versions.len() > 1 {
                    conflicts
                        .push((versions[0].node, Conflict { path: path.clone(), kind, versions }));
                }
            };
            add(ConflictKind::Edited, self.edited(nodes[0]));
            add(ConflictKind::SameName, self.same_name(nodes));
            add(ConflictKind::DeletedAndEdited, self.deleted_and_edited(nodes, path));
            for &node in nodes {
                let (places, position) = &self.stands[&node];
                let current = self.register(node, Register::Place);
                let is_current = |op: &&Op| current.iter().any(|other| other.stamp == op.stamp);
                let stands = &places[*position];
                let skipped: Vec<&Op> = places[..*position].iter().filter(is_current).collect();
                let mut others: Vec<&Op> = current.iter().rev().collect();
                others.retain(|op| op.value != stands.value && op.stamp != stands.stamp);
                others.retain(|op| !skipped.iter().any(|other| other.stamp == op.stamp));
                add(ConflictKind::MovedTwice, self.moved(node, path, stands, others));
                add(ConflictKind::MovedIntoEachOther, self.moved(node, path, stands, skipped));
            }
        }
        conflicts.sort_by(|(a, c), (b, d)| (&c.path, c.kind, a).cmp(&(&d.path, d.kind, b)));
        conflicts.into_iter().map(|(_, conflict)| conflict).collect()
    }

    fn version(&self, node: NodeId, stamp: Stamp, body: Body) -> Version {
        let (of, mode) = (VersionOf::Content, self.attributes(node).mode);
        let (master, written_ms, elsewhere) = (None, None, None);
        Version { node, stamp, master, written_ms, of, body, mode, stands: false, elsewhere }
    }

    fn standing(&self, node: NodeId) -> Version {
        let stamp = match self.kinds[&node] {
            Kind::Directory => {
                self.all[&(node, Register::Place)].iter().map(|op| op.stamp).min().unwrap()
            }
            _ => self.contents(node).stamp,
        };
        Version { stands: true, ..self.version(node, stamp, self.body(node)) }
    }

    fn edited(&self, node: NodeId) -> Vec<Version> {
        if self.kinds[&node] == Kind::Directory {
            return vec![];
        }
        let open = self.contents(node).open.into_iter();
        let open = open.map(|open| self.version(node, open.stamp, open.body));
        [self.standing(node)].into_iter().chain(open).collect()
    }

    fn same_name(&self, nodes: &[NodeId]) -> Vec<Version> {
        let standing = self.standing(nodes[0]);
        let mut owner = BTreeMap::new();
        let mut hidden = vec![];
        for &node in &nodes[1..] {
            if self.kinds[&node] != Kind::Directory {
                let contents = self.contents(node);
                let own = Carried { stamp: contents.stamp, body: self.body(node) };
                for version in [own].into_iter().chain(contents.open) {
                    owner.entry(version.stamp).or_insert(node);
                    hidden.push(version);
                }
            }
        }
        let hidden = distinct(hidden, &standing.body).into_iter();
        let hidden = hidden.map(|v| self.version(owner[&v.stamp], v.stamp, v.body));
        [standing].into_iter().chain(hidden).collect()
    }

    /// R3. Of files that share a name the choice is another one; of what a moved directory holds (R4), none.
    fn deleted_and_edited(&self, nodes: &[NodeId], path: &TreePath) -> Vec<Version> {
        let mut lost: Vec<(NodeId, &Op, &Deletion)> = vec![];
        for &node in nodes {
            if nodes.len() > 1 && self.kinds[&node] != Kind::Directory || self.dead.contains(&node)
            {
                continue;
            }
            lost.extend(self.register(node, Register::Deleted).iter().filter_map(|op| {
                match &op.value {
                    Value::Deleted(Some(deletion)) if !self.is_void(op, deletion) => {
                        Some((node, op, deletion))
                    }
                    _ => None,
                }
            }));
        }
        lost.sort_by_key(|(_, op, _)| std::cmp::Reverse(op.stamp));
        let (standing, body) = (self.standing(nodes[0]), self.body(nodes[0]));
        let edited = self.kinds[&nodes[0]] != Kind::Directory
            && !lost.iter().any(|(_, _, deletion)| deletion.observed.contains(&standing.stamp));
        let (places, position) = &self.stands[&nodes[0]];
        let standing = match edited {
            true => standing,
            false => self.moved(nodes[0], path, &places[*position], vec![]).remove(0),
        };
        let deletions = lost.iter().map(|(node, op, _)| Version {
            of: VersionOf::Deletion,
            ..self.version(*node, op.stamp, body.clone())
        });
        [standing].into_iter().chain(deletions).collect()
    }

    fn moved(&self, node: NodeId, path: &TreePath, stands: &Op, others: Vec<&Op>) -> Vec<Version> {
        let version = |op: &Op, elsewhere| Version {
            elsewhere,
            of: VersionOf::Place,
            ..self.version(node, op.stamp, self.body(node))
        };
        let first = Version { stands: true, ..version(stands, Some(path.clone())) };
        let others = others.into_iter().map(|op| {
            let place = Self::place_of(op).1;
            let directory = match place.parent == NodeId::ROOT {
                true => Some(TreePath::root()),
                false => self
                    .entries
                    .iter()
                    .find(|(_, nodes)| nodes.contains(&place.parent))
                    .map(|(path, _)| path.clone()),
            };
            version(op, directory.map(|directory| directory.join(&place.name)))
        });
        [first].into_iter().chain(others).collect()
    }
}

/// Each of other bytes than what stands, each bytes once, with the largest stamp; by falling stamp.
pub(super) fn distinct(mut versions: Vec<Carried>, standing: &Body) -> Vec<Carried> {
    versions.sort_by_key(|version| std::cmp::Reverse(version.stamp));
    let mut kept: Vec<Carried> = vec![];
    for version in versions {
        let known = kept.iter().any(|other| other.body.same_bytes(&version.body));
        if !known && !version.body.same_bytes(standing) {
            kept.push(version);
        }
    }
    kept
}
