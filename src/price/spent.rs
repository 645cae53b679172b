//! What a work directory has cost so far: of every session, and of generations before this one.

use super::Price;
use crate::format::telemetry::{read_attempts, spending};
use crate::job::{Money, Spending, Usage};
use crate::store::{Error, Manifest, Record, WorkDir};

/// What was spent in a work directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// What calls cost that left a record.
    pub cost: Spending,
    /// What calls used of which nothing says what they cost, for they are older than that.
    pub untold: Usage,
    /// Calls that left no record, because a crash took it.
    pub lost: u64,
    /// What the calls of this generation used, and how many said so.
    pub usage: Usage,
    /// How many calls those were.
    pub calls: u64,
    /// The longest answer that is known, in tokens.
    pub longest: u64,
}

/// Looks what was spent in a work directory.
///
/// # Errors
/// When a journal cannot be read.
pub fn spent(dir: &WorkDir, manifest: &Manifest) -> Result<Spent, Error> {
    let mut spent = Spent { lost: manifest.repeated_before(), ..Spent::default() };
    spent.cost.add(&manifest.replaced_cost().unwrap_or_default());
    // What a model says that is not called costs nothing.
    let job = &manifest.job;
    let is_called = |variant: u32| job.is_called(job.model_of(variant as usize));
    for (number, entry) in manifest.open_shards().filter(|(_, it)| is_called(it.variant)) {
        if let Some(seal) = dir.whole_seal(number, entry)? {
            spent.lost = spent.lost.saturating_add(seal.repeated);
            spent.usage.add(&seal.usage);
            spent.calls = spent.calls.saturating_add(seal.calls);
            match &seal.cost {
                Some(cost) => spent.cost.add(cost),
                None => spent.untold.add(&seal.usage),
            }
            continue;
        }
        dir.peek_shard(number, entry, &mut |record| spent.note(record))?;
    }
    Ok(spent)
}

impl Spent {
    fn note(&mut self, record: &Record<'_>) {
        let attempts = match record {
            Record::Outcome(outcome) => outcome.attempts,
            Record::Retry { attempts, .. } => attempts,
            Record::Begin { .. } | Record::Repeated { .. } => {
                self.lost = self.lost.saturating_add(record.repeated());
                return;
            }
        };
        let facts = read_attempts(attempts);
        self.cost.add(&spending(&facts));
        for facts in &facts {
            if let Some(usage) = facts.usage {
                self.usage.add(&usage);
                self.calls += 1;
                self.longest = self.longest.max(usage.output_tokens);
            }
        }
    }

    /// The tokens of an answer, on the average; nothing where there were none.
    #[must_use]
    pub fn mean_answer(&self) -> Option<u64> {
        (self.usage.output_tokens > 0).then(|| self.usage.output_tokens.div_ceil(self.calls.max(1)))
    }

    /// Calls of which nobody knows what they cost.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.cost.unpriced.saturating_add(self.lost)
    }

    /// What calls cost that told what they used.
    #[must_use]
    pub fn told(&self, price: &Price) -> Money {
        self.cost.usd.plus(price.cost(&self.untold))
    }

    /// What the others are to be taken for where more must not be spent than is allowed: what was set
    /// aside for them, where that is kept, so that it is the same in every session; else what the
    /// dearest cost, or else `guess`.
    #[must_use]
    pub fn assumed(&self, guess: Money) -> Money {
        let dearest = self.cost.dearest;
        let each = if dearest > Money::ZERO { dearest } else { guess };
        let others = self.unknown().saturating_sub(self.cost.assumed_calls);
        self.cost.assumed.plus(each.times(others))
    }
}
