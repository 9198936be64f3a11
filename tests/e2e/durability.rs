//! What an acknowledged write is worth: on both hosts, or said to be on one.
//!
//! In: a pair whose servers have semi-synchronous replication. Out: laws of facts/repl.md section
//! 5, 2, 56 and 57. Not here: MySQL 5.6, whose test build has none; there the status says so.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::faults::{has_all_acknowledged, nothing_is_lost};
use crate::host::text;
use crate::load::{Kind, Rates, Record};
use crate::pair::{EXAMPLE, Pair, SETTLE_LIMIT};
use crate::world::{Link, Outcome, wait_until};
use crate::{check, database, flavour, on_a_pair};

const SETTLED: Duration = Duration::from_secs(10);
const MYSQLD_PID: &str = database::PID_FILE;

fn durability(pair: &Pair, number: usize) -> String {
    let status = pair.servers[number].status();
    status.map_or_else(|why| why, |it| it["database"]["durability"].as_str().unwrap_or("").into())
}

fn wait_for(pair: &Pair, number: usize, words: &str, limit: Duration) -> Outcome<Duration> {
    wait_until(&format!("writes are acknowledged {words}"), limit, || {
        durability(pair, number).starts_with(words)
    })
    .map_err(|why| format!("{why}; they are {}", durability(pair, number)))
}

/// Whether this build of the server has semi-synchronous replication at all.
fn has_semi_sync() -> bool {
    flavour().name != "mysql56"
}

#[test]
fn a_replica_that_hangs_holds_writes_for_a_moment_and_is_said_to_be_left_behind() {
    if !has_semi_sync() {
        return;
    }
    on_a_pair(|pair| {
        wait_for(pair, 0, "by both hosts", SETTLED)?;
        let load = pair.load_at(Rates { writes: 20, ..Rates::STEADY })?;
        std::thread::sleep(Duration::from_secs(1));
        let at = Instant::now();
        pair.servers[1].host.signal(MYSQLD_PID, Signal::SIGSTOP)?;
        wait_until("writes go on", Duration::from_secs(6), || {
            load.has_good(Kind::Write, at + Duration::from_millis(500))
        })?;
        println!("writes went on after {:?}", at.elapsed());
        wait_for(pair, 0, "by this host alone", Duration::from_secs(3))?;
        pair.servers[1].host.signal(MYSQLD_PID, Signal::SIGCONT)?;
        wait_for(pair, 0, "by both hosts", SETTLED)?;
        pair.wait_settled(0, SETTLE_LIMIT)?;
        nothing_is_lost(pair, &load.finish()?)
    });
}

#[test]
fn writes_wait_for_the_replica_where_that_is_wanted() {
    if !has_semi_sync() {
        return;
    }
    let config = EXAMPLE.replacen("[repl] ", "[repl]\ndurability = \"wait\" ", 1);
    let mut pair = Pair::new(flavour()).unwrap_or_else(|why| panic!("{why}"));
    let run = |pair: &mut Pair| {
        for number in 0..2 {
            pair.configure(number, &config)?;
            pair.start_tandem(number)?;
        }
        pair.wait_settled(0, SETTLE_LIMIT)?;
        pair.make_schema()?;
        wait_for(pair, 0, "by both hosts", SETTLED)?;
        database::kill(&pair.servers[1].host)?;
        let at = Instant::now();
        let load = pair.load_at(Rates { writes: 5, ..Rates::STEADY })?;
        wait_for(pair, 0, "once server2 is back", Duration::from_secs(10))?;
        std::thread::sleep(Duration::from_secs(3));
        check(!load.has_good(Kind::Write, at), || "a write was acknowledged".into())?;
        database::start(&mut pair.servers[1].host, &pair.flavour)?;
        wait_until("writes go on", SETTLED, || load.has_good(Kind::Write, at))?;
        pair.wait_settled(0, SETTLE_LIMIT)?;
        nothing_is_lost(pair, &load.finish()?)
    };
    if let Err(why) = run(&mut pair) {
        panic!("{why}\n{}", pair.logs());
    }
}

#[test]
fn the_role_moves_with_the_sources_half() {
    if !has_semi_sync() {
        return;
    }
    on_a_pair(|pair| {
        wait_for(pair, 0, "by both hosts", SETTLED)?;
        let load = pair.load()?;
        for active in [1, 0, 1] {
            pair.servers[active]
                .host
                .run_within(SETTLED * 3, &["tandem", "switchover", "--yes"])?;
            pair.wait_settled(active, SETTLE_LIMIT)?;
            wait_for(pair, active, "by both hosts", SETTLED)?;
        }
        nothing_is_lost(pair, &load.finish()?)
    });
}

#[test]
fn no_acknowledged_write_is_lost_when_the_sources_database_is_killed() {
    on_a_pair(|pair| {
        let load = pair.load_at(Rates { writes: 100, ..Rates::STEADY })?;
        let mut active = 0;
        for _ in 0..3 {
            if has_semi_sync() {
                wait_for(pair, active, "by both hosts", SETTLED)?;
            }
            std::thread::sleep(Duration::from_secs(1));
            database::kill(&pair.servers[active].host)?;
            wait_until("the other one is the source", SETTLED, || {
                pair.servers[1 - active].role() == "active"
            })?;
            database::start(&mut pair.servers[active].host, &pair.flavour)?;
            active = 1 - active;
            let whole = pair.wait_settled(active, Duration::from_secs(20));
            if pair.servers[1 - active].role() == "refused" {
                // It holds a commit that the survivor lacks, and that may have been acknowledged:
                // a database that was stopped in order does that, and looks the same.
                break;
            }
            whole?;
        }
        let records = load.finish()?;
        has_all_acknowledged(&pair.servers[active].rows()?, &records)
    });
}

#[test]
fn a_sources_half_that_somebody_turned_on_at_the_replica_is_turned_off() {
    if flavour().name != "mariadb" {
        return;
    }
    on_a_pair(|pair| {
        wait_for(pair, 0, "by both hosts", SETTLED)?;
        let replica = &pair.servers[1].host;
        database::ask(replica, "SET GLOBAL rpl_semi_sync_master_enabled=ON")?;
        let load = pair.load()?;
        wait_until("it is off again", Duration::from_secs(5), || {
            let seen = database::ask(replica, "SELECT @@GLOBAL.rpl_semi_sync_master_enabled");
            seen.is_ok_and(|rows| rows[0][0] == "0")
        })?;
        std::thread::sleep(Duration::from_secs(2));
        pair.wait_settled(0, SETTLE_LIMIT)?;
        nothing_is_lost(pair, &load.finish()?)
    });
}

/// The source dies while commits wait: what was written in them cannot be sent any more, since its
/// cable to the replica was cut that long before.
fn dies_in_commits(
    pair: &mut Pair,
    active: usize,
    first_id: u64,
    cut_for: Duration,
) -> Outcome<Vec<Record>> {
    wait_for(pair, active, "by both hosts", SETTLED)?;
    let load = pair.load_from(first_id, Rates { writes: 100, ..Rates::STEADY })?;
    std::thread::sleep(Duration::from_secs(6));
    pair.world.mute(pair.servers[active].name(), Link::Inside, true)?;
    std::thread::sleep(cut_for);
    pair.power_off(active)?;
    wait_until("the other one serves", SETTLED, || pair.servers[1 - active].role() == "active")?;
    pair.power_on(active)?;
    load.finish()
}

/// As it is when the power went before the last step: the names are gone, and nothing says so.
fn a_cut_off_end_is_finished(pair: &mut Pair) -> Outcome<()> {
    let saved = pair.servers[0].host.live_path("/var/lib/tandem/errant/1")?;
    let report = std::fs::read(saved.join("report.json")).map_err(text)?;
    let report: serde_json::Value = serde_json::from_slice(&report).map_err(text)?;
    let digest = report["digest"].as_str().ok_or("report.json has no digest")?;
    std::fs::remove_file(saved.join("discarded")).map_err(text)?;
    for statement in [
        "CREATE DATABASE IF NOT EXISTS tandem",
        "CREATE TABLE tandem.taken_back (digest CHAR(64) NOT NULL PRIMARY KEY) ENGINE=InnoDB",
        &format!("INSERT INTO tandem.taken_back VALUES ('{digest}')"),
    ] {
        database::ask_unlogged(&pair.servers[0].host, &pair.flavour, statement)?;
    }
    pair.stop_tandem(0)?;
    pair.start_tandem(0)?;
    let marker = "SELECT 1 FROM information_schema.TABLES WHERE TABLE_NAME='taken_back'";
    wait_until("it is finished", SETTLE_LIMIT, || {
        let left = database::ask(&pair.servers[0].host, marker);
        saved.join("discarded").exists() && left.is_ok_and(|rows| rows.is_empty())
    })?;
    pair.wait_settled(1, SETTLE_LIMIT).map(drop)
}

/// Law 2 of facts/repl.md section 5, and the way back of the one that died: by itself where nobody
/// was told that these writes are done; where somebody may have been, an operator decides.
#[test]
fn what_nobody_was_told_is_done_is_taken_back_and_nothing_else() {
    if !has_semi_sync() {
        return;
    }
    on_a_pair(|pair| {
        let records = dies_in_commits(pair, 0, 1, Duration::from_millis(250))?;
        pair.wait_settled(1, SETTLE_LIMIT)?;
        let taken_back = "/var/lib/tandem/errant/1/discarded";
        let at = pair.servers[0].host.live_path(taken_back)?;
        check(at.exists(), || "nothing was taken back".into())?;
        nothing_is_lost(pair, &records)?;
        a_cut_off_end_is_finished(pair)?;

        let records = dies_in_commits(pair, 1, 100_000, Duration::from_millis(3500))?;
        wait_until("it is refused", SETTLE_LIMIT, || {
            let says = pair.servers[1].status().unwrap_or_default()["findings"].to_string();
            says.contains("`tandem rejoin --discard`")
        })?;
        std::thread::sleep(Duration::from_secs(3));
        let at = pair.servers[1].host.live_path(taken_back)?;
        check(!at.exists() && pair.servers[1].role() == "refused", || "taken back".into())?;
        let both = [pair.servers[0].rows()?, pair.servers[1].rows()?].concat();
        has_all_acknowledged(&both, &records)
    });
}
