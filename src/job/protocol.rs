//! How a model is spoken to: which words are sent, and over what.

use serde::{Deserialize, Serialize};

/// A wire protocol: what a request and its reply look like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// OpenAI Chat Completions, which most servers speak.
    #[default]
    Chat,
    /// OpenAI Responses.
    Responses,
    /// Anthropic Messages.
    Messages,
    /// OpenAI embeddings: the answer to a row is a vector.
    Embeddings,
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Self; 4] = [Self::Chat, Self::Responses, Self::Messages, Self::Embeddings];

    /// The name that options and files have for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Embeddings => "embeddings",
        }
    }

    /// Whether it is Chat Completions: files of before there were others do not name it.
    #[must_use]
    pub fn is_chat(&self) -> bool {
        *self == Self::Chat
    }

    /// Whether its answers are vectors.
    #[must_use]
    pub fn is_embeddings(self) -> bool {
        self == Self::Embeddings
    }
}

/// How requests and replies travel. It decides no answer, so it may change between a run and its
/// resumption.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A request and a whole reply over HTTP: the cheapest.
    #[default]
    Http,
    /// A request over HTTP, the reply as server-sent events: tells when the first token came.
    Sse,
    /// Requests and events over a WebSocket that stays open.
    Ws,
}

impl Transport {
    /// Whether it is plain HTTP.
    #[must_use]
    pub fn is_http(&self) -> bool {
        *self == Self::Http
    }
}
