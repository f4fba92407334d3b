//! Reading a file: one stable pass, or none.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use pleach_core::values::{ReadRequest, ReadState};
use pleach_core::vocabulary::{ContentHash, Fingerprint, Kind, Name};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::progress::LookProgress;
use super::stat::{problem, stat_handle};
use super::walk::open_below;

/// How much is read at once.
pub(crate) const BUFFER_BYTES: usize = 256 << 10;

/// Contents up to this size are handed over with their hash: they travel inside a change's message.
pub(crate) const INLINE_BYTES_MAX: u64 = 16 << 10;

/// Opens the file at `names` for reading, without following, blocking on, or touching it.
pub(crate) fn open_to_read(top: impl AsFd, names: &[Name]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    // Only the owner and root may leave the access time alone (open(2), O_NOATIME).
    match open_below(top.as_fd(), names, flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open_below(top, names, flags),
        opened => opened,
    }
}

/// Reads from `file` at its position until `buffer` is full or the file ends.
pub(crate) fn read_full(file: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::read(file.as_fd(), &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(filled)
}

/// Stats, hashes and stats again. `buffer` is scratch of [`BUFFER_BYTES`]. Once `stopping`, nothing is
/// settled any more.
pub(crate) fn read_stable(
    top: impl AsFd,
    request: &ReadRequest,
    buffer: &mut [u8],
    stopping: &AtomicBool,
    progress: &LookProgress,
) -> ReadState {
    match try_read(top, request, buffer, stopping, progress) {
        Ok(Some((hash, bytes))) => {
            ReadState::Stable { hash, fingerprint: request.fingerprint, bytes }
        }
        Ok(None) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => {
            ReadState::Unsettled
        }
        Err(errno) => ReadState::Unreadable(problem(errno, &request.path)),
    }
}

/// The hash, and the bytes if they are few; none if the file is not the expected one.
type Read = Option<(ContentHash, Option<Vec<u8>>)>;

fn try_read(
    top: impl AsFd,
    request: &ReadRequest,
    buffer: &mut [u8],
    stopping: &AtomicBool,
    progress: &LookProgress,
) -> Result<Read, Errno> {
    let expected = &request.fingerprint;
    if expected.kind != Kind::File || stopping.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let file = open_to_read(top, request.path.names())?;
    if stat_handle(&file)? != *expected {
        return Ok(None);
    }
    let Some((hash, bytes)) = hash_exactly(&file, expected, buffer, stopping, progress)? else {
        return Ok(None);
    };
    Ok((stat_handle(&file)? == *expected).then_some((hash, bytes)))
}

/// Hashes what `file` holds from its position on; none if it isn't as long as expected, or
/// nobody waits for it any more.
fn hash_exactly(
    file: &OwnedFd,
    expected: &Fingerprint,
    buffer: &mut [u8],
    stopping: &AtomicBool,
    progress: &LookProgress,
) -> Result<Read, Errno> {
    let mut hasher = blake3::Hasher::new();
    let mut bytes =
        (expected.size <= INLINE_BYTES_MAX).then(|| Vec::with_capacity(expected.size as usize));
    let mut total = 0;
    loop {
        let length = read_full(file, buffer)?;
        total += length as u64;
        progress.add_read_bytes(length as u64);
        if total > expected.size || stopping.load(Ordering::Relaxed) {
            return Ok(None);
        }
        hasher.update(&buffer[..length]);
        if let Some(bytes) = &mut bytes {
            bytes.extend_from_slice(&buffer[..length]);
        }
        if length < buffer.len() {
            break;
        }
    }
    let hash = ContentHash(*hasher.finalize().as_bytes());
    Ok((total == expected.size).then_some((hash, bytes)))
}
