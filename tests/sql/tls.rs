//! Clients in TLS: every kind of client, what is required of them, doors that are abused.
//!
//! In: certificates made for the run, a pair, a splitter with them. Out: laws. Must not: leave a
//! file behind. Read first: `tandem::sql::login`; facts/sql.md 5.3.

use super::*;
use std::fs;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use servers::mysql97_client;
use tandem::config::EXAMPLE;
use tandem::limits;
use tandem::os::tls::{Connector, Tls, Trust};
use tandem::sql::Config;

/// An authority, a server and a client that it has signed, and an authority that nobody knows.
pub(super) struct Keys(PathBuf);

impl Keys {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tandem-sql-tls-{}-{number}", std::process::id());
        let keys = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(&keys.0).expect("a directory");
        let named = |name: &str, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
            let mut params = CertificateParams::new(names).expect("names");
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let issuers = ["ca", "other"].map(|name| {
            let mut params = named(name, &[]);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().expect("a key");
            keys.write(&format!("{name}.pem"), &params.self_signed(&key).expect("signs").pem());
            Issuer::new(params, key)
        });
        for (name, names) in
            [("server", &["db.example", "localhost", "127.0.0.1"][..]), ("client", &["app"])]
        {
            let key = KeyPair::generate().expect("a key");
            let own = named(name, names).signed_by(&key, &issuers[0]).expect("signs");
            keys.write(&format!("{name}.pem"), &own.pem());
            keys.write(&format!("{name}-key.pem"), &key.serialize_pem());
        }
        keys
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::write(&path, text).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("sets");
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Options that give a server the certificate.
    pub(super) fn options(&self) -> Vec<String> {
        vec![
            format!("--ssl-ca={}", self.path("ca.pem")),
            format!("--ssl-cert={}", self.path("server.pem")),
            format!("--ssl-key={}", self.path("server-key.pem")),
        ]
    }

    pub(super) fn offer(&self, config: &mut Config) {
        config.certificate = Some(self.path("server.pem"));
        config.key = Some(self.path("server-key.pem"));
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Options of a command line client that every one of them understands.
pub(super) fn usual(command: &mut Command, front: &Front) {
    command.args(["--no-defaults", "-N", "-h127.0.0.1", "-uapp"]);
    command.arg(format!("-p{PASSWORD}")).arg(format!("-P{}", front.address.port()));
}

pub(super) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn client(mut command: Command, front: &Front, options: &[&str], text: &str) -> String {
    usual(&mut command, front);
    said(&command.args(options).arg("-e").arg(text).output().expect("the client runs"))
}

fn mariadb(front: &Front, options: &[&str], text: &str) -> String {
    client(Command::new("mariadb"), front, options, text)
}

const BOTH: &str = "SELECT name FROM t.mark; SELECT name FROM t.mark FOR UPDATE";

/// The command line client of MariaDB, by either version, with the certificate verified.
#[test]
fn the_mariadb_client_comes_in_tls() {
    let (pair, keys) = (Pair::shared(), Keys::new());
    let front = Front::start(pair.ports(), |config| {
        keys.offer(config);
        config.require_tls = true;
    });
    let ca = format!("--ssl-ca={}", keys.path("ca.pem"));
    for version in ["TLSv1.2", "TLSv1.3"] {
        let version = format!("--tls-version={version}");
        let options = ["--ssl", "--ssl-verify-server-cert", &ca, &version];
        assert_eq!(mariadb(&front, &options, BOTH), "second\nfirst\n", "{version}");
    }
    let status = mariadb(&front, &["--ssl"], "status");
    assert!(status.contains("Cipher in use is TLS"), "{status}");
    let other = format!("--ssl-ca={}", keys.path("other.pem"));
    let refused = mariadb(&front, &["--ssl", "--ssl-verify-server-cert", &other], BOTH);
    assert!(refused.contains("ERROR 2026"), "the client does not believe it: {refused}");
    front.wait("nobody is left", |status| status.sessions == 0);
}

#[test]
fn the_mysql_97_client_comes_in_tls() {
    let (Some(pair), keys) = (Pair::mysql97(), Keys::new()) else { return };
    let front = Front::start(pair.ports(), |config| {
        keys.offer(config);
        config.require_tls = true;
    });
    let ca = format!("--ssl-ca={}", keys.path("ca.pem"));
    for options in [
        &["--ssl-mode=REQUIRED"][..],
        &["--ssl-mode=REQUIRED", "--tls-version=TLSv1.2"],
        &["--ssl-mode=VERIFY_IDENTITY", "--tls-version=TLSv1.3", &ca],
        // What it does by itself.
        &["--ssl-mode=PREFERRED"],
    ] {
        let command = mysql97_client().expect("it came with the server");
        let said = client(command, &front, options, BOTH);
        let rows = said.lines().filter(|line| !line.contains("[Warning]"));
        assert_eq!(rows.collect::<Vec<_>>(), ["second", "first"], "{options:?}");
    }
    let command = mysql97_client().expect("it came with the server");
    let said = client(command, &front, &["--ssl-mode=DISABLED"], BOTH);
    assert!(said.contains("3159") && said.contains("require_tls"), "{said}");
}

/// mysqli and PDO, with the certificate verified, and change_user inside of it.
#[test]
fn php_comes_in_tls() {
    let (pair, keys) = (Pair::shared(), Keys::new());
    let front = Front::start(pair.ports(), |config| {
        keys.offer(config);
        config.require_tls = true;
    });
    let script = r#"
        [, $port, $ca, $password] = $argv;
        mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
        $m = mysqli_init();
        $m->ssl_set(null, null, $ca, null, null);
        $m->real_connect('127.0.0.1', 'app', $password, 't', (int)$port, null, MYSQLI_CLIENT_SSL);
        echo $m->query('SELECT name FROM mark')->fetch_row()[0], "\n";
        $m->change_user('other', '', 'u');
        echo $m->query('SELECT CONCAT(CURRENT_USER(), name) FROM mark')->fetch_row()[0], "\n";
        $m->close();
        $p = new PDO("mysql:host=127.0.0.1;port=$port;dbname=u", 'app', $password,
            [PDO::MYSQL_ATTR_SSL_CA => $ca]);
        echo $p->query('SELECT name FROM mark FOR UPDATE')->fetchColumn(), "\n";
        try {
            new mysqli('127.0.0.1', 'app', $password, 't', (int)$port);
        } catch (mysqli_sql_exception $e) {
            echo $e->getCode(), "\n";
        }
    "#;
    pair.sql(1, "GRANT SELECT ON u.* TO other@'127.0.0.1'");
    let output = Command::new("php")
        .args(["-r", script, "--", &front.address.port().to_string()])
        .args([&keys.path("ca.pem"), PASSWORD])
        .output()
        .expect("php runs");
    assert_eq!(said(&output), "second\nother@127.0.0.1second-u\nfirst-u\n3159\n");
}

#[test]
fn a_client_without_tls_is_refused_where_it_is_required() {
    let (pair, keys) = (Pair::shared(), Keys::new());
    let path = keys.path("socket");
    let front = Front::start(pair.ports(), |config| {
        keys.offer(config);
        config.require_tls = true;
        config.listen_socket = Some(path.clone());
    });
    assert_eq!(code(Conn::new(options(&front)).map(drop)), 3159);
    assert_eq!(code(Conn::new(options(&front).pass(Some("wrong"))).map(drop)), 3159);
    let mut socket = raw_log_in(&front, &[]);
    let _ = socket.write_all(b"\x12\0\0\0\x03CREATE DATABASE x");
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let length = usize::from(u16::from_le_bytes([answer[0], answer[1]]));
    assert_eq!((&answer[4..7], answer.len()), (&b"\xff\x57\x0c"[..], length + 4), "and no more");
    // Nobody can listen on a path; MySQL takes it for secure too.
    let output = Command::new("mariadb")
        .args(["--no-defaults", "-N", "-uapp", &format!("-p{PASSWORD}"), &format!("-S{path}")])
        .args(["-e", "SELECT name FROM t.mark"])
        .output()
        .expect("the client runs");
    assert_eq!(said(&output), "second\n");
    // Where it is not required, both come.
    let front = Front::start(pair.ports(), |config| keys.offer(config));
    assert_eq!(mark(&mut connect(&front)), "second");
    assert_eq!(mariadb(&front, &["--ssl"], BOTH), "second\nfirst\n");
    // And without a certificate none is offered.
    let front = Front::start(pair.ports(), |_| {});
    let refused = mariadb(&front, &["--ssl", "--ssl-verify-server-cert"], BOTH);
    assert!(refused.contains("ERROR 2026"), "{refused}");
}

#[test]
fn a_client_has_to_show_a_certificate_where_one_is_asked_for() {
    let (pair, keys) = (Pair::shared(), Keys::new());
    let front = Front::start(pair.ports(), |config| {
        keys.offer(config);
        config.client_ca = Some(keys.path("ca.pem"));
    });
    let (own, key) = (keys.path("client.pem"), keys.path("client-key.pem"));
    let (own, key) = (format!("--ssl-cert={own}"), format!("--ssl-key={key}"));
    for version in ["--tls-version=TLSv1.2", "--tls-version=TLSv1.3"] {
        assert_eq!(mariadb(&front, &["--ssl", &own, &key, version], BOTH), "second\nfirst\n");
        let refused = mariadb(&front, &["--ssl", version], BOTH);
        assert!(refused.contains("ERROR 20"), "{refused}");
    }
    front.wait("nobody is left", |status| status.sessions == 0);
}

/// A client in TLS that says what it wants when it wants.
pub(super) struct TlsClient {
    pub(super) socket: TcpStream,
    pub(super) tls: Tls,
    buffer: Vec<u8>,
    /// Plain bytes that were not asked for yet.
    heard: Vec<u8>,
}

/// Protocol::SSLRequest.
pub(super) const REQUEST: [u8; 36] = {
    let mut bytes = [0; 36];
    (bytes[0], bytes[3]) = (32, 1);
    (bytes[4], bytes[5], bytes[11], bytes[12]) = (0x09, 0xaa, 1, 45);
    bytes
};

/// Reads the greeting and asks for TLS.
pub(super) fn ask(front: &Front) -> TcpStream {
    let mut socket = TcpStream::connect(front.address).expect("connects");
    let mut header = [0; 4];
    socket.read_exact(&mut header).expect("a greeting");
    let mut greeting = vec![0; usize::from(header[0])];
    socket.read_exact(&mut greeting).expect("a greeting");
    socket.write_all(&REQUEST).expect("asks");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("sets");
    socket
}

impl TlsClient {
    /// Logged in as `other`, whose password is empty. Bytes go out one at a time if `is_slow`.
    pub(super) fn connect(front: &Front, is_slow: bool) -> Self {
        let socket = ask(front);
        let connector = Connector::load(&Trust::Anybody).expect("nothing to load");
        let mut hello = Vec::new();
        let tls = connector.connect(front.address.ip(), &mut hello).expect("begins");
        let buffer = vec![0; limits::READ_BUFFER_BYTES];
        let mut client = Self { socket, tls, buffer, heard: Vec::new() };
        client.write(&hello, is_slow);
        let mut answer = vec![0x09, 0xaa, 0, 0, 0, 0, 0, 1, 45];
        answer.extend_from_slice(&[0; 23]);
        answer.extend_from_slice(b"other\0\0t\0");
        let mut bytes = vec![u8::try_from(answer.len()).unwrap(), 0, 0, 2];
        bytes.extend_from_slice(&answer);
        let mut records = Vec::new();
        client.tls.seal(&bytes, &mut records).expect("waits");
        while client.heard.len() < 11 {
            client.hear(is_slow).expect("an answer");
        }
        assert_eq!(client.heard[4], 0, "OK");
        client.heard.clear();
        client
    }

    fn write(&mut self, bytes: &[u8], is_slow: bool) {
        if is_slow {
            for byte in bytes {
                self.socket.write_all(&[*byte]).expect("sends");
                thread::sleep(Duration::from_micros(200));
            }
        } else {
            self.socket.write_all(bytes).expect("sends");
        }
    }

    /// Reads once. `None`: the connection is over; whether it was said so is `tls.is_ended`.
    fn hear(&mut self, is_slow: bool) -> Option<()> {
        let count = self.socket.read(self.tls.window(&mut self.buffer)).ok()?;
        let mut records = Vec::new();
        let plain = self.tls.open(&mut self.buffer, count, &mut records).ok()?;
        self.heard.extend_from_slice(&self.buffer[..plain]);
        self.write(&records, is_slow);
        (count > 0).then_some(())
    }

    pub(super) fn say(&mut self, bytes: &[u8]) {
        let mut records = Vec::new();
        self.tls.seal(bytes, &mut records).expect("seals");
        self.socket.write_all(&records).expect("sends");
    }

    pub(super) fn query(&mut self, text: &[u8]) {
        let [a, b, c, _] = u32::try_from(text.len() + 1).unwrap().to_le_bytes();
        self.say(&[&[a, b, c, 0, 3], text].concat());
    }

    /// Reads so many plain bytes; `None` when the connection ends before.
    pub(super) fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.heard.len() < count {
            self.hear(false)?;
        }
        let rest = self.heard.split_off(count);
        Some(std::mem::replace(&mut self.heard, rest))
    }

    /// Reads one packet.
    pub(super) fn packet(&mut self) -> Option<Vec<u8>> {
        let header = self.take(4)?;
        self.take(
            usize::from(header[0]) | usize::from(header[1]) << 8 | usize::from(header[2]) << 16,
        )
    }

    /// Reads one result; yields how many rows it has. `None`: it has not come whole.
    pub(super) fn rows(&mut self) -> Option<usize> {
        let first = self.packet()?;
        assert!(!matches!(first[0], 0 | 0xff), "{}", String::from_utf8_lossy(&first));
        while self.packet()?[0] != 0xfe {}
        let mut count = 0;
        loop {
            let row = self.packet()?;
            match row[0] {
                0xfe if row.len() < 9 => return Some(count),
                0xff => return None,
                _ => count += 1,
            }
        }
    }
}

#[test]
fn a_handshake_may_come_in_single_bytes() {
    let (pair, keys) = (Pair::shared(), Keys::new());
    let front = Front::start(pair.ports(), |config| keys.offer(config));
    let mut client = TlsClient::connect(&front, true);
    client.query(b"SELECT name FROM t.mark");
    assert_eq!(client.rows(), Some(1));
    let mut goodbye = Vec::new();
    client.tls.close(&mut goodbye);
    client.socket.write_all(&goodbye).expect("sends");
    front.wait("the goodbye is the end", |status| status.sessions == 0);
}

/// What follows the request for TLS in the clear is never run; nor is TLS that was not asked for.
#[test]
fn a_door_that_is_abused_closes() {
    let (pair, keys) = (Pair::shared(), Keys::new());
    let front = Front::start(pair.ports(), |config| keys.offer(config));
    connect(&front);
    let mut answer = vec![0x09, 0xa2, 0, 0, 0, 0, 0, 1, 45];
    answer.extend_from_slice(&[0; 23]);
    answer.extend_from_slice(b"other\0\0t\0");
    let mut log_in = vec![u8::try_from(answer.len()).unwrap(), 0, 0, 2];
    log_in.extend_from_slice(&answer);
    log_in.extend_from_slice(b"\x21\0\0\0\x03CREATE TABLE t.injected (a INT)");
    let hello = {
        let mut hello = Vec::new();
        let connector = Connector::load(&Trust::Anybody).expect("nothing to load");
        connector.connect(front.address.ip(), &mut hello).expect("begins");
        hello
    };
    // With the request in one segment, and apart from it; the log-in after a whole hello; junk; the
    // request once more; what a server would say.
    let after_hello = [&hello[..], &log_in].concat();
    let junk = vec![0x16; 100_000];
    let tries: [&[u8]; 6] = [
        &log_in,
        &after_hello,
        &junk,
        &REQUEST,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x15\x03\x03\0\x02\x02\x28",
    ];
    for bytes in tries {
        for is_apart in [false, true] {
            let mut socket = TcpStream::connect(front.address).expect("connects");
            let mut greeting = [0; 512];
            assert!(socket.read(&mut greeting).expect("a greeting") > 4);
            let all = [&REQUEST[..], bytes].concat();
            if is_apart {
                socket.write_all(&all[..36]).expect("asks");
                thread::sleep(Duration::from_millis(20));
                let _ = socket.write_all(&all[36..]);
            } else {
                let _ = socket.write_all(&all);
            }
            let mut told = Vec::new();
            let _ = socket.read_to_end(&mut told);
            // At most records: a flight of handshake, an alert.
            assert!(told.is_empty() || matches!(told[..2], [0x15 | 0x16, 3]), "{told:?}");
        }
    }
    // TLS without asking: the greeting is all there is, and an error.
    let mut socket = TcpStream::connect(front.address).expect("connects");
    socket.write_all(&hello).expect("sends");
    socket.shutdown(Shutdown::Write).expect("half-closes");
    let mut told = Vec::new();
    let _ = socket.read_to_end(&mut told);
    front.wait("every door is closed", |status| status.sessions == 0);
    let tables = "SELECT COUNT(*) FROM information_schema.tables WHERE table_name = 'injected'";
    assert_eq!((pair.sql(0, tables), pair.sql(1, tables)), ("0".into(), "0".into()));
    // Half-closed in the middle of a hello.
    let mut socket = ask(&front);
    socket.write_all(&hello[..hello.len() / 2]).expect("sends");
    socket.shutdown(Shutdown::Write).expect("half-closes");
    assert_eq!(socket.read_to_end(&mut told).ok(), Some(0));
    front.wait("it is over", |status| status.sessions == 0);
    assert_eq!(mark(&mut connect(&front)), "second");
}

/// Nobody stays at the door for longer than a log-in may take, however often a byte comes.
#[test]
fn a_slow_handshake_is_ended() {
    let (pair, keys) = (Pair::shared(), Keys::new());
    let front = Front::start(pair.ports(), |config| keys.offer(config));
    connect(&front);
    let since = Clock::now();
    let dribble = |mut socket: TcpStream| {
        thread::spawn(move || {
            // A record of 16 KiB, and a packet of the same length.
            let _ = socket.write_all(&[22, 3, 1, 0x40, 0]);
            while socket.write_all(&[1]).is_ok() && since.elapsed() < limits::SQL_LOGIN * 2 {
                thread::sleep(Duration::from_millis(100));
            }
            since.elapsed()
        })
    };
    let plain = TcpStream::connect(front.address).expect("connects");
    for (name, slow) in [("in TLS", dribble(ask(&front))), ("plain", dribble(plain))] {
        let elapsed = slow.join().expect("no panic");
        let limit = limits::SQL_LOGIN;
        assert!((limit..limit + Duration::from_secs(3)).contains(&elapsed), "{name}: {elapsed:?}");
    }
    assert_eq!(front.status().sessions, 0);
}

/// A renewed certificate is taken without a restart, and half a pair is not.
#[test]
fn certificates_that_change_are_taken_if_they_are_good() {
    let (pair, keys) = (Pair::shared(), Keys::new());
    let front = Front::start(pair.ports(), |config| keys.offer(config));
    let ca = format!("--ssl-ca={}", keys.path("ca.pem"));
    let verified = || mariadb(&front, &["--ssl", "--ssl-verify-server-cert", &ca], BOTH);
    let wait = |expected: &str| {
        let since = Clock::now();
        while !verified().contains(expected) {
            assert!(since.elapsed() < limits::TLS_FILES_INTERVAL * 5, "{}", verified());
            thread::sleep(Duration::from_millis(200));
        }
    };
    let read = |name: &str| fs::read_to_string(keys.path(name)).expect("reads");
    let (certificate, key) = (read("server.pem"), read("server-key.pem"));
    assert_eq!(verified(), "second\nfirst\n");
    // One of another name, which shows that it is taken.
    keys.write("server.pem", &read("client.pem"));
    keys.write("server-key.pem", &read("client-key.pem"));
    wait("ERROR 2026");
    keys.write("server.pem", &certificate);
    thread::sleep(limits::TLS_FILES_INTERVAL * 3);
    assert!(verified().contains("ERROR 2026"), "what works stays until the key comes too");
    keys.write("server-key.pem", &key);
    wait("second\nfirst\n");
}

/// Files that cannot be used stop the daemon before it serves, and `tandem check` says why.
#[test]
fn check_names_a_file_that_cannot_be_used() {
    let keys = Keys::new();
    let check = |lines: &str| {
        let path = keys.0.join("tandem.toml");
        fs::write(&path, EXAMPLE.replacen("hold_limit", &format!("{lines}\nhold_limit"), 1))
            .expect("writes");
        let output = Command::new(env!("CARGO_BIN_EXE_tandem"))
            .arg("check")
            .arg(&path)
            .output()
            .expect("it runs");
        (output.status.code(), said(&output))
    };
    let own = |certificate: &str, key: &str| {
        let (certificate, key) = (keys.path(certificate), keys.path(key));
        format!("certificate = {certificate:?}\nkey = {key:?}")
    };
    assert_eq!(check(&own("server.pem", "server-key.pem")).0, Some(0));
    let verify = |ca: &str| format!("server_tls = \"verify\"\nserver_ca = {:?}", keys.path(ca));
    assert_eq!(check(&verify("ca.pem")).0, Some(0));
    for (lines, expected) in [
        (own("nosuch.pem", "server-key.pem"), "sql.certificate: "),
        (own("server.pem", "client-key.pem"), "is not the private key of"),
        (verify("nosuch.pem"), "nosuch.pem: No such file"),
        (verify("server-key.pem"), "sql.server_ca: "),
        ("server_tls = \"verify\"".to_owned(), "sql.server_ca"),
    ] {
        let (code, said) = check(&lines);
        assert!(code == Some(2) && said.contains(expected), "{said}");
    }
}
