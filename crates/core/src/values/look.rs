//! Looking at the disk: what the engine asks for, and what was found.
//!
//! One look lists directories, stats single names and reads files, all at once. It never descends: what
//! it finds new, the engine asks for in the next look, so that a directory that was moved is recognised
//! before anybody reads the ten thousand files in it.

use super::{FileContent, LinkTarget, Problem};
use crate::vocabulary::{ContentHash, Fingerprint, Mode, Name, Owner, TreePath, Xattrs};

/// What the engine wants to know of the disk. Paths are as on the disk at the time of the look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Directories to list, or single names in them to stat.
    pub lists: Vec<ListRequest>,
    /// Files to read.
    pub reads: Vec<ReadRequest>,
}

/// A directory to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListRequest {
    /// The directory.
    pub path: TreePath,
    /// The names to stat; `None` lists the directory in full.
    pub only: Option<Vec<Name>>,
    /// What is expected there, by name: an entry whose fingerprint still equals it is not reported.
    /// When `only` is given, of those names alone.
    pub known: Vec<(Name, Fingerprint)>,
}

/// A file to read: stat, hash, stat again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// The file.
    pub path: TreePath,
    /// As it was found; a file that differs by now is reported as unsettled, not read.
    pub fingerprint: Fingerprint,
}

/// What a look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// For each [`ListRequest`], in the same order.
    pub lists: Vec<Listed>,
    /// For each [`ReadRequest`], in the same order.
    pub reads: Vec<ReadState>,
}

/// What was found of one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The directory.
    pub path: TreePath,
    /// Whether it could be listed.
    pub state: DirectoryState,
}

/// Whether a directory could be looked at. Absence is evidence only in a `Readable` one (R12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryState {
    /// It was listed, or its names were statted.
    Readable {
        /// The directory's own state.
        fingerprint: Fingerprint,
        /// Entries that are new or differ from what was known.
        found: Vec<Found>,
        /// Known names that are not there.
        gone: Vec<Name>,
        /// Names that are there and equal to what was known are counted, no more.
        unchanged: u32,
    },
    /// No such directory, or not a directory, while the directory above it is readable.
    Missing,
    /// Permission, input/output error, another file system: nothing is known of what is below.
    Unknown(Problem),
}

/// An entry that is new or differs from what was known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name in the directory.
    pub name: Name,
    /// What it is.
    pub body: FoundBody,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundBody {
    /// A directory; not descended into.
    Directory {
        /// Its state.
        fingerprint: Fingerprint,
        /// Owner, where owners are replicated.
        owner: Option<Owner>,
        /// Extended attributes.
        xattrs: Xattrs,
    },
    /// A regular file; not read.
    File {
        /// Its state.
        fingerprint: Fingerprint,
        /// Owner, where owners are replicated.
        owner: Option<Owner>,
        /// Extended attributes.
        xattrs: Xattrs,
    },
    /// A symbolic link.
    Symlink {
        /// Its state.
        fingerprint: Fingerprint,
        /// Owner, where owners are replicated.
        owner: Option<Owner>,
        /// Its text.
        target: LinkTarget,
    },
    /// Covered by the ignore rules: neither read nor written nor missing (R14).
    Ignored,
    /// A FIFO, socket, device, mount point, or something whose stat failed: listed, and unknown.
    Skipped(Problem),
}

impl FoundBody {
    /// The entry's state, if it is a directory, file or link.
    #[must_use]
    pub fn fingerprint(&self) -> Option<&Fingerprint> {
        match self {
            Self::Directory { fingerprint, .. }
            | Self::File { fingerprint, .. }
            | Self::Symlink { fingerprint, .. } => Some(fingerprint),
            Self::Ignored | Self::Skipped(_) => None,
        }
    }
}

/// What reading a file gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadState {
    /// One stable pass: the fingerprint was the same before and after.
    Stable {
        /// BLAKE3 of the bytes.
        hash: ContentHash,
        /// As requested, still true.
        fingerprint: Fingerprint,
        /// The bytes themselves, if they are few enough to travel inside a change's message.
        bytes: Option<Vec<u8>>,
    },
    /// It changed meanwhile, or differs from what was asked for: to be looked at again later.
    Unsettled,
    /// It could not be read.
    Unreadable(Problem),
}

/// What a file held that is no longer in the tree, after a program wrote to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateWrite {
    /// Where the file was when it was replaced or removed.
    pub path: TreePath,
    /// What it holds now; that is in the staging area.
    pub content: FileContent,
    /// Its permission bits.
    pub mode: Mode,
}
