//! Long work, on standard error: a bar on a terminal, a plain line every few seconds elsewhere, nothing
//! for programs that read JSON. What is quick shows nothing.

use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pleach_daemon::control::{Client, EventBody, WorkKind};

use crate::output::Output;
use crate::render;

/// Work that takes no longer shows no bar.
const QUICK: Duration = Duration::from_millis(500);
/// How often what goes on is said anew.
const SAID_EVERY: Duration = Duration::from_millis(250);
/// How often a plain line is printed, and how long the work must take for the first one.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How far some work has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    /// What is being done: `fetching the tree`.
    pub(crate) what: &'static str,
    /// What is counted: `changes`, `files`.
    pub(crate) unit: &'static str,
    /// How many are done.
    pub(crate) done: u64,
    /// How many there are, as far as known.
    pub(crate) total: u64,
    /// Bytes done.
    pub(crate) bytes: u64,
    /// How many bytes there are, if known.
    pub(crate) bytes_total: Option<u64>,
}

impl Stage {
    /// The stage that an event tells of, if it does.
    pub(crate) fn told(event: &EventBody) -> Option<Self> {
        let EventBody::Progress { work, done, total, bytes_done, bytes_total } = *event else {
            return None;
        };
        let what = match work {
            WorkKind::Scan => "reading",
            WorkKind::Fetch => "fetching",
            WorkKind::Apply => "placing",
            WorkKind::Verify => "verifying",
        };
        let total = total.unwrap_or(done);
        Some(Self { what, unit: "files", done, total, bytes: bytes_done, bytes_total })
    }
}

/// Shows work that goes on, until it is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: Shown,
    since: Instant,
    rate: Rate,
}

#[derive(Debug)]
enum Shown {
    Bar { template: &'static str, stands: Arc<Mutex<Option<ProgressBar>>> },
    Lines { next: Instant },
    Nothing,
}

/// A bar before what it says.
const COUNTED: &str = "{spinner} {bar:10} {wide_msg}";
/// Of work that nobody knows the end of.
const ENDLESS: &str = "{spinner} {wide_msg}";

impl Progress {
    /// Of work that begins now.
    pub(crate) fn new(output: &Output) -> Self {
        Self::with(output, COUNTED)
    }

    fn with(output: &Output, template: &'static str) -> Self {
        let shown = match (output.shows_progress(), output.is_text()) {
            (true, _) => Shown::Bar { template, stands: Arc::default() },
            (false, true) => Shown::Lines { next: Instant::now() + LINE_EVERY },
            (false, false) => Shown::Nothing,
        };
        Self { shown, since: Instant::now(), rate: Rate::default() }
    }

    /// A bar that stands below the lines of `log`.
    pub(crate) fn below(log: &LogAboveBar) -> Self {
        let shown = Shown::Bar { template: COUNTED, stands: log.bar.clone() };
        Self { shown, since: Instant::now(), rate: Rate::default() }
    }

    /// Whether there is anything to show it on.
    fn is_shown(&self) -> bool {
        !matches!(self.shown, Shown::Nothing)
    }

    /// Shows how far it has come.
    pub(crate) fn show(&mut self, stage: Stage) {
        let rate = self.rate.after(Instant::now(), stage);
        // By bytes where they are known, for files differ in size.
        let counted = match stage.bytes_total {
            Some(total) if total > 0 => (stage.bytes, total),
            _ => (stage.done, stage.total),
        };
        self.say_counted(counted, || render::stage(stage, rate));
    }

    /// Shows what goes on where there is nothing to count.
    fn say(&mut self, what: impl FnOnce() -> String) {
        self.say_counted((0, 0), what);
    }

    fn say_counted(&mut self, (done, total): (u64, u64), what: impl FnOnce() -> String) {
        let now = Instant::now();
        match &mut self.shown {
            Shown::Bar { template, stands } if now.duration_since(self.since) >= QUICK => {
                let mut stands = lock(stands);
                let bar = stands.get_or_insert_with(|| bar(template));
                bar.set_length(total.max(done));
                bar.set_position(done);
                bar.set_message(what());
            }
            Shown::Lines { next } if *next <= now => {
                *next = now + LINE_EVERY;
                eprintln!("{}", what());
            }
            Shown::Bar { .. } | Shown::Lines { .. } | Shown::Nothing => {}
        }
    }

    /// Takes the bar away until there is something to show again.
    pub(crate) fn clear(&mut self) {
        self.rate = Rate::default();
        if let Shown::Bar { stands, .. } = &self.shown {
            take_away(stands);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn bar(template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar()));
    bar
}

fn take_away(bar: &Mutex<Option<ProgressBar>>) {
    if let Some(bar) = lock(bar).take() {
        bar.finish_and_clear();
    }
}

/// A panic elsewhere leaves a bar as it is.
fn lock(bar: &Mutex<Option<ProgressBar>>) -> MutexGuard<'_, Option<ProgressBar>> {
    bar.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows what the daemon of the store in `root` tells of `work`, until what is returned is dropped.
pub(crate) fn follow(root: &Path, work: WorkKind, output: &Output) -> Option<Following> {
    let mut progress = Progress::new(output);
    let stands = match &progress.shown {
        Shown::Bar { stands, .. } => stands.clone(),
        Shown::Lines { .. } => Arc::default(),
        Shown::Nothing => return None,
    };
    let events = Client::connect(root).and_then(Client::events).ok()?;
    // Ends with the process: the events of a daemon end only with it.
    thread::spawn(move || {
        for event in events.map_while(Result::ok) {
            if matches!(event.body, EventBody::Progress { work: told, .. } if told == work)
                && let Some(stage) = Stage::told(&event.body)
            {
                progress.show(stage);
            }
        }
    });
    Some(Following(stands))
}

/// Takes the bar away when it is dropped, if there is one.
#[derive(Debug)]
pub(crate) struct Following(Arc<Mutex<Option<ProgressBar>>>);

impl Drop for Following {
    fn drop(&mut self) {
        take_away(&self.0);
    }
}

/// Says what goes on in the meantime, until it is dropped.
#[derive(Debug)]
pub(crate) struct Meanwhile {
    until: Option<Sender<()>>,
    saying: Option<JoinHandle<()>>,
}

/// Says what `what` says, again and again until it has nothing more to say, or what is returned is dropped.
pub(crate) fn meanwhile(
    output: &Output,
    mut what: impl FnMut() -> Option<String> + Send + 'static,
) -> Meanwhile {
    let mut progress = Progress::with(output, ENDLESS);
    if !progress.is_shown() {
        return Meanwhile { until: None, saying: None };
    }
    let (until, over) = channel();
    let saying = thread::spawn(move || {
        while let Err(RecvTimeoutError::Timeout) = over.recv_timeout(SAID_EVERY)
            && let Some(text) = what()
        {
            progress.say(|| text);
        }
    });
    Meanwhile { until: Some(until), saying: Some(saying) }
}

impl Drop for Meanwhile {
    fn drop(&mut self) {
        self.until = None;
        if let Some(saying) = self.saying.take() {
            // Whatever it showed is gone before anything else is printed.
            let _ = saying.join();
        }
    }
}

/// Standard error for a log, below which a bar may stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogAboveBar {
    bar: Arc<Mutex<Option<ProgressBar>>>,
}

impl LogAboveBar {
    /// Takes the bar away, if there is one.
    pub(crate) fn end(&self) {
        take_away(&self.bar);
    }
}

impl Write for LogAboveBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &*lock(&self.bar) {
            Some(bar) => bar.suspend(|| io::stderr().write(bytes)),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Bytes a second since the work of this sort began.
#[derive(Debug, Default)]
struct Rate {
    began: Option<(&'static str, Instant, u64)>,
}

impl Rate {
    /// The rate at `now`; none in the first second.
    fn after(&mut self, now: Instant, stage: Stage) -> Option<u64> {
        let began = self.began.filter(|(what, ..)| *what == stage.what);
        let (_, since, bytes) = *self.began.insert(began.unwrap_or((stage.what, now, stage.bytes)));
        let millis = u64::try_from(now.duration_since(since).as_millis()).unwrap_or(u64::MAX);
        let grown = stage.bytes.saturating_sub(bytes);
        (millis >= 1_000).then(|| grown.saturating_mul(1_000) / millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_that_of_the_work_under_way() {
        let start = Instant::now();
        let stage = |what, bytes| Stage {
            what,
            unit: "files",
            done: 0,
            total: 0,
            bytes,
            bytes_total: None,
        };
        let mut rate = Rate::default();
        assert_eq!(rate.after(start, stage("reading", 1_000)), None);
        let later = start + Duration::from_secs(2);
        assert_eq!(rate.after(later, stage("reading", 5_000)), Some(2_000));
        let later = start + Duration::from_secs(10);
        assert_eq!(rate.after(later, stage("fetching", 9_000)), None, "other work begins anew");
        assert_eq!(rate.after(later + Duration::from_secs(1), stage("fetching", 9_700)), Some(700));
    }
}
