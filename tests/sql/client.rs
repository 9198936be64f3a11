//! The clients of the tests: the driver, and one that speaks the protocol byte by byte.
//!
//! In: the splitter's address. Out: connections. Must not: know what is being tested.

use super::*;

pub(super) fn options(front: &Front) -> OptsBuilder {
    OptsBuilder::new()
        .ip_or_hostname(Some("127.0.0.1"))
        .tcp_port(front.address.port())
        .user(Some("app"))
        .pass(Some(PASSWORD))
        .prefer_socket(false)
}

pub(super) fn connect(front: &Front) -> Conn {
    Conn::new(options(front)).expect("logs in")
}

pub(super) fn one(conn: &mut Conn, text: &str) -> String {
    conn.query_first::<String, _>(text).expect(text).expect("a row")
}

pub(super) fn mark(conn: &mut Conn) -> String {
    one(conn, MARK)
}

pub(super) fn code<T>(result: Result<T, Error>) -> u16 {
    match result {
        Err(Error::MySqlError(error)) => error.code,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("an error is expected"),
    }
}

/// How many statements of `other` are being written to a client, asked of a server.
pub(super) const WRITING: &str = "SELECT COUNT(*) FROM information_schema.processlist \
    WHERE user = 'other' AND state LIKE '%net%'";

/// Waits until the replica cannot write on, because somebody behind it does not read, and sees
/// that it stays so: whoever stood between them and took everything would let it end.
pub(super) fn wait_until_stopped(pair: &Pair) {
    let since = Clock::now();
    while pair.sql(1, WRITING) != "1" {
        assert!(since.elapsed() < Duration::from_secs(10), "the server is not stopped");
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(500));
    assert_eq!(pair.sql(1, WRITING), "1", "it stays stopped");
}

/// A client that writes the bytes of the protocol itself.
pub(super) struct RawClient {
    pub(super) socket: TcpStream,
}

impl RawClient {
    pub(super) fn connect(front: &Front) -> Self {
        let proof = raw_proof();
        let mut socket = raw_log_in(front, &proof);
        let mut answer = [0; 11];
        socket.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer[4], 0, "OK");
        Self { socket }
    }

    pub(super) fn send(&mut self, payload: &[u8]) {
        let mut bytes = vec![u8::try_from(payload.len()).unwrap(), 0, 0, 0];
        bytes.extend_from_slice(payload);
        self.socket.write_all(&bytes).expect("sends");
    }

    pub(super) fn send_query(&mut self, text: &[u8]) {
        self.send(&[b"\x03", text].concat());
    }

    /// Sends a query and reads until its second EOF.
    pub(super) fn round_trip(&mut self, text: &[u8]) {
        self.send_query(text);
        let mut buffer = [0; 4096];
        let mut seen = 0;
        while seen < 5 || !buffer[..seen].windows(5).any(|it| it.starts_with(b"\x05\0\0\x05\xfe")) {
            seen += self.socket.read(&mut buffer[seen..]).expect("a reply");
        }
    }

    /// Reads until the bytes were seen; `false` after two seconds.
    pub(super) fn reply_contains(&mut self, wanted: &[u8]) -> bool {
        self.socket.set_read_timeout(Some(Duration::from_secs(2))).expect("sets");
        let mut seen = Vec::new();
        let mut buffer = [0; 1];
        while !seen.windows(wanted.len()).any(|it| it == wanted) {
            match self.socket.read(&mut buffer) {
                Ok(0) | Err(_) => return false,
                Ok(_) => seen.push(buffer[0]),
            }
        }
        true
    }
}

/// The user `other` has no password, so its proof is empty whatever the salt.
pub(super) fn raw_proof() -> Vec<u8> {
    Vec::new()
}

/// Reads the greeting and answers it with this proof: `app` when there is one, else `other`.
pub(super) fn raw_log_in(front: &Front, proof: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(front.address).expect("connects");
    let mut header = [0; 4];
    socket.read_exact(&mut header).expect("a greeting");
    let mut greeting = vec![0; usize::from(header[0])];
    socket.read_exact(&mut greeting).expect("a greeting");
    let user: &[u8] = if proof.is_empty() { b"other\0" } else { b"app\0" };
    let mut payload = vec![0x09, 0xa2, 0, 0, 0, 0, 0, 1, 45];
    payload.extend_from_slice(&[0; 23]);
    payload.extend_from_slice(user);
    payload.push(u8::try_from(proof.len()).unwrap());
    payload.extend_from_slice(proof);
    payload.extend_from_slice(b"t\0");
    let mut bytes = vec![u8::try_from(payload.len()).unwrap(), 0, 0, 1];
    bytes.extend_from_slice(&payload);
    socket.write_all(&bytes).expect("sends");
    socket
}
