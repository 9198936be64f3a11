//! Traps 1 to 12 of facts/sql.md section 3: what a statement is made of, on every kind of server.
//!
//! In: scripts of `laws`. Out: laws. Must not: know how a pair is made (`servers`).

use super::laws::{Kind, Step, Talk, law, on_each};
use super::raw::{Packet, error_code, value};
use super::*;

const R: Step = Step { place: b'R', is_compared: true };
const W: Step = Step { place: b'W', is_compared: true };

/// Runs statements that are no text, each in a session of its own after this preamble.
fn bytes(kinds: &[Kind], preamble: &str, steps: &[(Step, &[u8])]) {
    let mut broken = Vec::new();
    on_each(kinds, |watched| {
        let front = watched.front(|_| {});
        for (step, text) in steps {
            let mut talk = Talk::new(watched, &front);
            if !preamble.is_empty() {
                talk.through.ask(preamble);
                talk.direct.iter_mut().for_each(|it| drop(it.ask(preamble)));
            }
            if let Err(why) = talk.step(watched, *step, text) {
                broken.push(format!("{}: {}: {why}", watched.kind.name(), text.escape_ascii()));
            }
        }
    });
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn trap_01_comments_are_skipped_as_the_server_skips_them() {
    law("
        R /* a */ -- b¶ # c¶ SELECT name FROM mark
        R SELECT 5--1
        R SELECT 5 -- 1
        R SELECT 5 #1
        R SELECT/**/name/**/FROM/**/mark
        R SELECT 1 --
    ");
}

#[test]
fn trap_02_executable_comments_are_code() {
    law("
        W /*! INSERT INTO t (b) VALUES ('x') */
        -
        W /*!40001 DELETE FROM t WHERE a = 1 */
        -
        W /*!999999 DELETE FROM t */ SELECT name FROM mark
        -
        W /*M! DELETE FROM t WHERE a = 2 */
        -
        W /*M!100100 DELETE FROM t WHERE a = 3 */
        -
        W SELECT name /*!50000 , a */ FROM mark /*!50000 JOIN t */
        -
        W /*!50503 SELECT f() */
        -
        W SELECT name /*!99999 ' */ FROM mark; SET @hidden = 1 -- ' */
        W SELECT @hidden
        W SELECT name FROM mark
        -
        W SELECT name /*!99999 /* */ FROM mark; SET @hidden = 2 */
        W SELECT name FROM mark
    ");
}

#[test]
fn trap_03_what_mysqldump_writes_works() {
    law("
        W SELECT /*!40001 SQL_NO_CACHE */ * FROM t
        W SELECT 1 /*! FOR UPDATE */
        W SELECT * FROM t /*!80000 FOR SHARE */
    ");
}

#[test]
fn trap_04_hints_force_the_source_and_never_the_replica() {
    law("
        R SELECT /*+ SET_VAR(sort_buffer_size=262144) */ name FROM mark
        W /*master*/ SELECT name FROM mark
        W /* master */ SELECT name FROM mark
        W SELECT /*master*/ name FROM mark
        W SELECT name FROM mark -- maxscale route to master
        W /*slave*/ INSERT INTO t (b) VALUES ('x')
        W /*slave*/ SELECT name FROM mark FOR UPDATE
        R /*slave*/ SELECT name FROM mark
        W BEGIN
        W /*slave*/ SELECT name FROM mark
        W COMMIT
    ");
}

#[test]
fn trap_05_parentheses_do_not_hide_the_verb() {
    law("
        R[maria,97] ((SELECT 1) UNION (SELECT 2)) LIMIT 1
        R (SELECT name FROM mark) UNION (SELECT 'x') LIMIT 1
        W (SELECT * FROM t FOR UPDATE)
        W (SELECT * FROM t LOCK IN SHARE MODE)
        W ( UPDATE t SET b = 'x'
        W ( UPDATE t SET b = 'x' )
    ");
}

#[test]
fn trap_06_what_stands_in_quotes_is_no_statement() {
    law("
        R SELECT 'a; DELETE FROM t'
        R SELECT \"a; DELETE FROM t\"
        R SELECT 1 AS `for update`
        R SELECT ';' -- ;
        R SELECT ';'
        R SELECT ';';
        R SELECT 1; -- x
        R SELECT name FROM mark; ¶
        W SELECT ';'; SELECT 2
        W SELECT name FROM mark
    ");
}

#[test]
fn trap_07_backslashes_are_read_as_the_servers_mode_says() {
    law(r#"
        W SELECT 'it''s \' ; DELETE FROM t; -- '
        -
        R SELECT name FROM mark
        R SELECT 'it\'s'
        R SELECT 'it''s \' ; DELETE FROM t; -- '
        W SET @@sql_mode = CONCAT(@@sql_mode, ',NO_BACKSLASH_ESCAPES'), @a = 1
        W SELECT 'it''s \' ; DELETE FROM t WHERE a = 1; -- '
        -
        B SET sql_mode = 'NO_BACKSLASH_ESCAPES'
        W SELECT 'it''s \' ; DELETE FROM t WHERE a = 2; -- '
        -
        B SET sql_mode = 'ANSI_QUOTES'
        R SELECT 1 AS ' \' ; DELETE FROM t; -- '
        -
        B SET sql_mode = 'ANSI_QUOTES'
        W SELECT name AS "a\" FROM mark; DELETE FROM t WHERE a = 3; -- "
    "#);
}

#[test]
fn trap_08_half_a_character_is_no_backslash_and_no_quote() {
    let text: &[u8] = b"SELECT '\xbf\\' ; DELETE FROM t WHERE a = 1; -- '";
    let name: &[u8] = b"SELECT 1 AS \x81` FROM mark; DELETE FROM t WHERE a = 2; -- \x81`";
    let quoted: &[u8] = b"SELECT 1 AS `\x81` FROM mark; DELETE FROM t WHERE a = 3; -- `";
    let plain: &[u8] = b"SELECT '\xbf\xbf' FROM mark";
    for charset in ["gbk", "big5", "sjis", "cp932"] {
        let steps = [(W, text), (W, name), (W, quoted), (R, plain)];
        bytes(&Kind::ALL, &format!("SET NAMES {charset}"), &steps);
    }
    bytes(&[Kind::MySql97], "SET NAMES gb18030", &[(W, text), (W, name), (W, quoted), (R, plain)]);
}

#[test]
fn trap_09_literals_and_names_of_every_form_are_read_whole() {
    law("
        R SELECT _utf8mb4'for update', N'x', x'00', b'1', 0x1f, 1e5, .5, 5.
        R SELECT t.`a` FROM t
        R SELECT {ts '2020-01-01 00:00:00'}
        R[maria,97] SELECT JSON_EXTRACT('{\"a\": 1}', '$.a')
        R[97] SELECT CAST('{\"a\": 1}' AS JSON)->'$.a'
        R SELECT 1.FROM mark
        R SELECT 1 AS b FROM mark WHERE 1e5FROM
        W SELECT @`x`, @'y', @\"z\"
        -
        W SELECT @@global.max_connections
        -
        W SELECT @a := 1
        -
        W SELECT 1e5INTO OUTFILE '/nosuch/x'
        W SELECT 1E+5INTO OUTFILE '/nosuch/x'
        W SELECT 1.5e3INTO OUTFILE '/nosuch/x'
        W SELECT .5INTO OUTFILE '/nosuch/x'
        R SELECT 0x1fINTO OUTFILE '/nosuch/x'
        W SELECT a FROM t WHERE a < 1e5FOR UPDATE
        W SELECT a FROM t WHERE a < 1e5LOCK IN SHARE MODE
        W[97] SELECT a FROM t WHERE a < 1e5FOR SHARE
    ");
    let steps: [(Step, &[u8]); 4] = [
        (W, b"SELECT 1\0, 2"),
        (R, b"SELECT 'a\0b'"),
        (R, b"SELECT '\xff\xfe' FROM mark"),
        (R, b"SELECT 1 AS `\xc3`"),
    ];
    bytes(&Kind::ALL, "", &steps);
}

#[test]
fn trap_10_words_that_touch_and_spaces_of_every_kind_are_read() {
    law("
        R SELECT*FROM mark
        R SELECT(1)
        R select\tname\tfrom\tmark
        R SELECT\u{b}\u{c}1
        R sElEcT¶1
        W \u{feff}SELECT 1
        W SELECT\u{a0}1
        R SELECT name FROM mark
    ");
}

/// 0xa0 is white space in latin1, and a part of words in UTF-8.
#[test]
fn trap_10_a_byte_that_is_a_space_in_this_character_set_hides_nothing() {
    let steps: [(Step, &[u8]); 7] = [
        (W, b"SELECT * FROM t FOR\xa0UPDATE"),
        (W, b"SELECT * FROM t\xa0FOR\xa0UPDATE"),
        (W, b"SELECT * FROM t LOCK\xa0IN\xa0SHARE MODE"),
        (W, b"SELECT 1\xa0INTO\xa0OUTFILE '/nosuch/x'"),
        (W, b"SELECT f\xa0() FROM mark"),
        (W, b"SELECT 1 --\xa0'\n; DELETE FROM t WHERE a = 1; -- '"),
        (R, b"SELECT '\xa0', `name` AS `\xa0` FROM mark"),
    ];
    for charset in ["latin1", "latin2", "greek"] {
        bytes(&Kind::ALL, &format!("SET NAMES {charset}"), &steps);
    }
    let steps: [(Step, &[u8]); 2] = [
        (R, "SELECT name AS \u{e0}, 1 AS \u{4e20} FROM mark".as_bytes()),
        (W, "SELECT * FROM t FOR\u{a0}UPDATE FOR UPDATE".as_bytes()),
    ];
    bytes(&Kind::ALL, "SET NAMES utf8", &steps);
}

#[test]
fn trap_11_what_does_not_end_or_is_empty_gets_the_servers_own_answer() {
    law("
        W SELECT 'a
        W SELECT `a
        W SELECT 1 /* a
        W SELECT \"a
        W ;
        W -- x
        W /* x */
        W # x
        R SELECT name FROM mark
    ");
    bytes(&Kind::ALL, "", &[(W, b""), (W, b"  "), (W, b"/*! SELECT 1")]);
}

#[test]
fn trap_12_packets_of_every_length_pass() {
    on_each(&Kind::ALL, |watched| {
        for host in [0, 1] {
            watched.pair.sql(host, "SET GLOBAL max_allowed_packet = 64 * 1024 * 1024");
        }
        let front = watched.front(|_| {});
        let mut talk = Talk::new(watched, &front);
        // With the command byte: just below a full packet, exactly one, one more; and 20 MB.
        for length in [0xff_fffe, 0xff_ffff, 0x100_0000, 20_000_000] {
            for text in ["SELECT LENGTH('", "INSERT INTO t (b) SELECT LENGTH('"] {
                let size = length - 1 - text.len() - 2;
                let text = [text.as_bytes(), &vec![b'x'; size], b"')"].concat();
                assert_eq!(text.len() + 1, length);
                let answer = talk.through.ask(&text);
                let expected = talk.direct[0].ask(&text);
                assert_eq!(answer, expected, "{length} on {}", watched.kind.name());
                if text.starts_with(b"SELECT") {
                    assert_eq!(value(&answer), size.to_string());
                }
            }
            let (rows, sum) = ("SELECT COUNT(*) FROM t", "SELECT MAX(b + 0) FROM t");
            assert_eq!(talk.through.value(rows), talk.direct[0].value(rows));
            assert_eq!(talk.through.value(sum), talk.direct[0].value(sum));
        }
        // A second session on the connection that the first gives back: nothing is left behind.
        drop(talk);
        let mut talk = Talk::new(watched, &front);
        assert_eq!(talk.through.value("SELECT name FROM mark"), "second");
    });
}

/// A statement of exactly one full packet is not over before the empty one that follows.
#[test]
fn trap_12_a_full_packet_waits_for_the_empty_one() {
    on_each(&[Kind::MariaDb], |watched| {
        watched.pair.sql(0, "SET GLOBAL max_allowed_packet = 64 * 1024 * 1024");
        let front = watched.front(|_| {});
        let mut client = watched.log_in(front.address.port(), "lawa");
        let head = b"\x03INSERT INTO log SELECT LENGTH('";
        let mut payload = head.to_vec();
        payload.resize(0xff_ffff - 2, b'x');
        payload.extend_from_slice(b"')");
        client.socket.write_all(b"\xff\xff\xff\0").expect("sends");
        client.socket.write_all(&payload).expect("sends");
        thread::sleep(Duration::from_millis(300));
        assert_eq!(watched.pair.sql(0, "SELECT COUNT(*) FROM lawa.log"), "0");
        client.socket.write_all(b"\0\0\0\x01").expect("sends");
        let answer: Vec<Packet> = client.results();
        assert_eq!(error_code(&answer), None);
        let length = (0xff_ffff - 2 - head.len()).to_string();
        assert_eq!(watched.pair.sql(0, "SELECT a FROM lawa.log"), length);
    });
}
