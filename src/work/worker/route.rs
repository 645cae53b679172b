//! Calls of a pool: which row goes to which lane, and where it goes when one fails it.

use std::time::{Duration, Instant};

use super::Worker;
use super::admit::choice;
use crate::job::{Failure, FailureKind};
use crate::policy::{MayCall, Verdict, backoff};
use crate::telemetry::{Event, now_ms};
use crate::work::answerer::{Needs, untaken};
use crate::work::attempt::Landing;
use crate::work::feed::{Choice, RowIndex};
use crate::work::lane::LaneIndex;
use crate::work::{Happened, StopReason};

/// So many rows in a row that a lane does not know the model for show that it does not have it.
const UNKNOWN_ROWS: u32 = 3;

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
    /// The same, where others have rows of their own: these are left.
    Left,
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
        let Turn { number, mut closed, .. } = std::mem::take(&mut self.turn);
        closed.clear();
        closed.resize(self.lines.len(), false);
        self.turn = Turn { number: number + 1, closed, ..Turn::default() };
    }

    /// The next row that may be called for, and where, with a permit taken for the call.
    pub(super) fn next_start(
        &mut self,
        held: &mut Vec<LaneIndex>,
        in_flight: usize,
        now: Instant,
    ) -> Option<Start> {
        let slots = 0..self.slots.len();
        let is_any = slots.clone().any(|slot| self.is_ready(slot, held, now));
        self.shared.gate.set_demanding(self.number, is_any);
        for slot in slots {
            if self.slots[slot].leaving.is_some() {
                continue;
            }
            if self.shared.team_for(self.slots[slot].variant).is_pool {
                match self.route(slot, in_flight, now) {
                    None => continue,
                    start => return start,
                }
            }
            while self.is_ready(slot, held, now) {
                if !self.take_permit(slot, in_flight) {
                    return None;
                }
                let Some((lane, is_probe)) = self.admit(slot, held, now) else { continue };
                let health = &self.shared.lanes.lane(lane).health;
                match self.slots[slot].feed.take(now, choice(health, is_probe)) {
                    Some(row) => return Some(Start { slot, row, lane, is_probe }),
                    None => self.turn_away(held, (lane, is_probe)),
                }
            }
        }
        None
    }

    /// A row that was taken cannot be called for now, for its lane has no room.
    pub(super) fn not_now(
        &mut self,
        (slot, row): (usize, RowIndex),
        held: &mut Vec<LaneIndex>,
        (lane, is_probe): (LaneIndex, bool),
        now: Instant,
    ) {
        self.turn_away(held, (lane, is_probe));
        self.put_back((slot, row), lane, now);
        self.leave(lane);
    }

    /// Takes back a row that was taken for a lane: there was no call.
    pub(super) fn put_back(
        &mut self,
        (slot, row): (usize, RowIndex),
        lane: LaneIndex,
        now: Instant,
    ) {
        if !self.shared.lanes.lane(lane).is_pooled {
            return self.slots[slot].feed.put_back(row, now);
        }
        self.turn.closed[lane] = true;
        let shared = self.shared;
        let needs = self.slots[slot].needs(row, &shared.manifest.job, shared.names.as_ref());
        self.slots[slot].queue.add(row, needs);
        let team = self.shared.team_for(self.slots[slot].variant);
        if let Some(at) = team.lanes.iter().position(|it| *it == lane) {
            team.balance().returned(at);
        }
    }

    /// The next row of a slot that some lane of its pool may take, with a permit taken for the call.
    pub(super) fn route(&mut self, slot: usize, in_flight: usize, now: Instant) -> Option<Start> {
        let shared = self.shared;
        let team = shared.team_for(self.slots[slot].variant);
        let is_closed = |turn: &Turn| team.lanes.iter().all(|lane| turn.closed[*lane]);
        if is_closed(&self.turn) || !self.take_permit(slot, in_flight) {
            return None;
        }
        let slot_is_ready = self.slots[slot].feed.is_ready(now);
        if !slot_is_ready && self.slots[slot].queue.is_empty() {
            self.spare += 1;
            return None;
        }
        let start = |row, (lane, is_probe)| Some(Start { slot, row, lane, is_probe });
        for needs in self.slots[slot].queue.needs() {
            if !self.is_served(slot, needs) {
                self.spare += 1;
                return None;
            }
            if let Some(chosen) = self.choose(slot, None, needs, now)
                && let Some(row) = self.slots[slot].queue.take(needs)
            {
                return start(row, chosen);
            }
        }
        while let Some((row, needs)) = self.slots[slot].queue.take_shy(self.turn.number) {
            if !self.is_served(slot, needs) {
                self.slots[slot].queue.add(row, needs);
                self.spare += 1;
                return None;
            }
            if let Some(chosen) = self.choose(slot, Some(row), needs, now) {
                return start(row, chosen);
            }
            self.slots[slot].queue.add(row, needs);
        }
        while !is_closed(&self.turn) && self.is_running() {
            if self.turn.parked >= PARKED_MOST {
                // Others come first; then this goes on.
                self.turn.note(now + Duration::from_millis(1));
                break;
            }
            let Some(row) = self.slots[slot].feed.take(now, Choice::DueFirst) else { break };
            let needs = self.slots[slot].needs(row, &shared.manifest.job, shared.names.as_ref());
            match self.served(slot, needs) {
                Served::Never => {
                    self.fail_unserved(slot, row, needs);
                    continue;
                }
                Served::Lost(why) => self.stop_for(why),
                Served::Left => {}
                Served::Yes => {
                    if let Some(chosen) = self.choose(slot, Some(row), needs, now) {
                        return start(row, chosen);
                    }
                }
            }
            self.turn.parked += 1;
            self.slots[slot].queue.add(row, needs);
        }
        self.spare += 1;
        None
    }

    /// The lane whose turn it is among those that can take a row now.
    fn choose(
        &mut self,
        slot: usize,
        row: Option<RowIndex>,
        needs: Needs,
        now: Instant,
    ) -> Option<(LaneIndex, bool)> {
        let shared = self.shared;
        let slot = &self.slots[slot];
        let team = shared.team_for(slot.variant);
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
                is_open && lane.takes(needs) && !lane.standing.is_out()
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
    fn served(&self, slot: usize, needs: Needs) -> Served {
        let team = self.shared.team_for(self.slots[slot].variant);
        let lanes = team.lanes.iter().map(|lane| self.shared.lanes.lane(*lane));
        let mut why = None;
        let mut is_ever = false;
        for lane in lanes.filter(|lane| lane.takes(needs)) {
            if lane.standing.is_up() {
                return Served::Yes;
            }
            is_ever = true;
            why = why.or_else(|| lane.standing.why());
        }
        match is_ever {
            true if self.shared.names.is_some() => Served::Left,
            true => Served::Lost(why),
            false => Served::Never,
        }
    }

    /// Whether somebody can take rows that need this; ends the run where those who could are lost.
    fn is_served(&self, slot: usize, needs: Needs) -> bool {
        match self.served(slot, needs) {
            Served::Lost(why) => {
                self.stop_for(why);
                false
            }
            Served::Yes | Served::Left | Served::Never => true,
        }
    }

    pub(super) fn stop_for(&self, why: Option<StopReason>) {
        if self.is_running() {
            let unknown = || StopReason::Unknown { why: "nobody knows the model".to_owned() };
            self.stop(why.unwrap_or_else(unknown));
        }
    }

    /// A row that no member of the pool can take fails without a call.
    fn fail_unserved(&mut self, slot: usize, row: RowIndex, needs: Needs) {
        let failure = untaken(needs);
        let job = &self.shared.manifest.job;
        self.slots[slot].put_unserved(row, &failure, job, &self.shared.template, now_ms());
        self.count_failed();
    }

    /// A lane was lost: the run ends, unless others of its pool can go on without it.
    pub(super) fn lose(&self, index: LaneIndex, why: StopReason, now: Instant) {
        let lane = self.shared.lanes.lane(index);
        if !lane.is_pooled {
            return self.lose_alone(index, why);
        }
        let name = &lane.label;
        let what = match &why {
            StopReason::Outage { out, why } => {
                let out = out.as_secs();
                format!("{name} has been out of reach for {out} s ({why})")
            }
            StopReason::Unreachable { out, why } => {
                format!("{name} could not be reached for {} s ({why})", out.as_secs())
            }
            StopReason::AsksTooMuch { wait, why } => {
                format!("{name} asks to be left alone for {} s ({why})", wait.as_secs())
            }
            StopReason::Credentials { why } => format!("{name} refused the key ({why})"),
            StopReason::Quota { why } => format!("{name} has no quota left ({why})"),
            StopReason::Tls { why } => format!("{name} cannot be called ({why})"),
            StopReason::Unknown { why } => format!("{name} does not know the model ({why})"),
            StopReason::ServerLost { why } => format!("{name} is lost ({why})"),
            StopReason::MaxErrors { .. } | StopReason::MaxCost { .. } => return self.stop(why),
        };
        let is_passing = why.is_passing();
        let why = why.at(name);
        if lane.is_named() {
            return self.lose_named(index, &what, why);
        }
        let (is_new, then) = if is_passing {
            lane.health.spare(now);
            (lane.standing.fall(why), "it is tried on")
        } else {
            (lane.standing.leave(Some(why)), "it is not called any more")
        };
        let mut others = self.shared.lanes.iter();
        let has_others = others.any(|other| other.is_pooled && other.standing.is_up());
        if is_new {
            let others = if has_others { ", and the others answer" } else { "" };
            self.tell(Happened::Shown(Event::Warning(format!("{what}: {then}{others}"))));
            self.shared.gate.wake_all();
        }
        if !has_others {
            self.stop_for(lane.standing.why());
        }
    }

    /// Whether a call that a lane failed is made elsewhere: where another lane can take the row, that
    /// is tried before the row waits or has failed, and counts for nothing.
    pub(super) fn elsewhere(
        &mut self,
        landing: &Landing,
        failure: &Failure,
        slot: usize,
        now: Instant,
    ) -> Option<Verdict> {
        let (index, row) = (landing.flight.lane, landing.flight.row);
        let lane = self.shared.lanes.lane(index);
        // Each is asked once before a failure counts, so that there is an end to it.
        let is_asked = |it: &Self, other| it.slots[slot].queue.was_asked(row, other);
        if !lane.is_pooled || !self.has_other(landing, slot, &|other| !is_asked(self, other)) {
            return None;
        }
        let wait = match failure.kind {
            FailureKind::Server
            | FailureKind::RateLimit
            | FailureKind::Connection
            | FailureKind::Closed => {
                let made = self.slots[slot].feed.tries(row).made;
                backoff(made, fastrand::f64()).max(Duration::from_millis(200))
            }
            // What one makes of a row says little of the others.
            FailureKind::BadResponse | FailureKind::EmptyAnswer => SLOW,
            FailureKind::NotFound => {
                if !lane.standing.is_known()
                    && lane.standing.note_unknown() >= UNKNOWN_ROWS
                    && lane.standing.leave(None)
                {
                    let text = format!(
                        "{} does not know the model ({}): it is not called any more, and the others \
                         answer",
                        lane.label, failure.message
                    );
                    self.tell(Happened::Shown(Event::Warning(text)));
                }
                SLOW
            }
            _ => return None,
        };
        let slot = &mut self.slots[slot];
        slot.queue.avoid(row, index, now + wait);
        Some(Verdict::RetryNow)
    }

    /// Whether another lane than that of a call takes its row.
    fn has_other(&self, landing: &Landing, slot: usize, may: &dyn Fn(LaneIndex) -> bool) -> bool {
        let (shared, slot) = (self.shared, &self.slots[slot]);
        let needs = slot.needs(landing.flight.row, &shared.manifest.job, shared.names.as_ref());
        self.shared.team_for(slot.variant).lanes.iter().any(|other| {
            let lane = self.shared.lanes.lane(*other);
            let is_other = *other != landing.flight.lane;
            is_other && lane.takes(needs) && lane.standing.is_up() && may(*other)
        })
    }

    /// Where a row goes that waits for another try: not to who was too slow for it, if it can help it,
    /// and else anywhere.
    pub(super) fn keep_away(
        &mut self,
        landing: &Landing,
        failure: &Failure,
        slot: usize,
        (verdict, now): (Verdict, Instant),
    ) {
        let (index, row) = (landing.flight.lane, landing.flight.row);
        let (Verdict::RetryAfter(wait) | Verdict::Defer(wait)) = verdict else { return };
        if !self.shared.lanes.lane(index).is_pooled {
            return;
        }
        let is_slow = matches!(failure.kind, FailureKind::Timeout | FailureKind::BrokenAnswer);
        let has_other = self.has_other(landing, slot, &|_| true);
        let queue = &mut self.slots[slot].queue;
        queue.forget(row);
        if is_slow && has_other {
            queue.avoid(row, index, now + wait + SLOW);
        }
    }
}
