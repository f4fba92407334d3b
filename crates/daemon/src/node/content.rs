//! Contents between the network and the disk: the tree's own files are the store of current content.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use pleach_core::engine::Input;
use pleach_core::vocabulary::{ContentHash, TreePath};

use super::driver::{Job, Located};
use super::outputs::fetch_failed;
use crate::disk::{self, Partial, Root, Staging, Versions};
use crate::net::{
    ContentSink, ContentSource, FetchFailure, FinishError, OpenContent, PartialContent,
};

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
    /// How many bytes of contents that are not whole yet are here.
    pub(super) arriving: Arc<AtomicU64>,
}

impl Contents {
    /// Where in the tree each of `hashes` is. An answer for each, if there is one at all.
    fn locate(&self, hashes: &[ContentHash]) -> Vec<Located> {
        let (reply, located) = sync_channel(1);
        match self.jobs.send(Job::Locate(hashes.to_vec(), reply)) {
            Ok(()) => located.recv_timeout(LOCATE_PATIENCE).unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// Whether the content is known to be among the versions.
    pub(super) fn is_kept(&self, hash: &ContentHash) -> bool {
        self.versions.is_known(*hash)
    }

    /// Answers for the network: stages what is among the versions, until nobody asks any more. Those
    /// whose hash isn't known yet are hashed first, so that an answer may take long.
    pub(super) fn fetch_kept(&self, asked: &Receiver<ContentHash>) {
        for hash in asked {
            let staged = match self.versions.find(hash) {
                Some(file) => self.staging.copy_in(hash, &file),
                None => Ok(false),
            };
            let input = match staged {
                Ok(true) => Input::Fetched(hash),
                Ok(false) => fetch_failed(hash, FetchFailure::Missing),
                Err(error) => fetch_failed(hash, FetchFailure::of_disk(&error)),
            };
            if self.jobs.send(Job::Input(input)).is_err() {
                return;
            }
        }
    }

    fn open_located(&self, hash: &ContentHash, located: Option<Located>) -> Option<OpenContent> {
        let in_tree = || {
            let (path, fingerprint) = located.flatten()?;
            let reader = disk::open_content(&self.root, &path, &fingerprint).ok()??;
            let size = reader.size();
            Some(OpenContent { file: File::from(reader.into_handle()), size })
        };
        let aside = || {
            let staged = self.staging.open_content(*hash).ok();
            let file = staged.or_else(|| self.versions.find(*hash))?;
            let size = file.metadata().ok()?.len();
            Some(OpenContent { file, size })
        };
        in_tree().or_else(aside)
    }
}

impl ContentSource for Contents {
    fn open(&self, hash: &ContentHash) -> Option<OpenContent> {
        self.open_located(hash, self.locate(&[*hash]).pop())
    }

    /// The driver is asked once for all of them.
    fn open_each(
        &self,
        hashes: &[ContentHash],
        each: &mut dyn FnMut(Option<OpenContent>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut located = self.locate(hashes).into_iter();
        hashes.iter().try_for_each(|hash| each(self.open_located(hash, located.next())))
    }
}

impl ContentSink for Contents {
    fn has(&self, hash: &ContentHash) -> bool {
        self.staging.has(*hash)
    }

    fn room_for(&self, size: u64) -> io::Result<()> {
        Ok(self.staging.room_for(size)?)
    }

    fn begin(&self, hash: ContentHash, size: u64) -> io::Result<Box<dyn PartialContent>> {
        let partial = self.staging.begin(hash, size)?;
        let mut counted = Counted { bytes: 0, all: self.arriving.clone() };
        counted.add(partial.existing());
        Ok(Box::new(Arriving { partial, counted }))
    }

    fn prepare(&self, contents: &[(ContentHash, Arc<[u8]>)]) {
        self.staging.write_ahead(contents);
    }

    fn old_version(&self, hint: &TreePath) -> Option<File> {
        disk::open_any(&self.root, hint).ok().map(File::from)
    }
}

struct Arriving {
    partial: Partial,
    counted: Counted,
}

/// The part that one content has in [`Contents::arriving`].
struct Counted {
    bytes: u64,
    all: Arc<AtomicU64>,
}

impl Counted {
    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.all.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl PartialContent for Arriving {
    fn present(&self) -> u64 {
        self.partial.existing()
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.counted.add(bytes.len() as u64);
        self.partial.write_at(offset, bytes)
    }

    fn write_hole(&mut self, mut offset: u64, length: u64) -> io::Result<()> {
        // The staging area leaves a hole where it is given zeros.
        self.counted.add(length);
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
