//! Files that appear whole or not at all, where there is no work directory to redo anything from.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::attributes::carry_attributes;
use super::{Error, disk};

/// A file that is written under another name, in the directory where it will stand. Until it is placed, dropping it
/// removes it.
#[derive(Debug)]
pub struct WholeFile {
    staged: PathBuf,
    // Nothing between `release` and the next write.
    file: Option<BufWriter<File>>,
    is_placed: bool,
    // What it has once it is placed, unless it replaces another: until then nobody else reads it.
    permissions: Permissions,
}

/// Bytes gathered before they are written.
const BUFFER: usize = 1 << 16;

impl WholeFile {
    /// Begins a file in a directory. `name` is that of what it will be, to make the name it has until then.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn begin(dir: &Path, name: &str) -> Result<Self, Error> {
        // A name has 255 bytes at most.
        const LONGEST: usize = 200;
        let fits = |(at, c): &(usize, char)| at + c.len_utf8() <= LONGEST;
        let short: String = name.char_indices().take_while(fits).map(|(_, c)| c).collect();
        let (process, random) = (std::process::id(), fastrand::u32(..));
        let staged = dir.join(format!(".{short}.{process}-{random:08x}.staged"));
        let file = OpenOptions::new().write(true).create_new(true).open(&staged);
        let file = file.map_err(disk::context("create", &staged))?;
        let permissions = file.metadata().map(|meta| meta.permissions());
        let permissions = permissions.map_err(disk::context("look at", &staged))?;
        let mut whole = Self { staged, file: None, is_placed: false, permissions };
        file.set_permissions(Permissions::from_mode(0o600))
            .map_err(disk::context("create", &whole.staged))?;
        whole.file = Some(BufWriter::with_capacity(BUFFER, file));
        Ok(whole)
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let context = disk::context("write", &self.staged);
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let opened = OpenOptions::new().append(true).open(&self.staged);
                let opened = opened.map_err(disk::context("open", &self.staged))?;
                none.insert(BufWriter::with_capacity(BUFFER, opened))
            }
        };
        file.write_all(bytes).map_err(context)
    }

    /// Closes the file until the next write: there may be more of them than a process may have open.
    ///
    /// # Errors
    /// When its last bytes cannot be written.
    pub fn release(&mut self) -> Result<(), Error> {
        match self.file.take() {
            Some(mut file) => file.flush().map_err(disk::context("write", &self.staged)),
            None => Ok(()),
        }
    }

    /// Ends the file: all of it is on the disk then.
    ///
    /// # Errors
    /// When it cannot be written or synced.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.release()?;
        File::open(&self.staged)
            .and_then(|file| file.sync_all())
            .map_err(disk::context("sync", &self.staged))
    }

    /// Gives the file its place, durably. Without `overwrite` nothing that is there is replaced, whoever put it there and
    /// however late. A file that is replaced leaves its owner, permissions and attributes to the new one, as far as may be.
    ///
    /// # Errors
    /// [`Error::Target`] when something is there, [`Error::Io`] when it cannot be renamed.
    pub fn place(mut self, path: &Path, overwrite: bool) -> Result<(), Error> {
        let context = || disk::context("write", path);
        if overwrite {
            if !carry_attributes(path, &self.staged).map_err(context())? {
                fs::set_permissions(&self.staged, self.permissions.clone()).map_err(context())?;
            }
            fs::rename(&self.staged, path).map_err(context())?;
        } else {
            fs::set_permissions(&self.staged, self.permissions.clone()).map_err(context())?;
            rename_to_nothing(&self.staged, path).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    Error::Target { path: path.to_owned(), reason: "is there already".to_owned() }
                }
                _ => context()(error),
            })?;
        }
        self.is_placed = true;
        disk::sync_dir(disk::parent_of(path))
    }
}

/// Renames a file unless there is one of the new name.
fn rename_to_nothing(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system does not know the flag.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        result => Ok(result?),
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if !self.is_placed {
            let _ = disk::remove(&self.staged);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a");
        let begin = || WholeFile::begin(dir.path(), "a").unwrap();
        let mut file = begin();
        file.write(b"one ").unwrap();
        file.release().unwrap();
        file.release().unwrap();
        file.write(b"two").unwrap();
        file.finish().unwrap();
        assert!(!place.exists());
        file.place(&place, false).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"one two");

        drop(begin());
        let other = begin();
        let error = other.place(&place, false).unwrap_err();
        assert!(matches!(error, Error::Target { .. }), "{error}");
        assert_eq!(fs::read(&place).unwrap(), b"one two");

        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&place, private).unwrap();
        let mut third = begin();
        third.finish().unwrap();
        third.place(&place, true).unwrap();
        let meta = fs::metadata(&place).unwrap();
        assert_eq!(meta.len(), 0);
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777, 0o600);
        assert_eq!(disk::names(dir.path()).unwrap(), ["a"], "nothing stays behind");
    }

    #[test]
    fn long_names_are_shortened_until_then() {
        let dir = tempfile::tempdir().unwrap();
        let name = "é".repeat(127);
        let file = WholeFile::begin(dir.path(), &name).unwrap();
        file.place(&dir.path().join(&name), false).unwrap();
    }
}
