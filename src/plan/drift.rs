//! Whether a command still is what was planned, and if not, in what it differs.

use std::fmt;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::carry::walk;
use super::{Error, Options, scan};
use crate::input::{self, Source};
use crate::job::{Difference, JobSpec};
use crate::prompt::Template;
use crate::shutdown::Shutdown;
use crate::store::{Duplicate, Held, IdIndex, Manifest, ShardEntry, spawn};
use crate::telemetry::Silent;

/// In what a command differs from the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// Parts of the job, old and new.
    pub parts: Vec<Difference>,
    /// The input.
    pub input: Option<InputDrift>,
}

/// In what an input differs from the one that was planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputDrift {
    /// It has another format, or other columns.
    Format,
    /// It begins with all that was planned, and has more.
    Appended {
        /// How many bytes more.
        bytes: u64,
    },
    /// Something in it is different. Without ids of their own, rows cannot be told apart.
    Changed {
        /// The first row of the first shard that differs.
        first_row: u64,
    },
    /// Its rows, compared by id.
    Rows {
        /// Rows that are as they were, at the same place.
        same: u64,
        /// Rows that are as they were, at another place.
        moved: u64,
        /// Rows whose content is another.
        changed: u64,
        /// Rows whose id is new.
        new: u64,
        /// Ids that no row has any more.
        gone: u64,
    },
}

impl Drift {
    /// Whether rows are told apart by something else, so that nothing can be kept of them.
    #[must_use]
    pub fn is_of_identity(&self) -> bool {
        self.parts.iter().any(|part| part.part == "id-field")
    }
}

impl fmt::Display for InputDrift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format => f.write_str("input: another format or other columns"),
            Self::Appended { bytes } => {
                write!(f, "input: {bytes} bytes were appended, the rest is as it was")
            }
            Self::Changed { first_row } => {
                write!(f, "input: changed, first somewhere from row {first_row} on")
            }
            Self::Rows { same, moved, changed, new, gone } => {
                write!(
                    f,
                    "input: {changed} rows changed, {new} new, {gone} gone, {} as they were",
                    same + moved
                )?;
                match moved {
                    0 => Ok(()),
                    _ => write!(f, " ({moved} of them at another place)"),
                }
            }
        }
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parts.iter().map(|d| format!("{}: {} → {}", d.part, d.old, d.new));
        let lines: Vec<_> = parts.chain(self.input.iter().map(ToString::to_string)).collect();
        f.write_str(&lines.join("; "))
    }
}

/// Compares a job and an input with a plan. Nothing when they are the same.
///
/// # Errors
/// When the input or the work directory cannot be read.
pub fn compare(
    dir: &Held,
    manifest: &Manifest,
    job: &JobSpec,
    source: &Source,
    options: &Options,
    shutdown: &Shutdown,
) -> Result<Option<Drift>, Error> {
    let parts = manifest.job.differences(job);
    let input = compare_input(dir, manifest, job, source, options, shutdown)?;
    let drift = Drift { parts, input };
    Ok(Some(drift).filter(|drift| !drift.parts.is_empty() || drift.input.is_some()))
}

fn compare_input(
    dir: &Held,
    manifest: &Manifest,
    job: &JobSpec,
    source: &Source,
    options: &Options,
    shutdown: &Shutdown,
) -> Result<Option<InputDrift>, Error> {
    let planned = &manifest.source;
    if source.format_name() != planned.format || source.columns() != planned.columns {
        return Ok(Some(InputDrift::Format));
    }
    let changed = if source.data_offset == planned.data_offset {
        first_changed(source, &manifest.shards, options.threads)?
    } else {
        Some(1)
    };
    let drift = match changed {
        None if source.length == planned.bytes => return Ok(None),
        None => InputDrift::Appended { bytes: source.length - planned.bytes },
        Some(first_row) => InputDrift::Changed { first_row },
    };
    let by_id = job.id_field.is_some() && job.id_field == manifest.job.id_field;
    // One that is not whole cannot tell in what the input differs, only that it does.
    let is_told = by_id && IdIndex::is_whole(&dir.ids())?;
    match IdIndex::open(&dir.ids()) {
        Ok(Some(old)) if is_told => {
            let new = dir.ids().with_file_name("ids.part-new");
            let template = Template::parse(&job.prompt);
            let scan =
                scan::Scan { source, job, template: &template, options, prompts: None, shutdown };
            let scanned = scan.run(&new, &mut Silent)?;
            if let Some(ids) = scanned.ids {
                ids.finish::<Error>(&mut |_: Duplicate<'_>| Ok(()))?;
            }
            let rows = compare_rows(old, IdIndex::open(&new)?);
            dir.discard_ids(&new)?;
            rows.map(Some)
        }
        _ => Ok(Some(drift)),
    }
}

/// The first row of the first shard whose bytes are not what was planned.
fn first_changed(
    source: &Source,
    shards: &[ShardEntry],
    threads: usize,
) -> Result<Option<u64>, Error> {
    let next = AtomicUsize::new(0);
    let changed = AtomicUsize::new(usize::MAX);
    let check = || -> Result<(), Error> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(shard) = shards.get(number) else { return Ok(()) };
            if number > changed.load(Ordering::Relaxed) {
                return Ok(());
            }
            if !is_unchanged(source, shard)? {
                changed.fetch_min(number, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = (0..threads.max(1)).map(|_| Ok(spawn(scope, "compare", check)?));
        threads.collect::<Result<Vec<_>, Error>>()?.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    Ok(shards.get(changed.into_inner()).map(|shard| shard.first_row))
}

fn is_unchanged(source: &Source, shard: &ShardEntry) -> Result<bool, Error> {
    if shard.offset + shard.bytes > source.length {
        return Ok(false);
    }
    let unreadable = |error| input::Error::Unreadable { path: source.path.clone(), source: error };
    let mut range = source.range(shard.offset, shard.bytes).map_err(unreadable)?;
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; 1 << 18];
    loop {
        match range.read(&mut block).map_err(unreadable)? {
            0 => break,
            count => hasher.update(&block[..count]),
        };
    }
    Ok(hasher.finalize().to_hex().as_str() == shard.blake3)
}

/// Compares the rows of two indexes.
fn compare_rows(old: IdIndex, new: Option<IdIndex>) -> Result<InputDrift, Error> {
    if new.is_none() {
        return Ok(InputDrift::Changed { first_row: 1 });
    }
    let (mut same, mut moved, mut changed, mut added, mut gone) = (0, 0, 0, 0, 0);
    walk(Some(old), new, &mut |old, new| {
        match (old, new) {
            (Some(old), Some(new)) => match (old.content == new.content, old.row == new.row) {
                (true, true) => same += 1,
                (true, false) => moved += 1,
                (false, _) => changed += 1,
            },
            (Some(_), None) => gone += 1,
            (None, _) => added += 1,
        }
        Ok(())
    })?;
    Ok(InputDrift::Rows { same, moved, changed, new: added, gone })
}
