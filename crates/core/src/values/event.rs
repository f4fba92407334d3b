//! Events for people and programs, and problems: what could not be done, and why.

use serde::{Deserialize, Serialize};

use super::ConflictKind;
use crate::vocabulary::{MasterId, TreePath};

/// Why something could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// EACCES, EPERM, an immutable file.
    PermissionDenied,
    /// ENOSPC, EDQUOT.
    NoSpace,
    /// EROFS.
    ReadOnly,
    /// A FIFO, socket or device: never opened.
    SpecialFile,
    /// Another file system is mounted there: not crossed.
    MountPoint,
    /// The name `.pleach` below the root, a name or path that is too long for this file system.
    UnsupportedName,
    /// The file changes all the time.
    NeverSettles,
    /// No connected master has the content.
    ContentMissing,
    /// The limit of inotify watches is reached: scanning takes over.
    WatchLimit,
    /// Most of the store is gone from the disk: a person has to say whether that was meant.
    MassDelete,
    /// The root vanished, was emptied or replaced: the store is frozen.
    RootLost,
    /// A member runs more than once, with one key.
    ClonedMaster,
    /// A member does not let this master in.
    ShutOut,
    /// Anything else the system said.
    Io,
    /// A member speaks no version of the protocol that this master speaks.
    OtherVersion,
    /// A member has written what only a later version of pleach can read.
    LaterChange,
    /// A line of the ignore rules is none.
    IgnoreRule,
    /// Something in `.pleach` was damaged, and goes on without what was lost.
    Damaged,
    /// Of another master, and of a kind that this version does not know. Last, so that whatever is beyond
    /// it is read as this; a new kind goes before it.
    #[serde(other)]
    Other,
}

/// Something that could not be done, with its reason (P7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The class, for programs.
    pub kind: ProblemKind,
    /// The path it is about.
    pub path: TreePath,
    /// What happened and what to do, for people: one sentence without the path.
    pub reason: String,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The user of this master changed something; `paths` has at most 64 of them.
    LocalChange {
        /// Some of the paths.
        paths: Vec<TreePath>,
        /// How many acts in all.
        acts: u64,
    },
    /// A change of another master was merged.
    RemoteChange {
        /// Its author.
        master: MasterId,
        /// How many changes at once.
        changes: u64,
    },
    /// An effect was done on this disk.
    Applied {
        /// The path.
        path: TreePath,
    },
    /// A conflict came to be, or what it is about has this name now.
    ConflictOpened {
        /// The path.
        path: TreePath,
        /// Its kind.
        kind: ConflictKind,
    },
    /// A conflict is gone: resolved, here or elsewhere, or what it is about is called otherwise now.
    ConflictClosed {
        /// The path.
        path: TreePath,
    },
    /// A master came.
    Connected {
        /// Which.
        master: MasterId,
    },
    /// A master went.
    Disconnected {
        /// Which.
        master: MasterId,
    },
    /// Something can't be done at present.
    ProblemAppeared(Problem),
    /// Now it could.
    ProblemSolved {
        /// The path.
        path: TreePath,
    },
    /// A peer sent what was refused.
    Refused {
        /// The sender.
        master: MasterId,
        /// Why.
        reason: String,
    },
}
