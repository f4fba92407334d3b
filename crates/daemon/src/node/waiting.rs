//! Callers who wait: each for a goal, and no longer than it said.

use std::collections::BTreeSet;

use pleach_core::engine::{Followed, Followup, Hint, Input};
use pleach_core::values::{BLOCKED_MAX, Problem, ProblemKind};
use pleach_core::vocabulary::{TreePath, VersionVector};

use super::answer::Answer;
use super::driver::Driver;
use crate::control::{
    PathText, ProblemReport, Refusal, RefusalKind, Reply, WaitReport, WaitingFor,
};

/// How many calls may wait at a time.
const WAITERS_MAX: usize = 256;

/// What is said of what was settled or restored while this disk does not have it.
const NOT_HERE_YET: &str = "this master's disk does not have it yet: see `pleach status`";

/// How much of a reason is told.
const REASON_LETTERS_MAX: usize = 300;

/// Calls that are not answered before something else has happened.
#[derive(Default)]
pub(super) struct Waiters(Vec<Waiter>);

struct Waiter {
    reply: Answer,
    deadline_ms: u64,
    goal: Goal,
}

/// What a waiter still waits for.
enum Goal {
    /// That so many surveys have been finished: everything that was on the disk when it asked is known; then
    /// that all connected masters have it.
    Surveyed(u64),
    /// That so many surveys have been finished, and no more.
    Looked(u64),
    /// That all connected masters have these changes on their disks.
    Projected(VersionVector),
    /// That this disk has what was settled and restored here.
    Followed(Followed),
}

impl Waiters {
    pub(super) fn timeout(&self) -> Option<u64> {
        self.0.iter().map(|waiter| waiter.deadline_ms).min()
    }
}

impl Driver {
    /// Has everything on the disk looked at, then waits for the others.
    pub(super) fn wait(&mut self, timeout_ms: u64, reply: Answer) {
        self.survey(vec![Hint::Subtree(TreePath::root())], Goal::Surveyed, timeout_ms, reply);
    }

    /// Has these paths looked at.
    pub(super) fn look(&mut self, paths: Vec<PathText>, timeout_ms: u64, reply: Answer) {
        let hints = match &paths[..] {
            [] => vec![Hint::Subtree(TreePath::root())],
            _ => paths.into_iter().map(|path| Hint::Changed(path.0)).collect(),
        };
        self.survey(hints, Goal::Looked, timeout_ms, reply);
    }

    /// Waits until this disk has what was settled and restored here.
    pub(super) fn follow(&mut self, timeout_ms: u64, reply: Answer) {
        self.await_goal(timeout_ms, reply, |driver| Goal::Followed(driver.engine.follow()));
    }

    fn survey(&mut self, hints: Vec<Hint>, goal: fn(u64) -> Goal, timeout_ms: u64, reply: Answer) {
        self.await_goal(timeout_ms, reply, |driver| {
            driver.input(Input::Hints(hints));
            let goal = goal(driver.engine.surveys_started() + 1);
            driver.input(Input::Flush);
            goal
        });
    }

    fn await_goal(&mut self, timeout_ms: u64, reply: Answer, goal: impl FnOnce(&mut Self) -> Goal) {
        if self.waiters.0.len() >= WAITERS_MAX {
            let busy = Refusal::new(RefusalKind::Busy, "too many callers wait already");
            let _ = reply.send(Err(busy));
            return;
        }
        let goal = goal(self);
        let deadline_ms = self.clock.elapsed_ms().saturating_add(timeout_ms);
        self.waiters.0.push(Waiter { reply, deadline_ms, goal });
    }

    /// Answers those whose goal is reached, and those whose time is over.
    pub(super) fn answer_waiters(&mut self) {
        let now = self.clock.elapsed_ms();
        for mut waiter in std::mem::take(&mut self.waiters.0) {
            let is_over = waiter.deadline_ms <= now;
            match self.answer_to(&mut waiter.goal, is_over) {
                // The client may have gone.
                Some(answer) => drop(waiter.reply.send(answer)),
                None if waiter.reply.is_closed() => {}
                None => self.waiters.0.push(waiter),
            }
        }
    }

    /// What to answer whoever waits for this; none if that is still to be waited for.
    fn answer_to(&self, goal: &mut Goal, is_over: bool) -> Option<Result<Reply, Refusal>> {
        if let Goal::Surveyed(surveys) = *goal
            && self.engine.surveys_finished() >= surveys
        {
            *goal = Goal::Projected(self.engine.replica().version_vector().clone());
        }
        let refused = |kind, message: &str| Some(Err(Refusal::new(kind, message)));
        match goal {
            Goal::Looked(surveys) if self.engine.surveys_finished() >= *surveys => {
                Some(Ok(Reply::Done))
            }
            Goal::Looked(_) if is_over => refused(
                RefusalKind::Busy,
                "the directory is still being looked at: `pleach status` tells more",
            ),
            Goal::Looked(_) => None,
            Goal::Surveyed(_) | Goal::Projected(_) => {
                let waiting_for = self.missing(goal);
                let converged = waiting_for.is_empty();
                (converged || is_over)
                    .then_some(Ok(Reply::Wait(WaitReport { converged, waiting_for })))
            }
            Goal::Followed(followed) => match self.engine.followup(followed) {
                Followup::OnDisk => Some(Ok(Reply::Done)),
                Followup::UnderWay if !is_over => None,
                Followup::UnderWay => refused(RefusalKind::Busy, NOT_HERE_YET),
                Followup::Blocked => refused(RefusalKind::Failed, NOT_HERE_YET),
            },
        }
    }

    fn missing(&self, goal: &Goal) -> Vec<WaitingFor> {
        let Goal::Projected(goal) = goal else {
            let reason = Some("the directory is still being looked at".to_owned());
            let name = self.facts.name.clone();
            return vec![WaitingFor { name, reason, ..WaitingFor::default() }];
        };
        let waiting_for = |master, projected: &VersionVector, problems: Vec<&Problem>, total| {
            let behind = goal.ahead_of(projected);
            (behind > 0 || total > 0).then(|| WaitingFor {
                name: self.name_of(master),
                behind_changes: Some(behind),
                problems: problems.into_iter().map(shown).collect(),
                problems_total: total,
                ..WaitingFor::default()
            })
        };
        let projected = self.engine.status().projected;
        let blocking: Vec<_> = self.blocking().collect();
        let (total, first) = (blocking.len() as u64, blocking.into_iter().take(BLOCKED_MAX));
        let me = waiting_for(self.facts.key.master(), &projected, first.collect(), total);
        let others = self.engine.peers().filter_map(|(master, peer)| {
            let problems = peer.blocked.iter().collect();
            waiting_for(master, &peer.projected, problems, peer.blocked_total)
        });
        me.into_iter().chain(others).collect()
    }

    /// What keeps the disk here from being what the store holds: what can't be put on it, and what is on it
    /// and can't be read. What is never replicated is not in the way.
    fn blocking(&self) -> impl Iterator<Item = &Problem> {
        let known: BTreeSet<_> = self.engine.unprojected().map(|problem| &problem.path).collect();
        let unread = self.engine.problems().filter(move |problem| {
            matches!(problem.kind, ProblemKind::PermissionDenied | ProblemKind::Io)
                && !known.contains(&problem.path)
        });
        self.engine.unprojected().chain(unread)
    }
}

/// A problem as it is told, its reason in one line: it may come from another master.
fn shown(problem: &Problem) -> ProblemReport {
    let reason = problem.reason.chars().filter(|letter| !letter.is_control());
    let reason = reason.take(REASON_LETTERS_MAX).collect();
    ProblemReport { reason, ..ProblemReport::from(problem.clone()) }
}
