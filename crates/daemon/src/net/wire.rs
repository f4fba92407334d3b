//! The content protocol: what is asked, and how the bytes travel.
//!
//! A request is a length of four bytes (big-endian) and postcard. Answers come in the order of the
//! requests. An answer is a tag, then what it announces; a content's bytes come as segments of four
//! bytes each: the top bit says hole, the rest is a length; [`ABORT`] ends a content that can't be
//! read to its end. Blocking: both sides run in threads of their own.

use std::io::{self, Read, Write};

use pleach_core::vocabulary::ContentHash;
use serde::{Deserialize, Serialize};

use super::frame::decode;

/// How many contents one request names at most.
pub(super) const HASHES_MAX: usize = 1024;
/// How many ranges of one content a request names at most.
pub(super) const RANGES_MAX: usize = 4096;
/// How long a segment of bytes is at most.
pub(super) const SEGMENT_BYTES_MAX: usize = 256 << 10;
/// The largest encoded request: below the window that a stream begins with, so that two can be
/// written while nobody reads.
pub(super) const REQUEST_BYTES_MAX: usize = 96 << 10;

const HOLE: u32 = 1 << 31;
const ABORT: u32 = u32::MAX;

/// What is asked of a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Contents as a whole: for each, missing or its size and all its segments.
    Whole(Vec<ContentHash>),
    /// Parts of one content: missing, or its size and the segments of all ranges, one after another.
    Ranges { hash: ContentHash, ranges: Vec<(u64, u64)> },
    /// The chunks of one content: missing, or its size, their number (four bytes), and for each the
    /// first 16 bytes of its BLAKE3 hash and its length (four bytes).
    Chunks(ContentHash),
}

/// The head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    Missing,
    Present { size: u64 },
}

/// A piece of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Bytes(usize),
    Hole(u64),
    Abort,
}

pub(super) fn encode_request(request: &Request) -> Vec<u8> {
    let bytes = postcard::to_extend(request, vec![0; 4]);
    let mut bytes = bytes.expect("plain values always encode into memory");
    let length = u32::try_from(bytes.len() - 4).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// The length that a request's first four bytes announce; none beyond the bound.
pub(super) fn request_length(prefix: [u8; 4]) -> Option<usize> {
    Some(u32::from_be_bytes(prefix) as usize).filter(|&length| length <= REQUEST_BYTES_MAX)
}

/// Decodes a request within its bounds.
pub(super) fn decode_request(bytes: &[u8]) -> Option<Request> {
    let request: Request = decode(bytes)?;
    let bounded = match &request {
        Request::Whole(hashes) => hashes.len() <= HASHES_MAX,
        Request::Ranges { ranges, .. } => ranges.len() <= RANGES_MAX,
        Request::Chunks(_) => true,
    };
    bounded.then_some(request)
}

pub(super) fn write_head(stream: &mut impl Write, head: Head) -> io::Result<()> {
    match head {
        Head::Missing => stream.write_all(&[0]),
        Head::Present { size } => {
            let mut bytes = [1; 9];
            bytes[1..].copy_from_slice(&size.to_be_bytes());
            stream.write_all(&bytes)
        }
    }
}

pub(super) fn read_head(stream: &mut impl Read) -> io::Result<Head> {
    match read_array::<1>(stream)? {
        [0] => Ok(Head::Missing),
        [1] => Ok(Head::Present { size: u64::from_be_bytes(read_array(stream)?) }),
        _ => Err(malformed()),
    }
}

pub(super) fn write_segment(stream: &mut impl Write, segment: Segment) -> io::Result<()> {
    match segment {
        Segment::Bytes(length) => {
            let length = u32::try_from(length).ok().filter(|&length| length < HOLE);
            stream.write_all(&length.ok_or_else(malformed)?.to_be_bytes())
        }
        Segment::Abort => stream.write_all(&ABORT.to_be_bytes()),
        Segment::Hole(mut length) => {
            while length > 0 {
                let part = length.min(u64::from(HOLE - 2));
                length -= part;
                let part = u32::try_from(part).expect("less than a hole's bound");
                stream.write_all(&(HOLE | part).to_be_bytes())?;
            }
            Ok(())
        }
    }
}

/// Reads a segment's head, which may cover at most `left` bytes.
pub(super) fn read_segment(stream: &mut impl Read, left: u64) -> io::Result<Segment> {
    let word = u32::from_be_bytes(read_array(stream)?);
    let length = u64::from(word & !HOLE);
    match word {
        ABORT => Ok(Segment::Abort),
        _ if length == 0 || length > left => Err(malformed()),
        _ if word & HOLE != 0 => Ok(Segment::Hole(length)),
        _ if length > SEGMENT_BYTES_MAX as u64 => Err(malformed()),
        _ => Ok(Segment::Bytes(length as usize)),
    }
}

pub(super) fn read_array<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it sent a malformed content")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn largest_requests_stay_within_their_bound() {
        let hash = ContentHash([0xff; 32]);
        let ranges = vec![(u64::MAX, u64::MAX); RANGES_MAX];
        for request in [
            Request::Whole(vec![hash; HASHES_MAX]),
            Request::Ranges { hash, ranges },
            Request::Chunks(hash),
        ] {
            let bytes = encode_request(&request);
            let prefix = [bytes[0], bytes[1], bytes[2], bytes[3]];
            assert_eq!(request_length(prefix), Some(bytes.len() - 4));
            assert_eq!(decode_request(&bytes[4..]), Some(request));
        }
        let beyond = encode_request(&Request::Whole(vec![hash; HASHES_MAX + 1]));
        assert_eq!(decode_request(&beyond[4..]), None);
        assert_eq!(request_length([1, 0, 0, 0]), None);
    }

    #[test]
    fn segments_survive_and_long_holes_are_split() {
        let mut bytes = Vec::new();
        let hole = 5 << 31;
        write_segment(&mut bytes, Segment::Bytes(7)).unwrap();
        write_segment(&mut bytes, Segment::Hole(hole)).unwrap();
        write_segment(&mut bytes, Segment::Abort).unwrap();
        let mut stream = &bytes[..];
        assert_eq!(read_segment(&mut stream, 7).unwrap(), Segment::Bytes(7));
        let mut left = hole;
        while left > 0 {
            let Segment::Hole(length) = read_segment(&mut stream, left).unwrap() else { panic!() };
            left -= length;
        }
        assert_eq!(read_segment(&mut stream, 0).unwrap(), Segment::Abort);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_exceed_what_is_left(bytes: [u8; 4], left: u64) {
            match read_segment(&mut &bytes[..], left) {
                Ok(Segment::Bytes(length)) => {
                    prop_assert!(length <= SEGMENT_BYTES_MAX && length as u64 <= left);
                }
                Ok(Segment::Hole(length)) => prop_assert!(length <= left),
                Ok(Segment::Abort) | Err(_) => {}
            }
        }

        #[test]
        fn arbitrary_requests_never_panic(bytes: Vec<u8>) {
            let _ = decode_request(&bytes);
        }
    }
}
