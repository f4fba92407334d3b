//! `pleach wait [DIR] [--timeout 30s]`

use pleach_daemon::control::{Reply, Request};

use crate::arguments::Wait;
use crate::asking::{ask, daemon};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{place, render};

pub(super) fn run(wait: &Wait, output: &Output) -> Result<Code, Failure> {
    let root = place::root_of(wait.store.dir.as_deref())?;
    let timeout_ms = u64::try_from(wait.timeout.as_millis()).unwrap_or(u64::MAX);
    let report = ask(&mut daemon(&root)?, Request::Wait { timeout_ms }, |reply| match reply {
        Reply::Wait(report) => Some(report),
        _ => None,
    })?;
    output.facts(&report, render::wait)?;
    Ok(if report.converged { Code::Done } else { Code::NotConverged })
}
