//! What each command does with its arguments.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::ProgressDrawTarget;
use serde_json::value::RawValue;

use super::args::{
    CheckArgs, Cli, Command, InputArgs, MergeArgs, ModelArgs, OutputArgs, PaceArgs, PlanArgs,
    PromptArgs, RunArgs, ScreenArgs, StatusArgs, WorkArgs,
};
use super::exit::{self, Typed};
use super::preview;
use super::signals::{self, Caught};
use super::system;
use crate::http::{Endpoint, Limits};
use crate::job::{JobSpec, Parameters, Sample, Selection};
use crate::pipeline::{
    self, Context, End, Error, Finished, OnChange, OutputPaths, Place, Policy, Question, Run,
};
use crate::plan;
use crate::policy::Allowance;
use crate::prompt;
use crate::provider::{Model, OpenAi, PASSTHROUGH, Secret};
use crate::report;
use crate::shutdown::{self, Stage};
use crate::store::{DamageKind, Manifest, WorkDir};
use crate::telemetry::{Event, Progress, Sink, Style, escape, now_ms};
use crate::work::{self, Answerer};

const DEFAULT_BASE_URL: &str = "https://api.openai.com/v1";

/// Carries out a command.
pub(super) fn dispatch(cli: Cli, arguments: &[OsString]) -> ExitCode {
    let typed = Typed(arguments);
    let result = match cli.command {
        Command::Run(args) => run(&args, &typed),
        Command::Plan(args) => plan(&args, &typed),
        Command::Work(args) => work(&args, &typed),
        Command::Merge(args) => merge(&args, &typed),
        Command::Status(args) => status(&args),
        Command::Check(args) => check(&args, &typed),
    };
    result.unwrap_or_else(|failed| {
        let mut line = exit::of_error(&failed.error, &typed);
        if matches!(failed.error, Error::Interrupted)
            && let Some(caught) = failed.caught
        {
            line.code = caught.exit_code();
        }
        line.print()
    })
}

/// A command's error, and the signal that may have led to it.
pub(super) struct Failed {
    error: Error,
    caught: Option<Caught>,
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { error: error.into(), caught: None }
    }
}

/// What a command has of its surroundings.
pub(super) struct Surroundings {
    trigger: shutdown::Trigger,
    shutdown: shutdown::Shutdown,
    caught: Caught,
    progress: Progress,
    stdout: std::io::Stdout,
    command: String,
    lock_wait: Option<Duration>,
}

impl Surroundings {
    fn new(screen: Option<&ScreenArgs>, lock_wait: Option<Duration>, typed: &Typed<'_>) -> Self {
        let (trigger, shutdown) = shutdown::channel();
        let caught = signals::install(trigger.clone());
        let progress = Progress::new(style(screen));
        let stdout = std::io::stdout();
        Self { trigger, shutdown, caught, progress, stdout, command: typed.again(), lock_wait }
    }

    pub(super) fn with<T>(
        &mut self,
        body: impl FnOnce(&mut Context<'_>) -> Result<T, Error>,
    ) -> Result<T, Failed> {
        let deadline = self.lock_wait.map(|wait| Instant::now() + wait);
        let watched = self.shutdown.clone();
        let mut wait = move || {
            let may_wait = deadline.is_some_and(|deadline| Instant::now() < deadline);
            if !may_wait || watched.stage() != Stage::Running {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
            true
        };
        let mut context = Context {
            shutdown: &self.shutdown,
            sink: &mut self.progress,
            stdout: &mut self.stdout,
            wait: &mut wait,
            command: self.command.clone(),
        };
        let result = body(&mut context);
        self.progress.emit(&Event::Ended);
        // Keeps the channel open for as long as anyone may look.
        let _ = &self.trigger;
        result.map_err(|error| Failed { error, caught: Some(self.caught.clone()) })
    }
}

fn style(screen: Option<&ScreenArgs>) -> Style {
    let stderr = || Box::new(std::io::stderr());
    match screen {
        Some(args) if !args.no_progress => match args.progress_every {
            None if std::io::stderr().is_terminal() => {
                Style::Bars(ProgressDrawTarget::stderr_with_hz(10))
            }
            every => Style::Lines(stderr(), every),
        },
        _ => Style::Quiet(stderr()),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn run(args: &RunArgs, typed: &Typed<'_>) -> Result<ExitCode, Failed> {
    check_stdout(&args.outputs)?;
    let question = question(&args.input, &args.prompt, &args.model, args.outputs.include_input)?;
    let key = api_key(args.model.api_key_file.as_deref())?;
    let answerer = answerer(&question.job, question.plan.base_url.as_deref(), key)?;
    let mut surroundings = Surroundings::new(Some(&args.screen), args.pace.lock_wait, typed);
    if args.dry_run {
        return preview::dry_run(&question, &answerer, &mut surroundings);
    }
    let policy = match (args.resume, args.overwrite) {
        (true, _) => Policy::Resume,
        (_, true) => Policy::Overwrite,
        _ => Policy::Fresh,
    };
    let on_change = args.change.on_change();
    let default_dir = || default_work_dir(&args.outputs.output, &question.input);
    let place = Place {
        path: args.work_dir.clone().unwrap_or_else(default_dir),
        // What changes can only be told where the old plan is kept.
        is_temporary: args.work_dir.is_none() && !args.keep_work_dir && on_change == OnChange::Stop,
    };
    let work = work_options(&args.pace, args.resume, None, &mut surroundings)?;
    let outputs = output_paths(&args.outputs);
    let reads = reads(&args.prompt, &args.model);
    let keep_generations = args.keep_generations;
    let run = Run {
        place,
        question,
        answerer,
        work,
        outputs,
        reads,
        policy,
        on_change,
        keep_generations,
    };
    let finished = surroundings.with(|context| pipeline::run(&run, context))?;
    print_summary(&args.outputs, &finished);
    Ok(finish(&finished, args.allow_failed, &surroundings.caught, typed))
}

/// The code of a command that did not fail, with the line that belongs to it.
fn finish(
    finished: &Finished,
    allowed: Option<Allowance>,
    caught: &Caught,
    typed: &Typed<'_>,
) -> ExitCode {
    let counts = &finished.counts;
    let done = counts.ok + counts.failed;
    let left = finished.wanted.saturating_sub(done) + counts.retryable;
    match &finished.end {
        End::Drained => exit::of_drain(caught.exit_code(), left, typed).print(),
        End::Stopped(reason) => exit::of_stop(reason, left, typed).print(),
        End::Published | End::Unchanged | End::Worked => {
            let failed = counts.failed;
            let is_fine = failed == 0 || allowed.is_some_and(|a| a.allows(failed, done));
            if is_fine {
                return ExitCode::from(exit::OK);
            }
            let is_published = finished.end != End::Worked;
            exit::of_failed(failed, done, is_published, typed).print()
        }
    }
}

fn plan(args: &PlanArgs, typed: &Typed<'_>) -> Result<ExitCode, Failed> {
    let question = question(&args.input, &args.prompt, &args.model, args.include_input)?;
    let key = api_key(args.model.api_key_file.as_deref())?;
    // Made only to see whether it can be.
    answerer(&question.job, question.plan.base_url.as_deref(), key)?;
    let mut surroundings = Surroundings::new(Some(&args.screen), args.lock_wait, typed);
    let place = Place { path: args.work_dir.clone(), is_temporary: false };
    let policy = if args.overwrite { Policy::Overwrite } else { Policy::Fresh };
    let on_change = args.change.on_change();
    let manifest = surroundings
        .with(|context| pipeline::plan(&place, &question, policy, on_change, context))?;
    exit::say(&format!(
        "planned: {} of {} rows in {} shards",
        manifest.wanted(),
        manifest.source.rows,
        manifest.open_shards().count()
    ));
    Ok(ExitCode::from(exit::OK))
}

fn work(args: &WorkArgs, typed: &Typed<'_>) -> Result<ExitCode, Failed> {
    let mut surroundings = Surroundings::new(Some(&args.screen), args.pace.lock_wait, typed);
    let shards = args.shard.as_ref().map(|list| list.0.clone());
    let options = work_options(&args.pace, args.retry_failed, shards, &mut surroundings)?;
    let key = api_key(args.api_key_file.as_deref())?;
    let base_url = args.base_url.clone().or_else(|| variable("OPENAI_BASE_URL"));
    let answerer = |manifest: &Manifest| {
        let planned = manifest.base_url.as_deref();
        answerer(&manifest.job, base_url.as_deref().or(planned), key.clone())
    };
    let input = args.input.as_deref();
    let finished = surroundings
        .with(|context| pipeline::work(&args.work_dir, input, &answerer, &options, context))?;
    Ok(finish(&finished, args.allow_failed, &surroundings.caught, typed))
}

fn merge(args: &MergeArgs, typed: &Typed<'_>) -> Result<ExitCode, Failed> {
    check_stdout(&args.outputs)?;
    let mut surroundings = Surroundings::new(None, args.lock_wait, typed);
    let policy = if args.overwrite { Policy::Overwrite } else { Policy::Fresh };
    let outputs = output_paths(&args.outputs);
    let include_input = args.outputs.include_input;
    let finished = surroundings.with(|context| {
        pipeline::merge(&args.work_dir, &outputs, policy, include_input, cores(), context)
    })?;
    print_summary(&args.outputs, &finished);
    Ok(finish(&finished, args.allow_failed, &surroundings.caught, typed))
}

fn status(args: &StatusArgs) -> Result<ExitCode, Failed> {
    let dir = WorkDir::open(&args.work_dir)?;
    let status = report::status(&dir, now_ms())?;
    if args.json {
        exit::show(&serde_json::to_string_pretty(&status).unwrap_or_default());
    } else {
        for line in status.to_string().lines() {
            exit::show(&escape(line));
        }
    }
    Ok(ExitCode::from(exit::OK))
}

fn check(args: &CheckArgs, typed: &Typed<'_>) -> Result<ExitCode, Failed> {
    let mut surroundings = Surroundings::new(None, args.lock_wait, typed);
    let (manifest, found, left) =
        surroundings.with(|context| pipeline::check(&args.work_dir, args.repair, context))?;
    for damage in &found {
        let kind = match damage.kind {
            DamageKind::Residue => "residue",
            DamageKind::StaleIndex => "stale index",
            DamageKind::LostRecords => "lost records",
            DamageKind::Fatal => "fatal",
        };
        let file = escape(&damage.file);
        let reason = escape(&damage.reason);
        let (offset, length) = (damage.offset, damage.length);
        exit::show(&format!("{kind}: {file} at byte {offset}, {length} bytes: {reason}"));
    }
    let is_bad = |kind| matches!(kind, DamageKind::LostRecords | DamageKind::Fatal);
    let bad = left.iter().filter(|damage| is_bad(damage.kind)).count();
    let repaired = found.len() - left.len();
    exit::show(&format!(
        "{} shards read, {} things found, {repaired} repaired",
        manifest.open_shards().count(),
        found.len()
    ));
    if bad == 0 {
        return Ok(ExitCode::from(exit::OK));
    }
    let next = if args.repair {
        "restore what is named above from a copy".to_owned()
    } else {
        format!("{} --repair", typed.again())
    };
    let what = format!("{bad} things are damaged");
    Ok(exit::Line { code: exit::DAMAGED, what, safe: "nothing was deleted", next }.print())
}

fn question(
    input: &InputArgs,
    prompt: &PromptArgs,
    model: &ModelArgs,
    include_input: bool,
) -> Result<Question, Failed> {
    let file = input.file.as_ref().or(input.input.as_ref()).cloned().unwrap_or_default();
    let base_url = match model.model.as_str() {
        PASSTHROUGH => None,
        _ => Some(
            model
                .base_url
                .clone()
                .or_else(|| variable("OPENAI_BASE_URL"))
                .unwrap_or_else(|| DEFAULT_BASE_URL.to_owned()),
        ),
    };
    let text = match (&prompt.prompt, &prompt.template) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => read_text(path)?,
        (None, None) => prompt::DEFAULT.to_owned(),
    };
    let job = JobSpec {
        model: model.model.clone(),
        prompt: text,
        instruction: prompt.instruction.as_deref().map(read_text).transpose()?,
        parameters: parameters(model)?,
        id_field: input.id_field.clone(),
        selection: Selection {
            offset: input.offset,
            limit: input.limit,
            sample: input.sample.map(|rows| Sample { rows, seed: input.seed }),
        },
        on_duplicate: input.on_duplicate.into(),
        on_missing_field: prompt.on_missing_field.into(),
        max_row_bytes: input.max_row_bytes,
        include_input,
    };
    let plan = plan::Options {
        shard_rows: input.shard_rows.map(|rows| rows as usize),
        threads: cores().min(8),
        base_url,
        replaces: Vec::new(),
        is_spooled: false,
        now_ms: now_ms(),
    };
    Ok(Question { input: file, job, plan })
}

fn parameters(model: &ModelArgs) -> Result<Parameters, Failed> {
    let mut parameters = Parameters::new();
    let numbers = [
        ("temperature", model.temperature.clone()),
        ("max_tokens", model.max_tokens.map(|tokens| tokens.to_string())),
        ("top_p", model.top_p.clone()),
    ];
    let given = model.params.iter().map(|it| (it.name.as_str(), it.value.clone()));
    let numbers = numbers.into_iter().filter_map(|(name, value)| {
        // They were read as JSON numbers.
        Some((name, RawValue::from_string(value?).ok()?))
    });
    for (name, value) in numbers.chain(given) {
        if parameters.insert(name.to_owned(), value).is_some() {
            return Err(Error::Usage(format!("the parameter {name} is given twice")).into());
        }
    }
    Ok(parameters)
}

fn read_text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path)
        .map_err(|source| crate::input::Error::Unreadable { path: path.to_owned(), source }.into())
}

/// A variable of the environment, unless it is empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn api_key(file: Option<&Path>) -> Result<Option<Secret>, Failed> {
    match file {
        Some(path) => match Secret::new(&read_text(path)?) {
            Some(key) => Ok(Some(key)),
            None => Err(Error::Usage(format!("{} holds no key", path.display())).into()),
        },
        None => Ok(variable("OPENAI_API_KEY").as_deref().and_then(Secret::new)),
    }
}

fn answerer(job: &JobSpec, base_url: Option<&str>, key: Option<Secret>) -> Result<Answerer, Error> {
    if job.model == PASSTHROUGH {
        return Ok(Answerer { model: Model::Passthrough, endpoint: None });
    }
    let usage = |error: &dyn std::fmt::Display| Error::Usage(error.to_string());
    let endpoint =
        Endpoint::parse(base_url.unwrap_or(DEFAULT_BASE_URL)).map_err(|error| usage(&error))?;
    let model = Model::OpenAi(OpenAi::new(job, key).map_err(|error| usage(&error))?);
    Ok(Answerer { model, endpoint: Some(endpoint) })
}

fn work_options(
    pace: &PaceArgs,
    retry_failed: bool,
    shards: Option<Vec<u32>>,
    surroundings: &mut Surroundings,
) -> Result<work::Options, Error> {
    const BODY: usize = 32 << 20;
    let parallel = pace.parallel.map_or_else(cores, usize::from).min(256);
    let wanted = pace.concurrency as usize;
    let system::Room { workers: parallel, connections: concurrency, too_few } =
        system::room(parallel, wanted)?;
    if concurrency < wanted {
        surroundings.progress.emit(&Event::Warning(format!(
            "only {concurrency} of {wanted} requests can be in flight: the limit on open files \
             allows no more (ulimit -n)"
        )));
    }
    Ok(work::Options {
        parallel,
        fewer_will_do: pace.parallel.is_none(),
        too_few_files: too_few,
        concurrency,
        retries: pace.retries,
        limits: Limits {
            connect: Duration::from_secs(10).min(pace.timeout),
            total: pace.timeout,
            body: BODY,
        },
        max_outage: pace.max_outage,
        drain_timeout: pace.drain_timeout,
        max_errors: pace.max_errors,
        durability: pace.durability,
        retry_failed,
        shards,
    })
}

fn output_paths(args: &OutputArgs) -> OutputPaths {
    OutputPaths {
        output: args.output.clone(),
        errors: args.error_output.clone(),
        telemetry: args.telemetry_output.clone(),
        summary: args.summary_output.clone(),
    }
}

/// The files that a command reads besides its input.
fn reads(prompt: &PromptArgs, model: &ModelArgs) -> Vec<(&'static str, PathBuf)> {
    let files = [
        ("the file of --template", &prompt.template),
        ("the file of --instruction", &prompt.instruction),
        ("the file of --api-key-file", &model.api_key_file),
    ];
    files.into_iter().filter_map(|(what, path)| Some((what, path.clone()?))).collect()
}

/// `OUTPUT.rowmill`; beside where the command is typed when the output is no file.
fn default_work_dir(output: &Path, input: &Path) -> PathBuf {
    let mut name = if output == Path::new("-") || output.starts_with("/dev") {
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

fn check_stdout(args: &OutputArgs) -> Result<(), Failed> {
    if args.output == Path::new("-") && args.final_summary {
        let text = "--final-summary and --output - both want standard output; use --summary-output";
        return Err(Error::Usage(text.to_owned()).into());
    }
    Ok(())
}

fn print_summary(args: &OutputArgs, finished: &Finished) {
    if args.no_final_summary || args.output == Path::new("-") {
        return;
    }
    if let Some(summary) = &finished.summary {
        exit::show(summary.trim_end());
    }
}
