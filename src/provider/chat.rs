//! OpenAI Chat Completions, as OpenAI's API reference has it and most servers speak it.
//! <https://platform.openai.com/docs/api-reference/chat>

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::api::{Frame, Reserved};
use super::attached::{Piece, write, write_place};
use super::reply::{ErrorDetail, Said, counts, error_event, error_in_spite, told, unreadable};
use super::stream::{Step, parse};
use crate::format::json;
use crate::job::{Answer, Attachment, Failure, FailureKind, JobSpec, Modality, Payload, Usage};

pub(super) const RESERVED: Reserved = &[
    ("model", "the model is named with --model"),
    ("messages", "the messages are made of the prompt and the instruction"),
    ("stream", "answers are streamed with transport=sse in the model's name"),
    ("stream_options", "answers are streamed with transport=sse in the model's name"),
    ("n", "a row has one answer"),
];

/// `{"model":…,"messages":[…,{"role":"user","content":PROMPT}],…}`: the instruction first, the same
/// in every call, so that the endpoint can cache it.
pub(super) fn frame(job: &JobSpec, streams: bool) -> Frame {
    let mut frame = Frame::of(job);
    frame.before.extend_from_slice(b",\"messages\":[");
    if let Some(instruction) = &job.instruction {
        frame.before.extend_from_slice(b"{\"role\":\"system\",\"content\":");
        json::write_string(&mut frame.before, instruction);
        frame.before.extend_from_slice(b"},");
    }
    frame.before.extend_from_slice(b"{\"role\":\"user\",\"content\":");
    frame.behind.extend_from_slice(b"}]");
    let stream = ",\"stream\":true,\"stream_options\":{\"include_usage\":true}";
    frame.end(job, if streams { stream } else { "" })
}

/// An attachment as a part of the user's message: `image_url`, `input_audio`, `file`.
/// <https://platform.openai.com/docs/guides/images-vision>,
/// <https://platform.openai.com/docs/guides/audio>,
/// <https://developers.openai.com/api/docs/guides/file-inputs>. OpenAI lists wav and mp3 as formats of sound;
/// others of its protocol take more, so that it is for the endpoint to refuse one.
///
/// # Errors
/// Why the protocol does not take it.
pub(super) fn part(out: &mut Vec<u8>, it: &Attachment) -> Result<(), String> {
    let payload = &it.payload;
    match (it.modality, payload) {
        (Modality::Audio, Payload::Bytes(media, _) | Payload::Length(media, _)) => {
            let begin = Piece::Raw("{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"");
            let format = [Piece::Raw("\",\"format\":"), Piece::String(media.endings[0])];
            write(out, &[begin, Piece::Data(payload)]);
            write(out, &format);
        }
        (Modality::Document, Payload::Bytes(..) | Payload::Length(..)) => {
            let begin = "{\"type\":\"file\",\"file\":{\"filename\":";
            write(out, &[Piece::Raw(begin), Piece::String(&it.file_name)]);
            write(out, &[Piece::Raw(",\"file_data\":")]);
            write_place(out, payload);
        }
        (Modality::Audio | Modality::Document, Payload::Url(_)) => {
            let what = if it.modality == Modality::Audio { "sound" } else { "PDFs" };
            return Err(format!(
                "Chat Completions takes no URLs of {what}, and rowmill fetches none: name a file"
            ));
        }
        (Modality::Image | Modality::Text, _) => {
            write(out, &[Piece::Raw("{\"type\":\"image_url\",\"image_url\":{\"url\":")]);
            write_place(out, payload);
        }
    }
    out.extend_from_slice(b"}}");
    Ok(())
}

/// The answer of a successful call.
pub(super) fn answer(body: &[u8]) -> Result<Answer, Failure> {
    let completion: Completion<'_> = serde_json::from_slice(body)
        .map_err(|error| unreadable("chat completion", &error, body))?;
    if let Some(error) = completion.error.as_ref().filter(|error| !error.is_blank()) {
        return Err(error_in_spite(error));
    }
    let mut said = Said {
        model: completion.model.map(Cow::into_owned),
        usage: completion.usage.and_then(usage),
        ..Said::default()
    };
    let Some(choice) = completion.choices.and_then(|choices| choices.into_iter().next()) else {
        let failure = Failure::new(FailureKind::EmptyAnswer, "the answer has no choices");
        return Err(said.failed(failure));
    };
    said.finish_reason = choice.finish_reason.map(Cow::into_owned);
    if let Some(error) = choice.error.as_ref().filter(|error| !error.is_blank()) {
        return Err(said.failed(error_event(None, error)));
    }
    let message = choice.message.unwrap_or_default();
    said.text = message.content.map(|Text(text)| text.into_owned()).unwrap_or_default();
    said.refusal = message.refusal.map(Cow::into_owned).unwrap_or_default();
    said.judge()
}

/// What an event adds to an answer: a piece of its message, its end, or its counts.
pub(super) fn event(said: &mut Said, data: &[u8]) -> Result<Step, Failure> {
    if data.trim_ascii() == b"[DONE]" {
        return Ok(Step::End);
    }
    let chunk: Completion<'_> = parse(data)?;
    if let Some(error) = chunk.error.as_ref().filter(|error| !error.is_blank()) {
        return Err(error_event(None, error));
    }
    if let Some(counts) = chunk.usage.and_then(usage) {
        said.usage = Some(counts);
    }
    if said.model.is_none() {
        said.model = chunk.model.map(Cow::into_owned);
    }
    let Some(choice) = chunk.choices.and_then(|choices| choices.into_iter().next()) else {
        return Ok(Step::Nothing);
    };
    if let Some(error) = choice.error.as_ref().filter(|error| !error.is_blank()) {
        return Err(error_event(None, error));
    }
    if let Some(reason) = choice.finish_reason {
        said.may_end |= !reason.is_empty();
        said.finish_reason = Some(reason.into_owned());
    }
    let delta = choice.delta.unwrap_or_default();
    let text = delta.content.map(|Text(text)| text).unwrap_or_default();
    let refusal = delta.refusal.unwrap_or_default();
    said.text.push_str(&text);
    said.refusal.push_str(&refusal);
    Ok(if text.is_empty() && refusal.is_empty() { Step::Nothing } else { Step::Content })
}

#[derive(Deserialize)]
struct Completion<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow, default)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<ErrorDetail<'a>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(borrow, default)]
    delta: Option<Message<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
    // OpenRouter's, where an answer broke off.
    #[serde(borrow, default)]
    error: Option<ErrorDetail<'a>>,
}

#[derive(Deserialize, Default)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<Text<'a>>,
    #[serde(borrow, default)]
    refusal: Option<Cow<'a, str>>,
}

/// What the call used, where the endpoint says what both the prompt and the answer had.
pub(super) fn usage(raw: &RawValue) -> Option<Usage> {
    let wire: WireUsage = counts(raw)?;
    let (input, output) = told(wire.prompt_tokens, wire.completion_tokens, wire.total_tokens)?;
    let prompt = wire.prompt_tokens_details.unwrap_or_default();
    let reasoning = wire.completion_tokens_details.and_then(|details| details.reasoning_tokens);
    Some(Usage {
        input_tokens: input,
        output_tokens: output,
        cached_input_tokens: prompt.cached_tokens.unwrap_or_default(),
        reasoning_tokens: reasoning.unwrap_or_default(),
        cache_write_tokens: prompt.cache_write_tokens.unwrap_or_default(),
    })
}

#[derive(Deserialize)]
struct WireUsage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
    #[serde(default)]
    total_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Deserialize, Default)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
    #[serde(default)]
    cache_write_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
}

/// The text of a message: a string, or the text parts of a list.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of parts")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Text<'de>, A::Error> {
                #[derive(Deserialize)]
                struct Part {
                    #[serde(default)]
                    text: Option<String>,
                }
                let mut text = String::new();
                while let Some(part) = parts.next_element::<Part>()? {
                    text.push_str(&part.text.unwrap_or_default());
                }
                Ok(Text(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderMap;

    use super::*;
    use crate::job::{Endpoint, Transport};
    use crate::provider::{Api, Secret, Wording};

    fn openai() -> Api {
        let job: JobSpec = serde_json::from_str(
            r#"{"model":"m","prompt":"","instruction":"be \"brief\"","parameters":{"seed":7},
                "id_field":null,"selection":{"offset":0,"limit":null,"sample":null},
                "on_duplicate":"error","on_missing_field":"error","max_row_bytes":9,
                "include_input":false}"#,
        )
        .unwrap();
        Api::new(&job, Transport::Http, Secret::new("sk-canary")).unwrap()
    }

    fn told(status: u16, body: &str) -> String {
        match openai().decode(
            Endpoint::ChatCompletions,
            status,
            &HeaderMap::new(),
            body.as_bytes(),
            0,
        ) {
            Ok(answer) => {
                let reason = answer.finish_reason.unwrap_or_default();
                format!("{} ({reason})", answer.content.as_str())
            }
            Err(failure) => {
                assert_eq!(failure.status, Some(status));
                failure.kind.class().to_owned()
            }
        }
    }

    #[test]
    fn the_body_is_what_the_reference_asks_for() {
        assert_eq!(
            String::from_utf8(openai().encode("say \"x\"\n", Wording::default()).to_vec()).unwrap(),
            r#"{"model":"m","messages":[{"role":"system","content":"be \"brief\""},{"role":"user","content":"say \"x\"\n"}],"seed":7}"#
        );
    }

    #[test]
    fn answers_are_read_in_every_spelling() {
        let with = |message: &str, reason: &str| {
            told(
                200,
                &format!(r#"{{"choices":[{{"message":{message},"finish_reason":"{reason}"}}]}}"#),
            )
        };
        assert_eq!(with(r#"{"content":"yes"}"#, "stop"), "yes (stop)");
        assert_eq!(with(r#"{"content":"ye"}"#, "length"), "ye (length)");
        let parts = r#"{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}"#;
        assert_eq!(with(parts, "stop"), "ab (stop)");
        assert_eq!(with(r#"{"content":null,"refusal":"no"}"#, "stop"), "refusal");
        assert_eq!(with(r#"{"content":"half"}"#, "content_filter"), "content_filter");
        assert_eq!(with(r#"{"content":""}"#, "stop"), "empty_answer");
        assert_eq!(with(r#"{"content":null,"tool_calls":[]}"#, "tool_calls"), "empty_answer");
        assert_eq!(told(200, r#"{"choices":[]}"#), "empty_answer");
        for body in ["<html>", "", "{", "7", r#"{"error":"overloaded"}"#] {
            assert_eq!(told(200, body), "bad_response", "{body}");
        }
    }

    #[test]
    fn usage_is_counted_with_its_parts() {
        let body = r#"{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":9,
            "completion_tokens":4,"prompt_tokens_details":{"cached_tokens":3,"cache_write_tokens":1},
            "completion_tokens_details":{"reasoning_tokens":2}}}"#;
        let answer = openai()
            .decode(Endpoint::ChatCompletions, 200, &HeaderMap::new(), body.as_bytes(), 0)
            .unwrap();
        let expected = Usage {
            input_tokens: 9,
            output_tokens: 4,
            cached_input_tokens: 3,
            reasoning_tokens: 2,
            cache_write_tokens: 1,
        };
        assert_eq!(answer.usage, Some(expected));
    }

    #[test]
    fn counts_that_make_no_sense_do_not_cost_the_answer() {
        for counts in ["null", "7", "{\"prompt_tokens\":null}", "{\"prompt_tokens\":-1.5}"] {
            let body =
                format!(r#"{{"choices":[{{"message":{{"content":"x"}}}}],"usage":{counts}}}"#);
            assert_eq!(told(200, &body), "x ()", "{counts}");
        }
    }

    #[test]
    fn what_an_endpoint_says_is_told_in_a_sentence() {
        let long = "y".repeat(100_000);
        for (status, body) in [
            (200, format!(r#"{{"choices":"{long}"}}"#)),
            (200, format!(r#"{{"choices":[{{"message":{{"refusal":"{long}"}}}}]}}"#)),
            (200, format!(r#"{{"choices":[{{"finish_reason":"{long}"}}]}}"#)),
            (400, format!(r#"{{"error":{{"code":"{long}"}}}}"#)),
            (500, long.clone()),
        ] {
            let failure = openai().decode(
                Endpoint::ChatCompletions,
                status,
                &HeaderMap::new(),
                body.as_bytes(),
                0,
            );
            assert!(failure.unwrap_err().message.chars().count() <= 501);
        }
        let body = format!(r#"{{"choices":[{{"message":{{"content":"x"}}}}],"model":"{long}"}}"#);
        let answer = openai()
            .decode(Endpoint::ChatCompletions, 200, &HeaderMap::new(), body.as_bytes(), 0)
            .unwrap();
        assert_eq!(answer.model.map(|model| model.chars().count()), Some(501));
    }

    #[test]
    fn each_refusal_has_its_class() {
        let error = |code: &str| format!(r#"{{"error":{{"message":"x","code":"{code}"}}}}"#);
        for (status, code, class) in [
            (400, "", "bad_request"),
            (400, "context_length_exceeded", "too_long"),
            (400, "content_policy_violation", "content_filter"),
            (401, "", "credentials"),
            (402, "", "quota"),
            (403, "", "credentials"),
            (404, "", "not_found"),
            (408, "", "server_error"),
            (413, "", "too_long"),
            (418, "", "bad_request"),
            (422, "", "bad_request"),
            (429, "", "rate_limit"),
            (429, "insufficient_quota", "quota"),
            (302, "", "redirect"),
            (500, "", "server_error"),
            (501, "", "not_found"),
            (529, "", "server_error"),
        ] {
            assert_eq!(told(status, &error(code)), class, "{status} {code}");
        }
    }

    #[test]
    fn a_key_that_the_endpoint_repeats_is_not_told_further() {
        for body in [r#"{"error":{"message":"bad key sk-canary"}}"#, "no such key: sk-canary"] {
            let failure = openai()
                .decode(Endpoint::ChatCompletions, 401, &HeaderMap::new(), body.as_bytes(), 0)
                .unwrap_err();
            assert!(!failure.message.contains("sk-canary"), "{}", failure.message);
        }
        // Not in part either, wherever the text is cut.
        for before in (100..600).chain(16_300..16_400) {
            for filler in ["x", " "] {
                let body = format!("{}sk-canary is no key", filler.repeat(before));
                let failure = openai().decode(
                    Endpoint::ChatCompletions,
                    401,
                    &HeaderMap::new(),
                    body.as_bytes(),
                    0,
                );
                let message = failure.unwrap_err().message;
                assert!(!message.contains("sk-can"), "{before}: {message}");
            }
        }
    }
}
