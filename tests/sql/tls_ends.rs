//! Much data in TLS on both legs, and connections that break in the middle of it.
//!
//! In: a pair in TLS, a forwarder that cuts or spoils. Out: laws: what arrives is whole, or its end
//! is an error. Must not: measure time. Read first: `tandem::os::tls`; facts/sql.md traps 53 to 57.

use super::tls::*;
use super::*;
use std::net::{Shutdown, TcpListener};

use tandem::sql::{Config, ServerTls};

fn secured(pair: &Pair, keys: &Keys, change: impl FnOnce(&mut Config)) -> Front {
    front_on(pair.ports(), keys, change)
}

fn front_on(ports: [u16; 2], keys: &Keys, change: impl FnOnce(&mut Config)) -> Front {
    Front::start(ports, |config| {
        keys.offer(config);
        config.server_tls = ServerTls::Require;
        change(config);
    })
}

/// Memory of this process, in kB: the splitter runs in it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// 100 MB towards a client that does not read: the server stops, so that nothing piles up on the
/// way, and then everything arrives.
#[test]
fn a_slow_client_in_tls_stops_its_server_and_gets_everything() {
    let keys = Keys::new();
    let pair = Pair::with(&keys.options());
    let front = secured(&pair, &keys, |_| {});
    let mut slow = TlsClient::connect(&front, false);
    slow.query(b"SELECT REPEAT(CHAR(65 + seq % 26), 1000) FROM t.seq_1_to_100000");
    wait_until_stopped(&pair);
    assert_eq!(mark(&mut connect(&front)), "second", "others are served");
    assert_eq!(slow.rows(), Some(100_000));
    slow.query(b"SELECT 1");
    assert_eq!(slow.rows(), Some(1), "the session goes on");
}

#[test]
fn much_data_passes_whole_in_both_directions() {
    let keys = Keys::new();
    // Everything else here is TLS 1.3.
    let mut server = keys.options();
    server.push("--tls-version=TLSv1.2".to_owned());
    let pair = Pair::with(&server);
    let front = secured(&pair, &keys, |config| {
        config.local_infile = true;
        config.lag_limit = Duration::ZERO;
    });
    pair.sql(0, "CREATE TABLE t.big (a LONGTEXT); CREATE TABLE t.file (a INT)");
    let mut client = TlsClient::connect(&front, false);
    let text: Vec<u8> = (0..20_000_000u32).map(|n| b'a' + (n % 23) as u8).collect();
    let insert = [b"\x03INSERT INTO t.big VALUES ('", &text[..], b"')"].concat();
    let (first, rest) = insert.split_at(0xff_ffff);
    client.say(&[&[0xff, 0xff, 0xff, 0], first].concat());
    let [a, b, c, _] = u32::try_from(rest.len()).unwrap().to_le_bytes();
    client.say(&[&[a, b, c, 1], rest].concat());
    assert_eq!(client.packet().expect("an answer")[0], 0, "OK");
    let inserted = pair.sql(0, "SELECT MD5(a) FROM t.big");
    client.query(
        b"SELECT VARIABLE_VALUE FROM information_schema.session_status \
        WHERE VARIABLE_NAME = 'Ssl_version' FOR UPDATE",
    );
    assert_eq!(client.rows_of(b"TLSv1.2"), 1, "between splitter and server");
    client.query(b"SELECT a FROM t.big FOR UPDATE");
    assert_eq!(client.rows_of(&text), 1, "the same text comes back");
    client.query(b"SELECT MD5(a) FROM t.big FOR UPDATE");
    assert_eq!(client.rows_of(inserted.as_bytes()), 1);
    // A file, by the command line client.
    let mut lines = String::new();
    for number in 0..300_000 {
        lines += &format!("{number}\n");
    }
    keys.write("file", &lines);
    let mut command = Command::new("mariadb");
    usual(&mut command, &front);
    let load = format!("LOAD DATA LOCAL INFILE '{}' INTO TABLE t.file", keys.path("file"));
    let output = command.args(["--ssl", "--local-infile=1", "-e", &load]).output().expect("runs");
    let count = pair.sql(0, "SELECT COUNT(*), SUM(a) FROM t.file");
    assert_eq!(count, "300000\t44999850000", "{}", said(&output));
}

impl TlsClient {
    /// Reads one result of one column; how many of its rows are this text.
    fn rows_of(&mut self, text: &[u8]) -> usize {
        self.packet().expect("a count");
        while self.packet().expect("columns")[0] != 0xfe {}
        let mut count = 0;
        loop {
            let mut row = self.take(4).expect("a header");
            let mut whole = Vec::new();
            // A row may continue in further packets.
            loop {
                let length = u32::from_le_bytes([row[0], row[1], row[2], 0]);
                whole.extend(self.take(length.try_into().unwrap()).expect("a packet"));
                if length < 0xff_ffff {
                    break;
                }
                row = self.take(4).expect("a header");
            }
            if whole[0] == 0xfe && whole.len() < 9 {
                return count;
            }
            count += usize::from(whole.ends_with(text) && whole.len() <= text.len() + 9);
        }
    }
}

/// What a forwarder does to what a server says after so many bytes of it.
#[derive(Debug, Clone, Copy)]
enum Harm {
    /// An end without a word, as a host that loses its way gives it.
    Cut,
    /// One bit is another one.
    Spoil,
}

/// Forwards connections to a server; yields its port. Harm comes to each connection that says more
/// than `after` bytes.
fn forward(port: u16, after: usize, harm: Harm) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let own = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
            let (mut from, mut to) =
                (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
            thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
            thread::spawn(move || harmed(server, client, after, harm));
        }
    });
    own
}

fn harmed(mut server: TcpStream, mut client: TcpStream, after: usize, harm: Harm) {
    let (mut buffer, mut total) = (vec![0; 16 * 1024], 0);
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        let is_due = (total..total + count).contains(&after);
        total += count;
        match harm {
            Harm::Cut if is_due => break,
            Harm::Spoil if is_due => buffer[count / 2] ^= 4,
            Harm::Cut | Harm::Spoil => {}
        }
        if client.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

/// A result that breaks off ends the session, and no client takes it for whole.
#[test]
fn a_result_that_breaks_off_is_never_taken_for_whole() {
    let keys = Keys::new();
    let pair = Pair::with(&keys.options());
    let [first, second] = pair.ports();
    for harm in [Harm::Cut, Harm::Spoil] {
        for after in [300_000, 3_000_000] {
            let front = front_on([first, forward(second, after, harm)], &keys, |_| {});
            let mut client = TlsClient::connect(&front, false);
            client.query(b"SELECT REPEAT('x', 100) FROM t.seq_1_to_100000");
            assert_eq!(client.rows(), None, "{harm:?} after {after}");
            let mut plain = connect(&front);
            let rows: Result<Vec<String>, _> =
                plain.query("SELECT REPEAT('x', 100) FROM t.seq_1_to_100000");
            assert!(rows.is_err(), "{harm:?} after {after}");
            front.wait("both are over", |status| status.sessions == 0);
            assert_eq!(mark(&mut connect(&front)), "second", "the next one is served");
        }
    }
    // In the handshake: the read goes to the source.
    for harm in [Harm::Cut, Harm::Spoil] {
        let front = front_on([first, forward(second, 400, harm)], &keys, |_| {});
        assert_eq!(mark(&mut connect(&front)), "first", "{harm:?}");
    }
}

#[test]
fn a_server_that_dies_in_tls_ends_the_result_and_not_the_service() {
    let keys = Keys::new();
    let pair = Pair::with(&keys.options());
    let front = secured(&pair, &keys, |_| {});
    let mut client = TlsClient::connect(&front, false);
    client.query(b"SELECT REPEAT('x', 1000) FROM t.seq_1_to_1000000");
    client.take(1_000_000).expect("the beginning");
    pair.kill(1);
    assert_eq!(client.rows_left(), None);
    assert_eq!(mark(&mut connect(&front)), "first");
}

impl TlsClient {
    /// Reads on to the end of the connection, or to the end of the result.
    fn rows_left(&mut self) -> Option<()> {
        let mut tail = Vec::new();
        while let Some(byte) = self.take(1) {
            tail.extend(byte);
            if tail.ends_with(b"\x05\0\0") {
                let end = self.take(2)?;
                if end[1] == 0xfe {
                    return Some(());
                }
            }
        }
        None
    }
}

/// A client that goes in the middle takes its server's connection with it, by a word or without.
#[test]
fn a_client_that_leaves_in_tls_leaves_nothing_behind() {
    let keys = Keys::new();
    let pair = Pair::with(&keys.options());
    let front = secured(&pair, &keys, |_| {});
    let theirs = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'other'";
    for is_polite in [true, false] {
        let mut client = TlsClient::connect(&front, false);
        client.query(b"SELECT REPEAT('x', 1000) FROM t.seq_1_to_1000000");
        client.take(100_000).expect("the beginning");
        if is_polite {
            let mut goodbye = Vec::new();
            client.tls.close(&mut goodbye);
            client.socket.write_all(&goodbye).expect("sends");
            let _ = client.socket.shutdown(Shutdown::Write);
        }
        drop(client);
        front.wait("the session is over", |status| status.sessions == 0);
        let since = Clock::now();
        while pair.sql(1, theirs) != "0" {
            assert!(since.elapsed() < Duration::from_secs(10), "the query outlives its client");
            thread::sleep(Duration::from_millis(20));
        }
    }
    // The end of a session is told: the client sees a goodbye, not a cut.
    let mut client = TlsClient::connect(&front, false);
    client.say(b"\x01\0\0\0\x01");
    assert_eq!(client.take(1), None);
    assert!(client.tls.is_ended(), "close_notify");
}

/// As without TLS: a last question is answered, and a held statement leaves with its client.
#[test]
fn a_goodbye_in_tls_means_what_the_end_of_a_connection_does() {
    let keys = Keys::new();
    let pair = Pair::with(&keys.options());
    let front = secured(&pair, &keys, |_| {});
    let mut client = TlsClient::connect(&front, false);
    let mut records = Vec::new();
    let text = b"SELECT name FROM t.mark WHERE SLEEP(0.3) = 0";
    let length = u8::try_from(text.len() + 1).unwrap();
    client.tls.seal(&[&[length, 0, 0, 0, 3], &text[..]].concat(), &mut records).expect("seals");
    let ours = records.len();
    client.socket.write_all(&records).expect("sends");
    // The goodbye alone: the client's own half stays usable for what it is told.
    let mut goodbye = TlsClient::connect(&front, false);
    goodbye.tls.close(&mut records);
    goodbye.socket.write_all(&records[ours..]).expect("sends");
    client.socket.shutdown(Shutdown::Write).expect("half-closes");
    assert_eq!(client.rows(), Some(1), "the last question");
    front.wait("both have left", |status| status.sessions == 0);
    pair.sql(0, "CREATE TABLE t.leaving_in_tls (a INT)");
    let mut client = TlsClient::connect(&front, false);
    front.route(&routes(None, [false, true]));
    client.query(b"INSERT INTO t.leaving_in_tls VALUES (1)");
    front.wait("the statement is held", |status| status.held == 1);
    drop(client);
    front.wait("the session ends", |status| status.sessions == 0);
    front.route(&routes(Some(HostId::First), [false, true]));
    thread::sleep(Duration::from_millis(100));
    assert_eq!(pair.sql(0, "SELECT COUNT(*) FROM t.leaving_in_tls"), "0");
}

enum Talker {
    Plain(RawClient),
    Secured(Box<TlsClient>),
}

impl Talker {
    fn connect(front: &Front, is_secured: bool) -> Self {
        if is_secured {
            Self::Secured(Box::new(TlsClient::connect(front, false)))
        } else {
            Self::Plain(RawClient::connect(front))
        }
    }

    fn round_trip(&mut self, text: &[u8]) {
        match self {
            Self::Plain(client) => client.round_trip(text),
            Self::Secured(client) => {
                client.query(text);
                assert_eq!(client.rows(), Some(1));
            }
        }
    }
}

/// The splitter's processor time of each query, in microseconds.
fn cost(front: &Front, is_secured: bool, clients: u32, each: u32) -> f64 {
    let talkers: Vec<_> = (0..clients).map(|_| Talker::connect(front, is_secured)).collect();
    let cpu = front.cpu();
    let threads: Vec<_> = talkers
        .into_iter()
        .map(|mut talker| {
            thread::spawn(move || (0..each).for_each(|_| talker.round_trip(b"SELECT 1")))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    (front.cpu() - cpu).as_secs_f64() * 1e6 / f64::from(clients * each)
}

/// `cargo test --profile quick --test sql tls_figures -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, not a law"]
fn tls_figures() {
    let keys = Keys::new();
    let pair = Pair::with(&keys.options());
    let modes = [ServerTls::Off, ServerTls::Require];
    let fronts = modes.map(|mode| secured(&pair, &keys, |config| config.server_tls = mode));
    for clients in [1, 16] {
        let mut least = [[f64::INFINITY; 2]; 2];
        for _ in 0..5 {
            for (front, least) in fronts.iter().zip(&mut least) {
                for (is_secured, least) in [false, true].into_iter().zip(least) {
                    *least = least.min(cost(front, is_secured, clients, 4000 / clients));
                }
            }
        }
        let [[plain, client], [server, both]] = least;
        println!(
            "{clients} clients, us a query: plain {plain:.1}, TLS of the client {client:.1}, of \
             the server {server:.1}, of both {both:.1}"
        );
    }
    let short = |front: &Front, is_secured: bool| {
        let mut least = f64::INFINITY;
        for _ in 0..3 {
            let cpu = front.cpu();
            for _ in 0..200 {
                Talker::connect(front, is_secured).round_trip(b"SELECT 1");
            }
            least = least.min((front.cpu() - cpu).as_secs_f64() * 1e6 / 200.0);
        }
        least
    };
    let [front, _] = &fronts;
    println!("short sessions, us each: plain {:.0}", short(front, false));
    println!("in TLS, a key of P-256: {:.0}", short(front, true));
    if let Some(made) = servers::mysql97_template() {
        let rsa = secured(&pair, &keys, |config| {
            config.server_tls = ServerTls::Off;
            config.certificate = Some(made.join("server-cert.pem").display().to_string());
            config.key = Some(made.join("server-key.pem").display().to_string());
        });
        println!("in TLS, a key of RSA 2048: {:.0}", short(&rsa, true));
    }
    // Each has a connection to a server.
    pair.sql(1, "SET GLOBAL max_connections = 500");
    pair.sql(0, "SET GLOBAL max_connections = 500");
    for is_secured in [false, true] {
        let mut sockets = Vec::new();
        let before = resident();
        for _ in 0..400 {
            let mut talker = Talker::connect(front, is_secured);
            talker.round_trip(b"SELECT 1");
            // What the client keeps is given back for the next one's.
            sockets.push(match talker {
                Talker::Plain(client) => client.socket,
                Talker::Secured(client) => client.socket,
            });
        }
        let grown = resident().saturating_sub(before);
        println!("400 idle sessions, TLS {is_secured}: {grown} kB");
        drop(sockets);
        front.wait("they leave", |status| status.sessions == 0);
    }
}
