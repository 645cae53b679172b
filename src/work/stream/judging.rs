//! What follows of a call's end for a stream: as for the shard workers, but that nobody else can answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{PassedEnd, State};
use crate::job::FailureKind;
use crate::policy::{self, EndpointSignal, Verdict};
use crate::provider::Correction;
use crate::telemetry::Event;
use crate::work::StopReason;
use crate::work::attempt::Landing;
use crate::work::judge::{self, Circumstances, Judged};
use crate::work::structured::{FirstToFall, schema_refused as warn_schema_refused};

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
    pub(super) fn judge(&mut self, landing: &Landing, now: Instant) -> Option<Verdict> {
        let Err(failure) = &landing.result else {
            self.tell(landing, EndpointSignal::Answered, now);
            return None;
        };
        let place = landing.flight.row;
        self.tell(landing, judge::signal(self.lane(), failure), now);
        let it = Circumstances {
            tries: self.rows.row(place)?.tries,
            answers: self.answers,
            retries: self.options.retries,
            is_called: self.line.is_some(),
            now,
        };
        let Judged { verdict, tries, schema_refused } =
            judge::judge(self.lane(), landing, failure, &it);
        let row = self.rows.row(place)?;
        row.tries = tries;
        if failure.kind == FailureKind::SchemaMismatch && verdict == Verdict::RetryNow {
            row.correction = Some(Arc::new(Correction::of(failure)));
        }
        if let Some(FirstToFall(true)) = schema_refused {
            self.sink.emit(&warn_schema_refused(&failure.message));
        }
        if let Verdict::AbortRun(cause) = verdict {
            let reason = judge::stop_reason(self.lane(), cause, failure);
            self.finish(PassedEnd::Stopped(reason));
        }
        Some(verdict)
    }

    /// Tells the lane how a call ended, and people what follows from that.
    fn tell(&mut self, landing: &Landing, signal: EndpointSignal, now: Instant) {
        self.answers += u64::from(signal == EndpointSignal::Answered);
        let tries = self.rows.row(landing.flight.row).map(|row| row.tries).unwrap_or_default();
        let tries = (tries, self.answers);
        let Some(follows) = judge::tell(self.lane(), landing, signal, tries, now) else { return };
        if follows.has_recovered {
            self.sink.emit(&Event::Recovered);
            if std::mem::take(&mut self.trouble).is_told {
                self.sink.emit(&Event::Note("the endpoint answers again".to_owned()));
            }
        }
        let Some(trouble) = follows.trouble else { return };
        let why = landing.result.as_ref().err().map(|failure| failure.message.clone());
        let why = why.unwrap_or_default();
        match trouble {
            policy::Trouble::Paused(until) => self.pause(until, why, now),
            policy::Trouble::Down(out) => {
                let was_reached = self.lane().health.was_reached();
                self.finish(PassedEnd::Stopped(match was_reached {
                    true => StopReason::Outage { out, why },
                    false => StopReason::Unreachable { out, why },
                }));
            }
            policy::Trouble::AsksTooMuch(wait) => {
                self.finish(PassedEnd::Stopped(StopReason::AsksTooMuch { wait, why }));
            }
        }
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
