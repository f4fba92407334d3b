//! Facts as text for people. Pure: the same facts, style and time give the same text.

mod conflict;
mod conflicts;
mod diff;
mod guard;
mod log;
mod masters;
mod overlap;
mod progress;
mod restore;
mod settings;
mod status;
mod style;
mod units;
mod verify;
mod versions;

pub(crate) use conflict::{conflict, state, why};
pub(crate) use conflicts::{author, conflicts, happened, since, what};
pub(crate) use diff::{
    DiffText, LineKind, Side, diff, diff_lines, lost_ancestor, no_diff, side_label, unified,
};
pub(crate) use guard::guard;
pub(crate) use log::log;
pub(crate) use masters::{Ids, masters};
pub(crate) use overlap::overlaps;
pub(crate) use progress::stage;
pub(crate) use restore::restored;
pub(crate) use settings::settings;
pub(crate) use status::{counts, status, wait, waiting};
pub(crate) use style::Style;
pub(crate) use units::{age, count, date_time, size};

pub(crate) use verify::verify;
pub(crate) use versions::versions;

use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets};

/// In fewer columns a table is not wrapped: it would be a letter to a line.
const WRAPPED_WIDTH_MIN: u16 = 60;

/// A table without lines: columns under bold heads. On a terminal it wraps to the width.
fn table(style: Style, heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    match style {
        Style::Colours => {
            // A terminal that does not know its width says 0.
            let wraps = table.width().is_some_and(|width| width >= WRAPPED_WIDTH_MIN);
            table.set_content_arrangement(match wraps {
                true => ContentArrangement::Dynamic,
                false => ContentArrangement::Disabled,
            });
            table.enforce_styling();
        }
        Style::Plain => {
            table.set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
        }
    }
    table.set_header(heads.iter().map(|head| Cell::new(head).add_attribute(Attribute::Bold)));
    table
}

/// The table's text: lines without blanks at their ends, and without the margin on the left.
fn lines(table: &mut Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests;
