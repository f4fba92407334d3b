//! `pleach init DIR [--name NAME]`

use std::path::Path;

use pleach_daemon::store::{self, Made};

use crate::arguments::Init;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::render::Style;

pub(super) fn run(init: &Init, output: &Output) -> Result<Code, Failure> {
    let name = init.name.clone().unwrap_or_else(store::default_name);
    let made = store::init(&init.dir, &name)?;
    output.facts(&made, |made, style| {
        let dir = made.root.display();
        format!(
            "{}\n{}\n",
            founded(made, style),
            style.dim(format!(
                "next: pleach daemon {dir}, then for each further master: pleach invite {dir}"
            ))
        )
    })?;
    Ok(Code::Done)
}

pub(super) fn founded(made: &Made, style: Style) -> String {
    format!(
        "{} is the first master of store {}, in {}",
        style.bold(&made.master),
        style.bold(&made.store),
        shown(&made.root)
    )
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
