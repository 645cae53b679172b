//! The one place that puts the stages in order, and decides which of them there is anything to do
//! for.
//!
//! A resumption is the stages run again: the plan is compared instead of made, the work goes on with
//! what has no outcome, and nothing is published that is published already.

mod errors;
mod estimate;
mod inputs;
mod models;
mod of_lines;
mod ours;
mod prepare;
mod preview;
mod publish;
mod retry;
mod session;
mod stages;
mod takeover;
mod targets;
mod transfer;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::http::Link;
use crate::input::Sources;
use crate::job::JobSpec;
use crate::plan;
use crate::shutdown::Shutdown;
use crate::store::{self, Counts, Held, Holder, Kind, Manifest, OtherWriter, SessionEnd, WorkDir};
use crate::telemetry::{Event, Sink, now_ms};
use crate::work::{self, Answerer, Ending, StopReason};

pub use errors::Error;
pub use inputs::{Inputs, NamedInput};
pub use models::{NotListed, models};
pub use preview::{Preview, PreviewedRow};
pub use stages::{Merging, check, merge, plan, preview, work};
pub use takeover::is_of_fast_agent;
pub use targets::{OutputPaths, check_log, format_of};

pub use prepare::{is_pipe, not_rows};
pub use transfer::beginning;

use prepare::{give_up, open_ahead, prepare, tell_foreign, tell_left};
use retry::chosen;
use targets::{Targets, remove_empty};

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
    /// Starts the server that answers, where one is to be started for the work.
    pub launch: Option<&'a mut work::Launch<'a>>,
    /// The command line, for those who wonder who holds a lock.
    pub command: String,
    /// What the command exits with, and says, after a result: noted in the work directory.
    pub judge: &'a dyn Fn(Result<&Finished, &Error>) -> SessionEnd,
}

/// A work directory and what is to become of it.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it goes once all rows have answers and are published.
    pub is_temporary: bool,
    /// Whether nobody named it: then it must be nobody else's.
    pub is_default: bool,
}

/// The beginning of an input that can be read only once, and where the rest of it comes from.
#[derive(Debug, Clone)]
pub struct Ahead {
    /// What was read.
    pub bytes: Arc<[u8]>,
    /// The pipe it was read from; nothing for standard input.
    pub rest: Option<Arc<File>>,
}

/// What is asked, of which rows.
#[derive(Debug, Clone)]
pub struct Question {
    /// The input.
    pub inputs: Inputs,
    /// Its URL, where it is at one.
    pub link: Option<Link>,
    /// What was read of it already, where it can be read only once.
    pub ahead: Option<Ahead>,
    /// Whether nobody has said that its lines are rows, nor looked: requests among them are none.
    pub is_unseen: bool,
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

/// What to do where a question is not the one that was planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnChange {
    /// Refuse, and say in what it differs.
    Stop,
    /// Plan the next generation, and keep the answers that still are answers to the question, and
    /// those that are to be kept besides.
    Update(plan::Keeping),
}

impl OnChange {
    /// What the next generation keeps, where one is planned for what differs. Rows that have only been given
    /// ids are the same rows: nobody needs to say that their answers are kept.
    fn keeping_for(self, drift: &plan::Drift) -> Option<plan::Keeping> {
        match self {
            Self::Update(keeping) if !drift.is_of_identity() => Some(keeping),
            Self::Stop if drift.is_of_new_ids_only() => Some(plan::Keeping::default()),
            Self::Update(_) | Self::Stop => None,
        }
    }
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
    /// Files besides the input that the command reads, with the options that name them: no output
    /// may take their place.
    pub reads: Vec<(&'static str, PathBuf)>,
    /// How to go about what is there already.
    pub policy: Policy,
    /// A work directory of fast-agent's, whose answers are taken over where there is neither a run nor an
    /// output to go on with. It is never changed.
    pub takes_over: Option<PathBuf>,
    /// What to do where the question has changed.
    pub on_change: OnChange,
    /// How many generations are kept besides the one that counts, once it is published.
    pub keep_generations: u32,
}

/// How a command ended that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Outputs were published.
    Published,
    /// Outputs were published that leave rows out which have no outcome yet.
    PublishedPartly,
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
    /// Outcomes that are wanted: one of each row, or one for each variant of the job.
    pub wanted: u64,
    /// How many that is of each row.
    pub variants: usize,
    /// The summary, as JSON, where outputs were or are published.
    pub summary: Option<String>,
    /// Whether the work directory is still there.
    pub is_dir_kept: bool,
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
    let targets = Targets::resolve(&run.outputs, &question.inputs, &run.reads, &place.path)?;
    let format = run.outputs.format_of(&question.job, question.job.include_input)?;
    if let Some(theirs) = &run.takes_over {
        takeover::stays_out_of(theirs, run, &targets)?;
    }
    refuse_unasked(run, &targets)?;
    let sources = open_ahead(question)?;
    refuse_of_others(place)?;
    let mut dir = hold(&place.path, context)?;
    // Others may have made it meanwhile.
    refuse_of_others(place)?;
    let missing = targets.missing_dirs();
    let ready = targets.make_dirs().map_err(Error::from).and_then(|()| {
        let lock = targets.lock(context)?;
        // While this process waited, another may have finished.
        refuse_unasked(run, &targets)?;
        let (manifest, sources) = prepare(run, &mut dir, sources, &targets, context)?;
        Ok((lock, manifest, sources))
    });
    let (_output, manifest, sources) = match ready {
        Ok(ready) => ready,
        Err(error) => {
            give_up(dir, context);
            remove_empty(&missing);
            return Err(error);
        }
    };
    tell_left(&dir, context);
    targets.sweep(&dir)?;
    let publication = publish::Publication {
        manifest: &manifest,
        targets: &targets,
        base_urls: question.plan.base_urls(),
        format,
        include_input: question.job.include_input,
        threads: question.plan.threads,
        started_ms,
        links: &run.outputs.links,
        is_partial: false,
        overwrites: *policy == Policy::Overwrite,
    };
    let retry = chosen(run.work.retry.clone(), &dir, &manifest, context)?;
    let run = &Run { work: work::Options { retry, ..run.work.clone() }, ..run.clone() };
    let has_work = work::has_work(&dir, &manifest, &run.work)?;
    let unchanged = if has_work { None } else { publish::unchanged(&dir, &publication)? };
    let finished = match unchanged {
        Some(finished) => finished,
        None => {
            publish::may_take_places(&dir, &publication)?;
            session::noted(&mut dir, context, |dir, context| {
                work_and_publish(run, dir, &sources, &publication, context)
            })?
        }
    };
    if matches!(finished.end, End::Published | End::Unchanged) {
        dir.drop_generations(run.keep_generations)?;
    }
    Ok(put_away(place, dir, finished, context))
}

/// Removes a work directory that goes once all rows have answers and are published, and tells what is left.
fn put_away(place: &Place, dir: Held, finished: Finished, context: &mut Context<'_>) -> Finished {
    let is_all_ok = finished.counts.failed == 0;
    let is_done = matches!(finished.end, End::Published | End::Unchanged);
    if place.is_temporary && is_all_ok && is_done {
        // The outputs are where they belong: what is left here is worth a word, not an error.
        tell_left(&dir, context);
        return match dir.remove() {
            Ok(left) => {
                tell_foreign(&place.path, &left, context);
                Finished { is_dir_kept: !left.is_empty(), ..finished }
            }
            Err(error) => {
                let text = format!("the work directory was not removed: {error}");
                context.sink.emit(&Event::Alert(text));
                finished
            }
        };
    }
    tell_left(&dir, context);
    finished
}

/// Refuses a default work directory that others may have made or written, where others can put one.
fn refuse_of_others(place: &Place) -> Result<(), Error> {
    match place.is_default {
        true => refuse_written_by_others(&place.path),
        false => Ok(()),
    }
}

/// Refuses what is to be gone on from, if others may have made or written it.
fn refuse_written_by_others(path: &Path) -> Result<(), Error> {
    let writer = OtherWriter::of_shared(path);
    let writer = writer.map_err(|source| {
        let path = path.to_owned();
        store::Error::Io { what: "look at", path, source }
    })?;
    match writer {
        Some(writer) => Err(Error::OfOthers { path: path.to_owned(), writer }),
        None => Ok(()),
    }
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
        Some(path) if run.question.inputs.are_several() => Err(Error::NoneTakenOver { path }),
        Some(path) => Err(Error::OutputExists { path }),
        None => Ok(()),
    }
}

/// Works what is open and publishes it. A journal that turns out damaged while outputs are made of
/// it is worked again first.
fn work_and_publish(
    run: &Run,
    dir: &mut Held,
    sources: &Sources,
    publication: &publish::Publication<'_>,
    context: &mut Context<'_>,
) -> Result<Finished, Error> {
    let manifest = publication.manifest;
    // Rows that take the outcomes of others are no work, but have answers.
    let before = match manifest.twins() {
        0 => None,
        _ => Some(publish::counts(dir, manifest)?.ok),
    };
    let mut session = publish::Session::default();
    loop {
        let report = work::run(
            dir,
            manifest,
            sources,
            (&run.answerer, context.launch.as_deref_mut()),
            &run.work,
            context.shutdown,
            context.sink,
        );
        let report = report.map_err(|error| Error::from(error).underway(dir))?;
        session.add(&report, before);
        if report.ending != Ending::Complete {
            return interrupted(dir, manifest, report.ending);
        }
        match publish::publish(dir, publication, &session, context) {
            Err(Error::Unsound { shard, reason }) if session.may_repair() => {
                let text = format!("shard {shard} is worked again: {reason}");
                context.sink.emit(&Event::Alert(text));
                dir.unseal(shard)?;
            }
            result => return result.map_err(|error| error.underway(dir)),
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
    let (wanted, variants) = (manifest.answered_for(), manifest.job.variants());
    Ok(Finished { end, counts, wanted, variants, summary: None, is_dir_kept: true })
}
