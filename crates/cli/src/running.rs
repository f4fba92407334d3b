//! Running a master in the foreground, with this program's log and failures.

use std::path::Path;

use pleach_daemon::foreground::{self, ForegroundError};
use pleach_daemon::log;
use pleach_daemon::node::Node;
use tokio::runtime::Runtime;

use crate::arguments::Running;
use crate::failure::{Code, Failure};

/// A runtime with several threads, as a node needs it.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    foreground::runtime().map_err(|e| Failure::new(format!("cannot start threads: {e}")))
}

/// Runs the master in `root`: `ready` is called once it runs. Returns after SIGTERM, SIGINT or a request
/// to stop; a second signal ends it at once.
pub(crate) fn run(
    root: &Path,
    running: &Running,
    ready: impl AsyncFnOnce(&Node) -> Result<(), Failure>,
) -> Result<Code, Failure> {
    log::init(running.log.as_deref()).map_err(Failure::usage)?;
    match foreground::run(root, &running.listen, ready) {
        Ok(()) => Ok(Code::Done),
        Err(ForegroundError::Start(error)) => Err(error.into()),
        Err(ForegroundError::Ready(failure)) => Err(failure),
        Err(error) => Err(Failure::new(error)),
    }
}
