//! What the inputs of a job were when its plan was made.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Manifest, ShardEntry};
use crate::job::{IdHash, input_salt};

/// What an input was when the plan was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcePrint {
    /// What tells it from the job's other inputs, and what its outputs are called; nothing in a job
    /// over one file, which has its outputs where the command says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it was: an absolute path, or nothing when it was spooled into the work directory.
    pub path: Option<String>,
    /// The URL that it was fetched from, without what is secret in it; it was spooled then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its format: `jsonl` or `csv`.
    pub format: String,
    /// The names of its columns, for CSV.
    pub columns: Option<Vec<String>>,
    /// What stands between its fields, for CSV where that is no comma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separator: Option<char>,
    /// Its length.
    pub bytes: u64,
    /// Its blake3 hash, as hex; what `b3sum` prints.
    pub blake3: String,
    /// Its rows.
    pub rows: u64,
    /// Where the first row may begin: behind a byte order mark or a header.
    pub data_offset: u64,
}

impl SourcePrint {
    /// What the hashes of its rows' ids are mixed with.
    #[must_use]
    pub fn salt(&self) -> IdHash {
        self.name.as_deref().map_or(0, input_salt)
    }
}

/// One input is spelled as itself, several as a list of them.
pub(super) fn serialize<S: Serializer>(
    sources: &[SourcePrint],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match sources {
        [one] => one.serialize(serializer),
        all => all.serialize(serializer),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<SourcePrint>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Spelled {
        One(Box<SourcePrint>),
        All(Vec<SourcePrint>),
    }
    Ok(match Spelled::deserialize(deserializer)? {
        Spelled::One(one) => vec![*one],
        Spelled::All(all) => all,
    })
}

/// Where the rows of a walk over the shards are.
pub(super) struct Walk<'m> {
    sources: &'m [SourcePrint],
    source: usize,
    /// Where the next shard begins, in bytes of its input and as a row of all.
    pub(super) offset: u64,
    pub(super) row: u64,
    before: u64,
}

impl<'m> Walk<'m> {
    /// Begins at the first row of the first input. Nothing where there is none, or where their names
    /// do not tell them apart, or would have outputs stand elsewhere.
    pub(super) fn new(sources: &'m [SourcePrint]) -> Option<Self> {
        let names: BTreeSet<_> = sources.iter().map(|source| &source.name).collect();
        let is_plain = |name: &String| Path::new(name).file_name() == Some(name.as_ref());
        let are_plain = names.iter().copied().flatten().all(is_plain);
        if names.len() != sources.len() || !are_plain || names.len() > 1 && names.contains(&None) {
            return None;
        }
        let offset = sources.first()?.data_offset;
        Some(Self { sources, source: 0, offset, row: 1, before: 0 })
    }

    /// Goes on to the input of a shard. Says whether those before it were covered, and whether the
    /// shard says of it what is so.
    pub(super) fn enter(&mut self, shard: &ShardEntry) -> bool {
        let source = shard.source as usize;
        while self.source < source.min(self.sources.len() - 1) {
            if !self.is_covered() {
                return false;
            }
            self.source += 1;
            (self.offset, self.before) = (self.sources[self.source].data_offset, self.row - 1);
        }
        (source, shard.rows_before) == (self.source, self.before)
    }

    /// Whether all inputs were covered.
    pub(super) fn ends(mut self) -> bool {
        while self.source + 1 < self.sources.len() && self.is_covered() {
            self.source += 1;
            (self.offset, self.before) = (self.sources[self.source].data_offset, self.row - 1);
        }
        self.source + 1 == self.sources.len() && self.is_covered()
    }

    fn is_covered(&self) -> bool {
        let source = &self.sources[self.source];
        self.offset == source.bytes && self.row - 1 - self.before == source.rows
    }
}

impl Manifest {
    /// Whether each input has outputs of its own, named after it.
    #[must_use]
    pub fn is_split(&self) -> bool {
        self.sources.iter().any(|source| source.name.is_some())
    }

    /// The rows of all inputs.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.sources.iter().fold(0, |sum, source| sum.saturating_add(source.rows))
    }

    /// The input, or the first of several.
    #[must_use]
    pub fn source(&self) -> &SourcePrint {
        &self.sources[0]
    }

    /// The input that a shard is of.
    #[must_use]
    pub fn source_of(&self, shard: &ShardEntry) -> &SourcePrint {
        &self.sources[shard.source as usize]
    }

    /// The number of a row in its own input.
    #[must_use]
    pub fn own_row(&self, row: u64) -> u64 {
        if self.sources.len() == 1 {
            return row;
        }
        self.shards.get(self.shards_with(row)).map_or(row, |shard| shard.own_row(row))
    }
}

impl ShardEntry {
    /// The number in its own input of one of its rows.
    #[must_use]
    pub fn own_row(&self, row: u64) -> u64 {
        row.saturating_sub(self.rows_before)
    }
}
