//! The settings of a store.

use comfy_table::Cell;
use pleach_daemon::control::SettingReport;

use super::{Style, lines, table};

/// A line for each.
pub(crate) fn settings(settings: &[SettingReport], style: Style) -> String {
    let mut table = table(style, &["SETTING", "VALUE", "MAY BE", "ABOUT"]);
    for setting in settings {
        table.add_row([
            Cell::new(&setting.key),
            Cell::new(&setting.value),
            Cell::new(setting.values.join(", ")),
            Cell::new(&setting.about),
        ]);
    }
    lines(&mut table)
}
