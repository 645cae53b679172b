//! What is asked about a row.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};

use crate::job::OnMissingField;

#[derive(Debug, Args)]
#[command(next_help_heading = "Prompt")]
pub(in crate::cli) struct PromptArgs {
    /// The row template: {{field}} stands for a field, {{row_json}} for the whole row; @FILE for a file that holds
    /// it. By default the model is shown the whole row
    #[arg(short, long, value_name = "TEXT", conflicts_with = "template", value_parser = NonEmptyStringValueParser::new())]
    pub(in crate::cli) prompt: Option<String>,
    /// A file that holds the row template
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) template: Option<PathBuf>,
    /// Take a template that names no field: every row asks the same
    #[arg(long)]
    pub(in crate::cli) allow_constant_prompt: bool,
    /// A file that holds the system instruction
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) instruction: Option<PathBuf>,
    /// The field that names an image, sound or PDF to send with the prompt: a path (relative to the
    /// input file), an http(s) URL, a data URI, or a list of these. Rows without one are asked as text
    #[arg(long, value_name = "FIELD", value_parser = NonEmptyStringValueParser::new())]
    pub(in crate::cli) attachment_field: Option<String>,
    /// The most bytes attached to a row; rows with more fail without a call [default: 20971520]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) max_attachment_bytes: Option<u64>,
    /// What to do with rows that lack a field of the template [default: row-error]
    #[arg(long, value_name = "WHAT", value_enum)]
    pub(in crate::cli) on_missing_field: Option<OnMissingFieldArg>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum OnMissingFieldArg {
    /// The row fails without a call, the others go on
    RowError,
    /// Refuse the input before any call
    Error,
    /// Put nothing in its place
    Empty,
}

impl From<OnMissingFieldArg> for OnMissingField {
    fn from(arg: OnMissingFieldArg) -> Self {
        match arg {
            OnMissingFieldArg::RowError => Self::RowError,
            OnMissingFieldArg::Error => Self::Error,
            OnMissingFieldArg::Empty => Self::Empty,
        }
    }
}
