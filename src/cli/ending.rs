//! How a command ended, to those outside: its code, its closing line, and a word for monitors.

use super::deadline::Kept;
use super::exit::{self, Line};
use super::signals::{Caught, Cause};
use super::stop;
use super::typed::Typed;
use crate::pipeline::{End, Error, Finished};
use crate::policy::Allowance;
use crate::store::{self, SessionEnd};
use crate::work::StopReason;

/// What a result is judged by.
pub(super) struct Judge<'a> {
    pub(super) typed: &'a Typed<'a>,
    pub(super) caught: &'a Caught,
    pub(super) deadline: Option<&'a Kept>,
    /// How many rows may fail.
    pub(super) allowed: Option<Allowance>,
}

impl Judge<'_> {
    /// The line of a command that did not succeed; nothing for one that did.
    pub(super) fn line(&self, result: Result<&Finished, &Error>) -> Option<Line> {
        match result {
            Ok(finished) => self.of_finished(finished),
            Err(error) => Some(self.of_error(error)),
        }
    }

    /// What is noted in the work directory.
    pub(super) fn session_end(&self, result: Result<&Finished, &Error>) -> SessionEnd {
        let line = self.line(result);
        SessionEnd {
            code: line.as_ref().map_or(exit::OK, |line| line.code),
            word: self.word(result),
            message: line.as_ref().map(Line::message),
            next: line.map(|line| line.next),
        }
    }

    fn of_finished(&self, finished: &Finished) -> Option<Line> {
        let typed = self.typed;
        let counts = &finished.counts;
        let done = counts.ok + counts.failed;
        // Where several answers are wanted to a row, they are what is counted.
        let unit = if finished.variants > 1 { "answers" } else { "rows" };
        let left = finished.wanted.saturating_sub(done) + counts.retryable;
        let left = &format!("{left} {unit}");
        let partly = |line| if done > 0 { exit::with_partial(line, typed) } else { line };
        match &finished.end {
            End::Drained => Some(partly(match (self.caught.cause(), self.deadline) {
                (Cause::Deadline, Some(kept)) => {
                    let what = format!("{left} are left");
                    exit::of_deadline(kept, &what, exit::KEPT, typed)
                }
                (Cause::Signal(code), _) => exit::of_drain(code, left, typed),
                (Cause::Deadline, None) => exit::of_drain(exit::TERMINATED, left, typed),
            })),
            End::Stopped(reason) => Some(partly(stop::of_stop(reason, left, typed))),
            End::Published | End::PublishedPartly | End::Unchanged | End::Worked => {
                let failed = counts.failed;
                let is_fine = failed == 0 || self.allowed.is_some_and(|a| a.allows(failed, done));
                let is_published = finished.end != End::Worked;
                let of = format!("{done} {unit}");
                (!is_fine).then(|| exit::of_failed(failed, &of, is_published, typed))
            }
        }
    }

    fn of_error(&self, error: &Error) -> Line {
        let line = exit::of_error(error, self.typed);
        let is_waiting = matches!(error, Error::Store(store::Error::Busy { .. }));
        match (self.caught.cause(), self.deadline) {
            (Cause::Deadline, Some(kept)) if is_waiting => {
                exit::of_deadline(kept, &error.to_string(), exit::UNTOUCHED, self.typed)
            }
            (Cause::Deadline, Some(kept)) if matches!(error, Error::Interrupted) => {
                let what = "it was planning or publishing";
                exit::of_deadline(kept, what, exit::KEPT, self.typed)
            }
            (Cause::Signal(code), _) if matches!(error, Error::Interrupted) => {
                Line { code, ..line }
            }
            _ => line,
        }
    }

    fn word(&self, result: Result<&Finished, &Error>) -> &'static str {
        let asked = match self.caught.cause() {
            Cause::Deadline => "stopped:deadline",
            Cause::Signal(_) => "drained",
        };
        match result {
            Err(Error::Interrupted) => asked,
            Err(_) => "error",
            Ok(finished) => match &finished.end {
                End::Published => "published",
                End::PublishedPartly => "published:partial",
                End::Unchanged => "unchanged",
                End::Worked => "worked",
                End::Drained => asked,
                End::Stopped(reason) => word_of(reason),
            },
        }
    }
}

fn word_of(reason: &StopReason) -> &'static str {
    match reason {
        StopReason::MaxErrors { .. } => "stopped:max_errors",
        StopReason::MaxCost { .. } => "stopped:max_cost",
        StopReason::Credentials { .. } => "stopped:credentials",
        StopReason::Quota { .. } => "stopped:quota",
        StopReason::Tls { .. } => "stopped:tls",
        StopReason::AsksTooMuch { .. }
        | StopReason::Outage { .. }
        | StopReason::Unreachable { .. } => "stopped:outage",
        StopReason::Unknown { .. } => "stopped:unknown_model",
        StopReason::ServerLost { .. } => "stopped:server_lost",
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::time::Duration;

    use super::*;
    use crate::cli::deadline::{deadline, watch};
    use crate::store::Counts;

    fn finished(end: End) -> Finished {
        let counts = Counts { ok: 7, failed: 2, retryable: 1 };
        Finished { end, counts, wanted: 20, variants: 1, summary: None, is_dir_kept: true }
    }

    #[test]
    fn what_the_deadline_ends_is_told_as_such_wherever_it_was() {
        let words = ["rowmill", "run", "in", "--deadline", "10h"].map(OsString::from);
        let typed = Typed(&words);
        let (trigger, _shutdown) = crate::shutdown::channel();
        let caught = Caught::default();
        let wanted = deadline("10h").unwrap();
        let late = |_: &Kept| unreachable!("it is far away");
        let kept = watch(&wanted, Duration::ZERO, trigger, caught.clone(), late).unwrap();
        let judge = Judge { typed: &typed, caught: &caught, deadline: Some(&kept), allowed: None };
        // As long as it has not come, a signal was the cause.
        assert_eq!(judge.session_end(Ok(&finished(End::Drained))).word, "drained");
        assert_eq!(judge.session_end(Err(&Error::Interrupted)).code, exit::TERMINATED);
        caught.note_deadline();
        let busy = || store::Error::Busy { path: "job".into(), holder: None };
        for (result, said, safe) in [
            (Ok(finished(End::Drained)), "12 rows are left", exit::KEPT),
            (Err(Error::Interrupted), "planning or publishing", exit::KEPT),
            (Err(Error::Store(busy())), "job is in use", exit::UNTOUCHED),
        ] {
            let line = judge.line(result.as_ref()).unwrap();
            assert_eq!((line.code, line.safe), (exit::LIMIT, safe));
            assert!(line.what.starts_with("stopped before --deadline 10h ("), "{}", line.what);
            assert!(line.what.contains(said), "{}", line.what);
            let next = line.next.rsplit(" · ").next();
            assert_eq!(next, Some("rowmill run in --deadline 10h --resume"));
            let is_partly = line.next.contains("rowmill merge --work-dir DIR --partial -o FILE");
            assert_eq!(is_partly, result.is_ok(), "{}", line.next);
        }
        assert_eq!(judge.session_end(Err(&Error::Interrupted)).word, "stopped:deadline");
        // What it did not end is what it is.
        assert_eq!(judge.session_end(Ok(&finished(End::Published))).word, "published");
        assert_eq!(judge.session_end(Ok(&finished(End::Published))).code, exit::ROWS_FAILED);
        kept.lift();
    }
}
