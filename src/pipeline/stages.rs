//! The stages one by one, each a command of its own.

use std::path::{Path, PathBuf};

use super::inputs::Inputs;
use super::prepare::{clear, give_up, make_plan, open_ahead, redo, settle, tell_left};
use super::preview::render;
use super::retry::chosen;
use super::targets::{OutputPaths, Targets};
use super::{Context, End, Error, Finished, OnChange, Place, Policy, Question, hold, interrupted};
use super::{Preview, publish, session};
use crate::input::{Source, Sources};
use crate::plan;
use crate::report::Expecting;
use crate::store::{self, Damage, Held, Manifest, SourcePrint, WorkDir};
use crate::telemetry::{Event, now_ms};
use crate::work::{self, Answerer, Ending};

/// Makes a plan, or makes sure that the one there is of this question.
///
/// # Errors
/// See [`Error`].
pub fn plan(
    place: &Place,
    question: &Question,
    policy: Policy,
    on_change: OnChange,
    context: &mut Context<'_>,
) -> Result<Manifest, Error> {
    let sources = open_ahead(question)?;
    let mut dir = hold(&place.path, context)?;
    let was_planned = match dir.manifest() {
        Ok(manifest) => manifest,
        Err(_) if policy == Policy::Overwrite => None,
        Err(error) => return Err(error.into()),
    };
    let planned = match was_planned {
        Some(manifest) if policy != Policy::Overwrite => {
            dir.assert_shards_belong(&manifest)?;
            let settled = settle(&mut dir, question, manifest, sources, on_change, true, context);
            tell_left(&dir, context);
            return settled.map(|(manifest, _)| manifest);
        }
        _ => clear(&mut dir, question, policy)
            .and_then(|()| make_plan(&dir, question, sources, Vec::new(), context)),
    };
    match planned {
        Ok((planned, _)) => {
            tell_left(&dir, context);
            Ok(planned.manifest)
        }
        Err(error) => {
            give_up(dir, context);
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
    dir.assert_shards_belong(&manifest)?;
    dir.redo_here()?;
    for file in dir.last_commit()?.iter().flat_map(store::Commit::pending) {
        let place = file.target.display();
        let text = format!("an upload to {place} waits for a merge that names this URL");
        context.sink.emit(&Event::Note(text));
    }
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
    let sources = planned_inputs(&dir, &manifest, input)?;
    let answerer = answerer(&manifest)?;
    let retry = chosen(options.retry.clone(), &dir, &manifest, context)?;
    let options = &work::Options { retry, ..options.clone() };
    let body = |dir: &mut Held, context: &mut Context<'_>| {
        let report = work::run(
            dir,
            &manifest,
            &sources,
            (&answerer, context.launch.as_deref_mut()),
            options,
            context.shutdown,
            context.sink,
        );
        let report = report.map_err(|error| Error::from(error).underway(dir))?;
        if report.ending != Ending::Complete {
            return interrupted(dir, &manifest, report.ending);
        }
        let counts = publish::counts(dir, &manifest)?;
        let (wanted, variants) = (manifest.answered_for(), manifest.job.variants());
        Ok(Finished {
            end: End::Worked,
            counts,
            wanted,
            variants,
            summary: None,
            is_dir_kept: true,
        })
    };
    let finished = if work::has_work(&dir, &manifest, options)? {
        session::noted(&mut dir, context, body)
    } else {
        body(&mut dir, context)
    };
    tell_left(&dir, context);
    finished
}

/// How a finished plan is published.
#[derive(Debug, Clone)]
pub struct Merging {
    /// Where outputs go.
    pub outputs: OutputPaths,
    /// How to go about outputs that are there.
    pub policy: Policy,
    /// Whether envelopes show their rows.
    pub include_input: bool,
    /// Whether rows without an outcome are left out; without this they are an error.
    pub is_partial: bool,
    /// Threads that read journals.
    pub threads: usize,
    /// How many generations are kept besides the one that counts.
    pub keep_generations: u32,
}

/// Verifies a finished plan and publishes its outputs, or what there is of an unfinished one.
///
/// # Errors
/// See [`Error`].
pub fn merge(path: &Path, merging: &Merging, context: &mut Context<'_>) -> Result<Finished, Error> {
    let Merging { outputs, policy, include_input, is_partial, threads, keep_generations } = merging;
    let started_ms = now_ms();
    WorkDir::open(path)?;
    let mut dir = hold(path, context)?;
    let manifest = planned(&dir)?;
    dir.assert_shards_belong(&manifest)?;
    let targets = Targets::resolve(outputs, &Inputs::planned(&manifest), &[], path)?;
    let format = outputs.format_of(&manifest.job, *include_input)?;
    if *include_input && !manifest.job.include_input {
        return Err(Error::NoInputKept);
    }
    targets.make_dirs()?;
    let _output = targets.lock(context)?;
    redo(&mut dir, &manifest, &outputs.links, context)?;
    targets.sweep(&dir)?;
    let publication = publish::Publication {
        manifest: &manifest,
        targets: &targets,
        base_urls: (0..manifest.job.model_count()).map(|it| manifest.route(it).base_url).collect(),
        format,
        include_input: *include_input,
        threads: *threads,
        started_ms,
        links: &outputs.links,
        is_partial: *is_partial && publish::is_unfinished(&dir, &manifest)?,
        overwrites: *policy == Policy::Overwrite,
    };
    // What was published before is the last word until all rows have outcomes.
    let drop_generations = |dir: &Held| match publication.is_partial {
        true => Ok(()),
        false => dir.drop_generations(*keep_generations),
    };
    if let Some(finished) = publish::unchanged(&dir, &publication)? {
        drop_generations(&dir)?;
        tell_left(&dir, context);
        return Ok(finished);
    }
    publish::may_take_places(&dir, &publication)?;
    let mut session = publish::Session::default();
    session.resumed = publish::counts(&dir, &manifest)?.ok;
    let finished = session::noted(&mut dir, context, |dir, context| {
        publish::publish(dir, &publication, &session, context)
    })?;
    drop_generations(&dir)?;
    tell_left(&dir, context);
    Ok(finished)
}

/// Where the inputs of a plan are: where they were, or where the command says. Of several it says in
/// which directory they are under their names.
fn planned_inputs(
    dir: &WorkDir,
    manifest: &Manifest,
    input: Option<&Path>,
) -> Result<Sources, Error> {
    let is_split = manifest.is_split();
    if let Some(input) = input.filter(|input| is_split && !input.is_dir()) {
        return Err(Error::Usage(format!(
            "the plan has several inputs: --input must be the directory that they are in, and {} is \
             none",
            input.display()
        )));
    }
    let planned = |print: &SourcePrint| {
        let path = print.path.as_ref().map(PathBuf::from);
        let name = path.as_ref().and_then(|path| path.file_name()).unwrap_or_default();
        let place = match (input, &path) {
            (Some(input), _) if is_split => input.join(name),
            (Some(input), _) => input.to_owned(),
            (None, Some(path)) => path.clone(),
            (None, None) => dir.spool(),
        };
        Source::planned(&place, print)
    };
    Ok(Sources::several(manifest.sources.iter().map(planned).collect()))
}

fn planned(dir: &WorkDir) -> Result<Manifest, Error> {
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
    let dir = WorkDir::open(path)?;
    let held = match hold(path, context) {
        Ok(held) => held,
        Err(Error::Store(error)) if error.is_read_only() && !repair => {
            if let Some(holder) = dir.holder() {
                let (path, holder) = (path.to_owned(), Some(Box::new(holder)));
                return Err(store::Error::Busy { path, holder }.into());
            }
            let manifest = planned(&dir)?;
            let found = dir.check(&manifest, false)?;
            return Ok((manifest, found.clone(), found));
        }
        Err(error) => return Err(error),
    };
    let manifest = planned(&held)?;
    let found = held.check(&manifest, true)?;
    let left = match repair {
        true => held.repair(&manifest, found.clone(), now_ms())?,
        false => found.clone(),
    };
    tell_left(&held, context);
    Ok((manifest, found, left))
}

/// Plans in a directory that goes again, renders the first requests, and tells what all will come to.
///
/// # Errors
/// See [`Error`].
pub fn preview(
    scratch: &Path,
    question: &Question,
    answerer: &Answerer,
    (count, expecting): (usize, &Expecting),
    context: &mut Context<'_>,
) -> Result<Preview, Error> {
    let sources = open_ahead(question)?;
    let dir = hold(scratch, context)?;
    let plan = plan::Options { counts_twins: true, ..question.plan.clone() };
    let question = &Question { plan, ..question.clone() };
    let result =
        make_plan(&dir, question, sources, Vec::new(), context).and_then(|(planned, sources)| {
            render(&dir, planned, &sources, answerer, (count, expecting))
        });
    dir.remove()?;
    result
}
