//! The admin port and the clients that people use: what each says first, and that all sixteen
//! commands of Atlas answer with Atlas's columns.
//!
//! In: a splitter with an admin port. Out: laws. Must not: depend on a client that is not there,
//! but for the one of MySQL 9.7, where `scripts/servers` has unpacked it.

use std::path::Path;

use super::admin::{desk_options, front};
use super::*;
use mysql::consts::{ColumnFlags, ColumnType};

const LONG: ColumnType = ColumnType::MYSQL_TYPE_LONG;
const STRING: ColumnType = ColumnType::MYSQL_TYPE_STRING;

/// Of facts/sql.md 1.2.
const BACKEND: &[(&str, ColumnType)] =
    &[("backend_ndx", LONG), ("address", STRING), ("state", STRING), ("type", STRING)];
const STATUS: &[(&str, ColumnType)] = &[("status", STRING)];

#[test]
fn every_command_of_atlas_answers_with_its_columns() {
    let pair = Pair::shared();
    let front = front(&pair);
    let mut desk = Conn::new(desk_options(&front)).expect("logs in");
    let address = format!("127.0.0.1:{}", pair.ports()[1]);
    let (add_master, add_slave) = (format!("ADD MASTER {address}"), format!("ADD SLAVE {address}"));
    let pwds = &[("username", STRING), ("password", STRING)][..];
    let help = &[("command", STRING), ("description", STRING)][..];
    for (text, columns, rows) in [
        ("SELECT * FROM help", help, 21),
        ("SELECT * FROM backends", BACKEND, 2),
        ("SET OFFLINE 2", BACKEND, 1),
        ("SET ONLINE 2", BACKEND, 1),
        ("REMOVE BACKEND 2", STATUS, 0),
        (&*add_slave, STATUS, 0),
        (&*add_master, STATUS, 0),
        ("ADD CLIENT 127.0.0.1", STATUS, 0),
        ("SELECT * FROM clients", &[("client", STRING)], 1),
        ("REMOVE CLIENT 127.0.0.1", STATUS, 0),
        ("ADD PWD new:x", STATUS, 0),
        ("ADD ENPWD old:KsWNCR6qyNk=", STATUS, 0),
        ("SELECT * FROM pwds", pwds, 4),
        ("REMOVE PWD new", STATUS, 0),
        ("SELECT VERSION", &[("version", STRING)], 1),
    ] {
        for text in [text.to_owned(), format!("  /* x */ {text} ;")] {
            let result = match desk.query_iter(&text) {
                Ok(result) => result,
                // The second time round.
                Err(Error::MySqlError(error)) if text.starts_with(' ') => {
                    assert!(error.message.contains("exist") || error.message.contains("invalid"));
                    continue;
                }
                Err(error) => panic!("{text}: {error}"),
            };
            check_columns(result.columns().as_ref(), columns, &text);
            if !text.starts_with(' ') {
                assert_eq!(result.count(), rows, "{text}");
            }
        }
    }
}

/// As Atlas defines its columns.
fn check_columns(found: &[mysql::Column], columns: &[(&str, ColumnType)], text: &str) {
    for column in found {
        let form = (column.flags(), column.column_length(), column.character_set());
        assert_eq!(form, (ColumnFlags::PRI_KEY_FLAG, 32, 8), "{text}");
        assert!(column.table_str().is_empty() && column.schema_str().is_empty(), "{text}");
    }
    let found: Vec<_> = found.iter().map(|it| (it.name_str(), it.column_type())).collect();
    let found: Vec<_> = found.iter().map(|(name, kind)| (&**name, *kind)).collect();
    assert_eq!(found, columns, "{text}");
}

#[test]
fn help_begins_as_atlas_does_and_what_is_not_there_is_sent_to_it() {
    let pair = Pair::shared();
    let front = front(&pair);
    let mut desk = Conn::new(desk_options(&front)).expect("logs in");
    let help: Vec<(String, String)> = desk.query("SELECT * FROM help").expect("lists");
    let atlas: Vec<&str> = help.iter().take(16).map(|(command, _)| command.as_str()).collect();
    assert_eq!(
        atlas,
        [
            "SELECT * FROM help",
            "SELECT * FROM backends",
            "SET OFFLINE $backend_id",
            "SET ONLINE $backend_id",
            "ADD MASTER $backend",
            "ADD SLAVE $backend",
            "REMOVE BACKEND $backend_id",
            "SELECT * FROM clients",
            "ADD CLIENT $client",
            "REMOVE CLIENT $client",
            "SELECT * FROM pwds",
            "ADD PWD $pwd",
            "ADD ENPWD $pwd",
            "REMOVE PWD $pwd",
            "SAVE CONFIG",
            "SELECT VERSION",
        ]
    );
    for text in ["SELECT 1 FROM t", "DROP TABLE t", "SELEKT", "ADD", "SAVE", "SHOW MORE"] {
        match desk.query_drop(text).expect_err(text) {
            Error::MySqlError(error) => {
                assert_eq!((error.code, error.state.as_str()), (1105, "07000"), "{text}");
                let words = "use 'SELECT * FROM help' to see the supported commands";
                assert_eq!(error.message, words, "{text}");
            }
            other => panic!("{other}"),
        }
    }
}

/// Runs a command line client on the admin port; returns what it printed and complained of.
fn run(command: &mut Command, front: &Front, text: &str) -> (String, String) {
    let port = front.admin.expect("an admin port").port();
    let output = command
        .args(["--no-defaults", "-h127.0.0.1", "-uadmin", "-ppwd", "--protocol=tcp"])
        .arg(format!("-P{port}"))
        .args(["-t", "-f", "--show-warnings", "-e", text])
        .output()
        .expect("the client runs");
    let read = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (read(&output.stdout), read(&output.stderr))
}

const STATEMENTS: &str = "SELECT * FROM backends; select version; SELECT * FROM help; \
    ADD PWD new:it-is; /* x */ REMOVE PWD new; SHOW SESSIONS; SHOW POOL; SHOW STATS; \
    SHOW DIGESTS; SHOW WARNINGS; SELECT VERSION(); ADD CLIENT nowhere";

fn check(stdout: &str, stderr: &str) {
    for part in [
        "| backend_ndx | address",
        "| tandem ",
        "SET OFFLINE $backend_id",
        "Warning (Code 1105): only this host's splitter",
        "| transaction | pinned_by | statement |",
        "queries_to_replica",
        "5.0.99-agent-admin",
    ] {
        assert!(stdout.contains(part), "{part}:\n{stdout}\n{stderr}");
    }
    assert!(stderr.contains("\"nowhere\": write"), "{stdout}\n{stderr}");
}

#[test]
fn the_command_line_client_of_mariadb_uses_the_admin_port() {
    let pair = Pair::shared();
    let front = front(&pair);
    let _client = connect(&front);
    let (stdout, stderr) = run(&mut Command::new("mariadb"), &front, STATEMENTS);
    check(&stdout, &stderr);
}

#[test]
fn the_command_line_client_of_mysql_97_uses_the_admin_port() {
    let usual = "/var/cache/tandem/servers/mysql97".into();
    let home = std::env::var_os("TANDEM_MYSQL97").unwrap_or(usual);
    let root = Path::new(&home).join("root/usr");
    if !root.join("bin/mysql").exists() {
        return;
    }
    let pair = Pair::shared();
    let front = front(&pair);
    let _client = connect(&front);
    let libraries = root.join("lib/x86_64-linux-gnu");
    // Built for a newer system: its own loader and libraries.
    let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
    let private = libraries.join("mysql/private");
    command.arg("--library-path");
    command.arg(format!("{}:{}", libraries.display(), private.display()));
    command.arg(root.join("bin/mysql"));
    let (stdout, stderr) = run(&mut command, &front, STATEMENTS);
    check(&stdout, &stderr);
}

#[test]
fn php_uses_the_admin_port_by_both_of_its_drivers() {
    let pair = Pair::shared();
    let front = front(&pair);
    let port = front.admin.expect("an admin port").port();
    let script = format!(
        r#"
        mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
        $m = new mysqli('127.0.0.1', 'admin', 'pwd', '', {port});
        $m->set_charset('utf8mb4');
        $m->autocommit(true);
        echo $m->server_info, "\n";
        echo $m->query('SELECT * FROM backends')->fetch_assoc()['type'], "\n";
        echo $m->query('ADD PWD new:x')->num_rows, ' ', $m->warning_count, "\n";
        echo $m->query('SHOW WARNINGS')->fetch_assoc()['Level'], "\n";
        $p = new PDO('mysql:host=127.0.0.1;port={port};charset=utf8mb4', 'admin', 'pwd',
            [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION, PDO::MYSQL_ATTR_INIT_COMMAND =>
            "SET SESSION sql_mode=''"]);
        echo implode(',', $p->query('SELECT * FROM pwds')->fetchAll(PDO::FETCH_COLUMN)), "\n";
        $s = $p->prepare('REMOVE PWD new');
        $s->execute();
        echo $s->columnCount(), $s->rowCount(), "\n";
        foreach (['DROP TABLE t', 'REMOVE PWD new', 'SET OFFLINE 7'] as $text) {{
            try {{ $m->query($text); }}
            catch (mysqli_sql_exception $e) {{
                echo $e->getCode(), ' ', $e->getSqlState(), ' ', $e->getMessage(), "\n";
            }}
        }}
        "#
    );
    let output = Command::new("php8.2").arg("-r").arg(script).output().expect("php runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let expected = "5.0.99-agent-admin\nrw\n0 1\nWarning\napp,other,new\n10\n\
        1105 07000 use 'SELECT * FROM help' to see the supported commands\n\
        1105 07000 this user is NOT exist\n1105 07000 backend id is not exsit\n";
    assert_eq!(text, expected, "{}", String::from_utf8_lossy(&output.stderr));
}
