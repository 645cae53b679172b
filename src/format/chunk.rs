//! Cuts a stream of bytes into records, some thousand at a time, in bounded memory.
//!
//! The planner cuts the whole input this way, each chunk becoming a shard; a worker cuts its shard
//! into the same records again.

use std::io::{self, Read};

use crate::format::csv;

/// How the end of a record is told.
#[derive(Debug)]
pub enum Cut {
    /// A record a line (JSON Lines); blank lines are none.
    Lines,
    /// CSV: line ends in quotes are data.
    Csv(Box<csv::Splitter>),
}

/// When a chunk is full: whichever comes first.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Records.
    pub records: usize,
    /// Bytes.
    pub bytes: u64,
}

impl Limits {
    /// No chunk is ever full: all that is left is one.
    pub const NONE: Self = Self { records: usize::MAX, bytes: u64::MAX };
}

/// A run of whole records.
#[derive(Debug)]
pub struct Chunk {
    /// Where it begins in the input, in bytes.
    pub offset: u64,
    /// How many bytes of the input it covers.
    pub length: u64,
    /// The line it begins in, from 1.
    pub first_line: u64,
    /// Its records, in their order.
    pub records: Vec<Record>,
    /// Its bytes, less those of records that are too large and of long blanks between records.
    pub bytes: Vec<u8>,
    // Of all bytes; only there when some were left out.
    hash: Option<blake3::Hash>,
}

/// A record's place in its chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Where it begins in the chunk's bytes, behind blanks that are none of its own.
    pub start: usize,
    /// Where it ends in them.
    pub end: usize,
    /// The line of the input in which it begins, from 1.
    pub line: u64,
    /// What is wrong with its extent, if anything.
    pub fault: Option<Fault>,
}

/// Why a record's bytes cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It has this many bytes, more than allowed; they were not kept.
    TooLarge(u64),
    /// A quoted CSV field is never closed.
    Unclosed,
}

impl Chunk {
    /// The blake3 hash of the bytes it covers.
    #[must_use]
    pub fn hash(&self) -> blake3::Hash {
        self.hash.unwrap_or_else(|| blake3::hash(&self.bytes))
    }

    /// The bytes of one of its records, without the white space around them.
    #[must_use]
    pub fn record(&self, record: &Record) -> &[u8] {
        self.bytes[record.start..record.end].trim_ascii()
    }
}

/// Whether a record, which may have its line end or a part of it, has more bytes than allowed
/// without. It does not count what stands before a record: how much of that is held depends on how
/// the input is read, and what a record is must not.
fn is_larger(text: &[u8], max: u64) -> bool {
    if text.len() as u64 <= max {
        return false;
    }
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text).len() as u64 > max
}

fn newlines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// Reads a stream chunk by chunk.
#[derive(Debug)]
pub struct ChunkReader<R> {
    source: R,
    cut: Cut,
    max_record: u64,
    offset: u64,
    line: u64,
    // Bytes read beyond the last chunk.
    carry: Vec<u8>,
    spare: Vec<u8>,
    at_end: bool,
    block: u64,
    // Whether whole records are handed on before more is waited for.
    is_live: bool,
}

/// How much is read at a time.
const BLOCK: u64 = 1 << 18;
/// How much is read at a time of what comes little by little.
const LIVE_BLOCK: u64 = 1 << 14;

impl<R: Read> ChunkReader<R> {
    /// Reads `source`, whose first byte stands at `offset` in line `line` of the input. Records of
    /// more than `max_record` bytes are passed over.
    pub fn new(source: R, cut: Cut, offset: u64, line: u64, max_record: u64) -> Self {
        Self {
            source,
            cut,
            max_record,
            offset,
            line,
            carry: Vec::new(),
            spare: Vec::new(),
            at_end: false,
            block: BLOCK,
            is_live: false,
        }
    }

    /// Reads the lines of a source that somebody is still writing: a chunk has those that are there, and
    /// none of them waits for more to come.
    pub fn live(source: R, max_record: u64) -> Self {
        let reader = Self::new(source, Cut::Lines, 0, 1, max_record);
        Self { is_live: true, block: LIVE_BLOCK, ..reader }
    }

    /// Reads so many bytes at a time, so that few bytes can be many reads.
    #[cfg(any(test, fuzzing))]
    #[must_use]
    pub(crate) fn with_block(self, block: u64) -> Self {
        Self { block: block.max(1), ..self }
    }

    /// What is read.
    pub fn source(&self) -> &R {
        &self.source
    }

    /// The line in which what comes behind the last chunk begins.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Takes back a chunk's memory for the next.
    pub fn recycle(&mut self, bytes: Vec<u8>) {
        if bytes.capacity() > self.spare.capacity() {
            self.spare = bytes;
        }
    }

    /// The next chunk; nothing at the end of the input. White space behind the last record is a
    /// chunk without records.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn next_chunk(&mut self, limits: Limits) -> io::Result<Option<Chunk>> {
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.clear();
        bytes.append(&mut self.carry);
        let mut state = Cutting {
            keeps_blanks: matches!(self.cut, Cut::Csv(_)),
            bytes,
            line: self.line,
            ..Cutting::default()
        };
        loop {
            if self.cut_records(&mut state, limits) {
                break;
            }
            if self.is_live && !state.records.is_empty() {
                // The beginning of the next is looked at again.
                state.scanned = state.start;
                break;
            }
            if state.bytes.len() as u64 - state.start as u64 > self.max_record {
                state.shed(self.max_record);
            }
            if self.at_end {
                self.cut_last(&mut state);
                break;
            }
            self.at_end = match self.is_live {
                true => !read_some(&mut self.source, self.block, &mut state.bytes)?,
                false => !read_block(&mut self.source, self.block, &mut state.bytes)?,
            };
        }
        self.carry.extend_from_slice(&state.bytes[state.scanned..]);
        state.bytes.truncate(state.scanned);
        let first_line = std::mem::replace(&mut self.line, state.line);
        let chunk = state.finish(self.offset, first_line);
        self.offset += chunk.length;
        Ok(Some(chunk).filter(|chunk| chunk.length > 0))
    }

    /// Cuts the whole records of the buffer; true when the chunk is full.
    fn cut_records(&mut self, state: &mut Cutting, limits: Limits) -> bool {
        while let Some(end) = self.cut.find_end(&state.bytes[state.scanned..]) {
            state.scanned += end;
            state.end_record(None, self.max_record);
            let length = state.scanned as u64 + state.dropped;
            if state.records.len() >= limits.records || length >= limits.bytes {
                return true;
            }
        }
        state.scanned = state.bytes.len();
        false
    }

    /// Takes the record at the end of the input, which may lack its line end.
    fn cut_last(&mut self, state: &mut Cutting) {
        if state.start < state.bytes.len() || state.skipping > 0 {
            let fault = if self.cut.is_closed_at_end() { None } else { Some(Fault::Unclosed) };
            state.end_record(fault, self.max_record);
        }
    }
}

impl Cut {
    /// Cuts CSV with this separator.
    #[must_use]
    pub fn csv(separator: u8) -> Self {
        Self::Csv(Box::new(csv::Splitter::new(separator)))
    }

    fn find_end(&mut self, piece: &[u8]) -> Option<usize> {
        match self {
            Self::Lines => memchr::memchr(b'\n', piece).map(|at| at + 1),
            Self::Csv(splitter) => splitter.find_end(piece),
        }
    }

    fn is_closed_at_end(&mut self) -> bool {
        match self {
            Self::Lines => true,
            Self::Csv(splitter) => splitter.is_closed_at_end(),
        }
    }
}

/// A chunk while it is being cut.
#[derive(Default)]
struct Cutting {
    // Whether a record of blanks is one.
    keeps_blanks: bool,
    bytes: Vec<u8>,
    records: Vec<Record>,
    // Where the record at hand begins, and how far the bytes have been looked at.
    start: usize,
    scanned: usize,
    // The line in which the bytes at `start` stand.
    line: u64,
    // Bytes of the record at hand that were not kept; all bytes that were not.
    skipping: u64,
    dropped: u64,
    // The line in which the record begins whose bytes are not kept.
    skipping_from: Option<u64>,
    // Hashes all bytes from the moment some are not kept; how far it has come in those kept.
    hasher: Option<Box<blake3::Hasher>>,
    hashed: usize,
}

impl Cutting {
    fn end_record(&mut self, fault: Option<Fault>, max_record: u64) {
        let blank = self.blanks();
        let text = &self.bytes[self.start + blank..self.scanned];
        if self.skipping > 0 || is_larger(text, max_record) {
            self.forget(blank);
            self.skip();
            let line = self.skipping_from.take().unwrap_or(self.line);
            let fault = Some(Fault::TooLarge(std::mem::take(&mut self.skipping)));
            self.records.push(Record { start: self.start, end: self.start, line, fault });
        } else {
            let (start, end) = (self.start + blank, self.scanned);
            let line = self.line + newlines(&self.bytes[self.start..start]);
            if start < end {
                self.records.push(Record { start, end, line, fault });
            }
            let text = &self.bytes[start..end];
            // A line has one line end, and it stands last.
            self.line = line
                + match self.keeps_blanks {
                    true => newlines(text),
                    false => u64::from(text.last() == Some(&b'\n')),
                };
        }
        self.start = self.scanned;
    }

    /// How many of the bytes of the record at hand stand before it and are nothing. In CSV blanks
    /// are data; only line ends are nothing.
    fn blanks(&self) -> usize {
        if self.skipping > 0 {
            return 0;
        }
        let is_nothing = |byte: &&u8| match self.keeps_blanks {
            true => matches!(byte, b'\r' | b'\n'),
            false => byte.is_ascii_whitespace(),
        };
        self.bytes[self.start..self.scanned].iter().take_while(is_nothing).count()
    }

    /// Lets go of what is held of the record at hand once that is more than a record may have:
    /// what stands before it, and of itself all if it is too large in any case.
    fn shed(&mut self, max_record: u64) {
        self.forget(self.blanks());
        if self.skipping > 0 || is_larger(&self.bytes[self.start..self.scanned], max_record) {
            self.skip();
        }
    }

    /// Does without the bytes of the record at hand, as far as they are known to be its own.
    fn skip(&mut self) {
        self.skipping_from.get_or_insert(self.line);
        let count = self.scanned - self.start;
        self.forget(count);
        self.skipping += count as u64;
    }

    /// Hashes and forgets the first bytes of the record at hand.
    fn forget(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        let (start, end) = (self.start, self.start + count);
        let hasher = self.hasher.get_or_insert_default();
        hasher.update(&self.bytes[self.hashed..end]);
        self.line += newlines(&self.bytes[start..end]);
        self.bytes.drain(start..end);
        self.dropped += count as u64;
        self.scanned -= count;
        self.hashed = start;
    }

    fn finish(mut self, offset: u64, first_line: u64) -> Chunk {
        let hash = self.hasher.take().map(|mut hasher| {
            hasher.update(&self.bytes[self.hashed..]);
            hasher.finalize()
        });
        Chunk {
            offset,
            length: self.bytes.len() as u64 + self.dropped,
            first_line,
            records: self.records,
            bytes: self.bytes,
            hash,
        }
    }
}

/// Appends up to a block of the source; false at its end.
fn read_block(source: &mut impl Read, block: u64, bytes: &mut Vec<u8>) -> io::Result<bool> {
    Ok(source.by_ref().take(block).read_to_end(bytes)? > 0)
}

/// Appends what is there, up to a block, once anything is; false at the end.
fn read_some(source: &mut impl Read, block: u64, bytes: &mut Vec<u8>) -> io::Result<bool> {
    let length = bytes.len();
    bytes.resize(length + usize::try_from(block).unwrap_or(usize::MAX), 0);
    let read = loop {
        match source.read(&mut bytes[length..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read,
        }
    };
    bytes.truncate(length + read.as_ref().copied().unwrap_or(0));
    Ok(read? > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunks(input: &[u8], cut: fn() -> Cut, max: u64, limits: Limits) -> Vec<Chunk> {
        let mut reader = ChunkReader::new(input, cut(), 0, 1, max);
        std::iter::from_fn(|| reader.next_chunk(limits).unwrap()).collect()
    }

    fn texts(chunk: &Chunk) -> Vec<String> {
        let text = |r| String::from_utf8_lossy(chunk.record(r)).into_owned();
        chunk.records.iter().map(text).collect()
    }

    #[test]
    fn lines_become_records_and_blank_ones_do_not() {
        let all = chunks(b"a\r\n\n  \nb\nc", || Cut::Lines, 100, Limits::NONE);
        assert_eq!(all.len(), 1);
        assert_eq!(texts(&all[0]), ["a", "b", "c"]);
        let lines: Vec<_> = all[0].records.iter().map(|r| r.line).collect();
        assert_eq!(lines, [1, 4, 5]);
    }

    /// Gives what is written in these pieces, one a read, and panics where nobody should wait for more.
    struct Trickle(std::collections::VecDeque<&'static [u8]>);

    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let piece = self.0.pop_front().unwrap_or_default();
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    #[test]
    fn lines_that_are_there_wait_for_no_others() {
        let pieces: [&[u8]; 8] =
            [b"a\n", b"\n", b"b\nc\nd", b"d", b"\ne", b"xxxxxxxxxx", b"\nf\n\n", b"g"];
        let mut reader = ChunkReader::live(Trickle(pieces.into()), 5);
        let mut found = Vec::new();
        while let Some(chunk) = reader.next_chunk(Limits::NONE).unwrap() {
            let texts = texts(&chunk);
            let places = chunk.records.iter().map(|record| (record.line, record.fault));
            let left = reader.source().0.len();
            found.push((left, texts.into_iter().zip(places).collect::<Vec<_>>()));
        }
        let whole = |text: &str, line| (text.to_owned(), (line, None));
        let large = (String::new(), (6, Some(Fault::TooLarge(12))));
        assert_eq!(
            found,
            [
                (7, vec![whole("a", 1)]),
                (5, vec![whole("b", 3), whole("c", 4)]),
                (3, vec![whole("dd", 5)]),
                (1, vec![large, whole("f", 7)]),
                (0, vec![whole("g", 9)]),
            ]
        );
    }

    #[test]
    fn csv_records_may_span_lines_and_their_lines_are_known() {
        let all = chunks(b"a,\"x\ny\"\n\nb,c\n", || Cut::csv(csv::COMMA), 100, Limits::NONE);
        assert_eq!(texts(&all[0]), ["a,\"x\ny\"", "b,c"]);
        let lines: Vec<_> = all[0].records.iter().map(|r| r.line).collect();
        assert_eq!(lines, [1, 4]);
    }

    #[test]
    fn an_unclosed_quote_is_a_fault_of_the_record_it_swallows() {
        let all = chunks(b"a,b\nc,\"d\ne,f\n", || Cut::csv(csv::COMMA), 100, Limits::NONE);
        let faults: Vec<_> = all[0].records.iter().map(|r| r.fault).collect();
        assert_eq!(faults, [None, Some(Fault::Unclosed)]);
    }

    #[test]
    fn a_record_too_large_is_passed_over_in_bounded_memory() {
        let big = "x".repeat(5 * BLOCK as usize);
        let input = format!("a\n{big}\nb\n{big}\nc\n{big}");
        let all = chunks(input.as_bytes(), || Cut::Lines, 1000, Limits::NONE);
        let chunk = &all[0];
        assert_eq!(texts(chunk), ["a", "", "b", "", "c", ""]);
        let length = big.len() as u64;
        let faults: Vec<_> = chunk.records.iter().map(|r| r.fault).collect();
        let large = |n| Some(Fault::TooLarge(n));
        assert_eq!(faults, [None, large(length + 1), None, large(length + 1), None, large(length)]);
        assert_eq!(chunk.length, input.len() as u64);
        assert_eq!(chunk.hash(), blake3::hash(input.as_bytes()));
        assert!(chunk.bytes.capacity() < 4 * BLOCK as usize, "{}", chunk.bytes.capacity());
        let lines: Vec<_> = chunk.records.iter().map(|r| r.line).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn what_a_record_is_does_not_depend_on_where_reading_stops() {
        let blank = " ".repeat(20);
        let input = format!("{blank}\n{blank}a\nbbbb\r\nbbbbb\r\n{blank}ccccc\n{blank}");
        let expected = [
            ("a", 2, None),
            ("bbbb", 3, None),
            ("", 4, Some(Fault::TooLarge(7))),
            ("", 5, Some(Fault::TooLarge(6))),
        ];
        for block in 1..=input.len() as u64 {
            let source = input.as_bytes();
            let mut reader = ChunkReader::new(source, Cut::Lines, 0, 1, 4).with_block(block);
            let chunk = reader.next_chunk(Limits::NONE).unwrap().unwrap();
            let records = texts(&chunk).into_iter().zip(&chunk.records);
            let records: Vec<_> = records.map(|(text, r)| (text, r.line, r.fault)).collect();
            let expected = expected.map(|(text, line, fault)| (text.to_owned(), line, fault));
            assert_eq!(records, expected, "blocks of {block}");
            let is_blank = |r: &Record| chunk.bytes[r.start].is_ascii_whitespace();
            assert!(!chunk.records[..2].iter().any(is_blank), "a record begins with itself");
            assert_eq!(chunk.hash(), blake3::hash(source));
            assert_eq!((chunk.length, reader.line()), (input.len() as u64, 6));
        }
    }

    proptest! {
        #[test]
        fn chunks_tile_the_input_whatever_their_size(
            lines in proptest::collection::vec("[a-z]{0,12}", 0..40),
            records in 1_usize..8,
            bytes in 1_u64..64,
            newline_at_end: bool,
        ) {
            let mut input = lines.join("\n");
            if newline_at_end {
                input.push('\n');
            }
            let all = chunks(input.as_bytes(), || Cut::Lines, 8, Limits { records, bytes });
            let (mut offset, mut line, mut seen) = (0, 1, Vec::new());
            for chunk in &all {
                prop_assert_eq!((chunk.offset, chunk.first_line), (offset, line));
                let covered = &input.as_bytes()[offset as usize..][..chunk.length as usize];
                prop_assert_eq!(chunk.hash(), blake3::hash(covered));
                offset += chunk.length;
                line += newlines(covered);
                seen.extend(chunk.records.iter().map(|r| match r.fault {
                    Some(_) => "large".to_owned(),
                    None => String::from_utf8_lossy(chunk.record(r)).into_owned(),
                }));
            }
            prop_assert_eq!(offset, input.len() as u64);
            let expected: Vec<_> = lines
                .iter()
                .filter(|line| !line.is_empty())
                .map(|line| if line.len() > 8 { "large".to_owned() } else { line.clone() })
                .collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
