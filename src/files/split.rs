//! `files split`: a file in parts, by lines, bytes and model. Held is a megabyte of the input, and 64 KiB and a name for
//! each part that is open.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Error;
use super::facts::{self, Facts};
use super::lines::{Input, Lines};
use crate::dialect::Dialect;
use crate::dialect::detect::Side;
use crate::shutdown::Shutdown;
use crate::store::WholeFile;

/// How to split.
#[derive(Debug, Clone)]
pub struct Options {
    /// The most lines of a part.
    pub lines: Option<u64>,
    /// The most bytes of a part.
    pub bytes: Option<u64>,
    /// Whether a part has the lines of one model.
    pub by_model: bool,
    /// Where the parts go; the directory is made if need be.
    pub dir: PathBuf,
    /// What their names begin with.
    pub stem: String,
    /// Whether files that are there may be replaced.
    pub overwrite: bool,
}

/// A part that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Where it is.
    pub path: PathBuf,
    /// Its lines.
    pub lines: u64,
    /// Its bytes.
    pub bytes: u64,
    /// The model of its lines, where parts are by model; nothing for lines that name none.
    pub model: Option<String>,
}

/// A part that is being written.
struct Open {
    file: WholeFile,
    lines: u64,
    bytes: u64,
    model: Option<String>,
    // When it was last written to, to close the one that has been left alone longest.
    used: u64,
    is_open: bool,
}

/// How many parts are open at once.
const OPEN: usize = 64;

/// Splits a file. No line is cut, and every byte of it is kept; line ends become `\n`. The parts appear once all of them
/// are written and synced. Given are also the parts of an earlier split that none of these has replaced.
///
/// # Errors
/// When the input cannot be read, a line does not fit a part, or a part cannot be written, or one of this name is there
/// already.
pub fn split(
    input: &Input,
    options: &Options,
    shutdown: &Shutdown,
) -> Result<(Vec<Part>, Vec<PathBuf>), Error> {
    let was_there = options.dir.exists();
    let result = split_into(input, options, shutdown);
    if result.is_err() && !was_there {
        // It is empty, as nothing was placed.
        let _ = std::fs::remove_dir(&options.dir);
    }
    result
}

fn split_into(
    input: &Input,
    options: &Options,
    shutdown: &Shutdown,
) -> Result<(Vec<Part>, Vec<PathBuf>), Error> {
    let mut lines = Lines::open(input, shutdown)?;
    let form = lines.detect().ok().flatten();
    let dialect = form.filter(|form| form.side == Side::Requests).map(|form| form.dialect);
    let dialect = dialect.unwrap_or(Dialect::Rows);
    if options.by_model && !matches!(dialect, Dialect::OpenAi | Dialect::Dria) {
        let what = format!("has lines of the dialect {dialect}, which name no model");
        return Err(Error::NotLines { path: input.path().to_owned(), what });
    }
    make_dir(&options.dir)?;
    let mut splitting =
        Splitting { options, parts: Vec::new(), current: BTreeMap::new(), clock: 0, open: 0 };
    lines.each(&mut |line| {
        let bytes = line.whole(input.path())?;
        let length = bytes.len() as u64 + 1;
        if options.bytes.is_some_and(|most| length > most) {
            let reason = format!("it has {length} bytes, more than a part may have");
            let (path, line) = (input.path().to_owned(), line.number);
            return Err(Error::Edit { path, line, reason });
        }
        let model = match options.by_model {
            false => None,
            true => {
                let facts = line.text().and_then(|text| facts::read(text, dialect, None, true));
                let Facts { model, .. } =
                    facts.map_err(|problem| line.refused(input.path(), problem))?;
                model
            }
        };
        splitting.line(bytes, model.as_deref())
    })?;
    splitting.place()
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(dir).map_err(|source| super::output::failed("create", dir, source))
}

struct Splitting<'a> {
    options: &'a Options,
    parts: Vec<Open>,
    // The part that takes the lines of a model.
    current: BTreeMap<Option<String>, usize>,
    clock: u64,
    open: usize,
}

impl Splitting<'_> {
    fn line(&mut self, line: &[u8], model: Option<&str>) -> Result<(), Error> {
        let model = model.map(str::to_owned);
        let length = line.len() as u64 + 1;
        let has_room = |part: &Open| {
            self.options.lines.is_none_or(|most| part.lines < most)
                && self.options.bytes.is_none_or(|most| part.bytes + length <= most)
        };
        let current = self.current.get(&model).copied();
        let index = match current.filter(|index| has_room(&self.parts[*index])) {
            Some(index) => index,
            None => {
                if let Some(full) = current {
                    self.close(full)?;
                }
                let file = WholeFile::begin(&self.options.dir, &self.options.stem)?;
                let part = Open {
                    file,
                    lines: 0,
                    bytes: 0,
                    model: model.clone(),
                    used: 0,
                    is_open: false,
                };
                self.parts.push(part);
                self.current.insert(model, self.parts.len() - 1);
                self.parts.len() - 1
            }
        };
        self.make_open(index)?;
        let part = &mut self.parts[index];
        part.file.write(line)?;
        part.file.write(b"\n")?;
        part.lines += 1;
        part.bytes += length;
        Ok(())
    }

    /// Sees to it that no more parts are open than may be.
    fn make_open(&mut self, index: usize) -> Result<(), Error> {
        self.clock += 1;
        self.parts[index].used = self.clock;
        if self.parts[index].is_open {
            return Ok(());
        }
        if self.open == OPEN {
            let open = self.current.values().copied().filter(|index| self.parts[*index].is_open);
            if let Some(oldest) = open.min_by_key(|index| self.parts[*index].used) {
                self.close(oldest)?;
            }
        }
        self.parts[index].is_open = true;
        self.open += 1;
        Ok(())
    }

    fn close(&mut self, index: usize) -> Result<(), Error> {
        let part = &mut self.parts[index];
        part.file.release()?;
        self.open -= usize::from(std::mem::take(&mut part.is_open));
        Ok(())
    }

    /// Gives all parts their names.
    fn place(mut self) -> Result<(Vec<Part>, Vec<PathBuf>), Error> {
        let Options { dir, stem, overwrite, .. } = self.options;
        let digits = self.parts.len().to_string().len().max(3);
        let path = |number: usize| dir.join(format!("{stem}-{number:0digits$}.jsonl"));
        let paths: Vec<_> = (1..=self.parts.len()).map(path).collect();
        let mut there = parts_in(dir, stem)?;
        if let Some(path) = there.first().filter(|_| !overwrite) {
            return Err(Error::Exists { path: path.clone() });
        }
        there.retain(|path| !paths.contains(path));
        for part in &mut self.parts {
            part.file.finish()?;
        }
        let mut placed = Vec::new();
        for (part, path) in self.parts.into_iter().zip(paths) {
            let Open { file, lines, bytes, model, .. } = part;
            file.place(&path, *overwrite)?;
            placed.push(Part { path, lines, bytes, model });
        }
        Ok((placed, there))
    }
}

/// The parts that are in a directory, whoever put them there, in the order of their names. One too many among them would
/// be taken for a part of this split.
fn parts_in(dir: &Path, stem: &str) -> Result<Vec<PathBuf>, Error> {
    let unreadable = |source| Error::Unreadable { path: dir.to_owned(), source };
    let is_part = |name: &str| {
        let number = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('-'));
        let number = number.and_then(|rest| rest.strip_suffix(".jsonl"));
        number.is_some_and(|it| it.len() >= 3 && it.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut parts = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.file_name().is_some_and(|name| is_part(&name.to_string_lossy())) {
            parts.push(path);
        }
    }
    parts.sort();
    Ok(parts)
}
