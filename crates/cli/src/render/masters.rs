//! The members of a store.

use comfy_table::{Cell, Color};
use pleach_daemon::control::MasterReport;

use super::units::{age, count, size};
use super::{Style, lines, table};

/// How many digits of an id are shown: enough to name a master by, as `masters remove` takes it.
const ID_DIGITS: usize = 12;

/// Whether a table of masters has their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    /// In a column of their own.
    Shown,
    /// Names are enough.
    Hidden,
}

/// A line for each master, this one first.
pub(crate) fn masters(masters: &[MasterReport], ids: Ids, style: Style, now_ms: i64) -> String {
    let mut rows: Vec<&MasterReport> = masters.iter().collect();
    rows.sort_by_key(|master| (!master.this, master.removed, &master.name));
    let mut heads =
        vec!["MASTER", "ID", "STATE", "BEHIND", "LAST SEEN", "SENT", "RECEIVED", "ADDRESS"];
    heads.retain(|head| ids == Ids::Shown || *head != "ID");
    let mut table = table(style, &heads);
    for master in rows {
        let (state, colour) = state(master);
        let mut row = vec![Cell::new(&master.name)];
        if ids == Ids::Shown {
            row.push(Cell::new(master.id.get(..ID_DIGITS).unwrap_or(&master.id)));
        }
        row.extend([
            Cell::new(state).fg(colour),
            Cell::new(behind(master)),
            Cell::new(seen(master, now_ms)),
            Cell::new(if master.this { "-".to_owned() } else { size(master.bytes_sent) }),
            Cell::new(if master.this { "-".to_owned() } else { size(master.bytes_received) }),
            Cell::new(master.addresses.first().map_or("-", String::as_str)),
        ]);
        table.add_row(row);
    }
    lines(&mut table)
}

fn state(master: &MasterReport) -> (&'static str, Color) {
    match master {
        MasterReport { removed: true, .. } => ("removed", Color::DarkGrey),
        MasterReport { this: true, .. } => ("this one", Color::Green),
        MasterReport { connected: true, .. } => ("connected", Color::Green),
        _ => ("away", Color::Yellow),
    }
}

fn behind(master: &MasterReport) -> String {
    let changes = |n| count(n, "change", "changes");
    match (master.this || master.removed, master.behind_changes, master.ahead_changes) {
        (true, ..) => "-".to_owned(),
        (_, None | Some(0), Some(ahead @ 1..)) => format!("{} ahead", changes(ahead)),
        (_, None, _) => "unknown".to_owned(),
        (_, Some(0), _) => "nothing".to_owned(),
        (_, Some(behind), _) => changes(behind),
    }
}

fn seen(master: &MasterReport, now_ms: i64) -> String {
    match (master.this, master.connected, master.last_seen_ms) {
        (true, ..) => "-".to_owned(),
        (_, true, _) => "now".to_owned(),
        (_, _, Some(then)) => age(then, now_ms),
        (_, _, None) => "never".to_owned(),
    }
}
