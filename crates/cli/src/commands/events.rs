//! `pleach events [DIR]`

use crate::arguments::Store;
use crate::asking::daemon;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::place;

pub(super) fn run(store: &Store, output: &Output) -> Result<Code, Failure> {
    let root = place::root_of(store.dir.as_deref())?;
    for event in daemon(&root)?.events()? {
        let mut line = serde_json::to_string(&event?).map_err(Failure::new)?;
        line.push('\n');
        output.text(&line)?;
    }
    // The daemon closed the stream: it was stopped.
    Ok(Code::Done)
}
