//! `pleach guard [DIR] [--allow|--undo]`

use pleach_daemon::control::{JudgementReport, Reply, Request};

use crate::arguments::Guard;
use crate::asking::{ask, daemon};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{place, render};

pub(super) fn run(guard: &Guard, output: &Output) -> Result<Code, Failure> {
    let root = place::root_of(guard.store.dir.as_deref())?;
    let judgement = match (guard.allow, guard.undo) {
        (true, _) => Some(JudgementReport::Allow),
        (_, true) => Some(JudgementReport::Undo),
        _ => None,
    };
    let request = judgement.map_or(Request::Guard, |judgement| Request::Judge { judgement });
    let report = ask(&mut daemon(&root)?, request, |reply| match reply {
        Reply::Guard(report) => Some(report),
        _ => None,
    })?;
    output.facts(&report, |report, style| render::guard(report, judgement, style))?;
    Ok(Code::Done)
}
