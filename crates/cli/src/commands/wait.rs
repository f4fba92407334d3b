//! `pleach wait [DIR] [--timeout 30s]`

use pleach_daemon::control::{Client, Reply, Request};

use crate::arguments::Wait;
use crate::asking::{ask, daemon};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{place, progress, render};

pub(super) fn run(wait: &Wait, output: &Output) -> Result<Code, Failure> {
    let root = place::root_of(wait.store.dir.as_deref())?;
    let timeout_ms = u64::try_from(wait.timeout.as_millis()).unwrap_or(u64::MAX);
    let mut client = daemon(&root)?;
    let mut follower = Client::connect(&root).ok();
    let shown =
        progress::meanwhile(output, move || match follower.as_mut()?.call(Request::Status) {
            Ok(Reply::Status(status)) => Some(render::waiting(&status)),
            _ => None,
        });
    let report = ask(&mut client, Request::Wait { timeout_ms }, |reply| match reply {
        Reply::Wait(report) => Some(report),
        _ => None,
    });
    drop(shown);
    let report = report?;
    output.facts(&report, render::wait)?;
    Ok(if report.converged { Code::Done } else { Code::NotConverged })
}
