//! A client's end of the control socket: blocking, for programs that ask one thing and go.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::server::with_short_address;
use super::{CONTROL_VERSION, Envelope, EventReport, REPLY_BYTES_MAX, Refusal, Reply, Request};

/// Why a daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon runs on this store.
    #[error("no daemon runs on this store")]
    NoDaemon,
    /// The daemon is another user's.
    #[error("the daemon on this store belongs to another user: ask as that user, or as root")]
    NotPermitted,
    /// The socket can't be used.
    #[error("the control socket does not answer: {0}")]
    Socket(#[from] io::Error),
    /// The daemon closed the connection without an answer.
    #[error("the daemon went away before it answered")]
    Gone,
    /// What came is no reply.
    #[error("the daemon's answer is not understood ({0}): is it another version of pleach?")]
    Malformed(String),
    /// The daemon refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A connection to the daemon of a store.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the daemon of the store in `root`.
    ///
    /// # Errors
    /// [`ClientError::NoDaemon`] if none runs there.
    pub fn connect(root: &Path) -> Result<Self, ClientError> {
        match with_short_address(root, |address| UnixStream::connect(address)) {
            Ok(stream) => Ok(Self { stream: BufReader::new(stream) }),
            Err(e) if is_nobody(&e) => Err(ClientError::NoDaemon),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(ClientError::NotPermitted),
            Err(e) => Err(e.into()),
        }
    }

    /// Limits how long [`Client::call`] waits for bytes; none for ever.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn set_patience(&self, patience: Option<Duration>) -> Result<(), ClientError> {
        Ok(self.stream.get_ref().set_read_timeout(patience)?)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// If the daemon refuses, goes away, or does not make sense.
    pub fn call(&mut self, request: Request) -> Result<Reply, ClientError> {
        let envelope = Envelope { version: CONTROL_VERSION, request };
        let mut line =
            serde_json::to_vec(&envelope).map_err(|e| ClientError::Malformed(e.to_string()))?;
        line.push(b'\n');
        // A daemon that turns us away has answered and closed before we write: its answer counts.
        let written = self.stream.get_mut().write_all(&line);
        match self.next_reply() {
            Ok(Some(Reply::Error(refusal))) => Err(refusal.into()),
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => written.map_err(ClientError::from).and(Err(ClientError::Gone)),
            Err(error) => Err(error),
        }
    }

    /// Asks for events from now on.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn events(mut self) -> Result<Events, ClientError> {
        match self.call(Request::Events)? {
            Reply::Done => Ok(Events { client: self }),
            other => Err(ClientError::Malformed(format!("{other:?}"))),
        }
    }

    fn next_reply(&mut self) -> Result<Option<Reply>, ClientError> {
        let mut line = Vec::new();
        loop {
            let buffer = match self.stream.fill_buf() {
                Ok(buffer) => buffer,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(e) => return Err(e.into()),
            };
            if buffer.is_empty() {
                return Ok(None);
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(buffer.len());
            if line.len() + taken > REPLY_BYTES_MAX {
                return Err(ClientError::Malformed("too long".to_owned()));
            }
            line.extend_from_slice(&buffer[..taken]);
            self.stream.consume(taken + usize::from(end.is_some()));
            if end.is_some() {
                break;
            }
        }
        serde_json::from_slice(&line).map(Some).map_err(|e| ClientError::Malformed(e.to_string()))
    }
}

/// The socket is not there, or nobody listens: killed, or never started.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// What happens, as it happens. Ends when the daemon goes.
#[derive(Debug)]
pub struct Events {
    client: Client,
}

impl Iterator for Events {
    type Item = Result<EventReport, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.client.next_reply() {
            Ok(Some(Reply::Event(event))) => Some(Ok(event)),
            Ok(Some(Reply::Error(refusal))) => Some(Err(refusal.into())),
            Ok(Some(other)) => Some(Err(ClientError::Malformed(format!("{other:?}")))),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }
}
