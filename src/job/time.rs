//! Points in time, as files show them, and lengths of time, as users say them.

use std::time::Duration;

/// A time in milliseconds since the Unix epoch as RFC 3339 has it, in UTC. It ends with the year 9999, and so do
/// later times.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    let last = jiff::Timestamp::MAX;
    let time = i64::try_from(unix_ms).map(jiff::Timestamp::from_millisecond);
    let time = time.ok().and_then(Result::ok).unwrap_or(last);
    format!("{time:.3}")
}

/// A time as RFC 3339 has it, in milliseconds since the Unix epoch; `None` if it is none. The last hours of the year
/// 9999, which some servers say for never, count as the last moment there is.
#[must_use]
pub fn unix_ms(text: &str) -> Option<i64> {
    let last = || is_last_day(&text.get(..10)?.parse().ok()?);
    let time = text.parse::<jiff::Timestamp>().ok().or_else(last)?;
    Some(time.as_millisecond())
}

/// An HTTP date, likewise. An IMF-fixdate is an RFC 2822 date whose zone is spelled GMT.
#[must_use]
pub fn http_date_ms(text: &str) -> Option<i64> {
    let text = text.trim();
    let last = || {
        let date = jiff::fmt::strtime::parse("%a, %d %b %Y %H:%M:%S GMT", text).ok()?;
        is_last_day(&date.to_date().ok()?)
    };
    let time = jiff::fmt::rfc2822::parse(text).ok().map(|time| time.timestamp()).or_else(last)?;
    Some(time.as_millisecond())
}

/// The last moment that is counted, where a day is one of the last two, in which some moments are not.
fn is_last_day(day: &jiff::civil::Date) -> Option<jiff::Timestamp> {
    let last = jiff::civil::Date::MAX;
    let is_late = *day == last || last.yesterday().is_ok_and(|before| *day == before);
    is_late.then_some(jiff::Timestamp::MAX)
}

/// A time: seconds, or with units like `1h 30m`.
///
/// # Errors
/// With what is expected, when it is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected seconds like 30, or a time with units like 90s, 10m, 2h".to_owned();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| expected());
    }
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| expected())?;
    Duration::try_from(parsed).map_err(|_| expected())
}

/// A time that is not nothing.
///
/// # Errors
/// With what is expected, when it is none.
pub fn some_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("expected more than nothing".to_owned()),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_after_the_last_are_the_last() {
        let last = "9999-12-30T22:00:00.999Z";
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        let late = http_date_ms("Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(late, unix_ms("9999-12-31T23:59:59Z"));
        for ms in [u64::MAX, u64::try_from(late.unwrap()).unwrap(), 253_402_300_799_000] {
            assert_eq!(rfc3339(ms), last, "{ms}");
        }
        assert_eq!(unix_ms("2026-11-21T12:00:00Z"), http_date_ms("Sat, 21 Nov 2026 12:00:00 GMT"));
        assert_eq!((unix_ms("never"), http_date_ms("never")), (None, None));
    }

    #[test]
    fn times_are_seconds_or_have_units() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for text in ["", "-1", "x", "-5s", "NaN", "inf"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
