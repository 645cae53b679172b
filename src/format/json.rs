//! JSON as text: a row's fields without rebuilding the row.
//!
//! A row's numbers, duplicate keys and spelling must come out as they went in, so values stay
//! slices of the row. `serde_json` checks the grammar; this module only cuts and prints.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// How deep lists and objects may be nested: as deep as most JSON readers go.
pub const MAX_DEPTH: usize = 128;

/// A JSON object with its fields as slices of its text, in their order, duplicates included.
#[derive(Debug)]
pub struct Object<'a> {
    text: &'a str,
    fields: Vec<(Cow<'a, str>, &'a str)>,
}

/// Why a text is no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is no JSON.
    #[error("{reason} at column {column}")]
    Syntax {
        /// What the parser expected or found.
        reason: String,
        /// Where, counted in bytes from 1.
        column: usize,
    },
    /// The text is JSON, but another kind of value.
    #[error("expected a JSON object, got {0}")]
    NotAnObject(&'static str),
    /// Lists or objects are nested too deep.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

impl<'a> Object<'a> {
    /// Reads a text that holds one JSON object and nothing else but white space.
    ///
    /// # Errors
    /// When it holds something else, or nests deeper than [`MAX_DEPTH`].
    pub fn parse(text: &'a str) -> Result<Self, Error> {
        let text = text.trim_ascii();
        if nests_too_deep(text.as_bytes()) {
            return Err(Error::TooDeep);
        }
        match serde_json::from_str::<Fields<'a>>(text) {
            Ok(Fields(fields)) => Ok(Self { text, fields }),
            Err(error) => Err(describe(text, &error)),
        }
    }

    /// The object's text, as it was read.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The value of a field as JSON text. Of two fields of one name the last counts, as in most
    /// readers.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    /// The fields, in their order: of each the name, and the value as JSON text.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.fields.iter().map(|(name, value)| (name.as_ref(), *value))
    }

    /// The names of the fields, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(name, _)| name.as_ref())
    }
}

fn describe(text: &str, error: &serde_json::Error) -> Error {
    if !text.starts_with('{') {
        // As an error of type, `serde_json` would repeat a string that stands there, however long.
        return match serde_json::from_str::<&RawValue>(text) {
            Ok(_) => Error::NotAnObject(match text.as_bytes().first() {
                Some(b'[') => "a list",
                Some(b'"') => "a string",
                Some(b'n') => "null",
                Some(b't' | b'f') => "a boolean",
                _ => "a number",
            }),
            Err(error) => syntax(text, &error),
        };
    }
    syntax(text, error)
}

fn syntax(text: &str, error: &serde_json::Error) -> Error {
    let (full, column) = (error.to_string(), error.column());
    let reason = full.split(" at line ").next().unwrap_or(&full).to_owned();
    // The column is that of the first byte which cannot be, or of the one before it.
    let word = (column.saturating_sub(2)..=column).find_map(|at| {
        let rest = text.get(at..)?;
        NOT_JSON.into_iter().find(|word| rest.starts_with(word))
    });
    let reason = word.map_or(reason, |word| format!("{word} is no JSON"));
    Error::Syntax { reason, column }
}

/// What Python and JavaScript have for numbers that are none; JSON has no word for them.
const NOT_JSON: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// A text in which `NaN`, `Infinity` and `-Infinity` stand as values, with null in their places; `None` where there are
/// none. Python writes them for numbers that are missing.
#[must_use]
pub fn without_nan(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    if !["NaN", "Infinity"]
        .iter()
        .any(|word| memchr::memmem::find(bytes, word.as_bytes()).is_some())
    {
        return None;
    }
    let (mut out, mut at, mut kept) = (String::with_capacity(text.len()), 0, 0);
    while let Some(&byte) = bytes.get(at) {
        let word = match byte {
            b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b'N' | b'I' | b'-' => {
                NOT_JSON.into_iter().find(|it| bytes[at..].starts_with(it.as_bytes()))
            }
            _ => None,
        };
        let Some(word) = word else {
            at += 1;
            continue;
        };
        out.push_str(text.get(kept..at)?);
        out.push_str("null");
        at += word.len();
        kept = at;
    }
    out.push_str(text.get(kept..)?);
    (kept > 0).then_some(out)
}

/// Whether brackets nest deeper than [`MAX_DEPTH`]. Most rows are too short for it, or hold fewer
/// brackets than that in all, which is quick to see.
fn nests_too_deep(text: &[u8]) -> bool {
    let is_short = text.len() <= 2 * MAX_DEPTH;
    if is_short || memchr::memchr2_iter(b'{', b'[', text).nth(MAX_DEPTH).is_none() {
        return false;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => at = string_end(text, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ => at += 1,
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

/// The index behind the string that begins at `start`, or the end of the text.
#[must_use]
pub fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(found) = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if text[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    text.len()
}

/// Appends a text as a JSON string.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    // Writing to a Vec cannot fail, nor can a str fail to be a JSON string.
    let _ = serde_json::to_writer(out, text);
}

/// Appends a JSON value in lines indented by two spaces, as `json.dumps(…, indent=2,
/// ensure_ascii=False)` of Python's has it, but with numbers and duplicate keys as they are.
///
/// The text must be valid JSON. Characters that need no escape lose theirs (`\u00e9` is `é`),
/// because a model reads words, not code points.
pub fn pretty(value: &str, out: &mut String) {
    let text = value.as_bytes();
    let (mut depth, mut at) = (0, 0);
    while let Some(&byte) = text.get(at) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => at += 1,
            b'"' => {
                let end = string_end(text, at);
                unescape(&value[at..end], out);
                at = end;
            }
            b'{' | b'[' => {
                out.push(byte as char);
                at += 1;
                let rest = value[at..].trim_ascii_start();
                if rest.starts_with(['}', ']']) {
                    at = text.len() - rest.len() + 1;
                    out.push(if byte == b'{' { '}' } else { ']' });
                } else {
                    depth += 1;
                    new_line(out, depth);
                }
            }
            b'}' | b']' => {
                depth -= 1;
                new_line(out, depth);
                out.push(byte as char);
                at += 1;
            }
            b',' => {
                out.push(',');
                new_line(out, depth);
                at += 1;
            }
            b':' => {
                out.push_str(": ");
                at += 1;
            }
            _ => {
                let end = text[at..]
                    .iter()
                    .position(|b| matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n'))
                    .map_or(text.len(), |n| at + n);
                out.push_str(&value[at..end]);
                at = end;
            }
        }
    }
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

/// Appends a JSON string, quotes included, with the escapes it can do without replaced.
fn unescape(string: &str, out: &mut String) {
    let mut rest = string;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let (escape, character) = match rest.as_bytes().get(at + 1) {
            Some(b'/') => (2, Some('/')),
            Some(b'u') => code_point(&rest[at..]),
            _ => (2, None),
        };
        let end = (at + escape).min(rest.len());
        match character {
            Some(c) if c >= ' ' && c != '"' && c != '\\' => out.push(c),
            _ => out.push_str(&rest[at..end]),
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
}

/// The length of a `\u` escape, or of a surrogate pair of them, and its character if it has one.
fn code_point(escape: &str) -> (usize, Option<char>) {
    let unit = |at: usize| escape.get(at..at + 4).and_then(|hex| u16::from_str_radix(hex, 16).ok());
    let Some(first) = unit(2) else { return (2, None) };
    if let Some(character) = char::from_u32(u32::from(first)) {
        return (6, Some(character));
    }
    let second = if escape.get(6..8) == Some("\\u") { unit(8) } else { None };
    match second.map(|second| char::decode_utf16([first, second]).next()) {
        Some(Some(Ok(character))) => (12, Some(character)),
        _ => (6, None),
    }
}

/// The fields of an object, borrowed from its text.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(8);
                while let Some(Key(name)) = map.next_key()? {
                    let value: &'de RawValue = map.next_value()?;
                    fields.push((name, value.get()));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// A field's name, borrowed where it holds no escape.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn printed(value: &str) -> String {
        let mut out = String::new();
        pretty(value, &mut out);
        out
    }

    #[test]
    fn fields_are_slices_of_the_row() {
        let row = r#" {"n":1.50,"big":123456789012345678901234567890,"a b.c":[1, 2],"n":-0} "#;
        let object = Object::parse(row).unwrap();
        assert_eq!(object.get("big"), Some("123456789012345678901234567890"));
        assert_eq!(object.get("a b.c"), Some("[1, 2]"));
        assert_eq!(object.get("n"), Some("-0"), "the last of two counts");
        assert_eq!(object.text(), row.trim());
        assert_eq!(object.get("N"), None);
        assert_eq!(Object::parse(r#"{"\u00e9":1}"#).unwrap().get("é"), Some("1"));
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        for (text, message) in [
            ("[1]", "expected a JSON object, got a list"),
            ("null", "expected a JSON object, got null"),
            ("12", "expected a JSON object, got a number"),
            ("{\"a\":NaN}", "NaN is no JSON at column 6"),
            ("[-Infinity]", "-Infinity is no JSON at column 3"),
            ("{\"a\":1", "EOF while parsing an object at column 6"),
            ("{} {}", "trailing characters at column 4"),
            ("\"the whole row\": 1", "trailing characters at column 16"),
            ("", "EOF while parsing a value at column 0"),
        ] {
            assert_eq!(Object::parse(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn depth_is_bounded_and_strings_do_not_count() {
        let nested = |depth| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(Object::parse(&nested(MAX_DEPTH - 1)).is_ok());
        assert_eq!(Object::parse(&nested(MAX_DEPTH)).unwrap_err(), Error::TooDeep);
        assert_eq!(Object::parse(&nested(1_000_000)).unwrap_err(), Error::TooDeep);
        let text = format!("{{\"a\":\"{}\\\"\"}}", "[".repeat(1000));
        assert!(Object::parse(&text).is_ok());
    }

    #[test]
    fn pretty_keeps_numbers_and_duplicates_and_frees_words() {
        assert_eq!(
            printed(
                r#"{"a":1.50,"a":[ ],"b":{"c":[1,{ }]},"d":"caf\u00e9 \ud83d\ude00\n\/\u0022"}"#
            ),
            "{\n  \"a\": 1.50,\n  \"a\": [],\n  \"b\": {\n    \"c\": [\n      1,\n      {}\n    ]\n  },\n  \
             \"d\": \"café 😀\\n/\\u0022\"\n}"
        );
        assert_eq!(printed(r#""\ud800x \u0000""#), r#""\ud800x \u0000""#, "no text for these");
    }

    proptest! {
        #[test]
        fn pretty_means_the_same(value in any_json()) {
            let text = value.to_string();
            prop_assert_eq!(serde_json::from_str::<Value>(&printed(&text)).unwrap(), value.clone());
            prop_assert_eq!(printed(&text), serde_json::to_string_pretty(&value).unwrap());
        }

        #[test]
        fn never_panics(text in "[\\[\\]{}\",:\\\\ud8-f0-9a-n ]{0,40}") {
            let _ = Object::parse(&text);
            nests_too_deep(text.as_bytes());
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }
}
