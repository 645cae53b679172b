//! Which rows that failed before are tried again.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::input;
use crate::job::{FailureKind, Id, IdHash};
use crate::pipeline::Error;
use crate::work::Retry;

#[derive(Debug, Args)]
#[command(next_help_heading = "Work")]
pub(in crate::cli) struct RetryArgs {
    /// Try only those rows again that failed like this, by `error.class`: timeout,bad_response
    #[arg(long, value_name = "CLASSES", value_delimiter = ',', value_parser = class)]
    retry_class: Vec<FailureKind>,
    /// Try only those rows again whose ids are in this file: one a line, or lines with an `id` as
    /// outputs have them
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) retry_ids: Option<PathBuf>,
}

impl RetryArgs {
    /// Which rows are tried again, where all are unless something else is asked for.
    pub(in crate::cli) fn retry(&self, by_default: bool) -> Result<Retry, Error> {
        if self.retry_class.is_empty() && self.retry_ids.is_none() {
            return Ok(if by_default { Retry::All } else { Retry::None });
        }
        let ids = self.retry_ids.as_deref().map(read_ids).transpose()?;
        Ok(Retry::Only { kinds: self.retry_class.clone(), ids, rows: HashSet::new() })
    }
}

fn class(text: &str) -> Result<FailureKind, String> {
    let retried = || FailureKind::ALL.iter().filter(|kind| !kind.is_of_the_row());
    retried().find(|kind| kind.class() == text).copied().ok_or_else(|| {
        let known: Vec<_> = retried().map(|kind| kind.class()).collect();
        format!("no row fails like this and can be tried again; there are {}", known.join(", "))
    })
}

/// A line of an output, as far as it names a row.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
}

fn read_ids(path: &Path) -> Result<HashSet<IdHash>, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| input::Error::Unreadable { path: path.to_owned(), source })?;
    let mut ids = HashSet::new();
    let lines = text.lines().map(str::trim).zip(1..).filter(|(line, _)| !line.is_empty());
    for (line, number) in lines {
        let bad = |what: &str| {
            let place = path.display();
            Error::Usage(format!("--retry-ids: line {number} of {place} {what}"))
        };
        if line.starts_with('{') {
            let named: Named<'_> =
                serde_json::from_str(line).map_err(|_| bad("is no JSON object with an \"id\""))?;
            let id = Id::parse(named.id.get())
                .map_err(|problem| bad(&format!("has an id that {problem}")))?;
            ids.insert(id.hash());
            continue;
        }
        // A bare number may be an integer, or the text of a string.
        ids.extend(Id::parse(line).ok().map(|id| id.hash()));
        ids.insert(Id::from_text(line).hash());
    }
    Ok(ids)
}
