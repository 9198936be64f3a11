//! Traps 24 to 34 of facts/sql.md section 3: transactions, on every kind of server.
//!
//! In: scripts of `laws`. Out: laws. Must not: know how a pair is made (`servers`).

use super::laws::{Kind, Talk, law, on_each};
use super::raw::{CLOSED, error_code, value};
use super::*;

#[test]
fn trap_24_a_transaction_stays_on_the_source_until_its_commit() {
    for begin in ["BEGIN", "BEGIN WORK", "START TRANSACTION"] {
        law(&format!(
            "
            R SELECT name FROM mark
            W {begin}
            W SELECT name FROM mark
            W UPDATE t SET b = 'x' WHERE a = 1
            W SELECT name FROM mark
            W COMMIT
            R SELECT name FROM mark
            "
        ));
    }
    law("
        W START TRANSACTION WITH CONSISTENT SNAPSHOT
        W SELECT name FROM mark
        W ROLLBACK
        R SELECT name FROM mark
        W START TRANSACTION READ WRITE
        W SELECT name FROM mark
        W COMMIT WORK
        R SELECT name FROM mark
    ");
}

#[test]
fn trap_25_a_read_only_transaction_is_on_one_connection() {
    law("
        W START TRANSACTION READ ONLY
        W SELECT name FROM mark
        W UPDATE t SET b = 'x' WHERE a = 1
        W SELECT name FROM mark
        W COMMIT
        R SELECT name FROM mark
    ");
}

#[test]
fn trap_26_without_autocommit_everything_is_the_sources() {
    for (off, on) in [
        ("SET autocommit=0", "SET autocommit=1"),
        ("SET autocommit=OFF", "SET autocommit=ON"),
        ("SET autocommit='off'", "SET autocommit='on'"),
        ("SET autocommit=false", "SET autocommit=true"),
        ("SET @@autocommit:=0", "SET @@autocommit:=1"),
        ("SET SESSION autocommit=0", "SET SESSION autocommit = DEFAULT"),
        ("SET @@session.autocommit=0", "SET LOCAL autocommit=1"),
    ] {
        law(&format!(
            "
            R SELECT name FROM mark
            W {off}
            W SELECT name FROM mark
            W SELECT 1
            W COMMIT
            W SELECT name FROM mark
            B {on}
            R SELECT name FROM mark
            "
        ));
    }
    law("
        W SET SESSION autocommit=0, sql_mode=''
        W SELECT name FROM mark
        W COMMIT
        W SELECT name FROM mark
        -
        W SET autocommit=1-1
        W SELECT name FROM mark
    ");
}

#[test]
fn trap_27_what_commits_by_itself_ends_the_transaction() {
    law("
        W BEGIN
        W INSERT INTO log VALUES (1)
        W CREATE TABLE x (a INT)
        R SELECT name FROM mark
        W BEGIN
        W INSERT INTO log VALUES (2)
        W START TRANSACTION
        W SELECT name FROM mark
        W ROLLBACK
        R SELECT name FROM mark
        W BEGIN
        W SET autocommit=0
        W SELECT name FROM mark
        W SET @@autocommit=1
        R SELECT name FROM mark
        W BEGIN
        W INSERT INTO log VALUES (3)
        W LOCK TABLES mark READ
        W SELECT name FROM mark
        W UNLOCK TABLES
    ");
}

#[test]
fn trap_28_an_error_leaves_the_transaction_as_it_was() {
    law("
        W BEGIN
        W SELEKT 1
        W SELECT name FROM mark
        W SELECT * FROM nosuch
        W SELECT name FROM mark
        W COMMIT
        R SELECT name FROM mark
    ");
    // A deadlock: the server rolls one of the two back and tells only by the error.
    on_each(&Kind::ALL, |watched| {
        let front = watched.front(|_| {});
        let (mut one, mut two) = (Talk::new(watched, &front), Talk::new(watched, &front));
        for (talk, row) in [(&mut one, 1), (&mut two, 2)] {
            assert_eq!(value(&talk.through.ask("BEGIN")), "OK");
            let text = format!("UPDATE t SET b = 'd' WHERE a = {row}");
            assert_eq!(value(&talk.through.ask(text)), "OK");
        }
        one.through.send_query(b"UPDATE t SET b = 'd' WHERE a = 2");
        thread::sleep(Duration::from_millis(300));
        let second = value(&two.through.ask("UPDATE t SET b = 'd' WHERE a = 1"));
        let first = value(&one.through.results());
        let name = watched.kind.name();
        assert!([&first, &second].into_iter().any(|it| it == "error 1213"), "{first} {second}");
        for talk in [&mut one, &mut two] {
            assert_eq!(talk.through.value("SELECT name FROM mark"), "first", "{name}");
            assert_eq!(value(&talk.through.ask("ROLLBACK")), "OK");
            assert_eq!(talk.through.value("SELECT name FROM mark"), "second", "{name}");
        }
    });
}

#[test]
fn trap_29_an_error_on_the_replica_pins_nothing_there() {
    law("
        R SELECT * FROM nosuch
        W INSERT INTO log VALUES (1)
        R SELECT * FROM nosuch
        W DELETE FROM log
        R SELECT name FROM mark
    ");
}

#[test]
fn trap_30_savepoints_and_chains_stay_on_the_source() {
    law("
        W BEGIN
        W SAVEPOINT x
        W INSERT INTO log VALUES (1)
        W ROLLBACK TO x
        W ROLLBACK TO SAVEPOINT x
        W RELEASE SAVEPOINT x
        W SELECT name FROM mark
        W COMMIT AND CHAIN
        W SELECT name FROM mark
        W ROLLBACK AND CHAIN
        W SELECT name FROM mark
        W COMMIT AND NO CHAIN NO RELEASE
        R SELECT name FROM mark
        W SET completion_type = 1
        W BEGIN
        W COMMIT
        W SELECT name FROM mark
    ");
}

#[test]
fn trap_30_a_release_closes_the_client() {
    on_each(&Kind::ALL, |watched| {
        for texts in [&["COMMIT RELEASE"][..], &["ROLLBACK WORK AND NO CHAIN RELEASE"]] {
            let front = watched.front(|_| {});
            let mut client = watched.log_in(front.address.port(), "lawa");
            assert_eq!(client.value("SELECT name FROM mark"), "second");
            for text in texts {
                assert_eq!(value(&client.ask(text)), "OK");
            }
            let name = watched.kind.name();
            assert_eq!(client.packet(), CLOSED, "{name}: as the server does it");
            front.wait("nothing of it is used again", |status| status.sessions == 0);
        }
        // By its completion type the server closes without being told to in the statement.
        let front = watched.front(|_| {});
        let mut client = watched.log_in(front.address.port(), "lawa");
        for text in ["SET completion_type = 2", "BEGIN", "COMMIT"] {
            assert_eq!(value(&client.ask(text)), "OK", "{text}");
        }
        thread::sleep(Duration::from_millis(100));
        let answer = client.ask("SELECT 1");
        assert!(answer == [CLOSED] || error_code(&answer) == Some(1053), "{}", value(&answer));
        assert!(client.is_closed());
    });
}

#[test]
fn trap_31_an_xa_transaction_keeps_its_connection_and_dies_with_it() {
    law("
        W XA START 'lawa'
        W INSERT INTO log VALUES (1)
        W SELECT name FROM mark
        W XA END 'lawa'
        W XA PREPARE 'lawa'
        W XA COMMIT 'lawa'
        W SELECT name FROM mark
    ");
    on_each(&Kind::ALL, |watched| {
        let front = watched.front(|_| {});
        // Without a database, so that no replica is looked at and pooled.
        let mut client = watched.log_in(front.address.port(), "");
        for text in
            ["XA START 'y'", "INSERT INTO lawa.log VALUES (2)", "XA END 'y'", "XA PREPARE 'y'"]
        {
            assert_eq!(value(&client.ask(text)), "OK", "{text}");
        }
        drop(client);
        front.wait("the session ends", |status| status.sessions == 0);
        assert_eq!(front.status().pooled, 0, "nobody gets that connection");
        let mut other = watched.log_in(front.address.port(), "lawa");
        let told = value(&other.ask("XA RECOVER"));
        if watched.kind == Kind::MySql56 {
            assert_eq!(told, "no row", "5.6 rolls back what it prepared");
        } else {
            let since = Clock::now();
            while value(&other.ask("XA ROLLBACK 'y'")) != "OK" {
                assert!(since.elapsed() < Duration::from_secs(5), "the old connection holds it");
                thread::sleep(Duration::from_millis(50));
            }
        }
    });
}

#[test]
fn trap_32_the_next_transactions_isolation_is_the_sources() {
    law("
        W SET TRANSACTION ISOLATION LEVEL READ COMMITTED
        W BEGIN
        W SELECT name FROM mark
        W COMMIT
        -
        W SET TRANSACTION READ ONLY
        W BEGIN
        W INSERT INTO log VALUES (1)
        W ROLLBACK
        W INSERT INTO log VALUES (1)
        -
        W[maria,56] SET @@tx_isolation = 'SERIALIZABLE'
        W[97] SET @@transaction_isolation = 'SERIALIZABLE'
        W SELECT name FROM mark
    ");
}

#[test]
fn trap_33_serializable_reads_lock_and_are_the_sources() {
    law("
        W SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE
        W SELECT name FROM mark
        -
        B SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED
        R SELECT name FROM mark
        -
        W[maria,56] SET SESSION tx_isolation = 'SERIALIZABLE'
        W[97] SET SESSION transaction_isolation = 'SERIALIZABLE'
        W SELECT name FROM mark
    ");
}
