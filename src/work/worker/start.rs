//! Which row is called for next, and through which lane.

use std::time::Instant;

use super::Worker;
use crate::policy::MayCall;
use crate::work::feed::RowIndex;
use crate::work::lane::LaneIndex;
use crate::work::slot::Slot;

/// A row that may be called for, with a permit taken for the call.
pub(super) struct Start {
    /// The place of its slot.
    pub(super) slot: usize,
    pub(super) row: RowIndex,
    pub(super) lane: LaneIndex,
    /// Whether the call shows if the endpoint is back.
    pub(super) is_probe: bool,
}

/// Whether a row may be called for.
enum May {
    /// Through this lane; true for a probe.
    Call(LaneIndex, bool),
    /// Nobody may: there is no permit.
    NotNow,
    /// Not by this team: its time is noted.
    Later(usize),
}

impl Worker<'_> {
    /// Whether a team is known to be out of reach at this moment.
    pub(super) fn is_waiting(&self, team: usize, now: Instant) -> bool {
        self.waits_until.get(team).copied().flatten().is_some_and(|until| until > now)
    }

    /// The next row to start. Teams that cannot be called in this turn are noted in `later`, and the
    /// rows of others go before theirs.
    pub(super) fn next_start(
        &mut self,
        in_flight: usize,
        later: &mut Vec<usize>,
        now: Instant,
    ) -> Option<Start> {
        let is_ready = |slot: &Slot<'_>| slot.feed.is_ready(now);
        let first = self.slots.iter().position(is_ready);
        self.shared.gate.set_demanding(self.number, first.is_some());
        for index in first?..self.slots.len() {
            let slot = &self.slots[index];
            if !is_ready(slot) || later.contains(&self.shared.team(slot.variant)) {
                continue;
            }
            let (lane, is_probe) = match self.may_call(index, in_flight, now) {
                May::Call(lane, is_probe) => (lane, is_probe),
                May::NotNow => return None,
                May::Later(team) => {
                    later.push(team);
                    continue;
                }
            };
            // A server that has died of a row shows that when it is called with that row alone.
            let wants_fresh = is_probe && !self.shared.lanes.lane(lane).health.is_own();
            let row = self.slots[index].feed.take(now, wants_fresh)?;
            return Some(Start { slot: index, row, lane, is_probe });
        }
        None
    }

    /// The lane that may take a row of a slot now, with a permit taken for the call.
    fn may_call(&mut self, slot: usize, in_flight: usize, now: Instant) -> May {
        let shared = self.shared;
        let team = shared.team(self.slots[slot].variant);
        let Some(&lane) = shared.lanes.team(team).first() else { return May::NotNow };
        if self.lines[lane].is_none() {
            return May::Call(lane, false);
        }
        let gate = &shared.gate;
        let held = in_flight + self.spare;
        if self.spare > 0 {
            if !gate.may_keep(self.number, held) {
                return May::NotNow;
            }
            self.spare -= 1;
        } else if !gate.take(self.number, held) {
            return May::NotNow;
        }
        let is_probe = match shared.lanes.lane(lane).health.may_call(now) {
            MayCall::Yes => false,
            MayCall::Probe => true,
            MayCall::Wait(until) => {
                self.waits_until[team] = Some(until);
                self.spare += 1;
                return May::Later(team);
            }
        };
        self.waits_until[team] = None;
        May::Call(lane, is_probe)
    }
}
