//! Power cuts: a master's file system is shut down while it takes in what another writes and its own users
//! write, and mounted anew. (btrfs can't be shut down: what its device holds at one moment is mounted.)
//!
//! What it had said to have is there, whole, and so is what its users wrote as far as others know of it;
//! of what the others wrote nothing torn stands at a path, and nothing of it is sent on.
//! `PLEACH_CUTS=200` sets how often for each file system.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pleach_tests::daemons::{Cluster, LoopDisk, Master, Tree, wait_until};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;

/// How many names the writer uses, in three directories.
const NAMES: u32 = 40;

/// What is kept of what was replaced between two cuts: in its first hour no version goes.
const KEPT_BYTES: u64 = 6 << 20;

/// Some bytes, whole only as they are: number `number`, a length of its own, nothing but its digits.
fn content(number: u32) -> Vec<u8> {
    let length = match number % 7 {
        0 => 3,
        1 => 200_000,
        small => 700 * small as usize,
    };
    let line = format!("{number}\n").into_bytes();
    line.iter().copied().cycle().take(line.len() + length).collect()
}

/// Which content these bytes are, if they are whole.
fn number_of(bytes: &[u8]) -> Option<u32> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let number = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
    (content(number) == bytes).then_some(number)
}

/// How a user saves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Saves {
    /// By rename. Nobody ever sees a file that is half written: whoever has one has torn it.
    Whole,
    /// Also in place. A file that is being written is seen as it is at that moment, empty or a part.
    InPlaceToo,
}

/// A user of a master, who writes all the time and syncs nothing.
struct Writer {
    saves: Saves,
    random: ChaCha8Rng,
    /// What the names of their three directories begin with.
    directory: char,
    next: u32,
    /// What is at each path.
    written: BTreeMap<String, u32>,
    /// Paths at which it did something lately.
    touched: BTreeSet<String>,
    /// Where it was at work when the power went: what is there now, nobody knows.
    cut_off: Option<String>,
}

impl Writer {
    fn new(seed: u64, directory: char, saves: Saves) -> Self {
        let (random, written) = (ChaCha8Rng::seed_from_u64(seed), BTreeMap::new());
        let touched = BTreeSet::new();
        Self { saves, random, directory, next: 0, written, touched, cut_off: None }
    }

    fn act(&mut self, master: &Master) -> io::Result<()> {
        let (directory, number) = (self.random.random_range(0..3), self.next);
        let path = format!("{}{directory}/f{}", self.directory, self.random.next_u32() % NAMES);
        let file = master.path(&path);
        self.next += 1;
        self.touched.insert(path.clone());
        self.cut_off = Some(path.clone());
        match self.random.random_range(0..10) {
            0 if self.written.contains_key(&path) => {
                fs::remove_file(&file)?;
                self.written.remove(&path);
                self.cut_off = None;
                return Ok(());
            }
            how if how <= 6 || self.saves == Saves::Whole => {
                let new = master.path(&format!("{}{directory}/new", self.directory));
                fs::write(&new, content(number))?;
                fs::rename(&new, &file)?;
            }
            _ => fs::write(&file, content(number))?,
        }
        self.written.insert(path, number);
        self.cut_off = None;
        Ok(())
    }

    /// Writes until it is over, or the power is cut; the paths that were touched.
    fn write_until(&mut self, master: &Master, over: &AtomicBool) -> BTreeSet<String> {
        self.touched.clear();
        while !over.load(Ordering::Relaxed) && self.act(master).is_ok() {
            std::thread::sleep(Duration::from_millis(self.random.random_range(0..6)));
        }
        std::mem::take(&mut self.touched)
    }
}

/// What is at each path below directories whose names begin so, by its number; none of what is torn.
fn contents_of(master: &Master, directory: char) -> BTreeMap<String, Option<u32>> {
    let mut found = BTreeMap::new();
    for directory in (0..3).map(|number| format!("{directory}{number}")) {
        let Ok(files) = fs::read_dir(master.path(&directory)) else { continue };
        for file in files.map(Result::unwrap).filter(|file| file.file_name() != "new") {
            let path = format!("{directory}/{}", file.file_name().to_str().unwrap());
            found.insert(path, number_of(&fs::read(file.path()).unwrap()));
        }
    }
    found
}

/// What torn bytes look like.
fn described(bytes: &[u8]) -> String {
    let zeros = bytes.iter().filter(|byte| **byte == 0).count();
    let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(20)]);
    let end = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(20)..]);
    format!("has {} bytes, {zeros} of them zero, {begin:?} … {end:?}", bytes.len())
}

fn whole(written: &BTreeMap<String, u32>) -> BTreeMap<String, Option<u32>> {
    written.iter().map(|(path, number)| (path.clone(), Some(*number))).collect()
}

fn make_directories(master: &Master) {
    for (directory, number) in [('d', 0), ('d', 1), ('d', 2), ('e', 0), ('e', 1), ('e', 2)] {
        fs::create_dir(master.path(&format!("{directory}{number}"))).unwrap();
    }
}

fn cut_again_and_again(kind: &str) {
    let cuts: u32 = std::env::var("PLEACH_CUTS").map_or(3, |cuts| cuts.parse().unwrap());
    let disk = RefCell::new(Err(String::new()));
    let mut cluster = Cluster::holding(2, |number, master| match number {
        0 => make_directories(master),
        _ => {
            let more = u64::from(cuts) * KEPT_BYTES;
            *disk.borrow_mut() = LoopDisk::with_more_room(kind, more, master.directory());
        }
    });
    let disk = match disk.into_inner() {
        Ok(disk) => disk,
        Err(reason) => return println!("skipped on {kind}: {reason}"),
    };
    cluster.settle_to(0, "the directories");
    let seed = std::env::var("PLEACH_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut writers =
        [Writer::new(seed + 1, 'd', Saves::Whole), Writer::new(seed + 2, 'e', Saves::InPlaceToo)];
    for cut in 0..cuts {
        let pause = Duration::from_millis(random.random_range(50..400));
        let _ = write_for(&mut writers, &cluster.masters, pause, || {});
        let _ = cluster.masters[0].pleach(["wait", ".", "--timeout", "60"]).ok();
        let told = writers[0].written.clone();

        let moment = Duration::from_millis(random.random_range(0..300));
        let [touched, also] = write_for(&mut writers, &cluster.masters, moment, || {
            if disk.writers_survive_cuts() {
                cluster.masters[1].signal(Signal::STOP);
            }
            disk.cut_power().unwrap();
        });
        // What b has told of, a takes in.
        let _ = cluster.masters[0].pleach(["wait", ".", "--timeout", "1"]);
        let heard = contents_of(&cluster.masters[0], 'e');
        let b = &mut cluster.masters[1];
        b.kill();
        disk.power_on().unwrap();
        let left = contents_of(b, 'd');
        for (path, _) in left.iter().filter(|(_, number)| number.is_none()) {
            println!("cut {cut}: {path} {}", described(&fs::read(b.path(path)).unwrap()));
        }
        assert!(left.values().all(Option::is_some), "cut {cut}: torn: {left:?}");
        for (path, number) in told.iter().filter(|(path, _)| !touched.contains(*path)) {
            assert_eq!(left.get(path), Some(&Some(*number)), "cut {cut}: {path}, told to be on b");
        }
        b.start();
        cluster.await_connected();
        cluster.settle("what was cut off is made up for");
        let [a, b] = &cluster.masters[..] else { unreachable!("two were started") };
        for master in [a, b] {
            let now = contents_of(master, 'd');
            assert_eq!(now, whole(&writers[0].written), "cut {cut}: of what a wrote, on both");
        }
        let now = contents_of(a, 'e');
        let last = whole(&writers[1].written);
        for path in heard.keys().chain(last.keys()).chain(now.keys()) {
            // Unless a later write was cut off, or nobody ever heard of what was made and removed.
            let is_told = heard.get(path) == last.get(path);
            let is_told = is_told && writers[1].cut_off.as_ref() != Some(path);
            if is_told && (heard.contains_key(path) || !also.contains(path)) {
                assert_eq!(now.get(path), heard.get(path), "cut {cut}: {path}, told by b");
            }
        }
        assert_eq!(a.conflicts().len(), 0, "cut {cut}: {:?}", a.conflicts());
        // What was written ahead and not needed is cleared away when there is time.
        wait_until("nothing is left over", Duration::from_secs(20), || {
            match staged(b.directory()) {
                left if left.is_empty() => Ok(()),
                left => Err(format!("cut {cut}: {left:?}")),
            }
        });
        for path in now.iter().filter(|(_, number)| number.is_none()).map(|(path, _)| path) {
            fs::remove_file(b.path(path)).unwrap();
        }
        let there = now.into_iter().filter_map(|(path, number)| Some((path, number?)));
        writers[1].written = there.collect();
    }
    let [written, also] = writers.map(|writer| writer.next);
    println!("{cuts} cuts on {kind}; {written} files written on a, {also} on b");
    cluster.masters[1].kill();
    drop(disk);
}

/// Both write for a time; then something happens in the midst of it, and a moment later they stop.
fn write_for(
    writers: &mut [Writer; 2],
    masters: &[Master],
    time: Duration,
    in_the_midst: impl FnOnce(),
) -> [BTreeSet<String>; 2] {
    let over = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = writers.each_mut().into_iter().zip(masters);
        let writing: Vec<_> = writing
            .map(|(writer, master)| scope.spawn(move || writer.write_until(master, over)))
            .collect();
        std::thread::sleep(time);
        in_the_midst();
        over.store(true, Ordering::Relaxed);
        let touched: Vec<_> = writing.into_iter().map(|thread| thread.join().unwrap()).collect();
        touched.try_into().expect("two writers")
    })
}

/// What is left over in the staging area, but for contents whose fetch may be resumed.
fn staged(root: &Path) -> Vec<PathBuf> {
    let tree = Tree::read(&root.join(".pleach/staging")).unwrap();
    let files = tree.entries.into_iter().filter(|(_, entry)| entry.kind == 'f');
    files.map(|(path, _)| path).filter(|path| path.extension() != Some("part".as_ref())).collect()
}

#[test]
fn ext4_whose_power_is_cut_has_all_that_was_told_and_nothing_torn() {
    cut_again_and_again("ext4");
}

#[test]
fn xfs_whose_power_is_cut_has_all_that_was_told_and_nothing_torn() {
    cut_again_and_again("xfs");
}

#[test]
fn btrfs_whose_power_is_cut_has_all_that_was_told_and_nothing_torn() {
    cut_again_and_again("btrfs");
}
