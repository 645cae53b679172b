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
/// `tries` is how many attempts of the row were answered so far, this one included, `retries` how
/// many more than one the user allows, and `random` a number in `0.0..1.0`.
#[must_use]
pub fn decide(failure: &Failure, tries: u32, retries: u32, random: f64) -> Decision {
    let allowed = match failure.kind {
        FailureKind::Credentials | FailureKind::Quota => return Decision::StopRun,
        FailureKind::Connection
        | FailureKind::Closed
        | FailureKind::Tls
        | FailureKind::RateLimit => {
            return Decision::Pause(failure.retry_after);
        }
        // Each connection fails like this once, and then there are fresh ones.
        FailureKind::Stale => return Decision::AtOnce,
        FailureKind::Timeout | FailureKind::BrokenAnswer | FailureKind::Server => retries,
        // An answer that cannot be used was paid for; the next is seldom better. One that does not
        // fit its schema is asked for again with the reason, out of a budget of its own; one that
        // was cut off would be cut off again.
        FailureKind::BadResponse => retries.min(2),
        FailureKind::EmptyAnswer => retries.min(1),
        FailureKind::InvalidJson
        | FailureKind::InvalidUtf8
        | FailureKind::InvalidRow
        | FailureKind::MissingIdField
        | FailureKind::MissingTemplateField
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
        | FailureKind::Redirect => 0,
    };
    if tries > allowed {
        return Decision::GiveUp;
    }
    let wait = backoff(tries - 1, random);
    Decision::Again(failure.retry_after.map_or(wait, |floor| wait.max(floor)))
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

    fn after(kind: FailureKind, tries: u32) -> Decision {
        decide(&Failure::new(kind, ""), tries, 3, 0.5)
    }

    #[test]
    fn each_kind_has_its_remedy() {
        use FailureKind as K;
        for kind in K::ALL {
            let expected = match kind {
                K::Credentials | K::Quota => Decision::StopRun,
                K::Stale => Decision::AtOnce,
                K::Connection | K::Closed | K::Tls | K::RateLimit => Decision::Pause(None),
                K::Timeout | K::BrokenAnswer | K::Server | K::BadResponse | K::EmptyAnswer => {
                    Decision::Again(Duration::from_millis(500))
                }
                _ => Decision::GiveUp,
            };
            assert_eq!(after(*kind, 1), expected, "{kind:?}");
        }
    }

    #[test]
    fn tries_end() {
        let tries = |kind| (1..).take_while(|n| after(kind, *n) != Decision::GiveUp).count();
        assert_eq!(tries(FailureKind::Server), 3);
        assert_eq!(tries(FailureKind::BadResponse), 2);
        assert_eq!(tries(FailureKind::EmptyAnswer), 1);
        let failure = Failure::new(FailureKind::Server, "");
        assert_eq!(decide(&failure, 1, 0, 0.5), Decision::GiveUp);
    }

    #[test]
    fn what_the_server_asks_for_is_the_least() {
        let mut failure = Failure::new(FailureKind::Server, "");
        failure.retry_after = Some(Duration::from_secs(7));
        assert_eq!(decide(&failure, 1, 3, 0.9), Decision::Again(Duration::from_secs(7)));
        failure.kind = FailureKind::RateLimit;
        assert_eq!(decide(&failure, 1, 3, 0.9), Decision::Pause(Some(Duration::from_secs(7))));
    }

    #[test]
    fn waits_grow_and_stay_bounded() {
        let ceilings: Vec<_> = (0..9).map(|n| backoff(n, 1.0).as_secs()).collect();
        assert_eq!(ceilings, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff(u32::MAX, 0.0), Duration::ZERO);
    }
}
