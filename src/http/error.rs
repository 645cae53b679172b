//! Why there is no whole answer.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use super::guarded::NotQuiet;

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection could be made.
    #[error("cannot connect to {authority}: {reason}")]
    Connect {
        /// Host and port.
        authority: String,
        /// What the system or the TLS library said.
        reason: String,
    },
    /// No connection was made in time.
    #[error("no connection to {authority} within {} s", seconds(*after))]
    ConnectTimeout {
        /// Host and port.
        authority: String,
        /// The time allowed.
        after: Duration,
    },
    /// A connection was made, but no encrypted one.
    #[error("no encrypted connection to {authority}: {reason}")]
    Tls {
        /// Host and port.
        authority: String,
        /// What the TLS library said.
        reason: String,
    },
    /// The connection was closed before any byte of an answer.
    #[error("{authority} closed the connection without an answer")]
    Closed {
        /// Host and port.
        authority: String,
    },
    /// A connection that had been used before was closed before any byte of an answer: most likely
    /// the server had given it up when the call was on its way. Whether the server took the call
    /// is not known.
    #[error("{authority} closed a connection that had been used before, without an answer")]
    Stale {
        /// Host and port.
        authority: String,
    },
    /// What came on a WebSocket belongs to an earlier request on it.
    #[error("{authority} sent the answer to an earlier request again")]
    Repeated {
        /// Host and port.
        authority: String,
    },
    /// The connection broke in the middle of the answer, or what came was no HTTP.
    #[error("the answer of {authority} broke off: {reason}")]
    Broken {
        /// Host and port.
        authority: String,
        /// What the HTTP library said.
        reason: String,
    },
    /// The connection broke in the middle of an answer that had begun well.
    #[error("the answer of {authority} broke off: {reason}")]
    CutOff {
        /// Host and port.
        authority: String,
        /// What the HTTP library said.
        reason: String,
    },
    /// The answer was not whole in time.
    #[error("no whole answer of {authority} within {} s", seconds(*after))]
    Timeout {
        /// Host and port.
        authority: String,
        /// The time allowed.
        after: Duration,
    },
    /// The answer did not begin in time.
    #[error("no answer of {authority} began within {} s", seconds(*after))]
    FirstByte {
        /// Host and port.
        authority: String,
        /// The time allowed.
        after: Duration,
    },
    /// An answer that had begun made no progress for a while.
    #[error("no progress of the answer of {authority} for {} s", seconds(*after))]
    Idle {
        /// Host and port.
        authority: String,
        /// The time allowed.
        after: Duration,
    },
    /// The answer's body is coded in a way that cannot be decoded.
    #[error("the answer of {authority} {reason}")]
    Coded {
        /// Host and port.
        authority: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The answer's body is too large.
    #[error("the answer of {authority} has more than {limit} bytes")]
    TooLarge {
        /// Host and port.
        authority: String,
        /// The bytes allowed.
        limit: usize,
    },
}

/// Whether the connection went away before any byte of an answer.
pub(super) fn closed_early(error: &hyper::Error) -> bool {
    let reset = || {
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        source.is_some_and(|source| {
            matches!(source.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
        })
    };
    error.is_canceled() || error.is_closed() || error.is_incomplete_message() || reset()
}

/// Whether nothing of a request was sent: its connection had been closed, or something had arrived on it before
/// the request was written.
pub(super) fn is_unsent(error: &hyper::Error) -> bool {
    error.is_canceled() || error.is_closed() || is_not_quiet(error)
}

fn is_not_quiet(error: &(dyn StdError + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.is_some_and(|inner| inner.is::<NotQuiet>()) || error.source().is_some_and(is_not_quiet)
}

/// Whether it was the TLS library that refused a connection.
pub(super) fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<rustls::Error>()
        || inner.is_some_and(|inner| is_tls(inner))
        || error.source().is_some_and(is_tls)
}

/// Whether it took too long.
pub(super) fn is_late(error: &(dyn StdError + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>();
    inner.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
        || error.source().is_some_and(is_late)
}

/// An error with its causes.
pub(super) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Many errors repeat their cause.
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// Seconds as people say them: to the millisecond.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}
