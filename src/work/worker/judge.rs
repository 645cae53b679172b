//! What follows of a call's end: for its row, for the endpoint, for the run.

use std::time::Instant;

use super::Worker;
use crate::job::{Failure, FailureKind};
use crate::policy::{Blame, Decision, Ended, Reception, Trouble, backoff, decide, retries_of};
use crate::telemetry::Event;
use crate::work::attempt::Landing;
use crate::work::lane::LaneIndex;
use crate::work::structured::FirstToFall;
use crate::work::{Happened, StopReason};

/// How often more than a row may be tried its calls may be refused, or closed without an answer.
const SHUT_MOST: u32 = 2;
/// How often a server of this run's own may die of a row that it was called with alone.
const KILLED_MOST: u32 = 2;

/// How often a row is tried again whose model is not known, while nothing else is known of the endpoint.
const UNKNOWN_TRIES: u32 = 2;

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
        let health = &self.shared.lanes.lane(landing.flight.lane).health;
        // A certificate that was good may be renewed late; one that never was stays bad.
        if failure.kind == FailureKind::Tls && !health.has_answered() {
            let why = failure.message.clone();
            self.lose(landing.flight.lane, StopReason::Tls { why }, now);
        }
        let tries = self.slots[slot].feed.tries(landing.flight.row);
        let calls = tries.failed.count + tries.unusable + tries.refused + 1;
        let decision = decide(failure, calls, fastrand::f64());
        if decision == Decision::StopRun {
            self.lose(landing.flight.lane, stop_reason(failure), now);
        }
        let is_lost = matches!(
            failure.kind,
            FailureKind::Connection
                | FailureKind::Closed
                | FailureKind::Stale
                | FailureKind::BrokenAnswer
        );
        if is_lost && health.is_own() {
            return Some(self.judge_lost(landing, slot, now));
        }
        let is_paused = self.ended(landing, slot, reception(landing, failure), now);
        if let Some(decision) = self.elsewhere(landing, failure, slot, now) {
            return Some(decision);
        }
        if failure.kind == FailureKind::NotFound
            && let Some(decision) = self.judge_unknown(landing, slot, failure, now)
        {
            return Some(decision);
        }
        let decision = self.judge_row(landing, slot, failure, decision);
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

    /// What follows for a row whose model, or the path to it, is not known to an endpoint that has not
    /// answered any: most likely it knows none, and the run ends before all of them have failed of a
    /// slip of the pen. Nothing where that is the row's own.
    fn judge_unknown(
        &mut self,
        landing: &Landing,
        slot: usize,
        failure: &Failure,
        now: Instant,
    ) -> Option<Decision> {
        let flight = &landing.flight;
        let standing = &self.shared.lanes.lane(flight.lane).standing;
        let tries = self.slots[slot].feed.tries(flight.row);
        if standing.has_answered() || tries.refused >= UNKNOWN_TRIES {
            return None;
        }
        if tries.made == 0 && standing.is_unknown() {
            let why = failure.message.clone();
            self.lose(flight.lane, StopReason::Unknown { why }, now);
            return Some(Decision::StopRun);
        }
        // Others will show whose trouble it is.
        self.slots[slot].feed.note(flight.row).refused += 1;
        Some(Decision::Later(backoff(tries.refused, fastrand::f64())))
    }

    /// What follows for the row of a call that failed: whether it may be tried again.
    fn judge_row(
        &mut self,
        landing: &Landing,
        slot: usize,
        failure: &Failure,
        decision: Decision,
    ) -> Decision {
        let (lane, row) = (landing.flight.lane, landing.flight.row);
        let retries = self.shared.options.retries;
        let feed = &mut self.slots[slot].feed;
        let is_shut = matches!(
            failure.kind,
            FailureKind::Closed | FailureKind::Stale | FailureKind::RateLimit
        );
        if is_shut && failure.retry_after.is_none() {
            // An endpoint that lets others in and never this row does so because of the row.
            let answers_others = feed.shut_out(row, self.answers[lane]);
            let tries = feed.note(row);
            tries.shut = self.shared.lanes.lane(lane).health.add_refused(tries.shut);
            if answers_others && Blame::is_rows_own(tries.shut, retries + SHUT_MOST) {
                return Decision::GiveUp;
            }
        }
        let tries = feed.note(row);
        tries.is_free = decision == Decision::AtOnce;
        match decision {
            Decision::Again(_) if is_unusable(failure.kind) => {
                tries.unusable += 1;
                if tries.unusable > retries_of(failure.kind, retries) {
                    return Decision::GiveUp;
                }
            }
            Decision::Again(_) => {
                tries.failed = self.shared.lanes.lane(lane).health.add(tries.failed);
                if Blame::is_rows_own(tries.failed, retries) {
                    return Decision::GiveUp;
                }
            }
            Decision::Later(_) => tries.refused += 1,
            _ => {}
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
                    slot.feed.note(row).misfits += 1;
                    slot.correct(row, failure);
                }
                Some(if may { Decision::AtOnce } else { Decision::GiveUp })
            }
            _ => None,
        }
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
        let Some(permit) = &flight.permit else { return false };
        let tries = self.slots[slot].feed.tries(flight.row);
        let used = landing.attempt.usage.map(|usage| (usage.input_tokens, usage.output_tokens));
        let is_first = tries.failed.count + tries.unusable + tries.misfits == 0;
        let ended = Ended { reception, is_first, used, told: landing.told };
        let (shared, health) = (self.shared, &self.shared.lanes.lane(flight.lane).health);
        let before = health.limit();
        let follows = health.ended(now, permit, &ended);
        if health.limit() != before {
            shared.gate.set_limit(shared.lanes.limit());
        }
        let lane = shared.lanes.lane(flight.lane);
        if reception == Reception::Answered {
            lane.standing.answered(landing.result.is_ok());
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

/// Answers that were paid for and cannot be used: no failures of the endpoint's.
fn is_unusable(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::BadResponse | FailureKind::EmptyAnswer)
}

/// How an endpoint took a call that failed.
fn reception(landing: &Landing, failure: &Failure) -> Reception {
    let (is_overload, asked) = (landing.is_overload, failure.retry_after);
    match failure.kind {
        FailureKind::Connection | FailureKind::Tls => Reception::Away { is_overload, asked },
        FailureKind::RateLimit if asked.is_some() => Reception::Away { is_overload, asked },
        FailureKind::RateLimit | FailureKind::Closed => Reception::Refused { is_overload },
        FailureKind::Server | FailureKind::Timeout | FailureKind::BrokenAnswer => {
            Reception::Failed { is_overload, asked }
        }
        FailureKind::Stale | FailureKind::Credentials | FailureKind::Quota => Reception::Unknown,
        _ if failure.status.is_none() => Reception::Unknown,
        _ => Reception::Answered,
    }
}

fn stop_reason(failure: &Failure) -> StopReason {
    let why = failure.message.clone();
    match failure.kind {
        FailureKind::Quota => StopReason::Quota { why },
        _ => StopReason::Credentials { why },
    }
}
