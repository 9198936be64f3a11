//! Laws of a copy by way of SQL: exact, of one moment, and never half believed.
//!
//! In: a pair of real servers that cannot clone. Out: laws of facts/repl.md section 5, 26, 27.
//! Must not: know how a pair is made (`pair`).

use tandem::os::copy::copy;

use super::*;

/// Objects that a copy gets wrong easily, in both families.
const OBJECTS: [&str; 19] = [
    "CREATE DATABASE app DEFAULT CHARACTER SET utf8",
    "CREATE DATABASE `o'dd ``db` DEFAULT CHARACTER SET latin1 COLLATE latin1_german1_ci",
    "CREATE TABLE `o'dd ``db`.`t``` (`a``b` INT, old VARCHAR(20), wide VARCHAR(20) CHARACTER SET \
     ucs2, INDEX (`a``b`)) ENGINE=InnoDB",
    "CREATE TABLE app.child (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES \
     app.t (id)) ENGINE=InnoDB",
    "CREATE TABLE app.t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(60)) ENGINE=InnoDB \
     AUTO_INCREMENT=1000",
    "CREATE TABLE app.parts (id INT, f FLOAT, d DOUBLE, b BIT(10), e ENUM('a','b'), \
     s SET('x','y'), raw_ LONGBLOB, m TIMESTAMP NULL, PRIMARY KEY (id)) ENGINE=InnoDB \
     PARTITION BY HASH (id) PARTITIONS 3",
    "CREATE TABLE app.places (g GEOMETRY) ENGINE=InnoDB",
    "INSERT INTO app.places VALUES (GeomFromText('POINT(1 2)', 4326)), (NULL)",
    "CREATE TABLE app.logged (v VARCHAR(60)) ENGINE=InnoDB",
    "CREATE TRIGGER app.fires AFTER INSERT ON app.t FOR EACH ROW INSERT INTO app.logged VALUES \
     (NEW.v)",
    "CREATE FUNCTION app.twice(n INT) RETURNS INT DETERMINISTIC RETURN 2 * n",
    "CREATE PROCEDURE app.`pro c`() BEGIN SELECT 'é'; END",
    "CREATE VIEW app.a_view AS SELECT id FROM app.z_view",
    "CREATE VIEW app.z_view AS SELECT app.twice(id) AS id FROM app.t",
    "CREATE EVENT app.tick ON SCHEDULE EVERY 1 DAY DO INSERT INTO app.logged VALUES ('tick')",
    "GRANT SELECT ON app.* TO 'reader'@'10.%' IDENTIFIED BY 'geheim'",
    "GRANT INSERT (v) ON app.t TO 'reader'@'10.%'",
    "INSERT INTO `o'dd ``db`.`t``` VALUES (NULL, _latin1 x'e9', _ucs2 x'00e920ac'), (7, '', 'x')",
    "INSERT INTO app.parts VALUES (0, 16777217, 0.1, b'1000000001', 'b', 'x,y', x'00ff5c27', \
     '2026-03-29 01:30:00'), \
     (-5, 1.17549435e-38, -1e300, NULL, '', '', '', NULL), \
     (9, 3.1415927, 2.5, NULL, NULL, NULL, NULL, NULL)",
];

const MARIADB_OBJECTS: [&str; 6] = [
    "CREATE SEQUENCE app.numbers START WITH 100 INCREMENT BY 7 CACHE 10",
    "CREATE TABLE app.modern (id INT DEFAULT NEXTVAL(app.numbers) PRIMARY KEY, u UUID, i INET6, \
     j JSON, hidden INT INVISIBLE DEFAULT 3, twice INT AS (id * 2) STORED, virt INT AS (id * 3), \
     CHECK (id > 0)) ENGINE=InnoDB",
    "INSERT INTO app.modern (u, i, j, hidden) VALUES ('123e4567-e89b-12d3-a456-426655440000', \
     '2001:db8::1', '{\"é\": 1}', 8), (NULL, '::ffff:10.0.0.1', NULL, NULL)",
    "CREATE ROLE auditor",
    "GRANT auditor TO 'reader'@'10.%'",
    "CREATE TABLE app.later (id INT PRIMARY KEY) ENGINE=InnoDB",
];

/// B's binlogs do not reach back to the beginning, and A's disk is new.
fn new_disk(recipe: &'static Recipe) -> Pair {
    let mut pair = Pair::new(recipe);
    pair.host_b.job(Job::Promote).expect("B is promoted");
    // Views and children come before what they need.
    let mut conn = pair.b.connect(ADMIN);
    conn.query_drop("SET foreign_key_checks=0, sql_mode=''").expect("a setting");
    let (views, others): (Vec<&str>, Vec<&str>) =
        OBJECTS.iter().partition(|sql| sql.starts_with("CREATE VIEW"));
    let more: &[&str] = if recipe.flavour == "mariadb" { &MARIADB_OBJECTS } else { &[] };
    for sql in others.into_iter().chain(views.into_iter().rev()).chain(more.iter().copied()) {
        conn.query_drop(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    purge_first_binlog(&pair.b);
    pair.host_a.job(Job::Fence).expect("A is fenced");
    let peer_position = Some(pair.host_b.position());
    let failed = pair.host_a.job(Job::Follow { peer_position });
    assert!(matches!(failed, Err(Failure::NeedsCopy(_))), "{failed:?}");
    pair
}

/// Every row of every table, and every definition, as the server tells them.
fn contents(server: &Server) -> Vec<String> {
    let mut conn = server.connect(ADMIN);
    let mut all = |sql: String| -> Vec<String> {
        let rows: Vec<mysql::Row> =
            conn.query(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let text = |value: mysql::Value| value.as_sql(true);
        let words = |row: mysql::Row| row.unwrap().into_iter().map(text).collect::<Vec<_>>();
        rows.into_iter().map(|row| format!("{sql}: {}", words(row).join(", "))).collect()
    };
    let own = tandem::repl::copy::OWN_SCHEMAS;
    let mut found = all(format!(
        "SELECT SCHEMA_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE \
         SCHEMA_NAME NOT IN ({own}) ORDER BY SCHEMA_NAME"
    ));
    for table in
        ["`o'dd ``db`.`t```", "app.t", "app.child", "app.parts", "app.places", "app.logged"]
    {
        found.extend(all(format!("CHECKSUM TABLE {table}")));
        found.extend(all(format!("SHOW CREATE TABLE {table}")));
    }
    if server.value("SELECT VERSION()").contains("MariaDB") {
        for sql in [
            "SELECT *, hidden FROM app.modern ORDER BY id",
            "SHOW CREATE TABLE app.modern",
            "SHOW CREATE TABLE app.later",
            "SHOW CREATE SEQUENCE app.numbers",
            "SELECT * FROM mysql.roles_mapping ORDER BY Host, User, Role",
        ] {
            found.extend(all(sql.to_owned()));
        }
    }
    for sql in [
        "SHOW CREATE VIEW app.a_view",
        "SHOW CREATE VIEW app.z_view",
        "SHOW CREATE FUNCTION app.twice",
        "SHOW CREATE PROCEDURE app.`pro c`",
        "SHOW CREATE EVENT app.tick",
        "SHOW GRANTS FOR 'reader'@'10.%'",
        "SELECT COUNT(*), SUM(id) FROM app.a_view",
        "SELECT TRIGGER_NAME, ACTION_STATEMENT, SQL_MODE, DEFINER, COLLATION_CONNECTION FROM \
         information_schema.TRIGGERS WHERE TRIGGER_SCHEMA='app'",
    ] {
        found.extend(all(sql.to_owned()));
    }
    found
}

fn write_eight_megabytes(server: &Server) {
    server.run("CREATE TABLE app.zz_many (id INT PRIMARY KEY, v LONGTEXT) ENGINE=InnoDB");
    for id in 0..8 {
        server.run(&format!("INSERT INTO app.zz_many VALUES ({id}, REPEAT('x', 1000000))"));
    }
}

/// A goes on from where it was copied, and has what B has by now.
fn follow_up(pair: &mut Pair) {
    let position = pair.host_b.position();
    let followed = pair.host_a.job(Job::Follow { peer_position: Some(position.clone()) });
    assert_eq!(followed, Ok(Outcome::Following { was_following: false }));
    let limit = Duration::from_secs(20);
    pair.host_a.job(Job::CatchUp { position, limit }).expect("A catches up");
}

fn unfinished(server: &Server) -> String {
    server.value(
        "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA='tandem' AND \
         TABLE_NAME='unfinished_copy'",
    )
}

/// Writes until it is told to stop; yields how many writes were acknowledged.
fn writer(server: &Server, sql: &'static str) -> (Arc<AtomicBool>, thread::JoinHandle<u32>) {
    let address = server.address;
    let ends = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&ends);
    let writes = thread::spawn(move || {
        let mut conn = pair::log_in(address, ADMIN).expect("the server is up");
        let mut written = 0;
        while !is_over.load(Ordering::Relaxed) {
            conn.query_drop(sql).expect("a write");
            written += 1;
        }
        written
    });
    (ends, writes)
}

pub(super) fn a_copy_is_exact_and_of_one_moment(recipe: &'static Recipe) {
    let mut pair = new_disk(recipe);
    let (ends, writes) = writer(&pair.b, "INSERT INTO app.t (v) VALUES ('é')");
    let mut said = Vec::new();
    let copied = copy(&pair.b.login(), &pair.a.login(), &mut |what| said.push(what));
    ends.store(true, Ordering::Relaxed);
    let written = writes.join().expect("the writer ends");
    assert_eq!(copied, Ok(()), "{said:?}");
    assert!(written > 0);
    assert!(pair.host_a.observe().is_read_only);
    follow_up(&mut pair);
    let (mut theirs, mine) = (contents(&pair.b), contents(&pair.a));
    // What a source runs, a replica does not.
    let tick = "SHOW CREATE EVENT app.tick";
    let place = theirs.iter().position(|it| it.starts_with(tick)).expect("it is there");
    assert!(mine[place].contains("EVERY 1 DAY"), "{}", mine[place]);
    theirs[place].clone_from(&mine[place]);
    assert_eq!(mine, theirs);
    assert_eq!(pair.a.value("SELECT COUNT(*) FROM app.logged"), written.to_string());
    assert_eq!(unfinished(&pair.a), "0");
    // What was copied survives as what it is: a host that can be promoted.
    pair.a.crash();
    pair.a.start(&["--read-only=1"]);
    pair.host_a.restart();
    pair.host_a.job(Job::Fence).expect("A is fenced");
    pair.host_a.job(Job::Promote).expect("A is promoted");
    pair.a.run("INSERT INTO app.t (v) VALUES ('later')");
}

/// Replication makes it once more, if it is copied and not of the snapshot's moment.
pub(super) fn what_is_made_during_a_copy_is_made_once(recipe: &'static Recipe) {
    let mut pair = new_disk(recipe);
    write_eight_megabytes(&pair.b);
    let ends = Arc::new(AtomicBool::new(false));
    let (is_over, address) = (Arc::clone(&ends), pair.b.address);
    let making = thread::spawn(move || {
        let mut conn = pair::log_in(address, ADMIN).expect("the server is up");
        let mut number = 0;
        while !is_over.load(Ordering::Relaxed) {
            number += 1;
            for sql in [
                format!("CREATE DATABASE made{number}"),
                format!("CREATE TABLE made{number}.t (id INT PRIMARY KEY) ENGINE=InnoDB"),
                format!("INSERT INTO made{number}.t VALUES (1), (2)"),
                format!("CREATE VIEW made{number}.v AS SELECT COUNT(*) AS n FROM made{number}.t"),
                format!("CREATE FUNCTION made{number}.f() RETURNS INT DETERMINISTIC RETURN 1"),
                format!("CREATE USER made{number}@localhost"),
            ] {
                conn.query_drop(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
            }
        }
        number
    });
    let copied = copy(&pair.b.login(), &pair.a.login(), &mut |_| ());
    ends.store(true, Ordering::Relaxed);
    let made: u32 = making.join().expect("it ends");
    assert_eq!(copied, Ok(()));
    follow_up(&mut pair);
    let counts = "SELECT CONCAT_WS(' ', (SELECT COUNT(*) FROM information_schema.TABLES WHERE \
                  TABLE_SCHEMA LIKE 'made%'), (SELECT COUNT(*) FROM mysql.user WHERE user LIKE \
                  'made%'), (SELECT COUNT(*) FROM mysql.proc WHERE db LIKE 'made%'))";
    assert_eq!(pair.a.value(counts), format!("{} {made} {made}", 2 * made));
    assert_eq!(pair.a.value(&format!("SELECT n FROM made{made}.v")), "2");
}

pub(super) fn a_copy_replaces_what_was_there(recipe: &'static Recipe) {
    let mut returned =
        Returned::new(recipe, &[], &["DROP TABLE app.log", "CREATE DATABASE errant"]);
    let errant = "CREATE USER errant@localhost";
    let mut conn = returned.pair.a.connect(ADMIN);
    conn.query_drop("SET SESSION sql_log_bin=0").expect("an administrator");
    conn.query_drop(errant).expect("an administrator");
    assert!(matches!(returned.follow(), Err(Failure::Diverged { .. })));
    let (from, into) = (returned.pair.b.login(), returned.pair.a.login());
    assert_eq!(copy(&from, &into, &mut |_| ()), Ok(()));
    returned.is_whole("copied");
    assert_eq!(returned.pair.a.value("SHOW DATABASES LIKE 'errant'"), "");
    assert_eq!(returned.pair.a.value("SELECT COUNT(*) FROM mysql.user WHERE user='errant'"), "0");
    // Again, from where it is now.
    returned.pair.b.run("INSERT INTO app.log VALUES (1)");
    assert_eq!(copy(&from, &into, &mut |_| ()), Ok(()));
    returned.is_whole("copied again");
}

pub(super) fn a_copy_that_was_cut_off_is_never_believed(recipe: &'static Recipe) {
    let mut pair = new_disk(recipe);
    write_eight_megabytes(&pair.b);
    let allowance = Arc::new(AtomicI64::new(4_000_000));
    let port = throttle(pair.b.address, allowance.clone());
    let through = LocalServer::new(([127, 0, 0, 1], port).into(), ADMIN.0, ADMIN.1);
    let into = pair.a.login();
    let copying = thread::spawn(move || copy(&through, &into, &mut |_| ()));
    eventually("half of it has come", || allowance.load(Ordering::SeqCst) < 0);
    pair.b.crash();
    let why = copying.join().expect("it ends").expect_err("the source is gone");
    assert!(why.contains("zz_many"), "{why}");
    pair.b.start(&[]);
    for restarts in [false, true] {
        if restarts {
            pair.a.crash();
            pair.a.start(&["--read-only=1"]);
        }
        assert!(pair.host_a.observe().is_read_only);
        for job in [Job::Promote, Job::Follow { peer_position: Some(pair.host_b.position()) }] {
            match pair.host_a.job(job) {
                Err(Failure::Refused(why)) => assert!(why.contains("is not whole"), "{why}"),
                other => panic!("must be refused: {other:?}"),
            }
        }
    }
    assert_eq!(copy(&pair.b.login(), &pair.a.login(), &mut |_| ()), Ok(()));
    let peer_position = Some(pair.host_b.position());
    pair.host_a.job(Job::Follow { peer_position }).expect("it is whole");
    assert_eq!(pair.a.value("SELECT SUM(LENGTH(v)) FROM app.zz_many"), "8000000");
}

pub(super) fn what_cannot_be_copied_changes_nothing(recipe: &'static Recipe) {
    let pair = new_disk(recipe);
    // Nobody's writes wait for a copy that waits for a statement.
    let mut conn = pair.b.connect(ADMIN);
    pair.a.run("SET GLOBAL read_only=OFF");
    let why = copy(&pair.b.login(), &pair.a.login(), &mut |_| ()).expect_err("A is open");
    assert!(why.contains("must be closed"), "{why}");
    pair.a.run("SET GLOBAL read_only=ON");
    conn.query_drop("ALTER TABLE mysql.servers ADD COLUMN more INT").expect("an administrator");
    let why = copy(&pair.b.login(), &pair.a.login(), &mut |_| ()).expect_err("they differ");
    assert!(why.contains("mysql.servers has other columns"), "{why}");
    assert_eq!(unfinished(&pair.a), "0", "nothing was begun");
}

/// A table that no snapshot holds, written to all the time, is the same all the same.
pub(super) fn what_no_snapshot_holds_is_copied_under_a_lock(recipe: &'static Recipe) {
    let mut pair = new_disk(recipe);
    pair.b.run("DROP TRIGGER app.fires");
    pair.b.run("ALTER TABLE app.logged ENGINE=MyISAM");
    let (ends, writes) = writer(&pair.b, "INSERT INTO app.logged VALUES ('é')");
    let copied = copy(&pair.b.login(), &pair.a.login(), &mut |_| ());
    ends.store(true, Ordering::Relaxed);
    let written = writes.join().expect("the writer ends");
    assert_eq!(copied, Ok(()));
    follow_up(&mut pair);
    assert_eq!(pair.a.value("SELECT COUNT(*) FROM app.logged"), written.to_string());
}
