//! R6: directories of one name are shown as one, their children united, and so on below.
//!
//! Every directory keeps the index of its own children; a *union* only lists directories shown as one,
//! by the stamps of their places, the standing one first. In a well-formed tree two directories are in
//! one union exactly if they have one name and their parents are the same or in one union. So a union
//! comes or goes at a cost of the smaller side's children: only where both sides have the name can
//! anything change below.

use std::collections::BTreeSet;

use smallvec::SmallVec;

use super::node::{Key, Keys, Placement, SharedName};
use super::{Batch, Tree};
use crate::replica::tree::intern::number;

/// The unions of more than one directory; a free place is an empty list.
#[derive(Clone, Debug, Default)]
pub(super) struct Unions {
    members: Vec<Vec<Key>>,
    free: Vec<u32>,
}

impl Unions {
    fn put(&mut self, members: Vec<Key>) -> u32 {
        match self.free.pop() {
            Some(union) => {
                self.members[union as usize] = members;
                union
            }
            None => {
                self.members.push(members);
                number(self.members.len() - 1)
            }
        }
    }

    fn take(&mut self, union: u32) -> Vec<Key> {
        self.free.push(union);
        std::mem::take(&mut self.members[union as usize])
    }
}

impl Tree {
    /// The directories shown as one with `directory`, itself among them, the standing one first.
    pub(super) fn united(&self, directory: Key) -> Keys {
        match self.directory(directory).and_then(|directory| directory.union) {
            Some(union) => SmallVec::from_slice(&self.unions.members[union as usize]),
            None => SmallVec::from_slice(&[directory]),
        }
    }

    /// A node called `name` in the directory that `directory` is part of, if one is as asked.
    pub(super) fn any_at(
        &self,
        directory: Key,
        name: &[u8],
        is_asked: impl Fn(Key) -> bool,
    ) -> Option<Key> {
        self.united(directory).into_iter().find_map(|member| {
            let keys = self.directory(member)?.children.get(name)?;
            keys.iter().copied().find(|&key| is_asked(key))
        })
    }

    /// All nodes called `name` in the directory that `directory` is part of, in the order of R6:
    /// directories before the rest, older places before newer ones.
    pub(super) fn keys_at(&self, directory: Key, name: &[u8]) -> Keys {
        let mut keys = Keys::new();
        for member in self.united(directory) {
            if let Some(here) = self.directory(member).and_then(|d| d.children.get(name)) {
                keys.extend_from_slice(here);
            }
        }
        if keys.len() > 1 {
            keys.sort_by_key(|&key| (!self.is_directory(key), self.place_stamp(key)));
        }
        keys
    }

    fn place_stamp(&self, key: Key) -> Option<crate::vocabulary::Stamp> {
        let place = self.nodes[key.0 as usize].place.as_ref()?;
        Some(self.interner.stamp(place.stamp))
    }

    fn weight(&self, directories: &[Key]) -> usize {
        directories.iter().filter_map(|&key| self.directory(key)).map(|d| d.children.len()).sum()
    }

    /// Unites a directory that has just come to `place` with those of its name.
    pub(super) fn unite_with_namesakes(&mut self, key: Key, place: &Placement, batch: &mut Batch) {
        if !self.is_directory(key) {
            return;
        }
        let is_other = |other| other != key && self.is_directory(other);
        let Some(namesake) = self.any_at(place.parent, &place.name, is_other) else { return };
        let mut pairs = vec![(key, namesake)];
        while let Some((a, b)) = pairs.pop() {
            let (left, right) = (self.united(a), self.united(b));
            if left.contains(&b) {
                continue;
            }
            for (name, ours, theirs) in self.names_in_both(&left, &right) {
                batch.touched.extend([ours, theirs]);
                let directory = |side: &Keys| {
                    side.iter().find_map(|&member| {
                        let keys = self.directory(member)?.children.get(&name)?;
                        keys.iter().copied().find(|&key| self.is_directory(key))
                    })
                };
                if let (Some(ours), Some(theirs)) = (directory(&left), directory(&right)) {
                    pairs.push((ours, theirs));
                }
            }
            let all = left.into_iter().chain(right).collect();
            self.regroup(&[], all, batch);
        }
    }

    /// Parts these directories, all of one union, from the others in it.
    pub(super) fn part_from_namesakes(&mut self, parting: Keys, batch: &mut Batch) {
        let mut work = vec![parting];
        while let Some(parting) = work.pop() {
            let all = self.united(parting[0]);
            let rest: Keys = all.into_iter().filter(|key| !parting.contains(key)).collect();
            if rest.is_empty() {
                continue;
            }
            for (name, ours, theirs) in self.names_in_both(&parting, &rest) {
                batch.touched.extend([ours, theirs]);
                let directories = |side: &Keys| -> Keys {
                    side.iter()
                        .filter_map(|&member| self.directory(member)?.children.get(&name))
                        .flatten()
                        .copied()
                        .filter(|&key| self.is_directory(key))
                        .collect()
                };
                let (ours, theirs) = (directories(&parting), directories(&rest));
                if !ours.is_empty() && !theirs.is_empty() {
                    work.push(ours);
                }
            }
            self.regroup(&parting, rest, batch);
        }
    }

    /// Names that both sides hold, with a node of each side.
    fn names_in_both(&self, left: &[Key], right: &[Key]) -> Vec<(SharedName, Key, Key)> {
        let (small, large) = match self.weight(left) <= self.weight(right) {
            true => (left, right),
            false => (right, left),
        };
        let mut seen = BTreeSet::new();
        let mut shared = Vec::new();
        for directory in small.iter().filter_map(|&key| self.directory(key)) {
            for (name, keys) in &directory.children {
                let in_large = large
                    .iter()
                    .find_map(|&key| self.directory(key)?.children.get(name)?.first().copied());
                if let Some(other) = in_large
                    && (small.len() == 1 || seen.insert(name.clone()))
                {
                    shared.push((name.clone(), keys[0], other));
                }
            }
        }
        shared
    }

    /// Makes `left` and `right` a union each, out of whatever unions they were in.
    fn regroup(&mut self, left: &[Key], right: Keys, batch: &mut Batch) {
        for &key in left.iter().chain(&right) {
            let standing = self.united(key)[0];
            batch.regrouped.entry(key).or_insert(standing);
        }
        for &key in left.iter().chain(&right) {
            let union = self.directory_mut(key).and_then(|directory| directory.union.take());
            if let Some(union) = union
                && !self.unions.members[union as usize].is_empty()
            {
                self.unions.take(union);
            }
        }
        for side in [left, &right] {
            if side.len() < 2 {
                continue;
            }
            let mut members = side.to_vec();
            members.sort_by_key(|&key| self.place_stamp(key));
            let union = self.unions.put(members.clone());
            for key in members {
                self.directory_mut(key).expect("only directories unite").union = Some(union);
            }
        }
    }
}
