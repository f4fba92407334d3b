//! Retaining a content that has no place in the tree: an open conflict's version (R9).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};

use pleach_core::vocabulary::ContentHash;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, openat, renameat_with};

use super::Disk;
use super::stat::stat_handle;
use super::versions::{KeptBecause, Versions, name_of};

impl Disk {
    /// Keeps a content among the versions: a copy of what is staged, or `bytes`.
    ///
    /// Their hash has been checked. A content that is among the versions already is not kept twice.
    pub fn retain(&self, hash: ContentHash, bytes: Option<&[u8]>) -> io::Result<()> {
        if self.versions.hashes().contains(&hash) {
            return Ok(());
        }
        let staging = self.staging.directory();
        let name = self.staging.fresh_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut copy = File::from(openat(staging, &name, flags, Mode::RUSR | Mode::WUSR)?);
        let copied = match bytes {
            Some(bytes) => copy.write_all(bytes),
            None => self
                .staging
                .open_content(hash)
                .and_then(|mut staged| io::copy(&mut staged, &mut copy).map(drop)),
        };
        let durable = copied.and_then(|()| copy.sync_all());
        if let Err(error) = durable {
            rustix::fs::unlinkat(staging, &name, AtFlags::empty())?;
            return Err(error);
        }
        let fingerprint = stat_handle(&copy)?;
        let id = self.versions.reserve();
        let versions = self.versions.directory();
        renameat_with(staging, &name, versions, name_of(id), RenameFlags::NOREPLACE)?;
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
    /// The hashes of all versions whose hash is known.
    #[must_use]
    pub fn hashes(&self) -> BTreeSet<ContentHash> {
        self.list(None).into_iter().filter_map(|kept| kept.hash).collect()
    }
}
