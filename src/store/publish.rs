//! Publishing: outputs appear whole or not at all.
//!
//! Every output is written in full beside its place and synced. Then the commit record is written:
//! from that moment the new outputs are decided, and whoever opens the work directory next finishes
//! what a crash cut off. Only then are the files renamed into place, the summary last.
//!
//! An output whose place is a URL is staged likewise, and uploaded in between by a function of the
//! caller's: this module knows no network. That it was is written down at once, so that it is not
//! uploaded again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::attributes::carry_attributes;
use super::stage::{BUFFER, staged_name, staged_remotely};
use super::{Error, Held, Identity, Staged, Target, WorkDir, disk};
use crate::guard::Guard;
use crate::job::Dialect;

/// What an output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// One line a row.
    Output,
    /// The lines of the rows that failed.
    Errors,
    /// One line an attempt.
    Telemetry,
    /// The lines of the answers that no earlier generation published.
    Delta,
    /// What the run was.
    Summary,
}

impl Role {
    /// Its name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Errors => "errors",
            Self::Telemetry => "telemetry",
            Self::Delta => "delta",
            Self::Summary => "summary",
        }
    }
}

/// The rows of what was published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows with an answer.
    pub ok: u64,
    /// Rows without one, invalid rows included.
    pub failed: u64,
    /// Those of them that a resumption would try again.
    pub retryable: u64,
}

/// The record of one publication: decided when it is written, finished when `done`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// 1 for the first publication of a work directory.
    pub sequence: u32,
    /// The run it belongs to.
    pub run: String,
    /// The plan it was made from.
    pub plan: String,
    /// That plan's generation.
    pub generation: u32,
    /// Its rows.
    pub counts: Counts,
    /// What the journals were: a hash of the shards' hashes. The same state is not published
    /// twice.
    pub state: String,
    /// How the lines of the outputs are spelled.
    #[serde(default, skip_serializing_if = "Dialect::is_rows")]
    pub format: Dialect,
    /// Whether rows without an outcome were left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_partial: bool,
    /// The outputs, in the order in which they take their places.
    pub files: Vec<CommitFile>,
    /// Outputs of earlier publications in other places, as they were left there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<CommitFile>,
    /// The summary, as it was published or shown.
    pub summary: Box<RawValue>,
    /// Whether all outputs have taken their places.
    pub done: bool,
}

/// One output of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitFile {
    /// What it is.
    pub role: Role,
    /// Where it goes; an absolute path.
    pub target: PathBuf,
    /// The name it has until then, beside its place; nothing for outputs that were streamed.
    pub staged: Option<String>,
    /// Its length.
    pub bytes: u64,
    /// Its blake3 hash, as hex.
    pub blake3: String,
    /// What became of it, where its place is a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Upload>,
}

/// An output that is uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upload {
    /// Where it is staged until then; an absolute path.
    pub staging: PathBuf,
    /// When it was, as RFC 3339 has it; nothing as long as it was not.
    pub done_at: Option<String>,
}

impl CommitFile {
    /// Where it is until it takes its place; nothing for what was streamed.
    pub(super) fn staged_path(&self) -> Option<PathBuf> {
        let staged = self.staged.as_ref()?;
        Some(match &self.upload {
            Some(upload) => upload.staging.join(staged),
            None => self.target.with_file_name(staged),
        })
    }

    /// Whether it is still to be uploaded.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.done_at.is_none())
    }

    /// Whether the same bytes were uploaded to the same place.
    #[must_use]
    pub fn is_uploaded_as(&self, other: &Self) -> bool {
        let is_done = self.upload.as_ref().is_some_and(|upload| upload.done_at.is_some());
        is_done
            && self.is_at(&other.target)
            && (self.role, self.bytes, &self.blake3) == (other.role, other.bytes, &other.blake3)
    }

    /// Whether this is its place, to the letter: in a URL a slash more is another place.
    #[must_use]
    pub fn is_at(&self, place: &Path) -> bool {
        self.target.as_os_str() == place.as_os_str()
    }
}

impl Commit {
    /// What it belongs to, by its own words.
    fn identity(&self) -> Identity {
        let Self { run, plan, generation, .. } = self;
        Identity { run: run.clone(), plan: plan.clone(), generation: *generation, shard: None }
    }

    /// What is still to be uploaded, if the publication was cut off.
    pub fn pending(&self) -> impl Iterator<Item = &CommitFile> {
        self.files.iter().filter(|file| !self.done && file.is_pending())
    }
}

/// Uploads a file that is staged at a path, and gives the time when that was done; nothing where it
/// is not wanted any more.
pub type Deliver<'a, E> = dyn FnMut(&CommitFile, &Path) -> Result<Option<String>, E> + 'a;

fn commit_path(dir: &WorkDir, sequence: u32) -> PathBuf {
    dir.path().join(format!("commit-{sequence:06}.json"))
}

/// Reads a commit record; says what is wrong with it.
pub(super) fn parse(bytes: &[u8], run: &str, sequence: u32) -> Result<Commit, String> {
    let commit: Commit = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if commit.run != run || commit.sequence != sequence {
        return Err("it belongs to another run".to_owned());
    }
    // What it says is renamed without being asked again, so it must be what this run would say.
    let is_ours = |file: &CommitFile| {
        let (staged, is_absolute) = match &file.upload {
            Some(it) => (staged_remotely(file.role, run, sequence), it.staging.is_absolute()),
            None => (staged_name(&file.target, run, sequence), file.target.is_absolute()),
        };
        file.staged.as_ref().is_none_or(|name| *name == staged && is_absolute)
    };
    match commit.files.iter().find(|file| !is_ours(file)) {
        Some(file) => Err(format!("it would move another file to {}", file.target.display())),
        None => Ok(commit),
    }
}

impl WorkDir {
    /// The newest commit record.
    ///
    /// # Errors
    /// When it cannot be read. One that is damaged is [`Error::Damaged`]: it may have decided
    /// something that is not finished.
    pub fn last_commit(&self) -> Result<Option<Commit>, Error> {
        let names = disk::names(self.path())?;
        let newest = names.iter().filter_map(|name| {
            name.strip_prefix("commit-")?.strip_suffix(".json")?.parse::<u32>().ok()
        });
        let Some(sequence) = newest.max() else { return Ok(None) };
        let path = commit_path(self, sequence);
        let bytes = disk::read_if_there(&path)?.unwrap_or_default();
        let commit = match parse(&bytes, self.run(), sequence) {
            Ok(commit) => commit,
            Err(reason) => return Err(Error::Damaged { path, reason }),
        };
        self.assert_is_committed(&commit.identity(), &path)?;
        Ok(Some(commit))
    }
}

impl Held {
    /// Decides a publication and carries it out.
    ///
    /// # Errors
    /// When files cannot be written, renamed or uploaded. Once the commit record is there,
    /// [`Held::redo`] finishes it.
    pub fn publish<E: From<Error>>(
        &self,
        mut commit: Commit,
        deliver: &mut Deliver<'_, E>,
    ) -> Result<Commit, E> {
        for staged in commit.files.iter().filter_map(CommitFile::staged_path) {
            disk::sync_dir(disk::parent_of(&staged))?;
        }
        self.write_commit(&commit)?;
        self.carry_out(&mut commit, deliver)?;
        if let Some(before) = commit.sequence.checked_sub(1).filter(|before| *before > 0) {
            disk::remove(&commit_path(self, before))?;
        }
        Ok(commit)
    }

    /// Finishes a publication that was decided and cut off. Says whether there was one. What is
    /// to be uploaded and is not staged any more as it was written is left out of it: the journals
    /// are all there, and it is made again.
    ///
    /// # Errors
    /// [`Error::Damaged`] when an output is neither staged nor in its place: somebody changed it;
    /// and those of `deliver`.
    pub fn redo<E: From<Error>>(&self, deliver: &mut Deliver<'_, E>) -> Result<bool, E> {
        let Some(mut commit) = self.last_commit()?.filter(|commit| !commit.done) else {
            return Ok(false);
        };
        for file in commit.files.iter().filter(|file| file.upload.is_none()) {
            assert_is_as_decided(file)?;
        }
        let mut deliver = |file: &CommitFile, staged: &Path| match is_written(staged, file)? {
            true => deliver(file, staged),
            false => Ok(None),
        };
        self.carry_out(&mut commit, &mut deliver)?;
        Ok(true)
    }

    /// As [`Held::redo`], by those who can upload nothing: what waits for that goes on waiting.
    ///
    /// # Errors
    /// As [`Held::redo`].
    pub fn redo_here(&self) -> Result<bool, Error> {
        if self.last_commit()?.is_some_and(|commit| commit.pending().next().is_some()) {
            return Ok(false);
        }
        self.redo(&mut |_, _| Ok::<_, Error>(None))
    }

    fn write_commit(&self, commit: &Commit) -> Result<(), Error> {
        let path = commit_path(self, commit.sequence);
        let text = serde_json::to_vec_pretty(commit).map_err(std::io::Error::other);
        let mut text = text.map_err(disk::context("write", &path))?;
        text.push(b'\n');
        disk::replace(&path, &text)
    }

    /// Uploads and renames, the summary last, and what is elsewhere before what is here: here is
    /// told what is there.
    fn carry_out<E: From<Error>>(
        &self,
        commit: &mut Commit,
        deliver: &mut Deliver<'_, E>,
    ) -> Result<(), E> {
        commit.files.sort_by_key(|file| (file.role == Role::Summary, file.upload.is_none()));
        if Guard::SummaryLast.is_left_out() {
            commit.files.reverse();
        }
        let mut index = 0;
        while let Some(file) = commit.files.get(index) {
            index += 1;
            if file.upload.is_none() {
                take_place(file)?;
                continue;
            }
            let Some(staged) = file.staged_path() else { continue };
            if file.is_pending() {
                match deliver(file, &staged)? {
                    Some(when) => {
                        let upload = commit.files[index - 1].upload.as_mut();
                        upload.into_iter().for_each(|it| it.done_at = Some(when.clone()));
                    }
                    None => {
                        index -= 1;
                        commit.files.remove(index);
                    }
                }
                if !Guard::UploadNote.is_left_out() {
                    self.write_commit(commit)?;
                }
            }
            disk::remove(&staged)?;
        }
        commit.done = true;
        Ok(self.write_commit(commit)?)
    }

    /// Removes staged copies that are not wanted after all.
    ///
    /// # Errors
    /// When they cannot be removed.
    pub fn discard(&self, staged: &[Staged]) -> Result<(), Error> {
        for staged in staged {
            if let Some(path) = staged.file().staged_path() {
                disk::remove(&path)?;
            }
        }
        Ok(())
    }

    /// Removes staged copies of an output that earlier processes of this run left behind.
    ///
    /// # Errors
    /// When they cannot be removed.
    pub fn sweep(&self, role: Role, target: &Target) -> Result<(), Error> {
        let (parent, name) = match target {
            Target::File(path) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                (disk::parent_of(path), name.into_owned())
            }
            Target::Remote { staging, .. } => (staging.as_path(), role.name().to_owned()),
            Target::Stream(_) | Target::Stdout => return Ok(()),
        };
        let prefix = format!(".{name}.{}.", &self.run()[..8]);
        for found in disk::names(parent)? {
            let number = found.strip_prefix(&prefix).and_then(|it| it.strip_suffix(".staged"));
            let is_staged = number.is_some_and(|it| it.parse::<u32>().is_ok());
            let path = parent.join(&found);
            if is_staged && path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
                disk::remove(&path)?;
            }
        }
        Ok(())
    }
}

/// Makes sure that what is staged is what was decided: another publication may have left it there.
fn assert_is_as_decided(file: &CommitFile) -> Result<(), Error> {
    let Some(path) = file.staged_path().filter(|path| path.exists()) else { return Ok(()) };
    if is_written(&path, file)? {
        return Ok(());
    }
    let reason = format!("it is not what was to be published as {}", file.target.display());
    Err(Error::Damaged { path, reason })
}

/// Renames an output into its place. It has the permissions of what stood there.
fn take_place(file: &CommitFile) -> Result<(), Error> {
    let Some(staged) = file.staged_path() else { return Ok(()) };
    carry_attributes(&file.target, &staged).map_err(disk::context("publish", &file.target))?;
    match fs::rename(&staged, &file.target) {
        Ok(()) => disk::sync_dir(disk::parent_of(&file.target)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match is_in_place(file)? {
            true => Ok(()),
            false => Err(Error::Damaged {
                path: file.target.clone(),
                reason: "it was to be published, but neither it nor its staged copy is there as \
                         written"
                    .to_owned(),
            }),
        },
        Err(error) => Err(disk::context("publish", &file.target)(error)),
    }
}

/// Whether an output stands in its place as it was published.
///
/// # Errors
/// When it cannot be read.
pub fn is_in_place(file: &CommitFile) -> Result<bool, Error> {
    is_written(&file.target, file)
}

/// Whether a file is what an output was written as.
fn is_written(path: &Path, file: &CommitFile) -> Result<bool, Error> {
    match fs::metadata(path) {
        Ok(meta) if meta.len() == file.bytes => {}
        _ => return Ok(false),
    }
    let mut hasher = blake3::Hasher::new();
    File::open(path)
        .and_then(|opened| io::copy(&mut io::BufReader::with_capacity(BUFFER, opened), &mut hasher))
        .map_err(disk::context("read", path))?;
    Ok(hasher.finalize().to_hex().as_str() == file.blake3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Holder, Stage};

    fn staged(dir: &Held, target: &Target, text: &str) -> Staged {
        let mut stage = Stage::begin(dir, 1, Role::Output, target, None).unwrap();
        stage.write(text.as_bytes()).unwrap();
        stage.finish().unwrap()
    }

    fn commit(dir: &Held, files: Vec<CommitFile>) -> Commit {
        Commit {
            sequence: 1,
            run: dir.run().to_owned(),
            plan: dir.plan().to_owned(),
            generation: 1,
            counts: Counts::default(),
            state: String::new(),
            format: Dialect::Rows,
            is_partial: false,
            files,
            earlier: Vec::new(),
            summary: RawValue::from_string("{}".to_owned()).unwrap(),
            done: false,
        }
    }

    #[test]
    fn a_publication_cut_off_anywhere_is_finished_by_the_next_process() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("work");
        let holder = Holder::this_process("test", 0);
        let dir = Held::acquire(&path, holder, &mut || false).unwrap();
        let places = ["a", "b"].map(|n| Target::resolve(&outer.path().join(n)).unwrap());
        for renamed in 0..=2 {
            for name in ["a", "b"] {
                fs::write(outer.path().join(name), "old").unwrap();
            }
            let files: Vec<_> =
                places.iter().map(|place| staged(&dir, place, "new").file().clone()).collect();
            let commit = commit(&dir, files);
            dir.write_commit(&commit).unwrap();
            for file in &commit.files[..renamed] {
                let staged = file.target.with_file_name(file.staged.as_ref().unwrap());
                fs::rename(staged, &file.target).unwrap();
            }
            assert!(dir.redo_here().unwrap());
            for name in ["a", "b"] {
                assert_eq!(fs::read_to_string(outer.path().join(name)).unwrap(), "new");
            }
            assert!(!dir.redo_here().unwrap(), "nothing is left to finish");
        }
    }

    #[test]
    fn what_was_uploaded_is_not_uploaded_again_and_what_was_not_waits() {
        let outer = tempfile::tempdir().unwrap();
        let holder = Holder::this_process("test", 0);
        let dir = Held::acquire(&outer.path().join("work"), holder, &mut || false).unwrap();
        let files = || -> Vec<CommitFile> {
            let remote = |name: &str| {
                let url = PathBuf::from(format!("https://host/{name}"));
                Target::Remote { url, staging: dir.path().to_owned() }
            };
            let here = Target::resolve(&outer.path().join("summary")).unwrap();
            let places =
                [(Role::Summary, here), (Role::Output, remote("a")), (Role::Errors, remote("b"))];
            let stage = |(role, target): (Role, Target)| {
                let mut stage = Stage::begin(&dir, 1, role, &target, None).unwrap();
                stage.write(role.name().as_bytes()).unwrap();
                stage.finish().unwrap().file().clone()
            };
            places.into_iter().map(stage).collect()
        };
        let mut taken = Vec::new();
        let mut once = |file: &CommitFile, staged: &Path| -> Result<Option<String>, Error> {
            if file.role == Role::Errors && taken.len() < 2 {
                taken.push("no".to_owned());
                let reason = "it is down".to_owned();
                return Err(Error::Target { path: file.target.clone(), reason });
            }
            taken.push(fs::read_to_string(staged).unwrap());
            Ok(Some("now".to_owned()))
        };
        dir.publish(commit(&dir, files()), &mut once).unwrap_err();
        assert!(!outer.path().join("summary").exists(), "it would tell what is not there");
        assert!(!dir.redo_here().unwrap(), "only who can upload goes on with it");
        assert!(dir.redo(&mut once).unwrap());
        assert!(outer.path().join("summary").exists());
        assert!(!dir.redo(&mut once).unwrap());
        assert_eq!(taken, ["output", "no", "errors"]);
        let strangers = disk::names(dir.path()).unwrap();
        assert_eq!(strangers, ["commit-000001.json", "lock", "rowmill.json"]);

        // What is not staged any more, or is not wanted, is no part of the publication.
        for is_lost in [true, false] {
            let mut undone = commit(&dir, files());
            let other = undone.files.remove(2);
            disk::remove(&other.staged_path().unwrap()).unwrap();
            dir.write_commit(&undone).unwrap();
            if is_lost {
                fs::write(undone.files[1].staged_path().unwrap(), "outpux").unwrap();
            }
            let mut never = |_: &CommitFile, _: &Path| match is_lost {
                true => panic!("these are other bytes"),
                false => Ok::<_, Error>(None),
            };
            assert!(dir.redo(&mut never).unwrap());
            let commit = dir.last_commit().unwrap().unwrap();
            assert!(commit.done && commit.files.len() == 1, "{commit:?}");
        }
        assert_eq!(disk::names(dir.path()).unwrap(), strangers);
        dir.remove().unwrap();
    }

    #[test]
    fn what_was_decided_and_then_lost_is_reported() {
        let outer = tempfile::tempdir().unwrap();
        let holder = Holder::this_process("test", 0);
        let dir = Held::acquire(&outer.path().join("work"), holder, &mut || false).unwrap();
        let place = Target::resolve(&outer.path().join("a")).unwrap();
        let file = staged(&dir, &place, "new").file().clone();
        dir.write_commit(&commit(&dir, vec![file])).unwrap();
        dir.sweep(Role::Output, &place).unwrap();
        assert!(matches!(dir.redo_here(), Err(Error::Damaged { .. })));
    }
}
