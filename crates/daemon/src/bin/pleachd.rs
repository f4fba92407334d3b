//! `pleachd`: the daemon alone, for a system that keeps the command line elsewhere.
//!
//! Does what `pleach daemon` does, and no more: the store is made with `pleach init` or `pleach join`.

use std::path::PathBuf;
use std::process::ExitCode;

use pleach_daemon::foreground::{self, ForegroundError};
use pleach_daemon::node::{Node, StartError};
use pleach_daemon::{Multiaddr, log, store};

const USAGE: &str = "usage: pleachd DIR [--listen MULTIADDR]...

Runs the master of the store in DIR in the foreground; SIGTERM and Ctrl-C stop it cleanly.
RUST_LOG says what to log. Exit codes: 0 done, 1 failed, 2 wrong usage.";

fn main() -> ExitCode {
    match parse(std::env::args_os().skip(1)) {
        Ok(Asked::Run { dir, listen }) => match run(&dir, &listen) {
            Ok(()) => ExitCode::SUCCESS,
            Err((message, code)) => fail(&format!("error: {message}"), code),
        },
        Ok(Asked::Help) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Ok(Asked::Version) => {
            println!("pleachd {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Err(message) => fail(&format!("error: {message}\n\n{USAGE}"), 2),
    }
}

#[derive(Debug, PartialEq)]
enum Asked {
    Run { dir: PathBuf, listen: Vec<Multiaddr> },
    Help,
    Version,
}

fn parse(arguments: impl Iterator<Item = std::ffi::OsString>) -> Result<Asked, String> {
    let mut arguments = arguments.peekable();
    let mut dir = None;
    let mut listen = Vec::new();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--help" | "-h") => return Ok(Asked::Help),
            Some("--version" | "-V") => return Ok(Asked::Version),
            Some("--listen") => {
                let address = arguments.next().ok_or("--listen takes a multiaddress")?;
                let address = address.to_string_lossy();
                listen.push(address.parse().map_err(|e| format!("--listen {address}: {e}"))?);
            }
            Some(option) if option.starts_with('-') => return Err(format!("unknown {option}")),
            _ if dir.is_none() => dir = Some(PathBuf::from(argument)),
            _ => return Err("more than one DIR".to_owned()),
        }
    }
    dir.map(|dir| Asked::Run { dir, listen }).ok_or_else(|| "DIR is missing".to_owned())
}

fn run(dir: &std::path::Path, listen: &[Multiaddr]) -> Result<(), (String, u8)> {
    log::init(None, std::io::stderr).map_err(|e| (e.to_string(), 2))?;
    let root =
        store::root_at(dir).map_err(|e| (e.to_string(), if e.is_usage() { 2 } else { 1 }))?;
    let master = Node::builder(root).listen(listen.to_vec());
    let run = foreground::run(master, None, async |_| Ok::<_, std::convert::Infallible>(()));
    run.map_err(|e: ForegroundError<_>| match &e {
        ForegroundError::Start(StartError::Store(error)) if error.is_usage() => (e.to_string(), 2),
        _ => (e.to_string(), 1),
    })
}

fn fail(message: &str, code: u8) -> ExitCode {
    eprintln!("{message}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_a_directory_and_addresses() {
        let parsed = |line: &str| parse(line.split_whitespace().map(Into::into));
        let address = "/ip4/127.0.0.1/tcp/1";
        assert_eq!(
            parsed(&format!("dir --listen {address}")),
            Ok(Asked::Run { dir: "dir".into(), listen: vec![address.parse().unwrap()] })
        );
        assert_eq!(parsed("dir --help"), Ok(Asked::Help));
        for wrong in ["", "a b", "dir --listen", "dir --listen nowhere", "--fly dir"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
