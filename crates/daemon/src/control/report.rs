//! The facts that a daemon reports, as programs read them. Field names stay.
//!
//! Times are milliseconds since 1970, sizes are bytes, ids are hexadecimal digits, paths are relative to
//! the root and escaped as [`PathText`] says.

use pleach_core::engine::Judgement;
use pleach_core::values::{ConflictKind, Problem, ProblemKind, Rule, VersionOf};
use pleach_core::vocabulary::MasterId;
use serde::{Deserialize, Serialize};

use super::PathText;

/// How things are with one master's store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Whether a daemon runs: if not, this is what the state has, and no master is connected.
    pub running: bool,
    /// The store's name.
    pub store: String,
    /// The store's id.
    pub store_id: String,
    /// This master.
    pub master: MasterLabel,
    /// Addresses at which others can reach this master, as multiaddresses.
    pub listen: Vec<String>,
    /// The directory.
    pub root: String,
    /// The program's version.
    pub version: String,
    /// How long the daemon has run.
    pub uptime_ms: u64,
    /// What the tree holds.
    pub tree: Counts,
    /// How much of it is on this disk, as far as known.
    #[serde(default)]
    pub on_disk: Counts,
    /// How many conflicts are open.
    pub conflicts: u64,
    /// All members, this one too.
    pub masters: Vec<MasterReport>,
    /// Work in hand.
    pub work: Work,
    /// What could not be done, with its reason.
    pub problems: Vec<ProblemReport>,
    /// Why the store is frozen, if it is: nothing is read or written until a person acts.
    #[serde(default)]
    pub frozen: Option<String>,
}

/// A master by id and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterLabel {
    /// Its key.
    pub id: String,
    /// What people call it.
    pub name: String,
}

impl MasterLabel {
    /// The label of `master`, with the name that the member list has for it.
    #[must_use]
    pub fn new(master: MasterId, name: impl Into<String>) -> Self {
        Self { id: master.to_string(), name: name.into() }
    }
}

/// What a tree holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Regular files.
    pub files: u64,
    /// Directories, without the root.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// The sizes of the regular files, summed.
    pub bytes: u64,
}

/// One member. By default one that nothing is known of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterReport {
    /// Its key.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Whether it is the one that reports.
    pub this: bool,
    /// Whether it is connected now; always true of the one that reports.
    pub connected: bool,
    /// Where it was last reachable.
    pub addresses: Vec<String>,
    /// How many changes this one has that it lacks on its disk, as far as known.
    pub behind_changes: Option<u64>,
    /// How many changes it has that this one lacks, as far as known.
    pub ahead_changes: Option<u64>,
    /// When it was last heard of; none for never.
    pub last_seen_ms: Option<i64>,
    /// Sent to it since the daemon started.
    pub bytes_sent: u64,
    /// Received from it since the daemon started.
    pub bytes_received: u64,
    /// Whether somebody has removed it.
    #[serde(default)]
    pub removed: bool,
}

/// Work in hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Whether a scan is under way.
    pub scanning: bool,
    /// How many effects wait to be done on the disk.
    pub effects_pending: u64,
    /// What is being fetched.
    pub fetching: Fetching,
}

/// Contents still to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetching {
    /// How many.
    pub contents: u64,
    /// Their sizes, summed.
    pub bytes: u64,
}

/// What is gone from a disk, and stays on the other masters until a person decides; all 0 if nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardReport {
    /// How many files, directories and links.
    pub entries: u64,
    /// How many there were.
    pub of: u64,
    /// The topmost of them; at most 1,000.
    pub paths: Vec<PathText>,
}

/// What a person says of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JudgementReport {
    /// It was meant: it is removed on all masters.
    Allow,
    /// It was not: it is brought back here.
    Undo,
}

impl From<JudgementReport> for Judgement {
    fn from(report: JudgementReport) -> Self {
        match report {
            JudgementReport::Allow => Self::Allow,
            JudgementReport::Undo => Self::Undo,
        }
    }
}

/// A setting of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingReport {
    /// Its name.
    pub key: String,
    /// What it is.
    pub value: String,
    /// What it may be; the first is what it is unless somebody sets it.
    pub values: Vec<String>,
    /// What it is about.
    pub about: String,
}

/// Something that could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemReport {
    /// The class.
    pub kind: ProblemKind,
    /// The path.
    pub path: PathText,
    /// What happened and what to do.
    pub reason: String,
}

impl From<Problem> for ProblemReport {
    fn from(problem: Problem) -> Self {
        Self { kind: problem.kind, path: problem.path.into(), reason: problem.reason }
    }
}

/// The outcome of a wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitReport {
    /// Whether every connected master has it all.
    pub converged: bool,
    /// Who does not have it all; empty if converged.
    pub waiting_for: Vec<WaitingFor>,
}

/// A master that does not have it all yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingFor {
    /// Who.
    pub name: String,
    /// How many changes it lacks on its disk, if known.
    pub behind_changes: Option<u64>,
    /// What it waits for, if there is more to say than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What is in the way there: the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ProblemReport>,
    /// How many such problems there are.
    #[serde(default)]
    pub problems_total: u64,
}

/// A ticket that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteReport {
    /// The ticket, one word.
    pub ticket: String,
    /// Until when it is good.
    pub expires_ms: i64,
}

/// An open conflict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictReport {
    /// Where.
    pub path: PathText,
    /// Why.
    pub kind: ConflictKind,
    /// When this run of the daemon learnt of it; none without a daemon.
    pub opened_ms: Option<i64>,
    /// When the last of its versions was written, by its author's clock: the same on every master.
    pub since_ms: Option<i64>,
    /// Why the version stands that does.
    pub rule: Rule,
    /// What there is to choose from, the standing one first.
    pub versions: Vec<VersionReport>,
    /// What they go back to, if that is known; told of one conflict that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ancestor: Option<VersionReport>,
}

/// One version of a conflict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionReport {
    /// Its name: the shortest beginning, of 8 digits or more, that no other version here shares.
    pub id: String,
    /// What it is.
    pub what: VersionKind,
    /// What it is about: the content, the place, or that it is gone.
    pub of: VersionOf,
    /// Who wrote it; none if that master is not known.
    pub master: Option<MasterLabel>,
    /// When it was written, by its author's clock.
    pub written_ms: Option<i64>,
    /// The counter of its stamp: of two versions that differ in it, the larger was written by who had seen
    /// more, or at the same time. It orders what wall clocks can't.
    pub order: u64,
    /// The mtime it carries.
    pub modified_ms: i64,
    /// Its size; of a link, of its text; none for a directory.
    pub size: Option<u64>,
    /// Its permission bits, four octal digits.
    pub mode: String,
    /// BLAKE3 of the bytes, for a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The link's text, for a symbolic link, escaped as paths are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whether it is what stands at the path.
    pub stands: bool,
    /// Whether its bytes are on this disk; told of one conflict that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub here: Option<bool>,
    /// The other place, where the conflict is about places.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<PathText>,
    /// The file beside the path that shows it, where conflicts are shown as siblings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sibling: Option<PathText>,
}

/// The bytes of a version: in a file of this disk, or the text of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentReport {
    /// The version.
    pub version: VersionReport,
    /// The file that holds them now, in the tree or among the retained versions. Whoever reads it compares
    /// the hash: somebody may write to it meanwhile.
    pub file: Option<PathText>,
    /// The text of a link.
    pub link: Option<Vec<u8>>,
}

/// What a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
}

/// The outcome of reading everything again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// How many files were read.
    pub files: u64,
    /// How many bytes.
    pub bytes: u64,
    /// How many of the damaged were healed from other masters.
    pub healed: u64,
    /// What was damaged.
    pub damaged: Vec<Damage>,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// A file whose bytes changed though nobody wrote them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Which.
    pub path: PathText,
    /// Whether its bytes are back.
    pub healed: bool,
    /// Why not, or from where.
    pub reason: String,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventReport {
    /// When.
    pub time_ms: i64,
    /// What.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventBody {
    /// The user of this master changed something.
    LocalChange {
        /// Some of the paths, at most 64.
        paths: Vec<PathText>,
        /// How many acts in all.
        acts: u64,
    },
    /// Changes of another master were merged.
    RemoteChange {
        /// Their author.
        master: MasterLabel,
        /// How many.
        changes: u64,
    },
    /// An effect was done on this disk.
    Applied {
        /// The path.
        path: PathText,
    },
    /// A conflict came to be, or what it is about has this name now.
    ConflictOpened {
        /// Where.
        path: PathText,
        /// Why.
        kind: ConflictKind,
    },
    /// A conflict is gone, or what it is about is called otherwise now.
    ConflictClosed {
        /// Where it was.
        path: PathText,
    },
    /// A master came.
    Connected {
        /// Who.
        master: MasterLabel,
    },
    /// A master went.
    Disconnected {
        /// Who.
        master: MasterLabel,
    },
    /// Something can't be done at present.
    ProblemAppeared {
        /// The class.
        kind: ProblemKind,
        /// The path.
        path: PathText,
        /// What happened and what to do.
        reason: String,
    },
    /// Now it could.
    ProblemSolved {
        /// The path.
        path: PathText,
    },
    /// A peer sent what was refused.
    Refused {
        /// The sender.
        master: MasterLabel,
        /// Why.
        reason: String,
    },
    /// Long work goes on.
    Progress {
        /// `scan`, `fetch`, `apply` or `verify`.
        work: WorkKind,
        /// How much is done, in files.
        done: u64,
        /// How much there is to do, as far as known.
        total: Option<u64>,
        /// How much is done, in bytes.
        #[serde(default)]
        bytes_done: u64,
        /// How many bytes there are to do, as far as known.
        #[serde(default)]
        bytes_total: Option<u64>,
    },
    /// The listener was too slow: this many events were dropped.
    Missed {
        /// How many.
        events: u64,
    },
}

/// The sorts of long work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// Looking through the directory.
    Scan,
    /// Getting contents from other masters.
    Fetch,
    /// Putting things on the disk.
    Apply,
    /// Reading everything again.
    Verify,
}

impl EventBody {
    /// The report of what the engine tells, with the names that `label` has for masters.
    #[must_use]
    pub fn from_core(
        event: pleach_core::values::Event,
        label: impl Fn(MasterId) -> MasterLabel,
    ) -> Self {
        use pleach_core::values::Event;
        match event {
            Event::LocalChange { paths, acts } => {
                Self::LocalChange { paths: paths.into_iter().map(PathText).collect(), acts }
            }
            Event::RemoteChange { master, changes } => {
                Self::RemoteChange { master: label(master), changes }
            }
            Event::Applied { path } => Self::Applied { path: path.into() },
            Event::ConflictOpened { path, kind } => {
                Self::ConflictOpened { path: path.into(), kind }
            }
            Event::ConflictClosed { path } => Self::ConflictClosed { path: path.into() },
            Event::Connected { master } => Self::Connected { master: label(master) },
            Event::Disconnected { master } => Self::Disconnected { master: label(master) },
            Event::ProblemAppeared(Problem { kind, path, reason }) => {
                Self::ProblemAppeared { kind, path: path.into(), reason }
            }
            Event::ProblemSolved { path } => Self::ProblemSolved { path: path.into() },
            Event::Refused { master, reason } => Self::Refused { master: label(master), reason },
        }
    }
}
