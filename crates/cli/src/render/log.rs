//! The log: a line for each thing that was done, the newest first.

use comfy_table::{Cell, Color};
use pleach_daemon::control::{DeedKind, LogReport, VersionKind};

use super::units::{count, date_time, size};
use super::{Style, lines, table};
use crate::commands::Rest;

/// A line for each thing that was done.
pub(crate) fn log(entries: &[LogReport], rest: Rest, style: Style) -> String {
    if entries.is_empty() {
        return "nothing is known to have been done there\n".to_owned();
    }
    let mut table = table(style, &["AT", "MASTER", "WHAT", "PATH", "", "VERSION"]);
    for entry in entries {
        let path = entry.path.as_ref().map_or("unknown".to_owned(), ToString::to_string);
        let what = Cell::new(what(entry));
        table.add_row(vec![
            Cell::new(date_time(entry.time_ms)),
            Cell::new(&entry.master.name),
            match entry.what {
                DeedKind::Deleted => what.fg(Color::Red),
                DeedKind::Restored | DeedKind::Created => what.fg(Color::Green),
                _ => what,
            },
            Cell::new(path).fg(Color::Yellow),
            Cell::new(detail(entry)),
            Cell::new(entry.version.as_deref().unwrap_or("")),
        ]);
    }
    let mut text = lines(&mut table);
    if rest == Rest::More {
        let shown = count(entries.len() as u64, "entry", "entries");
        text += &format!("{}\n", style.dim(format!("{shown}; there may be older ones: --limit N")));
    }
    text
}

fn what(entry: &LogReport) -> &'static str {
    match entry.what {
        DeedKind::Created => "created",
        DeedKind::Edited => "edited",
        DeedKind::Resolved => "resolved",
        DeedKind::Moved => "moved",
        DeedKind::ModeChanged => "mode",
        DeedKind::OwnerChanged => "owner",
        DeedKind::AttributeChanged => "attribute",
        DeedKind::Touched => "touched",
        DeedKind::Deleted => "deleted",
        DeedKind::Restored => "restored",
    }
}

fn detail(entry: &LogReport) -> String {
    let shown = |bytes: Option<u64>| bytes.map_or("?".to_owned(), size);
    if let Some(target) = &entry.target {
        return format!("link to {target}");
    }
    match (entry.what, entry.kind) {
        (DeedKind::Moved, _) => match &entry.from {
            Some(from) => format!("from {from}"),
            None => String::new(),
        },
        (DeedKind::ModeChanged, _) => {
            let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "?".to_owned());
            format!("{} -> {}", mode(&entry.mode_before), mode(&entry.mode))
        }
        (_, VersionKind::Directory) => "directory".to_owned(),
        (DeedKind::Edited | DeedKind::Resolved, _) => {
            format!("{} -> {}", shown(entry.size_before), shown(entry.size))
        }
        (DeedKind::Created | DeedKind::Restored, _) => shown(entry.size),
        (DeedKind::Deleted, _) => shown(entry.size_before),
        _ => String::new(),
    }
}
