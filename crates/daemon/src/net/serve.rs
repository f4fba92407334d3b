//! The provider's side of the content protocol: one thread for each stream that a member opens.
//!
//! Requests are read by a task of its own while the thread answers, so that neither side waits for the
//! other to read. A content is sent as it is on disk, holes as holes; one that can't be read to its end
//! is broken off, and the stream goes on.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex};

use futures::AsyncReadExt as _;
use futures::io::ReadHalf;
use libp2p::swarm::Stream;
use pleach_core::vocabulary::MasterId;
use rustix::fs::SeekFrom;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Network;
use super::chunks;
use super::content::{ContentSource, OpenContent};
use super::pipe::Outflow;
use super::roster::lock;
use super::wire::{self, Head, Request, SEGMENT_BYTES_MAX, Segment};

/// How many streams are served at once, of one member and of all.
const STREAMS_PER_MEMBER_MAX: usize = 8;
const STREAMS_MAX: usize = 48;
/// How many requests of one stream wait at most.
const REQUESTS_MAX: usize = 4;
/// Smaller files are not asked for holes.
const SPARSE_BYTES_MIN: u64 = 64 << 10;

/// Serves contents to members.
pub(super) struct Server {
    source: Arc<dyn ContentSource>,
    streams: Arc<Mutex<BTreeMap<MasterId, usize>>>,
}

impl Server {
    pub(super) fn new(source: Arc<dyn ContentSource>) -> Self {
        Self { source, streams: Arc::default() }
    }

    /// Serves a stream until it ends; one too many is closed.
    pub(super) fn serve(&self, network: Network, master: MasterId, stream: Stream) {
        let Some(place) = self.take_place(master) else { return };
        let source = self.source.clone();
        let runtime = Handle::current();
        let (reader, writer) = stream.split();
        let (requests, requests_out) = mpsc::channel(REQUESTS_MAX);
        tokio::spawn(async move {
            let end = read_requests(reader, requests).await;
            if let Err(error) = end
                && error.kind() == io::ErrorKind::InvalidData
            {
                network.refused(Some(master), error.to_string());
            }
        });
        tokio::task::spawn_blocking(move || {
            let _place = place;
            let writer = Outflow::new(writer, runtime);
            if let Err(error) = answer_requests(&*source, requests_out, writer) {
                tracing::debug!(%master, %error, "content stream ended");
            }
        });
    }

    fn take_place(&self, master: MasterId) -> Option<Place> {
        let mut streams = lock(&self.streams);
        let total: usize = streams.values().sum();
        let of_member = streams.entry(master).or_default();
        if total >= STREAMS_MAX || *of_member >= STREAMS_PER_MEMBER_MAX {
            return None;
        }
        *of_member += 1;
        Some(Place { streams: self.streams.clone(), master })
    }
}

/// One of the streams that are served at once.
struct Place {
    streams: Arc<Mutex<BTreeMap<MasterId, usize>>>,
    master: MasterId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut streams = lock(&self.streams);
        match streams.get_mut(&self.master) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                streams.remove(&self.master);
            }
        }
    }
}

async fn read_requests(
    mut reader: ReadHalf<Stream>,
    requests: mpsc::Sender<Request>,
) -> io::Result<()> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "it sent a malformed request");
    loop {
        let mut prefix = [0; 4];
        reader.read_exact(&mut prefix).await?;
        let mut bytes = vec![0; wire::request_length(prefix).ok_or_else(malformed)?];
        reader.read_exact(&mut bytes).await?;
        let request = wire::decode_request(&bytes).ok_or_else(malformed)?;
        if requests.send(request).await.is_err() {
            return Ok(());
        }
    }
}

fn answer_requests(
    source: &dyn ContentSource,
    mut requests: mpsc::Receiver<Request>,
    mut writer: Outflow,
) -> io::Result<()> {
    let mut segment = vec![0; 4 + SEGMENT_BYTES_MAX];
    while let Some(request) = requests.blocking_recv() {
        answer(source, &request, &mut writer, &mut segment)?;
        if requests.is_empty() {
            writer.flush()?;
        }
    }
    Ok(())
}

/// Answers one request. `segment` is room for one segment and its head.
fn answer(
    source: &dyn ContentSource,
    request: &Request,
    writer: &mut impl Write,
    segment: &mut [u8],
) -> io::Result<()> {
    match request {
        Request::Whole(hashes) => {
            source.open_each(hashes, &mut |content| {
                announce(content.as_ref(), writer)?;
                if let Some(content) = content {
                    send_range(&content, 0..content.size, writer, segment)?;
                }
                Ok(())
            })?;
        }
        Request::Ranges { hash, ranges } => {
            let content = source.open(hash);
            announce(content.as_ref(), writer)?;
            let Some(content) = content else { return Ok(()) };
            for &(offset, length) in ranges {
                let end = offset.saturating_add(length).min(content.size);
                if !send_range(&content, offset.min(end)..end, writer, segment)? {
                    break;
                }
            }
        }
        Request::Chunks(hash) => {
            let content = source.open(hash).filter(|content| chunks::is_chunkable(content.size));
            let list = content.as_ref().and_then(|content| list_of(content).ok());
            let (Some(content), Some(list)) = (content, list) else {
                return wire::write_head(writer, Head::Missing);
            };
            wire::write_head(writer, Head::Present { size: content.size })?;
            chunks::write_list(writer, &list)?;
        }
    }
    Ok(())
}

fn announce(content: Option<&OpenContent>, writer: &mut impl Write) -> io::Result<()> {
    let head = match content {
        Some(content) => Head::Present { size: content.size },
        None => Head::Missing,
    };
    wire::write_head(writer, head)
}

fn list_of(content: &OpenContent) -> io::Result<Vec<chunks::Chunk>> {
    let mut list = Vec::new();
    let reader = FileRange { file: &content.file, offset: 0, end: content.size };
    chunks::cut(reader, content.size, |_, chunk| {
        list.push(chunk);
        Ok(())
    })?;
    let total: u64 = list.iter().map(|chunk| u64::from(chunk.length)).sum();
    if total == content.size { Ok(list) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Sends a part of a content; returns false if it had to be broken off.
fn send_range(
    content: &OpenContent,
    range: std::ops::Range<u64>,
    writer: &mut impl Write,
    segment: &mut [u8],
) -> io::Result<bool> {
    let mut at = range.start;
    while at < range.end {
        let (data, hole) = if content.size < SPARSE_BYTES_MIN {
            (at, range.end)
        } else {
            extent(&content.file, at, range.end)
        };
        if data > at {
            wire::write_segment(writer, Segment::Hole(data - at))?;
            at = data;
        }
        while at < hole {
            let length = usize::try_from(hole - at).unwrap_or(usize::MAX).min(SEGMENT_BYTES_MAX);
            if content.file.read_exact_at(&mut segment[4..4 + length], at).is_err() {
                wire::write_segment(writer, Segment::Abort)?;
                return Ok(false);
            }
            wire::write_segment(&mut &mut segment[..4], Segment::Bytes(length))?;
            writer.write_all(&segment[..4 + length])?;
            at += length as u64;
        }
    }
    Ok(true)
}

/// Where the next data at or after `at` begins, and where it ends, both at most `end`. A file system
/// that knows no holes says that all is data (lseek(2)).
fn extent(file: &File, at: u64, end: u64) -> (u64, u64) {
    let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => data.clamp(at, end),
        Err(rustix::io::Errno::NXIO) => end,
        Err(_) => at,
    };
    let hole = rustix::fs::seek(file, SeekFrom::Hole(data)).unwrap_or(end);
    (data, hole.clamp(data, end))
}

/// Reads a part of a file by offset.
pub(super) struct FileRange<'a> {
    pub(super) file: &'a File,
    pub(super) offset: u64,
    pub(super) end: u64,
}

impl io::Read for FileRange<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let room = bytes.len().min(left);
        let count = self.file.read_at(&mut bytes[..room], self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}
