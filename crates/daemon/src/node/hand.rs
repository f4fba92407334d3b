//! The hand: the one thread that touches the user's tree, one chore after the other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use pleach_core::engine::{Hint, Input};
use pleach_core::values::{
    DirectoryState, Effect, FoundBody, Location, Look, Looked, Outcome, Problem, ProblemKind,
};
use pleach_core::vocabulary::{ContentHash, Kind, TreePath};

use super::driver::{Chore, Job};
use super::outputs::fetch_failed;
use crate::disk::{Cleaner, Disk, Go, LateWriters, VersionId, Watcher, Watching};
use crate::net::FetchFailure;

/// How long after the last chore what was put off is done.
const IDLE: Duration = Duration::from_secs(2);
/// How often a lost root is looked for.
const LOST_ROOT_INTERVAL: Duration = Duration::from_secs(1);
/// How many bytes of kept versions are hashed at a time when idle.
const SETTLE_BYTES: u64 = 64 << 20;

pub(super) struct Hand {
    pub(super) disk: Disk,
    pub(super) watcher: Watcher,
    pub(super) chores: Receiver<Chore>,
    pub(super) jobs: SyncSender<Job>,
    /// Whether it was told that not everything can be watched.
    pub(super) limit_told: bool,
    /// Whether the versions are watched.
    pub(super) versions_watched: bool,
    /// Whether it was told that the root is lost.
    pub(super) lost_told: bool,
    /// Whether it is writing to the tree.
    pub(super) writing: Arc<AtomicBool>,
    pub(super) cleaner: Cleaner,
    pub(super) late: LateWriters,
}

/// What is left to do when there is nothing else.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leisure {
    Nothing,
    Settle,
    FindRoot,
}

/// Whether the root is still the one that was opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RootState {
    There,
    Lost,
}

/// What a lost root kept from being done is tried again when it is back: no problem of the path's own.
fn keep_for_later(outcome: &mut Outcome) {
    if matches!(outcome, Outcome::Failed(problem) if problem.kind == ProblemKind::RootLost) {
        *outcome = Outcome::Differs;
    }
}

impl Hand {
    /// Works until the driver is gone.
    pub(super) fn run(mut self) {
        let mut leisure = Leisure::Settle;
        let mut rules = self.disk.ignore_generation();
        self.tell_rules();
        self.watch_versions();
        loop {
            let patience = match leisure {
                Leisure::Nothing => self.cleaner.due_in().max(IDLE),
                Leisure::Settle => IDLE,
                Leisure::FindRoot => LOST_ROOT_INTERVAL,
            };
            let late = self.late.due().map(|due| due.saturating_duration_since(Instant::now()));
            let chore = self.chores.recv_timeout(late.map_or(patience, |late| late.min(patience)));
            match chore {
                Ok(chore) => {
                    self.work(chore);
                    if leisure == Leisure::Nothing {
                        leisure = Leisure::Settle;
                    }
                }
                Err(RecvTimeoutError::Timeout) => leisure = self.at_leisure(leisure),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            match (self.check_root(), leisure) {
                (RootState::Lost, _) => leisure = Leisure::FindRoot,
                (RootState::There, Leisure::FindRoot) => leisure = Leisure::Settle,
                (RootState::There, _) => {}
            }
            if !self.lost_told {
                self.take_in_late_writes();
                if self.cleaner.due_in().is_zero() {
                    self.seek_late_writes();
                    self.clean();
                }
            }
            if self.disk.ignore_generation() != rules {
                rules = self.disk.ignore_generation();
                self.tell_rules();
                self.tell(Input::Hints(vec![Hint::Subtree(TreePath::root())]));
            }
        }
    }

    /// Tells when the root is lost or back. Before what a chore came to: that the root is lost is one
    /// problem, and not one of every path.
    fn check_root(&mut self) -> RootState {
        match self.disk.root().still_there() {
            Err(lost) => {
                if !std::mem::replace(&mut self.lost_told, true) {
                    let (kind, path) = (ProblemKind::RootLost, TreePath::root());
                    self.tell(Input::RootLost(Problem { kind, path, reason: lost.to_string() }));
                }
                RootState::Lost
            }
            Ok(()) => {
                if std::mem::take(&mut self.lost_told) {
                    self.tell(Input::RootBack);
                }
                RootState::There
            }
        }
    }

    fn tell(&self, input: Input) {
        // The driver may have stopped.
        let _ = self.jobs.send(Job::Input(input));
    }

    fn work(&mut self, chore: Chore) {
        match chore {
            Chore::Look(look) => {
                let looked = self.look(&look);
                self.check_root();
                self.tell(Input::Looked(looked));
            }
            Chore::Apply(effects, word) => {
                let mut outcomes = self.apply(&effects, word);
                self.check_root();
                outcomes.iter_mut().for_each(keep_for_later);
                self.tell(Input::Applied(outcomes));
            }
            Chore::Retain(hash, bytes) => self.retain(hash, bytes.as_deref()),
            Chore::Stage(contents) => self.stage(&contents),
            Chore::LateWriters(versions) => {
                let now = Instant::now();
                versions.into_iter().for_each(|version| self.late.note(version, now));
            }
        }
    }

    /// Watch, then list: what comes after the listing is an event.
    fn look(&mut self, look: &Look) -> Looked {
        self.watcher.heal();
        for list in look.lists.iter().filter(|list| list.only.is_none()) {
            self.watch(&list.path);
        }
        let looked = self.disk.look(look);
        for listed in &looked.lists {
            let DirectoryState::Readable { found, .. } = &listed.state else { continue };
            for entry in found {
                if let FoundBody::Directory { fingerprint, .. } = &entry.body {
                    self.watcher.found(&listed.path.join(&entry.name), fingerprint);
                }
            }
        }
        self.tell_watched();
        looked
    }

    fn apply(&mut self, effects: &[Effect], word: Option<Receiver<()>>) -> Vec<Outcome> {
        self.writing.store(true, Ordering::Relaxed);
        let outcomes = self.disk.apply_once(effects, || match word.map(|word| word.recv()) {
            None | Some(Ok(())) => Go::On,
            Some(Err(_)) => Go::Home,
        });
        self.writing.store(false, Ordering::Relaxed);
        let mut unwatched_for_a_while = Vec::new();
        for (effect, outcome) in effects.iter().zip(&outcomes) {
            if !matches!(outcome, Outcome::Done { .. }) {
                continue;
            }
            match effect {
                Effect::MakeDirectory { at: Location::Tree(path), .. } => {
                    self.watch(path);
                    unwatched_for_a_while.push(Hint::Directory(path.clone()));
                }
                Effect::Move { from: Location::Tree(from), to: Location::Tree(to), expected }
                    if expected.kind == Kind::Directory =>
                {
                    self.watcher.moved(from, to);
                }
                Effect::Move { from: Location::Parked(..), to: Location::Tree(to), expected }
                    if expected.kind == Kind::Directory =>
                {
                    // What was parked lost its watches on the way.
                    unwatched_for_a_while.push(Hint::Subtree(to.clone()));
                }
                Effect::RemoveDirectory { at: Location::Tree(path), .. } => {
                    self.watcher.unwatch(path);
                }
                _ => {}
            }
        }
        // What a user did there meanwhile, nobody told.
        if !unwatched_for_a_while.is_empty() {
            self.tell(Input::Hints(unwatched_for_a_while));
        }
        outcomes
    }

    fn tell_rules(&self) {
        // The driver may have stopped.
        let _ = self.jobs.send(Job::Rules(self.disk.ignore_problems().to_vec()));
    }

    fn watch(&mut self, directory: &TreePath) {
        let watching = self.watcher.watch(directory);
        self.tell_unwatched(watching);
    }

    fn tell_unwatched(&mut self, watching: Watching) {
        if let Watching::Unwatched(problem) = watching
            && !self.limit_told
        {
            self.limit_told = true;
            // The driver may have stopped.
            let _ = self.jobs.send(Job::Unwatched(Some(problem)));
        }
    }

    /// Once all that could not be watched is, or is gone, nothing needs to be scanned for it any more.
    fn tell_watched(&mut self) {
        if !self.limit_told || self.watcher.has_unwatched() {
            return;
        }
        if !self.versions_watched {
            self.watch_versions();
        }
        if self.versions_watched {
            self.limit_told = false;
            let _ = self.jobs.send(Job::Unwatched(None));
        }
    }

    fn watch_versions(&mut self) {
        let watching = self.watcher.watch_versions();
        self.versions_watched = !matches!(watching, Watching::Unwatched(_));
        self.tell_unwatched(watching);
        self.seek_late_writes();
    }

    /// Finds writes to versions that nobody told of: through a mapping, or while nobody listened.
    fn seek_late_writes(&mut self) {
        let now = Instant::now();
        for version in self.disk.versions().late_writes() {
            self.late.note(version, now);
        }
    }

    fn take_in_late_writes(&mut self) {
        for version in self.late.take_due(Instant::now()) {
            self.take_in(version);
        }
    }

    fn take_in(&mut self, version: VersionId) {
        match self.disk.take_in(version) {
            Ok(Some(late)) => {
                tracing::warn!(
                    path = %late.path,
                    version = version.0,
                    "a program wrote to this file through an old handle, after another master's change had \
                     replaced or removed it: what it wrote is a change of its own, and may be a conflict"
                );
                self.tell(Input::LateWrite(late));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(
                    %error,
                    version = version.0,
                    "what a program wrote through an old handle could not be taken in; it is in .pleach/versions"
                );
                self.late.note(version, Instant::now());
            }
        }
    }

    fn retain(&self, hash: ContentHash, bytes: Option<&[u8]>) {
        if let Err(error) = self.disk.retain(hash, bytes) {
            tracing::error!(%error, %hash, "a conflict's version could not be kept");
            self.tell(fetch_failed(hash, FetchFailure::of_disk(&error)));
        } else {
            // Somebody may wait to read it.
            self.tell(Input::Tick);
        }
    }

    /// What can't be staged is found missing by the effect that needs it, and fetched again.
    fn stage(&self, contents: &[(ContentHash, Arc<[u8]>)]) {
        for (hash, bytes) in contents {
            if let Err(error) = self.disk.staging().insert(*hash, bytes) {
                tracing::warn!(%error, %hash, "a content could not be staged");
            }
        }
    }

    /// Lets go of versions that have been kept for long enough; of one that was not hashed yet nobody could
    /// tell whether it is needed.
    fn clean(&mut self) {
        self.settle_versions();
        let Self { cleaner, disk, jobs, .. } = self;
        let needed = |contents: BTreeSet<ContentHash>| {
            let (reply, needed) = sync_channel(1);
            // Without an answer all of them may be.
            match jobs.send(Job::LetGo(contents.clone(), reply)) {
                Ok(()) => needed.recv().unwrap_or(contents),
                Err(_) => contents,
            }
        };
        match cleaner.step(disk, needed) {
            Ok(0) => {}
            Ok(versions) => tracing::info!(versions, "kept for long enough, let go"),
            Err(error) => tracing::warn!(%error, "old versions could not be let go"),
        }
    }

    fn at_leisure(&mut self, leisure: Leisure) -> Leisure {
        if leisure != Leisure::Settle {
            return leisure;
        }
        let left = self.disk.tidy();
        match self.settle_versions() {
            Leisure::Nothing if left => Leisure::Settle,
            leisure => leisure,
        }
    }

    fn settle_versions(&self) -> Leisure {
        match self.disk.versions().settle(SETTLE_BYTES) {
            Ok(0) => Leisure::Nothing,
            Ok(_) => Leisure::Settle,
            Err(error) => {
                tracing::warn!(%error, "kept versions could not be settled");
                Leisure::Nothing
            }
        }
    }
}
