//! R9 with `conflicts = siblings`: open versions as files beside the path.
//!
//! What an entry hides and what is open of it are *siblings*, those of equal bytes one. A hidden node is
//! shown as itself, by another name; an open version as a node of the view alone. Where anybody does
//! something to that one, a node is made of it, hidden by the same entry. Both keep the *origin* of the
//! version, a stamp: that of a node's birth, or of the version that the node was made of. Who wrote that,
//! and how many of that master's versions came before it, makes the name: so that it stays when the sibling
//! is written to, and when others are closed. Each number is used once, unless somebody called a file so.
//!
//! Kept up to date at the cost of the entries that a batch touched, and of those whose siblings' names
//! differ from theirs by a number only.

use std::collections::{BTreeMap, BTreeSet};

use super::Tree;
use super::node::{Key, Keys};
use crate::replica::register::Carried;
use crate::replica::sibling_names::{MasterNames, Stem};
use crate::values::{Body, ConflictKind, EntryView, Seen};
use crate::vocabulary::{Name, NodeId, Stamp, TreePath};

/// All siblings that are shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Siblings {
    masters: MasterNames,
    /// By the standing node.
    entries: BTreeMap<Key, Disputed>,
    /// The entry that a node is part of, of those that have siblings.
    entry_of: BTreeMap<Key, Key>,
    /// What is shown as a sibling: of which entry, and which of its slots.
    shown: BTreeMap<NodeId, (Key, usize)>,
    names: BTreeMap<(Key, Name), NodeId>,
    groups: BTreeMap<Group, BTreeSet<Key>>,
    /// Groups some of whose names somebody has given to another node.
    crowded: BTreeSet<Group>,
}

/// What is called the same but for numbers: in which directory, by its standing node.
type Group = (Key, Stem);

/// An entry with siblings.
#[derive(Clone, Debug)]
struct Disputed {
    /// All its nodes.
    keys: Keys,
    slots: Vec<Slot>,
}

/// A number that is used.
#[derive(Clone, Debug)]
struct Slot {
    group: Group,
    origin: Stamp,
    /// Of equal bytes, nodes before versions; none of what has been closed.
    members: Vec<Member>,
    name: Option<Name>,
}

/// What a sibling stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Member {
    /// A node that the entry hides.
    Hidden(Key),
    /// What is open of one of its nodes.
    Open(Key, Carried),
}

impl Tree {
    /// Shows open versions as siblings from now on, or none; answers what differs.
    pub(crate) fn show_siblings(&mut self, masters: Option<MasterNames>) -> BTreeSet<NodeId> {
        if self.siblings.as_ref().map(|siblings| &siblings.masters) == masters.as_ref() {
            return BTreeSet::new();
        }
        let before = self.siblings.take();
        let mut changed: BTreeSet<NodeId> = BTreeSet::new();
        for Disputed { keys, slots } in before.iter().flat_map(|before| before.entries.values()) {
            changed.extend(keys.iter().map(|&key| self.id(key)));
            changed.extend(slots.iter().flat_map(|slot| self.member_ids(slot)));
        }
        if let Some(masters) = masters {
            self.siblings = Some(Box::new(Siblings { masters, ..Siblings::default() }));
            let disputed = self.disputed_entries();
            changed.extend(self.update_siblings(&disputed));
        }
        changed
    }

    /// What is shown as a sibling.
    pub fn shown_siblings(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.siblings.iter().flat_map(|siblings| siblings.shown.keys().copied())
    }

    /// Brings the siblings in line with the entries of these nodes; answers what of them may differ.
    pub(super) fn update_siblings(&mut self, touched: &BTreeSet<Key>) -> BTreeSet<NodeId> {
        let Some(mut siblings) = self.siblings.take() else { return BTreeSet::new() };
        let mut stale = BTreeSet::new();
        let mut dirty = std::mem::take(&mut siblings.crowded);
        for &key in touched {
            let keys = self.entry_keys(key);
            // Another one may stand there by now.
            stale.extend([key].iter().chain(&keys).filter_map(|key| siblings.entry_of.get(key)));
            stale.extend(keys.first().filter(|&&standing| self.is_disputed_entry(standing)));
            dirty.extend(self.group_of(&siblings, key));
        }
        let mut changed = BTreeSet::new();
        for &entry in &stale {
            let Some(Disputed { keys, slots }) = siblings.entries.remove(&entry) else { continue };
            for key in keys {
                changed.insert(self.id(key));
                siblings.entry_of.remove(&key);
            }
            for slot in slots {
                changed.extend(self.member_ids(&slot));
                siblings.forget(&slot, entry, |member| self.member_id(member));
                dirty.insert(slot.group);
            }
        }
        for &entry in &stale {
            let slots = self.slots_of(&siblings.masters, entry);
            if slots.iter().all(|slot| slot.members.is_empty()) {
                continue;
            }
            let keys = self.entry_keys(entry);
            for &key in &keys {
                changed.insert(self.id(key));
                siblings.entry_of.insert(key, entry);
            }
            for (index, slot) in slots.iter().enumerate() {
                changed.extend(self.member_ids(slot));
                let ids = self.member_ids(slot);
                siblings.shown.extend(ids.map(|id| (id, (entry, index))));
                siblings.groups.entry(slot.group.clone()).or_default().insert(entry);
                dirty.insert(slot.group.clone());
            }
            siblings.entries.insert(entry, Disputed { keys, slots });
        }
        for group in dirty {
            self.number(&mut siblings, group, &mut changed);
        }
        self.siblings = Some(siblings);
        changed
    }

    /// The group in which somebody may have taken a name, if it is one of a sibling's.
    fn group_of(&self, siblings: &Siblings, key: Key) -> Option<Group> {
        if siblings.groups.is_empty() {
            return None;
        }
        let place = self.nodes[key.0 as usize].place.as_ref()?;
        let group = (self.united(place.parent)[0], Stem::of_name(&place.name)?);
        siblings.groups.contains_key(&group).then_some(group)
    }

    /// Gives all siblings of a group their numbers, by their origins.
    fn number(&self, siblings: &mut Siblings, group: Group, changed: &mut BTreeSet<NodeId>) {
        let entries = siblings.groups.get(&group).cloned().unwrap_or_default();
        let mut slots: Vec<(Stamp, NodeId, Key, usize)> = Vec::new();
        for entry in entries {
            for (index, slot) in siblings.entries[&entry].slots.iter().enumerate() {
                if slot.group == group {
                    slots.push((slot.origin, self.id(entry), entry, index));
                }
            }
        }
        slots.sort_unstable();
        let (directory, stem) = &group;
        let mut number = 0;
        let mut is_crowded = false;
        let mut taken = Vec::new();
        for (_, _, entry, index) in slots {
            number += 1;
            let entry = siblings.entries.get_mut(&entry).expect("it is in the group");
            let slot = &mut entry.slots[index];
            let Some(first) = slot.members.first() else { continue };
            while !self.keys_at(*directory, stem.numbered(number).as_bytes()).is_empty() {
                is_crowded = true;
                number += 1;
            }
            let (name, first) = (stem.numbered(number), self.member_id(first));
            if slot.name.as_ref() != Some(&name) {
                if let Some(before) = slot.name.replace(name.clone())
                    && siblings.names.get(&(*directory, before.clone())) == Some(&first)
                {
                    siblings.names.remove(&(*directory, before));
                }
                changed.extend(slot.members.iter().map(|member| self.member_id(member)));
            }
            taken.push(((*directory, name), first));
        }
        siblings.names.extend(taken);
        if is_crowded {
            siblings.crowded.insert(group);
        }
    }

    /// The siblings of an entry, and what was closed of it one by one.
    fn slots_of(&self, masters: &MasterNames, entry: Key) -> Vec<Slot> {
        let keys = self.entry_keys(entry);
        let Some(place) = keys.first().and_then(|&key| self.nodes[key.0 as usize].place.as_ref())
        else {
            return Vec::new();
        };
        if keys[0] != entry {
            return Vec::new();
        }
        let directory = self.united(place.parent)[0];
        let group = |origin: Stamp| (directory, Stem::new(&place.name, origin.writer, masters));
        let mut used = BTreeSet::new();
        let mut slots: Vec<Slot> = Vec::new();
        for members in self.classes(&keys) {
            let origin = match &members[0] {
                Member::Hidden(key) => self.origin(&keys, *key),
                Member::Open(_, version) => version.stamp,
            };
            used.insert(origin);
            slots.push(Slot { group: group(origin), origin, members, name: None });
        }
        let closed = keys.iter().filter_map(|&key| self.nodes[key.0 as usize].closed());
        let closed: BTreeSet<Stamp> = closed.flat_map(|closed| closed.keys().copied()).collect();
        for &origin in closed.difference(&used) {
            slots.push(Slot { group: group(origin), origin, members: Vec::new(), name: None });
        }
        slots
    }

    /// What is hidden and open at an entry, other than what stands there, those of equal bytes together.
    fn classes(&self, keys: &Keys) -> Vec<Vec<Member>> {
        let plain = |body: Body| body.with_mtime(Default::default());
        let standing = self.nodes[keys[0].0 as usize].body().map(plain);
        let files = || keys.iter().copied().filter(|&key| !self.is_directory(key));
        let hidden = files().skip_while(|&key| key == keys[0]);
        let hidden = hidden.filter_map(|key| {
            Some((plain(self.nodes[key.0 as usize].body()?), Member::Hidden(key)))
        });
        let mut open: Vec<(Key, Carried)> = files()
            .flat_map(|key| self.all_open(key).into_iter().map(move |version| (key, version)))
            .collect();
        open.sort_by_cached_key(|(key, version)| {
            (version.stamp, self.id(*key), version.body.clone())
        });
        open.dedup_by_key(|(key, version)| (version.stamp, *key));
        let open = open
            .into_iter()
            .map(|(key, version)| (plain(version.body.clone()), Member::Open(key, version)));
        let mut classes: Vec<(Body, Vec<Member>)> = Vec::new();
        for (body, member) in hidden.chain(open) {
            if standing.as_ref() == Some(&body) {
                continue;
            }
            match classes.iter_mut().find(|(other, _)| *other == body) {
                Some((_, members)) => members.push(member),
                None => classes.push((body, vec![member])),
            }
        }
        classes.into_iter().map(|(_, members)| members).collect()
    }

    /// What a hidden node goes back to: the version that it was made of, or its birth. Of several that were made
    /// of one version, only the first goes back to that, whether it is still there or not.
    fn origin(&self, keys: &Keys, hidden: Key) -> Stamp {
        let mut made_of: BTreeMap<Stamp, Vec<NodeId>> = BTreeMap::new();
        let closed = keys.iter().filter_map(|&key| self.nodes[key.0 as usize].closed()).flatten();
        for (&version, made) in closed {
            made_of.entry(version).or_default().extend(made);
        }
        let is_its = |made: &Vec<NodeId>| self.first_born(made) == Some(self.id(hidden));
        let version =
            made_of.into_iter().find(|(_, made)| is_its(made)).map(|(version, _)| version);
        version.unwrap_or_else(|| self.interner.stamp(self.nodes[hidden.0 as usize].born))
    }

    fn first_born(&self, nodes: &[NodeId]) -> Option<NodeId> {
        let keys = nodes.iter().filter_map(|&node| self.key(node));
        let first = keys.min_by_key(|key| self.interner.stamp(self.nodes[key.0 as usize].born));
        first.map(|key| self.id(key))
    }

    fn member_id(&self, member: &Member) -> NodeId {
        match member {
            Member::Hidden(key) => self.id(*key),
            Member::Open(key, version) => NodeId::of_version(self.id(*key), version.stamp),
        }
    }

    fn member_ids<'a>(&'a self, slot: &'a Slot) -> impl Iterator<Item = NodeId> + 'a {
        slot.members.iter().map(|member| self.member_id(member))
    }

    fn is_disputed_entry(&self, standing: Key) -> bool {
        self.is_open(standing, ConflictKind::Edited)
            || self.is_open(standing, ConflictKind::SameName)
    }

    fn slot(&self, node: NodeId) -> Option<(Key, &Slot)> {
        let siblings = self.siblings.as_ref()?;
        let &(entry, index) = siblings.shown.get(&node)?;
        Some((entry, &siblings.entries[&entry].slots[index]))
    }
}

impl Siblings {
    fn forget(&mut self, slot: &Slot, entry: Key, id: impl Fn(&Member) -> NodeId) {
        let ids: Vec<NodeId> = slot.members.iter().map(id).collect();
        for id in &ids {
            self.shown.remove(id);
        }
        let place = slot.name.clone().map(|name| (slot.group.0, name));
        if let Some(place) = place.filter(|place| self.names.get(place) == ids.first()) {
            self.names.remove(&place);
        }
        if let Some(entries) = self.groups.get_mut(&slot.group) {
            entries.remove(&entry);
            if entries.is_empty() {
                self.groups.remove(&slot.group);
            }
        }
    }
}

/// The view.
impl Tree {
    /// The entry of a sibling.
    pub(super) fn sibling_view(&self, node: NodeId) -> Option<EntryView> {
        let (_, slot) = self.slot(node)?;
        let (body, shared) = match slot.members.first()? {
            Member::Hidden(key) => (self.shown_body(*key)?, *key),
            Member::Open(key, version) => (version.body.clone(), *key),
        };
        let seen = |member: &Member| match member {
            Member::Hidden(key) => self.seen_of(*key),
            Member::Open(_, version) => {
                let contents = smallvec::smallvec![version.stamp];
                Seen { node: self.member_id(member), places: Default::default(), contents }
            }
        };
        Some(EntryView {
            nodes: slot.members.iter().map(seen).collect(),
            parent: self.id(slot.group.0),
            name: slot.name.clone()?,
            body,
            attributes: self.attributes_of(shared),
        })
    }

    /// The nodes of an entry but those that are shown beside it.
    pub(super) fn without_siblings(&self, mut keys: Keys) -> Keys {
        if let Some(siblings) = &self.siblings {
            keys.retain(|key| !siblings.shown.contains_key(&self.id(*key)));
        }
        keys
    }

    /// The sibling of this name.
    pub(super) fn sibling_called(&self, directory: Key, name: &Name) -> Option<NodeId> {
        let names = &self.siblings.as_ref()?.names;
        if names.is_empty() {
            return None;
        }
        names.get(&(self.united(directory)[0], name.clone())).copied()
    }

    /// All siblings in a directory, by name.
    pub(super) fn siblings_in(&self, directory: Key) -> Vec<(Name, NodeId)> {
        let Some(siblings) = &self.siblings else { return Vec::new() };
        if siblings.names.is_empty() {
            return Vec::new();
        }
        let directory = self.united(directory)[0];
        let first = Name::new(*b"\x01").expect("a byte that names may hold");
        let from = siblings.names.range((directory, first)..);
        let here = from.take_while(|((other, _), _)| *other == directory);
        here.map(|((_, name), &id)| (name.clone(), id)).collect()
    }

    /// The siblings of the entry where this node stands; none of what is a sibling itself.
    #[must_use]
    pub fn siblings_of(&self, node: NodeId) -> Vec<NodeId> {
        let slots = || {
            let siblings = self.siblings.as_ref()?;
            let entry = siblings.entry_of.get(&self.key(node)?)?;
            (!siblings.shown.contains_key(&node)).then(|| &siblings.entries[entry].slots)
        };
        slots().into_iter().flatten().flat_map(|slot| self.member_ids(slot)).collect()
    }

    /// The node that stands at the path which this is a sibling of; none if it is no sibling.
    #[must_use]
    pub fn path_of_sibling(&self, node: NodeId) -> Option<NodeId> {
        self.slot(node).map(|(entry, _)| self.id(entry))
    }

    /// The sibling by which a version of an entry is shown: one that holds these bytes.
    #[must_use]
    pub fn sibling_with(&self, node: NodeId, body: &Body) -> Option<NodeId> {
        let standing = self.path_of_sibling(node).unwrap_or(node);
        let is_it = |view: EntryView| view.body.same_bytes(body);
        let mut siblings = self.siblings_of(standing).into_iter();
        siblings.find(|&sibling| self.sibling_view(sibling).is_some_and(is_it))
    }

    /// What a node of the view stands for: an open version of this node; none of what is a node itself.
    #[must_use]
    pub fn version_shown(&self, node: NodeId) -> Option<(NodeId, Carried)> {
        let (_, slot) = self.slot(node)?;
        slot.members.iter().find_map(|member| match member {
            Member::Open(key, version) if self.member_id(member) == node => {
                Some((self.id(*key), version.clone()))
            }
            _ => None,
        })
    }

    /// The siblings that are there for what is open of a hidden node: what they hold, and which versions of the
    /// node these are. They would go with it.
    #[must_use]
    pub fn siblings_by(&self, hidden: NodeId) -> Vec<(Body, Vec<Stamp>)> {
        let (Some(key), Some((entry, _))) = (self.key(hidden), self.slot(hidden)) else {
            return Vec::new();
        };
        let siblings = self.siblings.as_ref().expect("there is a slot");
        let slots = siblings.entries[&entry].slots.iter();
        let theirs = slots.filter_map(|slot| match slot.members.first()? {
            Member::Open(first, version) if *first == key => {
                let versions = slot.members.iter().filter_map(|member| match member {
                    Member::Open(node, version) => (*node == key).then_some(version.stamp),
                    Member::Hidden(_) => None,
                });
                Some((version.body.clone(), versions.collect()))
            }
            _ => None,
        });
        theirs.collect()
    }

    /// What a sibling's name comes from, and the number that it uses up.
    #[must_use]
    pub fn origin_of_sibling(&self, node: NodeId) -> Option<Stamp> {
        self.slot(node).map(|(_, slot)| slot.origin)
    }

    /// The versions that were closed by themselves at this node, and the first of the nodes that were made of
    /// each. Numbers and names come from them.
    #[must_use]
    pub fn closed_at(&self, node: NodeId) -> Vec<(Stamp, Option<NodeId>)> {
        let closed = self.key(node).and_then(|key| self.nodes[key.0 as usize].closed());
        let first = |(&version, made): (&Stamp, &Vec<NodeId>)| (version, self.first_born(made));
        closed.into_iter().flatten().map(first).collect()
    }

    /// Whether a version has been closed by itself at this node, so that its number is used up there.
    #[must_use]
    pub fn is_closed_at(&self, node: NodeId, version: Stamp) -> bool {
        self.key(node).is_some_and(|key| self.is_closed(key, version))
    }

    /// The path where a sibling's entry stands, by names; for a sibling itself its own.
    pub(super) fn sibling_path(&self, node: NodeId) -> Option<TreePath> {
        let (_, slot) = self.slot(node)?;
        Some(self.path_of(slot.group.0)?.join(slot.name.as_ref()?))
    }

    fn disputed_entries(&self) -> BTreeSet<Key> {
        let kinds = [ConflictKind::Edited, ConflictKind::SameName];
        self.open_conflicts().filter(|(_, kind)| kinds.contains(kind)).map(|(key, _)| key).collect()
    }
}
