//! `pleach restore PATH [--version V | --at TIME]`

use pleach_daemon::control::{
    PathText, PickFormer, Reply, Request, RestoreOutcome, RestoreRequest, RestoredReport,
};

use crate::arguments::Restore;
use crate::asking::{ask, daemon, follow};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{place, render};

pub(super) fn run(asked: &Restore, output: &Output) -> Result<Code, Failure> {
    let (root, path) = place::path_in_store(&asked.path)?;
    let mut client = daemon(&root)?;
    let pick = match (&asked.version, asked.at) {
        (Some(version), _) => PickFormer::Version(version.clone()),
        (None, Some(at)) => PickFormer::At(at.last_ms),
        (None, None) => PickFormer::Last,
    };
    let request = RestoreRequest {
        path: PathText(path),
        pick,
        dry_run: asked.dry_run,
        timeout_ms: u64::try_from(asked.timeout.as_millis()).unwrap_or(u64::MAX),
    };
    let report = ask(&mut client, Request::Restore(request), |reply| match reply {
        Reply::Restored(report) => Some(report),
        _ => None,
    })?;
    if report.iter().any(|line| line.outcome == RestoreOutcome::Restored) {
        follow(&mut client, "restored");
    }
    output.facts(&*report, render::restored)?;
    let missing = |line: &&RestoredReport| line.outcome == RestoreOutcome::Missing;
    match report.iter().filter(missing).count() {
        0 => Ok(Code::Done),
        count => {
            let message = format!("no connected master has the bytes of {count} of these files");
            Err(Failure::new(message).next("`pleach status` shows who is away; then again"))
        }
    }
}
