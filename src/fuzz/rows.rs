//! Hostile bytes for inputs and templates.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::value::RawValue;

use crate::format::chunk::{Chunk, ChunkReader, Limits};
use crate::format::json::{self, Object};
use crate::format::{envelope, telemetry};
use crate::input::{Format, ShardRows, Source, Sources, identify, read_shard, shard_of};
use crate::job::{FailureKind, Id, Identity, OnMissingField, OutcomeKind};
use crate::prompt::Template;
use crate::store::{Outcome, Record};

/// How an input is cut: its first bytes say it.
struct Cutting {
    records: usize,
    block: u64,
    max_row_bytes: u64,
}

/// Three bytes that say how the rest is cut, and the rest.
fn cutting(bytes: &[u8]) -> Option<(Cutting, &[u8])> {
    let ([records, block, max], rest) = bytes.split_first_chunk().map(|(a, b)| (*a, b))?;
    let cutting = Cutting {
        records: 1 + usize::from(records % 8),
        block: 1 + u64::from(block % 64),
        max_row_bytes: if max == b'n' { u64::MAX } else { u64::from(max) },
    };
    Some((cutting, rest))
}

/// A row: its text, or the class of what is wrong with it and a sentence that says where.
type Row = Result<String, (&'static str, String)>;

fn texts(rows: &ShardRows<'_>) -> Vec<Row> {
    let row = |index| match rows.text(index) {
        Ok(text) => Ok(text.into_owned()),
        Err(failure) => Err((failure.kind.class(), failure.message)),
    };
    (0..rows.len()).map(row).collect()
}

fn chunks(source: &Source, cutting: &Cutting, limits: Limits, block: Option<u64>) -> Vec<Chunk> {
    let length = source.length - source.data_offset;
    let range = source.range(source.data_offset, length).expect("it can be opened");
    let (offset, line) = (source.data_offset, source.data_line);
    let mut reader = ChunkReader::new(range, source.cut(), offset, line, cutting.max_row_bytes);
    if let Some(block) = block {
        reader = reader.with_block(block);
    }
    std::iter::from_fn(|| reader.next_chunk(limits).expect("it can be read")).collect()
}

/// Plans an input and reads it back shard by shard. However it is cut and read, its shards tile it
/// and its rows are the same; gives them.
fn rows_of(source: &Source, cutting: &Cutting) -> Vec<Row> {
    let format = &source.format;
    let rows = |chunk| texts(&ShardRows::new(format, chunk));
    let whole = chunks(source, cutting, Limits::NONE, None);
    let whole: Vec<Row> = whole.into_iter().flat_map(rows).collect();
    let blocks = chunks(source, cutting, Limits::NONE, Some(cutting.block));
    let blocks: Vec<Row> = blocks.into_iter().flat_map(rows).collect();
    assert_eq!(blocks, whole, "read in blocks of {}", cutting.block);

    let limits = Limits { records: cutting.records, bytes: 64 };
    let (mut offset, mut first_row) = (source.data_offset, 1);
    let sources = Sources::from(source.clone());
    for chunk in chunks(source, cutting, limits, Some(cutting.block)) {
        assert_eq!(chunk.offset, offset, "shards tile the input");
        let entry = shard_of(&chunk, first_row);
        offset += entry.bytes;
        first_row += entry.rows;
        let again =
            read_shard(&sources, &entry, cutting.max_row_bytes).expect("it has not changed");
        let from = (entry.first_row - 1) as usize;
        let expected = whole.get(from..from + entry.rows as usize);
        assert_eq!(Some(&texts(&again)[..]), expected, "a worker reads what was planned");
    }
    assert_eq!(offset, source.length, "shards cover the input");
    assert_eq!(first_row, whole.len() as u64 + 1, "rows are counted once");
    whole
}

/// The input in a file, opened as any other.
fn source(bytes: &[u8], path: &Path) -> Option<Source> {
    fs::write(path, bytes).expect("the scratch directory can be written to");
    Source::open(path).ok()
}

/// CSV: shards and rows are the same however the file is cut; a row's values come back from a file
/// made of them.
pub(super) fn csv(bytes: &[u8], scratch: &Path) {
    let Some((cutting, bytes)) = cutting(bytes) else { return };
    let Some(source) = source(bytes, &scratch.join("input.csv")) else { return };
    let rows = rows_of(&source, &cutting);
    let Format::Csv(header) = &source.format else { return };
    let mut again = Vec::new();
    let spell = |values: &mut dyn Iterator<Item = &str>, out: &mut Vec<u8>| {
        for (index, value) in values.enumerate() {
            out.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
            out.extend_from_slice(value.replace('"', "\"\"").as_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(b"\r\n");
    };
    spell(&mut header.names().iter().map(String::as_str), &mut again);
    let objects: Vec<&String> = rows.iter().filter_map(|row| row.as_ref().ok()).collect();
    for object in &objects {
        let object = Object::parse(object).expect("a row is an object");
        let values: Vec<String> = header
            .names()
            .iter()
            .map(|name| serde_json::from_str(object.get(name).expect("every column is there")))
            .collect::<Result<_, _>>()
            .expect("values are strings");
        spell(&mut values.iter().map(String::as_str), &mut again);
    }
    if !header.names().is_empty() {
        let again = self::source(&again, &scratch.join("again.csv")).expect("it is sound CSV");
        let cutting = Cutting { max_row_bytes: u64::MAX, ..cutting };
        let again: Vec<_> = rows_of(&again, &cutting).into_iter().map(Result::ok).collect();
        assert_eq!(again, objects.into_iter().cloned().map(Some).collect::<Vec<_>>());
    }
}

/// JSON Lines: as for CSV; a row is the bytes of its line; it is an object where `serde_json` says
/// so, and goes through journal and output byte for byte.
pub(super) fn json_lines(bytes: &[u8], scratch: &Path) {
    let Some((cutting, bytes)) = cutting(bytes) else { return };
    let Some(source) = source(bytes, &scratch.join("input.jsonl")) else { return };
    let rows = rows_of(&source, &cutting);
    let text = &bytes[source.data_offset as usize..];
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), rows.len());
    for (line, row) in lines.into_iter().zip(&rows) {
        match row {
            Ok(text) => {
                assert_eq!(text.as_bytes(), line.trim_ascii());
                row_holds(text);
            }
            Err((class, _)) if *class == FailureKind::InvalidRow.class() => {
                assert!(line.len() as u64 > cutting.max_row_bytes);
            }
            Err((class, message)) => {
                assert_eq!(*class, FailureKind::InvalidUtf8.class(), "{message}");
                assert!(std::str::from_utf8(line).is_err());
            }
        }
    }
}

fn row_holds(text: &str) {
    // Whatever stands in an output that is taken over.
    let _ = envelope::read(text.as_bytes());
    let _ = telemetry::read_attempts(text.as_bytes());
    let fields = serde_json::from_str::<BTreeMap<String, &RawValue>>(text);
    let object = match (Object::parse(text), fields) {
        (Ok(object), Ok(fields)) => {
            for (name, value) in &fields {
                assert_eq!(object.get(name), Some(value.get()));
            }
            assert!(object.names().all(|name| fields.contains_key(name)));
            object
        }
        (Ok(_), Err(error)) => panic!("an object, which serde_json says it is not: {error}"),
        (Err(json::Error::TooDeep), _) => return,
        (Err(error), Ok(_)) => panic!("no object, which serde_json says it is: {error}"),
        (Err(error), Err(_)) => {
            assert!(error.to_string().len() < 200, "{error}");
            return;
        }
    };
    let mut pretty = String::new();
    json::pretty(text, &mut pretty);
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(text) {
        assert_eq!(serde_json::from_str::<serde_json::Value>(&pretty).ok(), Some(value));
    }
    let mut twice = String::new();
    json::pretty(&pretty, &mut twice);
    assert_eq!(twice, pretty);
    for name in object.names() {
        if let Ok(id) = identify(&object, Identity::Field(name), 1) {
            let mut attempt = Vec::new();
            let token = id.as_json();
            let head = telemetry::Head { id: token.as_bytes(), row: 1, mark: b"", epoch: 1 };
            telemetry::write_line(&mut attempt, head, b"{\"ok\":true}");
            assert!(serde_json::from_slice::<&RawValue>(&attempt).is_ok());
            journaled(&id, object.text());
        }
    }
}

/// A row's id and text come through journal and output as they are.
fn journaled(id: &Id, text: &str) {
    let (mut written, mut line, mut output) = (Vec::new(), Vec::new(), Vec::new());
    envelope::write(&mut written, id, 1, envelope::Verdict::Text(text));
    let outcome = Outcome {
        row: 1,
        kind: OutcomeKind::Ok,
        at_ms: 1,
        envelope: &written,
        attempts: b"[]",
        asked: None,
        adopted: false,
        named: b"",
        input: Some(text.as_bytes()),
    };
    let seed = crate::store::Identity::known(0).seed();
    Record::Outcome(outcome).encode(&mut line, seed);
    assert_eq!(Record::decode(&line, seed), Ok(Record::Outcome(outcome)));
    assert_eq!(outcome.id(), id.as_json().as_bytes());
    envelope::write_line(&mut output, &written, b"", outcome.input);
    let read = envelope::read(&output).expect("an output line is an envelope");
    assert_eq!(read.id.get(), id.as_json());
    assert_eq!(serde_json::from_str::<String>(read.result.get()).ok().as_deref(), Some(text));
    assert!(output.ends_with(&[b",\"input\":", text.as_bytes(), b"}\n"].concat()));
}

/// Templates: one pass over the template, none over what it puts in. The template stands before a
/// line of three dashes, the values, a line each, behind it.
pub(super) fn template(bytes: &[u8], _: &Path) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (text, values) = text.split_once("\n---\n").unwrap_or((text, ""));
    let template = Template::parse(text);
    let names = template.names();
    if text.contains("row_json") || text.contains(MARKS) || names.len() > 100 {
        let row = Object::parse(values);
        let _ = row.map(|row| template.render(&row, OnMissingField::Empty));
        return;
    }
    // Render with marks that stand nowhere else, put the values in their places, and compare.
    let mark = |index: usize| format!("{}{index}{}", MARKS[0], MARKS[1]);
    let value = |index: usize| values.lines().nth(index).unwrap_or("{{b}}");
    let marked = render(&template, &row(names, &mark));
    let mut expected = marked.clone();
    for (index, name) in names.iter().enumerate() {
        assert!(marked.contains(&mark(index)), "every field is put in");
        assert!(!name.contains("}}") && name.trim() == name);
        expected = expected.replace(&mark(index), value(index));
    }
    if !values.contains(MARKS) {
        assert_eq!(render(&template, &row(names, &value)), expected);
    }
    // What is left without the fields stands in the template, in its order.
    let mut rest = text;
    for literal in marked.split(MARKS).step_by(2) {
        let at = rest.find(literal).expect("literals are the template's");
        rest = &rest[at + literal.len()..];
    }
    if names.is_empty() {
        assert_eq!(marked, text);
    }
}

/// Characters for private use, around a number that stands for a field.
const MARKS: [char; 2] = ['\u{e000}', '\u{e001}'];

/// A row that has a value for each name.
fn row<T: Into<String>>(names: &[String], value: &dyn Fn(usize) -> T) -> String {
    let fields = names.iter().enumerate();
    let fields = fields.map(|(index, name)| (name.clone(), value(index).into().into()));
    serde_json::Value::Object(fields.collect()).to_string()
}

fn render(template: &Template, row: &str) -> String {
    let row = Object::parse(row).expect("it is an object");
    template.render(&row, OnMissingField::RowError).expect("it has every field")
}
