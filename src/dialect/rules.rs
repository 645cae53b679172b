//! What servers want of a request file, as far as they say so or their sources show it.
//!
//! OpenAI: <https://platform.openai.com/docs/guides/batch> and its OpenAPI file; vLLM and FastDeploy: the sources of
//! their `run-batch`; Doubleword: the source of control-layer; Dria: <https://docs.dria.co>.

use std::str::FromStr;

use super::{Dialect, Endpoint};

/// One server's rules.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Its name, as `--for` has it.
    pub name: &'static str,
    /// Its name in messages.
    pub title: &'static str,
    /// The dialects that it reads; the first is taken when a file does not tell.
    pub dialects: &'static [Dialect],
    /// The endpoints that lines may name.
    pub endpoints: &'static [Endpoint],
    /// Whether a url must be spelled as usual. vLLM goes by the end of some.
    pub exact_urls: bool,
    /// Whether what is plainly meant is taken: a url without `/v1` or with a host, lines of `custom_id` and `body` alone.
    pub is_lenient: bool,
    /// Whether the values of usual parameters are checked as OpenAI has them: roles, and the highest that are taken.
    pub strict_values: bool,
    /// Whether an id may stand in a file once only.
    pub unique_ids: bool,
    /// Whether every line must say `"method":"POST"`.
    pub wants_post: bool,
    /// Whether `body.model` must be there.
    pub wants_model: bool,
    /// Whether `"stream":true` is refused.
    pub refuses_stream: bool,
    /// Whether ids must be characters that HTTP headers can have.
    pub header_ids: bool,
    /// Whether all lines of a file must have one model and one url.
    pub one_kind: bool,
    /// Whether a file without requests is refused.
    pub refuses_empty: bool,
    /// The longest id, in bytes.
    pub id_bytes: usize,
    /// The longest body, in bytes.
    pub body_bytes: Option<usize>,
    /// The largest file, in bytes.
    pub file_bytes: Option<u64>,
    /// The most requests in a file.
    pub requests: Option<u64>,
    /// The most inputs of embeddings in a file.
    pub embedding_inputs: Option<u64>,
}

/// The longest id that a line of the `openai` dialect may have, in bytes.
pub const ID_BYTES: usize = 512;

const MB: u64 = 1_000_000;

/// The rules without `--for`: the widest, with every endpoint whose answers can be lines.
pub const ROWMILL: Rules = Rules {
    name: "rowmill",
    title: "rowmill",
    dialects: &Dialect::ALL,
    endpoints: &[
        Endpoint::ChatCompletions,
        Endpoint::Completions,
        Endpoint::Responses,
        Endpoint::Embeddings,
        Endpoint::Messages,
        Endpoint::Score,
        Endpoint::Rerank,
        Endpoint::Transcriptions,
        Endpoint::Translations,
    ],
    exact_urls: false,
    is_lenient: true,
    strict_values: false,
    unique_ids: true,
    wants_post: true,
    wants_model: true,
    refuses_stream: true,
    header_ids: false,
    one_kind: false,
    refuses_empty: false,
    id_bytes: ID_BYTES,
    body_bytes: None,
    file_bytes: None,
    requests: None,
    embedding_inputs: None,
};

/// OpenAI's Batch API. That it refuses streams stands nowhere, but a stream cannot be a line.
pub const OPENAI: Rules = Rules {
    name: "openai",
    title: "OpenAI",
    dialects: &[Dialect::OpenAi],
    endpoints: &[
        Endpoint::ChatCompletions,
        Endpoint::Completions,
        Endpoint::Responses,
        Endpoint::Embeddings,
        Endpoint::Moderations,
        Endpoint::ImageGenerations,
        Endpoint::ImageEdits,
        Endpoint::Videos,
    ],
    exact_urls: true,
    is_lenient: false,
    strict_values: true,
    refuses_stream: false,
    one_kind: true,
    refuses_empty: true,
    // 200 MB; in decimal, which is the smaller reading.
    file_bytes: Some(200 * MB),
    requests: Some(50_000),
    embedding_inputs: Some(50_000),
    ..ROWMILL
};

/// `vllm run-batch`, 0.33.
pub const VLLM: Rules = Rules {
    name: "vllm",
    title: "vLLM",
    dialects: &[Dialect::OpenAi],
    endpoints: &[
        Endpoint::ChatCompletions,
        Endpoint::Embeddings,
        Endpoint::Score,
        Endpoint::Rerank,
        Endpoint::Transcriptions,
        Endpoint::Translations,
    ],
    is_lenient: false,
    unique_ids: false,
    wants_post: false,
    wants_model: false,
    ..ROWMILL
};

/// `fastdeploy run-batch`.
pub const FASTDEPLOY: Rules = Rules {
    name: "fastdeploy",
    title: "FastDeploy",
    endpoints: &[Endpoint::ChatCompletions],
    exact_urls: true,
    ..VLLM
};

/// Doubleword's service, control-layer.
pub const DOUBLEWORD: Rules = Rules {
    name: "doubleword",
    title: "Doubleword",
    dialects: &[Dialect::OpenAi],
    endpoints: &[
        Endpoint::ChatCompletions,
        Endpoint::Completions,
        Endpoint::Embeddings,
        Endpoint::Responses,
        Endpoint::Messages,
    ],
    exact_urls: true,
    is_lenient: false,
    refuses_stream: false,
    header_ids: true,
    id_bytes: 64,
    body_bytes: Some(10 * MB as usize),
    file_bytes: Some(100 * MB),
    ..ROWMILL
};

/// Dria: its Batch API, and `dria batch`.
pub const DRIA: Rules = Rules {
    name: "dria",
    title: "Dria",
    dialects: &[Dialect::Dria, Dialect::Prompts],
    endpoints: &[],
    requests: Some(100_000),
    ..ROWMILL
};

impl Rules {
    /// All servers.
    pub const ALL: [&'static Self; 6] = [&ROWMILL, &OPENAI, &VLLM, &FASTDEPLOY, &DOUBLEWORD, &DRIA];

    /// Whether it answers a url.
    #[must_use]
    pub fn takes(&self, url: &str) -> bool {
        let named = if self.is_lenient { Endpoint::of_any_url(url) } else { Endpoint::of_url(url) };
        named.is_some_and(|endpoint| {
            self.endpoints.contains(&endpoint) && (!self.exact_urls || url == endpoint.url())
        })
    }

    /// The urls that it answers, for messages.
    #[must_use]
    pub fn urls(&self) -> String {
        self.endpoints.iter().map(|endpoint| endpoint.url()).collect::<Vec<_>>().join(", ")
    }

    /// The servers that refuse streams, for messages.
    #[must_use]
    pub fn that_refuse_streams() -> String {
        let who = Self::ALL
            .iter()
            .filter(|rules| rules.refuses_stream && rules.dialects.contains(&Dialect::OpenAi));
        who.map(|rules| rules.title).collect::<Vec<_>>().join(", ")
    }
}

impl FromStr for &'static Rules {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Rules::ALL.into_iter().find(|rules| rules.name == text).ok_or_else(|| {
            let names: Vec<_> = Rules::ALL.iter().map(|rules| rules.name).collect();
            format!("expected one of {}", names.join(", "))
        })
    }
}
