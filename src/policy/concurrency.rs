//! How many calls to an endpoint may be under way: more while it takes them, fewer once it refuses.

use std::time::Instant;

/// The adaptive limit of calls in flight: additive increase, multiplicative decrease (RFC 5681 has
/// the same for TCP, and its slow start). Only what an endpoint refuses or never answers counts, not
/// how long an answer takes: the length of the text decides that.
#[derive(Debug, Clone)]
pub struct Concurrency {
    max: usize,
    is_fixed: bool,
    limit: usize,
    // Below this it grows with every answer.
    fast_to: usize,
    // Answers since the last slow step, and since the last cut.
    since_step: usize,
    since_cut: usize,
    cut_at: Option<Instant>,
}

impl Concurrency {
    /// What is begun with, unless less is the most.
    pub const START: usize = 8;
    /// What a cut leaves.
    const CUT: f64 = 0.7;
    /// Up to this part of what was under way before a cut the limit grows fast.
    const FAST: f64 = 0.8;

    /// Then by this part of itself, or one call: a single refusal among a thousand calls would cost
    /// hundreds of round trips otherwise.
    const SLOW: usize = 64;

    /// A limit that begins low and never passes `max`.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let max = max.max(1);
        Self {
            max,
            is_fixed: false,
            limit: max.min(Self::START),
            fast_to: max,
            since_step: 0,
            since_cut: 0,
            cut_at: None,
        }
    }

    /// A limit that stays: for a server of one's own, which queues what it cannot take at once.
    #[must_use]
    pub fn fixed(limit: usize) -> Self {
        Self { is_fixed: true, limit: limit.max(1), ..Self::new(limit) }
    }

    /// How many calls may be under way.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Whether answers change nothing, so that nobody need tell of them.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_fixed || self.limit >= self.max && self.since_cut >= self.limit
    }

    /// A call was answered while so many were under way, itself included. Before the endpoint refused
    /// anything, and up to near what it took before it did, the limit grows by one with every answer,
    /// which doubles it each round trip; then by a little with every full window of answers. It does
    /// not grow while it is not what holds calls back.
    pub fn answered(&mut self, in_flight: usize) {
        if self.is_fixed {
            return;
        }
        self.since_cut = self.since_cut.saturating_add(1);
        if self.limit >= self.max || in_flight.saturating_mul(2) < self.limit {
            return;
        }
        if self.limit < self.fast_to {
            self.limit += 1;
            return;
        }
        self.since_step += 1;
        if self.since_step >= self.limit {
            self.limit = (self.limit + (self.limit / Self::SLOW).max(1)).min(self.max);
            self.since_step = 0;
        }
    }

    /// A call that was sent then was refused or never answered. The limit is cut once a round trip:
    /// calls that were under way when it was cut last tell nothing new. True when it was cut.
    pub fn overloaded(&mut self, sent: Instant, now: Instant) -> bool {
        if self.is_fixed || self.cut_at.is_some_and(|at| sent < at) {
            return false;
        }
        // Cuts that follow each other without a window of answers in between are one event: what
        // was possible before the first of them is what is grown back to.
        if self.cut_at.is_none() || self.since_cut >= self.limit {
            self.fast_to = part(self.limit, Self::FAST);
        }
        self.limit = part(self.limit, Self::CUT);
        (self.since_cut, self.since_step) = (0, 0);
        self.cut_at = Some(now);
        true
    }
}

/// A part of a number of calls, at least one.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "calls in flight are few"
)]
fn part(number: usize, of: f64) -> usize {
    ((number as f64 * of) as usize).max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// A round trip of a full window, all answered.
    fn round(limit: &mut Concurrency) -> usize {
        let window = limit.limit();
        (0..window).for_each(|_| limit.answered(window));
        limit.limit()
    }

    #[test]
    fn it_doubles_until_something_is_refused_then_grows_slowly() {
        let now = Instant::now();
        let mut limit = Concurrency::new(1000);
        let grown: Vec<_> = (0..8).map(|_| round(&mut limit)).collect();
        assert_eq!(grown, [16, 32, 64, 128, 256, 512, 1000, 1000]);
        assert!(limit.overloaded(now, now));
        assert_eq!(limit.limit(), 700);
        assert_eq!(round(&mut limit), 800, "fast up to 0.8 of what was under way");
        assert_eq!((round(&mut limit), round(&mut limit)), (812, 824));
        assert!((0..15).any(|_| round(&mut limit) == 1000));
    }

    #[test]
    fn it_is_cut_once_a_round_trip() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut limit = Concurrency::new(100);
        (0..4).for_each(|_| {
            round(&mut limit);
        });
        assert_eq!(limit.limit(), 100);
        assert!(limit.overloaded(at(0), at(10)));
        for _ in 0..99 {
            assert!(!limit.overloaded(at(5), at(12)), "sent before the cut");
        }
        assert_eq!(limit.limit(), 70);
        assert!(limit.overloaded(at(11), at(20)));
        assert_eq!(limit.limit(), 49);
    }

    #[test]
    fn after_an_outage_it_is_back_in_a_few_round_trips() {
        let start = Instant::now();
        let mut limit = Concurrency::new(64);
        (0..3).for_each(|_| {
            round(&mut limit);
        });
        for second in 1..=30 {
            let now = start + Duration::from_secs(second);
            assert!(limit.overloaded(now, now));
        }
        assert_eq!(limit.limit(), 1);
        (0..6).for_each(|_| {
            round(&mut limit);
        });
        assert!(limit.limit() >= 51, "{limit:?}");
    }

    #[test]
    fn a_smaller_capacity_is_learned() {
        let start = Instant::now();
        let mut limit = Concurrency::new(1000);
        (0..7).for_each(|_| {
            round(&mut limit);
        });
        // From now on the endpoint takes ten at once.
        let mut highest = 0;
        for second in 0..200 {
            let now = start + Duration::from_secs(second);
            let window = limit.limit();
            (0..window.min(10)).for_each(|_| limit.answered(window));
            (10..window).for_each(|_| {
                limit.overloaded(now, now + Duration::from_millis(1));
            });
            if second > 30 {
                highest = highest.max(limit.limit());
            }
        }
        assert!(highest <= 24, "it keeps near what is possible: {highest}");
    }

    #[test]
    fn it_does_not_grow_while_something_else_holds_calls_back() {
        let mut limit = Concurrency::new(100);
        (0..1000).for_each(|_| limit.answered(1));
        assert_eq!(limit.limit(), Concurrency::START);
    }

    #[test]
    fn a_fixed_one_stays() {
        let now = Instant::now();
        let mut limit = Concurrency::fixed(64);
        assert!(!limit.overloaded(now, now) && limit.is_settled());
        limit.answered(64);
        assert_eq!(limit.limit(), 64);
    }

    proptest! {
        #[test]
        fn it_stays_between_one_and_the_most(
            max in 1_usize..2000,
            steps in proptest::collection::vec((any::<bool>(), 0_u64..50), 0..400),
        ) {
            let mut now = Instant::now();
            let mut limit = Concurrency::new(max);
            for (is_answer, ms) in steps {
                now += Duration::from_millis(ms);
                if is_answer {
                    limit.answered(limit.limit());
                } else {
                    let before = limit.limit();
                    limit.overloaded(now, now);
                    prop_assert!(limit.limit() <= before);
                }
                prop_assert!((1..=max).contains(&limit.limit()));
            }
        }
    }
}
