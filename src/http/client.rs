//! A worker's client: its connections, and one call from sending to the last byte.

use std::cell::{OnceCell, RefCell};
use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::mem::take;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, Uri, body::Incoming};
use tokio::time::{Sleep, sleep_until};

use super::coding::{decode, is_coded};
use super::connect::Io;
use super::error::{Error, chain, closed_early, is_unsent};
use super::guarded::{GuardedIo, RequestStart};
use super::idle::{Idle, Overdue};
use super::{Connector, Endpoint, Limits};

/// A whole answer, or the head of one whose body was handed on in pieces.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; nothing of one that was handed on.
    pub body: Bytes,
    /// Whether it was.
    pub is_handed_on: bool,
    /// When the head of the answer was there.
    pub head_at: Instant,
}

/// A header of one call.
pub type Header = (HeaderName, HeaderValue);

/// Headers of one call, besides those of all or in their place.
pub type ExtraHeaders = [Option<Header>; 2];

/// Where one call goes that does not go where the others do.
#[derive(Debug, Clone)]
pub struct Place {
    path: Uri,
    headers: HeaderMap,
}

/// A connection of HTTP/1.1, on which one request is under way at a time.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    start: RequestStart,
}

impl Connection {
    /// Speaks HTTP over a new connection.
    async fn new(io: Io) -> Result<Self, hyper::Error> {
        let start = RequestStart::default();
        let io = GuardedIo::new(io, start.clone());
        // A head and a body go out as one buffer: a copy of some kilobytes, and no list of
        // pieces for the kernel to gather.
        let (sender, connection) = http1::Builder::new().writev(false).handshake(io).await?;
        // It lives until its sender is dropped or the server closes it; what goes wrong on it, the
        // call on it is told.
        tokio::spawn(connection);
        Ok(Self { sender, start })
    }

    fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request, if nothing waits to be read: see [`is_unsent`].
    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        self.sender.ready().await?;
        self.start.arm();
        self.sender.send_request(request).await
    }
}

/// What takes the pieces of a body; true when the answer has ended.
pub(super) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> bool;

/// The connections of one worker to one endpoint, and what all calls on them have in common.
#[derive(Debug)]
pub struct Client {
    connector: Connector,
    endpoint: Endpoint,
    head: Request<()>,
    limits: Limits,
    // The last one used is the likeliest to be open still.
    idle: RefCell<Vec<Connection>>,
    /// The same host over TLS, where a reply pointed there.
    secured: OnceCell<Box<Client>>,
}

impl Place {
    /// The same place with other headers in the place of those of their names.
    #[must_use]
    pub fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.headers.extend(headers);
        self
    }
}

impl Client {
    /// A client without connections yet, whose calls go to `path`, which includes the base URL's,
    /// with these headers besides `Host` and those of the connection.
    #[must_use]
    pub fn new(
        connector: Connector,
        endpoint: Endpoint,
        path: Uri,
        headers: HeaderMap,
        limits: Limits,
    ) -> Self {
        let head = connector.head(Method::POST, path, headers, &endpoint);
        let (idle, secured) = (RefCell::default(), OnceCell::new());
        Self { connector, endpoint, head, limits, idle, secured }
    }

    /// The same client for calls that only get something.
    #[must_use]
    pub(super) fn getting(mut self) -> Self {
        *self.head.method_mut() = Method::GET;
        self
    }

    /// Makes a call with this body and further headers, and reads the whole answer.
    ///
    /// # Errors
    /// When there is no whole answer within the limits.
    pub async fn send(&self, body: Bytes, more: ExtraHeaders) -> Result<Reply, Error> {
        let reply = self.call(self.request(body.clone(), more.clone())).await?;
        if !self.is_moved(&reply) {
            return Ok(reply);
        }
        Box::pin(self.follow(reply, self.request(body, more), None)).await
    }

    /// As [`Client::send`], to a place of the endpoint's.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_to(
        &self,
        place: Place,
        body: Bytes,
        more: ExtraHeaders,
    ) -> Result<Reply, Error> {
        let mut request = self.request(body, more);
        *request.uri_mut() = self.connector.target(place.path, &self.endpoint);
        request.headers_mut().extend(place.headers);
        let reply = self.call(request.clone()).await?;
        if !self.is_moved(&reply) {
            return Ok(reply);
        }
        Box::pin(self.follow(reply, request, None)).await
    }

    /// The place that a url names which begins with the version, as those of OpenAI's Batch API do, and the headers of
    /// its calls besides those of all, in whose place they stand. Nothing where it cannot be asked for.
    #[must_use]
    pub fn place(&self, url: &str, headers: HeaderMap) -> Option<Place> {
        let path = self.endpoint.path_of(url).parse().ok()?;
        Some(Place { path, headers })
    }

    /// The bounds on its calls.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn method(&self) -> &Method {
        self.head.method()
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    pub(super) fn secured(&self) -> &OnceCell<Box<Self>> {
        &self.secured
    }

    pub(super) async fn call(&self, request: Request<Full<Bytes>>) -> Result<Reply, Error> {
        let (began, timer) = self.timer();
        let mut timer = pin!(timer);
        let (response, connection) = self.in_time(timer.as_mut(), self.begin(request)).await?;
        timer.as_mut().reset(began + self.limits.total);
        let whole = within(timer, self.read(response, connection)).await;
        whole.unwrap_or_else(|| Err(self.late()))
    }

    /// Makes a call that asks for events. Pieces of a body that has some go to `sink` as they come,
    /// cut anywhere, until it says that the answer has ended; any other reply is read whole.
    ///
    /// # Errors
    /// When there is no reply within the limits, or it breaks off before the answer has ended.
    pub async fn stream(
        &self,
        body: Bytes,
        more: ExtraHeaders,
        sink: Sink<'_>,
    ) -> Result<Reply, Error> {
        let reply = self.stream_once(self.request(body.clone(), more.clone()), sink).await?;
        if !self.is_moved(&reply) {
            return Ok(reply);
        }
        Box::pin(self.follow(reply, self.request(body, more), Some(sink))).await
    }

    pub(super) async fn stream_once(
        &self,
        request: Request<Full<Bytes>>,
        sink: Sink<'_>,
    ) -> Result<Reply, Error> {
        let (began, timer) = self.timer();
        let mut timer = pin!(timer);
        let (response, connection) = self.in_time(timer.as_mut(), self.begin(request)).await?;
        timer.as_mut().reset(began + self.limits.total);
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let has_events = content_type
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.trim_start().starts_with("text/event-stream"));
        let is_handed_on = response.status().is_success() && has_events;
        // What is compressed is taken apart once it is whole.
        let is_coded = is_coded(response.headers());
        let reply = if is_handed_on && !is_coded {
            within(timer, self.hand_on(response, connection, sink)).await
        } else {
            within(timer, self.read(response, connection)).await
        };
        let mut reply = reply.unwrap_or_else(|| Err(self.late()))?;
        if is_handed_on && is_coded {
            sink(&take(&mut reply.body));
            reply.is_handed_on = true;
        }
        Ok(reply)
    }

    /// When a call begins, and a timer for its beginning, which is set anew for its end: one is
    /// enough.
    fn timer(&self) -> (tokio::time::Instant, Sleep) {
        let now = tokio::time::Instant::now();
        (now, sleep_until(now + self.limits.first_byte.min(self.limits.total)))
    }

    /// The beginning of a reply, if it comes in time.
    async fn in_time<T>(
        &self,
        timer: Pin<&mut Sleep>,
        begin: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Limits { first_byte, total, .. } = self.limits;
        match within(timer, begin).await {
            Some(result) => result,
            None if first_byte < total => {
                Err(Error::FirstByte { authority: self.authority(), after: first_byte })
            }
            None => Err(self.late()),
        }
    }

    fn late(&self) -> Error {
        Error::Timeout { authority: self.authority(), after: self.limits.total }
    }

    async fn hand_on(
        &self,
        response: Response<Incoming>,
        connection: Connection,
        sink: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Reply, Error> {
        /// How long the end of a body may take whose answer has ended.
        const REST: Duration = Duration::from_secs(1);
        let head_at = Instant::now();
        let (head, body) = response.into_parts();
        let mut body = Limited::new(body, self.limits.body);
        let (mut has_ended, mut bound) = (false, self.limits.idle);
        let mut idle = Idle::new(bound);
        let is_whole = loop {
            let piece = match idle.bound(body.frame()).await {
                // An answer that has ended is one, whatever its connection does then.
                Err(_) | Ok(Some(Err(_))) if has_ended => break false,
                Ok(None) => break true,
                Ok(Some(Ok(piece))) => piece,
                Err(_) => return Err(Error::Idle { authority: self.authority(), after: bound }),
                Ok(Some(Err(error))) => return Err(self.cut_off(&*error)),
            };
            if let Some(data) = piece.data_ref()
                && !has_ended
            {
                // The end of a line is an event's, or of something that keeps the connection alive.
                match memchr::memchr(b'\n', data) {
                    Some(_) => idle.progress(),
                    None => idle.count(data),
                }
                has_ended = sink(data);
                if has_ended {
                    bound = REST.min(bound);
                    idle = Idle::new(bound);
                }
            }
        };
        if is_whole && !connection.is_closed() {
            self.idle.borrow_mut().push(connection);
        }
        let (status, body) = (head.status.as_u16(), Bytes::new());
        Ok(Reply { status, headers: head.headers, body, is_handed_on: true, head_at })
    }

    /// Sends a call and waits for the head of its reply.
    async fn begin(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Connection), Error> {
        while let Some(mut connection) = self.take_idle() {
            match connection.send(request.clone()).await {
                Ok(response) => return Ok((response, connection)),
                Err(error) if is_unsent(&error) => {}
                Err(error) if closed_early(&error) => {
                    // The others are as old: the next call takes none of them.
                    self.idle.borrow_mut().clear();
                    return Err(Error::Stale { authority: self.authority() });
                }
                Err(error) => return Err(self.broken(&error)),
            }
        }
        // Seldom done, and large: kept apart, it leaves every other call small.
        let mut connection = Box::pin(self.connect()).await?;
        match connection.send(request).await {
            Ok(response) => Ok((response, connection)),
            Err(error) if closed_early(&error) => {
                Err(Error::Closed { authority: self.authority() })
            }
            Err(error) => Err(self.broken(&error)),
        }
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        while let Some(connection) = idle.pop() {
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    fn request(&self, body: Bytes, more: ExtraHeaders) -> Request<Full<Bytes>> {
        let mut request = self.head.clone().map(|()| Full::new(body));
        for (name, value) in more.into_iter().flatten() {
            request.headers_mut().insert(name, value);
        }
        request
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let refused = |reason: String| Error::Connect { authority: self.authority(), reason };
        let connecting = async {
            let io = self.connector.open(&self.endpoint).await?;
            Connection::new(io).await.map_err(|error| refused(chain(&error)))
        };
        tokio::time::timeout(self.limits.connect, connecting).await.unwrap_or_else(|_| {
            let after = self.limits.connect;
            Err(Error::ConnectTimeout { authority: self.authority(), after })
        })
    }

    async fn read(
        &self,
        response: Response<Incoming>,
        connection: Connection,
    ) -> Result<Reply, Error> {
        let head_at = Instant::now();
        let (head, body) = response.into_parts();
        let body = self.whole(Limited::new(body, self.limits.body)).await;
        let body = body.map_err(|error| match error {
            Error::CutOff { authority, reason } if !head.status.is_success() => {
                Error::Broken { authority, reason }
            }
            error => error,
        })?;
        if !connection.is_closed() {
            self.idle.borrow_mut().push(connection);
        }
        let body = decode(&head.headers, body, self.limits.body)
            .map_err(|error| error.of_answer(self.authority(), self.limits.body))?;
        let status = head.status.as_u16();
        Ok(Reply { status, headers: head.headers, body, is_handed_on: false, head_at })
    }

    /// Reads a body to its end.
    async fn whole(&self, mut body: Limited<Incoming>) -> Result<Bytes, Error> {
        // Most come in one piece, and are there with their head.
        let (mut first, mut more, mut idle) = (Bytes::new(), BytesMut::new(), None);
        loop {
            let mut frame = body.frame();
            let piece = match poll_fn(|context| Poll::Ready(frame.poll_unpin(context))).await {
                Poll::Ready(piece) => piece,
                Poll::Pending => {
                    let idle = idle.get_or_insert_with(|| Idle::new(self.limits.idle));
                    idle.bound(frame).await.map_err(|Overdue| Error::Idle {
                        authority: self.authority(),
                        after: self.limits.idle,
                    })?
                }
            };
            let data = match piece {
                None if more.is_empty() => return Ok(first),
                None => return Ok(more.freeze()),
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Err(self.cut_off(&*error)),
            };
            if let Some(idle) = &mut idle {
                idle.count(&data);
            }
            if first.is_empty() && more.is_empty() {
                first = data;
            } else {
                more.extend_from_slice(&take(&mut first));
                more.extend_from_slice(&data);
            }
        }
    }

    /// Why a body did not come to its end.
    fn cut_off(&self, error: &(dyn StdError + Send + Sync + 'static)) -> Error {
        let (authority, limit) = (self.authority(), self.limits.body);
        if error.is::<LengthLimitError>() {
            Error::TooLarge { authority, limit }
        } else {
            Error::CutOff { authority, reason: chain(error) }
        }
    }

    fn authority(&self) -> String {
        self.endpoint.authority().to_owned()
    }

    fn broken(&self, error: &hyper::Error) -> Error {
        Error::Broken { authority: self.authority(), reason: chain(error) }
    }
}

/// A future's result, unless the timer runs out before.
async fn within<T>(mut timer: Pin<&mut Sleep>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => timer.as_mut().poll(context).map(|()| None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use hyper_util::rt::TokioIo;

    use super::*;

    /// Reads a request and replies to it.
    fn answer(stream: &mut TcpStream, text: &str) {
        let mut read = [0; 4096];
        assert!(stream.read(&mut read).unwrap() > 0);
        reply(stream, text);
    }

    fn reply(stream: &mut TcpStream, text: &str) {
        let length = text.len();
        write!(stream, "HTTP/1.1 200 X\r\ncontent-length: {length}\r\n\r\n{text}").unwrap();
    }

    fn client(listener: &TcpListener) -> Client {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let endpoint = Endpoint::parse(&url).unwrap();
        let limits = Limits::whole(Duration::from_secs(20), 1 << 20);
        let connector = Connector::new(&endpoint, &limits).unwrap();
        Client::new(connector, endpoint, "/x".parse().unwrap(), HeaderMap::new(), limits)
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    /// After a reply the server does this with the connection; then the client makes another call, before the runtime
    /// has seen what was done.
    fn call_after(act: impl FnOnce(TcpStream)) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = client(&listener);
        run(async {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            stream.set_nonblocking(true).unwrap();
            let (mut first, seen) = (listener.accept().unwrap().0, stream.try_clone().unwrap());
            let io = Io::Http(TokioIo::new(tokio::net::TcpStream::from_std(stream).unwrap()));
            let connection = Connection::new(io).await.unwrap();
            client.idle.borrow_mut().push(connection);
            let call = || client.send(Bytes::from_static(b"{}"), [None, None]);
            let server = std::thread::spawn(move || {
                answer(&mut first, "first");
                first
            });
            assert_eq!(call().await.unwrap().body, "first");
            act(server.join().unwrap());
            while seen.peek(&mut [0]).is_err() {}
            let server = std::thread::spawn(move || {
                answer(&mut listener.accept().unwrap().0, "second");
            });
            assert_eq!(call().await.unwrap().body, "second");
            server.join().unwrap();
        });
    }

    #[test]
    fn late_reply_before_request_answers_nobody() {
        call_after(|mut first| {
            reply(&mut first, "late");
            std::mem::forget(first);
        });
    }

    #[test]
    fn closed_connection_is_replaced_unseen() {
        call_after(drop);
    }

    #[test]
    fn reply_before_first_request_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = client(&listener);
        run(async {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            stream.set_nonblocking(true).unwrap();
            let (mut server, seen) = (listener.accept().unwrap().0, stream.try_clone().unwrap());
            let io = Io::Http(TokioIo::new(tokio::net::TcpStream::from_std(stream).unwrap()));
            let mut connection = Connection::new(io).await.unwrap();
            reply(&mut server, "early");
            while seen.peek(&mut [0]).is_err() {}
            let error =
                connection.send(client.request(Bytes::new(), [None, None])).await.unwrap_err();
            assert!(is_unsent(&error), "{error:?}");
        });
    }
}
