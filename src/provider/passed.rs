//! Requests that are passed on as they are: somebody else framed their bodies, for whichever endpoint. Only the model may be
//! put in another's place. Their answers are whole bodies, of which is read what telemetry and prices need.
//!
//! vLLM's `rerank` and `score` have `usage` as its sources have it; audio as
//! <https://platform.openai.com/docs/api-reference/audio> does.

use std::borrow::Cow;
use std::io::Write;

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;

use super::api::BadKey;
use super::reply::{ErrorDetail, bad, beginning, error_in_spite, shortened, unfinished};
use super::{Access, Mask, chat, embeddings, messages, reply, responses};
use crate::format::json::{self, Object};
use crate::format::reply_body::{NoAnswer, check_answer};
use crate::job::{
    Answer, Content, Dialect, Endpoint, Failure, FailureKind, JobSpec, OWN_MODEL, Paid, Protocol,
    Usage,
};

/// What is the same in all of them.
#[derive(Debug, Clone)]
pub(super) struct Passed {
    /// The model that takes the place of theirs, if one does.
    model: Option<String>,
    /// Whether the whole body of a reply is the answer; else its text is.
    is_whole: bool,
    bearer: HeaderMap,
    messages: HeaderMap,
    mask: Mask,
}

/// A file that is sent in a form.
#[derive(Debug, Clone, Copy)]
pub struct FormFile<'a> {
    /// Its name, by which servers tell its format.
    pub name: &'a str,
    /// Its media type.
    pub media: &'a str,
    /// What is in it.
    pub bytes: &'a [u8],
}

impl Passed {
    /// Those of a job; nothing in one whose calls rowmill frames.
    pub(super) fn of(job: &JobSpec, access: &Access) -> Result<Option<Self>, BadKey> {
        if !job.dialect.is_request() {
            return Ok(None);
        }
        let (mut bearer, mut messages) = (HeaderMap::new(), HeaderMap::new());
        let version = HeaderValue::from_static(messages::VERSION);
        messages.insert(HeaderName::from_static("anthropic-version"), version);
        bearer.extend(access.key_header(Protocol::Chat)?);
        messages.extend(access.key_header(Protocol::Messages)?);
        let model = Some(job.model.clone()).filter(|model| model != OWN_MODEL);
        let is_whole = job.dialect == Dialect::OpenAi;
        let mask = access.mask().clone();
        Ok(Some(Self { model, is_whole, bearer, messages, mask }))
    }

    /// The headers that calls of an endpoint have besides those of all.
    pub(super) fn headers(&self, endpoint: Endpoint) -> &HeaderMap {
        if endpoint == Endpoint::Messages { &self.messages } else { &self.bearer }
    }

    /// Whether the whole body of a reply is the answer.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// A body as it is sent.
    pub(super) fn encode(&self, body: &str) -> Bytes {
        match &self.model {
            Some(model) => Bytes::from(with_model(body, model)),
            None => Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    /// A body as a form with a file in the place of its `file_url`, and the type of that.
    pub(super) fn form(&self, body: &str, file: FormFile<'_>) -> (HeaderValue, Bytes) {
        let body = self.model.as_ref().map_or(Cow::Borrowed(body), |model| {
            String::from_utf8(with_model(body, model)).map_or(Cow::Borrowed(body), Cow::Owned)
        });
        form(&body, file)
    }

    /// What a whole reply of a success says.
    pub(super) fn answer(&self, endpoint: Endpoint, body: &[u8]) -> Result<Answer, Failure> {
        if self.is_whole {
            whole(endpoint, body).map_err(|failure| self.with_body(failure, body))
        } else {
            chat::answer(body)
        }
    }

    /// What a status other than success means. The body goes with it where answers are whole bodies.
    pub(super) fn refused(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Failure {
        let failure = reply::refused(status, headers, body);
        match self.is_whole && !body.is_empty() {
            true => self.with_body(failure, body),
            false => failure,
        }
    }

    /// A failure with the body that tells of it. Secrets go first: half of one would not be found any more.
    fn with_body(&self, failure: Failure, body: &[u8]) -> Failure {
        let body = String::from_utf8_lossy(body).into_owned();
        failure.with_raw(&self.mask.body(body))
    }
}

/// The protocol that says how the calls of an endpoint are let in.
pub(super) fn protocol_of(endpoint: Endpoint) -> Protocol {
    if endpoint == Endpoint::Messages { Protocol::Messages } else { Protocol::Chat }
}

/// A body with another model in the place of its own, of all of them if there are several, and in front of all else
/// where there is none. Nothing else of it changes.
fn with_model(body: &str, model: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + model.len() + 16);
    // It was read as an object when it was planned.
    let Ok(object) = Object::parse(body) else { return body.as_bytes().to_vec() };
    let (text, mut end) = (object.text(), 0);
    for (_, value) in object.fields().filter(|(name, _)| *name == "model") {
        // A field's value is a slice of its object.
        let start = value.as_ptr().addr() - text.as_ptr().addr();
        out.extend_from_slice(&text.as_bytes()[end..start]);
        json::write_string(&mut out, model);
        end = start + value.len();
    }
    if end == 0 {
        out.extend_from_slice(b"{\"model\":");
        json::write_string(&mut out, model);
        if object.fields().next().is_some() {
            out.push(b',');
        }
        end = 1;
    }
    out.extend_from_slice(&text.as_bytes()[end..]);
    out
}

/// A body's fields as those of a form (RFC 7578): strings as they mean, a list as a field for each member, other values
/// as their JSON, null not at all. The boundary is a hash, so that the same request is the same bytes again.
fn form(body: &str, file: FormFile<'_>) -> (HeaderValue, Bytes) {
    let mut hasher = blake3::Hasher::new();
    hasher.update(body.as_bytes()).update(file.bytes);
    let boundary = format!("rowmill-{}", &hasher.finalize().to_hex()[..32]);
    let mut out = Vec::with_capacity(body.len() + file.bytes.len() + 1024);
    let Ok(object) = Object::parse(body) else { return typed(&boundary, out) };
    for (name, value) in object.fields().filter(|(name, _)| *name != "file_url") {
        match value.as_bytes().first() {
            Some(b'n') => {}
            Some(b'[') => {
                let members: Vec<&RawValue> = serde_json::from_str(value).unwrap_or_default();
                let name = if name.ends_with("[]") { name.to_owned() } else { format!("{name}[]") };
                members.iter().for_each(|it| field(&mut out, &boundary, &name, it.get()));
            }
            _ => field(&mut out, &boundary, name, value),
        }
    }
    // Writing to a Vec cannot fail.
    let (name, media) = (quoted(file.name), file.media);
    let _ = write!(
        out,
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: {media}\r\n\r\n"
    );
    out.extend_from_slice(file.bytes);
    let _ = write!(out, "\r\n--{boundary}--\r\n");
    typed(&boundary, out)
}

fn field(out: &mut Vec<u8>, boundary: &str, name: &str, token: &str) {
    let value = match token.starts_with('"') {
        true => serde_json::from_str::<Cow<'_, str>>(token).unwrap_or(Cow::Borrowed(token)),
        false => Cow::Borrowed(token),
    };
    let name = quoted(name);
    // Writing to a Vec cannot fail.
    let _ = write!(
        out,
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
    );
}

/// A name as it may stand in quotes: <https://html.spec.whatwg.org/#multipart-form-data>.
fn quoted(name: &str) -> String {
    name.replace('\r', "%0D").replace('\n', "%0A").replace('"', "%22")
}

fn typed(boundary: &str, body: Vec<u8>) -> (HeaderValue, Bytes) {
    let text = format!("multipart/form-data; boundary={boundary}");
    // Hexadecimal digits are a valid header value.
    let name = HeaderValue::try_from(text);
    (name.unwrap_or(HeaderValue::from_static("multipart/form-data")), Bytes::from(body))
}

/// A whole body as an answer.
fn whole(endpoint: Endpoint, body: &[u8]) -> Result<Answer, Failure> {
    let text = std::str::from_utf8(body).map_err(|_| bad("the answer is not UTF-8"))?;
    let object = match Object::parse(text) {
        Ok(object) => object,
        // Subtitles and plain words, where a request asks for those.
        Err(_) if endpoint.takes_sound() && !text.trim_ascii_start().starts_with(['{', '<']) => {
            return said(text);
        }
        Err(error) => {
            let what = beginning(body);
            return Err(bad(format!("the answer is no JSON object ({error}): {what}")));
        }
    };
    let paid = Paid {
        model: string(object.get("model")).map(|model| shortened(&model)),
        finish_reason: finish_reason(&object).map(|reason| shortened(&reason)),
        usage: usage(endpoint, &object),
    };
    if let Err(no_answer) = check_answer(Some(endpoint), &object) {
        return Err(failure_of(&no_answer, endpoint, body).with_paid(paid));
    }
    let content = serde_json::from_str::<&RawValue>(object.text()).map(Content::json);
    let content = content.map_err(|error| bad(format!("the answer is no JSON: {error}")))?;
    let Paid { model, finish_reason, usage } = paid;
    Ok(Answer { content, model, finish_reason, usage })
}

/// What a body means that is no answer of its endpoint: the same as it would in the answer to a row.
fn failure_of(no_answer: &NoAnswer<'_>, endpoint: Endpoint, body: &[u8]) -> Failure {
    match no_answer {
        NoAnswer::Error(error) => match serde_json::from_str::<ErrorDetail<'_>>(error) {
            Ok(detail) => error_in_spite(&detail),
            Err(_) => bad("the answer is an error"),
        },
        NoAnswer::Missing(field) => {
            let what = beginning(body);
            bad(format!("the answer is none of {endpoint}: it has no {field}: {what}"))
        }
        NoAnswer::Empty(field) => {
            let message = format!("the answer holds nothing: its {field} is empty");
            Failure::new(FailureKind::EmptyAnswer, message)
        }
        NoAnswer::BrokenOff(reason) => {
            let message = format!("the answer broke off (finish reason {reason})");
            Failure::new(FailureKind::Server, message)
        }
        NoAnswer::Unfinished(status) => unfinished(status),
    }
}

/// An answer in words, as a body of JSON has it.
fn said(text: &str) -> Result<Answer, Failure> {
    let mut body = b"{\"text\":".to_vec();
    json::write_string(&mut body, text);
    body.push(b'}');
    let body = String::from_utf8(body).ok().and_then(|it| RawValue::from_string(it).ok());
    let content = body.map(Content::Json).ok_or_else(|| bad("the answer is no text"))?;
    Ok(Answer { content, model: None, finish_reason: None, usage: None })
}

fn string(token: Option<&str>) -> Option<String> {
    serde_json::from_str(token?).ok()
}

/// Why the model stopped, in whichever words the body has for it.
fn finish_reason(body: &Object<'_>) -> Option<String> {
    if let Some(choices) = body.get("choices") {
        let choices: Vec<&RawValue> = serde_json::from_str(choices).ok()?;
        let first = Object::parse(choices.first()?.get()).ok()?;
        return string(first.get("finish_reason"));
    }
    if let Some(reason) = string(body.get("stop_reason")) {
        return Some(messages::finish_reason(Cow::Owned(reason)));
    }
    match string(body.get("status")).as_deref() {
        Some("completed") => Some("stop".to_owned()),
        Some("incomplete") => {
            let details = Object::parse(body.get("incomplete_details")?).ok();
            let reason = details.and_then(|it| string(it.get("reason")));
            let is_length = reason.as_deref() == Some("max_output_tokens");
            if is_length { Some("length".to_owned()) } else { reason }
        }
        other => other.map(str::to_owned),
    }
}

/// What the call used, as its endpoint counts.
fn usage(endpoint: Endpoint, body: &Object<'_>) -> Option<Usage> {
    let raw: &RawValue = serde_json::from_str(body.get("usage")?).ok()?;
    match endpoint {
        Endpoint::Embeddings | Endpoint::Score | Endpoint::Rerank => embeddings::usage(raw),
        Endpoint::Responses => responses::usage(raw),
        Endpoint::Messages => messages::usage(raw),
        Endpoint::Transcriptions | Endpoint::Translations => {
            responses::usage(raw).or_else(|| chat::usage(raw))
        }
        _ => chat::usage(raw),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(body: &str) -> String {
        String::from_utf8(with_model(body, "n\"")).unwrap()
    }

    #[test]
    fn the_model_alone_is_replaced() {
        assert_eq!(
            model(r#"{"a":1.50, "model" : "m","a":2}"#),
            r#"{"a":1.50, "model" : "n\"","a":2}"#
        );
        assert_eq!(
            model(r#"{"model":1,"x":{"model":2},"mod\u0065l":3}"#),
            r#"{"model":"n\"","x":{"model":2},"mod\u0065l":"n\""}"#
        );
        assert_eq!(model(r#"{ "x":1}"#), r#"{"model":"n\"", "x":1}"#);
        assert_eq!(model("{ }"), r#"{"model":"n\"" }"#);
    }

    #[test]
    fn fields_become_those_of_a_form() {
        let body = r#"{"model":"w","file_url":"x","temperature":0.0,"prompt":"a \"b\"","language":null,"g":["x",1]}"#;
        let file = FormFile { name: "a\".wav", media: "audio/wav", bytes: b"\x00RIFF" };
        let (kind, bytes) = form(body, file);
        let boundary = kind.to_str().unwrap().split_once("boundary=").unwrap().1.to_owned();
        let text = bytes.escape_ascii().to_string().replace(&boundary, "B").replace("\\r\\n", "\n");
        let expected = "--B\nContent-Disposition: form-data; name=\\\"model\\\"\n\nw\n\
            --B\nContent-Disposition: form-data; name=\\\"temperature\\\"\n\n0.0\n\
            --B\nContent-Disposition: form-data; name=\\\"prompt\\\"\n\na \\\"b\\\"\n\
            --B\nContent-Disposition: form-data; name=\\\"g[]\\\"\n\nx\n\
            --B\nContent-Disposition: form-data; name=\\\"g[]\\\"\n\n1\n\
            --B\nContent-Disposition: form-data; name=\\\"file\\\"; filename=\\\"a%22.wav\\\"\n\
            Content-Type: audio/wav\n\n\\x00RIFF\n--B--\n";
        assert_eq!(text, expected);
        assert_eq!(form(body, file).1, bytes, "the same again");
    }

    #[test]
    fn a_body_is_the_answer_whatever_it_says() {
        let told = |endpoint, body: &str| match whole(endpoint, body.as_bytes()) {
            Ok(it) => {
                let usage = it.usage.map(|usage| (usage.input_tokens, usage.output_tokens));
                let (content, model) = (it.content.as_str().to_owned(), it.model);
                format!("{content} {model:?} {:?} {usage:?}", it.finish_reason)
            }
            Err(failure) => failure.kind.class().to_owned(),
        };
        for (endpoint, body, expected) in [
            (
                Endpoint::ChatCompletions,
                r#"{"model":"m","choices":[{"message":{"content":null,"tool_calls":[{}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#,
                r#" Some("m") Some("tool_calls") Some((3, 2))"#,
            ),
            (
                Endpoint::Messages,
                r#"{"model":"m","content":[],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":2,"cache_read_input_tokens":4}}"#,
                r#" Some("m") Some("stop") Some((5, 2))"#,
            ),
            (
                Endpoint::Responses,
                r#"{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"output":[{}],"error":null}"#,
                r#" None Some("length") None"#,
            ),
            (
                Endpoint::Rerank,
                r#"{"results":[{"index":0}],"usage":{"total_tokens":9},"model":7}"#,
                " None None Some((9, 0))",
            ),
            (Endpoint::Embeddings, r#"{"data":[{"embedding":[1]}],"error":{}}"#, " None None None"),
        ] {
            assert_eq!(told(endpoint, body), format!("{body}{expected}"));
        }
        let sound = Endpoint::Transcriptions;
        assert_eq!(
            told(sound, "1\n00:00 --> 00:01\nHi\n"),
            r#"{"text":"1\n00:00 --> 00:01\nHi\n"} None None None"#
        );
        for body in ["", "[1]", "<html>", r#"{"error":{"message":"x"}}"#, r#"{"error":"x"}"#] {
            assert_eq!(told(Endpoint::ChatCompletions, body), "bad_response", "{body}");
        }
        for (body, class) in [
            ("{}", "bad_response"),
            (r#"{"choices":null}"#, "bad_response"),
            (r#"{"choices":[]}"#, "empty_answer"),
            (r#"{"code":"rate_limit_daily","message":"429"}"#, "rate_limit"),
            (r#"{"object":"error","message":"dead","code":500}"#, "server_error"),
            (r#"{"detail":"upstream timed out"}"#, "bad_response"),
            (
                r#"{"choices":[{"message":{"content":"half"},"finish_reason":"error"}]}"#,
                "server_error",
            ),
        ] {
            assert_eq!(told(Endpoint::ChatCompletions, body), class, "{body}");
        }
        assert_eq!(told(sound, "<html>"), "bad_response");
        assert_eq!(told(sound, r#"{"error":{"code":429,"message":"slow"}}"#), "rate_limit");
    }
}
