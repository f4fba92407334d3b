//! How far a look has come, for whoever watches from another thread.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the last [`LookProgress::begin`]. A file is found before it is read; not every one that is
/// found needs reading.
#[derive(Debug, Default)]
pub struct LookProgress {
    files_found: AtomicU64,
    bytes_found: AtomicU64,
    files_read: AtomicU64,
    bytes_read: AtomicU64,
}

/// Files and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many files.
    pub files: u64,
    /// How many bytes in them.
    pub bytes: u64,
}

impl LookProgress {
    /// Counts anew.
    pub fn begin(&self) {
        for count in [&self.files_found, &self.bytes_found, &self.files_read, &self.bytes_read] {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// What was found that is new or differs.
    #[must_use]
    pub fn found(&self) -> Amount {
        Amount { files: get(&self.files_found), bytes: get(&self.bytes_found) }
    }

    /// What of it has been read.
    #[must_use]
    pub fn read(&self) -> Amount {
        Amount { files: get(&self.files_read), bytes: get(&self.bytes_read) }
    }

    pub(super) fn add_found(&self, bytes: u64) {
        self.files_found.fetch_add(1, Ordering::Relaxed);
        self.bytes_found.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_read_bytes(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_read_file(&self) {
        self.files_read.fetch_add(1, Ordering::Relaxed);
    }
}

fn get(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
