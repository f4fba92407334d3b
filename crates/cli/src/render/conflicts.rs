//! Open conflicts, for a tired person.

use std::fmt::Write;

use comfy_table::{Cell, Color};
use pleach_core::values::ConflictKind;
use pleach_daemon::control::{ConflictReport, VersionKind, VersionReport};

use super::units::{age, count, date_time, size};
use super::{Style, lines, table};

/// A line for each conflict, and what to do about them.
pub(crate) fn conflicts(conflicts: &[ConflictReport], style: Style, now_ms: i64) -> String {
    if conflicts.is_empty() {
        return format!("{}\n", style.good("no conflicts"));
    }
    let mut table = table(style, &["PATH", "WHAT HAPPENED", "STANDS", "OTHERS", "OPENED"]);
    for conflict in conflicts {
        let (stands, others): (Vec<_>, Vec<_>) = conflict.versions.iter().partition(|v| v.stands);
        table.add_row(vec![
            Cell::new(&conflict.path).fg(Color::Yellow),
            Cell::new(happened(conflict.kind)),
            Cell::new(stands.first().map_or("-".to_owned(), |v| brief(v))),
            Cell::new(others.iter().map(|v| brief(v)).collect::<Vec<_>>().join("; ")),
            Cell::new(conflict.opened_ms.map_or("earlier".to_owned(), |t| age(t, now_ms))),
        ]);
    }
    let heading = count(conflicts.len() as u64, "open conflict", "open conflicts");
    let advice = "look:   pleach conflicts show PATH\n\
                  settle: pleach conflicts resolve PATH --keep VERSION|ours|theirs|both";
    format!("{}\n\n{}\n{}\n", style.bold(heading), lines(&mut table), style.dim(advice))
}

/// All versions of one conflict.
pub(crate) fn conflict(conflict: &ConflictReport, style: Style, now_ms: i64) -> String {
    let mut table =
        table(style, &["VERSION", "WRITTEN BY", "MODIFIED", "WHAT", "SIZE", "HASH", "STATE"]);
    for version in &conflict.versions {
        table.add_row(vec![
            Cell::new(&version.id).fg(Color::Yellow),
            Cell::new(author(version)),
            Cell::new(date_time(version.modified_ms)),
            Cell::new(what(version)),
            Cell::new(version.size.map_or("-".to_owned(), size)),
            Cell::new(version.hash.as_deref().map_or("-", |hash| hash.get(..12).unwrap_or(hash))),
            Cell::new(state(version)),
        ]);
    }
    let opened = conflict.opened_ms.map_or(String::new(), |t| format!(", {}", age(t, now_ms)));
    let mut text = format!(
        "{}: {}{opened}\n\n{}\n",
        style.bold(&conflict.path),
        happened(conflict.kind),
        lines(&mut table)
    );
    let example = conflict.versions.iter().find(|v| !v.stands).map_or("VERSION", |v| v.id.as_str());
    let advice = format!("settle: pleach conflicts resolve {} --keep {example}", conflict.path);
    let _ = writeln!(text, "{}", style.dim(advice));
    text
}

fn happened(kind: ConflictKind) -> &'static str {
    match kind {
        ConflictKind::Edited => "edited on two masters",
        ConflictKind::SameName => "two things of one name",
        ConflictKind::MovedTwice => "moved to two places",
        ConflictKind::MovedIntoEachOther => "moved into each other",
    }
}

/// Who wrote it, how large it is, and its id: what tells versions apart at a glance.
fn brief(version: &VersionReport) -> String {
    let detail = match (&version.elsewhere, version.size) {
        (Some(path), _) => format!("at {path}"),
        (None, Some(bytes)) => size(bytes),
        (None, None) => what(version),
    };
    format!("{} {detail} [{}]", author(version), version.id)
}

fn author(version: &VersionReport) -> &str {
    version.master.as_ref().map_or("unknown", |master| &master.name)
}

fn what(version: &VersionReport) -> String {
    match (version.what, &version.target) {
        (VersionKind::Directory, _) => "directory".to_owned(),
        (VersionKind::File, _) => "file".to_owned(),
        (VersionKind::Symlink, Some(target)) => format!("link to {target}"),
        (VersionKind::Symlink, None) => "link".to_owned(),
    }
}

fn state(version: &VersionReport) -> String {
    match (version.stands, &version.elsewhere) {
        (true, _) => "stands".to_owned(),
        (false, Some(path)) => format!("would be at {path}"),
        (false, None) => "kept aside".to_owned(),
    }
}
