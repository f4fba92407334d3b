//! What a file system keeps of a file beside its bytes and its name.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What sort of thing a node is. It never changes: a path that turns from file to directory is
/// another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link, never followed.
    Symlink,
}

/// Permission bits, setuid, setgid and sticky: the low 12 bits of `st_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mode(u16);

impl Mode {
    /// Keeps the low 12 bits.
    #[must_use]
    pub fn new(bits: u32) -> Self {
        Self((bits & 0o7777) as u16)
    }

    /// The bits, at most `0o7777`.
    #[must_use]
    pub fn bits(self) -> u32 {
        u32::from(self.0)
    }

    /// Without setuid, setgid and sticky.
    #[must_use]
    pub fn without_special_bits(self) -> Self {
        Self(self.0 & 0o777)
    }
}

/// Owner and group, by name where the author had one, and by number. Clones share the names: nearly
/// everything in a store belongs to a few.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The user's name; empty if the author's system had none for the number.
    #[serde(with = "shared_text")]
    pub user: Arc<str>,
    /// The user's number.
    pub uid: u32,
    /// The group's name; empty if the author's system had none for the number.
    #[serde(with = "shared_text")]
    pub group: Arc<str>,
    /// The group's number.
    pub gid: u32,
}

/// Text that is encoded as a `String` is.
mod shared_text {
    use super::{Arc, Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<str>, D::Error> {
        String::deserialize(deserializer).map(Arc::from)
    }
}

/// Extended attributes by full name (`user.…`, `system.posix_acl_access`), at most 64 KiB a value.
pub type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// Everything about a node that is neither its place nor its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Permission bits; of a symlink they mean nothing and are `0o777`.
    pub mode: Mode,
    /// None where owners are not replicated.
    pub owner: Option<Owner>,
    /// `user.*` and POSIX ACLs.
    pub xattrs: Xattrs,
}

impl Attributes {
    /// Only permission bits.
    #[must_use]
    pub fn with_mode(bits: u32) -> Self {
        Self { mode: Mode::new(bits), owner: None, xattrs: Xattrs::new() }
    }
}
