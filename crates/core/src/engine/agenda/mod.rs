//! The agenda: what on the disk is to be looked at, and when it will have settled.
//!
//! A save to a known path is looked at once it is closed or renamed into place. A new name waits in case
//! it is somebody's temporary file, and a name that went waits in case it comes back: what it is called
//! now is found first, and half a rename is not taken for a removal. A file that an editor renamed away
//! and wrote anew waits until the editor removes what it renamed. A file that is published again and again
//! backs off by itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Hint;
use crate::snapshot::Scope;
use crate::vocabulary::{Name, TreePath};

/// How long a new name waits.
const SETTLE_NEW_MS: u64 = 40;
/// How long a new name waits that looks like one of an editor: what it keeps beside a file while that is
/// open, or before it has saved.
const SETTLE_EDITORS_MS: u64 = 2_000;
/// How long a name must have been gone before that counts: longer than a new one waits.
pub(super) const SETTLE_GONE_MS: u64 = 60;
/// How long a file that is being written must be quiet.
const SETTLE_CHANGED_MS: u64 = 200;
/// How long a file that was renamed away and written anew waits for its backup to be removed.
const SETTLE_BACKUP_MS: u64 = 500;
/// How old a change gets at most before it is looked at.
const AGE_MS_MAX: u64 = 3_000;
/// How many scopes are kept apart; beyond, everything is looked at.
const SCOPES_MAX: usize = 20_000;
/// How many files that were renamed away are remembered.
const BACKUPS_MAX: usize = 256;
/// How long a hint may still name a directory by the path from which it was moved, and how many such moves
/// are remembered.
const MOVES_MS_MAX: u64 = 5_000;
const MOVES_MAX: usize = 64;
/// How often a file may be published in a row before it backs off.
const HEAT_FREE: u32 = 40;
/// How long it takes to forget one publication.
const HEAT_DECAY_MS: u64 = 250;
/// The longest a hot file waits.
const HEAT_DELAY_MS_MAX: u64 = 5_000;
/// How many hot files are remembered.
const HEAT_FILES_MAX: usize = 1_024;

#[derive(Clone, Copy, Debug)]
struct Pending {
    first_ms: u64,
    due_ms: u64,
    /// Since when the name has been gone, as far as was told.
    vanished_ms: Option<u64>,
}

/// A known file that was renamed to a new name.
#[derive(Clone, Debug)]
struct Backup {
    name: TreePath,
    renamed_ms: u64,
    /// Whether the file has been written anew and closed.
    complete: bool,
}

/// What a path is to the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Unknown,
    Directory,
    Other,
}

/// What is due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) scopes: Vec<Scope>,
    /// Names that have been gone for long enough, as far as was told.
    pub(super) vanished: Vec<TreePath>,
    /// Whether any name is or was gone.
    pub(super) any_gone: bool,
}

/// What is to be looked at, by when it is due.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    pending: BTreeMap<Scope, Pending>,
    by_due: BTreeSet<(u64, Scope)>,
    /// By the path of the file.
    backups: BTreeMap<TreePath, Backup>,
    /// The last moves of directories, from where and to where, in order.
    moves: VecDeque<(u64, TreePath, TreePath)>,
    heat: BTreeMap<TreePath, (u32, u64)>,
}

impl Agenda {
    /// Notes a hint. One that names a directory by the path that it had a moment ago, for the watcher had
    /// not heard of the move yet, is noted at both.
    pub(super) fn note(&mut self, now: u64, hint: Hint, known: impl Fn(&TreePath) -> Known) {
        let there = match &hint {
            Hint::Written(path) => self.path_by_now(now, path).map(Hint::Written),
            Hint::Changed(path) => self.path_by_now(now, path).map(Hint::Changed),
            Hint::Removed(path) => self.path_by_now(now, path).map(Hint::Removed),
            Hint::Directory(path) => self.path_by_now(now, path).map(Hint::Directory),
            Hint::Subtree(path) => self.path_by_now(now, path).map(Hint::Subtree),
            // Its halves are hints of their own.
            Hint::Renamed(..) => None,
        };
        for hint in there.into_iter().chain([hint]) {
            self.note_here(now, hint, &known);
        }
    }

    fn note_here(&mut self, now: u64, hint: Hint, known: &impl Fn(&TreePath) -> Known) {
        match hint {
            Hint::Written(path) => {
                let delay = match known(&path) {
                    Known::Unknown if is_editors(&path) => SETTLE_EDITORS_MS,
                    Known::Unknown => SETTLE_NEW_MS,
                    Known::Directory | Known::Other => self.heat_delay(&path, now),
                };
                self.complete(now, &path, delay);
            }
            Hint::Removed(path) => self.vanished(now, &path),
            Hint::Changed(path) => {
                let quiet = match known(&path) {
                    Known::Unknown if is_editors(&path) => SETTLE_EDITORS_MS,
                    _ => SETTLE_CHANGED_MS,
                };
                let delay = quiet + self.heat_delay(&path, now);
                self.put(now, name_scope(&path), now + delay);
                self.is_written_anew(&path);
            }
            Hint::Renamed(from, to) => match (known(&from), known(&to)) {
                // A directory that is called otherwise is at rest.
                (Known::Directory, _) => {
                    self.set_due(&name_scope(&from), now);
                    self.set_due(&name_scope(&to), now);
                }
                (Known::Other, Known::Unknown) => self.renamed_away(now, from, to),
                // A directory that was called so for a moment only.
                (Known::Unknown, _) if self.waits_below(&from) => self.moved(now, &from, &to),
                _ => {}
            },
            Hint::Directory(path) => self.put(now, Scope::Directory(path), now + SETTLE_NEW_MS),
            Hint::Subtree(path) => self.put(now, Scope::Subtree(path), now + SETTLE_NEW_MS),
        }
        if self.pending.len() > SCOPES_MAX {
            self.pending.clear();
            self.by_due.clear();
            self.put(now, Scope::Subtree(TreePath::root()), now + SETTLE_NEW_MS);
        }
    }

    /// Looks at this again after `delay_ms`.
    pub(super) fn again(&mut self, now: u64, scope: Scope, delay_ms: u64) {
        self.put(now, scope, now + delay_ms);
    }

    /// A directory is called otherwise now: what is to be looked at below it, is to be looked at there.
    /// At the old place there may be something new, so that stays due as well.
    pub(super) fn moved(&mut self, now: u64, from: &TreePath, to: &TreePath) {
        let there = |path: &TreePath| moved_path(path, from, to);
        if self.moves.len() >= MOVES_MAX {
            self.moves.pop_front();
        }
        self.moves.push_back((now, from.clone(), to.clone()));
        let found: Vec<(Scope, Pending)> = self
            .pending
            .iter()
            .filter_map(|(scope, pending)| {
                let scope = match scope {
                    Scope::Name(path, name) => Scope::Name(there(path)?, name.clone()),
                    Scope::Directory(path) => Scope::Directory(there(path)?),
                    Scope::Subtree(path) => Scope::Subtree(there(path)?),
                    Scope::Peek(..) => return None,
                };
                Some((scope, *pending))
            })
            .collect();
        for (scope, pending) in found {
            self.put(now, scope.clone(), pending.due_ms);
            if let Some(moved) = self.pending.get_mut(&scope) {
                moved.vanished_ms = moved.vanished_ms.max(pending.vanished_ms);
            }
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

    /// Takes what is due.
    pub(super) fn take_due(&mut self, now: u64) -> Due {
        let mut due = Due::default();
        while let Some((at, _)) = self.by_due.first()
            && *at <= now
        {
            let (_, scope) = self.by_due.pop_first().expect("it has a first");
            let pending = self.pending.remove(&scope);
            if let Scope::Name(directory, name) = &scope {
                let path = directory.join(name);
                self.backups.remove(&path);
                let since = pending.and_then(|pending| pending.vanished_ms);
                due.any_gone |= since.is_some();
                if since.is_some_and(|since| since + SETTLE_GONE_MS <= now) {
                    due.vanished.push(path);
                }
            }
            due.scopes.push(scope);
        }
        due
    }

    /// Whether something happened to the path that has not been looked at, or a directory above went.
    pub(super) fn is_settling(&self, path: &TreePath) -> bool {
        if self.pending.is_empty() {
            return false;
        }
        if self.pending.contains_key(&name_scope(path)) {
            return true;
        }
        path.above().any(|directory| {
            let pending = self.pending.get(&name_scope(&directory));
            pending.is_some_and(|pending| pending.vanished_ms.is_some())
        })
    }

    /// The names that wait.
    pub(super) fn names(&self) -> impl Iterator<Item = TreePath> {
        self.pending.keys().filter_map(|scope| match scope {
            Scope::Name(directory, name) => Some(directory.join(name)),
            _ => None,
        })
    }

    /// The names that wait in the directories that a scope looks into.
    pub(super) fn names_in(&self, scope: &Scope) -> Vec<TreePath> {
        let (directory, below) = match scope {
            Scope::Subtree(directory) => (directory, true),
            other => (other.directory(), false),
        };
        let waiting = self.pending.range(Scope::Name(directory.clone(), first_name())..);
        let names = waiting.map_while(|(scope, _)| match scope {
            Scope::Name(at, name) if at == directory || (below && at.starts_with(directory)) => {
                Some(at.join(name))
            }
            _ => None,
        });
        names.collect()
    }

    /// Whether everything is to be looked at: hints were lost, and what one of them named may be called
    /// anything now.
    pub(super) fn has_lost_hints(&self) -> bool {
        self.pending.contains_key(&Scope::Subtree(TreePath::root()))
    }

    /// Whether anything waits at or below a directory.
    fn waits_below(&self, directory: &TreePath) -> bool {
        let firsts = [
            Scope::Name(directory.clone(), first_name()),
            Scope::Directory(directory.clone()),
            Scope::Subtree(directory.clone()),
        ];
        firsts.into_iter().any(|first| {
            let waiting = self.pending.range(first..).next();
            waiting.is_some_and(|(scope, _)| scope.directory().starts_with(directory))
        })
    }

    /// When something is due.
    pub(super) fn timeout(&self) -> Option<u64> {
        self.by_due.first().map(|&(at, _)| at)
    }

    /// Whether anything waits.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The name is whole: due after `delay_ms`, or when it would count as gone, or without its backup.
    fn complete(&mut self, now: u64, path: &TreePath, delay_ms: u64) {
        let scope = name_scope(path);
        let settled = match self.pending.get_mut(&scope) {
            None => return self.put(now, scope, now + delay_ms),
            // It is there again: were it gone once more, that would be told.
            Some(pending) => pending.vanished_ms.take().map_or(0, |since| since + SETTLE_GONE_MS),
        };
        let backup = match self.is_written_anew(path) {
            Some(backup) => {
                backup.complete = true;
                backup.renamed_ms + SETTLE_BACKUP_MS
            }
            None => 0,
        };
        self.set_due(&scope, (now + delay_ms).max(settled).max(backup));
    }

    /// Where something below a directory that moved lately is by now.
    fn path_by_now(&self, now: u64, path: &TreePath) -> Option<TreePath> {
        let lately = self.moves.iter().filter(|(at, ..)| at + MOVES_MS_MAX > now);
        lately.fold(None, |found: Option<TreePath>, (_, from, to)| {
            let path = found.as_ref().unwrap_or(path);
            let moved = (path != from).then(|| moved_path(path, from, to)).flatten();
            moved.or(found)
        })
    }

    fn vanished(&mut self, now: u64, path: &TreePath) {
        let scope = name_scope(path);
        self.put(now, scope.clone(), now + SETTLE_GONE_MS);
        if let Some(pending) = self.pending.get_mut(&scope) {
            pending.vanished_ms = Some(now);
        }
        let backed_up = self.backups.iter().find(|(_, backup)| backup.name == *path);
        if let Some((file, backup)) = backed_up {
            let (file, complete) = (file.clone(), backup.complete);
            self.backups.remove(&file);
            if complete {
                self.set_due(&name_scope(&file), now);
            }
        }
    }

    fn renamed_away(&mut self, now: u64, file: TreePath, to: TreePath) {
        if self.backups.len() >= BACKUPS_MAX {
            self.backups.clear();
        }
        self.backups.insert(file, Backup { name: to, renamed_ms: now, complete: false });
    }

    /// Something is called as a file was that has been renamed away: what that is called now is looked at
    /// no sooner than this.
    fn is_written_anew(&mut self, path: &TreePath) -> Option<&mut Backup> {
        let backup = self.backups.get(path)?;
        let (name, until) = (name_scope(&backup.name), backup.renamed_ms + SETTLE_BACKUP_MS);
        if self.pending.get(&name).is_some_and(|pending| pending.due_ms < until) {
            self.set_due(&name, until);
        }
        self.backups.get_mut(path)
    }

    fn put(&mut self, now: u64, scope: Scope, due_ms: u64) {
        let (first_ms, vanished_ms, due_ms) = match self.pending.get(&scope) {
            None => (now, None, due_ms),
            Some(old) => {
                let due_ms = due_ms.max(old.due_ms).min(old.first_ms + AGE_MS_MAX);
                (old.first_ms, old.vanished_ms, due_ms)
            }
        };
        let pending = Pending { first_ms, due_ms, vanished_ms };
        if let Some(old) = self.pending.insert(scope.clone(), pending) {
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

/// Whether the name is one that an editor gives to what it keeps beside a file: the swap file of vim, the
/// lock of emacs, backups and temporary files.
fn is_editors(path: &TreePath) -> bool {
    let Some(name) = path.names().last().map(Name::as_bytes) else { return false };
    let is_swap = name.starts_with(b".")
        && matches!(name, [.., b'.', b's', b'w', last] if (b'a'..=b'p').contains(last));
    is_swap
        || name.starts_with(b".#")
        || [&b"~"[..], b".bak", b".tmp"].iter().any(|ending| name.ends_with(ending))
}

/// The path after a directory at or above it was moved; none if none was.
fn moved_path(path: &TreePath, from: &TreePath, to: &TreePath) -> Option<TreePath> {
    let below = path.names().get(from.names().len()..)?;
    path.starts_with(from).then(|| below.iter().fold(to.clone(), |path, name| path.join(name)))
}

fn first_name() -> Name {
    Name::new(*b"\x01").expect("the first of all names")
}

/// The name that is to be looked at; of the root, what it holds.
pub(super) fn name_scope(path: &TreePath) -> Scope {
    match path.split_last() {
        Some((directory, name)) => Scope::Name(directory, name.clone()),
        None => Scope::Directory(path.clone()),
    }
}

#[cfg(test)]
mod tests;
