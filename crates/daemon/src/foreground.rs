//! Running one master in the foreground, until a signal or a request ends it: what `pleach daemon` and
//! `pleachd` do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::control::{EventBody, EventReport, WorkKind};
use crate::node::{Node, NodeBuilder, StartError};

/// How long a clean stop may take while nothing is written to the tree. What is being worked out then is
/// not recorded, so that nobody knows of it, and the next start works it out anew.
const STOP_MAX: Duration = Duration::from_millis(1_700);
/// How long it may take while something is; the next start recovers what is half done.
const STOP_WRITING_MAX: Duration = Duration::from_secs(10);
/// How often it is asked whether something is.
const STOP_STEP: Duration = Duration::from_millis(50);

/// How often progress is logged where nobody shows it.
const LOGGED_EVERY: Duration = Duration::from_secs(5);
/// With nothing told for so long, nothing goes on that is worth showing.
const PROGRESS_PATIENCE: Duration = Duration::from_secs(10);

/// Why a master did not run, or did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum ForegroundError<E> {
    /// It could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// What was to be done first failed.
    #[error("{0}")]
    Ready(E),
    /// It could not go on.
    #[error("{0}")]
    Fault(String),
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

/// What shows how far long work has come: [`EventBody::Progress`] as it comes, none when there has been
/// none for a while.
pub type ShowProgress = Box<dyn FnMut(Option<&EventBody>) + Send>;

/// Runs a master. How far long work has come goes to `progress`, or without one to the log, now and then.
/// `ready` is called once it runs. Returns after SIGTERM, SIGINT or a request to stop; a second signal ends
/// it at once.
///
/// # Errors
/// If it can't be started, `ready` fails, or it does not end cleanly.
pub fn run<E>(
    master: NodeBuilder,
    progress: Option<ShowProgress>,
    ready: impl AsyncFnOnce(&Node) -> Result<(), E>,
) -> Result<(), ForegroundError<E>> {
    let runtime = runtime()?;
    let outcome = runtime.block_on(run_until_told(master, progress, ready));
    // A blocking read of the runtime's own may still wait for input that never comes.
    runtime.shutdown_background();
    outcome
}

async fn run_until_told<E>(
    master: NodeBuilder,
    progress: Option<ShowProgress>,
    ready: impl AsyncFnOnce(&Node) -> Result<(), E>,
) -> Result<(), ForegroundError<E>> {
    let mut signals = Signals::listen()?;
    // A large store takes its time to open, and nothing is lost by giving that up.
    let root = master.dir().to_owned();
    let starting = tokio::spawn(master.start());
    let node = tokio::select! {
        started = starting => started.map_err(std::io::Error::other)??,
        () = signals.next() => return Ok(()),
    };
    tokio::spawn(show(node.handle().events(), progress.unwrap_or_else(log_now_and_then)));
    let addresses: Vec<_> = node.listen_addrs().iter().map(ToString::to_string).collect();
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, root = %root.display(), listen = addresses.join(" "), "running");
    let readied = ready(&node).await.map_err(ForegroundError::Ready);
    if readied.is_ok() {
        tokio::select! {
            () = signals.next() => {}
            () = node.handle().stop_requested() => {}
        }
    }
    tracing::info!("stopping");
    let fault = node.fault().map(str::to_owned);
    let writing = node.writing();
    tokio::select! {
        () = node.stop() => tracing::info!("stopped"),
        given_up = patience(&writing) => {
            given_up?;
            tracing::info!("stopped in the middle of a look: the next start begins it anew");
        }
        () = signals.next() => return Err(ForegroundError::Forced),
    }
    match fault {
        Some(fault) => Err(ForegroundError::Fault(fault)),
        None => readied,
    }
}

/// Gives `show` what is told of progress.
async fn show(mut events: Receiver<EventReport>, mut show: ShowProgress) {
    let mut shown = false;
    loop {
        match tokio::time::timeout(PROGRESS_PATIENCE, events.recv()).await {
            Ok(Ok(EventReport { body: body @ EventBody::Progress { .. }, .. })) => {
                shown = !is_done(&body);
                show(Some(&body).filter(|_| shown));
            }
            Ok(Ok(_) | Err(RecvError::Lagged(_))) => {}
            Ok(Err(RecvError::Closed)) => return show(None),
            Err(_) if std::mem::take(&mut shown) => show(None),
            Err(_) => {}
        }
    }
}

fn is_done(progress: &EventBody) -> bool {
    matches!(progress, EventBody::Progress { done, total, bytes_done, bytes_total, .. }
        if Some(*done) == *total && Some(*bytes_done) == *bytes_total)
}

/// A line in the log every [`LOGGED_EVERY`], the first one when the work has taken that long.
fn log_now_and_then() -> ShowProgress {
    let mut next: Option<Instant> = None;
    Box::new(move |body| {
        let Some(EventBody::Progress { work, done, total, bytes_done, bytes_total }) = body else {
            next = None;
            return;
        };
        let now = Instant::now();
        if *next.get_or_insert(now + LOGGED_EVERY) > now {
            return;
        }
        next = Some(now + LOGGED_EVERY);
        let what = match work {
            WorkKind::Scan => "looking through the directory",
            WorkKind::Fetch => "getting contents",
            WorkKind::Apply => "putting the tree on the disk",
            WorkKind::Verify => "verifying",
        };
        let (files, bytes) = (done, bytes_done);
        let (of_files, of_bytes) = (total.unwrap_or_default(), bytes_total.unwrap_or_default());
        tracing::info!(files, of_files, bytes, of_bytes, "{what}");
    })
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
