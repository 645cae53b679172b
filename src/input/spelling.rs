//! How a file is spelled: by its content, and by its name where that could be anything.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::de::IgnoredAny;

use crate::format::csv;

/// How a file's rows are spelled, as far as its name and its beginning tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    JsonLines,
    // With what is expected to stand between fields.
    Csv(u8),
}

/// Why a file does not tell how its rows are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unclear {
    Binary,
    // It begins as a JSON object that does not end in its line.
    Object,
    Unknown,
}

/// As much of a file as tells what it is.
pub(super) fn head_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD).read_to_end(&mut head)?;
    Ok(head)
}

/// What is read of a file to tell what it is.
const HEAD: u64 = 64 << 10;

/// How a file is spelled that begins like this: its content decides, its name where that could be either.
pub(super) fn spelling(path: &Path, head: &[u8]) -> Result<Spelling, Unclear> {
    let ending = path.extension().map(std::ffi::OsStr::to_ascii_lowercase);
    let by_name = match ending.as_deref().and_then(|ending| ending.to_str()) {
        Some("jsonl" | "ndjson") => return Ok(Spelling::JsonLines),
        Some("csv") => Some(Spelling::Csv(csv::COMMA)),
        Some("tsv" | "tab") => Some(Spelling::Csv(b'\t')),
        _ => None,
    };
    let text = head.strip_prefix(BOM).unwrap_or(head).trim_ascii_start();
    let is_all = (head.len() as u64) < HEAD;
    let (line, is_whole) = match memchr::memchr(b'\n', text) {
        Some(end) => (&text[..end], true),
        None => (text, is_all),
    };
    let is_object = match is_whole {
        true => serde_json::from_slice::<HashMap<String, IgnoredAny>>(line).is_ok(),
        false => line.starts_with(b"{\""),
    };
    match (by_name, text.first()) {
        _ if is_object => Ok(Spelling::JsonLines),
        (Some(spelling), _) => Ok(spelling),
        _ if not_text(&head[..head.len().min(4096)]).is_some() => Err(Unclear::Binary),
        (None, None | Some(b'[')) => Ok(Spelling::JsonLines),
        (None, Some(b'{')) => Err(Unclear::Object),
        _ if csv::looks_like_tabs(text, is_all) => Ok(Spelling::Csv(b'\t')),
        _ => Err(Unclear::Unknown),
    }
}

/// Whether a file holds CSV, as far as can be told; one that cannot be read, or only once, by its name alone.
#[must_use]
pub fn holds_csv(path: &Path) -> bool {
    let head = match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => head_of(path).unwrap_or_default(),
        _ => Vec::new(),
    };
    matches!(spelling(path, &head), Ok(Spelling::Csv(_)))
}

/// Whether this is the beginning of a list of objects: no row is spelled like that.
pub(super) fn is_list_of_objects(head: &[u8]) -> bool {
    let text = head.strip_prefix(BOM).unwrap_or(head).trim_ascii_start();
    let within = text.strip_prefix(b"[").map(<[u8]>::trim_ascii_start);
    within.is_some_and(|within| within.starts_with(b"{"))
}

/// What some editors begin text files with.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

/// What a file looks like that begins with these bytes and is no text.
#[must_use]
pub fn not_text(head: &[u8]) -> Option<&'static str> {
    let magics: [(&[u8], &str); 7] = [
        (b"\xff\xfe", "UTF-16"),
        (b"\xfe\xff", "UTF-16"),
        (b"\x1f\x8b", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"PAR1", "Parquet"),
        (b"PK\x03\x04", "a zip archive"),
        (b"BZh", "bzip2"),
    ];
    if let Some((_, what)) = magics.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Some(what);
    }
    let zeros = memchr::memchr_iter(0, head).count();
    match zeros * 3 {
        0 => None,
        many if many >= head.len() => Some("UTF-16"),
        _ => Some("binary data"),
    }
}
