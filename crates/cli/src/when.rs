//! Moments as people write them: `2h` (so long ago), `2026-11-23 17:40:02`, `2026-11-23`, `@1763919602`.
//!
//! Dates and times are in UTC, as all that pleach prints.

use pleach_daemon::config::parse_duration;

/// A moment that a person named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct When {
    /// Where what was named begins, in milliseconds since 1970.
    pub(crate) first_ms: i64,
    /// Where it ends: a second has a thousand of them.
    pub(crate) last_ms: i64,
}

/// Reads a moment.
pub(crate) fn parse(text: &str) -> Result<When, String> {
    parse_at(text, crate::commands::now_ms())
}

fn parse_at(text: &str, now_ms: i64) -> Result<When, String> {
    let text = text.trim();
    let wrong = || {
        format!(
            "{text:?} is no time: write how long ago (2h, 3d), or a time in UTC (2026-11-23 17:40:02), or \
             @ and seconds since 1970"
        )
    };
    if let Some(seconds) = text.strip_prefix('@') {
        return since_1970(seconds).ok_or_else(wrong);
    }
    let ago = text.strip_suffix("ago").unwrap_or(text);
    if let Ok(ago) = parse_duration(ago) {
        let at = now_ms.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX));
        return Ok(When { first_ms: at, last_ms: at });
    }
    calendar(text).ok_or_else(wrong)
}

/// Seconds, with up to three digits after the point.
fn since_1970(text: &str) -> Option<When> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) || fraction.len() > 3 {
        return None;
    }
    let first_ms = seconds.parse::<i64>().ok()?.checked_mul(1_000)?;
    if fraction.is_empty() {
        return Some(When { first_ms, last_ms: first_ms.checked_add(999)? });
    }
    let at = first_ms.checked_add(format!("{fraction:0<3}").parse().ok()?)?;
    Some(When { first_ms: at, last_ms: at })
}

/// A date, or a date and a time of day.
fn calendar(text: &str) -> Option<When> {
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("UTC")).unwrap_or(text);
    let (date, of_day) = match text.trim().split_once([' ', 'T']) {
        Some((date, of_day)) => (date, of_day.trim()),
        None => (text.trim(), "00:00"),
    };
    let [year, month, day] = numbers(date, '-')?[..] else { return None };
    let (hour, minute, second) = match numbers(of_day, ':')?[..] {
        [hour, minute] => (hour, minute, None),
        [hour, minute, second] => (hour, minute, Some(second)),
        _ => return None,
    };
    let fits = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second.unwrap_or(0) < 60;
    if !fits {
        return None;
    }
    let seconds = ((days_until(year, month, day) * 24 + hour) * 60 + minute) * 60;
    let first_ms = (seconds + second.unwrap_or(0)) * 1_000;
    let last_ms = if second.is_some() { first_ms + 999 } else { first_ms };
    Some(When { first_ms, last_ms })
}

fn numbers(text: &str, between: char) -> Option<Vec<i64>> {
    let is_number =
        |part: &str| (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    text.split(between).map(|part| is_number(part).then(|| part.parse().ok()).flatten()).collect()
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && year % 100 != 0 || year % 400 == 0
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The days from 1970 to a date.
fn days_until(year: i64, month: i64, day: i64) -> i64 {
    let years = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum::<i64>();
    years + (1..month).map(|month| days_of(year, month)).sum::<i64>() + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moment_is_a_date_a_time_or_so_long_ago() {
        let at = |text| parse_at(text, 10_000_000).map(|when| (when.first_ms, when.last_ms)).ok();
        assert_eq!(at("2h"), Some((2_800_000, 2_800_000)));
        assert_eq!(at("30s ago"), Some((9_970_000, 9_970_000)));
        assert_eq!(at("1970-01-02"), Some((86_400_000, 86_400_000)));
        assert_eq!(at("2026-11-22 13:05:11 UTC"), Some((1_795_352_711_000, 1_795_352_711_999)));
        assert_eq!(at("2026-11-22T13:05:11Z"), at("2026-11-22 13:05:11"));
        assert_eq!(at("2024-02-29 00:00"), Some((1_709_164_800_000, 1_709_164_800_000)));
        assert_eq!(at("@12"), Some((12_000, 12_999)));
        assert_eq!(at("@12.5"), Some((12_500, 12_500)));
        for wrong in
            ["", "yesterday", "2026-13-01", "2025-02-29", "2026-11-22 25:00", "@", "@1.2345"]
        {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }
}
