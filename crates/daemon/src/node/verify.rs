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

type Answer = oneshot::Sender<Result<Reply, Refusal>>;

/// What is needed to read the tree again.
pub(super) struct Verifier {
    pub(super) root: Root,
    pub(super) jobs: SyncSender<Job>,
    pub(super) running: bool,
}

/// What a verification found.
pub(super) struct Verification {
    files: u64,
    bytes: u64,
    elapsed_ms: u64,
    rotten: Vec<(TreePath, ContentHash)>,
    unreadable: Vec<(TreePath, String)>,
    reply: Answer,
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
        let progress = move |done| {
            let body = EventBody::Progress { work: WorkKind::Verify, done, total };
            // Nobody may be listening.
            let _ = events.send(EventReport { time_ms: unix_ms(), body });
        };
        std::thread::spawn(move || {
            let verification = read_all(&root, &expected, reply, progress);
            // The driver may have stopped.
            let _ = jobs.send(Job::Verified(verification));
        });
    }

    /// Reports what was found, and has what is rotten fetched again.
    pub(super) fn verified(&mut self, found: Verification) {
        self.facts.verifier.running = false;
        let mut damaged = Vec::new();
        let others = self.engine.peers().next().is_some();
        for (path, actual) in found.rotten {
            self.input(Input::Rotten(path.clone(), actual));
            let reason = if others {
                "its bytes changed while its size and times did not; they are kept in the versions \
                 and the content is being fetched from another master"
            } else {
                "its bytes changed while its size and times did not; no other master is connected \
                 to fetch the content from: it will be when one is"
            };
            damaged.push(Damage { path: PathText(path), healed: others, reason: reason.into() });
        }
        for (path, reason) in found.unreadable {
            damaged.push(Damage { path: PathText(path), healed: false, reason });
        }
        let report = VerifyReport {
            files: found.files,
            bytes: found.bytes,
            healed: damaged.iter().filter(|damage| damage.healed).count() as u64,
            damaged,
            elapsed_ms: found.elapsed_ms,
        };
        // The client may have gone.
        let _ = found.reply.send(Ok(Reply::Verify(report)));
    }
}

fn read_all(
    root: &Root,
    expected: &[Expected],
    reply: Answer,
    progress: impl Fn(u64),
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
            progress(done as u64);
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
                        found.rotten.push((file.path.clone(), actual));
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
