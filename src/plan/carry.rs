//! Takes over what an earlier generation knows: answers whose question is as it was.
//!
//! It is a join on disk. Both generations' indexes of ids are walked side by side; what matches is
//! sorted by its old row and looked up in the old journals, read once and in order; records that
//! are kept are appended to the new journals in large pieces. Memory does not grow with the rows.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Error;
use super::drift::RowChanges;
use super::matches::{Match, Matches};
use crate::format::envelope::{self, NO_INPUT};
use crate::format::telemetry::{read_attempts, spending};
use crate::input::{ShardRows, Source, read_shard};
use crate::job::{Identity, JobSpec, OutcomeKind, Setting, Spending, Variant};
use crate::store::{
    Asked, Carried, Held, Manifest, Outcome, ReadShard, Record, RowHashes, RowRecords, ShardEntry,
    ShardReader, WorkDir,
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

/// Rows of a plan that are left out because an earlier row has their id.
struct Skipped<'a> {
    new: &'a Side<'a, Held>,
    // The shard whose rows these are.
    number: Option<usize>,
    rows: HashSet<u64>,
}

impl Skipped<'_> {
    fn contains(&mut self, row: u64) -> Result<bool, Error> {
        let number = self.new.manifest.shards_with(row);
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

/// A variant of both plans, by its number in each, and the place of its model in each.
#[derive(Debug, Clone, Copy)]
struct Kept {
    old: usize,
    new: usize,
    old_model: usize,
    new_model: usize,
}

/// The variants of both plans, and how many the new one has besides.
fn kept_variants(old: &JobSpec, new: &JobSpec) -> (Vec<Kept>, usize) {
    let models = old.models_in(new);
    let mut kept = Vec::new();
    for number in 0..new.variants() {
        let Variant { model: new_model, repeat, .. } = new.variant(number);
        if let Some(old_model) = models[new_model].filter(|_| repeat <= old.repeat) {
            let old = old.number_of(old_model, repeat);
            kept.push(Kept { old, new: number, old_model, new_model });
        }
    }
    let more = new.variants() - kept.len();
    (kept, more)
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
    let (before, now) = (&old.manifest.job, &new.manifest.job);
    let (kept, more) = kept_variants(before, now);
    let times = |rows: u64, variants: usize| rows.saturating_mul(variants as u64);
    let carried = Carried {
        new: times(rows.new, now.variants()),
        gone: times(rows.gone, before.variants()),
        ..Carried::default()
    };
    let mut carrier = Carrier {
        old,
        carried,
        journals: Journals::new(new),
        skipped: Skipped { new, number: None, rows: HashSet::new() },
        prompts,
        settings: Settings::new(old.manifest, &new.manifest.job, keeping),
        is_foresight,
    };
    let mut reader = ShardReader::default();
    for (first, entry) in old.manifest.ranges().filter(|(_, entry)| entry.wanted > 0) {
        let mut found = matches.next_until(entry.first_row + entry.rows)?;
        found.retain(|it| new.manifest.chosen.contains(it.new_row));
        for it in found.iter().filter(|_| more > 0) {
            let is_wanted = !carrier.skipped.contains(it.new_row)?;
            carrier.carried.new += times(u64::from(is_wanted), more);
        }
        for variant in kept.iter().filter(|_| !found.is_empty()) {
            let number = first + u32::try_from(variant.old).unwrap_or(u32::MAX);
            let entry = &old.manifest.shards[number as usize];
            carrier.shard(&mut reader, number, entry, *variant, &found)?;
        }
    }
    let Carrier { carried, journals, .. } = carrier;
    let kept_cost = journals.cost;
    journals.finish()?;
    let is_known = matches.knows_texts();
    matches.discard(new.dir)?;
    Ok(Joined { carried, kept_cost, rows: is_known.then_some(rows) })
}

/// Takes over what shards know, one after the other.
struct Carrier<'a> {
    old: &'a Side<'a, WorkDir>,
    carried: Carried,
    journals: Journals<'a>,
    skipped: Skipped<'a>,
    prompts: &'a mut RowHashes,
    settings: Settings<'a>,
    is_foresight: bool,
}

impl Carrier<'_> {
    /// Takes over what a shard knows of rows that both generations have.
    fn shard(
        &mut self,
        reader: &mut ShardReader,
        number: u32,
        entry: &ShardEntry,
        variant: Kept,
        found: &[Match],
    ) -> Result<(), Error> {
        let mut found = found.iter().peekable();
        let read = reader.read_what_is_there(self.old.dir, number, entry)?;
        if let Some(read) = &read {
            read.for_each_row::<Error>(&mut |records| {
                let row = records.outcome.row;
                while let Some(it) = found.next_if(|it| it.old_row < row) {
                    self.unanswered(Some(read), it, variant)?;
                }
                match found.next_if(|it| it.old_row == row) {
                    Some(it) => self.row(&records, it, variant),
                    None => Ok(()),
                }
            })?;
        }
        found.try_for_each(|it| self.unanswered(read.as_ref(), it, variant))
    }

    /// A row that has an outcome.
    fn row(&mut self, records: &RowRecords<'_>, it: &Match, variant: Kept) -> Result<(), Error> {
        let prompt = self.prompts.get(it.new_row)?;
        let settings = &mut self.settings;
        let prompt = prompt.filter(|it_is| settings.is_answer_to(*it_is, records, it, variant));
        let carried = &mut self.carried;
        match (prompt.is_some(), records.outcome.kind) {
            (true, OutcomeKind::Ok) => carried.kept += 1,
            (true, _) | (_, OutcomeKind::Invalid) => carried.unanswered += 1,
            (false, _) => carried.changed += 1,
        }
        if prompt.is_some() && !self.is_foresight {
            let calls = self.journals.put(&records.all, it, variant, prompt)?;
            self.count_calls(calls, variant);
        }
        Ok(())
    }

    /// Counts the calls that records tell of. What a model says that is not called, beside others that
    /// are, is none.
    fn count_calls(&mut self, calls: u64, variant: Kept) {
        let job = &self.journals.new.manifest.job;
        if job.is_called(variant.new_model) || job.model_count() == 1 {
            self.carried.calls += calls;
        }
    }

    /// A row without an outcome keeps what its attempts came to.
    fn unanswered(
        &mut self,
        read: Option<&ReadShard<'_>>,
        it: &Match,
        variant: Kept,
    ) -> Result<(), Error> {
        if self.skipped.contains(it.new_row)? {
            return Ok(());
        }
        self.carried.unanswered += 1;
        if let Some(read) = read.filter(|_| !self.is_foresight) {
            let put = |records: &[Record<'_>]| self.journals.put(records, it, variant, None);
            let calls = read.show_records(it.old_row, put)??;
            self.count_calls(calls, variant);
        }
        Ok(())
    }
}

/// What is asked now, and what was asked in earlier generations.
struct Settings<'a> {
    old: &'a Manifest,
    // By model.
    now: Vec<Setting>,
    keeping: Keeping,
    // Whether what a generation asked of all rows alike, by way of a model, is what one asks now.
    known: HashMap<(u32, usize), bool>,
}

impl<'a> Settings<'a> {
    fn new(old: &'a Manifest, job: &JobSpec, keeping: Keeping) -> Self {
        let now = (0..job.model_count()).map(|model| job.setting(model)).collect();
        Self { old, now, keeping, known: HashMap::new() }
    }

    /// Whether an outcome counts as one of the question that is asked now, with this prompt.
    fn is_answer_to(
        &mut self,
        prompt: u64,
        records: &RowRecords<'_>,
        it: &Match,
        variant: Kept,
    ) -> bool {
        let Some(asked) = records.outcome.asked else { return false };
        let Keeping { changed_rows, prompt: any_prompt, .. } = self.keeping;
        // Where rows have no ids, one with another text may be another row.
        let is_same_row = it.is_same_text || self.old.job.identity() != Identity::RowNumber;
        let is_kept =
            asked.prompt == prompt || changed_rows && is_same_row || any_prompt && it.is_same_text;
        is_kept && self.is_as_then(asked.generation, variant)
    }

    fn is_as_then(&mut self, generation: u32, variant: Kept) -> bool {
        let Self { old, now, keeping, known } = self;
        let Kept { old_model, new_model, .. } = variant;
        *known.entry((generation, new_model)).or_insert_with(|| {
            let now = &now[new_model];
            let then = old.answers_to(generation, old_model);
            then.iter().any(|then| keeping.accept(then, now) == *now)
        })
    }
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
        variant: Kept,
        prompt: Option<u64>,
    ) -> Result<u64, Error> {
        let row = it.new_row;
        let number = self.new.manifest.shards_with(row);
        // Envelopes show the row as it is now.
        let text = match self.new.manifest.job.include_input && !it.is_same_text {
            true => Some(self.text(number, row)?),
            false => None,
        };
        let shard = u32::try_from(number + variant.new).unwrap_or(u32::MAX);
        let lines = self.waiting.entry(shard).or_default();
        let (before, mut calls) = (lines.len(), 0);
        let is_called = self.new.manifest.job.is_called(variant.new_model);
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
            if is_called {
                self.cost.add(&spending(&facts));
            }
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
