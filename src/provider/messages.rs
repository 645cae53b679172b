//! Anthropic Messages: <https://platform.claude.com/docs/en/api/messages>, its events
//! (<https://platform.claude.com/docs/en/build-with-claude/streaming>) and reasons to stop
//! (<https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons>).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::api::{Frame, Reserved};
use super::attached::{Piece, write};
use super::reply::{
    ErrorDetail, REFUSED, Said, bad, counts, error_event, error_in_spite, told, unreadable,
};
use super::stream::{Step, parse};
use crate::format::json;
use crate::job::{Answer, Attachment, Failure, JobSpec, Modality, Payload, Usage};

/// The version of the protocol, which every call names.
pub(super) const VERSION: &str = "2023-06-01";

pub(super) const RESERVED: Reserved = &[
    ("model", "the model is named with --model"),
    ("messages", "the messages are made of the prompt"),
    ("system", "the instruction is a file, named with --instruction"),
    ("stream", "answers are streamed with transport=sse in the model's name"),
];

/// `{"model":…,"system":[…],"messages":[{"role":"user","content":PROMPT}],…}`: the instruction
/// first, the same in every call, and marked for the endpoint's cache.
/// <https://platform.claude.com/docs/en/build-with-claude/prompt-caching>
pub(super) fn frame(job: &JobSpec, streams: bool) -> Frame {
    let mut frame = Frame::of(job);
    if let Some(instruction) = &job.instruction {
        frame.before.extend_from_slice(b",\"system\":[{\"type\":\"text\",\"text\":");
        json::write_string(&mut frame.before, instruction);
        frame.before.extend_from_slice(b",\"cache_control\":{\"type\":\"ephemeral\"}}]");
    }
    frame.before.extend_from_slice(b",\"messages\":[{\"role\":\"user\",\"content\":");
    frame.behind.extend_from_slice(b"}]");
    frame.end(job, if streams { ",\"stream\":true" } else { "" })
}

/// An attachment as a block of the user's message: `image`, `document`, each with its data or its URL.
/// <https://platform.claude.com/docs/en/build-with-claude/vision>,
/// <https://platform.claude.com/docs/en/build-with-claude/pdf-support>
///
/// # Errors
/// Why the protocol does not take it.
pub(super) fn part(out: &mut Vec<u8>, it: &Attachment) -> Result<(), String> {
    const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];
    let kind = match it.modality {
        Modality::Audio => {
            let text = "the Messages protocol takes no sound: use a model that is asked with chat";
            return Err(text.to_owned());
        }
        Modality::Document => "document",
        Modality::Image | Modality::Text => "image",
    };
    let (begin, source) = (Piece::Raw("{\"type\":\""), Piece::Raw("\",\"source\":{\"type\":\""));
    write(out, &[begin, Piece::Raw(kind), source]);
    match &it.payload {
        Payload::Url(url) => write(out, &[Piece::Raw("url\",\"url\":"), Piece::String(url)]),
        payload @ (Payload::Bytes(media, _) | Payload::Length(media, _)) => {
            if it.modality == Modality::Image && !IMAGES.contains(&media.name) {
                let name = media.name;
                return Err(format!(
                    "the Messages protocol takes PNG, JPEG, GIF and WebP, not {name}"
                ));
            }
            let begin = [Piece::Raw("base64\",\"media_type\":"), Piece::String(media.name)];
            write(out, &begin);
            write(out, &[Piece::Raw(",\"data\":\""), Piece::Data(payload), Piece::Raw("\"")]);
        }
    }
    out.extend_from_slice(b"}}");
    Ok(())
}

/// The answer of a successful call.
pub(super) fn answer(body: &[u8]) -> Result<Answer, Failure> {
    let message: Message<'_> =
        serde_json::from_slice(body).map_err(|error| unreadable("message", &error, body))?;
    if let Some(error) = message.error.as_ref().filter(|error| !error.is_blank()) {
        return Err(error_in_spite(error));
    }
    let Some(content) = message.content else {
        return Err(bad("the answer is no message: it has no content"));
    };
    let mut said = Said {
        finish_reason: message.stop_reason.map(finish_reason),
        model: message.model.map(Cow::into_owned),
        usage: message.usage.and_then(usage),
        ..Said::default()
    };
    // Thinking stands beside the text.
    for block in content.into_iter().filter(|block| block.kind.as_deref() == Some("text")) {
        said.text.push_str(&block.text.unwrap_or_default());
    }
    said.judge()
}

/// A reason to stop, in the words of Chat Completions where they mean the same.
pub(super) fn finish_reason(reason: Cow<'_, str>) -> String {
    match &*reason {
        "end_turn" | "stop_sequence" => "stop".to_owned(),
        "max_tokens" | "model_context_window_exceeded" => "length".to_owned(),
        "refusal" => REFUSED.to_owned(),
        _ => reason.into_owned(),
    }
}

/// What an event adds to an answer.
pub(super) fn event(said: &mut Said, data: &[u8]) -> Result<Step, Failure> {
    let event: Event<'_> = parse(data)?;
    match &*event.kind {
        "message_start" => {
            if let Some(message) = event.message {
                said.model = message.model.map(Cow::into_owned);
                // Of the answer it counts what there is by now, which is no count of the answer; some
                // servers count the prompt at the end only, and nothing here.
                let begun: Option<Counts> = message.usage.and_then(counts);
                let begun = begun.and_then(|it| Counts { output_tokens: Some(0), ..it }.usage());
                said.begun = begun.filter(|usage| usage.input_tokens > 0);
            }
            Ok(Step::Nothing)
        }
        "content_block_start" | "content_block_delta" => {
            let piece = event.delta.or(event.content_block);
            let text = piece.and_then(|piece| piece.text).unwrap_or_default();
            said.text.push_str(&text);
            Ok(if text.is_empty() { Step::Nothing } else { Step::Content })
        }
        "message_delta" => {
            if let Some(reason) = event.delta.and_then(|delta| delta.stop_reason) {
                said.finish_reason = Some(finish_reason(reason));
            }
            // These counts are of the whole answer, and leave out what did not change.
            let more: Option<Counts> = event.usage.and_then(counts);
            if let Some(more) = more {
                let begun = said.begun.filter(|_| !more.has_cache_counts());
                let counted = begun.zip(more.output_tokens);
                let of_answer = counted.map(|(it, output_tokens)| Usage { output_tokens, ..it });
                let whole = more.usage();
                said.usage = of_answer.or(whole).or(said.usage);
            }
            Ok(Step::Nothing)
        }
        "message_stop" => Ok(Step::End),
        "error" => {
            let error = event.error.unwrap_or(ErrorDetail::Text("it does not say which".into()));
            Err(error_event(None, &error))
        }
        _ => Ok(Step::Nothing),
    }
}

/// What the call used, where the endpoint says it.
pub(super) fn usage(raw: &RawValue) -> Option<Usage> {
    counts(raw).and_then(Counts::usage)
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(borrow, default)]
    content_block: Option<Block<'a>>,
    #[serde(borrow, default)]
    delta: Option<Block<'a>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<ErrorDetail<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<Vec<Block<'a>>>,
    #[serde(borrow, default)]
    stop_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<ErrorDetail<'a>>,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    stop_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Counts {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
}

impl Counts {
    fn has_cache_counts(&self) -> bool {
        self.cache_creation_input_tokens.is_some() && self.cache_read_input_tokens.is_some()
    }

    /// What goes into the cache and what comes out of it is not counted as input here, and is there.
    fn usage(self) -> Option<Usage> {
        let written = self.cache_creation_input_tokens.unwrap_or_default();
        let read = self.cache_read_input_tokens.unwrap_or_default();
        let (input, output_tokens) = told(self.input_tokens, self.output_tokens, None)?;
        Some(Usage {
            input_tokens: input.saturating_add(written).saturating_add(read),
            output_tokens,
            cached_input_tokens: read,
            reasoning_tokens: 0,
            cache_write_tokens: written,
        })
    }
}
