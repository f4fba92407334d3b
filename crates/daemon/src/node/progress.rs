//! Long work told to whoever listens: the first look, and what is missing of the tree on the disk.
//!
//! Work counts as long after [`QUICK_MS`]. It is told every [`TOLD_EVERY_MS`], and ever more rarely while
//! nothing moves. With nobody listening nothing is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::driver::{Driver, unix_ms};
use crate::control::{EventBody, EventReport, WorkKind};
use crate::disk::LookProgress;

/// Work that takes no longer is not told of.
const QUICK_MS: u64 = 1_000;
const TOLD_EVERY_MS: u64 = 500;
const TOLD_EVERY_MS_MAX: u64 = 8_000;

/// What was told of work in hand.
#[derive(Debug)]
pub(super) struct Progress {
    look: Arc<LookProgress>,
    /// Bytes of contents that are not whole yet.
    arriving: Arc<AtomicU64>,
    /// The most bytes of which it was told that they are here: what is whole and not yet in its place
    /// is counted nowhere.
    bytes_told: u64,
    survey: u64,
    busy_since_ms: Option<u64>,
    next_ms: u64,
    delay_ms: u64,
    told: Option<EventBody>,
}

impl Progress {
    pub(super) fn new(look: Arc<LookProgress>, arriving: Arc<AtomicU64>) -> Self {
        Self {
            look,
            arriving,
            bytes_told: 0,
            survey: 0,
            busy_since_ms: None,
            next_ms: 0,
            delay_ms: TOLD_EVERY_MS,
            told: None,
        }
    }
}

impl Driver {
    /// When progress is to be told next.
    pub(super) fn progress_timeout(&self) -> Option<u64> {
        let told = self.progress.busy_since_ms.is_some() && self.events.receiver_count() > 0;
        told.then_some(self.progress.next_ms)
    }

    /// A look is about to begin: that of a new survey counts anew.
    pub(super) fn count_look(&mut self) {
        let surveys = self.engine.surveys_started();
        if surveys != std::mem::replace(&mut self.progress.survey, surveys) {
            self.progress.look.begin();
        }
    }

    /// Tells how far work in hand has come, if it is time to.
    pub(super) fn tell_progress(&mut self) {
        let now = self.clock.elapsed_ms();
        if self.engine.is_quiet() {
            self.progress.busy_since_ms = None;
            self.progress.bytes_told = 0;
            if let Some(told) = self.progress.told.take() {
                self.tell_listeners(done(told));
            }
            return;
        }
        let since = *self.progress.busy_since_ms.get_or_insert(now);
        if now < self.progress.next_ms || self.events.receiver_count() == 0 {
            return;
        }
        let body = if now - since < QUICK_MS { None } else { self.work_in_hand() };
        let moves = body.is_none() || body != self.progress.told;
        let delay_ms = if moves { TOLD_EVERY_MS } else { self.progress.delay_ms * 2 };
        self.progress.delay_ms = delay_ms.min(TOLD_EVERY_MS_MAX);
        self.progress.next_ms = now + self.progress.delay_ms;
        if let Some(body) = body.filter(|_| moves) {
            self.progress.told = Some(body.clone());
            self.tell_listeners(body);
        }
    }

    fn tell_listeners(&self, body: EventBody) {
        // Nobody may be listening any more.
        let _ = self.events.send(EventReport { time_ms: unix_ms(), body });
    }

    fn work_in_hand(&mut self) -> Option<EventBody> {
        let status = self.engine.status();
        let (found, read) = (self.progress.look.found(), self.progress.look.read());
        if self.surveyed && (status.pending > 0 || status.fetching.0 > 0) {
            let on_disk = self.on_disk_lately();
            let tree = self.tree(on_disk);
            if tree.files > on_disk.files || tree.bytes > on_disk.bytes {
                let work = if status.fetching.0 > 0 { WorkKind::Fetch } else { WorkKind::Apply };
                let here = on_disk.bytes + self.progress.arriving.load(Ordering::Relaxed);
                let bytes = here.max(self.progress.bytes_told).min(tree.bytes);
                self.progress.bytes_told = bytes;
                return Some(EventBody::Progress {
                    work,
                    done: on_disk.files.min(tree.files),
                    total: Some(tree.files),
                    bytes_done: bytes,
                    bytes_total: Some(tree.bytes),
                });
            }
        }
        (status.looking && found.files > read.files).then(|| EventBody::Progress {
            work: WorkKind::Scan,
            done: read.files,
            total: Some(found.files),
            bytes_done: read.bytes.min(found.bytes),
            bytes_total: Some(found.bytes),
        })
    }
}

/// The same work at its end.
fn done(told: EventBody) -> EventBody {
    match told {
        EventBody::Progress { work, done, total, bytes_done, bytes_total } => EventBody::Progress {
            work,
            done: total.unwrap_or(done),
            total,
            bytes_done: bytes_total.unwrap_or(bytes_done),
            bytes_total,
        },
        other => other,
    }
}
