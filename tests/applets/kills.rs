//! Source kills: a source is killed (SIGKILL) under load, its replica promoted, and what was
//! acknowledged is looked for there; then the roles are the other way round.
//!
//! In: a pair, how often, with semi-synchronous replication or without. Out: counts.
//! Must not: forgive anything: a pair that does not come together again ends the run.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use tandem::os::errant::{Step, discard, save};
use tandem::repl::{Failure, Job};

use super::pair::{ADMIN, APP, Host, Pair, Recipe, Server, log_in};

/// What the kills came to.
#[derive(Debug, Default)]
pub(crate) struct Kills {
    pub(crate) acknowledged: usize,
    pub(crate) lost: usize,
    /// Old sources that had what the new one has not, and had it taken back.
    pub(crate) errant: usize,
    pub(crate) promotions: Vec<Duration>,
}

const WRITERS: u32 = 4;

/// Writes until its server is gone; yields what was acknowledged.
fn writer(address: SocketAddr, first: u32) -> JoinHandle<Vec<u32>> {
    thread::spawn(move || {
        let mut conn = log_in(address, APP).expect("the source is up");
        let mut acknowledged = Vec::new();
        for id in first..first + 1_000_000 {
            if conn.query_drop(format!("INSERT INTO app.t VALUES ({id}, 'k')")).is_err() {
                break;
            }
            acknowledged.push(id);
        }
        acknowledged
    })
}

pub(crate) fn kill_sources(recipe: &'static Recipe, times: u32, is_semi_sync: bool) -> Kills {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    let directory = std::env::temp_dir().join(format!("tandem-kills-{}", pair.a.address.port()));
    let mut kills = Kills::default();
    for round in 0..times {
        let Pair { a, b, host_a, host_b } = &mut pair;
        let (old, on_old, new, on_new) =
            if round % 2 == 0 { (a, host_a, b, host_b) } else { (b, host_b, a, host_a) };
        if is_semi_sync {
            turn_on(on_old, on_new);
        }
        kill_one(round, old, new, on_new, &mut kills);
        come_back(old, on_old, on_new, &directory, &mut kills);
        new.run("DELETE FROM app.t");
    }
    let _best_effort = std::fs::remove_dir_all(&directory);
    kills
}

fn turn_on(source: &mut Host, replica: &mut Host) {
    let halves = |is_source| Job::SemiSync { is_source, is_replica: true };
    replica.job(halves(false)).expect("the replica's half");
    source.job(halves(true)).expect("the source's half");
    let began = Instant::now();
    while !source.observe().semi_sync.is_in_force() {
        assert!(began.elapsed() < Duration::from_secs(20), "the replica does not acknowledge");
    }
}

fn kill_one(round: u32, old: &mut Server, new: &Server, on_new: &mut Host, kills: &mut Kills) {
    // Every round writes its own numbers: a row that comes back would be seen.
    let base = 1 + round % 200 * WRITERS * 1_000_000;
    let writers: Vec<_> = (0..WRITERS).map(|n| writer(old.address, base + n * 1_000_000)).collect();
    sleep(Duration::from_millis(200 + u64::from(round % 7) * 37));
    old.crash();
    let acknowledged: Vec<u32> =
        writers.into_iter().flat_map(|it| it.join().expect("a writer ends")).collect();
    let began = Instant::now();
    on_new.job(Job::Promote).expect("the replica is promoted");
    kills.promotions.push(began.elapsed());
    let rows: Vec<u32> = new.connect(ADMIN).query("SELECT id FROM app.t").expect("a read");
    let rows: BTreeSet<u32> = rows.into_iter().collect();
    kills.acknowledged += acknowledged.len();
    kills.lost += acknowledged.iter().filter(|id| !rows.contains(id)).count();
}

/// The old source follows; what it had too much is taken back.
fn come_back(
    old: &mut Server,
    on_old: &mut Host,
    on_new: &mut Host,
    directory: &Path,
    kills: &mut Kills,
) {
    old.start(&["--read-only=1"]);
    on_old.restart();
    on_old.job(Job::Fence).expect("the old source is fenced");
    let known = on_new.position();
    let mut followed = on_old.job(Job::Follow { peer_position: Some(known.clone()) });
    if let Err(Failure::Diverged { .. }) = &followed {
        kills.errant += 1;
        let saved = save(&old.login(), &known, directory).expect("they are saved");
        discard(&old.login(), &saved, Step::Over).expect("they are taken back");
        followed = on_old.job(Job::Follow { peer_position: Some(on_new.position()) });
    }
    followed.expect("the old source follows");
    let position = on_new.position();
    let limit = Duration::from_secs(30);
    on_old.job(Job::CatchUp { position, limit }).expect("it catches up");
}
