//! The one place that puts the stages in order, and decides which of them there is anything to do
//! for.
//!
//! A resumption is the stages run again: the plan is compared instead of made, the work goes on with
//! what has no outcome, and nothing is published that is published already.

mod errors;
mod preview;
mod publish;
mod targets;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::input::Source;
use crate::job::JobSpec;
use crate::plan;
use crate::shutdown::Shutdown;
use crate::store::{Counts, Damage, Held, Holder, Kind, Manifest, OutputLock, WorkDir};
use crate::telemetry::{Event, Sink};
use crate::work::{self, Answerer, Ending, StopReason};

pub use errors::Error;
pub use preview::{Preview, PreviewedRow};
pub use targets::OutputPaths;
use targets::Targets;

/// What every command needs of its surroundings.
pub struct Context<'a> {
    /// Whether the run is to end.
    pub shutdown: &'a Shutdown,
    /// Who is told what happens.
    pub sink: &'a mut dyn Sink,
    /// Standard output, for outputs that go there.
    pub stdout: &'a mut (dyn Write + Send),
    /// Asked whether to go on waiting for a lock; it may sleep.
    pub wait: &'a mut dyn FnMut() -> bool,
    /// The command line, for those who wonder who holds a lock.
    pub command: String,
}

/// A work directory and what is to become of it.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it goes once all rows have answers and are published.
    pub is_temporary: bool,
}

/// What is asked, of which rows.
#[derive(Debug, Clone)]
pub struct Question {
    /// The input; `-` for standard input.
    pub input: PathBuf,
    /// The job.
    pub job: JobSpec,
    /// How a plan is made.
    pub plan: plan::Options,
}

/// How to go about what is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Refuse.
    Fresh,
    /// Go on with it.
    Resume,
    /// Begin anew in its place.
    Overwrite,
}

/// Plan, work and merge in one go.
#[derive(Debug, Clone)]
pub struct Run {
    /// The work directory.
    pub place: Place,
    /// What is asked.
    pub question: Question,
    /// Who answers.
    pub answerer: Answerer,
    /// How the work is done.
    pub work: work::Options,
    /// Where outputs go.
    pub outputs: OutputPaths,
    /// How to go about what is there already.
    pub policy: Policy,
}

/// How a command ended that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Outputs were published.
    Published,
    /// There was nothing to do.
    Unchanged,
    /// The work is done; publishing is for another command.
    Worked,
    /// The run was asked to end.
    Drained,
    /// The run ended itself.
    Stopped(StopReason),
}

/// What a command came to.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub end: End,
    /// Rows with and without an answer, as far as it got.
    pub counts: Counts,
    /// Rows that are to have an outcome.
    pub wanted: u64,
    /// The summary, as JSON, where outputs were or are published.
    pub summary: Option<String>,
    /// Whether the work directory is still there.
    pub is_dir_kept: bool,
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn hold(path: &Path, context: &mut Context<'_>) -> Result<Held, Error> {
    let holder = Holder::this_process(&context.command, now_ms());
    Ok(Held::acquire(path, holder, context.wait)?)
}

/// Runs all stages, as far as there is anything to do for them.
///
/// # Errors
/// See [`Error`]; what was finished before it is kept.
pub fn run(run: &Run, context: &mut Context<'_>) -> Result<Finished, Error> {
    let started_ms = now_ms();
    let Run { place, question, policy, .. } = run;
    let targets = Targets::resolve(&run.outputs, Some(&question.input), &place.path)?;
    refuse_unasked(run, &targets)?;
    let source = open_ahead(&question.input)?;
    let mut dir = hold(&place.path, context)?;
    let holder = Holder::this_process(&context.command, started_ms);
    let ready = OutputLock::acquire(&targets.output, &holder).map_err(Error::from);
    let ready = ready.and_then(|lock| {
        // While this process waited, another may have finished.
        refuse_unasked(run, &targets)?;
        let (manifest, source) = prepare(run, &dir, source, &targets, context)?;
        Ok((lock, manifest, source))
    });
    let (_output, manifest, source) = match ready {
        Ok(ready) => ready,
        Err(error) => {
            give_up(dir);
            return Err(error);
        }
    };
    targets.sweep(&dir)?;
    let publication = publish::Publication {
        manifest: &manifest,
        targets: &targets,
        base_url: question.plan.base_url.as_deref(),
        include_input: question.job.include_input,
        threads: question.plan.threads,
        started_ms,
    };
    if let Some(finished) = publish::unchanged(&dir, &publication)? {
        return Ok(finished);
    }
    publish::may_take_places(&dir, &publication, *policy == Policy::Overwrite)?;
    let finished = work_and_publish(run, &mut dir, &source, &publication, context)?;
    let is_all_ok = finished.counts.failed == 0;
    let is_done = matches!(finished.end, End::Published | End::Unchanged);
    if place.is_temporary && is_all_ok && is_done {
        dir.remove()?;
        return Ok(Finished { is_dir_kept: false, ..finished });
    }
    Ok(finished)
}

/// Refuses to begin anew where there is a run or an output, unless the command says so.
fn refuse_unasked(run: &Run, targets: &Targets) -> Result<(), Error> {
    if run.policy != Policy::Fresh {
        return Ok(());
    }
    if WorkDir::inspect(&run.place.path)? == (Kind::Ours { planned: true }) {
        return Err(Error::Unfinished { work_dir: run.place.path.clone() });
    }
    match targets.first_there() {
        Some(path) => Err(Error::OutputExists { path }),
        None => Ok(()),
    }
}

/// Works what is open and publishes it. A journal that turns out damaged while outputs are made of
/// it is worked again first.
fn work_and_publish(
    run: &Run,
    dir: &mut Held,
    source: &Source,
    publication: &publish::Publication<'_>,
    context: &mut Context<'_>,
) -> Result<Finished, Error> {
    let manifest = publication.manifest;
    let mut session = publish::Session::default();
    loop {
        let report = work::run(
            dir,
            manifest,
            source,
            &run.answerer,
            &run.work,
            context.shutdown,
            context.sink,
        )?;
        session.add(&report);
        if report.ending != Ending::Complete {
            return interrupted(dir, manifest, report.ending);
        }
        match publish::publish(dir, publication, &session, context.shutdown, context.stdout) {
            Err(Error::Unsound { shard, reason }) if session.may_repair() => {
                let text = format!("shard {shard} is worked again: {reason}");
                context.sink.emit(&Event::Warning(text));
                dir.unseal(shard)?;
            }
            result => return result,
        }
    }
}

/// What a run came to that ended before its rows were done.
fn interrupted(dir: &Held, manifest: &Manifest, ending: Ending) -> Result<Finished, Error> {
    let end = match ending {
        Ending::Stopped(reason) => End::Stopped(reason),
        Ending::Drained | Ending::Complete => End::Drained,
    };
    let counts = publish::counts(dir, manifest)?;
    Ok(Finished { end, counts, wanted: manifest.wanted(), summary: None, is_dir_kept: true })
}

/// A work directory that was made for nothing goes again; one that was there stays.
fn give_up(dir: Held) {
    let has_plan = !dir.manifest().is_ok_and(|manifest| manifest.is_none());
    if !has_plan && dir.was_created() {
        // The error that led here is the one to tell.
        let _ = dir.remove();
    }
}

/// The input, unless it must be copied first.
fn open_ahead(input: &Path) -> Result<Option<Source>, Error> {
    if is_pipe(input) { Ok(None) } else { Ok(Some(Source::open(input)?)) }
}

/// Whether an input can be read only once.
fn is_pipe(input: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    input == Path::new("-")
        || std::fs::metadata(input).is_ok_and(|meta| {
            let kind = meta.file_type();
            kind.is_fifo() || kind.is_char_device()
        })
}

/// Copies an input that can be read only once into the work directory.
fn spool(dir: &Held, input: &Path, is_second: bool) -> Result<Source, Error> {
    let path = if input == Path::new("-") {
        dir.spool_from(&mut std::io::stdin().lock(), is_second)?
    } else {
        let mut file = std::fs::File::open(input)
            .map_err(|source| crate::input::Error::Unreadable { path: input.to_owned(), source })?;
        dir.spool_from(&mut file, is_second)?
    };
    Ok(Source::open(&path)?)
}

/// Sees to it that there is a plan of this question, made now or before.
fn prepare(
    run: &Run,
    dir: &Held,
    source: Option<Source>,
    targets: &Targets,
    context: &mut Context<'_>,
) -> Result<(Manifest, Source), Error> {
    let policy = run.policy;
    match dir.manifest()? {
        Some(manifest) if policy == Policy::Resume => {
            dir.redo()?;
            let source = compare(dir, &run.question, &manifest, source, context)?;
            Ok((manifest, source))
        }
        Some(_) if policy == Policy::Fresh => {
            Err(Error::Unfinished { work_dir: dir.path().to_owned() })
        }
        _ => {
            dir.wipe()?;
            let there = targets.there();
            if policy == Policy::Resume && there.is_empty() {
                let text = "nothing to resume: starting from the first row".to_owned();
                context.sink.emit(&Event::Note(text));
            }
            let (manifest, source) = make_plan(dir, &run.question, source, there, context)?;
            if policy == Policy::Resume && targets.output.is_there() {
                adopt(dir, &manifest, &source, targets, context)?;
            }
            Ok((manifest, source))
        }
    }
}

fn make_plan(
    dir: &Held,
    question: &Question,
    source: Option<Source>,
    replaces: Vec<String>,
    context: &mut Context<'_>,
) -> Result<(Manifest, Source), Error> {
    let is_spooled = source.is_none();
    let source = match source {
        Some(source) => source,
        None => spool(dir, &question.input, false)?,
    };
    let options = plan::Options { replaces, is_spooled, now_ms: now_ms(), ..question.plan.clone() };
    let job = question.job.clone();
    let manifest = plan::run(dir, &source, job, &options, context.shutdown, context.sink)?;
    Ok((manifest, source))
}

/// Makes sure that a plan is of this question. Gives its input.
fn compare(
    dir: &Held,
    question: &Question,
    manifest: &Manifest,
    source: Option<Source>,
    context: &mut Context<'_>,
) -> Result<Source, Error> {
    let Question { job, plan, .. } = question;
    if job.include_input && !manifest.job.include_input {
        return Err(Error::NoInputKept);
    }
    let is_pipe = source.is_none();
    let source = match source {
        Some(source) => source,
        None => spool(dir, &question.input, true)?,
    };
    let drift = plan::compare(dir, manifest, job, &source, plan, context.shutdown)?;
    if is_pipe {
        dir.discard_second_spool()?;
    }
    match drift {
        Some(drift) => Err(Error::Drift { work_dir: dir.path().to_owned(), drift }),
        None if is_pipe => Ok(Source::planned(&dir.spool(), &manifest.source)),
        None => Ok(source),
    }
}

/// Takes answers over from an output without a work directory.
fn adopt(
    dir: &Held,
    manifest: &Manifest,
    source: &Source,
    targets: &Targets,
    context: &mut Context<'_>,
) -> Result<(), Error> {
    let Some(path) = targets.output_file() else { return Ok(()) };
    let adopted = plan::adopt(dir, manifest, source, path, now_ms())?;
    let plan::Adopted { rows, strangers, damaged, first_damaged } = adopted;
    let mut say = |text: String| context.sink.emit(&Event::Note(text));
    say(format!(
        "took over {rows} answers from {}; what they were asked with is not known and was not \
         compared",
        path.display()
    ));
    if strangers > 0 {
        say(format!("{strangers} answers in it are of rows that the input does not have"));
    }
    if damaged > 0 {
        context.sink.emit(&Event::Warning(format!(
            "{damaged} lines of {} are no envelopes (first line {first_damaged}); their rows are \
             done again",
            path.display()
        )));
    }
    Ok(())
}

/// Makes a plan, or makes sure that the one there is of this question.
///
/// # Errors
/// See [`Error`].
pub fn plan(
    place: &Place,
    question: &Question,
    policy: Policy,
    context: &mut Context<'_>,
) -> Result<Manifest, Error> {
    let source = open_ahead(&question.input)?;
    let dir = hold(&place.path, context)?;
    let was_planned = match dir.manifest() {
        Ok(manifest) => manifest,
        Err(_) if policy == Policy::Overwrite => None,
        Err(error) => return Err(error.into()),
    };
    let planned = match was_planned {
        Some(manifest) if policy != Policy::Overwrite => {
            return compare(&dir, question, &manifest, source, context).map(|_| manifest);
        }
        _ => dir
            .wipe()
            .map_err(Error::from)
            .and_then(|()| make_plan(&dir, question, source, Vec::new(), context)),
    };
    match planned {
        Ok((manifest, _)) => Ok(manifest),
        Err(error) => {
            give_up(dir);
            Err(error)
        }
    }
}

/// Works the open shards of a plan, or those of them that are named.
///
/// # Errors
/// See [`Error`].
pub fn work(
    path: &Path,
    input: Option<&Path>,
    answerer: &dyn Fn(&Manifest) -> Result<Answerer, Error>,
    options: &work::Options,
    context: &mut Context<'_>,
) -> Result<Finished, Error> {
    WorkDir::open(path)?;
    let mut dir = hold(path, context)?;
    let manifest = planned(&dir)?;
    dir.redo()?;
    if let Some(number) =
        options.shards.iter().flatten().find(|number| {
            manifest.shards.get(**number as usize).is_none_or(|shard| shard.wanted == 0)
        })
    {
        return Err(Error::Usage(format!(
            "there is no shard {number} to work; there are shards 0 to {}",
            manifest.shards.len().saturating_sub(1)
        )));
    }
    let place = match (input, &manifest.source.path) {
        (Some(input), _) => input.to_owned(),
        (None, Some(path)) => PathBuf::from(path),
        (None, None) => dir.spool(),
    };
    let source = Source::planned(&place, &manifest.source);
    let answerer = answerer(&manifest)?;
    let report = work::run(
        &mut dir,
        &manifest,
        &source,
        &answerer,
        options,
        context.shutdown,
        context.sink,
    )?;
    if report.ending != Ending::Complete {
        return interrupted(&dir, &manifest, report.ending);
    }
    let counts = publish::counts(&dir, &manifest)?;
    let wanted = manifest.wanted();
    Ok(Finished { end: End::Worked, counts, wanted, summary: None, is_dir_kept: true })
}

/// Verifies a finished plan and publishes its outputs.
///
/// # Errors
/// See [`Error`].
pub fn merge(
    path: &Path,
    outputs: &OutputPaths,
    policy: Policy,
    include_input: bool,
    threads: usize,
    context: &mut Context<'_>,
) -> Result<Finished, Error> {
    let started_ms = now_ms();
    WorkDir::open(path)?;
    let dir = hold(path, context)?;
    let manifest = planned(&dir)?;
    let input = manifest.source.path.as_ref().map(PathBuf::from);
    let targets = Targets::resolve(outputs, input.as_deref(), path)?;
    if include_input && !manifest.job.include_input {
        return Err(Error::NoInputKept);
    }
    let holder = Holder::this_process(&context.command, started_ms);
    let _output = OutputLock::acquire(&targets.output, &holder)?;
    dir.redo()?;
    targets.sweep(&dir)?;
    let publication = publish::Publication {
        manifest: &manifest,
        targets: &targets,
        base_url: manifest.base_url.as_deref(),
        include_input,
        threads,
        started_ms,
    };
    if let Some(finished) = publish::unchanged(&dir, &publication)? {
        return Ok(finished);
    }
    publish::may_take_places(&dir, &publication, policy == Policy::Overwrite)?;
    let mut session = publish::Session::default();
    session.resumed = publish::counts(&dir, &manifest)?.ok;
    publish::publish(&dir, &publication, &session, context.shutdown, context.stdout)
}

fn planned(dir: &Held) -> Result<Manifest, Error> {
    dir.manifest()?.ok_or_else(|| Error::NotPlanned { work_dir: dir.path().to_owned() })
}

/// Reads a whole work directory. Gives what is wrong with it and, after a repair, what still is.
///
/// # Errors
/// See [`Error`].
pub fn check(
    path: &Path,
    repair: bool,
    context: &mut Context<'_>,
) -> Result<(Manifest, Vec<Damage>, Vec<Damage>), Error> {
    WorkDir::open(path)?;
    let dir = hold(path, context)?;
    let manifest = planned(&dir)?;
    let found = dir.check(&manifest)?;
    let left = if repair { dir.repair(&manifest, found.clone(), now_ms())? } else { found.clone() };
    Ok((manifest, found, left))
}

/// Plans in a directory that goes again, and renders the first requests.
///
/// # Errors
/// See [`Error`].
pub fn preview(
    scratch: &Path,
    question: &Question,
    answerer: &Answerer,
    count: usize,
    context: &mut Context<'_>,
) -> Result<Preview, Error> {
    let source = open_ahead(&question.input)?;
    let dir = hold(scratch, context)?;
    let result = make_plan(&dir, question, source, Vec::new(), context)
        .and_then(|(manifest, source)| preview::render(&dir, &manifest, &source, answerer, count));
    dir.remove()?;
    result
}
