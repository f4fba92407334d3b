//! `pleach versions PATH`

use std::path::Path;

use pleach_daemon::control::{PathText, Reply, Request};
use pleach_daemon::offline::Stopped;

use crate::asking::{Daemon, ask, find_daemon};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{place, render};

pub(super) fn run(path: &Path, output: &Output) -> Result<Code, Failure> {
    let (root, path) = place::path_in_store(path)?;
    let (found, absent) = match find_daemon(&root)? {
        Daemon::Running(mut client) => {
            let request = Request::Versions { path: PathText(path.clone()) };
            let found = ask(&mut client, request, |reply| match reply {
                Reply::Versions(found) => Some(found),
                _ => None,
            })?;
            (found, None)
        }
        Daemon::Absent => {
            let stopped = Stopped::read(&root).map_err(Failure::new)?;
            let found = stopped.versions(&path).map_err(Failure::new)?;
            (found, Some(Failure::no_daemon(&root)))
        }
    };
    output.facts(&*found, |found, style| render::versions(found, &path.to_string(), style))?;
    absent.map_or(Ok(Code::Done), Err)
}
