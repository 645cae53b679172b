//! The lock of a work directory: one process at a time, until it ends however it ends.
//!
//! The lock itself is the kernel's (`flock`), so a dead process never leaves one behind. The text
//! in the file only tells people who has it.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Error, disk};
use crate::guard::Guard;

/// Who holds a lock, in the words of its holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// The machine it runs on.
    pub host: String,
    /// Since when, as RFC 3339 has it.
    pub since: String,
    /// What it was started as.
    pub command: String,
    /// Rows that were done when it began, once it knows.
    pub done_at_start: Option<u64>,
}

impl Holder {
    /// This process, from now on.
    #[must_use]
    pub fn this_process(command: &str, now_ms: u64) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self {
            pid: std::process::id(),
            host,
            since: crate::job::rfc3339(now_ms),
            command: command.to_owned(),
            done_at_start: None,
        }
    }
}

/// The end of a sentence that says something is in use.
pub(super) fn by(holder: Option<&Holder>) -> String {
    holder.map_or_else(String::new, |holder| {
        format!(
            " by process {} on {} since {} ({})",
            holder.pid, holder.host, holder.since, holder.command
        )
    })
}

/// A lock that is held until this value is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    modified: Option<SystemTime>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A process that had nothing to do leaves no trace, not even a time. None of it matters
        // enough to tell anyone that it failed.
        let _ = self.file.set_len(0);
        if let Some(modified) = self.modified {
            let _ = self.file.set_modified(modified);
        }
    }
}

/// Takes the lock file at `path`, making it if need be. Nothing when another process has it.
pub(super) fn try_lock(path: &Path) -> Result<Option<Lock>, Error> {
    loop {
        let file = disk::open_write(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(_) if Guard::Lock.is_left_out() => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(disk::context("lock", path)(error)),
        }
        let modified = file.metadata().and_then(|meta| meta.modified()).ok();
        let lock = Lock { file, modified };
        // The last holder may have removed the file between the opening and the locking.
        if lock.is_at(path) {
            return Ok(Some(lock));
        }
    }
}

impl Lock {
    /// Whether the file at `path` is the one that is locked.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        let (Ok(held), Ok(there)) = (self.file.metadata(), std::fs::symlink_metadata(path)) else {
            return false;
        };
        (held.dev(), held.ino()) == (there.dev(), there.ino())
    }

    /// Takes the signature away, durably: what is left of the file after a power cut is empty.
    pub(super) fn unsign(&self, path: &Path) -> Result<(), Error> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.sync_all())
            .map_err(disk::context("empty", path))
    }

    /// Writes down who holds the lock.
    pub(super) fn sign(&mut self, holder: &Holder, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec(holder).unwrap_or_default();
        let mut write = || {
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(&text)
        };
        write().map_err(disk::context("write", path))
    }
}

/// Whether a file may be one that [`try_lock`] made: it is empty, or tells a holder.
pub(super) fn may_be_ours(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == 0)
        || signature(path).is_some()
}

/// Whether what stands at a path, if anything, is a file that [`try_lock`] made, also where a crash cut its
/// signature off.
pub(super) fn may_be_cut_off(path: &Path) -> bool {
    const BEGINNING: &[u8] = b"{\"pid\":";
    let mut beginning = Vec::new();
    let mut read = |file: File| file.take(BEGINNING.len() as u64).read_to_end(&mut beginning);
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => {}
        Ok(_) => return false,
        // Whoever makes it meets the error.
        Err(_) => return true,
    }
    let is_read = disk::open(path).is_ok_and(|file| read(file).is_ok());
    !is_read || BEGINNING.starts_with(&beginning) || beginning.iter().all(|byte| *byte == 0)
}

/// Who wrote the lock file last, if it can be read.
pub(super) fn signature(path: &Path) -> Option<Holder> {
    let mut text = String::new();
    disk::open(path).ok()?.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Whether some process has the lock at this moment.
pub(super) fn is_held(path: &Path) -> bool {
    // A shared lock for a moment: others that look do not disturb each other, and a process that
    // wants the lock tries more than once.
    let Ok(file) = disk::open(path) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}
