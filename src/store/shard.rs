//! A shard's directory: opened and repaired after anything, worked, sealed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::checkpoint::{Indexed, Known};
use super::journal::{Journal, Piece, assert_belongs, scan};
use super::quarantine::{self, Damage, DamageKind};
use super::record::{Entry, Record};
use super::removal::Folder;
use super::started::{self, Mark, Started};
use super::{Checkpoint, Error, Held, Identity, Manifest, Seal, ShardEntry, WorkDir, disk, seal};
use crate::guard::Guard;
use crate::job::OutcomeKind;

/// A shard that is being worked, by the one worker that opened it.
#[derive(Debug)]
pub struct OpenShard {
    /// Its number.
    pub number: u32,
    /// Where outcomes go.
    pub journal: Journal,
    /// The index of the journal.
    pub checkpoint: Checkpoint,
    /// How many calls were started.
    pub started: Started,
    /// What is known of its rows.
    pub state: ShardState,
    /// What was found damaged and repaired.
    pub repairs: Vec<Damage>,
    /// How many calls may have been made before a crash and are made again.
    pub repeated: u64,
}

/// What a journal says of each row of its shard: a success beats a failure, the first success
/// beats later ones, the last failure earlier ones.
#[derive(Debug, Clone)]
pub struct ShardState {
    first_row: u64,
    rows: Vec<Option<OutcomeKind>>,
}

impl ShardState {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(entry: &ShardEntry) -> Self {
        let rows = usize::try_from(entry.rows).unwrap_or_default();
        Self { first_row: entry.first_row, rows: vec![None; rows] }
    }

    /// Notes an outcome. False when the row is none of the shard's.
    pub fn note(&mut self, row: u64, kind: Option<OutcomeKind>) -> bool {
        let Some(slot) = self.slot(row) else { return false };
        if let Some(kind) = kind
            && *slot != Some(OutcomeKind::Ok)
        {
            *slot = Some(kind);
        }
        true
    }

    fn slot(&mut self, row: u64) -> Option<&mut Option<OutcomeKind>> {
        let index = row.checked_sub(self.first_row)?;
        self.rows.get_mut(usize::try_from(index).ok()?)
    }

    /// What became of a row; nothing when it is not done.
    #[must_use]
    pub fn outcome(&self, row: u64) -> Option<OutcomeKind> {
        let index = row.checked_sub(self.first_row)?;
        self.rows.get(usize::try_from(index).ok()?).copied().flatten()
    }

    /// Rows with an answer, rows that failed, rows that are invalid.
    #[must_use]
    pub fn counts(&self) -> (u64, u64, u64) {
        let count = |kind| self.rows.iter().filter(|row| **row == Some(kind)).count() as u64;
        (count(OutcomeKind::Ok), count(OutcomeKind::Failed), count(OutcomeKind::Invalid))
    }
}

/// What a scan of a journal found.
struct Scan {
    entries: Vec<Entry>,
    bad: Vec<(u64, Vec<u8>, &'static str)>,
    // The end of the last whole record of this shard's.
    good_end: u64,
    length: u64,
    // Where the last note of repeated rows stands.
    repeated_at: Option<u64>,
    // Whether it says what it belongs to.
    has_header: bool,
}

impl Held {
    /// Opens a shard for work, repairing what a crash or a bad disk left.
    ///
    /// # Errors
    /// When files cannot be read or written.
    pub fn open_shard(
        &self,
        number: u32,
        entry: &ShardEntry,
        now_ms: u64,
    ) -> Result<OpenShard, Error> {
        let dir = self.make_shard_dir(number)?;
        let (path, identity) = (dir.join("journal"), &self.identity(number));
        // Before anything is changed.
        self.assert_shard_belongs(number)?;
        self.unseal(number)?;
        let mut journal = Journal::open(&path, identity)?;
        let mark = started::read(&dir.join("started"), identity)?;
        let mut repairs = Vec::new();
        let mut damage = |file: &Path, offset, length, kind, reason: String| {
            let file = self.relative(file);
            let found = Damage { shard: Some(number), file, offset, length, kind, reason };
            repairs.push(found.clone());
            found
        };

        let index = dir.join("checkpoint");
        let (mut checkpoint, mut known, doubt) = open_index(&index, identity, &journal)?;
        if let Some(doubt) = doubt {
            damage(&index, 0, 0, DamageKind::StaleIndex, doubt);
        }
        let mut found = scan_shard(&journal, &path, known.watermark, (entry, identity))?;
        let (tail, lost) = found.split_damage();
        for (offset, bytes, reason) in &lost {
            let kind = DamageKind::LostRecords;
            let found = damage(&path, *offset, bytes.len() as u64, kind, (*reason).to_owned());
            quarantine::keep(self, &found, bytes)?;
        }
        if let Some((offset, bytes, reason)) = &tail {
            let kind = DamageKind::Residue;
            let found = damage(&path, *offset, bytes.len() as u64, kind, (*reason).to_owned());
            quarantine::keep(self, &found, bytes)?;
        }
        let has_lost_header = found.good_end > 0 && !found.has_header;
        if !lost.is_empty() || has_lost_header {
            drop(checkpoint);
            self.forget_index(number)?;
            rewrite(&journal, &path, (entry, identity))?;
            journal = Journal::open(&path, identity)?;
            (checkpoint, known, _) = open_index(&index, identity, &journal)?;
            found = scan_shard(&journal, &path, 0, (entry, identity))?;
        } else if tail.is_some() {
            journal.truncate(found.good_end)?;
        }

        let mut state = ShardState::new(entry);
        for entry in known.entries.iter().chain(&found.entries) {
            state.note(entry.row, entry.kind);
        }
        if Guard::JournalIsTruth.is_left_out() {
            state = ShardState::new(entry);
            for entry in &known.entries {
                state.note(entry.row, entry.kind);
            }
        }
        let entries = known.entries.iter().chain(&found.entries);
        let repeated = mark.map_or(0, |mark| repeated_calls(mark, entries, found.repeated_at));
        if repeated > 0 {
            let mut line = Vec::new();
            Record::Repeated { calls: repeated, at_ms: now_ms }.encode(&mut line, journal.seed());
            journal.append(&line)?;
        }
        if journal.length() > known.watermark {
            journal.syncer().sync()?;
        }
        let started = Started::begin(&dir.join("started"), identity, journal.length())?;
        catch_up(&mut checkpoint, known.watermark, journal.length(), &found.entries);
        Ok(OpenShard { number, journal, checkpoint, started, state, repairs, repeated })
    }

    /// Appends records that another generation knows to the journal of a shard that nobody works
    /// yet. They count once [`Held::sync_carried`] has made them durable.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn append_carried(&self, number: u32, lines: &[u8]) -> Result<(), Error> {
        let dir = self.make_shard_dir(number)?;
        Journal::open(&dir.join("journal"), &self.identity(number))?.append(lines)?;
        Ok(())
    }

    /// Makes what was appended so durable.
    ///
    /// # Errors
    /// When the disk says it is not.
    pub fn sync_carried(&self, number: u32) -> Result<(), Error> {
        let path = self.shard_dir(number).join("journal");
        Journal::open(&path, &self.identity(number))?.syncer().sync()
    }

    /// Opens a sealed shard again: its seal goes first, and before it what a crash may have left of
    /// its index. Who unseals a shard has reason to read all of its journal.
    ///
    /// # Errors
    /// When the seal cannot be removed durably.
    pub fn unseal(&self, number: u32) -> Result<(), Error> {
        let dir = self.shard_dir(number);
        let seal = dir.join("seal.json");
        if seal.exists() {
            self.forget_index(number)?;
            disk::remove(&seal)?;
            disk::sync_dir(&dir)?;
        }
        Ok(())
    }

    /// Removes the index of a shard whose journal is not sound: it would hide the damage it covers.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget_index(&self, number: u32) -> Result<(), Error> {
        self.remove_folder(&self.shard_dir(number).join("checkpoint"), Folder::Checkpoint)
    }

    /// Seals a shard whose journal was synced and verified. Its checkpoint and mark go.
    ///
    /// # Errors
    /// When files cannot be written or removed.
    pub fn seal_shard(&self, seal: &Seal, checkpoint: Option<Checkpoint>) -> Result<(), Error> {
        let dir = self.shard_dir(seal.shard);
        let Identity { run, plan, generation, .. } = self.identity(seal.shard);
        let seal = &Seal { run, plan, generation, ..seal.clone() };
        seal::write(&dir.join("seal.json"), seal)?;
        drop(checkpoint);
        self.forget_index(seal.shard)?;
        disk::remove(&dir.join("started"))
    }
}

impl WorkDir {
    /// Makes sure that all seals and journals are this plan's, each of the shard in whose place it stands.
    ///
    /// # Errors
    /// As [`WorkDir::assert_shard_belongs`].
    pub fn assert_shards_belong(&self, manifest: &Manifest) -> Result<(), Error> {
        manifest.open_shards().try_for_each(|(number, _)| self.assert_shard_belongs(number))
    }

    /// Makes sure that a shard's seal and journal are this plan's and this shard's.
    ///
    /// # Errors
    /// [`Error::Misplaced`] when one of them says that it is not.
    pub fn assert_shard_belongs(&self, number: u32) -> Result<(), Error> {
        self.seal(number)?;
        let path = self.shard_dir(number).join("journal");
        match disk::open(&path) {
            Ok(file) => assert_belongs(&file, &path, &self.identity(number)),
            Err(error) if error.is_missing() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Scan {
    /// The damage at the end, which is cut off, and the damage before it.
    #[expect(clippy::type_complexity, reason = "two lists of the same thing")]
    fn split_damage(
        &mut self,
    ) -> (Option<(u64, Vec<u8>, &'static str)>, Vec<(u64, Vec<u8>, &'static str)>) {
        let good_end = self.good_end;
        let mut tail: Option<(u64, Vec<u8>, &'static str)> = None;
        let mut lost = Vec::new();
        for (offset, bytes, reason) in self.bad.drain(..) {
            if offset < good_end {
                lost.push((offset, bytes, reason));
            } else if let Some((_, all, _)) = &mut tail {
                all.extend_from_slice(&bytes);
            } else {
                tail = Some((offset, bytes, reason));
            }
        }
        (tail, lost)
    }
}

fn scan_shard(
    journal: &Journal,
    path: &Path,
    start: u64,
    (entry, identity): (&ShardEntry, &Identity),
) -> Result<Scan, Error> {
    let mut found = Scan {
        entries: Vec::new(),
        bad: Vec::new(),
        good_end: start,
        length: 0,
        repeated_at: None,
        // An index is of a journal that said so.
        has_header: start > 0,
    };
    found.length = scan(journal.file(), path, (start, identity.seed()), &mut |piece| {
        match piece {
            Piece::Record { offset, line, record } if is_of(&record, entry, identity) => {
                found.good_end = offset + line.len() as u64;
                found.has_header |= offset == 0 && matches!(record, Record::Begin { .. });
                if matches!(record, Record::Repeated { .. }) {
                    found.repeated_at = Some(offset);
                }
                found.entries.extend(Entry::of(&record, offset, line.len()));
            }
            Piece::Record { offset, line, .. } => {
                found.bad.push((offset, line.to_vec(), FOREIGN));
            }
            Piece::Bad { offset, bytes, reason } => {
                found.bad.push((offset, bytes.to_vec(), reason));
            }
        }
        Ok(())
    })?;
    Ok(found)
}

/// Opens the index of a journal, and gives what it knows, or what is doubtful about it.
fn open_index(
    path: &Path,
    identity: &Identity,
    journal: &Journal,
) -> Result<(Checkpoint, Known, Option<String>), Error> {
    let holds = |entry: &Entry| holds(journal.file(), identity, entry);
    let (tag, length) = (identity.tag(), journal.length());
    Checkpoint::open(path, &Indexed { tag, length, holds: &holds })
}

/// Whether a journal has the record of an entry where that says.
pub(super) fn holds(journal: &File, identity: &Identity, entry: &Entry) -> bool {
    let mut line = vec![0; entry.length as usize];
    let is_read = journal.read_exact_at(&mut line, entry.offset).is_ok();
    is_read && Record::decode(&line, identity.seed()).is_ok_and(|it| it.row() == Some(entry.row))
}

/// What is wrong with a whole record of another shard.
pub(super) const FOREIGN: &str = "a record of another shard";

/// Whether a record may stand in the journal of a shard.
pub(super) fn is_of(record: &Record<'_>, entry: &ShardEntry, identity: &Identity) -> bool {
    if let Record::Begin { .. } = record {
        return *record == identity.header();
    }
    record.row().is_none_or(|row| (entry.first_row..entry.first_row + entry.rows).contains(&row))
}

/// Replaces a journal by its whole records, behind the one that says what it belongs to.
fn rewrite(
    journal: &Journal,
    path: &Path,
    (entry, identity): (&ShardEntry, &Identity),
) -> Result<(), Error> {
    let mut kept = Vec::new();
    identity.header().encode(&mut kept, identity.seed());
    scan(journal.file(), path, (0, identity.seed()), &mut |piece| {
        if let Piece::Record { line, record, .. } = piece
            && !matches!(record, Record::Begin { .. })
            && is_of(&record, entry, identity)
        {
            kept.extend_from_slice(line);
        }
        Ok(())
    })?;
    disk::replace(path, &kept)
}

/// The calls of the last session that left no record: they were under way when it was cut off.
fn repeated_calls<'a>(
    mark: Mark,
    entries: impl Iterator<Item = &'a Entry>,
    counted_at: Option<u64>,
) -> u64 {
    if counted_at.is_some_and(|at| at >= mark.opened_at) {
        return 0;
    }
    let since = entries.filter(|entry| entry.offset >= mark.opened_at);
    let ended = since.filter(|entry| entry.kind != Some(OutcomeKind::Invalid)).count() as u64;
    mark.calls.saturating_sub(ended)
}

/// Brings a checkpoint up to its journal.
fn catch_up(checkpoint: &mut Checkpoint, watermark: u64, length: u64, entries: &[Entry]) {
    const GROUP: usize = 256;
    let mut begin = watermark;
    let mut groups = entries.chunks(GROUP).peekable();
    while let Some(group) = groups.next() {
        let end = match groups.peek().and_then(|next| next.first()) {
            Some(next) => next.offset,
            None => length,
        };
        checkpoint.record(begin, end, group);
        begin = end;
    }
    if begin < length {
        checkpoint.record(begin, length, &[]);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::store::{ChecksumSeed, Outcome};

    const ROWS: u64 = 5;

    fn entry() -> ShardEntry {
        ShardEntry::of_rows(1, ROWS)
    }

    fn held(dir: &Path) -> Held {
        Held::acquire_known(dir).unwrap()
    }

    fn seed() -> ChecksumSeed {
        Identity::known(0).seed()
    }

    /// The length of the record that says what a journal belongs to.
    fn header() -> usize {
        let mut line = Vec::new();
        Identity::known(0).header().encode(&mut line, seed());
        line.len()
    }

    fn line(row: u64, kind: OutcomeKind) -> Vec<u8> {
        let ok = kind == OutcomeKind::Ok;
        let envelope = format!(
            "{{\"id\":\"r{row}\",\"row_number\":{row},\"ok\":{ok},\"result\":\"x\",\"error\":null}}"
        );
        let mut line = Vec::new();
        let outcome = Outcome {
            row,
            kind,
            at_ms: row,
            envelope: envelope.as_bytes(),
            attempts: b"[]",
            asked: None,
            adopted: false,
            named: b"",
            input: None,
        };
        Record::Outcome(outcome).encode(&mut line, seed());
        line
    }

    /// A work directory whose shard 0 has outcomes for rows 1 to 3, with or without a checkpoint.
    fn with_three(with_checkpoint: bool) -> (tempfile::TempDir, PathBuf) {
        let outer = tempfile::tempdir().unwrap();
        let dir = held(&outer.path().join("work"));
        let mut open = dir.open_shard(0, &entry(), 0).unwrap();
        for row in 1..=3 {
            let (line, begin) = (line(row, OutcomeKind::Ok), open.journal.length());
            let offset = open.journal.append(&line).unwrap();
            open.journal.syncer().sync().unwrap();
            if with_checkpoint {
                let record = Record::decode(&line, seed()).unwrap();
                let entry = Entry::of(&record, offset, line.len()).unwrap();
                open.checkpoint.record(begin, open.journal.length(), &[entry]);
            }
        }
        drop(open);
        let journal = dir.shard_dir(0).join("journal");
        (outer, journal)
    }

    /// Opens shard 0; gives the rows that are done and what was repaired.
    fn open(outer: &tempfile::TempDir) -> (Vec<u64>, Vec<DamageKind>) {
        let dir = held(&outer.path().join("work"));
        let open = dir.open_shard(0, &entry(), 0).unwrap();
        let done = (1..=ROWS).filter(|row| open.state.outcome(*row).is_some()).collect();
        (done, open.repairs.iter().map(|damage| damage.kind).collect())
    }

    fn assert_sound(outer: &tempfile::TempDir, done: &[u64]) {
        assert_eq!(open(outer), (done.to_vec(), Vec::new()), "a second start finds all well");
    }

    #[test]
    fn a_tail_torn_at_any_byte_costs_its_row_and_is_kept_in_quarantine() {
        let last = line(3, OutcomeKind::Ok).len();
        for with_checkpoint in [false, true] {
            for cut in 1..=last {
                let (outer, journal) = with_three(with_checkpoint);
                let bytes = fs::read(&journal).unwrap();
                fs::write(&journal, &bytes[..bytes.len() - cut]).unwrap();
                let (done, repairs) = open(&outer);
                assert_eq!(done, [1, 2], "cut {cut}");
                let torn = repairs.contains(&DamageKind::Residue);
                assert_eq!(torn, cut < last, "cut {cut}");
                assert_eq!(repairs.contains(&DamageKind::StaleIndex), with_checkpoint);
                let kept = disk::names(&outer.path().join("work/quarantine")).unwrap();
                assert_eq!(kept.len(), if torn { 2 } else { 0 });
                if torn {
                    let tail = fs::read(outer.path().join("work/quarantine").join(&kept[0]));
                    assert_eq!(tail.unwrap(), &bytes[bytes.len() - last..bytes.len() - cut]);
                }
                assert_sound(&outer, &[1, 2]);
            }
        }
    }

    #[test]
    fn zeros_and_garbage_at_the_end_are_cut_off() {
        for tail in [vec![0; 4096], b"garbage".to_vec(), b"two\nlines\n".to_vec()] {
            let (outer, journal) = with_three(true);
            let mut bytes = fs::read(&journal).unwrap();
            bytes.extend(&tail);
            fs::write(&journal, bytes).unwrap();
            assert_eq!(open(&outer), (vec![1, 2, 3], vec![DamageKind::Residue]));
            assert_sound(&outer, &[1, 2, 3]);
        }
    }

    #[test]
    fn damage_in_the_middle_costs_its_row_and_none_behind_it() {
        let (one, two) = (line(1, OutcomeKind::Ok).len(), line(2, OutcomeKind::Ok).len());
        let (first, second) = (header() + one, two);
        for at in first..first + second {
            let (outer, journal) = with_three(false);
            let mut bytes = fs::read(&journal).unwrap();
            bytes[at] ^= 0x20;
            fs::write(&journal, bytes).unwrap();
            let (done, repairs) = open(&outer);
            // A damaged line end costs nothing: both of its neighbours are whole.
            let is_end = at == first + second - 1;
            assert_eq!(done, if is_end { vec![1, 2, 3] } else { vec![1, 3] }, "byte {at}");
            assert!(repairs.contains(&DamageKind::LostRecords));
            assert_sound(&outer, &done);
        }
    }

    #[test]
    fn an_index_that_lost_its_journal_and_a_journal_that_lost_its_index_are_told_apart() {
        let (outer, journal) = with_three(true);
        fs::remove_file(&journal).unwrap();
        assert_eq!(open(&outer), (vec![], vec![DamageKind::StaleIndex]));
        let (outer, journal) = with_three(true);
        fs::remove_dir_all(journal.with_file_name("checkpoint")).unwrap();
        assert_eq!(open(&outer), (vec![1, 2, 3], vec![]));
        let (outer, journal) = with_three(true);
        fs::write(journal.with_file_name("checkpoint").join("db"), b"").unwrap();
        assert_eq!(open(&outer), (vec![1, 2, 3], vec![]));
        assert_sound(&outer, &[1, 2, 3]);
    }

    #[test]
    fn an_index_left_beside_a_seal_hides_no_damage() {
        let (outer, journal) = with_three(true);
        // As after a kill between the seal and the removal of the index.
        fs::write(journal.with_file_name("seal.json"), b"{}").unwrap();
        let mut bytes = fs::read(&journal).unwrap();
        bytes[header() + 40] ^= 0x20;
        fs::write(&journal, bytes).unwrap();
        assert_eq!(open(&outer), (vec![2, 3], vec![DamageKind::LostRecords]));
    }

    #[test]
    fn a_journal_of_another_shard_is_not_believed() {
        let (outer, journal) = with_three(false);
        let mut bytes = fs::read(&journal).unwrap();
        bytes.extend(line(77, OutcomeKind::Ok));
        bytes.extend(line(4, OutcomeKind::Ok));
        fs::write(&journal, bytes).unwrap();
        assert_eq!(open(&outer), (vec![1, 2, 3, 4], vec![DamageKind::LostRecords]));
    }

    #[test]
    fn damaged_header_costs_no_row() {
        for at in 0..header() {
            for with_checkpoint in [false, true] {
                let (outer, journal) = with_three(with_checkpoint);
                let mut bytes = fs::read(&journal).unwrap();
                bytes[at] ^= 0x20;
                fs::write(&journal, &bytes).unwrap();
                let (done, _) = open(&outer);
                assert_eq!(done, [1, 2, 3], "byte {at}");
                let verified = held(&outer.path().join("work"));
                let entry = ShardEntry { wanted: 3, ..entry() };
                let verified = verified.verify_shard(0, &entry, &mut |_| {});
                // What an index covers is read when the shard is sealed.
                assert_eq!(verified.is_ok(), !with_checkpoint, "byte {at}");
            }
        }
    }

    #[test]
    fn shard_of_another_place_is_refused_and_stays() {
        let (outer, journal) = with_three(true);
        let seal =
            Seal { shard: 0, bytes: fs::metadata(&journal).unwrap().len(), ..Seal::default() };
        let dir = held(&outer.path().join("work"));
        dir.seal_shard(&seal, None).unwrap();
        assert!(dir.seal(0).unwrap().is_some());
        let shards = journal.parent().unwrap().parent().unwrap();
        fs::rename(shards.join("00000"), shards.join("00001")).unwrap();
        let refused = |found: Result<(), Error>, file: &str| match found {
            Err(Error::Misplaced { path, theirs, ours }) => {
                assert_eq!((theirs.shard, ours.shard), (Some(0), Some(1)));
                assert!(path.ends_with(file), "{}", path.display());
            }
            other => panic!("{other:?}"),
        };
        for file in ["seal.json", "journal"] {
            let before = fs::read(shards.join("00001/journal")).unwrap();
            refused(dir.open_shard(1, &entry(), 0).map(drop), file);
            assert_eq!(fs::read(shards.join("00001/journal")).unwrap(), before);
            if file == "seal.json" {
                refused(dir.seal(1).map(drop), file);
                fs::remove_file(shards.join("00001/seal.json")).unwrap();
            } else {
                refused(dir.verify_shard(1, &entry(), &mut |_| {}).map(drop), file);
                refused(dir.peek_shard(1, &entry(), &mut |_| {}).map(drop), file);
            }
        }
    }

    #[test]
    fn a_success_beats_failures_and_the_first_success_counts() {
        let mut state = ShardState::new(&entry());
        for kind in [OutcomeKind::Failed, OutcomeKind::Ok, OutcomeKind::Failed] {
            assert!(state.note(2, Some(kind)));
        }
        assert_eq!(state.outcome(2), Some(OutcomeKind::Ok));
        assert!(!state.note(0, Some(OutcomeKind::Ok)) && !state.note(6, None));
        assert_eq!(state.counts(), (1, 0, 0));
    }

    #[test]
    fn calls_repeated_after_a_crash_are_counted_once() {
        let (outer, _) = with_three(false);
        let path = outer.path().join("work");
        let retry = |row| {
            let mut line = Vec::new();
            Record::Retry { row, at_ms: 1, attempts: b"[]" }.encode(&mut line, seed());
            line
        };
        let repeated = |started: u64, lines: &[Vec<u8>]| {
            let dir = held(&path);
            let mut open = dir.open_shard(0, &entry(), 0).unwrap();
            open.started.more(started).unwrap();
            for line in lines {
                open.journal.append(line).unwrap();
            }
            open.repeated
        };
        // Row 4 is called, fails, and waits to be tried again; row 5 is in flight at the kill.
        assert_eq!(repeated(2, &[retry(4)]), 0);
        // The next start repeats one call, and dies before it makes any.
        assert_eq!(repeated(0, &[]), 1);
        // Nothing was started then. This one calls both, and ends one.
        assert_eq!(repeated(2, &[line(5, OutcomeKind::Failed)]), 0);
        assert_eq!(repeated(1, &[line(4, OutcomeKind::Ok)]), 1);
        assert_eq!(repeated(0, &[line(4, OutcomeKind::Invalid)]), 0);
        assert_eq!(repeated(0, &[]), 0);
    }
}
