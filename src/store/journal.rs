//! Journals: a shard's append-only file of outcomes, and how one is read back after anything.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::Record;
use super::{ChecksumSeed, Error, Identity, disk};
use crate::guard::Guard;

/// A shard's journal, open for appending.
#[derive(Debug)]
pub struct Journal {
    file: Arc<File>,
    path: PathBuf,
    length: u64,
    seed: ChecksumSeed,
    // The first record, which goes before the first lines: an empty journal belongs to nobody.
    header: Vec<u8>,
}

/// Makes what was appended to a journal durable, from another thread than the one that appends.
#[derive(Debug, Clone)]
pub struct Syncer {
    file: Arc<File>,
    path: PathBuf,
}

impl Journal {
    /// Opens a shard's journal, making it if need be.
    pub(super) fn open(path: &Path, identity: &Identity) -> Result<Self, Error> {
        let file = disk::open_append(path)?;
        assert_belongs(&file, path, identity)?;
        let length = file.metadata().map_err(disk::context("open", path))?.len();
        let (file, seed, mut header) = (Arc::new(file), identity.seed(), Vec::new());
        identity.header().encode(&mut header, seed);
        Ok(Self { file, path: path.to_owned(), length, seed, header })
    }

    /// What the checksums of its records begin with.
    #[must_use]
    pub fn seed(&self) -> ChecksumSeed {
        self.seed
    }

    /// Where the lines that are appended next will begin.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        if self.length == 0 { self.header.len() as u64 } else { self.length }
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
        let (before, offset) = (self.length, self.next_offset());
        let first: Vec<u8>;
        let written = if before == 0 && !lines.is_empty() {
            first = [&self.header, lines].concat();
            &first
        } else {
            lines
        };
        if let Err(error) = (&*self.file).write_all(written) {
            // If this fails as well, the next start finds the torn tail and cuts it.
            let _ = self.file.set_len(before);
            return Err(disk::context("append to", &self.path)(error));
        }
        self.length += written.len() as u64;
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

/// Makes sure that a journal is of a shard, as far as its first record can be read. Damage is no
/// matter of this: no record is read as one of another journal than its own.
pub(super) fn assert_belongs(file: &File, path: &Path, identity: &Identity) -> Result<(), Error> {
    const LONGEST: usize = 256;
    let mut buffer = [0; LONGEST];
    let count = file.read_at(&mut buffer, 0).map_err(disk::context("read", path))?;
    let end = memchr::memchr(b'\n', &buffer[..count]).map_or(0, |at| at + 1);
    match Record::decode(&buffer[..end], identity.seed()) {
        Ok(record @ Record::Begin { .. }) => identity.assert_is_begun(&record, path),
        _ => Ok(()),
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

/// What a journal is read by.
pub(super) type Visit<'v> = dyn FnMut(Piece<'_>) -> Result<(), Error> + 'v;

/// Reads a journal from `start` to its end, record by record. Says how long it is.
pub(super) fn scan(
    file: &File,
    path: &Path,
    (start, seed): (u64, ChecksumSeed),
    visit: &mut Visit<'_>,
) -> Result<u64, Error> {
    scan_by(BLOCK, file, path, (start, seed), visit)
}

/// Reads a journal `block` bytes at a time.
pub(super) fn scan_by(
    block: usize,
    file: &File,
    path: &Path,
    (start, seed): (u64, ChecksumSeed),
    visit: &mut Visit<'_>,
) -> Result<u64, Error> {
    let (mut buffer, mut offset) = (Vec::new(), start);
    loop {
        let kept = buffer.len();
        buffer.resize(kept + block, 0);
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
            visit_line(offset + done as u64, &buffer[done..end], seed, visit)?;
            done = end;
        }
        buffer.drain(..done);
        offset += done as u64;
    }
    if !buffer.is_empty() {
        salvage((offset, &buffer), seed, "no line end", visit)?;
    }
    Ok(offset + buffer.len() as u64)
}

fn visit_line(
    offset: u64,
    line: &[u8],
    seed: ChecksumSeed,
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    match Record::decode(line, seed) {
        Ok(record) => visit(Piece::Record { offset, line, record }),
        Err(reason) => salvage((offset, line), seed, reason, visit),
    }
}

/// A damaged line may be several records whose line ends were damaged: what is whole of it is kept.
fn salvage(
    (offset, line): (u64, &[u8]),
    seed: ChecksumSeed,
    reason: &'static str,
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    // JSON has no digits right before ` {"`, neither in a string nor between values: inside of a
    // whole record no other can seem to begin.
    let heads = memchr::memmem::find_iter(line, b" {\"r").filter_map(|at| at.checked_sub(8));
    let heads = heads.filter(|at| line[*at..at + 8].iter().all(u8::is_ascii_hexdigit));
    let mut begin = 0;
    for end in heads.filter(|at| *at > 0).chain([line.len()]) {
        salvage_part((offset + begin as u64, &line[begin..end]), seed, reason, visit)?;
        begin = end;
    }
    Ok(())
}

/// A part of a damaged line that holds one record at most: at its beginning, with whatever came in
/// the place of its line end.
fn salvage_part(
    (offset, part): (u64, &[u8]),
    seed: ChecksumSeed,
    reason: &'static str,
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    if let Ok(record) = Record::decode(part, seed) {
        return visit(Piece::Record { offset, line: part, record });
    }
    let end = memchr::memrchr(b'}', part).map_or(0, |brace| brace + 1);
    let line = [&part[..end], b"\n"].concat();
    // Where nothing stands behind it, the writing was cut off, and nobody was told it is done.
    let Some(record) = Record::decode(&line, seed).ok().filter(|_| end < part.len()) else {
        return visit(Piece::Bad { offset, bytes: part, reason });
    };
    visit(Piece::Record { offset, line: &line, record })?;
    let bytes = &part[end..];
    visit(Piece::Bad { offset: offset + end as u64, bytes, reason: "damaged line end" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity::known(0)
    }

    fn retry(row: u64) -> Vec<u8> {
        let mut line = Vec::new();
        Record::Retry { row, at_ms: 1, attempts: b"[]" }.encode(&mut line, identity().seed());
        line
    }

    fn rows_and_damage(bytes: &[u8]) -> (Vec<u64>, Vec<(u64, usize)>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        std::fs::write(&path, bytes).unwrap();
        let (journal, seed) = (Journal::open(&path, &identity()).unwrap(), identity().seed());
        let (mut rows, mut bad) = (Vec::new(), Vec::new());
        let length = scan(journal.file(), &path, (0, seed), &mut |piece| {
            match piece {
                Piece::Record { record, line, .. } => {
                    assert!(Record::decode(line, seed).is_ok());
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
                let end_of_line = whole[at] == b'\n';
                assert_eq!(rows.len() == 3, end_of_line, "byte {at} = {value}: rows {rows:?}");
            }
        }
    }

    #[test]
    fn journal_of_another_place_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path, &identity()).unwrap();
        assert_eq!(journal.length(), 0, "an empty one belongs to nobody");
        let offset = journal.append(&retry(1)).unwrap();
        assert_eq!(journal.append(&retry(2)).unwrap(), offset + retry(1).len() as u64);
        let other = || "f".repeat(32);
        for theirs in [
            Identity { run: other(), ..identity() },
            Identity { plan: other(), ..identity() },
            Identity { generation: 2, ..identity() },
            Identity { shard: Some(1), ..identity() },
        ] {
            let Err(Error::Misplaced { theirs: said, ours, .. }) = Journal::open(&path, &theirs)
            else {
                panic!("{theirs:?}")
            };
            assert_eq!((*said, *ours), (identity(), theirs.clone()));
            let mut bad = 0;
            scan(journal.file(), &path, (0, theirs.seed()), &mut |piece| {
                bad += usize::from(matches!(piece, Piece::Bad { .. }));
                Ok(())
            })
            .unwrap();
            assert_eq!(bad, 2, "nor is a record read whose journal does not say so any more");
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
    fn records_survive_when_all_their_line_ends_are_damaged() {
        let parts = [retry(1), retry(2), retry(3), retry(4)];
        let mut glued = parts.concat();
        let lines: Vec<usize> = (1..4).map(|n| parts[..n].concat().len() - 1).collect();
        lines.iter().for_each(|end| glued[*end] = 0);
        let (rows, bad) = rows_and_damage(&glued);
        assert_eq!(rows, [1, 2, 3, 4]);
        assert_eq!(bad, lines.iter().map(|end| (*end as u64, 1)).collect::<Vec<_>>());

        let first = retry(1).len() as u64;
        glued.splice(lines[0]..=lines[0], [0; 512]);
        let (rows, bad) = rows_and_damage(&glued);
        assert_eq!((rows, bad[0]), (vec![1, 2, 3, 4], (first - 1, 512)));
    }

    #[test]
    fn lines_longer_than_a_block_are_read_whole() {
        let mut line = Vec::new();
        let attempts = format!("[\"{}\"]", "x".repeat(3 * BLOCK));
        Record::Retry { row: 1, at_ms: 1, attempts: attempts.as_bytes() }
            .encode(&mut line, identity().seed());
        let (rows, bad) = rows_and_damage(&[line, retry(2)].concat());
        assert_eq!((rows, bad), (vec![1, 2], vec![]));
    }
}
