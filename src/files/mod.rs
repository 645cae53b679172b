//! The file tools: what can be done with request files and output files without a model.
//!
//! Every tool streams: lines come by in pieces of a megabyte, and what is held beside them is said at each tool.
//! Outputs appear whole or not at all. Nothing is printed here; each tool gives a report.

pub mod diff;
mod facts;
mod lines;
pub mod merge;
mod output;
pub mod prepare;
pub mod sample;
pub mod split;
pub mod stats;
mod tally;
pub mod validate;

use std::io;
use std::path::{Path, PathBuf};

pub use lines::{Input, LONGEST};
pub use output::Output;
pub use tally::Tally;

use crate::dialect::Problem;
use crate::store;

/// Why a tool could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An input cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The input.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An input is nothing that these tools read.
    #[error("{} {what}", path.display())]
    NotLines {
        /// The input.
        path: PathBuf,
        /// What it is, or is not.
        what: String,
    },
    /// A line cannot be taken.
    #[error("line {line} of {}: {problem}", path.display())]
    Line {
        /// The input.
        path: PathBuf,
        /// The line's number.
        line: u64,
        /// What is wrong with it.
        problem: Problem,
    },
    /// Something in a line cannot be done.
    #[error("line {line} of {}: {reason}", path.display())]
    Edit {
        /// The input.
        path: PathBuf,
        /// The line's number.
        line: u64,
        /// Why not.
        reason: String,
    },
    /// Lines have the id of an earlier line.
    #[error("lines with the id of an earlier line: {count}: {}{}", shown.join(", "), more(*count, shown.len()))]
    Duplicates {
        /// How many.
        count: u64,
        /// The first of them.
        shown: Vec<String>,
    },
    /// Inputs that do not go together.
    #[error("{0}")]
    Unlike(String),
    /// The options cannot be meant.
    #[error("{0}")]
    Usage(String),
    /// An output is there and may not be replaced.
    #[error("{} is there already", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// An output could not be written.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Somebody asked for the end.
    #[error("ended by a signal")]
    Interrupted,
}

fn more(count: u64, shown: usize) -> String {
    match count.saturating_sub(shown as u64) {
        0 => String::new(),
        more => format!(" and {more} more"),
    }
}

/// A line of a file, as messages name it.
fn place(path: &Path, line: u64) -> String {
    format!("{}:{line}", path.display())
}
