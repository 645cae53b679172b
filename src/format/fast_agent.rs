//! What `batch run` of fast-agent leaves behind: the manifest of a work directory, and which of its envelopes
//! that say `ok` hold no answer.
//!
//! Only read, never written: whoever comes from there keeps the answers that are paid for. Its lines are
//! [envelopes](super::envelope), spelled by Python.
//! Source: <https://github.com/evalstate/fast-agent>, `src/fast_agent/batch` of 0.10.46, and what that wrote.

use serde::Deserialize;

/// The file that makes a directory one of its work directories.
pub const MANIFEST: &str = "manifest.json";

/// What its manifest says, as far as it is of use: there is neither model nor prompt in it, nor a hash.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Manifest {
    /// The input's absolute path, or an `hf://` URL.
    pub input: String,
    /// How many rows the input had.
    pub input_rows: u64,
    /// How many of them were asked about, where it says so.
    #[serde(default)]
    pub selected_rows: Option<u64>,
    /// The files of answers. Versions before 0.7.21 called them shards.
    #[serde(alias = "shards")]
    pub chunks: Vec<Chunk>,
}

/// A range of rows that a worker takes at a time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Chunk {
    /// The file of its answers, relative to where the command was typed.
    pub output: String,
    /// How many rows it has, where that is said.
    #[serde(default)]
    pub limit: Option<u64>,
}

/// Reads a manifest; nothing where the text is none of fast-agent's.
#[must_use]
pub fn read_manifest(text: &[u8]) -> Option<Manifest> {
    serde_json::from_slice(text).ok()
}

/// What the row numbers of its envelopes count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbering {
    /// Lines of a JSON Lines file, blank ones included.
    Lines,
    /// Records of a CSV file from 2: the header is the first.
    Records,
    /// Rows, from 1.
    Rows,
}

impl Numbering {
    /// How the rows of a file of this name are counted; nothing where it reads no such files.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        // Behind a URL there may be a query.
        let name = name.split('?').next().unwrap_or(name).to_ascii_lowercase();
        match name.rsplit('.').next()? {
            "jsonl" => Some(Self::Lines),
            "csv" => Some(Self::Records),
            "parquet" => Some(Self::Rows),
            _ => None,
        }
    }
}

/// Whether a line that is an envelope is spelled as Python does, so that rowmill did not write it.
#[must_use]
pub fn is_theirs(line: &[u8]) -> bool {
    line.starts_with(b"{\"id\": ")
}

/// Why an envelope that says `ok` holds no answer all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It is empty: the row was interrupted, by Ctrl-C or because another chunk failed.
    Empty,
    /// It is the text of a failed call: servers' errors, refused keys and lost connections are written down as answers.
    Failure,
}

/// What is wrong with the result (its JSON token) of an envelope that says `ok`; nothing where it may be an answer.
#[must_use]
pub fn flaw(result: &str) -> Option<Flaw> {
    // Both are ASCII without anything that has to be escaped.
    const FAILURE: &str = "\"I hit an internal error while calling the model:";
    match result {
        "\"\"" | "null" => Some(Flaw::Empty),
        _ if result.starts_with(FAILURE) => Some(Flaw::Failure),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_of_all_versions_are_read_and_others_are_not() {
        let text = |chunks: &str| {
            format!(
                "{{\"input\": \"/data/in.jsonl\", \"output\": \"out.jsonl\", \"parallel\": 2, \"input_rows\": 7, \
                 \"{chunks}\": [{{\"index\": 0, \"offset\": 0, \"limit\": 4, \"output\": \"wd/chunk-000.jsonl\", \
                 \"error_output\": null}}]}}"
            )
        };
        let read = |chunks| read_manifest(text(chunks).as_bytes());
        let manifest = read("chunks").unwrap();
        assert_eq!((manifest.input.as_str(), manifest.input_rows), ("/data/in.jsonl", 7));
        assert_eq!(manifest.chunks[0].output, "wd/chunk-000.jsonl");
        assert_eq!(read("shards"), Some(manifest));
        assert_eq!(read("parts"), None);
        let whole = text("chunks");
        for cut in 0..whole.len() {
            assert_eq!(read_manifest(&whole.as_bytes()[..cut]), None, "cut at {cut}");
        }
        assert_eq!(read_manifest(br#"{"format":1,"source":{},"shards":[]}"#), None, "rowmill's");
    }

    #[test]
    fn rows_are_counted_as_the_format_has_it() {
        for (name, expected) in [
            ("/data/in.JSONL", Some(Numbering::Lines)),
            ("/data/in.csv", Some(Numbering::Records)),
            ("hf://datasets/a/b/x.parquet?split=train", Some(Numbering::Rows)),
            ("hf://datasets/a/b", None),
        ] {
            assert_eq!(Numbering::of_name(name), expected, "{name}");
        }
    }

    #[test]
    fn answers_that_are_none_are_told() {
        for (result, expected) in [
            ("\"\"", Some(Flaw::Empty)),
            ("null", Some(Flaw::Empty)),
            (
                "\"I hit an internal error while calling the model: generic request failed for model 'm' (status=500)\"",
                Some(Flaw::Failure),
            ),
            ("\"I hit an internal error\"", None),
            ("\" \"", None),
            ("{\"a\": 1}", None),
        ] {
            assert_eq!(flaw(result), expected, "{result}");
        }
    }
}
