//! `pleach join DIR TICKET [--name NAME]`

use pleach_daemon::store::{self, Made};

use crate::arguments::Join;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::render::Style;
use crate::running;

pub(super) fn run(join: &Join, output: &Output) -> Result<Code, Failure> {
    let name = join.name.clone().unwrap_or_else(store::default_name);
    let made = running::runtime()?.block_on(store::join(&join.dir, &join.ticket, &name))?;
    output.facts(&made, |made, style| {
        let next = format!("next: pleach daemon {}", made.root.display());
        format!("{}\n{}\n", joined(made, style), style.dim(next))
    })?;
    Ok(Code::Done)
}

pub(super) fn joined(made: &Made, style: Style) -> String {
    format!(
        "{} is a master of store {} now, in {}",
        style.bold(&made.master),
        style.bold(&made.store),
        made.root.display()
    )
}
