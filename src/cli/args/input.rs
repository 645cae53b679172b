//! Which rows.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};

use super::dedupe::DedupeArgs;
use crate::http::Link;
use crate::job::{Dialect, IdFrom, OnDuplicate};
use crate::pipeline::{Ahead, Inputs};

/// The bytes of the largest row taken, unless the command says otherwise.
pub(in crate::cli) const MAX_ROW_BYTES: u64 = 16 << 20;

#[derive(Debug, Args)]
#[command(next_help_heading = "Input")]
pub(in crate::cli) struct InputArgs {
    /// The rows: a file of JSON Lines, whatever its name, or a .csv or .tsv file, an http(s) URL of one, or - for JSON Lines on standard input.
    /// Several files, or a directory (all .jsonl files directly in it), are one job; each has outputs of
    /// its own name, in the directories that --output and the like are then
    #[arg(value_name = "INPUT", required_unless_present = "input", conflicts_with = "input")]
    pub(in crate::cli) files: Vec<PathBuf>,
    /// The rows, as an option; may be given several times
    #[arg(short, long, alias = "input-file", value_name = "FILE|DIR|URL")]
    pub(in crate::cli) input: Vec<PathBuf>,
    /// The URL that the rows are at; in its place above stands what may be shown of it.
    #[arg(skip)]
    pub(in crate::cli) link: Option<Link>,
    /// What its lines are [default: what the first 20 look like; of a work directory with a plan, what
    /// that says]
    #[arg(long, value_name = "NAME", value_enum)]
    pub(in crate::cli) dialect: Option<DialectArg>,
    /// Lines of a request file that cannot be sent fail without a call; without this the file is refused
    /// for them, before any call
    #[arg(long)]
    pub(in crate::cli) skip_bad_lines: bool,
    /// The files, once the paths were looked at.
    #[arg(skip)]
    pub(in crate::cli) inputs: Inputs,
    /// What its lines are, once that is found out.
    #[arg(skip)]
    pub(in crate::cli) lines: Dialect,
    /// Whether they are taken for rows, and nobody has looked.
    #[arg(skip)]
    pub(in crate::cli) is_unseen: bool,
    /// Whether none of them told what they are.
    #[arg(skip)]
    pub(in crate::cli) is_empty: bool,
    /// Why they are no prompts, where they could seem to be.
    #[arg(skip)]
    pub(in crate::cli) note: Option<String>,
    /// What was read of it for that, where it can be read only once.
    #[arg(skip)]
    pub(in crate::cli) ahead: Option<Ahead>,
    /// The field that holds a row's id, a string or an integer; by default the row number is the id
    #[arg(long, value_name = "FIELD", value_parser = NonEmptyStringValueParser::new())]
    pub(in crate::cli) id_field: Option<String>,
    /// What a row's id is without --id-field [default: row-number]
    #[arg(long, value_name = "WHAT", value_enum, conflicts_with = "id_field")]
    pub(in crate::cli) id_from: Option<IdFromArg>,
    /// Leave out so many rows at the beginning; of several inputs, this and the next two are of the rows
    /// of all, in the order of the files
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(in crate::cli) offset: u64,
    /// Take at most so many rows
    #[arg(long, value_name = "N")]
    pub(in crate::cli) limit: Option<u64>,
    /// Take so many rows at random, in input order; after --offset, before --limit
    #[arg(long, value_name = "N")]
    pub(in crate::cli) sample: Option<u64>,
    /// What the sample is drawn by: the same seed draws the same rows
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(in crate::cli) seed: u64,
    /// What to do with rows that have the id of an earlier row
    #[arg(long, value_name = "WHAT", value_enum, default_value = "error")]
    pub(in crate::cli) on_duplicate: OnDuplicateArg,
    #[command(flatten)]
    pub(in crate::cli) dedupe: DedupeArgs,
    /// The largest row taken, in bytes; larger ones fail without a call
    #[arg(long, value_name = "BYTES", default_value_t = MAX_ROW_BYTES, value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) max_row_bytes: u64,
    /// The most rows of a shard; by default as many as suit the input, at most 10,000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(in crate::cli) shard_rows: Option<u32>,
    /// Split the input into so many shards of about the same size; with --resume, spread what is
    /// left over so many, so that all workers have something to do again
    #[arg(long, value_name = "M", conflicts_with = "shard_rows", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(in crate::cli) shards: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum DialectArg {
    /// Any JSON objects, or CSV records: -p says what is asked of them
    Rows,
    /// Requests as OpenAI's Batch API, vllm run-batch and fastdeploy run-batch read them
    #[value(name = "openai")]
    OpenAi,
    /// Prompts as dria batch reads them; with -p, --template, --attachment-field, --id-field or
    /// --id-from lines that look like prompts are rows
    Prompts,
    /// Requests as Dria's Batch API reads them
    Dria,
}

impl From<DialectArg> for Dialect {
    fn from(arg: DialectArg) -> Self {
        match arg {
            DialectArg::Rows => Self::Rows,
            DialectArg::OpenAi => Self::OpenAi,
            DialectArg::Prompts => Self::Prompts,
            DialectArg::Dria => Self::Dria,
        }
    }
}

impl InputArgs {
    /// What is named, as arguments or as options.
    pub(in crate::cli) fn paths(&self) -> &[PathBuf] {
        if self.files.is_empty() { &self.input } else { &self.files }
    }

    /// The same, to be changed.
    pub(in crate::cli) fn paths_mut(&mut self) -> &mut [PathBuf] {
        if self.files.is_empty() { &mut self.input } else { &mut self.files }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum IdFromArg {
    /// Its number: a row that moves is another row
    RowNumber,
    /// A hash of its text: a row that moves keeps its answer, one that changes is another row
    Hash,
}

impl From<IdFromArg> for IdFrom {
    fn from(arg: IdFromArg) -> Self {
        match arg {
            IdFromArg::RowNumber => Self::RowNumber,
            IdFromArg::Hash => Self::Hash,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum OnDuplicateArg {
    /// Refuse the input before any call
    Error,
    /// Keep the first row, leave the others out
    First,
    /// Give the others ids of their own: x-2, x-3, …
    Suffix,
}

impl From<OnDuplicateArg> for OnDuplicate {
    fn from(arg: OnDuplicateArg) -> Self {
        match arg {
            OnDuplicateArg::Error => Self::Error,
            OnDuplicateArg::First => Self::First,
            OnDuplicateArg::Suffix => Self::Suffix,
        }
    }
}
