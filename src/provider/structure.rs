//! Structured answers on the wire: a schema in its field or in the instruction, and the question
//! that is put again with what was wrong with the answer.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::attached::content;
use super::parameters::nest;
use crate::format::json;
use crate::job::{Failure, FailureKind, JobSpec, Protocol};

/// How a prompt is put, besides what is the same for all rows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wording<'a> {
    /// Whether the schema stands in the instruction, not in the field that the protocol has for it.
    pub in_prompt: bool,
    /// The answer that did not fit, where the question is put again.
    pub correction: Option<&'a Correction>,
    /// What is attached, as [`super::Api::attach`] has it; empty where nothing is.
    pub attached: &'a [u8],
}

/// An answer that did not fit its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    /// What the model said.
    pub answer: Box<str>,
    /// What is wrong with it, in one line.
    pub reason: Box<str>,
}

impl Correction {
    /// What is told of a failure.
    #[must_use]
    pub fn of(failure: &Failure) -> Self {
        let answer = failure.raw.clone().unwrap_or_default();
        Self { answer, reason: failure.message.as_str().into() }
    }
}

/// Why a schema cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum Untellable {
    /// Answers of the protocol are vectors.
    #[error("embeddings have no schema: leave it out")]
    Embeddings,
    /// A parameter stands where the schema would.
    #[error("the schema is sent as {0}: no parameter can set that as well")]
    Taken(&'static str),
}

/// The job whose calls have the schema in the field that the protocol has for it:
/// <https://platform.openai.com/docs/guides/structured-outputs>,
/// <https://platform.claude.com/docs/en/build-with-claude/structured-outputs>.
///
/// # Errors
/// When there is no such field, or a parameter has taken it.
pub(super) fn natively(job: &JobSpec, schema: &str) -> Result<JobSpec, Untellable> {
    /// Chat and Responses want a name.
    const NAME: &str = "answer";
    let mut job = job.clone();
    let strict = is_strict(schema);
    let of_openai = format!("\"name\":\"{NAME}\",\"strict\":{strict},\"schema\":{schema}");
    let fields = &mut job.parameters;
    match job.protocol {
        Protocol::Chat => {
            let field = "response_format";
            let format = format!("{{\"type\":\"json_schema\",\"json_schema\":{{{of_openai}}}}}");
            let format = RawValue::from_string(format).unwrap_or_default();
            if fields.insert(field.to_owned(), format).is_some() {
                return Err(Untellable::Taken(field));
            }
        }
        Protocol::Responses => {
            let format = format!("{{\"type\":\"json_schema\",{of_openai}}}");
            nest(fields, "text", "format", &format)
                .map_err(|_| Untellable::Taken("text.format"))?;
        }
        Protocol::Messages => {
            let format = format!("{{\"type\":\"json_schema\",\"schema\":{schema}}}");
            nest(fields, "output_config", "format", &format)
                .map_err(|_| Untellable::Taken("output_config.format"))?;
        }
        Protocol::Embeddings => return Err(Untellable::Embeddings),
    }
    Ok(job)
}

/// The job whose calls have the schema in the instruction.
pub(super) fn in_prompt(job: &JobSpec, schema: &str) -> JobSpec {
    let instruction = instruct(job.instruction.as_deref(), schema);
    JobSpec { instruction: Some(instruction), ..job.clone() }
}

/// Appends what stands in the place of the prompt where a question is put again: the prompt, what
/// the model said, what is wrong with it. The frame has a user's message around it, but for Responses,
/// where a prompt alone is the whole input.
pub(super) fn converse(
    body: &mut Vec<u8>,
    protocol: Protocol,
    (prompt, attached): (&str, &[u8]),
    correction: &Correction,
    complaint: &str,
) {
    let is_bare = protocol == Protocol::Responses;
    // OpenAI takes items without a type, llama.cpp's server does not.
    let kind: &[u8] = if is_bare { b"\"type\":\"message\"," } else { b"" };
    if is_bare {
        begin_user_message(body);
    }
    content(body, protocol, prompt, attached);
    // Not everyone takes a message without text, or with blanks at its end.
    let said = match correction.answer.trim_end() {
        "" => "(nothing)",
        said => said,
    };
    for (role, text) in [("assistant", said), ("user", complaint)] {
        body.extend_from_slice(b"},{");
        body.extend_from_slice(kind);
        body.extend_from_slice(b"\"role\":\"");
        body.extend_from_slice(role.as_bytes());
        body.extend_from_slice(b"\",\"content\":");
        json::write_string(body, text);
    }
    if is_bare {
        body.extend_from_slice(b"}]");
    }
}

/// Appends the beginning of a list of messages for Responses, where a list may stand in the place of the
/// prompt: the first is the user's, whose content is to follow.
pub(super) fn begin_user_message(body: &mut Vec<u8>) {
    body.extend_from_slice(b"[{\"type\":\"message\",\"role\":\"user\",\"content\":");
}

/// The instruction with the schema in it.
fn instruct(instruction: Option<&str>, schema: &str) -> String {
    let told = format!(
        "Answer with JSON only: one value that is valid against the JSON Schema below, with no text \
         and no code fence around it.\n\n{schema}"
    );
    match instruction {
        Some(instruction) => format!("{}\n\n{told}", instruction.trim_end()),
        None => told,
    }
}

/// What a model is told of an answer that did not fit. A server may have ignored the field that
/// named the schema: then this is where the model sees it first.
pub(super) fn complain(correction: &Correction, in_prompt: bool, schema: &str) -> String {
    let reason = &correction.reason;
    let again = "Answer again with JSON only: no text and no code fence around it.";
    match in_prompt {
        true => format!("Your answer does not match the schema: {reason}. {again}"),
        false => format!(
            "Your answer does not match the schema: {reason}. {again} The JSON Schema is:\n\n{schema}"
        ),
    }
}

/// Whether a schema keeps to the rules of OpenAI's strict mode, in which the endpoint allows no other
/// answer: all fields required, no others, and no keyword that is not listed there. A schema that does
/// not is sent as it is, without that mode: to tighten it would change what the user asked for.
/// <https://platform.openai.com/docs/guides/structured-outputs#supported-schemas>
fn is_strict(schema: &str) -> bool {
    let schema: Value = serde_json::from_str(schema).unwrap_or_default();
    let is_object = schema.get("type").and_then(Value::as_str) == Some("object");
    is_object && schema.get("anyOf").is_none() && follows_rules(&schema)
}

fn follows_rules(schema: &Value) -> bool {
    let Some(schema) = schema.as_object() else { return false };
    let all = |value: &Value| match value {
        Value::Array(list) => list.iter().all(follows_rules),
        Value::Object(named) => named.values().all(follows_rules),
        _ => false,
    };
    let is_object = match schema.get("type") {
        Some(Value::String(kind)) => kind == "object",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
        _ => schema.contains_key("properties"),
    };
    if is_object && !is_closed(schema) {
        return false;
    }
    schema.iter().all(|(keyword, value)| match keyword.as_str() {
        "properties" | "$defs" | "definitions" => value.is_object() && all(value),
        "anyOf" => value.is_array() && all(value),
        "items" => follows_rules(value),
        "additionalProperties" => value == &Value::Bool(false),
        "$ref" => value.as_str().is_some_and(|place| place.starts_with('#')),
        "type" | "required" | "enum" | "const" | "title" | "description" | "pattern" | "format"
        | "multipleOf" | "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum"
        | "minItems" | "maxItems" | "$schema" => true,
        _ => false,
    })
}

/// Whether an object must have all the fields it may have, and no others.
fn is_closed(schema: &Map<String, Value>) -> bool {
    let none = Map::new();
    let fields = schema.get("properties").map_or(Some(&none), Value::as_object);
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |name: &String| {
        required.is_some_and(|list| list.iter().any(|it| it.as_str() == Some(name)))
    };
    let is_shut = schema.get("additionalProperties") == Some(&Value::Bool(false));
    is_shut && fields.is_some_and(|fields| fields.keys().all(is_required))
}

/// Whether an endpoint refused a call because of the field that names the schema: it does not know
/// the field, its model cannot do it, or the schema is beyond what it takes. No two say it alike.
#[must_use]
pub fn refuses_schema(failure: &Failure) -> bool {
    const WORDS: [&str; 13] = [
        "response_format",
        "response format",
        "response_schema",
        "json_schema",
        "json schema",
        "json mode",
        "output_config",
        "output_format",
        "output format",
        "text.format",
        "structured output",
        "structured_output",
        "invalid schema",
    ];
    let message = failure.message.to_ascii_lowercase();
    // OpenRouter says 404 where nobody it knows takes the field, some servers 500 or 501.
    let is_refusal = match failure.kind {
        FailureKind::BadRequest | FailureKind::NotFound => true,
        FailureKind::Server => matches!(failure.status, Some(500 | 501)),
        _ => false,
    };
    is_refusal && WORDS.iter().any(|word| message.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_take_schemas_says_so_in_many_ways() {
        let refuses = |kind, status, message: &str| {
            refuses_schema(&Failure::new(kind, message).with_status(status))
        };
        let endpoints = "HTTP 404: No endpoints found that support response_format";
        assert!(refuses(FailureKind::BadRequest, 400, "HTTP 400: unknown field Response_Format"));
        assert!(refuses(FailureKind::NotFound, 404, endpoints));
        assert!(refuses(FailureKind::Server, 501, "HTTP 501: json_schema is not implemented"));
        assert!(!refuses(FailureKind::Server, 503, "HTTP 503: json_schema worker is busy"));
        assert!(!refuses(FailureKind::RateLimit, 429, "HTTP 429: response_format"));
        assert!(!refuses(FailureKind::BadRequest, 400, "HTTP 400: the prompt is empty"));
    }

    #[test]
    fn strict_is_what_openai_takes_as_strict() {
        for (schema, expected) in [
            (
                r#"{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"additionalProperties":false}"#,
                true,
            ),
            (r#"{"type":"object","properties":{},"additionalProperties":false}"#, true),
            (r#"{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}"#, false),
            (
                r#"{"type":"object","properties":{"a":{}},"required":[],"additionalProperties":false}"#,
                false,
            ),
            (
                r#"{"type":"object","properties":{"a":{}},"required":["a"],"additionalProperties":true}"#,
                false,
            ),
            (r#"{"type":"array","items":{"type":"string"}}"#, false),
            (
                r#"{"type":"object","properties":{"a":{"type":"array","items":{"type":"object","properties":{"b":{}}}}},"required":["a"],"additionalProperties":false}"#,
                false,
            ),
            (
                r#"{"type":"object","properties":{"a":{"type":"string","minLength":3}},"required":["a"],"additionalProperties":false}"#,
                false,
            ),
            (
                r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/x"}},"required":["a"],"additionalProperties":false,"$defs":{"x":{"type":["string","null"]}}}"##,
                true,
            ),
            (
                r#"{"type":"object","properties":{"a":{"anyOf":[{"type":"string"},{"type":"object"}]}},"required":["a"],"additionalProperties":false}"#,
                false,
            ),
            (
                r#"{"type":"object","properties":{"a":{"allOf":[{}]}},"required":["a"],"additionalProperties":false}"#,
                false,
            ),
            ("true", false),
        ] {
            assert_eq!(is_strict(schema), expected, "{schema}");
        }
    }

    #[test]
    fn refusals_of_the_schema_are_told_from_others() {
        let refused = |kind, message: &str| refuses_schema(&Failure::new(kind, message));
        for message in [
            "HTTP 400: This response_format type is unavailable now",
            "HTTP 400: This model does not support response format `json_schema`.",
            "HTTP 400: Invalid schema for response_format 'answer': In context=()",
            "HTTP 400: output_config: Extra inputs are not permitted",
            "HTTP 422: Structured outputs are not supported for this model",
        ] {
            assert!(refused(FailureKind::BadRequest, message), "{message}");
            assert!(!refused(FailureKind::Server, message), "{message}");
        }
        assert!(!refused(FailureKind::BadRequest, "HTTP 400: temperature is too high"));
    }
}
