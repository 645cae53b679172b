//! Calls of a pool: which row goes to which lane, and where it goes when one fails it.

use std::time::{Duration, Instant};

use super::{Slot, Worker};
use crate::job::{FailureKind, Kinds};
use crate::policy::{Decision, MayCall, backoff};
use crate::telemetry::{Event, now_ms};
use crate::work::answerer::untaken;
use crate::work::attempt::Landing;
use crate::work::feed::RowIndex;
use crate::work::lane::LaneIndex;
use crate::work::{Happened, StopReason};

/// A row that may be called for, and where.
pub(super) struct Start {
    pub(super) slot: usize,
    pub(super) row: RowIndex,
    pub(super) lane: LaneIndex,
    pub(super) is_probe: bool,
}

/// What a turn of the worker's loop has found out of the lanes.
#[derive(Debug, Default)]
pub(super) struct Turn {
    number: u64,
    // Lanes that take no call now.
    closed: Vec<bool>,
    /// When that may be otherwise, of those that say so.
    pub(super) until: Option<Instant>,
    // Rows that were taken and could not go anywhere.
    parked: usize,
}

impl Turn {
    fn note(&mut self, until: Instant) {
        self.until = Some(self.until.map_or(until, |before| before.min(until)));
    }
}

/// Who can take a row.
enum Served {
    /// Somebody.
    Yes,
    /// Those who could are lost.
    Lost(Option<StopReason>),
    /// Nobody ever could.
    Never,
}

/// Rows looked at in a turn that find nobody to take them: there is other work besides.
const PARKED_MOST: usize = 1024;
/// How long a row keeps away from a lane that did not answer it in time, beyond its wait, or that
/// does not know the model.
const SLOW: Duration = Duration::from_secs(30);

impl Worker<'_> {
    /// Begins to look for rows to start.
    pub(super) fn begin_turn(&mut self) {
        let (number, lanes) = (self.turn.number + 1, self.lines.len());
        self.turn = Turn { number, closed: vec![false; lanes], ..Turn::default() };
    }

    /// The next row that may be called for, and where, with a permit taken for the call.
    pub(super) fn next_start(&mut self, in_flight: usize, now: Instant) -> Option<Start> {
        let is_ready = |slot: &Slot<'_>| slot.feed.is_ready(now) || !slot.queue.is_empty();
        let first = self.slots.iter().position(is_ready);
        self.shared.gate.set_demanding(self.number, first.is_some());
        for index in first?..self.slots.len() {
            let slot = &self.slots[index];
            if !is_ready(slot) {
                continue;
            }
            if self.shared.lanes.team(slot.variant).is_pool {
                match self.route(index, in_flight, now) {
                    None => continue,
                    start => return start,
                }
            }
            let (lane, is_probe) = self.may_call(index, in_flight, now)?;
            // A server that has died of a row shows that when it is called with that row alone.
            let wants_fresh = is_probe && !self.shared.lanes.lane(lane).health.is_own();
            let row = self.slots[index].feed.take(now, wants_fresh)?;
            return Some(Start { slot: index, row, lane, is_probe });
        }
        None
    }

    /// Takes a permit for a call, where there is one.
    pub(super) fn take_permit(&mut self, in_flight: usize) -> bool {
        let gate = &self.shared.gate;
        let held = in_flight + self.spare;
        if self.spare > 0 {
            let may = gate.may_keep(self.number, held);
            self.spare -= usize::from(may);
            return may;
        }
        gate.take(self.number, held)
    }

    /// The next row of a slot that some lane of its pool may take, with a permit taken for the call.
    pub(super) fn route(&mut self, slot: usize, in_flight: usize, now: Instant) -> Option<Start> {
        let shared = self.shared;
        let team = shared.lanes.team(self.slots[slot].variant);
        let is_closed = |turn: &Turn| team.lanes.iter().all(|lane| turn.closed[*lane]);
        if is_closed(&self.turn) || !self.take_permit(in_flight) {
            return None;
        }
        let start = |row, (lane, is_probe)| Some(Start { slot, row, lane, is_probe });
        for kinds in self.slots[slot].queue.kinds() {
            if !self.is_served(slot, kinds) {
                self.spare += 1;
                return None;
            }
            if let Some(chosen) = self.choose(slot, None, kinds, now)
                && let Some(row) = self.slots[slot].queue.take(kinds)
            {
                return start(row, chosen);
            }
        }
        while let Some((row, kinds)) = self.slots[slot].queue.take_shy(self.turn.number) {
            if let Some(chosen) = self.choose(slot, Some(row), kinds, now) {
                return start(row, chosen);
            }
            self.slots[slot].queue.add(row, kinds);
        }
        while !is_closed(&self.turn) && self.is_running() {
            if self.turn.parked >= PARKED_MOST {
                // Others come first; then this goes on.
                self.turn.note(now + Duration::from_millis(1));
                break;
            }
            let Some(row) = self.slots[slot].feed.take(now, false) else { break };
            let kinds = self.slots[slot].needs(row, &shared.manifest.job);
            match self.served(slot, kinds) {
                Served::Never => {
                    self.fail_unserved(slot, row, kinds);
                    continue;
                }
                Served::Lost(why) => self.stop_for(why),
                Served::Yes => {
                    if let Some(chosen) = self.choose(slot, Some(row), kinds, now) {
                        return start(row, chosen);
                    }
                }
            }
            self.turn.parked += 1;
            self.slots[slot].queue.add(row, kinds);
        }
        self.spare += 1;
        None
    }

    /// The lane whose turn it is among those that can take a row now.
    fn choose(
        &mut self,
        slot: usize,
        row: Option<RowIndex>,
        kinds: Kinds,
        now: Instant,
    ) -> Option<(LaneIndex, bool)> {
        let shared = self.shared;
        let slot = &self.slots[slot];
        let team = shared.lanes.team(slot.variant);
        let mut is_avoided = vec![false; team.lanes.len()];
        if let Some(row) = row {
            for (at, lane) in team.lanes.iter().enumerate() {
                if let Some(until) = slot.queue.avoids(row, *lane, now) {
                    is_avoided[at] = true;
                    self.turn.note(until);
                }
            }
        }
        let mut balance = team.balance();
        loop {
            let turn = &mut self.turn;
            let may = |at: usize| {
                let lane = shared.lanes.lane(team.lanes[at]);
                let is_open = !turn.closed[team.lanes[at]] && !is_avoided[at];
                is_open && lane.kinds.takes(kinds) && !lane.standing.is_out()
            };
            let chosen = balance.next(may)?;
            let index = team.lanes[chosen];
            let lane = shared.lanes.lane(index);
            if lane.load.as_ref().is_some_and(|load| !load.take()) {
                turn.closed[index] = true;
                continue;
            }
            match lane.health.may_call(now) {
                MayCall::Yes => {
                    balance.took(chosen, may);
                    return Some((index, false));
                }
                MayCall::Probe => {
                    balance.took(chosen, may);
                    return Some((index, true));
                }
                MayCall::Wait(until) => {
                    turn.closed[index] = true;
                    turn.note(until);
                    self.leave(index);
                }
            }
        }
    }

    /// A call of a lane has ended, or was not made.
    pub(super) fn leave(&self, lane: LaneIndex) {
        let load = self.shared.lanes.lane(lane).load.as_ref();
        if load.is_some_and(|load| load.give_back()) {
            self.shared.gate.wake_all();
        }
    }

    /// Who can take a row that needs this.
    fn served(&self, slot: usize, kinds: Kinds) -> Served {
        let team = self.shared.lanes.team(self.slots[slot].variant);
        let lanes = team.lanes.iter().map(|lane| self.shared.lanes.lane(*lane));
        let mut why = None;
        let mut is_ever = false;
        for lane in lanes.filter(|lane| lane.kinds.takes(kinds)) {
            if lane.standing.is_up() {
                return Served::Yes;
            }
            is_ever = true;
            why = why.or_else(|| lane.standing.why());
        }
        if is_ever { Served::Lost(why) } else { Served::Never }
    }

    /// Whether somebody can take rows that need this; ends the run where those who could are lost.
    fn is_served(&self, slot: usize, kinds: Kinds) -> bool {
        match self.served(slot, kinds) {
            Served::Lost(why) => {
                self.stop_for(why);
                false
            }
            Served::Yes | Served::Never => true,
        }
    }

    fn stop_for(&self, why: Option<StopReason>) {
        if self.is_running() {
            let unknown = || StopReason::Credentials { why: "nobody knows the model".to_owned() };
            self.stop(why.unwrap_or_else(unknown));
        }
    }

    /// A row that no member of the pool can take fails without a call.
    fn fail_unserved(&mut self, slot: usize, row: RowIndex, kinds: Kinds) {
        let failure = untaken(kinds);
        let job = &self.shared.manifest.job;
        self.slots[slot].put_unserved(row, &failure, job, &self.shared.template, now_ms());
        self.count_failed();
    }

    /// A lane was lost: the run ends, unless others of its pool can go on without it.
    pub(super) fn lose(&self, index: LaneIndex, why: StopReason, now: Instant) {
        let lane = self.shared.lanes.lane(index);
        if !lane.is_pooled {
            return self.stop(why);
        }
        let name = &lane.label;
        let what = match &why {
            StopReason::Outage { out, why } => {
                let out = out.as_secs();
                format!("{name} has been out of reach for {out} s ({why})")
            }
            StopReason::AsksTooMuch { wait, why } => {
                format!("{name} asks to be left alone for {} s ({why})", wait.as_secs())
            }
            StopReason::Credentials { why } => format!("{name} refused the key ({why})"),
            StopReason::Quota { why } => format!("{name} has no quota left ({why})"),
            StopReason::Tls { why } => format!("{name} cannot be called ({why})"),
            StopReason::ServerLost { why } => format!("{name} is lost ({why})"),
            StopReason::MaxErrors { .. } | StopReason::MaxCost { .. } => return self.stop(why),
        };
        let is_passing = matches!(why, StopReason::Outage { .. } | StopReason::AsksTooMuch { .. });
        let (is_new, then) = if is_passing {
            lane.health.spare(now);
            (lane.standing.fall(why), "it is tried on, and the others answer")
        } else {
            (lane.standing.leave(Some(why)), "it is not called any more, and the others answer")
        };
        if is_new {
            self.tell(Happened::Shown(Event::Warning(format!("{what}: {then}"))));
            self.shared.gate.wake_all();
        }
    }

    /// What follows for a row of a pool: where another lane can take it, that is tried before the row
    /// waits or has failed.
    pub(super) fn rerouted(
        &mut self,
        landing: &Landing,
        slot: usize,
        decision: Decision,
        now: Instant,
    ) -> Decision {
        let (index, row) = (landing.flight.lane, landing.flight.row);
        let shared = self.shared;
        let lane = shared.lanes.lane(index);
        let Err(failure) = &landing.result else { return decision };
        if !lane.is_pooled || !matches!(decision, Decision::Again(_) | Decision::GiveUp) {
            return decision;
        }
        let slot = &mut self.slots[slot];
        let kinds = slot.needs(row, &shared.manifest.job);
        let team = shared.lanes.team(slot.variant);
        let others = |may: &dyn Fn(LaneIndex) -> bool| {
            team.lanes.iter().any(|other| {
                let lane = shared.lanes.lane(*other);
                *other != index && lane.kinds.takes(kinds) && lane.standing.is_up() && may(*other)
            })
        };
        // Each is asked once before a failure counts, so that there is an end to it.
        let has_other = others(&|other| !slot.queue.was_asked(row, other));
        let made = slot.feed.tries(row).made;
        match (failure.kind, decision) {
            (FailureKind::Server, _) if has_other => {
                let wait = backoff(made, fastrand::f64());
                slot.queue.avoid(row, index, now + wait.max(Duration::from_millis(200)));
                Decision::AtOnce
            }
            (FailureKind::NotFound, _) if has_other => {
                slot.queue.avoid(row, index, now + SLOW);
                if lane.standing.is_unknown() && lane.standing.leave(None) {
                    let text = format!(
                        "{} does not know the model ({}): it is not called any more, and the others \
                         answer",
                        lane.label, failure.message
                    );
                    self.tell(Happened::Shown(Event::Warning(text)));
                }
                Decision::AtOnce
            }
            (FailureKind::Timeout | FailureKind::BrokenAnswer, Decision::Again(wait)) => {
                if others(&|_| true) {
                    slot.queue.forget(row);
                    slot.queue.avoid(row, index, now + wait + SLOW);
                }
                decision
            }
            // All were asked: when it has waited, it may go anywhere.
            (FailureKind::Server, Decision::Again(_)) => {
                slot.queue.forget(row);
                decision
            }
            _ => decision,
        }
    }
}
