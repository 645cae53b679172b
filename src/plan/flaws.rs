//! What is wrong with rows, as people are told it: lines that are no requests, fields that are missing, and where.

use std::fmt;

use crate::input::{Source, Sources};
use crate::store::ShardEntry;

/// A line of a request file that is no request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: u64,
    /// The file it is in, where there are several.
    pub file: Option<String>,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, file, reason } = self;
        // Some reasons name the line themselves.
        let reason = reason.strip_prefix(&format!("line {line}: ")).unwrap_or(reason);
        match file {
            Some(file) => write!(f, "{file}, line {line}: {reason}"),
            None => write!(f, "line {line}: {reason}"),
        }
    }
}

/// Bad lines that are named.
pub(super) const BAD_LINES: usize = 100;

/// A field of the template that rows lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingField {
    /// Its name.
    pub name: String,
    /// How many rows lack it.
    pub rows: u64,
    /// The first of them, in words.
    pub first: String,
    /// How many rows there are that could have it.
    pub of: u64,
    /// A field that rows have and whose name is much like it.
    pub like: Option<String>,
}

impl fmt::Display for MissingField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, rows, first, of, like } = self;
        write!(
            f,
            "the template's field {name:?} is missing in {rows} of {of} rows, first in {first}"
        )?;
        match like {
            Some(like) => write!(f, " (is {like:?} meant?)"),
            None => Ok(()),
        }
    }
}

/// The file of an input, to be named where there are several.
pub(super) fn file_of(source: &Source) -> Option<String> {
    source.name.as_ref().map(|_| source.path.display().to_string())
}

/// A row in words: its number in its own input and, where there are several, which that is.
pub(super) fn named(sources: &Sources, shards: &[ShardEntry], row: u64) -> String {
    let place = shards.partition_point(|shard| shard.first_row + shard.rows <= row);
    match shards.get(place).map(|shard| (shard.own_row(row), sources.of(shard))) {
        Some((own, Source { name: Some(_), path, .. })) => {
            format!("row {own} of {}", path.display())
        }
        _ => format!("row {row}"),
    }
}

/// The name among `names` that is most like one that is missing, if any is.
pub fn alike<'n>(missing: &str, names: impl Iterator<Item = &'n str>) -> Option<String> {
    names
        .map(|name| (distance(&missing.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + missing.len().min(name.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.to_owned())
}

/// How many characters must be put in, taken out or changed to make one word of another
/// (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_much_alike_are_found() {
        let alike = |missing| alike(missing, ["id", "text", "review text"].into_iter());
        assert_eq!(alike("txt").as_deref(), Some("text"));
        assert_eq!(alike("Text").as_deref(), Some("text"));
        assert_eq!(alike("review_text").as_deref(), Some("review text"));
        assert_eq!(alike("stars"), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
