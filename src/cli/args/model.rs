//! Who is asked, and how.

use std::path::PathBuf;
use std::sync::Arc;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Args, ValueEnum};

use super::super::names::NamesArgs;
use super::super::parse::{header, mapping, parameter, probability, temperature};
use super::super::pool::PoolArgs;
use crate::config::{Endpoint, Header};
use crate::job::{Dialect, Protocol};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub(in crate::cli) struct ModelArgs {
    /// The model: [provider.]model[?parameter=value&…], as in anthropic.claude-haiku-4-5?reasoning=low.
    /// Providers: openai, responses, anthropic, google, groq, mistral, deepseek, xai, openrouter,
    /// together, fireworks, hf, azure, ollama, vllm, sglang, llamacpp, generic; without one, OpenAI or
    /// whoever is at --base-url; or an endpoint of a config file. `local` is a small one on this
    /// machine, fetched once, and `local:FILE` one in a GGUF file of yours. `passthrough` answers with
    /// the prompt, without a call. The name of a pool of a config file stands for all its members;
    /// `auto` for whatever the config file's endpoints offer, as they say when they are asked, or for the one model
    /// that the server at --base-url (or OPENAI_BASE_URL) serves. Given
    /// several times, each model answers each row: an envelope a row and model, with `model` and
    /// `repeat` in it. Of request files it takes the place of the models that their lines name [env:
    /// ROWMILL_MODEL] [default: the config file's model, else its only pool, else auto where it has
    /// endpoints or there is a base URL; of request files the lines' own]
    #[arg(short, long = "model", value_name = "MODEL", action = ArgAction::Append, value_parser = NonEmptyStringValueParser::new())]
    pub(in crate::cli) models: Vec<String>,
    /// Ask each model so many times about each row: an envelope for each answer, with `model` and
    /// `repeat` in it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(in crate::cli) repeat: u32,
    /// The first of the models, without the endpoint of a config file that it may name.
    #[arg(skip)]
    pub(in crate::cli) model: Option<String>,
    /// What the lines of the input are.
    #[arg(skip)]
    pub(in crate::cli) dialect: Dialect,
    /// What it was named with.
    #[arg(skip)]
    pub(in crate::cli) named: String,
    /// Whether there is nothing to ask about, so that any model will do.
    #[arg(skip)]
    pub(in crate::cli) is_idle: bool,
    /// Whether no model is named, and the server at the base URL is asked which it serves.
    #[arg(skip)]
    pub(in crate::cli) asks_server: bool,
    /// The same arguments for each of the other models.
    #[arg(skip)]
    pub(in crate::cli) others: Vec<ModelArgs>,
    /// The endpoint of a config file that the model string named: what is left of that is in `model`.
    #[arg(skip)]
    pub(in crate::cli) endpoint: Option<Arc<Endpoint>>,
    /// The pool that the model string named.
    #[arg(skip)]
    pub(in crate::cli) pool: Option<Arc<PoolArgs>>,
    /// What a model's name in the lines of an `openai` or `dria` file stands for, where no -m is given:
    /// --map-model 'llama3.3:70b=groq.llama-3.3-70b-versatile'. MODEL is as -m takes it, without
    /// parameters: bodies are passed on but for their model. *=MODEL is for all names that nothing is said
    /// of; else those go as they are to --base-url. Given several times, one each; wins over [models] of
    /// the config file
    #[arg(long, value_name = "NAME=MODEL", value_parser = mapping)]
    pub(in crate::cli) map_model: Vec<(String, String)>,
    /// What names stand for, by options and config files, where lines name their models.
    #[arg(skip)]
    pub(in crate::cli) maps: Option<Arc<NamesArgs>>,
    /// Of a pool, the model that must answer: no other does in its place, though several endpoints may
    /// serve it
    #[arg(long, value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    pub(in crate::cli) require_model: Option<String>,
    /// Where the endpoint is, if not at the provider's own place [env: OPENAI_BASE_URL for OpenAI
    /// and models without a provider]
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) base_url: Option<String>,
    /// The protocol to speak, if not the provider's first
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) protocol: Option<ProtocolArg>,
    /// A file that holds the API key [env: the provider's variable holds the key itself:
    /// OPENAI_API_KEY, ANTHROPIC_API_KEY, …]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) api_key_file: Option<PathBuf>,
    /// A header of every call: --header anthropic-beta=NAME. A secret is named, never given: --header
    /// api-key=env:MY_KEY or --header cf-access-client-secret=file:PATH. Given several times, one each
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub(in crate::cli) headers: Vec<Header>,
    /// Sampling temperature
    #[arg(long, value_name = "T", value_parser = temperature)]
    pub(in crate::cli) temperature: Option<String>,
    /// The most tokens of an answer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) max_tokens: Option<u64>,
    /// Nucleus sampling
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(in crate::cli) top_p: Option<String>,
    /// Any further field of the request body, as JSON: --param seed=7 --param 'stop=["\n"]'
    #[arg(long = "param", value_name = "KEY=JSON", value_parser = parameter)]
    pub(in crate::cli) params: Vec<super::super::parse::Parameter>,
}

/// A wire protocol.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum ProtocolArg {
    /// OpenAI Chat Completions
    Chat,
    /// OpenAI Responses
    Responses,
    /// Anthropic Messages
    Messages,
    /// OpenAI embeddings: the answer to a row is a vector
    Embeddings,
}

impl From<ProtocolArg> for Protocol {
    fn from(arg: ProtocolArg) -> Self {
        match arg {
            ProtocolArg::Chat => Self::Chat,
            ProtocolArg::Responses => Self::Responses,
            ProtocolArg::Messages => Self::Messages,
            ProtocolArg::Embeddings => Self::Embeddings,
        }
    }
}
