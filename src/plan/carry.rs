//! Takes over what an earlier generation knows: answers whose question is as it was.
//!
//! It is a join on disk. Both generations' indexes of ids are walked side by side; what matches is
//! sorted by its old row and looked up in the old journals, read once and in order; records that
//! are kept are appended to the new journals in large pieces. Memory does not grow with the rows.

use std::collections::{BTreeMap, HashSet};

use super::Error;
use super::drift::RowChanges;
use super::matches::{Match, Matches};
use super::settings::{Keeping, Same, Settings, same_variants};
use super::twins::{self, Has, Pair, Pairs, Settled};
use crate::format::envelope::{self, NO_INPUT};
use crate::format::telemetry::{read_attempts, spending};
use crate::input::{ShardRows, Sources, identify, read_shard};
use crate::job::{Id, JobSpec, OutcomeKind, Spending};
use crate::store::{
    Asked, Carried, ChecksumSeed, Held, Manifest, Outcome, ReadShard, Record, RowHashes,
    RowRecords, ShardReader, WorkDir,
};

/// One generation and what it was planned from.
pub(super) struct Side<'a, D> {
    pub(super) dir: &'a D,
    pub(super) manifest: &'a Manifest,
    /// Its input as it is now.
    pub(super) sources: &'a Sources,
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

/// What a join of two generations came to.
pub(super) struct Joined {
    pub(super) carried: Carried,
    /// What the calls cost whose records were kept.
    pub(super) kept_cost: Spending,
    /// The rows' texts compared, where that can be done.
    pub(super) rows: Option<RowChanges>,
}

/// What rows of the new plan have already, and which of them take the outcome of another.
pub(super) struct Kept<'k> {
    /// There where rows of the new plan that ask the same are asked once.
    pub(super) settled: Option<&'k mut Settled>,
    /// Not there where nothing is to be written.
    pub(super) pairs: Option<&'k mut Pairs>,
}

/// Fills the journals of a generation that has no manifest yet with what the one before it knows, or
/// tells what would come of it.
pub(super) fn carry(
    old: &Side<'_, WorkDir>,
    new: &Side<'_, Held>,
    prompts: &mut RowHashes,
    keeping: Keeping,
    kept: Kept<'_>,
) -> Result<Joined, Error> {
    let (mut matches, rows) = Matches::find(old, new)?;
    let (before, now) = (&old.manifest.job, &new.manifest.job);
    let (same, more) = same_variants(before, now);
    let times = |rows: u64, variants: usize| rows.saturating_mul(variants as u64);
    let carried = Carried {
        new: times(rows.new, now.variants()),
        gone: times(rows.gone, before.variants()),
        ..Carried::default()
    };
    let mut carry = Carry {
        is_foresight: kept.pairs.is_none(),
        carried,
        journals: Journals::new(new, before.gains_ids_in(now)),
        skipped: Skipped { new, number: None, rows: HashSet::new() },
        settings: Settings::new(old.manifest, &new.manifest.job, keeping),
        prompts,
        kept,
        holder: None,
    };
    let mut reader = ShardReader::default();
    for (first, entry) in old.manifest.ranges().filter(|(_, entry)| entry.wanted > 0) {
        let found = matches.next_until(entry.first_row + entry.rows)?;
        for it in found.iter().filter(|_| more > 0) {
            let is_wanted = !carry.skipped.contains(it.new_row)?;
            carry.carried.new += times(u64::from(is_wanted), more);
        }
        for variant in same.iter().filter(|_| !found.is_empty()) {
            let number = first + u32::try_from(variant.old).unwrap_or(u32::MAX);
            let entry = &old.manifest.shards[number as usize];
            let read = reader.read_what_is_there(old.dir, number, entry)?;
            carry.shard(read.as_ref(), *variant, &found, &mut matches)?;
        }
    }
    let Carry { carried, journals, .. } = carry;
    let kept_cost = journals.cost;
    journals.finish()?;
    let is_known = matches.knows_texts();
    matches.discard(new.dir)?;
    Ok(Joined { carried, kept_cost, rows: is_known.then_some(rows) })
}

/// What is known while rows are carried over.
struct Carry<'a, 'k> {
    is_foresight: bool,
    carried: Carried,
    journals: Journals<'a>,
    skipped: Skipped<'a>,
    settings: Settings<'a>,
    prompts: &'k mut RowHashes,
    kept: Kept<'k>,
    holder: Option<Holder>,
}

/// The row that has the records of an old row now: that row, or the first of its twins that is left.
#[derive(Clone, Copy)]
struct Holder {
    old_row: u64,
    new_row: u64,
    prompt: Option<u64>,
}

impl Carry<'_, '_> {
    /// Takes over what a shard knows of rows that both generations have.
    fn shard(
        &mut self,
        read: Option<&ReadShard<'_>>,
        variant: Same,
        found: &[Match],
        matches: &mut Matches,
    ) -> Result<(), Error> {
        self.holder = None;
        let mut found = found.iter().peekable();
        if let Some(read) = read {
            read.for_each_row::<Error>(&mut |records| {
                let row = records.outcome.row;
                while let Some(it) = found.next_if(|it| it.old_row < row) {
                    self.unanswered(it, variant, Some(read))?;
                }
                while let Some(it) = found.next_if(|it| it.old_row == row) {
                    let twin = matches.asked_of_twin(it)?;
                    self.answered(it, variant, &records, twin)?;
                }
                Ok(())
            })?;
        }
        found.try_for_each(|it| self.unanswered(it, variant, read))
    }

    /// Counts the calls that records tell of. What a model says that is not called, beside others that
    /// are, is none.
    fn count_calls(&mut self, calls: u64, variant: Same) {
        let job = &self.journals.new.manifest.job;
        if job.is_called(variant.new_model) || job.model_count() == 1 {
            self.carried.calls += calls;
        }
    }

    /// A row without an outcome keeps what its attempts came to.
    fn unanswered(
        &mut self,
        it: &Match,
        variant: Same,
        read: Option<&ReadShard<'_>>,
    ) -> Result<(), Error> {
        if self.skipped.contains(it.new_row)? {
            return Ok(());
        }
        self.carried.unanswered += 1;
        let Some(read) = read else { return Ok(()) };
        if it.twin.is_some() {
            return self.follow(it, None);
        }
        let has_records = read.show_records(it.old_row, |records| {
            if !self.is_foresight {
                let calls = self.journals.put(records, it, variant, None)?;
                self.count_calls(calls, variant);
            }
            Ok::<_, Error>(!records.is_empty())
        })??;
        if has_records {
            self.hold(it, Has::Own)?;
        }
        Ok(())
    }

    /// A row that has an outcome, its own or, where it says what it asked as a twin, another row's.
    fn answered(
        &mut self,
        it: &Match,
        variant: Same,
        records: &RowRecords<'_>,
        twin: Option<Asked>,
    ) -> Result<(), Error> {
        let outcome = &records.outcome;
        // A twin's prompt is its own; with what it was asked is its original's.
        let prompt = twin.or(outcome.asked).map(|asked| asked.prompt);
        let counts_for = outcome.asked.zip(prompt).map(|(asked, prompt)| Asked { prompt, ..asked });
        let now = self.prompts.get(it.new_row)?;
        let now = now.filter(|now| self.settings.is_answer_to(*now, counts_for, it, variant));
        match (now.is_some(), outcome.kind) {
            (true, OutcomeKind::Ok) => self.carried.kept += 1,
            (true, _) | (_, OutcomeKind::Invalid) => self.carried.unanswered += 1,
            (false, _) => self.carried.changed += 1,
        }
        let Some((prompt, then)) = now.zip(outcome.asked) else { return Ok(()) };
        let is_ok = outcome.kind == OutcomeKind::Ok;
        let is_held = self.holder.is_some_and(|holder| holder.old_row == it.old_row);
        if is_held && !self.journals.new.manifest.job.is_varied() {
            let answer = twin.filter(|_| is_ok).map(|twin| Asked { prompt, ..twin });
            return self.follow(it, answer);
        }
        let is_accepted = then.is_accepted || then.prompt != prompt;
        let is_exact = !is_accepted && self.settings.was_asked_alike(then.generation, variant);
        // To a twin it is new since it is one.
        let since = twin.filter(|_| is_exact).map_or(0, |twin| twin.generation);
        let asked = Asked { generation: then.generation.max(since), prompt, is_accepted };
        if is_held {
            // Where several answers are wanted to a row, none is another row's: it has one of its own,
            // which no call was made for.
            let outcome = Record::Outcome(Outcome { attempts: b"[]", ..records.outcome });
            if !self.is_foresight {
                self.journals.put(&[outcome], it, variant, Some(asked))?;
            }
            return Ok(());
        }
        if !self.is_foresight {
            let calls = self.journals.put(&records.all, it, variant, Some(asked))?;
            self.count_calls(calls, variant);
        }
        self.hold(it, if is_ok && is_exact { Has::Answer } else { Has::Own })
    }

    /// A row has records of its own.
    fn hold(&mut self, it: &Match, has: Has) -> Result<(), Error> {
        let prompt = self.prompts.get(it.new_row)?;
        self.holder = Some(Holder { old_row: it.old_row, new_row: it.new_row, prompt });
        self.settle(it.new_row, has)
    }

    /// A twin goes on taking the outcome of the row that has the records: the answer that it had, or,
    /// where it asks what that row asks, whatever comes.
    fn follow(&mut self, it: &Match, answer: Option<Asked>) -> Result<(), Error> {
        if self.journals.new.manifest.job.is_varied() {
            return Ok(());
        }
        let holder = self.holder.filter(|holder| holder.old_row == it.old_row);
        let Some(Holder { new_row: of, prompt: asks, .. }) = holder else { return Ok(()) };
        let Manifest { job, generation, .. } = self.journals.new.manifest;
        let now = self.prompts.get(it.new_row)?.filter(|_| job.is_deduped());
        let same = now.filter(|now| asks == Some(*now));
        let to_come = same.map(|prompt| (prompt, *generation));
        let answer = answer.map(|asked| (asked.prompt, asked.generation));
        let Some((prompt, since)) = answer.or(to_come) else { return Ok(()) };
        if let Some(pairs) = &mut self.kept.pairs {
            pairs.add(Pair { row: it.new_row, of, prompt, since })?;
        }
        self.settle(it.new_row, Has::Own)
    }

    fn settle(&mut self, row: u64, has: Has) -> Result<(), Error> {
        self.kept.settled.as_mut().map_or(Ok(()), |settled| settled.put(row, has))
    }
}

/// The new generation's journals, and what waits to be appended to them.
struct Journals<'a> {
    new: &'a Side<'a, Held>,
    // Whether rows have ids that they did not have before.
    gains_ids: bool,
    // The ids that rows are given in the place of their own, by row, of the shard that was asked for last.
    renamed: Option<(usize, BTreeMap<u64, String>)>,
    // Of the rows that were read last.
    rows: Option<(usize, ShardRows<'a>)>,
    waiting: BTreeMap<u32, Vec<u8>>,
    size: usize,
    touched: Vec<u32>,
    // What the checksums of each journal begin with.
    seeds: BTreeMap<u32, ChecksumSeed>,
    envelope: Vec<u8>,
    // What the calls cost whose records were put.
    cost: Spending,
}

/// Bytes that wait before they are appended.
const WAITING: usize = 32 << 20;

impl<'a> Journals<'a> {
    fn new(new: &'a Side<'a, Held>, gains_ids: bool) -> Self {
        let (waiting, touched, seeds, envelope) = Default::default();
        let cost = Spending::default();
        let renamed = None;
        Self {
            new,
            gains_ids,
            renamed,
            rows: None,
            waiting,
            size: 0,
            touched,
            seeds,
            envelope,
            cost,
        }
    }

    /// Keeps a row's records under its new number; what is an answer, as one to this question: what is
    /// accepted once stays accepted. Gives the number of calls they tell of.
    fn put(
        &mut self,
        records: &[Record<'_>],
        it: &Match,
        variant: Same,
        now: Option<Asked>,
    ) -> Result<u64, Error> {
        let row = it.new_row;
        let number = self.new.manifest.shards_with(row);
        let own = self.new.manifest.shards[number].own_row(row);
        // Envelopes show the row as it is now; what was another row's shows this one.
        let is_anothers = it.twin.is_some();
        let text = match self.new.manifest.job.include_input && (!it.is_same_text || is_anothers) {
            true => Some(self.text(number, row)?),
            false => None,
        };
        let id = match (is_anothers, self.gains_ids) {
            (_, true) => Some(self.new_id(number, row)?),
            (true, false) => Some(self.id(number, row)?),
            (false, false) => None,
        };
        let shard = u32::try_from(number + variant.new).unwrap_or(u32::MAX);
        let seed = self.seeds.entry(shard).or_insert_with(|| self.new.dir.identity(shard).seed());
        let seed = *seed;
        let lines = self.waiting.entry(shard).or_default();
        let (before, mut calls) = (lines.len(), 0);
        let is_called = self.new.manifest.job.is_called(variant.new_model);
        for record in records {
            let attempts = match record {
                Record::Outcome(outcome) => {
                    self.envelope.clear();
                    let id = id.as_ref().map_or(outcome.id(), |id| id.as_json().as_bytes());
                    envelope::readdress(&mut self.envelope, outcome.envelope, id, own);
                    let envelope = &self.envelope;
                    let asked = outcome.asked.zip(now).map(|(then, now)| Asked {
                        generation: then.generation.max(now.generation),
                        is_accepted: then.is_accepted || then.prompt != now.prompt,
                        ..now
                    });
                    let input = text.as_deref().or(outcome.input);
                    Record::Outcome(Outcome { row, envelope, asked, input, ..*outcome })
                        .encode(lines, seed);
                    outcome.attempts
                }
                Record::Retry { at_ms, attempts, .. } => {
                    Record::Retry { row, at_ms: *at_ms, attempts }.encode(lines, seed);
                    attempts
                }
                Record::Repeated { .. } | Record::Begin { .. } => continue,
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
        let (rows, index) = self.rows(number, row)?;
        Ok(rows.text(index).map_or_else(|_| NO_INPUT.to_vec(), |it| it.trim_ascii().into()))
    }

    /// The rows of a shard, and the place of a row among them.
    fn rows(&mut self, number: usize, row: u64) -> Result<(&ShardRows<'a>, usize), Error> {
        let Side { manifest, sources, .. } = self.new;
        let entry = &manifest.shards[number];
        let rows = match self.rows.take().filter(|(read, _)| *read == number) {
            Some((_, rows)) => rows,
            None => read_shard(sources, entry, manifest.job.max_row_bytes)?,
        };
        let index = usize::try_from(row - entry.first_row).unwrap_or(usize::MAX);
        Ok((&self.rows.insert((number, rows)).1, index))
    }

    /// The id of a row that had only its number before.
    fn new_id(&mut self, number: usize, row: u64) -> Result<Id, Error> {
        let Side { dir, manifest, .. } = self.new;
        let entry = &manifest.shards[number];
        if self.renamed.as_ref().is_none_or(|(read, _)| *read != number) {
            let all = dir.duplicates(u32::try_from(number).unwrap_or(u32::MAX), entry)?;
            let names = all.into_iter().filter_map(|it| Some((it.row, it.id?))).collect();
            self.renamed = Some((number, names));
        }
        if let Some(name) = self.renamed.as_ref().and_then(|(_, names)| names.get(&row)) {
            return Ok(Id::from_text(name));
        }
        let (rows, index) = self.rows(number, row)?;
        let identity = manifest.job.identity();
        let own = rows.text(index).ok().and_then(|text| {
            let object = rows.object(index, &text).ok()?;
            identify(&object, identity, entry.own_row(row)).ok()
        });
        // A row whose id cannot be read has no outcome that is kept.
        Ok(own.unwrap_or_else(Id::unknown))
    }

    /// A row's id as it is now.
    fn id(&self, number: usize, row: u64) -> Result<Id, Error> {
        let Side { dir, manifest, sources } = self.new;
        let shard = &manifest.shards[number];
        let entry = (u32::try_from(number).unwrap_or(u32::MAX), shard);
        let job = JobSpec { include_input: false, ..manifest.job.clone() };
        let shown = twins::shown(dir, sources, &job, entry, &[row])?;
        Ok(shown
            .into_iter()
            .next()
            .map_or_else(|| Id::from_row_number(shard.own_row(row)), |(id, _)| id))
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
