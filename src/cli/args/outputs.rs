//! Where outputs go.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::http::Link;

#[derive(Debug, Args)]
#[command(next_help_heading = "Outputs")]
pub(in crate::cli) struct OutputArgs {
    /// One envelope a row, in input order; - is standard output. This and the others may be an http(s)
    /// URL, a pre-signed one say: the file is then uploaded there, with one PUT. With several inputs a
    /// directory, made where it is not there, in which each has an output of its own name; the next
    /// three are directories as well then
    #[arg(short, long, value_name = "FILE|DIR|URL")]
    pub(in crate::cli) output: PathBuf,
    /// Put the row into its envelope
    #[arg(long)]
    pub(in crate::cli) include_input: bool,
    /// The envelopes of the rows that failed, in a file of their own as well
    #[arg(long, value_name = "FILE|URL")]
    pub(in crate::cli) error_output: Option<PathBuf>,
    /// One line an attempt: times, tokens, status
    #[arg(long, value_name = "FILE|URL")]
    pub(in crate::cli) telemetry_output: Option<PathBuf>,
    /// The envelopes of the answers that no earlier generation of the plan has published, in a file
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
