//! Which versions of the protocol a master speaks: what each hello begins with, for ever.
//!
//! ```text
//! newest   oldest   release   what is said in a version that both speak   what a later one adds
//! └──────────── for ever ───┘ └──────── passed over beyond what is known ─────────────────────┘
//! ```
//!
//! Postcard, as everywhere. Two masters talk in the newest version that both speak; if there is none, both
//! know it from the other's hello, and can say which of the two is to be upgraded.

use pleach_core::values::{PROTOCOL_VERSION, PROTOCOL_VERSION_OLDEST};

use super::session::printable;

/// The version whose hello said nothing but itself.
const BARE_VERSION: u32 = 1;

/// What a master says of the versions that it speaks.
///
/// A daemon speaks [`Speaks::default`]. Something else is for tests, which play a master of a later
/// version with it: it says other versions and appends to what it sends, and can do nothing that a member
/// can't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaks {
    /// The newest version of the protocol.
    pub newest: u32,
    /// The oldest version of it.
    pub oldest: u32,
    /// The version of the program, for people; empty if it is not known.
    pub release: String,
    /// What is appended to hellos and messages that go out; of those that come in it is not kept.
    pub appended: Vec<u8>,
}

impl Default for Speaks {
    fn default() -> Self {
        Self {
            newest: PROTOCOL_VERSION,
            oldest: PROTOCOL_VERSION_OLDEST,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            appended: Vec::new(),
        }
    }
}

impl Speaks {
    /// The beginning of a hello.
    pub(super) fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(&(self.newest, self.oldest, &self.release))
            .expect("plain values always encode into memory")
    }

    /// Reads the beginning of a hello of any version; with it comes what follows.
    pub(super) fn decode(hello: &[u8]) -> Option<(Self, &[u8])> {
        let (newest, rest) = postcard::take_from_bytes::<u32>(hello).ok()?;
        let (oldest, release, rest) = match newest {
            ..=BARE_VERSION => (newest, String::new(), rest),
            _ => {
                let ((oldest, release), rest) = postcard::take_from_bytes(rest).ok()?;
                (oldest, printable(release), rest)
            }
        };
        Some((Self { newest, oldest, release, appended: Vec::new() }, rest))
    }

    /// Whether it can read why it is refused, if that says more than that it is.
    pub(super) fn reads_refusals(&self) -> bool {
        self.newest > BARE_VERSION
    }

    /// The version that both talk in, if there is one.
    pub(super) fn common(&self, other: &Self) -> Option<u32> {
        let (newest, oldest) = (self.newest.min(other.newest), self.oldest.max(other.oldest));
        (oldest <= newest).then_some(newest)
    }

    /// Why two that have no version in common exchange nothing, and what to do: one sentence. `other` is
    /// what the other one speaks, `who` that is.
    #[must_use]
    pub fn refusal(&self, other: &Self, who: &str) -> String {
        let upgraded = match self.newest < other.newest {
            true => format!("here, to {} or later", release(other)),
            false => format!("on {who}, to {} or later", release(self)),
        };
        format!(
            "{who} runs {} and speaks {} of the protocol, this master runs {} and speaks {}: they exchange \
             nothing until pleach is upgraded {upgraded}",
            release(other),
            versions(other),
            release(self),
            versions(self),
        )
    }
}

fn release(of: &Speaks) -> String {
    match of.release.as_str() {
        "" => format!("a pleach of protocol version {}", of.newest),
        release => format!("pleach {release}"),
    }
}

fn versions(of: &Speaks) -> String {
    match of.oldest {
        oldest if oldest < of.newest => format!("versions {oldest} to {}", of.newest),
        _ => format!("version {}", of.newest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speaks(oldest: u32, newest: u32) -> Speaks {
        Speaks { newest, oldest, release: format!("{newest}.0"), appended: Vec::new() }
    }

    #[test]
    fn two_talk_in_the_newest_version_that_both_speak() {
        for (ours, theirs, common) in [
            ((2, 2), (2, 2), Some(2)),
            ((2, 2), (2, 3), Some(2)),
            ((2, 4), (3, 9), Some(4)),
            ((2, 2), (3, 3), None),
            ((2, 2), (1, 1), None),
            // Nonsense is no reason to talk.
            ((2, 2), (5, 1), None),
        ] {
            let (ours, theirs) = (speaks(ours.0, ours.1), speaks(theirs.0, theirs.1));
            assert_eq!((ours.common(&theirs), theirs.common(&ours)), (common, common));
        }
    }

    #[test]
    fn beginning_of_a_hello_is_read_whatever_follows() {
        let later = Speaks { release: "9\n.0".into(), ..speaks(3, 9) };
        let hello = [&later.encode()[..], b"anything"].concat();
        let read = Speaks { release: "9 .0".into(), ..later };
        assert_eq!(Speaks::decode(&hello), Some((read, &b"anything"[..])));
        let bare = Speaks { release: String::new(), ..speaks(1, 1) };
        assert_eq!(Speaks::decode(b"\x01more"), Some((bare, &b"more"[..])));
        assert_eq!(Speaks::decode(b""), None);
        assert_eq!(Speaks::decode(b"\x02\x02\x7f"), None);
    }

    #[test]
    fn refusal_says_both_versions_and_whom_to_upgrade() {
        let ours = speaks(2, 2);
        let newer = ours.refusal(&speaks(3, 4), "web2");
        for part in ["web2", "4.0", "versions 3 to 4", "2.0", "version 2", "upgraded here"] {
            assert!(newer.contains(part), "{part}: {newer}");
        }
        let older = ours.refusal(&Speaks { release: String::new(), ..speaks(1, 1) }, "web2");
        assert!(older.contains("upgraded on web2, to pleach 2.0"), "{older}");
    }
}
