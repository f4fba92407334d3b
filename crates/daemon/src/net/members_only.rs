//! A behaviour that only members get to see: of a stranger's connection the inner one never hears.

use std::collections::{BTreeMap, HashSet};
use std::task::{Context, Poll};

use either::Either;
use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};

use super::now_unix;
use super::roster::{Role, Roster};

pub(super) struct MembersOnly<B> {
    inner: B,
    roster: Roster,
    hidden: HashSet<ConnectionId>,
    shown: BTreeMap<PeerId, usize>,
}

impl<B> MembersOnly<B> {
    pub(super) fn new(inner: B, roster: Roster) -> Self {
        Self { inner, roster, hidden: HashSet::new(), shown: BTreeMap::new() }
    }

    pub(super) fn inner(&self) -> &B {
        &self.inner
    }

    pub(super) fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    fn hides(&mut self, id: ConnectionId, peer: &PeerId) -> bool {
        let hides = self.roster.role(peer, now_unix()) != Some(Role::Member);
        if hides {
            self.hidden.insert(id);
        }
        hides
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for MembersOnly<B> {
    type ConnectionHandler = Either<THandler<B>, dummy::ConnectionHandler>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if self.hides(id, &peer) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner.handle_established_inbound_connection(id, peer, local, remote).map(Either::Left)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if self.hides(id, &peer) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner
            .handle_established_outbound_connection(id, peer, address, role, port_use)
            .map(Either::Left)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        // The inner behaviour counts connections by what it is told: only those it sees.
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                if self.hidden.contains(&established.connection_id) {
                    return;
                }
                let shown = self.shown.entry(established.peer_id).or_default();
                let other_established = std::mem::replace(shown, *shown + 1);
                let seen = ConnectionEstablished { other_established, ..established };
                self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(seen));
            }
            FromSwarm::ConnectionClosed(closed) => {
                if self.hidden.remove(&closed.connection_id) {
                    return;
                }
                let shown = self.shown.entry(closed.peer_id).or_default();
                *shown = shown.saturating_sub(1);
                let remaining_established = *shown;
                if remaining_established == 0 {
                    self.shown.remove(&closed.peer_id);
                }
                let seen = ConnectionClosed { remaining_established, ..closed };
                self.inner.on_swarm_event(FromSwarm::ConnectionClosed(seen));
            }
            FromSwarm::AddressChange(change) if self.hidden.contains(&change.connection_id) => {}
            FromSwarm::ListenFailure(failure) if self.hidden.remove(&failure.connection_id) => {}
            FromSwarm::DialFailure(failure) if self.hidden.remove(&failure.connection_id) => {}
            other => self.inner.on_swarm_event(other),
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            Either::Left(event) => self.inner.on_connection_handler_event(peer, id, event),
            Either::Right(never) => match never {},
        }
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(context).map(|event| event.map_in(Either::Left))
    }
}
