//! A file with a hash for each row, by row number.
//!
//! One holds what each row would be asked, while a next generation is planned; one, in jobs whose
//! rows have no ids, what each row's text is, for the generation after it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Error, disk};

/// Bytes of a hash.
const SIZE: usize = 8;
/// Hashes that are read at once: rows are asked about mostly in order.
const BLOCK: usize = 512;

/// The hashes, on disk.
#[derive(Debug)]
pub struct RowHashes {
    file: File,
    path: PathBuf,
    block: Vec<u64>,
    // The row of the block's first hash.
    first: u64,
}

impl RowHashes {
    /// An empty file, in the place of whatever is there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let file = disk::open_write(path)?;
        file.set_len(0).map_err(disk::context("create", path))?;
        Ok(Self { file, path: path.to_owned(), block: Vec::new(), first: 0 })
    }

    /// An empty file that says which plan it is of, in the place of whatever is there.
    ///
    /// # Errors
    /// As [`RowHashes::create`].
    pub fn create_of(path: &Path, tag: u64) -> Result<Self, Error> {
        let file = Self::create(path)?;
        // Rows are counted from 1.
        file.put(0, &[tag])?;
        Ok(file)
    }

    /// The file at `path`; `None` where there is none of this plan.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open_of(path: &Path, tag: u64) -> Result<Option<Self>, Error> {
        let Some(mut file) = Self::open(path)? else { return Ok(None) };
        Ok(if file.get(0)? == Some(tag) { Some(file) } else { None })
    }

    /// The file at `path`; nothing where there is none. What a power cut took of it reads as no hash.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        match File::open(path) {
            Ok(file) => Ok(Some(Self { file, path: path.to_owned(), block: Vec::new(), first: 0 })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(disk::context("open", path)(error)),
        }
    }

    /// Puts down the hashes of rows in a row. 0 stands for a row that has none.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn put(&self, first_row: u64, hashes: &[u64]) -> Result<(), Error> {
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        self.file
            .write_all_at(&bytes, first_row * SIZE as u64)
            .map_err(disk::context("write", &self.path))
    }

    /// The hash of a row; nothing where it has none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn get(&mut self, row: u64) -> Result<Option<u64>, Error> {
        let index = row.checked_sub(self.first).map(|index| index as usize);
        let hash = match index.and_then(|index| self.block.get(index)) {
            Some(hash) => *hash,
            None => self.read(row)?,
        };
        Ok(Some(hash).filter(|hash| *hash != 0))
    }

    fn read(&mut self, row: u64) -> Result<u64, Error> {
        let mut bytes = [0; BLOCK * SIZE];
        let mut length = 0;
        while length < bytes.len() {
            let offset = row * SIZE as u64 + length as u64;
            match self.file.read_at(&mut bytes[length..], offset) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) => return Err(disk::context("read", &self.path)(error)),
            }
        }
        let (hashes, _) = bytes[..length].as_chunks::<SIZE>();
        self.block = hashes.iter().map(|hash| u64::from_le_bytes(*hash)).collect();
        self.first = row;
        Ok(self.block.first().copied().unwrap_or(0))
    }

    /// Removes the file.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn discard(self) -> Result<(), Error> {
        disk::remove(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_come_back_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut hashes = RowHashes::create(&dir.path().join("h")).unwrap();
        for first in [2_001, 1, 1_001] {
            let some: Vec<u64> = (first..first + 1_000).map(|row| row % 10 * row).collect();
            hashes.put(first, &some).unwrap();
        }
        for row in (1..=3_000).chain((1..=3_000).rev().step_by(7)) {
            let expected = Some(row % 10 * row).filter(|hash| *hash != 0);
            assert_eq!(hashes.get(row).unwrap(), expected, "row {row}");
        }
        assert_eq!(hashes.get(9_999).unwrap(), None);
        let path = dir.path().join("of");
        RowHashes::create_of(&path, 7).unwrap().put(1, &[5]).unwrap();
        assert_eq!(RowHashes::open_of(&path, 7).unwrap().unwrap().get(1).unwrap(), Some(5));
        assert!(RowHashes::open_of(&path, 8).unwrap().is_none(), "of another plan");
    }
}
