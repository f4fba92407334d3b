//! What was restored: a line for each path, and how many there are of each kind.

use pleach_daemon::control::{RestoreOutcome, RestoredReport};

use super::Style;
use super::units::{count, size};

/// A line for each path.
pub(crate) fn restored(report: &[RestoredReport], style: Style) -> String {
    if report.is_empty() {
        return "all is as it was then: nothing is to be restored\n".to_owned();
    }
    let mut text = String::new();
    for line in report {
        let size = line.size.map_or(String::new(), |bytes| format!(" ({})", size(bytes)));
        text += &match line.outcome {
            RestoreOutcome::Restored => format!("{} {}{size}\n", style.good("restored"), line.path),
            RestoreOutcome::WouldRestore => {
                let from = if line.here { "" } else { ", from another master" };
                format!("{} {}{size}{from}\n", style.good("would restore"), line.path)
            }
            RestoreOutcome::Missing => {
                format!(
                    "{} {}{size}: nobody connected has its bytes\n",
                    style.bad("missing"),
                    line.path
                )
            }
            RestoreOutcome::Moved => {
                format!("{} {}: it has been moved to there since\n", style.warn("left"), line.path)
            }
            RestoreOutcome::InTheWay => {
                format!("{} {}: something else is in its place\n", style.warn("left"), line.path)
            }
        };
    }
    let of = |outcome| report.iter().filter(|line| line.outcome == outcome).count() as u64;
    let would = of(RestoreOutcome::WouldRestore);
    let (all, done) = (report.len() as u64, of(RestoreOutcome::Restored) + would);
    let verb = if would > 0 { "would be restored" } else { "restored" };
    if all > 1 {
        let left = match all - done {
            0 => String::new(),
            left => format!(", {left} not"),
        };
        text += &format!("{} {verb}{left}\n", style.bold(count(done, "path", "paths")));
    }
    text
}
