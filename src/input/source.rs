//! The input file: what format it has, where its rows begin, whether it is text at all.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::spelling::{BOM, Spelling, Unclear, head_of, is_list_of_objects, not_text, spelling};
use crate::format::chunk::{ChunkReader, Cut, Limits};
use crate::format::csv::{self, Header};
use crate::job::{Dialect, IdHash, input_salt};
use crate::store::{ShardEntry, SourcePrint};

/// An input file that can be read by ranges.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// What tells it from the job's other inputs; see [`SourcePrint::name`].
    pub name: Option<String>,
    /// How its rows are spelled.
    pub format: Format,
    /// Its length in bytes.
    pub length: u64,
    /// Where the first row may begin: behind a byte order mark or a header.
    pub data_offset: u64,
    /// The line in which that is, from 1.
    pub data_line: u64,
    /// What a person may want to know of how it is read, in words.
    pub notes: Vec<String>,
}

/// The inputs of a job: one or more, whose rows follow one another.
#[derive(Debug, Clone)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// So many inputs, at least one, each with a name of its own.
    #[must_use]
    pub fn several(sources: Vec<Source>) -> Self {
        Self(sources)
    }

    /// The input, or the first of several.
    #[must_use]
    pub fn first(&self) -> &Source {
        &self.0[0]
    }

    /// All of them, in order.
    #[must_use]
    pub fn all(&self) -> &[Source] {
        &self.0
    }

    /// The one that a shard is of.
    #[must_use]
    pub fn of(&self, shard: &ShardEntry) -> &Source {
        &self.0[shard.source as usize]
    }

    /// The length of all together.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.0.iter().fold(0, |sum, source| sum.saturating_add(source.length))
    }
}

impl From<Source> for Sources {
    fn from(source: Source) -> Self {
        Self(vec![source])
    }
}

/// How rows are spelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// JSON Lines: an object a line.
    JsonLines,
    /// CSV with a header; values are strings.
    Csv(Header),
}

/// Why an input cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The input.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A directory has no inputs.
    #[error("there is no .jsonl file directly in {}", path.display())]
    NoInputs {
        /// The directory.
        path: PathBuf,
    },
    /// It is not a regular file.
    #[error("{} is not a file", path.display())]
    NotAFile {
        /// The input.
        path: PathBuf,
    },
    /// Neither its name nor its content tells a format that rowmill reads.
    #[error(
        "{} has no format that rowmill reads: its first line is no JSON object, and its name does not end in .jsonl, \
         .csv or .tsv",
        path.display()
    )]
    UnknownFormat {
        /// The input.
        path: PathBuf,
    },
    /// It is one JSON list, or a JSON object over several lines.
    #[error("{} holds {what}; rows are JSON Lines, one object a line", path.display())]
    OneDocument {
        /// The input.
        path: PathBuf,
        /// What it holds.
        what: &'static str,
        /// Whether that is a list.
        is_list: bool,
    },
    /// It is not text, or not in UTF-8.
    #[error("{} looks like {what}, not like UTF-8 text", path.display())]
    NotText {
        /// The input.
        path: PathBuf,
        /// What it looks like.
        what: &'static str,
    },
    /// The header of a CSV file cannot be used.
    #[error("the header of {} cannot be used: {source}", path.display())]
    Header {
        /// The input.
        path: PathBuf,
        /// Why not.
        #[source]
        source: csv::Error,
    },
    /// Its lines are none that can be asked.
    #[error("{} is no file of rows or requests: {what}", path.display())]
    NotRequests {
        /// The input.
        path: PathBuf,
        /// What they are.
        what: String,
    },
    /// The inputs of one job are of different dialects.
    #[error(
        "the inputs are of different dialects: {} is {first}, {} is {second}",
        path.display(), other.display()
    )]
    DifferentDialects {
        /// An input.
        path: PathBuf,
        /// What its lines are.
        first: Dialect,
        /// One whose lines are others.
        other: PathBuf,
        /// What they are.
        second: Dialect,
    },
    /// It is not any more what it was when the plan was made.
    #[error("{} has changed since it was planned (first in the rows from {first_row} on)", path.display())]
    Changed {
        /// The input.
        path: PathBuf,
        /// The first row of the first shard that differs.
        first_row: u64,
    },
}

impl Error {
    /// The same of a copy of what is there.
    #[must_use]
    pub fn of_copy_of(mut self, place: &str) -> Self {
        match &mut self {
            Self::Unreadable { .. } | Self::NoInputs { .. } | Self::DifferentDialects { .. } => {}
            Self::NotAFile { path }
            | Self::UnknownFormat { path }
            | Self::OneDocument { path, .. }
            | Self::NotText { path, .. }
            | Self::Header { path, .. }
            | Self::NotRequests { path, .. }
            | Self::Changed { path, .. } => *path = PathBuf::from(place),
        }
        self
    }
}

impl Source {
    /// Looks at a file, and reads no more than its beginning.
    ///
    /// # Errors
    /// When it cannot be read, or holds no rows that rowmill can read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let head = head_of(path);
        let head = head.map_err(|source| Error::Unreadable { path: path.to_owned(), source })?;
        match spelling(path, &head) {
            Ok(spelling) => Self::open_spelled(path, spelling),
            Err(Unclear::Binary) => Self::open_spelled(path, Spelling::JsonLines),
            Err(Unclear::Object) => {
                let what = "one JSON object over several lines";
                Err(Error::OneDocument { path: path.to_owned(), what, is_list: false })
            }
            Err(Unclear::Unknown) => Err(Error::UnknownFormat { path: path.to_owned() }),
        }
    }

    /// What paths in its rows are relative to, under one name for however the command names it.
    #[must_use]
    pub fn base(&self) -> PathBuf {
        let dir = self.path.parent().filter(|dir| *dir != Path::new(""));
        let dir = dir.unwrap_or(Path::new("."));
        dir.canonicalize().unwrap_or_else(|_| dir.to_owned())
    }

    /// As [`Source::open`], of a file whose name does not tell whether it is CSV or JSON Lines.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn open_as(path: &Path, is_csv: bool) -> Result<Self, Error> {
        let spelling = if is_csv { Spelling::Csv(csv::COMMA) } else { Spelling::JsonLines };
        Self::open_spelled(path, spelling)
    }

    fn open_spelled(path: &Path, spelling: Spelling) -> Result<Self, Error> {
        let unreadable = |source| Error::Unreadable { path: path.to_owned(), source };
        let mut file = open(path)?;
        let meta = file.metadata().map_err(unreadable)?;
        if !meta.is_file() {
            return Err(Error::NotAFile { path: path.to_owned() });
        }
        let mut head = Vec::new();
        file.by_ref().take(4096).read_to_end(&mut head).map_err(unreadable)?;
        if let Some(what) = not_text(&head) {
            return Err(Error::NotText { path: path.to_owned(), what });
        }
        let data_offset = if head.starts_with(BOM) { BOM.len() as u64 } else { 0 };
        let source = Self {
            path: path.to_owned(),
            name: None,
            format: Format::JsonLines,
            length: meta.len(),
            data_offset,
            data_line: 1,
            notes: Vec::new(),
        };
        match spelling {
            Spelling::Csv(expected) => source.with_header(expected),
            Spelling::JsonLines if is_list_of_objects(&head) => {
                let what = "one JSON list of objects";
                Err(Error::OneDocument { path: path.to_owned(), what, is_list: true })
            }
            Spelling::JsonLines => Ok(source),
        }
    }

    /// The source that a plan was made for, at another place or the same.
    #[must_use]
    pub fn planned(path: &Path, print: &SourcePrint) -> Self {
        let format = match &print.columns {
            Some(names) => {
                let separator = print.separator.and_then(|it| u8::try_from(it).ok());
                Format::Csv(Header::from_names(names.clone(), separator.unwrap_or(csv::COMMA)))
            }
            None => Format::JsonLines,
        };
        Self {
            path: path.to_owned(),
            name: print.name.clone(),
            format,
            length: print.bytes,
            data_offset: print.data_offset,
            data_line: 1,
            notes: Vec::new(),
        }
    }

    /// What stands between the fields, where the file says so itself or its beginning shows it.
    fn find_separator(&mut self, expected: u8) -> Result<u8, Error> {
        /// As much as some tens of records have.
        const ENOUGH: u64 = 64 << 10;
        let unreadable = |source| Error::Unreadable { path: self.path.clone(), source };
        let mut beginning = Vec::new();
        self.range(self.data_offset, ENOUGH)
            .and_then(|mut range| range.read_to_end(&mut beginning))
            .map_err(unreadable)?;
        if let Some((separator, length)) = csv::named_separator(&beginning) {
            self.data_offset += length as u64;
            self.data_line += 1;
            return Ok(separator);
        }
        let is_all = (beginning.len() as u64) < ENOUGH;
        let separator = csv::detect_separator(&beginning, is_all, expected);
        if separator != expected {
            let shown = char::from(separator);
            let text =
                format!("{}: the separator is {shown:?}, as its lines show", self.path.display());
            self.notes.push(text);
        }
        Ok(separator)
    }

    fn with_header(mut self, expected: u8) -> Result<Self, Error> {
        let separator = self.find_separator(expected)?;
        let unreadable = |source| Error::Unreadable { path: self.path.clone(), source };
        // More than a header ever has.
        const LONGEST: u64 = 1 << 20;
        let (offset, line) = (self.data_offset, self.data_line);
        let file = self.range(self.data_offset, self.length).map_err(unreadable)?;
        let mut reader = ChunkReader::new(file, Cut::csv(separator), offset, line, LONGEST);
        let one = Limits { records: 1, bytes: u64::MAX };
        let first = reader.next_chunk(one).map_err(unreadable)?;
        let names = match first.as_ref().and_then(|chunk| chunk.records.first()) {
            Some(record) if record.fault.is_some() => Err(csv::Error::Unclosed),
            Some(record) => {
                let text = first.as_ref().map_or(&[][..], |chunk| match separator {
                    // A blank at either end is a separator.
                    b'\t' => &chunk.bytes[record.start..record.end],
                    _ => chunk.record(record),
                });
                Header::parse(text, separator)
            }
            // A file without anything has no rows; that is no mistake of anyone's.
            None => Ok((Header::from_names(Vec::new(), separator), Vec::new())),
        };
        let (names, told) =
            names.map_err(|source| Error::Header { path: self.path.clone(), source })?;
        if let Some(chunk) = first {
            self.data_offset += chunk.length;
            self.data_line = reader.line();
        }
        let path = self.path.display().to_string();
        self.notes.extend(told.into_iter().map(|told| format!("{path}: {told}")));
        self.format = Format::Csv(names);
        Ok(self)
    }

    /// Whether it is CSV.
    #[must_use]
    pub fn is_csv(&self) -> bool {
        matches!(self.format, Format::Csv(_))
    }

    /// What the hashes of its rows' ids are mixed with.
    #[must_use]
    pub fn salt(&self) -> IdHash {
        self.name.as_deref().map_or(0, input_salt)
    }

    /// How its records are told apart.
    #[must_use]
    pub fn cut(&self) -> Cut {
        match &self.format {
            Format::JsonLines => Cut::Lines,
            Format::Csv(header) => Cut::csv(header.separator()),
        }
    }

    /// A reader of `length` bytes from `offset` on.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn range(&self, offset: u64, length: u64) -> io::Result<io::Take<File>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file.take(length))
    }

    /// The name of its format, as manifests have it.
    #[must_use]
    pub fn format_name(&self) -> &'static str {
        match self.format {
            Format::JsonLines => "jsonl",
            Format::Csv(_) => "csv",
        }
    }

    /// What stands between its fields, if it is CSV and that is no comma.
    #[must_use]
    pub fn separator(&self) -> Option<char> {
        match &self.format {
            Format::JsonLines => None,
            Format::Csv(header) => {
                Some(header.separator()).filter(|it| *it != csv::COMMA).map(char::from)
            }
        }
    }

    /// The names of its columns, if it has such.
    #[must_use]
    pub fn columns(&self) -> Option<Vec<String>> {
        match &self.format {
            Format::JsonLines => None,
            Format::Csv(header) => Some(header.names().to_vec()),
        }
    }
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source })
}

/// Passes bytes on and hashes them.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: blake3::Hasher,
}

impl<R: Read> HashingReader<R> {
    /// Hashes what is read of `inner`, behind bytes that were read before.
    pub fn new(inner: R, before: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(before);
        Self { inner, hasher }
    }

    /// The hash of all that was read.
    pub fn hash(&self) -> blake3::Hash {
        self.hasher.finalize()
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(name: &str, bytes: &[u8]) -> Result<Source, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Source::open(&path)
    }

    fn refusal(name: &str, bytes: &[u8]) -> String {
        let error = opened(name, bytes).unwrap_err().to_string();
        error[error.find(name).unwrap()..].to_owned()
    }

    #[test]
    fn knows_where_rows_begin() {
        let source = opened("a.jsonl", b"\xef\xbb\xbf{}\n").unwrap();
        assert_eq!((source.data_offset, source.columns()), (3, None));
        let source = opened("A.CSV", b"\xef\xbb\xbfid,\"te\nxt\"\r\n1,2\n").unwrap();
        // The header ends at its carriage return; what is left of the line end is blank.
        assert_eq!((source.data_offset, source.data_line), (14, 2));
        assert_eq!(source.columns().unwrap(), ["id", "te\nxt"]);
        assert_eq!(opened("a.csv", b"").unwrap().columns().unwrap().len(), 0);
    }

    #[test]
    fn content_tells_format_where_name_does_not() {
        for name in ["a.json", "a.txt", "a", "a.csv"] {
            let source = opened(name, b"\xef\xbb\xbf\n{\"a\": 1}\n{\"a\": 2}").unwrap();
            assert_eq!(source.format, Format::JsonLines, "{name}");
        }
        assert_eq!(opened("a", b" \n").unwrap().format, Format::JsonLines);
        let columns = |name: &str, text: &str| {
            let source = opened(name, text.as_bytes()).unwrap();
            (source.columns().unwrap().join("|"), source.separator(), source.notes.len())
        };
        assert_eq!(columns("a.tsv", "id\ttext\n1\ta\n"), ("id|text".into(), Some('\t'), 0));
        assert_eq!(columns("a.tsv", "id,text\n1,a\n"), ("id|text".into(), None, 1));
        assert_eq!(columns("a.txt", "id\ttext\n1\ta\n"), ("id|text".into(), Some('\t'), 0));
        assert_eq!(columns("a.csv", "id;text\n1;a\n"), ("id|text".into(), Some(';'), 1));
        assert_eq!(columns("a.csv", "sep=;\r\nid;text\n"), ("id|text".into(), Some(';'), 0));
        assert_eq!(columns("a.tsv", "\tid\n0\ta\n"), ("column_1|id".into(), Some('\t'), 1));
        assert_eq!(columns("a.csv", "id,\n0,a\n"), ("id|column_2".into(), None, 1));
    }

    #[test]
    fn refuses_what_is_no_text() {
        let utf16: Vec<u8> = "{\"a\": 1}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(refusal("a.jsonl", &utf16), "a.jsonl looks like UTF-16, not like UTF-8 text");
        assert_eq!(
            refusal("a.jsonl", b"\xff\xfe{\0"),
            "a.jsonl looks like UTF-16, not like UTF-8 text"
        );
        assert_eq!(
            refusal("a.jsonl", b"\x1f\x8b\x08"),
            "a.jsonl looks like gzip, not like UTF-8 text"
        );
        assert_eq!(refusal("a.csv", b"PAR1..."), "a.csv looks like Parquet, not like UTF-8 text");
        assert_eq!(refusal("a.csv", b",,\n"), "a.csv cannot be used: the header row is missing");
        assert!(refusal("a.txt", b"x").contains(".jsonl, .csv or .tsv"));
        for name in ["a.jsonl", "a.json", "a"] {
            let list = b"\xef\xbb\xbf[\n  {\"a\": 1}\n]\n";
            assert!(refusal(name, list).contains("one JSON list of objects"), "{name}");
        }
        assert!(refusal("a.json", b"{\n\"a\": 1}\n").contains("one JSON object over several"));
        assert_eq!(refusal("a", b"PAR1..."), "a looks like Parquet, not like UTF-8 text");
        assert!(matches!(
            Source::open(Path::new("/nowhere/a.jsonl")),
            Err(Error::Unreadable { .. })
        ));
    }
}
