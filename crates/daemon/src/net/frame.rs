//! Frames on the sync stream: a length of four bytes (big-endian), a kind of one byte, a payload.
//!
//! The length counts kind and payload. It is checked before anything is allocated; a payload is
//! postcard. What is left over of it, and frames of an unknown kind, are a later version's, which has no
//! need of an answer to them: both are passed over.

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
    /// Of a later version.
    Unknown = 255,
}

/// The first frame each way, after what [`Speaks`](super::Speaks) begins it with. What a later version has
/// to say beyond it comes after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
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
    #[error("an empty frame")]
    Empty,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A message and what is appended to it as a whole frame, ready to be written to any number of streams.
pub(super) fn encode_message(
    message: &Message,
    appended: &[u8],
) -> Result<Arc<[u8]>, MessageTooLarge> {
    let frame = encode(Kind::Message, &[], message, appended);
    match payload(&frame).len() {
        bytes if bytes > MESSAGE_BYTES_MAX => Err(MessageTooLarge { bytes }),
        _ => Ok(frame.into()),
    }
}

/// A value as a whole frame, between what comes before it and after it.
pub(super) fn encode<T: Serialize>(kind: Kind, before: &[u8], value: &T, after: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 0, kind as u8];
    frame.extend_from_slice(before);
    let frame = postcard::to_extend(value, frame);
    let mut frame = frame.expect("plain values always encode into memory");
    frame.extend_from_slice(after);
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
        _ => Kind::Unknown,
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

/// Decodes a payload; none if it is malformed.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::take_from_bytes(bytes).ok().map(|(value, _)| value)
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
        let frame = encode_message(&message(), b"appended").unwrap();
        let mut stream = &frame[..];
        let (kind, length) = read_header(&mut stream, MESSAGE_BYTES_MAX).await.unwrap();
        assert_eq!(kind, Kind::Message);
        let payload = read_payload(&mut stream, length).await.unwrap();
        assert!(payload.ends_with(b"appended"));
        assert_eq!(decode(&payload), Some(message()), "what is left over is passed over");
        let short = payload.len() - b"appended".len() - 1;
        assert_eq!(decode::<Message>(&payload[..short]), None);
    }

    #[tokio::test]
    async fn unreadable_headers_are_told_apart() {
        for (header, expected) in [
            ([0xff, 0xff, 0xff, 0xff, 2], "a frame of 4294967294 bytes is too large"),
            ([0, 0, 0, 0, 2], "an empty frame"),
        ] {
            let error = read_header(&mut &header[..], 100).await.unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let later = read_header(&mut &[0, 0, 0, 1, 9][..], 100).await.unwrap();
        assert_eq!(later, (Kind::Unknown, 0));
    }

    #[test]
    fn message_beyond_the_bound_is_not_sent() {
        let contents = vec![(ContentHash([0; 32]), vec![0; MESSAGE_BYTES_MAX])];
        let large = Message::Changes { changes: vec![], contents };
        assert!(encode_message(&large, &[]).is_err());
    }
}
