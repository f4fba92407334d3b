//! What the tasks of one network share: who is a member, where this master listens, what has gone to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use pleach_core::vocabulary::{MasterId, StoreId};
use tokio::runtime::Handle;

use super::events::EventSender;
use super::roster::{Roster, lock};
use super::runs::{RunId, Runs};
use super::session::Sessions;
use super::transport::{TrafficBook, TrafficCount};
use super::{NetConfig, Speaks};
use crate::identity::StoreSeed;
use crate::ticket::Invitations;

/// What the tasks of one network share.
pub(super) struct Shared {
    pub(super) me: MasterId,
    pub(super) seed: StoreSeed,
    pub(super) store: StoreId,
    pub(super) events: EventSender,
    pub(super) sessions: Sessions,
    members: Arc<Mutex<BTreeMap<PeerId, MasterId>>>,
    invitations: Arc<Mutex<Invitations>>,
    listening: Mutex<BTreeSet<Multiaddr>>,
    traffic: TrafficBook,
    pub(super) speaks: Speaks,
    /// This start.
    pub(super) run: RunId,
    pub(super) runs: Mutex<Runs>,
    /// Where tasks run, also those that blocking threads start.
    pub(super) runtime: Handle,
}

impl Shared {
    pub(super) fn new(config: &NetConfig, events: EventSender, run: RunId) -> Self {
        Self {
            me: config.key.master(),
            seed: config.seed,
            store: config.seed.store(),
            events,
            sessions: Sessions::default(),
            members: Arc::default(),
            invitations: Arc::new(Mutex::new(config.invitations.clone())),
            listening: Mutex::default(),
            traffic: TrafficBook::default(),
            speaks: config.speaks.clone(),
            run,
            runs: Mutex::default(),
            runtime: Handle::current(),
        }
    }

    /// Who may connect, as it is at any time.
    pub(super) fn roster(&self) -> Roster {
        Roster::Store { members: self.members.clone(), invitations: self.invitations.clone() }
    }

    pub(super) fn set_members(&self, members: BTreeMap<PeerId, MasterId>) {
        members.keys().for_each(|peer| drop(self.traffic.of_member(*peer)));
        *lock(&self.members) = members;
    }

    /// Notes what has changed of where this master listens.
    pub(super) fn listening_changed(&self, change: impl FnOnce(&mut BTreeSet<Multiaddr>)) {
        change(&mut lock(&self.listening));
    }

    /// Counts what goes over connections.
    pub(super) fn traffic_book(&self) -> TrafficBook {
        self.traffic.clone()
    }

    pub(super) fn is_member_key(&self, master: MasterId) -> bool {
        lock(&self.members).values().any(|member| *member == master)
    }

    pub(super) fn invitations(&self) -> MutexGuard<'_, Invitations> {
        lock(&self.invitations)
    }

    pub(super) fn is_member(&self, peer: &PeerId) -> bool {
        lock(&self.members).contains_key(peer)
    }

    /// Where others can reach this master: loopback addresses only if there are no others.
    pub(super) fn reachable_addresses(&self) -> Vec<Multiaddr> {
        let all = lock(&self.listening);
        let (loopback, others): (Vec<_>, Vec<_>) = all.iter().cloned().partition(is_loopback);
        if others.is_empty() { loopback } else { others }
    }

    pub(super) fn traffic(&self) -> Vec<(MasterId, TrafficCount)> {
        let members = lock(&self.members);
        let counts =
            members.iter().map(|(peer, master)| (*master, self.traffic.of_member(*peer).count()));
        counts.collect()
    }
}

pub(super) fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}
