//! Asking the daemon of a store, with the answers as the types that were asked for.

use std::path::Path;

use pleach_daemon::control::{Client, ClientError, RefusalKind, Reply, Request};

use crate::failure::Failure;

/// How long it may take until what was settled or restored is on the disk.
const FOLLOW_MS_MAX: u64 = 10_000;

/// Whether a daemon is there to be asked.
pub(crate) enum Daemon {
    Running(Client),
    Absent,
}

/// Connects to the daemon of the store in `root`, if one runs.
pub(crate) fn find_daemon(root: &Path) -> Result<Daemon, Failure> {
    match Client::connect(root) {
        Ok(client) => Ok(Daemon::Running(client)),
        Err(ClientError::NoDaemon) => Ok(Daemon::Absent),
        Err(error) => Err(error.into()),
    }
}

/// Connects to the daemon of the store in `root`; that none runs is a failure.
pub(crate) fn daemon(root: &Path) -> Result<Client, Failure> {
    match find_daemon(root)? {
        Daemon::Running(client) => Ok(client),
        Daemon::Absent => Err(Failure::no_daemon(root)),
    }
}

/// Asks, and takes the answer apart with `expected`, which knows what it should be.
pub(crate) fn ask<T>(
    client: &mut Client,
    request: Request,
    expected: impl FnOnce(Reply) -> Option<T>,
) -> Result<T, Failure> {
    expected(client.call(request)?).ok_or_else(|| {
        Failure::new("the daemon answered something else: is it of another version?")
    })
}

/// Waits until the disk of this master has what was settled or restored: whoever did so looks at the file next.
/// It is done with or without: that the disk does not have it yet is said, and is no failure.
pub(crate) fn follow(client: &mut Client, done: &str) {
    match client.call(Request::Follow { timeout_ms: FOLLOW_MS_MAX }) {
        Ok(_) => {}
        // An older daemon knows no such request.
        Err(ClientError::Refused(refusal)) if refusal.kind == RefusalKind::Malformed => {}
        Err(error) => eprintln!("{done}; {error}"),
    }
}
