//! Problems: what can't be done at present, by path, and when each is tried again (P7).

use std::collections::{BTreeMap, BTreeSet};

use crate::values::{Event, Problem, ProblemKind};
use crate::vocabulary::{ContentHash, MasterId, NodeId, TreePath};

const RETRY_DELAY_MS_FIRST: u64 = 500;
/// All should be well within half a minute after the cause is gone, the work itself included.
const RETRY_DELAY_MS_MAX: u64 = 10_000;
/// With more problems than these, each is tried more rarely.
const FEW: usize = 1_000;
const RETRY_DELAY_MS_OF_MANY: u64 = 30_000;
/// How many problems are listed one by one; the rest are only tried again.
const LISTED_MAX: usize = 10_000;
/// How long what can't be looked at keeps what is missing elsewhere from counting as removed: longer than the
/// first few attempts take.
pub(super) const HIDES_MS_MAX: u64 = 3_000;

/// What a problem keeps from being done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Blocked {
    /// A node can't be projected.
    Node(NodeId),
    /// A path can't be looked at.
    Path(TreePath),
    /// A content can't be had; asking for it again is another's matter.
    Content(ContentHash),
    /// What is gone from the disk waits for a person.
    Removals,
    /// What a master wrote can't be read here.
    Changes(MasterId),
}

#[derive(Debug)]
struct Entry {
    problem: Problem,
    attempts: u32,
    retry_at: Option<u64>,
    /// When it was first noted.
    since: u64,
}

/// Open problems.
#[derive(Debug, Default)]
pub(super) struct Problems {
    open: BTreeMap<Blocked, Entry>,
    /// What could not be listed any more, and when it is tried again.
    unlisted: BTreeSet<Blocked>,
    unlisted_retry_at: Option<u64>,
    /// Counts how often what is in the way of nodes has changed.
    revision: u64,
}

impl Problems {
    /// Notes a problem; a new one is an event. One of a kind that waits for a person to change the
    /// file (a socket) is not retried: the watcher or the next scan sees that.
    pub(super) fn note(&mut self, now: u64, blocked: Blocked, problem: Problem) -> Option<Event> {
        let known = self.open.get(&blocked);
        // What was found once more before its time, for another reason, is no further attempt.
        let waiting = known.filter(|entry| entry.retry_at.is_some_and(|at| at > now));
        let (retry_at, attempts) = (
            waiting.and_then(|entry| entry.retry_at),
            known.map_or(0, |entry| entry.attempts + u32::from(waiting.is_none())),
        );
        let new = known.is_none_or(|entry| entry.problem != problem);
        if known.is_none() && self.open.len() >= LISTED_MAX {
            self.unlisted.insert(blocked);
            self.unlisted_retry_at.get_or_insert(now + RETRY_DELAY_MS_OF_MANY);
            return None;
        }
        self.unlisted.remove(&blocked);
        let longest = match self.open.len() {
            few if few <= FEW => RETRY_DELAY_MS_MAX,
            _ => RETRY_DELAY_MS_OF_MANY,
        };
        let delay = (RETRY_DELAY_MS_FIRST << attempts.min(10)).min(longest);
        let is_retried = is_retried(problem.kind) && !matches!(blocked, Blocked::Content(_));
        let retry_at = is_retried.then_some(retry_at.unwrap_or(now + delay));
        let event = new.then(|| Event::ProblemAppeared(problem.clone()));
        self.revision += u64::from(new && keeps_from_the_disk(&blocked));
        let since = known.map_or(now, |entry| entry.since);
        self.open.insert(blocked, Entry { problem, attempts, retry_at, since });
        event
    }

    /// Whether a node that could not be projected is to be tried again.
    pub(super) fn retry_nodes(&self) -> bool {
        let mut open = self.open.iter();
        !self.unlisted.is_empty()
            || open.any(|(blocked, entry)| {
                matches!(blocked, Blocked::Node(_)) && is_retried(entry.problem.kind)
            })
    }

    /// Whether there is a problem with it.
    pub(super) fn has(&self, blocked: &Blocked) -> bool {
        self.open.contains_key(blocked) || self.unlisted.contains(blocked)
    }

    /// What was blocked could be done.
    pub(super) fn solved(&mut self, blocked: &Blocked) -> Option<Event> {
        self.unlisted.remove(blocked);
        let entry = self.open.remove(blocked)?;
        self.revision += u64::from(keeps_from_the_disk(blocked));
        Some(Event::ProblemSolved { path: entry.problem.path })
    }

    /// Problems of looking at paths that `is_fine` says could be looked at are gone.
    pub(super) fn looked_at(&mut self, is_fine: impl Fn(&TreePath) -> bool) -> Vec<Event> {
        let mut solved = Vec::new();
        self.open.retain(|blocked, _| match blocked {
            Blocked::Path(path) if is_fine(path) => {
                solved.push(Event::ProblemSolved { path: path.clone() });
                false
            }
            _ => true,
        });
        solved
    }

    /// Problems of contents of which `is_fine` says that they came, or that nobody wants them any more.
    pub(super) fn fetched(&mut self, is_fine: impl Fn(&ContentHash) -> bool) -> Vec<Event> {
        let contents = self.open.range(Blocked::Content(ContentHash([0; 32]))..);
        let fine = contents.filter_map(|(blocked, _)| match blocked {
            Blocked::Content(hash) if is_fine(hash) => Some(blocked.clone()),
            _ => None,
        });
        let fine: Vec<Blocked> = fine.collect();
        fine.iter().filter_map(|blocked| self.solved(blocked)).collect()
    }

    /// What is worth another try now.
    pub(super) fn take_due(&mut self, now: u64) -> Vec<Blocked> {
        let mut due = Vec::new();
        for (blocked, entry) in &mut self.open {
            if entry.retry_at.is_some_and(|at| at <= now) {
                entry.retry_at = None;
                due.push(blocked.clone());
            }
        }
        if self.unlisted_retry_at.is_some_and(|at| at <= now) {
            self.unlisted_retry_at = None;
            due.extend(std::mem::take(&mut self.unlisted));
        }
        due
    }

    pub(super) fn timeout(&self) -> Option<u64> {
        let listed = self.open.values().filter_map(|entry| entry.retry_at);
        listed.chain(self.unlisted_retry_at).min()
    }

    /// The paths that can't be looked at.
    pub(super) fn paths(&self) -> impl Iterator<Item = &TreePath> {
        self.open.keys().filter_map(|blocked| match blocked {
            Blocked::Path(path) => Some(path),
            Blocked::Node(_) | Blocked::Content(_) | Blocked::Removals | Blocked::Changes(_) => {
                None
            }
        })
    }

    /// The paths that can't be looked at, and may be at any time: what is missing may have been renamed to
    /// there.
    pub(super) fn hidden(&self) -> impl Iterator<Item = &TreePath> {
        self.hiding().map(|(path, _)| path)
    }

    /// Whether something may have been renamed to where nobody could look lately. What has been hidden for
    /// long says nothing any more.
    pub(super) fn hide(&self, now: u64) -> bool {
        self.hiding().any(|(_, entry)| now < entry.since + HIDES_MS_MAX)
    }

    fn hiding(&self) -> impl Iterator<Item = (&TreePath, &Entry)> {
        self.open.iter().filter_map(|(blocked, entry)| match blocked {
            // Nothing is renamed to another file system.
            Blocked::Path(_) if entry.problem.kind == ProblemKind::MountPoint => None,
            Blocked::Path(path) if is_retried(entry.problem.kind) => Some((path, entry)),
            _ => None,
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.open.values().map(|entry| &entry.problem)
    }

    /// What keeps something of the tree from being put on the disk.
    pub(super) fn unprojected(&self) -> impl Iterator<Item = &Problem> {
        let open = self.open.iter().filter(|(blocked, _)| keeps_from_the_disk(blocked));
        open.map(|(_, entry)| &entry.problem)
    }

    /// Grows whenever [`Self::unprojected`] changes.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }
}

fn keeps_from_the_disk(blocked: &Blocked) -> bool {
    match blocked {
        Blocked::Node(_) | Blocked::Content(_) | Blocked::Removals | Blocked::Changes(_) => true,
        Blocked::Path(_) => false,
    }
}

fn is_retried(kind: ProblemKind) -> bool {
    match kind {
        ProblemKind::PermissionDenied
        | ProblemKind::NoSpace
        | ProblemKind::ReadOnly
        | ProblemKind::NeverSettles
        | ProblemKind::ContentMissing
        // No event tells of an unmounting.
        | ProblemKind::MountPoint
        | ProblemKind::Io => true,
        ProblemKind::SpecialFile
        | ProblemKind::UnsupportedName
        | ProblemKind::WatchLimit
        | ProblemKind::MassDelete
        | ProblemKind::ClonedMaster
        | ProblemKind::ShutOut
        | ProblemKind::OtherVersion
        | ProblemKind::LaterChange
        | ProblemKind::IgnoreRule
        | ProblemKind::Damaged
        | ProblemKind::Other
        | ProblemKind::RootLost => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: ProblemKind) -> Problem {
        Problem { kind, path: TreePath::root(), reason: "no".into() }
    }

    #[test]
    fn problem_is_told_once_and_retried_ever_more_slowly() {
        let mut problems = Problems::default();
        let blocked = Blocked::Node(NodeId([1; 16]));
        let full = problem(ProblemKind::NoSpace);
        assert!(problems.note(0, blocked.clone(), full.clone()).is_some());
        let first = problems.timeout().expect("it is retried");
        assert_eq!(problems.take_due(first), std::slice::from_ref(&blocked));
        assert!(problems.take_due(first).is_empty());
        assert!(problems.note(first, blocked.clone(), full).is_none());
        assert!(problems.timeout().expect("it is retried") > 2 * first);
        assert!(problems.solved(&blocked).is_some());
        assert_eq!(problems.timeout(), None);
    }

    #[test]
    fn what_is_found_in_the_way_for_another_reason_does_not_wait_longer_for_that() {
        let mut problems = Problems::default();
        let blocked = Blocked::Path(TreePath::root());
        problems.note(0, blocked.clone(), problem(ProblemKind::Io));
        let first = problems.timeout();
        (0..20).for_each(|now| drop(problems.note(now, blocked.clone(), problem(ProblemKind::Io))));
        assert_eq!(problems.timeout(), first);
    }

    #[test]
    fn more_than_are_listed_are_tried_again_all_the_same() {
        let mut problems = Problems::default();
        let blocked = |number: u32| {
            let mut node = [0; 16];
            node[..4].copy_from_slice(&number.to_le_bytes());
            Blocked::Node(NodeId(node))
        };
        let count = LISTED_MAX as u32 + 7;
        for number in 0..count {
            let _ = problems.note(0, blocked(number), problem(ProblemKind::NoSpace));
        }
        assert_eq!(problems.iter().count(), LISTED_MAX);
        assert_eq!(problems.take_due(RETRY_DELAY_MS_OF_MANY).len(), count as usize);
        problems.solved(&blocked(count - 1));
        assert!(problems.take_due(u64::MAX).is_empty());
    }

    #[test]
    fn socket_is_listed_and_not_retried() {
        let mut problems = Problems::default();
        let socket = problem(ProblemKind::SpecialFile);
        problems.note(0, Blocked::Path(TreePath::root()), socket);
        assert_eq!(problems.timeout(), None);
        assert_eq!(problems.iter().count(), 1);
    }

    #[test]
    fn mount_is_looked_at_again_and_hides_nothing_that_was_renamed() {
        let mut problems = Problems::default();
        problems.note(0, Blocked::Path(TreePath::root()), problem(ProblemKind::MountPoint));
        assert!(problems.timeout().is_some(), "no event tells that it is gone");
        assert!(!problems.hide(0));
        problems.note(0, Blocked::Path(TreePath::root()), problem(ProblemKind::Io));
        assert!(problems.hide(0));
    }
}
