//! Which row may be called for next, and what holds the others back.

use std::time::{Duration, Instant};

use super::Worker;
use crate::policy::{Hold, MayCall};
use crate::work::Happened;
use crate::work::lane::LaneIndex;

/// How long the screen says at least what calls wait for.
const SHOWN: Duration = Duration::from_secs(1);

impl Worker<'_> {
    /// A slot with a row that may be started by a lane that is not held.
    pub(super) fn ready(&self, held: &[LaneIndex], now: Instant) -> Option<usize> {
        self.slots.iter().position(|slot| {
            let lanes = self.shared.lanes.team(slot.variant);
            let mut free = lanes.iter().filter(|lane| !held.contains(lane));
            slot.feed.is_ready(now)
                && match slot.feed.is_exhausted() {
                    false => free.next().is_some(),
                    true => free.any(|lane| self.shared.lanes.lane(*lane).health.may_retry()),
                }
        })
    }

    /// Takes a permit for a row of a slot; none is needed where nobody is called.
    pub(super) fn take_permit(&mut self, slot: usize, in_flight: usize) -> bool {
        let lanes = self.shared.lanes.team(self.slots[slot].variant);
        if lanes.iter().all(|lane| self.lines[*lane].is_none()) {
            return true;
        }
        let (gate, held) = (&self.shared.gate, in_flight + self.spare);
        if self.spare == 0 {
            return gate.take(self.number, held);
        }
        let may = gate.may_keep(self.number, held);
        self.spare -= usize::from(may);
        may
    }

    /// The lane that takes a row of a slot for which a permit was taken; true for a probe. A lane
    /// that takes none now is held.
    pub(super) fn admit(
        &mut self,
        slot: usize,
        held: &mut Vec<LaneIndex>,
        now: Instant,
    ) -> Option<(LaneIndex, bool)> {
        let shared = self.shared;
        let lanes = shared.lanes.team(self.slots[slot].variant);
        let lane = *lanes.iter().find(|lane| !held.contains(lane))?;
        if self.lines[lane].is_none() {
            return Some((lane, false));
        }
        match shared.lanes.lane(lane).health.may_call(now) {
            MayCall::Yes => Some((lane, false)),
            MayCall::Probe => Some((lane, true)),
            MayCall::Wait(until) => {
                self.wait_until(until);
                self.turn_away(held, (lane, false));
                None
            }
        }
    }

    /// A lane takes no row now: what was taken for one goes back.
    pub(super) fn turn_away(
        &mut self,
        held: &mut Vec<LaneIndex>,
        (lane, is_probe): (LaneIndex, bool),
    ) {
        held.push(lane);
        self.spare += 1;
        if is_probe {
            self.shared.lanes.lane(lane).health.forget_probe();
        }
    }

    fn wait_until(&mut self, until: Instant) {
        let earlier = self.held_until.filter(|at| *at < until);
        self.held_until = earlier.or(Some(until));
    }

    /// Notes what holds calls back.
    pub(super) fn hold(&mut self, hold: Hold, now: Instant) {
        let (until, why) = match hold {
            // Whoever ends a call wakes those who wait for that.
            Hold::Full => return,
            Hold::Told(until) => (until, "rate limit"),
            Hold::Calls(until) => (until, "--rpm"),
            Hold::Tokens(until) => (until, "--tpm"),
        };
        self.wait_until(until);
        self.show_wait(until, why, now);
    }

    /// Where only rows to be tried again are left and the budget for that is spent, waits for it.
    pub(super) fn await_budget(&mut self, held: &[LaneIndex], now: Instant) {
        let has_new = self.slots.iter().any(|slot| !slot.feed.is_exhausted());
        let may_open = self.is_opening || !self.shared.queue.is_empty() && self.slots.len() < 2;
        if has_new || may_open || !self.is_running() {
            return;
        }
        for index in 0..self.slots.len() {
            if !self.slots[index].feed.is_ready(now) {
                continue;
            }
            for &lane in self.shared.lanes.team(self.slots[index].variant) {
                let health = &self.shared.lanes.lane(lane).health;
                if held.contains(&lane) || health.may_retry() {
                    continue;
                }
                // With no time to wait for, it is there at once.
                let until = health.refill(now).unwrap_or(now + Duration::from_millis(1));
                self.wait_until(until);
                self.show_wait(until, "retry budget", now);
            }
        }
    }

    /// Has the screen say what calls wait for, now and then.
    fn show_wait(&mut self, until: Instant, why: &'static str, now: Instant) {
        if self.told_until.is_none_or(|told| told <= now) {
            let until = until.max(now + SHOWN);
            self.told_until = Some(until);
            self.tell(Happened::Waiting { until, why });
        }
    }
}
