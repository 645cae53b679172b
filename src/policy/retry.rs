//! How often and how soon a row is tried again.

use std::time::Duration;

use crate::job::FailureKind;

/// How often a row is tried again after a failure of this kind, with so many retries allowed: an
/// answer that cannot be used was paid for, and the next is seldom better.
#[must_use]
pub fn retries_of(kind: FailureKind, retries: u32) -> u32 {
    match kind {
        FailureKind::Timeout | FailureKind::BrokenAnswer | FailureKind::Server => retries,
        FailureKind::BadResponse => retries.min(2),
        FailureKind::EmptyAnswer => retries.min(1),
        // Those that are the endpoint's alone.
        FailureKind::Credentials
        | FailureKind::Quota
        | FailureKind::Connection
        | FailureKind::Closed
        | FailureKind::Stale
        | FailureKind::Tls
        | FailureKind::RateLimit => 0,
        // An answer that does not fit its schema is asked for again with the reason, out of a budget
        // of its own; one that was cut off would be cut off again.
        FailureKind::InvalidJson
        | FailureKind::InvalidUtf8
        | FailureKind::InvalidRow
        | FailureKind::InvalidRequest
        | FailureKind::MissingIdField
        | FailureKind::MissingTemplateField
        | FailureKind::NoModel
        | FailureKind::Attachment
        | FailureKind::BadRequest
        | FailureKind::NotFound
        | FailureKind::TooLong
        | FailureKind::ContentFilter
        | FailureKind::Refusal
        | FailureKind::SchemaMismatch
        | FailureKind::Truncated
        | FailureKind::SchemaRefused
        | FailureKind::ResponseTooLarge
        | FailureKind::UnknownCoding
        | FailureKind::Redirect => 0,
    }
}

/// How long to wait before try number `n` is repeated (from 0): up to 0.5 s, 1 s, 2 s, … 8 s, half of it
/// at random, so that many waiters spread.
#[must_use]
pub fn backoff(n: u32, random: f64) -> Duration {
    const LONGEST: Duration = Duration::from_secs(8);
    let ceiling = Duration::from_millis(500 << n.min(4)).min(LONGEST);
    ceiling.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
}

/// How long a row waits that failed so often, and was asked to wait so long. Where the endpoint answers
/// others whatever the load, waiting longer makes no difference to anybody else.
#[must_use]
pub fn retry_wait(
    failed: u32,
    asked: Option<Duration>,
    is_load_cleared: bool,
    random: f64,
) -> Duration {
    const CLEARED_MOST: u32 = 1;
    const LATER: f64 = 0.25;
    /// A longer wait is not what one request can be asked for.
    const ASKED_MOST: Duration = Duration::from_secs(60);
    let n = failed.saturating_sub(1);
    let wait = backoff(if is_load_cleared { n.min(CLEARED_MOST) } else { n }, random);
    // Rows that were refused together must not come back together, again and again.
    let later = 1.0 + LATER * random.clamp(0.0, 1.0);
    asked.map_or(wait, |asked| asked.min(ASKED_MOST).mul_f64(later))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_and_stays_bounded() {
        let ceilings: Vec<_> = (0..7).map(|n| backoff(n, 1.0).as_millis()).collect();
        assert_eq!(ceilings, [500, 1000, 2000, 4000, 8000, 8000, 8000]);
        assert_eq!(backoff(u32::MAX, 0.0), Duration::from_secs(4));
    }

    #[test]
    fn retry_after_binds_its_row_for_a_minute_at_most() {
        let seconds = |asked: u64, is_cleared| {
            retry_wait(1, Some(Duration::from_secs(asked)), is_cleared, 0.0).as_secs()
        };
        assert_eq!((seconds(7, false), seconds(7, true), seconds(7200, false)), (7, 7, 60));
        let asked = Some(Duration::from_secs(4));
        assert_eq!(retry_wait(1, asked, false, 1.0), Duration::from_secs(5), "not all at once");
    }

    #[test]
    fn rows_wait_briefly_where_the_load_is_not_the_cause() {
        assert_eq!(retry_wait(9, None, false, 1.0), Duration::from_secs(8));
        assert_eq!(retry_wait(9, None, true, 1.0), Duration::from_secs(1));
    }
}
