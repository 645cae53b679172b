//! The arguments of every command, and what `--help` says of them.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use super::change::ChangeArgs;
use super::parse::{duration, parameter, probability, shards, some_time, temperature};
use crate::job::{OnDuplicate, OnMissingField};
use crate::policy::{Allowance, Durability};

/// Run a language model over every row of a dataset, and bring back one answer a row: across
/// crashes, rate limits, outages and weeks, without losing a row and without paying for one twice.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXIT_CODES)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Plan, work and merge in one go
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Split the input into shards and check all that can be checked without a call
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(Box<PlanArgs>),
    /// Work the open shards of a plan, or those that are named
    #[command(after_help = WORK_EXAMPLES)]
    Work(WorkArgs),
    /// Verify a finished plan and publish its outputs
    #[command(after_help = MERGE_EXAMPLES)]
    Merge(MergeArgs),
    /// Show how far a run is, without disturbing it
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Read a whole work directory, report every damage, repair what can be
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
}

const EXIT_CODES: &str = "\
Exit codes:
  0  every row has an answer, outputs published     70  state damaged beyond automatic repair
  1  a bug                                          73  cannot create work dir or output, or it exists
  2  usage                                          74  I/O error: disk full, EIO, failed fsync
  3  outputs published, some rows failed            75  another process holds the work dir
  4  stopped at your own limit (--max-errors)       77  credentials refused, or quota exhausted
  65 input data invalid                             78  the command does not match the manifest
  66 input missing or unreadable                    130 SIGINT, 143 SIGTERM: drained
  69 endpoint unavailable longer than --max-outage
Every non-zero exit ends with one line: what happened, what is safe, the command that goes on.";

const RUN_EXAMPLES: &str = "\
Examples:
  Try a pipeline without a model (the answer is the prompt):
    rowmill run reviews.jsonl -o out.jsonl -m passthrough -p 'Classify: {{text}}'
  Ask a model behind any server that speaks OpenAI Chat Completions:
    rowmill run reviews.jsonl -o out.jsonl -m my-model --base-url http://127.0.0.1:8000/v1 \\
      --id-field id -p 'Positive or negative? {{text}}' --temperature 0 --max-tokens 5
  Go on after anything, or start if there is nothing to go on with (for cron):
    rowmill run reviews.jsonl -o out.jsonl -m my-model --id-field id -p '…' --resume
  See the first requests without sending any:
    rowmill run reviews.jsonl -o out.jsonl -m my-model -p '…' --dry-run

The key is read from OPENAI_API_KEY or --api-key-file; without one, none is sent.";

const PLAN_EXAMPLES: &str = "\
Examples:
  rowmill plan rows.jsonl --work-dir job1 -m my-model --id-field id --template prompt.txt
  rowmill work --work-dir job1
  rowmill merge --work-dir job1 -o out.jsonl";

const WORK_EXAMPLES: &str = "\
Examples:
  rowmill work --work-dir job1
  rowmill work --work-dir job1 --shard 0-9 -c 128
  rowmill work --work-dir job1 --retry-failed";

const MERGE_EXAMPLES: &str = "\
Examples:
  rowmill merge --work-dir job1 -o out.jsonl --error-output errors.jsonl
  rowmill merge --work-dir job1 -o - | jq .result";

const STATUS_EXAMPLES: &str = "\
Examples:
  rowmill status --work-dir out.jsonl.rowmill
  rowmill status --work-dir job1 --json | jq .left";

const CHECK_EXAMPLES: &str = "\
Examples:
  rowmill check --work-dir job1
  rowmill check --work-dir job1 --repair

Exits with 70 when records are lost or something cannot be repaired; what a crash leaves behind and
indexes that are rebuilt anyway are reported, and are no failure.";

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) input: InputArgs,
    #[command(flatten)]
    pub(super) prompt: PromptArgs,
    #[command(flatten)]
    pub(super) model: ModelArgs,
    #[command(flatten)]
    pub(super) pace: PaceArgs,
    #[command(flatten)]
    pub(super) outputs: OutputArgs,
    #[command(flatten)]
    pub(super) screen: ScreenArgs,
    /// The work directory; by default the output's path with .rowmill behind it, or the input's name
    /// where the output is standard output. A default one is
    /// removed once all rows have answers and are published, a named one is kept
    #[arg(long, value_name = "DIR", help_heading = "Work")]
    pub(super) work_dir: Option<PathBuf>,
    /// Keep a default work directory
    #[arg(long, alias = "keep-temp", help_heading = "Work")]
    pub(super) keep_work_dir: bool,
    /// Go on with the run in the work directory: rows that are missing or failed are done, rows
    /// with an answer are not. With nothing to go on with, start
    #[arg(long, conflicts_with = "overwrite", help_heading = "Work")]
    pub(super) resume: bool,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    /// How many earlier generations of the plan are kept in the work directory once the last one is
    /// published
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Work")]
    pub(super) keep_generations: u32,
    /// Start anew in the place of the run in the work directory and of the outputs. An old output
    /// stays until the new one takes its place
    #[arg(long, help_heading = "Work")]
    pub(super) overwrite: bool,
    /// Exit with 0 though so many rows failed: a number of rows or a share of them (5%)
    #[arg(long, value_name = "N|P%", help_heading = "Work")]
    pub(super) allow_failed: Option<Allowance>,
    /// Plan, render and print the first requests; call nothing, keep nothing
    #[arg(long, help_heading = "Outputs")]
    pub(super) dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    pub(super) input: InputArgs,
    #[command(flatten)]
    pub(super) prompt: PromptArgs,
    #[command(flatten)]
    pub(super) model: ModelArgs,
    #[command(flatten)]
    pub(super) screen: ScreenArgs,
    /// The work directory to make
    #[arg(long, value_name = "DIR", help_heading = "Work")]
    pub(super) work_dir: PathBuf,
    /// Keep the rows in the journals, so that envelopes can show them (merge --include-input)
    #[arg(long, help_heading = "Outputs")]
    pub(super) include_input: bool,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    /// Plan anew in the place of the run in the work directory
    #[arg(long, help_heading = "Work")]
    pub(super) overwrite: bool,
    /// How long to wait while another process holds the work directory
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Work")]
    pub(super) lock_wait: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct WorkArgs {
    /// The work directory
    #[arg(long, value_name = "DIR")]
    pub(super) work_dir: PathBuf,
    /// Which shards to work: 3, 1,4,7 or 0-9; by default all that are open
    #[arg(long, value_name = "N", value_parser = shards)]
    pub(super) shard: Option<super::parse::ShardList>,
    /// Try rows again that failed before
    #[arg(long, alias = "resume")]
    pub(super) retry_failed: bool,
    /// Where the input is, if not where it was when it was planned
    #[arg(short, long, value_name = "FILE")]
    pub(super) input: Option<PathBuf>,
    /// Where the endpoint is, if not where the plan says
    #[arg(long, value_name = "URL")]
    pub(super) base_url: Option<String>,
    /// A file that holds the API key
    #[arg(long, value_name = "FILE")]
    pub(super) api_key_file: Option<PathBuf>,
    /// Exit with 0 though so many rows failed: a number of rows or a share of them (5%)
    #[arg(long, value_name = "N|P%")]
    pub(super) allow_failed: Option<Allowance>,
    #[command(flatten)]
    pub(super) pace: PaceArgs,
    #[command(flatten)]
    pub(super) screen: ScreenArgs,
}

#[derive(Debug, Args)]
pub(super) struct MergeArgs {
    /// The work directory
    #[arg(long, value_name = "DIR")]
    pub(super) work_dir: PathBuf,
    #[command(flatten)]
    pub(super) outputs: OutputArgs,
    /// Replace outputs that are there
    #[arg(long)]
    pub(super) overwrite: bool,
    /// Exit with 0 though so many rows failed: a number of rows or a share of them (5%)
    #[arg(long, value_name = "N|P%")]
    pub(super) allow_failed: Option<Allowance>,
    /// How long to wait while another process holds the work directory
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) lock_wait: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// The work directory
    #[arg(long, value_name = "DIR")]
    pub(super) work_dir: PathBuf,
    /// Print JSON, for monitors
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The work directory
    #[arg(long, value_name = "DIR")]
    pub(super) work_dir: PathBuf,
    /// Repair what can be repaired; what is cut out is kept in quarantine
    #[arg(long)]
    pub(super) repair: bool,
    /// How long to wait while another process holds the work directory
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) lock_wait: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Input")]
pub(super) struct InputArgs {
    /// The rows: a .jsonl or .csv file, or - for JSON Lines on standard input
    #[arg(value_name = "INPUT", required_unless_present = "input", conflicts_with = "input")]
    pub(super) file: Option<PathBuf>,
    /// The rows, as an option
    #[arg(short, long, value_name = "FILE")]
    pub(super) input: Option<PathBuf>,
    /// The field that holds a row's id, a string or an integer; by default the row number is the id
    #[arg(long, value_name = "FIELD", value_parser = NonEmptyStringValueParser::new())]
    pub(super) id_field: Option<String>,
    /// Leave out so many rows at the beginning
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) offset: u64,
    /// Take at most so many rows
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<u64>,
    /// Take so many rows at random, in input order; after --offset, before --limit
    #[arg(long, value_name = "N")]
    pub(super) sample: Option<u64>,
    /// What the sample is drawn by: the same seed draws the same rows
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(super) seed: u64,
    /// What to do with rows that have the id of an earlier row
    #[arg(long, value_name = "WHAT", value_enum, default_value = "error")]
    pub(super) on_duplicate: OnDuplicateArg,
    /// The largest row taken, in bytes; larger ones fail without a call
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_row_bytes: u64,
    /// The most rows of a shard; by default as many as suit the input, at most 10,000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) shard_rows: Option<u32>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum OnDuplicateArg {
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

#[derive(Debug, Args)]
#[command(next_help_heading = "Prompt")]
pub(super) struct PromptArgs {
    /// The row template: {{field}} stands for a field, {{row_json}} for the whole row. By default
    /// the model is shown the whole row
    #[arg(short, long, value_name = "TEXT", conflicts_with = "template", value_parser = NonEmptyStringValueParser::new())]
    pub(super) prompt: Option<String>,
    /// A file that holds the row template
    #[arg(long, value_name = "FILE")]
    pub(super) template: Option<PathBuf>,
    /// A file that holds the system instruction
    #[arg(long, value_name = "FILE")]
    pub(super) instruction: Option<PathBuf>,
    /// What to do with rows that lack a field of the template
    #[arg(long, value_name = "WHAT", value_enum, default_value = "row-error")]
    pub(super) on_missing_field: OnMissingFieldArg,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum OnMissingFieldArg {
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

#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(super) struct ModelArgs {
    /// The model; `passthrough` answers with the prompt, without a call
    #[arg(short, long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(super) model: String,
    /// Where the endpoint is [env: OPENAI_BASE_URL] [default: https://api.openai.com/v1]
    #[arg(long, value_name = "URL")]
    pub(super) base_url: Option<String>,
    /// A file that holds the API key [env: OPENAI_API_KEY holds the key itself]
    #[arg(long, value_name = "FILE")]
    pub(super) api_key_file: Option<PathBuf>,
    /// Sampling temperature
    #[arg(long, value_name = "T", value_parser = temperature)]
    pub(super) temperature: Option<String>,
    /// The most tokens of an answer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_tokens: Option<u64>,
    /// Nucleus sampling
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(super) top_p: Option<String>,
    /// Any further field of the request body, as JSON: --param seed=7 --param 'stop=["\n"]'
    #[arg(long = "param", value_name = "KEY=JSON", value_parser = parameter)]
    pub(super) params: Vec<super::parse::Parameter>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Work")]
pub(super) struct PaceArgs {
    /// Shard workers, each with a thread of its own [default: one for 128 calls in flight
    /// or, for a model that is not called, one a core; at most one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) parallel: Option<u16>,
    /// The most requests in flight, over all workers
    #[arg(short, long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) concurrency: u32,
    /// How often a row is tried again after a failure that may pass
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(super) retries: u32,
    /// How long one call may take, in seconds or as 5m
    #[arg(long, value_name = "TIME", default_value = "600", value_parser = some_time)]
    pub(super) timeout: Duration,
    /// How long the endpoint may be out of reach; rows wait, they do not fail
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = duration)]
    pub(super) max_outage: Duration,
    /// How long calls in flight may take to end after SIGINT or SIGTERM
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = duration)]
    pub(super) drain_timeout: Duration,
    /// Stop with code 4 once so many rows have failed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_errors: Option<u64>,
    /// When answers are made durable: strict (256 rows or 10 ms), interval:1s, or seal
    #[arg(long, value_name = "MODE", default_value = "strict")]
    pub(super) durability: Durability,
    /// How long to wait while another process holds the work directory [default: not at all]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) lock_wait: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Outputs")]
pub(super) struct OutputArgs {
    /// One envelope a row, in input order; - is standard output
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
    /// Put the row into its envelope
    #[arg(long)]
    pub(super) include_input: bool,
    /// The envelopes of the rows that failed, in a file of their own as well
    #[arg(long, value_name = "FILE")]
    pub(super) error_output: Option<PathBuf>,
    /// One line an attempt: times, tokens, status
    #[arg(long, value_name = "FILE")]
    pub(super) telemetry_output: Option<PathBuf>,
    /// What the run was and came to, as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) summary_output: Option<PathBuf>,
    /// Print the summary on standard output (the default, unless the output goes there)
    #[arg(long, overrides_with = "no_final_summary", action = ArgAction::SetTrue)]
    pub(super) final_summary: bool,
    /// Do not print the summary
    #[arg(long, overrides_with = "final_summary")]
    pub(super) no_final_summary: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Screen")]
pub(super) struct ScreenArgs {
    /// Show progress on standard error (the default): bars on a terminal, lines elsewhere
    #[arg(long, overrides_with = "no_progress", action = ArgAction::SetTrue)]
    pub(super) progress: bool,
    /// Show no progress; warnings are shown
    #[arg(long, overrides_with = "progress")]
    pub(super) no_progress: bool,
    /// Write a line of progress each so many rows, instead of bars
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) progress_every: Option<u64>,
}
