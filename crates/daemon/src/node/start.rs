//! Starting a node: the store is opened, then the network, then the threads, each on what came before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use libp2p::Multiaddr;
use pleach_core::engine::{Changes, Engine, Identity, OpenError, Signer, Stored};
use pleach_core::replica::Replica;
use pleach_core::values::{ChangeId, Signature};
use pleach_core::vocabulary::{ContentHash, StoreId, WriterId};
use tokio::sync::{Notify, broadcast, mpsc};

use super::content::Contents;
use super::driver::{Chore, Clock, Driver, Facts, Job};
use super::hand::Hand;
use super::{
    Node, NodeHandle, forward, peer_problems, ports, progress, reading, recording, refusals,
    restore, tally, verify, waiting,
};
use crate::config::{Config, ReplicateOwner};
use crate::control;
use crate::disk::{
    Cleaner, Disk, DiskOptions, LateWriters, Owners, Retention, Root, SpecialBits, Watcher,
};
use crate::identity::MasterKey;
use crate::net::{Discovery, NetConfig, NetError, NetEvents, Network, Speaks};
use crate::state::{JOIN_AGAIN, MetaKey, State, StateError, StoredDocument};
use crate::store::{self, OpenStore, StoreError};
use crate::ticket::{Invitation, Invitations};

/// How many jobs wait for the driver at most.
const JOBS_MAX: usize = 1_024;
/// How many calls wait for the driver at most.
const CALLS_MAX: usize = 64;
/// How many events a slow listener may be behind.
const EVENTS_MAX: usize = control::EVENTS_BEHIND_MAX;

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory is no store, or something in its `.pleach` can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state database can't be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The stored changes or the base are damaged.
    #[error("{path}: {source}: restore .pleach whole from one backup, or {JOIN_AGAIN}", path = path.display())]
    Engine {
        /// The root.
        path: PathBuf,
        /// What is damaged.
        source: OpenError,
    },
    /// The network could not be set up.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The system refused.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
}

impl StartError {
    fn io(root: &Root, what: &'static str, source: impl Into<std::io::Error>) -> Self {
        Self::Io { what, path: root.path().to_owned(), source: source.into() }
    }
}

/// How a node is to be started.
#[derive(Debug)]
#[must_use = "nothing runs before `start`"]
pub struct NodeBuilder {
    dir: PathBuf,
    listen: Option<Vec<Multiaddr>>,
    discovery: Option<Discovery>,
    speaks: Speaks,
    replica: Option<Replica>,
}

impl NodeBuilder {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, listen: None, discovery: None, speaks: Speaks::default(), replica: None }
    }

    /// Where the store is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Listens there instead of where the settings say; with no address, where they say.
    pub fn listen(mut self, addresses: Vec<Multiaddr>) -> Self {
        self.listen = Some(addresses).filter(|addresses| !addresses.is_empty());
        self
    }

    /// Looks for members by multicast or not, whatever the settings say.
    pub fn discovery(mut self, discovery: Discovery) -> Self {
        self.discovery = Some(discovery);
        self
    }

    /// Speaks these versions of the protocol: for tests, which play a master of a later version.
    pub fn speaks(mut self, speaks: Speaks) -> Self {
        self.speaks = speaks;
        self
    }

    /// Goes on with what [`store::join`] has read, instead of reading it again. If something else is stored
    /// by now, that counts.
    pub fn replica(mut self, replica: Replica) -> Self {
        self.replica = Some(replica);
        self
    }

    /// Starts it. Must be called in a tokio runtime with several threads.
    pub async fn start(mut self) -> Result<Node, StartError> {
        let mut store = store::open(&self.dir)?;
        let root = store.root.clone();
        let mut disk = Disk::open(root.clone(), disk_options(&store.config))
            .map_err(|errno| StartError::io(&root, "can't work on", errno))?;
        let (engine, unsaved) = open_engine(&store, &disk, self.replica.take())?;
        let (jobs, jobs_out) = sync_channel(JOBS_MAX);
        let contents = Arc::new(Contents {
            root: root.clone(),
            staging: disk.staging().clone(),
            versions: disk.versions().clone(),
            jobs: jobs.clone(),
            arriving: Arc::default(),
        });
        let before = listened_before(&store.state)?;
        let fallback = if self.listen.is_some() { None } else { store.config.listen.fallback() };
        let net_config = self.net_config(&store, &engine, &contents)?;
        let (network, net_events) = start_network(net_config, &before, fallback).await?;
        note_listening(&mut store.state, &network)?;
        let (watcher, hints) = Watcher::start(&root).map_err(|problem| {
            StartError::io(&root, "can't watch", std::io::Error::other(problem.reason))
        })?;
        disk.hold_while_placing(hints.clone());
        let echoes = disk.echoes().clone();
        let listener = control::bind(root.path())
            .map_err(|source| StartError::io(&root, "can't make the control socket of", source))?;
        let (calls, calls_out) = mpsc::channel(CALLS_MAX);
        let (events, _) = broadcast::channel(EVENTS_MAX);
        tokio::spawn(control::serve(listener, calls.clone(), events.clone()));
        let handle = NodeHandle {
            jobs: jobs.clone(),
            calls,
            events: events.clone(),
            stop_requested: Arc::new(Notify::new()),
        };
        let (chores, chores_out) = channel();
        let (kept, kept_asked) = channel();
        let fault = Arc::new(OnceLock::new());
        let retention = Retention {
            age_max: store.config.versions_age,
            share_max: store.config.versions_share.0,
        };
        let parts = Parts {
            unsaved,
            chores,
            kept,
            network: network.clone(),
            contents: contents.clone(),
            fault: fault.clone(),
        };
        let driver = driver(store, engine, jobs_out, &handle, &disk, parts);
        let (stopping, writing) = (disk.stopping(), Arc::new(AtomicBool::new(false)));
        let hand = Hand {
            disk,
            watcher,
            chores: chores_out,
            jobs: jobs.clone(),
            limit_told: false,
            versions_watched: false,
            lost_told: false,
            writing: writing.clone(),
            cleaner: Cleaner::new(retention),
            late: LateWriters::default(),
        };
        let spawned =
            |source: std::io::Error| StartError::io(&root, "can't start a thread for", source);
        // What it does when the node stops need not come to an end.
        spawn("versions", move || contents.fetch_kept(&kept_asked)).map_err(spawned)?;
        let threads = vec![
            spawn("driver", move || driver.run()).map_err(spawned)?,
            spawn("hand", move || hand.run()).map_err(spawned)?,
        ];
        forward::forward(net_events, calls_out, (hints.clone(), stopping.clone()), echoes, &jobs);
        Ok(Node { handle, threads, network, stopping, writing, fault, hints })
    }

    fn net_config(
        &self,
        store: &OpenStore,
        engine: &Engine,
        contents: &Arc<Contents>,
    ) -> Result<NetConfig, StateError> {
        let mut members = engine.replica().members();
        for introduced in &store.introduction {
            if !members.iter().any(|member| member.master == introduced.master) {
                members.push(introduced.clone());
            }
        }
        let by_settings = if store.config.mdns { Discovery::Mdns } else { Discovery::Off };
        Ok(NetConfig {
            key: store.key.clone(),
            seed: store.seed,
            listen: self.listen.clone().unwrap_or_else(|| store.config.listen.addresses()),
            discovery: self.discovery.unwrap_or(by_settings),
            members,
            invitations: read_invitations(&store.state)?,
            source: contents.clone(),
            sink: contents.clone(),
            speaks: self.speaks.clone(),
        })
    }
}

/// Listens as `config` says, where it did `before` if that is one of several it may choose from; if all is
/// in use, at `fallback`.
async fn start_network(
    config: NetConfig,
    before: &[Multiaddr],
    fallback: Option<Vec<Multiaddr>>,
) -> Result<(Network, NetEvents), NetError> {
    let start = async |wanted: Vec<Multiaddr>| {
        let again = ports::as_before(&wanted, before);
        match Network::start(NetConfig { listen: again.clone(), ..config.clone() }).await {
            Err(NetError::PortInUse { .. }) if again != wanted => {
                Network::start(NetConfig { listen: wanted, ..config.clone() }).await
            }
            started => started,
        }
    };
    match (start(config.listen.clone()).await, fallback) {
        (Err(NetError::PortInUse { address }), Some(fallback)) => {
            tracing::warn!(%address, "in use; listening on a free port instead");
            start(fallback).await
        }
        (started, _) => started,
    }
}

/// What the driver has of the others.
struct Parts {
    unsaved: u64,
    chores: Sender<Chore>,
    kept: Sender<ContentHash>,
    network: Network,
    contents: Arc<Contents>,
    fault: Arc<OnceLock<String>>,
}

fn driver(
    store: OpenStore,
    engine: Engine,
    jobs: Receiver<Job>,
    handle: &NodeHandle,
    disk: &Disk,
    parts: Parts,
) -> Driver {
    let Parts { unsaved, chores, kept, network, contents, fault } = parts;
    let OpenStore { root, state, key, seed, store_name, master_name, config, introduction } = store;
    let facts = Facts {
        key,
        seed,
        store_name,
        name: master_name,
        root: root.path().to_owned(),
        advertise: config.advertise.iter().map(ToString::to_string).collect(),
        introduction,
        verifier: verify::Verifier {
            root,
            jobs: handle.jobs.clone(),
            running: false,
            healing: None,
        },
        rescan_interval: config.rescan_interval,
    };
    Driver {
        engine,
        state,
        jobs,
        hand: chores,
        network,
        durable: disk.durable().clone(),
        kept,
        runtime: tokio::runtime::Handle::current(),
        events: handle.events.clone(),
        facts,
        waiters: waiting::Waiters::default(),
        content_waiters: reading::ContentWaiters::default(),
        restorers: restore::Restorers::default(),
        clock: Clock::start(),
        isolated: false,
        last_seen: BTreeMap::new(),
        changes_since_snapshot: unsaved,
        refusals: refusals::Refusals::default(),
        stop_requested: handle.stop_requested.clone(),
        watch_problem: None,
        rule_problems: Vec::new(),
        peer_problems: peer_problems::PeerProblems::default(),
        addresses_told: None,
        rescan_at_ms: 0,
        surveyed: false,
        tally: tally::Tally::default(),
        progress: progress::Progress::new(disk.progress(), contents.arriving.clone()),
        contents,
        recording: recording::Recording::default(),
        applying: 0,
        stopping: disk.stopping(),
        fault,
    }
}

fn disk_options(config: &Config) -> DiskOptions {
    DiskOptions {
        owners: match config.replicate_owner {
            ReplicateOwner::Always => Owners::Replicate,
            ReplicateOwner::Never => Owners::Leave,
            ReplicateOwner::Auto if rustix::process::geteuid().is_root() => Owners::Replicate,
            ReplicateOwner::Auto => Owners::Leave,
        },
        special_bits: SpecialBits::Leave,
    }
}

/// Where this master listened when it last ran.
fn listened_before(state: &State) -> Result<Vec<Multiaddr>, StateError> {
    let texts: Vec<String> = state
        .meta(MetaKey::Listening)?
        .and_then(|bytes| postcard::from_bytes(&bytes).ok())
        .unwrap_or_default();
    Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
}

fn read_invitations(state: &State) -> Result<Invitations, StateError> {
    let mut invitations = Invitations::new();
    for (id, row) in state.invitations()? {
        match postcard::from_bytes::<Invitation>(&row) {
            Ok(row) => {
                invitations.insert(row);
            }
            // Whoever holds its ticket needs another one.
            Err(error) => tracing::warn!(?id, %error, "an invitation can't be read"),
        }
    }
    Ok(invitations)
}

fn note_listening(state: &mut State, network: &Network) -> Result<(), StateError> {
    let listening: Vec<_> = network.listen_addrs().iter().map(ToString::to_string).collect();
    let listening = postcard::to_allocvec(&listening).expect("texts can be encoded");
    match state.set_meta(&[(MetaKey::Listening, &listening)]) {
        Err(error) if error.is_lasting() => Err(error),
        // What has to be recorded is tried again; this is so that the port stays the same.
        Err(error) => {
            tracing::warn!(%error, "where this master listens could not be noted");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// The engine, and how many changes the saved document lacks.
fn open_engine(
    store: &OpenStore,
    disk: &Disk,
    read: Option<Replica>,
) -> Result<(Engine, u64), StartError> {
    let state = &store.state;
    let logged = state.log_vector()?;
    let (changes, unsaved) = match read.filter(|replica| *replica.version_vector() == logged) {
        Some(replica) => {
            let unsaved = state.log_position()? - state.snapshot_position()?;
            (Changes::Read(Box::new(replica)), unsaved)
        }
        None => {
            let StoredDocument { snapshot, log } = state.load_document()?;
            let unsaved = log.len() as u64;
            (Changes::Stored { snapshot, log }, unsaved)
        }
    };
    let stored = Stored {
        changes,
        base: state.load_base()?,
        intents: state.intents()?,
        parked: disk.parked(),
        // What was staged is verified again by being asked for.
        staged: BTreeSet::new(),
        retained: disk.versions().hashes(),
        put_aside: disk.versions().put_aside_last(),
    };
    let mut nonce = [0; 8];
    getrandom::fill(&mut nonce).map_err(|error| {
        let source = std::io::Error::other(error.to_string());
        StartError::io(&store.root, "no random numbers for", source)
    })?;
    let (key, id) = (&store.key, store.seed.store());
    let identity = Identity {
        store: id,
        founder: store.seed.founder,
        master: key.master(),
        writer: WriterId::new(key.master(), nonce),
        signer: Box::new(KeySigner { key: key.clone(), store: id }),
    };
    let engine = Engine::open(identity, stored)
        .map_err(|source| StartError::Engine { path: store.root.path().to_owned(), source })?;
    if *engine.replica().version_vector() != logged {
        // Lost writes: pages that are whole, of different days.
        let what = "the document and the log know of different changes".to_owned();
        return Err(StateError::Damaged { path: state.path().to_owned(), what }.into());
    }
    Ok((engine, unsaved))
}

struct KeySigner {
    key: MasterKey,
    store: StoreId,
}

impl Signer for KeySigner {
    fn sign(&self, id: ChangeId, bytes: &[u8]) -> Signature {
        self.key.sign_change(self.store, id, bytes.to_vec()).signature
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work)
}
