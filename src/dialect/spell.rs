//! What became of a row as a line of an output, in the dialect that is wanted.
//!
//! It is made of the row's envelope and of the attempts that the envelope came of, as journals keep both, and of
//! nothing else: rows that are long done can be spelled otherwise without a call.

use std::borrow::Cow;
use std::io::Write;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Answer, Content, Dialect, dria, openai, prompts};
use crate::format::telemetry::{self, Facts};
use crate::format::{envelope, json};
use crate::job::{JobSpec, Protocol, Usage, unix_ms};

/// Writes the lines of one job in one dialect.
#[derive(Debug, Clone)]
pub struct Speller {
    format: Dialect,
    /// Whether answers are whole response bodies: those of the `openai` dialect are.
    has_bodies: bool,
    /// Whether answers are vectors.
    has_vectors: bool,
    /// Whether answers are JSON of which the model wrote the text: those that fit a schema are, strings too.
    has_json: bool,
    /// Whether requests have strings as ids: a number is then that of a line whose id could not be read.
    has_strings: bool,
    /// The job's model, for answers of which it is not known who gave them.
    model: String,
    run: String,
}

/// What is known of a row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Told<'a> {
    /// Its envelope, without `input`.
    pub envelope: &'a [u8],
    /// The attempts that led to it, as a JSON list of what [`telemetry::write_attempt`] writes; empty where there
    /// were none.
    pub attempts: &'a [u8],
    /// What its line and its request were called in the output that it was taken over from, as journals keep it; empty
    /// where they had no names. Only `openai` has a place for them.
    pub named: &'a [u8],
    /// Which of the answers to its row it is, as [`envelope::mark`] spells it; empty where there is one. Only `rows`
    /// can say it.
    pub mark: &'a [u8],
    /// What its input is called, where there are several.
    pub input_name: &'a str,
    /// The row, if it is to be shown. Only `rows` can.
    pub input: Option<&'a [u8]>,
}

/// An envelope cannot be read: rowmill did not write it.
#[derive(Debug, thiserror::Error)]
#[error("an envelope cannot be read: {0}")]
pub struct Unreadable(#[from] serde_json::Error);

/// An envelope, as far as other dialects have a place for it.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    row_number: u64,
    #[serde(borrow)]
    result: &'a RawValue,
    #[serde(borrow)]
    error: Option<Failed<'a>>,
}

/// What a line was called that was taken over.
#[derive(Deserialize, Default)]
struct Names<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    request_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Failed<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    message: Cow<'a, str>,
    #[serde(borrow)]
    class: Cow<'a, str>,
    status: Option<u16>,
    raw: Option<String>,
}

impl Speller {
    /// A writer of a job's lines. `run` tells the names (`id`) of lines of the `openai` dialect from those of other
    /// runs: the same one gives the same names.
    #[must_use]
    pub fn new(job: &JobSpec, format: Dialect, run: &str) -> Self {
        Self {
            format,
            has_bodies: job.dialect == Dialect::OpenAi,
            has_vectors: job.protocol == Protocol::Embeddings,
            has_json: job.schema.is_some(),
            has_strings: job.dialect.is_request(),
            model: job.model.clone(),
            run: run.to_owned(),
        }
    }

    /// Appends a row's line, with its line end.
    ///
    /// # Errors
    /// When the envelope cannot be read; as it is, it can always be written.
    pub fn line(&self, out: &mut Vec<u8>, told: &Told<'_>) -> Result<(), Unreadable> {
        if self.format.is_rows() {
            envelope::write_line(out, told.envelope, told.mark, told.input);
            return Ok(());
        }
        let envelope: Envelope<'_> = serde_json::from_slice(told.envelope)?;
        let attempts = telemetry::read_attempts(told.attempts);
        // The last is the one that brought the answer, or the failure.
        let attempt = attempts.last();
        let id = envelope.id.get();
        // In an input an id may stand twice, and in several inputs once in each.
        let seed = || format!("{}\0{}\0{}", self.run, told.input_name, envelope.row_number);
        match (self.format, &envelope.error) {
            (Dialect::OpenAi, None) => {
                let result = envelope.result.get();
                self.response(out, (&seed(), &string(id)), (result, told.named), attempt);
            }
            (Dialect::OpenAi, Some(failed)) => {
                self.failure(out, (&seed(), &self.known(id)), failed, attempt);
            }
            (Dialect::Dria, None) => {
                self.short(out, dria::write_answer, (&string(id), &envelope), attempt);
            }
            (_, None) => self.short(out, prompts::write_answer, (id, &envelope), attempt),
            (Dialect::Dria, Some(failed)) => {
                let (status, message) = failed.told();
                let id = self.known(id);
                let id = openai::string_or_null(&id);
                dria::write_failure(out, id, model(attempt), status, message);
            }
            (_, Some(failed)) => {
                let (status, message) = failed.told();
                prompts::write_failure(out, id, model(attempt), status, message);
            }
        }
        Ok(())
    }

    /// The id of a row that failed, where it must be a string; a number where only that tells the line from others.
    fn known<'i>(&self, id: &'i str) -> Cow<'i, str> {
        if self.has_strings || id == "null" { Cow::Borrowed(id) } else { string(id) }
    }

    /// An answer as `prompts` and `dria` have it.
    fn short(
        &self,
        out: &mut Vec<u8>,
        write: fn(&mut Vec<u8>, &str, Option<&str>, Answer<'_>, Option<u64>),
        (id, envelope): (&str, &Envelope<'_>),
        attempt: Option<&Facts<'_>>,
    ) {
        let result = envelope.result.get();
        let said = if self.has_bodies { Some(openai::content(result)) } else { None };
        let answer = match &said {
            // A body that serde_json has no value for (half a surrogate, 1e400) is given back whole.
            Some(Content::Text(text)) if text == result => Answer::Json(result),
            Some(Content::Text(text)) => Answer::Text(text),
            // A text is JSON as well: it stays as it is spelled.
            Some(Content::Json(_)) | None => Answer::Json(result),
        };
        let tokens = attempt.and_then(|it| it.usage).map(|usage| usage.output_tokens);
        write(out, id, model(attempt), answer, tokens);
    }

    /// An answer as `openai` has it.
    fn response(
        &self,
        out: &mut Vec<u8>,
        named: (&str, &str),
        (result, earlier): (&str, &[u8]),
        attempt: Option<&Facts<'_>>,
    ) {
        // An answer over a WebSocket has no status, nor has one that was taken over.
        let status = attempt.and_then(|it| it.status).unwrap_or(200);
        let body = |out: &mut Vec<u8>| match (self.has_bodies, self.has_vectors) {
            (true, _) => out.extend_from_slice(result.as_bytes()),
            (false, true) => self.embedding(out, result, attempt),
            (false, false) => self.completion(out, named, result, attempt),
        };
        let earlier: Names<'_> = serde_json::from_slice(earlier).unwrap_or_default();
        let answered = (status, request_id(attempt).or(earlier.request_id.as_deref()));
        match &earlier.id {
            Some(name) => openai::write_named_response(out, named, name, answered, body),
            None => openai::write_response(out, named, answered, body),
        }
    }

    /// Appends a body in the shape of Chat Completions, made of what is known. What its type wants and nobody knows is
    /// made up: an `id` of the line's, a `created` of 0, the model that was asked for.
    fn completion(
        &self,
        out: &mut Vec<u8>,
        (seed, id): (&str, &str),
        result: &str,
        attempt: Option<&Facts<'_>>,
    ) {
        let created = attempt.and_then(|it| unix_ms(&it.start_time)).unwrap_or_default() / 1000;
        let _ = write!(
            out,
            "{{\"id\":\"chatcmpl-{}\",\"object\":\"chat.completion\",\"created\":{created},\"model\":",
            openai::hash_of(seed, id)
        );
        json::write_string(out, model(attempt).unwrap_or(&self.model));
        out.extend_from_slice(
            b",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":",
        );
        if result.starts_with('"') && !self.has_json {
            out.extend_from_slice(result.as_bytes());
        } else {
            json::write_string(out, result);
        }
        out.extend_from_slice(b"},\"finish_reason\":");
        json::write_string(out, finish_reason(attempt));
        out.extend_from_slice(b"}]");
        if let Some(usage) = attempt.and_then(|attempt| attempt.usage) {
            write_usage(out, usage);
        }
        out.push(b'}');
    }

    /// Appends a body in the shape of Embeddings.
    fn embedding(&self, out: &mut Vec<u8>, vector: &str, attempt: Option<&Facts<'_>>) {
        let _ = write!(
            out,
            "{{\"object\":\"list\",\"data\":[{{\"object\":\"embedding\",\"index\":0,\
             \"embedding\":{vector}}}],\"model\":"
        );
        json::write_string(out, model(attempt).unwrap_or(&self.model));
        if let Some(usage) = attempt.and_then(|attempt| attempt.usage) {
            let (input, all) = (usage.input_tokens, usage.total());
            let _ = write!(out, ",\"usage\":{{\"prompt_tokens\":{input},\"total_tokens\":{all}}}");
        }
        out.push(b'}');
    }

    /// A failure as `openai` has it.
    fn failure(
        &self,
        out: &mut Vec<u8>,
        (seed, id): (&str, &str),
        failed: &Failed<'_>,
        attempt: Option<&Facts<'_>>,
    ) {
        let (status, message) = failed.told();
        let Some(status) = status else {
            let result = Err(openai::NoResponse { code: failed.code(), message });
            return openai::write(out, &openai::Reply { seed, id, result });
        };
        // In other jobs it is what the model said.
        let raw = failed.raw.as_deref().filter(|raw| self.has_bodies && !raw.trim().is_empty());
        let body = |out: &mut Vec<u8>| match raw {
            Some(raw) => openai::write_body(out, raw.as_bytes()),
            None => {
                out.extend_from_slice(b"{\"error\":{\"message\":");
                json::write_string(out, message);
                out.extend_from_slice(b",\"type\":");
                json::write_string(out, &failed.kind);
                out.extend_from_slice(b",\"param\":null,\"code\":");
                json::write_string(out, &failed.class);
                out.extend_from_slice(b"}}");
            }
        };
        openai::write_response(out, (seed, id), (status, request_id(attempt)), body);
    }
}

impl Failed<'_> {
    /// The status with which the server refused, if it did, and its words. An answer that came with a status of
    /// success and was not one that was asked for must not look like one.
    fn told(&self) -> (Option<u16>, &str) {
        let Some(status) = self.status.filter(|status| !(200..300).contains(status)) else {
            return (None, &self.message);
        };
        // Lines have the status in a place of its own.
        let said = self.message.strip_prefix(&format!("HTTP {status}"));
        let message = match said {
            Some("") => "no message",
            Some(said) => said.strip_prefix(": ").unwrap_or(&self.message),
            None => &self.message,
        };
        (Some(status), message)
    }

    /// What failures without a status are called: as OpenAI's Batch API calls it, if it does.
    fn code(&self) -> &str {
        match &*self.class {
            "timeout" => "request_timeout",
            "invalid_json" | "invalid_utf8" => "invalid_json_line",
            class => class,
        }
    }
}

/// The model that answered, or that was asked; nothing where nobody was asked, or it is not known any more.
fn model<'a>(attempt: Option<&'a Facts<'_>>) -> Option<&'a str> {
    attempt.map(|attempt| &*attempt.model).filter(|model| !model.is_empty())
}

fn request_id<'a>(attempt: Option<&'a Facts<'_>>) -> Option<&'a str> {
    attempt.and_then(|attempt| attempt.request_id.as_deref())
}

/// An id where it must be a string: a number in quotes.
fn string(id: &str) -> Cow<'_, str> {
    if id.starts_with('"') { Cow::Borrowed(id) } else { Cow::Owned(format!("\"{id}\"")) }
}

/// Appends the tokens of a completion as Chat Completions has them.
fn write_usage(out: &mut Vec<u8>, usage: Usage) {
    let (input, output, all) = (usage.input_tokens, usage.output_tokens, usage.total());
    // Writing to a Vec cannot fail.
    let _ = write!(
        out,
        ",\"usage\":{{\"prompt_tokens\":{input},\"completion_tokens\":{output},\
             \"total_tokens\":{all}"
    );
    if usage.cached_input_tokens > 0 {
        let cached = usage.cached_input_tokens;
        let _ = write!(out, ",\"prompt_tokens_details\":{{\"cached_tokens\":{cached}}}");
    }
    if usage.reasoning_tokens > 0 {
        let of_it = usage.reasoning_tokens;
        let _ = write!(out, ",\"completion_tokens_details\":{{\"reasoning_tokens\":{of_it}}}");
    }
    out.push(b'}');
}

/// Why the model stopped, in the words of Chat Completions; what has none there stopped of itself.
fn finish_reason<'a>(attempt: Option<&'a Facts<'_>>) -> &'a str {
    const REASONS: [&str; 5] = ["stop", "length", "tool_calls", "content_filter", "function_call"];
    let reason = attempt.and_then(|attempt| attempt.finish_reason.as_deref());
    reason.filter(|reason| REASONS.contains(reason)).unwrap_or("stop")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::read_outcome;
    use super::*;
    use crate::format::envelope::Verdict;
    use crate::job::{Attempt, Failure, FailureKind, Id};

    fn job(dialect: &str, protocol: &str) -> JobSpec {
        let text = format!(
            r#"{{"dialect":"{dialect}","model":"m","protocol":"{protocol}","prompt":"","instruction":null,
                "parameters":{{}},"id_field":null,
                "selection":{{"offset":0,"limit":null,"sample":null}},"on_duplicate":"error",
                "on_missing_field":"error","max_row_bytes":9,"include_input":false}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn attempts(status: Option<u16>, usage: Option<Usage>) -> Vec<u8> {
        let attempt = Attempt {
            number: 1,
            model: "m-1".into(),
            endpoint: None,
            start_ms: 0,
            duration: Duration::ZERO,
            time_to_response: None,
            ttft: None,
            usage,
            cost: None,
            assumed: None,
            status,
            request_id: Some("req-1".into()),
            finish_reason: Some("stop".into()),
            error: None,
        };
        let mut list = b"[".to_vec();
        telemetry::write_attempt(&mut list, &attempt);
        list.push(b']');
        list
    }

    const USAGE: Usage = Usage {
        input_tokens: 5,
        output_tokens: 3,
        cached_input_tokens: 2,
        reasoning_tokens: 1,
        cache_write_tokens: 0,
    };

    /// The line of a verdict on the row `id`, with the hash in its `id` left out.
    fn line(of: &JobSpec, format: Dialect, id: &str, verdict: Verdict<'_>, tried: &[u8]) -> String {
        let (mut envelope, mut out) = (Vec::new(), Vec::new());
        envelope::write(&mut envelope, &Id::parse(id).unwrap(), 4, verdict);
        let told = Told { envelope: &envelope, attempts: tried, ..Told::default() };
        Speller::new(of, format, "run").line(&mut out, &told).unwrap();
        let text = String::from_utf8(out).unwrap();
        ["batch_req_", "req_", "chatcmpl-"].into_iter().fold(text, |text, name| {
            let (before, behind) = match text.split_once(&format!("\"{name}")) {
                Some(parts) => parts,
                None => return text,
            };
            format!("{before}\"{}", &behind[32..])
        })
    }

    #[test]
    fn bodies_stay_as_they_came_and_short_lines_have_what_they_say() {
        let of = job("openai", "chat");
        let said = r#"{"id":"c-1","n":1.50,"choices":[{"message":{"content":"Hi"}}]}"#;
        let tried = attempts(Some(200), Some(USAGE));
        let to = |format, body| line(&of, format, r#""r\u0031""#, Verdict::Json(body), &tried);
        assert_eq!(
            to(Dialect::OpenAi, said),
            format!(
                r#"{{"id":"","custom_id":"r\u0031","response":{{"status_code":200,"request_id":"req-1","body":{said}}},"error":null}}"#
            ) + "\n"
        );
        assert_eq!(
            to(Dialect::Prompts, said),
            "{\"id\":\"r\\u0031\",\"model\":\"m-1\",\"output\":\"Hi\",\"tokens\":3}\n"
        );
        assert_eq!(
            to(Dialect::Dria, said),
            "{\"custom_id\":\"r\\u0031\",\"model\":\"m-1\",\"result\":\"Hi\",\"token_count\":3}\n"
        );
        let called = r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"1","function":{"name":"f"}}]}}],"x":1e3}"#;
        let half = r#"{"choices":[{"message":{"content":"half \ud83d"}}]}"#;
        for whole in [called, half] {
            assert_eq!(
                to(Dialect::Prompts, whole),
                format!(r#"{{"id":"r\u0031","model":"m-1","output":{whole},"tokens":3}}"#) + "\n"
            );
        }
        assert_eq!(
            to(Dialect::Rows, said),
            format!(r#"{{"id":"r\u0031","row_number":4,"ok":true,"result":{said},"error":null}}"#)
                + "\n"
        );
    }

    #[test]
    fn bodies_are_made_of_what_journals_hold() {
        let tried = attempts(None, Some(USAGE));
        let to_openai =
            |of: &JobSpec, verdict, tried| line(of, Dialect::OpenAi, "7", verdict, tried);
        let chat = job("rows", "messages");
        assert_eq!(
            to_openai(&chat, Verdict::Text("a \"b\"\n"), &tried),
            "{\"id\":\"\",\"custom_id\":\"7\",\"response\":{\"status_code\":200,\"request_id\":\"req-1\",\
             \"body\":{\"id\":\"\",\"object\":\"chat.completion\",\"created\":0,\"model\":\"m-1\",\"choices\":[{\"index\":0,\
             \"message\":{\"role\":\"assistant\",\"content\":\"a \\\"b\\\"\\n\"},\"finish_reason\":\"stop\"}],\
             \"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3,\"total_tokens\":8,\
             \"prompt_tokens_details\":{\"cached_tokens\":2},\
             \"completion_tokens_details\":{\"reasoning_tokens\":1}}}},\"error\":null}\n"
        );
        // What was taken over has no attempts.
        assert_eq!(
            to_openai(&chat, Verdict::Json("{\"n\":1.50}"), b"[]"),
            "{\"id\":\"\",\"custom_id\":\"7\",\"response\":{\"status_code\":200,\"request_id\":\"\",\
             \"body\":{\"id\":\"\",\"object\":\"chat.completion\",\"created\":0,\"model\":\"m\",\"choices\":[{\"index\":0,\
             \"message\":{\"role\":\"assistant\",\"content\":\"{\\\"n\\\":1.50}\"},\
             \"finish_reason\":\"stop\"}]}},\"error\":null}\n"
        );
        // Of a text that is JSON the model wrote the quotes as well.
        let fitting = JobSpec { schema: Some("{}".into()), ..chat };
        let text = to_openai(&fitting, Verdict::Json("\"x\""), b"[]");
        assert!(text.contains(r#""content":"\"x\"""#), "{text}");
        let vectors = job("rows", "embeddings");
        let usage = Usage { input_tokens: 5, ..Usage::default() };
        let tried = attempts(Some(200), Some(usage));
        assert_eq!(
            to_openai(&vectors, Verdict::Json("[0.50,1]"), &tried),
            "{\"id\":\"\",\"custom_id\":\"7\",\"response\":{\"status_code\":200,\"request_id\":\"req-1\",\
             \"body\":{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\
             \"embedding\":[0.50,1]}],\"model\":\"m-1\",\"usage\":{\"prompt_tokens\":5,\
             \"total_tokens\":5}}},\"error\":null}\n"
        );
    }

    #[test]
    fn failures_are_the_servers_words_or_a_name_for_what_happened() {
        let refused = r#"{"error":{"message":"slow","type":"x","param":null,"code":null}}"#;
        let server = |status: u16, message: &str| {
            Failure::new(FailureKind::Server, message).with_status(status)
        };
        // The failure; its line of a job of bodies behind the custom_id, and in `prompts`.
        let cases = [
            (
                server(503, "HTTP 503: slow").with_raw(refused),
                format!(r#"{{"status_code":503,"request_id":"req-1","body":{refused}}},"error":null"#),
                "503: slow",
            ),
            (
                server(502, "HTTP 502").with_raw("<html>\n"),
                r#"{"status_code":502,"request_id":"req-1","body":{"error":{"message":"<html>","type":"invalid_response","param":null,"code":null}}},"error":null"#.into(),
                "502: no message",
            ),
            (
                server(503, "HTTP 503: none").with_raw(" "),
                r#"{"status_code":503,"request_id":"req-1","body":{"error":{"message":"none","type":"ServerError","param":null,"code":"server_error"}}},"error":null"#.into(),
                "503: none",
            ),
            (
                Failure::new(FailureKind::EmptyAnswer, "it holds no text").with_status(200).with_raw("{}"),
                r#"null,"error":{"code":"empty_answer","message":"it holds no text"}"#.into(),
                "it holds no text",
            ),
            (
                Failure::new(FailureKind::Timeout, "no answer"),
                r#"null,"error":{"code":"request_timeout","message":"no answer"}"#.into(),
                "no answer",
            ),
            (
                Failure::new(FailureKind::InvalidUtf8, "at byte 7"),
                r#"null,"error":{"code":"invalid_json_line","message":"at byte 7"}"#.into(),
                "at byte 7",
            ),
        ];
        let (of, tried) = (job("openai", "chat"), attempts(Some(200), None));
        for (failure, expected, short) in cases {
            let to = |format| line(&of, format, "4", Verdict::Failed(&failure, 1), &tried);
            let openai = to(Dialect::OpenAi);
            assert_eq!(
                openai,
                format!("{{\"id\":\"\",\"custom_id\":null,\"response\":{expected}}}\n")
            );
            assert!(read_outcome(Dialect::OpenAi, &openai).unwrap().result.is_err());
            assert_eq!(
                to(Dialect::Prompts),
                format!("{{\"id\":4,\"model\":\"m-1\",\"error\":\"{short}\"}}\n")
            );
            assert_eq!(
                to(Dialect::Dria),
                format!("{{\"custom_id\":null,\"model\":\"m-1\",\"error\":\"{short}\"}}\n")
            );
        }
        // Elsewhere `raw` is what the model said, which is no body.
        let failure = server(500, "HTTP 500: x").with_raw("said");
        let verdict = Verdict::Failed(&failure, 1);
        let text = line(&job("prompts", "chat"), Dialect::OpenAi, "4", verdict, b"");
        assert!(text.contains(r#""request_id":"","body":{"error":{"message":"x","#), "{text}");
    }

    #[test]
    fn what_is_no_envelope_is_an_error_and_not_a_line() {
        let told = Told { envelope: b"{\"id\":1}", ..Told::default() };
        for format in [Dialect::OpenAi, Dialect::Prompts, Dialect::Dria] {
            let mut out = Vec::new();
            assert!(Speller::new(&job("rows", "chat"), format, "").line(&mut out, &told).is_err());
            assert!(out.is_empty());
        }
    }

    proptest! {
        /// Whatever was said, in whatever job: it is one line, and says the same.
        #[test]
        fn what_is_written_is_read_back(said in "\\PC*|(.|\n|\r|\u{2028}|\0|\"|\\\\)*", number in any::<u64>()) {
            let quoted = serde_json::Value::from(said.clone()).to_string();
            let body = format!("{{\"choices\":[{{\"message\":{{\"content\":{quoted}}}}}]}}");
            let id = number.to_string();
            for (of, verdict) in [
                (job("rows", "chat"), Verdict::Text(&said)),
                (job("dria", "chat"), Verdict::Text(&said)),
                (job("openai", "chat"), Verdict::Json(&body)),
            ] {
                for format in [Dialect::OpenAi, Dialect::Prompts, Dialect::Dria] {
                    let text = line(&of, format, &id, verdict, &attempts(Some(200), None));
                    prop_assert_eq!(text.matches('\n').count(), 1);
                    let outcome = read_outcome(format, text.trim_end_matches('\n')).unwrap();
                    prop_assert_eq!(outcome.result, Ok(Content::Text(said.clone())));
                    prop_assert_eq!(outcome.id.trim_matches('"'), &*id);
                }
            }
        }
    }
}
