//! `pleach demo`: three masters in a scratch directory, and everything that matters happening to them.
//!
//! The masters are real: three nodes with their own keys, states and sockets on 127.0.0.1, in this
//! process. What is said to take a time took it. Each act is an ordinary file operation in one of the
//! directories; that it arrived is seen by looking into the others.

mod masters;
mod sight;
mod story;

use std::path::PathBuf;
use std::time::Duration;

use pleach_daemon::log;

use crate::arguments::Demo;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::running;

pub(super) fn run(demo: &Demo, output: &Output) -> Result<Code, Failure> {
    log::init(Some(&demo.log), std::io::stderr).map_err(Failure::usage)?;
    let scratch = Scratch::make(demo)?;
    let runtime = running::runtime()?;
    let told = runtime.block_on(async {
        tokio::select! {
            told = story::tell(&scratch.path, output) => told,
            _ = tokio::signal::ctrl_c() => Err(Failure::new("interrupted")),
        }
    });
    runtime.shutdown_timeout(STOP_MAX);
    if demo.keep {
        let path = scratch.directory.keep();
        output
            .remark(|style| style.dim(format!("the three masters are in {}\n", path.display())))?;
    } else if let Err(error) = scratch.directory.close() {
        let message = format!("cannot remove {}: {error}", scratch.path.display());
        told?;
        return Err(Failure::new(message).next("remove it by hand"));
    }
    told.map(|()| Code::Done)
}

/// How long masters that were not stopped, for a failure, are waited for.
const STOP_MAX: Duration = Duration::from_secs(2);

/// The directory of the three masters.
struct Scratch {
    path: PathBuf,
    directory: tempfile::TempDir,
}

impl Scratch {
    fn make(demo: &Demo) -> Result<Self, Failure> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("pleach-demo-");
        let directory = match &demo.scratch {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir(),
        };
        let directory =
            directory.map_err(|e| Failure::new(format!("cannot make a scratch directory: {e}")))?;
        Ok(Self { path: directory.path().to_owned(), directory })
    }
}
