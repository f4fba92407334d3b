//! Links between masters: connections that come and go, streams in order, gossip that is lossy.
//!
//! It holds who is connected to whom and decides when something arrives; the world holds the queue of
//! what is under way. A connection needs both directions. Once one of them is cut, everything sent on the
//! connection is lost until both ends have noticed and connected anew.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::history::Profile;

/// An unordered pair of masters, the smaller first.
pub type Pair = (usize, usize);

/// The pair of two masters.
#[must_use]
pub fn pair(a: usize, b: usize) -> Pair {
    (a.min(b), a.max(b))
}

/// A number that tells a connection from the one before it.
pub type Epoch = u64;

#[derive(Clone, Debug)]
struct Connection {
    epoch: Epoch,
    /// Ends that think it is up.
    ends: BTreeSet<usize>,
    /// Something was lost on it: nothing arrives any more.
    broken: bool,
}

/// All links.
#[derive(Debug)]
pub struct Network {
    random: ChaCha8Rng,
    delay_us_max: u64,
    loss_percent: u32,
    /// Directed cuts and how many causes each has.
    cuts: BTreeMap<(usize, usize), u32>,
    connections: BTreeMap<Pair, Connection>,
    last_epoch: Epoch,
    /// When the last message on a directed stream arrives.
    arrivals_us: BTreeMap<(usize, usize), u64>,
}

impl Network {
    /// No connection, no cut.
    #[must_use]
    pub fn new(seed: u64, profile: &Profile) -> Self {
        Self {
            random: ChaCha8Rng::seed_from_u64(seed ^ 0x006e_6574),
            delay_us_max: profile.link_delay_us_max,
            loss_percent: profile.gossip_loss_percent,
            cuts: BTreeMap::new(),
            connections: BTreeMap::new(),
            last_epoch: 0,
            arrivals_us: BTreeMap::new(),
        }
    }

    /// From now on messages from one to the other get lost.
    pub fn cut(&mut self, from: usize, to: usize) {
        *self.cuts.entry((from, to)).or_default() += 1;
        if let Some(connection) = self.connections.get_mut(&pair(from, to)) {
            connection.broken = true;
        }
    }

    /// One cause for a cut is gone.
    pub fn mend(&mut self, from: usize, to: usize) {
        if let Some(causes) = self.cuts.get_mut(&(from, to)) {
            *causes = causes.saturating_sub(1);
        }
    }

    /// All cuts are gone, and gossip arrives.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.loss_percent = 0;
    }

    fn is_open(&self, from: usize, to: usize) -> bool {
        self.cuts.get(&(from, to)).is_none_or(|causes| *causes == 0)
    }

    /// Connects two masters if both directions are open and neither is connected already. The ends that
    /// did not know of an older connection, and those that did.
    pub fn connect(&mut self, a: usize, b: usize) -> Option<Vec<usize>> {
        if !self.is_open(a, b) || !self.is_open(b, a) {
            return None;
        }
        let old = self.connections.get(&pair(a, b));
        if old.is_some_and(|old| !old.broken && old.ends.len() == 2) {
            return None;
        }
        let knew = old.map(|old| old.ends.iter().copied().collect()).unwrap_or_default();
        self.last_epoch += 1;
        let ends = BTreeSet::from([a, b]);
        let connection = Connection { epoch: self.last_epoch, ends, broken: false };
        self.connections.insert(pair(a, b), connection);
        Some(knew)
    }

    /// One end learns that the connection is gone; whether it had thought otherwise.
    pub fn disconnect(&mut self, end: usize, other: usize, epoch: Epoch) -> bool {
        let Some(connection) = self.connections.get_mut(&pair(end, other)) else { return false };
        if connection.epoch != epoch {
            return false;
        }
        connection.broken = true;
        connection.ends.remove(&end)
    }

    /// A master died: its connections, which the other ends have yet to notice.
    pub fn died(&mut self, master: usize) -> Vec<(usize, Epoch)> {
        let mut others = Vec::new();
        for (&(a, b), connection) in &mut self.connections {
            if a == master || b == master {
                connection.broken = true;
                connection.ends.remove(&master);
                others.push((if a == master { b } else { a }, connection.epoch));
            }
        }
        others
    }

    /// The connection's number, if this end thinks it is connected to the other.
    #[must_use]
    pub fn epoch(&self, end: usize, other: usize) -> Option<Epoch> {
        let connection = self.connections.get(&pair(end, other))?;
        connection.ends.contains(&end).then_some(connection.epoch)
    }

    /// Whether the connection with this number carries messages.
    #[must_use]
    pub fn carries(&self, a: usize, b: usize, epoch: Epoch) -> bool {
        self.connections.get(&pair(a, b)).is_some_and(|connection| {
            connection.epoch == epoch && !connection.broken && connection.ends.len() == 2
        })
    }

    /// When the next message of a stream arrives, if it is sent now: after the ones before it.
    pub fn stream_arrival_us(&mut self, from: usize, to: usize, now_us: u64) -> u64 {
        let delayed = now_us + self.delay_us();
        let last = self.arrivals_us.entry((from, to)).or_default();
        *last = delayed.max(*last + 1);
        *last
    }

    /// Whom a gossiped message reaches through connections, and when: never in order, now and then
    /// twice, and not all of them.
    pub fn gossip_arrivals_us(&mut self, from: usize, now_us: u64) -> Vec<(usize, u64)> {
        let mut reached = BTreeSet::from([from]);
        let mut waiting = vec![from];
        while let Some(next) = waiting.pop() {
            for (&(a, b), connection) in &self.connections {
                let other = if a == next { b } else { a };
                let touches = a == next || b == next;
                let carries = !connection.broken && connection.ends.len() == 2;
                if touches && carries && reached.insert(other) {
                    waiting.push(other);
                }
            }
        }
        reached.remove(&from);
        let mut arrivals = Vec::new();
        for to in reached {
            if self.random.random_range(0..100) < self.loss_percent {
                continue;
            }
            arrivals.push((to, now_us + self.delay_us()));
            if self.random.random_range(0..20) == 0 {
                arrivals.push((to, now_us + self.delay_us()));
            }
        }
        arrivals
    }

    /// How long one message takes.
    pub fn delay_us(&mut self) -> u64 {
        50 + self.random.random_range(0..self.delay_us_max)
    }

    /// Any number below a bound, for what else is up to the network.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.random_range(0..bound)
    }
}
