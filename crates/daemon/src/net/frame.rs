//! Frames on the sync stream: a length of four bytes (big-endian), a kind of one byte, a payload.
//!
//! The length counts kind and payload. It is checked before anything is allocated; a payload is
//! postcard and must be used up by what is read from it.

use std::io;
use std::sync::Arc;

use futures::{AsyncRead, AsyncReadExt as _};
use pleach_core::values::{MESSAGE_BYTES_MAX, Message};
use pleach_core::vocabulary::StoreId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::MessageTooLarge;
use super::runs::RunId;

/// The largest hello or refusal.
pub(super) const GREETING_BYTES_MAX: usize = 8 << 10;
const HEADER_BYTES: usize = 5;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Hello = 0,
    Refusal = 1,
    Message = 2,
}

/// The first frame each way. `version` stays first for ever, so that versions can tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) version: u32,
    pub(super) store: StoreId,
    /// Which start of the sender this is.
    pub(super) run: RunId,
    /// Where the sender listens, at most 16.
    pub(super) addresses: Vec<String>,
}

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame of {0} bytes is too large")]
    TooLarge(usize),
    #[error("a frame of an unknown kind ({0})")]
    UnknownKind(u8),
    #[error("an empty frame")]
    Empty,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A message as a whole frame, ready to be written to any number of streams.
pub(super) fn encode_message(message: &Message) -> Result<Arc<[u8]>, MessageTooLarge> {
    let frame = encode(Kind::Message, message);
    match payload(&frame).len() {
        bytes if bytes > MESSAGE_BYTES_MAX => Err(MessageTooLarge { bytes }),
        _ => Ok(frame.into()),
    }
}

/// A value as a whole frame.
pub(super) fn encode<T: Serialize>(kind: Kind, value: &T) -> Vec<u8> {
    let frame = postcard::to_extend(value, vec![0, 0, 0, 0, kind as u8]);
    let mut frame = frame.expect("plain values always encode into memory");
    let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// The payload of a whole frame.
pub(super) fn payload(frame: &[u8]) -> &[u8] {
    &frame[HEADER_BYTES..]
}

/// Reads a frame's header: its kind, and the length of the payload that follows.
pub(super) async fn read_header<R: AsyncRead + Unpin>(
    stream: &mut R,
    bytes_max: usize,
) -> Result<(Kind, usize), FrameError> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let length = length.checked_sub(1).ok_or(FrameError::Empty)?;
    if length > bytes_max {
        return Err(FrameError::TooLarge(length));
    }
    let kind = match header[4] {
        0 => Kind::Hello,
        1 => Kind::Refusal,
        2 => Kind::Message,
        other => return Err(FrameError::UnknownKind(other)),
    };
    Ok((kind, length))
}

/// Reads the payload that a header has announced.
pub(super) async fn read_payload<R: AsyncRead + Unpin>(
    stream: &mut R,
    length: usize,
) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Decodes a payload; none if it is malformed or has bytes left over.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use pleach_core::vocabulary::{ContentHash, VersionVector};

    use super::*;

    fn message() -> Message {
        Message::Have { known: VersionVector::new(), heads: ContentHash([7; 32]) }
    }

    #[tokio::test]
    async fn message_survives_its_frame() {
        let frame = encode_message(&message()).unwrap();
        let mut stream = &frame[..];
        let (kind, length) = read_header(&mut stream, MESSAGE_BYTES_MAX).await.unwrap();
        assert_eq!(kind, Kind::Message);
        let payload = read_payload(&mut stream, length).await.unwrap();
        assert_eq!(decode(&payload), Some(message()));
        let longer = [&payload[..], &[0]].concat();
        assert_eq!(decode::<Message>(&longer), None, "bytes left over");
        assert_eq!(decode::<Message>(&payload[..payload.len() - 1]), None);
    }

    #[tokio::test]
    async fn unreadable_headers_are_told_apart() {
        for (header, expected) in [
            ([0xff, 0xff, 0xff, 0xff, 2], "a frame of 4294967294 bytes is too large"),
            ([0, 0, 0, 0, 2], "an empty frame"),
            ([0, 0, 0, 1, 9], "a frame of an unknown kind (9)"),
        ] {
            let error = read_header(&mut &header[..], 100).await.unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn message_beyond_the_bound_is_not_sent() {
        let contents = vec![(ContentHash([0; 32]), vec![0; MESSAGE_BYTES_MAX])];
        let large = Message::Changes { changes: vec![], contents };
        assert!(encode_message(&large).is_err());
    }
}
