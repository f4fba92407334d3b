//! Measures whole daemons: two masters on one machine, through loopback, on one disk.
//!
//! Prints a line for each thing measured, with the goal beside it. Nothing here is a test: a figure
//! depends on the machine and on what else runs on it. Arrival of a save is told by inotify, so that
//! looking for it costs the daemons nothing; arrival of many files by counting directory entries.

use std::fs;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use pleach_tests::daemons::{Cluster, Master, have, probe_until, shell, small_files, wait_until};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

/// How long any one thing may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// How often files are counted.
const COUNT_INTERVAL: Duration = Duration::from_millis(50);

/// How many files are saved in turn.
const PAGES: usize = 100;

const MIB: f64 = (1 << 20) as f64;

/// Measures two masters on this machine.
#[derive(Debug, Parser)]
struct Options {
    /// Measure these alone: save, first-sync, large, tar, move, memory, idle, scan, undo.
    only: Vec<String>,
    /// How many saves to time.
    #[arg(long, default_value_t = 400)]
    saves: usize,
    /// How many files of 4 KiB a tree has.
    #[arg(long, default_value_t = 20_000)]
    files: usize,
    /// How many files the larger tree has, for memory.
    #[arg(long, default_value_t = 100_000)]
    files_max: usize,
    /// Size of the large file in MiB.
    #[arg(long, default_value_t = 1024)]
    large_mib: usize,
}

fn main() {
    let options = Options::parse();
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|o| o == name);
    println!("{:<52} {:>24}   goal", "what", "measured");
    if wanted("save") {
        saves(options.saves);
    }
    if ["first-sync", "memory", "idle", "scan", "move"].iter().any(|name| wanted(name)) {
        tree(&options, &wanted);
    }
    if wanted("tar") {
        tar(options.files);
    }
    if wanted("large") {
        large(options.large_mib);
    }
    if wanted("memory") {
        memory(options.files_max);
    }
    if wanted("undo") {
        undo(options.files);
    }
}

fn line(what: &str, measured: &str, goal: &str) {
    println!("{what:<52} {measured:>24}   {goal}");
}

fn saves(count: usize) {
    let cluster = Cluster::of(2);
    let (a, b) = (&cluster.masters[0], &cluster.masters[1]);
    fs::create_dir(a.path("site")).expect("a scratch directory");
    for (how, rename) in [("written in place", false), ("renamed over", true), ("new files", false)]
    {
        // Many files in turn: one that is saved without pause is hot, and published less often.
        for page in 0..PAGES {
            fs::write(a.path(&format!("site/page{page}")), [0; 4096]).expect("a scratch file");
        }
        cluster.settle_to(0, "the file before");
        let arrivals = Arrivals::in_directory(&b.path("site"));
        let mut times: Vec<Duration> = (1..=count)
            .map(|number| {
                let name = match how {
                    "new files" => format!("n{number}"),
                    _ => format!("page{}", number % PAGES),
                };
                save(a, b, &name, number, rename, &arrivals)
            })
            .collect();
        times.sort();
        let at =
            |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        let measured = format!("{:.1} / {:.1} / {:.1} ms", at(0.5), at(0.99), at(1.0));
        let goal = if how == "new files" { "" } else { "5 / 25 ms" };
        line(&format!("save of 4 KiB {how}: median, 99 %, max"), &measured, goal);
    }
}

/// One save on `a`, from its first system call until `b` reads it.
fn save(
    a: &Master,
    b: &Master,
    name: &str,
    number: usize,
    rename: bool,
    arrivals: &Arrivals,
) -> Duration {
    let mut bytes = vec![number as u8; 4096];
    bytes[..8].copy_from_slice(&(number as u64 + u64::from(rename) * 1_000_000).to_le_bytes());
    let path = a.path("site").join(name);
    let start = Instant::now();
    if rename {
        fs::write(a.path("site/.tmp"), &bytes).expect("a scratch file");
        fs::rename(a.path("site/.tmp"), &path).expect("a scratch file");
    } else {
        fs::write(&path, &bytes).expect("a scratch file");
    }
    let copy = b.path("site").join(name);
    while fs::read(&copy).ok().as_ref() != Some(&bytes) {
        assert!(start.elapsed() < Duration::from_secs(30), "save {number} never arrived");
        arrivals.await_one();
    }
    let elapsed = start.elapsed();
    // A person saves, looks, saves again: let what follows a save (records, acknowledgements) end.
    std::thread::sleep(Duration::from_millis(15 + (number as u64 * 7) % 20));
    elapsed
}

/// Renames into a directory, told by the kernel.
struct Arrivals(rustix::fd::OwnedFd);

impl Arrivals {
    fn in_directory(path: &Path) -> Self {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let queue = inotify::init(flags).expect("inotify is there");
        let events = inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&queue, path, events).expect("a directory can be watched");
        Self(queue)
    }

    /// Returns at the next event, or after a tenth of a second.
    fn await_one(&self) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout));
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        while reader.next().is_ok() {}
    }
}

/// Counts what is not a directory, below `directory`, without looking at it.
fn count_files(directory: &Path) -> usize {
    let mut pending = vec![directory.to_owned()];
    let mut count = 0;
    while let Some(directory) = pending.pop() {
        let Ok(listing) = fs::read_dir(directory) else { continue };
        for entry in listing.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                Ok(_) => count += 1,
                Err(_) => {}
            }
        }
    }
    count
}

fn await_files(directory: &Path, count: usize) {
    wait_until(&format!("{count} files arrive"), PATIENCE, || match count_files(directory) {
        found if found >= count => Ok(()),
        found => {
            // Counting takes time from those who make them.
            std::thread::sleep(COUNT_INTERVAL);
            Err(format!("{found} so far"))
        }
    });
}

/// First sync against rsync, then what can be measured with the tree in place.
fn tree(options: &Options, wanted: &dyn Fn(&str) -> bool) {
    let files = options.files;
    let mut cluster = Cluster::holding(1, |_, a| small_files(&a.path("tree"), files, 4096));
    wait_until("a has taken up its tree", PATIENCE, || {
        match cluster.masters[0].status().number("/tree/files") {
            count if count >= files as u64 => Ok(()),
            count => Err(format!("{count} files")),
        }
    });
    // What rsync copied stays until the end: some file systems are slow to make files where others were
    // removed a moment before.
    let rsync = wanted("first-sync").then(|| rsync_rate(&cluster.masters[0], files)).flatten();

    // What rsync has left unwritten, pleach would have to write with its own.
    rustix::fs::sync();
    let mut b = Master::new(cluster.scratch.path(), "b");
    let ticket = cluster.masters[0].invite();
    let start = Instant::now();
    b.start_joining(&ticket);
    await_files(&b.path("tree"), files);
    let rate = files as f64 / start.elapsed().as_secs_f64();
    cluster.masters.push(b);
    if wanted("first-sync") {
        line(&format!("first sync of {files} files of 4 KiB"), &format!("{rate:.0} files/s"), "");
        if let Some((rsync, _)) = &rsync {
            line("the same by rsync -a from its daemon", &format!("{rsync:.0} files/s"), "");
            line("ratio to rsync", &format!("{:.2}", rate / rsync), "0.7");
        }
    }
    cluster.settle_to(0, "the tree is on both");
    if wanted("memory") {
        resident(&cluster, files, "60 MiB");
    }
    if wanted("idle") {
        idle(&cluster);
    }
    if wanted("move") {
        moves(&cluster, files);
    }
    if wanted("scan") {
        scan(&mut cluster, files);
    }
}

/// How many files a second rsync copies, and the directory that it copied them to.
fn rsync_rate(a: &Master, files: usize) -> Option<(f64, tempfile::TempDir)> {
    if !have("rsync") {
        return None;
    }
    let scratch = tempfile::tempdir_in(a.directory().parent()?).ok()?;
    let port = a.port() + 1;
    let config = scratch.path().join("rsyncd.conf");
    let module = format!(
        "use chroot = no\nport = {port}\naddress = 127.0.0.1\n[tree]\npath = {}\nuid = {uid}\ngid = {gid}\n",
        a.path("tree").display(),
        uid = rustix::process::geteuid().as_raw(),
        gid = rustix::process::getegid().as_raw(),
    );
    fs::write(&config, module).ok()?;
    let mut daemon = Command::new("rsync")
        .args(["--daemon", "--no-detach"])
        .arg(format!("--config={}", config.display()))
        .stdin(Stdio::null())
        .spawn()
        .ok()?;
    let url = format!("rsync://127.0.0.1:{port}/tree/");
    let listed = probe_until(Duration::from_secs(10), || {
        let listed =
            Command::new("rsync").arg(&url).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if listed.is_ok_and(|status| status.success()) { Ok(()) } else { Err(String::new()) }
    });
    let target = scratch.path().join("copy");
    rustix::fs::sync();
    let start = Instant::now();
    let copied = Command::new("rsync").arg("-a").arg(&url).arg(&target).status();
    let elapsed = start.elapsed();
    let _ = daemon.kill();
    let _ = daemon.wait();
    let complete = listed.is_ok()
        && copied.is_ok_and(|status| status.success())
        && count_files(&target) == files;
    complete.then(|| (files as f64 / elapsed.as_secs_f64(), scratch))
}

fn resident(cluster: &Cluster, files: usize, goal: &str) {
    let of = |master: &Master| {
        let status =
            fs::read_to_string(format!("/proc/{}/status", master.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
    };
    let each: Vec<String> =
        cluster.masters.iter().map(|master| format!("{:.0}", of(master))).collect();
    let what = format!("resident memory at {files} files, each");
    line(&what, &format!("{} MiB", each.join(", ")), goal);
}

fn idle(cluster: &Cluster) {
    const SECONDS: u64 = 30;
    // What follows a load may still go on for a moment.
    std::thread::sleep(Duration::from_secs(10));
    let ticks = |master: &Master| master.cpu_ticks();
    let before: Vec<u64> = cluster.masters.iter().map(ticks).collect();
    std::thread::sleep(Duration::from_secs(SECONDS));
    let shares: Vec<String> = cluster
        .masters
        .iter()
        .zip(before)
        .map(|(master, before)| format!("{:.2}", (ticks(master) - before) as f64 / SECONDS as f64))
        .collect();
    line("idle CPU of a core over 30 s, each", &format!("{} %", shares.join(", ")), "0.1 %");
}

fn sent(cluster: &Cluster) -> u64 {
    let of = |master: &Master| {
        let status = master.status();
        status.list("/masters").iter().filter_map(|other| other["bytes_sent"].as_u64()).sum::<u64>()
    };
    cluster.masters.iter().map(of).sum()
}

fn moves(cluster: &Cluster, files: usize) {
    let (a, b) = (&cluster.masters[0], &cluster.masters[1]);
    // Half of the tree: 10,000 files of 20,000.
    shell(a.directory(), "mkdir half; cd tree; mv $(ls | head -n $(($(ls | wc -l) / 2))) ../half/");
    cluster.settle_to(0, "half of the tree is moved, in many moves");
    let before = sent(cluster);
    let start = Instant::now();
    fs::rename(a.path("half"), a.path("moved")).expect("a rename");
    let arrivals = Arrivals::in_directory(b.directory());
    while !b.path("moved").exists() {
        assert!(start.elapsed() < PATIENCE, "the move never arrived");
        arrivals.await_one();
    }
    let elapsed = start.elapsed().as_secs_f64() * 1e3;
    cluster.settle_to(0, "the move");
    let bytes = (sent(cluster) - before) as f64 / 1024.0;
    let what = format!("mv of a directory of {} files", files / 2);
    line(&what, &format!("{elapsed:.1} ms, {bytes:.1} KiB sent"), "64 KiB");
}

fn scan(cluster: &mut Cluster, files: usize) {
    let start = Instant::now();
    shell(cluster.masters[0].directory(), "find . -newer /proc/1/cmdline -print > /dev/null");
    let find = start.elapsed();
    let mut times = Vec::new();
    for _ in 0..3 {
        let a = &mut cluster.masters[0];
        a.stop();
        let start = Instant::now();
        a.start();
        wait_until("the scan at start is done", PATIENCE, || {
            let status = a.status();
            if status.0["work"]["scanning"] == false { Ok(()) } else { Err(String::new()) }
        });
        times.push(start.elapsed());
    }
    times.sort();
    let what = format!("start with {files} unchanged files; find -newer");
    let measured =
        format!("{:.0} ms; {:.0} ms", times[1].as_secs_f64() * 1e3, find.as_secs_f64() * 1e3);
    line(&what, &measured, "twice find, for the scan");
}

fn tar(files: usize) {
    let cluster = Cluster::of(2);
    let (a, b) = (&cluster.masters[0], &cluster.masters[1]);
    let outside: PathBuf = cluster.scratch.path().join("outside");
    small_files(&outside.join("tree"), files, 4096);
    shell(&outside, "tar cf ../tree.tar tree");
    let start = Instant::now();
    shell(a.directory(), "tar xf ../tree.tar");
    let end = Instant::now();
    await_files(&b.path("tree"), files);
    let after = end.elapsed();
    cluster.settle_to(0, "tar x");
    let what = format!("tar x of {files} files; all on the other after its end");
    let took = end - start;
    line(&what, &format!("{:.1} s; {:.1} s", took.as_secs_f64(), after.as_secs_f64()), "5 s");
}

fn large(mib: usize) {
    let cluster = Cluster::of(2);
    let (a, b) = (&cluster.masters[0], &cluster.masters[1]);
    let size = mib << 20;
    let outside = cluster.scratch.path().join("large");
    write_random(&outside, size, None);
    let start = Instant::now();
    fs::rename(&outside, a.path("large")).expect("the same file system");
    await_size(&b.path("large"), size);
    let seconds = start.elapsed().as_secs_f64();
    let what = format!("a file of {mib} MiB");
    line(&what, &format!("{:.0} MB/s", size as f64 / 1e6 / seconds), "250 MB/s");
    cluster.settle_to(0, "the large file");

    let before = sent(&cluster);
    write_random(&outside, size, Some(b'x'));
    let start = Instant::now();
    fs::rename(&outside, a.path("large")).expect("the same file system");
    await_size(&b.path("large"), size + 1);
    let seconds = start.elapsed().as_secs_f64();
    cluster.settle_to(0, "one byte more");
    let bytes = (sent(&cluster) - before) as f64 / MIB;
    line(
        "one byte inserted in front of it",
        &format!("{seconds:.1} s, {bytes:.2} MiB sent"),
        "1 MiB",
    );
}

/// Bytes that no chunk repeats and no disk compresses, the same every time, after `first`.
fn write_random(path: &Path, size: usize, first: Option<u8>) {
    let mut file = fs::File::create(path).expect("a scratch file");
    file.write_all(first.as_slice()).expect("a scratch file can be written");
    let mut stream = blake3::Hasher::new().finalize_xof();
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..size >> 20 {
        stream.fill(&mut buffer);
        file.write_all(&buffer).expect("a scratch file can be written");
    }
}

fn await_size(path: &Path, size: usize) {
    wait_until("the large file arrives", PATIENCE, || match fs::metadata(path) {
        Ok(metadata) if metadata.size() == size as u64 => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// Two masters with a tree of so many files of so many bytes, of which the second got it from the first.
fn two_with_tree(files: usize, size: usize) -> Cluster {
    let mut cluster = Cluster::holding(1, |_, a| small_files(&a.path("tree"), files, size));
    let mut b = Master::new(cluster.scratch.path(), "b");
    b.join(&cluster.masters[0]);
    b.start();
    await_files(&b.path("tree"), files);
    cluster.masters.push(b);
    cluster.settle_to(0, "the tree is on both");
    cluster
}

fn memory(files: usize) {
    let cluster = two_with_tree(files, 100);
    resident(&cluster, files, "150 MiB");
}

/// Somebody removes a directory; somebody else asks who did that, and brings it back.
fn undo(files: usize) {
    let cluster = two_with_tree(files, 4096);
    let (a, b) = (&cluster.masters[0], &cluster.masters[1]);
    let before = b.pleach(["log", "--limit", "1", "--json"]).ok().json();
    let before_ms = before[0]["time_ms"].as_i64().expect("a time");
    shell(a.directory(), "rm -r tree");
    // More than half of a tree goes only if somebody says so.
    wait_until("a has looked", PATIENCE, || {
        let asked = a.pleach(["guard", "--allow"]);
        match a.status().number("/tree/files") {
            0 => Ok(()),
            _ => Err(asked.to_string()),
        }
    });
    cluster.settle_to(0, "it is gone on both");
    let start = Instant::now();
    let _ = b.pleach(["log", "tree", "--json"]).ok();
    let told = start.elapsed().as_secs_f64() * 1e3;
    let what = format!("log of a directory of {files} files, the last 100");
    line(&what, &format!("{told:.0} ms"), "");
    let at = format!("@{}.{:03}", before_ms / 1_000, before_ms % 1_000);
    let start = Instant::now();
    let _ = b.pleach(["restore", "tree", "--at", &at, "--json"]).ok();
    let answered = start.elapsed();
    await_files(&b.path("tree"), files);
    await_files(&a.path("tree"), files);
    let all = start.elapsed();
    cluster.settle_to(0, "it is back");
    let measured = format!("{:.1} s; {:.1} s", answered.as_secs_f64(), all.as_secs_f64());
    line(&format!("restore of {files} removed files; all on both"), &measured, "seconds");
}
