//! The server that rowmill and wrk call: it answers every request at once, or after a while, with the
//! same chat completion of some 600 bytes. A process of its own, so that its CPU is not rowmill's.

use std::io::{self, BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

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

fn reply() -> Vec<u8> {
    let content = "A short answer of the kind that a model gives. ".repeat(7);
    let body = format!(
        "{{\"id\":\"chatcmpl-benchmark\",\"object\":\"chat.completion\",\"created\":1763700000,\
         \"model\":\"mock\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\
         \"content\":\"{content}\"}},\"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":42,\
         \"completion_tokens\":64,\"total_tokens\":106}}}}"
    );
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
    format!("{head}{length}\r\n\r\n{body}").into_bytes()
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
        let reply = Arc::new(reply());
        let is_first = Arc::new(std::sync::Once::new());
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let (reply, is_first) = (Arc::clone(&reply), Arc::clone(&is_first));
            tokio::spawn(async move {
                // A client that goes away ends its connection and nothing else.
                let _ = answer_all(&stream, delay, &reply, &is_first).await;
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
    reply: &[u8],
    is_first: &std::sync::Once,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut buffer, mut have) = (vec![0; 1 << 14], 0);
    loop {
        while let Some(length) = request_length(&buffer[..have]) {
            is_first.call_once(|| say("first"));
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            write_all(stream, reply).await?;
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

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
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
fn request_length(buffer: &[u8]) -> Option<usize> {
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
