//! The providers that go by a name: which protocols they speak, where, whose key they take, and
//! what they can be asked for. `docs/models.md` has the same as a table.

use crate::http::Endpoint;
use crate::job::Protocol;

/// Somebody who serves models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provider {
    /// Its name; empty where none was named.
    pub name: &'static str,
    /// The protocols it speaks; the first unless another is asked for.
    pub protocols: &'static [Protocol],
    /// Where it is.
    pub base_url: &'static str,
    /// The variable of the environment that says where it is, if one does.
    pub base_url_variable: Option<&'static str>,
    /// The variables that may hold its key: the first that does.
    pub keys: &'static [&'static str],
    /// Whether nothing goes without a key.
    pub needs_key: bool,
    /// Whether it has the WebSocket mode of OpenAI Responses.
    pub has_websocket: bool,
    /// The parameters it takes in Chat Completions besides `temperature`, `top_p`, `max_tokens` and
    /// `stop`; in the other protocols all take the same.
    pub(super) chat: &'static [&'static str],
    /// How it spells parameters of Chat Completions that it spells otherwise.
    pub(super) spells: &'static [(&'static str, &'static str)],
    /// How it is told how hard to think, in Chat Completions.
    pub(super) reasoning: Reasoning,
    /// Its service tiers, in Chat Completions and Responses.
    pub(super) tiers: &'static [&'static str],
    /// The protocols in which its models can search the web.
    pub(super) searches: &'static [Protocol],
}

/// How a model is told how hard to think, in Chat Completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reasoning {
    /// `"reasoning_effort":LEVEL`.
    Effort,
    /// `"reasoning_effort":LEVEL`, and on or off with `"thinking":{"type":…}`.
    /// <https://api-docs.deepseek.com/guides/thinking_mode>
    DeepSeek,
    /// `"reasoning":{"effort":LEVEL}`, or `max_tokens` or `enabled` in its place.
    /// <https://openrouter.ai/docs/use-cases/reasoning-tokens>
    OpenRouter,
    /// In `chat_template_kwargs`: `reasoning_effort`, or on or off with `enable_thinking`.
    Template,
}

use Protocol::{Chat, Embeddings, Messages, Responses};

const OPENAI: &[&str] =
    &["frequency_penalty", "presence_penalty", "reasoning", "seed", "service_tier", "verbosity"];
const OPEN: &[&str] = &[
    "frequency_penalty",
    "min_p",
    "presence_penalty",
    "reasoning",
    "repetition_penalty",
    "seed",
    "top_k",
];
/// All that can be said: whether it is understood is for the endpoint to say.
const ANY: &[&str] = &[
    "frequency_penalty",
    "min_p",
    "presence_penalty",
    "reasoning",
    "repetition_penalty",
    "seed",
    "service_tier",
    "top_k",
    "verbosity",
];
const OPENAI_TIERS: &[&str] = &["auto", "default", "flex", "priority"];
const ANY_TIERS: &[&str] =
    &["auto", "default", "flex", "on_demand", "performance", "priority", "scale", "standard"];

/// OpenAI's models that reason refuse the older name.
const COMPLETION_TOKENS: &[(&str, &str)] = &[("max_tokens", "max_completion_tokens")];

/// What most have: Chat Completions and embeddings at a fixed place, for a key.
const USUAL: Provider = Provider {
    name: "",
    protocols: &[Chat, Embeddings],
    base_url: "",
    base_url_variable: None,
    keys: &[],
    needs_key: true,
    has_websocket: false,
    chat: OPEN,
    spells: &[],
    reasoning: Reasoning::Effort,
    tiers: &[],
    searches: &[],
};

/// What one's own machine has: every protocol, and no key unless it was started with one.
const LOCAL: Provider =
    Provider { protocols: &[Chat, Responses, Messages, Embeddings], needs_key: false, ..USUAL };

/// A model without a provider's name: OpenAI, or whoever is at the base URL.
pub(super) static UNNAMED: Provider = Provider {
    base_url: "https://api.openai.com/v1",
    base_url_variable: Some("OPENAI_BASE_URL"),
    keys: &["OPENAI_API_KEY"],
    has_websocket: true,
    chat: ANY,
    tiers: ANY_TIERS,
    searches: &[Chat, Responses, Messages],
    ..LOCAL
};

/// All providers that go by a name.
pub static KNOWN: &[Provider] = &[
    Provider {
        name: "openai",
        protocols: &[Chat, Responses, Embeddings],
        base_url: "https://api.openai.com/v1",
        base_url_variable: Some("OPENAI_BASE_URL"),
        keys: &["OPENAI_API_KEY"],
        has_websocket: true,
        chat: OPENAI,
        spells: COMPLETION_TOKENS,
        tiers: OPENAI_TIERS,
        searches: &[Chat, Responses],
        ..USUAL
    },
    Provider {
        name: "azure",
        protocols: &[Chat, Responses, Embeddings],
        // Everyone has a place of their own.
        base_url: "",
        base_url_variable: Some("AZURE_OPENAI_ENDPOINT"),
        keys: &["AZURE_OPENAI_API_KEY"],
        chat: OPENAI,
        spells: COMPLETION_TOKENS,
        tiers: OPENAI_TIERS,
        ..USUAL
    },
    Provider {
        name: "responses",
        protocols: &[Responses],
        base_url: "https://api.openai.com/v1",
        base_url_variable: Some("OPENAI_BASE_URL"),
        keys: &["OPENAI_API_KEY"],
        has_websocket: true,
        tiers: OPENAI_TIERS,
        searches: &[Responses],
        ..USUAL
    },
    Provider {
        name: "anthropic",
        protocols: &[Messages],
        base_url: "https://api.anthropic.com/v1",
        keys: &["ANTHROPIC_API_KEY"],
        searches: &[Messages],
        ..USUAL
    },
    Provider {
        name: "google",
        base_url: "https://generativelanguage.googleapis.com/v1beta/openai",
        keys: &["GOOGLE_API_KEY", "GEMINI_API_KEY"],
        chat: &["frequency_penalty", "presence_penalty", "reasoning", "seed", "service_tier"],
        tiers: &["flex", "priority", "standard"],
        ..USUAL
    },
    Provider {
        name: "groq",
        protocols: &[Chat, Responses],
        base_url: "https://api.groq.com/openai/v1",
        keys: &["GROQ_API_KEY"],
        chat: &["reasoning", "seed", "service_tier"],
        spells: COMPLETION_TOKENS,
        tiers: &["auto", "flex", "on_demand", "performance"],
        ..USUAL
    },
    Provider {
        name: "mistral",
        base_url: "https://api.mistral.ai/v1",
        keys: &["MISTRAL_API_KEY"],
        chat: &["frequency_penalty", "presence_penalty", "reasoning", "seed"],
        spells: &[("seed", "random_seed")],
        ..USUAL
    },
    Provider {
        name: "deepseek",
        protocols: &[Chat],
        base_url: "https://api.deepseek.com/v1",
        keys: &["DEEPSEEK_API_KEY"],
        chat: &["frequency_penalty", "presence_penalty", "reasoning"],
        reasoning: Reasoning::DeepSeek,
        ..USUAL
    },
    Provider {
        name: "xai",
        protocols: &[Chat, Responses, Messages],
        base_url: "https://api.x.ai/v1",
        keys: &["XAI_API_KEY"],
        has_websocket: true,
        chat: &["frequency_penalty", "presence_penalty", "reasoning", "seed"],
        searches: &[Responses],
        ..USUAL
    },
    Provider {
        name: "openrouter",
        protocols: &[Chat, Responses, Messages, Embeddings],
        base_url: "https://openrouter.ai/api/v1",
        keys: &["OPENROUTER_API_KEY"],
        chat: ANY,
        reasoning: Reasoning::OpenRouter,
        tiers: &["auto", "default", "flex", "priority", "scale"],
        ..USUAL
    },
    Provider {
        name: "together",
        base_url: "https://api.together.xyz/v1",
        keys: &["TOGETHER_API_KEY"],
        ..USUAL
    },
    Provider {
        name: "fireworks",
        protocols: &[Chat, Responses, Embeddings],
        base_url: "https://api.fireworks.ai/inference/v1",
        keys: &["FIREWORKS_API_KEY"],
        ..USUAL
    },
    Provider {
        name: "hf",
        protocols: &[Chat, Responses],
        base_url: "https://router.huggingface.co/v1",
        keys: &["HF_TOKEN"],
        ..USUAL
    },
    Provider {
        name: "ollama",
        base_url: "http://localhost:11434/v1",
        keys: &["OLLAMA_API_KEY"],
        chat: &["frequency_penalty", "presence_penalty", "reasoning", "seed"],
        ..LOCAL
    },
    Provider {
        name: "vllm",
        base_url: "http://localhost:8000/v1",
        keys: &["VLLM_API_KEY"],
        ..LOCAL
    },
    Provider {
        name: "sglang",
        base_url: "http://localhost:30000/v1",
        keys: &["SGLANG_API_KEY"],
        ..LOCAL
    },
    Provider {
        name: "llamacpp",
        base_url: "http://localhost:8080/v1",
        keys: &["LLAMA_API_KEY"],
        spells: &[("repetition_penalty", "repeat_penalty")],
        reasoning: Reasoning::Template,
        ..LOCAL
    },
    Provider {
        name: "generic",
        base_url: "http://localhost:11434/v1",
        base_url_variable: Some("GENERIC_BASE_URL"),
        keys: &["GENERIC_API_KEY"],
        has_websocket: true,
        chat: ANY,
        tiers: ANY_TIERS,
        searches: &[Chat, Responses, Messages],
        ..LOCAL
    },
];

impl Provider {
    /// The one that goes by this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        KNOWN.iter().find(|provider| provider.name == name)
    }

    /// The one for models without a provider's name.
    #[must_use]
    pub fn unnamed() -> &'static Self {
        &UNNAMED
    }

    /// The provider as it is at a place: OpenAI's and Azure's own servers are spoken to as such, whatever
    /// name the model was given with.
    #[must_use]
    pub fn at(&self, endpoint: &Endpoint) -> Self {
        /// Azure takes the newer name since then.
        const SINCE: &str = "2024-09";
        let host = endpoint.uri().host().unwrap_or_default();
        let is_openai = host.eq_ignore_ascii_case("api.openai.com");
        let is_old = endpoint.api_version().is_some_and(|version| version < SINCE);
        let spells = match endpoint.is_azure() {
            true if is_old => &[],
            true => COMPLETION_TOKENS,
            false if is_openai => COMPLETION_TOKENS,
            false => self.spells,
        };
        Self { spells, ..*self }
    }

    /// What it is called where something is said of it.
    #[must_use]
    pub fn shown(&self) -> &'static str {
        if self.name.is_empty() { "the endpoint" } else { self.name }
    }
}

/// Whether a model is one of OpenAI's that refuse `max_tokens`, as far as its name tells.
#[must_use]
pub fn wants_completion_tokens(model: &str) -> bool {
    !takes_temperature(model) && !model.contains("claude")
}

/// Whether a model takes a temperature, as far as its name tells, with or without its vendor's in front.
/// OpenAI's that reason take none but 1 (<https://platform.openai.com/docs/guides/reasoning>), and Claude
/// Opus 4.7 none at all
/// (<https://platform.claude.com/docs/en/about-claude/models/migration-guide>).
#[must_use]
pub fn takes_temperature(model: &str) -> bool {
    const WITHOUT: &[&str] =
        &["o1", "o3", "o4-mini", "gpt-5", "claude-opus-4-7", "claude-opus-4.7", "claude-4.7-opus"];
    let model = model.strip_prefix("ft:").unwrap_or(model);
    let model = model.rsplit('/').next().unwrap_or(model);
    let is_of = |family: &&str| {
        let rest = model.strip_prefix(*family);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.', ':', '@']))
    };
    !WITHOUT.iter().any(&is_of) || is_of(&"gpt-5-chat")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_take_no_temperature_are_known_by_their_names() {
        for model in [
            "o1",
            "o1-2024-12-17",
            "o3",
            "o3-mini",
            "o4-mini",
            "ft:o4-mini-2025-04-16:org::id",
            "gpt-5",
            "gpt-5-mini",
            "gpt-5.1",
            "openai/gpt-5-nano",
            "openai/o3:online",
            "claude-opus-4-7",
            "anthropic/claude-opus-4.7",
        ] {
            assert!(!takes_temperature(model), "{model}");
        }
        for model in [
            "gpt-4o-mini",
            "gpt-5-chat-latest",
            "openai/gpt-5-chat",
            "gpt-50",
            "o365",
            "llama-o1",
            "openai/gpt-oss-20b",
            "claude-opus-4-5",
            "",
        ] {
            assert!(takes_temperature(model), "{model}");
        }
    }
}
