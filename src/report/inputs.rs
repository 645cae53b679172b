//! What a summary says of the inputs.

use serde::Serialize;

use crate::store::{CommitFile, Manifest, SourcePrint};

/// The input of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Input {
    /// Where it was; nothing when it came through a pipe.
    pub path: Option<String>,
    /// Where it was fetched from, without what is secret in that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its format.
    pub format: String,
    /// Its length.
    pub bytes: u64,
    /// Its blake3 hash.
    pub blake3: String,
}

/// One of several inputs of a run.
#[derive(Debug, Clone, Serialize)]
pub struct InputRows {
    /// What it was.
    #[serde(flatten)]
    pub input: Input,
    /// Its rows.
    pub rows: u64,
    /// Of those asked about, the ones with an answer. Where several answers are wanted to a row, this
    /// and the next count each of them.
    pub ok: u64,
    /// The ones without.
    pub failed: u64,
    /// Where its output is.
    pub output: String,
}

/// What is said of an input.
pub(super) fn input(source: &SourcePrint) -> Input {
    Input {
        path: source.path.clone(),
        url: source.url.clone(),
        format: source.format.clone(),
        bytes: source.bytes,
        blake3: source.blake3.clone(),
    }
}

/// What became of each of several inputs; nothing where there is one.
pub(super) fn inputs(manifest: &Manifest, facts: &[(CommitFile, u64, u64)]) -> Vec<InputRows> {
    let of = |(source, (file, ok, failed)): (&SourcePrint, &(CommitFile, u64, u64))| InputRows {
        input: input(source),
        rows: source.rows,
        ok: *ok,
        failed: *failed,
        output: file.target.to_string_lossy().into_owned(),
    };
    let sources = manifest.sources.iter().filter(|source| source.name.is_some());
    sources.zip(facts).map(of).collect()
}
