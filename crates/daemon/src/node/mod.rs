//! The node: one running master, for embedders and for the daemon.
//!
//! ```text
//!              control socket        watcher
//!                    |                  |
//! network <----> driver <----> engine (pleach-core)
//!    |            |  \
//!    |          state  hand ----> disk
//!    +---- contents ----^
//! ```
//!
//! The driver is one thread that owns the engine and the state database; the hand is one thread that owns
//! the tree; the network runs on tokio. They speak through queues, and nobody waits for the driver but
//! those who ask it something.

mod answer;
mod conflict_news;
mod conflicts;
mod content;
mod driver;
mod forward;
mod hand;
mod history;
mod membership;
mod outputs;
mod peer_problems;
mod ports;
mod progress;
mod reading;
mod recording;
mod refusals;
mod restore;
mod start;
mod tally;
mod verify;
mod waiting;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use libp2p::Multiaddr;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};

use crate::control::{Call, EventReport, Refusal, RefusalKind, Reply, Request};
use crate::disk::{Dirty, Hints};
use crate::net::Network;
pub use conflict_news::{ConflictListener, ConflictNews};
use driver::Job;
pub use start::{NodeBuilder, StartError};

/// A running master. Dropping it stops it, without waiting.
#[derive(Debug)]
pub struct Node {
    handle: NodeHandle,
    threads: Vec<JoinHandle<()>>,
    network: Network,
    /// Cuts short what the hand is looking at.
    stopping: Arc<AtomicBool>,
    /// Whether the hand is writing to the tree.
    writing: Arc<AtomicBool>,
    fault: Arc<OnceLock<String>>,
    hints: Hints,
}

/// Speaks to a running node. Cheap to clone.
#[derive(Clone)]
pub struct NodeHandle {
    jobs: SyncSender<Job>,
    calls: mpsc::Sender<Call>,
    events: broadcast::Sender<EventReport>,
    stop_requested: Arc<Notify>,
}

impl std::fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeHandle")
    }
}

impl NodeHandle {
    /// Asks what a client of the control socket may ask, but for [`Request::Events`].
    ///
    /// [`Request::Resolve`] and [`Request::Restore`] are answered once they are decided; a [`Request::Follow`] after
    /// them, once the files are so on this disk.
    pub async fn call(&self, request: Request) -> Result<Reply, Refusal> {
        let stopping = || Refusal::new(RefusalKind::Stopping, "the node is stopping");
        let (reply, answer) = oneshot::channel();
        self.calls.send(Call { request, reply }).await.map_err(|_| stopping())?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Everything that happens from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<EventReport> {
        self.events.subscribe()
    }

    /// Cuts this master off from all others, or ends that. For tests and demonstrations.
    pub async fn set_isolated(&self, isolated: bool) {
        let (done, finished) = oneshot::channel();
        let jobs = self.jobs.clone();
        let sent =
            tokio::task::spawn_blocking(move || jobs.send(Job::Isolate(isolated, done)).is_ok());
        if sent.await.unwrap_or(false) {
            let _ = finished.await;
        }
    }

    /// Waits until somebody has asked the node to stop over the control socket.
    pub async fn stop_requested(&self) {
        self.stop_requested.notified().await;
    }
}

impl Node {
    /// A node on the store in `dir`.
    pub fn builder(dir: impl Into<PathBuf>) -> NodeBuilder {
        NodeBuilder::new(dir.into())
    }

    /// Speaks to this node.
    #[must_use]
    pub fn handle(&self) -> &NodeHandle {
        &self.handle
    }

    /// The addresses at which it can be reached.
    #[must_use]
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.network.listen_addrs()
    }

    /// Why it can't go on, if it can't: what it has recorded is not there any more. It then asks to be
    /// stopped ([`NodeHandle::stop_requested`]).
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        self.fault.get().map(String::as_str)
    }

    /// Tells whether the tree is being written to: a process that ends then leaves work to its next start.
    pub(crate) fn writing(&self) -> Arc<AtomicBool> {
        self.writing.clone()
    }

    /// Stops cleanly: what is being written to the tree is finished, what is being looked at is left, state
    /// is saved, connections are closed.
    pub async fn stop(mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        let (threads, hints) = (std::mem::take(&mut self.threads), self.hints.clone());
        let (jobs, network) = (self.handle.jobs.clone(), self.network.clone());
        let stopped = tokio::task::spawn_blocking(move || {
            // The driver may have ended already.
            let _ = jobs.send(Job::Stop);
            drop(jobs);
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a thread of the node has panicked");
                }
            }
            // Whoever waits for hints finds that nobody takes them any more: a runtime that is dropped waits
            // for its blocking threads.
            hints.add(Dirty::RootGone);
        });
        network.shutdown().await;
        drop((network, self));
        if let Err(error) = stopped.await {
            tracing::error!(%error, "the node did not stop cleanly");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // With a full queue the driver finds out at its next job.
        let _ = self.handle.jobs.try_send(Job::Stop);
        // Who waits for hints on a thread of the runtime finds out by this.
        self.hints.add(Dirty::RootGone);
    }
}
