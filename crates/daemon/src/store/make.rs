//! Making a directory a store: as the first master of a new one, or as one more of another.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use pleach_core::replica::Replica;
use pleach_core::values::Member;

use super::found::{directory, is_finished, refuse_around, refuse_inside};
use super::handover::{HandoverProgress, take_over};
use super::{Made, NAME_BYTES_MAX, StoreError, state_path};
use crate::config::{Config, config_path};
use crate::disk::{Root, RootError};
use crate::identity::{KEY_FILE, MasterKey, StoreSeed};
use crate::net::{self, JoinError, Speaks};
use crate::state::{MetaKey, State};
use crate::ticket::Ticket;

/// What a new state is told of the store.
struct Facts {
    seed: StoreSeed,
    store_name: String,
    introduction: Vec<Member>,
}

/// A store that was joined.
#[derive(Debug)]
pub struct Joined {
    /// What was made.
    pub made: Made,
    /// What was taken over, read already: a node that is started now need not read it again.
    pub replica: Replica,
}

/// Makes `dir`, with what it holds, the first master of a new store, called `name`. The store is called
/// as the directory is.
///
/// # Errors
/// If `dir` is no directory that can be a store, or the system refuses. Then `dir` is as it was.
pub fn init(dir: &Path, name: &str) -> Result<Made, StoreError> {
    let path = checked(dir, name)?;
    let making = Making::begin(&path)?;
    let key = making.key()?;
    let seed = StoreSeed::generate(key.master())?;
    let store_name = directory_name(&path);
    let made = making.finish(&key, name, Facts { seed, store_name, introduction: Vec::new() });
    made.inspect_err(|_| making.undo())
}

/// Makes `dir`, with what it holds, a master of the ticket's store, called `name`, and takes over what the
/// store holds, contents apart; `progress` is told after each step. Must be called within a tokio runtime.
///
/// # Errors
/// If the ticket is not good, its maker can't be reached or refuses, or as [`init`]. Then `dir` is as it
/// was; but if the answer was lost after the proof, `.pleach` stays with its key, and the same call again
/// completes it. Once the ticket is spent the store is made: that the rest broke off stands in
/// [`Made::taken_over`], and the daemon gets what is missing.
pub async fn join(
    dir: &Path,
    ticket: &str,
    name: &str,
    progress: impl FnMut(HandoverProgress),
) -> Result<Joined, StoreError> {
    let ticket: Ticket = ticket.parse()?;
    ticket.check_expiry(unix_ms().unsigned_abs() / 1_000)?;
    let path = checked(dir, name)?;
    let making = Making::begin(&path)?;
    let key = making.key()?;
    let advertise = Config::load(&path)?.advertise;
    let speaks = Speaks::default();
    let (outcome, handover) = match net::join(&ticket, &key, name, &advertise, &speaks).await {
        Ok(joined) => joined,
        Err(error) => {
            if !matches!(error, JoinError::TimedOut) {
                making.undo();
            }
            return Err(match error {
                JoinError::Ticket(error) => StoreError::Ticket(error),
                error => StoreError::Join(error),
            });
        }
    };
    let (founder, introduction) = (outcome.seed.founder, outcome.grant.members);
    let store_name = String::from_utf8(outcome.grant.settings)
        .ok()
        .filter(|name| is_name(name))
        .unwrap_or_else(|| directory_name(&path));
    // From here on the ticket is spent: nothing is undone, the same call again completes it.
    let facts = Facts { seed: outcome.seed, store_name, introduction };
    let made = making.finish(&key, name, facts)?;
    let state = State::open(&state_path(&path))?;
    let (taken_over, replica) = take_over(state, founder, handover, progress).await?;
    Ok(Joined { made: Made { taken_over: Some(taken_over), ..made }, replica })
}

/// What a master is called unless its operator says otherwise: the host's name.
#[must_use]
pub fn default_name() -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    if is_name(&name) { name.into_owned() } else { "master".to_owned() }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// The directory's own name, as far as it can be a store's.
fn directory_name(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    name.filter(|name| is_name(name)).unwrap_or_else(|| "store".to_owned())
}

/// The directory, if it can be made a store.
fn checked(dir: &Path, name: &str) -> Result<PathBuf, StoreError> {
    if !is_name(name) {
        return Err(StoreError::Name { name: name.chars().take(80).collect() });
    }
    let path = directory(dir)?;
    if is_finished(&path)? {
        return Err(StoreError::AlreadyAStore { path });
    }
    refuse_inside(&path)?;
    refuse_around(&path)?;
    Ok(path)
}

/// A `.pleach` on the way to its state.
struct Making<'p> {
    path: &'p Path,
    root: Root,
    /// Whether this attempt made `.pleach`, and so may remove it.
    is_new: bool,
}

impl<'p> Making<'p> {
    fn begin(path: &'p Path) -> Result<Self, StoreError> {
        let is_new = path.join(".pleach").symlink_metadata().is_err();
        let root = match Root::init(path) {
            // An earlier attempt came so far.
            Err(RootError::AlreadyAStore(_)) => Root::open(path),
            other => other,
        };
        match root {
            Ok(root) => Ok(Self { path, root, is_new }),
            Err(error) => {
                if is_new {
                    remove_state(path);
                }
                Err(StoreError::of_root(path, error))
            }
        }
    }

    fn key(&self) -> Result<MasterKey, StoreError> {
        let path = self.path.join(".pleach").join(KEY_FILE);
        MasterKey::load_or_generate(&path).map_err(|error| {
            self.undo();
            error.into()
        })
    }

    /// Writes settings and state, the state last.
    fn finish(&self, key: &MasterKey, name: &str, facts: Facts) -> Result<Made, StoreError> {
        let io = |at: &Path| {
            let at = at.to_owned();
            move |source: io::Error| StoreError::of_io(self.path, at, source)
        };
        let config = config_path(self.path);
        if !config.exists() {
            let written = File::create_new(&config).and_then(|mut file| {
                file.write_all(Config::template().as_bytes())?;
                file.sync_all()
            });
            written.map_err(io(&config))?;
        }
        let state = state_path(self.path);
        let unfinished = state.with_extension("new");
        for suffix in ["new", "new-wal", "new-shm"] {
            let _ = std::fs::remove_file(state.with_extension(suffix));
        }
        let store = facts.seed.store();
        let seed = postcard::to_allocvec(&facts.seed).expect("a seed can be encoded");
        let introduction =
            postcard::to_allocvec(&facts.introduction).expect("members can be encoded");
        drop(State::create(
            &unfinished,
            &[
                (MetaKey::StoreSeed, &seed),
                (MetaKey::StoreId, &store.0),
                (MetaKey::StoreName, facts.store_name.as_bytes()),
                (MetaKey::Master, &key.master().0),
                (MetaKey::MasterName, name.as_bytes()),
                (MetaKey::Founder, &facts.seed.founder.0),
                (MetaKey::Incarnation, &self.root.incarnation().0),
                (MetaKey::Introduction, &introduction),
                (MetaKey::Since, &unix_ms().to_le_bytes()),
            ],
        )?);
        std::fs::rename(&unfinished, &state).map_err(io(&state))?;
        for dir in [&self.path.join(".pleach"), self.path] {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(io(dir))?;
        }
        Ok(Made {
            root: self.path.to_owned(),
            store: facts.store_name,
            store_id: store.to_string(),
            master: name.to_owned(),
            master_id: key.master().to_string(),
            taken_over: None,
        })
    }

    /// Leaves the directory as it was before.
    fn undo(&self) {
        if self.is_new {
            remove_state(self.path);
        }
    }
}

/// Removes a `.pleach` that never became a state. What can't be removed stays and is completed next time.
fn remove_state(path: &Path) {
    let state = path.join(".pleach");
    if let Err(error) = std::fs::remove_dir_all(&state) {
        tracing::debug!(%error, path = %state.display(), "could not be removed");
    }
}

/// Milliseconds since 1970 by the wall clock; 0 for a clock before that.
fn unix_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
