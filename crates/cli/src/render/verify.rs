//! What came of reading everything again.

use std::fmt::Write;
use std::time::Duration;

use pleach_daemon::config::show_duration;
use pleach_daemon::control::VerifyReport;

use super::Style;
use super::units::{count, size};

/// What was read, and what was found damaged.
pub(crate) fn verify(report: &VerifyReport, style: Style) -> String {
    let mut text = format!(
        "read {} ({}) in {}\n",
        count(report.files, "file", "files"),
        size(report.bytes),
        show_duration(Duration::from_millis(report.elapsed_ms))
    );
    if report.damaged.is_empty() {
        let _ = writeln!(text, "{}", style.good("all as they were written"));
        return text;
    }
    let damaged = count(report.damaged.len() as u64, "file was", "files were");
    let heading = format!("{damaged} damaged, {} healed:", report.healed);
    let _ = writeln!(text, "{}", style.alarm(heading));
    for damage in &report.damaged {
        let outcome = if damage.healed { "healed" } else { "NOT healed" };
        let _ = writeln!(text, "  {}: {outcome}, {}", damage.path, damage.reason);
    }
    text
}
