//! Echoes: what the watcher hears of our own effects.
//!
//! A name that still is as an effect left it needs no look, for a look would find what the effect has told.
//! One `statx` says so; to look at all that a large batch has put would cost as much as to put it. Of the
//! ignore rules' own file an echo stays: the look at it reads them anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pleach_core::vocabulary::{Fingerprint, TreePath};

use super::hints::Dirty;
use super::ignore_rules::IGNORE_NAME;
use super::root::Root;
use super::stat::{Seen, stat_at};
use super::walk::Parents;

/// What the last effects left. Clones share it.
#[derive(Clone, Debug)]
pub struct Echoes {
    root: Root,
    left: Arc<Mutex<Left>>,
}

/// What the batch under way and the one before left, by path: so many echoes come late at most.
#[derive(Debug, Default)]
struct Left {
    now: BTreeMap<TreePath, Fingerprint>,
    before: BTreeMap<TreePath, Fingerprint>,
}

impl Echoes {
    pub(super) fn new(root: &Root) -> Self {
        Self { root: root.clone(), left: Arc::default() }
    }

    /// A batch begins.
    pub(super) fn begin(&self) {
        let mut left = self.left();
        left.before = std::mem::take(&mut left.now);
    }

    /// An effect left this at a path.
    pub(super) fn note(&self, path: &TreePath, fingerprint: Fingerprint) {
        let rules =
            path.names().last().is_some_and(|name| name.as_bytes() == IGNORE_NAME.as_bytes());
        if !rules {
            self.left().now.insert(path.clone(), fingerprint);
        }
    }

    /// Nothing that was left counts: what was told of it may be something else.
    pub(super) fn forget(&self) {
        *self.left() = Left::default();
    }

    /// Leaves out what is an echo of our own effects and nothing more.
    #[must_use]
    pub fn leave_out(&self, mut dirty: Vec<Dirty>) -> Vec<Dirty> {
        let mut parents = Parents::default();
        dirty.retain(|dirty| match dirty {
            Dirty::Written(path) | Dirty::Name(path) | Dirty::Removed(path) => {
                !self.is_echo(path, &mut parents)
            }
            _ => true,
        });
        dirty
    }

    fn is_echo(&self, path: &TreePath, parents: &mut Parents) -> bool {
        let left = {
            let left = self.left();
            left.now.get(path).or_else(|| left.before.get(path)).copied()
        };
        let (Some(left), Some((above, name))) = (left, path.split_last()) else { return false };
        let seen = parents.open(self.root.tree(), &above);
        let seen = seen.and_then(|directory| stat_at(&directory, name.as_bytes()));
        seen.ok().and_then(Seen::node) == Some(left)
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
