//! An input on its way into the work directory: what has come of it, and what it is a part of.
//!
//! Its bytes stand in `input.part`, and `input.part.json` says of which version of which document
//! they are and how many of them are on the disk: those behind may not have outlived a power cut.
//! The note stays when all has come, until there is a plan: who cannot be given one at first, for its
//! rows' ids say, need not wait for the same bytes again.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::names::{MANIFEST, PART, PART_NOTE};
use super::{Error, Held, WorkDir, disk};

/// What a part is a part of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartOf {
    /// Where it comes from, without what is secret in that.
    pub url: String,
    /// What tells its version from others, for asking for the rest.
    pub validator: String,
    /// Its whole length.
    pub bytes: u64,
    /// Whether it is CSV, as far as its sender said.
    pub is_csv: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    run: String,
    of: PartOf,
    synced: u64,
    blake3: String,
}

/// An input that has not come whole yet.
#[derive(Debug)]
pub struct Part {
    path: PathBuf,
    note: PathBuf,
    file: File,
    run: String,
    of: Option<PartOf>,
    length: u64,
    synced: u64,
    // Of all that has come.
    hasher: blake3::Hasher,
}

/// So many bytes are lost at most when a process is killed.
const STEP: u64 = 4 << 20;

impl WorkDir {
    /// Whether there is a part of an input that the rest can be asked for of.
    #[must_use]
    pub fn has_part(&self) -> bool {
        self.base().join(PART_NOTE).exists()
    }
}

impl Held {
    /// Opens what has come of an input, or begins with nothing. Of one that has come whole the last
    /// byte is left out: asking for it tells whether the rest still is what it was.
    ///
    /// # Errors
    /// When files cannot be made or read.
    pub fn open_part(&self) -> Result<Part, Error> {
        let (path, note) = (self.base().join(PART), self.base().join(PART_NOTE));
        let bytes = disk::read_if_there(&note)?.unwrap_or_default();
        let known: Option<Note> = serde_json::from_slice(&bytes).ok();
        let known = known.filter(|note| note.run == self.run());
        if known.is_some() && !path.exists() && !self.base().join(MANIFEST).exists() {
            match std::fs::rename(self.spool(), &path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(disk::context("rename", &self.spool())(error));
                }
                _ => {}
            }
        }
        let file = disk::open_write(&path)?;
        let there = file.metadata().map_err(disk::context("look at", &path))?.len();
        let mut hasher = blake3::Hasher::new();
        let (of, length) = match known {
            Some(Note { of, synced, blake3, .. }) if synced <= there => {
                let length = synced.min(of.bytes.saturating_sub(1));
                hash(&file, 0..length, &mut hasher).map_err(disk::context("read", &path))?;
                let mut whole = hasher.clone();
                hash(&file, length..synced, &mut whole).map_err(disk::context("read", &path))?;
                // What came of something else is no part of this.
                let is_it = whole.finalize().to_hex().as_str() == blake3;
                if is_it { (Some(of), length) } else { (None, 0) }
            }
            _ => (None, 0),
        };
        let run = self.run().to_owned();
        let mut part = Part { path, note, file, run, of, length, synced: length, hasher };
        part.cut(length)?;
        Ok(part)
    }

    /// Forgets what the copy of an input is a copy of: there is a plan of it now, or there never will
    /// be one.
    ///
    /// # Errors
    /// When the note cannot be removed.
    pub fn forget_part(&self) -> Result<(), Error> {
        disk::remove(&self.base().join(PART_NOTE))
    }
}

impl Part {
    /// What it is a part of, if the rest can be asked for.
    #[must_use]
    pub fn of(&self) -> Option<&PartOf> {
        self.of.as_ref()
    }

    /// How many bytes have come.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Drops what has come, and begins with something else; of nothing, where the rest could not be
    /// asked for.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn begin(&mut self, of: Option<PartOf>) -> Result<(), Error> {
        disk::remove(&self.note)?;
        self.cut(0)?;
        self.hasher.reset();
        (self.of, self.synced) = (of, 0);
        Ok(())
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(disk::context("write", &self.path))?;
        self.length += bytes.len() as u64;
        self.hasher.update(bytes);
        if self.length - self.synced >= STEP { self.keep() } else { Ok(()) }
    }

    /// Makes durable what has come, if the rest can be asked for.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn keep(&mut self) -> Result<(), Error> {
        let Some(of) = self.of.clone().filter(|_| self.length > self.synced) else { return Ok(()) };
        self.file.sync_data().map_err(disk::context("sync", &self.path))?;
        self.synced = self.length;
        let (run, blake3) = (self.run.clone(), self.hasher.finalize().to_hex().to_string());
        let note = serde_json::to_vec(&Note { run, of, synced: self.synced, blake3 });
        let note =
            note.map_err(std::io::Error::other).map_err(disk::context("write", &self.note))?;
        disk::replace(&self.note, &note)
    }

    /// Puts what has come in its place: it is whole. Gives the place.
    ///
    /// # Errors
    /// When it cannot be made durable.
    pub fn finish(mut self, dir: &Held, is_second: bool) -> Result<PathBuf, Error> {
        let to = if is_second { dir.second_spool() } else { dir.spool() };
        self.keep()?;
        self.file.sync_all().map_err(disk::context("sync", &self.path))?;
        std::fs::rename(&self.path, &to).map_err(disk::context("rename", &self.path))?;
        disk::sync_dir(disk::parent_of(&to))?;
        if is_second {
            disk::remove(&self.note)?;
        }
        Ok(to)
    }

    fn cut(&mut self, length: u64) -> Result<(), Error> {
        let cut = self.file.set_len(length).and_then(|()| self.file.seek(SeekFrom::Start(length)));
        cut.map_err(disk::context("write", &self.path))?;
        self.length = length;
        Ok(())
    }
}

/// Hashes a stretch of a file.
fn hash(mut file: &File, range: Range<u64>, hasher: &mut blake3::Hasher) -> io::Result<()> {
    file.seek(SeekFrom::Start(range.start))?;
    hasher.update_reader(file.take(range.end - range.start)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Holder;

    #[test]
    fn only_what_is_known_to_be_on_the_disk_is_gone_on_with() {
        let outer = tempfile::tempdir().unwrap();
        let holder = Holder::this_process("test", 0);
        let dir = Held::acquire(&outer.path().join("work"), holder, &mut || false).unwrap();
        let of = PartOf {
            url: "http://host/a".into(),
            validator: "\"1\"".into(),
            bytes: 6,
            is_csv: false,
        };
        let mut part = dir.open_part().unwrap();
        assert_eq!((part.of(), part.length()), (None, 0));
        part.begin(Some(of.clone())).unwrap();
        part.write(b"abc").unwrap();
        assert!(!dir.has_part());
        part.keep().unwrap();
        part.write(b"zzz").unwrap();
        drop(part);
        assert!(dir.has_part());
        let mut part = dir.open_part().unwrap();
        assert_eq!((part.of(), part.length()), (Some(&of), 3));
        part.write(b"def").unwrap();
        let place = part.finish(&dir, false).unwrap();
        assert_eq!(std::fs::read(&place).unwrap(), b"abcdef");

        // Until there is a plan it may be looked at again, but for its last byte.
        assert!(dir.has_part());
        let mut part = dir.open_part().unwrap();
        assert_eq!((part.of(), part.length()), (Some(&of), 5));
        part.write(b"f").unwrap();
        std::fs::write(part.finish(&dir, false).unwrap().with_file_name(MANIFEST), "{}").unwrap();
        assert_eq!(dir.open_part().unwrap().of(), None);
        assert_eq!(std::fs::read(&place).unwrap(), b"abcdef");
        dir.forget_part().unwrap();
        assert!(!dir.has_part());

        // Bytes of another input are nothing, and neither is another run's note.
        let mut part = dir.open_part().unwrap();
        part.begin(Some(of.clone())).unwrap();
        part.write(b"abc").unwrap();
        part.keep().unwrap();
        let (path, note) = (part.path.clone(), part.note.clone());
        drop(part);
        std::fs::write(&path, b"abX").unwrap();
        assert_eq!(dir.open_part().unwrap().of(), None);
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(dir.open_part().unwrap().of(), Some(&of));
        let text = std::fs::read_to_string(&note).unwrap();
        std::fs::write(&note, text.replace(dir.run(), &"f".repeat(32))).unwrap();
        assert_eq!(dir.open_part().unwrap().of(), None);

        // A file that is shorter than its note says is nothing.
        let mut part = dir.open_part().unwrap();
        part.begin(Some(of)).unwrap();
        part.write(b"abc").unwrap();
        part.keep().unwrap();
        std::fs::write(&part.path, b"ab").unwrap();
        assert_eq!(dir.open_part().unwrap().of(), None);
    }
}
