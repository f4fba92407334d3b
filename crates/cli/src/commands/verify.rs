//! `pleach verify [DIR]`

use std::path::Path;
use std::thread;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pleach_daemon::control::{Client, EventBody, Reply, Request, WorkKind};

use crate::arguments::Store;
use crate::asking::{ask, daemon};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{place, render};

pub(super) fn run(store: &Store, output: &Output) -> Result<Code, Failure> {
    let root = place::root_of(store.dir.as_deref())?;
    let mut client = daemon(&root)?;
    let progress = output.shows_progress().then(|| follow(&root, WorkKind::Verify)).flatten();
    let report = ask(&mut client, Request::Verify, |reply| match reply {
        Reply::Verify(report) => Some(report),
        _ => None,
    });
    if let Some(bar) = progress {
        bar.finish_and_clear();
    }
    let report = report?;
    output.facts(&report, render::verify)?;
    let all_healed = report.damaged.iter().all(|damage| damage.healed);
    if all_healed {
        return Ok(Code::Done);
    }
    Err(Failure::new("some files are damaged and were not healed")
        .next("connect a master that has them sound (`pleach status` shows who is), or restore them from a backup"))
}

/// A progress bar on standard error that follows the events of `work`, until it is cleared.
fn follow(root: &Path, work: WorkKind) -> Option<ProgressBar> {
    let events = Client::connect(root).and_then(Client::events).ok()?;
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let template = "{spinner} {pos}/{len} files  {wide_bar}  {eta}";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar()));
    let drawn = bar.clone();
    // Ends with the process: the events of a daemon end only with it.
    thread::spawn(move || {
        for event in events.map_while(Result::ok) {
            if let EventBody::Progress { work: of, done, total } = event.body
                && of == work
            {
                drawn.set_length(total.unwrap_or(done));
                drawn.set_position(done);
            }
        }
    });
    Some(bar)
}
