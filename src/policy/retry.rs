//! What a failure calls for: another try, a pause for everyone, an end for the row, an end for the
//! run.

use std::time::Duration;

use crate::job::{Failure, FailureKind};

/// What to do about a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try the row again after this time.
    Again(Duration),
    /// Try the row again at once; the attempt does not count against it.
    AtOnce,
    /// Try the row again after this time; the attempt does not count against it.
    Later(Duration),
    /// The endpoint is in trouble: nobody calls it for a while, at least as long as it asked for.
    /// The row waits too, and the attempt does not count against it.
    Pause(Option<Duration>),
    /// The row has failed for good.
    GiveUp,
    /// Nothing can succeed: the run ends, and its rows stay as they are.
    StopRun,
}

/// Decides what follows a failed attempt.
///
/// `calls` is how often the row was called for so far, this call included; `random` is a number in
/// `0.0..1.0`. Whether a row that may be tried again has used up its tries is another question:
/// [`retries_of`] and [`Blame`](super::Blame).
#[must_use]
pub fn decide(failure: &Failure, calls: u32, random: f64) -> Decision {
    let wait = backoff(calls.saturating_sub(1), random);
    match failure.kind {
        FailureKind::Credentials | FailureKind::Quota => Decision::StopRun,
        FailureKind::Connection | FailureKind::Tls => Decision::Pause(failure.retry_after),
        FailureKind::RateLimit => match failure.retry_after {
            Some(asked) => Decision::Pause(Some(asked)),
            None => Decision::Later(wait),
        },
        FailureKind::Closed => Decision::Later(wait),
        // Each connection fails like this once, and then there are fresh ones.
        FailureKind::Stale => Decision::AtOnce,
        kind if may_pass(kind) => {
            Decision::Again(failure.retry_after.map_or(wait, |floor| wait.max(floor)))
        }
        _ => Decision::GiveUp,
    }
}

/// Whether another try may bring what this one did not.
fn may_pass(kind: FailureKind) -> bool {
    retries_of(kind, 1) > 0
}

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

/// How long to wait before try number `n` is repeated (from 0): a random time up to 1 s, 2 s, 4 s,
/// … 60 s. The whole of it is random ("full jitter"), so that many waiters spread evenly.
#[must_use]
pub fn backoff(n: u32, random: f64) -> Duration {
    const LONGEST: Duration = Duration::from_secs(60);
    let ceiling = Duration::from_secs(1 << n.min(6)).min(LONGEST);
    ceiling.mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_remedy() {
        use FailureKind as K;
        let half = Duration::from_millis(500);
        for kind in K::ALL {
            let expected = match kind {
                K::Credentials | K::Quota => Decision::StopRun,
                K::Stale => Decision::AtOnce,
                K::Connection | K::Tls => Decision::Pause(None),
                K::Closed | K::RateLimit => Decision::Later(half),
                K::Timeout | K::BrokenAnswer | K::Server | K::BadResponse | K::EmptyAnswer => {
                    Decision::Again(half)
                }
                _ => Decision::GiveUp,
            };
            assert_eq!(decide(&Failure::new(*kind, ""), 1, 0.5), expected, "{kind:?}");
        }
        assert_eq!(retries_of(K::Server, 9), 9);
        assert_eq!((retries_of(K::BadResponse, 9), retries_of(K::EmptyAnswer, 9)), (2, 1));
        assert_eq!((retries_of(K::BadResponse, 0), retries_of(K::BadRequest, 9)), (0, 0));
    }

    #[test]
    fn what_the_server_asks_for_is_the_least() {
        let mut failure = Failure::new(FailureKind::Server, "");
        failure.retry_after = Some(Duration::from_secs(7));
        assert_eq!(decide(&failure, 1, 0.9), Decision::Again(Duration::from_secs(7)));
        failure.kind = FailureKind::RateLimit;
        assert_eq!(decide(&failure, 1, 0.9), Decision::Pause(Some(Duration::from_secs(7))));
    }

    #[test]
    fn waits_grow_and_stay_bounded() {
        let ceilings: Vec<_> = (0..9).map(|n| backoff(n, 1.0).as_secs()).collect();
        assert_eq!(ceilings, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff(u32::MAX, 0.0), Duration::ZERO);
    }
}
