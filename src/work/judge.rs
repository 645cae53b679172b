//! What follows of a call's end for its row and for its lane, whoever made it: shard workers and streams
//! judge alike. What a failure means is decided by [`crate::policy::verdict`]; here stands what is known.

use std::time::Instant;

use super::StopReason;
use super::attempt::Landing;
use super::lane::Lane;
use super::structured::FirstToFall;
use crate::job::{Failure, FailureKind};
use crate::policy::{
    AbortCause, Ended, EndpointSignal, FailureFacts, Follows, SchemaFacts, Tries, Verdict,
    endpoint_signal, is_connection_lost, is_unknown, verdict,
};

/// Tells a lane how a call ended, and what follows from that; nothing where none was made.
pub(super) fn tell(
    lane: &Lane,
    landing: &Landing,
    signal: EndpointSignal,
    (tries, answers): (Tries, u64),
    now: Instant,
) -> Option<Follows> {
    let permit = landing.flight.permit.as_ref()?;
    let used = landing.attempt.usage.map(|usage| (usage.input_tokens, usage.output_tokens));
    let is_first = tries.failed.count + tries.unusable + tries.misfits == 0;
    let is_suspect = tries.is_suspect(answers);
    let failed_before = tries.last_failed.map(|(at, _)| at);
    let ended = Ended { signal, is_first, failed_before, is_suspect, used, told: landing.told };
    let follows = lane.health.ended(now, permit, &ended);
    if signal == EndpointSignal::Answered {
        lane.standing.answered(landing.result.is_ok());
    }
    Some(follows)
}

/// How a lane took a call that failed. A server of this run's own has died, most likely, where a connection
/// was lost.
pub(super) fn signal(lane: &Lane, failure: &Failure) -> EndpointSignal {
    if lane.health.is_own() && is_connection_lost(failure.kind) {
        lane.health.lost();
        return EndpointSignal::Away;
    }
    endpoint_signal(failure)
}

/// What judging one failure needs besides the failure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances {
    /// What became of the row's calls before.
    pub(super) tries: Tries,
    /// Answers that the caller had through the lane.
    pub(super) answers: u64,
    /// How often a row is tried again.
    pub(super) retries: u32,
    /// Whether the model is called, or repeats its prompt.
    pub(super) is_called: bool,
    /// When the call ended.
    pub(super) now: Instant,
}

/// What a failure came to.
pub(super) struct Judged {
    /// What is done about the row.
    pub(super) verdict: Verdict,
    /// What is noted of it.
    pub(super) tries: Tries,
    /// Whether it is the first one whose schema was refused, where it was.
    pub(super) schema_refused: Option<FirstToFall>,
}

/// What a failure means, once the lane was told of it.
pub(super) fn judge(
    lane: &Lane,
    landing: &Landing,
    failure: &Failure,
    it: &Circumstances,
) -> Judged {
    let tries = it.tries;
    let mut endpoint = lane.health.facts(&tries);
    endpoint.answers = it.answers;
    endpoint.is_known |= lane.standing.is_known();
    let is_denied = failure.kind == FailureKind::Credentials
        || failure.kind == FailureKind::Quota && failure.status == Some(402);
    endpoint.denied_rows = match is_denied && tries.denied == 0 {
        true => lane.standing.note_denied(),
        false => lane.standing.denied_rows(),
    };
    endpoint.unknown_rows = match is_unknown(failure.kind) && tries.made == 0 {
        true => lane.standing.note_unknown(),
        false => lane.standing.unknown_rows(),
    };
    let form = lane.form.as_ref();
    let is_refused = failure.kind == FailureKind::SchemaRefused;
    let schema_refused = form.filter(|_| is_refused).and_then(|form| form.falls_back());
    let schema = form.map(|form| SchemaFacts {
        retries: if it.is_called { form.retries() } else { 0 },
        falls_back: schema_refused.is_some(),
    });
    let (verdict, tries) = verdict(&FailureFacts {
        failure,
        tries,
        now: it.now,
        random: fastrand::f64(),
        retries: it.retries,
        is_probe: landing.flight.is_probe,
        schema,
        endpoint,
    });
    Judged { verdict, tries, schema_refused }
}

/// Why a run ends.
pub(super) fn stop_reason(lane: &Lane, cause: AbortCause, failure: &Failure) -> StopReason {
    let why = failure.message.clone();
    match cause {
        AbortCause::Credentials => StopReason::Credentials { why },
        AbortCause::Quota => StopReason::Quota { why },
        AbortCause::Tls => StopReason::Tls { why },
        AbortCause::UnknownModel => StopReason::Unknown { why: lane.not_found(failure) },
    }
}
