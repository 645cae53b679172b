//! Which row may be called for next, and what holds the others back.

use std::time::{Duration, Instant};

use super::Worker;
use crate::policy::{Hold, MayCall};
use crate::work::attempt::Flight;
use crate::work::feed::Choice;
use crate::work::health::Health;
use crate::work::lane::LaneIndex;
use crate::work::{Happened, Message};

/// How long the screen says at least what calls wait for.
const SHOWN: Duration = Duration::from_secs(1);

/// Which row of a slot is taken.
pub(super) fn choice(health: &Health, is_probe: bool) -> Choice {
    match is_probe {
        // A server that has died of a row shows that when it is called with that row alone.
        true if !health.is_own() => Choice::NewFirst,
        _ => Choice::DueFirst,
    }
}

impl Worker<'_> {
    /// Whether a slot has a row that may be started by a lane that is not held.
    pub(super) fn is_ready(&self, slot: usize, held: &[LaneIndex], now: Instant) -> bool {
        let slot = &self.slots[slot];
        if slot.leaving.is_some() {
            return false;
        }
        let lanes = self.shared.lanes_of(slot.variant);
        let mut free = lanes.iter().filter(|lane| !held.contains(lane));
        !slot.queue.is_empty() || slot.feed.is_ready(now) && free.next().is_some()
    }

    /// Whether no lane of a team takes a row now, where there are other teams, which are not to wait for
    /// it.
    pub(super) fn is_waiting(&self, team: usize) -> bool {
        let lanes = &self.shared.lanes;
        lanes.teams() > 1 && lanes.team(team).lanes.iter().all(|lane| self.held.contains(lane))
    }

    /// Takes a permit for a row of a slot; none is needed where nobody is called.
    pub(super) fn take_permit(&mut self, slot: usize, in_flight: usize) -> bool {
        let lanes = self.shared.lanes_of(self.slots[slot].variant);
        if lanes.iter().all(|lane| self.lines[*lane].is_none()) {
            return true;
        }
        self.shared.gate.take_next(self.number, in_flight, &mut self.spare)
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
        let lanes = shared.lanes_of(self.slots[slot].variant);
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

    /// Gives a call what it holds of its lane and of the money there is. Where there is none of either
    /// its row goes back, and the lane is held.
    pub(super) fn permit(
        &mut self,
        (index, flight): (usize, Flight),
        message: &Message,
        held: &mut Vec<LaneIndex>,
        now: Instant,
    ) -> Option<Flight> {
        let (row, lane, is_probe) = (flight.row, flight.lane, flight.is_probe);
        let health = &self.shared.lanes.lane(lane).health;
        let slot = &self.slots[index];
        let started = health.start(now, self.number, message.size(), is_probe);
        let hold = match started {
            Ok(permit) => {
                let mut flight = flight
                    .correcting(slot.correction(row))
                    .permitted(permit)
                    .again(slot.variant, slot.answered(row));
                if self.pay(&mut flight, message) {
                    return Some(flight);
                }
                health.cancel(now, &permit);
                None
            }
            Err(hold) => Some(hold),
        };
        self.not_now((index, row), held, (lane, is_probe), now);
        if let Some(hold) = hold {
            self.hold(hold, now);
        }
        None
    }

    pub(super) fn wait_until(&mut self, until: Instant) {
        let earlier = self.held_until.filter(|at| *at < until);
        self.held_until = earlier.or(Some(until));
    }

    /// Notes what holds calls back.
    fn hold(&mut self, hold: Hold, now: Instant) {
        let (until, why) = match hold {
            // Whoever ends a call wakes those who wait for that.
            Hold::Full => return,
            // A moment, of which nobody need know.
            Hold::Load(until) => return self.wait_until(until),
            Hold::Told(until) => (until, "rate limit"),
            Hold::Calls(until) => (until, "--rpm"),
            Hold::Tokens(until) => (until, "--tpm"),
        };
        self.wait_until(until);
        self.show_wait(until, why, now);
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
