//! The `openai` dialect: lines of OpenAI's Batch API, which vLLM's and FastDeploy's `run-batch` and Doubleword's service
//! read and write too.
//!
//! In: `{"custom_id":…,"method":"POST","url":"/v1/chat/completions","body":{…}}`.
//! Out: `{"id":"batch_req_…","custom_id":…,"response":{"status_code":200,"request_id":…,"body":{…}},"error":null}`.
//! Source: <https://platform.openai.com/docs/guides/batch>, <https://platform.openai.com/docs/api-reference/batch>.

use std::borrow::Cow;
use std::io::Write;

use serde_json::{Value, json};

use super::required;
use super::rules::Rules;
use super::{
    AnswerLine, Body, Content, Endpoint, Outcome, Problem, answered_id, kind, last, shown,
    some_string, some_string_if, text,
};
use crate::format::json::{self, Object};
use crate::format::reply_body::check_answer;
use crate::job::Reference;

/// A line in: a request. All values are slices of the line; the body's bytes are never changed.
#[derive(Debug)]
pub struct Request<'a> {
    id: &'a str,
    method: Option<&'a str>,
    url: Option<&'a str>,
    body: Body<'a>,
}

impl<'a> Request<'a> {
    /// Reads a line: whether it is JSON, whether its fields are there and of the right kind. What servers think of
    /// their values is [`Request::check`].
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn read(line: &'a str) -> Result<Self, Problem> {
        Self::of(&Object::parse(line).map_err(Problem::Json)?)
    }

    /// As [`Request::read`], of a line that was read as JSON already.
    ///
    /// # Errors
    /// As [`Request::read`].
    pub fn of(line: &Object<'a>) -> Result<Self, Problem> {
        Ok(Self {
            id: some_string(line, "custom_id")?,
            method: some_string_if(line, "method")?,
            url: some_string_if(line, "url")?,
            body: Body(super::object(line, "body")?),
        })
    }

    /// The `custom_id`, as the line spells it, quotes included.
    #[must_use]
    pub fn id(&self) -> &'a str {
        self.id
    }

    /// The url's text. Lines of `custom_id` and `body` alone, as Together's and Mistral's APIs have them, ask for chat
    /// where they have messages.
    #[must_use]
    pub fn url(&self) -> Cow<'a, str> {
        match self.url {
            Some(url) => text(url),
            None if self.body.parameter("messages").is_some() => {
                Cow::Borrowed(Endpoint::ChatCompletions.url())
            }
            None => Cow::Borrowed(""),
        }
    }

    /// What the url names; nothing where it is no endpoint that anyone documents.
    #[must_use]
    pub fn endpoint(&self) -> Option<Endpoint> {
        Endpoint::of_any_url(&self.url())
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &Body<'a> {
        &self.body
    }

    /// Whether a server takes the line. `has_model` says that the caller names a model, so that the body's does not
    /// matter.
    ///
    /// # Errors
    /// The first thing that it does not take.
    pub fn check(&self, rules: &Rules, has_model: bool) -> Result<(), Problem> {
        let id = text(self.id);
        if id.len() > rules.id_bytes {
            let (bytes, most, server) = (id.len(), rules.id_bytes, rules.title);
            return Err(Problem::LongId { bytes, most, server });
        }
        // Visible ASCII and blanks: what RFC 9110 lets a field value have.
        if rules.header_ids && !id.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
            return Err(Problem::UnsafeId(shown(&id)));
        }
        if let Some(method) = self.method.filter(|it| rules.wants_post && *it != "\"POST\"")
            && text(method) != "POST"
        {
            let found = shown(&text(method));
            return Err(Problem::WrongValue { field: "method", found, expected: "\"POST\"" });
        }
        let url = self.url();
        if self.method.is_none() && !rules.is_lenient {
            return Err(Problem::Missing("method"));
        }
        if self.url.is_none() && (!rules.is_lenient || url.is_empty()) {
            return Err(Problem::Missing("url"));
        }
        if !rules.takes(&url) {
            let (server, known) = (rules.title, rules.urls());
            return Err(Problem::UnknownUrl { url: shown(&url), server, known });
        }
        let bytes = self.body.spelled().len();
        if let Some(most) = rules.body_bytes.filter(|most| bytes > *most) {
            return Err(Problem::LongBody { bytes, most, server: rules.title });
        }
        self.check_model(rules.wants_model && !has_model)?;
        if self.body.is_stream() && rules.refuses_stream {
            return Err(Problem::Stream(rules.title));
        }
        self.check_file()?;
        required::check(self.endpoint(), &self.body, rules)
    }

    /// Requests about sound name it in `file_url`, by a URL or as a data URI: there is no place for the file itself
    /// in a line.
    fn check_file(&self) -> Result<(), Problem> {
        const FILE: &str = "body.file_url";
        if !self.endpoint().is_some_and(Endpoint::takes_sound) {
            return Ok(());
        }
        if self.body.parameter("file").is_some() {
            let (found, expected) = ("there".to_owned(), "taken: body.file_url names the file");
            return Err(Problem::WrongValue { field: "body.file", found, expected });
        }
        let named = text(some_string(&self.body.0, FILE)?);
        match Reference::parse(&named) {
            Reference::Url(_) | Reference::Data { .. } => Ok(()),
            Reference::Path(_) | Reference::Elsewhere(_) => {
                let found = shown(&named);
                Err(Problem::WrongValue {
                    field: FILE,
                    found,
                    expected: "an http(s) URL or a data URI",
                })
            }
        }
    }

    fn check_model(&self, is_wanted: bool) -> Result<(), Problem> {
        const MODEL: &str = "body.model";
        match self.body.parameter(last(MODEL)) {
            None if is_wanted => Err(Problem::Missing(MODEL)),
            None => Ok(()),
            // As good as none where none is needed.
            Some("null") if !is_wanted => Ok(()),
            Some("\"\"") if is_wanted => Err(Problem::Empty(MODEL)),
            Some(token) if token.starts_with('"') => Ok(()),
            Some(token) => {
                Err(Problem::WrongType { field: MODEL, expected: "a string", found: kind(token) })
            }
        }
    }

    /// How many embeddings it asks for: OpenAI counts them. None where it asks for something else.
    #[must_use]
    pub fn embedding_inputs(&self) -> u64 {
        if self.endpoint() != Some(Endpoint::Embeddings) {
            return 0;
        }
        let Some(input) = self.body.parameter("input") else { return 0 };
        let members = super::members(input);
        // A list of numbers is one text in tokens.
        let is_list = members.first().is_some_and(|first| first.starts_with(['"', '[']));
        if is_list { members.len() as u64 } else { 1 }
    }
}

/// A line out, in plain values.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// What tells this line from those of other jobs, inputs and rows; the same seed and `custom_id` give the same `id`.
    pub seed: &'a str,
    /// The `custom_id`, as the line in spelled it, quotes included.
    pub id: &'a str,
    /// What came of it.
    pub result: Result<Response<'a>, NoResponse<'a>>,
}

/// The HTTP response to a request, whatever its status.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    /// The status.
    pub status: u16,
    /// The server's name for the request (`x-request-id`), if it gave one. Readers want a text there, so that a line
    /// without one has one that is made up.
    pub request_id: Option<&'a str>,
    /// The body: the bytes of a JSON value stand in the line as they are. Other texts become the message of an error
    /// in OpenAI's shape.
    pub body: &'a [u8],
}

/// Why there is no HTTP response.
#[derive(Debug, Clone, Copy)]
pub struct NoResponse<'a> {
    /// A name: `batch_expired`, `batch_cancelled` and `request_timeout` are OpenAI's.
    pub code: &'a str,
    /// What happened.
    pub message: &'a str,
}

/// Appends a line, with its line end.
///
/// A failure with a status is a filled `response`, one without is `response:null` and an `error`, as OpenAI has it.
pub fn write(out: &mut Vec<u8>, reply: &Reply<'_>) {
    match reply.result {
        Ok(response) => {
            let Response { status, request_id, body } = response;
            let body = |out: &mut Vec<u8>| write_body(out, body);
            write_response(out, (reply.seed, reply.id), (status, request_id), body);
        }
        Err(NoResponse { code, message }) => {
            begin(out, (reply.seed, reply.id));
            out.extend_from_slice(b"null,\"error\":{\"code\":");
            json::write_string(out, code);
            out.extend_from_slice(b",\"message\":");
            json::write_string(out, message);
            out.extend_from_slice(b"}}\n");
        }
    }
}

/// Appends the line of a request (seed and id, as [`Reply`] has them) that was answered with this status and under this
/// name; `body` appends the body, a JSON value in one line.
pub(super) fn write_response(
    out: &mut Vec<u8>,
    request: (&str, &str),
    answered: (u16, Option<&str>),
    body: impl FnOnce(&mut Vec<u8>),
) {
    begin(out, request);
    end_response(out, request, answered, body);
}

/// As [`write_response`], of a line that has this name already.
pub(super) fn write_named_response(
    out: &mut Vec<u8>,
    request: (&str, &str),
    name: &str,
    answered: (u16, Option<&str>),
    body: impl FnOnce(&mut Vec<u8>),
) {
    out.extend_from_slice(b"{\"id\":");
    json::write_string(out, name);
    let _ = write!(out, ",\"custom_id\":{},\"response\":", string_or_null(request.1));
    end_response(out, request, answered, body);
}

/// Appends a line from its response on.
fn end_response(
    out: &mut Vec<u8>,
    request: (&str, &str),
    (status, request_id): (u16, Option<&str>),
    body: impl FnOnce(&mut Vec<u8>),
) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{{\"status_code\":{status},\"request_id\":");
    match request_id {
        Some(id) => json::write_string(out, id),
        None => {
            let _ = write!(out, "\"req_{}\"", hash_of(request.0, request.1));
        }
    }
    out.extend_from_slice(b",\"body\":");
    body(out);
    out.extend_from_slice(b"},\"error\":null}\n");
}

fn begin(out: &mut Vec<u8>, (seed, id): (&str, &str)) {
    let hash = hash_of(seed, id);
    let _ = write!(
        out,
        "{{\"id\":\"batch_req_{hash}\",\"custom_id\":{},\"response\":",
        string_or_null(id)
    );
}

/// An id as a `custom_id` of a line out: what is no string was the number of a line whose own could not be read, and
/// another line may have it.
pub(super) fn string_or_null(id: &str) -> &str {
    if id.starts_with('"') { id } else { "null" }
}

/// What the names in a line out are made of: a hash, so that the same line is written the same way again.
pub(super) fn hash_of(seed: &str, id: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    // A length in front keeps seed and id apart.
    hasher.update(&(seed.len() as u64).to_le_bytes());
    hasher.update(seed.as_bytes());
    hasher.update(id.as_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

/// Appends a body as [`Response::body`] has it.
pub(super) fn write_body(out: &mut Vec<u8>, body: &[u8]) {
    let body = body.trim_ascii();
    if serde_json::from_slice::<&serde_json::value::RawValue>(body).is_err() {
        out.extend_from_slice(b"{\"error\":{\"message\":");
        json::write_string(out, &String::from_utf8_lossy(body));
        out.extend_from_slice(b",\"type\":\"invalid_response\",\"param\":null,\"code\":null}}");
        return;
    }
    // Line ends between the tokens of a value mean nothing, but would end the line here. In strings they are escaped.
    let start = out.len();
    out.extend_from_slice(body);
    for byte in &mut out[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

/// Reads a line out: OpenAI's, or what vLLM, FastDeploy and Doubleword write for it.
///
/// # Errors
/// When it is none.
pub fn read_outcome(line: &str) -> Result<Outcome<'_>, Problem> {
    let line = Object::parse(line).map_err(Problem::Json)?;
    let id = answered_id(&line)?;
    if let Some(error) = line.get("error").filter(|error| *error != "null") {
        return Ok(Outcome { id, result: Err(message(error)) });
    }
    let response = super::object(&line, "response")?;
    let status = response.get("status_code").and_then(|status| status.parse::<u16>().ok());
    let body = response.get("body").unwrap_or("null");
    let result = match status {
        Some(200..=299) if is_answer(body) => Ok(content(body)),
        Some(status) => Err(format!("{status}: {}", message(body))),
        None => return Err(Problem::Missing("response.status_code")),
    };
    Ok(Outcome { id, result })
}

/// Reads what a line out holds for whoever goes on from it: the body of a response whose status says that all went
/// well, where there is no error beside it.
///
/// # Errors
/// When it is none.
pub fn read_answer(line: &str) -> Result<AnswerLine<'_>, Problem> {
    let line = Object::parse(line).map_err(Problem::Json)?;
    let id = answered_id(&line)?;
    if line.get("error").is_some_and(|error| error != "null") {
        return Ok(AnswerLine { id, answer: None, named: [None; 2] });
    }
    let response = super::object(&line, "response")?;
    let status = response.get("status_code").and_then(|status| status.parse::<u16>().ok());
    let status = status.ok_or(Problem::Missing("response.status_code"))?;
    let body = response.get("body").filter(|body| body.starts_with('{'));
    let body = body.filter(|_| matches!(status, 200..=299));
    let is_name = |token: &&str| token.starts_with('"') && token.len() > 2;
    let named = [line.get("id").filter(is_name), response.get("request_id").filter(is_name)];
    Ok(AnswerLine { id, answer: body.filter(|body| is_answer(body)), named })
}

/// Whether a body is an answer: there are servers that send errors and nothing at all under a status of success.
fn is_answer(body: &str) -> bool {
    Object::parse(body).is_ok_and(|body| check_answer(None, &body).is_ok())
}

/// The message of an error, wherever it stands in it.
fn message(error: &str) -> String {
    let value = serde_json::from_str(error).unwrap_or(Value::Null);
    let inner = value.get("error").filter(|inner| !inner.is_null()).unwrap_or(&value);
    let message = inner.get("message").unwrap_or(inner);
    let text = message.as_str().map_or_else(|| message.to_string(), str::to_owned);
    match inner.get("code").and_then(Value::as_str) {
        Some(code) => format!("{code}: {text}"),
        None => text,
    }
}

/// What a body says, without what differs from call to call.
pub(super) fn content(body: &str) -> Content {
    let Ok(Value::Object(mut body)) = serde_json::from_str::<Value>(body) else {
        return Content::of_token(body);
    };
    let said = match (body.get("choices"), body.get("output"), body.get("content")) {
        (Some(Value::Array(choices)), _, _) => choices.iter().map(of_choice).collect::<Vec<_>>(),
        (_, Some(Value::Array(items)), _) => items.iter().filter_map(of_item).collect(),
        (_, _, Some(Value::Array(parts))) => parts.iter().filter_map(of_part).collect(),
        _ => {
            let data = ["data", "results", "text"].into_iter().find_map(|name| body.remove(name));
            vec![data.unwrap_or_else(|| {
                for name in ["id", "created", "created_at", "usage", "object"] {
                    body.remove(name);
                }
                Value::Object(body)
            })]
        }
    };
    // Several stay several: where one ends is part of the answer.
    match <[Value; 1]>::try_from(said) {
        Ok([Value::String(text)]) => Content::Text(text),
        Ok([one]) => Content::Json(one),
        Err(said) => Content::Json(Value::Array(said)),
    }
}

/// A choice of Chat Completions or Completions.
fn of_choice(choice: &Value) -> Value {
    let Some(message) = choice.get("message") else {
        return choice.get("text").cloned().unwrap_or_else(|| choice.clone());
    };
    let calls = message.get("tool_calls").and_then(Value::as_array);
    let functions: Vec<_> = calls.into_iter().flatten().map(of_call).collect();
    let refusal = message.get("refusal").filter(|refusal| !refusal.is_null());
    let content = message.get("content").cloned().unwrap_or(Value::Null);
    match (functions.is_empty(), refusal) {
        (true, None) => content,
        _ => json!({"content": content, "refusal": refusal, "tool_calls": functions}),
    }
}

/// A call of a tool, without its id.
fn of_call(call: &Value) -> Value {
    call.get("function").cloned().unwrap_or_else(|| without_ids(call))
}

/// An item of a response; reasoning is none of the answer.
fn of_item(item: &Value) -> Option<Value> {
    match item.get("type").and_then(Value::as_str) {
        Some("reasoning") => None,
        Some("message") => {
            let parts = item.get("content").and_then(Value::as_array);
            let mut said: Vec<_> = parts.into_iter().flatten().filter_map(of_part).collect();
            Some(if said.len() == 1 { said.remove(0) } else { Value::Array(said) })
        }
        _ => Some(without_ids(item)),
    }
}

/// A part of a message; thinking is none of the answer.
fn of_part(part: &Value) -> Option<Value> {
    match part.get("type").and_then(Value::as_str) {
        Some("thinking" | "redacted_thinking") => None,
        Some("text" | "output_text") => part.get("text").cloned(),
        _ => Some(without_ids(part)),
    }
}

fn without_ids(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(object) = value.as_object_mut() {
        for name in ["id", "call_id", "status"] {
            object.remove(name);
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::super::rules::{DOUBLEWORD, FASTDEPLOY, OPENAI, ROWMILL, VLLM};
    use super::*;

    const LINE: &str = r#"{"custom_id":"r\u0031","method":"POST","url":"/v1/chat/completions","body":{ "model":"m","x":1.50,"messages":[{"role":"user","content":"x"}],"n":2 }}"#;

    fn problem(line: &str) -> String {
        let result = Request::read(line).and_then(|request| request.check(&ROWMILL, false));
        result.map_or_else(|problem| format!("{}: {problem}", problem.code()), |()| "fine".into())
    }

    #[test]
    fn values_are_slices_of_the_line() {
        let request = Request::read(LINE).unwrap();
        assert_eq!(request.id(), r#""r\u0031""#);
        assert_eq!(
            request.body().spelled(),
            r#"{ "model":"m","x":1.50,"messages":[{"role":"user","content":"x"}],"n":2 }"#
        );
        assert_eq!(request.endpoint(), Some(Endpoint::ChatCompletions));
        assert_eq!(request.body().model().unwrap(), "m");
        assert!(!request.body().is_stream());
        assert_eq!(request.check(&ROWMILL, false), Ok(()));
    }

    #[test]
    fn each_kind_of_bad_line_has_its_reason() {
        let changed = |from: &str, to: &str| problem(&LINE.replace(from, to));
        let cases = [
            (
                problem("{\"a\":"),
                "invalid_json_line: not JSON: EOF while parsing a value at column 5",
            ),
            (problem("[1]"), "invalid_line: expected a JSON object, got a list"),
            (changed("custom_id", "id"), "missing_field: custom_id is missing"),
            (changed(r#""r\u0031""#, "7"), "wrong_type: custom_id is a number, not a string"),
            (changed(r#"r\u0031"#, ""), "empty_field: custom_id is empty"),
            (
                changed(r#"r\u0031"#, &"é".repeat(257)),
                "invalid_custom_id: custom_id has 514 bytes, and rowmill takes 512",
            ),
            (changed("\"method\":\"POST\",", ""), "fine"),
            (changed("\"url\":\"/v1/chat/completions\",", ""), "fine"),
            (changed("POST", "GET"), "invalid_method: method is \"GET\", not \"POST\""),
            (changed("\"/v1/chat/completions\"", "null"), "wrong_type: url is null, not a string"),
            (changed("\"body\"", "\"boby\""), "missing_field: body is missing"),
            (changed("\"model\"", "\"nodel\""), "missing_field: body.model is missing"),
            (changed("\"m\"", "[1]"), "wrong_type: body.model is a list, not a string"),
            (changed("\"m\"", "\"\""), "empty_field: body.model is empty"),
            (
                changed("\"n\":2", "\"stream\":true"),
                "stream: body.stream is true, and rowmill refuses that: an answer is one line",
            ),
            (changed("POST", r"PO\u0053T"), "fine"),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
        let unknown = changed("chat/completions", "chat/completion");
        assert!(
            unknown.starts_with(
                "invalid_url: url \"/v1/chat/completion\" is none of rowmill's: /v1/chat/completions, "
            ),
            "{unknown}"
        );
        let body = LINE.split("\"body\":").next().unwrap().to_owned() + "\"body\":\"x\"}";
        assert_eq!(problem(&body), "wrong_type: body is a string, not an object");
    }

    #[test]
    fn servers_differ() {
        let check = |line: &str, rules| Request::read(line).unwrap().check(rules, false);
        let scored =
            LINE.replace("/v1/chat/completions", "/score").replace("1.50", "1,\"text_1\":\"x\"");
        assert!(check(&scored, &VLLM).is_ok() && check(&scored, &ROWMILL).is_ok());
        assert!(check(&scored, &FASTDEPLOY).is_err() && check(&scored, &OPENAI).is_err());
        let short = LINE.replace("/v1/chat", "/chat");
        assert!(check(&short, &ROWMILL).is_ok());
        assert!(check(&short, &VLLM).is_err() && check(&short, &OPENAI).is_err());
        let bare = LINE.replace("\"method\":\"POST\",\"url\":\"/v1/chat/completions\",", "");
        assert!(check(&bare, &ROWMILL).is_ok());
        assert_eq!(check(&bare, &VLLM), Err(Problem::Missing("method")));
        assert_eq!(
            check(&bare.replace("messages", "input"), &ROWMILL),
            Err(Problem::Missing("url"))
        );
        let moderated = LINE.replace("chat/completions", "moderations");
        assert!(check(&moderated, &OPENAI).is_ok() && check(&moderated, &ROWMILL).is_err());
        let streamed = LINE.replace("\"n\":2", "\"stream\":true");
        assert!(check(&streamed, &OPENAI).is_ok() && check(&streamed, &DOUBLEWORD).is_ok());
        assert_eq!(check(&streamed, &VLLM), Err(Problem::Stream("vLLM")));
        assert_eq!(check(&streamed, &FASTDEPLOY), Err(Problem::Stream("FastDeploy")));
        let nameless = LINE.replace("\"model\":\"m\",", "");
        assert!(check(&nameless, &VLLM).is_ok() && check(&nameless, &OPENAI).is_err());
        let request = Request::read(&nameless).unwrap();
        assert!(request.check(&OPENAI, true).is_ok(), "a model is given with -m");
        let accented = LINE.replace(r"r\u0031", "é");
        assert!(check(&accented, &OPENAI).is_ok() && check(&accented, &DOUBLEWORD).is_err());
        assert_eq!(Rules::that_refuse_streams(), "rowmill, vLLM, FastDeploy");
    }

    #[test]
    fn inputs_of_embeddings_are_counted() {
        let count = |input: &str| {
            let line = format!(
                r#"{{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{{"input":{input}}}}}"#
            );
            Request::read(&line).unwrap().embedding_inputs()
        };
        let counts = ["\"a\"", "[\"a\",\"b\"]", "[1,2,3]", "[[1],[2]]"].map(count);
        assert_eq!(counts, [1, 2, 1, 2]);
        assert_eq!(Request::read(LINE).unwrap().embedding_inputs(), 0);
    }

    fn written(result: Result<Response<'_>, NoResponse<'_>>) -> String {
        let mut out = Vec::new();
        write(&mut out, &Reply { seed: "job 1", id: "\"r\\u0031\"", result });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn bodies_stand_in_lines_out_as_they_came() {
        let body = b"{\n  \"n\": 1.50, \"t\": \"a\\nb\"\r\n}\n";
        let response = Response { status: 200, request_id: Some("req_1"), body };
        let line = written(Ok(response));
        let name = &line[7..49];
        assert!(name.starts_with("batch_req_") && name.len() == 42, "{name}");
        assert_eq!(
            line,
            format!(
                "{{\"id\":\"{name}\",\"custom_id\":\"r\\u0031\",\"response\":{{\"status_code\":200,\
                 \"request_id\":\"req_1\",\"body\":{{   \"n\": 1.50, \"t\": \"a\\nb\"  }}}},\"error\":null}}\n"
            )
        );
        assert_eq!(written(Ok(response)), line, "the same again");
        assert_ne!(hash_of("job 2", "\"a\""), hash_of("job 1", "\"a\""));
        assert_ne!(hash_of("a", "b"), hash_of("ab", ""));
        let unnamed = written(Ok(Response { request_id: None, ..response }));
        let made_up = format!("\"request_id\":\"req_{}\"", name.trim_start_matches("batch_req_"));
        assert!(unnamed.contains(&made_up), "{unnamed}");
    }

    #[test]
    fn failures_have_openais_shapes_and_are_read_back() {
        let refused = br#"{"error":{"message":"slow down","type":"rate_limit","param":null,"code":"rate_limit_exceeded"}}"#;
        let cases = [
            (
                Ok(Response { status: 429, request_id: None, body: refused }),
                "429: rate_limit_exceeded: slow down",
            ),
            (
                Ok(Response { status: 502, request_id: None, body: b"<html>\xff</html>" }),
                "502: <html>\u{fffd}</html>",
            ),
            (
                Err(NoResponse { code: "request_timeout", message: "it took too long" }),
                "request_timeout: it took too long",
            ),
        ];
        for (result, expected) in cases {
            let line = written(result);
            let outcome = read_outcome(&line).unwrap();
            assert_eq!(outcome.result, Err(expected.to_owned()), "{line}");
            assert_eq!(outcome.id, "\"r\\u0031\"");
        }
    }

    #[test]
    fn bodies_are_read_back_as_they_stand_where_all_went_well() {
        let line = |error: &str, response: &str| {
            format!(r#"{{"id":"x","custom_id":"r\u0031","response":{response},"error":{error}}}"#)
        };
        let of = |status: &str, body: &str| {
            format!(r#"{{"status_code":{status},"request_id":"req_1","body":{body}}}"#)
        };
        let body = r#"{ "n": 1.50, "n": 2, "choices":[{"text": "\u00e9"}] }"#;
        let null = line("null", &of("200", r#"{"choices":[{"text":"x"}],"error":{}}"#));
        assert!(read_answer(&null).unwrap().answer.is_some());
        let whole = line("null", &of("200", body));
        let held = read_answer(&whole).unwrap();
        assert_eq!((held.id, held.answer), (r#""r\u0031""#, Some(body)));
        for none in [
            line("null", &of("400", body)),
            line("null", &of("0", "{}")),
            line("null", &of("200", "null")),
            line("null", &of("200", r#""text""#)),
            line("{}", &of("200", body)),
            line("null", &of("200", "{}")),
            line("null", &of("200", r#"{"detail":"upstream timed out"}"#)),
            line("null", &of("200", r#"{"choices":null}"#)),
            line("null", &of("200", r#"{"object":"list","data":[]}"#)),
            line("null", &of("200", r#"{"choices":[{"text":"x","finish_reason":"error"}]}"#)),
            line("null", &of("200", r#"{"error":{"message":"overloaded","code":503}}"#)),
            line("null", &of("200", r#"{"choices":[],"error":"overloaded"}"#)),
            line(r#"{"code":"batch_expired","message":""}"#, "null"),
            // vLLM and FastDeploy
            line(r#""Request must not be sent in stream mode""#, &of("400", "null")),
        ] {
            assert_eq!(read_answer(&none).unwrap().answer, None, "{none}");
        }
        assert!(read_answer(&line("null", "null")).is_err());
        assert!(read_answer(&line("null", r#"{"body":{}}"#)).is_err());
        for cut in 0..whole.len() {
            assert!(read_answer(&whole[..cut]).is_err(), "torn at {cut}");
        }
        // What is written here is read back; a failure is none.
        let response = Response { status: 201, request_id: None, body: body.as_bytes() };
        assert_eq!(read_answer(&written(Ok(response))).unwrap().answer, Some(body));
        let failed = Response { status: 500, ..response };
        assert_eq!(read_answer(&written(Ok(failed))).unwrap().answer, None);
        let none = NoResponse { code: "request_timeout", message: "it took too long" };
        assert_eq!(read_answer(&written(Err(none))).unwrap().answer, None);
    }

    #[test]
    fn answers_are_equal_when_what_was_said_is() {
        let said = |body: &str| {
            let line = format!(
                r#"{{"id":"batch_req_1","custom_id":"a","response":{{"status_code":200,"request_id":"","body":{body}}},"error":null}}"#
            );
            read_outcome(&line).unwrap().result.unwrap().text().into_owned()
        };
        let cases = [
            (
                r#"{"id":"c-1","usage":{"total_tokens":3},"choices":[{"index":0,"message":{"role":"assistant","content":"Hi","refusal":null}}]}"#,
                "Hi",
            ),
            (r#"{"choices":[{"text":"Hi"},{"text":"Ho"}]}"#, r#"["Hi","Ho"]"#),
            (
                r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}}]}}]}"#,
                r#"{"content":null,"refusal":null,"tool_calls":[{"arguments":"{}","name":"f"}]}"#,
            ),
            (
                r#"{"id":"resp_1","output":[{"type":"reasoning","id":"rs_1"},{"type":"message","id":"msg_1","content":[{"type":"output_text","text":"Hi"}]}]}"#,
                "Hi",
            ),
            (
                r#"{"id":"msg_1","content":[{"type":"thinking","thinking":"…"},{"type":"text","text":"Hi"}]}"#,
                "Hi",
            ),
            (
                r#"{"object":"list","data":[{"embedding":[0.5]}],"usage":{}}"#,
                r#"[{"embedding":[0.5]}]"#,
            ),
            (r#"{"text":"Mary had a little lamb"}"#, "Mary had a little lamb"),
            (r#"{"id":"x","created":1,"verdict":"ok"}"#, r#"{"verdict":"ok"}"#),
        ];
        for (body, expected) in cases {
            assert_eq!(said(body), expected, "{body}");
        }
    }

    #[test]
    fn the_error_shapes_of_other_servers_are_read() {
        let error = |line: &str| read_outcome(line).unwrap().result.unwrap_err();
        let cases = [
            // vLLM
            (
                r#"{"id":"vllm-1","custom_id":"a","response":{"status_code":400,"request_id":"vllm-batch-1","body":null},"error":{"error":{"message":"too long","type":"BadRequestError","param":null,"code":400}}}"#,
                "too long",
            ),
            // FastDeploy
            (
                r#"{"id":"fastdeploy-1","custom_id":"a","response":{"status_code":400,"request_id":"fastdeploy-batch-1","body":null},"error":"Request must not be sent in stream mode"}"#,
                "Request must not be sent in stream mode",
            ),
            // Doubleword
            (
                r#"{"id":"batch_req_1","custom_id":"a","response":null,"error":{"code":null,"message":"{}"}}"#,
                "{}",
            ),
            // OpenAI, as reported in tidyverse/ellmer#830
            (
                r#"{"id":"batch_req_1","custom_id":"a","response":{"status_code":0,"request_id":"","body":{}},"error":null}"#,
                "0: {}",
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(error(line), expected, "{line}");
        }
        assert!(read_outcome(r#"{"custom_id":"a","response":null,"error":null}"#).is_err());
    }
}
