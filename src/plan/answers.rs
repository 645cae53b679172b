//! Files of answers that were there before a plan: rowmill's outputs, and what other tools left.
//!
//! They are read line by line and never changed. What a line is believed to answer depends on who wrote it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;

use super::Error;
use crate::dialect::{self, dria, openai, prompts};
use crate::format::chunk::{ChunkReader, Cut, Limits};
use crate::format::envelope;
use crate::format::fast_agent::{self, Flaw, Numbering};
use crate::input;
use crate::job::{Dialect, Id, JobSpec};
use crate::schema::Schema;

/// Answers that are there before a plan is made.
#[derive(Debug, Clone)]
pub struct Earlier {
    /// The files they are in, one behind the other.
    pub files: Vec<PathBuf>,
    /// Who wrote them.
    pub writer: Writer,
    /// Whether their rows are known to be as they were. Where they are not, an answer is its row's alone.
    pub is_known: bool,
    /// Whether an answer is only taken for a row that stands where the one stood that it was given for.
    pub is_in_place: bool,
    /// Whether their ids are row numbers, though the rows have ids of their own now.
    pub is_by_number: bool,
}

impl Earlier {
    /// What rowmill wrote, before more is known of it.
    #[must_use]
    pub fn of_rowmill(files: Vec<PathBuf>) -> Self {
        let (is_known, is_in_place, is_by_number) = (false, false, false);
        Self { files, writer: Writer::Rowmill, is_known, is_in_place, is_by_number }
    }
}

/// Who wrote files of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// rowmill.
    Rowmill,
    /// fast-agent: its row numbers count something else, and not all that it calls an answer is one.
    FastAgent(Numbering),
}

/// What a line of a file of answers says of a row, as it is spelled there.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    /// The id's token.
    pub(super) id: &'a str,
    /// The answer's token; nothing where there is none.
    pub(super) result: Option<&'a str>,
    /// What its line and its request are called, if that is said.
    pub(super) named: [Option<&'a str>; 2],
    /// Which of the answers to its row it is, if that is said.
    pub(super) variant: Option<(String, u32)>,
    /// The row's number, if it is said.
    pub(super) number: Option<u64>,
    /// The row, if it is shown.
    pub(super) input: Option<&'a str>,
}

impl<'a> Answer<'a> {
    /// Reads a line of a dialect.
    pub(super) fn read(dialect: Dialect, line: &'a [u8]) -> Option<Self> {
        // In front of a file that some editor or shell wrote.
        let line = line.strip_prefix(input::BOM).unwrap_or(line);
        let text = || dialect::utf8(line).ok();
        let held = match dialect {
            Dialect::Rows => return Self::of_envelope(line),
            Dialect::OpenAi => openai::read_answer(text()?),
            Dialect::Prompts => prompts::read_answer(text()?),
            Dialect::Dria => dria::read_answer(text()?),
        };
        let dialect::AnswerLine { id, answer, named } = held.ok()?;
        Some(Self { id, result: answer, named, variant: None, number: None, input: None })
    }

    fn of_envelope(line: &'a [u8]) -> Option<Self> {
        let envelope = envelope::read(line).ok()?;
        Id::hash_of(envelope.id.get()).ok()?;
        Some(Self {
            id: envelope.id.get(),
            result: envelope.ok.then(|| envelope.result.get()),
            named: [None; 2],
            variant: envelope.variant(),
            number: envelope.row_number(),
            input: envelope.input.map(RawValue::get),
        })
    }

    /// Whether its id is its row's number.
    fn is_by_number(&self) -> bool {
        self.id.parse::<u64>().ok().is_some_and(|id| self.number == Some(id))
    }
}

/// What an answer is worth to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// It may be taken.
    Answer,
    /// It is none, and says so.
    Nothing,
    /// It is none, and says it is one.
    Flawed(Flaw),
    /// It does not fit the job's schema.
    Unfit,
}

/// Says what answers are worth.
pub(super) struct Judge {
    writer: Writer,
    schema: Option<Schema>,
}

impl Judge {
    pub(super) fn new(writer: Writer, job: &JobSpec) -> Self {
        // One that is none was refused before there was a job.
        let schema = job.schema.as_deref().and_then(|text| Schema::read(text).ok());
        Self { writer, schema }
    }

    pub(super) fn worth(&self, answer: &Answer<'_>) -> Worth {
        let Some(result) = answer.result else { return Worth::Nothing };
        if self.writer == Writer::Rowmill {
            return Worth::Answer;
        }
        match (fast_agent::flaw(result), &self.schema) {
            // A schema may allow an empty text.
            (None | Some(Flaw::Empty), Some(schema)) => match schema.extract(result) {
                Ok(_) => Worth::Answer,
                Err(_) => Worth::Unfit,
            },
            (Some(flaw), _) => Worth::Flawed(flaw),
            (None, None) => Worth::Answer,
        }
    }
}

/// Where a line is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// Its file.
    pub(super) path: &'a Path,
    /// Its number in that, from 1.
    pub(super) line: u64,
    /// Where it begins, counted through all files.
    pub(super) start: u64,
    /// Its bytes.
    pub(super) length: u64,
}

/// Who is shown the lines of files: an answer or a failure, or nothing where a line is neither.
type Visit<'v> = dyn FnMut(Place<'_>, Option<Answer<'_>>) -> Result<(), Error> + 'v;

/// Files of answers, opened.
pub(super) struct Files(Vec<Opened>);

struct Opened {
    path: PathBuf,
    file: File,
    start: u64,
    length: u64,
}

pub(super) fn unreadable(path: &Path) -> impl Fn(io::Error) -> input::Error {
    move |source| input::Error::Unreadable { path: path.to_owned(), source }
}

impl Files {
    pub(super) fn open(paths: &[PathBuf]) -> Result<Self, Error> {
        let mut files = Vec::new();
        let mut start = 0;
        for path in paths {
            let file = File::open(path).map_err(unreadable(path))?;
            // What is appended from now on is not looked at.
            let length = file.metadata().map_err(unreadable(path))?.len();
            files.push(Opened { path: path.clone(), file, start, length });
            start += length;
        }
        Ok(Self(files))
    }

    /// The bytes at a place.
    pub(super) fn bytes(&self, start: u64, length: u64) -> Result<Vec<u8>, Error> {
        let behind = self.0.partition_point(|file| file.start <= start);
        let Some(file) = behind.checked_sub(1).and_then(|at| self.0.get(at)) else {
            return Ok(Vec::new());
        };
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        let read = file.file.read_exact_at(&mut bytes, start - file.start);
        read.map_err(unreadable(&file.path))?;
        Ok(bytes)
    }

    /// Visits the answers, and what is none. Where lines were glued together, each whole one counts.
    pub(super) fn each(&self, dialect: Dialect, visit: &mut Visit<'_>) -> Result<(), Error> {
        let limits = Limits { records: 10_000, bytes: 4 << 20 };
        for Opened { path, file, start, length } in &self.0 {
            let mut from = file;
            from.rewind().map_err(unreadable(path))?;
            let mut reader = ChunkReader::new(from.take(*length), Cut::Lines, 0, 1, u64::MAX);
            while let Some(chunk) = reader.next_chunk(limits).map_err(unreadable(path))? {
                for record in &chunk.records {
                    let text = chunk.record(record);
                    let start = start + chunk.offset + record.start as u64;
                    let place = Place { path, line: record.line, start, length: text.len() as u64 };
                    match Answer::read(dialect, text) {
                        Some(answer) => visit(place, Some(answer))?,
                        None => each_of_glued((dialect, text), place, visit)?,
                    }
                }
                reader.recycle(chunk.bytes);
            }
        }
        Ok(())
    }
}

/// Visits the whole answers in a line that is none, and once what is left of it.
fn each_of_glued(
    (dialect, text): (Dialect, &[u8]),
    line: Place<'_>,
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    let (mut begin, mut is_damaged) = (0, false);
    loop {
        let mut values =
            serde_json::Deserializer::from_slice(&text[begin..]).into_iter::<&RawValue>();
        let mut read = begin;
        while let Some(Ok(value)) = values.next() {
            let bytes = value.get().as_bytes();
            read = begin + values.byte_offset();
            match Answer::read(dialect, bytes) {
                Some(answer) => {
                    let start = line.start + (read - bytes.len()) as u64;
                    visit(Place { start, length: bytes.len() as u64, ..line }, Some(answer))?;
                }
                None => is_damaged = true,
            }
        }
        if text[read..].trim_ascii().is_empty() {
            break;
        }
        is_damaged = true;
        match behind_torn(&text[read..]) {
            Some(next) => begin = read + next,
            None => break,
        }
    }
    if is_damaged { visit(line, None) } else { Ok(()) }
}

/// Where the next line may begin behind a torn one that is glued to it: at an object with a first key that is a word,
/// and not behind `:`, `,` or `[`. Such a thing stands nowhere in the beginning of one JSON value, so that nothing
/// within the torn line (a row that it shows, say) is taken for a line.
fn behind_torn(text: &[u8]) -> Option<usize> {
    let begins = |at: &usize| {
        let is_object = text[at + 2..].first().is_some_and(u8::is_ascii_alphabetic);
        let before = text[..*at].trim_ascii_end().last();
        is_object && before.is_some_and(|byte| !b":,[".contains(byte))
    };
    memchr::memmem::find_iter(text, b"{\"").filter(|at| *at > 0).find(begins)
}

/// Whether fast-agent wrote an output, as its first whole envelope tells.
///
/// # Errors
/// When it cannot be read.
pub fn is_of_fast_agent(output: &Path) -> Result<bool, Error> {
    let file = File::open(output).map_err(unreadable(output))?;
    let mut reader = ChunkReader::new(file, Cut::Lines, 0, 1, u64::MAX);
    let one = Limits { records: 1, bytes: u64::MAX };
    while let Some(chunk) = reader.next_chunk(one).map_err(unreadable(output))? {
        for record in &chunk.records {
            let line = chunk.record(record);
            if Answer::read(Dialect::Rows, line).is_some() {
                return Ok(fast_agent::is_theirs(line));
            }
        }
        reader.recycle(chunk.bytes);
    }
    Ok(false)
}

/// Whether two files have the same answers to the same requests in the same order, and nothing else.
///
/// # Errors
/// When they cannot be read.
pub fn say_the_same(dialect: Dialect, one: &Path, other: &Path) -> Result<bool, Error> {
    let lines = |path: &Path| {
        let file = File::open(path).map_err(unreadable(path))?;
        Ok::<_, Error>(BufReader::new(file).split(b'\n'))
    };
    let (mut ones, mut others) = (lines(one)?, lines(other)?);
    loop {
        let a = ones.next().transpose().map_err(unreadable(one))?;
        let b = others.next().transpose().map_err(unreadable(other))?;
        let (Some(a), Some(b)) = (&a, &b) else { return Ok(a.is_none() && b.is_none()) };
        match (Answer::read(dialect, a), Answer::read(dialect, b)) {
            (Some(a), Some(b)) if a.result.is_some() && a.result == b.result => {
                if Id::hash_of(a.id) != Id::hash_of(b.id) {
                    return Ok(false);
                }
            }
            _ => return Ok(false),
        }
    }
}

/// Whether the ids of all answers in an output are texts: no row's number is one, so each is what its row itself says.
///
/// # Errors
/// When it cannot be read.
pub fn have_own_ids(output: &Path, dialect: Dialect) -> Result<bool, Error> {
    let mut are_texts = true;
    Files::open(&[output.to_owned()])?.each(dialect, &mut |_, answer| {
        are_texts &= answer.is_none_or(|it| it.result.is_none() || it.id.starts_with('"'));
        Ok(())
    })?;
    Ok(are_texts)
}

/// Whether the id of every answer in an output is its row's number: it had no id field, or one that counts.
///
/// # Errors
/// When it cannot be read.
pub fn are_row_numbers(output: &Path, dialect: Dialect) -> Result<bool, Error> {
    let mut are_numbers = true;
    Files::open(&[output.to_owned()])?.each(dialect, &mut |_, answer| {
        are_numbers &= answer.is_none_or(|it| {
            it.result.is_none() || it.number.is_some() && it.id.parse().ok() == it.number
        });
        Ok(())
    })?;
    Ok(are_numbers)
}

/// What files of answers that fast-agent wrote tell of the run that wrote them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Answers that could be taken.
    pub answers: u64,
    /// Whether the ids of all of them are row numbers: it had no id field, or one that counts.
    pub are_by_number: bool,
    /// Whether all of them show their row.
    pub have_inputs: bool,
    /// The highest row number in any of the lines, failures too.
    pub highest: u64,
    /// The first that is no text, though the job has no schema: its file, and its line from 1.
    pub structured: Option<(PathBuf, u64)>,
}

/// Looks through files of answers that fast-agent wrote.
///
/// # Errors
/// When they cannot be read.
pub fn survey(earlier: &Earlier, job: &JobSpec) -> Result<Survey, Error> {
    let judge = Judge::new(earlier.writer, job);
    let mut found = Survey { are_by_number: true, have_inputs: true, ..Survey::default() };
    Files::open(&earlier.files)?.each(Dialect::Rows, &mut |place, answer| {
        let number = answer.as_ref().and_then(|it| it.number);
        found.highest = found.highest.max(number.unwrap_or_default());
        let Some(answer) = answer.filter(|it| judge.worth(it) == Worth::Answer) else {
            return Ok(());
        };
        found.answers += 1;
        found.are_by_number &= answer.is_by_number();
        found.have_inputs &= answer.input.is_some();
        let is_text = answer.result.is_some_and(|result| result.starts_with('"'));
        if !is_text && job.schema.is_none() && found.structured.is_none() {
            found.structured = Some((place.path.to_owned(), place.line));
        }
        Ok(())
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a text that is cut into two files, as they are visited.
    fn visited(dialect: Dialect, text: &str, cut: usize) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| dir.path().join(name));
        std::fs::write(&paths[0], &text[..cut]).unwrap();
        std::fs::write(&paths[1], &text[cut..]).unwrap();
        let files = Files::open(&paths).unwrap();
        let mut found = Vec::new();
        let mut visit = |place: Place<'_>, answer: Option<Answer<'_>>| {
            let Some(answer) = answer else {
                found.push(format!("line {} is none", place.line));
                return Ok(());
            };
            let bytes = files.bytes(place.start, place.length)?;
            let again = Answer::read(dialect, &bytes).unwrap();
            assert_eq!((again.id, again.result), (answer.id, answer.result));
            found.push(format!("{} {}", answer.id, answer.result.unwrap_or("failed")));
            Ok(())
        };
        files.each(dialect, &mut visit).unwrap();
        found
    }

    #[test]
    fn whole_lines_are_found_again_in_whichever_file_they_are() {
        let envelope = |id: &str| format!("{{\"id\": {id}, \"ok\": true, \"result\": \"x\"}}");
        let (one, two) = (envelope("1"), envelope("2"));
        let torn = &one[..20];
        let text = format!("{one}{two}\n\n  {two} \r\n{one}{torn}\n{torn}{two}\n[1]\n{one}");
        let expected = [
            "1 \"x\"",
            "2 \"x\"",
            "2 \"x\"",
            "1 \"x\"",
            "line 4 is none",
            "2 \"x\"",
            "line 5 is none",
            "line 6 is none",
            "1 \"x\"",
        ];
        assert_eq!(visited(Dialect::Rows, &text, 0), expected.map(|line| line.to_owned()));
        let cut = text.find("\n\n").unwrap() + 2;
        let mut expected = expected.map(str::to_owned);
        for (before, line) in
            expected[4..8].iter_mut().filter(|it| it.ends_with("none")).zip(["2", "3", "4"])
        {
            *before = format!("line {line} is none");
        }
        assert_eq!(visited(Dialect::Rows, &text, cut), expected);
    }

    #[test]
    fn lines_of_each_dialect_are_read() {
        let cases = [
            (
                Dialect::OpenAi,
                r#"{"custom_id":"a","response":{"status_code":200,"body":{"x":1}},"error":null}"#,
                r#""a" {"x":1}"#,
            ),
            (Dialect::OpenAi, r#"{"custom_id":"a","response":null,"error":{}}"#, r#""a" failed"#),
            (Dialect::Prompts, r#"{"id":7,"model":"m","output":"x","tokens":1}"#, r#"7 "x""#),
            (
                Dialect::Dria,
                r#"{"custom_id":"a","model":"m","error":"503: no nodes"}"#,
                r#""a" failed"#,
            ),
        ];
        for (dialect, line, expected) in cases {
            let found = visited(dialect, &format!("{line}\n{line}{line}\n{}", &line[..20]), 0);
            let all = [expected, expected, expected, "line 3 is none"];
            assert_eq!(found, all, "{line}");
        }
    }

    #[test]
    fn files_say_the_same_whatever_else_they_tell() {
        let dir = tempfile::tempdir().unwrap();
        let line = |id: &str, request: &str, body: &str| {
            format!(
                "{{\"id\":\"{request}\",\"custom_id\":\"{id}\",\"response\":{{\"status_code\":200,\"request_id\":\"{request}\",\"body\":{body}}},\"error\":null}}\n"
            )
        };
        let (a, b) = (line("a", "1", "{\"x\":1}"), line("b", "2", "{\"y\":1}"));
        let whole = format!("{a}{b}");
        let path = dir.path().join("whole");
        std::fs::write(&path, &whole).unwrap();
        for (text, expected) in [
            (line("a", "3", "{\"x\":1}") + &b, true),
            (whole.trim_end().to_owned(), true),
            (format!("{b}{a}"), false),
            (a.clone(), false),
            (format!("{whole}{b}"), false),
            (line("a", "1", "{\"x\":2}") + &b, false),
            (a.replace("200", "500") + &b, false),
        ] {
            let other = dir.path().join("other");
            std::fs::write(&other, &text).unwrap();
            assert_eq!(say_the_same(Dialect::OpenAi, &path, &other).unwrap(), expected, "{text}");
        }
    }
}
