//! The envelope: what became of a row, as one line of the output.

use std::borrow::Cow;
use std::io::Write;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::format::json;
use crate::job::{Failure, Id};

/// What an envelope says of its row.
#[derive(Debug, Clone, Copy)]
pub enum Verdict<'a> {
    /// An answer that is text.
    Text(&'a str),
    /// An answer that is JSON already.
    Json(&'a str),
    /// A failure for good, and how many attempts it took.
    Failed(&'a Failure, u32),
}

/// Appends an envelope without its `input`:
/// `{"id":…,"row_number":…,"ok":…,"result":…,"error":…}`.
pub fn write(out: &mut Vec<u8>, id: &Id, row: u64, verdict: Verdict<'_>) {
    let ok = !matches!(verdict, Verdict::Failed(..));
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{{\"id\":{id},\"row_number\":{row},\"ok\":{ok},\"result\":");
    match verdict {
        Verdict::Text(text) => {
            json::write_string(out, text);
            out.extend_from_slice(b",\"error\":null}");
        }
        Verdict::Json(value) => {
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b",\"error\":null}");
        }
        Verdict::Failed(failure, attempts) => {
            out.extend_from_slice(b"null,\"error\":{\"type\":\"");
            out.extend_from_slice(failure.kind.name().as_bytes());
            out.extend_from_slice(b"\",\"message\":");
            json::write_string(out, &failure.message);
            let _ = write!(out, ",\"class\":\"{}\"", failure.kind.class());
            if let Some(status) = failure.status {
                let _ = write!(out, ",\"status\":{status}");
            }
            let _ = write!(out, ",\"attempts\":{attempts}");
            if let Some(raw) = &failure.raw {
                out.extend_from_slice(b",\"raw\":");
                json::write_string(out, raw);
            }
            out.extend_from_slice(b"}}");
        }
    }
}

// An id is a string or a number, and a quote in a string is escaped: the first is the field.
const ROW_NUMBER: &[u8] = b",\"row_number\":";

/// Appends an envelope under another row number, with this id.
pub fn readdress(out: &mut Vec<u8>, envelope: &[u8], id: &[u8], row: u64) {
    let Some(at) = memchr::memmem::find(envelope, ROW_NUMBER) else {
        return out.extend_from_slice(envelope);
    };
    let rest = &envelope[at + ROW_NUMBER.len()..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    out.extend_from_slice(b"{\"id\":");
    out.extend_from_slice(id);
    out.extend_from_slice(ROW_NUMBER);
    let _ = write!(out, "{row}");
    out.extend_from_slice(&rest[digits..]);
}

/// The class of the failure that an envelope tells of: `error.class`.
#[must_use]
pub fn failure_class(envelope: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Failed<'a> {
        #[serde(borrow)]
        error: Class<'a>,
    }
    #[derive(Deserialize)]
    struct Class<'a> {
        #[serde(borrow)]
        class: Cow<'a, str>,
    }
    serde_json::from_slice::<Failed<'_>>(envelope).ok().map(|failed| failed.error.class)
}

/// The row of an envelope's `input` where there is none to show.
pub const NO_INPUT: &[u8] = b"null";

/// Spells which of the answers to its row an envelope holds: `,"model":…,"repeat":…`.
#[must_use]
pub fn mark(model: &str, repeat: u32) -> Vec<u8> {
    let mut mark = b",\"model\":".to_vec();
    json::write_string(&mut mark, model);
    // Writing to a Vec cannot fail.
    let _ = write!(mark, ",\"repeat\":{repeat}");
    mark
}

/// Appends an envelope, with the row it answers if there is one to show, and a newline. A
/// [mark](mark()) stands behind the row's number; without one nothing does.
pub fn write_line(out: &mut Vec<u8>, envelope: &[u8], mark: &[u8], input: Option<&[u8]>) {
    let (before, behind) = envelope.split_at(if mark.is_empty() { 0 } else { numbered(envelope) });
    out.extend_from_slice(before);
    out.extend_from_slice(mark);
    match input {
        None => out.extend_from_slice(behind),
        Some(row) => {
            out.extend_from_slice(&behind[..behind.len() - 1]);
            out.extend_from_slice(b",\"input\":");
            out.extend_from_slice(row);
            out.push(b'}');
        }
    }
    out.push(b'\n');
}

/// Where the row's number ends in an envelope.
fn numbered(envelope: &[u8]) -> usize {
    let Some(at) = memchr::memmem::find(envelope, ROW_NUMBER) else { return 1 };
    let start = at + ROW_NUMBER.len();
    start + envelope[start..].iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// What is read back of an envelope.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    /// The id's token.
    #[serde(borrow)]
    pub id: &'a RawValue,
    #[serde(default, borrow)]
    model: Option<&'a RawValue>,
    #[serde(default, borrow)]
    repeat: Option<&'a RawValue>,
    #[serde(default, borrow)]
    row_number: Option<&'a RawValue>,
    /// Whether there is an answer.
    pub ok: bool,
    /// The answer.
    #[serde(borrow)]
    pub result: &'a RawValue,
    /// The row, where it is shown and there was one to show.
    #[serde(default, borrow)]
    pub input: Option<&'a RawValue>,
}

impl Envelope<'_> {
    /// Which of the answers to its row it holds, if it says so: the model, and which of its answers.
    #[must_use]
    pub fn variant(&self) -> Option<(String, u32)> {
        let model = serde_json::from_str(self.model?.get()).ok()?;
        Some((model, serde_json::from_str(self.repeat?.get()).ok()?))
    }

    /// The row's number, if there is one.
    #[must_use]
    pub fn row_number(&self) -> Option<u64> {
        self.row_number?.get().parse().ok()
    }
}

/// Reads one line of an output file.
///
/// # Errors
/// When the line is no envelope: torn, glued to another, or another tool's.
pub fn read(line: &[u8]) -> Result<Envelope<'_>, serde_json::Error> {
    serde_json::from_slice(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::FailureKind;

    fn line(verdict: Verdict<'_>, input: Option<&[u8]>) -> String {
        let (mut envelope, mut out) = (Vec::new(), Vec::new());
        write(&mut envelope, &Id::parse("\"r\\u0031\"").unwrap(), 7, verdict);
        write_line(&mut out, &envelope, b"", input);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn keys_stand_in_their_order() {
        assert_eq!(
            line(Verdict::Text("a \"b\"\n"), None),
            "{\"id\":\"r\\u0031\",\"row_number\":7,\"ok\":true,\"result\":\"a \\\"b\\\"\\n\",\"error\":null}\n"
        );
        let failure = Failure::new(FailureKind::Server, "went away").with_status(503);
        assert_eq!(
            line(Verdict::Failed(&failure, 4), Some(b"{\"n\":1.50}")),
            "{\"id\":\"r\\u0031\",\"row_number\":7,\"ok\":false,\"result\":null,\"error\":{\"type\":\
             \"ServerError\",\"message\":\"went away\",\"class\":\"server_error\",\"status\":503,\
             \"attempts\":4},\"input\":{\"n\":1.50}}\n"
        );
    }

    #[test]
    fn a_mark_stands_behind_the_number_whatever_the_id_says() {
        let id = Id::parse("\",\\\"row_number\\\":1\"").unwrap();
        let (mut envelope, mut out) = (Vec::new(), Vec::new());
        write(&mut envelope, &id, 20, Verdict::Text("x"));
        write_line(&mut out, &envelope, &mark("p.\"m\"?x=1", 2), Some(b"{}"));
        assert_eq!(
            String::from_utf8(out.clone()).unwrap(),
            "{\"id\":\",\\\"row_number\\\":1\",\"row_number\":20,\"model\":\"p.\\\"m\\\"?x=1\",\"repeat\":2,\
             \"ok\":true,\"result\":\"x\",\"error\":null,\"input\":{}}\n"
        );
        let envelope = read(&out).unwrap();
        assert_eq!(envelope.variant(), Some(("p.\"m\"?x=1".to_owned(), 2)));
    }

    #[test]
    fn reads_what_it_writes_and_refuses_torn_and_glued_lines() {
        let whole = line(Verdict::Json("{\"a\":1.50}"), Some(NO_INPUT));
        let envelope = read(whole.as_bytes()).unwrap();
        assert!(envelope.ok);
        assert_eq!(envelope.id.get(), "\"r\\u0031\"");
        assert_eq!(envelope.result.get(), "{\"a\":1.50}");
        let trimmed = whole.trim_end();
        for cut in 0..trimmed.len() {
            assert!(read(&trimmed.as_bytes()[..cut]).is_err(), "torn at {cut}");
        }
        assert!(read(format!("{trimmed}{trimmed}").as_bytes()).is_err(), "glued");
    }
}
