//! One conflict in full: its versions side by side, which of them stands, and why.

use std::fmt::Write;

use comfy_table::{Cell, Color};
use pleach_core::values::{Rule, VersionOf};
use pleach_daemon::control::{ConflictReport, VersionReport};

use super::conflicts::{author, happened, since, what};
use super::units::{age, count, date_time, size};
use super::{Style, lines, table};

/// All versions, what they go back to, the rule, and what can be done.
pub(crate) fn conflict(conflict: &ConflictReport, style: Style, now_ms: i64) -> String {
    let heads = ["VERSION", "WRITTEN BY", "AT", "ORDER", "WHAT", "SIZE", "MODE", "HASH", "STATE"];
    let mut table = table(style, &heads);
    let versions = conflict.versions.iter().map(|version| (version, state(version)));
    let ancestor = conflict.ancestor.iter().map(|version| (version, ancestor_state(version)));
    for (version, state) in versions.chain(ancestor) {
        let has_bytes = version.of != VersionOf::Deletion;
        let hash = version.hash.as_deref().filter(|_| has_bytes);
        table.add_row(vec![
            Cell::new(&version.id).fg(Color::Yellow),
            Cell::new(author(version)),
            Cell::new(date_time(version.written_ms.unwrap_or(version.modified_ms))),
            Cell::new(version.order),
            Cell::new(what(version)),
            Cell::new(version.size.filter(|_| has_bytes).map_or("-".to_owned(), size)),
            Cell::new(&version.mode),
            Cell::new(hash.map_or("-", |hash| hash.get(..12).unwrap_or(hash))),
            Cell::new(state),
        ]);
    }
    let opened = since(conflict).map_or(String::new(), |t| format!(", {}", age(t, now_ms)));
    let mut text = format!(
        "{}: {}{opened}\n\n{}\n{}\n\n",
        style.bold(&conflict.path),
        happened(conflict),
        lines(&mut table),
        why(conflict)
    );
    let other = conflict.versions.iter().find(|v| !v.stands).map_or("VERSION", |v| v.id.as_str());
    let path = quoted(&conflict.path.to_string());
    let advice = format!(
        "look:   pleach conflicts diff {path}\nsettle: pleach conflicts resolve {path} --keep {other}"
    );
    let _ = writeln!(text, "{}", style.dim(advice));
    text
}

/// As a shell takes it for one word.
pub(super) fn quoted(path: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "/._-+,:@%".contains(letter);
    match path.chars().all(is_plain) && !path.starts_with('-') {
        true => path.to_owned(),
        false => format!("'{}'", path.replace('\'', r"'\''")),
    }
}

/// Why what stands does, and what the wall clocks say to that.
pub(crate) fn why(conflict: &ConflictReport) -> String {
    let standing = conflict.versions.iter().find(|version| version.stands);
    let id = standing.map_or("the first", |version| &version.id);
    let reason = match conflict.rule {
        Rule::LargestStamp => "its stamp is the largest",
        Rule::DirectoryBeforeFile => "a directory keeps its name before a file",
        Rule::OldestName => "it has had the name the longest",
        Rule::NewestMoveYields => "of moves that would make a circle, the newest yields",
        Rule::EditBeatsDelete => "a delete does not remove what its author had not seen",
        Rule::MoveBeatsDelete => "a delete does not remove what its author had seen elsewhere",
    };
    let clocks = standing.and_then(|standing| {
        let others = conflict.versions.iter().filter(|version| !version.stands);
        let newest = others.max_by_key(|version| version.written_ms)?;
        Some(clocks(standing.written_ms?, newest.written_ms?, &newest.id))
    });
    format!("{id} stands because {reason}{}", clocks.unwrap_or_default())
}

/// The wall clocks' opinion, which decides nothing.
fn clocks(standing_ms: i64, other_ms: i64, other: &str) -> String {
    let seconds = other_ms.abs_diff(standing_ms).div_ceil(1_000);
    let apart = match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => count(seconds / 86_400, "day", "days"),
    };
    match other_ms.cmp(&standing_ms) {
        std::cmp::Ordering::Greater => {
            format!("; wall clocks say that {other} was saved {apart} later")
        }
        std::cmp::Ordering::Less => {
            format!("; wall clocks say that {other} was saved {apart} earlier")
        }
        std::cmp::Ordering::Equal => String::new(),
    }
}

/// What becomes of a version, or would.
pub(crate) fn state(version: &VersionReport) -> String {
    let shown = version.sibling.as_ref().and_then(|path| path.0.names().last());
    let state = match (version.stands, version.of, &version.elsewhere) {
        (true, _, _) => "stands".to_owned(),
        (false, VersionOf::Content, None) if shown.is_some() => {
            shown.map_or(String::new(), |name| format!("beside it: {name}"))
        }
        (false, VersionOf::Deletion, _) => "would be gone".to_owned(),
        (false, _, Some(path)) => format!("would be at {path}"),
        (false, _, None) => "kept aside".to_owned(),
    };
    if version.here == Some(false) { format!("{state}, not on this disk yet") } else { state }
}

fn ancestor_state(version: &VersionReport) -> String {
    let here = if version.here == Some(false) { ", not on this disk" } else { "" };
    format!("what all go back to{here}")
}
