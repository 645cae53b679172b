//! The only door to the network: HTTP/1.1 and WebSockets over TCP or TLS, one request at a time on a
//! connection.
//!
//! A worker has a [`Client`], or [`Sockets`], of its own, on its own thread, so no lock is taken for a call. How
//! long a connection may be idle is the server's to say; a call that finds its connection closed
//! before any byte of an answer is told from other failures ([`Error::Stale`]).

mod client;
mod connect;
mod endpoint;
mod error;
mod fetch;
mod idle;
mod link;
mod probe;
mod transfer;
mod websocket;

pub use client::{Client, Header, Reply};
pub use connect::{Connector, Limits};
pub use endpoint::{BadEndpoint, Endpoint};
pub use error::Error;
pub use fetch::{NotFetched, NotGot, fetch, get};
pub use link::{BadLink, Link};
pub use probe::probe;
pub use transfer::{Download, NotMoved, Transfer};
pub use websocket::{Flow, Sockets};
