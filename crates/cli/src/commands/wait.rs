//! `pleach wait [DIR] [--timeout 30s]`

use std::path::Path;
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pleach_daemon::control::{Client, Reply, Request};

use crate::arguments::Wait;
use crate::asking::{ask, daemon};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{place, render};

pub(super) fn run(wait: &Wait, output: &Output) -> Result<Code, Failure> {
    let root = place::root_of(wait.store.dir.as_deref())?;
    let timeout_ms = u64::try_from(wait.timeout.as_millis()).unwrap_or(u64::MAX);
    let mut client = daemon(&root)?;
    let spinner = output.shows_progress().then(|| follow(&root)).flatten();
    let report = ask(&mut client, Request::Wait { timeout_ms }, |reply| match reply {
        Reply::Wait(report) => Some(report),
        _ => None,
    });
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    let report = report?;
    output.facts(&report, render::wait)?;
    Ok(if report.converged { Code::Done } else { Code::NotConverged })
}

/// How often what is waited for is shown anew.
const SHOWN_EVERY: Duration = Duration::from_millis(250);

/// A line on standard error that says what is still to do, until it is cleared.
fn follow(root: &Path) -> Option<ProgressBar> {
    let mut client = Client::connect(root).ok()?;
    let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    spinner.set_style(ProgressStyle::default_spinner());
    let drawn = spinner.clone();
    // Ends with the process at the latest: a wait is all that it does.
    thread::spawn(move || {
        while !drawn.is_finished()
            && let Ok(Reply::Status(status)) = client.call(Request::Status)
        {
            drawn.set_message(render::waiting(&status));
            drawn.tick();
            thread::sleep(SHOWN_EVERY);
        }
    });
    Some(spinner)
}
