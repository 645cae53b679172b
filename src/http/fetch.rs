//! One document by its URL, or by its path at an endpoint, outside of any run.

use std::io;

use bytes::Bytes;
use hyper::Uri;
use hyper::header::{self, HeaderMap};

use super::{Client, Connector, Endpoint, Error, Limits, Link, Reply, of_document};

/// Why a document could not be fetched.
#[derive(Debug, thiserror::Error)]
#[error("cannot fetch {url}: {reason}")]
pub struct NotFetched {
    url: String,
    reason: String,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum NotGot {
    /// The path cannot be asked for.
    #[error("{0:?} cannot be a path")]
    Path(String),
    /// The system gives no runtime or no certificates.
    #[error(transparent)]
    System(#[from] io::Error),
    /// There is no whole answer within the limits.
    #[error(transparent)]
    Call(#[from] Error),
    /// It is somewhere else, and is not sought there.
    #[error("{0}")]
    Elsewhere(&'static str),
}

impl NotGot {
    /// Why there is no whole answer, where somebody was asked for one.
    #[must_use]
    pub fn call(&self) -> Option<&Error> {
        match self {
            Self::Call(error) => Some(error),
            Self::Path(_) | Self::System(_) | Self::Elsewhere(_) => None,
        }
    }
}

/// How often a document may be said to be elsewhere.
pub(super) const MOVES: usize = 5;

/// Brings a document within the limits, on a connection of its own and without a key. Follows it to other
/// places, though never from https to http.
///
/// # Errors
/// When there is no whole answer within the limits. Any status but those that point elsewhere is one.
pub async fn bring(link: &Link, limits: Limits) -> Result<Reply, NotGot> {
    let mut link = link.clone();
    for _ in 0..=MOVES {
        let endpoint = Endpoint::parse(&link.base());
        let endpoint = endpoint.map_err(|_| NotGot::Elsewhere("it names no host"))?;
        let path: Uri = link.path().parse().map_err(|_| NotGot::Elsewhere("it is no URL"))?;
        let connector = Connector::new(&endpoint, &limits)?;
        let client = Client::new(connector, endpoint, path, of_document(), limits).getting();
        let reply = client.send(Bytes::new(), [None, None]).await?;
        let place = reply.headers.get(header::LOCATION).and_then(|place| place.to_str().ok());
        let Some(place) = place.filter(|_| matches!(reply.status, 301..=303 | 307 | 308)) else {
            return Ok(reply);
        };
        link = link.moved_to(place).ok_or(NotGot::Elsewhere(
            "it is said to be elsewhere, where it is not sought: at no URL, or at one that is not \
             encrypted",
        ))?;
    }
    Err(NotGot::Elsewhere("it is said to be elsewhere again and again"))
}

/// Gets what is at a path of an endpoint, which includes the base URL's, on a connection of its own
/// and without following redirects. Waits for it.
///
/// # Errors
/// When there is no whole answer within the limits. Any status is one.
pub fn get(
    endpoint: &Endpoint,
    path: &str,
    headers: HeaderMap,
    limits: Limits,
) -> Result<Reply, NotGot> {
    let uri: Uri = path.parse().map_err(|_| NotGot::Path(path.to_owned()))?;
    let connector = Connector::new(endpoint, &limits)?;
    let client = Client::new(connector, endpoint.clone(), uri, headers, limits).getting();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(client.send(Bytes::new(), [None, None]))?)
}

/// Fetches a document within the limits, without a key and without following redirects.
///
/// # Errors
/// When the URL is none, or holds a user name or a password, which do not belong on a command line;
/// when there is no whole answer; when its status is not 200.
pub fn fetch(url: &str, limits: Limits) -> Result<Bytes, NotFetched> {
    let bad = |reason: String| {
        let url = Link::without_secrets(url);
        NotFetched { url, reason }
    };
    if url.contains('@') {
        return Err(bad("a user name or password does not belong in it".to_owned()));
    }
    let uri: Uri = url.parse().map_err(|_| bad("it is no URL".to_owned()))?;
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let base = format!("{}://{host}", uri.scheme_str().unwrap_or_default());
    let endpoint = Endpoint::parse(&base).map_err(|error| bad(error.to_string()))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let reply =
        get(&endpoint, path, of_document(), limits).map_err(|error| bad(error.to_string()))?;
    let place = reply.headers.get(header::LOCATION).and_then(|place| place.to_str().ok());
    match (reply.status, place) {
        (200, _) => Ok(reply.body),
        (300..=399, Some(place)) => {
            let place = Link::without_secrets(place);
            Err(bad(format!("it points to {place}; give that instead")))
        }
        (status, _) => Err(bad(format!("HTTP {status}"))),
    }
}
