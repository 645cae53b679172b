//! Generations: a plan, its journals and its index, complete in themselves.
//!
//! The first plan of a work directory stands in the directory itself, later ones in `gen-000002` and
//! so on. The newest that has a manifest is the one that counts, so that one rename, of the
//! manifest to its name, puts a generation in the place of the one before it, and a crash leaves
//! one or the other. What is older stays until it is not wanted any more.

use std::path::{Path, PathBuf};

use super::names::{
    CONTENTS, IDS, MANIFEST, PART, PART_NOTE, SHARDS, SPOOL, generation_dir, generation_number,
};
use super::removal::{self, Folder, Listing, Removed};
use super::workdir::second_spool;
use super::{Damage, Error, Held, Manifest, Record, WorkDir, disk};

/// Where a generation stands.
pub(super) fn base(root: &Path, generation: u32) -> PathBuf {
    if generation > 1 { root.join(generation_dir(generation)) } else { root.to_owned() }
}

/// The generation that counts: the newest with a manifest, or the first.
pub(super) fn newest(root: &Path) -> Result<u32, Error> {
    let names = disk::names(root)?;
    let planned = |number: &u32| {
        let place = base(root, *number);
        // A link to a plan elsewhere is none of ours.
        let is_dir = std::fs::symlink_metadata(&place).is_ok_and(|meta| meta.is_dir());
        is_dir && place.join(MANIFEST).exists()
    };
    Ok(names.iter().filter_map(|name| generation_number(name)).filter(planned).max().unwrap_or(1))
}

impl WorkDir {
    /// Which generation this is a view of: 1 for the first plan.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The generations that are there, the one that counts included, oldest first.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn generations(&self) -> Result<Vec<u32>, Error> {
        let names = disk::names(self.path())?;
        let mut found: Vec<u32> = names.iter().filter_map(|name| generation_number(name)).collect();
        if names.iter().any(|name| name == MANIFEST || name == SHARDS) {
            found.push(1);
        }
        found.sort_unstable();
        Ok(found)
    }
}

impl Held {
    /// Opens the shards that a process which is gone had under way, so that what it left is repaired
    /// and the calls that left no record are counted. Gives the number of those, and the repairs.
    ///
    /// # Errors
    /// As [`Held::open_shard`].
    pub fn settle_shards(
        &self,
        manifest: &Manifest,
        now_ms: u64,
    ) -> Result<(u64, Vec<Damage>), Error> {
        let (mut lost, mut repairs) = (0_u64, Vec::new());
        for (number, entry) in manifest.open_shards() {
            let is_under_way = self.shard_dir(number).join("started").exists();
            if is_under_way && self.seal(number)?.is_none() {
                let open = self.open_shard(number, entry, now_ms)?;
                lost = lost.saturating_add(open.repeated);
                repairs.extend(open.repairs);
            }
        }
        Ok((lost, repairs))
    }

    /// The calls of a plan's shards that a crash took, as far as they were counted.
    ///
    /// # Errors
    /// When a journal cannot be read.
    pub fn calls_lost(&self, manifest: &Manifest) -> Result<u64, Error> {
        let mut lost = 0_u64;
        for (number, entry) in manifest.open_shards() {
            match self.seal(number)? {
                Some(seal) => lost = lost.saturating_add(seal.repeated),
                None => {
                    self.peek_shard(number, entry, &mut |record| {
                        if let Record::Repeated { calls, .. } = record {
                            lost = lost.saturating_add(*calls);
                        }
                    })?;
                }
            }
        }
        Ok(lost)
    }

    /// Makes room for the next generation and turns to it; what is left of an earlier try goes.
    /// Gives a view of the one that counts until the next has a manifest.
    ///
    /// # Errors
    /// When files cannot be made or removed.
    pub fn begin_generation(&mut self) -> Result<WorkDir, Error> {
        let old = WorkDir::clone(self);
        let next = self.generation() + 1;
        let place = base(self.path(), next);
        let listing = Listing::of(&place, Folder::Generation)?;
        listing.check_names(self.path())?;
        self.note_left(&listing.remove()?);
        disk::create_dir(&place)?;
        self.turn_to(next);
        self.draw_next_plan(&old);
        Ok(old)
    }

    /// Gives the generation up that was begun last, and turns back to the one that counts.
    ///
    /// # Errors
    /// When files cannot be removed.
    pub fn abandon_generation(&mut self, old: &WorkDir) -> Result<(), Error> {
        let place = base(self.path(), self.generation());
        self.turn_to(old.generation());
        match place != self.path() {
            true => self.remove_folder(&place, Folder::Generation),
            false => Ok(()),
        }
    }

    /// Removes generations that do not count any more, but for the newest `keep` of them.
    ///
    /// # Errors
    /// When files cannot be removed.
    pub fn drop_generations(&self, keep: u32) -> Result<(), Error> {
        for number in self.generations()? {
            if number.saturating_add(keep) >= self.generation() && number <= self.generation() {
                continue;
            }
            let place = base(self.path(), number);
            if number > 1 {
                self.drop_generation(&place)?;
                continue;
            }
            // The first one's manifest goes last: without it the rest is not known for what it is.
            self.remove_folder(&place.join(SHARDS), Folder::Shards)?;
            for name in [PART_NOTE, PART, IDS, CONTENTS, SPOOL, MANIFEST] {
                disk::remove(&place.join(name))?;
            }
            disk::remove(&second_spool(&place))?;
        }
        Ok(())
    }

    /// Removes a later generation, unless somebody copied another one to its place.
    fn drop_generation(&self, place: &Path) -> Result<(), Error> {
        if removal::is_copy(place, Folder::Generation) {
            let left = vec![place.to_owned()];
            self.note_left(&Removed { files: 1, left });
            return Ok(());
        }
        self.remove_folder(place, Folder::Generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Holder;

    #[test]
    fn the_newest_with_a_manifest_counts_and_the_others_go() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("work");
        let hold = || Held::acquire(&path, Holder::this_process("test", 0), &mut || false).unwrap();
        let mut dir = hold();
        let write = |place: &Path| std::fs::write(place.join(MANIFEST), "x").unwrap();
        write(&path);
        let old = dir.begin_generation().unwrap();
        assert_eq!((old.generation(), dir.generation()), (1, 2));
        assert_eq!(newest(&path).unwrap(), 1, "it has no manifest yet");
        dir.abandon_generation(&old).unwrap();
        assert_eq!(dir.generations().unwrap(), [1]);
        for generation in 2..=4 {
            dir.begin_generation().unwrap();
            write(&base(&path, generation));
        }
        drop(dir);
        let dir = hold();
        assert_eq!(dir.generation(), 4);
        dir.drop_generations(1).unwrap();
        assert_eq!(dir.generations().unwrap(), [3, 4]);
        dir.drop_generations(0).unwrap();
        assert_eq!(dir.generations().unwrap(), [4]);
        assert!(!path.join(MANIFEST).exists());
    }
}
