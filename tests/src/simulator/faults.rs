//! Calls that fail: each fault says which, why, and how often.

use std::collections::BTreeMap;

use pleach_core::engine::Input;
use pleach_core::values::{
    DirectoryState, Effect, ListRequest, Listed, Location, Outcome, Problem, ProblemKind,
    PutSource, ReadRequest, ReadState,
};
use pleach_core::vocabulary::{ContentHash, TreePath};

use super::disk::{Batch, Disk};

/// Which calls fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Those of one sort of effect.
    Effects(EffectSort),
    /// Making durable what a batch has done: all of it counts as not done.
    SyncBatch,
    /// Listing a directory.
    List,
    /// Reading a file.
    Read,
    /// Writing the database.
    Record,
    /// Keeping a content among the versions, or staging one.
    Retain,
}

/// The sorts of effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectSort {
    MakeDirectory,
    PutFile,
    PutSymlink,
    Move,
    RemoveFile,
    RemoveDirectory,
    Confirm,
    SetAttributes,
}

/// All sorts of effects.
pub const EFFECT_SORTS: [EffectSort; 8] = [
    EffectSort::MakeDirectory,
    EffectSort::PutFile,
    EffectSort::PutSymlink,
    EffectSort::Move,
    EffectSort::RemoveFile,
    EffectSort::RemoveDirectory,
    EffectSort::Confirm,
    EffectSort::SetAttributes,
];

/// What the system says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// EIO
    Io,
    /// ENOSPC, EDQUOT
    NoSpace,
    /// EACCES
    PermissionDenied,
    /// EROFS
    ReadOnly,
}

/// All that it says.
pub const REASONS: [Reason; 4] =
    [Reason::Io, Reason::NoSpace, Reason::PermissionDenied, Reason::ReadOnly];

/// When a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Nothing has been done.
    Before,
    /// Nothing has been done, and what was staged for it is gone.
    Staged,
    /// The disk has changed, and the call after that fails.
    After,
}

/// Calls that fail at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which.
    pub calls: Calls,
    /// What the system says.
    pub reason: Reason,
    /// Of an effect, when.
    pub when: When,
    /// How many more of them.
    pub times: u32,
}

/// The faults of one master.
#[derive(Debug, Default)]
pub struct Faults {
    present: Vec<(Fault, u64)>,
    /// Whether any call has failed by now.
    met: bool,
}

impl Faults {
    /// From now on, and until a moment, these calls fail.
    pub fn add(&mut self, fault: Fault, until_us: u64) {
        self.present.push((fault, until_us));
    }

    /// All calls succeed again.
    pub fn clear(&mut self) {
        self.present.clear();
    }

    /// Whether any call has failed by now.
    #[must_use]
    pub fn any_met(&self) -> bool {
        self.met
    }

    /// The fault that a call meets, if it does.
    pub fn meet(&mut self, calls: Calls, now_us: u64) -> Option<Fault> {
        let met = |(fault, until_us): &&mut (Fault, u64)| {
            fault.calls == calls && fault.times > 0 && *until_us > now_us
        };
        let (fault, _) = self.present.iter_mut().find(met)?;
        fault.times -= 1;
        self.met = true;
        Some(*fault)
    }
}

impl Fault {
    /// An effect that meets it: what the engine is told, and whether the disk has changed.
    pub fn perform(
        &self,
        disk: &mut Disk,
        batch: &mut Batch,
        effect: &Effect,
        staged: &mut BTreeMap<ContentHash, Vec<u8>>,
    ) -> (Outcome, bool) {
        let failed = self.reason.outcome(effect);
        match (self.when, effect) {
            (When::After, _) => match disk.perform(batch, effect, staged) {
                // Of a rename there is nothing that can fail once it is done.
                done @ Outcome::Done { .. } if effect.parks() => (done, true),
                Outcome::Done { .. } => (failed, true),
                outcome => (outcome, false),
            },
            (When::Staged, Effect::PutFile { source: PutSource::Staged, content, .. }) => {
                staged.remove(&content.hash);
                (failed, false)
            }
            (When::Staged | When::Before, _) => (failed, false),
        }
    }

    /// A content that this disk does not take.
    #[must_use]
    pub fn not_taken(&self, hash: ContentHash) -> Input {
        Input::NotTaken { hash, kind: self.reason.kind(), reason: "a call failed".to_owned() }
    }

    /// A directory that can't be listed.
    #[must_use]
    pub fn listed(&self, request: &ListRequest) -> Listed {
        let path = request.path.clone();
        let state = DirectoryState::Unknown(self.reason.at(path.clone()));
        Listed { path, state }
    }

    /// A file that can't be read.
    #[must_use]
    pub fn read(&self, request: &ReadRequest) -> ReadState {
        ReadState::Unreadable(self.reason.at(request.path.clone()))
    }
}

impl Reason {
    /// The class of the problem.
    #[must_use]
    pub fn kind(self) -> ProblemKind {
        match self {
            Self::Io => ProblemKind::Io,
            Self::NoSpace => ProblemKind::NoSpace,
            Self::PermissionDenied => ProblemKind::PermissionDenied,
            Self::ReadOnly => ProblemKind::ReadOnly,
        }
    }

    /// A problem at a path.
    #[must_use]
    pub fn at(self, path: TreePath) -> Problem {
        Problem { kind: self.kind(), path, reason: "a call failed".to_owned() }
    }

    /// The outcome of an effect.
    #[must_use]
    pub fn outcome(self, effect: &Effect) -> Outcome {
        Outcome::Failed(self.at(told_path(effect)))
    }
}

/// The sort of an effect.
#[must_use]
pub fn sort_of(effect: &Effect) -> EffectSort {
    match effect {
        Effect::MakeDirectory { .. } => EffectSort::MakeDirectory,
        Effect::PutFile { .. } => EffectSort::PutFile,
        Effect::PutSymlink { .. } => EffectSort::PutSymlink,
        Effect::Move { .. } => EffectSort::Move,
        Effect::RemoveFile { .. } => EffectSort::RemoveFile,
        Effect::RemoveDirectory { .. } => EffectSort::RemoveDirectory,
        Effect::Confirm { .. } => EffectSort::Confirm,
        Effect::SetAttributes { .. } => EffectSort::SetAttributes,
    }
}

/// The path that a problem of an effect is about, as the daemon tells it.
#[must_use]
pub fn told_path(effect: &Effect) -> TreePath {
    match effect {
        Effect::Move { from: Location::Tree(path), to: Location::Parked(..), .. } => path.clone(),
        effect => match effect.target() {
            Location::Tree(path) | Location::Parked(_, path) => path.clone(),
        },
    }
}
