//! Row ids: kept as the row spells them, compared by what they mean.

use std::borrow::Cow;
use std::fmt;

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// A row's id as the JSON token its row spells it with: a non-empty string or an integer.
///
/// The token is kept byte for byte, so that `"r\u0031"` and `900719925474099312345` come out of
/// a run as they went in. Two ids are the same row's when their [`Id::hash`] is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id(Box<str>);

/// A 128-bit hash of what an id means: `"a"` and `"\u0061"` agree, `1` and `"1"` do not.
pub type IdHash = u128;

/// Why a value cannot be a row's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdProblem {
    /// The value is `null`.
    Null,
    /// The value is the empty string.
    Empty,
    /// The value is a fraction, a boolean, a list or an object.
    WrongType,
}

impl fmt::Display for IdProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "is null",
            Self::Empty => "is empty",
            Self::WrongType => "is neither a string nor an integer",
        })
    }
}

/// Seeds that keep strings and integers apart even where their text is the same.
const STRING_SEED: u64 = 1;
const INTEGER_SEED: u64 = 2;
const INPUT_SEED: u64 = 3;

impl Id {
    /// The id of a row in a job without an id field: its 1-based row number.
    #[must_use]
    pub fn from_row_number(row: u64) -> Self {
        Self(row.to_string().into_boxed_str())
    }

    /// What stands for the id of a row whose id field cannot be read: null, which is nobody's id. A row number could
    /// be the id of another row.
    #[must_use]
    pub fn unknown() -> Self {
        Self("null".into())
    }

    /// The id of a row in a job that tells rows apart by their text: the first half of its blake3
    /// hash, in hex.
    #[must_use]
    pub fn from_content(text: &str) -> Self {
        let hash = blake3::hash(text.as_bytes()).to_hex();
        Self(format!("\"{}\"", &hash[..32]).into_boxed_str())
    }

    /// Takes the id from a JSON token, without surrounding white space.
    ///
    /// # Errors
    /// When the token is no non-empty string and no integer.
    pub fn parse(token: &str) -> Result<Self, IdProblem> {
        check(token)?;
        Ok(Self(token.into()))
    }

    /// The [`Id::hash`] of the id that a JSON token is, where nothing else of it is wanted.
    ///
    /// # Errors
    /// As [`Id::parse`].
    pub fn hash_of(token: &str) -> Result<IdHash, IdProblem> {
        check(token)?;
        Ok(hash(token))
    }

    /// The id as a string value, spelled as JSON.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(serde_json::Value::from(text).to_string().into_boxed_str())
    }

    /// The JSON token, as the row has it.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// The text of a string id, or the digits of an integer.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        text(&self.0)
    }

    /// A hash by which ids are compared across files.
    #[must_use]
    pub fn hash(&self) -> IdHash {
        hash(&self.0)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check(token: &str) -> Result<(), IdProblem> {
    match token.as_bytes().first() {
        Some(b'"') if token.len() > 2 => Ok(()),
        Some(b'"') => Err(IdProblem::Empty),
        Some(b'n') => Err(IdProblem::Null),
        Some(b'-' | b'0'..=b'9') if is_integer(token) => Ok(()),
        _ => Err(IdProblem::WrongType),
    }
}

fn text(token: &str) -> Cow<'_, str> {
    if !token.starts_with('"') {
        return Cow::Borrowed(token);
    }
    // A lone surrogate has no text; its escape stands for itself.
    serde_json::from_str(token)
        .map_or_else(|_| Cow::Borrowed(&token[1..token.len() - 1]), Cow::Owned)
}

fn hash(token: &str) -> IdHash {
    if !token.starts_with('"') {
        return xxh3_128_with_seed(token.as_bytes(), INTEGER_SEED);
    }
    let inner = &token[1..token.len() - 1];
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return xxh3_128_with_seed(inner.as_bytes(), STRING_SEED);
    }
    xxh3_128_with_seed(text(token).as_bytes(), STRING_SEED)
}

/// What the hashes of the ids of an input are mixed with (by exclusive or) where ids need only be
/// unique within it; `name` tells it from others.
#[must_use]
pub fn input_salt(name: &str) -> IdHash {
    xxh3_128_with_seed(name.as_bytes(), INPUT_SEED)
}

fn is_integer(token: &str) -> bool {
    let digits = token.strip_prefix('-').unwrap_or(token);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(token: &str) -> IdHash {
        let hash = Id::parse(token).unwrap().hash();
        assert_eq!(Id::hash_of(token), Ok(hash));
        hash
    }

    #[test]
    fn keeps_the_token_and_compares_the_meaning() {
        let id = Id::parse(r#""r\u0031""#).unwrap();
        assert_eq!(id.as_json(), r#""r\u0031""#);
        assert_eq!(id.text(), "r1");
        assert_eq!(hash(r#""r\u0031""#), hash(r#""r1""#));
        assert_ne!(hash("1"), hash(r#""1""#), "an integer is not the string of its digits");
        assert_ne!(hash("12345678901234567890123"), hash("12345678901234567890124"));
    }

    #[test]
    fn lone_surrogates_are_ids_of_their_own() {
        assert_ne!(hash(r#""\ud800""#), hash(r#""\ud801""#));
        assert_eq!(Id::parse(r#""\ud800""#).unwrap().text(), r"\ud800");
    }

    #[test]
    fn refuses_what_names_no_row() {
        for (token, problem) in [
            ("null", IdProblem::Null),
            (r#""""#, IdProblem::Empty),
            ("true", IdProblem::WrongType),
            ("1.0", IdProblem::WrongType),
            ("1e3", IdProblem::WrongType),
            ("-", IdProblem::WrongType),
            ("[1]", IdProblem::WrongType),
            ("{}", IdProblem::WrongType),
        ] {
            assert_eq!(Id::parse(token), Err(problem), "{token}");
        }
    }
}
