//! The server that rowmill and wrk call: it answers every request at once, or after a while, with the
//! same answer of some 330 bytes, whole or in events, also over a WebSocket. A process of its own, so
//! that its CPU is not rowmill's.

use std::io::{self, BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use super::replies::{Replies, upgrade};

/// The argument with which the benchmarks start themselves as the server.
pub const SERVE: &str = "--serve";

/// A running server; it ends with this.
pub struct Server {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    pub port: String,
}

impl Server {
    /// Starts a server whose answers take so long.
    pub fn start(delay: Duration) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args([SERVE, &delay.as_millis().to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let port = read_line(&mut lines);
        Self { child, lines, port }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// Waits until the first request has come.
    pub fn wait_for_first(&mut self) {
        read_line(&mut self.lines);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).expect("the server says something");
    line.trim().to_owned()
}

/// Serves until it is killed. Says its port on a line, and then when the first request has come.
pub fn serve(delay_ms: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let delay = Duration::from_millis(delay_ms);
    runtime.expect("a runtime").block_on(async {
        // A thousand connections at once must not overflow the queue of those to be accepted: what
        // is dropped there comes back after a second.
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
        let listener = socket.listen(4096).expect("a queue");
        say(&listener.local_addr().expect("an address").port().to_string());
        let replies = Arc::new(Replies::new());
        let is_first = Arc::new(std::sync::Once::new());
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let (replies, is_first) = (Arc::clone(&replies), Arc::clone(&is_first));
            tokio::spawn(async move {
                // A client that goes away ends its connection and nothing else.
                let _ = answer_all(&stream, delay, &replies, &is_first).await;
            });
        }
    });
}

fn say(line: &str) {
    println!("{line}");
    io::stdout().flush().expect("a pipe");
}

async fn answer_all(
    stream: &TcpStream,
    delay: Duration,
    replies: &Replies,
    is_first: &std::sync::Once,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut buffer, mut have, mut is_socket) = (vec![0; 1 << 14], 0, false);
    let mut length_of: fn(&[u8]) -> Option<usize> = request_length;
    loop {
        while let Some(length) = length_of(&buffer[..have]) {
            is_first.call_once(|| say("first"));
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let request = &buffer[..length];
            if is_socket {
                match request[0] & 0x0f {
                    TEXT => write_all(stream, &replies.messages()).await?,
                    CLOSE => return write_all(stream, &[0x80 | CLOSE, 0]).await,
                    _ => {}
                }
            } else if let Some(consent) = upgrade(request) {
                write_all(stream, &consent).await?;
                (is_socket, length_of) = (true, frame_length);
            } else {
                write_all(stream, replies.to(request)).await?;
            }
            buffer.copy_within(length..have, 0);
            have -= length;
        }
        if have == buffer.len() {
            buffer.resize(2 * have, 0);
        }
        stream.readable().await?;
        match stream.try_read(&mut buffer[have..]) {
            Ok(0) => return Ok(()),
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

pub(super) async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The length of the request at the beginning of the buffer, once all of it is there.
pub(super) fn request_length(buffer: &[u8]) -> Option<usize> {
    const LENGTH: &[u8] = b"content-length:";
    let head = memchr::memmem::find(buffer, b"\r\n\r\n")?;
    let body = buffer[..head].split(|byte| *byte == b'\n').find_map(|line| {
        let value =
            line.split_at_checked(LENGTH.len()).filter(|it| it.0.eq_ignore_ascii_case(LENGTH));
        std::str::from_utf8(value?.1).ok()?.trim().parse::<usize>().ok()
    });
    let length = head + 4 + body.unwrap_or(0);
    (length <= buffer.len()).then_some(length)
}

/// What frames of a WebSocket are (RFC 6455, section 5.2).
const TEXT: u8 = 1;
const CLOSE: u8 = 8;

/// The length of the frame at the beginning of the buffer, once all of it is there.
fn frame_length(buffer: &[u8]) -> Option<usize> {
    let behind = buffer.get(2..)?;
    let (head, length) = match buffer[1] & 0x7f {
        126 => (4, u16::from_be_bytes(*behind.first_chunk()?).into()),
        127 => (10, usize::try_from(u64::from_be_bytes(*behind.first_chunk()?)).ok()?),
        short => (2, usize::from(short)),
    };
    // A client's frames have a mask of four bytes.
    let length = head + 4 + length;
    (length <= buffer.len()).then_some(length)
}
