//! Answers to the control socket: facts gathered from the engine, and requests passed on to it.

use pleach_core::engine::{Input, SETTINGS, Setting, Withheld};
use pleach_core::values::Member;
use pleach_core::vocabulary::MasterId;
use tokio::sync::oneshot;

use super::driver::{Driver, unix_ms};
use crate::control::{
    Call, Fetching, GuardReport, InviteReport, MasterLabel, MasterReport, PathText, ProblemReport,
    Refusal, RefusalKind, Reply, Request, SettingReport, StatusReport, Work,
};
use crate::ticket::Invitations;

pub(super) type Answer = oneshot::Sender<Result<Reply, Refusal>>;

/// How many of the paths are told that wait for a person's judgement.
const WITHHELD_PATHS_MAX: usize = 1_000;

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
            Request::Follow { timeout_ms } => return self.follow(timeout_ms, reply),
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
