//! Hints: where to look, from the watcher's thread to the driver. In order, bounded, without duplicates.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pleach_core::vocabulary::TreePath;
use tokio::sync::Notify;

use super::versions::VersionId;

/// How many hints wait at most; one more and they become one [`Dirty::Overflow`].
const HINTS_MAX: usize = 65_536;

/// How long events may wait for the end of a hold: the system keeps 16,384 and no more, and a user's are
/// among them.
const HOLD_MAX: Duration = Duration::from_millis(40);

/// Where to look, and how urgently. Never a fact: the look says what is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dirty {
    /// The root was moved or deleted: ask [`super::Root::still_there`].
    RootGone,
    /// Events were lost: scan everything.
    Overflow,
    /// List this directory: it was not watched for a while.
    Directory(TreePath),
    /// Something was closed after writing, renamed to here, or got other attributes, or a directory was
    /// made: it is likely complete.
    Written(TreePath),
    /// Something else happened to this name: made, written to, changed. More may follow.
    Name(TreePath),
    /// The name is gone: removed or renamed away. It may come back in a moment.
    Removed(TreePath),
    /// A program wrote to this version.
    Late(VersionId),
    /// The names of the last [`Dirty::Removed`] and [`Dirty::Written`] are of one entry, which was renamed.
    Renamed(TreePath, TreePath),
}

/// The hints that wait to be taken. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Hints(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Mutex<Waiting>,
    wake: Notify,
    held_until: Mutex<Option<Instant>>,
    released: Condvar,
}

/// What waits, by the order in which it was last hinted.
#[derive(Debug, Default)]
struct Waiting {
    in_order: BTreeMap<u64, Dirty>,
    order: BTreeMap<Dirty, u64>,
    next: u64,
}

impl Waiting {
    fn remove(&mut self, dirty: &Dirty) {
        if let Some(at) = self.order.remove(dirty) {
            self.in_order.remove(&at);
        }
    }

    fn push(&mut self, dirty: Dirty) {
        self.remove(&dirty);
        self.in_order.insert(self.next, dirty.clone());
        self.order.insert(dirty, self.next);
        self.next += 1;
    }

    fn holds(&self, dirty: &Dirty) -> bool {
        self.order.contains_key(dirty)
    }
}

impl Hints {
    /// Waits until there is something, and takes all of it.
    pub async fn next(&self) -> Vec<Dirty> {
        loop {
            let woken = self.0.wake.notified();
            let taken = self.take();
            if !taken.is_empty() {
                return taken;
            }
            woken.await;
        }
    }

    /// Takes what there is.
    #[must_use]
    pub fn take(&self) -> Vec<Dirty> {
        std::mem::take(&mut *self.waiting()).in_order.into_values().collect()
    }

    /// Leaves what happens from now on with the system until [`Hints::release`], or a moment: taken one
    /// by one, the echoes of many renames would cost as much as these.
    pub(crate) fn hold(&self) {
        *self.held_until() = Some(Instant::now() + HOLD_MAX);
    }

    pub(crate) fn release(&self) {
        *self.held_until() = None;
        self.0.released.notify_all();
    }

    /// Waits while hints are held; for the thread that takes events.
    pub(crate) fn await_release(&self) {
        let mut held_until = self.held_until();
        while let Some(left) =
            held_until.and_then(|until| until.checked_duration_since(Instant::now()))
            && !left.is_zero()
        {
            let waited = self.0.released.wait_timeout(held_until, left);
            held_until = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn held_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.held_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, dirty: Dirty) {
        let mut waiting = self.waiting();
        if waiting.holds(&Dirty::Overflow) && dirty != Dirty::RootGone {
            // Everything will be scanned anyway.
        } else if dirty == Dirty::Overflow || waiting.order.len() >= HINTS_MAX {
            let root_gone = waiting.holds(&Dirty::RootGone) || dirty == Dirty::RootGone;
            *waiting = Waiting::default();
            if root_gone {
                waiting.push(Dirty::RootGone);
            }
            waiting.push(Dirty::Overflow);
        } else {
            // Of one name only the last counts: a write that was closed is no more under way, and the
            // other way round.
            match &dirty {
                Dirty::Written(path) => waiting.remove(&Dirty::Name(path.clone())),
                Dirty::Name(path) => waiting.remove(&Dirty::Written(path.clone())),
                _ => {}
            }
            waiting.push(dirty);
        }
        drop(waiting);
        self.0.wake.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Dirty {
        Dirty::Name(TreePath::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn one_name_is_hinted_at_once() {
        let hints = Hints::default();
        hints.add(name("a"));
        hints.add(name("a"));
        assert_eq!(hints.take(), [name("a")]);
        assert!(hints.take().is_empty());
    }

    #[test]
    fn of_writing_and_closing_the_last_counts() {
        let hints = Hints::default();
        let written = Dirty::Written(TreePath::parse(b"a").unwrap());
        hints.add(name("a"));
        hints.add(written.clone());
        assert_eq!(hints.take(), std::slice::from_ref(&written));
        hints.add(written);
        hints.add(name("a"));
        assert_eq!(hints.take(), [name("a")]);
    }

    #[test]
    fn too_many_hints_become_one_overflow() {
        let hints = Hints::default();
        for index in 0..=HINTS_MAX {
            hints.add(name(&index.to_string()));
        }
        hints.add(name("later"));
        hints.add(Dirty::RootGone);
        assert_eq!(hints.take(), [Dirty::Overflow, Dirty::RootGone]);
    }

    #[test]
    fn a_hold_ends_by_itself() {
        let hints = Hints::default();
        hints.hold();
        let start = Instant::now();
        hints.await_release();
        assert!(start.elapsed() >= HOLD_MAX);
        hints.hold();
        hints.release();
        hints.await_release();
    }

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let hints = Hints::default();
        let other = hints.clone();
        let waiting = tokio::spawn(async move { other.next().await });
        hints.add(name("a"));
        assert_eq!(waiting.await.unwrap(), [name("a")]);
    }
}
