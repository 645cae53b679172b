//! Whether an endpoint may be called: it is left alone after it asked for that or could not be
//! reached, then probed with one call at a time until it answers.

use std::time::{Duration, Instant};

use super::retry::backoff;

/// What is known of an endpoint's health.
#[derive(Debug, Clone)]
pub struct Outage {
    max: Duration,
    // Since when no call has been answered.
    since: Option<Instant>,
    until: Instant,
    failures: u32,
    probing: bool,
    // Calls that failed since the last answer, and since when: of those that were answered with an
    // error, only first calls for rows.
    failing: u32,
    failing_since: Option<Instant>,
    // First calls for rows lately, and how many of them failed.
    first: u32,
    first_failed: u32,
    // Calls that ended with the endpoint, and that one of them may have ended it by.
    suspects: u32,
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
    /// An endpoint that is well, and may be out of reach for as long as `max`.
    #[must_use]
    pub fn new(max: Duration, now: Instant) -> Self {
        Self {
            max,
            since: None,
            until: now,
            failures: 0,
            probing: false,
            failing: 0,
            failing_since: None,
            first: 0,
            first_failed: 0,
            suspects: 0,
        }
    }

    /// So many calls that fail one after the other are taken for an outage.
    pub const FAILING: u32 = 20;
    /// So are half of the first calls for so many rows.
    pub const WINDOW: u32 = 50;

    /// Whether nothing is wrong, so that nobody need ask.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.since.is_none() && self.failing == 0
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
        *self = Self { since: Some(now), suspects, ..Self::new(self.max, now) };
    }

    /// A call was answered: the endpoint is there. True when that ends a pause. Answers to calls
    /// that were under way when the pause began do not end it: what the endpoint asked for holds.
    pub fn answered(&mut self, now: Instant) -> bool {
        (self.failing, self.failing_since) = (0, None);
        if now < self.until {
            return false;
        }
        self.probing = false;
        self.failures = 0;
        self.suspects = self.suspects.saturating_sub(1);
        if self.suspects > 0 && self.since.is_some() {
            self.since = Some(now);
            return false;
        }
        self.suspects = 0;
        self.since.take().is_some()
    }

    /// A row was called for the first time, and answered or not.
    pub fn first_call(&mut self, has_failed: bool) {
        if self.first >= 2 * Self::WINDOW {
            (self.first, self.first_failed) = (self.first / 2, self.first_failed / 2);
        }
        self.first += 1;
        self.first_failed += u32::from(has_failed);
    }

    /// A call was answered with an error that may be the endpoint's, not the row's; `is_first` says
    /// that the row was called for the first time. A few of these are the rows' trouble. Many rows
    /// in a row, and none answered in between, are an outage; so is half of those lately.
    pub fn erred(&mut self, now: Instant, is_first: bool, random: f64) -> Option<Trouble> {
        self.failing += u32::from(is_first);
        self.failing_since.get_or_insert(now);
        let is_half = self.first >= Self::WINDOW && self.first_failed * 2 >= self.first;
        let is_out = self.since.is_some() || self.failing >= Self::FAILING || is_half && is_first;
        is_out.then(|| self.troubled(now, None, random))
    }

    /// A call was not let in, or its connection closed without an answer: a row is hardly the reason.
    /// One of them says little, but many one after the other are an outage, or few for too long.
    pub fn refused(&mut self, now: Instant, random: f64) -> Option<Trouble> {
        self.failing += 1;
        let since = *self.failing_since.get_or_insert(now);
        let is_long = self.failing > 1 && now.saturating_duration_since(since) >= self.max;
        let is_out = self.since.is_some() || self.failing >= Self::FAILING || is_long;
        is_out.then(|| {
            self.since.get_or_insert(since);
            self.troubled(now, None, random)
        })
    }

    /// A call showed that the endpoint must be left alone, at least for as long as it asked. Where that
    /// reaches beyond the outage allowed, the last try is made at the end of it.
    pub fn troubled(&mut self, now: Instant, asked: Option<Duration>, random: f64) -> Trouble {
        let since = *self.since.get_or_insert(now);
        (self.first, self.first_failed) = (0, 0);
        let out = now.saturating_duration_since(since);
        // Calls that were under way when the trouble began tell nothing new.
        if self.probing || self.failures == 0 {
            self.failures += 1;
            self.probing = false;
        }
        if out >= self.max {
            return Trouble::Down(out);
        }
        if let Some(asked) = asked.filter(|asked| *asked > self.max) {
            self.until = self.until.max(now + asked);
            return Trouble::AsksTooMuch(asked);
        }
        let half = backoff(self.failures - 1, 1.0) / 2;
        let wait = half + backoff(self.failures - 1, random) / 2;
        let wait = asked.map_or(wait, |asked| asked.max(wait)).min(self.max - out);
        self.until = self.until.max(now + wait);
        Trouble::Paused(self.until)
    }

    /// It has been out of reach for longer than allowed, and is tried on all the same, for others do
    /// without it.
    pub fn spare(&mut self, now: Instant, random: f64) {
        let wait = backoff(self.failures, 1.0) / 2 + backoff(self.failures, random) / 2;
        self.since = Some(now);
        self.until = self.until.max(now + wait.min(self.max));
        self.probing = false;
    }

    /// A probe ended without telling anything: the run is being stopped.
    pub fn forget_probe(&mut self) {
        self.probing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(100);

    #[test]
    fn a_pause_is_kept_then_one_call_probes() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut outage = Outage::new(MAX, start);
        assert_eq!(outage.may_call(start), MayCall::Yes);
        let asked = Some(Duration::from_secs(7));
        assert_eq!(outage.troubled(start, asked, 0.0), Trouble::Paused(at(7)));
        assert_eq!(outage.may_call(at(6)), MayCall::Wait(at(7)));
        assert_eq!(outage.may_call(at(7)), MayCall::Probe);
        assert!(matches!(outage.may_call(at(7)), MayCall::Wait(_)), "one probe at a time");
        assert!(outage.answered(at(7)));
        assert_eq!(outage.may_call(at(7)), MayCall::Yes);
        assert!(!outage.answered(at(8)));
    }

    #[test]
    fn an_endpoint_that_refuses_some_and_answers_others_is_never_out() {
        let start = Instant::now();
        let mut outage = Outage::new(MAX, start);
        for second in 0..10_000 {
            let now = start + Duration::from_secs(second);
            assert_eq!(outage.refused(now, 1.0), None, "second {second}");
            assert_eq!(outage.refused(now, 1.0), None, "second {second}");
            outage.answered(now);
        }
    }

    #[test]
    fn answers_to_earlier_calls_do_not_end_a_pause() {
        let start = Instant::now();
        let mut outage = Outage::new(MAX, start);
        outage.troubled(start, Some(Duration::from_secs(7)), 0.0);
        assert!(!outage.answered(start + Duration::from_secs(6)));
        assert!(!outage.is_well());
        assert!(matches!(outage.may_call(start + Duration::from_secs(6)), MayCall::Wait(_)));
    }

    #[test]
    fn many_rows_that_fail_one_after_the_other_are_an_outage_and_a_few_are_not() {
        let start = Instant::now();
        let mut outage = Outage::new(MAX, start);
        for round in 0..3 {
            for _ in 1..Outage::FAILING {
                assert_eq!(outage.erred(start, true, 0.0), None, "round {round}");
            }
            // Retries of rows that failed tell nothing new; one answer tells it all.
            assert_eq!(outage.erred(start, false, 0.0), None);
            outage.answered(start);
            assert!(outage.is_well());
        }
        let troubles = (0..Outage::FAILING).filter_map(|_| outage.erred(start, true, 0.0));
        assert_eq!(troubles.count(), 1);
        assert!(outage.erred(start, false, 0.0).is_some(), "while it is out, all of them");
    }

    #[test]
    fn half_of_the_rows_failing_is_an_outage_and_a_third_is_not() {
        let start = Instant::now();
        let outages = |failing_of_6: u32| {
            let mut outage = Outage::new(MAX, start);
            (0..600).any(|row| {
                let has_failed = row % 6 < failing_of_6;
                outage.first_call(has_failed);
                if !has_failed {
                    outage.answered(start);
                    return false;
                }
                outage.erred(start, true, 0.0).is_some()
            })
        };
        assert!(outages(3) && !outages(2));
    }

    #[test]
    fn refusals_one_after_the_other_are_an_outage_or_few_for_too_long() {
        let start = Instant::now();
        let mut outage = Outage::new(MAX, start);
        let troubles = (0..Outage::FAILING).filter_map(|_| outage.refused(start, 0.0));
        assert_eq!(troubles.count(), 1);
        let mut outage = Outage::new(MAX, start);
        assert_eq!(outage.refused(start, 0.0), None);
        assert_eq!(outage.refused(start + MAX, 0.0), Some(Trouble::Down(MAX)));
    }

    #[test]
    fn what_was_lost_with_an_endpoint_is_asked_for_alone() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut outage = Outage::new(MAX, begin);
        (0..3).for_each(|_| outage.lost());
        outage.restarted(at(1));
        for second in 1..=3 {
            assert_eq!(outage.may_call(at(second)), MayCall::Probe);
            assert!(matches!(outage.may_call(at(second)), MayCall::Wait(_)), "one at a time");
            assert_eq!(outage.answered(at(second)), second == 3);
        }
        assert_eq!(outage.may_call(at(4)), MayCall::Yes);
    }

    #[test]
    fn pauses_grow_with_failed_probes_not_with_failed_calls() {
        let start = Instant::now();
        let mut outage = Outage::new(MAX, start);
        for _ in 0..64 {
            outage.troubled(start, None, 1.0);
        }
        assert_eq!(outage.until, start + Duration::from_secs(1), "64 calls were under way at once");
        let mut now = outage.until;
        let mut waits = Vec::new();
        loop {
            assert_eq!(outage.may_call(now), MayCall::Probe);
            match outage.troubled(now, None, 1.0) {
                Trouble::Paused(until) => {
                    waits.push((until - now).as_secs());
                    now = until;
                }
                Trouble::AsksTooMuch(_) => panic!("it asked for nothing"),
                Trouble::Down(out) => {
                    assert!(out >= MAX);
                    break;
                }
            }
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 37], "the last pause ends with the outage allowed");
    }

    #[test]
    fn one_that_is_spared_is_tried_on() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut outage = Outage::new(MAX, start);
        outage.troubled(start, None, 0.0);
        assert_eq!(outage.may_call(at(100)), MayCall::Probe);
        assert_eq!(outage.troubled(at(100), None, 0.0), Trouble::Down(MAX));
        outage.spare(at(100), 1.0);
        assert_eq!(outage.may_call(at(100)), MayCall::Wait(at(104)));
        assert_eq!(outage.may_call(at(104)), MayCall::Probe);
        assert!(matches!(outage.troubled(at(104), None, 0.0), Trouble::Paused(_)));
        assert!(outage.may_call(at(110)) == MayCall::Probe && outage.answered(at(110)));
    }

    #[test]
    fn after_a_restart_one_call_comes_first() {
        let start = Instant::now();
        let mut outage = Outage::new(MAX, start);
        outage.troubled(start, Some(MAX), 1.0);
        let now = start + Duration::from_millis(10);
        outage.restarted(now);
        assert_eq!(outage.may_call(now), MayCall::Probe, "the pause is over");
        assert!(matches!(outage.may_call(now), MayCall::Wait(_)));
        assert!(outage.answered(now));
        assert_eq!(outage.may_call(now), MayCall::Yes);
    }

    #[test]
    fn a_pause_longer_than_allowed_is_an_outage_at_once() {
        let start = Instant::now();
        let mut outage = Outage::new(MAX, start);
        let asked = Some(Duration::from_secs(3600));
        assert_eq!(
            outage.troubled(start, asked, 0.0),
            Trouble::AsksTooMuch(Duration::from_secs(3600))
        );
    }

    #[test]
    fn pauses_that_are_asked_for_last_up_to_what_is_allowed_and_end_with_a_last_try() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut outage = Outage::new(MAX, start);
        let asked = Some(Duration::from_secs(40));
        for (now, until) in [(0, 40), (40, 80), (80, 100)] {
            assert_eq!(outage.troubled(at(now), asked, 1.0), Trouble::Paused(at(until)));
            // One that was under way asks for as much, and changes nothing but the time.
            assert_eq!(outage.troubled(at(now), asked, 1.0), Trouble::Paused(at(until)));
            assert_eq!(outage.may_call(at(until)), MayCall::Probe);
        }
        assert_eq!(outage.troubled(at(100), asked, 1.0), Trouble::Down(MAX));
    }

    #[test]
    fn one_that_is_spared_has_what_it_asked_for() {
        let start = Instant::now();
        let mut outage = Outage::new(MAX, start);
        let hour = Duration::from_secs(3600);
        assert_eq!(outage.troubled(start, Some(hour), 0.0), Trouble::AsksTooMuch(hour));
        outage.spare(start, 0.0);
        assert_eq!(outage.troubled(start, None, 0.0), Trouble::Paused(start + hour));
        assert_eq!(outage.may_call(start + MAX), MayCall::Wait(start + hour));
    }
}
