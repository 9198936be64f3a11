//! Statements by the thousand: what the lexer calls a read must change nothing on a server that
//! lets everything through.
//!
//! In: a grammar and a fixed seed. Out: reads that wrote, locked, or left something behind.
//! Must not: ask the splitter for anything but its verdict; the servers are the judges.
//! `TANDEM_STATEMENTS=100000` runs as many, on each kind of server; `TANDEM_SEED` runs others.

use tandem::sql::route::{Charset, Class, Reading, classify};
use tandem::time::Rng;

use super::laws::{Kind, Watched, on_each};
use super::raw::{Raw, error_code, value};
use super::*;

const SEPARATORS: &[&str] =
    &[" ", " ", " ", " ", "\n", "\t", "/**/", " /* x; */ ", " -- x'\n", " # x\n", "  ", ""];

/// What statements are made of: a name, and its forms, in which `<name>` stands for another.
const GRAMMAR: &[(&str, &[&str])] = &[
    (
        "statement",
        &[
            "<select>",
            "<select>",
            "<select>",
            "( <select> ) UNION ( <select> )",
            "WITH x AS ( <select> ) SELECT * FROM x",
            "WITH x AS ( <select> ) <write>",
            "<write>",
            "EXPLAIN <select>",
            "EXPLAIN <write>",
            "<select> ; <write>",
            "<select> ; <select>",
            "<select> ;",
            "/*! <write> */",
            "/*!50000 <select> */",
            "/*!99999 <write> */ <select>",
            "/*M! <write> */",
            "VALUES ( 1 )",
            "SHOW TABLES LIKE <text>",
            "SHOW COLUMNS FROM t WHERE <value> = 1",
            "SELECT <text> ; <write> -- <text>",
            "DESC t",
            "CHECKSUM TABLE t",
        ],
    ),
    (
        "select",
        &[
            "SELECT <value> <tail>",
            "SELECT <value> , <value> FROM <table> <tail>",
            "SELECT <value> FROM <table> WHERE <value> = <value> <tail>",
            "SELECT a FROM <table> WHERE a < <number> <tail>",
            "SELECT DISTINCT a FROM t GROUP BY a HAVING <value> > 0 <tail>",
        ],
    ),
    (
        "tail",
        &[
            "",
            "",
            "",
            "LIMIT 1",
            "ORDER BY <value>",
            "FOR UPDATE",
            "LOCK IN SHARE MODE",
            "INTO OUTFILE '<path>'",
            "INTO @v",
            "/*! FOR UPDATE */",
            "/*! INTO @v */",
            "UNION <select>",
            "AS <name>",
        ],
    ),
    ("table", &["t", "`t`", "mark", "v", "( <select> ) AS z", "t AS `for update`", "lawb . t"]),
    ("number", &["1", "1e5", "1E5", ".5", "1.5e3", "0x1f", "1e+2", "5.", "1", "2"]),
    ("name", &["x", "`x;y`", "'x y'", "\"q\"", "`a``b`"]),
    (
        "text",
        &[
            "'a'",
            "'a;b'",
            "'it''s'",
            r"'a\'b'",
            r"'\\'",
            "\"d'q\"",
            r#""a\"b""#,
            "'/*'",
            "'-- '",
            "'é'",
            "_utf8'x'",
            "N'x'",
            "x'41'",
            "'`'",
        ],
    ),
    (
        "value",
        &[
            "<number>",
            "<number>",
            "<text>",
            "a",
            "COUNT(*)",
            "ABS( <value> )",
            "CONCAT( <value> , <text> )",
            "IF( <value> , <value> , 1 )",
            "( SELECT MAX(a) FROM t )",
            "( <select> )",
            "<value> + <value>",
            "<value> -- <number>\n + 1",
            "f()",
            "w()",
            "lawb.w()",
            "`w`()",
            "lawb . `w` ()",
            "w ()",
            "GET_LOCK( 'g' , 0 )",
            "LAST_INSERT_ID( 5 )",
            "@v := 1",
            "@v",
            "NOW()",
            "@@sql_mode",
            "CASE WHEN <value> THEN <value> END",
            "NEXTVAL( s )",
            "CAST( <value> AS CHAR )",
        ],
    ),
    (
        "write",
        &[
            "INSERT INTO log VALUES ( 1 )",
            "INSERT INTO log SELECT 1",
            "UPDATE t SET b = <text>",
            "DELETE FROM t WHERE a = 100",
            "REPLACE INTO t ( a , b ) VALUES ( 1 , 'r' )",
            "DO w()",
            "CALL pw()",
            "CREATE TABLE IF NOT EXISTS made ( a INT )",
            "TRUNCATE log",
            "SET @v = 1",
        ],
    ),
];

struct Writer {
    rng: Rng,
    /// Files that statements may write get names of their own.
    folder: String,
    files: usize,
}

impl Writer {
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(u64::try_from(bound).unwrap())).unwrap()
    }

    fn statement(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write("<statement>", 0, &mut out);
        if self.below(8) == 0 && !out.is_empty() {
            // A slip of the pen.
            let at = self.below(out.len());
            match self.below(3) {
                0 => drop(out.remove(at)),
                1 => out.insert(at, b"'\"`\\/*!-#@.;() \n"[self.below(16)]),
                _ => out.insert(at, out[at]),
            }
        }
        out
    }

    fn write(&mut self, form: &str, depth: usize, out: &mut Vec<u8>) {
        for part in form.split(' ').filter(|part| !part.is_empty()) {
            let name = part.strip_prefix('<').and_then(|it| it.strip_suffix('>'));
            let forms = name.and_then(|name| GRAMMAR.iter().find(|(known, _)| *known == name));
            if let Some((_, forms)) = forms {
                // Deep down the first forms, which lead no further.
                let count = if depth > 6 { 1 } else { forms.len() };
                let form = forms[self.below(count)];
                self.write(form, depth + 1, out);
            } else if part.contains("<path>") {
                self.files += 1;
                let path = format!("{}/{}", self.folder, self.files);
                out.extend_from_slice(part.replace("<path>", &path).as_bytes());
            } else {
                let part = part.replace("<number>", "1").replace("<text>", "'x'");
                out.extend_from_slice(part.as_bytes());
            }
            let separator = SEPARATORS[self.below(SEPARATORS.len())];
            out.extend_from_slice(separator.as_bytes());
        }
    }
}

/// Everything on the server, in its files and in the session that a read leaves alone.
struct Witness<'a> {
    watched: &'a Watched,
    observer: Raw,
    folder: std::path::PathBuf,
}

impl Witness<'_> {
    fn state(&mut self, session: &mut Raw) -> String {
        let position = match self.watched.kind {
            Kind::MariaDb => self.observer.value("SELECT @@global.gtid_binlog_pos"),
            Kind::MySql97 | Kind::MySql56 => self.observer.value("SELECT @@global.gtid_executed"),
        };
        let rows = "SELECT CONCAT_WS(' ', (SELECT COUNT(*) FROM lawb.log), \
            (SELECT SUM(CRC32(CONCAT(a, b))) FROM lawb.t), (SELECT COUNT(*) FROM \
            information_schema.tables WHERE table_schema = 'lawb'))";
        let left = "SELECT CONCAT_WS(' ', COALESCE(@v, 'none'), LAST_INSERT_ID(), \
            COALESCE(IS_USED_LOCK('g'), 'free'))";
        let files = std::fs::read_dir(&self.folder).expect("reads").count();
        let rows = self.observer.value(rows);
        format!("{position}; {rows}; {}; {files} files", session.value(left))
    }
}

/// Where statements may write files: it goes with the servers, however the test ends.
fn folder(watched: &Watched) -> std::path::PathBuf {
    let log = watched.pair.general_log(1);
    let servers = log.ancestors().nth(2).expect("the servers have a folder");
    servers.join(format!("files-{}", watched.kind.name()))
}

fn is_read(text: &[u8]) -> bool {
    let reading = Reading { charset: Charset::Utf8, has_escapes: true };
    classify(text, reading).class == Class::Replica
}

/// Runs what is called a read, as a query or prepared. Whether the server took it.
fn run(session: &mut Raw, text: &[u8], is_prepared: bool) -> bool {
    if !is_prepared {
        return error_code(&session.ask(text)).is_none();
    }
    let Ok((id, 0)) = session.prepare(text) else { return false };
    let is_done = error_code(&session.execute(id, 0, b"")).is_none();
    session.send(&[&b"\x19"[..], &id.to_le_bytes()].concat());
    is_done
}

#[test]
fn what_is_called_a_read_changes_nothing_on_a_server_that_allows_everything() {
    let number = |name| std::env::var(name).ok().and_then(|it| it.parse::<u32>().ok());
    let (count, is_long) = match number("TANDEM_STATEMENTS") {
        Some(count) => (usize::try_from(count).unwrap(), true),
        None => (4000, false),
    };
    let seed = u64::from(number("TANDEM_SEED").unwrap_or(42));
    let since = Clock::now();
    on_each(&Kind::ALL, |watched| {
        let folder = folder(watched);
        std::fs::create_dir_all(&folder).expect("a folder");
        watched.pair.sql(
            1,
            "SET GLOBAL general_log = 0; USE lawb;\nDELIMITER $\n\
             CREATE FUNCTION w() RETURNS INT MODIFIES SQL DATA \
             BEGIN INSERT INTO lawb.log VALUES (1); RETURN 1; END$\n\
             CREATE PROCEDURE pw() INSERT INTO lawb.log VALUES (2)$\n",
        );
        let [_, port] = watched.pair.ports();
        let mut session = watched.log_in(port, "lawb");
        let observer = watched.log_in(port, "lawb");
        let mut witness = Witness { watched, observer, folder: folder.clone() };
        let mut writer =
            Writer { rng: Rng::new(seed), folder: folder.display().to_string(), files: 0 };
        let before = witness.state(&mut session);
        let (mut reads, mut done, mut batch) = (0, 0, Vec::new());
        for number in 0..count {
            let text = writer.statement();
            if !is_read(&text) {
                continue;
            }
            reads += 1;
            done += usize::from(run(&mut session, &text, reads % 5 == 0));
            batch.push(text);
            if batch.len() == 50 || number + 1 == count {
                let after = witness.state(&mut session);
                if after != before {
                    blame(&mut witness, port, &batch);
                }
                assert_eq!(after, before, "{}, but not one by one", watched.kind.name());
                batch.clear();
            }
        }
        println!(
            "{}: {count} statements, {reads} called reads, {done} of them accepted, {:?}",
            watched.kind.name(),
            since.elapsed()
        );
        assert!(
            reads > count / 10 && done > count / 20,
            "{reads} and {done} of {count} say little"
        );
        let _ = std::fs::remove_dir_all(&folder);
        watched.pair.sql(1, "SET GLOBAL general_log = 1");
    });
    assert!(is_long || since.elapsed() < Duration::from_secs(120), "{:?}", since.elapsed());
}

/// Finds the one that did it, in a session of its own.
fn blame(witness: &mut Witness<'_>, port: u16, batch: &[Vec<u8>]) {
    for text in batch {
        for is_prepared in [false, true] {
            let mut session = witness.watched.log_in(port, "lawb");
            let before = witness.state(&mut session);
            run(&mut session, text, is_prepared);
            let after = witness.state(&mut session);
            assert_eq!(before, after, "{}", text.escape_ascii());
        }
    }
}

/// The judge is no stranger to writes: each of these must be seen.
#[test]
fn the_judge_of_reads_sees_every_kind_of_write() {
    on_each(&Kind::ALL, |watched| {
        let folder = folder(watched);
        std::fs::create_dir_all(&folder).expect("a folder");
        let [_, port] = watched.pair.ports();
        let observer = watched.log_in(port, "lawb");
        let mut witness = Witness { watched, observer, folder: folder.clone() };
        for text in [
            "INSERT INTO log VALUES (1)".to_owned(),
            "UPDATE t SET b = 'changed' WHERE a = 1".to_owned(),
            "CREATE TABLE made (a INT)".to_owned(),
            "SELECT 1 INTO @v".to_owned(),
            "SELECT GET_LOCK('g', 0)".to_owned(),
            "SELECT LAST_INSERT_ID(5)".to_owned(),
            format!("SELECT 1 INTO OUTFILE '{}/x'", folder.display()),
        ] {
            let mut session = watched.log_in(port, "lawb");
            let before = witness.state(&mut session);
            let answer = session.ask(&text);
            assert_ne!(witness.state(&mut session), before, "{text}: {}", value(&answer));
        }
        let _ = std::fs::remove_dir_all(&folder);
    });
}
