//! Retaining a content that has no place in the tree: an open conflict's version (R9).

use std::collections::BTreeSet;
use std::io;

use pleach_core::vocabulary::ContentHash;
use rustix::fs::RenameFlags;

use super::Disk;
use super::staging::FinishError;
use super::stat::{Seen, stat_at};
use super::versions::{KeptBecause, Versions, name_of};

/// Who has not written to a version for so long is taken to have closed it.
const AT_REST_SECONDS: i64 = 60;

impl Disk {
    /// Moves a staged content to the versions; `bytes` are staged first if they are given.
    ///
    /// Their hash has been checked. A content that is among the versions already is not kept twice, unless a
    /// program may still write to that version.
    pub fn retain(&self, hash: ContentHash, bytes: Option<&[u8]>) -> io::Result<()> {
        let is_at_hand = bytes.is_some() || self.staging.has(hash);
        let is_moved = !is_at_hand && self.versions.is_known(hash);
        if is_moved || self.versions.keep_at_rest(hash) {
            self.staging.discard(hash);
            return Ok(());
        }
        if let Some(bytes) = bytes {
            self.staging.insert(hash, bytes).map_err(|error| match error {
                FinishError::Io(error) => error,
                wrong @ FinishError::WrongHash(_) => io::Error::other(wrong),
            })?;
        }
        let staged = self.staging.take(hash)?;
        let fingerprint = stat_at(self.staging.directory(), &staged)?
            .node()
            .ok_or_else(|| io::Error::other("what was staged is no file"))?;
        // It counts as kept by its name from now on: a power cut must not leave another content under it.
        self.staging.sync(&staged)?;
        let id = self.versions.reserve();
        let (from, to) = (self.staging.directory(), self.versions.directory());
        rustix::fs::renameat_with(from, &staged, to, name_of(id), RenameFlags::NOREPLACE)?;
        self.versions.note(id, None, KeptBecause::Lost, &fingerprint);
        self.versions.write()
    }
}

/// What a crash may have left.
impl Disk {
    /// The numbers under which something is parked.
    #[must_use]
    pub fn parked(&self) -> BTreeSet<u64> {
        let Ok(entries) = rustix::fs::Dir::read_from(self.root.parking()) else {
            return BTreeSet::new();
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str().ok()?.parse().ok());
        names.collect()
    }
}

impl Versions {
    /// Whether a version has this content to which nobody has written lately. One that was replaced in the
    /// midst of being written may have another content the next moment.
    fn keep_at_rest(&self, hash: ContentHash) -> bool {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
        self.with_content(hash).into_iter().any(|kept| {
            let seen = stat_at(self.directory(), name_of(kept.id)).ok().and_then(Seen::node);
            let is_as_hashed =
                seen.is_some_and(|seen| (seen.size, seen.modified) == (kept.size, kept.mtime));
            is_as_hashed && now.saturating_sub(kept.mtime.seconds) >= AT_REST_SECONDS
        })
    }

    /// The hashes of all versions whose hash is known.
    #[must_use]
    pub fn hashes(&self) -> BTreeSet<ContentHash> {
        self.list(None).into_iter().filter_map(|kept| kept.hash).collect()
    }
}
