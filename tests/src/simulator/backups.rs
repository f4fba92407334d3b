//! Backups that are restored: what comes back with them, and what is rightly undone.

use std::collections::BTreeSet;

use pleach_core::engine::Input;
use pleach_core::vocabulary::ContentHash;

use super::disk::{Backup, Copying, Listing};
use super::driver::{Master, master_id, member};
use super::durable::Durable;
use super::oracle::key_of;
use super::power::told;
use super::properties::Property;
use super::world::{Happening, World};

/// What of a master is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its tree: the state stays.
    Tree(Copying),
    /// Its state: the tree stays.
    State,
    /// Both, into other inodes.
    Both(Copying),
    /// The whole disk, as a snapshot of it.
    Disk,
}

/// A master as it was.
#[derive(Clone, Debug)]
pub struct Saved {
    disk: Backup,
    durable: Durable,
}

impl Master {
    /// Takes a backup of everything in one moment.
    pub fn back_up(&mut self) {
        if self.generation > 0
            && !self.durable.log.is_empty()
            && let Some(disk) = self.disk.backup()
        {
            self.saved = Some(Saved { disk, durable: self.durable.clone() });
        }
    }

    fn restore(&mut self, saved: &Saved, part: Part) {
        match part {
            Part::Tree(copying) => self.disk.restore_tree(&saved.disk, copying),
            Part::State => self.disk.restore_state(&saved.disk),
            Part::Both(copying) => {
                self.disk.restore_tree(&saved.disk, copying);
                self.disk.restore_state(&saved.disk);
            }
            Part::Disk => self.disk.roll_back(&saved.disk),
        }
        if !matches!(part, Part::Tree(_)) {
            self.durable = saved.durable.clone();
        }
        // Of a whole disk that is what it was, nobody can tell, and nobody has to.
        if matches!(part, Part::State | Part::Both(_)) {
            self.durable.note_copied();
        }
    }
}

impl World {
    /// A master is stopped, something of it is restored, and after a while it starts again.
    pub(super) fn restore(&mut self, master: usize, part: Part, down_us: u64) {
        let Some(saved) = self.masters[master].saved.clone() else { return };
        self.trace
            .note(self.now_us, &[14, master as u64], || format!("{master} restores {part:?}"));
        if self.masters[master].running.is_some() {
            self.kill(master);
        }
        self.programs.iter_mut().for_each(|program| program.end_with(master));
        self.late.retain(|(of, _)| *of != master);
        let before = self.masters[master].disk.listing();
        self.masters[master].restore(&saved, part);
        self.masters[master].dark_until_us = self.now_us + down_us;
        self.after(down_us, Happening::Start(master));
        self.moved_us = self.now_us;
        let gone = match part {
            Part::Tree(_) => {
                self.tree_was_wanted(master, &before);
                BTreeSet::new()
            }
            Part::State => BTreeSet::new(),
            Part::Both(_) | Part::Disk => {
                before.values().filter_map(|entry| key_of(&entry.body)).collect()
            }
        };
        self.excuse_what_is_undone(&gone);
    }

    /// Whom the founder does not know any more, since a backup of it was restored, joins again.
    pub(super) fn invite_again(&mut self) {
        let Some(running) = &self.masters[0].running else { return };
        let members = running.engine.replica().members();
        let forgotten: Vec<usize> = self
            .masters
            .iter()
            .filter(|master| master.inviter.is_some() && master.index == master.identity)
            .filter(|master| !members.iter().any(|m| m.master == master_id(master.identity)))
            .map(|master| master.index)
            .collect();
        for master in forgotten {
            self.give(0, Input::SetMember(member(master, 0)));
        }
    }

    /// The restored tree is what its user wants: as if that had been written, renamed and removed by hand.
    fn tree_was_wanted(&mut self, master: usize, before: &Listing) {
        let after = self.masters[master].disk.listing();
        for (path, entry) in before {
            let (was, is) = (key_of(&entry.body), after.get(path).map(|now| key_of(&now.body)));
            if is != Some(was) {
                was.iter().for_each(|was| self.oracle.destroyed(was, master));
                self.oracle.path_closed(path);
            }
        }
        for (path, entry) in &after {
            let (is, was) = (key_of(&entry.body), before.get(path).map(|then| key_of(&then.body)));
            if let Some(hash) = is.filter(|_| was != Some(is)) {
                self.oracle.written(hash, master, Some(path.clone()), self.now_us);
            }
        }
    }

    /// What was only on the disk that is gone, or in the log that is gone, is gone. What the tree on that disk had
    /// is undone where nobody was told of it, though somebody may have retained it from before.
    pub(super) fn excuse_what_is_undone(&mut self, gone: &BTreeSet<ContentHash>) {
        let mut known: BTreeSet<ContentHash> = BTreeSet::new();
        for index in 0..self.masters.len() {
            match told(&self.masters[index].durable) {
                Ok(told) => known.extend(told),
                Err(error) => return self.fail(Property::Opens, error),
            }
        }
        // What somebody has staged may not be wanted there by the time it is asked for.
        let mut kept: BTreeSet<ContentHash> = self.links.intersection(&known).copied().collect();
        let mut shown = BTreeSet::new();
        for master in &self.masters {
            let listing = master.disk.listing();
            shown.extend(listing.values().filter_map(|entry| key_of(&entry.body)));
            kept.extend(master.disk.version_hashes());
            kept.extend(master.durable.retained.keys());
        }
        self.oracle.undone(|hash| kept.contains(hash) || shown.contains(hash));
        let stands = |hash: &ContentHash| known.contains(hash) || shown.contains(hash);
        self.oracle.undone_in_tree(|hash| gone.contains(hash) && !stands(hash));
    }
}
