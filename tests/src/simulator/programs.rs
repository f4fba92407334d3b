//! Running programs: their system calls on the virtual disk, what the watcher says of them, and what
//! goes into the oracle's journal.

use std::collections::BTreeMap;

use pleach_core::engine::{Hint, Input};
use pleach_core::vocabulary::{ContentHash, TreePath};
use rand::RngExt;

use super::disk::{Disk, InodeKey, Node, Opened, Truncate, Whereabouts};
use super::user::{Call, Habit, Program};
use super::world::{Happening, World};

/// How long after a program has written to a version that is taken in.
const LATE_US: u64 = 1_500_000;

/// A program under way.
#[derive(Debug)]
pub(super) struct RunningProgram {
    master: usize,
    program: Program,
    slots: BTreeMap<u8, Descriptor>,
}

#[derive(Clone, Copy, Debug)]
struct Descriptor {
    key: InodeKey,
    written: bool,
}

impl RunningProgram {
    pub(super) fn is_over(&self) -> bool {
        self.program.calls.is_empty()
    }

    /// It ends with the machine that it runs on.
    pub(super) fn end_with(&mut self, master: usize) {
        if self.master == master {
            self.program.calls.clear();
            self.slots.clear();
        }
    }
}

/// What the oracle knows a path by: the hash of a file's bytes or of a link's text.
fn shown(disk: &Disk, path: &TreePath) -> Option<ContentHash> {
    match &disk.inode(disk.lookup(path).ok()?).node {
        Node::File(bytes) => Some(ContentHash::of(bytes)),
        Node::Symlink(target) => Some(ContentHash::of(target.as_bytes())),
        Node::Directory(_) => None,
    }
}

impl World {
    pub(super) fn start_program(&mut self, master: usize, habit: Habit, salt: u64) {
        if self.masters[master].dark_until_us > self.now_us {
            return;
        }
        let program = habit.program(&self.masters[master].disk, salt);
        self.programs.push(RunningProgram { master, program, slots: BTreeMap::new() });
        self.call_later(self.programs.len() - 1);
    }

    fn call_later(&mut self, program: usize) {
        if let Some((pause_us, _)) = self.programs[program].program.calls.front() {
            self.after(*pause_us, Happening::Call(program));
        }
    }

    /// Makes a program's next call.
    pub(super) fn call(&mut self, program: usize) {
        let Some((pause_us, call)) = self.programs[program].program.calls.pop_front() else {
            return;
        };
        let master = self.programs[program].master;
        self.moved_us = self.now_us;
        self.masters[master].set_clock(self.now_us);
        let result = self.make_call(program, master, &call);
        let failed = u64::from(result.is_err());
        self.trace.note(self.now_us, &[6, master as u64, failed], || {
            format!("{master} user: {call:?} {}", if failed == 1 { "fails" } else { "" })
        });
        if let (Call::RemoveTree { path }, Ok(())) = (&call, result)
            && self.masters[master].disk.lookup(path).is_ok()
        {
            self.programs[program].program.calls.push_front((pause_us.min(200), call));
        }
        self.call_later(program);
    }

    fn make_call(&mut self, program: usize, master: usize, call: &Call) -> Result<(), ()> {
        match call {
            Call::Open { slot, path, truncate } => {
                self.open(program, master, *slot, path, *truncate)
            }
            Call::Append { slot, bytes } => {
                self.write(program, master, *slot, |file| file.extend_from_slice(bytes))
            }
            Call::Overwrite { slot, bytes } => self.write(program, master, *slot, |file| {
                let common = bytes.len().min(file.len());
                file[..common].copy_from_slice(&bytes[..common]);
                file.extend_from_slice(&bytes[common..]);
            }),
            Call::Close { slot } => self.close(program, master, *slot),
            Call::Rename { from, to } => self.rename(master, from, to),
            Call::Unlink { path } => self.unlink(master, path),
            Call::RemoveTree { path } => self.remove_next(master, path),
            Call::MakeDirectory { path } => {
                let made = self.masters[master].disk.make_directory(path);
                self.hint_if(made, master, Hint::Written(path.clone()))
            }
            Call::MakeSymlink { path, target } => {
                let made = self.masters[master].disk.make_symlink(path, target.clone());
                if made.is_ok() {
                    let hash = ContentHash::of(target.as_bytes());
                    self.links.insert(hash);
                    self.oracle.written(hash, master, Some(path.clone()), self.now_us);
                }
                self.hint_if(made, master, Hint::Changed(path.clone()))
            }
            Call::ChangeMode { path, mode } => {
                let changed = self.masters[master].disk.change_mode(path, *mode);
                self.hint_if(changed, master, Hint::Written(path.clone()))
            }
            Call::Touch { path, modified } => {
                let touched = self.masters[master].disk.touch(path, *modified);
                self.hint_if(touched, master, Hint::Written(path.clone()))
            }
        }
    }

    fn hint_if<E>(&mut self, result: Result<(), E>, master: usize, hint: Hint) -> Result<(), ()> {
        if result.is_ok() {
            self.watch(master, hint);
        }
        result.map_err(drop)
    }

    fn open(
        &mut self,
        program: usize,
        master: usize,
        slot: u8,
        path: &TreePath,
        truncate: Truncate,
    ) -> Result<(), ()> {
        if self.programs[program].slots.contains_key(&slot) {
            self.close(program, master, slot)?;
        }
        let disk = &mut self.masters[master].disk;
        let before = shown(disk, path);
        let (key, opened) = disk.open(path, truncate).map_err(drop)?;
        self.programs[program].slots.insert(slot, Descriptor { key, written: false });
        match (opened, truncate, before) {
            (Opened::Created, ..) => self.watch(master, Hint::Changed(path.clone())),
            (Opened::Existing, Truncate::ToEmpty, Some(before)) => {
                self.oracle.destroyed(&before, master);
                self.watch(master, Hint::Changed(path.clone()));
            }
            _ => {}
        }
        Ok(())
    }

    fn write(
        &mut self,
        program: usize,
        master: usize,
        slot: u8,
        change: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), ()> {
        let descriptor = self.programs[program].slots.get_mut(&slot).ok_or(())?;
        descriptor.written = true;
        let key = descriptor.key;
        let disk = &mut self.masters[master].disk;
        let before = disk.bytes(key).map(ContentHash::of);
        disk.write(key, change);
        if let Some(before) = before {
            self.oracle.destroyed(&before, master);
        }
        match self.masters[master].disk.whereabouts(key) {
            Whereabouts::Tree(path) => self.watch(master, Hint::Changed(path)),
            Whereabouts::Versions if self.late.insert((master, key)) => {
                self.after(LATE_US, Happening::LateWrite { master, key });
            }
            Whereabouts::Versions | Whereabouts::Parked | Whereabouts::Nowhere => {}
        }
        Ok(())
    }

    /// What was written to a version through an old handle is staged, and told.
    pub(super) fn take_in_late_write(&mut self, master: usize, key: InodeKey) {
        let this = &mut self.masters[master];
        if this.running.is_none() || this.full_until_us > self.now_us {
            return self.after(LATE_US, Happening::LateWrite { master, key });
        }
        // A power cut may have undone it.
        if !self.late.remove(&(master, key)) {
            return;
        }
        let Some((late, bytes)) = this.disk.late_write(key) else { return };
        this.disk.sync_file(key);
        self.moved_us = self.now_us;
        this.durable.staged.insert(late.content.hash, bytes);
        self.trace.note(self.now_us, &[12, master as u64], || format!("{master} {late:?}"));
        self.give(master, Input::LateWrite(late));
    }

    fn close(&mut self, program: usize, master: usize, slot: u8) -> Result<(), ()> {
        let Descriptor { key, written } = self.programs[program].slots.remove(&slot).ok_or(())?;
        let disk = &mut self.masters[master].disk;
        let hash = disk.bytes(key).map(ContentHash::of);
        let whereabouts = disk.whereabouts(key);
        disk.close(key);
        let (true, Some(hash)) = (written, hash) else { return Ok(()) };
        match whereabouts {
            Whereabouts::Tree(path) => {
                self.oracle.written(hash, master, Some(path.clone()), self.now_us);
                self.watch(master, Hint::Written(path));
            }
            Whereabouts::Parked => {
                self.oracle.written(hash, master, Some(TreePath::root()), self.now_us);
            }
            Whereabouts::Versions => self.oracle.written(hash, master, None, self.now_us),
            Whereabouts::Nowhere => {}
        }
        Ok(())
    }

    fn rename(&mut self, master: usize, from: &TreePath, to: &TreePath) -> Result<(), ()> {
        let disk = &mut self.masters[master].disk;
        let over = shown(disk, to).filter(|_| disk.lookup(from) != disk.lookup(to));
        let other_kind = disk.kind(from) != disk.kind(to);
        let over_empty = disk.is_directory(to) && disk.lookup(from) != disk.lookup(to);
        disk.rename(from, to).map_err(drop)?;
        if from == to {
            return Ok(());
        }
        if over_empty {
            self.oracle.path_closed(to);
        }
        if over.is_some() {
            self.oracle.path_replaced(to);
            // Nobody knows the file again that was put at `from` a moment ago, or while no daemon ran.
            if self.masters[master].running.is_none() || self.oracle.was_renamed_to(from) {
                self.oracle.path_closed(from);
            }
        }
        // It is gone if it goes from or to where nobody can look, or while nobody hears of it.
        let disk = &self.masters[master].disk;
        if disk.is_hidden(from) || disk.is_hidden(to) || self.is_deaf(master) {
            self.oracle.path_closed(from);
        }
        self.oracle.path_renamed(from, to);
        if let Some(over) = over {
            self.oracle.destroyed(&over, master);
            // A file in the place of a link, or the other way round, is another thing: the old is removed.
            if other_kind {
                self.oracle.path_closed(to);
            }
        }
        self.watch_rename(master, from, to);
        Ok(())
    }

    /// inotify tells of a rename in two halves, which the watcher may fail to join: a directory is then
    /// listed where it is found.
    fn watch_rename(&mut self, master: usize, from: &TreePath, to: &TreePath) {
        self.watch(master, Hint::Removed(from.clone()));
        self.watch(master, Hint::Written(to.clone()));
        if self.random.random_range(0..8) != 0 {
            self.watch(master, Hint::Renamed(from.clone(), to.clone()));
        } else if self.masters[master].disk.is_directory(to) {
            self.watch(master, Hint::Subtree(to.clone()));
        }
    }

    fn unlink(&mut self, master: usize, path: &TreePath) -> Result<(), ()> {
        let disk = &mut self.masters[master].disk;
        let before = shown(disk, path);
        disk.unlink(path).map_err(drop)?;
        if let Some(before) = before {
            self.oracle.destroyed(&before, master);
        }
        self.path_removed(master, path);
        self.watch(master, Hint::Removed(path.clone()));
        Ok(())
    }

    /// What is removed closes its conflicts, by whichever name the others know it: another master's rename
    /// of a directory above may not be on this disk yet.
    fn path_removed(&mut self, master: usize, path: &TreePath) {
        self.oracle.path_closed(path);
        let Some(running) = &self.masters[master].running else { return };
        let (base, tree) = (running.engine.base(), running.engine.replica().tree());
        let known = base.find(path).and_then(|id| base.entry(id)?.standing());
        if let Some(elsewhere) = known.and_then(|node| tree.path(node)) {
            self.oracle.path_closed(&elsewhere);
        }
    }

    /// Removes the deepest last entry at or below a path.
    fn remove_next(&mut self, master: usize, path: &TreePath) -> Result<(), ()> {
        let disk = &self.masters[master].disk;
        let mut inside = disk.paths().into_iter().map(|(inside, _)| inside);
        let last = inside.rfind(|inside| inside.starts_with(path)).ok_or(())?;
        if !disk.is_directory(&last) {
            return self.unlink(master, &last);
        }
        self.masters[master].disk.remove_directory(&last).map_err(drop)?;
        self.path_removed(master, &last);
        self.watch(master, Hint::Removed(last));
        Ok(())
    }

    /// The watcher saw something: told soon and in order, now and then twice, now and then not at all,
    /// but then a look at everything is asked for.
    fn watch(&mut self, master: usize, hint: Hint) {
        let this = &self.masters[master];
        let generation = this.generation;
        if this.running.is_none() || self.is_deaf(master) {
            return;
        }
        let loss = self.history.profile.hint_loss_percent;
        if !self.healed && self.random.random_range(0..100) < loss {
            // The queue of events overflows: nothing more comes before the look at everything.
            let for_us = self.random.random_range(1_000..40_000);
            self.masters[master].deaf_until_us = self.now_us + for_us;
            self.after(for_us, Happening::HearAgain(master));
            return;
        }
        let delay_us = self.random.random_range(20..1_500);
        let at_us = (self.now_us + delay_us).max(self.hints_us[master] + 1);
        self.hints_us[master] = at_us;
        if self.random.random_range(0..30) == 0 {
            let again_us = at_us + self.random.random_range(1_000..1_000_000);
            let hints = vec![hint.clone()];
            self.at(again_us, Happening::Hints { master, generation, hints });
        }
        self.at(at_us, Happening::Hints { master, generation, hints: vec![hint] });
    }

    /// The watcher sees what pleach itself did, too.
    pub(super) fn watch_own(&mut self, master: usize, effect: &pleach_core::values::Effect) {
        use pleach_core::values::{Effect, Location};
        let tree = |location: &Location| match location {
            Location::Tree(path) => Some(path.clone()),
            Location::Parked(..) => None,
        };
        let Some(at) = tree(effect.target()) else { return };
        let hint = match effect {
            Effect::MakeDirectory { .. } | Effect::PutSymlink { .. } | Effect::PutFile { .. } => {
                Hint::Written(at)
            }
            Effect::RemoveFile { .. } | Effect::RemoveDirectory { .. } => Hint::Removed(at),
            Effect::Confirm { .. } => return,
            Effect::SetAttributes { .. } => Hint::Written(at),
            Effect::Move { from, .. } => match tree(from) {
                Some(from) => return self.watch_rename(master, &from, &at),
                None => Hint::Written(at),
            },
        };
        self.watch(master, hint);
    }
}
