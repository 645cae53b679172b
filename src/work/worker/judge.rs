//! What follows of a call's end: for its row, for the endpoint, for the run.

use std::time::{Duration, Instant};

use super::Worker;
use crate::job::{Failure, FailureKind};
use crate::policy::{Decision, Trouble, decide};
use crate::telemetry::Event;
use crate::work::attempt::Landing;
use crate::work::lane::LaneIndex;
use crate::work::structured::FirstToFall;
use crate::work::{Happened, StopReason};

/// How often more than a row may be tried its calls may be closed without an answer.
const CLOSED_MOST: u32 = 2;
/// How often a server of this run's own may die of a row that it was called with alone.
const KILLED_MOST: u32 = 2;
/// How often more than a row may be tried it may be called in vain while the endpoint is out.
const OUTAGE_MOST: u32 = 8;

impl Worker<'_> {
    /// What follows of a call's end for its row and for the endpoint; nothing for an answer.
    pub(super) fn judge(
        &mut self,
        landing: &Landing,
        slot: usize,
        now: Instant,
    ) -> Option<Decision> {
        let Err(failure) = &landing.result else {
            self.answered(landing.flight.lane, true);
            return None;
        };
        if let Some(decision) = self.judge_form(landing, slot) {
            self.answered(landing.flight.lane, true);
            return Some(decision);
        }
        let decision = self.judge_failure(landing, failure, slot, now);
        Some(self.rerouted(landing, slot, decision, now))
    }

    fn judge_failure(
        &mut self,
        landing: &Landing,
        failure: &Failure,
        slot: usize,
        now: Instant,
    ) -> Decision {
        let lane = landing.flight.lane;
        let health = &self.shared.lanes.lane(lane).health;
        let (answers, retries) = (self.answers[lane], self.shared.options.retries);
        let feed = &mut self.slots[slot].feed;
        let tries = feed.tries(landing.flight.row);
        let mut decision = decide(failure, tries.counted + 1, retries, fastrand::f64());
        let is_lost = matches!(
            failure.kind,
            FailureKind::Connection
                | FailureKind::Closed
                | FailureKind::Stale
                | FailureKind::BrokenAnswer
        );
        if is_lost && health.is_own() {
            // The server has died, most likely. A row that was called alone may have killed it; what
            // was under way besides is none of a row's fault, and is asked for one by one.
            health.lost();
            let (killed, _) = match landing.flight.is_probe {
                true => feed.closed(landing.flight.row, answers),
                false => (0, false),
            };
            decision = if killed > KILLED_MOST { Decision::GiveUp } else { Decision::Pause(None) };
        } else if matches!(failure.kind, FailureKind::Closed | FailureKind::Stale) {
            // An endpoint that answers others and never this row does so because of the row.
            let (closed, answers_others) = feed.closed(landing.flight.row, answers);
            if closed > retries + CLOSED_MOST && answers_others {
                decision = Decision::GiveUp;
            }
        }
        match (decision, failure.kind) {
            // A certificate that was good may be renewed late; one that never was stays bad.
            (_, FailureKind::Tls) if !health.has_answered() => {
                self.lose(lane, StopReason::Tls { why: failure.message.clone() }, now);
            }
            (Decision::Pause(asked), _) => self.pause(lane, asked, failure, now),
            (Decision::StopRun, _) => self.lose(lane, stop_reason(failure), now),
            (_, FailureKind::Server | FailureKind::Timeout) if failure.retry_after.is_none() => {
                if let Some(trouble) = health.erred(now, tries.made == 0) {
                    self.trouble(lane, trouble, failure, now);
                    // An outage is not the row's fault, unless it goes on with this row for ever.
                    let is_hopeless = tries.made >= retries + OUTAGE_MOST;
                    decision = if is_hopeless { Decision::GiveUp } else { Decision::Pause(None) };
                }
            }
            // A server that is overloaded says so for everyone.
            (Decision::Again(_), _) if failure.retry_after.is_some() => {
                self.pause(lane, failure.retry_after, failure, now);
            }
            _ if failure.status.is_none() => {
                if landing.flight.is_probe {
                    health.forget_probe();
                }
            }
            _ => self.answered(lane, false),
        }
        decision
    }

    /// What follows where it is the schema that was refused, or the answer that does not fit it: the
    /// row is asked again, otherwise, and that is none of its retries.
    fn judge_form(&mut self, landing: &Landing, slot: usize) -> Option<Decision> {
        let lane = landing.flight.lane;
        let form = self.shared.lanes.lane(lane).form.as_ref()?;
        let failure = landing.result.as_ref().err()?;
        match failure.kind {
            FailureKind::SchemaRefused => {
                let FirstToFall(is_first) = form.falls_back()?;
                if is_first {
                    self.tell(Happened::SchemaRefused { why: failure.message.clone() });
                }
                Some(Decision::AtOnce)
            }
            FailureKind::SchemaMismatch => {
                let (row, slot) = (landing.flight.row, &mut self.slots[slot]);
                // A model that repeats its prompt says nothing else the next time.
                let may =
                    self.lines[lane].is_some() && slot.feed.tries(row).misfits < form.retries();
                if may {
                    slot.feed.misfit(row);
                    slot.correct(row, failure);
                }
                Some(if may { Decision::AtOnce } else { Decision::GiveUp })
            }
            _ => None,
        }
    }

    /// A call was answered, well or badly: the endpoint is there.
    fn answered(&mut self, index: LaneIndex, is_answer: bool) {
        self.answers[index] += 1;
        let lane = self.shared.lanes.lane(index);
        if lane.is_pooled {
            lane.standing.answered(is_answer);
        }
        if self.lines[index].is_some() && lane.health.answered() {
            self.tell(match lane.is_pooled {
                true => Happened::Shown(Event::Back { who: lane.label.clone() }),
                false => Happened::Recovered,
            });
            self.shared.gate.wake_all();
        }
    }

    /// Leaves the endpoint alone for a while, or ends the run if that was too long already.
    fn pause(&self, lane: LaneIndex, asked: Option<Duration>, failure: &Failure, now: Instant) {
        let trouble = self.shared.lanes.lane(lane).health.troubled(now, asked);
        self.trouble(lane, trouble, failure, now);
    }

    fn trouble(&self, index: LaneIndex, trouble: Trouble, failure: &Failure, now: Instant) {
        let why = failure.message.clone();
        let lane = self.shared.lanes.lane(index);
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
}

fn stop_reason(failure: &Failure) -> StopReason {
    let why = failure.message.clone();
    match failure.kind {
        FailureKind::Quota => StopReason::Quota { why },
        _ => StopReason::Credentials { why },
    }
}
