//! Seals: the mark that a shard is complete.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, disk};
use crate::job::{Spending, Usage};

/// What is known of a complete shard without reading its journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// The shard's number.
    pub shard: u32,
    /// Rows with an outcome: all that the plan wants of the shard.
    pub rows: u64,
    /// Rows with an answer.
    pub ok: u64,
    /// Rows without one that may be tried again.
    pub failed: u64,
    /// Rows that cannot be asked about.
    pub invalid: u64,
    /// Calls whose end the journal holds.
    pub calls: u64,
    /// Calls that may have been made before a crash and were made again.
    pub repeated: u64,
    /// What the answers used.
    pub usage: Usage,
    /// What the calls cost. Seals of before it was counted do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Spending>,
    /// The journal's length.
    pub bytes: u64,
    /// The journal's blake3 hash, as hex.
    pub blake3: String,
    /// When the first and the last outcome were known, in milliseconds since the Unix epoch.
    pub at_ms: (u64, u64),
}

/// Reads a seal. One that cannot be read counts as none: the journal tells all it could.
pub(super) fn read(path: &Path) -> Result<Option<Seal>, Error> {
    Ok(disk::read_if_there(path)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

pub(super) fn write(path: &Path, seal: &Seal) -> Result<(), Error> {
    let mut text = serde_json::to_vec_pretty(seal).unwrap_or_default();
    text.push(b'\n');
    disk::replace(path, &text)
}
