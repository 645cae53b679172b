//! How much a body asks for that is a request itself: how many answers, and what of it is no words but files.

use serde_json::{Number, Value};

use crate::dialect::{members, words};

/// What of a body is words, and what is images, sound and documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// Its bytes without what of it is a file.
    pub words: usize,
    /// Files in it, or named by it.
    pub files: u64,
    /// The bytes of those, as they are spelled.
    bytes: u64,
}

/// What a file is guessed at, besides what its bytes are: a picture of a common size.
const FILE: u64 = 1500;
/// Bytes of a file for a token more.
const BYTES: u64 = 100;

/// A guess at the tokens of files of so many bytes together, before a server has told any.
#[must_use]
pub fn tokens_of_files(files: u64, bytes: u64) -> u64 {
    files.saturating_mul(FILE).saturating_add(bytes / BYTES)
}

impl Extent {
    /// That of a body. Only one that has parts, or data, is read.
    pub(super) fn of(body: &str) -> Self {
        let has = |text: &str| memchr::memmem::find(body.as_bytes(), text.as_bytes()).is_some();
        if !has("\"type\"") && !has("\"data:") {
            return Self { words: body.len(), ..Self::default() };
        }
        let Ok(Value::Object(fields)) = serde_json::from_str::<Value>(body) else {
            return Self::unread(body);
        };
        let mut extent = Self::default();
        let mut data = 0;
        let read = fields.iter().filter(|(name, _)| name.as_str() != "tools");
        read.for_each(|(_, value)| extent.add(value, &mut data));
        extent.words = body.len().saturating_sub(data);
        extent.bytes = data as u64;
        extent
    }

    /// That of a body with numbers or characters that are not read: a file for each of its data URIs.
    fn unread(body: &str) -> Self {
        let words = words(body);
        let files = memchr::memmem::find_iter(body.as_bytes(), "\"data:").count() as u64;
        Self { words, files, bytes: body.len().saturating_sub(words) as u64 }
    }

    /// The tokens that its files are guessed to have.
    pub(super) fn file_tokens(&self) -> u64 {
        tokens_of_files(self.files, self.bytes)
    }

    fn add(&mut self, value: &Value, data: &mut usize) {
        match value {
            Value::String(text) if is_data(text) => {
                self.files += 1;
                *data += text.len();
            }
            Value::Array(members) => members.iter().for_each(|it| self.add(it, data)),
            Value::Object(part) => {
                let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
                if !FILES.contains(&kind) {
                    return part.values().for_each(|it| self.add(it, data));
                }
                self.files += 1;
                part.values().for_each(|it| add_data(it, data));
            }
            _ => {}
        }
    }
}

/// The kinds of parts that are files: of Chat Completions, Responses and Messages, and what vLLM has besides.
const FILES: [&str; 12] = [
    "image_url",
    "input_image",
    "image",
    "computer_screenshot",
    "input_audio",
    "audio_url",
    "audio",
    "video_url",
    "video",
    "file",
    "input_file",
    "document",
];

/// The bytes of a part that are a file's: a data URI, or base64 in a field for it.
fn add_data(value: &Value, data: &mut usize) {
    match value {
        Value::String(text) if is_data(text) => *data += text.len(),
        Value::Array(members) => members.iter().for_each(|it| add_data(it, data)),
        Value::Object(fields) => {
            // A document of Messages may be text.
            let is_text = fields.get("type").and_then(Value::as_str) == Some("text");
            for (name, value) in fields {
                match value {
                    Value::String(text) if !is_text && DATA.contains(&name.as_str()) => {
                        *data += text.len();
                    }
                    _ => add_data(value, data),
                }
            }
        }
        _ => {}
    }
}

/// The fields of parts that hold files.
const DATA: [&str; 2] = ["data", "file_data"];

/// Whether a text is a data URI (RFC 2397): what stands before its comma has no blanks, as a sentence has.
fn is_data(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("data:") else { return false };
    let head = rest.split(',').next().unwrap_or_default();
    head.len() < rest.len() && (head.is_empty() || head.contains(['/', ';'])) && !has_blank(head)
}

fn has_blank(text: &str) -> bool {
    text.contains(char::is_whitespace)
}

/// How many answers a body asks for: as many as each prompt has, of several as often (`n`, of which `best_of` may be more
/// than are given back).
pub(super) fn answers<'a>(parameter: &dyn Fn(&'static str) -> Option<&'a str>) -> u64 {
    let each = ["n", "best_of"].into_iter().filter_map(|name| count(parameter(name)?)).max();
    let prompts = parameter("prompt").map_or(1, prompts);
    each.unwrap_or(1).max(1).saturating_mul(prompts)
}

/// A number of a body that is a count, as servers take it: 100 may be spelled 1e2.
pub(super) fn count(text: &str) -> Option<u64> {
    let number: Number = serde_json::from_str(text.trim()).ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let rounded = |it: f64| it.ceil() as u64;
    number.as_u64().or_else(|| number.as_f64().filter(|it| *it >= 0.0).map(rounded))
}

/// How many prompts a field has: a list of texts or of lists of tokens has several, a list of tokens is one.
fn prompts(prompt: &str) -> u64 {
    if !prompt.trim_start().starts_with('[') {
        return 1;
    }
    let members = members(prompt);
    let several = members.iter().filter(|it| it.trim_start().starts_with(['"', '[']));
    (several.count() as u64).max(1)
}
