//! What a model server says that rowmill started: a file that stays bounded however long it runs.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{Error, disk};

/// A log is set aside once it is this long, and the one set aside before goes.
const LONGEST: u64 = 4 << 20;

/// A log that is being written.
#[derive(Debug)]
pub struct ServerLog {
    path: PathBuf,
    file: File,
    length: u64,
}

impl ServerLog {
    /// Opens a log for adding to it, making it if it is not there.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = disk::open_append(path)?;
        let length = file.metadata().map_err(disk::context("look at", path))?.len();
        Ok(Self { path: path.to_owned(), file, length })
    }

    /// Adds to it. What cannot be written is lost: a log is no reason for a server to stop.
    pub fn add(&mut self, bytes: &[u8]) {
        if self.length >= LONGEST && self.set_aside() {
            // Where there is nothing to set aside, the work directory is gone: it is not made again.
            if let Ok(log) = Self::open(&self.path) {
                *self = log;
            }
        }
        if self.file.write_all(bytes).is_ok() {
            self.length += bytes.len() as u64;
        }
    }

    /// Renames it, and says whether that was done. Nothing but an older log is replaced.
    fn set_aside(&self) -> bool {
        let aside = aside(&self.path);
        let is_log = std::fs::symlink_metadata(&aside).map_or(true, |meta| meta.is_file());
        is_log && std::fs::rename(&self.path, aside).is_ok()
    }

    /// The last lines of a log that are not blank, at most `most` of them, oldest first; none where
    /// there is no log. Only what was added behind `from` bytes counts.
    #[must_use]
    pub fn last_lines(path: &Path, from: u64, most: usize) -> Vec<String> {
        const LOOKED_AT: u64 = 8 << 10;
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = disk::open(path).map_err(std::io::Error::other)?;
            let length = file.metadata()?.len();
            // One that is shorter was set aside since: all that is there is new.
            let from = if from > length { 0 } else { from };
            file.seek(SeekFrom::Start(from.max(length.saturating_sub(LOOKED_AT))))?;
            let mut bytes = Vec::new();
            file.take(LOOKED_AT).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let lines: Vec<String> = lines.map(str::to_owned).collect();
        lines[lines.len().saturating_sub(most)..].to_vec()
    }

    /// How long a log is; 0 where there is none.
    #[must_use]
    pub fn length(path: &Path) -> u64 {
        std::fs::symlink_metadata(path).map_or(0, |meta| meta.len())
    }
}

/// Where a log is kept that was set aside.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_stays_bounded_and_its_end_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.log");
        assert!(ServerLog::last_lines(&path, 0, 3).is_empty());
        let mut log = ServerLog::open(&path).unwrap();
        let line = [&b"x".repeat(1023)[..], b"\n"].concat();
        for _ in 0..3 * LONGEST / 1024 {
            log.add(&line);
        }
        log.add(b"one\n\n  two \nthree");
        assert!(ServerLog::length(&path) + ServerLog::length(&aside(&path)) <= 2 * LONGEST + 1024);
        assert_eq!(ServerLog::last_lines(&path, 0, 2), ["two", "three"]);
        assert_eq!(ServerLog::last_lines(&path, ServerLog::length(&path), 2), [""; 0]);
        assert_eq!(ServerLog::last_lines(&path, u64::MAX, 1), ["three"]);
    }

    #[test]
    fn a_log_that_was_taken_away_is_not_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.log");
        let mut log = ServerLog::open(&path).unwrap();
        log.length = LONGEST;
        std::fs::remove_file(&path).unwrap();
        log.add(b"x");
        assert!(!path.exists() && !aside(&path).exists());
    }
}
