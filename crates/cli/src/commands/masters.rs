//! `pleach masters [DIR]`, `pleach masters remove NAME`

use pleach_daemon::control::{Reply, Request};
use pleach_daemon::offline;

use crate::arguments::Store;
use crate::asking::{Daemon, ask, daemon, find_daemon};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{place, render};

pub(super) fn list(store: &Store, output: &Output) -> Result<Code, Failure> {
    let root = place::root_of(store.dir.as_deref())?;
    let now_ms = super::now_ms();
    let (reports, absent) = match find_daemon(&root)? {
        Daemon::Running(mut client) => {
            let reports = ask(&mut client, Request::Masters, |reply| match reply {
                Reply::Masters(reports) => Some(reports),
                _ => None,
            })?;
            (reports, None)
        }
        Daemon::Absent => {
            let report = offline::status(&root).map_err(Failure::new)?;
            (report.masters, Some(Failure::no_daemon(&root)))
        }
    };
    output.facts(&*reports, |reports, style| {
        render::masters(reports, render::Ids::Shown, style, now_ms)
    })?;
    absent.map_or(Ok(Code::Done), Err)
}

pub(super) fn remove(name: &str, store: &Store, output: &Output) -> Result<Code, Failure> {
    let root = place::root_of(store.dir.as_deref())?;
    let request = Request::RemoveMaster { name: name.to_owned() };
    ask(&mut daemon(&root)?, request, |reply| (reply == Reply::Done).then_some(()))?;
    output.remark(|style| {
        format!("{} {name}: what it writes from now on is refused\n", style.good("removed"))
    })?;
    Ok(Code::Done)
}
