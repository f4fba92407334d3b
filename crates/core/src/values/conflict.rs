//! Conflicts: places where users did what can't all stand, and what there is to choose from.

use serde::{Deserialize, Serialize};

use super::Body;
use crate::vocabulary::{MasterId, NodeId, Stamp, TreePath};

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
    /// What it is.
    pub body: Body,
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

/// How to settle a conflict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// This version is to stand; the others are closed.
    Keep(Stamp),
    /// What stands shall stand; the others are closed.
    KeepStanding,
    /// All are to be had: the others move to names of their own beside it.
    KeepBoth,
}
