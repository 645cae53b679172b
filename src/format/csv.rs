//! CSV as RFC 4180 has it, with a header: records become JSON objects of strings.
//!
//! `csv-core` knows where fields and records end, both while the planner cuts a file and while a
//! worker reads a shard, so that the two cannot disagree.

use csv_core::{ReadRecordResult, Reader};

use crate::format::json;

/// Finds where records end in bytes that come in pieces.
#[derive(Debug)]
pub struct Splitter {
    reader: Reader,
    // Where csv-core puts fields that nobody reads here.
    fields: Box<[u8]>,
    ends: Box<[usize]>,
}

/// A reader that takes a byte order mark for data: it has read something already. Where the mark
/// stands for anything, at the beginning of a file, it was passed over before, and whoever reads a
/// part of the file must not find another record there than who read all of it.
fn reader() -> Reader {
    let mut reader = Reader::new();
    // A blank line before the first record is nothing.
    let _ = reader.read_record(b"\n", &mut [0], &mut [0]);
    reader
}

impl Default for Splitter {
    fn default() -> Self {
        Self {
            reader: reader(),
            fields: vec![0; 1 << 16].into_boxed_slice(),
            ends: vec![0; 256].into_boxed_slice(),
        }
    }
}

impl Splitter {
    /// The index behind the record that began in earlier pieces or begins here, if it ends here.
    /// Otherwise all of `piece` is part of it.
    pub fn find_end(&mut self, piece: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < piece.len() {
            let (result, read, ..) =
                self.reader.read_record(&piece[at..], &mut self.fields, &mut self.ends);
            at += read;
            if result == ReadRecordResult::Record {
                return Some(at);
            }
        }
        None
    }

    /// Whether the record at the end of the input, which has no line end, is whole: a quoted field
    /// that is still open has swallowed what came behind it.
    pub fn is_closed_at_end(&mut self) -> bool {
        self.find_end(b"\n").is_some()
    }
}

/// The names of the columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    names: Vec<String>,
}

/// Why a header or a record cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are no UTF-8.
    #[error("not UTF-8: the byte at {0} begins no character")]
    NotUtf8(usize),
    /// The file has no header.
    #[error("the header row is missing")]
    NoHeader,
    /// A column has no name.
    #[error("column {0} has no name")]
    BlankName(usize),
    /// Two columns have one name.
    #[error("two columns are named {0:?}")]
    DuplicateName(String),
    /// A record has more or fewer fields than the header has names.
    #[error("{found} fields where the header has {expected}")]
    Ragged {
        /// Fields of the record.
        found: usize,
        /// Names of the header.
        expected: usize,
    },
    /// A quoted field is never closed.
    #[error("a quoted field is never closed")]
    Unclosed,
}

impl Header {
    /// Reads the record that names the columns.
    ///
    /// # Errors
    /// When it is no UTF-8, or a name is blank or there twice.
    pub fn parse(record: &[u8]) -> Result<Self, Error> {
        let names: Vec<String> = fields(record)?;
        if names.is_empty() {
            return Err(Error::NoHeader);
        }
        for (index, name) in names.iter().enumerate() {
            if name.trim().is_empty() {
                return Err(Error::BlankName(index + 1));
            }
            if names[..index].contains(name) {
                return Err(Error::DuplicateName(name.clone()));
            }
        }
        Ok(Self { names })
    }

    /// The header of columns that were read before.
    #[must_use]
    pub fn from_names(names: Vec<String>) -> Self {
        Self { names }
    }

    /// The names of the columns, in their order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// A record as a JSON object of strings.
    ///
    /// # Errors
    /// When it is no UTF-8, or has more or fewer fields than there are columns.
    pub fn to_json(&self, record: &[u8]) -> Result<String, Error> {
        let values = fields(record)?;
        if values.len() != self.names.len() {
            return Err(Error::Ragged { found: values.len(), expected: self.names.len() });
        }
        let mut out = Vec::with_capacity(record.len() + 16 * values.len());
        for (index, (name, value)) in self.names.iter().zip(&values).enumerate() {
            out.push(if index == 0 { b'{' } else { b',' });
            json::write_string(&mut out, name);
            out.push(b':');
            json::write_string(&mut out, value);
        }
        out.push(b'}');
        String::from_utf8(out).map_err(|error| Error::NotUtf8(error.utf8_error().valid_up_to()))
    }
}

/// The fields of one whole record.
fn fields(record: &[u8]) -> Result<Vec<String>, Error> {
    let text = std::str::from_utf8(record).map_err(|error| Error::NotUtf8(error.valid_up_to()))?;
    let mut reader = reader();
    // No field is longer than the record, and every field but the first needs a comma.
    let mut values = vec![0; text.len() + 1];
    let mut ends = vec![0; memchr::memchr_iter(b',', text.as_bytes()).count() + 2];
    let (_, read, wrote, mut count) = reader.read_record(text.as_bytes(), &mut values, &mut ends);
    if read == text.len() {
        // Without a line end the record ends with the input.
        let (_, _, _, more) = reader.read_record(&[], &mut values[wrote..], &mut ends[count..]);
        count += more;
    }
    let mut start = 0;
    let mut fields = Vec::with_capacity(count);
    for &end in &ends[..count] {
        // Cutting UTF-8 at ASCII commas and quotes leaves UTF-8.
        fields.push(String::from_utf8_lossy(&values[start..end]).into_owned());
        start = end;
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(header: &str, record: &str) -> String {
        Header::parse(header.as_bytes()).unwrap().to_json(record.as_bytes()).unwrap()
    }

    #[test]
    fn records_become_objects_of_strings() {
        assert_eq!(json("id,text", "1,a\r\n"), r#"{"id":"1","text":"a"}"#);
        assert_eq!(json("id,text", "1,"), r#"{"id":"1","text":""}"#);
        assert_eq!(
            json("id,text\r\n", "007,\"a, \"\"b\"\"\nc\"\n"),
            r#"{"id":"007","text":"a, \"b\"\nc"}"#
        );
        assert_eq!(json("é", "ü"), r#"{"é":"ü"}"#);
        assert_eq!(json("a", "\"\""), r#"{"a":""}"#);
    }

    #[test]
    fn ragged_records_and_bad_headers_are_told() {
        let header = Header::parse(b"a,b").unwrap();
        assert_eq!(header.to_json(b"1"), Err(Error::Ragged { found: 1, expected: 2 }));
        assert_eq!(header.to_json(b"1,2,3\n"), Err(Error::Ragged { found: 3, expected: 2 }));
        assert_eq!(header.to_json(b"1,\xff"), Err(Error::NotUtf8(2)));
        assert_eq!(Header::parse(b"a,,b"), Err(Error::BlankName(2)));
        assert_eq!(Header::parse(b"a,b,a"), Err(Error::DuplicateName("a".into())));
        assert_eq!(Header::parse(b""), Err(Error::NoHeader));
    }

    #[test]
    fn ends_are_found_however_the_input_is_cut() {
        let input = b"a,\"x\r\ny\"\"z\"\r\nb,c\n\n\nd,\"e\"\n";
        for piece in 1..input.len() {
            let mut splitter = Splitter::default();
            let (mut records, mut start, mut at) = (Vec::new(), 0, 0);
            while at < input.len() {
                let stop = (at + piece).min(input.len());
                match splitter.find_end(&input[at..stop]) {
                    Some(end) => {
                        at += end;
                        records.push(fields(&input[start..at]).unwrap());
                        start = at;
                    }
                    None => at = stop,
                }
            }
            let expected = [["a", "x\r\ny\"z"], ["b", "c"], ["d", "e"]];
            assert_eq!(records, expected, "pieces of {piece}");
        }
    }

    #[test]
    fn a_byte_order_mark_in_the_middle_is_data_for_everyone() {
        assert_eq!(json("a,b", "\u{feff}1,2"), "{\"a\":\"\u{feff}1\",\"b\":\"2\"}");
        let record = "\u{feff}\"x\n".as_bytes();
        assert_eq!(Splitter::default().find_end(record), Some(record.len()), "no quote opens");
    }

    #[test]
    fn an_open_quote_at_the_end_is_seen() {
        let mut splitter = Splitter::default();
        assert_eq!(splitter.find_end(b"a,\"b\nc,d\n"), None);
        assert!(!splitter.is_closed_at_end());
        let mut splitter = Splitter::default();
        assert_eq!(splitter.find_end(b"a,b"), None);
        assert!(splitter.is_closed_at_end());
    }
}
