//! Documents of any size, fetched from a URL and put at one: piece by piece, without a key.

use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Either, Empty, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use tokio::runtime::Runtime;

use super::error::{Error, chain, closed_early};
use super::fetch::MOVES;
use super::link::Link;
use super::{Connector, Endpoint, Limits, of_document};

/// Why a document did not come, or was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotMoved {
    /// The system gives no runtime or no certificates, or a file cannot be read.
    #[error(transparent)]
    System(#[from] io::Error),
    /// There was no whole answer in time.
    #[error(transparent)]
    Call(#[from] Error),
    /// It is somewhere else, and is not sought there.
    #[error("{0}")]
    Elsewhere(&'static str),
    /// The caller wanted no more of it.
    #[error("interrupted")]
    Stopped,
}

/// What moves documents: on this thread, and only while one of its calls lasts.
pub struct Transfer<'a> {
    runtime: Runtime,
    patience: Duration,
    stop: &'a dyn Fn() -> bool,
}

/// The head of an answer, and what is left of its body.
pub struct Download<'a> {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    transfer: &'a Transfer<'a>,
    authority: String,
    body: Incoming,
    _connection: SendRequest<Outgoing>,
}

type Outgoing = Either<Empty<Bytes>, FileBody>;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

impl<'a> Transfer<'a> {
    /// Begins nothing yet. Gives up where for as long as `patience` nothing moves, and soon after
    /// `stop` says so.
    ///
    /// # Errors
    /// When the system gives no runtime.
    pub fn new(patience: Duration, stop: &'a dyn Fn() -> bool) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, patience, stop })
    }

    /// Asks for a document, or for what is behind `from`: so many bytes of the version of it that
    /// has this validator (RFC 9110, section 13.1.5). Follows it to other places, though never from
    /// https to http.
    ///
    /// # Errors
    /// When there is no answer. Any status but those that point elsewhere is one.
    pub fn get(&self, link: &Link, from: Option<(u64, &str)>) -> Result<Download<'_>, NotMoved> {
        let mut headers = of_document();
        if let Some((offset, validator)) = from
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={offset}-"))
            && let Ok(validator) = HeaderValue::from_str(validator)
        {
            headers.insert(header::RANGE, range);
            headers.insert(header::IF_RANGE, validator);
        }
        self.follow(link, headers)
    }

    /// Asks for the first bytes of a document, as [`Transfer::get`] does for the rest of one. A server may
    /// send all of it.
    ///
    /// # Errors
    /// As [`Transfer::get`].
    pub fn get_beginning(&self, link: &Link, bytes: u64) -> Result<Download<'_>, NotMoved> {
        let mut headers = of_document();
        if let Ok(range) = HeaderValue::from_str(&format!("bytes=0-{}", bytes.saturating_sub(1))) {
            headers.insert(header::RANGE, range);
        }
        self.follow(link, headers)
    }

    fn follow(&self, link: &Link, headers: HeaderMap) -> Result<Download<'_>, NotMoved> {
        let mut link = link.clone();
        for _ in 0..=MOVES {
            let body = || Either::Left(Empty::new());
            let (response, connection) =
                self.exchange(Method::GET, &link, headers.clone(), body(), &AtomicU64::new(0))?;
            let status = response.status().as_u16();
            let place = response.headers().get(header::LOCATION);
            let place = place.and_then(|place| place.to_str().ok());
            let Some(place) = place.filter(|_| matches!(status, 301..=303 | 307 | 308)) else {
                let (head, body) = response.into_parts();
                return Ok(Download {
                    status,
                    headers: head.headers,
                    transfer: self,
                    authority: link.authority().to_owned(),
                    body,
                    _connection: connection,
                });
            };
            link = link.moved_to(place).ok_or(NotMoved::Elsewhere(
                "it is said to be elsewhere, where it is not sought: at no URL, or at one that is \
                 not encrypted",
            ))?;
        }
        Err(NotMoved::Elsewhere("it is said to be elsewhere again and again"))
    }

    /// Puts a file at a URL, with its length and type and no other header: a pre-signed URL may be
    /// signed for these alone. Gives the status and the beginning of what is said with it.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn put(
        &self,
        link: &Link,
        file: File,
        length: u64,
        content_type: &'static str,
    ) -> Result<(u16, HeaderMap, Bytes), NotMoved> {
        /// More than an error of S3's has.
        const SAID: usize = 1 << 16;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        let moved = Arc::new(AtomicU64::new(0));
        let body = Either::Right(FileBody { file, left: length, moved: Arc::clone(&moved) });
        let (response, _connection) = self.exchange(Method::PUT, link, headers, body, &moved)?;
        let (head, body) = response.into_parts();
        // What is said with a status decides nothing.
        let said = self.bounded(link.authority(), &AtomicU64::new(0), async {
            let body = Limited::new(body, SAID).collect().await;
            Ok(body.map_or_else(|_| Bytes::new(), http_body_util::Collected::to_bytes))
        });
        let said = match said {
            Err(NotMoved::Stopped) => return Err(NotMoved::Stopped),
            said => said.unwrap_or_default(),
        };
        Ok((head.status.as_u16(), head.headers, said))
    }

    /// Sends a request on a connection of its own, and waits for the head of its answer.
    fn exchange(
        &self,
        method: Method,
        link: &Link,
        headers: HeaderMap,
        body: Outgoing,
        moved: &AtomicU64,
    ) -> Result<(Response<Incoming>, SendRequest<Outgoing>), NotMoved> {
        let no_url = |_| NotMoved::Elsewhere("it is no URL");
        let endpoint =
            Endpoint::parse(&link.base()).map_err(|_| NotMoved::Elsewhere("it names no host"))?;
        let path: Uri = link.path().parse().map_err(no_url)?;
        let limits = Limits::whole(self.patience, usize::MAX);
        let connector = Connector::new(&endpoint, &limits)?;
        let authority = || endpoint.authority().to_owned();
        let request: Request<Outgoing> =
            connector.head(method, path, headers, &endpoint).map(|()| body);
        let call = async {
            let refused = |reason| Error::Connect { authority: authority(), reason };
            let io = tokio::time::timeout(CONNECT, connector.open(&endpoint));
            let io = io.await.map_err(|_| refused("it took too long".to_owned()))??;
            let (mut sender, connection) =
                http1::handshake(io).await.map_err(|error| refused(chain(&error)))?;
            // What goes wrong on it, the call on it is told.
            tokio::spawn(connection);
            match sender.send_request(request).await {
                Ok(response) => Ok((response, sender)),
                Err(error) if closed_early(&error) => Err(Error::Closed { authority: authority() }),
                Err(error) => Err(Error::Broken { authority: authority(), reason: chain(&error) }),
            }
        };
        self.bounded(link.authority(), moved, async { Ok(call.await?) })
    }

    /// Waits for something for as long as something moves and nobody wants it to stop.
    fn bounded<T>(
        &self,
        authority: &str,
        moved: &AtomicU64,
        body: impl Future<Output = Result<T, NotMoved>>,
    ) -> Result<T, NotMoved> {
        /// How often is looked.
        const GLANCE: Duration = Duration::from_millis(100);
        let watch = async {
            let (mut before, mut since) = (moved.load(Ordering::Relaxed), Instant::now());
            loop {
                if (self.stop)() {
                    return NotMoved::Stopped;
                }
                let now = moved.load(Ordering::Relaxed);
                if now != before {
                    (before, since) = (now, Instant::now());
                } else if since.elapsed() > self.patience {
                    let (authority, after) = (authority.to_owned(), self.patience);
                    return NotMoved::Call(Error::Timeout { authority, after });
                }
                tokio::time::sleep(GLANCE).await;
            }
        };
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                result = body => result,
                end = watch => Err(end),
            }
        })
    }
}

impl Download<'_> {
    /// The next piece of the body; nothing at its end.
    ///
    /// # Errors
    /// When it breaks off, or nothing comes for a while.
    pub fn piece(&mut self) -> Result<Option<Bytes>, NotMoved> {
        let Self { transfer, authority, body, .. } = self;
        let call = async {
            loop {
                match body.frame().await {
                    None => return Ok(None),
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            return Ok(Some(data));
                        }
                    }
                    Some(Err(error)) => {
                        let (authority, reason) = (authority.clone(), chain(&error));
                        return Err(Error::Broken { authority, reason }.into());
                    }
                }
            }
        };
        transfer.bounded(authority, &AtomicU64::new(0), call)
    }
}

/// A file as the body of a request, read as it is sent.
struct FileBody {
    file: File,
    left: u64,
    // Bytes that were handed on, for whoever wonders whether anything moves.
    moved: Arc<AtomicU64>,
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        /// Bytes read at once.
        const PIECE: u64 = 64 << 10;
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let most = usize::try_from(self.left.min(PIECE)).unwrap_or_default();
        let mut piece = BytesMut::zeroed(most);
        let read = match self.file.read(&mut piece) {
            Ok(0) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
            Ok(read) => read,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        piece.truncate(read);
        self.left -= read as u64;
        self.moved.fetch_add(read as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece.freeze()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
