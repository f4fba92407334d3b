//! A lane: one stream to one provider, and the thread that fetches contents over it.
//!
//! While the answers to one request are read, the next is already sent, so that many small contents
//! cost no round trips. A large content is resumed where its prefix ends, and made of its older version
//! as far as that has the same chunks.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use futures::io::{ReadHalf, WriteHalf};
use libp2p::swarm::Stream;
use pleach_core::transfer::SMALL_BYTES_MAX;
use pleach_core::vocabulary::{ContentHash, MasterId};
use tokio::runtime::Handle;

use super::chunks::{self, Chunk, Chunk16};
use super::content::{ContentRequest, FetchFailure, FinishError, PartialContent};
use super::fetch::{Batch, Fault};
use super::pipe::{Inflow, Outflow};
use super::serve::FileRange;
use super::wire::{self, Head, RANGES_MAX, Request, SEGMENT_BYTES_MAX, Segment};
use super::{ARRIVED_BYTES_MAX, Network};

/// How many requests are under way on one stream: two never fill the window it begins with.
const UNDER_WAY_MAX: usize = 2;
const WRONG_BYTES: &str = "wrong bytes";

/// Why a content did not arrive.
enum Trouble {
    /// The stream is of no use any more.
    Stream(io::Error),
    /// The provider does not have it, or broke it off; the stream goes on.
    Lacks,
    /// The provider has sent something else.
    Lied(&'static str),
    /// The older version misled.
    OldVersion,
    /// The sink said no.
    Sink(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Stream(error)
    }
}

type SmallBatch = VecDeque<(ContentHash, u64)>;

/// Fetches from `master` until there is nothing more to fetch, or the stream ends.
pub(super) fn run(
    network: &Network,
    master: MasterId,
    reader: ReadHalf<Stream>,
    writer: WriteHalf<Stream>,
    runtime: &Handle,
) {
    let mut lane = Lane {
        network,
        master,
        reader: Inflow::new(reader, runtime.clone()),
        writer: Outflow::new(writer, runtime.clone()),
        segment: vec![0; SEGMENT_BYTES_MAX].into_boxed_slice(),
        under_way: VecDeque::new(),
        arrived: Vec::new(),
        arrived_bytes: 0,
    };
    let end = lane.work();
    lane.hand_up();
    // What was asked for and has not come goes back.
    for (hash, _) in std::mem::take(&mut lane.under_way).into_iter().flatten() {
        network.fetcher.give_back(master, hash, Fault::Broke);
    }
    match end {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            network.refused(Some(master), error.to_string());
        }
        Err(error) => tracing::debug!(%master, %error, "content stream broke"),
    }
}

struct Lane<'a> {
    network: &'a Network,
    master: MasterId,
    reader: Inflow,
    writer: Outflow,
    segment: Box<[u8]>,
    under_way: VecDeque<SmallBatch>,
    /// Small contents that have not been handed up.
    arrived: Vec<(ContentHash, Arc<[u8]>)>,
    arrived_bytes: usize,
}

impl Lane<'_> {
    fn work(&mut self) -> io::Result<()> {
        let fetcher = self.network.fetcher.clone();
        loop {
            let mut large = None;
            while self.under_way.len() < UNDER_WAY_MAX && large.is_none() {
                match fetcher.take(self.master, self.under_way.is_empty()) {
                    Some(Batch::Small(batch)) => self.ask_small(batch)?,
                    Some(Batch::Large(request)) => large = Some(request),
                    None if self.under_way.is_empty() => return Ok(()),
                    None => break,
                }
            }
            let read_first = if large.is_some() { self.under_way.len() } else { 1 };
            let read = (0..read_first).try_for_each(|_| self.read_small());
            if let Some(request) = large {
                let hash = request.hash;
                let fetched = match read {
                    Ok(()) => self.fetch_large(&request),
                    Err(error) => Err(Trouble::Stream(error)),
                };
                let settled = self.settle(hash, fetched);
                fetcher.finished_large(self.master);
                settled?;
            } else {
                read?;
            }
        }
    }

    fn ask(&mut self, request: &Request) -> io::Result<()> {
        self.writer.write_all(&wire::encode_request(request))?;
        self.writer.flush()
    }

    fn ask_small(&mut self, batch: Vec<(ContentHash, u64)>) -> io::Result<()> {
        // Small ones go past the sink.
        let sink = &self.network.fetcher.sink;
        let (held, wanted): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|(hash, size)| *size > SMALL_BYTES_MAX && sink.has(hash));
        for (hash, _) in held {
            self.network.fetcher.done(hash);
        }
        // What there is no room for is not asked for: it would be, each time that it is tried again. Room for
        // all is room for each.
        let all = wanted.iter().map(|(_, size)| size).sum();
        let fits = sink.room_for(all).is_ok();
        let mut room = Ok(());
        let (wanted, refused): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|(_, size)| {
            fits || sink.room_for(*size).map_err(|error| room = Err(error)).is_ok()
        });
        if let Err(error) = room {
            for (hash, _) in refused {
                self.network.fetcher.failed(hash, FetchFailure::of_disk(&error));
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let request = Request::Whole(wanted.iter().map(|(hash, _)| *hash).collect());
        self.under_way.push_back(wanted.into());
        self.ask(&request)
    }

    /// Reads the answers to the request that was sent first.
    fn read_small(&mut self) -> io::Result<()> {
        while let Some(&(hash, size)) = self.under_way.front().and_then(VecDeque::front) {
            let small = size <= SMALL_BYTES_MAX;
            let fetched = if small {
                self.read_small_content(hash, size)
            } else {
                self.read_whole(hash, size)
            };
            if let Some(batch) = self.under_way.front_mut() {
                batch.pop_front();
            }
            if !small || fetched.is_err() {
                self.settle(hash, fetched)?;
            }
        }
        self.under_way.pop_front();
        self.hand_up();
        Ok(())
    }

    /// Reads a small content, which is handed up with others.
    fn read_small_content(&mut self, hash: ContentHash, size: u64) -> Result<(), Trouble> {
        self.read_size(size)?;
        let size = usize::try_from(size).expect("a small content fits into a segment");
        let bytes = &mut self.segment[..size];
        let mut at = 0;
        while at < size {
            match wire::read_segment(&mut self.reader, (size - at) as u64)? {
                Segment::Abort => return Err(Trouble::Lacks),
                Segment::Hole(length) => {
                    let end = at + usize::try_from(length).unwrap_or(size - at);
                    bytes[at..end].fill(0);
                    at = end;
                }
                Segment::Bytes(length) => {
                    self.reader.read_exact(&mut bytes[at..at + length])?;
                    at += length;
                }
            }
        }
        if ContentHash::of(bytes) != hash {
            return Err(Trouble::Lied(WRONG_BYTES));
        }
        self.arrived_bytes += size;
        self.arrived.push((hash, Arc::from(&*bytes)));
        if self.arrived_bytes >= ARRIVED_BYTES_MAX {
            self.hand_up();
        }
        Ok(())
    }

    fn hand_up(&mut self) {
        self.arrived_bytes = 0;
        self.network.fetcher.arrived(std::mem::take(&mut self.arrived));
    }

    /// Reports what became of a content; errs if the stream is of no use any more.
    fn settle(&mut self, hash: ContentHash, fetched: Result<(), Trouble>) -> io::Result<()> {
        let fetcher = &self.network.fetcher;
        match fetched {
            Ok(()) => fetcher.done(hash),
            Err(Trouble::Lacks) => fetcher.give_back(self.master, hash, Fault::Lacks),
            Err(Trouble::OldVersion) => fetcher.give_back(self.master, hash, Fault::OldVersion),
            Err(Trouble::Lied(how)) => {
                let reason = format!("it sent {how} for content {hash}");
                self.network.refused(Some(self.master), reason);
                fetcher.give_back(self.master, hash, Fault::Lacks);
            }
            Err(Trouble::Sink(error)) => fetcher.failed(hash, FetchFailure::of_disk(&error)),
            Err(Trouble::Stream(error)) => {
                let fault = match error.kind() {
                    io::ErrorKind::InvalidData => Fault::Lacks,
                    _ => Fault::Broke,
                };
                fetcher.give_back(self.master, hash, fault);
                return Err(error);
            }
        }
        Ok(())
    }

    fn read_size(&mut self, expected: u64) -> Result<(), Trouble> {
        match wire::read_head(&mut self.reader)? {
            Head::Missing => Err(Trouble::Lacks),
            Head::Present { size } if size == expected => Ok(()),
            Head::Present { .. } => {
                let wrong = "it sent a content of another size";
                Err(Trouble::Stream(io::Error::new(io::ErrorKind::InvalidData, wrong)))
            }
        }
    }

    fn read_whole(&mut self, hash: ContentHash, size: u64) -> Result<(), Trouble> {
        self.read_size(size)?;
        // What the sink can't take is read all the same: the next content follows it.
        let begun = self.network.fetcher.sink.begin(hash, size);
        let mut receipt = Receipt::new(begun);
        self.read_bytes(&mut receipt, 0, size)?;
        receipt.finish(false)
    }

    /// Reads the segments of `length` bytes at `offset`.
    fn read_bytes(&mut self, into: &mut Receipt, offset: u64, length: u64) -> Result<(), Trouble> {
        let (mut at, end) = (offset, offset + length);
        while at < end {
            at += self.read_segment(into, at, end)?;
        }
        Ok(())
    }

    /// Reads one segment at `at`, of those up to `end`; how many bytes it stands for.
    fn read_segment(&mut self, into: &mut Receipt, at: u64, end: u64) -> Result<u64, Trouble> {
        match wire::read_segment(&mut self.reader, end - at)? {
            Segment::Abort => Err(Trouble::Lacks),
            Segment::Hole(length) => {
                into.write_hole(at, length);
                Ok(length)
            }
            Segment::Bytes(length) => {
                let bytes = &mut self.segment[..length];
                self.reader.read_exact(bytes)?;
                into.write(at, bytes);
                Ok(length as u64)
            }
        }
    }

    fn fetch_large(&mut self, request: &ContentRequest) -> Result<(), Trouble> {
        let sink = self.network.fetcher.sink.clone();
        let &ContentRequest { hash, size, .. } = request;
        if sink.has(&hash) {
            return Ok(());
        }
        let partial = sink.begin(hash, size).map_err(Trouble::Sink)?;
        let present = partial.present().min(size);
        let mut receipt = Receipt::new(Ok(partial));
        let old = request.old_version.as_ref().filter(|_| chunks::is_chunkable(size));
        let old = old.and_then(|hint| sink.old_version(hint));
        if let Some(old) = &old {
            self.fetch_differing(hash, size, present, old, &mut receipt)?;
        } else {
            self.fetch_runs(hash, size, &[(present, size - present)], None, &mut receipt)?;
        }
        receipt.finish(old.is_some())
    }

    /// Fetches the chunks that the older version lacks, and copies the others from it.
    fn fetch_differing(
        &mut self,
        hash: ContentHash,
        size: u64,
        present: u64,
        old: &File,
        receipt: &mut Receipt,
    ) -> Result<(), Trouble> {
        self.ask(&Request::Chunks(hash))?;
        // The provider cuts its file while this side cuts the older one.
        let old_size = old.metadata().map_err(|_| Trouble::OldVersion)?.len();
        let reader = FileRange { file: old, offset: 0, end: old_size };
        let known = chunks::index(reader, size).unwrap_or_default();
        self.read_size(size)?;
        let list = chunks::read_list(&mut self.reader, size)?;
        let plan = plan(&list, &known, present);
        for part in plan.chunks(2 * RANGES_MAX) {
            let missing: Vec<_> = part
                .iter()
                .filter(|run| run.old.is_none())
                .map(|run| (run.at, run.length))
                .collect();
            self.fetch_runs(hash, size, &missing, Some((part, old)), receipt)?;
        }
        Ok(())
    }

    /// Asks for `ranges` and writes them; in between, by `plan`, what the older version has.
    fn fetch_runs(
        &mut self,
        hash: ContentHash,
        size: u64,
        ranges: &[(u64, u64)],
        plan: Option<(&[Run], &File)>,
        receipt: &mut Receipt,
    ) -> Result<(), Trouble> {
        if !ranges.is_empty() {
            self.ask(&Request::Ranges { hash, ranges: ranges.to_vec() })?;
            self.read_size(size)?;
        }
        let Some((runs, old)) = plan else {
            for &(at, length) in ranges {
                self.read_taken(hash, receipt, at, length)?;
            }
            return Ok(());
        };
        for run in runs {
            match run.old {
                None => self.read_taken(hash, receipt, run.at, run.length)?,
                Some(from) => {
                    self.copy(old, from, run, receipt)?;
                    self.check_taken(hash, receipt)?;
                }
            }
        }
        Ok(())
    }

    /// Reads the segments of a part of a large content, as long as the sink takes them.
    fn read_taken(
        &mut self,
        hash: ContentHash,
        into: &mut Receipt,
        offset: u64,
        length: u64,
    ) -> Result<(), Trouble> {
        let (mut at, end) = (offset, offset + length);
        while at < end {
            at += self.read_segment(into, at, end)?;
            self.check_taken(hash, into)?;
        }
        Ok(())
    }

    /// What the sink does not take any more is not worth reading to its end.
    fn check_taken(&self, hash: ContentHash, receipt: &mut Receipt) -> Result<(), Trouble> {
        let Some(error) = receipt.error.take() else { return Ok(()) };
        self.network.fetcher.failed(hash, FetchFailure::of_disk(&error));
        Err(Trouble::Stream(error))
    }

    fn copy(
        &mut self,
        old: &File,
        from: u64,
        run: &Run,
        into: &mut Receipt,
    ) -> Result<(), Trouble> {
        let mut done = 0;
        while done < run.length {
            let length = (run.length - done).min(self.segment.len() as u64) as usize;
            let bytes = &mut self.segment[..length];
            // An older version that changes meanwhile must not leave the stream half read.
            if old.read_exact_at(bytes, from + done).is_err() {
                bytes.fill(0);
            }
            into.write(run.at + done, bytes);
            done += length as u64;
        }
        Ok(())
    }
}

/// Adjacent chunks that come from the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    at: u64,
    length: u64,
    /// Where the older version has it; none if it must be fetched.
    old: Option<u64>,
}

/// Where each part of a content after its first `present` bytes comes from, in order.
fn plan(list: &[Chunk], known: &std::collections::HashMap<Chunk16, u64>, present: u64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut offset = 0;
    for chunk in list {
        let (start, end) = (offset, offset + u64::from(chunk.length));
        offset = end;
        if end <= present {
            continue;
        }
        let at = start.max(present);
        let old = known.get(&(chunk.hash, chunk.length)).map(|old| old + (at - start));
        let length = end - at;
        match runs.last_mut() {
            Some(run) if run.continues_into(old) => run.length += length,
            _ => runs.push(Run { at, length, old }),
        }
    }
    runs
}

impl Run {
    fn continues_into(&self, old: Option<u64>) -> bool {
        self.old.map(|start| start + self.length) == old
    }
}

/// A content on its way into the sink. After the first error bytes are dropped.
struct Receipt {
    partial: Option<Box<dyn PartialContent>>,
    present: u64,
    error: Option<io::Error>,
}

impl Receipt {
    fn new(begun: io::Result<Box<dyn PartialContent>>) -> Self {
        match begun {
            Ok(partial) => {
                let present = partial.present();
                Self { partial: Some(partial), present, error: None }
            }
            Err(error) => Self { partial: None, present: 0, error: Some(error) },
        }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        let skip = self.present.saturating_sub(at).min(bytes.len() as u64);
        let (at, bytes) = (at + skip, &bytes[skip as usize..]);
        if !bytes.is_empty() {
            self.attempt(|partial| partial.write_at(at, bytes));
        }
    }

    fn write_hole(&mut self, at: u64, length: u64) {
        let skip = self.present.saturating_sub(at).min(length);
        if length > skip {
            self.attempt(|partial| partial.write_hole(at + skip, length - skip));
        }
    }

    fn attempt(&mut self, write: impl FnOnce(&mut dyn PartialContent) -> io::Result<()>) {
        let Some(partial) = &mut self.partial else { return };
        if let Err(error) = write(&mut **partial) {
            self.error = Some(error);
            self.partial = None;
        }
    }

    fn finish(self, used_old: bool) -> Result<(), Trouble> {
        let Some(partial) = self.partial else {
            let unknown = || io::Error::other("the sink took no more");
            return Err(Trouble::Sink(self.error.unwrap_or_else(unknown)));
        };
        match partial.finish() {
            Ok(()) => Ok(()),
            Err(FinishError::Mismatch) if used_old => Err(Trouble::OldVersion),
            Err(FinishError::Mismatch) => Err(Trouble::Lied(WRONG_BYTES)),
            Err(FinishError::Io(error)) => Err(Trouble::Sink(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn plan_skips_the_prefix_and_joins_what_is_adjacent() {
        let chunk = |byte: u8| Chunk { hash: [byte; 16], length: 10 };
        let known = HashMap::from([(([1; 16], 10), 100), (([2; 16], 10), 110), (([4; 16], 10), 0)]);
        let runs = plan(&[chunk(9), chunk(1), chunk(2), chunk(8), chunk(7), chunk(4)], &known, 15);
        assert_eq!(
            runs,
            [
                Run { at: 15, length: 15, old: Some(105) },
                Run { at: 30, length: 20, old: None },
                Run { at: 50, length: 10, old: Some(0) },
            ]
        );
    }
}
