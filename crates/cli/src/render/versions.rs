//! The versions of a file: a line each, the newest first.

use comfy_table::{Cell, Color};
use pleach_daemon::control::FormerReport;

use super::conflict::quoted;
use super::units::{date_time, size};
use super::{Style, lines, table};

/// A line for each version, and how to get one back.
pub(crate) fn versions(found: &[FormerReport], path: &str, style: Style) -> String {
    if found.is_empty() {
        return "no version is known\n".to_owned();
    }
    let heads = ["VERSION", "WRITTEN AT", "BY", "SIZE", "MODE", "HASH", "BYTES", "CALLED"];
    let mut table = table(style, &heads);
    for version in found {
        let hash = version.hash.as_deref().map_or("-", |hash| hash.get(..12).unwrap_or(hash));
        let called = version.path.as_ref().map_or("unknown".to_owned(), ToString::to_string);
        table.add_row(vec![
            Cell::new(&version.version).fg(Color::Yellow),
            Cell::new(date_time(version.time_ms)),
            Cell::new(&version.master.name),
            Cell::new(size(version.size)),
            Cell::new(&version.mode),
            Cell::new(hash),
            Cell::new(bytes(version)),
            Cell::new(called),
        ]);
    }
    let first = found.iter().find(|version| !version.stands).map_or("VERSION", |v| &v.version);
    let advice = format!("get one back: pleach restore {} --version {first}", quoted(path));
    format!("{}\n{}\n", lines(&mut table), style.dim(advice))
}

fn bytes(version: &FormerReport) -> String {
    match (version.stands, &version.target, version.here, &version.at) {
        (true, ..) => "stands".to_owned(),
        (_, Some(target), ..) => format!("link to {target}"),
        (.., Some(at)) => at.to_string(),
        (.., Some(true), None) => "none to keep".to_owned(),
        (.., Some(false), None) => "not on this disk".to_owned(),
        (.., None, None) => String::new(),
    }
}
