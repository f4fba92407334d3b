//! What comes from others, on its way to the driver: hints of the watcher, events of the network, calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use pleach_core::engine::{Hint, Input};
use pleach_core::vocabulary::TreePath;
use tokio::sync::mpsc;

use super::driver::Job;
use crate::control::Call;
use crate::disk::{Dirty, Echoes, Hints, VersionId};
use crate::net::NetEvents;

/// Takes events and calls to the driver. Each waits for its turn on a blocking thread, so that a busy
/// driver slows its senders down and nothing else.
pub(super) fn forward(
    mut events: NetEvents,
    mut calls: mpsc::Receiver<Call>,
    (hints, stopping): (Hints, Arc<AtomicBool>),
    echoes: Echoes,
    jobs: &SyncSender<Job>,
) {
    let hint_jobs = jobs.clone();
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Handle::current();
        loop {
            let dirty = runtime.block_on(hints.next());
            if stopping.load(Ordering::Relaxed) {
                return;
            }
            let (hints, late) = sorted(echoes.leave_out(dirty));
            let hints = (!hints.is_empty()).then(|| Job::Input(Input::Hints(hints)));
            let late = (!late.is_empty()).then(|| Job::LateWriters(late));
            if hints.into_iter().chain(late).any(|job| hint_jobs.send(job).is_err()) {
                return;
            }
        }
    });
    let net_jobs = jobs.clone();
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Handle::current();
        while let Some(event) = runtime.block_on(events.recv()) {
            if net_jobs.send(Job::Net(event)).is_err() {
                return;
            }
        }
    });
    let call_jobs = jobs.clone();
    tokio::task::spawn_blocking(move || {
        while let Some(call) = calls.blocking_recv() {
            if call_jobs.send(Job::Call(call)).is_err() {
                return;
            }
        }
    });
}

/// What is for the engine, and the versions that somebody writes to.
fn sorted(dirty: Vec<Dirty>) -> (Vec<Hint>, Vec<VersionId>) {
    let (mut hints, mut late) = (Vec::new(), Vec::new());
    for dirty in dirty {
        hints.push(match dirty {
            // A look finds out whether it is gone.
            Dirty::RootGone => Hint::Directory(TreePath::root()),
            Dirty::Overflow => Hint::Subtree(TreePath::root()),
            Dirty::Directory(path) => Hint::Directory(path),
            Dirty::Written(path) => Hint::Written(path),
            Dirty::Name(path) => Hint::Changed(path),
            Dirty::Removed(path) => Hint::Removed(path),
            Dirty::Renamed(from, to) => Hint::Renamed(from, to),
            Dirty::Late(version) => {
                late.push(version);
                continue;
            }
        });
    }
    (hints, late)
}
