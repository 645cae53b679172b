//! Arguments of the file tools.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::examples::{
    DIFF_EXAMPLES, FILES_MERGE_EXAMPLES, PREPARE_EXAMPLES, SAMPLE_EXAMPLES, SPLIT_EXAMPLES,
    STATS_EXAMPLES, VALIDATE_EXAMPLES,
};
use crate::cli::parse::{self, size};
use crate::dialect::Dialect;
use crate::dialect::rules::Rules;
use crate::files::merge::OnDuplicate;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum FilesCommand {
    /// Check request files: every line, unique ids, sizes, and what the server wants
    #[command(after_help = VALIDATE_EXAMPLES)]
    Validate(ValidateArgs),
    /// Count lines, bytes and estimated tokens, by model and url
    #[command(after_help = STATS_EXAMPLES)]
    Stats(StatsArgs),
    /// Take some lines, at random but the same ones every time
    #[command(after_help = SAMPLE_EXAMPLES)]
    Sample(SampleArgs),
    /// Split a file by lines, bytes or model
    #[command(after_help = SPLIT_EXAMPLES)]
    Split(SplitArgs),
    /// Put files one behind the other
    #[command(after_help = FILES_MERGE_EXAMPLES)]
    Merge(FilesMergeArgs),
    /// Compare two output files by id
    #[command(after_help = DIFF_EXAMPLES)]
    Diff(DiffArgs),
    /// Change the requests of a file: model, parameters, any member, images
    #[command(after_help = PREPARE_EXAMPLES)]
    Prepare(PrepareArgs),
}

/// Where lines go.
#[derive(Debug, Args)]
pub(in crate::cli) struct ToArgs {
    /// Where to write; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub(in crate::cli) output: PathBuf,
    /// Replace the output if it is there
    #[arg(long)]
    pub(in crate::cli) overwrite: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ValidateArgs {
    /// Request files; a directory is all its .jsonl files, - is standard input
    #[arg(value_name = "FILE", required = true)]
    pub(in crate::cli) files: Vec<PathBuf>,
    /// Whose rules: rowmill, openai, vllm, fastdeploy, doubleword or dria
    #[arg(long = "for", value_name = "SERVER", default_value = "rowmill", value_parser = parse::rules)]
    pub(in crate::cli) server: &'static Rules,
    /// What the lines are: rows, openai, prompts or dria; by default the file tells
    #[arg(long, value_name = "DIALECT")]
    pub(in crate::cli) dialect: Option<Dialect>,
    /// Take lines that name no model as if they named this one
    #[arg(short, long, value_name = "MODEL")]
    pub(in crate::cli) model: Option<String>,
    /// How many bad lines, and how many duplicates, are shown of each file: a number, or all
    #[arg(long, value_name = "N", default_value = "100", value_parser = parse::limit)]
    pub(in crate::cli) limit: usize,
    /// Print one line of JSON a file
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct StatsArgs {
    /// Files; a directory is all its .jsonl files, - is standard input
    #[arg(value_name = "FILE", required = true)]
    pub(in crate::cli) files: Vec<PathBuf>,
    /// What the lines are: rows, openai, prompts or dria; by default the file tells
    #[arg(long, value_name = "DIALECT")]
    pub(in crate::cli) dialect: Option<Dialect>,
    /// Print one line of JSON a file
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SampleArgs {
    /// The file; - is standard input
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,
    /// How many lines
    #[arg(short = 'n', long, value_name = "N")]
    pub(in crate::cli) count: usize,
    /// Another seed takes other lines
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(in crate::cli) seed: u64,
    #[command(flatten)]
    pub(in crate::cli) to: ToArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SplitArgs {
    /// The file; - is standard input
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,
    /// The most lines of a part [default without --lines, --bytes and --by-model: 50000, as OpenAI takes]
    #[arg(long, alias = "chunk-size", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) lines: Option<u64>,
    /// The most bytes of a part: 200MB, 64MiB [default without all three: 200MB, as OpenAI takes]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub(in crate::cli) bytes: Option<u64>,
    /// A part has the lines of one model
    #[arg(long)]
    pub(in crate::cli) by_model: bool,
    /// Where the parts go, as NAME-001.jsonl, …; by default beside the file
    #[arg(short, long, value_name = "DIR")]
    pub(in crate::cli) output_dir: Option<PathBuf>,
    /// Replace parts that are there
    #[arg(long)]
    pub(in crate::cli) overwrite: bool,
    /// Print one line of JSON a part
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct FilesMergeArgs {
    /// The files, in the order in which they are to stand; a directory is all its .jsonl files, - is standard input
    #[arg(value_name = "FILE", required = true)]
    pub(in crate::cli) files: Vec<PathBuf>,
    /// What to do with a line that has the id of an earlier one
    #[arg(long, value_name = "WHAT", value_enum, default_value = "error")]
    pub(in crate::cli) on_duplicate: OnDuplicateLine,
    #[command(flatten)]
    pub(in crate::cli) to: ToArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum OnDuplicateLine {
    /// Write nothing
    Error,
    /// Leave it out
    First,
}

impl From<OnDuplicateLine> for OnDuplicate {
    fn from(choice: OnDuplicateLine) -> Self {
        match choice {
            OnDuplicateLine::Error => Self::Error,
            OnDuplicateLine::First => Self::First,
        }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArgs {
    /// An output file
    #[arg(value_name = "A")]
    pub(in crate::cli) a: PathBuf,
    /// The output file to compare it with; - is standard input
    #[arg(value_name = "B")]
    pub(in crate::cli) b: PathBuf,
    /// What the lines are: rows, openai, prompts or dria; by default the files tell
    #[arg(long, value_name = "DIALECT")]
    pub(in crate::cli) dialect: Option<Dialect>,
    /// How many ids of each kind are listed: a number, or all
    #[arg(long, value_name = "N", default_value = "20", value_parser = parse::limit)]
    pub(in crate::cli) limit: usize,
    /// List them with what each file says, around the first difference
    #[arg(long)]
    pub(in crate::cli) show: bool,
    /// Exit with 3 if the files differ
    #[arg(long)]
    pub(in crate::cli) exit_code: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PrepareArgs {
    /// Request files; a directory is all its .jsonl files, - is standard input. Several want --in-place
    #[arg(value_name = "FILE", required = true)]
    pub(in crate::cli) files: Vec<PathBuf>,
    /// The model of every line (body.model)
    #[arg(short, long, value_name = "MODEL", help_heading = "Changes")]
    pub(in crate::cli) model: Option<String>,
    /// The temperature of every line that a model answers with text
    #[arg(long, value_name = "T", value_parser = parse::temperature, help_heading = "Changes")]
    pub(in crate::cli) temperature: Option<String>,
    /// The most tokens of an answer, under the name that the line's endpoint has for it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Changes")]
    pub(in crate::cli) max_tokens: Option<u64>,
    /// The nucleus of sampling
    #[arg(long, value_name = "P", value_parser = parse::probability, help_heading = "Changes")]
    pub(in crate::cli) top_p: Option<String>,
    /// Any member of the line, by its path: body.stream=false, body.messages.0.content='Be brief'. A value that is no
    /// JSON is a string. Write \. for a dot in a name, and \\ for a backslash
    #[arg(long, value_name = "PATH=VALUE", value_parser = parse::member, help_heading = "Changes")]
    pub(in crate::cli) set: Vec<parse::Member>,
    /// Leave out the lines whose custom_id (or id) fits: * is anything, ? one character
    #[arg(long, value_name = "GLOB", help_heading = "Changes")]
    pub(in crate::cli) remove: Vec<String>,
    /// Put a line behind the others, as it is
    #[arg(long, value_name = "JSON", value_parser = parse::line, help_heading = "Changes")]
    pub(in crate::cli) add_line: Vec<String>,
    /// Put images that lines name by path into them, as data URIs. Paths are relative to the file; URLs stay, nothing is
    /// fetched
    #[arg(long, help_heading = "Changes")]
    pub(in crate::cli) encode_images: bool,
    /// What the lines are: rows, openai, prompts or dria; by default the file tells
    #[arg(long, value_name = "DIALECT")]
    pub(in crate::cli) dialect: Option<Dialect>,
    /// Replace each file by what it becomes
    #[arg(long, conflicts_with_all = ["output", "overwrite"])]
    pub(in crate::cli) in_place: bool,
    #[command(flatten)]
    pub(in crate::cli) to: ToArgs,
}
