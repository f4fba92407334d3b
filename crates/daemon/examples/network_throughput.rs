//! Measures the network alone: one large content, and the round trip of a small message, between two
//! masters in this process, over TCP on loopback.
//!
//! `cargo run --release -p pleach-daemon --example network_throughput -- 1024` (size in MiB)

use std::error::Error;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pleach_core::values::Message;
use pleach_core::vocabulary::{ContentHash, TreePath, VersionVector};
use pleach_daemon::identity::{MasterKey, StoreSeed};
use pleach_daemon::net::{
    ContentRequest, ContentSink, ContentSource, Discovery, FinishError, NetConfig, NetEvent,
    NetEvents, Network, OpenContent, PartialContent, Speaks,
};
use pleach_daemon::ticket::Invitations;

struct Shelf(PathBuf);

impl ContentSource for Shelf {
    fn open(&self, hash: &ContentHash) -> Option<OpenContent> {
        let file = File::open(self.0.join(hash.to_string())).ok()?;
        let size = file.metadata().ok()?.len();
        Some(OpenContent { file, size })
    }
}

impl ContentSink for Shelf {
    fn has(&self, _: &ContentHash) -> bool {
        false
    }

    fn begin(&self, hash: ContentHash, _: u64) -> io::Result<Box<dyn PartialContent>> {
        let file = File::create(self.0.join(format!("{hash}.received")))?;
        Ok(Box::new(Receiving { file, hash, hasher: blake3::Hasher::new() }))
    }

    fn old_version(&self, _: &TreePath) -> Option<File> {
        None
    }
}

struct Receiving {
    file: File,
    hash: ContentHash,
    hasher: blake3::Hasher,
}

impl PartialContent for Receiving {
    fn present(&self) -> u64 {
        0
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all_at(bytes, offset)
    }

    fn write_hole(&mut self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn finish(self: Box<Self>) -> Result<(), FinishError> {
        match self.hasher.finalize().as_bytes() == &self.hash.0 {
            true => Ok(()),
            false => Err(FinishError::Mismatch),
        }
    }
}

async fn start(
    key: &MasterKey,
    seed: StoreSeed,
    shelf: &Arc<Shelf>,
) -> Result<(Network, NetEvents), Box<dyn Error>> {
    let config = NetConfig {
        key: key.clone(),
        seed,
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
        discovery: Discovery::Off,
        members: vec![],
        invitations: Invitations::new(),
        source: shelf.clone(),
        sink: shelf.clone(),
        speaks: Speaks::default(),
    };
    Ok(Network::start(config).await?)
}

async fn until(events: &mut NetEvents, mut done: impl FnMut(&NetEvent) -> bool) {
    while let Some(event) = events.recv().await {
        if let NetEvent::FetchFailed(_, failure) = &event {
            return println!("failed: {failure}");
        }
        if done(&event) {
            return;
        }
    }
}

fn write_noise(shelf: &Shelf, mib: u64) -> io::Result<ContentHash> {
    let (mut noise, mut hasher) = (blake3::Hasher::new().finalize_xof(), blake3::Hasher::new());
    let path = shelf.0.join("new");
    let mut file = File::create(&path)?;
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..mib {
        noise.fill(&mut buffer);
        hasher.update(&buffer);
        file.write_all(&buffer)?;
    }
    let hash = ContentHash(*hasher.finalize().as_bytes());
    std::fs::rename(path, shelf.0.join(hash.to_string()))?;
    Ok(hash)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).init();
    let mib: u64 = std::env::args().nth(1).as_deref().unwrap_or("1024").parse()?;
    let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let (shelf_a, shelf_b) =
        (Arc::new(Shelf(from.path().to_owned())), Arc::new(Shelf(to.path().to_owned())));
    let hash = write_noise(&shelf_a, mib)?;

    let (key_a, key_b) = (MasterKey::generate()?, MasterKey::generate()?);
    let seed = StoreSeed::generate(key_a.master())?;
    let (a, mut events_a) = start(&key_a, seed, &shelf_a).await?;
    let (b, mut events_b) = start(&key_b, seed, &shelf_b).await?;
    let addresses = |network: &Network| {
        network.listen_addrs().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let members: Vec<_> = [&a, &b]
        .into_iter()
        .map(|network| key_a.sign_member(seed.store(), network.me(), "m", addresses(network)))
        .collect();
    let begun = Instant::now();
    a.set_members(members.clone()).await;
    b.set_members(members).await;
    until(&mut events_b, |event| matches!(event, NetEvent::Connected(_))).await;
    println!("connected after        {:>10.1?}", begun.elapsed());
    until(&mut events_a, |event| matches!(event, NetEvent::Connected(_))).await;

    let begun = Instant::now();
    b.fetch(vec![ContentRequest { hash, size: mib << 20, providers: vec![], old_version: None }]);
    until(&mut events_b, |event| matches!(event, NetEvent::Fetched(_))).await;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{mib} MiB in           {seconds:>10.2} s  {:.0} MB/s",
        (mib << 20) as f64 / 1e6 / seconds
    );

    for (how, gossip) in [("stream", false), ("gossip", true)] {
        let mut times = Vec::new();
        for round in 0..500_u64 {
            let heads = ContentHash::of(&[&round.to_le_bytes()[..], how.as_bytes()].concat());
            let message = Message::Have { known: VersionVector::new(), heads };
            let begun = Instant::now();
            match gossip {
                true => b.broadcast(&message)?,
                false => b.send(a.me(), &message)?,
            }
            until(&mut events_a, |event| matches!(event, NetEvent::Received(..))).await;
            times.push(begun.elapsed());
        }
        times.sort();
        println!("one way by {how}: median {:.1?}, 99th {:.1?}", times[250], times[495]);
    }
    // User and system time of the process, in ticks of 10 ms (proc_pid_stat(5), fields 14 and 15).
    let cpu = || -> Result<f64, Box<dyn Error>> {
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
        Ok(fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
            / 100.0)
    };
    let (before, begun) = (cpu()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(40)).await;
    let share = (cpu()? - before) / begun.elapsed().as_secs_f64() / 2.0;
    println!("idle for 40 s: {:.3} % of a core for each master", share * 100.0);
    a.shutdown().await;
    b.shutdown().await;
    Ok(())
}
