//! Restoring: bytes that are not here are had from the other masters first, then the change is made.

use std::collections::BTreeSet;

use pleach_core::engine::FormerUse;
use pleach_core::values::Restoring;
use pleach_core::vocabulary::{ContentHash, TreePath};

use super::answer::Answer;
use super::driver::Driver;
use crate::control::{
    PathText, Refusal, RefusalKind, Reply, RestoreOutcome, RestoreRequest, RestoredReport,
};
use crate::disk;
use crate::history::{LeftAlone, Plan, RestoreError, content_of, plan};

/// Who waits for bytes, to restore what they belong to: one at a time.
#[derive(Default)]
pub(super) struct Restorers(Option<Restorer>);

struct Restorer {
    asked: RestoreRequest,
    wanted: BTreeSet<ContentHash>,
    deadline_ms: u64,
    reply: Answer,
}

impl Restorers {
    pub(super) fn timeout(&self) -> Option<u64> {
        self.0.as_ref().map(|restorer| restorer.deadline_ms)
    }
}

impl Driver {
    /// Says what would be restored, or restores it, as soon as its bytes are here.
    pub(super) fn restore(&mut self, asked: RestoreRequest, reply: Answer) {
        let answer = match self.plan_of(&asked) {
            Err(refusal) => Err(refusal),
            Ok(_) if self.restorers.0.is_some() && !asked.dry_run => {
                let message = "something else is being restored: try again in a moment";
                Err(Refusal::new(RefusalKind::Busy, message))
            }
            Ok(plan) if asked.dry_run => {
                Ok(Reply::Restored(self.report_of(&plan, RestoreOutcome::WouldRestore)))
            }
            Ok(plan) => {
                let mut wanted = plan.contents();
                wanted.retain(|hash, _| !self.has(hash));
                let now = self.clock.now();
                self.engine.want_former(now, FormerUse::Restore, &wanted);
                let deadline_ms = now.monotonic_ms.saturating_add(asked.timeout_ms);
                let wanted = wanted.into_keys().collect();
                self.restorers.0 = Some(Restorer { asked, wanted, deadline_ms, reply });
                return self.answer_restorers();
            }
        };
        // The client may have gone.
        let _ = reply.send(answer);
    }

    /// Restores, once nothing that it needs is on its way any more, or its time is over.
    pub(super) fn answer_restorers(&mut self) {
        let Some(mut restorer) = self.restorers.0.take() else { return };
        let now = self.clock.now();
        restorer.wanted.retain(|hash| self.engine.is_coming(hash));
        let is_over = restorer.deadline_ms <= now.monotonic_ms;
        if !restorer.wanted.is_empty() && !is_over && !restorer.reply.is_closed() {
            self.restorers.0 = Some(restorer);
            return;
        }
        self.engine.want_former(now, FormerUse::Restore, &Default::default());
        // Something may have changed meanwhile. Nobody would be told if the client has gone.
        let done = match restorer.reply.is_closed() {
            true => Ok(Vec::new()),
            false => self.plan_of(&restorer.asked).map(|plan| self.carry_out(&plan)),
        };
        // Whoever is told that it is restored may rely on that.
        self.perform_outputs();
        let done = match self.recording.has_given_up() {
            true => Err(Refusal::new(RefusalKind::Failed, "it could not be recorded")),
            false => done,
        };
        let _ = restorer.reply.send(done.map(Reply::Restored));
    }

    fn plan_of(&self, asked: &RestoreRequest) -> Result<Plan, Refusal> {
        let RestoreRequest { path, pick, .. } = asked;
        let planned = plan(&self.state, self.engine.replica(), &path.0, pick);
        planned.map_err(|error| {
            let kind = match &error {
                RestoreError::History(_) => RefusalKind::Failed,
                RestoreError::NeedsTime | RestoreError::IsThere => RefusalKind::Unfit,
                RestoreError::Ambiguous(_) => RefusalKind::Ambiguous,
                RestoreError::Unknown
                | RestoreError::NotThereThen
                | RestoreError::NoSuchVersion(_) => RefusalKind::NotFound,
            };
            Refusal::new(kind, error.to_string()).at(path.clone())
        })
    }

    /// Makes the change for all whose bytes are here.
    fn carry_out(&mut self, plan: &Plan) -> Vec<RestoredReport> {
        let report = self.report_of(plan, RestoreOutcome::Restored);
        let is_here = |step: &&Restoring| content_of(step).is_none_or(|(hash, _)| self.has(&hash));
        let steps: Vec<Restoring> = plan.steps.values().filter(is_here).cloned().collect();
        if !steps.is_empty() {
            let now = self.clock.now();
            self.engine.restore(now, &steps);
        }
        report
    }

    /// A line for each path, in order; `outcome` of those whose bytes are here or may be had.
    fn report_of(&self, plan: &Plan, outcome: RestoreOutcome) -> Vec<RestoredReport> {
        let step = |(path, step): (&TreePath, &Restoring)| {
            let content = content_of(step);
            let here = content.is_none_or(|(hash, _)| self.has(&hash));
            let outcome = match (outcome, here) {
                (RestoreOutcome::Restored, false) => RestoreOutcome::Missing,
                _ => outcome,
            };
            let size = step.body.as_ref().and_then(crate::control::size_of);
            RestoredReport { path: PathText(path.clone()), outcome, size, here }
        };
        let left = |(path, why): (&TreePath, &LeftAlone)| {
            let outcome = match why {
                LeftAlone::Moved => RestoreOutcome::Moved,
                LeftAlone::InTheWay => RestoreOutcome::InTheWay,
            };
            RestoredReport { path: PathText(path.clone()), outcome, size: None, here: true }
        };
        let mut report: Vec<_> =
            plan.steps.iter().map(step).chain(plan.left.iter().map(left)).collect();
        report.sort_by(|a, b| a.path.cmp(&b.path));
        report
    }

    /// Whether this disk has a content. What a file of the tree had when it was looked at last, a program may
    /// have written over since: others would wait for it for ever.
    fn has(&self, hash: &ContentHash) -> bool {
        let in_tree = || {
            let (path, fingerprint) = self.engine.find_content(hash)?;
            disk::open_content(&self.contents.root, &path, &fingerprint).ok()?
        };
        self.engine.is_kept(hash) || self.contents.versions.is_known(*hash) || in_tree().is_some()
    }
}
