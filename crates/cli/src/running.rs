//! Running a master in the foreground, with this program's log and failures.

use std::io::{self, IsTerminal};

use pleach_daemon::foreground::{self, ForegroundError, ShowProgress};
use pleach_daemon::log;
use pleach_daemon::node::{Node, NodeBuilder};
use tokio::runtime::Runtime;

use crate::arguments::Running;
use crate::failure::{Code, Failure};
use crate::progress::{LogAboveBar, Progress, Stage};

/// A runtime with several threads, as a node needs it.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    foreground::runtime().map_err(|e| Failure::new(format!("cannot start threads: {e}")))
}

/// Runs a master: `ready` is called once it runs. Returns after SIGTERM, SIGINT or a request
/// to stop; a second signal ends it at once.
pub(crate) fn run(
    master: NodeBuilder,
    running: &Running,
    ready: impl AsyncFnOnce(&Node) -> Result<(), Failure>,
) -> Result<Code, Failure> {
    let filter = running.log.as_deref();
    let above = io::stderr().is_terminal().then(LogAboveBar::default);
    let logging = match above.clone() {
        Some(log) => log::init(filter, move || log.clone()),
        None => log::init(filter, io::stderr),
    };
    logging.map_err(Failure::usage)?;
    let master = master.listen(running.listen.clone());
    let ran = foreground::run(master, above.as_ref().map(show_below), ready);
    if let Some(log) = above {
        log.end();
    }
    match ran {
        Ok(()) => Ok(Code::Done),
        Err(ForegroundError::Start(error)) => Err(error.into()),
        Err(ForegroundError::Ready(failure)) => Err(failure),
        Err(error) => Err(Failure::new(error)),
    }
}

/// A bar below the log while something takes long.
fn show_below(log: &LogAboveBar) -> ShowProgress {
    let mut progress = Progress::below(log);
    Box::new(move |event| match event.and_then(Stage::told) {
        Some(stage) => progress.show(stage),
        None => progress.clear(),
    })
}
