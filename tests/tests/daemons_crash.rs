//! kill -9 at any moment under load: the same tree everywhere after a restart, nothing lost or torn.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use pleach_tests::daemons::{Cluster, Tree, long, probe_until, write};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A user who works in a directory of their own, and remembers what ought to be there.
struct Worker {
    root: PathBuf,
    random: ChaCha8Rng,
    wanted: BTreeMap<String, Vec<u8>>,
    next: usize,
}

impl Worker {
    fn new(root: PathBuf, seed: u64) -> Self {
        let random = ChaCha8Rng::seed_from_u64(seed);
        Self { root, random, wanted: BTreeMap::new(), next: 0 }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.random.next_u64() % bound.max(1) as u64) as usize
    }

    fn any(&mut self) -> Option<String> {
        let at = self.below(self.wanted.len());
        self.wanted.keys().nth(at).cloned()
    }

    /// One act: a new file, an edit in place, a save by rename, a move, a removal.
    fn act(&mut self) {
        self.next += 1;
        let size = [0, 10, 1_000, 60_000, 400_000][self.below(5)];
        let mut bytes = vec![0; size];
        self.random.fill_bytes(&mut bytes);
        bytes.extend_from_slice(&self.next.to_le_bytes());
        let fresh = format!("d{}/{}", self.below(5), self.next);
        match (self.below(10), self.any()) {
            (0..=1, Some(old)) => {
                fs::write(self.root.join(&old), &bytes).unwrap();
                self.wanted.insert(old, bytes);
            }
            (2..=3, Some(old)) => {
                let temporary = self.root.join(format!("{old}.tmp"));
                fs::write(&temporary, &bytes).unwrap();
                fs::rename(temporary, self.root.join(&old)).unwrap();
                self.wanted.insert(old, bytes);
            }
            (4, Some(old)) => {
                fs::create_dir_all(self.root.join(&fresh).parent().unwrap()).unwrap();
                fs::rename(self.root.join(&old), self.root.join(&fresh)).unwrap();
                let bytes = self.wanted.remove(&old).unwrap();
                self.wanted.insert(fresh, bytes);
            }
            (5, Some(old)) => {
                fs::remove_file(self.root.join(&old)).unwrap();
                self.wanted.remove(&old);
            }
            _ => {
                write(&self.root.join(&fresh), &bytes);
                self.wanted.insert(fresh, bytes);
            }
        }
    }
}

fn files_below(directory: &Path) -> usize {
    Tree::read(directory).map_or(0, |tree| tree.file_count())
}

#[test]
fn killed_daemons_come_back_and_nothing_is_lost() {
    let (rounds, acts) = if long() { (40, 400) } else { (4, 150) };
    let mut cluster = Cluster::of(2);
    let stop = AtomicBool::new(false);
    let allowed = AtomicUsize::new(acts);
    let roots: Vec<PathBuf> = cluster
        .masters
        .iter()
        .map(|master| master.path(&format!("of {}", master.name())))
        .collect();

    let workers: Vec<Worker> = thread::scope(|scope| {
        let (stop, allowed) = (&stop, &allowed);
        let mut running = Vec::new();
        for (number, root) in roots.iter().cloned().enumerate() {
            running.push(scope.spawn(move || {
                let mut worker = Worker::new(root, number as u64);
                while !stop.load(Ordering::Relaxed) {
                    if worker.next < allowed.load(Ordering::Relaxed) {
                        worker.act();
                    } else {
                        thread::park_timeout(Duration::from_millis(5));
                    }
                }
                worker
            }));
        }
        let mut random = ChaCha8Rng::seed_from_u64(2026);
        for round in 1..=rounds {
            allowed.store(round * acts, Ordering::Relaxed);
            let victim = (random.next_u64() % 2) as usize;
            // Any moment: after a random number of the other's files have come, if they come.
            let (of_other, name) = if victim == 0 { ("of b", "a") } else { ("of a", "b") };
            let there = cluster.masters[victim].path(of_other);
            let wanted = files_below(&there) + (random.next_u64() % 40) as usize;
            let _ = probe_until(Duration::from_secs(3), || match files_below(&there) {
                count if count >= wanted => Ok(()),
                count => Err(count.to_string()),
            });
            println!("round {round}: kill -9 of {name} at {} files", files_below(&there));
            cluster.masters[victim].kill();
            cluster.masters[victim].start();
        }
        stop.store(true, Ordering::Relaxed);
        running.into_iter().map(|worker| worker.join().unwrap()).collect()
    });

    cluster.await_connected();
    cluster.settle_as("what both users wrote is on both", |tree| {
        for (worker, master) in workers.iter().zip(&cluster.masters) {
            let conflicts = format!("{:?}", master.conflicts());
            nothing_lost(worker, master.name(), tree, &conflicts)
                .map_err(|wrong| format!("{wrong}\n{conflicts}"))?;
            compare(worker, master.name(), tree)
                .map_err(|wrong| format!("{wrong}\n{conflicts}"))?;
        }
        Ok(())
    });
    for master in &cluster.masters {
        assert!(master.conflicts().is_empty(), "{:#?}", master.conflicts());
        let damaged = master.pleach(["verify", ".", "--json"]).ok().json()["damaged"].clone();
        assert_eq!(damaged.as_array().map(Vec::len), Some(0), "{damaged:#}");
    }
}

/// Each file's last bytes are in the tree or a version of an open conflict.
fn nothing_lost(worker: &Worker, name: &str, tree: &Tree, conflicts: &str) -> Result<(), String> {
    let contents: BTreeSet<String> = tree
        .entries
        .values()
        .filter_map(|entry| entry.content)
        .map(|hash| hash.to_hex().to_string())
        .collect();
    for (path, bytes) in &worker.wanted {
        let hash = blake3::hash(bytes).to_hex().to_string();
        if !contents.contains(&hash) && !conflicts.contains(&hash) {
            return Err(format!("{name}: the bytes written last to {path} are nowhere: {hash}"));
        }
    }
    Ok(())
}

fn compare(worker: &Worker, name: &str, tree: &Tree) -> Result<(), String> {
    let there = tree.below(&format!("of {name}"));
    let files: BTreeMap<_, _> = there
        .entries
        .iter()
        .filter(|(_, entry)| entry.kind == 'f')
        .map(|(path, entry)| (path.display().to_string(), entry.content))
        .collect();
    for (path, bytes) in &worker.wanted {
        match files.get(path) {
            None => return Err(format!("{name}: {path} is lost")),
            Some(content) if *content != Some(blake3::hash(bytes)) => {
                let (hash, size) = (blake3::hash(bytes), bytes.len());
                return Err(format!(
                    "{name}: {path} is {content:?}, not what was written last, {hash} of {size} B"
                ));
            }
            Some(_) => {}
        }
    }
    match files.keys().find(|path| !worker.wanted.contains_key(*path)) {
        Some(path) => Err(format!("{name}: {path} should not be there")),
        None => Ok(()),
    }
}

#[test]
fn large_file_is_never_seen_half_written_and_resumes_after_a_kill() {
    let size = if long() { 400 << 20 } else { 24 << 20 };
    let mut cluster = Cluster::of(2);
    let mut bytes = vec![0_u8; size];
    ChaCha8Rng::seed_from_u64(7).fill_bytes(&mut bytes);
    write(&cluster.masters[0].path("large"), &bytes);
    let copy = cluster.masters[1].path("large");
    for _ in 0..3 {
        let staged = cluster.masters[1].path(".pleach");
        let _ = probe_until(Duration::from_secs(2), || {
            let begun = Tree::read(&staged).is_ok_and(|tree| {
                tree.entries.values().any(|entry| entry.kind == 'f' && entry.size > size as u64 / 9)
            });
            if begun || copy.exists() { Ok(()) } else { Err(String::new()) }
        });
        cluster.masters[1].kill();
        if let Ok(metadata) = fs::metadata(&copy) {
            assert_eq!(metadata.size(), size as u64, "whole or not at all");
        }
        cluster.masters[1].start();
    }
    cluster.settle_to(0, "the large file is on both");
}

#[test]
fn work_done_while_the_daemon_was_dead_is_found_at_start() {
    let mut cluster = Cluster::of(2);
    for number in 0..50 {
        write(&cluster.masters[0].path(&format!("d/{number}")), format!("{number}"));
    }
    cluster.settle_to(0, "fifty files");
    cluster.masters[0].kill();
    let inode = fs::metadata(cluster.masters[1].path("d/7")).unwrap().ino();
    let a = cluster.masters[0].directory().to_owned();
    fs::rename(a.join("d"), a.join("e")).unwrap();
    fs::remove_file(a.join("e/1")).unwrap();
    write(&a.join("e/2"), "edited");
    write(&cluster.masters[1].path("d/3"), "edited on b");
    cluster.masters[0].start();
    cluster.settle_as("moved, removed, edited, on both", |tree| {
        let at = |path: &str| tree.entries.get(Path::new(path)).map(|entry| entry.content);
        let right = at("d").is_none()
            && at("e/1").is_none()
            && at("e/2") == Some(Some(blake3::hash(b"edited")))
            && at("e/3") == Some(Some(blake3::hash(b"edited on b")))
            && tree.file_count() == 49;
        if right { Ok(()) } else { Err(format!("{tree:#?}")) }
    });
    let moved = fs::metadata(cluster.masters[1].path("e/7")).unwrap().ino();
    assert_eq!(moved, inode, "the move was found as a move");
}
