//! Effects: guarded steps on the disk, in the order in which they must be taken.
//!
//! Each names the fingerprint that it expects to find. One that finds something else does nothing, says
//! so, and is planned again after a look; effects that need it will fail in the same way, harmlessly.

use std::sync::Arc;

use super::{Body, FileContent, LinkTarget, Problem};
use crate::vocabulary::{Attributes, Fingerprint, Name, Timestamp, TreePath};

/// A place in the staging area where an entry waits while names are swapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ParkingId(pub u64);

/// Where a step starts or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A path in the tree.
    Tree(TreePath),
    /// Below a parked directory: its id and the path from there; an empty path is the parked entry.
    Parked(ParkingId, TreePath),
}

impl Location {
    /// The location of `name` in this directory.
    #[must_use]
    pub fn join(&self, name: &Name) -> Self {
        match self {
            Self::Tree(path) => Self::Tree(path.join(name)),
            Self::Parked(id, path) => Self::Parked(*id, path.join(name)),
        }
    }
}

/// What must be found at the target for the step to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Absent,
    /// The same object with the same bytes, mode and owner. The change time is compared too, unless
    /// the object has been renamed by an earlier effect of the same batch.
    Present(Fingerprint),
}

/// Where the bytes of a [`Effect::PutFile`] come from.
#[derive(Clone, PartialEq, Eq)]
pub enum PutSource {
    /// Right here; their hash has been checked.
    Inline(Arc<[u8]>),
    /// Fetched before and staged under their hash.
    Staged,
    /// A file of this disk that holds the same bytes: copied, and checked while copying.
    Local(TreePath),
    /// There are none: the empty file.
    Empty,
}

impl std::fmt::Debug for PutSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "Inline({} bytes)", bytes.len()),
            Self::Staged => write!(f, "Staged"),
            Self::Local(path) => write!(f, "Local({path})"),
            Self::Empty => write!(f, "Empty"),
        }
    }
}

/// One step on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make a directory where nothing is.
    MakeDirectory {
        /// Where.
        at: Location,
        /// With which attributes; the mtime comes later, in an effect of its own.
        attributes: Attributes,
    },
    /// Put a regular file in place: staged, complete, durable, then renamed or exchanged.
    PutFile {
        /// Where.
        at: Location,
        /// What is there before: nothing, or a file or link that is to be replaced.
        expected: Expected,
        /// What it holds.
        content: FileContent,
        /// With which attributes.
        attributes: Attributes,
        /// Where the bytes are.
        source: PutSource,
    },
    /// Put a symbolic link in place.
    PutSymlink {
        /// Where.
        at: Location,
        /// What is there before.
        expected: Expected,
        /// Its text.
        target: LinkTarget,
        /// Its own mtime.
        mtime: Timestamp,
        /// Owner and attributes; the mode means nothing.
        attributes: Attributes,
    },
    /// Rename an entry of any kind to where nothing is.
    Move {
        /// From where.
        from: Location,
        /// To where.
        to: Location,
        /// What is to be found at `from`. Of a directory only device, inode and kind count.
        expected: Fingerprint,
    },
    /// Remove a file or link; what it held is kept in the versions.
    RemoveFile {
        /// Where.
        at: Location,
        /// What is to be found there.
        expected: Fingerprint,
    },
    /// Remove a directory that is empty by now.
    RemoveDirectory {
        /// Where.
        at: Location,
        /// What is to be found there: only device, inode and kind count.
        expected: Fingerprint,
    },
    /// Do nothing but see whether the entry is still there: more became known of it that its user, who may
    /// have removed it a moment ago, can't have seen.
    Confirm {
        /// Where.
        at: Location,
        /// What is to be found there. Of a directory only device, inode and kind count.
        expected: Fingerprint,
    },
    /// Set mode, owner, extended attributes and mtime of what is there.
    SetAttributes {
        /// Where.
        at: Location,
        /// What is to be found there. Of a directory only device, inode and kind count; inode 0 stands
        /// for the directory that an earlier effect of the same batch made there.
        expected: Fingerprint,
        /// The attributes to set.
        attributes: Attributes,
        /// What stands there, with the mtime to set.
        body: Body,
    },
}

/// What became of one effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, and as durable as the next record.
    Done {
        /// What is at the target now; for removals, what was removed.
        fingerprint: Fingerprint,
    },
    /// Something else was found than expected: nothing was done. To be looked at.
    Differs,
    /// What was to come out of the parking area is not there: nothing was done. An effect that failed before
    /// may have taken it out.
    Unparked,
    /// It could not be done now: no permission, no space. Retried with backoff, listed in `status`.
    Failed(Problem),
    /// The ignore rules cover the path: never written (R14).
    Ignored,
}

/// What an effect leaves in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Content or target, and mtime.
    pub body: Body,
    /// Mode, owner, extended attributes.
    pub attributes: Attributes,
}

impl Effect {
    /// Where the effect ends up.
    #[must_use]
    pub fn target(&self) -> &Location {
        match self {
            Self::MakeDirectory { at, .. }
            | Self::PutFile { at, .. }
            | Self::PutSymlink { at, .. }
            | Self::RemoveFile { at, .. }
            | Self::RemoveDirectory { at, .. }
            | Self::Confirm { at, .. }
            | Self::SetAttributes { at, .. } => at,
            Self::Move { to, .. } => to,
        }
    }

    /// In the parking area, where the effect expects to find something.
    #[must_use]
    pub fn parked(&self) -> Option<ParkingId> {
        let source = match self {
            Self::Move { from, .. } => from,
            other => other.target(),
        };
        match source {
            Location::Parked(id, _) => Some(*id),
            Location::Tree(_) => None,
        }
    }

    /// What it leaves in its place, if it puts a file or symbolic link or sets the attributes of something.
    #[must_use]
    pub fn leaves(&self) -> Option<Left> {
        let (body, attributes) = match self {
            Self::PutFile { content, attributes, .. } => (Body::File(*content), attributes),
            Self::PutSymlink { target, mtime, attributes, .. } => {
                (Body::Symlink { target: target.clone(), mtime: *mtime }, attributes)
            }
            Self::SetAttributes { body, attributes, .. } => (body.clone(), attributes),
            _ => return None,
        };
        Some(Left { body, attributes: attributes.clone() })
    }

    /// Whether it takes something out of the way, into the parking area. Once done it is done, durable or
    /// not: a start finds what is parked, and what came back by itself is where it was before.
    #[must_use]
    pub fn parks(&self) -> bool {
        matches!(self, Self::Move { to: Location::Parked(..), .. })
    }
}
