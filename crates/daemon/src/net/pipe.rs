//! Streams for blocking threads: file work reads and writes them like any other file.
//!
//! Each operation waits for the stream on the runtime, at most [`STALL_SECONDS_MAX`]. Small reads and
//! writes are gathered in a buffer; large ones go past it.

use std::io::{self, Read, Write};
use std::time::Duration;

use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::swarm::Stream;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// How long the other side may neither send nor take a byte.
const STALL_SECONDS_MAX: Duration = Duration::from_secs(30);
const BUFFER_BYTES: usize = 256 << 10;
const DIRECT_BYTES_MIN: usize = 32 << 10;

fn stalled() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the other side has stalled")
}

/// What arrives.
pub(super) struct Inflow {
    stream: ReadHalf<Stream>,
    runtime: Handle,
    buffer: Box<[u8]>,
    filled: std::ops::Range<usize>,
}

impl Inflow {
    pub(super) fn new(stream: ReadHalf<Stream>, runtime: Handle) -> Self {
        let buffer = vec![0; BUFFER_BYTES / 4].into_boxed_slice();
        Self { stream, runtime, buffer, filled: 0..0 }
    }

    fn take_buffered(&mut self, bytes: &mut [u8]) -> usize {
        let count = bytes.len().min(self.filled.len());
        let start = self.filled.start;
        bytes[..count].copy_from_slice(&self.buffer[start..start + count]);
        self.filled.start += count;
        count
    }
}

impl Read for Inflow {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.filled.is_empty() {
            let fill = timeout(STALL_SECONDS_MAX, self.stream.read(&mut self.buffer));
            let count = self.runtime.block_on(async { fill.await.map_err(|_| stalled())? })?;
            self.filled = 0..count;
        }
        Ok(self.take_buffered(bytes))
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let mut done = self.take_buffered(bytes);
        while done < bytes.len() {
            let rest = &mut bytes[done..];
            let count = if rest.len() >= DIRECT_BYTES_MIN {
                let stream = &mut self.stream;
                self.runtime.block_on(async {
                    timeout(STALL_SECONDS_MAX, stream.read(rest)).await.map_err(|_| stalled())?
                })?
            } else {
                self.read(rest)?
            };
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            done += count;
        }
        Ok(())
    }
}

/// What is sent.
pub(super) struct Outflow {
    stream: WriteHalf<Stream>,
    runtime: Handle,
    buffer: Vec<u8>,
}

impl Outflow {
    pub(super) fn new(stream: WriteHalf<Stream>, runtime: Handle) -> Self {
        Self { stream, runtime, buffer: Vec::with_capacity(BUFFER_BYTES) }
    }

    fn write_through(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = &mut self.stream;
        let parts = bytes.chunks(BUFFER_BYTES);
        self.runtime.block_on(async {
            for part in parts {
                let written = timeout(STALL_SECONDS_MAX, stream.write_all(part)).await;
                written.map_err(|_| stalled())??;
            }
            Ok(())
        })
    }

    fn write_buffered(&mut self) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let written = self.write_through(&buffer);
        buffer.clear();
        self.buffer = buffer;
        written
    }
}

impl Write for Outflow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.write_buffered()?;
        }
        if bytes.len() > DIRECT_BYTES_MIN && self.buffer.is_empty() {
            self.write_through(bytes)?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_buffered()?;
        let stream = &mut self.stream;
        self.runtime.block_on(async {
            timeout(STALL_SECONDS_MAX, stream.flush()).await.map_err(|_| stalled())?
        })
    }
}
