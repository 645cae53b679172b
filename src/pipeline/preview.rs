//! What a run would send first.

use serde::Serialize;
use serde_json::value::RawValue;

use super::Error;
use super::estimate::estimate;
use crate::input::{Attachments, Source, identify, read_shard};
use crate::job::Failure;
use crate::plan::Planned;
use crate::prompt::Template;
use crate::provider::Wording;
use crate::report::{Estimate, Expecting};
use crate::schema::Mode;
use crate::store::{Held, Manifest};
use crate::work::{self, Answerer, Member, Message};

/// A plan and its first requests.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The plan.
    pub manifest: Manifest,
    /// Rows that ask what an earlier row asks, whether or not each of them would be called.
    pub twins: u64,
    /// The first rows.
    pub rows: Vec<PreviewedRow>,
    /// What all of them would come to.
    pub estimate: Estimate,
}

/// What would be sent for a row, or why nothing would.
#[derive(Debug, Clone, Serialize)]
pub struct PreviewedRow {
    /// The row's number.
    pub row_number: u64,
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
    source: &Source,
    answerer: &Answerer,
    (count, expecting): (usize, &Expecting),
) -> Result<Preview, Error> {
    let estimate = estimate(dir, &manifest, source, answerer, expecting)?;
    let template = Template::parse(&manifest.job.prompt);
    let attachments = Attachments::of(&manifest.job, source, manifest.source.path.is_none());
    let member = answerer.first(0);
    let path = member.and_then(|member| Some(member.model.api()?.path()));
    let endpoint = member.and_then(|member| member.endpoint.as_ref());
    let url = endpoint.zip(path).map(|(endpoint, path)| format!("{endpoint}{path}"));
    let mut previewed = Vec::new();
    for (number, shard) in manifest.open_shards() {
        if previewed.len() >= count {
            break;
        }
        let rows = read_shard(source, shard, manifest.job.max_row_bytes)?;
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
            let message = rows.text(index).and_then(|text| {
                let object = rows.object(index, &text)?;
                identify(&object, manifest.job.identity(), row)?;
                let prompt = template.ask(&object, &manifest.job)?;
                let api = member.and_then(|member| member.model.api());
                work::message(prompt, attachments.as_ref(), api, true)
            });
            previewed.push(shown(row, url.clone(), message, answerer));
        }
    }
    Ok(Preview { manifest, twins, rows: previewed, estimate })
}

fn shown(
    row_number: u64,
    url: Option<String>,
    message: Result<Message, Failure>,
    answerer: &Answerer,
) -> PreviewedRow {
    match message {
        Ok(Message { text: prompt, attached }) => {
            let mode = answerer.structured.as_ref().map(|structured| structured.mode);
            let in_prompt = mode == Some(Mode::Prompt);
            let wording = Wording { in_prompt, correction: None, attached: &attached };
            // Byte for byte what would be sent, but for the bytes of what is attached.
            let body = match answerer.first(0).filter(|_| url.is_some()) {
                Some(Member { model, .. }) => {
                    serde_json::from_slice(&model.encode(&prompt, wording)).ok()
                }
                None => serde_json::value::to_raw_value(&prompt).ok(),
            };
            PreviewedRow { row_number, url, body, error: None }
        }
        Err(failure) => {
            let error = format!("{}: {}", failure.kind.name(), failure.message);
            PreviewedRow { row_number, url: None, body: None, error: Some(error) }
        }
    }
}
