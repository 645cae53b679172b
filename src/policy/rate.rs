//! Calls or tokens a minute: never more than the limit in any 60 seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A limit of so much a minute. Two things hold at once: a token bucket spreads what is taken evenly,
/// with bursts of a hundredth, and an exact account of the last minute keeps any 60 seconds within
/// the limit, whatever the sizes. Amounts that turn out otherwise are put right where they were taken.
#[derive(Debug, Clone)]
pub struct Rate {
    limit: u64,
    burst: f64,
    level: f64,
    at: Instant,
    start: Instant,
    // What was taken, by slot; and the sum.
    taken: VecDeque<(u64, u64)>,
    sum: u64,
    // Who was sent away last, and when it may come back: nobody overtakes it.
    claim: Option<(usize, Instant)>,
}

/// What was taken, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    slot: u64,
    amount: u64,
}

/// A slot of the account: a hundredth of a minute.
const SLOT: Duration = Duration::from_millis(600);
/// Slots that a window of 60 seconds may touch.
const SLOTS: u64 = 101;
/// How long after its time somebody with a claim is waited for.
const GRACE: Duration = Duration::from_millis(500);

impl Rate {
    /// So much a minute.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
    pub fn new(limit: u64, now: Instant) -> Self {
        let limit = limit.max(1);
        let burst = (limit as f64 / 100.0).max(1.0);
        Self {
            limit,
            burst,
            level: burst,
            at: now,
            start: now,
            taken: VecDeque::new(),
            sum: 0,
            claim: None,
        }
    }

    /// Takes an amount for a worker.
    ///
    /// # Errors
    /// When there is not enough: the time at which to ask again.
    pub fn take(&mut self, now: Instant, worker: usize, amount: u64) -> Result<Taken, Instant> {
        self.pass(now);
        if let Some((other, at)) = self.claim
            && other != worker
            && now < at + GRACE
        {
            return Err(at.max(now + GRACE / 50));
        }
        let ready = self.fills_at(now, amount).max(self.has_room_at(now, amount));
        if ready > now {
            self.claim = Some((worker, ready));
            return Err(ready);
        }
        self.claim = None;
        self.level -= float(amount);
        let slot = self.slot(now);
        match self.taken.back_mut() {
            Some((last, sum)) if *last == slot => *sum += amount,
            _ => self.taken.push_back((slot, amount)),
        }
        self.sum += amount;
        Ok(Taken { slot, amount })
    }

    /// What was taken turned out to be another amount.
    pub fn correct(&mut self, taken: Taken, amount: u64) {
        self.level = (self.level + float(taken.amount) - float(amount)).min(self.burst);
        let place = self.taken.partition_point(|(slot, _)| *slot < taken.slot);
        if let Some((slot, sum)) = self.taken.get_mut(place)
            && *slot == taken.slot
        {
            let less = taken.amount.min(*sum);
            *sum = *sum - less + amount;
            self.sum = self.sum - less + amount;
        }
    }

    /// Lets the time pass.
    fn pass(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.level = (self.level + passed.as_secs_f64() * self.a_second()).min(self.burst);
        self.at = self.at.max(now);
        let current = self.slot(now);
        while let Some((slot, sum)) = self.taken.front()
            && slot + SLOTS <= current
        {
            self.sum -= sum;
            self.taken.pop_front();
        }
    }

    fn slot(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.start).as_nanos() / SLOT.as_nanos();
        u64::try_from(passed).unwrap_or(u64::MAX / 2)
    }

    fn a_second(&self) -> f64 {
        float(self.limit) * 0.99 / 60.0
    }

    /// When the bucket is full enough. What is larger than the bucket goes when that is full.
    fn fills_at(&self, now: Instant, amount: u64) -> Instant {
        // What rounding takes is not waited for.
        let missing = float(amount).min(self.burst) - self.level - 1e-6;
        if missing <= 0.0 {
            return now;
        }
        now + Duration::from_secs_f64(missing / self.a_second())
    }

    /// When the last minute has room for it. What is larger than the limit goes when nothing was
    /// taken in it; the bucket's debt holds up what comes behind.
    fn has_room_at(&self, now: Instant, amount: u64) -> Instant {
        let room = self.limit.saturating_sub(amount);
        let mut sum = self.sum;
        let mut taken = self.taken.iter();
        while sum > room {
            let Some((slot, part)) = taken.next() else { break };
            sum -= part;
            if sum <= room {
                let slots = u32::try_from(slot + SLOTS).unwrap_or(u32::MAX);
                return (self.start + SLOT * slots).max(now);
            }
        }
        now
    }
}

#[expect(clippy::cast_precision_loss, reason = "amounts are far below 2^53")]
fn float(amount: u64) -> f64 {
    amount as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Takes amounts one after the other for so long, each as soon as it may be taken.
    fn demand(
        limit: u64,
        lasts: Duration,
        mut amount: impl FnMut() -> u64,
    ) -> Vec<(Duration, u64)> {
        let start = Instant::now();
        let (mut now, mut rate, mut taken) = (start, Rate::new(limit, start), Vec::new());
        while now < start + lasts {
            let wanted = amount();
            loop {
                match rate.take(now, 0, wanted) {
                    Ok(_) => break taken.push((now - start, wanted)),
                    Err(at) => {
                        assert!(at > now, "whoever is sent away is told when to come back");
                        now = at;
                    }
                }
            }
        }
        taken
    }

    fn most_in_a_minute(taken: &[(Duration, u64)]) -> u64 {
        let (mut begin, mut sum, mut most) = (0, 0, 0);
        for (at, amount) in taken {
            sum += amount;
            while taken[begin].0 + MINUTE < *at {
                sum -= taken[begin].1;
                begin += 1;
            }
            most = most.max(sum);
        }
        most
    }

    #[test]
    fn calls_are_spread_and_use_the_limit() {
        for limit in [1, 2, 3, 7, 60, 99, 100, 500, 3_333, 30_000] {
            let taken = demand(limit, 10 * MINUTE, || 1);
            assert!(most_in_a_minute(&taken) <= limit, "{limit}");
            let used = taken.iter().filter(|(at, _)| *at < 10 * MINUTE).count() as u64;
            assert!(used * 100 >= limit * 10 * 98, "{used} of {}", limit * 10);
            let first = taken.iter().filter(|(at, _)| at.is_zero()).count() as u64;
            assert!(first <= limit.div_ceil(100), "a burst is a hundredth");
        }
    }

    #[test]
    fn what_is_larger_than_the_limit_pays_for_it_in_time() {
        let taken = demand(1000, 21 * MINUTE, || 5000);
        assert!(taken.len() >= 5, "{taken:?}");
        assert!(taken.windows(2).all(|two| two[1].0 - two[0].0 >= 5 * MINUTE));
    }

    #[test]
    fn what_was_not_used_is_given_back() {
        let now = Instant::now();
        let mut rate = Rate::new(1000, now);
        let taken = rate.take(now, 0, 1000).unwrap();
        assert!(rate.take(now, 0, 10).is_err());
        rate.correct(taken, 100);
        // The bucket has its debt of a hundred to pay, and the minute has room.
        let again = rate.take(now, 0, 10).unwrap_err();
        assert!(again - now < Duration::from_secs(7), "{:?}", again - now);
        rate.correct(taken, 100);
        assert!(rate.sum <= 1000);
    }

    #[test]
    fn nobody_is_overtaken_for_ever() {
        let start = Instant::now();
        let mut rate = Rate::new(6000, start);
        let (mut now, mut small) = (start, 0_u32);
        rate.take(now, 0, 60).unwrap();
        // One worker wants most of a minute, another a little all the time.
        let mut large_at = rate.take(now, 1, 3000).unwrap_err();
        let taken_at = loop {
            now += Duration::from_millis(7);
            small += u32::from(rate.take(now, 0, 1).is_ok());
            if now >= large_at {
                match rate.take(now, 1, 3000) {
                    Ok(_) => break now,
                    Err(at) => large_at = at,
                }
            }
            assert!(now - start < 2 * MINUTE, "the large one goes");
        };
        assert!(taken_at - start < MINUTE);
        // Somebody who never comes back holds nobody up for long.
        now += MINUTE * 2;
        rate.take(now, 0, 60).unwrap();
        let claim = rate.take(now, 1, 60).unwrap_err();
        assert!(rate.take(claim + GRACE, 0, 1).is_ok());
        assert!(small > 0 || taken_at > start);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever the sizes: never above in any minute, never starved, and well used.
        #[test]
        fn never_above_and_never_starved(
            limit in 1_u64..200_000,
            share in 0.0001_f64..0.5,
            seed: u64,
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let most = ((limit as f64 * share) as u64).max(1);
            let taken = demand(limit, 5 * MINUTE, || random.u64(1..=most));
            prop_assert!(most_in_a_minute(&taken) <= limit);
            let used: u64 =
                taken.iter().filter(|(at, _)| *at < 5 * MINUTE).map(|(_, amount)| amount).sum();
            // Whole rows leave a rest: as much as the largest of them.
            let rest = if most > limit / 100 { most } else { 0 };
            prop_assert!(used as f64 >= 5.0 * (limit - rest) as f64 * 0.98, "{used} of {limit}");
        }
    }
}
