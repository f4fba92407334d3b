//! Long work, on standard error: a bar on a terminal, a plain line every few seconds elsewhere, nothing
//! for programs that read JSON. What is quick shows nothing.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;
use crate::render;

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

/// Shows work that goes on.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: Shown,
    rate: Rate,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Lines { next: Instant },
    Nothing,
}

impl Progress {
    /// Of work that begins now.
    pub(crate) fn new(output: &Output) -> Self {
        let now = Instant::now();
        let shown = match (output.shows_progress(), output.is_text()) {
            (true, _) => Shown::Bar(bar()),
            (false, true) => Shown::Lines { next: now + LINE_EVERY },
            (false, false) => Shown::Nothing,
        };
        Self { shown, rate: Rate::default() }
    }

    /// Shows how far it has come.
    pub(crate) fn show(&mut self, stage: Stage) {
        let now = Instant::now();
        let rate = self.rate.after(now, stage);
        match &mut self.shown {
            Shown::Bar(bar) => {
                draw(bar, stage, rate);
            }
            Shown::Lines { next } if *next <= now => {
                *next = now + LINE_EVERY;
                eprintln!("{}", render::stage(stage, rate));
            }
            Shown::Lines { .. } | Shown::Nothing => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

/// A bar on standard error that shows nothing yet.
pub(crate) fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let template = "{spinner} {msg}  {wide_bar}";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar()));
    bar
}

/// Draws a stage: the bar by bytes where they are known, for files differ in size.
pub(crate) fn draw(bar: &ProgressBar, stage: Stage, bytes_per_second: Option<u64>) {
    let (done, total) = match stage.bytes_total {
        Some(total) if total > 0 => (stage.bytes, total),
        _ => (stage.done, stage.total),
    };
    bar.set_length(total.max(done));
    bar.set_position(done);
    bar.set_message(render::stage(stage, bytes_per_second));
    bar.tick();
}

/// Bytes a second since the work of this sort began.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    began: Option<(&'static str, Instant, u64)>,
}

impl Rate {
    /// The rate at `now`; none in the first second.
    pub(crate) fn after(&mut self, now: Instant, stage: Stage) -> Option<u64> {
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
        assert_eq!(
            rate.after(start + Duration::from_secs(2), stage("reading", 5_000)),
            Some(2_000)
        );
        let later = start + Duration::from_secs(10);
        assert_eq!(rate.after(later, stage("fetching", 9_000)), None, "other work begins anew");
        assert_eq!(rate.after(later + Duration::from_secs(1), stage("fetching", 9_700)), Some(700));
    }
}
