//! The sync stream between two members: a hello each way, then messages, for as long as the connection.
//!
//! Reading and writing are two tasks, so that neither side ever waits for the other to read before it
//! reads itself (rust-libp2p issue 5410). What is to be written waits in a bounded queue; a peer that
//! takes nothing for [`STALL_SECONDS_MAX`] is disconnected. The dialler opens the stream.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::PeerId;
use libp2p::swarm::{ConnectionId, Stream};
use pleach_core::values::{Decoded, MESSAGE_BYTES_MAX, Message};
use pleach_core::vocabulary::{MasterId, StoreId};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::frame::{self, FrameError, Hello, Kind};
use super::roster::lock;
use super::runs::Running;
use super::service::Command;
use super::{NetEvent, Network, Speaks};
use crate::identity::change_is_authentic;

/// How many bytes wait for one peer at most; beyond it changes are dropped.
pub const QUEUE_BYTES_MAX: usize = 16 << 20;
/// How many messages wait for one peer at most; beyond it everything is dropped.
const QUEUE_MESSAGES_MAX: usize = 4096;
/// How long the other side may take to say hello.
const HELLO_SECONDS_MAX: Duration = Duration::from_secs(10);
/// How long a peer may take no byte while some wait for it.
const STALL_SECONDS_MAX: Duration = Duration::from_secs(30);
/// From this size on a message is decoded and verified off the runtime's threads.
const INLINE_BYTES_MAX: usize = 16 << 10;
/// How long the other side may take to read why it is refused.
const REFUSAL_SECONDS_MAX: Duration = Duration::from_secs(2);
/// How many addresses of a hello are believed.
const ADDRESSES_MAX: usize = 16;

/// What waits for one peer.
#[derive(Debug, Default)]
struct Outgoing {
    state: Mutex<OutgoingState>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct OutgoingState {
    frames: VecDeque<Arc<[u8]>>,
    bytes: usize,
    dropped: bool,
    closed: bool,
}

enum Next {
    Frame(Arc<[u8]>),
    /// The queue is empty, and something was dropped since it last was.
    CaughtUpWithLoss,
    Empty,
    Closed,
}

impl Outgoing {
    fn push(&self, frame: Arc<[u8]>) {
        let mut state = lock(&self.state);
        let full =
            state.bytes + frame.len() > QUEUE_BYTES_MAX || state.frames.len() >= QUEUE_MESSAGES_MAX;
        if full {
            state.dropped = true;
        } else {
            state.bytes += frame.len();
            state.frames.push_back(frame);
        }
        drop(state);
        self.ready.notify_one();
    }

    fn next(&self) -> Next {
        let mut state = lock(&self.state);
        if state.closed {
            return Next::Closed;
        }
        if let Some(frame) = state.frames.pop_front() {
            state.bytes -= frame.len();
            return Next::Frame(frame);
        }
        match std::mem::take(&mut state.dropped) {
            true => Next::CaughtUpWithLoss,
            false => Next::Empty,
        }
    }

    fn close(&self) {
        lock(&self.state).closed = true;
        self.ready.notify_one();
    }
}

#[derive(Clone, Debug)]
struct Session {
    peer: PeerId,
    connection: ConnectionId,
    outgoing: Arc<Outgoing>,
}

/// The sessions that stand, one for each connected member.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<BTreeMap<MasterId, Session>>);

impl Sessions {
    pub(super) fn send(&self, to: MasterId, frame: Arc<[u8]>) {
        if let Some(session) = lock(&self.0).get(&to) {
            session.outgoing.push(frame);
        }
    }

    pub(super) fn send_to_all(&self, frame: &Arc<[u8]>) {
        for session in lock(&self.0).values() {
            session.outgoing.push(frame.clone());
        }
    }

    /// Sends to those of whom `reached` says that they are not.
    pub(super) fn send_to_rest(&self, frame: &Arc<[u8]>, reached: impl Fn(&PeerId) -> bool) {
        for session in lock(&self.0).values().filter(|session| !reached(&session.peer)) {
            session.outgoing.push(frame.clone());
        }
    }

    pub(super) fn connected(&self) -> Vec<MasterId> {
        lock(&self.0).keys().copied().collect()
    }

    /// On which connection `master` is reached.
    pub(super) fn route(&self, master: MasterId) -> Option<(PeerId, ConnectionId)> {
        lock(&self.0).get(&master).map(|session| (session.peer, session.connection))
    }

    /// Ends whatever session runs on `connection`: it is gone, or is being closed.
    pub(super) fn close(&self, connection: ConnectionId) {
        for session in lock(&self.0).values().filter(|session| session.connection == connection) {
            session.outgoing.close();
        }
    }

    /// Makes `session` the one of `master`; returns whether it replaces another, which is closed.
    fn stand(&self, master: MasterId, session: Session) -> bool {
        match lock(&self.0).insert(master, session) {
            Some(old) => {
                old.outgoing.close();
                true
            }
            None => false,
        }
    }

    /// Ends the session on `connection`; returns whether it was the one that stood.
    fn end(&self, master: MasterId, connection: ConnectionId) -> bool {
        let mut sessions = lock(&self.0);
        let stood = sessions.get(&master).is_some_and(|session| session.connection == connection);
        if stood {
            sessions.remove(&master);
        }
        stood
    }
}

/// Why a session ended.
enum End {
    /// The connection is gone, or this side has replaced or closed it.
    Gone,
    /// One side refuses to go on, with a reason for people.
    Refused(String),
    /// The other side speaks no version of the protocol that we speak.
    OtherVersion(Speaks),
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(_) => Self::Gone,
            other => Self::Refused(format!("it sent {other}")),
        }
    }
}

/// Runs the session on a stream until it ends, and then has its connection closed.
pub(super) async fn run(
    network: Network,
    master: MasterId,
    peer: PeerId,
    connection: ConnectionId,
    stream: Stream,
) {
    let (mut reader, mut writer) = stream.split();
    let end = match greet(&network, &mut reader, &mut writer).await {
        Err(end) => end,
        Ok(hello) => {
            if lock(&network.shared.runs).heard(master, hello.run) == Running::MoreThanOnce {
                network.shared.events.send(NetEvent::Cloned(master)).await;
            }
            let addresses = hello.addresses;
            let greeted = Command::Greeted { peer, addresses };
            let _ = network.commands.send(greeted).await;
            talk(
                &network,
                master,
                Session { peer, connection, outgoing: Arc::default() },
                reader,
                writer,
            )
            .await
        }
    };
    match end {
        End::Gone => {}
        End::Refused(reason) => network.refused(Some(master), reason),
        End::OtherVersion(speaks) => {
            network.shared.events.try_send(NetEvent::OtherVersion(master, speaks));
        }
    }
    let _ = network.commands.send(Command::CloseConnection(connection)).await;
}

async fn greet(
    network: &Network,
    reader: &mut ReadHalf<Stream>,
    writer: &mut WriteHalf<Stream>,
) -> Result<Hello, End> {
    let shared = &network.shared;
    let addresses = shared.reachable_addresses();
    let addresses = addresses.iter().take(ADDRESSES_MAX).map(ToString::to_string).collect();
    let ours = Hello { store: shared.store, run: shared.run, addresses };
    let (speaks, after) = (shared.speaks.encode(), &shared.speaks.appended);
    let exchange = async {
        let hello = frame::encode(Kind::Hello, &speaks, &ours, after);
        writer.write_all(&hello).await.map_err(FrameError::Io)?;
        writer.flush().await.map_err(FrameError::Io)?;
        let (kind, length) = frame::read_header(reader, frame::GREETING_BYTES_MAX).await?;
        Ok::<_, FrameError>((kind, frame::read_payload(reader, length).await?))
    };
    let Ok(answer) = timeout(HELLO_SECONDS_MAX, exchange).await else {
        return Err(End::Refused("it did not say hello in time".into()));
    };
    let (kind, bytes) = answer?;
    let judged = judge_hello(kind, &bytes, shared.store, &shared.speaks);
    let reason = match &judged {
        Ok(_) | Err(End::Gone) => return judged,
        Err(End::Refused(reason)) => reason.clone(),
        Err(End::OtherVersion(theirs)) => theirs.refusal(&shared.speaks, "the other master"),
    };
    if kind == Kind::Hello {
        // Each side hangs up once the other has: until then it may still be reading our hello.
        let tell = async {
            writer.write_all(&frame::encode(Kind::Refusal, &[], &reason, &[])).await?;
            writer.close().await?;
            while reader.read(&mut [0; 256]).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        let _ = timeout(REFUSAL_SECONDS_MAX, tell).await;
    }
    judged
}

/// The hello, or why the two can't talk.
fn judge_hello(kind: Kind, bytes: &[u8], store: StoreId, ours: &Speaks) -> Result<Hello, End> {
    let refused = |reason: &str| End::Refused(reason.to_owned());
    if kind == Kind::Refusal {
        let reason = frame::decode::<String>(bytes).unwrap_or_default();
        return Err(End::Refused(format!("it refuses us: {}", printable(&reason))));
    }
    let (theirs, rest) = match Speaks::decode(bytes) {
        Some(read) if kind == Kind::Hello => read,
        _ => return Err(refused("it did not begin with a hello")),
    };
    if ours.common(&theirs).is_none() {
        return Err(End::OtherVersion(theirs));
    }
    let hello: Hello = frame::decode(rest).ok_or_else(|| refused("its hello was malformed"))?;
    if hello.store != store {
        return Err(refused("it belongs to another store"));
    }
    Ok(Hello { addresses: hello.addresses.into_iter().take(ADDRESSES_MAX).collect(), ..hello })
}

/// What a peer says of itself, fit for a log: one line, at most 200 characters.
pub(super) fn printable(text: &str) -> String {
    text.chars().take(200).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

async fn talk(
    network: &Network,
    master: MasterId,
    session: Session,
    mut reader: ReadHalf<Stream>,
    writer: WriteHalf<Stream>,
) -> End {
    let shared = &network.shared;
    let (connection, outgoing) = (session.connection, session.outgoing.clone());
    if shared.sessions.stand(master, session) {
        shared.events.send(NetEvent::Disconnected(master)).await;
    }
    // Whoever hears of the connection may ask for contents at once.
    network.fetcher.provider_came(master);
    shared.events.send(NetEvent::Connected(master)).await;

    let mut writing = tokio::spawn(write(network.clone(), master, outgoing.clone(), writer));
    let end = tokio::select! {
        end = read(network, master, &mut reader) => end,
        _ = &mut writing => End::Gone,
    };
    outgoing.close();
    writing.abort();
    if shared.sessions.end(master, connection) {
        network.fetcher.provider_went(master);
        shared.events.send(NetEvent::Disconnected(master)).await;
    }
    end
}

async fn write(
    network: Network,
    master: MasterId,
    outgoing: Arc<Outgoing>,
    mut writer: WriteHalf<Stream>,
) {
    loop {
        let written = match outgoing.next() {
            Next::Frame(frame) => timeout(STALL_SECONDS_MAX, writer.write_all(&frame)).await,
            Next::Closed => return,
            Next::CaughtUpWithLoss => {
                network.shared.events.send(NetEvent::Overflowed(master)).await;
                continue;
            }
            Next::Empty => {
                let flushed = timeout(STALL_SECONDS_MAX, writer.flush()).await;
                outgoing.ready.notified().await;
                flushed
            }
        };
        match written {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => return network.refused(Some(master), "it has stopped reading".into()),
        }
    }
}

async fn read(network: &Network, master: MasterId, reader: &mut ReadHalf<Stream>) -> End {
    let events = &network.shared.events;
    loop {
        let (kind, length) = match frame::read_header(reader, MESSAGE_BYTES_MAX).await {
            Ok(header) => header,
            Err(error) => return error.into(),
        };
        let Some(room) = events.room(length).await else { return End::Gone };
        let bytes = match frame::read_payload(reader, length).await {
            Ok(bytes) => bytes,
            Err(error) => return error.into(),
        };
        match kind {
            Kind::Message => match open(network.shared.store, bytes).await {
                Ok(Some(message)) => {
                    events.send_holding(NetEvent::Received(master, message), room).await;
                }
                Ok(None) => {}
                Err(reason) => return End::Refused(reason),
            },
            Kind::Refusal => {
                let reason = frame::decode::<String>(&bytes).unwrap_or_default();
                return End::Refused(format!("it refuses us: {}", printable(&reason)));
            }
            Kind::Hello => return End::Refused("it said hello twice".into()),
            Kind::Unknown => {}
        }
    }
}

/// Decodes a message and verifies the signatures in it; none if only a later version understands it, on
/// error the reason for people.
pub(super) async fn open(store: StoreId, bytes: Vec<u8>) -> Result<Option<Message>, String> {
    if bytes.len() <= INLINE_BYTES_MAX {
        return open_now(store, &bytes);
    }
    let opened = tokio::task::spawn_blocking(move || open_now(store, &bytes)).await;
    opened.unwrap_or_else(|_| Err("its message could not be read".into()))
}

fn open_now(store: StoreId, bytes: &[u8]) -> Result<Option<Message>, String> {
    let message = match Message::decode(bytes) {
        Decoded::Message(message) => message,
        Decoded::Malformed => return Err("it sent a malformed message".to_owned()),
        Decoded::OfLaterVersion => {
            tracing::debug!("passed over a message of a later version");
            return Ok(None);
        }
    };
    if let Message::Changes { changes, .. } = &message
        && let Some(forged) = changes.iter().find(|change| !change_is_authentic(store, change))
    {
        let author = forged.author;
        return Err(format!("it sent a change that its author {author} has not signed"));
    }
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_drops_beyond_its_bound_and_says_so_once_when_drained() {
        let outgoing = Outgoing::default();
        let frame: Arc<[u8]> = vec![0; QUEUE_BYTES_MAX / 2].into();
        for _ in 0..5 {
            outgoing.push(frame.clone());
        }
        let mut sent = 0;
        while let Next::Frame(_) = outgoing.next() {
            sent += 1;
        }
        assert_eq!(sent, 2);
        assert!(matches!(outgoing.next(), Next::Empty), "the loss was reported by the last next");
    }

    #[test]
    fn other_versions_and_stores_are_refused_kindly() {
        let (store, ours) = (StoreId([1; 32]), Speaks::default());
        let hello = |speaks: &Speaks, store| {
            let addresses = vec!["/ip4/192.0.2.1".into(); 99];
            let hello = Hello { store, run: [0; 8], addresses };
            let frame = frame::encode(Kind::Hello, &speaks.encode(), &hello, &speaks.appended);
            frame::payload(&frame).to_vec()
        };
        let judge = |kind, bytes: &[u8]| judge_hello(kind, bytes, store, &ours);
        let reason = |judged| match judged {
            Err(End::Refused(reason)) => reason,
            _ => panic!("it is not refused"),
        };
        let good = judge(Kind::Hello, &hello(&ours, store)).ok().unwrap();
        assert_eq!(good.addresses.len(), ADDRESSES_MAX);
        let newest = ours.newest + 1;
        let longer = Speaks { newest, appended: b"more".to_vec(), ..ours.clone() };
        assert!(judge(Kind::Hello, &hello(&longer, store)).is_ok(), "it speaks ours too");
        let newer = Speaks { newest, oldest: newest, ..ours.clone() };
        match judge(Kind::Hello, &hello(&newer, StoreId([2; 32]))) {
            Err(End::OtherVersion(theirs)) => assert_eq!(theirs, newer),
            _ => panic!("it can't be understood"),
        }
        let other = reason(judge(Kind::Hello, &hello(&ours, StoreId([2; 32]))));
        assert!(other.contains("another store"), "{other}");
        let refusal = frame::encode(Kind::Refusal, &[], &"no\nway", &[]);
        let refusal = frame::payload(&refusal);
        assert_eq!(reason(judge(Kind::Refusal, refusal)), "it refuses us: no way");
        assert!(judge(Kind::Message, &hello(&ours, store)).is_err());
        assert!(judge(Kind::Hello, &[]).is_err());
    }

    #[test]
    fn message_of_a_later_version_is_passed_over() {
        assert_eq!(open_now(StoreId([1; 32]), &[99, 1, 2]), Ok(None));
        assert!(open_now(StoreId([1; 32]), &[0]).is_err());
    }
}
