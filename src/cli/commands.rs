//! What each command does with its arguments.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::access::key_file;
use super::args::{
    Cli, Command, FormArgs, MergeArgs, ModelArgs, OutputArgs, PaceArgs, PlanArgs, PromptArgs,
    SchemaArgs, SessionArgs, TellArgs, WorkArgs,
};
use super::estimate::estimate;
use super::exit::{self, Line};
use super::filter::filter;
use super::names::NamedWays;
use super::pool::Ways;
use super::proxy::install_proxies;
use super::question::question;
use super::reach::Reach;
use super::routes::Routes;
use super::run::run;
use super::serving::Serving;
use super::surroundings::{Failed, Settings, Surroundings, cores};
use super::system;
use super::typed::Typed;
use super::{files, look, models, preview};
use crate::http::Link;
use crate::job::Dialect;
use crate::pipeline::{self, Error, Finished, Merging, OutputPaths, Place, Policy};
use crate::policy::Durability;
use crate::store::{Manifest, WorkDir};
use crate::telemetry::{Event, Sink};
use crate::work::{self, Answerer, Retry};

/// Carries out a command.
pub(super) fn dispatch(mut cli: Cli, arguments: &[OsString]) -> ExitCode {
    let typed = Typed(arguments);
    if let Err(error) = cli.take_links() {
        return exit::of_error(&error, &typed).print();
    }
    let is_local =
        matches!(cli.command, Command::Status(_) | Command::Check(_) | Command::Files(_));
    if let Err(error) = if is_local { Ok(()) } else { install_proxies() } {
        return exit::of_error(&error, &typed).print();
    }
    let result = match cli.command {
        Command::Run(mut args) => {
            settled(args.look().and_then(|()| args.settle())).and_then(|()| run(&args, &typed))
        }
        Command::Plan(mut args) => {
            settled(args.look().and_then(|()| args.settle())).and_then(|()| plan(&args, &typed))
        }
        Command::Work(mut args) => settled(args.settle()).and_then(|()| work(&args, &typed)),
        Command::Merge(mut args) => {
            let planned = planned(&args.work_dir).map_or(Dialect::Rows, |it| it.job.dialect);
            if args.partial {
                args.outputs.settle_beside(&args.work_dir);
            }
            settled(args.outputs.settle(planned)).and_then(|()| merge(&args, &typed))
        }
        Command::Status(args) => look::status(&args),
        Command::Check(args) => look::check(&args, &typed),
        Command::Filter(args) => filter(*args, &typed),
        Command::Estimate(mut args) => {
            settled(args.look().and_then(|()| args.settle())).and_then(|()| estimate(&args, &typed))
        }
        Command::Models(args) => models::models(args, &typed),
        Command::Files(command) => Ok(files::files(command, &typed)),
    };
    result.unwrap_or_else(|failed| exit::of_error(&failed.error, &typed).print())
}

fn settled(result: Result<(), Error>) -> Result<(), Failed> {
    result.map_err(Failed::from)
}

/// Runs a command in its surroundings, unless it is too late for it, and ends it there.
pub(super) fn within(
    settings: Settings<'_>,
    typed: &Typed<'_>,
    body: impl FnOnce(&mut Surroundings<'_>) -> Result<Option<Line>, Failed>,
) -> Result<ExitCode, Failed> {
    let mut surroundings = Surroundings::new(settings, typed)?;
    let result = match surroundings.is_too_late() {
        Some(line) => Ok(Some(line)),
        None => body(&mut surroundings),
    };
    Ok(surroundings.close(result))
}

/// Whoever answers, with the bounds that options set.
pub(super) fn bounded(
    answerer: Answerer,
    pace: &PaceArgs,
    reach: &Reach,
) -> Result<Answerer, Error> {
    let answerer = answerer.rated(pace.rates());
    // What has no price cannot be kept below a cap.
    match reach.unpriced(&answerer).filter(|_| pace.max_cost.is_some()) {
        None => Ok(answerer),
        Some(what) => {
            let what = format!("--max-cost needs to know what calls cost, and {what}");
            Err(Error::Usage(what))
        }
    }
}

fn plan(args: &PlanArgs, typed: &Typed<'_>) -> Result<ExitCode, Failed> {
    let serving = Serving::of(&args.model, &args.serve, None)?;
    let model = (&args.model, serving.as_ref());
    let planned = Some(&*args.work_dir).filter(|_| !args.overwrite);
    let (question, mut reach) =
        question(&args.input, &args.prompt, &args.schema, model, args.include_input, planned)?;
    if args.model.require_model.is_some() {
        let text =
            "--require-model is said to those who call, run and work: a plan does not keep it";
        return Err(Error::Usage(text.to_owned()).into());
    }
    // Made only to see whether it can be.
    reach.answerer(&question.job, None, false, FormArgs::default(), &args.config.read)?;
    let mut files = reads(&args.prompt, &args.schema, &args.model);
    files.extend(args.config.files());
    files.extend(question.inputs.paths().map(|input| ("the input", input.to_owned())));
    stay_apart(&question.inputs, &args.screen.tell)?;
    let settings = Settings {
        command: "plan",
        screen: Some(&args.screen),
        note: args.config.note(),
        lines: args.input.note.clone(),
        lock_wait: args.lock_wait,
        work_dir: args.work_dir.clone(),
        files,
        ..Settings::default()
    };
    within(settings, typed, |surroundings| {
        warn(&reach, surroundings);
        let place = Place { path: args.work_dir.clone(), is_temporary: false, is_default: false };
        let policy = if args.overwrite { Policy::Overwrite } else { Policy::Fresh };
        let on_change = args.change.on_change();
        let manifest = surroundings
            .with(|context| pipeline::plan(&place, &question, policy, on_change, context))?;
        if !surroundings.is_quiet() {
            exit::say(&format!(
                "planned: {} of {} rows{} in {} shards{}",
                manifest.selected - manifest.skipped,
                manifest.rows(),
                preview::times_variants(&manifest),
                manifest.open_shards().count(),
                preview::of_them_twins(&manifest)
            ));
        }
        Ok(None)
    })
}

fn work(args: &WorkArgs, typed: &Typed<'_>) -> Result<ExitCode, Failed> {
    let mut files: Vec<_> = args.api_key_file.iter().map(|path| (KEY_FILE, path.clone())).collect();
    files.extend(args.retry.retry_ids.iter().map(|path| (IDS_FILE, path.clone())));
    files.extend(args.config.files());
    files.extend(args.input.iter().map(|input| ("the input", input.clone())));
    files.extend(planned_inputs(planned_for_log(&args.work_dir, &args.screen.tell).as_ref()));
    let settings = Settings {
        command: "work",
        screen: Some(&args.screen),
        note: args.config.note(),
        lock_wait: args.session.lock_wait,
        allowed: args.allow_failed,
        deadline: args.session.deadline(&args.pace),
        drain_timeout: Some(args.pace.drain_timeout()),
        work_dir: args.work_dir.clone(),
        files,
        ..Settings::default()
    };
    within(settings, typed, |surroundings| {
        let shards = args.shard.as_ref().map(|list| list.0.clone());
        let retry = args.retry.retry(args.retry_failed)?;
        let planned = WorkDir::open(&args.work_dir)?.manifest()?;
        let planned = planned.as_ref();
        let serving =
            planned.map(|manifest| Serving::of_plan(args, manifest)).transpose()?.flatten();
        let has_several = |it: &&Manifest| it.pool.is_some() || !it.job.names.is_empty();
        let of_pool = planned.filter(has_several);
        let of_pool = of_pool.map(|manifest| planned_reach(manifest, args, false)).transpose()?;
        let in_flight = of_pool.and_then(|reach| reach.in_flight());
        let options = work_options(
            (&args.pace, &args.session),
            (serving.as_ref(), in_flight),
            retry,
            shards,
            surroundings,
        )?;
        let is_served = serving.is_some();
        surroundings.launcher = serving.map(|serving| serving.launcher(&args.serve));
        let answerer = |manifest: &Manifest| {
            let mut reach = planned_reach(manifest, args, is_served)?;
            let (required, config) = (args.require_model.as_deref(), &args.config.read);
            let answerer = reach.answerer(&manifest.job, required, true, args.form, config)?;
            bounded(answerer, &args.pace, &reach)
        };
        let input = args.input.as_deref();
        let finished = surroundings
            .with(|context| pipeline::work(&args.work_dir, input, &answerer, &options, context))?;
        Ok(surroundings.judge().line(Ok(&finished)))
    })
}

/// The way to whoever a plan is for.
fn planned_reach(manifest: &Manifest, args: &WorkArgs, is_served: bool) -> Result<Reach, Error> {
    let config = &args.config.read;
    if !manifest.job.names.is_empty() {
        return Ok(Reach::Named(Box::new(NamedWays::planned(manifest, args)?)));
    }
    let Some(pool) = &manifest.pool else {
        return Routes::planned(manifest, args, is_served).map(Reach::Models);
    };
    if args.base_url.is_some() || args.api_key_file.is_some() {
        let text = "--base-url and --api-key-file are about one endpoint, and the plan is for a pool \
                    of several";
        return Err(Error::Usage(text.to_owned()));
    }
    let ways = Ways::planned(manifest, pool, config, args.has_timeout)?;
    Ok(Reach::Pool(Box::new(ways)))
}

/// Tells what a person should know of who answers.
pub(super) fn warn(reach: &Reach, surroundings: &mut Surroundings<'_>) {
    for text in reach.warnings() {
        surroundings.progress.emit(&Event::Warning(text.clone()));
    }
}

fn merge(args: &MergeArgs, typed: &Typed<'_>) -> Result<ExitCode, Failed> {
    check_stdout(&args.outputs, args.tell.quiet)?;
    let mut files = output_files(&args.outputs);
    let planned = planned_for_log(&args.work_dir, &args.tell);
    let names = planned.iter().flat_map(|it| &it.sources).filter_map(|it| it.name.as_deref());
    files.extend(within_dirs(&args.outputs, names));
    files.extend(planned_inputs(planned.as_ref()));
    let settings = Settings {
        command: "merge",
        tell: Some(&args.tell),
        lock_wait: args.lock_wait,
        allowed: args.allow_failed,
        work_dir: args.work_dir.clone(),
        files,
        ..Settings::default()
    };
    within(settings, typed, |surroundings| {
        let policy = if args.overwrite { Policy::Overwrite } else { Policy::Fresh };
        let merging = Merging {
            outputs: output_paths(&args.outputs),
            policy,
            include_input: args.outputs.include_input,
            is_partial: args.partial,
            threads: cores(),
            keep_generations: args.outputs.keep_generations,
        };
        let finished =
            surroundings.with(|context| pipeline::merge(&args.work_dir, &merging, context))?;
        if args.partial && !surroundings.is_quiet() {
            exit::say(&exit::told_of_partial(&finished, typed));
        }
        print_summary(&args.outputs, &finished, surroundings);
        Ok(surroundings.judge().line(Ok(&finished)))
    })
}

pub(super) fn work_options(
    (pace, session): (&PaceArgs, &SessionArgs),
    (serving, in_flight): (Option<&Serving>, Option<u32>),
    retry: Retry,
    shards: Option<Vec<u32>>,
    surroundings: &mut Surroundings<'_>,
) -> Result<work::Options, Error> {
    // Such a server queues what it cannot take at once, and tells nobody to go slower.
    let is_served = serving.is_some();
    let in_flight = serving.and_then(Serving::default_concurrency).or(in_flight);
    let is_said = pace.concurrency.or(in_flight).is_some();
    let parallel_calls = session.parallel.filter(|_| !is_said);
    let in_flight = in_flight.or(parallel_calls.map(u32::from));
    if let Some(parallel) = parallel_calls {
        let text = format!(
            "--parallel {parallel} without -c: at most {parallel} calls at once; -c says how many in any case"
        );
        surroundings.progress.emit(&Event::Note(text));
    }
    let parallel = session.parallel.map_or_else(cores, usize::from).min(256);
    let wanted = pace.in_flight(in_flight);
    let system::Room { workers: parallel, connections: concurrency, too_few } =
        system::room(parallel, wanted)?;
    if let Some(warning) = system::told_of_room(concurrency, wanted) {
        surroundings.progress.emit(&Event::Warning(warning));
    }
    Ok(work::Options {
        parallel,
        fewer_will_do: session.parallel.is_none(),
        too_few_files: too_few,
        is_fixed: pace.fixed_concurrency || is_served,
        durability: session.durability,
        retry,
        shards,
        ..paced(pace, concurrency)
    })
}

/// How calls are made, so many at a time, by one worker that knows nothing of shards.
pub(super) fn paced(pace: &PaceArgs, concurrency: usize) -> work::Options {
    work::Options {
        parallel: 1,
        fewer_will_do: true,
        too_few_files: None,
        concurrency,
        is_fixed: pace.fixed_concurrency,
        retries: pace.retries(),
        limits: pace.limits(),
        max_outage: pace.max_outage(),
        drain_timeout: pace.drain_timeout(),
        max_errors: pace.max_errors,
        max_cost: pace.max_cost,
        durability: Durability::Strict,
        retry: Retry::None,
        shards: None,
    }
}

pub(super) fn output_paths(args: &OutputArgs) -> OutputPaths {
    OutputPaths {
        output: args.output.clone(),
        format: args.output_format,
        errors: args.error_output.clone(),
        telemetry: args.telemetry_output.clone(),
        delta: args.output_delta.clone(),
        summary: args.summary_output.clone(),
        links: args.links.clone(),
        staging: args.output_tmp_dir.clone(),
    }
}

/// The outputs that are files, as messages name them.
pub(super) fn output_files(args: &OutputArgs) -> Vec<(&'static str, PathBuf)> {
    let sides = [
        ("the file of --error-output", &args.error_output),
        ("the file of --telemetry-output", &args.telemetry_output),
        ("the file of --output-delta", &args.output_delta),
        ("the file of --summary-output", &args.summary_output),
    ];
    let sides = sides.into_iter().filter_map(|(what, path)| Some((what, path.clone()?)));
    std::iter::once(("the file of --output", args.output.clone())).chain(sides).collect()
}

/// The outputs of several inputs, which have these names in the directories of the outputs.
pub(super) fn within_dirs<'n>(
    args: &OutputArgs,
    names: impl Iterator<Item = &'n str>,
) -> Vec<(&'static str, PathBuf)> {
    let sides = [&args.error_output, &args.telemetry_output, &args.output_delta];
    let dirs = || sides.into_iter().flatten().chain([&args.output]);
    names.flat_map(|name| dirs().map(move |dir| ("an output", dir.join(name)))).collect()
}

/// Refuses a log that would be an input the next time.
pub(super) fn stay_apart(inputs: &pipeline::Inputs, tell: &TellArgs) -> Result<(), Error> {
    let mut log = tell.log_file.iter();
    log.try_for_each(|log| inputs.stay_apart_from("--log-file", log))
}

/// The plan in a work directory, where a log is wanted that might be one of its files.
fn planned_for_log(work_dir: &Path, tell: &TellArgs) -> Option<Manifest> {
    tell.log_file.as_ref()?;
    planned(work_dir)
}

/// The plan in a work directory, if there is one. What cannot be read is told where it is needed.
fn planned(work_dir: &Path) -> Option<Manifest> {
    WorkDir::open(work_dir).ok()?.manifest().ok()?
}

/// The inputs of a plan.
fn planned_inputs(manifest: Option<&Manifest>) -> Vec<(&'static str, PathBuf)> {
    let paths = manifest.into_iter().flat_map(|it| &it.sources).filter_map(|it| it.path.as_ref());
    paths.map(|path| ("the input", PathBuf::from(path))).collect()
}

const KEY_FILE: &str = "the file of --api-key-file";
pub(super) const IDS_FILE: &str = "the file of --retry-ids";

/// The files that a command reads besides its input.
pub(super) fn reads(
    prompt: &PromptArgs,
    schema: &SchemaArgs,
    model: &ModelArgs,
) -> Vec<(&'static str, PathBuf)> {
    let files = [
        ("the file of --template", prompt.template.clone()),
        ("the file of --instruction", prompt.instruction.clone()),
        ("the file of the schema", schema.file()),
    ];
    let models = std::iter::once(model).chain(&model.others);
    let keys = models.flat_map(|model| {
        let of_config = model.endpoint.as_deref().and_then(key_file);
        [(KEY_FILE, model.api_key_file.clone()), ("the file of the key", of_config)]
    });
    files.into_iter().chain(keys).filter_map(|(what, path)| Some((what, path?))).collect()
}

/// `OUTPUT.rowmill`; beside where the command is typed when the output is no file.
pub(super) fn default_work_dir(output: &Path, inputs: &[PathBuf]) -> PathBuf {
    let input = inputs.first().map_or(Path::new(""), PathBuf::as_path);
    if inputs.len() > 1 || input.is_dir() {
        // Beside the directory of the outputs, however that is spelled.
        let name = output.file_name().unwrap_or("outputs".as_ref());
        let mut name = output.with_file_name(name).into_os_string();
        name.push(".rowmill");
        return PathBuf::from(name);
    }
    let is_url = |path: &Path| path.to_str().is_some_and(Link::is_meant);
    let mut name = if is_url(output) {
        // Beside where the command is typed.
        output.file_name().unwrap_or("output".as_ref()).to_owned()
    } else if output == Path::new("-") || output.starts_with("/dev") {
        match input.file_name() {
            Some(name) if input != Path::new("-") => name.to_owned(),
            _ => "stdin".into(),
        }
    } else {
        output.as_os_str().to_owned()
    };
    name.push(".rowmill");
    PathBuf::from(name)
}

pub(super) fn check_stdout(args: &OutputArgs, is_quiet: bool) -> Result<(), Failed> {
    if is_quiet && args.final_summary {
        let text = "--quiet prints no summary, and --final-summary asks for one; use \
                    --summary-output";
        return Err(Error::Usage(text.to_owned()).into());
    }
    if args.output == Path::new("-") && args.final_summary {
        let text = "--final-summary and --output - both want standard output; use --summary-output";
        return Err(Error::Usage(text.to_owned()).into());
    }
    Ok(())
}

pub(super) fn print_summary(
    args: &OutputArgs,
    finished: &Finished,
    surroundings: &Surroundings<'_>,
) {
    if surroundings.is_quiet() || args.no_final_summary || args.output == Path::new("-") {
        return;
    }
    if let Some(summary) = &finished.summary {
        exit::show(summary.trim_end());
    }
}
