//! A client that speaks the protocol packet by packet, to a splitter or to a server itself.
//!
//! In: an address, bytes of commands. Out: the packets of the answers. Must not: know what is being
//! tested, or use the product's own codecs, which are what is being tested.

use super::*;

pub(super) const FOUND_ROWS: u32 = 1 << 1;
pub(super) const WITH_DATABASE: u32 = 1 << 3;
pub(super) const LOCAL_FILES: u32 = 1 << 7;
pub(super) const MULTI_STATEMENTS: u32 = 1 << 16;
pub(super) const DEPRECATE_EOF: u32 = 1 << 24;
/// LONG_PASSWORD, LONG_FLAG, PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION, MULTI_RESULTS,
/// PS_MULTI_RESULTS, PLUGIN_AUTH.
const USUAL: u32 = 0x5 | 1 << 9 | 1 << 13 | 1 << 15 | 1 << 17 | 1 << 18 | 1 << 19;

const MORE_RESULTS: u16 = 8;
const CURSOR_EXISTS: u16 = 0x40;
const OUT_PARAMETERS: u16 = 0x1000;

/// Who logs in, and how. Without a password, so that the proof is empty whatever the plugin.
#[derive(Clone, Copy)]
pub(super) struct Hello<'a> {
    pub(super) user: &'a str,
    pub(super) database: &'a str,
    pub(super) flags: u32,
    pub(super) collation: u8,
}

impl Default for Hello<'_> {
    fn default() -> Self {
        Self { user: "other", database: "t", flags: MULTI_STATEMENTS, collation: 45 }
    }
}

/// One packet: its sequence number and its payload.
pub(super) type Packet = (u8, Vec<u8>);

pub(super) struct Raw {
    pub(super) socket: TcpStream,
    has_eof: bool,
    /// The number that the greeting gave to this connection.
    pub(super) thread: u32,
    pub(super) version: String,
    /// The statement that was prepared last. MariaDB's numbers go on from one connection of a
    /// thread to the next.
    pub(super) statement: u32,
}

impl Raw {
    /// Logs in; the last packet when that is refused.
    pub(super) fn try_log_in(port: u16, hello: Hello<'_>) -> Result<Self, Packet> {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("connects");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("sets");
        socket.set_nodelay(true).expect("sets");
        let has_eof = hello.flags & DEPRECATE_EOF == 0;
        let mut raw = Self { socket, has_eof, thread: 0, version: String::new(), statement: 0 };
        let (number, greeting) = raw.packet();
        if greeting.first() == Some(&0xff) {
            return Err((number, greeting));
        }
        let end = greeting.iter().position(|&it| it == 0).expect("a version");
        raw.version = String::from_utf8_lossy(&greeting[1..end]).into_owned();
        raw.thread = u32::from_le_bytes(greeting[end + 1..end + 5].try_into().unwrap());
        let plugin = [&b"caching_sha2_password"[..], b"mysql_native_password"]
            .into_iter()
            .find(|name| greeting.windows(name.len()).any(|it| it == *name))
            .expect("a plugin that is known");
        let has_database = !hello.database.is_empty();
        let flags = USUAL | hello.flags | if has_database { WITH_DATABASE } else { 0 };
        let mut payload = flags.to_le_bytes().to_vec();
        payload.extend_from_slice(&[0, 0, 0, 64, hello.collation]);
        payload.extend_from_slice(&[0; 23]);
        payload.extend_from_slice(hello.user.as_bytes());
        payload.extend_from_slice(&[0, 0]);
        if has_database {
            payload.extend_from_slice(hello.database.as_bytes());
            payload.push(0);
        }
        payload.extend_from_slice(plugin);
        payload.push(0);
        raw.send_numbered(1, &payload);
        loop {
            let (number, packet) = raw.packet();
            match packet.first() {
                Some(0) => return Ok(raw),
                // Another plugin: the proof of no password is empty by every one.
                Some(0xfe) => raw.send_numbered(number + 1, b""),
                Some(_) | None => return Err((number, packet)),
            }
        }
    }

    pub(super) fn log_in(port: u16, hello: Hello<'_>) -> Self {
        Self::try_log_in(port, hello).unwrap_or_else(|(_, it)| panic!("{}", lossy(&it)))
    }

    /// One command, in as many packets as it needs.
    pub(super) fn send(&mut self, payload: &[u8]) {
        self.send_numbered(0, payload);
    }

    pub(super) fn send_numbered(&mut self, mut number: u8, payload: &[u8]) {
        let mut rest = payload;
        loop {
            let (part, after) = rest.split_at(rest.len().min(0xff_ffff));
            let length = u32::try_from(part.len()).unwrap().to_le_bytes();
            let mut bytes = vec![length[0], length[1], length[2], number];
            bytes.extend_from_slice(part);
            self.socket.write_all(&bytes).expect("sends");
            if part.len() < 0xff_ffff {
                return;
            }
            (rest, number) = (after, number.wrapping_add(1));
        }
    }

    pub(super) fn send_query(&mut self, text: &[u8]) {
        self.send(&[b"\x03", text].concat());
    }

    /// The next packet as it is on the wire; an empty one with number 255 when the other side has
    /// closed.
    pub(super) fn packet(&mut self) -> Packet {
        let mut header = [0; 4];
        match self.socket.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer"),
            Err(_) => return CLOSED,
        }
        let length = u32::from_le_bytes([header[0], header[1], header[2], 0]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        if self.socket.read_exact(&mut payload).is_err() {
            return CLOSED;
        }
        (header[3], payload)
    }

    /// A whole answer to COM_QUERY or COM_STMT_EXECUTE: every packet of every result.
    pub(super) fn results(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        loop {
            packets.push(self.packet());
            let (number, head) = packets.last().expect("just pushed");
            match head.first() {
                Some(0) if ok_status(head) & MORE_RESULTS != 0 => continue,
                Some(0 | 0xfb | 0xff) => return packets,
                None if *number == 255 => return packets,
                Some(_) | None => {}
            }
            for _ in 0..head[0] {
                packets.push(self.packet());
            }
            let mut begin = 0;
            if self.has_eof {
                packets.push(self.packet());
                begin = eof_status(&packets.last().expect("just pushed").1);
            }
            if begin & CURSOR_EXISTS != 0 {
                return packets;
            }
            let end = self.rows(&mut packets);
            // As libmysql: of OUT parameters only the first one is sure to say that an OK follows.
            if (end | if begin & OUT_PARAMETERS != 0 { begin } else { 0 }) & MORE_RESULTS == 0 {
                return packets;
            }
        }
    }

    /// Rows up to their end; returns the status in it.
    pub(super) fn rows(&mut self, packets: &mut Vec<Packet>) -> u16 {
        let mut is_continued = false;
        loop {
            let packet = self.packet();
            let (is_closed, length) = (packet == CLOSED, packet.1.len());
            let (first, end) = (packet.1.first().copied(), packet.1.clone());
            packets.push(packet);
            if is_closed {
                return 0;
            }
            let is_head = !std::mem::replace(&mut is_continued, length == 0xff_ffff);
            match first {
                Some(0xff) if is_head => return 0,
                Some(0xfe) if is_head && self.has_eof && length < 9 => return eof_status(&end),
                Some(0xfe) if is_head && !self.has_eof && length < 0xff_ffff => {
                    return ok_status(&end);
                }
                Some(_) | None => {}
            }
        }
    }

    /// A query and its whole answer.
    pub(super) fn ask(&mut self, text: impl AsRef<[u8]>) -> Vec<Packet> {
        self.send_query(text.as_ref());
        self.results()
    }

    /// The first value of the first row, or what went wrong.
    pub(super) fn value(&mut self, text: &str) -> String {
        value(&self.ask(text))
    }

    /// COM_STMT_PREPARE: the number, the parameters; or the error.
    pub(super) fn prepare(&mut self, text: &[u8]) -> Result<(u32, u16), Vec<u8>> {
        self.send(&[b"\x16", text].concat());
        let (_, head) = self.packet();
        if head.first() != Some(&0) {
            return Err(head);
        }
        let id = u32::from_le_bytes(head[1..5].try_into().unwrap());
        self.statement = id;
        let count = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        for block in [count(7), count(5)].into_iter().filter(|it| *it > 0) {
            for _ in 0..block + u16::from(self.has_eof) {
                self.packet();
            }
        }
        Ok((id, count(7)))
    }

    /// COM_STMT_EXECUTE with these flags and what follows the iteration count; the whole answer.
    pub(super) fn execute(&mut self, id: u32, flags: u8, parameters: &[u8]) -> Vec<Packet> {
        self.send(&execution(id, flags, parameters));
        self.results()
    }

    /// Whether the other side has closed, or does within five seconds.
    pub(super) fn is_closed(&mut self) -> bool {
        self.socket.set_read_timeout(Some(Duration::from_secs(5))).expect("sets");
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
            }
        }
    }
}

pub(super) const CLOSED: Packet = (255, Vec::new());

pub(super) fn execution(id: u32, flags: u8, parameters: &[u8]) -> Vec<u8> {
    [&b"\x17"[..], &id.to_le_bytes(), &[flags, 1, 0, 0, 0], parameters].concat()
}

pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The number of an ERR packet.
pub(super) fn error_code(packets: &[Packet]) -> Option<u16> {
    let (_, head) = packets.last()?;
    (head.first() == Some(&0xff)).then(|| u16::from_le_bytes([head[1], head[2]]))
}

/// The first value of the first row of a text result; NULL and errors as words.
pub(super) fn value(packets: &[Packet]) -> String {
    if let Some(code) = error_code(packets) {
        return format!("error {code}");
    }
    let Some((_, head)) = packets.first() else { return String::new() };
    if packets.len() < 3 || head.first() == Some(&0) {
        return "OK".to_owned();
    }
    let mut rows = packets[1 + usize::from(head[0])..].iter();
    let row = rows.find(|(_, it)| it.first().is_some_and(|it| *it != 0xfe));
    match row.map(|(_, it)| it.as_slice()) {
        Some([0xfb, ..]) => "NULL".to_owned(),
        Some([0xfc, a, b, rest @ ..]) => {
            lossy(&rest[..usize::from(u16::from_le_bytes([*a, *b])).min(rest.len())])
        }
        Some([length, rest @ ..]) => lossy(&rest[..usize::from(*length).min(rest.len())]),
        Some([]) | None => "no row".to_owned(),
    }
}

/// Status flags of an OK packet (or of one that stands for EOF).
pub(super) fn ok_status(packet: &[u8]) -> u16 {
    let mut at = 1;
    for _ in 0..2 {
        at += match packet[at] {
            0xfc => 3,
            0xfd => 4,
            0xfe => 9,
            _ => 1,
        };
    }
    u16::from_le_bytes([packet[at], packet[at + 1]])
}

pub(super) fn eof_status(packet: &[u8]) -> u16 {
    u16::from_le_bytes([packet[3], packet[4]])
}
