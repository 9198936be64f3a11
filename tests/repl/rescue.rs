//! Laws of a rescue that is disturbed: nothing lost, nothing done twice.
//!
//! In: an old source that is back (`errant::Returned`). Out: laws of what may happen before, in the
//! middle of and after a discard. Must not: say again what `errant` says of one that is left alone.

use std::fs::{self, OpenOptions};
use std::path::Path;

use tandem::os::errant::{Step, discard, unfinished};
use tandem::repl::errant::Saved;

use super::*;

const STEPS: [Step; 4] = [Step::Undone, Step::Intended, Step::Committed, Step::Forgotten];

fn take_back(returned: &Returned, saved: &Saved, last: Step) -> Result<(), String> {
    discard(&returned.pair.a.login(), saved, last)
}

/// As an administrator does whom nobody can shut out.
fn write_on_a(returned: &Returned, sql: &str) {
    let a = &returned.pair.a;
    let is_shut = variable(a, "super_read_only") == "ON";
    if is_shut {
        a.run("SET GLOBAL super_read_only=OFF");
    }
    a.run(sql);
    if is_shut {
        a.run("SET GLOBAL super_read_only=ON");
    }
}

fn variable(server: &Server, name: &str) -> String {
    let row = server.connect(ADMIN).query_first(format!("SHOW GLOBAL VARIABLES LIKE '{name}'"));
    row.expect("an answer").map_or_else(String::new, |(_, value): (String, String)| value)
}

/// Without a key a row that is there twice can be removed twice, and one can be put in twice.
pub(super) fn nothing_is_taken_back_twice(recipe: &'static Recipe) {
    let mut returned = Returned::new(
        recipe,
        &["INSERT INTO app.keyless VALUES (1, 'one'), (2, 'two'), (2, 'two'), (3, 'three')"],
        &["INSERT INTO app.keyless VALUES (2, 'two')", "DELETE FROM app.keyless WHERE a=3"],
    );
    let saved = returned.save().expect("they are saved");
    for last in STEPS {
        take_back(&returned, &saved, last).unwrap_or_else(|why| panic!("{last:?}: {why}"));
        take_back(&returned, &saved, last).unwrap_or_else(|why| panic!("{last:?} again: {why}"));
    }
    take_back(&returned, &saved, Step::Over).expect("the rest");
    returned.is_whole("taken back once");
    take_back(&returned, &saved, Step::Over).expect("there is nothing left to do");
    let left = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_NAME='taken_back'";
    assert_eq!(returned.pair.a.value(left), "0", "it leaves nothing behind");
}

pub(super) fn what_was_written_after_a_save_is_not_lost(recipe: &'static Recipe) {
    let mut returned = Returned::new(recipe, &[], &["INSERT INTO app.t VALUES (7, 'x')"]);
    let saved = returned.save().expect("it is saved");
    write_on_a(&returned, "INSERT INTO app.t VALUES (8, 'late')");
    let before = returned.pair.host_a.position();
    let why = take_back(&returned, &saved, Step::Over).expect_err("8 is not saved");
    assert!(why.contains("since they were saved"), "{why}");
    assert_eq!(rows(&returned.pair.a), 6, "nothing was changed");
    assert_eq!(returned.pair.host_a.position(), before, "nothing was forgotten");

    // The same when a discard was begun already, and cut off before its end.
    let saved = returned.save().expect("both are saved");
    assert_eq!(saved.transactions, 2);
    take_back(&returned, &saved, Step::Intended).expect("it is cut off");
    write_on_a(&returned, "INSERT INTO app.t VALUES (9, 'later')");
    take_back(&returned, &saved, Step::Over).expect_err("9 is not saved");
    assert_eq!(unfinished(&returned.directory), None, "it is as if it had not begun");
    let saved = returned.save().expect("all are saved");
    assert_eq!(saved.transactions, 3);
    take_back(&returned, &saved, Step::Over).expect("all are taken back");
    returned.is_whole("all");
}

pub(super) fn a_save_that_is_not_whole_is_not_used(recipe: &'static Recipe) {
    let mut returned = Returned::new(
        recipe,
        &[],
        &["INSERT INTO app.t VALUES (7, 'x')", "INSERT INTO app.t VALUES (8, 'x')"],
    );
    let saved = returned.save().expect("they are saved");
    let path = Path::new(&saved.directory).join("events.binlog");
    let whole = fs::read(&path).expect("it is there");
    // Cut off where an event ends, in the middle of one, and as long as ever with another byte.
    let commit = whole.len() - 31;
    let mut flipped = whole.clone();
    flipped[commit - 8] ^= 1;
    let position = returned.pair.host_a.position();
    for wrong in [&whole[..commit], &whole[..whole.len() - 40], &flipped] {
        fs::write(&path, wrong).expect("our own file");
        let why = take_back(&returned, &saved, Step::Over).expect_err("it is not what was saved");
        assert!(why.contains("not what was saved"), "{why}");
        assert_eq!(rows(&returned.pair.a), 6, "nothing was changed");
        assert_eq!(returned.pair.host_a.position(), position);
    }
    fs::write(&path, whole).expect("our own file");
    take_back(&returned, &saved, Step::Over).expect("it is whole again");
    returned.is_whole("taken back");
}

pub(super) fn the_server_is_closed_and_strict_after_every_step(recipe: &'static Recipe) {
    let mut returned = Returned::new(recipe, &[], &["INSERT INTO app.t VALUES (7, 'x')"]);
    let saved = returned.save().expect("it is saved");
    let names = ["read_only", "super_read_only", "gtid_strict_mode"];
    let state = |server: &Server| names.map(|name| variable(server, name));
    let before = state(&returned.pair.a);
    assert!(before[0] == "ON" && before.iter().all(|value| value != "OFF"), "{before:?}");
    for last in STEPS.into_iter().chain([Step::Over]) {
        take_back(&returned, &saved, last).unwrap_or_else(|why| panic!("{last:?}: {why}"));
        assert_eq!(state(&returned.pair.a), before, "{last:?}");
    }
}

/// The daemon was killed, the server too, and both are back.
pub(super) fn a_discard_goes_on_after_the_server_was_fenced_again(recipe: &'static Recipe) {
    let mut returned = Returned::new(
        recipe,
        &["INSERT INTO app.keyless VALUES (1, 'one')"],
        &["INSERT INTO app.t VALUES (7, 'x')", "INSERT INTO app.keyless VALUES (1, 'one')"],
    );
    let saved = returned.save().expect("they are saved");
    for last in STEPS {
        take_back(&returned, &saved, last).unwrap_or_else(|why| panic!("{last:?}: {why}"));
        returned.pair.a.crash();
        returned.pair.a.start(&[]);
        returned.pair.host_a.job(Job::Fence).expect("A is fenced");
        let refused = returned.follow();
        assert!(refused.is_err(), "{last:?}: {refused:?}");
    }
    take_back(&returned, &saved, Step::Over).expect("the rest");
    returned.is_whole("finished");
}

/// An intent to set a position is not one for a server that has lost its data meanwhile.
pub(super) fn another_database_is_not_taken_for_the_one_that_forgot(recipe: &'static Recipe) {
    let mut returned = Returned::new(recipe, &[], &["INSERT INTO app.t VALUES (7, 'x')"]);
    let saved = returned.save().expect("it is saved");
    take_back(&returned, &saved, Step::Intended).expect("it is cut off");
    let forget =
        if recipe.flavour == "mysql97" { "RESET BINARY LOGS AND GTIDS" } else { "RESET MASTER" };
    write_on_a(&returned, forget);
    let why = take_back(&returned, &saved, Step::Over).expect_err("7 was never taken back");
    assert!(why.contains("not taken back"), "{why}");
    assert_eq!(rows(&returned.pair.a), 5);
    assert!(!returned.pair.a.value("SELECT COUNT(*) FROM app.t WHERE id=7").is_empty());
    let kept = OpenOptions::new().read(true).open(Path::new(&saved.directory).join("events.sql"));
    assert!(kept.is_ok(), "what was saved stays");
}

/// A replica may be told to pass over what does not apply, or to run triggers; an undo may not.
pub(super) fn a_lenient_server_is_not_believed(recipe: &'static Recipe) {
    let mut returned = Returned::new(
        recipe,
        &[],
        &["INSERT INTO app.t VALUES (7, 'x')", "INSERT INTO app.t VALUES (8, 'x')"],
    );
    let saved = returned.save().expect("they are saved");
    let a = &returned.pair.a;
    let name = if recipe.flavour == "mysql97" { "replica_exec_mode" } else { "slave_exec_mode" };
    a.run(&format!("SET GLOBAL {name}='IDEMPOTENT'"));
    write_on_a(&returned, "SET SESSION sql_log_bin=0; DELETE FROM app.t WHERE id=7");
    let position = returned.pair.host_a.position();
    take_back(&returned, &saved, Step::Over).expect_err("7 is not there");
    assert_eq!(rows(&returned.pair.a), 5, "8 is still there");
    assert_eq!(returned.pair.host_a.position(), position);
    returned.pair.a.run(&format!("SET GLOBAL {name}='STRICT'"));
    let insert = "SET SESSION sql_log_bin=0; INSERT INTO app.t VALUES (7, 'x')";
    write_on_a(&returned, insert);
    if recipe.flavour == "mariadb" {
        returned.pair.a.run("SET GLOBAL slave_run_triggers_for_rbr=YES");
        let why = take_back(&returned, &saved, Step::Over).expect_err("triggers would run");
        assert!(why.contains("slave_run_triggers_for_rbr"), "{why}");
        returned.pair.a.run("SET GLOBAL slave_run_triggers_for_rbr=NO");
    }
    take_back(&returned, &saved, Step::Over).expect("they are taken back");
    returned.is_whole("taken back");
}

pub(super) fn an_event_larger_than_a_packet_is_left(recipe: &'static Recipe) {
    let table = "CREATE TABLE app.large (a INT PRIMARY KEY, b LONGBLOB) ENGINE=InnoDB";
    let fill = "INSERT INTO app.large SELECT 1, REPEAT('x', 900000)";
    let limit = "SET GLOBAL max_allowed_packet=1048576";
    let mut returned = Returned::new(recipe, &[table], &[fill]);
    let saved = returned.save().expect("it is saved");
    returned.pair.a.run(limit);
    let position = returned.pair.host_a.position();
    let why = take_back(&returned, &saved, Step::Over).expect_err("it does not fit");
    assert!(why.contains("max_allowed_packet"), "{why}");
    assert_eq!(returned.pair.host_a.position(), position);
    assert_eq!(returned.pair.a.value("SELECT COUNT(*) FROM app.large"), "1");
    returned.pair.a.run("SET GLOBAL max_allowed_packet=16777216");
    take_back(&returned, &saved, Step::Over).expect("it fits");
    returned.is_whole("taken back");
}
