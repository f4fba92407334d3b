//! What `stat` says of a file: enough to tell whether it is still the one that was seen.

use serde::{Deserialize, Serialize};

use super::{Kind, Mode, Timestamp};

/// The part of a file's `stat` that changes when somebody changes the file.
///
/// The change time gives away a write that restored size and mtime. A rename changes the change time
/// too, so a guard across our own rename compares with [`Fingerprint::same_bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// From `st_mode`.
    pub kind: Kind,
    /// From `st_mode`.
    pub mode: Mode,
    /// `st_uid`.
    pub uid: u32,
    /// `st_gid`.
    pub gid: u32,
    /// `st_size` in bytes; 0 for a directory, whose size says nothing.
    pub size: u64,
    /// `st_mtim`.
    pub modified: Timestamp,
    /// `st_ctim`.
    pub changed: Timestamp,
    /// `stx_btime`, when the object was made: tells a new one from an older one whose inode number it
    /// has got. Zero where the file system doesn't say.
    pub born: Timestamp,
}

impl Fingerprint {
    /// Whether both are the same object: device, inode, kind and birth.
    #[must_use]
    pub fn same_object(&self, other: &Self) -> bool {
        (self.device, self.inode, self.kind, self.born)
            == (other.device, other.inode, other.kind, other.born)
    }

    /// Whether both are the same object with untouched bytes, as far as one can tell after a rename
    /// or a chmod: all but mode, owner and the change time.
    #[must_use]
    pub fn same_bytes(&self, other: &Self) -> bool {
        self.same_object(other) && (self.size, self.modified) == (other.size, other.modified)
    }
}
