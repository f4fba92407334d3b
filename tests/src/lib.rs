//! What tests of the whole are made of: the simulator, and real daemons.

pub mod daemons;
