//! Before work: an input that can be read, and a plan of it, made now or before.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use super::inputs::Inputs;
use super::ours;
use super::publish;
use super::session;
use super::takeover;
use super::targets::Targets;
use super::transfer::{download, upload};
use super::{
    Ahead, Context, Error, Finished, OnChange, Policy, Question, Run, refuse_written_by_others,
};
use crate::dialect::detect::{Form, detect_in};
use crate::http::Link;
use crate::input::{self, Source, Sources};
use crate::job::JobSpec;
use crate::plan;
use crate::store::{Carried, Held, Manifest, Target};
use crate::telemetry::{Event, now_ms};
use crate::work::Retry;

/// A work directory that was made for nothing goes again; one that was there stays.
pub(super) fn give_up(dir: Held, context: &mut Context<'_>) {
    tell_left(&dir, context);
    let has_plan = !dir.manifest().is_ok_and(|manifest| manifest.is_none());
    // What has come of an input is gone on with.
    if !has_plan && dir.was_created() && !dir.has_part() {
        let place = dir.path().to_owned();
        // The error that led here is the one to tell.
        if let Ok(left) = dir.remove() {
            tell_foreign(&place, &left, context);
        }
    }
}

/// Tells what was not removed in a work directory, because rowmill did not write it.
pub(super) fn tell_left(dir: &Held, context: &mut Context<'_>) {
    tell_foreign(dir.path(), &dir.take_left(), context);
}

/// Tells names in a work directory of what rowmill did not write and did not remove.
pub(super) fn tell_foreign(dir: &Path, left: &[String], context: &mut Context<'_>) {
    const NAMED: usize = 10;
    if left.is_empty() {
        return;
    }
    let more = match left.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let names = left[..left.len().min(NAMED)].join(", ");
    let text = format!("left in {}, as rowmill did not write it: {names}{more}", dir.display());
    context.sink.emit(&Event::Alert(text));
}

/// The input, unless it must be copied first.
pub(super) fn open_ahead(question: &Question) -> Result<Option<Sources>, Error> {
    let Question { inputs, link, .. } = question;
    match inputs {
        Inputs::One(path) if link.is_some() || is_pipe(path) => Ok(None),
        inputs => inputs.open().map(Some),
    }
}

/// Whether an input can be read only once.
#[must_use]
pub fn is_pipe(input: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    input == Path::new("-")
        || std::fs::metadata(input).is_ok_and(|meta| {
            let kind = meta.file_type();
            kind.is_fifo() || kind.is_char_device()
        })
}

/// Copies an input that is elsewhere, or can be read only once, into the work directory.
fn spool(
    dir: &Held,
    question: &Question,
    is_second: bool,
    context: &mut Context<'_>,
) -> Result<Source, Error> {
    let input = question.inputs.paths().next().unwrap_or(Path::new("-"));
    if let Some(link) = &question.link {
        let source = download(dir, link, is_second, context)?;
        if question.is_unseen && !source.is_csv() {
            refuse_requests(&source, link.shown())?;
        }
        return Ok(source);
    }
    let (ahead, rest) = match &question.ahead {
        Some(Ahead { bytes, rest }) => (&bytes[..], rest.as_deref()),
        None => (&b""[..], None),
    };
    let path = if let Some(mut rest) = rest {
        dir.spool_from(&mut ahead.chain(&mut rest), is_second)?
    } else if input == Path::new("-") {
        dir.spool_from(&mut ahead.chain(std::io::stdin().lock()), is_second)?
    } else {
        let mut file = std::fs::File::open(input)
            .map_err(|source| input::Error::Unreadable { path: input.to_owned(), source })?;
        dir.spool_from(&mut file, is_second)?
    };
    let shown = input.display().to_string();
    let source = Source::open(&path).map_err(|error| error.of_copy_of(&shown))?;
    if question.is_unseen {
        refuse_requests(&source, &shown)?;
    }
    Ok(source)
}

/// Whoever says what is asked of rows does not mean a file of requests.
fn refuse_requests(source: &Source, place: &str) -> Result<(), Error> {
    const ENOUGH: u64 = 1 << 20;
    let mut beginning = Vec::new();
    source
        .range(0, source.length.min(ENOUGH))
        .and_then(|mut range| range.read_to_end(&mut beginning))
        .map_err(|error| input::Error::Unreadable { path: source.path.clone(), source: error })?;
    match detect_in(&beginning) {
        Ok(Some(form)) if form.dialect.is_request() => Err(not_rows(place, form)),
        _ => Ok(()),
    }
}

/// What is said of an input of requests to whoever says what is asked of rows.
#[must_use]
pub fn not_rows(place: &str, form: Form) -> Error {
    Error::Usage(format!(
        "{place} holds {form}, which say themselves what is asked: leave -p, --template and options \
         like them out, or take its lines as rows with --dialect rows"
    ))
}

/// Sees to it that there is a plan of this question, made now or before.
pub(super) fn prepare(
    run: &Run,
    dir: &mut Held,
    sources: Option<Sources>,
    targets: &Targets,
    context: &mut Context<'_>,
) -> Result<(Manifest, Sources), Error> {
    let policy = run.policy;
    match dir.manifest()? {
        Some(manifest) if policy == Policy::Resume => {
            if let Some(theirs) = &run.takes_over {
                let (own, theirs) = (dir.path().display(), theirs.display());
                let text = format!("going on with the run in {own}; {theirs} is not read");
                context.sink.emit(&Event::Note(text));
            }
            dir.assert_shards_belong(&manifest)?;
            redo(dir, &manifest, &run.outputs.links, context)?;
            let retries = run.work.retry == Retry::All;
            settle(dir, &run.question, manifest, sources, run.on_change, retries, context)
        }
        Some(_) if policy == Policy::Fresh => {
            Err(Error::Unfinished { work_dir: dir.path().to_owned() })
        }
        _ => {
            if policy == Policy::Resume {
                for (_, target) in targets.all() {
                    let Target::File(path) = target else { continue };
                    refuse_written_by_others(path)?;
                }
            }
            if policy == Policy::Resume && run.question.inputs.are_several() {
                not_taken_over(targets)?;
            } else if policy == Policy::Resume {
                ours::may_be_replaced(targets, &run.question.job, run.takes_over.is_some())?;
            }
            let found = match policy {
                // Which answers are of which of several inputs nobody knows.
                Policy::Resume if run.question.inputs.are_several() => None,
                Policy::Resume => takeover::find(run, targets, context)?,
                Policy::Fresh | Policy::Overwrite => None,
            };
            clear(dir, &run.question, policy)?;
            if let Some(found) = found {
                return takeover::take_over(run, dir, sources, (targets, found), context);
            }
            let there = targets.there();
            if policy == Policy::Resume && there.is_empty() {
                let text = "nothing to resume: starting from the first row".to_owned();
                context.sink.emit(&Event::Note(text));
                if let Some(theirs) = takeover::beside(targets) {
                    let theirs = theirs.display();
                    context.sink.emit(&Event::Note(format!(
                        "{theirs} is a work directory of fast-agent's: its answers are taken over with --work-dir \
                         {theirs}"
                    )));
                }
            }
            let (planned, sources) = make_plan(dir, &run.question, sources, there, context)?;
            Ok((planned.manifest, sources))
        }
    }
}

/// Refuses outputs of several inputs whose work directory is gone: what would be taken over from which
/// is told by it alone.
fn not_taken_over(targets: &Targets) -> Result<(), Error> {
    match targets.first_there() {
        Some(path) => Err(Error::NoneTakenOver { path }),
        None => Ok(()),
    }
}

/// Empties a directory for a new plan, unless there are answers in it that nobody gave up.
pub(super) fn clear(dir: &mut Held, question: &Question, policy: Policy) -> Result<(), Error> {
    if policy == Policy::Overwrite {
        return Ok(dir.wipe()?);
    }
    if dir.has_lost_its_plan()? {
        return Err(Error::PlanLost { work_dir: dir.path().to_owned() });
    }
    let wiped = if question.link.is_some() { dir.wipe_but_part() } else { dir.wipe() };
    Ok(wiped?)
}

/// Finishes a publication that was decided and cut off, its uploads included.
pub(super) fn redo(
    dir: &mut Held,
    manifest: &Manifest,
    links: &[Link],
    context: &mut Context<'_>,
) -> Result<(), Error> {
    let Some(commit) = dir.last_commit()?.filter(|commit| commit.pending().next().is_some()) else {
        dir.redo_here()?;
        return Ok(());
    };
    session::noted(dir, context, |dir, context| {
        let (shutdown, sink) = (context.shutdown, &mut *context.sink);
        let redone = dir.redo(&mut |file, staged| upload(file, staged, links, shutdown, sink));
        redone.map_err(|error: Error| error.underway(dir))?;
        Ok(Finished {
            end: publish::end_of(commit.is_partial),
            counts: commit.counts,
            wanted: manifest.answered_for(),
            variants: manifest.job.variants(),
            summary: Some(commit.summary.get().to_owned()),
            is_dir_kept: true,
        })
    })?;
    Ok(())
}

pub(super) fn make_plan(
    dir: &Held,
    question: &Question,
    sources: Option<Sources>,
    replaces: Vec<String>,
    context: &mut Context<'_>,
) -> Result<(plan::Planned, Sources), Error> {
    let is_spooled = sources.is_none();
    let sources = match sources {
        Some(sources) => sources,
        None => spool(dir, question, false, context)?.into(),
    };
    let notes = sources.all().iter().flat_map(|source| &source.notes);
    notes.for_each(|note| context.sink.emit(&Event::Note(note.clone())));
    let (url, plan) = (url(question), question.plan.clone());
    let options = plan::Options { replaces, is_spooled, url, now_ms: now_ms(), ..plan };
    let job = question.job.clone();
    let planned = plan::run(dir, &sources, job, &options, context.shutdown, context.sink)?;
    dir.forget_part()?;
    Ok((planned, sources))
}

/// Sees to it that a plan is of this question: it is already, or the next generation is planned,
/// where that is wanted. Gives its input as well. `retries` says whether failed rows are tried again.
pub(super) fn settle(
    dir: &mut Held,
    question: &Question,
    manifest: Manifest,
    sources: Option<Sources>,
    on_change: OnChange,
    retries: bool,
    context: &mut Context<'_>,
) -> Result<(Manifest, Sources), Error> {
    let Question { job, plan, .. } = question;
    if job.include_input && !manifest.job.include_input {
        return Err(Error::NoInputKept);
    }
    let is_spooled = sources.is_none();
    let url = url(question);
    let is_fetched = url.is_some() && url == manifest.source().url;
    let sources = match sources {
        Some(sources) => sources,
        // Whoever wants what is there now says so.
        None if is_fetched && on_change == OnChange::Stop => {
            Source::planned(&dir.spool(), manifest.source()).into()
        }
        None => spool(dir, question, true, context)?.into(),
    };
    let options = plan::Options { is_spooled, url, now_ms: now_ms(), ..plan.clone() };
    let (manifest, sources) = match plan::compare(&manifest, job, &sources, plan.threads)? {
        None => (manifest, sources),
        Some(drift) => match on_change.keeping_for(&drift) {
            Some(keeping) => {
                let planned = update(dir, &manifest, sources, job, &options, keeping, context)?;
                context.sink.emit(&Event::Note(told(&planned.0)));
                alarm(&manifest, &planned.0).iter().for_each(|alert| context.sink.emit(alert));
                planned
            }
            None => {
                let drift = explain(dir, &manifest, &sources, job, &options, drift, context)?;
                if is_spooled {
                    dir.discard_second_spool()?;
                }
                let work_dir = dir.path().to_owned();
                return Err(Error::Drift { work_dir, drift: Box::new(drift) });
            }
        },
    };
    if let plan::Cutting::Shards(shards) = plan.cutting
        && let Some(cuts) = plan::cut_what_is_left(dir, &manifest, shards, retries)?
    {
        let cutting = plan::Cutting::Before(cuts);
        let options = plan::Options { cutting, ..options };
        let keeping = plan::Keeping::default();
        let planned = update(dir, &manifest, sources, job, &options, keeping, context)?;
        let text = format!("what is left was spread over {shards} shards");
        context.sink.emit(&Event::Note(text));
        return Ok(planned);
    }
    if is_spooled {
        dir.discard_second_spool()?;
        let source = Source::planned(&dir.spool(), manifest.source());
        return Ok((manifest, source.into()));
    }
    Ok((manifest, sources))
}

/// What may be shown of the URL of an input.
fn url(question: &Question) -> Option<String> {
    question.link.as_ref().map(|link| link.shown().to_owned())
}

pub(super) fn update(
    dir: &mut Held,
    manifest: &Manifest,
    sources: Sources,
    job: &JobSpec,
    options: &plan::Options,
    keeping: plan::Keeping,
    context: &mut Context<'_>,
) -> Result<(Manifest, Sources), Error> {
    let (sink, shutdown) = (&mut *context.sink, context.shutdown);
    let published = publish::published(dir, manifest)?;
    let (job, options) = (job.clone(), plan::Options { published, ..options.clone() });
    Ok(plan::update(dir, manifest, sources, job, &options, keeping, shutdown, sink)?)
}

/// Adds what an update would come to, where that can be told.
fn explain(
    dir: &mut Held,
    manifest: &Manifest,
    sources: &Sources,
    job: &JobSpec,
    options: &plan::Options,
    drift: plan::Drift,
    context: &Context<'_>,
) -> Result<plan::Drift, Error> {
    if drift.is_of_identity() {
        return Ok(drift);
    }
    match plan::foresee(dir, manifest, sources, job, options, context.shutdown) {
        Ok(outlook) => Ok(plan::Drift { outlook: Some(outlook), ..drift }),
        Err(plan::Error::Interrupted) => Err(Error::Interrupted),
        // The command is refused all the same, and an update would meet this again.
        Err(_) => Ok(drift),
    }
}

/// What a person should look at: an export that failed looks like rows that are gone.
fn alarm(before: &Manifest, now: &Manifest) -> Option<Event> {
    // Each row counts once for each variant that the plan before had.
    let gone = now.carried.unwrap_or_default().gone / before.job.variants() as u64;
    let is_most = gone > 1 && gone > before.rows() / 2;
    is_most.then(|| {
        // Outputs of files that are gone are nobody's to replace.
        let names = |of: &Manifest| of.sources.iter().filter_map(|it| it.name.clone()).collect();
        let (old, new): (BTreeSet<String>, BTreeSet<String>) = (names(before), names(now));
        let stay = match old.difference(&new).count() {
            0 => String::new(),
            files => format!(" (published outputs of the {files} files that are gone stay where they are)"),
        };
        Event::Alert(format!(
            "{gone} of {} rows are gone from the input, and their answers go with them once this is \
             published{stay}; --keep-generations 1 keeps the plan before",
            before.rows()
        ))
    })
}

/// What a new generation means, in words.
fn told(manifest: &Manifest) -> String {
    let Carried { kept, changed, unanswered, new, gone, .. } = manifest.carried.unwrap_or_default();
    let what = match manifest.job.variants() {
        1 if kept == 1 => "1 row keeps its answer".to_owned(),
        1 => format!("{kept} rows keep their answers"),
        variants => format!("{variants} variants a row, each counted: {kept} keep their answers"),
    };
    format!(
        "planned anew (generation {}): {what}, {changed} changed, {new} are new, {unanswered} had no \
         answer yet, {gone} are gone",
        manifest.generation
    )
}
