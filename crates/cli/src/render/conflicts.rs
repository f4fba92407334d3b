//! The open conflicts, for a tired person: a line each.

use comfy_table::{Cell, Color};
use pleach_core::values::{ConflictKind, Rule, VersionOf};
use pleach_daemon::control::{ConflictReport, VersionKind, VersionReport};

use super::units::{age, count, size};
use super::{Style, lines, table};

/// A line for each conflict, and what to do about them.
pub(crate) fn conflicts(conflicts: &[ConflictReport], style: Style, now_ms: i64) -> String {
    if conflicts.is_empty() {
        return format!("{}\n", style.good("no conflicts"));
    }
    let heads = ["PATH", "WHAT HAPPENED", "VERSIONS", "STANDS", "OTHERS", "SINCE"];
    let mut table = table(style, &heads);
    for conflict in conflicts {
        let (stands, others): (Vec<_>, Vec<_>) = conflict.versions.iter().partition(|v| v.stands);
        table.add_row(vec![
            Cell::new(&conflict.path).fg(Color::Yellow),
            Cell::new(happened(conflict)),
            Cell::new(conflict.versions.len()),
            Cell::new(stands.first().map_or("-".to_owned(), |v| brief(v, now_ms))),
            Cell::new(others.iter().map(|v| brief(v, now_ms)).collect::<Vec<_>>().join("; ")),
            Cell::new(since(conflict).map_or("earlier".to_owned(), |t| age(t, now_ms))),
        ]);
    }
    let heading = count(conflicts.len() as u64, "open conflict", "open conflicts");
    let advice = "look:   pleach conflicts show PATH, pleach conflicts diff PATH\n\
                  settle: pleach conflicts resolve PATH --keep VERSION|ours|theirs|both|merged";
    format!("{}\n\n{}\n{}\n", style.bold(heading), lines(&mut table), style.dim(advice))
}

/// What happened, in a few words.
pub(crate) fn happened(conflict: &ConflictReport) -> &'static str {
    match (conflict.kind, conflict.rule) {
        (ConflictKind::Edited, _) => "edited on two masters",
        (ConflictKind::SameName, _) => "two things of one name",
        (ConflictKind::MovedTwice, _) => "moved to two places",
        (ConflictKind::MovedIntoEachOther, _) => "moved into each other",
        (ConflictKind::DeletedAndEdited, Rule::MoveBeatsDelete) => "deleted here, moved there",
        (ConflictKind::DeletedAndEdited, _) => "deleted here, edited there",
    }
}

/// Since when there is a choice: by the clock of whoever wrote last, or else since it is known here.
pub(crate) fn since(conflict: &ConflictReport) -> Option<i64> {
    conflict.since_ms.or(conflict.opened_ms)
}

/// Who wrote it, how large it is, when, and its id: what tells versions apart at a glance.
fn brief(version: &VersionReport, now_ms: i64) -> String {
    let detail = match (version.of, &version.elsewhere, version.size) {
        (VersionOf::Deletion, _, _) => "deleted it".to_owned(),
        (_, Some(path), _) => format!("at {path}"),
        (_, None, Some(bytes)) => size(bytes),
        (_, None, None) => what(version),
    };
    let when = version.written_ms.map_or(String::new(), |t| format!(", {}", age(t, now_ms)));
    format!("{} {detail}{when} [{}]", author(version), version.id)
}

pub(crate) fn author(version: &VersionReport) -> &str {
    version.master.as_ref().map_or("unknown", |master| &master.name)
}

pub(crate) fn what(version: &VersionReport) -> String {
    if version.of == VersionOf::Deletion {
        return "nothing left".to_owned();
    }
    match (version.what, &version.target) {
        (VersionKind::Directory, _) => "directory".to_owned(),
        (VersionKind::File, _) => "file".to_owned(),
        (VersionKind::Symlink, Some(target)) => format!("link to {target}"),
        (VersionKind::Symlink, None) => "link".to_owned(),
    }
}
