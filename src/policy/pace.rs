//! All that decides when calls to an endpoint are made, in one state: [`Outage`], [`LoadController`],
//! [`Rate`], [`Allotment`] and [`Blame`] put together. The workers use it with the clock and sockets, the
//! simulator with an invented time.

use std::time::{Duration, Instant};

use super::{
    Allotment, Blame, Estimate, FailedCall, LoadController, LoadHold, LoadTicket, MayCall, Outage,
    Rate, Round, Size, Taken, Told, Tried, Trouble,
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
    /// How long it may be out of reach where it was never reached.
    pub max_first_outage: Duration,
}

/// The state of an endpoint's pace.
#[derive(Debug, Clone)]
pub struct Pace {
    outage: Outage,
    load: LoadController,
    blame: Blame,
    // The same of calls that were not let in, or closed without an answer.
    refusals: Blame,
    calls: Option<Rate>,
    tokens: Option<Rate>,
    told_calls: Allotment,
    told_tokens: Allotment,
    estimate: Estimate,
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
    load: LoadTicket,
    call: Option<Taken>,
    tokens: Option<Taken>,
    started: (u64, u64),
}

/// What holds a call back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// As many calls are under way as may be: until one ends.
    Full,
    /// The same, and more may be then, whether one has ended or not.
    Load(Instant),
    /// The endpoint told that nothing is left of its limit: ask again then.
    Told(Instant),
    /// The calls allowed a minute are made.
    Calls(Instant),
    /// The tokens allowed a minute are used.
    Tokens(Instant),
}

/// How an endpoint took a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointSignal {
    /// It answered, well or badly: it is there.
    Answered,
    /// It failed, and may have failed whatever the row; it asked for this wait.
    Failed {
        /// What it asked for.
        asked: Option<Duration>,
    },
    /// It did not let the call in, or closed the connection without an answer.
    Refused {
        /// What it asked for.
        asked: Option<Duration>,
    },
    /// It cannot be reached.
    Away,
    /// That tells nothing of it.
    Unknown,
}

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// How the endpoint took it.
    pub signal: EndpointSignal,
    /// Whether the row was called for the first time, but for calls that count for nothing.
    pub is_first: bool,
    /// When the row failed before, if it did.
    pub failed_before: Option<Instant>,
    /// Whether the row failed twice, and others were answered since.
    pub is_suspect: bool,
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
            outage: Outage::new((bounds.max_outage, bounds.max_first_outage), now),
            load: match bounds.is_fixed {
                true => LoadController::fixed(bounds.concurrency, now),
                false => LoadController::new(bounds.concurrency, now),
            },
            blame: Blame::default(),
            refusals: Blame::default(),
            calls: rate(bounds.calls_a_minute),
            tokens: rate(bounds.tokens_a_minute),
            told_calls: Allotment::default(),
            told_tokens: Allotment::default(),
            estimate: Estimate::new(bounds.answer),
            has_turned_away: false,
        }
    }

    /// How many calls may be under way.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.load.limit()
    }

    /// How many are.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.load.live()
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

    /// Whether refusals are known to have another cause than the load: waiting longer helps nobody.
    #[must_use]
    pub fn is_load_cleared(&self) -> bool {
        self.load.is_cleared()
    }

    /// Starts a call for a row whose prompt has so many bytes, as a probe or not.
    ///
    /// # Errors
    /// When something holds it back: nothing was started.
    pub fn start(
        &mut self,
        now: Instant,
        worker: usize,
        size: Size,
        is_probe: bool,
    ) -> Result<Permit, Hold> {
        let (bytes, amount) = (size.bytes, self.estimate.tokens(size));
        if !is_probe {
            self.load.may_start(now).map_err(|hold| {
                self.has_turned_away = true;
                match hold {
                    LoadHold::Full => Hold::Full,
                    LoadHold::Until(at) => Hold::Load(at),
                }
            })?;
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
        let load = self.load.start(now);
        let started = (self.told_calls.started(), self.told_tokens.started());
        Ok(Permit { sent: now, is_probe, bytes, load, call, tokens, started })
    }

    /// A call that was started is not made.
    pub fn cancel(&mut self, now: Instant, permit: &Permit) {
        self.load.ended(now);
        let rates = [(&mut self.calls, permit.call), (&mut self.tokens, permit.tokens)];
        for (rate, taken) in rates {
            if let (Some(rate), Some(taken)) = (rate, taken) {
                rate.correct(taken, 0);
            }
        }
    }

    /// A call has ended; `random` is a number in `0.0..1.0`.
    pub fn ended(&mut self, now: Instant, permit: &Permit, ended: &Ended, random: f64) -> Follows {
        if ended.signal == EndpointSignal::Answered {
            let used = ended.used.map_or(1, |(input, output)| input.saturating_add(output)).max(1);
            self.told_calls.answered(permit.sent, permit.started.0, 1);
            self.told_tokens.answered(permit.sent, permit.started.1, used);
        }
        self.account(now, permit, ended);
        let (trouble, has_recovered) = match ended.signal {
            EndpointSignal::Answered => {
                self.first(ended.is_first, false);
                self.load.answered(now, permit.load);
                let has_recovered = self.outage.answered(now, permit.sent);
                if has_recovered {
                    self.load.resume(now);
                }
                (None, has_recovered)
            }
            EndpointSignal::Failed { asked } => {
                self.first(ended.is_first, true);
                self.outage.reached();
                (self.failed(now, permit, ended, asked, random), false)
            }
            EndpointSignal::Refused { asked } => {
                if ended.is_first {
                    self.refusals.first_try(true);
                }
                self.told_calls.refused(permit.sent);
                self.told_tokens.refused(permit.sent);
                self.outage.reached();
                (self.failed(now, permit, ended, asked, random), false)
            }
            EndpointSignal::Away => (self.failed(now, permit, ended, None, random), false),
            EndpointSignal::Unknown => {
                self.load.ended(now);
                if permit.is_probe {
                    self.outage.forget_probe();
                }
                (None, false)
            }
        };
        let wakes = self.has_turned_away && self.load.may_start(now).is_ok();
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
        }
    }

    fn failed(
        &mut self,
        now: Instant,
        permit: &Permit,
        ended: &Ended,
        asked: Option<Duration>,
        random: f64,
    ) -> Option<Trouble> {
        // While nobody is answered, refusals say nothing of the load.
        match self.outage.is_out() || permit.is_probe {
            true => self.load.ended(now),
            false => self.load.refused(now, permit.load),
        }
        let round = Round {
            live: self.load.live(),
            limit: self.load.limit(),
            refusal: self.load.refusal_time(),
            answer: self.load.answer_time(),
            refused_anyway: self.load.refused_anyway(),
        };
        let is_out = self.outage.is_out();
        let is_refusal = asked.is_some() || !matches!(ended.signal, EndpointSignal::Failed { .. });
        let call = FailedCall {
            sent: permit.sent,
            asked,
            is_refusal,
            is_away: ended.signal == EndpointSignal::Away,
            failed_before: ended.failed_before,
            is_suspect: ended.is_suspect,
        };
        let trouble = self.outage.failed(now, call, &round, random);
        if !is_out && self.outage.is_out() {
            self.load.suspend(now);
        }
        trouble
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
        max_first_outage: Duration::from_secs(10),
    };

    fn end(signal: EndpointSignal) -> Ended {
        Ended {
            signal,
            is_first: true,
            failed_before: None,
            is_suspect: false,
            used: None,
            told: None,
        }
    }

    #[test]
    fn waiting_worker_is_woken_by_an_end() {
        let now = Instant::now();
        let mut pace = Pace::new(&BOUNDS, now);
        let permits: Vec<_> =
            (0..4).map(|_| pace.start(now, 0, 10.into(), false).unwrap()).collect();
        let answered = end(EndpointSignal::Answered);
        assert!(!pace.ended(now, &permits[0], &answered, 0.0).wakes);
        pace.start(now, 0, 10.into(), false).unwrap();
        assert_eq!(pace.start(now, 1, 10.into(), false).unwrap_err(), Hold::Full);
        assert!(pace.ended(now, &permits[1], &answered, 0.0).wakes);
        assert!(!pace.ended(now, &permits[2], &answered, 0.0).wakes);
        assert_eq!(pace.in_flight(), 2);
    }

    #[test]
    fn call_held_by_tokens_takes_no_call() {
        let now = Instant::now();
        let bounds = Bounds { calls_a_minute: Some(60), tokens_a_minute: Some(6_000), ..BOUNDS };
        let mut pace = Pace::new(&bounds, now);
        let permit = pace.start(now, 0, 400.into(), false).unwrap();
        let at = now + Duration::from_secs(1) + Duration::from_millis(50);
        for _ in 0..100 {
            let hold = pace.start(at, 0, 400.into(), false).unwrap_err();
            assert!(matches!(hold, Hold::Tokens(_)), "{hold:?}");
        }
        let used = Ended { used: Some((20, 10)), ..end(EndpointSignal::Answered) };
        pace.ended(at, &permit, &used, 0.0);
        assert!(pace.start(at, 0, 400.into(), false).is_ok(), "it took less than was thought");
    }

    #[test]
    fn retry_after_of_one_call_stops_nobody() {
        let now = Instant::now();
        let mut pace = Pace::new(&BOUNDS, now);
        let permits: Vec<_> =
            (0..3).map(|_| pace.start(now, 0, 10.into(), false).unwrap()).collect();
        let at = |ms| now + Duration::from_millis(ms);
        pace.ended(at(100), &permits[0], &end(EndpointSignal::Answered), 0.0);
        let asked = Some(Duration::from_secs(50));
        let refused = end(EndpointSignal::Refused { asked });
        assert_eq!(pace.ended(at(101), &permits[1], &refused, 0.0).trouble, None);
        assert_eq!(pace.may_call(at(102)), MayCall::Yes);
        assert!(pace.start(at(102), 0, 10.into(), false).is_ok());
    }

    #[test]
    fn retry_after_binds_the_endpoint_where_nobody_is_answered() {
        let now = Instant::now();
        let mut pace = Pace::new(&BOUNDS, now);
        let permits: Vec<_> =
            (0..4).map(|_| pace.start(now, 0, 10.into(), false).unwrap()).collect();
        let at = |ms| now + Duration::from_millis(ms);
        let asked = Some(Duration::from_secs(5));
        let refused = end(EndpointSignal::Refused { asked });
        let troubles: Vec<_> =
            permits.iter().map(|it| pace.ended(at(10), it, &refused, 0.0).trouble).collect();
        assert_eq!(troubles[3], Some(Trouble::Paused(at(5_010))));
        assert_eq!(pace.may_call(at(4_000)), MayCall::Wait(at(5_010)));
        assert_eq!(pace.may_call(at(5_010)), MayCall::Probe);
    }
}
