//! The arguments of every command, and what `--help` says of them.

mod change;
mod config;
mod dedupe;
mod estimate;
mod examples;
mod files;
mod filter;
mod input;
mod model;
mod models;
mod outputs;
mod pace;
mod prompt;
mod retry;
mod schema;
mod screen;
mod serve;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::parse::{duration, header, shards};
use crate::config::Header;
use crate::policy::Allowance;

use change::ChangeArgs;
pub(super) use config::ConfigArgs;
pub(super) use estimate::EstimateArgs;
use examples::{
    CHECK_EXAMPLES, ESTIMATE_EXAMPLES, EXIT_CODES, FILES_EXAMPLES, FILTER_ATTACHMENTS,
    FILTER_EXAMPLES, FILTER_MAX_COST, MERGE_EXAMPLES, MODELS_EXAMPLES, PLAN_EXAMPLES, RUN_EXAMPLES,
    STATUS_EXAMPLES, WORK_EXAMPLES,
};
pub(super) use files::{
    DiffArgs, FilesCommand, FilesMergeArgs, PrepareArgs, SampleArgs, SplitArgs, StatsArgs, ToArgs,
    ValidateArgs,
};
pub(super) use filter::FilterArgs;
pub(super) use input::{InputArgs, MAX_ROW_BYTES};
pub(super) use model::ModelArgs;
pub(super) use models::ModelsArgs;
pub(super) use outputs::OutputArgs;
pub(super) use pace::{PaceArgs, SessionArgs};
pub(super) use prompt::{OnMissingFieldArg, PromptArgs};
use retry::RetryArgs;
pub(super) use schema::{FormArgs, SchemaArgs};
pub(super) use screen::{ScreenArgs, TellArgs};
pub(super) use serve::ServeArgs;

/// Run a language model over every row of a dataset, and bring back one answer a row: across
/// crashes, rate limits, outages and weeks, without losing a row and without paying for one twice.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXIT_CODES)]
pub(in crate::cli) struct Cli {
    #[command(subcommand)]
    pub(in crate::cli) command: Command,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Plan, work and merge in one go
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Split the input into shards and check all that can be checked without a call
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(Box<PlanArgs>),
    /// Work the open shards of a plan, or those that are named
    #[command(after_help = WORK_EXAMPLES)]
    Work(Box<WorkArgs>),
    /// Verify a finished plan and publish its outputs
    #[command(after_help = MERGE_EXAMPLES)]
    Merge(MergeArgs),
    /// Show how far a run is, without disturbing it
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Read a whole work directory, report every damage, repair what can be
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Ask about rows, or send requests, as they come by a pipe: a line out for each line in. Nothing is
    /// kept, so nothing survives a kill
    #[command(
        after_help = FILTER_EXAMPLES,
        mut_arg("repeat", |arg| arg.hide(true)),
        mut_arg("map_model", |arg| arg.hide(true)),
        mut_arg("require_model", |arg| arg.hide(true)),
        mut_arg("max_cost", |arg| arg.help(FILTER_MAX_COST)),
        mut_arg("attachment_field", |arg| arg.help(FILTER_ATTACHMENTS)),
    )]
    Filter(Box<FilterArgs>),
    /// Tell what a job will come to: calls, tokens, dollars. Nothing is called or kept
    #[command(after_help = ESTIMATE_EXAMPLES)]
    Estimate(Box<EstimateArgs>),
    /// List the models that endpoints offer
    #[command(after_help = MODELS_EXAMPLES)]
    Models(ModelsArgs),
    /// Look at request files and output files, and change them
    #[command(subcommand, after_help = FILES_EXAMPLES)]
    Files(FilesCommand),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RunArgs {
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
    pub(in crate::cli) pace: PaceArgs,
    #[command(flatten)]
    pub(in crate::cli) session: SessionArgs,
    #[command(flatten)]
    pub(in crate::cli) config: ConfigArgs,
    #[command(flatten)]
    pub(in crate::cli) outputs: OutputArgs,
    #[command(flatten)]
    pub(in crate::cli) screen: ScreenArgs,
    /// The work directory; by default the output's path with .rowmill behind it, or the input's name
    /// where the output is standard output. A default one is
    /// removed once all rows have answers and are published, unless --on-change says update or new-only,
    /// --output-format is not the input's, or --resume is given and the output is standard output or a pipe,
    /// which no answers can be taken over from; a named one is kept. One of fast-agent's, with --resume: its
    /// answers are taken over, it stays as it is, and the default one is used
    #[arg(long, value_name = "DIR", help_heading = "Work")]
    pub(in crate::cli) work_dir: Option<PathBuf>,
    /// Keep a default work directory
    #[arg(long, alias = "keep-temp", help_heading = "Work")]
    pub(in crate::cli) keep_work_dir: bool,
    /// Go on with the run in the work directory: rows that are missing or failed are done, rows
    /// with an answer are not. Where there is only an output, its answers are taken over. With nothing to go
    /// on with, start
    #[arg(long, conflicts_with = "overwrite", help_heading = "Work")]
    pub(in crate::cli) resume: bool,
    #[command(flatten)]
    pub(in crate::cli) retry: RetryArgs,
    /// Do not try rows again that failed before
    #[arg(long, requires = "resume", conflicts_with_all = ["retry_class", "retry_ids"], help_heading = "Work")]
    pub(in crate::cli) no_retry_failed: bool,
    #[command(flatten)]
    pub(in crate::cli) change: ChangeArgs,
    /// Start anew in the place of the run in the work directory and of the outputs. An old output
    /// stays until the new one takes its place
    #[arg(long, help_heading = "Work")]
    pub(in crate::cli) overwrite: bool,
    /// Exit with 0 though so many rows failed: a number of rows or a share of them (5%)
    #[arg(long, value_name = "N|P%", help_heading = "Work")]
    pub(in crate::cli) allow_failed: Option<Allowance>,
    /// Plan, render and print the first requests and what the whole job will cost, rows that are done
    /// included; call nothing, keep nothing
    #[arg(long, help_heading = "Outputs")]
    pub(in crate::cli) dry_run: bool,
    /// Say nothing but errors on standard error: for programs that read standard output
    #[arg(long, help_heading = "Screen")]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PlanArgs {
    #[command(flatten)]
    pub(in crate::cli) input: InputArgs,
    #[command(flatten)]
    pub(in crate::cli) prompt: PromptArgs,
    #[command(flatten)]
    pub(in crate::cli) schema: SchemaArgs,
    #[command(flatten)]
    pub(in crate::cli) model: ModelArgs,
    #[command(flatten)]
    pub(in crate::cli) serve: ServeArgs,
    #[command(flatten)]
    pub(in crate::cli) config: ConfigArgs,
    #[command(flatten)]
    pub(in crate::cli) screen: ScreenArgs,
    /// The work directory to make
    #[arg(long, value_name = "DIR", help_heading = "Work")]
    pub(in crate::cli) work_dir: PathBuf,
    /// Keep the rows in the journals, so that envelopes can show them (merge --include-input)
    #[arg(long, help_heading = "Outputs")]
    pub(in crate::cli) include_input: bool,
    #[command(flatten)]
    pub(in crate::cli) change: ChangeArgs,
    /// Plan anew in the place of the run in the work directory
    #[arg(long, help_heading = "Work")]
    pub(in crate::cli) overwrite: bool,
    /// How long to wait while another process holds the work directory
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Work")]
    pub(in crate::cli) lock_wait: Option<Duration>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct WorkArgs {
    /// The work directory
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) work_dir: PathBuf,
    /// Which shards to work: 3, 1,4,7 or 0-9; by default all that are open
    #[arg(long, value_name = "N", value_parser = shards)]
    pub(in crate::cli) shard: Option<super::parse::ShardList>,
    /// Try rows again that failed before
    #[arg(long, alias = "resume")]
    pub(in crate::cli) retry_failed: bool,
    #[command(flatten)]
    pub(in crate::cli) retry: RetryArgs,
    /// Where the input is, if not where it was when it was planned
    #[arg(short, long, value_name = "FILE")]
    pub(in crate::cli) input: Option<PathBuf>,
    /// Of a pool, the model that must answer: no other does in its place
    #[arg(long, value_name = "MODEL")]
    pub(in crate::cli) require_model: Option<String>,
    /// Whether an option said how long calls may take.
    #[arg(skip)]
    pub(in crate::cli) has_timeout: bool,
    /// Where the endpoint is, if not where the plan says
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) base_url: Option<String>,
    /// A file that holds the API key
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) api_key_file: Option<PathBuf>,
    /// A header of every call; a secret as NAME=env:VARIABLE or NAME=file:PATH
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub(in crate::cli) headers: Vec<Header>,
    #[command(flatten)]
    pub(in crate::cli) serve: ServeArgs,
    /// Exit with 0 though so many rows failed: a number of rows or a share of them (5%)
    #[arg(long, value_name = "N|P%")]
    pub(in crate::cli) allow_failed: Option<Allowance>,
    #[command(flatten)]
    pub(in crate::cli) form: FormArgs,
    #[command(flatten)]
    pub(in crate::cli) pace: PaceArgs,
    #[command(flatten)]
    pub(in crate::cli) session: SessionArgs,
    #[command(flatten)]
    pub(in crate::cli) config: ConfigArgs,
    #[command(flatten)]
    pub(in crate::cli) screen: ScreenArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct MergeArgs {
    /// The work directory
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) work_dir: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) outputs: OutputArgs,
    #[command(flatten)]
    pub(in crate::cli) tell: TellArgs,
    /// Publish what there is of an unfinished plan: rows without an outcome are left out, and the summary says
    /// how many. The work directory goes on as before, and the next full publication replaces the outputs.
    /// Without -o the output goes where the default work directory OUTPUT.rowmill belongs
    #[arg(long)]
    pub(in crate::cli) partial: bool,
    /// Replace outputs that are there
    #[arg(long)]
    pub(in crate::cli) overwrite: bool,
    /// Exit with 0 though so many rows failed: a number of rows or a share of them (5%)
    #[arg(long, value_name = "N|P%")]
    pub(in crate::cli) allow_failed: Option<Allowance>,
    /// How long to wait while another process holds the work directory
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(in crate::cli) lock_wait: Option<Duration>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct StatusArgs {
    /// The work directory
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) work_dir: PathBuf,
    /// Print JSON, for monitors
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CheckArgs {
    /// The work directory
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) work_dir: PathBuf,
    /// Repair what can be repaired; what is cut out is kept in quarantine
    #[arg(long)]
    pub(in crate::cli) repair: bool,
    /// How long to wait while another process holds the work directory
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(in crate::cli) lock_wait: Option<Duration>,
}
