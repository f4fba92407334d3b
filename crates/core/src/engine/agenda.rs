//! The agenda: what on the disk is to be looked at, and when it will have settled.
//!
//! A save to a known path is looked at once it is closed or renamed into place. A new name waits in case
//! it is somebody's temporary file, and a name that went waits in case it comes back: both halves of an
//! editor's save are seen in one look. A file that is published again and again backs off by itself.

use std::collections::{BTreeMap, BTreeSet};

use super::Hint;
use crate::snapshot::Scope;
use crate::vocabulary::TreePath;

/// How long a new or vanished name waits.
const SETTLE_NEW_MS: u64 = 40;
/// How long a vanished name waits: longer than a new one, so that what it is called now is found first,
/// and half a rename is not taken for a removal.
const SETTLE_GONE_MS: u64 = 60;
/// How long a file that is being written must be quiet.
const SETTLE_CHANGED_MS: u64 = 200;
/// How old a change gets at most before it is looked at.
const AGE_MS_MAX: u64 = 3_000;
/// How many scopes are kept apart; beyond, everything is looked at.
const SCOPES_MAX: usize = 20_000;
/// How often a file may be published in a row before it backs off.
const HEAT_FREE: u32 = 40;
/// How long it takes to forget one publication.
const HEAT_DECAY_MS: u64 = 250;
/// The longest a hot file waits.
const HEAT_DELAY_MS_MAX: u64 = 5_000;
/// How many hot files are remembered.
const HEAT_FILES_MAX: usize = 1_024;

/// Whether a settling scope may be hurried by the closing of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// It may.
    Loose,
    /// The name went or came by a rename a moment ago: the rest of the act is still to come.
    Held,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    first_ms: u64,
    due_ms: u64,
    hold: Hold,
}

/// What a path is to the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Unknown,
    Directory,
    Other,
}

/// What is to be looked at, by when it is due.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    pending: BTreeMap<Scope, Pending>,
    by_due: BTreeSet<(u64, Scope)>,
    /// Pending scopes whose name came to be, by when that was first noted.
    fresh: BTreeSet<(u64, Scope)>,
    heat: BTreeMap<TreePath, (u32, u64)>,
}

impl Agenda {
    /// Notes a hint.
    pub(super) fn note(&mut self, now: u64, hint: Hint, known: impl Fn(&TreePath) -> Known) {
        match hint {
            Hint::Written(path) => {
                let delay = match known(&path) {
                    Known::Unknown => SETTLE_NEW_MS,
                    Known::Directory | Known::Other => self.heat_delay(&path, now),
                };
                if known(&path) == Known::Unknown {
                    self.note_fresh(now, &path);
                }
                self.hurry(now, path, delay);
            }
            Hint::Created(path) => {
                self.note_fresh(now, &path);
                self.settle_new(now, path, Hold::Loose);
            }
            Hint::Removed(path) => {
                if let Some(scope) = name_scope(&path) {
                    self.put(now, scope, now + SETTLE_GONE_MS, Hold::Held);
                }
            }
            Hint::Changed(path) => self.slide(now, path, SETTLE_CHANGED_MS),
            Hint::Renamed(from, to) => {
                // A temporary file that takes a known file's place, and a directory, are at rest.
                let at_rest = known(&to) != Known::Unknown || known(&from) == Known::Directory;
                if at_rest && !self.is_held(&to) {
                    let delay = self.heat_delay(&to, now);
                    self.hurry(now, from, delay);
                    self.hurry(now, to, delay);
                } else {
                    self.note_fresh(now, &to);
                    self.settle_new(now, from, Hold::Held);
                    self.settle_new(now, to, Hold::Loose);
                }
            }
            Hint::Directory(path) => {
                self.put(now, Scope::Directory(path), now + SETTLE_NEW_MS, Hold::Loose);
            }
            Hint::Subtree(path) => {
                self.put(now, Scope::Subtree(path), now + SETTLE_NEW_MS, Hold::Loose);
            }
        }
        if self.pending.len() > SCOPES_MAX {
            self.pending.clear();
            self.by_due.clear();
            self.fresh.clear();
            self.put(now, Scope::Subtree(TreePath::root()), now + SETTLE_NEW_MS, Hold::Loose);
        }
    }

    /// Looks at this again after `delay_ms`.
    pub(super) fn again(&mut self, now: u64, scope: Scope, delay_ms: u64) {
        self.put(now, scope, now + delay_ms, Hold::Loose);
    }

    /// A directory is called otherwise now: what is to be looked at below it, is to be looked at there.
    /// At the old place there may be something new, so that stays due as well.
    pub(super) fn moved(&mut self, now: u64, from: &TreePath, to: &TreePath) {
        let there = |path: &TreePath| {
            let below = path.names().get(from.names().len()..)?;
            let inside = path.starts_with(from);
            inside.then(|| below.iter().fold(to.clone(), |path, name| path.join(name)))
        };
        let found: Vec<(Scope, Pending)> = self
            .pending
            .iter()
            .filter_map(|(scope, pending)| {
                let scope = match scope {
                    Scope::Name(path, name) => Scope::Name(there(path)?, name.clone()),
                    Scope::Directory(path) => Scope::Directory(there(path)?),
                    Scope::Subtree(path) => Scope::Subtree(there(path)?),
                };
                Some((scope, *pending))
            })
            .collect();
        for (scope, pending) in found {
            self.put(now, scope, pending.due_ms, pending.hold);
        }
    }

    /// A file was published: counts towards its heat.
    pub(super) fn published(&mut self, now: u64, path: &TreePath) {
        let heat = self.heat_at(path, now) + 1;
        self.heat.insert(path.clone(), (heat, now));
        if self.heat.len() > HEAT_FILES_MAX {
            self.heat.retain(|_, &mut (heat, at)| cooled(heat, at, now) > 0);
            if self.heat.len() > HEAT_FILES_MAX {
                self.heat.pop_first();
            }
        }
    }

    /// How long a file that would not settle is left alone.
    pub(super) fn unsettled_delay(&mut self, now: u64, path: &TreePath) -> u64 {
        self.published(now, path);
        SETTLE_CHANGED_MS + self.heat_delay(path, now)
    }

    /// Everything is due now.
    pub(super) fn flush(&mut self, now: u64) {
        let scopes: Vec<Scope> = self.pending.keys().cloned().collect();
        for scope in scopes {
            self.set_due(&scope, now);
        }
    }

    /// The scopes that are due, if any. With a name that vanished, those come that came to be at about
    /// the same time, due or not: both halves of a rename are seen in one look.
    pub(super) fn take_due(&mut self, now: u64) -> Vec<Scope> {
        let mut due = Vec::new();
        let mut vanished: Option<(u64, u64)> = None;
        while let Some((at, _)) = self.by_due.first()
            && *at <= now
        {
            let (_, scope) = self.by_due.pop_first().expect("it has a first");
            if let Some(pending) = self.pending.remove(&scope) {
                let first_ms = pending.first_ms;
                self.fresh.remove(&(first_ms, scope.clone()));
                if pending.hold == Hold::Held {
                    let (from, to) = vanished.unwrap_or((first_ms, first_ms));
                    vanished = Some((from.min(first_ms), to.max(first_ms)));
                }
            }
            due.push(scope);
        }
        if let Some((from, to)) = vanished {
            self.take_fresh(from.saturating_sub(SETTLE_GONE_MS), to + SETTLE_GONE_MS, &mut due);
        }
        due
    }

    fn take_fresh(&mut self, from_ms: u64, to_ms: u64, due: &mut Vec<Scope>) {
        let near: Vec<(u64, Scope)> = self
            .fresh
            .iter()
            .skip_while(|(at, _)| *at < from_ms)
            .take_while(|(at, _)| *at <= to_ms)
            .cloned()
            .collect();
        for key in near {
            self.fresh.remove(&key);
            if let Some(pending) = self.pending.remove(&key.1) {
                self.by_due.remove(&(pending.due_ms, key.1.clone()));
                due.push(key.1);
            }
        }
    }

    /// When something is due.
    pub(super) fn timeout(&self) -> Option<u64> {
        self.by_due.first().map(|&(at, _)| at)
    }

    /// Whether anything waits.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    fn is_held(&self, path: &TreePath) -> bool {
        name_scope(path)
            .and_then(|scope| self.pending.get(&scope))
            .is_some_and(|pending| pending.hold == Hold::Held)
    }

    /// The name came to be; called before it is put on the agenda.
    fn note_fresh(&mut self, now: u64, path: &TreePath) {
        let Some(scope) = name_scope(path) else { return };
        let first_ms = self.pending.get(&scope).map_or(now, |pending| pending.first_ms);
        self.fresh.insert((first_ms, scope));
    }

    fn settle_new(&mut self, now: u64, path: TreePath, hold: Hold) {
        let Some(scope) = name_scope(&path) else { return };
        self.put(now, scope, now + SETTLE_NEW_MS, hold);
    }

    fn slide(&mut self, now: u64, path: TreePath, quiet_ms: u64) {
        let delay = quiet_ms + self.heat_delay(&path, now);
        let Some(scope) = name_scope(&path) else { return };
        self.put(now, scope, now + delay, Hold::Loose);
    }

    /// Due after `delay`, unless the name is held.
    fn hurry(&mut self, now: u64, path: TreePath, delay_ms: u64) {
        let Some(scope) = name_scope(&path) else { return };
        match self.pending.get(&scope) {
            Some(Pending { hold: Hold::Held, .. }) => {}
            Some(_) => self.set_due(&scope, now + delay_ms),
            None => self.put(now, scope, now + delay_ms, Hold::Loose),
        }
    }

    fn put(&mut self, now: u64, scope: Scope, due_ms: u64, hold: Hold) {
        let (first_ms, hold, due_ms) = match self.pending.get(&scope) {
            None => (now, hold, due_ms),
            Some(old) => {
                let hold = if old.hold == Hold::Held { Hold::Held } else { hold };
                (old.first_ms, hold, due_ms.max(old.due_ms).min(old.first_ms + AGE_MS_MAX))
            }
        };
        if let Some(old) = self.pending.insert(scope.clone(), Pending { first_ms, due_ms, hold }) {
            self.by_due.remove(&(old.due_ms, scope.clone()));
        }
        self.by_due.insert((due_ms, scope));
    }

    fn set_due(&mut self, scope: &Scope, due_ms: u64) {
        if let Some(pending) = self.pending.get_mut(scope) {
            self.by_due.remove(&(pending.due_ms, scope.clone()));
            pending.due_ms = due_ms;
            self.by_due.insert((due_ms, scope.clone()));
        }
    }

    fn heat_at(&self, path: &TreePath, now: u64) -> u32 {
        self.heat.get(path).map_or(0, |&(heat, at)| cooled(heat, at, now))
    }

    fn heat_delay(&self, path: &TreePath, now: u64) -> u64 {
        match self.heat_at(path, now).saturating_sub(HEAT_FREE) {
            0 => 0,
            over => (20 << over.min(8)).min(HEAT_DELAY_MS_MAX),
        }
    }
}

fn cooled(heat: u32, at: u64, now: u64) -> u32 {
    let forgotten = now.saturating_sub(at) / HEAT_DECAY_MS;
    heat.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
}

fn name_scope(path: &TreePath) -> Option<Scope> {
    let (directory, name) = path.split_last()?;
    Some(Scope::Name(directory, name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).expect("plain names")
    }

    fn known(path: &TreePath) -> Known {
        match path.to_string().as_str() {
            "f" | "hot" => Known::Other,
            "d" => Known::Directory,
            _ => Known::Unknown,
        }
    }

    #[test]
    fn closed_save_to_a_known_path_is_due_at_once() {
        let mut agenda = Agenda::default();
        agenda.note(100, Hint::Changed(path("f")), known);
        assert_eq!(agenda.take_due(100).len(), 0);
        agenda.note(101, Hint::Written(path("f")), known);
        assert_eq!(agenda.take_due(101).len(), 1);
        assert!(agenda.is_empty());
    }

    #[test]
    fn new_name_waits_in_case_it_is_somebodys_temporary_file() {
        let mut agenda = Agenda::default();
        agenda.note(0, Hint::Created(path("f.tmp")), known);
        agenda.note(1, Hint::Written(path("f.tmp")), known);
        assert!(agenda.take_due(SETTLE_NEW_MS - 1).is_empty());
        assert_eq!(agenda.take_due(SETTLE_NEW_MS + 1).len(), 1);
    }

    #[test]
    fn file_that_an_editor_renamed_away_is_not_looked_at_when_its_new_self_is_closed() {
        let mut agenda = Agenda::default();
        agenda.note(0, Hint::Renamed(path("f"), path("f~")), known);
        agenda.note(2, Hint::Created(path("f")), known);
        agenda.note(5, Hint::Written(path("f")), known);
        assert!(agenda.take_due(5).is_empty());
        agenda.note(6, Hint::Removed(path("f~")), known);
        assert_eq!(agenda.take_due(6 + SETTLE_GONE_MS).len(), 2);
    }

    #[test]
    fn new_name_of_a_file_is_looked_at_before_its_old_one() {
        let mut agenda = Agenda::default();
        agenda.note(0, Hint::Removed(path("f")), known);
        agenda.note(9, Hint::Written(path("g")), known);
        let first = agenda.timeout().expect("both wait");
        assert_eq!(agenda.take_due(first), [name_scope(&path("g")).expect("not the root")]);
    }

    #[test]
    fn halves_of_a_rename_are_looked_at_together_though_the_new_one_is_written_to() {
        let mut agenda = Agenda::default();
        agenda.note(0, Hint::Renamed(path("f"), path("g")), known);
        agenda.note(30, Hint::Changed(path("g")), known);
        assert_eq!(agenda.take_due(SETTLE_NEW_MS).len(), 2);
        assert!(agenda.is_empty() && agenda.timeout().is_none() && agenda.fresh.is_empty());
    }

    #[test]
    fn what_is_due_in_a_renamed_directory_is_due_at_its_new_place() {
        let mut agenda = Agenda::default();
        agenda.note(0, Hint::Changed(path("d/x/f")), known);
        agenda.moved(1, &path("d"), &path("e"));
        let there = name_scope(&path("e/x/f")).expect("not the root");
        assert!(agenda.take_due(SETTLE_CHANGED_MS).contains(&there));
    }

    #[test]
    fn file_that_is_saved_all_the_time_backs_off_and_cools_down() {
        let mut agenda = Agenda::default();
        let mut now = 0;
        for _ in 0..200 {
            agenda.note(now, Hint::Written(path("hot")), known);
            if !agenda.take_due(now).is_empty() {
                agenda.published(now, &path("hot"));
            }
            now += 10;
        }
        agenda.note(now, Hint::Written(path("hot")), known);
        assert!(agenda.take_due(now).is_empty());
        now += 60_000;
        agenda.take_due(now);
        agenda.note(now, Hint::Written(path("hot")), known);
        assert_eq!(agenda.take_due(now).len(), 1);
    }

    #[test]
    fn growing_file_is_looked_at_at_a_bounded_age() {
        let mut agenda = Agenda::default();
        let mut now = 0;
        while agenda.take_due(now).is_empty() {
            agenda.note(now, Hint::Changed(path("f")), known);
            now += 10;
            assert!(now <= AGE_MS_MAX + 20);
        }
    }

    #[test]
    fn flood_of_names_becomes_one_scan() {
        let mut agenda = Agenda::default();
        for n in 0..=SCOPES_MAX {
            agenda.note(0, Hint::Created(path(&format!("x{n}"))), known);
        }
        assert_eq!(agenda.take_due(SETTLE_NEW_MS), [Scope::Subtree(TreePath::root())]);
    }
}
