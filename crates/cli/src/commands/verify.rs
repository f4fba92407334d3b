//! `pleach verify [DIR]`

use pleach_daemon::control::{Reply, Request, WorkKind};

use crate::arguments::Store;
use crate::asking::{ask, daemon};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{place, progress, render};

pub(super) fn run(store: &Store, output: &Output) -> Result<Code, Failure> {
    let root = place::root_of(store.dir.as_deref())?;
    let mut client = daemon(&root)?;
    let progress = progress::follow(&root, WorkKind::Verify, output);
    let report = ask(&mut client, Request::Verify, |reply| match reply {
        Reply::Verify(report) => Some(report),
        _ => None,
    });
    drop(progress);
    let report = report?;
    output.facts(&report, render::verify)?;
    let all_healed = report.damaged.iter().all(|damage| damage.healed);
    if all_healed {
        return Ok(Code::Done);
    }
    Err(Failure::new("some files are damaged and were not healed")
        .next("connect a master that has them sound (`pleach status` shows who is), or restore them from a backup"))
}
