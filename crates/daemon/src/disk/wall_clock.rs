//! The wall clock, and for how long it is known to have gone evenly.
//!
//! What is dated by the wall clock has an age by that clock only. One that was set forward, for a minute or for
//! good, makes everything look older than it is, and nobody can tell that from a machine that was off. So whoever
//! throws away what is old waits until the clock has gone evenly for a while: somebody may set it right.

use std::time::{Duration, Instant};

use super::versions::now_ms;

/// By how much the clocks may differ from one look to the next. A clock that is slewed gains two seconds an
/// hour at most (adjtimex(2)).
const JUMP_MIN: Duration = Duration::from_secs(60);

/// What was last seen of the clocks.
#[derive(Debug)]
pub(super) struct WallClock {
    seen: Instant,
    wall_ms: i64,
    even: Duration,
}

impl WallClock {
    /// From now on. What was before this process, nobody knows.
    pub(super) fn watch() -> Self {
        Self { seen: Instant::now(), wall_ms: now_ms(), even: Duration::ZERO }
    }

    /// Looks at the clocks; for how long the wall clock has gone evenly.
    pub(super) fn even_for(&mut self) -> Duration {
        self.look(Instant::now(), now_ms())
    }

    fn look(&mut self, now: Instant, wall_ms: i64) -> Duration {
        let passed = now.saturating_duration_since(self.seen);
        let passed_ms = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
        let jumped_ms = wall_ms.saturating_sub(self.wall_ms).saturating_sub(passed_ms);
        self.even = match u128::from(jumped_ms.unsigned_abs()) > JUMP_MIN.as_millis() {
            true => {
                tracing::warn!(jumped_ms, "the clock was set: no version goes for its age for now");
                Duration::ZERO
            }
            false => self.even.saturating_add(passed),
        };
        (self.seen, self.wall_ms) = (now, wall_ms);
        self.even
    }

    /// As if it had gone evenly for so long.
    #[cfg(test)]
    pub(super) fn assume_even_for(&mut self, even: Duration) {
        self.even = even;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_that_was_set_is_even_only_from_then_on() {
        const HOUR_MS: u64 = 3_600_000;
        let mut clock = WallClock::watch();
        let (start, wall_ms) = (clock.seen, clock.wall_ms);
        let mut look = |elapsed_ms: u64, set_ms: i64| {
            let wall_ms = wall_ms + set_ms + i64::try_from(elapsed_ms).unwrap();
            let even = clock.look(start + Duration::from_millis(elapsed_ms), wall_ms);
            u64::try_from(even.as_millis()).unwrap()
        };
        assert_eq!(look(HOUR_MS, 0), HOUR_MS);
        assert_eq!(look(2 * HOUR_MS, 1_800), 2 * HOUR_MS, "it is slewed");
        let days: i64 = 40 * 24 * 3_600_000;
        assert_eq!(look(3 * HOUR_MS, days), 0);
        assert_eq!(look(4 * HOUR_MS, days), HOUR_MS);
        assert_eq!(look(5 * HOUR_MS, 0), 0, "it was set back");
        assert_eq!(look(6 * HOUR_MS, 0), HOUR_MS);
        assert_eq!(look(7 * HOUR_MS, i64::MAX / 2), 0);
    }
}
