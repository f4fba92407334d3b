//! Opening: what a start begins with, and what an earlier run that was cut short left half done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::agenda::Agenda;
use super::copied::Copied;
use super::peers::Peers;
use super::problems::Problems;
use super::{Engine, Signer, Turn, gossip, guard};
use crate::replica::{OpenError as ReplicaError, Replica, Tree};
use crate::snapshot::forget_put_aside;
use crate::transfer::Transfer;
use crate::values::{Base, BaseError, BaseId, SignedChange, TreeView};
use crate::vocabulary::{
    ContentHash, Fingerprint, MasterId, NodeId, StoreId, VersionVector, WriterId,
};

/// The row of the effects in flight that says that all that is stored was copied to where it is, from a backup
/// or another machine: it may know of less than has been done to the disk. Whoever copied it, or finds that
/// out, sets it; the engine removes it.
pub const COPIED_HERE: u64 = u64::MAX - 1;

/// Who this engine is.
#[allow(missing_debug_implementations, reason = "it holds a key")]
pub struct Identity {
    /// The store.
    pub store: StoreId,
    /// The first master of the store, who is a member without an inviter.
    pub founder: MasterId,
    /// This master.
    pub master: MasterId,
    /// This start of it: never used before.
    pub writer: WriterId,
    /// Its key.
    pub signer: Box<dyn Signer>,
}

/// What an earlier run left behind; all empty for a new store.
#[derive(Debug, Default)]
pub struct Stored {
    /// The changes.
    pub changes: Changes,
    /// The rows of the base.
    pub base: Vec<(u64, Vec<u8>)>,
    /// The rows of the effects in flight.
    pub intents: Vec<(u64, Vec<u8>)>,
    /// What the parking area holds: the numbers of the effects' [`crate::values::ParkingId`]s.
    pub parked: BTreeSet<u64>,
    /// Contents that wait in the staging area.
    pub staged: BTreeSet<ContentHash>,
    /// Contents among the retained versions.
    pub retained: BTreeSet<ContentHash>,
    /// The objects that were put aside last, at least as many as a batch of effects has: the base may not
    /// know yet that something else has taken their place.
    pub put_aside: Vec<Fingerprint>,
}

/// The changes that were stored.
#[derive(Debug)]
pub enum Changes {
    /// As they were stored.
    Stored {
        /// The document as [`Replica::save`] gave it.
        snapshot: Option<Vec<u8>>,
        /// The changes logged after the snapshot, in order.
        log: Vec<SignedChange>,
    },
    /// As a replica that has read them already, and nothing else.
    Read(Box<Replica>),
}

impl Default for Changes {
    fn default() -> Self {
        Self::Stored { snapshot: None, log: Vec::new() }
    }
}

/// Why an engine can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The stored document or log is damaged.
    #[error("the stored changes can't be read")]
    Replica(#[from] ReplicaError),
    /// The stored base is damaged.
    #[error("the stored base can't be read")]
    Base(#[from] BaseError),
}

impl Engine {
    /// Opens an engine on what is durable.
    pub fn open(identity: Identity, stored: Stored) -> Result<Self, OpenError> {
        let replica = match stored.changes {
            Changes::Stored { snapshot, log } => {
                Replica::open(identity.writer, snapshot.as_deref(), log)?
            }
            Changes::Read(mut replica) => {
                replica.set_writer(identity.writer);
                *replica
            }
        };
        let mut base = Base::load(stored.base)?;
        let parked = stored.parked.into_iter().map(BaseId).filter(|&id| id != BaseId::ROOT);
        let parked: BTreeSet<BaseId> = parked.collect();
        for &id in &parked {
            // A crash came between a swap's two steps: it is not where the base has it, and not gone.
            if base.entry(id).is_some() {
                base.park(id);
            }
        }
        forget_put_aside(&mut base, replica.tree(), &stored.put_aside);
        let unparked = base.parked().filter(|id| !parked.contains(id)).collect();
        let mut disturbed: BTreeSet<BaseId> =
            stored.intents.iter().map(|(id, _)| BaseId(*id)).collect();
        let is_copied = disturbed.remove(&BaseId(COPIED_HERE));
        let copied = Copied::new(is_copied, &base, &replica);
        let touched = unrest(&base, replica.tree());
        Ok(Self {
            identity,
            replica,
            base,
            agenda: Agenda::default(),
            transfer: Transfer::new(stored.staged),
            peers: Peers::default(),
            problems: Problems::default(),
            turn: Turn::Idle,
            limits: super::projection::LIMITS,
            touched,
            ready: BTreeSet::new(),
            acted: BTreeSet::new(),
            halfway: false,
            stalled: BTreeSet::new(),
            doubted: BTreeMap::new(),
            blocked_with: BTreeMap::new(),
            postponed: BTreeMap::new(),
            retained: stored.retained,
            guard: guard::Guard::default(),
            late: BTreeMap::new(),
            disturbed,
            doubtful: BTreeMap::new(),
            copied,
            unparked,
            announced: VersionVector::new(),
            announced_problems: 0,
            projected: VersionVector::new(),
            conflicts: BTreeMap::new(),
            frozen: None,
            started: false,
            caught_up: false,
            unclear_until: None,
            held: gossip::Held::default(),
            looked_last: false,
            surveyed: Vec::new(),
            vanished: BTreeSet::new(),
            missed: BTreeMap::new(),
            surveys_started: 0,
            surveys_finished: 0,
            differed: BTreeMap::new(),
            unix_ms: 0,
            records: Vec::new(),
            queued: Vec::new(),
            outputs: VecDeque::new(),
        })
    }
}

/// The nodes for which something may have to be done, as far as the base goes.
fn unrest(base: &Base, tree: &Tree) -> BTreeSet<NodeId> {
    let listed = base.iter().flat_map(|(_, entry)| &entry.nodes).map(|seen| seen.node);
    // What was shown for an open version is not among the tree's nodes, neither before it is closed nor after.
    let closed = listed.filter(|&node| !tree.knows(node));
    let nodes = tree.nodes().chain(tree.shown_siblings()).chain(closed);
    nodes.filter(|&node| !is_at_rest(base, tree, node)).collect()
}

/// Whether nothing is to be done for a node, as far as the base goes: it is where the tree has it, and as
/// it is there, or in neither.
fn is_at_rest(base: &Base, tree: &impl TreeView, node: NodeId) -> bool {
    if base.formerly_of(node).next().is_some() {
        return false;
    }
    let known = base.by_node(node).and_then(|id| base.entry(id));
    let (view, known) = match (tree.entry(node), known) {
        (Some(view), Some(known)) => (view, known),
        (view, known) => return view.is_none() && known.is_none(),
    };
    base.by_node(view.parent) == Some(known.parent)
        && view.name == known.name
        && view.nodes == known.nodes
        && view.body == known.body
        && view.attributes == known.attributes
        && (!known.is_directory() || known.fingerprint.modified == known.body.mtime())
}
