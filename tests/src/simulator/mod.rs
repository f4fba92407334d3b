//! The deterministic simulator: masters with real engines and virtual disks, users, links, crashes.
//!
//! One seed makes one [`history::History`], and a history makes one [`world::World`]; the same history
//! always gives the same trace. A world runs it, heals, waits until nothing moves any more and checks what
//! must hold then (`properties`); `shrink` leaves items out of a history that fails.
//!
//! ```text
//! history ──items──▶ world ◀──▶ network
//!                      │
//!        programs ─────┼───── driver ◀──▶ Engine (pleach-core)
//!            │         │         │
//!            └──────▶ disk ◀─────┘        oracle: what users closed
//! ```
//!
//! Deliberately without real files, sockets, clocks and threads.

pub mod backups;
mod choices;
mod clones;
pub mod disk;
pub mod driver;
pub mod durable;
pub mod faults;
pub mod history;
mod items;
pub mod network;
pub mod oracle;
mod outputs;
mod power;
mod programs;
mod properties;
pub mod shrink;
pub mod trace;
mod undoing;
pub mod user;
pub mod world;

pub use history::{History, Wishes};
pub use properties::{Failure, Property};
pub use shrink::shrink;
pub use trace::Lines;
pub use world::{Report, run};
