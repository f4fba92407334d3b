//! `pleach init DIR [--name NAME]`

use std::path::Path;

use pleach_daemon::store::{self, Made};

use crate::arguments::Init;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::progress;
use crate::render::Style;

pub(super) fn run(init: &Init, output: &Output) -> Result<Code, Failure> {
    let name = init.name.clone().unwrap_or_else(store::default_name);
    let made = init_store(&init.dir, &name, output)?;
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

/// Makes `dir` a store. What is below it is looked through for other stores, which may take its time.
pub(super) fn init_store(dir: &Path, name: &str, output: &Output) -> Result<Made, Failure> {
    let what = format!("looking through {} for other stores", shown(dir));
    let _shown = progress::meanwhile(output, move || Some(what.clone()));
    Ok(store::init(dir, name)?)
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
