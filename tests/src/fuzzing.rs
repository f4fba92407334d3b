//! What a fuzzer feeds: whatever takes bytes from outside, each as a function that must never panic.
//!
//! `fuzz/` wraps these for cargo-fuzz, which is guided by coverage; `tests/fuzzing.rs` feeds them
//! mutated seeds, on stable and with nothing installed. A crash is reproduced by giving its bytes to
//! the same function in a test.

use std::path::Path;

use pleach_core::replica::gate::fuzz_bytes;
use pleach_core::values::{Message, SignedChange};
use pleach_daemon::config::Config;

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
pub const TARGETS: [Target; 3] = [
    Target { name: "gate", feed: gate, seeds: pleach_core::replica::gate::fuzz_seeds },
    Target { name: "message", feed: message, seeds: message_seeds },
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

fn config_seeds() -> Vec<Vec<u8>> {
    let template = Config::template();
    let uncommented: String = template
        .lines()
        .filter(|line| !line.starts_with("# "))
        .map(|line| format!("{}\n", line.trim_start_matches('#')))
        .collect();
    vec![template.as_bytes().to_vec(), uncommented.into_bytes()]
}
