//! A connection that sends no request while something waits to be read on it.
//!
//! HTTP/1.1 and WebSockets pair a reply with its request by their order on the connection. What came
//! before a request was sent is no reply to it, whatever it looks like: the connection is closed, and
//! the request goes out on another one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_rustls::MaybeHttpsStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::connect::Io;

/// Whether the next bytes written begin a request; shared by a connection's bytes and whoever sends requests
/// on it.
#[derive(Debug, Clone, Default)]
pub(super) struct RequestStart(Arc<AtomicBool>);

impl RequestStart {
    /// The next bytes written begin a request.
    pub(super) fn arm(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_armed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection's bytes. The beginning of a request is written only when nothing waits to be read.
#[derive(Debug)]
pub(super) struct GuardedIo {
    io: Io,
    start: RequestStart,
}

/// Why a request was not sent.
#[derive(Debug, thiserror::Error)]
#[error("something arrived before the request was sent, or the connection was closed")]
pub(super) struct NotQuiet;

impl GuardedIo {
    pub(super) fn new(io: Io, start: RequestStart) -> Self {
        Self { io, start }
    }

    /// Ready when nothing waits to be read.
    ///
    /// # Errors
    /// When something does, or the connection was closed.
    fn poll_quiet(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        match Pin::new(&mut self.io).poll_read(context, buffer.unfilled()) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(io::Error::other(NotQuiet))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // The runtime has not seen it yet: it wakes this task. Over TLS it may be no data.
            Poll::Pending if has_input(&self.io) => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

impl Read for GuardedIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.start.is_armed() {
            // The request is not written yet, so nothing here is its reply.
            ready!(this.poll_quiet(context))?;
        }
        Pin::new(&mut this.io).poll_read(context, buffer)
    }
}

impl Write for GuardedIo {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.start.is_armed() {
            ready!(this.poll_quiet(context))?;
            this.start.0.store(false, Ordering::Relaxed);
        }
        Pin::new(&mut this.io).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

/// Whether the system holds bytes of a connection, or its end, that nobody has read yet.
pub(super) fn has_input(io: &Io) -> bool {
    let socket = match io {
        MaybeHttpsStream::Http(tcp) => tcp.inner(),
        MaybeHttpsStream::Https(tls) => tls.inner().get_ref().0.inner().inner(),
    };
    let mut watched = [PollFd::new(socket, PollFlags::IN)];
    poll(&mut watched, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}
