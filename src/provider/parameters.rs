//! The parameters of a model by names that are the same for all, and what each protocol and
//! provider has for them. What none has is refused: silence would be a wrong answer.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::Api;
use super::known::{Provider, Reasoning};
use super::thinking::{budget, fitting};
use crate::job::{Parameters, Protocol, some_time};

/// The name of the parameter that says how calls travel.
pub(super) const TRANSPORT: &str = "transport";

/// The name of the parameter that says how long a stream may go without an event.
pub(super) const STREAMING_TIMEOUT: &str = "streaming_timeout";
/// Its value that sets no bound.
pub(super) const NO_TIMEOUT: &str = "none";

/// A parameter.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Other names of it.
    pub aliases: &'static [&'static str],
    /// What its values are, in words.
    pub expected: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Number,
    Integer,
    Count,
    Text,
    /// One of these words, or one that stands for one of them.
    Word(&'static [&'static str], &'static [(&'static str, &'static str)]),
    /// A word, or a number of tokens.
    Reasoning,
    /// A time, or [`NO_TIMEOUT`].
    Timeout,
}

const fn number(name: &'static str, aliases: &'static [&'static str]) -> Parameter {
    Parameter { name, aliases, expected: "a number", kind: Kind::Number }
}

const LEVELS: &[&str] =
    &["auto", "high", "low", "max", "medium", "minimal", "none", "off", "on", "xhigh"];
const LEVEL_ALIASES: &[(&str, &str)] = &[
    ("adaptive", "auto"),
    ("med", "medium"),
    ("true", "on"),
    ("1", "on"),
    ("yes", "on"),
    ("false", "off"),
    ("0", "off"),
    ("no", "off"),
];
const SWITCH_ALIASES: &[(&str, &str)] =
    &[("true", "on"), ("1", "on"), ("yes", "on"), ("false", "off"), ("0", "off"), ("no", "off")];
const TIERS: &[&str] = &[
    "auto",
    "default",
    "flex",
    "on_demand",
    "performance",
    "priority",
    "scale",
    "standard",
    "standard_only",
];

/// All parameters.
pub static PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "dimensions",
        aliases: &[],
        expected: "a whole number from 1 up",
        kind: Kind::Count,
    },
    number("frequency_penalty", &["frequencyPenalty"]),
    Parameter {
        name: "max_tokens",
        aliases: &["maxTokens"],
        expected: "a whole number from 1 up",
        kind: Kind::Count,
    },
    number("min_p", &["minP"]),
    number("presence_penalty", &["presencePenalty"]),
    Parameter {
        name: "reasoning",
        aliases: &["reasoning_effort"],
        expected: "auto, none, minimal, low, medium, high, xhigh, max, on, off or a number of tokens",
        kind: Kind::Reasoning,
    },
    number("repetition_penalty", &["repetitionPenalty"]),
    Parameter { name: "seed", aliases: &[], expected: "a whole number", kind: Kind::Integer },
    Parameter {
        name: "service_tier",
        aliases: &["serviceTier"],
        expected: "flex, fast (priority), auto, default or another tier of the provider's",
        kind: Kind::Word(TIERS, &[("fast", "priority")]),
    },
    Parameter { name: "stop", aliases: &[], expected: "a text", kind: Kind::Text },
    Parameter {
        name: STREAMING_TIMEOUT,
        aliases: &["streamingTimeout"],
        expected: "a time, in seconds or as 2m, or none",
        kind: Kind::Timeout,
    },
    number("temperature", &["temp"]),
    Parameter {
        name: "top_k",
        aliases: &["topK"],
        expected: "a whole number",
        kind: Kind::Integer,
    },
    number("top_p", &["topP"]),
    Parameter {
        name: TRANSPORT,
        aliases: &[],
        expected: "http, sse, ws or auto",
        kind: Kind::Word(&["http", "sse", "ws"], &[("auto", "http"), ("websocket", "ws")]),
    },
    Parameter {
        name: "verbosity",
        aliases: &[],
        expected: "low, medium or high",
        kind: Kind::Word(&["high", "low", "medium"], &[("med", "medium")]),
    },
    Parameter {
        name: "web_search",
        aliases: &["webSearch"],
        expected: "on or off",
        kind: Kind::Word(&["off", "on"], SWITCH_ALIASES),
    },
];

impl Parameter {
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }

    /// A value as it is kept: numbers as they are spelled, words in small letters.
    pub(super) fn check(&self, value: &str) -> Option<String> {
        let kept = || Some(value.to_owned());
        match self.kind {
            // What is no JSON number would break the body.
            Kind::Number => serde_json::from_str::<f64>(value).ok().and_then(|_| kept()),
            Kind::Integer => serde_json::from_str::<i64>(value).ok().and_then(|_| kept()),
            Kind::Count => is_count(value).then(kept)?,
            Kind::Text => (!value.is_empty()).then(kept)?,
            Kind::Word(words, aliases) => word(value, words, aliases),
            Kind::Reasoning => word(value, LEVELS, LEVEL_ALIASES)
                .or_else(|| is_count(value).then(|| value.to_owned())),
            Kind::Timeout => {
                (value == NO_TIMEOUT || some_time(value).is_ok()).then(|| value.to_owned())
            }
        }
    }
}

fn is_count(value: &str) -> bool {
    serde_json::from_str::<u64>(value).is_ok_and(|count| count > 0)
}

fn word(value: &str, words: &[&str], aliases: &[(&str, &str)]) -> Option<String> {
    let value = value.to_ascii_lowercase();
    let meant = aliases.iter().find(|(alias, _)| *alias == value).map(|(_, word)| *word);
    words.iter().find(|word| **word == meant.unwrap_or(&value)).map(|word| (*word).to_owned())
}

/// What a user wants said with every call.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// By names of [`PARAMETERS`].
    pub named: Vec<(&'static str, String)>,
    /// Fields of the body, as they are.
    pub fields: Vec<(String, Box<RawValue>)>,
    /// By names of [`PARAMETERS`]: what is said unless the others say something else.
    pub defaults: Vec<(&'static str, String)>,
    /// By names of [`PARAMETERS`]: what a dialect says where none of the others says anything. It gives way to
    /// what else is wanted: thinking's tokens come on top of its `max_tokens`, and where a model thinks with
    /// Messages its `temperature` is left out.
    pub usual: Vec<(&'static str, String)>,
}

impl Wanted {
    /// Wants a parameter, as [`PARAMETERS`] has it.
    ///
    /// # Errors
    /// When another value of it is wanted already.
    pub fn add(&mut self, name: &'static str, value: String) -> Result<(), BadParameter> {
        match self.named.iter().find(|(other, _)| *other == name) {
            Some((_, other)) if *other == value => {}
            Some(_) => return Err(BadParameter::Twice(name.to_owned())),
            None => self.named.push((name, value)),
        }
        Ok(())
    }
}

/// Why something cannot be said with a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadParameter {
    /// It is said twice.
    #[error("the parameter {0} is given twice")]
    Twice(String),
    /// rowmill says it itself.
    #[error("the parameter {name} cannot be set this way: {why}")]
    Reserved {
        /// The field.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// There is no such thing.
    #[error("{who} takes no {name} in the protocol {protocol}; it takes {takes}")]
    NotTaken {
        /// The provider.
        who: &'static str,
        /// The parameter.
        name: &'static str,
        /// The protocol.
        protocol: &'static str,
        /// What it takes.
        takes: String,
    },
    /// There is no such value.
    #[error("{who} takes no {name}={value} in the protocol {protocol}; it takes {takes}")]
    BadValue {
        /// The provider.
        who: &'static str,
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: String,
        /// The protocol.
        protocol: &'static str,
        /// What it takes.
        takes: String,
    },
    /// A text cannot be put into what is not an object.
    #[error("the parameter {0} is not an object, and something else belongs in it")]
    NoObject(String),
    /// All tokens would be spent on thinking.
    #[error(
        "max_tokens is {most}, and reasoning={budget} takes as many: allow more for the answer"
    )]
    Budget {
        /// The most tokens of an answer.
        most: u64,
        /// Of which so many for thinking.
        budget: u64,
    },
}

/// The most tokens of an answer where a protocol wants a number and none was given.
const MAX_TOKENS: u64 = 4096;

/// What is wanted, as fields of the body.
///
/// # Errors
/// When the protocol or the provider has no such thing, or it is said twice.
pub fn translate(
    provider: &Provider,
    protocol: Protocol,
    wanted: &Wanted,
) -> Result<Parameters, BadParameter> {
    let mut fields = Parameters::new();
    for (name, value) in &wanted.fields {
        let reserved = Api::reserved(protocol).iter().find(|(reserved, _)| reserved == name);
        if let Some((_, why)) = reserved {
            return Err(BadParameter::Reserved { name: name.clone(), why });
        }
        set(&mut fields, name, value.clone())?;
    }
    let taken = taken(provider, protocol);
    let is_taken = |name: &'static str| match taken.contains(&name) {
        true => Ok(()),
        false => {
            let takes = if taken.is_empty() { "none".to_owned() } else { taken.join(", ") };
            let (who, protocol) = (provider.shown(), protocol.name());
            Err(BadParameter::NotTaken { who, name, protocol, takes })
        }
    };
    let has =
        |said: &[(&'static str, String)], name: &str| said.iter().any(|(other, _)| *other == name);
    for (name, value) in &wanted.named {
        is_taken(name)?;
        say(&mut fields, provider, protocol, name, value)?;
    }
    let fill = |fields: &mut Parameters, name, value: &str| {
        is_taken(name)?;
        let mut alone = Parameters::new();
        say(&mut alone, provider, protocol, name, value)?;
        match wanted.fields.iter().any(|(field, _)| alone.contains_key(field)) {
            true => Ok(()),
            false => say(fields, provider, protocol, name, value),
        }
    };
    for (name, value) in &wanted.defaults {
        if !has(&wanted.named, name) {
            fill(&mut fields, name, value)?;
        }
    }
    for (name, value) in &wanted.usual {
        let is_said = has(&wanted.named, name) || has(&wanted.defaults, name);
        if let Some(value) = fitting(&fields, protocol, name, value).filter(|_| !is_said) {
            fill(&mut fields, name, &value)?;
        }
    }
    if protocol == Protocol::Messages {
        bound(&mut fields)?;
    }
    Ok(fields)
}

/// The parameters that a provider takes in a protocol.
fn taken(provider: &Provider, protocol: Protocol) -> Vec<&'static str> {
    let mut taken: Vec<&'static str> = match protocol {
        Protocol::Embeddings => vec!["dimensions"],
        Protocol::Responses => vec!["max_tokens", "reasoning", "temperature", "top_p", "verbosity"],
        Protocol::Messages => {
            vec!["max_tokens", "reasoning", "service_tier", "stop", "temperature", "top_k", "top_p"]
        }
        Protocol::Chat => vec!["max_tokens", "stop", "temperature", "top_p"],
    };
    match protocol {
        Protocol::Chat => taken.extend(provider.chat),
        Protocol::Responses if !provider.tiers.is_empty() => taken.push("service_tier"),
        _ => {}
    }
    if provider.searches.contains(&protocol) {
        taken.push("web_search");
    }
    taken.sort_unstable();
    taken
}

/// Puts a parameter into the body, in the words of its protocol.
fn say(
    fields: &mut Parameters,
    provider: &Provider,
    protocol: Protocol,
    name: &'static str,
    value: &str,
) -> Result<(), BadParameter> {
    let spelled = provider.spells.iter().find(|(known, _)| *known == name);
    let field = match (protocol, name) {
        (Protocol::Responses, "max_tokens") => "max_output_tokens",
        (Protocol::Messages, "stop") => "stop_sequences",
        (Protocol::Chat, _) => spelled.map_or(name, |(_, spelled)| spelled),
        _ => name,
    };
    if field != name && protocol == Protocol::Chat && fields.contains_key(name) {
        return Err(BadParameter::Twice(name.to_owned()));
    }
    match (protocol, name) {
        (_, "reasoning") => reasoning(fields, provider, protocol, value),
        (Protocol::Responses, "verbosity") => nest(fields, "text", name, &text(value)),
        (_, "verbosity") => set(fields, field, raw(&text(value))),
        (_, "service_tier") => {
            let tiers = match protocol {
                Protocol::Messages => &["auto", "standard_only"],
                _ => provider.tiers,
            };
            if !tiers.contains(&value) {
                return Err(no_value(provider, protocol, name, value, &tiers.join(", ")));
            }
            set(fields, field, raw(&text(value)))
        }
        (_, "web_search") if value == "off" => Ok(()),
        (_, "web_search") => search(fields, protocol),
        (Protocol::Messages, "stop") => set(fields, field, raw(&format!("[{}]", text(value)))),
        (_, "stop") => set(fields, field, raw(&text(value))),
        // Numbers, which were read as JSON.
        _ => set(fields, field, raw(value)),
    }
}

fn no_value(
    provider: &Provider,
    protocol: Protocol,
    name: &'static str,
    value: &str,
    takes: &str,
) -> BadParameter {
    let (who, protocol, value) = (provider.shown(), protocol.name(), value.to_owned());
    let takes = takes.to_owned();
    BadParameter::BadValue { who, name, value, protocol, takes }
}

/// Lets a model search the web before it answers; the search is the endpoint's.
/// <https://developers.openai.com/api/docs/guides/tools-web-search>,
/// <https://platform.claude.com/docs/en/agents-and-tools/tool-use/web-search-tool>
fn search(fields: &mut Parameters, protocol: Protocol) -> Result<(), BadParameter> {
    match protocol {
        Protocol::Responses => set(fields, "tools", raw(r#"[{"type":"web_search"}]"#)),
        Protocol::Messages => {
            let tool = r#"[{"type":"web_search_20250305","name":"web_search"}]"#;
            set(fields, "tools", raw(tool))
        }
        Protocol::Chat | Protocol::Embeddings => set(fields, "web_search_options", raw("{}")),
    }
}

/// How hard to think.
fn reasoning(
    fields: &mut Parameters,
    provider: &Provider,
    protocol: Protocol,
    value: &str,
) -> Result<(), BadParameter> {
    let budget = value.parse::<u64>().ok();
    let no = |takes| Err(no_value(provider, protocol, "reasoning", value, takes));
    let level = match value {
        "off" => "none",
        level => level,
    };
    let is_level = budget.is_none() && !matches!(level, "auto" | "on");
    const EFFORTS: &str = "none, minimal, low, medium, high, xhigh and max";
    match (protocol, provider.reasoning) {
        (Protocol::Messages, _) => thinking(fields, provider, level, budget),
        (Protocol::Responses, _) if is_level => nest(fields, "reasoning", "effort", &text(level)),
        (Protocol::Responses, _) => no(EFFORTS),
        (_, Reasoning::OpenRouter) => match (budget, level) {
            (Some(_), _) => nest(fields, "reasoning", "max_tokens", value),
            (_, "auto" | "on") => nest(fields, "reasoning", "enabled", "true"),
            _ => nest(fields, "reasoning", "effort", &text(level)),
        },
        (_, Reasoning::DeepSeek) => match (budget, level) {
            (Some(_), _) => no("on, off, low, medium, high, xhigh and max"),
            (_, "auto" | "on") => nest(fields, "thinking", "type", "\"enabled\""),
            (_, "none") => nest(fields, "thinking", "type", "\"disabled\""),
            _ => set(fields, "reasoning_effort", raw(&text(level))),
        },
        (_, Reasoning::Template) => match (budget, level) {
            (Some(_), _) => no("on, off, low, medium and high"),
            (_, "auto" | "on") => nest(fields, "chat_template_kwargs", "enable_thinking", "true"),
            (_, "none") => nest(fields, "chat_template_kwargs", "enable_thinking", "false"),
            _ => nest(fields, "chat_template_kwargs", "reasoning_effort", &text(level)),
        },
        (_, Reasoning::Effort) if is_level => set(fields, "reasoning_effort", raw(&text(level))),
        (_, Reasoning::Effort) => no(EFFORTS),
    }
}

/// Anthropic's way: tokens to think with, or an effort, with which a model decides by itself.
/// <https://platform.claude.com/docs/en/build-with-claude/effort>
fn thinking(
    fields: &mut Parameters,
    provider: &Provider,
    level: &str,
    budget: Option<u64>,
) -> Result<(), BadParameter> {
    match (budget, level) {
        (Some(budget), _) if budget >= 1024 => {
            nest(fields, "thinking", "type", "\"enabled\"")?;
            nest(fields, "thinking", "budget_tokens", &budget.to_string())
        }
        (None, "none") => nest(fields, "thinking", "type", "\"disabled\""),
        (None, "auto" | "on") => nest(fields, "thinking", "type", "\"adaptive\""),
        (None, "low" | "medium" | "high" | "xhigh" | "max") => {
            nest(fields, "thinking", "type", "\"adaptive\"")?;
            nest(fields, "output_config", "effort", &text(level))
        }
        _ => {
            let takes = "auto, off, low, medium, high, xhigh, max and 1024 tokens or more";
            let value = budget.map_or_else(|| level.to_owned(), |budget| budget.to_string());
            Err(no_value(provider, Protocol::Messages, "reasoning", &value, takes))
        }
    }
}

/// Messages wants the most tokens of an answer said; what is thought counts among them.
fn bound(fields: &mut Parameters) -> Result<(), BadParameter> {
    let budget = budget(fields);
    match fields.get("max_tokens").map(|most| most.get().parse::<u64>()) {
        None => {
            let most = budget.saturating_add(MAX_TOKENS);
            set(fields, "max_tokens", raw(&most.to_string()))
        }
        Some(Ok(most)) if most <= budget => Err(BadParameter::Budget { most, budget }),
        Some(_) => Ok(()),
    }
}

fn set(fields: &mut Parameters, name: &str, value: Box<RawValue>) -> Result<(), BadParameter> {
    match fields.insert(name.to_owned(), value) {
        None => Ok(()),
        Some(_) => Err(BadParameter::Twice(name.to_owned())),
    }
}

/// Puts a value into a field that is an object, beside what is there.
///
/// # Errors
/// When it is there already, or the field is no object.
pub(super) fn nest(
    fields: &mut Parameters,
    name: &str,
    key: &str,
    value: &str,
) -> Result<(), BadParameter> {
    let mut object: BTreeMap<String, Box<RawValue>> = match fields.get(name) {
        None => BTreeMap::new(),
        Some(field) => serde_json::from_str(field.get())
            .map_err(|_| BadParameter::NoObject(name.to_owned()))?,
    };
    if object.insert(key.to_owned(), raw(value)).is_some() {
        return Err(BadParameter::Twice(format!("{name}.{key}")));
    }
    let object = serde_json::value::to_raw_value(&object).unwrap_or_default();
    fields.insert(name.to_owned(), object);
    Ok(())
}

fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

/// A value that was checked, or made here.
fn raw(value: &str) -> Box<RawValue> {
    RawValue::from_string(value.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::ModelName;

    fn body(text: &str, protocol: Option<Protocol>, fields: &[(&str, &str)]) -> String {
        let name = ModelName::parse(text, false).unwrap();
        let provider = name.provider.unwrap_or(Provider::unnamed());
        let protocol = protocol.unwrap_or(provider.protocols[0]);
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), raw(value)));
        let fields = fields.collect();
        let wanted = Wanted { named: name.parameters, fields, ..Wanted::default() };
        match translate(provider, protocol, &wanted) {
            Ok(fields) => serde_json::to_string(&fields).unwrap(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn each_says_it_in_its_own_words() {
        for (text, expected) in [
            ("m?max_tokens=5&temp=0.20", r#"{"max_tokens":5,"temperature":0.20}"#),
            (
                "m?reasoning=low&top_k=4&stop=%0A",
                r#"{"reasoning_effort":"low","stop":"\n","top_k":4}"#,
            ),
            (
                "openai.m?max_tokens=5&service_tier=flex",
                r#"{"max_completion_tokens":5,"service_tier":"flex"}"#,
            ),
            (
                "openai.m?service_tier=fast&verbosity=med",
                r#"{"service_tier":"priority","verbosity":"medium"}"#,
            ),
            (
                "responses.m?max_tokens=5&reasoning=off&verbosity=low",
                r#"{"max_output_tokens":5,"reasoning":{"effort":"none"},"text":{"verbosity":"low"}}"#,
            ),
            ("anthropic.m", r#"{"max_tokens":4096}"#),
            (
                "anthropic.m?stop=END&top_k=3",
                r#"{"max_tokens":4096,"stop_sequences":["END"],"top_k":3}"#,
            ),
            (
                "anthropic.m?reasoning=high",
                r#"{"max_tokens":4096,"output_config":{"effort":"high"},"thinking":{"type":"adaptive"}}"#,
            ),
            (
                "anthropic.m?reasoning=2000",
                r#"{"max_tokens":6096,"thinking":{"budget_tokens":2000,"type":"enabled"}}"#,
            ),
            ("anthropic.m?reasoning=0", r#"{"max_tokens":4096,"thinking":{"type":"disabled"}}"#),
            ("mistral.m?seed=7", r#"{"random_seed":7}"#),
            ("deepseek.m?reasoning=none", r#"{"thinking":{"type":"disabled"}}"#),
            ("openrouter.a/b?reasoning=2000", r#"{"reasoning":{"max_tokens":2000}}"#),
            ("openrouter.a/b?reasoning=low", r#"{"reasoning":{"effort":"low"}}"#),
            (
                "llamacpp.m?repetition_penalty=1.1&reasoning=off",
                r#"{"chat_template_kwargs":{"enable_thinking":false},"repeat_penalty":1.1}"#,
            ),
        ] {
            assert_eq!(body(text, None, &[]), expected, "{text}");
        }
        let embeddings = body("openai.m?dimensions=8", Some(Protocol::Embeddings), &[]);
        assert_eq!(embeddings, r#"{"dimensions":8}"#);
    }

    #[test]
    fn what_a_provider_does_not_have_is_refused_with_what_it_has() {
        for (text, expected) in [
            (
                "anthropic.m?seed=7",
                "anthropic takes no seed in the protocol messages; it takes max_tokens, reasoning, service_tier, stop, temperature, top_k, top_p",
            ),
            ("openai.m?top_k=7", "openai takes no top_k"),
            ("responses.m?stop=x", "responses takes no stop"),
            ("anthropic.m?service_tier=flex", "anthropic takes no service_tier=flex"),
            ("anthropic.m?reasoning=minimal", "anthropic takes no reasoning=minimal"),
            ("anthropic.m?reasoning=100", "anthropic takes no reasoning=100"),
            ("mistral.m?service_tier=flex", "mistral takes no service_tier"),
            ("openai.m?reasoning=2000", "openai takes no reasoning=2000"),
            ("openai.m?dimensions=8", "openai takes no dimensions"),
            ("anthropic.m?reasoning=2000&max_tokens=2000", "max_tokens is 2000"),
        ] {
            let told = body(text, None, &[]);
            assert!(told.starts_with(expected), "{text}: {told}");
        }
        let told = body("openai.m?temp=0", Some(Protocol::Embeddings), &[]);
        assert!(told.contains("takes no temperature"), "{told}");
    }

    #[test]
    fn fields_of_the_body_go_along_and_not_across() {
        let told = |text, fields| body(text, None, fields);
        assert_eq!(told("m?seed=7", &[("x", "[1]")]), r#"{"seed":7,"x":[1]}"#);
        assert_eq!(told("m?seed=7", &[("seed", "7")]), "the parameter seed is given twice");
        assert_eq!(told("anthropic.m", &[("max_tokens", "9")]), r#"{"max_tokens":9}"#);
        assert_eq!(
            told("responses.m?verbosity=low", &[("text", "{\"format\":{}}")]),
            r#"{"text":{"format":{},"verbosity":"low"}}"#
        );
        assert!(told("responses.m?verbosity=low", &[("text", "7")]).contains("not an object"));
        for (text, field) in [
            ("m", "messages"),
            ("m", "stream"),
            ("responses.m", "input"),
            ("responses.m", "previous_response_id"),
            ("anthropic.m", "system"),
        ] {
            let told = body(text, None, &[(field, "1")]);
            assert!(told.contains("cannot be set this way"), "{text} {field}: {told}");
        }
    }

    #[test]
    fn what_a_dialect_usually_says_gives_way() {
        let usual = [("max_tokens", "2048"), ("temperature", "0.7")];
        let usual = usual.map(|(name, value)| (name, value.to_owned())).to_vec();
        for (text, defaults, expected) in [
            ("m", vec![], r#"{"max_tokens":2048,"temperature":0.7}"#),
            ("m?temperature=0", vec![("max_tokens", "5")], r#"{"max_tokens":5,"temperature":0}"#),
            (
                "anthropic.m?reasoning=2048",
                vec![],
                r#"{"max_tokens":4096,"thinking":{"budget_tokens":2048,"type":"enabled"}}"#,
            ),
            (
                "anthropic.m?reasoning=off",
                vec![],
                r#"{"max_tokens":2048,"temperature":0.7,"thinking":{"type":"disabled"}}"#,
            ),
            (
                "anthropic.m?reasoning=auto&temperature=1",
                vec![],
                r#"{"max_tokens":2048,"temperature":1,"thinking":{"type":"adaptive"}}"#,
            ),
            (
                "openrouter.m?reasoning=3000",
                vec![],
                r#"{"max_tokens":5048,"reasoning":{"max_tokens":3000},"temperature":0.7}"#,
            ),
            (
                "anthropic.m?reasoning=2048",
                vec![("max_tokens", "2048")],
                "max_tokens is 2048, and reasoning=2048 takes as many: allow more for the answer",
            ),
        ] {
            let name = ModelName::parse(text, false).unwrap();
            let provider = name.provider.unwrap_or(Provider::unnamed());
            let defaults = defaults.into_iter().map(|(name, value)| (name, value.to_owned()));
            let wanted = Wanted {
                named: name.parameters,
                defaults: defaults.collect(),
                usual: usual.clone(),
                ..Wanted::default()
            };
            let said = match translate(provider, provider.protocols[0], &wanted) {
                Ok(fields) => serde_json::to_string(&fields).unwrap(),
                Err(error) => error.to_string(),
            };
            assert_eq!(said, expected, "{text}");
        }
    }
}
