//! Seals: the mark that a shard is complete.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, Identity, ShardEntry, WorkDir, disk};
use crate::job::{Spending, Usage};

/// What is known of a complete shard without reading its journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// The run it belongs to.
    pub run: String,
    /// The plan it belongs to.
    pub plan: String,
    /// The plan's generation.
    pub generation: u32,
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

impl Seal {
    /// What it belongs to, by its own words.
    pub(super) fn identity(&self) -> Identity {
        let Self { run, plan, generation, shard, .. } = self;
        let (run, plan, shard) = (run.clone(), plan.clone(), Some(*shard));
        Identity { run, plan, generation: *generation, shard }
    }
}

impl WorkDir {
    /// A shard's seal; nothing when it is open, or its journal has not the sealed length.
    ///
    /// # Errors
    /// When the files cannot be read, or [`Error::Misplaced`] when the seal is of another plan or shard.
    pub fn seal(&self, shard: u32) -> Result<Option<Seal>, Error> {
        let dir = self.shard_dir(shard);
        let path = dir.join("seal.json");
        let Some(seal) = read(&path)? else { return Ok(None) };
        self.identity(shard).assert_is(&seal.identity(), &path)?;
        let length = std::fs::symlink_metadata(dir.join("journal")).map(|meta| meta.len());
        Ok(Some(seal).filter(|seal| length.ok() == Some(seal.bytes)))
    }

    /// The seal of a shard all of whose rows are in it; nothing where any has no outcome yet.
    ///
    /// # Errors
    /// As [`WorkDir::seal`].
    pub fn whole_seal(&self, shard: u32, entry: &ShardEntry) -> Result<Option<Seal>, Error> {
        Ok(self.seal(shard)?.filter(|seal| seal.rows == entry.wanted))
    }
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
