//! What the heads of replies say: of an endpoint's rate limits, and the name that it gave a request.

use std::time::Duration;

use hyper::header::HeaderMap;

use crate::job::unix_ms;
use crate::policy::Told;

/// The name that an endpoint gave a request: `x-request-id` (OpenAI and most others) or `request-id`
/// (Anthropic). Names longer than 256 bytes are nobody's.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    let name = headers.get("x-request-id").or_else(|| headers.get("request-id"))?;
    let name = name.to_str().ok()?.trim();
    (1..=256).contains(&name.len()).then(|| name.to_owned())
}

/// Reads what a head says of limits, of calls and of tokens; nothing where it says nothing of what is
/// left. Two families are known: `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, whose reset
/// is the time until all is there again, as `1s`, `6m0s` or `120ms` (OpenAI, Groq and those who do as
/// they do; Azure writes `x-rate-limit-` as well), and `anthropic-ratelimit-{requests,tokens}-{limit,remaining,reset}`, whose reset is an
/// RFC 3339 time. `now_ms` is the time in milliseconds since the Unix epoch.
/// <https://platform.openai.com/docs/guides/rate-limits>, <https://console.groq.com/docs/rate-limits>,
/// <https://platform.claude.com/docs/en/api/rate-limits>
#[must_use]
pub fn told(headers: &HeaderMap, now_ms: u64) -> Option<(Told, Told)> {
    let (mut calls, mut tokens) = (Told::default(), Told::default());
    for (name, value) in headers {
        let name = name.as_str();
        let rest = match name.as_bytes().first() {
            // Azure has both spellings, at times in one reply.
            Some(b'x') => {
                let rest = name.strip_prefix("x-ratelimit-");
                rest.or_else(|| name.strip_prefix("x-rate-limit-"))
            }
            Some(b'a') => name.strip_prefix("anthropic-ratelimit-"),
            _ => None,
        };
        let (Some(rest), Ok(value)) = (rest, value.to_str()) else { continue };
        // What comes first is the kind or the limit; more than two words are finer limits.
        let Some((one, other)) = rest.split_once('-') else { continue };
        let (kind, what) = if name.starts_with('x') { (other, one) } else { (one, other) };
        let told = match kind {
            "requests" => &mut calls,
            "tokens" => &mut tokens,
            _ => continue,
        };
        match what {
            "limit" => told.limit = value.trim().parse().ok(),
            "remaining" => told.left = value.trim().parse().ok(),
            "reset" => told.full_after = reset(value.trim(), now_ms),
            _ => {}
        }
    }
    (calls.left.is_some() || tokens.left.is_some()).then_some((calls, tokens))
}

/// A time until a reset: `1s`, `6m0s`, `120ms`, plain seconds, or an RFC 3339 time.
fn reset(text: &str, now_ms: u64) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    if let Some(at) = unix_ms(text) {
        let ms = at.saturating_sub(i64::try_from(now_ms).ok()?);
        return Some(Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
    }
    let mut sum = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |it| end + it);
        let seconds = match &rest[end..unit] {
            "ms" => number / 1000.0,
            "s" => number,
            "m" => number * 60.0,
            "h" => number * 3600.0,
            "d" => number * 86_400.0,
            "us" | "\u{b5}s" => number / 1e6,
            _ => return None,
        };
        sum = sum.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn of(lines: &[(&str, &str)]) -> Option<(Told, Told)> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
        told(&headers, 1_763_700_000_000)
    }

    #[test]
    fn both_families_are_read() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let (calls, tokens) = of(&[
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-remaining-requests", "59"),
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-limit-tokens", "150000"),
            ("x-ratelimit-remaining-tokens", "149984"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ])
        .unwrap();
        assert_eq!(calls, Told { limit: Some(60), left: Some(59), full_after: ms(1000) });
        assert_eq!(
            tokens,
            Told { limit: Some(150_000), left: Some(149_984), full_after: ms(360_000) }
        );
        let (calls, tokens) = of(&[
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-remaining", "0"),
            ("anthropic-ratelimit-requests-reset", "2025-11-21T04:40:07Z"),
            ("anthropic-ratelimit-input-tokens-remaining", "3"),
        ])
        .unwrap();
        assert_eq!(calls, Told { limit: Some(50), left: Some(0), full_after: ms(7000) });
        assert_eq!(tokens, Told::default(), "finer limits are none of ours");
        assert_eq!(of(&[("x-ratelimit-limit-requests", "60"), ("content-type", "a")]), None);
    }

    #[test]
    fn azures_spellings_are_read_and_mean_no_wait() {
        let (calls, tokens) = of(&[
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-limit-tokens", "-1"),
            ("x-ratelimit-remaining-tokens", "-1"),
            ("x-rate-limit-reset-tokens", "55"),
        ])
        .unwrap();
        assert_eq!(calls, Told { left: Some(0), ..Told::default() });
        let full_after = Some(Duration::from_secs(55));
        assert_eq!(tokens, Told { full_after, ..Told::default() });
    }

    #[test]
    fn times_are_read() {
        let read = |text| reset(text, 1_763_700_000_000).map(|time| time.as_secs_f64());
        for (text, seconds) in [
            ("1s", 1.0),
            ("6m0s", 360.0),
            ("120ms", 0.12),
            ("2m59.56s", 179.56),
            ("7.66s", 7.66),
            ("1h2m3s", 3723.0),
            ("0", 0.0),
            ("12", 12.0),
            ("2020-01-01T00:00:00Z", 0.0),
        ] {
            assert_eq!(read(text), Some(seconds), "{text}");
        }
        for nothing in ["", "s", "-1", "1x", "soon", "1s2", "NaN", "inf", "1e400s"] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_there_is_no_trouble(reset_text in "[0-9a-z.:+-]{0,20}", now: u64) {
            let _ = reset(&reset_text, now);
        }
    }
}
