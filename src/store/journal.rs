//! Journals: a shard's append-only file of outcomes, and how one is read back after anything.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::Record;
use super::{Error, disk};
use crate::guard::Guard;

/// A shard's journal, open for appending.
#[derive(Debug)]
pub struct Journal {
    file: Arc<File>,
    path: PathBuf,
    length: u64,
}

/// Makes what was appended to a journal durable, from another thread than the one that appends.
#[derive(Debug, Clone)]
pub struct Syncer {
    file: Arc<File>,
    path: PathBuf,
}

impl Journal {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = disk::open_append(path)?;
        let length = file.metadata().map_err(disk::context("open", path))?.len();
        Ok(Self { file: Arc::new(file), path: path.to_owned(), length })
    }

    /// How many bytes it has.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends whole lines with one `write(2)`, and says where they begin. They survive the death
    /// of this process from here on, but not yet a power cut.
    ///
    /// # Errors
    /// When not all could be written. What was is cut off again, so that nothing is ever appended
    /// behind half a line.
    pub fn append(&mut self, lines: &[u8]) -> Result<u64, Error> {
        use std::io::Write;
        let offset = self.length;
        if let Err(error) = (&*self.file).write_all(lines) {
            // If this fails as well, the next start finds the torn tail and cuts it.
            let _ = self.file.set_len(offset);
            return Err(disk::context("append to", &self.path)(error));
        }
        self.length += lines.len() as u64;
        Ok(offset)
    }

    /// The other half: what a committing thread needs.
    #[must_use]
    pub fn syncer(&self) -> Syncer {
        Syncer { file: Arc::clone(&self.file), path: self.path.clone() }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Cuts the journal's tail off, durably.
    pub(super) fn truncate(&mut self, length: u64) -> Result<(), Error> {
        self.file
            .set_len(length)
            .and_then(|()| self.file.sync_all())
            .map_err(disk::context("cut", &self.path))?;
        self.length = length;
        Ok(())
    }
}

impl Syncer {
    /// Waits until everything appended so far is on the disk.
    ///
    /// # Errors
    /// When the disk says it is not. The pages may be lost then, whatever a second call says, so
    /// the run must end.
    pub fn sync(&self) -> Result<(), Error> {
        if Guard::JournalSync.is_left_out() {
            return Ok(());
        }
        self.file.sync_data().map_err(disk::context("sync", &self.path))
    }
}

/// A stretch of a journal.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// A whole record, and its line.
    Record { offset: u64, line: &'a [u8], record: Record<'a> },
    /// Bytes that are none.
    Bad { offset: u64, bytes: &'a [u8], reason: &'static str },
}

/// How much is read at a time.
const BLOCK: usize = 1 << 18;

/// Reads a journal from `start` to its end, record by record. Says how long it is.
pub(super) fn scan(
    file: &File,
    path: &Path,
    start: u64,
    visit: &mut dyn FnMut(Piece<'_>) -> Result<(), Error>,
) -> Result<u64, Error> {
    let (mut buffer, mut offset) = (Vec::new(), start);
    loop {
        let kept = buffer.len();
        buffer.resize(kept + BLOCK, 0);
        let count = file
            .read_at(&mut buffer[kept..], offset + kept as u64)
            .map_err(disk::context("read", path))?;
        buffer.truncate(kept + count);
        if count == 0 {
            break;
        }
        let mut done = 0;
        // Only the new bytes can hold a line end.
        for end in memchr::memchr_iter(b'\n', &buffer[kept..]).map(|at| kept + at + 1) {
            visit_line(offset + done as u64, &buffer[done..end], visit)?;
            done = end;
        }
        buffer.drain(..done);
        offset += done as u64;
    }
    if !buffer.is_empty() {
        visit(Piece::Bad { offset, bytes: &buffer, reason: "no line end" })?;
    }
    Ok(offset + buffer.len() as u64)
}

fn visit_line(
    offset: u64,
    line: &[u8],
    visit: &mut dyn FnMut(Piece<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    match Record::decode(line) {
        Ok(record) => visit(Piece::Record { offset, line, record }),
        Err(reason) => salvage(offset, line, reason, visit),
    }
}

/// A damaged line may be two records whose line end was damaged: what is whole of it is kept.
fn salvage(
    offset: u64,
    line: &[u8],
    reason: &'static str,
    visit: &mut dyn FnMut(Piece<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    const CHECKSUM: usize = 9;
    let second = memchr::memmem::find_iter(line, b" {\"r")
        .filter_map(|at| (at + 1).checked_sub(CHECKSUM).filter(|start| *start > 0))
        .find_map(|start| Record::decode(&line[start..]).ok().map(|record| (start, record)));
    let Some((start, record)) = second else {
        return visit(Piece::Bad { offset, bytes: line, reason });
    };
    let mut first = line[..start - 1].to_vec();
    first.push(b'\n');
    let behind = offset + start as u64;
    match Record::decode(&first) {
        Ok(record) => {
            visit(Piece::Record { offset, line: &first, record })?;
            let bytes = &line[start - 1..start];
            visit(Piece::Bad { offset: behind - 1, bytes, reason: "damaged line end" })?;
        }
        Err(_) => visit(Piece::Bad { offset, bytes: &line[..start], reason })?,
    }
    visit(Piece::Record { offset: behind, line: &line[start..], record })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(row: u64) -> Vec<u8> {
        let mut line = Vec::new();
        Record::Retry { row, at_ms: 1, attempts: b"[]" }.encode(&mut line);
        line
    }

    fn rows_and_damage(bytes: &[u8]) -> (Vec<u64>, Vec<(u64, usize)>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path).unwrap();
        journal.append(bytes).unwrap();
        let (mut rows, mut bad) = (Vec::new(), Vec::new());
        let length = scan(journal.file(), &path, 0, &mut |piece| {
            match piece {
                Piece::Record { record, line, .. } => {
                    assert!(Record::decode(line).is_ok());
                    rows.extend(record.row());
                }
                Piece::Bad { offset, bytes, .. } => bad.push((offset, bytes.len())),
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(length, bytes.len() as u64);
        (rows, bad)
    }

    #[test]
    fn one_flipped_byte_costs_at_most_one_record() {
        let lines = [retry(1), retry(2), retry(3)];
        let whole = lines.concat();
        let last = whole.len() - 1;
        for at in 0..whole.len() {
            for value in [0, b'\n', whole[at] ^ 1, whole[at] ^ 0x80] {
                if value == whole[at] {
                    continue;
                }
                let mut damaged = whole.clone();
                damaged[at] = value;
                let (rows, bad) = rows_and_damage(&damaged);
                assert!(rows.len() >= 2, "byte {at} = {value}: rows {rows:?}");
                assert!(!bad.is_empty(), "byte {at} = {value} is noticed");
                let end_of_line = whole[at] == b'\n' && at != last;
                assert_eq!(rows.len() == 3, end_of_line, "byte {at} = {value}: rows {rows:?}");
            }
        }
    }

    #[test]
    fn tails_of_any_kind_are_bad_and_nothing_before_them() {
        let lines = [retry(1), retry(2)].concat();
        let first = retry(1).len();
        for cut in first + 1..lines.len() {
            let (rows, bad) = rows_and_damage(&lines[..cut]);
            assert_eq!(rows, [1]);
            assert_eq!(bad, [(first as u64, cut - first)]);
        }
        for tail in [vec![0; 4096], b"garbage\nmore".to_vec(), vec![b'\n'; 3]] {
            let (rows, bad) = rows_and_damage(&[lines.clone(), tail].concat());
            assert_eq!(rows, [1, 2]);
            assert!(!bad.is_empty());
        }
    }

    #[test]
    fn lines_longer_than_a_block_are_read_whole() {
        let mut line = Vec::new();
        let attempts = format!("[\"{}\"]", "x".repeat(3 * BLOCK));
        Record::Retry { row: 1, at_ms: 1, attempts: attempts.as_bytes() }.encode(&mut line);
        let (rows, bad) = rows_and_damage(&[line, retry(2)].concat());
        assert_eq!((rows, bad), (vec![1, 2], vec![]));
    }
}
