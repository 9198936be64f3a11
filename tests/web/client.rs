//! A client that sends exactly the bytes it is told to, and reads one answer at a time.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub(crate) struct Client<S = TcpStream> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// The body's end was as promised, not the connection's.
    pub(crate) is_whole: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (other, value) = line.split_once(':')?;
            other.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection that gives up after ten seconds.
pub(crate) fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(dial(address))
    }

    /// Whether nothing comes for a moment and the connection stays.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut byte = [0];
        let result = self.stream.read(&mut byte);
        self.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let is_late = |error: &std::io::Error| {
            matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
        };
        self.buffer.is_empty() && result.as_ref().is_err_and(is_late)
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// A body in chunks of so many bytes (RFC 9112, 7.1).
    pub(crate) fn send_chunked(&mut self, body: &[u8], chunk_bytes: usize) {
        for chunk in body.chunks(chunk_bytes) {
            self.send(format!("{:X}\r\n", chunk.len()));
            self.send(chunk);
            self.send("\r\n");
        }
        self.send("0\r\n\r\n");
    }

    /// Sends a request for `target` with these further header lines.
    pub(crate) fn request(&mut self, method: &str, target: &str, lines: &str) {
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n"));
    }

    pub(crate) fn get(&mut self, target: &str) -> Answer {
        self.request("GET", target, "");
        self.answer()
    }

    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    pub(crate) fn answer_to(&mut self, method: &str) -> Answer {
        self.try_answer(method).expect("an answer")
    }

    /// `None`: the connection ended before an answer began.
    pub(crate) fn try_answer(&mut self, method: &str) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill() {
                assert!(self.buffer.is_empty(), "half a head: {:?}", self.buffer);
                return None;
            }
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new(), is_whole: true };
        if method == "HEAD" || matches!(status, 100 | 204 | 304) {
            return Some(answer);
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            assert!(answer.header("content-length").is_none(), "{}", answer.head);
            answer.is_whole = self.chunked(&mut answer.body);
        } else if let Some(length) = answer.header("content-length") {
            let length: usize = length.parse().unwrap();
            while self.buffer.len() < length && self.fill() {}
            answer.is_whole = self.buffer.len() >= length;
            answer.body = self.buffer.drain(..length.min(self.buffer.len())).collect();
        } else {
            while self.fill() {}
            answer.is_whole = false;
            answer.body = std::mem::take(&mut self.buffer);
        }
        Some(answer)
    }

    fn chunked(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let line_end = loop {
                if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                    break at;
                }
                if !self.fill() {
                    return false;
                }
            };
            let line = String::from_utf8(self.buffer.drain(..line_end + 2).collect()).unwrap();
            let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
            while self.buffer.len() < size + 2 {
                if !self.fill() {
                    return false;
                }
            }
            body.extend(self.buffer.drain(..size));
            assert_eq!(self.buffer.drain(..2).collect::<Vec<u8>>(), b"\r\n");
            if size == 0 {
                return true;
            }
        }
    }

    /// Whether the server closes the connection without sending anything more.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.fill()
    }

    fn fill(&mut self) -> bool {
        let mut bytes = [0; 65536];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&bytes[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("read: {error}; had {} bytes", self.buffer.len()),
        }
    }
}

/// One GET on a connection of its own.
pub(crate) fn get(address: SocketAddr, target: &str) -> Answer {
    let mut client = Client::connect(address);
    client.request("GET", target, "Connection: close\r\n");
    let answer = client.answer();
    assert!(client.is_closed());
    answer
}
