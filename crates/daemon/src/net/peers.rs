//! The gate, and streams over named connections: a libp2p behaviour.
//!
//! A connection whose key has no [`Role`] is refused as soon as the key is known, before any protocol
//! runs. Strangers are few at a time, are offered the join protocol alone, and are cut off after
//! [`STRANGER_SECONDS_MAX`]. The library's own stream behaviour (libp2p-stream 0.5) can't tell roles
//! apart, nor open a stream on a chosen connection, and drops inbound streams when two come at once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use tokio::sync::oneshot;

use super::roster::{Role, Roster};

/// Messages between members.
pub(super) const SYNC: StreamProtocol = StreamProtocol::new("/pleach/sync/1");
/// Contents.
pub(super) const CONTENT: StreamProtocol = StreamProtocol::new("/pleach/content/1");
/// Proving a ticket.
pub(super) const JOIN: StreamProtocol = StreamProtocol::new("/pleach/join/1");

/// How many strangers may be connected at once.
pub(super) const STRANGERS_MAX: usize = 8;
/// How long a stranger may stay.
pub(super) const STRANGER_SECONDS_MAX: Duration = Duration::from_secs(20);
/// How many streams one connection may ask this side to open and wait for.
const OPENING_MAX: usize = 64;

/// Why a connection was refused at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    /// Its key is not in the member list.
    #[error("its key is not a member's, and no invitation is open")]
    NotAMember,
    /// There are [`STRANGERS_MAX`] already.
    #[error("too many strangers are connected at once")]
    TooManyStrangers,
}

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// The other side does not speak the protocol.
    #[error("the other side does not offer {0}")]
    Unsupported(StreamProtocol),
    /// The connection is gone, or did not answer.
    #[error("{0}")]
    Io(io::Error),
}

/// A stream that was asked for.
#[derive(Debug)]
pub(super) struct OpenStream {
    pub(super) protocol: StreamProtocol,
    pub(super) reply: oneshot::Sender<Result<Stream, OpenError>>,
}

/// A stream that the other side opened.
#[derive(Debug)]
pub(super) struct InboundStream {
    pub(super) peer: PeerId,
    pub(super) connection: ConnectionId,
    pub(super) role: Role,
    pub(super) protocol: StreamProtocol,
    pub(super) stream: Stream,
}

pub(super) struct Behaviour {
    roster: Roster,
    roles: HashMap<ConnectionId, Role>,
    strangers: BTreeMap<ConnectionId, PeerId>,
    queue: VecDeque<ToSwarm<InboundStream, OpenStream>>,
    now_unix: fn() -> u64,
}

impl Behaviour {
    pub(super) fn new(roster: Roster, now_unix: fn() -> u64) -> Self {
        let (roles, strangers) = (HashMap::new(), BTreeMap::new());
        Self { roster, roles, strangers, queue: VecDeque::new(), now_unix }
    }

    /// The role that was given to a connection when it was established.
    pub(super) fn role(&self, connection: ConnectionId) -> Option<Role> {
        self.roles.get(&connection).copied()
    }

    /// Opens a stream on `connection`. If the connection is gone, the reply is dropped.
    pub(super) fn open(&mut self, peer: PeerId, connection: ConnectionId, stream: OpenStream) {
        let handler = NotifyHandler::One(connection);
        self.queue.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event: stream });
    }

    fn admit(&mut self, id: ConnectionId, peer: PeerId) -> Result<Handler, ConnectionDenied> {
        let role = self.roster.role(&peer, (self.now_unix)());
        let role = role.ok_or_else(|| ConnectionDenied::new(Denied::NotAMember))?;
        if role == Role::Stranger {
            if self.strangers.len() >= STRANGERS_MAX {
                return Err(ConnectionDenied::new(Denied::TooManyStrangers));
            }
            self.strangers.insert(id, peer);
        }
        self.roles.insert(id, role);
        Ok(Handler::new(role))
    }

    fn forget(&mut self, id: ConnectionId) {
        self.roles.remove(&id);
        self.strangers.remove(&id);
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = InboundStream;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(id, peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(id, peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(closed) => self.forget(closed.connection_id),
            FromSwarm::DialFailure(failure) => self.forget(failure.connection_id),
            FromSwarm::ListenFailure(failure) => self.forget(failure.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        (protocol, stream): THandlerOutEvent<Self>,
    ) {
        // A connection without a role is being closed.
        let Some(role) = self.role(connection) else { return };
        let inbound = InboundStream { peer, connection, role, protocol, stream };
        self.queue.push_back(ToSwarm::GenerateEvent(inbound));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<InboundStream, THandlerInEvent<Self>>> {
        // Whoever adds to the queue holds the swarm, and polls it next: no waker is needed.
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Names of protocols to negotiate; the stream itself is the result.
#[derive(Clone, Debug)]
pub(super) struct Names(Vec<StreamProtocol>);

impl UpgradeInfo for Names {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Names {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((name, stream)))
    }
}

impl OutboundUpgrade<Stream> for Names {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((name, stream)))
    }
}

/// The streams of one connection.
pub(super) struct Handler {
    role: Role,
    asked: VecDeque<OpenStream>,
    inbound: VecDeque<(StreamProtocol, Stream)>,
}

impl Handler {
    fn new(role: Role) -> Self {
        Self { role, asked: VecDeque::new(), inbound: VecDeque::new() }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = OpenStream;
    type ToBehaviour = (StreamProtocol, Stream);
    type InboundProtocol = Names;
    type OutboundProtocol = Names;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenStream;

    fn listen_protocol(&self) -> SubstreamProtocol<Names, ()> {
        let names = match self.role {
            Role::Member => vec![SYNC, CONTENT, JOIN],
            Role::Stranger => vec![JOIN],
            Role::Inviter => vec![],
        };
        SubstreamProtocol::new(Names(names), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Names, OpenStream, (StreamProtocol, Stream)>> {
        // Both queues are filled by calls after which the connection polls again.
        if let Some(inbound) = self.inbound.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(inbound));
        }
        if let Some(asked) = self.asked.pop_front() {
            let names = Names(vec![asked.protocol.clone()]);
            let protocol = SubstreamProtocol::new(names, asked);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, stream: OpenStream) {
        // Dropping it beyond the bound tells the asker that it got none.
        if self.asked.len() < OPENING_MAX {
            self.asked.push_back(stream);
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Names, Names, (), OpenStream>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol, ..
            }) => self.inbound.push_back(protocol),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (_, stream),
                info,
            }) => {
                let _ = info.reply.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let error = match error {
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported(info.protocol),
                    StreamUpgradeError::Timeout => OpenError::Io(io::ErrorKind::TimedOut.into()),
                    StreamUpgradeError::Io(error) => OpenError::Io(error),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = info.reply.send(Err(error));
            }
            _ => {}
        }
    }
}
