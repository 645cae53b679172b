//! What rowmill removes: what it wrote, known by its place, its name and its kind. A directory is listed whole before
//! anything in it goes; what is not known stays, and so do the directories that hold it.

use std::fs::{self, FileType};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::names::{
    ADOPTING, CONTENTS, IDS, LAST_RUN, LOCK, MANIFEST, MARKER, PART, PART_NOTE, QUARANTINE,
    SECOND_SPOOL, SERVER_LOG, SHARDS, SPOOL, WIPING, generation_number,
};
use super::{Error, Role, disk, manifest};

/// A directory that rowmill makes, by what it writes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Folder {
    /// A work directory.
    WorkDir,
    /// A later generation in it.
    Generation,
    /// The shards of a generation.
    Shards,
    /// One shard.
    Shard,
    /// A shard's index, which is sled's.
    Checkpoint,
    /// What sled keeps beside an index.
    Blobs,
    /// What was cut out of journals.
    Quarantine,
    /// An index of ids outside of any work directory.
    Index,
}

/// What a name that rowmill gives stands for.
enum Known {
    File,
    Folder(Folder),
}

/// What is in a directory: what rowmill wrote there, and what it did not.
#[derive(Debug, Default)]
pub(super) struct Listing {
    files: Vec<PathBuf>,
    // Each behind those that are in it.
    folders: Vec<PathBuf>,
    foreign: Vec<PathBuf>,
    // What has a name that rowmill would use, and is not of the kind that it makes.
    in_the_way: Option<PathBuf>,
}

/// What became of a directory.
#[derive(Debug, Default)]
pub(super) struct Removed {
    /// How many files went.
    pub(super) files: usize,
    /// What stayed, because rowmill did not write it.
    pub(super) left: Vec<PathBuf>,
}

impl Folder {
    /// What a name stands for here; `None` if rowmill gives no such name.
    fn known(self, name: &str) -> Option<Known> {
        // What replaces a file has this name until it does.
        let replaced = name.strip_suffix(".new").unwrap_or(name);
        let is_file = match self {
            Self::WorkDir if name == QUARANTINE => return Some(Known::Folder(Self::Quarantine)),
            Self::WorkDir if generation_number(name).is_some() => {
                return Some(Known::Folder(Self::Generation));
            }
            Self::WorkDir | Self::Generation if name == SHARDS => {
                return Some(Known::Folder(Self::Shards));
            }
            Self::Shards if is_number(name, 5) => return Some(Known::Folder(Self::Shard)),
            Self::Shard if name == "checkpoint" => return Some(Known::Folder(Self::Checkpoint)),
            Self::Checkpoint if name == "blobs" => return Some(Known::Folder(Self::Blobs)),
            Self::WorkDir => is_of_work_dir(name, replaced),
            Self::Generation => is_of_generation(name, replaced),
            Self::Shards => false,
            Self::Shard => {
                name == "started"
                    || ["journal", "seal.json", "duplicates", "twins"].contains(&replaced)
            }
            Self::Checkpoint => is_of_sled(name),
            Self::Blobs => is_number(name, 1),
            Self::Quarantine => name == "log.jsonl" || is_kept(replaced),
            Self::Index => is_index(name),
        };
        is_file.then_some(Known::File)
    }
}

impl Listing {
    /// Lists a directory and what is in it; nothing where there is none. No symbolic link is followed.
    ///
    /// # Errors
    /// When a directory cannot be listed.
    pub(super) fn of(path: &Path, folder: Folder) -> Result<Self, Error> {
        let mut listing = Self::default();
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(disk::context("look at", path)(error)),
            Ok(meta) if !meta.is_dir() => listing.refuse(path),
            Ok(_) => listing.visit(path, folder)?,
        }
        Ok(listing)
    }

    fn visit(&mut self, path: &Path, folder: Folder) -> Result<(), Error> {
        let context = || disk::context("list", path);
        let mut entries = fs::read_dir(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(context())?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let kind = entry.file_type().map_err(context())?;
            self.add(&entry.path(), entry.file_name().to_str(), kind, folder)?;
        }
        self.folders.push(path.to_owned());
        Ok(())
    }

    fn add(
        &mut self,
        path: &Path,
        name: Option<&str>,
        kind: FileType,
        folder: Folder,
    ) -> Result<(), Error> {
        match name.and_then(|name| folder.known(name)) {
            None => self.foreign.push(path.to_owned()),
            Some(Known::File) if kind.is_file() => self.files.push(path.to_owned()),
            Some(Known::Folder(inner)) if kind.is_dir() && !is_copy(path, inner) => {
                self.visit(path, inner)?;
            }
            Some(_) => self.refuse(path),
        }
        Ok(())
    }

    fn refuse(&mut self, path: &Path) {
        self.in_the_way.get_or_insert_with(|| path.to_owned());
        self.foreign.push(path.to_owned());
    }

    /// Leaves entries of the directory out that are to stay, though rowmill wrote them.
    pub(super) fn keep(mut self, root: &Path, kept: &[&str]) -> Self {
        self.files.retain(|path| !kept.iter().any(|name| *path == root.join(name)));
        self.folders.retain(|path| path != root);
        self
    }

    /// Makes sure that nothing has a name that rowmill is about to use. `root` is the work directory.
    ///
    /// # Errors
    /// [`Error::Foreign`] when something has.
    pub(super) fn check_names(&self, root: &Path) -> Result<(), Error> {
        let Some(path) = &self.in_the_way else { return Ok(()) };
        let name = path.strip_prefix(root).unwrap_or(path).display();
        let reason = format!("its {name} is something that rowmill did not write");
        Err(Error::Foreign { path: root.to_owned(), reason })
    }

    /// Removes what rowmill wrote, and the directories that are empty then.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub(super) fn remove(self) -> Result<Removed, Error> {
        self.files.iter().try_for_each(|path| disk::remove(path))?;
        for path in &self.folders {
            match fs::remove_dir(path) {
                Err(error)
                    if !matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty
                    ) =>
                {
                    return Err(disk::context("remove", path)(error));
                }
                _ => {}
            }
        }
        Ok(Removed { files: self.files.len(), left: self.foreign })
    }
}

/// Removes a directory that held an index of ids for the time of one command, in a directory of its own.
///
/// # Errors
/// When it cannot be listed, or something in it cannot be removed.
pub fn remove_index_dir(path: &Path) -> Result<(), Error> {
    Listing::of(path, Folder::Index)?.remove().map(drop)
}

/// Whether the directory of a generation holds the plan of another: somebody copied it.
pub(super) fn is_copy(path: &Path, folder: Folder) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let plan = || manifest::read(&path.join(MANIFEST)).ok().flatten();
    folder == Folder::Generation
        && plan().is_some_and(|plan| Some(plan.generation) != generation_number(&name))
}

/// `name` is that of a file, `replaced` the same without what it is called until it replaces another.
fn is_of_work_dir(name: &str, replaced: &str) -> bool {
    const NAMES: [&str; 5] = [LOCK, WIPING, SERVER_LOG, "server.log.1", "rowmill.json.new"];
    let number = replaced.strip_prefix("commit-").and_then(|rest| rest.strip_suffix(".json"));
    NAMES.contains(&name)
        || [MARKER, ADOPTING, LAST_RUN].contains(&replaced)
        || number.is_some_and(|number| is_number(number, 6))
        || is_staged_upload(name)
        || is_of_generation(name, replaced)
}

/// Whether a name is one that rowmill gives where a generation stands.
fn is_of_generation(name: &str, replaced: &str) -> bool {
    [CONTENTS, SPOOL, SECOND_SPOOL, PART].contains(&name)
        || [MANIFEST, PART_NOTE].contains(&replaced)
        || is_index(name)
}

/// Whether a name is that of an index of ids, or of one of the files that it is made of.
fn is_index(name: &str) -> bool {
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
    parts.next() == Some(IDS) && parts.all(is_part)
}

/// Whether a name is that of an output that waits for its upload: `.output.0123abcd.1.staged`.
fn is_staged_upload(name: &str) -> bool {
    const ROLES: [Role; 5] =
        [Role::Output, Role::Errors, Role::Telemetry, Role::Delta, Role::Summary];
    let is_of = |role: Role| {
        let rest = name.strip_prefix('.').and_then(|rest| rest.strip_prefix(role.name()));
        rest.and_then(|rest| rest.strip_prefix('.')).is_some_and(is_staged_rest)
    };
    ROLES.into_iter().any(is_of)
}

/// Whether this is what stands behind an output's name while it is staged: the run's name and a number.
fn is_staged_rest(rest: &str) -> bool {
    let parts = rest.strip_suffix(".staged").and_then(|rest| rest.split_once('.'));
    parts.is_some_and(|(run, number)| {
        run.len() == 8 && run.bytes().all(|byte| byte.is_ascii_hexdigit()) && is_number(number, 1)
    })
}

/// Whether a name is that of bytes in quarantine: `00000-000000000123.bytes`, or with a number more.
fn is_kept(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".bytes") else { return false };
    let (stem, again) = stem.split_once('.').unwrap_or((stem, "1"));
    let place = stem.split_once('-');
    place.is_some_and(|(shard, offset)| is_number(shard, 5) && is_number(offset, 12))
        && is_number(again, 1)
}

/// Whether a name is one that sled gives.
fn is_of_sled(name: &str) -> bool {
    let snapshot = name.strip_suffix(".generating").unwrap_or(name).strip_prefix("snap.");
    let is_hex = |it: &str| it.len() == 16 && it.bytes().all(|byte| byte.is_ascii_hexdigit());
    ["conf", "db"].contains(&name) || snapshot.is_some_and(is_hex)
}

fn is_number(text: &str, digits: usize) -> bool {
    text.len() >= digits && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_like_ours_are_not_ours() {
        for (folder, ours, foreign) in [
            (Folder::WorkDir, "commit-000001.json", "commit-notes.json"),
            (Folder::WorkDir, ".output.0123abcd.1.staged", ".output.0123abcd.mine.staged"),
            (Folder::WorkDir, "manifest.json.new", "lock.new"),
            (Folder::Generation, "ids.part-new.part-003", "ids.part-mine"),
            (Folder::Generation, "contents", "rowmill.json"),
            (Folder::Shards, "00001", "1"),
            (Folder::Shard, "journal.new", "journal.bak"),
            (Folder::Checkpoint, "snap.00000000000000AB", "snap.mine"),
            (Folder::Blobs, "123", "mine"),
            (Folder::Quarantine, "00000-000000000123.2.bytes", "00000-mine.bytes"),
            (Folder::Index, "ids.part-255", "ids.bak"),
        ] {
            assert!(folder.known(ours).is_some(), "{ours}");
            assert!(folder.known(foreign).is_none(), "{foreign}");
        }
    }

    #[test]
    fn foreign_entries_stay_with_their_directories() {
        let outer = tempfile::tempdir().unwrap();
        let (root, away) = (outer.path().join("00000"), outer.path().join("away"));
        for dir in [&root.join("checkpoint/blobs"), &root.join("mine"), &away] {
            fs::create_dir_all(dir).unwrap();
        }
        for file in ["journal", "checkpoint/db", "checkpoint/blobs/7", "checkpoint/x", "mine/db"] {
            fs::write(root.join(file), file).unwrap();
        }
        fs::write(away.join("db"), "db").unwrap();
        symlink(&away, root.join("seal.json")).unwrap();
        let listing = Listing::of(&root, Folder::Shard).unwrap();
        assert!(matches!(listing.check_names(&root), Err(Error::Foreign { .. })));
        let Removed { files, left } = listing.remove().unwrap();
        let names: Vec<_> = left.iter().map(|path| path.strip_prefix(&root).unwrap()).collect();
        assert_eq!(files, 3);
        assert_eq!(names, ["checkpoint/x", "mine", "seal.json"].map(Path::new));
        assert!(root.join("mine/db").exists() && away.join("db").exists());
        assert!(!root.join("checkpoint/blobs").exists());
    }
}
