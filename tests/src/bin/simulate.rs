//! Runs simulated histories at length: `simulate -- --seeds 0..100000`.
//!
//! Prints a progress line, and for every history that fails its seed, the property that does not hold and
//! a shrunk history. Exit code 1 if any failed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use pleach_tests::simulator::{History, Lines, Property, Wishes, run, shrink};

/// How long plain progress lines are apart.
const PLAIN_LINE_INTERVAL: Duration = Duration::from_secs(20);

/// Simulates masters, users, links and crashes, and checks what must hold.
#[derive(Debug, Parser)]
struct Options {
    /// One seed, or a range of them.
    #[arg(long, default_value = "0..1000", value_parser = parse_seeds)]
    seeds: Range<u64>,
    /// The number of masters, 2 to 4; by default the seed decides.
    #[arg(long)]
    masters: Option<usize>,
    /// The number of things that happen in a history; by default the seed decides.
    #[arg(long)]
    steps: Option<usize>,
    /// How many histories run at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Leave out what some histories have in them: power, calls, backups, clones, undoing, siblings.
    #[arg(long, value_delimiter = ',')]
    without: Vec<Fault>,
    /// Only histories that have one of those in them.
    #[arg(long)]
    faulty: bool,
    /// Print everything that happens in each history, shrunk if it fails, and the hash of it.
    #[arg(long)]
    trace: bool,
    /// How many runs shrinking one failing history may take; 0 leaves it as it is.
    #[arg(long, default_value_t = 600)]
    shrink: usize,
    /// Stop after so many failing histories.
    #[arg(long, default_value_t = 10)]
    failures: u64,
}

/// What some histories have in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Fault {
    /// Power cuts.
    Power,
    /// Calls that fail.
    Calls,
    /// Backups that are restored.
    Backups,
    /// A machine that is cloned.
    Clones,
    /// Removals that are taken back.
    Undoing,
    /// Conflicts that are shown as siblings.
    Siblings,
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    match text.split_once("..") {
        Some((start, end)) => Ok(number(start)?..number(end)?),
        None => number(text).map(|seed| seed..seed + 1),
    }
}

#[derive(Default)]
struct Tally {
    done: AtomicU64,
    events: AtomicU64,
    failed: AtomicU64,
    properties: Mutex<BTreeMap<Property, u64>>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // A panic is a failure that is reported with its seed; the default hook would only repeat it.
    if !options.trace {
        std::panic::set_hook(Box::new(|_| {}));
    }
    let tally = Tally::default();
    let next = AtomicU64::new(options.seeds.start);
    let count = options.seeds.end.saturating_sub(options.seeds.start);
    let bar = ProgressBar::new(count);
    let style = "{pos}/{len} histories, {per_sec}, {eta} to go {wide_bar} {msg}";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is well formed"));
    let started = Instant::now();
    let last_line = Mutex::new(Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let enough = tally.failed.load(Ordering::Relaxed) >= options.failures;
                    if seed >= options.seeds.end || enough {
                        break;
                    }
                    simulate(&options, seed, &tally, &bar);
                    progress(&tally, &bar, count, started, &last_line);
                }
            });
        }
    });
    bar.finish_and_clear();
    summary(&tally, started)
}

fn simulate(options: &Options, seed: u64, tally: &Tally, bar: &ProgressBar) {
    let with = |fault| !options.without.contains(&fault);
    let wishes = Wishes {
        masters: options.masters,
        items: options.steps,
        power: with(Fault::Power),
        calls: with(Fault::Calls),
        backups: with(Fault::Backups),
        clones: with(Fault::Clones),
        undoing: with(Fault::Undoing),
        siblings: with(Fault::Siblings),
        ..Wishes::everything()
    };
    let history = History::new(seed, wishes);
    if options.faulty && !history.has_rare_faults() {
        return;
    }
    let lines = if options.trace { Lines::Hash } else { Lines::Count };
    let report = run(&history, lines);
    tally.done.fetch_add(1, Ordering::Relaxed);
    tally.events.fetch_add(report.events, Ordering::Relaxed);
    if options.trace {
        println!("seed {seed}: {} events, trace {}", report.events, report.trace);
    }
    let Some(failure) = report.failure else {
        if options.trace {
            let _ = run(&history, Lines::Print);
        }
        return;
    };
    tally.failed.fetch_add(1, Ordering::Relaxed);
    let mut properties = tally.properties.lock().unwrap_or_else(PoisonError::into_inner);
    *properties.entry(failure.property).or_default() += 1;
    drop(properties);
    let smallest = shrink(&history, failure.property, options.shrink);
    let lines = if options.trace { Lines::Print } else { Lines::Count };
    let last = run(&smallest, lines).failure.unwrap_or_else(|| failure.clone());
    let text = format!(
        "seed {seed}: {failure}\n  shrunk from {} to {} items: {last}\n{smallest}",
        history.len(),
        smallest.len()
    );
    bar.suspend(|| println!("{text}"));
}

fn progress(
    tally: &Tally,
    bar: &ProgressBar,
    count: u64,
    started: Instant,
    last_line: &Mutex<Instant>,
) {
    let failed = tally.failed.load(Ordering::Relaxed);
    let done = tally.done.load(Ordering::Relaxed);
    if !bar.is_hidden() {
        bar.set_position(done);
        bar.set_message(format!("{failed} failed"));
        return;
    }
    let mut last = last_line.lock().unwrap_or_else(PoisonError::into_inner);
    if last.elapsed() >= PLAIN_LINE_INTERVAL {
        *last = Instant::now();
        let rate = done as f64 / started.elapsed().as_secs_f64();
        println!("{done}/{count} histories, {rate:.0}/s, {failed} failed");
    }
}

fn summary(tally: &Tally, started: Instant) -> ExitCode {
    let failed = tally.failed.load(Ordering::Relaxed);
    println!(
        "{} histories, {} events, {:.1} s, {failed} failed",
        tally.done.load(Ordering::Relaxed),
        tally.events.load(Ordering::Relaxed),
        started.elapsed().as_secs_f64()
    );
    for (property, count) in tally.properties.lock().unwrap_or_else(PoisonError::into_inner).iter()
    {
        println!("  {count} times {property:?}");
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
