//! `pleach conflicts [DIR] [--check]`, `show PATH`, `resolve PATH... --keep …`

use std::path::{Path, PathBuf};

use pleach_core::vocabulary::TreePath;
use pleach_daemon::control::{Client, ConflictReport, PathText, Pick, Reply, Request};
use pleach_daemon::offline;
use serde::Serialize;

use crate::arguments::Conflicts;
use crate::asking::{Daemon, ask, daemon, find_daemon};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{place, render};

pub(super) fn list(conflicts: &Conflicts, output: &Output) -> Result<Code, Failure> {
    let root = place::root_of(conflicts.store.dir.as_deref())?;
    let now_ms = super::now_ms();
    let (reports, absent) = open_conflicts(&root)?;
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
    let (reports, absent) = open_conflicts(&root)?;
    let here: Vec<_> = reports.into_iter().filter(|report| report.path.0 == tree_path).collect();
    if here.is_empty() {
        return Err(absent.unwrap_or_else(|| no_conflict(&tree_path)));
    }
    output.facts(&*here, |here, style| {
        here.iter().map(|report| render::conflict(report, style, now_ms)).collect()
    })?;
    absent.map_or(Ok(Code::Done), Err)
}

/// What was settled, for programs.
#[derive(Serialize)]
struct Resolved {
    path: PathText,
    kept: Pick,
}

pub(super) fn resolve(paths: &[PathBuf], keep: &Pick, output: &Output) -> Result<Code, Failure> {
    let placed: Vec<_> = paths.iter().map(|p| place::path_in_store(p)).collect::<Result<_, _>>()?;
    let mut resolved = Vec::new();
    let mut failed = None;
    for (root, path) in placed {
        let path = PathText(path);
        let request = Request::Resolve { path: path.clone(), choice: keep.clone() };
        let done = daemon(&root).and_then(|mut client| {
            ask(&mut client, request, |reply| (reply == Reply::Done).then_some(()))
        });
        match done {
            Ok(()) => resolved.push(Resolved { path, kept: keep.clone() }),
            Err(failure) => {
                failed = Some(failure);
                break;
            }
        }
    }
    output.facts(&*resolved, |resolved, style| {
        resolved.iter().map(|r| format!("{} {}\n", style.good("settled"), r.path)).collect()
    })?;
    failed.map_or(Ok(Code::Done), Err)
}

/// The open conflicts, from the daemon or the state; then the failure that no daemon runs.
fn open_conflicts(root: &Path) -> Result<(Vec<ConflictReport>, Option<Failure>), Failure> {
    match find_daemon(root)? {
        Daemon::Running(mut client) => Ok((ask_conflicts(&mut client)?, None)),
        Daemon::Absent => {
            let reports = offline::conflicts(root).map_err(Failure::new)?;
            Ok((reports, Some(Failure::no_daemon(root))))
        }
    }
}

fn ask_conflicts(client: &mut Client) -> Result<Vec<ConflictReport>, Failure> {
    ask(client, Request::Conflicts, |reply| match reply {
        Reply::Conflicts(reports) => Some(reports),
        _ => None,
    })
}

fn no_conflict(path: &TreePath) -> Failure {
    Failure::new(format!("{path}: no conflict is open there")).next("pleach conflicts lists them")
}
