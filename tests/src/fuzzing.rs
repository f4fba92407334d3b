//! What a fuzzer feeds: whatever takes bytes from outside, each as a function that must never panic.
//!
//! `fuzz/` wraps these for cargo-fuzz, which is guided by coverage; `tests/fuzzing.rs` feeds them
//! mutated seeds, on stable and with nothing installed. A crash is reproduced by giving its bytes to
//! the same function in a test.

use std::path::Path;

use data_encoding::BASE32_NOPAD;
use pleach_core::replica::gate::fuzz_bytes;
use pleach_core::values::{Message, SignedChange};
use pleach_daemon::config::Config;
use pleach_daemon::ticket::Ticket;

/// One function to feed, and inputs that it takes, to start from.
#[derive(Debug)]
pub struct Target {
    /// Its name in `fuzz/`.
    pub name: &'static str,
    /// Takes any bytes and panics only for a bug.
    pub feed: fn(&[u8]),
    /// Well-formed inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 4] = [
    Target { name: "gate", feed: gate, seeds: pleach_core::replica::gate::fuzz_seeds },
    Target { name: "message", feed: message, seeds: message_seeds },
    Target { name: "ticket", feed: ticket, seeds: ticket_seeds },
    Target { name: "config", feed: config, seeds: config_seeds },
];

/// A change from elsewhere, before the CRDT engine: what is admitted must load again.
pub fn gate(bytes: &[u8]) {
    fuzz_bytes(bytes);
}

/// A message of a peer: what is understood is encoded as it came, or shorter.
///
/// # Panics
///
/// When it isn't.
pub fn message(bytes: &[u8]) {
    if let Ok(message) = postcard::from_bytes::<Message>(bytes) {
        let again = postcard::to_stdvec(&message).expect("what was decoded is encoded");
        assert_eq!(postcard::from_bytes::<Message>(&again).ok(), Some(message));
    }
}

/// A ticket, given as its text and as what a text with the right checksum holds: what is a ticket is
/// printed and read again as the same.
///
/// # Panics
///
/// When it isn't.
pub fn ticket(bytes: &[u8]) {
    let mut hasher = blake3::Hasher::new_derive_key("pleach 2026 ticket checksum");
    hasher.update(bytes);
    let mut sealed = bytes.to_vec();
    sealed.extend_from_slice(&hasher.finalize().as_bytes()[..4]);
    let sealed = format!("pleach1{}", BASE32_NOPAD.encode(&sealed).to_ascii_lowercase());
    for text in [sealed.as_str(), &String::from_utf8_lossy(bytes)] {
        match text.parse::<Ticket>() {
            Ok(ticket) => assert_eq!(ticket.to_string().parse(), Ok(ticket)),
            Err(error) => drop(error.to_string()),
        }
    }
}

/// The settings file: what is wrong is an error that can be shown.
pub fn config(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Err(error) = Config::parse(Path::new("config.toml"), text)
    {
        let _ = error.to_string();
    }
}

fn message_seeds() -> Vec<Vec<u8>> {
    use pleach_core::values::{ChangeId, Signature};
    use pleach_core::vocabulary::{ContentHash, MasterId, VersionVector, WriterId};

    let author = MasterId([1; 32]);
    let writer = WriterId::new(author, [2; 8]);
    let known: VersionVector = [(writer, 300)].into_iter().collect();
    let change = SignedChange {
        id: ChangeId { writer, sequence: 300 },
        author,
        bytes: vec![7; 40],
        signature: Signature::new(&[9; 64]),
    };
    let heads = ContentHash::of(b"heads");
    let messages = [
        Message::Have { known: known.clone(), heads },
        Message::Changes { changes: vec![change], contents: vec![(heads, b"content".to_vec())] },
        Message::Projected { known },
    ];
    let encode = |message| postcard::to_stdvec(message).expect("a small message is encoded");
    messages.iter().map(encode).collect()
}

fn ticket_seeds() -> Vec<Vec<u8>> {
    use pleach_core::vocabulary::MasterId;
    use pleach_daemon::identity::StoreSeed;
    use pleach_daemon::ticket::{InvitationId, TicketSecret};

    let founder = MasterId([3; 32]);
    let ticket = Ticket {
        seed: StoreSeed { founder, nonce: [4; 16] },
        inviter: founder,
        addresses: vec!["/ip4/192.0.2.1/tcp/4747".to_owned(); 3],
        invitation: InvitationId([5; 8]),
        secret: TicketSecret([6; 32]),
        expires_unix: 1_800_000_000,
    };
    let payload = postcard::to_stdvec(&ticket).expect("a small ticket is encoded");
    vec![payload, ticket.to_string().into_bytes()]
}

fn config_seeds() -> Vec<Vec<u8>> {
    let template = Config::template();
    let uncommented: String = template
        .lines()
        .filter(|line| !line.starts_with("# "))
        .map(|line| format!("{}\n", line.trim_start_matches('#')))
        .collect();
    vec![template.as_bytes().to_vec(), uncommented.into_bytes()]
}
