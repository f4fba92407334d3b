//! R2: the newest edge yields. Where each directory stands, so that there is no cycle.
//!
//! On a batch, the directories whose places changed and those now fallen back are put back to their
//! newest place; a cycle has to go through one of them. From these alone one climbs to the root, and
//! where the climb returns to itself, the member whose current place has the largest stamp falls back to
//! its next older one.

use std::collections::{BTreeMap, BTreeSet};

use super::node::{Directory, Key, Placement};
use super::{Batch, Tree};

impl Tree {
    /// Finds where the directories stand after the batch, and notes those that stand elsewhere now.
    pub(super) fn settle_directories(&mut self, batch: &mut Batch) {
        if batch.directories.is_empty() {
            return;
        }
        let starts: BTreeSet<Key> = batch.directories.union(&self.fallen).copied().collect();
        for &start in &starts {
            if let Some(directory) = self.directory_mut(start) {
                directory.position = 0;
            }
        }
        let mut rooted = BTreeSet::new();
        // Whoever yields need not be one of those that moved.
        let mut resettled = starts.clone();
        for &start in &starts {
            while let Some(cycle) = self.climb(start, &mut rooted) {
                let newest = cycle
                    .into_iter()
                    .max_by_key(|&key| self.standing_stamp(key))
                    .expect("a cycle has members");
                self.directory_mut(newest).expect("only directories hold others").position += 1;
                resettled.insert(newest);
            }
        }
        for start in resettled {
            let Some(directory) = self.directory(start) else { continue };
            let (place, has_fallen) = (directory.place().cloned(), directory.position > 0);
            let before = self.nodes[start.0 as usize].place.as_ref().map(|place| place.stamp);
            if place.as_ref().map(|place| place.stamp) != before
                || batch.placed.contains_key(&start)
            {
                batch.placed.insert(start, place);
            }
            let changed = match has_fallen {
                true => self.fallen.insert(start),
                false => self.fallen.remove(&start),
            };
            // Which places it was kept from may have changed even if it stays where it is.
            if changed || has_fallen {
                batch.touched.insert(start);
            }
        }
    }

    fn standing_stamp(&self, key: Key) -> Option<crate::vocabulary::Stamp> {
        let place = self.directory(key).and_then(Directory::place)?;
        Some(self.interner.stamp(place.stamp))
    }

    /// Climbs from `start`; answers the cycle it ends in, or none, and then all it passed is `rooted`.
    fn climb(&self, start: Key, rooted: &mut BTreeSet<Key>) -> Option<Vec<Key>> {
        let mut path = Vec::new();
        let mut position_in_path = BTreeMap::new();
        let mut here = start;
        while here != Key::ROOT && !rooted.contains(&here) {
            if let Some(&position) = position_in_path.get(&here) {
                return Some(path.split_off(position));
            }
            position_in_path.insert(here, path.len());
            path.push(here);
            match self.directory(here).and_then(Directory::place) {
                Some(Placement { parent, .. }) => here = *parent,
                None => break,
            }
        }
        rooted.extend(path);
        None
    }
}
