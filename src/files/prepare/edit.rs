//! Changing a member of a JSON text without touching the others' bytes.

use std::ops::Range;

use crate::dialect::members;
use crate::format::json::{Object, write_string};

/// A place in a JSON value: names of fields, and numbers of members of lists, from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(Vec<String>);

impl Path {
    /// Reads a path in dot notation: `body.messages.0.content`. A dot in a name is `\.`.
    ///
    /// # Errors
    /// When a name in it is empty.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut names = vec![String::new()];
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match (character, names.last_mut()) {
                ('.', _) => names.push(String::new()),
                ('\\', Some(last)) => last.extend(characters.next()),
                (character, Some(last)) => last.push(character),
                (_, None) => {}
            }
        }
        if names.iter().any(String::is_empty) {
            return Err(format!("{text:?} is no path: expected names parted by dots, body.seed"));
        }
        Ok(Self(names))
    }

    /// A path by its names.
    #[must_use]
    pub fn of(names: &[&str]) -> Self {
        Self(names.iter().map(|&name| name.to_owned()).collect())
    }
}

/// A piece of a text, and what takes its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) range: Range<usize>,
    pub(super) with: String,
}

/// Where a slice of a text stands in it.
pub(super) fn range_of(text: &str, slice: &str) -> Range<usize> {
    let start = (slice.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
    debug_assert!(start + slice.len() <= text.len(), "it is a slice of the text");
    start..start + slice.len()
}

/// The text with pieces of it replaced; they must not overlap.
pub(super) fn splice(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| edit.range.start);
    let more: usize = edits.iter().map(|edit| edit.with.len()).sum();
    let mut out = String::with_capacity(text.len() + more);
    let mut at = 0;
    for Edit { range, with } in edits {
        out.push_str(&text[at..range.start]);
        out.push_str(&with);
        at = range.end;
    }
    out.push_str(&text[at..]);
    out
}

/// The text of a JSON value with the member at a path set to a value, given as JSON; nothing where it is that already.
/// Fields that are not there are put behind the others. Of two fields of one name the last is set, as it is the one that
/// counts.
///
/// # Errors
/// When the path leads through something that has no members, or to a member of a list that is not there.
pub(super) fn set(text: &str, path: &Path, value: &str) -> Result<Option<String>, String> {
    let mut at = text.trim_ascii();
    let Path(names) = path;
    for (depth, name) in names.iter().enumerate() {
        let here = || match depth {
            0 => "the line".to_owned(),
            _ => names[..depth].join("."),
        };
        let inner = match at.as_bytes().first() {
            Some(b'{') => {
                let object = Object::parse(at).map_err(|error| error.to_string())?;
                match object.get(name) {
                    Some(inner) => inner,
                    None => {
                        let is_empty = object.names().next().is_none();
                        let with = member(&names[depth..], value, is_empty);
                        let end = range_of(text, at).end - 1;
                        return Ok(Some(splice(text, vec![Edit { range: end..end, with }])));
                    }
                }
            }
            Some(b'[') => {
                let list = members(at);
                let index = name.parse::<usize>().ok().filter(|index| *index < list.len());
                let Some(index) = index else {
                    return Err(format!("{} is a list without a member {name}", here()));
                };
                list[index]
            }
            _ => return Err(format!("{} is neither an object nor a list", here())),
        };
        at = inner;
    }
    if at == value {
        return Ok(None);
    }
    let edit = Edit { range: range_of(text, at), with: value.to_owned() };
    Ok(Some(splice(text, vec![edit])))
}

/// A field to put behind the others of an object, with the objects that the rest of its path leads through.
fn member(names: &[String], value: &str, is_first: bool) -> String {
    let mut out = Vec::new();
    for (depth, name) in names.iter().enumerate() {
        match depth {
            0 if is_first => {}
            0 => out.push(b','),
            _ => out.push(b'{'),
        }
        write_string(&mut out, name);
        out.push(b':');
    }
    // Names and values are text.
    let front = String::from_utf8(out).unwrap_or_default();
    format!("{front}{value}{}", "}".repeat(names.len() - 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn edited(text: &str, path: &str, value: &str) -> String {
        match set(text, &Path::parse(path).unwrap(), value) {
            Ok(Some(text)) => text,
            Ok(None) => "unchanged".to_owned(),
            Err(error) => error,
        }
    }

    #[test]
    fn other_members_keep_their_bytes() {
        let line =
            r#" {"n": 1.50 ,"body":{ "model" : "a", "n":1e2, "list":[1, {"x":2}] }, "n":2} "#;
        assert_eq!(edited(line, "body.model", "\"b\""), line.replace("\"a\"", "\"b\""));
        assert_eq!(edited(line, "body.list.1.x", "[]"), line.replace("\"x\":2", "\"x\":[]"));
        assert_eq!(edited(line, "n", "3"), line.replace("\"n\":2", "\"n\":3"), "the last counts");
        assert_eq!(edited(line, "body.model", "\"a\""), "unchanged");
        assert_eq!(
            edited(line, "body.a.b\\.c", "true"),
            line.replace("}] }", "}] ,\"a\":{\"b.c\":true}}")
        );
        assert_eq!(edited("{}", "a", "1"), "{\"a\":1}");
        assert_eq!(edited("{ }", "a.b", "1"), "{ \"a\":{\"b\":1}}");
    }

    #[test]
    fn paths_that_lead_nowhere_are_refused() {
        let line = r#"{"a":"x","l":[1]}"#;
        assert_eq!(edited(line, "a.b", "1"), "a is neither an object nor a list");
        assert_eq!(edited(line, "l.1", "1"), "l is a list without a member 1");
        assert_eq!(edited(line, "l.x.y", "1"), "l is a list without a member x");
        assert_eq!(edited("7", "l", "1"), "the line is neither an object nor a list");
        for text in ["", ".", "a.", ".a", "a..b"] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_set_is_there_and_nothing_else_changes(
            before in proptest::collection::btree_map("[a-c.]", "[a-z\"\\\\é]{0,3}", 0..4),
            name in "[a-d.]",
            inner in proptest::option::of("[a-c]"),
        ) {
            let text = json!({"body": before, "z": 1}).to_string();
            let mut names = vec!["body", name.as_str()];
            names.extend(inner.as_deref());
            let result = set(&text, &Path::of(&names), "[1.50]");
            if inner.is_some() && before.contains_key(&name) {
                prop_assert!(result.is_err(), "a string has no members");
                return Ok(());
            }
            let mut expected: Value = serde_json::from_str(&text).unwrap();
            expected["body"][&name] = match inner {
                Some(inner) => json!({inner: [1.5]}),
                None => json!([1.5]),
            };
            let after = result.unwrap().unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&after).unwrap(), expected);
        }
    }
}
