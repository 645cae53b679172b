//! Whether a command still is what was planned, and if not, in what it differs.

use std::collections::HashSet;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Error;
use crate::input::{self, Source, Sources};
use crate::job::{Difference, JobSpec};
use crate::store::{Manifest, ShardEntry, spawn};

/// In what a command differs from the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// Parts of the job, old and new.
    pub parts: Vec<Difference>,
    /// The input, or the first of several that differs.
    pub input: Option<InputDrift>,
    /// Which of several inputs that is.
    pub file: Option<PathBuf>,
    /// Whether rows that only had numbers now have the ids of a field. Their numbers still tell which
    /// answer is whose.
    pub gains_ids: bool,
    /// What an update would come to, once somebody has looked; see [`super::foresee`].
    pub outlook: Option<Outlook>,
}

/// In what an input differs from the one that was planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputDrift {
    /// There was one file with an output of its own, and now there are several, or the other way round:
    /// what tells rows apart is another.
    Kind {
        /// Whether there are several now, or a directory.
        are_several: bool,
    },
    /// Other files, by what their outputs are called, or the same in another order.
    Files {
        /// Those that were not there.
        new: Vec<String>,
        /// Those that are not there any more.
        gone: Vec<String>,
    },
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
}

/// The rows of two inputs, compared by id or, where they have none, by number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowChanges {
    /// Rows that are as they were, at the same place.
    pub same: u64,
    /// Rows that are as they were, at another place.
    pub moved: u64,
    /// Rows whose text is another.
    pub changed: u64,
    /// Rows that were not there.
    pub new: u64,
    /// Rows that are not there any more.
    pub gone: u64,
}

/// What an update would come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// The rows of both inputs; nothing where too little is known of the earlier one.
    pub rows: Option<RowChanges>,
    /// Rows that would keep their answers.
    pub kept: u64,
    /// Rows that would be asked about.
    pub asked: u64,
    /// How many answers to a row would be wanted; each counts.
    pub variants: usize,
}

impl Drift {
    /// Whether rows are told apart by something else, so that nothing can be kept of them.
    #[must_use]
    pub fn is_of_identity(&self) -> bool {
        let is_of_ids = |part: &Difference| ["id-field", "id-from"].contains(&&*part.part);
        !self.gains_ids && self.parts.iter().any(is_of_ids)
            || matches!(self.input, Some(InputDrift::Kind { .. }))
    }

    /// Whether nothing differs but that rows now have ids: every answer is kept.
    #[must_use]
    pub fn is_of_new_ids_only(&self) -> bool {
        self.gains_ids && self.parts.len() == 1 && self.input.is_none()
    }
}

impl fmt::Display for InputDrift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind { are_several: true } => {
                f.write_str("input: it was one file, and is several or a directory now")
            }
            Self::Kind { .. } => {
                f.write_str("input: it was several files or a directory, and is one file now")
            }
            Self::Files { new, gone } if new.is_empty() && gone.is_empty() => {
                f.write_str("input: the same files in another order")
            }
            Self::Files { new, gone } => {
                let of = |what: &str, names: &[String]| match names {
                    [] => String::new(),
                    [name] => format!(", {name} is {what}"),
                    [name, rest @ ..] => {
                        format!(", {name} and {} more files are {what}", rest.len())
                    }
                };
                let told = of("new", new) + &of("gone", gone);
                write!(f, "input:{}", told.trim_start_matches(','))
            }
            Self::Format => f.write_str("input: another format or other columns"),
            Self::Appended { bytes } => {
                write!(f, "input: {bytes} bytes were appended, the rest is as it was")
            }
            Self::Changed { first_row } => {
                write!(f, "input: changed, first somewhere from row {first_row} on")
            }
        }
    }
}

impl fmt::Display for RowChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { same, moved, changed, new, gone } = self;
        let as_before = same + moved;
        write!(
            f,
            "input: {changed} rows changed, {new} new, {gone} gone, {as_before} as they were"
        )?;
        match moved {
            0 => Ok(()),
            _ => write!(f, " ({moved} of them at another place)"),
        }
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines: Vec<_> =
            self.parts.iter().map(|d| format!("{}: {} → {}", d.part, d.old, d.new)).collect();
        let rows = self.outlook.and_then(|outlook| outlook.rows);
        match (&self.input, rows) {
            (Some(input @ InputDrift::Files { .. }), Some(rows)) => {
                lines.extend([input.to_string(), rows.to_string()]);
            }
            (Some(InputDrift::Changed { .. } | InputDrift::Appended { .. }), Some(rows)) => {
                lines.push(rows.to_string());
            }
            (Some(input), _) => lines.push(input.to_string()),
            (None, _) => {}
        }
        if let Some(file) = &self.file {
            lines.push(format!("the first file that differs is {}", file.display()));
        }
        match self.outlook {
            None => {}
            Some(Outlook { kept, asked, variants: 0 | 1, .. }) => {
                lines.push(format!("an update would keep {kept} answers and ask about {asked} rows"));
            }
            Some(Outlook { kept, asked, variants, .. }) => lines.push(format!(
                "an update would keep {kept} answers and ask for {asked} ({variants} variants a row)"
            )),
        }
        f.write_str(&lines.join("; "))
    }
}

/// Compares a job and an input with a plan. Nothing when they are the same.
///
/// # Errors
/// When the input cannot be read.
pub fn compare(
    manifest: &Manifest,
    job: &JobSpec,
    sources: &Sources,
    threads: usize,
) -> Result<Option<Drift>, Error> {
    let parts = manifest.job.differences(job);
    let (input, file) = compare_inputs(manifest, sources, threads)?;
    let gains_ids = manifest.job.gains_ids_in(job);
    let drift = Drift { parts, input, file, gains_ids, outlook: None };
    Ok(Some(drift).filter(|drift| !drift.parts.is_empty() || drift.input.is_some()))
}

/// In what the inputs differ, and which of several that is of.
fn compare_inputs(
    manifest: &Manifest,
    sources: &Sources,
    threads: usize,
) -> Result<(Option<InputDrift>, Option<PathBuf>), Error> {
    let then: Vec<_> = manifest.sources.iter().map(|source| source.name.as_ref()).collect();
    let now: Vec<_> = sources.all().iter().map(|source| source.name.as_ref()).collect();
    if then.contains(&None) != now.contains(&None) {
        let are_several = !now.contains(&None);
        return Ok((Some(InputDrift::Kind { are_several }), None));
    }
    if then != now {
        let set: [HashSet<_>; 2] = [then.iter().collect(), now.iter().collect()];
        let of = |names: &[Option<&String>], others: &HashSet<_>| {
            names.iter().filter(|it| !others.contains(it)).copied().flatten().cloned().collect()
        };
        let (new, gone) = (of(&now, &set[0]), of(&then, &set[1]));
        return Ok((Some(InputDrift::Files { new, gone }), None));
    }
    for (number, source) in sources.all().iter().enumerate() {
        if let Some(drift) = compare_input(manifest, (number, source), threads)? {
            let file = source.name.is_some().then(|| source.path.clone());
            return Ok((Some(drift), file));
        }
    }
    Ok((None, None))
}

fn compare_input(
    manifest: &Manifest,
    (number, source): (usize, &Source),
    threads: usize,
) -> Result<Option<InputDrift>, Error> {
    let planned = &manifest.sources[number];
    if source.format_name() != planned.format || source.columns() != planned.columns {
        return Ok(Some(InputDrift::Format));
    }
    let changed = if source.data_offset == planned.data_offset {
        let ranges = manifest.ranges().map(|(_, range)| range);
        let ranges: Vec<_> = ranges.filter(|range| range.source as usize == number).collect();
        first_changed(source, &ranges, threads)?
    } else {
        Some(1)
    };
    Ok(match changed {
        None if source.length == planned.bytes => None,
        None => Some(InputDrift::Appended { bytes: source.length - planned.bytes }),
        Some(first_row) => Some(InputDrift::Changed { first_row }),
    })
}

/// The first row of the first range whose bytes are not what was planned.
fn first_changed(
    source: &Source,
    shards: &[&ShardEntry],
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
    Ok(shards.get(changed.into_inner()).map(|shard| shard.own_row(shard.first_row)))
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
