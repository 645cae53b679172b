//! Where outputs go: what may be replaced atomically, what can only be written to, what is refused.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lock::{self, Lock};
use super::stage::staged_name;
use super::workdir::GLANCES;
use super::writers::OtherWriter;
use super::{Error, Holder, disk};

/// The extended attribute that says what an output is an output of.
pub(super) const TAG: &str = "user.rowmill.job";

/// Bytes of a name on most file systems.
const NAME_BYTES: usize = 255;
/// Of a run's name what names of files have.
const RUN_IN_NAMES: &str = "00000000";

/// An output's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A regular file, there or not yet. Symbolic links are followed, once: the link stays and
    /// what it points to is replaced.
    File(PathBuf),
    /// A pipe, a terminal, a device: written as it comes, without a way back.
    Stream(PathBuf),
    /// Standard output.
    Stdout,
    /// A URL: staged like a file, and then uploaded by whoever can.
    Remote {
        /// The URL, without what is secret in it.
        url: PathBuf,
        /// Where it is staged; an absolute path.
        staging: PathBuf,
    },
}

/// What tells an output's place from others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KnownBy {
    /// Its path.
    Path(PathBuf),
    /// Its file system and inode.
    File(u64, u64),
    /// It is standard output.
    Stdout,
    /// Its URL.
    Url(OsString),
}

/// What is noted on a file about the run that published it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// This.
    Is(String),
    /// Nothing, though the file system would keep it: rowmill did not write this file.
    Missing,
    /// The file system keeps no notes.
    Unknown,
}

impl Target {
    /// Looks at where an output is to go. `-` is standard output.
    ///
    /// # Errors
    /// When it is a directory, or the directory that is to hold it is not there.
    pub fn resolve(path: &Path) -> Result<Self, Error> {
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        let refuse =
            |reason: &str| Error::Target { path: path.to_owned(), reason: reason.to_owned() };
        if is_link_of_others(path).map_err(disk::context("look at", path))? {
            return Err(refuse("is a symbolic link of another user, who says what it leads to"));
        }
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => Err(refuse("is a directory")),
            Ok(meta) if meta.is_file() => {
                let real = path.canonicalize().map_err(disk::context("find", path))?;
                Ok(Self::File(real))
            }
            Ok(meta) => {
                let kind = meta.file_type();
                if kind.is_fifo() || kind.is_char_device() {
                    return Ok(Self::Stream(path.to_owned()));
                }
                Err(refuse("is neither a file nor a pipe"))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = follow(path);
                let parent = disk::parent_of(&path);
                let Ok(parent) = parent.canonicalize() else {
                    return Err(refuse("the directory it is to stand in is not there"));
                };
                let name = path.file_name().ok_or_else(|| refuse("has no file name"))?;
                Ok(Self::File(parent.join(name)))
            }
            Err(error) => Err(disk::context("look at", path)(error)),
        }
    }

    /// What is noted on the file about the run that published it: an extended attribute, which moves
    /// with the file and is lost when it is copied.
    #[must_use]
    pub fn tag(&self) -> Tag {
        const LONGEST: usize = 256;
        let Self::File(path) = self else { return Tag::Unknown };
        let mut value = [0; LONGEST];
        match rustix::fs::getxattr(path, TAG, &mut value[..]) {
            Ok(length) => {
                Tag::Is(String::from_utf8_lossy(value.get(..length).unwrap_or_default()).into())
            }
            Err(rustix::io::Errno::NODATA) => Tag::Missing,
            Err(_) => Tag::Unknown,
        }
    }

    /// Whether there is a file that would be replaced.
    #[must_use]
    pub fn is_there(&self) -> bool {
        matches!(self, Self::File(path) if path.exists())
    }

    /// Looks at where an output of this name is to go in a directory, which may be still to be made.
    ///
    /// # Errors
    /// As [`Target::resolve`]; and where the directory is none.
    pub fn within(dir: &Path, name: &str) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Target { path: dir.to_owned(), reason };
        if dir.is_dir() {
            return Self::resolve(&dir.join(name));
        }
        if dir.exists() {
            return Err(refuse("is not a directory".to_owned()));
        }
        let real = real_dir(dir).map_err(|error| refuse(error.to_string()))?;
        Ok(Self::File(real.join(name)))
    }

    /// Makes sure that its name is short enough for the file system, also while it is staged. To be called
    /// before anything is paid for: it is staged only once all is done.
    ///
    /// # Errors
    /// When it is too long.
    pub fn check_name(&self) -> Result<(), Error> {
        let Self::File(path) = self else { return Ok(()) };
        let within = path.ancestors().skip(1).find_map(|dir| rustix::fs::statvfs(dir).ok());
        // Some file systems do not say.
        let most = within.map_or(0, |it| usize::try_from(it.f_namemax).unwrap_or(usize::MAX));
        let most = if most == 0 { NAME_BYTES } else { most };
        let length = path.file_name().map_or(0, |name| name.len());
        let added = staged_name(path, RUN_IN_NAMES, u32::MAX).len().saturating_sub(length);
        if length + added <= most {
            return Ok(());
        }
        let reason = format!(
            "its name has {length} bytes, and may have {} here, since it is called a little longer while it \
             is written",
            most.saturating_sub(added)
        );
        Err(Error::Target { path: path.clone(), reason })
    }

    /// What it is known by: two are the same file, under whatever names, where they share any of it.
    #[must_use]
    pub fn known_by(&self) -> Vec<KnownBy> {
        match self {
            Self::File(path) => {
                let meta = fs::metadata(path).ok();
                let file = meta.map(|meta| KnownBy::File(meta.dev(), meta.ino()));
                file.into_iter().chain([KnownBy::Path(path.clone())]).collect()
            }
            Self::Stdout => vec![KnownBy::Stdout],
            // As paths, those that differ in a slash would be equal.
            Self::Remote { url, .. } => vec![KnownBy::Url(url.clone().into_os_string())],
            Self::Stream(_) => Vec::new(),
        }
    }

    /// Whether both are the same file, under whatever names.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        let known = self.known_by();
        other.known_by().iter().any(|it| known.contains(it))
    }
}

/// Whether a path is a symbolic link of another user's, in a directory that others can write.
fn is_link_of_others(path: &Path) -> io::Result<bool> {
    let is_link = path.is_symlink();
    Ok(is_link && OtherWriter::of_shared(path)? == Some(OtherWriter::Owner))
}

/// What a link that points to nothing points to, be it by way of other links.
fn follow(path: &Path) -> PathBuf {
    const MOST: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MOST {
        let Ok(to) = fs::read_link(&path) else { break };
        path = disk::parent_of(&path).join(to);
    }
    path
}

/// Where a directory is, or will be once it and those above it are made.
///
/// # Errors
/// When it cannot be looked at, or could not be made under this name.
pub fn real_dir(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = path.file_name().ok_or(error)?;
            Ok(real_dir(disk::parent_of(path))?.join(name))
        }
        other => other,
    }
}

/// Makes a directory for outputs where it is not there, durably, and those above it.
///
/// # Errors
/// When it cannot be made.
pub fn make_output_dir(path: &Path) -> Result<(), Error> {
    disk::create_dir_with(path, 0o777)
}

/// Keeps two runs with different work directories from publishing to one output. Also shows,
/// before any call is paid for, that files can be made beside it.
#[derive(Debug)]
pub struct OutputLock {
    path: PathBuf,
    _lock: Lock,
}

impl OutputLock {
    /// Takes the lock of an output; nothing for outputs that are not files. `wait` is asked whether
    /// to go on waiting while another process has it, and may sleep.
    ///
    /// # Errors
    /// [`Error::Busy`] when another process has it.
    pub fn acquire(
        target: &Target,
        holder: &Holder,
        wait: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Self>, Error> {
        let Target::File(file) = target else { return Ok(None) };
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let path = file.with_file_name(format!(".{name}.rowmill-lock"));
        Self::take(path, file, holder, wait).map(Some)
    }

    /// Takes the lock of a directory of outputs, likewise.
    ///
    /// # Errors
    /// As [`OutputLock::acquire`].
    pub fn acquire_dir(
        dir: &Path,
        holder: &Holder,
        wait: &mut dyn FnMut() -> bool,
    ) -> Result<Self, Error> {
        Self::take(dir.join(".rowmill-lock"), dir, holder, wait)
    }

    /// Takes a lock file; `place` is what it stands for.
    fn take(
        path: PathBuf,
        place: &Path,
        holder: &Holder,
        wait: &mut dyn FnMut() -> bool,
    ) -> Result<Self, Error> {
        if !lock::may_be_cut_off(&path) {
            let reason = "is to be a lock, and rowmill did not write it".to_owned();
            return Err(Error::Target { path, reason });
        }
        let mut glances = 0;
        loop {
            if let Some(mut lock) = lock::try_lock(&path)? {
                lock.sign(holder, &path)?;
                return Ok(Self { path, _lock: lock });
            }
            let holder = lock::signature(&path).map(Box::new);
            if glances < GLANCES && holder.is_none() {
                // Whoever has it has not signed yet, or is about to give it back.
                glances += 1;
                std::thread::sleep(Duration::from_millis(1));
            } else if !wait() {
                return Err(Error::Busy { path: place.to_owned(), holder });
            }
        }
    }
}

impl Drop for OutputLock {
    fn drop(&mut self) {
        // While it is still locked: whoever opened it before sees that it is gone and makes another.
        let _ = disk::remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_and_what_cannot_hold_an_output_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        fs::write(at("real"), "x").unwrap();
        fs::create_dir(at("folder")).unwrap();
        symlink(at("real"), at("link")).unwrap();
        symlink("later", at("dangling")).unwrap();
        symlink("nowhere/later", at("lost")).unwrap();

        assert_eq!(Target::resolve(&at("link")).unwrap(), Target::File(at("real")));
        assert_eq!(Target::resolve(&at("dangling")).unwrap(), Target::File(at("later")));
        assert_eq!(Target::resolve(&at("new")).unwrap(), Target::File(at("new")));
        assert_eq!(Target::resolve(Path::new("-")).unwrap(), Target::Stdout);
        let null = Path::new("/dev/null");
        assert_eq!(Target::resolve(null).unwrap(), Target::Stream(null.to_owned()));
        for refused in ["folder", "lost", "nowhere/file"] {
            assert!(
                matches!(Target::resolve(&at(refused)), Err(Error::Target { .. })),
                "{refused}"
            );
        }
        let link = Target::resolve(&at("link")).unwrap();
        assert!(link.is_same_as(&Target::File(at("real"))));
        fs::hard_link(at("real"), at("twin")).unwrap();
        assert!(link.is_same_as(&Target::File(at("twin"))));
        assert!(!link.is_same_as(&Target::File(at("new"))));
    }

    #[test]
    fn one_run_an_output() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::resolve(&dir.path().join("out")).unwrap();
        let holder = Holder::this_process("first", 0);
        let held = OutputLock::acquire(&target, &holder, &mut || false).unwrap();
        let mut waited = 0;
        let mut wait = || {
            waited += 1;
            waited < 3
        };
        let second = OutputLock::acquire(&target, &holder, &mut wait);
        assert!(matches!(second, Err(Error::Busy { .. })));
        assert_eq!(waited, 3);
        drop(held);
        assert!(OutputLock::acquire(&target, &holder, &mut || false).unwrap().is_some());
        assert_eq!(disk::names(dir.path()).unwrap().len(), 0, "nothing stays behind");
    }
}
