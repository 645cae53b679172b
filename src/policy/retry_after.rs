//! When a server says to come back.

use std::time::Duration;

use crate::job::http_date_ms;

/// Reads what a server asks for: `retry-after-ms` in milliseconds (OpenAI), or `Retry-After` in
/// seconds or as an HTTP date (RFC 9110, section 10.2.3). A date is counted from the server's own
/// `Date` where it gave one, so that a wrong clock on either side does no harm; `now_ms` is ours,
/// in milliseconds since the Unix epoch. What makes no sense, or lies in the past, is nothing.
#[must_use]
pub fn retry_after(
    milliseconds: Option<&str>,
    retry_after: Option<&str>,
    date: Option<&str>,
    now_ms: u64,
) -> Option<Duration> {
    if let Some(wait) = milliseconds.and_then(|text| positive(text, 0.001)) {
        return Some(wait);
    }
    let text = retry_after?.trim();
    if text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+' || c == '.') {
        return positive(text, 1.0);
    }
    let until = http_date_ms(text)?;
    let now = date.and_then(http_date_ms).or_else(|| i64::try_from(now_ms).ok())?;
    let ms = u64::try_from(until.saturating_sub(now)).ok()?;
    bounded(Duration::from_millis(ms))
}

/// The wait that a message's text asks for: `Please retry after 45 seconds` (Azure), `Please try again in
/// 6m0s` (OpenAI). A time in other words is none.
#[must_use]
pub fn wait_in_text(text: &str) -> Option<Duration> {
    let text = text.to_ascii_lowercase();
    let after = ["retry after ", "try again in ", "retry in "];
    let rest = after.iter().find_map(|words| Some(text.split_once(words)?.1))?;
    let (mut seconds, mut rest) = (None, rest.trim_start());
    while rest.starts_with(|c: char| c.is_ascii_digit()) {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, behind) = rest.split_at(rest.find(|c| !is_number(c)).unwrap_or(rest.len()));
        let behind = behind.trim_start();
        let end = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let unit = match &behind[..end] {
            "ms" | "milliseconds" => 0.001,
            "s" | "sec" | "second" | "seconds" => 1.0,
            "m" | "min" | "minute" | "minutes" => 60.0,
            "h" | "hour" | "hours" => 3600.0,
            _ => return None,
        };
        let number: f64 = number.trim_end_matches('.').parse().ok()?;
        seconds = Some(seconds.unwrap_or(0.0) + number * unit);
        rest = &behind[end..];
    }
    let wait = seconds.filter(|seconds| seconds.is_finite())?.min(LONGEST.as_secs_f64());
    bounded(Duration::from_secs_f64(wait))
}

/// The longest wait that is taken for one: a year. More is a mistake of the server's.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

fn bounded(wait: Duration) -> Option<Duration> {
    (!wait.is_zero()).then(|| wait.min(LONGEST))
}

fn positive(text: &str, unit: f64) -> Option<Duration> {
    let seconds = text.trim().parse::<f64>().ok()? * unit;
    let wait = seconds.is_finite().then(|| seconds.clamp(0.0, LONGEST.as_secs_f64()))?;
    bounded(Duration::from_secs_f64(wait))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: &str = "Sat, 21 Nov 2026 12:00:00 GMT";
    const LATER: &str = "Sat, 21 Nov 2026 12:00:07 GMT";

    #[test]
    fn seconds_dates_and_milliseconds_are_read() {
        let now = u64::try_from(http_date_ms(NOON).unwrap()).unwrap();
        let seconds = |text| retry_after(None, Some(text), None, now).map(|d| d.as_secs_f64());
        assert_eq!(seconds("7"), Some(7.0));
        assert_eq!(seconds(" 1.5 "), Some(1.5));
        assert_eq!(seconds(LATER), Some(7.0));
        assert_eq!(
            retry_after(Some("250"), Some("7"), None, now),
            Some(Duration::from_millis(250))
        );
        let skewed = now + 3_600_000;
        assert_eq!(
            retry_after(None, Some(LATER), Some(NOON), skewed),
            Some(Duration::from_secs(7))
        );
        for nothing in ["", "abc", "-1", "0", "NaN", "inf", "1e-99", NOON, "Sat, 99 Nov"] {
            assert_eq!(seconds(nothing), None, "{nothing}");
        }
        for far in ["1e99", "Wed, 29 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            assert_eq!(seconds(far), Some(LONGEST.as_secs_f64()), "{far}");
        }
        let long_ago =
            retry_after(None, Some("Mon, 01 Jan 0001 00:00:00 GMT"), None, i64::MAX as u64);
        assert_eq!(long_ago, None);
    }

    #[test]
    fn waits_in_texts_are_read() {
        let seconds = |text| wait_in_text(text).map(|wait| wait.as_secs_f64());
        for (text, expected) in [
            ("Rate limit is exceeded. Please retry after 45 seconds.", Some(45.0)),
            ("Please retry after 86400 seconds", Some(86_400.0)),
            ("Please try again in 6m0s. Visit our pages", Some(360.0)),
            ("Please try again in 12ms.", Some(0.012)),
            ("please try again in 1.5s", Some(1.5)),
            ("try again in 20s.", Some(20.0)),
            ("Retry after 2 minutes", Some(120.0)),
            ("try again in a moment", None),
            ("try again in 3 moons", None),
            ("retry after 0 seconds", None),
            ("slow down", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn texts_never_panic(text in "(retry after |try again in )[0-9.]{0,400} ?[a-zé]{0,9}.*") {
            let _ = wait_in_text(&text);
        }

        #[test]
        fn never_panics(ms in ".*", after in ".*", date in ".*", now: u64) {
            let _ = retry_after(Some(&ms), Some(&after), Some(&date), now);
        }
    }
}
