//! R9 with siblings: what each entry shows beside its path, from scratch.

use std::collections::BTreeMap;

use super::Naive;
use crate::replica::register::{Register, Value};
use crate::replica::sibling_names::Stem;
use crate::values::{Body, EntryView, Seen};
use crate::vocabulary::{Kind, NodeId, Stamp, TreePath};

/// What a sibling stands for: what is seen of it, whose attributes it has, and what it holds.
type Member = (Seen, NodeId, Body);

/// All members of equal bytes; none of what was closed.
struct Slot {
    directory: TreePath,
    stem: Stem,
    origin: Stamp,
    standing: NodeId,
    members: Vec<Member>,
}

impl Naive {
    /// Versions of a node that were closed one by one, and what was made of them.
    pub(super) fn closed(&self, node: NodeId) -> BTreeMap<Stamp, Vec<NodeId>> {
        let registers = self.current.iter().filter_map(|((other, register), ops)| match register {
            Register::Version(version) if *other == node => Some((*version, ops)),
            _ => None,
        });
        let made = registers.map(|(version, ops)| {
            let made = ops.iter().filter_map(|op| match op.value {
                Value::Version(made) => made,
                _ => panic!("{op:?} is no version"),
            });
            (version, made.collect())
        });
        made.collect()
    }

    fn birth(&self, node: NodeId) -> Stamp {
        let places = &self.all[&(node, Register::Place)];
        let mut stamps = places.iter().map(|op| op.stamp);
        stamps.find(|&stamp| NodeId::born_at(stamp) == node).expect("born at a place")
    }

    fn origin(&self, nodes: &[NodeId], hidden: NodeId) -> Stamp {
        let mut made_of: BTreeMap<Stamp, Vec<NodeId>> = BTreeMap::new();
        for &node in nodes {
            for (version, made) in self.closed(node) {
                made_of.entry(version).or_default().extend(made);
            }
        }
        made_of
            .retain(|_, made| made.iter().min_by_key(|made| self.birth(**made)) == Some(&hidden));
        made_of.into_keys().next().unwrap_or_else(|| self.birth(hidden))
    }

    fn classes(&self, nodes: &[NodeId]) -> Vec<Vec<Member>> {
        let standing = self.body(nodes[0]);
        let files: Vec<NodeId> =
            nodes.iter().copied().filter(|node| self.kinds[node] != Kind::Directory).collect();
        let mut members: Vec<Member> = vec![];
        for &node in files.iter().filter(|&&node| node != nodes[0]) {
            members.push((self.seen(node), node, self.body(node)));
        }
        let mut open = vec![];
        for &node in &files {
            let stands = self.contents(node).body;
            let others = self.all_open(node).into_iter();
            let others = others.filter(|version| !version.body.same_bytes(&stands));
            open.extend(others.map(|version| (version, node)));
        }
        open.sort_by_key(|(version, node)| (version.stamp, *node, version.body.clone()));
        open.dedup_by_key(|(version, node)| (version.stamp, *node));
        for (version, node) in open {
            let contents = [version.stamp].into_iter().collect();
            let id = NodeId::of_version(node, version.stamp);
            let seen = Seen { node: id, places: Default::default(), contents };
            members.push((seen, node, version.body));
        }
        let mut classes: Vec<Vec<Member>> = vec![];
        for member in members {
            if member.2.same_bytes(&standing) {
                continue;
            }
            match classes.iter_mut().find(|class| class[0].2.same_bytes(&member.2)) {
                Some(class) => class.push(member),
                None => classes.push(vec![member]),
            }
        }
        classes
    }

    fn slots(&self) -> Vec<Slot> {
        let Some(masters) = &self.masters else { return vec![] };
        let mut slots = vec![];
        for (path, nodes) in &self.entries {
            let classes = self.classes(nodes);
            if classes.is_empty() {
                continue;
            }
            let (directory, name) = path.split_last().expect("not the root");
            let mut used = vec![];
            let mut add = |origin: Stamp, members: Vec<Member>| {
                let stem = Stem::new(name.as_bytes(), origin.writer, masters);
                let (directory, standing) = (directory.clone(), nodes[0]);
                slots.push(Slot { directory, stem, origin, standing, members });
            };
            for class in classes {
                let seen = &class[0].0;
                let origin = match nodes.contains(&seen.node) {
                    true => self.origin(nodes, seen.node),
                    false => seen.contents[0],
                };
                used.push(origin);
                add(origin, class);
            }
            let mut closed: Vec<Stamp> =
                nodes.iter().flat_map(|&node| self.closed(node).into_keys()).collect();
            closed.sort_unstable();
            closed.dedup();
            closed.retain(|origin| !used.contains(origin));
            closed.into_iter().for_each(|origin| add(origin, vec![]));
        }
        slots.sort_by_key(|slot| {
            (slot.directory.clone(), slot.stem.clone(), slot.origin, slot.standing)
        });
        slots
    }

    /// Adds the siblings, and takes from the entries what is one now.
    pub(super) fn show_siblings(&self, entries: &mut BTreeMap<TreePath, EntryView>) {
        let slots = self.slots();
        let mut number = 0;
        for (index, slot) in slots.iter().enumerate() {
            let is_same =
                |before: &Slot| (&before.directory, &before.stem) == (&slot.directory, &slot.stem);
            number = match index > 0 && is_same(&slots[index - 1]) {
                true => number + 1,
                false => 1,
            };
            let Some((_, node, body)) = slot.members.first() else { continue };
            while self.entries.contains_key(&slot.directory.join(&slot.stem.numbered(number))) {
                number += 1;
            }
            let name = slot.stem.numbered(number);
            let parent = match slot.directory.is_root() {
                true => NodeId::ROOT,
                false => self.entries[&slot.directory][0],
            };
            let view = EntryView {
                nodes: slot.members.iter().map(|(seen, ..)| seen.clone()).collect(),
                parent,
                name: name.clone(),
                body: body.clone(),
                attributes: self.attributes(*node),
            };
            for entry in entries.values_mut().filter(|entry| entry.standing() == slot.standing) {
                entry.nodes.retain(|seen| !view.nodes.iter().any(|own| own.node == seen.node));
            }
            let before = entries.insert(slot.directory.join(&name), view);
            assert!(before.is_none(), "R1: {name} twice");
        }
    }
}
