//! A server on loopback that has documents and takes some, as object stores do, and that does what a
//! test's script says.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// By name in small letters.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    /// 1 for the first request with this method to this path.
    pub nth: usize,
}

impl Seen {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is done with a request.
pub enum Say {
    /// The document, or the part of it that is asked for.
    Document(Document),
    /// A status, headers and a body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// Nothing; the connection is closed.
    Close,
    /// Nothing until the depot is released.
    Hold,
}

/// A document.
#[derive(Clone)]
pub struct Document {
    pub bytes: Vec<u8>,
    pub content_type: &'static str,
    pub etag: &'static str,
    /// Whether parts of it may be asked for.
    pub has_ranges: bool,
    /// After so many bytes of the body the connection is closed.
    pub cut: Option<usize>,
    /// After so many bytes of the body nothing more comes until the depot is released.
    pub hold: Option<usize>,
}

impl Document {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            bytes: bytes.into(),
            content_type: "binary/octet-stream",
            etag: "\"v1\"",
            has_ranges: true,
            cut: None,
            hold: None,
        }
    }
}

impl Say {
    pub fn document(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Document(Document::new(bytes))
    }

    pub fn status(status: u16) -> Self {
        Self::Status(status, Vec::new(), String::new())
    }
}

type Script = dyn Fn(&Seen) -> Say + Send + Sync;

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    is_released: bool,
    is_over: bool,
}

/// The server; it ends with the test.
pub struct Depot {
    port: u16,
    shared: Arc<(Mutex<State>, Condvar)>,
}

/// How long a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

impl Depot {
    pub fn start(script: impl Fn(&Seen) -> Say + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared: Arc<(Mutex<State>, Condvar)> = Arc::default();
        let (script, its): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&shared));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if its.0.lock().unwrap().is_over {
                    return;
                }
                let (script, its) = (Arc::clone(&script), Arc::clone(&its));
                std::thread::spawn(move || serve(&stream, &*script, &its));
            }
        });
        Self { port, shared }
    }

    /// A URL at it.
    pub fn url(&self, target: &str) -> String {
        format!("http://127.0.0.1:{}{target}", self.port)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.0.lock().unwrap().seen.clone()
    }

    /// The requests with this method.
    pub fn of(&self, method: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.method == method).collect()
    }

    /// Waits until so many requests have come in whole.
    pub fn wait_for(&self, count: usize) {
        let (mutex, condvar) = &*self.shared;
        let state = mutex.lock().unwrap();
        let waited =
            condvar.wait_timeout_while(state, PATIENCE, |state| state.seen.len() < count).unwrap();
        assert!(!waited.1.timed_out(), "the requests did not come");
    }
}

impl Drop for Depot {
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

fn serve(stream: &TcpStream, script: &Script, shared: &(Mutex<State>, Condvar)) {
    let mut reader = BufReader::new(stream);
    while let Some(mut seen) = read(&mut reader) {
        let mut state = shared.0.lock().unwrap();
        let same = |it: &&Seen| it.method == seen.method && it.path() == seen.path();
        seen.nth = state.seen.iter().filter(same).count() + 1;
        state.seen.push(seen.clone());
        drop(state);
        shared.1.notify_all();
        let hold = || {
            let state = shared.0.lock().unwrap();
            drop(shared.1.wait_while(state, |state| !state.is_released).unwrap());
        };
        let stays = match script(&seen) {
            Say::Document(document) => send(stream, &seen, &document, &hold),
            Say::Status(status, headers, body) => {
                let head: String =
                    headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                let length = body.len();
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{head}\r\n");
                write(stream, head.as_bytes()) && write(stream, body.as_bytes())
            }
            Say::Close => false,
            Say::Hold => {
                hold();
                false
            }
        };
        if !stays {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

fn write(mut stream: &TcpStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok()
}

fn send(stream: &TcpStream, seen: &Seen, document: &Document, hold: &dyn Fn()) -> bool {
    let Document { bytes, content_type, etag, has_ranges, cut, hold: hold_at } = document;
    let from = seen.header("range").filter(|_| *has_ranges);
    let from = from.filter(|_| seen.header("if-range").is_none_or(|validator| validator == *etag));
    let from = from.and_then(|it| it.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let mut head = match from {
        Some(from) => format!(
            "HTTP/1.1 206 X\r\ncontent-range: bytes {from}-{}/{}\r\n",
            bytes.len() - 1,
            bytes.len()
        ),
        None => "HTTP/1.1 200 X\r\n".to_owned(),
    };
    let rest = &bytes[from.unwrap_or(0_usize)..];
    let ranges = if *has_ranges { "accept-ranges: bytes\r\n" } else { "" };
    head += &format!(
        "content-type: {content_type}\r\netag: {etag}\r\n{ranges}content-length: {}\r\n\r\n",
        rest.len()
    );
    let first = cut.or(*hold_at).unwrap_or(rest.len()).min(rest.len());
    if !write(stream, head.as_bytes()) || !write(stream, &rest[..first]) {
        return false;
    }
    if hold_at.is_some() {
        hold();
    }
    cut.is_none() && write(stream, &rest[first..])
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
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
    Some(Seen { method, target, headers, body, nth: 0 })
}
