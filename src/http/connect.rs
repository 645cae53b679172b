//! How connections are made, and what bounds calls on them.

use std::io;
use std::time::Duration;

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use super::Endpoint;
use super::error::{Error, chain, is_tls};

/// Bounds on a call.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For making a connection.
    pub connect: Duration,
    /// For the whole call.
    pub total: Duration,
    /// Until the answer begins, connecting included.
    pub first_byte: Duration,
    /// Without progress of an answer that has begun: an event, or 1 KiB within 10 s.
    pub idle: Duration,
    /// For the body of the answer, in bytes.
    pub body: usize,
}

impl Limits {
    /// Limits of calls that are short: all there is to say is how long the whole may take.
    #[must_use]
    pub fn whole(total: Duration, body: usize) -> Self {
        let connect = Duration::from_secs(10).min(total);
        Self { connect, total, first_byte: total, idle: total, body }
    }
}

/// What the requests of all calls to an endpoint begin with; `path` includes the base URL's.
pub(super) fn head(
    method: Method,
    path: Uri,
    headers: HeaderMap,
    endpoint: &Endpoint,
) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = method;
    *head.uri_mut() = path;
    *head.headers_mut() = headers;
    // An authority is a valid header value.
    if let Ok(host) = HeaderValue::from_str(endpoint.authority()) {
        head.headers_mut().insert(header::HOST, host);
    }
    head
}

/// Makes connections; shared by the workers' clients.
#[derive(Debug, Clone)]
pub struct Connector(HttpsConnector<HttpConnector>);

impl Connector {
    /// Makes connections to an endpoint. For https the system's root certificates are read.
    ///
    /// # Errors
    /// When there are none.
    pub fn new(endpoint: &Endpoint, limits: &Limits) -> io::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(limits.connect));
        let provider = rustls::crypto::ring::default_provider();
        let config = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let config = if endpoint.is_https() {
            config.with_native_roots()?
        } else {
            config.with_root_certificates(rustls::RootCertStore::empty())
        };
        let https = HttpsConnectorBuilder::new().with_tls_config(config.with_no_client_auth());
        Ok(Self(https.https_or_http().enable_http1().wrap_connector(tcp)))
    }

    /// Makes a connection, encrypted or not. How long it may take is the caller's to bound.
    pub(super) async fn open(&self, endpoint: &Endpoint) -> Result<Io, Error> {
        let mut connector = self.0.clone();
        connector.call(endpoint.uri().clone()).await.map_err(|error| {
            let (authority, reason) = (endpoint.authority().to_owned(), chain(&*error));
            if is_tls(&*error) {
                Error::Tls { authority, reason }
            } else {
                Error::Connect { authority, reason }
            }
        })
    }
}

/// A connection's bytes.
pub(super) type Io = MaybeHttpsStream<TokioIo<TcpStream>>;
