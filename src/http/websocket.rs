//! A worker's WebSockets to one endpoint: a request and its events on one at a time, kept open for
//! the next.

use std::cell::RefCell;
use std::mem::take;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode, Uri, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};

use super::coding::decode;
use super::error::{Error, chain, closed_early};
use super::idle::{Idle, Overdue};
use super::{Connector, Endpoint, Limits, Reply};

/// How a message went down with whoever takes an answer's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The answer goes on.
    More,
    /// The answer has ended.
    Ended,
    /// So it has, and the connection is of no more use.
    Worn,
}

/// A connection is not used for another call when it has been open for so long: OpenAI ends them
/// after 60 minutes. <https://developers.openai.com/api/docs/guides/websocket-mode>
const OLD: Duration = Duration::from_secs(55 * 60);

/// How much is read at once. The library holds as much for every connection, and fills it with zeros
/// before each look at the connection; of its own accord that is 128 KiB.
const READ: usize = 16 << 10;

/// The WebSockets of one worker to one endpoint.
#[derive(Debug)]
pub struct Sockets {
    connector: Connector,
    endpoint: Endpoint,
    head: Request<()>,
    limits: Limits,
    idle: RefCell<Vec<Socket>>,
}

#[derive(Debug)]
struct Socket {
    stream: WebSocketStream<TokioIo<Upgraded>>,
    since: Instant,
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
        Self { connector, endpoint, head, limits, idle: RefCell::default() }
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
        let (mut socket, is_fresh) = match self.take_idle() {
            Some(socket) => (socket, false),
            None => match Box::pin(self.connect()).await? {
                Asked::Open(socket) => (*socket, true),
                Asked::Refused(reply) => return Ok(reply),
            },
        };
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
                Some(Err(error)) => return Err(self.broken(chain(&error))),
                None => return Err(self.broken("the connection was closed".to_owned())),
            };
            let data = match message {
                Message::Text(text) => Bytes::from(text),
                Message::Binary(data) => data,
                // The library answers them; behind the last comes the end.
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
            if flow == Flow::Ended {
                self.idle.borrow_mut().push(socket);
            }
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
        let io = TokioIo::new(upgraded);
        let stream = WebSocketStream::from_raw_socket(io, Role::Client, Some(config)).await;
        Ok(Asked::Open(Box::new(Socket { stream, since: Instant::now() })))
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

    fn too_large(&self) -> Error {
        Error::TooLarge { authority: self.authority(), limit: self.limits.body }
    }
}
