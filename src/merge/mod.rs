//! The third stage: verifies the journals and writes the outputs beside their places.
//!
//! Shards are read in parallel and written in order. Nothing but the manifest, the seals and the
//! journals is read, and nothing takes its place here: that is decided by who called.

mod totals;
mod twins;

use std::io::Write;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::format::{envelope, telemetry};
use crate::job::OutcomeKind;
use crate::shutdown::{self, Shutdown};
use crate::store::{
    self, Asked, Held, Manifest, OutcomePlaces, Outcomes, Record, Role, RowRecords, ShardReader,
    Stage, Staged, Target, spawn,
};

use twins::TwinLines;

pub use totals::Totals;

/// Where outputs go.
#[derive(Debug, Clone)]
pub struct Outputs {
    /// One envelope a row.
    pub output: Target,
    /// The envelopes of the rows that failed.
    pub errors: Option<Target>,
    /// One line an attempt.
    pub telemetry: Option<Target>,
    /// The envelopes of the answers that no earlier generation published.
    pub delta: Option<Target>,
}

/// What is merged, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where outputs go.
    pub outputs: Outputs,
    /// Whether envelopes show their rows.
    pub include_input: bool,
    /// Threads that read journals.
    pub threads: usize,
    /// The number of this publication.
    pub sequence: u32,
}

/// Outputs that are written and wait for their places.
#[derive(Debug)]
pub struct Merged {
    /// The outputs.
    pub staged: Vec<Staged>,
    /// What all rows came to.
    pub totals: Totals,
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

/// The lines of one shard.
#[derive(Debug, Default)]
struct Lines {
    output: Vec<u8>,
    errors: Vec<u8>,
    telemetry: Vec<u8>,
    delta: Vec<u8>,
    totals: Totals,
    // Whether more of the same shard follow.
    has_more: bool,
}

/// A shard of which there are lines to make, and the bytes of its journal; none where all its rows
/// take the outcomes of others.
#[derive(Debug, Clone, Copy)]
struct Part {
    shard: u32,
    bytes: u64,
}

/// Which lines are wanted.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    include_input: bool,
    errors: bool,
    telemetry: bool,
    delta: bool,
    // The plan's generation, and the newest one before it that was published.
    generation: u32,
    published: u32,
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
    let shards = sealed(dir, manifest)?;
    let threads = options.threads.max(1);
    let places = twins::find(dir, manifest, threads, shutdown)?;
    let places = places.as_ref();
    let Outputs { output, errors, telemetry, delta } = &options.outputs;
    let wanted = Wanted {
        include_input: options.include_input,
        errors: errors.is_some(),
        telemetry: telemetry.is_some(),
        delta: delta.is_some(),
        generation: manifest.generation,
        published: manifest.published,
    };
    let side = |role, target: &Option<Target>| {
        let begin = |target| Stage::begin(dir, options.sequence, role, target, None);
        target.as_ref().map(begin).transpose()
    };
    let mut writer = Writer {
        output: Stage::begin(dir, options.sequence, Role::Output, output, Some(stdout))?,
        errors: side(Role::Errors, errors)?,
        telemetry: side(Role::Telemetry, telemetry)?,
        delta: side(Role::Delta, delta)?,
        totals: Totals::default(),
        shutdown,
    };
    let small = small_of(&shards);
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
        write.write_all(From { dir, manifest, wanted, places }, &shards, readers)
    })?;
    writer.finish()
}

/// What lines are made from.
#[derive(Debug, Clone, Copy)]
struct From<'a> {
    dir: &'a Held,
    manifest: &'a Manifest,
    wanted: Wanted,
    // There where rows take the outcomes of others.
    places: Option<&'a OutcomePlaces>,
}

impl<'a> From<'a> {
    fn outcomes(&self) -> Result<Option<Outcomes<'a>>, store::Error> {
        self.places.map(|places| places.reader(self.dir, self.manifest)).transpose()
    }
}

/// All shards of which there are lines to make.
fn sealed(dir: &Held, manifest: &Manifest) -> Result<Vec<Part>, Error> {
    let (mut parts, mut left) = (Vec::new(), 0);
    for (number, entry) in manifest.published_shards() {
        match dir.seal(number)? {
            _ if entry.wanted == 0 => parts.push(Part { shard: number, bytes: 0 }),
            Some(seal) if seal.rows == entry.wanted => {
                parts.push(Part { shard: number, bytes: seal.bytes });
            }
            _ => {
                let done = dir.tally(number, entry, &mut |_| {})?.done();
                // A shard whose rows are all done and which is not sealed needs work as well.
                left += (entry.wanted + entry.served()).saturating_sub(done).max(1);
            }
        }
    }
    match left {
        0 => Ok(parts),
        _ => Err(Error::Unfinished { left, wanted: manifest.answered_for() }),
    }
}

/// The shards whose lines are made in memory.
fn small_of(parts: &[Part]) -> Vec<u32> {
    parts.iter().filter(|part| part.bytes <= SMALL).map(|part| part.shard).collect()
}

type Made = Result<Lines, store::Error>;

/// The other end of a thread that makes lines: of every n-th shard, where n is their number, so
/// that none can run ahead of the writer by more than two shards.
struct Reader {
    made: Receiver<Made>,
    // Lines that were written: their memory is used again.
    spare: Sender<Lines>,
}

fn read_all(
    from: From<'_>,
    shards: impl Iterator<Item = u32>,
    made: &Sender<Made>,
    spares: &Receiver<Lines>,
) {
    let mut reader = ShardReader::default();
    let mut outcomes = match from.outcomes() {
        Ok(outcomes) => outcomes,
        Err(error) => {
            let _ = made.send(Err(error));
            return;
        }
    };
    for shard in shards {
        let mut lines = spares.try_recv().unwrap_or_default();
        // A few long answers may be those of many rows.
        let mut flush = |lines: &mut Lines| {
            if lines.output.len() as u64 > SMALL {
                let next = spares.try_recv().unwrap_or_default();
                let full = Lines { has_more: true, ..std::mem::replace(lines, next) };
                // Whoever takes no more ends soon, and this with it.
                let _ = made.send(Ok(full));
            }
            Ok(())
        };
        let outcomes = outcomes.as_mut();
        let read = read_shard(from, shard, &mut reader, outcomes, &mut lines, &mut flush);
        if made.send(read.map(|()| lines)).is_err() {
            return;
        }
    }
}

/// Makes a shard's lines, row by row. `flush` may take them after each row.
fn read_shard(
    from: From<'_>,
    number: u32,
    reader: &mut ShardReader,
    outcomes: Option<&mut Outcomes<'_>>,
    lines: &mut Lines,
    flush: &mut dyn FnMut(&mut Lines) -> Result<(), store::Error>,
) -> Result<(), store::Error> {
    let From { dir, manifest, wanted, .. } = from;
    let entry = &manifest.shards[number as usize];
    let mut twins = TwinLines::of(dir, (number, entry), wanted, outcomes)?;
    if entry.wanted > 0 {
        let (read, verified) = reader.read(dir, number, entry)?;
        dir.is_as_sealed(number, &verified)?;
        lines.totals.repeated = lines.totals.repeated.saturating_add(verified.repeated);
        read.for_each_row(&mut |row| {
            twins.put_below(row.outcome.row, lines, flush)?;
            put_row(&row, wanted, lines);
            flush(lines)
        })?;
    }
    twins.put_below(u64::MAX, lines, flush)
}

fn put_row(row: &RowRecords<'_>, wanted: Wanted, lines: &mut Lines) {
    let outcome = &row.outcome;
    let input = outcome.input.filter(|_| wanted.include_input);
    envelope::write_line(&mut lines.output, outcome.envelope, input);
    if wanted.errors && outcome.kind != OutcomeKind::Ok {
        envelope::write_line(&mut lines.errors, outcome.envelope, input);
    }
    let is_new = |asked: Asked| asked.generation > wanted.published && !outcome.adopted;
    if wanted.delta && outcome.kind == OutcomeKind::Ok && outcome.asked.is_some_and(is_new) {
        envelope::write_line(&mut lines.delta, outcome.envelope, input);
    }
    lines.totals.row(row, wanted.generation);
    for (index, record) in row.all.iter().enumerate() {
        let attempts = match record {
            Record::Outcome(outcome) => outcome.attempts,
            Record::Retry { attempts, .. } => attempts,
            Record::Repeated { .. } => continue,
        };
        let seen = lines.totals.attempts(attempts);
        if wanted.telemetry {
            let epoch = epoch(&row.all[index..]).unwrap_or(wanted.generation);
            for attempt in seen {
                let (attempt, id) = (attempt.text.as_bytes(), outcome.id());
                telemetry::write_line(&mut lines.telemetry, id, outcome.row, epoch, attempt);
            }
        }
    }
}

/// The generation that asked what the first outcome among a row's records came of; attempts that
/// led to an outcome stand before it.
fn epoch(records: &[Record<'_>]) -> Option<u32> {
    records.iter().find_map(|record| match record {
        Record::Outcome(outcome) => outcome.asked.map(|asked| asked.generation),
        Record::Retry { .. } | Record::Repeated { .. } => None,
    })
}

/// The outputs, while they are written.
struct Writer<'a> {
    output: Stage<'a>,
    errors: Option<Stage<'a>>,
    telemetry: Option<Stage<'a>>,
    delta: Option<Stage<'a>>,
    totals: Totals,
    shutdown: &'a Shutdown,
}

impl Writer<'_> {
    /// Writes the shards in their order: small ones as they were made, large ones as they are read.
    fn write_all(
        &mut self,
        from: From<'_>,
        parts: &[Part],
        readers: Vec<Reader>,
    ) -> Result<(), Error> {
        let mut turns = readers.iter().cycle();
        let mut outcomes = from.outcomes()?;
        for part in parts {
            // A drain lets this finish: it takes no call and little time.
            if self.shutdown.stage() == shutdown::Stage::Aborting {
                return Err(Error::Interrupted);
            }
            if part.bytes > SMALL {
                let (mut reader, mut lines) = (ShardReader::default(), Lines::default());
                let put = &mut |lines: &mut Lines| self.put(lines);
                let outcomes = outcomes.as_mut();
                read_shard(from, part.shard, &mut reader, outcomes, &mut lines, put)?;
                self.totals.add(&lines.totals);
            } else if let Some(reader) = turns.next() {
                self.take(reader)?;
            }
        }
        Ok(())
    }

    /// Writes the lines of one shard as a reader makes them.
    fn take(&mut self, Reader { made, spare }: &Reader) -> Result<(), Error> {
        // A reader ends early only when it panics, and then so does the scope.
        while let Ok(made) = made.recv() {
            let mut lines = made?;
            self.put(&mut lines)?;
            self.totals.add(&std::mem::take(&mut lines.totals));
            let has_more = std::mem::take(&mut lines.has_more);
            let _ = spare.try_send(lines);
            if !has_more {
                break;
            }
        }
        Ok(())
    }

    fn put(&mut self, lines: &mut Lines) -> Result<(), store::Error> {
        self.output.write(&lines.output)?;
        lines.output.clear();
        for (stage, lines) in [
            (&mut self.errors, &mut lines.errors),
            (&mut self.telemetry, &mut lines.telemetry),
            (&mut self.delta, &mut lines.delta),
        ] {
            if let Some(stage) = stage {
                stage.write(lines)?;
                lines.clear();
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Merged, Error> {
        let mut staged = vec![self.output.finish()?];
        for stage in [self.errors, self.telemetry, self.delta].into_iter().flatten() {
            staged.push(stage.finish()?);
        }
        Ok(Merged { staged, totals: self.totals })
    }
}
