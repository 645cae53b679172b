//! What is asked about which rows, from the arguments, the environment and the files they name.

use std::path::Path;

use super::args::{InputArgs, ModelArgs, PromptArgs, SchemaArgs};
use super::model::{Asked, Route, asked};
use super::schema::schema_text;
use super::serving::Serving;
use super::surroundings::{Failed, cores};
use crate::job::{JobSpec, MAX_ATTACHMENT_BYTES, Protocol, Sample, Selection};
use crate::pipeline::{Error, Question};
use crate::plan;
use crate::prompt;
use crate::telemetry::now_ms;

pub(super) fn question(
    input: &InputArgs,
    prompt: &PromptArgs,
    schema: &SchemaArgs,
    (model, serving): (&ModelArgs, Option<&Serving>),
    include_input: bool,
) -> Result<(Question, Route), Failed> {
    let file = input.file.as_ref().or(input.input.as_ref()).cloned().unwrap_or_default();
    let Asked { model, protocol, parameters, route } = asked(model, serving)?;
    if protocol == Protocol::Embeddings && prompt.instruction.is_some() {
        let text = "embeddings take no instruction: leave --instruction out, or put it into the \
                    template";
        return Err(Error::Usage(text.to_owned()).into());
    }
    if protocol == Protocol::Embeddings && prompt.attachment_field.is_some() {
        let text = "embeddings take text only: leave --attachment-field out";
        return Err(Error::Usage(text.to_owned()).into());
    }
    let text = match (&prompt.prompt, &prompt.template) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => read_text(path)?,
        (None, None) => prompt::DEFAULT.to_owned(),
    };
    let job = JobSpec {
        model,
        protocol,
        prompt: text,
        instruction: prompt.instruction.as_deref().map(read_text).transpose()?,
        parameters,
        schema: schema_text(schema)?,
        id_field: input.id_field.clone(),
        id_from: input.id_from.into(),
        selection: Selection {
            offset: input.offset,
            limit: input.limit,
            sample: input.sample.map(|rows| Sample { rows, seed: input.seed }),
        },
        attachment_field: prompt.attachment_field.clone(),
        max_attachment_bytes: prompt.max_attachment_bytes.unwrap_or(MAX_ATTACHMENT_BYTES),
        on_duplicate: input.on_duplicate.into(),
        on_missing_field: prompt.on_missing_field.into(),
        max_row_bytes: input.max_row_bytes,
        include_input,
        dedupe: input.dedupe.wish(),
    };
    let cutting = match (input.shard_rows, input.shards) {
        (Some(rows), _) => plan::Cutting::Rows(rows as usize),
        (None, Some(shards)) => plan::Cutting::Shards(shards),
        (None, None) => plan::Cutting::Auto,
    };
    let plan = plan::Options {
        cutting,
        threads: cores().min(8),
        base_url: route.planned_base_url(),
        provider: route.who.name(),
        transport: route.transport,
        replaces: Vec::new(),
        published: 0,
        is_spooled: false,
        url: None,
        counts_twins: false,
        now_ms: now_ms(),
    };
    Ok((Question { input: file, link: input.link.clone(), job, plan }, route))
}

pub(super) fn read_text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path)
        .map_err(|source| crate::input::Error::Unreadable { path: path.to_owned(), source }.into())
}

/// A variable of the environment, unless it is empty.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}
