//! The first stage: splits the input into shards and checks all that can be checked without a
//! call.
//!
//! The input is read once, on all cores; a sample takes a second look, because who is drawn depends
//! on how many there are. What comes out is the manifest, and an index of the rows' ids beside it.

mod adopt;
mod answers;
mod carry;
mod drift;
mod duplicates;
mod flaws;
mod indexes;
mod left;
mod matches;
mod names;
mod scan;
mod settings;
mod twins;

use std::path::PathBuf;

use crate::input::{self, Source, Sources, choose};
use crate::job::{
    Identity, JobSpec, NameCounts, Names, OnDuplicate, OnMissingField, Pool, Transport, rfc3339,
};
use crate::price::{self, Prices};
use crate::prompt::Template;
use crate::shutdown::Shutdown;
use crate::store::{
    self, Carried, Damage, DamageKind, FORMAT, Held, Manifest, NotedRoute, RowHashes, ShardEntry,
    SourcePrint,
};
use crate::telemetry::{Event, Silent, Sink};

use carry::{Joined, Kept, Side};
use twins::{Pairs, Requests, Settled};

pub use adopt::{Adopted, adopt};
pub use answers::{
    Earlier, Survey, Writer, are_row_numbers, have_own_ids, is_of_fast_agent, say_the_same, survey,
};
pub use drift::{Drift, InputDrift, Outlook, RowChanges, compare};
pub use flaws::alike;
pub use flaws::{BadLine, MissingField};
pub use left::cut_what_is_left;
pub use settings::Keeping;

/// How a plan is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where shards end.
    pub cutting: Cutting,
    /// Threads that read rows.
    pub threads: usize,
    /// Where the endpoint is, for those who work the plan without being told.
    pub base_url: Option<String>,
    /// The provider it belongs to, likewise.
    pub provider: Option<String>,
    /// How its calls travel, likewise.
    pub transport: Transport,
    /// The same of the job's other models.
    pub routes: Vec<NotedRoute>,
    /// Where its models are, where there are several places, likewise.
    pub pool: Option<Pool>,
    /// What each line's own model costs, where no call may be made whose price is not known.
    pub prices: Option<Prices>,
    /// Files that are there and that the outputs may take the place of.
    pub replaces: Vec<String>,
    /// The newest generation all of whose answers were published, for the plan that follows it.
    pub published: u32,
    /// Whether the input is a copy in the work directory.
    pub is_spooled: bool,
    /// The URL that it is a copy of, without what is secret in it.
    pub url: Option<String>,
    /// Whether somebody wants to know how many rows ask what others ask, also where each is called.
    pub counts_twins: bool,
    /// The time, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

impl Options {
    /// Where the endpoints are, by model.
    #[must_use]
    pub fn base_urls(&self) -> Vec<Option<String>> {
        let others = self.routes.iter().map(|route| &route.base_url);
        std::iter::once(&self.base_url).chain(others).cloned().collect()
    }
}

/// Where shards end. None grows beyond what a worker should have in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cutting {
    /// Where it suits the input.
    #[default]
    Auto,
    /// After so many rows at most.
    Rows(usize),
    /// Where so many shards are of about the same size.
    Shards(u32),
    /// Before these rows, which are in order.
    Before(Vec<u64>),
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input cannot be used.
    #[error(transparent)]
    Input(#[from] input::Error),
    /// The work directory cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Rows share ids.
    #[error("{count} rows have the id of an earlier row: {}", shown.join(", "))]
    Duplicates {
        /// How many.
        count: u64,
        /// The first of them, in words.
        shown: Vec<String>,
    },
    /// Lines of a request file are no requests, or have the id of an earlier line.
    #[error(
        "{count} {} of the input cannot be sent, first {}",
        if *count == 1 { "line" } else { "lines" },
        shown.first().map(ToString::to_string).unwrap_or_default()
    )]
    BadLines {
        /// How many.
        count: u64,
        /// The first of them.
        shown: Vec<BadLine>,
    },
    /// Lines name models that nobody answers to.
    #[error("{} of its lines name models of which nothing says what they stand for, or where they are", names.lines())]
    UnknownModels {
        /// Which, and how often.
        names: NameCounts,
    },
    /// Lines name models whose price nobody knows, though it counts.
    #[error(
        "--max-cost needs to know what calls cost, and no price is known of models that lines name: {}",
        names.join(", ")
    )]
    UnknownPrices {
        /// The first of them.
        names: Vec<String>,
    },
    /// Rows lack fields of the template, and that is not allowed.
    #[error("{}", fields.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    MissingFields {
        /// Which fields, and in how many rows.
        fields: Vec<MissingField>,
    },
    /// The run was asked to end.
    #[error("interrupted while planning")]
    Interrupted,
}

/// A plan, and what was found out besides.
#[derive(Debug)]
pub struct Planned {
    /// The plan.
    pub manifest: Manifest,
    /// Rows that ask what another row asks: as many calls are saved where rows that ask the same
    /// are asked once, or would be. 0 where they are not, and [`Options::counts_twins`] is not set.
    pub twins: u64,
}

/// Makes the plan of a job over a source, and writes it to the work directory.
///
/// # Errors
/// When the input or the work directory cannot be used, or rows are wrong in a way that is not
/// allowed. Then there is no manifest.
pub fn run(
    dir: &Held,
    sources: &Sources,
    job: JobSpec,
    options: &Options,
    shutdown: &Shutdown,
    sink: &mut dyn Sink,
) -> Result<Planned, Error> {
    let Drawn { mut manifest, requests } =
        draw_up(dir, sources, job, options, None, shutdown, sink)?;
    let mut twins = 0;
    if let Some(requests) = requests {
        let mut pairs = Pairs::new(dir);
        let is_deduped = manifest.job.is_deduped();
        let mut add = |pair| if is_deduped { pairs.add(pair) } else { Ok(()) };
        twins = requests.pair(None, &mut add)?;
        let Manifest { job, shards, .. } = &mut manifest;
        twins::write(dir, sources, job, (options.threads, shutdown), shards, pairs)?;
        report_twins(is_deduped, twins, sink);
    }
    dir.write_manifest(&manifest)?;
    Ok(Planned { manifest, twins })
}

/// Tells how many rows ask what others ask.
fn report_twins(is_deduped: bool, count: u64, sink: &mut dyn Sink) {
    let what = match (count, is_deduped) {
        (0, _) => return,
        (1, true) => "no call is made for it (--no-dedupe makes one for each row)",
        (_, true) => "no call is made for them (--no-dedupe makes one for each row)",
        (1, false) => "--dedupe would save its call",
        (_, false) => "--dedupe would save as many calls",
    };
    let rows = if count == 1 { "row asks" } else { "rows ask" };
    sink.emit(&Event::Note(format!("{count} {rows} what another row asks: {what}")));
}

/// Plans the next generation: takes over the answers of the one that counts, as far as they still
/// are answers to the question, and puts the new one in its place. Gives its input as well: a copy
/// of it that is in the work directory moves with the plan.
///
/// # Errors
/// As [`run`]. Then the generation that counted still does.
#[expect(clippy::too_many_arguments, reason = "what was, what is to be, and who is told")]
pub fn update(
    dir: &mut Held,
    before: &Manifest,
    sources: Sources,
    job: JobSpec,
    options: &Options,
    keeping: Keeping,
    shutdown: &Shutdown,
    sink: &mut dyn Sink,
) -> Result<(Manifest, Sources), Error> {
    let (repeated, repairs) = dir.settle_shards(before, options.now_ms)?;
    report_settled(before, repeated, &repairs, sink);
    let lost = dir.calls_lost(before)?;
    let spent = price::spent(dir, before)?.cost;
    let old = dir.begin_generation()?;
    let planned = (|| {
        let sources = match options.is_spooled {
            true => Source::open_as(&dir.take_spool(&old)?, sources.first().is_csv())?.into(),
            false => sources,
        };
        let mut prompts = RowHashes::create(&prompts_in(dir))?;
        let Drawn { mut manifest, requests } =
            draw_up(dir, &sources, job, options, Some(&prompts), shutdown, sink)?;
        manifest.past = before.past_of_next(&manifest.job, |then, now| keeping.accept(then, now));
        manifest.published = options.published;
        manifest.earlier.extend(before.earlier.iter().chain([&before.plan]).cloned());
        manifest.replaces.extend(before.replaces.iter().cloned());
        let old = Side { dir: &old, manifest: before, sources: &sources };
        let new = Side { dir, manifest: &manifest, sources: &sources };
        let mut settled = Settled::create_if(requests.is_some(), dir)?;
        let mut pairs = Pairs::new(dir);
        let kept = Kept { settled: settled.as_mut(), pairs: Some(&mut pairs) };
        let Joined { mut carried, kept_cost, .. } =
            carry::carry(&old, &new, &mut prompts, keeping, kept)?;
        carried.repeated = lost.saturating_add(before.repeated_before());
        // Shards cut anew, and nothing else: what the update before them was told is still true.
        let is_recut = matches!(options.cutting, Cutting::Before(_));
        let was_told = before.carried.filter(|_| is_recut && options.published < before.generation);
        let repeated = carried.repeated;
        let replaced = Some(spent.minus(&kept_cost)).filter(|it| it.priced + it.unpriced > 0);
        manifest.carried = Some(Carried { repeated, replaced, ..was_told.unwrap_or(carried) });
        if let Some(requests) = requests {
            let is_deduped = manifest.job.is_deduped();
            let mut add = |pair| if is_deduped { pairs.add(pair) } else { Ok(()) };
            let count = requests.pair(settled.as_mut(), &mut add)?;
            report_twins(is_deduped, count, sink);
        }
        let Manifest { job, shards, .. } = &mut manifest;
        twins::write(dir, &sources, job, (options.threads, shutdown), shards, pairs)?;
        settled.map_or(Ok(()), Settled::discard)?;
        prompts.discard()?;
        dir.write_manifest(&manifest)?;
        Ok((manifest, sources))
    })();
    if planned.is_err() {
        // The error that led here is the one to tell.
        let _ = dir.abandon_generation(&old);
    }
    planned
}

/// Tells what an [`update`] would come to, and changes nothing.
///
/// # Errors
/// As [`update`].
pub fn foresee(
    dir: &mut Held,
    before: &Manifest,
    sources: &Sources,
    job: &JobSpec,
    options: &Options,
    shutdown: &Shutdown,
) -> Result<Outlook, Error> {
    let old = dir.begin_generation()?;
    let outlook = (|| {
        let mut prompts = RowHashes::create(&prompts_in(dir))?;
        let Drawn { manifest, requests } =
            draw_up(dir, sources, job.clone(), options, Some(&prompts), shutdown, &mut Silent)?;
        let old = Side { dir: &old, manifest: before, sources };
        let new = Side { dir, manifest: &manifest, sources };
        let keeping = Keeping::default();
        let mut settled = Settled::create_if(requests.is_some(), dir)?;
        let kept = Kept { settled: settled.as_mut(), pairs: None };
        let Joined { carried, rows, .. } = carry::carry(&old, &new, &mut prompts, keeping, kept)?;
        let twins = match requests.filter(|_| job.is_deduped()) {
            Some(requests) => requests.pair(settled.as_mut(), &mut |_| Ok(()))?,
            None => 0,
        };
        let asked = manifest.wanted().saturating_sub(carried.kept + twins);
        Ok(Outlook { rows, kept: carried.kept, asked, variants: job.variants() })
    })();
    dir.abandon_generation(&old)?;
    outlook
}

/// Where the hashes of the rows' prompts are, while a generation is planned.
fn prompts_in(dir: &Held) -> PathBuf {
    dir.ids().with_file_name("ids.part-prompts")
}

/// A plan that is not written yet, in which every row is called.
struct Drawn {
    manifest: Manifest,
    /// What rows ask, where those that ask the same are asked once, or are to be counted.
    requests: Option<Requests>,
}

/// Makes a plan that is not written yet.
fn draw_up(
    dir: &Held,
    sources: &Sources,
    job: JobSpec,
    options: &Options,
    prompts: Option<&RowHashes>,
    shutdown: &Shutdown,
    sink: &mut dyn Sink,
) -> Result<Drawn, Error> {
    let template = Template::parse(&job.prompt);
    // Where rows have no ids, the plan after this one must know them by their texts.
    let contents = match job.identity() {
        Identity::RowNumber => Some(RowHashes::create_of(&dir.contents(), dir.tag())?),
        Identity::Field(_) | Identity::FieldOrNumber(_) | Identity::Hash => None,
    };
    let contents = contents.as_ref();
    let requests = twins::part(dir, "requests");
    let are_wanted = job.is_deduped() || options.counts_twins && !job.is_varied();
    let requests = are_wanted.then_some(requests.as_path());
    let kept = scan::Kept { prompts, contents, requests };
    let (template, names) = (&template, Names::of(&job, options.base_url.is_some()));
    let scan = scan::Scan { sources, job: &job, template, names, options, kept, shutdown };
    let mut scanned = scan.run((&dir.ids(), dir.tag()), sink)?;
    let settled = duplicates::settle(dir, sources, &job, &mut scanned)?;
    let duplicates::Settled { uncalled: left_out, skipped, count: total, first, refused } = settled;
    if !job.dialect.is_rows() {
        let is_refused = !refused.is_empty();
        refuse_bad_lines(&job, &mut scanned, (refused, if is_refused { total } else { 0 }))?;
        names::refuse(&mut scanned.models, options.prices.as_ref())?;
    }
    if job.on_missing_field == OnMissingField::Error && !scanned.missing.is_empty() {
        return Err(Error::MissingFields { fields: scanned.missing });
    }
    report(&job, sources, &scanned, (total, first), sink);
    let generation = dir.generation();
    let requests = match scanned.requests.take() {
        Some(sorter) => Some(Requests { sorted: sorter.finish()?, left_out, generation }),
        None => None,
    };
    let manifest = Manifest {
        format: FORMAT,
        rowmill: env!("CARGO_PKG_VERSION").to_owned(),
        run: dir.run().to_owned(),
        plan: dir.plan().to_owned(),
        earlier: Vec::new(),
        created: rfc3339(options.now_ms),
        generation,
        past: Vec::new(),
        carried: None,
        published: 0,
        base_url: options.base_url.clone(),
        provider: options.provider.clone(),
        transport: options.transport,
        routes: options.routes.clone(),
        pool: options.pool.clone(),
        own_models: scanned.models.own.models(),
        replaces: options.replaces.clone(),
        sources: prints(sources, &scanned, options),
        chosen: choose(&job.selection, scanned.rows),
        selected: scanned.selected,
        skipped,
        shards: for_each_variant(&scanned.shards, &job),
        job,
    };
    Ok(Drawn { manifest, requests })
}

/// Of a request file no line is sent unless all can be, or those that cannot may fail. `twice` are the
/// first lines that have the id of an earlier one, and how many do.
fn refuse_bad_lines(
    job: &JobSpec,
    scanned: &mut scan::Scanned,
    twice: (Vec<(u64, BadLine)>, u64),
) -> Result<(), Error> {
    if job.skip_bad_lines {
        scanned.bad.clear();
    }
    let invalid = if job.skip_bad_lines { 0 } else { scanned.invalid };
    let mut count = invalid + twice.1;
    // A line may be wrong in both ways: then what it says is the worse.
    for (row, line) in twice.0 {
        count -= u64::from(scanned.bad.contains_key(&row));
        scanned.bad.entry(row).or_insert(line);
    }
    match count {
        0 => Ok(()),
        _ => {
            let shown = std::mem::take(&mut scanned.bad).into_values();
            Err(Error::BadLines { count, shown: shown.take(flaws::BAD_LINES).collect() })
        }
    }
}

fn prints(sources: &Sources, scanned: &scan::Scanned, options: &Options) -> Vec<SourcePrint> {
    let print = |(source, (rows, blake3)): (&Source, &(u64, String))| {
        let path = std::path::absolute(&source.path).unwrap_or_else(|_| source.path.clone());
        SourcePrint {
            name: source.name.clone(),
            path: (!options.is_spooled).then(|| path.to_string_lossy().into_owned()),
            url: options.url.clone(),
            format: source.format_name().to_owned(),
            columns: source.columns(),
            separator: source.separator(),
            bytes: source.length,
            blake3: blake3.clone(),
            rows: *rows,
            data_offset: source.data_offset,
        }
    };
    sources.all().iter().zip(&scanned.inputs).map(print).collect()
}

/// The shards of ranges: each range once for every variant of the job.
fn for_each_variant(ranges: &[ShardEntry], job: &JobSpec) -> Vec<ShardEntry> {
    let variants = u32::try_from(job.variants()).unwrap_or(u32::MAX);
    let of = |range: &ShardEntry| {
        let range = range.clone();
        (0..variants).map(move |variant| ShardEntry { variant, ..range.clone() })
    };
    ranges.iter().flat_map(of).collect()
}

/// Tells what a process that is gone left in the plan that goes.
fn report_settled(before: &Manifest, repeated: u64, repairs: &[Damage], sink: &mut dyn Sink) {
    for damage in repairs.iter().filter(|damage| damage.kind == DamageKind::LostRecords) {
        sink.emit(&Event::Alert(damage.told()));
    }
    if repeated > 0 && before.job.is_any_called() {
        sink.emit(&Event::calls_again(repeated, None));
    }
}

/// Tells what the input will lead to: rows that fail, rows that are left out.
fn report(
    job: &JobSpec,
    sources: &Sources,
    scanned: &scan::Scanned,
    (duplicates, first): (u64, u64),
    sink: &mut dyn Sink,
) {
    if let Some((row, failure)) = &scanned.first_invalid {
        let (count, row) = (scanned.invalid, flaws::named(sources, &scanned.shards, *row));
        sink.emit(&Event::Warning(format!(
            "{count} of {} rows cannot be asked about and will fail without a call; the first is \
             {row}: {}",
            scanned.selected, failure.message
        )));
    }
    if job.on_missing_field == OnMissingField::RowError {
        for field in &scanned.missing {
            sink.emit(&Event::Warning(format!("{field}; those rows will fail without a call")));
        }
    }
    if let Some(field) = &job.attachment_field
        && job.dialect.is_rows()
        && scanned.with_attachment_field == 0
        && scanned.selected > 0
    {
        sink.emit(&Event::Warning(format!(
            "no row has the attachment field {field:?}: all are asked about without an attachment"
        )));
    }
    if duplicates > 0 {
        let what = match job.on_duplicate {
            OnDuplicate::First => "are left out",
            OnDuplicate::Suffix => "are given ids of their own",
            // They are refused unless bad lines may fail.
            OnDuplicate::Error => "will fail without a call",
        };
        sink.emit(&Event::Warning(format!(
            "{duplicates} rows have the id of an earlier row and {what}; the first is {}",
            flaws::named(sources, &scanned.shards, first)
        )));
    }
}
