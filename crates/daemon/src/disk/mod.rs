//! The disk: everything that touches the user's tree.
//!
//! ```text
//! Look   -> Disk::look  -> Looked      what is there, differences only
//! Effect -> Disk::apply -> Outcome     guarded steps, durable when it returns
//! Staging, Versions                    shared with whoever fetches and serves contents
//! Watcher                              hints where to look
//! ```
//!
//! All access is by directory handle and never through a link (see `walk`). The code is synchronous: it
//! belongs on a thread of its own. It decides nothing: what to look at and what to do, the engine says.

mod ahead;
mod apply;
mod attributes;
mod durable;
mod echoes;
mod fresh;
mod hints;
mod ignore_rules;
mod late;
mod look;
mod progress;
mod read;
mod replace;
mod retain;
mod retention;
mod root;
mod serve;
mod stage;
mod staging;
mod stat;
mod version_log;
mod versions;
mod walk;
mod wall_clock;
mod watcher;

#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pleach_core::values::Problem;

pub use apply::Go;
pub use attributes::{Owners, SpecialBits};
pub use durable::Durable;
pub use echoes::Echoes;
pub use fresh::{Fresh, must_be_durable};
pub use hints::{Dirty, Hints};
pub use ignore_rules::IGNORE_NAME;
pub use late::LateWriters;
pub use progress::{Amount, LookProgress};
pub use retention::{Cleaner, Retention};
pub use root::{Incarnation, Root, RootError, RootLost, STATE_NAME};
pub use serve::{ContentReader, open_any, open_content};
pub use staging::{FinishError, Partial, Staging};
pub use versions::{Kept, KeptBecause, VersionId, Versions};
pub use watcher::{Watcher, Watching};

use attributes::AttributeRules;
use ignore_rules::IgnoreRules;

/// What this master does about owners and special bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskOptions {
    /// Whether owners are seen and set.
    pub owners: Owners,
    /// Whether setuid, setgid and sticky are set.
    pub special_bits: SpecialBits,
}

/// The user's tree, as one thread looks at it and changes it.
#[derive(Debug)]
pub struct Disk {
    root: Root,
    staging: Staging,
    versions: Versions,
    ignore: IgnoreRules,
    attributes: Arc<AttributeRules>,
    durable: Durable,
    echoes: Echoes,
    /// Hints that are held while a batch is put in place.
    hints: Option<Hints>,
    /// Set when nobody waits for what is read any more.
    stopping: Arc<AtomicBool>,
    progress: Arc<LookProgress>,
    #[cfg(test)]
    hook: Hook,
}

#[cfg(test)]
#[derive(Default)]
struct Hook(Option<Box<dyn FnMut(apply::Before) + Send + Sync>>);

#[cfg(test)]
impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

impl Disk {
    /// Takes up work on an open root; clears what an earlier run left in the staging area.
    pub fn open(root: Root, options: DiskOptions) -> io::Result<Self> {
        let staging = Staging::open(&root)?;
        let versions = Versions::open(&root)?;
        let ignore = IgnoreRules::open(root.tree()).map_err(|problem| {
            let reason = format!("{} can't be read: {}", problem.path, problem.reason);
            io::Error::other(reason)
        })?;
        let attributes = Arc::new(AttributeRules::new(options.owners, options.special_bits));
        let durable = Durable::new(&root)?;
        let echoes = Echoes::new(&root);
        let disk = Self {
            root,
            staging,
            versions,
            ignore,
            attributes,
            durable,
            echoes,
            hints: None,
            stopping: Arc::default(),
            progress: Arc::default(),
            #[cfg(test)]
            hook: Hook::default(),
        };
        disk.keep_exchanged()?;
        Ok(disk)
    }

    /// Cuts looks short once it is set: files that have not been read by then are unsettled, directories
    /// that have not been listed unknown. What such a look says is to be left aside.
    #[must_use]
    pub fn stopping(&self) -> Arc<AtomicBool> {
        self.stopping.clone()
    }

    /// Holds these hints while a batch is put in place: most of them would be its echoes.
    pub fn hold_while_placing(&mut self, hints: Hints) {
        self.hints = Some(hints);
    }

    /// How far looks have come.
    #[must_use]
    pub fn progress(&self) -> Arc<LookProgress> {
        self.progress.clone()
    }

    /// Makes `dir` a new store and takes up work on it.
    pub fn init(dir: &Path, options: DiskOptions) -> Result<Self, RootError> {
        let root = Root::init(dir)?;
        let path = root.path().to_owned();
        Self::open(root, options).map_err(|source| RootError::Open { path, source })
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The staging area, for those who fetch.
    #[must_use]
    pub fn staging(&self) -> &Staging {
        &self.staging
    }

    /// The versions, for those who serve and restore.
    #[must_use]
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Makes durable what looks have found, for those who tell others of it.
    #[must_use]
    pub fn durable(&self) -> &Durable {
        &self.durable
    }

    /// What the watcher hears of our own effects, for those who take its hints.
    #[must_use]
    pub fn echoes(&self) -> &Echoes {
        &self.echoes
    }

    /// Counts how often the ignore rules have changed: after a change everything is to be scanned.
    #[must_use]
    pub fn ignore_generation(&self) -> u64 {
        self.ignore.generation()
    }

    /// The lines of `.pleachignore` that could not be understood.
    #[must_use]
    pub fn ignore_problems(&self) -> &[Problem] {
        self.ignore.problems()
    }

    /// What the store's setting about special bits has become.
    pub fn set_special_bits(&mut self, special_bits: SpecialBits) {
        self.attributes = Arc::new(AttributeRules::new(self.attributes.owners, special_bits));
    }

    #[cfg(not(test))]
    #[inline]
    fn at(&mut self, _moment: apply::Before) {}

    #[cfg(test)]
    fn at(&mut self, moment: apply::Before) {
        if let Some(hook) = &mut self.hook.0 {
            hook(moment);
        }
    }
}
