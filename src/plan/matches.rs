//! The rows that two generations share, each with the old row whose records tell of it.
//!
//! A join on disk, as all of carrying over: the indexes of ids are walked side by side, and what
//! matches is sorted by the old row. A row that took another row's outcome stands with that row,
//! behind it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;

use super::Error;
use super::carry::Side;
use super::drift::RowChanges;
use super::indexes::{Spread, next_entry, walk};
use super::twins::part;
use crate::job::{Id, Identity};
use crate::store::{
    Asked, Chosen, Held, IdEntry, IdIndex, IdIndexWriter, Manifest, RowHashes, ShardReader,
    SourcePrint, WorkDir,
};

/// A row of both generations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Match {
    /// The old row whose records tell of it: its own, or the one whose outcome it took.
    pub(super) old_row: u64,
    pub(super) new_row: u64,
    /// Whether the row's text is known to be as it was.
    pub(super) is_same_text: bool,
    /// Its own old row, where it took the outcome of another.
    pub(super) twin: Option<u64>,
}

/// The rows of both generations that are asked about, in the order of their old rows; one that took
/// another's outcome behind that one.
pub(super) struct Matches {
    order: Order,
    before: Option<Before>,
    chosen: Chosen,
    // Read and not given yet.
    ahead: Option<Match>,
    knows_texts: bool,
}

/// Where they come from.
enum Order {
    /// An index whose keys are old rows.
    Index { index: Option<IdIndex>, path: PathBuf, spread: Spread },
    /// The rows of the same number, in jobs without ids where no row took another's outcome.
    ByRow { rows: SameNumbers, texts: Texts },
}

/// Which rows of the old plan took the outcome of another.
struct Before {
    of: RowHashes,
    asked: RowHashes,
    since: RowHashes,
}

impl Before {
    /// Nothing where none did.
    fn open(old: &Side<'_, WorkDir>, dir: &Held) -> Result<Option<Self>, Error> {
        if old.manifest.twins() == 0 {
            return Ok(None);
        }
        let file = |what: &str| RowHashes::create(&part(dir, what));
        let before = Self { of: file("of")?, asked: file("asked")?, since: file("since")? };
        for (number, entry) in old.manifest.published_shards() {
            let twins = old.dir.twins(number, entry)?.twins;
            let mut rows = vec![[0; 3]; usize::try_from(entry.rows).unwrap_or_default()];
            for twin in &twins {
                let index = twin.row.checked_sub(entry.first_row);
                let index = index.and_then(|index| usize::try_from(index).ok());
                if let Some(row) = index.and_then(|index| rows.get_mut(index)) {
                    *row = [twin.of, twin.asked.prompt, u64::from(twin.asked.generation)];
                }
            }
            if !twins.is_empty() {
                for (at, file) in [&before.of, &before.asked, &before.since].iter().enumerate() {
                    let column: Vec<u64> = rows.iter().map(|row| row[at]).collect();
                    file.put(entry.first_row, &column)?;
                }
            }
        }
        Ok(Some(before))
    }

    fn discard(self) -> Result<(), Error> {
        for file in [self.of, self.asked, self.since] {
            file.discard()?;
        }
        Ok(())
    }
}

/// Sorts rows by the old row whose records tell of them.
struct Places<'b> {
    writer: IdIndexWriter,
    spread: Spread,
    before: Option<&'b mut Before>,
}

impl Places<'_> {
    fn add(&mut self, old_row: u64, new_row: u64, is_same_text: bool) -> Result<(), Error> {
        let of = self.before.as_mut().map_or(Ok(None), |before| before.of.get(old_row))?;
        // A row's key is far from the next one's: there is room behind it for its twins.
        let id = self.spread.key(of.unwrap_or(old_row)) + u128::from(of.is_some());
        let content = old_row << 1 | u64::from(is_same_text);
        Ok(self.writer.add(&[IdEntry { id, row: new_row, content }])?)
    }
}

impl Matches {
    /// Finds them, and says how the rows' texts compare.
    pub(super) fn find(
        old: &Side<'_, WorkDir>,
        new: &Side<'_, Held>,
    ) -> Result<(Self, RowChanges), Error> {
        let mut before = Before::open(old, new.dir)?;
        let path = part(new.dir, "places");
        let spread = Spread::new(old.manifest.rows());
        let writer = IdIndexWriter::new(&path);
        let mut places = Places { writer, spread, before: before.as_mut() };
        let mut texts = None;
        let gains_ids = old.manifest.job.gains_ids_in(&new.manifest.job);
        let is_by_number = gains_ids || new.manifest.job.identity() == Identity::RowNumber;
        let (rows, knows_texts) = if is_by_number {
            let known = texts.insert(if gains_ids {
                Texts::of_ids(old, new)?
            } else {
                Texts::open(old, new)?
            });
            (known.compare(old, new, &mut places)?, known.0.is_some())
        } else {
            walk_ids(old, new, &mut places)?
        };
        places.writer.finish::<Error>(&mut |_| Ok(()))?;
        let order = match texts.filter(|_| before.is_none()) {
            Some(texts) => {
                new.dir.discard_ids(&path)?;
                Order::ByRow { rows: SameNumbers::of(old.manifest, new.manifest), texts }
            }
            None => Order::Index { index: IdIndex::open(&path)?, path, spread },
        };
        let chosen = new.manifest.chosen.clone();
        Ok((Self { order, before, chosen, ahead: None, knows_texts }, rows))
    }

    /// Whether texts could be compared.
    pub(super) fn knows_texts(&self) -> bool {
        self.knows_texts
    }

    /// The next ones, as far as their old rows are below `end`.
    pub(super) fn next_until(&mut self, end: u64) -> Result<Vec<Match>, Error> {
        let mut found = Vec::new();
        loop {
            let next = match self.ahead.take() {
                None => self.read()?,
                some => some,
            };
            match next {
                Some(it) if it.old_row < end => found.push(it),
                rest => {
                    self.ahead = rest;
                    return Ok(found);
                }
            }
        }
    }

    fn read(&mut self) -> Result<Option<Match>, Error> {
        loop {
            let next = match &mut self.order {
                Order::ByRow { rows, texts } => match rows.next() {
                    Some((old_row, new_row)) => {
                        let is_same_text = texts.is_same(old_row, new_row)?;
                        Some(Match { old_row, new_row, is_same_text, twin: None })
                    }
                    None => None,
                },
                Order::Index { index, spread, .. } => next_entry(index)?.map(|entry| {
                    let old_row = spread.row(entry.id);
                    let is_same_text = entry.content & 1 == 1;
                    let twin = Some(entry.content >> 1).filter(|own| *own != old_row);
                    Match { old_row, new_row: entry.row, is_same_text, twin }
                }),
            };
            if next.is_none_or(|it| self.chosen.contains(it.new_row)) {
                return Ok(next);
            }
        }
    }

    /// What a row asked that took the outcome of another, and since when; nothing for other rows.
    pub(super) fn asked_of_twin(&mut self, it: &Match) -> Result<Option<Asked>, Error> {
        let (Some(row), Some(before)) = (it.twin, &mut self.before) else { return Ok(None) };
        let prompt = before.asked.get(row)?.unwrap_or_default();
        let since = before.since.get(row)?.unwrap_or_default();
        let generation = u32::try_from(since).unwrap_or(u32::MAX);
        Ok(Some(Asked { generation, prompt, is_accepted: false }))
    }

    pub(super) fn discard(self, dir: &Held) -> Result<(), Error> {
        if let Order::Index { path, .. } = self.order {
            dir.discard_ids(&path)?;
        }
        dir.discard_ids(&part(dir, "texts"))?;
        self.before.map_or(Ok(()), Before::discard)
    }
}

/// Matches rows by their ids. Says how their texts compare, and whether they could be compared.
fn walk_ids(
    old: &Side<'_, WorkDir>,
    new: &Side<'_, Held>,
    places: &mut Places<'_>,
) -> Result<(RowChanges, bool), Error> {
    let is_old_whole = IdIndex::is_whole(&old.dir.ids(), old.dir.tag())?;
    let known = if is_old_whole { old.dir.ids() } else { index_journals(old, new.dir)? };
    let mut rows = RowChanges::default();
    walk(IdIndex::open(&known)?, IdIndex::open(&new.dir.ids())?, &mut |a, b| {
        let (Some(a), Some(b)) = (a, b) else {
            *(if b.is_some() { &mut rows.new } else { &mut rows.gone }) += 1;
            return Ok(());
        };
        let is_same = a.content == b.content;
        let is_there = old.manifest.own_row(a.row) == new.manifest.own_row(b.row);
        match (is_same, is_there) {
            (true, true) => rows.same += 1,
            (true, false) => rows.moved += 1,
            (false, _) => rows.changed += 1,
        }
        places.add(a.row, b.row, is_same)
    })?;
    if !is_old_whole {
        new.dir.discard_ids(&known)?;
    }
    Ok((rows, is_old_whole))
}

/// The rows that have the same number in the same input of both plans, each with its number among all
/// rows of either; in the order of the old ones.
struct SameNumbers(VecDeque<Stretch>);

/// Rows that follow one another in both plans.
struct Stretch {
    old: u64,
    new: u64,
    rows: u64,
}

impl SameNumbers {
    fn of(old: &Manifest, new: &Manifest) -> Self {
        let now: HashMap<_, _> = firsts(new).map(|(it, first)| (&it.name, (it, first))).collect();
        let stretch = |(it, old): (&SourcePrint, u64)| {
            let (same, new) = now.get(&it.name)?;
            Some(Stretch { old, new: *new, rows: it.rows.min(same.rows) })
        };
        Self(firsts(old).filter_map(stretch).collect())
    }

    /// How many are still to come.
    fn left(&self) -> u64 {
        self.0.iter().map(|stretch| stretch.rows).sum()
    }
}

impl Iterator for SameNumbers {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<Self::Item> {
        while self.0.front()?.rows == 0 {
            self.0.pop_front();
        }
        let stretch = self.0.front_mut()?;
        let rows = (stretch.old, stretch.new);
        *stretch = Stretch { old: rows.0 + 1, new: rows.1 + 1, rows: stretch.rows - 1 };
        Some(rows)
    }
}

/// The inputs of a plan, each with its first row.
fn firsts(manifest: &Manifest) -> impl Iterator<Item = (&SourcePrint, u64)> {
    manifest.sources.iter().scan(1, |next, it| {
        let first = *next;
        *next += it.rows;
        Some((it, first))
    })
}

/// The hashes of the texts of two generations' rows, where both are there.
struct Texts(Option<(RowHashes, RowHashes)>);

impl Texts {
    fn open(old: &Side<'_, WorkDir>, new: &Side<'_, Held>) -> Result<Self, Error> {
        let old = RowHashes::open_of(&old.dir.contents(), old.dir.tag())?;
        let new = RowHashes::open_of(&new.dir.contents(), new.dir.tag())?;
        Ok(Self(old.zip(new)))
    }

    /// Those of a plan whose rows have ids, which its index of ids has, put into the order of its rows.
    fn of_ids(old: &Side<'_, WorkDir>, new: &Side<'_, Held>) -> Result<Self, Error> {
        let Some(old) = RowHashes::open_of(&old.dir.contents(), old.dir.tag())? else {
            return Ok(Self(None));
        };
        let texts = RowHashes::create(&part(new.dir, "texts"))?;
        let mut index = IdIndex::open(&new.dir.ids())?;
        while let Some(entry) = next_entry(&mut index)? {
            texts.put(entry.row, &[entry.content])?;
        }
        Ok(Self(Some((old, texts))))
    }

    /// Compares all rows that are in both. Where rows took others' outcomes, they are sorted.
    fn compare(
        &mut self,
        old: &Side<'_, WorkDir>,
        new: &Side<'_, Held>,
        places: &mut Places<'_>,
    ) -> Result<RowChanges, Error> {
        let both = SameNumbers::of(old.manifest, new.manifest);
        let (before, now, shared) = (old.manifest.rows(), new.manifest.rows(), both.left());
        let mut rows =
            RowChanges { new: now - shared, gone: before - shared, ..RowChanges::default() };
        for (old_row, new_row) in both {
            let is_same = self.is_same(old_row, new_row)?;
            *(if is_same { &mut rows.same } else { &mut rows.changed }) += 1;
            if places.before.is_some() {
                places.add(old_row, new_row, is_same)?;
            }
        }
        Ok(rows)
    }

    /// Whether a row is known to have the same text in both.
    fn is_same(&mut self, old_row: u64, new_row: u64) -> Result<bool, Error> {
        let Some((old, new)) = &mut self.0 else { return Ok(false) };
        let text = old.get(old_row)?;
        Ok(text.is_some() && text == new.get(new_row)?)
    }
}

/// Makes an index of the ids in a generation's journals: a power cut may take the one that was made
/// when it was planned, but no answer. Of rows that have no outcome it knows nothing.
fn index_journals(old: &Side<'_, WorkDir>, dir: &Held) -> Result<PathBuf, Error> {
    let path = part(dir, "answers");
    let mut writer = IdIndexWriter::new(&path);
    let mut reader = ShardReader::default();
    // The rows of a range are in the journals of all variants.
    let mut seen = HashSet::new();
    for (number, entry) in old.manifest.published_shards() {
        if entry.variant == 0 {
            seen.clear();
        }
        let salt = old.manifest.source_of(entry).salt();
        for twin in old.dir.twins(number, entry)?.twins {
            writer.add(&[IdEntry { id: twin.id.hash() ^ salt, row: twin.row, content: 0 }])?;
        }
        let Some(read) = reader.read_what_is_there(old.dir, number, entry)? else { continue };
        read.for_each_row::<Error>(&mut |records| {
            let row = records.outcome.row;
            let id =
                std::str::from_utf8(records.outcome.id()).ok().and_then(|id| Id::parse(id).ok());
            let id = id.filter(|_| seen.insert(row));
            let entry = id.map(|id| IdEntry { id: id.hash() ^ salt, row, content: 0 });
            Ok(writer.add(entry.as_slice())?)
        })?;
    }
    writer.finish::<Error>(&mut |_| Ok(()))?;
    Ok(path)
}
