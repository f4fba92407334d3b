//! What this master knows of the others: what they have, what is on their disks, who can be asked.

use std::collections::BTreeMap;

use crate::values::Problem;
use crate::vocabulary::{ContentHash, MasterId, VersionVector};

/// How often what is known is compared with every connected master: gossip is lossy by design.
const COMPARE_INTERVAL_MS: u64 = 15_000;

/// A connected master.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The changes it is known to have.
    pub known: VersionVector,
    /// The changes that are on its disk.
    pub projected: VersionVector,
    /// What of the tree can't be put on its disk at present: the first few problems.
    pub blocked: Vec<Problem>,
    /// How many such problems it has.
    pub blocked_total: u64,
    /// The heads it named with `known`, if its vector equalled ours then.
    pub heads: Option<ContentHash>,
    /// What it was last told to be known here when something of what it sent was missing.
    pub asked_with: Option<VersionVector>,
}

/// The connected masters.
#[derive(Debug, Default)]
pub(super) struct Peers {
    connected: BTreeMap<MasterId, Peer>,
    compare_at: Option<u64>,
}

impl Peers {
    pub(super) fn came(&mut self, now: u64, master: MasterId) {
        self.connected.insert(master, Peer::default());
        self.compare_at.get_or_insert(now + COMPARE_INTERVAL_MS);
    }

    pub(super) fn gone(&mut self, master: MasterId) -> bool {
        let was = self.connected.remove(&master).is_some();
        if self.connected.is_empty() {
            self.compare_at = None;
        }
        was
    }

    pub(super) fn get(&self, master: MasterId) -> Option<&Peer> {
        self.connected.get(&master)
    }

    pub(super) fn get_mut(&mut self, master: MasterId) -> Option<&mut Peer> {
        self.connected.get_mut(&master)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (MasterId, &Peer)> {
        self.connected.iter().map(|(&master, peer)| (master, peer))
    }

    pub(super) fn masters(&self) -> Vec<MasterId> {
        self.connected.keys().copied().collect()
    }

    /// Whether the moment has come to compare what is known with everybody.
    pub(super) fn compare_is_due(&mut self, now: u64) -> bool {
        match self.compare_at {
            Some(at) if at <= now => {
                self.compare_at = Some(now + COMPARE_INTERVAL_MS);
                true
            }
            _ => false,
        }
    }

    pub(super) fn timeout(&self) -> Option<u64> {
        self.compare_at
    }

    /// The connected masters in the order in which to ask them for a content: `author` first, then
    /// the others; rotated by the number of attempts that were in vain.
    pub(super) fn providers(&self, author: Option<MasterId>, attempts: u32) -> Vec<MasterId> {
        let mut order = self.masters();
        if let Some(position) = order.iter().position(|&master| Some(master) == author) {
            order[..=position].rotate_right(1);
        }
        if !order.is_empty() {
            let turns = attempts as usize % order.len();
            order.rotate_left(turns);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn author_is_asked_first_and_each_failure_asks_another() {
        let mut peers = Peers::default();
        for byte in 1..=3 {
            peers.came(0, MasterId([byte; 32]));
        }
        let first = |attempts| peers.providers(Some(MasterId([2; 32])), attempts)[0].0[0];
        assert_eq!([first(0), first(1), first(2), first(3)], [2, 1, 3, 2]);
    }

    #[test]
    fn comparing_is_due_from_time_to_time_while_anyone_is_connected() {
        let mut peers = Peers::default();
        assert_eq!(peers.timeout(), None);
        peers.came(0, MasterId([1; 32]));
        assert!(!peers.compare_is_due(1));
        assert!(peers.compare_is_due(COMPARE_INTERVAL_MS));
        assert!(!peers.compare_is_due(COMPARE_INTERVAL_MS + 1));
        assert!(peers.gone(MasterId([1; 32])));
        assert_eq!(peers.timeout(), None);
    }
}
