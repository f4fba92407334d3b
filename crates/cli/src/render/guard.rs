//! What of a mass deletion waits for a person.

use std::fmt::Write;

use pleach_daemon::control::{GuardReport, JudgementReport};

use super::Style;
use super::units::count;

/// How many paths are shown; more are in the JSON.
const PATHS_SHOWN_MAX: usize = 20;

/// What waits; or else what was waiting and what becomes of it.
pub(crate) fn guard(
    report: &GuardReport,
    judgement: Option<JudgementReport>,
    style: Style,
) -> String {
    let gone = count(report.entries, "file or directory", "files and directories");
    match (report.entries, judgement) {
        (0, _) => return format!("{}\n", style.good("nothing waits for you")),
        (_, Some(JudgementReport::Allow)) => {
            return format!("{gone}: removed on all masters; retained versions stay\n");
        }
        (_, Some(JudgementReport::Undo)) => {
            return format!("{gone}: coming back here from the other masters\n");
        }
        (_, None) => {}
    }
    let heading = format!("{gone} of {} are gone from this disk, and wait for you:", report.of);
    let mut text = format!("{}\n", style.alarm(heading));
    for path in report.paths.iter().take(PATHS_SHOWN_MAX) {
        let _ = writeln!(text, "  {path}");
    }
    if let Some(more @ 1..) = report.paths.len().checked_sub(PATHS_SHOWN_MAX) {
        let _ = writeln!(text, "  and {more} more");
    }
    text + "pleach guard --allow   removes them on all masters\n\
            pleach guard --undo    brings them back here\n"
}
