//! The summary: what the job was, what its rows came to, where its outputs are.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::inputs::{Input, InputRows, input, inputs};
use crate::job::{
    Dialect, IdFrom, Identity, Money, Protocol, Selection, Setting, Spending, Usage, Variant,
    hash_text, rfc3339,
};
use crate::store::{Carried, CommitFile, Manifest, Role};
use crate::telemetry::{Histogram, Spread};

/// What a run was. Its fields stand in the file in this order.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The name of the run.
    pub run: String,
    /// The plan it was made from, and the number of this publication.
    pub generation: u32,
    /// How often outputs were published from the work directory.
    pub publication: u32,
    /// Whether rows without an outcome were left out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// How lines of the input are spelled.
    #[serde(skip_serializing_if = "Dialect::is_rows")]
    pub dialect: Dialect,
    /// How lines of the outputs are spelled.
    #[serde(skip_serializing_if = "Dialect::is_rows")]
    pub output_format: Dialect,
    /// The model asked for.
    pub model: String,
    /// The protocol it was asked in.
    pub protocol: Protocol,
    /// Where the endpoint was; nothing for models without one.
    pub base_url: Option<String>,
    /// The input; not there where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Input>,
    /// Of several, each and what became of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputRows>,
    /// Which of its rows were asked about.
    pub selection: Selection,
    /// The field that holds a row's id.
    pub id_field: Option<String>,
    /// What a row's id is where no field holds it.
    pub id_from: IdFrom,
    /// The template's blake3 hash.
    pub prompt_blake3: String,
    /// The instruction's blake3 hash.
    pub instruction_blake3: Option<String>,
    /// The schema's blake3 hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_blake3: Option<String>,
    /// Further fields of the request bodies.
    pub parameters: BTreeMap<String, Box<RawValue>>,
    /// The work directory.
    pub work_dir: String,
    /// Where several answers are wanted to a row, what became of each of them; those above are of the
    /// first model then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<VariantRows>,
    /// Rows.
    pub rows: Rows,
    /// What became of the rows of the generation before; nothing in the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carried: Option<Carried>,
    /// Where answers of several generations stand side by side, what each was asked with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub epochs: Vec<Epoch>,
    /// Rows without an answer, by the class of their failure.
    pub failures: BTreeMap<String, u64>,
    /// Calls.
    pub calls: Calls,
    /// Where there are several endpoints, who gave the answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answered_by: Vec<AnsweredBy>,
    /// When the session began that published this, as RFC 3339 has it.
    pub started_at: String,
    /// When it published.
    pub completed_at: String,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Rows done a second in that session.
    pub rows_per_second: f64,
    /// Times of all calls.
    pub timing_ms: Timing,
    /// Tokens of all calls.
    pub usage: Usage,
    /// What the calls cost.
    pub cost: Cost,
    /// Answers that were cut off at the token limit.
    pub truncated: u64,
    /// What makes the result less certain than it looks, in words.
    pub notes: Vec<String>,
    /// The outputs that were published with this summary.
    pub outputs: Vec<Output>,
}

/// What a generation asked with, and how many of its answers are published.
#[derive(Debug, Clone, Serialize)]
pub struct Epoch {
    /// The generation, as `epoch` in telemetry has it.
    pub epoch: u32,
    /// Its answers.
    pub answers: u64,
    /// What it asked with.
    #[serde(flatten)]
    pub setting: Option<Setting>,
}

/// A model at an endpoint, and how many answers it gave.
#[derive(Debug, Clone, Serialize)]
pub struct AnsweredBy {
    /// The endpoint's name.
    pub endpoint: String,
    /// The model, as telemetry has it.
    pub model: String,
    /// Its answers.
    pub answers: u64,
}

/// One of the answers that are wanted to each row.
#[derive(Debug, Clone, Serialize)]
pub struct VariantRows {
    /// Its model, as envelopes have it.
    pub model: String,
    /// Which of that model's answers, as envelopes have it.
    pub repeat: u32,
    /// The model, as its endpoint names it.
    pub asked_of: String,
    /// The protocol it was asked in.
    pub protocol: Protocol,
    /// Where the endpoint was; nothing for models without one.
    pub base_url: Option<String>,
    /// Further fields of the request bodies.
    pub parameters: BTreeMap<String, Box<RawValue>>,
    /// Rows with this answer.
    pub ok: u64,
    /// Rows without it.
    pub failed: u64,
    /// Those by the class of their failure.
    pub failures: BTreeMap<String, u64>,
    /// Calls, those included whose end was lost in a crash of this generation.
    pub calls: u64,
    /// Tokens of its calls.
    pub usage: Usage,
    /// What its calls cost; nothing where that is not known.
    pub cost_usd: Option<Money>,
    /// Answers that were cut off at the token limit.
    pub truncated: u64,
    /// How long its calls took, in milliseconds.
    pub duration_ms: Option<Spread>,
}

/// Rows of a run. Where several answers are wanted to a row, all but the first two, and those that
/// are skipped, count each of them.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Rows {
    /// In the input.
    pub input: u64,
    /// Asked about.
    pub selected: u64,
    /// With an answer.
    pub ok: u64,
    /// Without one.
    pub failed: u64,
    /// Without an outcome yet, and so not in the outputs; said only where rows may be left out for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
    /// Left out because an earlier row has their id.
    pub skipped: u64,
    /// Of all rows, those that took the outcome of another row, which asks the same.
    pub twins: u64,
    /// With an answer before this session.
    pub resumed: u64,
    /// That failed before and were tried again in this generation.
    pub retried: u64,
    /// Of all answers, those taken over from an output without a work directory.
    pub adopted: u64,
}

/// Calls of a run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Calls {
    /// Made, those included whose end was lost in a crash.
    pub made: u64,
    /// Made in this generation: what was carried over from the one before does not count.
    pub in_this_generation: u64,
    /// Made in this session.
    pub in_this_session: u64,
    /// At most so many were made a second time because a crash took the first.
    pub repeated_after_crash: u64,
    /// Not made because another row asks the same: one for each row that took its outcome.
    pub saved: u64,
}

/// What calls cost, in US dollars. Nothing is said where it is not known of any call.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    /// Of all calls of which it is known.
    pub cost_usd: Option<Money>,
    /// Of those of this session.
    pub in_this_session_usd: Option<Money>,
    /// What was spent before on answers that are no longer among these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_usd: Option<Money>,
    /// Calls that may have cost something, and nobody knows what.
    pub unknown_calls: u64,
}

/// Times of all calls.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Timing {
    /// From the sending to the decoded answer.
    pub duration: Option<Spread>,
    /// From the sending to the head of the answer.
    pub time_to_response: Option<Spread>,
    /// From the sending to the first token, of answers that were streamed.
    pub ttft: Option<Spread>,
}

/// One output.
#[derive(Debug, Clone, Serialize)]
pub struct Output {
    /// What it is.
    pub role: Role,
    /// Where it is.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Its blake3 hash.
    pub blake3: String,
}

/// What a summary is made of, besides the manifest.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The name of the run.
    pub run: String,
    /// The number of the publication.
    pub publication: u32,
    /// Whether rows without an outcome were left out.
    pub is_partial: bool,
    /// How lines of the outputs are spelled.
    pub format: Dialect,
    /// What came of each input: its output, the rows with an answer and those without.
    pub inputs: Vec<(CommitFile, u64, u64)>,
    /// Where the endpoint was in this session, by model.
    pub base_urls: Vec<Option<String>>,
    /// The work directory.
    pub work_dir: String,
    /// Whether the model is called, or answers by itself.
    pub is_called: bool,
    /// Rows with an answer.
    pub ok: u64,
    /// Rows without one.
    pub failed: u64,
    /// Rows taken over.
    pub adopted: u64,
    /// Rows that took the outcome of another.
    pub twins: u64,
    /// Rows tried again in this generation.
    pub retried: u64,
    /// Answers by the generation that asked for them, and the model.
    pub epochs: BTreeMap<(u32, usize), u64>,
    /// What became of each variant, in their order; nothing where there is one.
    pub variants: Vec<VariantFacts>,
    /// Rows that had an answer when the session began.
    pub resumed: u64,
    /// Rows done in the session.
    pub done_now: u64,
    /// Failures by class.
    pub failures: BTreeMap<String, u64>,
    /// Calls that ended, of all sessions.
    pub calls: u64,
    /// Calls of this session.
    pub calls_now: u64,
    /// Calls repeated after crashes.
    pub repeated: u64,
    /// Answers by endpoint and model, where there are several endpoints.
    pub answers: BTreeMap<(String, String), u64>,
    /// Tokens.
    pub usage: Usage,
    /// What the calls cost, and what those of the session did.
    pub cost: Spending,
    /// The same of this session.
    pub cost_now: Spending,
    /// Answers cut off.
    pub truncated: u64,
    /// Durations.
    pub duration: Histogram,
    /// Times to the head of the answer.
    pub time_to_response: Histogram,
    /// Times to the first token of streamed answers.
    pub ttft: Histogram,
    /// When the session began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Now.
    pub now_ms: u64,
}

/// What became of a variant.
#[derive(Debug, Clone)]
pub struct VariantFacts {
    /// Rows with an answer.
    pub ok: u64,
    /// Rows without one.
    pub failed: u64,
    /// Failures by class.
    pub failures: BTreeMap<String, u64>,
    /// Calls.
    pub calls: u64,
    /// Tokens.
    pub usage: Usage,
    /// What its calls cost.
    pub cost: Spending,
    /// Answers cut off.
    pub truncated: u64,
    /// Durations.
    pub duration: Histogram,
}

/// Makes the summary of a publication of these files.
#[must_use]
pub fn summarize(manifest: &Manifest, facts: Facts, files: &[CommitFile]) -> Summary {
    let job = &manifest.job;
    let took = Duration::from_millis(facts.now_ms.saturating_sub(facts.started_ms));
    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    let rate = facts.done_now as f64 / took.as_secs_f64().max(0.001);
    let repeated = facts.repeated.saturating_add(manifest.repeated_before());
    let made = if facts.is_called { facts.calls.saturating_add(repeated) } else { 0 };
    let carried = manifest.carried.unwrap_or_default();
    let before = carried.calls.saturating_add(carried.repeated);
    let by_number = "rows are told apart by their numbers and texts (no --id-field): a row that moves \
                     to another place is asked about again";
    let is_by_number = job.identity() == Identity::RowNumber;
    let rows = rows(manifest, &facts);
    let left_out = rows.left.map(|left| {
        let all = manifest.answered_for();
        format!("{left} of {all} rows have no outcome yet and are not in these outputs")
    });
    let notes = is_by_number.then(|| by_number.to_owned()).into_iter().chain(left_out).collect();
    let variants = variants(manifest, &facts);
    let cost = cost(manifest, &facts);
    Summary {
        run: facts.run,
        generation: manifest.generation,
        publication: facts.publication,
        partial: facts.is_partial,
        dialect: job.dialect,
        output_format: facts.format,
        model: job.model.clone(),
        protocol: job.protocol,
        base_url: facts.base_urls.into_iter().next().flatten(),
        input: (!manifest.is_split()).then(|| input(manifest.source())),
        inputs: inputs(manifest, &facts.inputs),
        selection: job.selection.clone(),
        id_field: job.id_field.clone(),
        id_from: job.id_from,
        prompt_blake3: hash_text(&job.prompt),
        instruction_blake3: job.instruction.as_deref().map(hash_text),
        schema_blake3: job.schema.as_deref().map(hash_text),
        parameters: job.parameters.clone(),
        work_dir: facts.work_dir,
        variants,
        rows,
        // What was spent on rows that are gone stands in `cost`.
        carried: manifest.carried.map(|carried| Carried { replaced: None, ..carried }),
        epochs: epochs(manifest, &facts.epochs),
        failures: facts.failures,
        calls: Calls {
            made,
            in_this_generation: made.saturating_sub(before),
            in_this_session: facts.calls_now,
            repeated_after_crash: repeated,
            saved: if facts.is_called { facts.twins } else { 0 },
        },
        answered_by: answered_by(facts.answers),
        started_at: rfc3339(facts.started_ms),
        completed_at: rfc3339(facts.now_ms),
        duration_ms: facts.now_ms.saturating_sub(facts.started_ms),
        rows_per_second: (rate * 10.0).round() / 10.0,
        timing_ms: Timing {
            duration: facts.duration.spread(),
            time_to_response: facts.time_to_response.spread(),
            ttft: facts.ttft.spread(),
        },
        usage: facts.usage,
        cost,
        truncated: facts.truncated,
        notes,
        outputs: files.iter().map(output).collect(),
    }
}

fn rows(manifest: &Manifest, facts: &Facts) -> Rows {
    Rows {
        input: manifest.rows(),
        selected: manifest.selected,
        ok: facts.ok,
        failed: facts.failed,
        left: facts
            .is_partial
            .then(|| manifest.answered_for().saturating_sub(facts.ok.saturating_add(facts.failed))),
        skipped: manifest.skipped,
        twins: facts.twins,
        resumed: facts.resumed,
        retried: facts.retried,
        adopted: facts.adopted,
    }
}

fn variants(manifest: &Manifest, facts: &Facts) -> Vec<VariantRows> {
    let of = |(number, facts_of): (usize, &VariantFacts)| {
        let Variant { model, named, repeat } = manifest.job.variant(number);
        let (asked_of, protocol, parameters) = manifest.job.called(model);
        VariantRows {
            model: named.to_owned(),
            repeat,
            asked_of: asked_of.to_owned(),
            protocol,
            base_url: facts.base_urls.get(model).cloned().flatten(),
            parameters: parameters.clone(),
            ok: facts_of.ok,
            failed: facts_of.failed,
            failures: facts_of.failures.clone(),
            calls: facts_of.calls,
            usage: facts_of.usage,
            cost_usd: facts_of.cost.known(),
            truncated: facts_of.truncated,
            duration_ms: facts_of.duration.spread(),
        }
    };
    facts.variants.iter().enumerate().map(of).collect()
}

fn answered_by(answers: BTreeMap<(String, String), u64>) -> Vec<AnsweredBy> {
    let shown = |((endpoint, model), answers)| AnsweredBy { endpoint, model, answers };
    answers.into_iter().map(shown).collect()
}

fn cost(manifest: &Manifest, facts: &Facts) -> Cost {
    // Who answers with the prompt takes nothing for it.
    let [mut all, now] = match facts.is_called {
        true => [facts.cost, facts.cost_now],
        false => [Spending::default(); 2],
    };
    if facts.is_called {
        all.lose(facts.repeated.saturating_add(manifest.repeated_before()));
    }
    Cost {
        cost_usd: all.known(),
        in_this_session_usd: now.known(),
        replaced_usd: manifest.replaced_cost().filter(|it| it.priced > 0).map(|it| it.usd),
        unknown_calls: all.unpriced,
    }
}

fn output(file: &CommitFile) -> Output {
    Output {
        role: file.role,
        path: file.target.to_string_lossy().into_owned(),
        bytes: file.bytes,
        blake3: file.blake3.clone(),
    }
}

fn epochs(manifest: &Manifest, answers: &BTreeMap<(u32, usize), u64>) -> Vec<Epoch> {
    let is_one = answers.keys().all(|(epoch, _)| *epoch == manifest.generation);
    let answers = answers.iter().filter(|_| !is_one);
    answers
        .map(|((epoch, model), answers)| Epoch {
            epoch: *epoch,
            answers: *answers,
            setting: manifest.setting_of(*epoch, *model),
        })
        .collect()
}

impl Summary {
    /// The summary as its file has it: indented JSON and a newline.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}
