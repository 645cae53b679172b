//! The only door to the network: HTTP/1.1 and WebSockets over TCP or TLS, one request at a time on a
//! connection.
//!
//! A worker has a [`Client`], or [`Sockets`], of its own, on its own thread, so no lock is taken for a call. How
//! long a connection may be idle is the server's to say; a call that finds its connection closed
//! before any byte of an answer is told from other failures ([`Error::Stale`]).

mod client;
mod coding;
mod connect;
mod endpoint;
mod error;
mod fetch;
mod guarded;
mod idle;
mod link;
mod probe;
mod proxy;
mod redirect;
mod transfer;
mod websocket;

use hyper::header::{self, HeaderMap, HeaderValue};

pub use client::{Client, ExtraHeaders, Header, Place, Reply};
pub use connect::{Connector, Limits};
pub use endpoint::{BadEndpoint, Endpoint, hide_query};
pub use error::Error;
pub use fetch::{NotFetched, NotGot, bring, fetch, get};
pub use link::{BadLink, Link};
pub use probe::probe;
pub use proxy::{BadProxy, Proxies};
pub use transfer::{Download, NotMoved, Transfer};
pub use websocket::{Flow, Sockets};

/// What rowmill says it is, in every request to an endpoint or for a document (RFC 9110, section 10.1.5).
pub const USER_AGENT: &str = concat!("rowmill/", env!("CARGO_PKG_VERSION"));

/// The headers of a request for a document of any type.
fn of_document() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    // A part of what is compressed on the way is no part of the document.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers
}
