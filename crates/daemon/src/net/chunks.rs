//! Content-defined chunks: which parts of a content does an older version of it hold already?
//!
//! Chunks are cut by FastCDC (Xia et al., "The Design of Fast Content-Defined Chunking", 2020), at an
//! average length that grows with the square root of the content's size: the list of chunks and the
//! bytes that one small edit costs grow together. A chunk is named by 16 bytes of its BLAKE3 hash;
//! should two ever clash, the whole content's hash tells.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use fastcdc::v2020::StreamCDC;

use super::wire::{malformed, read_array};

/// From this size on an older version is made use of.
pub(super) const CHUNKED_BYTES_MIN: u64 = 1 << 20;
const AVERAGE_BYTES_MIN: u32 = 16 << 10;
const AVERAGE_BYTES_MAX: u32 = 4 << 20;
/// How many chunks a list holds at most: 20 bytes each.
const CHUNKS_MAX: u64 = 1 << 22;

/// A chunk's hash, cut to 16 bytes.
pub(super) type ChunkHash = [u8; 16];

/// A part of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) hash: ChunkHash,
    pub(super) length: u32,
}

/// The average length of a chunk in a content of `size` bytes: sqrt(24 size), as a list entry and its
/// framing cost about 24 bytes, rounded up to a power of two.
pub(super) fn average_bytes(size: u64) -> u32 {
    let root = size.saturating_mul(24).isqrt().min(u64::from(AVERAGE_BYTES_MAX));
    let root = u32::try_from(root).unwrap_or(AVERAGE_BYTES_MAX);
    root.next_power_of_two().clamp(AVERAGE_BYTES_MIN, AVERAGE_BYTES_MAX)
}

/// Whether a content of `size` bytes has few enough chunks for a list.
pub(super) fn is_chunkable(size: u64) -> bool {
    size >= CHUNKED_BYTES_MIN && chunks_max(size) <= CHUNKS_MAX
}

fn chunks_max(size: u64) -> u64 {
    size / u64::from(average_bytes(size) / 4) + 1
}

/// Cuts what `reader` yields as a content of `size` bytes is cut, and hands each chunk with its offset
/// to `each`. `size` chooses the lengths only: an older version is cut by the new one's size.
pub(super) fn cut(
    reader: impl Read,
    size: u64,
    mut each: impl FnMut(u64, Chunk) -> io::Result<()>,
) -> io::Result<()> {
    let average = average_bytes(size);
    let (least, most) = (average / 4, average * 4);
    for chunk in StreamCDC::new(reader, least as usize, average as usize, most as usize) {
        let chunk = chunk.map_err(io::Error::from)?;
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::hash(&chunk.data).as_bytes()[..16]);
        let length = u32::try_from(chunk.length).map_err(|_| malformed())?;
        each(chunk.offset, Chunk { hash, length })?;
    }
    Ok(())
}

/// Where each chunk of an older version begins.
pub(super) fn index(old: impl Read, size: u64) -> io::Result<HashMap<Chunk16, u64>> {
    let mut found = HashMap::new();
    cut(old, size, |offset, chunk| {
        if (found.len() as u64) < CHUNKS_MAX {
            found.entry((chunk.hash, chunk.length)).or_insert(offset);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Hash and length.
pub(super) type Chunk16 = (ChunkHash, u32);

/// Writes the list of the chunks of a content.
pub(super) fn write_list(stream: &mut impl Write, chunks: &[Chunk]) -> io::Result<()> {
    let count = u32::try_from(chunks.len()).map_err(|_| malformed())?;
    stream.write_all(&count.to_be_bytes())?;
    for chunk in chunks {
        stream.write_all(&chunk.hash)?;
        stream.write_all(&chunk.length.to_be_bytes())?;
    }
    Ok(())
}

/// Reads a list whose chunks together have exactly `size` bytes.
pub(super) fn read_list(stream: &mut impl Read, size: u64) -> io::Result<Vec<Chunk>> {
    let count = u32::from_be_bytes(read_array(stream)?);
    if u64::from(count) > chunks_max(size) {
        return Err(malformed());
    }
    let mut chunks = Vec::new();
    let mut total = 0_u64;
    for _ in 0..count {
        let (hash, length) = (read_array(stream)?, u32::from_be_bytes(read_array(stream)?));
        total += u64::from(length);
        if length == 0 || total > size {
            return Err(malformed());
        }
        chunks.push(Chunk { hash, length });
    }
    if total == size { Ok(chunks) } else { Err(malformed()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn chunks_of(bytes: &[u8], size: u64) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        cut(bytes, size, |_, chunk| {
            chunks.push(chunk);
            Ok(())
        })
        .unwrap();
        chunks
    }

    #[test]
    fn chunks_grow_with_the_content_within_their_bounds() {
        for (size, average) in [
            (0, 16 << 10),
            (1 << 20, 16 << 10),
            (64 << 20, 64 << 10),
            (1 << 30, 256 << 10),
            (1 << 40, 4 << 20),
            (u64::MAX, 4 << 20),
        ] {
            assert_eq!(average_bytes(size), average, "{size}");
        }
        assert!(is_chunkable(1 << 40));
        assert!(!is_chunkable(1 << 60));
    }

    #[test]
    fn byte_in_front_changes_few_chunks() {
        let old = noise(8 << 20);
        let new = [&b"x"[..], &old].concat();
        let size = new.len() as u64;
        let known = index(&old[..], size).unwrap();
        let chunks = chunks_of(&new, size);
        let fresh = chunks.iter().filter(|c| !known.contains_key(&(c.hash, c.length))).count();
        assert!(chunks.len() > 50 && fresh <= 3, "{fresh} of {}", chunks.len());
    }

    #[test]
    fn list_survives_the_wire_and_must_add_up() {
        let bytes = noise(3 << 20);
        let size = bytes.len() as u64;
        let chunks = chunks_of(&bytes, size);
        let mut wire = Vec::new();
        write_list(&mut wire, &chunks).unwrap();
        assert_eq!(read_list(&mut &wire[..], size).unwrap(), chunks);
        assert!(read_list(&mut &wire[..], size + 1).is_err());
        assert!(read_list(&mut &wire[..], size - 1).is_err());
        assert!(read_list(&mut &[0xff; 64][..], size).is_err(), "too many");
        assert!(read_list(&mut &wire[..30], size).is_err(), "cut off");
    }
}
