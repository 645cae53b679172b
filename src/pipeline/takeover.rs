//! Before the first plan: answers that are there already, in an output whose work directory is gone, or in what
//! fast-agent's `batch run` left. They are taken over where it can be told whose they are; where not, the command is
//! refused before it costs anything.

use std::fs;
use std::path::{Path, PathBuf};

use super::inputs::Inputs;
use super::ours;
use super::prepare::{is_pipe, make_plan, update};
use super::targets::Targets;
use super::{Context, Error, OnChange, Question, Run};
use crate::format::fast_agent::{self, Numbering};
use crate::http::Link;
use crate::input::{self, Source, Sources};
use crate::job::{Dedupe, Identity, JobSpec, OnDuplicate};
use crate::plan::{self, Adopted, Earlier, Survey, Writer};
use crate::store::{Held, Kind, Manifest, Tag, WorkDir};
use crate::telemetry::{Event, now_ms};

/// Whether a directory is a work directory of fast-agent's `batch run --parallel`.
#[must_use]
pub fn is_of_fast_agent(dir: &Path) -> bool {
    matches!(WorkDir::inspect(dir), Ok(Kind::Foreign(_))) && read_manifest(dir).is_some()
}

fn read_manifest(dir: &Path) -> Option<fast_agent::Manifest> {
    fast_agent::read_manifest(&fs::read(dir.join(fast_agent::MANIFEST)).ok()?)
}

/// Makes sure that nothing is written to a directory of fast-agent's.
///
/// # Errors
/// [`Error::Usage`] where something would be, or where there are several inputs: a run of its has one.
pub(super) fn stays_out_of(theirs: &Path, run: &Run, targets: &Targets) -> Result<(), Error> {
    if run.question.inputs.are_several() {
        return Err(Error::Usage(format!(
            "the answers in {} are about the rows of one input, and there are several: give that one, or another \
             --work-dir",
            theirs.display()
        )));
    }
    targets.stay_out_of(theirs)?;
    let beside = match run.place.path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    match (theirs.canonicalize(), beside.canonicalize()) {
        (Ok(theirs), Ok(beside)) if beside.starts_with(&theirs) => Err(Error::Usage(format!(
            "rowmill's own work directory would be in {}, which is fast-agent's: give an --output elsewhere",
            theirs.display()
        ))),
        _ => Ok(()),
    }
}

/// Answers that are there before a plan is made.
pub(super) struct Found {
    earlier: Earlier,
    /// The output or the directory, as messages name it.
    shown: PathBuf,
    /// Where fast-agent wrote them.
    theirs: Option<Theirs>,
}

/// What is known of a run of fast-agent's.
struct Theirs {
    survey: Survey,
    /// Nothing where there is an output only.
    manifest: Option<fast_agent::Manifest>,
    /// Whether a path says that the rows now are of the input of then, as far as a path does.
    is_by_path: bool,
}

/// Finds the answers that a run goes on from. Those in an output count; a directory of fast-agent's is read where
/// there is none.
pub(super) fn find(
    run: &Run,
    targets: &Targets,
    context: &mut Context<'_>,
) -> Result<Option<Found>, Error> {
    let job = &run.question.job;
    let earlier = Earlier::of_rowmill;
    // What fast-agent may have left there empty holds nothing to go on from.
    let holds_nothing =
        |path: &Path| run.takes_over.is_some() && fs::metadata(path).is_ok_and(|it| it.len() == 0);
    let output = targets.output_file().filter(|_| targets.output().is_there());
    let found = match (output.filter(|path| !holds_nothing(path)), &run.takes_over) {
        (Some(output), unread) => {
            if let Some(dir) = unread {
                if !ours::is_tagged(targets.output()) && !may_be_of_before(targets, output, job)? {
                    let (output, theirs) = (output.to_owned(), dir.clone());
                    return Err(Error::TwoEarlier { output, theirs });
                }
                let (output, dir) = (output.display(), dir.display());
                let text = format!("{output} is there and is gone on from; {dir} is not read");
                context.sink.emit(&Event::Note(text));
            }
            let mut earlier = earlier(vec![output.to_owned()]);
            if !job.dialect.is_rows() || !plan::is_of_fast_agent(output)? {
                earlier.is_by_number = ours::is_without_ids(targets.output(), job);
                // Without a note, what counts rows may be ids, or what a run without any gave them.
                earlier.is_in_place = matches!(job.identity(), Identity::Field(_))
                    && job.dialect.is_rows()
                    && !ours::is_tagged(targets.output())
                    && plan::are_row_numbers(output, job.dialect)?;
                return Ok(Some(Found { earlier, shown: output.to_owned(), theirs: None }));
            }
            Found::of_fast_agent(earlier, output, None, job)?
        }
        (None, None) => return Ok(None),
        (None, Some(dir)) => {
            let manifest = read_manifest(dir)
                .ok_or_else(|| refused(dir, "its manifest.json is gone", "put it back"))?;
            if !job.dialect.is_rows() {
                let what =
                    format!("they are about rows, and the input's dialect is {}", job.dialect);
                return Err(refused(dir, &what, "give the input as it was, or another --work-dir"));
            }
            let is_by_path = is_over_this_input(dir, &manifest, &run.question)?;
            let files = chunk_files(dir, &manifest);
            warn_of_chunks(dir, &manifest, files.is_empty(), context);
            Found::of_fast_agent(earlier(files), dir, Some((manifest, is_by_path)), job)?
        }
    };
    let keeps_changed = matches!(run.on_change, OnChange::Update(keeping) if keeping.changed_rows);
    found.is_for(job, keeps_changed)?;
    Ok(Some(found))
}

/// Whether an output that is there beside a directory of fast-agent's may be what came of that here, where no file
/// can have a note that says so.
fn may_be_of_before(targets: &Targets, output: &Path, job: &JobSpec) -> Result<bool, Error> {
    let has_no_notes = targets.output().tag() == Tag::Unknown;
    Ok(has_no_notes && job.dialect.is_rows() && !plan::is_of_fast_agent(output)?)
}

/// The files of answers in a directory of fast-agent's. Its manifest has their paths as they were typed then: the
/// directory may have been moved, and whoever reads it may stand elsewhere.
fn chunk_files(dir: &Path, manifest: &fast_agent::Manifest) -> Vec<PathBuf> {
    manifest.chunks.iter().filter_map(|chunk| chunk_file(dir, chunk)).collect()
}

fn chunk_file(dir: &Path, chunk: &fast_agent::Chunk) -> Option<PathBuf> {
    let path = Path::new(&chunk.output);
    let beside = dir.join(path.file_name()?);
    [beside, path.to_owned()].into_iter().find(|path| path.is_file())
}

/// Tells which chunk files are not there, and where a manifest does not add up. A chunk that was not begun has no file
/// either: nobody can tell it from one that was lost.
fn warn_of_chunks(
    dir: &Path,
    manifest: &fast_agent::Manifest,
    are_all_missing: bool,
    context: &mut Context<'_>,
) {
    const NAMED: usize = 10;
    let dir_shown = dir.display();
    let mut alert = |text: String| context.sink.emit(&Event::Alert(text));
    let missing: Vec<_> =
        manifest.chunks.iter().filter(|chunk| chunk_file(dir, chunk).is_none()).collect();
    if are_all_missing {
        alert(format!("none of the chunk files of {dir_shown} is there"));
    } else if !missing.is_empty() {
        let name = |chunk: &&fast_agent::Chunk| {
            let path = Path::new(&chunk.output);
            path.file_name().map_or(chunk.output.clone(), |it| it.to_string_lossy().into_owned())
        };
        let mut names: Vec<_> = missing.iter().take(NAMED).map(name).collect();
        if missing.len() > NAMED {
            names.push("…".to_owned());
        }
        let rows: Option<u64> = missing.iter().map(|chunk| chunk.limit).sum();
        let rows = rows.map_or("their".to_owned(), |rows| format!("their {rows}"));
        alert(format!(
            "{} of the {} chunk files of {dir_shown} are not there ({}): {rows} rows are asked, whether or not they \
             were answered",
            missing.len(),
            manifest.chunks.len(),
            names.join(", ")
        ));
    }
    let limits: Option<u64> = manifest.chunks.iter().map(|chunk| chunk.limit).sum();
    if let (Some(rows), Some(selected)) = (limits, manifest.selected_rows)
        && rows != selected
    {
        alert(format!(
            "the manifest of {dir_shown} does not add up: its chunks are of {rows} rows, and {selected} were selected"
        ));
    }
}

/// A directory of fast-agent's at its default place beside an output: the last one, if there are several.
pub(super) fn beside(targets: &Targets) -> Option<PathBuf> {
    let output = targets.output_file()?;
    let place = format!(".{}.batch", output.file_name()?.to_str()?);
    let dirs = fs::read_dir(output.with_file_name(place)).ok()?;
    dirs.filter_map(|entry| Some(entry.ok()?.path())).filter(|dir| is_of_fast_agent(dir)).max()
}

/// Makes sure that a run of fast-agent's was over this input, as far as its path tells. Gives whether it does tell:
/// what comes by a pipe, or from a URL that it did not name, may be anything.
fn is_over_this_input(
    dir: &Path,
    manifest: &fast_agent::Manifest,
    question: &Question,
) -> Result<bool, Error> {
    let Inputs::One(input) = &question.inputs else {
        let next = "give that one file, or another --work-dir";
        return Err(refused(dir, "they are about the rows of one input", next));
    };
    if let Some(link) = &question.link {
        return Ok(manifest.input == link.shown());
    }
    if is_pipe(input) {
        return Ok(false);
    }
    let unreadable = |source| input::Error::Unreadable { path: input.clone(), source };
    let ours = input.canonicalize().map_err(unreadable)?;
    // What is not there any more was moved: then the number of rows must do.
    let Ok(theirs) = Path::new(&manifest.input).canonicalize() else { return Ok(true) };
    // What rowmill does not read was converted.
    let is_converted = Numbering::of_name(&manifest.input) == Some(Numbering::Rows);
    if ours == theirs || is_converted || Link::is_meant(&manifest.input) {
        return Ok(true);
    }
    let what = format!("they are about the rows of {}", theirs.display());
    Err(refused(dir, &what, "give that input, or another --work-dir"))
}

fn refused(path: &Path, what: &str, next: &str) -> Error {
    Error::NotTakenOver { path: path.to_owned(), what: what.to_owned(), next: next.to_owned() }
}

impl Found {
    fn of_fast_agent(
        mut earlier: Earlier,
        shown: &Path,
        of_dir: Option<(fast_agent::Manifest, bool)>,
        job: &JobSpec,
    ) -> Result<Self, Error> {
        let (manifest, is_by_path) = of_dir.unzip();
        let numbering = manifest.as_ref().and_then(|it| Numbering::of_name(&it.input));
        earlier.writer = Writer::FastAgent(numbering.unwrap_or(Numbering::Rows));
        let survey = plan::survey(&earlier, job)?;
        // Ids that several rows have, or that only count rows, say nothing of rows that moved.
        earlier.is_in_place = survey.are_by_number || job.on_duplicate != OnDuplicate::Error;
        let is_by_path = is_by_path.unwrap_or(false);
        let theirs = Some(Theirs { survey, manifest, is_by_path });
        Ok(Self { earlier, shown: shown.to_owned(), theirs })
    }

    /// Makes sure that it can be told which rows the answers are for, before there is a plan.
    fn is_for(&self, job: &JobSpec, keeps_changed: bool) -> Result<(), Error> {
        let Some(Theirs { survey, manifest, is_by_path }) = &self.theirs else { return Ok(()) };
        let refuse = |what: &str, next: &str| Err(refused(&self.shown, what, next));
        if let Some((path, line)) = &survey.structured {
            let what = format!(
                "line {line} of {} holds a structured answer, and this job has no schema",
                path.display()
            );
            return refuse(&what, "give the schema, with --json-schema");
        }
        let is_by_number = !matches!(job.identity(), Identity::Field(_));
        if survey.answers == 0 || !is_by_number && !self.earlier.is_in_place {
            return Ok(());
        }
        if job.identity() == Identity::RowNumber && !survey.are_by_number {
            let what = "their ids are those of a field, and here is no --id-field";
            return refuse(what, "give the field with --id-field");
        }
        match manifest {
            Some(manifest) if Numbering::of_name(&manifest.input).is_none() => {
                let what = "their rows were counted, and how is not known of such an input";
                refuse(what, "begin anew, without it")
            }
            Some(manifest)
                if is_by_number && !is_by_path && !survey.have_inputs && !keeps_changed =>
            {
                let what = "only their row numbers tell which rows they are for, and of what comes by a pipe or from \
                            a URL nobody knows whether it is the input of then";
                let next = format!(
                    "give the file, as then ({}); or, if this is the same, say so with --on-change new-only",
                    manifest.input
                );
                refuse(what, &next)
            }
            None if is_by_number && !survey.have_inputs && !keeps_changed => {
                let what = "only their row numbers tell which rows they are for, and whether the input is as it was \
                            then is not known";
                let next = "if it is, say so with --on-change new-only; or choose another output";
                refuse(what, next)
            }
            _ => Ok(()),
        }
    }

    /// Makes sure that no answers are lost with an output that may be another job's.
    fn is_ours_to_replace(&self, adopted: &Adopted, targets: &Targets) -> Result<(), Error> {
        let is_replaced = targets.output_file() == Some(&*self.shown);
        if !is_replaced || adopted.strangers == 0 || ours::is_tagged(targets.output()) {
            return Ok(());
        }
        let what = format!(
            "{} of them are of rows that the input does not have (or that cannot be read), nothing shows that this \
             job wrote them, and they would be gone once the output is replaced",
            adopted.strangers
        );
        let next = "choose another --output; or begin anew and give them up, with --overwrite";
        Err(refused(&self.shown, &what, next))
    }

    /// Makes sure that answers were taken for the rows they are for, as far as that can be told now.
    fn is_taken(&self, adopted: &Adopted, job: &JobSpec, rows: u64) -> Result<(), Error> {
        let astray = adopted.strangers + adopted.displaced;
        let Some(Theirs { survey, manifest, .. }) = &self.theirs else {
            if self.earlier.is_in_place && astray > 0 {
                let what = "their ids are row numbers, nothing shows which input they were given for, and the rows with \
                            these ids are others";
                let next = "leave --id-field out, as it was then; or choose another --output";
                return Err(refused(&self.shown, what, next));
            }
            return Ok(());
        };
        if survey.are_by_number && astray > 0 {
            let (what, next) = match job.identity() {
                Identity::Field(_) | Identity::FieldOrNumber(_) => (
                    "their ids are row numbers, and the rows with these ids are others",
                    "leave --id-field out, as it was then",
                ),
                Identity::RowNumber | Identity::Hash => (
                    "the input does not have rows where they were then",
                    "put the input back as it was, or begin anew, without it",
                ),
            };
            return Err(refused(&self.shown, what, next));
        }
        // A number that no row has is that of a line, which only fast-agent counts.
        let is_sure = manifest.is_some() || survey.have_inputs || survey.highest > rows;
        let is_by_number = !matches!(job.identity(), Identity::Field(_));
        if is_by_number && !is_sure && adopted.renumbered > 0 {
            let what = "only their numbers tell which rows they are for, and whether these count rows, as rowmill's \
                        do, or lines, as fast-agent's do, cannot be told";
            return Err(refused(&self.shown, what, "choose another --output"));
        }
        if adopted.rows == 0 && adopted.strangers > 0 && adopted.strangers == survey.answers {
            let what = "none of them is of a row that the input has";
            let next = "give the input and --id-field as they were, or begin anew, without it";
            return Err(refused(&self.shown, what, next));
        }
        Ok(())
    }

    /// Tells what was taken over and what was not.
    fn tell(&self, adopted: &Adopted, job: &JobSpec, context: &mut Context<'_>) {
        let shown = self.shown.display();
        let Adopted { rows, strangers, displaced, changed, .. } = *adopted;
        let Adopted { empty, failures, unfit, unreadable, damaged, .. } = *adopted;
        let then = match &self.theirs {
            None if self.earlier.is_known => "",
            None => "; whether their rows have changed since is not known",
            Some(theirs) if theirs.survey.have_inputs => {
                "; fast-agent notes neither model nor prompt, so whether they answer this question is not known"
            }
            Some(_) => {
                "; fast-agent notes neither model nor prompt, so whether they answer this question is not known, nor \
                 whether their rows have changed since"
            }
        };
        let mut say = |text: String| context.sink.emit(&Event::Note(text));
        say(format!("took over {rows} answers from {shown}{then}"));
        let of = match job.is_varied() {
            true => "rows or variants that the job does not have",
            false => "rows that the input does not have, or that cannot be read",
        };
        for (count, what) in [
            (strangers, format!("answers in it are of {of}")),
            (
                displaced,
                "answers in it are not of the rows that stand there now, which are asked again"
                    .into(),
            ),
            (
                changed,
                "answers in it show other rows than there are now, which are asked again".into(),
            ),
            (
                failures,
                "answers in it are the texts of failed calls; their rows are asked again".into(),
            ),
            (
                empty,
                "answers in it are empty, of rows that were interrupted; they are asked again"
                    .into(),
            ),
            (
                unreadable,
                "answers in it are of rows that cannot be asked about, which are failures here"
                    .into(),
            ),
            (unfit, "answers in it do not fit the schema; their rows are asked again".into()),
        ] {
            if count > 0 {
                say(format!("{count} {what}"));
            }
        }
        if let Some((path, line)) = &adopted.first_damaged {
            context.sink.emit(&Event::Alert(format!(
                "{damaged} lines of {shown} are no {} (first line {line}{}); their rows are done again",
                if job.dialect.is_rows() { "envelopes" } else { "results" },
                if *path == self.shown { String::new() } else { format!(" of {}", path.display()) }
            )));
        }
    }
}

/// Makes the first plan of a run and takes answers over into it.
pub(super) fn take_over(
    run: &Run,
    dir: &mut Held,
    sources: Option<Sources>,
    (targets, mut found): (&Targets, Found),
    context: &mut Context<'_>,
) -> Result<(Manifest, Sources), Error> {
    dir.begin_adopting()?;
    // Each row has the answer that there is of it; what is left may be asked once.
    let Question { job, plan, .. } = &run.question;
    let each = JobSpec { dedupe: Dedupe::Off, ..job.clone() };
    let question = Question { job: each, ..run.question.clone() };
    let there = targets.there();
    let (planned, mut sources) = make_plan(dir, &question, sources, there, context)?;
    let mut manifest = planned.manifest;
    let adopted = fill(run, dir, (&manifest, &sources), targets, &mut found);
    if adopted.is_err() {
        dir.wipe()?;
    }
    found.tell(&adopted?, job, context);
    if job.is_deduped() {
        let is_spooled = manifest.source().path.is_none();
        let (url, now_ms) = (manifest.source().url.clone(), now_ms());
        let options = plan::Options { is_spooled, url, now_ms, ..plan.clone() };
        let keeping = plan::Keeping::default();
        (manifest, sources) = update(dir, &manifest, sources, job, &options, keeping, context)?;
    }
    dir.end_adopting()?;
    Ok((manifest, sources))
}

/// Takes the answers over, once it is known that they are of this input.
fn fill(
    run: &Run,
    dir: &Held,
    (manifest, sources): (&Manifest, &Sources),
    targets: &Targets,
    found: &mut Found,
) -> Result<Adopted, Error> {
    let source: &Source = sources.first();
    match &found.theirs {
        None => {
            let keeps_changed =
                matches!(run.on_change, OnChange::Update(keeping) if keeping.changed_rows);
            found.earlier.is_known =
                ours::is_of_this_input(targets, manifest, source, keeps_changed)?;
        }
        Some(Theirs { manifest: Some(theirs), .. }) => {
            let (now, then) = (manifest.rows(), theirs.input_rows);
            if now != then {
                let what = format!("their input had {then} rows, and this one has {now}");
                return Err(refused(
                    &found.shown,
                    &what,
                    "give the input as it was, or another --work-dir",
                ));
            }
        }
        Some(Theirs { manifest: None, .. }) => {
            let numbering = if source.is_csv() { Numbering::Records } else { Numbering::Lines };
            found.earlier.writer = Writer::FastAgent(numbering);
        }
    }
    let adopted = plan::adopt(dir, manifest, sources, &found.earlier, now_ms())?;
    found.is_taken(&adopted, &run.question.job, manifest.rows())?;
    found.is_ours_to_replace(&adopted, targets)?;
    Ok(adopted)
}
