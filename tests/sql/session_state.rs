//! Traps 35 to 49 of facts/sql.md section 3: what a session is, on every kind of server.
//!
//! In: scripts of `laws`. Out: laws. Must not: know how a pair is made (`servers`).

use super::laws::{Kind, Talk, Watched, law, on_each};
use super::raw::{Hello, Raw, error_code, value};
use super::*;

#[test]
fn trap_35_both_connections_have_the_character_set_of_the_client() {
    let mut script = String::new();
    for text in [
        "SET NAMES latin1",
        "SET NAMES utf8 COLLATE utf8_bin",
        "SET CHARACTER SET latin1",
        "SET CHARSET latin1",
        "SET CHARACTER SET DEFAULT",
        "SET NAMES DEFAULT",
        "SET character_set_results=NULL",
        "SET NAMES nosuch",
        "SET NAMES utf8 COLLATE latin1_bin",
    ] {
        let ask = "SELECT @@character_set_client, @@character_set_connection, \
                   @@character_set_results, @@collation_connection, 'x'";
        script += &format!("-\nB {text}\nR {ask}\nW {ask} FROM mark FOR UPDATE\n");
    }
    script += "-\nB[97] SET NAMES utf8mb4 COLLATE utf8mb4_0900_as_ci\n\
               R[97] SELECT @@collation_connection\n";
    law(script.trim_start_matches("-\n"));
}

/// All 256 ids that a log-in can name, twice, so that the second time a connection is reused.
#[test]
fn trap_35_every_collation_works_as_the_server_itself_does() {
    on_each(&Kind::ALL, |watched| {
        let front = watched.front(|_| {});
        let [source, _] = watched.pair.ports();
        let ask = "SELECT CONCAT_WS(' ', @@collation_connection, @@character_set_client, \
                   @@character_set_results) FROM mark";
        for id in 0..=255 {
            let open = |port| {
                let hello =
                    Hello { user: "law", database: "lawa", collation: id, ..Hello::default() };
                Raw::try_log_in(port, hello)
            };
            let expected = open(source).map_or_else(|_| "refused".into(), |mut it| it.value(ask));
            for _ in 0..2 {
                let Ok(mut client) = open(front.address.port()) else {
                    assert_eq!(expected, "refused", "{id} on {}", watched.kind.name());
                    continue;
                };
                let answers = [client.value(ask), client.value(&format!("{ask} FOR UPDATE"))];
                assert_eq!(answers, [&*expected, &*expected], "{id} on {}", watched.kind.name());
            }
        }
    });
}

#[test]
fn trap_36_both_connections_are_in_the_same_database() {
    on_each(&Kind::ALL, |watched| {
        for host in [0, 1] {
            watched.pair.sql(host, "DROP DATABASE IF EXISTS `law``c - d`");
            watched.pair.sql(host, "CREATE DATABASE `law``c - d`");
        }
    });
    law("
        B USE nosuch
        R SELECT DATABASE()
        W SELECT DATABASE() FROM mark FOR UPDATE
        B USE `law``c - d`
        R SELECT DATABASE()
        W SELECT DATABASE() FROM lawa.mark FOR UPDATE
        B USE lawa;
        R SELECT name FROM mark
        W SELECT name FROM mark FOR UPDATE
        W DROP DATABASE lawa
        W SELECT DATABASE()
        W SELECT * FROM mark
    ");
    on_each(&Kind::ALL, |watched| {
        let front = watched.front(|_| {});
        let mut client = watched.log_in(front.address.port(), "");
        assert_eq!(client.value("SELECT DATABASE()"), "NULL");
        client.send(b"\x02lawa");
        assert_eq!(client.packet().1[0], 0, "COM_INIT_DB");
        assert_eq!(client.value("SELECT name FROM mark"), "second");
        assert_eq!(client.value("SELECT name FROM mark FOR UPDATE"), "first");
        client.send(b"\x02nosuch");
        assert_eq!(error_code(&[client.packet()]), Some(1049));
        assert_eq!(client.value("SELECT name FROM mark FOR UPDATE"), "first");
        let hello = Hello { user: "law", database: "nosuch", ..Hello::default() };
        let refused = Raw::try_log_in(front.address.port(), hello).err().expect("is refused");
        assert_eq!(error_code(&[refused]), Some(1049));
    });
}

#[test]
fn trap_37_settings_hold_on_both_connections() {
    law("
        B SET sql_mode = 'ANSI'
        R SELECT 'a' || 'b'
        W SELECT 'a' || 'b' FROM mark FOR UPDATE
        B SET time_zone = '+03:00'
        R SELECT FROM_UNIXTIME(0)
        W SELECT FROM_UNIXTIME(0) FROM mark FOR UPDATE
        B SET sql_select_limit = 2
        R SELECT a FROM t
        W SELECT a FROM t FOR UPDATE
        B SET group_concat_max_len = 4
        R SELECT GROUP_CONCAT(b) FROM t
        W SELECT GROUP_CONCAT(b) FROM t FOR UPDATE
        B SET timestamp = 86400
        R SELECT NOW()
        W SELECT NOW() FROM mark FOR UPDATE
        B SET lc_time_names = 'de_DE'
        R SELECT DATE_FORMAT('2020-01-01', '%W %M')
        W SELECT DATE_FORMAT('2020-01-01', '%W %M') FROM mark FOR UPDATE
        B SET foreign_key_checks = 0, unique_checks = 0
        W SELECT @@foreign_key_checks, @@unique_checks
        B[97] SET max_execution_time = 60000
        B[maria] SET max_statement_time = 60
        B SET div_precision_increment = 2
        R SELECT 1 / 3
        B SET sql_mode = DEFAULT, time_zone = DEFAULT
        R SELECT FROM_UNIXTIME(0)
        B SET sql_mode = 'nosuch'
        R SELECT name FROM mark
    ");
}

#[test]
fn trap_38_a_mixed_list_is_taken_whole() {
    law("
        W SET GLOBAL max_connect_errors = 100
        W SELECT name FROM mark
        -
        W SET @a = 1, @@session.sql_mode = '', @b := @a + 1
        W SELECT @a, @b, @@sql_mode
        -
        W[97] SET PERSIST max_connect_errors = 100
        W[97] RESET PERSIST
        -
        W SET PASSWORD = ''
        -
        W[maria,97] SET ROLE NONE
        W[maria,97] SELECT CURRENT_ROLE()
        -
        W[97] SET DEFAULT ROLE NONE TO other@'127.0.0.1'
    ");
}

#[test]
fn trap_39_user_variables_keep_the_session_on_the_source() {
    law("
        R SELECT 'x@y'
        R SELECT name AS `x@y` FROM mark
        W GRANT SELECT ON lawa.* TO other@'127.0.0.1'
        W REVOKE SELECT ON lawa.* FROM other@'127.0.0.1'
        W CREATE USER lawa@localhost
        W DROP USER lawa@localhost
        W SHOW GRANTS FOR other@'127.0.0.1'
        R SELECT name FROM mark
        W SET @a = 5
        W SELECT @a
        W SELECT name FROM mark
        -
        W SELECT @c := COALESCE(@c, 0) + 1
        W SELECT @c := COALESCE(@c, 0) + 1
        -
        W SELECT@a
        W SELECT name FROM mark
    ");
}

#[test]
fn trap_40_temporary_tables_keep_the_session_on_the_source() {
    law("
        W CREATE TEMPORARY TABLE tt (a INT)
        W INSERT INTO tt VALUES (5)
        W SELECT * FROM tt
        W DROP TEMPORARY TABLE tt
        -
        W CREATE PROCEDURE pt() CREATE TEMPORARY TABLE /*!50000 tp */ (a INT)
        -
        W CALL pt()
        W SELECT * FROM tp
        -
        W CREATE /*!50000 TEMPORARY */ TABLE te (a INT)
        W SELECT * FROM te
    ");
}

/// After what it did, a session's connection leaves nothing to the next client's.
fn leaves_nothing(texts: &[&str], check: impl Fn(&mut Raw) -> String, expected: &str) {
    on_each(&Kind::ALL, |watched| {
        let front = watched.front(|_| {});
        let mut client = watched.log_in(front.address.port(), "lawa");
        for text in texts {
            let answer = client.ask(text);
            let is_known = !matches!(error_code(&answer), Some(1064 | 1305));
            assert!(error_code(&answer).is_none() || !is_known, "{text}: {}", value(&answer));
        }
        assert_eq!(client.value("SELECT name FROM mark"), "first", "{}", watched.kind.name());
        drop(client);
        front.wait("the session ends", |status| status.sessions == 0);
        thread::sleep(Duration::from_millis(100));
        for _ in 0..2 {
            let mut other = watched.log_in(front.address.port(), "lawa");
            assert_eq!(check(&mut other), expected, "{}", watched.kind.name());
        }
    });
}

fn can_write(client: &mut Raw) -> String {
    client.value("SET lock_wait_timeout = 3");
    value(&client.ask("INSERT INTO log VALUES (1)"))
}

#[test]
fn trap_41_locks_of_tables_pin_and_end_with_the_session() {
    leaves_nothing(&["LOCK TABLES log WRITE, mark WRITE"], can_write, "OK");
    leaves_nothing(&["FLUSH TABLES WITH READ LOCK"], can_write, "OK");
    let create = |client: &mut Raw| {
        client.value("SET lock_wait_timeout = 3");
        client.value("DROP TABLE IF EXISTS locked");
        client.value("CREATE TABLE locked (a INT)")
    };
    leaves_nothing(&["LOCK INSTANCE FOR BACKUP", "BACKUP LOCK log", "SET @a = 1"], create, "OK");
}

#[test]
fn trap_42_named_locks_pin_and_end_with_the_session() {
    // A server that is told to forget a session does so in its own time, as with `can_write`.
    let lock = |client: &mut Raw| client.value("SELECT GET_LOCK('trap', 3)");
    leaves_nothing(&["SELECT GET_LOCK('trap', 0)"], lock, "1");
    leaves_nothing(&["DO GET_LOCK('trap', 0)"], lock, "1");
    leaves_nothing(&["SELECT a FROM t WHERE GET_LOCK('trap', 0) = 1 LIMIT 1"], lock, "1");
    law("
        W SELECT IS_USED_LOCK('trap')
        -
        W SELECT IS_FREE_LOCK('trap')
        -
        W[maria,97] SELECT RELEASE_ALL_LOCKS()
        -
        W DO RELEASE_LOCK('trap')
        W SELECT name FROM mark
    ");
}

#[test]
fn trap_43_prepared_text_pins_and_hides_nothing() {
    law("
        W PREPARE p FROM 'SELECT name FROM mark WHERE 1 = ?'
        W SET @a = 1
        W EXECUTE p USING @a
        W DEALLOCATE PREPARE p
        -
        W PREPARE hide FROM 'SET autocommit=0'
        W EXECUTE hide
        W DEALLOCATE PREPARE hide
        W SELECT name FROM mark
        W INSERT INTO log VALUES (1)
        W ROLLBACK
        W SELECT * FROM log
    ");
}

#[test]
fn trap_44_handlers_pin() {
    law("
        W HANDLER t OPEN
        W HANDLER t READ FIRST
        W SELECT name FROM mark
        W HANDLER t READ NEXT
        W HANDLER t CLOSE
    ");
}

#[test]
fn trap_45_the_last_insert_id_is_the_sources() {
    law("
        W INSERT INTO t (b) VALUES ('x')
        R SELECT 1
        R SELECT 2
        W SELECT LAST_INSERT_ID() AS id
        W SELECT @@identity, @@last_insert_id
        W INSERT INTO log VALUES (LAST_INSERT_ID())
        W SELECT LAST_INSERT_ID(77)
        R SELECT name FROM mark
        W SELECT LAST_INSERT_ID()
    ");
}

#[test]
fn trap_46_what_the_last_statement_did_is_asked_where_it_ran() {
    law("
        W UPDATE t SET b = 'x'
        W SELECT ROW_COUNT()
        R SELECT SQL_CALC_FOUND_ROWS a FROM t LIMIT 1
        R SELECT FOUND_ROWS()
        R SELECT SQL_CALC_FOUND_ROWS a FROM t LIMIT 1
        W DELETE FROM t WHERE a = 1
        W SELECT ROW_COUNT()
    ");
}

#[test]
fn trap_47_a_session_is_known_by_the_number_in_its_greeting() {
    on_each(&Kind::ALL, |watched| {
        let front = watched.front(|_| {});
        let mut client = watched.log_in(front.address.port(), "lawa");
        let mut killer = watched.log_in(front.address.port(), "lawa");
        let (own, name) = (client.thread.to_string(), watched.kind.name());
        for text in [
            "SELECT CONNECTION_ID()",
            "SELECT connection_id() AS id",
            "SELECT CONCAT(CONNECTION_ID( ))",
            "SELECT CONNECTION_ID() FROM mark FOR UPDATE",
            "BEGIN",
            "SELECT 0 + CONNECTION_ID();",
        ] {
            let expected = if text == "BEGIN" { "OK" } else { &own };
            assert_eq!(client.value(text), expected, "{text} on {name}");
        }
        let (id, _) = client.prepare(b"SELECT CONCAT(CONNECTION_ID())").expect("prepares");
        let answer = client.execute(id, 0, b"");
        let row = &answer.iter().find(|(number, _)| *number == 4).expect("a row").1;
        assert!(row.ends_with(own.as_bytes()), "{answer:?}");
        // A number on the server that is nobody's here is nobody's.
        let server = watched.pair.sql(0, "SELECT CONNECTION_ID()");
        for text in ["KILL {}", "SELECT 1; KILL {}", "/*!KILL {}*/", "KILL QUERY {}; SELECT 1"] {
            let text = text.replace("{}", &format!("{server}0000"));
            assert_eq!(value(&killer.ask(text)), "error 1094", "{name}");
        }
        assert_eq!(client.value("SELECT name FROM mark"), "first", "still in its transaction");
        assert_eq!(value(&killer.ask(format!("KILL {own}"))), "OK");
        assert!(client.is_closed());
        assert_eq!(killer.value("SELECT name FROM mark"), "second");
    });
}

/// What a session left on its connections, asked by the next one.
fn leak(watched: &Watched, port: u16) -> String {
    let mut client = watched.log_in(port, "lawa");
    let texts = [
        "SELECT CONCAT_WS(' ', COALESCE(@leak, 'clean'), @@sql_mode = @@global.sql_mode, \
         @@autocommit + 0, DATABASE())",
        "SELECT name FROM mark",
        "SELECT COUNT(*) FROM leaked",
    ];
    let [first, _, last] = texts.map(|text| client.value(text));
    let mut client = watched.log_in(port, "lawa");
    let mode = "SELECT @@sql_mode = @@global.sql_mode";
    let names = "SELECT CONCAT(@@character_set_client, @@time_zone)";
    format!("{first}; {last}; {}; {}", client.value(mode), client.value(names))
}

#[test]
fn trap_48_nothing_leaks_to_the_next_client() {
    on_each(&Kind::ALL, |watched| {
        let front = watched.front(|_| {});
        let expected = "clean 1 1 lawa; error 1146; 1; utf8mb4SYSTEM";
        for _ in 0..3 {
            let mut client = watched.log_in(front.address.port(), "lawa");
            for text in [
                "SET sql_mode = 'ANSI', time_zone = '+01:00'",
                "SET NAMES latin1",
                "SELECT 1",
                "SET @leak = 'leak', sql_mode = ''",
                "CREATE TEMPORARY TABLE leaked (a INT)",
                "SET autocommit = 0",
                "INSERT INTO log VALUES (9)",
                "USE u",
            ] {
                assert_eq!(error_code(&client.ask(text)), None, "{text}");
            }
            drop(client);
            front.wait("the session ends", |status| status.sessions == 0);
            thread::sleep(Duration::from_millis(50));
            assert_eq!(leak(watched, front.address.port()), expected, "{}", watched.kind.name());
        }
        assert_eq!(watched.pair.sql(0, "SELECT COUNT(*) FROM lawa.log"), "0");
    });
}

/// COM_CHANGE_USER with this proof; the answer's first byte.
fn change_user(client: &mut Raw, user: &str, database: &str, proof: &[u8]) -> Option<u16> {
    let user = [b"\x11", user.as_bytes(), b"\0\0", database.as_bytes(), b"\0\x2d\0"].concat();
    client.send(&[&user[..], b"mysql_native_password\0"].concat());
    let (number, packet) = client.packet();
    assert_eq!(packet[0], 0xfe, "a fresh salt");
    client.send_numbered(number + 1, proof);
    loop {
        let packet = client.packet();
        match packet.1.first() {
            Some(1) => {}
            Some(0) => return None,
            Some(_) | None => return error_code(&[packet]),
        }
    }
}

#[test]
fn trap_49_another_user_and_a_reset_start_over() {
    on_each(&Kind::ALL, |watched| {
        let front = watched.front(|_| {});
        let name = watched.kind.name();
        let mut talk = Talk::new(watched, &front);
        let client = &mut talk.through;
        client.ask("SET @a = 1");
        client.ask("BEGIN");
        assert_eq!(client.value("SELECT name FROM mark"), "first");
        assert_eq!(change_user(client, "other", "t", b""), None, "{name}");
        assert_eq!(client.value("SELECT name FROM mark"), "second");
        assert_eq!(client.value("SELECT CURRENT_USER()"), "other@127.0.0.1");
        assert_eq!(client.value("SELECT COALESCE(@a, 'none')"), "none");
        client.ask("SET @a = 1, sql_mode = ''");
        client.send(b"\x1f");
        assert_eq!(client.packet().1[0], 0, "COM_RESET_CONNECTION, also where the server cannot");
        assert_eq!(client.value("SELECT name FROM mark"), "second", "{name}: same database");
        assert_eq!(client.value("SELECT CURRENT_USER()"), "other@127.0.0.1");
        assert_eq!(client.value("SELECT CONCAT(COALESCE(@a, 'none'), @@sql_mode = '')"), "none0");
        assert_eq!(change_user(client, "app", "t", &[7; 20]), Some(1045), "{name}");
        client.socket.write_all(b"\x09\0\0\0\x03SELECT 1").unwrap_or(());
        assert!(client.is_closed(), "{name}: and nothing after it");
    });
}
