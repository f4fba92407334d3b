//! Contents that are here and wait to be put in their places: small ones in memory, the others in the staging
//! area of the disk.
//!
//! What the staging area holds and what counts as staged may differ: the disk does what it is told a moment later.
//! So what has gone to the versions is known apart, as is what may still be there and is of no use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::vocabulary::ContentHash;

/// The contents at hand.
#[derive(Debug, Default)]
pub struct AtHand {
    inline: BTreeMap<ContentHash, Arc<[u8]>>,
    inline_bytes: u64,
    staged: BTreeSet<ContentHash>,
    /// Contents that were staged and have gone to the versions, or are about to: whoever puts one that counts
    /// as staged finds it there.
    handed: BTreeSet<ContentHash>,
    /// Contents that may be in the staging area although they don't count as staged: they came once more while
    /// the first was being used, or could not be kept.
    litter: BTreeSet<ContentHash>,
}

impl AtHand {
    /// What an earlier run staged and did not place.
    #[must_use]
    pub(super) fn staged_before(staged: BTreeSet<ContentHash>) -> Self {
        Self { staged, ..Self::default() }
    }

    /// Keeps a content in memory.
    pub(super) fn keep(&mut self, hash: ContentHash, bytes: Arc<[u8]>) {
        let size = bytes.len() as u64;
        if self.inline.insert(hash, bytes).is_none() {
            self.inline_bytes += size;
        }
    }

    /// How many bytes wait in memory.
    pub(super) fn inline_bytes(&self) -> u64 {
        self.inline_bytes
    }

    /// The bytes of a content that waits in memory.
    #[must_use]
    pub fn inline(&self, hash: &ContentHash) -> Option<&Arc<[u8]>> {
        self.inline.get(hash)
    }

    /// Whether any content waits in memory.
    #[must_use]
    pub fn has_inline(&self) -> bool {
        !self.inline.is_empty()
    }

    /// Forgets contents that wait in memory and are not needed any more.
    pub fn clear_inline(&mut self) {
        self.inline.clear();
        self.inline_bytes = 0;
    }

    /// Takes a content out of memory: from now on it counts as staged, which the caller sees to.
    #[must_use = "it is nowhere else"]
    pub fn spill(&mut self, hash: &ContentHash) -> Option<Arc<[u8]>> {
        let bytes = self.take_inline(hash)?;
        self.stage(*hash);
        Some(bytes)
    }

    fn take_inline(&mut self, hash: &ContentHash) -> Option<Arc<[u8]>> {
        let bytes = self.inline.remove(hash)?;
        self.inline_bytes -= bytes.len() as u64;
        Some(bytes)
    }

    /// A content has come to the staging area.
    pub(super) fn stage(&mut self, hash: ContentHash) {
        self.handed.remove(&hash);
        self.litter.remove(&hash);
        if !self.staged.insert(hash) {
            self.litter.insert(hash);
        }
    }

    /// Whether the content waits in the staging area, or has gone from there to the versions.
    #[must_use]
    pub fn is_staged(&self, hash: &ContentHash) -> bool {
        self.staged.contains(hash) || self.handed.contains(hash)
    }

    /// A content goes from the staging area to the versions; whether it was there.
    pub fn hand_over(&mut self, hash: ContentHash) -> bool {
        let was_staged = self.staged.remove(&hash);
        if was_staged {
            self.handed.insert(hash);
        }
        was_staged
    }

    /// What the staging area holds of a content does not count any more; whether it may hold it.
    #[must_use = "it is still there"]
    pub fn take_staged(&mut self, hash: &ContentHash) -> bool {
        let was_litter = self.litter.remove(hash);
        self.staged.remove(hash) || was_litter
    }

    /// Something of a content may have been left in the staging area.
    pub fn note_litter(&mut self, hash: ContentHash) {
        self.litter.insert(hash);
    }

    /// Contents in the staging area that nothing wants; they don't count as staged any more.
    #[must_use = "they are still there"]
    pub(super) fn take_unwanted_staged(
        &mut self,
        is_wanted: impl Fn(&ContentHash) -> bool,
    ) -> BTreeSet<ContentHash> {
        let Self { staged, handed, litter, .. } = self;
        let mut unwanted: BTreeSet<ContentHash> =
            staged.iter().copied().filter(|hash| !is_wanted(hash)).collect();
        unwanted.extend(litter.iter().filter(|hash| !is_wanted(hash) && !staged.contains(hash)));
        for contents in [staged, handed, litter] {
            contents.retain(&is_wanted);
        }
        unwanted
    }

    /// A content has been put in place or kept, and is neither staged nor in memory any more.
    pub fn consumed(&mut self, hash: &ContentHash) {
        self.handed.remove(hash);
        self.staged.remove(hash);
        self.take_inline(hash);
    }
}
