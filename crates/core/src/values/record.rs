//! Records: what must be durable before anything that follows it is done.

use serde::{Deserialize, Serialize};

use super::{Mark, SignedChange};

/// One thing to make durable. Records of one output are committed together or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// Append to the log of changes.
    Change(SignedChange),
    /// Note in the index of the log what a change is about; its own record comes before, in the same output.
    /// The index may be made anew from the log ([`crate::replica::gate::mark`]).
    Mark(Mark),
    /// Set a row of the base, or remove it. Rows are opaque to the driver.
    Base {
        /// The row's key.
        id: u64,
        /// The row; none removes it.
        row: Option<Vec<u8>>,
    },
    /// Set a row of the effects in flight, or remove it: what a crash may leave half done.
    Intent {
        /// The row's key.
        id: u64,
        /// The row; none removes it.
        row: Option<Vec<u8>>,
    },
}
