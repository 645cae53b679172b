//! Whether an endpoint may be called: it is left alone while nobody is answered, probed with one call at
//! a time until it answers, and then called as before.

use std::time::{Duration, Instant};

/// What is known of an endpoint's health.
#[derive(Debug, Clone)]
pub struct Outage {
    max: Duration,
    // How long it may be out of reach as long as it was never reached.
    first: Duration,
    was_reached: bool,
    // Since when no call has been answered, and since when it is left alone.
    since: Option<Instant>,
    opened: Instant,
    until: Instant,
    probes: u32,
    probing: bool,
    streak: Option<Streak>,
    // Calls that ended with the endpoint, and that one of them may have ended it by.
    suspects: u32,
}

/// Calls that failed since one was answered that was sent since the first of them failed.
#[derive(Debug, Clone, Copy)]
struct Streak {
    began: Instant,
    failed: u32,
    // Of those, calls that were sent since it began; and the rows that they were for.
    failed_since: u32,
    rows: u32,
    // The earliest time that any of them was told to come again at.
    asked_until: Option<Instant>,
}

/// What an endpoint does at the moment, beside the call that failed.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// Calls in flight, and how many may be.
    pub live: usize,
    /// How many calls may be.
    pub limit: usize,
    /// How long a refusal takes.
    pub refusal: Duration,
    /// How long an answer takes, if there was one.
    pub answer: Option<Duration>,
    /// The share of calls that is refused whatever the load.
    pub refused_anyway: f64,
}

/// A call that failed, as far as the endpoint is concerned.
#[derive(Debug, Clone, Copy)]
pub struct FailedCall {
    /// When it was sent.
    pub sent: Instant,
    /// How long the endpoint asked to wait.
    pub asked: Option<Duration>,
    /// Whether it was not let in, or told when to come again: a row is hardly the reason.
    pub is_refusal: bool,
    /// Whether no row can be the reason.
    pub is_away: bool,
    /// When its row failed before, if it did.
    pub failed_before: Option<Instant>,
    /// Whether its row failed before while others were answered: it may be the row's doing.
    pub is_suspect: bool,
}

/// Whether a call may be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MayCall {
    /// Yes.
    Yes,
    /// Yes, one: it shows whether the endpoint is back.
    Probe,
    /// Not before this time, or before the probe under way has ended.
    Wait(Instant),
}

/// What a failed call means for the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It is left alone until then.
    Paused(Instant),
    /// It has been out of reach for longer than allowed.
    Down(Duration),
    /// It asked to be left alone for this time, which by itself is longer than it may be out of reach.
    AsksTooMuch(Duration),
}

impl Outage {
    /// So many calls that fail one after the other are taken for an outage.
    pub const FAILING: u32 = 20;
    /// So many at least where they are told when to come again.
    const ASKED: u32 = 4;
    /// So many rows must fail: fewer may be those that never succeed.
    const ROWS: u32 = 4;
    /// How long a refused endpoint is left alone at first.
    const FIRST_PAUSE: f64 = 0.5;
    /// And at most, where the outage is short, and where it is long.
    const PAUSE_MOST: f64 = 4.0;
    const LONG_PAUSE_MOST: f64 = 60.0;

    /// An endpoint that is well, and may be out of reach for as long as `max`; for as long as `first`
    /// where it was never reached.
    #[must_use]
    pub fn new((max, first): (Duration, Duration), now: Instant) -> Self {
        Self {
            max,
            first: first.min(max),
            was_reached: false,
            since: None,
            opened: now,
            until: now,
            probes: 0,
            probing: false,
            streak: None,
            suspects: 0,
        }
    }

    /// Whether nothing is wrong, so that nobody need ask.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.since.is_none()
    }

    /// Whether it is being left alone, or probed.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.since.is_some()
    }

    /// When it may be called again, if it is left alone.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        self.since.map(|_| self.until)
    }

    /// Asks for a call. After [`MayCall::Probe`] the call's end must be told.
    pub fn may_call(&mut self, now: Instant) -> MayCall {
        if self.since.is_none() {
            return MayCall::Yes;
        }
        if now < self.until {
            return MayCall::Wait(self.until);
        }
        if self.probing {
            // Looked at again when the probe ends; the time only bounds a lost message.
            return MayCall::Wait(now + Duration::from_secs(1));
        }
        self.probing = true;
        MayCall::Probe
    }

    /// A call was lost with the endpoint, which may have died of it.
    pub fn lost(&mut self) {
        self.suspects = self.suspects.saturating_add(1);
    }

    /// The endpoint was down and is there again: what was known of it is of no use. It is called with
    /// one row at a time until as many were answered as were lost with it, so that the one it died of
    /// is alone when it dies again.
    pub fn restarted(&mut self, now: Instant) {
        let suspects = self.suspects;
        let new = Self::new((self.max, self.first), now);
        *self = Self { since: Some(now), suspects, was_reached: self.was_reached, ..new };
    }

    /// Whether it was ever reached.
    #[must_use]
    pub fn was_reached(&self) -> bool {
        self.was_reached
    }

    /// It was reached: a call came to an end that only an endpoint can give it.
    pub fn reached(&mut self) {
        self.was_reached = true;
    }

    /// A call that was sent then was answered: the endpoint is there. True when that ends a pause.
    /// Calls that were in flight when the pause began do not end it.
    pub fn answered(&mut self, now: Instant, sent: Instant) -> bool {
        self.was_reached = true;
        if self.streak.is_some_and(|streak| sent >= streak.began) {
            self.streak = None;
        }
        if self.since.is_some() && sent < self.opened {
            return false;
        }
        self.probing = false;
        self.probes = 0;
        self.suspects = self.suspects.saturating_sub(1);
        if self.suspects > 0 && self.since.is_some() {
            self.since = Some(now);
            return false;
        }
        self.suspects = 0;
        self.since.take().is_some()
    }

    /// A call failed in a way that may be the endpoint's. It is left alone once nobody is answered: many
    /// calls failed one after the other, for as long as an answer takes, and none in flight was taken.
    pub fn failed(
        &mut self,
        now: Instant,
        call: FailedCall,
        round: &Round,
        random: f64,
    ) -> Option<Trouble> {
        if self.since.is_some() {
            // Those that were in flight when it was left alone tell nothing new.
            let is_late = call.sent < self.opened && now < self.until;
            return Some(match is_late {
                true => Trouble::Paused(self.until),
                false => self.troubled(now, call.asked, random),
            });
        }
        if call.is_suspect {
            return None;
        }
        let new = Streak { began: now, failed: 0, failed_since: 0, rows: 0, asked_until: None };
        let streak = self.streak.get_or_insert(new);
        streak.failed += 1;
        streak.failed_since += u32::from(call.sent >= streak.began);
        let is_new = call.failed_before.is_none_or(|at| at < streak.began);
        streak.rows += if call.is_away { Self::ROWS } else { u32::from(is_new) };
        let asked_until = call.asked.map(|asked| now + asked);
        streak.asked_until = streak.asked_until.into_iter().chain(asked_until).min();
        let streak = *streak;
        self.is_nobody_answered(now, (&streak, call.is_refusal), round).then(|| {
            self.since.get_or_insert(streak.began);
            self.streak = None;
            let asked = streak.asked_until.map(|at| at.saturating_duration_since(now));
            self.troubled(now, asked, random)
        })
    }

    fn is_nobody_answered(
        &self,
        now: Instant,
        (streak, is_refusal): (&Streak, bool),
        round: &Round,
    ) -> bool {
        let lasts = now.saturating_duration_since(streak.began);
        if streak.failed > 1 && lasts >= self.max {
            return true;
        }
        let limit = u32::try_from(round.limit).unwrap_or(u32::MAX);
        let least = match round.answer {
            None if is_refusal && round.live == 0 => 1,
            None => Self::FAILING.min(limit),
            Some(_) if streak.asked_until.is_some() => unlikely(round.refused_anyway),
            Some(_) => Self::FAILING,
        };
        let has_rows = round.answer.is_none() || streak.rows >= Self::ROWS;
        let answer = round.answer.unwrap_or_default().min(Duration::from_secs(5));
        if streak.failed < least || lasts < answer || !has_rows {
            return false;
        }
        // Calls in flight that refusals do not explain were taken, and will be answered.
        let seconds = lasts.as_secs_f64().max(0.001);
        let refusals = f64::from(streak.failed_since) * round.refusal.as_secs_f64() / seconds;
        let live = f64::from(u32::try_from(round.live).unwrap_or(u32::MAX));
        let is_long = lasts > 10 * answer.max(Duration::from_secs(1));
        live <= 2.0 + 2.0 * refusals || is_long
    }

    /// A call showed that the endpoint must be left alone, at least for as long as it asked. Where that
    /// reaches beyond the outage allowed, the last try is made at the end of it.
    pub fn troubled(&mut self, now: Instant, asked: Option<Duration>, random: f64) -> Trouble {
        if self.since.is_none() || self.probes == 0 {
            self.opened = now;
        }
        let since = *self.since.get_or_insert(now);
        let out = now.saturating_duration_since(since);
        // Calls that were under way when the trouble began tell nothing new.
        if self.probing || self.probes == 0 {
            self.probes += 1;
            self.probing = false;
        }
        let max = if self.was_reached { self.max } else { self.first };
        if out >= max {
            return Trouble::Down(out);
        }
        if let Some(asked) = asked.filter(|asked| *asked > self.max) {
            self.until = self.until.max(now + asked);
            return Trouble::AsksTooMuch(asked);
        }
        let wait = self.pause(out, random);
        let wait = asked.map_or(wait, |asked| asked.max(wait)).min(max - out);
        self.until = self.until.max(now + wait);
        Trouble::Paused(self.until)
    }

    /// How long it is left alone until the next probe: longer with each, and with the outage.
    fn pause(&self, out: Duration, random: f64) -> Duration {
        let most = (out.as_secs_f64() / 16.0).clamp(Self::PAUSE_MOST, Self::LONG_PAUSE_MOST);
        let steps = i32::try_from(self.probes.saturating_sub(1).min(16)).unwrap_or(16);
        let ceiling = (Self::FIRST_PAUSE * 1.5_f64.powi(steps)).min(most);
        Duration::from_secs_f64(ceiling * (0.5 + 0.5 * random.clamp(0.0, 1.0)))
    }

    /// It has been out of reach for longer than allowed, and is tried on all the same, for others do
    /// without it.
    pub fn spare(&mut self, now: Instant, random: f64) {
        self.since = Some(now);
        self.until = self.until.max(now + self.pause(self.max, random).min(self.max));
        self.probing = false;
    }

    /// A probe ended without telling anything: the run is being stopped.
    pub fn forget_probe(&mut self) {
        self.probing = false;
    }
}

/// How many calls in a row are hardly ever refused where this share is refused at random.
fn unlikely(share: f64) -> u32 {
    const CHANCE: f64 = 1e-4;
    let mut chance = 1.0;
    let mut calls = 0;
    while calls < Outage::FAILING && (chance > CHANCE || calls < Outage::ASKED) {
        chance *= share.max(0.05);
        calls += 1;
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(100);
    const FIRST: Duration = Duration::from_secs(10);

    fn at(begin: Instant, ms: u64) -> Instant {
        begin + Duration::from_millis(ms)
    }

    /// An endpoint that answered before, in 200 ms.
    fn answering(live: usize) -> Round {
        Round {
            live,
            limit: 64,
            refusal: Duration::from_millis(5),
            answer: Some(Duration::from_millis(200)),
            refused_anyway: 0.0,
        }
    }

    fn refused(sent: Instant, asked: Option<Duration>) -> FailedCall {
        FailedCall {
            sent,
            asked,
            is_refusal: true,
            is_away: false,
            failed_before: None,
            is_suspect: false,
        }
    }

    fn known(now: Instant) -> Outage {
        let mut outage = Outage::new((MAX, FIRST), now);
        outage.answered(now, now);
        outage
    }

    /// So many calls, one every 20 ms; when the endpoint is left alone.
    fn failing(outage: &mut Outage, begin: Instant, calls: u64, round: &Round) -> Option<u64> {
        (0..calls).find(|call| {
            let now = at(begin, call * 20);
            outage.failed(now, refused(now, None), round, 0.0).is_some()
        })
    }

    #[test]
    fn circuit_opens_after_twenty_failures_in_a_row() {
        let begin = Instant::now();
        assert_eq!(failing(&mut known(begin), begin, 100, &answering(0)), Some(19));
        let mut outage = known(begin);
        for round in 0..5 {
            let now = at(begin, round * 1_000);
            assert_eq!(failing(&mut outage, now, 19, &answering(0)), None, "{round}");
            outage.answered(at(now, 500), at(now, 400));
        }
    }

    #[test]
    fn circuit_stays_closed_while_calls_are_taken() {
        let begin = Instant::now();
        assert_eq!(failing(&mut known(begin), begin, 90, &answering(20)), None);
        let mut outage = known(begin);
        assert_eq!(failing(&mut outage, begin, 19, &answering(0)), None);
        outage.answered(at(begin, 390), at(begin, 1));
        assert_eq!(failing(&mut outage, at(begin, 400), 19, &answering(0)), None);
    }

    #[test]
    fn suspect_rows_open_no_circuit() {
        let begin = Instant::now();
        let mut outage = known(begin);
        for call in 0..100 {
            let now = at(begin, call * 20);
            let call = FailedCall { is_suspect: true, ..refused(now, None) };
            assert_eq!(outage.failed(now, call, &answering(0), 0.0), None);
        }
    }

    #[test]
    fn few_rows_that_fail_again_and_again_open_no_circuit() {
        let begin = Instant::now();
        let mut outage = known(begin);
        for call in 0..100 {
            let now = at(begin, call * 20);
            let failed_before = (call >= 3).then(|| at(now, 0) - Duration::from_millis(60));
            let call = FailedCall { failed_before, ..refused(now, None) };
            assert_eq!(outage.failed(now, call, &answering(0), 0.0), None);
        }
        // Where nobody can reach it, that is no row's doing.
        let call = FailedCall { is_away: true, ..refused(at(begin, 3_000), None) };
        assert!(outage.failed(at(begin, 3_000), call, &answering(0), 0.0).is_some());
    }

    #[test]
    fn retry_after_opens_the_circuit_sooner() {
        let begin = Instant::now();
        let mut outage = known(begin);
        let asked = Some(Duration::from_secs(3));
        let opened = (0..100).find(|call| {
            let now = at(begin, call * 50);
            outage.failed(now, refused(now, asked), &answering(0), 0.0).is_some()
        });
        assert_eq!(opened, Some(4), "once an answer's time has passed");
        assert_eq!(outage.until(), Some(at(begin, 3_000)), "the first that may come again");
    }

    #[test]
    fn only_an_answer_to_a_later_call_ends_it() {
        let begin = Instant::now();
        let mut outage = known(begin);
        failing(&mut outage, begin, 20, &answering(0));
        assert!(outage.is_out() && !outage.answered(at(begin, 500), at(begin, 100)));
        let now = at(begin, 2_000);
        assert_eq!(outage.may_call(now), MayCall::Probe);
        assert!(matches!(outage.may_call(now), MayCall::Wait(_)), "one at a time");
        assert!(outage.answered(at(begin, 2_200), now));
        assert_eq!(outage.may_call(now), MayCall::Yes);
    }

    #[test]
    fn probes_grow_apart_and_the_last_ends_the_outage() {
        let begin = Instant::now();
        let mut outage = known(begin);
        outage.troubled(begin, None, 1.0);
        let (mut now, mut waits) = (begin, Vec::new());
        loop {
            let MayCall::Wait(until) = outage.may_call(now) else { panic!("it is left alone") };
            waits.push((until - now).as_secs_f64());
            now = until;
            assert_eq!(outage.may_call(now), MayCall::Probe);
            if matches!(outage.troubled(now, None, 1.0), Trouble::Down(_)) {
                break;
            }
        }
        assert_eq!(waits[..3], [0.5, 0.75, 1.125]);
        assert!(waits.iter().all(|wait| *wait <= 6.3) && now == begin + MAX, "{waits:?}");
    }

    #[test]
    fn endpoint_never_reached_is_given_up_soon() {
        let begin = Instant::now();
        let mut outage = Outage::new((MAX, FIRST), begin);
        outage.troubled(begin, None, 0.0);
        assert_eq!(outage.troubled(begin + FIRST, None, 0.0), Trouble::Down(FIRST));
        let mut outage = Outage::new((MAX, FIRST), begin);
        outage.reached();
        outage.troubled(begin, None, 0.0);
        assert!(matches!(outage.troubled(begin + FIRST, None, 0.0), Trouble::Paused(_)));
    }

    #[test]
    fn what_was_lost_with_an_endpoint_is_asked_for_alone() {
        let begin = Instant::now();
        let mut outage = known(begin);
        (0..3).for_each(|_| outage.lost());
        outage.restarted(at(begin, 1_000));
        for second in 1..=3 {
            let now = at(begin, second * 1_000);
            assert_eq!(outage.may_call(now), MayCall::Probe);
            assert!(matches!(outage.may_call(now), MayCall::Wait(_)), "one at a time");
            assert_eq!(outage.answered(now, now), second == 3);
        }
        assert_eq!(outage.may_call(at(begin, 4_000)), MayCall::Yes);
    }

    #[test]
    fn one_that_is_spared_is_tried_on() {
        let begin = Instant::now();
        let mut outage = known(begin);
        outage.troubled(begin, None, 0.0);
        assert_eq!(outage.may_call(begin + MAX), MayCall::Probe);
        assert_eq!(outage.troubled(begin + MAX, None, 0.0), Trouble::Down(MAX));
        outage.spare(begin + MAX, 1.0);
        let MayCall::Wait(until) = outage.may_call(begin + MAX) else { panic!("it waits") };
        assert_eq!(outage.may_call(until), MayCall::Probe);
        assert!(matches!(outage.troubled(until, None, 0.0), Trouble::Paused(_)));
    }

    #[test]
    fn wait_longer_than_allowed_is_told_at_once() {
        let begin = Instant::now();
        let hour = Duration::from_secs(3600);
        let mut outage = known(begin);
        assert_eq!(outage.troubled(begin, Some(hour), 0.0), Trouble::AsksTooMuch(hour));
        outage.spare(begin, 0.0);
        assert_eq!(outage.may_call(begin + MAX), MayCall::Wait(begin + hour));
    }

    #[test]
    fn waits_that_are_asked_for_end_with_a_last_try() {
        let begin = Instant::now();
        let second = |s: u64| begin + Duration::from_secs(s);
        let mut outage = known(begin);
        let asked = Some(Duration::from_secs(40));
        for (now, until) in [(0, 40), (40, 80), (80, 100)] {
            assert_eq!(outage.troubled(second(now), asked, 1.0), Trouble::Paused(second(until)));
            assert_eq!(outage.may_call(second(until)), MayCall::Probe);
        }
        assert_eq!(outage.troubled(second(100), asked, 1.0), Trouble::Down(MAX));
    }
}
