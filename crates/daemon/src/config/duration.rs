//! Durations as people write them: `30s`, `24h`, `30d`; a plain number is seconds.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// The longest duration that is taken: a hundred years.
const SECONDS_MAX: u64 = 100 * 365 * 24 * 3600;

/// Text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no duration: write a number and a unit (ms, s, m, h, d), such as 30s or 24h")]
pub struct DurationError(String);

/// Reads a whole number with a unit (`ms`, `s`, `m`, `h`, `d`), or without one for seconds. At most a
/// hundred years.
///
/// # Errors
/// If it is anything else.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError(text.chars().take(40).collect());
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let number: u64 = trimmed[..digits].parse().map_err(|_| error())?;
    let milliseconds_each = match trimmed[digits..].trim_start() {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(error()),
    };
    number
        .checked_mul(milliseconds_each)
        .map(Duration::from_millis)
        .filter(|duration| duration.as_secs() <= SECONDS_MAX)
        .ok_or_else(error)
}

/// Writes a duration for people, in its largest whole unit and at most two: `2h 5m`, `3s`, `40ms`.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds < 1_000 {
        return format!("{milliseconds}ms");
    }
    let seconds = duration.as_secs();
    let units = [(86_400, 'd'), (3_600, 'h'), (60, 'm'), (1, 's')];
    let largest = units.iter().position(|(each, _)| seconds >= *each).unwrap_or(3);
    let (each, unit) = units[largest];
    let first = format!("{}{unit}", seconds / each);
    match units.get(largest + 1) {
        Some((smaller, unit)) if seconds % each >= *smaller => {
            format!("{first} {}{unit}", seconds % each / smaller)
        }
        _ => first,
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a duration such as \"30s\" or \"24h\"")]
    enum Value {
        Seconds(u64),
        Text(String),
    }
    let text = match Value::deserialize(from)? {
        Value::Seconds(seconds) => seconds.to_string(),
        Value::Text(text) => text,
    };
    parse_duration(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_with_and_without_a_unit() {
        for (text, milliseconds) in [
            ("30s", 30_000),
            ("30", 30_000),
            (" 24 h ", 86_400_000),
            ("5m", 300_000),
            ("250ms", 250),
            ("30d", 2_592_000_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for wrong in ["", "h", "-1s", "1.5h", "1w", "30 seconds", "99999999999999999999", "40000d"]
        {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_shown_in_at_most_two_units() {
        for (seconds, shown) in [
            (0, "0ms"),
            (59, "59s"),
            (60, "1m"),
            (7_505, "2h 5m"),
            (90_000, "1d 1h"),
            (3_601, "1h"),
        ] {
            assert_eq!(show_duration(Duration::from_secs(seconds)), shown);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_duration_or_refused(text in "\\PC{0,30}|[0-9]{0,22}[a-z]{0,3}") {
            let _ = parse_duration(&text);
        }
    }
}
