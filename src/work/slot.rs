//! A shard in a worker's hands: its rows, what is written of them, what is still to come.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::answerer::Needs;
use super::attempt::Landing;
use super::feed::{Feed, RowIndex};
use super::retry::Again;
use super::route::Waiting;
use super::row::{self, Prepared};
use crate::dialect::model_of;
use crate::format::envelope::{self, Verdict};
use crate::format::telemetry::read_attempts;
use crate::input::ShardRows;
use crate::job::{Failure, FailureKind, Id, JobSpec, Kinds, Names, OutcomeKind};
use crate::prompt::{Template, attachments, kinds_of};
use crate::provider::Correction;
use crate::store::{
    Asked, Chosen, Entry, Error, Journal, Outcome, Record, Rename, ShardEntry, ShardState, Started,
};

/// One open shard.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    pub(super) number: u32,
    /// Which variant of the job its rows are asked for: two calls for one row that are no repetition of
    /// each other differ in it.
    pub(super) variant: usize,
    generation: u32,
    pub(super) feed: Feed,
    /// Rows of it that wait for a lane.
    pub(super) queue: Waiting,
    entry: &'a ShardEntry,
    rows: ShardRows<'a>,
    journal: Journal,
    started: Started,
    // Rows whose id the plan changed.
    ids: HashMap<u64, Id>,
    // Rows that fail because an earlier one has their id.
    twice: HashSet<u64>,
    // Rows whose answer did not fit, until they have an outcome.
    corrections: HashMap<RowIndex, Arc<Correction>>,
    // How often rows were answered without having an answer since, by their place.
    answered: HashMap<RowIndex, u32>,
    // Lines that are not written yet, and what of the journal is not durable yet.
    lines: Vec<u8>,
    waiting: usize,
    synced_to: u64,
    entries: Vec<Entry>,
    /// Calls that are started and not noted yet.
    pub(super) starting: u64,
    pub(super) is_sealing: bool,
    /// Set where it is given up before all its rows have outcomes.
    pub(super) leaving: Option<Leaving>,
    envelope: Vec<u8>,
    attempts: Vec<u8>,
}

/// Why a worker gives up a shard that has rows left, and whether it has said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leaving {
    /// Whether nobody can answer what is left in this run; else somebody takes it up again.
    pub(super) is_for_good: bool,
    pub(super) is_ordered: bool,
}

/// A part of a journal that was written and is not durable yet.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) shard: u32,
    pub(super) begin: u64,
    pub(super) end: u64,
    pub(super) entries: Vec<Entry>,
}

impl<'a> Slot<'a> {
    pub(super) fn new(
        (generation, number): (u32, u32),
        entry: &'a ShardEntry,
        rows: ShardRows<'a>,
        journal: Journal,
        started: Started,
    ) -> Self {
        let synced_to = journal.length();
        Self {
            number,
            variant: entry.variant as usize,
            generation,
            feed: Feed::new(Vec::new()),
            queue: Waiting::default(),
            entry,
            rows,
            journal,
            started,
            ids: HashMap::new(),
            twice: HashSet::new(),
            corrections: HashMap::new(),
            answered: HashMap::new(),
            lines: Vec::new(),
            waiting: 0,
            synced_to,
            entries: Vec::new(),
            starting: 0,
            is_sealing: false,
            leaving: None,
            envelope: Vec::new(),
            attempts: Vec::new(),
        }
    }

    /// Settles which rows are to be worked.
    pub(super) fn want(
        &mut self,
        state: &ShardState,
        renames: Vec<Rename>,
        chosen: &Chosen,
        again: &Again,
    ) {
        let first = self.entry.first_row;
        let mut wanted: Vec<bool> = (first..first + self.rows.len() as u64)
            .map(|row| {
                chosen.contains(row)
                    && match state.outcome(row) {
                        None => true,
                        Some(OutcomeKind::Failed) => again.contains(row),
                        Some(OutcomeKind::Ok | OutcomeKind::Invalid) => false,
                    }
            })
            .collect();
        for Rename { row, id, fails } in renames {
            match id {
                None if fails => {
                    self.twice.insert(row);
                }
                Some(text) => {
                    self.ids.insert(row, Id::from_text(&text));
                }
                None => {
                    let index = usize::try_from(row.saturating_sub(first)).unwrap_or(usize::MAX);
                    if let Some(wanted) = wanted.get_mut(index) {
                        *wanted = false;
                    }
                }
            }
        }
        self.feed = Feed::new(wanted);
    }

    /// What a row needs of whoever answers it; `names` are those that lines may have, where they count. Of
    /// a row that cannot be asked about that is told later.
    pub(super) fn needs(&self, row: RowIndex, job: &JobSpec, names: Option<&Names>) -> Needs {
        if !job.dialect.is_request() {
            return Needs { kinds: self.kinds(row, job), name: None };
        }
        let text = self.rows.text(row);
        let object = text.as_ref().ok().and_then(|text| self.rows.object(row, text).ok());
        match (object, names) {
            (None, _) => Needs::TEXT,
            // Whoever says what a name stands for knows what that takes in.
            (Some(row), Some(names)) => {
                let name = model_of(&row).and_then(|model| names.place(&model));
                Needs { name, ..Needs::TEXT }
            }
            (Some(row), None) => Needs { kinds: kinds_of(&row), name: None },
        }
    }

    /// What a model must take in to answer a row, by the names of what is attached to it.
    fn kinds(&self, row: RowIndex, job: &JobSpec) -> Kinds {
        let Some(field) = &job.attachment_field else { return Kinds::TEXT };
        let named = || {
            let text = self.rows.text(row).ok()?;
            attachments(&self.rows.object(row, &text).ok()?, field).ok()
        };
        Kinds::needed(&named().unwrap_or_default())
    }

    /// The length of its rows' text.
    pub(super) fn bytes(&self) -> u64 {
        self.entry.bytes
    }

    /// Which of the inputs its rows are of.
    pub(super) fn source(&self) -> usize {
        self.entry.source as usize
    }

    /// A row's number among those of all inputs.
    pub(super) fn number_of(&self, row: RowIndex) -> u64 {
        self.entry.first_row + row as u64
    }

    /// Notes the calls that are being started. To be called before they are sent.
    pub(super) fn note_started(&mut self) -> Result<(), Error> {
        self.started.more(std::mem::take(&mut self.starting))
    }

    /// Writes down that no call is under way.
    pub(super) fn clear_started(&mut self) -> Result<(), Error> {
        self.started.clear()
    }

    /// Whether anything was written before.
    pub(super) fn has_records(&self) -> bool {
        self.journal.length() > 0
    }

    /// Takes note of attempts of an earlier session. What was answered then is not to be answered with
    /// the same once more.
    pub(super) fn recall(&mut self, record: &Record<'_>) {
        let (row, attempts) = match record {
            Record::Retry { row, attempts, .. } => (row, attempts),
            Record::Outcome(Outcome { row, kind: OutcomeKind::Failed, attempts, .. }) => {
                (row, attempts)
            }
            _ => return,
        };
        let count = read_attempts(attempts).iter().filter(|facts| facts.is_answered()).count();
        let place =
            row.checked_sub(self.entry.first_row).and_then(|it| RowIndex::try_from(it).ok());
        if let Some(place) = place.filter(|_| count > 0) {
            *self.answered.entry(place).or_default() += u32::try_from(count).unwrap_or(u32::MAX);
        }
    }

    /// How often a row was answered, well or badly, and asked again.
    pub(super) fn answered(&self, row: RowIndex) -> u32 {
        self.answered.get(&row).copied().unwrap_or_default()
    }

    /// Reads a row and renders its prompt.
    pub(super) fn prepare(&self, row: RowIndex, job: &JobSpec, template: &Template) -> Prepared {
        let number = self.number_of(row);
        let renamed = self.ids.get(&number);
        let own = self.entry.own_row(number);
        let prepared = row::prepare((&self.rows, row), own, renamed, job, template);
        if self.twice.contains(&number) {
            let message = format!("an earlier line has the id {}", prepared.id);
            let failure = Failure::new(FailureKind::InvalidRequest, message);
            return Prepared { hash: 0, prompt: Err(failure), ..prepared };
        }
        prepared
    }

    /// Has a row asked again with what was wrong with its answer.
    pub(super) fn correct(&mut self, row: RowIndex, failure: &Failure) {
        self.corrections.insert(row, Arc::new(Correction::of(failure)));
    }

    /// What was wrong with a row's last answer, if it is to be told.
    pub(super) fn correction(&self, row: RowIndex) -> Option<Arc<Correction>> {
        self.corrections.get(&row).cloned()
    }

    /// Adds the line of a row that is not asked about, with the hash of its prompt, if it has one.
    pub(super) fn put_unasked(
        &mut self,
        (row, prompt): (RowIndex, u64),
        id: &Id,
        failure: &Failure,
        job: &JobSpec,
        at_ms: u64,
    ) {
        let verdict = Verdict::Failed(failure, 0);
        if !matches!(failure.kind, FailureKind::Attachment | FailureKind::NoModel) {
            return self.put(row, id, OutcomeKind::Invalid, verdict, b"[]", None, job, at_ms);
        }
        // What is not there may be there the next time: it failed, like one that was called in vain.
        // As such it counts as a call that ended; so that none seems to be missing, it is one that was
        // started.
        let asked = Some(Asked { generation: self.generation, prompt, is_accepted: false });
        self.put(row, id, OutcomeKind::Failed, verdict, b"[]", asked, job, at_ms);
        self.starting += 1;
    }

    /// Adds the line of a row that no model takes. One that cannot be asked about at all says so.
    pub(super) fn put_unserved(
        &mut self,
        row: RowIndex,
        failure: &Failure,
        job: &JobSpec,
        template: &Template,
        at_ms: u64,
    ) {
        let Prepared { id, hash, prompt } = self.prepare(row, job, template);
        let failure = prompt.err().unwrap_or_else(|| failure.clone());
        self.put_unasked((row, hash), &id, &failure, job, at_ms);
    }

    /// Adds the line of a row that was answered or has failed for good.
    pub(super) fn put_landing(
        &mut self,
        landing: &Landing,
        attempts_made: u32,
        job: &JobSpec,
        at_ms: u64,
    ) {
        let (row, id) = (landing.flight.row, &landing.flight.id);
        let mut attempts = std::mem::take(&mut self.attempts);
        row::list_attempt(&mut attempts, landing);
        let (generation, prompt) = (self.generation, landing.flight.prompt);
        let asked = Some(Asked { generation, prompt, is_accepted: false });
        let kind = if landing.result.is_ok() { OutcomeKind::Ok } else { OutcomeKind::Failed };
        let verdict = row::verdict(landing, attempts_made);
        self.put(row, id, kind, verdict, &attempts, asked, job, at_ms);
        self.attempts = attempts;
    }

    /// Adds the line of an attempt that failed and is not the last.
    pub(super) fn put_retry(&mut self, landing: &Landing, at_ms: u64) {
        let mut attempts = std::mem::take(&mut self.attempts);
        row::list_attempt(&mut attempts, landing);
        if landing.attempt.status.is_some() {
            *self.answered.entry(landing.flight.row).or_default() += 1;
        }
        let row = self.number_of(landing.flight.row);
        self.put_record(&Record::Retry { row, at_ms, attempts: &attempts });
        self.attempts = attempts;
    }

    #[expect(clippy::too_many_arguments, reason = "they are what a line is made of")]
    fn put(
        &mut self,
        row: RowIndex,
        id: &Id,
        kind: OutcomeKind,
        verdict: Verdict<'_>,
        attempts: &[u8],
        asked: Option<Asked>,
        job: &JobSpec,
        at_ms: u64,
    ) {
        let mut envelope = std::mem::take(&mut self.envelope);
        envelope.clear();
        let number = self.number_of(row);
        envelope::write(&mut envelope, id, self.entry.own_row(number), verdict);
        let input = job.include_input.then(|| row::input(&self.rows, row));
        self.put_record(&Record::Outcome(Outcome {
            row: number,
            kind,
            at_ms,
            envelope: &envelope,
            attempts,
            asked,
            adopted: false,
            named: b"",
            input: input.as_deref(),
        }));
        self.envelope = envelope;
        self.corrections.remove(&row);
        self.queue.forget(row);
        self.answered.remove(&row);
        self.feed.done(row);
    }

    fn put_record(&mut self, record: &Record<'_>) {
        let start = self.lines.len();
        record.encode(&mut self.lines, self.journal.seed());
        let offset = self.journal.next_offset() + start as u64;
        self.entries.extend(Entry::of(record, offset, self.lines.len() - start));
        self.waiting += 1;
    }

    /// How many lines were added and not written.
    pub(super) fn unwritten(&self) -> usize {
        self.waiting
    }

    /// Writes the lines that were added. Gives how many there were.
    pub(super) fn write(&mut self) -> Result<usize, Error> {
        if self.lines.is_empty() {
            return Ok(0);
        }
        self.journal.append(&self.lines)?;
        self.lines.clear();
        Ok(std::mem::take(&mut self.waiting))
    }

    /// What was written and is not yet on its way to the disk.
    pub(super) fn take_group(&mut self) -> Option<Group> {
        let (begin, end) = (self.synced_to, self.journal.length());
        self.synced_to = end;
        let entries = std::mem::take(&mut self.entries);
        (begin < end).then_some(Group { shard: self.number, begin, end, entries })
    }

    /// Whether all rows are done and all of it is on its way to the disk.
    pub(super) fn is_complete(&self) -> bool {
        self.feed.left() == 0 && self.is_handed_on()
    }

    /// Whether all that came of its rows is on its way to the disk.
    pub(super) fn is_handed_on(&self) -> bool {
        self.lines.is_empty() && self.synced_to == self.journal.length()
    }

    /// Whether it is being closed with rows left.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some_and(|leaving| leaving.is_ordered)
    }

    /// Whether each row that has no outcome waits for a lane, and nothing of it is under way.
    pub(super) fn is_waiting(&self) -> bool {
        self.feed.left() > 0 && self.feed.left() == self.queue.count(|_| true)
    }
}
