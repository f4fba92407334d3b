//! `pleach join DIR TICKET [--name NAME]`

use std::path::Path;

use pleach_daemon::store::{self, HandoverProgress, Joined, Made};

use crate::arguments::Join;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::progress::{Progress, Stage};
use crate::render::{self, Style};
use crate::running;

pub(super) fn run(join: &Join, output: &Output) -> Result<Code, Failure> {
    let name = join.name.clone().unwrap_or_else(store::default_name);
    let made = join_store(&join.dir, &join.ticket, &name, output)?.made;
    output.facts(&made, |made, style| {
        let next = format!("next: pleach daemon {}", made.root.display());
        format!("{}\n{}\n", joined(made, style), style.dim(next))
    })?;
    Ok(Code::Done)
}

/// Joins, and shows how the store's tree arrives. That it did not arrive whole is said, and no failure.
pub(super) fn join_store(
    dir: &Path,
    ticket: &str,
    name: &str,
    output: &Output,
) -> Result<Joined, Failure> {
    let mut progress = Progress::new(output);
    let show = |HandoverProgress { changes, left, bytes }| {
        let total = changes + left;
        let (what, unit) = ("getting the tree", "changes");
        progress.show(Stage { what, unit, done: changes, total, bytes, bytes_total: None });
    };
    let joined = running::runtime()?.block_on(store::join(dir, ticket, name, show))?;
    drop(progress);
    let incomplete = joined.made.taken_over.as_ref().and_then(|taken| taken.incomplete.as_ref());
    if let Some(reason) = incomplete {
        let warning = output.style_of_errors().warn("not all of the tree is here yet:");
        eprintln!("{warning} {reason}; what has come is kept, and the daemon gets the rest");
    }
    Ok(joined)
}

pub(super) fn joined(made: &Made, style: Style) -> String {
    let mut text = format!(
        "{} is a master of store {} now, in {}",
        style.bold(&made.master),
        style.bold(&made.store),
        made.root.display()
    );
    if let Some(taken) = made.taken_over.as_ref().filter(|taken| taken.incomplete.is_none()) {
        text += &format!(
            "\nits tree: {}; the contents come while the daemon runs",
            render::counts(&taken.tree)
        );
    }
    text
}
