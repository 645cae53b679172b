//! Text that is almost JSON, where it can mean one thing only: what Python and JavaScript would read, and slips that leave
//! no doubt. Nothing is guessed: what lacks a comma, a quote or an end is not repaired.
//!
//! Our own, because crates that repair JSON close what was cut off, and readers of JSON5 do not keep the spelling of
//! numbers.

use crate::format::json::string_end;

/// How deep values may nest; as deep as JSON is read.
const DEEPEST: usize = 127;

/// The JSON that the beginning of a text stands for, and the bytes that it takes up; `None` where that is not certain.
///
/// Repaired are: commas behind the last member, comments, strings in single or curly quotes, field names without quotes,
/// `True`, `False` and `None`, line ends and tabs within strings, and `\'`.
pub(super) fn repair_prefix(text: &str) -> Option<(String, usize)> {
    let mut repair = Repair { text, at: 0, depth: 0, out: String::new() };
    repair.value()?;
    Some((repair.out, repair.at))
}

struct Repair<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    out: String,
}

impl<'a> Repair<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Passes over white space and comments; gives the next character.
    fn peek(&mut self) -> Option<char> {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_ascii_start().len();
            let rest = &rest[blank..];
            let comment = match rest {
                _ if rest.starts_with("//") || rest.starts_with('#') => {
                    memchr::memchr(b'\n', rest.as_bytes())?
                }
                _ if rest.starts_with("/*") => rest.find("*/")? + 2,
                _ => 0,
            };
            self.at += blank + comment;
            if comment == 0 {
                return rest.chars().next();
            }
        }
    }

    fn takes(&mut self, mark: char) -> Option<bool> {
        let is_there = self.peek()? == mark;
        if is_there {
            self.at += 1;
            self.out.push(mark);
        }
        Some(is_there)
    }

    fn value(&mut self) -> Option<()> {
        match self.peek()? {
            '{' => self.members('}'),
            '[' => self.members(']'),
            '"' | '\'' | '“' | '‘' => self.string(),
            _ => self.word(),
        }
    }

    /// The members of an object or a list, and its brackets.
    fn members(&mut self, end: char) -> Option<()> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        self.out.push(if end == '}' { '{' } else { '[' });
        self.at += 1;
        if self.takes(end)? {
            self.depth -= 1;
            return Some(());
        }
        loop {
            if end == '}' {
                self.name()?;
                if !self.takes(':')? {
                    return None;
                }
            }
            self.value()?;
            if self.peek()? == ',' {
                self.at += 1;
                if self.peek()? != end {
                    self.out.push(',');
                    continue;
                }
            }
            if !self.takes(end)? {
                return None;
            }
            self.depth -= 1;
            return Some(());
        }
    }

    fn name(&mut self) -> Option<()> {
        if matches!(self.peek()?, '"' | '\'' | '“' | '‘') {
            return self.string();
        }
        let rest = self.rest();
        let is_of_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
        let length = rest.find(|c| !is_of_name(c))?;
        if length == 0 || rest.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        self.out.push('"');
        self.out.push_str(&rest[..length]);
        self.out.push('"');
        self.at += length;
        Some(())
    }

    /// A number as it is spelled, or one of the words that JSON or Python has.
    fn word(&mut self) -> Option<()> {
        let rest = self.rest();
        let is_of_word = |c: char| c.is_alphanumeric() || matches!(c, '-' | '+' | '.' | '_');
        let length = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
        let json = match &rest[..length] {
            "True" => "true",
            "False" => "false",
            "None" => "null",
            word => word,
        };
        let is_json = matches!(json, "true" | "false" | "null")
            || serde_json::from_str::<serde_json::Number>(json).is_ok();
        self.out.push_str(json);
        self.at += length;
        is_json.then_some(())
    }

    /// A string in any quotes. What stands behind it shows whether it ended where it seems to.
    fn string(&mut self) -> Option<()> {
        let rest = self.rest();
        let open = rest.chars().next()?;
        let close = match open {
            '“' => '”',
            '‘' => '’',
            other => other,
        };
        self.out.push('"');
        let inner = &rest[open.len_utf8()..];
        let mut characters = inner.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                _ if character == close => {
                    self.out.push('"');
                    self.at += open.len_utf8() + at + close.len_utf8();
                    return Some(());
                }
                '\\' => match characters.next()?.1 {
                    '\'' => self.out.push('\''),
                    escaped => self.out.extend(['\\', escaped]),
                },
                '"' => self.out.push_str("\\\""),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                other => self.out.push(other),
            }
        }
        None
    }
}

/// Whether a text that is no JSON was to be an object or a list: what stands in it is then a part of that, and no value of
/// its own.
pub(super) fn begins_json(text: &str) -> bool {
    const SEEN: usize = 200;
    let beginning = &text.as_bytes()[..text.len().min(SEEN)];
    let mut bytes = beginning.iter().filter(|byte| !byte.is_ascii_whitespace());
    match (bytes.next(), bytes.next()) {
        (Some(b'{'), Some(b'"')) | (Some(b'['), Some(b'{' | b'[' | b'"')) => true,
        (Some(b'{'), Some(b'\'')) => memchr::memmem::find(beginning, b"':").is_some(),
        _ => false,
    }
}

/// How many bytes a value has that is no JSON, by its brackets; `None` where it does not end.
pub(super) fn broken_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::value::parse;

    fn repaired(text: &str) -> Option<String> {
        let (json, length) = repair_prefix(text)?;
        assert_eq!(length, text.trim_end().len(), "{text}");
        parse(&json).ok().map(|_| json)
    }

    #[test]
    fn what_can_mean_one_thing_is_repaired() {
        for (text, json) in [
            (r#"{"a":1.50,}"#, r#"{"a":1.50}"#),
            (r#"{"a":[1,2,],}"#, r#"{"a":[1,2]}"#),
            ("{'a': 'x', 'b': True, 'c': None}", r#"{"a":"x","b":true,"c":null}"#),
            (r#"{'a': 'say "x"', "b": "it's"}"#, r#"{"a":"say \"x\"","b":"it's"}"#),
            (r"{'a': 'it\'s'}", r#"{"a":"it's"}"#),
            ("{“a”: “x”, ‘b’: 1}", r#"{"a":"x","b":1}"#),
            ("{a: 1, b_2: 'x'}", r#"{"a":1,"b_2":"x"}"#),
            ("{\"a\": 1, // one\n/* two */ \"b\": 2 # three\n}", r#"{"a":1,"b":2}"#),
            ("{\"a\": \"x\ny\tz\"}", r#"{"a":"x\ny\tz"}"#),
            (r#"{"u":"http://x/#y"}"#, r#"{"u":"http://x/#y"}"#),
            ("[]", "[]"),
        ] {
            assert_eq!(repaired(text).as_deref(), Some(json), "{text}");
        }
    }

    #[test]
    fn what_must_be_guessed_is_not_repaired() {
        for text in [
            r#"{"a":1"#,
            r#"{"a":"x"#,
            r#"{"a":1 "b":2}"#,
            r#"{"a":"he said "x" to me"}"#,
            "{'a': 'it's'}",
            r#"{"a":1,,"b":2}"#,
            r#"{"a":}"#,
            r#"{"a":NaN}"#,
            r#"{"a":.5}"#,
            r#"{"a":undefined}"#,
            r#"{"a":pos}"#,
            r#"{"a":…}"#,
            r#"{"a":1,"a":2,}"#,
            r#"{"a":"\x41",}"#,
            "{b}",
            "[see]",
            "{}}",
        ] {
            assert!(
                repair_prefix(text)
                    .is_none_or(|(json, length)| { length < text.len() || parse(&json).is_err() }),
                "{text}"
            );
        }
        assert!(repair_prefix(&"[".repeat(100_000)).is_none());
    }
}
