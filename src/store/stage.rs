//! An output while it is written: in full, beside its place or where it waits for its upload.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;

use super::publish::Upload;
use super::target::TAG;
use super::{CommitFile, Error, Role, Target, WorkDir, disk};

/// An output that is being written.
pub struct Stage<'a> {
    role: Role,
    target: PathBuf,
    staged: Option<PathBuf>,
    staging: Option<PathBuf>,
    sink: Sink<'a>,
    hasher: blake3::Hasher,
    bytes: u64,
}

enum Sink<'a> {
    File(BufWriter<File>),
    Stream(BufWriter<File>),
    Stdout(&'a mut (dyn Write + Send)),
}

/// An output that is written and synced, waiting for its place.
#[derive(Debug, Clone)]
pub struct Staged(CommitFile);

impl Staged {
    /// What will stand in the commit record.
    #[must_use]
    pub fn file(&self) -> &CommitFile {
        &self.0
    }

    /// Where it waits; nothing for what was streamed.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        self.0.staged_path()
    }

    /// Notes on the file what it is an output of; see [`Target::tag`]. Where the file system keeps
    /// no such notes, there is none.
    ///
    /// # Errors
    /// When the note cannot be made durable.
    pub fn tag(&self, tag: &str) -> Result<(), Error> {
        let Some(path) = self.path() else { return Ok(()) };
        if rustix::fs::setxattr(&path, TAG, tag.as_bytes(), XattrFlags::empty()).is_err() {
            return Ok(());
        }
        File::open(&path).and_then(|file| file.sync_all()).map_err(disk::context("sync", &path))
    }
}

/// Bytes gathered before they are written to an output.
pub(super) const BUFFER: usize = 1 << 18;

impl<'a> Stage<'a> {
    /// Begins an output. `sequence` and the run's name make the name it is staged under; `stdout`
    /// is where it goes if that is its target.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn begin(
        dir: &WorkDir,
        sequence: u32,
        role: Role,
        target: &Target,
        stdout: Option<&'a mut (dyn Write + Send)>,
    ) -> Result<Self, Error> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).custom_flags(disk::no_follow());
        let (path, staged, sink) = match target {
            Target::Remote { url, staging } => {
                let staged = staging.join(staged_remotely(role, dir.run(), sequence));
                // Nobody else is to read it here.
                let file = options.mode(0o600).open(&staged);
                let file = file.map_err(disk::context("create", &staged))?;
                (url.clone(), Some(staged), Sink::File(BufWriter::with_capacity(BUFFER, file)))
            }
            Target::File(path) => {
                let staged = path.with_file_name(staged_name(path, dir.run(), sequence));
                if target.is_there() {
                    // What it replaces may be private. It has that one's permissions when it takes its place.
                    options.mode(0o600);
                }
                let file = options.open(&staged).map_err(disk::context("create", &staged))?;
                let sink = Sink::File(BufWriter::with_capacity(BUFFER, file));
                (path.clone(), Some(staged), sink)
            }
            Target::Stream(path) => {
                let file = OpenOptions::new()
                    .write(true)
                    .open(path)
                    .map_err(disk::context("open", path))?;
                (path.clone(), None, Sink::Stream(BufWriter::with_capacity(BUFFER, file)))
            }
            Target::Stdout => {
                let path = PathBuf::from("-");
                let Some(stdout) = stdout else {
                    let reason = "standard output is for another output".to_owned();
                    return Err(Error::Target { path, reason });
                };
                (path, None, Sink::Stdout(stdout))
            }
        };
        let staging = match target {
            Target::Remote { staging, .. } => Some(staging.clone()),
            _ => None,
        };
        let hasher = blake3::Hasher::new();
        Ok(Self { role, target: path, staged, staging, sink, hasher, bytes: 0 })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// When they cannot be written: a full disk, or a reader that went away.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        let result = match &mut self.sink {
            Sink::File(file) | Sink::Stream(file) => file.write_all(bytes),
            Sink::Stdout(stdout) => stdout.write_all(bytes),
        };
        result.map_err(disk::context("write", self.staged.as_ref().unwrap_or(&self.target)))
    }

    /// Ends the output: all of it is on the disk then.
    ///
    /// # Errors
    /// As [`Stage::write`].
    pub fn finish(self) -> Result<Staged, Error> {
        let place = self.staged.as_ref().unwrap_or(&self.target);
        let result = match self.sink {
            Sink::File(file) => {
                file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|f| f.sync_all())
            }
            Sink::Stream(mut file) => file.flush(),
            Sink::Stdout(stdout) => stdout.flush(),
        };
        result.map_err(disk::context("write", place))?;
        let name = |path: &PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned());
        Ok(Staged(CommitFile {
            role: self.role,
            staged: self.staged.as_ref().and_then(name),
            target: self.target,
            bytes: self.bytes,
            blake3: self.hasher.finalize().to_hex().to_string(),
            upload: self.staging.map(|staging| Upload { staging, done_at: None }),
        }))
    }
}

pub(super) fn staged_name(target: &Path, run: &str, sequence: u32) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    format!(".{name}.{}.{sequence}.staged", &run[..8.min(run.len())])
}

/// The name of an output that is staged for its upload.
pub(super) fn staged_remotely(role: Role, run: &str, sequence: u32) -> String {
    staged_name(Path::new(role.name()), run, sequence)
}
