//! Who can write a file or a directory besides the user that this process runs as, and root.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{getegid, geteuid};

use super::disk;

/// Somebody else who can write something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherWriter {
    /// The user that it belongs to.
    Owner,
    /// Everybody.
    Everybody,
    /// A group that is not the process's own.
    Group,
}

impl OtherWriter {
    /// Who else can write what this is of; `None` if nobody can.
    #[must_use]
    pub fn of(meta: &Metadata) -> Option<Self> {
        if ![geteuid().as_raw(), 0].contains(&meta.uid()) {
            return Some(Self::Owner);
        }
        match meta.mode() {
            // The mode of a symbolic link says nothing.
            _ if meta.is_symlink() => None,
            mode if mode & 0o002 != 0 => Some(Self::Everybody),
            mode if mode & 0o020 != 0 && meta.gid() != getegid().as_raw() => Some(Self::Group),
            _ => None,
        }
    }

    /// Who else may have written what stands at a path: only where somebody else can write the directory that it is
    /// in, since anything can be put there.
    ///
    /// # Errors
    /// When it is there and cannot be looked at.
    pub fn of_shared(path: &Path) -> io::Result<Option<Self>> {
        let is_there = |meta: io::Result<Metadata>| match meta {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            meta => meta.map(Some),
        };
        let Some(dir) = is_there(fs::metadata(disk::parent_of(path)))? else { return Ok(None) };
        if Self::of(&dir).is_none() {
            return Ok(None);
        }
        // Whoever made a link says what it leads to.
        let (link, file) = (is_there(path.symlink_metadata())?, is_there(path.metadata())?);
        Ok(link.iter().chain(&file).find_map(Self::of))
    }

    /// What is wrong with what somebody else can write, to stand behind its name.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Owner => "belongs to another user",
            Self::Everybody => "can be written by everybody",
            Self::Group => "can be written by a group that is not yours",
        }
    }
}
