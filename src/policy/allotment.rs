//! What an endpoint says is left of a limit of its own.

use std::time::{Duration, Instant};

/// What the head of a reply says of one limit, of calls or of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// So much is allowed.
    pub limit: Option<u64>,
    /// So much of it is left.
    pub left: Option<u64>,
    /// After this time all of it is there again.
    pub full_after: Option<Duration>,
}

/// What is left of one limit of an endpoint's, as far as it tells. It is a help and not the truth: calls
/// wait for what should come back, as long as it says and no longer. The first time one call goes after a
/// second all the same: if it is refused, what is told is believed; if it is answered, it is not. Nor is it
/// where more calls are answered than it allows for.
#[derive(Debug, Clone, Default)]
pub struct Allotment {
    known: Option<Known>,
    // What was told first of all that is compared with the answers that followed.
    claim: Option<Claim>,
    // All that was ever started.
    started: u64,
    is_doubted: bool,
    is_proven: bool,
    contradictions: u32,
    held_since: Option<Instant>,
    probed_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    left: f64,
    full: f64,
    a_second: f64,
    at: Instant,
    // When the call was sent whose reply told it.
    sent: Instant,
}

/// How many calls may be answered after one, by what its reply told.
#[derive(Debug, Clone, Copy)]
struct Claim {
    left: f64,
    a_second: f64,
    sent: Instant,
    started: u64,
    answered: f64,
}

impl Allotment {
    /// How long calls wait at most for what is told to be spent, before one finds out.
    pub const LONGEST: Duration = Duration::from_secs(60);
    /// The same where nothing has shown yet that what is told is true.
    const UNPROVEN_LONGEST: Duration = Duration::from_secs(1);
    /// Calls may come to an endpoint in another order than they were sent.
    const SLACK: f64 = 8.0;
    /// A claim is compared with the answers of this time.
    const CLAIM_LASTS: Duration = Duration::from_secs(2);
    /// So often wrong is wrong for good.
    const CONTRADICTIONS_MOST: u32 = 3;

    /// Whether anything was told that could hold calls back.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.known.is_none() || self.is_doubted
    }

    /// All that was started so far: to be kept with a call, for [`Self::told`].
    #[must_use]
    pub fn started(&self) -> u64 {
        self.started
    }

    /// The reply to a call that was sent then told something. Endpoints count a call when it comes,
    /// so what was started since then is taken off; `started_then` is what [`Self::started`] said
    /// behind that call. What is left of a limit without a time is left of a window of which nobody
    /// knows the length, and is no reason to wait.
    #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
    pub fn told(&mut self, now: Instant, sent: Instant, started_then: u64, told: Told) {
        let (Some(left), Some(after)) = (told.left, told.full_after) else { return };
        if self.known.is_some_and(|known| sent < known.sent) {
            return;
        }
        let full = told.limit.map_or(f64::INFINITY, |limit| limit as f64);
        let missing = if full.is_finite() { (full - left as f64).max(1.0) } else { 1.0 };
        let a_second = missing / after.as_secs_f64().max(0.001);
        let since = self.started.saturating_sub(started_then) as f64;
        let back = a_second * now.saturating_duration_since(sent).as_secs_f64();
        if self.claim.is_none_or(|claim| now > claim.sent + Self::CLAIM_LASTS) {
            let (left, started) = (left as f64, started_then);
            self.claim = Some(Claim { left, a_second, sent, started, answered: 0.0 });
        }
        let left = (left as f64 + back).min(full) - since;
        self.known = Some(Known { left, full, a_second, at: now, sent });
    }

    /// Whether a call that needs so much may be started.
    ///
    /// # Errors
    /// When there is too little: the time at which to ask again.
    #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
    pub fn may_start(&mut self, now: Instant, amount: u64) -> Result<(), Instant> {
        let Some(known) = self.known.filter(|_| !self.is_doubted) else { return Ok(()) };
        let passed = now.saturating_duration_since(known.at).as_secs_f64();
        let left = (known.left + known.a_second * passed).min(known.full);
        let missing = (amount as f64).min(known.full) - left;
        if missing <= 1e-6 {
            self.held_since = None;
            return Ok(());
        }
        let since = *self.held_since.get_or_insert(now);
        let longest = if self.is_proven { Self::LONGEST } else { Self::UNPROVEN_LONGEST };
        let longest = since + longest;
        if now >= longest {
            (self.held_since, self.probed_at) = (Some(now), Some(now));
            return Ok(());
        }
        let wait = missing / known.a_second.max(1e-9);
        let wait = Duration::from_secs_f64(wait.clamp(0.001, Self::LONGEST.as_secs_f64()));
        Err((now + wait).min(longest))
    }

    /// A call that needs so much is started.
    #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
    pub fn start(&mut self, amount: u64) {
        self.started = self.started.saturating_add(amount);
        if let Some(known) = &mut self.known {
            known.left -= amount as f64;
        }
    }

    /// A call was answered that took so much, was sent then, and found so much started: where there should
    /// have been nothing left for it, what is told is wrong.
    #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
    pub fn answered(&mut self, sent: Instant, started_then: u64, amount: u64) {
        if self.probed_at.is_some_and(|at| sent >= at) {
            self.probed_at = None;
            self.doubt();
        }
        let Some(claim) = self.claim.as_mut().filter(|it| started_then > it.started) else {
            return;
        };
        claim.answered += amount as f64;
        let passed = sent.saturating_duration_since(claim.sent).as_secs_f64();
        let most = claim.left + claim.a_second * passed;
        if claim.answered > 1.25 * most + Self::SLACK * (amount as f64) {
            self.doubt();
        }
    }

    fn doubt(&mut self) {
        (self.is_doubted, self.is_proven) = (true, false);
        (self.claim, self.held_since) = (None, None);
        self.contradictions += 1;
    }

    /// A call was refused because of a limit: there is one.
    pub fn refused(&mut self, sent: Instant) {
        if self.probed_at.is_some_and(|at| sent >= at) {
            (self.is_proven, self.probed_at) = (true, None);
        }
        if self.contradictions < Self::CONTRADICTIONS_MOST {
            self.is_doubted = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(limit: u64, left: u64, full_after: Duration) -> Told {
        Told { limit: Some(limit), left: Some(left), full_after: Some(full_after) }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn nothing_is_started_until_enough_has_come_back() {
        let start = Instant::now();
        let mut requests = Allotment::default();
        assert!(requests.may_start(start, 1).is_ok() && requests.is_silent());
        // Sixty a minute, and all are spent.
        requests.told(start, start, 0, told(60, 0, 60 * SECOND));
        let at = requests.may_start(start, 1).unwrap_err();
        assert_eq!((at - start).as_millis(), 1000);
        assert!(requests.may_start(at, 1).is_ok());
        requests.start(1);
        assert!(requests.may_start(at, 1).is_err());
        // What does not fit at all goes when all is there.
        assert!(requests.may_start(start + 61 * SECOND, 1_000).is_ok());
    }

    #[test]
    fn what_was_started_since_is_taken_off() {
        let start = Instant::now();
        let mut requests = Allotment::default();
        (0..8).for_each(|_| requests.start(1));
        requests.told(start, start, 1, told(100, 9, 3600 * SECOND));
        assert!(requests.may_start(start, 1).is_ok(), "nine less seven");
        requests.told(start, start, 8, told(100, 5, 3600 * SECOND));
        assert!(requests.may_start(start, 5).is_ok() && requests.may_start(start, 6).is_err());
    }

    #[test]
    fn a_wrong_head_holds_nothing_up_for_long() {
        let start = Instant::now();
        for wrong in [told(0, 0, SECOND * u32::MAX), told(10, 0, SECOND * 86_400)] {
            let mut tokens = Allotment::default();
            tokens.told(start, start, 0, wrong);
            let (mut now, mut waits) = (start, 0);
            while let Err(at) = tokens.may_start(now, 100) {
                assert!(at > now && at <= start + SECOND, "{wrong:?}");
                (now, waits) = (at, waits + 1);
                assert!(waits < 3, "{wrong:?}");
            }
            tokens.start(100);
            // The call is answered, and the reply tells the same again.
            tokens.told(now, now, 100, wrong);
            tokens.answered(now, 200, 100);
            assert!(tokens.may_start(now, 100).is_ok(), "{wrong:?}");
            tokens.refused(now);
            tokens.told(now, now, 100, told(10, 0, 60 * SECOND));
            assert!(tokens.may_start(now, 10).is_err(), "a refusal makes it believed again");
        }
    }

    #[test]
    fn nothing_left_without_a_time_is_no_wait() {
        let now = Instant::now();
        let mut calls = Allotment::default();
        calls.told(now, now, 0, Told { left: Some(0), limit: Some(300), full_after: None });
        assert!(calls.may_start(now, 1).is_ok() && calls.is_silent());
        // Azure's reset of 0 seconds.
        calls.told(now, now, 0, told(300, 0, Duration::ZERO));
        assert!(calls.may_start(now + Duration::from_millis(1), 1).is_ok());
    }

    #[test]
    fn a_head_that_answers_contradict_is_not_believed() {
        let now = Instant::now();
        let mut calls = Allotment::default();
        (0..64).for_each(|_| calls.start(1));
        calls.told(now, now, 1, told(10_000, 0, 60 * SECOND));
        assert!(calls.may_start(now, 1).is_err());
        for started in 2..=11 {
            calls.answered(now, started, 1);
        }
        assert!(calls.may_start(now, 1).is_ok());
    }

    #[test]
    fn a_head_that_a_refusal_confirms_holds_for_as_long_as_it_says() {
        let now = Instant::now();
        let mut calls = Allotment::default();
        calls.start(1);
        calls.told(now, now, 1, told(10, 0, 300 * SECOND));
        assert_eq!(calls.may_start(now, 1), Err(now + SECOND), "then one finds out");
        assert!(calls.may_start(now + SECOND, 1).is_ok());
        calls.start(1);
        calls.refused(now + SECOND);
        let wait = calls.may_start(now + SECOND, 1).unwrap_err() - now;
        assert!(wait > 25 * SECOND, "{wait:?}");
    }

    proptest! {
        #[test]
        fn whatever_is_told_a_call_goes_within_a_minute(
            heads in proptest::collection::vec(
                (any::<Option<u64>>(), any::<Option<u64>>(), any::<Option<u32>>(), 0_u64..5), 1..20),
            amount in 0_u64..1_000_000,
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut state = Allotment::default();
            for (limit, left, seconds, passed) in heads {
                now += Duration::from_secs(passed);
                let full_after = seconds.map(|seconds| SECOND * seconds);
                state.told(now, now, state.started(), Told { limit, left, full_after });
                let begin = now;
                let mut waits = 0;
                while let Err(at) = state.may_start(now, amount) {
                    prop_assert!(at > now && at <= begin + Allotment::LONGEST);
                    now = at;
                    waits += 1;
                    prop_assert!(waits < 70_000);
                }
                state.start(amount);
            }
        }
    }
}
