//! A web server's side of FastCGI: sends exactly the records that it is told to, and reads answers.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub(crate) struct Caller<S = TcpStream> {
    pub(crate) stream: S,
}

/// What a request was answered, up to its END_REQUEST.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) app_status: u32,
    pub(crate) protocol_status: u8,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Of the Status line; 200 where there is none.
    pub(crate) fn status(&self) -> u16 {
        let text = self.text();
        let line = text.lines().next().unwrap_or_default();
        line.strip_prefix("Status: ").map_or(200, |rest| rest[..3].parse().unwrap())
    }
}

pub(crate) fn record(kind: u8, id: u16, content: &[u8]) -> Vec<u8> {
    padded(kind, id, content, 3)
}

/// As many records as the content needs, one at least, with garbage where a receiver looks away.
pub(crate) fn padded(kind: u8, id: u16, content: &[u8], padding: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let mut pieces: Vec<&[u8]> = content.chunks(65_000).collect();
    if pieces.is_empty() {
        pieces.push(&[]);
    }
    for piece in pieces {
        let [id_high, id_low] = id.to_be_bytes();
        let [high, low] = u16::try_from(piece.len()).unwrap().to_be_bytes();
        out.extend_from_slice(&[1, kind, id_high, id_low, high, low, padding, 0xAA]);
        out.extend_from_slice(piece);
        out.extend(std::iter::repeat_n(0x55, padding.into()));
    }
    out
}

pub(crate) fn begin(id: u16, role: u8, flags: u8) -> Vec<u8> {
    record(1, id, &[0, role, flags, 0, 0, 0, 0, 0])
}

pub(crate) fn pairs(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        for length in [name.len(), value.len()] {
            let long = u32::try_from(length).unwrap();
            match u8::try_from(length) {
                Ok(short) if short < 128 => out.push(short),
                _ => out.extend_from_slice(&(long | 1 << 31).to_be_bytes()),
            }
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(value.as_bytes());
    }
    out
}

/// A whole request; KEEP_CONN is set. CONTENT_LENGTH is up to `params`.
pub(crate) fn request(id: u16, params: &[(&str, &str)], stdin: &[u8]) -> Vec<u8> {
    let mut out = [begin(id, 1, 1), record(4, id, &pairs(params)), record(4, id, b"")].concat();
    if !stdin.is_empty() {
        out.extend(record(5, id, stdin));
    }
    out.extend(record(5, id, b""));
    out
}

pub(crate) fn get(id: u16) -> Vec<u8> {
    let params =
        [("REQUEST_METHOD", "GET"), ("SCRIPT_NAME", "/t.php"), ("REQUEST_URI", "/t.php?a")];
    request(id, &params, b"")
}

pub(crate) fn post(id: u16, stdin: &[u8]) -> Vec<u8> {
    let length = stdin.len().to_string();
    let params =
        [("REQUEST_METHOD", "POST"), ("SCRIPT_NAME", "/t.php"), ("CONTENT_LENGTH", &length)];
    request(id, &params, stdin)
}

impl Caller {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }
}

impl Caller<UnixStream> {
    pub(crate) fn connect_unix(path: &str) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { stream }
    }
}

impl<S: Read + Write> Caller<S> {
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub(crate) fn ask(&mut self, bytes: impl AsRef<[u8]>, id: u16) -> Reply {
        self.send(bytes);
        self.reply(id)
    }

    /// The next record; `None` where the connection ends between two.
    pub(crate) fn read(&mut self) -> Option<(u8, u16, Vec<u8>)> {
        let mut header = [0; 8];
        match self.stream.read(&mut header[..1]) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("read: {error}"),
        }
        self.stream.read_exact(&mut header[1..]).unwrap();
        let [version, kind, id_high, id_low, high, low, padding, _] = header;
        assert_eq!(version, 1);
        let length = usize::from(u16::from_be_bytes([high, low]));
        let mut content = vec![0; length + usize::from(padding)];
        self.stream.read_exact(&mut content).unwrap();
        content.truncate(length);
        Some((kind, u16::from_be_bytes([id_high, id_low]), content))
    }

    pub(crate) fn reply(&mut self, id: u16) -> Reply {
        let mut reply = Reply::default();
        assert!(self.read_into(id, &mut reply), "no END_REQUEST: {reply:?}");
        reply
    }

    /// False: the connection ended before END_REQUEST.
    pub(crate) fn read_into(&mut self, id: u16, reply: &mut Reply) -> bool {
        while let Some((kind, other, content)) = self.read() {
            assert_eq!(other, id, "kind {kind}");
            match kind {
                6 => reply.stdout.extend_from_slice(&content),
                7 => reply.stderr.extend_from_slice(&content),
                3 => {
                    let [a, b, c, d, status, ..] = content[..] else { panic!("{content:?}") };
                    reply.app_status = u32::from_be_bytes([a, b, c, d]);
                    reply.protocol_status = status;
                    return true;
                }
                _ => panic!("record of kind {kind}"),
            }
        }
        false
    }

    pub(crate) fn is_closed(&mut self) -> bool {
        self.read().is_none()
    }
}
