//! The members' connections that stand, and which of two to one peer is one too many.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use pleach_core::vocabulary::MasterId;

/// Two connections of one pair that are this close came of dialling each other at once.
const SIMULTANEOUS: Duration = Duration::from_secs(5);

/// The connections that stand.
#[derive(Default)]
pub(super) struct Connections(BTreeMap<ConnectionId, Connection>);

/// One of them.
pub(super) struct Connection {
    peer: PeerId,
    dialler: MasterId,
    since: Instant,
}

impl Connections {
    /// A connection to `peer` stands, which `dialler` asked for. Which one to close, if it is not the only
    /// one: of two that came of dialling each other both sides keep that of the smaller key. Of two that the
    /// peer dialled at once, at several of our addresses, it drops one itself, and which is not known here. Else
    /// the newer is kept, as the older may be half open.
    #[must_use]
    pub(super) fn opened(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        dialler: MasterId,
        now: Instant,
    ) -> Option<ConnectionId> {
        let others = self.0.iter().filter(|(_, connection)| connection.peer == peer);
        let last = others.max_by_key(|(_, connection)| connection.since);
        let surplus = last.and_then(|(&old_id, old)| match old.dialler.cmp(&dialler) {
            _ if now.duration_since(old.since) >= SIMULTANEOUS => Some(old_id),
            Ordering::Less => Some(id),
            Ordering::Equal => None,
            Ordering::Greater => Some(old_id),
        });
        self.0.insert(id, Connection { peer, dialler, since: now });
        surplus
    }

    /// A connection has ended; none if it was no member's.
    pub(super) fn closed(&mut self, id: ConnectionId) -> Option<Connection> {
        self.0.remove(&id)
    }

    /// Those of peers that are no members any more.
    pub(super) fn of_others_than(&self, is_member: impl Fn(&PeerId) -> bool) -> Vec<ConnectionId> {
        let others = self.0.iter().filter(|(_, connection)| !is_member(&connection.peer));
        others.map(|(&id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLER: MasterId = MasterId([1; 32]);
    const LARGER: MasterId = MasterId([2; 32]);

    #[test]
    fn of_two_connections_both_sides_close_the_same_one() {
        let (start, peer) = (Instant::now(), PeerId::random());
        let [first, second] = [1, 2].map(ConnectionId::new_unchecked);
        let moment = Duration::from_millis(10);
        let cases = [
            (SMALLER, LARGER, moment, Some(second)),
            (LARGER, SMALLER, moment, Some(first)),
            // The peer itself drops one of them.
            (LARGER, LARGER, moment, None),
            // The older may be half open, whoever dialled.
            (SMALLER, LARGER, SIMULTANEOUS, Some(first)),
            (LARGER, LARGER, SIMULTANEOUS, Some(first)),
        ];
        for (dialler, next_dialler, later, surplus) in cases {
            let mut connections = Connections::default();
            assert_eq!(connections.opened(first, peer, dialler, start), None);
            let other = connections.opened(
                ConnectionId::new_unchecked(3),
                PeerId::random(),
                dialler,
                start,
            );
            assert_eq!(other, None, "it is another's");
            let closed = connections.opened(second, peer, next_dialler, start + later);
            assert_eq!(closed, surplus, "{dialler:?}, then {next_dialler:?} {later:?} later");
        }
    }

    #[test]
    fn connections_of_who_was_removed_are_found_until_they_are_closed() {
        let [ours, theirs] = [1, 2].map(ConnectionId::new_unchecked);
        let [member, removed] = [PeerId::random(), PeerId::random()];
        let mut connections = Connections::default();
        for (id, peer) in [(ours, member), (theirs, removed)] {
            assert_eq!(connections.opened(id, peer, SMALLER, Instant::now()), None);
        }
        let is_member = |peer: &PeerId| *peer == member;
        assert_eq!(connections.of_others_than(is_member), [theirs]);
        assert!(connections.closed(theirs).is_some());
        assert!(connections.closed(theirs).is_none());
        assert_eq!(connections.of_others_than(is_member), []);
    }
}
