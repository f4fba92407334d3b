//! The network of a daemon: authenticated connections between the members of one store.
//!
//! It moves messages, signed changes and contents, and knows nothing of trees or disks. What it hands
//! up is authenticated: it came from a member, and each change in it bears its author's signature.
//! It is not judged: the gate of the core does that.
//!
//! ```text
//!   Network (handle) ──commands──▶ service (the swarm's one loop) ──▶ TCP, QUIC
//!        │                              │ streams
//!        │ messages                     ├──▶ session  one per peer: /pleach/sync/1
//!        └──────────────────────────────┤
//!          contents ──▶ fetch (lanes) ──┼──▶ /pleach/content/1 ──▶ serve (the other side)
//!                                       └──▶ join, handover   /pleach/join/1, the only one for strangers
//! ```
//!
//! Bounds: a message has at most `MESSAGE_BYTES_MAX` bytes; received messages that the driver has not
//! taken hold at most [`RECEIVED_BYTES_MAX`]; messages queued for one peer at most
//! [`QUEUE_BYTES_MAX`]: beyond it `Changes` are dropped and [`NetEvent::Overflowed`] says so.

mod chunks;
mod connections;
mod content;
mod events;
mod fetch;
mod frame;
mod gossip;
mod handover;
mod join;
mod lane;
mod listening;
mod members_only;
mod peers;
mod pipe;
mod reach;
mod roster;
mod runs;
mod serve;
mod service;
mod session;
mod shared;
mod speaks;
mod transport;
mod wire;

use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use libp2p::Multiaddr;
use pleach_core::values::{Member, Message};
use pleach_core::vocabulary::{ContentHash, MasterId};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

pub use pleach_core::transfer::SMALL_BYTES_MAX;

pub use self::content::{
    ContentRequest, ContentSink, ContentSource, FetchFailure, FinishError, OpenContent,
    PartialContent,
};
pub use self::events::NetEvents;
use self::fetch::Fetcher;
pub use self::handover::{Handover, HandoverError, HandoverPage, HandoverRequest};
pub use self::join::{JoinError, JoinOutcome, join};
use self::service::Command;
pub use self::session::QUEUE_BYTES_MAX;
use self::shared::Shared;
pub use self::speaks::Speaks;
pub use self::transport::TrafficCount;
use crate::identity::{MasterKey, StoreSeed};
use crate::ticket::{Invitation, Invitations, JoinRefusal};

/// The TCP and UDP port that a master listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 4747;
/// The largest message that travels by gossip; larger ones go over the streams to each peer.
pub const GOSSIP_BYTES_MAX: usize = 512 << 10;
/// How many bytes of received messages wait for the driver at most, over all peers.
pub const RECEIVED_BYTES_MAX: usize = 32 << 20;
/// How many bytes of small contents are handed up at once, but for the last of them.
pub const ARRIVED_BYTES_MAX: usize = 256 << 10;
/// How many events wait for the driver at most.
const EVENTS_MAX: usize = 256;
/// How many commands wait for the swarm's loop at most.
const COMMANDS_MAX: usize = 256;

/// Whether masters on the same network segment are looked for by multicast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// By multicast DNS, as a hint where members are; it tells the segment the master's key.
    Mdns,
    /// Not at all: addresses come from the member list.
    Off,
}

/// What a network needs to start.
#[allow(missing_debug_implementations, reason = "holds trait objects")]
#[derive(Clone)]
pub struct NetConfig {
    /// This master's key.
    pub key: MasterKey,
    /// The store.
    pub seed: StoreSeed,
    /// Where to listen; empty for nowhere. See [`default_listen`].
    pub listen: Vec<Multiaddr>,
    /// Whether to look for members by multicast.
    pub discovery: Discovery,
    /// The member list as last known; see [`Network::set_members`].
    pub members: Vec<Member>,
    /// The invitations, as persisted.
    pub invitations: Invitations,
    /// Where contents are sent from.
    pub source: Arc<dyn ContentSource>,
    /// Where received contents go.
    pub sink: Arc<dyn ContentSink>,
    /// Which versions of the protocol this side speaks.
    pub speaks: Speaks,
}

/// What the network tells the driver.
#[derive(Debug)]
pub enum NetEvent {
    /// A member is connected and speaks our version. The driver now sends it what it knows.
    Connected(MasterId),
    /// It is no longer; what was queued for it is lost.
    Disconnected(MasterId),
    /// A message of a member, its changes' signatures verified. One that came by gossip may be of a
    /// member that is not connected.
    Received(MasterId, Message),
    /// Something of, or for, this member was dropped: exchange version vectors with it.
    Overflowed(MasterId),
    /// A content is in the sink, verified.
    Fetched(ContentHash),
    /// Contents of at most [`SMALL_BYTES_MAX`] bytes each, verified; about [`ARRIVED_BYTES_MAX`] in all.
    Arrived(Vec<(ContentHash, Arc<[u8]>)>),
    /// A content could not be had.
    FetchFailed(ContentHash, FetchFailure),
    /// An invitation has changed: make the row durable, then answer.
    InvitationChanged {
        /// The new row.
        row: Invitation,
        /// To be answered once the row is durable.
        recorded: oneshot::Sender<()>,
    },
    /// Somebody has proven a ticket.
    JoinRequest(JoinRequest),
    /// Somebody who has just been let in asks for the log.
    Handover(HandoverRequest),
    /// Somebody was refused, or refuses us.
    Refused {
        /// Who, if known.
        who: Option<MasterId>,
        /// Why, in one sentence for people.
        reason: String,
    },
    /// This member is connected in turns from several daemons, which all have its key.
    Cloned(MasterId),
    /// This member hangs up on us before it says hello, again and again.
    ShutOut(MasterId),
    /// This member speaks no version of the protocol that we speak. Comes with each attempt to connect.
    OtherVersion(MasterId, Speaks),
    /// The addresses that others reach this master at have changed.
    Listening(Vec<Multiaddr>),
}

/// Somebody has proven a ticket and waits to be let in.
///
/// The driver makes `invitation` (now spent) and a signed member entry durable, calls
/// [`Network::set_members`], and then grants. Asked again by a member whose answer was lost, it grants
/// again. Left unanswered for a few seconds, the joiner is told that the store is busy.
#[derive(Debug)]
pub struct JoinRequest {
    /// The joiner's key.
    pub master: MasterId,
    /// What it wants to be called, at most 64 bytes without control characters.
    pub name: String,
    /// Where it can be reached, at most 16.
    pub addresses: Vec<String>,
    /// The invitation's row, spent by the joiner.
    pub invitation: Invitation,
    /// The answer.
    pub reply: oneshot::Sender<Result<JoinGrant, JoinRefusal>>,
}

/// What a joiner needs to begin. At most 60 KiB encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct JoinGrant {
    /// The members, the inviter and the joiner among them, at most 64.
    pub members: Vec<Member>,
    /// Whatever else the driver wants the joiner to have before its first sync: the settings.
    pub settings: Vec<u8>,
}

/// Why the network could not start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Somebody else listens there.
    #[error(
        "{address} is in use: stop the other program, or listen elsewhere with `--listen` or \
         `listen` in config.toml"
    )]
    PortInUse {
        /// The address.
        address: Multiaddr,
    },
    /// The address is of a kind that pleach does not speak.
    #[error(
        "can't listen on {address}: an address looks like /ip4/0.0.0.0/tcp/{DEFAULT_PORT} or \
         /ip4/0.0.0.0/udp/{DEFAULT_PORT}/quic-v1"
    )]
    UnsupportedAddress {
        /// The address.
        address: Multiaddr,
    },
    /// The system said no.
    #[error(
        "can't listen on {address}: {source}; is it an address of this machine (`ip address` lists \
         them), and a port that this user may take?"
    )]
    Listen {
        /// The address.
        address: Multiaddr,
        /// What it said.
        source: io::Error,
    },
    /// The transport could not be set up.
    #[error("the network could not be set up: {0}")]
    Setup(String),
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the message has {bytes} bytes; at most {} are allowed",
    pleach_core::values::MESSAGE_BYTES_MAX
)]
pub struct MessageTooLarge {
    bytes: usize,
}

/// Every address of this machine, TCP and QUIC, at `port`.
#[must_use]
pub fn default_listen(port: u16) -> Vec<Multiaddr> {
    [format!("/ip4/0.0.0.0/tcp/{port}"), format!("/ip4/0.0.0.0/udp/{port}/quic-v1")]
        .iter()
        .map(|text| text.parse().expect("a well-formed multiaddr"))
        .collect()
}

/// The running network. Cheap to clone; nothing here waits for a peer.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    fetcher: Arc<Fetcher>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Network({})", self.shared.me)
    }
}

impl Network {
    /// Listens, and connects to the members from now on. Must be called in a tokio runtime.
    pub async fn start(config: NetConfig) -> Result<(Self, NetEvents), NetError> {
        let (events_in, events) = events::channel(EVENTS_MAX, RECEIVED_BYTES_MAX);
        let (commands, commands_out) = mpsc::channel(COMMANDS_MAX);
        let mut run = [0; 8];
        getrandom::fill(&mut run).map_err(|error| NetError::Setup(error.to_string()))?;
        let shared = Arc::new(Shared::new(&config, events_in, run));
        let fetcher = Fetcher::new(shared.clone(), commands.clone(), config.sink.clone());
        let network = Self { shared, commands, fetcher };
        service::start(&network, config, commands_out).await?;
        Ok((network, events))
    }

    /// This master.
    #[must_use]
    pub fn me(&self) -> MasterId {
        self.shared.me
    }

    /// Which versions of the protocol this side speaks.
    #[must_use]
    pub fn speaks(&self) -> &Speaks {
        &self.shared.speaks
    }

    /// Sets who may connect, and where they may be found: the masters that
    /// [`crate::identity::admitted`] lets in. Others are disconnected; new ones are dialled at once.
    pub async fn set_members(&self, members: Vec<Member>) {
        let (done, finished) = oneshot::channel();
        if self.commands.send(Command::SetMembers(members, done)).await.is_ok() {
            let _ = finished.await;
        }
    }

    /// Sends to every member: by gossip if it is small enough, which relays it to those that are not
    /// connected to this master, else over the streams to those that are.
    pub fn broadcast(&self, message: &Message) -> Result<(), MessageTooLarge> {
        let frame = frame::encode_message(message, &self.shared.speaks.appended)?;
        if frame::payload(&frame).len() > GOSSIP_BYTES_MAX {
            self.shared.sessions.send_to_all(&frame);
            return Ok(());
        }
        let sent = self.commands.try_send(Command::Broadcast(frame));
        if let Err(TrySendError::Full(Command::Broadcast(frame))) = sent {
            self.shared.sessions.send_to_all(&frame);
        }
        Ok(())
    }

    /// Sends to one member. Lost if it is not connected, which [`NetEvent::Disconnected`] has said.
    pub fn send(&self, to: MasterId, message: &Message) -> Result<(), MessageTooLarge> {
        let frame = frame::encode_message(message, &self.shared.speaks.appended)?;
        self.shared.sessions.send(to, frame);
        Ok(())
    }

    /// Asks for contents. For each, [`NetEvent::Fetched`], [`NetEvent::FetchFailed`], or for one of at
    /// most [`SMALL_BYTES_MAX`] bytes [`NetEvent::Arrived`] follows; one that is under way already is not
    /// asked for twice. Whoever asks has room for all the small ones that have not arrived.
    pub fn fetch(&self, requests: Vec<ContentRequest>) {
        self.fetcher.fetch(requests);
    }

    /// The addresses that this master listens on, without loopback ones unless there are no others.
    #[must_use]
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.shared.reachable_addresses()
    }

    /// The members that are connected.
    #[must_use]
    pub fn connected(&self) -> Vec<MasterId> {
        self.shared.sessions.connected()
    }

    /// Lets strangers connect to prove this invitation, whose row is durable by now.
    pub fn invitation_opened(&self, row: Invitation) {
        self.shared.invitations().insert(row);
    }

    /// The invitations as they are now.
    #[must_use]
    pub fn invitations(&self) -> Invitations {
        self.shared.invitations().clone()
    }

    /// Forgets an invitation: whoever holds its ticket is a stranger.
    pub fn invitation_closed(&self, id: crate::ticket::InvitationId) {
        self.shared.invitations().remove(id);
    }

    /// How many bytes have been exchanged with each member since the start.
    #[must_use]
    pub fn traffic(&self) -> Vec<(MasterId, TrafficCount)> {
        self.shared.traffic()
    }

    /// Closes every connection and stops listening; returns when it is done, within a second.
    pub async fn shutdown(&self) {
        let (done, finished) = oneshot::channel();
        if self.commands.send(Command::Shutdown(done)).await.is_ok() {
            let _ = finished.await;
        }
    }
}

/// Seconds since 1970 by the wall clock.
fn now_unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
