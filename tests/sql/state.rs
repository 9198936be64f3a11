//! What a session is: its settings on both connections, its number, what may end it.
//!
//! In: a pair and a splitter. Out: laws. Must not: know how a pair is made (`servers`).

use super::*;

/// What frameworks say at the start of a connection.
const PREAMBLES: [&[&str]; 4] = [
    // WordPress.
    &["SET NAMES 'utf8mb4' COLLATE 'utf8mb4_unicode_520_ci'", "SET SESSION sql_mode='ANSI'"],
    // Laravel.
    &[
        "SET NAMES 'utf8mb4' COLLATE 'utf8mb4_unicode_ci', SESSION sql_mode='ANSI';",
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;",
    ],
    // Rails.
    &["SET @@SESSION.sql_mode = CONCAT('ANSI', ''), @@SESSION.sql_auto_is_null = 0"],
    // Connector/J.
    &["SET character_set_results = NULL, autocommit=1, sql_mode='ANSI'"],
];

#[test]
fn settings_hold_on_both_connections_and_leave_reads_on_the_replica() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |config| config.read_own_writes = false);
    for preamble in PREAMBLES {
        let mut conn = connect(&front);
        for text in preamble {
            conn.query_drop(text).expect(text);
        }
        // Under ANSI, || is a concatenation and a double quote makes a name.
        let ask = r#"SELECT "name" || '-' || @@sql_mode FROM t.mark"#;
        for _ in 0..2 {
            assert!(one(&mut conn, ask).starts_with("second-REAL_AS_FLOAT"), "{preamble:?}");
            let locked = one(&mut conn, &format!("{ask} FOR UPDATE"));
            assert!(locked.starts_with("first-REAL_AS_FLOAT"), "{preamble:?}: {locked}");
        }
        conn.query_drop("SET sql_mode = '', group_concat_max_len = 4321").expect("sets");
        assert_eq!(one(&mut conn, "SELECT CONCAT(name, @@sql_mode) FROM t.mark"), "second");
        let both = "SELECT CONCAT(name, @@group_concat_max_len) FROM t.mark";
        assert_eq!(one(&mut conn, both), "first4321");
        conn.reset().expect("resets");
        assert_eq!(one(&mut conn, "SELECT @@sql_mode LIKE '%STRICT%'"), "1");
    }
}

#[test]
fn a_setting_that_is_refused_is_not_repeated() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |config| config.read_own_writes = false);
    let mut conn = connect(&front);
    assert_eq!(code(conn.query_drop("SET sql_mode = 'nosuch'")), 1231);
    assert_eq!(one(&mut conn, "SELECT name FROM t.mark FOR UPDATE"), "first");
    assert_eq!(mark(&mut conn), "second");
}

#[test]
fn more_settings_than_are_kept_pin_the_session_and_lose_none() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |config| config.read_own_writes = false);
    let mut conn = connect(&front);
    let grow = "SET sql_mode = CONCAT(@@sql_mode, ',NO_ZERO_DATE')";
    conn.query_drop("SET time_zone = '+03:00'").expect("sets");
    for _ in 0..40 {
        conn.query_drop(grow).expect("sets");
    }
    assert_eq!(one(&mut conn, "SELECT CONCAT(name, @@time_zone) FROM t.mark"), "first+03:00");
    conn.query_drop("SET time_zone = '+04:00'").expect("sets");
    assert_eq!(one(&mut conn, "SELECT CONCAT(name, @@time_zone) FROM t.mark"), "first+04:00");
}

#[test]
fn settings_follow_an_idle_session_to_a_new_source() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |config| config.read_own_writes = false);
    let mut conn = connect(&front);
    conn.query_drop("SET time_zone = '+05:00'").expect("sets");
    let ask = "SELECT CONCAT(name, @@time_zone) FROM t.mark FOR UPDATE";
    assert_eq!(one(&mut conn, ask), "first+05:00");
    front.route(&routes(Some(HostId::Second), [true, false]));
    assert_eq!(one(&mut conn, ask), "second+05:00");
}

/// Starts a statement on its own thread; returns once a server runs it.
fn start(pair: &Pair, mut conn: Conn, text: &'static str) -> thread::JoinHandle<(Conn, u16)> {
    let running = thread::spawn(move || {
        let code = conn.query_drop(text).map_or_else(|error| code::<()>(Err(error)), |()| 0);
        (conn, code)
    });
    let count = "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User sleep'";
    let since = Clock::now();
    while pair.sql(0, count) == "0" && pair.sql(1, count) == "0" {
        assert!(since.elapsed() < Duration::from_secs(10), "{text} does not run");
        thread::sleep(Duration::from_millis(10));
    }
    running
}

#[test]
fn kill_query_ends_the_statement_and_not_the_session() {
    let pair = Pair::own();
    let front = Front::start(pair.ports(), |_| {});
    let mut killer = connect(&front);
    for text in ["SELECT name FROM t.mark WHERE SLEEP(20) = 1", "DO SLEEP(21)"] {
        let conn = connect(&front);
        let kill = format!("KILL QUERY {}", conn.connection_id());
        let (running, since) = (start(&pair, conn, text), Clock::now());
        killer.query_drop(kill).expect("kills");
        let (mut conn, code) = running.join().expect("no panic");
        // A SLEEP that is interrupted may end as if it had slept, with 1 as its value.
        assert!(code == 1317 || code == 0, "{text}: {code}");
        assert!(since.elapsed() < Duration::from_secs(15), "{text}");
        assert!(mark(&mut conn).len() > 4, "the session goes on");
    }
}

#[test]
fn kill_ends_the_session_wherever_it_is() {
    let pair = Pair::own();
    let front = Front::start(pair.ports(), |_| {});
    let mut killer = connect(&front);
    let conn = connect(&front);
    let kill = format!("KILL {}", conn.connection_id());
    let running = start(&pair, conn, "DO SLEEP(22)");
    killer.query_drop(&kill).expect("kills");
    let (mut conn, code_seen) = running.join().expect("no panic");
    assert!(code_seen == 1317 || code_seen == 0, "{code_seen}");
    assert!(conn.query_drop("SELECT 1").is_err(), "its session is over");
    assert_eq!(code(killer.query_drop(&kill)), 1094, "and its number with it");
    // An idle one, with a connection and without.
    for is_used in [true, false] {
        let mut conn = connect(&front);
        if is_used {
            mark(&mut conn);
        }
        killer.query_drop(format!("KILL CONNECTION {}", conn.connection_id())).expect("kills");
        assert!(conn.query_drop("SELECT 1").is_err());
    }
    // By the old command, which is what mysqladmin sends.
    let mut conn = connect(&front);
    mark(&mut conn);
    let mut raw = RawClient::connect(&front);
    raw.send(&[&b"\x0c"[..], &conn.connection_id().to_le_bytes()].concat());
    assert!(raw.reply_contains(b"\xff\x47\x04"), "1095: not its user's session");
    assert_eq!(mark(&mut conn), "second");
    let own = killer.connection_id();
    assert_eq!(code(killer.query_drop(format!("KILL QUERY {own}"))), 1317);
    assert_eq!(mark(&mut killer), "second");
    assert_eq!(code(killer.query_drop("KILL 4000000000")), 1094);
    assert_eq!(code(killer.query_drop("KILL USER app")), 1094);
}

#[test]
fn a_held_statement_can_be_killed() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |_| {});
    let (mut conn, mut killer) = (connect(&front), connect(&front));
    front.route(&routes(None, [false, true]));
    let kill = format!("KILL QUERY {}", conn.connection_id());
    let held = thread::spawn(move || {
        let code = code(conn.query_drop("CREATE TABLE t.never (a INT)"));
        (conn, code)
    });
    front.wait("the statement is held", |status| status.held == 1);
    killer.query_drop(kill).expect("kills");
    let (mut conn, code) = held.join().expect("no panic");
    assert_eq!(code, 1317);
    assert_eq!(mark(&mut conn), "second");
}
