//! R3 and R5: who lives, and so is among the children of the directory where it stands.
//!
//! A node is attached if it is not dead or has an attached child. All that moves is detached first and
//! attached at its new place afterwards: there is never a cycle in between.

use smallvec::smallvec;

use super::node::{Key, Removal};
use super::{Batch, Tree};

impl Tree {
    /// Brings the attached nodes in line with the places and deletes that the batch noted.
    pub(super) fn reattach(&mut self, batch: &mut Batch) {
        let placed = std::mem::take(&mut batch.placed);
        for &key in placed.keys() {
            if self.nodes[key.0 as usize].is_attached {
                self.detach(key, batch);
            }
        }
        let mut unsettled = std::mem::take(&mut batch.mortal);
        for (key, place) in placed {
            self.nodes[key.0 as usize].place = place;
            unsettled.insert(key);
        }
        for &key in &unsettled {
            self.restand(key, batch);
            let is_dead = self.is_covered(key);
            let node = &mut self.nodes[key.0 as usize];
            if node.is_dead != is_dead {
                node.is_dead = is_dead;
                batch.touched.insert(key);
            }
        }
        for &key in &unsettled {
            if self.nodes[key.0 as usize].is_attached && !self.is_wanted(key) {
                self.detach(key, batch);
            }
        }
        for &key in &unsettled {
            if !self.nodes[key.0 as usize].is_attached && self.is_wanted(key) {
                self.attach(key, batch);
            }
        }
    }

    fn is_wanted(&self, key: Key) -> bool {
        let node = &self.nodes[key.0 as usize];
        !node.is_dead || node.directory().is_some_and(|directory| !directory.children.is_empty())
    }

    /// Whether a delete that is not void has seen all current places and contents of the node.
    fn is_covered(&self, key: Key) -> bool {
        let node = &self.nodes[key.0 as usize];
        let covers = |removal: &Removal| {
            let saw = |tick| removal.observed.contains(&tick);
            if self.is_void(removal) {
                return false;
            }
            match node.directory() {
                Some(directory) => directory.current().all(|entry| saw(entry.place.stamp)),
                None => {
                    let contents = node.several_contents();
                    node.place.as_ref().is_some_and(|place| saw(place.stamp))
                        && node.other_places().iter().all(|place| saw(place.stamp))
                        && saw(node.stamp)
                        && contents.iter().all(|content| saw(content.stamp))
                }
            }
        };
        node.removals.iter().flatten().any(covers)
    }

    /// Whether a move of a directory that the delete's author saw above says that it does not hold (R4).
    pub(super) fn is_void(&self, removal: &Removal) -> bool {
        removal.witness.is_some_and(|witness| self.witnesses.is_void(witness))
    }

    /// Puts a node among the children of the directory where it stands, and each directory above that
    /// was not there for want of a child.
    fn attach(&mut self, key: Key, batch: &mut Batch) {
        let mut here = key;
        loop {
            let Some(place) = self.nodes[here.0 as usize].place.clone() else { return };
            let Some(parent) = self.directory_mut(place.parent) else { return };
            parent.children.entry(place.name.clone()).or_default().push(here);
            self.nodes[here.0 as usize].is_attached = true;
            batch.touched.insert(here);
            self.unite_with_namesakes(here, &place, batch);
            if place.parent == Key::ROOT || self.nodes[place.parent.0 as usize].is_attached {
                return;
            }
            here = place.parent;
        }
    }

    /// Takes a node from among the children, and each dead directory above whose last child it was.
    fn detach(&mut self, key: Key, batch: &mut Batch) {
        let mut here = key;
        loop {
            batch.touched.insert(here);
            let place = self.nodes[here.0 as usize].place.clone().expect("attached at a place");
            self.part_from_namesakes(smallvec![here], batch);
            self.nodes[here.0 as usize].is_attached = false;
            let parent = self.directory_mut(place.parent).expect("attached to a directory");
            if let Some(keys) = parent.children.get_mut(&place.name) {
                keys.retain(|other| *other != here);
                if keys.is_empty() {
                    parent.children.remove(&place.name);
                }
            }
            // Whoever is left at the entry has changed with it.
            let left = self.any_at(place.parent, &place.name, |_| true);
            batch.touched.extend(left);
            let parent = &self.nodes[place.parent.0 as usize];
            if !parent.is_attached || self.is_wanted(place.parent) {
                return;
            }
            here = place.parent;
        }
    }
}
