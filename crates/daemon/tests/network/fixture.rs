//! Masters with nothing but a network, on loopback, and contents in a scratch directory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pleach_core::values::{ChangeId, Member, Message, SignedChange};
use pleach_core::vocabulary::{ContentHash, MasterId, TreePath, WriterId};
use pleach_daemon::identity::{MasterKey, StoreSeed};
use pleach_daemon::net::{
    ContentSink, ContentSource, Discovery, FinishError, NetConfig, NetEvent, NetEvents, Network,
    OpenContent, PartialContent, Speaks,
};
use pleach_daemon::ticket::Invitations;
use tempfile::TempDir;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Contents as files named by their hash, partial ones beside them.
pub(crate) struct Shelf {
    directory: TempDir,
}

impl Shelf {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { directory: tempfile::tempdir().unwrap() })
    }

    pub(crate) fn path(&self, hash: &ContentHash) -> PathBuf {
        self.directory.path().join(hash.to_string())
    }

    pub(crate) fn partial_path(&self, hash: &ContentHash) -> PathBuf {
        self.directory.path().join(format!("{hash}.partial"))
    }

    pub(crate) fn old_path(&self) -> PathBuf {
        self.directory.path().join("old")
    }

    /// Puts `bytes` under the hash of `named`, which is a lie unless they are the same.
    pub(crate) fn put_as(&self, named: &[u8], bytes: &[u8]) -> ContentHash {
        let hash = ContentHash::of(named);
        std::fs::write(self.path(&hash), bytes).unwrap();
        hash
    }

    pub(crate) fn put(&self, bytes: &[u8]) -> ContentHash {
        self.put_as(bytes, bytes)
    }
}

impl ContentSource for Shelf {
    fn open(&self, hash: &ContentHash) -> Option<OpenContent> {
        let file = File::open(self.path(hash)).ok()?;
        let size = file.metadata().ok()?.len();
        Some(OpenContent { file, size })
    }
}

impl ContentSink for Shelf {
    fn has(&self, hash: &ContentHash) -> bool {
        self.path(hash).exists()
    }

    fn begin(&self, hash: ContentHash, size: u64) -> io::Result<Box<dyn PartialContent>> {
        let (partial, whole) = (self.partial_path(&hash), self.path(&hash));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&partial)?;
        let present = file.metadata()?.len().min(size);
        Ok(Box::new(Partial { file, partial, whole, hash, present }))
    }

    fn old_version(&self, _: &TreePath) -> Option<File> {
        File::open(self.old_path()).ok()
    }
}

struct Partial {
    file: File,
    partial: PathBuf,
    whole: PathBuf,
    hash: ContentHash,
    present: u64,
}

impl PartialContent for Partial {
    fn present(&self) -> u64 {
        self.present
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn write_hole(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.file.set_len(offset + length)
    }

    fn finish(self: Box<Self>) -> Result<(), FinishError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(&self.partial)?)?;
        if hasher.finalize().as_bytes() != &self.hash.0 {
            std::fs::remove_file(&self.partial)?;
            return Err(FinishError::Mismatch);
        }
        Ok(std::fs::rename(&self.partial, &self.whole)?)
    }
}

/// A running master.
pub(crate) struct Master {
    pub(crate) key: MasterKey,
    pub(crate) seed: StoreSeed,
    pub(crate) network: Network,
    pub(crate) events: NetEvents,
    pub(crate) shelf: Arc<Shelf>,
    sequence: u64,
}

pub(crate) fn key(number: u8) -> MasterKey {
    MasterKey::from_secret(&[number; 32])
}

pub(crate) fn seed() -> StoreSeed {
    StoreSeed { founder: key(1).master(), nonce: [7; 16] }
}

impl Master {
    /// Starts the master of `number` with an empty member list, on free ports.
    pub(crate) async fn start(number: u8) -> Self {
        let (key, seed, shelf) = (key(number), seed(), Shelf::new());
        let listen = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"];
        let config = NetConfig {
            key: key.clone(),
            seed,
            listen: listen.iter().map(|text| text.parse().unwrap()).collect(),
            discovery: Discovery::Off,
            members: vec![],
            invitations: Invitations::new(),
            source: shelf.clone(),
            sink: shelf.clone(),
            speaks: Speaks::default(),
        };
        let (network, events) = Network::start(config).await.unwrap();
        Self { key, seed, network, events, shelf, sequence: 0 }
    }

    pub(crate) fn id(&self) -> MasterId {
        self.key.master()
    }

    /// Its entry in the member list, signed by the founder.
    pub(crate) fn member(&self) -> Member {
        let addresses = self.network.listen_addrs().iter().map(ToString::to_string).collect();
        key(1).sign_member(self.seed.store(), self.id(), "master", addresses)
    }

    pub(crate) fn change(&mut self, bytes: Vec<u8>) -> SignedChange {
        self.sequence += 1;
        let writer = WriterId::new(self.id(), [0; 8]);
        let id = ChangeId { writer, sequence: self.sequence };
        self.key.sign_change(self.seed.store(), id, bytes)
    }

    pub(crate) fn message(&mut self, text: &str) -> Message {
        let changes = vec![self.change(text.as_bytes().to_vec())];
        Message::Changes { changes, contents: vec![] }
    }

    /// Waits for the first event of which `pick` makes something; those before it are dropped.
    pub(crate) async fn wait<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(NetEvent) -> Option<T>,
    ) -> T {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("the network runs");
                for event in self.shelved(event) {
                    if let Some(found) = pick(event) {
                        return found;
                    }
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| panic!("{what} did not happen"))
    }

    /// Puts what arrived in memory on the shelf, as if it had been fetched to there.
    fn shelved(&self, event: NetEvent) -> Vec<NetEvent> {
        let NetEvent::Arrived(contents) = event else { return vec![event] };
        let shelve = |(hash, bytes): &(ContentHash, Arc<[u8]>)| {
            std::fs::write(self.shelf.path(hash), bytes).unwrap();
            NetEvent::Fetched(*hash)
        };
        contents.iter().map(shelve).collect()
    }

    pub(crate) async fn wait_connected(&mut self, other: MasterId) {
        self.wait("connection", |event| match event {
            NetEvent::Connected(master) if master == other => Some(()),
            _ => None,
        })
        .await;
    }

    pub(crate) async fn wait_message(&mut self) -> (MasterId, Message) {
        self.wait("message", |event| match event {
            NetEvent::Received(from, message) => Some((from, message)),
            _ => None,
        })
        .await
    }

    pub(crate) async fn wait_refusal(&mut self) -> (Option<MasterId>, String) {
        self.wait("refusal", |event| match event {
            NetEvent::Refused { who, reason } => Some((who, reason)),
            _ => None,
        })
        .await
    }

    /// Waits until `count` contents have arrived.
    pub(crate) async fn wait_fetched(&mut self, mut count: usize) {
        self.wait("fetch", |event| match event {
            NetEvent::Fetched(_) => {
                count -= 1;
                (count == 0).then_some(())
            }
            NetEvent::FetchFailed(hash, failure) => panic!("{hash}: {failure}"),
            _ => None,
        })
        .await;
    }

    pub(crate) fn received_bytes(&self) -> u64 {
        self.network.traffic().iter().map(|(_, count)| count.received).sum()
    }
}

/// `count` masters that are all connected to each other.
pub(crate) async fn connected<const N: usize>() -> [Master; N] {
    let mut masters = Vec::new();
    for number in 1..=N {
        masters.push(Master::start(number as u8).await);
    }
    let members: Vec<_> = masters.iter().map(Master::member).collect();
    for master in &masters {
        master.network.set_members(members.clone()).await;
    }
    for index in 0..N {
        let me = masters[index].id();
        let mut others: Vec<_> = masters.iter().map(Master::id).filter(|id| *id != me).collect();
        masters[index]
            .wait("all connections", |event| {
                if let NetEvent::Connected(master) = event {
                    others.retain(|other| *other != master);
                }
                others.is_empty().then_some(())
            })
            .await;
    }
    masters.try_into().ok().unwrap()
}

/// Bytes that do not repeat.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}
