//! What follows of a call's end: for its row, for the endpoint, for the run.

use std::time::Instant;

use super::Worker;
use crate::job::FailureKind;
use crate::policy::{EndpointSignal, Trouble, Verdict};
use crate::telemetry::Event;
use crate::work::attempt::Landing;
use crate::work::judge::{self, Circumstances, Judged};
use crate::work::lane::LaneIndex;
use crate::work::structured::FirstToFall;
use crate::work::{Happened, StopReason};

impl Worker<'_> {
    /// What follows of a call's end for its row and for the endpoint; nothing for an answer.
    pub(super) fn judge(
        &mut self,
        landing: &Landing,
        slot: usize,
        now: Instant,
    ) -> Option<Verdict> {
        let Err(failure) = &landing.result else {
            self.ended(landing, slot, EndpointSignal::Answered, now);
            return None;
        };
        let (index, row) = (landing.flight.lane, landing.flight.row);
        let lane = self.shared.lanes.lane(index);
        self.ended(landing, slot, judge::signal(lane, failure), now);
        if let Some(verdict) = self.elsewhere(landing, failure, slot, now) {
            return Some(verdict);
        }
        let it = Circumstances {
            tries: self.slots[slot].feed.tries(row),
            answers: self.answers[index],
            retries: self.shared.options.retries,
            is_called: self.lines[index].is_some(),
            now,
        };
        let Judged { verdict, tries, schema_refused } = judge::judge(lane, landing, failure, &it);
        *self.slots[slot].feed.note(row) = tries;
        if let Some(FirstToFall(true)) = schema_refused {
            self.tell(Happened::SchemaRefused { why: failure.message.clone() });
        }
        if failure.kind == FailureKind::SchemaMismatch && verdict == Verdict::RetryNow {
            self.slots[slot].correct(row, failure);
        }
        if let Verdict::AbortRun(cause) = verdict {
            self.lose(index, judge::stop_reason(lane, cause, failure), now);
        }
        self.keep_away(landing, failure, slot, (verdict, now));
        Some(verdict)
    }

    /// Tells the lane how a call ended, and the others what follows from that.
    fn ended(&mut self, landing: &Landing, slot: usize, signal: EndpointSignal, now: Instant) {
        let flight = &landing.flight;
        if signal == EndpointSignal::Answered {
            self.answers[flight.lane] += 1;
        }
        let tries = self.slots[slot].feed.tries(flight.row);
        let (shared, lane) = (self.shared, self.shared.lanes.lane(flight.lane));
        let tries = (tries, self.answers[flight.lane]);
        let Some(follows) = judge::tell(lane, landing, signal, tries, now) else { return };
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
            Trouble::Down(out) if lane.health.was_reached() => {
                self.lose(index, StopReason::Outage { out, why }, now);
            }
            Trouble::Down(out) => self.lose(index, StopReason::Unreachable { out, why }, now),
            Trouble::AsksTooMuch(wait) => {
                self.lose(index, StopReason::AsksTooMuch { wait, why }, now);
            }
        }
    }

    /// A lane was lost that nobody answers in the place of. Where others answer other rows, those go on
    /// for as long as it may come back.
    pub(super) fn lose_alone(&self, lane: LaneIndex, reason: StopReason) {
        let lanes = &self.shared.lanes;
        let is_passing = reason.is_passing();
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
