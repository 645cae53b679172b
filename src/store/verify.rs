//! A shard's journal read back whole: before it is sealed, when outputs are made of it, and by who
//! looks how far it is.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::journal::{Piece, assert_belongs, scan};
use super::record::{Outcome, Record};
use super::shard::is_of;
use super::{ChecksumSeed, Error, Identity, ShardEntry, ShardState, WorkDir, disk};
use crate::job::OutcomeKind;

/// What a journal came to that was read back whole and is sound.
#[derive(Debug)]
pub struct Verified {
    /// The journal's length.
    pub length: u64,
    /// The journal's blake3 hash, as hex.
    pub blake3: String,
    /// Rows with an answer, rows that failed, rows that are invalid.
    pub rows: (u64, u64, u64),
    /// Rows called again after a crash, as the journal notes them.
    pub repeated: u64,
    /// When the first and the last outcome were known.
    pub at_ms: (u64, u64),
}

impl WorkDir {
    /// Reads a shard's journal back, checks every record of it and shows it.
    ///
    /// # Errors
    /// [`Error::Unsound`] when a record is damaged or a row has no outcome.
    pub fn verify_shard(
        &self,
        number: u32,
        entry: &ShardEntry,
        visit: &mut dyn FnMut(&Record<'_>),
    ) -> Result<Verified, Error> {
        let path = self.shard_dir(number).join("journal");
        let file = disk::open(&path)?;
        let identity = &self.identity(number);
        read_back(&file, &path, (entry, identity), &mut |_, _, record| visit(record))
    }
}

impl WorkDir {
    /// Makes sure that a journal that was read back is the one that was sealed.
    ///
    /// # Errors
    /// [`Error::Unsound`] when it is another, or none was sealed.
    pub fn is_as_sealed(&self, number: u32, verified: &Verified) -> Result<(), Error> {
        if self.seal(number)?.is_some_and(|seal| seal.blake3 == verified.blake3) {
            return Ok(());
        }
        let reason = "its journal is not the one that was sealed".to_owned();
        Err(Error::Unsound { shard: number, reason })
    }
}

impl WorkDir {
    /// The length of a shard's journal; 0 where there is none.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn journal_bytes(&self, shard: u32) -> Result<u64, Error> {
        let path = self.shard_dir(shard).join("journal");
        match std::fs::metadata(&path) {
            Ok(meta) => Ok(meta.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(disk::context("read", &path)(error)),
        }
    }

    /// The blake3 hash of a shard's journal as it is; that of nothing where there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn journal_hash(&self, shard: u32) -> Result<blake3::Hash, Error> {
        let path = self.shard_dir(shard).join("journal");
        let mut hasher = blake3::Hasher::new();
        match std::fs::File::open(&path).and_then(|file| hasher.update_reader(file).map(|_| ())) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(disk::context("read", &path)(error))
            }
            _ => Ok(hasher.finalize()),
        }
    }
}

/// Is shown a record: where it begins, its line, what it says.
pub(super) type Visit<'v> = dyn FnMut(u64, &[u8], &Record<'_>) + 'v;

/// Shows the whole records of a shard's journal; the rest is passed over.
pub(super) fn whole_records(
    file: &File,
    path: &Path,
    (entry, identity): (&ShardEntry, &Identity),
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    assert_belongs(file, path, identity)?;
    scan(file, path, (0, identity.seed()), &mut |piece| {
        if let Piece::Record { offset, line, record } = piece
            && is_of(&record, entry, identity)
            && !matches!(record, Record::Begin { .. })
        {
            visit(offset, line, &record);
        }
        Ok(())
    })?;
    Ok(())
}

pub(super) fn read_back(
    file: &File,
    path: &Path,
    (entry, identity): (&ShardEntry, &Identity),
    visit: &mut Visit<'_>,
) -> Result<Verified, Error> {
    /// Long stretches are hashed several times as fast as single lines.
    const STRETCH: usize = 1 << 17;
    let unsound = |reason: String| Error::Unsound { shard: identity.number(), reason };
    assert_belongs(file, path, identity)?;
    let (mut hasher, mut unhashed) = (blake3::Hasher::new(), Vec::new());
    let mut state = ShardState::new(entry);
    let (mut length, mut repeated, mut at_ms) = (0, 0, (u64::MAX, 0));
    scan(file, path, (0, identity.seed()), &mut |piece| match piece {
        Piece::Record { offset, line, record }
            if is_of(&record, entry, identity)
                && (offset > 0 || matches!(record, Record::Begin { .. })) =>
        {
            unhashed.extend_from_slice(line);
            if unhashed.len() >= STRETCH {
                hasher.update(&unhashed);
                unhashed.clear();
            }
            length = offset + line.len() as u64;
            repeated = u64::saturating_add(repeated, record.repeated());
            if let Record::Outcome(outcome) = &record {
                at_ms = (at_ms.0.min(outcome.at_ms), at_ms.1.max(outcome.at_ms));
                state.note(outcome.row, Some(outcome.kind));
            }
            if !matches!(record, Record::Begin { .. }) {
                visit(offset, line, &record);
            }
            Ok(())
        }
        Piece::Record { offset: 0, .. } => {
            Err(unsound("its journal does not say what it belongs to".to_owned()))
        }
        Piece::Record { offset, .. } => {
            Err(unsound(format!("the record at byte {offset} is of another shard")))
        }
        Piece::Bad { offset, reason, .. } => {
            Err(unsound(format!("the record at byte {offset} is damaged: {reason}")))
        }
    })?;
    let rows = state.counts();
    let done = rows.0 + rows.1 + rows.2;
    if done != entry.wanted {
        let wanted = entry.wanted;
        return Err(unsound(format!("{done} of its {wanted} rows have an outcome")));
    }
    let blake3 = hasher.update(&unhashed).finalize().to_hex().to_string();
    Ok(Verified { length, blake3, rows, repeated, at_ms })
}

/// Reads shards' journals back row by row, one after another in the same memory.
#[derive(Debug, Default)]
pub struct ShardReader {
    held: Vec<u8>,
    places: Vec<Place>,
}

/// A shard's journal that was read, and whose rows can be shown.
#[derive(Debug)]
pub struct ReadShard<'r> {
    bytes: Bytes<'r>,
    // Sorted by row, then by place.
    places: &'r [Place],
    seed: ChecksumSeed,
}

/// A journal's bytes: in memory when they are few, else read record by record.
#[derive(Debug)]
enum Bytes<'r> {
    Held(&'r [u8]),
    File(File, PathBuf),
}

/// Where a journal has what of which row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    row: u64,
    offset: u64,
    length: u32,
    // 0 retry, 1 ok, 2 failed, 3 invalid.
    kind: u8,
}

/// Journals up to this size are held in memory while they are read in row order.
const HELD: u64 = 32 << 20;

impl ShardReader {
    /// Reads a shard's journal back and checks every record of it. Gives what it came to as well.
    ///
    /// # Errors
    /// [`Error::Unsound`] when a record is damaged or a row has no outcome.
    pub fn read(
        &mut self,
        dir: &WorkDir,
        number: u32,
        entry: &ShardEntry,
    ) -> Result<(ReadShard<'_>, Verified), Error> {
        let identity = &dir.identity(number);
        self.gather(dir, identity, |file, path, visit| {
            read_back(file, path, (entry, identity), visit)
        })
    }

    /// As [`ShardReader::read_what_is_there`]; where there is no journal, a shard without rows.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn read_finished(
        &mut self,
        dir: &WorkDir,
        number: u32,
        entry: &ShardEntry,
    ) -> Result<ReadShard<'_>, Error> {
        let read = self.read_what_is_there(dir, number, entry)?;
        Ok(read.unwrap_or(ReadShard {
            bytes: Bytes::Held(&[]),
            places: &[],
            seed: dir.identity(number).seed(),
        }))
    }

    /// Reads what a shard's journal has of rows, whether or not all of them are done. What is no
    /// whole record is passed over. Nothing where there is no journal.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn read_what_is_there(
        &mut self,
        dir: &WorkDir,
        number: u32,
        entry: &ShardEntry,
    ) -> Result<Option<ReadShard<'_>>, Error> {
        if !dir.shard_dir(number).join("journal").exists() {
            return Ok(None);
        }
        let identity = &dir.identity(number);
        let (read, ()) = self.gather(dir, identity, |file, path, visit| {
            whole_records(file, path, (entry, identity), visit)
        })?;
        Ok(Some(read))
    }

    /// Gathers what `read` shows of a shard's journal.
    fn gather<T>(
        &mut self,
        dir: &WorkDir,
        identity: &Identity,
        read: impl FnOnce(&File, &Path, &mut Visit<'_>) -> Result<T, Error>,
    ) -> Result<(ReadShard<'_>, T), Error> {
        let path = dir.shard_dir(identity.number()).join("journal");
        let file = disk::open(&path)?;
        let length = file.metadata().map_err(disk::context("read", &path))?.len();
        let is_held = length <= HELD;
        let Self { held, places } = self;
        held.clear();
        places.clear();
        if is_held {
            held.reserve_exact(usize::try_from(length).unwrap_or_default());
        }
        let result = read(&file, &path, &mut |offset, line, record| {
            let place = if is_held { held.len() as u64 } else { offset };
            places.extend(Place::of(record, place, line.len()));
            if is_held {
                held.extend_from_slice(line);
            }
        })?;
        places.sort_unstable();
        let bytes = if is_held { Bytes::Held(held) } else { Bytes::File(file, path) };
        Ok((ReadShard { bytes, places, seed: identity.seed() }, result))
    }
}

impl Place {
    fn of(record: &Record<'_>, offset: u64, length: usize) -> Option<Self> {
        let (row, kind) = match record {
            Record::Outcome(outcome) => (
                outcome.row,
                match outcome.kind {
                    OutcomeKind::Ok => 1,
                    OutcomeKind::Failed => 2,
                    OutcomeKind::Invalid => 3,
                },
            ),
            Record::Retry { row, .. } => (*row, 0),
            Record::Repeated { .. } | Record::Begin { .. } => return None,
        };
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        Some(Self { row, offset, length, kind })
    }
}

/// The places of each row, row by row.
fn rows(places: &[Place]) -> impl Iterator<Item = &[Place]> {
    places.chunk_by(|a, b| a.row == b.row)
}

/// What a journal has of one row.
#[derive(Debug)]
pub struct RowRecords<'a> {
    /// What became of it.
    pub outcome: Outcome<'a>,
    /// All records of it, in the order in which they were written.
    pub all: Vec<Record<'a>>,
}

impl ReadShard<'_> {
    /// Shows every row, in order.
    ///
    /// # Errors
    /// When the journal cannot be read a second time, or `visit` fails.
    pub fn for_each_row<E: From<Error>>(
        &self,
        visit: &mut dyn FnMut(RowRecords<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for_each_row_of(std::slice::from_ref(self), &mut |_, row| visit(row))
    }
}

/// Shows every row that shards of one range have, in order, and for each row the shards one after the
/// other: `visit` is told which it is.
///
/// # Errors
/// As [`ReadShard::for_each_row`].
pub fn for_each_row_of<E: From<Error>>(
    shards: &[ReadShard<'_>],
    visit: &mut dyn FnMut(usize, RowRecords<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut all: Vec<_> = shards.iter().map(|shard| rows(shard.places).peekable()).collect();
    let mut buffer = Vec::new();
    while let Some(row) = all.iter_mut().filter_map(|rows| Some(rows.peek()?[0].row)).min() {
        for (number, (shard, rows)) in shards.iter().zip(&mut all).enumerate() {
            let Some(places) = rows.next_if(|places| places[0].row == row) else { continue };
            let Some(best) = best(places) else { continue };
            let all = shard.bytes.records(places, shard.seed, &mut buffer)?;
            if let Some(Record::Outcome(outcome)) = all.get(best) {
                visit(number, RowRecords { outcome: *outcome, all })?;
            }
        }
    }
    Ok(())
}

impl ReadShard<'_> {
    /// All records of a row, whether or not there is an outcome among them.
    ///
    /// # Errors
    /// When the journal cannot be read a second time.
    pub fn show_records<T>(
        &self,
        row: u64,
        visit: impl FnOnce(&[Record<'_>]) -> T,
    ) -> Result<T, Error> {
        let start = self.places.partition_point(|place| place.row < row);
        let end = self.places.partition_point(|place| place.row <= row);
        let mut buffer = Vec::new();
        Ok(visit(&self.bytes.records(&self.places[start..end], self.seed, &mut buffer)?))
    }
}

impl Bytes<'_> {
    fn records<'a>(
        &'a self,
        places: &[Place],
        seed: ChecksumSeed,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Vec<Record<'a>>, Error> {
        let mut records = Vec::with_capacity(places.len());
        match self {
            Self::Held(bytes) => {
                for place in places {
                    let start = usize::try_from(place.offset).unwrap_or(usize::MAX);
                    let line = bytes.get(start..start + place.length as usize);
                    records.extend(line.and_then(|line| Record::decode(line, seed).ok()));
                }
            }
            Self::File(file, path) => {
                buffer.clear();
                for place in places {
                    let start = buffer.len();
                    buffer.resize(start + place.length as usize, 0);
                    file.read_exact_at(&mut buffer[start..], place.offset)
                        .map_err(disk::context("read", path))?;
                }
                let mut rest = buffer.as_slice();
                for place in places {
                    let (line, behind) = rest.split_at(place.length as usize);
                    records.extend(Record::decode(line, seed).ok());
                    rest = behind;
                }
            }
        }
        if records.len() == places.len() {
            return Ok(records);
        }
        let path = match self {
            Self::File(_, path) => path.clone(),
            Self::Held(_) => Path::new("journal").to_owned(),
        };
        Err(Error::Damaged { path, reason: "it changed while it was read".to_owned() })
    }
}

impl WorkDir {
    /// Looks how far a shard is that may be worked at this moment: whole records count, the rest
    /// is passed over.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn peek_shard(
        &self,
        number: u32,
        entry: &ShardEntry,
        visit: &mut dyn FnMut(&Record<'_>),
    ) -> Result<ShardState, Error> {
        let mut state = ShardState::new(entry);
        let path = self.shard_dir(number).join("journal");
        if !path.exists() {
            return Ok(state);
        }
        let identity = &self.identity(number);
        whole_records(&disk::open(&path)?, &path, (entry, identity), &mut |_, _, record| {
            if let Record::Outcome(outcome) = record {
                state.note(outcome.row, Some(outcome.kind));
            }
            visit(record);
        })?;
        Ok(state)
    }
}

/// Which of a row's records counts: the first success, else the last failure.
fn best(places: &[Place]) -> Option<usize> {
    places
        .iter()
        .position(|place| place.kind == 1)
        .or_else(|| places.iter().rposition(|place| place.kind != 0))
}
