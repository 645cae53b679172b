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

/// What is left of one limit of an endpoint's, as far as it tells. It is a help and not the truth:
/// where it is spent, calls wait for as long as it should take to come back, at most a minute; then
/// one goes all the same, and if that is answered, what the endpoint tells is not believed until it
/// refuses a call.
#[derive(Debug, Clone, Default)]
pub struct Allotment {
    known: Option<Known>,
    // All that was ever started.
    started: u64,
    is_doubted: bool,
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

impl Allotment {
    /// How long calls wait at most for what is told to be spent.
    pub const LONGEST: Duration = Duration::from_secs(60);

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
    /// behind that call.
    #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
    pub fn told(&mut self, now: Instant, sent: Instant, started_then: u64, told: Told) {
        let Some(left) = told.left else { return };
        if self.known.is_some_and(|known| sent < known.sent) {
            return;
        }
        let full = told.limit.map_or(f64::INFINITY, |limit| limit as f64);
        let missing = if full.is_finite() { (full - left as f64).max(1.0) } else { 1.0 };
        let a_second = match told.full_after {
            Some(after) => missing / after.as_secs_f64().max(0.001),
            None if full.is_finite() => full / 60.0,
            None => 0.0,
        };
        let since = self.started.saturating_sub(started_then) as f64;
        let back = a_second * now.saturating_duration_since(sent).as_secs_f64();
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
        let longest = since + Self::LONGEST;
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

    /// A call that was sent then was answered: if there should have been nothing left for it, what is
    /// told is wrong.
    pub fn answered(&mut self, sent: Instant) {
        if self.probed_at.is_some_and(|at| sent >= at) {
            self.probed_at = None;
            self.is_doubted = true;
        }
    }

    /// A call was refused because of a limit: there is one.
    pub fn refused(&mut self) {
        (self.is_doubted, self.probed_at) = (false, None);
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
    fn an_absurd_head_holds_nothing_up_for_long() {
        let start = Instant::now();
        for wrong in [
            told(0, 0, SECOND * u32::MAX),
            told(10, 0, SECOND * 86_400),
            Told { left: Some(0), ..Told::default() },
        ] {
            let mut tokens = Allotment::default();
            tokens.told(start, start, 0, wrong);
            let (mut now, mut waits) = (start, 0);
            while let Err(at) = tokens.may_start(now, 100) {
                assert!(at > now && at <= start + Allotment::LONGEST, "{wrong:?}");
                (now, waits) = (at, waits + 1);
                assert!(waits < 3, "{wrong:?}");
            }
            tokens.start(100);
            // The call is answered, and the reply tells the same again.
            tokens.told(now, now, 100, wrong);
            tokens.answered(now);
            assert!(tokens.may_start(now, 100).is_ok(), "{wrong:?}");
            tokens.refused();
            tokens.told(now, now, 100, told(10, 0, 60 * SECOND));
            assert!(tokens.may_start(now, 10).is_err(), "a refusal makes it believed again");
        }
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
