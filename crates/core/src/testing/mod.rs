//! For tests: a disk and a tree in memory, and a master that keeps the two alike.
//!
//! The disk performs looks and effects as a real one does, guards, inode numbers, change times and all;
//! the tree is a plain one, without other masters and so without conflicts. Only with the feature
//! `testing`.

#[cfg(test)]
mod cases;
mod disk;
#[cfg(test)]
mod laws;
mod mirror;
mod plain;
#[cfg(test)]
pub(crate) mod search;

pub use disk::{DiskEntry, VirtualDisk};
pub use mirror::Mirror;
pub use plain::PlainTree;
