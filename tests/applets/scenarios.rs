//! Laws of facts/repl.md section 5 that the applets show: what is refused, and by which name.
//!
//! In: a real pair, applets run against it. Out: laws, each with its scenario's number. Must not:
//! know how a pair is made (`stage`).
//! Read first: tests/repl/scenarios.txt, which says where each scenario is proved.

use mysql::prelude::Queryable;

use super::pair::{ADMIN, APP, Server};
use super::*;

const CHECK: &str = "mysqlrplcheck --master=root:pw@SERVER1 --slave=root:pw@SERVER2";
const FAILOVER: &str = "mysqlrpladmin --slave=root:pw@SERVER2 --rpl-user=rpl:pw failover";
const REJOIN: &str =
    "mysqlreplicate --master=root:pw@SERVER2 --slave=root:pw@SERVER1 --rpl-user=rpl:pw";

fn is_open(server: &Server) -> bool {
    server.value("SELECT @@GLOBAL.read_only") == "0"
}

/// Runs each on B, in the words of its version.
fn on_b(stage: &Stage, statements: &[&str]) {
    for sql in statements {
        stage.pair.b.run(&stage.in_its_words(sql));
    }
}

/// Scenario 12: B had stopped to receive before A died.
pub(super) fn a_stale_replica_is_promoted_only_if_told_to(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..3);
    stage.pair.catch_up_b();
    on_b(&stage, &["STOP SLAVE IO_THREAD"]);
    stage.write(3..5);
    stage.pair.a.crash();
    let said = stage.fails(FAILOVER);
    for part in ["did not receive when its master died", " s ago", "--force", "would be lost"] {
        assert!(said.has(part), "{part}: {}", said.text);
    }
    assert!(!is_open(&stage.pair.b), "nothing was changed");
    let said = stage.ok(&FAILOVER.replace("failover", "--force failover"));
    assert!(said.has("WARNING: Slave") && said.has("would be lost"), "{}", said.text);
    assert_eq!((rows(&stage.pair.b), is_open(&stage.pair.b)), (3, true));
}

/// Scenario 13.
pub(super) fn a_delay_is_refused_by_name(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..3);
    stage.pair.catch_up_b();
    on_b(&stage, &["STOP SLAVE", "CHANGE MASTER TO MASTER_DELAY=60", "START SLAVE"]);
    stage.write(3..5);
    // Before its receiver is connected it does not replicate, which would be told instead.
    stage.wait_until_received();
    let said = stage.fails(SWITCH);
    assert!(said.has("applies with a delay of 60 seconds"), "{}", said.text);
    assert!(is_open(&stage.pair.a), "no write was blocked");
    stage.pair.a.crash();
    let said = stage.fails(FAILOVER);
    assert!(said.has("2 received transactions are held back by a delay of 60"), "{}", said.text);
    assert!(!is_open(&stage.pair.b), "nothing was changed");
}

/// Scenarios 39 and 41.
pub(super) fn a_lagging_replica_is_refused_and_so_is_a_second_command(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..1);
    stage.pair.catch_up_b();
    let lock = stage.hold_applier();
    stage.write(1..3);
    let writer = stage.writer(1_000_000);
    let first = stage.begin(&SWITCH.replace("switchover", "--timeout=4 switchover"));
    thread::sleep(Duration::from_millis(700));
    for second in [REPLICATE, "mysqlrpladmin --slaves=root:pw@SERVER2 stop"] {
        let said = stage.fails(second);
        assert!(said.has("Another command is changing the roles"), "{second}: {}", said.text);
        assert!(said.has(" from 127.0.0."), "{second}: {}", said.text);
    }
    stage.ok(HEALTH);
    let said = stage.end(first);
    let written = writer.stop();
    assert_eq!(said.code, 1, "{}", said.text);
    assert!(said.has("did not catch up") && said.has("as before"), "{}", said.text);
    assert!(is_open(&stage.pair.a));
    assert!(written.gap < Duration::from_secs(1), "writes were blocked for {:?}", written.gap);
    // What a killed command held is gone with it.
    stage.run_killed(SWITCH, Duration::from_millis(300));
    drop(lock);
    stage.ok(SWITCH);
    assert_eq!(written.lost(&stage.pair.b), 0);
}

/// One misfit of B: options, what mysqlreplicate says, what mysqlrplcheck says.
type Misfit = (&'static [&'static str], &'static str, &'static str);

fn misfits(flavour: &str) -> Vec<Misfit> {
    const ID: Misfit =
        (&["--server-id=1"], "server_id is the same", "Both servers have the server_id 1.");
    const CASE: Misfit = (
        &["--lower-case-table-names=1"],
        "lower_case_table_names is 0 on the master and 1 on the slave",
        "It is 0 on the master and 1 on the slave.",
    );
    match flavour {
        "mariadb" => vec![
            ID,
            CASE,
            (&["--skip-log-bin"], "log_bin is OFF on", "log_bin is ON on the master and OFF on"),
            (
                &["--skip-log-slave-updates"],
                "log_slave_updates is OFF on",
                "log_slave_updates is ON on the master and OFF on the slave.",
            ),
        ],
        "mysql56" => vec![
            ID,
            CASE,
            (&["--gtid-mode=OFF"], "gtid_mode is OFF on", "gtid_mode is ON on the master and OFF"),
            // It does not start with one of these off alone.
            (
                &["--gtid-mode=OFF", "--skip-log-bin", "--skip-log-slave-updates"],
                "gtid_mode is OFF, log_bin is OFF, log_slave_updates is OFF on",
                "log_bin is ON on the master and OFF on the slave.",
            ),
        ],
        // lower_case_table_names: it does not start with another value than it was made with.
        _ => vec![
            ID,
            (
                &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"],
                "gtid_mode is OFF on",
                "gtid_mode is ON on the master and OFF on the slave.",
            ),
            (&["--skip-log-bin"], "log_bin is OFF", "log_bin is ON on the master and OFF on"),
            (
                &["--skip-log-replica-updates"],
                "log_slave_updates is OFF on",
                "log_slave_updates is ON on the master and OFF on the slave.",
            ),
        ],
    }
}

/// Scenarios 45 to 50.
pub(super) fn misfits_are_refused_by_name_and_fail_the_check(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    let refused = |stage: &Stage, by_setup: &str, by_check: &str| {
        let said = stage.fails(REPLICATE);
        assert!(said.has(by_setup), "{by_setup}: {}", said.text);
        let said = stage.fails(CHECK);
        assert!(said.has(by_check), "{by_check}: {}", said.text);
        assert_eq!(stage.pair.a.value("SELECT COUNT(*) FROM mysql.user WHERE User='rpl'"), "0");
    };
    for (options, by_setup, by_check) in misfits(recipe.flavour) {
        stage.pair.b.crash();
        stage.pair.b.start(options);
        refused(&stage, by_setup, by_check);
    }
    // The other way round it is the master that misfits.
    let said = stage.fails(REJOIN);
    assert!(said.has(" is OFF") || said.has("must have binary logging"), "{}", said.text);
    if recipe.flavour != "mariadb" {
        stage.pair.b.crash();
        // A virtual machine that was copied whole.
        let [from, to] = [&stage.pair.a, &stage.pair.b].map(|it| it.data().join("auto.cnf"));
        std::fs::copy(from, to).expect("both have run");
        stage.pair.b.start(&[]);
        refused(&stage, "UUID is the same", "Both servers have the server_uuid ");
    }
}

/// Scenarios 16, 51, 52, 53 and 55.
pub(super) fn what_would_break_later_is_warned_of(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..3);
    let a = &stage.pair.a;
    a.run("CREATE TABLE app.old (id INT PRIMARY KEY) ENGINE=MyISAM");
    a.run("INSERT INTO app.old VALUES (1)");
    a.run("CREATE USER 'boss'@'%' IDENTIFIED BY 'pw'");
    a.run("GRANT ALL ON *.* TO 'boss'@'%'");
    stage.pair.catch_up_b();
    let mut options = vec!["--replicate-ignore-db=logs", "--replicate-wild-ignore-table=app.tmp%"];
    options.extend(["--binlog-format=STATEMENT", "--skip-slave-start=0"]);
    if recipe.flavour == "mysql56" {
        options.push("--sync-master-info=1");
    }
    stage.pair.b.crash();
    stage.pair.b.start(&options);
    on_b(&stage, &["SET GLOBAL read_only=ON"]);
    stage.ok("mysqlrpladmin --slaves=root:pw@SERVER2 start");
    let said = stage.fails(CHECK);
    let mut warned = vec![
        "app.old is MyISAM.",
        "slave: binlog_format=STATEMENT; what a statement finds",
        "slave: sync_binlog=0; a power cut loses transactions.",
        "slave: innodb_flush_log_at_trx_commit=2; a power cut loses transactions.",
        "slave: Replicate_Ignore_DB=logs",
        "slave: Replicate_Wild_Ignore_Table=app.tmp%",
    ];
    match recipe.flavour {
        "mysql56" => warned.extend([
            "slave: 'boss'@'%' writes in spite of read_only.",
            "slave: sync_master_info=1; it falls behind under load.",
        ]),
        "mariadb" => warned.push("slave: 'boss'@'%' writes in spite of read_only."),
        _ => assert!(!said.has("in spite of read_only"), "{}", said.text),
    }
    for warning in warned {
        assert!(said.has(warning), "{warning}: {}", said.text);
    }
    let said = stage.fails(SWITCH);
    assert!(said.has("filters: Replicate_Ignore_DB=logs, Replicate_Wild"), "{}", said.text);
    assert!(is_open(&stage.pair.a), "no write was blocked");
    assert!(stage.run(HEALTH).has("filters differ"));
    stage.pair.b.crash();
    stage.pair.b.start(&["--read-only=1"]);
    filter_of_a_moment(&stage, recipe);
    a_fragile_table_and_a_stray_administrator(&mut stage);
}

/// Scenario 16, with a filter that no file has.
fn filter_of_a_moment(stage: &Stage, recipe: &Recipe) {
    let (filter, name) = match recipe.flavour {
        "mariadb" => ("SET GLOBAL replicate_ignore_table='app.x'", "Replicate_Ignore_Table=app.x"),
        "mysql97" => (
            "CHANGE REPLICATION FILTER REPLICATE_REWRITE_DB=((app, other))",
            "Replicate_Rewrite_DB=(app,other)",
        ),
        _ => return stage.pair.b.run("START SLAVE"),
    };
    on_b(stage, &[filter, "START SLAVE"]);
    let said = stage.fails(SWITCH);
    assert!(said.has(name), "{}", said.text);
    let none = match recipe.flavour {
        "mariadb" => "SET GLOBAL replicate_ignore_table=''",
        _ => "CHANGE REPLICATION FILTER REPLICATE_REWRITE_DB=()",
    };
    on_b(stage, &["STOP SLAVE", none, "START SLAVE"]);
}

/// Scenario 51: a failover with such a table; 55: fencing ends who would write all the same.
fn a_fragile_table_and_a_stray_administrator(stage: &mut Stage) {
    stage.pair.catch_up_b();
    stage.pair.a.crash();
    stage.ok(FAILOVER);
    assert_eq!(stage.pair.b.value("SELECT COUNT(*) FROM app.old"), "1");
    stage.pair.a.start(&[]);
    stage.ok(REJOIN);
    let mut boss = stage.pair.b.connect(("boss", "pw"));
    boss.query_drop("INSERT INTO app.t VALUES (100)").expect("an administrator writes");
    let back = FAILOVER.replace("SERVER2", "SERVER1").replace("failover", "--force failover");
    let said = stage.ok(&back);
    assert!(said.has("is read-only; "), "{}", said.text);
    let late = boss.query_drop("INSERT INTO app.t VALUES (101)");
    assert!(late.is_err(), "its connection is ended with the role");
    assert_eq!(stage.rows_of_both(), (4, 4));
}

/// Scenarios 33 to 37: what holds a source open, and what only seems to.
pub(super) fn what_holds_the_source_open_is_named_or_ended(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..3);
    stage.pair.a.run("CREATE TABLE app.locked (id INT PRIMARY KEY) ENGINE=InnoDB");
    stage.pair.catch_up_b();
    let mut other = stage.pair.a.connect(APP);
    for sql in ["XA START 'glob','branch'", "INSERT INTO app.t VALUES (50)"] {
        other.query_drop(sql).expect("a transaction");
    }
    for sql in ["XA END 'glob','branch'", "XA PREPARE 'glob','branch'"] {
        other.query_drop(sql).expect("a transaction");
    }
    let said = stage.fails(SWITCH);
    assert!(said.has("1 prepared XA transactions") && said.has("'glob','branch'"), "{}", said.text);
    other.query_drop("XA ROLLBACK 'glob','branch'").expect("its own");
    drop(other);

    let mut locker = stage.pair.a.connect(APP);
    locker.query_drop("LOCK TABLES app.locked WRITE").expect("a lock");
    let running = stage.long_statement(&stage.pair.a, "UPDATE app.t SET id=id+SLEEP(60)");
    held_open(&stage);
    drop(locker);
    stage.pair.a.run(&format!("KILL {}", running.id));
    running.thread.join().expect("it ends").expect_err("it was ended");

    // A long SELECT holds nobody up, and nobody ends it.
    let reading = stage.long_statement(&stage.pair.a, "SELECT id, SLEEP(0.4) FROM app.t");
    let began = Instant::now();
    stage.ok(SWITCH);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    reading.thread.join().expect("it ends").expect("it is left alone");
    let running = stage.long_statement(&stage.pair.b, "UPDATE app.t SET id=id+SLEEP(60)");
    stage.ok(&SWITCH_BACK.replace("switchover", "--force switchover"));
    running.thread.join().expect("it ends").expect_err("it was ended, as --force says");
    stage.pair.catch_up_b();
    assert_eq!(stage.rows_of_both(), (3, 3));
    under_a_backup(&stage);
}

/// Scenarios 33 and 34: the source is open again after three seconds.
fn held_open(stage: &Stage) {
    let began = Instant::now();
    let said = stage.fails(SWITCH);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(said.has("could not be made read-only") && said.has("--force ends"), "{}", said.text);
    assert!(is_open(&stage.pair.a) && !is_open(&stage.pair.b), "{}", said.text);
}

/// Scenario 36.
fn under_a_backup(stage: &Stage) {
    let mut backup = stage.pair.a.connect(ADMIN);
    backup.query_drop("FLUSH TABLES WITH READ LOCK").expect("a backup");
    let began = Instant::now();
    stage.ok(SWITCH);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    stage.write_on_b(60..62);
    backup.query_drop("SELECT 1").expect("the backup survives");
    assert_eq!(rows(&stage.pair.a), 3, "what it reads stands still");
    backup.query_drop("UNLOCK TABLES").expect("the backup ends");
    stage.eventually_has(&stage.pair.a, 5);
}

/// Scenario 54.
pub(super) fn events_run_on_the_source_alone(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..1);
    let a = &stage.pair.a;
    a.run("CREATE TABLE app.ticks (n INT AUTO_INCREMENT PRIMARY KEY, server INT) ENGINE=InnoDB");
    a.run(
        "CREATE EVENT app.tick ON SCHEDULE EVERY 1 SECOND DO \
           INSERT INTO app.ticks (server) VALUES (@@GLOBAL.server_id)",
    );
    a.run("SET GLOBAL event_scheduler=ON");
    let counts = |server: &Server| -> Vec<usize> {
        let count = |id: u32| format!("SELECT COUNT(*) FROM app.ticks WHERE server={id}");
        [1, 2].map(|id| server.value(&count(id)).parse().expect("a count")).to_vec()
    };
    thread::sleep(Duration::from_millis(1500));
    stage.ok(SWITCH);
    let before = counts(&stage.pair.b);
    assert!(before[0] > 0 && before[1] == 0 || before[1] == 1, "{before:?}");
    thread::sleep(Duration::from_millis(2500));
    let after = counts(&stage.pair.b);
    assert_eq!(after[0], before[0], "the demoted one is still");
    assert!((2..=4).contains(&(after[1] - before[1])), "{before:?}, {after:?}");
    assert_eq!(stage.pair.a.value("SELECT @@GLOBAL.event_scheduler"), "OFF");
    stage.pair.b.crash();
    stage.ok(&FAILOVER.replace("SERVER2", "SERVER1"));
    let before = counts(&stage.pair.a);
    thread::sleep(Duration::from_millis(2500));
    let after = counts(&stage.pair.a);
    assert!((2..=4).contains(&(after[0] - before[0])), "{before:?}, {after:?}");
    stage.pair.b.start(&[]);
    stage.ok(REPLICATE);
    stage.pair.catch_up_b();
    assert_eq!(stage.pair.b.value("SELECT @@GLOBAL.event_scheduler"), "OFF");
    assert!(counts(&stage.pair.b)[1] >= counts(&stage.pair.a)[1]);
}

/// Scenarios 59 and 60.
pub(super) fn any_letters_do_and_no_report_is_needed(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.pair.b.crash();
    stage.pair.b.start(&["--report-host="]);
    for server in [&stage.pair.a, &stage.pair.b] {
        let mut conn = server.connect(ADMIN);
        conn.query_drop("SET SESSION sql_log_bin=0").expect("an administrator");
        let user = r"'o''r\\@:%'@'%'";
        let password = r##"'p''w\\@:%"#'"##;
        for sql in [
            format!("CREATE USER {user} IDENTIFIED BY {password}"),
            format!("GRANT ALL ON *.* TO {user} WITH GRANT OPTION"),
        ] {
            conn.query_drop(sql).expect("an account");
        }
    }
    // The whole word is one argument here, so that only the applet's own rules are at work.
    let login = r##""o'r\@:%":p'w\@:%"#@SERVER"##;
    let odd =
        |line: &str| line.replace("root:pw@SERVER", login).replace("rpl:pw", r#"r'p\l:x'y\@:%"#);
    stage.ok(&odd(REPLICATE));
    stage.write(0..3);
    stage.pair.catch_up_b();
    stage.run(&odd(CHECK)).has("# ...done.");
    let said = stage.ok(&odd(HEALTH));
    assert_eq!(said.text.matches(",UP,ON,OK\n").count(), 2, "{}", said.text);
    let show = "mysqlrplshow --master=root:pw@SERVER1 --discover-slaves-login=root:pw";
    let said = stage.ok(show);
    assert!(said.has("report_host") && said.has("--slaves"), "{}", said.text);
    stage.ok(&odd(SWITCH));
    stage.write_on_b(3..5);
    stage.ok(&odd(
        &SWITCH_BACK.replace("--discover-slaves-login=root:pw", "--slaves=root:pw@SERVER1")
    ));
    stage.pair.catch_up_b();
    assert_eq!(stage.rows_of_both(), (5, 5));
    on_b(&stage, &["STOP SLAVE"]);
    let said = stage.ok(show);
    assert!(said.has("No slaves found."), "{}", said.text);
}

/// Scenario 62.
pub(super) fn a_slave_with_data_of_its_own_is_refused(recipe: &'static Recipe) {
    let stage = Stage::new(recipe);
    let mut conn = stage.pair.b.connect(ADMIN);
    conn.query_drop("SET SESSION sql_log_bin=0").expect("an administrator");
    conn.query_drop("CREATE DATABASE shop").expect("a database");
    conn.query_drop("CREATE TABLE shop.t (id INT PRIMARY KEY) ENGINE=InnoDB").expect("a table");
    let said = stage.fails(REPLICATE);
    assert!(said.has("has tables and no position"), "{}", said.text);
    conn.query_drop("SET SESSION sql_log_bin=1").expect("an administrator");
    conn.query_drop("INSERT INTO shop.t VALUES (1)").expect("a write");
    let said = stage.fails(REPLICATE);
    assert!(said.has("1 transactions are here and not on the peer"), "{}", said.text);
    assert!(is_open(&stage.pair.b), "as it was");
}

/// Scenario 26: what MySQL tells before; MariaDB refuses the replica once it asks.
pub(super) fn a_master_that_purged_what_is_needed_is_refused(recipe: &'static Recipe) {
    let stage = Stage::new(recipe);
    stage.write(0..2);
    stage.pair.a.run("FLUSH BINARY LOGS");
    // MariaDB keeps a binlog that InnoDB may still need for a recovery, and says so in a warning.
    let names = || -> Vec<String> {
        stage.pair.a.run("PURGE BINARY LOGS TO 'binlog.000002'");
        let mut conn = stage.pair.a.connect(ADMIN);
        let rows: Vec<mysql::Row> = conn.query("SHOW BINARY LOGS").expect("a list");
        rows.iter().map(|row| row.get(0).expect("a name")).collect()
    };
    stage::eventually("it is purged", || names() == ["binlog.000002"]);
    let said = stage.fails(REPLICATE);
    let words = match recipe.flavour {
        "mariadb" => "error 1236",
        _ => "are purged from the binary logs of the master",
    };
    assert!(said.has(words), "{}", said.text);
    assert!(is_open(&stage.pair.b), "as it was");
}

/// Scenario 15.
pub(super) fn what_the_new_source_wrote_as_a_replica_is_told_and_kept(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..3);
    stage.pair.catch_up_b();
    stage.open_b();
    stage.write_on_b(100..102);
    stage.pair.b.run("SET GLOBAL read_only=ON");
    stage.pair.a.crash();
    let said = stage.ok(FAILOVER);
    assert!(said.has("2 transactions are of 127.0.0.2:"), "{}", said.text);
    stage.pair.a.start(&[]);
    stage.ok(REJOIN);
    stage.eventually_has(&stage.pair.a, 5);
}

/// Scenario 28. MySQL 9.7 cannot log in to 5.6 any more, so that it is only warned of.
#[test]
fn an_older_slave_is_refused_and_a_newer_one_warned_of() {
    let (Some(new), Some(old)) = (Recipe::of("mysql97"), Recipe::of("mysql56")) else { return };
    let stage = Stage::new(new);
    let _third = stage.third(old);
    let said = stage.fails(&REPLICATE.replace("SERVER2", "SERVER3"));
    assert!(said.has("The slave (5.6.24") && said.has("is older than the master"), "{}", said.text);
    let said = stage.run(&REPLICATE.replace("SERVER1", "SERVER3"));
    assert!(said.has("is newer than the master"), "{}", said.text);
    let said = stage.fails(&CHECK.replace("SERVER2", "SERVER3"));
    let line = said.text.lines().find(|line| line.starts_with("Do the versions let"));
    assert!(line.is_some_and(|line| line.ends_with("[FAIL]")), "{}", said.text);
}
