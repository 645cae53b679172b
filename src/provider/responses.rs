//! OpenAI Responses: <https://platform.openai.com/docs/api-reference/responses>, its events
//! (<https://platform.openai.com/docs/api-reference/responses-streaming>) and its WebSocket mode
//! (<https://developers.openai.com/api/docs/guides/websocket-mode>).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::api::{Frame, Reserved};
use super::attached::{Piece, write, write_place};
use super::reply::{
    ErrorDetail, FILTERED, Said, bad, counts, error_event, error_in_spite, foreign, told,
    unfinished, unreadable,
};
use super::stream::{Step, parse};
use crate::format::json;
use crate::job::{Answer, Attachment, Failure, JobSpec, Modality, Payload, Usage};

pub(super) const RESERVED: Reserved = &[
    ("model", "the model is named with --model"),
    ("input", "the input is made of the prompt"),
    ("instructions", "the instruction is a file, named with --instruction"),
    ("stream", "answers are streamed with transport=sse in the model's name"),
    ("background", "every call waits for its answer"),
    ("previous_response_id", "a row's answer does not depend on another's"),
    ("conversation", "a row's answer does not depend on another's"),
];

/// `{"model":…,"instructions":…,"input":PROMPT,…}`: the instruction first, the same in every call,
/// so that the endpoint can cache it.
pub(super) fn frame(job: &JobSpec, streams: bool) -> Frame {
    let mut frame = Frame::of(job);
    if let Some(instruction) = &job.instruction {
        frame.before.extend_from_slice(b",\"instructions\":");
        json::write_string(&mut frame.before, instruction);
    }
    frame.before.extend_from_slice(b",\"input\":");
    let store = if job.parameters.contains_key("store") { "" } else { ",\"store\":false" };
    let stream = if streams { ",\"stream\":true" } else { "" };
    frame.end(job, &format!("{store}{stream}"))
}

/// An attachment as a part of the input: `input_image`, `input_file`.
/// <https://platform.openai.com/docs/guides/images-vision>,
/// <https://developers.openai.com/api/docs/guides/file-inputs>. Sound is no part of an input that the
/// reference knows.
///
/// # Errors
/// Why the protocol does not take it.
pub(super) fn part(out: &mut Vec<u8>, it: &Attachment) -> Result<(), String> {
    match (it.modality, &it.payload) {
        (Modality::Audio, _) => {
            return Err("the Responses protocol takes no sound: use --protocol chat".to_owned());
        }
        (Modality::Document, Payload::Url(_)) => {
            write(out, &[Piece::Raw("{\"type\":\"input_file\",\"file_url\":")]);
        }
        (Modality::Document, _) => {
            let begin = "{\"type\":\"input_file\",\"filename\":";
            write(out, &[Piece::Raw(begin), Piece::String(&it.file_name)]);
            write(out, &[Piece::Raw(",\"file_data\":")]);
        }
        (Modality::Image | Modality::Text, _) => {
            // The default, but vLLM wants it said: <https://github.com/vercel/ai/issues/20300>.
            let begin = "{\"type\":\"input_image\",\"detail\":\"auto\",\"image_url\":";
            write(out, &[Piece::Raw(begin)]);
        }
    }
    write_place(out, &it.payload);
    out.push(b'}');
    Ok(())
}

/// The answer of a successful call.
pub(super) fn answer(body: &[u8]) -> Result<Answer, Failure> {
    let response: Response<'_> =
        serde_json::from_slice(body).map_err(|error| unreadable("response", &error, body))?;
    if let Some(error) = response.error.as_ref().filter(|error| !error.is_blank()) {
        return Err(error_in_spite(error));
    }
    let mut said = Said::default();
    read(&mut said, response)?;
    said.judge()
}

/// What a response says, whole or at the end of its events.
fn read(said: &mut Said, response: Response<'_>) -> Result<(), Failure> {
    if let Some(error) = response.error.as_ref().filter(|error| !error.is_blank()) {
        return Err(error_event(None, error));
    }
    let status = response.status.as_deref().unwrap_or("completed");
    said.finish_reason = match status {
        "completed" => Some("stop".to_owned()),
        "incomplete" => {
            let reason = response.incomplete_details.and_then(|details| details.reason);
            Some(match reason.as_deref() {
                Some("max_output_tokens" | "max_tokens") => "length".to_owned(),
                Some("content_filter") => FILTERED.to_owned(),
                other => other.unwrap_or("incomplete").to_owned(),
            })
        }
        other => return Err(unfinished(other)),
    };
    let Some(output) = response.output else {
        return Err(bad("the answer is no response: it has no output"));
    };
    (said.text, said.refusal) = (String::new(), String::new());
    // Reasoning, searches and the like stand beside the message.
    let messages = output.into_iter().filter(|item| item.kind.as_deref() == Some("message"));
    for part in messages.flat_map(|item| item.content.unwrap_or_default()) {
        said.text.push_str(&part.text.unwrap_or_default());
        said.refusal.push_str(&part.refusal.unwrap_or_default());
    }
    said.model = response.model.map(Cow::into_owned);
    said.usage = response.usage.and_then(usage);
    Ok(())
}

/// What an event adds to an answer. The last one has all of it.
pub(super) fn event(said: &mut Said, data: &[u8]) -> Result<Step, Failure> {
    let event: Event<'_> = match data {
        // Some servers end their streams like those of Chat Completions.
        data if data.trim_ascii() == b"[DONE]" => return Ok(Step::Nothing),
        data => parse(data)?,
    };
    let id = event.response.as_ref().and_then(|response| response.id.as_deref());
    let is_other = said.has_begun && id.is_some() && said.id.is_some() && id != said.id.as_deref();
    if said.is_paired_by_id && event.kind.starts_with("response.") {
        // Each response begins once, and nothing of it comes before.
        let is_beginning = event.kind == "response.created";
        if is_other || is_beginning == said.has_begun {
            return Err(foreign(&event.kind));
        }
    }
    match &*event.kind {
        "response.created" => {
            said.has_begun = true;
            said.id = id.map(str::to_owned);
            Ok(Step::Nothing)
        }
        "response.output_text.delta" | "response.refusal.delta" => Ok(Step::Content),
        "response.completed" | "response.incomplete" | "response.failed" => {
            let response = event.response.ok_or_else(|| bad("the last event has no response"))?;
            if is_other {
                return Ok(Step::Nothing);
            }
            said.is_paired = response.id.is_some() && said.id.as_deref() == response.id.as_deref();
            let has_error = response.error.as_ref().is_some_and(|error| !error.is_blank());
            let failed = event.kind == "response.failed" && !has_error;
            if failed {
                return Err(error_event(None, &ErrorDetail::Text("response.failed".into())));
            }
            read(said, *response)?;
            Ok(Step::End)
        }
        "error" => {
            // Over HTTP the error stands in the event itself, over a WebSocket beside its status.
            let error = event.error.unwrap_or_else(|| {
                let message = event.message.and_then(|it| it.as_str().map(str::to_owned));
                Box::new(ErrorDetail::Full {
                    message,
                    code: event.code,
                    kind: None,
                    error_code: None,
                    details: None,
                })
            });
            let status = event.status.and_then(|it| it.as_u64()).map(u16::try_from);
            Err(error_event(status.and_then(Result::ok), &error))
        }
        _ => Ok(Step::Nothing),
    }
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    // Large, and not of the events that come by the hundred.
    #[serde(borrow, default)]
    response: Option<Box<Response<'a>>>,
    #[serde(borrow, default)]
    error: Option<Box<ErrorDetail<'a>>>,
    // A number over a WebSocket; events of other kinds may have something else there.
    #[serde(default)]
    status: Option<serde_json::Value>,
    #[serde(default)]
    message: Option<serde_json::Value>,
    #[serde(default)]
    code: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    status: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    error: Option<ErrorDetail<'a>>,
    #[serde(borrow, default)]
    incomplete_details: Option<Incomplete<'a>>,
    #[serde(borrow, default)]
    output: Option<Vec<Item<'a>>>,
    #[serde(borrow, default)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Incomplete<'a> {
    #[serde(borrow, default)]
    reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    content: Option<Vec<Part<'a>>>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    refusal: Option<Cow<'a, str>>,
}

/// What the call used, where the endpoint says what both the prompt and the answer had.
pub(super) fn usage(raw: &RawValue) -> Option<Usage> {
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Wire {
        input_tokens: Option<u64>,
        output_tokens: Option<u64>,
        total_tokens: Option<u64>,
        input_tokens_details: Option<Input>,
        output_tokens_details: Option<Output>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Input {
        cached_tokens: Option<u64>,
        cache_write_tokens: Option<u64>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Output {
        reasoning_tokens: Option<u64>,
    }
    let wire: Wire = counts(raw)?;
    let (input_tokens, output_tokens) =
        told(wire.input_tokens, wire.output_tokens, wire.total_tokens)?;
    let (input, output) = (wire.input_tokens_details, wire.output_tokens_details);
    let input = input.unwrap_or_default();
    Some(Usage {
        input_tokens,
        output_tokens,
        cached_input_tokens: input.cached_tokens.unwrap_or_default(),
        reasoning_tokens: output.unwrap_or_default().reasoning_tokens.unwrap_or_default(),
        cache_write_tokens: input.cache_write_tokens.unwrap_or_default(),
    })
}
