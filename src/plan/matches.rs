//! Which rows of two generations are the same: by their ids, or by their numbers and texts.

use std::collections::HashSet;
use std::path::PathBuf;

use super::Error;
use super::carry::Side;
use super::drift::RowChanges;
use super::indexes::{Spread, next_entry, walk};
use crate::job::{Id, Identity};
use crate::store::{Held, IdEntry, IdIndex, IdIndexWriter, RowHashes, ShardReader, WorkDir};

/// A row of both generations.
pub(super) struct Match {
    pub(super) old_row: u64,
    pub(super) new_row: u64,
    /// Whether the row's text is known to be as it was.
    pub(super) is_same_text: bool,
}

/// The rows of both generations, in the order of their old rows.
pub(super) enum Matches {
    /// By id: an index whose keys are old rows.
    ById {
        index: Option<IdIndex>,
        path: PathBuf,
        spread: Spread,
        next: Option<IdEntry>,
        is_old_whole: bool,
    },
    /// By row number: those up to the last are in both.
    ByRow { texts: Texts, next: u64, last: u64 },
}

impl Matches {
    pub(super) fn find(
        old: &Side<'_, WorkDir>,
        new: &Side<'_, Held>,
    ) -> Result<(Self, RowChanges), Error> {
        match new.manifest.job.identity() {
            Identity::RowNumber => Self::by_row(old, new),
            Identity::Field(_) | Identity::Hash => Self::by_id(old, new),
        }
    }

    fn by_row(old: &Side<'_, WorkDir>, new: &Side<'_, Held>) -> Result<(Self, RowChanges), Error> {
        let (before, now) = (old.manifest.source.rows, new.manifest.source.rows);
        let last = before.min(now);
        let mut rows = RowChanges { new: now - last, gone: before - last, ..RowChanges::default() };
        let mut texts = Texts::open(old, new)?;
        for row in 1..=last {
            match texts.is_same(row)? {
                true => rows.same += 1,
                false => rows.changed += 1,
            }
        }
        Ok((Self::ByRow { texts, next: 1, last }, rows))
    }

    fn by_id(old: &Side<'_, WorkDir>, new: &Side<'_, Held>) -> Result<(Self, RowChanges), Error> {
        let path = new.dir.ids().with_file_name("ids.part-places");
        let spread = Spread::new(old.manifest.source.rows);
        let mut writer = IdIndexWriter::new(&path);
        let is_old_whole = IdIndex::is_whole(&old.dir.ids())?;
        let known = if is_old_whole { old.dir.ids() } else { index_journals(old, new.dir)? };
        let mut rows = RowChanges::default();
        walk(IdIndex::open(&known)?, IdIndex::open(&new.dir.ids())?, &mut |a, b| {
            let (Some(a), Some(b)) = (a, b) else {
                *(if b.is_some() { &mut rows.new } else { &mut rows.gone }) += 1;
                return Ok(());
            };
            let is_same = a.content == b.content;
            match (is_same, a.row == b.row) {
                (true, true) => rows.same += 1,
                (true, false) => rows.moved += 1,
                (false, _) => rows.changed += 1,
            }
            let content = u64::from(is_same);
            Ok(writer.add(&[IdEntry { id: spread.key(a.row), row: b.row, content }])?)
        })?;
        writer.finish::<Error>(&mut |_| Ok(()))?;
        if !is_old_whole {
            new.dir.discard_ids(&known)?;
        }
        let mut index = IdIndex::open(&path)?;
        let next = next_entry(&mut index)?;
        Ok((Self::ById { index, path, spread, next, is_old_whole }, rows))
    }

    /// Whether texts could be compared.
    pub(super) fn knows_texts(&self) -> bool {
        match self {
            Self::ById { is_old_whole, .. } => *is_old_whole,
            Self::ByRow { texts, .. } => texts.0.is_some(),
        }
    }

    /// Those whose old row is below `end`, as far as they were not given before.
    pub(super) fn next_until(&mut self, end: u64) -> Result<Vec<Match>, Error> {
        let mut found = Vec::new();
        match self {
            Self::ByRow { texts, next, last } => {
                while *next < end && *next <= *last {
                    let is_same_text = texts.is_same(*next)?;
                    found.push(Match { old_row: *next, new_row: *next, is_same_text });
                    *next += 1;
                }
            }
            Self::ById { index, spread, next, .. } => {
                while let Some(entry) = *next
                    && spread.row(entry.id) < end
                {
                    let old_row = spread.row(entry.id);
                    let is_same_text = entry.content == 1;
                    found.push(Match { old_row, new_row: entry.row, is_same_text });
                    *next = next_entry(index)?;
                }
            }
        }
        Ok(found)
    }

    pub(super) fn discard(self, dir: &Held) -> Result<(), Error> {
        match self {
            Self::ById { path, .. } => Ok(dir.discard_ids(&path)?),
            Self::ByRow { .. } => Ok(()),
        }
    }
}

/// The hashes of the texts of two generations' rows, where both are there.
pub(super) struct Texts(Option<(RowHashes, RowHashes)>);

impl Texts {
    fn open(old: &Side<'_, WorkDir>, new: &Side<'_, Held>) -> Result<Self, Error> {
        let (old, new) = (old.dir.contents(), new.dir.contents());
        Ok(Self(RowHashes::open(&old)?.zip(RowHashes::open(&new)?)))
    }

    /// Whether the row of this number is known to have the same text in both.
    fn is_same(&mut self, row: u64) -> Result<bool, Error> {
        let Some((old, new)) = &mut self.0 else { return Ok(false) };
        let text = old.get(row)?;
        Ok(text.is_some() && text == new.get(row)?)
    }
}

/// Makes an index of the ids in a generation's journals: a power cut may take the one that was made
/// when it was planned, but no answer. Of rows that have no outcome it knows nothing.
fn index_journals(old: &Side<'_, WorkDir>, dir: &Held) -> Result<PathBuf, Error> {
    let path = dir.ids().with_file_name("ids.part-answers");
    let mut writer = IdIndexWriter::new(&path);
    let mut reader = ShardReader::default();
    // The rows of a range are in the journals of all variants.
    let mut seen = HashSet::new();
    for (number, entry) in old.manifest.open_shards() {
        if entry.variant == 0 {
            seen.clear();
        }
        let Some(read) = reader.read_what_is_there(old.dir, number, entry)? else { continue };
        read.for_each_row::<Error>(&mut |records| {
            let row = records.outcome.row;
            let id =
                std::str::from_utf8(records.outcome.id()).ok().and_then(|id| Id::parse(id).ok());
            let id = id.filter(|_| seen.insert(row));
            let entry = id.map(|id| IdEntry { id: id.hash(), row, content: 0 });
            Ok(writer.add(entry.as_slice())?)
        })?;
    }
    writer.finish::<Error>(&mut |_| Ok(()))?;
    Ok(path)
}
