//! What the engine wants done: first of all what is to be durable, then the rest in order.

use std::sync::mpsc::{Sender, channel};

use pleach_core::engine::{Input, Output, Wanted};
use pleach_core::values::{Event, Message, ProblemKind, Record};
use pleach_core::vocabulary::{ContentHash, MasterId, VersionVector};

use super::driver::{Chore, Driver, unix_ms};
use super::recording::Recorded;
use crate::control::{EventBody, EventReport, MasterLabel};
use crate::net::{ContentRequest, FetchFailure, HandoverPage, HandoverRequest};
use crate::state::{CHANGES_PER_SNAPSHOT, StateError};

/// How many bytes of changes answer one request for what is missing; the receiver asks for more.
const LOG_PAGE_BYTES_MAX: usize = 3 << 20;

impl Driver {
    /// Commits what must be durable, then does the rest in order.
    pub(super) fn perform_outputs(&mut self) {
        let mut records: Vec<Record> = Vec::new();
        let mut rest: Vec<Output> = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Persist(more) => records.extend(more),
                output => rest.push(output),
            }
        }
        let recorded = if records.is_empty() { None } else { self.apply_early(&mut rest) };
        if self.commit(&records) == Recorded::GivenUp {
            return;
        }
        if let Some(recorded) = recorded {
            // The hand may have ended.
            let _ = recorded.send(());
        }
        for output in rest {
            self.perform(output);
        }
        self.save_snapshot(CHANGES_PER_SNAPSHOT);
    }

    /// If effects are the first that the hand is to do, it gets them at once, and prepares while this thread
    /// records. To be told when that is done.
    fn apply_early(&mut self, outputs: &mut Vec<Output>) -> Option<Sender<()>> {
        let is_chore = |output: &Output| {
            matches!(
                output,
                Output::Apply(_) | Output::Look(_) | Output::Retain { .. } | Output::Stage(_)
            )
        };
        let first = outputs.iter().position(is_chore)?;
        let effects = match &mut outputs[first] {
            Output::Apply(effects) => std::mem::take(effects),
            _ => return None,
        };
        outputs.remove(first);
        let (recorded, word) = channel();
        self.applying += 1;
        self.chore(Chore::Apply(effects, Some(word)));
        Some(recorded)
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Persist(_) => unreachable!("records are committed before"),
            Output::Send(to, message) => self.send(to, &message),
            Output::Broadcast(message) => {
                if let Err(error) = self.network.broadcast(&message) {
                    tracing::error!(%error, "a change is too large to send");
                }
            }
            Output::SendLog { to, known } => self.send_log(to, &known),
            Output::Look(look) => {
                self.count_look();
                self.chore(Chore::Look(look));
            }
            Output::Apply(effects) => {
                self.applying += 1;
                self.chore(Chore::Apply(effects, None));
            }
            Output::Retain { hash, bytes } => self.chore(Chore::Retain(hash, bytes)),
            Output::Stage(contents) => self.chore(Chore::Stage(contents)),
            Output::Fetch(wanted) => {
                let (kept, wanted): (Vec<_>, Vec<_>) =
                    wanted.into_iter().partition(|wanted| self.contents.is_kept(&wanted.hash));
                kept.into_iter().for_each(|wanted| self.fetch_kept(wanted.hash));
                self.network.fetch(wanted.into_iter().map(content_request).collect());
            }
            Output::Unstage(hash) => self.contents.staging.discard(hash),
            Output::StopFetching(hashes) => {
                hashes.into_iter().for_each(|hash| self.contents.staging.discard(hash));
            }
            Output::Members(_) => {
                self.update_own_addresses();
                if !self.isolated {
                    let (network, members) = (self.network.clone(), self.known_members());
                    self.runtime.spawn(async move { network.set_members(members).await });
                }
            }
            Output::Event(event) => self.tell(event),
        }
    }

    pub(super) fn fetch_kept(&self, hash: ContentHash) {
        if self.kept.send(hash).is_err() {
            tracing::error!("the thread that copies versions has ended");
        }
    }

    pub(super) fn chore(&mut self, chore: Chore) {
        if self.hand.send(chore).is_err() {
            tracing::error!("the disk thread has ended");
        }
    }

    fn send(&self, to: MasterId, message: &Message) {
        if let Err(error) = self.network.send(to, message) {
            tracing::error!(%error, "a message is too large to send");
        }
    }

    pub(super) fn hand_over(&mut self, HandoverRequest { known, reply }: HandoverRequest) {
        match self.state.log_after(&known, LOG_PAGE_BYTES_MAX) {
            Ok(page) => {
                let left = self.engine.replica().version_vector().ahead_of(&page.known);
                // The joiner may have hung up.
                let _ = reply.send(HandoverPage { changes: page.changes, left });
            }
            Err(error) => self.log_unread(&error),
        }
    }

    fn send_log(&mut self, to: MasterId, known: &VersionVector) {
        match self.state.log_after(known, LOG_PAGE_BYTES_MAX) {
            Ok(page) if page.changes.is_empty() => {}
            Ok(page) => {
                let changes = page.changes;
                self.send(to, &Message::Changes { changes, contents: Vec::new() });
            }
            Err(error) => self.log_unread(&error),
        }
    }

    pub(super) fn log_unread(&mut self, error: &StateError) {
        match error.is_lasting() {
            true => self.give_up(error),
            false => tracing::error!(%error, "the log could not be read"),
        }
    }

    pub(super) fn tell(&mut self, event: Event) {
        log_event(&event);
        if self.events.receiver_count() > 0 {
            let label = |master| MasterLabel::new(master, self.name_of(master));
            let body = EventBody::from_core(event, label);
            // Nobody may be listening any more.
            let _ = self.events.send(EventReport { time_ms: unix_ms(), body });
        }
    }

    /// Saves the document when at least `changes` came since the last time.
    pub(super) fn save_snapshot(&mut self, changes: u64) {
        if self.changes_since_snapshot < changes {
            return;
        }
        self.changes_since_snapshot = 0;
        let saved = self.state.log_position().and_then(|position| {
            self.state.store_snapshot(&self.engine.replica().save(), position)
        });
        match saved {
            Ok(()) => {}
            Err(error) if error.is_lasting() => self.give_up(&error),
            Err(error) => {
                tracing::warn!(%error, "the document could not be saved; the next start takes longer");
            }
        }
    }
}

pub(super) fn fetch_failed(hash: ContentHash, failure: FetchFailure) -> Input {
    let (kind, reason) = match failure {
        FetchFailure::Missing | FetchFailure::TooMany => return Input::FetchFailed(hash),
        FetchFailure::NoSpace => {
            let reason = "no space left on the device, or of a quota, for its content: make room";
            (ProblemKind::NoSpace, reason.to_owned())
        }
        FetchFailure::Disk(reason) => (ProblemKind::Io, reason),
    };
    Input::NotTaken { hash, kind, reason }
}

fn content_request(wanted: Wanted) -> ContentRequest {
    ContentRequest {
        hash: wanted.hash,
        size: wanted.size,
        providers: wanted.providers,
        old_version: wanted.old_version,
    }
}

fn log_event(event: &Event) {
    match event {
        Event::LocalChange { paths, acts } => {
            let first = paths.first().map(ToString::to_string).unwrap_or_default();
            tracing::debug!(acts, first, "changed here");
        }
        Event::RemoteChange { master, changes } => {
            tracing::debug!(%master, changes, "changed elsewhere");
        }
        Event::Applied { path } => tracing::trace!(%path, "applied"),
        Event::ConflictOpened { path, kind } => tracing::warn!(%path, ?kind, "conflict"),
        Event::ConflictClosed { path } => tracing::info!(%path, "conflict closed"),
        Event::Connected { .. } | Event::Disconnected { .. } => {}
        Event::ProblemAppeared(problem) => {
            tracing::warn!(path = %problem.path, reason = %problem.reason, "problem");
        }
        Event::ProblemSolved { path } => tracing::info!(%path, "problem solved"),
        Event::Refused { master, reason } => tracing::warn!(%master, %reason, "refused"),
    }
}
