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
    let front = Front::start(pair.ports(), |config| config.lag_limit = Duration::ZERO);
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
    let front = Front::start(pair.ports(), |config| config.lag_limit = Duration::ZERO);
    let mut conn = connect(&front);
    assert_eq!(code(conn.query_drop("SET sql_mode = 'nosuch'")), 1231);
    assert_eq!(one(&mut conn, "SELECT name FROM t.mark FOR UPDATE"), "first");
    assert_eq!(mark(&mut conn), "second");
}

#[test]
fn more_settings_than_are_kept_pin_the_session_and_lose_none() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |config| config.lag_limit = Duration::ZERO);
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
    let front = Front::start(pair.ports(), |config| config.lag_limit = Duration::ZERO);
    let mut conn = connect(&front);
    conn.query_drop("SET time_zone = '+05:00'").expect("sets");
    let ask = "SELECT CONCAT(name, @@time_zone) FROM t.mark FOR UPDATE";
    assert_eq!(one(&mut conn, ask), "first+05:00");
    front.route(&routes(Some(HostId::Second), [true, false]));
    assert_eq!(one(&mut conn, ask), "second+05:00");
}
