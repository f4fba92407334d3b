//! `pleach`: the command people use. It speaks to a running daemon over its control socket, and holds the
//! daemon too.
//!
//! `arguments` says what can be asked, `commands` has a file for each command, `render` turns facts into
//! text for people. A command gives facts or a [`failure::Failure`]; only this file prints failures and exits.

mod arguments;
mod asking;
mod commands;
mod failure;
mod output;
mod place;
mod progress;
mod render;
mod running;
mod when;

use std::process::ExitCode;

use clap::Parser;

use arguments::Arguments;
use output::Output;

/// Gives memory back to the system that a large sync needed for a moment: see `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(arguments.format());
    match commands::run(arguments, &output) {
        Ok(code) => code.into(),
        Err(failure) => {
            eprint!("{}", failure.shown(output.style_of_errors()));
            failure.code.into()
        }
    }
}
