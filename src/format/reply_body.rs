//! Whether the body of a reply with a status of success is an answer, by the shape that its endpoint gives to answers.
//!
//! Gateways and servers send errors under 200, in several shapes, and bodies without any answer. Sources: OpenAI's API
//! reference, <https://openrouter.ai/docs/api-reference/errors>, vLLM's and FastChat's `{"object":"error",…}`, FastAPI's
//! `{"detail":…}`; vLLM's sources for `score` and `rerank`.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::json::Object;
use crate::job::Endpoint;

/// Why a body is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAnswer<'a> {
    /// It holds this error, as JSON.
    Error(&'a str),
    /// The field that an answer of its endpoint has is missing, or holds another kind of value.
    Missing(&'static str),
    /// The field that an answer of its endpoint has holds nothing.
    Empty(&'static str),
    /// The answer broke off, for this finish reason.
    BrokenOff(String),
    /// The response has this status, and is not completed.
    Unfinished(String),
}

/// Checks that a body is an answer of an endpoint; where that is not known, of the one whose fields it has.
///
/// # Errors
/// Why it is none.
pub fn check_answer<'a>(endpoint: Option<Endpoint>, body: &Object<'a>) -> Result<(), NoAnswer<'a>> {
    if let Some(error) = body.get("error").filter(|error| !is_blank(error)) {
        return Err(NoAnswer::Error(error));
    }
    let checked = match endpoint {
        Some(endpoint) => check_shape(endpoint, body),
        None => check_any(body),
    };
    let is_error = |name| body.get(name) == Some("\"error\"");
    if checked.is_ok() && !is_error("object") && !is_error("type") {
        return Ok(());
    }
    match (own_error(body), checked) {
        (Some(error), Ok(()) | Err(NoAnswer::Missing(_) | NoAnswer::Empty(_))) => {
            Err(NoAnswer::Error(error))
        }
        (_, Err(no_answer)) => Err(no_answer),
        (None, Ok(())) => Err(NoAnswer::Error(body.text())),
    }
}

/// Whether a value says nothing: null, false, 0, an empty text, or a list or an object of such values. Some servers
/// send an `error` like that beside each good answer.
#[must_use]
pub fn is_blank(token: &str) -> bool {
    token == "null" || serde_json::from_str(token).is_ok_and(|value| is_blank_value(&value))
}

/// As [`is_blank`].
#[must_use]
pub fn is_blank_value(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.trim().is_empty(),
        Value::Array(members) => members.iter().all(is_blank_value),
        Value::Object(fields) => fields.values().all(is_blank_value),
    }
}

/// The error that a body without an answer is, where it is one itself.
fn own_error<'a>(body: &Object<'a>) -> Option<&'a str> {
    let told = |name: &str| body.get(name).filter(|token| !is_blank(token));
    told("detail").or_else(|| told("errors")).or_else(|| told("message").map(|_| body.text()))
}

fn check_shape(endpoint: Endpoint, body: &Object<'_>) -> Result<(), NoAnswer<'static>> {
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions => check_choices(body),
        Endpoint::Responses => check_response(body),
        Endpoint::Messages => check_message(body),
        Endpoint::Embeddings => check_embeddings(body),
        Endpoint::Score => check_list(body, &["data", "results", "scores"]),
        Endpoint::Rerank => check_list(body, &["results", "data"]),
        Endpoint::Transcriptions | Endpoint::Translations => check_transcript(body),
        // Nobody is asked there.
        Endpoint::Moderations
        | Endpoint::ImageGenerations
        | Endpoint::ImageEdits
        | Endpoint::Videos => Ok(()),
    }
}

/// A body of an endpoint that is not known: the first field that answers have somewhere tells which it is.
fn check_any(body: &Object<'_>) -> Result<(), NoAnswer<'static>> {
    let has = |name: &str| body.get(name).is_some();
    match () {
        () if has("choices") => check_choices(body),
        () if has("output") || body.get("object") == Some("\"response\"") => check_response(body),
        () if has("content") => check_message(body),
        () if has("data") => check_list(body, &["data"]),
        () if has("results") => check_list(body, &["results"]),
        () if has("text") => check_transcript(body),
        () if body.names().next().is_none() || own_error(body).is_some() => {
            Err(NoAnswer::Missing("answer"))
        }
        () => Ok(()),
    }
}

/// The members of the list in a field.
fn list_in<'a, T: Deserialize<'a>>(
    body: &Object<'a>,
    name: &'static str,
) -> Result<Vec<T>, NoAnswer<'static>> {
    let token = body.get(name).filter(|token| token.starts_with('['));
    let list = token.and_then(|token| serde_json::from_str::<Vec<T>>(token).ok());
    list.ok_or(NoAnswer::Missing(name))
}

/// The text of a string.
fn text_of(token: Option<&str>) -> Option<Cow<'_, str>> {
    serde_json::from_str(token?).ok()
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// Chat Completions and Completions: each choice has a message or a text, and none broke off.
fn check_choices(body: &Object<'_>) -> Result<(), NoAnswer<'static>> {
    const CHOICES: &str = "choices";
    let choices: Vec<Choice<'_>> = list_in(body, CHOICES)?;
    if choices.is_empty() {
        return Err(NoAnswer::Empty(CHOICES));
    }
    for choice in choices {
        let reason = text_of(choice.finish_reason.map(RawValue::get));
        if let Some(reason @ ("error" | "abort")) = reason.as_deref() {
            return Err(NoAnswer::BrokenOff(reason.to_owned()));
        }
        if choice.error.is_some_and(|error| !is_blank(error.get())) {
            return Err(NoAnswer::BrokenOff("error".to_owned()));
        }
        let message = choice.message.filter(|message| message.get().starts_with('{'));
        let text = choice.text.filter(|text| text.get().starts_with('"'));
        let Some(said) = message.or(text) else { return Err(NoAnswer::Missing("message")) };
        // A model that says nothing at all says at least why it stopped.
        if reason.is_none() && says_nothing(said.get()) {
            return Err(NoAnswer::Empty("message"));
        }
    }
    Ok(())
}

/// Whether a message holds nothing but its role.
fn says_nothing(message: &str) -> bool {
    match Object::parse(message) {
        Ok(fields) => fields
            .fields()
            .all(|(name, value)| name == "role" || matches!(value, "null" | "[]" | "{}")),
        Err(_) => false,
    }
}

/// Responses: completed or cut off, with items in its output.
fn check_response(body: &Object<'_>) -> Result<(), NoAnswer<'static>> {
    const OUTPUT: &str = "output";
    let status = text_of(body.get("status"));
    match status.as_deref() {
        None | Some("completed" | "incomplete") => {}
        Some(status) => return Err(NoAnswer::Unfinished(status.chars().take(60).collect())),
    }
    match list_in::<&RawValue>(body, OUTPUT)?.is_empty() {
        true => Err(NoAnswer::Empty(OUTPUT)),
        false => Ok(()),
    }
}

/// Messages: a list of blocks, which a model that stops at once leaves empty.
fn check_message(body: &Object<'_>) -> Result<(), NoAnswer<'static>> {
    const CONTENT: &str = "content";
    let blocks: Vec<&RawValue> = list_in(body, CONTENT)?;
    match blocks.is_empty() && text_of(body.get("stop_reason")).is_none() {
        true => Err(NoAnswer::Empty(CONTENT)),
        false => Ok(()),
    }
}

/// Embeddings: each has numbers, or the text of their bytes.
fn check_embeddings(body: &Object<'_>) -> Result<(), NoAnswer<'static>> {
    #[derive(Deserialize)]
    struct Embedding<'a> {
        #[serde(borrow, default)]
        embedding: Option<&'a RawValue>,
    }
    const DATA: &str = "data";
    let data: Vec<Embedding<'_>> = list_in(body, DATA)?;
    if data.is_empty() {
        return Err(NoAnswer::Empty(DATA));
    }
    for one in data {
        let vector = one.embedding.map(RawValue::get).filter(|it| it.starts_with(['[', '"', '{']));
        let Some(vector) = vector else { return Err(NoAnswer::Missing("embedding")) };
        let inner = vector.get(1..vector.len() - 1).unwrap_or_default();
        if inner.trim_ascii().is_empty() {
            return Err(NoAnswer::Empty("embedding"));
        }
    }
    Ok(())
}

/// A list with members, under the first of the names that is there.
fn check_list(body: &Object<'_>, names: &[&'static str]) -> Result<(), NoAnswer<'static>> {
    let name = names.iter().find(|name| body.get(name).is_some()).or(names.first());
    let Some(name) = name else { return Ok(()) };
    match list_in::<&RawValue>(body, name)?.iter().all(|it| it.get() == "null") {
        true => Err(NoAnswer::Empty(name)),
        false => Ok(()),
    }
}

/// Transcriptions and translations: a text, which is empty where nobody speaks, or segments of one.
fn check_transcript(body: &Object<'_>) -> Result<(), NoAnswer<'static>> {
    let is = |name: &str, mark| body.get(name).is_some_and(|token| token.starts_with(mark));
    match is("text", '"') || is("segments", '[') {
        true => Ok(()),
        false => Err(NoAnswer::Missing("text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(endpoint: Option<Endpoint>, body: &str) -> String {
        match check_answer(endpoint, &Object::parse(body).unwrap()) {
            Ok(()) => "answer".to_owned(),
            Err(no_answer) => format!("{no_answer:?}"),
        }
    }

    /// A good body of each of the endpoints that are called.
    const GOOD: [(Endpoint, &str); 9] = [
        (Endpoint::ChatCompletions, r#"{"choices":[{"message":{"content":"Hi"}}]}"#),
        (Endpoint::Completions, r#"{"choices":[{"text":"Hi","finish_reason":"stop"}]}"#),
        (Endpoint::Responses, r#"{"status":"completed","output":[{"type":"message"}]}"#),
        (Endpoint::Embeddings, r#"{"data":[{"embedding":[0.5]},{"embedding":"AAAAPw=="}]}"#),
        (Endpoint::Messages, r#"{"content":[],"stop_reason":"end_turn"}"#),
        (Endpoint::Score, r#"{"data":[{"index":0,"score":0.5}]}"#),
        (Endpoint::Rerank, r#"{"results":[{"index":0,"relevance_score":0.5}]}"#),
        (Endpoint::Transcriptions, r#"{"text":""}"#),
        (Endpoint::Translations, r#"{"segments":[]}"#),
    ];

    #[test]
    fn each_endpoint_knows_its_own_answers() {
        for (endpoint, body) in GOOD {
            assert_eq!(checked(Some(endpoint), body), "answer", "{endpoint}");
            // An error of nothing beside a good answer is none.
            for blank in ["null", "{}", "\"\"", "false", "[]", r#"{"message":"","code":0}"#] {
                let beside = body.replacen('{', &format!("{{\"error\":{blank},"), 1);
                assert_eq!(checked(Some(endpoint), &beside), "answer", "{beside}");
                assert_eq!(
                    checked(None, &beside),
                    if body.contains("segments") {
                        checked(None, &beside)
                    } else {
                        "answer".into()
                    }
                );
            }
            for error in [r#"{"message":"down"}"#, "\"down\"", "true"] {
                let beside = body.replacen('{', &format!("{{\"error\":{error},"), 1);
                assert!(checked(Some(endpoint), &beside).starts_with("Error"), "{beside}");
            }
        }
    }

    #[test]
    fn errors_in_any_shape_are_no_answers() {
        for (endpoint, _) in GOOD {
            for endpoint in [Some(endpoint), None] {
                for body in [
                    r#"{"object":"error","message":"engine is dead","code":500}"#,
                    r#"{"code":"rate_limit_daily","message":"upstream answered 429"}"#,
                    r#"{"detail":"upstream timed out"}"#,
                    r#"{"detail":[{"msg":"x"}]}"#,
                    r#"{"success":false,"errors":[{"code":7}]}"#,
                    r#"{"type":"error","error":{"type":"overloaded_error"}}"#,
                    r#"{"error":{"message":"down"},"choices":[]}"#,
                ] {
                    let told = checked(endpoint, body);
                    assert!(told.starts_with("Error"), "{endpoint:?} {body}: {told}");
                }
                assert!(checked(endpoint, "{}").starts_with("Missing"), "{endpoint:?}");
                if endpoint.is_some() {
                    let told = checked(endpoint, r#"{"id":"x","usage":{}}"#);
                    assert!(told.starts_with("Missing"), "{endpoint:?}: {told}");
                }
            }
        }
    }

    #[test]
    fn answers_without_content_are_told_apart() {
        use Endpoint::{ChatCompletions, Embeddings, Messages, Rerank, Responses, Score};
        for (endpoint, body, expected) in [
            (ChatCompletions, r#"{"id":null,"choices":null}"#, r#"Missing("choices")"#),
            (ChatCompletions, r#"{"choices":{}}"#, r#"Missing("choices")"#),
            (ChatCompletions, r#"{"choices":[]}"#, r#"Empty("choices")"#),
            (ChatCompletions, r#"{"choices":[null]}"#, r#"Missing("choices")"#),
            (ChatCompletions, r#"{"choices":[{}]}"#, r#"Missing("message")"#),
            (
                ChatCompletions,
                r#"{"choices":[{"message":{"role":"assistant","content":null}}]}"#,
                r#"Empty("message")"#,
            ),
            (
                ChatCompletions,
                r#"{"choices":[{"message":{"content":""},"finish_reason":"length"}]}"#,
                "answer",
            ),
            (
                ChatCompletions,
                r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"1"}]}}]}"#,
                "answer",
            ),
            (
                ChatCompletions,
                r#"{"choices":[{"message":{"content":"a"}},{"message":{"content":"h"},"finish_reason":"error"}]}"#,
                r#"BrokenOff("error")"#,
            ),
            (
                ChatCompletions,
                r#"{"choices":[{"message":{"content":"half"},"error":{"code":502}}]}"#,
                r#"BrokenOff("error")"#,
            ),
            (
                Responses,
                r#"{"status":"failed","error":null,"output":[]}"#,
                r#"Unfinished("failed")"#,
            ),
            (Responses, r#"{"status":"queued"}"#, r#"Unfinished("queued")"#),
            (Responses, r#"{"status":"completed","output":[]}"#, r#"Empty("output")"#),
            (Responses, r#"{"status":"incomplete","output":[{}]}"#, "answer"),
            (Messages, r#"{"content":[]}"#, r#"Empty("content")"#),
            (Messages, r#"{"content":"x"}"#, r#"Missing("content")"#),
            (Embeddings, r#"{"object":"list","data":[]}"#, r#"Empty("data")"#),
            (Embeddings, r#"{"data":[{"embedding":[]}]}"#, r#"Empty("embedding")"#),
            (Embeddings, r#"{"data":[{"embedding":null}]}"#, r#"Missing("embedding")"#),
            (Score, r#"{"data":[]}"#, r#"Empty("data")"#),
            (Rerank, r#"{"results":[]}"#, r#"Empty("results")"#),
            (Rerank, r#"{"data":[{"index":0}]}"#, "answer"),
        ] {
            assert_eq!(checked(Some(endpoint), body), expected, "{body}");
        }
        // What no called endpoint says may be an answer of another.
        assert_eq!(checked(None, r#"{"id":"v","object":"video","status":"queued"}"#), "answer");
        assert_eq!(checked(None, r#"{"data":[{"b64_json":"x"}]}"#), "answer");
    }
}
