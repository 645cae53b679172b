//! Lines that are requests themselves: what they ask is what they say, byte for byte.

use serde_json::Value;

use super::Prompt;
use super::extent::{self, Extent};
use crate::dialect::rules::ROWMILL;
use crate::dialect::{Body, Dialect, Problem, dria, openai, prompts, shown};
use crate::format::json::Object;
use crate::job::{Endpoint, Failure, FailureKind, JobSpec, Kinds, Modality, OWN_MODEL};

/// What of a request is not its body, which is the text of its [`Prompt`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Where it goes: `/v1/chat/completions`.
    pub url: String,
    /// What that names.
    pub endpoint: Endpoint,
    /// The model that its body names.
    pub model: Option<String>,
    /// What that stands for, where it is another.
    pub stands_for: Option<String>,
    /// The service tier that its body asks for.
    pub tier: Option<String>,
    /// The most tokens of all its answers together, where its body bounds them; 0 where none are written.
    pub most_tokens: Option<u64>,
    /// How many answers it asks for: to each of its prompts as many as `n` or `best_of` says.
    pub answers: u64,
    /// Whether its answer is the same each time: embeddings, and a temperature of 0.
    pub is_settled: bool,
    /// The bytes of its body without what of it is a file: a data URI, or base64 in a part for it.
    pub words: usize,
    /// The images, sound and documents in its body, or named by it.
    pub files: u64,
    /// The tokens that those are guessed to have.
    pub file_tokens: u64,
    /// Where its file is, of sound: an http(s) URL or a data URI.
    pub file: Option<String>,
}

/// What a line asks that is a request; nothing in a job whose lines are none.
pub(super) fn of(row: &Object<'_>, job: &JobSpec) -> Option<Result<Prompt, Failure>> {
    let read = match job.dialect {
        Dialect::Rows => return None,
        Dialect::Prompts => match prompts::Request::of(row) {
            Ok(_) => return None,
            Err(problem) => Err(problem),
        },
        Dialect::OpenAi => of_openai(row, job),
        Dialect::Dria => of_dria(row, job),
    };
    Some(read.map_err(|problem| Failure::new(FailureKind::InvalidRequest, problem.to_string())))
}

fn of_openai(row: &Object<'_>, job: &JobSpec) -> Result<Prompt, Problem> {
    let line = openai::Request::of(row)?;
    line.check(&ROWMILL, job.model != OWN_MODEL)?;
    let url = line.url();
    let Some(endpoint) = line.endpoint() else {
        let (url, server, known) = (shown(&url), ROWMILL.title, ROWMILL.urls());
        return Err(Problem::UnknownUrl { url, server, known });
    };
    Ok(of_body(line.body(), (endpoint.url_of(&url), endpoint), job))
}

fn of_dria(row: &Object<'_>, job: &JobSpec) -> Result<Prompt, Problem> {
    let line = dria::Request::of(row, job.model != OWN_MODEL)?;
    if line.body().is_stream() {
        return Err(Problem::Stream(ROWMILL.title));
    }
    let endpoint = Endpoint::ChatCompletions;
    Ok(of_body(line.body(), (endpoint.url().to_owned(), endpoint), job))
}

/// What a body asks of an endpoint.
fn of_body(body: &Body<'_>, (url, endpoint): (String, Endpoint), job: &JobSpec) -> Prompt {
    let parameter = |name: &'static str| body.parameter(name);
    let (answers, extent) = (answers(endpoint, &parameter), Extent::of(body.spelled()));
    let model = body.model();
    let request = Request {
        url,
        endpoint,
        stands_for: stands_for(model.as_deref(), job),
        model: model.map(Into::into),
        tier: body.text("service_tier").map(Into::into),
        most_tokens: most_tokens(endpoint, answers, &parameter),
        answers,
        is_settled: is_settled(endpoint, body.parameter("temperature")),
        words: extent.words,
        files: extent.files,
        file_tokens: extent.file_tokens(),
        file: body.text("file_url").filter(|_| endpoint.takes_sound()).map(Into::into),
    };
    let text = body.spelled().to_owned();
    Prompt { text, attachments: Vec::new(), request: Some(Box::new(request)) }
}

/// What a model's name stands for, where lines name their models.
fn stands_for(model: Option<&str>, job: &JobSpec) -> Option<String> {
    let model = model.filter(|_| job.model == OWN_MODEL)?;
    job.stands_for(model).map(str::to_owned)
}

/// How many answers a body asks for; what is no text is one.
fn answers<'a>(endpoint: Endpoint, parameter: &dyn Fn(&'static str) -> Option<&'a str>) -> u64 {
    if endpoint.writes_text() { extent::answers(parameter) } else { 1 }
}

/// The most tokens of so many answers, in the words of all protocols.
fn most_tokens<'a>(
    endpoint: Endpoint,
    answers: u64,
    parameter: &dyn Fn(&'static str) -> Option<&'a str>,
) -> Option<u64> {
    if matches!(endpoint, Endpoint::Embeddings | Endpoint::Score | Endpoint::Rerank) {
        return Some(0);
    }
    let names = ["max_completion_tokens", "max_tokens", "max_output_tokens"];
    let each = names.into_iter().find_map(|name| extent::count(parameter(name)?))?;
    Some(each.saturating_mul(answers))
}

fn is_settled(endpoint: Endpoint, temperature: Option<&str>) -> bool {
    let temperature = temperature.and_then(|it| it.parse::<f64>().ok());
    endpoint == Endpoint::Embeddings || temperature == Some(0.0)
}

impl Request {
    /// The words that a body puts before a model, one text after the other, and how many tokens it has as numbers:
    /// for an estimate. Names of models and roles, addresses and data are none of them.
    #[must_use]
    pub fn texts(body: &str) -> (String, u64) {
        let (mut text, mut numbers) = (String::with_capacity(body.len()), 0);
        if let Ok(Value::Object(body)) = serde_json::from_str::<Value>(body) {
            for (name, value) in &body {
                if READ.contains(&name.as_str()) {
                    collect(value, &mut text, &mut numbers);
                }
            }
        }
        (text, numbers)
    }
}

/// What a model must take in to answer a request, as the parts of its messages say: of a line, as its text is. Of one that
/// cannot be sent that is told later.
#[must_use]
pub fn kinds_of(row: &Object<'_>) -> Kinds {
    let body = row.get("body").and_then(|body| serde_json::from_str::<Value>(body).ok());
    let mut kinds = Kinds::NONE;
    for name in ["messages", "input"] {
        let said = body.as_ref().and_then(|body| body.get(name));
        said.into_iter().for_each(|it| add_kinds(it, &mut kinds));
    }
    if kinds.is_empty() { Kinds::TEXT } else { kinds }
}

fn add_kinds(value: &Value, kinds: &mut Kinds) {
    match value {
        Value::Array(members) => members.iter().for_each(|it| add_kinds(it, kinds)),
        Value::Object(part) => {
            let modality = match part.get("type").and_then(Value::as_str) {
                Some("image_url" | "input_image" | "image") => Some(Modality::Image),
                Some("input_audio") => Some(Modality::Audio),
                Some("file" | "input_file" | "document") => Some(Modality::Document),
                _ => None,
            };
            *kinds = modality.map_or(*kinds, |modality| kinds.with(modality));
            part.get("content").into_iter().for_each(|it| add_kinds(it, kinds));
        }
        _ => {}
    }
}

/// The fields of bodies that models read.
const READ: [&str; 15] = [
    "messages",
    "prompt",
    "suffix",
    "input",
    "instructions",
    "system",
    "tools",
    "query",
    "queries",
    "documents",
    "items",
    "text_1",
    "text_2",
    "data_1",
    "data_2",
];
/// Fields within them that are no words.
const UNREAD: [&str; 10] = [
    "role",
    "type",
    "id",
    "call_id",
    "tool_call_id",
    "url",
    "image_url",
    "file_data",
    "data",
    "media_type",
];

fn collect(value: &Value, text: &mut String, numbers: &mut u64) {
    match value {
        Value::String(words) if words.starts_with("data:") => {}
        Value::String(words) => {
            text.push_str(words);
            text.push('\n');
        }
        Value::Number(_) => *numbers += 1,
        Value::Array(members) => members.iter().for_each(|it| collect(it, text, numbers)),
        Value::Object(fields) => {
            let read = fields.iter().filter(|(name, _)| !UNREAD.contains(&name.as_str()));
            read.for_each(|(_, it)| collect(it, text, numbers));
        }
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::NamedModel;
    use crate::prompt::Template;

    fn job(dialect: &str, model: &str) -> JobSpec {
        let job = format!(
            r#"{{"dialect":"{dialect}","model":"{model}","prompt":"{{{{prompt}}}}","instruction":null,
                "parameters":{{}},"id_field":null,"on_duplicate":"error","max_row_bytes":9,
                "selection":{{"offset":0,"limit":null,"sample":null}},
                "on_missing_field":"row-error","include_input":false}}"#
        );
        serde_json::from_str(&job).unwrap()
    }

    fn ask(line: &str, job: &JobSpec) -> Result<Prompt, String> {
        let row = Object::parse(line).unwrap();
        Template::parse(&job.prompt).ask(&row, job).map_err(|failure| failure.message)
    }

    const LINE: &str = r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m", "temperature":0.0,"max_tokens":7,"messages":[{"role":"user","content":"caf\u00e9"}]}}"#;

    #[test]
    fn what_a_request_asks_is_its_body_and_its_url() {
        let asked = ask(LINE, &job("openai", OWN_MODEL)).unwrap();
        let base = std::path::Path::new("");
        assert!(
            asked.text.starts_with("{\"model\":\"m\", \"temp") && asked.text.contains("\\u00e9")
        );
        let request = asked.request.clone().unwrap();
        assert_eq!((request.most_tokens, request.is_settled), (Some(7), true));
        assert_eq!(request.model.as_deref(), Some("m"));
        assert_eq!(Request::texts(&asked.text), ("café\n".to_owned(), 0));
        // Another url, or a blank more, is another request.
        let others = [
            LINE.replace("/v1/chat/completions", "/v1/messages"),
            LINE.replace("\"m\", ", "\"m\",  "),
        ];
        let mut job = job("openai", OWN_MODEL);
        job.names = vec![NamedModel { name: "m".into(), model: "other".into() }];
        let named = ask(LINE, &job).unwrap();
        assert_eq!(named.text, asked.text, "the body is changed when it is sent");
        assert_ne!(
            (named.hash(), named.request_hash(base)),
            (asked.hash(), asked.request_hash(base))
        );
        job.names[0].name = "n".into();
        assert_eq!(ask(LINE, &job).unwrap().hash(), asked.hash(), "nothing is said of it");
        for other in others {
            let job = self::job;
            let other = ask(&other, &job("openai", OWN_MODEL)).unwrap();
            assert_ne!(other.request_hash(base), asked.request_hash(base));
            assert_ne!(other.hash(), asked.hash());
        }
    }

    #[test]
    fn parts_of_messages_say_what_a_model_must_take_in() {
        let kinds = |body: &str| {
            let line = format!("{{\"body\":{body}}}");
            kinds_of(&Object::parse(&line).unwrap()).to_string()
        };
        let part = |part: &str| {
            kinds(&format!(r#"{{"messages":[{{"role":"user","content":[{part}]}}]}}"#))
        };
        assert_eq!(kinds(r#"{"messages":[{"role":"user","content":"an image_url"}]}"#), "text");
        assert_eq!(part(r#"{"type":"text","text":"x"},{"type":"image_url"}"#), "image");
        assert_eq!(part(r#"{"type":"input_audio"},{"type":"document"}"#), "document, audio");
        assert_eq!(kinds(r#"{"input":[{"content":[{"type":"input_file"}]}]}"#), "document");
        assert_eq!((kinds("7"), kinds(r#"{"input":"x"}"#)), ("text".into(), "text".into()));
    }

    #[test]
    fn what_cannot_be_sent_is_told() {
        let told = |from: &str, to: &str, model: &str| {
            ask(&LINE.replace(from, to), &job("openai", model))
                .map_or_else(|it| it, |_| "fine".into())
        };
        assert_eq!(told("\"model\"", "\"x\"", OWN_MODEL), "body.model is missing");
        assert_eq!(told("\"model\"", "\"x\"", "m"), "fine");
        assert_eq!(told("POST", "GET", "m"), "method is \"GET\", not \"POST\"");
        let sound = "/v1/audio/transcriptions";
        assert_eq!(told("/v1/chat/completions", sound, "m"), "body.file_url is missing");
        let with = |file: &str| {
            told(
                "chat/completions\",\"body\":{",
                &format!("audio/translations\",\"body\":{{{file},"),
                "m",
            )
        };
        assert_eq!(with(r#""file_url":"data:audio/wav;base64,AA""#), "fine");
        assert_eq!(
            with(r#""file_url":"a.wav""#),
            "body.file_url is \"a.wav\", not an http(s) URL or a data URI"
        );
        assert_eq!(
            with(r#""file":"x","file_url":"http://h/a""#),
            "body.file is there, not taken: body.file_url names the file"
        );
        let dria = r#"{"custom_id":"a","type":"completions","version":"v1","body":{"model":"m","stream":true,"messages":[1]}}"#;
        assert!(ask(dria, &job("dria", OWN_MODEL)).unwrap_err().contains("body.stream is true"));
        let prompts = job("prompts", "m");
        assert_eq!(ask(r#"{"prompt":""}"#, &prompts), Err("prompt is empty".to_owned()));
        assert_eq!(ask(r#"{"prompt":"x","id":1}"#, &prompts).unwrap().text, "x");
    }
}
