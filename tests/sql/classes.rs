//! Traps 13 to 23 of facts/sql.md section 3: what a statement does, on every kind of server.
//!
//! In: scripts of `laws`. Out: laws. Must not: know how a pair is made (`servers`).

use super::laws::{Kind, Step, Talk, law, on_each};
use super::raw::{Hello, Raw, value};

#[test]
fn trap_13_a_common_table_expression_is_what_its_verb_is() {
    law("
        R[maria,97] WITH x AS (SELECT name FROM mark) SELECT * FROM x
        R[maria,97] WITH RECURSIVE n (i) AS (SELECT 1 UNION SELECT 1 FROM n) SELECT i FROM n
        W WITH x AS (SELECT 1 AS a) DELETE FROM t WHERE a IN (SELECT a FROM x)
        W WITH x AS (SELECT 2 AS a) UPDATE t SET b = 'x' WHERE a IN (SELECT a FROM x)
        W WITH x AS (SELECT 1 AS a) INSERT INTO t (b) SELECT a FROM x
        W WITH x AS (SELECT 1 AS a) REPLACE INTO t (b) SELECT a FROM x
        W WITH x AS (SELECT 1 AS a) SELECT * FROM t FOR UPDATE
        W INSERT INTO t (b) WITH x AS (SELECT 'w') SELECT * FROM x
        R SELECT name FROM mark
    ");
}

#[test]
fn trap_14_into_goes_to_the_source() {
    law("
        W SELECT a FROM t INTO OUTFILE '/nosuch/x'
        W SELECT a FROM t LIMIT 1 INTO DUMPFILE '/nosuch/x'
        W SELECT a INTO nosuch FROM t
        R SELECT name FROM mark
        W SELECT a FROM t LIMIT 1 INTO @v
        W SELECT @v
        W SELECT name FROM mark
    ");
}

#[test]
fn trap_15_a_read_that_locks_goes_to_the_source() {
    law("
        W SELECT * FROM t FOR UPDATE
        W SELECT * FROM t LOCK IN SHARE MODE
        W[97] SELECT * FROM t FOR SHARE
        W[97] SELECT * FROM t FOR UPDATE OF t NOWAIT
        W[97] SELECT * FROM t FOR SHARE SKIP LOCKED
        W[maria] SELECT * FROM t FOR UPDATE WAIT 1
        W[maria] SELECT * FROM t FOR UPDATE SKIP LOCKED
        W SELECT * FROM (SELECT * FROM t FOR UPDATE) AS x
        W SELECT (SELECT a FROM t LIMIT 1 FOR UPDATE)
        R SELECT name FROM mark
    ");
}

#[test]
fn trap_16_functions_that_are_not_known_go_to_the_source() {
    law("
        W VALUES (1)
        W VALUES ROW(1)
        W TABLE t
        W DO 1
        R SELECT name FROM mark
        W DO f()
        W SELECT name FROM mark
        -
        W SELECT f()
        W SELECT name FROM mark
        -
        W SELECT lawa.f()
        -
        W SELECT `f`()
        -
        W SELECT lawa . f ()
        -
        W SELECT a FROM t WHERE f() = 1
        -
        W SELECT a FROM t ORDER BY f()
        -
        W CALL p()
        W SELECT name FROM mark
    ");
}

#[test]
fn trap_17_sequences_and_waits_are_the_sources_and_sleep_is_a_read() {
    law("
        W[maria] SELECT NEXTVAL(s)
        W[maria] SELECT NEXT VALUE FOR s
        W[maria] SELECT SETVAL(s, 100)
        W[maria] SELECT LASTVAL(s)
        W[maria] SELECT PREVIOUS VALUE FOR s
        W[maria] SELECT s.nextval
        R SELECT SLEEP(0)
        R SELECT BENCHMARK(1, 1)
        R~ SELECT UUID(), RAND(), NOW()
        W SELECT LOAD_FILE('/nosuch')
        W SELECT MASTER_POS_WAIT('nosuch', 4, 1)
        W~ SELECT UUID_SHORT()
        R SELECT name FROM mark
    ");
}

#[test]
fn trap_18_a_view_that_writes_is_refused_by_the_replica_and_run_by_the_source() {
    on_each(&Kind::ALL, |watched| {
        for host in [0, 1] {
            watched.pair.sql(
                host,
                "USE lawa; DROP FUNCTION g;\nDELIMITER $\n\
                 CREATE FUNCTION g() RETURNS INT MODIFIES SQL DATA \
                 BEGIN INSERT INTO lawa.log VALUES (1); RETURN 7; END$\n",
            );
        }
        // A replica is read-only to those who may not change that.
        let limits = "GRANT SELECT, EXECUTE, INSERT ON *.* TO other@'127.0.0.1'; \
             SET GLOBAL read_only = ";
        watched.pair.sql(1, &format!("{limits} 1"));
        watched.pair.sql(0, &format!("{limits} 0"));
        let front = watched.front(|_| {});
        let hello = Hello { database: "lawa", ..Hello::default() };
        let mut client = Raw::log_in(front.address.port(), hello);
        assert_eq!(client.value("SELECT name FROM mark"), "second");
        let (retried, name) = (front.status().retried, watched.kind.name());
        assert_eq!(client.value("SELECT g FROM v WHERE a = 1"), "7", "{name}");
        assert_eq!(front.status().retried, retried + 1, "{name}");
        assert_eq!(watched.pair.sql(0, "SELECT COUNT(*) FROM lawa.log"), "1", "{name}");
        assert_eq!(watched.pair.sql(1, "SELECT COUNT(*) FROM lawa.log"), "0", "{name}");
        watched.pair.sql(1, "SET GLOBAL read_only = 0");
    });
}

#[test]
fn trap_19_explaining_a_read_is_a_read() {
    law("
        R EXPLAIN SELECT * FROM t
        R DESC t
        R DESCRIBE t b
        R EXPLAIN lawa.t
        W EXPLAIN UPDATE t SET b = 'x'
        W DESC DELETE FROM t
        W DESCRIBE INSERT INTO t SET b = 'x'
        W EXPLAIN REPLACE INTO t SET b = 'x'
        W~[97] EXPLAIN ANALYZE SELECT * FROM t
        W~[97] EXPLAIN FORMAT=JSON SELECT * FROM t
        W~[maria] ANALYZE SELECT * FROM t
        W~[maria] ANALYZE FORMAT=JSON SELECT * FROM t
        W~[maria] ANALYZE UPDATE t SET b = 'x' WHERE a = 1
        W~[maria] ANALYZE DELETE FROM t WHERE a = 1
        W EXPLAIN FOR CONNECTION 999999
        W ANALYZE TABLE t
        W EXPLAIN SELECT * FROM t FOR UPDATE
        R SELECT name FROM mark
        W EXPLAIN SELECT f()
    ");
}

#[test]
fn trap_20_everything_that_changes_data_or_tables_goes_to_the_source() {
    law("
        W[maria] INSERT INTO t (b) VALUES ('x') RETURNING a
        W[maria] REPLACE INTO t (a, b) VALUES (1, 'x') RETURNING b
        W[maria] DELETE FROM t WHERE a = 1 RETURNING b
        W UPDATE t SET b = 'y' WHERE a = 2
        W INSERT INTO t SET b = 'z'
        W INSERT IGNORE INTO t (a) VALUES (2)
        W INSERT INTO t (a, b) VALUES (2, 'u') ON DUPLICATE KEY UPDATE b = 'v'
        W LOAD DATA INFILE '/nosuch/x' INTO TABLE t
        W LOAD XML INFILE '/nosuch/x' INTO TABLE t
        W IMPORT TABLE FROM 'nosuch'
        W TRUNCATE TABLE log
        W CREATE TABLE x (a INT)
        W CREATE TABLE y LIKE x
        W CREATE TABLE z SELECT 1 AS a
        W ALTER TABLE x ADD b INT
        W CREATE INDEX i ON x (a)
        W DROP INDEX i ON x
        W RENAME TABLE x TO w
        W DROP TABLE w, y, z
        W CREATE VIEW vv AS SELECT 1
        W DROP VIEW vv
        W OPTIMIZE TABLE t
        W CHECK TABLE t
        W REPAIR TABLE t
        W GRANT SELECT ON lawa.* TO other@'127.0.0.1'
        R SELECT name FROM mark
    ");
}

#[test]
fn trap_21_show_is_a_read_where_both_hosts_say_the_same() {
    law("
        R SHOW TABLES
        R SHOW COLUMNS FROM t
        R SHOW FULL COLUMNS FROM t
        R SHOW CREATE TABLE t
        R~ SHOW INDEX FROM t
        R SELECT * FROM nosuch
        R SHOW ERRORS
        R SHOW WARNINGS
        R SHOW COUNT(*) ERRORS
        R SELECT 1 / 0
        R SELECT @@warning_count, @@error_count
        W INSERT IGNORE INTO t (a) VALUES (1)
        W SHOW WARNINGS
        W SELECT @@warning_count
        R SELECT name FROM mark
        W[maria,56] SHOW MASTER STATUS
        W[97] SHOW BINARY LOG STATUS
        W SHOW BINLOG EVENTS
        W~ SHOW PROCESSLIST
        W~ SHOW FULL PROCESSLIST
        W~ SHOW ENGINE INNODB STATUS
        W~ SHOW STATUS LIKE 'Uptime'
        W~ SHOW SESSION STATUS LIKE 'Uptime'
        W SHOW VARIABLES LIKE 'sql_mode'
        W[maria,56] SHOW SLAVE STATUS
        W[97] SHOW REPLICA STATUS
        R SELECT name FROM mark
        R SELECT * FROM nosuch
        W[maria] GET DIAGNOSTICS @n = NUMBER
    ");
}

#[test]
fn trap_22_compounds_and_immediate_statements_go_to_the_source() {
    law("
        R HELP 'nosuch'
        R CHECKSUM TABLE mark
        W[maria] BEGIN NOT ATOMIC INSERT INTO log VALUES (1); END
        -
        W[maria] EXECUTE IMMEDIATE 'INSERT INTO log VALUES (2)'
        -
        W[maria] SET STATEMENT max_statement_time = 10 FOR SELECT name FROM mark
        -
        W[maria] SET STATEMENT max_statement_time = 10 FOR UPDATE t SET b = 'x' WHERE a = 1
    ");
}

#[test]
fn trap_23_an_unknown_word_gets_the_servers_own_error() {
    law("
        W SELEKT 1
        W ROUTER SET x = 1
        W 1
        W 'SELECT 1'
        R SELECT name FROM mark
    ");
}

/// Many statements at once are one, whatever the first of them is.
#[test]
fn a_multi_statement_is_as_strict_as_its_strictest() {
    on_each(&Kind::ALL, |watched| {
        let front = watched.front(|_| {});
        let mut talk = Talk::new(watched, &front);
        let step = Step { place: b'W', is_compared: true };
        let text = b"SELECT name FROM mark; INSERT INTO log VALUES (5); SELECT nosuch; SELECT 2";
        talk.step(watched, step, text).expect("the source, and its answers");
        assert_eq!(watched.pair.sql(0, "SELECT a FROM lawa.log"), "5");
        assert_eq!(value(&talk.through.ask("SELECT name FROM mark")), "first", "pinned");
    });
}
