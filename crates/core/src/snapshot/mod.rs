//! Snapshot: what the base says of the disk, and what looks at it find, become what a user did.
//!
//! A [`Survey`] asks for looks, round by round, until it knows enough of the scopes it was started
//! with; [`Survey::finish`] then tells acts from adoptions, and [`Snapshot::settle`] writes into the
//! base what the acts became. It decides by these rules of SEMANTICS.md: R10 (path continuity), R11
//! (a move is the same device, inode and kind elsewhere), R12 (unknown is not absent), R13 (what the
//! tree has already is adopted), R14 (ignored is left alone).
//!
//! What it lacks: any idea of what masters disagree on. It reads the merged tree only to see whether
//! the disk already holds what the tree has.

mod acts;
mod adoption;
mod aftermath;
mod attributes;
mod matching;
mod settle;
mod siblings;
mod survey;
mod withholding;

pub use acts::{SnapshotRules, SpecialBits};
pub use aftermath::{Doubtful, forget_put_aside};
pub use settle::Snapshot;
pub use survey::{Scope, Survey};
