//! What a file of a work directory belongs to: it says so itself, and whoever reads it compares.
//!
//! A plan draws its identity once, when it is made, and the manifest keeps it: copies of a planned
//! work directory exchange shards, and what is of another job, plan, generation or shard is refused.

use std::fmt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::names::MANIFEST;
use super::record::Record;
use super::workdir::draw_name;
use super::{Error, Manifest, WorkDir, manifest};

/// The place in the world of a file of a work directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The run of the work directory: 32 hex digits.
    pub run: String,
    /// The plan: 32 hex digits, drawn when it was made.
    pub plan: String,
    /// The plan's generation.
    pub generation: u32,
    /// The shard, of a file that is a shard's.
    pub shard: Option<u32>,
}

/// What the checksums of a journal's records begin with, so that no record is taken for one of
/// another journal: the CRC-32C of the first record's JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChecksumSeed(pub(super) u32);

impl Identity {
    /// A shard of the first generation, as tests have it.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn known(shard: u32) -> Self {
        Self { run: "0".repeat(32), plan: "1".repeat(32), generation: 1, shard: Some(shard) }
    }

    /// The first record of the shard's journal.
    pub(super) fn header(&self) -> Record<'_> {
        Record::Begin {
            run: &self.run,
            plan: &self.plan,
            generation: self.generation,
            shard: self.number(),
        }
    }

    /// The shard's number.
    pub(super) fn number(&self) -> u32 {
        self.shard.unwrap_or_default()
    }

    /// What the checksums of the journal's records begin with.
    #[must_use]
    pub fn seed(&self) -> ChecksumSeed {
        ChecksumSeed(self.header().checksum())
    }

    /// A number that stands for it in files of fixed size; never 0.
    pub(super) fn tag(&self) -> u64 {
        let Self { run, plan, generation, shard } = self;
        xxh3_64(format!("{run} {plan} {generation} {shard:?}").as_bytes()).max(1)
    }

    /// Makes sure that a file which says that it is of `theirs` stands where it belongs: at this.
    pub(super) fn assert_is(&self, theirs: &Self, path: &Path) -> Result<(), Error> {
        if self == theirs {
            return Ok(());
        }
        let (theirs, ours) = (Box::new(theirs.clone()), Box::new(self.clone()));
        Err(Error::Misplaced { path: path.to_owned(), theirs, ours })
    }

    /// Makes sure that a journal's first record is of this shard.
    pub(super) fn assert_is_begun(&self, record: &Record<'_>, path: &Path) -> Result<(), Error> {
        let Record::Begin { run, plan, generation, shard } = *record else { return Ok(()) };
        let (run, plan, shard) = (run.to_owned(), plan.to_owned(), Some(shard));
        self.assert_is(&Self { run, plan, generation, shard }, path)
    }

    /// Whether it is of the same plan.
    fn is_of_plan(&self, other: &Self) -> bool {
        (&self.run, &self.plan, self.generation) == (&other.run, &other.plan, other.generation)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |text: &str| text.get(..8).unwrap_or(text).to_owned();
        if let Some(shard) = self.shard {
            write!(f, "shard {shard} of ")?;
        }
        let (run, plan) = (short(&self.run), short(&self.plan));
        write!(f, "plan {plan} (generation {}) of run {run}", self.generation)
    }
}

/// What belongs where, in words.
pub(super) fn told(theirs: &Identity, ours: &Identity) -> String {
    if theirs.is_of_plan(ours)
        && let (Some(theirs), Some(ours)) = (theirs.shard, ours.shard)
    {
        return format!("it belongs to shard {theirs} of this plan, and this is shard {ours}");
    }
    let whose = if theirs.run == ours.run { "another plan of this run" } else { "another run" };
    format!("it belongs to {whose}: {theirs}; this is {ours}")
}

impl WorkDir {
    /// The identity of its plan: 32 hex digits. It is drawn when it is asked for and there is no plan,
    /// for the one that is being made then.
    #[must_use]
    pub fn plan(&self) -> &str {
        self.plans().last().map_or("", String::as_str)
    }

    fn plans(&self) -> &[String] {
        self.plans.get_or_init(|| {
            let planned = manifest::read(&self.base().join(MANIFEST)).ok().flatten();
            planned.map_or_else(|| vec![draw_name()], |manifest| manifest.plans())
        })
    }

    /// Draws the identity of the plan that comes after another's.
    pub(super) fn draw_next_plan(&self, before: &Self) {
        let mut plans = before.plans().to_vec();
        plans.push(draw_name());
        let _ = self.plans.set(plans);
    }

    /// Makes sure that a commit record is of this plan, or of one before it.
    pub(super) fn assert_is_committed(&self, theirs: &Identity, path: &Path) -> Result<(), Error> {
        if !self.base().join(MANIFEST).exists() {
            return Ok(());
        }
        let ours = self.plan_identity();
        let place = theirs.generation.checked_sub(1).and_then(|it| usize::try_from(it).ok());
        let ours = match place.and_then(|place| self.plans().get(place)) {
            Some(plan) => Identity { plan: plan.clone(), generation: theirs.generation, ..ours },
            None => ours,
        };
        ours.assert_is(theirs, path)
    }

    /// What the files of this plan belong to; the plan's identity is drawn if there is none yet.
    pub(super) fn plan_identity(&self) -> Identity {
        Identity {
            run: self.run().to_owned(),
            plan: self.plan().to_owned(),
            generation: self.generation,
            shard: None,
        }
    }

    /// What the files of a shard belong to.
    #[must_use]
    pub fn identity(&self, shard: u32) -> Identity {
        Identity { shard: Some(shard), ..self.plan_identity() }
    }

    /// A number that stands for this plan in its indexes.
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.plan_identity().tag()
    }
}

impl Manifest {
    /// The identities of the plans of all generations up to this one.
    pub(super) fn plans(&self) -> Vec<String> {
        self.earlier.iter().chain([&self.plan]).cloned().collect()
    }

    /// What it belongs to, by its own words.
    pub(super) fn identity(&self) -> Identity {
        Identity {
            run: self.run.clone(),
            plan: self.plan.clone(),
            generation: self.generation,
            shard: None,
        }
    }
}
