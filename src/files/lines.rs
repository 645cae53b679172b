//! Inputs of the file tools, line by line.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Error;
use crate::dialect::Problem;
use crate::dialect::detect::{self, Form, LINES, Mixed};
use crate::format::chunk::{Chunk, ChunkReader, Cut, Fault, Limits};
use crate::input::{BOM, not_text};
use crate::shutdown::{Shutdown, Stage};

/// The longest line that is read, in bytes: more than the largest file that any of the services takes.
pub const LONGEST: u64 = 256 << 20;

/// How much is read at a time.
const PIECE: Limits = Limits { records: usize::MAX, bytes: 1 << 20 };

/// Where lines come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file, a pipe or a device.
    File(PathBuf),
}

impl Input {
    /// The inputs that paths name: `-` is standard input, a directory is all the `.jsonl` files in it, in the order of
    /// their names.
    ///
    /// # Errors
    /// When a directory cannot be read or has none, or standard input is named twice.
    pub fn all(paths: &[PathBuf]) -> Result<Vec<Self>, Error> {
        let mut inputs = Vec::new();
        for path in paths {
            if path == Path::new("-") {
                if inputs.contains(&Self::Stdin) {
                    return Err(Error::Usage("- can be named once only".to_owned()));
                }
                inputs.push(Self::Stdin);
            } else if path.is_dir() {
                inputs.extend(files_of(path)?.into_iter().map(Self::File));
            } else {
                inputs.push(Self::File(path.clone()));
            }
        }
        Ok(inputs)
    }

    /// The path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Stdin => Path::new("-"),
            Self::File(path) => path,
        }
    }

    /// Whether it can be read a second time, and from the middle.
    #[must_use]
    pub fn is_regular(&self) -> bool {
        matches!(self, Self::File(path) if path.is_file())
    }

    /// The line that begins at an offset.
    ///
    /// # Errors
    /// When it cannot be read any more.
    pub(super) fn line_at(&self, offset: u64) -> Result<Vec<u8>, Error> {
        const BLOCK: usize = 1 << 16;
        let unreadable = |source| Error::Unreadable { path: self.path().to_owned(), source };
        let file = File::open(self.path()).map_err(unreadable)?;
        let mut line = Vec::new();
        loop {
            let start = line.len();
            line.resize(start + BLOCK, 0);
            let count = file.read_at(&mut line[start..], offset + start as u64);
            let count = count.map_err(unreadable)?;
            line.truncate(start + count);
            if let Some(end) = memchr::memchr(b'\n', &line[start..]) {
                line.truncate(start + end);
                return Ok(line);
            }
            if count == 0 || line.len() as u64 > LONGEST {
                return Ok(line);
            }
        }
    }
}

fn files_of(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let unreadable = |source| Error::Unreadable { path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        // Files that are still being written, ours too, have names that begin with a dot.
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        if path.extension() == Some("jsonl".as_ref()) && path.is_file() && !is_hidden {
            files.push(path);
        }
    }
    if files.is_empty() {
        let what = "is a directory without .jsonl files".to_owned();
        return Err(Error::NotLines { path: dir.to_owned(), what });
    }
    files.sort();
    Ok(files)
}

/// A line that is not blank.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    /// Its number, from 1; blank lines count.
    pub(super) number: u64,
    /// Where it begins in the input, as far as that is known.
    pub(super) offset: Option<u64>,
    /// Its bytes, without blanks before it and without its line end.
    pub(super) bytes: &'a [u8],
    /// That it is too long, and has no bytes here.
    pub(super) problem: Option<&'a Problem>,
}

impl<'a> Line<'a> {
    /// Its text.
    pub(super) fn text(&self) -> Result<&'a str, Problem> {
        match self.problem {
            Some(problem) => Err(problem.clone()),
            None => crate::dialect::utf8(self.bytes),
        }
    }

    /// Its bytes, for tools that cannot do without.
    pub(super) fn whole(&self, path: &Path) -> Result<&'a [u8], Error> {
        match self.problem {
            Some(problem) => Err(self.refused(path, problem.clone())),
            None => Ok(self.bytes),
        }
    }

    pub(super) fn refused(&self, path: &Path, problem: Problem) -> Error {
        Error::Line { path: path.to_owned(), line: self.number, problem }
    }
}

/// An input's lines. The first of them are read when it is opened.
pub(super) struct Lines<'a> {
    path: &'a Path,
    shutdown: &'a Shutdown,
    chunks: ChunkReader<Box<dyn Read>>,
    first: Option<Chunk>,
    /// Whether the input began with a byte order mark.
    pub(super) has_bom: bool,
    /// The bytes that were read, the mark among them.
    pub(super) bytes: u64,
    /// The lines that were not blank.
    pub(super) count: u64,
}

impl<'a> Lines<'a> {
    /// Opens an input.
    ///
    /// # Errors
    /// When it cannot be read, or is no JSON Lines.
    pub(super) fn open(input: &'a Input, shutdown: &'a Shutdown) -> Result<Self, Error> {
        let path = input.path();
        let extension = path.extension().map(|it| it.to_ascii_lowercase());
        if extension.is_some_and(|it| it == "csv" || it == "tsv") {
            let what = "is CSV, and the file tools take JSON Lines".to_owned();
            return Err(Error::NotLines { path: path.to_owned(), what });
        }
        let unreadable = |source| Error::Unreadable { path: path.to_owned(), source };
        let mut source: Box<dyn Read> = match input {
            Input::Stdin => Box::new(io::stdin()),
            Input::File(path) => Box::new(File::open(path).map_err(unreadable)?),
        };
        let mut head = Vec::new();
        source.by_ref().take(4096).read_to_end(&mut head).map_err(unreadable)?;
        if let Some(what) = not_text(&head) {
            let what = format!("looks like {what}, not like UTF-8 text");
            return Err(Error::NotLines { path: path.to_owned(), what });
        }
        let has_bom = head.starts_with(BOM);
        let bytes = if has_bom { BOM.len() as u64 } else { 0 };
        head.drain(..usize::from(has_bom) * BOM.len());
        let source: Box<dyn Read> = Box::new(Cursor::new(head).chain(source));
        let mut chunks = ChunkReader::new(source, Cut::Lines, bytes, 1, LONGEST);
        let first = chunks.next_chunk(PIECE).map_err(unreadable)?;
        Ok(Self { path, shutdown, chunks, first, has_bom, bytes, count: 0 })
    }

    /// What the first lines look like.
    pub(super) fn detect(&self) -> Result<Option<Form>, Mixed> {
        let Some(chunk) = &self.first else { return Ok(None) };
        let records = chunk.records.iter().take(LINES);
        detect::detect(records.map(|record| (record.line, chunk.record(record))))
    }

    /// Visits every line that is not blank.
    ///
    /// # Errors
    /// Those of `visit`; when the input cannot be read; [`Error::Interrupted`].
    pub(super) fn each(
        &mut self,
        visit: &mut dyn FnMut(Line<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut next = self.first.take();
        while let Some(chunk) = next {
            if self.shutdown.stage() != Stage::Running {
                return Err(Error::Interrupted);
            }
            self.bytes += chunk.length;
            self.count += chunk.records.len() as u64;
            let is_whole = chunk.bytes.len() as u64 == chunk.length;
            for record in &chunk.records {
                let problem = match record.fault {
                    Some(Fault::TooLarge(bytes)) => {
                        Some(Problem::LongLine { bytes, most: LONGEST })
                    }
                    Some(Fault::Unclosed) | None => None,
                };
                let bytes = &chunk.bytes[record.start..record.end];
                let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
                visit(Line {
                    number: record.line,
                    offset: is_whole.then_some(chunk.offset + record.start as u64),
                    bytes: bytes.strip_suffix(b"\r").unwrap_or(bytes),
                    problem: problem.as_ref(),
                })?;
            }
            self.chunks.recycle(chunk.bytes);
            next = self
                .chunks
                .next_chunk(PIECE)
                .map_err(|source| Error::Unreadable { path: self.path.to_owned(), source })?;
        }
        Ok(())
    }
}
