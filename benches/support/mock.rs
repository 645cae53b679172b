//! A server that does what an [`Endpoint`] says, in this process, and a plain client that calls it.

use std::cell::Cell;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};

use super::endpoint::{Behaviour, Endpoint, Headers, Reply};
use super::replies::Replies;
use super::server::{request_length, write_all};
use super::simulator::{PLAIN_RETRIES, plain_wait};

/// A running server; it lasts as long as the process.
pub struct Mock {
    pub port: u16,
    state: Arc<Mutex<State>>,
}

struct State {
    endpoint: Endpoint,
    headers: Headers,
    began: Option<Instant>,
    calls: usize,
    answered: usize,
    // The same by the second.
    seconds: Vec<(usize, usize)>,
}

impl Mock {
    pub fn start(behaviour: &Behaviour) -> Self {
        let state = Arc::new(Mutex::new(State {
            endpoint: Endpoint::new(behaviour, 7),
            headers: behaviour.headers,
            began: None,
            calls: 0,
            answered: 0,
            seconds: Vec::new(),
        }));
        let (says, port) = mpsc::channel();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || serve(&shared, &says));
        Self { port: port.recv().expect("a port"), state }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// How many calls it had, and the share of them that was refused.
    pub fn calls(&self) -> (usize, f64) {
        let state = self.state.lock().expect("no panic");
        (state.calls, 1.0 - state.answered as f64 / state.calls.max(1) as f64)
    }
}

impl Mock {
    /// Calls in each second, and how many of them were refused.
    pub fn seconds(&self) -> Vec<(usize, usize)> {
        self.state.lock().expect("no panic").seconds.clone()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn serve(state: &Arc<Mutex<State>>, says: &mpsc::Sender<u16>) {
    runtime().block_on(async {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
        let listener = socket.listen(4096).expect("a queue");
        says.send(listener.local_addr().expect("an address").port()).expect("somebody waits");
        let replies = Arc::new(Replies::new());
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let (state, replies) = (Arc::clone(state), Arc::clone(&replies));
            tokio::spawn(async move {
                let _ = answer_all(&stream, &state, &replies).await;
            });
        }
    });
}

async fn answer_all(stream: &TcpStream, state: &Mutex<State>, replies: &Replies) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut buffer, mut have) = (vec![0; 1 << 13], 0);
    loop {
        while let Some(length) = request_length(&buffer[..have]) {
            let row = row_of(&buffer[..length]);
            let (reply, headers) = {
                let mut state = state.lock().expect("no panic");
                let began = *state.began.get_or_insert_with(Instant::now);
                state.calls += 1;
                let now = began.elapsed().as_secs_f64();
                let reply = state.endpoint.call(now, row);
                state.answered += usize::from(reply.status == 200);
                let second = now as usize;
                if state.seconds.len() <= second {
                    state.seconds.resize(second + 1, (0, 0));
                }
                state.seconds[second].0 += 1;
                state.seconds[second].1 += usize::from(reply.status != 200);
                (reply, state.headers)
            };
            tokio::time::sleep(Duration::from_secs_f64(reply.after)).await;
            state.lock().expect("no panic").endpoint.sent(&reply);
            let bytes = match reply.status {
                200 => with_headers(replies.to(&buffer[..length]), &reply, headers),
                _ => refusal(&reply, headers),
            };
            write_all(stream, &bytes).await?;
            buffer.copy_within(length..have, 0);
            have -= length;
        }
        if have == buffer.len() {
            buffer.resize(2 * have, 0);
        }
        stream.readable().await?;
        match stream.try_read(&mut buffer[have..]) {
            Ok(0) => return Ok(()),
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The number of the row that a request asks about.
fn row_of(request: &[u8]) -> usize {
    let at = memchr::memmem::find(request, b"row-").map_or(request.len(), |at| at + 4);
    let digits: Vec<u8> = request[at..].iter().copied().take_while(u8::is_ascii_digit).collect();
    String::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn limits(reply: &Reply, headers: Headers) -> String {
    let Some((left, full, after)) = reply.left else { return String::new() };
    match headers {
        Headers::Azure => format!("x-ratelimit-remaining-requests: {left}\r\n"),
        Headers::Anthropic => {
            let ms = Duration::from_millis((after * 1000.0) as u64);
            let at = jiff::Timestamp::now() + ms;
            format!(
                "anthropic-ratelimit-requests-limit: {full}\r\n\
                 anthropic-ratelimit-requests-remaining: {left}\r\n\
                 anthropic-ratelimit-requests-reset: {at}\r\n"
            )
        }
        Headers::None | Headers::OpenAi | Headers::Wrong => format!(
            "x-ratelimit-limit-requests: {full}\r\nx-ratelimit-remaining-requests: {left}\r\n\
             x-ratelimit-reset-requests: {}ms\r\n",
            (after * 1000.0) as u64
        ),
    }
}

fn with_headers(whole: &[u8], reply: &Reply, headers: Headers) -> Vec<u8> {
    let first = memchr::memmem::find(whole, b"\r\n").expect("a status line") + 2;
    [&whole[..first], limits(reply, headers).as_bytes(), &whole[first..]].concat()
}

fn refusal(reply: &Reply, headers: Headers) -> Vec<u8> {
    let told = reply.wait.filter(|_| !reply.in_text);
    let wait = told.map_or(String::new(), |wait| format!("retry-after: {wait}\r\n"));
    let said = match reply.wait {
        Some(wait) if reply.in_text => format!("Please retry after {wait} seconds."),
        _ => "not now".to_owned(),
    };
    let body = format!("{{\"error\":{{\"message\":\"{said}\"}}}}");
    format!(
        "HTTP/1.1 {} No\r\n{wait}{}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        reply.status,
        limits(reply, headers),
        body.len()
    )
    .into_bytes()
}

/// Has a plain client ask about so many rows, each task by itself: gives the time to the last row.
pub fn run_plain(mock: &Mock, rows: usize, concurrency: usize) -> Duration {
    let port = mock.port;
    let begin = Instant::now();
    runtime().block_on(async {
        let local = tokio::task::LocalSet::new();
        let next = Rc::new(Cell::new(0));
        for _ in 0..concurrency.min(rows) {
            let next = Rc::clone(&next);
            local.spawn_local(async move {
                let mut connection = None;
                loop {
                    let row = next.get();
                    if row >= rows {
                        return;
                    }
                    next.set(row + 1);
                    ask(&mut connection, port, row).await;
                }
            });
        }
        local.await;
    });
    begin.elapsed()
}

/// Asks about a row until there is an answer, or no more tries.
async fn ask(connection: &mut Option<TcpStream>, port: u16, row: usize) {
    for failed in 1..=PLAIN_RETRIES + 1 {
        let (status, wait) = match call(connection, port, row).await {
            Ok(reply) => reply,
            Err(_) => {
                *connection = None;
                (0, None)
            }
        };
        if status == 200 || failed > PLAIN_RETRIES {
            return;
        }
        let wait = plain_wait(failed, wait, fastrand::f64());
        tokio::time::sleep(Duration::from_secs_f64(wait)).await;
    }
}

async fn call(
    connection: &mut Option<TcpStream>,
    port: u16,
    row: usize,
) -> io::Result<(u16, Option<f64>)> {
    if connection.is_none() {
        *connection = Some(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?);
    }
    let stream = connection.as_ref().expect("it was made");
    let body = format!(
        "{{\"model\":\"mock\",\"messages\":[{{\"role\":\"user\",\"content\":\"row-{row}-\"}}]}}"
    );
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: mock\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    write_all(stream, request.as_bytes()).await?;
    let mut reply = Vec::new();
    loop {
        stream.ready(Interest::READABLE).await?;
        match stream.try_read_buf(&mut reply) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        if request_length(&reply).is_some() {
            let head = String::from_utf8_lossy(&reply);
            let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0);
            let wait = head.lines().find_map(|line| line.strip_prefix("retry-after: "));
            return Ok((status, wait.and_then(|it| it.trim().parse().ok())));
        }
    }
}
