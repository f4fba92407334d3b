//! Messages between masters. Each has a stated bound; whatever exceeds it is refused unread.

use serde::{Deserialize, Serialize};

use super::{Problem, SignedChange};
use crate::vocabulary::{ContentHash, VersionVector};

/// The newest version of what is said between masters. Two that have none in common refuse each other,
/// kindly. It grows when a master of the version before would do something wrong with what it is sent: a
/// field at the end of a message, a further message and a further [`ProblemKind`](super::ProblemKind) are
/// passed over by those that don't know them.
pub const PROTOCOL_VERSION: u32 = 2;

/// The oldest version of it that is still spoken.
pub const PROTOCOL_VERSION_OLDEST: u32 = 2;

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

/// How many kinds of messages there are. They are numbered from 0 in the encoding, and new ones come last.
const MESSAGE_KINDS: u32 = 4;

/// What an encoded message turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A message; what a later version says after it is passed over.
    Message(Message),
    /// Of a kind that only a later version has: to be passed over.
    OfLaterVersion,
    /// Nothing of the sort.
    Malformed,
}

impl Message {
    /// Reads an encoded message of this version or of a later one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Decoded {
        if let Ok((message, _)) = postcard::take_from_bytes(bytes) {
            return Decoded::Message(message);
        }
        match postcard::take_from_bytes::<u32>(bytes) {
            Ok((kind, _)) if kind >= MESSAGE_KINDS => Decoded::OfLaterVersion,
            _ => Decoded::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::ProblemKind;
    use crate::vocabulary::TreePath;

    fn blocked(kind: ProblemKind) -> Message {
        let problem = Problem { kind, path: TreePath::root(), reason: "no".into() };
        Message::Blocked { problems: vec![problem], total: 1 }
    }

    #[test]
    fn what_a_later_version_adds_to_a_message_is_passed_over() {
        let bytes = postcard::to_stdvec(&blocked(ProblemKind::Io)).unwrap();
        let longer = [&bytes[..], b"more"].concat();
        assert_eq!(Message::decode(&longer), Decoded::Message(blocked(ProblemKind::Io)));
        assert_eq!(Message::decode(&bytes[..bytes.len() - 1]), Decoded::Malformed);
    }

    #[test]
    fn message_of_a_kind_of_a_later_version_is_told_from_nonsense() {
        let last = postcard::to_stdvec(&blocked(ProblemKind::Io)).unwrap();
        assert_eq!(u32::from(last[0]), MESSAGE_KINDS - 1, "`Blocked` is the last one");
        for (bytes, decoded) in [
            (&[MESSAGE_KINDS as u8][..], Decoded::OfLaterVersion),
            (&[MESSAGE_KINDS as u8, 1, 2, 3], Decoded::OfLaterVersion),
            (&[0], Decoded::Malformed),
            (&[], Decoded::Malformed),
            (&[0xff; 9], Decoded::Malformed),
        ] {
            assert_eq!(Message::decode(bytes), decoded, "{bytes:?}");
        }
    }

    #[test]
    fn problem_of_a_kind_of_a_later_version_is_some_other_one() {
        let known = postcard::to_stdvec(&blocked(ProblemKind::Other)).unwrap();
        let kind = postcard::to_stdvec(&ProblemKind::Other).unwrap()[0];
        let at = known.iter().position(|byte| *byte == kind).unwrap();
        let mut later = known;
        later[at] = kind + 5;
        assert_eq!(Message::decode(&later), Decoded::Message(blocked(ProblemKind::Other)));
    }
}
