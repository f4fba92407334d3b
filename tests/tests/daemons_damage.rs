//! What a master keeps in `.pleach` is damaged while its daemon is stopped, and work goes on elsewhere.
//!
//! Started again, it either is a master like any other, with nothing lost and nothing raised from the dead;
//! or it ends with 1 and says what is damaged and what to do. Then that is done, to the letter, and all
//! that was on both is on both. `PLEACH_DAMAGES=1000` sets how often, `PLEACH_SEED` what.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::time::Duration;

use pleach_tests::daemons::{
    Cluster, Damage, DamageKind, LoopDisk, Ran, Tree, probe_until, small_files, wait_until, write,
};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;

/// What the message says that is obeyed.
const JOIN_AGAIN: [&str; 2] =
    ["move .pleach out of the directory", "join again (`pleach join DIR TICKET`"];

/// How long a daemon may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// After so many damages a store is made anew: each rejoining leaves a member behind.
const DAMAGES_PER_STORE: u64 = 40;

/// Two masters, `a`, whose state is damaged again and again, and `b`; and what ought to be on them.
struct Bench {
    cluster: Cluster,
    random: ChaCha8Rng,
    /// The bytes of each file of the users', by path.
    wanted: BTreeMap<String, String>,
    /// An earlier copy of the database of `a`.
    older: Vec<u8>,
    /// What was left of damaged versions, by its hash. Whoever writes to a version is taken for a program that had
    /// the file open when it was replaced: that is a change of its own, now or at a later start.
    late: BTreeSet<String>,
    next: u64,
}

/// What was done to the tree while the daemon of `a` was stopped.
#[derive(Debug, Default)]
struct Meanwhile {
    edited: BTreeSet<String>,
    removed: BTreeMap<String, String>,
}

/// How a start with damaged state went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Started,
    /// With a state that may be whole, but of an earlier moment: nobody can tell by looking at it.
    StartedFromThePast,
    JoinedAnew,
    SettingsRepaired,
}

impl Outcome {
    /// Whether the master has lost what it knew of its own files.
    fn forgot(self) -> bool {
        matches!(self, Self::StartedFromThePast | Self::JoinedAnew)
    }
}

impl Bench {
    fn new(seed: u64) -> Self {
        let cluster = Cluster::holding(2, |number, master| {
            if number == 0 {
                small_files(&master.path("small"), 200, 700);
                small_files(&master.path("larger"), 4, 200_000);
                symlink("small/000", master.path("link")).unwrap();
                fs::create_dir(master.path("empty")).unwrap();
                fs::write(master.path("disputed"), "before").unwrap();
            }
        });
        cluster.settle_to(0, "the first files");
        cluster.cut_all();
        fs::write(cluster.masters[0].path("disputed"), "of a").unwrap();
        fs::write(cluster.masters[1].path("disputed"), "of b").unwrap();
        cluster.heal_all();
        cluster.settle("a conflict");
        let random = ChaCha8Rng::seed_from_u64(seed);
        let wanted = contents(&cluster.masters[0].tree());
        let mut bench =
            Self { cluster, random, wanted, older: Vec::new(), late: BTreeSet::new(), next: 0 };
        assert_eq!(bench.open_conflicts().into_keys().collect::<Vec<_>>(), ["disputed"]);
        // Versions of both, and rows that were written over.
        let mut meanwhile = Meanwhile::default();
        for number in 0..30 {
            bench.act(number % 2, &mut meanwhile);
        }
        bench.cluster.settle("some edits");
        bench
    }

    /// Where conflicts are open, with the version that stands.
    fn open_conflicts(&self) -> BTreeMap<String, String> {
        let [ours, theirs] = [0, 1].map(|master| self.cluster.masters[master].conflicts());
        let of = |open: &serde_json::Value| {
            let text = |pointer: &str| open.pointer(pointer).unwrap().as_str().unwrap().to_owned();
            (text("/path"), text("/versions/0/id"))
        };
        let [ours, theirs] =
            [ours, theirs].map(|open| open.iter().map(of).collect::<BTreeMap<_, _>>());
        assert_eq!(ours, theirs, "both know the same conflicts");
        ours
    }

    /// One act of a user's, none twice at one path.
    fn act(&mut self, master: usize, meanwhile: &mut Meanwhile) {
        let root = self.cluster.masters[master].directory().to_owned();
        let Meanwhile { edited, removed } = meanwhile;
        self.next += 1;
        let text = format!("written {}", self.next);
        let free: Vec<&String> = self
            .wanted
            .keys()
            .filter(|path| path.contains('/') && !edited.contains(*path))
            .collect();
        let any = free[self.random.random_range(0..free.len())].clone();
        let path = match self.random.random_range(0..4) {
            0 => {
                fs::remove_file(root.join(&any)).unwrap();
                removed.insert(any.clone(), self.wanted.remove(&any).unwrap());
                return;
            }
            1 => format!("new/{}", self.next),
            2 => {
                write(&root.join("new/temp"), &text);
                fs::rename(root.join("new/temp"), root.join(&any)).unwrap();
                any
            }
            _ => any,
        };
        write(&root.join(&path), &text);
        self.wanted.insert(path.clone(), hash(text.as_bytes()));
        edited.insert(path);
    }

    /// Stops `a`, damages its state, lets both users work, starts it again, and checks.
    fn damage(&mut self, number: u64) -> (Damage, Outcome) {
        let mut meanwhile = Meanwhile::default();
        // A write-ahead log is left only by a daemon that is killed.
        match self.random.random_bool(0.5) {
            true => self.cluster.masters[0].kill(),
            false => self.cluster.masters[0].stop(),
        }
        let state = self.cluster.masters[0].path(".pleach");
        let older = fs::read(state.join("state.db")).unwrap();
        let older = std::mem::replace(&mut self.older, older);
        let damage = Damage::inflict(&state, &older, &mut self.random).unwrap();
        println!("{number}: {damage:?}");
        if damage.file.starts_with("versions") {
            self.late.extend(fs::read(state.join(&damage.file)).map(|bytes| hash(&bytes)));
        }
        for master in [0, 1, 1, 1] {
            self.act(master, &mut meanwhile);
        }
        let offline = self.cluster.masters[0].pleach(["status", "."]);
        assert!((1..=2).contains(&offline.code), "{offline}");
        assert!(!offline.stderr.contains("panicked"), "{offline}");
        let outcome = self.start_again(&damage);
        self.await_one_tree(number, &damage, outcome, &meanwhile);
        (damage, outcome)
    }

    /// Damages the database of `a` while its daemon runs and both users work.
    fn damage_live(&mut self, number: u64) -> (Damage, Outcome) {
        let mut meanwhile = Meanwhile::default();
        let state = self.cluster.masters[0].path(".pleach");
        let damage = Damage::inflict_live(&state, &mut self.random).unwrap();
        println!("{number}, live: {damage:?}");
        for number in 0..10 {
            self.act(number % 2, &mut meanwhile);
            // Something is recorded now and then, not all at once.
            let _ = self.cluster.masters[0].pleach(["wait", ".", "--timeout", "1"]);
        }
        let a = &mut self.cluster.masters[0];
        let ended = a.take_end().unwrap_or_else(|| {
            a.signal(Signal::TERM);
            wait_until("the daemon of a stops", PATIENCE, || {
                a.take_end().ok_or_else(|| "it still runs".to_owned())
            })
        });
        assert!(!ended.stderr.contains("panicked"), "{damage:?}: {ended}");
        if ended.code != 0 {
            let said = ended.stderr.lines().last().unwrap_or_default();
            println!("   ended: {said}");
            assert_eq!(ended.code, 1, "{damage:?}: {ended}");
            assert!(JOIN_AGAIN.iter().all(|words| said.contains(words)), "{damage:?}: {ended}");
        }
        let outcome = self.start_again(&damage);
        self.await_one_tree(number, &damage, outcome, &meanwhile);
        (damage, outcome)
    }

    fn start_again(&mut self, damage: &Damage) -> Outcome {
        let rolled_back =
            damage.kind == DamageKind::Stale || damage.file == Path::new("state.db-wal");
        let said = self.cluster.masters[1].log().len();
        match self.cluster.masters[0].try_start() {
            Ok(()) if rolled_back => self.unless_shut_out(said),
            Ok(()) => Outcome::Started,
            Err(said) => self.obey(&said, damage),
        }
    }

    /// A state of before `b` had joined does not know it: `b` says so, and what to do, in `status` too.
    fn unless_shut_out(&mut self, said: usize) -> Outcome {
        let [a, b] = &mut self.cluster.masters[..] else { unreachable!("two were made") };
        let outcome = wait_until("b is let in by a, or says that it is not", PATIENCE, || {
            let status = b.status();
            let mut others = status.list("/masters").iter().filter(|other| other["this"] != true);
            if others.any(|other| other["connected"] == true) {
                return Ok(Outcome::StartedFromThePast);
            }
            let listed = status.list("/problems").iter().any(|it| it["kind"] == "shut_out");
            if b.log()[said..].contains("may not know this master as a member") && listed {
                return Ok(Outcome::JoinedAnew);
            }
            Err(format!("{:#}", status.0))
        });
        if outcome == Outcome::JoinedAnew {
            println!("   its state is of before the other had joined");
            a.kill();
            self.join_anew();
        }
        outcome
    }

    fn await_one_tree(
        &mut self,
        number: u64,
        damage: &Damage,
        outcome: Outcome,
        meanwhile: &Meanwhile,
    ) {
        self.cluster.await_connected();
        self.cluster.settle(&format!("damage {number}, {damage:?}: both are one again"));
        self.check(&format!("damage {number}, {damage:?}, {outcome:?}"), outcome, meanwhile);
        let log = self.cluster.masters[0].log();
        assert!(!log.contains("panicked"), "{damage:?}: {log}");
    }

    /// Does what the daemon that did not start said is to be done.
    fn obey(&mut self, said: &Ran, damage: &Damage) -> Outcome {
        let text = &said.stderr;
        println!("   {}", text.trim());
        assert!((1..=2).contains(&said.code), "{damage:?}: {said}");
        assert!(!text.contains("panicked"), "{damage:?}: {said}");
        let a = &mut self.cluster.masters[0];
        if text.contains("config.toml, line ") || text.contains("config.toml: ") {
            fs::remove_file(a.path(".pleach/config.toml")).unwrap();
            a.configure();
            a.start();
            return Outcome::SettingsRepaired;
        }
        assert!(JOIN_AGAIN.iter().all(|words| text.contains(words)), "{damage:?}: {said}");
        self.join_anew();
        Outcome::JoinedAnew
    }

    fn join_anew(&mut self) {
        let [a, b] = &mut self.cluster.masters[..] else { unreachable!("two were made") };
        let aside = self.cluster.scratch.path().join(format!("aside {}", self.next));
        fs::rename(a.path(".pleach"), aside).unwrap();
        a.join(b);
        a.start();
    }

    /// Whether one of the versions that are open at a path is what was left of a damaged one.
    fn is_late(&self, path: &str) -> bool {
        let open = self.cluster.masters[1].conflicts();
        let mut there = open.iter().filter(|open| open["path"] == path);
        there.any(|open| self.late.iter().any(|hash| open.to_string().contains(hash)))
    }

    fn check(&mut self, what: &str, outcome: Outcome, meanwhile: &Meanwhile) {
        let tree = self.cluster.masters[1].tree();
        let there = contents(&tree);
        let conflicts = format!("{:?}", self.cluster.masters[1].conflicts());
        for (path, hash) in &self.wanted {
            let stands = there.get(path);
            assert!(stands.is_some(), "{what}: {path} is gone");
            assert!(stands == Some(hash) || conflicts.contains(hash), "{what}: {path} is lost");
            let is_late = stands.is_some_and(|stands| self.late.contains(stands));
            assert!(
                stands == Some(hash) || is_late || meanwhile.edited.contains(path),
                "{what}: {path}, which nobody touched, is another: {stands:?}"
            );
        }
        for path in there.keys().filter(|path| !self.wanted.contains_key(*path)) {
            // Who has lost his memory does not know that others removed what he holds.
            let back = outcome.forgot() && there.get(path) == meanwhile.removed.get(path);
            println!("   {path} is back");
            assert!(
                back || self.late.contains(&there[path]),
                "{what}: {path} has risen from the dead"
            );
        }
        assert!(conflicts.contains(&hash(b"of a")) && conflicts.contains(&hash(b"of b")));
        let mut open = self.open_conflicts();
        assert!(open.remove("disputed").is_some(), "{what}: the conflict of before is closed");
        for (path, version) in open {
            // What it knows of no more is new to it: an edit, of what another has removed meanwhile, too.
            let touched = meanwhile.edited.contains(&path) || meanwhile.removed.contains_key(&path);
            let forgotten = outcome.forgot() && touched;
            assert!(forgotten || self.is_late(&path), "{what}: a conflict at {path}: {conflicts}");
            let resolve = ["conflicts", "resolve", &path, "--keep", &version];
            let _ = self.cluster.masters[1].pleach(resolve).ok();
        }
        // Settings that are still understood may mean something else now.
        let _ = fs::remove_file(self.cluster.masters[0].path(".pleach/config.toml"));
        self.cluster.masters[0].configure();
        self.cluster.settle("conflicts are closed");
        self.wanted = contents(&self.cluster.masters[0].tree());
    }
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// The files, each with its hash, and the links and directories.
fn contents(tree: &Tree) -> BTreeMap<String, String> {
    let named = tree.entries.iter().filter(|(_, entry)| entry.kind == 'f');
    named
        .map(|(path, entry)| (path.display().to_string(), entry.content.unwrap().to_string()))
        .collect()
}

fn damage_again_and_again(damages: u64, damage: impl Fn(&mut Bench, u64) -> (Damage, Outcome)) {
    let seed: u64 = std::env::var("PLEACH_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    let mut bench = Bench::new(seed);
    for number in 0..damages {
        if number > 0 && number % DAMAGES_PER_STORE == 0 {
            bench = Bench::new(seed * 1_000_000 + number);
        }
        let (damage, outcome) = damage(&mut bench, number);
        let file = damage.file.components().next().unwrap().as_os_str().display().to_string();
        *outcomes.entry(format!("{file} {:?}: {outcome:?}", damage.kind)).or_default() += 1;
    }
    println!("{damages} damages: {outcomes:#?}");
}

fn damages(in_ci: u64) -> u64 {
    std::env::var("PLEACH_DAMAGES").map_or(in_ci, |count| count.parse().unwrap())
}

#[test]
fn damaged_state_is_told_or_of_no_consequence() {
    damage_again_and_again(damages(8), Bench::damage);
}

#[test]
fn state_damaged_under_a_running_daemon_is_told_or_of_no_consequence() {
    damage_again_and_again(damages(3).min(200), Bench::damage_live);
}

/// The database is larger than what the daemon holds of it in memory.
#[test]
fn daemon_that_can_no_longer_record_ends_and_says_what_a_start_would_say() {
    let mut cluster = Cluster::holding(1, |_, a| small_files(&a.path("site"), 12_000, 8));
    cluster.flush(&cluster.masters[0]);
    let a = &mut cluster.masters[0];
    a.stop();
    a.start();
    cluster.flush(&cluster.masters[0]);
    let a = &mut cluster.masters[0];
    let file = fs::File::options().write(true).open(a.path(".pleach/state.db")).unwrap();
    let size = file.metadata().unwrap().len();
    assert!(size > 4 << 20, "{size}");
    let mut noise = vec![0; size as usize - 4096];
    ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut noise);
    file.write_all_at(&noise, 4096).unwrap();
    let mut number = 0;
    let ended = wait_until("the daemon ends", PATIENCE, || {
        number += 1;
        let file = format!("site/{:03}/{:05}", number % 120, number % 120 * 100);
        write(&a.path(&file), number.to_string());
        a.take_end().ok_or_else(|| "it still runs".to_owned())
    });
    assert_eq!(ended.code, 1, "{ended}");
    assert!(!ended.stderr.contains("panicked"), "{ended}");
    let said = ended.stderr.lines().last().unwrap_or_default();
    assert!(JOIN_AGAIN.iter().all(|words| said.contains(words)), "{ended}");
    let refused = a.try_start().unwrap_err();
    assert_eq!(refused.code, 1, "{refused}");
    assert!(JOIN_AGAIN.iter().all(|words| refused.stderr.contains(words)), "{refused}");
}

#[test]
fn disk_that_fails_is_told_as_such_and_a_restart_is_enough_when_it_is_back() {
    let disk = RefCell::new(Err(String::new()));
    let mut cluster = Cluster::holding(2, |number, master| match number {
        0 => *disk.borrow_mut() = LoopDisk::mount("ext4", master.directory()),
        _ => small_files(&master.path("site"), 20, 300),
    });
    let disk = match disk.into_inner() {
        Ok(disk) => disk,
        Err(reason) => return println!("skipped: {reason}"),
    };
    cluster.settle_to(1, "the first files");
    let said = cluster.masters[0].log().len();
    disk.cut_power().unwrap();
    write(&cluster.masters[1].path("new"), "written while the disk of a was dead");
    wait_until("a says that its disk fails", PATIENCE, || {
        let log = cluster.masters[0].log();
        if log[said..].contains("the disk fails") { Ok(()) } else { Err(log[said..].to_owned()) }
    });
    let log = cluster.masters[0].log();
    assert!(log[said..].contains("a restart of the daemon is enough"), "{log}");
    // It is tried again and again, and is no other fault the next time.
    let a = &mut cluster.masters[0];
    let other = probe_until(Duration::from_secs(4), || match a.take_end() {
        Some(ended) => Ok(ended.to_string()),
        None if a.log()[said..].contains("damaged") => Ok(a.log()),
        None => Err(String::new()),
    });
    assert!(other.is_err(), "{}", other.unwrap_or_default());
    a.kill();
    let refused = a.try_start().unwrap_err();
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.stderr.contains("the disk fails"), "{refused}");
    assert!(!refused.stderr.contains("damaged"), "{refused}");
    disk.power_on().unwrap();
    a.start();
    cluster.await_connected();
    cluster.settle_to(1, "a has it all");
    assert_eq!(cluster.masters[0].conflicts().len(), 0);
    cluster.masters[0].kill();
    drop(disk);
}
