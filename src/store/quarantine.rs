//! What was cut out of journals is kept, with the reason, for a person to look at.

use std::io::Write;

use serde::{Deserialize, Serialize};

use super::{Error, Identity, WorkDir, disk};

/// Something found wrong in a work directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Which shard, if it is a shard's.
    pub shard: Option<u32>,
    /// The file, relative to the work directory.
    pub file: String,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// How many bytes are affected.
    pub length: u64,
    /// How bad it is.
    pub kind: DamageKind,
    /// What is wrong, in words.
    pub reason: String,
}

impl Damage {
    /// In words, for records that are lost.
    #[must_use]
    pub fn told(&self) -> String {
        let Self { file, offset, reason, length, .. } = self;
        format!(
            "{file} was damaged at byte {offset} ({reason}): {length} bytes are kept in quarantine, \
             their row is done again"
        )
    }
}

/// How bad damage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DamageKind {
    /// What a crash leaves behind: a torn tail, a publication cut off. Any start sees to it.
    Residue,
    /// An index that does not match its journal; any start rebuilds it.
    StaleIndex,
    /// Records in the middle of a journal are lost; their rows are done again.
    LostRecords,
    /// Nothing that rowmill may repair by itself.
    Fatal,
}

/// Keeps damaged bytes under a name that tells where they were, and logs the reason.
pub(super) fn keep(work_dir: &WorkDir, damage: &Damage, bytes: &[u8]) -> Result<(), Error> {
    let dir = &work_dir.quarantine();
    disk::create_dir_within(dir)?;
    let shard = damage.shard.unwrap_or_default();
    let stem = format!("{shard:05}-{:012}", damage.offset);
    // A place may be damaged again after it was repaired.
    let taken = disk::names(dir)?;
    let name = (0..)
        .map(|n| if n == 0 { format!("{stem}.bytes") } else { format!("{stem}.{n}.bytes") })
        .find(|name| !taken.contains(name))
        .unwrap_or_default();
    disk::replace(&dir.join(&name), bytes)?;
    let log = dir.join("log.jsonl");
    let Identity { run, plan, generation, .. } = &work_dir.plan_identity();
    let mut line = serde_json::to_vec(&Kept { kept: &name, run, plan, generation, damage })
        .unwrap_or_default();
    line.push(b'\n');
    let mut file = disk::open_append(&log)?;
    file.write_all(&line).and_then(|()| file.sync_all()).map_err(disk::context("append to", &log))
}

#[derive(Serialize)]
struct Kept<'a> {
    kept: &'a str,
    run: &'a str,
    plan: &'a str,
    generation: &'a u32,
    #[serde(flatten)]
    damage: &'a Damage,
}
