//! The base: the tree as it was last known to be on this disk, and whose nodes its entries are.
//!
//! It mirrors the disk, so it is a tree of entries that know their parent and name: renaming a directory
//! of a million files changes one entry. What differs between base and disk, a user did; what differs
//! between base and the merged tree is still to be projected.

use serde::{Deserialize, Serialize};

use super::{Body, SeenNodes};
use crate::vocabulary::{Attributes, Fingerprint, Name};

/// The key of an entry: stable while the entry lives, never reused. The root's is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BaseId(pub u64);

/// One entry as it was last seen or put on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseEntry {
    /// The directory that holds it.
    pub parent: BaseId,
    /// Its name there.
    pub name: Name,
    /// The nodes that the path stood for, with what had been seen of them; the standing one first.
    pub nodes: SeenNodes,
    /// What the tree had there when it was seen or put.
    pub body: Body,
    /// As the tree had them.
    pub attributes: Attributes,
    /// What `stat` said.
    pub fingerprint: Fingerprint,
}

/// A row of the base as it is stored: opaque to the driver.
pub type BaseRow = (u64, Option<Vec<u8>>);

/// The tree as it was last known to be on this disk.
#[derive(Debug, Default)]
pub struct Base {}
