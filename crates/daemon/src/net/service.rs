//! The one loop that owns the swarm.
//!
//! It never waits for the driver or for a peer: what may wait (messages, contents, joins) runs in
//! tasks of its own. It ends on [`Command::Shutdown`] or when nobody takes events any more.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{
    ConnectionId, ListenError, NetworkBehaviour, Stream, StreamProtocol, SwarmEvent,
};
use libp2p::{Multiaddr, PeerId, Swarm, connection_limits, gossipsub, mdns, ping};
use pleach_core::values::Member;
use pleach_core::vocabulary::MasterId;
use tokio::sync::{mpsc, oneshot};

use super::connections::Connections;
use super::members_only::MembersOnly;
use super::peers::{self, InboundStream, OpenError, OpenStream};
use super::reach::{self, Reach};
use super::roster::Role;
use super::shared::is_loopback;
use super::{
    Discovery, NetConfig, NetError, NetEvent, Network, frame, gossip, join, listening, now_unix,
    serve, session, transport,
};
use crate::identity::{admitted, master_of};

/// How often a quiet connection is probed, and how long the answer may take.
const PING_SECONDS: Duration = Duration::from_secs(15);
/// How long closing may take.
const SHUTDOWN_MAX: Duration = Duration::from_millis(700);
/// How many gossiped messages wait to be verified.
const GOSSIPED_MAX: usize = 1024;
/// How many connections are in the handshake at once, and stand at once.
const PENDING_MAX: u32 = 32;
const ESTABLISHED_MAX: u32 = 128;
const ESTABLISHED_PER_PEER_MAX: u32 = 4;

/// What the rest of the network asks of the loop.
pub(super) enum Command {
    SetMembers(Vec<Member>, oneshot::Sender<()>),
    Broadcast(Arc<[u8]>),
    Open {
        peer: PeerId,
        connection: ConnectionId,
        stream: OpenStream,
    },
    Greeted {
        peer: PeerId,
        addresses: Vec<String>,
    },
    /// A member hung up before its hello, for what is known of the reason.
    ShutOut {
        peer: PeerId,
        master: MasterId,
        reason: String,
    },
    CloseConnection(ConnectionId),
    Dial {
        peer: PeerId,
        addresses: Vec<Multiaddr>,
    },
    Shutdown(oneshot::Sender<()>),
}

impl Network {
    /// Tells driver and log that somebody was refused, or refuses us.
    pub(super) fn refused(&self, who: Option<MasterId>, reason: String) {
        let name = who.map_or_else(|| "somebody".to_owned(), |master| master.to_string());
        tracing::debug!(peer = name, reason, "refused");
        self.shared.events.try_send(NetEvent::Refused { who, reason });
    }

    /// Opens a stream on a connection that stands.
    pub(super) async fn open(
        &self,
        peer: PeerId,
        connection: ConnectionId,
        protocol: StreamProtocol,
    ) -> Result<Stream, OpenError> {
        let gone = || OpenError::Io(io::ErrorKind::NotConnected.into());
        let (reply, opened) = oneshot::channel();
        let stream = OpenStream { protocol, reply };
        let command = Command::Open { peer, connection, stream };
        self.commands.send(command).await.map_err(|_| gone())?;
        opened.await.unwrap_or_else(|_| Err(gone()))
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    peers: peers::Behaviour,
    limits: connection_limits::Behaviour,
    gossip: MembersOnly<gossipsub::Behaviour>,
    ping: MembersOnly<ping::Behaviour>,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

/// Builds the swarm, listens, and spawns the loop.
pub(super) async fn start(
    network: &Network,
    config: NetConfig,
    commands: mpsc::Receiver<Command>,
) -> Result<(), NetError> {
    let shared = &network.shared;
    let key = config.key.to_libp2p();
    let me = key.public().to_peer_id();
    let transport = transport::build(&key, shared.traffic_book())
        .map_err(|error| NetError::Setup(error.to_string()))?;
    let roster = shared.roster();
    let mdns = match config.discovery {
        Discovery::Off => None,
        // Nobody else could reach it.
        Discovery::Mdns if config.listen.iter().all(is_loopback) => None,
        Discovery::Mdns => mdns::tokio::Behaviour::new(mdns::Config::default(), me)
            .inspect_err(|error| tracing::warn!(%error, "no multicast discovery"))
            .ok(),
    };
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_MAX))
        .with_max_established(Some(ESTABLISHED_MAX))
        .with_max_established_per_peer(Some(ESTABLISHED_PER_PEER_MAX));
    let ping = ping::Config::new().with_interval(PING_SECONDS).with_timeout(PING_SECONDS);
    let gossip = gossip::behaviour(&key, shared.store).map_err(NetError::Setup)?;
    let behaviour = Behaviour {
        peers: peers::Behaviour::new(roster.clone(), now_unix),
        limits: connection_limits::Behaviour::new(limits),
        gossip: MembersOnly::new(gossip, roster.clone()),
        ping: MembersOnly::new(ping::Behaviour::new(ping), roster),
        mdns: mdns.into(),
    };
    let swarm_config = libp2p::swarm::Config::with_tokio_executor();
    let mut swarm = Swarm::new(transport, behaviour, me, swarm_config);
    let listening = listening::listen(&mut swarm, &config.listen).await?;
    shared.listening_changed(|addresses| addresses.extend(listening));

    let (gossiped, gossiped_out) = mpsc::channel(GOSSIPED_MAX);
    tokio::spawn(take_gossip(network.clone(), gossiped_out));
    let mut service = Service {
        network: network.clone(),
        swarm,
        reach: Reach::new(shared.me),
        connections: Connections::default(),
        gossiped,
        serving: serve::Server::new(config.source),
    };
    service.set_members(&config.members);
    tokio::spawn(service.run(commands));
    Ok(())
}

/// A gossiped message that waits to be decoded and verified.
struct Gossiped {
    author: MasterId,
    bytes: Vec<u8>,
    room: tokio::sync::OwnedSemaphorePermit,
}

async fn take_gossip(network: Network, mut gossiped: mpsc::Receiver<Gossiped>) {
    while let Some(Gossiped { author, bytes, room }) = gossiped.recv().await {
        match session::open(network.shared.store, bytes).await {
            Ok(Some(message)) => {
                let received = NetEvent::Received(author, message);
                network.shared.events.send_holding(received, room).await;
            }
            Ok(None) => {}
            Err(reason) => network.refused(Some(author), reason),
        }
    }
}

struct Service {
    network: Network,
    swarm: Swarm<Behaviour>,
    reach: Reach,
    /// The members' connections.
    connections: Connections,
    gossiped: mpsc::Sender<Gossiped>,
    serving: serve::Server,
}

impl Service {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let events = self.network.shared.events.clone();
        loop {
            for (peer, addresses) in self.reach.take_due(Instant::now()) {
                self.dial(peer, addresses);
            }
            let due = self.reach.next_due();
            let next_dial = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                command = commands.recv() => match command {
                    Some(Command::Shutdown(done)) => {
                        self.close().await;
                        let _ = done.send(());
                        return;
                    }
                    Some(command) => self.on_command(command),
                    None => return,
                },
                () = next_dial => {}
                () = events.abandoned() => return self.close().await,
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::SetMembers(members, done) => {
                self.set_members(&members);
                let _ = done.send(());
            }
            Command::Broadcast(frame) => self.broadcast(&frame),
            Command::Open { peer, connection, stream } => {
                self.swarm.behaviour_mut().peers.open(peer, connection, stream);
            }
            Command::Greeted { peer, addresses } => {
                self.reach.greeted(&peer);
                for address in addresses.iter().filter_map(|text| reach::parse_address(text)) {
                    self.reach.hint(&peer, address, Instant::now());
                }
            }
            Command::ShutOut { peer, master, reason } => {
                if self.reach.shut_out(&peer) {
                    self.network.refused(Some(master), reason);
                }
                if self.reach.is_shut_out(&peer) {
                    self.network.shared.events.try_send(NetEvent::ShutOut(master));
                }
            }
            Command::CloseConnection(connection) => self.close_connection(connection),
            Command::Dial { peer, addresses } => self.dial_resolved(peer, addresses),
            Command::Shutdown(_) => {}
        }
    }

    fn set_members(&mut self, members: &[Member]) {
        let shared = self.network.shared.clone();
        let admitted = admitted(&shared.seed, members);
        let peers = reach::peers_of(members, &admitted, shared.me);
        let roster = peers.iter().map(|(peer, member)| (*peer, member.master)).collect();
        shared.set_members(roster);
        self.reach.set_members(&peers, Instant::now());
        for id in self.connections.of_others_than(|peer| shared.is_member(peer)) {
            self.close_connection(id);
        }
    }

    fn close_connection(&mut self, id: ConnectionId) {
        self.network.shared.sessions.close(id);
        self.swarm.close_connection(id);
    }

    /// Publishes; those who are connected but not yet subscribed get it by their stream.
    fn broadcast(&mut self, frame: &Arc<[u8]>) {
        let shared = &self.network.shared;
        let topic = gossip::topic(shared.store).hash();
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        let subscribed: BTreeSet<PeerId> = gossip
            .inner()
            .all_peers()
            .filter(|(_, topics)| topics.contains(&&topic))
            .map(|(peer, _)| *peer)
            .collect();
        let published = gossip.inner_mut().publish(topic, frame::payload(frame));
        match published {
            Ok(_) | Err(gossipsub::PublishError::Duplicate) => {
                shared.sessions.send_to_rest(frame, |peer| subscribed.contains(peer));
            }
            Err(_) => shared.sessions.send_to_all(frame),
        }
    }

    fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let named = |address: &Multiaddr| {
            let first = address.iter().next();
            matches!(first, Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)))
        };
        if !addresses.iter().any(named) {
            return self.dial_resolved(peer, addresses);
        }
        let commands = self.network.commands.clone();
        tokio::spawn(async move {
            let addresses = reach::resolve(addresses).await;
            let _ = commands.send(Command::Dial { peer, addresses }).await;
        });
    }

    fn dial_resolved(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses)
            .build();
        if self.swarm.dial(options).is_err() {
            self.reach.dial_failed(&peer, Instant::now());
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => {
                self.network.shared.sessions.close(connection_id);
                if self.connections.closed(connection_id).is_some() {
                    self.reach.disconnected(&peer_id, Instant::now());
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                tracing::debug!(%peer, %error, "dial failed");
                self.reach.dial_failed(&peer, Instant::now());
            }
            SwarmEvent::IncomingConnectionError { peer_id, error, send_back_addr, .. } => {
                self.on_incoming_refused(peer_id, &error, &send_back_addr);
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                self.listening_changed(|addresses| _ = addresses.insert(address));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listening_changed(|addresses| _ = addresses.remove(&address));
            }
            SwarmEvent::ListenerClosed { addresses, .. } => {
                self.listening_changed(|all| all.retain(|old| !addresses.contains(old)));
            }
            _ => {}
        }
    }

    fn listening_changed(&self, change: impl FnOnce(&mut BTreeSet<Multiaddr>)) {
        let shared = &self.network.shared;
        shared.listening_changed(change);
        shared.events.try_send(NetEvent::Listening(shared.reachable_addresses()));
    }

    fn on_incoming_refused(&self, peer: Option<PeerId>, error: &ListenError, from: &Multiaddr) {
        let ListenError::Denied { cause } = error else {
            tracing::debug!(%from, %error, "incoming connection failed");
            return;
        };
        let reason = match cause.downcast_ref::<peers::Denied>() {
            Some(denied) => denied.to_string(),
            None => cause.to_string(),
        };
        let who = peer.as_ref().and_then(master_of);
        self.network.refused(who, format!("connection from {from} refused: {reason}"));
    }

    fn on_established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        if self.swarm.behaviour().peers.role(id) != Some(Role::Member) {
            let network = self.network.clone();
            tokio::spawn(async move {
                tokio::time::sleep(peers::STRANGER_SECONDS_MAX).await;
                // Who has been let in meanwhile takes the log over.
                if !network.shared.is_member(&peer) {
                    let _ = network.commands.send(Command::CloseConnection(id)).await;
                }
            });
            return;
        }
        let Some(master) = self.reach.master(&peer) else {
            self.swarm.close_connection(id);
            return;
        };
        let me = self.network.shared.me;
        let dialler = if endpoint.is_dialer() { me } else { master };
        self.reach.connected(&peer);
        if let Some(surplus) = self.connections.opened(id, peer, dialler, Instant::now()) {
            self.close_connection(surplus);
            if surplus == id {
                return;
            }
        }
        if dialler == me {
            let network = self.network.clone();
            tokio::spawn(async move {
                match network.open(peer, id, peers::SYNC).await {
                    Ok(stream) => session::run(network, master, peer, id, stream).await,
                    Err(error) => {
                        let reason = format!(
                            "it closed the connection or does not speak our version ({error}): \
                             it may not know this master as a member"
                        );
                        let shut_out = Command::ShutOut { peer, master, reason };
                        let _ = network.commands.send(shut_out).await;
                        let _ = network.commands.send(Command::CloseConnection(id)).await;
                    }
                }
            });
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Peers(inbound) => self.on_inbound(inbound),
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            // One who joins again does not answer probes.
            BehaviourEvent::Ping(ping::Event {
                result: Err(ping::Failure::Unsupported), ..
            }) => {}
            BehaviourEvent::Ping(ping::Event { connection, result: Err(error), .. }) => {
                tracing::debug!(%error, "probe failed");
                self.close_connection(connection);
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, address) in found {
                    self.reach.hint(&peer, address, Instant::now());
                }
            }
            _ => {}
        }
    }

    fn on_inbound(&mut self, inbound: InboundStream) {
        let InboundStream { peer, connection, role, protocol, stream } = inbound;
        let Some(master) = master_of(&peer) else { return };
        let network = self.network.clone();
        if protocol == peers::JOIN {
            tokio::spawn(join::answer(network, master, connection, stream));
        } else if role != Role::Member || !network.shared.is_member(&peer) {
            self.swarm.close_connection(connection);
        } else if protocol == peers::SYNC {
            tokio::spawn(session::run(network, master, peer, connection, stream));
        } else if protocol == peers::CONTENT {
            self.serving.serve(network, master, stream);
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        let shared = &self.network.shared;
        match event {
            gossipsub::Event::Message { message, .. } => {
                let author = message.source.filter(|peer| shared.is_member(peer));
                let Some(author) = author.as_ref().and_then(master_of) else { return };
                // Better to lose it than to let the swarm wait: version vectors repair.
                let lost = match shared.events.room_now(message.data.len()) {
                    None => true,
                    Some(room) => {
                        let bytes = message.data;
                        self.gossiped.try_send(Gossiped { author, bytes, room }).is_err()
                    }
                };
                if lost {
                    shared.events.try_send(NetEvent::Overflowed(author));
                }
            }
            gossipsub::Event::SlowPeer { peer_id, .. } => {
                if let Some(master) = self.reach.master(&peer_id) {
                    shared.events.try_send(NetEvent::Overflowed(master));
                }
            }
            _ => {}
        }
    }

    async fn close(mut self) {
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let drained = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.next().await;
            }
        };
        let _ = tokio::time::timeout(SHUTDOWN_MAX, drained).await;
        self.network.shared.events.stop();
    }
}
