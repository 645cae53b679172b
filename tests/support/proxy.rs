//! A proxy on loopback that makes connections for others: by CONNECT, or in SOCKS 5. Whatever they ask
//! for, it connects to one port.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The proxy; it ends with the test process.
pub struct Proxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts one that connects to a port.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || serve(stream, port, &seen));
            }
        });
        Self { port: own, asked }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The heads of what it was asked for: `CONNECT host:port …` and its headers, or `socks host:port`.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, port: u16, asked: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    let Some(first) = reader.fill_buf().ok().and_then(|bytes| bytes.first().copied()) else {
        return;
    };
    let head = if first == 5 { socks(&mut reader, &mut stream) } else { connect(&mut reader) };
    asked.lock().unwrap().push(head.clone());
    if !head.starts_with("socks") && !head.starts_with("CONNECT") {
        let _ = stream.write_all(b"HTTP/1.1 400 X\r\ncontent-length: 0\r\n\r\n");
        return;
    }
    let target = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let said: &[u8] = match first {
        5 => &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        _ => b"HTTP/1.1 200 Connection established\r\n\r\n",
    };
    let _ = stream.write_all(said);
    let (mut there, mut back) = (target.try_clone().unwrap(), target);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut back, &mut stream);
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    let _ = std::io::copy(&mut reader, &mut there);
    let _ = there.shutdown(std::net::Shutdown::Both);
}

fn connect(reader: &mut impl BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            break;
        }
    }
    head
}

/// A greeting without a password, and a request with a host name.
fn socks(reader: &mut impl Read, stream: &mut TcpStream) -> String {
    let mut greeting = [0; 2];
    reader.read_exact(&mut greeting).unwrap();
    reader.read_exact(&mut vec![0; greeting[1].into()]).unwrap();
    stream.write_all(&[5, 0]).unwrap();
    let mut request = [0; 5];
    reader.read_exact(&mut request).unwrap();
    assert_eq!(request[3], 3, "the proxy resolves the name");
    let mut name = vec![0; request[4].into()];
    reader.read_exact(&mut name).unwrap();
    let mut port = [0; 2];
    reader.read_exact(&mut port).unwrap();
    format!("socks {}:{}", String::from_utf8(name).unwrap(), u16::from_be_bytes(port))
}
