//! An answer that comes in events: taken apart at any cut, put together, and judged at its end.

use super::Api;
use super::reply::{Said, bad, beginning, error_named};
use crate::job::{Answer, Failure, FailureKind, Transport};

/// What an event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing that shows.
    Nothing,
    /// It brought a piece of the answer.
    Content,
    /// It ended the answer.
    End,
}

/// A reader of the events of one answer.
#[derive(Debug)]
pub struct Stream<'a> {
    api: &'a Api,
    lines: Lines,
    said: Said,
    has_content: bool,
    end: Option<Result<(), Failure>>,
}

impl<'a> Stream<'a> {
    pub(super) fn new(api: &'a Api) -> Self {
        let said = Said { is_paired_by_id: api.transport() == Transport::Ws, ..Said::default() };
        Self { api, lines: Lines::default(), said, has_content: false, end: None }
    }

    /// Takes a piece of a stream of server-sent events, cut anywhere. True when the answer has
    /// ended, and nothing that follows is of any consequence.
    pub fn feed(&mut self, bytes: &[u8]) -> bool {
        let mut lines = std::mem::take(&mut self.lines);
        lines.feed(bytes, &mut |event| self.of_lines(&event));
        self.lines = lines;
        self.end.is_some()
    }

    /// Takes an event of a stream of server-sent events.
    fn of_lines(&mut self, event: &Event<'_>) -> bool {
        if !event.is_error {
            // Some servers keep a connection alive with events of nothing.
            return if event.data.is_empty() { self.end.is_some() } else { self.event(event.data) };
        }
        self.end.get_or_insert_with(|| Err(error_named(event.data)));
        true
    }

    /// Takes what the stream ended with, where that is a whole event but for the empty line behind
    /// it, which some servers leave out. What cannot be read was cut off.
    fn end_lines(&mut self) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.end(&mut |event| self.of_lines(&event));
        if matches!(&self.end, Some(Err(failure)) if failure.kind == FailureKind::BadResponse) {
            self.end = None;
        }
    }

    /// Takes the data of one event. True when the answer has ended.
    pub fn event(&mut self, data: &[u8]) -> bool {
        if self.end.is_none() {
            match self.api.event(&mut self.said, data) {
                Ok(Step::Nothing) => {}
                Ok(Step::Content) => self.has_content = true,
                Ok(Step::End) => self.end = Some(Ok(())),
                Err(failure) => self.end = Some(Err(failure)),
            }
        }
        self.end.is_some()
    }

    /// Whether a piece of the answer has come.
    #[must_use]
    pub fn has_content(&self) -> bool {
        self.has_content
    }

    /// The id that the endpoint gave the answer.
    #[must_use]
    pub fn response_id(&self) -> Option<&str> {
        self.said.id.as_deref()
    }

    /// Whether the last event of the answer had the same id as its first: whatever follows can be told from it.
    #[must_use]
    pub fn is_paired(&self) -> bool {
        self.said.is_paired
    }

    /// Whether the answer has failed. More of it may come.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        matches!(&self.end, Some(Err(_)))
    }

    /// The answer, if it came to its end. `status` is that of the reply it came in, if any.
    ///
    /// # Errors
    /// What it broke off with, or that it is none.
    pub fn finish(mut self, status: Option<u16>) -> Result<Answer, Failure> {
        if self.end.is_none() {
            self.end_lines();
        }
        let result = match self.end {
            Some(Ok(())) => self.said.judge(),
            Some(Err(failure)) if self.has_content && failure.kind == FailureKind::BrokenAnswer => {
                Err(self.said.failed(failure))
            }
            Some(Err(failure)) => Err(failure),
            // Some servers leave out the marker behind it.
            None if self.said.may_end => self.said.judge(),
            None => {
                let message = "the stream of events ended before the answer did";
                let failure = Failure::new(FailureKind::BrokenAnswer, message);
                Err(if self.has_content { self.said.failed(failure) } else { failure })
            }
        };
        self.api.masked(result.map_err(|mut failure| {
            // The answer that broke off has none, like one whose body did.
            if failure.kind != FailureKind::BrokenAnswer {
                failure.status = status.or(failure.status);
            }
            failure
        }))
    }
}

/// Reads an event's JSON.
pub(super) fn parse<'a, T: serde::Deserialize<'a>>(data: &'a [u8]) -> Result<T, Failure> {
    // Looked through once, and not string by string.
    let read = match std::str::from_utf8(data) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(data),
    };
    read.map_err(|error| {
        bad(format!("an event of the answer cannot be read ({error}): {}", beginning(data)))
    })
}

/// Takes a stream of server-sent events apart, as far as it carries JSON: lines end with a line
/// feed, a carriage return or both; `data:` lines of an event are joined; of its name it counts
/// whether that is `error`; the rest says nothing.
/// <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    is_error: bool,
    after_return: bool,
    is_begun: bool,
}

/// An event of a stream of server-sent events.
struct Event<'a> {
    /// Whether `error` is its name.
    is_error: bool,
    data: &'a [u8],
}

/// What takes events; true when it wants no more.
type Sink<'a> = &'a mut dyn FnMut(Event<'_>) -> bool;

impl Lines {
    fn feed(&mut self, mut bytes: &[u8], event: Sink<'_>) {
        while let Some(&first) = bytes.first() {
            if std::mem::take(&mut self.after_return) && first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) else {
                self.line.extend_from_slice(bytes);
                return;
            };
            let line = &bytes[..end];
            self.after_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            let is_over = if self.line.is_empty() {
                self.end_line(line, event)
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                let is_over = self.end_line(&whole, event);
                // Its memory is used again.
                whole.clear();
                self.line = whole;
                is_over
            };
            if is_over {
                return;
            }
        }
    }

    /// Ends the line and the event that are still open.
    fn end(&mut self, event: Sink<'_>) {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.end_line(&line, event);
        }
        self.end_line(b"", event);
    }

    /// Takes a line without its end. True when the answer has ended.
    fn end_line(&mut self, mut text: &[u8], event: Sink<'_>) -> bool {
        if !std::mem::replace(&mut self.is_begun, true) {
            text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        }
        let mut is_over = false;
        if text.is_empty() {
            let is_error = std::mem::take(&mut self.is_error);
            if std::mem::take(&mut self.has_data) || is_error {
                is_over = event(Event { is_error, data: &self.data });
                self.data.clear();
            }
        } else if let Some(name) = text.strip_prefix(b"event:") {
            self.is_error = name.strip_prefix(b" ").unwrap_or(name) == b"error";
        } else if let Some(value) = text.strip_prefix(b"data:") {
            if std::mem::replace(&mut self.has_data, true) {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        }
        is_over
    }
}
