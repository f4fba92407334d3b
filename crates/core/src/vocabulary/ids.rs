//! Identities: of nodes, writers, masters, stores and contents. All are opaque byte strings.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Stamp;

/// A hexadecimal id that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits, found {found:?}")]
pub struct ParseIdError {
    expected: usize,
    found: String,
}

macro_rules! byte_id {
    ($name:ident, $length:literal, $(#[$doc:meta])*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $length]);

        impl $name {
            /// The id's bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "("))?;
                self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))?;
                write!(f, ")")
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }
    };
}

byte_id!(NodeId, 16,
    /// A thing in the tree, with an identity that outlives its name.
    ///
    /// Derived from the stamp of its birth, so no two births can claim the same node.
);
byte_id!(WriterId, 16,
    /// One start of one master: the author of a sequence of changes.
    ///
    /// The first 8 bytes are those of the BLAKE3 hash of the master's key, the last 8 are random at
    /// every start: a writer is bound to its master, and a restored backup never reuses one.
);
byte_id!(MasterId, 32,
    /// A master: its ed25519 public key.
);
byte_id!(StoreId, 32,
    /// A store: one replicated tree and its members.
);
byte_id!(ContentHash, 32,
    /// The BLAKE3 hash of a file's bytes.
);

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let error = || ParseIdError { expected: 2 * N, found: text.chars().take(80).collect() };
    let digits = text.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(error());
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| error())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
    }
    Ok(bytes)
}

impl NodeId {
    /// The root directory of every store. It has no place and no birth.
    pub const ROOT: Self = Self([0; 16]);

    /// The node that the write with this stamp brings into being.
    #[must_use]
    pub fn born_at(stamp: Stamp) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("pleach 2026 node");
        hasher.update(&stamp.writer.0);
        hasher.update(&stamp.counter.to_le_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }
}

impl NodeId {
    /// What stands for an open version of a node where it is shown as a file beside it.
    #[must_use]
    pub fn of_version(node: Self, version: Stamp) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("pleach 2026 sibling");
        hasher.update(&node.0);
        hasher.update(&version.writer.0);
        hasher.update(&version.counter.to_le_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }
}

impl WriterId {
    /// The writer of one start of `master`; `nonce` is random and never used twice.
    #[must_use]
    pub fn new(master: MasterId, nonce: [u8; 8]) -> Self {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&Self::prefix(master));
        id[8..].copy_from_slice(&nonce);
        Self(id)
    }

    /// Whether this writer is a start of `master`.
    #[must_use]
    pub fn belongs_to(&self, master: MasterId) -> bool {
        self.0[..8] == Self::prefix(master)
    }

    pub(crate) fn prefix(master: MasterId) -> [u8; 8] {
        let hash = blake3::hash(&master.0);
        let mut prefix = [0; 8];
        prefix.copy_from_slice(&hash.as_bytes()[..8]);
        prefix
    }
}

impl ContentHash {
    /// The hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_being_printed_and_parsed() {
        let id = ContentHash::of(b"x");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("12".parse::<NodeId>().is_err());
        assert!("zz".repeat(16).parse::<NodeId>().is_err());
    }

    #[test]
    fn writer_is_bound_to_its_master() {
        let (a, b) = (MasterId([1; 32]), MasterId([2; 32]));
        assert!(WriterId::new(a, [7; 8]).belongs_to(a));
        assert!(!WriterId::new(a, [7; 8]).belongs_to(b));
    }
}
