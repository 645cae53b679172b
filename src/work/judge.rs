//! What follows of a call's end for its row and for its lane, whoever made it: shard workers and streams
//! judge alike. Nothing here knows where rows come from or what becomes of them.

use std::time::{Duration, Instant};

use super::StopReason;
use super::attempt::Landing;
use super::feed::Tries;
use super::lane::Lane;
use super::structured::FirstToFall;
use crate::job::{Failure, FailureKind};
use crate::policy::{Blame, Decision, Ended, Follows, Reception, backoff, retries_of};

/// How often more than a row may be tried its calls may be refused, or closed without an answer.
const SHUT_MOST: u32 = 2;

/// How often a row is tried again whose model is not known, while nothing else is known of the endpoint.
const UNKNOWN_TRIES: u32 = 2;

/// What follows where it is the schema that was refused, or the answer that does not fit it.
pub(super) enum Misfit {
    /// The schema was refused: the row is asked again with the schema in its instruction, and whether this
    /// is the first one to which that happened.
    Refused(FirstToFall),
    /// The row is asked again, and told what was wrong.
    Again,
    /// It has failed for good.
    GiveUp,
}

/// What follows where it is the schema that was refused, or the answer that does not fit it: that is none
/// of a row's retries. Nothing where it is something else.
pub(super) fn misfit(
    lane: &Lane,
    is_called: bool,
    failure: &Failure,
    tries: &mut Tries,
) -> Option<Misfit> {
    let form = lane.form.as_ref()?;
    match failure.kind {
        FailureKind::SchemaRefused => form.falls_back().map(Misfit::Refused),
        FailureKind::SchemaMismatch => {
            // A model that repeats its prompt says nothing else the next time.
            let may = is_called && tries.misfits < form.retries();
            tries.misfits += u32::from(may);
            Some(if may { Misfit::Again } else { Misfit::GiveUp })
        }
        _ => None,
    }
}

/// Tells a lane how a call ended, and what follows from that; nothing where none was made.
pub(super) fn tell(
    lane: &Lane,
    landing: &Landing,
    reception: Reception,
    tries: Tries,
    now: Instant,
) -> Option<Follows> {
    let permit = landing.flight.permit.as_ref()?;
    let used = landing.attempt.usage.map(|usage| (usage.input_tokens, usage.output_tokens));
    let is_first = tries.failed.count + tries.unusable + tries.misfits == 0;
    let ended = Ended { reception, is_first, used, told: landing.told };
    let follows = lane.health.ended(now, permit, &ended);
    if reception == Reception::Answered {
        lane.standing.answered(landing.result.is_ok());
    }
    Some(follows)
}

/// What follows for a row whose model, or the path to it, is not known.
pub(super) enum Unknown {
    /// No row's is: the lane is lost.
    ToAll,
    /// Others will show whose trouble it is: the row is tried again after this time.
    ToThis(Duration),
}

/// What follows for a row whose model, or the path to it, is not known to an endpoint, or is elsewhere, or
/// whose answer is coded in a way that is not read, where the endpoint has not answered any, in no session: most likely it knows none, and the run ends before all of them have failed of a
/// slip of the pen. Nothing where that is the row's own.
pub(super) fn unknown(lane: &Lane, failure: &Failure, tries: &mut Tries) -> Option<Unknown> {
    let is_its_own = lane.standing.is_known() || tries.refused >= UNKNOWN_TRIES;
    let is_of_all = matches!(
        failure.kind,
        FailureKind::NotFound | FailureKind::Redirect | FailureKind::UnknownCoding
    );
    if !is_of_all || is_its_own {
        return None;
    }
    if tries.made == 0 && lane.standing.is_unknown() {
        return Some(Unknown::ToAll);
    }
    let wait = backoff(tries.refused, fastrand::f64());
    tries.refused += 1;
    Some(Unknown::ToThis(wait))
}

/// What follows for the row of a call that failed, after what the failure calls for: whether it may be
/// tried again. `answers` is how many of the caller's calls through the lane were answered so far.
pub(super) fn row(
    lane: &Lane,
    failure: &Failure,
    tries: &mut Tries,
    (retries, answers): (u32, u64),
    decision: Decision,
) -> Decision {
    let is_shut =
        matches!(failure.kind, FailureKind::Closed | FailureKind::Stale | FailureKind::RateLimit);
    if is_shut && failure.retry_after.is_none() {
        // An endpoint that lets others in and never this row does so because of the row.
        let answers_others = tries.shut_out(answers);
        tries.shut = lane.health.add_refused(tries.shut);
        if answers_others && Blame::is_rows_own(tries.shut, retries + SHUT_MOST) {
            return Decision::GiveUp;
        }
    }
    tries.is_free = decision == Decision::AtOnce;
    match decision {
        Decision::Again(_) if is_unusable(failure.kind) => {
            tries.unusable += 1;
            if tries.unusable > retries_of(failure.kind, retries) {
                return Decision::GiveUp;
            }
        }
        Decision::Again(_) => {
            tries.failed = lane.health.add(tries.failed);
            if Blame::is_rows_own(tries.failed, retries) {
                return Decision::GiveUp;
            }
        }
        Decision::Later(_) => tries.refused += 1,
        _ => {}
    }
    decision
}

/// Answers that were paid for and cannot be used: no failures of the endpoint's.
fn is_unusable(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::BadResponse | FailureKind::EmptyAnswer)
}

/// How an endpoint took a call that failed.
pub(super) fn reception(landing: &Landing, failure: &Failure) -> Reception {
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

/// Why a failure ends a run whatever else it does, given what the failure calls for.
pub(super) fn stop_reason(
    lane: &Lane,
    failure: &Failure,
    decision: Decision,
) -> Option<StopReason> {
    let why = || failure.message.clone();
    match failure.kind {
        // A certificate that was good may be renewed late; one that never was stays bad.
        FailureKind::Tls if !lane.health.has_answered() => Some(StopReason::Tls { why: why() }),
        FailureKind::Quota if decision == Decision::StopRun => {
            Some(StopReason::Quota { why: why() })
        }
        _ if decision == Decision::StopRun => Some(StopReason::Credentials { why: why() }),
        _ => None,
    }
}
