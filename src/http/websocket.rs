//! A worker's WebSockets to one endpoint: a request and its events on one at a time, kept open for
//! the next.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem::take;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};

use super::coding::decode;
use super::connect::Io;
use super::error::{Error, chain, closed_early};
use super::guarded::has_input;
use super::idle::{Idle, Overdue};
use super::{Connector, Endpoint, Header, Limits, Reply};

/// What a message did to the answer that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flow {
    /// The answer goes on.
    More,
    /// The answer has ended.
    Ended {
        /// The id that the endpoint gave it, if it did.
        id: Option<String>,
        /// Whether another request may be sent on the connection: the next answer can be told from this one.
        is_reusable: bool,
    },
    /// The answer has failed, and more of it may come.
    Failed {
        /// The id that the endpoint gave it, if it did.
        id: Option<String>,
    },
}

/// A connection is not used for another call when it has been open for so long: OpenAI ends them
/// after 60 minutes. <https://developers.openai.com/api/docs/guides/websocket-mode>
const OLD: Duration = Duration::from_secs(55 * 60);

/// How much is read at once. The library holds as much for every connection, and fills it with zeros
/// before each look at the connection; of its own accord that is 128 KiB.
const READ: usize = 16 << 10;

/// How many ids of answers a connection remembers.
const IDS: usize = 256;

/// How many pings may be waiting when a request is to be sent, and how many answers to pings may be unsent.
const PINGS: usize = 64;

/// The WebSockets of one worker to one endpoint.
#[derive(Debug)]
pub struct Sockets {
    connector: Connector,
    endpoint: Endpoint,
    head: Request<()>,
    limits: Limits,
    idle: RefCell<Vec<Socket>>,
    // Whether ids do not tell this endpoint's answers apart: each connection takes one request then.
    ids_repeat: Cell<bool>,
    /// In the place of the one of the same name, from now on.
    renewed: RefCell<Option<Header>>,
}

#[derive(Debug)]
struct Socket {
    stream: WebSocketStream<TokioIo<Io>>,
    since: Instant,
    // Hashes of the ids of the last answers on it.
    ids: VecDeque<u64>,
    // Pings since all answers to pings were sent.
    unanswered: usize,
}

impl Socket {
    /// Whether nothing waits to be read but pings and pongs, which are read. What came before a request belongs to
    /// none that is sent now.
    async fn is_quiet(&mut self) -> bool {
        for _ in 0..PINGS {
            let stream = &mut self.stream;
            let next = poll_fn(|context| Poll::Ready(stream.poll_next_unpin(context))).await;
            match next {
                Poll::Ready(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
                Poll::Ready(_) => return false,
                Poll::Pending if !has_input(self.stream.get_ref().inner()) => return true,
                // The runtime has not seen it yet.
                Poll::Pending => tokio::task::yield_now().await,
            }
        }
        false
    }

    /// A ping came, which the library answers. False when too many answers could not be sent: each is
    /// kept until the endpoint reads.
    async fn answer_ping(&mut self) -> bool {
        let stream = &mut self.stream;
        let sent = poll_fn(|context| Poll::Ready(stream.poll_flush_unpin(context))).await;
        self.unanswered = if sent.is_ready() { 0 } else { self.unanswered + 1 };
        self.unanswered <= PINGS
    }

    /// Remembers the id of an answer; false when an earlier answer had it.
    fn add_id(&mut self, id: &str) -> bool {
        let hash = xxhash_rust::xxh3::xxh3_64(id.as_bytes());
        if self.ids.contains(&hash) {
            return false;
        }
        if self.ids.len() == IDS {
            self.ids.pop_front();
        }
        self.ids.push_back(hash);
        true
    }
}

/// What came of asking for a WebSocket.
enum Asked {
    Open(Box<Socket>),
    Refused(Reply),
}

impl Sockets {
    /// A set without connections yet; they are made at `path`, which includes the base URL's, with
    /// these headers besides those of the handshake.
    #[must_use]
    pub fn new(
        connector: Connector,
        endpoint: Endpoint,
        path: Uri,
        headers: HeaderMap,
        limits: Limits,
    ) -> Self {
        // What follows the handshake is no HTTP that a proxy could hand on.
        let connector = connector.tunnelled();
        let mut head = connector.head(Method::GET, path, headers, &endpoint);
        let headers = head.headers_mut();
        headers.remove(header::CONTENT_TYPE);
        headers.remove(header::ACCEPT);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        let (idle, ids_repeat, renewed) =
            (RefCell::default(), Cell::new(false), RefCell::default());
        Self { connector, endpoint, head, limits, idle, ids_repeat, renewed }
    }

    /// Has this header, from now on, in handshakes.
    pub fn renew_header(&self, header: Header) {
        self.renewed.replace(Some(header));
    }

    /// Sends a message and hands those that come back to `sink`, until it says that the answer has
    /// ended. A reply whose body is not handed on is that to the handshake: a refusal.
    ///
    /// # Errors
    /// When the answer does not end within the limits.
    pub async fn send(
        &self,
        message: Bytes,
        sink: &mut dyn FnMut(&[u8]) -> Flow,
    ) -> Result<Reply, Error> {
        match tokio::time::timeout(self.limits.total, self.exchange(message, sink)).await {
            Ok(result) => result,
            Err(_) => {
                let authority = self.authority();
                Err(Error::Timeout { authority, after: self.limits.total })
            }
        }
    }

    /// Takes leave of the endpoint on all connections that no call is on.
    pub async fn close(&self) {
        /// How long an endpoint may take to say farewell.
        const FAREWELL: Duration = Duration::from_secs(1);
        let idle = take(&mut *self.idle.borrow_mut());
        let closing = join_all(idle.into_iter().map(|mut socket| async move {
            // What is not closed now is when it is dropped.
            let _ = socket.stream.close(None).await;
            while let Some(Ok(_)) = socket.stream.next().await {}
        }));
        let _ = tokio::time::timeout(FAREWELL, closing).await;
    }

    async fn exchange(
        &self,
        message: Bytes,
        sink: &mut dyn FnMut(&[u8]) -> Flow,
    ) -> Result<Reply, Error> {
        let (mut socket, is_fresh) = match self.take_quiet().await {
            Some(socket) => (socket, false),
            None => match Box::pin(self.connect()).await? {
                Asked::Open(socket) => (*socket, true),
                Asked::Refused(reply) => return Ok(reply),
            },
        };
        if is_fresh && !socket.is_quiet().await {
            return Err(self.broken("something arrived before the request was sent".to_owned()));
        }
        let gone = || {
            let authority = self.authority();
            if is_fresh { Error::Closed { authority } } else { Error::Stale { authority } }
        };
        // It is JSON.
        let text = Utf8Bytes::try_from(message).unwrap_or_default();
        if socket.stream.send(Message::Text(text)).await.is_err() {
            self.idle.borrow_mut().clear();
            return Err(gone());
        }
        let (mut head_at, mut bytes) = (None, 0);
        let mut idle = Idle::new(self.limits.first_byte.min(self.limits.total));
        loop {
            let next = idle.bound(socket.stream.next()).await;
            let message = match next.map_err(|Overdue| self.late(head_at.is_some()))? {
                Some(Ok(message)) => message,
                Some(Err(WsError::Capacity(_))) => return Err(self.too_large()),
                _ if head_at.is_none() => {
                    // The others are as old: the next call takes none of them.
                    self.idle.borrow_mut().clear();
                    return Err(gone());
                }
                Some(Err(error)) => return Err(self.cut_off(chain(&error))),
                None => return Err(self.cut_off("the connection was closed".to_owned())),
            };
            let data = match message {
                Message::Text(text) => Bytes::from(text),
                Message::Binary(data) => data,
                Message::Ping(_) if !socket.answer_ping().await => {
                    return Err(self.broken("it sends pings and reads no answers".to_owned()));
                }
                // Behind the last comes the end.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) | Message::Close(_) => {
                    continue;
                }
            };
            if head_at.is_none() {
                idle = Idle::new(self.limits.idle);
            }
            idle.progress();
            let head_at = *head_at.get_or_insert_with(Instant::now);
            bytes += data.len();
            if bytes > self.limits.body {
                return Err(self.too_large());
            }
            let flow = sink(&data);
            if flow == Flow::More {
                continue;
            }
            self.end_answer(socket, flow)?;
            let (status, headers) = (StatusCode::SWITCHING_PROTOCOLS.as_u16(), HeaderMap::new());
            return Ok(Reply { status, headers, body: Bytes::new(), is_handed_on: true, head_at });
        }
    }

    fn late(&self, has_begun: bool) -> Error {
        let (authority, Limits { first_byte, total, idle, .. }) = (self.authority(), self.limits);
        match has_begun {
            true => Error::Idle { authority, after: idle },
            false if first_byte < total => Error::FirstByte { authority, after: first_byte },
            false => Error::Timeout { authority, after: total },
        }
    }

    /// An answer has ended: its connection is kept for the next request, if the next answer can be told from
    /// this one.
    ///
    /// # Errors
    /// When the answer is that to an earlier request on the connection.
    fn end_answer(&self, mut socket: Socket, flow: Flow) -> Result<(), Error> {
        let is_first = socket.ids.is_empty();
        let (is_new, is_reusable) = match flow {
            Flow::Ended { id: Some(id), is_reusable } => (socket.add_id(&id), is_reusable),
            Flow::Failed { id: Some(id) } => (socket.add_id(&id), false),
            // Only a connection that had no other answer says whose this is.
            Flow::Ended { id: None, .. } => (is_first, false),
            Flow::Failed { id: None } | Flow::More => (true, false),
        };
        if !is_new {
            self.ids_repeat.set(true);
            self.idle.borrow_mut().clear();
            return Err(Error::Repeated { authority: self.authority() });
        }
        if is_reusable && !self.ids_repeat.get() {
            self.idle.borrow_mut().push(socket);
        }
        Ok(())
    }

    /// A connection that is open and on which nothing waits to be read. Others are closed.
    async fn take_quiet(&self) -> Option<Socket> {
        while let Some(mut socket) = self.take_idle() {
            if socket.is_quiet().await {
                return Some(socket);
            }
        }
        None
    }

    fn take_idle(&self) -> Option<Socket> {
        let mut idle = self.idle.borrow_mut();
        while let Some(socket) = idle.pop() {
            if socket.since.elapsed() < OLD {
                return Some(socket);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Asked, Error> {
        let connecting = tokio::time::timeout(self.limits.connect, self.ask()).await;
        connecting.unwrap_or_else(|_| {
            Err(Error::ConnectTimeout { authority: self.authority(), after: self.limits.connect })
        })
    }

    async fn ask(&self) -> Result<Asked, Error> {
        let io = self.connector.open(&self.endpoint).await?;
        let refused = |error: hyper::Error| Error::Connect {
            authority: self.authority(),
            reason: chain(&error),
        };
        let (mut sender, connection) = http1::handshake(io).await.map_err(refused)?;
        tokio::spawn(connection.with_upgrades());
        let key = generate_key();
        let mut request = self.head.clone().map(|()| Empty::<Bytes>::new());
        if let Some((name, value)) = self.renewed.borrow().clone() {
            request.headers_mut().insert(name, value);
        }
        // A key is letters and digits.
        if let Ok(key) = HeaderValue::from_str(&key) {
            request.headers_mut().insert(header::SEC_WEBSOCKET_KEY, key);
        }
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            Err(error) if closed_early(&error) => {
                return Err(Error::Closed { authority: self.authority() });
            }
            Err(error) => return Err(self.broken(chain(&error))),
        };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return self.read(response).await.map(Asked::Refused);
        }
        let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        if accepted.is_none_or(|accepted| {
            accepted.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()
        }) {
            return Err(self.broken("the handshake is none of a WebSocket".to_owned()));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|it| self.broken(chain(&it)))?;
        let most = Some(self.limits.body);
        let config = WebSocketConfig::default().max_message_size(most).max_frame_size(most);
        let config = config.read_buffer_size(READ);
        let parts = upgraded.downcast::<Io>();
        let parts =
            parts.map_err(|_| self.broken("the handshake is none of a WebSocket".into()))?;
        let (io, read) = (TokioIo::new(parts.io), parts.read_buf.to_vec());
        let stream = WebSocketStream::from_partially_read(io, read, Role::Client, Some(config));
        let (stream, since) = (stream.await, Instant::now());
        let (ids, unanswered) = (VecDeque::new(), 0);
        Ok(Asked::Open(Box::new(Socket { stream, since, ids, unanswered })))
    }

    /// A reply that is no WebSocket.
    async fn read(&self, response: Response<Incoming>) -> Result<Reply, Error> {
        let head_at = Instant::now();
        let (head, body) = response.into_parts();
        let body = Limited::new(body, self.limits.body).collect().await;
        let body = body.map_err(|error| self.broken(chain(&*error)))?.to_bytes();
        let body = decode(&head.headers, body, self.limits.body)
            .map_err(|error| error.of_answer(self.authority(), self.limits.body))?;
        let status = head.status.as_u16();
        Ok(Reply { status, headers: head.headers, body, is_handed_on: false, head_at })
    }

    fn authority(&self) -> String {
        self.endpoint.authority().to_owned()
    }

    fn broken(&self, reason: String) -> Error {
        Error::Broken { authority: self.authority(), reason }
    }

    fn cut_off(&self, reason: String) -> Error {
        Error::CutOff { authority: self.authority(), reason }
    }

    fn too_large(&self) -> Error {
        Error::TooLarge { authority: self.authority(), limit: self.limits.body }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;

    use tungstenite::{Message as Said, WebSocket};

    use super::*;

    fn sockets(listener: &TcpListener) -> Sockets {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let endpoint = Endpoint::parse(&url).unwrap();
        let limits = Limits::whole(Duration::from_secs(60), 1 << 20);
        let connector = Connector::new(&endpoint, &limits).unwrap();
        Sockets::new(connector, endpoint, "/x".parse().unwrap(), HeaderMap::new(), limits)
    }

    fn accept(listener: &TcpListener) -> WebSocket<TcpStream> {
        tungstenite::accept(listener.accept().unwrap().0).unwrap()
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    /// Sends a request; its answer is the text of the one message that comes back, and its id.
    async fn ask(sockets: &Sockets) -> Result<String, Error> {
        let mut text = String::new();
        let mut sink = |data: &[u8]| {
            text = String::from_utf8_lossy(data).into_owned();
            Flow::Ended { id: Some(text.clone()), is_reusable: true }
        };
        sockets.send(Bytes::from_static(b"{}"), &mut sink).await?;
        Ok(text)
    }

    #[test]
    fn late_message_before_request_answers_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = sockets(&listener);
        let (order, orders) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let server = std::thread::spawn(move || {
            let mut first = accept(&listener);
            for text in ["first", "second"] {
                first.read().unwrap();
                first.send(Said::text(text)).unwrap();
                orders.recv().unwrap();
                // A ping changes nothing, a message does.
                let late =
                    if text == "first" { Said::Ping("x".into()) } else { Said::text("late") };
                first.send(late).unwrap();
                tell.send(()).unwrap();
                if text == "first" {
                    assert!(matches!(first.read().unwrap(), Said::Pong(_)));
                }
            }
            let mut second = accept(&listener);
            second.read().unwrap();
            second.send(Said::text("third")).unwrap();
        });
        run(async {
            for text in ["first", "second", "third"] {
                assert_eq!(ask(&sockets).await.unwrap(), text);
                if text != "third" {
                    // The runtime stands still and does not see what comes.
                    order.send(()).unwrap();
                    told.recv().unwrap();
                    while !has_input(sockets.idle.borrow()[0].stream.get_ref().inner()) {}
                }
            }
        });
        server.join().unwrap();
    }

    #[test]
    fn pings_whose_answers_are_not_read_end_the_call() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = sockets(&listener);
        let server = std::thread::spawn(move || {
            let mut socket = accept(&listener);
            socket.read().unwrap();
            let mut pings = [[0; 127]; 64];
            for ping in &mut pings {
                ping[..2].copy_from_slice(&[0x89, 125]);
            }
            while socket.get_mut().write_all(pings.as_flattened()).is_ok() {}
        });
        run(async {
            let error = ask(&sockets).await.unwrap_err().to_string();
            assert!(error.contains("reads no answers"), "{error}");
        });
        server.join().unwrap();
    }
}
