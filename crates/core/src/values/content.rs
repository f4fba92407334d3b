//! What a node holds: a file's bytes by their hash, or a link's text.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::vocabulary::{ContentHash, Kind, Timestamp};

/// The bytes of a regular file, by their hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileContent {
    /// BLAKE3 of the bytes.
    pub hash: ContentHash,
    /// How many bytes.
    pub size: u64,
    /// When its author's file system says it was modified.
    pub mtime: Timestamp,
}

/// The text of a symbolic link: 1 to 4095 bytes without NUL (symlink(2)).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct LinkTarget(Box<[u8]>);

/// Bytes that no symbolic link can hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a link's text has 1 to 4095 bytes and no NUL; this has {0} bytes")]
pub struct LinkTargetError(usize);

impl LinkTarget {
    /// Checks `bytes`.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Self, LinkTargetError> {
        let bytes = bytes.into();
        if bytes.is_empty() || bytes.len() > 4095 || bytes.contains(&0) {
            return Err(LinkTargetError(bytes.len()));
        }
        Ok(Self(bytes))
    }

    /// The text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for LinkTarget {
    type Error = LinkTargetError;
    fn try_from(bytes: Vec<u8>) -> Result<Self, LinkTargetError> {
        Self::new(bytes)
    }
}

impl From<LinkTarget> for Vec<u8> {
    fn from(target: LinkTarget) -> Self {
        target.0.into_vec()
    }
}

impl fmt::Debug for LinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkTarget({:?})", String::from_utf8_lossy(&self.0))
    }
}

/// What stands at a path, or stood there, or would like to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Body {
    /// A directory, with the mtime that its last author saw.
    Directory {
        /// To be set after everything inside is in place.
        mtime: Timestamp,
    },
    /// A regular file.
    File(FileContent),
    /// A symbolic link.
    Symlink {
        /// Its text, verbatim.
        target: LinkTarget,
        /// The link's own mtime.
        mtime: Timestamp,
    },
}

impl Body {
    /// The kind of node that holds this.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Directory { .. } => Kind::Directory,
            Self::File(_) => Kind::File,
            Self::Symlink { .. } => Kind::Symlink,
        }
    }

    /// The mtime, whatever the kind.
    #[must_use]
    pub fn mtime(&self) -> Timestamp {
        match self {
            Self::Directory { mtime } | Self::Symlink { mtime, .. } => *mtime,
            Self::File(content) => content.mtime,
        }
    }

    /// The same but for the mtime.
    #[must_use]
    pub fn with_mtime(&self, mtime: Timestamp) -> Self {
        match self {
            Self::Directory { .. } => Self::Directory { mtime },
            Self::File(content) => Self::File(FileContent { mtime, ..*content }),
            Self::Symlink { target, .. } => Self::Symlink { target: target.clone(), mtime },
        }
    }

    /// Whether a reader would find the same: equal bytes or link text, whatever the mtime.
    #[must_use]
    pub fn same_bytes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Directory { .. }, Self::Directory { .. }) => true,
            (Self::File(a), Self::File(b)) => (a.hash, a.size) == (b.hash, b.size),
            (Self::Symlink { target: a, .. }, Self::Symlink { target: b, .. }) => a == b,
            _ => false,
        }
    }
}
