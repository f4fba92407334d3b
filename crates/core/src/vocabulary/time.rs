//! Time: what a file says of itself, and what the driver tells the engine. Neither orders writes.

use serde::{Deserialize, Serialize};

/// A time that a file carries, to the nanosecond (struct timespec).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp {
    /// Seconds since 1970; negative before.
    pub seconds: i64,
    /// 0 to 999,999,999, added to the seconds.
    pub nanos: u32,
}

/// A point on the driver's clock.
///
/// The engine waits and backs off by `monotonic_ms`; `unix_ms` is only ever shown to people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Milliseconds of a clock that never goes back.
    pub monotonic_ms: u64,
    /// Milliseconds since 1970 by the wall clock, which may jump.
    pub unix_ms: i64,
}
