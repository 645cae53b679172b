//! CSV as RFC 4180 has it, with a header, and with the separators and the small faults of spreadsheets: records
//! become JSON objects of strings.
//!
//! `csv-core` knows where fields and records end, both while the planner cuts a file and while a
//! worker reads a shard, so that the two cannot disagree.

use std::collections::HashSet;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

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
fn reader(separator: u8) -> Reader {
    let mut reader = ReaderBuilder::new().delimiter(separator).build();
    // A blank line before the first record is nothing.
    let _ = reader.read_record(b"\n", &mut [0], &mut [0]);
    reader
}

/// What stands between fields unless a file shows otherwise.
pub const COMMA: u8 = b',';

/// What may stand between fields.
pub const SEPARATORS: [u8; 4] = [COMMA, b';', b'\t', b'|'];

impl Splitter {
    /// Finds the records of a file with this separator.
    #[must_use]
    pub fn new(separator: u8) -> Self {
        Self {
            reader: reader(separator),
            fields: vec![0; 1 << 16].into_boxed_slice(),
            ends: vec![0; 256].into_boxed_slice(),
        }
    }

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
    separator: u8,
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
    /// Reads the record that names the columns. A column without a name, or with one that an earlier column has,
    /// is given one; what each is called then is told as well.
    ///
    /// # Errors
    /// When it is no UTF-8, or names nothing.
    pub fn parse(record: &[u8], separator: u8) -> Result<(Self, Vec<String>), Error> {
        let given = fields(record, separator)?;
        if given.iter().all(|name| name.trim().is_empty()) {
            return Err(Error::NoHeader);
        }
        let mut taken: HashSet<String> = given.iter().cloned().collect();
        let (mut names, mut seen, mut told) = (Vec::new(), HashSet::new(), Vec::new());
        for (index, name) in given.into_iter().enumerate() {
            let number = index + 1;
            let is_blank = name.trim().is_empty();
            if !is_blank && seen.insert(name.clone()) {
                names.push(name);
                continue;
            }
            let new = match is_blank {
                true => free_name(&format!("column_{number}"), None, &taken),
                false => free_name(&name, Some(2), &taken),
            };
            told.push(match is_blank {
                true => format!("column {number} has no name and is called {new:?}"),
                false => format!("column {number} is the second {name:?} and is called {new:?}"),
            });
            taken.insert(new.clone());
            names.push(new);
        }
        Ok((Self { names, separator }, told))
    }

    /// The header of columns that were read before.
    #[must_use]
    pub fn from_names(names: Vec<String>, separator: u8) -> Self {
        Self { names, separator }
    }

    /// What stands between fields.
    #[must_use]
    pub fn separator(&self) -> u8 {
        self.separator
    }

    /// The names of the columns, in their order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// A record as a JSON object of strings.
    ///
    /// # Errors
    /// When it is no UTF-8, or has fewer fields than there are columns, or more that are not empty.
    pub fn to_json(&self, record: &[u8]) -> Result<String, Error> {
        let mut values = fields(record, self.separator)?;
        if values.len() > self.names.len()
            && values[self.names.len()..].iter().all(String::is_empty)
        {
            // Spreadsheets end records with separators that stand for nothing.
            values.truncate(self.names.len());
        }
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

/// The name, or with a number behind it that makes it one which no other column has.
fn free_name(name: &str, first: Option<u32>, taken: &HashSet<String>) -> String {
    if first.is_none() && !taken.contains(name) {
        return name.to_owned();
    }
    let mut names = (first.unwrap_or(2)..).map(|number| format!("{name}_{number}"));
    names.find(|it| !taken.contains(it)).unwrap_or_else(|| name.to_owned())
}

/// The separator that spreadsheets name in a first line of its own, and how long that line is.
#[must_use]
pub fn named_separator(beginning: &[u8]) -> Option<(u8, usize)> {
    let rest = beginning.strip_prefix(b"sep=").or_else(|| beginning.strip_prefix(b"\"sep="))?;
    let (separator, rest) = rest.split_first().filter(|(it, _)| SEPARATORS.contains(it))?;
    let rest = rest.strip_prefix(b"\"").unwrap_or(rest);
    let end = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n"))?;
    Some((*separator, beginning.len() - end.len()))
}

/// How a file looks if this is its separator.
struct Shape {
    separator: u8,
    columns: usize,
    /// Records that were looked at, and those of them with as many fields as there are columns.
    records: usize,
    fitting: usize,
}

impl Shape {
    fn of(beginning: &[u8], is_all: bool, separator: u8) -> Self {
        /// Records that tell.
        const ENOUGH: usize = 50;
        let (mut splitter, mut rest) = (Splitter::new(separator), beginning);
        let mut counts = Vec::new();
        while counts.len() < ENOUGH && !rest.is_empty() {
            let end = match splitter.find_end(rest) {
                Some(end) => end,
                None if is_all && splitter.is_closed_at_end() => rest.len(),
                None => break,
            };
            let (record, behind) = rest.split_at(end);
            rest = behind;
            let fields = fields(record, separator).unwrap_or_default();
            let named = fields.iter().rposition(|field| !field.is_empty()).map_or(0, |at| at + 1);
            counts.extend((!fields.is_empty()).then_some((named, fields.len())));
        }
        let columns = counts.first().map_or(0, |(_, fields)| *fields);
        let records = counts.get(1..).unwrap_or_default();
        let fits = |(named, fields): &&(usize, usize)| *fields >= columns && *named <= columns;
        let fitting = records.iter().filter(fits).count();
        Self { separator, columns, records: records.len(), fitting }
    }

    /// Whether there are columns, and every record has them.
    fn is_exact(&self) -> bool {
        self.columns > 1 && self.fitting == self.records
    }

    /// Whether there are columns, and most records have them.
    fn is_likely(&self) -> bool {
        self.columns > 1 && (2 * self.fitting > self.records || self.records == 0)
    }
}

/// What stands between the fields of a file, by its beginning: `expected`, unless it makes no columns of that which
/// another does. `is_all` says that there is no more of the file.
#[must_use]
pub fn detect_separator(beginning: &[u8], is_all: bool, expected: u8) -> u8 {
    let shape = |separator| Shape::of(beginning, is_all, separator);
    let first = shape(expected);
    if first.is_exact() {
        return expected;
    }
    let others = || SEPARATORS.into_iter().filter(|it| *it != expected).map(shape);
    let exact = others().filter(Shape::is_exact).max_by_key(|it| it.columns);
    let likely = || others().filter(Shape::is_likely).max_by_key(|it| (it.fitting, it.columns));
    let best = exact.or_else(|| if first.is_likely() { None } else { likely() });
    best.map_or(expected, |shape| shape.separator)
}

/// Whether the beginning of a file looks like a table whatever its name: all records have the same columns, with tabs
/// between them. Prose has commas and semicolons as well.
#[must_use]
pub fn looks_like_tabs(beginning: &[u8], is_all: bool) -> bool {
    let shape = Shape::of(beginning, is_all, b'\t');
    shape.is_exact() && shape.records > 0
}

/// The fields of one whole record.
fn fields(record: &[u8], separator: u8) -> Result<Vec<String>, Error> {
    let text = std::str::from_utf8(record).map_err(|error| Error::NotUtf8(error.valid_up_to()))?;
    let mut reader = reader(separator);
    // No field is longer than the record, and every field but the first needs a separator.
    let mut values = vec![0; text.len() + 1];
    let mut ends = vec![0; memchr::memchr_iter(separator, text.as_bytes()).count() + 2];
    let (_, read, wrote, mut count) = reader.read_record(text.as_bytes(), &mut values, &mut ends);
    if read == text.len() {
        // Without a line end the record ends with the input.
        let (_, _, _, more) = reader.read_record(&[], &mut values[wrote..], &mut ends[count..]);
        count += more;
    }
    let mut start = 0;
    let mut fields = Vec::with_capacity(count);
    for &end in &ends[..count] {
        // Cutting UTF-8 at ASCII separators and quotes leaves UTF-8.
        fields.push(String::from_utf8_lossy(&values[start..end]).into_owned());
        start = end;
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(header: &str, record: &str) -> String {
        let (header, _) = Header::parse(header.as_bytes(), COMMA).unwrap();
        header.to_json(record.as_bytes()).unwrap()
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
        let (header, _) = Header::parse(b"a,b", COMMA).unwrap();
        assert_eq!(header.to_json(b"1"), Err(Error::Ragged { found: 1, expected: 2 }));
        assert_eq!(header.to_json(b"1,2,3\n"), Err(Error::Ragged { found: 3, expected: 2 }));
        assert_eq!(header.to_json(b"1,\xff"), Err(Error::NotUtf8(2)));
        assert_eq!(header.to_json(b"1,2,,\n").unwrap(), json("a,b", "1,2"));
        assert_eq!(Header::parse(b"", COMMA), Err(Error::NoHeader));
        assert_eq!(Header::parse(b",;,", COMMA).unwrap().0.names()[1], ";");
    }

    #[test]
    fn columns_without_own_name_get_one() {
        let named = |header: &str| {
            let (header, told) = Header::parse(header.as_bytes(), COMMA).unwrap();
            (header.names().join(" "), told.join("; "))
        };
        assert_eq!(
            named(",id,x,x"),
            (
                "column_1 id x x_2".to_owned(),
                "column 1 has no name and is called \"column_1\"; column 4 is the second \"x\" and is \
                 called \"x_2\""
                    .to_owned()
            )
        );
        assert_eq!(named("x,x_2,x,x, ,column_5").0, "x x_2 x_3 x_4 column_5_2 column_5");
        assert_eq!(named("a,b").1, "");
    }

    #[test]
    fn separator_is_detected_by_content() {
        let found = |text: &str| char::from(detect_separator(text.as_bytes(), true, COMMA));
        assert_eq!(found("id;text\na;first\nb;second"), ';');
        assert_eq!(found("id\ttext\na\tfirst, then\n"), '\t');
        assert_eq!(found("id|text\na|\"x|y\"\n"), '|');
        assert_eq!(found("id;price\na;1,5\nb;2,5\n"), ';');
        assert_eq!(found("Last, first;age\nBo;1\n"), ';');
        assert_eq!(found("id;text\na;first;\nb;second;\n"), ';');
        // One column, whatever its texts hold, and commas where both would do.
        for text in
            ["text\na;b\n", "text\na\tb\n", "a,b|c\n1,2|3\n", "text; more\nplain\n", "", "id"]
        {
            assert_eq!(found(text), ',', "{text:?}");
        }
        assert_eq!(found("id,text\n1,a\n2\n3,b\n4,c\n"), ',', "one bad record of four");
        assert_eq!(found("id;text\n1;a\n2\n3;b\n4;c\n"), ';', "one bad record of four");
        assert_eq!(named_separator(b"sep=;\r\nid;text\n"), Some((b';', 7)));
        assert_eq!(named_separator(b"sep=x\n"), None);
        assert_eq!(named_separator(b"sep=;id\n"), None);
        assert!(looks_like_tabs(b"a\tb\n1\t2\n", true) && !looks_like_tabs(b"a\tb\n", true));
    }

    #[test]
    fn ends_are_found_however_the_input_is_cut() {
        let input = b"a,\"x\r\ny\"\"z\"\r\nb,c\n\n\nd,\"e\"\n";
        for piece in 1..input.len() {
            let mut splitter = Splitter::new(COMMA);
            let (mut records, mut start, mut at) = (Vec::new(), 0, 0);
            while at < input.len() {
                let stop = (at + piece).min(input.len());
                match splitter.find_end(&input[at..stop]) {
                    Some(end) => {
                        at += end;
                        records.push(fields(&input[start..at], COMMA).unwrap());
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
        assert_eq!(Splitter::new(COMMA).find_end(record), Some(record.len()), "no quote opens");
    }

    #[test]
    fn an_open_quote_at_the_end_is_seen() {
        let mut splitter = Splitter::new(COMMA);
        assert_eq!(splitter.find_end(b"a,\"b\nc,d\n"), None);
        assert!(!splitter.is_closed_at_end());
        let mut splitter = Splitter::new(COMMA);
        assert_eq!(splitter.find_end(b"a,b"), None);
        assert!(splitter.is_closed_at_end());
    }
}
