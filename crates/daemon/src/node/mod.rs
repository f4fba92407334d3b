//! The node: one running master, for embedders and for the daemon.
//!
//! ```text
//!              control socket        watcher
//!                    |                  |
//! network <----> driver <----> engine (pleach-core)
//!    |            |  \
//!    |          state  hand ----> disk
//!    +---- contents ----^
//! ```
//!
//! The driver is one thread that owns the engine and the state database; the hand is one thread that owns
//! the tree; the network runs on tokio. They speak through queues, and nobody waits for the driver but
//! those who ask it something.

mod answer;
mod conflicts;
mod content;
mod driver;
mod hand;
mod history;
mod membership;
mod outputs;
mod peer_problems;
mod ports;
mod progress;
mod recording;
mod refusals;
mod restore;
mod tally;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use libp2p::Multiaddr;
use pleach_core::engine::{Engine, Hint, Identity, Input, OpenError, Signer, Stored};
use pleach_core::values::{ChangeId, Signature};
use pleach_core::vocabulary::{StoreId, TreePath, WriterId};
use tokio::sync::{Notify, broadcast, mpsc, oneshot};

use crate::config::ReplicateOwner;
use crate::control::{self, Call, EventReport, Refusal, RefusalKind, Reply, Request};
use crate::disk::{
    Cleaner, Dirty, Disk, DiskOptions, Echoes, Hints, LateWriters, Owners, Retention, SpecialBits,
    VersionId, Watcher,
};
use crate::identity::{MasterKey, StoreSeed};
use crate::net::{Discovery, NetConfig, NetError, Network, Speaks};
use crate::state::{JOIN_AGAIN, MetaKey, State, StateError, StoredDocument};
use crate::store::{self, OpenStore, StoreError};
use crate::ticket::{Invitation, Invitations};
use content::Contents;
use driver::{Clock, Driver, Facts, Job};
use hand::Hand;

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

/// How a node is to be started.
#[derive(Debug)]
#[must_use = "nothing runs before `start`"]
pub struct NodeBuilder {
    dir: PathBuf,
    listen: Option<Vec<Multiaddr>>,
    discovery: Option<Discovery>,
    speaks: Speaks,
}

/// A running master. Dropping it stops it, without waiting.
#[derive(Debug)]
pub struct Node {
    handle: NodeHandle,
    threads: Vec<JoinHandle<()>>,
    network: Network,
    /// Cuts short what the hand is looking at.
    stopping: Arc<AtomicBool>,
    /// Whether the hand is writing to the tree.
    writing: Arc<AtomicBool>,
    fault: Arc<OnceLock<String>>,
    hints: Hints,
}

/// Speaks to a running node. Cheap to clone.
#[derive(Clone)]
pub struct NodeHandle {
    jobs: SyncSender<Job>,
    calls: mpsc::Sender<Call>,
    events: broadcast::Sender<EventReport>,
    stop_requested: Arc<Notify>,
}

impl std::fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeHandle")
    }
}

impl NodeHandle {
    /// Asks what a client of the control socket may ask, but for [`Request::Events`].
    pub async fn call(&self, request: Request) -> Result<Reply, Refusal> {
        let stopping = || Refusal::new(RefusalKind::Stopping, "the node is stopping");
        let (reply, answer) = oneshot::channel();
        self.calls.send(Call { request, reply }).await.map_err(|_| stopping())?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Everything that happens from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<EventReport> {
        self.events.subscribe()
    }

    /// Cuts this master off from all others, or ends that. For tests and demonstrations.
    pub async fn set_isolated(&self, isolated: bool) {
        let (done, finished) = oneshot::channel();
        let jobs = self.jobs.clone();
        let sent =
            tokio::task::spawn_blocking(move || jobs.send(Job::Isolate(isolated, done)).is_ok());
        if sent.await.unwrap_or(false) {
            let _ = finished.await;
        }
    }

    /// Waits until somebody has asked the node to stop over the control socket.
    pub async fn stop_requested(&self) {
        self.stop_requested.notified().await;
    }
}

impl Node {
    /// A node on the store in `dir`.
    pub fn builder(dir: impl Into<PathBuf>) -> NodeBuilder {
        NodeBuilder { dir: dir.into(), listen: None, discovery: None, speaks: Speaks::default() }
    }

    /// Speaks to this node.
    #[must_use]
    pub fn handle(&self) -> &NodeHandle {
        &self.handle
    }

    /// The addresses at which it can be reached.
    #[must_use]
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.network.listen_addrs()
    }

    /// Why it can't go on, if it can't: what it has recorded is not there any more. It then asks to be
    /// stopped ([`NodeHandle::stop_requested`]).
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        self.fault.get().map(String::as_str)
    }

    /// Tells whether the tree is being written to: a process that ends then leaves work to its next start.
    pub(crate) fn writing(&self) -> Arc<AtomicBool> {
        self.writing.clone()
    }

    /// Stops cleanly: what is being written to the tree is finished, what is being looked at is left, state
    /// is saved, connections are closed.
    pub async fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        let Self { handle, threads, network, hints, .. } = self;
        let stopped = tokio::task::spawn_blocking(move || {
            // The driver may have ended already.
            let _ = handle.jobs.send(Job::Stop);
            drop(handle);
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a thread of the node has panicked");
                }
            }
            // Whoever waits for hints finds that nobody takes them any more: a runtime that is dropped waits
            // for its blocking threads.
            hints.add(Dirty::RootGone);
        });
        network.shutdown().await;
        drop(network);
        if let Err(error) = stopped.await {
            tracing::error!(%error, "the node did not stop cleanly");
        }
    }
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

impl NodeBuilder {
    /// Listens there instead of where the settings say.
    pub fn listen(mut self, addresses: Vec<Multiaddr>) -> Self {
        self.listen = Some(addresses);
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

    /// Starts it. Must be called in a tokio runtime with several threads.
    pub async fn start(self) -> Result<Node, StartError> {
        let OpenStore { root, mut state, key, seed, store_name, master_name, config, introduction } =
            store::open(&self.dir)?;
        let disk_options = DiskOptions {
            owners: match config.replicate_owner {
                ReplicateOwner::Always => Owners::Replicate,
                ReplicateOwner::Never => Owners::Leave,
                ReplicateOwner::Auto if rustix::process::geteuid().is_root() => Owners::Replicate,
                ReplicateOwner::Auto => Owners::Leave,
            },
            special_bits: SpecialBits::Leave,
        };
        let retention =
            Retention { age_max: config.versions_age, share_max: config.versions_share.0 };
        let path = root.path().to_owned();
        let io = |what, source| StartError::Io { what, path: path.clone(), source };
        let mut disk =
            Disk::open(root.clone(), disk_options).map_err(|source| io("can't work on", source))?;
        let (jobs, jobs_out) = sync_channel(JOBS_MAX);
        let contents = Arc::new(Contents {
            root: root.clone(),
            staging: disk.staging().clone(),
            versions: disk.versions().clone(),
            jobs: jobs.clone(),
            arriving: Arc::default(),
        });
        let document = state.load_document()?;
        let replayed = document.log.len() as u64;
        let engine = open_engine(&state, document, &key, &seed, &disk, root.path())?;
        let invitations = read_invitations(&state)?;
        let mut members = engine.replica().members();
        for introduced in &introduction {
            if !members.iter().any(|member| member.master == introduced.master) {
                members.push(introduced.clone());
            }
        }
        let mut discovery = if config.mdns { Discovery::Mdns } else { Discovery::Off };
        discovery = self.discovery.unwrap_or(discovery);
        let net_config = |listen: Vec<Multiaddr>| NetConfig {
            key: key.clone(),
            seed,
            listen,
            discovery,
            members: members.clone(),
            invitations: invitations.clone(),
            source: contents.clone(),
            sink: contents.clone(),
            speaks: self.speaks.clone(),
        };
        let wanted = self.listen.clone().unwrap_or_else(|| config.listen.addresses());
        let fallback = if self.listen.is_some() { None } else { config.listen.fallback() };
        let before = listened_before(&state)?;
        let start = async |wanted: Vec<Multiaddr>| {
            let again = ports::as_before(&wanted, &before);
            match Network::start(net_config(again.clone())).await {
                Err(NetError::PortInUse { .. }) if again != wanted => {
                    Network::start(net_config(wanted)).await
                }
                started => started,
            }
        };
        let (network, net_events) = match (start(wanted).await, fallback) {
            (Err(NetError::PortInUse { address }), Some(fallback)) => {
                tracing::warn!(%address, "in use; listening on a free port instead");
                start(fallback).await?
            }
            (started, _) => started?,
        };
        let listening: Vec<_> = network.listen_addrs().iter().map(ToString::to_string).collect();
        let listening = postcard::to_allocvec(&listening).expect("texts can be encoded");
        match state.set_meta(&[(MetaKey::Listening, &listening)]) {
            Err(error) if error.is_lasting() => return Err(error.into()),
            // What has to be recorded is tried again; this is so that the port stays the same.
            Err(error) => tracing::warn!(%error, "where this master listens could not be noted"),
            Ok(()) => {}
        }
        let (watcher, hints) = Watcher::start(&root)
            .map_err(|problem| io("can't watch", std::io::Error::other(problem.reason)))?;
        disk.hold_while_placing(hints.clone());
        let echoes = disk.echoes().clone();
        let listener = control::bind(root.path())
            .map_err(|source| io("can't make the control socket of", source))?;
        let (calls, calls_out) = mpsc::channel(CALLS_MAX);
        let (events, _) = broadcast::channel(EVENTS_MAX);
        tokio::spawn(control::serve(listener, calls.clone(), events.clone()));
        let stop_requested = Arc::new(Notify::new());
        let (chores, chores_out) = channel();
        let (kept, kept_asked) = channel();
        let fault = Arc::new(OnceLock::new());
        let driver = Driver {
            engine,
            state,
            jobs: jobs_out,
            hand: chores,
            network: network.clone(),
            contents: contents.clone(),
            durable: disk.durable().clone(),
            kept,
            runtime: tokio::runtime::Handle::current(),
            events: events.clone(),
            facts: Facts {
                key,
                seed,
                store_name,
                name: master_name,
                root: root.path().to_owned(),
                advertise: config.advertise.iter().map(ToString::to_string).collect(),
                introduction,
                verifier: verify::Verifier {
                    root,
                    jobs: jobs.clone(),
                    running: false,
                    healing: None,
                },
                rescan_interval: config.rescan_interval,
            },
            waiters: answer::Waiters::default(),
            content_waiters: conflicts::ContentWaiters::default(),
            restorers: restore::Restorers::default(),
            clock: Clock::start(),
            isolated: false,
            last_seen: BTreeMap::new(),
            changes_since_snapshot: replayed,
            refusals: refusals::Refusals::default(),
            stop_requested: stop_requested.clone(),
            watch_problem: None,
            rule_problems: Vec::new(),
            peer_problems: peer_problems::PeerProblems::default(),
            addresses_told: None,
            rescan_at_ms: 0,
            surveyed: false,
            tally: tally::Tally::default(),
            progress: progress::Progress::new(disk.progress(), contents.arriving.clone()),
            recording: recording::Recording::default(),
            applying: 0,
            stopping: disk.stopping(),
            fault: fault.clone(),
        };
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
        // What it does when the node stops need not come to an end.
        spawn("versions", {
            let contents = contents.clone();
            move || contents.fetch_kept(&kept_asked)
        })
        .map_err(|source| io("can't start on", source))?;
        let threads = vec![
            spawn("driver", move || driver.run()).map_err(|source| io("can't start on", source))?,
            spawn("hand", move || hand.run()).map_err(|source| io("can't start on", source))?,
        ];
        forward(net_events, calls_out, hints.clone(), echoes, &jobs);
        let handle = NodeHandle { jobs, calls, events, stop_requested };
        Ok(Node { handle, threads, network, stopping, writing, fault, hints })
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// Takes events and calls to the driver. Each waits for its turn on a blocking thread, so that a busy
/// driver slows its senders down and nothing else.
fn forward(
    mut events: crate::net::NetEvents,
    mut calls: mpsc::Receiver<Call>,
    hints: Hints,
    echoes: Echoes,
    jobs: &SyncSender<Job>,
) {
    let hint_jobs = jobs.clone();
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Handle::current();
        loop {
            let dirty = runtime.block_on(hints.next());
            let (hints, late) = sorted(echoes.leave_out(dirty));
            let hints = (!hints.is_empty()).then(|| Job::Input(Input::Hints(hints)));
            let late = (!late.is_empty()).then(|| Job::LateWriters(late));
            if hints.into_iter().chain(late).any(|job| hint_jobs.send(job).is_err()) {
                return;
            }
        }
    });
    let net_jobs = jobs.clone();
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Handle::current();
        while let Some(event) = runtime.block_on(events.recv()) {
            if net_jobs.send(Job::Net(event)).is_err() {
                return;
            }
        }
    });
    let call_jobs = jobs.clone();
    tokio::task::spawn_blocking(move || {
        while let Some(call) = calls.blocking_recv() {
            if call_jobs.send(Job::Call(call)).is_err() {
                return;
            }
        }
    });
}

/// What is for the engine, and the versions that somebody writes to.
fn sorted(dirty: Vec<Dirty>) -> (Vec<Hint>, Vec<VersionId>) {
    let (mut hints, mut late) = (Vec::new(), Vec::new());
    for dirty in dirty {
        hints.push(match dirty {
            // A look finds out whether it is gone.
            Dirty::RootGone => Hint::Directory(TreePath::root()),
            Dirty::Overflow => Hint::Subtree(TreePath::root()),
            Dirty::Directory(path) => Hint::Directory(path),
            Dirty::Written(path) => Hint::Written(path),
            Dirty::Name(path) => Hint::Changed(path),
            Dirty::Removed(path) => Hint::Removed(path),
            Dirty::Renamed(from, to) => Hint::Renamed(from, to),
            Dirty::Late(version) => {
                late.push(version);
                continue;
            }
        });
    }
    (hints, late)
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

fn open_engine(
    state: &State,
    document: StoredDocument,
    key: &MasterKey,
    seed: &StoreSeed,
    disk: &Disk,
    root: &Path,
) -> Result<Engine, StartError> {
    let stored = Stored {
        snapshot: document.snapshot,
        log: document.log,
        base: state.load_base()?,
        intents: state.intents()?,
        parked: disk.parked(),
        // What was staged is verified again by being asked for.
        staged: BTreeSet::new(),
        retained: disk.versions().hashes(),
        put_aside: disk.versions().put_aside_last(),
    };
    let mut nonce = [0; 8];
    getrandom::fill(&mut nonce).map_err(|error| StartError::Io {
        what: "no random numbers for",
        path: root.to_owned(),
        source: std::io::Error::other(error.to_string()),
    })?;
    let store = seed.store();
    let identity = Identity {
        store,
        founder: seed.founder,
        master: key.master(),
        writer: WriterId::new(key.master(), nonce),
        signer: Box::new(KeySigner { key: key.clone(), store }),
    };
    let engine = Engine::open(identity, stored)
        .map_err(|source| StartError::Engine { path: root.to_owned(), source })?;
    if *engine.replica().version_vector() != state.log_vector()? {
        // Lost writes: pages that are whole, of different days.
        let what = "the document and the log know of different changes".to_owned();
        return Err(StateError::Damaged { path: state.path().to_owned(), what }.into());
    }
    Ok(engine)
}
