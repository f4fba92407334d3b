//! `pleach log [PATH]`

use pleach_daemon::control::{
    Client, LogCursor, LogPageReport, LogReport, LogRequest, PathText, Reply, Request,
};
use pleach_daemon::offline::Stopped;

use crate::arguments::Log;
use crate::asking::{Daemon, ask, find_daemon};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{place, render};

/// Whether the log goes on beyond what was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    Nothing,
    More,
}

pub(super) fn run(log: &Log, output: &Output) -> Result<Code, Failure> {
    let (root, path) = match &log.path {
        Some(path) => {
            let (root, path) = place::path_in_store(path)?;
            (root, Some(PathText(path)))
        }
        None => (place::root_of(None)?, None),
    };
    let ask_for = |limit, after| LogRequest {
        path: path.clone(),
        since_ms: log.since.map(|since| since.first_ms),
        master: log.master.clone(),
        limit,
        after,
    };
    let ((entries, rest), absent) = match find_daemon(&root)? {
        Daemon::Running(mut client) => {
            (gather(log.limit, |limit, after| page(&mut client, ask_for(limit, after)))?, None)
        }
        Daemon::Absent => {
            let stopped = Stopped::read(&root).map_err(Failure::new)?;
            let read = |limit, after| stopped.log(ask_for(limit, after)).map_err(Failure::new);
            (gather(log.limit, read)?, Some(Failure::no_daemon(&root)))
        }
    };
    output.facts(&*entries, |entries, style| render::log(entries, rest, style))?;
    absent.map_or(Ok(Code::Done), Err)
}

fn page(client: &mut Client, request: LogRequest) -> Result<LogPageReport, Failure> {
    ask(client, Request::Log(request), |reply| match reply {
        Reply::Log(page) => Some(page),
        _ => None,
    })
}

/// Page after page, until there is as much as was asked for.
fn gather(
    limit: u64,
    mut page: impl FnMut(u64, Option<LogCursor>) -> Result<LogPageReport, Failure>,
) -> Result<(Vec<LogReport>, Rest), Failure> {
    let (mut entries, mut after) = (Vec::new(), None);
    loop {
        let left = limit - entries.len() as u64;
        let LogPageReport { entries: more, next } = page(left, after)?;
        entries.extend(more);
        after = next;
        if after.is_none() {
            return Ok((entries, Rest::Nothing));
        }
        if entries.len() as u64 >= limit {
            return Ok((entries, Rest::More));
        }
    }
}
