//! Calls that are answered with another place at the same host.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request};

use super::client::Sink;
use super::{Client, Connector, Endpoint, Error, Link, Reply};

/// How often one call follows.
const MOVES: usize = 3;

impl Client {
    /// Whether a reply says that a call belongs elsewhere, with its method and its body.
    pub(super) fn is_moved(&self, reply: &Reply) -> bool {
        let is_plain_get = self.method() == Method::GET;
        matches!(reply.status, 307 | 308) || is_plain_get && matches!(reply.status, 301..=303)
    }

    /// Makes a call again where its reply says it belongs, with its body and its key, as long as that is
    /// the same host, encrypted if it was. Gives the last reply.
    pub(super) async fn follow(
        &self,
        mut reply: Reply,
        request: Request<Full<Bytes>>,
        mut sink: Option<Sink<'_>>,
    ) -> Result<Reply, Error> {
        let endpoint = self.endpoint();
        let scheme = if endpoint.is_https() { "https" } else { "http" };
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let asked = format!("{scheme}://{}{path}", endpoint.authority());
        let Ok(mut link) = Link::parse(&asked) else { return Ok(reply) };
        for _ in 0..MOVES {
            let place = location(&reply.headers).and_then(|place| link.moved_to(place));
            let Some(next) = place.filter(|next| self.is_moved(&reply) && link.is_host_of(next))
            else {
                break;
            };
            let Ok(path) = next.path().parse() else { break };
            let client = match next.is_https() && !endpoint.is_https() {
                true => self.secure(&next)?,
                false => self,
            };
            let mut again = request.clone();
            *again.uri_mut() = client.connector().target(path, client.endpoint());
            if !std::ptr::eq(client, self) {
                again.headers_mut().remove(header::PROXY_AUTHORIZATION);
                // An authority is a valid header value.
                if let Ok(host) = HeaderValue::from_str(next.authority()) {
                    again.headers_mut().insert(header::HOST, host);
                }
            }
            reply = match &mut sink {
                None => client.call(again).await?,
                Some(sink) => client.stream_once(again, sink).await?,
            };
            link = next;
        }
        Ok(reply)
    }

    /// The client for the same host over TLS: there is one, where the first such reply pointed.
    fn secure(&self, link: &Link) -> Result<&Self, Error> {
        let refused = |reason: String| {
            let authority = link.authority().to_owned();
            Error::Connect { authority, reason }
        };
        let client = match self.secured().get() {
            Some(client) => client,
            None => {
                let endpoint = Endpoint::parse(&link.base());
                let endpoint = endpoint.map_err(|error| refused(error.to_string()))?;
                let limits = self.limits();
                let connector = Connector::new(&endpoint, &limits);
                let connector = connector.map_err(|error| refused(error.to_string()))?;
                let path = hyper::Uri::from_static("/");
                let client = Self::new(connector, endpoint, path, HeaderMap::new(), limits);
                let is_get = self.method() == Method::GET;
                let client = if is_get { client.getting() } else { client };
                self.secured().get_or_init(|| Box::new(client))
            }
        };
        match client.endpoint().authority() == link.authority() {
            true => Ok(client),
            false => Err(refused("its replies point to several ports".to_owned())),
        }
    }
}

/// Where a reply points.
fn location(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::LOCATION).and_then(|place| place.to_str().ok())
}
