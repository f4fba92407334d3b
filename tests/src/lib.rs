//! The simulator, and what the tests over real daemons and the fuzz targets share.

pub mod daemons;
pub mod fuzzing;
pub mod simulator;
