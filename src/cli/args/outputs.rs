//! Where outputs go.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args};

use crate::dialect::Dialect;
use crate::http::Link;

#[derive(Debug, Args)]
#[command(next_help_heading = "Outputs")]
pub(in crate::cli) struct OutputArgs {
    /// One line a row, in input order; - is standard output. This and the others may be an http(s)
    /// URL, a pre-signed one say: the file is then uploaded there, with one PUT. Only of prompts it need
    /// not be said: then it is standard output. With several inputs a directory, made where it is not
    /// there, in which each has an output of its own name; so are --error-output, --telemetry-output and
    /// --output-delta then
    #[arg(short, long, alias = "output-file", value_name = "FILE|DIR|URL", default_value = "", hide_default_value = true, value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(in crate::cli) output: PathBuf,
    /// How lines of output, errors and delta are spelled: rows (envelopes), openai (as OpenAI's Batch API
    /// and vLLM's run-batch), prompts (as dria batch) or dria (as Dria's Batch API) [default: as the
    /// input's]. docs/dialects.md has each, field by field
    #[arg(long, value_name = "DIALECT")]
    pub(in crate::cli) output_format: Option<Dialect>,
    /// Put the row into its envelope; other formats than rows have no place for it
    #[arg(long)]
    pub(in crate::cli) include_input: bool,
    /// The lines of the rows that failed, in a file of their own as well
    #[arg(long, value_name = "FILE|URL")]
    pub(in crate::cli) error_output: Option<PathBuf>,
    /// One line an attempt: times, tokens, status
    #[arg(long, value_name = "FILE|URL")]
    pub(in crate::cli) telemetry_output: Option<PathBuf>,
    /// The lines of the answers that no earlier generation of the plan has published, in a file
    /// of their own as well: for loading downstream
    #[arg(long, value_name = "FILE|URL")]
    pub(in crate::cli) output_delta: Option<PathBuf>,
    /// What the run was and came to, as JSON
    #[arg(long, value_name = "FILE|URL")]
    pub(in crate::cli) summary_output: Option<PathBuf>,
    /// Where outputs that are uploaded wait for that [default: the work directory]
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) output_tmp_dir: Option<PathBuf>,
    /// The URLs among the outputs; in their places above stands what may be shown of them.
    #[arg(skip)]
    pub(in crate::cli) links: Vec<Link>,
    /// How many earlier generations of the plan are kept in the work directory once the last one is
    /// published
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(in crate::cli) keep_generations: u32,
    /// Print the summary on standard output (the default, unless the output goes there)
    #[arg(long, overrides_with = "no_final_summary", action = ArgAction::SetTrue)]
    pub(in crate::cli) final_summary: bool,
    /// Do not print the summary
    #[arg(long, overrides_with = "final_summary")]
    pub(in crate::cli) no_final_summary: bool,
}
