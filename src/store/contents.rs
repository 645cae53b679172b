//! What is in a work directory, and how it is emptied: rowmill removes nothing that it did not write.

use std::io::ErrorKind;

use super::adopting::ADOPTING;
use super::last_run::LAST_RUN;
use super::part::{PART, PART_NOTE};
use super::workdir::{
    CONTENTS, IDS, LOCK, MANIFEST, MARKER, QUARANTINE, SERVER_LOG, SHARDS, SPOOL, WIPING,
};
use super::{Error, Held, WorkDir, disk, generations};

impl WorkDir {
    /// Entries that rowmill did not write, relative to the work directory.
    ///
    /// # Errors
    /// When a directory cannot be listed.
    pub fn strangers(&self) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        for name in disk::names(self.path())? {
            let base = name.strip_suffix(".new").unwrap_or(&name);
            if generations::number_of(&name).is_some() {
                self.strangers_within(&name, &mut found)?;
            } else if !is_known(base) {
                found.push(name);
            }
        }
        self.strangers_among_shards("", &mut found)?;
        Ok(found)
    }

    fn strangers_within(&self, generation: &str, found: &mut Vec<String>) -> Result<(), Error> {
        for name in disk::names(&self.path().join(generation))? {
            let base = name.strip_suffix(".new").unwrap_or(&name);
            if !is_of_generation(base) {
                found.push(format!("{generation}/{name}"));
            }
        }
        self.strangers_among_shards(&format!("{generation}/"), found)
    }

    fn strangers_among_shards(&self, before: &str, found: &mut Vec<String>) -> Result<(), Error> {
        let shards = self.path().join(before).join(SHARDS);
        for shard in disk::names(&shards)? {
            if shard.len() < 5 || !shard.bytes().all(|b| b.is_ascii_digit()) {
                found.push(format!("{before}{SHARDS}/{shard}"));
                continue;
            }
            for name in disk::names(&shards.join(&shard))? {
                let known =
                    ["journal", "checkpoint", "seal.json", "started", "duplicates", "twins"];
                if !known.contains(&name.strip_suffix(".new").unwrap_or(&name)) {
                    found.push(format!("{before}{SHARDS}/{shard}/{name}"));
                }
            }
        }
        Ok(())
    }
}

impl Held {
    /// Removes all that rowmill wrote but the marker and the lock, the plan first.
    ///
    /// # Errors
    /// [`Error::Foreign`] when there is something that rowmill did not write: then nothing is
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
        if let Some(name) = self.strangers()?.first() {
            return Err(Error::Foreign {
                path: self.path().to_owned(),
                reason: format!("it holds {name:?}, which rowmill did not write"),
            });
        }
        let root = &self.path().to_owned();
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
        for name in disk::names(root)? {
            match name.as_str() {
                MARKER | LOCK | WIPING => {}
                name if kept.contains(&name) => {}
                SHARDS | QUARANTINE => disk::remove_dir(&root.join(name))?,
                name if generations::number_of(name).is_some() => {
                    disk::remove_dir(&root.join(name))?;
                }
                _ => disk::remove(&root.join(name))?,
            }
        }
        disk::sync_dir(root)?;
        disk::remove(&root.join(WIPING))?;
        disk::sync_dir(root)?;
        self.turn_to(1);
        Ok(())
    }

    /// Removes the work directory.
    ///
    /// # Errors
    /// As [`Held::wipe`].
    pub fn remove(mut self) -> Result<(), Error> {
        self.wipe()?;
        let root = self.path();
        // Half a signature, or one that a power cut turned to zeros, beside no marker would look
        // like a file of somebody else's.
        self.unsign()?;
        disk::remove(&root.join(MARKER))?;
        disk::remove(&root.join(LOCK))?;
        std::fs::remove_dir(root).map_err(disk::context("remove", root))?;
        disk::sync_dir(disk::parent_of(root))
    }
}

/// Whether a name in a work directory is one that rowmill gives.
fn is_known(name: &str) -> bool {
    const NAMES: [&str; 7] = [MARKER, LOCK, QUARANTINE, ADOPTING, WIPING, LAST_RUN, SERVER_LOG];
    let commit = name.strip_prefix("commit-").and_then(|rest| rest.strip_suffix(".json"));
    NAMES.contains(&name)
        || name.strip_suffix(".1") == Some(SERVER_LOG)
        || is_of_generation(name)
        || commit.is_some_and(|number| is_number(number, 6))
        || name.starts_with('.') && name.ends_with(".staged")
}

/// Whether a name is one that rowmill gives where a generation stands.
fn is_of_generation(name: &str) -> bool {
    const NAMES: [&str; 8] =
        [MANIFEST, SHARDS, IDS, CONTENTS, SPOOL, "input.new.jsonl", PART, PART_NOTE];
    const PARTS: [&str; 12] = [
        "new",
        "places",
        "answers",
        "prompts",
        "requests",
        "twins",
        "originals",
        "settled",
        "of",
        "asked",
        "since",
        "outcomes",
    ];
    let is_part = |part: &str| PARTS.contains(&part) || is_number(part, 3);
    let mut parts = name.split(".part-");
    let is_index = parts.next() == Some(IDS) && parts.all(is_part);
    NAMES.contains(&name) || is_index
}

fn is_number(text: &str, digits: usize) -> bool {
    text.len() >= digits && text.bytes().all(|byte| byte.is_ascii_digit())
}
