//! Scenarios of facts/repl.md section 5 at the applets: what is refused by its name, before
//! anything is changed.
//!
//! In: a pair. Out: laws, each named by its scenario in tests/repl/scenarios.txt.
//! Must not: know how a pair is made (`stage`).

use super::*;

fn failover() -> String {
    format!("mysqlrpladmin --slave=root:pw@SERVER2 {RPL_USER} failover")
}

const CHECK: &str = "mysqlrplcheck --master=root:pw@SERVER1 --slave=root:pw@SERVER2";

/// 12: what the replica was not sent is lost, and only an operator may say that it may be.
pub(super) fn a_replica_that_had_stopped_receiving_is_not_promoted(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..3);
    stage.pair.catch_up_b();
    let word = stage.word();
    stage.pair.b.run(&format!("STOP {word} IO_THREAD"));
    stage.write(3..10);
    stage.pair.a.crash();
    let said = stage.fails(&failover());
    assert!(said.has("had stopped receiving") && said.has("--force"), "{}", said.text);
    assert_eq!(stage.pair.b.value("SELECT @@read_only"), "1", "nothing was changed");
    let said = stage.ok(&failover().replace("failover", "--force failover"));
    assert!(said.has("had stopped receiving"), "{}", said.text);
    assert_eq!(rows(&stage.pair.b), 3);
}

/// 13: a delay would be waited for with the service down.
pub(super) fn a_replica_with_a_delay_is_refused(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..1);
    stage.pair.catch_up_b();
    let word = stage.word();
    stage.pair.b.run(&format!("STOP {word}"));
    stage.pair.b.run(if word == "REPLICA" {
        "CHANGE REPLICATION SOURCE TO SOURCE_DELAY=600"
    } else {
        "CHANGE MASTER TO MASTER_DELAY=600"
    });
    stage.pair.b.run(&format!("START {word}"));
    let said = stage.fails(SWITCH);
    assert!(said.has("delay of 600 seconds"), "{}", said.text);
    assert_eq!(stage.pair.a.value("SELECT @@read_only"), "0", "nothing was changed");
    stage.write(1..3);
    stage.wait_until_received();
    stage.pair.a.crash();
    let said = stage.fails(&failover());
    assert!(said.has("delay of 600 seconds"), "{}", said.text);
    assert_eq!(stage.pair.b.value("SELECT @@read_only"), "1", "nothing was thrown away");
}

/// 39: and the writes go on all the while.
pub(super) fn a_replica_that_lags_is_refused_before_a_write_is_blocked(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..1);
    stage.pair.catch_up_b();
    let lock = stage.hold_applier();
    stage.write(1..50);
    let writer = stage.writer(1_000_000);
    let said = stage.fails(&SWITCH.replace("switchover", "--timeout=2 switchover"));
    let written = writer.stop();
    assert!(said.has("did not catch up") && said.has("takes writes, as before"), "{}", said.text);
    assert_eq!(stage.pair.a.value("SELECT @@read_only"), "0");
    assert_eq!(written.lost(&stage.pair.a), 0, "every write was the source's");
    drop(lock);
    stage.ok(SWITCH);
}

/// 41: the lock of one that was killed goes with it.
pub(super) fn of_two_commands_at_once_the_second_is_refused(recipe: &'static Recipe) {
    let stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..1);
    let mut other = stage.pair.b.connect(pair::ADMIN);
    let held: Option<u8> = other.query_first("SELECT GET_LOCK('tandem.roles', 0)").expect("asked");
    assert_eq!(held, Some(1));
    for line in [SWITCH, REPLICATE] {
        let said = stage.fails(line);
        assert!(said.has("another command is changing roles"), "{}", said.text);
    }
    stage.ok(HEALTH);
    drop(other);
    stage.eventually_ok(SWITCH);
}

/// 45 to 50: by name at setup, and with both values in the check.
pub(super) fn misfits_are_named_at_setup_and_by_the_check(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    let is_new = recipe.flavour == "mysql97";
    let is_mysql = recipe.flavour != "mariadb";
    let log_updates = if is_new { "replica" } else { "slave" };
    let updates = format!("--skip-log-{log_updates}-updates");
    let mut misfits = vec![(vec!["--server-id=1"], "server_id")];
    // MySQL 5.6 with GTIDs does not start without it.
    if recipe.flavour != "mysql56" {
        misfits.push((vec![updates.as_str()], "log_slave_updates"));
    }
    if is_mysql {
        misfits.push((vec!["--gtid-mode=OFF"], "gtid_mode"));
    } else {
        misfits.push((vec!["--skip-log-bin"], "log_bin"));
    }
    if !is_new {
        misfits.push((vec!["--lower-case-table-names=1"], "lower_case_table_names"));
    }
    for (options, name) in misfits {
        stage.pair.b.crash();
        stage.pair.b.start(&options);
        let said = stage.fails(REPLICATE);
        assert!(said.has(name), "{options:?}: {}", said.text);
        let said = stage.fails(CHECK);
        assert!(said.has("[FAIL]") && said.has(name), "{options:?}: {}", said.text);
    }
    if is_mysql {
        // A host that was cloned with its data directory, auto.cnf and all.
        stage.pair.b.crash();
        let uuid = stage.pair.a.value("SELECT @@server_uuid");
        stage.pair.b.write_uuid(&uuid);
        stage.pair.b.start(&[]);
        let said = stage.fails(REPLICATE);
        assert!(said.has("UUID is the same"), "{}", said.text);
        let said = stage.fails(CHECK);
        assert!(said.has(&uuid) && said.has("[FAIL]"), "{}", said.text);
    }
}

/// 16: what is filtered is missing after the exchange.
pub(super) fn a_replica_with_filters_is_refused(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..1);
    stage.pair.catch_up_b();
    for filter in ["--replicate-ignore-db=other", "--replicate-wild-ignore-table=app.x%"] {
        stage.pair.b.crash();
        stage.pair.b.start(&[filter, "--read-only=1"]);
        stage.ok("mysqlrpladmin --slaves=root:pw@SERVER2 start");
        let said = stage.fails(SWITCH);
        assert!(said.has("filters: Replicate_"), "{filter}: {}", said.text);
    }
    assert_eq!(stage.pair.a.value("SELECT @@read_only"), "0", "nothing was changed");
}

/// 35, 36, 37: a long SELECT and a backup's lock do not stop it, a prepared transaction does.
pub(super) fn what_a_switchover_waits_for_and_what_not(recipe: &'static Recipe) {
    let stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..3);
    let mut prepared = stage.pair.a.connect(pair::APP);
    let act = |conn: &mut mysql::Conn, sql: &str| conn.query_drop(sql).expect("an application");
    for sql in ["XA START 'x'", "INSERT INTO app.t VALUES (900)", "XA END 'x'", "XA PREPARE 'x'"] {
        act(&mut prepared, sql);
    }
    let said = stage.fails(SWITCH);
    assert!(said.has("prepared XA transaction"), "{}", said.text);
    assert_eq!(stage.pair.a.value("SELECT @@read_only"), "0", "nothing was changed");
    act(&mut prepared, "XA ROLLBACK 'x'");

    let mut reader = stage.pair.a.connect(pair::APP);
    let reading = thread::spawn(move || reader.query_drop("SELECT SLEEP(5) FROM app.t LIMIT 1"));
    thread::sleep(Duration::from_millis(200));
    stage.ok(SWITCH);
    assert!(!reading.is_finished(), "the SELECT is not waited for");
    reading.join().expect("it ends").expect("a reader is left alone");
    stage.ok(SWITCH_BACK);
}

/// 51, 52, 53, 55.
pub(super) fn what_loses_data_in_a_crash_is_warned_of(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..1);
    stage.pair.a.run("CREATE TABLE app.torn (id INT) ENGINE=MyISAM");
    stage.pair.catch_up_b();
    let said = stage.run(CHECK);
    let wanted = ["sync_binlog=0", "innodb_flush_log_at_trx_commit=2", "app.torn (MyISAM)"];
    assert!(wanted.iter().all(|it| said.has(it)), "{}", said.text);
    let has_super = said.has("tandem@%") && said.has("write to a closed server");
    assert_eq!(has_super, recipe.flavour != "mysql97", "{}", said.text);
    stage.pair.a.run("SET GLOBAL binlog_format='STATEMENT'");
    assert!(stage.run(CHECK).has("master: binlog_format=STATEMENT"));
    stage.ok(SWITCH);
}

/// 54: each second on exactly one server, before and after.
pub(super) fn an_event_runs_on_the_source_alone(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..1);
    stage.pair.a.run(
        "CREATE TABLE app.ran (server INT, at TIMESTAMP DEFAULT CURRENT_TIMESTAMP) ENGINE=InnoDB",
    );
    stage.pair.a.run(
        "CREATE DEFINER='app'@'%' EVENT app.tick ON SCHEDULE EVERY 1 SECOND DO INSERT INTO app.ran \
         (server) VALUES (@@server_id)",
    );
    stage.pair.a.run("SET GLOBAL event_scheduler=ON");
    thread::sleep(Duration::from_millis(2500));
    stage.ok(SWITCH);
    let of = |server: &pair::Server, id: u32| -> usize {
        let sql = format!("SELECT COUNT(*) FROM app.ran WHERE server={id}");
        server.value(&sql).parse().expect("a count")
    };
    let (before, began) = (of(&stage.pair.b, 1), Instant::now());
    assert!(before >= 1);
    while of(&stage.pair.b, 2) < 3 {
        assert!(began.elapsed() < Duration::from_secs(20), "it runs on the new source");
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(of(&stage.pair.b, 1), before, "and not on the old one");
    let replica = stage.pair.host_a.observe().replica.expect("A is a replica");
    assert_eq!(replica.sql_errno, 0, "{replica:?}");
}

/// 60: a replica that does not report its host is found by being named.
pub(super) fn a_replica_that_does_not_report_itself_is_taken_by_name(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.pair.b.crash();
    stage.pair.b.start(&["--report-host="]);
    stage.ok(REPLICATE);
    stage.write(0..1);
    stage.pair.catch_up_b();
    stage.ok(SWITCH);
    assert_eq!(stage.pair.b.value("SELECT @@read_only"), "0");
}

/// 62: whatever it has did not come from there.
pub(super) fn a_server_with_rows_of_its_own_is_not_set_up(recipe: &'static Recipe) {
    let stage = Stage::new(recipe);
    stage.write(0..1);
    let mut conn = stage.pair.b.connect(pair::ADMIN);
    for sql in ["SET SESSION sql_log_bin=0", "CREATE DATABASE own", "CREATE TABLE own.t (id INT)"] {
        conn.query_drop(sql).expect("an administrator");
    }
    let said = stage.fails(REPLICATE);
    assert!(said.has("tables and no position"), "{}", said.text);
    conn.query_drop("SET SESSION sql_log_bin=1").expect("an administrator");
    conn.query_drop("CREATE TABLE own.u (id INT)").expect("an administrator");
    let said = stage.fails(REPLICATE);
    assert!(said.has("1 transactions are here and not on the peer"), "{}", said.text);
}
