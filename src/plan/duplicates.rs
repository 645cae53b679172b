//! Rows that have the id of an earlier row: refused, left out, or given ids of their own.

use std::collections::{BTreeMap, BTreeSet};

use super::Error;
use super::flaws::{BAD_LINES, BadLine, file_of, named};
use super::scan::Scanned;
use crate::input::{Sources, identify, read_shard};
use crate::job::{Id, IdHash, JobSpec, OnDuplicate};
use crate::store::{self, Duplicate, Held, IdEntry, IdIndex, IdIndexWriter, Rename, ShardEntry};

/// How many pairs of rows an error shows.
const SHOWN: usize = 10;

/// What became of duplicates.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// The rows that are not called for it, each with the first row of its id.
    pub(super) uncalled: BTreeMap<u64, u64>,
    /// How many of them are left out.
    pub(super) skipped: u64,
    /// How many rows are duplicates.
    pub(super) count: u64,
    /// The first of those.
    pub(super) first: u64,
    /// The first lines of a request file that are refused for it, by their rows.
    pub(super) refused: Vec<(u64, BadLine)>,
}

/// Sorts the ids into their index and does with duplicates what the job says.
pub(super) fn settle(
    dir: &Held,
    sources: &Sources,
    job: &JobSpec,
    scanned: &mut Scanned,
) -> Result<Settled, Error> {
    let Some(ids) = scanned.ids.take() else { return Ok(Settled::default()) };
    let is_refused = job.on_duplicate == OnDuplicate::Error && !job.skip_bad_lines;
    let shown = if job.dialect.is_rows() { SHOWN } else { BAD_LINES };
    // The rows, each with the first row of its id. When they are refused, only the first count.
    let mut found: BTreeMap<u64, u64> = BTreeMap::new();
    let mut count = 0;
    ids.finish::<store::Error>(&mut |Duplicate { entries }| {
        for entry in &entries[1..] {
            count += 1;
            found.insert(entry.row, entries[0].row);
            if is_refused && found.len() > shown {
                found.pop_last();
            }
        }
        Ok(())
    })?;
    let Some(first) = found.keys().next().copied() else { return Ok(Settled::default()) };
    match job.on_duplicate {
        OnDuplicate::Error if job.skip_bad_lines => {
            for_each_range(job, &found, &mut scanned.shards, |number, shard, rows| {
                let fails = |row: &u64| Rename { fails: true, ..Rename::left_out(*row) };
                let renames: Vec<_> = rows.iter().map(fails).collect();
                shard.duplicates = Some(dir.write_duplicates(number, &renames)?);
                Ok(())
            })?;
            Ok(Settled { uncalled: found, count, first, ..Settled::default() })
        }
        OnDuplicate::Error if !job.dialect.is_rows() => {
            let refused = bad_lines(sources, job, &mut scanned.shards, &found)?;
            Ok(Settled { count, first, refused, ..Settled::default() })
        }
        OnDuplicate::Error => Err(refusal(sources, job, &scanned.shards, &found, count)),
        OnDuplicate::First => {
            for_each_range(job, &found, &mut scanned.shards, |number, shard, rows| {
                let renames: Vec<_> = rows.iter().map(|row| Rename::left_out(*row)).collect();
                shard.wanted -= renames.len() as u64;
                shard.duplicates = Some(dir.write_duplicates(number, &renames)?);
                Ok(())
            })?;
            let skipped = found.len() as u64;
            Ok(Settled { uncalled: found, skipped, count, first, ..Settled::default() })
        }
        OnDuplicate::Suffix => {
            let names = suffixes(dir, sources, job, &mut scanned.shards, &found)?;
            for_each_range(job, &found, &mut scanned.shards, |number, shard, rows| {
                let name = |row: &u64| names.get(row).map(|(name, _)| name.clone());
                let rename = |row: &u64| Rename { id: name(row), ..Rename::left_out(*row) };
                let renames: Vec<_> = rows.iter().map(rename).collect();
                shard.duplicates = Some(dir.write_duplicates(number, &renames)?);
                Ok(())
            })?;
            Ok(Settled { count, first, ..Settled::default() })
        }
    }
}

/// Visits each range that holds some of the rows, with the number of its first shard.
fn for_each_range(
    job: &JobSpec,
    found: &BTreeMap<u64, u64>,
    ranges: &mut [ShardEntry],
    mut visit: impl FnMut(u32, &mut ShardEntry, &[u64]) -> Result<(), Error>,
) -> Result<(), Error> {
    for (number, shard) in (0_u32..).step_by(job.variants()).zip(ranges) {
        let range = shard.first_row..shard.first_row + shard.rows;
        let rows: Vec<u64> = found.range(range).map(|(row, _)| *row).collect();
        if !rows.is_empty() {
            visit(number, shard, &rows)?;
        }
    }
    Ok(())
}

fn refusal(
    sources: &Sources,
    job: &JobSpec,
    shards: &[ShardEntry],
    found: &BTreeMap<u64, u64>,
    count: u64,
) -> Error {
    let mut shown = Vec::new();
    let mut shards = shards.to_vec();
    let result = for_each_range(job, found, &mut shards, |_, shard, rows| {
        for (row, id) in ids_of(sources, job, shard, rows)? {
            let first = shard.own_row(found.get(&row).copied().unwrap_or_default());
            let second = named(sources, std::slice::from_ref(shard), row);
            let second = second.trim_start_matches("row ");
            shown.push(format!("rows {first} and {second} have {id}"));
        }
        Ok(())
    });
    match result {
        Ok(()) => Error::Duplicates { count, shown },
        Err(error) => error,
    }
}

/// What is wrong with the lines of rows that have the id of an earlier row.
fn bad_lines(
    sources: &Sources,
    job: &JobSpec,
    shards: &mut [ShardEntry],
    found: &BTreeMap<u64, u64>,
) -> Result<Vec<(u64, BadLine)>, Error> {
    let both = found.iter().flat_map(|(row, first)| [(*row, 0), (*first, 0)]).collect();
    let (mut lines, mut ids) = (BTreeMap::new(), BTreeMap::new());
    for_each_range(job, &both, shards, |_, shard, rows| {
        let read = read_shard(sources, shard, job.max_row_bytes)?;
        for row in rows {
            let index = usize::try_from(row - shard.first_row).unwrap_or(usize::MAX);
            lines.insert(*row, (read.line(index), file_of(sources.of(shard))));
        }
        ids.extend(ids_of(sources, job, shard, rows)?);
        Ok(())
    })?;
    let field = if job.dialect.is_request() { "custom_id" } else { "id" };
    let bad = found.iter().filter_map(|(row, first)| {
        let (id, (line, file), (first, _)) = (ids.get(row)?, lines.get(row)?, lines.get(first)?);
        let reason = format!("{field} {id} is that of line {first} already");
        Some((*row, BadLine { line: *line, file: file.clone(), reason }))
    });
    Ok(bad.collect())
}

/// The ids of some rows of a shard, read again.
fn ids_of(
    sources: &Sources,
    job: &JobSpec,
    shard: &ShardEntry,
    wanted: &[u64],
) -> Result<Vec<(u64, Id)>, Error> {
    let rows = read_shard(sources, shard, job.max_row_bytes)?;
    let mut ids = Vec::new();
    for row in wanted {
        let index = usize::try_from(row - shard.first_row).unwrap_or(usize::MAX);
        let id = rows.text(index).and_then(|text| {
            let object = rows.object(index, &text)?;
            identify(&object, job.identity(), shard.own_row(*row))
        });
        ids.extend(id.ok().map(|id| (*row, id)));
    }
    Ok(ids)
}

/// An id of its own for each row: the shared one with `-2`, `-3`, … behind it, in the order of the
/// rows, leaving out those that other rows of its input have. Each with its hash in the index, which is
/// written again with them.
fn suffixes(
    dir: &Held,
    sources: &Sources,
    job: &JobSpec,
    shards: &mut [ShardEntry],
    found: &BTreeMap<u64, u64>,
) -> Result<BTreeMap<u64, (String, IdHash)>, Error> {
    let mut texts: Vec<(u64, IdHash, String)> = Vec::new();
    for_each_range(job, found, shards, |_, shard, rows| {
        let ids = ids_of(sources, job, shard, rows)?;
        let salt = sources.of(shard).salt();
        texts.extend(ids.into_iter().map(|(row, id)| (row, salt, id.text().into_owned())));
        Ok(())
    })?;
    let mut refused = BTreeSet::new();
    let names = loop {
        let names = propose(&texts, &refused);
        let hashes = names.values().map(|(_, hash)| *hash).collect();
        let taken = taken(dir, &hashes)?;
        if taken.is_empty() {
            break names;
        }
        refused.extend(taken);
    };
    let renamed = |entry: IdEntry| match names.get(&entry.row) {
        Some((_, hash)) => IdEntry { id: *hash, ..entry },
        None => entry,
    };
    rewrite_index(dir, &renamed)?;
    Ok(names)
}

/// The lowest suffix for each row that neither an earlier row is given nor is refused.
fn propose(
    texts: &[(u64, IdHash, String)],
    refused: &BTreeSet<IdHash>,
) -> BTreeMap<u64, (String, IdHash)> {
    let mut last: BTreeMap<(IdHash, &str), u32> = BTreeMap::new();
    let mut given = BTreeSet::new();
    let mut names = BTreeMap::new();
    for (row, salt, text) in texts {
        let nth = last.entry((*salt, text)).or_insert(1);
        let name = loop {
            *nth += 1;
            let name = format!("{text}-{nth}");
            let hash = Id::from_text(&name).hash() ^ salt;
            if !refused.contains(&hash) && given.insert(hash) {
                break (name, hash);
            }
        };
        names.insert(*row, name);
    }
    names
}

/// Which of these ids rows have.
fn taken(dir: &Held, wanted: &BTreeSet<IdHash>) -> Result<BTreeSet<IdHash>, Error> {
    let mut taken = BTreeSet::new();
    if let Some(mut index) = IdIndex::open(&dir.ids())? {
        while let Some(entry) = index.next_entry()? {
            if wanted.contains(&entry.id) {
                taken.insert(entry.id);
            }
        }
    }
    Ok(taken)
}

fn rewrite_index(dir: &Held, change: &dyn Fn(IdEntry) -> IdEntry) -> Result<(), Error> {
    let Some(mut index) = IdIndex::open(&dir.ids())? else { return Ok(()) };
    let new = dir.ids().with_file_name("ids.part-new");
    let mut writer = IdIndexWriter::new(&new).of_plan(dir.tag());
    while let Some(entry) = index.next_entry()? {
        writer.add(&[change(entry)])?;
    }
    writer.finish::<Error>(&mut |_| Ok(()))?;
    dir.replace_ids(&new)?;
    Ok(())
}
