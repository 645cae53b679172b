//! How far a shard's rows have been started: what tells, after a crash, which calls are repeated.
//!
//! Rows are started in their order, so one number says which were: those up to it that have no
//! outcome may have been called. The number is written before the calls are made, in place and
//! without a sync: it survives a kill, and it decides nothing but a count in the summary.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Error, disk};

/// The mark of a shard that is being worked.
#[derive(Debug)]
pub struct Started {
    file: File,
    path: PathBuf,
    mark: Mark,
}

/// What a session has started in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// The journal's length when the session opened the shard.
    pub(super) opened_at: u64,
    /// The highest row started; 0 for none.
    pub(super) row: u64,
    /// Whether rows that had failed before were tried again.
    pub(super) retry_failed: bool,
}

const SIZE: usize = 21;

impl Mark {
    fn encode(self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[4..12].copy_from_slice(&self.opened_at.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.row.to_le_bytes());
        bytes[20] = u8::from(self.retry_failed);
        let checksum = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SIZE] = bytes.try_into().ok()?;
        let number = |at: usize| bytes[at..at + 8].try_into().ok().map(u64::from_le_bytes);
        if crc32c::crc32c(&bytes[4..]).to_le_bytes() != bytes[..4] {
            return None;
        }
        Some(Self { opened_at: number(4)?, row: number(12)?, retry_failed: bytes[20] != 0 })
    }
}

impl Started {
    /// Begins a session's mark; nothing is started yet.
    pub(super) fn begin(path: &Path, opened_at: u64, retry_failed: bool) -> Result<Self, Error> {
        let file = disk::open_write(path)?;
        let mut started =
            Self { file, path: path.to_owned(), mark: Mark { opened_at, row: 0, retry_failed } };
        started.write()?;
        Ok(started)
    }

    /// Notes that all rows up to `row` are started. To be called before they are.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn up_to(&mut self, row: u64) -> Result<(), Error> {
        if row <= self.mark.row {
            return Ok(());
        }
        self.mark.row = row;
        self.write()
    }

    /// Notes that no call is under way any more.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn clear(&mut self) -> Result<(), Error> {
        self.mark.row = 0;
        self.write()
    }

    fn write(&mut self) -> Result<(), Error> {
        self.file.write_all_at(&self.mark.encode(), 0).map_err(disk::context("write", &self.path))
    }
}

/// The mark that the last session left; nothing when there is none that can be read.
pub(super) fn read(path: &Path) -> Result<Option<Mark>, Error> {
    Ok(disk::read_if_there(path)?.and_then(|bytes| Mark::decode(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mark_is_read_back_and_damage_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("started");
        assert_eq!(read(&path).unwrap(), None);
        let mut started = Started::begin(&path, 700, true).unwrap();
        started.up_to(12).unwrap();
        started.up_to(9).unwrap();
        let mark = Mark { opened_at: 700, row: 12, retry_failed: true };
        assert_eq!(read(&path).unwrap(), Some(mark));
        for at in 0..SIZE {
            let mut bytes = mark.encode();
            bytes[at] ^= 1;
            assert_eq!(Mark::decode(&bytes), None);
        }
        started.clear().unwrap();
        assert_eq!(read(&path).unwrap().map(|mark| mark.row), Some(0));
    }
}
