//! Model strings: `[provider.]model[?parameter=value&…]`.
//!
//! * `provider.` in front names a provider, if it is one; what follows is the model's name, with
//!   whatever dots, colons and slashes it has.
//! * `provider/` does so too, as long as no base URL is given: the names of many models have a slash,
//!   and who says where the endpoint is says a name as that endpoint has it.
//! * Behind the first `?` stand parameters, as in a URL: `%20` is a blank.

use std::time::Duration;

use super::known::Provider;
use super::parameters::{self, PARAMETERS};
use crate::job::{Transport, some_time};

/// A model string, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelName {
    /// Who serves the model; nothing where nobody was named.
    pub provider: Option<&'static Provider>,
    /// The model, as its endpoint names it.
    pub model: String,
    /// Parameters by their names in [`PARAMETERS`], with checked values.
    pub parameters: Vec<(&'static str, String)>,
    /// How calls are to travel, if it says so.
    pub transport: Option<Transport>,
    /// How long an answer that has begun may go without an event, if it says so; the longest time stands for
    /// no bound.
    pub idle_timeout: Option<Duration>,
}

/// Why a text is no model string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// There is no model in it.
    #[error("{0:?} names no model: expected [provider.]model[?parameter=value&…]")]
    NoModel(String),
    /// It has a parameter that nobody knows.
    #[error("{name:?} in {text:?} is no parameter of a model; there are {}", known())]
    Unknown {
        /// The parameter.
        name: String,
        /// The whole string.
        text: String,
    },
    /// A parameter's value cannot be meant.
    #[error("{name}={value} in {text:?}: expected {expected}")]
    BadValue {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: String,
        /// The whole string.
        text: String,
        /// What it could be.
        expected: &'static str,
    },
    /// A parameter stands in it twice.
    #[error("the parameter {name} is given twice in {text:?}")]
    Twice {
        /// The parameter.
        name: &'static str,
        /// The whole string.
        text: String,
    },
}

fn known() -> String {
    let names: Vec<_> = PARAMETERS.iter().map(|parameter| parameter.name).collect();
    names.join(", ")
}

impl ModelName {
    /// Reads a model string. `has_base_url` is whether it was said where the endpoint is.
    ///
    /// # Errors
    /// When it names no model, or has a parameter that is not known, has no such value, or stands
    /// there twice.
    pub fn parse(text: &str, has_base_url: bool) -> Result<Self, BadName> {
        let (name, query) = parts(text);
        let (provider, model) = provider_of(name, has_base_url);
        Self::of(provider, model, query, text)
    }

    /// Reads a model string without a provider in front: the model of one that is known otherwise.
    ///
    /// # Errors
    /// As for [`ModelName::parse`].
    pub fn parse_model(text: &str) -> Result<Self, BadName> {
        let (model, query) = parts(text);
        Self::of(None, model, query, text)
    }

    fn of(
        provider: Option<&'static Provider>,
        model: &str,
        query: &str,
        text: &str,
    ) -> Result<Self, BadName> {
        if model.is_empty() {
            return Err(BadName::NoModel(text.to_owned()));
        }
        let mut found = Self { provider, model: model.to_owned(), ..Self::default() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            found.add(pair, text)?;
        }
        Ok(found)
    }

    fn add(&mut self, pair: &str, text: &str) -> Result<(), BadName> {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        self.set(name, decoded(value), text)
    }

    /// Adds a parameter by its name or an alias; errors say that it stands in `text`.
    ///
    /// # Errors
    /// When it is not known, has no such value, or is there already.
    pub fn set(&mut self, name: &str, value: String, text: &str) -> Result<(), BadName> {
        let text = || text.to_owned();
        let Some(parameter) = PARAMETERS.iter().find(|known| known.is_called(name)) else {
            return Err(BadName::Unknown { name: name.to_owned(), text: text() });
        };
        let name = parameter.name;
        let is_there = match name {
            parameters::TRANSPORT => self.transport.is_some(),
            parameters::STREAMING_TIMEOUT => self.idle_timeout.is_some(),
            _ => self.parameters.iter().any(|(other, _)| *other == name),
        };
        if is_there {
            return Err(BadName::Twice { name, text: text() });
        }
        let Some(checked) = parameter.check(&value) else {
            let expected = parameter.expected;
            return Err(BadName::BadValue { name, value, text: text(), expected });
        };
        match name {
            parameters::TRANSPORT => {
                self.transport = Some(match &*checked {
                    "sse" => Transport::Sse,
                    "ws" => Transport::Ws,
                    _ => Transport::Http,
                });
            }
            // What is no time is `none`: it was checked.
            parameters::STREAMING_TIMEOUT => {
                self.idle_timeout = Some(some_time(&checked).unwrap_or(Duration::MAX));
            }
            _ => self.parameters.push((name, checked)),
        }
        Ok(())
    }
}

/// What stands before the first `?`, and what behind it.
fn parts(text: &str) -> (&str, &str) {
    let (name, query) = text.split_once('?').unwrap_or((text, ""));
    (name.trim(), query)
}

fn provider_of(name: &str, has_base_url: bool) -> (Option<&'static Provider>, &str) {
    let prefix = |sign| {
        let (first, rest) = name.split_once(sign)?;
        Some((Some(Provider::named(first)?), rest))
    };
    let by_slash = || if has_base_url { None } else { prefix('/') };
    prefix('.').or_else(by_slash).unwrap_or((None, name))
}

/// A value with its `%XX` put back; what cannot be put back stays.
fn decoded(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let hex = || {
            let digits = std::str::from_utf8(behind.get(..2)?).ok()?;
            u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
        };
        match (first, hex()) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            _ => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, has_base_url: bool) -> (String, String) {
        let name = ModelName::parse(text, has_base_url).unwrap();
        (name.provider.map_or("", |it| it.name).to_owned(), name.model)
    }

    #[test]
    fn a_known_provider_in_front_is_one_and_nothing_else_is() {
        for (text, provider, model) in [
            ("gpt-4.1-mini", "", "gpt-4.1-mini"),
            ("openai.gpt-4.1-mini", "openai", "gpt-4.1-mini"),
            ("responses.gpt-5", "responses", "gpt-5"),
            ("anthropic/claude-x", "anthropic", "claude-x"),
            ("openai/gpt-oss-120b", "openai", "gpt-oss-120b"),
            ("openrouter.openai/gpt-oss-20b:free", "openrouter", "openai/gpt-oss-20b:free"),
            ("openrouter/openai/gpt-oss-20b", "openrouter", "openai/gpt-oss-20b"),
            ("hf.openai/gpt-oss-120b:groq", "hf", "openai/gpt-oss-120b:groq"),
            ("together.meta-llama/Llama-3.3-70B", "together", "meta-llama/Llama-3.3-70B"),
            ("meta-llama/Llama-3.3-70B", "", "meta-llama/Llama-3.3-70B"),
            ("mistralai/Mistral-7B", "", "mistralai/Mistral-7B"),
            ("ollama.qwen3:0.6b", "ollama", "qwen3:0.6b"),
            ("qwen3:0.6b", "", "qwen3:0.6b"),
            ("generic.openai.gpt-oss-20b-1:0", "generic", "openai.gpt-oss-20b-1:0"),
            ("llama3.2", "", "llama3.2"),
            ("OpenAI.gpt-4", "", "OpenAI.gpt-4"),
        ] {
            assert_eq!(parsed(text, false), (provider.to_owned(), model.to_owned()), "{text}");
        }
    }

    #[test]
    fn with_a_base_url_a_slash_belongs_to_the_name() {
        let unnamed = |text: &str| (String::new(), text.to_owned());
        assert_eq!(parsed("openai/gpt-oss-20b", true), unnamed("openai/gpt-oss-20b"));
        assert_eq!(parsed("google/gemma-3-4b", true), unnamed("google/gemma-3-4b"));
        let vllm = ("vllm".to_owned(), "openai/gpt-oss-20b".to_owned());
        assert_eq!(parsed("vllm.openai/gpt-oss-20b", true), vllm);
    }

    #[test]
    fn parameters_have_aliases_and_are_checked() {
        let text = "m?temp=0.20&maxTokens=5&reasoning=LOW&service_tier=fast&stop=%0A%41&transport=websocket";
        let name = ModelName::parse(text, false).unwrap();
        let parameters: Vec<_> =
            name.parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(
            parameters,
            [
                ("temperature", "0.20"),
                ("max_tokens", "5"),
                ("reasoning", "low"),
                ("service_tier", "priority"),
                ("stop", "\nA"),
            ]
        );
        assert_eq!(name.transport, Some(Transport::Ws));
        assert_eq!(ModelName::parse("m?", false).unwrap().parameters, []);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_could() {
        let refused = |text: &str| ModelName::parse(text, false).unwrap_err().to_string();
        let unknown = refused("m?temprature=0");
        assert!(unknown.contains("\"temprature\""), "{unknown}");
        for parameter in PARAMETERS {
            assert!(unknown.contains(parameter.name), "{unknown}");
        }
        for text in [
            "m?temperature=hot",
            "m?temperature=inf",
            "m?temperature=",
            "m?temperature",
            "m?max_tokens=0",
            "m?max_tokens=1.5",
            "m?reasoning=much",
            "m?transport=pigeon",
            "m?verbosity=7",
            "m?seed=x",
            "m?stop=",
        ] {
            assert!(refused(text).contains("expected"), "{}", refused(text));
        }
        assert!(refused("m?temp=0&temperature=0").contains("twice"));
        assert!(refused("m?transport=sse&transport=ws").contains("twice"));
        for text in ["", "?temperature=0", "openai.", "openai."] {
            assert!(refused(text).contains("names no model"), "{text}");
        }
    }
}
