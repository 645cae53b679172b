//! The third stage: verifies the journals and writes the outputs beside their places.
//!
//! Shards are read in parallel and written in order. Nothing but the manifest, the seals and the
//! journals is read, and nothing takes its place here: that is decided by who called.

mod totals;
mod twins;
mod writer;

use std::io::Write;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::dialect::{Dialect, Speller, Told, Unreadable};
use crate::format::{envelope, telemetry};
use crate::job::{JobSpec, OutcomeKind, Variant};
use crate::shutdown::Shutdown;
use crate::store::{
    self, Asked, Held, Manifest, OutcomePlaces, Outcomes, Record, RowRecords, ShardEntry,
    ShardReader, Staged, Target, WorkDir, for_each_row_of, spawn,
};

use twins::TwinLines;
use writer::Writer;

pub use totals::Totals;

/// Where the outputs of an input go.
#[derive(Debug, Clone)]
pub struct Outputs {
    /// One line a row.
    pub output: Target,
    /// The lines of the rows that failed.
    pub errors: Option<Target>,
    /// One line an attempt.
    pub telemetry: Option<Target>,
    /// The lines of the answers that no earlier generation published.
    pub delta: Option<Target>,
}

/// What is merged, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Those of each input, in order.
    pub outputs: Vec<Outputs>,
    /// How lines are spelled. Only envelopes tell several answers to a row apart.
    pub format: Dialect,
    /// Whether envelopes show their rows. Only envelopes can.
    pub include_input: bool,
    /// Threads that read journals.
    pub threads: usize,
    /// The number of this publication.
    pub sequence: u32,
    /// Whether rows without an outcome are left out; without this they are an error.
    pub is_partial: bool,
}

/// Outputs that are written and wait for their places.
#[derive(Debug)]
pub struct Merged {
    /// What came of each input.
    pub inputs: Vec<MergedInput>,
    /// What all rows came to.
    pub totals: Totals,
    /// The same by variant of the job.
    pub variants: Vec<Totals>,
}

/// The outputs of an input, and what they hold.
#[derive(Debug)]
pub struct MergedInput {
    /// The outputs, the one with a line for each row first.
    pub staged: Vec<Staged>,
    /// Rows with an answer; where there are several variants, each counts.
    pub ok: u64,
    /// Rows without one.
    pub failed: u64,
}

/// Why there are no outputs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The work directory or an output cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Rows have no outcome yet.
    #[error("{left} of {wanted} rows have no outcome yet")]
    Unfinished {
        /// How many.
        left: u64,
        /// Of how many.
        wanted: u64,
    },
    /// The run was asked, twice, to end.
    #[error("interrupted while merging")]
    Interrupted,
}

/// The lines of one range.
#[derive(Debug, Default)]
struct Lines {
    output: Vec<u8>,
    errors: Vec<u8>,
    telemetry: Vec<u8>,
    delta: Vec<u8>,
    // By variant.
    totals: Vec<Totals>,
    // Whether more of the same range follow.
    has_more: bool,
}

/// A range of which there are lines to make: a shard for each variant, all of them sealed.
#[derive(Debug, Clone, Copy)]
struct Range {
    // The number of its first shard.
    first: u32,
    // Which input it is of.
    source: usize,
    // The length of all its journals; nothing where all its rows take the outcomes of others.
    bytes: u64,
}

/// Which lines are wanted.
#[derive(Debug)]
struct Wanted {
    speller: Speller,
    include_input: bool,
    errors: bool,
    telemetry: bool,
    delta: bool,
    // Whether rows without an outcome are left out.
    is_partial: bool,
    // The plan's generation, and the newest one before it that was published.
    generation: u32,
    published: u32,
    // What tells the lines of variants apart, by variant.
    marks: Vec<Mark>,
    // What inputs are called, where there are several.
    names: Vec<String>,
}

/// What tells the lines of a variant from those of others; nothing where there are none.
#[derive(Debug, Default)]
struct Mark {
    envelope: Vec<u8>,
    attempt: Vec<u8>,
}

impl Mark {
    fn all(job: &JobSpec) -> Vec<Self> {
        if !job.is_varied() {
            return vec![Self::default()];
        }
        let of = |number| {
            let Variant { named, repeat, .. } = job.variant(number);
            let envelope = envelope::mark(named, repeat);
            Self { envelope, attempt: telemetry::mark(named, repeat) }
        };
        (0..job.variants()).map(of).collect()
    }
}

/// Journals up to this size are made into lines in memory, on several threads.
const SMALL: u64 = 32 << 20;

/// Verifies all shards and writes the outputs beside their places. `stdout` is where an output goes
/// that is to go to standard output.
///
/// # Errors
/// When rows have no outcome, a journal is damaged, or files cannot be read or written. What was
/// written is of no consequence then.
pub fn run(
    dir: &Held,
    manifest: &Manifest,
    options: &Options,
    shutdown: &Shutdown,
    stdout: &mut (dyn Write + Send),
) -> Result<Merged, Error> {
    let ranges = match options.is_partial {
        true => finished(dir, manifest)?,
        false => sealed(dir, manifest)?,
    };
    let threads = options.threads.max(1);
    let places = twins::find(dir, manifest, (threads, options.is_partial), shutdown)?;
    let places = places.as_ref();
    let wanted = &Wanted {
        speller: Speller::new(&manifest.job, options.format, dir.run()),
        include_input: options.include_input,
        errors: options.outputs.iter().any(|it| it.errors.is_some()),
        telemetry: options.outputs.iter().any(|it| it.telemetry.is_some()),
        delta: options.outputs.iter().any(|it| it.delta.is_some()),
        is_partial: options.is_partial,
        generation: manifest.generation,
        published: manifest.published,
        marks: Mark::all(&manifest.job),
        names: manifest.sources.iter().map(|it| it.name.clone().unwrap_or_default()).collect(),
    };
    let mut writer = Writer::begin(dir, options, manifest.job.variants(), shutdown, stdout)?;
    let small = small_of(&ranges);
    let write = &mut writer;
    std::thread::scope(|scope| {
        let mut readers = Vec::new();
        for first in 0..threads {
            let ((made_in, made), (spare, spares)) = (bounded(1), bounded(2));
            let mine = small.iter().copied().skip(first).step_by(threads);
            let from = From { dir, manifest, wanted, places };
            let body = move || read_all(from, mine, &made_in, &spares);
            spawn(scope, "merge", body)?;
            readers.push(Reader { made, spare });
        }
        // Takes the readers along: their threads end when nobody takes from them any more.
        write.write_all(From { dir, manifest, wanted, places }, &ranges, readers)
    })?;
    writer.finish()
}

/// What lines are made from.
#[derive(Debug, Clone, Copy)]
struct From<'a> {
    dir: &'a Held,
    manifest: &'a Manifest,
    wanted: &'a Wanted,
    // There where rows take the outcomes of others.
    places: Option<&'a OutcomePlaces>,
}

impl<'a> From<'a> {
    fn outcomes(&self) -> Result<Option<Outcomes<'a>>, store::Error> {
        self.places.map(|places| places.reader(self.dir, self.manifest)).transpose()
    }
}

/// All ranges of which there are lines to make.
fn sealed(dir: &Held, manifest: &Manifest) -> Result<Vec<Range>, Error> {
    let (mut ranges, mut left) = (Vec::new(), 0);
    for (number, entry) in manifest.published_shards() {
        if entry.variant == 0 {
            ranges.push(Range { first: number, source: entry.source as usize, bytes: 0 });
        }
        match dir.seal(number)? {
            _ if entry.wanted == 0 => {}
            Some(seal) if seal.rows == entry.wanted => {
                if let Some(range) = ranges.last_mut() {
                    range.bytes = range.bytes.saturating_add(seal.bytes);
                }
            }
            _ => {
                let done = dir.tally(number, entry, &mut |_| {})?.done();
                // A shard whose rows are all done and which is not sealed needs work as well.
                left += (entry.wanted + entry.served()).saturating_sub(done).max(1);
            }
        }
    }
    match left {
        0 => Ok(ranges),
        _ => Err(Error::Unfinished { left, wanted: manifest.answered_for() }),
    }
}

/// All ranges, whether or not their rows are done.
fn finished(dir: &Held, manifest: &Manifest) -> Result<Vec<Range>, store::Error> {
    let mut ranges: Vec<Range> = Vec::new();
    for (number, entry) in manifest.published_shards() {
        if entry.variant == 0 {
            ranges.push(Range { first: number, source: entry.source as usize, bytes: 0 });
        }
        if let Some(range) = ranges.last_mut() {
            range.bytes = range.bytes.saturating_add(dir.journal_bytes(number)?);
        }
    }
    Ok(ranges)
}

/// The ranges whose lines are made in memory.
fn small_of(ranges: &[Range]) -> Vec<Range> {
    ranges.iter().filter(|range| range.bytes <= SMALL).copied().collect()
}

type Made = Result<Lines, store::Error>;

/// The other end of a thread that makes lines: of every n-th range, where n is their number, so
/// that none can run ahead of the writer by more than two ranges.
struct Reader {
    made: Receiver<Made>,
    // Lines that were written: their memory is used again.
    spare: Sender<Lines>,
}

fn read_all(
    from: From<'_>,
    ranges: impl Iterator<Item = Range>,
    made: &Sender<Made>,
    spares: &Receiver<Lines>,
) {
    let mut readers = Vec::new();
    let mut outcomes = match from.outcomes() {
        Ok(outcomes) => outcomes,
        Err(error) => {
            let _ = made.send(Err(error));
            return;
        }
    };
    for range in ranges {
        let mut lines = spares.try_recv().unwrap_or_default();
        // A few long answers may be those of many rows.
        let mut flush = |lines: &mut Lines| {
            if lines.output.len() as u64 > SMALL {
                let mut next = spares.try_recv().unwrap_or_default();
                next.totals.resize_with(lines.totals.len(), Totals::default);
                let full = Lines { has_more: true, ..std::mem::replace(lines, next) };
                // Whoever takes no more ends soon, and this with it.
                let _ = made.send(Ok(full));
            }
            Ok(())
        };
        let outcomes = outcomes.as_mut();
        let read = read_range(from, range, &mut readers, outcomes, &mut lines, &mut flush);
        if made.send(read.map(|()| lines)).is_err() {
            return;
        }
    }
}

/// Makes a range's lines, row by row and for each row variant by variant. `flush` may take them after
/// each.
fn read_range(
    from: From<'_>,
    range: Range,
    readers: &mut Vec<ShardReader>,
    outcomes: Option<&mut Outcomes<'_>>,
    lines: &mut Lines,
    flush: &mut dyn FnMut(&mut Lines) -> Result<(), store::Error>,
) -> Result<(), store::Error> {
    let From { dir, manifest, wanted, .. } = from;
    let variants = wanted.marks.len();
    readers.resize_with(variants, ShardReader::default);
    lines.totals.resize_with(variants, Totals::default);
    // Where there are twins, there is one variant.
    let entry = &manifest.shards[range.first as usize];
    let mut twins = TwinLines::of(dir, (range.first, entry), wanted, outcomes)?;
    let mut shards = Vec::with_capacity(variants);
    for ((number, reader), totals) in (range.first..).zip(readers).zip(&mut lines.totals) {
        let entry = &manifest.shards[number as usize];
        if entry.wanted == 0 {
            continue;
        }
        if wanted.is_partial && dir.whole_seal(number, entry)?.is_none() {
            shards.push(reader.read_finished(dir, number, entry)?);
            continue;
        }
        let (read, verified) = reader.read(dir, number, entry)?;
        dir.is_as_sealed(number, &verified)?;
        totals.repeated = totals.repeated.saturating_add(verified.repeated);
        shards.push(read);
    }
    for_each_row_of(&shards, &mut |variant, row| {
        twins.put_below(row.outcome.row, lines, flush)?;
        put_row(&row, (variant, entry), wanted, lines)
            .map_err(|error| damaged(dir, row.outcome.row, &error))?;
        flush(lines)
    })?;
    twins.put_below(u64::MAX, lines, flush)
}

/// An envelope that cannot be spelled otherwise. The record is as it was written, and so is the journal: to work
/// its shard again would be to pay for guessing.
fn damaged(dir: &WorkDir, row: u64, error: &Unreadable) -> store::Error {
    let reason = format!("in the record of row {row} {error}");
    store::Error::Damaged { path: dir.path().to_owned(), reason }
}

/// Makes the line of an outcome, for all outputs that are to have it. `is_new` says whether the delta is one of them.
fn put_line(
    told: &Told<'_>,
    (kind, is_new): (OutcomeKind, bool),
    wanted: &Wanted,
    lines: &mut Lines,
) -> Result<(), Unreadable> {
    let start = lines.output.len();
    wanted.speller.line(&mut lines.output, told)?;
    let line = &lines.output[start..];
    if wanted.errors && kind != OutcomeKind::Ok {
        lines.errors.extend_from_slice(line);
    }
    if wanted.delta && kind == OutcomeKind::Ok && is_new {
        lines.delta.extend_from_slice(line);
    }
    Ok(())
}

fn put_row(
    row: &RowRecords<'_>,
    (variant, entry): (usize, &ShardEntry),
    wanted: &Wanted,
    lines: &mut Lines,
) -> Result<(), Unreadable> {
    let outcome = &row.outcome;
    let mark = &wanted.marks[variant];
    let told = Told {
        envelope: outcome.envelope,
        attempts: outcome.attempts,
        named: outcome.named,
        mark: &mark.envelope,
        input_name: wanted.names[entry.source as usize].as_str(),
        input: outcome.input.filter(|_| wanted.include_input),
    };
    let is_new = |asked: Asked| asked.generation > wanted.published && !outcome.adopted;
    put_line(&told, (outcome.kind, outcome.asked.is_some_and(is_new)), wanted, lines)?;
    let totals = &mut lines.totals[variant];
    totals.row(row, wanted.generation);
    for (index, record) in row.all.iter().enumerate() {
        let attempts = match record {
            Record::Outcome(outcome) => outcome.attempts,
            Record::Retry { attempts, .. } => attempts,
            Record::Repeated { .. } | Record::Begin { .. } => continue,
        };
        let seen = totals.attempts(attempts);
        if wanted.telemetry {
            let epoch = epoch(&row.all[index..]).unwrap_or(wanted.generation);
            let (id, row, mark) = (outcome.id(), entry.own_row(outcome.row), &mark.attempt);
            let head = telemetry::Head { id, row, mark, epoch };
            for attempt in seen {
                telemetry::write_line(&mut lines.telemetry, head, attempt.text.as_bytes());
            }
        }
    }
    Ok(())
}

/// The generation that asked what the first outcome among a row's records came of; attempts that
/// led to an outcome stand before it.
fn epoch(records: &[Record<'_>]) -> Option<u32> {
    records.iter().find_map(|record| match record {
        Record::Outcome(outcome) => outcome.asked.map(|asked| asked.generation),
        Record::Retry { .. } | Record::Repeated { .. } | Record::Begin { .. } => None,
    })
}
