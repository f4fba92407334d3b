//! Who may connect, and for what.
//!
//! Written by the swarm's loop only, so that all behaviours of one swarm see the same roster while a
//! connection is being established.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use libp2p::PeerId;
use pleach_core::vocabulary::MasterId;

use crate::ticket::Invitations;

/// What the peer of a connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Everything: it is a member.
    Member,
    /// Prove a ticket, no more, within seconds.
    Stranger,
    /// Nothing: this side dialled it to join its store.
    Inviter,
}

/// How new connections are judged.
#[derive(Clone)]
pub(super) enum Roster {
    /// In a running daemon.
    Store {
        /// The allow-list.
        members: Arc<Mutex<BTreeMap<PeerId, MasterId>>>,
        /// While one is open, strangers may connect.
        invitations: Arc<Mutex<Invitations>>,
    },
    /// While joining: only the inviter.
    Joining(PeerId),
}

impl Roster {
    /// The role of `peer`, or none if it may not connect. `now_unix` decides whether invitations
    /// are open.
    pub(super) fn role(&self, peer: &PeerId, now_unix: u64) -> Option<Role> {
        match self {
            Self::Joining(inviter) => (peer == inviter).then_some(Role::Inviter),
            Self::Store { members, .. } if lock(members).contains_key(peer) => Some(Role::Member),
            Self::Store { invitations, .. } => {
                lock(invitations).any_open(now_unix).then_some(Role::Stranger)
            }
        }
    }
}

/// Locks; a panic elsewhere leaves plain values as they are.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
