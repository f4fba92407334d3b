//! Conflicts: places where users did what can't all stand, and what there is to choose from.

use serde::{Deserialize, Serialize};

use super::Body;
use crate::vocabulary::{Kind, MasterId, Mode, NodeId, Stamp, TreePath};

/// Why there is something to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictKind {
    /// One file was edited on two masters.
    Edited,
    /// Two things came under one name.
    SameName,
    /// One thing was moved to two places.
    MovedTwice,
    /// Directories were moved into each other; one move was taken back.
    MovedIntoEachOther,
    /// What one master deleted, another edited or moved: it is still there.
    DeletedAndEdited,
}

/// What a version would have: bytes, a place, or nothing left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionOf {
    /// What it holds: bytes, or the text of a link.
    Content,
    /// Where it is.
    Place,
    /// That it is gone.
    Deletion,
}

/// One of the things to choose from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The node that holds it.
    pub node: NodeId,
    /// The stamp of the write that made it: the version's name.
    pub stamp: Stamp,
    /// Who wrote it, if that writer's master is known.
    pub master: Option<MasterId>,
    /// When it was written, by its author's clock, in milliseconds since 1970. It orders nothing.
    pub written_ms: Option<i64>,
    /// What it is about.
    pub of: VersionOf,
    /// What it is; of a deletion, what would be gone.
    pub body: Body,
    /// The permission bits of the node that holds it.
    pub mode: Mode,
    /// Whether it is what stands at the path now.
    pub stands: bool,
    /// The other place, for kinds that are about places.
    pub elsewhere: Option<TreePath>,
}

/// One open conflict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Where, in the merged tree.
    pub path: TreePath,
    /// Why.
    pub kind: ConflictKind,
    /// What there is to choose from: the standing one first, then by falling stamp.
    pub versions: Vec<Version>,
}

/// Why the version that stands is the one that does: the same on every master, whatever the clocks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Its stamp is the largest (R7; of moves, R1).
    LargestStamp,
    /// A directory keeps its name before a file (R6).
    DirectoryBeforeFile,
    /// It has had its name the longest (R6).
    OldestName,
    /// Of moves that would make a cycle, the newest yields (R2).
    NewestMoveYields,
    /// A write that the delete had not seen beats it (R3).
    EditBeatsDelete,
    /// A move that the delete had not seen beats it (R3).
    MoveBeatsDelete,
}

impl Conflict {
    /// The version that stands.
    #[must_use]
    pub fn standing(&self) -> Option<&Version> {
        self.versions.iter().find(|version| version.stands)
    }

    /// By which rule it stands.
    ///
    /// ```
    /// use pleach_core::values::{Conflict, ConflictKind, Rule};
    /// use pleach_core::vocabulary::TreePath;
    ///
    /// let (path, versions) = (TreePath::root(), Vec::new());
    /// let conflict = Conflict { path, kind: ConflictKind::Edited, versions };
    /// assert_eq!(conflict.rule(), Rule::LargestStamp);
    /// ```
    #[must_use]
    pub fn rule(&self) -> Rule {
        let standing = self.standing();
        let is_directory = standing.is_some_and(|v| v.body.kind() == Kind::Directory);
        let is_moved = standing.is_some_and(|version| version.of == VersionOf::Place);
        match self.kind {
            ConflictKind::Edited | ConflictKind::MovedTwice => Rule::LargestStamp,
            ConflictKind::SameName if is_directory => Rule::DirectoryBeforeFile,
            ConflictKind::SameName => Rule::OldestName,
            ConflictKind::MovedIntoEachOther => Rule::NewestMoveYields,
            ConflictKind::DeletedAndEdited if is_moved => Rule::MoveBeatsDelete,
            ConflictKind::DeletedAndEdited => Rule::EditBeatsDelete,
        }
    }
}

/// How to settle a conflict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// This version is to stand; the others are closed. If it is a deletion, nothing stands any more.
    Keep(Stamp),
    /// What stands shall stand; the others are closed.
    KeepStanding,
    /// All are to be had: the others move to names of their own beside it.
    KeepBoth,
}
