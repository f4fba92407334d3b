//! Transfer: which contents this master still lacks, what for, and whom to ask next.
//!
//! A content is wanted by nodes that can't be projected without it, or because it is an open conflict's
//! version, which every master retains (R9). Small contents, whether they come with the changes that name
//! them or are fetched, wait here in memory for their effect, within a bound: as files of their own they
//! would be written and renamed twice. Large ones are staged on the disk as they arrive.
//!
//! No content is asked of a master more than once at a time, and a failure waits before the next try.

mod at_hand;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use at_hand::AtHand;

use crate::vocabulary::{ContentHash, NodeId, TreePath};

/// How many bytes of small contents wait in memory for their effect, those under way to here included.
const INLINE_BYTES_MAX: u64 = 16 << 20;
/// A larger content is staged as it arrives, instead of waiting in memory.
pub const SMALL_BYTES_MAX: u64 = 64 << 10;
/// How many contents are asked for at once: they travel in a few streams, not one by one.
const IN_FLIGHT_MAX: usize = 4096;
/// How many bytes of large contents are asked for at once, beyond the first.
const IN_FLIGHT_BYTES_MAX: u64 = 1 << 30;
const RETRY_DELAY_MS_FIRST: u64 = 200;
const RETRY_DELAY_MS_MAX: u64 = 30_000;
/// How long it is at most until what this disk did not take is tried again: that costs nobody else.
const RETRY_HERE_MS_MAX: u64 = 10_000;

/// What a content is wanted for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Want {
    size: u64,
    old_version: Option<TreePath>,
    nodes: BTreeSet<NodeId>,
    /// Nodes of which it is an open conflict's version.
    conflicts: BTreeSet<NodeId>,
    state: WantState,
    attempts: u32,
    /// Its place among the wants.
    order: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum WantState {
    #[default]
    Idle,
    InFlight,
    RetryAt(u64),
}

/// Whether a content waits in memory or on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    Small,
    Large,
}

impl Weight {
    fn of(size: u64) -> Self {
        if size <= SMALL_BYTES_MAX { Self::Small } else { Self::Large }
    }
}

/// What is asked for and has not arrived.
#[derive(Clone, Copy, Debug, Default)]
struct InFlight {
    count: usize,
    bytes: u64,
}

impl InFlight {
    fn takes_off(&mut self, size: u64) {
        self.count += 1;
        self.bytes += size;
    }

    fn lands(&mut self, size: u64) {
        self.count -= 1;
        self.bytes -= size;
    }
}

/// A content to ask for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its hash.
    pub hash: ContentHash,
    /// Its size in bytes.
    pub size: u64,
    /// Where an older version of it stands on this disk.
    pub old_version: Option<TreePath>,
    /// How often it has been asked for in vain: rotates the providers.
    pub attempts: u32,
}

/// What a content that arrived was wanted for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Nodes that can be projected now.
    pub nodes: BTreeSet<NodeId>,
    /// Whether it is to be kept among the versions.
    pub retain: bool,
}

/// The contents that this master lacks, and those that wait to be put in place.
#[derive(Debug, Default)]
pub struct Transfer {
    /// What is here already.
    pub at_hand: AtHand,
    wants: BTreeMap<ContentHash, Want>,
    wanted_bytes: u64,
    /// Wants in state `Idle`, the small ones first, each in the order in which they were first wanted: what
    /// is planned together arrives together.
    idle: BTreeSet<(Weight, u64, ContentHash)>,
    /// How many contents have been wanted so far.
    wanted_ever: u64,
    /// Wants in state `RetryAt`, by their time.
    retries: BTreeSet<(u64, ContentHash)>,
    by_node: BTreeMap<NodeId, ContentHash>,
    by_conflict: BTreeMap<NodeId, BTreeSet<ContentHash>>,
    small: InFlight,
    large: InFlight,
    stopped: Vec<ContentHash>,
}

impl Transfer {
    /// Nothing wanted; `staged` are the contents that an earlier run fetched and did not place.
    #[must_use]
    pub fn new(staged: BTreeSet<ContentHash>) -> Self {
        Self { at_hand: AtHand::staged_before(staged), ..Self::default() }
    }

    /// Keeps a content that came with a change, if there is room: without, it is fetched like any other.
    /// Its hash must have been checked.
    pub fn offer(&mut self, hash: ContentHash, bytes: Vec<u8>) {
        // Of nothing there is nothing to keep: an empty file needs no content.
        if bytes.is_empty() {
            return;
        }
        let waiting = self.at_hand.inline_bytes() + self.small.bytes;
        if waiting + bytes.len() as u64 <= INLINE_BYTES_MAX {
            self.at_hand.keep(hash, bytes.into());
        }
    }

    /// Contents in the staging area that nothing wants; they don't count as staged any more.
    #[must_use = "they are still there"]
    pub fn take_unwanted_staged(&mut self) -> BTreeSet<ContentHash> {
        self.at_hand.take_unwanted_staged(|hash| self.wants.contains_key(hash))
    }

    /// `node` can't be projected without this content. It waits for no other any more.
    pub fn want(
        &mut self,
        node: NodeId,
        hash: ContentHash,
        size: u64,
        old_version: Option<TreePath>,
    ) {
        if self.by_node.get(&node) == Some(&hash) {
            return;
        }
        self.unwant(node);
        self.by_node.insert(node, hash);
        let want = self.entry(hash, size);
        want.nodes.insert(node);
        if old_version.is_some() {
            want.old_version = old_version;
        }
    }

    /// These contents, with their sizes, are to be retained as versions of the conflicts of `node`;
    /// those that were wanted for it before and are not among them are no version of it any more.
    pub fn want_retained(&mut self, node: NodeId, contents: &BTreeMap<ContentHash, u64>) {
        for (&hash, &size) in contents {
            self.entry(hash, size).conflicts.insert(node);
        }
        let wanted: BTreeSet<ContentHash> = contents.keys().copied().collect();
        let before = if wanted.is_empty() {
            self.by_conflict.remove(&node)
        } else {
            self.by_conflict.insert(node, wanted)
        };
        for hash in before.unwrap_or_default() {
            if !contents.contains_key(&hash)
                && let Some(want) = self.wants.get_mut(&hash)
            {
                want.conflicts.remove(&node);
                self.drop_unwanted(hash);
            }
        }
    }

    /// This content is not to be retained for `node` any more.
    pub fn unwant_retained(&mut self, node: NodeId, hash: ContentHash) {
        if let Some(hashes) = self.by_conflict.get_mut(&node) {
            hashes.remove(&hash);
        }
        if let Some(want) = self.wants.get_mut(&hash) {
            want.conflicts.remove(&node);
            self.drop_unwanted(hash);
        }
    }

    /// This content was at hand and could not be retained as a version of a conflict of `node`: it is asked
    /// for after a while, in case the disk takes it then.
    pub fn want_retained_later(&mut self, node: NodeId, hash: ContentHash, size: u64, now_ms: u64) {
        self.by_conflict.entry(node).or_default().insert(hash);
        let want = self.entry(hash, size);
        want.conflicts.insert(node);
        if want.state == WantState::Idle {
            let at = now_ms + RETRY_HERE_MS_MAX;
            want.state = WantState::RetryAt(at);
            let order = want.order;
            self.idle.remove(&(Weight::of(size), order, hash));
            self.retries.insert((at, hash));
        }
    }

    fn entry(&mut self, hash: ContentHash, size: u64) -> &mut Want {
        self.wants.entry(hash).or_insert_with(|| {
            let order = self.wanted_ever;
            self.wanted_ever += 1;
            self.idle.insert((Weight::of(size), order, hash));
            self.wanted_bytes += size;
            Want { size, order, ..Want::default() }
        })
    }

    fn forget(&mut self, hash: ContentHash) -> Option<Want> {
        let want = self.wants.remove(&hash)?;
        self.wanted_bytes -= want.size;
        match want.state {
            WantState::Idle => {
                self.idle.remove(&(Weight::of(want.size), want.order, hash));
            }
            WantState::RetryAt(at) => {
                self.retries.remove(&(at, hash));
            }
            WantState::InFlight => self.landed(want.size),
        }
        Some(want)
    }

    /// `node` waits for nothing any more.
    pub fn unwant(&mut self, node: NodeId) {
        let Some(hash) = self.by_node.remove(&node) else { return };
        let Some(want) = self.wants.get_mut(&hash) else { return };
        want.nodes.remove(&node);
        self.drop_unwanted(hash);
    }

    fn drop_unwanted(&mut self, hash: ContentHash) {
        let Some(want) = self.wants.get(&hash) else { return };
        if want.nodes.is_empty() && want.conflicts.is_empty() {
            if want.state == WantState::InFlight || want.attempts > 0 {
                self.stopped.push(hash);
            }
            self.forget(hash);
        }
    }

    fn landed(&mut self, size: u64) {
        match Weight::of(size) {
            Weight::Small => self.small.lands(size),
            Weight::Large => self.large.lands(size),
        }
    }

    /// A content has arrived in memory, its hash checked; says what it was wanted for. One that nobody
    /// wants any more is dropped.
    pub fn arrived_inline(&mut self, hash: ContentHash, bytes: Arc<[u8]>) -> Arrival {
        if self.wants.contains_key(&hash) {
            self.at_hand.keep(hash, bytes);
        }
        self.satisfied(hash)
    }

    /// A content has arrived and is staged; says what it was wanted for.
    pub fn arrived(&mut self, hash: ContentHash) -> Arrival {
        self.at_hand.stage(hash);
        self.satisfied(hash)
    }

    /// A content is at hand, staged or not; says what it was wanted for.
    pub fn satisfied(&mut self, hash: ContentHash) -> Arrival {
        let Some(want) = self.forget(hash) else { return Arrival::default() };
        for node in &want.nodes {
            self.by_node.remove(node);
        }
        for node in &want.conflicts {
            if let Some(hashes) = self.by_conflict.get_mut(node) {
                hashes.remove(&hash);
            }
        }
        Arrival { nodes: want.nodes, retain: !want.conflicts.is_empty() }
    }

    /// A content could not be had; it is tried again after a while. How often that has been so is
    /// returned, with a node that waits for it or has it in a conflict.
    pub fn failed(&mut self, hash: ContentHash, now_ms: u64) -> Option<(u32, NodeId)> {
        self.failed_for(hash, now_ms, RETRY_DELAY_MS_MAX)
    }

    /// The same of a content that this disk did not take; a node that waits for it or has it in a conflict.
    pub fn not_taken(&mut self, hash: ContentHash, now_ms: u64) -> Option<NodeId> {
        self.failed_for(hash, now_ms, RETRY_HERE_MS_MAX).map(|(_, node)| node)
    }

    fn failed_for(
        &mut self,
        hash: ContentHash,
        now_ms: u64,
        delay_ms_max: u64,
    ) -> Option<(u32, NodeId)> {
        let want = self.wants.get_mut(&hash)?;
        if want.state != WantState::InFlight {
            return None;
        }
        let node = want.nodes.first().or_else(|| want.conflicts.first()).copied();
        want.attempts += 1;
        let delay = RETRY_DELAY_MS_FIRST << want.attempts.min(10);
        let at = now_ms + delay.min(delay_ms_max);
        want.state = WantState::RetryAt(at);
        let (size, attempts) = (want.size, want.attempts);
        self.retries.insert((at, hash));
        self.landed(size);
        Some((attempts, node?))
    }

    /// Nodes of whose conflicts the lacking content is a version.
    #[must_use]
    pub fn conflicts_of(&self, hash: &ContentHash) -> Vec<NodeId> {
        self.wants.get(hash).into_iter().flat_map(|want| &want.conflicts).copied().collect()
    }

    /// Whether the content is still lacking.
    #[must_use]
    pub fn is_wanted(&self, hash: &ContentHash) -> bool {
        self.wants.contains_key(hash)
    }

    /// The content that a node waits for.
    #[must_use]
    pub fn wanted_by(&self, node: NodeId) -> Option<ContentHash> {
        self.by_node.get(&node).copied()
    }

    /// A master came: what failed is worth another try at once.
    pub fn retry_now(&mut self) {
        self.retry_until(u64::MAX);
    }

    fn retry_until(&mut self, now_ms: u64) {
        while let Some(&(at, hash)) = self.retries.first()
            && at <= now_ms
        {
            self.retries.pop_first();
            if let Some(want) = self.wants.get_mut(&hash) {
                want.state = WantState::Idle;
                self.idle.insert((Weight::of(want.size), want.order, hash));
            }
        }
    }

    /// What to ask for now. Everything returned is in flight from here on.
    pub fn requests(&mut self, now_ms: u64) -> Vec<Request> {
        self.retry_until(now_ms);
        let mut requests = Vec::new();
        self.request(Weight::Small, &mut requests);
        self.request(Weight::Large, &mut requests);
        requests
    }

    fn request(&mut self, weight: Weight, requests: &mut Vec<Request>) {
        let (first, last) = (ContentHash([0; 32]), ContentHash([0xff; 32]));
        let idle = self.idle.range((weight, 0, first)..=(weight, u64::MAX, last));
        let (in_flight, waiting) = match weight {
            Weight::Small => (&mut self.small, self.at_hand.inline_bytes()),
            Weight::Large => (&mut self.large, 0),
        };
        let mut asked = Vec::new();
        for &(_, order, hash) in idle {
            let want = self.wants.get_mut(&hash).expect("every idle content is wanted");
            let bytes = in_flight.bytes.saturating_add(want.size);
            let room = match weight {
                // What arrives has room to wait.
                Weight::Small => waiting + bytes <= INLINE_BYTES_MAX,
                Weight::Large => in_flight.count == 0 || bytes <= IN_FLIGHT_BYTES_MAX,
            };
            if !room || in_flight.count >= IN_FLIGHT_MAX {
                break;
            }
            asked.push((order, hash));
            want.state = WantState::InFlight;
            in_flight.takes_off(want.size);
            requests.push(Request {
                hash,
                size: want.size,
                old_version: want.old_version.clone(),
                attempts: want.attempts,
            });
        }
        for (order, hash) in asked {
            self.idle.remove(&(weight, order, hash));
        }
    }

    /// Contents in flight, or partly fetched, that nobody wants any more, since the last call.
    pub fn take_stopped(&mut self) -> Vec<ContentHash> {
        std::mem::take(&mut self.stopped)
    }

    /// When the next failed content is worth another try.
    #[must_use]
    pub fn timeout(&self) -> Option<u64> {
        self.retries.first().map(|&(at, _)| at)
    }

    /// How many contents have been wanted so far.
    #[must_use]
    pub fn wanted_ever(&self) -> u64 {
        self.wanted_ever
    }

    /// How many contents are wanted, and how many bytes they have.
    #[must_use]
    pub fn outstanding(&self) -> (u64, u64) {
        (self.wants.len() as u64, self.wanted_bytes)
    }

    /// Whether some node can't be projected for want of a content. A conflict's version that is still
    /// to be retained holds nothing up: its author may have overwritten it before anyone could ask.
    #[must_use]
    pub fn is_holding_up(&self) -> bool {
        !self.by_node.is_empty()
    }

    /// Contents that have failed at least once, and how often.
    pub fn failing(&self) -> impl Iterator<Item = (ContentHash, &BTreeSet<NodeId>, u32)> {
        self.wants
            .iter()
            .filter(|(_, want)| want.attempts > 0)
            .map(|(&hash, want)| (hash, &want.nodes, want.attempts))
    }
}

#[cfg(test)]
mod tests;
