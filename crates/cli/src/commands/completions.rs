//! `pleach completions SHELL`

use clap::CommandFactory;

use crate::arguments::Arguments;
use crate::failure::{Code, Failure};
use crate::output::Output;

pub(super) fn run(shell: clap_complete::Shell, output: &Output) -> Result<Code, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "pleach", &mut script);
    output.text(&String::from_utf8_lossy(&script))?;
    Ok(Code::Done)
}
