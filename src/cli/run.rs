//! `rowmill run`: plan, work and merge in one go.

use std::path::PathBuf;
use std::process::ExitCode;

use super::args::RunArgs;
use super::commands::{
    IDS_FILE, bounded, check_stdout, default_work_dir, output_files, output_paths, print_summary,
    reads, stay_apart, warn, within, within_dirs, work_options,
};
use super::estimate::mean_so_far;
use super::preview;
use super::question::question;
use super::serving::Serving;
use super::surroundings::{Failed, Settings};
use super::typed::Typed;
use crate::job::Dialect;
use crate::pipeline::{self, Error, OnChange, Place, Policy, Question, Run};
use crate::report::Expecting;
use crate::store::Target;
use crate::work::Retry;

/// Runs a job to its end.
pub(super) fn run(args: &RunArgs, typed: &Typed<'_>) -> Result<ExitCode, Failed> {
    check_stdout(&args.outputs, args.screen.tell.quiet)?;
    let default_dir = || default_work_dir(&args.outputs.output, args.input.paths());
    let (work_dir, takes_over) = work_dirs(args, default_dir)?;
    let mut reads = reads(&args.prompt, &args.schema, &args.model);
    reads.extend(args.config.files());
    let retry = retried(args)?;
    reads.extend(args.retry.retry_ids.iter().map(|path| (IDS_FILE, path.clone())));
    let include_input = args.outputs.include_input;
    let serving = Serving::of(&args.model, &args.serve, args.pace.concurrency)?;
    reads.extend(serving.as_ref().and_then(Serving::reads).map(|path| ("the model's file", path)));
    let mut files = [output_files(&args.outputs), reads.clone()].concat();
    let model = (&args.model, serving.as_ref());
    let planned = Some(&*work_dir).filter(|_| !args.overwrite);
    let (mut question, mut reach) =
        question(&args.input, &args.prompt, &args.schema, model, include_input, planned)?;
    let format = output_paths(&args.outputs).format_of(&question.job, include_input)?;
    let (required, config) = (args.model.require_model.as_deref(), &args.config.read);
    question.plan.prices = args.pace.max_cost.and(reach.own_prices(&question.job, config));
    let answerer = reach.answerer(&question.job, required, !args.dry_run, args.form, config)?;
    let answerer = bounded(answerer, &args.pace, &reach)?;
    files.extend(question.inputs.paths().map(|input| ("the input", input.to_owned())));
    files.extend(within_dirs(&args.outputs, question.inputs.names()));
    stay_apart(&question.inputs, &args.screen.tell)?;
    let settings = Settings { work_dir: work_dir.clone(), files, ..settings(args) };
    within(settings, typed, |surroundings| {
        let work = work_options(
            (&args.pace, &args.session),
            (serving.as_ref(), reach.in_flight()),
            retry,
            None,
            surroundings,
        )?;
        surroundings.launcher = serving.map(|serving| serving.launcher(&args.serve));
        warn(&reach, surroundings);
        if args.dry_run {
            // A directory of another job, or none, tells nothing of this one's answers.
            let mean = mean_so_far(&work_dir, &question).ok().flatten();
            let expecting = Expecting { mean, ..Expecting::default() };
            preview::dry_run(&question, (&answerer, &reach), &expecting, surroundings)?;
            return Ok(None);
        }
        let on_change = args.change.on_change();
        let is_named = args.work_dir.is_some() && takes_over.is_none();
        let is_temporary = is_temporary(args, is_named, &question, format);
        let place = Place { path: work_dir, is_temporary, is_default: !is_named };
        let run = Run {
            place,
            question,
            answerer,
            work,
            outputs: output_paths(&args.outputs),
            reads,
            policy: policy(args),
            takes_over,
            on_change,
            keep_generations: args.outputs.keep_generations,
        };
        let finished = surroundings.with(|context| pipeline::run(&run, context))?;
        print_summary(&args.outputs, &finished, surroundings);
        Ok(surroundings.judge().line(Ok(&finished)))
    })
}

fn settings(args: &RunArgs) -> Settings<'_> {
    Settings {
        command: "run",
        screen: Some(&args.screen),
        note: args.config.note(),
        lines: args.input.note.clone(),
        lock_wait: args.session.lock_wait,
        allowed: args.allow_failed,
        deadline: args.session.deadline(&args.pace),
        drain_timeout: Some(args.pace.drain_timeout()),
        ..Settings::default()
    }
}

/// The work directory of a run, and one of fast-agent's whose answers are taken over: that stays as it is, so that
/// rowmill's is where it is by default.
fn work_dirs(
    args: &RunArgs,
    default: impl FnOnce() -> PathBuf,
) -> Result<(PathBuf, Option<PathBuf>), Error> {
    match &args.work_dir {
        Some(dir) if !pipeline::is_of_fast_agent(dir) => Ok((dir.clone(), None)),
        Some(dir) if args.resume => Ok((default(), Some(dir.clone()))),
        Some(dir) => Err(Error::OfFastAgent { work_dir: dir.clone() }),
        None => Ok((default(), None)),
    }
}

/// Whether the work directory goes once all is done; `is_named` says that the command line names it. Where lines out
/// are not spelled as the input's it stays as well: such an output does not say enough to go on from.
fn is_temporary(args: &RunArgs, is_named: bool, question: &Question, format: Dialect) -> bool {
    let is_wanted = is_named || args.keep_work_dir;
    // The same command again is to make no call: what went to a pipe cannot be taken over from there.
    let is_streamed =
        matches!(Target::resolve(&args.outputs.output), Ok(Target::Stdout | Target::Stream(_)));
    // What changes can only be told where the old plan is kept; and that outputs are at their URLs,
    // or which are of which of several inputs, is told by nothing else.
    let is_needed = args.change.on_change() != OnChange::Stop
        || args.resume && is_streamed
        || !args.outputs.links.is_empty()
        || question.inputs.are_several();
    !is_wanted && !is_needed && format == question.job.dialect
}

/// Which rows that failed are tried again.
fn retried(args: &RunArgs) -> Result<Retry, Error> {
    let retry = args.retry.retry(args.resume && !args.no_retry_failed)?;
    if !args.resume && retry != Retry::None {
        let text = "--retry-class and --retry-ids choose among failed rows; add --resume";
        return Err(Error::Usage(text.to_owned()));
    }
    Ok(retry)
}

fn policy(args: &RunArgs) -> Policy {
    match (args.resume, args.overwrite) {
        (true, _) => Policy::Resume,
        (_, true) => Policy::Overwrite,
        _ => Policy::Fresh,
    }
}
