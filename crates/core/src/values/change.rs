//! Changes as they travel: opaque bytes for all but the replica, bound to their author.

use serde::{Deserialize, Serialize};

use crate::vocabulary::{MasterId, WriterId};

/// The place of a change in its writer's sequence, which starts at 1 and has no gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChangeId {
    /// Who wrote it.
    pub writer: WriterId,
    /// The how-manieth of the writer.
    pub sequence: u64,
}

/// An ed25519 signature (RFC 8032), 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    halves: [[u8; 32]; 2],
}

impl Signature {
    /// From its 64 bytes.
    #[must_use]
    pub fn new(bytes: &[u8; 64]) -> Self {
        let mut halves = [[0; 32]; 2];
        halves[0].copy_from_slice(&bytes[..32]);
        halves[1].copy_from_slice(&bytes[32..]);
        Self { halves }
    }

    /// Its 64 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.halves[0]);
        bytes[32..].copy_from_slice(&self.halves[1]);
        bytes
    }
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signature({:02x}{:02x}…)", self.halves[0][0], self.halves[0][1])
    }
}

/// A change with its author's signature over the store's id and the bytes.
///
/// Core keeps the signature and never checks it: that is the driver's duty before it hands a received
/// change over. Core checks that the change's writer belongs to `author`, and that `author` is a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedChange {
    /// The writer and its sequence, as in the bytes.
    pub id: ChangeId,
    /// The master that wrote it.
    pub author: MasterId,
    /// The change as the CRDT engine encodes it, columns uncompressed.
    pub bytes: Vec<u8>,
    /// By `author`, over the store's id and `bytes`.
    pub signature: Signature,
}
