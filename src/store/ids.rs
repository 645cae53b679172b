//! The index of ids: which rows have which id and content, sorted by the hash of the id.
//!
//! It answers what spans shards (is an id there twice? which rows of another file are these?) with
//! memory that does not grow with the number of rows: entries are spread over parts by the first
//! bits of their hash, and each part is sorted by itself.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crossbeam_channel::bounded;
use xxhash_rust::xxh3::Xxh3;

use super::thread::spawn;
use super::{Error, disk};
use crate::job::IdHash;

/// One row's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdEntry {
    /// The hash of its id.
    pub id: IdHash,
    /// The row's number, or another place that the caller knows.
    pub row: u64,
    /// A hash of the row's text.
    pub content: u64,
}

/// Rows that share an id, in their order.
#[derive(Debug)]
pub struct Duplicate<'a> {
    /// The entries; two or more.
    pub entries: &'a [IdEntry],
}

/// The bytes of an entry on disk.
pub(super) const SIZE: usize = 32;
/// Parts that entries are spread over once they are many.
const PARTS: usize = 256;
/// Entries held in memory before there are parts: 2 MiB of them.
const HELD: usize = 1 << 16;
/// The bytes that wait for the index: few, so that they and the pages they go to stay in the cache.
const INDEX_BUFFER: usize = 1 << 16;
/// The bytes that wait for each part's file.
const PART_BUFFER: usize = 1 << 15;

/// Collects entries in any order.
#[derive(Debug)]
pub struct IdIndexWriter {
    path: PathBuf,
    held: Vec<IdEntry>,
    parts: Vec<Part>,
    capacity: usize,
    // What stands for the plan that the index is of; 0 where it is of none.
    tag: u64,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: BufWriter<File>,
}

impl IdIndexWriter {
    /// Collects entries for an index that will stand at `path`; parts are kept beside it.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let (held, parts) = Default::default();
        Self { path: path.to_owned(), held, parts, capacity: HELD, tag: 0 }
    }

    /// Has the index say what plan it is of.
    #[must_use]
    pub fn of_plan(self, tag: u64) -> Self {
        Self { tag, ..self }
    }

    /// Adds entries.
    ///
    /// # Errors
    /// When parts cannot be written.
    pub fn add(&mut self, entries: &[IdEntry]) -> Result<(), Error> {
        if !self.parts.is_empty() {
            return self.spread(entries);
        }
        self.held.extend_from_slice(entries);
        if self.held.len() < self.capacity {
            return Ok(());
        }
        for number in 0..PARTS {
            let mut name = self.path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".part-{number:03}"));
            let path = self.path.with_file_name(name);
            let file = BufWriter::with_capacity(PART_BUFFER, create(&path)?);
            self.parts.push(Part { path, file });
        }
        let held = std::mem::take(&mut self.held);
        self.spread(&held)
    }

    fn spread(&mut self, entries: &[IdEntry]) -> Result<(), Error> {
        for entry in entries {
            let part = &mut self.parts[part_of(entry.id)];
            part.file.write_all(&entry.encode()).map_err(disk::context("write", &part.path))?;
        }
        Ok(())
    }

    /// Sorts what was collected into the index, and shows each id that is there more than once.
    ///
    /// # Errors
    /// When files cannot be read or written, or `on_duplicate` fails.
    pub fn finish<E: From<Error>>(
        mut self,
        on_duplicate: &mut dyn FnMut(Duplicate<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut index = Index::create(&self.path, self.tag)?;
        if self.parts.is_empty() {
            self.held.sort_unstable();
            self.put(&mut index, &self.held, on_duplicate)?;
        } else {
            let parts = std::mem::take(&mut self.parts);
            // One thread reads and sorts a part while this one writes the part before it.
            std::thread::scope(|scope| {
                let (sorted_in, sorted) = bounded(1);
                spawn(scope, "sort", move || {
                    // Ends early when nobody takes them any more.
                    let _ = parts.into_iter().try_for_each(|part| sorted_in.send(part.sorted()));
                })?;
                sorted.into_iter().try_for_each(|part| self.put(&mut index, &part?, on_duplicate))
            })?;
        }
        // Not synced: whoever rests on it makes sure that it is whole.
        index.finish().map_err(disk::context("write", &self.path))?;
        Ok(())
    }

    fn put<E: From<Error>>(
        &self,
        index: &mut Index,
        entries: &[IdEntry],
        on_duplicate: &mut dyn FnMut(Duplicate<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for same in entries.chunk_by(|a, b| a.id == b.id) {
            if same.len() > 1 {
                on_duplicate(Duplicate { entries: same })?;
            }
            for entry in same {
                index.put(entry).map_err(disk::context("write", &self.path))?;
            }
        }
        Ok(())
    }
}

/// An index that is being written. Behind its entries stands how many there are, and their hash.
struct Index {
    file: BufWriter<File>,
    hash: Xxh3,
    count: u64,
    tag: u64,
}

/// What the last entry's place of an index begins with.
const MAGIC: [u8; 8] = *b"rowmill\0";

impl Index {
    fn create(path: &Path, tag: u64) -> Result<Self, Error> {
        let file = BufWriter::with_capacity(INDEX_BUFFER, create(path)?);
        Ok(Self { file, hash: Xxh3::new(), count: 0, tag })
    }

    fn put(&mut self, entry: &IdEntry) -> io::Result<()> {
        let bytes = entry.encode();
        self.hash.update(&bytes);
        self.count += 1;
        self.file.write_all(&bytes)
    }

    fn finish(mut self) -> io::Result<()> {
        self.file.write_all(&trailer([self.count, self.hash.digest(), self.tag]))?;
        self.file.flush()
    }
}

fn trailer(numbers: [u64; 3]) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    bytes[..8].copy_from_slice(&MAGIC);
    for (place, number) in bytes[8..].chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_be_bytes());
    }
    bytes
}

impl Part {
    /// The entries, in their order; the file goes.
    fn sorted(self) -> Result<Vec<IdEntry>, Error> {
        let Self { path, file } = self;
        file.into_inner().map_err(|error| disk::context("write", &path)(error.into_error()))?;
        let bytes = disk::read_if_there(&path)?.unwrap_or_default();
        let (entries, _) = bytes.as_chunks::<SIZE>();
        let mut entries: Vec<_> = entries.iter().map(IdEntry::decode).collect();
        entries.sort_unstable();
        disk::remove(&path)?;
        Ok(entries)
    }
}

fn part_of(id: IdHash) -> usize {
    // The first eight bits: a number below 256.
    (id >> (IdHash::BITS - PARTS.trailing_zeros())) as usize
}

fn create(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(disk::context("create", path))
}

impl IdEntry {
    pub(super) fn encode(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[..16].copy_from_slice(&self.id.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.row.to_be_bytes());
        bytes[24..].copy_from_slice(&self.content.to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; SIZE]) -> Self {
        let [id @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = bytes;
        let (mut row, mut content) = ([0; 8], [0; 8]);
        row.copy_from_slice(&bytes[16..24]);
        content.copy_from_slice(&bytes[24..]);
        Self {
            id: u128::from_be_bytes(*id),
            row: u64::from_be_bytes(row),
            content: u64::from_be_bytes(content),
        }
    }
}

/// Reads an index in the order of the ids' hashes.
#[derive(Debug)]
pub struct IdIndex {
    path: PathBuf,
    file: BufReader<File>,
    /// Entries that were not read yet.
    left: u64,
    /// The hash that all of them had.
    hash: u64,
    /// What stands for the plan that it is of.
    tag: u64,
}

impl IdIndex {
    /// Opens an index; nothing when there is none.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        if path.exists() { Self::open_at(path).map(Some) } else { Ok(None) }
    }

    fn open_at(path: &Path) -> Result<Self, Error> {
        let context = || disk::context("read", path);
        let damaged = || {
            let reason = "it has not the length that it tells".to_owned();
            Error::Damaged { path: path.to_owned(), reason }
        };
        let file = disk::open(path)?;
        let length = file.metadata().map_err(context())?.len();
        let mut last = [0; SIZE];
        let end = length.checked_sub(SIZE as u64).ok_or_else(damaged)?;
        file.read_exact_at(&mut last, end).map_err(context())?;
        let [number, hash, tag] = [8, 16, 24].map(|at| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&last[at..at + 8]);
            u64::from_be_bytes(bytes)
        });
        if last != trailer([number, hash, tag]) || number.checked_mul(SIZE as u64) != Some(end) {
            return Err(damaged());
        }
        let file = BufReader::with_capacity(1 << 18, file);
        Ok(Self { path: path.to_owned(), file, left: number, hash, tag })
    }

    /// Whether the index at a path is there, is of this plan, and is as it was written. Indexes are
    /// not synced, so after a power cut this one may not be.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_whole(path: &Path, tag: u64) -> Result<bool, Error> {
        let mut index = match Self::open(path) {
            Ok(Some(index)) => index,
            Ok(None) | Err(Error::Damaged { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        if index.tag != tag {
            return Ok(false);
        }
        let mut hash = Xxh3::new();
        while let Some(entry) = index.next_entry()? {
            hash.update(&entry.encode());
        }
        Ok(hash.digest() == index.hash)
    }

    /// The next entry; nothing at the end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn next_entry(&mut self) -> Result<Option<IdEntry>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut bytes = [0; SIZE];
        self.file.read_exact(&mut bytes).map_err(disk::context("read", &self.path))?;
        self.left -= 1;
        Ok(Some(IdEntry::decode(&bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u128, row: u64) -> IdEntry {
        IdEntry { id, row, content: row ^ 7 }
    }

    /// The index's rows and the rows of each duplicate.
    fn indexed(entries: &[IdEntry], capacity: usize) -> (Vec<IdEntry>, Vec<Vec<u64>>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ids");
        let mut writer = IdIndexWriter { capacity, ..IdIndexWriter::new(&path) };
        for chunk in entries.chunks(10) {
            writer.add(chunk).unwrap();
        }
        let mut duplicates = Vec::new();
        writer
            .finish::<Error>(&mut |duplicate| {
                duplicates.push(duplicate.entries.iter().map(|e| e.row).collect());
                Ok(())
            })
            .unwrap();
        assert_eq!(disk::names(dir.path()).unwrap(), ["ids"], "no part is left");
        let mut index = IdIndex::open(&path).unwrap().unwrap();
        let all = std::iter::from_fn(|| index.next_entry().unwrap()).collect();
        (all, duplicates)
    }

    #[test]
    fn sorts_by_id_in_memory_and_on_disk_alike() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut entries: Vec<_> = (0..500).map(|row| entry(random.u128(..), row)).collect();
        entries.push(IdEntry { row: 500, ..entries[17] });
        entries.push(IdEntry { row: 501, ..entries[17] });
        entries.push(IdEntry { row: 502, ..entries[400] });
        let in_memory = indexed(&entries, 1 << 20);
        let on_disk = indexed(&entries, 64);
        assert_eq!(in_memory, on_disk);
        let (all, mut duplicates) = in_memory;
        duplicates.sort();
        assert_eq!(duplicates, [vec![17, 500, 501], vec![400, 502]]);
        entries.sort();
        assert_eq!(all, entries);
    }

    #[test]
    fn an_index_that_is_not_as_it_was_written_is_not_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ids");
        assert!(!IdIndex::is_whole(&path, 9).unwrap());
        let mut writer = IdIndexWriter::new(&path).of_plan(9);
        writer.add(&[entry(7, 1), entry(3, 2)]).unwrap();
        writer.finish::<Error>(&mut |_| Ok(())).unwrap();
        assert!(IdIndex::is_whole(&path, 9).unwrap());
        assert!(!IdIndex::is_whole(&path, 8).unwrap(), "of another plan");
        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(!IdIndex::is_whole(&path, 9).unwrap(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            assert!(!IdIndex::is_whole(&path, 9).unwrap(), "byte {at}");
        }
        std::fs::write(&path, vec![0; bytes.len()]).unwrap();
        assert!(!IdIndex::is_whole(&path, 9).unwrap(), "zeros");
    }
}
