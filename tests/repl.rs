//! Replication against real servers: every law for each flavour that `scripts/servers` can install.
//!
//! In: scripts/servers. Out: laws. Must not: depend on the order or number of tests run at once.
//! Read first: tests/repl/pair.rs for the two servers, facts/repl.md section 5 for the scenarios.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "repl/commits.rs"]
mod commits;
#[path = "repl/copy.rs"]
mod copy;
#[path = "repl/errant.rs"]
mod errant;
#[path = "repl/gtid_algebra.rs"]
mod gtid_algebra;
#[path = "repl/pair.rs"]
mod pair;
#[path = "repl/rescue.rs"]
mod rescue;
#[path = "repl/scenarios.rs"]
mod scenarios;
#[path = "repl/trouble.rs"]
mod trouble;
#[path = "repl/words.rs"]
mod words;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant as Clock};

use commits::*;
use copy::*;
use errant::*;
use gtid_algebra::*;
use mysql::prelude::Queryable;
use nix::sys::signal::Signal;
use pair::{ADMIN, APP, Pair, REPLICATION_PASSWORD, Recipe, Server};
use rescue::*;
use scenarios::*;
use tandem::os::mysql::LocalServer;
use tandem::repl::{Failure, Job, Outcome, ServerError, State, ThreadState};
use trouble::*;
use words::*;

/// Each law once for each flavour.
macro_rules! laws {
    ($($law:ident),* $(,)?) => {
        laws!(@ mariadb "mariadb" $($law)*);
        laws!(@ mysql56 "mysql56" $($law)*);
        laws!(@ mysql97 "mysql97" $($law)*);
    };
    (@ $module:ident $flavour:literal $($law:ident)*) => {
        mod $module {
            $(
            #[test]
            fn $law() {
                if let Some(recipe) = super::Recipe::of($flavour) {
                    super::$law(recipe);
                }
            }
            )*
        }
    };
}

laws!(
    a_fresh_pair_replicates,
    promotion_applies_everything_received,
    promotion_starts_a_stopped_applier,
    promotion_refuses_a_broken_applier,
    promotion_that_cannot_drain_destroys_nothing,
    promotion_drops_half_a_transaction_in_bounded_time,
    promotion_killed_after_any_query_is_finished_by_the_next,
    following_killed_after_any_query_is_finished_by_the_next,
    closing_killed_after_any_query_is_undone_by_reopen,
    a_restarted_replica_goes_on,
    a_copy_of_the_source_follows_from_where_it_was_copied,
    the_old_source_rejoins_when_it_has_nothing_extra,
    a_host_with_extra_transactions_is_refused,
    switchover_loses_no_acknowledged_write,
    close_ends_what_holds_the_server_open,
    events_move_with_the_source,
    a_wrong_replication_password_is_named,
    a_source_that_purged_what_is_needed_is_named,
    a_hung_server_is_unreachable_in_bounded_time,
    a_query_is_given_up_at_its_limit,
    fencing_a_server_with_a_full_disk_ends_in_bounded_time,
    a_server_that_denies_us_is_not_dead,
    fencing_a_source_ends_its_applications,
    a_full_disk_is_seen_by_a_commit_that_does_not_end,
    what_only_waits_is_no_hang,
    a_full_disk_for_temporary_tables_is_no_hang,
    errant_rows_are_saved_and_taken_back,
    the_saved_binlog_is_a_binlog,
    a_discard_cut_off_after_any_step_is_finished_by_the_next,
    what_cannot_be_taken_back_is_said_and_left,
    rows_that_changed_since_are_left_alone,
    what_is_no_longer_in_the_binlogs_is_said,
    nothing_is_taken_back_twice,
    what_was_written_after_a_save_is_not_lost,
    a_save_that_is_not_whole_is_not_used,
    the_server_is_closed_and_strict_after_every_step,
    a_discard_goes_on_after_the_server_was_fenced_again,
    another_database_is_not_taken_for_the_one_that_forgot,
    a_lenient_server_is_not_believed,
    an_event_larger_than_a_packet_is_left,
    the_words_of_a_save_do_the_same_again,
    what_the_binlog_does_not_say_is_an_obstacle,
    what_the_server_would_not_give_back_is_an_obstacle,
    rows_put_in_above_a_cascade_are_taken_back,
    binlogs_of_several_kinds_are_saved_as_one,
    a_database_is_replaced_by_a_copy_of_the_peers,
    an_exchange_killed_after_any_query_is_finished_by_the_next,
    a_delayed_replica_is_refused_by_name,
    a_server_without_a_free_connection_is_not_dead,
    a_write_that_waits_for_the_replica_is_not_acknowledged_by_a_fence,
    writes_that_wait_for_the_replica_are_acknowledged_by_a_mysql_that_is_stopped,
    a_long_relay_log_is_drained_with_progress,
    a_host_is_taken_as_it_comes_back,
    a_source_that_lost_what_it_wrote_is_not_attached,
    several_domains_move_with_the_source,
    tagged_transactions_are_told_from_others,
    sets_are_compared_as_by_the_server,
    positions_are_compared_as_by_the_server,
);

/// Those of servers that cannot clone.
macro_rules! laws_of_copies {
    ($($law:ident),* $(,)?) => {
        laws!(@ mariadb_copies "mariadb" $($law)*);
        laws!(@ mysql56_copies "mysql56" $($law)*);
    };
}

laws_of_copies!(
    a_copy_is_exact_and_of_one_moment,
    a_copy_replaces_what_was_there,
    what_is_made_during_a_copy_is_made_once,
    a_copy_that_was_cut_off_is_never_believed,
    what_cannot_be_copied_changes_nothing,
    what_no_snapshot_holds_is_copied_under_a_lock,
);

fn write_rows(server: &Server, ids: std::ops::Range<u32>) {
    let mut conn = server.connect(APP);
    for id in ids {
        conn.query_drop(format!("INSERT INTO app.t VALUES ({id}, 'x')")).expect("a write");
    }
}

fn rows(server: &Server) -> usize {
    server.value("SELECT COUNT(*) FROM app.t").parse().expect("a count")
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Clock::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        sleep(Duration::from_millis(20));
    }
}

/// A pair whose commits wait for B, which hangs; `None` where the server has no such thing.
fn pair_whose_commits_wait(recipe: &'static Recipe) -> Option<Pair> {
    if recipe.flavour == "mysql56" {
        return None; // This build has no semi-synchronous replication.
    }
    let mut pair = Pair::new(recipe);
    pair.set_up();
    let_commits_wait(&mut pair);
    pair.b.signal(Signal::SIGSTOP);
    Some(pair)
}

/// From here on A's commits wait until B has them.
fn let_commits_wait(pair: &mut Pair) {
    let halves = |is_source| Job::SemiSync { is_source, is_replica: true };
    pair.host_a.job(halves(true)).expect("A's halves");
    pair.host_b.job(halves(false)).expect("B's halves");
    eventually("B acknowledges", || pair.host_a.observe().semi_sync.is_in_force());
}

/// Error code of a refused write by the application.
fn write_error(server: &Server) -> u16 {
    match server.connect(APP).query_drop("INSERT INTO app.t VALUES (1000000, 'refused')") {
        Err(mysql::Error::MySqlError(error)) => error.code,
        other => panic!("the write must be refused: {other:?}"),
    }
}

fn a_fresh_pair_replicates(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    write_rows(&pair.a, 0..10);
    pair.catch_up_b();
    assert_eq!(rows(&pair.b), 10);
    assert_eq!(write_error(&pair.b), 1290, "a replica takes no writes");
    // Both hosts' accounts, on both hosts.
    for server in [&pair.a, &pair.b] {
        let sql = "SELECT GROUP_CONCAT(Host ORDER BY Host) FROM mysql.user \
                   WHERE User='rpl' AND Repl_slave_priv='Y'";
        assert_eq!(server.value(sql), "127.0.0.1,127.0.0.2");
    }
    let seen = pair.host_b.observe();
    let replica = seen.replica.expect("B is a replica");
    assert_eq!((replica.io, replica.sql), (ThreadState::Running, ThreadState::Running));
    assert_eq!(replica.source_host, "127.0.0.1");
    assert!(seen.is_read_only && seen.unfit.is_empty());

    let peer_position = Some(pair.host_a.position());
    let again = pair.host_b.job(Job::Follow { peer_position });
    assert_eq!(again, Ok(Outcome::Following { was_following: true }));
    // A daemon that starts beside a working replica changes nothing.
    pair.host_b.restart();
    let fenced = pair.host_b.job(Job::Fence).expect("B can be fenced");
    assert!(matches!(fenced, Outcome::Fenced { ended: 0, .. }));
    assert_eq!(pair.host_b.observe().replica.map(|r| r.io), Some(ThreadState::Running));
}

/// Holds B's applier, as a long statement would, until dropped.
fn hold_applier(server: &Server) -> mysql::Conn {
    let mut conn = server.connect(ADMIN);
    conn.query_drop("LOCK TABLES app.t READ").expect("a lock");
    conn
}

fn received(pair: &mut Pair) -> String {
    pair.host_b.observe().replica.map(|replica| replica.retrieved).unwrap_or_default()
}

/// Waits until B has received everything that A has.
fn wait_until_received(pair: &mut Pair) {
    let flavour = pair.host_a.observe().flavour.expect("A is up");
    let parse = |text: &str| tandem::repl::Position::parse(flavour, text).expect("a position");
    let wanted = parse(&pair.host_a.position());
    eventually("B receives", || {
        let applied = parse(&pair.host_b.position());
        applied.union(&parse(&received(pair))).contains(&wanted)
    });
}

fn promotion_applies_everything_received(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    let lock = hold_applier(&pair.b);
    write_rows(&pair.a, 0..200);
    wait_until_received(&mut pair);
    assert_eq!(rows(&pair.b), 0, "nothing is applied yet");
    pair.a.crash();
    let released = thread::spawn(move || {
        sleep(Duration::from_millis(1500));
        drop(lock);
    });
    let promoted = pair.host_b.job(Job::Promote).expect("B is promoted");
    released.join().expect("the lock is released");
    assert!(matches!(promoted, Outcome::Promoted { warnings, .. } if warnings.is_empty()));
    assert_eq!(rows(&pair.b), 200, "everything received is applied");
    assert!(!pair.host_b.progress.is_empty(), "a drain says how far it is");
    write_rows(&pair.b, 200..201);
    assert_eq!(pair.host_b.observe().replica, None);

    // An idle promotion, for the figure.
    let began = Clock::now();
    pair.host_b.job(Job::Promote).expect("promoting a source changes nothing");
    println!("{}: promoting a source again took {:?}", recipe.flavour, began.elapsed());
}

fn promotion_starts_a_stopped_applier(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    let word = if recipe.flavour == "mysql97" { "REPLICA" } else { "SLAVE" };
    pair.b.run(&format!("STOP {word} SQL_THREAD"));
    write_rows(&pair.a, 0..50);
    wait_until_received(&mut pair);
    pair.a.crash();
    pair.host_b.job(Job::Promote).expect("B is promoted");
    assert_eq!(rows(&pair.b), 50);
}

fn promotion_refuses_a_broken_applier(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    // A row that only B has, so that A's row of the same key cannot be applied.
    if recipe.flavour == "mysql97" {
        pair.b.run("SET GLOBAL super_read_only=OFF");
    }
    let mut conn = pair.b.connect(ADMIN);
    conn.query_drop("SET SESSION sql_log_bin=0").expect("an administrator");
    conn.query_drop("INSERT INTO app.t VALUES (7, 'only here')").expect("a write");
    write_rows(&pair.a, 7..10);
    eventually("B's applier stops", || {
        pair.host_b.observe().replica.is_some_and(|replica| replica.sql == ThreadState::Stopped)
    });
    wait_until_received(&mut pair);
    pair.a.crash();
    match pair.host_b.job(Job::Promote) {
        // Several appliers report as 3030 at times, that theirs were 1062.
        Err(Failure::ApplierBroken { left: 3, code: 1062 | 3030, .. }) => {}
        other => panic!("must be refused: {other:?}"),
    }
    let seen = pair.host_b.observe();
    assert!(seen.replica.is_some() && seen.is_read_only, "nothing was changed");
}

fn promotion_that_cannot_drain_destroys_nothing(recipe: &'static Recipe) {
    let limit = Duration::from_secs(1);
    let mut pair = Pair::with(recipe, |config| config.drain_limit = limit);
    pair.set_up();
    let lock = hold_applier(&pair.b);
    write_rows(&pair.a, 0..5);
    wait_until_received(&mut pair);
    pair.a.crash();
    let began = Clock::now();
    let failed = pair.host_b.job(Job::Promote);
    assert_eq!(failed, Err(Failure::NotDrained { left: 5 }));
    assert!(began.elapsed() < limit * 2);
    let seen = pair.host_b.observe();
    assert!(seen.replica.is_some() && seen.is_read_only, "it is still a replica");
    drop(lock);
    pair.host_b.job(Job::Promote).expect("ordered again, it goes on");
    assert_eq!(rows(&pair.b), 5);
}

fn promotion_killed_after_any_query_is_finished_by_the_next(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    for deaths in 0.. {
        let count = u32::try_from(deaths).expect("few");
        let lock = hold_applier(&pair.b);
        write_rows(&pair.a, count * 10..count * 10 + 10);
        wait_until_received(&mut pair);
        drop(lock);
        pair.host_b.restart();
        pair.host_b.dies_after = Some(deaths);
        let first = pair.host_b.try_job(Job::Promote);
        pair.host_b.restart();
        let second = pair.host_b.job(Job::Promote);
        assert!(
            matches!(&second, Ok(Outcome::Promoted { warnings, .. }) if warnings.is_empty()),
            "after {deaths} queries: {second:?}"
        );
        let seen = pair.host_b.observe();
        assert!(seen.replica.is_none() && !seen.is_read_only, "after {deaths} queries: {seen:?}");
        assert_eq!(rows(&pair.b), deaths * 10 + 10, "after {deaths} queries");
        if first.is_some() {
            assert!(deaths > 8, "the first one ended by itself after {deaths} queries");
            return;
        }
        // B wrote nothing, so it can be A's replica again.
        pair.host_b.job(Job::Fence).expect("B is fenced");
        let peer_position = Some(pair.host_a.position());
        pair.host_b.job(Job::Follow { peer_position }).expect("B follows A again");
        pair.catch_up_b();
    }
}

fn following_killed_after_any_query_is_finished_by_the_next(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    for deaths in 0.. {
        pair.host_b.job(Job::Promote).expect("B is promoted");
        pair.host_b.job(Job::Fence).expect("B is fenced");
        let id = u32::try_from(deaths).expect("few");
        write_rows(&pair.a, id..id + 1);
        pair.host_b.restart();
        pair.host_b.dies_after = Some(deaths);
        let peer_position = Some(pair.host_a.position());
        let first = pair.host_b.try_job(Job::Follow { peer_position: peer_position.clone() });
        pair.host_b.restart();
        let second = pair.host_b.job(Job::Follow { peer_position });
        assert!(matches!(second, Ok(Outcome::Following { .. })), "{deaths}: {second:?}");
        pair.catch_up_b();
        assert_eq!(rows(&pair.b), deaths + 1, "after {deaths} queries");
        if first.is_some() {
            assert!(deaths > 6, "the first one ended by itself after {deaths} queries");
            return;
        }
    }
}

fn closing_killed_after_any_query_is_undone_by_reopen(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    for deaths in 0.. {
        pair.host_a.restart();
        pair.host_a.dies_after = Some(deaths);
        let first =
            pair.host_a.try_job(Job::Close { limit: Duration::from_secs(1), ends_writers: true });
        pair.host_a.restart();
        pair.host_a.job(Job::Reopen).expect("A opens again");
        let id = u32::try_from(deaths).expect("few");
        write_rows(&pair.a, id..id + 1);
        if first.is_some() {
            assert!(deaths > 5, "the first one ended by itself after {deaths} queries");
            return;
        }
    }
}

fn a_restarted_replica_goes_on(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    write_rows(&pair.a, 0..10);
    pair.b.crash();
    write_rows(&pair.a, 10..20);
    pair.b.start(&["--read-only=1"]);
    pair.host_b.job(Job::Fence).expect("B is fenced");
    assert_eq!(pair.host_b.observe().replica.map(|r| r.io), Some(ThreadState::Stopped));
    let peer_position = Some(pair.host_a.position());
    let followed = pair.host_b.job(Job::Follow { peer_position });
    assert_eq!(followed, Ok(Outcome::Following { was_following: false }));
    pair.catch_up_b();
    assert_eq!(rows(&pair.b), 20);
}

/// As a backup tool leaves it: the rows, an empty binlog, and a note of the position.
fn a_copy_of_the_source_follows_from_where_it_was_copied(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    write_rows(&pair.a, 0..10);
    pair.catch_up_b();
    let position = pair.host_b.position();
    pair.host_b.job(Job::Promote).expect("B is promoted");
    let (reset, note) = match recipe.flavour {
        "mariadb" => ("RESET MASTER", "gtid_slave_pos"),
        "mysql56" => ("RESET MASTER", "gtid_purged"),
        _ => ("RESET BINARY LOGS AND GTIDS", "gtid_purged"),
    };
    pair.b.run(reset);
    pair.b.run(&format!("SET GLOBAL {note}='{position}'"));
    pair.host_b.job(Job::Fence).expect("B is fenced");
    write_rows(&pair.a, 10..20);
    let peer_position = Some(pair.host_a.position());
    let followed = pair.host_b.job(Job::Follow { peer_position });
    assert_eq!(followed, Ok(Outcome::Following { was_following: false }));
    pair.catch_up_b();
    assert_eq!(rows(&pair.b), 20);
}

fn the_old_source_rejoins_when_it_has_nothing_extra(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    write_rows(&pair.a, 0..20);
    wait_until_received(&mut pair);
    pair.a.crash();
    let began = Clock::now();
    pair.host_b.job(Job::Promote).expect("B is promoted");
    println!("{}: promotion took {:?}", recipe.flavour, began.elapsed());
    write_rows(&pair.b, 20..30);

    pair.a.start(&["--read-only=1"]);
    pair.host_a.job(Job::Fence).expect("A is fenced");
    let position = pair.host_b.position();
    let began = Clock::now();
    let followed = pair.host_a.job(Job::Follow { peer_position: Some(position.clone()) });
    println!("{}: rejoining took {:?}", recipe.flavour, began.elapsed());
    assert_eq!(followed, Ok(Outcome::Following { was_following: false }));
    let limit = Duration::from_secs(10);
    pair.host_a.job(Job::CatchUp { position, limit }).expect("A catches up");
    assert_eq!(rows(&pair.a), 30);
    assert_eq!(write_error(&pair.a), 1290);
}

fn a_host_with_extra_transactions_is_refused(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    pair.b.crash();
    write_rows(&pair.a, 0..3); // Acknowledged, and never received by B.
    pair.a.crash();
    pair.b.start(&["--read-only=1"]);
    pair.host_b.job(Job::Fence).expect("B is fenced");
    pair.host_b.job(Job::Promote).expect("B is promoted");
    write_rows(&pair.b, 10..12);

    pair.a.start(&[]);
    let fenced = pair.host_a.job(Job::Fence).expect("A is fenced");
    let peer_position = Some(pair.host_b.position());
    match pair.host_a.job(Job::Follow { peer_position }) {
        Err(Failure::Diverged { extra, transactions: 3, .. }) => {
            let Outcome::Fenced { position, .. } = fenced else { panic!("not fenced") };
            let last = extra.rsplit(['-', ':']).next().expect("a number");
            assert!(position.contains(last), "{extra} is part of {position}");
        }
        other => panic!("must be refused: {other:?}"),
    }
    let seen = pair.host_a.observe();
    assert!(seen.replica.is_none() && seen.is_read_only, "it is not attached");
}

/// Writes to whichever server takes it, one acknowledged row after another.
struct Writer {
    is_over: Arc<AtomicBool>,
    thread: thread::JoinHandle<(Vec<u32>, Duration)>,
}

impl Writer {
    fn start(servers: [&Server; 2]) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = is_over.clone();
        let connect = |server: &Server| {
            let address = server.address;
            move || pair::log_in(address, APP)
        };
        let mut makers: Vec<_> = servers.into_iter().map(connect).collect();
        let thread = thread::spawn(move || {
            let (mut acknowledged, mut longest) = (Vec::new(), Duration::ZERO);
            let (mut last, mut conn) = (Clock::now(), makers[0]().ok());
            for id in 0..1_000_000 {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // About 500 writes a second, which every replica here can follow.
                sleep(Duration::from_millis(1));
                let sql = format!("INSERT INTO app.t VALUES ({id}, 'w')");
                if conn.as_mut().is_some_and(|conn| conn.query_drop(sql).is_ok()) {
                    acknowledged.push(id);
                    longest = longest.max(last.elapsed());
                    last = Clock::now();
                } else {
                    makers.swap(0, 1);
                    conn = makers[0]().ok();
                }
            }
            (acknowledged, longest)
        });
        Self { is_over, thread }
    }

    fn finish(self) -> (Vec<u32>, Duration) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer ends")
    }
}
