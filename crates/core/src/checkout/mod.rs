//! Checkout: base and merged tree become ordered, guarded effects on the disk.
//!
//! [`plan`] looks only at the nodes that changed and at what stands in their way: its cost follows the
//! change, never the tree. Entries of disk and tree are matched by any of their nodes, so that nothing
//! happens on the disk because another of several united nodes stands now. The order, each step of
//! which is possible after those before it:
//!
//! 1. from the root downwards: directories are made and entries renamed to their places; what is in
//!    the way is removed, or renamed to its own place, or parked (swaps and cycles of names);
//! 2. files are put, then symbolic links, and attributes set;
//! 3. what is no more is removed, deepest first;
//! 4. attributes and mtimes of directories, of all in which the plan disturbs anything.
//!
//! What it lacks: waiting, retrying and choosing when; and any knowledge of how contents come here.

mod order;
mod pairing;
mod picture;
mod plan;

pub use order::plan;
pub use plan::{Availability, Completion, Limits, Plan, PlannedEffect, Wanted};
