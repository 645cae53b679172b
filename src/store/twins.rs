//! Rows that ask what another row asks: a file in their shard's directory that the plan writes, and
//! what follows from it for counts and outputs.
//!
//! Of rows that ask the same, one is called: the *original*. The others are its *twins*: they have no
//! records, and take its outcome when outputs are made. A shard's file names the twins among its
//! rows, each with its original wherever that is, and the originals among its rows, each with the
//! number of its twins, so that a shard can be counted without a look at others.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::verify::{Visit, read_back, whole_records};
use super::{
    Asked, ChecksumSeed, Error, Held, Manifest, Outcome, Record, Rename, RowHashes, ShardEntry,
    Twinned, WorkDir, disk,
};
use crate::job::{Id, IdHash, OutcomeKind};

/// A row that takes the outcome of another row.
#[derive(Debug, Clone)]
pub struct Twin {
    /// The row's number.
    pub row: u64,
    /// The row whose outcome it takes.
    pub of: u64,
    /// The generation in which it became a twin, and the hash of its prompt: what a later plan
    /// compares to know whether the outcome is still one of its question.
    pub asked: Asked,
    /// Its id's JSON token.
    pub id: Id,
    /// The row, where envelopes are to show it.
    pub input: Option<Box<RawValue>>,
}

/// A row whose outcome others take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Original {
    /// The row's number.
    pub row: u64,
    /// How many others.
    pub twins: u64,
}

/// What the plan says of a shard's rows that ask what others ask; each list in row order.
#[derive(Debug, Clone, Default)]
pub struct Twins {
    /// Rows that take the outcome of another row.
    pub twins: Vec<Twin>,
    /// Rows whose outcome others take.
    pub originals: Vec<Original>,
}

/// A line of the file: of a twin, or of an original.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    row: u64,
    of: Option<u64>,
    #[serde(borrow)]
    asked: Option<(u32, Cow<'a, str>)>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    twins: Option<u64>,
}

/// Reads the file; nothing where a line is not as [`spell`] writes it.
pub(super) fn parse(bytes: &[u8]) -> Option<Twins> {
    let mut all = Twins::default();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line).ok()? {
            Line {
                row,
                of: Some(of),
                asked: Some((generation, prompt)),
                id,
                input,
                twins: None,
            } => {
                let prompt =
                    u64::from_str_radix(&prompt, 16).ok().filter(|_| prompt.len() == 16)?;
                let id = Id::parse(id?.get()).ok()?;
                let asked = Asked { generation, prompt, is_accepted: false };
                all.twins.push(Twin { row, of, asked, id, input: input.map(ToOwned::to_owned) });
            }
            Line { row, of: None, asked: None, id: None, input: None, twins: Some(twins) } => {
                all.originals.push(Original { row, twins });
            }
            _ => return None,
        }
    }
    Some(all)
}

pub(super) fn spell(all: &Twins) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to a Vec cannot fail.
    for Twin { row, of, asked: Asked { generation, prompt, .. }, id, input } in &all.twins {
        let _ = write!(
            bytes,
            "{{\"row\":{row},\"of\":{of},\"asked\":[{generation},\"{prompt:016x}\"],\"id\":{id}"
        );
        if let Some(input) = input {
            let _ = write!(bytes, ",\"input\":{input}");
        }
        bytes.extend_from_slice(b"}\n");
    }
    for Original { row, twins } in &all.originals {
        let _ = writeln!(bytes, "{{\"row\":{row},\"twins\":{twins}}}");
    }
    bytes
}

impl WorkDir {
    /// What the plan says of a shard's rows that ask what others ask.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the file is not the one that was planned.
    pub fn twins(&self, number: u32, entry: &ShardEntry) -> Result<Twins, Error> {
        let Some(planned) = &entry.twins else { return Ok(Twins::default()) };
        let path = self.shard_dir(number).join("twins");
        let bytes = disk::read_if_there(&path)?.unwrap_or_default();
        let damaged = |reason: &str| Error::Damaged { path, reason: reason.to_owned() };
        if blake3::hash(&bytes).to_hex().as_str() != planned.blake3 {
            return Err(damaged("it is not what was planned"));
        }
        parse(&bytes).ok_or_else(|| damaged("a line is not readable"))
    }

    /// The rows of a shard that are not called under the ids that they have in the input: duplicates,
    /// as [`WorkDir::duplicates`] gives them, and twins, which are left out of the work.
    ///
    /// # Errors
    /// When a file of the plan's is not as it was planned.
    pub fn exceptions(&self, number: u32, entry: &ShardEntry) -> Result<Vec<Rename>, Error> {
        let mut all = self.duplicates(number, entry)?;
        let twins = self.twins(number, entry)?.twins;
        all.extend(twins.into_iter().map(|twin| Rename::left_out(twin.row)));
        Ok(all)
    }

    /// What the rows of a shard came to, their twins included, as far as they have outcomes. Where the
    /// shard is open, its records are shown.
    ///
    /// # Errors
    /// When files cannot be read.
    pub fn tally(
        &self,
        number: u32,
        entry: &ShardEntry,
        visit: &mut dyn FnMut(&Record<'_>),
    ) -> Result<Tally, Error> {
        let seal = self.seal(number)?;
        let own = match &seal {
            Some(seal) if seal.failed + seal.invalid == 0 || entry.served() == 0 => {
                let tally = Tally::of((seal.ok, seal.failed, seal.invalid));
                return Ok(Tally { ok: tally.ok + entry.served(), ..tally });
            }
            Some(_) => self.peek_shard(number, entry, &mut |_| {})?,
            None => self.peek_shard(number, entry, visit)?,
        };
        let mut tally = Tally::of(own.counts());
        for Original { row, twins } in self.twins(number, entry)?.originals {
            match own.outcome(row) {
                Some(OutcomeKind::Ok) => tally.ok += twins,
                Some(OutcomeKind::Failed) => tally.failed += twins,
                Some(OutcomeKind::Invalid) => tally.invalid += twins,
                None => {}
            }
        }
        Ok(tally)
    }

    fn journal(&self, shard: u32) -> PathBuf {
        self.shard_dir(shard).join("journal")
    }

    /// The originals of the twins that have one of these ids, beside these.
    ///
    /// # Errors
    /// When a file of the plan's is not as it was planned.
    pub fn originals_of(
        &self,
        manifest: &Manifest,
        is_one: &dyn Fn(IdHash) -> bool,
    ) -> Result<Vec<(IdHash, u64)>, Error> {
        let mut found = Vec::new();
        for (number, entry) in manifest.published_shards().filter(|(_, it)| it.twin_rows() > 0) {
            let twins = self.twins(number, entry)?.twins;
            let ids = twins.iter().map(|twin| (twin.id.hash(), twin.of));
            found.extend(ids.filter(|(id, _)| is_one(*id)));
        }
        Ok(found)
    }
}

/// What rows came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows with an answer.
    pub ok: u64,
    /// Rows that failed and may be tried again.
    pub failed: u64,
    /// Rows that cannot be asked about.
    pub invalid: u64,
    /// Of all these, those with an outcome of their own.
    pub own: u64,
}

impl Tally {
    fn of((ok, failed, invalid): (u64, u64, u64)) -> Self {
        Self { ok, failed, invalid, own: ok + failed + invalid }
    }

    /// Rows with an outcome.
    #[must_use]
    pub fn done(self) -> u64 {
        self.ok + self.failed + self.invalid
    }
}

impl Held {
    /// Writes what the plan says of a shard's rows that ask what others ask, and gives what the
    /// manifest is to say of the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_twins(&self, number: u32, all: &Twins) -> Result<Twinned, Error> {
        let bytes = spell(all);
        let dir = self.make_shard_dir(number)?;
        disk::replace(&dir.join("twins"), &bytes)?;
        Ok(Twinned {
            rows: all.twins.len() as u64,
            served: all.originals.iter().map(|it| it.twins).sum(),
            blake3: blake3::hash(&bytes).to_hex().to_string(),
        })
    }
}

/// Where the journals of sealed shards have the outcomes that twins take: a number for each row, on
/// disk.
#[derive(Debug)]
pub struct OutcomePlaces {
    path: PathBuf,
    file: RowHashes,
}

impl OutcomePlaces {
    /// None are known yet.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(dir: &Held) -> Result<Self, Error> {
        let path = dir.ids().with_file_name("ids.part-outcomes");
        Ok(Self { file: RowHashes::create(&path)?, path })
    }

    /// Reads a sealed shard's journal and notes where each row's outcome is.
    ///
    /// # Errors
    /// [`Error::Unsound`] when the journal is not the one that was sealed.
    pub fn note(&self, dir: &WorkDir, number: u32, entry: &ShardEntry) -> Result<(), Error> {
        self.note_read(dir, number, entry, |file, path, visit| {
            let verified = read_back(file, path, (entry, &dir.identity(number)), visit)?;
            dir.is_as_sealed(number, &verified)
        })
    }

    /// The same of an open shard, as far as its rows have outcomes.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn note_finished(
        &self,
        dir: &WorkDir,
        number: u32,
        entry: &ShardEntry,
    ) -> Result<(), Error> {
        if !dir.journal(number).exists() {
            return Ok(());
        }
        self.note_read(dir, number, entry, |file, path, visit| {
            whole_records(file, path, (entry, &dir.identity(number)), visit)
        })
    }

    fn note_read(
        &self,
        dir: &WorkDir,
        number: u32,
        entry: &ShardEntry,
        read: impl FnOnce(&File, &Path, &mut Visit<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut places = vec![0; usize::try_from(entry.rows).unwrap_or_default()];
        let mut state = super::ShardState::new(entry);
        let path = dir.journal(number);
        let file = disk::open(&path)?;
        read(&file, &path, &mut |offset, _, record| {
            let Record::Outcome(outcome) = record else { return };
            let index = usize::try_from(outcome.row - entry.first_row).unwrap_or(usize::MAX);
            // The first success counts, else the last of the others.
            if state.outcome(outcome.row) != Some(OutcomeKind::Ok)
                && let Some(place) = places.get_mut(index)
            {
                // 0 stands for none.
                *place = offset + 1;
            }
            state.note(outcome.row, Some(outcome.kind));
        })?;
        self.file.put(entry.first_row, &places)
    }

    /// A reader of these outcomes.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn reader<'a>(
        &self,
        dir: &'a WorkDir,
        manifest: &'a Manifest,
    ) -> Result<Outcomes<'a>, Error> {
        let places = RowHashes::open(&self.path)?;
        let (files, known) = Default::default();
        Ok(Outcomes { dir, manifest, places, files, known, size: 0 })
    }
}

impl Drop for OutcomePlaces {
    fn drop(&mut self) {
        // What is left of it does no harm: it has a name that is known, and is made anew.
        let _ = disk::remove(&self.path);
    }
}

/// Reads outcomes of rows out of order.
#[derive(Debug)]
pub struct Outcomes<'a> {
    dir: &'a WorkDir,
    manifest: &'a Manifest,
    places: Option<RowHashes>,
    // The journals that were read last, by shard.
    files: VecDeque<(u32, PathBuf, File)>,
    // Records that were read lately: few rows have most of the twins.
    known: HashMap<u64, (ChecksumSeed, Vec<u8>)>,
    size: usize,
}

/// Journals that are open at once.
const FILES: usize = 16;
/// Bytes of records that are remembered.
const KNOWN: usize = 8 << 20;

impl Outcomes<'_> {
    /// Whether a row's outcome is known.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn has(&mut self, row: u64) -> Result<bool, Error> {
        let place = self.places.as_mut().map_or(Ok(None), |places| places.get(row))?;
        Ok(place.is_some())
    }

    /// The outcome of a row.
    ///
    /// # Errors
    /// [`Error::Unsound`] when its journal does not have it.
    pub fn of(&mut self, row: u64) -> Result<Outcome<'_>, Error> {
        let number = self.manifest.shards.partition_point(|it| it.first_row + it.rows <= row);
        let shard = u32::try_from(number).unwrap_or(u32::MAX);
        if !self.known.contains_key(&row) {
            let line = self.read(row, shard)?;
            if self.size + line.len() > KNOWN {
                self.known.clear();
                self.size = 0;
            }
            self.size += line.len();
            self.known.insert(row, (self.dir.identity(shard).seed(), line));
        }
        let known = self.known.get(&row);
        match known.map(|(seed, line)| Record::decode(line, *seed)) {
            Some(Ok(Record::Outcome(outcome))) if outcome.row == row => Ok(outcome),
            _ => {
                let reason = format!("it has no outcome of row {row}, which others take");
                Err(Error::Unsound { shard, reason })
            }
        }
    }

    /// The line of a row's outcome; an empty one where it is not known.
    fn read(&mut self, row: u64, shard: u32) -> Result<Vec<u8>, Error> {
        let place = self.places.as_mut().map_or(Ok(None), |places| places.get(row))?;
        let Some(place) = place else { return Ok(Vec::new()) };
        let (path, file) = self.journal(shard)?;
        read_line(file, path, place - 1)
    }

    fn journal(&mut self, shard: u32) -> Result<(&Path, &File), Error> {
        let at = match self.files.iter().position(|(number, ..)| *number == shard) {
            Some(at) => at,
            None => {
                let path = self.dir.journal(shard);
                let file = disk::open(&path)?;
                self.files.truncate(FILES - 1);
                self.files.push_front((shard, path, file));
                0
            }
        };
        let (_, path, file) = &self.files[at];
        Ok((path, file))
    }
}

/// The line that begins at an offset.
fn read_line(file: &File, path: &Path, offset: u64) -> Result<Vec<u8>, Error> {
    let mut line = Vec::new();
    let mut step = 4096;
    loop {
        let start = line.len();
        line.resize(start + step, 0);
        let read = file.read_at(&mut line[start..], offset + start as u64);
        let count = read.map_err(disk::context("read", path))?;
        line.truncate(start + count);
        if let Some(end) = memchr::memchr(b'\n', &line[start..]) {
            line.truncate(start + end + 1);
            return Ok(line);
        }
        if count == 0 {
            return Ok(line);
        }
        step = (2 * step).min(1 << 22);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::{Holder, Seal};

    fn entry() -> ShardEntry {
        ShardEntry { wanted: 3, ..ShardEntry::of_rows(1, 6) }
    }

    fn twin(row: u64, of: u64, input: Option<&str>) -> Twin {
        let asked = Asked { generation: 3, prompt: 0xabc, is_accepted: false };
        let input = input.map(|text| RawValue::from_string(text.to_owned()).unwrap());
        Twin { row, of, asked, id: Id::parse(&format!("\"t\\u0031 {row}\"")).unwrap(), input }
    }

    fn twins() -> Twins {
        let (a, b) = (Original { row: 1, twins: 20 }, Original { row: 3, twins: 4 });
        let twins = vec![twin(2, 1, None), twin(4, 77, Some("{\"a\": [1.50]}")), twin(6, 3, None)];
        Twins { twins, originals: vec![a, b] }
    }

    fn held(dir: &Path) -> Held {
        Held::acquire(dir, Holder::this_process("test", 0), &mut || false).unwrap()
    }

    /// A work directory whose shard 0 has twins and these outcomes, sealed if all are there.
    fn with(outcomes: &[(u64, OutcomeKind, &str)]) -> (tempfile::TempDir, Held, ShardEntry) {
        let outer = tempfile::tempdir().unwrap();
        let dir = held(&outer.path().join("work"));
        let entry = ShardEntry { twins: Some(dir.write_twins(0, &twins()).unwrap()), ..entry() };
        let mut open = dir.open_shard(0, &entry, 0).unwrap();
        for (row, kind, result) in outcomes {
            let envelope = format!("{{\"id\":{row},\"row_number\":{row},\"result\":\"{result}\"}}");
            let outcome = Outcome {
                row: *row,
                kind: *kind,
                at_ms: 1,
                asked: None,
                envelope: envelope.as_bytes(),
                attempts: b"[]",
                adopted: false,
                named: b"",
                input: None,
            };
            let mut line = Vec::new();
            Record::Outcome(outcome).encode(&mut line, open.journal.seed());
            open.journal.append(&line).unwrap();
        }
        open.journal.syncer().sync().unwrap();
        if let Ok(verified) = dir.verify_shard(0, &entry, &mut |_| {}) {
            let (ok, failed, invalid) = verified.rows;
            let (bytes, blake3) = (verified.length, verified.blake3);
            let (rows, usage) = (ok + failed + invalid, crate::job::Usage::default());
            let (calls, repeated, at_ms, shard, cost) = (0, 0, (0, 0), 0, None);
            let seal = Seal {
                shard,
                rows,
                ok,
                failed,
                invalid,
                calls,
                repeated,
                usage,
                cost,
                bytes,
                blake3,
                at_ms,
                ..Seal::default()
            };
            dir.seal_shard(&seal, Some(open.checkpoint)).unwrap();
        }
        (outer, dir, entry)
    }

    #[test]
    fn they_come_back_as_they_were_written_and_damage_is_noticed() {
        let (_outer, dir, entry) = with(&[]);
        let planned = entry.twins.clone().unwrap();
        assert_eq!((planned.rows, planned.served), (3, 24));
        let bytes = spell(&dir.twins(0, &entry).unwrap());
        assert_eq!(bytes, spell(&twins()));
        let path = dir.shard_dir(0).join("twins");
        assert_eq!(fs::read(&path).unwrap(), bytes);
        for cut in 0..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert!(matches!(dir.twins(0, &entry), Err(Error::Damaged { .. })), "cut at {cut}");
            let mut flipped = bytes.clone();
            flipped[cut] ^= 1;
            fs::write(&path, flipped).unwrap();
            assert!(matches!(dir.twins(0, &entry), Err(Error::Damaged { .. })), "flipped at {cut}");
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(dir.tally(0, &entry, &mut |_| {}), Err(Error::Damaged { .. })));
        for line in
            ["{\"row\":1}", "{\"row\":1,\"of\":2,\"twins\":3}", "[]", "{\"row\":1,\"twins\":-1}"]
        {
            assert!(parse(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn a_row_counts_with_its_twins() {
        use OutcomeKind::{Failed, Invalid, Ok};
        let told = |outcomes: &[(u64, OutcomeKind, &str)]| {
            let (_outer, dir, entry) = with(outcomes);
            let Tally { ok, failed, invalid, own } = dir.tally(0, &entry, &mut |_| {}).unwrap();
            (ok, failed, invalid, own)
        };
        assert_eq!(told(&[]), (0, 0, 0, 0));
        assert_eq!(told(&[(1, Failed, "")]), (0, 21, 0, 1));
        assert_eq!(told(&[(1, Failed, ""), (3, Ok, ""), (1, Ok, "")]), (26, 0, 0, 2));
        // Sealed.
        assert_eq!(told(&[(1, Ok, ""), (3, Ok, ""), (5, Ok, "")]), (27, 0, 0, 3));
        assert_eq!(told(&[(1, Ok, ""), (3, Failed, ""), (5, Invalid, "")]), (21, 5, 1, 3));
    }

    #[test]
    fn the_outcome_that_counts_is_found_however_long_it_is() {
        use OutcomeKind::{Failed, Ok};
        let long = "x".repeat(20_000);
        let outcomes =
            [(1, Failed, "first"), (5, Failed, "no"), (1, Ok, &long), (5, Failed, "last")];
        let outcomes =
            [&outcomes[..], &[(3, Ok, "one"), (3, Ok, "two"), (1, Failed, "late")]].concat();
        let (_outer, dir, entry) = with(&outcomes);
        let shards = vec![entry.clone()];
        let text = crate::store::manifest::spell(
            Path::new("x"),
            &crate::store::manifest::tests::manifest(),
        );
        let mut manifest = crate::store::manifest::parse(Path::new("x"), &text.unwrap()).unwrap();
        manifest.shards = shards;
        let places = OutcomePlaces::create(&dir).unwrap();
        places.note(&dir, 0, &entry).unwrap();
        let mut outcomes = places.reader(&dir, &manifest).unwrap();
        for (row, result) in [(5, "last"), (1, &long), (3, "one"), (1, &long)] {
            let outcome = outcomes.of(row).unwrap();
            let text = String::from_utf8_lossy(outcome.envelope);
            assert!(text.contains(&format!("\"result\":\"{result}\"")), "row {row}");
        }
        assert!(matches!(outcomes.of(2), Err(Error::Unsound { shard: 0, .. })));
        // A journal that is not as it was sealed gives nothing away.
        let journal = dir.journal(0);
        let mut bytes = fs::read(&journal).unwrap();
        bytes[60] ^= 1;
        fs::write(&journal, bytes).unwrap();
        assert!(matches!(places.note(&dir, 0, &entry), Err(Error::Unsound { .. })));
    }
}
