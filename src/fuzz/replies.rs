//! Hostile bytes for what endpoints say, and for what is shown of it.

use std::path::Path;
use std::time::{Duration, Instant};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;

use crate::dialect::{Speller, Told, read_outcome};
use crate::format::json::Object;
use crate::format::{envelope, telemetry};
use crate::job::{
    Attempt, Content, Dialect, Endpoint, Failure, Id, JobSpec, Protocol, Transport, Usage,
};
use crate::policy::{self, Allotment};
use crate::provider::{Api, Model, Secret, Wording, told};
use crate::telemetry as screen;

/// Characters that a failure's message may have; it is kept with every attempt.
const LONGEST_MESSAGE: usize = 1000;

const KEY: &str = "sk-0123456789abcdef";

/// Any reply is an answer or a failure that says in a sentence what is wrong and keeps the key to
/// itself, and both come back from journal and output.
///
/// The first line is the status, and lines with a colon behind it are headers; the body stands
/// behind an empty line.
pub(super) fn reply(bytes: &[u8], _: &Path) {
    let (status, headers, body) = parse(bytes);
    heed(&headers);
    for protocol in Protocol::ALL {
        check(protocol, status, &headers, body, bytes);
    }
    // Of requests that are passed on the body is the answer, whatever endpoint it is of.
    for dialect in [Dialect::OpenAi, Dialect::Dria] {
        let passed = Model::Called(api_of(Protocol::Chat, dialect));
        for endpoint in Endpoint::ALL {
            match passed.decode_of(endpoint, status, &headers, body, 0) {
                Ok(answer) => {
                    let content = answer.content.as_str();
                    assert!((200..300).contains(&status) && !content.is_empty());
                    let is_whole = dialect == Dialect::OpenAi;
                    assert!(!is_whole || serde_json::from_str::<&RawValue>(content).is_ok());
                    assert!(!is_whole || !content.contains(['\n', '\r']), "it is one line");
                }
                Err(failure) => {
                    holds(&failure, status);
                    let raw = failure.raw.unwrap_or_default();
                    assert!(!raw.contains(KEY), "the key is kept");
                }
            }
        }
    }
    // Whatever a body is that can be passed on, with another model in it it is one still.
    if let Ok(text) = std::str::from_utf8(body)
        && let Ok(before) = Object::parse(text)
    {
        let passed = Model::Called(api_of(Protocol::Chat, Dialect::OpenAi));
        let sent = passed.encode(before.text(), Wording::default());
        let sent = std::str::from_utf8(&sent).expect("it is text");
        let after = Object::parse(sent).expect("it is an object");
        assert_eq!(after.get("model"), Some("\"m\""));
        let others = |of: &Object<'_>| {
            let fields = of.fields().filter(|(name, _)| *name != "model");
            fields.map(|(name, it)| (name.to_owned(), it.to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(others(&after), others(&before));
    }
}

/// Whatever a head tells of limits, a call is not held back for more than a minute.
fn heed(headers: &HeaderMap) {
    let Some((calls, tokens)) = told(headers, 1_763_700_000_000) else { return };
    let now = Instant::now();
    for limit in [calls, tokens] {
        let mut allotment = Allotment::default();
        allotment.told(now, now, 0, limit);
        if let Err(until) = allotment.may_start(now, 1_000) {
            assert!(until > now && until <= now + Allotment::LONGEST, "{limit:?}");
        }
    }
}

fn job(protocol: Protocol, dialect: Dialect) -> JobSpec {
    let job: JobSpec = serde_json::from_str(
        r#"{"model":"m","prompt":"","instruction":null,"parameters":{},"id_field":null,
            "selection":{"offset":0,"limit":null,"sample":null},"on_duplicate":"error",
            "on_missing_field":"error","max_row_bytes":9,"include_input":false}"#,
    )
    .expect("it is a job");
    JobSpec { protocol, dialect, ..job }
}

fn api_of(protocol: Protocol, dialect: Dialect) -> Api {
    let job = job(protocol, dialect);
    Api::new(&job, Transport::Http, Secret::new(KEY)).expect("it is a key")
}

fn check(protocol: Protocol, status: u16, headers: &HeaderMap, body: &[u8], bytes: &[u8]) {
    let model = Model::Called(api_of(protocol, Dialect::Rows));
    let mut attempt = Attempt {
        number: 1,
        model: "m".to_owned(),
        endpoint: None,
        start_ms: 0,
        duration: Duration::ZERO,
        time_to_response: None,
        ttft: None,
        usage: None,
        cost: None,
        assumed: None,
        status: Some(status),
        request_id: None,
        finish_reason: None,
        error: None,
    };
    let (mut written, mut kept) = (Vec::new(), Vec::new());
    let id = Id::from_row_number(1);
    match model.decode(status, headers, body, 1_763_700_000_000) {
        Ok(answer) => {
            assert!((200..300).contains(&status) && !answer.content.as_str().is_empty());
            let verdict = match &answer.content {
                Content::Text(text) => envelope::Verdict::Text(text),
                Content::Json(value) => envelope::Verdict::Json(value.get()),
            };
            envelope::write(&mut written, &id, 1, verdict);
            assert!(!written.contains(&b'\n'), "an envelope is one line");
            let told = answer.model.iter().chain(&answer.finish_reason).map(String::len);
            assert!(told.max() <= Some(LONGEST_MESSAGE), "what is told of an answer is short");
            attempt.model = answer.model.unwrap_or_default();
            attempt.finish_reason = answer.finish_reason;
            attempt.usage = answer.usage;
            let mut sum = Usage::default();
            for usage in answer.usage.iter().chain(&answer.usage) {
                sum.add(usage);
            }
            assert!(sum.total() >= answer.usage.map_or(0, |usage| usage.total()));
        }
        Err(failure) => {
            holds(&failure, status);
            let given = String::from_utf8_lossy(bytes).replace(KEY, "");
            // Half of a key is too much of it.
            let half = &KEY[..KEY.len() / 2];
            assert!(!failure.message.contains(half) || given.contains(half), "{failure:?}");
            envelope::write(&mut written, &id, 1, envelope::Verdict::Failed(&failure, 1));
            let paid = failure.paid.unwrap_or_default();
            let told = paid.model.iter().chain(&paid.finish_reason).map(|it| it.chars().count());
            assert!(told.max() <= Some(LONGEST_MESSAGE), "what is told of a reply is short");
            (attempt.finish_reason, attempt.usage) = (paid.finish_reason, paid.usage);
            attempt.error = Some((failure.kind.name(), failure.message));
        }
    }
    kept.push(b'[');
    telemetry::write_attempt(&mut kept, &attempt);
    kept.push(b']');
    let read = envelope::read(&written).expect("an envelope can be read");
    assert_eq!(read.ok, attempt.error.is_none());
    let facts = telemetry::read_attempts(&kept);
    assert_eq!(facts.len(), 1, "so can an attempt");
    assert_eq!((facts[0].usage, facts[0].ok), (attempt.usage, read.ok));
    assert_eq!(facts[0].finish_reason.as_deref(), attempt.finish_reason.as_deref());
    // In all others answers are what they are in rows.
    for dialect in [Dialect::Rows, Dialect::OpenAi] {
        spelled(&job(protocol, dialect), (&written, &kept), read.ok);
    }
}

/// What a reply came to is one line in every dialect, and never looks like an answer where it is none.
fn spelled(job: &JobSpec, (envelope, attempts): (&[u8], &[u8]), is_ok: bool) {
    for format in [Dialect::OpenAi, Dialect::Prompts, Dialect::Dria] {
        let mut line = Vec::new();
        let told = Told { envelope, attempts, ..Told::default() };
        Speller::new(job, format, "run").line(&mut line, &told).expect("it is an envelope");
        let text = String::from_utf8(line).expect("a line is text");
        let text = text.strip_suffix('\n').expect("a line has an end");
        assert!(!text.contains('\n'), "{text}");
        let outcome = read_outcome(format, text).expect("a line can be read");
        // A text is no body, which answers to requests are.
        let may_be_none = job.dialect == Dialect::OpenAi && format == Dialect::OpenAi;
        assert!(outcome.result.is_ok() == is_ok || may_be_none && is_ok, "{text}");
    }
}

/// Events of an answer come to the same wherever they are cut, are never an answer without their last
/// one, and what is told of them is short and keeps the key to itself.
pub(super) fn events(bytes: &[u8], _: &Path) {
    for protocol in [Protocol::Chat, Protocol::Responses, Protocol::Messages] {
        let api = api_of(protocol, Dialect::Rows);
        let read = |cut: usize| {
            let mut stream = api.stream();
            let has_ended = stream.feed(&bytes[..cut]);
            assert!(stream.feed(&bytes[cut..]) || !has_ended, "what has ended does not go on");
            (stream.has_content(), stream.finish(Some(200)))
        };
        let whole = read(bytes.len());
        for cut in [0, 1, bytes.len() / 2, bytes.len().saturating_sub(1)] {
            assert_eq!(read(cut.min(bytes.len())), whole, "cut at {cut}");
        }
        match whole {
            (_, Ok(answer)) => {
                let text = String::from_utf8_lossy(bytes);
                let last = ["[DONE]", "finish_reason", "response.", "message_stop"];
                assert!(last.iter().any(|last| text.contains(last) || text.contains('\\')));
                let told = answer.model.iter().chain(&answer.finish_reason).map(String::len);
                assert!(told.max() <= Some(LONGEST_MESSAGE), "what is told of an answer is short");
            }
            (_, Err(failure)) => {
                let message = &failure.message;
                assert!(!message.is_empty() && message.chars().count() <= LONGEST_MESSAGE);
                let given = String::from_utf8_lossy(bytes).replace(KEY, "");
                let half = &KEY[..KEY.len() / 2];
                assert!(!message.contains(half) || given.contains(half), "{failure:?}");
            }
        }
    }
}

fn holds(failure: &Failure, status: u16) {
    let message = &failure.message;
    assert_eq!(failure.status, Some(status));
    assert!(!message.is_empty());
    assert!(message.chars().count() <= LONGEST_MESSAGE, "{} bytes: {message}", message.len());
    assert!(failure.retry_after.is_none_or(|wait| wait <= YEAR));
}

fn parse(bytes: &[u8]) -> (u16, HeaderMap, &[u8]) {
    let at = bytes.windows(2).position(|two| two == b"\n\n");
    let (head, body) = at.map_or((bytes, &b""[..]), |at| (&bytes[..at], &bytes[at + 2..]));
    let mut lines = head.split(|byte| *byte == b'\n');
    let status = lines.next().and_then(|line| std::str::from_utf8(line).ok()?.parse().ok());
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (status.unwrap_or(200), headers, body)
}

const YEAR: Duration = Duration::from_secs(366 * 86_400);

/// Retry-After: whatever it says, a wait is longer than nothing and no longer than a year; a longer
/// number of seconds is no shorter wait. Four lines: milliseconds, the header, the date, our clock.
pub(super) fn retry_after(bytes: &[u8], _: &Path) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let mut next = || lines.next().filter(|line| !line.is_empty());
    let (ms, after, date) = (next(), next(), next());
    let now = next().and_then(|now| now.trim().parse().ok()).unwrap_or(1_763_700_000_000);
    for wait in [
        policy::retry_after(ms, after, date, now),
        policy::retry_after(None, after, date, now),
        policy::retry_after(None, after, None, now),
    ] {
        assert!(wait.is_none_or(|wait| wait > Duration::ZERO && wait <= YEAR), "{wait:?}");
    }
    if let Some(seconds) = after.and_then(|after| after.parse::<u64>().ok()) {
        let wait = |seconds: u64| policy::retry_after(None, Some(&seconds.to_string()), None, now);
        assert_eq!(wait(seconds).is_none(), seconds == 0);
        assert!(wait(seconds) <= wait(seconds.saturating_add(1)), "{seconds}");
    }
}

/// What is shown holds nothing that moves a cursor or turns writing around, and is of bounded
/// length; what needs no escape is shown as it is.
pub(super) fn escape(bytes: &[u8], _: &Path) {
    let text = String::from_utf8_lossy(bytes);
    let shown = screen::escape(&text);
    let is_unsafe = |c: char| {
        c.is_control()
            || "\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\
                \u{2066}\u{2067}\u{2068}\u{2069}\u{feff}"
                .contains(c)
    };
    assert!(!shown.contains(is_unsafe), "{shown:?}");
    assert!(shown.chars().count() <= 501 * 8, "it is cut");
    assert_eq!(screen::escape(&shown).chars().take(500).count(), shown.chars().take(500).count());
    if !text.contains(is_unsafe) && text.chars().count() <= 500 {
        assert_eq!(shown, text);
    }
}
