//! What the plan says of rows whose id an earlier row has: a file in their shard's directory.

use serde::{Deserialize, Serialize};

use super::{Error, Held, ShardEntry, WorkDir, disk};

/// What the plan says of a row whose id an earlier row has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rename {
    /// The row's number.
    pub row: u64,
    /// The id it is given, as text; nothing when the row is left out, or fails.
    pub id: Option<String>,
    /// Whether it fails for it, without a call.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fails: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_false(it: &bool) -> bool {
    !*it
}

impl Rename {
    /// A row that is left out.
    #[must_use]
    pub fn left_out(row: u64) -> Self {
        Self { row, id: None, fails: false }
    }
}

impl WorkDir {
    /// What the plan says of a shard's duplicates, in row order: of a range's, whose first shard has them
    /// for all variants.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the file is not the one that was planned.
    pub fn duplicates(&self, number: u32, entry: &ShardEntry) -> Result<Vec<Rename>, Error> {
        let Some(hash) = &entry.duplicates else { return Ok(Vec::new()) };
        let path = self.shard_dir(number.saturating_sub(entry.variant)).join("duplicates");
        let bytes = disk::read_if_there(&path)?.unwrap_or_default();
        let damaged = |reason: &str| Error::Damaged { path, reason: reason.to_owned() };
        if blake3::hash(&bytes).to_hex().as_str() != hash {
            return Err(damaged("it is not what was planned"));
        }
        parse(&bytes).map_err(|_| damaged("a line is not readable"))
    }
}

pub(super) fn parse(bytes: &[u8]) -> serde_json::Result<Vec<Rename>> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(serde_json::from_slice).collect()
}

pub(super) fn spell(renames: &[Rename]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for rename in renames {
        bytes.extend(serde_json::to_vec(rename).unwrap_or_default());
        bytes.push(b'\n');
    }
    bytes
}

impl Held {
    /// Writes what the plan says of a shard's duplicates, and gives the file's hash for the
    /// manifest.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_duplicates(&self, number: u32, renames: &[Rename]) -> Result<String, Error> {
        let bytes = spell(renames);
        let dir = self.make_shard_dir(number)?;
        disk::replace(&dir.join("duplicates"), &bytes)?;
        Ok(blake3::hash(&bytes).to_hex().to_string())
    }
}
