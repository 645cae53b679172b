//! Whether rows that ask the same are asked once.

use clap::{ArgAction, Args};

use crate::job::Dedupe;

#[derive(Debug, Args)]
#[command(next_help_heading = "Input")]
pub(in crate::cli) struct DedupeArgs {
    /// Ask rows that ask the same only once, and give the answer to all of them [default: only with
    /// --temperature 0 and for embeddings, whose answers are the same each time; never where several
    /// answers are wanted to a row (several -m, --repeat)]
    #[arg(long, overrides_with = "no_dedupe", action = ArgAction::SetTrue)]
    dedupe: bool,
    /// Make a call for each row
    #[arg(long, overrides_with = "dedupe")]
    no_dedupe: bool,
}

impl DedupeArgs {
    /// What is said of it.
    pub(in crate::cli) fn wish(&self) -> Dedupe {
        match (self.dedupe, self.no_dedupe) {
            (true, _) => Dedupe::On,
            (_, true) => Dedupe::Off,
            _ => Dedupe::Auto,
        }
    }
}
