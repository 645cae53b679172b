//! How many calls to an endpoint may be in flight: as many as are asked for, and fewer only where
//! fewer calls are refused because there are fewer.
//!
//! Refusals say that some calls were not taken, not why. A load balancer with a bad node refuses a
//! quarter of the calls however few there are; an endpoint that takes twenty at once refuses all above
//! twenty. The controller finds out: it lowers the load to what was accepted and looks whether the
//! refusals fall. Where they do, it stays there and tries more from time to time. Where they do not, the
//! load goes back to where it was. Each comparison is a sequential probability ratio test (Wald 1945), so
//! it takes as many calls as the difference needs: a dozen where most calls are refused, a hundred
//! where one of twenty is.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

/// What calls in flight are limited to.
#[derive(Debug, Clone)]
pub struct LoadController {
    max: f64,
    is_fixed: bool,
    // Calls in flight that are allowed now, and what that grows to by time alone.
    level: f64,
    ceiling: f64,
    phase: Phase,
    // The share of calls that is refused whatever the load.
    base: f64,
    is_cleared: bool,
    answer: MeanTime,
    refusal: MeanTime,
    epoch: Epoch,
    live: usize,
    // Places of refused calls, and when they are free again.
    held: BinaryHeap<Reverse<Instant>>,
    grown_at: Instant,
    last_start: Instant,
    is_used: bool,
    // When the cause of refusals is looked for again, and how long after that the next time.
    retest_at: Instant,
    retest_after: Duration,
    // When more is tried, and how much more.
    probe_at: Instant,
    probe_after: Duration,
    gain: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Refusals were never found to follow the load.
    Free,
    /// The load is the cause of refusals above the ceiling.
    Limited,
    /// The load is lowered to see whether refusals fall.
    Testing(Test),
    /// The load is raised above what is known to be accepted.
    Probing { ceiling: f64 },
}

/// What is compared with a lower load.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Test {
    /// What the level grew to before.
    ceiling: f64,
    was_limited: bool,
    /// The share of calls that was refused, as it is compared, and as it was counted.
    share: f64,
    counted: f64,
    /// Calls a second that were started.
    starts: f64,
    /// What is refused anyway, as far as that is not what is looked for.
    base: f64,
    /// Whether no more calls are in flight than the lower load allows.
    is_drained: bool,
}

impl Test {
    /// The share that is refused if the load is the cause, and it was lowered by enough.
    fn fallen(&self) -> f64 {
        self.base + (self.share - self.base).max(0.0) / 4.0
    }

    /// The same where it may still be too high: as many are accepted as before, of so many calls a second.
    fn partly_fallen(&self, starts: f64) -> f64 {
        let rest = 1.0 - (1.0 - self.counted) * self.starts / starts.max(0.1);
        rest.clamp(self.fallen(), self.share.max(self.fallen()))
    }
}

/// What holds a call back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadHold {
    /// As many calls are in flight as may be.
    Full,
    /// A place is free at this time.
    Until(Instant),
}

/// A mean over the last dozen or so.
#[derive(Debug, Clone, Copy, Default)]
struct MeanTime(Option<f64>);

impl MeanTime {
    fn add(&mut self, seconds: f64) {
        self.0 = Some(self.0.map_or(seconds, |mean| mean + (seconds - mean) / 12.0));
    }
}

/// Calls that were sent at one level, and what became of them.
#[derive(Debug, Clone)]
struct Epoch {
    number: u32,
    is_open: bool,
    began: Instant,
    touched: Instant,
    // Call-seconds: of all calls in flight, of those that were refused, and of those that were answered.
    live_time: f64,
    refused_time: f64,
    answered_time: f64,
    started: u32,
    refused: u32,
    ended: u32,
    // Calls that were started lately, in slices of time.
    young: VecDeque<(Instant, u32)>,
    young_count: u32,
}

impl Epoch {
    fn new(now: Instant) -> Self {
        Self {
            number: 0,
            is_open: false,
            began: now,
            touched: now,
            live_time: 0.0,
            refused_time: 0.0,
            answered_time: 0.0,
            started: 0,
            refused: 0,
            ended: 0,
            young: VecDeque::new(),
            young_count: 0,
        }
    }

    fn open(&mut self, now: Instant) {
        let number = self.number.wrapping_add(1);
        *self = Self { number, is_open: true, ..Self::new(now) };
    }

    fn close(&mut self) {
        self.is_open = false;
        self.number = self.number.wrapping_add(1);
    }

    fn pass(&mut self, now: Instant, live: usize) {
        let passed = now.saturating_duration_since(self.touched).as_secs_f64();
        self.live_time += count(live) * passed;
        self.touched = now;
    }

    fn start(&mut self, now: Instant) {
        self.started += 1;
        self.young_count += 1;
        match self.young.back_mut() {
            Some((at, number)) if now.saturating_duration_since(*at) < SLICE => *number += 1,
            _ => self.young.push_back((now, 1)),
        }
    }

    /// How many calls are judged: those that ended, and those in flight for longer than a refusal takes.
    fn judged(&mut self, now: Instant, refusal: Duration) -> u32 {
        while let Some((at, number)) = self.young.front().copied() {
            if now.saturating_duration_since(at) < refusal + SLICE {
                break;
            }
            self.young.pop_front();
            self.young_count -= number;
        }
        (self.started - self.young_count).max(self.ended)
    }

    /// Time between calls where none of many was accepted: those that follow only find out whether that is
    /// over.
    fn shut_gap(&mut self, now: Instant, refusal: Duration, answer: MeanTime) -> Option<Duration> {
        const MANY: u32 = 12;
        const IN_AN_ANSWER: f64 = 8.0;
        let is_shut =
            self.is_open && self.refused >= MANY && self.judged(now, refusal) <= self.refused;
        is_shut.then(|| Duration::from_secs_f64((answer.0.unwrap_or(0.4) / IN_AN_ANSWER).min(0.5)))
    }

    /// Calls a second that were started.
    fn starts(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.began).as_secs_f64().max(1e-3);
        f64::from(self.started) / passed
    }

    /// How long a call was in flight while this epoch lasted.
    fn time_within(&self, took: f64, now: Instant) -> f64 {
        took.min(now.saturating_duration_since(self.began).as_secs_f64())
    }

    /// How many calls in flight were accepted, on the average. Where refusals are as slow as answers, calls that
    /// have not ended are refused as often as those that have; where they are quick, those were accepted.
    fn accepted(&self, now: Instant, is_slow: bool) -> f64 {
        let passed = now.saturating_duration_since(self.began).as_secs_f64().max(1e-3);
        let accepted = match is_slow {
            true => {
                let ended = (self.answered_time + self.refused_time).max(1e-3);
                self.live_time * self.answered_time / ended
            }
            false => self.live_time - self.refused_time,
        };
        (accepted / passed).max(0.0)
    }
}

const SLICE: Duration = Duration::from_millis(2);
/// A call that is spread is late by no more than this, or those behind it are late as well.
const MAKES_UP: Duration = Duration::from_millis(20);

#[expect(clippy::cast_precision_loss, reason = "calls in flight are few")]
fn count(number: usize) -> f64 {
    number as f64
}

/// The logarithm of how much likelier `refused` of `calls` are where a share of `high` is refused than
/// where one of `low` is.
fn log_odds(refused: u32, calls: u32, low: f64, high: f64) -> f64 {
    let (low, high) = (low.clamp(0.001, 0.98), high.clamp(0.002, 0.99));
    let taken = f64::from(calls.saturating_sub(refused));
    f64::from(refused) * (high / low).ln() + taken * ((1.0 - high) / (1.0 - low)).ln()
}

/// The most that the share of refused calls may be where so many of so many were.
fn at_most(refused: u32, calls: u32) -> f64 {
    const MANY: u32 = 40;
    if refused == 0 && calls >= MANY {
        return 0.0;
    }
    let refused = f64::from(refused);
    (refused + 3.0 * refused.sqrt() + 4.0) / f64::from(calls.max(1))
}

/// What a call must be told with at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadTicket {
    epoch: u32,
    sent: Instant,
}

impl LoadController {
    /// Calls in flight at the beginning, unless fewer are the most.
    pub const START: f64 = 16.0;
    /// The level doubles in this time while nothing is refused: a refusal comes in milliseconds.
    const DOUBLING: Duration = Duration::from_millis(60);
    /// Odds of 50 to 1 decide.
    const SURE: f64 = 4.0;
    const CLEAN: f64 = -3.0;
    const JUDGED_LEAST: u32 = 16;
    const LOWEST: f64 = 0.02;
    /// Below so many, calls are spread over the time that an answer takes.
    const SPREAD: f64 = 4.0;
    /// The first step up above what is known to be accepted, and the smallest.
    const GAIN: f64 = 0.5;
    const GAIN_LEAST: f64 = 0.05;
    const PROBE_AFTER: Duration = Duration::from_secs(1);
    const PROBE_AFTER_MOST: Duration = Duration::from_secs(10);
    const RETEST_AFTER: Duration = Duration::from_secs(15);
    const RETEST_AFTER_MOST: Duration = Duration::from_secs(120);

    /// A controller that begins low and never passes `max`.
    #[must_use]
    pub fn new(max: usize, now: Instant) -> Self {
        let max = count(max.max(1));
        Self {
            max,
            is_fixed: false,
            level: max.min(Self::START),
            ceiling: max,
            phase: Phase::Free,
            base: 0.0,
            is_cleared: false,
            answer: MeanTime::default(),
            refusal: MeanTime::default(),
            epoch: Epoch::new(now),
            live: 0,
            held: BinaryHeap::new(),
            grown_at: now,
            last_start: now,
            is_used: false,
            retest_at: now,
            retest_after: Self::RETEST_AFTER,
            probe_at: now,
            probe_after: Self::PROBE_AFTER,
            gain: Self::GAIN,
        }
    }

    /// A level that stays: for a server of one's own, which queues what it cannot take at once.
    #[must_use]
    pub fn fixed(limit: usize, now: Instant) -> Self {
        let new = Self::new(limit, now);
        Self { is_fixed: true, level: new.max, ..new }
    }

    /// How many calls may be in flight.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a level is between nothing and the most calls in flight"
    )]
    pub fn limit(&self) -> usize {
        let whole = if self.is_spread() { self.level.ceil() } else { self.level.round() };
        (whole as usize).max(1)
    }

    /// The most that may ever be.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was a count")]
    pub fn max(&self) -> usize {
        self.max as usize
    }

    /// How many calls are in flight.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live
    }

    /// How long an answer takes, as far as that is known.
    #[must_use]
    pub fn answer_time(&self) -> Option<Duration> {
        self.answer.0.map(Duration::from_secs_f64)
    }

    /// How long a refusal takes.
    #[must_use]
    pub fn refusal_time(&self) -> Duration {
        const MOST: f64 = 5.0;
        Duration::from_secs_f64(self.refusal.0.unwrap_or(0.05).min(MOST))
    }

    /// Whether refusals are known not to follow the load.
    #[must_use]
    pub fn is_cleared(&self) -> bool {
        self.is_cleared
    }

    /// The share of calls that is refused whatever the load.
    #[must_use]
    pub fn refused_anyway(&self) -> f64 {
        self.base
    }

    /// Time between calls that are spread over the time that an answer takes.
    fn spread_gap(&self) -> Option<Duration> {
        let answer = self.answer.0.filter(|_| self.is_spread())?;
        Some(Duration::from_secs_f64(answer / self.level))
    }

    fn is_spread(&self) -> bool {
        self.phase != Phase::Free && self.level < Self::SPREAD && self.answer.0.is_some()
    }

    /// Whether a call may be started.
    ///
    /// # Errors
    /// When it may not: what it waits for.
    pub fn may_start(&mut self, now: Instant) -> Result<(), LoadHold> {
        if self.is_fixed {
            return if count(self.live) < self.max { Ok(()) } else { Err(LoadHold::Full) };
        }
        self.grow(now);
        while self.held.peek().is_some_and(|Reverse(at)| *at <= now) {
            self.held.pop();
        }
        if self.live + self.held.len() >= self.limit() {
            self.is_used = true;
            let grows = self.level < self.ceiling && self.is_quiet();
            let growth = grows.then(|| self.grown_at + Self::DOUBLING).filter(|at| *at > now);
            let held = self.held.peek().map(|Reverse(at)| *at);
            return Err(match growth.into_iter().chain(held).min() {
                Some(at) => LoadHold::Until(at),
                None => LoadHold::Full,
            });
        }
        let refusal = self.refusal_time();
        let gap = if self.is_spread() {
            self.spread_gap()
        } else {
            self.epoch.shut_gap(now, refusal, self.answer)
        };
        if let Some(gap) = gap
            && self.last_start + gap > now
        {
            self.is_used = true;
            return Err(LoadHold::Until(self.last_start + gap));
        }
        Ok(())
    }

    /// A call is started.
    pub fn start(&mut self, now: Instant) -> LoadTicket {
        if self.epoch.is_open {
            self.epoch.pass(now, self.live);
            self.epoch.start(now);
        }
        self.live += 1;
        // A little late once is made up for by the next.
        let due = self.spread_gap().map(|gap| self.last_start + gap);
        self.last_start = due.filter(|due| now < *due + MAKES_UP).map_or(now, |due| due.min(now));
        LoadTicket { epoch: self.epoch.number, sent: now }
    }

    /// A call has ended in a way that says nothing of the load, or was not made.
    pub fn ended(&mut self, now: Instant) {
        if self.epoch.is_open {
            self.epoch.pass(now, self.live);
        }
        self.live = self.live.saturating_sub(1);
    }

    /// A call was answered.
    pub fn answered(&mut self, now: Instant, ticket: LoadTicket) {
        self.ended(now);
        if self.is_fixed {
            return;
        }
        let took = now.saturating_duration_since(ticket.sent).as_secs_f64();
        self.answer.add(took);
        if self.epoch.is_open {
            self.epoch.answered_time += self.epoch.time_within(took, now);
            self.epoch.ended += u32::from(ticket.epoch == self.epoch.number);
        }
        self.decide(now);
    }

    /// A call was refused, or failed as calls do where there are too many.
    pub fn refused(&mut self, now: Instant, ticket: LoadTicket) {
        self.ended(now);
        if self.is_fixed {
            return;
        }
        let took = now.saturating_duration_since(ticket.sent).as_secs_f64();
        self.refusal.add(took);
        let free_at = now + Duration::from_secs_f64((self.hold_time() - took).max(0.0));
        if free_at > now {
            self.held.push(Reverse(free_at));
        }
        if !self.epoch.is_open {
            self.epoch.open(now);
            return;
        }
        self.epoch.refused_time += self.epoch.time_within(took, now);
        if ticket.epoch == self.epoch.number {
            self.epoch.ended += 1;
            self.epoch.refused += 1;
        }
        self.decide(now);
    }

    /// How long the place of a refused call stays taken: as long as an answer would have, so that
    /// refusals do not make for more calls; hardly at all where the load is not their cause.
    fn hold_time(&self) -> f64 {
        const UNKNOWN: f64 = 0.25;
        const MOST: f64 = 5.0;
        const CLEARED_MOST: f64 = 0.5;
        let answer = self.answer.0.unwrap_or(UNKNOWN);
        let is_tested = matches!(self.phase, Phase::Testing(_));
        if self.is_cleared && !is_tested {
            self.base * answer.min(CLEARED_MOST)
        } else {
            answer.min(MOST)
        }
    }

    /// Nobody is answered: what happens now says nothing of the load.
    pub fn suspend(&mut self, now: Instant) {
        self.settle_at_ceiling(now);
        self.held.clear();
    }

    /// The endpoint answers again: the former level is reached within a second.
    pub fn resume(&mut self, now: Instant) {
        if self.is_fixed {
            return;
        }
        self.settle_at_ceiling(now);
        self.held.clear();
        self.level = (self.ceiling / 4.0).max(self.ceiling.min(Self::START));
        (self.grown_at, self.is_used) = (now, true);
    }

    /// Whether refusals take about as long as answers.
    fn has_slow_refusals(&self) -> bool {
        self.refusal.0.zip(self.answer.0).is_some_and(|(refusal, answer)| refusal > answer / 2.0)
    }

    /// Ends a test or a probe that did not come to a decision.
    fn settle_at_ceiling(&mut self, now: Instant) {
        match self.phase {
            Phase::Testing(Test { ceiling, was_limited, .. }) => {
                self.phase = if was_limited { Phase::Limited } else { Phase::Free };
                (self.ceiling, self.level) = (ceiling, ceiling);
            }
            Phase::Probing { ceiling } => {
                self.phase = Phase::Limited;
                (self.ceiling, self.level) = (ceiling, ceiling);
            }
            Phase::Free | Phase::Limited => {}
        }
        self.epoch.close();
        self.probe_at = self.probe_at.max(now + self.probe_after);
    }

    /// Whether nothing is refused that is not refused anyway.
    fn is_quiet(&self) -> bool {
        let Epoch { is_open, refused, ended, started, .. } = self.epoch;
        let (low, high) = self.bounds();
        !is_open || refused == 0 || log_odds(refused, started.max(ended), low, high) < 1.0
    }

    /// Shares of refusals that are nothing new, and that are.
    fn bounds(&self) -> (f64, f64) {
        let excess = match self.phase {
            Phase::Probing { ceiling } => 0.5 * (1.0 - ceiling / self.level.max(ceiling)),
            _ => 0.0,
        };
        (self.base + 0.01, self.base + (self.base * 0.5 + 0.05).max(excess))
    }

    /// The level grows by time up to the ceiling, as long as it is used.
    fn grow(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.grown_at);
        if self.level >= self.ceiling || passed < Self::DOUBLING {
            return;
        }
        self.grown_at = now;
        if self.is_used && self.is_quiet() {
            self.level = (self.level * 2.0).min(self.ceiling);
            self.is_used = false;
        }
    }

    fn decide(&mut self, now: Instant) {
        let refusal = self.refusal_time();
        match self.phase {
            Phase::Free | Phase::Limited => self.watch(now, refusal),
            Phase::Testing(test) => self.decide_test(now, refusal, test),
            Phase::Probing { ceiling } => self.decide_probe(now, refusal, ceiling),
        }
    }

    /// Whether it is time to look again at what is taken for refused anyway.
    fn is_retest(&self, now: Instant) -> bool {
        self.base > 0.02 && now >= self.retest_at
    }

    /// Looks whether more is refused than is refused anyway.
    fn watch(&mut self, now: Instant, refusal: Duration) {
        let is_limited = self.phase == Phase::Limited;
        if !self.epoch.is_open {
            if self.is_retest(now) || is_limited && now >= self.probe_at {
                self.epoch.open(now);
                self.is_used = false;
            }
            return;
        }
        let judged = self.epoch.judged(now, refusal);
        let (refused, calls) = (f64::from(self.epoch.refused), f64::from(judged.max(1)));
        // What made one look was high by chance as well: less than it is compared with.
        let share = (refused - refused.sqrt()).max(0.0) / calls;
        let (low, high) = self.bounds();
        let odds = log_odds(self.epoch.refused, judged, low, high);
        let lasts = now.saturating_duration_since(self.epoch.began).as_secs_f64();
        let least = self.answer.0.map_or(0.0, |answer| (2.0 * answer).min(0.5));
        if judged >= Self::JUDGED_LEAST && odds >= Self::SURE {
            let is_slow = self.has_slow_refusals();
            let accepted = self.epoch.accepted(now, is_slow);
            // Where nothing at all is accepted, that is not a question of how much.
            if lasts >= least && (self.epoch.refused < judged || accepted >= 1.0) {
                // Few of the slow ones have ended by now: what they say of the accepted ones is rough.
                let least = if is_slow { self.level / 8.0 } else { 0.0 };
                self.test(now, share, refused / calls, self.base, accepted.max(least));
            }
            return;
        }
        if odds > Self::CLEAN || judged < Self::JUDGED_LEAST {
            return;
        }
        self.base = self.base.min(at_most(self.epoch.refused, judged));
        let (is_retest, was_used) = (self.is_retest(now), self.is_used);
        self.epoch.close();
        if is_retest && refused / calls < 0.02 {
            (self.base, self.is_cleared) = (0.0, false);
        } else if is_retest {
            // What is taken for refused anyway may follow the load as well.
            let counted = refused / calls;
            self.test(now, counted, counted, 0.0, 0.8 * self.level);
        } else if is_limited && now >= self.probe_at && was_used {
            self.probe(now);
        }
    }

    /// Whether calls of this epoch were sent for as long as an answer takes: within that time they come in
    /// waves.
    fn is_long(&self, now: Instant) -> bool {
        const MOST: f64 = 5.0;
        let lasts = now.saturating_duration_since(self.epoch.began).as_secs_f64();
        self.answer.0.is_some_and(|answer| lasts >= answer.min(MOST))
    }

    /// Lowers the load to see whether refusals fall.
    fn test(&mut self, now: Instant, share: f64, counted: f64, base: f64, to: f64) {
        let test = Test {
            ceiling: self.ceiling,
            was_limited: self.phase == Phase::Limited,
            share,
            counted,
            starts: self.epoch.starts(now),
            base,
            is_drained: false,
        };
        self.lower(test, to.min(self.level * 0.9));
    }

    fn lower(&mut self, test: Test, to: f64) {
        self.level = to.max(Self::LOWEST);
        self.ceiling = self.level;
        self.phase = Phase::Testing(test);
        self.epoch.close();
    }

    fn decide_test(&mut self, now: Instant, refusal: Duration, test: Test) {
        /// Shares nearer to each other tell nothing.
        const TOO_NEAR: f64 = 0.1;
        const MANY: u32 = 40;
        /// What so many calls do not show is not worth a lower load.
        const ENOUGH: u32 = 200;
        if !test.is_drained {
            if self.live <= self.limit() {
                self.phase = Phase::Testing(Test { is_drained: true, ..test });
                self.epoch.open(now);
            }
            return;
        }
        let (judged, refused) = (self.epoch.judged(now, refusal), self.epoch.refused);
        let starts = self.epoch.starts(now);
        let fallen = test.partly_fallen(starts);
        let odds = log_odds(refused, judged, test.fallen(), test.share);
        let part_odds = log_odds(refused, judged, fallen, test.share);
        let counted = f64::from(refused) / f64::from(judged.max(1));
        if odds <= -Self::SURE {
            self.base = self.base.min(at_most(refused, judged));
            (self.is_cleared, self.retest_at) = (false, now + Self::RETEST_AFTER);
            (self.gain, self.probe_after) = (Self::GAIN, Self::PROBE_AFTER);
            self.retest_after = Self::RETEST_AFTER;
            self.probe(now);
        } else if counted > 1.5 * test.counted + 0.1
            || test.share - fallen < TOO_NEAR && test.share > 0.5
        {
            // It has become worse, or the load was not lowered by enough to tell: what was accepted at first
            // was a burst.
            if judged >= MANY && refused < judged && self.level > Self::LOWEST {
                let part = if counted > 0.5 { 0.5 } else { 0.9 };
                let accepted = self.epoch.accepted(now, self.has_slow_refusals());
                let to = accepted.min(self.level * part);
                let test = Test { share: counted, counted, starts, is_drained: false, ..test };
                self.lower(test, to);
            }
        } else if (part_odds >= Self::SURE || judged >= ENOUGH)
            && refused < judged
            && self.is_long(now)
        {
            self.clear(now, (test.share + counted) / 2.0, &test);
        }
    }

    /// Refusals do not follow the load: it goes back to where it was.
    fn clear(&mut self, now: Instant, base: f64, test: &Test) {
        (self.base, self.is_cleared) = (base, true);
        self.retest_at = now + self.retest_after;
        self.retest_after = (2 * self.retest_after).min(Self::RETEST_AFTER_MOST);
        self.phase = if test.was_limited { Phase::Limited } else { Phase::Free };
        self.ceiling = test.ceiling;
        self.level = test.ceiling.min(self.level * 2.0);
        (self.grown_at, self.is_used) = (now, true);
        self.epoch.close();
        self.held.clear();
    }

    /// Raises the load above what is known to be accepted.
    fn probe(&mut self, now: Instant) {
        let ceiling = self.ceiling;
        let step = (ceiling * self.gain).max(if ceiling >= Self::SPREAD { 1.0 } else { 0.0 });
        self.level = (ceiling + step).min(self.max);
        self.ceiling = self.level;
        self.phase = Phase::Probing { ceiling };
        self.is_used = false;
        self.epoch.open(now);
    }

    fn decide_probe(&mut self, now: Instant, refusal: Duration, ceiling: f64) {
        let judged = self.epoch.judged(now, refusal);
        let (low, high) = self.bounds();
        let odds = log_odds(self.epoch.refused, judged, low, high);
        if odds >= Self::SURE - 1.0 {
            (self.ceiling, self.level) = (ceiling, ceiling);
            self.phase = Phase::Limited;
            self.probe_after = match self.gain > Self::GAIN_LEAST {
                true => Self::PROBE_AFTER,
                false => (2 * self.probe_after).min(Self::PROBE_AFTER_MOST),
            };
            self.gain = (self.gain / 2.0).max(Self::GAIN_LEAST);
            self.probe_at = now + self.probe_after;
            self.epoch.close();
        } else if odds <= Self::CLEAN && self.is_used && self.is_long(now) {
            self.base = self.base.min(at_most(self.epoch.refused, judged));
            self.gain = (self.gain * 2.0).min(1.0);
            if self.level < self.max {
                return self.probe(now);
            }
            self.phase = Phase::Free;
            self.epoch.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANSWER: Duration = Duration::from_millis(200);

    /// Calls of a controller, a millisecond at a time, before an endpoint that says of each call in
    /// flight whether it is refused.
    struct Endpoint {
        load: LoadController,
        now: Instant,
        // When calls end, and whether they are refused.
        calls: Vec<(Instant, LoadTicket, bool)>,
        answered: usize,
        refused: usize,
        highest: usize,
    }

    impl Endpoint {
        fn new(max: usize) -> Self {
            let now = Instant::now();
            let load = LoadController::new(max, now);
            Self { load, now, calls: Vec::new(), answered: 0, refused: 0, highest: 0 }
        }

        fn run(&mut self, ms: u64, mut is_refused: impl FnMut(usize) -> bool) {
            (self.answered, self.refused, self.highest) = (0, 0, 0);
            for _ in 0..ms {
                self.now += Duration::from_millis(1);
                let (ended, left) = self.calls.drain(..).partition(|call| call.0 <= self.now);
                self.calls = left;
                let ended: Vec<(Instant, LoadTicket, bool)> = ended;
                for (_, ticket, is_refused) in ended {
                    if is_refused {
                        self.refused += 1;
                        self.load.refused(self.now, ticket);
                    } else {
                        self.answered += 1;
                        self.load.answered(self.now, ticket);
                    }
                }
                while self.load.may_start(self.now).is_ok() {
                    let ticket = self.load.start(self.now);
                    let is_refused = is_refused(self.calls.iter().filter(|call| !call.2).count());
                    let lasts = if is_refused { Duration::from_millis(2) } else { ANSWER };
                    self.calls.push((self.now + lasts, ticket, is_refused));
                }
                self.highest = self.highest.max(self.load.live());
            }
        }
    }

    #[test]
    fn level_grows_by_time_while_nothing_is_refused() {
        let mut endpoint = Endpoint::new(2_000);
        endpoint.run(150, |_| false);
        assert!(endpoint.load.live() >= 64, "{}: no answer has come yet", endpoint.load.live());
        endpoint.run(600, |_| false);
        assert_eq!(endpoint.load.live(), 2_000);
    }

    #[test]
    fn random_refusals_leave_the_level() {
        for share in [0.05, 0.1, 0.3, 0.5] {
            let mut random = fastrand::Rng::with_seed(3);
            let mut endpoint = Endpoint::new(64);
            endpoint.run(5_000, |_| random.f64() < share);
            endpoint.run(20_000, |_| random.f64() < share);
            let possible = 20.0 * 64.0 / 0.2 * (1.0 - share);
            let answered = count(endpoint.answered);
            assert!(answered >= 0.85 * possible, "{share}: {answered} of {possible}");
        }
    }

    #[test]
    fn refused_load_is_lowered_to_what_is_accepted() {
        let mut endpoint = Endpoint::new(64);
        endpoint.run(5_000, |taken| taken >= 20);
        endpoint.run(20_000, |taken| taken >= 20);
        assert!(endpoint.answered >= 1_900, "{} of 2,000", endpoint.answered);
        let calls = endpoint.answered + endpoint.refused;
        assert!(endpoint.refused * 20 <= calls, "{} refused of {calls}", endpoint.refused);
    }

    #[test]
    fn refusals_alone_never_lower_what_was_found() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut endpoint = Endpoint::new(64);
        endpoint.run(10_000, |taken| taken >= 40);
        // From now on a third is refused besides, whatever the load.
        endpoint.run(30_000, |taken| taken >= 40 || random.f64() < 0.3);
        let possible = 30.0 * 40.0 / 0.2;
        assert!(count(endpoint.answered) >= 0.6 * possible, "{} of {possible}", endpoint.answered);
    }

    #[test]
    fn former_level_is_back_within_a_second_of_a_pause() {
        let mut endpoint = Endpoint::new(640);
        endpoint.run(2_000, |_| false);
        endpoint.load.suspend(endpoint.now);
        endpoint.load.resume(endpoint.now);
        endpoint.run(500, |_| false);
        assert_eq!(endpoint.load.live(), 640);
    }

    #[test]
    fn fixed_level_stays() {
        let now = Instant::now();
        let mut load = LoadController::fixed(64, now);
        let tickets: Vec<_> = (0..64).map(|_| load.start(now)).collect();
        tickets.into_iter().for_each(|ticket| load.refused(now, ticket));
        assert_eq!((load.limit(), load.live()), (64, 0));
    }

    #[test]
    fn odds_need_calls() {
        assert!(log_odds(1, 10, 0.01, 0.05) < LoadController::SURE);
        assert!(log_odds(10, 100, 0.01, 0.05) > LoadController::SURE);
        assert!(log_odds(0, 100, 0.01, 0.05) < LoadController::CLEAN);
    }

    proptest! {
        #[test]
        fn level_stays_between_one_and_the_most(
            max in 1_usize..300,
            capacity in 1_usize..300,
            share in 0.0_f64..1.0,
            seed: u64,
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut endpoint = Endpoint::new(max);
            endpoint.run(2_000, |taken| taken >= capacity || random.f64() < share);
            prop_assert!(endpoint.highest <= max && (1..=max).contains(&endpoint.load.limit()));
        }
    }
}
