//! What the rows of a run came to, added up while they are written.

use std::collections::BTreeMap;

use crate::format::envelope::failure_class;
use crate::format::telemetry::{Facts, read_attempts};
use crate::job::{OutcomeKind, Spending, Usage};
use crate::store::{Outcome, Record, RowRecords};
use crate::telemetry::Histogram;

/// Sums over rows and attempts.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Rows with an answer.
    pub ok: u64,
    /// Rows without one that a resumption would try again.
    pub failed: u64,
    /// Rows that cannot be asked about.
    pub invalid: u64,
    /// Rows whose answer was taken over from an earlier output.
    pub adopted: u64,
    /// Of all rows, those that took the outcome of another.
    pub twins: u64,
    /// Rows that failed before and were tried again in this generation.
    pub retried: u64,
    /// Answers by the generation that asked for them.
    pub epochs: BTreeMap<u32, u64>,
    /// Answers that were cut off at the token limit.
    pub truncated: u64,
    /// Rows without an answer, by the class of their failure.
    pub failures: BTreeMap<String, u64>,
    /// Calls that ended.
    pub calls: u64,
    /// Calls that may have been made before a crash and were made again.
    pub repeated: u64,
    /// Where there are several endpoints, the answers of each, and of each model there.
    pub answers: BTreeMap<(String, String), u64>,
    /// What the calls used.
    pub usage: Usage,
    /// What the calls cost.
    pub cost: Spending,
    /// How long calls took.
    pub duration: Histogram,
    /// How long the head of an answer took.
    pub time_to_response: Histogram,
    /// How long the first token of a streamed answer took.
    pub ttft: Histogram,
}

impl Totals {
    /// Adds what became of a row in a plan's generation.
    pub(super) fn row(&mut self, row: &RowRecords<'_>, generation: u32) {
        let outcome = &row.outcome;
        let asked = outcome.asked.map(|asked| asked.generation);
        let outcomes = row.all.iter().filter(|it| matches!(it, Record::Outcome(_))).count();
        self.retried += u64::from(outcomes > 1 && asked == Some(generation));
        self.outcome(outcome);
    }

    /// Adds a row that took another's outcome.
    pub(super) fn twin(&mut self, outcome: &Outcome<'_>) {
        self.twins += 1;
        self.outcome(outcome);
    }

    fn outcome(&mut self, outcome: &Outcome<'_>) {
        match outcome.kind {
            OutcomeKind::Ok => {
                self.ok += 1;
                if let Some(asked) = outcome.asked {
                    *self.epochs.entry(asked.generation).or_default() += 1;
                }
                self.adopted += u64::from(outcome.adopted);
                return;
            }
            OutcomeKind::Failed => self.failed += 1,
            OutcomeKind::Invalid => self.invalid += 1,
        }
        let class = failure_class(outcome.envelope).unwrap_or("unknown".into());
        // Classes are few, and mostly known already.
        if let Some(count) = self.failures.get_mut(&*class) {
            *count += 1;
            return;
        }
        self.failures.insert(class.into_owned(), 1);
    }

    /// Adds a record's attempts, and gives them.
    pub(super) fn attempts<'a>(&mut self, attempts: &'a [u8]) -> Vec<Facts<'a>> {
        let all = read_attempts(attempts);
        for facts in &all {
            self.calls += 1;
            if let Some(usage) = &facts.usage {
                self.usage.add(usage);
            }
            if let Some(endpoint) = facts.endpoint.as_deref().filter(|_| facts.ok) {
                let key = (endpoint.to_owned(), facts.model.clone().into_owned());
                *self.answers.entry(key).or_default() += 1;
            }
            self.cost.note(facts.cost, facts.is_unpriced, facts.assumed);
            self.truncated +=
                u64::from(facts.ok && facts.finish_reason.as_deref() == Some("length"));
            self.duration.add(facts.duration);
            if let Some(time) = facts.time_to_response {
                self.time_to_response.add(time);
            }
            if let Some(time) = facts.ttft {
                self.ttft.add(time);
            }
        }
        all
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.invalid += other.invalid;
        self.adopted += other.adopted;
        self.twins += other.twins;
        self.retried += other.retried;
        for (generation, answers) in &other.epochs {
            *self.epochs.entry(*generation).or_default() += answers;
        }
        self.truncated += other.truncated;
        for (class, count) in &other.failures {
            *self.failures.entry(class.clone()).or_default() += count;
        }
        for (key, count) in &other.answers {
            *self.answers.entry(key.clone()).or_default() += count;
        }
        self.calls += other.calls;
        self.repeated = self.repeated.saturating_add(other.repeated);
        self.usage.add(&other.usage);
        self.cost.add(&other.cost);
        self.duration.merge(&other.duration);
        self.time_to_response.merge(&other.time_to_response);
        self.ttft.merge(&other.ttft);
    }
}
