//! Contents between the network and the disk: the tree's own files are the store of current content.

use std::fs::File;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use pleach_core::vocabulary::{ContentHash, TreePath};

use super::driver::Job;
use crate::disk::{self, Partial, Root, Staging, Versions};
use crate::net::{ContentSink, ContentSource, FinishError, OpenContent, PartialContent};

/// How long to wait for the driver to say where a content is.
const LOCATE_PATIENCE: Duration = Duration::from_secs(10);
/// What is written of a hole at once, where a hole can't be left.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Contents of this master: in the tree, in the staging area, among the versions.
pub(super) struct Contents {
    pub(super) root: Root,
    pub(super) staging: Staging,
    pub(super) versions: Versions,
    pub(super) jobs: SyncSender<Job>,
}

impl Contents {
    fn in_tree(&self, hash: &ContentHash) -> Option<File> {
        let (reply, located) = sync_channel(1);
        self.jobs.send(Job::Locate(*hash, reply)).ok()?;
        let (path, fingerprint) = located.recv_timeout(LOCATE_PATIENCE).ok()??;
        let reader = disk::open_content(&self.root, &path, &fingerprint).ok()??;
        Some(File::from(reader.into_handle()))
    }
}

impl ContentSource for Contents {
    fn open(&self, hash: &ContentHash) -> Option<OpenContent> {
        let file = self
            .in_tree(hash)
            .or_else(|| self.staging.open_content(*hash).ok())
            .or_else(|| self.versions.find(*hash))?;
        let size = file.metadata().ok()?.len();
        Some(OpenContent { file, size })
    }
}

impl ContentSink for Contents {
    fn has(&self, hash: &ContentHash) -> bool {
        self.staging.has(*hash)
    }

    fn begin(&self, hash: ContentHash, size: u64) -> io::Result<Box<dyn PartialContent>> {
        let partial = self.staging.begin(hash, size)?;
        Ok(Box::new(Arriving { partial }))
    }

    fn old_version(&self, hint: &TreePath) -> Option<File> {
        disk::open_any(&self.root, hint).ok().map(File::from)
    }
}

struct Arriving {
    partial: Partial,
}

impl PartialContent for Arriving {
    fn present(&self) -> u64 {
        self.partial.existing()
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.partial.write_at(offset, bytes)
    }

    fn write_hole(&mut self, mut offset: u64, length: u64) -> io::Result<()> {
        // The staging area leaves a hole where it is given zeros.
        let end = offset.saturating_add(length);
        while offset < end {
            let step = (end - offset).min(ZEROS.len() as u64);
            self.partial
                .write_at(offset, &ZEROS[..usize::try_from(step).unwrap_or(ZEROS.len())])?;
            offset += step;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), FinishError> {
        self.partial.finish().map_err(|error| match error {
            disk::FinishError::WrongHash(_) => FinishError::Mismatch,
            disk::FinishError::Io(error) => FinishError::Io(error),
        })
    }
}
