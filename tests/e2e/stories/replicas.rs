//! Replicas that are not what they seem when the source dies, or that have too much.
//!
//! In: a scene. Out: laws of facts/repl.md section 5, 8, 14, 15, 24 and 25.

use std::time::{Duration, Instant};

use super::stage::{Ending, Scene, Story, findings, seen};
use crate::load::Kind;
use crate::pair::SETTLE_LIMIT;
use crate::world::{Outcome, wait_until};
use crate::{check, database};

const TAKEN: Duration = Duration::from_secs(8);
/// A promotion that can be is over long before.
const REFUSED: Duration = Duration::from_secs(2);
const SAVED: Duration = Duration::from_secs(20);

pub fn all() -> Vec<Story> {
    use Ending::{Moves, Stays};
    vec![
        Story::new("a replica with errant rows", Stays, errant_rows),
        Story::new(
            "the active host dies with its replica's applier stopped",
            Moves,
            applier_stopped,
        ),
        Story::new("the active host dies with its replica's applier broken", Stays, applier_broken),
    ]
}

/// Statements of an administrator on a host that is closed for everybody else.
fn by_hand(scene: &Scene<'_>, number: usize, statements: &[&str]) -> Outcome<()> {
    let host = &scene.pair.servers[number].host;
    let is_strict = scene.pair.flavour.name == "mysql97";
    if is_strict {
        database::ask(host, "SET GLOBAL super_read_only=OFF")?;
    }
    let done = statements.iter().try_for_each(|it| database::ask(host, it).map(drop));
    if is_strict {
        database::ask(host, "SET GLOBAL super_read_only=ON")?;
    }
    done
}

/// What an administrator wrote while tandem was away is refused, saved, and taken back by the one
/// command that the status names.
fn errant_rows(scene: &mut Scene<'_>) -> Outcome<()> {
    let standby = scene.standby;
    scene.pair.stop_tandem(standby)?;
    by_hand(
        scene,
        standby,
        &[
            "INSERT INTO app.written VALUES (900001, 'by hand', 2)",
            "INSERT INTO app.written VALUES (900002, 'by hand', 2)",
        ],
    )?;
    scene.pair.start_tandem(standby)?;
    scene.wait_role(standby, "refused", SETTLE_LIMIT)?;
    wait_until("they are saved", SAVED, || {
        errant(scene, "directory").starts_with("\"/var/lib/tandem/errant/")
    })
    .map_err(|why| format!("{why}: {}", errant(scene, "obstacle")))?;
    let directory = errant(scene, "directory").trim_matches('"').to_owned();
    let text = scene.pair.servers[standby].host.live_path(&format!("{directory}/events.sql"))?;
    let text = std::fs::read_to_string(text).map_err(|error| error.to_string())?;
    check(text.contains("(900002, 'by hand', 2)"), || text)?;
    let (has_rejoined, said) = scene.tandem(standby, &["rejoin"])?;
    check(!has_rejoined && said.contains("2 transactions"), || said.clone())?;
    check(said.contains(&directory) && said.contains("--discard"), || said)?;
    check(scene.role(standby) == "refused", || seen(scene.pair))?;
    let (has_rejoined, said) = scene.tandem(standby, &["rejoin", "--discard", "--yes"])?;
    check(has_rejoined, || said)?;
    scene.pair.wait_settled(scene.active, SETTLE_LIMIT)?;
    let ids = "SELECT COUNT(*) FROM app.written WHERE id>900000";
    let left = database::ask(&scene.pair.servers[standby].host, ids)?;
    check(left == [["0"]], || format!("{left:?} rows are still there"))?;
    check(errant(scene, "gtids") == "null", || errant(scene, "gtids"))?;
    let (has_rejoined, said) = scene.tandem(standby, &["rejoin"])?;
    check(has_rejoined && said.contains("standby already"), || said)?;
    let (is_done, said) = scene.tandem(standby, &["rejoin", "--discard", "--yes"])?;
    check(!is_done && said.contains("nothing to take back"), || said)
}

/// Of the database's status on the standby host.
fn errant(scene: &Scene<'_>, name: &str) -> String {
    let status = scene.pair.servers[scene.standby].status();
    status.map_or_else(|why| why, |it| it["database"]["errant"][name].to_string())
}

fn applier_statement(scene: &Scene<'_>, verb: &str) -> String {
    let word = if scene.pair.flavour.name == "mysql97" { "REPLICA" } else { "SLAVE" };
    format!("{verb} {word} SQL_THREAD")
}

/// What was received before the source died is applied before anything is opened.
fn applier_stopped(scene: &mut Scene<'_>) -> Outcome<()> {
    let stop = applier_statement(scene, "STOP");
    by_hand(scene, scene.standby, &[&stop])?;
    let stopped = Instant::now();
    wait_until("a write is received and not applied", Duration::from_secs(2), || {
        scene.load.has_good(Kind::Write, stopped)
    })?;
    let at = scene.pair.power_off(scene.active)?;
    scene.taken_over(at, TAKEN)?;
    scene.pair.power_on(scene.active)
}

/// It cannot apply what it received, and must not serve without it. The source, once it is back,
/// serves; the replica says what is wrong, and goes on when an administrator has mended it.
fn applier_broken(scene: &mut Scene<'_>) -> Outcome<()> {
    let (active, standby) = (scene.active, scene.standby);
    let last = scene.load.records().iter().filter_map(|it| it.id).max().unwrap_or(0);
    let row = format!("INSERT INTO app.written VALUES ({}, 'in the way', 0)", last + 25);
    // A SET of a session and the statement under it, in one connection.
    let host = &scene.pair.servers[standby].host;
    database::ask_unlogged(host, &scene.pair.flavour, &row)?;
    wait_until("the applier is broken", Duration::from_secs(10), || {
        let status = scene.pair.servers[standby].status().unwrap_or_default();
        status["database"]["error"].as_str().is_some_and(names_the_error)
    })
    .map_err(|why| format!("{why}; seen: {}", seen(scene.pair)))?;
    scene.pair.power_off(active)?;
    scene.wait_role(standby, "promoting", TAKEN)?;
    std::thread::sleep(REFUSED);
    let closed = database::ask(&scene.pair.servers[standby].host, "SELECT @@GLOBAL.read_only")?;
    check(closed == [["1"]], || format!("it was opened: {}", seen_of(scene)))?;
    let status = scene.pair.servers[standby].status()?;
    let error = status["database"]["error"].as_str().unwrap_or_default();
    check(names_the_error(error), || format!("it does not say why: {}", seen_of(scene)))?;
    scene.pair.power_on(active)?;
    scene.wait_role(active, "active", SETTLE_LIMIT).map_err(|why| {
        format!("{why}; findings: {} | {}", findings(scene.pair, 0), findings(scene.pair, 1))
    })?;
    let row = format!("DELETE FROM app.written WHERE id={}", last + 25);
    let host = &scene.pair.servers[standby].host;
    database::ask_unlogged(host, &scene.pair.flavour, &row)?;
    let start = applier_statement(scene, "START");
    by_hand(scene, standby, &[&start])
}

/// MySQL's coordinator says which worker failed, and the worker says why.
fn names_the_error(error: &str) -> bool {
    error.contains("Duplicate") || error.contains("failed executing transaction")
}

fn seen_of(scene: &Scene<'_>) -> String {
    scene.pair.servers[scene.standby].summary()
}
