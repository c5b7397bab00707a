//! Times as people read and write them. Everywhere else a time is a `u64`:
//! nanoseconds since the Unix epoch, UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// RFC 3339 in UTC with nine digits: `2026-11-22T12:01:02.123456789Z`.
/// Every `u64` has one; the last is in the year 2554.
pub fn rfc3339(ns: u64) -> String {
    match Timestamp::from_nanosecond(i128::from(ns)) {
        Ok(time) => format!("{time:.9}"),
        // jiff's range ends in the year 9999, beyond u64 nanoseconds.
        Err(_) => format!("{ns} ns"),
    }
}

/// The present.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

/// A point in time from a command line: a duration before `now` ("5m",
/// "1h30m", "250ms") or an RFC 3339 time ("2026-11-22T12:00:00Z").
///
/// # Errors
/// One sentence that names the text and both forms.
pub fn parse_point(text: &str, now: u64) -> Result<u64, String> {
    if let Ok(span) = parse_duration(text) {
        return Ok(now.saturating_sub(span));
    }
    text.parse::<Timestamp>()
        .ok()
        .and_then(|t| u64::try_from(t.as_nanosecond()).ok())
        .ok_or_else(|| {
            format!(
                "\"{}\" is neither a duration such as 5m nor an RFC 3339 time such as 2026-11-22T12:00:00Z",
                crate::text::escape(text)
            )
        })
}

/// A duration in nanoseconds: "250ms", "5m", "1h30m", "7d".
///
/// # Errors
/// One sentence that names the text and the form.
pub fn parse_duration(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "\"{}\" is no duration; write a number and ms, s, m, h or d, such as 5m",
            crate::text::escape(text)
        )
    };
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit_end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit: u64 = match &rest[..unit_end] {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            _ => return Err(wrong()),
        };
        rest = &rest[unit_end..];
        total = number
            .checked_mul(unit)
            .and_then(|n| total.checked_add(n))
            .ok_or_else(wrong)?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_795_348_800_000_000_000;

    #[test]
    fn both_forms_are_taken() {
        assert_eq!(rfc3339(NOON + 7), "2026-11-22T12:00:00.000000007Z");
        assert_eq!(parse_point("2026-11-22T12:00:00Z", 0), Ok(NOON));
        assert_eq!(parse_point("1m30s", NOON), Ok(NOON - 90_000_000_000));
        assert_eq!(parse_duration("250ms"), Ok(250_000_000));
    }

    #[test]
    fn what_is_no_time_is_named() {
        for text in [
            "",
            "5",
            "m5",
            "5 minutes",
            "99999999999d",
            "yester\u{1b}day",
        ] {
            let error = parse_point(text, NOON).err().unwrap_or_default();
            assert!(error.contains("5m"), "{text:?}: {error:?}");
            assert!(!error.contains('\u{1b}'));
        }
    }
}
