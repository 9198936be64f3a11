//! Laws of errant transactions: saved whole, taken back, and nothing else touched.
//!
//! In: a pair of real servers, whose old source comes back with more than it gave. Out: laws of
//! facts/repl.md section 5, 24 and 25. Must not: know how a pair is made (`pair`).

use std::path::{Path, PathBuf};
use std::process::Command;

use tandem::os::errant::{Step, discard, save, unfinished};
use tandem::repl::errant::Saved;

use super::*;

/// Every kind of column that a binlog writes in a way of its own.
const TYPES: &str = "CREATE TABLE app.kinds (id INT UNSIGNED PRIMARY KEY, tiny TINYINT, \
    small SMALLINT UNSIGNED, medium MEDIUMINT, big BIGINT UNSIGNED, dec_ DECIMAL(20,6), f FLOAT, \
    d DOUBLE, name VARCHAR(300) CHARACTER SET utf8, old VARCHAR(20) CHARACTER SET latin1, \
    fixed CHAR(10), raw_ VARBINARY(40), body BLOB, words TEXT, day_ DATE, moment DATETIME(6), \
    stamp TIMESTAMP(3) NULL, clock TIME, y YEAR, flags BIT(10), kind ENUM('a','b','c'), \
    many SET('x','y','z')) ENGINE=InnoDB";
const ROW_1: &str = "(1, -5, 65535, -8388608, 18446744073709551615, -12345678901234.567891, 1.5, \
    -2.25, 'Zo\\'e \\\\ \u{e9}\u{20ac}', _latin1 x'e9', 'ab', x'00ff', x'deadbeef00', 'a\\nb', \
    '2026-11-26', '2026-11-26 10:11:12.123456', '2026-11-26 10:11:12.5', '-12:34:56', 2026, \
    b'1000000001', 'c', 'x,z')";
const ROW_2: &str = "(2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)";

pub(super) struct Returned {
    pub(super) pair: Pair,
    pub(super) directory: PathBuf,
}

impl Drop for Returned {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir_all(&self.directory);
    }
}

impl Returned {
    /// A did `errant` when B was gone, and died; B was promoted; A is back, fenced and refused.
    pub(super) fn new(recipe: &'static Recipe, before: &[&str], errant: &[&str]) -> Self {
        let mut pair = Pair::new(recipe);
        pair.set_up();
        pair.a.run(TYPES);
        pair.a.run("CREATE TABLE app.keyless (a INT, b VARCHAR(20)) ENGINE=InnoDB");
        pair.a.run("CREATE TABLE app.log (n INT) ENGINE=InnoDB");
        for sql in before {
            pair.a.run(sql);
        }
        write_rows(&pair.a, 0..4);
        pair.catch_up_b();
        pair.b.crash();
        for sql in errant {
            pair.a.run(sql);
        }
        pair.a.crash();
        pair.b.start(&["--read-only=1"]);
        pair.host_b.job(Job::Fence).expect("B is fenced");
        pair.host_b.job(Job::Promote).expect("B is promoted");
        write_rows(&pair.b, 100..103);
        pair.a.start(&[]);
        pair.host_a.job(Job::Fence).expect("A is fenced");
        let directory = std::env::temp_dir().join(format!(
            "tandem-errant-{}-{}",
            std::process::id(),
            pair.a.address.port()
        ));
        let returned = Self { pair, directory };
        let _none_left = std::fs::remove_dir_all(&returned.directory);
        returned
    }

    pub(super) fn follow(&mut self) -> Result<Outcome, Failure> {
        let peer_position = Some(self.pair.host_b.position());
        self.pair.host_a.job(Job::Follow { peer_position })
    }

    pub(super) fn save(&mut self) -> Result<Saved, String> {
        let known = self.pair.host_b.position();
        save(&self.pair.a.login(), &known, &self.directory)
    }

    /// A is B's replica, and every table is the same on both.
    pub(super) fn is_whole(&mut self, what: &str) {
        let followed = self.follow();
        assert_eq!(followed, Ok(Outcome::Following { was_following: false }), "{what}");
        let position = self.pair.host_b.position();
        let limit = Duration::from_secs(10);
        self.pair.host_a.job(Job::CatchUp { position, limit }).expect("A catches up");
        for table in ["app.t", "app.kinds", "app.keyless", "app.log"] {
            let sum = |server: &Server| -> (String, String) {
                let row = server.connect(ADMIN).query_first(format!("CHECKSUM TABLE {table}"));
                row.expect("a checksum").expect("a row")
            };
            assert_eq!(sum(&self.pair.a), sum(&self.pair.b), "{what}: {table}");
        }
        let closed = self.pair.host_a.observe();
        assert!(closed.is_read_only, "{what}");
    }
}

pub(super) fn text_of(saved: &Saved) -> String {
    std::fs::read_to_string(Path::new(&saved.directory).join("events.sql")).expect("it is there")
}

pub(super) fn errant_rows_are_saved_and_taken_back(recipe: &'static Recipe) {
    let trigger = "CREATE TRIGGER app.fires AFTER INSERT ON app.keyless FOR EACH ROW \
                   INSERT INTO app.log VALUES (NEW.a)";
    let insert_1 = format!("INSERT INTO app.kinds VALUES {ROW_1}");
    let insert_2 = format!("INSERT INTO app.kinds VALUES {ROW_2}");
    let mut returned = Returned::new(
        recipe,
        &[trigger, "INSERT INTO app.keyless VALUES (1, 'old'), (2, 'old'), (2, 'old')"],
        &[
            &insert_1,
            &insert_2,
            "UPDATE app.kinds SET tiny=7, name='other', body=NULL WHERE id=1",
            "INSERT INTO app.keyless VALUES (3, 'new')",
            "DELETE FROM app.keyless WHERE a=2 LIMIT 1",
            "UPDATE app.t SET id=id+50 ORDER BY id DESC",
            "DELETE FROM app.t WHERE id=51",
        ],
    );
    let extra = match returned.follow() {
        Err(Failure::Diverged { extra, .. }) => extra,
        other => panic!("must be refused: {other:?}"),
    };
    let saved = returned.save().expect("they are saved");
    assert_eq!((&saved.extra, saved.transactions, &saved.obstacle), (&extra, 7, &None));
    assert_eq!(saved.rows, 1 + 1 + 1 + 2 + 1 + 4 + 1, "the trigger's row too");
    assert_eq!(returned.save().as_ref(), Ok(&saved), "once is enough");

    // What a person reads does the same again elsewhere, to the byte.
    let text = text_of(&saved);
    assert!(text.contains("INSERT INTO `app`.`kinds` (`id`, `tiny`"), "{text}");
    let kinds = "SELECT * FROM app.kinds ORDER BY id";
    let there = |server: &Server| -> Vec<mysql::Row> {
        server.connect(ADMIN).query(kinds).expect("a read")
    };
    let wanted = format!("{:?}", there(&returned.pair.a));
    let mut conn = returned.pair.b.connect(ADMIN);
    // The trigger would do its part once more.
    conn.query_drop("DROP TRIGGER app.fires").expect("an administrator");
    for statement in text.split(";\n").map(str::trim).filter(|it| !it.is_empty()) {
        let lines = statement.lines().filter(|line| !line.starts_with("--"));
        let statement = lines.collect::<Vec<_>>().join("\n");
        conn.query_drop(&statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    assert_eq!(format!("{:?}", there(&returned.pair.b)), wanted);
    let left = "SELECT COUNT(*), SUM(a) FROM app.keyless";
    let sums = |server: &Server| {
        server.value(&format!(
            "SELECT CONCAT_WS(' ', ({}), ({}))",
            left.replace(", SUM(a)", ""),
            left.replace("COUNT(*), ", "")
        ))
    };
    assert_eq!(sums(&returned.pair.b), sums(&returned.pair.a));
    returned.pair.b.run("DELETE FROM app.kinds");

    discard(&returned.pair.a.login(), &saved, Step::Over).expect("they are taken back");
    returned.is_whole("taken back");
    assert!(unfinished(&returned.directory).is_none());
}

/// The binlog that was saved is one for the server's own tools.
pub(super) fn the_saved_binlog_is_a_binlog(recipe: &'static Recipe) {
    let mut returned = Returned::new(recipe, &[], &["INSERT INTO app.keyless VALUES (9, 'nine')"]);
    let saved = returned.save().expect("it is saved");
    let Some(program) = recipe.binlog_program() else {
        eprintln!("{}: no mysqlbinlog in this installation", recipe.flavour);
        return;
    };
    let path = Path::new(&saved.directory).join("events.binlog");
    let (first, rest) = program.split_first().expect("a program");
    let output = Command::new(first)
        .args(rest)
        .args(["--base64-output=decode-rows", "-v"])
        .arg(&path)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("### INSERT INTO `app`.`keyless`") && said.contains("'nine'"), "{said}");
}

pub(super) fn a_discard_cut_off_after_any_step_is_finished_by_the_next(recipe: &'static Recipe) {
    let mut returned = Returned::new(
        recipe,
        &["INSERT INTO app.keyless VALUES (1, 'old')"],
        &["INSERT INTO app.t VALUES (7, 'x')", "UPDATE app.keyless SET b='new'"],
    );
    let saved = returned.save().expect("they are saved");
    let server = returned.pair.a.login();
    for last in [Step::Undone, Step::Intended, Step::Committed, Step::Forgotten] {
        discard(&server, &saved, last).unwrap_or_else(|why| panic!("{last:?}: {why}"));
        if last < Step::Forgotten {
            let refused = returned.follow();
            assert!(matches!(refused, Err(Failure::Diverged { .. })), "{last:?}: {refused:?}");
        }
        if last > Step::Undone {
            let found = unfinished(&returned.directory);
            assert_eq!(found.as_ref(), Some(&saved), "{last:?}");
        }
    }
    // Whoever attached it now would apply everything again.
    match returned.follow() {
        Err(Failure::Refused(why)) => assert!(why.contains("are lost here"), "{why}"),
        Err(Failure::Diverged { .. }) if recipe.flavour == "mariadb" => {}
        other => panic!("must be refused: {other:?}"),
    }
    discard(&server, &saved, Step::Over).expect("the rest");
    returned.is_whole("finished");
}

pub(super) fn what_cannot_be_taken_back_is_said_and_left(recipe: &'static Recipe) {
    let parent = "CREATE TABLE app.parent (id INT PRIMARY KEY) ENGINE=InnoDB";
    let child = "CREATE TABLE app.child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES \
                 app.parent (id) ON DELETE CASCADE) ENGINE=InnoDB";
    let fill = "INSERT INTO app.parent VALUES (1)";
    let mut returned = Returned::new(
        recipe,
        &[parent, child, fill, "INSERT INTO app.child VALUES (1, 1)"],
        &["DELETE FROM app.parent"],
    );
    let saved = returned.save().expect("it is saved");
    let why = saved.obstacle.as_deref().unwrap_or_default();
    assert!(why.contains("app.parent") && why.contains("child"), "{why}");
    let server = returned.pair.a.login();
    let refused = discard(&server, &saved, Step::Over).expect_err("it is refused");
    assert!(refused.contains("child"), "{refused}");

    // A statement cannot be taken back either, and rows that changed since stay as they are.
    let mut returned =
        Returned::new(recipe, &[], &["INSERT INTO app.t VALUES (7, 'x')", "DROP TABLE app.log"]);
    let saved = returned.save().expect("they are saved");
    assert!(text_of(&saved).contains("DROP TABLE"), "{}", text_of(&saved));
    let why = saved.obstacle.as_deref().unwrap_or_default();
    assert!(why.contains("DROP TABLE"), "{why}");
    assert!(matches!(returned.follow(), Err(Failure::Diverged { transactions: 2, .. })));
}

pub(super) fn rows_that_changed_since_are_left_alone(recipe: &'static Recipe) {
    let mut returned = Returned::new(
        recipe,
        &[],
        &["INSERT INTO app.t VALUES (7, 'x')", "INSERT INTO app.t VALUES (8, 'x')"],
    );
    let saved = returned.save().expect("they are saved");
    if recipe.flavour == "mysql97" {
        returned.pair.a.run("SET GLOBAL super_read_only=OFF");
    }
    let mut conn = returned.pair.a.connect(ADMIN);
    conn.query_drop("SET SESSION sql_log_bin=0").expect("an administrator");
    conn.query_drop("DELETE FROM app.t WHERE id=7").expect("an administrator");
    let count = rows(&returned.pair.a);
    let server = returned.pair.a.login();
    let why = discard(&server, &saved, Step::Over).expect_err("7 is not there");
    assert!(why.contains("not as they were left"), "{why}");
    assert_eq!(rows(&returned.pair.a), count, "8 is still there");
    let seen = returned.pair.host_a.observe();
    assert!(seen.is_read_only);
    assert!(matches!(returned.follow(), Err(Failure::Diverged { transactions: 2, .. })));
}

pub(super) fn what_is_no_longer_in_the_binlogs_is_said(recipe: &'static Recipe) {
    let mut returned = Returned::new(recipe, &[], &["INSERT INTO app.t VALUES (7, 'x')"]);
    let logs = |server: &Server| -> Vec<mysql::Row> {
        server.connect(ADMIN).query("SHOW BINARY LOGS").expect("a list")
    };
    eventually("the binlogs are purged", || {
        returned.pair.a.run("FLUSH BINARY LOGS");
        let last: String = logs(&returned.pair.a).last().and_then(|row| row.get(0)).expect("one");
        returned.pair.a.run(&format!("PURGE BINARY LOGS TO '{last}'"));
        logs(&returned.pair.a).len() == 1
    });
    let why = returned.save().expect_err("it is gone");
    assert!(why.contains("not in the binlogs any more"), "{why}");
}

pub(super) fn a_database_is_replaced_by_a_copy_of_the_peers(recipe: &'static Recipe) {
    let mut returned = Returned::new(recipe, &[], &["DROP TABLE app.log"]);
    assert!(matches!(returned.follow(), Err(Failure::Diverged { .. })));
    let reseeded = returned.pair.host_a.job(Job::Reseed);
    if recipe.flavour != "mysql97" {
        match reseeded {
            Err(Failure::Refused(why)) => assert!(why.contains("by itself"), "{why}"),
            other => panic!("it cannot: {other:?}"),
        }
        return;
    }
    assert_eq!(reseeded, Ok(Outcome::Reseeded));
    // The server ended itself; what watches over it starts it again.
    returned.pair.a.crash();
    returned.pair.a.start(&["--read-only=1", "--super-read-only=1"]);
    returned.pair.host_a.job(Job::Fence).expect("A is fenced");
    returned.is_whole("copied");

    // A donor that cannot be reached leaves this one as it is, closed.
    returned.pair.b.crash();
    match returned.pair.host_a.job(Job::Reseed) {
        Err(Failure::Server { step, .. }) => assert!(step.contains("cloning"), "{step}"),
        other => panic!("the donor is down: {other:?}"),
    }
    let sql = "SELECT CONCAT(@@GLOBAL.super_read_only, (SELECT COUNT(*) FROM app.t) > 0)";
    assert_eq!(returned.pair.a.value(sql), "11");
}
