//! The calls of one job: what is the same in all of them, prepared once.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::attached::{NotTaken, attach, content};
use super::passed::{self, FormFile, Passed};
use super::stream::{Step, Stream};
use super::structure::{Untellable, begin_user_message, complain, converse, in_prompt, natively};
use super::{Access, Wording, chat, embeddings, limits, messages, reply, responses};
use crate::format::json;
use crate::http::USER_AGENT;
use crate::job::{
    Answer, Attachment, Endpoint, Failure, FailureKind, JobSpec, Protocol, Transport,
};
use crate::policy::{retry_after, wait_in_text};

/// The calls of one job: all of a body but the prompt is the same, and so are the headers.
#[derive(Debug, Clone)]
pub struct Api {
    protocol: Protocol,
    transport: Transport,
    bodies: Bodies,
    most_tokens: Option<u64>,
    access: Arc<Access>,
    headers: HeaderMap,
}

/// How the bodies of calls come about.
#[derive(Debug, Clone)]
enum Bodies {
    /// They are framed here; the schema is seldom there, and large.
    Framed(Frame, Option<Box<Told>>),
    /// Rows are requests, which are passed on.
    Passed(Box<Passed>),
}

/// What of a body stands before the prompt's JSON string, and what behind it.
#[derive(Debug, Clone, Default)]
pub(super) struct Frame {
    pub(super) before: Vec<u8>,
    pub(super) behind: Vec<u8>,
}

/// The schema of the answers, for calls that are not the plain ones.
#[derive(Debug, Clone)]
struct Told {
    schema: String,
    /// With the schema in the instruction.
    in_prompt: Frame,
}

/// Body fields that rowmill sets itself, and why a user may not.
pub(super) type Reserved = &'static [(&'static str, &'static str)];

/// A key that cannot stand in a header.
#[derive(Debug, thiserror::Error)]
#[error("the API key holds characters that no HTTP header may hold")]
pub struct BadKey;

/// Why the calls of a job cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum NotPrepared {
    /// The key cannot be sent.
    #[error(transparent)]
    Key(#[from] BadKey),
    /// The schema cannot be sent.
    #[error(transparent)]
    Schema(#[from] Untellable),
}

impl Frame {
    /// The frame of a job's calls.
    fn of_calls(job: &JobSpec, transport: Transport) -> Self {
        let streams = transport == Transport::Sse;
        let mut frame = match job.protocol {
            Protocol::Chat => chat::frame(job, streams),
            Protocol::Responses => responses::frame(job, streams),
            Protocol::Messages => messages::frame(job, streams),
            Protocol::Embeddings => embeddings::frame(job),
        };
        if transport == Transport::Ws {
            frame.before.splice(..1, *b"{\"type\":\"response.create\",");
        }
        frame
    }

    /// A body that begins with the model.
    pub(super) fn of(job: &JobSpec) -> Self {
        let mut before = b"{\"model\":".to_vec();
        json::write_string(&mut before, &job.model);
        Self { before, behind: Vec::new() }
    }

    /// Ends the body with the job's parameters and what else is to be sent.
    pub(super) fn end(mut self, job: &JobSpec, more: &str) -> Self {
        for (name, value) in &job.parameters {
            self.behind.push(b',');
            json::write_string(&mut self.behind, name);
            self.behind.push(b':');
            self.behind.extend_from_slice(value.get().as_bytes());
        }
        self.behind.extend_from_slice(more.as_bytes());
        self.behind.push(b'}');
        self
    }
}

impl Api {
    /// Prepares the calls of a job.
    ///
    /// # Errors
    /// When the key or the schema cannot be sent.
    pub fn new(
        job: &JobSpec,
        transport: Transport,
        access: impl Into<Access>,
    ) -> Result<Self, NotPrepared> {
        let access = access.into();
        if let Some(passed) = Passed::of(job, &access)? {
            // What answers are made of is said line by line, and so is whose key a call has.
            let mut headers = headers(Protocol::Chat, Transport::Http);
            access.add_headers(&mut headers)?;
            let (protocol, transport) = (Protocol::Chat, Transport::Http);
            let bodies = Bodies::Passed(Box::new(passed));
            return Ok(Self {
                protocol,
                transport,
                bodies,
                most_tokens: None,
                access: Arc::new(access),
                headers,
            });
        }
        let (frame, told) = match &job.schema {
            None => (Frame::of_calls(job, transport), None),
            Some(schema) => {
                let in_prompt = Frame::of_calls(&in_prompt(job, schema), transport);
                let frame = Frame::of_calls(&natively(job, schema)?, transport);
                (frame, Some(Box::new(Told { schema: schema.clone(), in_prompt })))
            }
        };
        let headers = headers_with(job.protocol, transport, &access)?;
        let bounds = ["max_completion_tokens", "max_tokens", "max_output_tokens"];
        let bound = bounds.iter().find_map(|name| job.parameters.get(*name));
        let most_tokens = bound.and_then(|bound| bound.get().parse().ok());
        let (bodies, access) = (Bodies::Framed(frame, told), Arc::new(access));
        Ok(Self { protocol: job.protocol, transport, bodies, most_tokens, access, headers })
    }

    /// The most tokens of an answer, where the job bounds them.
    #[must_use]
    pub fn most_tokens(&self) -> Option<u64> {
        self.most_tokens
    }

    /// The body fields of a protocol that no parameter may set, and why.
    #[must_use]
    pub fn reserved(protocol: Protocol) -> &'static [(&'static str, &'static str)] {
        match protocol {
            Protocol::Chat => chat::RESERVED,
            Protocol::Responses => responses::RESERVED,
            Protocol::Messages => messages::RESERVED,
            Protocol::Embeddings => embeddings::RESERVED,
        }
    }

    /// What is attached to a prompt as its call has it, for [`Wording::attached`].
    ///
    /// # Errors
    /// When the protocol does not take one of them.
    pub fn attach(&self, attachments: &[Attachment]) -> Result<Vec<u8>, NotTaken> {
        attach(self.protocol, attachments)
    }

    /// How its calls travel.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The path of its calls behind the base URL.
    #[must_use]
    pub fn path(&self) -> &'static str {
        match self.protocol {
            Protocol::Chat => "/chat/completions",
            Protocol::Responses => "/responses",
            Protocol::Messages => "/messages",
            Protocol::Embeddings => "/embeddings",
        }
    }

    /// The headers of every call.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(super) fn encode(&self, prompt: &str, wording: Wording<'_>) -> Bytes {
        let (frame, told) = match &self.bodies {
            Bodies::Framed(frame, told) => (frame, told.as_deref()),
            Bodies::Passed(passed) => return passed.encode(prompt),
        };
        let in_prompt = told.filter(|_| wording.in_prompt).map(|told| &told.in_prompt);
        let Frame { before, behind } = in_prompt.unwrap_or(frame);
        let attached = wording.attached;
        let size = before.len() + prompt.len() + prompt.len() / 8 + behind.len() + 2;
        let size = if attached.is_empty() { size } else { size + attached.len() + 128 };
        let mut body = Vec::with_capacity(size);
        body.extend_from_slice(before);
        match (wording.correction, told) {
            (Some(correction), Some(told)) => {
                let complaint = complain(correction, wording.in_prompt, &told.schema);
                let said = (prompt, attached);
                converse(&mut body, self.protocol, said, correction, &complaint);
            }
            _ if self.protocol == Protocol::Responses && !attached.is_empty() => {
                begin_user_message(&mut body);
                content(&mut body, self.protocol, prompt, attached);
                body.extend_from_slice(b"}]");
            }
            _ => content(&mut body, self.protocol, prompt, attached),
        }
        body.extend_from_slice(behind);
        Bytes::from(body)
    }

    /// A request that is passed on as a form with a file in it, and the type of that; nothing where
    /// bodies are framed here.
    #[must_use]
    pub fn form(&self, body: &str, file: FormFile<'_>) -> Option<(HeaderValue, Bytes)> {
        match &self.bodies {
            Bodies::Framed(..) => None,
            Bodies::Passed(passed) => Some(passed.form(body, file)),
        }
    }

    /// The headers of a request that is passed on to an endpoint, besides those of every call.
    #[must_use]
    pub fn headers_of(&self, endpoint: Endpoint) -> HeaderMap {
        let Bodies::Passed(passed) = &self.bodies else { return HeaderMap::new() };
        let mut headers = passed.headers(endpoint).clone();
        let protocol = passed::protocol_of(endpoint);
        if self.access.version() > 0
            && let Ok(Some((name, value))) = self.access.key_header(protocol)
        {
            headers.insert(name, value);
        }
        headers
    }

    /// What lets its calls in.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The header that has the key, where that is another by now than in [`Api::headers`].
    #[must_use]
    pub fn renewed_header(&self) -> Option<(HeaderName, HeaderValue)> {
        if self.access.version() == 0 {
            return None;
        }
        self.access.key_header(self.protocol).ok().flatten()
    }

    /// The name that the endpoint gave a request, as the head of its reply has it.
    #[must_use]
    pub fn request_id(&self, headers: &HeaderMap) -> Option<String> {
        limits::request_id(headers).map(|id| self.access.mask().text(id))
    }

    /// What a whole reply says; see [`super::Model::decode_of`].
    ///
    /// # Errors
    /// What the endpoint, or its answer, failed with.
    pub fn decode(
        &self,
        endpoint: Endpoint,
        status: u16,
        headers: &HeaderMap,
        body: &[u8],
        now_ms: u64,
    ) -> Result<Answer, Failure> {
        let result = match (&self.bodies, status) {
            (Bodies::Passed(passed), 200..=299) => passed.answer(endpoint, body),
            (Bodies::Passed(passed), _) => Err(passed.refused(status, headers, body)),
            (Bodies::Framed(..), 200..=299) => match self.protocol {
                Protocol::Chat => chat::answer(body),
                Protocol::Responses => responses::answer(body),
                Protocol::Messages => messages::answer(body),
                Protocol::Embeddings => embeddings::answer(body),
            },
            (Bodies::Framed(..), _) => Err(reply::refused(status, headers, body)),
        };
        self.masked(result.map_err(|mut failure| {
            failure.status = Some(status);
            let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
            let (ms, after) = (text("retry-after-ms"), text("retry-after"));
            failure.retry_after = retry_after(ms, after, text("date"), now_ms);
            if matches!(failure.kind, FailureKind::RateLimit | FailureKind::Server) {
                let in_text = || wait_in_text(&failure.message);
                failure.retry_after = failure.retry_after.or_else(in_text);
            }
            failure
        }))
    }

    /// A reader of the events of one answer.
    #[must_use]
    pub fn stream(&self) -> Stream<'_> {
        Stream::new(self)
    }

    /// What an event adds to an answer.
    pub(super) fn event(&self, said: &mut reply::Said, data: &[u8]) -> Result<Step, Failure> {
        match self.protocol {
            Protocol::Chat => chat::event(said, data),
            Protocol::Responses => responses::event(said, data),
            Protocol::Messages => messages::event(said, data),
            // It is not streamed by anyone.
            Protocol::Embeddings => Err(reply::bad("embeddings came as a stream of events")),
        }
    }

    /// What the endpoint said, as it may be kept and shown. Whatever is said comes this way.
    pub(super) fn masked(&self, result: Result<Answer, Failure>) -> Result<Answer, Failure> {
        let is_whole_body = matches!(&self.bodies, Bodies::Passed(passed) if passed.is_whole());
        match result {
            Ok(answer) => {
                self.access.note_answer();
                Ok(self.access.mask().answer(answer, is_whole_body))
            }
            Err(failure) => Err(reply::clean(failure, self.access.mask())),
        }
    }
}

/// The headers of calls in a protocol, with those that let them in.
pub(super) fn headers_with(
    protocol: Protocol,
    transport: Transport,
    access: &Access,
) -> Result<HeaderMap, BadKey> {
    let mut headers = headers(protocol, transport);
    headers.extend(access.key_header(protocol)?);
    access.add_headers(&mut headers)?;
    Ok(headers)
}

/// The headers of calls in a protocol.
fn headers(protocol: Protocol, transport: Transport) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let accept = match transport {
        Transport::Sse => "text/event-stream",
        Transport::Http | Transport::Ws => "application/json",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    // Without it any coding would do (RFC 9110, section 12.5.3).
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if protocol == Protocol::Messages {
        let version = HeaderValue::from_static(messages::VERSION);
        headers.insert(HeaderName::from_static("anthropic-version"), version);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(protocol: &str, transport: Transport) -> Api {
        let job = format!(
            r#"{{"model":"m","protocol":"{protocol}","prompt":"","instruction":null,
                "parameters":{{}},"id_field":null,"on_duplicate":"error","max_row_bytes":9,
                "selection":{{"offset":0,"limit":null,"sample":null}},
                "on_missing_field":"error","include_input":false}}"#
        );
        Api::new(&serde_json::from_str(&job).unwrap(), transport, Access::default()).unwrap()
    }

    /// The tokens that went in and came out, where a whole reply with such counts tells them.
    fn whole(protocol: &str, counts: &str) -> Option<(u64, u64)> {
        let answer = match protocol {
            "chat" => r#""choices":[{"message":{"content":"x"}}]"#,
            "responses" => r#""output":[{"type":"message","content":[{"text":"x"}]}]"#,
            "messages" => r#""content":[{"type":"text","text":"x"}]"#,
            _ => r#""data":[{"embedding":[1]}]"#,
        };
        let body = format!(r#"{{{answer},"usage":{counts}}}"#);
        let api = api(protocol, Transport::Http);
        let answer = api
            .decode(Endpoint::ChatCompletions, 200, &HeaderMap::new(), body.as_bytes(), 0)
            .unwrap();
        answer.usage.map(|usage| (usage.input_tokens, usage.output_tokens))
    }

    /// The same of an answer in events.
    fn streamed(protocol: &str, events: &[&str]) -> Option<(u64, u64)> {
        let api = api(protocol, Transport::Sse);
        let mut stream = api.stream();
        events.iter().for_each(|event| {
            stream.event(event.as_bytes());
        });
        let usage = stream.finish(Some(200)).unwrap().usage;
        usage.map(|usage| (usage.input_tokens, usage.output_tokens))
    }

    #[test]
    fn counts_that_are_not_all_there_are_no_usage() {
        const NONE: [&str; 5] = ["null", "{}", "[1,2]", "7", r#"{"total_tokens":500}"#];
        for protocol in ["chat", "responses", "messages"] {
            for counts in NONE {
                assert_eq!(whole(protocol, counts), None, "{protocol} {counts}");
            }
            let (input, output) = match protocol {
                "chat" => ("prompt_tokens", "completion_tokens"),
                _ => ("input_tokens", "output_tokens"),
            };
            for (counts, told) in [
                (format!(r#"{{"{input}":null,"{output}":null}}"#), None),
                (format!(r#"{{"{output}":5}}"#), None),
                (format!(r#"{{"{input}":10}}"#), None),
                (format!(r#"{{"{input}":10,"total_tokens":9}}"#), None),
                (format!(r#"{{"{input}":10,"{output}":0}}"#), Some((10, 0))),
                (format!(r#"{{"{input}":10,"{output}":4}}"#), Some((10, 4))),
            ] {
                assert_eq!(whole(protocol, &counts), told, "{protocol} {counts}");
            }
        }
        for (protocol, input) in [("chat", "prompt_tokens"), ("responses", "input_tokens")] {
            let counts = format!(r#"{{"{input}":10,"total_tokens":14}}"#);
            assert_eq!(whole(protocol, &counts), Some((10, 4)), "{protocol}");
        }
        // An embedding has no tokens of an answer: the total is the prompt.
        for (counts, told) in [
            ("{}", None),
            ("[1,2]", None),
            (r#"{"prompt_tokens":null}"#, None),
            (r#"{"prompt_tokens":10}"#, Some((10, 0))),
            (r#"{"total_tokens":500}"#, Some((500, 0))),
        ] {
            assert_eq!(whole("embeddings", counts), told, "{counts}");
        }
    }

    #[test]
    fn a_stream_has_usage_only_where_it_was_counted_to_the_end() {
        let chat = |counts: &str| {
            let last = format!(r#"{{"choices":[],"usage":{counts}}}"#);
            streamed("chat", &[r#"{"choices":[{"delta":{"content":"x"}}]}"#, &last, "[DONE]"])
        };
        assert_eq!(chat("{}"), None);
        assert_eq!(chat(r#"{"prompt_tokens":10}"#), None);
        assert_eq!(chat(r#"{"prompt_tokens":10,"completion_tokens":4}"#), Some((10, 4)));
        let response = |counts: &str| {
            let output = r#"[{"type":"message","content":[{"text":"x"}]}]"#;
            let response = format!(r#"{{"output":{output},"usage":{counts}}}"#);
            let last = format!(r#"{{"type":"response.completed","response":{response}}}"#);
            streamed("responses", &[&last])
        };
        assert_eq!(response("{}"), None);
        assert_eq!(response(r#"{"input_tokens":10,"output_tokens":4}"#), Some((10, 4)));
        let message = |begin: &str, end: &str| {
            let begin = format!(r#"{{"type":"message_start","message":{{"usage":{begin}}}}}"#);
            let text = r#"{"type":"content_block_delta","delta":{"text":"x"}}"#;
            let end = format!(r#"{{"type":"message_delta","usage":{end}}}"#);
            streamed("messages", &[&begin, text, &end, r#"{"type":"message_stop"}"#])
        };
        let begun = r#"{"input_tokens":10,"output_tokens":1}"#;
        let nothing = r#"{"input_tokens":0,"output_tokens":0}"#;
        let whole = r#"{"input_tokens":12,"output_tokens":4}"#;
        assert_eq!(message(begun, "null"), None, "the answer was never counted");
        assert_eq!(message(begun, "{}"), None);
        assert_eq!(message("null", r#"{"output_tokens":4}"#), None, "the prompt never was");
        assert_eq!(message(nothing, r#"{"output_tokens":4}"#), None);
        assert_eq!(message(begun, r#"{"output_tokens":4}"#), Some((10, 4)));
        assert_eq!(message("null", whole), Some((12, 4)));
        assert_eq!(message(nothing, whole), Some((12, 4)));
    }
}
