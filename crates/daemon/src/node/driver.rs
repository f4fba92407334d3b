//! The driver: one loop over one closed set of jobs, on a thread of its own. It decides nothing.
//!
//! It owns the engine and the state database. Each round takes the jobs that wait, hands them to the
//! engine, commits what the engine wants durable, and only then performs the rest: what leaves this
//! process has been recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pleach_core::engine::{Engine, Hint, Input, Output};
use pleach_core::values::{Effect, Event, Look, Member, Problem, Record};
use pleach_core::vocabulary::{ContentHash, Fingerprint, MasterId, Moment, TreePath};
use tokio::sync::{Notify, broadcast, oneshot};

use super::content::Contents;
use super::outputs::fetch_failed;
use super::recording::{Recorded, Recording};
use super::waiting::Waiters;
use crate::control::{Call, Counts, EventReport};
use crate::disk::{Durable, VersionId};
use crate::identity::{MasterKey, StoreSeed};
use crate::net::{FetchFailure, NetEvent, Network, Speaks};
use crate::state::State;

/// How many jobs one round takes before it commits.
const JOBS_PER_ROUND_MAX: usize = 256;
/// How long a stop waits for the outcome of what is being done to the disk.
const APPLIED_PATIENCE: Duration = Duration::from_secs(8);
/// How often everything is looked at while something can't be watched.
const UNWATCHED_RESCAN_INTERVAL: Duration = Duration::from_secs(10);

/// What the driver is asked to do.
pub(super) enum Job {
    /// For the engine.
    Input(Input),
    /// Programs write to these versions.
    LateWriters(Vec<VersionId>),
    /// From the network.
    Net(NetEvent),
    /// From the control socket, or the owner of the node.
    Call(Call),
    /// Where on this disk contents are.
    Locate(Vec<ContentHash>, SyncSender<Vec<Located>>),
    /// Which of these contents among the versions are still needed; the others are let go of.
    LetGo(BTreeSet<ContentHash>, SyncSender<BTreeSet<ContentHash>>),
    /// Cut off from all other masters, or no longer.
    Isolate(bool, oneshot::Sender<()>),
    /// A directory that can't be watched; none once all can be.
    Unwatched(Option<Problem>),
    /// The ignore rules were read: what of them is none.
    Rules(Vec<Problem>),
    /// The outcome of a verification.
    Verified(super::verify::Verification),
    /// Stop cleanly.
    Stop,
}

/// A file of the tree that holds a content, as it was last seen; none if there is none.
pub(super) type Located = Option<(TreePath, Fingerprint)>;

/// What the hand is asked to do: everything that touches the tree. Effects may come with a word to wait for:
/// that what they follow from is recorded. Without it they are not done.
pub(super) enum Chore {
    Look(Look),
    Apply(Vec<Effect>, Option<Receiver<()>>),
    Retain(ContentHash, Option<Vec<u8>>),
    Stage(Vec<(ContentHash, Arc<[u8]>)>),
    LateWriters(Vec<VersionId>),
}

pub(super) struct Driver {
    pub(super) engine: Engine,
    pub(super) state: State,
    pub(super) jobs: Receiver<Job>,
    pub(super) hand: Sender<Chore>,
    pub(super) network: Network,
    pub(super) contents: Arc<Contents>,
    pub(super) durable: Durable,
    /// What is to be had from among the own versions.
    pub(super) kept: Sender<ContentHash>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) events: broadcast::Sender<EventReport>,
    pub(super) facts: Facts,
    pub(super) waiters: Waiters,
    pub(super) content_waiters: super::reading::ContentWaiters,
    pub(super) restorers: super::restore::Restorers,
    pub(super) clock: Clock,
    pub(super) isolated: bool,
    pub(super) last_seen: BTreeMap<MasterId, i64>,
    pub(super) changes_since_snapshot: u64,
    pub(super) refusals: super::refusals::Refusals,
    pub(super) stop_requested: Arc<Notify>,
    /// That not everything can be watched, if so.
    pub(super) watch_problem: Option<Problem>,
    /// What is wrong with the ignore rules.
    pub(super) rule_problems: Vec<Problem>,
    pub(super) peer_problems: super::peer_problems::PeerProblems,
    /// The addresses of this master that were last written into the member list, and when.
    pub(super) addresses_told: Option<(u64, Vec<String>)>,
    pub(super) rescan_at_ms: u64,
    /// Whether it was told that the directory has been looked through.
    pub(super) surveyed: bool,
    pub(super) tally: super::tally::Tally,
    pub(super) progress: super::progress::Progress,
    pub(super) recording: Recording,
    /// How many batches of effects the hand has that it has not answered.
    pub(super) applying: usize,
    /// Set when nothing new is to be begun.
    pub(super) stopping: Arc<AtomicBool>,
    /// Why the node can't go on, if so.
    pub(super) fault: Arc<OnceLock<String>>,
}

/// What does not change while the node runs.
pub(super) struct Facts {
    pub(super) key: MasterKey,
    pub(super) seed: StoreSeed,
    pub(super) store_name: String,
    pub(super) name: String,
    pub(super) root: std::path::PathBuf,
    pub(super) advertise: Vec<String>,
    /// Members that the inviter named before the first sync.
    pub(super) introduction: Vec<Member>,
    pub(super) verifier: super::verify::Verifier,
    pub(super) rescan_interval: Duration,
}

/// The node's clocks.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(super) fn now(&self) -> Moment {
        Moment { monotonic_ms: self.elapsed_ms(), unix_ms: unix_ms() }
    }

    pub(super) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Milliseconds since 1970 by the wall clock.
pub(super) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl Driver {
    /// Runs until told to stop.
    pub(super) fn run(mut self) {
        self.begin();
        while self.fault.get().is_none() {
            let first = match self.next_job() {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => Job::Input(Input::Tick),
                Err(RecvTimeoutError::Disconnected) => Job::Stop,
            };
            let mut next = Some(first);
            let mut taken = 0;
            while let Some(job) = next.take() {
                if matches!(job, Job::Stop) || self.stopping.load(Ordering::Relaxed) {
                    return self.end(job);
                }
                self.job(job);
                taken += 1;
                if taken < JOBS_PER_ROUND_MAX {
                    next = match self.next_waiting() {
                        Ok(job) => Some(job),
                        Err(TryRecvError::Empty) => None,
                        Err(TryRecvError::Disconnected) => Some(Job::Stop),
                    };
                }
            }
            self.perform_outputs();
            self.answer_waiters();
            self.answer_verification();
            self.answer_content_waiters();
            self.answer_restorers();
            self.tell_first_survey();
            self.tell_progress();
        }
    }

    /// Records what is known, the outcome of what is being done to the disk included. What else there
    /// was to do the next start finds out anew; above all, no look that was cut short counts.
    fn end(&mut self, mut job: Job) {
        if self.recording.has_given_up() {
            return;
        }
        let deadline = Instant::now() + APPLIED_PATIENCE;
        loop {
            if let Job::Input(Input::Applied(_)) = job {
                self.job(job);
            }
            if self.applying == 0 {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let next = self.next_waiting().or_else(|_| self.jobs.recv_timeout(left));
            let Ok(next) = next else { break };
            job = next;
        }
        let outputs = std::iter::from_fn(|| self.engine.poll_output());
        let records = outputs.filter_map(|output| match output {
            Output::Persist(records) => Some(records),
            _ => None,
        });
        let records: Vec<Record> = records.flatten().collect();
        if self.commit(&records) == Recorded::Durably {
            self.save_snapshot(1);
        }
    }

    /// The first member of a store writes itself down; everyone keeps its addresses up to date.
    fn begin(&mut self) {
        let me = self.facts.key.master();
        if self.facts.seed.founder == me && self.engine.replica().member(me).is_none() {
            let member = self.facts.key.sign_member(
                self.facts.seed.store(),
                me,
                &self.facts.name,
                self.advertised(),
            );
            self.input(Input::SetMember(member));
        }
        self.rescan_at_ms = self.rescan_interval_ms();
        self.update_own_addresses();
        self.input(Input::Tick);
        self.perform_outputs();
        self.tell_progress();
    }

    /// Says once that the directory is known, and what is in it.
    fn tell_first_survey(&mut self) {
        if self.surveyed || self.engine.surveys_finished() == 0 {
            return;
        }
        self.surveyed = true;
        let Counts { files, directories, bytes, .. } = self.on_disk();
        let elapsed_ms = self.clock.elapsed_ms();
        tracing::info!(files, directories, bytes, elapsed_ms, "looked through the directory");
    }

    fn next_job(&mut self) -> Result<Job, RecvTimeoutError> {
        if let Ok(job) = self.next_waiting() {
            return Ok(job);
        }
        self.make_durable_again();
        let now = self.clock.elapsed_ms();
        if self.rescan_at_ms <= now {
            self.rescan_at_ms = now.saturating_add(self.rescan_interval_ms());
            self.input(Input::Hints(vec![Hint::Subtree(TreePath::root())]));
            self.perform_outputs();
        }
        let due = [
            self.engine.poll_timeout(),
            self.waiters.timeout(),
            self.verification_timeout(),
            self.content_waiters.timeout(),
            self.restorers.timeout(),
            self.progress_timeout(),
            self.durable_timeout(),
            Some(self.rescan_at_ms),
        ];
        let at = due.into_iter().flatten().min().unwrap_or(now);
        self.jobs.recv_timeout(Duration::from_millis(at.saturating_sub(now)))
    }

    /// What can't be watched is looked at more often.
    fn rescan_interval_ms(&self) -> u64 {
        let interval = match self.watch_problem {
            Some(_) => self.facts.rescan_interval.min(UNWATCHED_RESCAN_INTERVAL),
            None => self.facts.rescan_interval,
        };
        u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)
    }

    fn cloned(&mut self, master: MasterId) {
        let name = self.name_of(master);
        if let Some(problem) = self.peer_problems.cloned(master, &name, self.clock.elapsed_ms()) {
            tracing::warn!(reason = %problem.reason, "problem");
        }
    }

    fn other_version(&mut self, master: MasterId, theirs: &Speaks) {
        let reason = self.network.speaks().refusal(theirs, &self.name_of(master));
        let now = self.clock.elapsed_ms();
        let news = self.peer_problems.other_version(master, reason, now).cloned();
        if let Some(problem) = news {
            self.tell(Event::ProblemAppeared(problem));
        }
    }

    fn unwatched(&mut self, problem: Option<Problem>) {
        let before = std::mem::replace(&mut self.watch_problem, problem.clone());
        match (before, problem) {
            (_, Some(problem)) => self.tell(Event::ProblemAppeared(problem)),
            (Some(before), None) => self.tell(Event::ProblemSolved { path: before.path }),
            (None, None) => {}
        }
        self.rescan_at_ms =
            self.rescan_at_ms.min(self.clock.elapsed_ms() + self.rescan_interval_ms());
    }

    fn rules_read(&mut self, problems: Vec<Problem>) {
        let before = std::mem::replace(&mut self.rule_problems, problems.clone());
        if let (Some(problem), []) = (before.first(), &problems[..]) {
            self.tell(Event::ProblemSolved { path: problem.path.clone() });
        }
        for problem in problems.into_iter().filter(|problem| !before.contains(problem)) {
            self.tell(Event::ProblemAppeared(problem));
        }
    }

    pub(super) fn job(&mut self, job: Job) {
        match job {
            Job::Input(input) => {
                self.applying -= usize::from(matches!(input, Input::Applied(_)));
                self.input(input);
            }
            Job::LateWriters(versions) if versions.is_empty() => {}
            Job::LateWriters(versions) => self.chore(Chore::LateWriters(versions)),
            Job::Net(event) => self.net_event(event),
            Job::Call(call) => self.call(call),
            Job::Locate(hashes, reply) => {
                let located = hashes.iter().map(|hash| self.engine.find_content(hash)).collect();
                // The asker may have gone; that is its own affair.
                let _ = reply.try_send(located);
            }
            Job::LetGo(contents, reply) => {
                let _ = reply.try_send(self.engine.let_go(&contents));
            }
            Job::Isolate(isolated, done) => self.isolate(isolated, done),
            Job::Unwatched(problem) => self.unwatched(problem),
            Job::Rules(problems) => self.rules_read(problems),
            Job::Verified(verification) => self.verified(verification),
            Job::Stop => {}
        }
    }

    pub(super) fn input(&mut self, input: Input) {
        self.engine.handle(self.clock.now(), input);
    }

    fn net_event(&mut self, event: NetEvent) {
        match event {
            NetEvent::Connected(master) => {
                tracing::info!(master = %self.name_of(master), "connected");
                if let Some(path) = self.peer_problems.connected(master) {
                    self.tell(Event::ProblemSolved { path });
                }
                self.input(Input::PeerCame(master));
            }
            NetEvent::Disconnected(master) => {
                tracing::info!(master = %self.name_of(master), "disconnected");
                self.last_seen.insert(master, unix_ms());
                self.input(Input::PeerGone(master));
            }
            NetEvent::Received(master, message) => self.input(Input::Received(master, message)),
            NetEvent::Overflowed(master) => self.input(Input::Resync(master)),
            NetEvent::Fetched(hash) => self.input(Input::Fetched(hash)),
            NetEvent::Arrived(contents) => self.input(Input::Arrived(contents)),
            NetEvent::FetchFailed(hash, failure) => {
                tracing::debug!(%hash, %failure, "a content could not be fetched");
                match failure {
                    FetchFailure::Missing => self.fetch_kept(hash),
                    _ => self.input(fetch_failed(hash, failure)),
                }
            }
            NetEvent::InvitationChanged { row, recorded } => {
                if self.record_invitation(&row).is_ok() {
                    let _ = recorded.send(());
                }
            }
            NetEvent::JoinRequest(request) => self.admit(request),
            NetEvent::Handover(request) => self.hand_over(request),
            // It refuses everybody, as it was told to.
            NetEvent::Refused { .. } if self.isolated => {}
            NetEvent::Refused { who, reason } => {
                let who = who.map_or_else(|| "somebody".to_owned(), |who| self.name_of(who));
                if let Some(suppressed) = self.refusals.allow(self.clock.elapsed_ms()) {
                    tracing::warn!(%who, %reason, suppressed, "refused");
                }
            }
            NetEvent::Cloned(master) => self.cloned(master),
            NetEvent::ShutOut(_) if self.isolated => {}
            NetEvent::ShutOut(master) => {
                let name = self.name_of(master);
                self.peer_problems.shut_out(master, &name, self.clock.elapsed_ms());
            }
            NetEvent::OtherVersion(..) if self.isolated => {}
            NetEvent::OtherVersion(master, speaks) => self.other_version(master, &speaks),
            NetEvent::Listening(_) => self.update_own_addresses(),
        }
    }
}
