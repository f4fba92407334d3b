//! The engine: replica, base, snapshot, checkout and transfer held together as one state machine.
//!
//! `handle` an input, then drain `poll_output` in order; `poll_timeout` says when it wants to be woken. A
//! record is durable before any later output is performed: the order of the queue is the durability
//! rule. The engine has no clock, no disk and no network; whoever drives it has, and decides nothing.

mod io;

pub use io::{Hint, Input, Output, Wanted};
