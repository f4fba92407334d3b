//! Waiting for a condition, never for a time.

use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks at a condition that costs little to look at; after a dear one the pause is
/// as long as the look was, so that looking leaves the machine to those who are looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks at `probe` until it gives a value.
///
/// # Panics
///
/// When `at_most` has passed; the message has `what` and the reason that the last look gave.
pub fn wait_until<T>(what: &str, at_most: Duration, probe: impl FnMut() -> Result<T, String>) -> T {
    match probe_until(at_most, probe) {
        Ok(value) => value,
        Err(reason) => panic!("not within {at_most:?}: {what}\n{reason}"),
    }
}

/// Looks at `probe` until it gives a value or `at_most` has passed; then errs with its last reason.
pub fn probe_until<T>(
    at_most: Duration,
    mut probe: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let start = Instant::now();
    loop {
        let look = Instant::now();
        match probe() {
            Ok(value) => return Ok(value),
            Err(reason) if start.elapsed() >= at_most => return Err(reason),
            Err(_) => thread::sleep(look.elapsed().max(PAUSE)),
        }
    }
}
