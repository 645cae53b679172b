//! What a run would send first.

use serde::Serialize;
use serde_json::value::RawValue;

use super::Error;
use super::estimate::estimate;
use super::targets::path_text;
use crate::input::{Attachments, Sources, identify, read_shard};
use crate::job::{Failure, Kinds, Names};
use crate::plan::Planned;
use crate::prompt::{Prompt, Template};
use crate::provider::{Api, Wording};
use crate::report::{Estimate, Expecting};
use crate::schema::Mode;
use crate::store::{Held, Manifest};
use crate::work::{self, Answerer, Member, Message, Needs};

/// A plan and its first requests.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The plan.
    pub manifest: Manifest,
    /// Rows that ask what an earlier row asks, whether or not each of them would be called.
    pub twins: u64,
    /// The first rows.
    pub rows: Vec<PreviewedRow>,
    /// What all of them would come to, by model.
    pub estimates: Vec<Estimate>,
}

/// What would be sent for a row, or why nothing would.
#[derive(Debug, Clone, Serialize)]
pub struct PreviewedRow {
    /// Of several inputs the row's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// The row's number in its input.
    pub row_number: u64,
    /// Which model would be asked, where there are several: with --repeat each is asked the same again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Where it would go; nothing for models that are not called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The body, or the prompt of a model that is not called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Box<RawValue>>,
    /// Why the row would fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Renders the first rows of a plan.
pub(super) fn render(
    dir: &Held,
    Planned { manifest, twins }: Planned,
    sources: &Sources,
    answerer: &Answerer,
    (count, expecting): (usize, &Expecting),
) -> Result<Preview, Error> {
    let estimates = estimate(dir, &manifest, sources, answerer, expecting)?;
    let template = Template::parse(&manifest.job.prompt);
    let attachments = Attachments::of(&manifest.job, sources, manifest.source().path.is_none());
    let job = &manifest.job;
    let names = Names::of(job, manifest.base_url.is_some());
    let place = |prompt: &Prompt| names.as_ref()?.place(prompt.request.as_ref()?.model.as_ref()?);
    // Of several models the first row is shown for each.
    let count = if job.model_count() > 1 { 1 } else { count };
    let mut previewed = Vec::new();
    for (number, shard) in manifest.ranges().filter(|(_, shard)| shard.wanted > 0) {
        if previewed.len() >= count {
            break;
        }
        let attached = attachments.get(shard.source as usize);
        let source = sources.of(shard);
        let rows = read_shard(sources, shard, manifest.job.max_row_bytes)?;
        let left_out: Vec<u64> = dir
            .exceptions(number, shard)?
            .into_iter()
            .filter(|rename| rename.id.is_none())
            .map(|rename| rename.row)
            .collect();
        for (index, row) in (0..rows.len()).zip(shard.first_row..) {
            if previewed.len() >= count {
                break;
            }
            if !manifest.chosen.contains(row) || left_out.contains(&row) {
                continue;
            }
            let asked = rows.text(index).and_then(|text| {
                let object = rows.object(index, &text)?;
                identify(&object, manifest.job.identity(), shard.own_row(row))?;
                template.ask(&object, &manifest.job)
            });
            for model in 0..job.model_count() {
                let named = (job.model_count() > 1).then(|| job.named(model).to_owned());
                let message = asked.clone().and_then(|prompt| {
                    let kinds = Kinds::needed(&prompt.attachments);
                    let member =
                        answerer.first_for(model, Needs { kinds, name: place(&prompt) })?;
                    let api = member.model.api();
                    Ok((member, work::message(prompt, attached, api, true)?))
                });
                let input = source.name.as_ref().map(|_| path_text(&source.path));
                let row = shown(shard.own_row(row), named, message, answerer);
                previewed.push(PreviewedRow { input, ..row });
            }
        }
    }
    Ok(Preview { manifest, twins, rows: previewed, estimates })
}

fn shown(
    row_number: u64,
    model: Option<String>,
    message: Result<(&Member, Message), Failure>,
    answerer: &Answerer,
) -> PreviewedRow {
    match message {
        Ok((member, Message { text: prompt, attached, request })) => {
            let path = member.model.api().map(Api::path);
            let url = member.endpoint.as_ref().zip(path);
            let url = url.map(|(endpoint, path)| match &request {
                Some(request) => endpoint.url_of(&request.url),
                None => endpoint.url(path),
            });
            let mode = answerer.structured.as_ref().map(|structured| structured.mode);
            let in_prompt = mode == Some(Mode::Prompt);
            let wording = Wording { in_prompt, correction: None, attached: &attached };
            // Byte for byte what would be sent, but for the bytes of what is attached.
            let body = match url.is_some() {
                true => serde_json::from_slice(&member.model.encode(&prompt, wording)).ok(),
                false if request.is_some() => serde_json::from_str(&prompt).ok(),
                false => serde_json::value::to_raw_value(&prompt).ok(),
            };
            PreviewedRow { input: None, row_number, model, url, body, error: None }
        }
        Err(failure) => {
            let error = format!("{}: {}", failure.kind.name(), failure.message);
            PreviewedRow {
                input: None,
                row_number,
                model,
                url: None,
                body: None,
                error: Some(error),
            }
        }
    }
}
