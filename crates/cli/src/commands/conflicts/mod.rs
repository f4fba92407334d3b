//! `pleach conflicts [DIR] [--check]`, and what is done about one of them, a file each

mod content;
mod desk;
mod diff;
mod merge;
mod resolve;
mod view;

use std::path::Path;

use pleach_core::vocabulary::TreePath;
use pleach_daemon::control::{
    Client, ClientError, ConflictReport, PathText, RefusalKind, Reply, Request,
};
use pleach_daemon::offline;

use crate::arguments::Conflicts;
use crate::asking::{Daemon, ask, find_daemon};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{place, render};

pub(super) use content::content;
pub(super) use diff::diff;
pub(super) use merge::merge;
pub(super) use resolve::resolve;
pub(super) use view::view;

/// How many paths are looked at one by one.
const LOOKED_AT_MAX: usize = 1_000;

/// How long that may take.
const LOOK_MS_MAX: u64 = 60_000;

pub(super) fn list(conflicts: &Conflicts, output: &Output) -> Result<Code, Failure> {
    let root = place::root_of(conflicts.store.dir.as_deref())?;
    let now_ms = super::now_ms();
    let (reports, absent) = match find_daemon(&root)? {
        Daemon::Running(mut client) => (all(&mut client)?, None),
        Daemon::Absent => {
            let reports = offline::conflicts(&root).map_err(Failure::new)?;
            (reports, Some(Failure::no_daemon(&root)))
        }
    };
    output.facts(&*reports, |reports, style| render::conflicts(reports, style, now_ms))?;
    match absent {
        Some(failure) => Err(failure),
        None if conflicts.check && !reports.is_empty() => Ok(Code::Conflicts),
        None => Ok(Code::Done),
    }
}

pub(super) fn show(path: &Path, output: &Output) -> Result<Code, Failure> {
    let (root, tree_path) = place::path_in_store(path)?;
    let now_ms = super::now_ms();
    let (here, absent) = match find_daemon(&root)? {
        Daemon::Running(mut client) => (at(&mut client, &tree_path)?, None),
        Daemon::Absent => {
            let here = offline::conflicts_at(&root, &tree_path).map_err(Failure::new)?;
            (here, Some(Failure::no_daemon(&root)))
        }
    };
    if here.is_empty() {
        return Err(absent.unwrap_or_else(|| no_conflict(&tree_path)));
    }
    output.facts(&*here, |here, style| {
        here.iter().map(|report| render::conflict(report, style, now_ms)).collect()
    })?;
    absent.map_or(Ok(Code::Done), Err)
}

/// All that are open.
fn all(client: &mut Client) -> Result<Vec<ConflictReport>, Failure> {
    ask(client, Request::Conflicts, |reply| match reply {
        Reply::Conflicts(reports) => Some(reports),
        _ => None,
    })
}

/// Those at one path; none if nothing is open there.
fn at(client: &mut Client, path: &TreePath) -> Result<Vec<ConflictReport>, Failure> {
    match client.call(Request::ConflictsAt { path: PathText(path.clone()) }) {
        Ok(Reply::Conflicts(reports)) => Ok(reports),
        Ok(_) => Err(other_answer()),
        Err(ClientError::Refused(refusal)) if refusal.kind == RefusalKind::NotFound => {
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    }
}

/// Has the daemon take up what is at these paths on the disk.
fn look(client: &mut Client, paths: Vec<PathText>) -> Result<(), Failure> {
    // One look at everything costs less than very many names.
    let paths = if paths.len() > LOOKED_AT_MAX { Vec::new() } else { paths };
    ask(client, Request::Look { paths, timeout_ms: LOOK_MS_MAX }, |reply| match reply {
        Reply::Done => Some(()),
        _ => None,
    })
}

fn other_answer() -> Failure {
    Failure::new("the daemon answered something else: is it of another version?")
}

fn no_conflict(path: &TreePath) -> Failure {
    Failure::new(format!("{path}: no conflict is open there")).next("pleach conflicts lists them")
}
