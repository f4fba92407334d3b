//! The daemon's end of the control socket.
//!
//! One task per client, and no state but the connection: what a request means is the driver's business.

use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

use super::{
    CONNECTIONS_MAX, CONTROL_VERSION, Envelope, EventBody, EventReport, REQUEST_BYTES_MAX, Refusal,
    RefusalKind, Reply, Request,
};

/// A request on its way to the driver, with the way back.
#[derive(Debug)]
pub struct Call {
    /// What is asked. Never [`Request::Events`], which needs no driver.
    pub request: Request,
    /// Takes the one answer. Closed when the client has gone: nobody waits any more.
    pub reply: oneshot::Sender<Result<Reply, Refusal>>,
}

/// Where the control socket of the store in `root` is.
#[must_use]
pub fn socket_path(root: &Path) -> PathBuf {
    root.join(".pleach").join("socket")
}

/// Runs `act` with an address for the socket in `.pleach` that is short enough for the kernel, however
/// long the root's path is (unix(7): 108 bytes): by a handle of the directory, in `/proc/self/fd`.
pub(super) fn with_short_address<T>(
    root: &Path,
    act: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(CWD, root.join(".pleach"), flags, Mode::empty())?;
    act(Path::new(&format!("/proc/self/fd/{}/socket", handle.as_raw_fd())))
}

/// Makes the control socket of the store in `root`, in the place of one that a killed daemon left behind.
///
/// The caller holds the lock of the store: no other daemon is listening there. Must be called within a
/// tokio runtime.
///
/// # Errors
/// If `.pleach` is not there or can't be written.
pub fn bind(root: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket_path(root)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => (),
    }
    with_short_address(root, |address| UnixListener::bind(address))
}

/// Serves clients until `calls` is closed. Events that are sent to `events` go to all who asked for them.
pub async fn serve(
    listener: UnixListener,
    calls: mpsc::Sender<Call>,
    events: broadcast::Sender<EventReport>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: yield to those who will close some.
                    tracing::warn!(%error, "cannot accept a control connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = calls.closed() => return,
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tokio::spawn(turn_away(stream));
            continue;
        };
        let (calls, events) = (calls.clone(), events.clone());
        tokio::spawn(async move {
            if let Err(error) = attend(stream, calls, events).await {
                tracing::debug!(%error, "a control connection ended");
            }
            drop(place);
        });
    }
}

async fn turn_away(mut stream: UnixStream) {
    let message = format!("{CONNECTIONS_MAX} clients are connected already: try again later");
    let _ = send(&mut stream, &Reply::Error(Refusal::new(RefusalKind::Busy, message))).await;
}

/// Answers one client's requests until it goes.
async fn attend(
    stream: UnixStream,
    calls: mpsc::Sender<Call>,
    events: broadcast::Sender<EventReport>,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    while let Some(line) = read_line(&mut read).await? {
        let reply = match parse(&line) {
            Ok(Request::Events) => {
                let listening = events.subscribe();
                send(&mut write, &Reply::Done).await?;
                return tell_events(read, write, listening, &calls).await;
            }
            Ok(request) => {
                tokio::select! {
                    reply = call(&calls, request) => reply,
                    // A second request before the answer, or the end: nobody waits for this one.
                    _ = read.fill_buf() => return Ok(()),
                }
            }
            Err(refusal) => Reply::Error(refusal),
        };
        send(&mut write, &reply).await?;
    }
    Ok(())
}

async fn call(calls: &mpsc::Sender<Call>, request: Request) -> Reply {
    let stopping = || Refusal::new(RefusalKind::Stopping, "the daemon is stopping");
    let (reply, answer) = oneshot::channel();
    let outcome = match calls.send(Call { request, reply }).await {
        Ok(()) => answer.await.unwrap_or_else(|_| Err(stopping())),
        Err(_) => Err(stopping()),
    };
    outcome.unwrap_or_else(Reply::Error)
}

async fn tell_events(
    mut read: impl AsyncBufRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
    mut events: broadcast::Receiver<EventReport>,
    calls: &mpsc::Sender<Call>,
) -> io::Result<()> {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = read.fill_buf() => return Ok(()),
            () = calls.closed() => return Ok(()),
        };
        let event = match event {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                EventReport { time_ms: unix_ms(), body: EventBody::Missed { events: missed } }
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        };
        send(&mut write, &Reply::Event(event)).await?;
    }
}

/// Milliseconds since 1970 by the wall clock; 0 for a clock before that.
fn unix_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// One line without its end; none at the end of the stream.
async fn read_line(read: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let buffer = read.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(None);
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(buffer.len());
        if line.len() + taken > REQUEST_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the request is too long"));
        }
        line.extend_from_slice(&buffer[..taken]);
        read.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

fn parse(line: &[u8]) -> Result<Request, Refusal> {
    let malformed = |e: serde_json::Error| {
        Refusal::new(RefusalKind::Malformed, format!("this is no request: {e}"))
    };
    // The version first: of another one, only the version can be understood.
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version } = serde_json::from_slice(line).map_err(malformed)?;
    if version != CONTROL_VERSION {
        return Err(Refusal::new(
            RefusalKind::Version,
            format!(
                "the daemon (pleach {}) speaks version {CONTROL_VERSION} of the control protocol, the \
                 client version {version}: use the same pleach for both, or restart the daemon",
                env!("CARGO_PKG_VERSION")
            ),
        ));
    }
    let envelope: Envelope = serde_json::from_slice(line).map_err(malformed)?;
    Ok(envelope.request)
}

async fn send(write: &mut (impl AsyncWrite + Unpin), reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply).map_err(io::Error::other)?;
    line.push(b'\n');
    write.write_all(&line).await?;
    write.flush().await
}
