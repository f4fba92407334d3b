//! `pleach invite DIR [--expires 24h]`

use pleach_daemon::control::{Reply, Request};

use crate::arguments::Invite;
use crate::asking::{ask, daemon};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::place;

pub(super) fn run(invite: &Invite, output: &Output) -> Result<Code, Failure> {
    let root = place::root_of(invite.store.dir.as_deref())?;
    let request = Request::Invite { expires_s: invite.expires.as_secs().max(1) };
    let report = ask(&mut daemon(&root)?, request, |reply| match reply {
        Reply::Invite(report) => Some(report),
        _ => None,
    })?;
    output.facts(&report, |report, _| format!("{}\n", report.ticket))?;
    Ok(Code::Done)
}
