//! Laws of what a save says: words that do the same again, and what cannot be taken back.
//!
//! In: an old source that is back (`errant::Returned`). Out: laws of events.sql, of the obstacle
//! that a save names, and of events that are no obstacle. Must not: cut anything off (`rescue`).

use std::fs;
use std::path::Path;
use std::process::Command;

use tandem::os::errant::{Step, discard};
use tandem::repl::errant::Saved;

use super::*;

/// No key: every value of a row is looked for when it is changed.
const KEYLESS: &str = "CREATE TABLE app.loose (a INT, f FLOAT, d DOUBLE, dec_ DECIMAL(30,10), \
    name VARCHAR(50) CHARACTER SET utf8, old VARCHAR(50) CHARACTER SET latin1, \
    wide VARCHAR(50) CHARACTER SET ucs2, smile VARCHAR(50) CHARACTER SET utf8mb4, \
    uuid_ BINARY(16), body BLOB, words TEXT, short TIME(2), exact TIME(6), moment DATETIME(6), \
    rough DATETIME(1), stamp TIMESTAMP(6) NULL, y YEAR, one BIT(1), flags BIT(64), \
    kind ENUM('a','b','c'), many SET('x','y','z')) ENGINE=InnoDB";
/// Twins, which a collation cannot tell from each other, and what is at the edge of its type.
const LOOSE_ROWS: &str = "(1, 1.1, 1e300, -0.0000000001, 'old', _latin1 x'e9', _ucs2 x'61616262', \
    _utf8mb4 x'f09f9982', x'0102030405060708090a0b0c0d0e0f00', x'00', 'a\\n;b', '-00:00:01.25', \
    '-838:59:58.000001', '1000-01-01 00:00:00.000001', '9999-12-31 23:59:59.9', \
    '2026-10-25 00:30:00.123456', 0, b'1', 18446744073709551615, 'c', 'x,z'), \
    (1, 1.1, 1e300, -0.0000000001, 'OLD', _latin1 x'e9', _ucs2 x'61616262', \
    _utf8mb4 x'f09f9982', x'0102030405060708090a0b0c0d0e0f00', x'00', 'a\\n;b', '-00:00:01.25', \
    '-838:59:58.000001', '1000-01-01 00:00:00.000001', '9999-12-31 23:59:59.9', \
    '2026-10-25 00:30:00.123456', 0, b'1', 18446744073709551615, 'c', 'x,z'), \
    (2, -3.4e38, 4.9e-300, 12345678901234567890.5, 'Zo\\'e \\\\', '', '', '', x'00', '', '', \
    '00:00:00.01', '00:00:00.5', '2026-11-26', '2026-11-26', NULL, 2155, b'0', 0, NULL, '')";

fn checksum(server: &Server, table: &str) -> String {
    let row = server.connect(ADMIN).query_first(format!("CHECKSUM TABLE {table}"));
    row.expect("a checksum").map_or_else(String::new, |(_, sum): (String, String)| sum)
}

/// As an operator does who wants everything to stay.
fn apply(words: &str, server: &Server) {
    let mut conn = server.connect(ADMIN);
    for statement in words.split(";\n").map(str::trim).filter(|it| !it.is_empty()) {
        let lines = statement.lines().filter(|line| !line.starts_with("--"));
        let statement = lines.collect::<Vec<_>>().join("\n");
        conn.query_drop(&statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
        if statement.starts_with("UPDATE") || statement.starts_with("DELETE") {
            assert_eq!(conn.affected_rows(), 1, "{statement}");
        }
    }
}

fn take_back(returned: &Returned, saved: &Saved) -> Result<(), String> {
    discard(&returned.pair.a.login(), saved, Step::Over)
}

fn obstacle(recipe: &'static Recipe, before: &[&str], errant: &[&str]) -> String {
    let mut returned = Returned::new(recipe, before, errant);
    let position = returned.pair.host_a.position();
    let saved = returned.save().expect("it is saved all the same");
    assert!(take_back(&returned, &saved).is_err() || saved.obstacle.is_none(), "it is refused");
    assert_eq!(returned.pair.host_a.position(), position, "nothing was changed");
    saved.obstacle.unwrap_or_default()
}

pub(super) fn the_words_of_a_save_do_the_same_again(recipe: &'static Recipe) {
    let fill = format!("INSERT INTO app.loose VALUES {LOOSE_ROWS}");
    let fill_more = format!("INSERT INTO app.loose VALUES {}", LOOSE_ROWS.replace("(1, ", "(5, "));
    let mut before = vec![KEYLESS.to_owned(), format!("SET sql_mode=''; {fill}")];
    let mut errant = vec![
        format!("SET sql_mode=''; {fill_more}"),
        "DELETE FROM app.loose WHERE a=1 AND BINARY name='OLD'".to_owned(),
        "UPDATE app.loose SET name='new', f=0.1, d=-0e0 WHERE a=1".to_owned(),
        "UPDATE app.loose SET stamp=NULL, kind='b', flags=1 WHERE a=2".to_owned(),
        "BEGIN; INSERT INTO app.t VALUES (60, 'x'); SAVEPOINT s; INSERT INTO app.t VALUES \
         (61, 'x'); ROLLBACK TO SAVEPOINT s; INSERT INTO app.t VALUES (62, 'x'); COMMIT"
            .to_owned(),
    ];
    let mut tables = vec!["app.loose", "app.t"];
    if recipe.flavour != "mysql56" {
        tables.push("app.made");
        before.push(
            "CREATE TABLE app.made (id INT PRIMARY KEY, twice INT AS (id*2) VIRTUAL, thrice INT \
             AS (id*3) STORED, n INT) ENGINE=InnoDB"
                .to_owned(),
        );
        before.push("INSERT INTO app.made (id, n) VALUES (1, 1), (2, 2)".to_owned());
        errant.push("INSERT INTO app.made (id, n) VALUES (3, 3)".to_owned());
        errant.push("UPDATE app.made SET n=7 WHERE id=1".to_owned());
        errant.push("UPDATE app.made SET id=9 WHERE id=2".to_owned());
    }
    if recipe.flavour == "mysql97" {
        tables.push("app.documents");
        before.push("CREATE TABLE app.documents (a INT, j JSON) ENGINE=InnoDB".to_owned());
        let document = "JSON_OBJECT('d', 1.50, 't', CAST('2026-11-26 10:11:12.5' AS DATETIME(6)), \
             'i', JSON_ARRAY(CAST('2026-11-26' AS DATE), CAST('-01:02:03' AS TIME)), 'k\\'', NULL)";
        before.push(format!(
            "INSERT INTO app.documents VALUES (1, {document}), (2, '{{\"a\": [1, 2.5, true]}}'), \
             (3, CAST(1.5 AS JSON)), (4, 'null'), (5, NULL), (6, '\"\\u00e9\"')"
        ));
        errant.push(format!("INSERT INTO app.documents VALUES (7, {document})"));
        errant.push("DELETE FROM app.documents WHERE a IN (1, 3, 4)".to_owned());
        errant.push("UPDATE app.documents SET j=JSON_SET(j, '$.a[1]', 3) WHERE a=2".to_owned());
        errant.push("UPDATE app.documents SET a=a+10 WHERE a IN (5, 6)".to_owned());
    }
    let text = |list: &[String]| -> Vec<String> { list.to_vec() };
    let (before, errant) = (text(&before), text(&errant));
    let mut returned = Returned::new(
        recipe,
        &before.iter().map(String::as_str).collect::<Vec<_>>(),
        &errant.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let saved = returned.save().expect("they are saved");
    assert_eq!(saved.obstacle, None);
    returned.pair.b.run("DELETE FROM app.t WHERE id>=100");
    let words = text_of(&saved);
    apply(&words, &returned.pair.b);
    for table in &tables {
        let (a, b) = (checksum(&returned.pair.a, table), checksum(&returned.pair.b, table));
        assert_eq!(a, b, "{table}:\n{words}");
    }
    take_back(&returned, &saved).expect("they are taken back");
    returned.is_whole("taken back here, and kept there");
    for table in &tables {
        let (a, b) = (checksum(&returned.pair.a, table), checksum(&returned.pair.b, table));
        assert_eq!(a, b, "{table}");
    }
}

pub(super) fn what_the_binlog_does_not_say_is_an_obstacle(recipe: &'static Recipe) {
    let minimal = "SET SESSION binlog_row_image=MINIMAL; UPDATE app.t SET v='y' WHERE id=1";
    let why = obstacle(recipe, &[], &[minimal]);
    assert!(why.contains("app.t") && why.contains("images are not full"), "{why}");
    if recipe.flavour != "mysql97" {
        let statement = "SET SESSION binlog_format=STATEMENT; DELETE FROM app.t WHERE id=1";
        let why = obstacle(recipe, &[], &[statement]);
        assert!(why.contains("is a statement (DELETE FROM app.t"), "{why}");
    }
    if recipe.flavour == "mysql97" {
        let documents = "CREATE TABLE app.documents (id INT PRIMARY KEY, j JSON) ENGINE=InnoDB";
        let fill = "INSERT INTO app.documents VALUES (1, '{\"a\": \"some long text\", \"b\": 2}')";
        let part = "SET SESSION binlog_row_value_options=PARTIAL_JSON; UPDATE app.documents SET \
                    j=JSON_REMOVE(JSON_SET(j, '$.a', 'short'), '$.b')";
        let mut returned = Returned::new(recipe, &[documents, fill], &[part]);
        let saved = returned.save().expect("it is saved");
        let why = saved.obstacle.clone().unwrap_or_default();
        assert!(why.contains("app.documents") && why.contains("partial"), "{why}");
        apply(&text_of(&saved), &returned.pair.b);
        let document = |server: &Server| server.value("SELECT j FROM app.documents");
        assert_eq!(document(&returned.pair.a), document(&returned.pair.b));

        let packed = "SET SESSION binlog_transaction_compression=ON; INSERT INTO app.t VALUES \
                      (7, REPEAT('x', 20))";
        let mut returned = Returned::new(recipe, &[], &[packed]);
        let saved = returned.save().expect("it is saved");
        let why = saved.obstacle.clone().unwrap_or_default();
        assert!(why.contains("compressed"), "{why}");
        apply(&text_of(&saved), &returned.pair.b);
        let value = "SELECT v FROM app.t WHERE id=7";
        assert_eq!(returned.pair.a.value(value), returned.pair.b.value(value));
        assert_eq!(saved.rows, 1);
    }
    if recipe.flavour == "mariadb" {
        let packed = [
            "SET GLOBAL log_bin_compress_min_len=10",
            "SET GLOBAL log_bin_compress=ON",
            "INSERT INTO app.t VALUES (7, REPEAT('x', 50))",
        ];
        let why = obstacle(recipe, &[], &packed);
        assert!(why.contains("compressed"), "{why}");
        // Where a value of a compressed column ends is not known here.
        let zipped = "CREATE TABLE app.zipped (a INT PRIMARY KEY, b BLOB COMPRESSED) ENGINE=InnoDB";
        let fill = "INSERT INTO app.zipped VALUES (1, REPEAT('x', 1000))";
        let mut returned = Returned::new(recipe, &[zipped], &[fill]);
        let saved = returned.save().expect("it is saved");
        assert!(text_of(&saved).contains("only events.binlog has"), "{}", text_of(&saved));
        assert!(saved.obstacle.is_some());
    }
}

pub(super) fn what_the_server_would_not_give_back_is_an_obstacle(recipe: &'static Recipe) {
    let table = "CREATE TABLE app.plain (a INT) ENGINE=MyISAM";
    let why = obstacle(recipe, &[table], &["INSERT INTO app.plain VALUES (1)"]);
    assert!(why.contains("app.plain") && why.contains("MyISAM"), "{why}");
    if recipe.flavour == "mariadb" {
        let table = "CREATE TABLE app.kept (a INT) ENGINE=InnoDB WITH SYSTEM VERSIONING";
        let why = obstacle(recipe, &[table], &["INSERT INTO app.kept VALUES (1)"]);
        assert!(why.contains("app.kept") && why.contains("versioned"), "{why}");
    }
}

/// Nothing hangs from a row that was not there.
pub(super) fn rows_put_in_above_a_cascade_are_taken_back(recipe: &'static Recipe) {
    let parent = "CREATE TABLE app.parent (id INT PRIMARY KEY) ENGINE=InnoDB";
    let child = "CREATE TABLE app.child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES \
                 app.parent (id) ON DELETE CASCADE ON UPDATE SET NULL) ENGINE=InnoDB";
    let mut returned = Returned::new(
        recipe,
        &[parent, child, "INSERT INTO app.parent VALUES (1)"],
        &["INSERT INTO app.parent VALUES (2)", "INSERT INTO app.child VALUES (1, 1), (2, 2)"],
    );
    let saved = returned.save().expect("it is saved");
    assert_eq!(saved.obstacle, None);
    take_back(&returned, &saved).expect("it is taken back");
    returned.is_whole("taken back");
    for (table, left) in [("app.parent", "1"), ("app.child", "0")] {
        assert_eq!(returned.pair.a.value(&format!("SELECT COUNT(*) FROM {table}")), left);
    }
}

pub(super) fn binlogs_of_several_kinds_are_saved_as_one(recipe: &'static Recipe) {
    let another_name = match recipe.flavour {
        "mariadb" => "SET SESSION gtid_domain_id=7",
        "mysql97" => "SET SESSION gtid_next='AUTOMATIC:tag'",
        _ => "SET SESSION binlog_row_image=FULL",
    };
    let tagged = format!("{another_name}; INSERT INTO app.keyless VALUES (4, 'four')");
    let split = "CREATE TABLE app.split (a INT PRIMARY KEY, b INT) ENGINE=InnoDB \
                 PARTITION BY RANGE (a) (PARTITION p0 VALUES LESS THAN (10), \
                 PARTITION p1 VALUES LESS THAN (90))";
    let mut returned = Returned::new(
        recipe,
        &[split, "INSERT INTO app.split VALUES (1, 1), (2, 2)"],
        &[
            "INSERT INTO app.keyless VALUES (1, 'one')",
            "SET GLOBAL binlog_checksum=NONE",
            "INSERT INTO app.keyless VALUES (2, 'two')",
            "FLUSH BINARY LOGS",
            "UPDATE app.split SET a=a+20",
            "SET GLOBAL binlog_checksum=CRC32",
            "SET SESSION unique_checks=0; INSERT INTO app.keyless VALUES (3, 'three')",
            &tagged,
        ],
    );
    // It verifies what it is told, too.
    let verify = if recipe.flavour == "mysql97" { "source" } else { "master" };
    returned.pair.a.run(&format!("SET GLOBAL {verify}_verify_checksum=ON"));
    let saved = returned.save().expect("they are saved");
    assert_eq!((saved.transactions, saved.rows, &saved.obstacle), (5, 6, &None));
    let events = Path::new(&saved.directory).join("events.binlog");
    if let Some(program) = recipe.binlog_program() {
        let (first, rest) = program.split_first().expect("a program");
        let output = Command::new(first)
            .args(rest)
            .args(["--base64-output=decode-rows", "-v", "--verify-binlog-checksum"])
            .arg(&events)
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(said.matches("### INSERT INTO").count(), 4, "{said}");
    }
    assert!(is_copied(&returned, &fs::read(&events).expect("it is there")));
    take_back(&returned, &saved).expect("they are taken back");
    returned.is_whole("taken back");
    let (a, b) = (&returned.pair.a, &returned.pair.b);
    assert_eq!(checksum(a, "app.split"), checksum(b, "app.split"));
}

/// Whether every event is one of the server's own binlogs, byte by byte.
fn is_copied(returned: &Returned, saved: &[u8]) -> bool {
    let a = &returned.pair.a;
    let base = a.value("SELECT @@GLOBAL.log_bin_basename");
    let logs: Vec<mysql::Row> = a.connect(ADMIN).query("SHOW BINARY LOGS").expect("a list");
    let names = logs.iter().map(|row| row.get::<String, _>(0).expect("a name"));
    let directory = Path::new(&base).parent().expect("a directory");
    let logs: Vec<Vec<u8>> =
        names.map(|name| fs::read(directory.join(name)).expect("a binlog")).collect();
    let mut rest = &saved[4..];
    while !rest.is_empty() {
        let size = u32::from_le_bytes(rest[9..13].try_into().expect("four bytes"));
        let (event, after) = rest.split_at(usize::try_from(size).expect("small"));
        // A format says how far the binlog was written when it was sent.
        let is_format = event[4] == 15;
        let is_there = |log: &Vec<u8>| log.windows(event.len()).any(|bytes| bytes == event);
        if !is_format && !logs.iter().any(is_there) {
            return false;
        }
        rest = after;
    }
    true
}
