//! Rows and requests that pass by: what the arguments ask for, and what is said at the end.

use std::process::ExitCode;

use super::args::{FilterArgs, OnMissingFieldArg};
use super::commands::{bounded, paced, reads, within};
use super::exit::{self, Line};
use super::pipes;
use super::question::asked_of_rows;
use super::signals::Cause;
use super::stop;
use super::surroundings::{Failed, Settings, Surroundings};
use super::system::{self, Room};
use super::typed::Typed;
use crate::job::{Dialect, JobSpec, Money};
use crate::pipeline::{self, Error};
use crate::telemetry::{Event, Sink, grouped};
use crate::work::{self, Passed, PassedEnd, Passing, Tally};

const WHOLE: &str = "every line out is whole";
const NOT_KEPT: &str = "every line out is whole; rows without one are not kept, so feed them again";
const TORN: &str = "lines out are whole, but for the last one, which may be torn; rows without one are \
                    not kept, so feed them again";
const UNREAD: &str = "nothing was read";

/// Asks about rows of standard input as they come.
pub(super) fn filter(mut args: FilterArgs, typed: &Typed<'_>) -> Result<ExitCode, Failed> {
    pipes::check(&args)?;
    if !args.look(&mut pipes::read_some)? {
        if !args.tell.quiet {
            exit::say(&summary(&Tally::default()));
        }
        return Ok(ExitCode::from(exit::OK));
    }
    args.settle()?;
    refuse(&args)?;
    let ahead = std::mem::take(&mut args.ahead);
    pass(&args, ahead, typed)
}

/// Does so once it is known what comes in, and what of it was read `ahead`.
fn pass(args: &FilterArgs, ahead: Vec<u8>, typed: &Typed<'_>) -> Result<ExitCode, Failed> {
    let (prompt, schema, model) = (&args.prompt, &args.schema, (&args.model, None));
    let (job, mut reach) =
        asked_of_rows(args.lines, prompt, schema, model, args.include_input, None)?;
    let job = JobSpec {
        id_field: args.id_field.clone(),
        id_from: args.id_from.map(Into::into).unwrap_or_default(),
        max_row_bytes: args.max_row_bytes,
        ..job
    };
    let format = pipeline::format_of(args.output_format, &job, args.include_input)?;
    let answerer = reach.answerer(&job, None, true, args.form, &args.config.read)?;
    let answerer = bounded(answerer, &args.pace, &reach)?;
    let mut files = reads(&args.prompt, &args.schema, &args.model);
    files.extend(args.config.files());
    let telemetry = args.telemetry_output.clone();
    files.extend(telemetry.map(|path| ("the file of --telemetry-output", path)));
    let settings = Settings {
        command: "filter",
        tell: Some(&args.tell),
        drain_timeout: Some(args.pace.drain_timeout()),
        files,
        ..Settings::default()
    };
    within(settings, typed, |surroundings| {
        let options = options(args, surroundings)?;
        let (job, answerer, options) = (&job, &answerer, &options);
        let (is_unseen, is_ordered) = (args.is_unseen, args.ordered);
        let passing = Passing { job, answerer, options, format, is_unseen, is_ordered };
        let passed = surroundings.with(|context| {
            let pipes = pipes::pipes(args, ahead)?;
            Ok(work::stream(passing, pipes, context.shutdown, context.sink)?)
        });
        let passed = match passed {
            Ok(passed) => passed,
            Err(error) => {
                return Ok(Some(Line { safe: UNREAD, ..exit::of_error(&error, typed) }));
            }
        };
        if !surroundings.is_quiet() && !matches!(passed.end, PassedEnd::Requests(_)) {
            exit::say(&summary(&passed.tally));
        }
        Ok(closing(args, (&passed, format), surroundings, typed))
    })
}

/// What needs to know all rows, or more than one who answers, is nothing for a pipe.
fn refuse(args: &FilterArgs) -> Result<(), Error> {
    let model = &args.model;
    let text = if model.maps.is_some() {
        "rowmill filter sends lines that name their models to one endpoint, and something is said of \
         what names stand for (--map-model, or [models] of a config file), which is for rowmill run: \
         name a model for all lines with -m, or leave that out (--no-config reads no config file)"
            .to_owned()
    } else if model.pool.is_some() {
        format!(
            "-m {} is a pool, and rowmill filter asks one model: name one, as ENDPOINT.MODEL",
            model.named
        )
    } else if !model.others.is_empty() || model.repeat > 1 {
        "rowmill filter asks one model once about each row: several -m and --repeat are for \
         rowmill run"
            .to_owned()
    } else if model.require_model.is_some() {
        "--require-model chooses among the models of a pool, and rowmill filter asks one".to_owned()
    } else if model.is_local() {
        "-m local starts a server, which rowmill filter does not: start one yourself, and say where \
         it is with --base-url"
            .to_owned()
    } else if matches!(args.prompt.on_missing_field, Some(OnMissingFieldArg::Error)) {
        "--on-missing-field error looks at all rows before any call, and of a pipe nobody knows \
         them: row-error fails such a row, empty puts nothing in the field's place"
            .to_owned()
    } else {
        return Ok(());
    };
    Err(Error::Usage(text))
}

/// How the calls are made; what is of shards has no meaning here.
fn options(args: &FilterArgs, surroundings: &mut Surroundings<'_>) -> Result<work::Options, Error> {
    let pace = &args.pace;
    let wanted = pace.in_flight(None);
    let Room { connections: concurrency, too_few, .. } = system::room(1, wanted)?;
    if let Some(work::TooFewFiles { allowed, needed }) = too_few {
        return Err(work::Error::NoFiles { allowed, needed }.into());
    }
    if let Some(warning) = system::told_of_room(concurrency, wanted) {
        surroundings.progress.emit(&Event::Warning(warning));
    }
    Ok(paced(pace, concurrency))
}

/// `300 rows: 298 ok, 2 failed · 305 calls · 5,400 tokens · $0.0123`
fn summary(tally: &Tally) -> String {
    let rows =
        |count| if count == 1 { "1 row".to_owned() } else { format!("{} rows", grouped(count)) };
    let Tally { ok, failed, calls, usage, cost } = tally;
    let mut text = format!("{}: {} ok", rows(ok + failed), grouped(*ok));
    if *failed > 0 {
        text.push_str(&format!(", {} failed", grouped(*failed)));
    }
    if *calls > 0 {
        let unit = if *calls == 1 { "call" } else { "calls" };
        text.push_str(&format!(" · {} {unit}", grouped(*calls)));
    }
    if usage.total() > 0 {
        text.push_str(&format!(" · {} tokens", grouped(usage.total())));
    }
    if cost.priced > 0 || cost.usd > Money::ZERO {
        text.push_str(&format!(" · {}", cost.usd));
        if cost.unpriced > 0 {
            text.push_str(&format!(" and {} calls of unknown cost", grouped(cost.unpriced)));
        }
    }
    text
}

/// The line of a filter that did not end well.
fn closing(
    args: &FilterArgs,
    (passed, format): (&Passed, Dialect),
    surroundings: &Surroundings<'_>,
    typed: &Typed<'_>,
) -> Option<Line> {
    let Passed { end, tally, read, out } = passed;
    let (failed, lost) = (tally.failed, read.saturating_sub(*out));
    let (safe, left) = match lost {
        0 => (WHOLE, String::new()),
        lost => (NOT_KEPT, format!("{lost} of {read} rows read have no line out; ")),
    };
    let of = |line: Line| {
        let next = format!("{left}{}", line.next);
        Some(Line { safe, next, ..line })
    };
    let drained = || {
        let code = match surroundings.judge().caught.cause() {
            Cause::Signal(code) => code,
            Cause::Deadline => exit::TERMINATED,
        };
        let what = "ended by a signal".to_owned();
        of(Line { code, what, safe, next: format!("the same command goes on: {}", typed.again()) })
    };
    match end {
        PassedEnd::Complete => {
            let is_fine =
                failed == 0 || args.allow_failed.is_some_and(|it| it.allows(failed, *out));
            let what = format!("{failed} of {out} rows failed");
            let those = match format.is_rows() {
                true => "those are the lines with \"ok\":false",
                false => "their lines tell why",
            };
            let next = format!("{those}; feed their rows again, or allow them: --allow-failed");
            (!is_fine).then_some(Line { code: exit::ROWS_FAILED, what, safe, next })
        }
        // Who stops all of a pipeline may stop the readers first.
        PassedEnd::Unread if surroundings.is_asked_to_end() => drained(),
        PassedEnd::Unread => None,
        PassedEnd::Requests(form) => {
            Some(exit::of_error(&pipeline::not_rows("standard input", *form), typed))
        }
        PassedEnd::Drained => drained(),
        PassedEnd::Stopped(reason) => of(stop::stopped(reason, typed)),
        PassedEnd::Failed(error @ work::Error::Store(_)) => {
            let next = format!("{left}{}", exit::of_work(error, typed).next);
            Some(Line { safe: TORN, next, ..exit::of_work(error, typed) })
        }
        PassedEnd::Failed(error) => of(exit::of_work(error, typed)),
    }
}
