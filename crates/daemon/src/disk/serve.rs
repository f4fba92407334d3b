//! Serving a content from the tree: read, and verified while it is sent.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use pleach_core::vocabulary::{ContentHash, Fingerprint, TreePath};

use super::read::open_to_read;
use super::root::Root;
use super::stat::stat_handle;

/// A file of the tree being read for somebody else, from its start or from somewhere.
///
/// The receiver checks the hash; this checks that the file is still the one that was hashed, so that
/// it is not sent in vain.
#[derive(Debug)]
pub struct ContentReader {
    file: File,
    fingerprint: Fingerprint,
}

/// Opens the file at `path` if it is still the one with this fingerprint; none if it differs.
pub fn open_content(
    root: &Root,
    path: &TreePath,
    expected: &Fingerprint,
) -> io::Result<Option<ContentReader>> {
    let file = open_to_read(root.tree(), path.names())?;
    let now = stat_handle(&file)?;
    let reader = ContentReader { file: file.into(), fingerprint: now };
    Ok((now == *expected).then_some(reader))
}

/// Opens whatever file is at `path` now: to take chunks from, which are verified by their use.
pub fn open_any(root: &Root, path: &TreePath) -> io::Result<OwnedFd> {
    Ok(open_to_read(root.tree(), path.names())?)
}

impl ContentReader {
    /// Whether the file is still as it was when it was opened. To be asked after the last read.
    pub fn is_unchanged(&self) -> io::Result<bool> {
        Ok(stat_handle(&self.file)? == self.fingerprint)
    }

    /// The size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.fingerprint.size
    }

    /// Reads at `offset`.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.file, buffer, offset)
    }

    /// Reads it all and says which hash it has: for `verify`.
    pub fn hash(&self) -> io::Result<ContentHash> {
        super::staging::hash_of(&self.file)
    }

    /// The handle itself.
    #[must_use]
    pub fn into_handle(self) -> OwnedFd {
        self.file.into()
    }
}

impl Read for ContentReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}
