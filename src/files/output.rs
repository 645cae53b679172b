//! Where a tool's lines go.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::Error;
use crate::store::{self, Target, WholeFile};

/// Where to write, and whether what is there may be replaced.
#[derive(Debug, Clone)]
pub struct Output {
    /// A path; `-` is standard output.
    pub path: PathBuf,
    /// Whether a file that is there may be replaced.
    pub overwrite: bool,
}

/// An output that is being written.
pub(super) enum Writing<'a> {
    File { file: Box<WholeFile>, place: PathBuf, overwrite: bool },
    Stream { file: BufWriter<File>, path: PathBuf },
    Stdout(BufWriter<&'a mut dyn Write>),
}

impl<'a> Writing<'a> {
    /// Begins it. Files appear when they are finished.
    ///
    /// # Errors
    /// When it cannot be made, or is there and may not be replaced.
    pub(super) fn begin(output: &Output, stdout: &'a mut dyn Write) -> Result<Self, Error> {
        match Target::resolve(&output.path)? {
            Target::Stdout => Ok(Self::Stdout(BufWriter::with_capacity(1 << 16, stdout))),
            Target::Stream(path) => {
                let file = OpenOptions::new().write(true).open(&path);
                let file = file.map_err(|source| failed("open", &path, source))?;
                Ok(Self::Stream { file: BufWriter::with_capacity(1 << 16, file), path })
            }
            Target::Remote { url, .. } => {
                let reason = "is a URL, and nothing is uploaded here".to_owned();
                Err(store::Error::Target { path: url, reason }.into())
            }
            Target::File(place) => {
                if place.exists() && !output.overwrite {
                    return Err(Error::Exists { path: output.path.clone() });
                }
                let name = place.file_name().unwrap_or_default().to_string_lossy();
                let dir = place.parent().unwrap_or(Path::new("."));
                let file = Box::new(WholeFile::begin(dir, &name)?);
                Ok(Self::File { file, place, overwrite: output.overwrite })
            }
        }
    }

    /// Appends a line.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<(), Error> {
        self.bytes(line)?;
        self.bytes(b"\n")
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::File { file, .. } => Ok(file.write(bytes)?),
            Self::Stream { file, path } => {
                file.write_all(bytes).map_err(|source| failed("write", path, source))
            }
            Self::Stdout(stdout) => {
                stdout.write_all(bytes).map_err(|source| failed("write", Path::new("-"), source))
            }
        }
    }

    /// Ends it: from now on it is there.
    pub(super) fn finish(self) -> Result<(), Error> {
        match self {
            Self::File { mut file, place, overwrite } => {
                file.finish()?;
                Ok(file.place(&place, overwrite)?)
            }
            Self::Stream { mut file, path } => {
                file.flush().map_err(|source| failed("write", &path, source))
            }
            Self::Stdout(mut stdout) => {
                stdout.flush().map_err(|source| failed("write", Path::new("-"), source))
            }
        }
    }
}

pub(super) fn failed(what: &'static str, path: &Path, source: io::Error) -> Error {
    store::Error::Io { what, path: path.to_owned(), source }.into()
}
