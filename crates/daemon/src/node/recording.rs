//! Recording: what the engine wants durable, before anything that follows from it is done.
//!
//! A database that can't be written (no space, an I/O error) stops this master, and not its daemon: nothing
//! is published, and nothing done to the tree, that is not recorded. The commit is tried again and again.
//! Meanwhile `status` is answered, with the problem; contents are served; what else comes waits, within
//! a bound, or is asked for anew afterwards.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use pleach_core::engine::{Hint, Input};
use pleach_core::values::{Event, Problem, ProblemKind, Record};
use pleach_core::vocabulary::{MasterId, Name, TreePath};

use super::driver::{Driver, Job};
use crate::control::{Call, Refusal, RefusalKind, Request};
use crate::disk::{STATE_NAME, must_be_durable};
use crate::net::NetEvent;
use crate::state::StateError;

/// How long to wait before writing state again that could not be written.
const COMMIT_RETRY: Duration = Duration::from_secs(1);
/// How long it is until what could not be made durable is tried again.
const DURABLE_RETRY: Duration = Duration::from_secs(5);
/// How many jobs wait meanwhile; of what comes beyond it is noted where to look and whom to ask.
const PUT_OFF_MAX: usize = 1_024;

/// Whether records are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Recorded {
    Durably,
    /// The daemon is to stop and they can't be: nothing that follows from them may be done, and nothing
    /// recorded that comes after them.
    GivenUp,
}

/// What is in the way of recording, and what waits for it.
#[derive(Default)]
pub(super) struct Recording {
    /// Why the database can't be written.
    pub(super) problem: Option<Problem>,
    /// Why what was written here could not be made durable when that was last tried.
    pub(super) undurable: Option<Problem>,
    durable_at_ms: u64,
    put_off: VecDeque<Job>,
    /// Masters of whom something was dropped.
    missed: BTreeSet<MasterId>,
    /// Whether hints were dropped.
    hints_missed: bool,
    given_up: bool,
}

impl Recording {
    /// Whether nothing is recorded any more, for something before could not be.
    pub(super) fn has_given_up(&self) -> bool {
        self.given_up
    }
}

impl Driver {
    /// Commits, however long it takes.
    pub(super) fn commit(&mut self, records: &[Record]) -> Recorded {
        if self.recording.given_up {
            return Recorded::GivenUp;
        }
        if records.is_empty() {
            return Recorded::Durably;
        }
        let changes = records.iter().filter(|record| matches!(record, Record::Change(_)));
        let count = changes.count() as u64;
        if must_be_durable(records, self.facts.key.master()) {
            self.make_durable();
        }
        while let Err(error) = self.state.commit(records) {
            if error.is_lasting() {
                self.give_up(&error);
                return Recorded::GivenUp;
            }
            self.not_recorded(&error);
            self.wait_to_record();
            if self.stopping.load(Ordering::Relaxed) {
                tracing::warn!(
                    "stopping with state that can't be written: the next start looks again"
                );
                self.recording.given_up = true;
                return Recorded::GivenUp;
            }
        }
        self.changes_since_snapshot += count;
        if self.recording.problem.take().is_some() {
            self.tell(Event::ProblemSolved { path: state_path() });
            self.catch_up();
        }
        Recorded::Durably
    }

    /// What was recorded is not there any more: nothing further is done or told that would build on it.
    /// Whoever started the node ends it.
    pub(super) fn give_up(&mut self, error: &StateError) {
        tracing::error!(%error, "stopping: nothing more can be recorded");
        self.recording.given_up = true;
        // The first fault is the one that counts.
        let _ = self.fault.set(error.to_string());
        self.stopping.store(true, Ordering::Relaxed);
        self.stop_requested.notify_one();
    }

    /// What a user did here is made durable before the others are told.
    fn make_durable(&mut self) {
        let settled = match self.recording.undurable {
            None => self.durable.settle(),
            Some(_) => self.durable.settle().and_then(|()| self.durable.settle_all()),
        };
        self.settled(settled);
    }

    /// When what could not be made durable is to be tried again.
    pub(super) fn durable_timeout(&self) -> Option<u64> {
        self.recording.undurable.as_ref().map(|_| self.recording.durable_at_ms)
    }

    /// Tries it, if it is time.
    pub(super) fn make_durable_again(&mut self) {
        if self.durable_timeout().is_some_and(|at| at <= self.clock.elapsed_ms()) {
            let settled = self.durable.settle_all();
            self.settled(settled);
        }
    }

    fn settled(&mut self, settled: Result<(), rustix::io::Errno>) {
        match (settled, &self.recording.undurable) {
            (Ok(()), None) => {}
            (Ok(()), Some(_)) => {
                self.recording.undurable = None;
                self.tell(Event::ProblemSolved { path: TreePath::root() });
            }
            (Err(error), known) => {
                let known = known.is_some();
                let retry = u64::try_from(DURABLE_RETRY.as_millis()).unwrap_or(u64::MAX);
                self.recording.durable_at_ms = self.clock.elapsed_ms().saturating_add(retry);
                // The others shall have it all the more.
                tracing::error!(%error, "what was written here could not be made durable");
                let reason = format!(
                    "what was written here could not be made durable ({error}): a power cut may take it; \
                     the other masters are told all the same"
                );
                let problem = Problem { kind: ProblemKind::Io, path: TreePath::root(), reason };
                self.recording.undurable = Some(problem.clone());
                if !known {
                    self.tell(Event::ProblemAppeared(problem));
                }
            }
        }
    }

    fn not_recorded(&mut self, error: &StateError) {
        let kind = match error {
            StateError::NoSpace { .. } => ProblemKind::NoSpace,
            _ => ProblemKind::Io,
        };
        let reason = format!("{error}; nothing goes in or out until it can be written");
        let problem = Problem { kind, path: state_path(), reason };
        if self.recording.problem.as_ref() != Some(&problem) {
            tracing::error!(%error, "state could not be written; nothing goes on until it can");
            self.recording.problem = Some(problem.clone());
            self.tell(Event::ProblemAppeared(problem));
        }
    }

    /// Answers what can be answered, until it is worth trying again.
    fn wait_to_record(&mut self) {
        let again = Instant::now() + COMMIT_RETRY;
        while !self.stopping.load(Ordering::Relaxed) {
            let left = again.saturating_duration_since(Instant::now());
            match self.jobs.recv_timeout(left) {
                Ok(job) => self.put_off(job),
                Err(RecvTimeoutError::Timeout) => return,
                // Nobody is left who could want anything.
                Err(RecvTimeoutError::Disconnected) => {
                    self.stopping.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    /// Does at once what needs no record; the rest waits.
    fn put_off(&mut self, job: Job) {
        let full = self.recording.put_off.len() >= PUT_OFF_MAX;
        match job {
            Job::Call(call) => self.call_while_unrecorded(call),
            Job::Locate(..)
            | Job::LetGo(..)
            | Job::Isolate(..)
            | Job::Unwatched(_)
            | Job::Rules(_) => {
                self.job(job);
            }
            Job::Net(NetEvent::Received(master, _)) if full => {
                self.recording.missed.insert(master);
            }
            Job::Input(Input::Hints(_)) if full => self.recording.hints_missed = true,
            // Found again when the versions are looked through.
            Job::LateWriters(_) if full => {}
            // Answers to what was asked before, comings and goings: few.
            job => self.recording.put_off.push_back(job),
        }
    }

    fn call_while_unrecorded(&mut self, call: Call) {
        match (&call.request, &self.recording.problem) {
            (Request::Status | Request::Conflicts | Request::Masters | Request::Stop, _)
            | (_, None) => self.call(call),
            (_, Some(problem)) => {
                // The client may have gone.
                let _ =
                    call.reply.send(Err(Refusal::new(RefusalKind::Failed, problem.reason.clone())));
            }
        }
    }

    /// What was dropped meanwhile is looked at and asked for.
    fn catch_up(&mut self) {
        for master in std::mem::take(&mut self.recording.missed) {
            self.recording.put_off.push_back(Job::Net(NetEvent::Overflowed(master)));
        }
        if std::mem::take(&mut self.recording.hints_missed) {
            let all = Input::Hints(vec![Hint::Subtree(TreePath::root())]);
            self.recording.put_off.push_back(Job::Input(all));
        }
    }

    /// The job that waits longest.
    pub(super) fn next_waiting(&mut self) -> Result<Job, TryRecvError> {
        match self.recording.put_off.pop_front() {
            Some(job) => Ok(job),
            None => self.jobs.try_recv(),
        }
    }
}

/// Where people find the database.
fn state_path() -> TreePath {
    let names = [STATE_NAME, "state.db"].map(|name| Name::try_from(name).expect("it has no slash"));
    TreePath::new(names.to_vec())
}
