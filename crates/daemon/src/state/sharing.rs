//! Whether others may read the database beside the daemon that has it open.
//!
//! Readers of a database in use find their way by a file that all of them map into memory (`state.db-shm`).
//! Where blocks are not written over in place (btrfs and others), a write to that mapping needs room, and
//! without room it is no error but a signal that ends the process (SIGBUS, mmap(2)). So it is on any disk
//! that is full when that file is made, if its blocks are smaller than a page. There the daemon has the
//! database to itself, and keeps that index in its own memory.

use std::path::Path;
use std::time::{Duration, Instant};

use super::schema::BUSY_WAIT_MAX;
use super::{StateError, error};

/// How long to wait before it is tried again whether a reader has gone: others may come all the time.
const RETRY: Duration = Duration::from_millis(5);
/// How long readers may be in the way at most.
const ALONE_WAIT_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    WithReaders,
    Alone,
}

impl Sharing {
    /// How long SQLite itself is to wait for others.
    pub(super) fn busy_timeout(self) -> Duration {
        match self {
            Self::WithReaders => BUSY_WAIT_MAX,
            // It tries ever more rarely, and misses the moments in which nobody reads.
            Self::Alone => Duration::ZERO,
        }
    }

    fn on_file_system_of(path: &Path) -> Self {
        // statfs(2): the magic numbers of ext2 to ext4, xfs and tmpfs.
        match rustix::fs::statfs(path).map(|stat| stat.f_type) {
            Ok(0xEF53 | 0x5846_5342 | 0x0102_1994) | Err(_) if !error::has_no_room(path) => {
                Self::WithReaders
            }
            _ => Self::Alone,
        }
    }
}

/// Opens the database at `path` with as much sharing as is safe there.
pub(super) fn as_room_allows<T>(
    path: &Path,
    open: impl Fn(Sharing) -> Result<T, StateError>,
) -> Result<T, StateError> {
    if Sharing::on_file_system_of(path) == Sharing::WithReaders {
        match open(Sharing::WithReaders) {
            Err(StateError::NoSpace { .. }) => {}
            opened => return opened,
        }
    }
    alone(|| open(Sharing::Alone))
}

/// Opens it alone, once nobody reads it.
pub(super) fn alone<T>(open: impl Fn() -> Result<T, StateError>) -> Result<T, StateError> {
    let deadline = Instant::now() + ALONE_WAIT_MAX;
    loop {
        match open() {
            Err(StateError::System { source, .. })
                if error::is_busy(&source) && Instant::now() < deadline =>
            {
                std::thread::sleep(RETRY);
            }
            opened => return opened,
        }
    }
}
