//! Every exchange of `fixtures/wire`: what is sent for a prompt, and what each reply means, whole
//! and cut at every byte.

use std::fs;
use std::path::Path;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use rowmill::input::{Attachments, Format, Source};
use rowmill::job::{Answer, Content, Failure, JobSpec, Transport};
use rowmill::provider::{Api, Model, Secret, Wording};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    #[serde(rename = "about")]
    _about: String,
    protocol: Value,
    transport: Transport,
    job: Value,
    prompt: String,
    #[serde(default)]
    attachments: Vec<String>,
    request: Option<Request>,
    reply: Reply,
    expect: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    path: String,
    headers: serde_json::Map<String, Value>,
    body: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    status: Option<u16>,
    #[serde(default)]
    headers: serde_json::Map<String, Value>,
    body: Option<Value>,
    text: Option<String>,
    events: Option<Vec<String>>,
    messages: Option<Vec<Value>>,
}

impl Exchange {
    fn job(&self) -> JobSpec {
        let mut job = json!({
            "prompt": "", "instruction": null, "parameters": {}, "id_field": null,
            "protocol": self.protocol, "on_duplicate": "error", "on_missing_field": "error",
            "selection": {"offset": 0, "limit": null, "sample": null},
            "max_row_bytes": 9, "include_input": false,
        });
        for (name, value) in self.job.as_object().unwrap() {
            job[name] = value.clone();
        }
        serde_json::from_str(&job.to_string()).unwrap()
    }

    fn api(&self) -> Api {
        Api::new(&self.job(), self.transport, Secret::new("sk-fixture")).unwrap()
    }

    /// What is attached, as the call has it.
    fn attached(&self, api: &Api) -> Vec<u8> {
        let job = JobSpec { attachment_field: Some("a".into()), ..self.job() };
        let source = Source {
            name: None,
            path: "in.jsonl".into(),
            format: Format::JsonLines,
            length: 0,
            data_offset: 0,
            data_line: 1,
            notes: Vec::new(),
        };
        let read = Attachments::of(&job, &source.into(), false)[0].read(&self.attachments).unwrap();
        api.attach(&read).unwrap()
    }

    fn check_request(&self, api: &Api) {
        let Some(request) = &self.request else { return };
        assert_eq!(api.path(), request.path);
        for (name, value) in &request.headers {
            assert_eq!(api.headers()[name].to_str().unwrap(), value, "{name}");
        }
        let is_messages = self.protocol == "messages";
        assert_eq!(api.headers().contains_key("authorization"), !is_messages);
        assert_eq!(api.headers().contains_key("x-api-key"), is_messages);
        let model = Model::Called(api.clone());
        let attached = self.attached(api);
        let wording = Wording { attached: &attached, ..Wording::default() };
        let body: Value = serde_json::from_slice(&model.encode(&self.prompt, wording)).unwrap();
        assert_eq!(body, request.body);
        // What all calls begin with is what an endpoint can cache.
        let (one, other) =
            (model.encode("a", Wording::default()), model.encode("b", Wording::default()));
        let same = one.iter().zip(&other[..]).take_while(|(a, b)| a == b).count();
        if let Some(instruction) = self.job["instruction"].as_str() {
            let before = String::from_utf8_lossy(&one[..same]);
            assert!(before.contains(instruction), "{before}");
        }
    }

    fn results(&self, api: &Api) -> Vec<Result<Answer, Failure>> {
        let reply = &self.reply;
        if let Some(messages) = &reply.messages {
            let mut stream = api.stream();
            for (index, message) in messages.iter().enumerate() {
                let is_over = stream.event(message.to_string().as_bytes());
                assert_eq!(is_over, index + 1 == messages.len(), "it ends with the last");
            }
            return vec![stream.finish(None)];
        }
        if let Some(events) = &reply.events {
            return self.streamed(api, events);
        }
        let body = reply.body.as_ref().map(Value::to_string);
        let body = body.or_else(|| reply.text.clone()).unwrap();
        let headers: HeaderMap = reply
            .headers
            .iter()
            .map(|(name, value)| {
                let name: HeaderName = name.parse().unwrap();
                (name, HeaderValue::from_str(value.as_str().unwrap()).unwrap())
            })
            .collect();
        let model = Model::Called(api.clone());
        vec![model.decode(reply.status.unwrap(), &headers, body.as_bytes(), 0)]
    }

    /// The events in every spelling of line ends, cut in two at every byte, and byte for byte.
    fn streamed(&self, api: &Api, events: &[String]) -> Vec<Result<Answer, Failure>> {
        let mut results = Vec::new();
        for end in ["\n", "\r\n", "\r"] {
            let text: String =
                events.iter().map(|event| format!("{event}\n\n").replace('\n', end)).collect();
            // The last line end of a lone CR is the event's end only once something follows, or
            // nothing does: both are tried.
            let text = text.as_bytes();
            for cut in 0..=text.len() {
                let mut stream = api.stream();
                let is_over = stream.feed(&text[..cut]);
                assert!(is_over <= stream.feed(&text[cut..]), "what is over stays over");
                results.push(stream.finish(self.reply.status));
            }
            let mut stream = api.stream();
            for byte in text {
                stream.feed(&[*byte]);
            }
            results.push(stream.finish(self.reply.status));
            // Some servers leave out the empty line behind the last event, or its line end as well.
            for left_out in 1..=2 {
                let mut stream = api.stream();
                stream.feed(&text[..text.len() - left_out * end.len()]);
                results.push(stream.finish(self.reply.status));
            }
            // An answer without its end is none, wherever it stops.
            if self.expect["class"].is_null() {
                let whole = text.len() - 2 * end.len();
                for cut in (0..whole).step_by(7) {
                    let mut stream = api.stream();
                    stream.feed(&text[..cut]);
                    match stream.finish(self.reply.status) {
                        // It said why it ended.
                        Ok(answer) => {
                            assert_eq!(self.protocol, "chat", "cut at {cut}");
                            assert_eq!(answer.content.as_str(), self.expect["text"]);
                            assert_eq!(json!(answer.finish_reason), self.expect["finish_reason"]);
                        }
                        Err(failure) => {
                            assert_eq!(failure.kind.class(), "broken_answer", "cut at {cut}");
                        }
                    }
                }
            }
        }
        results
    }

    fn check_result(&self, result: &Result<Answer, Failure>) {
        let told = match result {
            Ok(answer) => {
                let mut told = json!({});
                match &answer.content {
                    Content::Text(text) => told["text"] = json!(text),
                    Content::Json(value) => told["json"] = json!(value.get()),
                }
                told["finish_reason"] = json!(answer.finish_reason);
                told["model"] = json!(answer.model);
                told["usage"] = json!(answer.usage);
                told
            }
            Err(failure) => {
                assert!(!failure.message.contains("sk-fixture"), "{}", failure.message);
                let says = self.expect["says"].as_str().unwrap();
                assert!(failure.message.contains(says), "{}", failure.message);
                let retry_after = failure.retry_after.map(|wait| wait.as_millis());
                json!({
                    "class": failure.kind.class(), "status": failure.status, "says": says,
                    "retry_after_ms": retry_after,
                    "paid": failure.paid.as_ref().map(|paid| json!({
                        "model": paid.model, "finish_reason": paid.finish_reason,
                        "usage": paid.usage,
                    })),
                })
            }
        };
        for (name, value) in self.expect.as_object().unwrap() {
            assert_eq!(told[name], *value, "{name}");
        }
        assert_eq!(self.expect["class"].is_null(), result.is_ok());
        if result.is_err() {
            for name in ["status", "retry_after_ms"] {
                assert_eq!(told[name], self.expect[name], "{name}");
            }
        }
    }
}

fn check(protocol: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/wire").join(protocol);
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|it| it.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 5);
    for file in files {
        // A failing test prints the last of them.
        eprintln!("{}", file.display());
        let exchange: Exchange = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(exchange.protocol, protocol);
        let api = exchange.api();
        exchange.check_request(&api);
        for result in exchange.results(&api) {
            exchange.check_result(&result);
        }
    }
}

#[test]
fn chat_is_spoken_as_openai_documents_it() {
    check("chat");
}

#[test]
fn responses_are_spoken_as_openai_documents_them() {
    check("responses");
}

#[test]
fn messages_are_spoken_as_anthropic_documents_them() {
    check("messages");
}

#[test]
fn embeddings_are_spoken_as_openai_documents_them() {
    check("embeddings");
}
