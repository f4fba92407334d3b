//! How far long work has come, in a line.

use super::units::{number, size};
use crate::progress::Stage;

/// `fetching: 12/30 files, 1.0 MiB/3.0 MiB, 300 KiB/s`: with a bar before it, still less than 80 columns.
pub(crate) fn stage(stage: Stage, bytes_per_second: Option<u64>) -> String {
    let Stage { what, unit, done, total, bytes, bytes_total } = stage;
    let counted = format!("{what}: {}/{} {unit}", number(done), number(total.max(done)));
    let bytes = match bytes_total {
        Some(total) => format!("{}/{}", size(bytes), size(total.max(bytes))),
        None => size(bytes),
    };
    let rate = bytes_per_second.map(|rate| format!(", {}/s", size(rate))).unwrap_or_default();
    format!("{counted}, {bytes}{rate}")
}
