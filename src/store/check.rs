//! Reads a whole work directory and says all that is wrong with it.

use std::fs::File;
use std::path::Path;

use super::checkpoint::{self, COVERS_MORE, Indexed};
use super::identity::told;
use super::journal::{Piece, scan};
use super::quarantine::{Damage, DamageKind};
use super::shard::{FOREIGN, holds, is_of};
use super::{Checkpoint, Entry, Error, Held, Manifest, ShardEntry, WorkDir, disk, seal};

impl WorkDir {
    /// Reads everything and reports every damage; changes nothing. Indexes are looked at only
    /// where nobody else can be using them and the disk can be written to, because sled writes
    /// whenever it opens.
    ///
    /// # Errors
    /// When files cannot be read, or the manifest is damaged: without it the rest means nothing.
    pub fn check(&self, manifest: &Manifest, with_indexes: bool) -> Result<Vec<Damage>, Error> {
        let mut found = Vec::new();
        for (number, entry) in manifest.published_shards() {
            if let Err(Error::Damaged { path, reason }) = self.twins(number, entry) {
                found.push(self.of_file(&path, Some(number), DamageKind::Fatal, reason));
            }
        }
        for (number, entry) in manifest.open_shards() {
            self.check_shard(number, entry, with_indexes, &mut found)?;
        }
        match self.last_commit() {
            Ok(Some(commit)) if !commit.done => found.push(Damage {
                shard: None,
                file: format!("commit-{:06}.json", commit.sequence),
                offset: 0,
                length: 0,
                kind: DamageKind::Residue,
                reason: match commit.pending().next() {
                    Some(file) => format!(
                        "its upload to {} waits for a `run --resume` or `merge` with that URL",
                        file.target.display()
                    ),
                    None => "a publication was decided and cut off; the next start finishes it"
                        .to_owned(),
                },
            }),
            Ok(_) => {}
            Err(Error::Damaged { path, reason }) => {
                found.push(self.of_file(&path, None, DamageKind::Fatal, reason));
            }
            Err(Error::Misplaced { path, theirs, ours }) => {
                let reason = told(&theirs, &ours);
                found.push(self.of_file(&path, None, DamageKind::Fatal, reason));
            }
            Err(error) => return Err(error),
        }
        Ok(found)
    }

    fn of_file(&self, path: &Path, shard: Option<u32>, kind: DamageKind, reason: String) -> Damage {
        Damage { shard, file: self.relative(path), offset: 0, length: 0, kind, reason }
    }

    fn check_shard(
        &self,
        number: u32,
        entry: &ShardEntry,
        with_indexes: bool,
        found: &mut Vec<Damage>,
    ) -> Result<(), Error> {
        let dir = self.shard_dir(number);
        let journal = dir.join("journal");
        match self.assert_shard_belongs(number) {
            Err(Error::Misplaced { path, theirs, ours }) => {
                let reason = told(&theirs, &ours);
                found.push(self.of_file(&path, Some(number), DamageKind::Fatal, reason));
                return Ok(());
            }
            checked => checked?,
        }
        if let Err(Error::Damaged { path, reason }) = self.duplicates(number, entry) {
            found.push(self.of_file(&path, Some(number), DamageKind::Fatal, reason));
        }
        let sealed = seal::read(&dir.join("seal.json"))?;
        let had_seal = dir.join("seal.json").exists();
        if !journal.exists() {
            // A journal is synced before an index or a seal knows of it.
            if had_seal || checkpoint::is_there(&dir.join("checkpoint")) {
                let reason = "the journal is gone, though it had records".to_owned();
                found.push(self.of_file(&journal, Some(number), DamageKind::LostRecords, reason));
            }
            return Ok(());
        }
        let before = found.len();
        let length = self.check_journal(number, entry, &journal, found)?;
        // Nothing is appended to a sealed journal: what its end lacks was there.
        for damage in found.iter_mut().skip(before).filter(|_| had_seal) {
            damage.kind = DamageKind::LostRecords;
        }
        if !had_seal {
            if with_indexes {
                self.check_index(number, (&disk::open(&journal)?, length), found);
            }
        } else if found.len() == before {
            let is_sound = sealed.is_some_and(|seal| {
                let verified = self.verify_shard(number, entry, &mut |_| {});
                verified.is_ok_and(|verified| verified.blake3 == seal.blake3)
            });
            if !is_sound {
                let reason = "it is not the seal of this journal".to_owned();
                let path = dir.join("seal.json");
                found.push(self.of_file(&path, Some(number), DamageKind::LostRecords, reason));
            }
        }
        Ok(())
    }

    fn check_journal(
        &self,
        number: u32,
        entry: &ShardEntry,
        path: &Path,
        found: &mut Vec<Damage>,
    ) -> Result<u64, Error> {
        let (mut bad, mut good_end) = (Vec::new(), 0);
        let file = disk::open(path)?;
        let identity = &self.identity(number);
        let length = scan(&file, path, (0, identity.seed()), &mut |piece| {
            match piece {
                Piece::Record { offset, line, record } if is_of(&record, entry, identity) => {
                    good_end = offset + line.len() as u64;
                }
                Piece::Record { offset, line, .. } => {
                    bad.push((offset, line.len(), FOREIGN));
                }
                Piece::Bad { offset, bytes, reason } => bad.push((offset, bytes.len(), reason)),
            }
            Ok(())
        })?;
        for (offset, bytes, reason) in bad {
            let kind =
                if offset < good_end { DamageKind::LostRecords } else { DamageKind::Residue };
            found.push(Damage {
                offset,
                length: bytes as u64,
                ..self.of_file(path, Some(number), kind, reason.to_owned())
            });
        }
        Ok(length)
    }

    fn check_index(&self, number: u32, (journal, length): (&File, u64), found: &mut Vec<Damage>) {
        let path = &self.shard_dir(number).join("checkpoint");
        let identity = &self.identity(number);
        let holds = |entry: &Entry| holds(journal, identity, entry);
        let indexed = Indexed { tag: identity.tag(), length, holds: &holds };
        if let Some(doubt) = Checkpoint::doubt(path, &indexed) {
            let is_loss = doubt == COVERS_MORE;
            let kind = if is_loss { DamageKind::LostRecords } else { DamageKind::StaleIndex };
            found.push(self.of_file(path, Some(number), kind, doubt));
        }
    }
}

impl Held {
    /// Repairs what was found damaged: shards are opened as for work, which cuts torn tails, keeps
    /// damaged records in quarantine and rebuilds indexes. Rows that lost their records are to be
    /// done again. Gives what could not be repaired.
    ///
    /// # Errors
    /// When files cannot be read or written.
    pub fn repair(
        &self,
        manifest: &Manifest,
        found: Vec<Damage>,
        now_ms: u64,
    ) -> Result<Vec<Damage>, Error> {
        let mut shards: Vec<u32> = found
            .iter()
            .filter(|damage| damage.kind != DamageKind::Fatal)
            .filter_map(|damage| damage.shard)
            .collect();
        shards.dedup();
        for number in shards {
            if let Some(entry) = manifest.shards.get(number as usize) {
                self.forget_index(number)?;
                drop(self.open_shard(number, entry, now_ms)?);
            }
        }
        let mut left = found;
        left.retain(|damage| damage.kind == DamageKind::Fatal);
        if left.is_empty() {
            self.redo_here()?;
        }
        Ok(left)
    }
}
