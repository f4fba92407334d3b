//! What can be told of a store while no daemon runs on it: read from its state, nothing written.

use std::path::{Path, PathBuf};

use pleach_core::replica::{OpenError, Replica};
use pleach_core::values::{Base, BaseError, BaseId, Member};
use pleach_core::vocabulary::{MasterId, StoreId, TreePath, WriterId};

use crate::control::{
    ConflictReport, Counts, FormerReport, LogPageReport, LogRequest, MasterLabel, MasterReport,
    StatusReport, Work,
};
use crate::history::{
    FormerVersion, HistoryError, LogQuery, member_called, standing_version, versions,
};
use crate::state::{MetaKey, State, StateError, StoredDocument};
use crate::store;

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The state can't be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The document in it can't be read.
    #[error("the document in {path} is damaged: {source}")]
    Document {
        /// The database.
        path: PathBuf,
        /// What was found wrong.
        source: OpenError,
    },
    /// What happened can't be told.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Nobody, or more than one, is called so.
    #[error(
        "{0} is the name of no master, or of several: `pleach masters` lists them with their ids"
    )]
    NoSuchMaster(String),
    /// What it was told when it joined can't be read.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// What it knows of the disk can't be read.
    #[error("what {path} knows of the disk is damaged: {source}; the next start looks anew")]
    Base {
        /// The database.
        path: PathBuf,
        /// What was found wrong.
        source: BaseError,
    },
}

/// How things were when the daemon stopped.
///
/// # Errors
/// If the state can't be read.
pub fn status(root: &Path) -> Result<StatusReport, OfflineError> {
    let stopped = Stopped::read(root)?;
    let state = &stopped.state;
    let text = |key| Ok::<_, StateError>(state.meta_text(key)?.unwrap_or_default());
    let master = MasterLabel::new(stopped.me, text(MetaKey::MasterName)?);
    let store_id = state.meta_array(MetaKey::StoreId)?.map_or(StoreId([0; 32]), StoreId);
    let mut masters: Vec<_> =
        stopped.members.iter().map(|member| report(member, stopped.me)).collect();
    if !masters.iter().any(|reported| reported.this) {
        // A founder that has never run is not in its own list yet.
        masters.push(MasterReport {
            id: master.id.clone(),
            name: master.name.clone(),
            this: true,
            ..MasterReport::default()
        });
    }
    Ok(StatusReport {
        running: false,
        store: text(MetaKey::StoreName)?,
        store_id: store_id.to_string(),
        listen: Vec::new(),
        root: root.display().to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: 0,
        tree: stopped.tree(),
        on_disk: stopped.on_disk()?,
        conflicts: stopped.replica.conflicts().len() as u64,
        masters,
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
pub fn conflicts(root: &Path) -> Result<Vec<ConflictReport>, OfflineError> {
    let stopped = Stopped::read(root)?;
    let conflicts = stopped.replica.conflicts();
    let label = |master| stopped.label(master);
    Ok(conflicts.iter().map(|conflict| ConflictReport::new(conflict, None, label)).collect())
}

/// Those of them at one path, with what they go back to. Where their bytes are is not looked for.
///
/// # Errors
/// If the state can't be read.
pub fn conflicts_at(root: &Path, path: &TreePath) -> Result<Vec<ConflictReport>, OfflineError> {
    let stopped = Stopped::read(root)?;
    let label = |master| stopped.label(master);
    let Some(node) = stopped.replica.tree().lookup(path) else { return Ok(Vec::new()) };
    let conflicts = stopped.replica.conflicts_at(node);
    let full = |conflict| {
        let ancestor = stopped.replica.ancestor(conflict);
        ConflictReport::new(conflict, None, label).with_ancestor(conflict, ancestor.as_ref(), label)
    };
    Ok(conflicts.iter().map(full).collect())
}

/// A state at rest, with the replica that it makes: what happened, as far as it is known here.
#[allow(missing_debug_implementations, reason = "it holds a whole tree")]
pub struct Stopped {
    state: State,
    replica: Replica,
    members: Vec<Member>,
    me: MasterId,
}

impl Stopped {
    /// A page of the log.
    ///
    /// # Errors
    /// If the state can't be read, or has no index yet.
    pub fn log(&self, asked: LogRequest) -> Result<LogPageReport, OfflineError> {
        let LogRequest { path, since_ms, master, limit, after } = asked;
        let named = |name: String| {
            member_called(&self.members, &name).map_err(|_| OfflineError::NoSuchMaster(name))
        };
        let master = master.map(named).transpose()?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let path = path.map(|path| path.0);
        let query = LogQuery { path, since_ms, master, limit, after };
        Ok(query.page(&self.state, &self.replica, |master| self.label(master))?)
    }

    /// What the files that were last at `path` held, one after the other. Where their bytes are is not told.
    ///
    /// # Errors
    /// If the state can't be read, or has no index yet.
    pub fn versions(&self, path: &TreePath) -> Result<Vec<FormerReport>, OfflineError> {
        let found = versions(&self.state, &self.replica, path)?;
        let standing = standing_version(&self.replica, path);
        let report = |version: FormerVersion| {
            let stands = Some(version.deed.stamp) == standing;
            FormerReport::new(version, stands, |master| self.label(master))
        };
        Ok(found.into_iter().map(report).collect())
    }

    /// Reads the state of the store in `root`.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn read(root: &Path) -> Result<Self, OfflineError> {
        let state = State::open_read_only(&store::state_path(root))?;
        let me = state.meta_array(MetaKey::Master)?.map_or(MasterId([0; 32]), MasterId);
        let StoredDocument { snapshot, log } = state.load_document()?;
        // It will write nothing, so that this writer is never seen by anybody.
        let replica = Replica::open(WriterId([0; 16]), snapshot.as_deref(), log)
            .map_err(|source| OfflineError::Document { path: state.path().to_owned(), source })?;
        let mut members = replica.members();
        for introduced in store::introduction(&state)? {
            if !members.iter().any(|member| member.master == introduced.master) {
                members.push(introduced);
            }
        }
        Ok(Self { state, replica, members, me })
    }

    fn label(&self, master: MasterId) -> MasterLabel {
        let known = self.members.iter().find(|member| member.master == master);
        MasterLabel::new(master, known.map_or("unknown", |member| &member.name))
    }

    fn tree(&self) -> Counts {
        Counts::of(self.replica.tree().entries().map(|(_, entry)| entry.body))
    }

    fn on_disk(&self) -> Result<Counts, OfflineError> {
        let path = || self.state.path().to_owned();
        let base = Base::load(self.state.load_base()?)
            .map_err(|source| OfflineError::Base { path: path(), source })?;
        let entries = base.iter().filter(|(id, _)| *id != BaseId::ROOT);
        Ok(Counts::of(entries.map(|(_, entry)| &entry.body)))
    }
}

fn report(member: &Member, me: MasterId) -> MasterReport {
    MasterReport {
        id: member.master.to_string(),
        name: member.name.clone(),
        this: member.master == me,
        addresses: member.addresses.clone(),
        removed: member.removed,
        ..MasterReport::default()
    }
}
