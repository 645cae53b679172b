//! A journal's records: what they hold and how they are framed.
//!
//! A record is one line: eight hex digits of a CRC-32C, a space, the JSON, a newline. The checksum
//! tells a flipped bit inside an answer, which would still be valid JSON, and the newline tells a
//! torn write. The first record says what the journal belongs to and has the checksum of its JSON;
//! that of every other record is of the first one's JSON followed by its own, so that a record of
//! another journal is none of this one.
//!
//! The JSON begins with fields in a fixed order, so that the merger finds the parts of millions of
//! records without parsing them. [`Record`] writes and reads that order; nothing else may.

use std::io::Write;

use super::ChecksumSeed;
use crate::job::OutcomeKind;

/// What the line of a journal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// What the journal belongs to, which is its first record:
    /// `{"run":"…","plan":"…","generation":1,"shard":0}`.
    Begin {
        /// The run: 32 hex digits.
        run: &'a str,
        /// The plan: 32 hex digits.
        plan: &'a str,
        /// The plan's generation.
        generation: u32,
        /// The shard's number.
        shard: u32,
    },
    /// What became of a row:
    /// `{"row":17,"outcome":"ok","at":1763700000123,"sizes":[245,180][,"asked":[1,"00c0ffee00c0ffee"]]`
    /// `,"envelope":{…},"attempts":[…][,"adopted":true][,"input":…]}`; `"adopted":[50,{"id":…,"request_id":…}]`
    /// where its line had names.
    Outcome(Outcome<'a>),
    /// An attempt failed and the row will be tried again:
    /// `{"row":17,"outcome":"retry","at":…,"sizes":[4,180],"envelope":null,"attempts":[…]}`.
    Retry {
        /// The row's number.
        row: u64,
        /// When, in milliseconds since the Unix epoch.
        at_ms: u64,
        /// The failed attempt, in a JSON list.
        attempts: &'a [u8],
    },
    /// Calls that were under way when a session was cut off, and are made again:
    /// `{"repeated":16,"at":…}`.
    Repeated {
        /// How many.
        calls: u64,
        /// When the crash was noticed, in milliseconds since the Unix epoch.
        at_ms: u64,
    },
}

/// What was asked of the model, and when: what a later plan compares to know whether an answer is
/// still one to its question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The generation in which it was asked: it tells model, parameters and instruction.
    pub generation: u32,
    /// The xxh3 hash of the row's prompt, as it was sent.
    pub prompt: u64,
    /// Whether that was another prompt, and this is the one that the outcome counts for since a
    /// change was accepted: such an answer is its own row's alone.
    pub is_accepted: bool,
}

/// What became of a row, with all that the output, error and telemetry lines of it need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// The row's number.
    pub row: u64,
    /// Answer, failure, or a row that cannot be asked about.
    pub kind: OutcomeKind,
    /// When it was known, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What was asked; nothing for rows that cannot be asked about.
    pub asked: Option<Asked>,
    /// The envelope without its `input`, as a JSON object that begins with `{"id":`.
    pub envelope: &'a [u8],
    /// The attempts since the last record of the row, as a JSON list.
    pub attempts: &'a [u8],
    /// Whether the answer was taken over from an earlier output, not called for.
    pub adopted: bool,
    /// What its line was called there, as a JSON object with `id` and `request_id`; empty where it said neither, and for
    /// answers that were called for.
    pub named: &'a [u8],
    /// The row, where envelopes are to show it.
    pub input: Option<&'a [u8]>,
}

/// Bytes before a record's JSON: checksum and space.
const HEAD: usize = 9;

impl<'a> Record<'a> {
    /// Appends the framed line.
    pub fn encode(&self, out: &mut Vec<u8>, seed: ChecksumSeed) {
        let start = out.len();
        out.extend_from_slice(b"00000000 ");
        self.encode_json(out);
        let json = &out[start + HEAD..];
        let checksum = crc32c::crc32c_append(seed_of(json, seed), json);
        // Writing to a Vec cannot fail.
        let _ = write!(&mut out[start..start + 8], "{checksum:08x}");
        out.push(b'\n');
    }

    /// The CRC-32C of its JSON.
    pub(super) fn checksum(&self) -> u32 {
        let mut json = Vec::new();
        self.encode_json(&mut json);
        crc32c::crc32c(&json)
    }

    fn encode_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Begin { run, plan, generation, shard } => {
                let _ = write!(
                    out,
                    "{{\"run\":\"{run}\",\"plan\":\"{plan}\",\"generation\":{generation},\
                     \"shard\":{shard}}}"
                );
            }
            Self::Outcome(outcome) => outcome.encode(out),
            Self::Retry { row, at_ms, attempts } => {
                let size = attempts.len();
                let _ = write!(
                    out,
                    "{{\"row\":{row},\"outcome\":\"retry\",\"at\":{at_ms},\"sizes\":[4,{size}],\
                     \"envelope\":null,\"attempts\":"
                );
                out.extend_from_slice(attempts);
                out.push(b'}');
            }
            Self::Repeated { calls, at_ms } => {
                let _ = write!(out, "{{\"repeated\":{calls},\"at\":{at_ms}}}");
            }
        }
    }

    /// Reads a line of the journal whose checksums begin with `seed`, its newline included.
    ///
    /// # Errors
    /// What is wrong with the line, in words.
    pub fn decode(line: &'a [u8], seed: ChecksumSeed) -> Result<Self, &'static str> {
        let Some(line) = line.strip_suffix(b"\n") else { return Err("no line end") };
        let (Some(head), Some(json)) = (line.get(..HEAD), line.get(HEAD..)) else {
            return Err("too short");
        };
        if checksum(head) != Some(crc32c::crc32c_append(seed_of(json, seed), json)) {
            return Err("checksum does not match");
        }
        parse(json).ok_or("not a record")
    }

    /// The row the record is about, if it is about one.
    #[must_use]
    pub fn row(&self) -> Option<u64> {
        match self {
            Self::Outcome(outcome) => Some(outcome.row),
            Self::Retry { row, .. } => Some(*row),
            Self::Repeated { .. } | Self::Begin { .. } => None,
        }
    }

    /// How many calls a [`Record::Repeated`] tells of.
    #[must_use]
    pub fn repeated(&self) -> u64 {
        if let Self::Repeated { calls, .. } = self { *calls } else { 0 }
    }
}

impl<'a> Outcome<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        let _ = write!(
            out,
            "{{\"row\":{},\"outcome\":\"{}\",\"at\":{},\"sizes\":[{},{}]",
            self.row,
            self.kind.as_str(),
            self.at_ms,
            self.envelope.len(),
            self.attempts.len()
        );
        if let Some(Asked { generation, prompt, is_accepted }) = self.asked {
            let accepted = if is_accepted { ",true" } else { "" };
            let _ = write!(out, ",\"asked\":[{generation},\"{prompt:016x}\"{accepted}]");
        }
        out.extend_from_slice(b",\"envelope\":");
        out.extend_from_slice(self.envelope);
        out.extend_from_slice(b",\"attempts\":");
        out.extend_from_slice(self.attempts);
        if !self.named.is_empty() {
            let _ = write!(out, ",\"adopted\":[{},", self.named.len());
            out.extend_from_slice(self.named);
            out.push(b']');
        } else if self.adopted {
            out.extend_from_slice(b",\"adopted\":true");
        }
        if let Some(input) = self.input {
            out.extend_from_slice(b",\"input\":");
            out.extend_from_slice(input);
        }
        out.push(b'}');
    }

    /// The id's JSON token.
    #[must_use]
    pub fn id(&self) -> &'a [u8] {
        id_of(self.envelope)
    }
}

/// The id's token of an envelope.
fn id_of(envelope: &[u8]) -> &[u8] {
    let Some(rest) = envelope.strip_prefix(b"{\"id\":") else { return b"null" };
    let mut end = 0;
    let mut quoted = false;
    while let Some(&byte) = rest.get(end) {
        match byte {
            b'\\' if quoted => end += 1,
            b'"' => quoted = !quoted,
            b',' if !quoted => break,
            _ => {}
        }
        end += 1;
    }
    rest.get(..end).unwrap_or(b"null")
}

/// What the JSON of every first record begins with.
const BEGIN: &[u8] = b"{\"run\":\"";

/// What the checksum of a record begins with: nothing for the one that says what the others do.
fn seed_of(json: &[u8], ChecksumSeed(seed): ChecksumSeed) -> u32 {
    if json.starts_with(BEGIN) { 0 } else { seed }
}

fn checksum(head: &[u8]) -> Option<u32> {
    u32::try_from(hex(head.strip_suffix(b" ")?)?).ok()
}

/// Hexadecimal digits as encode() writes them: no sign, no capitals.
fn hex(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn parse(json: &[u8]) -> Option<Record<'_>> {
    let mut cursor = Cursor(json);
    if cursor.skip(b"{\"repeated\":").is_some() {
        let calls = cursor.number()?;
        cursor.skip(b",\"at\":")?;
        let at_ms = cursor.number()?;
        return Some(Record::Repeated { calls, at_ms });
    }
    if cursor.skip(BEGIN).is_some() {
        return cursor.begin();
    }
    cursor.skip(b"{\"row\":")?;
    let row = cursor.number()?;
    cursor.skip(b",\"outcome\":\"")?;
    let word = cursor.take(memchr::memchr(b'"', cursor.0)?)?;
    cursor.skip(b"\",\"at\":")?;
    let at_ms = cursor.number()?;
    cursor.skip(b",\"sizes\":[")?;
    let envelope_size = usize::try_from(cursor.number()?).ok()?;
    cursor.skip(b",")?;
    let attempts_size = usize::try_from(cursor.number()?).ok()?;
    cursor.skip(b"]")?;
    let asked = match cursor.skip(b",\"asked\":[") {
        Some(()) => Some(cursor.asked()?),
        None => None,
    };
    cursor.skip(b",\"envelope\":")?;
    let envelope = cursor.take(envelope_size)?;
    cursor.skip(b",\"attempts\":")?;
    let attempts = cursor.take(attempts_size)?;
    let (adopted, named) = match cursor.skip(b",\"adopted\":[") {
        Some(()) => {
            let size = usize::try_from(cursor.number()?).ok()?;
            cursor.skip(b",")?;
            let named = cursor.take(size)?;
            cursor.skip(b"]")?;
            (true, named)
        }
        None => (cursor.skip(b",\"adopted\":true").is_some(), &b""[..]),
    };
    let input = match cursor.skip(b",\"input\":") {
        Some(()) => Some(cursor.take(cursor.0.len().checked_sub(1)?)?),
        None => None,
    };
    if cursor.0 != b"}" {
        return None;
    }
    if word == b"retry" {
        return Some(Record::Retry { row, at_ms, attempts });
    }
    let kind = OutcomeKind::from_word(word)?;
    let outcome = Outcome { row, kind, at_ms, asked, envelope, attempts, adopted, named, input };
    Some(Record::Outcome(outcome))
}

/// The part of a record that has not been read yet.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn skip(&mut self, text: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// The rest of a first record.
    fn begin(&mut self) -> Option<Record<'a>> {
        let run = self.name()?;
        self.skip(b"\",\"plan\":\"")?;
        let plan = self.name()?;
        self.skip(b"\",\"generation\":")?;
        let generation = u32::try_from(self.number()?).ok()?;
        self.skip(b",\"shard\":")?;
        let shard = u32::try_from(self.number()?).ok()?;
        (self.0 == b"}").then_some(Record::Begin { run, plan, generation, shard })
    }

    /// The name of a run or plan.
    fn name(&mut self) -> Option<&'a str> {
        let name = std::str::from_utf8(self.take(32)?).ok()?;
        name.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(name)
    }

    /// The rest of `"asked":[`; only what encode() writes.
    fn asked(&mut self) -> Option<Asked> {
        let generation = u32::try_from(self.number()?).ok()?;
        self.skip(b",\"")?;
        let prompt = hex(self.take(16)?)?;
        let is_accepted = self.skip(b"\",true]").is_some();
        if !is_accepted {
            self.skip(b"\"]")?;
        }
        Some(Asked { generation, prompt, is_accepted })
    }

    fn number(&mut self) -> Option<u64> {
        let digits = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        std::str::from_utf8(self.take(digits)?).ok()?.parse().ok()
    }
}

/// Where a journal has the outcome of a row: what checkpoints keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The row's number.
    pub row: u64,
    /// What the record says; nothing for [`Record::Retry`].
    pub kind: Option<OutcomeKind>,
    /// Where the line begins in the journal.
    pub offset: u64,
    /// The line's length, its newline included.
    pub length: u32,
    /// The id's JSON token; empty for [`Record::Retry`].
    pub id: Box<[u8]>,
}

impl Entry {
    /// The entry of a record that stands at `offset`; nothing if it is about no row.
    #[must_use]
    pub fn of(record: &Record<'_>, offset: u64, length: usize) -> Option<Self> {
        let length = u32::try_from(length).ok()?;
        match record {
            Record::Outcome(outcome) => Some(Self {
                row: outcome.row,
                kind: Some(outcome.kind),
                offset,
                length,
                id: outcome.id().into(),
            }),
            Record::Retry { row, .. } => {
                Some(Self { row: *row, kind: None, offset, length, id: Box::default() })
            }
            Record::Repeated { .. } | Record::Begin { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: ChecksumSeed = ChecksumSeed(7);

    fn outcome<'a>(envelope: &'a [u8], input: Option<&'a [u8]>) -> Outcome<'a> {
        Outcome {
            row: 17,
            kind: OutcomeKind::Ok,
            at_ms: 1_763_700_000_123,
            asked: Some(Asked { generation: 3, prompt: 0xabc, is_accepted: false }),
            envelope,
            attempts: b"[{\"ok\":true}]",
            adopted: false,
            named: b"",
            input,
        }
    }

    fn encoded(record: &Record<'_>) -> Vec<u8> {
        let mut line = Vec::new();
        record.encode(&mut line, SEED);
        line
    }

    #[test]
    fn records_come_back_as_they_went_in() {
        let envelope = br#"{"id":"a,\"b","row_number":17,"ok":true,"result":"x","error":null}"#;
        let whole = outcome(envelope, Some(b"{\"n\":1.50}"));
        let adopted = Outcome { adopted: true, input: None, asked: None, ..whole };
        let accepted = Asked { generation: 3, prompt: 0xabc, is_accepted: true };
        for record in [
            Record::Outcome(whole),
            Record::Outcome(Outcome { asked: Some(accepted), ..whole }),
            Record::Outcome(adopted),
            Record::Outcome(Outcome { named: b"{\"id\":\"x\"}", ..adopted }),
            Record::Outcome(Outcome { named: b"{\"id\":\"x]\"}", adopted: true, ..whole }),
            Record::Retry { row: 3, at_ms: 4, attempts: b"[{\"ok\":false}]" },
            Record::Repeated { calls: 333, at_ms: 9 },
            begin(),
        ] {
            let line = encoded(&record);
            assert_eq!(Record::decode(&line, SEED), Ok(record));
            let is_known = Record::decode(&line, ChecksumSeed(8)) == Ok(record);
            let is_first = matches!(record, Record::Begin { .. });
            assert_eq!(is_known, is_first, "only a first record is read in another journal");
            let json: serde_json::Value = serde_json::from_slice(&line[HEAD..]).unwrap();
            assert!(json.is_object(), "the rest of a line is JSON for anyone");
        }
        assert_eq!(whole.id(), br#""a,\"b""#);
        assert_eq!(id_of(br#"{"id":12,"row_number":1}"#), b"12");
    }

    fn begin() -> Record<'static> {
        const NAME: &str = "0123456789abcdef0123456789abcdef";
        Record::Begin { run: NAME, plan: NAME, generation: 2, shard: 17 }
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        for record in [Record::Outcome(outcome(b"{\"id\":1,\"ok\":true}", None)), begin()] {
            let line = encoded(&record);
            for cut in 0..line.len() {
                assert!(Record::decode(&line[..cut], SEED).is_err(), "cut at {cut}");
            }
            for byte in 0..line.len() {
                for bit in 0..8 {
                    let mut damaged = line.clone();
                    damaged[byte] ^= 1 << bit;
                    assert!(Record::decode(&damaged, SEED).is_err(), "bit {bit} of byte {byte}");
                }
            }
        }
    }
}
