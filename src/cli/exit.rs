//! Exit codes, and the line that goes with each: what happened, what is safe, what to type.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use super::deadline::{Deadline, Kept};
use super::links::without_secrets;
use super::there::of_what_is_there;
use super::typed::{Typed, quoted};
use crate::input;
use crate::job::NameCounts;
use crate::pipeline::{Error, Finished};
use crate::plan;
use crate::store;
use crate::telemetry::escape;
use crate::work;

const APART: &str = "give them to runs of their own, or say --dialect rows";
const NOT_REQUESTS: &str = "name the file of the requests, or say what its lines are with --dialect (rows asks \
                            about each as it is)";
pub(super) const OK: u8 = 0;
pub(super) const BUG: u8 = 1;
pub(super) const USAGE: u8 = 2;
pub(super) const ROWS_FAILED: u8 = 3;
pub(super) const LIMIT: u8 = 4;
pub(super) const DATA: u8 = 65;
pub(super) const NO_INPUT: u8 = 66;
pub(super) const UNAVAILABLE: u8 = 69;
pub(super) const DAMAGED: u8 = 70;
pub(super) const CANNOT_CREATE: u8 = 73;
pub(super) const IO: u8 = 74;
pub(super) const BUSY: u8 = 75;
pub(super) const NO_PERMISSION: u8 = 77;
pub(super) const MISMATCH: u8 = 78;
pub(super) const INTERRUPTED: u8 = 130;
pub(super) const TERMINATED: u8 = 143;

/// The last line of a command that did not succeed.
pub(super) struct Line {
    pub(super) code: u8,
    /// What happened.
    pub(super) what: String,
    /// What is safe.
    pub(super) safe: &'static str,
    /// The command that goes on, or what to do first.
    pub(super) next: String,
}

/// Says something on standard error. Nobody may be listening any more: then there is nobody to tell
/// that either.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Puts something on standard output; whoever read it may have gone, having seen enough.
pub(super) fn show(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

impl Line {
    /// What happened, and what is safe.
    pub(super) fn message(&self) -> String {
        format!("{} · {}", self.what, self.safe)
    }

    pub(super) fn print(&self) -> ExitCode {
        // The parts are ours but for names and messages in them.
        let what = escape(&self.what);
        say(&format!("rowmill: {what} · {} · {}", self.safe, self.next));
        ExitCode::from(self.code)
    }
}

pub(super) const UNTOUCHED: &str = "nothing was changed";
pub(super) const KEPT: &str = "all finished rows are kept";

/// The code and the line of a failed command. A path in it may be a URL that somebody took for one.
pub(super) fn of_error(error: &Error, typed: &Typed<'_>) -> Line {
    let line = of_any_error(error, typed);
    Line { what: without_secrets(&line.what, typed.0), ..line }
}

fn of_any_error(error: &Error, typed: &Typed<'_>) -> Line {
    let line = |code, safe, next: String| Line { code, what: error.to_string(), safe, next };
    match error {
        Error::Usage(_) => line(USAGE, UNTOUCHED, typed.help()),
        Error::NoKey { .. } | Error::KeyNotGiven { .. } => {
            line(NO_PERMISSION, UNTOUCHED, for_key(error))
        }
        Error::NothingOffered { is_refused, .. } => of_offers(error, *is_refused),
        Error::Input(error) => of_input(error, typed),
        Error::NotFetched(_)
        | Error::NotThere { .. }
        | Error::OutOfReach { .. }
        | Error::NotUploaded { .. } => of_transfer(error, typed),
        Error::Plan(error) => of_plan(error, typed),
        Error::Store(error) => of_store(error, typed),
        Error::Underway(error) => underway(error, typed),
        Error::Work(error) => of_work(error, typed),
        Error::Incomplete { .. } => {
            let next = format!(
                "finish it first: rowmill work --work-dir {}, or leave these rows out: {}",
                typed.work_dir(),
                typed.with(&[], Some("--partial"))
            );
            line(MISMATCH, "nothing was published", next)
        }
        Error::Unsound { .. } => {
            let next =
                format!("rowmill work --work-dir {} does its damaged rows again", typed.work_dir());
            line(DAMAGED, "nothing was published, nothing was deleted", next)
        }
        Error::Drift { drift, .. } => {
            line(MISMATCH, UNTOUCHED, typed.drifted(drift.is_of_identity()))
        }
        Error::NoInputKept => {
            line(MISMATCH, UNTOUCHED, "leave --include-input out, or begin anew".to_owned())
        }
        Error::Unfinished { .. } => {
            let next =
                format!("go on with it: {} (or begin anew with --overwrite)", typed.resumed());
            line(CANNOT_CREATE, UNTOUCHED, next)
        }
        Error::OutputExists { .. }
        | Error::OutputForeign { .. }
        | Error::OfOthers { .. }
        | Error::NoneTakenOver { .. }
        | Error::NotOurs { .. }
        | Error::OtherQuestion { .. }
        | Error::NotTakenOver { .. }
        | Error::TwoEarlier { .. }
        | Error::OfFastAgent { .. } => of_what_is_there(error, typed),
        Error::PlanLost { .. } => {
            let next = format!("put it back, or give the answers up: {}", typed.overwriting());
            line(DAMAGED, "nothing was deleted", next)
        }
        Error::NotPlanned { work_dir } => {
            let next = format!("plan it first: rowmill plan INPUT --work-dir {}", shown(work_dir));
            line(MISMATCH, UNTOUCHED, next)
        }
        Error::Interrupted => line(TERMINATED, KEPT, typed.resumed()),
    }
}

fn of_offers(error: &Error, is_refused: bool) -> Line {
    let code = if is_refused { NO_PERMISSION } else { UNAVAILABLE };
    let next = "see what they say: rowmill models; or name a model with -m".to_owned();
    Line { code, what: error.to_string(), safe: UNTOUCHED, next }
}

/// What came from no URL, or did not go to one.
fn of_transfer(error: &Error, typed: &Typed<'_>) -> Line {
    let (code, safe, next) = match error {
        Error::NotUploaded { .. } => {
            let first = "upload them, with the URLs as they were or newly signed";
            (IO, "all answers are kept and the outputs are made", first)
        }
        Error::OutOfReach { .. } => (UNAVAILABLE, "no call was made", "wait until it is there"),
        _ => {
            let next =
                "check the URL (a pre-signed one has its time), or save it and give the file";
            return Line {
                code: NO_INPUT,
                what: error.to_string(),
                safe: UNTOUCHED,
                next: next.to_owned(),
            };
        }
    };
    let again = if code == IO { typed.resumed() } else { typed.again() };
    Line { code, what: error.to_string(), safe, next: format!("{next}: {again}") }
}

fn for_key(error: &Error) -> String {
    let first = match error {
        Error::NoKey { variables, .. } => format!("set {variables}"),
        _ => "try the command by hand".to_owned(),
    };
    format!("{first}, or name a file that holds it with --api-key-file")
}

pub(super) fn shown(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

fn of_input(error: &input::Error, typed: &Typed<'_>) -> Line {
    let (code, safe, next) = match error {
        input::Error::Unreadable { .. } | input::Error::NotAFile { .. } => {
            (NO_INPUT, UNTOUCHED, "check the path and its permissions".to_owned())
        }
        input::Error::NoInputs { .. } => {
            (NO_INPUT, UNTOUCHED, "name the files themselves, or another directory".to_owned())
        }
        input::Error::UnknownFormat { .. } => {
            (USAGE, UNTOUCHED, "give it the ending of its format, or convert it first".to_owned())
        }
        input::Error::OneDocument { path, is_list, .. } => {
            let (lines, file) = (if *is_list { "'.[]'" } else { "." }, shown(path));
            (DATA, UNTOUCHED, format!("make lines of it: jq -c {lines} {file} > rows.jsonl"))
        }
        input::Error::NotText { .. } => {
            (DATA, UNTOUCHED, "decompress or convert it to UTF-8 first".to_owned())
        }
        input::Error::NotRequests { .. } => (DATA, UNTOUCHED, NOT_REQUESTS.to_owned()),
        input::Error::DifferentDialects { .. } => (DATA, UNTOUCHED, APART.to_owned()),
        input::Error::Header { .. } => (DATA, UNTOUCHED, "mend its first line".to_owned()),
        input::Error::Changed { .. } => {
            let (back, update) = ("put the planned input back", "--resume --on-change update");
            let next =
                format!("{back} (or take it as it is: run {update}), then: {}", typed.resumed());
            (DATA, KEPT, next)
        }
    };
    Line { code, what: error.to_string(), safe, next }
}

fn of_plan(error: &plan::Error, typed: &Typed<'_>) -> Line {
    let next = match error {
        plan::Error::Duplicates { .. } => {
            "make the ids unique, or choose --on-duplicate first or suffix".to_owned()
        }
        plan::Error::BadLines { count, shown } => return of_bad_lines(error, *count, shown),
        plan::Error::UnknownModels { names } => return of_names(error, names),
        plan::Error::UnknownPrices { .. } => return of_prices(error),
        plan::Error::MissingFields { .. } => {
            "mend the template or the rows, or choose another --on-missing-field".to_owned()
        }
        plan::Error::Input(error) => return of_input(error, typed),
        plan::Error::Store(error) => return of_store(error, typed),
        plan::Error::Interrupted => typed.again(),
    };
    Line { code: DATA, what: error.to_string(), safe: "no call was made", next }
}

/// What is wrong with the lines of a request file is told line by line, before all else.
fn of_bad_lines(error: &plan::Error, count: u64, shown: &[plan::BadLine]) -> Line {
    shown.iter().for_each(|line| say(&escape(&line.to_string())));
    let more = count.saturating_sub(shown.len() as u64);
    if more > 0 {
        say(&format!("and {more} more; rowmill files validate FILE lists all"));
    }
    let next = "mend these lines, or let them fail without a call with --skip-bad-lines; ids that are there \
                twice: --on-duplicate first or suffix";
    let safe = "nothing was sent, nothing was changed";
    Line { code: DATA, what: error.to_string(), safe, next: next.to_owned() }
}

/// Names that nobody answers to are told one by one, before all else.
fn of_names(error: &plan::Error, names: &NameCounts) -> Line {
    for (name, (lines, first)) in &names.names {
        let lines = if *lines == 1 { "1 line".to_owned() } else { format!("{lines} lines") };
        say(&escape(&format!("{name:?}: {lines}, first line {first}")));
    }
    if names.more > 0 {
        say(&format!("and {} lines with other names", names.more));
    }
    let next = "say what each stands for with --map-model NAME=MODEL (or [models] of a config file), where \
                they are with --base-url, one model for all with -m, or let these lines fail with \
                --skip-bad-lines";
    let safe = "nothing was sent, nothing was changed";
    Line { code: DATA, what: error.to_string(), safe, next: next.to_owned() }
}

/// A cap needs prices.
fn of_prices(error: &plan::Error) -> Line {
    let next = "give each a price in rowmill.toml, in dollars for a million tokens: [price.\"NAME\"] with \
                input and output";
    Line { code: USAGE, what: error.to_string(), safe: UNTOUCHED, next: next.to_owned() }
}

fn of_store(error: &store::Error, typed: &Typed<'_>) -> Line {
    let (code, safe, next) = match error {
        store::Error::Io { .. } if error.is_out_of_space() => {
            (IO, KEPT, format!("make room, then: {}", typed.resumed()))
        }
        store::Error::Io { .. } if error.is_out_of_files() => {
            (IO, KEPT, format!("allow more open files (ulimit -n), then: {}", typed.resumed()))
        }
        store::Error::Io { what: "create", .. } | store::Error::Io { what: "open", .. } => {
            let next = "make the place writable, or choose another".to_owned();
            (CANNOT_CREATE, KEPT, next)
        }
        store::Error::Io { source, .. } if source.kind() == ErrorKind::BrokenPipe => {
            (IO, KEPT, format!("who read the output went away; once more: {}", typed.resumed()))
        }
        store::Error::Io { .. } => {
            (IO, KEPT, format!("see to the disk, then: {}", typed.resumed()))
        }
        store::Error::Foreign { .. } => {
            (CANNOT_CREATE, UNTOUCHED, "choose another --work-dir".to_owned())
        }
        store::Error::Target { .. } => {
            (CANNOT_CREATE, UNTOUCHED, "choose another path for the output".to_owned())
        }
        store::Error::Busy { .. } => {
            (BUSY, UNTOUCHED, "wait for it, with --lock-wait 10m if you like".to_owned())
        }
        store::Error::Newer { .. } => (MISMATCH, UNTOUCHED, "use a newer rowmill".to_owned()),
        store::Error::Damaged { .. } | store::Error::Unsound { .. } => {
            let is_check = typed.0.get(1).is_some_and(|command| command == "check");
            let next = if is_check {
                "put the file back from a copy, or begin anew with --overwrite".to_owned()
            } else {
                format!("see what is left: rowmill check --work-dir {}", typed.work_dir())
            };
            (DAMAGED, "nothing was deleted", next)
        }
        store::Error::Misplaced { .. } => {
            let next = format!(
                "put back what belongs there, then: rowmill check --work-dir {}",
                typed.work_dir()
            );
            (DAMAGED, "nothing was changed", next)
        }
        store::Error::NoThread { .. } => {
            (IO, KEPT, format!("allow more threads, or fewer with --parallel: {}", typed.resumed()))
        }
        store::Error::Gone { .. } => {
            let next = format!("put it back, then: {}", typed.resumed());
            (IO, "what was synced is in it, wherever it is", next)
        }
    };
    Line { code, what: error.to_string(), safe, next }
}

/// What fails once there is a run is no matter of the command line, and can be gone on with.
fn underway(error: &store::Error, typed: &Typed<'_>) -> Line {
    let line = of_store(error, typed);
    if line.code != CANNOT_CREATE || !matches!(error, store::Error::Io { .. }) {
        return line;
    }
    let next = format!("make the place writable, then: {}", typed.resumed());
    Line { code: IO, safe: KEPT, next, ..line }
}

/// The code and the line of work that failed.
pub(super) fn of_work(error: &work::Error, typed: &Typed<'_>) -> Line {
    let (code, safe, next) = match error {
        work::Error::Store(error) => return underway(error, typed),
        work::Error::Input(error) => return of_input(error, typed),
        work::Error::Endpoint { .. } => {
            (UNAVAILABLE, "no call was made", format!("see to it, then: {}", typed.resumed()))
        }
        work::Error::UnknownPrices { .. } => {
            let next = "give each a price in rowmill.toml, in dollars for a million tokens: [price.\"NAME\"] \
                        with input and output";
            (USAGE, KEPT, next.to_owned())
        }
        work::Error::Server { .. } => {
            (UNAVAILABLE, KEPT, format!("see to it, then: {}", typed.resumed()))
        }
        work::Error::Unsound { .. } => {
            let next = "the disk damages what is written to it; move the work directory".to_owned();
            (DAMAGED, "nothing was deleted", next)
        }
        work::Error::NoFiles { .. } => {
            (IO, KEPT, format!("allow more open files (ulimit -n), then: {}", typed.resumed()))
        }
        work::Error::Panicked => (BUG, KEPT, typed.resumed()),
    };
    Line { code, what: error.to_string(), safe, next }
}

/// Names the command that publishes the rows which are done, before the one that goes on.
pub(super) fn with_partial(line: Line, typed: &Typed<'_>) -> Line {
    let next = format!("to publish what is done: {} · {}", typed.partial(), line.next);
    Line { next, ..line }
}

/// What is said of outputs that may leave rows out.
pub(super) fn told_of_partial(finished: &Finished, typed: &Typed<'_>) -> String {
    let done = finished.counts.ok + finished.counts.failed;
    let unit = if finished.variants > 1 { "answers" } else { "rows" };
    match finished.wanted.saturating_sub(done) {
        0 => format!("all {done} {unit} have an outcome and are published"),
        left => format!(
            "published {done} of {} {unit}; {left} have no outcome yet and are left out. To finish: rowmill \
             work --work-dir {}, then merge without --partial (or the same run with --resume)",
            finished.wanted,
            typed.work_dir()
        ),
    }
}

/// The line of a command that panicked.
pub(super) fn of_bug(typed: &Typed<'_>) -> Line {
    let what = "a bug in rowmill; please report what it said above".to_owned();
    Line { code: BUG, what, safe: KEPT, next: typed.resumed() }
}

/// The line of a run that a signal ended.
pub(super) fn of_drain(code: u8, left: &str, typed: &Typed<'_>) -> Line {
    let what = format!("ended by a signal; {left} are left");
    Line { code, what, safe: KEPT, next: typed.resumed() }
}

/// The line of a run that its deadline ended; `what` is what it was at then.
pub(super) fn of_deadline(kept: &Kept, what: &str, safe: &'static str, typed: &Typed<'_>) -> Line {
    let Deadline { text, .. } = &kept.deadline;
    let what = format!("stopped before --deadline {text} ({}); {what}", kept.shown);
    let next = if kept.deadline.is_of_any_day() {
        typed.resumed()
    } else {
        let words = typed.without("--deadline");
        format!("with a later --deadline, or none: {}", Typed(&words).resumed())
    };
    Line { code: LIMIT, what, safe, next }
}

/// The line of a run in which rows failed.
pub(super) fn of_failed(failed: u64, of: &str, is_published: bool, typed: &Typed<'_>) -> Line {
    let safe = if is_published { "the outputs are published" } else { KEPT };
    let next = match typed.0.get(1) {
        Some(command) if command == "work" => {
            format!("try them again: {}", typed.with(&[], Some("--retry-failed")))
        }
        Some(command) if command == "merge" => {
            format!("try them again: rowmill work --work-dir {} --retry-failed", typed.work_dir())
        }
        _ => format!("try them again: {}", typed.resumed()),
    };
    Line { code: ROWS_FAILED, what: format!("{failed} of {of} failed"), safe, next }
}
