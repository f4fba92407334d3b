//! Clones: a machine is copied, and both run with one key. The others are connected to one of them at a
//! time, in turns; at the end one of them is taken away.

use std::collections::BTreeSet;

use pleach_core::engine::Input;
use pleach_core::vocabulary::MasterId;

use super::driver::{Master, master_id};
use super::power::replica;
use super::properties::Property;
use super::world::{Happening, World};

/// How often the others are connected to the other one of the two, until both have everything.
const TURNS_MAX: usize = 12;

/// A master and its clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Twins {
    /// The one that was there before.
    original: usize,
    /// The other, which is the last of all masters.
    clone: usize,
    /// The one that the others are not connected to at present.
    hidden: usize,
}

impl World {
    /// The identity of a master by its position.
    pub(super) fn id_of(&self, master: usize) -> MasterId {
        master_id(self.masters[master].identity)
    }

    /// Whom one master reaches under an identity.
    pub(super) fn index_of(&self, id: MasterId) -> Option<usize> {
        let hidden = self.twins.map(|twins| twins.hidden);
        (0..self.masters.len()).find(|&index| Some(index) != hidden && self.id_of(index) == id)
    }

    /// Whether two masters can be connected at present.
    pub(super) fn can_meet(&self, a: usize, b: usize) -> bool {
        let is_hidden = |master| self.twins.is_some_and(|twins| twins.hidden == master);
        self.id_of(a) != self.id_of(b) && !is_hidden(a) && !is_hidden(b)
    }

    /// A machine is copied while it runs, and both go on.
    pub(super) fn clone_machine(&mut self, original: usize) {
        let clone = self.masters.len();
        let this = &self.masters[original];
        // One that knows nobody is let in by nobody: it joins anew, as any other master does. Only what is
        // recorded is copied.
        let known = replica(&this.durable).map_or(0, |replica| replica.members().len());
        let ready = this.running.is_some() && known > 1 && this.disk.parked().is_empty();
        if self.twins.is_some() || !ready || this.durable.log.is_empty() {
            return;
        }
        self.trace
            .note(self.now_us, &[15, original as u64], || format!("{original} is cloned: {clone}"));
        let mut master = Master::new(clone, this.disk.clone_to(clone as u64 + 1));
        master.identity = this.identity;
        master.durable = this.durable.clone();
        master.durable.note_copied();
        master.admitted = this.admitted.clone();
        master.inviter = this.inviter;
        self.masters.push(master);
        self.hints_us.push(0);
        self.twins = Some(Twins { original, clone, hidden: clone });
        self.start(clone);
    }

    /// Who acts when a user of a master does: one or the other of two.
    pub(super) fn actor(&self, master: usize, salt: u64) -> usize {
        match self.twins {
            Some(twins) if twins.original == master && salt.is_multiple_of(2) => twins.clone,
            _ => master,
        }
    }

    /// The others are connected to the other one of the two from now on.
    pub(super) fn take_turns(&mut self) {
        let Some(twins) = &mut self.twins else { return };
        let leaving = twins.original + twins.clone - twins.hidden;
        twins.hidden = leaving;
        let coming = self.twins.map_or(leaving, |twins| twins.original + twins.clone - leaving);
        self.trace.note(self.now_us, &[16, coming as u64], || format!("{coming} takes its turn"));
        self.hang_up(leaving);
        self.connect_to_all(coming);
        self.moved_us = self.now_us;
    }

    /// Both ends of its connections know at once that they are gone.
    fn hang_up(&mut self, master: usize) {
        for (other, epoch) in self.network.died(master) {
            self.give(master, Input::PeerGone(self.id_of(other)));
            if self.network.disconnect(other, master, epoch) {
                self.give(other, Input::PeerGone(self.id_of(master)));
            }
        }
    }

    /// Both get everything, and then the clone is taken away: as if it joined anew, under another name.
    pub(super) fn part_twins(&mut self) {
        let Some(twins) = self.twins else { return };
        for turn in 0..TURNS_MAX {
            self.settle();
            if self.failure.is_some() {
                return;
            }
            let is_turn_of_original = self.twins.is_some_and(|twins| twins.hidden == twins.clone);
            let is_enough = self.all_have_the_same() || turn + 2 >= TURNS_MAX;
            if turn > 1 && is_turn_of_original && is_enough {
                break;
            }
            self.take_turns();
        }
        self.check_settled();
        if self.failure.is_some() {
            return;
        }
        self.trace.note(self.now_us, &[17], || format!("{} is taken away", twins.clone));
        self.kill(twins.clone);
        self.programs.iter_mut().for_each(|program| program.end_with(twins.clone));
        self.late.retain(|(of, _)| *of != twins.clone);
        self.forget_happenings(|happening| happening.concerns(twins.clone));
        self.masters.truncate(twins.clone);
        self.twins = None;
        if self.masters.iter().any(|master| master.running.is_none()) {
            self.fail(Property::Settles, "a daemon does not run".to_owned());
        }
        self.connect_to_all(twins.original);
        self.excuse_what_is_undone(&BTreeSet::new());
    }

    fn forget_happenings(&mut self, forget: impl Fn(&Happening) -> bool) {
        self.queue.retain(|_, happening| !forget(happening));
    }

    fn all_have_the_same(&self) -> bool {
        let running = self.running_masters();
        // What only the other one of the two has, comes with its next turn.
        if self.leftovers(&running).or_else(|| self.unequal_disks()).is_some() {
            return false;
        }
        let mut heads = running.iter().map(|running| running.engine.replica().heads_hash());
        let first = heads.next();
        heads.all(|other| Some(other) == first)
    }
}

impl Happening {
    /// Whether it is about this master.
    fn concerns(&self, this: usize) -> bool {
        match self {
            Self::Item(_) | Self::Call(_) => false,
            Self::Join(master)
            | Self::Start(master)
            | Self::HearAgain(master)
            | Self::Hints { master, .. }
            | Self::Step { master, .. }
            | Self::DiskStep { master, .. }
            | Self::Wake { master, .. }
            | Self::Fetch { master, .. }
            | Self::End { master, .. }
            | Self::ReadAgain { master, .. }
            | Self::LateWrite { master, .. }
            | Self::Judge { master, .. }
            | Self::BringBack { master, .. } => *master == this,
            Self::Stream { from, to, .. }
            | Self::Gossip { from, to, .. }
            | Self::Connect { from, to }
            | Self::Mend { from, to } => [from, to].contains(&&this),
            Self::Notice { end, other, .. } => [end, other].contains(&&this),
        }
    }
}
