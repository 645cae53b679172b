//! What follows of a call's end for a stream: as for the shard workers, but that nobody else can answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{PassedEnd, State};
use crate::job::Failure;
use crate::policy::{self, Decision, Reception, decide};
use crate::provider::Correction;
use crate::telemetry::Event;
use crate::work::StopReason;
use crate::work::attempt::Landing;
use crate::work::judge::{self, Misfit, Unknown};
use crate::work::structured::{FirstToFall, schema_refused};

/// How long an endpoint is left alone until a person is told.
const LONG: Duration = Duration::from_secs(10);

/// What was told of an endpoint that is left alone.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    since: Option<Instant>,
    is_told: bool,
}

impl State<'_> {
    /// What follows of a call's end for its row; nothing for an answer.
    pub(super) fn judge(&mut self, landing: &Landing, now: Instant) -> Option<Decision> {
        let Err(failure) = &landing.result else {
            self.tell(landing, Reception::Answered, now);
            return None;
        };
        let place = landing.flight.row;
        if let Some(decision) = self.judge_form(landing, failure) {
            self.tell(landing, Reception::Answered, now);
            if let Some(row) = self.rows.row(place) {
                row.tries.is_free = true;
            }
            return Some(decision);
        }
        let calls = self.rows.row(place)?.tries.counted() + 1;
        let decision = decide(failure, calls, fastrand::f64());
        if let Some(reason) = judge::stop_reason(self.lane(), failure, decision) {
            self.finish(PassedEnd::Stopped(reason));
        }
        let is_paused = self.tell(landing, judge::reception(landing, failure), now);
        let (lane, tries) = (self.lanes.lane(super::LANE), &mut self.rows.row(place)?.tries);
        match judge::unknown(lane, failure, tries) {
            Some(Unknown::ToAll) => {
                let why = lane.not_found(failure);
                self.finish(PassedEnd::Stopped(StopReason::Unknown { why }));
                return Some(Decision::StopRun);
            }
            Some(Unknown::ToThis(wait)) => return Some(Decision::Later(wait)),
            None => {}
        }
        let bounds = (self.options.retries, self.answers);
        let decision = judge::row(lane, failure, tries, bounds, decision);
        // What everyone waits for is enough to wait for.
        let waits = matches!(decision, Decision::Again(_) | Decision::Later(_));
        Some(if is_paused && waits { Decision::Pause(None) } else { decision })
    }

    /// What follows where it is the schema that was refused, or the answer that does not fit it.
    fn judge_form(&mut self, landing: &Landing, failure: &Failure) -> Option<Decision> {
        let (lane, is_called) = (self.lanes.lane(super::LANE), self.line.is_some());
        let row = self.rows.row(landing.flight.row)?;
        Some(match judge::misfit(lane, is_called, failure, &mut row.tries)? {
            Misfit::Refused(FirstToFall(is_first)) => {
                if is_first {
                    self.sink.emit(&schema_refused(&failure.message));
                }
                Decision::AtOnce
            }
            Misfit::Again => {
                row.correction = Some(Arc::new(Correction::of(failure)));
                Decision::AtOnce
            }
            Misfit::GiveUp => Decision::GiveUp,
        })
    }

    /// Tells the lane how a call ended, and people what follows from that. True when the endpoint is left
    /// alone because of it.
    fn tell(&mut self, landing: &Landing, reception: Reception, now: Instant) -> bool {
        self.answers += u64::from(reception == Reception::Answered);
        let tries = self.rows.row(landing.flight.row).map(|row| row.tries).unwrap_or_default();
        let follows = judge::tell(self.lane(), landing, reception, tries, now);
        let Some(follows) = follows else { return false };
        if follows.has_recovered {
            self.sink.emit(&Event::Recovered);
            if std::mem::take(&mut self.trouble).is_told {
                self.sink.emit(&Event::Note("the endpoint answers again".to_owned()));
            }
        }
        let Some(trouble) = follows.trouble else { return false };
        let why = landing.result.as_ref().err().map(|failure| failure.message.clone());
        let why = why.unwrap_or_default();
        match trouble {
            policy::Trouble::Paused(until) => self.pause(until, why, now),
            policy::Trouble::Down(out) => {
                self.finish(PassedEnd::Stopped(StopReason::Outage { out, why }));
            }
            policy::Trouble::AsksTooMuch(wait) => {
                self.finish(PassedEnd::Stopped(StopReason::AsksTooMuch { wait, why }));
            }
        }
        true
    }

    /// The endpoint is left alone until then. There are no bars that would show that nothing happens.
    fn pause(&mut self, until: Instant, why: String, now: Instant) {
        let since = *self.trouble.since.get_or_insert(now);
        let is_long = until.saturating_duration_since(since) >= LONG;
        if is_long && !std::mem::replace(&mut self.trouble.is_told, true) {
            let text = format!("the endpoint is left alone and tried again now and then: {why}");
            self.sink.emit(&Event::Warning(text));
        }
        self.sink.emit(&Event::Paused { until, why });
    }
}
