//! Entries put in order on disk, however many they are and however many of them are alike.
//!
//! An external merge sort: what fits in memory is sorted and written as a run behind the runs before
//! it, and all runs are read side by side. Unlike parts by hash ([`super::IdIndexWriter`]) it takes
//! no more memory where millions of entries have the same key.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::ids::{IdEntry, SIZE};
use super::{Error, disk};

/// Entries of a run: 16 MiB of them.
const HELD: usize = 1 << 19;
/// Entries that are read of a run at once.
const BLOCK: usize = 1 << 11;

/// Collects entries in any order.
#[derive(Debug)]
pub struct Sorter {
    path: PathBuf,
    held: Vec<IdEntry>,
    // There once a run was written.
    file: Option<BufWriter<File>>,
    runs: Vec<Range<u64>>,
    capacity: usize,
}

impl Sorter {
    /// Collects entries; what does not fit in memory is kept in a file at `path` for as long as it
    /// takes.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let (held, runs) = (Vec::new(), Vec::new());
        Self { path: path.to_owned(), held, file: None, runs, capacity: HELD }
    }

    /// Adds entries.
    ///
    /// # Errors
    /// When a run cannot be written.
    pub fn add(&mut self, entries: &[IdEntry]) -> Result<(), Error> {
        self.held.extend_from_slice(entries);
        if self.held.len() >= self.capacity { self.spill() } else { Ok(()) }
    }

    /// Writes what is held as a run.
    fn spill(&mut self) -> Result<(), Error> {
        self.held.sort_unstable();
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = disk::open_write(&self.path)?;
                file.set_len(0).map_err(disk::context("create", &self.path))?;
                none.insert(BufWriter::with_capacity(1 << 17, file))
            }
        };
        for entry in &self.held {
            file.write_all(&entry.encode()).map_err(disk::context("write", &self.path))?;
        }
        let start = self.runs.last().map_or(0, |run| run.end);
        self.runs.push(start..start + self.held.len() as u64);
        self.held.clear();
        Ok(())
    }

    /// All of them, in their order.
    ///
    /// # Errors
    /// When runs cannot be written or read.
    pub fn finish(mut self) -> Result<Sorted, Error> {
        if self.runs.is_empty() {
            self.held.sort_unstable();
            return Ok(Sorted { held: self.held.into_iter(), merge: None });
        }
        if !self.held.is_empty() {
            self.spill()?;
        }
        let mut merge =
            Merge { path: self.path, file: None, runs: Vec::new(), next: BinaryHeap::new() };
        let file = self.file.map(BufWriter::into_inner).transpose();
        merge.file = file.map_err(|e| disk::context("write", &merge.path)(e.into_error()))?;
        for (number, left) in self.runs.into_iter().enumerate() {
            merge.runs.push(Run { left, block: Vec::new().into_iter() });
            merge.advance(number)?;
        }
        Ok(Sorted { held: Vec::new().into_iter(), merge: Some(merge) })
    }
}

/// Entries in their order.
#[derive(Debug)]
pub struct Sorted {
    held: std::vec::IntoIter<IdEntry>,
    merge: Option<Merge>,
}

/// Runs, read side by side. The file goes with it.
#[derive(Debug)]
struct Merge {
    path: PathBuf,
    file: Option<File>,
    runs: Vec<Run>,
    // The first entry of each run that was not given yet.
    next: BinaryHeap<Reverse<(IdEntry, usize)>>,
}

#[derive(Debug)]
struct Run {
    left: Range<u64>,
    block: std::vec::IntoIter<IdEntry>,
}

impl Sorted {
    /// The next entry; nothing at the end.
    ///
    /// # Errors
    /// When a run cannot be read.
    pub fn next_entry(&mut self) -> Result<Option<IdEntry>, Error> {
        let Some(merge) = &mut self.merge else { return Ok(self.held.next()) };
        let Some(Reverse((entry, run))) = merge.next.pop() else { return Ok(None) };
        merge.advance(run)?;
        Ok(Some(entry))
    }
}

impl Merge {
    /// Takes the next entry of a run up.
    fn advance(&mut self, number: usize) -> Result<(), Error> {
        let run = &mut self.runs[number];
        if run.block.as_slice().is_empty()
            && let Some(file) = &self.file
        {
            let count = (run.left.end - run.left.start).min(BLOCK as u64);
            let mut bytes = vec![0; usize::try_from(count).unwrap_or_default() * SIZE];
            file.read_exact_at(&mut bytes, run.left.start * SIZE as u64)
                .map_err(disk::context("read", &self.path))?;
            run.left.start += count;
            let (entries, _) = bytes.as_chunks::<SIZE>();
            run.block = entries.iter().map(IdEntry::decode).collect::<Vec<_>>().into_iter();
        }
        if let Some(entry) = run.block.next() {
            self.next.push(Reverse((entry, number)));
        }
        Ok(())
    }
}

impl Drop for Merge {
    fn drop(&mut self) {
        // What is left of it does no harm: it has a name that is known, and goes with the directory.
        let _ = disk::remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_in_order_from_memory_and_from_disk() {
        let mut random = fastrand::Rng::with_seed(5);
        for (count, capacity) in [(0, 8), (5, 8), (8, 8), (1000, 8), (20_000, 5000)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("ids.part-requests");
            let mut sorter = Sorter { capacity, ..Sorter::new(&path) };
            // Few keys, so that most entries are alike in them.
            let mut entries: Vec<_> = (0..count)
                .map(|row| IdEntry { id: random.u128(..5), row, content: random.u64(..) })
                .collect();
            random.shuffle(&mut entries);
            for some in entries.chunks(3) {
                sorter.add(some).unwrap();
            }
            let mut sorted = sorter.finish().unwrap();
            let all: Vec<_> = std::iter::from_fn(|| sorted.next_entry().unwrap()).collect();
            entries.sort_unstable();
            assert_eq!(all, entries);
            drop(sorted);
            assert!(!path.exists(), "the runs go with their reader");
        }
    }
}
