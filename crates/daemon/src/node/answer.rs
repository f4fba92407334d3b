//! Answers to the control socket: facts gathered from the engine, and requests passed on to it.

use std::collections::BTreeSet;

use pleach_core::engine::{Hint, Input, SETTINGS, Setting, Withheld};
use pleach_core::values::{BLOCKED_MAX, Member, Problem, ProblemKind};
use pleach_core::vocabulary::{MasterId, TreePath, VersionVector};
use tokio::sync::oneshot;

use super::driver::{Driver, unix_ms};
use crate::control::{
    Call, Fetching, GuardReport, InviteReport, MasterLabel, MasterReport, PathText, ProblemReport,
    Refusal, RefusalKind, Reply, Request, SettingReport, StatusReport, WaitReport, WaitingFor,
    Work,
};
use crate::ticket::Invitations;

pub(super) type Answer = oneshot::Sender<Result<Reply, Refusal>>;

/// How many calls may wait at a time.
const WAITERS_MAX: usize = 256;

/// How many of the paths are told that wait for a person's judgement.
const WITHHELD_PATHS_MAX: usize = 1_000;

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
    pub(super) fn call(&mut self, call: Call) {
        let Call { request, reply } = call;
        let answer = match request {
            Request::Status => Ok(Reply::Status(Box::new(self.status()))),
            Request::Wait { timeout_ms } => return self.wait(timeout_ms, reply),
            Request::Invite { expires_s } => self.invite(expires_s),
            Request::Conflicts => Ok(Reply::Conflicts(self.conflicts())),
            Request::ConflictsAt { path } => self.conflicts_at(&path.0).map(Reply::Conflicts),
            Request::Content { path, id } => return self.content(&path.0, &id, reply),
            Request::Look { paths, timeout_ms } => return self.look(paths, timeout_ms, reply),
            Request::Resolve { path, choice, expect, dry_run } => {
                let choice = self.choice(&path.0, &choice, expect.as_deref());
                choice.and_then(|choice| match dry_run {
                    true => self.could_settle(&path.0, &choice),
                    false => self.settle(&path.0, &choice),
                })
            }
            Request::Log(asked) => self.log(asked),
            Request::Versions { path } => self.versions(&path.0).map(Reply::Versions),
            Request::Restore(asked) => return self.restore(asked, reply),
            Request::Masters => Ok(Reply::Masters(self.masters())),
            Request::RemoveMaster { name } => self.remove_master(&name),
            Request::Guard => Ok(Reply::Guard(self.withheld())),
            Request::Judge { judgement } => {
                let about = self.withheld();
                if about.entries > 0 {
                    self.input(Input::Judged(judgement.into()));
                }
                Ok(Reply::Guard(about))
            }
            Request::Settings => Ok(Reply::Settings(self.settings())),
            Request::Set { key, value } => self.set(&key, &value),
            Request::Verify => return self.verify(reply),
            Request::Events => Ok(Reply::Done),
            Request::Isolate { isolated } => {
                self.isolate(isolated, oneshot::channel().0);
                Ok(Reply::Done)
            }
            Request::Stop => {
                self.stop_requested.notify_one();
                Ok(Reply::Done)
            }
        };
        // The client may have gone.
        let _ = reply.send(answer);
    }

    fn status(&mut self) -> StatusReport {
        let on_disk = self.on_disk();
        let tree = self.tree(on_disk);
        let engine = self.engine.status();
        let of_peers = self.peer_problems.list(self.clock.elapsed_ms());
        let (contents, bytes) = engine.fetching;
        StatusReport {
            store: self.facts.store_name.clone(),
            store_id: self.facts.seed.store().to_string(),
            master: self.label(self.facts.key.master()),
            listen: self.network.listen_addrs().iter().map(ToString::to_string).collect(),
            root: self.facts.root.display().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: self.clock.elapsed_ms(),
            tree,
            on_disk,
            conflicts: self.engine.replica().tree().conflict_count() as u64,
            masters: self.masters(),
            work: Work {
                scanning: engine.looking,
                effects_pending: engine.pending,
                fetching: Fetching { contents, bytes },
            },
            problems: self
                .engine
                .problems()
                .chain(&self.watch_problem)
                .chain(&self.rule_problems)
                .chain(self.contents.versions.problem())
                .chain(&self.recording.problem)
                .chain(&self.recording.undurable)
                .cloned()
                .chain(of_peers)
                .map(ProblemReport::from)
                .collect(),
            frozen: engine.frozen.map(|problem| problem.reason),
            running: true,
        }
    }

    pub(super) fn label(&self, master: MasterId) -> MasterLabel {
        MasterLabel::new(master, self.name_of(master))
    }

    fn masters(&self) -> Vec<MasterReport> {
        let ours = self.engine.replica().version_vector();
        let me = self.facts.key.master();
        let traffic = self.network.traffic();
        let report = |member: Member| {
            let this = member.master == me;
            let peer = self.engine.peers().find(|(master, _)| *master == member.master);
            let connected = this || peer.is_some();
            let counted = traffic.iter().find(|(master, _)| *master == member.master);
            let now = Some(unix_ms());
            MasterReport {
                id: member.master.to_string(),
                name: member.name,
                this,
                connected,
                addresses: member.addresses,
                behind_changes: if this {
                    Some(ours.ahead_of(&self.engine.status().projected))
                } else {
                    peer.map(|(_, peer)| ours.ahead_of(&peer.projected))
                },
                ahead_changes: peer.map(|(_, peer)| peer.known.ahead_of(ours)),
                last_seen_ms: if connected {
                    now
                } else {
                    self.last_seen.get(&member.master).copied()
                },
                bytes_sent: counted.map_or(0, |(_, traffic)| traffic.sent),
                bytes_received: counted.map_or(0, |(_, traffic)| traffic.received),
                removed: member.removed,
            }
        };
        self.known_members().into_iter().map(report).collect()
    }

    /// Has everything on the disk looked at, then waits for the others.
    fn wait(&mut self, timeout_ms: u64, reply: Answer) {
        self.survey(vec![Hint::Subtree(TreePath::root())], Goal::Surveyed, timeout_ms, reply);
    }

    /// Has these paths looked at.
    fn look(&mut self, paths: Vec<PathText>, timeout_ms: u64, reply: Answer) {
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

    fn invite(&mut self, expires_s: u64) -> Result<Reply, Refusal> {
        let failed = |message: String| Refusal::new(RefusalKind::Failed, message);
        let addresses = self.advertised();
        let expires_unix = (unix_ms() / 1000).unsigned_abs().saturating_add(expires_s);
        let (seed, me) = (self.facts.seed, self.facts.key.master());
        let (ticket, invitation) = Invitations::issue(seed, me, addresses, expires_unix)
            .map_err(|error| failed(error.to_string()))?;
        self.record_invitation(&invitation).map_err(|error| failed(error.to_string()))?;
        self.network.invitation_opened(invitation);
        let expires_ms = i64::try_from(expires_unix.saturating_mul(1000)).unwrap_or(i64::MAX);
        Ok(Reply::Invite(InviteReport { ticket: ticket.to_string(), expires_ms }))
    }

    fn remove_master(&mut self, name: &str) -> Result<Reply, Refusal> {
        let members = self.engine.replica().members();
        let fitting: Vec<Member> = members
            .into_iter()
            .filter(|member| !member.removed)
            .filter(|member| {
                member.name == name
                    || name.len() >= 4 && member.master.to_string().starts_with(name)
            })
            .collect();
        let member = match &fitting[..] {
            [member] => member.clone(),
            [] => {
                let message = format!("no master is called {name}: `pleach masters` lists them");
                return Err(Refusal::new(RefusalKind::NotFound, message));
            }
            _ => {
                let message = format!(
                    "{name} fits {} masters: name one by its id, which `pleach masters` shows",
                    fitting.len()
                );
                return Err(Refusal::new(RefusalKind::Ambiguous, message));
            }
        };
        if member.master == self.facts.key.master() {
            let message = "a master can't remove itself: run this on another one";
            return Err(Refusal::new(RefusalKind::Unfit, message));
        }
        self.input(Input::RemoveMember(member.master));
        Ok(Reply::Done)
    }

    /// What is gone from this disk and waits for a person.
    fn withheld(&self) -> GuardReport {
        let Some(Withheld { entries, of }) = self.engine.withheld() else {
            return GuardReport::default();
        };
        let paths = self.engine.withheld_paths().take(WITHHELD_PATHS_MAX);
        GuardReport { entries, of, paths: paths.map(PathText::from).collect() }
    }

    fn settings(&self) -> Vec<SettingReport> {
        let report = |&setting: &Setting| SettingReport {
            key: setting.key.to_owned(),
            value: self.engine.setting(setting),
            values: setting.values.iter().map(ToString::to_string).collect(),
            about: setting.about.to_owned(),
        };
        SETTINGS.iter().map(report).collect()
    }

    fn set(&mut self, key: &str, value: &str) -> Result<Reply, Refusal> {
        let now = self.clock.now();
        match self.engine.set(now, key, value) {
            Ok(()) => Ok(Reply::Settings(self.settings())),
            Err(error) => Err(Refusal::new(RefusalKind::Unfit, error.to_string())),
        }
    }
}

/// A problem as it is told, its reason in one line: it may come from another master.
fn shown(problem: &Problem) -> ProblemReport {
    let reason = problem.reason.chars().filter(|letter| !letter.is_control());
    let reason = reason.take(REASON_LETTERS_MAX).collect();
    ProblemReport { reason, ..ProblemReport::from(problem.clone()) }
}
