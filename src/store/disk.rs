//! File operations as the store needs them: with a path in every error, private modes, no
//! symbolic links followed inside a work directory, and whole files replaced atomically.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::Error;
use crate::guard::Guard;

/// Names what was being done to which path when an operation failed.
pub(super) fn context(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}

/// The flag with which no symbolic link is followed.
pub(super) fn no_follow() -> i32 {
    // The flag's bits fit; rustix keeps them unsigned.
    i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default()
}

/// Makes a directory that only its owner may enter, durably; its parents are made like any others.
pub(super) fn create_dir(path: &Path) -> Result<(), Error> {
    create_dir_with(path, 0o700)
}

/// As [`create_dir`], in a directory that is there: one that was taken away is not made again.
pub(super) fn create_dir_within(path: &Path) -> Result<(), Error> {
    create_one_dir(path, 0o700)
}

/// As [`create_dir`], with another mode.
pub(super) fn create_dir_with(path: &Path, mode: u32) -> Result<(), Error> {
    let parent = parent_of(path);
    if !parent.exists() {
        create_dir_with(parent, 0o777)?;
    }
    create_one_dir(path, mode)
}

fn create_one_dir(path: &Path, mode: u32) -> Result<(), Error> {
    let parent = parent_of(path);
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) => return Err(context("create", path)(error)),
    }
    // Also when it is there: who made it may have been killed before it was durable.
    sync_dir(parent)
}

/// The directory that holds a path.
pub(super) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), Error> {
    if Guard::DirectorySync.is_left_out() {
        return Ok(());
    }
    File::open(path).and_then(|dir| dir.sync_all()).map_err(context("sync", path))
}

/// Opens a file of the work directory for reading.
pub(super) fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .custom_flags(no_follow())
        .open(path)
        .map_err(context("open", path))
}

/// Opens a file for appending and reading, making it if it is not there.
pub(super) fn open_append(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(0o600).custom_flags(no_follow());
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Another worker may have made it by now: the quarantine's log is for all of them.
            let file = options.create(true).open(path).map_err(context("create", path))?;
            sync_dir(parent_of(path))?;
            Ok(file)
        }
        opened => {
            let file = opened.map_err(context("open", path))?;
            if file.metadata().is_ok_and(|meta| meta.len() == 0) {
                // Who made it may have been killed before its name was durable.
                sync_dir(parent_of(path))?;
            }
            Ok(file)
        }
    }
}

/// Opens a file for writing at any place, making it if it is not there.
pub(super) fn open_write(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow())
        .open(path)
        .map_err(context("open", path))
}

/// A file's bytes; nothing where there is no such file.
pub(super) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let opened =
        OpenOptions::new().read(true).custom_flags(no_follow()).open(path).and_then(|mut file| {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map(|_| bytes)
        });
    match opened {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(context("read", path)(error)),
    }
}

/// The name under which a file is written before it takes the place of `path`.
pub(super) fn new_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Replaces a file's bytes so that after any crash it has either the old or the new ones.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let new = if Guard::Rename.is_left_out() { path.to_owned() } else { new_name(path) };
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(no_follow())
            .open(&new)?;
        file.write_all(bytes)?;
        if Guard::SyncBeforeRename.is_left_out() { Ok(()) } else { file.sync_all() }
    };
    write().map_err(context("write", &new))?;
    if Guard::Rename.is_left_out() {
        return Ok(());
    }
    fs::rename(&new, path).map_err(context("replace", path))?;
    sync_dir(parent_of(path))
}

/// Removes a file of ours, if it is there. Whatever else has its name is not ours.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.is_file() => {
            let reason = io::Error::other("it is not a file, and rowmill did not make it");
            return Err(context("remove", path)(reason));
        }
        _ => {}
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(context("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// The names in a directory, sorted; none where there is no such directory.
pub(super) fn names(path: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(context("list", path)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(context("list", path))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_several_threads_make_at_once_is_one_file() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..200 {
            let path = dir.path().join(round.to_string());
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| open_append(&path).unwrap().write_all(b"x").unwrap());
                }
            });
            assert_eq!(fs::read(&path).unwrap(), b"xxxx");
        }
    }
}
