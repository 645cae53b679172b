//! How lines of request files and output files are spelled: the reader of a line in and the writer of a
//! line out of each dialect side by side.
//!
//! People come with files of other tools. [`openai`] is that of OpenAI's Batch API, which vLLM's and FastDeploy's
//! `run-batch` and Doubleword's service read as well; [`prompts`] is that of `dria batch`, [`dria`] that of Dria's
//! Batch API, and [`rows`] is any JSON object. [`detect`] tells them apart, [`rules`] says what each server wants of a
//! file of its dialect, and a [`Speller`] writes what became of a row in any of them.
//!
//! Nothing here opens a file. Text comes in, and values are slices of it; plain values come in, and bytes go out.

mod body;
pub mod detect;
pub mod dria;
pub mod openai;
mod problem;
pub mod prompts;
mod required;
pub mod rows;
pub mod rules;
mod spell;

use std::borrow::Cow;
use std::io::Write;

use serde_json::value::RawValue;

pub use body::Body;
pub use problem::{Problem, shown};
pub use spell::{Speller, Told, Unreadable};

use crate::format::json::{self, Object};
pub use crate::job::{Dialect, Endpoint};

/// An answer, as lines out have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Text.
    Text(&'a str),
    /// A JSON value, spelled as it is to stand there.
    Json(&'a str),
}

impl Answer<'_> {
    fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => json::write_string(out, text),
            Self::Json(value) => out.extend_from_slice(value.as_bytes()),
        }
    }
}

/// What a line of an output file says of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// The id, as the line spells it.
    pub id: &'a str,
    /// The answer or the failure.
    pub result: Result<Content, String>,
}

/// What a line of an output file holds for whoever goes on from it. All values are slices of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerLine<'a> {
    /// The id, as the line spells it.
    pub id: &'a str,
    /// The answer, as JSON: in [`openai`] the whole body of the response. Nothing where it tells of a failure.
    pub answer: Option<&'a str>,
    /// What the line and its request are called in [`openai`]: the strings of `id` and `response.request_id`.
    pub named: [Option<&'a str>; 2],
}

/// What a model said, in a form in which equal answers are equal: without what differs from call to call (ids,
/// times, token counts), and with the keys of objects in one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// One text.
    Text(String),
    /// Anything else.
    Json(serde_json::Value),
}

impl Content {
    /// The text, or the JSON in one line.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Json(value) => Cow::Owned(value.to_string()),
        }
    }

    /// A hash that tells answers apart; a text is never the JSON that is spelled like it.
    #[must_use]
    pub fn hash(&self) -> u128 {
        let seed = u64::from(matches!(self, Self::Json(_)));
        xxhash_rust::xxh3::xxh3_128_with_seed(self.text().as_bytes(), seed)
    }

    fn of_token(token: &str) -> Self {
        match serde_json::from_str(token) {
            Ok(serde_json::Value::String(text)) => Self::Text(text),
            Ok(value) => Self::Json(value),
            // It is JSON, but serde_json has no value for it (a lone surrogate, 1e999).
            Err(_) => Self::Text(token.to_owned()),
        }
    }
}

/// Reads a line of an output file.
///
/// # Errors
/// When the line is none of this dialect.
pub fn read_outcome(dialect: Dialect, text: &str) -> Result<Outcome<'_>, Problem> {
    match dialect {
        Dialect::Rows => rows::read_outcome(text),
        Dialect::OpenAi => openai::read_outcome(text),
        Dialect::Prompts => prompts::read_outcome(text),
        Dialect::Dria => dria::read_outcome(text),
    }
}

/// The token of the id by which a line in any dialect, in or out, is known: `custom_id`, or else `id`. Nothing where
/// it has neither, or null.
#[must_use]
pub fn id_of<'a>(line: &Object<'a>) -> Option<&'a str> {
    let found = line.get("custom_id").or_else(|| line.get("id"));
    found.filter(|token| *token != "null")
}

/// The model that the body of a request names, in any dialect whose lines have bodies.
#[must_use]
pub fn model_of<'a>(line: &Object<'a>) -> Option<Cow<'a, str>> {
    let body = line.get("body").filter(|token| token.starts_with('{'))?;
    let body = Object::parse(body).ok()?;
    body.get("model").filter(|token| token.starts_with('"')).map(text)
}

/// The value of a field.
fn field<'a>(object: &Object<'a>, name: &'static str) -> Result<&'a str, Problem> {
    object.get(last(name)).ok_or(Problem::Missing(name))
}

/// A field that holds a text, as the line spells it.
fn string<'a>(object: &Object<'a>, name: &'static str) -> Result<&'a str, Problem> {
    let token = field(object, name)?;
    if token.starts_with('"') { Ok(token) } else { Err(wrong_type(name, "a string", token)) }
}

/// A field that holds a text that is not empty.
fn some_string<'a>(object: &Object<'a>, name: &'static str) -> Result<&'a str, Problem> {
    let token = string(object, name)?;
    if token.len() > 2 { Ok(token) } else { Err(Problem::Empty(name)) }
}

/// As [`some_string`], of a field that may be left out.
fn some_string_if<'a>(object: &Object<'a>, name: &'static str) -> Result<Option<&'a str>, Problem> {
    object.get(last(name)).map(|_| some_string(object, name)).transpose()
}

/// The `custom_id` of a line out: null where nobody could read that of the line in.
fn answered_id<'a>(line: &Object<'a>) -> Result<&'a str, Problem> {
    match line.get("custom_id") {
        Some("null") => Ok("null"),
        _ => some_string(line, "custom_id"),
    }
}

/// A field that holds an object.
fn object<'a>(object: &Object<'a>, name: &'static str) -> Result<Object<'a>, Problem> {
    let token = field(object, name)?;
    if token.starts_with('{') {
        Object::parse(token).map_err(Problem::Json)
    } else {
        Err(wrong_type(name, "an object", token))
    }
}

fn wrong_type(field: &'static str, expected: &'static str, token: &str) -> Problem {
    Problem::WrongType { field, expected, found: kind(token) }
}

/// The last name of a path: fields of the body are named with it (`body.model`).
fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// What kind of value a JSON text is.
fn kind(token: &str) -> &'static str {
    match token.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a string",
        Some(b'n') => "null",
        Some(b't' | b'f') => "a boolean",
        _ => "a number",
    }
}

/// The text of a string's token. A lone surrogate has no text; its escape stands for itself.
fn text(token: &str) -> Cow<'_, str> {
    let inner = token.get(1..token.len().saturating_sub(1)).unwrap_or_default();
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Cow::Borrowed(inner);
    }
    serde_json::from_str(token).map_or(Cow::Borrowed(inner), Cow::Owned)
}

/// The members of a list, as the text spells them; none where it is no list.
#[must_use]
pub fn members(list: &str) -> Vec<&str> {
    let members: Vec<&RawValue> = serde_json::from_str(list).unwrap_or_default();
    members.into_iter().map(RawValue::get).collect()
}

/// The bytes of a JSON text without the data URIs in it, which are no words.
#[must_use]
pub fn words(json: &str) -> usize {
    const DATA: &[u8] = b"\"data:";
    let bytes = json.as_bytes();
    let (mut at, mut data) = (0, 0);
    while let Some(found) = memchr::memmem::find(&bytes[at..], DATA) {
        let start = at + found;
        at = json::string_end(bytes, start);
        data += at - start;
    }
    bytes.len() - data
}

/// How a line out of [`prompts`] and of [`dria`] is spelled: they have the same fields under other names.
struct Spelling {
    id: &'static str,
    answer: &'static str,
    tokens: &'static str,
}

impl Spelling {
    fn answer(
        &self,
        out: &mut Vec<u8>,
        of: (&str, Option<&str>),
        answer: Answer<'_>,
        tokens: Option<u64>,
    ) {
        self.begin(out, of);
        // Writing to a Vec cannot fail.
        let _ = write!(out, ",\"{}\":", self.answer);
        answer.write(out);
        let _ = match tokens {
            Some(tokens) => writeln!(out, ",\"{}\":{tokens}}}", self.tokens),
            None => writeln!(out, ",\"{}\":null}}", self.tokens),
        };
    }

    /// A failure is told as `503: no nodes available`.
    fn failure(
        &self,
        out: &mut Vec<u8>,
        of: (&str, Option<&str>),
        status: Option<u16>,
        message: &str,
    ) {
        self.begin(out, of);
        out.extend_from_slice(b",\"error\":");
        match status {
            Some(status) => json::write_string(out, &format!("{status}: {message}")),
            None => json::write_string(out, message),
        }
        out.extend_from_slice(b"}\n");
    }

    /// The answer of a line; nothing where it tells of a failure. An empty text answers nothing.
    fn answer_of<'a>(&self, line: &Object<'a>) -> Result<Option<&'a str>, Problem> {
        if line.get("error").is_some_and(|error| error != "null") {
            return Ok(None);
        }
        let answer = line.get(self.answer).ok_or(Problem::NoOutcome)?;
        Ok(Some(answer).filter(|answer| !matches!(*answer, "null" | "\"\"")))
    }

    /// The id, and the model's name or null where none is known.
    fn begin(&self, out: &mut Vec<u8>, (id, model): (&str, Option<&str>)) {
        let _ = write!(out, "{{\"{}\":{id},\"model\":", self.id);
        match model {
            Some(model) => json::write_string(out, model),
            None => out.extend_from_slice(b"null"),
        }
    }
}

/// What is wrong with a file's line before it is anything: bytes that are no text.
///
/// # Errors
/// When they are not UTF-8.
pub fn utf8(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes).map_err(|error| Problem::NotUtf8(error.valid_up_to() + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for dialect in Dialect::ALL {
            assert_eq!(dialect.to_string().parse(), Ok(dialect));
        }
        assert_eq!(
            "openAI".parse::<Dialect>(),
            Err("expected one of rows, openai, prompts, dria".to_owned())
        );
    }

    #[test]
    fn texts_and_json_spelled_alike_are_not_the_same_answer() {
        let (text, json) = (Content::of_token("\"1\""), Content::of_token("1"));
        assert_eq!((text.text(), json.text()), ("1".into(), "1".into()));
        assert_ne!(text.hash(), json.hash());
        let spelled = ["{\"a\":1,\"b\":[2]}", "{ \"b\": [2], \"a\": 1 }"].map(Content::of_token);
        assert_eq!(spelled[0].hash(), spelled[1].hash());
        assert_eq!(Content::of_token("\"\\ud800\"").text(), "\"\\ud800\"");
    }
}
