//! A shard's rows, and what is wrong with those that are not right.

use std::borrow::Cow;

use super::source::{Error, Format, Sources};
use crate::format::chunk::{Chunk, ChunkReader, Fault, Limits};
use crate::format::csv;
use crate::format::json::{self, Object};
use crate::job::{Failure, FailureKind, Id, IdHash, IdProblem, Identity};
use crate::store::ShardEntry;

/// The rows of one shard, in memory.
#[derive(Debug)]
pub struct ShardRows<'a> {
    format: &'a Format,
    chunk: Chunk,
}

/// The shard that a chunk of the input is, all of whose rows are still to be chosen.
#[must_use]
pub fn shard_of(chunk: &Chunk, first_row: u64) -> ShardEntry {
    ShardEntry {
        offset: chunk.offset,
        bytes: chunk.length,
        blake3: chunk.hash().to_hex().to_string(),
        first_row,
        first_line: chunk.first_line,
        rows: chunk.records.len() as u64,
        wanted: 0,
        duplicates: None,
        variant: 0,
        twins: None,
        source: 0,
        rows_before: 0,
    }
}

/// Reads a shard of the input and makes sure that it is what was planned.
///
/// # Errors
/// When it cannot be read, or its bytes have changed.
pub fn read_shard<'a>(
    sources: &'a Sources,
    entry: &ShardEntry,
    max_row_bytes: u64,
) -> Result<ShardRows<'a>, Error> {
    /// Most shards are smaller, and take at once what they need instead of growing to it.
    const ROOM: u64 = 4 << 20;
    let source = sources.of(entry);
    let unreadable = |error| Error::Unreadable { path: source.path.clone(), source: error };
    let range = source.range(entry.offset, entry.bytes).map_err(unreadable)?;
    let mut reader =
        ChunkReader::new(range, source.cut(), entry.offset, entry.first_line, max_row_bytes);
    let room = usize::try_from(entry.bytes.min(ROOM)).unwrap_or_default();
    reader.recycle(Vec::with_capacity(room));
    let chunk = reader.next_chunk(Limits::NONE).map_err(unreadable)?;
    let changed = || {
        let first_row = entry.own_row(entry.first_row);
        Error::Changed { path: source.path.clone(), first_row }
    };
    let chunk = chunk.ok_or_else(changed)?;
    if chunk.length != entry.bytes || chunk.hash().to_hex().as_str() != entry.blake3 {
        return Err(changed());
    }
    Ok(ShardRows { format: &source.format, chunk })
}

impl<'a> ShardRows<'a> {
    /// The rows of a chunk of an input.
    #[must_use]
    pub fn new(format: &'a Format, chunk: Chunk) -> Self {
        Self { format, chunk }
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunk.records.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunk.records.is_empty()
    }

    /// The line of the input in which a row begins, from 1.
    #[must_use]
    pub fn line(&self, index: usize) -> u64 {
        self.chunk.records[index].line
    }

    /// The row that begins in a line of the input, if any does.
    #[must_use]
    pub fn at_line(&self, line: u64) -> Option<usize> {
        self.chunk.records.binary_search_by_key(&line, |record| record.line).ok()
    }

    /// The chunk that the rows were made of.
    #[must_use]
    pub fn into_chunk(self) -> Chunk {
        self.chunk
    }

    /// The text of a row: a JSON value, or what was meant to be one.
    ///
    /// # Errors
    /// When the row's bytes are no text, too many, or no CSV record of the header's width.
    pub fn text(&self, index: usize) -> Result<Cow<'_, str>, Failure> {
        let record = &self.chunk.records[index];
        let line = record.line;
        let invalid = |kind, what: String| Failure::new(kind, format!("line {line}: {what}"));
        match record.fault {
            Some(Fault::TooLarge(bytes)) => {
                let what = format!("the row has {bytes} bytes, more than --max-row-bytes allows");
                return Err(invalid(FailureKind::InvalidRow, what));
            }
            Some(Fault::Unclosed) => {
                let what = "a quoted field that begins in this row is never closed, so all behind \
                            it was read as part of it";
                return Err(invalid(FailureKind::InvalidRow, what.to_owned()));
            }
            None => {}
        }
        let bytes = self.chunk.record(record);
        match self.format {
            Format::JsonLines => std::str::from_utf8(bytes).map(readable).map_err(|error| {
                let what = format!("byte {} of the row is not UTF-8", error.valid_up_to() + 1);
                invalid(FailureKind::InvalidUtf8, what)
            }),
            Format::Csv(header) => {
                // A blank field at either end is a field: only line ends may be taken off.
                let raw = &self.chunk.bytes[record.start..record.end];
                header.to_json(raw).map(Cow::Owned).map_err(|error| {
                    let kind = match error {
                        csv::Error::NotUtf8(_) => FailureKind::InvalidUtf8,
                        _ => FailureKind::InvalidRow,
                    };
                    invalid(kind, error.to_string())
                })
            }
        }
    }

    /// A row's text as an object.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn object<'t>(&self, index: usize, text: &'t str) -> Result<Object<'t>, Failure> {
        Object::parse(text).map_err(|error| {
            let kind = match error {
                json::Error::Syntax { .. } => FailureKind::InvalidJson,
                json::Error::NotAnObject(_) | json::Error::TooDeep => FailureKind::InvalidRow,
            };
            Failure::new(kind, format!("line {}: {error}", self.chunk.records[index].line))
        })
    }
}

/// A row in which numbers that are none are null. A request is sent byte for byte or not at all, so that it keeps them.
fn readable(text: &str) -> Cow<'_, str> {
    let is_request = |text: &str| text.contains("\"body\"") && text.contains("\"custom_id\"");
    match json::without_nan(text).filter(|_| !is_request(text)) {
        Some(text) => Cow::Owned(text),
        None => Cow::Borrowed(text),
    }
}

/// A row's id.
///
/// # Errors
/// When the id field is not there or holds no id.
pub fn identify(row: &Object<'_>, identity: Identity<'_>, number: u64) -> Result<Id, Failure> {
    match identity {
        Identity::RowNumber => Ok(Id::from_row_number(number)),
        Identity::Hash => Ok(Id::from_content(row.text())),
        Identity::FieldOrNumber(field) if !has_value(row, field) => Ok(Id::from_row_number(number)),
        Identity::Field(field) | Identity::FieldOrNumber(field) => read_id(row, field, Id::parse),
    }
}

/// The hash of a row's id, where nothing else of it is wanted; nothing where it is the row's number.
///
/// # Errors
/// As [`identify`].
pub fn id_hash(
    row: &Object<'_>,
    identity: Identity<'_>,
    number: u64,
) -> Result<Option<IdHash>, Failure> {
    match identity {
        Identity::RowNumber => Ok(None),
        Identity::Hash => Ok(Some(Id::from_content(row.text()).hash())),
        Identity::FieldOrNumber(field) if !has_value(row, field) => {
            Ok(Some(Id::from_row_number(number).hash()))
        }
        Identity::Field(field) | Identity::FieldOrNumber(field) => {
            read_id(row, field, Id::hash_of).map(Some)
        }
    }
}

fn has_value(row: &Object<'_>, field: &str) -> bool {
    row.get(field).is_some_and(|token| token != "null")
}

fn read_id<T>(
    row: &Object<'_>,
    field: &str,
    read: impl Fn(&str) -> Result<T, IdProblem>,
) -> Result<T, Failure> {
    let Some(token) = row.get(field) else {
        let message = format!("the row has no field {field:?} to be its id");
        return Err(Failure::new(FailureKind::MissingIdField, message));
    };
    read(token).map_err(|problem| {
        let kind = match problem {
            IdProblem::Null | IdProblem::Empty => FailureKind::MissingIdField,
            IdProblem::WrongType => FailureKind::InvalidRow,
        };
        Failure::new(kind, format!("the id field {field:?} {problem}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::chunk::Cut;
    use crate::format::csv::Header;

    fn failures(format: &Format, cut: Cut, bytes: &[u8], max: u64) -> Vec<String> {
        let mut reader = ChunkReader::new(bytes, cut, 0, 1, max);
        let chunk = reader.next_chunk(Limits::NONE).unwrap().unwrap();
        let rows = ShardRows::new(format, chunk);
        (0..rows.len())
            .map(|index| {
                let result = rows.text(index).and_then(|text| {
                    rows.object(index, &text)?;
                    Ok(text.into_owned())
                });
                match result {
                    Ok(text) => text,
                    Err(failure) => format!("{}: {}", failure.kind.class(), failure.message),
                }
            })
            .collect()
    }

    #[test]
    fn places_in_a_row_are_counted_from_its_own_beginning() {
        let format = Format::Csv(Header::parse(b"a", csv::COMMA).unwrap().0);
        assert_eq!(
            failures(&format, Cut::csv(csv::COMMA), b"\n\r\no\xff\n", 9),
            ["invalid_utf8: line 3: not UTF-8: the byte at 1 begins no character"]
        );
    }

    #[test]
    fn each_kind_of_bad_line_is_told_with_its_place() {
        let input = b"{\"a\":1}\n\n{\"a\":\n[1]\n{\"a\":\"\xff\"}\n{\"b\":\"0123456789012345678901\"}\n\"x\"";
        assert_eq!(
            failures(&Format::JsonLines, Cut::Lines, input, 20),
            [
                "{\"a\":1}",
                "invalid_json: line 3: EOF while parsing a value at column 5",
                "invalid_row: line 4: expected a JSON object, got a list",
                "invalid_utf8: line 5: byte 7 of the row is not UTF-8",
                "invalid_row: line 6: the row has 31 bytes, more than --max-row-bytes allows",
                "invalid_row: line 7: expected a JSON object, got a string",
            ]
        );
    }

    #[test]
    fn numbers_that_are_none_are_null_in_rows_and_told_in_requests() {
        let input = b"{\"a\":NaN,\"b\":[-Infinity,Infinity],\"NaN\":\"NaN, \\\"Infinity\"}\n\
            {\"custom_id\":\"a\",\"body\":{\"temperature\":NaN}}\n{\"a\":NaNa}";
        assert_eq!(
            failures(&Format::JsonLines, Cut::Lines, input, 99),
            [
                "{\"a\":null,\"b\":[null,null],\"NaN\":\"NaN, \\\"Infinity\"}",
                "invalid_json: line 2: NaN is no JSON at column 40",
                "invalid_json: line 3: expected `,` or `}` at column 10",
            ]
        );
    }

    #[test]
    fn each_kind_of_bad_record_is_told_with_its_place() {
        let format = Format::Csv(Header::parse(b"a,b", csv::COMMA).unwrap().0);
        assert_eq!(
            failures(
                &format,
                Cut::csv(csv::COMMA),
                b"1,\"x\ny\"\n1\n , \n1,2,3\n\xff,1\n\"1,2\n3,4\n",
                99
            ),
            [
                "{\"a\":\"1\",\"b\":\"x\\ny\"}",
                "invalid_row: line 3: 1 fields where the header has 2",
                "{\"a\":\" \",\"b\":\" \"}",
                "invalid_row: line 5: 3 fields where the header has 2",
                "invalid_utf8: line 6: not UTF-8: the byte at 0 begins no character",
                "invalid_row: line 7: a quoted field that begins in this row is never closed, so \
                 all behind it was read as part of it",
            ]
        );
    }

    #[test]
    fn ids_are_strings_or_integers() {
        let row = Object::parse(r#"{"s":"x","n":null,"e":"","f":1.5}"#).unwrap();
        let identity =
            |field: Option<&'static str>| field.map_or(Identity::RowNumber, Identity::Field);
        let id = |field| match identify(&row, identity(field), 7) {
            Ok(id) => id.to_string(),
            Err(failure) => format!("{}: {}", failure.kind.name(), failure.message),
        };
        assert_eq!(id(Some("s")), "\"x\"");
        assert_eq!(id(None), "7");
        let by_text = identify(&row, Identity::Hash, 7).unwrap();
        assert_eq!(by_text, identify(&row, Identity::Hash, 8).unwrap());
        assert_eq!(id_hash(&row, Identity::Hash, 7).unwrap(), Some(by_text.hash()));
        for (field, expected) in [("s", "\"x\""), ("n", "7"), ("q", "7")] {
            let identity = Identity::FieldOrNumber(field);
            let id = identify(&row, identity, 7).unwrap();
            assert_eq!(id.as_json(), expected);
            assert_eq!(id_hash(&row, identity, 7).unwrap(), Some(id.hash()));
        }
        assert_eq!(by_text.as_json().len(), 34, "{by_text}");
        assert_eq!(id(Some("q")), "MissingIdField: the row has no field \"q\" to be its id");
        assert_eq!(id(Some("n")), "MissingIdField: the id field \"n\" is null");
        assert_eq!(id(Some("e")), "MissingIdField: the id field \"e\" is empty");
        assert_eq!(
            id(Some("f")),
            "InvalidRow: the id field \"f\" is neither a string nor an integer"
        );
    }
}
