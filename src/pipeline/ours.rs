//! Files that are there before a run whose work directory is gone: whether rowmill wrote them, and
//! what they are answers to.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Error;
use super::targets::Targets;
use crate::format::envelope;
use crate::input;
use crate::job::{Identity, JobSpec};
use crate::store::{Manifest, Role, Tag, Target};

/// What stands in a telemetry line and a summary, as far as it tells them from other files.
#[derive(Deserialize)]
struct TelemetryLine {
    #[serde(rename = "row_number")]
    _row_number: u64,
    #[serde(rename = "attempt")]
    _attempt: u64,
    #[serde(rename = "timing")]
    _timing: IgnoredAny,
}

#[derive(Deserialize)]
struct SummaryFile {
    #[serde(rename = "run")]
    _run: String,
    #[serde(rename = "rows")]
    _rows: IgnoredAny,
    #[serde(rename = "outputs")]
    _outputs: IgnoredAny,
}

/// Makes sure that all outputs that are there are rowmill's, of a run that asked the same. An empty
/// file is nobody's loss.
pub(super) fn may_be_replaced(targets: &Targets, job: &JobSpec) -> Result<(), Error> {
    for (role, target) in targets.all() {
        let Target::File(path) = target else { continue };
        if target.is_there() && !is_ours(role, path)? {
            return Err(Error::NotOurs { path: path.clone() });
        }
    }
    match (targets.output.tag(), targets.output_file()) {
        (Tag::Is(tag), Some(path)) if noted(&tag).is_some_and(|it| it.0 != question(job)) => {
            Err(Error::OtherQuestion {
                path: path.to_owned(),
                what: "the model, the prompt or the parameters were others",
            })
        }
        _ => Ok(()),
    }
}

/// Makes sure that rows without ids are those that an output's lines are about.
pub(super) fn is_of_this_input(targets: &Targets, manifest: &Manifest) -> Result<(), Error> {
    let is_by_number = manifest.job.identity() == Identity::RowNumber;
    let Some(path) = targets.output_file().filter(|_| is_by_number) else { return Ok(()) };
    let is_other = match targets.output.tag() {
        Tag::Is(tag) => noted(&tag).is_some_and(|it| it.1 != manifest.source.blake3),
        Tag::Missing => true,
        Tag::Unknown => false,
    };
    if !is_other {
        return Ok(());
    }
    Err(Error::OtherQuestion {
        path: path.to_owned(),
        what: "the input was another, or it is a copy that does not tell; without --id-field its \
               rows cannot be told apart",
    })
}

/// What an output is noted to answer: hashes of the question and of the input.
fn noted(tag: &str) -> Option<(&str, &str)> {
    tag.strip_prefix("1 ")?.split_once(' ')
}

/// What is noted on a run's output.
pub(super) fn tag(manifest: &Manifest) -> String {
    format!("1 {} {}", question(&manifest.job), manifest.source.blake3)
}

/// A hash of all that decides the answer to a row.
fn question(job: &JobSpec) -> String {
    let JobSpec { model, protocol, prompt, instruction, parameters, .. } = job;
    let JobSpec { id_field, on_missing_field, .. } = job;
    let parts = (model, prompt, instruction, parameters, id_field, on_missing_field);
    // Strings and numbers: writing them cannot fail.
    let mut text = serde_json::to_vec(&parts).unwrap_or_default();
    if job.identity() == Identity::Hash {
        text.extend_from_slice(b"hash");
    }
    // Notes of before there were other protocols name none.
    if !protocol.is_chat() {
        text.extend_from_slice(protocol.name().as_bytes());
    }
    // In notes of before that could be nothing is attached.
    if let Some(field) = &job.attachment_field {
        text.extend_from_slice(format!("attached {field}\0").as_bytes());
    }
    // Notes of before there were schemas are of jobs without one.
    text.extend_from_slice(job.schema.as_deref().unwrap_or_default().as_bytes());
    blake3::hash(&text).to_hex().to_string()
}

fn is_ours(role: Role, path: &Path) -> Result<bool, Error> {
    /// A first line may hold a whole row.
    const LOOKED_AT: u64 = 64 << 20;
    let unreadable = |source: io::Error| input::Error::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let mut file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    // Most files show what they are at once.
    for most in [1 << 20, LOOKED_AT] {
        let more = most - bytes.len() as u64;
        file.by_ref().take(more).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.trim_ascii().is_empty() && bytes.len() as u64 == length || shows(role, &bytes) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn shows(role: Role, bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    match role {
        // One line may be torn: any whole one will do.
        Role::Output | Role::Errors | Role::Delta => lines.any(|line| envelope::read(line).is_ok()),
        Role::Telemetry => lines.any(|line| serde_json::from_slice::<TelemetryLine>(line).is_ok()),
        Role::Summary => serde_json::from_slice::<SummaryFile>(bytes).is_ok(),
    }
}
