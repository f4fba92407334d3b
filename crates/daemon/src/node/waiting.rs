//! Callers who wait: each for a goal, and no longer than it said.

use std::collections::BTreeSet;

use pleach_core::engine::{Hint, Input};
use pleach_core::values::{BLOCKED_MAX, Problem, ProblemKind};
use pleach_core::vocabulary::{TreePath, VersionVector};

use super::answer::Answer;
use super::driver::Driver;
use crate::control::{
    PathText, ProblemReport, Refusal, RefusalKind, Reply, WaitReport, WaitingFor,
};

/// How many calls may wait at a time.
const WAITERS_MAX: usize = 256;

/// How much of a reason is told.
const REASON_LETTERS_MAX: usize = 300;

/// Calls of `wait` that have not been answered yet.
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

    fn survey(&mut self, hints: Vec<Hint>, goal: fn(u64) -> Goal, timeout_ms: u64, reply: Answer) {
        if self.waiters.0.len() >= WAITERS_MAX {
            let busy = Refusal::new(RefusalKind::Busy, "too many callers wait already");
            let _ = reply.send(Err(busy));
            return;
        }
        self.input(Input::Hints(hints));
        let goal = goal(self.engine.surveys_started() + 1);
        self.input(Input::Flush);
        let deadline_ms = self.clock.elapsed_ms().saturating_add(timeout_ms);
        self.waiters.0.push(Waiter { reply, deadline_ms, goal });
    }

    /// Answers those whose goal is reached, and those whose time is over.
    pub(super) fn answer_waiters(&mut self) {
        let now = self.clock.elapsed_ms();
        for mut waiter in std::mem::take(&mut self.waiters.0) {
            if let Goal::Surveyed(surveys) = waiter.goal
                && self.engine.surveys_finished() >= surveys
            {
                waiter.goal = Goal::Projected(self.engine.replica().version_vector().clone());
            }
            let is_over = waiter.deadline_ms <= now;
            let answer = match waiter.goal {
                Goal::Looked(surveys) if self.engine.surveys_finished() >= surveys => {
                    Ok(Reply::Done)
                }
                Goal::Looked(_) if is_over => {
                    let message =
                        "the directory is still being looked at: `pleach status` tells more";
                    Err(Refusal::new(RefusalKind::Busy, message))
                }
                Goal::Looked(_) => {
                    self.keep_waiting(waiter);
                    continue;
                }
                Goal::Surveyed(_) | Goal::Projected(_) => {
                    let waiting_for = self.missing(&waiter.goal);
                    let converged = waiting_for.is_empty();
                    if !converged && !is_over {
                        self.keep_waiting(waiter);
                        continue;
                    }
                    Ok(Reply::Wait(WaitReport { converged, waiting_for }))
                }
            };
            // The client may have gone.
            let _ = waiter.reply.send(answer);
        }
    }

    fn keep_waiting(&mut self, waiter: Waiter) {
        if !waiter.reply.is_closed() {
            self.waiters.0.push(waiter);
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
