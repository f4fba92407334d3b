//! Real daemons for black-box tests: the `pleach` binary on loopback, in scratch directories.
//!
//! Nothing here looks inside: masters are driven by programs that write files and by the command
//! line, and judged by what `readdir`, `stat`, `/proc` and `pleach status --json` say. Every wait is
//! for a condition and bounded. A daemon is ended by its own process id, and never outlives its test.

mod binary;
mod cluster;
mod damage;
mod events;
mod failing;
mod host;
mod in_conflict;
mod journal;
mod loop_disk;
mod master;
mod page;
mod poll;
mod sources;
mod tree;
mod wall_clock;

pub use binary::{pleach, pleach_path, run};
pub use cluster::Cluster;
pub use damage::{Damage, DamageKind};
pub use events::Events;
pub use failing::{Failing, Threads, When};
pub use host::{Cable, Host};
pub use in_conflict::{KINDS, Kind, await_open, content, in_conflict, resolve, shown, versions};
pub use journal::{Journal, Verdict};
pub use loop_disk::LoopDisk;
pub use master::{Master, Ran, Status};
pub use page::follow;
pub use poll::{probe_until, wait_until};
pub use sources::{
    git, have, long, odd_tree, real_tree, set_mtime, shell, small_files, touch_all, write,
};
pub use tree::{Entry, Tree, assert_same_trees, differences};
pub use wall_clock::WallClock;
