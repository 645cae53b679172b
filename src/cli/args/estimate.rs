//! What is to be estimated.

use std::path::PathBuf;

use clap::Args;

use super::{ConfigArgs, FormArgs, InputArgs, ModelArgs, PromptArgs, SchemaArgs, ServeArgs};

#[derive(Debug, Args)]
pub(in crate::cli) struct EstimateArgs {
    #[command(flatten)]
    pub(in crate::cli) input: InputArgs,
    #[command(flatten)]
    pub(in crate::cli) prompt: PromptArgs,
    #[command(flatten)]
    pub(in crate::cli) schema: SchemaArgs,
    #[command(flatten)]
    pub(in crate::cli) form: FormArgs,
    #[command(flatten)]
    pub(in crate::cli) model: ModelArgs,
    #[command(flatten)]
    pub(in crate::cli) serve: ServeArgs,
    #[command(flatten)]
    pub(in crate::cli) config: ConfigArgs,
    /// How many tokens an answer will have, reasoning included [default: as --max-tokens allows, or as
    /// the answers in --work-dir have]
    #[arg(long, value_name = "N", help_heading = "Estimate")]
    pub(in crate::cli) expect_output: Option<u64>,
    /// A work directory of the job that has some answers already: how long they are tells how long the
    /// others will be
    #[arg(long, value_name = "DIR", help_heading = "Estimate")]
    pub(in crate::cli) work_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long, help_heading = "Estimate")]
    pub(in crate::cli) json: bool,
}
