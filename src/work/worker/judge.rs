//! What follows of a call's end: for its row, for the endpoint, for the run.

use std::time::Instant;

use super::Worker;
use crate::job::FailureKind;
use crate::policy::{Decision, Reception, Trouble, decide};
use crate::telemetry::Event;
use crate::work::attempt::Landing;
use crate::work::judge::{self, Misfit, Unknown};
use crate::work::lane::LaneIndex;
use crate::work::structured::FirstToFall;
use crate::work::{Happened, StopReason};

/// How often a server of this run's own may die of a row that it was called with alone.
const KILLED_MOST: u32 = 2;

impl Worker<'_> {
    /// What follows of a call's end for its row and for the endpoint; nothing for an answer.
    pub(super) fn judge(
        &mut self,
        landing: &Landing,
        slot: usize,
        now: Instant,
    ) -> Option<Decision> {
        let Err(failure) = &landing.result else {
            self.ended(landing, slot, Reception::Answered, now);
            return None;
        };
        if let Some(decision) = self.judge_form(landing, slot) {
            self.ended(landing, slot, Reception::Answered, now);
            self.slots[slot].feed.note(landing.flight.row).is_free = true;
            return Some(decision);
        }
        let lane = self.shared.lanes.lane(landing.flight.lane);
        let calls = self.slots[slot].feed.tries(landing.flight.row).counted() + 1;
        let decision = decide(failure, calls, fastrand::f64());
        if let Some(reason) = judge::stop_reason(lane, failure, decision) {
            self.lose(landing.flight.lane, reason, now);
        }
        let is_lost = matches!(
            failure.kind,
            FailureKind::Connection
                | FailureKind::Closed
                | FailureKind::Stale
                | FailureKind::BrokenAnswer
        );
        if is_lost && lane.health.is_own() {
            return Some(self.judge_lost(landing, slot, now));
        }
        let reception = judge::reception(landing, failure);
        let is_paused = self.ended(landing, slot, reception, now);
        if let Some(decision) = self.elsewhere(landing, failure, slot, now) {
            return Some(decision);
        }
        let tries = self.slots[slot].feed.note(landing.flight.row);
        match judge::unknown(lane, failure, tries) {
            Some(Unknown::ToAll) => {
                let why = lane.not_found(failure);
                self.lose(landing.flight.lane, StopReason::Unknown { why }, now);
                return Some(Decision::StopRun);
            }
            Some(Unknown::ToThis(wait)) => return Some(Decision::Later(wait)),
            None => {}
        }
        let bounds = (self.shared.options.retries, self.answers[landing.flight.lane]);
        let decision = judge::row(lane, failure, tries, bounds, decision);
        // What everyone waits for is enough to wait for.
        let waits = matches!(decision, Decision::Again(_) | Decision::Later(_));
        let decision = if is_paused && waits { Decision::Pause(None) } else { decision };
        self.keep_away(landing, failure, slot, (decision, now));
        Some(decision)
    }

    /// What follows for a row whose call was lost with a server of this run's own.
    fn judge_lost(&mut self, landing: &Landing, slot: usize, now: Instant) -> Decision {
        let flight = &landing.flight;
        // The server has died, most likely. A row that was called alone may have killed it; what
        // was under way besides is none of a row's fault, and is asked for one by one.
        self.shared.lanes.lane(flight.lane).health.lost();
        self.ended(landing, slot, Reception::Away { is_overload: false, asked: None }, now);
        if flight.is_probe {
            let tries = self.slots[slot].feed.note(flight.row);
            tries.killed += 1;
            if tries.killed > KILLED_MOST {
                return Decision::GiveUp;
            }
        }
        Decision::Pause(None)
    }

    /// What follows where it is the schema that was refused, or the answer that does not fit it: the
    /// row is asked again, otherwise, and that is none of its retries.
    fn judge_form(&mut self, landing: &Landing, slot: usize) -> Option<Decision> {
        let (lane, row) = (landing.flight.lane, landing.flight.row);
        let failure = landing.result.as_ref().err()?;
        let is_called = self.lines[lane].is_some();
        let tries = self.slots[slot].feed.note(row);
        Some(match judge::misfit(self.shared.lanes.lane(lane), is_called, failure, tries)? {
            Misfit::Refused(FirstToFall(is_first)) => {
                if is_first {
                    self.tell(Happened::SchemaRefused { why: failure.message.clone() });
                }
                Decision::AtOnce
            }
            Misfit::Again => {
                self.slots[slot].correct(row, failure);
                Decision::AtOnce
            }
            Misfit::GiveUp => Decision::GiveUp,
        })
    }

    /// Tells the lane how a call ended, and the others what follows from that. True when the endpoint
    /// is left alone because of it.
    fn ended(
        &mut self,
        landing: &Landing,
        slot: usize,
        reception: Reception,
        now: Instant,
    ) -> bool {
        let flight = &landing.flight;
        if reception == Reception::Answered {
            self.answers[flight.lane] += 1;
        }
        let tries = self.slots[slot].feed.tries(flight.row);
        let (shared, lane) = (self.shared, self.shared.lanes.lane(flight.lane));
        let before = lane.health.limit();
        let Some(follows) = judge::tell(lane, landing, reception, tries, now) else { return false };
        if lane.health.limit() != before {
            shared.gate.set_limit(shared.lanes.limit());
        }
        if follows.has_recovered {
            self.tell(match lane.is_pooled {
                true => Happened::Shown(Event::Back { who: lane.label.clone() }),
                false => Happened::Recovered,
            });
        }
        if follows.has_recovered || follows.wakes {
            shared.gate.wake_all();
        }
        if let Some(trouble) = follows.trouble {
            let message = landing.result.as_ref().err().map(|failure| failure.message.as_str());
            self.trouble(flight.lane, trouble, message.unwrap_or_default(), now);
        }
        follows.trouble.is_some()
    }

    fn trouble(&self, index: LaneIndex, trouble: Trouble, message: &str, now: Instant) {
        let lanes = &self.shared.lanes;
        let lane = lanes.lane(index);
        let why = match lanes.teams() {
            1 => message.to_owned(),
            _ => format!("{}: {message}", self.named(index)),
        };
        match trouble {
            Trouble::Paused(until) if lane.is_pooled => {
                let who = lane.label.clone();
                self.tell(Happened::Shown(Event::LeftAlone { who, until, why }));
            }
            Trouble::Paused(until) => self.tell(Happened::Paused { until, why }),
            Trouble::Down(out) => self.lose(index, StopReason::Outage { out, why }, now),
            Trouble::AsksTooMuch(wait) => {
                self.lose(index, StopReason::AsksTooMuch { wait, why }, now);
            }
        }
    }

    /// A lane was lost that nobody answers in the place of. Where others answer other rows, those go on
    /// for as long as it may come back.
    pub(super) fn lose_alone(&self, lane: LaneIndex, reason: StopReason) {
        let lanes = &self.shared.lanes;
        let is_passing =
            matches!(reason, StopReason::Outage { .. } | StopReason::AsksTooMuch { .. });
        if lanes.teams() == 1 || !is_passing {
            return self.stop(reason);
        }
        lanes.lane(lane).health.give_up();
        let (team, name) = (lanes.team_of(lane), self.named(lane).to_owned());
        self.tell(Happened::Lost { team, name, reason });
    }

    /// What the user calls the model that a lane answers for.
    fn named(&self, lane: LaneIndex) -> &str {
        self.shared.manifest.job.named(self.shared.lanes.team_of(lane))
    }
}
