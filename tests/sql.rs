//! The splitter in front of two real MariaDB servers, driven by real clients.
//!
//! In: the `mysql` crate, the `mariadb` command line, PHP, raw sockets. Out: laws that hold.
//! Must not: use any network but 127.0.0.1, leave a process behind. Each server carries a row that
//! says which one it is, so that an answer tells where it came from.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

#[path = "sql/admin.rs"]
mod admin;
#[path = "sql/admin_clients.rs"]
mod admin_clients;
#[path = "sql/admin_orders.rs"]
mod admin_orders;
#[path = "sql/classes.rs"]
mod classes;
#[path = "sql/client.rs"]
mod client;
#[path = "sql/crowd.rs"]
mod crowd;
#[path = "sql/differential.rs"]
mod differential;
#[path = "sql/failover.rs"]
mod failover;
#[path = "sql/kinds.rs"]
mod kinds;
#[path = "sql/laws.rs"]
mod laws;
#[path = "sql/lexing.rs"]
mod lexing;
#[path = "sql/middle.rs"]
mod middle;
#[path = "sql/own_writes.rs"]
mod own_writes;
#[path = "sql/prepared.rs"]
mod prepared;
#[path = "sql/protocol.rs"]
mod protocol;
#[path = "sql/raw.rs"]
mod raw;
#[path = "repl/pair.rs"]
#[allow(dead_code)]
mod replicated;
#[path = "sql/servers.rs"]
mod servers;
#[path = "sql/session_state.rs"]
mod session_state;
#[path = "sql/state.rs"]
mod state;
#[path = "sql/tls.rs"]
mod tls;
#[path = "sql/tls_ends.rs"]
mod tls_ends;
#[path = "sql/tls_servers.rs"]
mod tls_servers;
#[path = "sql/transactions.rs"]
mod transactions;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant as Clock};

use client::*;
use mysql::prelude::Queryable;
use mysql::{Conn, Error, OptsBuilder};
use servers::{Front, PASSWORD, Pair, routes};
use tandem::routes::Flow;
use tandem::wire::HostId;

const MARK: &str = "SELECT name FROM t.mark";

#[test]
fn reads_go_to_the_replica_and_the_rest_to_the_source() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |_| {});
    let mut conn = connect(&front);
    assert_eq!(mark(&mut conn), "second");
    assert_eq!(one(&mut conn, "SELECT name FROM t.mark FOR UPDATE"), "first");
    assert_eq!(one(&mut conn, "/*master*/ SELECT name FROM t.mark"), "first");
    let mut conn = connect(&front);
    conn.query_drop("CREATE TABLE IF NOT EXISTS t.routing (a INT)").expect("the source takes it");
    assert_eq!(mark(&mut conn), "first", "reads follow the session's own writes");
    thread::sleep(Duration::from_millis(350));
    assert_eq!(mark(&mut conn), "second", "until the replica has them");
    assert_eq!(
        pair.sql(0, "SELECT COUNT(*) FROM information_schema.tables WHERE table_name='routing'"),
        "1"
    );
    assert_eq!(
        pair.sql(1, "SELECT COUNT(*) FROM information_schema.tables WHERE table_name='routing'"),
        "0"
    );
    let status = front.status();
    assert!(status.queries_to_source >= 3 && status.queries_to_replica >= 2, "{status:?}");
}

#[test]
fn a_transaction_stays_on_the_source_until_its_end() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |config| config.read_own_writes = false);
    let mut conn = connect(&front);
    conn.query_drop("BEGIN").expect("begins");
    assert!(!front.is_quiet());
    assert_eq!(mark(&mut conn), "first");
    assert!(conn.query_drop("SELEKT").is_err());
    assert_eq!(mark(&mut conn), "first", "an error does not end a transaction");
    conn.query_drop("COMMIT").expect("commits");
    assert!(front.is_quiet());
    assert_eq!(mark(&mut conn), "second");
    conn.query_drop("SET autocommit=0").expect("sets");
    assert_eq!(mark(&mut conn), "first");
    conn.query_drop("SET autocommit=1").expect("sets");
    assert_eq!(mark(&mut conn), "second");
    conn.query_drop("BEGIN").expect("begins");
    conn.query_drop("CREATE TABLE IF NOT EXISTS t.implicit (a INT)").expect("commits implicitly");
    assert_eq!(mark(&mut conn), "second");
}

#[test]
fn an_error_on_the_replica_does_not_keep_writes_there() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |_| {});
    let mut conn = connect(&front);
    pair.sql(0, "CREATE TABLE t.after_error (a INT)");
    assert!(conn.query_drop("SELECT * FROM t.nosuch").is_err());
    conn.query_drop("INSERT INTO t.after_error VALUES (1)").expect("goes to the source");
    assert_eq!(pair.sql(0, "SELECT COUNT(*) FROM t.after_error"), "1");
}

#[test]
fn session_state_is_the_same_wherever_a_statement_goes() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |config| config.read_own_writes = false);
    let mut conn = connect(&front);
    conn.query_drop("USE u").expect("uses");
    assert_eq!(one(&mut conn, "SELECT name FROM mark"), "second-u");
    assert_eq!(one(&mut conn, "SELECT name FROM mark FOR UPDATE"), "first-u");
    assert!(conn.query_drop("USE nosuch").is_err());
    assert_eq!(one(&mut conn, "SELECT name FROM mark"), "second-u");
    conn.query_drop("SET NAMES latin1").expect("sets");
    assert_eq!(one(&mut conn, "SELECT @@character_set_client"), "latin1");
    assert_eq!(one(&mut conn, "SELECT @@character_set_client FOR UPDATE"), "latin1");
    conn.query_drop("SET @a = 5").expect("sets");
    assert_eq!(one(&mut conn, "SELECT CONCAT(@a, name) FROM mark"), "5first-u");
    assert_eq!(one(&mut conn, "SELECT name FROM mark"), "first-u", "the session is pinned");
}

#[test]
fn a_wrong_password_gets_1045_and_nothing_after() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |_| {});
    connect(&front);
    for (name, password) in [("app", "wrong"), ("nobody", PASSWORD), ("app", ""), ("other", "x")] {
        let error = Conn::new(options(&front).user(Some(name)).pass(Some(password)));
        match error.expect_err("is refused") {
            Error::MySqlError(error) => assert_eq!(error.code, 1045),
            other => panic!("{other}"),
        }
    }
    Conn::new(options(&front).user(Some("other")).pass(None::<&str>)).expect("an empty password");
    // The bypass of Atlas: go on talking after the refusal.
    let mut socket = raw_log_in(&front, b"wrong-proof-20-bytes");
    let mut answer = Vec::new();
    let _ = socket.write_all(b"\x12\0\0\0\x03CREATE DATABASE x");
    let _ = socket.read_to_end(&mut answer);
    assert_eq!(&answer[4..7], b"\xff\x15\x04");
    let length = usize::from(answer[0]);
    assert_eq!(answer.len(), length + 4, "nothing follows the refusal");
    assert_eq!(
        pair.sql(0, "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name='x'"),
        "0"
    );
}

#[test]
fn connections_are_reused_and_leak_nothing() {
    let pair = Pair::shared();
    // Without the two connections that follow writes, so that every log-in is a session's.
    let front = Front::start(pair.ports(), |config| config.read_own_writes = false);
    for round in 0..20 {
        let mut conn = connect(&front);
        assert_eq!(mark(&mut conn), "second");
        assert_eq!(one(&mut conn, "SELECT COALESCE(@leak, 'clean') FROM t.mark"), "clean");
        assert_eq!(one(&mut conn, "SELECT @@character_set_client"), "utf8mb4");
        assert_eq!(one(&mut conn, "SELECT @@sql_mode = @@global.sql_mode"), "1");
        conn.query_drop("SET @leak = 1, sql_mode = ''").expect("sets");
        conn.query_drop("SET NAMES latin1").expect("sets");
        conn.query_drop("CREATE TEMPORARY TABLE t.tt (a INT)").expect("creates");
        conn.query_drop("SELECT GET_LOCK('tandem', 0)").expect("locks");
        conn.query_drop("BEGIN").expect("begins");
        drop(conn);
        front.wait("both connections come back", |status| status.pooled == 2);
        let logins = front.status().logins;
        assert!(logins <= 4, "round {round}: {logins} log-ins");
    }
}

#[test]
fn a_reused_connection_is_in_the_database_that_the_client_asked_for() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |_| {});
    for (database, expected) in [("u", "second-u"), ("u", "second-u"), ("t", "second")] {
        let mut conn = Conn::new(options(&front).db_name(Some(database))).expect("logs in");
        assert_eq!(one(&mut conn, "SELECT name FROM mark"), expected);
        drop(conn);
        front.wait("the connection comes back", |status| status.pooled == 1);
    }
    // One log-in for the sessions, and at most one a server to learn what it is.
    assert!(front.status().logins <= 3, "{:?}", front.status());
    assert_eq!(code(Conn::new(options(&front).db_name(Some("nosuch"))).map(drop)), 1049);
}

#[test]
fn a_pooled_connection_that_the_server_closed_is_not_used() {
    let pair = Pair::own();
    let front = Front::start(pair.ports(), |_| {});
    mark(&mut connect(&front));
    front.wait("the connection comes back", |status| status.pooled == 1);
    pair.sql(1, "KILL USER app@'127.0.0.1'");
    front.wait("it is gone", |status| status.pooled == 0);
    assert_eq!(mark(&mut connect(&front)), "second");
}

#[test]
fn a_held_statement_runs_when_writes_flow_again() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |_| {});
    pair.sql(0, "CREATE TABLE t.holding (a INT)");
    let mut conn = connect(&front);
    conn.query_drop("INSERT INTO t.holding VALUES (0)").expect("flows");
    let mut held = routes(Some(HostId::First), [false, true]);
    held.writes = Flow::Held { open_limit: Duration::from_secs(1) };
    front.route(&held);
    let mut reader = connect(&front);
    assert_eq!(mark(&mut reader), "second", "reads go on");
    let writer = thread::spawn(move || {
        let since = Clock::now();
        conn.query_drop("INSERT INTO t.holding VALUES (1)").expect("is held, then done");
        since.elapsed()
    });
    front.wait("the statement is held", |status| status.held == 1);
    assert!(front.is_quiet());
    // A client that leaves takes its statement with it.
    let mut leaving = raw_log_in(&front, &raw_proof());
    let _ = leaving.flush();
    drop(leaving);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(pair.sql(0, "SELECT COUNT(*) FROM t.holding"), "1");
    front.route(&routes(Some(HostId::First), [false, true]));
    assert!(writer.join().expect("no panic") >= Duration::from_millis(150));
    assert_eq!(pair.sql(0, "SELECT COUNT(*) FROM t.holding"), "2");
}

#[test]
fn a_client_that_leaves_takes_its_held_statement_with_it() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |_| {});
    pair.sql(0, "CREATE TABLE t.leaving (a INT)");
    let mut client = RawClient::connect(&front);
    front.route(&routes(None, [false, true]));
    client.send_query(b"INSERT INTO t.leaving VALUES (1)");
    front.wait("the statement is held", |status| status.held == 1);
    drop(client);
    front.wait("the session ends", |status| status.sessions == 0);
    front.route(&routes(Some(HostId::First), [false, true]));
    thread::sleep(Duration::from_millis(100));
    assert_eq!(pair.sql(0, "SELECT COUNT(*) FROM t.leaving"), "0");
}

#[test]
fn a_statement_held_for_too_long_gets_an_error_and_the_session_stays() {
    let pair = Pair::shared();
    let limit = Duration::from_millis(300);
    let front = Front::start(pair.ports(), |config| config.hold_limit = limit);
    let mut conn = connect(&front);
    front.route(&routes(None, [false, true]));
    let since = Clock::now();
    match conn.query_drop("CREATE TABLE t.never (a INT)").expect_err("no source") {
        Error::MySqlError(error) => {
            assert_eq!((error.code, error.state.as_str()), (1205, "HY000"));
            assert!(error.message.contains("not executed"), "{}", error.message);
        }
        error => panic!("{error}"),
    }
    assert!((limit..limit * 4).contains(&since.elapsed()), "{:?}", since.elapsed());
    assert_eq!(mark(&mut conn), "second");
}

#[test]
fn an_open_transaction_may_end_while_writes_are_held_but_not_for_ever() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |_| {});
    pair.sql(0, "CREATE TABLE t.open (a INT) ENGINE=InnoDB");
    let (mut quick, mut slow) = (connect(&front), connect(&front));
    quick.query_drop("BEGIN").expect("begins");
    slow.query_drop("BEGIN").expect("begins");
    slow.query_drop("INSERT INTO t.open VALUES (1)").expect("inserts");
    let mut held = routes(Some(HostId::First), [false, true]);
    held.writes = Flow::Held { open_limit: Duration::from_millis(400) };
    front.route(&held);
    quick.query_drop("INSERT INTO t.open VALUES (2)").expect("the transaction goes on");
    quick.query_drop("COMMIT").expect("and ends");
    assert!(!front.is_quiet());
    thread::sleep(Duration::from_millis(500));
    assert!(front.is_quiet());
    assert_eq!(code(slow.query_drop("COMMIT")), 1053);
    assert_eq!(pair.sql(0, "SELECT a FROM t.open"), "2");
}

#[test]
fn idle_sessions_follow_a_new_source_and_open_transactions_do_not() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |config| config.read_own_writes = false);
    let (mut idle, mut open) = (connect(&front), connect(&front));
    idle.query_drop("USE u").expect("uses");
    idle.query_drop("SET NAMES latin1").expect("sets");
    assert_eq!(one(&mut idle, "SELECT name FROM mark FOR UPDATE"), "first-u");
    open.query_drop("BEGIN").expect("begins");
    front.route(&routes(Some(HostId::Second), [true, false]));
    assert_eq!(one(&mut idle, "SELECT name FROM mark FOR UPDATE"), "second-u");
    assert_eq!(one(&mut idle, "SELECT name FROM mark"), "first-u");
    assert_eq!(one(&mut idle, "SELECT @@character_set_client FOR UPDATE"), "latin1");
    assert_eq!(code(open.query_drop("INSERT INTO t.mark VALUES ('x')")), 1053);
    assert!(open.query_drop("SELECT 1").is_err(), "the session is over");
    assert_eq!(pair.sql(1, "SELECT COUNT(*) FROM t.mark"), "1");
}

#[test]
fn reads_survive_the_death_of_the_replica() {
    let pair = Pair::own();
    let front = Front::start(pair.ports(), |_| {});
    let mut conn = connect(&front);
    assert_eq!(mark(&mut conn), "second");
    let mut busy = connect(&front);
    let reader =
        thread::spawn(move || one(&mut busy, "SELECT name FROM t.mark WHERE SLEEP(1) = 0"));
    thread::sleep(Duration::from_millis(300));
    pair.kill(1);
    assert_eq!(reader.join().expect("no panic"), "first", "a read in flight is asked again");
    assert_eq!(mark(&mut conn), "first");
    assert_eq!(mark(&mut connect(&front)), "first");
    assert!(front.status().retried >= 1, "{:?}", front.status());
}

#[test]
fn a_write_in_flight_is_never_repeated() {
    let pair = Pair::own();
    let front = Front::start(pair.ports(), |_| {});
    let mut conn = connect(&front);
    let writer = thread::spawn(move || code(conn.query_drop("DO SLEEP(5)")));
    thread::sleep(Duration::from_millis(300));
    assert!(!front.is_quiet());
    pair.kill(0);
    assert_eq!(writer.join().expect("no panic"), 1053);
    let mut conn = connect(&front);
    assert_eq!(mark(&mut conn), "second", "reads go on without a source");
    let writer = thread::spawn(move || conn.query_drop("INSERT INTO t.mark VALUES ('late')"));
    front.wait("the next write is held", |status| status.held == 1);
    front.route(&routes(Some(HostId::Second), [false, false]));
    writer.join().expect("no panic").expect("the new source takes it");
    assert_eq!(pair.sql(1, "SELECT COUNT(*) FROM t.mark"), "2");
}

#[test]
fn a_read_that_writes_is_refused_by_the_replica_and_done_by_the_source() {
    let pair = Pair::own();
    let view = "CREATE FUNCTION t.upper_case() RETURNS INT RETURN 1";
    pair.sql(0, view);
    pair.sql(1, "REVOKE ALL ON *.* FROM app@'127.0.0.1'; GRANT SELECT ON *.* TO app@'127.0.0.1'");
    pair.sql(1, "SET GLOBAL read_only = 1");
    let front = Front::start(pair.ports(), |_| {});
    let mut conn = connect(&front);
    assert_eq!(one(&mut conn, "SELECT t.upper_case()"), "1", "an unknown function: the source");
    assert_eq!(code(conn.query_drop("SELECT nosuch()")), 1305);
}

#[test]
fn multiple_results_and_large_results_arrive_whole() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |_| {});
    let mut conn = connect(&front);
    let mut result = conn.query_iter("SELECT 1; SELECT 2, 3; DO 0; SELECT 4").expect("runs");
    let mut counts = Vec::new();
    while let Some(set) = result.iter() {
        counts.push(set.count());
    }
    drop(result);
    assert_eq!(counts, [1, 1, 0, 1]);
    let rows: Vec<u64> = conn.query("SELECT seq FROM t.seq_1_to_200000").expect("runs");
    assert_eq!((rows.len(), rows[199_999]), (200_000, 200_000));
    let big: String = one(&mut connect(&front), "SELECT REPEAT('x', 20000000)");
    assert_eq!(big.len(), 20_000_000);
    conn.query_drop("CREATE PROCEDURE t.three() BEGIN SELECT 1; SELECT 2; SELECT 3; END")
        .expect("creates");
    let mut result = conn.query_iter("CALL t.three()").expect("calls");
    let mut sets = 0;
    while result.iter().map(Iterator::count).is_some() {
        sets += 1;
    }
    assert_eq!(sets, 4);
}

#[test]
fn a_slow_client_stops_its_server_and_nobody_else() {
    let pair = Pair::own();
    let front = Front::start(pair.ports(), |_| {});
    let mut slow = RawClient::connect(&front);
    slow.send_query(b"SELECT seq, REPEAT('x', 1000) FROM t.seq_1_to_1000000");
    wait_until_stopped(&pair);
    assert_eq!(mark(&mut connect(&front)), "second");
    drop(slow);
    let since = Clock::now();
    while pair.sql(1, WRITING) != "0" {
        assert!(since.elapsed() < Duration::from_secs(10), "the query outlives its client");
        thread::sleep(Duration::from_millis(20));
    }
    // The same result, read to its end, arrives whole.
    let rows: Vec<(u64, String)> =
        connect(&front).query("SELECT seq, REPEAT('x', 1000) FROM t.seq_1_to_50000").expect("runs");
    assert_eq!(rows.len(), 50_000);
}

#[test]
fn statements_beyond_one_packet_pass() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |_| {});
    let mut conn = connect(&front);
    conn.query_drop("CREATE TABLE t.big (a LONGTEXT)").expect("creates");
    let prefix = "INSERT INTO t.big VALUES ('";
    for size in [300_000usize, 0xff_ffff - 1 - prefix.len() - 2, 20_000_000] {
        conn.query_drop("DELETE FROM t.big").expect("deletes");
        let text = format!("{prefix}{}')", "y".repeat(size));
        conn.query_drop(text).expect("inserts");
        assert_eq!(pair.sql(0, "SELECT LENGTH(a) FROM t.big"), size.to_string());
    }
}

#[test]
fn pipelined_queries_and_single_bytes_are_answered_in_order() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |_| {});
    let mut client = RawClient::connect(&front);
    client.send_query(MARK.as_bytes());
    client.send_query(b"SELECT CONCAT(name, '-locked') FROM t.mark FOR UPDATE");
    client.send_query(b"SELECT CONCAT(name, '-after') FROM t.mark");
    assert!(client.reply_contains(b"second"), "a read");
    assert!(client.reply_contains(b"first-locked"), "what may write");
    assert!(client.reply_contains(b"first-after"), "a read that follows it");
    let mut client = RawClient::connect(&front);
    let mut bytes = vec![u8::try_from(MARK.len() + 1).unwrap(), 0, 0, 0, 3];
    bytes.extend_from_slice(MARK.as_bytes());
    for byte in bytes {
        client.socket.write_all(&[byte]).expect("sends");
        thread::sleep(Duration::from_millis(1));
    }
    assert!(client.reply_contains(b"second"));
}

#[test]
fn commands_that_are_not_queries_work() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |config| config.read_own_writes = false);
    let mut conn = connect(&front);
    conn.ping().expect("pings");
    conn.select_db("u").expect("selects");
    assert_eq!(one(&mut conn, "SELECT name FROM mark"), "second-u");
    assert_eq!(code(conn.select_db("nosuch")), 1049);
    conn.query_drop("SET @a = 1").expect("sets");
    conn.reset().expect("resets");
    assert_eq!(one(&mut conn, "SELECT name FROM mark"), "second-u", "unpinned, same database");
    conn.change_user(
        mysql::ChangeUserOpts::default()
            .with_user(Some("other".into()))
            .with_pass(Some(String::new()))
            .with_db_name(Some("t".into())),
    )
    .expect("changes the user");
    assert_eq!(one(&mut conn, "SELECT name FROM mark"), "second");
    assert_eq!(one(&mut conn, "SELECT CURRENT_USER()"), "other@127.0.0.1");
    assert_eq!(code(conn.query_drop("KILL 99999")), 1094);
    let mut client = RawClient::connect(&front);
    client.send(b"\x12\0\0\0\0");
    assert!(client.reply_contains(b"\xff\xcb\x04"), "COM_BINLOG_DUMP gets 1227");
    client.send(b"\x09");
    assert!(client.reply_contains(b"Uptime"));
    client.send(b"\x04mark\0");
    assert!(client.reply_contains(b"name"));
    let error = conn.change_user(
        mysql::ChangeUserOpts::default()
            .with_user(Some("app".into()))
            .with_pass(Some("wrong".into())),
    );
    assert_eq!(code(error), 1045);
}

#[test]
fn too_many_clients_get_1040() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |config| config.sessions_max = 1);
    let _first = connect(&front);
    assert_eq!(code(Conn::new(options(&front)).map(drop)), 1040);
}

#[test]
fn the_command_line_client_works() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |_| {});
    let run = |text: &str| {
        let output = Command::new("mariadb")
            .args(["--no-defaults", "-N", "-h127.0.0.1", "-uapp", "-f"])
            .arg(format!("-p{PASSWORD}"))
            .arg(format!("-P{}", front.address.port()))
            .args(["t", "-e", text])
            .output()
            .expect("the client runs");
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    };
    assert_eq!(run("SELECT name FROM mark"), "second\n");
    assert_eq!(
        run("SELECT name FROM mark; SELECT name FROM mark LOCK IN SHARE MODE"),
        "second\nfirst\n"
    );
    assert!(run("SHOW TABLES").contains("mark"));
    assert!(run("SELECT * FROM nosuch; SHOW WARNINGS").contains("doesn't exist"));
    assert!(run("SELECT VERSION()").contains("MariaDB"));
}
