//! How connections are made, and what bounds calls on them.

use std::io;
use std::time::Duration;

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use super::Endpoint;
use super::error::{Error, chain, is_late, is_tls};
use super::proxy::{Proxy, ProxyKind};

/// Bounds on a call.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For making a connection.
    pub connect: Duration,
    /// For the whole call.
    pub total: Duration,
    /// Until the answer begins, connecting included.
    pub first_byte: Duration,
    /// Without progress of an answer that has begun: an event, 1 KiB within 10 s, or an empty line before the answer.
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

/// Makes connections; shared by the workers' clients.
#[derive(Debug, Clone)]
pub struct Connector {
    route: Route,
    proxy: Option<Proxy>,
    within: Duration,
}

/// The way to an endpoint.
#[derive(Debug, Clone)]
enum Route {
    /// Without a proxy.
    Direct(HttpsConnector<HttpConnector>),
    /// Requests are handed to an HTTP proxy, which sees them.
    Forwarded(HttpConnector),
    /// Through a connection that an HTTP proxy makes.
    Tunnelled(HttpsConnector<Tunnel<HttpConnector>>),
    /// The same, to an endpoint that is not encrypted.
    PlainTunnel(Tunnel<HttpConnector>),
    /// Through a connection that a SOCKS proxy makes.
    Socks(HttpsConnector<SocksV5<HttpConnector>>),
}

impl Connector {
    /// Makes connections to an endpoint, through its proxy if it has one. For https the system's root
    /// certificates are read.
    ///
    /// # Errors
    /// When there are none.
    pub fn new(endpoint: &Endpoint, limits: &Limits) -> io::Result<Self> {
        let (proxy, within) = (Proxy::to(endpoint.uri()), limits.connect);
        let tcp = tcp(within);
        let tls = || tls_config(endpoint.is_https());
        let route = match &proxy {
            None => Route::Direct(with_tls(tls()?, tcp)),
            Some(Proxy { kind: ProxyKind::Http(_), .. }) if !endpoint.is_https() => {
                Route::Forwarded(tcp)
            }
            Some(Proxy { uri, kind: ProxyKind::Http(auth) }) => {
                Route::Tunnelled(with_tls(tls()?, tunnel(uri, auth.as_ref(), tcp)))
            }
            Some(Proxy { uri, kind: ProxyKind::Socks { auth, resolves_here } }) => {
                let mut socks = SocksV5::new(uri.clone(), tcp).local_dns(*resolves_here);
                if let Some((user, password)) = auth {
                    socks = socks.with_auth(user.clone(), password.clone());
                }
                Route::Socks(with_tls(tls()?, socks))
            }
        };
        Ok(Self { route, proxy, within })
    }

    /// The same connector for what is no plain HTTP behind its first request: a proxy makes a
    /// connection then, and does not look into it.
    pub(super) fn tunnelled(mut self) -> Self {
        if let (Route::Forwarded(tcp), Some(Proxy { uri, kind: ProxyKind::Http(auth) })) =
            (&self.route, &self.proxy)
        {
            self.route = Route::PlainTunnel(tunnel(uri, auth.as_ref(), tcp.clone()));
        }
        self
    }

    /// What the requests of all calls to an endpoint begin with; `path` includes the base URL's.
    pub(super) fn head(
        &self,
        method: Method,
        path: Uri,
        headers: HeaderMap,
        endpoint: &Endpoint,
    ) -> Request<()> {
        let mut head = Request::new(());
        *head.method_mut() = method;
        *head.uri_mut() = self.target(path, endpoint);
        *head.headers_mut() = headers;
        // An authority is a valid header value.
        if let Ok(host) = HeaderValue::from_str(endpoint.authority()) {
            head.headers_mut().insert(header::HOST, host);
        }
        if let (Route::Forwarded(_), Some(Proxy { kind: ProxyKind::Http(Some(auth)), .. })) =
            (&self.route, &self.proxy)
        {
            head.headers_mut().insert(header::PROXY_AUTHORIZATION, auth.clone());
        }
        head
    }

    /// A path as a request has it: the whole URL where a proxy is to read it.
    pub(super) fn target(&self, path: Uri, endpoint: &Endpoint) -> Uri {
        if !matches!(self.route, Route::Forwarded(_)) {
            return path;
        }
        let mut parts = endpoint.uri().clone().into_parts();
        parts.path_and_query = path.path_and_query().cloned();
        Uri::from_parts(parts).unwrap_or(path)
    }

    /// Makes a connection, encrypted or not. How long it may take is the caller's to bound.
    pub(super) async fn open(&self, endpoint: &Endpoint) -> Result<Io, Error> {
        let uri = endpoint.uri().clone();
        let opened = match (&self.route, &self.proxy) {
            (Route::Direct(connector), _) => connector.clone().call(uri).await,
            (Route::Tunnelled(connector), _) => connector.clone().call(uri).await,
            (Route::Socks(connector), _) => connector.clone().call(uri).await,
            (Route::PlainTunnel(tunnel), _) => {
                let opened = tunnel.clone().call(with_port(uri)).await;
                opened.map(MaybeHttpsStream::Http).map_err(Into::into)
            }
            (Route::Forwarded(tcp), proxy) => {
                let uri = proxy.as_ref().map_or(uri, |proxy| proxy.uri.clone());
                let opened = tcp.clone().call(uri).await;
                opened.map(MaybeHttpsStream::Http).map_err(Into::into)
            }
        };
        opened.map_err(|error| {
            let (authority, reason) = (self.shown(endpoint), chain(&*error));
            if is_late(&*error) {
                // The time is divided among the addresses of a name.
                Error::ConnectTimeout { authority, after: self.within }
            } else if is_tls(&*error) {
                Error::Tls { authority, reason }
            } else {
                Error::Connect { authority, reason }
            }
        })
    }

    /// The endpoint's host and port, and the proxy on the way there.
    pub(super) fn shown(&self, endpoint: &Endpoint) -> String {
        let authority = endpoint.authority();
        match &self.proxy {
            None => authority.to_owned(),
            Some(proxy) => format!("{authority} through the proxy {}", proxy.shown()),
        }
    }
}

/// A URL that says its port: a tunnel's would be 443.
fn with_port(uri: Uri) -> Uri {
    let host = uri.host().unwrap_or_default();
    let authority = format!("{host}:{}", uri.port_u16().unwrap_or(80));
    let mut parts = uri.clone().into_parts();
    parts.authority = authority.parse().ok();
    Uri::from_parts(parts).unwrap_or(uri)
}

fn tcp(within: Duration) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(within));
    tcp
}

fn tunnel(proxy: &Uri, auth: Option<&HeaderValue>, tcp: HttpConnector) -> Tunnel<HttpConnector> {
    let tunnel = Tunnel::new(proxy.clone(), tcp);
    match auth {
        None => tunnel,
        Some(auth) => tunnel.with_auth(auth.clone()),
    }
}

fn tls_config(is_https: bool) -> io::Result<rustls::ClientConfig> {
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let config = if is_https {
        config.with_native_roots()?
    } else {
        config.with_root_certificates(rustls::RootCertStore::empty())
    };
    Ok(config.with_no_client_auth())
}

fn with_tls<C>(config: rustls::ClientConfig, connector: C) -> HttpsConnector<C> {
    let https = HttpsConnectorBuilder::new().with_tls_config(config);
    https.https_or_http().enable_http1().wrap_connector(connector)
}

/// A connection's bytes.
pub(super) type Io = MaybeHttpsStream<TokioIo<TcpStream>>;
