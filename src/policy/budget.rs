//! How many calls may be made again: so few that an endpoint in trouble is not called twice as much
//! because it is in trouble.

use std::time::{Duration, Instant};

use super::retry::backoff;

/// The budget of calls that are made again, after *Handling Overload* of the SRE book and the retry
/// token buckets of the AWS SDKs: every retry takes one token, every answer gives a tenth back. While
/// there is none, rows that have not been tried yet come first. When only such are left that have,
/// they wait for a while and the bucket is filled again: larger every time that was worth it.
#[derive(Debug, Clone, Default)]
pub struct RetryBudget {
    spent: f64,
    refill_at: Option<Instant>,
    // Refills in a row that were of use, and those that were not.
    good: u32,
    bad: u32,
    // Calls since the last refill, and how many of them were answered.
    ended: u64,
    answered: u64,
}

impl RetryBudget {
    /// The least a bucket holds; it holds as many as may be in flight.
    const LEAST: usize = 10;
    /// What an answer gives back.
    const BACK: f64 = 0.1;

    #[expect(clippy::cast_precision_loss, reason = "calls in flight are few")]
    fn holds(limit: usize) -> f64 {
        limit.max(Self::LEAST) as f64
    }

    /// A call ended: with an answer, or with a failure that may pass.
    pub fn ended(&mut self, is_answer: bool) {
        self.ended += 1;
        if is_answer {
            self.answered += 1;
            if self.spent > 0.0 {
                self.spent = (self.spent - Self::BACK).max(0.0);
            }
        }
    }

    /// Whether a call may be made again where so many may be in flight.
    #[must_use]
    pub fn may_retry(&self, limit: usize) -> bool {
        self.spent + 1.0 <= Self::holds(limit)
    }

    /// A call is made again.
    pub fn retry(&mut self) {
        self.spent += 1.0;
    }

    /// Only rows to try again are left and there are no tokens: gives the time from which on there
    /// are some again, or nothing if there are now. `random` is a number in `0.0..1.0`.
    pub fn refill(&mut self, now: Instant, limit: usize, random: f64) -> Option<Instant> {
        if self.may_retry(limit) {
            self.refill_at = None;
            return None;
        }
        let at = match self.refill_at {
            Some(at) => at,
            None => {
                let is_useful = self.answered * 2 >= self.ended;
                (self.good, self.bad) =
                    if is_useful { (self.good + 1, 0) } else { (0, self.bad + 1) };
                (self.ended, self.answered) = (0, 0);
                let half = backoff(self.bad, 1.0) / 2;
                let at = now + half + backoff(self.bad, random) / 2;
                *self.refill_at.insert(at)
            }
        };
        if now < at {
            return Some(at);
        }
        self.refill_at = None;
        // The first refill is one bucket, those after useful ones twice the last.
        let buckets = f64::from(1_u32 << self.good.saturating_sub(1).min(10));
        self.spent = Self::holds(limit) * (1.0 - buckets);
        None
    }

    /// The longest pause before a refill.
    pub const LONGEST: Duration = Duration::from_secs(60);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_with_few_failures_is_never_held_back() {
        let mut budget = RetryBudget::default();
        for call in 0..100_000 {
            budget.ended(call % 12 != 0);
            if call % 12 == 0 {
                assert!(budget.may_retry(8), "call {call}");
                budget.retry();
                budget.ended(true);
            }
        }
    }

    #[test]
    fn an_endpoint_that_fails_is_called_again_a_tenth_as_often_as_it_answers() {
        let mut budget = RetryBudget::default();
        let (mut fresh, mut again) = (0_u32, 0_u32);
        for call in 0..20_000 {
            let is_retry = budget.may_retry(64);
            if is_retry {
                budget.retry();
                again += 1;
            } else {
                fresh += 1;
            }
            budget.ended(call % 2 == 0);
        }
        assert!(again <= fresh / 10 + 64 + 20_000 / 20, "{again} of {fresh}");
    }

    #[test]
    fn when_only_retries_are_left_it_pauses_and_goes_on_and_never_sticks() {
        let mut now = Instant::now();
        let mut budget = RetryBudget::default();
        let (mut left, mut pauses, mut calls) = (5_000_u32, 0, 0_u32);
        while left > 0 {
            if budget.may_retry(64) {
                budget.retry();
                calls += 1;
                // Three of ten fail.
                let is_answer = calls % 10 >= 3;
                budget.ended(is_answer);
                left -= u32::from(is_answer);
            } else if let Some(at) = budget.refill(now, 64, 0.5) {
                assert!(at > now && at - now <= RetryBudget::LONGEST);
                (now, pauses) = (at, pauses + 1);
            }
        }
        assert!((4..12).contains(&pauses), "{pauses}");
    }

    #[test]
    fn pauses_grow_while_nothing_is_answered() {
        let mut now = Instant::now();
        let mut budget = RetryBudget::default();
        let mut waits = Vec::new();
        while waits.len() < 8 {
            if budget.may_retry(4) {
                budget.retry();
                budget.ended(false);
            } else if let Some(at) = budget.refill(now, 4, 1.0) {
                waits.push((at - now).as_secs());
                now = at;
            }
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
