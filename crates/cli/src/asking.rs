//! Asking the daemon of a store, with the answers as the types that were asked for.

use std::path::Path;

use pleach_daemon::control::{Client, ClientError, Reply, Request};

use crate::failure::Failure;

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
