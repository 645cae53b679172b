//! What is made of a row, whoever works it: its id and its prompt before a call, and what its line out says
//! behind it.

use super::attempt::Landing;
use crate::format::envelope::{NO_INPUT, Verdict};
use crate::format::telemetry::write_attempt;
use crate::input::{ShardRows, identify};
use crate::job::{Answer, Content, Failure, Id, Identity, JobSpec};
use crate::prompt::{Prompt, Template};

/// A row as far as it can be prepared: its id, and its prompt or why there is none.
pub(super) struct Prepared {
    pub(super) id: Id,
    /// The prompt's hash; 0 where there is none.
    pub(super) hash: u64,
    pub(super) prompt: Result<Prompt, Failure>,
}

/// Reads the row at a place among others, which has this number in the input, and renders its prompt. Where
/// the plan gave it another id than its own, that is `renamed`.
pub(super) fn prepare(
    (rows, index): (&ShardRows<'_>, usize),
    number: u64,
    renamed: Option<&Id>,
    job: &JobSpec,
    template: &Template,
) -> Prepared {
    let unnamed = |failure| {
        let id = match job.identity() {
            // Ids of requests are strings, so that no number is one.
            Identity::Field(_) if job.dialect.is_rows() => Id::unknown(),
            _ => Id::from_row_number(number),
        };
        Prepared { id, hash: 0, prompt: Err(failure) }
    };
    let text = match rows.text(index) {
        Ok(text) => text,
        Err(failure) => return unnamed(failure),
    };
    let object = match rows.object(index, &text) {
        Ok(object) => object,
        Err(failure) => return unnamed(failure),
    };
    let id = match identify(&object, job.identity(), number) {
        Ok(id) => id,
        Err(failure) if job.dialect.is_rows() => return unnamed(failure),
        // What is wrong with a request is told in its dialect's words.
        Err(failure) => return unnamed(template.ask(&object, job).err().unwrap_or(failure)),
    };
    let id = renamed.cloned().unwrap_or(id);
    let prompt = template.ask(&object, job);
    let hash = prompt.as_ref().map(Prompt::hash).unwrap_or_default();
    Prepared { id, hash, prompt }
}

/// A row as envelopes show it.
pub(super) fn input(rows: &ShardRows<'_>, index: usize) -> Vec<u8> {
    match rows.text(index) {
        Ok(text) if rows.object(index, &text).is_ok() => text.trim_ascii().as_bytes().to_vec(),
        _ => NO_INPUT.to_vec(),
    }
}

/// What a row's envelope says whose last call, after so many attempts, ended so.
pub(super) fn verdict(landing: &Landing, attempts: u32) -> Verdict<'_> {
    match &landing.result {
        Ok(Answer { content: Content::Text(text), .. }) => Verdict::Text(text),
        Ok(Answer { content: Content::Json(value), .. }) => Verdict::Json(value.get()),
        Err(failure) => Verdict::Failed(failure, attempts),
    }
}

/// Spells a call as the only one in a list of attempts, in place of what is in `out`; one that was not made is none.
pub(super) fn list_attempt(out: &mut Vec<u8>, landing: &Landing) {
    out.clear();
    out.push(b'[');
    if landing.is_made {
        write_attempt(out, &landing.attempt);
    }
    out.push(b']');
}
