//! Choices: users settle conflicts, by any of the versions.

use pleach_core::values::{Choice, VersionOf};
use pleach_core::vocabulary::{ContentHash, TreePath};

use super::oracle::key_of;
use super::world::World;

impl World {
    /// A user chooses from the versions of some conflict.
    pub(super) fn resolve_any(&mut self, master: usize, salt: u64) {
        let Some(running) = &self.masters[master].running else { return };
        let open = running.engine.replica().conflicts();
        let Some(conflict) = open.get(salt as usize % open.len().max(1)) else { return };
        let version = (salt >> 8) as usize % conflict.versions.len().max(1);
        let choice = match ((salt >> 4) % 3, conflict.versions.get(version)) {
            (0, Some(version)) => Choice::Keep(version.stamp),
            (1, _) => Choice::KeepBoth,
            _ => Choice::KeepStanding,
        };
        let path = conflict.path.clone();
        self.resolve(master, &path, &choice);
    }

    /// A user settles the conflicts at a path.
    pub(super) fn resolve(&mut self, master: usize, path: &TreePath, choice: &Choice) {
        self.resolved = true;
        self.oracle.path_closed(path);
        for removed in self.removed_by(master, path, choice) {
            self.oracle.destroyed(&removed, master);
        }
        self.trace.note(self.now_us, &[4, master as u64], || {
            format!("{master} settles the conflicts at {path}: {choice:?}")
        });
        let now_us = self.now_us;
        if let Some(running) = &mut self.masters[master].running {
            let now = running.moment(now_us);
            if let Err(error) = running.engine.resolve(now, path, choice) {
                let text = format!("{master} can't settle the conflicts at {path}: {error}");
                self.trace.note(now_us, &[5], || text);
            }
            if let Some(running) = &mut self.masters[master].running {
                running.drain();
            }
        }
        self.step_soon(master);
        self.moved_us = self.now_us;
    }

    /// A user has conflicts shown as siblings, or hidden, on all masters.
    pub(super) fn show_conflicts(&mut self, master: usize, siblings: bool) {
        let now_us = self.now_us;
        // A store is founded before anybody can set anything.
        let founded = !self.masters[master].durable.log.is_empty();
        if let Some(running) = self.masters[master].running.as_mut().filter(|_| founded) {
            let now = running.moment(now_us);
            let value = if siblings { "siblings" } else { "hidden" };
            let set = running.engine.set(now, "conflicts", value);
            set.expect("there is such a setting");
            running.drain();
        }
        self.step_soon(master);
        self.moved_us = now_us;
    }

    /// What goes by a choice that what one master removed be gone on all: the contents at the path, and of all
    /// below it.
    fn removed_by(&self, master: usize, path: &TreePath, choice: &Choice) -> Vec<ContentHash> {
        let Some(running) = &self.masters[master].running else { return Vec::new() };
        let replica = running.engine.replica();
        let open = replica.conflicts();
        let mut versions = open.iter().flat_map(|conflict| &conflict.versions);
        let is_removal = versions.any(|version| {
            version.of == VersionOf::Deletion && *choice == Choice::Keep(version.stamp)
        });
        if !is_removal {
            return Vec::new();
        }
        let entries = replica.tree().entries();
        let below = entries.filter(|(at, _)| at.starts_with(path));
        below.filter_map(|(_, entry)| key_of(&entry.body)).collect()
    }
}
