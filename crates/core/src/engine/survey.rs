//! Surveys: looking at the disk, and what was found becoming a change.

use std::collections::BTreeSet;

use super::agenda::{Due, name_scope};
use super::guard::unchanged;
use super::{Blocked, Engine, Output, Turn};
use crate::snapshot::{Doubtful, Scope, Snapshot, SnapshotRules, SpecialBits, Survey};
use crate::values::{Act, BaseId, Event, Looked, Performed, Problem, Record};
use crate::vocabulary::TreePath;

/// How long the tree waits at the start for what the first survey could not make out.
const UNCLEAR_MS_MAX: u64 = 1_000;
/// How many names that wait to settle are peeked at before something counts as removed.
const PEEKS_MAX: usize = 4_096;
/// How many paths an event names.
const EVENT_PATHS_MAX: usize = 64;

impl Engine {
    pub(super) fn start_survey(&mut self, now: u64) {
        let Due { mut scopes, vanished, any_gone } = self.agenda.take_due(now);
        self.surveys_started += 1;
        self.vanished = self.absences_that_count(now, &vanished);
        scopes.extend(self.hidden_scopes());
        self.surveyed.clone_from(&scopes);
        // What one of these is called now must not pass for removed, and one that is new must settle,
        // though all that is beside it is looked at. In the place of one that is missed there may be
        // something new, too.
        let is_new = |path: &TreePath| {
            self.base.find(path).is_none_or(|known| self.missed.contains_key(&known))
        };
        // What is known to be there may be a file that came from where one is missed.
        let may_have_come = |path: &TreePath| {
            let known = self.base.find(path).and_then(|known| self.base.entry(known));
            is_new(path) || known.is_some_and(|entry| !entry.is_directory())
        };
        let new: Vec<TreePath> = match any_gone || !self.vanished.is_empty() {
            true => self.agenda.names().filter(may_have_come).take(PEEKS_MAX).collect(),
            false => {
                // With what is looked at its directory's time may be told, and that is theirs as well.
                let directories: BTreeSet<Scope> = scopes.iter().map(directory_of).collect();
                let beside = directories.iter().flat_map(|scope| self.agenda.names_in(scope));
                beside.filter(is_new).take(PEEKS_MAX).collect()
            }
        };
        // What may have been renamed into a new directory is found in there.
        let filled: BTreeSet<TreePath> = new.iter().flat_map(TreePath::above).collect();
        scopes.extend(new.iter().filter_map(|path| {
            let (at, name) = path.split_last()?;
            match filled.contains(path) {
                true => Some(Scope::Name(at, name.clone())),
                false => Some(Scope::Peek(at, name.clone())),
            }
        }));
        let survey = Box::new(Survey::new(scopes, &self.base));
        self.continue_survey(now, survey);
    }

    pub(super) fn looked(&mut self, now: u64, looked: Looked) {
        match std::mem::replace(&mut self.turn, Turn::Idle) {
            Turn::Looking(mut survey) => {
                survey.absorb(&self.base, looked);
                self.continue_survey(now, survey);
            }
            // The driver answers what was asked; anything else is its mistake and harmless.
            other => self.turn = other,
        }
    }

    fn continue_survey(&mut self, now: u64, mut survey: Box<Survey>) {
        if self.frozen.is_some() {
            return;
        }
        match survey.next_look(&self.base) {
            Some(look) => {
                self.turn = Turn::Looking(survey);
                self.queued.push(Output::Look(look));
            }
            None => self.finish_survey(now, *survey),
        }
    }

    fn finish_survey(&mut self, now: u64, survey: Survey) {
        // One is under way at a time; those before it that a lost root cut short are made up for by it.
        self.surveys_finished = self.surveys_started;
        let is_first = !self.caught_up && self.surveyed.contains(&Scope::Subtree(TreePath::root()));
        self.caught_up |= is_first;
        let is_everywhere = self.surveyed.contains(&Scope::Subtree(TreePath::root()))
            && (is_first || survey.problems().is_empty());
        self.forget_undisturbed(&survey);
        let removals_max = self.removals_max(now);
        self.note_problems(now, survey.problems());
        self.discount_absences(now);
        let unchanged = unchanged(&self.guard, &survey, &self.base);
        // Whether special bits count will be a setting of the store.
        let rules = SnapshotRules {
            special_bits: SpecialBits::Drop,
            disturbed: &self.disturbed,
            vanished: Some(&self.vanished),
            removals_max,
            passing: self.guard.passing(),
            doubtful: match is_first {
                true => Doubtful::All,
                false => Doubtful::These(&self.doubtful),
            },
            copied: &self.copied.disputed,
        };
        let unmoved = self.doubtful.keys().chain(&self.copied.disputed).copied();
        let unmoved = unmoved.filter(|&id| survey.saw_unchanged(&self.base, id));
        let mut known: BTreeSet<BaseId> = unmoved.collect();
        let mut snapshot = survey.finish(&self.base, self.replica.tree(), rules);
        self.note_withheld(now, &snapshot, &unchanged);
        self.note_missed(now, &snapshot);
        for path in &snapshot.reread {
            let delay = self.agenda.unsettled_delay(now, path);
            self.agenda.again(now, name_scope(path), delay);
            let known = self.base.find(path).and_then(|id| self.base.entry(id));
            if known.is_some_and(|entry| entry.is_directory()) {
                self.agenda.again(now, Scope::Subtree(path.clone()), delay);
            }
        }
        let is_clear = self.missed.is_empty() && self.agenda.is_empty();
        if is_first && !is_clear {
            self.unclear_until = Some(now + UNCLEAR_MS_MAX);
        } else if is_clear {
            self.unclear_until = None;
        }
        let mut paths = self.removed_paths(&snapshot);
        let moving = self.moving_directories(&snapshot);
        let (local, performed) = self.replica.perform(&snapshot.acts);
        snapshot.settle(&mut self.base, &performed);
        self.touched.extend(self.base.take_parted());
        known.extend(&snapshot.seen);
        let base = &self.base;
        self.doubtful.retain(|id, _| base.entry(*id).is_some() && !known.contains(id));
        self.copied.disputed.retain(|id| base.entry(*id).is_some() && !known.contains(id));
        self.forget_copied();
        if is_everywhere {
            self.forget_unparked();
        }
        self.plan_doubted();
        for (id, from) in moving {
            if let Some(to) = self.base.path(id) {
                self.agenda.moved(now, &from, &to);
            }
        }
        self.touched.extend(&snapshot.adopted);
        if snapshot.acts.is_empty() {
            return;
        }
        let acts = snapshot.acts.acts.len() as u64;
        self.note_published(now, &snapshot, &performed, &mut paths);
        self.event(Event::LocalChange { paths, acts });
        self.publish(local, std::mem::take(&mut snapshot.contents));
    }

    /// Of an effect that was not done after all, nothing is left in its directory that was not there before.
    fn forget_undisturbed(&mut self, survey: &Survey) {
        let Self { disturbed, base, records, .. } = self;
        disturbed.retain(|&id| {
            let undisturbed = survey.saw_unchanged(base, id);
            if undisturbed {
                records.push(Record::Intent { id: id.0, row: None });
            }
            !undisturbed
        });
    }

    /// Nodes are planned again whose paths have settled, and are not to be looked for once more.
    fn plan_doubted(&mut self) {
        let Self { base, missed, agenda, touched, .. } = self;
        self.doubted.retain(|&node, path| {
            let missed = base.by_node(node).is_some_and(|id| missed.contains_key(&id));
            let waits = !agenda.is_empty() && (missed || agenda.is_settling(path));
            if !waits {
                touched.insert(node);
            }
            waits
        });
    }

    /// What left the parking area and was found nowhere is no more: removed by our own effect.
    fn forget_unparked(&mut self) {
        for id in std::mem::take(&mut self.unparked) {
            let parked = self.base.entry(id).filter(|entry| entry.parent == BaseId::PARKING);
            let nodes: Vec<_> = parked.into_iter().flat_map(|entry| &entry.nodes).collect();
            self.touched.extend(nodes.iter().map(|seen| seen.node));
            if !nodes.is_empty() {
                self.base.remove(id);
            }
        }
    }

    /// Notes what could not be looked at; what could be is no problem any more.
    fn note_problems(&mut self, now: u64, problems: &[Problem]) {
        let again: BTreeSet<&TreePath> = problems.iter().map(|problem| &problem.path).collect();
        let surveyed = &self.surveyed;
        let directories: BTreeSet<TreePath> =
            self.problems.paths().filter(|path| self.is_known_directory(path)).cloned().collect();
        let solved = self.problems.looked_at(|path| {
            // That a directory is there, does not say that it can be listed.
            let is_enough = |scope: &Scope| match scope {
                Scope::Name(..) | Scope::Peek(..) => !directories.contains(path),
                Scope::Directory(_) | Scope::Subtree(_) => true,
            };
            let mut scopes = surveyed.iter().filter(|scope| is_enough(scope));
            !again.contains(path) && scopes.any(|scope| covers(scope, path))
        });
        self.queued.extend(solved.into_iter().map(Output::Event));
        for problem in problems {
            let blocked = Blocked::Path(problem.path.clone());
            if let Some(event) = self.problems.note(now, blocked, problem.clone()) {
                self.event(event);
            }
        }
    }

    /// Directories that have been moved, and where the base still has them.
    fn moving_directories(&self, snapshot: &Snapshot) -> Vec<(BaseId, TreePath)> {
        snapshot
            .moved()
            .filter(|&id| self.base.entry(id).is_some_and(|entry| entry.is_directory()))
            .filter_map(|id| Some((id, self.base.path(id)?)))
            .collect()
    }

    /// Paths of what the acts remove, while the base still has them.
    fn removed_paths(&self, snapshot: &Snapshot) -> Vec<TreePath> {
        let acts = snapshot.acts.acts.iter();
        let removed = acts.filter_map(|act| match act {
            Act::Remove { entry, .. } => self.base.path(self.base.by_node(entry[0].node)?),
            _ => None,
        });
        removed.take(EVENT_PATHS_MAX).collect()
    }

    /// Counts edits towards the heat of their files, and adds the paths of what is not removed. A directory's
    /// time goes with what happened in it, and is named only if that is all.
    fn note_published(
        &mut self,
        now: u64,
        snapshot: &Snapshot,
        performed: &[Performed],
        paths: &mut Vec<TreePath>,
    ) {
        let touched = snapshot.acts.acts.iter().all(|act| matches!(act, Act::Touch { .. }));
        for (act, done) in snapshot.acts.acts.iter().zip(performed) {
            let edit = matches!(act, Act::Edit { .. });
            let named = match act {
                Act::Remove { .. } => false,
                Act::Touch { .. } => touched,
                _ => true,
            };
            if !edit && (!named || paths.len() >= EVENT_PATHS_MAX) {
                continue;
            }
            let node = done.written.first().map(|&(node, _)| node);
            let id = node.and_then(|node| self.base.by_node(node));
            let Some(path) = id.and_then(|id| self.base.path(id)) else { continue };
            if edit {
                self.agenda.published(now, &path);
            }
            if paths.len() < EVENT_PATHS_MAX {
                paths.push(path);
            }
        }
    }
}

/// All that is beside what is looked at.
fn directory_of(scope: &Scope) -> Scope {
    match scope {
        Scope::Name(directory, _) => Scope::Directory(directory.clone()),
        other => other.clone(),
    }
}

pub(super) fn covers(scope: &Scope, path: &TreePath) -> bool {
    match scope {
        // What was peeked at, was not looked at.
        Scope::Peek(..) => false,
        Scope::Name(directory, name) => {
            path.split_last().is_some_and(|(above, last)| above == *directory && last == name)
        }
        Scope::Directory(directory) => {
            path == directory || path.split_last().is_some_and(|(above, _)| above == *directory)
        }
        Scope::Subtree(directory) => path.starts_with(directory),
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::{Identity, Input, Signer, Stored};
    use crate::values::{ChangeId, DirectoryState, Listed, Look, Member, ProblemKind, Signature};
    use crate::vocabulary::{MasterId, Moment, StoreId, WriterId};

    use super::*;

    struct Unsigned;

    impl Signer for Unsigned {
        fn sign(&self, _: ChangeId, _: &[u8]) -> Signature {
            Signature::new(&[0; 64])
        }
    }

    fn founder() -> Engine {
        let (store, master) = (StoreId([1; 32]), MasterId([2; 32]));
        let writer = WriterId::new(master, [3; 8]);
        let signer = Box::new(Unsigned);
        let identity = Identity { store, founder: master, master, writer, signer };
        let mut engine = Engine::open(identity, Stored::default()).unwrap();
        let (name, signature) = ("a".to_owned(), Signature::new(&[0; 64]));
        let member = Member {
            master,
            name,
            addresses: vec![],
            invited_by: master,
            signature,
            removed: false,
        };
        engine.handle(Moment::default(), Input::SetMember(member));
        engine
    }

    fn next_look(engine: &mut Engine) -> Option<Look> {
        std::iter::from_fn(|| engine.poll_output())
            .find_map(|output| if let Output::Look(look) = output { Some(look) } else { None })
    }

    #[test]
    fn survey_that_a_lost_root_cut_short_is_made_up_for_by_the_next() {
        let mut engine = founder();
        let cut_short = next_look(&mut engine).expect("everything is looked at once");
        let problem =
            Problem { kind: ProblemKind::RootLost, path: TreePath::root(), reason: String::new() };
        let now = Moment::default();
        engine.handle(now, Input::RootLost(problem));
        assert_eq!(cut_short.lists.len(), 1);
        engine.handle(now, Input::Looked(Looked::default()));
        assert_eq!(engine.surveys_finished(), 0, "nothing counts of what a lost root shows");
        assert_eq!(next_look(&mut engine), None);

        engine.handle(now, Input::RootBack);
        assert!(next_look(&mut engine).is_some(), "everything is looked at again");
        let fingerprint = engine.base().entry(BaseId::ROOT).expect("the root").fingerprint;
        let state =
            DirectoryState::Readable { fingerprint, found: vec![], gone: vec![], unchanged: 0 };
        let lists = vec![Listed { path: TreePath::root(), state }];
        engine.handle(now, Input::Looked(Looked { lists, reads: vec![] }));
        assert_eq!(engine.surveys_started(), 2);
        assert_eq!(engine.surveys_finished(), 2, "who waits for the second knows that it is over");
    }
}
