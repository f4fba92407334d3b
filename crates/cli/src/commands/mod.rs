//! The commands, a file each: they gather facts and hand them to `render`.

mod completions;
mod conflicts;
mod daemon;
mod demo;
mod events;
mod guard;
mod init;
mod invite;
mod join;
mod log;
mod man;
mod masters;
mod restore;
mod set;
mod status;
mod up;
mod verify;
mod versions;
mod wait;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::arguments::{Arguments, Command, ConflictsAct, MastersAct};
use crate::failure::{Code, Failure};
use crate::output::Output;

pub(crate) use log::Rest;

/// Does what was asked for.
pub(crate) fn run(arguments: Arguments, output: &Output) -> Result<Code, Failure> {
    if let Some(directory) = &arguments.directory {
        std::env::set_current_dir(directory)
            .map_err(|e| Failure::usage(format!("cannot start in {}: {e}", directory.display())))?;
    }
    match arguments.command {
        Command::Status(store) => status::run(&store, output),
        Command::Wait(wait) => wait::run(&wait, output),
        Command::Invite(invite) => invite::run(&invite, output),
        Command::Conflicts(conflicts) => match &conflicts.act {
            None if conflicts.interactive => {
                conflicts::view(conflicts.store.dir.as_deref(), output)
            }
            None => conflicts::list(&conflicts, output),
            Some(ConflictsAct::Show { path, content: None }) => conflicts::show(path, output),
            Some(ConflictsAct::Show { path, content: Some(version) }) => {
                conflicts::content(path, version, output)
            }
            Some(ConflictsAct::Diff { path, tool: None }) => conflicts::diff(path, output),
            Some(ConflictsAct::Diff { path, tool: Some(tool) }) => {
                conflicts::merge(path, tool, output)
            }
            Some(ConflictsAct::Resolve(resolve)) => conflicts::resolve(resolve, output),
        },
        Command::Versions { path } => versions::run(&path, output),
        Command::Restore(restore) => restore::run(&restore, output),
        Command::Log(log) => log::run(&log, output),
        Command::Masters(masters) => match &masters.act {
            None => masters::list(&masters.store, output),
            Some(MastersAct::Remove { name, store }) => masters::remove(name, store, output),
        },
        Command::Guard(guard) => guard::run(&guard, output),
        Command::Set(set) => set::run(&set, output),
        Command::Verify(store) => verify::run(&store, output),
        Command::Events(store) => events::run(&store, output),
        Command::Man { dir } => man::run(&dir, output),
        Command::Completions { shell } => completions::run(shell, output),
        Command::Up(up) => up::run(&up, output),
        Command::Init(init) => init::run(&init, output),
        Command::Join(join) => join::run(&join, output),
        Command::Daemon(daemon) => daemon::run(&daemon),
        Command::Demo(demo) => demo::run(&demo, output),
    }
}

/// Milliseconds since 1970; 0 for a clock before that.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
