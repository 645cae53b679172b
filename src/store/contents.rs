//! How a work directory is emptied: what rowmill wrote goes, the rest stays.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::PoisonError;

use super::names::{LOCK, MANIFEST, MARKER, PART, PART_NOTE, SPOOL, WIPING};
use super::removal::{Folder, Listing, Removed};
use super::{Error, Held, disk};

impl Held {
    /// Removes all that rowmill wrote but the marker and the lock, the plan first. What it did not write stays:
    /// [`Held::take_left`].
    ///
    /// # Errors
    /// [`Error::Foreign`] when something that rowmill did not write has a name that it would use: then nothing is
    /// removed.
    pub fn wipe(&mut self) -> Result<(), Error> {
        self.wipe_but(&[])
    }

    /// As [`Held::wipe`], but for what has come of an input that is being fetched.
    ///
    /// # Errors
    /// As [`Held::wipe`].
    pub fn wipe_but_part(&mut self) -> Result<(), Error> {
        let kept: &[&str] = if self.has_part() { &[PART, PART_NOTE, SPOOL] } else { &[] };
        self.wipe_but(kept)
    }

    fn wipe_but(&mut self, kept: &[&str]) -> Result<(), Error> {
        let root = &self.path().to_owned();
        Listing::of(root, Folder::WorkDir)?.check_names(root)?;
        // The newest plan is the last to go: an older one must not count again.
        self.drop_generations(0)?;
        let base = self.base();
        disk::sync_dir(root)?;
        // Without a plan the rest means nothing, and its new name says why there is none, whatever
        // is cut off here.
        match std::fs::rename(base.join(MANIFEST), root.join(WIPING)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            renamed => renamed.map_err(disk::context("rename", &base.join(MANIFEST)))?,
        }
        disk::sync_dir(&base)?;
        disk::sync_dir(root)?;
        let kept = [&[MARKER, LOCK, WIPING], kept].concat();
        let removed = Listing::of(root, Folder::WorkDir)?.keep(root, &kept).remove()?;
        self.note_left(&removed);
        disk::sync_dir(root)?;
        disk::remove(&root.join(WIPING))?;
        disk::sync_dir(root)?;
        self.turn_to(1);
        Ok(())
    }

    /// Removes the work directory. Gives what rowmill did not write in it: where there is anything, the directory
    /// stays, and is a work directory still.
    ///
    /// # Errors
    /// As [`Held::wipe`].
    pub fn remove(mut self) -> Result<Vec<String>, Error> {
        self.wipe()?;
        let root = self.path();
        let names = disk::names(root)?;
        let left: Vec<_> =
            names.into_iter().filter(|it| ![MARKER, LOCK].contains(&&**it)).collect();
        if !left.is_empty() {
            let told = self.take_left();
            return Ok(if told.is_empty() { left } else { told });
        }
        // Half a signature, or one that a power cut turned to zeros, beside no marker would look
        // like a file of somebody else's.
        self.unsign()?;
        disk::remove(&root.join(MARKER))?;
        disk::remove(&root.join(LOCK))?;
        std::fs::remove_dir(root).map_err(disk::context("remove", root))?;
        disk::sync_dir(disk::parent_of(root))?;
        Ok(left)
    }

    /// Removes what rowmill wrote to a directory in this one, if it is there, and the directory if it is
    /// empty then.
    pub(super) fn remove_folder(&self, path: &Path, folder: Folder) -> Result<(), Error> {
        let removed = Listing::of(path, folder)?.remove()?;
        self.note_left(&removed);
        Ok(())
    }

    /// Notes what was not removed. Where nothing was, it has been told before.
    pub(super) fn note_left(&self, removed: &Removed) {
        if removed.files > 0 {
            let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            left.extend(removed.left.iter().map(|path| self.relative(path)));
        }
    }

    /// What was not removed since this was last asked, because rowmill did not write it: its names in the
    /// work directory.
    pub fn take_left(&self) -> Vec<String> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *left).into_iter().collect()
    }
}
