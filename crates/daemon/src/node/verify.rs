//! Verification: every file is read again and compared with what the store says it holds.
//!
//! Bytes that changed under an unchanged stat are bit rot: the odd bytes are kept among the versions, and
//! the content is fetched from another master.

use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use pleach_core::engine::Input;
use pleach_core::values::Body;
use pleach_core::vocabulary::{ContentHash, Fingerprint, TreePath};
use tokio::sync::oneshot;

use super::driver::{Driver, Job, unix_ms};
use crate::control::{
    Damage, EventBody, EventReport, PathText, Refusal, RefusalKind, Reply, VerifyReport, WorkKind,
};
use crate::disk::{self, Root};

/// How often it is told how far a verification has come.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// How long a verification waits for what it found rotten to be healed.
const HEALING_MS_MAX: u64 = 60_000;

const HEALED: &str = "its bytes had changed while its size and times had not; the right ones came from \
                      another master, the odd ones are kept in .pleach/versions";
const UNHEALED: &str = "its bytes changed while its size and times did not, and no connected master gave \
                        the right ones; they are fetched as soon as one has them";

type Answer = oneshot::Sender<Result<Reply, Refusal>>;

/// What is needed to read the tree again.
pub(super) struct Verifier {
    pub(super) root: Root,
    pub(super) jobs: SyncSender<Job>,
    pub(super) running: bool,
    pub(super) healing: Option<Healing>,
}

/// A verification whose damage is being healed: reported once it is, or could not be in time.
pub(super) struct Healing {
    reply: Answer,
    report: VerifyReport,
    /// Which of the damaged are to have which content.
    wanted: Vec<(usize, TreePath, ContentHash)>,
    deadline_ms: u64,
}

/// What a verification found.
pub(super) struct Verification {
    files: u64,
    bytes: u64,
    elapsed_ms: u64,
    rotten: Vec<Rotten>,
    unreadable: Vec<(TreePath, String)>,
    reply: Answer,
}

struct Rotten {
    path: TreePath,
    expected: ContentHash,
    actual: ContentHash,
}

struct Expected {
    path: TreePath,
    fingerprint: Fingerprint,
    hash: ContentHash,
}

impl Driver {
    /// Reads everything on a thread of its own.
    pub(super) fn verify(&mut self, reply: Answer) {
        if self.facts.verifier.running {
            let busy = Refusal::new(RefusalKind::Busy, "a verification is under way already");
            let _ = reply.send(Err(busy));
            return;
        }
        let base = self.engine.base();
        let files = base.iter().filter_map(|(id, entry)| match entry.body {
            Body::File(content) => Some(Expected {
                path: base.path(id)?,
                fingerprint: entry.fingerprint,
                hash: content.hash,
            }),
            _ => None,
        });
        let expected: Vec<Expected> = files.collect();
        let (root, jobs) = (self.facts.verifier.root.clone(), self.facts.verifier.jobs.clone());
        self.facts.verifier.running = true;
        let events = self.events.clone();
        let total = Some(expected.len() as u64);
        let bytes_total = Some(expected.iter().map(|file| file.fingerprint.size).sum());
        let progress = move |done, bytes_done| {
            let work = WorkKind::Verify;
            let body = EventBody::Progress { work, done, total, bytes_done, bytes_total };
            // Nobody may be listening.
            let _ = events.send(EventReport { time_ms: unix_ms(), body });
        };
        std::thread::spawn(move || {
            let verification = read_all(&root, &expected, reply, progress);
            // The driver may have stopped.
            let _ = jobs.send(Job::Verified(verification));
        });
    }

    /// Has what is rotten fetched again, and reports once that is done.
    pub(super) fn verified(&mut self, found: Verification) {
        let mut report =
            VerifyReport { files: found.files, bytes: found.bytes, ..VerifyReport::default() };
        report.elapsed_ms = found.elapsed_ms;
        for (path, reason) in found.unreadable {
            report.damaged.push(Damage { path: PathText(path), healed: false, reason });
        }
        let mut wanted = Vec::new();
        for Rotten { path, expected, actual } in found.rotten {
            tracing::warn!(%path, "its bytes changed while its size and times did not");
            self.input(Input::Rotten(path.clone(), actual));
            wanted.push((report.damaged.len(), path.clone(), expected));
            let reason = UNHEALED.to_owned();
            report.damaged.push(Damage { path: PathText(path), healed: false, reason });
        }
        // With nobody to ask it stays as it is for now.
        let patience = if self.engine.peers().next().is_some() { HEALING_MS_MAX } else { 0 };
        let deadline_ms = self.clock.elapsed_ms() + patience;
        let reply = found.reply;
        self.facts.verifier.healing = Some(Healing { reply, report, wanted, deadline_ms });
        self.answer_verification();
    }

    /// When the verification is answered at the latest.
    pub(super) fn verification_timeout(&self) -> Option<u64> {
        self.facts.verifier.healing.as_ref().map(|healing| healing.deadline_ms)
    }

    /// Answers the verification if all is healed, or its time is over.
    pub(super) fn answer_verification(&mut self) {
        let Some(mut healing) = self.facts.verifier.healing.take() else { return };
        let base = self.engine.base();
        let holds = |path: &TreePath, hash: ContentHash| {
            let entry = base.find(path).and_then(|id| base.entry(id));
            entry.is_some_and(
                |entry| matches!(&entry.body, Body::File(content) if content.hash == hash),
            )
        };
        for (index, path, hash) in &healing.wanted {
            let damage = &mut healing.report.damaged[*index];
            if !damage.healed && holds(path, *hash) {
                damage.healed = true;
                damage.reason = HEALED.to_owned();
                healing.report.healed += 1;
            }
        }
        let open = healing.report.healed < healing.wanted.len() as u64;
        if open && self.clock.elapsed_ms() < healing.deadline_ms && !healing.reply.is_closed() {
            self.facts.verifier.healing = Some(healing);
            return;
        }
        self.facts.verifier.running = false;
        // The client may have gone.
        let _ = healing.reply.send(Ok(Reply::Verify(healing.report)));
    }
}

fn read_all(
    root: &Root,
    expected: &[Expected],
    reply: Answer,
    progress: impl Fn(u64, u64),
) -> Verification {
    let start = Instant::now();
    let mut told = start;
    let mut found = Verification {
        files: 0,
        bytes: 0,
        elapsed_ms: 0,
        rotten: Vec::new(),
        unreadable: Vec::new(),
        reply,
    };
    for (done, file) in expected.iter().enumerate() {
        if found.reply.is_closed() {
            break;
        }
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            progress(done as u64, found.bytes);
        }
        match disk::open_content(root, &file.path, &file.fingerprint) {
            // Somebody has changed it since: that is no rot, and the watcher has seen it.
            Ok(None) => {}
            Ok(Some(reader)) => {
                found.files += 1;
                found.bytes += reader.size();
                match reader.hash() {
                    Ok(actual) if actual == file.hash => {}
                    Ok(actual) if reader.is_unchanged().unwrap_or(false) => {
                        let (path, expected) = (file.path.clone(), file.hash);
                        found.rotten.push(Rotten { path, expected, actual });
                    }
                    Ok(_) => {}
                    Err(error) => found.unreadable.push((file.path.clone(), error.to_string())),
                }
            }
            Err(error) => found.unreadable.push((file.path.clone(), error.to_string())),
        }
    }
    found.elapsed_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    found
}
