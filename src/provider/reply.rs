//! What replies of all protocols have in common: what was said, and what an error means.

use std::borrow::Cow;

use hyper::header::{self, HeaderMap};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::Mask;
use crate::format::reply_body::is_blank_value;
use crate::http::Link;
use crate::job::{Answer, Content, Failure, FailureKind, Paid, Usage};

/// What a model said, before it is judged. A whole reply and a stream of events both come to this.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) text: String,
    pub(super) refusal: String,
    /// `stop`, `length`, [`FILTERED`], [`REFUSED`], or another word of the endpoint's.
    pub(super) finish_reason: Option<String>,
    pub(super) model: Option<String>,
    pub(super) usage: Option<Usage>,
    /// Whether events may belong to another answer: on a connection that others were on before. Only its id says
    /// which they belong to.
    pub(super) is_paired_by_id: bool,
    /// Whether an event has said that the answer begins.
    pub(super) has_begun: bool,
    /// The id that the endpoint gave this answer when it began.
    pub(super) id: Option<String>,
    /// Whether the event that ended it had the same id.
    pub(super) is_paired: bool,
    /// Whether an event said why the answer ended: it is whole if its body ends, though no event says that it does.
    pub(super) may_end: bool,
    /// What the endpoint counted before the answer, of which the length is not known then.
    pub(super) begun: Option<Usage>,
}

/// The finish reason of an answer that a content filter cut off.
pub(super) const FILTERED: &str = "content_filter";
/// The finish reason of an answer that the model broke off to refuse.
pub(super) const REFUSED: &str = "refusal";

impl Said {
    /// Whether it is an answer.
    pub(super) fn judge(self) -> Result<Answer, Failure> {
        if let Some(failure) = self.fault() {
            return Err(self.failed(failure));
        }
        Ok(Answer {
            content: Content::Text(self.text),
            model: self.model.map(|model| shortened(&model)),
            finish_reason: self.finish_reason.map(|reason| shortened(&reason)),
            usage: self.usage,
        })
    }

    /// A failure that tells what else was said: it was paid for.
    pub(super) fn failed(self, failure: Failure) -> Failure {
        failure.with_paid(Paid {
            model: self.model.map(|model| shortened(&model)),
            finish_reason: self.finish_reason.map(|reason| shortened(&reason)),
            usage: self.usage,
        })
    }

    /// Why it is no answer.
    fn fault(&self) -> Option<Failure> {
        let failure = |kind, message: String| Some(Failure::new(kind, message));
        let refused = |why: &str| {
            let why = if why.is_empty() { "without a reason" } else { why };
            failure(FailureKind::Refusal, format!("the model refused: {why}"))
        };
        match self.finish_reason.as_deref() {
            Some(FILTERED) => {
                failure(FailureKind::ContentFilter, "the content filter cut the answer off".into())
            }
            // How OpenRouter and Mistral, vLLM and SGLang end answers that they could not finish.
            Some(reason @ ("error" | "abort")) => {
                let message = format!("the answer broke off (finish reason {reason})");
                failure(FailureKind::Server, message)
            }
            // Messages, where searches took too long: the rest would come in another call.
            Some("pause_turn") => {
                let message = "the answer was not finished (stop reason pause_turn)";
                failure(FailureKind::BrokenAnswer, message.into())
            }
            Some(REFUSED) if self.refusal.is_empty() => refused(&self.text),
            Some(REFUSED) => refused(&self.refusal),
            _ if !self.text.is_empty() => None,
            _ if !self.refusal.is_empty() => refused(&self.refusal),
            // A model that thinks has thought for all its tokens, and would again.
            Some("length") => {
                let message = "the answer was cut off at its longest (finish reason length) before \
                               it held any text; a larger --max-tokens would leave room for it";
                failure(FailureKind::Truncated, message.into())
            }
            reason => {
                let reason = reason.map(|reason| format!(" (finish reason {})", shortened(reason)));
                let message = format!("the answer holds no text{}", reason.unwrap_or_default());
                failure(FailureKind::EmptyAnswer, message)
            }
        }
    }
}

/// Reads the counts that came with an answer, where they are an object: a list would be read as the
/// fields in their order. Counts that cannot be read cost the counts, not the answer they came with.
pub(super) fn counts<T: DeserializeOwned>(counts: &RawValue) -> Option<T> {
    let object = Some(counts.get()).filter(|text| text.starts_with('{'))?;
    serde_json::from_str(object).ok()
}

/// Counts of a prompt and its answer, which are counts only together: what is not told is not
/// nothing, and a cost that is made of it would be none. The answer's may be told by the total.
pub(super) fn told(
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
) -> Option<(u64, u64)> {
    let input = input?;
    let rest = || total.and_then(|total| total.checked_sub(input));
    Some((input, output.or_else(rest)?))
}

/// A reply that is no answer of its protocol.
pub(super) fn bad(what: impl Into<String>) -> Failure {
    Failure::new(FailureKind::BadResponse, what)
}

/// An event that belongs to another answer came in the middle of this one.
pub(super) fn foreign(event: &str) -> Failure {
    let message = format!("the answer broke off: {event} belongs to another response");
    Failure::new(FailureKind::BrokenAnswer, message)
}

/// A response of Responses that is neither completed nor cut off.
pub(super) fn unfinished(status: &str) -> Failure {
    bad(format!("the response is {status}, not completed"))
}

/// A body that cannot be read as what it should be.
pub(super) fn unreadable(should_be: &str, error: &serde_json::Error, body: &[u8]) -> Failure {
    bad(format!("the answer is no {should_be} ({error}): {}", beginning(body)))
}

/// An error in the place of an answer, under a status of success: one with a code or a type means
/// the same as under the status that it stands for; a text may mean anything.
/// <https://openrouter.ai/docs/api-reference/errors>
pub(super) fn error_in_spite(error: &ErrorDetail<'_>) -> Failure {
    const WHAT: &str = "the answer is an error in spite of its status";
    match error.codes().is_empty() {
        true => bad(format!("{WHAT}: {}", error.message())),
        false => classed(None, error, WHAT),
    }
}

/// What a status other than success means.
pub(super) fn refused(status: u16, headers: &HeaderMap, body: &[u8]) -> Failure {
    let error = serde_json::from_slice::<ErrorBody<'_>>(body).ok().and_then(|body| body.error);
    let codes = error.as_ref().map(ErrorDetail::codes).unwrap_or_default();
    let message = match &error {
        Some(error) => error.message(),
        None => beginning(body),
    };
    let kind = kind_of(status, &codes, &message);
    let place = headers.get(header::LOCATION).and_then(|place| place.to_str().ok());
    let message = match (kind, place) {
        (FailureKind::Redirect, Some(place)) => {
            let place = Link::without_secrets(place);
            format!("HTTP {status}: the endpoint points to {place}, where no key is taken to")
        }
        _ if message.is_empty() => format!("HTTP {status}"),
        _ => format!("HTTP {status}: {message}"),
    };
    Failure::new(kind, message)
}

/// What an error among the events of an answer means: the same as the status that it stands for.
pub(super) fn error_event(status: Option<u16>, error: &ErrorDetail<'_>) -> Failure {
    classed(status, error, "the answer broke off with an error")
}

/// What an event means whose name is `error`, whatever its protocol has for one: an error in an
/// object, as in a body, or the error itself.
pub(super) fn error_named(data: &[u8]) -> Failure {
    let inner = serde_json::from_slice::<ErrorBody<'_>>(data).ok().and_then(|body| body.error);
    let error = inner.or_else(|| serde_json::from_slice(data).ok());
    match error.filter(|error| !error.message().is_empty()) {
        Some(error) => error_event(None, &error),
        None if data.is_empty() => error_event(None, &ErrorDetail::Text("no more is said".into())),
        None => error_event(None, &ErrorDetail::Text(beginning(data).into())),
    }
}

fn classed(status: Option<u16>, error: &ErrorDetail<'_>, what: &str) -> Failure {
    let codes = error.codes();
    let status = status.or_else(|| error.status()).unwrap_or_else(|| status_of(&codes));
    let message = error.message();
    let kind = kind_of(status, &codes, &message);
    // The status of the reply says nothing of it, so the code is told.
    let code = match codes.is_empty() || message.contains(&codes) {
        true => String::new(),
        false => format!(" ({codes})"),
    };
    Failure::new(kind, format!("{what}: {message}{code}")).with_status(status)
}

fn kind_of(status: u16, codes: &str, message: &str) -> FailureKind {
    let has = |part: &str| codes.contains(part);
    // Definite ends of the money: an HTTP status alone does not tell them from a rate limit, and
    // Anthropic says it with a status for bad requests.
    let is_broke = has("insufficient_quota")
        || has("spend_limit")
        || has("usage_limit")
        || has("credit_balance")
        || has("billing")
        || message.contains("credit balance is too low");
    // Anthropic has no code for it.
    let is_too_long = has("context_length")
        || has("string_above_max")
        || message.starts_with("prompt is too long")
        || message.contains("maximum context length");
    // One request of more tokens than a minute allows: no waiting lets it in.
    let is_too_large = message.starts_with("Request too large");
    match status {
        // A proxy that wants a password wants it of all.
        401 | 403 | 407 => FailureKind::Credentials,
        402 => FailureKind::Quota,
        429 | 400 if is_broke => FailureKind::Quota,
        429 if is_too_large => FailureKind::TooLong,
        429 => FailureKind::RateLimit,
        // How OpenAI and others end a WebSocket that has been open for long.
        400 if has("websocket_connection_limit_reached") => FailureKind::Stale,
        404 | 405 | 501 => FailureKind::NotFound,
        413 => FailureKind::TooLong,
        400 | 422 if is_too_long => FailureKind::TooLong,
        400 | 422 if has("content_filter") || has("content_policy") => FailureKind::ContentFilter,
        408 | 409 | 425 | 499 | 500..=599 => FailureKind::Server,
        300..=399 => FailureKind::Redirect,
        _ => FailureKind::BadRequest,
    }
}

/// The status that an error type stands for where there is none.
/// <https://platform.claude.com/docs/en/api/errors>,
/// <https://platform.openai.com/docs/guides/error-codes>
fn status_of(codes: &str) -> u16 {
    let has = |part: &str| codes.contains(part);
    match () {
        () if has("rate_limit") || has("insufficient_quota") => 429,
        () if has("billing") => 402,
        () if has("authentication") || has("invalid_api_key") => 401,
        () if has("permission") => 403,
        () if has("not_found") => 404,
        () if has("too_large") => 413,
        () if has("timeout") => 504,
        () if has("overloaded") => 529,
        () if has("server_error") || has("api_error") => 500,
        () if has("invalid") || has("context_length") || has("content_") || has("websocket_") => {
            400
        }
        // It was on its way to an answer: another try may bring it.
        () => 500,
    }
}

/// A failure that can be told further.
pub(super) fn clean(failure: Failure, mask: &Mask) -> Failure {
    // The secrets go first: half of one would not be found any more.
    let mut failure = mask.failure(failure);
    failure.message = shortened(&failure.message);
    failure
}

/// The beginning of a body that is not understood: more of it than is shown. Where it is cut, a
/// whole word goes, because it may be half of the key.
pub(super) fn beginning(body: &[u8]) -> String {
    const SEEN: usize = 1 << 14;
    let text = String::from_utf8_lossy(&body[..body.len().min(SEEN)]);
    match text.rsplit_once(char::is_whitespace) {
        Some((whole, _)) if body.len() > SEEN => format!("{whole}…"),
        _ => text.into_owned(),
    }
}

/// A text that others wrote, in one line, and cut when it is long: it is kept with every attempt.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 500;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[derive(Deserialize)]
struct ErrorBody<'a> {
    #[serde(borrow, default, alias = "detail")]
    error: Option<ErrorDetail<'a>>,
}

/// An error as OpenAI and Anthropic have it, or just a text, as others do.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum ErrorDetail<'a> {
    /// `message`, `code` and `type`.
    Full {
        #[serde(default)]
        message: Option<String>,
        #[serde(default)]
        code: Option<serde_json::Value>,
        #[serde(default, rename = "type")]
        kind: Option<String>,
        /// What Anthropic tells a spend limit by, here or among the details.
        #[serde(default)]
        error_code: Option<String>,
        #[serde(default)]
        details: Option<serde_json::Value>,
    },
    /// Only a text.
    Text(Cow<'a, str>),
    /// Anything else.
    Other(serde_json::Value),
}

impl ErrorDetail<'_> {
    /// Whether it says nothing: some servers have such an error beside each good answer.
    pub(super) fn is_blank(&self) -> bool {
        let is_blank =
            |value: &Option<serde_json::Value>| value.as_ref().is_none_or(is_blank_value);
        let is_empty = |text: &Option<String>| text.as_ref().is_none_or(|text| text.is_empty());
        match self {
            Self::Full { message, code, kind, error_code, details } => {
                [message, kind, error_code].into_iter().all(is_empty)
                    && is_blank(code)
                    && is_blank(details)
            }
            Self::Text(text) => text.is_empty(),
            Self::Other(value) => is_blank_value(value),
        }
    }

    pub(super) fn message(&self) -> String {
        match self {
            Self::Full { message: Some(message), .. } => message.clone(),
            Self::Full { .. } => self.codes(),
            Self::Text(text) => text.to_string(),
            Self::Other(value) => value.to_string(),
        }
    }

    /// The code and the type, in one text.
    pub(super) fn codes(&self) -> String {
        match self {
            Self::Full { code, kind, error_code, details, .. } => {
                let detail = details.as_ref().and_then(|details| details["error_code"].as_str());
                let finer = error_code.as_deref().or(detail).unwrap_or_default();
                let code = match code {
                    Some(serde_json::Value::String(code)) => code.clone(),
                    Some(serde_json::Value::Number(code)) => code.to_string(),
                    _ => String::new(),
                };
                let kind = kind.as_deref().unwrap_or_default();
                [code.as_str(), kind, finer].join(" ").trim().to_owned()
            }
            Self::Text(_) | Self::Other(_) => String::new(),
        }
    }

    /// The HTTP status, where its code is one.
    fn status(&self) -> Option<u16> {
        let Self::Full { code: Some(code), .. } = self else { return None };
        let code = code.as_u64().or_else(|| code.as_str()?.parse().ok())?;
        u16::try_from(code).ok().filter(|status| (400..600).contains(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> (&'static str, Option<u16>) {
        let failure = error_event(None, &serde_json::from_str(json).unwrap());
        (failure.kind.class(), failure.status)
    }

    #[test]
    fn an_error_among_events_is_that_of_its_status() {
        for (error, class, status) in [
            (r#"{"type":"overloaded_error","message":"x"}"#, "server_error", 529),
            (r#"{"type":"rate_limit_error","message":"x"}"#, "rate_limit", 429),
            (r#"{"type":"api_error","message":"x"}"#, "server_error", 500),
            (r#"{"type":"authentication_error","message":"x"}"#, "credentials", 401),
            (r#"{"type":"invalid_request_error","message":"x"}"#, "bad_request", 400),
            (r#"{"code":"rate_limit_exceeded","message":"x"}"#, "rate_limit", 429),
            (r#"{"code":"insufficient_quota","message":"x"}"#, "quota", 429),
            (r#"{"code":"server_error","message":"x"}"#, "server_error", 500),
            (r#"{"code":"context_length_exceeded","message":"x"}"#, "too_long", 400),
            (r#"{"code":"websocket_connection_limit_reached"}"#, "stale_connection", 400),
            (r#"{"code":502,"message":"Provider returned error"}"#, "server_error", 502),
            (r#"{"code":"429","message":"x"}"#, "rate_limit", 429),
            (r#""something""#, "server_error", 500),
        ] {
            assert_eq!(event(error), (class, Some(status)), "{error}");
        }
    }

    #[test]
    fn what_anthropic_says_without_a_code_is_understood() {
        let told = |message: &str| {
            let body = format!(
                r#"{{"type":"error","error":{{"type":"invalid_request_error","message":"{message}"}}}}"#
            );
            refused(400, &HeaderMap::new(), body.as_bytes()).kind.class()
        };
        assert_eq!(told("Your credit balance is too low to access the API"), "quota");
        assert_eq!(told("prompt is too long: 212345 tokens > 200000 maximum"), "too_long");
        assert_eq!(told("max_tokens: field required"), "bad_request");
    }
}
