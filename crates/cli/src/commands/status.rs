//! `pleach status [DIR]`

use pleach_daemon::control::{Reply, Request};
use pleach_daemon::offline;

use crate::arguments::Store;
use crate::asking::{Daemon, ask, find_daemon};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{place, render};

pub(super) fn run(store: &Store, output: &Output) -> Result<Code, Failure> {
    let root = place::root_of(store.dir.as_deref())?;
    let now_ms = super::now_ms();
    let show = |report: &_, style| render::status(report, style, now_ms);
    match find_daemon(&root)? {
        Daemon::Running(mut client) => {
            let report = ask(&mut client, Request::Status, |reply| match reply {
                Reply::Status(report) => Some(report),
                _ => None,
            })?;
            output.facts(&*report, show)?;
            Ok(Code::Done)
        }
        Daemon::Absent => {
            output.facts(&offline::status(&root).map_err(Failure::new)?, show)?;
            Err(Failure::no_daemon(&root))
        }
    }
}
