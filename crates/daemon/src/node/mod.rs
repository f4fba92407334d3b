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
mod content;
mod driver;
mod hand;
mod refusals;
mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use libp2p::Multiaddr;
use pleach_core::engine::{Engine, Identity, OpenError, Signer, Stored};
use pleach_core::values::{ChangeId, Member, Signature};
use pleach_core::vocabulary::{StoreId, WriterId};
use tokio::sync::{Notify, broadcast, mpsc, oneshot};

use crate::config::{Config, ConfigError, ReplicateOwner};
use crate::control::{self, Call, EventReport, Refusal, RefusalKind, Reply, Request};
use crate::disk::{Disk, DiskOptions, Owners, Root, RootError, SpecialBits, Watcher};
use crate::identity::{KeyError, MasterKey, StoreSeed};
use crate::net::{Discovery, NetConfig, NetError, Network};
use crate::state::{MetaKey, State, StateError};
use crate::store;
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
    /// The directory is no store, or can't be used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The settings are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key can't be read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The state database can't be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The state lacks something that `init` and `join` write.
    #[error("{path}: the state lacks its {what}: it is damaged; {remedy}", remedy = "move .pleach aside and join this master anew")]
    Incomplete {
        /// The database.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// The stored changes or the base can't be read.
    #[error("{path}: {source}")]
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
    #[error("{what} {path}: {source}")]
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
}

/// A running master. Dropping it stops it, without waiting.
#[derive(Debug)]
pub struct Node {
    handle: NodeHandle,
    threads: Vec<JoinHandle<()>>,
    network: Network,
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
        let sent = tokio::task::spawn_blocking(move || jobs.send(Job::Isolate(isolated, done)));
        if sent.await.is_ok_and(|sent| sent.is_ok()) {
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
        NodeBuilder { dir: dir.into(), listen: None, discovery: None }
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

    /// Stops cleanly: what is under way on the disk is finished, state is saved, connections are closed.
    pub async fn stop(self) {
        self.network.shutdown().await;
        let Self { handle, threads, network } = self;
        drop(network);
        let stopped = tokio::task::spawn_blocking(move || {
            // The driver may have ended already.
            let _ = handle.jobs.send(Job::Stop);
            drop(handle);
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a thread of the node has panicked");
                }
            }
        });
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

    /// Starts it. Must be called in a tokio runtime with several threads.
    pub async fn start(self) -> Result<Node, StartError> {
        let root = Root::open(&self.dir)?;
        let config = Config::load(root.path())?;
        let key = MasterKey::load(&root.state_path().join("key"))?;
        let state = State::open(&store::state_path(root.path()))?;
        let stored = Opened::read(&state, root.path())?;
        let disk_options = DiskOptions {
            owners: match config.replicate_owner {
                ReplicateOwner::Always => Owners::Replicate,
                ReplicateOwner::Never => Owners::Leave,
                ReplicateOwner::Auto if rustix::process::geteuid().is_root() => Owners::Replicate,
                ReplicateOwner::Auto => Owners::Leave,
            },
            special_bits: SpecialBits::Drop,
        };
        let path = root.path().to_owned();
        let io = |what, source| StartError::Io { what, path: path.clone(), source };
        let disk = Disk::open(root.clone(), disk_options)
            .map_err(|source| io("can't work on", source))?;
        let (jobs, jobs_out) = sync_channel(JOBS_MAX);
        let contents = Arc::new(Contents {
            root: root.clone(),
            staging: disk.staging().clone(),
            versions: disk.versions().clone(),
            jobs: jobs.clone(),
        });
        let engine = open_engine(&state, &key, &stored, &disk, root.path())?;
        let mut members = engine.replica().members();
        for introduced in &stored.introduction {
            if !members.iter().any(|member| member.master == introduced.master) {
                members.push(introduced.clone());
            }
        }
        let mut discovery = if config.mdns { Discovery::Mdns } else { Discovery::Off };
        discovery = self.discovery.unwrap_or(discovery);
        let net_config = |listen: Vec<Multiaddr>| NetConfig {
            key: key.clone(),
            seed: stored.seed.clone(),
            listen,
            discovery,
            members: members.clone(),
            invitations: stored.invitations.clone(),
            source: contents.clone(),
            sink: contents.clone(),
        };
        let wanted = self.listen.clone().unwrap_or_else(|| config.listen.addresses());
        let fallback = if self.listen.is_some() { None } else { config.listen.fallback() };
        let (network, net_events) = match (Network::start(net_config(wanted)).await, fallback) {
            (Err(NetError::PortInUse { address }), Some(fallback)) => {
                tracing::warn!(%address, "in use; listening on a free port instead");
                Network::start(net_config(fallback)).await?
            }
            (started, _) => started?,
        };
        let watcher = Watcher::start(&root, watch_hints(jobs.clone()))
            .map_err(|source| io("can't watch", source))?;
        let listener = control::bind(root.path())
            .map_err(|source| io("can't make the control socket of", source))?;
        let (calls, calls_out) = mpsc::channel(CALLS_MAX);
        let (events, _) = broadcast::channel(EVENTS_MAX);
        tokio::spawn(control::serve(listener, calls.clone(), events.clone()));
        let stop_requested = Arc::new(Notify::new());
        let (chores, chores_out) = channel();
        let driver = Driver {
            engine,
            state,
            jobs: jobs_out,
            hand: chores,
            network: network.clone(),
            runtime: tokio::runtime::Handle::current(),
            events: events.clone(),
            facts: Facts {
                key,
                seed: stored.seed.clone(),
                store_name: stored.store_name.clone(),
                name: stored.name.clone(),
                root: root.path().to_owned(),
                advertise: config.advertise.iter().map(ToString::to_string).collect(),
                introduction: stored.introduction.clone(),
                verifier: verify::Verifier { root, jobs: jobs.clone(), running: false },
                rescan_interval: config.rescan_interval,
            },
            waiters: answer::Waiters::default(),
            clock: Clock::start(),
            isolated: false,
            last_seen: BTreeMap::new(),
            changes_since_snapshot: stored.changes_since_snapshot,
            refusals: refusals::Refusals::default(),
            stop_requested: stop_requested.clone(),
            watch_problem: None,
            rescan_at_ms: 0,
        };
        let hand = Hand { disk, watcher, chores: chores_out, jobs: jobs.clone() };
        let threads = vec![
            spawn("driver", move || driver.run()).map_err(|source| io("can't start on", source))?,
            spawn("hand", move || hand.run()).map_err(|source| io("can't start on", source))?,
        ];
        forward(net_events, calls_out, &jobs);
        let handle = NodeHandle { jobs, calls, events, stop_requested };
        Ok(Node { handle, threads, network })
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
    jobs: &SyncSender<Job>,
) {
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

/// What `init` or `join` left, and what has come since.
struct Opened {
    seed: StoreSeed,
    store_name: String,
    name: String,
    introduction: Vec<Member>,
    invitations: Invitations,
    changes_since_snapshot: u64,
}

impl Opened {
    fn read(state: &State, root: &Path) -> Result<Self, StartError> {
        let missing = |what| StartError::Incomplete { path: store::state_path(root), what };
        let seed = state.meta(MetaKey::StoreSeed)?.ok_or_else(|| missing("store"))?;
        let seed = postcard::from_bytes(&seed).map_err(|_| missing("store"))?;
        let name = state.meta_text(MetaKey::MasterName)?.ok_or_else(|| missing("name"))?;
        let store_name = state.meta_text(MetaKey::StoreName)?.unwrap_or_default();
        let introduction = match state.meta(MetaKey::Introduction)? {
            Some(bytes) => postcard::from_bytes(&bytes).map_err(|_| missing("introduction"))?,
            None => Vec::new(),
        };
        let mut invitations = Invitations::new();
        for (_, row) in state.invitations()? {
            let row: Invitation =
                postcard::from_bytes(&row).map_err(|_| missing("invitations"))?;
            invitations.insert(row);
        }
        Ok(Self { seed, store_name, name, introduction, invitations, changes_since_snapshot: 0 })
    }
}

fn open_engine(
    state: &State,
    key: &MasterKey,
    opened: &Opened,
    disk: &Disk,
    root: &Path,
) -> Result<Engine, StartError> {
    let (snapshot, position) = match state.load_snapshot()? {
        Some((snapshot, position)) => (Some(snapshot), position),
        None => (None, 0),
    };
    let stored = Stored {
        snapshot,
        log: state.changes_since(position)?,
        base: state.load_base()?,
        intents: state.intents()?,
        staged: disk.staging().hashes(),
        retained: disk.versions().hashes(),
    };
    let mut nonce = [0; 8];
    getrandom::fill(&mut nonce).map_err(|error| StartError::Io {
        what: "no random numbers for",
        path: root.to_owned(),
        source: std::io::Error::other(error.to_string()),
    })?;
    let store = opened.seed.store();
    let identity = Identity {
        store,
        founder: opened.seed.founder,
        master: key.master(),
        writer: WriterId::new(key.master(), nonce),
        signer: Box::new(KeySigner { key: key.clone(), store }),
    };
    Engine::open(identity, stored)
        .map_err(|source| StartError::Engine { path: root.to_owned(), source })
}
