//! What the network needs of a disk: contents to send, and a place for contents that arrive.
//!
//! Both sides are called in blocking threads, several at once. The network never looks into a tree:
//! contents are named by hash alone.

use std::fs::File;
use std::io;
use std::sync::Arc;

use pleach_core::vocabulary::{ContentHash, MasterId, TreePath};

/// A content that can be sent: an open file that holds its bytes, from the start.
#[derive(Debug)]
pub struct OpenContent {
    /// Open for reading. Read by offset; its cursor is free to move. Holes are sent as holes.
    pub file: File,
    /// How many bytes.
    pub size: u64,
}

/// Where contents are sent from.
pub trait ContentSource: Send + Sync {
    /// Opens the content, if this master has it. It need not be verified: the receiver does that,
    /// and a file that shrinks under way is noticed. Blocks.
    fn open(&self, hash: &ContentHash) -> Option<OpenContent>;

    /// Opens one content after the other and gives it to `each`, in order, until `each` errs. To be
    /// overridden where many are found at less cost than each alone. Blocks.
    fn open_each(
        &self,
        hashes: &[ContentHash],
        each: &mut dyn FnMut(Option<OpenContent>) -> io::Result<()>,
    ) -> io::Result<()> {
        hashes.iter().try_for_each(|hash| each(self.open(hash)))
    }
}

/// Where received contents go, but for small ones: these are handed up in memory.
pub trait ContentSink: Send + Sync {
    /// Whether the content is here, complete and verified. Blocks.
    fn has(&self, hash: &ContentHash) -> bool;

    /// Whether there is room for a content of `size` bytes, as far as that can be seen. Blocks.
    fn room_for(&self, _size: u64) -> io::Result<()> {
        Ok(())
    }

    /// Begins a content, or goes on with what an earlier attempt left. Blocks.
    fn begin(&self, hash: ContentHash, size: u64) -> io::Result<Box<dyn PartialContent>>;

    /// Takes note of small contents that are about to be handed up in memory, verified and wanted: it
    /// may prepare for them. Blocks.
    fn prepare(&self, _contents: &[(ContentHash, Arc<[u8]>)]) {}

    /// A file here that probably shares most of its bytes: the version that the content replaces.
    /// It may change while it is read: the result is verified as a whole. Blocks.
    fn old_version(&self, hint: &TreePath) -> Option<File>;
}

/// A content that is arriving. Dropped unfinished, its prefix stays for the next attempt.
pub trait PartialContent: Send {
    /// How many bytes from the start are there, of an earlier attempt.
    fn present(&self) -> u64;

    /// Takes the bytes at `offset`. The network writes ascending and without gaps from
    /// [`PartialContent::present`] on, counting holes as written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Takes `length` zero bytes at `offset` that the sender's file does not allocate.
    fn write_hole(&mut self, offset: u64, length: u64) -> io::Result<()>;

    /// Verifies the whole by its hash and makes it a content. What does not verify is discarded,
    /// prefix and all. Durability is the sink's own affair.
    fn finish(self: Box<Self>) -> Result<(), FinishError>;
}

/// Why a content that arrived in full was not taken.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// The bytes have another hash.
    #[error("the bytes do not have the hash that was asked for")]
    Mismatch,
    /// The disk said no.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A content to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentRequest {
    /// Its hash.
    pub hash: ContentHash,
    /// Its size in bytes; a provider that says another is refused.
    pub size: u64,
    /// Who may have it, the best first; tried while connected. Empty: everybody connected.
    pub providers: Vec<MasterId>,
    /// Where an older version of it stands on this disk, if one does.
    pub old_version: Option<TreePath>,
}

/// Why a content could not be fetched. The caller decides when to ask again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchFailure {
    /// None of the providers is connected, or has it any more.
    #[error("no connected master has the content")]
    Missing,
    /// This disk did not take it.
    #[error("the content could not be written: {0}")]
    Disk(String),
    /// No space on this disk.
    #[error("no space left for the content")]
    NoSpace,
    /// More contents were asked for at once than the network remembers.
    #[error("too many contents were asked for at once")]
    TooMany,
}

impl FetchFailure {
    /// What it means that this disk did not take a content.
    #[must_use]
    pub fn of_disk(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Disk(error.to_string()),
        }
    }
}
