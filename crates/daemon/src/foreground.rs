//! Running one master in the foreground, until a signal or a request ends it: what `pleach daemon` and
//! `pleachd` do.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::node::{Node, StartError};

/// How long a clean stop may take while nothing is written to the tree. What is being worked out then is
/// not recorded, so that nobody knows of it, and the next start works it out anew.
const STOP_MAX: Duration = Duration::from_millis(1_700);
/// How long it may take while something is; the next start recovers what is half done.
const STOP_WRITING_MAX: Duration = Duration::from_secs(10);
/// How often it is asked whether something is.
const STOP_STEP: Duration = Duration::from_millis(50);

/// Why a master did not run, or did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum ForegroundError<E> {
    /// It could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// What was to be done first failed.
    #[error("{0}")]
    Ready(E),
    /// The system gave no threads, or no signals.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    /// It did not end when told to.
    #[error("the daemon did not stop within {} s; its next start recovers", STOP_WRITING_MAX.as_secs())]
    Late,
    /// A second signal came while it was stopping.
    #[error("ended at once, at the second signal; the next start recovers")]
    Forced,
}

/// A runtime as a node needs it: with several threads.
///
/// # Errors
/// If the system gives no threads.
pub fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build()
}

/// Runs the master in `root`, listening on `listen` or, if that is empty, where the settings say. `ready`
/// is called once it runs. Returns after SIGTERM, SIGINT or a request to stop; a second signal ends it at
/// once.
///
/// # Errors
/// If it can't be started, `ready` fails, or it does not end cleanly.
pub fn run<E>(
    root: &Path,
    listen: &[Multiaddr],
    ready: impl AsyncFnOnce(&Node) -> Result<(), E>,
) -> Result<(), ForegroundError<E>> {
    let runtime = runtime()?;
    let outcome = runtime.block_on(run_until_told(root, listen, ready));
    // A blocking read of the runtime's own may still wait for input that never comes.
    runtime.shutdown_background();
    outcome
}

async fn run_until_told<E>(
    root: &Path,
    listen: &[Multiaddr],
    ready: impl AsyncFnOnce(&Node) -> Result<(), E>,
) -> Result<(), ForegroundError<E>> {
    let mut signals = Signals::listen()?;
    let mut builder = Node::builder(root);
    if !listen.is_empty() {
        builder = builder.listen(listen.to_vec());
    }
    // A large store takes its time to open, and nothing is lost by giving that up.
    let starting = tokio::spawn(builder.start());
    let node = tokio::select! {
        started = starting => started.map_err(std::io::Error::other)??,
        () = signals.next() => return Ok(()),
    };
    let addresses: Vec<_> = node.listen_addrs().iter().map(ToString::to_string).collect();
    let (version, root) = (env!("CARGO_PKG_VERSION"), root.display());
    tracing::info!(version, %root, listen = addresses.join(" "), "running");
    let readied = ready(&node).await.map_err(ForegroundError::Ready);
    if readied.is_ok() {
        tokio::select! {
            () = signals.next() => {}
            () = node.handle().stop_requested() => {}
        }
    }
    tracing::info!("stopping");
    let writing = node.writing();
    tokio::select! {
        () = node.stop() => tracing::info!("stopped"),
        given_up = patience(&writing) => {
            given_up?;
            tracing::info!("stopped in the middle of a look: the next start begins it anew");
        }
        () = signals.next() => return Err(ForegroundError::Forced),
    }
    readied
}

/// Returns when a stop has taken long enough.
async fn patience<E>(writing: &AtomicBool) -> Result<(), ForegroundError<E>> {
    let start = Instant::now();
    tokio::time::sleep(STOP_MAX).await;
    while writing.load(Ordering::Relaxed) {
        if start.elapsed() >= STOP_WRITING_MAX {
            return Err(ForegroundError::Late);
        }
        tokio::time::sleep(STOP_STEP).await;
    }
    Ok(())
}

/// The signals that end a daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
