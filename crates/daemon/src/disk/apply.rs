//! Applying effects: a batch at a time, in order, each with its guard.
//!
//! First everything to be put is staged, then made durable together, then renamed or exchanged into place
//! in the order of the batch, then the renames are made durable together. Nothing is ever unlinked unseen:
//! what comes out of the tree is looked at, and is put back if it isn't what the effect expected.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use pleach_core::values::{
    Body, Effect, Expected, Location, Outcome, Problem, ProblemKind, PutSource,
};
use pleach_core::vocabulary::{Attributes, ContentHash, Fingerprint, Kind, Name, TreePath};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::Disk;
use super::hints::Hints;
use super::root::STATE_NAME;
use super::stage::{FilePlan, Staged, Sync, Wanted};
use super::stat::{problem, stat_at, stat_handle};
use super::versions::{KeptBecause, name_of};
use super::walk::Parents;

/// With so many files or more in a batch, one syncfs is cheaper than an fsync for each.
const SYNCFS_FROM: usize = 4;
/// With so many effects or more in a batch, what the watcher hears of them waits for the end.
const HELD_EFFECTS_MIN: usize = 64;

/// Why a step was not taken.
pub(crate) enum Stop {
    /// Something else is there.
    Differs,
    /// The system said no; the path is added by the caller.
    Errno(Errno),
    /// Something else that can be said.
    Problem(Problem),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EXIST
            | Errno::NOENT
            | Errno::NOTDIR
            | Errno::LOOP
            | Errno::NOTEMPTY
            | Errno::ISDIR => Self::Differs,
            errno => Self::Errno(errno),
        }
    }
}

pub(crate) type Step = Result<Fingerprint, Stop>;

/// Whether prepared effects are to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// What they follow from is recorded.
    On,
    /// It is not, and will not be.
    Home,
}

impl Disk {
    /// Takes the steps of `batch` in order. One that can't be taken does not keep the others from it.
    ///
    /// Whatever is `Done` when this returns is durable.
    pub fn apply(&mut self, batch: &[Effect]) -> Vec<Outcome> {
        self.apply_once(batch, || Go::On)
    }

    /// The same, of which only preparations are made before `recorded` returns: what they lead to is not to
    /// be done before what it follows from is recorded. None of it is done if it never will be.
    pub fn apply_once(&mut self, batch: &[Effect], recorded: impl FnOnce() -> Go) -> Vec<Outcome> {
        self.ignore.refresh(self.root.tree());
        if let Err(lost) = self.root.still_there() {
            let outcome = |effect: &Effect| {
                let (path, reason) = (shown_path(effect.target()), lost.to_string());
                Outcome::Failed(Problem { kind: ProblemKind::RootLost, path, reason })
            };
            return batch.iter().map(outcome).collect();
        }
        self.echoes.begin();
        let mut staged = self.stage_all(batch);
        if recorded() == Go::Home {
            staged.iter().flatten().flatten().for_each(|staged| self.unstage(staged));
            return vec![Outcome::Differs; batch.len()];
        }
        let hints = self.hints.clone().filter(|_| batch.len() >= HELD_EFFECTS_MIN);
        hints.iter().for_each(Hints::hold);
        let mut run = Run::new(self);
        let outcomes: Vec<Outcome> = batch
            .iter()
            .zip(&mut staged)
            .map(|(effect, staged)| run.take(effect, staged.take()))
            .collect();
        hints.iter().for_each(Hints::release);
        run.finish(outcomes, batch)
    }

    /// Stages what the batch puts, and makes it durable. None for what needs no staging, or is not to be
    /// written at all.
    fn stage_all(&self, batch: &[Effect]) -> Vec<Option<Result<Staged, Problem>>> {
        let files = batch.iter().filter(|effect| matches!(effect, Effect::PutFile { .. })).count();
        let sync = if files < SYNCFS_FROM { Sync::Now } else { Sync::WithBatch };
        let mut uses: BTreeMap<ContentHash, usize> = BTreeMap::new();
        for effect in batch {
            if let Effect::PutFile { content, source: PutSource::Staged, .. } = effect {
                *uses.entry(content.hash).or_default() += 1;
            }
        }
        let mut staged: Vec<_> = batch
            .iter()
            .map(|effect| {
                if self.refusal(effect).is_some() {
                    return None;
                }
                self.stage(effect, sync, &mut uses)
            })
            .collect();
        if sync == Sync::WithBatch
            && let Err(errno) = rustix::fs::syncfs(self.root.tree())
        {
            for (effect, staged) in batch.iter().zip(&mut staged) {
                if let Some(Ok(written)) = staged {
                    // After a failed sync nobody knows which pages were lost: it is made anew.
                    self.staging.remove(&written.name);
                    *staged = Some(Err(problem(errno, &shown_path(effect.target()))));
                }
            }
        }
        staged
    }

    fn stage(
        &self,
        effect: &Effect,
        sync: Sync,
        uses: &mut BTreeMap<ContentHash, usize>,
    ) -> Option<Result<Staged, Problem>> {
        let path = shown_path(effect.target());
        match effect {
            Effect::PutFile { content, attributes, source, .. } => {
                let mut wanted = Wanted::LastTime;
                if let (PutSource::Staged, Some(left)) = (source, uses.get_mut(&content.hash)) {
                    *left -= 1;
                    wanted = if *left > 0 { Wanted::Again } else { Wanted::LastTime };
                }
                let plan = FilePlan { path: &path, content, attributes, source, wanted };
                Some(self.stage_file(plan, sync))
            }
            Effect::PutSymlink { target, mtime, attributes, .. } => {
                Some(self.stage_link(&path, target, *mtime, attributes))
            }
            _ => None,
        }
    }

    /// Why an effect is not even tried: its path is covered by the ignore rules, or is nobody's.
    fn refusal(&self, effect: &Effect) -> Option<Outcome> {
        let kind = match effect {
            Effect::MakeDirectory { .. } | Effect::RemoveDirectory { .. } => Kind::Directory,
            Effect::PutFile { .. } | Effect::RemoveFile { .. } => Kind::File,
            Effect::PutSymlink { .. } => Kind::Symlink,
            Effect::Move { expected, .. }
            | Effect::Confirm { expected, .. }
            | Effect::SetAttributes { expected, .. } => expected.kind,
        };
        let source = match effect {
            Effect::Move { from, .. } => Some(from),
            _ => None,
        };
        for location in source.into_iter().chain([effect.target()]) {
            let path = shown_path(location);
            if path.names().iter().any(|name| name.as_bytes() == STATE_NAME.as_bytes()) {
                let reason = "this name is pleach's own: it is neither read nor written".to_owned();
                let kind = ProblemKind::UnsupportedName;
                return Some(Outcome::Failed(Problem { kind, path, reason }));
            }
            if matches!(location, Location::Tree(_)) && self.ignore.covers(&path, kind) {
                return Some(Outcome::Ignored);
            }
        }
        None
    }
}

/// The path of a location, for rules and for people; of a parked one, from the parked entry.
pub(crate) fn shown_path(location: &Location) -> TreePath {
    match location {
        Location::Tree(path) | Location::Parked(_, path) => path.clone(),
    }
}

/// The path that a problem of an effect is about. The parking area is no place that people know.
fn told_path(effect: &Effect) -> TreePath {
    match effect {
        Effect::Move { from: from @ Location::Tree(_), to: Location::Parked(..), .. } => {
            shown_path(from)
        }
        effect => shown_path(effect.target()),
    }
}

/// An open directory and a name in it.
pub(crate) struct Spot {
    pub(crate) directory: Rc<OwnedFd>,
    pub(crate) name: Name,
}

impl Spot {
    pub(crate) fn stat(&self) -> Step {
        stat_at(&self.directory, self.name.as_bytes())?.node().ok_or(Stop::Differs)
    }
}

/// One batch under way.
pub(crate) struct Run<'a> {
    pub(crate) disk: &'a mut Disk,
    tree: Parents,
    parked: Parents,
    /// What the batch has itself left behind, by device and inode: there the change time says nothing.
    touched: BTreeMap<(u64, u64), Fingerprint>,
}

impl<'a> Run<'a> {
    fn new(disk: &'a mut Disk) -> Self {
        Self {
            disk,
            tree: Parents::default(),
            parked: Parents::default(),
            touched: BTreeMap::new(),
        }
    }

    fn take(&mut self, effect: &Effect, staged: Option<Result<Staged, Problem>>) -> Outcome {
        if let Some(refusal) = self.disk.refusal(effect) {
            if let Some(Ok(staged)) = staged {
                self.disk.unstage(&staged);
            }
            return refusal;
        }
        let step = match effect {
            Effect::MakeDirectory { at, attributes } => self.make_directory(at, attributes),
            Effect::PutFile { at, expected, .. } | Effect::PutSymlink { at, expected, .. } => {
                self.put(effect, at, expected, staged)
            }
            Effect::Move { from, to, expected } => self.rename(from, to, expected),
            Effect::RemoveFile { at, expected } => self.remove_file(at, expected),
            Effect::RemoveDirectory { at, expected } => self.remove_directory(at, expected),
            Effect::Confirm { at, expected } => {
                self.spot(at).and_then(|spot| self.guard(at, &spot, expected))
            }
            Effect::SetAttributes { at, expected, attributes, body } => {
                self.set_attributes(at, expected, attributes, body)
            }
        };
        match step {
            Ok(fingerprint) => {
                self.touched.insert((fingerprint.device, fingerprint.inode), fingerprint);
                self.note_echo(effect, fingerprint);
                Outcome::Done { fingerprint }
            }
            Err(Stop::Differs) if self.has_left_parking(effect) => Outcome::Unparked,
            Err(Stop::Differs) => Outcome::Differs,
            Err(Stop::Problem(problem)) => Outcome::Failed(problem),
            Err(Stop::Errno(errno)) => Outcome::Failed(problem(errno, &told_path(effect))),
        }
    }

    /// Whether nothing is in the parking area where the effect expects something.
    fn has_left_parking(&self, effect: &Effect) -> bool {
        effect.parked().is_some_and(|id| {
            let name = id.0.to_string();
            stat_at(self.disk.root.parking(), &*name) == Err(Errno::NOENT)
        })
    }

    /// What was put or set right is heard of by the watcher, and known.
    fn note_echo(&self, effect: &Effect, fingerprint: Fingerprint) {
        match effect {
            Effect::PutFile { at: Location::Tree(path), .. }
            | Effect::PutSymlink { at: Location::Tree(path), .. }
            | Effect::SetAttributes { at: Location::Tree(path), .. } => {
                self.disk.echoes.note(path, fingerprint);
            }
            _ => {}
        }
    }

    /// Makes all that was done durable; what can't be made so has not been done for sure, and says so.
    fn finish(self, outcomes: Vec<Outcome>, batch: &[Effect]) -> Vec<Outcome> {
        if let Err(error) = self.disk.versions.write() {
            tracing::warn!(%error, "the index of versions could not be written");
        }
        let changed = outcomes.iter().zip(batch).any(|(outcome, effect)| {
            matches!(outcome, Outcome::Done { .. }) && !matches!(effect, Effect::Confirm { .. })
        });
        if !changed {
            return outcomes;
        }
        let Err(errno) = self.disk.durable.sync_renames() else { return outcomes };
        self.disk.echoes.forget();
        let failed = |(outcome, effect): (Outcome, &Effect)| match outcome {
            Outcome::Done { .. } if !effect.parks() => {
                Outcome::Failed(problem(errno, &told_path(effect)))
            }
            other => other,
        };
        outcomes.into_iter().zip(batch).map(failed).collect()
    }

    fn spot(&mut self, at: &Location) -> Result<Spot, Stop> {
        let missing = |path: &TreePath| {
            let reason = "the root itself can't be put, moved or removed".to_owned();
            Stop::Problem(Problem { kind: ProblemKind::Io, path: path.clone(), reason })
        };
        let (parents, top, path) = match at {
            Location::Tree(path) => (&mut self.tree, self.disk.root.tree(), path.clone()),
            Location::Parked(id, path) => {
                let mut names = vec![parking_name(id.0)];
                names.extend_from_slice(path.names());
                (&mut self.parked, self.disk.root.parking(), TreePath::new(names))
            }
        };
        let (parent, name) = path.split_last().ok_or_else(|| missing(&path))?;
        Ok(Spot { directory: parents.open(top, &parent)?, name: name.clone() })
    }

    fn forget(&mut self, at: &Location) {
        match at {
            Location::Tree(path) => self.tree.forget(path),
            Location::Parked(id, path) => {
                let mut names = vec![parking_name(id.0)];
                names.extend_from_slice(path.names());
                self.parked.forget(&TreePath::new(names));
            }
        }
    }

    /// What is at `spot`, which is `at`, if it is what is expected there.
    pub(crate) fn guard(&self, at: &Location, spot: &Spot, expected: &Fingerprint) -> Step {
        let now = spot.stat()?;
        let object = (now.device, now.inode);
        // A crash may have come between parking it and noting its change time; what a program wrote to
        // it through a descriptor of its own is found once it is back in the tree.
        let is_parked = matches!(at, Location::Parked(_, inside) if inside.is_root());
        let same = match now.kind {
            _ if is_parked => now.same_object(expected),
            // Inode 0 stands for one that this batch has made.
            Kind::Directory if expected.inode == 0 => self.touched.contains_key(&object),
            Kind::Directory => now.same_object(expected),
            Kind::File | Kind::Symlink => {
                now == *expected
                    || (self.touched.get(&object) == Some(&now) && now.same_bytes(expected))
            }
        };
        if same { Ok(now) } else { Err(Stop::Differs) }
    }

    fn make_directory(&mut self, at: &Location, attributes: &Attributes) -> Step {
        let spot = self.spot(at)?;
        rustix::fs::mkdirat(&spot.directory, spot.name.as_bytes(), Mode::RWXU)?;
        self.forget(at);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&spot.directory, spot.name.as_bytes(), flags, Mode::empty())?;
        let current = stat_handle(&made)?;
        self.disk.attributes.set(&made, &current, attributes, None)?;
        Ok(stat_handle(&made)?)
    }

    fn put(
        &mut self,
        effect: &Effect,
        at: &Location,
        expected: &Expected,
        staged: Option<Result<Staged, Problem>>,
    ) -> Step {
        let mut staged = match staged {
            Some(Ok(staged)) => staged,
            // What it is to be copied from may have been put by an earlier effect of this batch.
            Some(Err(_)) if is_local(effect) => {
                let again = self.disk.stage(effect, Sync::Now, &mut BTreeMap::new());
                again.ok_or(Stop::Differs)?.map_err(Stop::Problem)?
            }
            Some(Err(problem)) => return Err(Stop::Problem(problem)),
            None => return Err(Stop::Differs),
        };
        let put = self.put_staged(&mut staged, at, expected);
        if put.is_err() {
            self.disk.unstage(&staged);
        }
        put
    }

    fn put_staged(&mut self, staged: &mut Staged, at: &Location, expected: &Expected) -> Step {
        let spot = self.spot(at)?;
        match expected {
            Expected::Absent => {
                let from = self.disk.staging.directory();
                let (to, name) = (&spot.directory, spot.name.as_bytes());
                rustix::fs::renameat_with(from, &*staged.name, to, name, RenameFlags::NOREPLACE)?;
            }
            Expected::Present(expected) => self.replace(staged, at, &spot, expected)?,
        }
        Ok(left(&staged.fingerprint, spot.stat().ok()))
    }

    fn rename(&mut self, from: &Location, to: &Location, expected: &Fingerprint) -> Step {
        let (source, target) = (self.spot(from)?, self.spot(to)?);
        let before = self.guard(from, &source, expected)?;
        self.disk.at(Before::Move);
        move_entry(&source, &target)?;
        let after = target.stat().ok();
        if after.is_some_and(|after| !after.same_object(&before)) {
            // Somebody replaced it in between: what was moved is theirs, and goes back.
            move_entry(&target, &source)?;
            return Err(Stop::Differs);
        }
        if before.kind == Kind::Directory {
            self.forget(from);
            self.forget(to);
        }
        Ok(left(&before, after))
    }

    fn remove_file(&mut self, at: &Location, expected: &Fingerprint) -> Step {
        let spot = self.spot(at)?;
        let before = self.guard(at, &spot, expected)?;
        if before.kind == Kind::Directory {
            return Err(Stop::Differs);
        }
        self.disk.at(Before::Remove);
        let id = self.disk.versions.reserve();
        let kept = name_of(id);
        let versions = self.disk.versions.directory();
        let (directory, name) = (&spot.directory, spot.name.as_bytes());
        let flags = RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(directory, name, versions, &*kept, flags)?;
        let came = stat_at(versions, &*kept)?.node();
        if let Some(came) = came.filter(|came| untouched(&before, came)) {
            self.disk.versions.note(id, Some(shown_path(at)), KeptBecause::Deleted, &came);
            return Ok(came);
        }
        let back = rustix::fs::renameat_with(versions, &*kept, directory, name, flags);
        if let (Err(_), Some(came)) = (back, came) {
            self.disk.versions.note(id, Some(shown_path(at)), KeptBecause::Lost, &came);
        }
        Err(Stop::Differs)
    }

    fn remove_directory(&mut self, at: &Location, expected: &Fingerprint) -> Step {
        let spot = self.spot(at)?;
        let before = self.guard(at, &spot, expected)?;
        if before.kind != Kind::Directory {
            return Err(Stop::Differs);
        }
        rustix::fs::unlinkat(&spot.directory, spot.name.as_bytes(), AtFlags::REMOVEDIR)?;
        self.forget(at);
        Ok(before)
    }

    fn set_attributes(
        &mut self,
        at: &Location,
        expected: &Fingerprint,
        attributes: &Attributes,
        body: &Body,
    ) -> Step {
        let spot = self.spot(at)?;
        let before = self.guard(at, &spot, expected)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle =
            rustix::fs::openat(&spot.directory, spot.name.as_bytes(), flags, Mode::empty())?;
        if stat_handle(&handle)? != before {
            return Err(Stop::Differs);
        }
        self.disk.attributes.set(&handle, &before, attributes, Some(body.mtime()))?;
        let after = stat_handle(&handle)?;
        // Somebody wrote meanwhile: the old state makes the next look find it.
        Ok(if after.size == before.size { after } else { before })
    }
}

fn is_local(effect: &Effect) -> bool {
    matches!(effect, Effect::PutFile { source: PutSource::Local(_), .. })
}

fn parking_name(id: u64) -> Name {
    Name::new(id.to_string().into_bytes()).expect("digits are a name")
}

fn move_entry(from: &Spot, to: &Spot) -> Result<(), Errno> {
    let (a, b) = (from.name.as_bytes(), to.name.as_bytes());
    rustix::fs::renameat_with(&from.directory, a, &to.directory, b, RenameFlags::NOREPLACE)
}

/// Whether what came out by our own rename is what was there before it, the change time aside.
pub(crate) fn untouched(before: &Fingerprint, came: &Fingerprint) -> bool {
    *came == Fingerprint { changed: came.changed, ..*before }
}

/// What to report as left behind: what is there now if it is as we left it but for the change time.
/// Otherwise what we left, so that the next look finds what a user did right after.
fn left(ours: &Fingerprint, now: Option<Fingerprint>) -> Fingerprint {
    let as_left = |now: &Fingerprint| match ours.kind {
        Kind::Directory => now.same_object(ours),
        Kind::File | Kind::Symlink => untouched(ours, now),
    };
    now.filter(as_left).unwrap_or(*ours)
}

/// A moment between a check and the step after it, where tests let a user act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Replace,
    PutBack,
    Move,
    Remove,
}
