//! Which rows that failed before are tried again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::dialect::id_of;
use crate::format::json::Object;
use crate::input;
use crate::job::{FailureKind, Id};
use crate::pipeline::Error;
use crate::work::{NamedIds, Retry};

#[derive(Debug, Args)]
#[command(next_help_heading = "Work")]
pub(in crate::cli) struct RetryArgs {
    /// Try only those rows again that failed like this, by `error.class`: timeout,bad_response
    #[arg(long, value_name = "CLASSES", value_delimiter = ',', value_parser = class)]
    retry_class: Vec<FailureKind>,
    /// Try only those rows again whose ids are in this file: one a line, or lines with a `custom_id` or else
    /// an `id`, as inputs and outputs have them
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
        Ok(Retry::Only { kinds: self.retry_class.clone(), ids, rows: HashMap::new() })
    }
}

fn class(text: &str) -> Result<FailureKind, String> {
    let retried = || FailureKind::ALL.iter().filter(|kind| !kind.is_of_the_row());
    retried().find(|kind| kind.class() == text).copied().ok_or_else(|| {
        let known: Vec<_> = retried().map(|kind| kind.class()).collect();
        format!("no row fails like this and can be tried again; there are {}", known.join(", "))
    })
}

fn read_ids(path: &Path) -> Result<NamedIds, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| input::Error::Unreadable { path: path.to_owned(), source })?;
    let mut ids = NamedIds::default();
    let lines = text.lines().map(str::trim).zip(1..).filter(|(line, _)| !line.is_empty());
    for (line, number) in lines {
        let bad = |what: &str| {
            let place = path.display();
            Error::Usage(format!("--retry-ids: line {number} of {place} {what}"))
        };
        if line.starts_with('{') {
            let what = "is no JSON object with a \"custom_id\" or an \"id\"";
            let object = Object::parse(line).map_err(|_| bad(what))?;
            // In lines of `openai` the `id` is the answer's, not the row's.
            let has_other = object.get("custom_id").is_some();
            let token = match id_of(&object) {
                Some(token) => token,
                // So are lines written whose own `custom_id` could not be read, and they cannot be asked again.
                None if has_other => continue,
                None => return Err(bad(what)),
            };
            let id =
                Id::parse(token).map_err(|problem| bad(&format!("has an id that {problem}")))?;
            // There every id is a string, also that of a row that has a number.
            let as_number = has_other.then(|| Id::parse(&id.text()).ok()).flatten();
            let hashes: Vec<_> = [Some(id), as_number].iter().flatten().map(Id::hash).collect();
            ids.add(&hashes);
            continue;
        }
        // A bare number may be an integer, or the text of a string.
        let hashes: Vec<_> = [Id::parse(line).ok(), Some(Id::from_text(line))]
            .iter()
            .flatten()
            .map(Id::hash)
            .collect();
        ids.add(&hashes);
    }
    Ok(ids)
}
