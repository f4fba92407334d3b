//! The replica: registers on automerge, and the tree and its conflicts that follow from them.
//!
//! ```text
//! changes -> gate -> document (automerge) -> registers -> tree, conflicts
//!                        ^
//! acts, choices ---------+
//! ```
//!
//! An embedder can use it alone: open it, perform acts, exchange changes, read the tree, list conflicts
//! and resolve them. The tree is a function of the set of changes; nothing here depends on their order.

mod acts;
pub mod document;
pub mod gate;
#[cfg(test)]
mod naive;
mod past;
mod register;
mod resolve;
mod schema;
pub mod tree;

pub use register::{
    Birth, Carried, Causality, Content, Deletion, Place, Register, Update, Value, Write, Written,
};
pub use resolve::ResolveError;

use crate::values::{Acts, ChangeId, Choice, Conflict, Member, Performed, SignedChange, TreeDelta};
use crate::vocabulary::{ContentHash, MasterId, NodeId, Stamp, TreePath, VersionVector, WriterId};
use document::{Applied, Document};
use tree::Tree;
