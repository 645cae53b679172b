//! Which rows that failed before are tried again.

use std::collections::HashSet;

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
        ids: Option<HashSet<IdHash>>,
        /// Or it is one of these rows: a row with one of the ids takes its outcome. See
        /// [`Retry::with_originals`].
        rows: HashSet<u64>,
    },
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
                let originals = dir.originals_of(manifest, &|id| ids.contains(&id))?;
                Self::Only { kinds, ids: Some(ids), rows: originals.into_iter().collect() }
            }
            other => other,
        })
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
        let is_named = |ids: &HashSet<IdHash>| {
            let id = std::str::from_utf8(outcome.id()).ok().and_then(|id| Id::parse(id).ok());
            rows.contains(&outcome.row) || id.is_some_and(|id| ids.contains(&id.hash()))
        };
        (kinds.is_empty() || is_of_kind()) && ids.as_ref().is_none_or(is_named)
    }
}
