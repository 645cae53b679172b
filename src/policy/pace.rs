//! All that decides when calls to an endpoint are made, in one state: [`Outage`], [`Concurrency`],
//! [`Rate`], [`Allotment`], [`RetryBudget`] and [`Blame`] put together. The workers use it with the
//! clock and sockets, the simulator with an invented time.

use std::time::{Duration, Instant};

use super::{
    Allotment, Blame, Concurrency, Estimate, MayCall, Outage, Rate, RetryBudget, Size, Taken, Told,
    Tried, Trouble,
};

/// What bounds the calls to an endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The most calls under way.
    pub concurrency: usize,
    /// Whether so many are under way whatever the endpoint says.
    pub is_fixed: bool,
    /// The most calls a minute.
    pub calls_a_minute: Option<u64>,
    /// The most tokens a minute.
    pub tokens_a_minute: Option<u64>,
    /// The most tokens of an answer, where that is bounded.
    pub answer: Option<u64>,
    /// How long it may be out of reach.
    pub max_outage: Duration,
}

/// The state of an endpoint's pace.
#[derive(Debug, Clone)]
pub struct Pace {
    outage: Outage,
    concurrency: Concurrency,
    budget: RetryBudget,
    blame: Blame,
    // The same of calls that were not let in, or closed without an answer.
    refusals: Blame,
    calls: Option<Rate>,
    tokens: Option<Rate>,
    told_calls: Allotment,
    told_tokens: Allotment,
    estimate: Estimate,
    in_flight: usize,
    // The most calls in flight in this window of endings, and in the one before: calls that end all at
    // once are to count as those that they were.
    peaks: (usize, usize),
    endings: usize,
    has_turned_away: bool,
}

/// What a call holds while it is under way.
#[derive(Debug, Clone, Copy)]
pub struct Permit {
    /// When it was sent.
    pub sent: Instant,
    /// Whether it shows if the endpoint is back.
    pub is_probe: bool,
    bytes: usize,
    call: Option<Taken>,
    tokens: Option<Taken>,
    started: (u64, u64),
}

/// What holds a call back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// As many calls are under way as may be: until one ends.
    Full,
    /// The endpoint told that nothing is left of its limit: ask again then.
    Told(Instant),
    /// The calls allowed a minute are made.
    Calls(Instant),
    /// The tokens allowed a minute are used.
    Tokens(Instant),
}

/// How an endpoint took a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reception {
    /// It answered, well or badly: it is there.
    Answered,
    /// It failed, and may have failed whatever the row; it asked to be left alone for so long.
    Failed {
        /// Whether it may have had too much to do.
        is_overload: bool,
        /// What it asked for.
        asked: Option<Duration>,
    },
    /// It did not let the call in, or closed the connection without an answer.
    Refused {
        /// Whether it may have had too much to do.
        is_overload: bool,
    },
    /// It cannot be reached, or asked everyone to leave it alone.
    Away {
        /// Whether it may have had too much to do.
        is_overload: bool,
        /// For how long, if it said so.
        asked: Option<Duration>,
    },
    /// That tells nothing of it.
    Unknown,
}

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// How the endpoint took it.
    pub reception: Reception,
    /// Whether the row was called for the first time, but for calls that count for nothing.
    pub is_first: bool,
    /// The tokens that it used, of prompt and of answer, as far as it says.
    pub used: Option<(u64, u64)>,
    /// What it told of its limits, of calls and of tokens.
    pub told: Option<(Told, Told)>,
}

/// What follows from a call's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follows {
    /// The endpoint is left alone.
    pub trouble: Option<Trouble>,
    /// A pause is over.
    pub has_recovered: bool,
    /// Somebody was turned away who may be let in now.
    pub wakes: bool,
}

impl Pace {
    /// An endpoint that nothing is known of.
    #[must_use]
    pub fn new(bounds: &Bounds, now: Instant) -> Self {
        let rate = |limit: Option<u64>| limit.map(|limit| Rate::new(limit, now));
        Self {
            outage: Outage::new(bounds.max_outage, now),
            concurrency: match bounds.is_fixed {
                true => Concurrency::fixed(bounds.concurrency),
                false => Concurrency::new(bounds.concurrency),
            },
            budget: RetryBudget::default(),
            blame: Blame::default(),
            refusals: Blame::default(),
            calls: rate(bounds.calls_a_minute),
            tokens: rate(bounds.tokens_a_minute),
            told_calls: Allotment::default(),
            told_tokens: Allotment::default(),
            estimate: Estimate::new(bounds.answer),
            in_flight: 0,
            peaks: (0, 0),
            endings: 0,
            has_turned_away: false,
        }
    }

    /// How many calls may be under way.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.concurrency.limit()
    }

    /// How many are.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether it is reached or left alone.
    pub fn outage(&mut self) -> &mut Outage {
        &mut self.outage
    }

    /// Whether nothing is wrong with the endpoint, so that nobody need ask [`Self::may_call`].
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.outage.is_well()
    }

    /// Whether the endpoint may be called at all. After [`MayCall::Probe`] a call's end must be told,
    /// or that there was none.
    pub fn may_call(&mut self, now: Instant) -> MayCall {
        self.outage.may_call(now)
    }

    /// Whether rows may be tried again.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        self.budget.may_retry(self.limit())
    }

    /// Only rows to be tried again are left: when that may be done, if not now.
    pub fn refill(&mut self, now: Instant, random: f64) -> Option<Instant> {
        self.budget.refill(now, self.limit(), random)
    }

    /// Starts a call for a row whose prompt has so many bytes; `is_retry` where that draws on the
    /// budget.
    ///
    /// # Errors
    /// When something holds it back: nothing was started.
    pub fn start(
        &mut self,
        now: Instant,
        worker: usize,
        size: Size,
        (is_probe, is_retry): (bool, bool),
    ) -> Result<Permit, Hold> {
        let (bytes, amount) = (size.bytes, self.estimate.tokens(size));
        if !is_probe {
            if self.in_flight >= self.limit() {
                self.has_turned_away = true;
                return Err(Hold::Full);
            }
            // A probe finds out, whatever was told before.
            self.told_calls.may_start(now, 1).map_err(Hold::Told)?;
            self.told_tokens.may_start(now, amount).map_err(Hold::Told)?;
        }
        let call = self.calls.as_mut().map(|calls| calls.take(now, worker, 1)).transpose();
        let call = call.map_err(Hold::Calls)?;
        let tokens = self.tokens.as_mut().map(|tokens| tokens.take(now, worker, amount));
        let tokens = tokens.transpose().map_err(|at| {
            if let (Some(calls), Some(call)) = (&mut self.calls, call) {
                calls.correct(call, 0);
            }
            Hold::Tokens(at)
        })?;
        self.told_calls.start(1);
        self.told_tokens.start(amount);
        self.in_flight += 1;
        self.peaks.0 = self.peaks.0.max(self.in_flight);
        if is_retry {
            self.budget.retry();
        }
        let started = (self.told_calls.started(), self.told_tokens.started());
        Ok(Permit { sent: now, is_probe, bytes, call, tokens, started })
    }

    /// A call that was started is not made.
    pub fn cancel(&mut self, permit: &Permit) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let rates = [(&mut self.calls, permit.call), (&mut self.tokens, permit.tokens)];
        for (rate, taken) in rates {
            if let (Some(rate), Some(taken)) = (rate, taken) {
                rate.correct(taken, 0);
            }
        }
    }

    /// A call has ended; `random` is a number in `0.0..1.0`.
    pub fn ended(&mut self, now: Instant, permit: &Permit, ended: &Ended, random: f64) -> Follows {
        let in_flight = self.peaks.0.max(self.peaks.1);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.endings += 1;
        if self.endings >= self.limit() {
            (self.endings, self.peaks) = (0, (self.in_flight, self.peaks.0));
        }
        self.account(now, permit, ended);
        let (trouble, has_recovered) = match ended.reception {
            Reception::Answered => {
                self.budget.ended(true);
                self.first(ended.is_first, false);
                self.concurrency.answered(in_flight);
                self.told_calls.answered(permit.sent);
                self.told_tokens.answered(permit.sent);
                (None, self.outage.answered(now))
            }
            Reception::Failed { is_overload, asked } => {
                self.first(ended.is_first, true);
                self.failed(permit, is_overload, now);
                let trouble = match asked {
                    Some(_) => Some(self.outage.troubled(now, asked, random)),
                    None => self.outage.erred(now, ended.is_first, random),
                };
                (trouble, false)
            }
            Reception::Refused { is_overload } => {
                if ended.is_first {
                    self.refusals.first_try(true);
                }
                self.failed(permit, is_overload, now);
                (self.outage.refused(now, random), false)
            }
            Reception::Away { is_overload, asked } => {
                self.failed(permit, is_overload, now);
                (Some(self.outage.troubled(now, asked, random)), false)
            }
            Reception::Unknown => {
                if permit.is_probe {
                    self.outage.forget_probe();
                }
                (None, false)
            }
        };
        let wakes = self.has_turned_away && self.in_flight < self.limit();
        self.has_turned_away &= !wakes;
        Follows { trouble, has_recovered, wakes }
    }

    /// Puts right what was reserved, and takes note of what was told.
    fn account(&mut self, now: Instant, permit: &Permit, ended: &Ended) {
        if let Some((input, output)) = ended.used {
            self.estimate.learn(permit.bytes, input, output);
            if let (Some(tokens), Some(taken)) = (&mut self.tokens, permit.tokens) {
                tokens.correct(taken, input.saturating_add(output));
            }
        }
        if let Some((calls, tokens)) = ended.told {
            let (sent, (calls_then, tokens_then)) = (permit.sent, permit.started);
            self.told_calls.told(now, sent, calls_then, calls);
            self.told_tokens.told(now, sent, tokens_then, tokens);
        }
    }

    fn first(&mut self, is_first: bool, has_failed: bool) {
        if is_first {
            self.blame.first_try(has_failed);
            self.refusals.first_try(false);
            self.outage.first_call(has_failed);
        }
    }

    fn failed(&mut self, permit: &Permit, is_overload: bool, now: Instant) {
        self.budget.ended(false);
        if !is_overload {
            return;
        }
        self.told_calls.refused();
        self.told_tokens.refused();
        // One call at a time is no load: what a probe meets is the outage's matter.
        if !permit.is_probe {
            self.concurrency.overloaded(permit.sent, now);
        }
    }

    /// Adds a failed try to those of a row.
    #[must_use]
    pub fn add(&self, tried: Tried) -> Tried {
        self.blame.add(tried, self.outage.is_out())
    }

    /// Adds a call that was not let in, or closed without an answer, to those of a row.
    #[must_use]
    pub fn add_refused(&self, tried: Tried) -> Tried {
        self.refusals.add(tried, self.outage.is_out())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        concurrency: 4,
        is_fixed: false,
        calls_a_minute: None,
        tokens_a_minute: None,
        answer: None,
        max_outage: Duration::from_secs(100),
    };

    fn end(reception: Reception) -> Ended {
        Ended { reception, is_first: true, used: None, told: None }
    }

    #[test]
    fn who_is_turned_away_is_woken_when_a_call_ends() {
        let now = Instant::now();
        let mut pace = Pace::new(&BOUNDS, now);
        let permits: Vec<_> =
            (0..4).map(|_| pace.start(now, 0, 10.into(), (false, false)).unwrap()).collect();
        let answered = end(Reception::Answered);
        assert!(!pace.ended(now, &permits[0], &answered, 0.0).wakes);
        pace.start(now, 0, 10.into(), (false, false)).unwrap();
        assert_eq!(pace.start(now, 1, 10.into(), (false, false)).unwrap_err(), Hold::Full);
        assert!(pace.ended(now, &permits[1], &answered, 0.0).wakes);
        assert!(!pace.ended(now, &permits[2], &answered, 0.0).wakes);
        assert_eq!(pace.in_flight(), 2);
    }

    #[test]
    fn calls_that_end_all_at_once_double_the_limit() {
        let now = Instant::now();
        let mut pace = Pace::new(&Bounds { concurrency: 1000, ..BOUNDS }, now);
        for expected in [16, 32, 64, 128, 256, 512, 1000] {
            let window = pace.limit();
            let permits: Vec<_> = (0..window)
                .map(|_| pace.start(now, 0, 10.into(), (false, false)).unwrap())
                .collect();
            for permit in &permits {
                pace.ended(now, permit, &end(Reception::Answered), 0.0);
            }
            assert_eq!(pace.limit(), expected);
        }
        // One call at a time is no reason for more.
        let mut pace = Pace::new(&Bounds { concurrency: 1000, ..BOUNDS }, now);
        for _ in 0..100 {
            let permit = pace.start(now, 0, 10.into(), (false, false)).unwrap();
            pace.ended(now, &permit, &end(Reception::Answered), 0.0);
        }
        assert_eq!(pace.limit(), Concurrency::START);
    }

    #[test]
    fn what_tokens_hold_back_takes_no_call_either() {
        let now = Instant::now();
        let bounds = Bounds { calls_a_minute: Some(60), tokens_a_minute: Some(6_000), ..BOUNDS };
        let mut pace = Pace::new(&bounds, now);
        let permit = pace.start(now, 0, 400.into(), (false, false)).unwrap();
        let at = now + Duration::from_secs(1) + Duration::from_millis(50);
        for _ in 0..100 {
            let hold = pace.start(at, 0, 400.into(), (false, false)).unwrap_err();
            assert!(matches!(hold, Hold::Tokens(_)), "{hold:?}");
        }
        let used = Ended { used: Some((20, 10)), ..end(Reception::Answered) };
        pace.ended(at, &permit, &used, 0.0);
        assert!(
            pace.start(at, 0, 400.into(), (false, false)).is_ok(),
            "it took less than was thought"
        );
    }

    #[test]
    fn an_overload_cuts_and_a_failure_does_not_and_a_probe_cuts_nothing() {
        let now = Instant::now();
        let mut pace = Pace::new(&Bounds { concurrency: 8, ..BOUNDS }, now);
        let fail = |is_overload| end(Reception::Failed { is_overload, asked: None });
        let permit = pace.start(now, 0, 10.into(), (false, false)).unwrap();
        pace.ended(now, &permit, &fail(false), 0.0);
        assert_eq!(pace.limit(), 8);
        let permit = pace.start(now, 0, 10.into(), (false, false)).unwrap();
        pace.ended(now, &permit, &fail(true), 0.0);
        assert_eq!(pace.limit(), 5);
        let permit = pace.start(now, 0, 10.into(), (true, false)).unwrap();
        pace.ended(now, &permit, &fail(true), 0.0);
        assert_eq!(pace.limit(), 5);
    }
}
