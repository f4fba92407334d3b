//! What happened to the store's files: read from the log, its index and the replica that they make.
//!
//! The daemon answers with it, and so does a state at rest. Nothing here writes. A page is bounded by what
//! it looks at, not by what it finds: whoever asks, asks again.

mod log;
mod restore;
mod versions;

pub use log::{LOG_ENTRIES_MAX, LogQuery};
pub use restore::{LeftAlone, Plan, RestoreError, content_of, plan};
pub use versions::{FormerVersion, standing_version, versions};

use pleach_core::replica::gate::Refusal as Unreadable;
use pleach_core::values::Member;
use pleach_core::vocabulary::MasterId;

use crate::state::StateError;

/// Why history can't be told.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The state can't be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// A change of the log can't be read, though it was taken in.
    #[error("change {position} of the log can't be read: {source}")]
    Change {
        /// Its position.
        position: u64,
        /// Why not.
        source: Unreadable,
    },
    /// The state is of a version that knew no history, and no daemon of this one has run on it.
    #[error("the log has no index yet: the first start of a daemon of this version makes it")]
    NoIndex,
}

/// The member with this name, or whose id begins so; else how many fit. One that was removed counts as well.
pub(crate) fn member_called(members: &[Member], name: &str) -> Result<MasterId, usize> {
    let is_id = |member: &Member| name.len() >= 4 && member.master.to_string().starts_with(name);
    let fitting: Vec<_> =
        members.iter().filter(|member| member.name == name || is_id(member)).collect();
    match fitting[..] {
        [member] => Ok(member.master),
        _ => Err(fitting.len()),
    }
}
