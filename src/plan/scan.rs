//! Reads the whole input once: cuts it into shards, checks every row, hashes all of it.
//!
//! One thread reads and cuts, several parse, the caller's collects. A chunk of the input is a
//! shard, whose size depends on the input alone, never on the number of threads.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crossbeam_channel::{Receiver, Sender, bounded};
use xxhash_rust::xxh3::xxh3_64;

use super::flaws::{BAD_LINES, BadLine, MissingField, alike, file_of, named};
use super::names::Models;
use super::{Cutting, Error, Options};
use crate::format::chunk::{Chunk, ChunkReader, Limits};
use crate::input::{self, HashingReader, ShardRows, Source, Sources, choose, id_hash, shard_of};
use crate::job::{Dedupe, Failure, FirstLine, Identity, JobSpec, Names, OnMissingField};
use crate::prompt::{self, Prompt, Template};
use crate::shutdown::{Shutdown, Stage};
use crate::store::{Chosen, IdEntry, IdIndexWriter, RowHashes, ShardEntry, Sorter, spawn};
use crate::telemetry::{Event, Sink};

/// What is to be read, and what for.
pub(super) struct Scan<'a> {
    pub(super) sources: &'a Sources,
    pub(super) job: &'a JobSpec,
    pub(super) template: &'a Template,
    /// Who answers the lines of which names, where those say it.
    pub(super) names: Option<Names>,
    pub(super) options: &'a Options,
    pub(super) kept: Kept<'a>,
    pub(super) shutdown: &'a Shutdown,
}

/// What is kept of each row, if anyone wants it.
#[derive(Clone, Copy)]
pub(super) struct Kept<'a> {
    /// Where the hashes of the rows' prompts go.
    pub(super) prompts: Option<&'a RowHashes>,
    /// Where the hashes of the rows' texts go.
    pub(super) contents: Option<&'a RowHashes>,
    /// Where what each row asks is sorted.
    pub(super) requests: Option<&'a Path>,
}

/// What was read.
#[derive(Default)]
pub(super) struct Scanned {
    pub(super) shards: Vec<ShardEntry>,
    pub(super) rows: u64,
    /// Of each input its rows, and what all its bytes hash to.
    pub(super) inputs: Vec<(u64, String)>,
    pub(super) selected: u64,
    pub(super) invalid: u64,
    pub(super) first_invalid: Option<(u64, Failure)>,
    /// The first rows that are wrong, in order, each with its line and what is wrong with it: of files
    /// whose lines are to be requests or prompts.
    pub(super) bad: BTreeMap<u64, BadLine>,
    /// The models that lines name.
    pub(super) models: Models,
    pub(super) missing: Vec<MissingField>,
    /// Rows that have the attachment field, whatever is in it.
    pub(super) with_attachment_field: u64,
    /// Nothing in a job whose rows have no ids.
    pub(super) ids: Option<IdIndexWriter>,
    /// The hash of what each row asks, the row, the hash of its prompt; of rows that can be asked
    /// about. Nothing where nobody wants them.
    pub(super) requests: Option<Sorter>,
}

/// A shard on its way to a parser.
struct Job {
    number: usize,
    first_row: u64,
    chunk: Chunk,
    // Which input it is of, and the rows of those before that.
    source: usize,
    rows_before: u64,
}

/// A shard on its way back.
struct Parsed {
    number: usize,
    entry: ShardEntry,
    ids: Vec<IdEntry>,
    /// Of every row of the chunk, if anyone wants them; 0 where there is none.
    prompts: Vec<u64>,
    contents: Vec<u64>,
    requests: Vec<IdEntry>,
    invalid: u64,
    first_invalid: Option<(u64, Failure)>,
    bad: Vec<(u64, BadLine)>,
    models: Models,
    missing: Vec<(u64, u64)>,
    like: Vec<Option<String>>,
    with_attachment_field: u64,
    // What the paths of attachments are relative to.
    base: PathBuf,
    spare: Vec<u8>,
}

/// The most rows of a shard: one to five minutes of work for most endpoints.
const SHARD_ROWS: usize = 10_000;
/// The most bytes of a shard, but for a single row that is larger.
const SHARD_BYTES: u64 = 4 << 20;
/// Small inputs are cut as well, so that all workers have something to do.
const SHARD_BYTES_MIN: u64 = 64 << 10;
const SHARDS_MIN: u64 = 8;
/// The most rows and bytes of a shard where the user says how they are cut: a worker has all of a
/// shard's text in memory.
const WISHED_ROWS: usize = 1_000_000;
const WISHED_BYTES: u64 = 64 << 20;

impl Scan<'_> {
    /// Reads the input. The ids go to an index that will stand at `ids`, with what stands for the plan.
    pub(super) fn run(
        &self,
        (ids, tag): (&Path, u64),
        sink: &mut dyn Sink,
    ) -> Result<Scanned, Error> {
        let chosen = self.choose_ahead(sink)?;
        let threads = self.options.threads.max(1);
        let has_ids = self.job.identity() != Identity::RowNumber;
        let ids = has_ids.then(|| IdIndexWriter::new(ids).of_plan(tag));
        let requests = self.kept.requests.map(Sorter::new);
        let mut scanned = Scanned { ids, requests, ..Scanned::default() };
        let (jobs, to_parse) = bounded(threads);
        let (parsed, results) = bounded(threads);
        let (spare, spares) = bounded(2 * threads + 2);
        std::thread::scope(|scope| {
            let reader = spawn(scope, "read", || self.read(jobs, &spares))?;
            for _ in 0..threads {
                let (jobs, parsed, chosen) = (to_parse.clone(), parsed.clone(), &chosen);
                spawn(scope, "parse", move || self.parse_all(&jobs, &parsed, chosen))?;
            }
            drop((to_parse, parsed));
            let collected = self.collect(&results, &spare, &mut scanned, sink);
            // The threads end when nobody takes from them any more.
            drop(results);
            let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            collected?;
            scanned.inputs = read?;
            scanned.rows = scanned.inputs.iter().map(|(rows, _)| rows).sum();
            Ok(scanned)
        })
    }

    /// Which rows are asked about, as far as that can be told before they are counted.
    fn choose_ahead(&self, sink: &mut dyn Sink) -> Result<Chosen, Error> {
        if self.job.selection.sample.is_none() {
            return Ok(choose(&self.job.selection, u64::MAX));
        }
        let mut rows = 0;
        for source in self.sources.all() {
            let mut reader = self.reader(source, range(source)?);
            while let Some(chunk) = reader.next_chunk(self.limits(1)).map_err(unreadable(source))? {
                rows += chunk.records.len() as u64;
                reader.recycle(chunk.bytes);
                self.go_on()?;
                sink.emit(&Event::Planning { rows });
            }
        }
        Ok(choose(&self.job.selection, rows))
    }

    /// When the shard that begins with a row is full.
    fn limits(&self, first_row: u64) -> Limits {
        let length = self.sources.length();
        let bytes = (length / SHARDS_MIN).clamp(SHARD_BYTES_MIN, SHARD_BYTES);
        match &self.options.cutting {
            Cutting::Auto => Limits { records: SHARD_ROWS, bytes },
            Cutting::Rows(rows) => Limits { records: (*rows).clamp(1, WISHED_ROWS), bytes },
            Cutting::Shards(shards) => {
                let share = length.div_ceil(u64::from(*shards).max(1));
                Limits { records: WISHED_ROWS, bytes: share.clamp(1, WISHED_BYTES) }
            }
            Cutting::Before(rows) => {
                let next = rows[rows.partition_point(|row| *row <= first_row)..].first();
                let left = next.map_or(u64::MAX, |next| next - first_row);
                let records = usize::try_from(left).unwrap_or(usize::MAX).min(WISHED_ROWS);
                Limits { records, bytes: WISHED_BYTES }
            }
        }
    }

    fn reader<R: Read>(&self, source: &Source, from: R) -> ChunkReader<R> {
        let Source { data_offset, data_line, .. } = *source;
        ChunkReader::new(from, source.cut(), data_offset, data_line, self.job.max_row_bytes)
    }

    fn go_on(&self) -> Result<(), Error> {
        if self.shutdown.stage() == Stage::Running { Ok(()) } else { Err(Error::Interrupted) }
    }

    /// Reads and cuts all inputs; says of each how many rows there were and what its bytes hash to.
    fn read(
        &self,
        jobs: Sender<Job>,
        spares: &Receiver<Vec<u8>>,
    ) -> Result<Vec<(u64, String)>, Error> {
        let (mut number, mut rows_before) = (0, 0);
        let mut inputs = Vec::new();
        for (at, source) in self.sources.all().iter().enumerate() {
            let (rows, blake3) =
                self.read_one((source, rows_before), spares, &mut |first_row, chunk| {
                    number += 1;
                    let job = Job { number: number - 1, first_row, chunk, source: at, rows_before };
                    jobs.send(job).is_ok()
                })?;
            rows_before += rows;
            inputs.push((rows, blake3));
        }
        Ok(inputs)
    }

    /// Reads and cuts an input. `put` is given each chunk and the number of its first row, and says
    /// whether more is wanted.
    fn read_one(
        &self,
        (source, rows_before): (&Source, u64),
        spares: &Receiver<Vec<u8>>,
        put: &mut dyn FnMut(u64, Chunk) -> bool,
    ) -> Result<(u64, String), Error> {
        let mut before = Vec::new();
        source
            .range(0, source.data_offset)
            .and_then(|mut range| range.read_to_end(&mut before))
            .map_err(unreadable(source))?;
        let hashing = HashingReader::new(range(source)?, &before);
        let mut reader = self.reader(source, hashing);
        let (mut first_row, mut end) = (rows_before + 1, source.data_offset);
        loop {
            if let Ok(spare) = spares.try_recv() {
                reader.recycle(spare);
            }
            let chunk = reader.next_chunk(self.limits(first_row)).map_err(unreadable(source))?;
            let Some(chunk) = chunk else { break };
            let rows = chunk.records.len() as u64;
            end += chunk.length;
            if !put(first_row, chunk) {
                break;
            }
            first_row += rows;
        }
        if end != source.length {
            let (path, first_row) = (source.path.clone(), first_row - rows_before);
            return Err(input::Error::Changed { path, first_row }.into());
        }
        Ok((first_row - 1 - rows_before, reader.source().hash().to_hex().to_string()))
    }

    fn parse_all(&self, jobs: &Receiver<Job>, parsed: &Sender<Parsed>, chosen: &Chosen) {
        for job in jobs {
            if parsed.send(self.parse(job, chosen)).is_err() {
                return;
            }
        }
    }

    fn parse(&self, job: Job, chosen: &Chosen) -> Parsed {
        let Job { number, first_row, chunk, source, rows_before } = job;
        let entry = shard_of(&chunk, first_row);
        let entry =
            ShardEntry { source: u32::try_from(source).unwrap_or(u32::MAX), rows_before, ..entry };
        let source = &self.sources.all()[source];
        let names = self.template.names().len();
        let mut parsed = Parsed {
            number,
            entry,
            ids: Vec::new(),
            prompts: Vec::new(),
            contents: Vec::new(),
            requests: Vec::new(),
            invalid: 0,
            first_invalid: None,
            bad: Vec::new(),
            models: Models::default(),
            missing: vec![(0, 0); names],
            like: vec![None; names],
            with_attachment_field: 0,
            base: source.base(),
            spare: Vec::new(),
        };
        if self.job.identity() != Identity::RowNumber {
            parsed.ids.reserve(chunk.records.len());
        }
        for (wanted, hashes) in
            [(self.kept.prompts, &mut parsed.prompts), (self.kept.contents, &mut parsed.contents)]
        {
            *hashes = vec![0; if wanted.is_some() { chunk.records.len() } else { 0 }];
        }
        let rows = ShardRows::new(&source.format, chunk);
        let salt = source.salt();
        for (index, row) in (0..rows.len()).zip(first_row..) {
            if chosen.contains(row) {
                parsed.entry.wanted += 1;
                if let Err(failure) = self.check(&rows, index, row, &mut parsed) {
                    parsed.invalid += 1;
                    if !self.job.dialect.is_rows() && parsed.bad.len() < BAD_LINES {
                        let (line, reason) = (rows.line(index), failure.message.clone());
                        parsed.bad.push((row, BadLine { line, file: file_of(source), reason }));
                    }
                    parsed.first_invalid.get_or_insert((row, failure));
                }
            }
        }
        // Ids are told apart within their input.
        parsed.ids.iter_mut().for_each(|entry| entry.id ^= salt);
        parsed.spare = rows.into_chunk().bytes;
        parsed
    }

    fn check(
        &self,
        rows: &ShardRows<'_>,
        index: usize,
        row: u64,
        parsed: &mut Parsed,
    ) -> Result<(), Failure> {
        let text = rows.text(index)?;
        let object = rows.object(index, &text)?;
        let content = xxh3_64(object.text().as_bytes());
        if let Some(hash) = parsed.contents.get_mut(index) {
            *hash = content;
        }
        let id = id_hash(&object, self.job.identity(), parsed.entry.own_row(row));
        if let Ok(Some(id)) = id {
            parsed.ids.push(IdEntry { id, row, content });
        }
        // What is wrong with a request is told in its dialect's words.
        let asked = (!self.job.dialect.is_rows()).then(|| self.template.ask(&object, self.job));
        let asked = asked.transpose()?;
        id?;
        if let Some(request) = asked.as_ref().and_then(|it| it.request.as_ref()) {
            let file = || file_of(self.sources.of(&parsed.entry));
            let line = || FirstLine { row, line: rows.line(index), file: file() };
            parsed.models.note(request, line, (self.job, self.names.as_ref()))?;
        }
        if let Some(field) = &self.job.attachment_field {
            parsed.with_attachment_field += u64::from(object.get(field).is_some());
            prompt::attachments(&object, field)?;
        }
        if self.kept.prompts.is_some() || self.kept.requests.is_some() {
            let asked = asked.or_else(|| self.template.ask(&object, self.job).ok());
            self.keep(asked.as_ref(), (index, row), parsed);
        }
        if self.job.on_missing_field != OnMissingField::Empty {
            for field in self.template.missing(&object) {
                let (count, first) = &mut parsed.missing[field];
                if *count == 0 {
                    *first = row;
                    parsed.like[field] = alike(&self.template.names()[field], object.names());
                }
                *count += 1;
            }
        }
        Ok(())
    }

    /// Keeps of what a row asks what somebody wants to know.
    fn keep(&self, asked: Option<&Prompt>, (index, row): (usize, u64), parsed: &mut Parsed) {
        let Some(prompt) = asked else { return };
        let content = prompt.hash();
        if let Some(hash) = parsed.prompts.get_mut(index) {
            *hash = content;
        }
        // Requests say one by one whether their answers are the same each time.
        let is_settled = prompt.request.as_ref().is_none_or(|request| request.is_settled);
        if self.kept.requests.is_some() && (is_settled || self.job.dedupe != Dedupe::Auto) {
            let id = prompt.request_hash(&parsed.base);
            parsed.requests.push(IdEntry { id, row, content });
        }
    }

    fn collect(
        &self,
        results: &Receiver<Parsed>,
        spare: &Sender<Vec<u8>>,
        scanned: &mut Scanned,
        sink: &mut dyn Sink,
    ) -> Result<(), Error> {
        let names = self.template.names();
        let mut missing = vec![(0_u64, u64::MAX, None); names.len()];
        let mut slots: Vec<Option<ShardEntry>> = Vec::new();
        let mut rows = 0;
        for parsed in results {
            self.go_on()?;
            let _ = spare.try_send(parsed.spare);
            if let Some(ids) = &mut scanned.ids {
                ids.add(&parsed.ids)?;
            }
            if let Some(requests) = &mut scanned.requests {
                requests.add(&parsed.requests)?;
            }
            let first_row = parsed.entry.first_row;
            for (file, hashes) in
                [(self.kept.prompts, &parsed.prompts), (self.kept.contents, &parsed.contents)]
            {
                file.map_or(Ok(()), |file| file.put(first_row, hashes))?;
            }
            rows += parsed.entry.rows;
            scanned.selected += parsed.entry.wanted;
            scanned.invalid += parsed.invalid;
            scanned.with_attachment_field += parsed.with_attachment_field;
            scanned.models.merge(&parsed.models);
            scanned.bad.extend(parsed.bad);
            while scanned.bad.len() > BAD_LINES {
                scanned.bad.pop_last();
            }
            let earlier = |(row, _): &(u64, Failure)| {
                scanned.first_invalid.as_ref().is_none_or(|(first, _)| row < first)
            };
            if let Some(first) = parsed.first_invalid.filter(earlier) {
                scanned.first_invalid = Some(first);
            }
            for (field, (count, first)) in parsed.missing.into_iter().enumerate() {
                if count > 0 && first < missing[field].1 {
                    missing[field].1 = first;
                    missing[field].2 = parsed.like[field].clone();
                }
                missing[field].0 += count;
            }
            if slots.len() <= parsed.number {
                slots.resize(parsed.number + 1, None);
            }
            slots[parsed.number] = Some(parsed.entry);
            sink.emit(&Event::Planning { rows });
        }
        scanned.shards = slots.into_iter().flatten().collect();
        for (name, (rows, first_row, like)) in names.iter().zip(missing) {
            if rows > 0 {
                let of = scanned.selected - scanned.invalid;
                let (name, first) = (name.clone(), named(self.sources, &scanned.shards, first_row));
                scanned.missing.push(MissingField { name, rows, first, of, like });
            }
        }
        Ok(())
    }
}

fn range(source: &Source) -> Result<io::Take<std::fs::File>, Error> {
    let Source { data_offset, length, .. } = *source;
    source.range(data_offset, length.saturating_sub(data_offset)).map_err(unreadable(source))
}

fn unreadable(source: &Source) -> impl Fn(io::Error) -> Error {
    |error| input::Error::Unreadable { path: source.path.clone(), source: error }.into()
}
