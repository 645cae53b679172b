//! Checkpoints: which ids of a shard are completed, in sled.
//!
//! A checkpoint is an index of its journal and never the only copy of anything. sled 0.34 may lose
//! what it acknowledged, may fail to open after a kill, and may open a damaged file as an empty
//! database without a word. So a checkpoint covers the journal up to a *watermark*, whoever opens
//! it compares the two, and whenever it is in doubt it is deleted and built anew.
//!
//! One entry stands for one commit group of the journal: its key is the offset at which the group
//! begins, its value the offset at which it ends and the packed [`Entry`]s of its rows.

use std::cell::Cell;
use std::fs::{File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, RwLock};
use std::thread;
use std::time::Duration;

use super::Error;
use super::record::Entry;
use super::removal::{Folder, Listing};
use crate::job::OutcomeKind;

/// The open checkpoint of a shard.
#[derive(Debug)]
pub struct Checkpoint {
    // Nothing once sled has failed: the shard goes on without an index.
    db: Option<sled::Db>,
    path: PathBuf,
    tag: u64,
}

/// The journal that a checkpoint is to be an index of.
pub(super) struct Indexed<'a> {
    /// What stands for its shard.
    pub(super) tag: u64,
    /// Its length.
    pub(super) length: u64,
    /// Whether it has the record of an entry where that says.
    pub(super) holds: &'a dyn Fn(&Entry) -> bool,
}

/// What a checkpoint knew when it was opened.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) entries: Vec<Entry>,
    /// The length of the journal's beginning that the entries cover.
    pub(super) watermark: u64,
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a call to sled whose panic will be caught, so that a panic hook
/// need not alarm anyone.
#[must_use]
pub fn expects_panic() -> bool {
    GUARDED.get()
}

/// Calls into sled; a panic becomes an error.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
    GUARDED.set(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(false);
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("sled panicked".to_owned()),
    }
}

/// Whether the system gives this process as many threads as sled takes when it is first used: where
/// it gets none of them, sled waits for ever, and the run with it.
fn has_threads() -> bool {
    const THREADS: usize = 8;
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let all_at_once = RwLock::new(());
        let held = all_at_once.write();
        thread::scope(|scope| {
            let wait = || drop(all_at_once.read());
            let start = || thread::Builder::new().spawn_scoped(scope, wait);
            let has = (0..THREADS).all(|_| start().is_ok());
            drop(held);
            has
        })
    })
}

fn open_db(path: &Path) -> Result<sled::Db, String> {
    // Small: a shard's index is a few hundred KiB at most, and sled's default is a gigabyte.
    const CACHE: u64 = 1 << 20;
    guarded(|| {
        sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(Some(500)).open()
    })
}

impl Checkpoint {
    /// Opens a checkpoint and what it knows of a journal. One that is in doubt is deleted and begun
    /// anew, knowing nothing; the doubt is told.
    pub(super) fn open(
        path: &Path,
        journal: &Indexed<'_>,
    ) -> Result<(Self, Known, Option<String>), Error> {
        let open = |db| Self { db, path: path.to_owned(), tag: journal.tag };
        if path.is_symlink() {
            // sled would write where it leads.
            return Ok((open(None), Known::default(), None));
        }
        if !has_threads() {
            // What is there might cover a tail that is cut off now.
            remove_index(path)?;
            return Ok((open(None), Known::default(), None));
        }
        let was_there = path.exists();
        let doubt = match open_db(path) {
            Ok(db) => match guarded(|| read_groups(&db, journal)) {
                Ok(Ok(known)) if known.watermark > 0 || journal.length == 0 || !was_there => {
                    return Ok((open(Some(db)), known, None));
                }
                // An emptied file opens as an empty database; so does one whose process was killed
                // before sled wrote. Neither is used, and the second is no news.
                Ok(Ok(_)) => {
                    close(db, path);
                    None
                }
                Ok(Err(doubt)) | Err(doubt) => {
                    close(db, path);
                    Some(doubt)
                }
            },
            Err(error) => Some(error),
        };
        remove_index(path)?;
        Ok((open(open_db(path).ok()), Known::default(), doubt))
    }

    /// What is doubtful about the checkpoint of a journal, if it is there and anything is.
    pub(super) fn doubt(path: &Path, journal: &Indexed<'_>) -> Option<String> {
        if !is_there(path) || !has_threads() {
            return None;
        }
        let db = match open_db(path) {
            Ok(db) => db,
            Err(error) => return Some(error),
        };
        let known = guarded(|| read_groups(&db, journal));
        close(db, path);
        match known {
            Ok(Ok(known)) if known.watermark == 0 && journal.length > 0 => {
                Some("empty beside a journal that is not".to_owned())
            }
            Ok(Ok(_)) => None,
            Ok(Err(doubt)) | Err(doubt) => Some(doubt),
        }
    }

    /// Notes that the journal from `begin` to `end` is durable and holds these entries. Groups
    /// must follow each other without a gap.
    ///
    /// A failure ends the checkpoint, not the run: the journal has it all, and what is left of the
    /// index covers a beginning of it.
    pub fn record(&mut self, begin: u64, end: u64, entries: &[Entry]) {
        let Some(db) = &self.db else { return };
        let value = pack(end, self.tag, entries);
        if guarded(|| db.insert(begin.to_be_bytes(), value)).is_err() {
            self.shut();
        }
    }

    fn shut(&mut self) {
        if let Some(db) = self.db.take() {
            close(db, &self.path);
        }
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        self.shut();
    }
}

/// Closes a database; sled flushes then, which may panic on a full disk.
///
/// sled's pool of threads may hold the file a little longer than the database lives, and with it
/// the lock: who opened it again, or removed its directory, would now and then fail. So this waits
/// until the lock is free, but not for long: an index is not worth it.
fn close(db: sled::Db, path: &Path) {
    const TRIES: u32 = 100;
    let _ = guarded(|| {
        drop(db);
        Ok(())
    });
    let Ok(file) = File::open(path.join("db")) else { return };
    for _ in 0..TRIES {
        if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Whether there is an index: its directory may hold what is not rowmill's.
pub(super) fn is_there(path: &Path) -> bool {
    path.join("db").exists()
}

/// Removes an index that is in doubt.
fn remove_index(path: &Path) -> Result<(), Error> {
    Listing::of(path, Folder::Checkpoint)?.remove().map(drop)
}

/// The doubt about a journal that has lost records: they are synced before the index knows of them.
pub(super) const COVERS_MORE: &str = "covers more than the journal has";

fn read_groups(db: &sled::Db, journal: &Indexed<'_>) -> sled::Result<Result<Known, String>> {
    let mut known = Known::default();
    for item in db.iter() {
        let (key, value) = item?;
        let begin = <[u8; 8]>::try_from(&*key).map(u64::from_be_bytes).ok();
        if begin != Some(known.watermark) {
            return Ok(Err("a commit group is missing".to_owned()));
        }
        let Some((end, tag)) = unpack(&value, &mut known.entries) else {
            return Ok(Err("a commit group cannot be read".to_owned()));
        };
        if tag != journal.tag {
            return Ok(Err("it belongs to another shard".to_owned()));
        }
        if end < known.watermark || end > journal.length {
            return Ok(Err(COVERS_MORE.to_owned()));
        }
        known.watermark = end;
    }
    // An older copy of the journal may have grown again since.
    if known.entries.last().is_some_and(|entry| !(journal.holds)(entry)) {
        return Ok(Err("it belongs to another state of the journal".to_owned()));
    }
    Ok(Ok(known))
}

/// Packed size of an entry before its id.
const FIXED: usize = 23;

pub(super) fn pack(end: u64, tag: u64, entries: &[Entry]) -> Vec<u8> {
    let ids: usize = entries.iter().map(|entry| entry.id.len()).sum();
    let mut out = Vec::with_capacity(16 + entries.len() * FIXED + ids);
    out.extend_from_slice(&end.to_le_bytes());
    out.extend_from_slice(&tag.to_le_bytes());
    for entry in entries {
        out.extend_from_slice(&entry.row.to_le_bytes());
        out.extend_from_slice(&entry.offset.to_le_bytes());
        out.extend_from_slice(&entry.length.to_le_bytes());
        out.push(match entry.kind {
            None => 0,
            Some(OutcomeKind::Ok) => 1,
            Some(OutcomeKind::Failed) => 2,
            Some(OutcomeKind::Invalid) => 3,
        });
        // An id too long for the index is cut there; the journal has it whole.
        let length = u16::try_from(entry.id.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&entry.id[..usize::from(length)]);
    }
    out
}

/// Where a group ends, and what stands for its shard.
pub(super) fn unpack(value: &[u8], entries: &mut Vec<Entry>) -> Option<(u64, u64)> {
    let (end, rest) = value.split_at_checked(8)?;
    let (tag, mut rest) = rest.split_at_checked(8)?;
    while !rest.is_empty() {
        let (fixed, behind) = rest.split_at_checked(FIXED)?;
        let length = usize::from(u16::from_le_bytes([fixed[21], fixed[22]]));
        let (id, behind) = behind.split_at_checked(length)?;
        entries.push(Entry {
            row: u64::from_le_bytes(fixed[..8].try_into().ok()?),
            offset: u64::from_le_bytes(fixed[8..16].try_into().ok()?),
            length: u32::from_le_bytes(fixed[16..20].try_into().ok()?),
            kind: match fixed[20] {
                0 => None,
                1 => Some(OutcomeKind::Ok),
                2 => Some(OutcomeKind::Failed),
                3 => Some(OutcomeKind::Invalid),
                _ => return None,
            },
            id: id.into(),
        });
        rest = behind;
    }
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
    Some((number(end)?, number(tag)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(row: u64) -> Entry {
        let id = format!("\"r{row}\"").into_bytes().into();
        Entry { row, kind: Some(OutcomeKind::Ok), offset: row * 10, length: 10, id }
    }

    fn indexed(length: u64) -> Indexed<'static> {
        Indexed { tag: 7, length, holds: &|_| true }
    }

    fn filled(path: &Path) {
        let (mut checkpoint, known, doubt) = Checkpoint::open(path, &indexed(0)).unwrap();
        assert_eq!((known.watermark, doubt), (0, None));
        checkpoint.record(0, 20, &[entry(0), entry(1)]);
        checkpoint.record(20, 30, &[entry(2)]);
    }

    #[test]
    fn knows_what_was_recorded_up_to_the_watermark() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        filled(&path);
        let (_open, known, doubt) = Checkpoint::open(&path, &indexed(45)).unwrap();
        assert_eq!(doubt, None);
        assert_eq!(known.watermark, 30);
        assert_eq!(known.entries, [entry(0), entry(1), entry(2)]);
    }

    #[test]
    fn a_checkpoint_in_doubt_knows_nothing_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        filled(&path);
        let (_open, known, doubt) = Checkpoint::open(&path, &indexed(25)).unwrap();
        assert_eq!(known.watermark, 0);
        assert_eq!(doubt.as_deref(), Some("covers more than the journal has"));
    }

    #[test]
    fn checkpoint_of_another_journal_is_not_believed() {
        for (journal, said) in [
            (Indexed { tag: 8, ..indexed(45) }, "it belongs to another shard"),
            (
                Indexed { holds: &|_| false, ..indexed(45) },
                "it belongs to another state of the journal",
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("checkpoint");
            filled(&path);
            assert_eq!(Checkpoint::doubt(&path, &journal).as_deref(), Some(said));
            let (_open, known, doubt) = Checkpoint::open(&path, &journal).unwrap();
            assert_eq!((known.watermark, doubt.as_deref()), (0, Some(said)));
        }
    }

    #[test]
    fn cut_emptied_and_deleted_files_are_never_believed() {
        for damage in ["empty", "half", "delete", "zero", "snapshot"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("checkpoint");
            filled(&path);
            let db = path.join("db");
            let bytes = std::fs::read(&db).unwrap();
            match damage {
                "empty" => std::fs::write(&db, b"").unwrap(),
                "half" => std::fs::write(&db, &bytes[..bytes.len() / 2]).unwrap(),
                "zero" => std::fs::write(&db, vec![0; bytes.len()]).unwrap(),
                "delete" => std::fs::remove_file(&db).unwrap(),
                _ => std::fs::write(path.join("snap.0000000000000100"), b"").unwrap(),
            }
            let (mut checkpoint, known, doubt) = Checkpoint::open(&path, &indexed(30)).unwrap();
            // Half a file may still hold it all; then it must be right.
            if known.watermark == 0 {
                assert!(doubt.is_some() || ["empty", "half", "zero", "delete"].contains(&damage));
                checkpoint.record(0, 30, &[entry(7)]);
                drop(checkpoint);
                let (_open, known, _) = Checkpoint::open(&path, &indexed(30)).unwrap();
                assert_eq!(known.entries, [entry(7)], "{damage}: usable again");
            } else {
                let all = [entry(0), entry(1), entry(2)];
                assert_eq!(known.entries, all[..known.entries.len()], "{damage}");
            }
        }
    }
}
