//! What is asked of rows and requests that pass by.

use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::input::{DialectArg, IdFromArg, MAX_ROW_BYTES};
use super::{ConfigArgs, FormArgs, ModelArgs, PaceArgs, PromptArgs, SchemaArgs, TellArgs};
use crate::dialect::Dialect;
use crate::policy::Allowance;

#[derive(Debug, Args)]
pub(in crate::cli) struct FilterArgs {
    /// What the lines are [default: what the first one looks like; with -p, --template,
    /// --attachment-field, --id-field or --id-from they are rows]
    #[arg(long, value_name = "NAME", value_enum, help_heading = "Input")]
    pub(in crate::cli) dialect: Option<DialectArg>,
    /// What they are, once that is found out.
    #[arg(skip)]
    pub(in crate::cli) lines: Dialect,
    /// Whether they are taken for rows, and nobody has looked.
    #[arg(skip)]
    pub(in crate::cli) is_unseen: bool,
    /// What was read of them for that.
    #[arg(skip)]
    pub(in crate::cli) ahead: Vec<u8>,
    /// The field that holds a row's id, a string or an integer; by default the number of its line, blank
    /// ones not counted. Whether an id comes twice is not looked at
    #[arg(long, value_name = "FIELD", value_parser = NonEmptyStringValueParser::new(), help_heading = "Input")]
    pub(in crate::cli) id_field: Option<String>,
    /// What a row's id is without --id-field [default: row-number]
    #[arg(
        long,
        value_name = "WHAT",
        value_enum,
        conflicts_with = "id_field",
        help_heading = "Input"
    )]
    pub(in crate::cli) id_from: Option<IdFromArg>,
    /// The largest row taken, in bytes; larger ones fail without a call
    #[arg(long, value_name = "BYTES", default_value_t = MAX_ROW_BYTES, value_parser = clap::value_parser!(u64).range(1..), help_heading = "Input")]
    pub(in crate::cli) max_row_bytes: u64,
    /// Write the lines in the order of the rows, not as answers come. One that takes long keeps those
    /// behind it waiting, 16 times --concurrency at most
    #[arg(long, help_heading = "Outputs")]
    pub(in crate::cli) ordered: bool,
    /// How lines out are spelled: rows (envelopes), openai (as OpenAI's Batch API and vLLM's run-batch),
    /// prompts (as dria batch) or dria (as Dria's Batch API) [default: as the lines in].
    /// docs/dialects.md has each, field by field
    #[arg(long, value_name = "DIALECT", help_heading = "Outputs")]
    pub(in crate::cli) output_format: Option<Dialect>,
    /// Put the row into its envelope; other formats than rows have no place for it
    #[arg(long, help_heading = "Outputs")]
    pub(in crate::cli) include_input: bool,
    /// Append one line an attempt to a file: times, tokens, status; several filters may share it
    #[arg(long, value_name = "FILE", help_heading = "Outputs")]
    pub(in crate::cli) telemetry_output: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) prompt: PromptArgs,
    #[command(flatten)]
    pub(in crate::cli) schema: SchemaArgs,
    #[command(flatten)]
    pub(in crate::cli) form: FormArgs,
    #[command(flatten)]
    pub(in crate::cli) model: ModelArgs,
    #[command(flatten)]
    pub(in crate::cli) pace: PaceArgs,
    #[command(flatten)]
    pub(in crate::cli) config: ConfigArgs,
    /// Exit with 0 though so many rows failed: a number of rows or a share of them (5%)
    #[arg(long, value_name = "N|P%", help_heading = "Work")]
    pub(in crate::cli) allow_failed: Option<Allowance>,
    #[command(flatten)]
    pub(in crate::cli) tell: TellArgs,
}
