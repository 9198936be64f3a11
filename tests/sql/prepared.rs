//! Prepared statements in the binary protocol, on both connections of a session; local files.
//!
//! In: a pair and a splitter. Out: laws. Must not: know how a pair is made (`servers`).

use super::*;

fn front(pair: &Pair) -> Front {
    Front::start(pair.ports(), |config| config.read_own_writes = false)
}

fn run(conn: &mut Conn, statement: &mysql::Statement, number: i32) -> String {
    let row: Option<String> = conn.exec_first(statement, (number,)).expect("executes");
    row.expect("a row")
}

#[test]
fn a_prepared_read_runs_on_the_replica_and_in_a_transaction_on_the_source() {
    let pair = Pair::shared();
    let front = front(&pair);
    let mut conn = connect(&front);
    let read = conn.prep("SELECT CONCAT(name, ?) FROM t.mark").expect("prepares");
    let locked = conn.prep("SELECT CONCAT(name, ?) FROM t.mark FOR UPDATE").expect("prepares");
    for round in 0..3 {
        assert_eq!(run(&mut conn, &read, round), format!("second{round}"));
        assert_eq!(run(&mut conn, &locked, round), format!("first{round}"));
        conn.query_drop("BEGIN").expect("begins");
        assert_eq!(run(&mut conn, &read, round), format!("first{round}"));
        conn.query_drop("COMMIT").expect("commits");
        assert_eq!(mark(&mut conn), "second", "statements keep nothing on the source");
    }
    conn.close(read).expect("closes");
    assert_eq!(run(&mut conn, &locked, 7), "first7");
}

#[test]
fn a_prepared_statement_survives_its_server() {
    let pair = Pair::own();
    let front = front(&pair);
    let mut conn = connect(&front);
    let read = conn.prep("SELECT CONCAT(name, ?) FROM t.mark").expect("prepares");
    let write = conn.prep("INSERT INTO t.mark VALUES (?)").expect("prepares");
    assert_eq!(run(&mut conn, &read, 1), "second1");
    pair.kill(1);
    assert_eq!(run(&mut conn, &read, 2), "first2");
    conn.exec_drop(&write, ("x",)).expect("inserts");
    assert_eq!(pair.sql(0, "SELECT COUNT(*) FROM t.mark"), "2");
}

#[test]
fn prepared_writes_follow_an_idle_session_to_a_new_source() {
    let pair = Pair::own();
    let front = front(&pair);
    let mut conn = connect(&front);
    let write = conn.prep("INSERT INTO t.mark VALUES (?)").expect("prepares");
    conn.exec_drop(&write, ("x",)).expect("inserts");
    front.route(&routes(Some(HostId::Second), [true, false]));
    conn.exec_drop(&write, ("y",)).expect("inserts");
    assert_eq!(pair.sql(0, "SELECT COUNT(*) FROM t.mark"), "2");
    assert_eq!(pair.sql(1, "SELECT COUNT(*) FROM t.mark WHERE name = 'y'"), "1");
}

#[test]
fn long_data_and_many_statements_arrive() {
    let pair = Pair::shared();
    let front = front(&pair);
    let mut conn = connect(&front);
    conn.exec_drop("CREATE TABLE IF NOT EXISTS t.prepared (a INT, b LONGTEXT)", ()).expect("runs");
    for number in 0..10 {
        conn.exec_drop("INSERT INTO t.prepared VALUES (?, ?)", (number, "x".repeat(100_000)))
            .expect("inserts");
    }
    assert_eq!(pair.sql(0, "SELECT SUM(a), SUM(LENGTH(b)) FROM t.prepared"), "45\t1000000");
    // Larger than what the splitter keeps of a command, on a connection that knows its types.
    let big = "y".repeat(20_000_000);
    conn.exec_drop("INSERT INTO t.prepared VALUES (?, ?)", (100, &big)).expect("inserts");
    assert_eq!(pair.sql(0, "SELECT LENGTH(b) FROM t.prepared WHERE a = 100"), "20000000");
    for number in 0..200 {
        let text = format!("SELECT {number} + ?");
        let sum: Option<i32> = conn.exec_first(text, (1,)).expect("executes");
        assert_eq!(sum, Some(number + 1));
    }
}

#[test]
fn a_statement_whose_names_may_mean_something_else_is_not_prepared_again() {
    let pair = Pair::shared();
    let front = front(&pair);
    let mut conn = connect(&front);
    conn.query_drop("USE t").expect("uses");
    let read = conn.prep("SELECT CONCAT(name, ?) FROM mark").expect("prepares");
    assert_eq!(run(&mut conn, &read, 1), "second1");
    conn.query_drop("USE u").expect("uses");
    assert_eq!(run(&mut conn, &read, 2), "second2", "not second-u");
    conn.query_drop("BEGIN").expect("begins");
    let refused: Result<Option<String>, Error> = conn.exec_first(&read, (3,));
    assert_eq!(code(refused), 1615);
    conn.query_drop("ROLLBACK").expect("goes on");
    // Another text, because the driver keeps statements by theirs.
    let read = conn.prep("SELECT CONCAT(name, '-', ?) FROM mark").expect("prepares");
    assert_eq!(run(&mut conn, &read, 4), "second-u-4");
}

/// What the command line client says to LOAD DATA LOCAL of this many lines, and the rows then.
fn load(pair: &Pair, front: &Front, table: &str, lines: usize) -> (bool, String, String) {
    use std::fmt::Write as _;
    let path = std::env::temp_dir().join(format!("tandem-{table}-{}", std::process::id()));
    let mut text = String::new();
    for line in 0..lines {
        writeln!(text, "{line}").expect("writes");
    }
    std::fs::write(&path, text).expect("a file");
    pair.sql(0, &format!("CREATE TABLE t.{table} (a INT)"));
    let output = Command::new("mariadb")
        .args(["--no-defaults", "--local-infile=1", "-h127.0.0.1", "-uapp"])
        .arg(format!("-p{PASSWORD}"))
        .arg(format!("-P{}", front.address.port()))
        .arg("-N")
        .arg("-e")
        .arg(format!(
            "LOAD DATA LOCAL INFILE '{}' INTO TABLE t.{table}; SELECT name FROM t.mark",
            path.display()
        ))
        .output()
        .expect("the client runs");
    let _ = std::fs::remove_file(&path);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let count = pair.sql(0, &format!("SELECT COUNT(*), COALESCE(SUM(a), 0) FROM t.{table}"));
    (output.status.success(), said, count)
}

#[test]
fn a_local_file_is_loaded_where_that_is_allowed() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |config| {
        config.local_infile = true;
        config.read_own_writes = false;
    });
    connect(&front);
    let (_, said, count) = load(&pair, &front, "loaded", 500_000);
    assert_eq!(count, "500000\t124999750000", "{said}");
    assert!(said.contains("second"), "the session goes on: {said}");
    let (_, said, count) = load(&pair, &front, "loaded_nothing", 0);
    assert_eq!(count, "0\t0", "{said}");
    assert!(said.contains("second"), "the session goes on: {said}");
}

#[test]
fn a_local_file_is_not_loaded_by_default() {
    let pair = Pair::shared();
    let front = front(&pair);
    connect(&front);
    let (is_done, said, count) = load(&pair, &front, "not_loaded", 10);
    assert!(!is_done && count == "0\t0", "{said}");
}
