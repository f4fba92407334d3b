//! How things are with a store.

use std::fmt::Write;
use std::time::Duration;

use pleach_daemon::config::show_duration;
use pleach_daemon::control::{Counts, ProblemReport, StatusReport, WaitReport, Work};

use super::units::{count, size};
use super::{Ids, Style, masters};

/// How many problems are shown; the rest is counted, and all are in the JSON.
const PROBLEMS_SHOWN_MAX: usize = 20;

/// Everything that `status` tells.
pub(crate) fn status(report: &StatusReport, style: Style, now_ms: i64) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} of store {}, in {}",
        style.bold(&report.master.name),
        style.bold(&report.store),
        report.root
    );
    let _ = writeln!(text, "{}", counts(&report.tree));
    if report.on_disk != report.tree {
        let _ = writeln!(text, "of these on this disk: {}", counts(&report.on_disk));
    }
    let running = match report.running {
        true => format!("up {}", show_duration(Duration::from_millis(report.uptime_ms))),
        false => "not running".to_owned(),
    };
    let listening = match &*report.listen {
        [] => String::new(),
        addresses => format!(", on {}", addresses.join(", ")),
    };
    let _ =
        writeln!(text, "{}", style.dim(format!("pleach {}, {running}{listening}", report.version)));
    if let Some(reason) = &report.frozen {
        let frozen = style.alarm("FROZEN:");
        let _ = writeln!(text, "\n{frozen} {reason}: nothing is read or written until it is back");
    }
    let _ = write!(text, "\n{}\n", masters(&report.masters, Ids::Hidden, style, now_ms));
    let _ = writeln!(text, "{}", conflicts_line(report.conflicts, style));
    if report.running {
        let _ = writeln!(text, "{}", work(&report.work));
    }
    text + &problems(report, style)
}

/// What a tree holds: `2 files, 1 directory, no links, 10 B`.
pub(crate) fn counts(counts: &Counts) -> String {
    format!(
        "{}, {}, {}, {}",
        count(counts.files, "file", "files"),
        count(counts.directories, "directory", "directories"),
        count(counts.symlinks, "link", "links"),
        size(counts.bytes)
    )
}

fn conflicts_line(conflicts: u64, style: Style) -> String {
    match conflicts {
        0 => style.good("no conflicts"),
        n => {
            let open = count(n, "conflict is open", "conflicts are open");
            format!("{}: pleach conflicts", style.warn(open))
        }
    }
}

/// Who is behind, or else what is being done here: a line while a wait goes on.
pub(crate) fn waiting(report: &StatusReport) -> String {
    let behind = report.masters.iter().filter(|master| master.connected && !master.this);
    let lacking: Vec<_> = behind
        .filter_map(|master| {
            let changes = master.behind_changes.filter(|changes| *changes > 0)?;
            Some(format!("{} lacks {}", master.name, count(changes, "change", "changes")))
        })
        .collect();
    if lacking.is_empty() { work(&report.work) } else { lacking.join(", ") }
}

fn work(work: &Work) -> String {
    let mut parts = Vec::new();
    if work.scanning {
        parts.push("looking through the directory".to_owned());
    }
    if work.fetching.contents > 0 {
        let contents = count(work.fetching.contents, "content", "contents");
        parts.push(format!("fetching {contents} ({})", size(work.fetching.bytes)));
    }
    if work.effects_pending > 0 {
        let effects = count(work.effects_pending, "change", "changes");
        parts.push(format!("{effects} to put on the disk"));
    }
    match &*parts {
        [] => "nothing to do".to_owned(),
        parts => format!("at work: {}", parts.join(", ")),
    }
}

fn problems(report: &StatusReport, style: Style) -> String {
    let mut text = String::new();
    // Why it is frozen stands above already.
    let frozen = |problem: &&ProblemReport| report.frozen.as_ref() == Some(&problem.reason);
    let problems: Vec<_> = report.problems.iter().filter(|problem| !frozen(problem)).collect();
    if problems.is_empty() {
        return text;
    }
    let heading = count(problems.len() as u64, "problem", "problems");
    let _ = writeln!(text, "\n{}", style.warn(format!("{heading}:")));
    for problem in problems.iter().take(PROBLEMS_SHOWN_MAX) {
        let _ = writeln!(text, "  {}: {}", problem.path, problem.reason);
    }
    if let Some(more @ 1..) = problems.len().checked_sub(PROBLEMS_SHOWN_MAX) {
        let _ = writeln!(text, "  and {more} more: pleach status --json");
    }
    text
}

/// The outcome of a wait.
pub(crate) fn wait(report: &WaitReport, style: Style) -> String {
    if report.converged {
        return format!("{}\n", style.good("all connected masters have it all"));
    }
    let mut text = format!("{}\n", style.warn("not converged:"));
    for master in &report.waiting_for {
        let problems = count(master.problems_total, "problem", "problems");
        let behind = match (&master.reason, master.behind_changes) {
            (Some(reason), _) => reason.clone(),
            (None, Some(0)) => format!("has {problems}"),
            (None, Some(n)) => format!("lacks {}", count(n, "change", "changes")),
            (None, None) => "has not said what it has".to_owned(),
        };
        let _ = writeln!(text, "  {}: {behind}", master.name);
        for problem in &master.problems {
            let _ = writeln!(text, "    {}: {}", problem.path, problem.reason);
        }
        let shown = master.problems.len() as u64;
        if let Some(more @ 1..) = master.problems_total.checked_sub(shown) {
            let _ = writeln!(text, "    and {more} more: pleach status, there");
        }
    }
    text
}
