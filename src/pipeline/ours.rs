//! Files that are there before a run whose work directory is gone: whether rowmill wrote them, and
//! what they are answers to.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Error;
use super::targets::{Targets, option};
use crate::dialect::detect::{Form, Side, form_of};
use crate::format::envelope;
use crate::input::{self, Source};
use crate::job::{Dialect, Identity, JobSpec};
use crate::plan;
use crate::store::{Manifest, Role, SourcePrint, Tag, Target};

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
/// file is nobody's loss. `takes_over` says that answers are to be taken over from elsewhere.
pub(super) fn may_be_replaced(
    targets: &Targets,
    job: &JobSpec,
    takes_over: bool,
) -> Result<(), Error> {
    for (role, target) in targets.all() {
        let Target::File(path) = target else { continue };
        if target.is_there() && !is_ours(role, job.dialect, path)? {
            let is_side = role != Role::Output && targets.output().is_there();
            let (path, option, may_begin_anew) =
                (path.clone(), option(role), !takes_over && !is_side);
            return Err(Error::NotOurs { path, option, may_begin_anew });
        }
    }
    match (targets.output().tag(), targets.output_file()) {
        (Tag::Is(tag), Some(path))
            if noted(&tag).is_some_and(|it| it.question != question(job))
                && !is_without_ids(targets.output(), job) =>
        {
            Err(Error::OtherQuestion {
                path: path.to_owned(),
                what: "the model, the prompt or the parameters were others",
            })
        }
        _ => Ok(()),
    }
}

/// Whether it is noted on an output that it answers the same question, asked before the job had an id field: its
/// ids are row numbers.
pub(super) fn is_without_ids(output: &Target, job: &JobSpec) -> bool {
    let before = JobSpec { id_field: None, ..job.clone() };
    before.gains_ids_in(job)
        && matches!(output.tag(), Tag::Is(tag) if noted(&tag).is_some_and(|it| it.question == question(&before)))
}

/// Whether the rows that an output's lines are about are known to be as they were then: the input is the
/// same, or it has only grown.
///
/// # Errors
/// When it is known to be another, or may be where only its row numbers tell rows apart; but not where
/// answers of rows that changed are to be kept (`keeps_changed`).
pub(super) fn is_of_this_input(
    targets: &Targets,
    manifest: &Manifest,
    source: &Source,
    keeps_changed: bool,
) -> Result<bool, Error> {
    let identity = manifest.job.identity();
    let Some(path) = targets.output_file().filter(|_| identity != Identity::Hash) else {
        // The id is the text.
        return Ok(true);
    };
    // A number as an id may be that of a row without one, which another row has by now; a text is a row's own.
    let is_without_ids = is_without_ids(targets.output(), &manifest.job);
    let is_by_number = match identity {
        _ if is_without_ids => true,
        Identity::FieldOrNumber(_) => !plan::have_own_ids(path, manifest.job.dialect)?,
        _ => identity.is_by_number(),
    };
    let is_known = match targets.output().tag() {
        Tag::Is(tag) => match noted(&tag) {
            Some(Noted { input, .. }) if input == manifest.source().blake3 => Some(true),
            Some(Noted { input, bytes: Some(bytes), .. }) if !is_by_number => {
                Some(has_grown(source, input, bytes)?)
            }
            Some(_) => Some(false),
            None => None,
        },
        Tag::Missing if is_by_number => Some(false),
        Tag::Missing | Tag::Unknown => None,
    };
    let what = match is_by_number {
        true if is_without_ids => {
            "it was answered without --id-field, and over another input: only the numbers of its rows tell which \
             answer is whose"
        }
        true if identity != Identity::RowNumber => {
            "the input was another, or it is a copy that does not tell; numbers in it as ids may be those of \
             rows that stand elsewhere now"
        }
        true => {
            "the input was another, or it is a copy that does not tell; without --id-field its rows \
             cannot be told apart"
        }
        false => {
            "the input was another, and without its work directory nobody can tell which rows have \
             changed since; --on-change new-only keeps the answers of all that have the same id, and \
             --work-dir has it told the next time"
        }
    };
    match is_known {
        Some(false) if is_by_number || !keeps_changed => {
            Err(Error::OtherQuestion { path: path.to_owned(), what })
        }
        known => Ok(known == Some(true)),
    }
}

/// Whether an input begins with all of what was once the whole of it, and goes on with another row.
fn has_grown(source: &Source, blake3: &str, bytes: u64) -> Result<bool, Error> {
    let unreadable = |error| input::Error::Unreadable { path: source.path.clone(), source: error };
    if bytes > source.length {
        return Ok(false);
    }
    let mut file = File::open(&source.path).map_err(unreadable)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file.by_ref().take(bytes)).map_err(unreadable)?;
    if hasher.finalize().to_hex().as_str() != blake3 {
        return Ok(false);
    }
    // A last line without an end may have been continued.
    let mut around = [b'\n'; 2];
    let first = bytes.saturating_sub(1);
    let there = file.read_at(&mut around, first).map_err(unreadable)?;
    Ok(there < 2 || around.iter().any(|byte| matches!(byte, b'\n' | b'\r')))
}

/// What an output is noted to answer: hashes of the question and of the input, and that one's length;
/// notes of before do not say it.
struct Noted<'t> {
    question: &'t str,
    input: &'t str,
    bytes: Option<u64>,
}

fn noted(tag: &str) -> Option<Noted<'_>> {
    let mut words = tag.strip_prefix("1 ")?.split(' ');
    let (question, input) = (words.next()?, words.next()?);
    Some(Noted { question, input, bytes: words.next().and_then(|bytes| bytes.parse().ok()) })
}

/// Whether it is noted on an output that rowmill wrote it. Of which question it is was looked at before.
pub(super) fn is_tagged(output: &Target) -> bool {
    matches!(output.tag(), Tag::Is(tag) if noted(&tag).is_some())
}

/// What is noted on a run's output of an input.
pub(super) fn tag(job: &JobSpec, source: &SourcePrint) -> String {
    format!("1 {} {} {}", question(job), source.blake3, source.bytes)
}

/// A hash of all that decides the answer to a row.
fn question(job: &JobSpec) -> String {
    let JobSpec { model, protocol, prompt, instruction, parameters, .. } = job;
    let JobSpec { id_field, on_missing_field, .. } = job;
    // Of several models the name for them all says nothing.
    let model = Some(model).filter(|_| job.pool.is_empty()).map_or("", String::as_str);
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
    // Nor was there anything but rows.
    if !job.dialect.is_rows() {
        text.extend_from_slice(format!("dialect {}\0", job.dialect).as_bytes());
    }
    // In notes of before that could be nothing is attached.
    if let Some(field) = &job.attachment_field {
        text.extend_from_slice(format!("attached {field}\0").as_bytes());
    }
    // Notes of before there were schemas are of jobs without one.
    text.extend_from_slice(job.schema.as_deref().unwrap_or_default().as_bytes());
    // Notes of before there could be several answers to a row are of jobs with one.
    if job.is_varied() {
        let parts = (&job.named, &job.others, job.repeat);
        text.extend_from_slice(&serde_json::to_vec(&parts).unwrap_or_default());
    }
    // Nor did names stand for anything.
    if !job.names.is_empty() {
        let names: std::collections::BTreeMap<_, _> =
            job.names.iter().map(|it| (&it.name, &it.model)).collect();
        text.extend_from_slice(&serde_json::to_vec(&names).unwrap_or_default());
    }
    // Nor were there several models of which any may answer.
    for model in &job.pool {
        text.extend_from_slice(model.shown().as_bytes());
        text.push(0);
    }
    blake3::hash(&text).to_hex().to_string()
}

fn is_ours(role: Role, dialect: Dialect, path: &Path) -> Result<bool, Error> {
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
        if bytes.trim_ascii().is_empty() && bytes.len() as u64 == length
            || shows(role, dialect, &bytes)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn shows(role: Role, dialect: Dialect, bytes: &[u8]) -> bool {
    let is_outcome = |line: &[u8]| match dialect {
        Dialect::Rows => envelope::read(line).is_ok(),
        _ => form_of(line) == Some(Form { dialect, side: Side::Outcomes }),
    };
    let bytes = bytes.strip_prefix(input::BOM).unwrap_or(bytes);
    let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    match role {
        // One line may be torn: any whole one will do.
        Role::Output | Role::Errors | Role::Delta => lines.any(is_outcome),
        Role::Telemetry => lines.any(|line| serde_json::from_slice::<TelemetryLine>(line).is_ok()),
        Role::Summary => serde_json::from_slice::<SummaryFile>(bytes).is_ok(),
    }
}
