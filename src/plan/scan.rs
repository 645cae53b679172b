//! Reads the whole input once: cuts it into shards, checks every row, hashes all of it.
//!
//! One thread reads and cuts, several parse, the caller's collects. A chunk of the input is a
//! shard, whose size depends on the input alone, never on the number of threads.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use crossbeam_channel::{Receiver, Sender, bounded};
use xxhash_rust::xxh3::xxh3_64;

use super::names::Models;
use super::{Cutting, Error, Options};
use crate::format::chunk::{Chunk, ChunkReader, Limits};
use crate::input::{self, HashingReader, ShardRows, Source, choose, id_hash, shard_of};
use crate::job::{Dedupe, Failure, Identity, JobSpec, Names, OnMissingField};
use crate::prompt::{self, Prompt, Template};
use crate::shutdown::{Shutdown, Stage};
use crate::store::{Chosen, IdEntry, IdIndexWriter, RowHashes, ShardEntry, Sorter, spawn};
use crate::telemetry::{Event, Sink};

/// What is to be read, and what for.
pub(super) struct Scan<'a> {
    pub(super) source: &'a Source,
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
    pub(super) selected: u64,
    pub(super) blake3: String,
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

/// A line of a request file that is no request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, reason } = self;
        // Some reasons name the line themselves.
        let reason = reason.strip_prefix(&format!("line {line}: ")).unwrap_or(reason);
        write!(f, "line {line}: {reason}")
    }
}

/// Bad lines that are named.
pub(super) const BAD_LINES: usize = 100;

/// A field of the template that rows lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingField {
    /// Its name.
    pub name: String,
    /// How many rows lack it.
    pub rows: u64,
    /// The first of them.
    pub first_row: u64,
    /// How many rows there are that could have it.
    pub of: u64,
    /// A field that rows have and whose name is much like it.
    pub like: Option<String>,
}

impl fmt::Display for MissingField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, rows, first_row, of, like } = self;
        write!(
            f,
            "the template's field {name:?} is missing in {rows} of {of} rows, first in row {first_row}"
        )?;
        match like {
            Some(like) => write!(f, " (is {like:?} meant?)"),
            None => Ok(()),
        }
    }
}

/// A shard on its way to a parser.
struct Job {
    number: usize,
    first_row: u64,
    chunk: Chunk,
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
    /// Reads the input. The ids go to an index that will stand at `ids`.
    pub(super) fn run(&self, ids: &Path, sink: &mut dyn Sink) -> Result<Scanned, Error> {
        let chosen = self.choose_ahead(sink)?;
        let threads = self.options.threads.max(1);
        let has_ids = self.job.identity() != Identity::RowNumber;
        let ids = has_ids.then(|| IdIndexWriter::new(ids));
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
            let (rows, blake3) = read?;
            (scanned.rows, scanned.blake3) = (rows, blake3);
            Ok(scanned)
        })
    }

    /// Which rows are asked about, as far as that can be told before they are counted.
    fn choose_ahead(&self, sink: &mut dyn Sink) -> Result<Chosen, Error> {
        if self.job.selection.sample.is_none() {
            return Ok(choose(&self.job.selection, u64::MAX));
        }
        let mut reader = self.reader(self.range()?);
        let mut rows = 0;
        while let Some(chunk) = reader.next_chunk(self.limits(1)).map_err(|e| self.unreadable(e))? {
            rows += chunk.records.len() as u64;
            reader.recycle(chunk.bytes);
            self.go_on()?;
            sink.emit(&Event::Planning { rows });
        }
        Ok(choose(&self.job.selection, rows))
    }

    /// When the shard that begins with a row is full.
    fn limits(&self, first_row: u64) -> Limits {
        let length = self.source.length;
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

    fn range(&self) -> Result<io::Take<std::fs::File>, Error> {
        let Source { data_offset, length, .. } = *self.source;
        self.source
            .range(data_offset, length.saturating_sub(data_offset))
            .map_err(|error| self.unreadable(error))
    }

    fn reader<R: Read>(&self, from: R) -> ChunkReader<R> {
        let Source { data_offset, data_line, .. } = *self.source;
        ChunkReader::new(from, self.source.cut(), data_offset, data_line, self.job.max_row_bytes)
    }

    fn unreadable(&self, source: io::Error) -> Error {
        input::Error::Unreadable { path: self.source.path.clone(), source }.into()
    }

    fn go_on(&self) -> Result<(), Error> {
        if self.shutdown.stage() == Stage::Running { Ok(()) } else { Err(Error::Interrupted) }
    }

    /// Reads and cuts; says how many rows there were and what all bytes hash to.
    fn read(&self, jobs: Sender<Job>, spares: &Receiver<Vec<u8>>) -> Result<(u64, String), Error> {
        let mut before = Vec::new();
        self.source
            .range(0, self.source.data_offset)
            .and_then(|mut range| range.read_to_end(&mut before))
            .map_err(|error| self.unreadable(error))?;
        let hashing = HashingReader::new(self.range()?, &before);
        let mut reader = self.reader(hashing);
        let (mut number, mut first_row, mut end) = (0, 1, self.source.data_offset);
        loop {
            if let Ok(spare) = spares.try_recv() {
                reader.recycle(spare);
            }
            let chunk = reader.next_chunk(self.limits(first_row));
            let Some(chunk) = chunk.map_err(|error| self.unreadable(error))? else { break };
            let rows = chunk.records.len() as u64;
            end += chunk.length;
            if jobs.send(Job { number, first_row, chunk }).is_err() {
                break;
            }
            number += 1;
            first_row += rows;
        }
        if end != self.source.length {
            let path = self.source.path.clone();
            return Err(input::Error::Changed { path, first_row }.into());
        }
        Ok((first_row - 1, reader.source().hash().to_hex().to_string()))
    }

    fn parse_all(&self, jobs: &Receiver<Job>, parsed: &Sender<Parsed>, chosen: &Chosen) {
        for job in jobs {
            if parsed.send(self.parse(job, chosen)).is_err() {
                return;
            }
        }
    }

    fn parse(&self, job: Job, chosen: &Chosen) -> Parsed {
        let Job { number, first_row, chunk } = job;
        let entry = shard_of(&chunk, first_row);
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
        let rows = ShardRows::new(&self.source.format, chunk);
        for (index, row) in (0..rows.len()).zip(first_row..) {
            if chosen.contains(row) {
                parsed.entry.wanted += 1;
                if let Err(failure) = self.check(&rows, index, row, &mut parsed) {
                    parsed.invalid += 1;
                    if !self.job.dialect.is_rows() && parsed.bad.len() < BAD_LINES {
                        let (line, reason) = (rows.line(index), failure.message.clone());
                        parsed.bad.push((row, BadLine { line, reason }));
                    }
                    parsed.first_invalid.get_or_insert((row, failure));
                }
            }
        }
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
        let id = id_hash(&object, self.job.identity(), row);
        if let Ok(Some(id)) = id {
            parsed.ids.push(IdEntry { id, row, content });
        }
        // What is wrong with a request is told in its dialect's words.
        let asked = (!self.job.dialect.is_rows()).then(|| self.template.ask(&object, self.job));
        let asked = asked.transpose()?;
        id?;
        if let Some(request) = asked.as_ref().and_then(|it| it.request.as_ref()) {
            let line = || rows.line(index);
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
            let id = prompt.request_hash();
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
                let name = name.clone();
                scanned.missing.push(MissingField { name, rows, first_row, of, like });
            }
        }
        Ok(())
    }
}

/// The name among `names` that is most like one that is missing, if any is.
fn alike<'n>(missing: &str, names: impl Iterator<Item = &'n str>) -> Option<String> {
    names
        .map(|name| (distance(&missing.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + missing.len().min(name.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.to_owned())
}

/// How many characters must be put in, taken out or changed to make one word of another
/// (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_much_alike_are_found() {
        let alike = |missing| alike(missing, ["id", "text", "review text"].into_iter());
        assert_eq!(alike("txt").as_deref(), Some("text"));
        assert_eq!(alike("Text").as_deref(), Some("text"));
        assert_eq!(alike("review_text").as_deref(), Some("review text"));
        assert_eq!(alike("stars"), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
