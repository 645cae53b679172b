//! Wire protocols as plain functions: a prompt becomes a call, a reply becomes an answer or a
//! failure. Nothing here has a socket.
//!
//! A protocol is a file: `chat`, `responses`, `messages`, `embeddings`. Each says how a body
//! is framed, what a whole reply means and what an event of a streamed one does; what they have in
//! common is in `reply`, how each is told a schema in `structure`. Requests that somebody else framed are passed on by `passed`. Who speaks them, and where, is in `known`; how a user names a model and
//! its parameters, in `name` and `parameters`.

mod access;
mod api;
mod attached;
mod chat;
mod embeddings;
mod known;
mod limits;
mod listing;
mod messages;
mod name;
mod offer;
mod parameters;
mod passed;
mod reply;
mod responses;
mod secret;
mod stream;
mod structure;
mod thinking;

use bytes::Bytes;
use hyper::header::HeaderMap;

pub use access::{Access, ExtraHeader, ReadKey};
pub use api::{Api, BadKey, NotPrepared};
pub use attached::NotTaken;
pub use known::{KNOWN, Provider, takes_temperature, wants_completion_tokens};
pub use limits::told;
pub use listing::{Listed, Listing, Page};
pub use name::{BadName, ModelName};
pub use offer::Task;
pub use parameters::{BadParameter, PARAMETERS, Parameter, Wanted, translate};
pub use passed::FormFile;
pub use secret::{Mask, Secret};
pub use stream::Stream;
pub use structure::{Correction, Wording, refuses_schema};

use crate::job::{Answer, Content, Endpoint, Failure};

/// Who answers.
#[derive(Debug, Clone)]
pub enum Model {
    /// Answers with the rendered prompt, without a call: for trying a pipeline.
    Passthrough,
    /// An endpoint that is called.
    Called(Api),
}

pub use crate::job::PASSTHROUGH;

impl Model {
    /// The calls of a model; nothing where it is not called.
    #[must_use]
    pub fn api(&self) -> Option<&Api> {
        match self {
            Self::Passthrough => None,
            Self::Called(api) => Some(api),
        }
    }

    /// The body of the call that asks for an answer to a prompt.
    #[must_use]
    pub fn encode(&self, prompt: &str, wording: Wording<'_>) -> Bytes {
        match self {
            Self::Passthrough => Bytes::copy_from_slice(prompt.as_bytes()),
            Self::Called(api) => api.encode(prompt, wording),
        }
    }

    /// What a whole reply says. `now_ms` is the time in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// What the endpoint, or its answer, failed with.
    pub fn decode(
        &self,
        status: u16,
        headers: &HeaderMap,
        body: &[u8],
        now_ms: u64,
    ) -> Result<Answer, Failure> {
        self.decode_of(Endpoint::ChatCompletions, status, headers, body, now_ms)
    }

    /// As [`Model::decode`], of a request that was passed on to an endpoint.
    ///
    /// # Errors
    /// As [`Model::decode`].
    pub fn decode_of(
        &self,
        endpoint: Endpoint,
        status: u16,
        headers: &HeaderMap,
        body: &[u8],
        now_ms: u64,
    ) -> Result<Answer, Failure> {
        match self {
            Self::Passthrough => Ok(Answer {
                content: Content::Text(String::from_utf8_lossy(body).into_owned()),
                model: None,
                finish_reason: None,
                usage: None,
            }),
            Self::Called(api) => api.decode(endpoint, status, headers, body, now_ms),
        }
    }
}
