//! Hints for options that other tools have under another name.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Options that are guessed, each with what to use.
const GUESSED: &[(&str, &str)] = &[
    (
        "--api-key",
        "a key is no argument, which others could read: put it in the provider's variable (OPENAI_API_KEY, \
         ANTHROPIC_API_KEY, …) or name its file with --api-key-file",
    ),
    ("--workers", "-c N is how many calls are in flight"),
    ("--prompt-file", "--template FILE, or -p @FILE"),
    ("--system", "--instruction FILE holds what stands before every prompt"),
    ("--system-prompt", "--instruction FILE holds what stands before every prompt"),
    (
        "--verbose",
        "--telemetry-output FILE has a line for every call; rowmill status shows a job's progress",
    ),
    ("--sql", "rows are not queried: select them first, and pipe them in (rowmill run - …)"),
];

/// What to say of an option that does not exist under this name.
pub(super) fn of_unknown_option(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let is_unknown = error.kind() == ErrorKind::UnknownArgument;
    let (_, hint) = GUESSED.iter().find(|(guessed, _)| is_unknown && guessed == option)?;
    Some(format!(
        "error: unexpected argument '{option}' found\n\n  tip: {hint}\n\nFor more information, try '--help'."
    ))
}
