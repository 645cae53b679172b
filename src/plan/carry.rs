//! Takes over what an earlier generation knows: answers whose question is as it was.
//!
//! It is a join on disk. Both generations' indexes of ids are walked side by side; what matches is
//! sorted by its old row and looked up in the old journals, read once and in order; records that
//! are kept are appended to the new journals in large pieces. Memory does not grow with the rows.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use super::Error;
use super::drift::RowChanges;
use super::indexes::{Spread, next_entry, walk};
use crate::format::envelope::{self, NO_INPUT};
use crate::format::telemetry::{read_attempts, spending};
use crate::input::{ShardRows, Source, read_shard};
use crate::job::{Id, Identity, JobSpec, OutcomeKind, Setting, Spending};
use crate::store::{
    Asked, Carried, Held, IdEntry, IdIndex, IdIndexWriter, Manifest, Outcome, Record, RowHashes,
    RowRecords, ShardReader, WorkDir,
};

/// What is kept besides answers to questions that are as they were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keeping {
    /// Answers of rows that changed.
    pub changed_rows: bool,
    /// Answers that another model gave.
    pub model: bool,
    /// Answers that were asked for with other parameters.
    pub parameters: bool,
    /// Answers to another instruction, or to another template over the same row.
    pub prompt: bool,
    /// Answers to another schema.
    pub schema: bool,
}

impl Keeping {
    /// What the answers to an earlier setting count as answers to, once these parts of it may differ.
    pub(super) fn accept(self, then: &Setting, now: &Setting) -> Setting {
        let of = |is_kept: bool| if is_kept { now } else { then };
        Setting {
            model: of(self.model).model.clone(),
            protocol: of(self.model).protocol,
            instruction: of(self.prompt).instruction.clone(),
            parameters: of(self.parameters).parameters.clone(),
            schema: of(self.schema).schema.clone(),
        }
    }
}

/// One generation and what it was planned from.
pub(super) struct Side<'a, D> {
    pub(super) dir: &'a D,
    pub(super) manifest: &'a Manifest,
    /// Its input as it is now.
    pub(super) source: &'a Source,
}

impl<D> Side<'_, D> {
    /// The number of the shard that a row is in.
    fn shard_of(&self, row: u64) -> usize {
        self.manifest.shards.partition_point(|shard| shard.first_row + shard.rows <= row)
    }
}

/// Rows of a plan that are left out because an earlier row has their id.
struct Skipped<'a> {
    new: &'a Side<'a, Held>,
    // The shard whose rows these are.
    number: Option<usize>,
    rows: HashSet<u64>,
}

impl Skipped<'_> {
    fn contains(&mut self, row: u64) -> Result<bool, Error> {
        let number = self.new.shard_of(row);
        let entry = &self.new.manifest.shards[number];
        if entry.duplicates.is_none() {
            return Ok(false);
        }
        if self.number != Some(number) {
            let all = self.new.dir.duplicates(u32::try_from(number).unwrap_or(u32::MAX), entry)?;
            self.rows = all.into_iter().filter(|it| it.id.is_none()).map(|it| it.row).collect();
            self.number = Some(number);
        }
        Ok(self.rows.contains(&row))
    }
}

/// A row of both generations.
struct Match {
    old_row: u64,
    new_row: u64,
    // Whether the row's text is known to be as it was.
    is_same_text: bool,
}

/// What a join of two generations came to.
pub(super) struct Joined {
    pub(super) carried: Carried,
    /// What the calls cost whose records were kept.
    pub(super) kept_cost: Spending,
    /// The rows' texts compared, where that can be done.
    pub(super) rows: Option<RowChanges>,
}

/// Fills the journals of a generation that has no manifest yet with what the one before it knows, or
/// tells what would come of it.
pub(super) fn carry(
    old: &Side<'_, WorkDir>,
    new: &Side<'_, Held>,
    prompts: &mut RowHashes,
    keeping: Keeping,
    is_foresight: bool,
) -> Result<Joined, Error> {
    let (mut matches, rows) = Matches::find(old, new)?;
    let mut carried = Carried { new: rows.new, gone: rows.gone, ..Carried::default() };
    let mut journals = Journals::new(new);
    let mut skipped = Skipped { new, number: None, rows: HashSet::new() };
    let (mut waiting, mut calls) = (0, 0);
    let mut settings = Settings::new(old.manifest, &new.manifest.job, keeping);
    let mut reader = ShardReader::default();
    let is_chosen = |it: &Match| new.manifest.chosen.contains(it.new_row);
    for (number, entry) in old.manifest.open_shards() {
        let found = matches.next_until(entry.first_row + entry.rows)?;
        let mut found = found.into_iter().filter(is_chosen).peekable();
        if found.peek().is_none() {
            continue;
        }
        let read = reader.read_what_is_there(old.dir, number, entry)?;
        let journals = RefCell::new(&mut journals);
        // A row without an outcome keeps what its attempts came to.
        let mut unanswered = |it: &Match| -> Result<(), Error> {
            if skipped.contains(it.new_row)? {
                return Ok(());
            }
            waiting += 1;
            let Some(read) = read.as_ref().filter(|_| !is_foresight) else { return Ok(()) };
            calls += read.show_records(it.old_row, |records| {
                journals.borrow_mut().put(records, it, None)
            })??;
            Ok(())
        };
        if let Some(read) = &read {
            read.for_each_row::<Error>(&mut |records| {
                let row = records.outcome.row;
                while let Some(it) = found.next_if(|it| it.old_row < row) {
                    unanswered(&it)?;
                }
                let Some(it) = found.next_if(|it| it.old_row == row) else { return Ok(()) };
                let prompt = prompts.get(it.new_row)?;
                let prompt = prompt.filter(|it_is| settings.is_answer_to(*it_is, &records, &it));
                match (prompt.is_some(), records.outcome.kind) {
                    (true, OutcomeKind::Ok) => carried.kept += 1,
                    (true, _) | (_, OutcomeKind::Invalid) => carried.unanswered += 1,
                    (false, _) => carried.changed += 1,
                }
                if prompt.is_some() && !is_foresight {
                    carried.calls += journals.borrow_mut().put(&records.all, &it, prompt)?;
                }
                Ok(())
            })?;
        }
        found.try_for_each(|it| unanswered(&it))?;
    }
    carried.unanswered += waiting;
    carried.calls += calls;
    let kept_cost = journals.cost;
    journals.finish()?;
    let is_known = matches.knows_texts();
    matches.discard(new.dir)?;
    Ok(Joined { carried, kept_cost, rows: is_known.then_some(rows) })
}

/// What is asked now, and what was asked in earlier generations.
struct Settings<'a> {
    old: &'a Manifest,
    now: Setting,
    keeping: Keeping,
    // Whether what a generation asked of all rows alike is what is asked now.
    known: HashMap<u32, bool>,
}

impl<'a> Settings<'a> {
    fn new(old: &'a Manifest, job: &JobSpec, keeping: Keeping) -> Self {
        Self { old, now: job.setting(), keeping, known: HashMap::new() }
    }

    /// Whether an outcome counts as one of the question that is asked now, with this prompt.
    fn is_answer_to(&mut self, prompt: u64, records: &RowRecords<'_>, it: &Match) -> bool {
        let Some(asked) = records.outcome.asked else { return false };
        let Keeping { changed_rows, prompt: any_prompt, .. } = self.keeping;
        // Where rows have no ids, one with another text may be another row.
        let is_same_row = it.is_same_text || self.old.job.identity() != Identity::RowNumber;
        let is_kept =
            asked.prompt == prompt || changed_rows && is_same_row || any_prompt && it.is_same_text;
        is_kept && self.is_as_then(asked.generation)
    }

    fn is_as_then(&mut self, generation: u32) -> bool {
        let Self { old, now, keeping, known } = self;
        *known.entry(generation).or_insert_with(|| {
            old.answers_to(generation).iter().any(|then| keeping.accept(then, now) == *now)
        })
    }
}

/// The rows of both generations, in the order of their old rows.
enum Matches {
    /// By id: an index whose keys are old rows.
    ById {
        index: Option<IdIndex>,
        path: PathBuf,
        spread: Spread,
        next: Option<IdEntry>,
        is_old_whole: bool,
    },
    /// By row number: those up to the last are in both.
    ByRow { texts: Texts, next: u64, last: u64 },
}

impl Matches {
    fn find(old: &Side<'_, WorkDir>, new: &Side<'_, Held>) -> Result<(Self, RowChanges), Error> {
        match new.manifest.job.identity() {
            Identity::RowNumber => Self::by_row(old, new),
            Identity::Field(_) | Identity::Hash => Self::by_id(old, new),
        }
    }

    fn by_row(old: &Side<'_, WorkDir>, new: &Side<'_, Held>) -> Result<(Self, RowChanges), Error> {
        let (before, now) = (old.manifest.source.rows, new.manifest.source.rows);
        let last = before.min(now);
        let mut rows = RowChanges { new: now - last, gone: before - last, ..RowChanges::default() };
        let mut texts = Texts::open(old, new)?;
        for row in 1..=last {
            match texts.is_same(row)? {
                true => rows.same += 1,
                false => rows.changed += 1,
            }
        }
        Ok((Self::ByRow { texts, next: 1, last }, rows))
    }

    fn by_id(old: &Side<'_, WorkDir>, new: &Side<'_, Held>) -> Result<(Self, RowChanges), Error> {
        let path = new.dir.ids().with_file_name("ids.part-places");
        let spread = Spread::new(old.manifest.source.rows);
        let mut writer = IdIndexWriter::new(&path);
        let is_old_whole = IdIndex::is_whole(&old.dir.ids())?;
        let known = if is_old_whole { old.dir.ids() } else { index_journals(old, new.dir)? };
        let mut rows = RowChanges::default();
        walk(IdIndex::open(&known)?, IdIndex::open(&new.dir.ids())?, &mut |a, b| {
            let (Some(a), Some(b)) = (a, b) else {
                *(if b.is_some() { &mut rows.new } else { &mut rows.gone }) += 1;
                return Ok(());
            };
            let is_same = a.content == b.content;
            match (is_same, a.row == b.row) {
                (true, true) => rows.same += 1,
                (true, false) => rows.moved += 1,
                (false, _) => rows.changed += 1,
            }
            let content = u64::from(is_same);
            Ok(writer.add(&[IdEntry { id: spread.key(a.row), row: b.row, content }])?)
        })?;
        writer.finish::<Error>(&mut |_| Ok(()))?;
        if !is_old_whole {
            new.dir.discard_ids(&known)?;
        }
        let mut index = IdIndex::open(&path)?;
        let next = next_entry(&mut index)?;
        Ok((Self::ById { index, path, spread, next, is_old_whole }, rows))
    }

    /// Whether texts could be compared.
    fn knows_texts(&self) -> bool {
        match self {
            Self::ById { is_old_whole, .. } => *is_old_whole,
            Self::ByRow { texts, .. } => texts.0.is_some(),
        }
    }

    /// Those whose old row is below `end`, as far as they were not given before.
    fn next_until(&mut self, end: u64) -> Result<Vec<Match>, Error> {
        let mut found = Vec::new();
        match self {
            Self::ByRow { texts, next, last } => {
                while *next < end && *next <= *last {
                    let is_same_text = texts.is_same(*next)?;
                    found.push(Match { old_row: *next, new_row: *next, is_same_text });
                    *next += 1;
                }
            }
            Self::ById { index, spread, next, .. } => {
                while let Some(entry) = *next
                    && spread.row(entry.id) < end
                {
                    let old_row = spread.row(entry.id);
                    let is_same_text = entry.content == 1;
                    found.push(Match { old_row, new_row: entry.row, is_same_text });
                    *next = next_entry(index)?;
                }
            }
        }
        Ok(found)
    }

    fn discard(self, dir: &Held) -> Result<(), Error> {
        match self {
            Self::ById { path, .. } => Ok(dir.discard_ids(&path)?),
            Self::ByRow { .. } => Ok(()),
        }
    }
}

/// The hashes of the texts of two generations' rows, where both are there.
struct Texts(Option<(RowHashes, RowHashes)>);

impl Texts {
    fn open(old: &Side<'_, WorkDir>, new: &Side<'_, Held>) -> Result<Self, Error> {
        let (old, new) = (old.dir.contents(), new.dir.contents());
        Ok(Self(RowHashes::open(&old)?.zip(RowHashes::open(&new)?)))
    }

    /// Whether the row of this number is known to have the same text in both.
    fn is_same(&mut self, row: u64) -> Result<bool, Error> {
        let Some((old, new)) = &mut self.0 else { return Ok(false) };
        let text = old.get(row)?;
        Ok(text.is_some() && text == new.get(row)?)
    }
}

/// Makes an index of the ids in a generation's journals: a power cut may take the one that was made
/// when it was planned, but no answer. Of rows that have no outcome it knows nothing.
fn index_journals(old: &Side<'_, WorkDir>, dir: &Held) -> Result<PathBuf, Error> {
    let path = dir.ids().with_file_name("ids.part-answers");
    let mut writer = IdIndexWriter::new(&path);
    let mut reader = ShardReader::default();
    for (number, entry) in old.manifest.open_shards() {
        let Some(read) = reader.read_what_is_there(old.dir, number, entry)? else { continue };
        read.for_each_row::<Error>(&mut |records| {
            let id =
                std::str::from_utf8(records.outcome.id()).ok().and_then(|id| Id::parse(id).ok());
            let entry =
                id.map(|id| IdEntry { id: id.hash(), row: records.outcome.row, content: 0 });
            Ok(writer.add(entry.as_slice())?)
        })?;
    }
    writer.finish::<Error>(&mut |_| Ok(()))?;
    Ok(path)
}

/// The new generation's journals, and what waits to be appended to them.
struct Journals<'a> {
    new: &'a Side<'a, Held>,
    // Of the rows that were read last.
    rows: Option<(usize, ShardRows<'a>)>,
    waiting: BTreeMap<u32, Vec<u8>>,
    size: usize,
    touched: Vec<u32>,
    envelope: Vec<u8>,
    // What the calls cost whose records were put.
    cost: Spending,
}

/// Bytes that wait before they are appended.
const WAITING: usize = 32 << 20;

impl<'a> Journals<'a> {
    fn new(new: &'a Side<'a, Held>) -> Self {
        let (waiting, touched, envelope) = Default::default();
        Self { new, rows: None, waiting, size: 0, touched, envelope, cost: Spending::default() }
    }

    /// Keeps a row's records under its new number; what is an answer, as one to this prompt: what is
    /// accepted once stays accepted. Gives the number of calls they tell of.
    fn put(
        &mut self,
        records: &[Record<'_>],
        it: &Match,
        prompt: Option<u64>,
    ) -> Result<u64, Error> {
        let row = it.new_row;
        let number = self.new.shard_of(row);
        // Envelopes show the row as it is now.
        let text = match self.new.manifest.job.include_input && !it.is_same_text {
            true => Some(self.text(number, row)?),
            false => None,
        };
        let lines = self.waiting.entry(u32::try_from(number).unwrap_or(u32::MAX)).or_default();
        let (before, mut calls) = (lines.len(), 0);
        for record in records {
            let attempts = match record {
                Record::Outcome(outcome) => {
                    self.envelope.clear();
                    envelope::renumber(&mut self.envelope, outcome.envelope, row);
                    let envelope = &self.envelope;
                    let asked = outcome.asked.zip(prompt);
                    let asked = asked.map(|(asked, prompt)| Asked { prompt, ..asked });
                    let input = text.as_deref().or(outcome.input);
                    Record::Outcome(Outcome { row, envelope, asked, input, ..*outcome })
                        .encode(lines);
                    outcome.attempts
                }
                Record::Retry { at_ms, attempts, .. } => {
                    Record::Retry { row, at_ms: *at_ms, attempts }.encode(lines);
                    attempts
                }
                Record::Repeated { .. } => continue,
            };
            let facts = read_attempts(attempts);
            calls += facts.len() as u64;
            self.cost.add(&spending(&facts));
        }
        self.size += lines.len() - before;
        if self.size >= WAITING {
            self.append()?;
        }
        Ok(calls)
    }

    /// A row's text as it is now. Rows are asked for mostly in order.
    fn text(&mut self, number: usize, row: u64) -> Result<Vec<u8>, Error> {
        let Side { manifest, source, .. } = self.new;
        let entry = &manifest.shards[number];
        let rows = match self.rows.take().filter(|(read, _)| *read == number) {
            Some((_, rows)) => rows,
            None => read_shard(source, entry, manifest.job.max_row_bytes)?,
        };
        let index = usize::try_from(row - entry.first_row).unwrap_or(usize::MAX);
        let text = rows.text(index).map_or_else(|_| NO_INPUT.to_vec(), |it| it.trim_ascii().into());
        self.rows = Some((number, rows));
        Ok(text)
    }

    fn append(&mut self) -> Result<(), Error> {
        for (number, lines) in std::mem::take(&mut self.waiting) {
            self.new.dir.append_carried(number, &lines)?;
            self.touched.push(number);
        }
        self.size = 0;
        Ok(())
    }

    fn finish(mut self) -> Result<(), Error> {
        self.append()?;
        self.touched.sort_unstable();
        self.touched.dedup();
        self.touched.iter().try_for_each(|number| Ok(self.new.dir.sync_carried(*number)?))
    }
}
