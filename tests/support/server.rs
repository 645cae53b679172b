//! A model server on loopback that does what a test's script says, good or bad, in the protocol of
//! the path it is called at.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

#[path = "shapes.rs"]
pub mod shapes;

/// A call as the server saw it.
#[derive(Debug, Clone)]
pub struct Call {
    /// The text of the user's message, or the input.
    pub prompt: String,
    /// The whole body; null where it is no JSON.
    pub body: Value,
    /// Its bytes.
    pub raw: Vec<u8>,
    /// The path.
    pub path: String,
    /// Headers by name in small letters.
    pub headers: HashMap<String, String>,
    /// When it was there.
    pub at: Instant,
    /// 1 for the first call with this prompt.
    pub nth: usize,
}

/// What the server does with a call.
#[derive(Debug, Clone)]
pub enum Reply {
    /// An answer with this text, in events where the call asks for them; of embeddings, the vector.
    Answer(String),
    /// A status, headers and a body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// Closes the connection without a byte.
    Close,
    /// Sends half of an answer and closes.
    Cut,
    /// Sends the head of an answer, and then of its body a byte now and then, until the client goes.
    Trickle,
    /// Sends empty lines for a while, as servers do while the model works, and then an answer.
    LinesAndAnswer(String),
    /// Sends an answer in chunks that are none.
    BadChunks,
    /// Sends something that is no HTTP.
    Garbage,
    /// Says nothing until the server is released, then answers.
    Hold(String),
    /// These events, and then, unless they are whole, the connection is closed.
    Events { events: Vec<Value>, whole: bool },
    /// These events, and then nothing until the server is released.
    EventsAndHold(Vec<Value>),
    /// An answer and a copy of it, which over HTTP come in one piece.
    Twice(String),
    /// An answer, then the connection is closed though nothing said so.
    AnswerAndClose(String),
    /// The bytes of a whole reply, its head included.
    Raw(Vec<u8>),
}

impl Reply {
    pub fn status(status: u16) -> Self {
        let body = json!({"error": {"message": format!("scripted {status}")}});
        Self::Status(status, Vec::new(), body.to_string())
    }

    pub fn body(body: impl Into<String>) -> Self {
        Self::Status(200, Vec::new(), body.into())
    }
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    by_prompt: HashMap<String, usize>,
    active: usize,
    peak: usize,
    connections: usize,
    farewells: usize,
    is_released: bool,
    is_over: bool,
}

/// A connection, plain or encrypted.
type Stream = Box<dyn ReadWrite>;

trait ReadWrite: Read + Write + Send {}

impl<S: Read + Write + Send> ReadWrite for S {}

type Script = dyn Fn(&Call) -> Reply + Send + Sync;

/// The server; it ends with the test.
pub struct Server {
    port: u16,
    shared: Arc<(Mutex<State>, Condvar)>,
}

/// How long a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

impl Server {
    /// Starts a server that follows a script.
    pub fn start(script: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        Self::at(0, script)
    }

    /// Starts one on a port.
    pub fn at(port: u16, script: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(port, |stream| Box::new(stream) as Stream, script)
    }

    fn listen(
        port: u16,
        wrap: impl Fn(TcpStream) -> Stream + Send + 'static,
        script: impl Fn(&Call) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared: Arc<(Mutex<State>, Condvar)> = Arc::default();
        let (script, seen): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&shared));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut state = seen.0.lock().unwrap();
                if state.is_over {
                    return;
                }
                state.connections += 1;
                drop(state);
                stream.set_nodelay(true).unwrap();
                let (script, seen, stream) = (Arc::clone(&script), Arc::clone(&seen), wrap(stream));
                std::thread::spawn(move || serve(stream, &*script, &seen));
            }
        });
        Self { port, shared }
    }

    /// Starts one that speaks TLS, with a certificate for `localhost` signed by itself; gives that
    /// certificate as PEM as well.
    pub fn start_tls(script: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> (Self, String) {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let pem = signed.cert.pem();
        let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key.into())
            .unwrap();
        let config = Arc::new(config);
        let wrap = move |stream: TcpStream| {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            Box::new(StreamOwned::new(connection, stream)) as Stream
        };
        (Self::listen(0, wrap, script), pem)
    }

    /// A server whose answer to each prompt is a function of the prompt.
    pub fn echo() -> Self {
        Self::start(|call| Reply::Answer(answer_to(&call.prompt)))
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// As [`Self::url`], for one that speaks TLS.
    pub fn https_url(&self) -> String {
        format!("https://localhost:{}/v1", self.port)
    }

    pub fn calls(&self) -> Vec<Call> {
        self.shared.0.lock().unwrap().calls.clone()
    }

    pub fn count(&self) -> usize {
        self.shared.0.lock().unwrap().calls.len()
    }

    /// The most calls that were under way at once.
    pub fn peak(&self) -> usize {
        self.shared.0.lock().unwrap().peak
    }

    pub fn connections(&self) -> usize {
        self.shared.0.lock().unwrap().connections
    }

    /// WebSockets that were closed as they should be.
    pub fn farewells(&self) -> usize {
        self.shared.0.lock().unwrap().farewells
    }

    /// How often each prompt was called.
    pub fn counts(&self) -> HashMap<String, usize> {
        self.shared.0.lock().unwrap().by_prompt.clone()
    }

    /// Waits until so many calls have come in.
    pub fn wait_for_calls(&self, count: usize) {
        self.wait_for("calls", |state| state.calls.len() >= count);
    }

    /// Waits until so many calls are under way.
    pub fn wait_for_active(&self, count: usize) {
        self.wait_for("calls under way", |state| state.active >= count);
    }

    /// Waits until the calls that came in are those that a test waits for.
    pub fn wait(&self, what: &str, are_there: impl Fn(&[Call]) -> bool) {
        self.wait_for(what, |state| are_there(&state.calls));
    }

    fn wait_for(&self, what: &str, is_there: impl Fn(&State) -> bool) {
        let (mutex, condvar) = &*self.shared;
        let state = mutex.lock().unwrap();
        let waited = condvar.wait_timeout_while(state, PATIENCE, |state| !is_there(state)).unwrap();
        assert!(!waited.1.timed_out(), "the {what} did not come");
    }

    /// Lets the held calls go.
    pub fn release(&self) {
        self.shared.0.lock().unwrap().is_released = true;
        self.shared.1.notify_all();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A test that failed while it looked is to tell why, not to end them all.
        let state = self.shared.0.lock();
        let mut state = state.unwrap_or_else(std::sync::PoisonError::into_inner);
        (state.is_released, state.is_over) = (true, true);
        drop(state);
        self.shared.1.notify_all();
        // Wakes the thread that listens.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// What [`Server::echo`] answers.
pub fn answer_to(prompt: &str) -> String {
    format!("answer to <{prompt}>")
}

/// The body of a chat completion.
pub fn completion(text: &str) -> String {
    json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "mock-model-1",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
        }],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    })
    .to_string()
}

fn serve(stream: Stream, script: &Script, shared: &(Mutex<State>, Condvar)) {
    let mut reader = BufReader::new(stream);
    while let Some((path, headers, body)) = read_request(&mut reader) {
        if headers.get("upgrade").is_some_and(|upgrade| upgrade == "websocket") {
            return websocket::serve(reader.into_inner(), &path, &headers, script, shared);
        }
        let (call, reply) = answer(path, headers, &body, script, shared, &mut |events| {
            let _ = send_events(reader.get_mut(), events, false);
        });
        if !send(reader.get_mut(), &call, reply) {
            return;
        }
    }
}

/// The text of a message's content: a string, or a list of parts that has a text among them.
fn text_of(content: &Value) -> Option<&str> {
    match content {
        Value::String(text) => Some(text),
        Value::Array(parts) => parts
            .iter()
            .find_map(|part| part["text"].as_str().or_else(|| text_of(&part["content"]))),
        _ => None,
    }
}

/// Notes a call and does what the script says of it, as far as it has to be waited for. What is to
/// be sent before goes to `before`.
fn answer(
    path: String,
    headers: HashMap<String, String>,
    body: &[u8],
    script: &Script,
    shared: &(Mutex<State>, Condvar),
    before: &mut dyn FnMut(&[Value]),
) -> (Call, Reply) {
    let (mutex, condvar) = shared;
    let mut state = mutex.lock().unwrap();
    let raw = body.to_vec();
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let last = body["messages"].as_array().and_then(|messages| messages.last());
    let prompt = last.map_or(&body["input"], |message| &message["content"]);
    let prompt = text_of(prompt).unwrap_or_default();
    let nth = state.by_prompt.entry(prompt.to_owned()).or_default();
    *nth += 1;
    let (prompt, nth, at) = (prompt.to_owned(), *nth, Instant::now());
    let call = Call { prompt, body, raw, path, headers, at, nth };
    state.calls.push(call.clone());
    state.active += 1;
    state.peak = state.peak.max(state.active);
    drop(state);
    condvar.notify_all();
    let reply = script(&call);
    if let Reply::EventsAndHold(events) = &reply {
        before(events);
    }
    if matches!(reply, Reply::Hold(_) | Reply::EventsAndHold(_)) {
        let state = mutex.lock().unwrap();
        drop(condvar.wait_while(state, |state| !state.is_released).unwrap());
    }
    mutex.lock().unwrap().active -= 1;
    condvar.notify_all();
    (call, reply)
}

fn read_request(
    reader: &mut BufReader<Stream>,
) -> Option<(String, HashMap<String, String>, Vec<u8>)> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, headers, body))
}

/// Sends a reply; false when the connection is to be closed.
fn send(writer: &mut dyn Write, call: &Call, reply: Reply) -> bool {
    let answer = |text: &str| shapes::body(&call.path, text);
    if let Reply::Twice(text) = reply {
        let mut copies: Vec<u8> = Vec::new();
        let stays = send(&mut copies, call, Reply::Answer(text));
        copies.extend_from_within(..);
        return writer.write_all(&copies).is_ok() && stays;
    }
    let (status, headers, body, stays) = match reply {
        Reply::Answer(text) | Reply::Hold(text) if call.body["stream"] == true => {
            return send_events(writer, &shapes::events(&call.path, &text), true);
        }
        Reply::Answer(text) | Reply::Hold(text) => (200, Vec::new(), answer(&text), true),
        Reply::AnswerAndClose(text) => (200, Vec::new(), answer(&text), false),
        Reply::Events { events, whole } => return send_events(writer, &events, whole),
        Reply::EventsAndHold(_) | Reply::Twice(_) => return false,
        Reply::Status(status, headers, body) => (status, headers, body, true),
        Reply::Close => return false,
        Reply::Raw(bytes) => return writer.write_all(&bytes).is_ok(),
        Reply::Garbage => {
            let _ = writer.write_all(b"\x00\x01 this is no HTTP\r\n\r\n");
            return false;
        }
        Reply::Trickle => {
            let _ = write!(writer, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n");
            while writer.write_all(b" ").and_then(|()| writer.flush()).is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
            return false;
        }
        Reply::LinesAndAnswer(text) => {
            let (body, lines) = (answer(&text), 40);
            let length = body.len() + lines;
            let _ = write!(writer, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            for _ in 0..lines {
                let _ = writer.write_all(b"\n").and_then(|()| writer.flush());
                std::thread::sleep(Duration::from_millis(20));
            }
            return writer.write_all(body.as_bytes()).is_ok();
        }
        Reply::BadChunks => {
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            let _ = write!(writer, "{head}zz\r\n{}", answer("cut"));
            return false;
        }
        Reply::Cut => {
            let body = answer("cut");
            let half = &body[..body.len() / 2];
            let length = body.len();
            let _ = write!(writer, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{half}");
            return false;
        }
    };
    let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let sent = writer.write_all(format!("{head}\r\n{body}").as_bytes());
    stays && sent.is_ok()
}

/// Sends events, each as a chunk of its own; false when the connection is to be closed.
fn send_events(writer: &mut dyn Write, events: &[Value], whole: bool) -> bool {
    let mut sent = writer.write_all(
        b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
          transfer-encoding: chunked\r\n\r\n",
    );
    for event in events {
        let text = shapes::framed(event);
        sent = sent.and_then(|()| write!(writer, "{:x}\r\n{text}\r\n", text.len()));
        sent = sent.and_then(|()| writer.flush());
    }
    if whole {
        sent = sent.and_then(|()| writer.write_all(b"0\r\n\r\n"));
    }
    whole && sent.is_ok()
}

/// The WebSocket mode of OpenAI Responses.
mod websocket {
    use tungstenite::handshake::derive_accept_key;
    use tungstenite::protocol::Role;
    use tungstenite::{Message, WebSocket};

    use super::*;

    pub(super) fn serve(
        mut stream: Stream,
        path: &str,
        headers: &HashMap<String, String>,
        script: &Script,
        shared: &(Mutex<State>, Condvar),
    ) {
        // A base URL with this word in it is one of somebody who lets nobody in.
        if path.contains("refused") {
            let body = json!({"error": {"message": "no entry", "code": "invalid_api_key"}});
            let (body, length) = (body.to_string(), body.to_string().len());
            let _ = write!(stream, "HTTP/1.1 401 X\r\ncontent-length: {length}\r\n\r\n{body}");
            return;
        }
        let accept = derive_accept_key(headers["sec-websocket-key"].as_bytes());
        let _ = write!(
            stream,
            "HTTP/1.1 101 X\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: {accept}\r\n\r\n"
        );
        let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
        loop {
            let body = match socket.read() {
                Ok(Message::Text(text)) => text,
                Ok(Message::Close(_)) => {
                    shared.0.lock().unwrap().farewells += 1;
                    let _ = socket.flush();
                    return;
                }
                Ok(_) => continue,
                Err(_) => return,
            };
            let (path, headers) = (path.to_owned(), headers.clone());
            let (call, reply) = answer(path, headers, body.as_bytes(), script, shared, &mut |it| {
                send(&mut socket, it);
            });
            let says_so = matches!(reply, Reply::AnswerAndClose(_));
            let (events, stays) = match reply {
                Reply::Answer(text) | Reply::Hold(text) => {
                    (shapes::events(&call.path, &text), true)
                }
                Reply::AnswerAndClose(text) => (shapes::events(&call.path, &text), false),
                Reply::Twice(text) => {
                    let events = shapes::events(&call.path, &text);
                    ([&events[..], &events].concat(), true)
                }
                Reply::Events { events, whole } => (events, whole),
                Reply::Status(status, _, body) => {
                    let body: Value = serde_json::from_str(&body).unwrap_or_default();
                    let error = &body["error"];
                    (vec![json!({"type": "error", "status": status, "error": error})], true)
                }
                Reply::Cut => (shapes::events(&call.path, "cut")[..1].to_vec(), false),
                Reply::Garbage => (vec![json!("this is no event")], false),
                Reply::Close
                | Reply::Raw(_)
                | Reply::EventsAndHold(_)
                | Reply::Trickle
                | Reply::LinesAndAnswer(_)
                | Reply::BadChunks => (Vec::new(), false),
            };
            send(&mut socket, &events);
            if says_so {
                let _ = socket.close(None);
                while socket.read().is_ok() {}
            }
            if !stays {
                return;
            }
        }
    }

    fn send(socket: &mut WebSocket<Stream>, events: &[Value]) {
        for event in events {
            // A ping among them is nothing to wonder at.
            let _ = socket.write(Message::Ping(Vec::new().into()));
            let _ = socket.send(Message::Text(event.to_string().into()));
        }
    }
}
