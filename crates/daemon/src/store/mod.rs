//! A store in a directory: found, made, joined, opened.
//!
//! ```text
//!   DIR/.pleach/          mode 0700, never replicated
//!     incarnation, lock   what disk::Root keeps
//!     staging/ parking/ versions/
//!     key                 this master's secret
//!     config.toml         this master's settings
//!     state.db            written last: with it, the store is made
//!     started             once a daemon has run: without state.db from then on, the state is lost
//!     socket              while a daemon runs
//! ```
//!
//! Making is repeatable: what a crash or a lost answer left without `state.db` is completed by the next
//! attempt, with the same key.

mod error;
mod found;
mod handover;
mod make;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use pleach_core::values::Member;

pub use error::StoreError;
pub use found::{find, root_at};
pub use handover::{HandoverProgress, TakenOver};
pub use make::{Joined, default_name, init, join};

use crate::config::Config;
use crate::disk::Root;
use crate::identity::{KEY_FILE, KeyError, MasterKey, StoreSeed};
use crate::state::{MetaKey, State};

/// The name of the state database below `.pleach`.
pub const STATE_FILE: &str = "state.db";

/// The name of the mark that a daemon has run: from then on a missing state is a loss, no interruption.
const STARTED_FILE: &str = "started";

/// The longest name of a master or a store, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// A store that is open in this process, and in no other.
#[derive(Debug)]
pub struct OpenStore {
    /// The directory, locked.
    pub root: Root,
    /// Its state.
    pub state: State,
    /// This master's key.
    pub key: MasterKey,
    /// The store.
    pub seed: StoreSeed,
    /// What people call the store.
    pub store_name: String,
    /// What people call this master.
    pub master_name: String,
    /// This master's settings.
    pub config: Config,
    /// The members that a joiner was told of: where to find the store before its first exchange.
    pub introduction: Vec<Member>,
}

/// What was made, for whoever asked.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Made {
    /// The directory.
    pub root: PathBuf,
    /// The store's name.
    pub store: String,
    /// The store's id.
    pub store_id: String,
    /// This master's name.
    pub master: String,
    /// This master's id.
    pub master_id: String,
    /// What a joiner has taken over; none of the first master.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_over: Option<TakenOver>,
}

/// Opens the store in `root`, and locks it.
///
/// # Errors
/// If it is no store, another daemon has it, or something in `.pleach` can't be used.
pub fn open(root: &Path) -> Result<OpenStore, StoreError> {
    let path = found::directory(root)?;
    found::refuse_inside(&path)?;
    let config = Config::load(&path)?;
    found::require_incarnation(&path)?;
    let root = Root::open(&path).map_err(|e| StoreError::of_root(&path, e))?;
    if !found::is_finished(&path)? {
        return Err(StoreError::Unfinished { path });
    }
    let mut state = State::open(&state_path(&path))?;
    let missing = |what: &'static str| StoreError::Incomplete { path: path.clone(), what };
    let key = match MasterKey::load(&path.join(".pleach").join(KEY_FILE)) {
        Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(missing("its key (.pleach/key)"));
        }
        key => key?,
    };
    let incarnation: [u8; 16] =
        state.meta_array(MetaKey::Incarnation)?.ok_or_else(|| missing("its incarnation"))?;
    if incarnation != root.incarnation().0 {
        return Err(StoreError::Mixed { path, what: "state.db is of another directory" });
    }
    if state.meta_array(MetaKey::Master)? != Some(key.master().0) {
        return Err(StoreError::Mixed { path, what: "the key is of another master" });
    }
    let seed: StoreSeed =
        decoded(&state, MetaKey::StoreSeed)?.ok_or_else(|| missing("its seed"))?;
    let introduction = introduction(&state)?;
    state.note_if_copied()?;
    let started = path.join(".pleach").join(STARTED_FILE);
    File::create(&started).map_err(|source| StoreError::of_io(&path, started, source))?;
    let store_name = state.meta_text(MetaKey::StoreName)?.unwrap_or_default();
    let master_name = state.meta_text(MetaKey::MasterName)?.unwrap_or_default();
    Ok(OpenStore { root, state, key, seed, store_name, master_name, config, introduction })
}

/// The members that a joiner was told of.
pub(crate) fn introduction(state: &State) -> Result<Vec<Member>, StoreError> {
    Ok(decoded(state, MetaKey::Introduction)?.unwrap_or_default())
}

/// A fact that is encoded with postcard.
fn decoded<T: serde::de::DeserializeOwned>(
    state: &State,
    key: MetaKey,
) -> Result<Option<T>, StoreError> {
    let bytes = state.meta(key)?;
    bytes
        .map(|bytes| {
            postcard::from_bytes(&bytes).map_err(|_| StoreError::Incomplete {
                path: state.path().to_owned(),
                what: "a fact in it",
            })
        })
        .transpose()
}

/// Where the state database of the store in `root` is.
#[must_use]
pub fn state_path(root: &Path) -> PathBuf {
    root.join(".pleach").join(STATE_FILE)
}

#[cfg(test)]
mod tests;
