//! What became of a row, and what each sending of its request cost.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{FailureKind, Money};

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeKind {
    /// There is an answer.
    Ok,
    /// The endpoint gave no answer; asking again may help.
    Failed,
    /// The row itself is at fault: no call can help.
    Invalid,
}

impl OutcomeKind {
    /// The word a journal record has for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Invalid => "invalid",
        }
    }

    /// The kind a journal record's word stands for.
    #[must_use]
    pub fn from_word(word: &[u8]) -> Option<Self> {
        match word {
            b"ok" => Some(Self::Ok),
            b"failed" => Some(Self::Failed),
            b"invalid" => Some(Self::Invalid),
            _ => None,
        }
    }
}

/// What an answer is: the `result` of its envelope.
#[derive(Debug, Clone)]
pub enum Content {
    /// A text, which an envelope has as a JSON string.
    Text(String),
    /// A JSON value, which an envelope has as it is: a vector, an object. Made by
    /// [`Content::json`], so that it is one line.
    Json(Box<RawValue>),
}

impl Content {
    /// A JSON value as an answer, byte for byte but for line ends, which no line of an output can
    /// hold: in JSON they stand between tokens only, and become blanks.
    #[must_use]
    pub fn json(value: &RawValue) -> Self {
        let text = value.get();
        if !text.contains(['\n', '\r']) {
            return Self::Json(value.to_owned());
        }
        let line = text.replace(['\n', '\r'], " ");
        Self::Json(RawValue::from_string(line).unwrap_or_else(|_| value.to_owned()))
    }

    /// The text, or the text of the JSON.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Json(value) => value.get(),
        }
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        let is_same_kind = matches!(self, Self::Text(_)) == matches!(other, Self::Text(_));
        is_same_kind && self.as_str() == other.as_str()
    }
}

impl Eq for Content {}

/// A model's answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What it says.
    pub content: Content,
    /// The model that answered, as the endpoint names it.
    pub model: Option<String>,
    /// Why the model stopped: `stop`, `length`, or another word of the endpoint's.
    pub finish_reason: Option<String>,
    /// What the endpoint says the answer used.
    pub usage: Option<Usage>,
}

/// Tokens of one answer, as the endpoint counted them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub input_tokens: u64,
    /// Tokens of the answer, reasoning included.
    pub output_tokens: u64,
    /// Prompt tokens that the endpoint had in its cache.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached_input_tokens: u64,
    /// Answer tokens spent on reasoning.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reasoning_tokens: u64,
    /// Prompt tokens that the endpoint put in its cache.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_write_tokens: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Usage {
    /// Adds another answer's tokens. An endpoint may say any number: sums end at the highest.
    pub fn add(&mut self, other: &Self) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.input_tokens, other.input_tokens);
        add(&mut self.output_tokens, other.output_tokens);
        add(&mut self.cached_input_tokens, other.cached_input_tokens);
        add(&mut self.reasoning_tokens, other.reasoning_tokens);
        add(&mut self.cache_write_tokens, other.cache_write_tokens);
    }

    /// All tokens, in and out.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// One sending of a row's request: a line of the telemetry output.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// 1 for the first sending of a row in a session, and so on.
    pub number: u32,
    /// The model asked for, or the one that answered.
    pub model: String,
    /// The endpoint's name, where there are several.
    pub endpoint: Option<String>,
    /// When the sending began, in milliseconds since the Unix epoch.
    pub start_ms: u64,
    /// From the sending to the decoded answer.
    pub duration: Duration,
    /// From the sending to the first byte of the answer's head.
    pub time_to_response: Option<Duration>,
    /// From the sending to the first token of the answer, where it was streamed.
    pub ttft: Option<Duration>,
    /// What it used, where the endpoint said so.
    pub usage: Option<Usage>,
    /// What it cost; nothing where that is not known, which is not the same as nothing.
    pub cost: Option<Money>,
    /// What it is taken to have cost where that is not known and there is a cap: what was set aside.
    pub assumed: Option<Money>,
    /// The HTTP status, where a server answered.
    pub status: Option<u16>,
    /// The server's name for the request (`x-request-id`), where it gave one.
    pub request_id: Option<String>,
    /// Why the model stopped.
    pub finish_reason: Option<String>,
    /// The failure's type and message; nothing when the attempt brought the answer.
    pub error: Option<(&'static str, String)>,
}

impl Attempt {
    /// Whether it may have cost something that is not known. What an endpoint refused, or was never
    /// asked, costs nothing; what it answered in part, or too late, may be on the bill.
    #[must_use]
    pub fn is_unpriced(&self) -> bool {
        let refused = self.error.as_ref().map(|(kind, _)| (*kind, self.status));
        self.cost.is_none() && refused.is_none_or(|(kind, status)| may_be_billed(kind, status))
    }
}

/// Whether a call that failed may be on the bill, by the type of its failure and its HTTP status.
#[must_use]
pub fn may_be_billed(kind: &str, status: Option<u16>) -> bool {
    let was_not_asked = [
        FailureKind::Connection,
        FailureKind::Tls,
        FailureKind::Attachment,
        FailureKind::InvalidRequest,
    ]
    .map(FailureKind::name);
    match status {
        Some(status) => status < 300,
        None => !was_not_asked.contains(&kind),
    }
}
