//! The items of a history: what comes over a world from outside.

use pleach_core::engine::{Hint, Input, Judgement};
use pleach_core::vocabulary::TreePath;
use rand::RngExt;

use super::disk::Node;
use super::driver::{Doom, End};
use super::history::{Direction, Item, What};
use super::world::{Happening, World};

/// A daemon that has nothing to do is killed after so long all the same.
const CRASH_DELAY_US_MAX: u64 = 800_000;

impl World {
    pub(super) fn item(&mut self, item: &Item) {
        let master = item.master;
        self.trace.note(self.now_us, &[3, master as u64, item.salt], || format!("** {item}"));
        match item.what {
            What::User(habit) => {
                self.start_program(self.actor(master, item.salt), habit, item.salt);
            }
            What::Crash { outputs, down_us } => {
                self.doom(item, Doom { steps: outputs, down_us, end: End::Killed });
            }
            What::PowerCut { outputs, down_us } => {
                self.doom(item, Doom { steps: outputs, down_us, end: End::PowerCut });
            }
            What::Cut { other, direction, for_us } => {
                self.cut(master, other, for_us);
                if direction == Direction::BothWays {
                    self.cut(other, master, for_us);
                }
            }
            What::Deaf { for_us } => {
                self.masters[master].deaf_until_us = self.now_us + for_us;
                self.after(for_us, Happening::HearAgain(master));
            }
            What::Unreadable { for_us } => self.make_unreadable(master, item.salt, for_us),
            What::CloneMachine => self.clone_machine(master),
            What::TakeTurns => self.take_turns(),
            What::Backup => self.masters[master].back_up(),
            What::Restore { part, down_us } => self.restore(master, part, down_us),
            What::Failing { fault, for_us } => {
                self.masters[master].faults.add(fault, self.now_us + for_us);
            }
            What::Full { for_us } => self.masters[master].full_until_us = self.now_us + for_us,
            What::Compact => self.masters[master].compact(),
            What::FullLook => {
                self.give(master, Input::Hints(vec![Hint::Subtree(TreePath::root())]));
            }
            What::Flush => self.give(master, Input::Flush),
            What::Resolve => self.resolve_any(master, item.salt),
            What::BringBack => self.bring_back_any(master, item.salt),
            What::ShowConflicts { siblings } => self.show_conflicts(master, siblings),
            What::ClockJump { seconds } => self.masters[master].clock_skew_seconds += seconds,
        }
    }

    fn doom(&mut self, item: &Item, doom: Doom) {
        let this = &mut self.masters[item.master];
        let (master, generation) = (item.master, this.generation);
        // A store is founded before its first daemon runs.
        let founded = !this.durable.log.is_empty();
        if founded && this.running.is_some() {
            this.doom = Some(doom);
            self.after(item.salt % CRASH_DELAY_US_MAX, Happening::End { master, generation, doom });
        } else if this.running.is_none() && doom.end == End::PowerCut {
            let known = generation > 0;
            self.cut_power(master, doom.down_us);
            if known {
                self.after(doom.down_us, Happening::Start(master));
            }
        }
    }

    fn cut(&mut self, from: usize, to: usize, for_us: u64) {
        self.network.cut(from, to);
        for (end, other) in [(from, to), (to, from)] {
            if let Some(epoch) = self.network.epoch(end, other) {
                let delay_us = 100 + self.network.below(2_000_000);
                self.after(delay_us, Happening::Notice { end, other, epoch });
            }
        }
        self.after(for_us, Happening::Mend { from, to });
    }

    fn make_unreadable(&mut self, master: usize, salt: u64, for_us: u64) {
        let disk = &mut self.masters[master].disk;
        let directories: Vec<TreePath> = disk
            .paths()
            .into_iter()
            .filter(|(_, key)| matches!(disk.inode(*key).node, Node::Directory(_)))
            .map(|(path, _)| path)
            .collect();
        if let Some(path) = directories.get(salt as usize % directories.len().max(1)) {
            disk.set_unreadable(Some(path));
            let path = path.clone();
            self.after(for_us, Happening::ReadAgain { master, path });
        }
    }

    /// A person who is asked to judge a mass deletion comes, sooner or later.
    pub(super) fn call_judge(&mut self, master: usize) {
        let generation = self.masters[master].generation;
        let Some(running) = &mut self.masters[master].running else { return };
        if running.engine.withheld().is_some() && !running.judge_is_called {
            running.judge_is_called = true;
            let delay_us = self.random.random_range(0..3_000_000);
            self.after(delay_us, Happening::Judge { master, generation });
        }
    }

    /// In a settled store an act is to have its effect: then it was meant.
    pub(super) fn judge(&mut self, master: usize, generation: u64) {
        if !self.is_current(master, generation) {
            return;
        }
        let judgement = match self.healed || self.random.random_range(0..3) > 0 {
            true => Judgement::Allow,
            false => Judgement::Undo,
        };
        self.trace.note(self.now_us, &[8, master as u64], || format!("** {master}: {judgement:?}"));
        if let Some(running) = &mut self.masters[master].running {
            running.judge_is_called = false;
        }
        self.moved_us = self.now_us;
        self.give(master, Input::Judged(judgement));
    }
}
