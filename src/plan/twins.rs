//! Rows that ask what another row asks: one of them is called, and the others, its twins, take its
//! outcome.
//!
//! All on disk, whatever the rows and however many ask the same: requests are sorted by their hash,
//! twins by their rows and originals by theirs, and each shard's file is written from both.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crossbeam_channel::{Receiver, bounded};
use serde_json::value::RawValue;

use super::Error;
use crate::input::{Sources, identify, read_shard};
use crate::job::{Id, Identity, JobSpec};
use crate::shutdown::{Shutdown, Stage};
use crate::store::{
    Asked, Held, IdEntry, Original, RowHashes, ShardEntry, Sorted, Sorter, Twin, Twinned, Twins,
    spawn,
};

/// A row that is to take the outcome of another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) row: u64,
    pub(super) of: u64,
    /// The hash of its prompt.
    pub(super) prompt: u64,
    /// The generation in which it became a twin.
    pub(super) since: u32,
}

/// Twins as they are found, in any order.
pub(super) struct Pairs {
    by_row: Sorter,
    by_original: Sorter,
    count: u64,
}

impl Pairs {
    pub(super) fn new(dir: &Held) -> Self {
        let sorter = |what: &str| Sorter::new(&part(dir, what));
        Self { by_row: sorter("twins"), by_original: sorter("originals"), count: 0 }
    }

    pub(super) fn add(&mut self, pair: Pair) -> Result<(), Error> {
        let Pair { row, of, prompt, since } = pair;
        let id = u128::from(row) << 64 | u128::from(since);
        self.by_row.add(&[IdEntry { id, row: of, content: prompt }])?;
        self.by_original.add(&[IdEntry { id: u128::from(of), row, content: 0 }])?;
        self.count += 1;
        Ok(())
    }
}

/// A file that is there while a plan is made.
pub(super) fn part(dir: &Held, what: &str) -> PathBuf {
    dir.ids().with_file_name(format!("ids.part-{what}"))
}

/// What the rows of a new plan have already, while an earlier one is carried over: an answer that
/// others who ask the same may take, or any outcome. Kept on disk.
pub(super) struct Settled {
    file: RowHashes,
    // A stretch of rows that is not written yet: they come mostly in order.
    first: u64,
    stretch: Vec<u64>,
}

/// What a row has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Has {
    /// An answer to what it asks.
    Answer = 1,
    /// Something that counts for it alone.
    Own = 2,
}

impl Settled {
    /// Nothing is known yet; not there where nobody wants to know.
    pub(super) fn create_if(is_wanted: bool, dir: &Held) -> Result<Option<Self>, Error> {
        if !is_wanted {
            return Ok(None);
        }
        let file = RowHashes::create(&part(dir, "settled"))?;
        Ok(Some(Self { file, first: 0, stretch: Vec::new() }))
    }

    pub(super) fn put(&mut self, row: u64, has: Has) -> Result<(), Error> {
        const STRETCH: usize = 1 << 13;
        if row != self.first + self.stretch.len() as u64 || self.stretch.len() >= STRETCH {
            self.write()?;
            self.first = row;
        }
        self.stretch.push(has as u64);
        Ok(())
    }

    /// Writes what is not written yet. To be called before it is read.
    pub(super) fn write(&mut self) -> Result<(), Error> {
        self.file.put(self.first, &self.stretch)?;
        self.stretch.clear();
        Ok(())
    }

    fn of(&mut self, row: u64) -> Result<Option<Has>, Error> {
        let has = self.file.get(row)?;
        Ok(has.map(|has| if has == Has::Answer as u64 { Has::Answer } else { Has::Own }))
    }

    pub(super) fn discard(self) -> Result<(), Error> {
        Ok(self.file.discard()?)
    }
}

/// What rows ask, in the order of the requests and then of the rows.
pub(super) struct Requests {
    pub(super) sorted: Sorted,
    /// Rows that are left out because an earlier row has their id.
    pub(super) left_out: BTreeMap<u64, u64>,
    pub(super) generation: u32,
}

/// Rows of one request that wait to see whether one of them has an answer. With more of them than
/// this the first is called, whatever comes.
const WAITING: usize = 1 << 20;

impl Requests {
    /// Finds the rows that ask what another row asks, and gives each its original: the first that has
    /// an answer already, else the first. Rows that have something already are no twins. Gives the
    /// number of twins.
    pub(super) fn pair(
        mut self,
        mut settled: Option<&mut Settled>,
        visit: &mut Visit<'_>,
    ) -> Result<u64, Error> {
        let mut count = 0;
        let visit: &mut Visit<'_> = &mut |pair| {
            count += 1;
            visit(pair)
        };
        if let Some(settled) = &mut settled {
            settled.write()?;
        }
        let since = self.generation;
        let mut next = self.next()?;
        while let Some(first) = next {
            next = self.next()?;
            if next.is_none_or(|it| it.id != first.id) {
                continue;
            }
            let mut group = Group { original: None, waiting: Vec::new(), since };
            let mut member = Some(first);
            while let Some(it) = member {
                let has = settled.as_mut().map_or(Ok(None), |settled| settled.of(it.row))?;
                group.take(it, has, settled.is_some(), visit)?;
                member = next.filter(|it| it.id == first.id);
                if member.is_some() {
                    next = self.next()?;
                }
            }
            group.close(visit)?;
        }
        Ok(count)
    }

    /// The next row that is not left out.
    fn next(&mut self) -> Result<Option<IdEntry>, Error> {
        loop {
            let entry = self.sorted.next_entry()?;
            if entry.is_none_or(|it| !self.left_out.contains_key(&it.row)) {
                return Ok(entry);
            }
        }
    }
}

/// Rows that ask the same, one after another.
struct Group {
    original: Option<u64>,
    // Rows that have nothing, as long as one with an answer may come.
    waiting: Vec<IdEntry>,
    since: u32,
}

type Visit<'v> = dyn FnMut(Pair) -> Result<(), Error> + 'v;

impl Group {
    fn take(
        &mut self,
        it: IdEntry,
        has: Option<Has>,
        may_have: bool,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        match (has, self.original) {
            (Some(Has::Answer), None) => {
                self.original = Some(it.row);
                self.give(visit)
            }
            (Some(_), _) => Ok(()),
            (None, None) if !may_have => {
                self.original = Some(it.row);
                Ok(())
            }
            (None, original) => {
                self.waiting.push(it);
                match original {
                    Some(_) => self.give(visit),
                    None if self.waiting.len() >= WAITING => self.close(visit),
                    None => Ok(()),
                }
            }
        }
    }

    /// The first of those that wait is called.
    fn close(&mut self, visit: &mut Visit<'_>) -> Result<(), Error> {
        if self.original.is_none() && !self.waiting.is_empty() {
            self.original = Some(self.waiting.remove(0).row);
        }
        self.give(visit)
    }

    /// Those that wait are twins.
    fn give(&mut self, visit: &mut Visit<'_>) -> Result<(), Error> {
        let (Some(of), since) = (self.original, self.since) else { return Ok(()) };
        self.waiting
            .drain(..)
            .try_for_each(|it| visit(Pair { row: it.row, of, prompt: it.content, since }))
    }
}

/// Writes what was found to the shards' files, and takes the twins from the rows that are wanted.
/// Gives the number of twins.
pub(super) fn write(
    dir: &Held,
    sources: &Sources,
    job: &JobSpec,
    (threads, shutdown): (usize, &Shutdown),
    shards: &mut [ShardEntry],
    pairs: Pairs,
) -> Result<u64, Error> {
    let Pairs { by_row, by_original, count } = pairs;
    if count == 0 {
        return Ok(0);
    }
    let (by_row, by_original) = (Ordered::new(by_row)?, Ordered::new(by_original)?);
    let (to_do, tasks) = bounded(threads.max(1));
    let all: &[ShardEntry] = shards;
    let written = std::thread::scope(|scope| {
        let mut writers = Vec::new();
        for _ in 0..threads.max(1) {
            let tasks: Receiver<Task> = tasks.clone();
            let body = move || -> Result<Vec<(usize, Twinned)>, Error> {
                tasks.iter().map(|task| write_shard(dir, sources, job, all, task)).collect()
            };
            writers.push(spawn(scope, "twins", body)?);
        }
        drop(tasks);
        let gathered = gather(all, by_row, by_original, shutdown, &mut |task| {
            // A writer that has failed takes no more, and tells why when it is joined.
            to_do.send(task).is_ok()
        });
        drop(to_do);
        let mut written = Vec::new();
        for writer in writers {
            let some = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            written.extend(some?);
        }
        gathered?;
        Ok::<_, Error>(written)
    })?;
    for (number, twins) in written {
        let shard = &mut shards[number];
        shard.wanted -= twins.rows;
        shard.twins = Some(twins);
    }
    Ok(count)
}

/// The twins and originals of a shard.
struct Task {
    number: usize,
    twins: Vec<Pair>,
    originals: Vec<Original>,
}

/// Gathers each shard's.
fn gather(
    shards: &[ShardEntry],
    mut by_row: Ordered,
    mut by_original: Ordered,
    shutdown: &Shutdown,
    visit: &mut dyn FnMut(Task) -> bool,
) -> Result<(), Error> {
    for (number, shard) in shards.iter().enumerate() {
        if shutdown.stage() != Stage::Running {
            return Err(Error::Interrupted);
        }
        let end = u128::from(shard.first_row + shard.rows);
        let mut task = Task { number, twins: Vec::new(), originals: Vec::new() };
        while let Some(it) = by_row.next_below(end << 64)? {
            let row = u64::try_from(it.id >> 64).unwrap_or(u64::MAX);
            let since = u32::try_from(it.id & u128::from(u32::MAX)).unwrap_or(u32::MAX);
            task.twins.push(Pair { row, of: it.row, prompt: it.content, since });
        }
        while let Some(it) = by_original.next_below(end)? {
            let row = u64::try_from(it.id).unwrap_or(u64::MAX);
            match task.originals.last_mut().filter(|last| last.row == row) {
                Some(last) => last.twins += 1,
                None => task.originals.push(Original { row, twins: 1 }),
            }
        }
        let is_empty = task.twins.is_empty() && task.originals.is_empty();
        if !is_empty && !visit(task) {
            break;
        }
    }
    Ok(())
}

/// Entries in their order, taken up to a key.
struct Ordered {
    sorted: Sorted,
    next: Option<IdEntry>,
}

impl Ordered {
    fn new(sorter: Sorter) -> Result<Self, Error> {
        let mut sorted = sorter.finish()?;
        let next = sorted.next_entry()?;
        Ok(Self { sorted, next })
    }

    fn next_below(&mut self, key: u128) -> Result<Option<IdEntry>, Error> {
        let Some(entry) = self.next.filter(|entry| entry.id < key) else { return Ok(None) };
        self.next = self.sorted.next_entry()?;
        Ok(Some(entry))
    }
}

fn write_shard(
    dir: &Held,
    sources: &Sources,
    job: &JobSpec,
    shards: &[ShardEntry],
    task: Task,
) -> Result<(usize, Twinned), Error> {
    let Task { number, twins, originals } = task;
    let rows: Vec<u64> = twins.iter().map(|pair| pair.row).collect();
    let shard = u32::try_from(number).unwrap_or(u32::MAX);
    let shown = shown(dir, sources, job, (shard, &shards[number]), &rows)?;
    let twin = |(pair, (id, input))| {
        let Pair { row, of, prompt, since } = pair;
        let asked = Asked { generation: since, prompt, is_accepted: false };
        Twin { row, of, asked, id, input }
    };
    let twins = twins.into_iter().zip(shown).map(twin).collect();
    Ok((number, dir.write_twins(shard, &Twins { twins, originals })?))
}

/// What an envelope shows of a row: its id, and the row where that is wanted.
type Shown = (Id, Option<Box<RawValue>>);

/// What envelopes show of some rows of a shard that can be asked about.
pub(super) fn shown(
    dir: &Held,
    sources: &Sources,
    job: &JobSpec,
    (number, shard): (u32, &ShardEntry),
    rows: &[u64],
) -> Result<Vec<Shown>, Error> {
    if rows.is_empty() || job.identity() == Identity::RowNumber && !job.include_input {
        return Ok(rows
            .iter()
            .map(|row| (Id::from_row_number(shard.own_row(*row)), None))
            .collect());
    }
    let renames = dir.duplicates(number, shard)?.into_iter();
    let renames: BTreeMap<u64, String> =
        renames.filter_map(|rename| Some((rename.row, rename.id?))).collect();
    let read = read_shard(sources, shard, job.max_row_bytes)?;
    // It was read a moment ago, as what it is.
    let changed = || {
        let (path, first_row) = (sources.of(shard).path.clone(), shard.own_row(shard.first_row));
        crate::input::Error::Changed { path, first_row }
    };
    let show = |row: &u64| {
        let index = usize::try_from(row - shard.first_row).unwrap_or(usize::MAX);
        let text = read.text(index).map_err(|_| changed())?;
        let object = read.object(index, &text).map_err(|_| changed())?;
        let id = match renames.get(row) {
            Some(name) => Id::from_text(name),
            None => {
                identify(&object, job.identity(), shard.own_row(*row)).map_err(|_| changed())?
            }
        };
        let input = job.include_input.then(|| RawValue::from_string(object.text().to_owned()));
        Ok((id, input.transpose().map_err(|_| changed())?))
    };
    rows.iter().map(show).collect()
}
