//! `pleach set [KEY [VALUE]]`

use pleach_daemon::control::{Reply, Request};

use crate::arguments::Set;
use crate::asking::{ask, daemon};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{place, render};

pub(super) fn run(set: &Set, output: &Output) -> Result<Code, Failure> {
    let root = place::root_of(set.dir.as_deref())?;
    let request = match (&set.key, &set.value) {
        (Some(key), Some(value)) => Request::Set { key: key.clone(), value: value.clone() },
        _ => Request::Settings,
    };
    let mut reports = ask(&mut daemon(&root)?, request, |reply| match reply {
        Reply::Settings(reports) => Some(reports),
        _ => None,
    })?;
    if let Some(key) = &set.key {
        reports.retain(|report| report.key == *key);
        if reports.is_empty() {
            let message = format!("there is no setting {key}: `pleach set` lists them all");
            return Err(Failure::usage(message));
        }
    }
    output.facts(&*reports, render::settings)?;
    Ok(Code::Done)
}
