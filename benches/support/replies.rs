//! What the server says, prepared: the same answer whole and in events, in two protocols.

use std::fmt::Write;
use std::sync::atomic::{AtomicU32, Ordering};

use tungstenite::handshake::derive_accept_key;

/// The replies, byte for byte as they go out.
pub struct Replies {
    chat: Vec<u8>,
    chat_events: Vec<u8>,
    response: Vec<u8>,
    response_events: Vec<u8>,
    response_messages: Vec<u8>,
    // Where the response's id is in those, and how many there were.
    ids: Vec<usize>,
    made: AtomicU32,
}

/// The id of every response that has none of its own.
const ID: &str = "resp_benchmark";

impl Replies {
    pub fn new() -> Self {
        let text = "A short answer of the kind that a model gives. ".repeat(7);
        let response = response(&text, "completed");
        let events = response_events(&text, &response);
        let chat_events = chat_events(&text).into_iter().map(|data| format!("data: {data}\n\n"));
        let named = |(kind, data): &(&str, String)| format!("event: {kind}\ndata: {data}\n\n");
        let response_messages: Vec<u8> =
            events.iter().flat_map(|(_, data)| text_frame(data)).collect();
        Self {
            chat: whole(&chat(&text)),
            chat_events: in_chunks(chat_events),
            response: whole(&response),
            response_events: in_chunks(events.iter().map(named)),
            ids: memchr::memmem::find_iter(&response_messages, ID).collect(),
            response_messages,
            made: AtomicU32::new(0),
        }
    }

    /// The reply to a request over HTTP.
    pub fn to(&self, request: &[u8]) -> &[u8] {
        let is_chat = request.starts_with(b"POST /v1/chat");
        let streams = memchr::memmem::find(request, b"\"stream\":true").is_some();
        match (is_chat, streams) {
            (true, false) => &self.chat,
            (true, true) => &self.chat_events,
            (false, false) => &self.response,
            (false, true) => &self.response_events,
        }
    }

    /// The reply to a message over a WebSocket, with an id that no other has.
    pub fn messages(&self) -> Vec<u8> {
        let id = format!("resp_{:09}", self.made.fetch_add(1, Ordering::Relaxed));
        let mut messages = self.response_messages.clone();
        for place in &self.ids {
            messages[*place..][..ID.len()].copy_from_slice(id.as_bytes());
        }
        messages
    }
}

/// The consent to a WebSocket, if the request asks for one.
pub fn upgrade(request: &[u8]) -> Option<Vec<u8>> {
    const KEY: &str = "sec-websocket-key:";
    let head = std::str::from_utf8(request).ok().filter(|head| head.starts_with("GET "))?;
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_at_checked(KEY.len())?;
        name.eq_ignore_ascii_case(KEY).then(|| value.trim())
    });
    let accept = derive_accept_key(key?.as_bytes());
    let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n";
    Some(format!("{head}sec-websocket-accept: {accept}\r\n\r\n").into_bytes())
}

fn whole(body: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
    format!("{head}{}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A stream of events: each is a chunk, as servers send them.
fn in_chunks(events: impl Iterator<Item = String>) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
    let mut reply = format!("{head}transfer-encoding: chunked\r\n\r\n");
    for event in events {
        write!(reply, "{:x}\r\n{event}\r\n", event.len()).expect("memory");
    }
    reply.push_str("0\r\n\r\n");
    reply.into_bytes()
}

/// A text message in one unmasked frame (RFC 6455, section 5.2).
fn text_frame(data: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(data.len()).expect("a short message") {
        short @ 0..126 => frame.push(short.to_be_bytes()[1]),
        long => {
            frame.push(126);
            frame.extend(long.to_be_bytes());
        }
    }
    frame.extend_from_slice(data.as_bytes());
    frame
}

const CHAT_USAGE: &str = r#"{"prompt_tokens":42,"completion_tokens":64,"total_tokens":106}"#;

fn chat(text: &str) -> String {
    format!(
        "{{\"id\":\"chatcmpl-benchmark\",\"object\":\"chat.completion\",\"created\":1763700000,\
         \"model\":\"mock\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\
         \"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}],\"usage\":{CHAT_USAGE}}}"
    )
}

/// One event a word, between the first, which has none, and the counts.
fn chat_events(text: &str) -> Vec<String> {
    let chunk = |choices: &str, usage: &str| {
        format!(
            "{{\"id\":\"chatcmpl-benchmark\",\"object\":\"chat.completion.chunk\",\
             \"created\":1763700000,\"model\":\"mock\",\"service_tier\":\"default\",\
             \"system_fingerprint\":null,\"choices\":[{choices}],\"usage\":{usage}}}"
        )
    };
    let choice = |delta: &str, reason: &str| {
        let choice = format!(
            "{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{reason}}}"
        );
        chunk(&choice, "null")
    };
    let mut events = vec![choice("{\"role\":\"assistant\",\"content\":\"\"}", "null")];
    let words = text.split_inclusive(' ');
    events.extend(words.map(|word| choice(&format!("{{\"content\":\"{word}\"}}"), "null")));
    events.extend([choice("{}", "\"stop\""), chunk("", CHAT_USAGE), "[DONE]".to_owned()]);
    events
}

fn response(text: &str, status: &str) -> String {
    let (output, usage) = if status == "completed" {
        let usage = "{\"input_tokens\":42,\"input_tokens_details\":{\"cached_tokens\":0},\
                     \"output_tokens\":64,\"output_tokens_details\":{\"reasoning_tokens\":0},\
                     \"total_tokens\":106}";
        (item(text, status), usage)
    } else {
        (String::new(), "null")
    };
    format!(
        "{{\"id\":\"{ID}\",\"object\":\"response\",\"created_at\":1763700000,\
         \"status\":\"{status}\",\"error\":null,\"incomplete_details\":null,\
         \"instructions\":null,\"max_output_tokens\":null,\"model\":\"mock\",\
         \"output\":[{output}],\"parallel_tool_calls\":true,\"previous_response_id\":null,\
         \"reasoning\":{{\"effort\":null,\"summary\":null}},\"store\":false,\"temperature\":1.0,\
         \"text\":{{\"format\":{{\"type\":\"text\"}}}},\"tool_choice\":\"auto\",\"tools\":[],\
         \"top_p\":1.0,\"truncation\":\"disabled\",\"usage\":{usage},\"user\":null,\
         \"metadata\":{{}}}}"
    )
}

fn item(text: &str, status: &str) -> String {
    let content = if status == "completed" { part(text) } else { String::new() };
    format!(
        "{{\"id\":\"msg_benchmark\",\"type\":\"message\",\"status\":\"{status}\",\
         \"role\":\"assistant\",\"content\":[{content}]}}"
    )
}

fn part(text: &str) -> String {
    format!("{{\"type\":\"output_text\",\"text\":\"{text}\",\"annotations\":[],\"logprobs\":[]}}")
}

/// The types and the data of all events of a response.
fn response_events(text: &str, response_at_end: &str) -> Vec<(&'static str, String)> {
    const PLACE: &str = r#""item_id":"msg_benchmark","output_index":0,"content_index":0"#;
    let begun = format!("\"response\":{}", response(text, "in_progress"));
    let mut events = vec![
        ("response.created", begun.clone()),
        ("response.in_progress", begun),
        (
            "response.output_item.added",
            format!("\"output_index\":0,\"item\":{}", item(text, "in_progress")),
        ),
        ("response.content_part.added", format!("{PLACE},\"part\":{}", part(""))),
    ];
    events.extend(text.split_inclusive(' ').map(|word| {
        let data = format!("{PLACE},\"delta\":\"{word}\",\"logprobs\":[]");
        ("response.output_text.delta", data)
    }));
    events.extend([
        ("response.output_text.done", format!("{PLACE},\"text\":\"{text}\",\"logprobs\":[]")),
        ("response.content_part.done", format!("{PLACE},\"part\":{}", part(text))),
        (
            "response.output_item.done",
            format!("\"output_index\":0,\"item\":{}", item(text, "completed")),
        ),
        ("response.completed", format!("\"response\":{response_at_end}")),
    ]);
    let numbered = events.into_iter().enumerate().map(|(number, (kind, data))| {
        (kind, format!("{{\"type\":\"{kind}\",{data},\"sequence_number\":{number}}}"))
    });
    numbered.collect()
}
