//! Which rows that failed before are tried again.

use std::collections::{HashMap, HashSet};

use crate::format::envelope;
use crate::job::{FailureKind, Id, IdHash, OutcomeKind};
use crate::store::{self, Manifest, Outcome, Record, ShardEntry, WorkDir};

/// Which rows that failed before are tried again. Rows that cannot be asked about never are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Retry {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// Those that all of these are true of.
    Only {
        /// The row failed last with one of these kinds; with none here, with any.
        kinds: Vec<FailureKind>,
        /// Its id is one of these; nothing for any id.
        ids: Option<NamedIds>,
        /// Or it is one of these rows: rows with these of the ids take its outcome. See
        /// [`Retry::with_originals`].
        rows: HashMap<u64, HashSet<usize>>,
    },
}

/// Ids that somebody named. What was named may be several ids: a bare `7` is a number, or the text of a string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedIds {
    /// Of which of those that were named, counted from 0, a hash is.
    hashes: HashMap<IdHash, usize>,
    count: usize,
}

impl NamedIds {
    /// Adds one that may be any of these. What is there already is not counted twice.
    pub fn add(&mut self, hashes: &[IdHash]) {
        let known = hashes.iter().find_map(|hash| self.hashes.get(hash).copied());
        let number = known.unwrap_or(self.count);
        self.count += usize::from(known.is_none() && !hashes.is_empty());
        for hash in hashes {
            self.hashes.entry(*hash).or_insert(number);
        }
    }

    /// How many were named.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    fn number(&self, hash: IdHash) -> Option<usize> {
        self.hashes.get(&hash).copied()
    }
}

/// The rows of a shard that are tried again.
#[derive(Debug)]
pub(super) enum Again {
    None,
    All,
    These(HashSet<u64>),
}

impl Again {
    pub(super) fn contains(&self, row: u64) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::These(rows) => rows.contains(&row),
        }
    }

    /// How many they are, of `failed` rows that failed.
    pub(super) fn count(&self, failed: u64) -> u64 {
        match self {
            Self::None => 0,
            Self::All => failed,
            Self::These(rows) => rows.len() as u64,
        }
    }
}

impl Retry {
    /// The same, where rows that are named take the outcomes of others: those are tried again.
    ///
    /// # Errors
    /// When the plan's files cannot be read.
    pub fn with_originals(self, dir: &WorkDir, manifest: &Manifest) -> Result<Self, store::Error> {
        Ok(match self {
            Self::Only { kinds, ids: Some(ids), .. } => {
                let mut rows: HashMap<u64, HashSet<usize>> = HashMap::new();
                for (id, row) in dir.originals_of(manifest, &|id| ids.number(id).is_some())? {
                    rows.entry(row).or_default().extend(ids.number(id));
                }
                Self::Only { kinds, ids: Some(ids), rows }
            }
            other => other,
        })
    }

    /// How many ids are named, and how many of those are of rows that failed and may be tried again; nothing where
    /// none are asked for by id. It wants what [`Retry::with_originals`] gives.
    ///
    /// # Errors
    /// When a journal cannot be read.
    pub fn named(
        &self,
        dir: &WorkDir,
        manifest: &Manifest,
    ) -> Result<Option<(usize, usize)>, store::Error> {
        let Self::Only { ids: Some(ids), rows, .. } = self else { return Ok(None) };
        let mut found = HashSet::new();
        for (number, entry) in manifest.open_shards() {
            if dir.whole_seal(number, entry)?.is_some_and(|seal| seal.failed == 0) {
                continue;
            }
            let mut of_rows: HashMap<u64, usize> = HashMap::new();
            let known = dir.peek_shard(number, entry, &mut |record| {
                let Record::Outcome(outcome) = record else { return };
                of_rows.extend(named_by(ids, outcome).map(|name| (outcome.row, name)));
            })?;
            let has_failed = |row: u64| known.outcome(row) == Some(OutcomeKind::Failed);
            found
                .extend(of_rows.iter().filter(|(row, _)| has_failed(**row)).map(|(_, name)| *name));
            // Rows are numbered through: those of other shards have no outcome in this one.
            let of_others = rows.iter().filter(|(row, _)| has_failed(**row));
            found.extend(of_others.flat_map(|(_, names)| names));
        }
        Ok(Some((ids.count(), found.len())))
    }

    /// The rows of a shard that are tried again.
    ///
    /// # Errors
    /// When the shard's journal cannot be read.
    pub(super) fn among(
        &self,
        dir: &WorkDir,
        number: u32,
        entry: &ShardEntry,
    ) -> Result<Again, store::Error> {
        let Self::Only { .. } = self else {
            return Ok(if *self == Self::All { Again::All } else { Again::None });
        };
        let mut rows = HashSet::new();
        let known = dir.peek_shard(number, entry, &mut |record| {
            let Record::Outcome(outcome) = record else { return };
            // The last failure of a row is the one that counts.
            if self.matches(outcome) {
                rows.insert(outcome.row);
            } else {
                rows.remove(&outcome.row);
            }
        })?;
        rows.retain(|row| known.outcome(*row) == Some(OutcomeKind::Failed));
        Ok(Again::These(rows))
    }

    fn matches(&self, outcome: &Outcome<'_>) -> bool {
        let Self::Only { kinds, ids, rows } = self else { return *self == Self::All };
        let is_of_kind = || {
            let class = envelope::failure_class(outcome.envelope);
            class.is_some_and(|class| kinds.iter().any(|kind| kind.class() == class))
        };
        let is_named =
            |ids: &NamedIds| rows.contains_key(&outcome.row) || named_by(ids, outcome).is_some();
        (kinds.is_empty() || is_of_kind()) && ids.as_ref().is_none_or(is_named)
    }
}

/// Which of those that were named the id of an outcome's row is.
fn named_by(ids: &NamedIds, outcome: &Outcome<'_>) -> Option<usize> {
    let id = std::str::from_utf8(outcome.id()).ok()?;
    ids.number(Id::hash_of(id).ok()?)
}
