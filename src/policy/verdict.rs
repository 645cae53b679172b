//! What a failed call means for its row, for the endpoint and for the run: one function, so that every
//! decision about a failure stands in one place.

use std::time::{Duration, Instant};

use super::retry::{retries_of, retry_wait};
use super::{Blame, EndpointSignal, Tried, backoff};
use crate::job::{Failure, FailureKind};

/// What is done about a row whose call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The row is tried again after this time; the call counts against it.
    RetryAfter(Duration),
    /// The row is tried again at once; the call does not count against it.
    RetryNow,
    /// The row is tried again after this time; the call does not count against it.
    Defer(Duration),
    /// The endpoint is left alone, and the row waits until it is called again; the call does not count.
    OpenCircuit,
    /// The row has failed for good.
    FailRow,
    /// Nothing can succeed: the run ends, and its rows stay as they are.
    AbortRun(AbortCause),
}

/// Why nothing can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortCause {
    /// The endpoint refuses the key.
    Credentials,
    /// The account has no quota or credit left.
    Quota,
    /// No encrypted connection could ever be made.
    Tls,
    /// The endpoint answers no row: see [`is_unknown`].
    UnknownModel,
}

/// How often a row was tried in this session, and what became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tries {
    /// Calls made.
    pub made: u32,
    /// Calls that failed as a row's calls do, whoever is to blame.
    pub failed: Tried,
    /// Calls that were refused or closed without an answer, whoever is to blame.
    pub shut: Tried,
    /// Answers that could not be used.
    pub unusable: u32,
    /// Calls that were deferred.
    pub deferred: u32,
    /// Answers that did not fit their schema.
    pub misfits: u32,
    /// Calls with which a server of this run's own was lost that was called with this row alone.
    pub killed: u32,
    /// Calls for which the key was refused.
    pub denied: u32,
    /// When it failed first, and how many answers others had then.
    pub first_failed: Option<(Instant, u64)>,
    /// When it failed last, and how many answers others had then.
    pub last_failed: Option<(Instant, u64)>,
}

impl Tries {
    /// Calls that make the next wait longer.
    #[must_use]
    pub fn counted(&self) -> u32 {
        self.failed.count + self.shut.count + self.unusable + self.deferred + self.denied
    }

    /// Whether others were answered since it failed first, where there were so many answers by now.
    #[must_use]
    pub fn others_answered(&self, answers: u64) -> bool {
        self.first_failed.is_some_and(|(_, then)| answers > then)
    }

    /// Whether the row may be what its calls fail by: it failed twice, and others were answered since it
    /// did last. Answers that were on their way when an outage began come only once.
    #[must_use]
    pub fn is_suspect(&self, answers: u64) -> bool {
        let failed = self.failed.count + self.shut.count + self.deferred + self.denied;
        failed >= 2 && self.last_failed.is_some_and(|(_, then)| answers > then)
    }
}

/// What is known where a call has failed.
#[derive(Debug, Clone, Copy)]
pub struct FailureFacts<'a> {
    /// How it failed.
    pub failure: &'a Failure,
    /// What became of the row's calls before.
    pub tries: Tries,
    /// When it failed.
    pub now: Instant,
    /// A number in `0.0..1.0`.
    pub random: f64,
    /// How often a row may be tried again.
    pub retries: u32,
    /// Whether the call showed if the endpoint is back.
    pub is_probe: bool,
    /// The schema that answers must fit, if there is one.
    pub schema: Option<SchemaFacts>,
    /// The endpoint, after it was told of the failure.
    pub endpoint: EndpointFacts,
}

/// What is known of the schema of answers.
#[derive(Debug, Clone, Copy)]
pub struct SchemaFacts {
    /// How often an answer that does not fit may be asked for again.
    pub retries: u32,
    /// Whether the schema can be told in the instruction instead.
    pub falls_back: bool,
}

/// What is known of the endpoint of a call that failed.
#[derive(Debug, Clone, Copy)]
pub struct EndpointFacts {
    /// Answers that its caller had in this session.
    pub answers: u64,
    /// Whether anybody had one in this session.
    pub has_answered: bool,
    /// Whether anybody had one, in this session or an earlier one.
    pub is_known: bool,
    /// Whether it is a server of this run's own, which is started again when it dies.
    pub is_own: bool,
    /// Whether it is left alone now.
    pub is_paused: bool,
    /// Whether other calls are in flight.
    pub is_busy: bool,
    /// Whether refusals are known not to follow the load.
    pub is_load_cleared: bool,
    /// Rows in a row for which the key was refused, with no answer in between.
    pub denied_rows: u32,
    /// Rows in a row whose model was not found, with no answer in between.
    pub unknown_rows: u32,
    /// The row's failed tries and its refused ones with this one added.
    pub failed: Tried,
    /// The same of those that were refused.
    pub shut: Tried,
}

/// How often more than a row may be tried its calls may be refused, or closed without an answer.
const SHUT_MOST: u32 = 2;
/// A row that is refused alone for so long, with nobody else to compare with, has failed.
const ALONE_MOST: Duration = Duration::from_secs(120);
/// How often a row is tried again whose model is not known, while nothing else is known of the endpoint.
const UNKNOWN_TRIES: u32 = 2;
/// So many rows in a row that the model is not known for show that it is not there.
const UNKNOWN_ROWS: u32 = 3;
/// So many rows in a row for which the key is refused show that it is: before an answer, and after one.
const DENIED_ROWS: (u32, u32) = (3, 8);
/// How often a row is called for whose key is refused while others are answered.
const DENIED_MOST: u32 = 3;
/// How often a server of this run's own may die of a row that it was called with alone.
const KILLED_MOST: u32 = 2;

/// How an endpoint took a call that failed.
#[must_use]
pub fn endpoint_signal(failure: &Failure) -> EndpointSignal {
    let asked = failure.retry_after;
    match failure.kind {
        FailureKind::Connection | FailureKind::Tls => EndpointSignal::Away,
        FailureKind::RateLimit | FailureKind::Closed => EndpointSignal::Refused { asked },
        FailureKind::Server | FailureKind::Timeout | FailureKind::BrokenAnswer => {
            EndpointSignal::Failed { asked }
        }
        FailureKind::Stale | FailureKind::Credentials | FailureKind::Quota => {
            EndpointSignal::Unknown
        }
        FailureKind::SchemaMismatch | FailureKind::SchemaRefused => EndpointSignal::Answered,
        _ if failure.status.is_none() => EndpointSignal::Unknown,
        _ => EndpointSignal::Answered,
    }
}

/// Whether a connection was lost before an answer was whole.
#[must_use]
pub fn is_connection_lost(kind: FailureKind) -> bool {
    use FailureKind as K;
    matches!(kind, K::Connection | K::Closed | K::Stale | K::BrokenAnswer)
}

/// Whether no row may be answered: the endpoint does not know the path or the model, points to another
/// place, or codes its answers in a way that is not read.
#[must_use]
pub fn is_unknown(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::NotFound | FailureKind::Redirect | FailureKind::UnknownCoding)
}

/// Decides what a failed call means, and what is noted of its row.
#[must_use]
pub fn verdict(facts: &FailureFacts<'_>) -> (Verdict, Tries) {
    let mut tries = facts.tries;
    tries.first_failed.get_or_insert((facts.now, facts.endpoint.answers));
    tries.last_failed = Some((facts.now, facts.endpoint.answers));
    (decide(facts, &mut tries), tries)
}

fn decide(facts: &FailureFacts<'_>, tries: &mut Tries) -> Verdict {
    use FailureKind as K;
    let (kind, endpoint) = (facts.failure.kind, &facts.endpoint);
    if endpoint.is_own && is_connection_lost(kind) {
        return own_server_lost(facts, tries);
    }
    match kind {
        K::SchemaRefused if facts.schema.is_some_and(|it| it.falls_back) => Verdict::RetryNow,
        K::SchemaMismatch => match facts.schema {
            // A model that repeats its prompt says nothing else the next time.
            Some(schema) if tries.misfits < schema.retries => {
                tries.misfits += 1;
                Verdict::RetryNow
            }
            _ => Verdict::FailRow,
        },
        K::Credentials => denied(facts, tries, AbortCause::Credentials),
        K::Quota if facts.failure.status == Some(402) => denied(facts, tries, AbortCause::Quota),
        // The account is empty, in so many words.
        K::Quota => Verdict::AbortRun(AbortCause::Quota),
        // A certificate that was good may be renewed late; one that never was stays bad.
        K::Tls if !endpoint.has_answered => Verdict::AbortRun(AbortCause::Tls),
        K::Connection | K::Tls => wait_for_endpoint(facts, tries),
        // Each connection fails like this once, and then there are fresh ones.
        K::Stale => match refused(facts, tries) {
            Verdict::FailRow => Verdict::FailRow,
            _ => Verdict::RetryNow,
        },
        K::RateLimit | K::Closed => refused(facts, tries),
        K::NotFound | K::Redirect | K::UnknownCoding => not_found(facts, tries),
        K::BadResponse | K::EmptyAnswer => {
            tries.unusable += 1;
            match tries.unusable > retries_of(kind, facts.retries) {
                true => Verdict::FailRow,
                false => Verdict::RetryAfter(wait(facts, tries)),
            }
        }
        K::BrokenAnswer if facts.failure.paid.is_some() => {
            tries.unusable += 1;
            match tries.unusable > facts.retries {
                true => Verdict::FailRow,
                false => Verdict::RetryAfter(wait(facts, tries)),
            }
        }
        K::Timeout | K::BrokenAnswer | K::Server => failed(facts, tries),
        _ => Verdict::FailRow,
    }
}

fn wait(facts: &FailureFacts<'_>, tries: &Tries) -> Duration {
    let asked = facts.failure.retry_after;
    retry_wait(tries.counted(), asked, facts.endpoint.is_load_cleared, facts.random)
}

/// The server has died, most likely. A row that was called alone may have killed it; what was in flight
/// besides is none of a row's fault, and is asked for one by one.
fn own_server_lost(facts: &FailureFacts<'_>, tries: &mut Tries) -> Verdict {
    tries.killed += u32::from(facts.is_probe);
    match tries.killed > KILLED_MOST {
        true => Verdict::FailRow,
        false => Verdict::OpenCircuit,
    }
}

/// The key is refused. That is the row's matter where others are answered with it, and nobody's where the
/// next call is answered.
fn denied(facts: &FailureFacts<'_>, tries: &mut Tries, cause: AbortCause) -> Verdict {
    let endpoint = &facts.endpoint;
    tries.denied += 1;
    let (before, after) = DENIED_ROWS;
    let most = if endpoint.has_answered { after } else { before };
    let is_alone = !endpoint.has_answered && !endpoint.is_busy;
    if endpoint.denied_rows >= most || is_alone {
        return Verdict::AbortRun(cause);
    }
    // The last row of all may be refused when nobody is left to be answered.
    let is_only_one = endpoint.has_answered && endpoint.denied_rows <= 1;
    match (tries.denied >= DENIED_MOST, tries.others_answered(endpoint.answers) || is_only_one) {
        (true, true) => Verdict::FailRow,
        (true, false) => Verdict::AbortRun(cause),
        (false, _) => Verdict::Defer(wait(facts, tries)),
    }
}

fn wait_for_endpoint(facts: &FailureFacts<'_>, tries: &mut Tries) -> Verdict {
    if facts.endpoint.is_paused {
        return Verdict::OpenCircuit;
    }
    tries.deferred += 1;
    Verdict::Defer(wait(facts, tries))
}

/// The call was not let in, or nothing came back. Where others are let in and never this row, that is
/// because of the row.
fn refused(facts: &FailureFacts<'_>, tries: &mut Tries) -> Verdict {
    let endpoint = &facts.endpoint;
    tries.shut = endpoint.shut;
    let alone = tries.first_failed.map_or(Duration::ZERO, |(at, _)| facts.now - at);
    let is_alone_for_long = endpoint.is_known && alone >= ALONE_MOST && !endpoint.is_busy;
    let answers_others = tries.others_answered(endpoint.answers) && !endpoint.is_paused;
    let is_own = Blame::is_rows_own(tries.shut, facts.retries + SHUT_MOST);
    if is_own && (answers_others || is_alone_for_long) {
        return Verdict::FailRow;
    }
    match endpoint.is_paused {
        true => Verdict::OpenCircuit,
        false => Verdict::Defer(wait(facts, tries)),
    }
}

/// The row's model, or the path to it, is not known. Where the endpoint has not answered any row, in no
/// session, it most likely knows none: the run ends before all of them have failed of a slip of the pen.
fn not_found(facts: &FailureFacts<'_>, tries: &mut Tries) -> Verdict {
    let endpoint = &facts.endpoint;
    if endpoint.is_known || tries.deferred >= UNKNOWN_TRIES {
        return Verdict::FailRow;
    }
    if endpoint.unknown_rows >= UNKNOWN_ROWS {
        return Verdict::AbortRun(AbortCause::UnknownModel);
    }
    let wait = backoff(tries.deferred, facts.random);
    tries.deferred += 1;
    Verdict::Defer(wait)
}

/// The endpoint failed, or the row made it fail.
fn failed(facts: &FailureFacts<'_>, tries: &mut Tries) -> Verdict {
    let is_paused = facts.endpoint.is_paused;
    tries.failed = facts.endpoint.failed;
    match (Blame::is_rows_own(tries.failed, facts.retries), is_paused) {
        (true, _) => Verdict::FailRow,
        (false, true) => Verdict::OpenCircuit,
        (false, false) => Verdict::RetryAfter(wait(facts, tries)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(count: u32, by_chance: f64) -> Tried {
        Tried { count, by_chance }
    }

    /// An endpoint that answers others, and a row that fails for the first time.
    fn first(failure: &Failure) -> FailureFacts<'_> {
        FailureFacts {
            failure,
            tries: Tries::default(),
            now: Instant::now(),
            random: 1.0,
            retries: 3,
            is_probe: false,
            schema: None,
            endpoint: EndpointFacts {
                answers: 100,
                has_answered: true,
                is_known: true,
                is_own: false,
                is_paused: false,
                is_busy: true,
                is_load_cleared: false,
                denied_rows: 1,
                unknown_rows: 1,
                failed: tried(1, 1e-3),
                shut: tried(1, 1e-3),
            },
        }
    }

    /// What becomes of a row that always fails so while others are answered: how often it is called, and
    /// how it ends.
    fn fate(failure: &Failure, retries: u32, others_answer: bool) -> (u32, Verdict) {
        let mut facts = FailureFacts { retries, ..first(failure) };
        for call in 1..100_u32 {
            let chance = 1e-3_f64.powi(call.cast_signed());
            (facts.endpoint.failed, facts.endpoint.shut) =
                (tried(call, chance), tried(call, chance));
            let (verdict, tries) = verdict(&facts);
            if matches!(verdict, Verdict::FailRow | Verdict::AbortRun(_)) {
                return (call, verdict);
            }
            facts.tries = Tries { made: call, ..tries };
            facts.endpoint.answers += u64::from(others_answer);
            facts.now += Duration::from_secs(1);
        }
        (100, Verdict::RetryNow)
    }

    #[test]
    fn every_kind_has_its_verdict() {
        use FailureKind as K;
        let half = Duration::from_millis(500);
        for kind in K::ALL {
            let expected = match kind {
                K::Quota => Verdict::AbortRun(AbortCause::Quota),
                K::Stale => Verdict::RetryNow,
                K::Connection | K::Tls | K::Closed | K::RateLimit | K::Credentials => {
                    Verdict::Defer(Duration::from_secs(1))
                }
                K::Timeout | K::BrokenAnswer | K::Server => {
                    Verdict::RetryAfter(Duration::from_millis(500))
                }
                K::BadResponse | K::EmptyAnswer => Verdict::RetryAfter(half),
                _ => Verdict::FailRow,
            };
            let failure = Failure::new(*kind, "");
            let (found, _) = verdict(&first(&failure));
            let found = match (found, expected) {
                // How long is another test's matter.
                (Verdict::Defer(_), Verdict::Defer(wait)) => Verdict::Defer(wait),
                (found, _) => found,
            };
            assert_eq!(found, expected, "{kind:?}");
        }
    }

    #[test]
    fn failing_row_ends_by_its_retries_while_others_are_answered() {
        use FailureKind as K;
        for (kind, status, retries, calls) in [
            (K::Server, 503, 0, 1),
            (K::Server, 503, 3, 4),
            (K::RateLimit, 429, 0, 3),
            (K::RateLimit, 429, 3, 6),
            (K::Closed, 0, 3, 6),
            (K::Credentials, 403, 3, 3),
            (K::Quota, 402, 3, 3),
            (K::BadResponse, 200, 9, 3),
            (K::EmptyAnswer, 200, 9, 2),
        ] {
            let mut failure = Failure::new(kind, "").with_status(status);
            failure.retry_after = Some(Duration::from_secs(1));
            assert_eq!(
                fate(&failure, retries, true),
                (calls, Verdict::FailRow),
                "{kind:?} {retries}"
            );
        }
    }

    #[test]
    fn paid_broken_answers_are_bounded_whatever_others_do() {
        let failure =
            Failure::new(FailureKind::BrokenAnswer, "").with_paid(crate::job::Paid::default());
        let mut facts = first(&failure);
        // Others fail as well, so that failures prove nothing.
        facts.endpoint.failed = tried(1, 0.9);
        let mut calls = 0;
        loop {
            calls += 1;
            let (verdict, tries) = verdict(&facts);
            if verdict == Verdict::FailRow {
                break;
            }
            facts.tries = tries;
        }
        assert_eq!(calls, 4);
    }

    #[test]
    fn refused_key_ends_the_run_where_nobody_is_answered() {
        let failure = Failure::new(FailureKind::Credentials, "").with_status(401);
        let abort = Verdict::AbortRun(AbortCause::Credentials);
        assert_eq!(fate(&failure, 3, false), (3, Verdict::FailRow), "no other row is refused");
        let mut facts = first(&failure);
        (facts.tries.denied, facts.endpoint.denied_rows) = (2, 2);
        assert_eq!(verdict(&facts).0, abort, "two rows, and no answer in between");
        facts.tries.denied = 0;
        facts.endpoint.denied_rows = 8;
        assert_eq!(verdict(&facts).0, abort, "many rows one after the other");
        facts.endpoint.denied_rows = 1;
        (facts.endpoint.has_answered, facts.endpoint.is_busy) = (false, false);
        assert_eq!(verdict(&facts).0, abort, "the only call there is");
        facts.endpoint.is_busy = true;
        assert!(matches!(verdict(&facts).0, Verdict::Defer(_)), "another may be answered");
    }

    #[test]
    fn empty_account_ends_the_run_at_once() {
        for status in [400, 429] {
            let failure = Failure::new(FailureKind::Quota, "").with_status(status);
            assert_eq!(verdict(&first(&failure)).0, Verdict::AbortRun(AbortCause::Quota));
        }
    }

    #[test]
    fn refusals_in_an_outage_cost_no_row() {
        let failure = Failure::new(FailureKind::RateLimit, "").with_status(429);
        let mut facts = first(&failure);
        (facts.endpoint.is_paused, facts.endpoint.shut) = (true, tried(30, 1e-30));
        assert_eq!(verdict(&facts).0, Verdict::OpenCircuit);
        // A row that is refused alone, with nobody to compare with, fails after two minutes.
        let began = facts.now;
        facts.tries.first_failed = Some((began, 100));
        facts.endpoint.is_busy = false;
        facts.now = began + Duration::from_secs(119);
        assert_eq!(verdict(&facts).0, Verdict::OpenCircuit);
        facts.now = began + Duration::from_secs(120);
        assert_eq!(verdict(&facts).0, Verdict::FailRow);
    }

    #[test]
    fn unknown_model_ends_the_run_unless_it_ever_answered() {
        let failure = Failure::new(FailureKind::NotFound, "").with_status(404);
        let mut facts = first(&failure);
        assert_eq!(verdict(&facts).0, Verdict::FailRow);
        facts.endpoint.is_known = false;
        assert!(matches!(verdict(&facts).0, Verdict::Defer(_)));
        facts.endpoint.unknown_rows = 3;
        assert_eq!(verdict(&facts).0, Verdict::AbortRun(AbortCause::UnknownModel));
        facts.tries.deferred = 2;
        assert_eq!(verdict(&facts).0, Verdict::FailRow, "it was tried often enough by itself");
    }

    #[test]
    fn own_server_is_waited_for_unless_one_row_kills_it() {
        let failure = Failure::new(FailureKind::Closed, "");
        let mut facts = first(&failure);
        facts.endpoint.is_own = true;
        assert_eq!(verdict(&facts).0, Verdict::OpenCircuit);
        facts.is_probe = true;
        facts.tries.killed = 2;
        assert_eq!(verdict(&facts).0, Verdict::FailRow);
    }

    #[test]
    fn schema_answers_are_asked_for_again() {
        let mismatch = Failure::new(FailureKind::SchemaMismatch, "");
        let refused = Failure::new(FailureKind::SchemaRefused, "");
        let schema = Some(SchemaFacts { retries: 1, falls_back: true });
        let mut facts = FailureFacts { schema, ..first(&mismatch) };
        let (found, tries) = verdict(&facts);
        assert_eq!((found, tries.misfits), (Verdict::RetryNow, 1));
        facts.tries = tries;
        assert_eq!(verdict(&facts).0, Verdict::FailRow);
        let facts = FailureFacts { schema, ..first(&refused) };
        assert_eq!(verdict(&facts).0, Verdict::RetryNow);
    }
}
