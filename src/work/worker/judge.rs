//! What follows of a call's end: for its row, for the endpoint, for the run.

use std::time::{Duration, Instant};

use super::Worker;
use crate::job::{Failure, FailureKind};
use crate::policy::{Decision, Trouble, decide};
use crate::work::attempt::Landing;
use crate::work::{Happened, StopReason};

/// How often more than a row may be tried its calls may be closed without an answer.
const CLOSED_MOST: u32 = 2;
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
        let health = &self.shared.health;
        let decision = landing.result.as_ref().err().map(|failure| {
            let (row, feed) = (landing.flight.row, &mut self.slots[slot].feed);
            let (tries, retries) = (feed.tries(row), self.shared.options.retries);
            if matches!(failure.kind, FailureKind::Closed | FailureKind::Stale) {
                // An endpoint that answers others and never this row does so because of the row.
                let (closed, answers_others) = feed.closed(row, self.answers);
                if closed > retries + CLOSED_MOST && answers_others {
                    return (Decision::GiveUp, failure);
                }
            }
            let decision = decide(failure, tries.counted + 1, retries, fastrand::f64());
            (decision, failure)
        });
        if let Some((Decision::Again(_) | Decision::GiveUp, failure)) = decision
            && matches!(failure.kind, FailureKind::Server | FailureKind::Timeout)
            && failure.retry_after.is_none()
        {
            let made = self.slots[slot].feed.tries(landing.flight.row).made;
            if let Some(trouble) = health.erred(now, made == 0) {
                self.trouble(trouble, failure);
                // An outage is not the row's fault, unless it goes on with this row for ever.
                let is_hopeless = made >= self.shared.options.retries + OUTAGE_MOST;
                return if is_hopeless {
                    Some(Decision::GiveUp)
                } else {
                    Some(Decision::Pause(None))
                };
            }
            return decision.map(|(decision, _)| decision);
        }
        match decision {
            // A certificate that was good may be renewed late; one that never was stays bad.
            Some((_, failure)) if failure.kind == FailureKind::Tls && !health.has_answered() => {
                self.stop(StopReason::Tls { why: failure.message.clone() });
            }
            Some((Decision::Pause(asked), failure)) => self.pause(asked, failure, now),
            Some((Decision::StopRun, failure)) => self.stop(stop_reason(failure)),
            // A server that is overloaded says so for everyone.
            Some((Decision::Again(_), failure)) if failure.retry_after.is_some() => {
                self.pause(failure.retry_after, failure, now);
            }
            Some((_, failure)) if failure.status.is_none() => {
                if landing.flight.is_probe {
                    health.forget_probe();
                }
            }
            _ => {
                self.answers += 1;
                if self.line.is_some() && health.answered() {
                    self.tell(Happened::Recovered);
                    self.shared.gate.wake_all();
                }
            }
        }
        decision.map(|(decision, _)| decision)
    }

    /// Leaves the endpoint alone for a while, or ends the run if that was too long already.
    fn pause(&self, asked: Option<Duration>, failure: &Failure, now: Instant) {
        self.trouble(self.shared.health.troubled(now, asked), failure);
    }

    fn trouble(&self, trouble: Trouble, failure: &Failure) {
        let why = failure.message.clone();
        match trouble {
            Trouble::Paused(until) => self.tell(Happened::Paused { until, why }),
            Trouble::Down(out) => self.stop(StopReason::Outage { out, why }),
            Trouble::AsksTooMuch(wait) => self.stop(StopReason::AsksTooMuch { wait, why }),
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
