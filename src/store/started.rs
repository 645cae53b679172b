//! How many calls were started for a shard's rows: what tells, after a crash, how many are repeated.
//!
//! Every call that ends leaves a record in the journal, so what was started and has none was under
//! way. The number is written before the calls are made, in place and without a sync: it survives a
//! kill, and it decides nothing but a count in the summary.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Error, Identity, disk};

/// The mark of a shard that is being worked.
#[derive(Debug)]
pub struct Started {
    file: File,
    path: PathBuf,
    tag: u64,
    mark: Mark,
}

/// What a session has started in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// The journal's length when the session opened the shard.
    pub(super) opened_at: u64,
    /// The calls started since.
    pub(super) calls: u64,
}

const SIZE: usize = 28;

impl Mark {
    /// The bytes of the file; `tag` stands for the shard it is of.
    pub(super) fn encode(self, tag: u64) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[4..12].copy_from_slice(&self.opened_at.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.calls.to_le_bytes());
        bytes[20..].copy_from_slice(&tag.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` where the bytes are damaged or those of another shard.
    pub(super) fn decode(bytes: &[u8], tag: u64) -> Option<Self> {
        let bytes: &[u8; SIZE] = bytes.try_into().ok()?;
        let number = |at: usize| bytes[at..at + 8].try_into().ok().map(u64::from_le_bytes);
        if crc32c::crc32c(&bytes[4..]).to_le_bytes() != bytes[..4] || number(20) != Some(tag) {
            return None;
        }
        Some(Self { opened_at: number(4)?, calls: number(12)? })
    }
}

impl Started {
    /// Begins a session's mark; nothing is started yet.
    pub(super) fn begin(path: &Path, identity: &Identity, opened_at: u64) -> Result<Self, Error> {
        let file = disk::open_write(path)?;
        let mark = Mark { opened_at, calls: 0 };
        let mut started = Self { file, path: path.to_owned(), tag: identity.tag(), mark };
        started.write()?;
        Ok(started)
    }

    /// Notes that so many more calls are started. To be called before they are.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn more(&mut self, calls: u64) -> Result<(), Error> {
        if calls == 0 {
            return Ok(());
        }
        self.mark.calls += calls;
        self.write()
    }

    /// Notes that no call is under way any more.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn clear(&mut self) -> Result<(), Error> {
        self.mark.calls = 0;
        self.write()
    }

    fn write(&mut self) -> Result<(), Error> {
        self.file
            .write_all_at(&self.mark.encode(self.tag), 0)
            .map_err(disk::context("write", &self.path))
    }
}

/// The mark that the last session left; `None` when there is none of this shard that can be read.
pub(super) fn read(path: &Path, identity: &Identity) -> Result<Option<Mark>, Error> {
    Ok(disk::read_if_there(path)?.and_then(|bytes| Mark::decode(&bytes, identity.tag())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mark_is_read_back_and_damage_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("started");
        let identity = Identity::known(3);
        let read = |path| super::read(path, &identity);
        assert_eq!(read(&path).unwrap(), None);
        let mut started = Started::begin(&path, &identity, 700).unwrap();
        started.more(12).unwrap();
        started.more(3).unwrap();
        let mark = Mark { opened_at: 700, calls: 15 };
        assert_eq!(read(&path).unwrap(), Some(mark));
        for at in 0..SIZE {
            let mut bytes = mark.encode(identity.tag());
            bytes[at] ^= 1;
            assert_eq!(Mark::decode(&bytes, identity.tag()), None);
        }
        let other = Identity::known(4);
        assert_eq!(super::read(&path, &other).unwrap(), None, "of another shard");
        started.clear().unwrap();
        assert_eq!(read(&path).unwrap().map(|mark| mark.calls), Some(0));
    }
}
