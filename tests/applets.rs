//! The mysql-utilities applets on real pairs: transcripts of the originals replayed, and laws.
//!
//! In: scripts/servers, the binary. Out: laws. Must not: depend on the order of tests.
//! Read first: tests/repl/pair.rs (the servers), tests/applets/said.rs (how lines are compared).
//! Run: cargo test --test applets
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[allow(dead_code)]
#[path = "repl/pair.rs"]
mod pair;
#[path = "applets/said.rs"]
mod said;
#[path = "applets/scenarios.rs"]
mod scenarios;
#[path = "applets/stage.rs"]
mod stage;

use std::thread;
use std::time::{Duration, Instant};

use pair::Recipe;
use said::Said;
use scenarios::*;
use stage::{REPLICATE, SWITCH, SWITCH_BACK, Stage, rows};

/// Each law once for each flavour.
macro_rules! laws {
    ($($law:ident),* $(,)?) => {
        laws!(@ mariadb "mariadb" $($law)*);
        laws!(@ mysql56 "mysql56" $($law)*);
        laws!(@ mysql97 "mysql97" $($law)*);
    };
    (@ $module:ident $flavour:literal $($law:ident)*) => {
        mod $module {
            $(#[test]
            fn $law() {
                if let Some(recipe) = super::Recipe::of($flavour) {
                    super::$law(recipe);
                }
            })*
        }
    };
}

laws!(
    a_pair_lives_through_a_whole_cycle,
    switchover_under_load_loses_nothing,
    failover_refuses_while_the_source_lives,
    failover_that_cannot_drain_destroys_nothing,
    a_broken_applier_is_seen_by_all,
    switchover_refuses_a_replica_that_does_not_replicate,
    errant_transactions_are_refused,
    a_wrong_replication_password_is_named_and_undone,
    passwords_stay_off_the_command_line,
    a_switchover_killed_at_any_time_is_finished_by_the_next,
    a_missing_account_is_made_before_it_is_needed,
    other_replicas_follow_the_new_source,
    scripts_and_the_log_see_a_change_of_roles,
    a_stale_replica_is_promoted_only_if_told_to,
    a_delay_is_refused_by_name,
    a_lagging_replica_is_refused_and_so_is_a_second_command,
    misfits_are_refused_by_name_and_fail_the_check,
    what_would_break_later_is_warned_of,
    what_holds_the_source_open_is_named_or_ended,
    events_run_on_the_source_alone,
    any_letters_do_and_no_report_is_needed,
    a_slave_with_data_of_its_own_is_refused,
    a_master_that_purged_what_is_needed_is_refused,
    what_the_new_source_wrote_as_a_replica_is_told_and_kept,
);

/// Every transcript of a pair in its daily life, in the order of the originals' own runs.
#[test]
fn a_pair_is_set_up_and_shown_as_by_the_originals() {
    let Some(recipe) = Recipe::of("mysql56") else { return };
    let stage = Stage::new(recipe);
    stage.replay("30_err_wrong_pw_replicate");
    stage.replay("39_err_same_host_replicate");
    stage.replay("01_mysqlreplicate");
    for name in ["10_health_csv", "10_health_grid", "10_health_tab", "10_health_vertical"] {
        stage.replay(name);
    }
    for name in ["03_mysqlrplshow", "04_mysqlrplshow_v_list", "34_err_show_wrong_discover"] {
        stage.replay(name);
    }
    stage.replay("05_mysqlrplcheck");
    stage.replay("06_mysqlrplcheck_vv");
    for name in ["11_health_v", "12_gtid", "13_elect", "13_elect_v", "36_err_no_cmd"] {
        stage.replay(name);
    }
    for name in ["14_stop", "15_health_stopped", "16_start", "10_health_grid", "17_reset"] {
        stage.replay(name);
    }
}

#[test]
fn roles_change_as_by_the_originals() {
    let Some(recipe) = Recipe::of("mysql56") else { return };
    let mut stage = Stage::new(recipe);
    stage.replay("01_mysqlreplicate");
    stage.write(0..10);
    stage.pair.catch_up_b();
    stage.pair.a.crash();
    stage.replay("20_failover");
    stage.pair.a.start(&[]);
    stage.replay("21_rejoin_mysqlreplicate");
    stage.write_on_b(10..20);
    stage.replay("23_switchover_back");
    stage.pair.catch_up_b();
    assert_eq!(stage.rows_of_both(), (20, 20));
}

/// By a link's name as well as by an argument.
#[test]
fn a_link_is_the_applet() {
    let folder = std::env::temp_dir().join(format!("tandem-links-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary directory");
    for name in ["mysqlreplicate", "mysqlrpladmin", "mysqlrplcheck", "mysqlrplshow"] {
        let link = folder.join(name);
        let _none_left = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_tandem"), &link).expect("a link");
        let output = std::process::Command::new(&link).arg("--version").output().expect("it runs");
        let linked = String::from_utf8(output.stdout).expect("text");
        let named = Said::of(name, &["--version".to_owned()], &[]);
        assert!(linked.starts_with(name), "{linked}");
        assert_eq!(linked, named.text);
    }
    std::fs::remove_dir_all(&folder).expect("our own directory");
}

#[test]
fn misfits_are_refused_as_by_the_originals() {
    let Some(recipe) = Recipe::of("mysql56") else { return };
    let mut stage = Stage::new(recipe);
    stage.pair.b.crash();
    stage.pair.b.start(&["--server-id=1"]);
    stage.replay("46_replicate_same_server_id");
    stage.pair.b.crash();
    stage.pair.b.start(&["--gtid-mode=OFF"]);
    stage.replay("48e_gtid_off_failover");
    stage.pair.a.crash();
    stage.pair.a.start(&["--gtid-mode=OFF", "--skip-log-bin", "--skip-log-slave-updates"]);
    stage.replay("49b_binlog_off_check");
}

#[test]
fn a_broken_applier_stops_a_failover_as_by_the_original() {
    let Some(recipe) = Recipe::of("mysql56") else { return };
    let mut stage = Stage::new(recipe);
    stage.replay("01_mysqlreplicate");
    stage.write(0..1);
    stage.pair.catch_up_b();
    stage.plant_on_b(3);
    stage.write(3..4);
    stage.wait_until_applier_stops();
    stage.pair.a.crash();
    // The server's own words, with offsets in them.
    stage.replay_but("41_failover_sql_error", &["# - SQL error: 1062 - Could not execute"]);
}

fn a_pair_lives_through_a_whole_cycle(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..10);
    stage.pair.catch_up_b();
    stage.ok("mysqlrplcheck --master=root:pw@SERVER1 --slave=root:pw@SERVER2");
    let shown = stage.ok("mysqlrplshow --master=root:pw@SERVER1 --discover-slaves-login=root:pw");
    assert!(shown.has("+--- 127.0.0.2:"), "{}", shown.text);
    let health = stage.ok(HEALTH);
    assert_eq!(health.text.matches(",UP,ON,OK\n").count(), 2, "{}", health.text);
    for command in ["gtid", "elect"] {
        stage.ok(&format!(
            "mysqlrpladmin --master=root:pw@SERVER1 --slaves=root:pw@SERVER2 {command}"
        ));
    }
    for command in ["stop", "reset", "start"] {
        stage.ok(&format!("mysqlrpladmin --slaves=root:pw@SERVER2 {command}"));
    }
    stage.pair.a.crash();
    stage.ok(&format!("mysqlrpladmin --slave=root:pw@SERVER2 {RPL_USER} failover"));
    stage.write_on_b(10..20);
    stage.pair.a.start(&[]);
    stage.ok("mysqlreplicate --master=root:pw@SERVER2 --slave=root:pw@SERVER1 --rpl-user=rpl:pw");
    stage.ok(SWITCH_BACK);
    stage.write(20..30);
    stage.pair.catch_up_b();
    assert_eq!(stage.rows_of_both(), (30, 30));
    // The demoted one is the replica, and closed: finding 5.
    assert_eq!(stage.pair.b.value("SELECT @@read_only"), "1");
    assert_eq!(stage.pair.a.value("SELECT @@read_only"), "0");
}

/// Finding 5: the original left 510 to 529 acknowledged writes on the old source.
fn switchover_under_load_loses_nothing(recipe: &'static Recipe) {
    let stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..1);
    let writer = stage.writer(1_000_000);
    thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    let said = stage.run(SWITCH);
    let took = began.elapsed();
    thread::sleep(Duration::from_millis(300));
    let written = writer.stop();
    assert_eq!(said.code, 0, "{}", said.text);
    let (count, gap) = (written.acknowledged.len(), written.gap);
    println!("{}: {count} writes, switchover {took:?}, no writer {gap:?}", recipe.flavour);
    assert!(count > 100, "{count} writes");
    assert_eq!(written.lost(&stage.pair.b), 0);
    assert_eq!(stage.pair.a.value("SELECT @@read_only"), "1");
}

/// Finding 3: the original opened the replica beside the living source.
fn failover_refuses_while_the_source_lives(recipe: &'static Recipe) {
    let stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..10);
    let said = stage.fails(&format!("mysqlrpladmin --slave=root:pw@SERVER2 {RPL_USER} failover"));
    assert!(said.has("is alive"), "{}", said.text);
    assert_eq!(stage.pair.b.value("SELECT @@read_only"), "1");
    stage.ok(&format!("mysqlrpladmin --slave=root:pw@SERVER2 {RPL_USER} --force failover"));
    assert_eq!(stage.pair.a.value("SELECT @@read_only"), "1", "it is shut first");
    assert_eq!(stage.pair.b.value("SELECT @@read_only"), "0");
    assert_eq!(stage.rows_of_both(), (10, 10));
}

/// Finding 2: the original threw received transactions away after its time-out (T42).
fn failover_that_cannot_drain_destroys_nothing(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..1);
    stage.pair.catch_up_b();
    let lock = stage.hold_applier();
    stage.write(1..20);
    stage.wait_until_received();
    stage.pair.a.crash();
    let failover = format!("mysqlrpladmin --slave=root:pw@SERVER2 {RPL_USER} --timeout=1 failover");
    let said = stage.fails(&failover);
    assert!(said.has("19 received transactions are still to be applied"), "{}", said.text);
    assert_eq!(stage.pair.b.value("SELECT @@read_only"), "1");
    drop(lock);
    stage.ok(&failover);
    assert_eq!(rows(&stage.pair.b), 20);
}

/// Finding 7: eleven times [pass] with a dead SQL thread.
fn a_broken_applier_is_seen_by_all(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..1);
    stage.pair.catch_up_b();
    stage.plant_on_b(7);
    stage.write(7..8);
    stage.wait_until_applier_stops();
    let said = stage.fails("mysqlrplcheck --master=root:pw@SERVER1 --slave=root:pw@SERVER2");
    let failed = said.text.lines().find(|line| line.starts_with("Is the slave's SQL thread"));
    assert!(failed.is_some_and(|line| line.ends_with("[FAIL]")), "{}", said.text);
    assert!(said.has("Duplicate entry '7'") || said.has("1062"), "{}", said.text);
    assert!(stage.run(HEALTH).has("SQL thread is not running."));
    stage.fails(SWITCH);
    stage.pair.a.crash();
    let failover = format!("mysqlrpladmin --slave=root:pw@SERVER2 {RPL_USER} failover");
    let said = stage.fails(&failover);
    assert!(said.has("--force"), "{}", said.text);
    let said = stage.ok(&failover.replace("failover", "--force failover"));
    assert!(said.has("Thrown away"), "{}", said.text);
    assert_eq!(stage.pair.b.value("SELECT @@read_only"), "0");
}

/// Finding 4: the original found "no slaves", waited for nothing and lost three rows (T40, T33c).
fn switchover_refuses_a_replica_that_does_not_replicate(recipe: &'static Recipe) {
    let stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.ok("mysqlrpladmin --slaves=root:pw@SERVER2 stop");
    stage.write(0..3);
    let said = stage.fails(SWITCH);
    assert!(said.has("does not replicate"), "{}", said.text);
    let said = stage.fails(&SWITCH.replace("--slaves=root:pw@", "--slaves=root:BAD@"));
    assert!(said.has("does not replicate"), "{}", said.text);
    assert_eq!(stage.pair.a.value("SELECT @@read_only"), "0", "nothing was changed");
}

/// Finding 1: on a pair the original's check never looked at anything (T43, T44, T58b).
fn errant_transactions_are_refused(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..3);
    stage.pair.catch_up_b();
    stage.open_b();
    stage.write_on_b(100..102);
    let said = stage.run(HEALTH);
    assert!(said.has("Slave has 2 transactions that master has not"), "{}", said.text);
    let said = stage.fails(SWITCH);
    assert!(said.has("2 errant transactions"), "{}", said.text);
    stage.fails("mysqlrplcheck --master=root:pw@SERVER1 --slave=root:pw@SERVER2");
    stage.forget_source_on_b();
    let said = stage.fails(REPLICATE);
    assert!(said.has("2 transactions are here and not on the peer"), "{}", said.text);
}

/// The original left the broken settings in place after ten seconds (T52).
fn a_wrong_replication_password_is_named_and_undone(recipe: &'static Recipe) {
    let stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.forget_source_on_b();
    stage.open_b();
    let said = stage.fails(&REPLICATE.replace("rpl:pw", "rpl:BAD"));
    assert!(said.has("1045") && said.has("Cannot setup replication."), "{}", said.text);
    assert!(said.has("is no replica again"), "{}", said.text);
    assert_eq!(stage.pair.b.value("SELECT @@read_only"), "0", "as it was");
    stage.ok(REPLICATE);
}

/// T60: the original, killed, left the source read-only and nothing to go on with.
fn a_switchover_killed_at_any_time_is_finished_by_the_next(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    let mut outcomes = Vec::new();
    for round in 0..8 {
        let id = round * 10;
        stage.write(id..id + 5);
        let was_over = stage.run_killed(SWITCH, Duration::from_millis(20 + u64::from(round) * 12));
        let open = [&stage.pair.a, &stage.pair.b].map(|s| s.value("SELECT @@read_only") == "0");
        assert_ne!(open, [true, true], "round {round}: two servers take writes");
        outcomes.push((was_over, open));
        let said = stage.ok(SWITCH);
        assert!(said.has("# Switchover complete."), "{}", said.text);
        assert_eq!(stage.pair.a.value("SELECT @@read_only"), "1");
        stage.write_on_b(id + 5..id + 6);
        stage.ok(SWITCH_BACK);
        stage.pair.catch_up_b();
        let count = usize::try_from(round + 1).expect("few") * 6;
        assert_eq!(stage.rows_of_both(), (count, count));
    }
    println!("{}: {outcomes:?}", recipe.flavour);
}

/// T53: the original found no candidate. The password is known, so the account is made.
fn a_missing_account_is_made_before_it_is_needed(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    stage.write(0..3);
    for host in ["127.0.0.1", "127.0.0.2"] {
        stage.pair.a.run(&format!("DROP USER 'rpl'@'{host}'"));
    }
    stage.pair.catch_up_b();
    let said = stage.fails("mysqlrplcheck --master=root:pw@SERVER1 --slave=root:pw@SERVER2");
    assert!(said.has("rpl@127.0.0.2 is missing"), "{}", said.text);
    stage.pair.a.crash();
    stage.ok(&format!("mysqlrpladmin --slave=root:pw@SERVER2 {RPL_USER} failover"));
    stage.pair.a.start(&[]);
    stage.ok("mysqlreplicate --master=root:pw@SERVER2 --slave=root:pw@SERVER1 --rpl-user=rpl:pw");
}

fn other_replicas_follow_the_new_source(recipe: &'static Recipe) {
    let mut stage = Stage::new(recipe);
    let third = stage.third(recipe);
    stage.ok(REPLICATE);
    stage.ok(&REPLICATE.replace("SERVER2", "SERVER3"));
    stage.write(0..5);
    let all =
        SWITCH.replace("--slaves=root:pw@SERVER2", "--slaves=root:pw@SERVER2,root:pw@SERVER3");
    let said = stage.ok(&all.replace("switchover", "--format=csv switchover"));
    assert_eq!(said.text.matches(",UP,ON,OK\n").count(), 3, "{}", said.text);
    stage.write_on_b(5..10);
    stage.pair.host_a.restart();
    // The second one dies; of the two that are left the first has not received the last writes.
    stage.ok("mysqlrpladmin --slaves=root:pw@SERVER1 stop");
    stage.write_on_b(10..15);
    stage.eventually_has(&third, 15);
    stage.pair.b.crash();
    let failover = format!(
        "mysqlrpladmin --slaves=root:pw@SERVER1,root:pw@SERVER3 {RPL_USER} --format=csv failover"
    );
    let said = stage.ok(&failover);
    assert!(said.has("# Candidate slave 127.0.0.3:"), "{}", said.text);
    stage.eventually_has(&stage.pair.a, 15);
    assert_eq!(third.value("SELECT @@read_only"), "0");
}

fn scripts_and_the_log_see_a_change_of_roles(recipe: &'static Recipe) {
    let stage = Stage::new(recipe);
    stage.ok(REPLICATE);
    let folder = std::env::temp_dir().join(format!("tandem-scripts-{}", stage.port));
    std::fs::create_dir_all(&folder).expect("a temporary directory");
    let script = folder.join("before");
    let text = format!("#!/bin/sh\necho \"$@\" >> {}/seen\nexit 3\n", folder.display());
    std::fs::write(&script, text).expect("a script");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&script, mode).expect("our own file");
    let (path, log) = (script.display(), folder.join("log"));
    let with = |options: &str| SWITCH.replace("switchover", &format!("{options} switchover"));
    let said = stage.fails(&with(&format!("--exec-before={path} --script-threshold=3")));
    assert!(said.has("ended with 3"), "{}", said.text);
    assert_eq!(stage.pair.a.value("SELECT @@read_only"), "0", "nothing was changed");
    let said = stage.ok(&with(&format!("--exec-before={path} --log={} --ping=5", log.display())));
    assert!(said.has("WARNING: --ping changes nothing"), "{}", said.text);
    let seen = std::fs::read_to_string(folder.join("seen")).expect("the script ran");
    let port = stage.port;
    let line = format!("127.0.0.1 {port} 127.0.0.2 {port}\n");
    assert_eq!(seen, line.repeat(2));
    let logged = std::fs::read_to_string(&log).expect("a log");
    assert!(logged.contains(" INFO Switchover complete.\n"), "{logged}");
    assert!(!logged.contains(":pw"), "{logged}");
    std::fs::remove_dir_all(&folder).expect("our own directory");
}

fn passwords_stay_off_the_command_line(recipe: &'static Recipe) {
    let stage = Stage::new(recipe);
    let bare = REPLICATE.replace("root:pw", "root").replace("rpl:pw", "rpl");
    let secrets = [("TANDEM_MYSQL_PASSWORD", "pw"), ("TANDEM_RPL_PASSWORD", "pw")];
    let said = stage.run_with(&bare, &secrets);
    assert_eq!(said.code, 0, "{}", said.text);
    assert!(!said.has("insecure"), "{}", said.text);
    let file = std::env::temp_dir().join(format!("tandem-{}.cnf", stage.port));
    let text = format!(
        "[one]\nuser=root\npassword=pw\nhost=127.0.0.1\nport={0}\n\
         [two]\nuser=root\npassword=pw\nsocket={1}\nhost=127.0.0.2\nport={0}\n",
        stage.port,
        stage.pair.b.socket().display()
    );
    std::fs::write(&file, text).expect("an option file");
    let path = file.display();
    let said =
        stage.ok(&format!("mysqlrpladmin --master={path}[one] --slaves={path}[two] -v health"));
    assert!(!said.has("insecure") && said.has("| OK "), "{}", said.text);
    std::fs::remove_file(&file).expect("our own file");
}

const HEALTH: &str =
    "mysqlrpladmin --master=root:pw@SERVER1 --slaves=root:pw@SERVER2 --format=csv health";
/// MariaDB does not tell the password that it logs in with.
const RPL_USER: &str = "--rpl-user=rpl:pw";
