//! The work directory: what is in it, whose it is, and who may write to it.

use std::collections::BTreeSet;
use std::io::Read;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lock::{self, Holder, Lock};
use super::names::{
    CONTENTS, IDS, LOCK, MANIFEST, MARKER, QUARANTINE, SECOND_SPOOL, SERVER_LOG, SHARDS, SPOOL,
    WIPING,
};
use super::removal::{Folder, Listing};
use super::{Error, FORMAT, Identity, Manifest, disk, generations, manifest};

/// A work directory, for reading.
#[derive(Debug, Clone)]
pub struct WorkDir {
    root: PathBuf,
    run: String,
    pub(super) generation: u32,
    // The identities of the plans of all generations up to this one, once they are known.
    pub(super) plans: OnceLock<Vec<String>>,
}

/// A work directory that no other process has: for writing.
#[derive(Debug)]
pub struct Held {
    dir: WorkDir,
    lock: Lock,
    holder: Holder,
    // Whether this process made the directory.
    created: bool,
    // What was not removed, because rowmill did not write it, and is not told yet.
    pub(super) left: Mutex<BTreeSet<String>>,
}

/// What stands at a path that is to be a work directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Missing,
    /// A directory without entries, or one whose making was cut off by a crash.
    Empty,
    /// A work directory; with a plan or without one.
    Ours {
        /// Whether there is a manifest.
        planned: bool,
    },
    /// Something else; why.
    Foreign(String),
}

#[derive(Serialize, Deserialize)]
pub(super) struct Marker {
    magic: String,
    format: u32,
    pub(super) run: String,
}

impl Marker {
    /// The run's name becomes part of other names, so it must look like one.
    pub(super) fn is_ours(&self) -> bool {
        let is_name = self.run.len() == 32 && self.run.bytes().all(|b| b.is_ascii_hexdigit());
        self.magic == MAGIC && is_name
    }
}

const MAGIC: &str = "rowmill work directory";

impl WorkDir {
    /// Looks at what stands at a path, and changes nothing.
    ///
    /// # Errors
    /// When it cannot be looked at, or a newer rowmill made it.
    pub fn inspect(path: &Path) -> Result<Kind, Error> {
        match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Kind::Missing),
            Err(error) => return Err(disk::context("look at", path)(error)),
            Ok(meta) if !meta.is_dir() => {
                return Ok(Kind::Foreign("it is not a directory".to_owned()));
            }
            Ok(_) => {}
        }
        let names = disk::names(path)?;
        if !names.iter().any(|name| name == MARKER) {
            let begun = |name: &String| {
                name == LOCK && lock::may_be_ours(&path.join(LOCK)) || name == "rowmill.json.new"
            };
            return Ok(match names.iter().find(|name| !begun(name)) {
                None => Kind::Empty,
                Some(name) => Kind::Foreign(format!("it holds {name:?} and no {MARKER}")),
            });
        }
        match read_marker(path)? {
            Some(_) => {
                let has_plan = generations::newest(path)? > 1;
                Ok(Kind::Ours { planned: has_plan || names.iter().any(|name| name == MANIFEST) })
            }
            None => Ok(Kind::Foreign(format!("its {MARKER} is not rowmill's"))),
        }
    }

    /// Opens a work directory for reading.
    ///
    /// # Errors
    /// When there is none, or a newer rowmill made it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let foreign =
            |reason: &str| Error::Foreign { path: path.to_owned(), reason: reason.to_owned() };
        match Self::inspect(path)? {
            Kind::Missing => Err(foreign("there is no such directory")),
            Kind::Empty => Err(foreign("it is empty")),
            Kind::Foreign(reason) => Err(foreign(&reason)),
            Kind::Ours { .. } => {
                let marker = read_marker(path)?.ok_or_else(|| foreign("its marker is gone"))?;
                Self::newest(path.to_owned(), marker.run)
            }
        }
    }

    fn newest(root: PathBuf, run: String) -> Result<Self, Error> {
        let generation = generations::newest(&root)?;
        Ok(Self { root, run, generation, plans: OnceLock::new() })
    }

    /// Where this generation's files are.
    pub(super) fn base(&self) -> PathBuf {
        generations::base(&self.root, self.generation)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The name of the run it belongs to: 32 hex digits.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Who works in it at this moment.
    #[must_use]
    pub fn holder(&self) -> Option<Holder> {
        let path = self.root.join(LOCK);
        if lock::is_held(&path) { lock::signature(&path) } else { None }
    }

    /// Whether any process has it at this moment, also one that has not signed yet.
    #[must_use]
    pub fn is_held(&self) -> bool {
        lock::is_held(&self.root.join(LOCK))
    }

    /// The plan; nothing when none was finished.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or a newer rowmill made it; [`Error::Misplaced`] when it is
    /// of another run or generation.
    pub fn manifest(&self) -> Result<Option<Manifest>, Error> {
        if self.is_adopting()? {
            return Ok(None);
        }
        let path = self.base().join(MANIFEST);
        let Some(manifest) = manifest::read(&path)? else { return Ok(None) };
        let theirs = manifest.identity();
        let (run, generation) = (self.run.clone(), self.generation);
        Identity { run, generation, ..theirs.clone() }.assert_is(&theirs, &path)?;
        let _ = self.plans.set(manifest.plans());
        Ok(Some(manifest))
    }

    pub(super) fn shard_dir(&self, shard: u32) -> PathBuf {
        self.base().join(SHARDS).join(format!("{shard:05}"))
    }

    /// A file's path as reports show it: relative to the work directory.
    pub(super) fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned()
    }

    /// Where an input that cannot be read twice is kept.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.base().join(SPOOL)
    }

    /// Where the index of ids is.
    #[must_use]
    pub fn ids(&self) -> PathBuf {
        self.base().join(IDS)
    }

    /// Where the hashes of the rows' texts are, in jobs whose rows have no ids.
    #[must_use]
    pub fn contents(&self) -> PathBuf {
        self.base().join(CONTENTS)
    }

    /// Where what a model server says is kept, if rowmill starts one.
    #[must_use]
    pub fn server_log(&self) -> PathBuf {
        self.root.join(SERVER_LOG)
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.root.join(QUARANTINE)
    }
}

/// Where a second copy of an input is, for comparison.
pub(super) fn second_spool(base: &Path) -> PathBuf {
    base.join(SECOND_SPOOL)
}

fn read_marker(path: &Path) -> Result<Option<Marker>, Error> {
    let file = path.join(MARKER);
    let Some(bytes) = disk::read_if_there(&file)? else { return Ok(None) };
    let marker: Option<Marker> = serde_json::from_slice(&bytes).ok();
    match marker.filter(Marker::is_ours) {
        Some(marker) if marker.format > FORMAT => {
            Err(Error::Newer { path: file, found: marker.format })
        }
        marker => Ok(marker),
    }
}

impl Held {
    /// Takes a work directory whose run and plan are as [`Identity::known`] has them.
    #[cfg(any(test, fuzzing))]
    pub(super) fn acquire_known(path: &Path) -> Result<Self, Error> {
        let mut held = Self::acquire(path, Holder::this_process("test", 0), &mut || false)?;
        let Identity { run, plan, .. } = Identity::known(0);
        (held.dir.run, held.dir.plans) = (run, OnceLock::from(vec![plan]));
        Ok(held)
    }

    /// Takes a work directory for this process, making it if need be. While another process has
    /// it, `wait` is asked whether to try again; it may sleep.
    ///
    /// # Errors
    /// [`Error::Busy`] when another process has it, [`Error::Foreign`] when it is none of ours:
    /// then nothing was changed.
    pub fn acquire(
        path: &Path,
        holder: Holder,
        wait: &mut dyn FnMut() -> bool,
    ) -> Result<Self, Error> {
        let mut glances = 0;
        loop {
            let created = match WorkDir::inspect(path)? {
                Kind::Foreign(reason) => {
                    return Err(Error::Foreign { path: path.to_owned(), reason });
                }
                Kind::Missing => {
                    disk::create_dir(path)?;
                    true
                }
                Kind::Empty | Kind::Ours { .. } => false,
            };
            let lock_path = path.join(LOCK);
            match lock::try_lock(&lock_path) {
                Ok(Some(lock)) => return Self::settle(path, lock, holder, created),
                Ok(None) => {}
                // The last holder has just removed the directory, its work being done.
                Err(error) if error.is_missing() && !path.exists() => continue,
                Err(error) => return Err(error),
            }
            // Where the last holder is dead, somebody only looks, or has not signed yet.
            if glances < GLANCES && !is_alive(lock::signature(&lock_path)) {
                glances += 1;
                std::thread::sleep(Duration::from_millis(1));
            } else if !wait() {
                let holder = lock::signature(&lock_path).map(Box::new);
                return Err(Error::Busy { path: path.to_owned(), holder });
            }
        }
    }

    /// Marks a directory that was just locked as ours if it is new, and signs it.
    fn settle(path: &Path, lock: Lock, holder: Holder, created: bool) -> Result<Self, Error> {
        let root = path.canonicalize().map_err(disk::context("find", path))?;
        let marked = (|mut lock: Lock| {
            let run = match read_marker(&root)? {
                Some(marker) => marker.run,
                None => write_marker(&root)?,
            };
            // Only now: half a signature beside no marker would look like a file of somebody else's.
            lock.sign(&holder, &root.join(LOCK))?;
            Ok((lock, WorkDir::newest(root.clone(), run)?))
        })(lock);
        match marked {
            Ok((lock, dir)) => Ok(Self { dir, lock, holder, created, left: Mutex::default() }),
            Err(error) => {
                if created {
                    // The error is what matters; a directory with nothing in it may stay.
                    let _ = Listing::of(&root, Folder::WorkDir).and_then(Listing::remove);
                }
                Err(error)
            }
        }
    }

    pub(super) fn make_shard_dir(&self, shard: u32) -> Result<PathBuf, Error> {
        disk::create_dir_within(&self.dir.base().join(SHARDS))?;
        let dir = self.shard_dir(shard);
        disk::create_dir_within(&dir)?;
        Ok(dir)
    }

    /// Whether there are outcomes and no plan that says of what, though nobody was removing them:
    /// somebody took the plan away.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn has_lost_its_plan(&self) -> Result<bool, Error> {
        let root = &self.dir.root;
        if self.dir.base().join(MANIFEST).exists() || root.join(WIPING).exists() {
            return Ok(false);
        }
        let shards = disk::names(&root.join(SHARDS))?;
        let is_shard = |name: &&String| name.bytes().all(|byte| byte.is_ascii_digit());
        let mut shards = shards.iter().filter(is_shard);
        Ok(shards.any(|shard| root.join(SHARDS).join(shard).join("journal").exists()))
    }

    /// Whether this process made the directory.
    #[must_use]
    pub fn was_created(&self) -> bool {
        self.created
    }

    /// Tells those who look how many rows were done when this process began.
    ///
    /// # Errors
    /// When the lock file cannot be written.
    pub fn note_done(&mut self, rows: u64) -> Result<(), Error> {
        self.holder.done_at_start = Some(rows);
        self.lock.sign(&self.holder, &self.dir.root.join(LOCK))
    }

    /// As whom this process has it.
    pub(super) fn signed_by(&self) -> &Holder {
        &self.holder
    }

    pub(super) fn unsign(&self) -> Result<(), Error> {
        self.lock.unsign(&self.dir.root.join(LOCK))
    }

    /// Makes this a view of another generation.
    pub(super) fn turn_to(&mut self, generation: u32) {
        (self.dir.generation, self.dir.plans) = (generation, OnceLock::new());
    }

    /// Makes sure that the directory is still where it was.
    ///
    /// # Errors
    /// [`Error::Gone`] when it was removed or renamed.
    pub fn still_there(&self) -> Result<(), Error> {
        if self.lock.is_at(&self.dir.root.join(LOCK)) {
            return Ok(());
        }
        Err(Error::Gone { path: self.dir.root.clone() })
    }

    /// Writes the plan: from here on there is a run to resume.
    ///
    /// # Errors
    /// When it cannot be written durably.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<(), Error> {
        manifest::write(&self.dir.base().join(MANIFEST), manifest)
    }

    /// Copies an input that cannot be read twice into the work directory, durably. `is_second` puts
    /// it beside the first copy, for comparison.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn spool_from(&self, input: &mut dyn Read, is_second: bool) -> Result<PathBuf, Error> {
        let path = if is_second { self.second_spool() } else { self.spool() };
        let mut file = disk::open_write(&path)?;
        file.set_len(0)
            .and_then(|()| std::io::copy(input, &mut file))
            .and_then(|_| file.sync_all())
            .map_err(disk::context("copy the input to", &path))?;
        disk::sync_dir(&self.base())?;
        Ok(path)
    }

    pub(super) fn second_spool(&self) -> PathBuf {
        second_spool(&self.base())
    }

    /// Removes the second copy of an input.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn discard_second_spool(&self) -> Result<(), Error> {
        disk::remove(&self.second_spool())
    }

    /// Takes over another generation's copy of an input: the second one, where one was made, else
    /// the first, which that generation keeps.
    ///
    /// # Errors
    /// When it cannot be taken.
    pub fn take_spool(&self, old: &WorkDir) -> Result<PathBuf, Error> {
        let (second, to) = (second_spool(&old.base()), self.spool());
        if second.exists() {
            std::fs::rename(&second, &to).map_err(disk::context("rename", &second))?;
        } else if std::fs::hard_link(old.spool(), &to).is_err() {
            // Not all file systems have links.
            self.spool_from(&mut disk::open(&old.spool())?, false)?;
        }
        disk::sync_dir(&self.base())?;
        Ok(to)
    }

    /// Puts another index of ids in the place of the old one.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn replace_ids(&self, new: &Path) -> Result<(), Error> {
        std::fs::rename(new, self.ids()).map_err(disk::context("replace", new))
    }

    /// Removes an index of ids that was made for a moment.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn discard_ids(&self, index: &Path) -> Result<(), Error> {
        disk::remove(index)
    }
}

impl Deref for Held {
    type Target = WorkDir;

    fn deref(&self) -> &WorkDir {
        &self.dir
    }
}

/// A name that no other run or plan has.
pub(super) fn draw_name() -> String {
    format!("{:032x}", fastrand::u128(..))
}

fn write_marker(root: &Path) -> Result<String, Error> {
    let marker = Marker { magic: MAGIC.to_owned(), format: FORMAT, run: draw_name() };
    let mut text = serde_json::to_vec_pretty(&marker).unwrap_or_default();
    text.push(b'\n');
    disk::replace(&root.join(MARKER), &text)?;
    Ok(marker.run)
}

/// How often a lock without a living holder is tried again, a millisecond apart.
pub(super) const GLANCES: u32 = 200;

/// Whether the process that signed a lock may be alive. Of other machines nothing is known.
fn is_alive(holder: Option<Holder>) -> bool {
    let Some(holder) = holder else { return false };
    if holder.host != Holder::this_process("", 0).host {
        return true;
    }
    let pid = i32::try_from(holder.pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(path: &Path) -> Result<Held, Error> {
        Held::acquire(path, Holder::this_process("test", 0), &mut || false)
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("work");
        assert_eq!(WorkDir::inspect(&path).unwrap(), Kind::Missing);
        let held = hold(&path).unwrap();
        assert!(held.was_created());
        assert_eq!(WorkDir::inspect(&path).unwrap(), Kind::Ours { planned: false });
        let Err(Error::Busy { holder: Some(holder), .. }) = hold(&path) else { panic!("not busy") };
        assert_eq!((holder.pid, holder.command.as_str()), (std::process::id(), "test"));
        assert_eq!(held.holder().unwrap(), *holder);
        let run = held.run().to_owned();
        drop(held);
        let again = hold(&path).unwrap();
        assert_eq!(again.run(), run);
        assert!(!again.was_created());
        again.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_ours_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.tex"), "years").unwrap();
        assert!(matches!(hold(dir.path()), Err(Error::Foreign { .. })));
        assert_eq!(disk::names(dir.path()).unwrap(), ["thesis.tex"]);

        let path = dir.path().join("work");
        let held = hold(&path).unwrap();
        std::fs::write(path.join("notes.txt"), "mine").unwrap();
        assert_eq!(held.remove().unwrap(), ["notes.txt"]);
        assert!(path.join("notes.txt").exists());
        // It is a work directory still.
        assert_eq!(hold(&path).unwrap().remove().unwrap(), ["notes.txt"]);
        std::fs::remove_file(path.join("notes.txt")).unwrap();
        assert_eq!(hold(&path).unwrap().remove().unwrap(), [""; 0]);
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_taken_away_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let held = hold(&dir.path().join("work")).unwrap();
        held.still_there().unwrap();
        std::fs::rename(dir.path().join("work"), dir.path().join("moved")).unwrap();
        assert!(matches!(held.still_there(), Err(Error::Gone { .. })));
    }
}
