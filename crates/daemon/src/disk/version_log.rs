//! The log that the versions' index is written to: entries, each with its length and a checksum before it.
//!
//! A power cut tears the end off, no more: that is cut away. What can't be read before the last entry that
//! can is damage: it is passed over, and its caller says so. Deliberately not here: what the entries mean.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest entry: a path of 1,000 names with room to spare.
const ENTRY_BYTES_MAX: usize = 1 << 20;
/// An entry that is sought after damage is at most this large: longer ones are not worth the search.
const SOUGHT_BYTES_MAX: usize = 64 << 10;
const HEADER_BYTES: usize = 8;

/// An open log.
#[derive(Debug)]
pub(super) struct VersionLog {
    file: File,
    bytes: u64,
    entries: usize,
    unsynced: bool,
}

/// What a log held.
#[derive(Debug)]
pub(super) struct Loaded<T> {
    /// In the order in which they were appended.
    pub(super) entries: Vec<T>,
    /// How many bytes could not be read before others that could.
    pub(super) damaged_bytes: u64,
    /// How many were torn off at the end.
    pub(super) torn_bytes: u64,
}

impl VersionLog {
    /// A log that nothing is in.
    pub(super) fn empty(file: File) -> Self {
        Self { file, bytes: 0, entries: 0, unsynced: false }
    }

    /// Reads all that can be read, and cuts off the end that can't.
    pub(super) fn load<T: DeserializeOwned>(file: File) -> io::Result<(Self, Loaded<T>)> {
        let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        let mut loaded = Loaded { entries: Vec::new(), damaged_bytes: 0, torn_bytes: 0 };
        let mut at = 0;
        while at < bytes.len() {
            if let Some((entry, length)) = entry_at(&bytes[at..], ENTRY_BYTES_MAX) {
                loaded.entries.push(entry);
                at += length;
                continue;
            }
            let next = (at + 1..bytes.len())
                .find(|&next| entry_at::<T>(&bytes[next..], SOUGHT_BYTES_MAX).is_some());
            let Some(next) = next else { break };
            loaded.damaged_bytes += (next - at) as u64;
            at = next;
        }
        loaded.torn_bytes = (bytes.len() - at) as u64;
        file.set_len(at as u64)?;
        let entries = loaded.entries.len();
        Ok((Self { file, bytes: at as u64, entries, unsynced: false }, loaded))
    }

    /// How many entries it has.
    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    /// Appends entries. They are durable after [`Self::sync`].
    pub(super) fn append<T: Serialize>(&mut self, entries: &[T]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for entry in entries {
            let encoded = postcard::to_allocvec(entry).map_err(io::Error::other)?;
            if encoded.len() > ENTRY_BYTES_MAX {
                continue;
            }
            let size = u32::try_from(encoded.len()).expect("an entry has at most a megabyte");
            bytes.extend_from_slice(&size.to_le_bytes());
            bytes.extend_from_slice(&checksum(&encoded));
            bytes.extend_from_slice(&encoded);
        }
        self.file.write_all_at(&bytes, self.bytes)?;
        self.bytes += bytes.len() as u64;
        self.entries += entries.len();
        self.unsynced = true;
        Ok(())
    }

    /// Makes durable what was appended.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.unsynced {
            self.file.sync_data()?;
            self.unsynced = false;
        }
        Ok(())
    }
}

/// The entry that these bytes begin with, and how long it is with its header.
fn entry_at<T: DeserializeOwned>(bytes: &[u8], size_max: usize) -> Option<(T, usize)> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let (size, sum) = header.split_first_chunk::<4>()?;
    let size = usize::try_from(u32::from_le_bytes(*size)).ok().filter(|&size| size <= size_max)?;
    let entry = rest.get(..size)?;
    if checksum(entry) != sum {
        return None;
    }
    Some((postcard::from_bytes(entry).ok()?, HEADER_BYTES + size))
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let hash = blake3::hash(bytes);
    let mut sum = [0; 4];
    sum.copy_from_slice(&hash.as_bytes()[..4]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<String> {
        (0..20).map(|number| format!("entry {number} of a log")).collect()
    }

    fn written() -> Vec<u8> {
        let file = tempfile::tempfile().unwrap();
        let mut log = VersionLog::empty(file.try_clone().unwrap());
        log.append(&entries()).unwrap();
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn load(bytes: &[u8]) -> Loaded<String> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        VersionLog::load(file).unwrap().1
    }

    #[test]
    fn one_wrong_byte_costs_one_entry_and_is_told_from_a_torn_end() {
        let good = written();
        let last = good.len() / 20 * 19;
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            let loaded = load(&bytes);
            let lost: Vec<_> =
                entries().into_iter().filter(|entry| !loaded.entries.contains(entry)).collect();
            assert_eq!((loaded.entries.len(), lost.len()), (19, 1), "byte {at}");
            let is_last = lost == entries()[19..];
            assert_eq!((loaded.damaged_bytes == 0, loaded.torn_bytes > 0), (is_last, is_last));
            assert!(is_last || at < last + 40, "byte {at}");
        }
    }

    #[test]
    fn torn_end_is_cut_off_and_the_log_goes_on_there() {
        let good = written();
        for torn in [1, 7, 9, 20] {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&good[..good.len() - torn], 0).unwrap();
            let (mut log, loaded) = VersionLog::load::<String>(file.try_clone().unwrap()).unwrap();
            assert_eq!((loaded.entries.len(), loaded.damaged_bytes), (19, 0));
            log.append(&["another".to_owned()]).unwrap();
            log.sync().unwrap();
            let (log, loaded) = VersionLog::load::<String>(file).unwrap();
            assert_eq!((log.entries(), loaded.torn_bytes), (20, 0));
            assert_eq!(loaded.entries[19], "another");
        }
    }
}
