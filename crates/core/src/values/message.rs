//! Messages between masters. Each has a stated bound; whatever exceeds it is refused unread.

use serde::{Deserialize, Serialize};

use super::{Problem, SignedChange};
use crate::vocabulary::{ContentHash, VersionVector};

/// The version of what is said between masters. A peer of another one is told so, kindly.
pub const PROTOCOL_VERSION: u32 = 1;

/// The largest encoded message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// How many problems one message names at most.
pub const BLOCKED_MAX: usize = 16;

/// Contents that travel with the change that needs them: few and small.
pub type Contents = Vec<(ContentHash, Vec<u8>)>;

/// What one master tells another. Encoded with postcard; at most [`MESSAGE_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// What the sender knows; an answer is `Changes` with what it lacks. Sent on connecting, and again
    /// from time to time: live changes travel by gossip, which is lossy by design.
    Have {
        /// The changes the sender has applied.
        known: VersionVector,
        /// Hash over the sender's heads: equal vectors must have equal heads.
        heads: ContentHash,
    },
    /// Changes in an order in which each comes after what it depends on.
    Changes {
        /// At most [`MESSAGE_BYTES_MAX`] bytes in all.
        changes: Vec<SignedChange>,
        /// Small contents that the changes name.
        contents: Contents,
    },
    /// What is on the sender's disk, for `wait` and `status`. What can't be put there at present counts as
    /// being there: `Blocked` says what that is.
    Projected {
        /// Every change up to here has reached the sender's disk, or is listed as a problem there.
        known: VersionVector,
    },
    /// What of the tree can't be put on the sender's disk at present, for `wait`: sent when that changes,
    /// and before the `Projected` that passes over it.
    Blocked {
        /// The first of them, at most [`BLOCKED_MAX`].
        problems: Vec<Problem>,
        /// How many there are.
        total: u64,
    },
}
