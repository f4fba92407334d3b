//! What happened to the store's files, as it is reported: lines of the log, and what a file held.

use pleach_core::values::{Body, Deed, What};
use pleach_core::vocabulary::{Kind, MasterId, Mode, Stamp};
use serde::{Deserialize, Serialize};

use super::conflict::shown_target;
use crate::history::FormerVersion;

use super::{MasterLabel, PathText, VersionKind, full_version_id};

/// How many digits of a version's id are shown. They tell the versions of one file apart.
const ID_DIGITS: usize = 12;

/// Where a reader of the log is: what comes next is older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCursor {
    /// When the change was made that comes next.
    pub time_ms: i64,
    /// Its position in the log.
    pub position: u64,
    /// How many of its writes are still to be told of; none if all of it has been told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes_left: Option<u64>,
}

/// A page of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPageReport {
    /// The newest first. It may be empty although there is more.
    pub entries: Vec<LogReport>,
    /// What to ask for the next page with; none after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<LogCursor>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeedKind {
    /// It was made.
    Created,
    /// It was written to.
    Edited,
    /// Of several versions one was chosen.
    Resolved,
    /// It was renamed or moved.
    Moved,
    /// Its permission bits were set.
    ModeChanged,
    /// Owner or group was set.
    OwnerChanged,
    /// An extended attribute was set or removed.
    AttributeChanged,
    /// The time of its last modification was set.
    Touched,
    /// It was removed.
    Deleted,
    /// It had been deleted, and was brought back.
    Restored,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogReport {
    /// When, by the clock of the master where it was done, in milliseconds since 1970.
    pub time_ms: i64,
    /// Where it was done.
    pub master: MasterLabel,
    /// What was done.
    pub what: DeedKind,
    /// What it was called from then on; none if that is not known.
    pub path: Option<PathText>,
    /// What it was called before, if it was moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PathText>,
    /// What sort of thing it is.
    pub kind: VersionKind,
    /// Its size before, in bytes: of what was edited, resolved, deleted or restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_before: Option<u64>,
    /// Its size from then on, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Its permission bits before, in octal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_before: Option<String>,
    /// Its permission bits from then on, in octal digits: of what was created, or had them set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The text of a link from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The version that was made by it, as `versions` lists it and `restore` takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl LogReport {
    /// The report of `deed`, with the names that `label` has for masters.
    #[must_use]
    pub fn new(deed: Deed, label: impl Fn(MasterId) -> MasterLabel) -> Self {
        let Deed { stamp, master, time_ms, kind, path, what, .. } = deed;
        let mut report = Self {
            time_ms,
            master: label(master),
            what: DeedKind::Touched,
            path: path.map(PathText),
            from: None,
            kind: kind.into(),
            size_before: None,
            size: None,
            mode_before: None,
            mode: None,
            target: None,
            version: None,
        };
        report.what = match what {
            What::Created { body, mode } => {
                report.mode = Some(octal(mode));
                report.holds(stamp, &body);
                DeedKind::Created
            }
            What::Edited { before, after } => {
                report.held(before.as_ref());
                report.holds(stamp, &after);
                DeedKind::Edited
            }
            What::Resolved { before, after } => {
                report.held(before.as_ref());
                report.holds(stamp, &after);
                DeedKind::Resolved
            }
            What::Moved { from } => {
                report.from = from.map(PathText);
                DeedKind::Moved
            }
            What::ModeChanged { before, after } => {
                (report.mode_before, report.mode) = (before.map(octal), Some(octal(after)));
                DeedKind::ModeChanged
            }
            What::OwnerChanged { .. } => DeedKind::OwnerChanged,
            What::AttributeChanged { .. } => DeedKind::AttributeChanged,
            What::Touched => DeedKind::Touched,
            What::Deleted { body } => {
                report.held(body.as_ref());
                DeedKind::Deleted
            }
            What::Restored { before, after } => {
                report.held(before.as_ref());
                if let Some(after) = &after {
                    report.holds(stamp, after);
                }
                DeedKind::Restored
            }
        };
        report
    }

    fn held(&mut self, before: Option<&Body>) {
        self.size_before = before.and_then(size_of);
    }

    fn holds(&mut self, stamp: Stamp, body: &Body) {
        self.size = size_of(body);
        if let Body::Symlink { target, .. } = body {
            self.target = Some(shown_target(target.as_bytes()));
        }
        if body.kind() != Kind::Directory {
            self.version = Some(history_id(stamp));
        }
    }
}

impl From<Kind> for VersionKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Directory => Self::Directory,
            Kind::File => Self::File,
            Kind::Symlink => Self::Symlink,
        }
    }
}

/// The id under which the log and `versions` show the version that a write made.
#[must_use]
pub fn history_id(stamp: Stamp) -> String {
    let mut id = full_version_id(stamp);
    id.truncate(ID_DIGITS);
    id
}

/// The size that is told of: none of a directory.
pub(crate) fn size_of(body: &Body) -> Option<u64> {
    match body {
        Body::File(content) => Some(content.size),
        Body::Symlink { target, .. } => Some(target.as_bytes().len() as u64),
        Body::Directory { .. } => None,
    }
}

fn octal(mode: Mode) -> String {
    format!("{:04o}", mode.bits())
}

/// What a file held once, or holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerReport {
    /// Its id, as `restore` takes it.
    pub version: String,
    /// When it was written, by its author's clock, in milliseconds since 1970.
    pub time_ms: i64,
    /// Where it was written.
    pub master: MasterLabel,
    /// What the file was called then; none if that is not known.
    pub path: Option<PathText>,
    /// File or link.
    pub kind: VersionKind,
    /// In bytes.
    pub size: u64,
    /// Its permission bits, in octal digits.
    pub mode: String,
    /// BLAKE3 of a file's bytes, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The text of a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whether it is what stands at the path now.
    pub stands: bool,
    /// Whether its bytes are on this disk, as far as that is known without reading everything; none without
    /// a daemon. If not, `restore` asks the other masters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub here: Option<bool>,
    /// The file below the root that has them: in the tree, or in `.pleach/versions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<PathText>,
}

impl FormerReport {
    /// The report of a version, with the names that `label` has for masters. Where its bytes are is not told.
    #[must_use]
    pub fn new(
        version: FormerVersion,
        stands: bool,
        label: impl Fn(MasterId) -> MasterLabel,
    ) -> Self {
        let FormerVersion { deed, body, mode } = version;
        let (hash, target) = match &body {
            Body::File(content) => (Some(content.hash.to_string()), None),
            Body::Symlink { target, .. } => (None, Some(shown_target(target.as_bytes()))),
            Body::Directory { .. } => (None, None),
        };
        Self {
            version: history_id(deed.stamp),
            time_ms: deed.time_ms,
            master: label(deed.master),
            path: deed.path.map(PathText),
            kind: body.kind().into(),
            size: size_of(&body).unwrap_or(0),
            mode: mode.map_or_else(String::new, octal),
            hash,
            target,
            stands,
            here: None,
            at: None,
        }
    }
}

/// What of the past is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PickFormer {
    /// What was deleted, as it was last.
    Last,
    /// The version with this id, or the only one whose id begins so.
    Version(String),
    /// What was there at this time, in milliseconds since 1970.
    At(i64),
}

/// What became, or would become, of one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredReport {
    /// Which.
    pub path: PathText,
    /// What.
    pub outcome: RestoreOutcome,
    /// The size of what it is restored to, in bytes; none of a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Whether its bytes are on this disk; asked for elsewhere otherwise.
    pub here: bool,
}

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreOutcome {
    /// It is as it was: the change is made, and every master follows.
    Restored,
    /// It would be.
    WouldRestore,
    /// Nobody who is connected has its bytes. It stays as it is.
    Missing,
    /// It has been moved to there since. It stays where it is, and as it is.
    Moved,
    /// Something of another kind is in its place. It stays as it is.
    InTheWay,
}
