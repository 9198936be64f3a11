//! Servers in TLS: what a server must offer and prove, users that may not come without, logins with
//! a cold cache.
//!
//! In: pairs of all three kinds, with certificates and without. Out: laws. Must not: take an answer
//! for a sign of TLS: the servers themselves refuse a user that comes without.
//! Read first: facts/sql.md 6; `tandem::os::tls`.

use super::tls::*;
use super::*;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use servers::mysql97_template;
use tandem::sql::ServerTls;

const CIPHER: &str = "SHOW SESSION STATUS LIKE 'Ssl_cipher'";

fn cipher(conn: &mut Conn) -> String {
    let row: Option<(String, String)> = conn.query_first(CIPHER).expect("runs");
    row.expect("a row").1
}

fn front(pair: &Pair, tls: ServerTls, ca: Option<&str>) -> Front {
    Front::start(pair.ports(), |config| {
        (config.server_tls, config.lag_limit) = (tls, Duration::ZERO);
        config.server_ca = ca.map(str::to_owned);
    })
}

fn require_tls(pair: &Pair) {
    for host in [0, 1] {
        pair.sql(host, "ALTER USER app@'127.0.0.1' REQUIRE SSL");
    }
}

/// Reads, writes, the end of another session's statement, a second session on the same connections.
fn serves(front: &Front) {
    let mut conn = connect(front);
    assert_eq!(mark(&mut conn), "second");
    assert_eq!(one(&mut conn, "SELECT name FROM t.mark FOR UPDATE"), "first");
    assert!(!cipher(&mut conn).is_empty());
    let thread = conn.connection_id();
    let sleeper = thread::spawn(move || conn.query_drop("DO SLEEP(20)").err().map(|_| conn));
    thread::sleep(Duration::from_millis(300));
    let mut other = connect(front);
    let since = Clock::now();
    other.query_drop(format!("KILL QUERY {thread}")).expect("the errand comes in TLS too");
    let conn = sleeper.join().expect("no panic");
    assert!(since.elapsed() < Duration::from_secs(10));
    drop((conn, other));
    front.wait("connections come back", |status| status.pooled >= 2);
    let logins = front.status().logins;
    assert_eq!(mark(&mut connect(front)), "second");
    assert_eq!(front.status().logins, logins, "a pooled connection");
}

/// The reason that a client is given.
fn refusal(front: &Front) -> (u16, String) {
    // The driver asks for two variables at once.
    let logged_in = Conn::new(options(front));
    match logged_in.expect_err("no source") {
        Error::MySqlError(error) => (error.code, error.message),
        other => panic!("{other}"),
    }
}

#[test]
fn mariadb_users_that_may_not_come_without_tls_are_served_in_it() {
    let keys = Keys::new();
    let pair = Pair::with(&keys.options());
    require_tls(&pair);
    let (ca, own) = (keys.path("ca.pem"), keys.path("server.pem"));
    serves(&front(&pair, ServerTls::Prefer, None));
    serves(&front(&pair, ServerTls::Require, None));
    serves(&front(&pair, ServerTls::Verify, Some(&ca)));
    serves(&front(&pair, ServerTls::Verify, Some(&own)));
    let named = |name: &str| {
        Front::start(pair.ports(), |config| {
            (config.server_tls, config.lag_limit) = (ServerTls::Verify, Duration::ZERO);
            config.server_ca = Some(ca.clone());
            config.server_name = Some(name.to_owned());
        })
    };
    serves(&named("db.example"));
    serves(&named("127.0.0.1"));
    let (code, why) = refusal(&named("web.example"));
    assert!(code == 2026 && why.contains("web.example"), "{why}");
    let (code, why) = refusal(&front(&pair, ServerTls::Verify, Some(&keys.path("other.pem"))));
    assert!(code == 2026 && why.contains("has signed it"), "{why}");
    // The server itself says that it wants TLS.
    assert_eq!(code_of_conn(&front(&pair, ServerTls::Off, None)), 1045);
}

fn code_of_conn(front: &Front) -> u16 {
    code(Conn::new(options(front)).and_then(|mut conn| conn.query_drop("DO 1")))
}

#[test]
fn mysql_97_users_that_may_not_come_without_tls_are_served_in_it() {
    let Some(pair) = Pair::mysql97() else { return };
    require_tls(&pair);
    // What the server has made for itself at its first start.
    let ca = pair.data_file(0, "ca.pem");
    serves(&front(&pair, ServerTls::Prefer, None));
    serves(&front(&pair, ServerTls::Require, None));
    serves(&front(&pair, ServerTls::Verify, Some(&ca)));
    serves(&front(&pair, ServerTls::Verify, Some(&pair.data_file(0, "server-cert.pem"))));
    let keys = Keys::new();
    let (code, why) = refusal(&front(&pair, ServerTls::Verify, Some(&keys.path("ca.pem"))));
    assert!(code == 2026 && why.contains("has signed it"), "{why}");
    assert_eq!(code_of_conn(&front(&pair, ServerTls::Off, None)), 1045);
}

/// In TLS a cold cache gets the password itself, in the clear the password under the server's key.
#[test]
fn caching_sha2_works_cold_in_tls() {
    let Some(pair) = Pair::mysql97() else { return };
    for mode in [ServerTls::Require, ServerTls::Off] {
        let front = front(&pair, mode, None);
        for _ in 0..3 {
            for host in [0, 1] {
                pair.sql(host, "FLUSH PRIVILEGES");
            }
            let mut conn = connect(&front);
            assert_eq!(mark(&mut conn), "second");
            assert_eq!(one(&mut conn, "SELECT name FROM t.mark FOR UPDATE"), "first");
            assert_eq!(cipher(&mut conn).is_empty(), mode == ServerTls::Off);
            for host in [0, 1] {
                pair.sql(host, "ALTER USER app@'127.0.0.1' IDENTIFIED BY 'secret'");
            }
        }
    }
}

#[test]
fn a_server_that_offers_no_tls_is_talked_to_in_the_clear_if_that_is_allowed() {
    let pair = Pair::shared();
    let plain = front(&pair, ServerTls::Prefer, None);
    let mut conn = connect(&plain);
    assert_eq!(mark(&mut conn), "second");
    assert_eq!(cipher(&mut conn), "");
    let (code, why) = refusal(&front(&pair, ServerTls::Require, None));
    assert!(code == 2026 && why.contains("offers no TLS"), "{why}");
}

/// 5.6 has TLS 1.0 at most. Without a certificate it offers none; with one it cannot be had.
#[test]
fn an_old_server_is_talked_to_in_the_clear_or_says_why_not() {
    let Some(pair) = Pair::mysql56() else { return };
    assert_eq!(mark(&mut connect(&front(&pair, ServerTls::Prefer, None))), "second");
    let keys = Keys::new();
    // It reads RSA keys only, those that the other MySQL has made, and those in their old form.
    let Some(made) = mysql97_template() else { return };
    keys.write("old-key.pem", &old_form(&read(&made.join("server-key.pem"))));
    let Some(pair) = Pair::mysql56_with(&[
        format!("--ssl-ca={}", made.join("ca.pem").display()),
        format!("--ssl-cert={}", made.join("server-cert.pem").display()),
        format!("--ssl-key={}", keys.path("old-key.pem")),
    ]) else {
        return;
    };
    assert_eq!(pair.sql(0, "SELECT @@have_ssl"), "YES");
    for mode in [ServerTls::Prefer, ServerTls::Require] {
        let (code, why) = refusal(&front(&pair, mode, None));
        assert!(code == 2026 && why.contains("TLS 1.2 and 1.3 are spoken here"), "{why}");
    }
    assert_eq!(mark(&mut connect(&front(&pair, ServerTls::Off, None))), "second");
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("the server has made it")
}

/// A key of RSA without the envelope of PKCS #8, which says that it is one.
fn old_form(pem: &str) -> String {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    // The file ends in a NUL.
    let whole = STANDARD.decode(body.trim_end_matches('\0')).expect("base64");
    // NULL, the parameters of the algorithm; then OCTET STRING and a length of two bytes.
    let at = whole.windows(4).position(|it| it == b"\x05\0\x04\x82").expect("an RSA key") + 6;
    let body = STANDARD.encode(&whole[at..]);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|it| std::str::from_utf8(it).expect("base64")).collect();
    let label = "RSA PRIVATE KEY";
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A path is not in TLS, whatever is asked for by address.
#[test]
fn a_path_stays_in_the_clear() {
    let keys = Keys::new();
    let pair = Pair::with(&keys.options());
    pair.sql(0, &format!("CREATE USER app@localhost IDENTIFIED BY '{PASSWORD}'"));
    pair.sql(0, "GRANT ALL ON *.* TO app@localhost");
    let front = Front::start(pair.ports(), |config| {
        (config.server_tls, config.lag_limit) = (ServerTls::Require, Duration::ZERO);
        config.server_socket = Some(pair.socket(0));
    });
    let mut conn = connect(&front);
    assert_eq!(mark(&mut conn), "second", "the replica, in TLS");
    assert_eq!(one(&mut conn, "SELECT CURRENT_USER() FOR UPDATE"), "app@localhost");
    assert_eq!(cipher(&mut conn), "", "the source, by its path");
}
