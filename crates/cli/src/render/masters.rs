//! The members of a store.

use comfy_table::{Cell, Color};
use pleach_daemon::control::MasterReport;

use super::units::{age, count, size};
use super::{Style, lines, table};

/// A line for each master, this one first.
pub(crate) fn masters(masters: &[MasterReport], style: Style, now_ms: i64) -> String {
    let mut rows: Vec<&MasterReport> = masters.iter().collect();
    rows.sort_by_key(|master| (!master.this, master.removed, &master.name));
    let mut table =
        table(style, &["MASTER", "STATE", "BEHIND", "LAST SEEN", "SENT", "RECEIVED", "ADDRESS"]);
    for master in rows {
        let (state, colour) = state(master);
        table.add_row(vec![
            Cell::new(&master.name),
            Cell::new(state).fg(colour),
            Cell::new(behind(master)),
            Cell::new(seen(master, now_ms)),
            Cell::new(if master.this { "-".to_owned() } else { size(master.bytes_sent) }),
            Cell::new(if master.this { "-".to_owned() } else { size(master.bytes_received) }),
            Cell::new(master.addresses.first().map_or("-", String::as_str)),
        ]);
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
